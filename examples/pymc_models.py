# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A hierarchical model in PyMC
#
# Alcohol in 178 wines of three cultivars (Forina et al., 1991; it comes with scikit-learn), explained by two other
# measurements: for each cultivar an intercept and slopes, which share a distribution. It needs PyMC,
# `pip install 'optapi[pymc]'`.

# %%
import logging
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from sklearn.datasets import load_wine

import optapi.pymc
from optapi import schedules


logging.getLogger("pymc").setLevel(logging.ERROR)
wine = load_wine(as_frame=True)
columns = ["color_intensity", "proline"]
features = ((wine.data[columns] - wine.data[columns].mean()) / wine.data[columns].std()).to_numpy()
alcohol, cultivar = wine.data["alcohol"].to_numpy(), wine.target.to_numpy()

coords = {"cultivar": list(wine.target_names), "feature": columns}
with pm.Model(coords=coords) as model:
    weight = pm.Data("weight", np.ones(len(alcohol)))
    center = pm.Normal("center", [13, 0, 0], 1, shape=3)
    spread = pm.Gamma("spread", 2, 4, shape=3)  # keeps away from 0, where a joint density has no bound
    z = pm.Normal("z", 0, 1, shape=(3, 3))
    effect = center + spread * z
    intercept = pm.Deterministic("intercept", effect[:, 0], dims="cultivar")
    slope = pm.Deterministic("slope", effect[:, 1:], dims=("cultivar", "feature"))
    sigma = pm.HalfNormal("sigma", 1)
    mean = intercept[cultivar] + (slope[cultivar] * features).sum(axis=1)
    pm.Potential("alcohol", (weight * pm.logp(pm.Normal.dist(mean, sigma), alcohol)).sum())

# %% [markdown]
# ## The maximum, from four starts
#
# The tree is that of PyMC's own function, with a row for each start.

# %%
with model:
    tree = optapi.pymc.find_MAP("trust_region_cg", starts=4, random_seed=1, compute_hessian=True, progressbar=False)
result = tree["optimizer_result"]
print(result["message"].item())
print("minus log density from each start:", result["starts_fun"].values.round(4))
print("slopes:", tree["posterior"]["slope"].values[0, 0].round(2).tolist())

# %% [markdown]
# ## Standard errors, and cross-validation without compiling again
#
# `compile_MAP` is compiled once. Weights of zero leave a fold out; each fit reads them anew.

# %%
fit = optapi.pymc.compile_MAP("trust_region_cg", model=model)
fit()
errors = fit.standard_errors()
for name, value, error in zip(wine.target_names, fit.point()["intercept"], errors["intercept"], strict=True):
    print(f"{name}: intercept {value:.2f} +- {error:.2f}")

fold = np.random.default_rng(0).permutation(len(alcohol)) % 10
point, began, squares = fit.point(transformed=True), time.perf_counter(), []
for left_out in range(10):
    model.set_data("weight", (fold != left_out).astype(float))
    fit(point)
    at = fit.point()
    predicted = at["intercept"][cultivar] + (at["slope"][cultivar] * features).sum(axis=1)
    squares.append(((predicted - alcohol)[fold == left_out] ** 2).mean())
print(f"root of the mean square error in cross-validation: {np.mean(squares) ** 0.5:.3f}")
refits = (time.perf_counter() - began) / 10
model.set_data("weight", np.ones(len(alcohol)))

# %% [markdown]
# ## Beside `pm.find_MAP`
#
# It finds the same point, and compiles anew at each call.

# %%
with model, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pm.find_MAP(progressbar=False)  # what it compiles is read from a cache later on
    began = time.perf_counter()
    theirs = pm.find_MAP(progressbar=False)
again = time.perf_counter() - began
fit()
print("largest difference of the slopes:", f"{abs(theirs['slope'] - fit.point()['slope']).max():.0e}")
print(f"one more fit takes pm.find_MAP {again / refits:.0f} times as long as the compiled one")

# %% [markdown]
# ## Laplace's approximation, ADVI and NUTS

# %%
with model:
    laplace = optapi.pymc.laplace(starts=4, draws=2000, random_seed=1, progressbar=False)
    advi = optapi.pymc.fit_advi(
        5000, "adam", step_size=schedules.Cosine(0.05, steps=5000), backend="python", random_seed=1, progressbar=False
    )
    nuts = pm.sample(
        200,
        tune=300,
        chains=2,
        cores=1,
        random_seed=1,
        progressbar=False,
        target_accept=0.9,
        compile_kwargs={"mode": "FAST_COMPILE"},
    )
print("log marginal likelihood by Laplace:", laplace["fit"]["log_marginal_likelihood"].item())

# %%
draws = {
    "NUTS": nuts["posterior"],
    "Laplace": laplace["posterior"],
    "ADVI": advi.sample(2000, random_seed=1)["posterior"],
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for axis, name in zip(axes, wine.target_names, strict=True):
    for label, posterior in draws.items():
        values = posterior["slope"].sel(cultivar=name, feature="color_intensity").values.ravel()
        axis.hist(values, np.linspace(-0.6, 1.2, 60), density=True, histtype="step", label=label)
    axis.set(title=name, xlabel="slope of color_intensity")
axes[0].legend()
