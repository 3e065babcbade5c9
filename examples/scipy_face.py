# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The SciPy face
#
# The rules minimize functions of NumPy arrays, in the place of `scipy.optimize.minimize` or inside of it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import scipy.optimize
from scipy.optimize import rosen, rosen_der

import optapi


# %% [markdown]
# ## A curve, fitted
#
# The decay of the amplitude of a pendulum, ten numbers made up for this page. A dictionary is the point, and the
# derivative is one too.

# %%
minutes = np.array([0.0, 1, 2, 3, 4, 5, 6, 8, 10, 12])
degrees = np.array([14.9, 12.2, 10.2, 8.4, 7.1, 5.8, 4.9, 3.4, 2.3, 1.7])


def f(p):
    return np.sum((p["first"] * np.exp(-p["rate"] * minutes) - degrees) ** 2)


def df(p):
    curve = np.exp(-p["rate"] * minutes)
    error = 2 * (p["first"] * curve - degrees)
    return {"first": np.sum(error * curve), "rate": -np.sum(error * p["first"] * minutes * curve)}


start = {"first": 10.0, "rate": 1.0}
print(optapi.check_gradient(f, df, start))
result = optapi.minimize(start, f, df, optapi.bfgs, full_output=True)
print(result)

# %% [markdown]
# The second derivatives give the uncertainties, with the variance of the residuals: the cost is a sum of squares
# without the half, so the covariance is twice the inverse.

# %%
variance = result.fun / (len(minutes) - 2)
errors = result.standard_errors()
for name, value in result.x.items():
    print(f"{name}: {value:.3f} ± {np.sqrt(2 * variance) * errors[name]:.3f}")

axes = plt.figure(figsize=(5.6, 3.2), layout="constrained").subplots()
axes.plot(minutes, degrees, "o")
times = np.linspace(0, 12)
axes.plot(times, result.x["first"] * np.exp(-result.x["rate"] * times))
axes.set(xlabel="minutes", ylabel="amplitude (degrees)")

# %% [markdown]
# ## The same call, both ways

# %%
theirs = scipy.optimize.minimize(rosen, [-1.2, 1.0], jac=rosen_der, method="L-BFGS-B", options={"gtol": 1e-8})
ours = optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.lbfgs, tolerance=1e-8, full_output=True)
for name, found in (("SciPy", theirs), ("optapi", ours)):
    print(f"{name:7} {found.x}  {found.nit} iterations, {found.nfev} evaluations: {found.message}")

# %% [markdown]
# ## As a method of SciPy
#
# `optapi.scipy_method` serves wherever SciPy takes a method, so also in its global searches.

# %%
method = optapi.scipy_method(optapi.lbfgs, memory=5)
found = scipy.optimize.minimize(rosen, np.zeros(6), jac=rosen_der, method=method, options={"maxiter": 200})
print(found.x.round(5), found.message)


def bumpy(x):
    return np.sum(x**2) / 10 + np.sum(1 - np.cos(3 * x)), x / 5 + 3 * np.sin(3 * x)


found = scipy.optimize.basinhopping(
    bumpy, [4.0, -5.0], niter=30, rng=0, stepsize=2.0, minimizer_kwargs={"jac": True, "method": method}
)
print(found.x.round(5), found.fun)

# %% [markdown]
# ## A Python callable in a PyTensor graph
#
# `optapi.Oracle` is the other way around: what a Python function computes, with its gradients, becomes a scalar of
# PyTensor, to be added to others.

# %%
import pytensor
import pytensor.tensor as pt


x = pytensor.shared(np.array([-1.2, 1.0]), name="x")
simulated = optapi.Oracle(lambda x: (rosen(x), [rosen_der(x)]))([x])
cost = simulated + 0.5 * pt.sum(x**2)
stop = pytensor.shared(0, name="stop")
step = pytensor.function([], cost, updates=optapi.lbfgs([x], cost, stop=stop), mode=optapi.PYTHON)
while not stop.get_value():
    step()
x.get_value()
