import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


def test_members_stop_on_their_own_and_loop_until_the_last(compiled):
    p, stop = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(0, name="stop")
    cost = pt.sum((p - 1) ** 2)
    updates = optapi.sgd([p], cost, stop=stop, step_size=0.25, tolerance=1e-3)
    starts = np.array([[1.0, 1.0], [2.0, 2.0], [100.0, 0.0]])
    wide, stops = pytensor.shared(starts.copy()), pytensor.shared(np.zeros(3, "int64"))
    counted, turns = optapi.batch(updates, {p: wide, stop: stops}), pytensor.shared(0)
    compiled(optapi.loop(optapi.join(counted, {turns: turns + 1}), 1000, stops))()
    np.testing.assert_array_equal(stops.get_value(), 1)
    np.testing.assert_array_equal(wide.get_value()[0], 1.0)
    error = np.abs(starts - 1)
    halvings = np.ceil(np.log2(np.maximum(error.max(axis=1), 5e-4) / 5e-4))
    np.testing.assert_allclose(np.abs(wide.get_value() - 1), error / 2 ** halvings[:, None], rtol=1e-9)
    assert turns.get_value() == halvings.max() + 1


def test_generators_and_data_are_shared(compiled):
    p, rng = pytensor.shared(np.zeros(2), name="p"), pt.random.shared_rng(seed=4, name="rng")
    data, calls = pytensor.shared(np.array([1.0, 2.0])), pytensor.shared(0)
    following, draws = rng.normal(size=(2,))
    updates = {p: p + draws * data, rng: following, calls: calls * 0 + 7}
    wide = pytensor.shared(np.zeros((3, 2)))
    together = optapi.batch(updates, {p: wide})
    compiled(together)()
    expected = np.random.default_rng(4).normal(size=2) * [1.0, 2.0]
    np.testing.assert_allclose(wide.get_value(), [expected] * 3, rtol=1e-15)
    assert rng in together
    [wide_calls] = [v for v in together if v not in (wide, rng)]
    np.testing.assert_array_equal(wide_calls.get_value(), [7, 7, 7])


def test_state_begins_at_its_present_value(compiled):
    p = pytensor.shared(np.ones(2), name="p")
    updates = optapi.adam([p], pt.sum(p**2))
    step = compiled(updates)
    for _ in range(3):
        step()
    wide = pytensor.shared(np.stack([p.get_value()] * 4))
    together = optapi.batch(updates, {p: wide})
    compiled(together)()
    step()
    np.testing.assert_allclose(wide.get_value(), [p.get_value()] * 4, rtol=1e-14)


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.lbfgs])
def test_a_declared_extent_of_1_broadcasts_in_a_batch_too(rule, compiled):
    p = pytensor.shared(np.zeros((3, 1)), name="p", shape=(3, 1))
    wide = pytensor.shared(np.zeros((2, 3, 1)))
    updates = rule([p], pt.sum((p - 2 * np.ones((3, 4))) ** 2), step_size=0.125)
    step = compiled(optapi.batch(updates, {p: wide}))
    step(), step()
    np.testing.assert_allclose(wide.get_value(), 2.0)


def test_one_variable_does_not_stand_for_two():
    p, q = pytensor.shared(np.ones(2), name="p"), pytensor.shared(np.ones(2), name="q")
    wide = pytensor.shared(np.ones((3, 2)))
    with pytest.raises(KeyError):
        optapi.batch(optapi.sgd([p, q], pt.sum(p * q)), {p: wide, q: wide})


def test_a_batch_of_a_loop_that_draws(compiled):
    """All members see the same draws, as long as they go on."""
    p, rng, stop = pytensor.shared(0.0, name="p"), pt.random.shared_rng(seed=4, name="rng"), pytensor.shared(0)
    following, draw = rng.uniform()
    moved = pt.switch(stop > 0, p, p + draw)
    updates = {p: moved, rng: following, stop: pt.cast(moved > 2, "int64")}
    starts = np.array([0.0, 1.5, -20.0, 3.0])
    wide, stops = pytensor.shared(starts.copy()), pytensor.shared(np.array([0, 0, 0, 1]))
    compiled(optapi.batch(optapi.loop(updates, 9, stop), {p: wide, stop: stops}))()
    twin = np.random.default_rng(4)
    path = np.cumsum([0, *(twin.uniform() for _ in range(9))])
    expected = [start + path[min(9, np.argmax(start + path > 2) or 9)] for start in starts[:3]]
    np.testing.assert_allclose(wide.get_value(), [*expected, 3.0], rtol=1e-14)
    np.testing.assert_array_equal(stops.get_value(), [1, 1, 0, 1])
    assert rng.get_value().bit_generator.state == twin.bit_generator.state


def test_a_batch_of_a_loop_with_a_number_of_steps_for_each_member(compiled):
    p, steps = pytensor.shared(0.0, name="p"), pytensor.shared(0, name="steps")
    updates = optapi.loop({p: p + 1, steps: steps}, steps)
    wide, each = pytensor.shared(np.zeros(4)), pytensor.shared(np.array([0, 3, -2, 7]))
    compiled(optapi.batch(updates, {p: wide, steps: each}))()
    np.testing.assert_array_equal(wide.get_value(), [0, 3, 0, 7])


def test_a_batch_of_one(compiled):
    p, wide = pytensor.shared(2.0, name="p"), pytensor.shared(np.array([2.0]))
    compiled(optapi.batch(optapi.sgd([p], p**2, step_size=0.25), {p: wide}))()
    np.testing.assert_array_equal(wide.get_value(), [1.0])


@pytest.mark.parametrize("rule", [optapi.bfgs, optapi.lbfgs, optapi.sr1])
def test_inverse_hessians_of_a_batch_are_those_of_single_runs(rule, compiled):
    starts, scales, v = np.array([[1.0, -2.0], [0.5, 3.0], [4.0, 4.0]]), np.array([1.0, 5.0]), np.array([0.3, -2.0])

    def run(p):
        updates = rule([p], pt.sum(scales * pt.cosh(p)))
        return updates, compiled(updates)

    singles = []
    for start in starts:
        updates, step = run(pytensor.shared(start))
        for _ in range(4):
            step()
        singles.append(optapi.inverse_hessian(updates))
    p, wide = pytensor.shared(np.zeros(2)), pytensor.shared(starts.copy())
    together = optapi.batch(run(p)[0], {p: wide})
    step = compiled(together)
    for _ in range(4):
        step()
    found = optapi.inverse_hessian(together)
    if isinstance(singles[0], np.ndarray):
        assert isinstance(found, np.ndarray) and found.shape == (3, 2, 2)
    assert len(found) == 3 and not np.allclose(singles[0] @ v, singles[1] @ v)
    for matrix, single in zip(found, singles, strict=True):
        np.testing.assert_allclose(matrix @ v, single @ v, rtol=1e-10)
    assert optapi.inverse_hessian(optapi.batch(optapi.adam([p], pt.sum(p**2)), {p: wide})) is None


def test_what_takes_a_place_has_the_notes_of_what_was_there():
    """Also where the wide variable is the caller's."""
    p, stop = pytensor.shared(np.ones(2), name="p"), pytensor.shared(0, name="stop")
    updates = optapi.bfgs([p], pt.sum(p**2), stop=stop)
    [H] = [v for v in updates if v.name == "bfgs/inverse_hessian"]
    wide, matrices = pytensor.shared(np.ones((3, 2))), pytensor.shared(np.stack([np.eye(2)] * 3))
    together = optapi.batch(updates, {p: wide, H: matrices})
    assert optapi.inverse_hessian(together).shape == (3, 2, 2)
    assert optapi.reports(together).keys() == optapi.reports(updates).keys()
