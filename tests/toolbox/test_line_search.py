"""Line searches on functions of one variable."""

import itertools
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from reference import first_order as reference
from reference import quasi_newton as reference_quasi_newton

from optapi import line_search
from optapi.graph.numpy_linker import STEP
from optapi.line_search import NonMonotone, Trial, more_thuente, nonmonotone, strong_wolfe, weak_wolfe


@dataclass(frozen=True)
class Case:
    """A search with the constants of its conditions; those of curvature are weak, strong or None."""

    line_search: Any
    decrease: float | None
    curvature: float = 0.0
    kind: str | None = None
    options: Any = ()

    def accepts(self, start, slope, size, value, steep):
        armijo = self.decrease is None or value <= start + self.decrease * size * slope
        if self.kind is None:
            return armijo
        flat = steep >= self.curvature * slope if self.kind == "weak" else abs(steep) <= -self.curvature * slope
        if self.line_search is line_search.hager_zhang:
            armijo = armijo or (value <= start + 1e-6 * abs(start) and steep <= (2 * self.decrease - 1) * slope)
        return armijo and flat

    def __call__(self, *args):
        return self.line_search(*args, **dict(self.options))


CASES = {
    "fixed": Case(line_search.fixed, None),
    "backtracking": Case(line_search.backtracking, 1e-4),
    "weak_wolfe": Case(weak_wolfe, 1e-3, 0.7, "weak", (("decrease", 1e-3), ("curvature", 0.7))),
    "strong_wolfe": Case(strong_wolfe, 1e-4, 0.7, "strong"),
    "strong_wolfe_tight": Case(strong_wolfe, 1e-4, 0.1, "strong", (("curvature", 0.1),)),
    "more_thuente": Case(more_thuente, 1e-3, 0.5, "strong", (("curvature", 0.5), ("width", 1e-8), ("max_trials", 40))),
    "hager_zhang": Case(line_search.hager_zhang, 0.1, 0.9, "weak"),
}
TWINS = {
    "backtracking": reference_quasi_newton.backtracking,
    "weak_wolfe": partial(reference.weak_wolfe, decrease=1e-3, curvature=0.7),
    "strong_wolfe": reference_quasi_newton.strong_wolfe,
    "strong_wolfe_tight": partial(reference_quasi_newton.strong_wolfe, curvature=0.1),
    "hager_zhang": reference_quasi_newton.hager_zhang,
}
each = pytest.mark.parametrize("name", CASES)


def wall(a):
    return pt.switch(a < 1.5, -a + 5 * pt.maximum(a - 1, 0) ** 2, np.nan)


FUNCTIONS = {
    "parabola": lambda a: (a - 2) ** 2,
    "close by": lambda a: (a - 1e-5) ** 2,
    "logarithm": lambda a: a - pt.log(a + 0.01),
    "wavy": lambda a: 0.1 * a**2 - pt.sin(3 * a),
    "wall": wall,
    "pole": lambda a: -2 * a - pt.log(1 - a),
}
SIZES = (1e-6, 1e-2, 1.0, 7.0, 1e3)


def line_of(function):
    """The cost and its derivative, with the step size as what is carried along."""
    x = pt.dscalar()
    cost = function(x)
    slope = pytensor.grad(cost, x)
    return lambda a: Trial(*graph_replace([cost, slope], {x: a}, strict=False), (a, -a))


def numbers(step):
    return [step.size, step.trial.cost, step.trial.slope, *step.trial.carry, step.evaluations, step.failed]


@cache
def searched(name, function):
    """A compiled search: from the first step size to the numbers of the step; and the line."""
    first, a = pt.dscalars("first", "a")
    line = line_of(FUNCTIONS[function])
    run = pytensor.function([first], numbers(CASES[name](line, line(pt.constant(np.float64(0))), first)), mode=STEP)
    there = pytensor.function([a], line(a)[:2], mode=STEP)
    return run, lambda a: tuple(float(v) for v in there(a))


@pytest.mark.parametrize("function", FUNCTIONS)
@each
def test_the_conditions_hold(name, function):
    run, line = searched(name, function)
    start, slope = line(0.0)
    for first in SIZES:
        size, value, steep, there, mirrored, evaluations, failed = run(first)
        assert not failed
        assert size > 0
        assert (there, mirrored) == (size, -size)
        assert (value, steep) == line(size)
        assert np.isfinite(value)
        assert CASES[name].accepts(start, slope, size, value, steep)
        assert 1 <= evaluations <= 40


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", TWINS)
def test_twins(name, function):
    run, line = searched(name, function)
    for first in SIZES:
        with np.errstate(all="ignore"):
            wanted, count = TWINS[name](line, *line(0.0), first)
        size, *_, evaluations, _ = run(first)
        assert evaluations == count
        np.testing.assert_allclose(size, wanted, rtol=1e-9)


def three_pieces(a, b=0.01, waves=39):
    """More and Thuente's third function."""
    base = pt.switch(a <= 1 - b, 1 - a, pt.switch(a >= 1 + b, a - 1, (a - 1) ** 2 / (2 * b) + b / 2))
    return base + 2 * (1 - b) / (waves * np.pi) * pt.sin(waves * np.pi / 2 * a)


def yanai(b, c):
    """Those of Yanai, Ozawa and Kaneko, which are the fourth to the sixth."""

    def function(a):
        weight_b, weight_c = (np.sqrt(1 + x**2) - x for x in (b, c))
        return weight_b * pt.sqrt((1 - a) ** 2 + c**2) + weight_c * pt.sqrt(a**2 + b**2)

    return function


@pytest.mark.parametrize(
    "function, decrease, curvature, counts, sizes",
    [
        (lambda a: -a / (a**2 + 2), 1e-3, 0.1, (6, 3, 1, 4), (1.365, 1.441, 10, 36.89)),
        (lambda a: (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4, 0.1, 0.1, (12, 8, 8, 11), (1.596, 1.596, 1.596, 1.596)),
        (three_pieces, 0.1, 0.1, (12, 12, 10, 13), (1.0, 1.0, 1.0, 1.0)),
        (yanai(0.001, 0.001), 1e-3, 1e-3, (4, 1, 3, 4), (0.085, 0.1, 0.3491, 0.8294)),
        (yanai(0.01, 0.001), 1e-3, 1e-3, (6, 3, 7, 8), (0.07501, 0.07751, 0.07314, 0.07616)),
        (yanai(0.001, 0.01), 1e-3, 1e-3, (13, 11, 8, 11), (0.9279, 0.9262, 0.9248, 0.9244)),
    ],
    ids=range(1, 7),
)
def test_the_tables_of_more_and_thuente(function, decrease, curvature, counts, sizes):
    """Evaluations and step sizes, from first steps of 0.001 to 1000; tables I to VI of the paper of 1994."""
    first, line = pt.dscalar(), line_of(function)
    options = {"decrease": decrease, "curvature": curvature, "width": 1e-10}
    step = more_thuente(line, line(pt.constant(np.float64(0))), first, **options)
    run = pytensor.function([first], [step.evaluations, step.size], mode=STEP)
    for a, count, size in zip((1e-3, 1e-1, 1e1, 1e3), counts, sizes, strict=True):
        evaluations, found = run(a)
        assert evaluations == count
        np.testing.assert_allclose(found, size, rtol=1e-3)


def test_doubling_then_bisection():
    run, _ = searched("weak_wolfe", "parabola")
    assert run(2.0)[0] == 2.0 and run(2.0)[-2] == 1
    # 8 and 4 have too little decrease, 2 is accepted
    assert (run(8.0)[0], run(8.0)[-2]) == (2.0, 3)
    # 1/8, 1/4 and 1/2 are too steep for c2 = 0.7, 1 is accepted
    assert (run(0.125)[0], run(0.125)[-2]) == (1.0, 4)


def test_one_secant_step_finds_the_minimizer_of_a_parabola():
    assert tuple(searched("hager_zhang", "parabola")[0](7.0)[k] for k in (0, 5)) == (2.0, 2)


@each
def test_no_search_where_there_is_nothing_to_search(name):
    cost, slope, first = pt.dscalars("cost", "slope", "first")
    line = line_of(FUNCTIONS["parabola"])
    step = CASES[name](line, Trial(cost, slope, (first, first)), first)
    run = pytensor.function(
        [cost, slope, first], [step.size, step.evaluations, step.failed, step.trial.cost], mode=STEP
    )
    for values in [
        (4.0, 4.0, 1.0),  # ascends
        (4.0, 0.0, 1.0),
        (np.nan, -4.0, 1.0),
        (-np.inf, -4.0, 1.0),
        (4.0, np.nan, 1.0),
        (4.0, -np.inf, 1.0),
        (4.0, -4.0, 0.0),
        (4.0, -4.0, -1.0),
        (4.0, -4.0, np.nan),
        (4.0, -4.0, np.inf),
    ]:
        *found, held = run(*values)
        assert found == [0.0, 0, True]
        np.testing.assert_array_equal(held, values[0])


LIES = {
    "slope": lambda a: Trial(a, -pt.ones_like(a)),
    "infinite reward": lambda a: Trial(
        pt.switch(a < 1, (a - 0.5) ** 2, -np.inf), pt.switch(a < 1, 2 * (a - 0.5), -1.0)
    ),
    "slope is not finite": lambda a: Trial(
        pt.switch(a < 1, (a - 0.5) ** 2, -a), pt.switch(a < 1, 2 * (a - 0.5), np.nan)
    ),
    "nothing finite": lambda a: Trial(pt.switch(a > 0, np.nan, 1.0), pt.switch(a > 0, np.nan, -1.0)),
    "no end": lambda a: Trial(-a, -pt.ones_like(a)),
}


@each
def test_lines_that_lie(name):
    """What is returned is finite, and has been tried; the search ends."""
    first, lie = pt.dscalar(), pt.lscalar()

    def line(a):
        trials = [line(a) for line in LIES.values()]
        return Trial(*(pt.stack([trial[k] for trial in trials])[lie] for k in (0, 1)))

    step = CASES[name](line, line(pt.constant(np.float64(0))), first)
    found = [step.size, *step.trial[:2], step.evaluations, step.failed]
    run = pytensor.function([first, lie], found, mode=STEP)
    for (number, lie), a in itertools.product(enumerate(LIES), (1e-3, 4.0, 1e3)):
        size, value, steep, evaluations, failed = run(a, number)
        assert np.all(np.isfinite([size, value, steep]))
        assert 1 <= evaluations <= 50
        assert failed == (size == 0)
        assert failed == (lie == "nothing finite" or (lie == "slope" and name != "fixed")), lie
        if lie in ("infinite reward", "slope is not finite"):
            assert size < 1
        if lie == "no end":
            assert size >= a


@pytest.mark.parametrize("name", ["strong_wolfe", "hager_zhang"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_the_level_of_round_off_the_slope_decides(name, dtype):
    """The minimizer is known to the precision of the slope, where the cost is the same for all trials."""
    eps = np.finfo(dtype).eps
    a, width = pt.scalar(dtype=dtype), np.asarray(np.sqrt(eps) / 64, dtype)

    def line(a):
        return Trial(np.asarray(1, dtype) + (a - 1) ** 2 * width**2, 2 * (a - 1) * width**2, (a,))

    step = CASES[name](line, line(pt.zeros((), dtype)), a)
    run = pytensor.function([a], [step.size, step.trial.cost, step.failed], mode=STEP)
    for first in (0.5, 1.0, 1.5):
        assert run(np.asarray(first, dtype)) == [first, 1.0, False]
    if name == "strong_wolfe":  # 4 is too far, by the slope alone
        size, _, failed = run(np.asarray(4.0, dtype))
        assert not failed
        assert size < 2


@each
def test_a_search_in_float32_stays_there(name):
    cost, slope, first = pt.fscalars("cost", "slope", "first")
    two = np.float32(2)

    def line(a):
        assert a.dtype == "float32"
        return Trial((a - two) ** 2, two * (a - two))

    step = CASES[name](line, Trial(cost, slope), first)
    wide = [v for v in walk([step.size, *step.trial[:2]]) if v.owner and getattr(v.type, "dtype", "") == "float64"]
    assert not wide
    run = pytensor.function([cost, slope, first], [step.size, step.evaluations], mode=STEP)
    size, evaluations = run(np.float32(4), np.float32(-4), np.float32(1))
    assert (size, evaluations, size.dtype) == (1.0, 1, "float32") or name == "strong_wolfe_tight"
    assert run(np.float32(4), np.float32(-4), np.float32(1e38))[1] <= 50


def walk(outputs):
    """All variables that `outputs` depend on, in inner graphs too."""
    for variable in ancestors(outputs):
        yield variable
        if variable.owner is not None and isinstance(variable.owner.op, HasInnerGraph):
            yield from walk(variable.owner.op.fgraph.outputs)


@each
def test_the_line_stands_once_in_the_graph(name):
    calls = []

    def line(a):
        calls.append(a)
        return Trial((a - 2) ** 2, 2 * (a - 2))

    CASES[name](line, Trial(pt.constant(np.float64(4)), pt.constant(np.float64(-4))))
    assert len(calls) == 1


def test_out_of_trials_takes_what_decreased():
    step = weak_wolfe(LIES["no end"], LIES["no end"](pt.constant(np.float64(0))), 1.0, max_trials=5)
    found = [value.eval(mode=STEP) for value in (step.size, step.trial.cost, step.evaluations, step.failed)]
    assert found == [16.0, -16.0, 5, False]


@pytest.mark.parametrize(
    "option, message",
    [
        ({"decrease": 2.0}, "decrease is 2"),
        ({"curvature": -1.0}, "curvature is -1"),
        ({"growth": 1.0}, "growth is 1"),
        ({"max_trials": 0}, "trials is 0"),
        ({"first": "long"}, "first is 'long'"),
    ],
)
def test_options_are_checked(option, message):
    start = Trial(pt.constant(np.float64(4)), pt.constant(np.float64(-4)))
    with pytest.raises((ValueError, TypeError), match=message):
        strong_wolfe(lambda a: Trial((a - 2) ** 2, 2 * (a - 2)), start, **option)


@pytest.mark.parametrize("weight", [None, 0.5])
def test_nonmonotone(weight):
    """Costs of up to the reference are accepted: the largest of the last three, or their weighted average."""
    remembering = NonMonotone(memory=3, weight=weight)
    memory = remembering.begin("line_search", "float64")
    cost, trial = pt.dscalars("cost", "trial")

    def line(a):
        return Trial(pt.switch(a >= 1, trial, cost - a), -pt.ones_like(a))

    step = remembering(line, Trial(cost, -pt.ones_like(cost)), 1.0, *memory)
    updates = dict(zip(memory, step.memory, strict=True))
    run = pytensor.function([cost, trial], [step.size, step.trial.cost, step.failed], updates=updates, mode=STEP)
    past, Q, C = [], 0.0, 0.0
    for value in (5.0, 4.0, 1.0, 2.0, 0.5, 0.25):
        past = [*past, value][-3:]
        reference = max(past)
        if weight is not None:
            Q = weight * Q + 1
            C += (value - C) / Q
            reference = max(value, C)
        state = [variable.get_value() for variable in memory]
        assert run(value, reference - 1.001e-4)[0] == 1.0
        for variable, old in zip(memory, state, strict=True):
            variable.set_value(old)
        size, found, failed = run(value, reference - 0.999e-4)
        assert size < 1
        assert not failed
        assert found == value - size
    before = [variable.get_value() for variable in memory]
    assert run(np.nan, 1.0)[2]
    assert all(np.array_equal(old, variable.get_value()) for old, variable in zip(before, memory, strict=True))


def test_a_nonmonotone_search_that_fails_returns_the_start():
    [past] = nonmonotone.begin("line_search", "float64")
    past.set_value(np.full(10, 7.0))
    step = nonmonotone(lambda a: Trial(a + np.nan, a), Trial(pt.constant(np.float64(4)), pt.constant(-1.0)), 1.0, past)
    assert step.failed.eval(mode=STEP)
    assert step.trial.cost.eval(mode=STEP) == 4.0


# The weak conditions, against the twin

WEAK_LINES = {
    "quadratic": (lambda a, xp: (a - 2) ** 2, lambda a, xp: 2 * (a - 2)),
    "more_thuente": (lambda a, xp: -a / (a**2 + 2), lambda a, xp: (a**2 - 2) / (a**2 + 2) ** 2),
    "kink": (lambda a, xp: abs(a - 1), lambda a, xp: xp.sign(a - 1)),
    "not_finite_from_1": (lambda a, xp: -2 * a - xp.log(1 - a), lambda a, xp: -2 + 1 / (1 - a)),
    "no_end": (lambda a, xp: -a, lambda a, xp: 0 * a - 1),
    "no_decrease": (lambda a, xp: a, lambda a, xp: 0 * a - 1),
    "upwards": (lambda a, xp: a**2 + a, lambda a, xp: 2 * a + 1),
}


@pytest.mark.parametrize("case", WEAK_LINES)
def test_weak_wolfe_against_its_twin(case):
    cost, slope = WEAK_LINES[case]
    first = pt.dscalar()

    def line(a):
        return Trial(cost(a, pt), slope(a, pt))

    step = weak_wolfe(line, line(pt.constant(0.0, dtype="float64")), first)
    results = [step.size, step.evaluations, step.trial.cost, step.trial.slope, step.failed]
    f = pytensor.function([first], results, mode=STEP)
    for a in np.array([1e-3, 0.1, 1.0, 7.0, 1e3]):
        with np.errstate(all="ignore"):
            size, evaluations = reference.weak_wolfe(
                lambda a: (cost(a, np), slope(a, np)), cost(0.0, np), slope(0.0, np), a
            )
        found = f(a)
        assert (found[0], found[1], found[4]) == (size, evaluations, size == 0)
        np.testing.assert_allclose(found[2:4], [cost(size, np), slope(size, np)], rtol=1e-14)
