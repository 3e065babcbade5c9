import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import stopping


def test_groups_of_parameters_with_one_stop(compiled):
    a, b = pytensor.shared(1.0, name="a"), pytensor.shared(1.0, name="b")
    s, t, stop = (pytensor.shared(0) for _ in range(3))
    cost = a**2 + b**2
    updates = optapi.sgd([a], cost, stop=s, step_size=0.25, tolerance=1e-3)
    updates = optapi.sgd([b], cost, stop=t, step_size=0.4, tolerance=1e-3, updates=updates)
    assert stopping.all_of([s, t], stop, updates) is updates
    step = compiled(updates)
    for _ in range(30):
        step()
        verdicts = int(s.get_value()), int(t.get_value())
        assert stop.get_value() == min(verdicts)
        if stop.get_value():
            break
        elif max(verdicts):
            assert verdicts == (0, 1)  # the faster one waits, at rest
            assert abs(b.get_value()) <= 5e-4
    assert verdicts == (1, 1)


def test_all_of_reads_stops_without_an_update(compiled):
    s, stop = pytensor.shared(0), pytensor.shared(0)
    step = compiled(stopping.all_of([s], stop))
    step()
    assert stop.get_value() == 0
    s.set_value(1)
    step()
    assert stop.get_value() == 1


def test_all_of_refuses_a_stop_that_has_a_writer():
    p, s = pytensor.shared(1.0), pytensor.shared(0)
    updates = optapi.sgd([p], p**2, stop=s)
    before = dict(updates)
    with pytest.raises(KeyError):
        stopping.all_of([s], s, updates)
    with pytest.raises(TypeError, match="updates is a list"):
        stopping.all_of([s], s, [updates])
    assert updates == before


def run(costs, **options):
    """The number of the call after which `patience` stops, from 1; None if it does not."""
    cost, stop = pt.dscalar("cost"), pytensor.shared(0)
    step = pytensor.function([cost], [], updates=stopping.patience(cost, stop, **options), mode=optapi.PYTHON)
    for call, value in enumerate(costs, 1):
        step(value)
        if stop.get_value():
            return call
    return None


def test_patience():
    assert run([5, 4, 3, 3, 3, 3], calls=3) == 6
    assert run([5, 4, 3, 3, 3, 2, 2, 2], calls=3) is None
    assert run([5, 4, 3, 3, 2, 2, 2, 2], calls=3) == 8
    assert run(np.linspace(5, 4, 100), calls=3) is None
    assert run([100, 99.95, 99.5, 99, 98], calls=3, improvement=0.01) == 4
    assert run([-100, -99.5, -100.5, -101.5], calls=3, improvement=0.01) is None
    assert run([np.nan, np.inf, np.nan, 1.0], calls=3) == 3
    assert run([np.nan, 5, np.nan, 4, np.nan, 3], calls=2) is None


def test_patience_smooths():
    noisy = [10 - t + 4 * (-1) ** t for t in range(10)]
    assert run(noisy, calls=1) is not None
    assert run(noisy, calls=2, smoothing=0.8) is None


def test_patience_stays_stopped(compiled):
    p, stop = pytensor.shared(1.0), pytensor.shared(0)
    updates = stopping.patience(p, stop, calls=1)
    step = compiled(updates)
    step(), step()
    assert stop.get_value() == 1
    before = [v.get_value() for v in updates]
    p.set_value(0.0)
    step()
    assert [v.get_value() for v in updates] == before
