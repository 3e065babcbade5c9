"""The registry: a row for each rule and set of options that changes its structure. Each keeps all promises."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytensor.tensor as pt

import optapi
from optapi.testing import Case


README = Path(__file__).parent.parent / "README.md"


def readme_blocks() -> list[str]:
    """The Python code blocks of the README."""
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)


def readme_rule() -> Callable[..., Any]:
    """The rule that the README writes."""
    [block] = [block for block in readme_blocks() if block.startswith("def sign_descent(")]
    namespace: dict[str, Any] = {"__name__": "readme", "optapi": optapi, "pt": pt}
    exec(block, namespace)
    return namespace["sign_descent"]


def not_b(parameter: Any) -> bool:
    """A choice of parameters for `partition`, which takes at least one of those in the contract tests."""
    return parameter.name != "b"


@dataclass(frozen=True)
class Everywhere(optapi.manifolds.Manifold):
    """All of space, so that the promises hold for a rule that stays on it."""

    def _project(self, v: Any) -> Any:
        return v

    def _tangent(self, x: Any, v: Any) -> Any:
        return v

    def _curve(self, x: Any, v: Any) -> Any:
        return lambda a: (x + a * v, v)


ROWS = [
    Case(optapi.sgd, {"step_size": 0.1}),
    Case(optapi.sgd, {"step_size": 0.1, "momentum": 0.5}),
    Case(optapi.sgd, {"step_size": 0.1, "momentum": 0.5, "nesterov": True}),
    Case(optapi.sgd, {"step_size": 0.1, "momentum": 0.5, "dampening": 0.25}),
    Case(optapi.momentum, {"step_size": 0.1, "momentum": 0.5}),
    Case(optapi.nesterov, {"step_size": 0.1, "momentum": 0.5}),
    Case(optapi.adagrad, {"step_size": 0.1}, settling_step_size=0.5),
    Case(optapi.adadelta, {}, settles=False),
    Case(optapi.rmsprop, {"step_size": 0.01}, settles=False),
    Case(optapi.rmsprop, {"step_size": 0.01, "centered": True, "momentum": 0.5}, settles=False),
    Case(optapi.adam, {"step_size": 0.1}),
    Case(optapi.adam, {"step_size": 0.1, "amsgrad": True, "mean_weight": 0.5, "mean_square_weight": 0.75}),
    Case(optapi.adam, {"step_size": 0.1, "bounds": (-0.75, None)}),
    Case(optapi.adamw, {"step_size": 0.1}),
    Case(optapi.adamax, {"step_size": 0.1}),
    Case(optapi.nadam, {"step_size": 0.1}),
    Case(optapi.radam, {"step_size": 0.1}),
    Case(optapi.lion, {"step_size": 0.1}, settles=False),
    Case(optapi.signum, {"step_size": 0.1, "decay": 0.01}, settles=False),
    Case(optapi.adabelief, {"step_size": 0.1}),
    Case(optapi.adan, {"step_size": 0.1}),
    Case(optapi.ademamix, {"step_size": 0.1, "warm_up": 100}, settles=False),
    Case(optapi.adopt, {"step_size": 0.1}),
    Case(optapi.mars, {"step_size": 0.1, "second_gradient": True}),
    Case(optapi.yogi, {"step_size": 0.1}),
    Case(optapi.laprop, {"step_size": 0.1}),
    Case(optapi.qhm, {"step_size": 0.1}),
    Case(optapi.qhadam, {"step_size": 0.1}),
    Case(optapi.aggmo, {"step_size": 0.1}),
    Case(optapi.madgrad, {"step_size": 0.1}),
    Case(optapi.lamb, {"step_size": 0.1}, settles=False),
    Case(optapi.lars, {"step_size": 0.1, "trust": 1.0}, settles=False),
    Case(optapi.novograd, {"step_size": 0.05}, settles=False),
    Case(optapi.prodigy, {"initial": 0.01}),
    Case(optapi.dog, {"initial_distance": 0.1}, settling_step_size=1.0),
    Case(optapi.polyak_sgd, {"step_size": 0.25}),
    Case(optapi.adafactor, {"step_size": 0.1}, settles=False),
    Case(optapi.momo, {"step_size": 0.25}),
    Case(optapi.d_adaptation, {"initial": 0.01}),
    Case(optapi.came, {"step_size": 0.1}),
    Case(optapi.sm3, {"step_size": 0.1}, settling_step_size=0.5),
    Case(optapi.scion, {"step_size": 0.1}, settles=False),
    Case(optapi.muon, {"step_size": 0.1}, settles=False),
    Case(optapi.normuon, {"step_size": 0.5}, settles=False),
    Case(optapi.kron, {"step_size": 0.1}, settles=False),
    Case(optapi.shampoo, {"step_size": 0.1, "every": 2, "largest": 2}),
    Case(optapi.soap, {"step_size": 0.1, "every": 2, "epsilon": 1e-4, "largest": 2}),
    Case(optapi.sophia, {"step_size": 0.1, "scale": 1.0, "every": 3}),
    Case(optapi.sophia, {"step_size": 0.1, "scale": 1.0, "every": 3, "curvature": "diagonal"}),
    Case(optapi.adahessian, {"step_size": 0.1}),
    Case(optapi.partition, {"groups": [(not_b, optapi.adam)], "otherwise": optapi.sgd, "step_size": 0.1}),
    Case(optapi.delta_bar_delta, {"step_size": 0.1}),
    Case(optapi.delta_bar_delta, {"step_size": 0.1, "variant": "extended"}),
    Case(optapi.delta_bar_delta, {"step_size": 0.1, "variant": "gains"}),
    Case(optapi.rprop, {"step_size": 0.1}),
    Case(optapi.rprop, {"step_size": 0.1, "variant": "irprop+"}),
    Case(optapi.super_sab, {"step_size": 0.1, "momentum": 0.5}),
    Case(optapi.quickprop, {"step_size": 0.1}),
    Case(optapi.idbd, {"step_size": 0.1}),
    Case(optapi.smd, {"step_size": 0.1}),
    Case(optapi.vsgd, {"samples": 0}),
    Case(optapi.hypergradient, {"step_size": 0.1}),
    Case(optapi.hypergradient, {"step_size": 0.1, "direction": "adam", "multiplicative": True}),
    Case(optapi.lbfgs, {}),
    Case(optapi.lbfgs, {"memory": 2, "exact": False}),
    Case(optapi.lbfgs, {"bounds": (-0.75, None)}),
    Case(optapi.lbfgs, {"l1": 0.0}),
    Case(optapi.lbfgs, {"manifold": Everywhere()}),
    Case(optapi.bfgs, {}),
    Case(optapi.sr1, {}),
    Case(optapi.barzilai_borwein, {}),
    Case(optapi.conjugate_gradient, {"restart_every": 3, "exact": False}),
    Case(optapi.fletcher_reeves, {}),
    Case(optapi.polak_ribiere, {}),
    Case(optapi.hestenes_stiefel, {}),
    Case(optapi.dai_yuan, {}),
    Case(optapi.hager_zhang_cg, {}),
    Case(optapi.hager_zhang_cg, {"manifold": Everywhere()}),
    Case(optapi.scaled_conjugate_gradient, {}),
    Case(optapi.hessian_free, {"steps": 10}),
    Case(optapi.krylov_subspace_descent, {"dimensions": 3}),
    Case(optapi.sgd_qn, {"step_size": 0.1, "skip": 2}, settles=False),
    Case(
        optapi.sgd_qn,
        {"step_size": 0.1, "skip": 2, "regularization": 0.01, "variant": "2009"},
        settles=False,
    ),
    Case(optapi.olbfgs, {"memory": 3, "epsilon": 0.1}),
    Case(optapi.sqn, {"memory": 3, "every": 2}),
    Case(optapi.ada_qn, {"memory": 3, "every": 2, "gradient_memory": 4}, settling_step_size=0.5),
    Case(optapi.tonga, {"step_size": 0.1, "rank": 2, "every": 3}, settling_step_size=1.0),
    Case(optapi.tonga, {"step_size": 0.1, "rank": 1, "every": 2, "block": "row", "normalize": True}),
    Case(optapi.newton, {}),
    Case(optapi.newton_cg, {}),
    Case(optapi.newton_cg, {"escape": True}),
    Case(optapi.trust_region_cg, {}),
    Case(optapi.trust_region_cg, {"escape": True}),
    Case(optapi.newton_cg, {"x_scale": "curvature", "preconditioner": "curvature"}),
    Case(optapi.gauss_newton, {}),
    Case(optapi.levenberg_marquardt, {}),
    Case(optapi.levenberg_marquardt, {"bounds": (-0.75, None)}),
    Case(optapi.sqp, {"bounds": (-0.75, None)}),
    Case(optapi.augmented_lagrangian, {}),
    Case(optapi.ftrl, {"step_size": 0.1, "l1": 0.0, "l2": 0.0}, settling_step_size=0.5),
    Case(optapi.rda, {"step_size": 0.1, "l1": 0.0}, settles=False),
    Case(optapi.mirror_descent, {"step_size": 0.1, "geometry": "positive"}, settles=False),
    Case(optapi.proximal_gradient, {"prox": optapi.prox.L1(0.0)}),
    Case(optapi.proximal_gradient, {"prox": optapi.prox.L2Ball(100.0), "accelerated": False}),
    Case(optapi.proximal_lbfgs, {"prox": optapi.prox.L1(0.0), "memory": 3}),
    Case(optapi.frank_wolfe, {"region": optapi.prox.L2Ball(10.0)}, settles=False),
    Case(readme_rule(), {"step_size": 0.1}, settles=False),
]


# Rules that evaluate the cost at other points: those that search for a better one, and those that compare gradients.
SEARCHING = {
    *("lbfgs", "bfgs", "sr1", "barzilai_borwein", "scaled_conjugate_gradient", "conjugate_gradient"),
    *("fletcher_reeves", "polak_ribiere", "hestenes_stiefel", "dai_yuan", "hager_zhang_cg"),
    *("hessian_free", "krylov_subspace_descent", "newton", "newton_cg", "trust_region_cg"),
    *("gauss_newton", "levenberg_marquardt", "sqp", "augmented_lagrangian"),
    *("proximal_gradient", "proximal_lbfgs", "frank_wolfe"),
}
COMPARING = {"rprop-step_size=0.1-variant=irprop+", "idbd", "smd", "vsgd", "sgd_qn", "olbfgs", "sqn", "ada_qn"}
COMPARING |= {"polyak_sgd", "momo"}  # which read the value of the cost


def structure(row: Case) -> tuple[str, bool, bool]:
    """What rows have in common: the family, whether they search, and whether they compare gradients."""
    name = row.rule.__name__
    return row.rule.__module__, name in SEARCHING, name in COMPARING or str(row) in COMPARING


def representatives() -> list[Case]:
    """The first row of each structure."""
    first: dict[Any, Case] = {}
    for row in ROWS:
        first.setdefault(structure(row), row)
    return list(first.values())


# On the second version of PyTensor `.ci/run` has one row of each structure, and `make check-all` has all.
SOME_ROWS = representatives() if os.environ.get("OPTAPI_ROWS") == "representative" else ROWS


def required(rule: Callable[..., Any]) -> dict[str, Any]:
    """Penalties and sets that a rule does not go without."""
    given = {"prox": optapi.prox.L1(0.1), "region": optapi.prox.L2Ball()}
    parameters = inspect.signature(rule).parameters
    return {name: v for name, v in given.items() if name in parameters and parameters[name].default is inspect._empty}


def public_rules() -> list[Callable[..., Any]]:
    """The public functions with the signature of a rule."""
    functions = [getattr(optapi, name) for name in optapi.__all__ if inspect.isfunction(getattr(optapi, name))]
    return [f for f in functions if list(inspect.signature(f).parameters)[:3] == ["parameters", "cost", "gradients"]]
