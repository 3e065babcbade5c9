"""A deep autoencoder of scikit-learn's digits, 64-32-16-8-16-32-64: `hessian_free` beside `adam` and `momentum`.

The error is the squared one, summed over the 64 pixels between 0 and 1 of an image, a mean over images. Every rule has
the same budget, in evaluations of the gradient on all images, as products of matrices, where most of the work is: a
gradient takes three for each layer, the cost alone one, and a product with the Gauss-Newton matrix four, as conjugate
gradients work out the values of the layers once. So a product counts as 4/3, times the share of the images that it is
of; a gradient of a batch as the batch's share; and an evaluation of the cost alone as much as one with its gradient,
which is too much. (In time, a product took 0.7 to 1.1 gradients.) The last line has the error of `hessian_free` where a
product counts as 2.

`hessian_free` takes gradients and costs of all images, and its products of 300, drawn anew in each call; it has at most
60 steps of conjugate gradients in a call, and changes the damping by a factor of 1.1. These numbers are the best of
some twenty runs. `adam` and `momentum` take batches of 100, without replacement in each epoch, and have the best step
size of a grid, by the error at the end, once constant and once falling to zero on a half cosine.
"""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import optapi


PICTURE = Path(__file__).with_name("hessian_free_autoencoder.png")
SIZES = (64, 32, 16, 8, 16, 32, 64)
PRODUCT = 4 / 3
GRIDS = {"adam": (1e-3, 3e-3, 1e-2), "momentum": (3e-3, 1e-2, 3e-2)}
OPTIONS = {"steps": 60, "damping_growth": 1.1}


class Autoencoder:
    """The network, whose weights can be set back to the start, and its errors."""

    def __init__(self, seed, seen):
        rng = np.random.default_rng(seed)
        images = rng.permutation(load_digits().data / 16)
        self.images, self.unseen = images[:seen], images[seen:]
        self.parameters, self.starts = [], []
        for layer, (inputs, units) in enumerate(pairwise(SIZES)):
            for name, start in (("W", rng.normal(scale=inputs**-0.5, size=(inputs, units))), ("b", np.zeros(units))):
                self.starts.append(start)
                self.parameters.append(pytensor.shared(start, name=f"{name}{layer}", shape=start.shape))
        self.data = pytensor.shared(self.images, name="data")
        x = pt.matrix("x")
        self._errors = pytensor.function([x], self.cost(x, self.outputs(x)), mode=optapi.PYTHON)

    def outputs(self, x):
        """The reconstructions; the code in the middle and the outputs are linear, the other layers have tanh."""
        layers = list(zip(self.parameters[::2], self.parameters[1::2], strict=True))
        for layer, (W, b) in enumerate(layers, start=1):
            x = pt.dot(x, W) + b
            x = x if layer in (len(layers) // 2, len(layers)) else pt.tanh(x)
        return x

    def cost(self, x, outputs):
        return pt.sum((outputs - x) ** 2) / x.shape[0]

    def errors(self, weights=None):
        """On the images of the training, and on the others, with `weights` if they are given."""
        for p, value in zip(self.parameters, weights or (), strict=False):
            p.set_value(value)
        return float(self._errors(self.images)), float(self._errors(self.unseen))


def by_hessian_free(network, budget, part=300, seed=0):
    """The gradients spent and the errors after each call, as rows; the time in seconds."""
    count, rng = len(network.images), np.random.default_rng(seed)
    chosen, stop = pytensor.shared(network.images[:part]), pytensor.shared(0)
    outputs = network.outputs(network.data)
    updates = optapi.hessian_free(
        network.parameters,
        network.cost(network.data, outputs),
        stop=stop,
        outputs=outputs,
        curvature_givens={network.data: chosen},
        tolerance=None,
        **OPTIONS,
    )
    reports = optapi.reports(updates)
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    rows, began = [(0, 0, *network.errors(network.starts))], time.perf_counter()
    while rows[-1][0] < budget and not stop.get_value():
        chosen.set_value(network.images[rng.permutation(count)[:part]])
        step()
        evaluations, products = (int(reports[role][0].get_value()) for role in ("evaluations", "products"))
        share = part / count * products
        rows.append((evaluations + PRODUCT * share, evaluations + 2 * share, *network.errors()))
    return np.array(rows), time.perf_counter() - began


def by_batches(network, rule, budget, grid, batch=100, seed=0):
    """For each step size of `grid`, constant and falling, what `by_hessian_free` returns; all of these runs as one."""
    count = len(network.images)
    kinds = [(size, falls) for size in grid for falls in (False, True)]
    sizes, falling = (np.array(column) for column in zip(*kinds, strict=True))
    index, rows = pt.lvector("index"), pt.lmatrix("rows")
    x, step_size = network.data[index], pytensor.shared(0.0, name="step_size")
    updates = rule(network.parameters, network.cost(x, network.outputs(x)), step_size=step_size)
    # As a variable of the updates the step size is one of each run.
    updates[step_size] = step_size
    starts = [np.repeat(start[None], len(kinds), axis=0) for start in network.starts]
    points, step_sizes = [pytensor.shared(start, shape=start.shape) for start in starts], pytensor.shared(sizes)
    wide = {**dict(zip(network.parameters, points, strict=True)), step_size: step_sizes}
    together = optapi.loop(optapi.batch(updates, wide), feeds={index: rows})
    epoch = pytensor.function([rows], [], updates=together, mode=optapi.PYTHON)

    shown = set(np.unique(np.geomspace(1, budget, 60).astype(int)))
    rng, began = np.random.default_rng(seed), time.perf_counter()
    found = [[(0, 0, *network.errors(start[0] for start in starts))] for _ in kinds]
    for done in range(1, budget + 1):
        fraction = 0.5 + 0.5 * np.cos(np.pi * (done - 1) / budget)
        step_sizes.set_value(sizes * np.where(falling, fraction, 1.0))
        with np.errstate(all="ignore"):  # too large a step size may end in an overflow
            epoch(rng.permutation(count)[: count // batch * batch].reshape(-1, batch))
            if done in shown:
                for member, run in enumerate(found):
                    run.append((done, done, *network.errors(point.get_value()[member] for point in points)))
    seconds = (time.perf_counter() - began) / len(kinds)
    return {kind: (np.array(run), seconds) for kind, run in zip(kinds, found, strict=True)}


def main(budget=2000, seen=1500, grids=GRIDS, path=PICTURE):
    network = Autoencoder(seed=0, seen=seen)
    print(f"{seen} images, {sum(start.size for start in network.starts)} weights, {budget} gradients for each run\n")
    print("rule           step size              error   of unseen images   seconds of a run")
    results = {"hessian_free": by_hessian_free(network, budget)}
    rows, seconds = results["hessian_free"]
    print(f"hessian_free                         {rows[-1][2]:7.4f}   {rows[-1][3]:16.4f}   {seconds:7.1f}")
    for name, grid in grids.items():
        runs = by_batches(network, getattr(optapi, name), budget, grid)
        for (step_size, falls), (found, seconds) in runs.items():
            kind = "falling" if falls else "constant"
            print(
                f"{name:12}   {step_size:9.3g}, {kind:9}   {found[-1][2]:9.4f}   {found[-1][3]:16.4f}   {seconds:7.1f}"
            )
        for falls in (False, True):
            errors = {key: run[0][-1][2] for key, run in runs.items() if key[1] == falls}
            best = min(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
            results[f"{name}, {'falling' if falls else 'constant'} step size"] = runs[best]
    twice = rows[np.searchsorted(rows[:, 1], budget) - 1]
    print(f"\nhessian_free, where a product counts as 2: {twice[2]:.4f}, of unseen images {twice[3]:.4f}")

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for axes, column, title in zip(
        figure.subplots(1, 2, sharey=True), (2, 3), ("images", "unseen images"), strict=True
    ):
        for (name, (found, _)), style in zip(results.items(), ("C3-", "C0-", "C0--", "C2-", "C2--"), strict=False):
            axes.plot(found[1:, 0], found[1:, column], style, label=name)
        axes.set(xlabel="evaluations of the gradient", xscale="log", yscale="log", title=title, ylim=(0.6, 10))
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].set_ylabel("squared error of an image")
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")
    return {name: found[-1][2] for name, (found, _) in results.items()}


if __name__ == "__main__":
    main()
