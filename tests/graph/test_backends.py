"""The same updates under the compiled backends: rules that differ in structure, in loops and in batches."""

import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.graph.compat import REWRITES_INNER_GRAPHS
from optapi.graph.loops import repeat


RULES = {
    "sgd": (optapi.sgd, {"step_size": 0.03, "momentum": 0.5}),
    "adam": (optapi.adam, {"step_size": 0.1}),
    "lbfgs": (optapi.lbfgs, {}),
    "hessian_free": (optapi.hessian_free, {"steps": 2}),  # else rounding decides how many there are
    "tonga": (optapi.tonga, {"step_size": 50.0, "regularization": 200.0, "rank": 2, "every": 3}),
}
OTHERS = [
    (optapi.rmsprop, {"centered": True, "momentum": 0.5}),
    (optapi.adamax, {}),
    (optapi.nadam, {}),
    (optapi.radam, {}),
]
BACKENDS = [
    pytest.param("NUMBA", marks=pytest.mark.numba),
    pytest.param("CVM", marks=pytest.mark.c),
    pytest.param("JAX", marks=pytest.mark.jax),
]
SLICES = pytest.mark.xfail(not REWRITES_INNER_GRAPHS, reason="PyTensor 3.0 cannot give JAX a batch of slices")
BATCHED = [*BACKENDS[:2], pytest.param("JAX", marks=[pytest.mark.jax, SLICES])]

# Wide graphs of the other rules take numba and C minutes.
WIDE = [
    pytest.param(*backend.values, name, marks=[*backend.marks, *([pytest.mark.long] if name == "lbfgs" else [])])
    for backend in BACKENDS[:2]
    for name in ("sgd", "adam", "lbfgs")
] + [pytest.param("JAX", name, marks=BATCHED[-1].marks) for name in RULES]

# Building for a compiled backend warns of what PyTensor itself does there.
pytestmark = pytest.mark.filterwarnings("default")


class Run:
    """A function of updates that begins anew each time."""

    def __init__(self, mode, updates, inputs=()):
        self.function = pytensor.function(list(inputs), [], updates=updates, mode=mode)
        self.begin = {v: v.get_value() for v in updates}

    def __call__(self, *calls):
        """The last values after a call with each of the tuples of arguments, until the stop is 1."""
        for variable, value in self.begin.items():
            variable.set_value(value)
        [stop] = [v for v in self.begin if v.name == "stop"]
        done = 0
        for arguments in calls:
            if np.all(stop.get_value()):
                break
            self.function(*arguments)
            done += 1
        return {v.name: np.asarray(v.get_value()) for v in self.begin}, done


def problem(dtype="float64", name="lbfgs", **options):
    """Updates with a stop, of a cost with an input."""
    rule, defaults = RULES[name]
    # JAX splits vectors by known lengths only, which products with second derivatives ask for.
    one, two = ((3,), (1, 2)) if name == "hessian_free" else ((None,), (None, None))
    a = pytensor.shared(np.array([-1.2, 1.0, 0.5], dtype), name="a", shape=one)
    b = pytensor.shared(np.array([[0.5, -1.0]], dtype), name="b", shape=two)
    x = pt.vector("x", dtype=dtype, shape=one)
    cost = pt.sum((a[1:] - a[:-1] ** 2) ** 2) + pt.sum((x - a) ** 2) + pt.sum(pt.sqrt(1 + b**2)) * (1 + a[0] ** 2)
    stop = pytensor.shared(0, name="stop")
    return rule([a, b], cost, stop=stop, **{**defaults, "tolerance": 1e-2, **options}), stop, x


def agree(one, other, rtol):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(*mode.values, name, marks=[*mode.marks, *([pytest.mark.long] if slow else [])])
        for mode in BACKENDS
        for name in RULES
        for slow in [name in ("hessian_free", "tonga") and mode.values[0] != "JAX"]
    ],
)
def test_loops(mode, name, request):
    """As many steps as calls, a row fed to each, and no more after the stop."""
    if (mode, name, REWRITES_INNER_GRAPHS) == ("JAX", "tonga", False):
        request.applymarker(pytest.mark.xfail(reason="PyTensor 3.0 cannot give JAX a reshape to a shape of an array"))
    updates, stop, x = problem(name=name)
    X = pt.dmatrix("X", shape=(None, *x.type.shape))
    steps, taken = pt.lscalar("steps"), pytensor.shared(0, name="taken")
    by_calls = Run(optapi.PYTHON, updates, [x])
    looped = Run(mode, optapi.loop(updates, steps, stop, {x: X}, taken=taken), [X, steps])
    rows = np.array([0.5, 0.25, 1.0]) + 0.1 * np.random.default_rng(0).normal(size=(400, 3))
    rows[10:] = rows[10]
    for count in (0, 1, 2, 25, 400):
        result, _ = looped((rows, count))
        expected, done = by_calls(*[(row,) for row in rows[:count]])
        assert result.pop("taken") == done
        agree(result, expected, 1e-8)
    assert done < 400
    assert result["stop"] == 1


@pytest.mark.parametrize("mode, name", WIDE)
def test_batches(mode, name):
    """Separate runs, each with its own stop."""
    updates, stop, x = problem(name=name)
    row = np.array([0.5, 0.25, 1.0])
    separate = Run(optapi.PYTHON, optapi.loop(updates, 300, stop), [x])
    scales = np.array([1.0, 0.5, -1.5])
    results = []
    starts = {v: value for v, value in separate.begin.items() if v.name in ("a", "b")}
    for scale in scales:
        separate.begin.update({v: scale * value for v, value in starts.items()})
        results.append(separate((row,))[0])
    wide = {
        v: pytensor.shared(np.stack([scale * value for scale in scales]), name=v.name) for v, value in starts.items()
    }
    for variable, value in separate.begin.items():
        variable.set_value(value)
    wide[stop] = pytensor.shared(np.zeros(3, "int64"), name="stop")
    together, _ = Run(mode, optapi.loop(optapi.batch(updates, wide), 300, wide[stop]), [x])((row,))
    agree(together, {key: np.stack([result[key] for result in results]) for key in together}, 1e-7)
    assert together["stop"].all()


@pytest.mark.parametrize("mode", BATCHED)
def test_a_batch_of_loops(mode):
    """It is one loop, until the last member stops."""
    updates, stop, x = problem(name="adam")
    wide = {stop: pytensor.shared(np.zeros(2, "int64"), name="stop")}
    for p in [v for v in updates if v.name in ("a", "b")]:
        wide[p] = pytensor.shared(np.stack([p.get_value(), 0.5 * p.get_value()]), name=p.name)
    transforms = [
        lambda u: optapi.batch(optapi.loop(u, 300, stop), wide),
        lambda u: optapi.loop(optapi.batch(u, wide), 300, wide[stop]),
    ]
    one, other = [Run(mode, transform(updates), [x]) for transform in transforms]
    agree(one((np.ones(3),))[0], other((np.ones(3),))[0], 1e-12)


@pytest.mark.parametrize("mode", BACKENDS)
def test_other_first_order_rules(mode):
    """Those that branch, take maxima or keep a scalar; in one function, since building is what takes the time."""

    def final(mode):
        updates = {}
        for rule, options in OTHERS:
            p = pytensor.shared(np.array([-1.2, 0.0, 0.5]), name="p")
            rule([p], gradients=[p - 1], step_size=0.01, updates=updates, **options)
        step = pytensor.function([], [], updates=updates, mode=mode)
        for _ in range(10):
            step()
        return {f"{position} {v.name}": np.asarray(v.get_value()) for position, v in enumerate(updates)}

    agree(final(mode), final(optapi.PYTHON), 1e-9)


@pytest.mark.parametrize(
    "name, floatX", [("adam", "float32"), ("adam", "float64"), pytest.param("lbfgs", "float32", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("mode", BACKENDS[:2])
def test_float32_whatever_floatX_is(mode, name, floatX):
    """JAX fixes the precision when it is imported."""
    with pytensor.config.change_flags(floatX=floatX):
        updates, _, x = problem("float32", name, tolerance=1e-5)
        row = np.array([0.5, 0.25, 1.0], "float32")
        one, other = [Run(mode, updates, [x]) for mode in (mode, optapi.PYTHON)]
        agree(one(*[(row,)] * 3)[0], other(*[(row,)] * 3)[0], 1e-3)


@pytest.mark.parametrize("mode", BACKENDS)
def test_nothing_is_computed_that_is_not_wanted(mode):
    if mode == "JAX":
        pytest.skip("JAX calls no Python function")
    calls = []

    @pytensor.wrap_py(itypes=[pt.dvector], otypes=[pt.dscalar])
    def seen(x):
        calls.append(x)
        return np.asarray(x.sum())

    x, condition = pt.dvector("x"), pt.bscalar("condition")
    value = optapi.cond(pt.gt(condition, 0), lambda v: [seen(v)], [x], [-1.0])
    run = pytensor.function([x, condition], value, mode=mode)
    assert run(np.ones(2), 0) == [-1.0]
    assert not calls
    assert run(np.ones(2), 1) == [2.0]
    assert len(calls) == 1


@pytest.mark.parametrize("mode", BACKENDS)
def test_generators(mode):
    """They are state of the loop. Under JAX they are another kind, and private to the function."""
    p, rng = pytensor.shared(np.zeros(3), name="p"), pt.random.shared_rng(seed=3, name="rng")
    following, noise = rng.normal(scale=0.1, size=(3,))
    before = pytensor.shared(np.zeros(3), name="before")
    updates = optapi.sgd([p], gradients=[-noise], step_size=1.0, updates={rng: following, before: p})
    run = pytensor.function([], [], updates=optapi.loop(updates, 5), mode=mode)
    run()
    first = p.get_value()
    run()
    if mode == "JAX":
        steps = np.array([first, p.get_value() - first, p.get_value() - before.get_value()])
        assert np.all(np.abs(steps) < 2)
        assert np.unique(np.abs(steps)).size == 9  # no draw twice
    else:
        twin = np.random.default_rng(3)
        np.testing.assert_allclose(p.get_value(), 0.1 * sum(twin.normal(size=3) for _ in range(10)), rtol=1e-9)
        assert rng.get_value().bit_generator.state == twin.bit_generator.state


@pytest.mark.parametrize("mode", [pytest.param("PYTHON", id="PYTHON"), *BACKENDS])
def test_a_turn_may_write_over_what_it_is_given(mode):
    """And over nothing else: values that change places, stand twice, are kept, or are those outside of the loop."""
    outside = pytensor.shared(np.arange(6.0).reshape(3, 2), name="outside")
    row = pytensor.shared(np.ones(2), name="row")

    def body(turn, matrix, before, one, other, scalar):
        written = pt.set_subtensor(matrix[turn % 3], other + row)
        return [turn + 1, written, matrix, other, written[0], scalar + pt.sum(one)], pt.constant(np.bool_(False))

    start = [np.int64(0), outside, outside, row, row, np.float64(0)]
    run = pytensor.function([], repeat(body, start, 7), mode=optapi.PYTHON if mode == "PYTHON" else mode)
    values = [np.int64(0), np.arange(6.0).reshape(3, 2), None, np.ones(2), np.ones(2), 0.0]
    for turn in range(7):
        _, matrix, _, one, other, scalar = values
        written = matrix.copy()
        written[turn % 3] = other + 1.0
        values = [turn + 1, written, matrix, other, written[0].copy(), scalar + one.sum()]
    for _ in range(2):
        for value, wanted in zip(run(), values, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-14)
    np.testing.assert_array_equal(outside.get_value(), np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(row.get_value(), np.ones(2))


@pytest.mark.parametrize("mode", BACKENDS)
def test_traces(mode):
    p = pytensor.shared(np.array([1.0, -2.0]), name="p")
    updates, [costs, points] = optapi.loop(optapi.sgd([p], pt.sum(p**2), step_size=0.25), 6, trace=[pt.sum(p**2), p])
    costs, points = pytensor.function([], [costs, points], updates=updates, mode=mode)()
    np.testing.assert_allclose(points, np.array([1.0, -2.0]) / 2.0 ** np.arange(6)[:, None], rtol=1e-12)
    np.testing.assert_allclose(costs, 5.0 / 4.0 ** np.arange(6), rtol=1e-12)


@pytest.mark.parametrize("mode", BACKENDS)
def test_functions_pickle(mode):
    p, stop = pytensor.shared(np.array([-1.2, 1.0]), name="p"), pytensor.shared(0, name="stop")
    updates = optapi.loop(optapi.adam([p], pt.sum(p**4), stop=stop, tolerance=1e-2), 30, stop)
    run = pytensor.function([], list(updates.values()), updates=updates, mode=mode)
    again = pickle.loads(pickle.dumps(run))
    for one, other in zip(again(), run(), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.jax
def test_jax_refuses_traces_of_unknown_length():
    p, stop = pytensor.shared(np.ones(3), name="p"), pytensor.shared(0, name="stop")
    many, traces = optapi.loop(optapi.sgd([p], pt.sum(p**2), stop=stop), 50, stop, trace=[p])
    with pytest.raises(ValueError, match="leave trace out"):
        pytensor.function([], traces, updates=many, mode="JAX")
