"""Minimizations without derivative: expressions, differences, noise, workers."""

import concurrent.futures
import pickle
import warnings

import numpy as np
import pytensor.tensor as pt
import pytest
import scipy.optimize
from scipy.optimize import rosen

import optapi
from optapi import OptimizationWarning, minimize, minimize_iterator
from optapi.drivers.differences import Differences, noise, noisy_steps


START = np.array([-1.2, 1.0, -0.5, 0.8])


def banana(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


class Counting:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, x, *args):
        self.calls += 1
        return self.function(x, *args)


def slope(f, x, scheme, **options):
    """The derivative of `f` at `x` by the differences of a minimization."""
    differences = Differences(scheme, **options)
    return differences(lambda points: [f(*point) for point in points], x, f(*x))


# What df may be


def test_the_shortest_call():
    np.testing.assert_allclose(minimize(np.zeros(2), lambda x: ((x - 3) ** 2).sum()), 3, rtol=1e-12)
    by_name = minimize(START, rosen, "2-point", full_output=True)
    itself = minimize(START, rosen, "2-point", optapi.lbfgs, full_output=True)
    assert np.array_equal(by_name.x, itself.x)
    assert next(minimize_iterator([3.0], lambda x: (x[0] - 1) ** 2)).nit == 1


@pytest.mark.parametrize("scheme, digits", [("2-point", 7e-8), ("3-point", 5e-10), ("cs", 1e-14)])
def test_schemes(scheme, digits):
    f = Counting(lambda x: np.sum(np.exp(5 * x) - 7 * x))
    result = minimize([1.0, 0.3], f, scheme, max_iterations=2, full_output=True)
    np.testing.assert_allclose(result.jac, 5 * np.exp(5 * result.x) - 7, rtol=digits, atol=30 * digits)
    assert result.nfev == f.calls
    assert result.njev < result.nfev
    end = minimize([1.0, 0.3], f, scheme)
    np.testing.assert_allclose(end, np.log(7 / 5) / 5, atol=1e-6)


def test_one_component_after_the_other_in_a_structure():
    def f(x):
        return np.sum((x["a"] - 1) ** 2) + np.exp(x["b"][0]) - 2 * x["b"][0]

    for scheme in ("2-point", "3-point", "cs"):
        x = minimize({"a": np.zeros((2, 2)), "b": [np.zeros(())]}, f, scheme)
        np.testing.assert_allclose(x["a"], 1, atol=1e-5)
        np.testing.assert_allclose(x["b"][0], np.log(2), atol=1e-5)


def test_float32_has_steps_of_its_own():
    x0 = np.array([1, 2], "float32")
    result = minimize(x0, lambda x: np.sum((x - 3) ** 2), "2-point", tolerance=1e-2, full_output=True)
    assert result.success
    assert result.x.dtype == result.jac.dtype == "float32"
    np.testing.assert_allclose(result.x, 3, atol=5e-3)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("of_cost", [1e-6, 1e6])
def test_units_of_the_parameters_and_the_cost_do_not_matter(unit, of_cost):
    f = lambda x: of_cost * banana(x / unit)  # noqa: E731
    result = minimize(START * unit, f, "3-point", tolerance=1e-5 * of_cost / unit, full_output=True)
    assert result.success
    np.testing.assert_allclose(result.x / unit, minimize(START, banana, "3-point", tolerance=1e-5), atol=1e-3)


@pytest.mark.parametrize("start", [0.0, 1e-12, -1e-300])
def test_a_start_at_almost_zero_says_nothing_of_units(start):
    np.testing.assert_allclose(minimize([start, 2.0], lambda x: np.sum((x - 1) ** 2), "2-point"), 1, atol=1e-6)


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_neighbors_outside_of_the_domain(scheme):
    edge = 2.0

    def f(x):
        assert x[0] < edge + 1  # a neighbor is near
        return np.inf if x[0] > edge else np.sum((x - 1) ** 2)

    [gradient] = slope(f, [np.array([edge, 0.5])], scheme)
    np.testing.assert_allclose(gradient, [2, -1], atol=2e-5)


def test_complex_steps_ask_for_complex_numbers():
    with pytest.raises(ValueError, match="df='cs' needs a complex number"):
        minimize(START, lambda x: np.sum(np.abs(x)), "cs")


def test_scipys_steps():
    x, seen = np.array([-3.0, 0.5, 0.0]), []

    def f(point):
        seen.append(point - x)
        return np.sum(point**2)

    root = np.finfo(float).eps ** 0.5
    for options, h in (
        ({"scipy": True}, [-3 * root, root, root]),
        ({"absolute": 1e-4}, [1e-4] * 3),
        ({"relative": 1e-3}, [-3e-3, 5e-4, root]),
        ({"absolute": 1e-30}, [-3 * root, root, 1e-30]),
    ):
        seen.clear()
        slope(f, [x], "2-point", **options)
        np.testing.assert_allclose(np.diag(seen[1:]), h, rtol=1e-6)


# df=None: as an expression, if f takes variables


def test_an_expression_is_differentiated_without_a_word():
    for f in (lambda x: pt.sum((x - 3) ** 2), lambda x: (x - 3) @ (x - 3), lambda x: sum((c - 3) ** 2 for c in x)):
        result = minimize(np.zeros(3), f, full_output=True)
        np.testing.assert_allclose(result.x, 3, atol=1e-12)
        assert result.nfev < 6
    # a cost of shape (1,), as SciPy takes it
    np.testing.assert_allclose(minimize([2.0], lambda x: (x - 3) ** 2), 3)


def test_one_warning_says_why_differences_are_taken():
    def f(x):
        if x[0] > 10:
            return 1e3
        return float(np.sum((x - 3) ** 2))

    with pytest.warns(OptimizationWarning) as caught:
        x = minimize(np.zeros(3), f)
    np.testing.assert_allclose(x, 3, atol=1e-6)
    assert len(caught) == 1
    assert "TypeError: TensorVariable cannot be converted to Python boolean" in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__


def test_an_expression_that_is_another_function_is_noticed():
    """np.dot takes a variable for a number, and its sum for a cost."""

    def f(x):
        return np.sum(np.dot(np.ones((2, 2)), x) ** 2) if isinstance(x, np.ndarray) else pt.sum(x**2)

    with pytest.warns(OptimizationWarning, match=r"as an expression it is 5 where it is 18 of numbers"):
        x = minimize([1.0, 2.0], f)
    assert f(x) < 1e-10
    with pytest.warns(OptimizationWarning, match=r"as an expression it is"):
        minimize([0.0, 0.0], lambda x: f(x) + x[0])  # both are 0 at the start


def test_a_function_that_fails_on_arrays_too():
    def f(x):
        return x.summ()

    with pytest.raises(AttributeError, match="summ") as caught:
        minimize(START, f)
    assert "df is None, so f was first called with PyTensor variables" in caught.value.__notes__[0]


def test_a_scheme_is_not_tried_with_variables():
    def f(x):
        assert isinstance(x, np.ndarray)
        return np.sum((x - 3) ** 2)

    np.testing.assert_allclose(minimize(np.zeros(2), f, "2-point"), 3, atol=1e-6)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda f: minimize(START, f, "4-point"), ValueError, "df is '4-point'; pass a function, True, or one of"),
        (lambda f: minimize(START, f, optapi.lbfgs), TypeError, "df is the rule lbfgs; pass it as opt_algo='lbfgs'"),
        (lambda f: minimize(START, f, "lbfgs"), TypeError, "df is the rule lbfgs; pass it as opt_algo='lbfgs'"),
        (lambda f: minimize(START, f, None, "Nelder-Mead"), ValueError, "an algorithm of SciPy .*'Nelder-Mead'"),
        (lambda f: minimize(START, f, None, "cobyla"), ValueError, "scipy.optimize.minimize"),
        (lambda f: minimize(START, f, "2-point", workers=0), ValueError, "workers is 0"),
        (lambda f: minimize(START, f, "2-point", workers=1.5), TypeError, "workers is 1.5"),
        (lambda f: minimize(START, f, "2-point", workers=True), TypeError, "workers is True"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(rosen)


def test_only_a_point_comes_with_a_warning_where_it_is_no_success():
    with pytest.warns(OptimizationWarning, match="Stopped at the limit of 3 iterations") as caught:
        minimize(START, rosen, "2-point", max_iterations=3)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minimize(START, rosen, "2-point", max_iterations=3, full_output=True)


# Other rules, files, workers


@pytest.mark.parametrize("rule", ["newton", "newton_cg", "trust_region_cg", "bfgs", "hager_zhang_cg"])
def test_rules_that_multiply_with_second_derivatives(rule):
    result = minimize([1.3, 0.7, 0.8, 1.9], rosen, "2-point", rule, tolerance=1e-4, full_output=True)
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=2e-4)


def test_to_go_on_from_a_file_is_exact(tmp_path):
    rng = np.random.default_rng(0).normal(size=1000).tolist()
    for f in (rosen, lambda x: rosen(x) * (1 + 1e-7 * rng[int(abs(x[0]) * 1e9) % 1000])):
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            whole = minimize_iterator(START * 1e-3, f, "2-point", max_iterations=12)
            for state in whole:
                if state.nit == 4:
                    state.save(tmp_path / "run.npz")
                    copied = pickle.loads(pickle.dumps(state)) if f is rosen else None
            loaded = minimize_iterator.load(tmp_path / "run.npz", f, "2-point")
            for run in filter(None, (loaded, copied)):
                for _ in run:
                    pass
                assert np.array_equal(run.iterate, whole.iterate)
                assert run.nfev == whole.nfev
    with pytest.raises(ValueError, match="saved with differences of f in the place of df"):
        minimize_iterator.load(tmp_path / "run.npz", rosen, lambda x: x)


@pytest.mark.filterwarnings("ignore:.*fork")  # of a process with threads, such as those of JAX
def test_workers():
    here = minimize(START, rosen, "3-point", full_output=True)
    seen = []

    def mapped(function, points):
        points = list(points)
        seen.append(len(points))
        return map(function, points)

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        for workers in (map, mapped, executor.map, 1, 2):
            there = minimize(START, rosen, "3-point", workers=workers, full_output=True)
            assert np.array_equal(there.x, here.x)
            assert there.nfev == here.nfev
    assert set(seen[1:]) == {4}


@pytest.mark.filterwarnings("ignore:.*fork")  # of a process with threads, such as those of JAX
def test_workers_of_a_function_that_does_not_pickle():
    with pytest.raises(Exception, match=r"pickle|local") as caught:
        minimize(START, lambda x: rosen(x), "3-point", workers=2)
    assert "workers=" in caught.value.__notes__[0]


# Noise


@pytest.mark.parametrize("level", [1e-9, 1e-5, 1e-2])
def test_the_noise_is_found_and_followed(level):
    """The errors are those of Moré and Wild (2012): about sqrt(noise * second derivative)."""
    rng = np.random.default_rng(1)
    x, exact = np.array([0.7, -1.3, 2.0]), np.array([0.2, 4.0, 30.0])
    second = np.array([2.0, 20.0, 10.0])

    def f(z):
        d = z - x
        return 5 + exact @ d + second @ (d * d) / 2 + level * rng.normal()

    errors, found = [], []
    for _ in range(20):
        differences = Differences("2-point")
        [gradient] = differences(lambda points: [f(*point) for point in points], [x], f(x))
        errors.append((gradient - exact) / np.sqrt(level * second))
        found.append(differences.noise * 5)
    assert 0.5 * level < np.median(found) < 2 * level
    assert np.sqrt(np.mean(np.square(errors))) < 3
    plain = np.array([slope(f, [x], "2-point", scipy=True)[0] - exact for _ in range(5)]) / np.sqrt(level * second)
    assert np.sqrt(np.mean(plain**2)) > 30  # with steps for rounding, errors are as the noise over 1e-8


def test_a_noisy_cost_says_so():
    rng = np.random.default_rng(0)
    with pytest.warns(OptimizationWarning, match="f is noisy: near the start its relative error is") as caught:
        result = minimize(np.ones(2), lambda x: np.sum((x - 3) ** 2) + 1e-6 * rng.normal(), "2-point", full_output=True)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_allclose(result.x, 3, atol=1e-2)


def test_a_cost_that_is_worked_out_in_float32():
    """In float64 it does not change at all over the step for rounding in float64."""
    with pytest.warns(OptimizationWarning, match="noisy"):
        result = minimize(np.ones(2), lambda x: float(np.sum((x.astype("float32") - 3) ** 2)), "2-point",
                          tolerance=1e-3, full_output=True)  # fmt: skip
    np.testing.assert_allclose(result.x, 3, atol=2e-3)


def test_smooth_costs_are_not_noisy():
    from problems import PROBLEMS

    for problem in PROBLEMS:
        for point in problem.starts if len(problem.starts) == 1 else ():
            cost = lambda arrays: float(problem.value_and_gradients(arrays)[0])  # noqa: B023, E731
            x = np.asarray(point, "float64").ravel()
            if np.asarray(point).ndim == 1 and np.isfinite(cost([x])):
                size = np.maximum(np.abs(x), 1)
                assert noise(lambda points: map(cost, points), [x], x, size, 2.2e-16, cost([x])) == (0, 0), problem  # noqa: B023
    assert noise(lambda points: [7.0 for _ in points], [START], START, np.ones(4), 2.2e-16, 7.0) == (0, 0)
    assert noise(lambda points: [np.nan for _ in points], [START], START, np.ones(4), 2.2e-16, 7.0) == (0, 0)


def test_steps_for_noise():
    """Equation 4.1 of Moré and Wild: 8^(1/4) sqrt(noise / second derivative), where the noise is known."""
    x = np.array([1.0, 2.0])
    costs = lambda points: [3 * p[0][0] ** 2 + 0.5 * p[0][1] ** 2 for p in points]  # noqa: E731
    h = noisy_steps(costs, [x], x, np.abs(x), 5e-10, 1e-10, 5.0)
    np.testing.assert_allclose(h, 8**0.25 * np.sqrt(5e-10 / np.array([6.0, 1.0])), rtol=1e-2)


def test_forward_differences_become_central_where_they_have_lost_their_digits():
    """Else bfgs goes on from here for 15000 iterations: at the minimum the derivative is not below the tolerance."""
    start, f = [1.3, 0.7, 0.8, 1.9], Counting(lambda x: rosen(x - 1))
    for options in ({"scipy": True}, {}):
        f.calls = 0
        result = minimize(start, f, Differences("2-point", **options), "bfgs", max_iterations=300, full_output=True)
        assert result.success
        np.testing.assert_allclose(result.x, 2, atol=1e-4)
        assert f.calls < 1500
    differences = Differences("2-point")
    x = np.array([1.0, 1.0])
    slopes = [differences(lambda points: [rosen(p[0]) for p in points], [x + 0.1], rosen(x + 0.1)) for _ in range(20)]
    assert differences.scheme == "2-point"
    for _ in range(20):
        differences(lambda points: [rosen(p[0]) for p in points], [x], 0.0)
    assert differences.scheme == "3-point"
    np.testing.assert_allclose(slopes[-1][0], slopes[0][0], rtol=1e-6)
    fixed = Differences("2-point", scipy=True, fixed=True)
    for _ in range(40):
        fixed(lambda points: [rosen(p[0]) for p in points], [x], 0.0)
    assert fixed.scheme == "2-point"


# Within bounds

LOW, HIGH = np.array([0.0, -1.0, 2.0, 0.5, -np.inf]), np.array([1.0, -1.0, np.inf, 0.5 + 1e-9, 3.0])
WITHIN = scipy.optimize.Bounds(LOW, HIGH)


def inside_only(noise=0.0):
    rng = np.random.default_rng(5)

    def f(x):
        assert np.all((x >= LOW) & (x <= HIGH)), x
        return np.sum(np.exp(x) - np.array([1.5, 9.0, 9.0, 9.0, 30.0]) * x) + noise * rng.normal()

    return f


@pytest.mark.parametrize("scheme, digits", [("2-point", 1e-6), ("3-point", 1e-8)])
@pytest.mark.parametrize("start", [[0.0, -1.0, 2.0, 0.5, 3.0], [1.0, -1.0, 5.0, 0.6, 3.0]])
def test_no_step_leaves_the_bounds(scheme, digits, start):
    first = minimize_iterator(start, inside_only(), scheme, bounds=WITHIN)
    exact = np.exp(first.x) - [1.5, 9, 9, 9, 30]
    exact[1] = 0  # of a component that cannot move
    np.testing.assert_allclose(first.jac[[0, 1, 2, 4]], exact[[0, 1, 2, 4]], rtol=digits, atol=10 * digits)
    np.testing.assert_allclose(first.jac[3], exact[3], rtol=1e-4)  # within a box of 1e-9
    end = minimize(start, inside_only(), scheme, bounds=WITHIN)
    np.testing.assert_allclose(end, [np.log(1.5), -1, np.log(9), 0.5 + 1e-9, 3], atol=1e-5)


def test_a_noisy_cost_within_bounds():
    with pytest.warns(OptimizationWarning, match="f is noisy"):
        end = minimize([0.0, -1.0, 2.0, 0.5, 3.0], inside_only(1e-6), "2-point", bounds=WITHIN, full_output=True)
    np.testing.assert_allclose(end.x, [np.log(1.5), -1, np.log(9), 0.5 + 1e-9, 3], atol=0.05)


def test_central_differences_without_room_are_of_the_same_order():
    """The error of x**3 at the bound is of the square of the step, that of a plain forward difference of the step."""
    for x, bounds in ((1.0, (1.0, None)), (1.0, (None, 1.0))):
        run = minimize_iterator([x], lambda x: float(x[0] ** 3), "3-point", bounds=[bounds])
        assert abs(run.jac[0] - 3) < 1e-9


def test_products_within_bounds():
    def slope(x):
        assert np.all((x >= LOW) & (x <= HIGH)), x
        return np.exp(x) - np.array([1.5, 9.0, 9.0, 9.0, 30.0])

    start = np.array([0.0, -1.0, 2.0, 0.5, 3.0])
    for df in (slope, "2-point"):
        end = minimize(start, inside_only(), df, "trust_region_cg", bounds=WITHIN)
        np.testing.assert_allclose(end, [np.log(1.5), -1, np.log(9), 0.5 + 1e-9, 3], atol=1e-5)
    checked = minimize(start, inside_only(), slope, bounds=WITHIN, check_gradient=True)
    np.testing.assert_allclose(checked, end, atol=1e-5)
    with pytest.raises(ValueError, match="x0"):
        minimize(start, inside_only(), lambda x: slope(x) * [1, 1, 1, 1, 2], bounds=WITHIN, check_gradient=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_the_step_is_that_which_is_taken(scheme, dtype):
    x = np.array([1.3e7, 3.1, -7.7e-3], dtype)
    slopes = np.array([1.0, 3.0, 5.0])
    costs = lambda points: [float(np.dot(slopes, p[0].astype(float))) for p in points]  # noqa: E731
    [cost] = costs([[x]])
    absolute = None if dtype == "float32" else 1e-8
    found = Differences(scheme, absolute=absolute)(costs, [x], cost)[0]
    # What is left is the rounding of the cost.
    error = 1e-6 if dtype == "float32" else 2 * np.finfo(float).eps * abs(cost) / 1e-8
    np.testing.assert_allclose(found, slopes, atol=error)


@pytest.mark.parametrize("call", [2, 3, 6, 9])
def test_what_an_exception_interrupts_begins_anew(call):
    def coarse(x):
        return np.round(float((x[0] - 1) ** 2 + (x[1] - 1) ** 4 + 3), 6)

    def run(fails):
        calls = 0

        def f(x):
            nonlocal calls
            calls += 1
            if calls == fails:
                raise RuntimeError("once")
            return coarse(x)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            it = optapi.minimize_iterator([2.0, 3.0], f, "2-point")
            for _ in range(3):
                try:
                    for _ in it:
                        pass
                    break
                except RuntimeError:
                    pass
        return it

    whole, interrupted = run(None), run(call)
    np.testing.assert_array_equal(interrupted.x, whole.x)
    assert interrupted.message == whole.message


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_noise_of_a_cost_that_is_zero_at_the_start(scheme):
    def base(x):
        return round(float((x[0] - 1) ** 2 + (x[1] + 2) ** 2), 6)

    start = base([3.0, 1.0])
    with pytest.warns(OptimizationWarning, match="noisy"):
        result = optapi.minimize([3.0, 1.0], lambda x: base(x) - start, scheme, full_output=True)
    np.testing.assert_allclose(result.x, [1, -2], atol=0.02)


def test_the_verdict_speaks_of_the_noise():
    rng = np.random.default_rng(0)
    with pytest.warns(OptimizationWarning, match="noisy"):
        result = minimize(
            [5.0, 5.0], lambda x: float(np.sum((x - 1) ** 2) + 0.5 * rng.normal()), "2-point", full_output=True
        )
    assert "rounding" not in result.message
    assert result.status != 0 or "the noise of f hides" in result.message


@pytest.mark.parametrize(
    "f",
    [
        lambda x: abs(x[0]) ** 2 + x[1] ** 2,
        lambda x: x[0].real ** 2 + 3 * (x[1] - 1) ** 2,
        lambda x: abs(x[0] - 3) + x[1] ** 2,
    ],
)
def test_complex_steps_that_lose_the_imaginary_part_are_noticed(f):
    with pytest.warns(OptimizationWarning, match="drops the imaginary part"):
        minimize([-1.2, 1.0], f, "cs", max_iterations=1, full_output=True)


@pytest.mark.parametrize("bounds", [None, [(-1.2, None), (None, 2)]])
def test_complex_steps_of_a_smooth_cost_warn_not(bounds):
    for scale in (1e-8, 1.0, 1e8):
        start = scale * np.array([-1.2, 1.0])
        scaled = bounds and [tuple(b if b is None else b * scale for b in pair) for pair in bounds]
        cost = lambda x: 1e6 + np.sum(np.cosh(x / scale)) + (x[0] / scale) ** 3  # noqa: B023, E731
        with np.errstate(over="ignore"):
            minimize(start, cost, "cs", bounds=scaled, max_iterations=1, full_output=True)
