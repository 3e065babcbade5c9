"""Results: a dictionary with attributes, and sentences."""

import copy
import pickle
import re

import numpy as np
import pytest

import optapi
from optapi import OptimizeResult
from optapi.drivers import results
from optapi.drivers.termination import Limits


def test_it_is_a_dictionary_with_attributes():
    result = OptimizeResult(x=np.zeros(2), fun=1.0)
    assert result.fun == result["fun"] == 1.0
    result.fun = 2.0
    assert result["fun"] == 2.0
    del result.fun
    assert "fun" not in result
    with pytest.raises(AttributeError, match="'hess'; it has x"):
        _ = result.hess
    assert not hasattr(result, "hess")
    assert {"x", "keys"} <= set(dir(result))
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert type(other) is OptimizeResult
        assert np.array_equal(other.x, result.x)


def test_it_is_readable():
    text = repr(OptimizeResult(x=np.eye(2), success=True))
    assert text.splitlines() == ["      x: array([[1., 0.],", "                [0., 1.]])", "success: True"]
    assert repr(OptimizeResult()) == "OptimizeResult()"


def test_all_fields_are_always_there():
    def f(x):
        return float(np.sum(x**2))

    for options in ({}, {"max_iterations": 0}, {"target": 10.0}, {"time_limit": 0.0}):
        result = optapi.minimize(np.ones(2), f, lambda x: 2 * x, optapi.lbfgs, full_output=True, **options)
        names = ["x", "fun", "jac", "iterate", "nit", "nfev", "njev", "nhev", "status", "success", "message"]
        assert list(result)[:11] == names
        assert type(result.fun) is float
        assert type(result.status) is int
        assert type(result.success) is bool
        assert type(result.nit) is int


ENDINGS = [value for value in vars(results).values() if isinstance(value, results.Ending)]


def test_each_ending_has_a_sentence():
    facts = {"rule": "lbfgs", "cost": 1.0, "best": 1.0, "gradient": 0.5, "tolerance": 1e-5, "limit": 7}
    assert {ending.cause for ending in ENDINGS} == set(results.SENTENCES)
    assert {ending.status for ending in ENDINGS} == set(results.STATUSES) == {0, 1, 2, 3, 4, 5, 99}
    for ending in ENDINGS:
        sentence = results.sentence(ending, **facts)
        assert re.fullmatch(r"[A-Z][^{}]*\.", sentence)
    assert results.sentence(None) == "Not finished."


def limits(**keywords):
    names = ("max_iterations", "max_evaluations", "time_limit", "target", "cost_tolerance", "step_tolerance")
    return Limits.of(3, *(keywords.get(name) for name in names), keywords.get("ascent", False))


def test_limits():
    assert limits().exceeded(999, 10**9, 1e9) is None
    assert limits().exceeded(1000, 0, 0.0) is results.ITERATIONS
    assert limits(max_evaluations=5).exceeded(1, 5, 0.0) is results.EVALUATIONS
    assert limits(time_limit=2).exceeded(1, 5, 2.0) is results.TIME
    assert limits(target=1).reached(1.0) is results.TARGET
    assert limits(target=1).reached(1.1) is None
    assert limits(target=1).reached(np.nan) is None
    assert limits(target=1, ascent=True).reached(1.1) is results.TARGET
    here, there = [np.array([0.5])], [np.array([0.501])]
    assert limits().settled(1.0, 1.0, here, here) is None
    assert limits(cost_tolerance=1e-3).settled(1000.0, 999.0, here, there) is results.SAME_COST
    assert limits(cost_tolerance=1e-3).settled(1e-3, 2e-3, here, there) is results.SAME_COST
    assert limits(cost_tolerance=1e-3).settled(1.0, 1.1, here, there) is None
    assert limits(cost_tolerance=1e-3).settled(1.0, np.nan, here, there) is None
    assert limits(step_tolerance=1.1e-3).settled(1.0, 2.0, here, there) is results.SAME_POINT
    assert limits(step_tolerance=0.9e-3).settled(1.0, 2.0, here, there) is None
    assert limits(step_tolerance=0).settled(1.0, 2.0, here, there) is None


def test_what_is_better():
    down, up = limits(), limits(ascent=True)
    assert down.is_better(1.0, 2.0)
    assert not down.is_better(2.0, 1.0)
    assert up.is_better(2.0, 1.0)
    assert down.is_better(1.0, 1.0)
    for bad in (np.nan, np.inf, -np.inf):
        assert not down.is_better(bad, 1.0)
        assert not up.is_better(bad, np.nan)
        assert down.is_better(1.0, bad)
    assert down.is_better(1.0, None)
