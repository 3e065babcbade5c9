"""Rules by group."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import PYTHON, schedules


FAST = partial(optapi.adam, step_size=0.1)


def model():
    W, b, s = (pytensor.shared(v, name=n) for n, v in (("W", np.ones((2, 2))), ("b", np.ones(2)), ("s", np.array(1.0))))
    r = pt.dot(np.array([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.1]]), W) + b - s
    return [W, b, s], pt.mean(pt.sqrt(1 + (r - 2) ** 2)) + 0.1 * s**2


def after(rule, steps=15, **options):
    ps, cost = model()
    step = pytensor.function([], [], updates=rule(ps, cost, **options), mode=PYTHON)
    for _ in range(steps):
        step()
    return [p.get_value() for p in ps]


@pytest.mark.parametrize("ascent", [False, True])
def test_groups_of_one_rule_are_the_rule(ascent):
    wanted = after(FAST, ascent=ascent)
    for groups in (
        [(lambda p: True, FAST)],
        [(["W"], FAST), (["b", "s"], FAST)],
        [("s", FAST), (lambda p: p.ndim < 2, FAST), ("W", FAST)],
    ):
        found = after(optapi.partition, groups=groups, ascent=ascent)
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_groups_are_rules_on_their_own():
    slow = partial(optapi.adamw, step_size=schedules.Linear(0.01, 10), decay=0.1)
    together = after(optapi.partition, groups=[(lambda p: p.ndim == 2, optapi.muon)], otherwise=slow)
    ps, cost = model()
    updates = slow(ps[1:], cost, updates=optapi.muon(ps[:1], cost))
    step = pytensor.function([], [], updates=updates, mode=PYTHON)
    for _ in range(15):
        step()
    assert all(np.array_equal(a, p.get_value()) for a, p in zip(together, ps, strict=True))


def test_the_first_group_takes_a_parameter():
    ps, cost = model()
    updates = optapi.partition(ps, cost, groups=[(ps[0], optapi.sgd), (lambda p: True, FAST)])
    assert [v.name for v in updates if v.name.endswith("W")] == ["W"]
    assert "partition/1/adam/mean/b" in [v.name for v in updates]


def test_what_another_rule_has_saved_is_not_taken(tmp_path):
    ps, cost = model()
    optapi.save(tmp_path / "state.npz", optapi.partition(ps, cost, groups=[("W", optapi.signum)], otherwise=optapi.sgd))
    other = optapi.partition(ps, cost, groups=[("W", optapi.lion)], otherwise=optapi.sgd)
    with pytest.raises(ValueError, match="partition/0/"):
        optapi.load(tmp_path / "state.npz", other)


def test_a_step_size_is_that_of_the_rules_without_one():
    own = [("W", partial(optapi.sgd, step_size=0.5)), (["b", "s"], optapi.sgd)]
    all_ = [("W", partial(optapi.sgd, step_size=0.5)), (["b", "s"], partial(optapi.sgd, step_size=0.2))]
    first, second = after(optapi.partition, groups=own, step_size=0.2), after(optapi.partition, groups=all_)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_stop_for_all_groups():
    ps, cost = model()
    stop, groups = pytensor.shared(0), [("W", FAST)]
    updates = optapi.partition(ps, cost, stop=stop, tolerance=1e-3, groups=groups, otherwise=optapi.sgd)
    assert [v for v in updates if v.name is None] == [stop]
    step = pytensor.function([], pytensor.grad(cost, ps), updates=updates, mode=PYTHON)
    while not stop.get_value():
        sizes = [np.max(np.abs(g)) for g in step()]
    assert max(sizes) <= 1e-3


def test_in_drivers():
    ps, cost = model()
    options = {"groups": [("W", FAST)], "otherwise": partial(optapi.sgd, step_size=0.1)}
    result = optapi.compile_minimizer(ps, cost, optapi.partition, mode=PYTHON, max_iterations=15, **options)()
    assert result.nit == 15
    np.testing.assert_allclose(ps[0].get_value(), after(optapi.partition, **options)[0], rtol=1e-12)
    x = optapi.minimize(
        {"u": np.ones(2), "v": 1.0},
        lambda x: float(np.sum(x["u"] ** 2) + x["v"] ** 2),
        lambda x: {"u": 2 * x["u"], "v": 2 * x["v"]},
        optapi.partition,
        groups=[(lambda p: p.ndim == 1, optapi.sgd)],
        otherwise=FAST,
        max_iterations=200,
        cost_tolerance=None,
        full_output=True,
    ).x
    assert abs(x["v"]) < 0.05


def test_a_rule_that_reads_the_cost():
    ps, cost = model()
    optapi.partition(ps, cost, groups=[("W", optapi.polyak_sgd)], otherwise=FAST)
    with pytest.raises(ValueError, match="polyak_sgd reads the value of the cost"):
        optapi.partition(ps, gradients=pytensor.grad(cost, ps), groups=[("W", optapi.polyak_sgd)], otherwise=FAST)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([("W", FAST)], {}, "no group takes the parameters 'b', 's'; pass otherwise="),
        ([("W", FAST), (["b", "W"], FAST)], {"otherwise": FAST}, "groups lists the parameter 'W' twice"),
        ([("w", FAST)], {"otherwise": FAST}, r"groups\[0\] names 'w', which none of the parameters 'W', 'b', 's' is"),
        ([(lambda p: p.ndim > 3, FAST)], {"otherwise": FAST}, r"groups\[0\] takes no parameter"),
        ([("W", optapi.lbfgs)], {"otherwise": FAST}, "partition gives some parameters to a rule that evaluates"),
        ([("W", "adam")], {"otherwise": FAST}, r"the rule of groups\[0\] is"),
        ([(3, FAST)], {"otherwise": FAST}, r"groups\[0\] chooses by a int"),
        ([FAST], {"otherwise": FAST}, "groups has to be a list of pairs"),
        ([("W", FAST)], {"otherwise": "sgd"}, "otherwise is"),
    ],
)
def test_bad_input(groups, options, message):
    ps, cost = model()
    with pytest.raises((ValueError, TypeError), match=message):
        optapi.partition(ps, cost, groups=groups, **options)
