"""Compiled steps, and the cache of them."""

import copy
import functools
import pickle

import numpy as np
import pytensor
import pytest

import optapi
from optapi import line_search, schedules
from optapi.drivers import oracle_program
from optapi.drivers.evaluator import kinds_of
from optapi.drivers.oracle_program import Cache, Incomparable, OracleProgram, by_value


def test_values_have_the_same_key_only_if_they_mean_the_same():
    different = [
        *(None, True, False, 1, 0, 1.0, 0.0, -0.0, np.float32(1), np.float64(1), np.int64(1), "1", b"1", (1,), [1], ()),
        *(np.bool_(True), float("nan"), float("inf"), 1 + 2**-52, ((1,),), (1, 1.0)),
        *(optapi.sgd, optapi.adam, line_search.weak_wolfe, functools.partial(line_search.weak_wolfe, max_trials=3)),
        *(functools.partial(line_search.weak_wolfe, max_trials=4), functools.partial(line_search.weak_wolfe, 3)),
        *(schedules.Power(0.1), schedules.Power(0.2), schedules.Constant(0.1), schedules.Power(0.1, scale=2)),
    ]
    keys = [by_value(value) for value in different]
    assert len(set(keys)) == len(different)
    assert [by_value(copy.deepcopy(value)) for value in different] == keys


@pytest.mark.parametrize(
    "value",
    [
        lambda count: 0.1,
        pytensor.shared(0.1),
        np.array([None]),
        object(),
        (1, object()),
        schedules.Constant(pytensor.shared(0.1)),
        functools.partial(line_search.weak_wolfe, max_trials=pytensor.shared(3)),
        {"a": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_compared_has_no_key(value):
    with pytest.raises(Incomparable):
        by_value(value)
    program = OracleProgram(optapi.sgd, {"step_size": value}, kinds_of([np.zeros(2)]), None)
    assert program.key is None


def test_the_cache_keeps_the_last_ones():
    cache = Cache(size=3)
    assert cache.take("a") is None
    for key in "abca":
        cache.give(key, key + "!")
    assert cache.take("b") is None  # it waited longest among four
    assert [cache.take("a"), cache.take("a"), cache.take("a")] == ["a!", None, None] or cache.take("c")
    cache.give("c", "c!")
    cache.clear()
    assert cache.take("c") is None


def test_no_more_than_32_are_kept():
    for number in range(40):
        oracle_program.CACHE.give(("test", number), object())
    assert sum(map(len, oracle_program.CACHE._free.values())) == 32
    assert oracle_program.CACHE.take(("test", 0)) is None
    assert oracle_program.CACHE.take(("test", 39)) is not None
    oracle_program.CACHE.clear()


def test_a_step_is_taken_out_while_it_is_in_use():
    program = OracleProgram(optapi.sgd, {"step_size": 0.1}, kinds_of([np.zeros(2)]), None)
    other = OracleProgram(optapi.sgd, {"step_size": 0.1}, kinds_of([np.ones(2)]), None)
    with program.step() as first, other.step() as second:
        assert first is not second
    with program.step() as third, other.step() as fourth:
        assert {third, fourth} == {first, second}


def test_programs_are_pickled_and_copied():
    rate = pytensor.shared(0.1)
    program = OracleProgram(optapi.sgd, {"step_size": rate}, kinds_of([np.zeros((2, 3), "float32")]), None)
    assert copy.deepcopy(program).options["step_size"] is rate
    plain = OracleProgram(optapi.sgd, {"step_size": 0.1}, kinds_of([np.zeros((2, 3), "float32")]), None)
    again = pickle.loads(pickle.dumps(plain))
    assert again.key == plain.key
    assert again.kinds == kinds_of([np.zeros((2, 3), "float32")])


def test_floatX_is_part_of_the_key():
    keys = []
    for floatX in ("float32", "float64"):
        with pytensor.config.change_flags(floatX=floatX):
            keys.append(OracleProgram(optapi.sgd, {"step_size": 0.1}, kinds_of([np.zeros(2)]), None).key)
    assert keys[0] != keys[1]


def needs_residuals(parameters, cost=None, gradients=None, stop=None, updates=None, *, residuals, tolerance=None):
    raise AssertionError


def asks_for_outputs(parameters, cost=None, gradients=None, stop=None, updates=None, *, outputs=None, tolerance=None):
    raise ValueError("natural gradients need the outputs of the model; pass outputs=")


def gives_nothing(parameters, cost=None, gradients=None, stop=None, updates=None):
    return {}


def test_rules_that_need_more_say_so():
    def call(rule, **options):
        optapi.minimize(np.zeros(2), lambda x: 0.0, lambda x: x, rule, **options)

    with pytest.raises(TypeError, match=r"needs_residuals needs residuals=, an expression of PyTensor"):
        call(needs_residuals)
    with pytest.raises(TypeError, match=r"asks_for_outputs needs outputs="):
        call(asks_for_outputs)
    with pytest.raises(TypeError, match=r"needs residuals="):
        call(needs_residuals, residuals=pytensor.shared(np.zeros(3)))
    with pytest.raises(TypeError, match="returned no dictionary"):
        call(gives_nothing)
    with pytest.raises(TypeError, match="returned no dictionary"):
        call(lambda parameters, cost=None, stop=None: None)
    with pytest.raises(ValueError, match="momentum is 2"):
        call(optapi.sgd, momentum=2.0)
