"""The same updates under the compiled backends: rules that differ in structure, by steps, in a loop and in a batch."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


RULES = {
    "sgd": (optapi.sgd, {"step_size": 0.01, "momentum": 0.5}),
    "adam": (optapi.adam, {"step_size": 0.1}),
    "lbfgs": (optapi.lbfgs, {}),
}
OTHERS = [
    (optapi.rmsprop, {"centred": True, "momentum": 0.5}),
    (optapi.adamax, {}),
    (optapi.nadam, {}),
    (optapi.radam, {}),
]
BACKENDS = [
    pytest.param("NUMBA", marks=pytest.mark.numba),
    pytest.param("CVM", marks=pytest.mark.c),
]

# Building for a compiled backend warns of what PyTensor itself does there.
pytestmark = pytest.mark.filterwarnings("default")


def problem(dtype="float64"):
    a = pytensor.shared(np.array([-1.2, 1.0, 0.5], dtype), name="a")
    b = pytensor.shared(np.array([[0.5, -1.0]], dtype), name="b")
    cost = pt.sum(10 * (a[1:] - a[:-1] ** 2) ** 2) + pt.sum((1 - a) ** 2) + pt.sum(pt.sqrt(1 + b**2)) * (1 + a[0] ** 2)
    return [a, b], cost


def run(mode, rule, options, transform=lambda updates, stop: updates, calls=20, dtype="float64"):
    parameters, cost = problem(dtype)
    stop = pytensor.shared(0, name="stop")
    updates = transform(rule(parameters, cost, stop=stop, tolerance=1e-4, **options), stop)
    step = pytensor.function([], [], updates=updates, mode=mode)
    for _ in range(calls):
        step()
    return {v.name: np.asarray(v.get_value()) for v in updates}


def agree(one, other, rtol):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("mode", BACKENDS)
def test_steps(mode, name):
    calls = 10 if name == "lbfgs" else 20
    agree(run(mode, *RULES[name], calls=calls), run(optapi.PYTHON, *RULES[name], calls=calls), 1e-9)


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


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("mode", BACKENDS)
def test_loops(mode, name):
    def looped(updates, stop):
        return optapi.loop(updates, 10, stop)

    agree(run(mode, *RULES[name], looped, 1), run(optapi.PYTHON, *RULES[name], looped, 1), 1e-9)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("mode", BACKENDS)
def test_float32_whatever_floatX_is(mode, name, floatX):
    with pytensor.config.change_flags(floatX=floatX):
        result = run(mode, *RULES[name], calls=3, dtype="float32")
    agree(result, run(optapi.PYTHON, *RULES[name], calls=3, dtype="float32"), 1e-3)


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
@pytest.mark.parametrize("mode", BACKENDS)
def test_batches(mode, name):
    def batched(updates, stop):
        wide = {stop: pytensor.shared(np.zeros(2, "int64"), name="stop")}
        for p in [v for v in updates if v.name in ("a", "b")]:
            wide[p] = pytensor.shared(np.stack([p.get_value(), 0.5 * p.get_value()]), name=p.name)
        return optapi.loop(optapi.batch(updates, wide), 8, wide[stop])

    agree(run(mode, *RULES[name], batched, 1), run(optapi.PYTHON, *RULES[name], batched, 1), 1e-9)


@pytest.mark.parametrize("mode", BACKENDS)
def test_nothing_is_computed_that_is_not_wanted(mode):
    calls = []

    @pytensor.wrap_py(itypes=[pt.dvector], otypes=[pt.dscalar])
    def seen(x):
        calls.append(x)
        return np.asarray(x.sum())

    x, condition = pt.dvector("x"), pt.bscalar("condition")
    value = optapi.when(pt.gt(condition, 0), lambda v: [seen(v)], [x], [-1.0])
    run = pytensor.function([x, condition], value, mode=mode)
    assert run(np.ones(2), 0) == [-1.0]
    assert not calls
    assert run(np.ones(2), 1) == [2.0]
    assert len(calls) == 1


@pytest.mark.parametrize("mode", BACKENDS)
def test_generators(mode):
    p, rng = pytensor.shared(np.zeros(3), name="p"), pt.random.shared_rng(seed=3, name="rng")
    following, noise = rng.normal(scale=0.1, size=(3,))
    updates = optapi.lbfgs([p], pt.sum((p - 1 - noise) ** 2), updates={rng: following}, tolerance=None)
    pytensor.function([], [], updates=optapi.loop(updates, 2), mode=mode)()
    twin = np.random.default_rng(3)
    twin.normal(size=3)
    np.testing.assert_allclose(p.get_value(), 1 + 0.1 * twin.normal(size=3), rtol=1e-6)
