# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Writing a rule of one's own
#
# AdaBelief (Zhuang and others, 2020) is Adam, but for what the step is divided by: not the mean square of the
# gradient, but how far it is from its mean, from what was believed. Algorithm 2 of the paper, with $\epsilon$ in the
# second line:
#
# $$ m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad s \leftarrow \beta_2 s + (1 - \beta_2)(g - m)^2 + \epsilon, \qquad
# x \leftarrow x - a \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon} . $$
#
# `optapi.Objective` checks the arguments, and knows of dtypes, ascent, stopping and collisions. The rule keeps the
# equations: state is `m = f.zeros_like(p, "mean")`, it is read as `m`, and its next value is `new[m]`. `f.scalar`
# checks an option, and `f.average` is a running average.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_digits

import optapi
from optapi import plot, schedules


def adabelief(
    parameters, cost=None, gradients=None, stop=None, updates=None, *,
    step_size=1e-3, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8,
    tolerance=None, ascent=False, name="adabelief",
):  # fmt: skip
    f = optapi.Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    w1 = f.scalar("mean_weight", mean_weight, low=0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, low=0, below=1)
    t = f.count + 1
    scalars = f.step_size(step_size), 1.0 - w1**t, 1.0 - w2**t, f.scalar("epsilon", epsilon, low=0)
    new = {}
    for p, g, a, c1, c2, eps in f.each(*scalars):
        m, s = f.zeros_like(p, "mean"), f.zeros_like(p, "mean_square_surprise")
        new[m] = f.average(m, g, w1)
        new[s] = f.average(s, (g - new[m]) ** 2, w2) + eps
        new[p] = p - a * (new[m] / c1) / (pt.sqrt(new[s] / c2) + eps)
    return f.finish(new)


# %% [markdown]
# ## Is it right?
#
# A twin in NumPy, written from the paper, has to take the same steps.

# %%
x = pytensor.shared(np.array([3.0, -2.0]), name="x")
cost = x[0] ** 2 + 10 * x[1] ** 4
step = pytensor.function([], cost, updates=adabelief([x], cost, step_size=0.1), mode=optapi.PYTHON)

z, m, s = np.array([3.0, -2.0]), np.zeros(2), np.zeros(2)
for t in range(1, 51):
    step()
    g = np.array([2 * z[0], 40 * z[1] ** 3])
    m = 0.9 * m + 0.1 * g
    s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-8
    z -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
print(np.max(np.abs(x.get_value() - z)))
assert np.allclose(x.get_value(), z, rtol=1e-12)

# %% [markdown]
# Whether it keeps what all rules promise, `optapi.testing` checks.

# %%
from optapi.testing import check_rule


check_rule(adabelief, step_size=0.1)

# %% [markdown]
# ## What it can do now
#
# All that the other rules can. float32 parameters keep their dtype:

# %%
w = pytensor.shared(np.ones(3, "float32"), name="w")
{v.name: v.type.dtype for v in adabelief([w], pt.sum((w - 3) ** 2))}

# %% [markdown]
# It climbs, and stops; from many starts at once, in one loop:

# %%
v, stop = pytensor.shared(0.0, name="v"), pytensor.shared(0, name="stop")
updates = adabelief([v], pt.sin(v), ascent=True, step_size=0.1, stop=stop, tolerance=1e-4)
starts = pytensor.shared(np.array([0.0, 1.0, 4.0, 8.0]), name="starts")
stops = pytensor.shared(np.zeros(4, "int64"), name="stops")
many = optapi.loop(optapi.batch(updates, {v: starts, stop: stops}), 2000, stops)
pytensor.function([], [], updates=many, mode=optapi.PYTHON)()
print(starts.get_value() / np.pi, stops.get_value())

# %% [markdown]
# NumPy functions, with a schedule:

# %%
from scipy.optimize import rosen, rosen_der


runs = {
    rule.__name__: optapi.minimize(
        [-1.2, 1.0], rosen, rosen_der, rule,
        step_size=schedules.Cosine(0.1, 600), max_iterations=600, full_output=True, trace=True,
    )
    for rule in (adabelief, optapi.adam, optapi.rmsprop)
}  # fmt: skip
plot.trace(runs, minimum=0.0)

# %% [markdown]
# ## Is it good?
#
# One network, three rules, each with the best of three step sizes.

# %%
images, digits = load_digits(return_X_y=True)
images, labels = images / 16, np.eye(10)[digits]
rng = np.random.default_rng(0)
shapes = {"W1": (64, 20), "b1": (20,), "W2": (20, 10), "b2": (10,)}
starts = {name: rng.normal(scale=0.2, size=shape) for name, shape in shapes.items()}
W1, b1, W2, b2 = parameters = [pytensor.shared(value, name=name) for name, value in starts.items()]
X, Y = pt.dmatrix("X"), pt.dmatrix("Y")
loss = -pt.mean(pt.sum(Y * pt.special.log_softmax(pt.tanh(X @ W1 + b1) @ W2 + b2, axis=1), axis=1))
batches = [rng.permutation(len(images))[:50] for _ in range(300)]


def train(rule, step_size):
    for parameter in parameters:
        parameter.set_value(starts[parameter.name])
    step = pytensor.function([X, Y], loss, updates=rule(parameters, loss, step_size=step_size), mode=optapi.PYTHON)
    return [float(step(images[rows], labels[rows])) for rows in batches]


axes = plt.figure(figsize=(6.4, 3.8), layout="constrained").subplots()
for rule in (adabelief, optapi.adam, optapi.rmsprop):
    costs = {a: train(rule, schedules.Linear(a, 300)) for a in (0.003, 0.01, 0.03)}
    a = min(costs, key=lambda a: np.mean(costs[a][-50:]))
    smooth = np.convolve(costs[a], np.ones(20) / 20, mode="valid")
    axes.semilogy(smooth, label=f"{rule.__name__}, {a:g}")
axes.set(xlabel="updates", ylabel="cost of a batch, mean of 20")
axes.legend(frameon=False)
