# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # With constraints
#
# Bounds, and functions of the parameters that stay between limits: first in a picture, then in a model of real data,
# where a multiplier is the price of a limit.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
import statsmodels.api as sm

import optapi


# %% [markdown]
# ## A path along a bound
#
# Rosenbrock's function has its minimum at (1, 1), which the bound and the disk leave outside. `sqp` goes along them,
# from one quadratic program to the next. Points that are evaluated are never beyond a bound; a constraint holds at the
# end.


# %%
def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


options = {"bounds": [(None, 0.6), (None, None)], "constraints": [(lambda x: x[0] ** 2 + x[1] ** 2, None, 0.6)]}
paths = {}
for start in [(-1.2, 1.0), (-0.9, -0.6), (0.5, 1.2)]:
    run = optapi.minimize_iterator(start, rosenbrock, **options)
    paths[start] = np.array([start, *(state.iterate for state in run)])
result = run.result
print(result.message)
print("x", result.x.round(3), "evaluations", result.nfev, "at bounds", result.active)

# %%
a, b = np.meshgrid(np.linspace(-1.6, 1.2, 200), np.linspace(-1.0, 1.8, 200))
figure, axes = plt.subplots(figsize=(7, 5))
axes.contour(a, b, np.log10(rosenbrock([a, b]) + 0.1), 20, cmap="Greys", linewidths=0.7)
axes.contourf(a, b, (a**2 + b**2 <= 0.6) & (a <= 0.6), [0.5, 1.5], colors=["tab:green"], alpha=0.15)
for start, path in paths.items():
    axes.plot(*path.T, ".-", label=f"from {start}")
axes.plot(*result.x, "k*", markersize=12, label="minimum")
axes.axvline(0.6, color="tab:green", linewidth=1)
axes.set(xlabel="x", ylabel="y", title="What is feasible is green")
axes.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## A likelihood with constraints
#
# Fair's survey of 1978 asked 6366 women about their marriage. A logistic regression of whether there was an affair has
# a coefficient for each of six kinds of occupation, from student to professional. They need not be in order; with
# limits on their differences they are.

# %%
data = sm.datasets.fair.load_pandas().data
affair = (data.affairs > 0).to_numpy(float)
occupations = np.eye(6)[data.occupation.astype(int) - 1]
others = data[["rate_marriage", "religious", "age", "yrs_married"]].to_numpy()
others = (others - others.mean(0)) / others.std(0)

levels, slopes = pytensor.shared(np.zeros(6), name="levels"), pytensor.shared(np.zeros(4), name="slopes")
logits = pt.dot(occupations, levels) + pt.dot(others, slopes)
cost = pt.mean(pt.softplus(logits) - affair * logits)
free = optapi.compile_minimizer([levels, slopes], cost, "lbfgs", mode=optapi.PYTHON)
ordered = optapi.compile_minimizer(
    [levels, slopes], cost, "sqp", constraints=(pt.diff(levels), 0, None), mode=optapi.PYTHON
)
for name, run in (("free", free), ("in order", ordered)):
    result = run()
    print(f"{name:>8}: {result.x['levels'].round(2)}, cost {result.fun:.5f}, {result.nfev} evaluations")
print("multipliers", result.multipliers[0].round(4))

# %% [markdown]
# The third and the fourth kind are out of order; in order they have one level, and the multiplier of their difference
# says how fast the cost would fall if a difference below zero were allowed.

# %% [markdown]
# ## The price of a limit
#
# The predictions are higher, on average, for women with children. How much likelihood would it cost if they were to
# differ by less? The limit is a variable, so one compiled program does all, each from where the last one ended.

# %%
children = (data.children > 0).to_numpy()
predicted = pt.sigmoid(logits)
gap = pt.mean(predicted[children]) - pt.mean(predicted[~children])
limit = pt.dscalar("limit")
fair = optapi.compile_minimizer(
    [levels, slopes], cost, "sqp", inputs=[limit], constraints=(gap, None, limit), mode=optapi.PYTHON
)
limits = np.linspace(0.2, 0.0, 21)
results = [fair(value) for value in limits]
print("all have converged:", all(r.success for r in results))
losses = np.array([r.fun for r in results])
prices = -np.array([float(r.multipliers[0]) for r in results])
differences = -np.gradient(losses, limits)
print("largest difference of the multiplier and the slope:", f"{np.abs(prices - differences)[1:-1].max():.4f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.plot(limits, losses)
left.set(xlabel="largest difference of the predictions", ylabel="mean negative log-likelihood")
right.plot(limits, prices, label="multiplier")
right.plot(limits, differences, ".", label="slope of the curve")
right.set(xlabel="largest difference of the predictions", ylabel="price")
right.legend()
figure.tight_layout()
plt.show()
