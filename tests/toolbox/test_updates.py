import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.updates import extend


def test_join():
    a, b = pytensor.shared(1.0, name="a"), pytensor.shared(2.0, name="b")
    first, second = {a: a + 1}, {b: b + 1}
    assert optapi.join(first, second) == {**first, **second}
    assert len(first) == len(second) == 1
    with pytest.raises(KeyError, match="'a' already has an update"):
        optapi.join(first, second, {a: a})
    with pytest.raises(TypeError, match="None"):
        optapi.join(first, None)


def test_state_variables_of_the_same_name_are_refused():
    p, q = pytensor.shared(1.0, name="p"), pytensor.shared(1.0, name="q")
    first, second = optapi.adam([p], p**2), optapi.adam([q], q**2)
    with pytest.raises(ValueError, match=r"'adam/count'; pass name="):
        optapi.join(first, second)
    before = dict(first)
    with pytest.raises(ValueError, match=r"'adam/count'; pass name="):
        extend(first, second)
    assert first == before
    updates = optapi.lookahead(first, [p])
    with pytest.raises(ValueError, match=r"'lookahead/count'; pass name="):
        optapi.lookahead(updates, [p])
    assert len(optapi.lookahead(updates, [p], name="outer")) == len(updates) + 2
    with pytest.raises(ValueError, match=r"'adam/count'; pass name="):
        optapi.batch({**first, **second}, {p: pytensor.shared(np.ones(2))})


def test_variables_of_the_user_may_have_the_same_name():
    p, q, r, s = (pytensor.shared(1.0, name=name) for name in ("p", "p", None, None))
    assert len(optapi.join(optapi.sgd([p], p**2), {q: q, r: r, s: s})) == 4
    named_as_state = pytensor.shared(1, name="adam/count")
    assert named_as_state in optapi.join(optapi.adam([p], p**2), {named_as_state: named_as_state + 1})


def test_reports_of_joined_and_transformed_updates():
    p, q = (pytensor.shared(np.ones(2), name=n) for n in "pq")
    s, t = pytensor.shared(0), pytensor.shared(0)
    first = optapi.lbfgs([p], pt.sum(p**2), stop=s, name="one")
    second = optapi.lbfgs([q], pt.sum(q**2), stop=t, name="two")
    reports = optapi.reports(optapi.join(first, second))
    assert {role: [v.name for v in found] for role, found in reports.items()} == {
        role: [f"one/{role}", f"two/{role}"] for role in ("reason", "evaluations", "cost", "gradient_size")
    }
    assert optapi.reports(optapi.loop(first, 3, s)) == optapi.reports(first)
    wide = optapi.batch(first, {p: pytensor.shared(np.ones((4, 2)))})
    shapes = {role: found[0].get_value().shape for role, found in optapi.reports(wide).items()}
    assert shapes == dict.fromkeys(reports, (4,))


def test_a_rule_reports_only_when_it_is_given_a_stop():
    p = pytensor.shared(np.ones(2))
    assert optapi.reports(optapi.lbfgs([p], pt.sum(p**2))) == {}
    assert optapi.reports(optapi.sgd([p], pt.sum(p**2), stop=pytensor.shared(0))) == {}


def test_join_takes_dictionaries():
    with pytest.raises(TypeError, match="an argument of join is a list"):
        optapi.join([{}, {}])
