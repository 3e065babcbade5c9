"""Fits: `least_squares` and `curve_fit`, beside SciPy and the certified values of NIST."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.optimize
from nist import digits, regressions

import optapi
from optapi import OptimizationWarning, curve_fit, least_squares
from optapi.drivers import scipy_least_squares as door
from optapi.graph.numpy_linker import STEP


TIMES = np.linspace(0, 3, 12)
DATA = 2.0 * np.exp(-0.8 * TIMES) + 0.05 * np.cos(7 * TIMES)
START = np.array([1.0, 0.3])


def model(t, height, rate):
    return height * np.exp(-rate * t)


def residuals(x):
    return np.asarray(model(TIMES, *x) - DATA)  # an array, which no variable makes


def jacobian(x):
    curve = np.exp(-x[1] * TIMES)
    return np.stack([curve, -x[0] * TIMES * curve], axis=1)


BEST = scipy.optimize.least_squares(residuals, START, jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-15)


@pytest.mark.parametrize(
    "jac, digit",
    [(jacobian, 1e-9), (True, 1e-9), (None, 1e-9), ("cs", 1e-9), ("3-point", 1e-7), ("2-point", 1e-6)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_jacobians_in_all_forms(jac, digit):
    calls = []

    def f(x):
        calls.append(np.copy(x) if isinstance(x, np.ndarray) else x)
        if jac is None:
            return model(TIMES, *x) - DATA
        return (residuals(x), jacobian(x)) if jac is True else model(TIMES, *x) - DATA

    fit = least_squares(START, f, jac)
    assert fit.success and isinstance(fit.fun, float)
    np.testing.assert_allclose(fit.x, BEST.x, rtol=digit)
    assert fit.fun == pytest.approx(BEST.cost, rel=1e-10)
    np.testing.assert_allclose(fit.residuals, residuals(fit.x), rtol=1e-12)
    np.testing.assert_allclose(fit.jacobian, jacobian(fit.x), rtol=10 * digit, atol=10 * digit)
    np.testing.assert_allclose(fit.jac, fit.jacobian.T @ fit.residuals, atol=1e-10)
    if jac is not None:
        assert fit.nfev == len(calls)
        assert len({point.tobytes() for point in calls}) == len(calls)  # once for each point
    if callable(jac):
        assert fit.nfev == fit.njev


def test_without_a_derivative_there_is_a_warning():
    with pytest.warns(OptimizationWarning, match=r"by differences, since residuals cannot .* called with PyTensor"):
        fit = least_squares(START, residuals)
    np.testing.assert_allclose(fit.x, BEST.x, rtol=1e-6)


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "arctan"])
def test_losses_are_those_of_scipy(loss):
    data = DATA.copy()
    data[[3, 8]] += [3.0, -2.0]
    wanted = scipy.optimize.least_squares(lambda x: model(TIMES, *x) - data, [1.9, 0.7], jacobian, loss=loss,
                                          f_scale=0.1, xtol=1e-15, ftol=1e-15, gtol=1e-13)  # fmt: skip
    fit = curve_fit(model, TIMES, data, [1.9, 0.7], loss=loss, f_scale=0.1)
    np.testing.assert_allclose(fit.x, wanted.x, rtol=1e-7)
    assert fit.fun == pytest.approx(wanted.cost, rel=1e-10)
    # SciPy's curve_fit takes the covariance of the weighted Jacobian.
    exact = {"jac": lambda t, *x: jacobian(x), "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-13, "method": "trf"}
    _, expected = scipy.optimize.curve_fit(model, TIMES, data, [1.9, 0.7], loss=loss, f_scale=0.1, **exact)
    np.testing.assert_allclose(fit.covariance(), expected, rtol=1e-4)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("kind", ["none", "number", "vector", "matrix"])
def test_standard_errors_are_those_of_scipy(kind, absolute):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    sigma = {"none": None, "number": 0.1, "vector": rng.uniform(0.05, 0.2, 12), "matrix": mixing @ mixing.T}[kind]
    keywords = {"sigma": sigma, "absolute_sigma": absolute}
    each = np.full(12, 0.1) if kind == "number" else sigma  # SciPy's fails for a number with a derivative
    exact = {"jac": lambda t, *x: jacobian(x), "xtol": 1e-14, "ftol": 1e-14}
    popt, pcov = scipy.optimize.curve_fit(model, TIMES, DATA, START, each, absolute, **exact)
    for jac in (None, lambda t, *x: jacobian(x)):
        fit = curve_fit(model, TIMES, DATA, START, jac=jac, **keywords)
        np.testing.assert_allclose(fit.x, popt, rtol=1e-7)
        np.testing.assert_allclose(fit.covariance(), pcov, rtol=1e-6)
        np.testing.assert_allclose(fit.standard_errors(), np.sqrt(np.diag(pcov)), rtol=1e-6)
    assert fit.degrees_of_freedom == 10


def test_structures_and_names():
    """A dictionary of parameters is passed by name, a list of arrays by position; the summary has their names."""
    fit = curve_fit(model, TIMES, DATA, {"rate": 0.3, "height": 1.0})
    np.testing.assert_allclose([fit.x["height"], fit.x["rate"]], BEST.x, rtol=1e-9)
    assert set(fit.standard_errors()) == set(fit.jacobian) == {"rate", "height"}
    lines = fit.summary().splitlines()
    assert lines[0] == "levenberg_marquardt: converged, 12 residuals, 2 parameters"
    assert [line.split()[0] for line in lines[2:4]] == ["rate", "height"]
    deviation = np.sqrt(2 * BEST.cost / 10)
    assert lines[4] == f"residual standard deviation {deviation:.4g} with 10 degrees of freedom"

    def several(t, pair, offset):
        return pair[0] * np.exp(-pair[1] * t) + offset

    fit = curve_fit(several, TIMES, DATA, [START, np.zeros(())])
    assert [np.shape(part) for part in fit.jacobian] == [(12, 2), (12,)]
    assert "[0][1]" in fit.summary()
    assert curve_fit(model, TIMES, DATA).summary().splitlines()[2].startswith("height")  # the start is 1


def test_data_that_do_not_determine_a_parameter():
    fit = curve_fit(lambda t, a, b: a * t + 0 * b, TIMES, DATA, jac="2-point")
    with pytest.raises(ValueError, match="there is no covariance here"):
        fit.covariance()
    assert "there is no covariance here" in fit.summary()


def test_other_rules_options_and_limits():
    fit = least_squares(START, residuals, jacobian, "gauss_newton", solver="cg", trace=True)
    np.testing.assert_allclose(fit.x, BEST.x, rtol=1e-8)
    assert len(fit.trace["cost"]) == fit.nit + 1
    assert least_squares(START, residuals, jacobian, max_iterations=2).status == 1
    assert least_squares(START, residuals, jacobian, target=1.0).status == 5
    assert least_squares(START.astype("float32"), residuals, jacobian, step_tolerance=1e-4).x.dtype == "float32"
    with pytest.raises(ZeroDivisionError):
        least_squares(START, lambda x: 1 / 0, jacobian)
    assert least_squares(START, lambda x: residuals(x) + np.nan, jacobian).status == 3


def test_what_is_wrong_is_named():
    for keywords, error, words in (
        ({"opt_algo": "lbfgs"}, ValueError, "lbfgs, which takes no residuals"),
        ({"jac": "4-point"}, ValueError, "jac is '4-point'"),
        ({"jac": lambda x: np.ones((2, 12))}, ValueError, r"shape \(2, 12\) for 12 values"),
        ({"loss": "hinge"}, ValueError, "loss is 'hinge'"),
        ({"x_scale": -1.0}, ValueError, "x_scale"),
        ({"dampling": 1.0}, TypeError, "damping"),
    ):
        with pytest.raises(error, match=words):
            least_squares(START, residuals, **{"jac": jacobian, **keywords})
    for keywords, words in (
        ({"sigma": -1.0}, "sigma has values that are not positive"),
        ({"sigma": np.ones(3)}, r"sigma has shape \(3,\)"),
        ({"sigma": -np.eye(12)}, "not positive definite"),
    ):
        with pytest.raises(ValueError, match=words):
            curve_fit(model, TIMES, DATA, START, **keywords)
    with pytest.raises(ValueError, match="return the same number"):
        lengths = iter([12, 11, 11])
        least_squares(START, lambda x: residuals(x)[: next(lengths)], jacobian)


def test_compiled_minimizations_take_residuals_alone():
    p = pytensor.shared(START, name="p", shape=(2,))
    r = p[0] * pt.exp(-p[1] * TIMES) - DATA
    run = optapi.compile_minimizer([p], residuals=r, mode=STEP, tolerance=1e-9)
    assert run.opt_algo is optapi.levenberg_marquardt
    np.testing.assert_allclose(run().x[0], BEST.x, rtol=1e-7)
    p.set_value(START)
    wrong = optapi.compile_minimizer([p], pt.sum(r**2), "levenberg_marquardt", residuals=r, mode=STEP)
    square = residuals(START) @ residuals(START)
    with pytest.raises(ValueError, match=f"it is {square:.6g}, and half of .* is {square / 2:.6g}"):
        wrong()
    with pytest.raises(ValueError, match="the cost is not that of the residuals"):
        wrong.from_starts([np.ones((2, 2))])
    offset = optapi.compile_minimizer([p], pt.sum(r**2) / 2 + 1, "levenberg_marquardt", residuals=r, mode=STEP)
    assert offset().success


# NIST's


SOME = [regression for regression in regressions() if regression.name in ("Misra1a", "Hahn1", "Rat43", "MGH09")]


@pytest.mark.parametrize("regression", SOME, ids=lambda regression: regression.name)
def test_certified_values(regression):
    """The others are in tests/benchmarks/nist.py."""
    for start in regression.starts:
        fit = curve_fit(regression.numpy, regression.x, regression.y, start, jac="cs")
        assert digits(fit.x, regression.certified) >= 8
        assert digits(fit.standard_errors(), regression.standard_errors) >= 6
        assert 2 * fit.fun == pytest.approx(regression.squares, rel=1e-9)


# SciPy's door


@pytest.mark.parametrize("method", ["trf", "dogbox", "lm"])
def test_scipys_least_squares(method):
    for jac in (jacobian, "2-point", "3-point", "cs"):
        found = door.least_squares(lambda x: model(TIMES, *x) - DATA, START, jac, method=method)
        wanted = scipy.optimize.least_squares(lambda x: model(TIMES, *x) - DATA, START, jac, method=method)
        assert set(found) == set(wanted) and found.success and found.status in (1, 2, 3, 4)
        np.testing.assert_allclose(found.x, wanted.x, rtol=1e-5)
        np.testing.assert_allclose(found.cost, wanted.cost, rtol=1e-8)
        np.testing.assert_allclose(found.fun, residuals(found.x), rtol=1e-12)
        np.testing.assert_allclose(found.grad, found.jac.T @ found.fun, atol=1e-12)
        assert found.optimality == np.max(abs(found.grad)) and not found.active_mask.any()
        assert (found.njev is None) == (wanted.njev is None)


def test_scipys_losses_limits_and_refusals():
    def cauchy(z):
        return np.array([np.log1p(z), 1 / (1 + z), -1 / (1 + z) ** 2])

    found = door.least_squares(residuals, START, jacobian, loss=cauchy, f_scale=0.1)
    wanted = scipy.optimize.least_squares(residuals, START, jacobian, loss="cauchy", f_scale=0.1)
    np.testing.assert_allclose(found.x, wanted.x, rtol=1e-4)
    for limit in (1, 3):
        found = door.least_squares(residuals, START, jacobian, max_nfev=limit)
        assert (found.nfev, found.status, found.success) == (limit, 0, False)
    seen = []
    found = door.least_squares(residuals, START, jacobian, callback=lambda x: seen.append(x) or len(seen) == 2)
    assert found.status == -2 and len(seen) == 2


@pytest.mark.parametrize("method", ["lm", "trf"])
def test_scipys_curve_fit(method):
    sigma = np.linspace(0.05, 0.2, 12)
    for keywords in ({}, {"sigma": sigma}, {"sigma": sigma, "absolute_sigma": True}, {"sigma": np.diag(sigma**2)}):
        found = door.curve_fit(model, TIMES, DATA, method=method, full_output=True, **keywords)
        wanted = scipy.optimize.curve_fit(model, TIMES, DATA, method=method, full_output=True, **keywords)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4)
        assert set(found[2]) == set(wanted[2]) and found[4] in (1, 2, 3, 4)
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="Optimal parameters not found"):
        warnings.simplefilter("ignore")
        door.curve_fit(model, TIMES, DATA, method="lm", maxfev=2)


def seen_inside(low, high):
    """Residuals that note where they are called, and check that it is inside."""

    def inside(x):
        assert np.all(low <= np.real(x)) and np.all(np.real(x) <= high), x
        return residuals(x)

    return inside


def test_bounds_hold_for_differences_too_and_mask_the_covariance():
    free = optapi.least_squares(START, residuals, jacobian)
    low, high = np.array([-np.inf, 0.0]), np.array([np.inf, 0.9 * free.x[1]])
    fit = optapi.least_squares(START, seen_inside(low, high), "2-point", bounds=scipy.optimize.Bounds(low, high))
    assert fit.success and fit.x[1] == high[1]
    column = np.exp(-high[1] * TIMES)
    np.testing.assert_allclose(fit.x[0], column @ DATA / (column @ column), rtol=1e-6)
    variance = 2 * fit.fun / (DATA.size - 2)
    np.testing.assert_allclose(fit.covariance(), [[variance / (column @ column), 0], [0, 0]], rtol=1e-5)
    # Equal bounds leave no room for a difference.
    same = optapi.least_squares(
        START, seen_inside([-np.inf, high[1]], high), "2-point", bounds=[(None, None), high[[1, 1]]]
    )
    np.testing.assert_allclose(same.x, fit.x, rtol=1e-6)


def test_bounds_in_scipys_functions():
    low, high = [0.0, 0.0], [10.0, 0.3]
    ours = door.least_squares(seen_inside(low, high), [1.0, 0.1], bounds=(low, high))
    scipys = scipy.optimize.least_squares(residuals, [1.0, 0.1], jacobian, bounds=(low, high), xtol=1e-12, ftol=1e-12)
    assert ours.success and ours.optimality <= 1e-4
    np.testing.assert_array_equal(ours.active_mask, scipys.active_mask)
    np.testing.assert_allclose(ours.x, scipys.x, rtol=1e-6)
    assert ours.cost <= scipys.cost * (1 + 1e-9)
    popt, pcov = door.curve_fit(model, TIMES, DATA, bounds=(low, high))
    expected, covariance = scipy.optimize.curve_fit(model, TIMES, DATA, bounds=(low, high))
    np.testing.assert_allclose(popt, expected, rtol=1e-5)
    np.testing.assert_allclose(pcov, covariance, rtol=1e-3)


@pytest.mark.parametrize("tiny", [1e-10, 1e-20, 0.0])
def test_a_component_that_starts_tiny_moves_by_differences(tiny):
    t = np.linspace(0, 5, 30)
    y = 2 * np.exp(-0.7 * t) + 0.3
    fit = optapi.least_squares([1, 1, tiny], lambda p: np.asarray(p[0] * np.exp(-p[1] * t) + p[2] - y), "2-point")
    assert fit.success
    np.testing.assert_allclose(fit.x, [2, 0.7, 0.3], rtol=1e-7)


@pytest.mark.parametrize("y", [[1.1, 0.9, 0.9, 1.1], [2.0, 2.0, 2.0, 2.0]])
def test_a_component_that_is_zero_at_the_solution(y):
    t = np.array([-1, -0.5, 0.5, 1])
    fit = optapi.curve_fit(lambda t, a, b: a + b * t, t, y, [3.0, 2.0])
    assert fit.success
    assert fit.nit <= 8
    np.testing.assert_allclose(fit.x, [np.mean(y), 0], atol=1e-9)


def test_robust_fits_in_threads():
    t = np.linspace(0, 5, 30)

    def fit(rate):
        y = np.exp(-rate * t)
        return optapi.least_squares([1.0], lambda p: np.exp(-p[0] * t) - y, lambda p: -(t * np.exp(-p[0] * t))[:, None],
                                    loss="huber").x[0]  # fmt: skip

    rates = np.linspace(0.5, 2, 24)
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(fit, rates)), rates, rtol=1e-6)


@pytest.mark.parametrize(("exp", "jac"), [(pt.exp, None), (np.exp, "2-point")])
def test_standard_errors_with_further_arguments(exp, jac):
    def residuals(p, y, scale):
        return (p[0] * exp(-p[1] * TIMES) - y) * scale

    inside = least_squares(START, lambda p: residuals(p, DATA, 2.0), jac)
    fit = least_squares(START, residuals, jac, args=(DATA, 2.0))
    np.testing.assert_array_equal(fit.standard_errors(), inside.standard_errors())


@pytest.mark.parametrize(
    ("p0", "said"),
    [
        ([1.0], "p0 has 1 values, and the parameters of the model are height, rate"),
        ([1.0, 2.0, 3.0], "p0 has 3 values"),
        ({"height": 1.0, "speed": 1.0}, "p0 names height, speed"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_start_that_the_model_does_not_take(p0, said, many):
    def model(t, height, rate):
        return height * np.exp(-rate * t)

    y = np.ones((3, 5)) if many else np.ones(5)
    with pytest.raises(ValueError, match=said):
        optapi.curve_fit(model, np.arange(5.0), y, p0, many=many)
