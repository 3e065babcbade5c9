"""Rules with a rate for each component, compared: full-batch training of a small network on scikit-learn's digits.

Every rule has the same budget, counted in evaluations of the gradient, and the best step size of a grid of its own, by
the training cost at the end; all other options are the defaults. The cost has a small penalty on the weights, without
which it has no minimum. `idbd` is not among them: it is for linear units, where it costs no more than a gradient.
"""

from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import optapi


PICTURE = Path(__file__).with_name("per_parameter_rates.png")
PENALTY = 1e-3
TARGET = 0.15


class Contender(NamedTuple):
    """A rule with its options, the middle of its grid of step sizes, and how many gradients a call costs."""

    rule: object
    middle: float
    options: dict = MappingProxyType({})
    price: int = 1


CONTENDERS = {
    "sgd": Contender(optapi.sgd, 1.0),
    "momentum": Contender(optapi.momentum, 0.3),
    "adam": Contender(optapi.adam, 0.03),
    "rprop-": Contender(optapi.rprop, 0.01, {"variant": "rprop-"}),
    "rprop+": Contender(optapi.rprop, 0.01, {"variant": "rprop+"}),
    "irprop-": Contender(optapi.rprop, 0.01, {"variant": "irprop-"}),
    "irprop+": Contender(optapi.rprop, 0.01, {"variant": "irprop+"}),
    "delta-bar-delta": Contender(optapi.delta_bar_delta, 1.0),
    "extended": Contender(optapi.delta_bar_delta, 1.0, {"variant": "extended"}),
    "gains": Contender(optapi.delta_bar_delta, 0.3, {"variant": "gains"}),
    "super_sab": Contender(optapi.super_sab, 0.3),
    "quickprop": Contender(optapi.quickprop, 0.3),
    "hypergradient sgd": Contender(optapi.hypergradient, 1.0, {"multiplicative": True}),
    "hypergradient nesterov": Contender(optapi.hypergradient, 0.3, {"direction": "nesterov", "multiplicative": True}),
    "hypergradient adam": Contender(optapi.hypergradient, 0.03, {"direction": "adam", "multiplicative": True}),
    "smd": Contender(optapi.smd, 1.0, price=3),
    "vsgd": Contender(optapi.vsgd, 0.3, {"samples": 1}, price=2),
}


def main(budget=100, grid=(0.1, 0.3, 1.0, 3.0, 10.0), names=tuple(CONTENDERS), path=PICTURE):
    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images / 16, digits, test_size=1 / 2, stratify=digits, random_state=0)
    images, test_images, digits, test_digits = split

    rng = np.random.default_rng(0)
    shapes = {"W1": (64, 20), "b1": (20,), "W2": (20, 10), "b2": (10,)}
    starts = [rng.normal(scale=shape[0] ** -0.5 if len(shape) == 2 else 0, size=shape) for shape in shapes.values()]
    parameters = [pytensor.shared(start, name=name) for name, start in zip(shapes, starts, strict=True)]
    W1, b1, W2, b2 = parameters

    def scores(x):
        return pt.tanh(x @ W1 + b1) @ W2 + b2

    data, labels = pt.constant(images), np.eye(10)[digits]
    penalty = PENALTY / 2 * sum(pt.sum(p**2) for p in parameters)
    cost = penalty - pt.sum(labels * pt.special.log_softmax(scores(data), axis=1)) / len(digits)
    accuracy = pytensor.function(
        [], pt.eq(scores(pt.constant(test_images)).argmax(axis=1), test_digits).mean(), mode=optapi.PYTHON
    )
    value = pytensor.function([], cost, mode=optapi.PYTHON)

    results = {}
    print(f"{len(digits)} images, {sum(start.size for start in starts)} weights, {budget} gradients for each run\n")
    print(f"rule                     step size   cost: best   median   gradients to {TARGET}   test accuracy")
    for name in names:
        rule, middle, options, price = CONTENDERS[name]
        step_size = pytensor.shared(np.float64(middle))
        updates = rule(parameters, cost, step_size=step_size, **options)
        begin = {variable: variable.get_value() for variable in updates}
        begin.update(zip(parameters, starts, strict=True))
        step = pytensor.function([], cost, updates=updates, mode=optapi.PYTHON)

        runs = {}
        for factor in grid:
            step_size.set_value(factor * middle)
            for variable, start in begin.items():
                variable.set_value(start)
            with np.errstate(all="ignore"):  # too large a step size may end in an overflow
                costs = [float(step()) for _ in range(budget // price)]
                costs.append(float(value()))
            costs = np.where(np.isfinite(costs), costs, np.inf)
            runs[factor] = costs, 100 * float(accuracy())
        best = min(runs, key=lambda factor: runs[factor][0][-1])
        costs, right = runs[best]
        reached = np.flatnonzero(costs <= TARGET)
        results[name] = price * np.arange(len(costs)), costs
        print(
            f"{name:22}   {best * middle:6.3g}{'*' if best in (grid[0], grid[-1]) else ' '}     {costs[-1]:10.3g}"
            f"   {np.median([run[-1] for run, _ in runs.values()]):6.3g}"
            f"   {str(price * reached[0]) if reached.size else '-':>17}   {right:11.1f} %"
        )
    print("\n* at the end of its grid: a better step size may lie beyond")

    figure = Figure(figsize=(10, 5.2), layout="constrained")
    axes = figure.subplots()
    styles = [(colour, line) for line in ("-", "--", ":") for colour in (f"C{i}" for i in range(6))]
    for (name, (gradients, costs)), (colour, line) in zip(results.items(), styles, strict=False):
        axes.plot(gradients, costs, color=colour, linestyle=line, label=name)
    axes.set(
        xlabel="evaluations of the gradient", ylabel="training cost (nats per image)", yscale="log", ylim=(0.13, 3)
    )
    axes.set_title("A network of 20 hidden units learns 898 digits, full batch, with the best step size of a grid")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")
    return {name: costs[-1] for name, (_, costs) in results.items()}


if __name__ == "__main__":
    main()
