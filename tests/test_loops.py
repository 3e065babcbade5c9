import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.loops import repeat, when


def function(inputs, outputs):
    return pytensor.function(inputs, outputs, mode=optapi.PYTHON, on_unused_input="ignore")


def test_repeat_until_done_or_out_of_steps():
    x, steps = pt.dvector("x"), pt.lscalar("steps")

    def body(v, count):
        return [2 * v, count + 1], pt.sum(2 * v) > 100

    run = function([x, steps], repeat(body, [x, 0], steps))
    for limit, turns in [(0, 0), (1, 1), (3, 3), (50, 6)]:
        value, count = run(np.ones(3), limit)
        np.testing.assert_array_equal(value, 2.0**turns)
        assert count == turns
        assert count.dtype == "int64"


def test_repeat_keeps_types_and_reads_what_is_outside():
    x = pt.vector("x", dtype="float32")
    total = pt.sum(x) * 1.0
    [value] = repeat(lambda v: ([v * 0.1 + pt.arange(3) + total], pt.constant(np.bool_(False))), [x], 2)
    assert value.type.dtype == "float32"
    expected = np.ones(3, "float32")
    for _ in range(2):
        expected = expected * np.float32(0.1) + np.arange(3) + 3
    np.testing.assert_allclose(function([x], value)(np.ones(3, "float32")), expected, rtol=1e-6)


def test_what_does_not_change_in_a_loop_is_computed_once():
    calls = []

    @pytensor.wrap_py(itypes=[pt.dvector], otypes=[pt.dscalar])
    def seen(x):
        calls.append(x)
        return np.asarray(x.sum())

    x = pt.dvector("x")
    outside = seen(x)
    [value] = repeat(lambda v: ([v + outside], pt.constant(np.bool_(False))), [x], 5)
    np.testing.assert_array_equal(function([x], value)(np.ones(2)), 11.0)
    assert len(calls) == 1


def test_when_computes_only_what_is_wanted():
    calls = []

    @pytensor.wrap_py(itypes=[pt.dvector], otypes=[pt.dscalar])
    def seen(x):
        calls.append(x)
        return np.asarray(x.sum())

    x, condition = pt.dvector("x"), pt.bscalar("condition")
    run = function([x, condition], when(pt.gt(condition, 0), lambda v: [seen(2 * v)], [x], [-1.0]))
    assert run(np.ones(2), 0) == [-1.0]
    assert not calls
    assert run(np.ones(2), 1) == [4.0]
    assert len(calls) == 1


def test_loops_in_loops():
    def inner(v):
        [w] = repeat(lambda w: ([w + v], pt.constant(np.bool_(False))), [v], 2)
        return [w], pt.constant(np.bool_(False))

    x = pt.dscalar("x")
    [value] = repeat(inner, [x], 3)
    assert function([x], value)(1.0) == 27.0


def test_loop_takes_a_symbolic_number_of_steps(compiled):
    p, steps = pytensor.shared(0.0, name="p"), pt.lscalar("steps")
    run = compiled(optapi.loop(optapi.sgd([p], gradients=[pt.ones_like(p)], step_size=1.0), steps), inputs=[steps])
    run(3), run(0), run(2)
    assert p.get_value() == -5.0


def test_a_negative_number_of_steps_is_none(compiled):
    p, steps = pytensor.shared(0.0, name="p"), pt.lscalar("steps")
    compiled(optapi.loop(optapi.sgd([p], gradients=[pt.ones_like(p)]), steps), inputs=[steps])(-2)
    assert p.get_value() == 0.0


def test_loop_of_a_loop(compiled):
    p = pytensor.shared(0.0, name="p")
    updates = optapi.sgd([p], gradients=[pt.ones_like(p)], step_size=1.0)
    compiled(optapi.loop(optapi.loop(updates, 3), 4))()
    assert p.get_value() == -12.0


def test_loop_on_variables_that_are_not_shared():
    x = pt.dvector("x")
    updates = optapi.loop(optapi.sgd([x], pt.sum(x**2), step_size=0.25), 3)
    np.testing.assert_allclose(function([x], updates[x])(np.ones(2)), 0.125)


def test_loop_advances_generators(compiled):
    p, rng = pytensor.shared(np.zeros(2), name="p"), pt.random.shared_rng(seed=3, name="rng")
    following, draws = rng.normal(size=(2,))
    updates = {p: p + draws, rng: following}
    compiled(optapi.loop(updates, 4))()
    twin = np.random.default_rng(3)
    np.testing.assert_allclose(p.get_value(), sum(twin.normal(size=2) for _ in range(4)), rtol=1e-14)
    assert rng.get_value().bit_generator.state == twin.bit_generator.state


def test_loop_refuses_a_generator_that_is_never_advanced():
    p, rng = pytensor.shared(np.zeros(2), name="p"), pt.random.shared_rng(seed=3, name="rng")
    _, draws = rng.normal(size=(2,))
    with pytest.raises(ValueError, match="'rng' is drawn from and never advanced"):
        optapi.loop({p: p + draws}, 4)


def test_hold(compiled):
    p, rng, held = pytensor.shared(0.0), pt.random.shared_rng(seed=1), pytensor.shared(0)
    following, draw = rng.normal()
    updates = optapi.hold(optapi.sgd([p], gradients=[draw], updates={rng: following}), held > 0)
    step = compiled(updates)
    step()
    moved = p.get_value()
    held.set_value(1)
    step()
    assert moved != 0
    assert p.get_value() == moved
    twin = np.random.default_rng(1)
    twin.normal(), twin.normal()
    assert rng.get_value().bit_generator.state == twin.bit_generator.state  # generators go on
