# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A full training program
#
# What a program that trains a network mostly has, in one place: mini-batches, a warm-up and a step size that falls,
# clipped gradients, a decay of the matrices alone, a rule for each group of parameters, an average of the weights,
# early stopping on a validation set, the best weights, checkpoints, and a run that goes on from one bit for bit.
#
# The data are the 1797 handwritten digits of scikit-learn, 8 by 8 pixels each.

# %%
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import optapi
from optapi import gradients, schedules, stopping


images, digits = load_digits(return_X_y=True)
images, test_images, digits, test_digits = train_test_split(
    images / 16, digits, test_size=0.25, stratify=digits, random_state=0
)
images, validation_images, digits, validation_digits = train_test_split(
    images, digits, test_size=0.2, stratify=digits, random_state=0
)
print(f"{len(digits)} images to train, {len(validation_digits)} to validate, {len(test_digits)} to test")

# %% [markdown]
# ## The program
#
# All of it is built by a function, so that a second process, or this one after a crash, builds the same again.
#
# The gradients are a list: they are clipped by their norm over all parameters before the rule sees them. The rule is
# a `partition`: matrices go by `adamw` with a decay, biases by `adam` without, each with a step size of its own. The
# updates are a dictionary: `average` adds running averages of the parameters, which are mostly the better network.
#
# A second function looks at the validation set after each epoch, by the averages. It is a dictionary of updates too:
# `best` keeps the averages of the lowest cost, and `patience` sets `stop` when there was none for 15 epochs.

# %%
EPOCHS, SIZE = 120, 32
BATCHES = len(digits) // SIZE


def build(seed=0):
    rng = np.random.default_rng(seed)
    W1 = pytensor.shared(rng.normal(scale=1 / 8, size=(64, 64)), name="W1")
    W2 = pytensor.shared(rng.normal(scale=1 / 8, size=(64, 10)), name="W2")
    b1, b2 = pytensor.shared(np.zeros(64), name="b1"), pytensor.shared(np.zeros(10), name="b2")
    parameters = [W1, b1, W2, b2]

    x, y = pt.dmatrix("x"), pt.lvector("y")
    scores = pt.tanh(x @ W1 + b1) @ W2 + b2
    cost = -pt.special.log_softmax(scores, axis=1)[pt.arange(y.size), y].mean()
    errors = pt.neq(scores.argmax(axis=1), y).mean()

    clipped = gradients.clip_global_norm(pytensor.grad(cost, parameters), 1.0)

    def falling(peak):
        return schedules.WarmUp(schedules.Cosine(peak, steps=(EPOCHS - 2) * BATCHES), 2 * BATCHES)

    updates = optapi.partition(
        parameters,
        gradients=clipped,
        groups=[(lambda p: p.ndim > 1, partial(optapi.adamw, step_size=falling(0.01), decay=0.1))],
        otherwise=partial(optapi.adam, step_size=falling(0.005)),
    )
    averages, best = (
        {p: pytensor.shared(0 * p.get_value(), name=f"{kind}_{p.name}") for p in parameters}
        for kind in ("average", "best")
    )
    updates = optapi.average(updates, averages, weight=0.98)

    [validation] = pytensor.graph.graph_replace([cost], averages)
    epoch, stop = pytensor.shared(0, name="epoch"), pytensor.shared(0, name="stop")
    watch = {epoch: epoch + 1} | {average: average for average in averages.values()}
    watch = optapi.best(watch, validation, {averages[p]: best[p] for p in parameters})
    watch = stopping.patience(validation, stop, watch, calls=15)

    compiled = partial(pytensor.function, [x, y], mode=optapi.PYTHON)
    return SimpleNamespace(
        train=compiled(cost, updates=updates),
        validate=compiled(validation, updates=watch),
        test=compiled(errors),
        test_best=compiled(errors, givens=best),
        state=updates | watch,  # for files, which ask for the variables alone
        epoch=epoch,
        stop=stop,
        parameters=parameters,
        rate=falling(0.01),
    )


program = build()
print(len(program.state), "variables:", ", ".join(v.name for v in program.state)[:160], "...")

# %% [markdown]
# ## Training
#
# The order of the images is a function of the epoch, so that there is no generator to save. A checkpoint is written
# every 10 epochs: `optapi.save` writes beside the old file and then replaces it, so there is a whole one at all times.

# %%
folder = Path(tempfile.mkdtemp())


def train(program, until=EPOCHS, checkpoint=None, log=None):
    while program.epoch.get_value() < until and not program.stop.get_value():
        epoch = int(program.epoch.get_value())
        order = np.random.default_rng([1, epoch]).permutation(len(digits))[: BATCHES * SIZE]
        costs = [program.train(images[rows], digits[rows]) for rows in np.split(order, BATCHES)]
        found = float(program.validate(validation_images, validation_digits))
        if log is not None:
            log.append((np.mean(costs), found))
        if epoch % 10 == 9:
            if checkpoint is not None:
                optapi.save(checkpoint, program.state)
            if log is not None:
                rate = float(program.rate((epoch + 1) * BATCHES))
                print(f"epoch {epoch + 1:3}   step size {rate:.4f}   cost {log[-1][0]:.4f}   validation {found:.4f}")
    return program


log = []
train(program, checkpoint=folder / "training.npz", log=log)
print(f"stopped after {program.epoch.get_value()} of {EPOCHS} epochs")

# %%
last, best = (float(test(test_images, test_digits)) for test in (program.test, program.test_best))
print(f"errors on images that it has not seen: {last:.1%} by the last weights, {best:.1%} by the best averages")
assert best < 0.04

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.semilogy(*zip(*enumerate(np.array(log), 1), strict=True), label=["batches", "validation, by the averages"])
axes.set(xlabel="epoch", ylabel="cost (nats per image)")
axes.legend(frameon=False)

# %% [markdown]
# ## From a checkpoint
#
# Another process builds the program, loads the file, and goes on. It ends with the same numbers, to the last bit.

# %%
crashed = train(build(), until=23, checkpoint=folder / "crashed.npz")
resumed = build(seed=99)  # other weights, which the file replaces
optapi.load(folder / "crashed.npz", resumed.state)
print("it goes on at epoch", resumed.epoch.get_value())
train(resumed)
same = [np.array_equal(p.get_value(), q.get_value()) for p, q in zip(program.state, resumed.state, strict=True)]
assert all(same)
print(f"{sum(same)} of {len(same)} variables are the same")
