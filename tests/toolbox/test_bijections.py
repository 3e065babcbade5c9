"""Bijections: there and back, what they lead to, and minima through them."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import PYTHON, bijections


RNG = np.random.default_rng(0)
SKEW = RNG.normal(size=(4, 4))
POINTS = {
    bijections.Positive(): np.array([1e-8, 0.5, 3.0, 800.0]),
    bijections.Exponential(): np.array([1e-8, 0.5, 3.0, 800.0]),
    bijections.Interval(-2.0, 5.0): np.array([-1.9, 0.0, 4.9]),
    bijections.Simplex(): np.array([0.1, 0.6, 0.3]),
    bijections.Ordered(): np.array([-3.0, -2.9, 0.0, 40.0]),
    bijections.UnitVector(): np.array([0.6, 0.0, -0.8]),
    bijections.Orthogonal(): np.linalg.solve(np.eye(4) - SKEW + SKEW.T, np.eye(4) + SKEW - SKEW.T),
}


def test_all_are_here():
    assert {type(bijection).__name__ for bijection in POINTS} | {"Bijection"} == set(bijections.__all__)


@pytest.mark.parametrize("bijection", POINTS, ids=lambda bijection: type(bijection).__name__)
def test_there_and_back(bijection):
    x, z = POINTS[bijection], bijection.inverse(POINTS[bijection])
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        free = pytensor.shared(z.astype(dtype), name="free")
        forward = bijection(free)
        assert forward.type.dtype == dtype
        value, slope = pytensor.function([], [forward, pytensor.grad(pt.sum(forward), free)], mode=PYTHON)()
        np.testing.assert_allclose(value, x, rtol=tolerance, atol=tolerance)
        assert np.all(np.isfinite(slope))


@pytest.mark.parametrize(("bijection", "x"), [
    (bijections.Positive(), 0.0),
    (bijections.Exponential(), -1.0),
    (bijections.Interval(), 1.0),
    (bijections.Simplex(), [0.5, 0.6]),
    (bijections.Ordered(), [1.0, 1.0]),
    (bijections.UnitVector(), [1.0, 1.0]),
    (bijections.Orthogonal(), -np.eye(2)),
    (bijections.Orthogonal(), np.ones((2, 2))),
])  # fmt: skip
def test_a_start_that_is_not_inside_is_refused(bijection, x):
    with pytest.raises(ValueError, match="x is not inside of what"):
        bijection.inverse(x)


def test_intervals_have_an_inside():
    with pytest.raises(ValueError, match="pass low < high"):
        bijections.Interval(1.0, 1.0)
    with pytest.raises(TypeError, match="low of Interval"):
        bijections.Interval("a")


def test_the_nearest_rotation():
    """Through free variables, beside the polar factor."""
    target = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    target *= np.linalg.det(target)
    near = bijections.Orthogonal()
    z = pytensor.shared(near.inverse(np.eye(3)), name="z")
    noisy = target + 0.1 * RNG.normal(size=(3, 3))
    optapi.compile_minimizer([z], pt.sum((near(z) - noisy) ** 2), "lbfgs", tolerance=1e-8, mode=PYTHON)()
    left, _, right = np.linalg.svd(noisy)
    np.testing.assert_allclose(pytensor.function([], near(z), mode=PYTHON)(), left @ right, atol=1e-6)
