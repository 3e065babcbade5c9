"""Results: a dictionary with attributes, and sentences."""

import copy
import pickle
import re

import numpy as np
import pytest

import optapi
from optapi import OptimizeResult
from optapi.drivers.evaluator import Evaluation
from optapi.drivers.results import Deferred
from optapi.drivers.termination import SENTENCES, STATUSES, Ending, Termination


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


def test_each_ending_has_a_sentence():
    facts = {"rule": "lbfgs", "cost": 1.0, "best": 1.0, "gradient": 0.5, "tolerance": 1e-5}
    facts |= {"rounding": 1e-15, "why": "It may have a kink."}
    limits = {"max_evaluations": 7, "time_limit": 7, "cost_tolerance": 7, "step_tolerance": 7}
    assert set(Ending) == set(SENTENCES)
    assert {ending.status for ending in Ending} == set(STATUSES) == {0, 1, 2, 3, 4, 5, 6, 8, 99}
    for ending in Ending:
        sentence = of(**limits).explained(ending, **facts)
        assert re.fullmatch(r"[A-Z][^{}]*\.", sentence)
    # A rule may stop for another reason than the gradient.
    assert "lbfgs has finished" in of().explained(Ending.CONVERGED, **facts)
    assert "1e-05" in of().explained(Ending.CONVERGED, **{**facts, "gradient": 1e-6})


def of(**keywords):
    names = ("max_iterations", "max_evaluations", "time_limit", "target", "cost_tolerance", "step_tolerance")
    termination = Termination.of(keywords.get("ascent", False), *(keywords.get(name) for name in names))
    return termination.limited(3, gives_reason=False)


def at(cost, *point):
    return Evaluation([np.array(point or [0.5])], cost)


def cost(evaluation):
    return evaluation.cost


def test_limits():
    assert of().exceeded(999, 10**9, 1e9) is None
    assert of().exceeded(1000, 0, 0.0) is Ending.ITERATIONS
    assert of(max_evaluations=5).exceeded(1, 5, 0.0) is Ending.EVALUATIONS
    assert of(time_limit=2).exceeded(1, 5, 2.0) is Ending.TIME
    assert of(target=1).is_reached(1.0)
    assert not of(target=1).is_reached(1.1)
    assert not of(target=1).is_reached(np.nan)
    assert of(target=1, ascent=True).is_reached(1.1)
    assert [of(**keywords).needs_each_iteration for keywords in ({}, {"target": 0}, {"cost_tolerance": 0})] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("limits", "before", "after", "ending"),
    [
        ({}, 1.0, 1.0, None),
        ({"cost_tolerance": 1e-3}, 1000.0, 999.0, Ending.SAME_COST),
        ({"cost_tolerance": 1e-3}, 1e-3, 2e-3, Ending.SAME_COST),
        ({"cost_tolerance": 1e-3}, 1.0, 1.1, None),
        ({"cost_tolerance": 1e-3}, 1.0, np.nan, None),
        ({"step_tolerance": 1.1e-3}, 1.0, 2.0, Ending.SAME_POINT),
        ({"step_tolerance": 0.9e-3}, 1.0, 2.0, None),
        ({"target": 2.0, "cost_tolerance": 10.0}, 3.0, 2.0, Ending.TARGET),
    ],
)
def test_the_verdict_on_an_iteration(limits, before, after, ending):
    """The target comes first, then what the rule says, then how little has changed."""
    before, after = at(before), at(after, 0.501)
    assert of(**limits).verdict(None, before, after, cost) is ending
    said = ending if ending is Ending.TARGET else Ending.STUCK
    assert of(**limits).verdict(Ending.STUCK, before, after, cost) is said
    assert of(**limits).verdict(None, before, before, cost) is None  # it has not moved
    assert of(**limits).verdict(Ending.STUCK, before, before, cost) is Ending.STUCK


def test_a_cost_that_decides_nothing_is_not_asked_for():
    assert of(step_tolerance=1e-9).verdict(None, at(None), at(None, 0.6), None) is None


def test_what_is_better():
    down, up = of(), of(ascent=True)
    assert down.is_better(1.0, 2.0)
    assert not down.is_better(2.0, 1.0)
    assert up.is_better(2.0, 1.0)
    assert down.is_better(1.0, 1.0)
    for bad in (np.nan, np.inf, -np.inf):
        assert not down.is_better(bad, 1.0)
        assert not up.is_better(bad, np.nan)
        assert down.is_better(1.0, bad)
    assert down.is_better(1.0, None)


def test_entries_are_made_when_they_are_read():
    made = []

    def result():
        return OptimizeResult(x=1, message=Deferred(lambda: made.append(1) or "said"), fun=2.0)

    one = result()
    assert list(one) == ["x", "message", "fun"]
    assert len(one) == 3
    assert "message" in one
    assert not made
    assert one.message == one["message"] == "said"
    assert len(made) == 1
    whole = {"x": 1, "message": "said", "fun": 2.0}
    for read in (
        dict, lambda r: {**r}, copy.copy, copy.deepcopy, lambda r: r.copy(), lambda r: pickle.loads(pickle.dumps(r)),
        lambda r: r, lambda r: dict(r.items()), lambda r: {**r, "x": 1}, lambda r: r | {},
    ):  # fmt: skip
        assert read(result()) == whole
    assert list(result().values()) == list(whole.values())
    assert result().get("message") == result().pop("message") == "said"
    assert result().get("missing", 7) == 7
    assert result().setdefault("message", 3) == "said"
    assert (result() != whole) is False
    assert "said" in repr(result())
