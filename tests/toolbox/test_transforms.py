"""Transforms of updates and of gradients, against what they do written out in NumPy."""

import re

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import ancestors

import optapi
from optapi import gradients, schedules


START = np.array([3.0, -2.0, 0.5])


def parameter(value=START, name="p", dtype="float64"):
    return pytensor.shared(np.asarray(value, dtype), name=name)


def quadratic(p):
    return pt.sum(np.array([1.0, 4.0, 9.0], p.type.dtype) * (p - 1) ** 2) / 2


def slope(x):
    return np.array([1.0, 4.0, 9.0]) * (x - 1)


def height(x):
    return np.sum(np.array([1.0, 4.0, 9.0]) * (x - 1) ** 2) / 2


def run(updates, *watched, calls, inputs=(), given=None):
    """The values of `watched` after each call."""
    step = pytensor.function(list(inputs), [], updates=updates, mode=optapi.PYTHON)
    seen = []
    for call in range(calls):
        step(*(() if given is None else given[call]))
        seen.append([v.get_value() for v in watched])
    return [np.array(values) for values in zip(*seen, strict=True)]


# Accumulation


def classifier():
    """A weight matrix and a bias, with their gradients of a mean over examples."""
    w, b = parameter(np.full((3, 2), 0.3), "w"), parameter(np.zeros(2), "b")
    x, y = pt.dmatrix("x"), pt.dmatrix("y")
    cost = pt.mean((pt.tanh(x @ w + b) - y) ** 2)
    return [w, b], [x, y], pytensor.grad(cost, [w, b])


RULES = {
    "adam": lambda ps, gs: optapi.adam(ps, gradients=gs, step_size=0.1),
    "momentum": lambda ps, gs: optapi.sgd(ps, gradients=gs, step_size=0.1, momentum=0.9),
    "decay": lambda ps, gs: optapi.adam(ps, gradients=gradients.decay(gs, ps, 0.1)),
    "clipped": lambda ps, gs: optapi.sgd(ps, gradients=gradients.clip_global_norm(gs, 0.1), momentum=0.5),
    "schedule": lambda ps, gs: optapi.sgd(ps, gradients=gs, step_size=schedules.Power(0.5)),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_accumulated_steps_are_those_of_a_large_batch(rule):
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(12, 5, 3)), rng.normal(size=(12, 5, 2))

    parameters, inputs, gs = classifier()
    updates = {}
    means, due = optapi.accumulate(gs, 4, updates, parameters)
    updates = optapi.join(updates, optapi.hold(rule(parameters, means), ~due))
    small = run(updates, *parameters, calls=12, inputs=inputs, given=list(zip(xs, ys, strict=True)))

    parameters, inputs, gs = classifier()
    batches = list(zip(xs.reshape(3, 20, 3), ys.reshape(3, 20, 2), strict=True))
    large = run(rule(parameters, gs), *parameters, calls=3, inputs=inputs, given=batches)
    for few, many in zip(large, small, strict=True):
        np.testing.assert_allclose(many[3::4], few, rtol=1e-12)
        for wait in range(3):
            np.testing.assert_array_equal(many[4 + wait :: 4], many[3:-4:4])  # nothing moves in between


def test_accumulate_says_when_it_is_due_and_forgets(compiled):
    g, updates = pt.tensor("g", shape=(2,), dtype="float32"), {}
    [mean], due = optapi.accumulate([g], 3, updates)
    assert mean.type.dtype == "float32"
    assert gradients.is_transformed(mean)
    step = compiled(updates, inputs=[g], outputs=[mean, due])
    values = np.array([[1, 2], [np.nan, 0], [1, 1], [3, 3], [6, 9], [0, 3]], "float32")
    outcomes = [step(value) for value in values]
    assert [bool(is_due) for _, is_due in outcomes] == [False, False, True] * 2
    np.testing.assert_array_equal(outcomes[5][0], [3.0, 5.0])


def test_accumulate_needs_shapes():
    p, updates = parameter(), {}
    with pytest.raises(TypeError, match=re.escape("the shape of gradients[0] is not known; pass parameters=")):
        optapi.accumulate([2 * p], 4, updates)
    with pytest.raises(ValueError, match="gradients has 1 entries for 2"):
        optapi.accumulate([2 * p], 4, updates, [p, parameter()])
    with pytest.raises(TypeError, match="updates is None"):
        optapi.accumulate([2 * p], 4, None, [p])
    with pytest.raises(ValueError, match="every is 0"):
        optapi.accumulate([2 * p], 0, updates, [p])
    assert updates == {}


# Noise


def test_noise_has_the_variance_of_its_schedule(compiled):
    p, updates = parameter(np.zeros(20000)), {}
    [noisy] = optapi.noise([p + 3.0], updates, rng=1)
    assert gradients.is_transformed(noisy)
    step = compiled(updates, outputs=[noisy])
    for t in range(4):
        [value] = step()
        np.testing.assert_allclose(value.mean(), 3.0, atol=5e-3)
        np.testing.assert_allclose(value.var(), 0.01 / (1 + t) ** 0.55, rtol=0.05)
        assert abs(np.corrcoef(value[1:], value[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_noise_is_that_of_the_generator(dtype, floatx):
    with pytensor.config.change_flags(floatX=floatx):
        p, q, updates = parameter(dtype=dtype), parameter(1.0, "q", dtype), {}
        gs = [p * 0, q * 0]
        noisy = optapi.noise(gs, updates, rng=pt.random.shared_rng(np.random.default_rng(3)), variance=0.25)
        assert [g.type.dtype for g in noisy] == [dtype, dtype]
        assert len(updates) == 1  # no count without a schedule
        rng = np.random.default_rng(3)
        step = pytensor.function([], noisy, updates=updates, mode=optapi.PYTHON)
        for _ in range(2):
            for value, expected in zip(step(), [rng.normal(size=3), rng.normal()], strict=True):
                np.testing.assert_allclose(value, 0.5 * expected, rtol=1e-6 if dtype == "float32" else 1e-15)


def test_noise_of_variance_0_and_in_a_rule_loop_and_batch():
    p = parameter()
    updates = {}
    noisy = optapi.noise(pytensor.grad(quadratic(p), [p]), updates, rng=1, variance=0.0)
    optapi.sgd([p], gradients=noisy, step_size=0.1, updates=updates)
    [[x]] = run(updates, p, calls=1)
    np.testing.assert_array_equal(x, START - 0.1 * slope(START))

    p, updates = parameter(), {}
    noisy = optapi.noise(pytensor.grad(quadratic(p), [p]), updates, rng=1)
    optapi.sgd([p], gradients=noisy, step_size=0.1, updates=updates)
    [steps] = run(updates, p, calls=3)
    p, updates = parameter(), {}
    noisy = optapi.noise(pytensor.grad(quadratic(p), [p]), updates, rng=1)
    optapi.sgd([p], gradients=noisy, step_size=0.1, updates=updates)
    [[looped]] = run(optapi.loop(updates, 3), p, calls=1)
    np.testing.assert_allclose(looped, steps[-1], rtol=1e-15)

    wide = pytensor.shared(np.stack([START, START]))
    [values] = run(optapi.batch(updates, {p: wide}), wide, calls=1)
    assert not np.any(values[0][0] == values[0][1])  # each member has draws of its own


def test_noise_refuses():
    rng = pt.random.shared_rng(seed=1, name="rng")
    p = parameter()
    updates = {rng: rng.normal()[0]}
    with pytest.raises(KeyError, match="'rng' already has an update"):
        optapi.noise([p], updates, rng=rng)
    assert list(updates) == [rng]
    for bad in (None, True, 1.5, p):
        with pytest.raises(TypeError, match="rng is"):
            optapi.noise([p], updates, rng=bad)
    with pytest.raises(ValueError, match="variance is -1"):
        optapi.noise([p], {}, rng=1, variance=-1.0)
    with pytest.raises(TypeError, match="updates is None"):
        optapi.noise([p], None, rng=1)


# Lookahead


@pytest.mark.parametrize("every, weight", [(1, 0.5), (3, 0.5), (3, 0.8)])
def test_lookahead(every, weight):
    p, q = parameter(), parameter(2.0, "q")
    updates = optapi.sgd([p, q], quadratic(p) + q**2, step_size=0.05)
    [ps, qs] = run(optapi.lookahead(updates, [p, q], every, weight), p, q, calls=10)
    x, y = START, 2.0
    slow = x, y
    for t in range(10):
        x, y = x - 0.05 * slope(x), y - 0.05 * 2 * y
        if (t + 1) % every == 0:
            x, y = slow = slow[0] + weight * (x - slow[0]), slow[1] + weight * (y - slow[1])
        np.testing.assert_allclose(ps[t], x, rtol=1e-13)
        np.testing.assert_allclose(qs[t], y, rtol=1e-13)


def test_lookahead_of_weight_1_is_its_rule():
    p, q = parameter(), parameter()
    [plain] = run(optapi.adam([p], quadratic(p), step_size=0.1), p, calls=12)
    [ahead] = run(optapi.lookahead(optapi.adam([q], quadratic(q), step_size=0.1), [q], weight=1.0), q, calls=12)
    np.testing.assert_array_equal(plain, ahead)


def test_lookahead_of_every_call_is_a_smaller_step():
    p, q = parameter(), parameter()
    [small] = run(optapi.sgd([p], quadratic(p), step_size=0.025), p, calls=12)
    [ahead] = run(optapi.lookahead(optapi.sgd([q], quadratic(q), step_size=0.1), [q], 1, 0.25), q, calls=12)
    np.testing.assert_allclose(small, ahead, rtol=1e-13)


def test_lookahead_begins_where_the_parameters_are_at_the_first_call():
    p = parameter()
    updates = optapi.lookahead(optapi.sgd([p], quadratic(p), step_size=0.1), [p], every=2)
    wide = pytensor.shared(np.stack([START, START + 1]))
    together = run(optapi.batch(updates, {p: wide}), wide, calls=4)[0]
    p.set_value(START + 1)
    [alone] = run(updates, p, calls=4)
    np.testing.assert_allclose(together[:, 1], alone, rtol=1e-14)


def test_lookahead_leaves_a_rule_that_has_stopped_or_is_held(compiled):
    p, stop = parameter(), pytensor.shared(0)
    updates = optapi.sgd([p], quadratic(p), step_size=0.1, stop=stop)
    ahead = optapi.lookahead(updates, [p], every=3)
    step = compiled(ahead)
    step()
    stop.set_value(1)
    before = [v.get_value() for v in ahead]
    for _ in range(3):
        step()
    assert all(np.array_equal(x, v.get_value()) for x, v in zip(before, ahead, strict=True))


# The best point


def test_best_keeps_the_point_of_the_lowest_finite_cost(compiled):
    p, kept, cost = parameter(0.0), parameter(99.0, "kept"), pt.dscalar()
    updates = optapi.best(optapi.sgd([p], gradients=[pt.constant(-1.0)], step_size=1.0), cost, {p: kept})
    [lowest] = optapi.reports(updates)["best_cost"]
    step = compiled(updates, inputs=[cost])
    costs = [np.nan, np.inf, 5.0, 7.0, -np.inf, 3.0, 3.0, np.nan, 4.0]
    expected = [99.0, 99.0, 2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 5.0]
    for value, point in zip(costs, expected, strict=True):
        step(value)
        assert kept.get_value() == point
    assert lowest.get_value() == 3.0


# Step sizes that follow the cost


def plateau_twin(costs, factor, patience, improvement, cooldown, minimum):
    """What ``optax.contrib.reduce_on_plateau`` says it does."""
    size, lowest, waited, cooling, sizes = 1.0, np.inf, 0, 0, []
    for cost in costs:
        if np.isfinite(cost) and (lowest == np.inf or cost < lowest - improvement * abs(lowest)):
            lowest, waited = cost, 0
        else:
            waited += 1
        if cooling:
            cooling, waited = cooling - 1, 0
        elif waited == patience:
            size, waited, cooling = max(size * factor, minimum), 0, cooldown
        sizes.append(size)
    return sizes


@pytest.mark.parametrize("cooldown", [0, 1, 3])
@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reduce_on_plateau(dtype, patience, cooldown, compiled):
    size, cost = pytensor.shared(np.asarray(1.0, dtype)), pt.scalar(dtype=dtype)
    updates = optapi.reduce_on_plateau(
        size, cost, factor=0.5, patience=patience, improvement=0.01, cooldown=cooldown, minimum=0.1
    )
    assert len(updates) == 3 + (cooldown > 0)
    step = compiled(updates, inputs=[cost])
    costs = np.random.default_rng(patience).normal(size=60).astype(dtype)
    costs[[0, 7, 20]] = np.nan, np.inf, -np.inf
    sizes = []
    for value in costs:
        step(value)
        sizes.append(float(size.get_value()))
    np.testing.assert_allclose(sizes, plateau_twin(costs, 0.5, patience, 0.01, cooldown, 0.1), rtol=1e-7)
    assert min(sizes) == np.asarray(0.1, dtype)


def test_reduce_on_plateau_of_a_cost_below_zero_and_a_size_below_the_minimum(compiled):
    size, cost = pytensor.shared(1.0), pt.dscalar()
    step = compiled(optapi.reduce_on_plateau(size, cost, patience=1, improvement=0.1), inputs=[cost])
    for value, expected in [(-10.0, 1.0), (-10.5, 0.1), (-11.5, 0.1), (-11.5, 0.01)]:
        step(value)
        np.testing.assert_allclose(size.get_value(), expected)
    size = pytensor.shared(0.5)
    step = compiled(optapi.reduce_on_plateau(size, cost, patience=1, minimum=2.0), inputs=[cost])
    step(1.0)
    step(1.0)
    assert size.get_value() == 0.5


def test_a_step_size_by_plateau_serves_its_rule():
    p, size = parameter(name="p"), pytensor.shared(0.3, name="size")  # too large: it swings out along the last axis
    updates = optapi.sgd([p], quadratic(p), step_size=size)
    optapi.reduce_on_plateau(size, quadratic(p), updates, factor=0.5, patience=2)
    [points] = run(optapi.loop(updates, 300), p, calls=1)
    np.testing.assert_allclose(points[0], 1.0, rtol=1e-6)


def driver_twin(x, size, calls, beta):
    """The bold driver, with heavy-ball momentum that is put back too."""
    velocity, last, kept, seen = np.zeros(3), np.inf, None, []
    for _ in range(calls):
        cost = height(x)
        if np.isfinite(last) and not cost <= last:
            size *= 0.5
            x, velocity = kept
        else:
            size *= 1.05 if np.isfinite(last) and cost < last else 1.0
            last, kept = cost, (x, velocity)
            velocity = beta * velocity + slope(x)
            x = x - size * velocity
        seen.append((x, size))
    return [np.array(values) for values in zip(*seen, strict=True)]


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_bold_driver(beta):
    p, size = parameter(), pytensor.shared(0.15)
    updates = optapi.sgd([p], quadratic(p), step_size=size, momentum=beta)
    [points, sizes] = run(optapi.bold_driver(updates, size, quadratic(p)), p, size, calls=100)
    expected_points, expected_sizes = driver_twin(START, 0.15, 100, beta)
    assert np.any(np.diff(sizes) < 0)
    assert np.any(np.diff(sizes) > 0)
    np.testing.assert_allclose(sizes, expected_sizes, rtol=1e-12)
    np.testing.assert_allclose(points - 1, expected_points - 1, rtol=1e-6, atol=1e-12)


def test_bold_driver_undoes_a_step_to_where_the_cost_is_not_finite():
    p, size = parameter(1.0), pytensor.shared(8.0)
    cost = p - pt.log(p)  # the first step leaves its domain
    p.set_value(1.5)
    updates = optapi.bold_driver(optapi.sgd([p], cost, step_size=size), size, cost)
    [points, sizes] = run(updates, p, size, calls=40)
    assert points[0] < 0
    assert points[1] == 1.5
    assert sizes[1] == 4.0
    np.testing.assert_allclose(points[-1], 1.0, rtol=1e-2)


def test_bold_driver_refuses():
    p, size = parameter(), pytensor.shared(0.1, name="size")
    updates = optapi.sgd([p], quadratic(p), step_size=size)
    with pytest.raises(ValueError, match="updates do not read step_size"):
        optapi.bold_driver(optapi.sgd([p], quadratic(p)), size, quadratic(p))
    with pytest.raises(KeyError, match="'size' already has an update"):
        optapi.bold_driver({**updates, size: size}, size, quadratic(p))
    with pytest.raises(ValueError, match="grow is 0"):
        optapi.bold_driver(updates, size, quadratic(p), grow=0.9)
    for bad in (0.1, pytensor.shared(1), pytensor.shared(np.ones(2)), pt.dscalar()):
        for driver in (lambda s: optapi.bold_driver(updates, s, quadratic(p)),
                       lambda s: optapi.reduce_on_plateau(s, quadratic(p))):  # fmt: skip
            with pytest.raises(TypeError, match="step_size must be a shared floating-point scalar"):
                driver(bad)


# All of them


def all_of_them(dtype="float64"):
    """Every transform at once, and the parameters."""
    p, q = parameter(dtype=dtype), parameter(2.0, "q", dtype)
    kept, size = parameter(dtype=dtype, name="kept"), pytensor.shared(np.asarray(0.01, dtype), name="size")
    cost = quadratic(p) + q**2
    updates = {}
    noisy = optapi.noise(pytensor.grad(cost, [p, q]), updates, rng=1)
    means, due = optapi.accumulate(noisy, 2, updates, [p, q])
    rule = optapi.adam([p, q], gradients=means, step_size=size)
    ahead = optapi.lookahead(optapi.hold(rule, ~due), [p, q], every=2)
    updates = optapi.best(optapi.join(updates, ahead), cost, {p: kept})
    return optapi.reduce_on_plateau(size, cost, updates, patience=2, cooldown=1), [p, q, kept, size]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types_are_kept_and_a_loop_is_its_steps(dtype):
    updates, watched = all_of_them(dtype)
    for variable, value in updates.items():
        assert value.type.dtype == variable.type.dtype if hasattr(value.type, "dtype") else True
        assert value.type.is_super(variable.type) or variable.type.is_super(value.type)
    stepped = [values[-1] for values in run(updates, *watched, calls=10)]
    updates, watched = all_of_them(dtype)
    looped = [values[-1] for values in run(optapi.loop(updates, 10), *watched, calls=1)]
    for one, other in zip(stepped, looped, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=1e-14 if dtype == "float64" else 1e-6)
    assert not np.array_equal(stepped[0], START)


@pytest.mark.filterwarnings("default")  # building for a compiled backend warns of what PyTensor itself does there
@pytest.mark.parametrize(
    "mode", [pytest.param("NUMBA", marks=pytest.mark.numba), pytest.param("CVM", marks=pytest.mark.c)]
)
def test_backends(mode):
    outcomes = []
    for each in (mode, optapi.PYTHON):
        updates, watched = all_of_them()
        q, size = parameter(name="driven"), pytensor.shared(0.2)
        driven = optapi.bold_driver(optapi.sgd([q], quadratic(q), step_size=size), size, quadratic(q))
        step = pytensor.function([], [], updates=optapi.join(updates, driven), mode=each)
        for _ in range(10):
            step()
        outcomes.append([v.get_value() for v in (*watched, q, size)])
    for one, other in zip(*outcomes, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_driven_loop_is_its_steps():
    outcomes = []
    for calls, steps in ((1, 20), (20, 1)):
        p, size = parameter(dtype="float32"), pytensor.shared(np.float32(0.2), name="size")
        updates = optapi.bold_driver(optapi.adam([p], quadratic(p), step_size=size), size, quadratic(p))
        assert all(value.type.dtype == variable.type.dtype for variable, value in updates.items())
        outcomes.append(run(optapi.loop(updates, steps), p, size, calls=calls)[0][-1])
    np.testing.assert_allclose(*outcomes, rtol=1e-6)


def test_state_is_named_saved_and_loaded(tmp_path):
    updates, watched = all_of_them()
    run(updates, *watched, calls=5)
    optapi.save(tmp_path / "file", updates)
    with np.load(tmp_path / "file") as file:
        assert {name.strip("/").removeprefix("values/") for name in file.files} == {
            *("description", "checksum", "p", "q", "kept", "size", "noise/rng", "noise/count", "best/best_cost"),
            *("accumulate/count", "accumulate/sum/p", "accumulate/sum/q"),
            *("adam/count", "adam/mean/p", "adam/mean/q", "adam/mean_square/p", "adam/mean_square/q"),
            *("lookahead/count", "lookahead/slow/p", "lookahead/slow/q"),
            *(f"reduce_on_plateau/{role}" for role in ("best_cost", "waited", "cooling")),
        }
    expected = run(updates, *watched, calls=5)
    others, watched = all_of_them()
    optapi.load(tmp_path / "file", others)
    for one, other in zip(expected, run(others, *watched, calls=5), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("transform", [
    lambda u, p: optapi.lookahead(u, [p]),
    lambda u, p: optapi.best(u, quadratic(p), {p: parameter(name="kept")}),
], ids=["lookahead", "best"])  # fmt: skip
def test_the_dictionary_given_is_left_as_it_is(transform):
    p = parameter()
    updates = optapi.sgd([p], quadratic(p))
    before = dict(updates)
    transform(updates, p)
    assert updates == before


def test_refused():
    p, other = parameter(), parameter(name="other")
    updates = optapi.sgd([p], quadratic(p))
    with pytest.raises(ValueError, match="parameters names the variable 'other'"):
        optapi.lookahead(updates, [other])
    with pytest.raises(ValueError, match="weight is 1"):
        optapi.lookahead(updates, [p], weight=1.5)
    with pytest.raises(ValueError, match="points names the variable 'other'"):
        optapi.best(updates, quadratic(p), {other: p})
    with pytest.raises(KeyError, match="'p' already has an update"):
        optapi.best(updates, quadratic(p), {p: p})
    with pytest.raises(ValueError, match="cost has 1 dimensions"):
        optapi.best(updates, p, {p: other})
    size = pytensor.shared(0.1, name="size")
    taken = {size: size}
    with pytest.raises(KeyError, match="'size' already has an update"):
        optapi.reduce_on_plateau(size, quadratic(p), taken)
    assert taken == {size: size}
    with pytest.raises(ValueError, match="patience is 0"):
        optapi.reduce_on_plateau(size, quadratic(p), patience=0)


def test_best_keeps_no_two_parameters_in_one_variable():
    p, q = pytensor.shared(1.0, name="p"), pytensor.shared(2.0, name="q")
    kept = pytensor.shared(0.0, name="kept")
    with pytest.raises(KeyError, match="kept"):
        optapi.best(optapi.sgd([p, q], p**2 + q**2), p**2 + q**2, {p: kept, q: kept})


def test_skip_nonfinite_changes_nothing_and_counts(compiled):
    p, scale, rng = pytensor.shared(np.ones(3)), pytensor.shared(1.0), pt.random.shared_rng(seed=1)
    following, draw = rng.normal()
    updates = optapi.adam([p], scale * pt.sum(p**2 + 1e-9 * draw * p), updates={rng: following})
    guarded = optapi.skip_nonfinite(updates)
    [skipped] = optapi.reports(guarded)["skipped"]
    step = compiled(guarded)
    step()
    before = [v.get_value() for v in updates if v is not rng]
    draws = rng.get_value().bit_generator.state["state"]
    for bad in (np.nan, np.inf):
        scale.set_value(bad)
        step()
    assert all(
        np.array_equal(x, v.get_value()) for x, v in zip(before, [v for v in updates if v is not rng], strict=True)
    )
    assert skipped.get_value() == 2
    assert rng.get_value().bit_generator.state["state"] != draws
    scale.set_value(1.0)
    step()
    assert skipped.get_value() == 2
    assert not any(np.array_equal(p.get_value(), x) for x in before)


def test_skip_nonfinite_leaves_the_dictionary_it_is_given():
    p = pytensor.shared(1.0)
    updates = optapi.sgd([p], p**2)
    before = dict(updates)
    optapi.skip_nonfinite(updates)
    assert updates == before


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.adam])
def test_project_onto_bounds(rule, compiled):
    p, stop = pytensor.shared(np.array([0.5, 0.5])), pytensor.shared(0)
    cost = pt.sum((p - np.array([2.0, 0.25])) ** 2)
    updates = optapi.project(rule([p], cost, stop=stop, step_size=0.1), {p: lambda value: value.clip(0, 1)})
    step = compiled(updates)
    for _ in range(60):
        step()
        assert np.all((p.get_value() >= 0) & (p.get_value() <= 1))
    np.testing.assert_allclose(p.get_value(), [1.0, 0.25], atol=0.02)
    stop.set_value(1)
    p.set_value(np.array([3.0, 3.0]))
    step()
    np.testing.assert_array_equal(p.get_value(), 3.0)  # the rule leaves it, so the projection does


def test_project_refuses_a_rule_that_judges_its_own_points():
    p = pytensor.shared(np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="first-order"):
        optapi.project(optapi.lbfgs([p], pt.sum(p**2), stop=pytensor.shared(0)), {p: abs})


def test_average_counts_only_calls_that_move(compiled):
    p, mean, stop = pytensor.shared(1.0), pytensor.shared(0.0), pytensor.shared(0)
    step = compiled(optapi.average(optapi.sgd([p], p**2, stop=stop, step_size=0.25), {p: mean}))
    for _ in range(3):
        step()
    np.testing.assert_allclose(mean.get_value(), np.mean([0.5, 0.25, 0.125]))
    stop.set_value(1)
    step(), step()
    np.testing.assert_allclose(mean.get_value(), np.mean([0.5, 0.25, 0.125]))


def trajectory(weight=None, after=0, steps=6):
    p, mean = pytensor.shared(np.zeros(2)), pytensor.shared(np.full(2, 99.0))
    direction = pt.constant(np.array([-1.0, 2.0]))
    updates = optapi.sgd([p], gradients=[direction * (1 + p[0])], step_size=0.1)
    step = pytensor.function(
        [], [], updates=optapi.average(updates, {p: mean}, weight=weight, after=after), mode=optapi.PYTHON
    )
    points, means = [], []
    for _ in range(steps):
        step()
        points.append(p.get_value())
        means.append(mean.get_value())
    return np.array(points), np.array(means)


# What a transform is given, and whether it has to compare the next value with the parameter to see that it is held.
HELD = {
    "as it is": (lambda updates, p: updates, False),
    "held twice": (lambda updates, p: optapi.skip_nonfinite(optapi.hold(updates, pt.constant(False))), False),
    "scaled": (lambda updates, p: {**updates, p: updates[p] * 1.0}, True),
    "cautious": (lambda updates, p: optapi.cautious(updates, {p: 2 * p}), True),
}


@pytest.mark.parametrize(("change", "is_compared"), HELD.values(), ids=HELD)
def test_averages_wait_while_a_rule_is_held(change, is_compared):
    p, mean, stop = parameter(), parameter(np.zeros(3), "mean"), pytensor.shared(0)
    updates = change(optapi.sgd([p], pt.sum(p**2), stop=stop, step_size=0.25), p)
    averaged = optapi.average(updates, {p: mean})
    # A comparison would be a pass through the parameter of its own.
    passes = [v for v in ancestors([averaged[mean]]) if v.type.dtype == "bool" and v.type.ndim == 1 and v.owner]
    compared = [v for v in passes if p in v.owner.inputs and v.owner.op == pt.neq]
    assert bool(compared) is is_compared
    step = pytensor.function([], [], updates=averaged, mode=optapi.PYTHON)
    for expected in (START / 2, START * 3 / 8):
        step()
        np.testing.assert_array_equal(mean.get_value(), expected)
    stop.set_value(1)
    step()
    np.testing.assert_array_equal(mean.get_value(), START * 3 / 8)
    np.testing.assert_array_equal(p.get_value(), START / 4)


def test_average_is_the_mean_of_all_values():
    points, means = trajectory()
    np.testing.assert_allclose(means, np.cumsum(points, axis=0) / np.arange(1, 7)[:, None], rtol=1e-14)


def test_average_after_some_calls():
    points, means = trajectory(after=2)
    np.testing.assert_array_equal(means[:3], points[:3])
    np.testing.assert_allclose(means[-1], points[2:].mean(axis=0), rtol=1e-14)


def test_running_average():
    points, means = trajectory(weight=0.75)
    expected = points[0]
    for point, mean in zip(points[1:], means[1:], strict=True):
        expected = 0.75 * expected + 0.25 * point
        np.testing.assert_allclose(mean, expected, rtol=1e-14)


def test_average_of_one_over_t_is_the_last_point(compiled):
    """With a step size of 1/t on quadratics the point is itself the mean of the targets."""
    p, mean, target = pytensor.shared(0.0), pytensor.shared(0.0), pt.dscalar()
    updates = optapi.average(optapi.sgd([p], gradients=[p - target], step_size=1.0), {p: mean})
    step = compiled(updates, inputs=[target])
    targets = np.random.default_rng(0).normal(size=20)
    for t in targets:
        step(t)
    np.testing.assert_allclose(mean.get_value(), targets.mean(), rtol=1e-13)


def test_average_keeps_float32(compiled):
    p, mean = pytensor.shared(np.ones(2, "float32")), pytensor.shared(np.ones(2, "float32"))
    updates = optapi.average(optapi.sgd([p], pt.sum(p**2)), {p: mean})
    assert updates[mean].type.dtype == "float32"
    compiled(updates)()
