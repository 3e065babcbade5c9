import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import schedules


COUNTS = np.arange(25)
CASES = {
    "Constant(initial=0.5)": (schedules.Constant(0.5), lambda t: 0.5 + 0 * t),
    "Power(initial=0.5, scale=10.0, exponent=0.75)": (
        schedules.Power(0.5, 10.0, 0.75),
        lambda t: 0.5 / (1 + t / 10) ** 0.75,
    ),
    "Exponential(initial=0.5, factor=0.9, steps=4, staircase=False)": (
        schedules.Exponential(0.5, 0.9, 4),
        lambda t: 0.5 * 0.9 ** (t / 4),
    ),
    "Exponential(initial=0.5, factor=0.9, steps=4, staircase=True)": (
        schedules.Exponential(0.5, 0.9, 4, staircase=True),
        lambda t: 0.5 * 0.9 ** np.floor(t / 4),
    ),
    "Cosine(initial=0.5, steps=10, final=0.1)": (
        schedules.Cosine(0.5, 10, 0.1),
        lambda t: 0.1 + 0.2 * (1 + np.cos(np.pi * np.minimum(t, 10) / 10)),
    ),
    "WarmUp(schedule=0.5, steps=4)": (schedules.WarmUp(0.5, 4), lambda t: 0.5 * np.minimum((t + 1) / 5, 1)),
    "WarmUp(schedule=Power(initial=0.5, scale=1.0, exponent=1.0), steps=4)": (
        schedules.WarmUp(schedules.Power(0.5), 4),
        lambda t: np.where(t < 4, 0.5 * (t + 1) / 5, 0.5 / (1 + np.maximum(t - 4, 0))),
    ),
}


@pytest.mark.parametrize("schedule, formula", CASES.values(), ids=CASES)
def test_formula_on_numbers_arrays_and_symbols(schedule, formula):
    expected = formula(COUNTS)
    np.testing.assert_allclose(schedule(COUNTS), expected, rtol=1e-14)
    np.testing.assert_allclose([float(schedule(int(t))) for t in COUNTS], expected, rtol=1e-14)
    count = pt.lscalar()
    value = pytensor.function([count], pt.as_tensor(schedule(count)), mode=optapi.PYTHON, on_unused_input="ignore")
    np.testing.assert_allclose([value(t) for t in COUNTS], expected, rtol=1e-14)


@pytest.mark.parametrize("text, case", CASES.items(), ids=CASES)
def test_prints_pickles_and_is_frozen(text, case):
    schedule, _ = case
    assert repr(schedule) == text
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    with pytest.raises(AttributeError):
        schedule.initial = 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_update_uses_the_value_at_count_0(dtype, compiled):
    p = pytensor.shared(np.asarray(0.0, dtype))
    schedule = schedules.Exponential(1.0, 0.5)
    step = compiled(optapi.sgd([p], gradients=[pt.ones_like(p)], step_size=schedule))
    seen = []
    for _ in range(4):
        step()
        seen.append(float(p.get_value()))
    assert seen == [-1.0, -1.5, -1.75, -1.875]


def test_a_field_may_be_a_shared_variable(compiled):
    initial, p = pytensor.shared(1.0), pytensor.shared(0.0)
    step = compiled(optapi.sgd([p], gradients=[pt.ones_like(p)], step_size=schedules.Exponential(initial, 0.5)))
    step()
    initial.set_value(8.0)
    step()
    assert p.get_value() == -5.0
