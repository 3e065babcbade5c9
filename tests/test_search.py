import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.search import Trial, weak_wolfe


def search(cost, slope, first=1.0, dtype="float64", **options):
    """`weak_wolfe` on a function of one variable; `cost` and `slope` take NumPy's and PyTensor's numbers alike."""

    def line(a):
        return Trial(cost(a), slope(a), (a, -a))

    step = weak_wolfe(line, line(pt.zeros((), dtype)), first, **options)
    run = pytensor.function(
        [], [step.size, *step.trial[:2], *step.trial.carry, step.evaluations, step.failed], mode=optapi.PYTHON
    )
    size, value, steep, there, mirrored, evaluations, failed = run()
    assert size.dtype == dtype
    assert there == size
    assert mirrored == -size
    return float(size), float(value), float(steep), int(evaluations), bool(failed)


FUNCTIONS = {
    "parabola": (lambda a: (a - 2) ** 2, lambda a: 2 * (a - 2)),
    "far away": (lambda a: (a - 1e5) ** 2, lambda a: 2 * (a - 1e5)),
    "close by": (lambda a: (a - 1e-5) ** 2, lambda a: 2 * (a - 1e-5)),
    "quartic": (lambda a: (a - 3) ** 4, lambda a: 4 * (a - 3) ** 3),
    "logarithm": (lambda a: a - pt.log(a + 0.01), lambda a: 1 - 1 / (a + 0.01)),
    "wavy": (lambda a: 0.1 * a**2 - pt.sin(3 * a), lambda a: 0.2 * a - 3 * pt.cos(3 * a)),
    "wall": (
        lambda a: pt.switch(a < 1.5, -a, np.nan),
        lambda a: pt.switch(a < 1.5, -1.0 + 10 * pt.maximum(a - 1, 0), np.nan),
    ),
}


@pytest.mark.parametrize("first", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_wolfe_conditions_hold(name, first):
    cost, slope = FUNCTIONS[name]
    size, value, steep, evaluations, failed = search(cost, slope, first, decrease=1e-3, curvature=0.7)
    start, fall = (
        float(pt.as_tensor(f(pt.constant(0.0, dtype="float64"))).eval(mode=optapi.PYTHON)) for f in (cost, slope)
    )
    assert not failed
    assert size > 0
    assert value <= start + 1e-3 * size * fall
    assert steep >= 0.7 * fall
    assert 1 <= evaluations <= 40


def test_a_good_first_trial_costs_one_evaluation():
    assert search(*FUNCTIONS["parabola"], first=2.0) == (2.0, 0.0, 0.0, 1, False)


def test_doubling_then_bisection():
    # 4 has too little decrease, 2 is accepted
    assert search(lambda a: (a - 2) ** 2, lambda a: 2 * (a - 2), first=4.0)[0] == 2.0
    # 1/8, 1/4, 1/2 and 1 are too steep for c2 = 1/3, 2 is accepted
    size, *_, evaluations, _ = search(lambda a: (a - 2) ** 2, lambda a: 2 * (a - 2), first=0.125, curvature=1 / 3)
    assert (size, evaluations) == (2.0, 5)


@pytest.mark.parametrize(
    "cost, slope, first",
    [
        (lambda a: a, lambda a: pt.ones_like(a), 1.0),  # ascends
        (lambda a: a**2, lambda a: 2 * a, 1.0),  # flat at the start
        (lambda a: a + np.nan, lambda a: -pt.ones_like(a), 1.0),  # not finite at the start
        (lambda a: -a, lambda a: a * np.nan, 1.0),
        (lambda a: a - np.inf, lambda a: -pt.ones_like(a), 1.0),
        (lambda a: -a, lambda a: -pt.ones_like(a), 0.0),  # no step to try
        (lambda a: -a, lambda a: -pt.ones_like(a), np.nan),
    ],
)
def test_no_search_where_there_is_nothing_to_search(cost, slope, first):
    size, *_, evaluations, failed = search(cost, slope, pt.constant(np.float64(first)))
    assert (size, evaluations, failed) == (0.0, 0, True)


def test_a_slope_that_lies_is_a_failure():
    size, value, _, evaluations, failed = search(lambda a: a, lambda a: -pt.ones_like(a))
    assert (size, value, evaluations, failed) == (0.0, 0.0, 40, True)


def test_an_infinite_reward_is_not_taken():
    size, value, *_ = search(
        lambda a: pt.switch(a < 1, (a - 0.5) ** 2, -np.inf), lambda a: pt.switch(a < 1, 2 * (a - 0.5), -1.0), first=4.0
    )
    assert 0 < size < 1
    assert np.isfinite(value)


def test_out_of_trials_takes_what_decreased():
    size, value, _, evaluations, failed = search(lambda a: -a, lambda a: -pt.ones_like(a), trials=5)
    assert (size, value, evaluations, failed) == (16.0, -16.0, 5, False)


def test_steps_do_not_overflow():
    size, *_, evaluations, failed = search(lambda a: -a, lambda a: -pt.ones_like(a), np.float32(1e38), dtype="float32")
    assert np.isfinite(size)
    assert evaluations <= 3
    assert not failed


def test_float32():
    size, *_ = search(lambda a: (a - np.float32(2)) ** 2, lambda a: 2 * (a - np.float32(2)), dtype="float32")
    assert size == 2.0 or size == 1.0


def test_the_line_stands_once_in_the_graph():
    calls = []

    def line(a):
        calls.append(a)
        return Trial((a - 2) ** 2, 2 * (a - 2))

    weak_wolfe(line, Trial(pt.constant(4.0), pt.constant(-4.0)))
    assert len(calls) == 1
