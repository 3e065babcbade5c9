import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.graph.loops import cond, repeat


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
    run = function([x, condition], cond(pt.gt(condition, 0), lambda v: [seen(2 * v)], [x], [-1.0]))
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


@pytest.mark.parametrize("mode", [optapi.PYTHON, pytest.param("CVM", marks=pytest.mark.c)])
def test_a_turn_does_not_write_over_what_the_last_one_returned(mode):
    """In PyTensor's linker "vm" two of these scalars share a place, and a third is written over one of them."""

    def turn(x, y):
        z = pt.set_subtensor(x[0], pt.max(x))
        return [0.9 * x, pt.exp(pt.max(2 * z - 1) - y)], pt.constant(np.bool_(False))

    x, y = pt.dvector(shape=(2,)), pt.dscalar()
    _, found = repeat(turn, [x, y], 4)
    largest, expected = 0.9, 1.0
    for _ in range(4):
        largest, expected = 0.9 * largest, np.exp(2 * largest - 1 - expected)
    np.testing.assert_allclose(pytensor.function([x, y], found, mode=mode)([0.1, 0.9], 1.0), expected)


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


def test_feeds_give_each_step_its_row(compiled):
    p, x, y = pytensor.shared(np.zeros(2), name="p"), pt.dvector("x"), pt.dscalar("y")
    updates = optapi.sgd([p], (pt.dot(x, p) - y) ** 2, step_size=0.05)
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(7, 2)), rng.normal(size=7)
    step = compiled(updates, inputs=[x, y])
    for row in range(7):
        step(xs[row], ys[row])
    expected = p.get_value()

    X, Y, taken = pt.dmatrix("X"), pytensor.shared(ys), pytensor.shared(0)
    p.set_value(np.zeros(2))
    compiled(optapi.loop(updates, feeds={x: X, y: Y}, taken=taken), inputs=[X])(xs)
    np.testing.assert_allclose(p.get_value(), expected, rtol=1e-14)
    assert taken.get_value() == 7
    p.set_value(np.zeros(2))
    epochs = compiled(optapi.loop(optapi.loop(updates, 3, feeds={x: xs, y: Y}), 2))
    epochs()
    by_hand = np.zeros(2)
    for row in [0, 1, 2] * 2:
        by_hand = by_hand - 0.1 * xs[row] * (xs[row] @ by_hand - ys[row])
    np.testing.assert_allclose(p.get_value(), by_hand, rtol=1e-14)


def test_feeds_of_an_index_into_data(compiled):
    p, index, data = pytensor.shared(0.0, name="p"), pt.lscalar("index"), pytensor.shared(np.arange(5.0) ** 2)
    updates = optapi.sgd([p], gradients=[-data[index]], step_size=1.0)
    order = pt.lvector("order")
    compiled(optapi.loop(updates, feeds={index: order}), inputs=[order])([4, 0, 4, 2])
    assert p.get_value() == 36.0


def test_the_loop_ends_after_the_last_row(compiled):
    p, x = pytensor.shared(0.0, name="p"), pt.dscalar("x")
    compiled(optapi.loop({p: p + x}, 100, feeds={x: np.ones(3)}))()
    assert p.get_value() == 3.0


def test_bad_feeds():
    p, x = pytensor.shared(0.0, name="p"), pt.dscalar("x")
    updates = {p: p + x}
    for feeds, message in [
        ({x: np.ones((3, 2))}, "feeds holds .* for 'x'"),
        ({x: np.ones(3, "float32")}, "feeds holds .* for 'x'"),
        ({p: np.ones(3)}, "'p', which has an update"),
        ({pt.dscalar("z"): np.ones(3)}, "'z', which updates does not read"),
    ]:
        with pytest.raises(ValueError, match=message):
            optapi.loop(updates, 3, feeds=feeds)
    with pytest.raises(TypeError, match="steps is None"):
        optapi.loop({p: p + 1})


@pytest.mark.parametrize("steps", [0, 1, 25])
def test_trace_and_taken(steps, compiled):
    """What the outputs of a function of the updates would have been, call by call."""
    p, stop = pytensor.shared(np.array([1.0, -2.0]), name="p"), pytensor.shared(0, name="stop")
    cost = pt.sum(p**2)
    updates = optapi.sgd([p], cost, stop=stop, step_size=0.25, tolerance=1e-3)
    outputs = [cost, 2 * p, stop]
    start = p.get_value()
    step = compiled(updates, outputs=outputs)
    expected = []
    while len(expected) < steps and not stop.get_value():
        expected.append(step())
    p.set_value(start), stop.set_value(0)
    taken = pytensor.shared(-1, name="taken")
    looped, traces = optapi.loop(updates, steps, stop, trace=outputs, taken=taken)
    values = compiled(looped, outputs=traces)()
    assert taken.get_value() == len(expected) == min(steps, 13)
    for value, output, rows in zip(values, outputs, zip(*expected, strict=True) if expected else [()] * 3, strict=True):
        assert value.dtype == output.dtype
        assert value.shape == (len(expected), *np.shape(output.type.shape))[:1] + ((2,) if output.ndim else ())
        np.testing.assert_allclose(value, np.reshape(rows, value.shape), rtol=1e-14)


def test_taken_has_no_other_writer():
    p, taken = pytensor.shared(0.0), pytensor.shared(0, name="taken")
    with pytest.raises(KeyError, match="taken"):
        optapi.loop({p: p + 1, taken: taken + 1}, 3, taken=taken)
    with pytest.raises(TypeError, match="taken must be a shared integer scalar"):
        optapi.loop({p: p + 1}, 3, taken=pytensor.shared(0.0))


def test_there_is_no_gradient_through_a_loop():
    x = pt.dscalar("x")
    [value] = repeat(lambda v: ([2 * v], pt.constant(np.bool_(False))), [x], 3)
    with pytest.raises(NotImplementedError, match="gradient of a loop"):
        pytensor.grad(value, x)


def test_functions_with_loops_pickle(compiled):
    p, stop = pytensor.shared(np.array([-1.2, 1.0]), name="p"), pytensor.shared(0, name="stop")
    wide, stops = pytensor.shared(np.array([[-1.2, 1.0], [0.5, 0.5]])), pytensor.shared(np.zeros(2, "int64"))
    updates = optapi.lbfgs([p], 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2, stop=stop)
    for looped in (
        optapi.loop(updates, 99, stop),
        optapi.batch(optapi.loop(updates, 99, stop), {p: wide, stop: stops}),
    ):
        run = compiled(looped, outputs=list(looped.values()))
        again = pickle.loads(pickle.dumps(run))
        for one, other in zip(again(), run(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_stop_may_be_read_as_a_number_too():
    """What asks whether it is positive is known to be false in a loop; what reads its value is not."""
    p, stop = pytensor.shared(np.float64(0), name="p"), pytensor.shared(-3, name="stop")
    updates = {p: pt.switch(pt.gt(stop, 0), np.nan, p + stop), stop: stop + 1}
    looped = optapi.loop(updates, 99, stop)
    run = pytensor.function([], [], updates=looped, mode=optapi.PYTHON)
    for _ in range(2):
        run()
        assert (p.get_value(), stop.get_value()) == (-6.0, 1)


@pytest.mark.parametrize("place", [1, -2])
def test_a_batch_picks_and_sets_a_row_for_each_member(place):
    matrix = pytensor.shared(np.arange(6.0).reshape(3, 2), name="matrix", shape=(3, 2))
    index = pytensor.shared(np.int64(place), name="index")
    picked = pytensor.shared(np.zeros(2), name="picked", shape=(2,))
    updates = {matrix: pt.set_subtensor(matrix[index], -matrix[index]), index: index, picked: matrix[index]}
    indices = pytensor.shared(np.array([place, 0, 2, -1]), name="indices")
    wide = optapi.batch(updates, {index: indices})
    run = pytensor.function([], [], updates=wide, mode=optapi.PYTHON)
    pickle.loads(pickle.dumps(run))
    run()
    [matrices] = [v.get_value() for v in wide if v.name == "matrix"]
    [rows] = [v.get_value() for v in wide if v.name == "picked"]
    for member, i in enumerate(indices.get_value()):
        expected = np.arange(6.0).reshape(3, 2)
        np.testing.assert_array_equal(rows[member], expected[i])
        expected[i] *= -1
        np.testing.assert_array_equal(matrices[member], expected)


def test_complex_values_stay_complex_and_are_not_taken_for_real_ones():
    z, x = pt.zscalar("z"), pt.dscalar("x")
    narrow = pt.cscalar("c")
    [last] = optapi.repeat(lambda z: ([z**2], False), [z], 3)
    assert pytensor.function([z], last, mode=optapi.PYTHON)(1j + 1) == (1j + 1) ** 8
    [last] = optapi.repeat(lambda c: ([c * np.complex128(2j)], False), [narrow], 2)
    assert last.type.dtype == "complex64"
    assert pytensor.function([narrow], last, mode=optapi.PYTHON)(np.complex64(1)) == -4
    with pytest.raises(TypeError, match="real part"):
        optapi.repeat(lambda x: ([x * z], False), [x], 3)
