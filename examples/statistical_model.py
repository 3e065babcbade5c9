# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Maximum likelihood, MAP and standard errors
#
# How often people of the RAND health insurance experiment saw a doctor, by what their insurance left them to pay and
# how they were: 20190 person-years, from statsmodels. Counts that vary more than Poisson's are negative binomial,
#
# $$ y_i \sim \text{NB}(\mu_i, \alpha), \qquad \log \mu_i = x_i^\top \beta, \qquad
# \text{var}(y_i) = \mu_i + \alpha \mu_i^2 . $$

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
import statsmodels.api as sm
from scipy.stats import norm

import optapi


data = sm.datasets.randhie.load_pandas()
visits = data.endog.to_numpy()
names = ["constant", *data.exog.columns]
features = np.column_stack([np.ones(len(visits)), data.exog.to_numpy(float)])
features.shape, visits.mean(), visits.var()

# %% [markdown]
# ## The likelihood
#
# Its parameters are a vector and a positive number, of which the logarithm is what is optimized. `ascent=True`
# maximizes.

# %%
beta = pytensor.shared(np.zeros(len(names)), name="beta")
log_alpha = pytensor.shared(0.0, name="log_alpha")


def log_likelihood(beta, log_alpha):
    mean, shape = pt.exp(pt.dot(features, beta)), pt.exp(-log_alpha)
    constant = pt.gammaln(visits + shape) - pt.gammaln(shape) - pt.gammaln(visits + 1.0)
    parts = shape * pt.log(shape / (shape + mean)) + visits * pt.log(mean / (shape + mean))
    return pt.mean(constant + parts)


likelihood = log_likelihood(beta, log_alpha)
stop = pytensor.shared(0, name="stop")
updates = optapi.bfgs([beta, log_alpha], likelihood, ascent=True, stop=stop, tolerance=1e-7)
fit = pytensor.function([], [], updates=optapi.loop(updates, 200, stop), mode=optapi.PYTHON)
fit()
{role: float(variable.get_value()) for role, [variable] in optapi.reports(updates).items()}

# %% [markdown]
# ## Standard errors
#
# They are the roots of the diagonal of the inverse of the information, which is minus the matrix of second
# derivatives of the likelihood of all data: `optapi.covariance` has that inverse exactly. `optapi.inverse_hessian` is
# the one that the rule has learnt on its way, for nothing.

# %%
estimate = np.append(beta.get_value(), log_alpha.get_value())
count = len(visits)
covariance = optapi.covariance([beta, log_alpha], likelihood, ascent=True, mode=optapi.PYTHON) / count
exact = np.sqrt(np.diag(covariance))
learnt = np.sqrt(np.diag(optapi.inverse_hessian(updates)) / count)
for name, value, error, guess in zip([*names, "log alpha"], estimate, exact, learnt, strict=True):
    print(f"{name:10} {value:8.4f}   standard error {error:.4f}, learnt {guess:.4f}")

# %% [markdown]
# The matrix that is learnt is a first impression: right where the rule has gone, a guess elsewhere. For a paper take
# the exact one. It agrees with statsmodels:

# %%
reference = sm.NegativeBinomial(visits, features).fit(disp=False, maxiter=500)
print("largest difference of the coefficients:", f"{np.max(np.abs(reference.params[:-1] - estimate[:-1])):.1e}")
print("of the standard errors, relative:", f"{np.max(np.abs(reference.bse[:-1] / exact[:-1] - 1)):.1e}")
assert np.allclose(reference.params[:-1], estimate[:-1], atol=1e-3)

# %% [markdown]
# ## MAP
#
# With a prior the same lines give the mode of the posterior, and with the Hessian there Laplace's approximation of
# it. A prior on the coefficients hardly matters with 20190 observations. With 200 of them it does: nobody among these
# is in poor health (`hlthp`), so of this coefficient they know what the prior says, and with a flat one there is no
# estimate.

# %%
few = np.random.default_rng(0).choice(count, 200, replace=False)


def cost(point, precision):
    """Minus the log-posterior of a part of the data, divided by their number."""
    beta, log_alpha = point["beta"], point["log_alpha"]
    mean, shape = pt.exp(pt.dot(features[few], beta)), pt.exp(-log_alpha)
    parts = pt.gammaln(visits[few] + shape) - pt.gammaln(shape) + shape * pt.log(shape / (shape + mean))
    likelihood = pt.sum(parts + visits[few] * pt.log(mean / (shape + mean)))
    return (precision * pt.sum(beta[1:] ** 2) / 2 + log_alpha**2 / 2 - likelihood) / len(few)


start = {"beta": np.zeros(len(names)), "log_alpha": 0.0}
estimates = {"all data": (estimate[1:-1], exact[1:-1])}
for label, precision in (("200 observations, N(0, 1)", 1.0), ("200 observations, N(0, 0.3²)", 1 / 0.3**2)):
    result = optapi.minimize(start, cost, None, optapi.lbfgs, args=precision, full_output=True, tolerance=1e-7)
    assert result.success
    # The cost is divided by the number of the data, so its inverse Hessian is so many times the covariance.
    errors = result.standard_errors()["beta"] / np.sqrt(len(few))
    estimates[label] = result.x["beta"][1:], errors[1:]
    print(f"{label}: mean standard error {errors[1:].mean():.3f}")

# %%
axes = plt.figure(figsize=(6.4, 4), layout="constrained").subplots()
positions = np.arange(len(names) - 1)
for shift, (label, (values, errors)) in zip((-0.2, 0, 0.2), estimates.items(), strict=True):
    axes.errorbar(positions + shift, values, norm.ppf(0.975) * errors, fmt="o", markersize=4, label=label)
axes.axhline(0, color="0.8", zorder=0)
axes.set(xticks=positions, xticklabels=names[1:], ylabel="coefficient, with its 95 % interval")
axes.figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize="small")
