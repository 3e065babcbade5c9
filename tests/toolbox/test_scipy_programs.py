"""Programs as people write them for SciPy's functions, with only the import changed: SciPy's answers."""

import inspect

import numpy as np
import pytest
import scipy.optimize
from scipy.special import gammaln

import optapi.scipy


def both(program):
    """What a program returns with either function that its parameter names."""
    [name] = inspect.signature(program).parameters
    with np.errstate(all="ignore"):
        return [program(getattr(module, name)) for module in (optapi.scipy, scipy.optimize)]


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


def regression_without_negative_weights(minimize):
    rng = np.random.default_rng(6)
    A = rng.normal(size=(40, 6))
    b = A @ [1.0, 0.0, 2.0, 0.0, -1.0, 0.5] + 0.1 * rng.normal(size=40)

    def loss(w):
        r = A @ w - b
        return 0.5 * r @ r, A.T @ r

    result = minimize(loss, np.ones(6), jac=True, bounds=[(0, None)] * 6, options={"ftol": 1e-14, "gtol": 1e-9})
    return np.append(result.x, scipy.optimize.nnls(A, b)[0] - result.x)


def garch(minimize):
    rng, r, variance = np.random.default_rng(7), np.zeros(400), 1.0
    for i in range(1, 400):
        variance = 0.1 + 0.2 * r[i - 1] ** 2 + 0.7 * variance
        r[i] = np.sqrt(variance) * rng.normal()

    def negative_log_likelihood(p, r):
        omega, alpha, beta = p
        v = np.empty_like(r)
        v[0] = r.var()
        for i in range(1, r.size):
            v[i] = omega + alpha * r[i - 1] ** 2 + beta * v[i - 1]
        assert v.min() > 0  # which a step out of the bounds would break
        return np.mean(np.log(v) + r**2 / v)

    return minimize(negative_log_likelihood, [0.5, 0.1, 0.5], (r,), method="L-BFGS-B", jac="3-point",
                    bounds=[(1e-6, None), (0, 1), (0, 0.999)], options={"ftol": 1e-14, "gtol": 1e-7}).x  # fmt: skip


def a_parameter_that_is_fixed(minimize):
    t = np.linspace(0, 5, 40)
    y = 3 * np.exp(-0.8 * t) + 1 + 0.01 * np.cos(11 * t)
    result = minimize(lambda p: np.sum((p[0] * np.exp(-p[1] * t) + p[2] - y) ** 2), [1, 1, 0.3], method="L-BFGS-B",
                      bounds=scipy.optimize.Bounds([0, 0, 1], [np.inf, 5, 1]), tol=1e-12)  # fmt: skip
    assert result.x[2] == 1
    return result.x


def enzyme_kinetics(curve_fit):
    def michaelis_menten(s, vmax, km):
        return vmax * s / (km + s)

    s = np.array([0.02, 0.06, 0.11, 0.22, 0.56, 1.1])
    v = np.array([61.0, 101.0, 120.0, 155.0, 190.0, 203.0])
    popt, pcov = curve_fit(michaelis_menten, s, v, p0=[200, 0.1], sigma=0.05 * v, absolute_sigma=True)
    return np.concatenate([popt, np.sqrt(np.diag(pcov))])


def two_peaks(curve_fit):
    def peaks(x, a, b, c, d, e, f):
        return a * np.exp(-(((x - b) / c) ** 2)) + d * np.exp(-(((x - e) / f) ** 2))

    x = np.linspace(0, 10, 120)
    y = peaks(x, 2, 3, 0.7, 1, 6, 1.1) + 0.02 * np.random.default_rng(8).normal(size=120)
    popt, pcov, info, _, number = curve_fit(peaks, x, y, [1, 2.5, 1, 1, 6.5, 1], full_output=True)
    assert number in (1, 2, 3, 4)
    assert info["fvec"].shape == x.shape
    return np.concatenate([popt, np.sqrt(np.diag(pcov))])


def logistic_growth(curve_fit):
    t = np.arange(12.0)
    y = 8 / (1 + np.exp(-0.9 * (t - 5))) + 0.05 * np.sin(7 * t)
    popt, pcov = curve_fit(lambda t, top, rate, middle: top / (1 + np.exp(-rate * (t - middle))), t, y, [5, 1, 3])
    return np.append(popt, np.sqrt(np.diag(pcov)))


def sine_with_outliers(least_squares):
    rng, t = np.random.default_rng(9), np.linspace(0, 10, 60)
    y = 2 * np.exp(-0.1 * t) * np.sin(3 * t) + 0.1 * rng.normal(size=60)
    y[rng.choice(60, 6)] += 3

    def fun(x, t, y):
        return x[0] * np.exp(-x[1] * t) * np.sin(x[2] * t) - y

    return least_squares(fun, [1.5, 0.2, 3.1], loss="soft_l1", f_scale=0.1, args=(t, y), xtol=1e-10, ftol=1e-10).x


def circle(least_squares):
    angle = np.linspace(0, 4, 25)
    points = np.c_[2 + 3 * np.cos(angle), -1 + 3 * np.sin(angle)] + 0.01 * np.sin(np.arange(50)).reshape(25, 2)

    def distances(c):
        return np.hypot(*(points - c[:2]).T) - c[2]

    def slopes(c):
        away = points - c[:2]
        return np.c_[-away / np.hypot(*away.T)[:, None], -np.ones(25)]

    result = least_squares(distances, [0, 0, 1], jac=slopes, method="lm")
    assert result.success
    return np.append(result.x, result.cost)


def weibull(minimize):
    lifetimes = 3.0 * np.random.default_rng(11).weibull(1.7, 150)

    def negative_log_likelihood(theta, x):
        shape, scale = theta
        return -np.sum(np.log(shape / scale) + (shape - 1) * np.log(x / scale) - (x / scale) ** shape)

    return minimize(negative_log_likelihood, x0=[1.0, 1.0], args=(lifetimes,), bounds=[(1e-3, None)] * 2).x


def calibration_with_known_errors(curve_fit):
    x = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    y, error = 0.3 + 1.9 * x**0.8 + 0.1 * np.cos(5 * x), 0.05 + 0.02 * x
    popt, pcov = curve_fit(lambda x, a, b, c: a + b * x**c, x, y, p0=(0, 1, 1), sigma=error, absolute_sigma=True)
    return np.concatenate([popt, np.sqrt(np.diag(pcov))])


def damped_oscillation_with_bounds(least_squares):
    t = np.linspace(0, 15, 120)
    y = 5 * np.sin(2 * t - 0.1) * np.exp(-0.025 * t**2) + 0.1 * np.sin(31 * t)

    def residual(p):
        amplitude, decay, shift, omega = p
        return amplitude * np.sin(shift + omega * t) * np.exp(-(t**2) * decay) - y

    result = least_squares(residual, [10, 0.1, 0.0, 2.1], bounds=([0, 0, -0.05, 0], [20, 1, 1, 5]), x_scale="jac",
                           xtol=1e-12, ftol=1e-12)  # fmt: skip
    return np.append(result.x, result.active_mask)


PROGRAMS = [
    *(maximum_likelihood_of_a_normal, logistic_regression, poisson_regression, exponential_decay, himmelblau),
    *(chain_with_products, autoregression, ridge_path, potential_of_particles),
    *(regression_without_negative_weights, garch, a_parameter_that_is_fixed),
    *(enzyme_kinetics, two_peaks, logistic_growth, sine_with_outliers, circle),
    *(weibull, calibration_with_known_errors, damped_oscillation_with_bounds),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_answer_is_scipys(program):
    own, scipys = both(program)
    np.testing.assert_allclose(own, scipys, rtol=2e-5, atol=2e-5)
