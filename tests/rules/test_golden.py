"""The rules against numbers that other libraries made: those of `golden/torch_rules.json` are PyTorch's."""

import json
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import gradients, schedules


TORCH = json.loads((Path(__file__).parent.parent / "golden" / "torch_rules.json").read_text())
RUNS = {case: run for case, run in TORCH.items() if "points" in run}
RULES = {
    "SGD": optapi.sgd,
    "Adam": optapi.adam,
    "AdamW": optapi.adamw,
    "Adagrad": optapi.adagrad,
    "Adadelta": optapi.adadelta,
    "RMSprop": optapi.rmsprop,
    "Adamax": optapi.adamax,
    "NAdam": optapi.nadam,
    "RAdam": optapi.radam,
}
NAMES = {
    "lr": "step_size",
    "alpha": "mean_square_weight",
    "rho": "mean_square_weight",
    "eps": "epsilon",
    "centered": "centered",
    "initial_accumulator_value": "initial",
}


def translated(rule, options):
    """The options of PyTorch as `rule` calls them; what is not among them has the same default."""
    options = {NAMES.get(name, name): value for name, value in options.items()}
    if "betas" in options:
        second = "norm_weight" if rule is optapi.adamax else "mean_square_weight"
        options["mean_weight"], options[second] = options.pop("betas")
    if rule is optapi.adamw and "weight_decay" in options:
        options["decay"] = options.pop("weight_decay")
    if "lr_decay" in options:
        options["step_size"] = schedules.Power(options["step_size"], 1 / options.pop("lr_decay"))
    if rule is optapi.nesterov:
        options.pop("nesterov")
    return options


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        *((case, RULES[run["optimizer"]]) for case, run in RUNS.items()),
        ("sgd_momentum", optapi.momentum),
        ("sgd_nesterov", optapi.nesterov),
    ],
)
def test_torch(case, rule, compiled):
    x, W = (pytensor.shared(np.array(TORCH[name]), name=name) for name in ("x", "W"))
    cost = pt.sum((W @ x - np.array(TORCH["b"])) ** 2) / 2 + pt.sum(x**4) / 40
    gs, run = pytensor.grad(cost, [x, W]), RUNS[case]
    options = translated(rule, run["options"])
    if "weight_decay" in options:
        gs = gradients.decay(gs, [x, W], options.pop("weight_decay"))
    if run["groups"]:
        options["mask"] = ["weight_decay" not in group for group in run["groups"]]
    step = compiled(rule([x, W], gradients=gs, **options))
    for t, wanted in enumerate(run["points"]):
        step()
        point = np.concatenate([x.get_value(), W.get_value().ravel()])
        assert np.max(np.abs(point - wanted)) <= 1e-12 * np.max(np.abs(wanted)), f"step {t}"
