"""Covariances and standard errors, beside those of SciPy and of closed forms."""

import pickle

import numpy as np
import pytensor
import pytensor.sparse
import pytensor.tensor as pt
import pytest
import scipy.sparse
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


COUNTS = np.array([50.0, 30.0, 15.0, 5.0])
SHARES = COUNTS / COUNTS.sum()
# Of shares whose sum is 1, from counts.
MULTINOMIAL = (np.diag(SHARES) - np.outer(SHARES, SHARES)) / COUNTS.sum()


def multinomial(**options):
    p = pytensor.shared(np.full(4, 0.25), name="p", shape=(4,))
    options = {"constraints": (pt.sum(p), 1), "bounds": (1e-6, None), "tolerance": 1e-9, "mode": STEP, **options}
    return p, optapi.compile_minimizer([p], -pt.sum(COUNTS * pt.log(p)), **options)


def test_with_a_constraint_it_is_that_along_it():
    p, run = multinomial()
    result = run()
    np.testing.assert_allclose(result.covariance(), MULTINOMIAL, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(result.standard_errors()[0], np.sqrt(np.diag(MULTINOMIAL)), rtol=1e-5)
    assert result.second_derivatives == "exact"
    p.set_value(SHARES)
    # A constraint that says the same again, in other units, and one that is not active.
    for constraints in [
        (pt.sum(p), 1),
        [(pt.sum(p), 1), (1e3 * pt.sum(p), 1e3), (p[0], 0.1, None)],
        [(pt.sum(p), None, 1), (p, 0, 1)],
    ]:
        found = optapi.covariance([p], -pt.sum(COUNTS * pt.log(p)), constraints=constraints, mode=STEP)
        np.testing.assert_allclose(found, MULTINOMIAL, rtol=1e-10, atol=1e-15)
    likelihood = pt.sum(COUNTS * pt.log(p))
    found = optapi.covariance([p], likelihood, constraints=(pt.sum(p), 1), ascent=True, mode=STEP)
    np.testing.assert_allclose(found, MULTINOMIAL, rtol=1e-10, atol=1e-15)


def test_components_at_a_bound_leave_the_others():
    """A share that is at its bound is as one that is known: the others sum to the rest."""
    bounds = (np.array([0, 0, 0, 0.2]), None)
    p, run = multinomial(bounds=bounds)
    result = run()
    rest = 0.8 * COUNTS[:3] / COUNTS[:3].sum()
    np.testing.assert_allclose(result.x[0], [*rest, 0.2], atol=1e-6)
    expected = np.zeros((4, 4))
    expected[:3, :3] = (np.diag(rest) - np.outer(rest, rest) / 0.8) * 0.8 / COUNTS[:3].sum()
    np.testing.assert_allclose(result.covariance(), expected, rtol=1e-4, atol=1e-12)
    p.set_value([*rest, 0.2])
    cost = -pt.sum(COUNTS * pt.log(p))
    found = optapi.covariance([p], cost, constraints=(pt.sum(p), 1), bounds=bounds, mode=STEP)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


def test_curved_constraints_count_with_their_multipliers():
    """A direction as a unit vector and as an angle, of which the two have the same errors."""
    rng = np.random.default_rng(2)
    data = rng.vonmises(0.7, 2.0, 40)
    total = np.array([np.cos(data).sum(), np.sin(data).sum()])
    angle, length = np.arctan2(total[1], total[0]), np.hypot(*total)
    along = np.array([-np.sin(angle), np.cos(angle)])
    expected = np.outer(along, along) / (2 * length)

    def nll(u):
        return -2 * (total[0] * u[0] + total[1] * u[1])

    def gradient(u):
        return -2 * total

    u = pytensor.shared(np.array([1.0, 0.0]), name="u", shape=(2,))
    # The cost itself is a plane.
    run = optapi.compile_minimizer([u], nll(u), "sqp", constraints=(pt.sum(u**2), 1), tolerance=1e-9, mode=STEP)
    np.testing.assert_allclose(run().covariance(), expected, atol=1e-9)
    keywords = {"full_output": True, "tolerance": 1e-9}
    for rule in ("sqp", "augmented_lagrangian"):
        for constraints, rtol, kind in (
            ({"type": "eq", "fun": lambda u: u @ u - 1, "jac": lambda u: 2 * u}, 1e-6, "differences"),
            ([(lambda u: np.hypot(u[0], u[1]), 0.0, 1.0)], 1e-4, "differences"),
        ):
            result = optapi.minimize(np.array([0.6, 0.5]), nll, gradient, rule, constraints=constraints, **keywords)
            np.testing.assert_allclose(result.covariance(), expected, atol=rtol * abs(expected).max())
            assert result.second_derivatives == kind


def test_constraints_that_leave_no_room_or_no_minimum():
    p = pytensor.shared(np.array([0.25, 0.75]), name="p", shape=(2,))
    found = optapi.covariance([p], -pt.sum(pt.log(p)), constraints=(p, np.array([0.25, 0.75])), mode=STEP)
    assert np.array_equal(found, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="not positive definite"):
        optapi.covariance([p], -pt.sum(p**2), constraints=(pt.sum(p), 1), mode=STEP)
    with pytest.raises(ValueError, match="with residuals= there are no constraints="):
        optapi.covariance([p], residuals=[p], constraints=(pt.sum(p), 1), mode=STEP)


def test_many_fits_have_those_of_each():
    counts, p = (
        pt.tensor("counts", shape=(4,), dtype="float64"),
        pytensor.shared(np.full(4, 0.25), name="p", shape=(4,)),
    )
    run = optapi.compile_minimizer(
        [p], -pt.sum(counts * pt.log(p)), "sqp", inputs=[counts], constraints=(pt.sum(p), 1),
        bounds=(np.array([1e-6, 1e-6, 1e-6, 0.1]), None), tolerance=1e-9, mode=STEP,
    )  # fmt: skip
    data = np.array([COUNTS, [10.0, 20, 30, 40]])
    result = run.on_data(data)
    for row in range(2):
        p.set_value(np.full(4, 0.25))
        np.testing.assert_allclose(result.covariance()[row], run(data[row]).covariance(), rtol=1e-6, atol=1e-12)
    assert result.covariance()[0, 3, 3] == 0 < result.covariance()[1, 3, 3]


def test_inputs_may_be_sparse():
    p, A = pytensor.shared(np.array([0.5, -1.0]), name="p"), pytensor.sparse.csr_matrix("A")
    cost = pt.sum(pytensor.sparse.dot(A, p.dimshuffle(0, "x")) ** 2) / 2
    matrix = scipy.sparse.csr_matrix(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    found = optapi.covariance([p], cost, inputs={A: matrix}, mode=optapi.PYTHON)
    np.testing.assert_allclose(found, np.diag([0.1, 0.25]), rtol=1e-12)
