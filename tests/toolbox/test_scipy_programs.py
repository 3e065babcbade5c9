"""Programs as people write them for SciPy's minimize, with only the import changed: SciPy's answers."""

import numpy as np
import pytest
import scipy.optimize
from scipy.special import gammaln

import optapi.scipy


def both(program):
    """What a program returns with either `minimize`."""
    with np.errstate(all="ignore"):
        return program(optapi.scipy.minimize), program(scipy.optimize.minimize)


def maximum_likelihood_of_a_normal(minimize):
    data = np.random.default_rng(0).normal(3.0, 2.0, 200)

    def negative_log_likelihood(theta):
        mu, log_sigma = theta
        return 0.5 * np.sum(((data - mu) / np.exp(log_sigma)) ** 2) + data.size * log_sigma

    return minimize(negative_log_likelihood, [0.0, 0.0], method="BFGS").x


def logistic_regression(minimize):
    rng = np.random.default_rng(1)
    X = np.c_[np.ones(100), rng.normal(size=(100, 3))]
    y = (rng.random(100) < 1 / (1 + np.exp(-X @ [0.5, 1.0, -1.0, 0.2]))).astype(float)

    def loss(w, X, y):
        z = X @ w
        return np.sum(np.logaddexp(0, z) - y * z), X.T @ (1 / (1 + np.exp(-z)) - y)

    return minimize(loss, np.zeros(4), args=(X, y), jac=True, method="L-BFGS-B", options={"ftol": 1e-12}).x


def poisson_regression(minimize):
    rng = np.random.default_rng(2)
    X = np.c_[np.ones(80), rng.normal(size=80)]
    y = rng.poisson(np.exp(X @ [1.0, 0.5]))
    loss = lambda b: np.sum(np.exp(X @ b) - y * (X @ b) + gammaln(y + 1))  # noqa: E731
    jac = lambda b: X.T @ (np.exp(X @ b) - y)  # noqa: E731
    hess = lambda b: (X.T * np.exp(X @ b)) @ X  # noqa: E731
    return np.array(
        [minimize(loss, [0, 0], jac=jac, hess=hess, method=m, tol=1e-8).x for m in ("Newton-CG", "trust-exact")]
    )


def exponential_decay(minimize):
    t = np.linspace(0, 4, 50)
    y = 2.5 * np.exp(-1.3 * t) + 0.5 + 0.02 * np.random.default_rng(3).normal(size=50)

    def sum_of_squares(p, t, y):
        a, k, c = p
        return ((a * np.exp(-k * t) + c - y) ** 2).sum()

    return minimize(sum_of_squares, (1, 1, 0), (t, y), tol=1e-8).x


def himmelblau(minimize):
    def f(p):
        x, y = p
        return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2

    return minimize(f, np.array([3.5, 1.5]), method="CG", jac="3-point", options={"gtol": 1e-7}).x


def chain_with_products(minimize):
    def hessp(x, p):
        return scipy.optimize.rosen_hess_prod(x, p)

    return minimize(scipy.optimize.rosen, [1.3, 0.7, 0.8, 1.9, 1.2], method="trust-ncg", jac=scipy.optimize.rosen_der,
                    hessp=hessp, options={"gtol": 1e-8, "disp": False}).x  # fmt: skip


def autoregression(minimize):
    rng, y = np.random.default_rng(4), np.zeros(150)
    for i in range(1, 150):
        y[i] = 0.7 * y[i - 1] + rng.normal()

    class Model:
        def loglike(self, params):
            rho, log_sigma = np.tanh(params[0]), params[1]
            e = y[1:] - rho * y[:-1]
            return -0.5 * np.sum(e**2) * np.exp(-2 * log_sigma) - log_sigma * e.size

    model, history = Model(), []
    result = minimize(lambda p: -model.loglike(p) / y.size, [0.1, 0.1], method="L-BFGS-B", callback=history.append,
                      options={"maxiter": 500, "gtol": 1e-7, "ftol": 1e-13})  # fmt: skip
    assert len(history) == result.nit
    assert result.success
    return result.x


def ridge_path(minimize):
    rng = np.random.default_rng(5)
    A, b = rng.normal(size=(30, 6)), rng.normal(size=30)
    found, x = [], np.zeros(6)
    for alpha in np.logspace(2, -2, 5):  # each from the last
        x = minimize(lambda x, a: np.sum((A @ x - b) ** 2) + a * x @ x, x, args=alpha,
                     jac=lambda x, a: 2 * A.T @ (A @ x - b) + 2 * a * x, tol=1e-8).x  # fmt: skip
        found.append(x)
    return np.array(found)


def potential_of_particles(minimize):
    def energy(flat):
        points = flat.reshape(-1, 2)
        i, j = np.triu_indices(len(points), 1)
        r = np.linalg.norm(points[i] - points[j], axis=1)
        return np.sum(4 * (r**-12.0 - r**-6.0))

    start = np.array([[0.0, 0.0], [1.1, 0.1], [0.4, 1.0]]).ravel()
    return minimize(energy, start, method="bfgs", options={"gtol": 1e-5}).fun


PROGRAMS = [
    *(maximum_likelihood_of_a_normal, logistic_regression, poisson_regression, exponential_decay, himmelblau),
    *(chain_with_products, autoregression, ridge_path, potential_of_particles),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_answer_is_scipys(program):
    own, scipys = both(program)
    np.testing.assert_allclose(own, scipys, rtol=2e-5, atol=2e-5)
