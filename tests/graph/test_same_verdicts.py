"""The same verdict under each backend: costs that public reports are about, with the right values.

The right values are by hand, of the National Institute of Standards and Technology, or of SciPy in float64.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.optimize

import optapi


# Building for a compiled backend warns of what PyTensor itself does there; some costs overflow on the way.
pytestmark = pytest.mark.filterwarnings("default")

CASES = {}


def case(rule, *, tolerance, value, reason="Converged", rtol=1e-6, atol=0.0):
    """Register a function from nothing to a parameter, or a list of them, and a cost as the case of its name."""

    def register(function):
        CASES[function.__name__] = (function, rule, tolerance, value, reason, rtol, atol)
        return function

    return register


def start_at(value, dtype="float64"):
    array = np.asarray(value, dtype)
    return pytensor.shared(array, name="x", shape=array.shape)


# A first step that rounding would hide


@case("lbfgs", tolerance=1e-8, value=[1e4, 2e4], rtol=1e-3)
def large_parameters_in_float32():
    x = start_at([3e4, -2e4], "float32")
    return x, pt.sum((x / np.float32(1e4) - np.array([1, 2], "float32")) ** 2)


@case("lbfgs", tolerance=1e-17, value=[1.42e9], rtol=1e-9)
def a_frequency():
    x = start_at([1.05 * 1.42e9])
    return x, pt.sum(((x - 1.42e9) / 1e8) ** 2)


@case("lbfgs", tolerance=1e-24, value=[1, 1])
def a_small_cost():
    x = start_at([3.0, -2.0])
    return x, 1e-17 * pt.sum((x - 1) ** 2)


@case("lbfgs", tolerance=1e-13, value=[1, 1], rtol=1e-3)
def a_small_cost_in_float32():
    x = start_at([3, -2], "float32")
    return x, np.float32(1e-9) * pt.sum((x - np.float32(1)) ** 2)


# Squares of gradients that overflow


def counts():
    rng = np.random.default_rng(0)
    X = np.c_[np.ones(50), rng.normal(size=50)]
    return X, rng.poisson(np.exp(X @ [1.0, 0.5]))


def coefficients():
    X, y = counts()
    exactly = {"jac": lambda b: X.T @ (np.exp(X @ b) - y), "method": "BFGS", "options": {"gtol": 1e-9}}
    return scipy.optimize.minimize(lambda b: np.sum(np.exp(X @ b) - y * (X @ b)), [1.0, 0.5], **exactly).x


@case("lbfgs", tolerance=1e-2, value=coefficients(), atol=2e-3)
def a_poisson_regression_in_float32():
    X, y = (values.astype("float32") for values in counts())
    b = start_at([45, 0], "float32")
    return b, pt.sum(pt.exp(X @ b) - y * (X @ b))


@case("lbfgs", tolerance=1e152, value=[1, 1])
def a_gradient_of_1e160():
    x = start_at([3.0, -2.0])
    return x, 1e160 * pt.sum((x - 1) ** 2)


# The edge of a domain


@case("lbfgs", tolerance=1e-6, value=np.full(3, np.exp(50 / 300)))
def an_entropy():
    x = start_at(np.full(3, 1e-9))
    return x, pt.sum(-50 * x + 300 * x * (pt.log(x) - 1))


@case("trust_region_cg", tolerance=1e-3, value=[14 / 7e6])
def a_rate_per_hour():
    k, T = np.array([3, 5, 2, 4.0]), np.array([1e6, 2e6, 1e6, 3e6])
    rate = start_at([1e-7])
    return rate, pt.sum(rate[0] * T - k * pt.log(rate[0] * T))


# Curvature: none, and negative


def logistic_data():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(30, 2))
    return A, (rng.normal(size=30) > 0) * 1.0


def halves():
    """The coefficients of three columns of which the last is the first; its coefficient is split between the two."""
    A, y = logistic_data()
    exactly = {"jac": lambda p: A.T @ (1 / (1 + np.exp(-A @ p)) - y), "method": "BFGS", "options": {"gtol": 1e-10}}
    a, b = scipy.optimize.minimize(lambda p: np.sum(np.logaddexp(0, A @ p) - y * (A @ p)), [0, 0], **exactly).x
    return [a / 2, b, a / 2]


# How the two share their sum is not determined; it stays about as it was at the start.
@case("newton", tolerance=1e-7, value=halves(), atol=0.25)
def two_equal_columns():
    A, y = logistic_data()
    p = start_at(np.zeros(3))
    margin = np.c_[A, A[:, 0]] @ p
    return p, pt.sum(pt.softplus(margin) - y * margin)


@case("newton_cg", tolerance=1e-8, value=[0, 0, 0], atol=1e-6)
def negative_curvature_after_an_inner_step():
    x = start_at([2.0, 3.0, -8.0])
    return x, x[0] ** 2 + (x[1] + x[1] ** 2) ** 2 + (pt.exp(x[2]) - 1) ** 2


def intercept_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    return X, np.where(X @ [1.0, -2.0, 0.5] + rng.logistic(size=50) > 0, 1.0, -1.0)


def with_an_intercept():
    X, s = intercept_data()

    def cost(p):
        return np.sum(np.logaddexp(0, -s * (X @ p[:3] + p[3]))) + p[:3] @ p[:3] / 2

    return scipy.optimize.minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-5}).x


@case("newton_cg", tolerance=1e-9, value=with_an_intercept(), rtol=1e-4)
def an_intercept_that_is_a_number():
    X, s = intercept_data()
    w, b = pytensor.shared(np.zeros(3), name="w"), pytensor.shared(0.0, name="b")
    return [w, b], pt.sum(pt.softplus(-s * (X @ w + b))) + pt.sum(w**2) / 2


# Trials far away


def box_bod():
    X, Y = np.array([1, 2, 3, 5, 7, 10.0]), np.array([109, 149, 149, 191, 213, 224.0])
    b = start_at([1.0, 1.0])
    return b, pt.sum((Y - b[0] * (1 - pt.exp(-b[1] * X))) ** 2)


BOX_BOD = [213.80940889, 0.54723748]
case("hager_zhang_cg", tolerance=1e-5, value=BOX_BOD)(box_bod)


@case("scaled_conjugate_gradient", tolerance=1e-5, value=BOX_BOD)
def huge_finite_costs():
    return box_bod()


# A long way


@case("trust_region_cg", tolerance=1e-8, value=[-1, 0], atol=1e-4)
def a_narrow_valley():
    x = start_at([1.1, 0.1])
    return x, x[0] + 1e6 * (pt.sum(x**2) - 1) ** 2


# Where rounding hides what is left, and where there is nothing


def decay():
    t = np.linspace(0, 4, 30)
    return t, 2 * np.exp(-1.3 * t) + 0.5 + 0.01 * np.random.default_rng(0).normal(size=30)


def of_the_decay():
    t, y = decay()
    return scipy.optimize.least_squares(lambda p: p[0] * np.exp(-p[1] * t) + p[2] - y, [1.0, 1.0, 0.0], xtol=1e-15).x


PRECISE = "Converged to the precision of the cost"


@case("lbfgs", tolerance=1e-9, value=of_the_decay(), reason=PRECISE, rtol=2e-3)
def a_fit_in_float32():
    t, y = (values.astype("float32") for values in decay())
    p = start_at([1, 1, 0], "float32")
    return p, pt.sum((p[0] * pt.exp(-p[1] * t) + p[2] - y) ** 2)


@case("lbfgs", tolerance=1e-6, value=[])
def no_components():
    x = start_at(np.zeros(0))
    return x, pt.sum(x**2)


# A rule that another case compiles is found in the cache.
QUICK = [name for name, (_, rule, *_) in CASES.items() if rule == "lbfgs"]
RUNS = [
    *[pytest.param(name, "NUMBA", marks=pytest.mark.numba) for name in QUICK],
    *[pytest.param(name, "NUMBA", marks=[pytest.mark.numba, pytest.mark.long]) for name in CASES if name not in QUICK],
    *[pytest.param(name, "JAX", marks=pytest.mark.jax) for name in CASES],
]


def ending(name, mode):
    """The result of the case."""
    function, rule, tolerance, *_ = CASES[name]
    parameters, cost = function()
    parameters = parameters if isinstance(parameters, list) else [parameters]
    with np.errstate(all="ignore"):
        return optapi.compile_minimizer(parameters, cost, rule, tolerance=tolerance, mode=mode)()


def check(name, result):
    *_, value, reason, rtol, atol = CASES[name]
    assert result.success
    assert result.message.split(":")[0] == reason
    assert result.status == 0
    np.testing.assert_allclose(np.concatenate(list(map(np.ravel, result.x))), value, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_the_right_value(name):
    check(name, ending(name, optapi.PYTHON))


@pytest.mark.parametrize("name, mode", RUNS)
def test_the_same_verdict(name, mode):
    check(name, ending(name, mode))


@pytest.mark.parametrize("mode", [
    pytest.param(optapi.PYTHON, id="PYTHON"),
    pytest.param("NUMBA", marks=pytest.mark.numba),
    pytest.param("JAX", marks=pytest.mark.jax),
])  # fmt: skip
@pytest.mark.parametrize("clip", [optapi.gradients.clip_global_norm, optapi.gradients.clip_norm])
def test_clipping_keeps_the_direction(clip, mode):
    g = pt.dvector("g")
    clipped = pytensor.function([g], clip([g], 1.0), mode=mode)
    for size in (1.0, 1e160, 1e300):
        np.testing.assert_allclose(clipped(np.array([3.0, 4.0]) * size)[0], [0.6, 0.8])
