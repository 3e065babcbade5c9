"""What holds when a cost fails: exceptions, interrupts and values that are not finite, at evaluations in both faces.

Two rules of each structure are tested, one on the second version of PyTensor, and all with ``OPTAPI_INJECTIONS=10``.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter

import numpy as np
import pytensor
import pytest
from registry import ROWS, SOME_ROWS, structure

import optapi
from optapi.drivers.options import SYMBOLIC
from optapi.graph.numpy_linker import STEP


THOROUGH = int(os.environ.get("OPTAPI_INJECTIONS", "1")) > 1
START = np.array([-1.2, 1.0])
ITERATIONS = 6
BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def needs_graph(row):
    """Whether an option of the rule has to be an expression of the cost's graph."""
    signature = inspect.signature(row.rule).parameters
    required = [name for name in SYMBOLIC if name in signature and signature[name].default is inspect.Parameter.empty]
    return bool(required) or any(name in row.options for name in SYMBOLIC)


def rows():
    """The rows to test."""
    able, taken = [row for row in (ROWS if THOROUGH else SOME_ROWS) if not needs_graph(row)], Counter()
    for row in able:
        if THOROUGH or taken[structure(row)] < 2:
            taken[structure(row)] += 1
            yield row


TESTED = list(rows())


def f(x):
    return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)


def df(x):
    return np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])


class Failing:
    """The cost and its gradient, which fails at the evaluation `at`, once, by raising `failure` or by returning it."""

    def __init__(self):
        self.calls, self.at, self.failure, self.part = 0, None, None, "cost"

    def inject(self, at, failure, part="cost"):
        self.calls, self.at, self.failure, self.part = 0, at, failure, part

    def __call__(self, x):
        self.calls += 1
        with np.errstate(all="ignore"):  # a rule may go where it overflows
            cost, slope = f(x), df(x)
        if self.calls == self.at:
            if isinstance(self.failure, BaseException):
                raise self.failure
            if self.part == "cost":
                cost = self.failure
            else:
                with np.errstate(invalid="ignore"):  # a component may be zero
                    slope = slope * self.failure
        return cost, slope


def injected(evaluations):
    """Which evaluations fail: all of them, or the first, the last and some between."""
    return sorted({*map(int, np.linspace(1, evaluations, evaluations if THOROUGH else min(evaluations, 12)))})


def options_of(row):
    return (
        row.options
        if row.searches
        else {**row.options, "step_size": 1e-3}
        if "step_size" in row.options
        else row.options
    )


def assert_sound(result, at, evaluations):
    """A point that was evaluated, with its own cost, which is not above the start's; or the start is said to be bad."""
    if result.status == 3 and (at == 1 or "at the start" in result.message):
        assert result.nit == 0
        return
    assert np.isfinite(result.x).all()
    assert f(result.x) <= f(START)
    # The last evaluation may be one for the result, which then says what it was.
    assert result.fun == f(result.x) or (at == evaluations and not np.isfinite(result.fun))
    assert result.status in optapi.drivers.termination.STATUSES


@pytest.mark.parametrize("row", TESTED, ids=str)
def test_minimize(row):
    call, options = Failing(), {**options_of(row), "max_iterations": ITERATIONS}

    def iterator():
        return optapi.minimize_iterator(START, call, True, row.rule, **options)

    whole = iterator()
    for _ in whole:
        pass
    evaluations = call.calls
    for at in injected(evaluations):
        for failure in (ValueError("injected"), KeyboardInterrupt("injected")):
            run = iterator()
            call.inject(at, failure)
            with pytest.raises(type(failure)) as caught:
                for _ in run:
                    pass
                _ = run.result
            assert caught.value is failure
            assert np.isfinite(run.x).all()
            for _ in run:  # the iteration has not happened
                pass
            assert np.array_equal(run.x, whole.x) and run.nit == whole.nit and run.status == whole.status
        for value in BAD.values():
            for part in ("cost", "slope"):
                run = iterator()
                call.inject(at, value, part)
                for _ in run:
                    pass
                assert_sound(run.result, at, evaluations)


class Cost(pytensor.graph.op.Op):
    """The same as an Op, which raises where the function does."""

    def __init__(self, call):
        self.call = call

    def make_node(self, x):
        x = pytensor.tensor.as_tensor(x)
        return pytensor.graph.basic.Apply(self, [x], [pytensor.tensor.dscalar(), x.type()])

    def perform(self, node, inputs, outputs):
        cost, slope = self.call(inputs[0])
        outputs[0][0], outputs[1][0] = np.asarray(cost), np.asarray(slope)

    def pullback(self, inputs, outputs, cotangents):
        return [cotangents[0] * outputs[1]]

    def grad(self, inputs, cotangents):
        return [cotangents[0] * self(*inputs, return_list=True)[1]]

    def connection_pattern(self, node):
        return [[True, False]]

    def do_constant_folding(self, fgraph, node):
        return False


def as_oracle(call, p):
    return optapi.Oracle(lambda x: (lambda cost, slope: (cost, [slope]))(*call(x)))([p])


def as_op(call, p):
    return Cost(call)(p)[0]


@pytest.mark.parametrize("made", [as_oracle, as_op])
@pytest.mark.parametrize("row", TESTED, ids=str)
def test_compiled(row, made):
    call = Failing()
    p = pytensor.shared(START.copy(), name="p", shape=(2,))
    try:
        cost = made(call, p)
        options = {**options_of(row), "max_iterations": ITERATIONS}
        run = optapi.compile_minimizer([p], cost, row.rule, mode=STEP, **options)
    except NotImplementedError:
        assert made is as_op  # it has no second derivatives
        return
    whole = run()
    evaluations = call.calls
    for at in injected(evaluations):
        for failure in (ValueError("injected"), KeyboardInterrupt("injected")):
            run.restart()
            call.inject(at, failure)
            with pytest.raises(type(failure)) as caught:
                run()
            assert caught.value is failure
            assert np.isfinite(p.get_value()).all() and f(p.get_value()) <= f(START)
            if run._run.nit < whole.nit:  # else it failed when the result was made
                assert np.array_equal(run.resume().x[0], whole.x[0])
            run.restart()
            assert np.array_equal(run().x[0], whole.x[0])
        for value in BAD.values():
            for part in ("cost", "slope"):
                run.restart()
                call.inject(at, value, part)
                result = run()
                result.x = result.x[0]
                assert_sound(result, at, evaluations)
                assert np.array_equal(p.get_value(), result.x)
