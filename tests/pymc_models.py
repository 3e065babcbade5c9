"""Models of PyMC for tests and timings: name -> function that returns one."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine


EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
ORDERED = {"transform": pm.distributions.transforms.ordered, "initval": np.array([-1.0, 0.0, 1.0])}


def eight_schools(centered=False):
    """Rubin (1981). The centered density grows without bound as tau goes to zero."""
    with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfNormal("tau", 5)
        if centered:
            theta = pm.Normal("theta", mu, tau, dims="school")
        else:
            theta = pm.Deterministic("theta", mu + tau * pm.Normal("z", 0, 1, dims="school"), dims="school")
        pm.Normal("y", theta, ERRORS, observed=EFFECTS, dims="school")
    return model


def poisson(groups=85, rows=919):
    """Simulated: counts in groups with a normal effect."""
    rng = np.random.default_rng(1)
    group, x = rng.integers(0, groups, rows), rng.normal(size=rows)
    y = rng.poisson(np.exp(rng.normal(1.0, 0.5, groups)[group] + 0.4 * x))
    with pm.Model() as model:
        mu, sd, b = pm.Normal("mu", 0, 2), pm.Gamma("sd", 2, 2), pm.Normal("b", 0, 1)
        z = pm.Normal("z", 0, 1, shape=groups)
        pm.Poisson("y", pt.exp(mu + sd * z[group] + b * x), observed=y)
    return model


def logistic():
    """Breast cancer (Wolberg, Street and Mangasarian, 1992)."""
    features, y = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    with pm.Model() as model:
        b, b0 = pm.Normal("b", 0, 2, shape=30), pm.Normal("b0", 0, 5)
        pm.Bernoulli("y", logit_p=b0 + features @ b, observed=y)
    return model


def gaussian_process():
    """Simulated: a marginal likelihood of 100 points."""
    x = np.linspace(0, 10, 100)[:, None]
    y = np.sin(x[:, 0]) + 0.2 * np.random.default_rng(2).normal(size=100)
    with pm.Model() as model:
        length, eta, sigma = pm.Gamma("l", 2, 1), pm.HalfNormal("eta", 2), pm.HalfNormal("s", 1)
        process = pm.gp.Marginal(cov_func=eta**2 * pm.gp.cov.Matern52(1, length))
        process.marginal_likelihood("y", x, y, sigma=sigma)
    return model


def scan(length=200):
    """Simulated: GARCH(1, 1), with a loop over time."""
    rng, y, variance = np.random.default_rng(3), np.zeros(length), 0.5
    for t in range(1, length):
        variance = 0.1 + 0.2 * y[t - 1] ** 2 + 0.6 * variance
        y[t] = 0.1 + np.sqrt(variance) * rng.normal()
    with pm.Model() as model:
        mu, w, v0 = pm.Normal("mu", 0, 1), pm.HalfNormal("w", 1), pm.HalfNormal("v0", 1)
        a, b = pm.Beta("a", 2, 5), pm.Beta("b", 5, 2)
        r = y - mu
        v = pytensor.scan(
            lambda r, v, w, a, b: w + a * r**2 + b * v,
            sequences=[r[:-1]],
            outputs_info=[v0],
            non_sequences=[w, a, b],
            return_updates=False,
        )
        deviation = pt.sqrt(pt.concatenate([v0[None], v]))
        pm.Potential("y", pm.logp(pm.Normal.dist(0, deviation), r).sum())
    return model


def mixture():
    """Simulated: three normals, with a simplex and an ordered vector."""
    rng = np.random.default_rng(4)
    y = np.concatenate([rng.normal(-2, 0.5, 150), rng.normal(0, 1, 100), rng.normal(3, 0.7, 250)])
    with pm.Model() as model:
        w, sd = pm.Dirichlet("w", np.full(3, 2.0)), pm.Gamma("sd", 3, 3, shape=3)
        mu = pm.Normal("mu", 0, 5, shape=3, **ORDERED)
        pm.NormalMixture("y", w, mu, sigma=sd, observed=y)
    return model


def lkj():
    """Simulated: a normal vector with an unknown covariance."""
    root = np.linalg.cholesky([[1, 0.5, 0.2], [0.5, 1, -0.3], [0.2, -0.3, 1.0]])
    y = np.random.default_rng(5).normal(size=(200, 3)) @ root.T * [1, 2, 0.5]
    with pm.Model() as model:
        root, _, _ = pm.LKJCholeskyCov("chol", n=3, eta=2.0, sd_dist=pm.HalfNormal.dist(2.0, shape=3))
        pm.MvNormal("y", pm.Normal("mu", 0, 3, shape=3), chol=root, observed=y)
    return model


def ordinal():
    """Simulated: ordered categories."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=400)
    y = np.digitize(1.3 * x + rng.logistic(size=400), [-1.5, 0, 2])
    with pm.Model() as model:
        b, c = pm.Normal("b", 0, 2), pm.Normal("c", 0, 3, shape=3, **ORDERED)
        pm.OrderedLogistic("y", eta=b * x, cutpoints=c, observed=y)
    return model


def diabetes():
    """Student's t regression of the diabetes data (Efron, Hastie, Johnstone and Tibshirani, 2004)."""
    features, y = load_diabetes(return_X_y=True, scaled=False)
    features, y = (features - features.mean(0)) / features.std(0), (y - y.mean()) / y.std()
    with pm.Model() as model:
        b, b0, sigma = pm.Normal("b", 0, 1, shape=10), pm.Normal("b0", 0, 1), pm.HalfNormal("sigma", 1)
        pm.StudentT("y", pm.Gamma("nu", 2, 0.1), mu=b0 + features @ b, sigma=sigma, observed=y)
    return model


def iris():
    """Multinomial regression of the iris data (Fisher, 1936)."""
    features, y = load_iris(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    with pm.Model() as model:
        b, b0 = pm.Normal("b", 0, 2, shape=(4, 3)), pm.Normal("b0", 0, 2, shape=3)
        pm.Categorical("y", logit_p=b0 + features @ b, observed=y)
    return model


def wine():
    """Levels of alcohol in three cultivars of wine (Forina et al., 1991), with a mean and a spread for each."""
    features, kind = load_wine(return_X_y=True)
    with pm.Model(coords={"kind": ["1", "2", "3"]}) as model:
        mean = pm.Normal("mean", 13, 2, dims="kind")
        sigma = pm.LogNormal("sigma", -0.7, 0.5, dims="kind")
        pm.Gamma("alcohol", mu=mean[kind], sigma=sigma[kind], observed=features[:, 0])
    return model


MODELS = {
    "eight schools": eight_schools,
    "poisson": poisson,
    "logistic": logistic,
    "Gaussian process": gaussian_process,
    "scan": scan,
    "mixture": mixture,
    "lkj": lkj,
    "ordinal": ordinal,
    "diabetes": diabetes,
    "iris": iris,
    "wine": wine,
}
