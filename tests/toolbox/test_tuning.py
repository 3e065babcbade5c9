"""Settings found by trying."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


def setting(rule=optapi.sgd, start=10.0, curvature=1.0, **options):
    """A parabola, a step size, and a run of 3 calls that returns the cost."""
    p, step_size, calls = pytensor.shared(start, name="p"), pytensor.shared(0.123), []
    cost = curvature / 2 * p**2
    updates = rule([p], cost, step_size=step_size, **options)
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)

    def run():
        calls.append(float(step_size.get_value()))
        for _ in range(3):
            step()
        return curvature / 2 * p.get_value() ** 2

    return updates, step_size, run, calls


@pytest.mark.parametrize("first", [1e-6, 0.5, 1.0, 4.0, 2.0**20])
def test_the_best_power_of_two(first):
    updates, step_size, run, _ = setting(curvature=1.0)
    first = 2.0 ** np.round(np.log2(first))
    assert optapi.find_step_size(updates, step_size, run, first=first) == 1.0
    assert step_size.get_value() == 1.0


def test_all_else_is_left_as_it_was():
    updates, step_size, run, calls = setting(optapi.adam)
    start = {variable: variable.get_value() for variable in updates}
    found = optapi.find_step_size(updates, step_size, run, first=0.5, factor=3.0)
    assert found == step_size.get_value() > 0.5
    assert len(calls) > 2
    assert len(set(calls)) == len(calls)
    for variable, value in start.items():
        np.testing.assert_array_equal(variable.get_value(), value)


def test_a_first_step_size_that_diverges():
    updates, step_size, _, _ = setting()

    def run():
        a = float(step_size.get_value())
        return np.nan if a > 0.1 else (a - 0.01) ** 2

    assert optapi.find_step_size(updates, step_size, run) == 2.0**-7


def test_no_step_size_is_good():
    updates, step_size, _, _ = setting()
    with pytest.raises(ValueError, match=r"no step size from .* ended with a finite cost"):
        optapi.find_step_size(updates, step_size, lambda: np.inf, max_trials=5)
    assert step_size.get_value() == 0.123


def test_the_number_of_runs_is_limited():
    updates, step_size, _, _ = setting()
    calls = []
    found = optapi.find_step_size(
        updates, step_size, lambda: calls.append(1) or -float(step_size.get_value()), max_trials=6
    )
    assert len(calls) == 6
    assert found == 2.0**5


def test_a_run_that_raises_leaves_everything_as_it_was():
    updates, step_size, run, _ = setting(optapi.adam)
    start = {variable: variable.get_value() for variable in updates}

    def fail():
        run()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optapi.find_step_size(updates, step_size, fail)
    assert step_size.get_value() == 0.123
    for variable, value in start.items():
        np.testing.assert_array_equal(variable.get_value(), value)


def test_bad_settings():
    updates, step_size, run, _ = setting()
    with pytest.raises(TypeError, match="step_size must be a shared floating-point scalar"):
        optapi.find_step_size(updates, 0.1, run)
    with pytest.raises(TypeError, match="step_size must be a shared floating-point scalar"):
        optapi.find_step_size(updates, pt.dscalar(), run)
    for options in ({"first": 0.0}, {"first": np.nan}, {"factor": 1.0}, {"max_trials": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            optapi.find_step_size(updates, step_size, run, **options)
