# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Choosing an algorithm
#
# `optapi.benchmark` runs a grid of problems and algorithms, and `optapi.plot` draws what came of it. The problems
# here are classics with known minima, and a logistic regression on real data. They are written in PyTensor, so that
# `minimize` takes derivatives itself (`df=None`).

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytensor.tensor as pt
from sklearn.datasets import load_breast_cancer

import optapi
from optapi import plot


def rosenbrock(x):
    return pt.sum(100 * (x[1::2] - x[::2] ** 2) ** 2 + (1 - x[::2]) ** 2)


def beale(x):
    powers, targets = np.array([1, 2, 3]), np.array([1.5, 2.25, 2.625])
    return pt.sum((targets - x[0] * (1 - x[1] ** powers)) ** 2)


def powell_singular(x):
    return (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2 + (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4


def wood(x):
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10 * (x[1] + x[3] - 2) ** 2 + (x[1] - x[3]) ** 2 / 10


def brown_dennis(x):
    t = np.arange(1, 21) / 5
    return pt.sum(((x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2) ** 2)


def variably_dimensioned(x):
    i = np.arange(1, 11)
    total = pt.sum(i * (x - 1))
    return pt.sum((x - 1) ** 2) + total**2 + total**4


data = load_breast_cancer()
features = (data.data - data.data.mean(0)) / data.data.std(0)


def logistic_regression(x):
    logits = features @ x
    return pt.mean(pt.softplus(logits) - data.target * logits) + 0.001 * pt.sum(x**2)


problems = {
    "Rosenbrock": ([-1.2, 1.0], rosenbrock, None),
    "extended Rosenbrock": ([-1.2, 1.0] * 5, rosenbrock, None),
    "Beale": ([1.0, 1.0], beale, None),
    "Powell singular": ([3.0, -1.0, 0.0, 1.0], powell_singular, None),
    "Wood": ([-3.0, -1.0, -3.0, -1.0], wood, None),
    "Brown and Dennis": ([25.0, 5.0, -5.0, -1.0], brown_dennis, None),
    "variably dimensioned": (1 - np.arange(1, 11) / 10, variably_dimensioned, None),
    "logistic regression": (np.zeros(30), logistic_regression, None),
}
algorithms = {
    "lbfgs": optapi.lbfgs,
    "bfgs": optapi.bfgs,
    "sr1": optapi.sr1,
    "hager_zhang_cg": optapi.hager_zhang_cg,
    "polak_ribiere": optapi.polak_ribiere,
    "barzilai_borwein": optapi.barzilai_borwein,
    "rprop": partial(optapi.rprop, step_size=0.01),
    "adam": partial(optapi.adam, step_size=0.1),
    "nesterov": partial(optapi.nesterov, step_size=1e-4),
}
found = optapi.benchmark(problems, algorithms, tolerance=1e-6, max_evaluations=500)
len(found)

# %% [markdown]
# ## The table of one problem

# %% tags=["uncompared"]
optapi.profiles.Benchmark({key: result for key, result in found.items() if key[0] == "extended Rosenbrock"})

# %% [markdown]
# ## Traces
#
# On one problem a trace says the most. Rules that search count several evaluations for an iteration, so evaluations
# are the fair scale.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot.trace(found.on("extended Rosenbrock"), x="evaluations", minimum=0.0, axes=left)
left.set(xlim=(0, 400), title="extended Rosenbrock")
plot.trace(found.on("logistic regression"), "gradient_size", "evaluations", axes=right)
right.set(xlim=(0, 200), title="logistic regression")
right.get_legend().remove()

# %% [markdown]
# ## Profiles
#
# Over all problems, two pictures. The performance profile (Dolan and Moré) compares with the best on each problem: at
# 1 it shows how often an algorithm is the best, at its right end how many problems it solves at all. The data profile
# (Moré and Wild) shows how many it solves within a budget. A problem is solved where the cost has fallen by all but
# $10^{-6}$ of what any of the algorithms achieved.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot.performance_profile(found, accuracy=1e-6, axes=left)
plot.data_profile(found, accuracy=1e-6, axes=right)
right.get_legend().remove()

# %% [markdown]
# The rules that learn curvature solve these problems with an exact cost in few evaluations. Those at the bottom are
# made for noisy gradients, where the others cannot be used: a comparison of costs that differ by noise says nothing.
# No algorithm is the best on all problems, so make a benchmark of your own.

# %%
spent = found.measure("evaluations", accuracy=1e-6)
for algorithm, column in zip(found.algorithms, spent.T, strict=True):
    solved = np.isfinite(column)
    middle = np.median(column[solved])
    print(f"{algorithm:17} solves {solved.sum()} of {len(column)}, half of those within {middle:.0f} evaluations")
