"""Scales: rules that search solve a problem whatever the units of its parameters and of its cost."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from more_garbow_hillstrom import PROBLEMS

import optapi
from optapi.line_search import Trial


SEARCHING = [
    *("lbfgs", "bfgs", "sr1", "barzilai_borwein", "hager_zhang_cg", "polak_ribiere", "fletcher_reeves"),
    *("hestenes_stiefel", "dai_yuan", "scaled_conjugate_gradient", "newton", "newton_cg", "trust_region_cg"),
]
LINES = SEARCHING[:9]
DTYPES = ("float64", "float32")


def quartic(dtype, x_unit, cost_unit):
    """A separable quartic with its minimizer at (1, 2) units, its derivative, and products with its Hessian."""
    S, C, center, weights = (np.asarray(v, dtype) for v in (x_unit, cost_unit, [1, 2], [1, 5]))

    def f(x):
        u = x / S - center
        return C * np.sum(weights * u**2 + u**4, dtype=dtype)

    def df(x):
        u = x / S - center
        return C / S * (2 * weights * u + 4 * u**3)

    def hessp(x, v):
        return C / S * ((2 * weights + 12 * (x / S - center) ** 2) * (v / S))

    return f, df, hessp


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", SEARCHING)
def test_units_of_the_parameters_and_of_the_cost(rule, dtype):
    power, relative = {"float64": (12, 1e-6), "float32": (6, 1e-4)}[dtype]
    for x_unit, cost_unit in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, -1), (1, 0)):
        x_unit, cost_unit = 10.0 ** (power * x_unit), 10.0 ** (power * cost_unit)
        f, df, hessp = quartic(dtype, x_unit, cost_unit)
        for start in ([3, -2], [0, 0]):
            x0 = np.asarray(x_unit, dtype) * np.asarray(start, dtype)
            tolerance = relative * cost_unit / x_unit
            result = optapi.minimize(x0, f, df, rule, hessp=hessp, full_output=True, tolerance=tolerance)
            assert result.success, (x_unit, cost_unit, start, result.message)
            np.testing.assert_allclose(result.x / x_unit, [1, 2], rtol=max(1e-3 * (dtype == "float32"), 1e-6))
            assert result.nfev <= 60


def compiled_quartic(rule, dtype, mode):
    """A function from a start and the units of `quartic` to the result of a whole minimization of it."""
    x = pytensor.shared(np.zeros(2, dtype), name="x", shape=(2,))
    S, C = pt.scalar("S", dtype=dtype), pt.scalar("C", dtype=dtype)
    relative = np.asarray({"float64": 1e-6, "float32": 1e-4}[dtype], dtype)
    u = x / S - np.array([1, 2], dtype)
    cost = C * pt.sum(np.array([1, 5], dtype) * u**2 + u**4)
    run = optapi.compile_minimizer([x], cost, rule, inputs=[S, C], tolerance=relative * C / S, mode=mode)

    def minimized(start, x_unit, cost_unit):
        x.set_value(np.asarray(x_unit, dtype) * np.asarray(start, dtype))
        run.restart()
        return run(np.asarray(x_unit, dtype), np.asarray(cost_unit, dtype))

    return minimized


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule, mode", [
    *[pytest.param(rule, optapi.PYTHON, id=f"{rule}-PYTHON") for rule in SEARCHING],
    pytest.param("lbfgs", "NUMBA", marks=[pytest.mark.numba, pytest.mark.long]),
    pytest.param("lbfgs", "JAX", marks=pytest.mark.jax),
])  # fmt: skip
def test_units_of_a_symbolic_cost(rule, mode, dtype):
    power = {"float64": 12, "float32": 6}[dtype]
    minimized = compiled_quartic(rule, dtype, mode)
    for x_power, cost_power in ((0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, -1), (1, 0)):
        units = 10.0 ** (power * x_power), 10.0 ** (power * cost_power)
        for start in ([3, -2], [0, 0]):
            result = minimized(start, *units)
            assert result.success, (units, start, result.message)
            np.testing.assert_allclose(result.x[0] / units[0], [1, 2], rtol=1e-3 if dtype == "float32" else 1e-6)
            assert result.nfev <= 60


@pytest.mark.parametrize("rule", LINES)
def test_a_first_step_that_rounding_would_hide(rule):
    # A quantity of 1e9, known to 1e8: the gradient is smaller than the distance of two such numbers.
    F, W = 1.42e9, 1e8
    result = optapi.minimize(
        [1.05 * F], lambda x: np.sum(((x - F) / W) ** 2), lambda x: 2 * (x - F) / W**2, rule, full_output=True,
        tolerance=1e-9 / W,
    )  # fmt: skip
    assert result.success
    np.testing.assert_allclose(result.x, F, rtol=1e-9)
    assert result.nfev <= 20


@pytest.mark.parametrize("x0", [(1.0, 1.0)])
@pytest.mark.parametrize("rule", [*LINES[:3], *LINES[4:], "scaled_conjugate_gradient"])
def test_a_first_step_that_an_earlier_one_has_left(rule, x0):
    # BoxBOD of the National Institute of Standards and Technology, and its certified minimum.
    X, Y = np.array([1, 2, 3, 5, 7, 10.0]), np.array([109, 149, 149, 191, 213, 224.0])

    def f(b):
        with np.errstate(all="ignore"):
            return np.sum((Y - b[0] * (1 - np.exp(-b[1] * X))) ** 2)

    def df(b):
        with np.errstate(all="ignore"):
            e = np.exp(-b[1] * X)
            r = Y - b[0] * (1 - e)
            return np.array([-2 * np.sum(r * (1 - e)), -2 * np.sum(r * b[0] * X * e)])

    result = optapi.minimize(x0, f, df, rule, full_output=True)
    assert result.success
    np.testing.assert_allclose(result.fun, 1168.0088766, rtol=1e-9)
    np.testing.assert_allclose(result.x, [213.80940889, 0.54723748], rtol=1e-6)


@pytest.mark.parametrize("rule", SEARCHING)
@pytest.mark.parametrize("dtype, size", [("float64", 1e160), ("float32", 1e37)])
def test_gradients_whose_squares_overflow(dtype, size, rule):
    C = np.asarray(size / 20, dtype)

    def f(x):
        with np.errstate(over="ignore"):  # trials may go farther than the numbers do
            return C * np.sum((x - 1) ** 2, dtype=dtype)

    result = optapi.minimize(
        np.array([3, -2], dtype), f, lambda x: 2 * C * (x - 1), rule, hessp=lambda x, v: 2 * C * v, full_output=True,
        tolerance=1e-5 * float(C),
    )  # fmt: skip
    assert result.success
    np.testing.assert_allclose(result.x, [1, 1], atol=1e-5)


@pytest.mark.parametrize("rule", SEARCHING)
@pytest.mark.parametrize("dtype, size", [("float64", 1e160), ("float32", 1e37)])
def test_squares_of_symbolic_gradients_that_overflow(dtype, size, rule):
    # PyTensor may write products of vectors otherwise than a rule does.
    C, one = np.asarray(size / 20, dtype), np.asarray(1, dtype)
    x = pytensor.shared(np.array([3, -2], dtype), name="x", shape=(2,))
    with np.errstate(over="ignore"):
        run = optapi.compile_minimizer(
            [x], C * pt.sum((x - one) ** 2), rule, tolerance=1e-5 * float(C), mode=optapi.PYTHON
        )
        result = run()
    assert result.success
    np.testing.assert_allclose(result.x[0], [1, 1], atol=1e-5)


@pytest.mark.parametrize("rule", ["lbfgs", "bfgs", "hager_zhang_cg", "newton", "newton_cg", "trust_region_cg"])
def test_a_start_at_a_huge_gradient(rule):
    # A Poisson regression in float32; the reference is Newton's method in float64, from the solution's side.
    rng = np.random.default_rng(0)
    X = np.c_[np.ones(50), rng.normal(size=50)]
    Y = rng.poisson(np.exp(X @ [1.0, 0.5]))
    wanted = np.zeros(2)
    for _ in range(30):
        rate = np.exp(X @ wanted)
        wanted -= np.linalg.solve(X.T @ (rate[:, None] * X), X.T @ (rate - Y))
    X, Y = X.astype("f4"), Y.astype("f4")

    def f(b):
        with np.errstate(over="ignore"):
            return np.sum(np.exp(X @ b) - Y * (X @ b), dtype="f4")

    for start in (45, 60):
        x0 = np.array([start, 0], "f4")
        found = optapi.minimize(x0, f, lambda b: X.T @ (np.exp(X @ b) - Y), rule, tolerance=1e-2)
        np.testing.assert_allclose(found, wanted, atol=2e-3)


@pytest.mark.parametrize("rule", LINES)
def test_the_same_under_a_symbolic_cost(rule):
    S = np.float32(1e4)
    x = pytensor.shared(S * np.array([3, -2], "f4"), name="x")
    run = optapi.compile_minimizer(
        [x], pt.sum((x / S - np.array([1, 2], "f4")) ** 2), rule, tolerance=1e-8, mode=optapi.PYTHON
    )
    result = run()
    assert result.success
    np.testing.assert_allclose(result.x[0], [1e4, 2e4], rtol=1e-3)


@pytest.mark.long
@pytest.mark.numba
@pytest.mark.parametrize("mode", ["NUMBA", pytest.param("JAX", marks=pytest.mark.jax)])
@pytest.mark.parametrize("rule", ["lbfgs", "polak_ribiere"])
def test_the_same_under_each_backend(rule, mode):
    S = np.float32(1e4)
    results = []
    for backend in (optapi.PYTHON, mode):
        x = pytensor.shared(S * np.array([3, -2], "f4"), name="x")
        cost = pt.sum((x / S - np.array([1, 2], "f4")) ** 2)
        results.append(optapi.compile_minimizer([x], cost, rule, tolerance=1e-8, mode=backend)())
    one, other = results
    assert (one.status, other.status) == (0, 0)
    np.testing.assert_allclose(one.x[0], other.x[0], rtol=1e-4)


SEARCHES = ["backtracking", "weak_wolfe", "strong_wolfe", "more_thuente", "hager_zhang"]


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_go_by_slopes_where_rounding_hides_the_cost(name):
    # The cost is 1 at all of these steps; its slopes are those of a parabola.
    def line(a):
        return Trial(1 + 1e-20 * (a - 2) ** 2, 2e-20 * (a - 2))

    first = pt.dscalar("first")
    step = getattr(optapi.line_search, name)(line, line(pt.constant(0.0)), first)
    search = pytensor.function([first], [step.size, step.failed], mode=optapi.PYTHON)
    for size in (1e-3, 1.0, 1e2):
        found, failed = search(size)
        assert not failed
        # Closer to the minimizer than the start.
        assert abs(found - 2) < 2
        assert name == "backtracking" or size != 1e-3 or found > 0.1


# The others take a step here, by slopes alone.
@pytest.mark.parametrize("name", ["weak_wolfe", "strong_wolfe", "more_thuente"])
def test_searches_see_how_wrong_a_cost_is(name):
    def found(line):
        first = pt.dscalar("first")
        step = getattr(optapi.line_search, name)(line, line(pt.constant(0.0)), first)
        return pytensor.function([first], [step.noise, step.failed], mode=optapi.PYTHON)(1.0)

    # All costs but the first are too high by 1e-9, where the slopes promise 5e-13.
    noise, failed = found(lambda a: Trial(1 + 1e-9 * pt.gt(a, 0) - 1e-12 * (a - a**2 / 2), -1e-12 * (1 - a)))
    assert failed
    assert noise == pytest.approx(1e-9, rel=1e-3)
    # A derivative of the wrong sign is no noise, however short the step is.
    noise, failed = found(lambda a: Trial(1 + 1e-3 * a, -1e-3 + 0 * a))
    assert failed
    assert noise <= 1e-14


@pytest.mark.parametrize("number", [17, 20])
def test_least_squares_in_float32_converge_to_the_precision_of_the_cost(number):
    [problem] = [p for p in PROBLEMS if p.number == number]
    x = pytensor.shared(problem.start.astype("float32"), name="x", shape=problem.start.shape)
    result = optapi.compile_minimizer([x], problem.cost([x]), "lbfgs", tolerance=1e-6, mode=optapi.PYTHON)()
    assert result.success, result.message
    cost, _ = problem.evaluate(result.x[0].astype("float64"))
    start, _ = problem.evaluate(problem.start)
    assert float(cost) - min(problem.minima) <= 1e-6 * float(start)
