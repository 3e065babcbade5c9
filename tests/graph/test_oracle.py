"""The oracle: a cost that Python computes, in any graph."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import Oracle
from optapi.drivers.evaluator import Evaluator
from optapi.graph.derivatives import pullback, pushforward
from optapi.graph.numpy_linker import PYTHON, STEP
from optapi.graph.oracle import VectorOracle, central_difference, product_error
from optapi.pytree import PyTree


def bowl(a, b, data=1.0):
    return data * (np.sum(a**4) + np.sum(b**2)), [4 * data * a**3, 2 * data * b]


def symbolic(ps, data=1.0):
    a, b = ps
    return data * (pt.sum(a**4) + pt.sum(b**2))


def parameters(dtype="float64"):
    values = [np.array([0.5, -1.0, 2.0]), np.array([[1.0, -2.0], [0.25, 3.0]])]
    return [pytensor.shared(v.astype(dtype), name=name, shape=v.shape) for v, name in zip(values, "ab", strict=True)]


MODES = [PYTHON, pytest.param("CVM", marks=pytest.mark.c), pytest.param("NUMBA", marks=pytest.mark.numba)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Numba will use object mode")
def test_values_and_gradients(mode):
    ps, data = parameters(), pt.dscalar("data")
    cost = Oracle(bowl)(ps, data)
    assert (cost.type.dtype, cost.type.ndim) == ("float64", 0)
    exact = symbolic(ps, data)
    outputs = [cost, *pytensor.grad(cost**2, ps), exact, *pytensor.grad(exact**2, ps)]
    values = pytensor.function([data], outputs, mode=mode)(2.0)
    for ours, theirs in zip(values[:3], values[3:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize("product", [None, lambda x, v, data=1.0: [12 * data * x[0] ** 2 * v[0], 2 * data * v[1]]])
def test_second_derivatives(product):
    ps = parameters()
    vs = [pt.constant(np.cos(np.arange(np.prod(p.type.shape)).reshape(p.type.shape))) for p in ps]
    cost, exact = Oracle(bowl, product)(ps, 2.0), symbolic(ps, 2.0)
    found = []
    for c in (cost, exact):
        gradients = pytensor.grad(c, ps)
        slope = sum(pt.sum(g * v) for g, v in zip(gradients, vs, strict=True))
        found.append([*pytensor.grad(slope, ps), *pytensor.gradient.pushforward(gradients, ps, vs)])
    values = pytensor.function([], [*found[0], *found[1]], mode=PYTHON)()
    for ours, theirs in zip(values[:4], values[4:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13 if product else 1e-7)


def test_the_slope_along_a_direction():
    ps = parameters()
    vs = [pt.ones_like(p) for p in ps]
    slopes = [pytensor.gradient.pushforward(cost, ps, vs) for cost in (Oracle(bowl)(ps), symbolic(ps))]
    ours, theirs = pytensor.function([], slopes, mode=PYTHON)()
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_inputs_are_not_differentiated():
    ps, data = parameters(), pytensor.shared(2.0)
    cost = Oracle(bowl)(ps, data)
    assert pytensor.grad(cost, [data], disconnected_inputs="ignore", return_disconnected="none") == [None]
    with pytest.raises(ValueError, match="does not depend on the parameter"):
        optapi.sgd([data], cost)


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.adam, optapi.lbfgs])
def test_rules_run_on_it(rule):
    trajectories = []
    for build in (lambda ps: Oracle(bowl)(ps), symbolic):
        ps = parameters()
        stop = pytensor.shared(0)
        step = pytensor.function([], [], updates=rule(ps, build(ps), step_size=0.05, stop=stop), mode=PYTHON)
        for _ in range(8):
            step()
        trajectories.append([p.get_value() for p in ps])
    for ours, theirs in zip(*trajectories, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_loops_and_batches():
    ps, stop = parameters(), pytensor.shared(0, name="stop")
    oracle = Oracle(bowl)
    updates = optapi.lbfgs(ps, oracle(ps), stop=stop)
    wide = {p: pytensor.shared(np.stack([p.get_value(), 2 * p.get_value()])) for p in ps}
    wide[stop] = pytensor.shared(np.zeros(2, "int64"))
    pytensor.function([], [], updates=optapi.loop(optapi.batch(updates, wide), 60, wide[stop]), mode=PYTHON)()
    oracle.check()
    assert np.all(wide[stop].get_value() == 1)
    assert all(np.all(np.abs(wide[p].get_value()) < 0.02) for p in ps)


def test_narrow_parameters_stay_narrow():
    seen = []

    def call(a, b):
        seen.append((a.dtype, b.dtype))
        return bowl(a, b)

    ps = parameters("float32")
    updates = optapi.lbfgs(ps, Oracle(call)(ps))
    assert all(updates[p].type.dtype == "float32" for p in ps)
    pytensor.function([], [], updates=updates, mode=PYTHON)()
    assert set(seen) == {(np.dtype("float32"), np.dtype("float32"))}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Numba will use object mode")
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt()], ids=repr)
def test_a_failure_is_kept_and_nothing_moves(error, mode):
    calls = []

    def call(a, b):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return bowl(a, b)

    ps, oracle = parameters(), Oracle(call)
    updates = optapi.lbfgs(ps, oracle(ps), step_size=64.0)
    step = pytensor.function([], [], updates=updates, mode=mode)
    before = [p.get_value() for p in ps]
    step()
    assert len(calls) == 3  # it was not called again
    assert oracle.failure is error
    assert all(np.array_equal(p.get_value(), value) for p, value in zip(ps, before, strict=True))
    step()
    assert len(calls) == 3
    with pytest.raises(type(error)) as caught:
        oracle.check()
    assert caught.value is error
    oracle.check()
    step()
    assert len(calls) > 3
    assert any(not np.array_equal(p.get_value(), value) for p, value in zip(ps, before, strict=True))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a, b: (1.0, [a]), "1 gradients for 2 parameters"),
        (lambda a, b: (a, [a, b]), r"an array of shape \(3,\)"),
        (lambda a, b: (1.0, [b, a]), r"shape \(2, 2\) where the point has shape \(3,\)"),
        (lambda a, b: (None, [a, b]), "returned None"),
    ],
)
def test_wrong_answers(call, message):
    ps, oracle = parameters(), Oracle(call)
    assert np.isnan(pytensor.function([], oracle(ps), mode=PYTHON)())
    with pytest.raises(ValueError, match=message):
        oracle.check()


def test_the_callable_may_change_its_arrays():
    kept = []

    def call(a, b):
        cost, gradients = bowl(a, b)
        kept.extend([a, *gradients])
        a[:] = np.nan
        return cost, gradients

    ps = parameters()
    cost = Oracle(call)(ps)
    function = pytensor.function([], [cost, *pytensor.grad(cost, ps)], mode=PYTHON)
    function()[1][:] = 0
    assert np.all(np.isfinite(ps[0].get_value()))
    assert np.all(kept[1] != 0)


def test_two_oracles_of_one_callable_are_two():
    a, b = parameters()
    both = pytensor.function([], [Oracle(bowl)([a, b]), Oracle(lambda *p: (0.0, p))([a, b])], mode=PYTHON)()
    assert both[0] != both[1] == 0


def test_no_constant_is_folded():
    calls = []

    def call(a):
        calls.append(a)
        return np.sum(a), [np.ones_like(a)]

    p = pt.dvector("p")
    function = pytensor.function([p], Oracle(call)([p]) + pt.sum(p) * 0, mode=PYTHON)
    assert not calls
    assert function(np.ones(2)) == 2.0


def test_central_difference():
    x, v = [np.array([1.0, 2.0]), np.array(3.0)], [np.array([1e-30, 2e-30]), np.array(-1e-30)]
    calls = []

    def gradients(a, b):
        calls.append(1)
        return [a**3, np.asarray(b**2)]

    for ours, exact in zip(central_difference(gradients, x, v), [3 * x[0] ** 2 * v[0], 2 * x[1] * v[1]], strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-8)
    assert len(calls) == 2
    zeros = central_difference(gradients, x, [np.zeros(2), np.zeros(())])
    assert len(calls) == 2
    assert all(np.all(z == 0) for z in zeros)
    assert all(np.all(np.isnan(z)) for z in central_difference(gradients, x, [np.full(2, np.inf), np.zeros(())]))
    narrow = central_difference(gradients, [a.astype("float32") for a in x], [a.astype("float32") * 1e30 for a in v])
    np.testing.assert_allclose(narrow[0], [3.0, 24.0], rtol=1e-3)
    assert narrow[0].dtype == "float32"


def difference(gradient, x, v, error=0.0):
    """The central difference of a gradient of one vector, and the points at which it was called."""
    points = []

    def gradients(x):
        points.append(x)
        return [gradient(x)]

    return central_difference(gradients, [np.array(x)], [np.array(v)], error)[0], np.array(points)


@pytest.mark.parametrize("unit", [1e-100, 1e-12, 1.0, 1e9, 1e100])
def test_central_differences_in_any_unit(unit):
    """The gradient of sums of log(x / unit), relative to the exact product; and with one component of another size."""
    x, v = unit * np.array([1.0, 2.0]), unit * np.array([1.0, -3.0])
    ours, points = difference(lambda x: unit / x, x, v)
    np.testing.assert_allclose(ours, -unit / x**2 * v, rtol=1e-9)
    assert np.all(points > 0)
    for i in range(2):
        x, v = unit * np.array([1.0, 1e-8]), unit * np.eye(2)[i]
        ours, points = difference(lambda x: unit / x, x, v)
        assert np.all(points > 0)
        np.testing.assert_allclose(ours[i], -unit / x[i] ** 2 * v[i], rtol=1e-4)


def test_central_differences_from_zero():
    """Components that are zero, or zero but for rounding, tell nothing of a size."""
    for x, v, rtol in [
        ([0.0, 0.0], [1.0, 0.0], 1e-9),
        ([0.0, 5.0], [1.0, 0.0], 1e-8),
        ([1e-17, 1.0], [1.0, 0.0], 1e-4),
    ]:
        ours, _ = difference(lambda x: np.array([np.sinh(x[0]) + x[1], x[0] + x[1]]), x, v)
        np.testing.assert_allclose(ours, [np.cosh(x[0]), 1], rtol=rtol)


def test_central_differences_beside_a_wall():
    """The wall is nearer than a step: shorter ones are tried, and a derivative that is nowhere finite is NaN."""
    x = np.array([1.0])
    with np.errstate(invalid="ignore", divide="ignore"):
        ours, points = difference(lambda x: np.log(x - (1 - 5e-7)), x, np.array([1.0]))
        np.testing.assert_allclose(ours, 2e6, rtol=1e-2)
        assert 2 < len(points) <= 10
        nowhere, points = difference(lambda x: np.nan * x, x, np.array([1.0]))
    assert np.isnan(nowhere)
    assert len(points) == 10


def test_central_differences_of_gradients_with_errors():
    """The step is longer, as the cube root of the error."""
    x, v = np.array([2.0]), np.array([1.0])
    for error, h in [(0.0, 2 * np.finfo("float64").eps ** (1 / 3)), (1e-8, 2 * 1e-8 ** (1 / 3))]:
        _, points = difference(lambda x: x, x, v, error)
        np.testing.assert_allclose(points[0] - points[1], 2 * h, rtol=1e-9)


def test_the_error_of_products():
    p = pytensor.shared(np.ones(2), shape=(2,))
    assert product_error(pt.sum(p**2), "float64") is None
    epsilon = np.finfo("float64").eps
    for product, wanted in [(None, epsilon ** (2 / 3)), (lambda ps, vs: vs, epsilon)]:
        oracle = Oracle(lambda p: (p @ p / 2, [p]), product)
        function = pytensor.function([], product_error(oracle([p]) + pt.sum(p), "float64"), mode=PYTHON)
        assert function() == pytest.approx(wanted, rel=1e-12)
        oracle.gradient_error = 1e-8
        assert function() == pytest.approx(epsilon if product else 1e-8 ** (2 / 3), rel=1e-12)


def test_the_evaluator_remembers_the_last_points():
    calls = []
    evaluator = Evaluator(lambda x: calls.append("f") or float(x[0]), lambda x: calls.append("df") or [1.0], PyTree())
    points = [np.array([float(i)]) for i in range(Evaluator.MEMORY + 1)]
    first = evaluator.at([points[0]])
    assert evaluator.cost(first) == 0.0
    assert evaluator.cost(evaluator.at([points[0].copy()])) == 0.0
    assert calls == ["f"]
    assert evaluator.evaluate(points[0])[0] == 0.0
    assert calls == ["f", "df"]
    for point in points[1:]:
        evaluator.evaluate(point)
    calls.clear()
    evaluator.evaluate(points[1])
    assert calls == []
    evaluator.evaluate(points[0])
    assert calls == ["f", "df"]
    assert len(evaluator.recent) == Evaluator.MEMORY
    evaluator.evaluate(-points[0])  # minus zero is another point
    assert calls == ["f", "df"] * 2


# Vectors with Jacobians


def curve(a, b, data=1.0):
    """Three numbers of a vector, a scalar and data; the Jacobians by hand."""
    values = np.array([a[0] * b * data, np.sin(a[1]), a[0] - b**2])
    rows = [np.array([[b * data, 0.0], [0.0, np.cos(a[1])], [1.0, 0.0]]), np.array([a[0] * data, 0.0, -2 * b])]
    return values, rows


def same_curve(a, b, data):
    return pt.stack([a[0] * b * data, pt.sin(a[1]), a[0] - b**2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.filterwarnings("ignore:Numba will use object mode")
def test_a_vector_with_its_jacobians(mode, dtype):
    """Its products from either side, and one call for each point."""
    calls = []
    ps = [pytensor.shared(np.array(v, dtype), name=n, shape=np.shape(v)) for n, v in (("a", [0.5, -1.0]), ("b", 3.0))]
    data = pt.dscalar("data")
    v, w = pt.constant([1.0, -2.0, 0.5]), [pt.constant(np.array([0.3, 0.7], dtype)), pt.constant(np.array(2.0, dtype))]
    oracle = VectorOracle(lambda *arrays: calls.append(1) or curve(*arrays), 3)
    found = []
    for r in (oracle(ps, data), same_curve(*ps, data)):
        forward = pytensor.gradient.pushforward([r], ps, w, use_op_pushforward=True)
        found.append([r, *pullback([r], ps, [v]), *pushforward([r], ps, w), *forward])
    assert (found[0][0].type.dtype, found[0][0].type.shape) == ("float64", (3,))
    values = pytensor.function([data], found[0] + found[1], mode=mode, on_unused_input="ignore")(2.0)
    assert len(calls) == 1
    count = len(found[0])
    for ours, theirs in zip(values[:count], values[count:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13 if dtype == "float64" else 1e-6)


def test_a_vector_has_no_second_derivatives():
    p = pytensor.shared(np.array([1.0, 2.0]), name="p", shape=(2,))
    r = VectorOracle(lambda x: (x**2, [np.diag(2 * x)]), 2)([p])
    with pytest.raises(ValueError, match="needs second derivatives"):
        optapi.newton([p], pt.sum(r**2))


@pytest.mark.parametrize("options", [{}, {"solver": "cg"}, {"loss": "huber"}])
@pytest.mark.parametrize("rule", [optapi.levenberg_marquardt, optapi.gauss_newton])
def test_least_squares_of_a_vector(rule, options):
    """The trajectory is that of symbolic residuals."""
    paths = []
    for symbolic in (False, True):
        a, b = ps = [pytensor.shared(np.array([0.5, 1.0]), name="a", shape=(2,)), pytensor.shared(3.0, name="b")]
        r = same_curve(a, b, 1.0) if symbolic else VectorOracle(curve, 3)(ps)
        step = pytensor.function([], [], updates=rule(ps, residuals=r, **options), mode=STEP)
        path = []
        for _ in range(5):
            step()
            path.append([*a.get_value(), b.get_value()])
        paths.append(path)
    np.testing.assert_allclose(*paths, rtol=1e-9)


def test_vectors_of_wrong_shape_and_failures():
    p = pytensor.shared(np.ones(2), name="p", shape=(2,))
    for call, error in (
        (lambda x: (np.ones(2), [np.ones((3, 2))]), "returned an array of shape (2,) in the place of (3,)"),
        (lambda x: (np.ones(3), [np.ones((2, 3))]), "returned an array of shape (2, 3) in the place of (3, 2)"),
        (lambda x: 1 / 0, "division by zero"),
    ):
        oracle = VectorOracle(call, 3)
        r = oracle([p])
        assert np.isnan(pytensor.function([], r, mode=PYTHON)()).all()
        with pytest.raises((ValueError, ZeroDivisionError)) as raised:
            oracle.check()
        assert error in str(raised.value)
