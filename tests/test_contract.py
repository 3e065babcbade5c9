"""What every rule promises: design.md, sections 1.1 and 3. One test for a promise, over all rows of the registry."""

import inspect

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from registry import ROWS, public_rules

import optapi
from optapi import schedules
from optapi.drivers.steps import STEP


pytestmark = pytest.mark.parametrize("row", ROWS, ids=str)


@pytest.fixture
def compiled():
    """`pytensor.function` of updates alone, as the NumPy interface compiles a rule: without rewrites.

    They are most of the time that it takes to compile, and these are many functions. The other tests have them.
    """
    return lambda updates, inputs=(), outputs=(): pytensor.function(
        list(inputs), list(outputs), updates=updates, mode=STEP
    )


DRIVER_KEYWORDS = {
    *("args", "max_iterations", "max_evaluations", "time_limit", "target", "cost_tolerance", "step_tolerance"),
    *("callback", "progressbar", "verbose", "trace", "check_gradient", "hessp", "mode", "full_output"),
}


def parameters(dtype="float64", names=("a", "b")):
    """A vector and a matrix, away from the minimizer."""
    values = [np.array([0.5, -1.0, 2.0]), np.array([[1.0, -2.0], [0.25, 3.0]])]
    return [pytensor.shared(v.astype(dtype), name=name) for v, name in zip(values, names, strict=True)]


def bowl(ps):
    """A smooth convex cost, its minimizer at zero, that no rule solves in one step."""
    return sum(pt.sum((0.5 + 0.1 * pt.arange(p.size).reshape(p.shape)) * pt.sqrt(1 + p**2)) for p in ps)


def values(updates):
    return [np.array(v.get_value()) for v in updates]


def same(first, second, rtol=1e-12):
    for x, y in zip(first, second, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


def test_signature(row):
    signature = inspect.signature(row.rule).parameters
    names = list(signature)
    assert names[:5] == ["parameters", "cost", "gradients", "stop", "updates"]
    assert all(signature[n].default is None for n in names[1:5])
    assert all(signature[n].kind is inspect.Parameter.KEYWORD_ONLY for n in names[5:])
    assert {"step_size", "tolerance", "ascent", "name"} <= set(names)
    assert not DRIVER_KEYWORDS & set(names)
    assert row.rule in public_rules() or row.rule.__module__ == "readme"


def test_every_rule_is_registered(row):
    assert set(public_rules()) <= {r.rule for r in ROWS}


def test_keys(row):
    ps, stop = parameters(), pytensor.shared(0, name="stop")
    updates = row(ps, bowl(ps), stop=stop, name="mine")
    assert isinstance(updates, dict)
    assert set(ps) <= set(updates)
    assert stop in updates
    own = [v for v in updates if v not in ps and v is not stop]
    assert all(v.name.startswith("mine/") for v in own)
    assert len({v.name for v in own}) == len(own)


def test_extends_updates_in_place(row):
    ps, other = parameters(), pytensor.shared(1.0)
    mine = {other: other + 1}
    updates = row(ps, bowl(ps), updates=mine)
    assert updates is mine
    assert next(iter(updates)) is other
    assert set(ps) < set(updates)


def test_collision_is_a_key_error(row):
    ps, stop = parameters(), pytensor.shared(0, name="stop")
    for taken in (ps[1], stop):
        mine = {taken: taken}
        with pytest.raises(KeyError, match=taken.name):
            row(ps, bowl(ps), stop=stop, updates=mine)
        assert mine == {taken: taken}


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types_are_kept(row, dtype, floatX, compiled):
    shapes = [(), (3,), (2, 3), (2, 2, 2), (3, 1)]
    with pytensor.config.change_flags(floatX=floatX):
        ps = [pytensor.shared(np.ones(s, dtype), name=f"p{i}", shape=s) for i, s in enumerate(shapes)]
        cost = sum(((p - np.asarray(0.5, dtype)) ** 2).sum() for p in ps)
        assert cost.dtype == dtype
        updates = row(ps, cost, stop=pytensor.shared(0))
        for p, shape in zip(ps, shapes, strict=True):
            assert updates[p].type == p.type
            assert updates[p].type.shape == shape
        for variable, value in updates.items():
            assert (value.dtype, value.ndim) == (variable.dtype, variable.ndim)
            assert variable.dtype in (dtype, "int64")
        assert_arithmetic_stays(updates, dtype)
        step = compiled(updates)
        for _ in range(3):
            step()
    for p, shape in zip(ps, shapes, strict=True):
        value = p.get_value()
        assert value.dtype == dtype
        assert value.shape == shape
        assert np.all(np.abs(value - 0.5) < 0.5)


def assert_arithmetic_stays(updates, dtype):
    """No array is in float64 where the parameters are in float32; scalars may be."""
    from pytensor.graph.traversal import ancestors

    wide = [v for v in ancestors(list(updates.values())) if getattr(v.type, "dtype", None) == "float64" and v.ndim > 0]
    assert dtype == "float64" or not wide


def test_mixed_dtypes(row, compiled):
    ps = [pytensor.shared(np.ones(3, "float32"), name="narrow"), pytensor.shared(np.ones((2, 2)), name="wide")]
    step = compiled(row(ps, bowl(ps)))
    for _ in range(3):
        step()
    assert [p.get_value().dtype for p in ps] == ["float32", "float64"]
    assert all(np.all(p.get_value() < 1) for p in ps)


def test_a_single_parameter_and_one_without_a_name(row, compiled):
    p = pytensor.shared(np.ones(3))
    updates = row(p, bowl([p]))
    assert len({v.name for v in updates}) == len(updates)
    compiled(updates)()
    assert np.all(p.get_value() < 1)


def test_given_gradients_equal_the_cost(row, compiled):
    first, second = parameters(), parameters()
    by_cost = row(first, bowl(first))
    cost = bowl(second)
    by_gradients = row(second, cost if row.searches or row.needs_cost else None, gradients=pytensor.grad(cost, second))
    one, two = compiled(by_cost), compiled(by_gradients)
    for _ in range(5):
        one(), two()
    same(values(by_cost), values(by_gradients))


def test_ascent_on_the_negative_is_descent(row, compiled):
    first, second = parameters(), parameters()
    down, up = row(first, bowl(first)), row(second, -bowl(second), ascent=True)
    one, two = compiled(down), compiled(up)
    for _ in range(5):
        one(), two()
    same(values(down), values(up))


def test_ascent_reports_the_cost_of_the_user(row, compiled):
    ps, stop = parameters(), pytensor.shared(0)
    updates = row(ps, -bowl(ps), stop=stop, ascent=True)
    compiled(updates)()
    for cost in optapi.reports(updates).get("cost", []):
        same([cost.get_value()], [pytensor.function([], -bowl(ps), mode=optapi.PYTHON)()])


def test_step_sizes_in_all_forms_agree(row, compiled):
    shared = pytensor.shared(np.float64(0.25))
    runs = []
    for step_size in (0.25, shared, 1.0 * shared, schedules.Constant(0.25), lambda count: 0.25):
        ps = parameters()
        step = compiled(row(ps, bowl(ps), step_size=step_size))
        for _ in range(5):
            step()
        runs.append(values(ps))
    for run in runs[1:]:
        same(runs[0], run)


def test_a_shared_step_size_changes_without_compiling(row, compiled):
    ps, shared = parameters(), pytensor.shared(np.float64(0.25))
    updates = row(ps, bowl(ps), step_size=shared)
    start, step = values(updates), compiled(updates)
    step()
    first = values(ps)
    for variable, value in zip(updates, start, strict=True):
        variable.set_value(value)
    shared.set_value(0.15)
    step()
    assert not np.allclose(first[0], values(ps)[0])


def test_hyper_parameters_may_be_variables(row, compiled):
    keywords = {n: p.default for n, p in inspect.signature(row.rule).parameters.items() if type(p.default) is float}
    keywords |= {n: v for n, v in row.options.items() if type(v) is float}
    keywords = {n: v for n, v in keywords.items() if v or n in row.options}
    if row.options.get("nesterov"):
        keywords.pop("dampening", None)
    numbers, variables = parameters(), parameters()
    one = compiled(row(numbers, bowl(numbers), **keywords))
    two = compiled(row(variables, bowl(variables), **{n: pytensor.shared(np.float64(v)) for n, v in keywords.items()}))
    for _ in range(5):
        one(), two()
    same(values(numbers), values(variables))


def test_loop_equals_calls(row, compiled):
    first, second, stops = parameters(), parameters(), [pytensor.shared(0), pytensor.shared(0)]
    calls = row(first, bowl(first), stop=stops[0], tolerance=1e-6)
    looped = row(second, bowl(second), stop=stops[1], tolerance=1e-6)
    one, two = compiled(calls), compiled(optapi.loop(looped, 25, stops[1]))
    for _ in range(25):
        one()
    two()
    same(values(calls), values(looped))


def test_loop_does_nothing_once_stopped(row, compiled):
    ps, stop = parameters(), pytensor.shared(1)
    updates = row(ps, bowl(ps), stop=stop)
    before = values(updates)
    compiled(optapi.loop(updates, 3, stop))()
    assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(before, values(updates), strict=True))


def test_batch_equals_separate_runs(row, compiled):
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=(3, 3)), rng.normal(size=(3, 2, 2))]
    ps, stop = parameters(), pytensor.shared(0, name="stop")
    updates = row(ps, bowl(ps), stop=stop, tolerance=1e-6)
    begin = values(updates)

    wide = [pytensor.shared(s.copy()) for s in starts]
    stops = pytensor.shared(np.zeros(3, "int64"))
    together = optapi.batch(updates, {**dict(zip(ps, wide, strict=True)), stop: stops})
    step = compiled(together)
    for _ in range(10):
        step()

    alone = compiled(updates)
    for member in range(3):
        for variable, value in zip(updates, begin, strict=True):
            variable.set_value(value)
        for p, start in zip(ps, starts, strict=True):
            p.set_value(start[member])
        for _ in range(10):
            alone()
        same(values(updates), [value[member] for value in values(together)])


def test_resume_is_exact(row, compiled, tmp_path):
    ps, stop = parameters(), pytensor.shared(0, name="stop")
    updates = row(ps, bowl(ps), stop=stop)
    step = compiled(updates)
    for _ in range(3):
        step()
    optapi.save(tmp_path / "run.npz", updates)
    for _ in range(3):
        step()
    uninterrupted = values(updates)
    optapi.load(tmp_path / "run.npz", updates)
    for _ in range(3):
        step()
    assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(uninterrupted, values(updates), strict=True))


def test_frozen_after_stop(row, compiled):
    ps, stop, mine = parameters(), pytensor.shared(0), pytensor.shared(0)
    updates = row(ps, bowl(ps), stop=stop, updates={mine: mine + 1})
    step = compiled(updates)
    step(), step()
    stop.set_value(1)
    before = values(updates)
    step(), step()
    after = values(updates)
    assert mine.get_value() == 4
    assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(before[1:], after[1:], strict=True))


def test_a_start_at_the_minimizer_stays(row, compiled):
    ps, stop = parameters(), pytensor.shared(0)
    for p in ps:
        p.set_value(np.full_like(p.get_value(), 1e-9))
    before = values(ps)
    updates = row(ps, bowl(ps), stop=stop, tolerance=1e-6)
    compiled(updates)()
    assert stop.get_value() == 1
    assert all(np.array_equal(x, y) for x, y in zip(before, values(ps), strict=True))
    assert all(reason.get_value() == 0 for reason in optapi.reports(updates).get("reason", []))
    for cost in optapi.reports(updates).get("cost", []):
        same([cost.get_value()], [pytensor.function([], bowl(ps), mode=optapi.PYTHON)()])


def test_stop_is_about_the_point_held(row, compiled):
    ps, stop = parameters(), pytensor.shared(0, name="stop")
    cost, tolerance = bowl(ps), 1e-3
    step = compiled(
        row(ps, cost, stop=stop, tolerance=tolerance, step_size=row.rest_step if not row.searches else None)
    )
    largest = pytensor.function([], [abs(g).max() for g in pytensor.grad(cost, ps)], mode=optapi.PYTHON)
    if not row.settles:  # only a start can be the end
        for p in ps:
            p.set_value(np.zeros_like(p.get_value()))
    for _ in range(3000):
        met = max(largest()) <= tolerance
        step()
        if stop.get_value():
            break
        assert not met
    assert stop.get_value() == 1
    assert max(largest()) <= tolerance


def test_nan_in_one_component_never_stops(row, compiled):
    ps, stop = parameters(), pytensor.shared(0)
    ps[0].set_value(np.array([0.0, np.nan, 0.0]))
    ps[1].set_value(np.zeros((2, 2)))
    updates = row(ps, bowl(ps), stop=stop, tolerance=1e-3)
    before = values(ps)
    compiled(updates)()
    reasons = [reason.get_value() for reason in optapi.reports(updates).get("reason", [])]
    if row.searches:  # it says that it can't go on
        assert (stop.get_value(), reasons) == (1, [3])
        assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(before, values(ps), strict=True))
    else:
        assert stop.get_value() == 0


def test_one_bad_call_can_be_skipped(row, compiled):
    def run(scales):
        ps, scale = parameters(), pytensor.shared(1.0)
        updates = optapi.skip_nonfinite(row(ps, scale * bowl(ps)))
        step = compiled(updates)
        for value in scales:
            scale.set_value(value)
            step()
        [skipped] = optapi.reports(updates)["skipped"]
        return values(ps), skipped.get_value()

    clean, none = run([1.0, 1.0, 1.0, 1.0])
    dirty, skipped = run([1.0, 1.0, np.nan, 1.0, 1.0])
    assert none == 0
    assert all(np.all(np.isfinite(x)) for x in dirty)
    if not row.searches:  # a rule that searches never accepts such a point, so has nothing to skip
        assert skipped == 1
        assert all(np.array_equal(x, y) for x, y in zip(clean, dirty, strict=True))


def test_works_on_a_cost_with_inputs(row, compiled):
    ps, x = parameters(), pt.dscalar("x")
    step = compiled(row(ps, bowl(ps) * x), inputs=[x], outputs=[bowl(ps)])
    costs = [step(1.0)[0] for _ in range(10)]
    assert costs[-1] < costs[0]


def test_all_draws_of_a_call_are_the_same(row, compiled):
    ps, rng = parameters(), pt.random.shared_rng(seed=1)
    following, noise = rng.normal(scale=1e-3, size=(3,))
    cost = bowl(ps) + pt.sum(noise * ps[0])
    step = compiled(row(ps, cost, updates={rng: following}), outputs=[bowl(ps)])
    costs = [step()[0] for _ in range(10)]
    assert costs[-1] < costs[0]


def test_unknown_keyword(row):
    ps = parameters()
    with pytest.raises(TypeError, match="step_sise"):
        row(ps, bowl(ps), step_sise=0.1)
