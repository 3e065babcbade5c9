# ruff: noqa: T201
"""Ten rules for training with tuned step sizes, on two networks on the digits of scikit-learn.

Run by hand: ``python tests/benchmarks/training.py --output docs/training_problems.md``.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import optapi
from optapi import schedules


EPOCHS, SIZE, WARM_UP = 20, 64, 0.05
TRIES, COARSE, FINE = 8, 10**0.5, 10**0.25
TUNING_SEEDS, SEEDS = (100, 101), range(5)

# Each with the step size of the first try. All decays are 0: what is compared is how far they lower the cost.
RULES = {
    "sgd": (partial(optapi.sgd, momentum=0.9, nesterov=True), 0.1),
    "adamw": (partial(optapi.adamw, decay=0.0), 1e-2),
    "lion": (optapi.lion, 1e-3),
    "adan": (optapi.adan, 1e-2),
    "ademamix": (partial(optapi.ademamix, warm_up=400), 1e-2),
    "sophia": (partial(optapi.sophia, decay=0.0), 1e-3),
    "muon": (partial(optapi.muon, decay=0.0, others=partial(optapi.adamw, decay=0.0)), 1e-2),
    "shampoo": (optapi.shampoo, 1e-2),
    "soap": (partial(optapi.soap, decay=0.0), 1e-2),
    "kron": (optapi.kron, 1e-2),
}

INTRODUCTION = """# Rules for training, compared

Ten rules on two networks on the 1797 digits of scikit-learn, three quarters of them to train. This page is written by
`python tests/benchmarks/training.py --output docs/training_problems.md`; do not edit it.

- **classifier**: 64-64-10, tanh, cross-entropy. **autoencoder**: 64-48-16-48-64, tanh, half the squared error of an
  image.
- {steps} updates in batches of {size}. The step size rises in the first {warm:.0%} and falls to 0 along half a cosine.
- Each rule has {tries} step sizes to try, the first ones by factors of {coarse:.2f} from a usual one to where the cost
  rises again, then by {fine:.2f}; what counts is the cost of all training data at the end, in the mean of
  {tuning} seeds. All other options are the defaults, but for decays, which are 0, Nesterov's momentum 0.9 in `sgd`, and
  a `warm_up` of 400 in `ademamix`, whose slow mean is made for runs of many thousands of updates.
- Then {seeds} other seeds, of the first weights and of the order of the images. Cells are the median, and in brackets
  the lowest and the highest. "Time" is the processor time of an update, in units of that of `sgd`, under PYTHON.

It is two small networks, and a short run: differences between rules that are within each other's ranges mean nothing,
and those of long runs of large networks can be others.

PyTensor {pytensor}, Python linker, float64, one thread.
"""


class Problem:
    """A network with the training and the test set."""

    def __init__(self, name):
        self.name = name
        images, digits = load_digits(return_X_y=True)
        self.data = train_test_split(images / 16, digits, test_size=0.25, stratify=digits, random_state=0)
        self.widths = (64, 64, 10) if name == "classifier" else (64, 48, 16, 48, 64)
        self.parameters = []
        for i, (n, m) in enumerate(zip(self.widths, self.widths[1:], strict=False), 1):
            self.parameters += [
                pytensor.shared(np.zeros((n, m)), name=f"W{i}"),
                pytensor.shared(np.zeros(m), name=f"b{i}"),
            ]
        self.x, self.y = pt.dmatrix("x"), pt.lvector("y")
        h = self.x
        for W, b in zip(self.parameters[::2], self.parameters[1::2], strict=True):
            h = (pt.tanh(h) if W is not self.parameters[0] else h) @ W + b
        if name == "classifier":
            self.cost = -pt.special.log_softmax(h, axis=1)[pt.arange(self.y.size), self.y].mean()
        else:
            self.cost = pt.sum((h - self.x) ** 2, axis=1).mean() / 2
        self.inputs = [self.x, self.y]
        self.costs = pytensor.function(self.inputs, self.cost, mode=optapi.PYTHON, on_unused_input="ignore")

    def start(self, rng):
        """Set the first weights."""
        for p in self.parameters:
            shape = p.get_value().shape
            p.set_value(rng.normal(scale=shape[0] ** -0.5, size=shape) if len(shape) == 2 else np.zeros(shape))


class Contender:
    """A rule on a problem, compiled once, with a step size that is set."""

    def __init__(self, problem, rule):
        self.problem, self.batches = problem, len(problem.data[2]) // SIZE
        self.steps = EPOCHS * self.batches
        warm = round(WARM_UP * self.steps)
        shape = schedules.WarmUp(schedules.Cosine(1.0, steps=self.steps - warm), warm)
        self.peak = pytensor.shared(0.0, name="peak")
        self.updates = rule(problem.parameters, problem.cost, step_size=lambda count: self.peak * shape(count))
        self.first = {v: v.get_value() for v in self.updates}
        self.step = pytensor.function(
            problem.inputs, [], updates=self.updates, mode=optapi.PYTHON, on_unused_input="ignore"
        )

    def run(self, peak, seed):
        """The costs of the training and of the test set at the end, and the processor seconds of an update."""
        images, test_images, digits, test_digits = self.problem.data
        rng = np.random.default_rng(seed)
        for v, value in self.first.items():
            v.set_value(value)
        self.problem.start(rng)
        self.peak.set_value(peak)
        seconds = 0.0
        with np.errstate(all="ignore"):
            for _ in range(EPOCHS):
                order = rng.permutation(len(digits))[: self.batches * SIZE]
                began = time.process_time()
                for rows in np.split(order, self.batches):
                    self.step(images[rows], digits[rows])
                seconds += time.process_time() - began
            costs = [float(self.problem.costs(*data)) for data in ((images, digits), (test_images, test_digits))]
        return [c if np.isfinite(c) else np.inf for c in costs], seconds / self.steps

    def tuned(self, peak):
        """The best of `TRIES` step sizes, from `peak` on."""
        tried = {}

        def cost(exponent):
            if exponent not in tried and len(tried) < TRIES:
                size = peak * FINE**exponent
                tried[exponent] = np.mean([self.run(size, seed)[0][0] for seed in TUNING_SEEDS])
            return tried.get(exponent, np.inf)

        # Exponents are of the fine factor, two of which are a coarse one.
        best = min((0, 2, -2), key=cost)
        direction = 1 if best >= 0 else -1
        while best and len(tried) < TRIES and cost(best + 2 * direction) < tried[best]:
            best += 2 * direction
        for near in (best + 1, best - 1):
            cost(near)
        best = min(tried, key=tried.get)
        for near in (best + 1, best - 1, best + 2, best - 2, best + 3, best - 3, best + 4):
            cost(near)
        best = min(tried, key=tried.get)
        return peak * FINE**best, len(tried), best in (min(tried), max(tried))


def spread(values):
    """The median, and the range."""
    low, middle, high = min(values), float(np.median(values)), max(values)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def measure(name):
    """The rows of the table of a problem, the lowest cost first."""
    found = {}
    for rule, (function, first) in RULES.items():
        contender = Contender(Problem(name), function)
        peak, tries, at_edge = contender.tuned(first)
        runs = [contender.run(peak, seed) for seed in SEEDS]
        costs, tests = np.transpose([costs for costs, _ in runs])
        found[rule] = peak, at_edge, costs, tests, min(seconds for _, seconds in runs)
        print(f"{name} {rule}: {peak:.3g} of {tries} tries, cost {spread(costs)}, test {spread(tests)}", flush=True)
    unit = found["sgd"][-1]
    rows = []
    for rule, (peak, at_edge, costs, tests, seconds) in sorted(found.items(), key=lambda item: np.median(item[1][2])):
        size = f"{peak:.2g}" + (", the last tried" if at_edge else "")
        rows.append(f"| `{rule}` | {size} | {spread(costs)} | {spread(tests)} | {seconds / unit:.1f} |")
    return rows


def main():
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        INTRODUCTION.format(
            steps=Contender(Problem("classifier"), optapi.sgd).steps,
            size=SIZE,
            warm=WARM_UP,
            tries=TRIES,
            coarse=COARSE,
            fine=FINE,
            tuning=len(TUNING_SEEDS),
            seeds=len(SEEDS),
            pytensor=pytensor.__version__,
        )
    ]
    for name in ("classifier", "autoencoder"):
        lines += [
            f"## The {name}\n",
            "| rule | step size | training cost | test cost | time |",
            "|---|--:|--:|--:|--:|",
        ]
        lines += [*measure(name), ""]
    text = "\n".join(lines)
    if arguments.output:
        arguments.output.write_text(text.rstrip() + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
