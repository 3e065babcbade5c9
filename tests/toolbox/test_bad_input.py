"""Bad input is refused when the rule is called, with a sentence that names the argument, and changes nothing."""

import re

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import gradients, schedules, stopping


def p(value=(1.0, 2.0), name="p", dtype="float64"):
    return pytensor.shared(np.asarray(value, dtype), name=name)


def fixed(name="a"):
    return pytensor.shared(np.ones(2), name=name, shape=(2,))


A, B = p(name="a"), p(name="b")
COST = pt.sum(A**2)


# What is passed, the exception, and what its message holds.
REFUSED = {
    "neither cost nor gradients": (lambda rule, u: rule([A], updates=u), ValueError, "cost"),
    "vector cost": (lambda rule, u: rule([A], A**2, updates=u), ValueError, "cost has 1 dimensions"),
    "integer cost": (lambda rule, u: rule([A], pt.sum(pt.gt(A, 0)), updates=u), TypeError, "cost has dtype int64"),
    "complex cost": (lambda rule, u: rule([A], pt.sum(A * 1j), updates=u), TypeError, "cost has dtype complex128"),
    "number as cost": (lambda rule, u: rule([A], 3.0, updates=u), TypeError, "cost is a float"),
    "too few gradients": (lambda rule, u: rule([A, B], COST, gradients=[A], updates=u), ValueError, "gradients has 1"),
    "gradient of other ndim": (
        lambda rule, u: rule([A], COST, gradients=[pt.outer(A, A)], updates=u),
        ValueError,
        "gradient of 'a'",
    ),
    "gradient of other shape": (
        lambda rule, u: rule([fixed()], COST, gradients=[pt.zeros(3)], updates=u),
        ValueError,
        "gradient of 'a'",
    ),
    "integer gradient": (
        lambda rule, u: rule([A], COST, gradients=[pt.lvector()], updates=u),
        TypeError,
        "gradient of 'a'",
    ),
    "complex gradient": (lambda rule, u: rule([A], COST, gradients=[A * 1j], updates=u), TypeError, "gradient of 'a'"),
    "parameter twice": (lambda rule, u: rule([A, A], COST, updates=u), ValueError, "'a' is listed twice"),
    "no parameters": (lambda rule, u: rule([], COST, updates=u), ValueError, "parameters is empty"),
    "integer parameter": (
        lambda rule, u: rule([pytensor.shared(np.arange(3), name="k")], COST, updates=u),
        TypeError,
        "'k' has dtype int64",
    ),
    "complex parameter": (
        lambda rule, u: rule([p(dtype="complex128", name="z")], COST, updates=u),
        TypeError,
        "'z' has dtype complex128",
    ),
    "array as parameter": (lambda rule, u: rule([np.ones(3)], COST, updates=u), TypeError, "parameters[0]"),
    "parameters as a set": (lambda rule, u: rule({A}, COST, updates=u), TypeError, "parameters is a set"),
    "shared list as parameter": (
        lambda rule, u: rule([pytensor.shared([1.0, 2.0], name="l")], COST, updates=u),
        TypeError,
        "'l'",
    ),
    "constant as parameter": (lambda rule, u: rule([pt.constant(1.0)], COST, updates=u), TypeError, "parameters[0]"),
    "unused parameter": (lambda rule, u: rule([A, B], COST, updates=u), ValueError, "parameter 'b'"),
    "parameter used by shape only": (
        lambda rule, u: rule([A, B], COST * B.shape[0], updates=u),
        ValueError,
        "parameter 'b'",
    ),
    "stop is a number": (lambda rule, u: rule([A], COST, stop=0, updates=u), TypeError, "stop must be"),
    "stop is a float": (lambda rule, u: rule([A], COST, stop=pytensor.shared(0.0), updates=u), TypeError, "stop must"),
    "stop is a vector": (
        lambda rule, u: rule([A], COST, stop=pytensor.shared(np.zeros(2, int)), updates=u),
        TypeError,
        "stop must be",
    ),
    "stop is not shared": (lambda rule, u: rule([A], COST, stop=pt.lscalar(), updates=u), TypeError, "stop must be"),
    "negative step size": (lambda rule, u: rule([A], COST, step_size=-0.1, updates=u), ValueError, "step_size is -0.1"),
    "NaN step size": (lambda rule, u: rule([A], COST, step_size=np.nan, updates=u), ValueError, "step_size is nan"),
    "vector step size": (
        lambda rule, u: rule([A], COST, step_size=np.ones(2), updates=u),
        ValueError,
        "step_size is array",
    ),
    "symbolic vector step size": (
        lambda rule, u: rule([A], COST, step_size=pt.vector(), updates=u),
        ValueError,
        "step_size is of type",
    ),
    "text as step size": (
        lambda rule, u: rule([A], COST, step_size="fast", updates=u),
        TypeError,
        "step_size is 'fast'",
    ),
    "bool as step size": (lambda rule, u: rule([A], COST, step_size=True, updates=u), TypeError, "step_size is True"),
    "negative tolerance": (
        lambda rule, u: rule([A], COST, tolerance=-1.0, stop=pytensor.shared(0), updates=u),
        ValueError,
        "tolerance is -1",
    ),
    "name is not text": (lambda rule, u: rule([A], COST, name=3, updates=u), TypeError, "name is 3"),
}


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.momentum, optapi.adam, optapi.lbfgs])
@pytest.mark.parametrize("call, error, message", REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_changed(rule, call, error, message):
    other = pytensor.shared(1.0)
    updates = {other: other + 1}
    before = dict(updates)
    with pytest.raises(error, match=re.escape(message)):
        call(rule, updates)
    assert list(updates.items()) == list(before.items())


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.momentum, optapi.adam, optapi.lbfgs])
def test_updates_must_be_a_dictionary(rule):
    with pytest.raises(TypeError, match="updates is a list"):
        rule([A], COST, updates=[])


def test_a_rule_without_state_takes_any_variable():
    x = pt.vector("x", dtype="float64")
    assert set(optapi.sgd([x], pt.sum(x**2))) == {x}


@pytest.mark.parametrize("rule", [optapi.momentum, optapi.adam, optapi.lbfgs])
def test_a_rule_with_state_needs_a_shape(rule):
    x = pt.vector("x", dtype="float64")
    with pytest.raises(TypeError, match="'x' is not shared"):
        rule([x], pt.sum(x**2))
    known = pt.tensor("x", shape=(3,), dtype="float64")
    assert known in rule([known], pt.sum(known**2))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: optapi.lbfgs([A], gradients=[2 * A]), ValueError, "pass cost="),
        (lambda: optapi.lbfgs([A], COST, gradients=[pt.dvector()]), ValueError, "do not depend on the parameters"),
        (lambda: optapi.lbfgs([A], COST, gradients=gradients.clip([2 * A], 1.0)), ValueError, "transformed"),
        (lambda: optapi.lbfgs([A, B], COST, gradients=[2 * A, B]), ValueError, "parameter 'b'"),
        (lambda: optapi.lbfgs([A], COST, memory=0), ValueError, "memory is 0"),
        (lambda: optapi.lbfgs([A], COST, memory=2.0), TypeError, "memory is a float"),
        (lambda: optapi.lbfgs([A], COST, exact="yes"), TypeError, "exact is 'yes'"),
        (lambda: optapi.sgd([A], COST, momentum=1.5), ValueError, "momentum is 1.5"),
        (lambda: optapi.sgd([A], COST, nesterov=True), ValueError, "nesterov"),
        (lambda: optapi.sgd([A], COST, dampening=0.5), ValueError, "dampening"),
        (lambda: optapi.sgd([A], COST, momentum=0.9, dampening=0.5, nesterov=True), ValueError, "dampening"),
        (lambda: optapi.adam([A], COST, mean_weight=1.0), ValueError, "mean_weight is 1"),
        (lambda: optapi.adam([A], COST, mean_square_weight=-0.1), ValueError, "mean_square_weight is -0.1"),
        (lambda: optapi.adam([A], COST, epsilon=-1.0), ValueError, "epsilon is -1"),
        (lambda: optapi.adamax([A], COST, norm_weight=1.0), ValueError, "norm_weight is 1"),
        (lambda: optapi.adamw([A], COST, decay=-0.1), ValueError, "decay is -0.1"),
        (lambda: optapi.adamw([A], COST, mask=[True, False]), ValueError, "mask has 2"),
        (lambda: optapi.adagrad([A], COST, initial=-1.0), ValueError, "initial is -1"),
        (lambda: optapi.nadam([A], COST, momentum_decay=-1.0), ValueError, "momentum_decay is -1"),
        (lambda: schedules.Power(-1.0), ValueError, "initial of Power is -1"),
        (lambda: schedules.Power(1.0, scale=0.0), ValueError, "scale of Power is 0"),
        (lambda: schedules.Cosine(1.0, steps=0), ValueError, "steps of Cosine is 0"),
        (lambda: schedules.Exponential(1.0, factor="x"), TypeError, "factor of Exponential is 'x'"),
        (lambda: optapi.lbfgs([A], COST, line_search="wolfe"), TypeError, "search is 'wolfe'"),
        (lambda: optapi.bfgs([A], COST, line_search=None), TypeError, "search is None"),
        (lambda: optapi.barzilai_borwein([A], COST, kind="both"), ValueError, "kind is 'both'"),
        (lambda: optapi.lbfgs([A], COST, gradients=[gradients.clip([2 * A], 1.0)[0] * 1.0]), ValueError, "transformed"),
        (lambda: optapi.sgd([A], gradients=[None]), TypeError, "gradient of 'a' in gradients is None"),
        (lambda: optapi.loop(optapi.sgd([A], COST), 2.5), TypeError, "steps is a float"),
        (lambda: optapi.loop(optapi.sgd([A], COST), pt.dscalar()), TypeError, "steps has dtype float64"),
        (lambda: optapi.hold(optapi.sgd([A], COST), pt.lvector()), ValueError, "condition has 1 dimensions"),
        (lambda: optapi.average(optapi.sgd([A], COST), {A: np.ones(2)}), TypeError, "pass a shared variable"),
        (lambda: gradients.clip([A], -1.0), ValueError, "limit is -1"),
        (lambda: gradients.decay([A], [A, B], 0.1), ValueError, "gradients has 1"),
        (lambda: gradients.decay([A], [A], 0.1, mask=[True, False]), ValueError, "mask has 2"),
        (lambda: optapi.loop(optapi.sgd([A], COST), -1), ValueError, "steps is -1"),
        (lambda: optapi.loop(optapi.sgd([A], COST), 3, pytensor.shared(0)), ValueError, "stop is the variable"),
        (lambda: optapi.project(optapi.sgd([A], COST), {B: abs}), ValueError, "projections names the variable 'b'"),
        (lambda: optapi.average(optapi.sgd([A], COST), {B: B}), ValueError, "averages names the variable 'b'"),
        (lambda: optapi.average(optapi.sgd([A], COST), {A: A}), KeyError, "'a'"),
        (lambda: optapi.batch(optapi.sgd([A], COST), {}), ValueError, "starts is empty"),
        (lambda: optapi.batch(optapi.sgd([A], COST), {A: B}), ValueError, "one axis more"),
        (lambda: optapi.batch(optapi.sgd([A], COST), {A: np.ones((2, 2))}), TypeError, "pass a shared variable"),
        (lambda: optapi.join(optapi.sgd([A], COST), optapi.adam([A], COST)), KeyError, "'a'"),
        (lambda: stopping.all_of([], pytensor.shared(0)), ValueError, "stops is empty"),
        (lambda: stopping.all_of([pytensor.shared(0)], None), TypeError, "stop is None"),
        (lambda: stopping.patience(COST, pytensor.shared(0.0)), TypeError, "stop must be"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
