"""Bounds in the drivers: in the structure of the start, for compiled minimizations, for many starts."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.optimize import Bounds, rosen, rosen_der

import optapi
from optapi import PYTHON
from optapi.feasible import limits
from optapi.pytree import point


def found(x0, bounds):
    structure, models = point("x0", x0)
    return limits(bounds, structure, models)


VECTOR = np.zeros(3)
SAME = [
    (VECTOR, [(0, 1), (None, 2), None]),
    (VECTOR, np.array([[0, 1], [-np.inf, 2], [-np.inf, np.inf]])),
    (VECTOR, Bounds([0, -np.inf, -np.inf], [1, 2, np.inf])),
    (VECTOR, ((0, 1), np.array([-np.inf, 2]), (None, None))),
]


@pytest.mark.parametrize(("x0", "bounds"), SAME, ids=lambda value: type(value).__name__)
def test_of_a_vector_as_scipy_takes_them(x0, bounds):
    [(low, high)] = found(x0, bounds)
    np.testing.assert_array_equal(low, [0, -np.inf, -np.inf])
    np.testing.assert_array_equal(high, [1, 2, np.inf])


def test_in_the_structure_of_the_start():
    x0 = {"rate": 0.5, "weights": np.zeros((2, 2), "float32"), "rest": [np.zeros(2), np.zeros(2)]}
    rate, weights, first, second = found(x0, {"rate": (0, None), "weights": (-1, np.eye(2)), "rest": [None, (0, 1)]})
    assert rate == (0, np.inf)
    assert [side.dtype for side in weights] == ["float32"] * 2
    np.testing.assert_array_equal(weights[0], -np.ones((2, 2)))
    np.testing.assert_array_equal(weights[1], np.eye(2))
    assert first is None
    np.testing.assert_array_equal(second, [[0, 0], [1, 1]])
    assert all(np.all(low == 0) for low, _ in found(x0, (0, None)))
    assert found(x0, {}) is None
    assert found(x0, (None, np.inf)) is None


BAD = [
    (VECTOR, [(0, 1)] * 2, "bounds has 2 pairs for 3 components"),
    (VECTOR, ([0, 0, 0], [1, 1, 1]), r"if they are the lows and the highs, pass scipy.optimize.Bounds"),
    (VECTOR, [(0, 1), 3, None], "bounds has an entry that is no pair"),
    (VECTOR, [(0, 1), (2, 1), None], "bounds have a low above its high"),
    (VECTOR, [(0, 1), (np.nan, 1), None], "bounds have a low that is NaN"),
    (VECTOR, Bounds(np.zeros(2), np.ones(2)), r"bounds have a low of shape \(2,\)"),
    (VECTOR, 3, "bounds is a int"),
    (VECTOR, {"a": (0, 1)}, "bounds is a dict"),
    ({"a": VECTOR}, {"b": (0, 1)}, r"dictionary with some of the keys \['a'\]"),
    ({"a": VECTOR}, {"a": [(0, 1)]}, r"bounds\['a'\] has 1 pairs for 3"),
    ([VECTOR, np.zeros((2, 2))], [(0, 1)], "pass a list of 2"),
    ([VECTOR, np.zeros((2, 2))], [None, (0, np.zeros(3))], r"bounds\[1\] have a high of shape \(3,\)"),
]


@pytest.mark.parametrize(("x0", "bounds", "message"), BAD, ids=[message for *_, message in BAD])
def test_what_is_refused(x0, bounds, message):
    with pytest.raises((TypeError, ValueError), match=message):
        found(x0, bounds)


def test_lows_and_highs_of_two_components_look_like_two_pairs():
    with pytest.warns(optapi.OptimizationWarning, match=r"fixes both; if they are .*Bounds\(lows, highs\)"):
        [(low, high)] = found(np.ones(2), ([0, 0], [2, 2]))
    np.testing.assert_array_equal([low, high], [[0, 2], [0, 2]])
    found(np.ones(2), [(0, 0), (2, 3)])


def test_minimize():
    seen = []

    def f(x):
        seen.append(x)
        return rosen(x)

    bounds = Bounds([-2, 0.1], [0.5, 0.2])
    result = optapi.minimize([3.0, 4.0], f, rosen_der, "lbfgs", bounds=bounds, full_output=True, trace=True)
    np.testing.assert_array_equal(seen[0], [0.5, 0.2])
    assert all(np.all((bounds.lb <= x) & (x <= bounds.ub)) for x in seen)
    assert (result.status, result.success) == (0, True)
    assert result.message.startswith("Converged: no component of the projected derivative is larger than 1e-05")
    np.testing.assert_allclose(result.x, [0.4539, 0.2], atol=1e-3)
    assert result.x[1] == 0.2
    assert abs(result.jac[1]) > 0.1 > 1e-5 >= result.trace["gradient_size"][-1]
    assert not np.any((result.hess_inv @ np.eye(2))[1])


def test_minimize_over_a_dictionary_by_name():
    def f(p):
        return float(np.sum((p["a"] - 3) ** 2) + (p["b"] + 1) ** 2)

    def df(p):
        return {"a": 2 * (p["a"] - 3), "b": 2 * (p["b"] + 1)}

    x = optapi.minimize({"a": np.zeros((2, 2)), "b": 5.0}, f, df, "lbfgs", bounds={"b": (0, None)})
    np.testing.assert_allclose(x["a"], 3)
    assert x["b"] == 0


def test_a_point_that_is_set_is_put_inside_and_a_run_goes_on_from_its_file(tmp_path):
    bounds = [(-2, 0.5), (None, 0.2)]
    run = optapi.minimize_iterator([-1.2, 1.0], rosen, rosen_der, "lbfgs", bounds=bounds)
    for _ in range(4):
        next(run)
    run.save(tmp_path / "run.npz")
    other = optapi.minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der, bounds=bounds)
    for mine, loaded in zip(run, other, strict=True):
        np.testing.assert_array_equal(mine.iterate, loaded.iterate)
    run.x = np.array([9.0, 9.0])
    np.testing.assert_array_equal(run.x, [0.5, 0.2])


def test_a_rule_without_bounds_says_so():
    with pytest.raises(TypeError, match="bfgs takes no bounds; use lbfgs"):
        optapi.minimize([1.0, 2.0], rosen, rosen_der, "bfgs", bounds=[(0, 1), (0, 1)])
    p = pytensor.shared(np.zeros(2), name="p")
    with pytest.raises(TypeError, match="newton takes no bounds; use lbfgs"):
        optapi.compile_minimizer([p], pt.sum(p**2), "newton", bounds=(0, 1), mode=PYTHON)


def test_compiled_with_bounds_that_read_shared_variables_and_inputs():
    p, q, high = pytensor.shared(np.array([3.0, -4.0]), name="p"), pytensor.shared(2.0, name="q"), pytensor.shared(1.0)
    data = pt.dscalar("data")
    cost = pt.sum((p - data) ** 2) + (q - p[0]) ** 2
    bounds = {p: (0, high), q: (None, data / 4)}
    rule = partial(optapi.lbfgs, bounds=bounds)
    run = optapi.compile_minimizer([p, q], cost, rule, inputs=[data], mode=PYTHON)
    for limit, level in ((1.0, 2.0), (0.5, 1.0)):
        high.set_value(limit)
        p.set_value(np.array([7.0, -4.0]))
        result = run(level)
        assert result.success
        assert "projected derivative" in result.message
        np.testing.assert_array_equal(p.get_value(), limit)
        assert q.get_value() == level / 4
        np.testing.assert_array_equal(result.x[0], limit)


def test_many_starts_together_and_alone():
    p = pytensor.shared(np.zeros(4), name="p")
    cost = pt.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
    low, high = np.array([-2, -2, -2, 0.7]), np.array([0.5, 2, 0.4, np.inf])
    run = optapi.compile_minimizer([p], cost, "lbfgs", bounds={p: (low, high)}, mode=PYTHON, tolerance=1e-7)
    starts = optapi.sample_starts([p], 5, scale=3.0, seed=0, bounds={p: (low, high)})
    assert np.all((low <= starts[0]) & (starts[0] <= high))
    starts[0][0] = 9.0
    together, alone = (run.from_starts(starts, together=which) for which in (True, False))
    assert all(result.success for result in together)
    for one, other in zip(*(sorted(some, key=lambda r: r.start) for some in (together, alone)), strict=True):
        assert np.all((low <= one.x[0]) & (one.x[0] <= high))
        np.testing.assert_allclose(one.x[0], other.x[0], atol=1e-5)
        assert one.nit == other.nit


def test_resume_in_the_middle():
    def made(limit):
        p = pytensor.shared(np.full(6, -1.0), name="p")
        cost = pt.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
        return optapi.compile_minimizer([p], cost, "lbfgs", bounds=(-2, 0.6), mode=PYTHON, max_iterations=limit)

    run, whole = made(5), made(1000)()
    assert run().status == 1
    while not (result := run.resume()).success:
        assert result.status == 1
    np.testing.assert_array_equal(result.x[0], whole.x[0])
    assert result.nit == whole.nit > 5


@pytest.mark.parametrize("sign", [1, -1])
def test_multipliers_are_how_fast_the_cost_changes_with_the_bound(sign):
    def run(high):
        return optapi.minimize(
            {"a": [0.0, 0.5], "b": 3.0},
            lambda x: sign * (np.sum((x["a"] - 2) ** 2) + np.exp(x["b"]) + x["a"][0] * x["b"]),
            lambda x: {
                "a": sign * (2 * (x["a"] - 2) + np.array([x["b"], 0])),
                "b": sign * (np.exp(x["b"]) + x["a"][0]),
            },
            bounds={"a": [(None, high), (None, 5.0)], "b": (-1.0, None)},
            full_output=True,
            ascent=sign < 0,
            tolerance=1e-9,
        )

    result, h = run(1.0), 1e-4
    assert result.success
    assert result.optimality <= 1e-9
    assert (
        result.message == "Converged: no component of the projected derivative is larger than 1e-09 in absolute value."
    )
    np.testing.assert_array_equal(result.active["a"], [1, 0])
    assert result.active["b"] == -1
    assert result.bound_multipliers["a"][1] == 0
    assert sign * result.bound_multipliers["a"][0] < 0 < sign * result.bound_multipliers["b"]
    slope = (run(1 + h).fun - run(1 - h).fun) / (2 * h)
    assert result.bound_multipliers["a"][0] == pytest.approx(slope, rel=1e-6)
    compiled = optapi.compile_minimizer
    x = pytensor.shared(np.array([0.5, 0.0]), name="x")
    high = np.array([1.0, 3.0])
    again = compiled(
        [x], sign * pt.sum((x - 2) ** 2), "lbfgs", bounds={x: (None, high)}, ascent=sign < 0, mode=PYTHON
    )()
    np.testing.assert_array_equal(again.active["x"], [1, 0])
    np.testing.assert_array_equal(again.bound_multipliers["x"], [-2 * sign, 0])
    assert again.optimality == pytest.approx(0, abs=1e-5)


def test_a_result_that_is_read_late_is_that_of_its_run():
    p, limit = pytensor.shared(np.zeros(2), name="p"), pt.dscalar("limit")
    cost = pt.sum((p - [3.0, 1.0]) ** 2)
    bounds = {p: (None, limit)}
    run = optapi.compile_minimizer([p], cost, "lbfgs", inputs=[limit], bounds=bounds, mode=optapi.PYTHON)
    results = [run(2.0), run(0.5)]
    np.testing.assert_array_equal([result.active["p"] for result in results], [[1, 0], [1, 1]])
    multipliers = [result.bound_multipliers["p"] for result in results]
    np.testing.assert_allclose(multipliers, [[-2, 0], [-5, -1]], atol=1e-8)
    assert all(result.optimality <= 1e-5 for result in results)
