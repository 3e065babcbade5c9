# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Online learning with SGD-QN and TONGA
#
# Examples come one batch after another, and each is seen a few times at most. What a rule can learn of the curvature,
# or of the noise, must then cost little more than a gradient. SGD-QN learns a rate for each component; TONGA a
# covariance of low rank of the gradients.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_breast_cancer, load_digits

import optapi
from optapi import schedules


# %% [markdown]
# ## SGD-QN: inputs of different scales
#
# Tumours of the breast, 569 of them with 30 measurements, in scikit-learn. The measurements are brought to a common
# order of magnitude only, so that their scales still differ by factors.

# %%
data = load_breast_cancer()
scales = 10.0 ** np.round(np.log10(data.data.std(0)))
features, target = (data.data - data.data.mean(0)) / scales, data.target
print("standard deviations from", f"{features.std(0).min():.2f} to {features.std(0).max():.2f}")

penalty = 0.001
x, y = pt.dmatrix("x"), pt.dvector("y")
w = pytensor.shared(np.zeros(features.shape[1]), name="w")
logits = x @ w
likelihood_cost = pt.mean(pt.softplus(logits) - y * logits)
cost = likelihood_cost + penalty / 2 * pt.sum(w**2)
whole = pytensor.function([x, y], cost, mode=optapi.PYTHON)

# The lowest cost there is, by all data at once.
exact = optapi.minimize(
    np.zeros(features.shape[1]),
    lambda w: pt.mean(pt.softplus(features @ w) - target * (features @ w)) + penalty / 2 * pt.sum(w**2),
    None,
    optapi.lbfgs,
    full_output=True,
).fun


def passes(rule, cost, step_size, count=8, **options):
    """The distance of the cost from the lowest after each pass over the data, one example at a time."""
    w.set_value(np.zeros(features.shape[1]))
    step = pytensor.function([x, y], [], updates=rule([w], cost, step_size=step_size, **options), mode=optapi.PYTHON)
    rng, excesses = np.random.default_rng(0), []
    for _ in range(count):
        for row in rng.permutation(len(target)):
            step(features[row : row + 1], target[row : row + 1])
        excesses.append(float(whole(features, target)) - exact)
    return excesses


# %% [markdown]
# The step sizes of SGD and SGD-QN fall like $1/t$ in the end, as they have to: those of SGD by the schedule that the
# theory gives for a penalty $\lambda$, $a / (1 + \lambda a t)$; those of SGD-QN by the curvature that it has seen of
# each component, so that it takes a constant first step size. It gets the penalty as an option, and applies it at
# each 16th call only.

# %%
grid = (0.03, 0.1, 0.3, 1.0)
runs = {
    "SGD": {a: passes(optapi.sgd, cost, schedules.Power(a, scale=1 / (penalty * a))) for a in grid},
    "AdaGrad": {a: passes(optapi.adagrad, cost, a) for a in grid},
    "SGD-QN": {a: passes(optapi.sgd_qn, likelihood_cost, a, regularization=penalty) for a in grid},
}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for label, by_step_size in runs.items():
    a = min(grid, key=lambda a: by_step_size[a][-1])
    left.semilogy(range(1, 9), by_step_size[a], ".-", label=f"{label}, {a:g}")
    right.loglog(grid, [by_step_size[a][-1] for a in grid], ".-", label=label)
left.set(xlabel="passes over the data", ylabel="distance of the cost from its minimum", title="the best step size")
right.set(xlabel="first step size", title="after 8 passes")
left.legend(frameon=False)

# %% [markdown]
# On the left each rule has the best step size of the grid: SGD-QN ends at half the distance of SGD, AdaGrad lower
# still. On the right is what each makes of one that was not tuned. `optapi.find_step_size` finds one in a real task:
# short runs on a part of the data, by doubling and halving.

# %%
w.set_value(np.zeros(features.shape[1]))
step_size = pytensor.shared(0.0, name="step_size")
updates = optapi.sgd_qn([w], likelihood_cost, step_size=step_size, regularization=penalty)
step = pytensor.function([x, y], [], updates=updates, mode=optapi.PYTHON)


def run():
    for row in range(160):
        step(features[row : row + 1], target[row : row + 1])
    return float(whole(features[:160], target[:160]))


optapi.find_step_size(updates, step_size, run)

# %% [markdown]
# ## TONGA: gradients that agree in few directions
#
# A softmax regression on digits, 650 weights, one pass. `block="row"` keeps a covariance for each row of the weight
# matrix, which holds the weights of one digit: ten small problems that are solved together.

# %%
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
images, labels = images[order] / 16, np.eye(10)[digits[order]]
W, b = pytensor.shared(np.zeros((10, 64)), name="W"), pytensor.shared(np.zeros(10), name="b")
X, Y = pt.dmatrix("X"), pt.dmatrix("Y")
loss = -pt.mean(pt.sum(Y * pt.special.log_softmax(X @ W.T + b, axis=1), axis=1))
loss_of = pytensor.function([X, Y], loss, mode=optapi.PYTHON)
train, test = slice(0, 1400), slice(1400, None)


def one_pass(rule, step_size, **options):
    """The cost of images that are still to come, along one pass in batches of 10."""
    W.set_value(np.zeros((10, 64)))
    b.set_value(np.zeros(10))
    updates = rule([W, b], loss, step_size=step_size, **options)
    step = pytensor.function([X, Y], [], updates=updates, mode=optapi.PYTHON)
    costs = []
    for number, rows in enumerate(np.split(np.arange(1400), 140)):
        step(images[rows], labels[rows])
        if number % 5 == 4:
            costs.append(float(loss_of(images[test], labels[test])))
    return costs


axes = plt.figure(figsize=(6.4, 3.8), layout="constrained").subplots()
for label, rule, grid, options in (
    ("SGD", optapi.sgd, (0.3, 1.0, 3.0), {}),
    ("TONGA, all", optapi.tonga, (1.0, 3.0, 10.0), {"rank": 5, "every": 10}),
    ("TONGA, rows", optapi.tonga, (0.3, 1.0, 3.0), {"rank": 5, "every": 10, "regularization": 0.1, "block": "row"}),
):
    runs = {a: one_pass(rule, a, **options) for a in grid}
    a = min(runs, key=lambda a: runs[a][-1])
    axes.plot(np.arange(5, 141, 5) * 10, runs[a], label=f"{label}, step size {a:g}")
axes.set(xlabel="images seen", ylabel="cost of images not yet seen", ylim=(0, 1.5))
axes.legend(frameon=False)
