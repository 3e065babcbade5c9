# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Sparse models: the path of a lasso, and learning from a stream
#
# A penalty on the sizes of the coefficients makes most of them exactly 0. How many, its weight says. Here the whole
# path of solutions from the largest weight to a small one is one compiled program, and a stream of examples is learned
# by `ftrl`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import SGDClassifier, lasso_path

import optapi


# %% [markdown]
# ## The path
#
# 442 patients with 10 measurements, and how their diabetes has progressed, in scikit-learn. With all products of two
# measurements there are 65 columns, many of which say nothing.


# %%
def standardized(columns):
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


data = load_diabetes(scaled=False)
measured = standardized(data.data)
i, j = np.triu_indices(10)
X = standardized(np.hstack([measured, measured[:, i] * measured[:, j]]))
y = data.target - data.target.mean()
names = [*data.feature_names, *(f"{data.feature_names[a]} {data.feature_names[b]}" for a, b in zip(i, j, strict=True))]
print(X.shape)

# %% [markdown]
# The weight is an input. Each run begins at the solution of the last, which the parameters hold, and takes few
# evaluations. From the largest weight on, the largest slope at 0, all coefficients are 0.

# %%
w, weight = pytensor.shared(np.zeros(65), name="w"), pt.dscalar("weight")
cost = pt.mean((pt.dot(X, w) - y) ** 2) / 2
run = optapi.compile_minimizer([w], cost, "lbfgs", l1=weight, inputs=[weight], tolerance=1e-4, mode=optapi.PYTHON)

weights = np.max(abs(X.T @ y)) / len(y) * np.geomspace(1, 0.01, 40)
path, evaluations = [], []
for value in weights:
    result = run(value)
    path.append(result.x[0])
    evaluations.append(result.nfev)
path = np.array(path)
print("coefficients that are not 0:", *np.count_nonzero(path[::6], axis=1))
print("evaluations of a run, in the median:", np.median(evaluations))

# %% [markdown]
# scikit-learn's coordinate descent reaches the same costs. Its coefficients may be others: two columns, a binary one
# and its square, are the same.

# %%
_, theirs, _ = lasso_path(X, y, alphas=weights, tol=1e-8, max_iter=100000)


def whole_costs(found):
    return np.mean((found @ X.T - y) ** 2, axis=1) / 2 + weights * np.sum(abs(found), axis=1)


print("costs differ by less than 1e-7:", np.allclose(whole_costs(path), whole_costs(theirs.T), rtol=1e-7))

# %%
fig, axis = plt.subplots()
first = np.argsort([np.flatnonzero(column)[0] if column.any() else len(weights) for column in path.T])[:6]
for column in range(65):
    chosen = column in first
    style = {"label": names[column]} if chosen else {"color": "0.8", "zorder": 0, "linewidth": 0.8}
    axis.plot(weights, path[:, column], **style)
axis.set(xscale="log", xlabel="weight of the penalty", ylabel="coefficient")
axis.invert_xaxis()
axis.legend(fontsize="small")

# %% [markdown]
# ## A stream
#
# Handwritten digits, one after the other: which is an 8? Each is seen once. `ftrl` has a step size for each pixel, and
# a penalty for the whole stream.

# %%
pixels, digits = load_digits(return_X_y=True)
pixels, labels = pixels / 16, np.where(digits == 8, 1.0, -1.0)
order = np.random.default_rng(0).permutation(len(labels))
train, test = order[:1400], order[1400:]

u, b = pytensor.shared(np.zeros(64), name="u"), pytensor.shared(0.0, name="b")
x, label = pt.dvector("x"), pt.dscalar("label")
loss = pt.softplus(-label * (pt.dot(x, u) + b))


def streamed(l1):
    """The share of test digits that are told right, and the number of pixels used, after one pass."""
    u.set_value(np.zeros(64))
    b.set_value(0.0)
    updates = optapi.ftrl([u], loss, step_size=0.5, l1=l1)
    updates = optapi.ftrl([b], loss, step_size=0.5, updates=updates)
    step = pytensor.function([x, label], [], updates=updates, mode=optapi.PYTHON)
    for k in train:
        step(pixels[k], labels[k])
    right = np.mean(np.sign(pixels[test] @ u.get_value() + b.get_value()) == labels[test])
    return right, np.count_nonzero(u.get_value())


ours = [streamed(l1) for l1 in (0.0, 1.0, 3.0, 10.0)]
for l1, (right, used) in zip((0.0, 1.0, 3.0, 10.0), ours, strict=True):
    print(f"l1 = {l1:4}: {right:.2f} right with {used} pixels")

# %% [markdown]
# The stochastic gradients of scikit-learn, with the same loss, also in one pass:

# %%
others = []
for alpha in (1e-5, 1e-3, 3e-3, 1e-2):
    model = SGDClassifier(loss="log_loss", penalty="l1", alpha=alpha, max_iter=1, tol=None, random_state=0)
    model.fit(pixels[train], labels[train])
    others.append((model.score(pixels[test], labels[test]), np.count_nonzero(model.coef_)))
    print(f"alpha = {alpha}: {others[-1][0]:.2f} right with {others[-1][1]} pixels")

# %%
fig, axis = plt.subplots()
for found, called in ((ours, "ftrl"), (others, "SGDClassifier")):
    axis.plot(*zip(*((used, right) for right, used in found), strict=True), "o-", label=called)
axis.set(xlabel="pixels used", ylabel="share that is right")
axis.legend()
