# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Solutions as variables
#
# What minimizes a cost, or solves equations, can be a variable of a larger graph: with derivatives, by the implicit
# function theorem. Here it tunes penalties, integrates over latent variables, and is the layer of a network.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import vectorize_graph
from scipy.special import gammaln, logsumexp
from sklearn.datasets import load_breast_cancer, load_diabetes, make_moons

import optapi


pytensor.config.mode = optapi.PYTHON  # ready at once


# %% [markdown]
# ## The penalty of a ridge regression
#
# The weights minimize the error on the data for training; the penalty shall minimize the error on other data. So the
# weights are a function of the penalty, and the error on the other data is differentiated through it. There are ten
# weights and ten penalties, one for each: too many for a grid.

# %%
X, y = load_diabetes(return_X_y=True)
X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
order = np.random.default_rng(0).permutation(len(X))
some, other = order[:60], order[60:250]

w = pt.tensor("w", shape=(10,))
log_penalty = pytensor.shared(np.zeros(10), name="log_penalty")
cost = pt.mean((X[some] @ w - y[some]) ** 2) + pt.mean(pt.exp(log_penalty) * w**2)
ridge = optapi.solve([w], cost)
error = pt.mean((X[other] @ ridge.parameters[0] - y[other]) ** 2)

evaluate = pytensor.function([], [ridge.parameters[0], error])
before, first = evaluate()
# Penalties of weights that do not help grow without end, so they are bounded.
result = optapi.compile_minimizer([log_penalty], error, "lbfgs", bounds=(-8, 5))()
after, last = evaluate()
print(f"error on the other data: {first:.4f}, with the penalties tuned {last:.4f}, after {result.nfev} gradients")

# %%
names = load_diabetes().feature_names
plt.figure(figsize=(5, 2.5))
plt.bar(np.arange(10) - 0.2, before, 0.4, label="one penalty")
plt.bar(np.arange(10) + 0.2, after, 0.4, label="tuned penalties")
plt.xticks(np.arange(10), names)
plt.legend()
# %% [markdown]
# ## ... and of a logistic regression
#
# One penalty, in a batch: the same graph for 25 penalties at once, each member of which ends on its own.

# %%
X, y = load_breast_cancer(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
order = np.random.default_rng(1).permutation(len(X))
some, other = order[:100], order[100:]


def loss(w, rows):
    return pt.mean(pt.softplus(-(2 * y[rows] - 1) * (X[rows] @ w)))


w, penalty = pt.tensor("w", shape=(30,)), pt.dscalar("log_penalty")
[weights] = optapi.solve([w], loss(w, some) + pt.exp(penalty) * pt.sum(w**2) / 2).parameters
validation = loss(weights, other)
slope = pytensor.grad(validation, penalty)

penalties = pt.dvector("penalties")
many = pytensor.function([penalties], vectorize_graph([validation, slope], {penalty: penalties}))
grid = np.linspace(-9, 1, 25)
values, slopes = many(grid)

tuned = pytensor.shared(0.0, name="tuned")
[cost] = vectorize_graph([validation], {penalty: tuned})
result = optapi.compile_minimizer([tuned], cost, "lbfgs", tolerance=1e-4)()
print(f"the best penalty is exp({float(result.x[0]):.2f}), found with {result.nfev} gradients")

# %%
plt.figure(figsize=(5, 2.5))
plt.plot(grid, values)
plt.quiver(grid[::3], values[::3], np.ones(9), slopes[::3], angles="xy", width=0.004)
plt.plot(result.x[0], result.fun, "o")
plt.xlabel("logarithm of the penalty")
plt.ylabel("loss on other data")
# %% [markdown]
# ## Laplace's approximation of a Poisson model
#
# Counts, each with a latent normal effect. The marginal likelihood is an integral over 25 effects; `laplace`
# approximates it from the mode and the curvature there, and it is then maximized: a minimization in each evaluation of
# another. Here the effects are independent, so quadrature can check it.

# %%
rng = np.random.default_rng(3)
counts = rng.poisson(np.exp(1.2 + 0.7 * rng.normal(size=25))).astype(float)

mu, log_sigma = pytensor.shared(0.5, name="mu"), pytensor.shared(-1.0, name="log_sigma")
z = pt.tensor("z", shape=(25,))
rate = mu + pt.exp(log_sigma) * z
neg_logp = pt.sum(pt.exp(rate) - counts * rate) + np.sum(gammaln(counts + 1))
neg_logp = neg_logp + pt.sum(z**2) / 2 + 25 / 2 * np.log(2 * np.pi)
approximation = optapi.laplace([z], neg_logp)

fitted = optapi.compile_minimizer([mu, log_sigma], -approximation.log_marginal, "bfgs")()
point = [float(value) for value in fitted.x]

nodes, weights = np.polynomial.hermite_e.hermegauss(120)


def exact(mu, log_sigma):
    rate = mu + np.exp(log_sigma) * nodes[:, None]
    terms = counts * rate - np.exp(rate) - gammaln(counts + 1)
    return np.sum(logsumexp(terms, b=(weights / np.sqrt(2 * np.pi))[:, None], axis=0))


print(f"mu = {point[0]:.3f}, log sigma = {point[1]:.3f}, log marginal = {-fitted.fun:.3f}")
print(f"by quadrature at this point: {exact(*point):.3f}")

# %%
grid = np.linspace(-1.5, 0.5, 21)
steps = pt.dvector("steps")
[curve] = vectorize_graph([approximation.log_marginal], {log_sigma: steps})
plt.figure(figsize=(5, 2.5))
plt.plot(grid, pytensor.function([steps], curve)(grid), label="Laplace")
plt.plot(grid, [exact(point[0], value) for value in grid], "--", label="quadrature")
plt.xlabel("log sigma")
plt.ylabel("log marginal")
plt.legend()
# %% [markdown]
# ## A deep equilibrium layer
#
# A layer whose output is the fixed point of $z = \tanh(W z + U x + b)$, as of a network of infinitely many equal
# layers. It is written for one example, and `vectorize_graph` makes it one for all; the gradient by the weights takes a
# linear system for each example, and no memory for the iterations.

# %%
points, labels = make_moons(120, noise=0.15, random_state=0)
rng = np.random.default_rng(0)
W, U, b, v, c = (
    pytensor.shared(scale * rng.normal(size=shape), name=name)
    for name, scale, shape in [("W", 0.2, (6, 6)), ("U", 1, (6, 2)), ("b", 0.5, (6,)), ("v", 0.5, (6,)), ("c", 0, ())]
)
x, z = pt.tensor("x", shape=(2,)), pt.tensor("z", shape=(6,))
# So scaled, W makes the map a contraction, and there is one fixed point.
V = 0.9 * W / pt.maximum(0.9, pt.sqrt(pt.sum(W**2)))
layer = optapi.fixed_point([z], [pt.tanh(V @ z + U @ x + b)], tolerance=1e-6)
score = v @ layer.parameters[0] + c

inputs = pt.tensor("inputs", shape=(None, 2))
scores, evaluations = vectorize_graph([score, layer.evaluations], {x: inputs})
[training] = vectorize_graph([scores], {inputs: pt.constant(points)})
cost = pt.mean(pt.softplus(-(2 * labels - 1) * training)) + 1e-3 * sum(pt.sum(p**2) for p in (W, U, v))
result = optapi.compile_minimizer([W, U, b, v, c], cost, "lbfgs", max_iterations=40)()

classify = pytensor.function([inputs], [scores, evaluations])
found, turns = classify(points)
print(f"{np.mean((found > 0) == labels):.0%} are right; a fixed point takes {turns.min()} to {turns.max()} evaluations")

# %%
a, b = np.meshgrid(np.linspace(-1.6, 2.6, 40), np.linspace(-1.2, 1.7, 30))
values, _ = classify(np.stack([a.ravel(), b.ravel()], axis=1))
plt.figure(figsize=(5, 3))
plt.contourf(a, b, values.reshape(a.shape), levels=[-50, 0, 50], alpha=0.3)
plt.scatter(*points.T, c=labels, s=12)
