"""Covariances and standard errors, beside those of SciPy and of closed forms."""

import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.optimize import curve_fit

import optapi
from optapi.graph.numpy_linker import STEP


RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
Y = (RNG.random(200) < 1 / (1 + np.exp(-X @ [1, -1, 0.5]))).astype(float)
TIME = np.linspace(0, 4, 30)
DECAY = 2.5 * np.exp(-1.3 * TIME) + 0.5 + 0.05 * RNG.normal(size=30)


def nll(w):
    return float(np.sum(np.logaddexp(0, X @ w) - Y * (X @ w)))


def nll_gradient(w):
    return X.T @ (1 / (1 + np.exp(-X @ w)) - Y)


def fisher(w):
    p = 1 / (1 + np.exp(-X @ w))
    return X.T @ (X * (p * (1 - p))[:, None])


def decay_fit(**keywords):
    """Two parameters and their minimizer, of the residuals of an exponential decay."""
    rates = pytensor.shared(np.array([1.0, 1.0]), name="rates", shape=(2,))
    offset = pytensor.shared(0.0, name="offset")
    r = rates[0] * pt.exp(-rates[1] * TIME) + offset - DECAY
    run = optapi.compile_minimizer(
        [rates, offset], pt.sum(r**2) / 2, "levenberg_marquardt", residuals=[r], mode=STEP, tolerance=1e-10, **keywords
    )
    return [rates, offset], r, run


def test_of_residuals_it_is_that_of_curve_fit():
    def model(t, a, b, c):
        return a * np.exp(-b * t) + c

    _, expected = curve_fit(model, TIME, DECAY, p0=[1, 1, 0], xtol=1e-14, ftol=1e-14)
    parameters, r, run = decay_fit()
    result = run()
    np.testing.assert_allclose(result.covariance(), expected, rtol=1e-4)
    rates, offset = result.standard_errors()
    np.testing.assert_allclose([*rates, offset], np.sqrt(np.diag(expected)), rtol=1e-4)
    np.testing.assert_allclose(optapi.covariance(parameters, residuals=[r], mode=STEP), result.covariance(), rtol=1e-9)
    assert result.second_derivatives == "exact"

    sigma = 0.05
    _, expected = curve_fit(model, TIME, DECAY, p0=[1, 1, 0], sigma=np.full(30, sigma), absolute_sigma=True, xtol=1e-14)
    np.testing.assert_allclose(sigma**2 * result.covariance(absolute_sigma=True), expected, rtol=1e-4)


def test_of_functions_it_takes_differences_or_products():
    expected = np.linalg.inv(fisher(optapi.minimize(np.zeros(3), nll, nll_gradient, "lbfgs", tolerance=1e-9)))
    keywords = {"tolerance": 1e-9, "full_output": True}
    one = optapi.minimize(np.zeros(3), nll, nll_gradient, "lbfgs", **keywords)
    two = optapi.minimize(np.zeros(3), nll, nll_gradient, "lbfgs", hessp=lambda w, v: fisher(w) @ v, **keywords)
    assert (one.second_derivatives, two.second_derivatives) == ("differences", "exact")
    np.testing.assert_allclose(one.covariance(), expected, rtol=1e-7)
    np.testing.assert_allclose(two.covariance(), expected, rtol=1e-10)
    np.testing.assert_allclose(one.standard_errors(), np.sqrt(np.diag(expected)), rtol=1e-7)
    # What the rule has learned is another matrix.
    assert np.abs(one.hess_inv @ fisher(one.x) - np.eye(3)).max() > 1e-3


def test_points_with_scalars_have_errors_of_their_structure():
    """The mean and the logarithm of the scale of normal data, of which the errors are s/sqrt(n) and 1/sqrt(2 n)."""
    data = np.random.default_rng(0).normal(3.0, 2.0, size=50)

    def cost(point):
        return pt.sum((data - point["mean"]) ** 2) / (2 * pt.exp(2 * point["log"])) + len(data) * point["log"]

    result = optapi.minimize({"mean": 2.0, "log": 0.0}, cost, None, "lbfgs", full_output=True, tolerance=1e-8)
    errors = result.standard_errors()
    assert errors["mean"] == pytest.approx(data.std() / 50**0.5, rel=1e-6)
    assert errors["log"] == pytest.approx(1 / 100**0.5, rel=1e-6)


def test_costs_with_inputs_and_logarithms_of_likelihoods():
    w, x, y = pytensor.shared(np.zeros(3), name="w"), pt.dmatrix("x"), pt.dvector("y")
    likelihood = pt.sum(y * (x @ w) - pt.softplus(x @ w))
    run = optapi.compile_minimizer([w], likelihood, "newton", inputs=[x, y], mode=STEP, ascent=True)
    result = run(X, Y)
    expected = np.linalg.inv(fisher(result.x[0]))
    np.testing.assert_allclose(result.covariance(), expected, rtol=1e-9)
    again = optapi.covariance([w], likelihood, inputs={x: X, y: Y}, ascent=True, mode=STEP)
    np.testing.assert_allclose(again, expected, rtol=1e-9)


def test_no_choice_of_units_decides():
    """The variances of independent components, whose units differ by 1e20; and a float32 cost."""
    scale = np.array([1e-10, 1.0, 1e10])
    p = pytensor.shared(np.zeros(3), name="p", shape=(3,))
    cost = pt.sum((p / scale) ** 2) / 2
    np.testing.assert_allclose(optapi.covariance([p], cost, mode=STEP), np.diag(scale**2), rtol=1e-12)
    q = pytensor.shared(np.zeros(2, "float32"), name="q", shape=(2,))
    cost = pt.sum((q / np.float32(1e-3)) ** 2) / 2
    np.testing.assert_allclose(optapi.covariance([q], cost, mode=STEP), np.diag([1e-6, 1e-6]), rtol=1e-6)


def test_an_oracle_is_differenced():
    w = pytensor.shared(np.zeros(3), name="w", shape=(3,))
    cost = optapi.Oracle(lambda w: (nll(w), [nll_gradient(w)]))([w])
    result = optapi.compile_minimizer([w], cost, "lbfgs", mode=STEP, tolerance=1e-9)()
    assert result.second_derivatives == "differences"
    np.testing.assert_allclose(result.covariance(), np.linalg.inv(fisher(result.x[0])), rtol=1e-7)


def test_where_there_is_none():
    flat = optapi.minimize(
        np.zeros(2), lambda x: (x[0] + x[1] - 1) ** 2, lambda x: 2 * (x[0] + x[1] - 1) * np.ones(2), "lbfgs",
        full_output=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match="not positive definite"):
        flat.covariance()
    saddle = optapi.minimize(
        np.zeros(2), lambda x: x[0] ** 2 - x[1] ** 2, lambda x: np.array([2, -2]) * x, "lbfgs", full_output=True
    )
    with pytest.raises(ValueError, match="not positive definite"):
        saddle.standard_errors()
    with pytest.raises(ValueError, match="absolute_sigma is about residuals"):
        flat.covariance(absolute_sigma=True)
    with pytest.raises(ValueError, match="comes from a pickle"):
        pickle.loads(pickle.dumps(flat)).covariance()

    p = pytensor.shared(np.zeros(2), name="p", shape=(2,))
    with pytest.raises(ValueError, match="no more residuals than components"):
        optapi.covariance([p], residuals=[p - 1], mode=STEP)
    assert np.allclose(optapi.covariance([p], residuals=[p - 1], absolute_sigma=True, mode=STEP), np.eye(2))
    with pytest.raises(ValueError, match="one of the two"):
        optapi.covariance([p])
    with pytest.raises(TypeError, match="not shared"):
        optapi.covariance([pt.dvector("v")], pt.sum(p))
    with pytest.raises(TypeError, match="inputs is a list"):
        optapi.covariance([p], pt.sum(p**2), inputs=[1])


def test_a_random_cost_has_none():
    rng = pt.random.shared_rng(seed=0, name="rng")
    advanced, draw = rng.normal()
    p = pytensor.shared(np.ones(2), name="p", shape=(2,))
    run = optapi.compile_minimizer(
        [p], pt.sum((p - draw) ** 2), "sgd", updates={rng: advanced}, step_size=0.1, max_iterations=3, mode=STEP
    )
    with pytest.raises(ValueError, match="random"):
        run().covariance()
