"""Rules for streams: each step, the start, exact zeros, and geometries."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import nonsmooth as reference
from test_first_order import assert_close, trajectory
from test_l1 import quadratic

import optapi
from optapi import PYTHON


START = np.linspace(-1, 1.5, 9)


def steps(rule, count=30, start=START, cost=None, **options):
    x = pytensor.shared(start, name="x")
    updates = rule([x], (cost or quadratic()[0])(x), **options)
    return [point for (point,) in trajectory([x], pytensor.function([], [], updates=updates, mode=PYTHON), count)]


def gradient(x):
    return quadratic()[1](x)[1]


def agree(points, wanted):
    assert_close([[p] for p in points], [[w] for w in wanted], tolerance=1e-9)


def test_each_step_of_ftrl():
    options = {"l1": 30.0, "l2": 0.2}
    points = steps(optapi.ftrl, step_size=0.3, offset=0.5, **options)
    agree(points, reference.ftrl(START, gradient, 30, a=0.3, beta=0.5, **options))
    assert np.any(points[-1] == 0)


def test_ftrl_without_penalties_is_adagrad_from_any_start():
    points = steps(optapi.ftrl, step_size=0.3, offset=0.0)
    agree(points, steps(optapi.adagrad, step_size=0.3, epsilon=0.0))


def test_ftrl_keeps_its_start_where_the_gradient_is_0():
    """TensorFlow sets variables to 0 in the first call."""
    for options in ({}, {"offset": 0.0}, {"l1": 2.0, "l2": 1.0}):
        [point] = steps(optapi.ftrl, 1, cost=lambda x: pt.sum(0 * x), **options)
        np.testing.assert_allclose(point, START, atol=1e-15)


def test_ftrl_is_indifferent_to_the_units_of_the_cost():
    cost = quadratic()[0]
    points = steps(optapi.ftrl, l1=2.0, l2=0.5, offset=0.1)
    agree(points, steps(optapi.ftrl, cost=lambda x: 64 * cost(x), l1=128.0, l2=32.0, offset=6.4))


def test_each_step_of_dual_averaging():
    points = steps(optapi.rda, step_size=0.05, l1=2.0)
    agree(points, reference.rda(START, gradient, 30, a=0.05, weight=2.0))
    assert np.any(points[-1] == 0)
    agree(steps(optapi.rda, step_size=0.05), reference.rda(START, gradient, 30, a=0.05, weight=0.0))


def test_the_penalty_of_a_stream_is_none_of_the_cost():
    """The drivers add that of `rda` to the cost, and not that of `ftrl`."""
    cost = quadratic()[0]
    for rule, added in (("rda", 1.0), ("ftrl", 0.0)):
        x = pytensor.shared(START, name="x")
        result = optapi.compile_minimizer([x], cost(x), rule, l1=1.0, step_size=0.05, max_iterations=20, mode=PYTHON)()
        plain = quadratic()[1](result.x[0])[0]
        np.testing.assert_allclose(result.fun, plain + added * np.sum(abs(result.x[0])))
        by_arrays = optapi.minimize(
            START, lambda x: quadratic()[1](x), True, rule, l1=1.0, step_size=0.05, max_iterations=20, full_output=True
        )
        np.testing.assert_allclose(by_arrays.fun, result.fun)


@pytest.mark.parametrize("axis", [None, 1])
def test_each_step_on_a_simplex(axis):
    target = np.random.default_rng(0).normal(size=(3, 4))
    start = np.full((3, 4), 1 / 12 if axis is None else 0.25)
    points = steps(
        optapi.mirror_descent, start=start, cost=lambda x: pt.sum((x - target) ** 2) / 2, step_size=0.7, axis=axis
    )
    agree(points, reference.exponentiated_gradient(start, lambda x: x - target, 30, a=0.7, axis=axis))
    np.testing.assert_allclose(np.sum(points[-1], axis=axis), 1)


def test_positive_numbers_stay_positive_and_zeros_stay():
    start = np.array([1.0, 2.0, 0.0])
    options = {"geometry": "positive", "step_size": 0.1, "start": start}
    points = steps(optapi.mirror_descent, 200, cost=lambda x: pt.sum((x - [3.0, -1.0, 1.0]) ** 2) / 2, **options)
    np.testing.assert_allclose(points[-1], [3, 0, 0], atol=1e-4)
    assert np.all(points[-1][:2] > 0)
    assert points[-1][2] == 0


def test_large_gradients_on_a_simplex_neither_overflow_nor_vanish():
    start, slope = np.array([0.0, 0.5, 0.5]), np.array([-1e6, 1e5, 2e5])
    [point] = steps(optapi.mirror_descent, 1, start=start, cost=lambda x: pt.dot(slope, x), step_size=1.0)
    np.testing.assert_array_equal(point, [0, 1, 0])


def test_mirror_descent_stops_at_a_solution():
    x, stop = pytensor.shared(np.full(3, 0.2), name="x"), pytensor.shared(0, name="stop")
    cost = pt.sum((x - [0.7, 0.5, -1.0]) ** 2) / 2
    step = pytensor.function(
        [], [], updates=optapi.mirror_descent([x], cost, stop=stop, step_size=1.0, tolerance=1e-6), mode=PYTHON
    )
    for _ in range(1000):
        step()
        if stop.get_value():
            break
    assert stop.get_value()
    np.testing.assert_allclose(x.get_value(), [0.6, 0.4, 0], atol=1e-5)


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="geometry is 'sphere'"):
        steps(optapi.mirror_descent, geometry="sphere")
    with pytest.raises(ValueError, match="l1 is -1"):
        steps(optapi.ftrl, l1=-1.0)
    with pytest.raises(ValueError, match="l1 of 'x' is -1"):
        steps(optapi.rda, l1=-1.0)
