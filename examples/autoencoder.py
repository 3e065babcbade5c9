# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Hessian-free optimization of an autoencoder
#
# A network of five layers presses the 64 pixels of a digit through two numbers, and paints the digit again from those.
# Plain gradients make slow progress through such a bottleneck. `optapi.hessian_free` takes truncated Newton steps: it
# solves $(G + \lambda I) d = -g$ by conjugate gradients, with products of the Gauss-Newton matrix $G$ and no matrix.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_digits

import optapi
from optapi import schedules


images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))[:600]
images, digits = images[order] / 16, digits[order]

# %%
SIZES = (64, 24, 2, 24, 64)
rng = np.random.default_rng(0)
parameters, starts = [], []
for layer, (inputs, units) in enumerate(pairwise(SIZES)):
    for name, start in (("W", rng.normal(scale=inputs**-0.5, size=(inputs, units))), ("b", np.zeros(units))):
        starts.append(start)
        parameters.append(pytensor.shared(start, name=f"{name}{layer}", shape=start.shape))


def layers(x):
    """The values of all layers; the code in the middle and the outputs are linear, the others have tanh."""
    values = [x]
    for layer, (W, b) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        value = pt.dot(values[-1], W) + b
        values.append(value if layer in (1, 3) else pt.tanh(value))
    return values


data = pytensor.shared(images, name="data")
_, _, code, _, outputs = layers(data)
cost = pt.sum((outputs - data) ** 2) / data.shape[0]
error = pytensor.function([], cost, mode=optapi.PYTHON)

# %% [markdown]
# ## The run
#
# The rule is told what the cost is convex in, the `outputs`; through these it takes its products. Costs and gradients
# are of all images, the products of a quarter of them, drawn anew for each step: `curvature_givens` puts these in the
# place of the data. The damping then changes slowly, since its rule compares the two. What was spent the rule
# reports, evaluations and products. By the products of matrices in both, a product of all images is counted as 4/3 of
# a gradient.

# %% tags=["uncompared"]
part = 150
chosen, stop = pytensor.shared(images[:part]), pytensor.shared(0, name="stop")
updates = optapi.hessian_free(
    parameters, cost, stop=stop, outputs=outputs, curvature_givens={data: chosen}, steps=60, damping_growth=1.1
)
step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
reports = {role: variable for role, [variable] in optapi.reports(updates).items()}
curve = [(0.0, float(error()))]
while curve[-1][0] < 1000 and not stop.get_value():
    chosen.set_value(images[rng.permutation(len(images))[:part]])
    step()
    products = part / len(images) * reports["products"].get_value()
    curve.append((reports["evaluations"].get_value() + 4 / 3 * products, float(error())))
curves = {"hessian_free": np.array(curve)}
codes = pytensor.function([], [code, outputs], mode=optapi.PYTHON)()
print(f"{len(curve) - 1} steps, squared error of an image {curve[-1][1]:.2f}")

# %% [markdown]
# ## Beside others
#
# They get the gradients of all images too, and as many of them. `optapi.adam` has the best of three step sizes, which
# falls to zero along half a cosine; `optapi.lbfgs` needs none.


# %% tags=["uncompared"]
def run(rule, budget=1000, **options):
    """The gradients spent and the errors, from the same start."""
    for p, start in zip(parameters, starts, strict=True):
        p.set_value(start)
    stop = pytensor.shared(0, name="stop")
    updates = rule(parameters, cost, stop=stop, **options)
    step = pytensor.function([], cost, updates=updates, mode=optapi.PYTHON)
    counted = optapi.reports(updates).get("evaluations")
    found = []
    for call in range(budget):
        spent = int(counted[0].get_value()) if counted else call
        if spent >= budget or stop.get_value():
            break
        found.append((spent, float(step())))
    return np.array(found)


def best(rule, grid):
    """The run that ends lowest, and its step size."""
    runs = {a: run(rule, step_size=schedules.Cosine(a, 1000)) for a in grid}
    a = min(runs, key=lambda a: runs[a][-1, 1])
    return f"{rule.__name__}, {a:g}", runs[a]


curves["lbfgs"] = run(optapi.lbfgs)
label, found = best(optapi.adam, (0.003, 0.01, 0.03))
curves[label] = found

axes = plt.figure(figsize=(6.4, 3.8), layout="constrained").subplots()
for label, found in curves.items():
    axes.loglog(found[1:, 0], found[1:, 1], label=label)
    print(f"{label:15} {found[-1, 1]:.2f}")
axes.set(xlabel="gradients", ylabel="squared error of an image")
axes.legend(frameon=False)

# %% [markdown]
# ## What it has learnt
#
# The two numbers of each image, without any word about what digit it is, and some digits painted again from them.

# %% tags=["uncompared"]
values, painted = codes
figure = plt.figure(figsize=(9, 4), layout="constrained")
left, right = figure.subfigures(1, 2)
axes = left.subplots()
shown = axes.scatter(*values.T, c=digits, cmap="tab10", s=12, vmin=-0.5, vmax=9.5)
left.colorbar(shown, ticks=range(10))
some = [np.flatnonzero(digits == digit)[0] for digit in (0, 2, 3, 5, 7)]
for row, pictures in zip(right.subplots(2, 5), (images, painted), strict=True):
    for one, index in zip(row, some, strict=True):
        one.imshow(pictures[index].reshape(8, 8), cmap="Greys", vmin=0, vmax=1)
        one.axis("off")
