"""Bounds in all their forms, and the points, the residuals and the steps that they allow."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from optapi import PYTHON
from optapi.feasible import Box, boxes, packed


def evaluated(*variables):
    return pytensor.function([], list(variables), mode=PYTHON)()


def box(low, high, dtype="float64"):
    return Box(pt.constant(np.asarray(low, dtype)), pt.constant(np.asarray(high, dtype)))


def test_the_projection_keeps_nan_and_takes_low_where_high_is_below():
    point = pt.constant(np.array([-2.0, 0.5, 3.0, np.nan, 0.5]))
    [found] = evaluated(box([0, 0, 0, 0, 2], [1, 1, 1, 1, 1]).project(point))
    np.testing.assert_array_equal(found, [0, 0.5, 1, np.nan, 2])


def test_the_residual_is_the_projected_gradient():
    rng = np.random.default_rng(0)
    low, high = -rng.random(50), rng.random(50)
    x, g = rng.uniform(low, high), 2 * rng.normal(size=50)
    x[:10], x[10:20] = low[:10], high[10:20]
    [found] = evaluated(box(low, high).residual(pt.constant(x), pt.constant(g)))
    np.testing.assert_allclose(found, x - np.clip(x - g, low, high), atol=1e-15)
    assert np.any(found == g)
    np.testing.assert_array_equal(found[:10][g[:10] > 0], 0)


def test_the_residual_has_the_digits_of_the_gradient():
    """x - P(x - g) would have none of them."""
    x, g = np.full(2, 1e4, "float32"), np.array([1e-5, -1e-5], "float32")
    residual = box([0, 0], [np.inf, 1e4], "float32").residual(pt.constant(x), pt.constant(g))
    assert residual.type.dtype == "float32"
    np.testing.assert_array_equal(evaluated(residual)[0], np.array([1e-5, 0], "float32"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_step_to_a_bound_ends_on_it(dtype):
    """x + (high - x) is often another number than high."""
    rng = np.random.default_rng(1)
    low, high = (np.asarray(side * rng.random(200) ** 5, dtype) for side in (-1, 1))
    x = rng.uniform(low, high).astype(dtype)
    for side in (low, high):
        [found] = evaluated(box(low, high, dtype).moved(pt.constant(x), pt.constant(side - x)))
        np.testing.assert_array_equal(found, side)
    [found] = evaluated(box(low, high, dtype).moved(pt.constant(x), pt.constant((high - x) / 2)))
    assert np.all(found < high)


def test_the_longest_step_ends_at_the_first_bound():
    here, away = (pt.constant(np.array(values)) for values in ([0.5, 1.0, 2.0], [0.25, 0.0, -1.0]))
    limits = box([0, 0, 0], [1, 1, np.inf]), box([0, 1, -np.inf], [1, 1, 2])
    assert [float(v) for v in evaluated(*(limit.longest(away, here) for limit in limits))] == [2.0, 2.0]
    [found] = evaluated(box([-np.inf] * 3, [np.inf] * 3).longest(away, here))
    assert found == np.inf


FORMS = {
    "a dictionary": lambda p, q: {p: (0, 1), q: (None, 2)},
    "a list": lambda p, q: [(0, 1), (-np.inf, 2)],
    "arrays": lambda p, q: ((np.zeros(2), np.ones((2,))), (None, np.full((2, 2), 2.0))),
    "variables": lambda p, q: [(pytensor.shared(0), pt.constant(1.0)), (None, pytensor.shared(np.full(2, 2.0)))],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    p, q = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(np.zeros((2, 2), "float32"), name="q")
    found = boxes(FORMS[form](p, q), [p, q])
    assert [bound.type.dtype for limits in found for bound in limits] == ["float64"] * 2 + ["float32"] * 2
    low, high = evaluated(*packed(found, [p, q], "float64"))
    np.testing.assert_array_equal(low, [0, 0] + [-np.inf] * 4)
    np.testing.assert_array_equal(high, [1, 1, 2, 2, 2, 2])


def test_a_pair_of_numbers_is_for_all_and_stays_a_pair_of_numbers():
    p, q = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(np.zeros((2, 2)), name="q")
    assert [v.ndim for v in packed(boxes((0, None), [p, q]), [p, q], "float64")] == [0, 0]
    [limits] = boxes((np.zeros(2), np.ones(2)), [p])
    assert limits.high.ndim == 1


@pytest.mark.parametrize("nothing", [None, (None, None), (-np.inf, np.inf), {}, [None, (None, np.inf)]])
def test_no_bounds(nothing):
    p, q = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(np.zeros(2), name="q")
    assert boxes(nothing, [p, q]) is None


BAD = [
    (lambda p, q: {p: (1, 0)}, "'p' have a low above its high"),
    (lambda p, q: {p: (0, np.nan)}, "'p' have a high that is NaN"),
    (lambda p, q: {q: (np.inf, None)}, "'q' have a low of inf"),
    (lambda p, q: {q: (None, -np.inf)}, "'q' have a high of -inf"),
    (lambda p, q: {"r": (0, 1)}, "a key 'r', which is none of the parameters"),
    (lambda p, q: {p: (np.zeros(3), None)}, r"'p' have a low of shape \(3,\)"),
    (lambda p, q: {p: (np.zeros((1, 2)), None)}, r"'p' have a low of shape \(1, 2\)"),
    (lambda p, q: {p: (None, pt.dmatrix())}, "'p' have a high of 2 dimensions"),
    (lambda p, q: {p: (q, None)}, "'p' have a low that depends on the parameters"),
    (lambda p, q: {p: (None, pt.zvector())}, "'p' have a high of type"),
    (lambda p, q: {p: ([0, 0], None)}, "'p' have a low that is a list; pass a number, an array"),
    (lambda p, q: {p: ("a", None)}, "'p' have a low that is a str"),
    (lambda p, q: {p: 3}, "bounds of 'p' are 3; pass a pair"),
    (lambda p, q: [(0, 1)], "1 entries for 2 parameters"),
    (lambda p, q: [(0, 1)] * 3, "3 entries for 2 parameters"),
    (lambda p, q: 3, "bounds is a int; pass a dictionary"),
    (lambda p, q: "ab", "bounds is a str; pass a dictionary"),
]


@pytest.mark.parametrize(("bounds", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_refused(bounds, message):
    p, q = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(np.zeros(2), name="q")
    with pytest.raises((TypeError, ValueError), match=message):
        boxes(bounds(p, q), [p, q])
