"""Points of PyTorch's optimizers, which made torch_rules.json. It needs torch, which optapi and its tests do not.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 numpy
    /tmp/torch/bin/python tests/golden/torch_rules.py > tests/golden/torch_rules.json

The cost is |W x - b|^2 / 2 + sum x^4 / 40, of a vector x and a matrix W. Each run has its options, with a group of
options for x and one for W where they differ, and the components of x and W after each step.
"""

import json
import sys

import torch


STEPS = 10
X = [0.5, -1.0, 2.0]
W = [[1.0, -0.5, 0.25], [-0.75, 1.5, 0.125]]
B = [1.0, -2.0]
RUNS = {
    "sgd": ("SGD", {"lr": 0.02}),
    "sgd_momentum": ("SGD", {"lr": 0.02, "momentum": 0.9}),
    "sgd_dampening": ("SGD", {"lr": 0.02, "momentum": 0.8, "dampening": 0.3}),
    "sgd_nesterov": ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    "sgd_weight_decay": ("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}),
    "adam": ("Adam", {"lr": 0.1}),
    "adam_amsgrad": ("Adam", {"lr": 0.1, "betas": [0.5, 0.75], "eps": 1e-3, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.1}),
    "adamw_amsgrad": ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "betas": [0.8, 0.9], "amsgrad": True}),
    "adamw_mask": ("AdamW", {"lr": 0.1, "weight_decay": 0.5}, {"weight_decay": 0.0}, {}),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad_initial": ("Adagrad", {"lr": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    "adadelta": ("Adadelta", {}),
    "adadelta_paper": ("Adadelta", {"lr": 2.0, "rho": 0.95, "eps": 1e-4}),
    "rmsprop": ("RMSprop", {"lr": 0.02, "alpha": 0.99}),
    "rmsprop_momentum": ("RMSprop", {"lr": 0.02, "momentum": 0.9, "alpha": 0.9}),
    "rmsprop_centred": ("RMSprop", {"lr": 0.02, "alpha": 0.99, "centered": True, "eps": 1e-4}),
    "rmsprop_centred_momentum": ("RMSprop", {"lr": 0.02, "centered": True, "momentum": 0.5, "alpha": 0.9}),
    "adamax": ("Adamax", {"lr": 0.1}),
    "adamax_weights": ("Adamax", {"lr": 0.1, "betas": [0.5, 0.8], "eps": 1e-3}),
    "nadam": ("NAdam", {}),
    "nadam_weights": ("NAdam", {"lr": 0.1, "betas": [0.8, 0.9], "eps": 1e-3, "momentum_decay": 0.1}),
    "radam": ("RAdam", {"lr": 0.1}),
    "radam_weights": ("RAdam", {"lr": 0.1, "betas": [0.8, 0.9], "eps": 1e-3}),
}


def run(optimizer, options, *groups):
    """The components of x and W after each step."""
    x, w, b = torch.tensor(X, requires_grad=True), torch.tensor(W, requires_grad=True), torch.tensor(B)
    grouped = [{"params": [p], **group} for p, group in zip((x, w), groups or ({}, {}), strict=True)]
    step, points = getattr(torch.optim, optimizer)(grouped, **options), []
    for _ in range(STEPS):
        step.zero_grad()
        cost = ((w @ x - b) ** 2).sum() / 2 + (x**4).sum() / 40
        cost.backward()
        step.step()
        points.append([*x.tolist(), *w.flatten().tolist()])
    return points


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    fixed = {"torch": torch.__version__.split("+")[0], "x": X, "W": W, "b": B}
    lines = [f'"{key}": {json.dumps(value)}' for key, value in fixed.items()]
    for case, (optimizer, options, *groups) in RUNS.items():
        made = {"optimizer": optimizer, "options": options, "groups": groups}
        lines.append(f'"{case}": {json.dumps({**made, "points": run(optimizer, options, *groups)})}')
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")
