"""The registry: a row for each rule with the options that change its structure. Every contract test runs every row."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytensor.tensor as pt

import optapi


README = Path(__file__).parent.parent / "README.md"


@dataclass(frozen=True)
class Row:
    """A rule as the contract tests call it.

    `searches` says that it searches along a line, so needs the cost and its own gradients; `needs_cost`, that it does
    not search, and needs them all the same; `residuals`, that it needs residuals; `settles`, that with a constant step
    size, `rest_step`, it comes to rest.
    """

    rule: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    searches: bool = False
    needs_cost: bool = False
    residuals: bool = False
    settles: bool = True
    rest_step: float = 0.05

    def __call__(self, parameters, *args, **kwargs):
        if self.residuals:
            # One residual whose square is twice the cost.
            cost = args[0] if args else kwargs["cost"]
            kwargs["residuals"] = pt.sqrt(2 * abs(cost))[None]
        return self.rule(parameters, *args, **{**self.options, **kwargs})

    def __str__(self):
        return "-".join([self.rule.__name__, *(f"{k}={v}" for k, v in self.options.items())])


def readme_blocks() -> list[str]:
    """The Python code blocks of the README."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)


def readme_rule() -> Callable[..., Any]:
    """The rule that the README writes."""
    [block] = [block for block in readme_blocks() if block.startswith("def sign_descent(")]
    namespace: dict[str, Any] = {"__name__": "readme", "optapi": optapi, "pt": pt}
    exec(block, namespace)
    return namespace["sign_descent"]


ROWS = [
    Row(optapi.sgd, {"step_size": 0.1}),
    Row(optapi.sgd, {"step_size": 0.1, "momentum": 0.5}),
    Row(optapi.sgd, {"step_size": 0.1, "momentum": 0.5, "nesterov": True}),
    Row(optapi.sgd, {"step_size": 0.1, "momentum": 0.5, "dampening": 0.25}),
    Row(optapi.momentum, {"step_size": 0.1, "momentum": 0.5}),
    Row(optapi.nesterov, {"step_size": 0.1, "momentum": 0.5}),
    Row(optapi.adagrad, {"step_size": 0.1}, rest_step=0.5),
    Row(optapi.adadelta, {}, settles=False),
    Row(optapi.rmsprop, {"step_size": 0.01}, settles=False),
    Row(optapi.rmsprop, {"step_size": 0.01, "centered": True, "momentum": 0.5}, settles=False),
    Row(optapi.adam, {"step_size": 0.1}),
    Row(optapi.adam, {"step_size": 0.1, "amsgrad": True, "mean_weight": 0.5, "mean_square_weight": 0.75}),
    Row(optapi.adamw, {"step_size": 0.1}),
    Row(optapi.adamax, {"step_size": 0.1}),
    Row(optapi.nadam, {"step_size": 0.1}),
    Row(optapi.radam, {"step_size": 0.1}),
    Row(optapi.delta_bar_delta, {"step_size": 0.1}),
    Row(optapi.delta_bar_delta, {"step_size": 0.1, "variant": "extended"}),
    Row(optapi.delta_bar_delta, {"step_size": 0.1, "variant": "gains"}),
    Row(optapi.rprop, {"step_size": 0.1}),
    Row(optapi.rprop, {"step_size": 0.1, "variant": "irprop+"}, needs_cost=True),
    Row(optapi.super_sab, {"step_size": 0.1, "momentum": 0.5}),
    Row(optapi.quickprop, {"step_size": 0.1}),
    Row(optapi.idbd, {"step_size": 0.1}, needs_cost=True),
    Row(optapi.smd, {"step_size": 0.1}, needs_cost=True),
    Row(optapi.vsgd, {"samples": 0}, needs_cost=True),
    Row(optapi.hypergradient, {"step_size": 0.1}),
    Row(optapi.hypergradient, {"step_size": 0.1, "direction": "adam", "multiplicative": True}),
    Row(optapi.lbfgs, {}, searches=True),
    Row(optapi.lbfgs, {"memory": 2, "exact": False}, searches=True),
    Row(optapi.bfgs, {}, searches=True),
    Row(optapi.sr1, {}, searches=True),
    Row(optapi.barzilai_borwein, {}, searches=True),
    Row(optapi.conjugate_gradient, {"restart_every": 3, "exact": False}, searches=True),
    Row(optapi.fletcher_reeves, {}, searches=True),
    Row(optapi.polak_ribiere, {}, searches=True),
    Row(optapi.hestenes_stiefel, {}, searches=True),
    Row(optapi.dai_yuan, {}, searches=True),
    Row(optapi.hager_zhang_cg, {}, searches=True),
    Row(optapi.scaled_conjugate_gradient, {}, searches=True),
    Row(optapi.hessian_free, {"steps": 10}, searches=True),
    Row(optapi.krylov_subspace_descent, {"dimensions": 3}, searches=True),
    Row(optapi.sgd_qn, {"step_size": 0.1, "skip": 2}, needs_cost=True, settles=False),
    Row(
        optapi.sgd_qn,
        {"step_size": 0.1, "skip": 2, "regularization": 0.01, "variant": "2009"},
        needs_cost=True,
        settles=False,
    ),
    Row(optapi.olbfgs, {"memory": 3, "epsilon": 0.1}, needs_cost=True),
    Row(optapi.sqn, {"memory": 3, "every": 2}, needs_cost=True),
    Row(optapi.ada_qn, {"memory": 3, "every": 2, "gradient_memory": 4}, needs_cost=True, rest_step=0.5),
    Row(optapi.tonga, {"step_size": 0.1, "rank": 2, "every": 3}, rest_step=1.0),
    Row(optapi.tonga, {"step_size": 0.1, "rank": 1, "every": 2, "block": "row", "normalize": True}),
    Row(optapi.newton, {}, searches=True),
    Row(optapi.newton_cg, {}, searches=True),
    Row(optapi.trust_region_cg, {}, searches=True),
    Row(optapi.gauss_newton, {}, searches=True, residuals=True),
    Row(optapi.levenberg_marquardt, {}, searches=True, residuals=True),
    Row(readme_rule(), {"step_size": 0.1}, settles=False),
]


def public_rules() -> list[Callable[..., Any]]:
    """The public functions with the signature of a rule."""
    functions = [getattr(optapi, name) for name in optapi.__all__ if inspect.isfunction(getattr(optapi, name))]
    return [f for f in functions if list(inspect.signature(f).parameters)[:3] == ["parameters", "cost", "gradients"]]
