import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


def test_skip_nonfinite_changes_nothing_and_counts(compiled):
    p, scale, rng = pytensor.shared(np.ones(3)), pytensor.shared(1.0), pt.random.shared_rng(seed=1)
    following, draw = rng.normal()
    updates = optapi.adam([p], scale * pt.sum(p**2 + 1e-9 * draw * p), updates={rng: following})
    guarded = optapi.skip_nonfinite(updates)
    [skipped] = optapi.reports(guarded)["skipped"]
    step = compiled(guarded)
    step()
    before = [v.get_value() for v in updates if v is not rng]
    draws = rng.get_value().bit_generator.state["state"]
    for bad in (np.nan, np.inf):
        scale.set_value(bad)
        step()
    assert all(
        np.array_equal(x, v.get_value()) for x, v in zip(before, [v for v in updates if v is not rng], strict=True)
    )
    assert skipped.get_value() == 2
    assert rng.get_value().bit_generator.state["state"] != draws
    scale.set_value(1.0)
    step()
    assert skipped.get_value() == 2
    assert not any(np.array_equal(p.get_value(), x) for x in before)


def test_skip_nonfinite_leaves_the_dictionary_it_is_given():
    p = pytensor.shared(1.0)
    updates = optapi.sgd([p], p**2)
    before = dict(updates)
    optapi.skip_nonfinite(updates)
    assert updates == before


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.adam])
def test_project_onto_bounds(rule, compiled):
    p, stop = pytensor.shared(np.array([0.5, 0.5])), pytensor.shared(0)
    cost = pt.sum((p - np.array([2.0, 0.25])) ** 2)
    updates = optapi.project(rule([p], cost, stop=stop, step_size=0.1), {p: lambda value: value.clip(0, 1)})
    step = compiled(updates)
    for _ in range(60):
        step()
        assert np.all((p.get_value() >= 0) & (p.get_value() <= 1))
    np.testing.assert_allclose(p.get_value(), [1.0, 0.25], atol=0.02)
    stop.set_value(1)
    p.set_value(np.array([3.0, 3.0]))
    step()
    np.testing.assert_array_equal(p.get_value(), 3.0)  # the rule leaves it, so the projection does


def test_project_refuses_a_rule_that_judges_its_own_points():
    p = pytensor.shared(np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="first-order"):
        optapi.project(optapi.lbfgs([p], pt.sum(p**2), stop=pytensor.shared(0)), {p: abs})


def test_average_counts_only_calls_that_move(compiled):
    p, mean, stop = pytensor.shared(1.0), pytensor.shared(0.0), pytensor.shared(0)
    step = compiled(optapi.average(optapi.sgd([p], p**2, stop=stop, step_size=0.25), {p: mean}))
    for _ in range(3):
        step()
    np.testing.assert_allclose(mean.get_value(), np.mean([0.5, 0.25, 0.125]))
    stop.set_value(1)
    step(), step()
    np.testing.assert_allclose(mean.get_value(), np.mean([0.5, 0.25, 0.125]))


def trajectory(weight=None, after=0, steps=6):
    p, mean = pytensor.shared(np.zeros(2)), pytensor.shared(np.full(2, 99.0))
    direction = pt.constant(np.array([-1.0, 2.0]))
    updates = optapi.sgd([p], gradients=[direction * (1 + p[0])], step_size=0.1)
    step = pytensor.function(
        [], [], updates=optapi.average(updates, {p: mean}, weight=weight, after=after), mode=optapi.PYTHON
    )
    points, means = [], []
    for _ in range(steps):
        step()
        points.append(p.get_value())
        means.append(mean.get_value())
    return np.array(points), np.array(means)


def test_average_is_the_mean_of_all_values():
    points, means = trajectory()
    np.testing.assert_allclose(means, np.cumsum(points, axis=0) / np.arange(1, 7)[:, None], rtol=1e-14)


def test_average_after_some_calls():
    points, means = trajectory(after=2)
    np.testing.assert_array_equal(means[:3], points[:3])
    np.testing.assert_allclose(means[-1], points[2:].mean(axis=0), rtol=1e-14)


def test_running_average():
    points, means = trajectory(weight=0.75)
    expected = points[0]
    for point, mean in zip(points[1:], means[1:], strict=True):
        expected = 0.75 * expected + 0.25 * point
        np.testing.assert_allclose(mean, expected, rtol=1e-14)


def test_average_of_one_over_t_is_the_last_point(compiled):
    """With a step size of 1/t on quadratics the point is itself the mean of the targets."""
    p, mean, target = pytensor.shared(0.0), pytensor.shared(0.0), pt.dscalar()
    updates = optapi.average(optapi.sgd([p], gradients=[p - target], step_size=1.0), {p: mean})
    step = compiled(updates, inputs=[target])
    targets = np.random.default_rng(0).normal(size=20)
    for t in targets:
        step(t)
    np.testing.assert_allclose(mean.get_value(), targets.mean(), rtol=1e-13)


def test_average_keeps_float32(compiled):
    p, mean = pytensor.shared(np.ones(2, "float32")), pytensor.shared(np.ones(2, "float32"))
    updates = optapi.average(optapi.sgd([p], pt.sum(p**2)), {p: mean})
    assert updates[mean].type.dtype == "float32"
    compiled(updates)()
