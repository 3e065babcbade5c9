import pickle
import re

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
    "SearchThenConverge(initial=0.5, scale=10.0, limit=2.0)": (
        schedules.SearchThenConverge(0.5, 10.0, 2.0),
        lambda t: 0.5 * (1 + 4 * (t / 10)) / (1 + 4 * (t / 10) + 10 * (t / 10) ** 2),
    ),
    "InverseSquareRoot(initial=0.5, steps=4)": (
        schedules.InverseSquareRoot(0.5, 4),
        lambda t: 1.0 * np.minimum((t + 1) ** -0.5, (t + 1) * 4**-1.5),
    ),
    "Step(initial=0.5, steps=4, factor=0.1)": (schedules.Step(0.5, 4), lambda t: 0.5 * 0.1 ** np.floor(t / 4)),
    "Polynomial(initial=0.5, steps=10, final=0.1, exponent=2)": (
        schedules.Polynomial(0.5, 10, 0.1, exponent=2),
        lambda t: 0.1 + 0.4 * (1 - np.minimum(t, 10) / 10) ** 2,
    ),
    "Rex(peak=0.5, steps=10, final=0.1)": (
        schedules.Rex(0.5, 10, 0.1),
        lambda t: 0.1 + 0.4 * (1 - np.minimum(t, 10) / 10) / (1 - np.minimum(t, 10) / 20),
    ),
    "WarmupStableDecay(peak=0.5, warm_up=4, stable=6, decay=10, final=0.1, shape='sqrt')": (
        schedules.WarmupStableDecay(0.5, 4, 6, 10, 0.1, shape="sqrt"),
        lambda t: np.where(t < 4, t / 8, 0.5 - 0.4 * np.sqrt(np.clip(t - 10, 0, 10) / 10)),
    ),
    "WarmupStableDecay(peak=0.5, warm_up=0, stable=6, decay=10, final=0.0, shape='cosine')": (
        schedules.WarmupStableDecay(0.5, 0, 6, 10, shape="cosine"),
        lambda t: 0.25 * (1 + np.cos(np.pi * np.clip(t - 6, 0, 10) / 10)),
    ),
    "Linear(initial=0.1, steps=10, final=0.5)": (
        schedules.Linear(0.1, 10, 0.5),
        lambda t: 0.1 + 0.4 * np.minimum(t, 10) / 10,
    ),
    "CosineRestarts(initial=0.5, steps=4, growth=1, final=0.1)": (
        schedules.CosineRestarts(0.5, 4, final=0.1),
        lambda t: 0.1 + 0.2 * (1 + np.cos(np.pi * (t % 4) / 4)),
    ),
    "CosineRestarts(initial=0.5, steps=4, growth=2, final=0.0)": (
        schedules.CosineRestarts(0.5, 4, growth=2),
        lambda t: np.select(
            [t < 4, t < 12, t < 28],
            [0.25 * (1 + np.cos(np.pi * (t - begin) / period)) for begin, period in ((0, 4), (4, 8), (12, 16))],
        ),
    ),
    "Triangular(initial=0.1, peak=0.5, steps=4)": (
        schedules.Triangular(0.1, 0.5, 4),
        lambda t: np.interp(t % 8, [0, 4, 8], [0.1, 0.5, 0.1]),
    ),
    "Piecewise(values=(0.5, 0.2, 0.1), boundaries=(3, 10))": (
        schedules.Piecewise([0.5, 0.2, 0.1], [3, 10]),
        lambda t: np.select([t < 3, t < 10], [0.5, 0.2], 0.1),
    ),
    "Piecewise(values=(0.5,), boundaries=())": (schedules.Piecewise((0.5,), ()), lambda t: 0.5 + 0 * t),
    "Join(schedules=(0.5, Power(initial=0.5, scale=4.0, exponent=1.0)), boundaries=(4,))": (
        schedules.Join((0.5, schedules.Power(0.5, 4.0)), (4,)),
        lambda t: 0.5 * 4 / np.maximum(t, 4),  # Bengio (2012)
    ),
    "OneCycle(peak=0.5, steps=20, rise=0.3, fall=0.85, divisor=25.0, final_divisor=10000.0)": (
        schedules.OneCycle(0.5, 20),
        lambda t: np.interp(t, [0, 6, 17, 20], [0.02, 0.5, 0.02, 2e-6]),
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
    np.testing.assert_allclose(schedule(COUNTS), expected, rtol=1e-12)
    np.testing.assert_allclose([schedule(int(t)) for t in COUNTS], expected, rtol=1e-12)
    assert all(type(schedule(int(t))) is float for t in COUNTS)
    count = pt.lscalar()
    value = pytensor.function([count], pt.as_tensor(schedule(count)), mode=optapi.PYTHON, on_unused_input="ignore")
    np.testing.assert_allclose([value(t) for t in COUNTS], expected, rtol=1e-12)


@pytest.mark.parametrize("text, case", CASES.items(), ids=CASES)
def test_prints_pickles_and_is_frozen(text, case):
    schedule, _ = case
    assert repr(schedule) == text
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert hash(schedule) == hash(pickle.loads(pickle.dumps(schedule)))
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


@pytest.mark.parametrize("text, case", CASES.items(), ids=CASES)
def test_expressions_are_exact_whatever_floatx_is(text, case):
    schedule, formula = case
    count = pt.lscalar()
    with pytensor.config.change_flags(floatX="float32"):
        expression = pt.as_tensor(schedule(count))
        value = pytensor.function([count], expression, mode=optapi.PYTHON, on_unused_input="ignore")
        np.testing.assert_allclose([value(t) for t in COUNTS], formula(COUNTS), rtol=1e-12)


@pytest.mark.parametrize("text, case", CASES.items(), ids=CASES)
def test_a_finite_schedule_keeps_its_last_value(text, case):
    schedule, _ = case
    last = {"Cosine": 10, "Linear": 10, "Polynomial": 10, "Piecewise": 10, "OneCycle": 20, "Constant": 0}
    if type(schedule).__name__ in last:
        end = schedule(last[type(schedule).__name__])
        np.testing.assert_allclose(schedule(np.array([21, 100, 10**9])), end, rtol=1e-12)


def test_a_plain_count_and_a_field_that_is_a_variable():
    initial = pytensor.shared(0.5)
    for schedule in (
        schedules.Step(initial, 4),
        schedules.WarmUp(schedules.Cosine(initial, 10), 4),
        schedules.Piecewise((initial, 0.1), (3,)),
        schedules.OneCycle(initial, 20),
    ):
        number = schedule(2)
        initial.set_value(1.0)
        twice = number.eval(mode=optapi.PYTHON)
        initial.set_value(0.5)
        np.testing.assert_allclose(twice, 2 * number.eval(mode=optapi.PYTHON), rtol=1e-15)


def test_search_then_converge():
    schedule = schedules.SearchThenConverge(0.1, 100.0, limit=3.0)
    assert schedule(0) == 0.1
    np.testing.assert_allclose(1e9 * schedule(10**9), 3.0, rtol=1e-6)
    np.testing.assert_allclose(1e14 * schedules.SearchThenConverge(0.1, 100.0, limit=0.0)(10**7), 10.0, rtol=1e-6)


def test_power_of_exponent_1_is_the_recurrence_of_its_inverse():
    values = schedules.Power(0.5, scale=8.0)(np.arange(100))
    np.testing.assert_allclose(np.diff(1 / values), 1 / (0.5 * 8.0), rtol=1e-12)


def test_steps_are_taken_at_their_count():
    np.testing.assert_array_equal(schedules.Step(1.0, 3, factor=0.5)(np.arange(7)), [1, 1, 1, 0.5, 0.5, 0.5, 0.25])
    np.testing.assert_array_equal(schedules.Piecewise((1.0, 0.5), (3,))(np.arange(5)), [1, 1, 1, 0.5, 0.5])


def test_restarts_and_the_middle_between_them():
    schedule = schedules.CosineRestarts(0.5, 10, growth=2, final=0.1)
    np.testing.assert_array_equal(schedule(np.array([0, 10, 30, 70, 150])), 0.5)
    np.testing.assert_allclose(schedule(np.array([5, 20, 50, 110])), 0.3, rtol=1e-15)
    assert np.all(schedule(np.array([9, 29, 69, 149])) < 0.12)


@pytest.mark.parametrize("steps", [1, 7, 10])
@pytest.mark.parametrize("growth", [1, 2, 3, 10])
def test_restarts_by_recurrence(steps, growth):
    since, period, expected = 0, steps, []
    for _ in range(10**5 + 1):
        expected.append(0.01 + 0.02 * (1 + np.cos(np.pi * since / period)))
        since += 1
        if since == period:
            since, period = 0, growth * period
    schedule, counts = schedules.CosineRestarts(0.05, steps, growth, final=0.01), np.arange(10**5 + 1)
    count = pt.lvector()
    value = pytensor.function([count], schedule(count), mode=optapi.PYTHON)
    np.testing.assert_allclose(schedule(counts), expected, rtol=1e-12)
    np.testing.assert_allclose(value(counts), expected, rtol=1e-12)


def test_one_cycle_ends_at_almost_nothing():
    np.testing.assert_allclose(schedules.OneCycle(0.5, 1000)(np.array([0, 300, 850, 1000, 2000])), [
        0.02, 0.5, 0.02, 4e-6 * 0.5, 4e-6 * 0.5
    ], rtol=1e-12)  # fmt: skip


def test_joined_schedules_begin_at_their_own_count_of_0():
    schedule = schedules.Join((schedules.Power(1.0), lambda t: 0.125 * (t + 1), 0.5), (2, 4))
    np.testing.assert_allclose(schedule(np.arange(6)), [1.0, 0.5, 0.125, 0.25, 0.5, 0.5])


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: schedules.Linear(-1.0, 3), ValueError, "initial of Linear is -1"),
        (lambda: schedules.Triangular(0.1, -1.0, 3), ValueError, "peak of Triangular is -1"),
        (lambda: schedules.Triangular(0.1, 1.0, 2.5), TypeError, "steps of Triangular is a float"),
        (lambda: schedules.CosineRestarts(0.1, 10, growth=0), ValueError, "growth of CosineRestarts is 0"),
        (lambda: schedules.CosineRestarts(0.1, 10, growth=1.5), TypeError, "growth of CosineRestarts is a float"),
        (lambda: schedules.SearchThenConverge(0.0, 1.0, 1.0), ValueError, "initial of SearchThenConverge is 0"),
        (lambda: schedules.SearchThenConverge(0.1, 0.0, 1.0), ValueError, "scale of SearchThenConverge is 0"),
        (lambda: schedules.OneCycle(0.1, 3), ValueError, "the lines of OneCycle end at 0, 2 and 3 updates"),
        (lambda: schedules.OneCycle(0.1, 30, divisor=0.0), ValueError, "divisor of OneCycle is 0"),
        (lambda: schedules.OneCycle(0.1, 30, rise=1.5), ValueError, "rise of OneCycle is 1.5"),
        (lambda: schedules.OneCycle(0.1, 30, rise=pytensor.shared(0.5)), TypeError, "rise of OneCycle is a variable"),
        (lambda: schedules.Piecewise(0.1, (3,)), TypeError, "values of Piecewise is a float"),
        (lambda: schedules.Piecewise((0.1, -0.1), (3,)), ValueError, "values of Piecewise is -0.1"),
        (lambda: schedules.Piecewise((0.1, 0.2), (3, 5)), ValueError, "values of Piecewise has 2 entries for 2"),
        (lambda: schedules.Piecewise((3, 2, 1), (3, 3)), ValueError, "boundaries of Piecewise is 3"),
        (lambda: schedules.Join((0.1, "x"), (3,)), TypeError, "schedules of Join is 'x'"),
        (lambda: schedules.Join((0.1, 0.2), (0,)), ValueError, "boundaries of Join is 0"),
        (lambda: schedules.WarmUp("x", 3), TypeError, "schedule of WarmUp is 'x'"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
