"""The linker that writes a graph out: the same numbers as PyTensor's own, no compiler, and results of one's own."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.scan.utils import until
from scipy import special

import optapi
from optapi.graph.numpy_linker import STEP, Called, NumpyLinker, converted


try:
    from pytensor.conditional.op import ifelse
except ImportError:  # PyTensor 3.0
    from pytensor.ifelse import ifelse


# PyTensor's own Python linker, which calls each node.
REFERENCE = Mode("py", RewriteDatabaseQuery(include=["minimum_compile"]))
OURS = pytest.mark.parametrize("mode", [pytest.param(STEP, id="STEP"), pytest.param(optapi.PYTHON, id="PYTHON")])

A, B, C = pt.dscalar("a"), pt.dscalar("b"), pt.bscalar("c")
K, J = pt.lscalar("i"), pt.lscalar("j")
F = pt.fscalar("f")
V, W = pt.dvector("v"), pt.fvector("w")
M = pt.dmatrix("m")
VALUES = {
    A: np.array(1.5),
    B: np.array(-0.25),
    C: np.array(3, "int8"),
    K: np.array(7),
    J: np.array(0),
    F: np.array(0.1, "float32"),
    V: np.array([1.0, -2.0, np.nan]),
    W: np.array([1.0, 0.0, np.inf], "float32"),
    M: np.arange(6.0).reshape(2, 3),
}

EXPRESSIONS = {
    "arithmetic": [A + B, A - B, A * B, A / B, -A, abs(B), A**2, pt.sqr(B), pt.sqrt(A), pt.maximum(A, B), A + B + A],
    "of zero": [A / J, K / J, pt.log(B), A * (A / J), K // 2],
    "comparisons": [A < B, A <= A, A > B, A >= B, pt.eq(A, A), pt.neq(A, B), A < K, K > C, F < A],
    "logic": [(A < B) & (A > B), (A < B) | (A > B), ~(A < B), pt.isnan(A), pt.isinf(A / J), pt.isnan(pt.log(B))],
    "switch": [pt.switch(A < B, A, B), pt.switch(A > B, V, A), pt.switch(V > 0, V, M), pt.switch(K, A, B)],
    "mixed dtypes": [A + K, F + A, F * F, K * K, C * C, C / C, W + V, W * F, F + K, C + C + C, K / K],
    "casts": [A.astype("int64"), K.astype("float32"), V.astype("float32"), (A > B).astype("float64")],
    "clips": [
        pt.clip(V, -1.5, 0.5),
        pt.clip(M, 4.0, 2.0),
        pt.clip(V, B, A),
        pt.clip(A, V, 0.0),
        pt.clip(W, -1.0, F),
        pt.clip(K, 1, 5),
    ],
    "sums": [V.sum(), M.sum(axis=0), M.sum(axis=(0, 1)), W.sum(), (V > 0).sum(), pt.all(V > 0), pt.any(pt.isnan(V))],
    "extremes": [M.max(axis=1), V.max(), M.min(), M.prod(axis=0), M.mean()],
    "shapes": [M.T, V[None], A[None, None], M[:, None, :], M.ravel(), M.reshape((3, 2)), M.shape[0], V[:, None] * V],
    "parts": [V[1:], V[-1], M[1, :2], M[:, ::-1], M[K - 6], V[: J + 2], M[pt.constant(0)]],
    "filled": [pt.zeros_like(M), pt.ones((2, 3)), pt.full((K - 5,), A), pt.zeros_like(A) + 1, pt.fill(V, B)],
    "joined": [pt.concatenate([V, V[:1]]), pt.stack([A, B]), pt.concatenate([M, M], axis=1), pt.concatenate([V, W])],
    "others": [pt.dot(M, V), pt.sort(V), pt.set_subtensor(M[0], 1.0), pt.cumsum(V), pt.erf(A)],
    "ranges": [pt.arange(5), pt.arange(K), pt.arange(A, 4.0, 0.5), pt.arange(C)],
    "clipped": [pt.clip(A, B, A), pt.clip(A, 2.0, B), pt.clip(B, A, K), pt.clip(V, B, A), pt.clip(A / J, B, A)],
    "softplus": [pt.softplus(v) for v in (V, 100 * M - 250, 10 * M - 20, W, A, F, K)],
    "inputs and constants": [A, V, pt.constant(2.0), pt.constant(np.ones(2)), A, -V],
}


@OURS
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_are_those_of_pytensor(name, mode):
    outputs = EXPRESSIONS[name]
    inputs = list(VALUES)
    ours, theirs = (
        pytensor.function(inputs, outputs, mode=mode, on_unused_input="ignore")(*VALUES.values())
        for mode in (mode, REFERENCE)
    )
    for expression, one, other in zip(outputs, ours, theirs, strict=True):
        assert type(one) is np.ndarray, expression
        assert (one.dtype, one.shape) == (expression.type.dtype, other.shape), expression
        np.testing.assert_allclose(one, other, rtol=1e-14 if one.dtype != "float32" else 1e-6)


@OURS
def test_extremes_of_scalars_are_those_of_numpy(mode):
    x, y, z = pt.dscalars("xyz")
    extremes = pytensor.function([x, y, z], [pt.minimum(x, y), pt.maximum(x, y), pt.clip(x, y, z)], mode=mode)
    values = [0.0, -0.0, 1.0, -1.0, np.inf, np.nan]
    for one in values:
        for other in values:
            least, greatest, clipped = extremes(one, other, 0.5)
            for ours, theirs in ((least, np.minimum(one, other)), (greatest, np.maximum(one, other))):
                assert np.array_equal(ours, theirs, equal_nan=True)
                assert np.signbit(ours) == np.signbit(theirs)
            # As PyTensor defines it, the low counts where it is above the high, and what is not below NaN stays.
            expected = other if one < other else 0.5 if one > 0.5 else one
            assert np.array_equal(clipped, expected, equal_nan=True)


@OURS
def test_powers_are_rounded_as_pytensor_rounds_them(mode):
    """NumPy squares for the scalar exponent 2, and rounds 0.995 squared otherwise than for an array of exponents."""
    x = pt.tensor(dtype="float64", shape=(1,))
    ours, theirs = (pytensor.function([x, A], x**A, mode=m)(np.full(1, 0.995), 2.0) for m in (mode, REFERENCE))
    np.testing.assert_array_equal(ours, theirs)


@OURS
def test_arrays_without_elements(mode):
    outputs = [V + 1, V.sum(), M.sum(axis=0), M.T, pt.concatenate([V, V]), pt.switch(V > 0, V, -V), pt.dot(M, V)]
    values = np.zeros(0), np.zeros((2, 0))
    results = pytensor.function([V, M], outputs, mode=mode)(*values)
    assert [value.shape for value in results] == [(0,), (), (0,), (0, 2), (0,), (0,), (2,)]
    assert results[1] == 0
    np.testing.assert_array_equal(results[-1], 0)


def test_what_has_a_line_of_its_own():
    rows = pt.dmatrix(shape=(2, 3))
    plain = [
        *EXPRESSIONS["ranges"],
        rows[K].set(rows[0]),
        *EXPRESSIONS["arithmetic"],
        *EXPRESSIONS["switch"],
        *EXPRESSIONS["comparisons"],
        M.T,
        V[1:],
        M.sum(axis=0),
    ]
    for expression in plain:
        assert not isinstance(converted(expression.owner), Called), expression
    for expression in (pt.dot(M, V), rows[K].inc(rows[0]), rows[K].set(1.0), M[K].set(V), rows[K:].set(rows)):
        assert isinstance(converted(expression.owner), Called), expression


@OURS
def test_gradients_of_products(mode):
    """They go through a product without zeros, which NumPy has no function of numbers for."""
    x = pt.dvector("x")
    gradient = pytensor.function([x], pytensor.grad(pt.prod(x), x), mode=mode)
    np.testing.assert_array_equal(gradient(np.array([1.0, 2.0, 3.0])), [6, 3, 2])
    np.testing.assert_array_equal(gradient(np.array([1.0, 0.0, 3.0])), [0, 3, 0])


@OURS
def test_loops(mode):
    def body(x, total, count):
        return [x / 2, total + x.sum(), count + 1], x.sum() < A

    outputs = optapi.repeat(body, [M, pt.constant(0.0), pt.constant(0)], K)
    function = pytensor.function([M, A, K], outputs, mode=mode)
    for start, least, steps in ((VALUES[M], 1.0, 20), (VALUES[M], 0.0, 5), (VALUES[M], 100.0, 5), (VALUES[M], 1.0, 0)):
        x, total, count = start, 0.0, 0
        while count < steps:
            x, total, count, done = x / 2, total + x.sum(), count + 1, x.sum() < least
            if done:
                break
        for result, expected in zip(function(start, least, steps), (x, total, count), strict=True):
            assert type(result) is np.ndarray
            assert np.array_equal(result, expected)


def test_results_are_not_tied_to_arguments():
    value = np.ones(3)
    same, part = pytensor.function([V], [V, V[1:]], mode=STEP)(value)
    value[:] = 5
    assert np.array_equal(same, np.ones(3))
    assert np.array_equal(part, np.ones(2))


@OURS
def test_nothing_is_held_after_a_call(mode):
    function = pytensor.function([V], [pt.cumsum(V) * 2], mode=mode)
    value = np.ones(3)
    watched = weakref.ref(value)
    function(value)
    del value
    gc.collect()
    assert watched() is None


@OURS
def test_updates_and_generators(mode):
    count, rng = pytensor.shared(0), pt.random.shared_rng(seed=1)
    next_rng, draw = rng.normal(size=(2,))
    function = pytensor.function([], [draw], updates={count: count + 1, rng: next_rng}, mode=mode)
    twin = np.random.default_rng(1)
    for _ in range(2):
        np.testing.assert_array_equal(function()[0], twin.normal(size=2))
    assert count.get_value() == 2


@OURS
def test_errors_of_floating_point_are_quiet(mode):
    with np.errstate(all="raise"):
        assert pytensor.function([A, B], A / (B - B), mode=mode)(1.0, 2.0) == np.inf


def test_no_c_and_no_numba(monkeypatch):
    from pytensor.link.c import basic

    def refuse(*args, **kwargs):
        raise AssertionError("C or numba was called")

    monkeypatch.setattr(basic.CLinker, "__compile__", refuse)
    monkeypatch.setattr(basic.CLinker, "make_thunk", refuse)
    import numba

    monkeypatch.setattr(numba, "njit", refuse)
    monkeypatch.setattr(numba, "jit", refuse)
    x = optapi.minimize(np.zeros(5), lambda x: np.sum((x - 1) ** 2), lambda x: 2 * (x - 1), optapi.lbfgs, memory=7)
    np.testing.assert_allclose(x, 1)


@pytest.fixture
def no_compilers(monkeypatch):
    """Any compilation by numba or by the C linker fails."""
    from numba.core.dispatcher import Dispatcher
    from pytensor.link.c.cmodule import ModuleCache

    def fails(*args, **kwargs):
        raise AssertionError("a compiler was called")

    monkeypatch.setattr(Dispatcher, "compile", fails)
    monkeypatch.setattr(ModuleCache, "module_from_key", fails)


def test_the_fixture_notices_compilers(no_compilers):
    x = pt.dvector("x")
    for mode in ("NUMBA", "CVM"):
        with pytest.raises(AssertionError, match="a compiler was called"):
            pytensor.function([x], pt.sum(pt.exp(x) * 1.2345678), mode=mode)(np.ones(3))


def test_nothing_is_compiled(no_compilers):
    p, stop = pytensor.shared(np.zeros(3), name="p"), pytensor.shared(0, name="stop")
    wide, stops = pytensor.shared(np.ones((2, 3))), pytensor.shared(np.zeros(2, "int64"))
    updates = optapi.lbfgs([p], pt.sum(pt.exp(p) - 2 * p), stop=stop)
    together = optapi.loop(optapi.batch(updates, {p: wide, stop: stops}), 20, stops)
    pytensor.function([], [], updates=together, mode=optapi.PYTHON)()
    np.testing.assert_allclose(wide.get_value(), np.log(2), rtol=1e-5)


@OURS
def test_a_softmax(no_compilers, mode):
    """Its inner graph is the one that a rewrite recognizes as a softmax."""
    x, value = pt.dmatrix("x"), np.array([[0.0, 0.0], [1.0, 3.0]])
    for name in ("softmax", "log_softmax"):
        output = getattr(pt.special, name)(x, axis=1)
        run = pytensor.function([x], [output, pytensor.grad(pt.sum(output * [1.0, 2.0]), x)], mode=mode)
        result, gradient = run(value)
        np.testing.assert_allclose(result, getattr(special, name)(value, axis=1), rtol=1e-12)
        weights, p = np.array([1.0, 2.0]), special.softmax(value, axis=1)
        products = p * (weights - (p @ weights)[:, None]) if name == "softmax" else weights - 3 * p
        np.testing.assert_allclose(gradient, products, rtol=1e-12)


def test_sums_and_products_of_many_large_arrays():
    """As arrays, not element by element."""
    x = [pt.dvector() for _ in range(4)]
    run = pytensor.function(x, [x[0] + x[1] + x[2] + x[3], x[0] * x[1] * x[2] * x[3]], mode=optapi.PYTHON)
    values = [np.full(100_000, v) for v in (1.0, 2.0, 3.0, 4.0)]
    total, product = run(*values)
    np.testing.assert_array_equal(total, 10.0)
    np.testing.assert_array_equal(product, 24.0)


def test_ops_keep_what_other_modes_compiled():
    """The same node in a function of another mode, before and after."""
    x = pt.dvector("x")
    [value] = optapi.repeat(lambda v: ([2 * v], pt.constant(np.bool_(False))), [x], 3)
    for mode in (optapi.PYTHON, "FAST_COMPILE", optapi.PYTHON):
        np.testing.assert_array_equal(pytensor.function([x], value, mode=mode)(np.ones(2)), 8.0)


# Results share memory with nothing

X, Y = (pytensor.shared(value, name=name, shape=(3,)) for name, value in (("x", np.ones(3)), ("y", np.full(3, 2.0))))
GIVEN = pt.tensor("given", dtype="float64", shape=(3,))
KEPT = pt.constant(np.arange(3.0))
NONE = pt.constant(np.bool_(False))

SHARING = {
    "choice": lambda: pt.switch(C, X, GIVEN),
    "choice of a constant": lambda: pt.switch(C, KEPT, GIVEN),
    "view of a choice": lambda: pt.switch(C, X, GIVEN)[1:],
    "transposed choice": lambda: pt.switch(C, X, GIVEN)[None].T,
    "choice of choices": lambda: pt.switch(C, pt.switch(K, Y, X), pt.switch(K, GIVEN, X)),
    "lazy": lambda: ifelse(C, X, GIVEN),
    "lazy view": lambda: ifelse(C, X, GIVEN)[::-1],
    "loop": lambda: optapi.repeat(lambda v: ([v + 1], NONE), [GIVEN], C)[0],
    "loop that keeps": lambda: optapi.repeat(lambda v, w: ([w, v], NONE), [X, GIVEN], C)[0],
    "filled": lambda: pt.fill(pt.zeros(3), 2.0),
    "constant": lambda: KEPT,
    "input": lambda: GIVEN,
    "shared": lambda: X,
    "view": lambda: GIVEN[1:],
    "reversed": lambda: X[::-1],
    "expanded": lambda: X[None],
    "reshaped": lambda: GIVEN.reshape((3, 1)),
    "checked": lambda: pt.specify_shape(GIVEN, (3,)),
    "asserted": lambda: pytensor.raise_op.Assert("no")(GIVEN, C > -5),
    "identity": lambda: pt.tensor_copy(GIVEN),
    "filled like": lambda: pt.second(X, GIVEN),
    "diagonal": lambda: pt.diag(pt.switch(C, X, GIVEN)[None] * np.ones((3, 1))),
}


@pytest.mark.parametrize("copied", [False, True], ids=["", "copied"])
@pytest.mark.parametrize("choice", [(0, 0), (0, 1), (1, 0), (2, 1)])
@pytest.mark.parametrize("name", SHARING)
def test_results_share_memory_with_nothing(name, choice, copied):
    outputs = [SHARING[name](), SHARING[name](), pt.switch(C, X, GIVEN)]
    run = pytensor.function([GIVEN, C, K], [*outputs, outputs[0]], mode=optapi.PYTHON, on_unused_input="ignore")
    run = copy.copy(run) if copied else run
    given = np.array([5.0, 6.0, 7.0])
    results = run(given, *choice)
    everything = [given, KEPT.data, *(v.get_value(borrow=True) for v in (X, Y)), *results]
    for i, one in enumerate(everything):
        assert not any(np.shares_memory(one, other) for other in everything[i + 1 :])
    expected = [value.copy() for value in results]
    for value in results:
        value[...] = np.nan
    for value, wanted in zip(run(given, *choice), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("choice", [0, 1])
@pytest.mark.parametrize("lazy", [False, True], ids=["switch", "ifelse"])
def test_updates_share_memory_with_nothing(choice, lazy):
    x, y, z = (pytensor.shared(np.full(3, v), name=n, shape=(3,)) for n, v in (("x", 1.0), ("y", 2.0), ("z", 3.0)))
    chosen = ifelse(C, x, y) if lazy else pt.switch(C, x, y)
    run = pytensor.function(
        [C, GIVEN], [chosen, x], updates={x: chosen, y: x, z: pt.switch(C, GIVEN, z)}, mode=optapi.PYTHON
    )
    given, values = np.full(3, 4.0), (1.0, 2.0, 3.0)
    for _ in range(3):
        result, before = run(choice, given)
        now = values[0] if choice else values[1]
        assert np.all(result == now)
        assert np.all(before == values[0])
        values = (now, values[0], 4.0 if choice else values[2])
        held = [v.get_value(borrow=True) for v in (x, y, z)]
        for value, wanted in zip(held, values, strict=True):
            np.testing.assert_array_equal(value, wanted)
        everything = [*held, given, result]
        for i, one in enumerate(everything):
            assert not any(np.shares_memory(one, other) for other in everything[i + 1 :])


def test_what_is_borrowed_is_not_copied():
    outputs = [pytensor.Out(pt.switch(C, X, GIVEN), borrow=True)]
    given = np.ones(3)
    [result] = pytensor.function([GIVEN, C], outputs, mode=optapi.PYTHON)(given, 0)
    assert np.shares_memory(result, given)
    [result] = pytensor.function([GIVEN, C], [pt.switch(C, X, GIVEN)], mode=STEP)(given, 0)
    assert np.shares_memory(result, given)


def in_place(run):
    """The operations in place in a function."""
    return [node.op for node in run.maker.fgraph.apply_nodes if node.op.destroy_map]


@pytest.mark.parametrize("lazy", [False, True], ids=["switch", "ifelse"])
def test_operations_in_place_write_over_no_choice(lazy):
    """It may be the shared variable itself, of which PyTensor does not know."""
    x = pytensor.shared(np.ones(3), shape=(3,))
    chosen = ifelse(C, x, GIVEN) if lazy else pt.switch(C, x, GIVEN)
    run = pytensor.function([GIVEN, C], pt.set_subtensor(chosen[0], 9.0), mode=optapi.PYTHON)
    assert in_place(run)
    given = np.zeros(3)
    for choice, wanted in ((1, [9.0, 1.0, 1.0]), (0, [9.0, 0.0, 0.0])):
        np.testing.assert_array_equal(run(given, choice), wanted)
    np.testing.assert_array_equal(x.get_value(), 1.0)
    np.testing.assert_array_equal(given, 0.0)


@pytest.mark.parametrize("lazy", [False, True], ids=["switch", "ifelse"])
@pytest.mark.parametrize("choice", [0, 1])
def test_a_choice_keeps_its_value_when_its_source_is_written_over(choice, lazy):
    x = pytensor.shared(np.ones(3), shape=(3,))
    chosen = ifelse(C, x, GIVEN) if lazy else pt.switch(C, x, GIVEN)
    total = (chosen * pt.arange(3)).sum()
    updates = {x: pt.set_subtensor(x[1], 9.0)}
    outputs = [total, pytensor.Out(chosen, borrow=True)]
    run = pytensor.function([GIVEN, C], outputs, updates=updates, mode=optapi.PYTHON)
    assert in_place(run)
    result, array = run(np.zeros(3), choice)
    assert result == (3.0 if choice else 0.0)
    np.testing.assert_array_equal(array, float(choice))
    np.testing.assert_array_equal(x.get_value(), [1.0, 9.0, 1.0])


def test_what_is_filled_once_stays_as_it_is():
    run = pytensor.function([A], pt.set_subtensor(pt.zeros(3)[1:], A), mode=optapi.PYTHON)
    for value in (1.0, 2.0):
        np.testing.assert_array_equal(run(value), [0.0, value, value])
    assert in_place(run)


def test_what_an_operation_in_place_owns_is_not_copied():
    """A shared variable that is updated, and what a turn of a loop got from the one before."""
    x = pytensor.shared(np.zeros(3), borrow=True)
    array = x.get_value(borrow=True)
    pytensor.function([], [], updates={x: pt.set_subtensor(x[0], 1.0)}, mode=optapi.PYTHON)()
    assert x.get_value(borrow=True) is array

    places = []

    @pytensor.wrap_py(itypes=[pt.dvector], otypes=[pt.dscalar])
    def where(v):
        places.append(v.__array_interface__["data"][0])
        return np.asarray(v.sum())

    [_, record] = optapi.repeat(lambda i, v: ([i + 1, pt.set_subtensor(v[i], 1 + where(v))], NONE), [np.int64(0), V], 4)
    given = np.zeros(4)
    np.testing.assert_array_equal(pytensor.function([V], record, mode=optapi.PYTHON)(given), [1.0, 2.0, 4.0, 8.0])
    np.testing.assert_array_equal(given, 0.0)
    assert len(places) == 4
    assert len(set(places)) == 1


def test_a_branch_reads_what_was_before_it_is_written_over():
    x = pytensor.shared(np.ones(3), name="x")
    written = pt.set_subtensor(x[0], 9.0)
    output = ifelse(written.sum() > 5, (x * 2).sum(), x.sum())
    run = pytensor.function([], output, updates={x: written}, mode=optapi.PYTHON)
    assert in_place(run)
    assert run() == 6.0
    np.testing.assert_array_equal(x.get_value(), [9.0, 1.0, 1.0])


@pytest.mark.parametrize("choice", [0, 1])
def test_a_turn_writes_over_one_of_two_values_that_were_chosen_alike(choice):
    def body(one, other, total, chosen):
        written = pt.set_subtensor(one[0], 100.0).sum()
        next_one = other + 1
        # Reads `other` after `one` was written over.
        return [next_one, pt.switch(chosen, next_one, other), total + (other * written).sum(), chosen], NONE

    run = pytensor.function([GIVEN, C], optapi.repeat(body, [GIVEN, GIVEN, 0.0, C], 3)[:3], mode=optapi.PYTHON)
    one, other, total = np.ones(3), np.ones(3), 0.0
    for _ in range(3):
        written = 100.0 + one[1:].sum()
        one, other, total = other + 1, other + 1 if choice else other, total + (other * written).sum()
    for result, wanted in zip(run(np.ones(3), choice), (one, other, total), strict=True):
        np.testing.assert_array_equal(result, wanted)


@OURS
def test_generators_of_the_caller_stay_as_they_are(mode):
    """Where they have no update: in a draw, in a loop and in a branch."""
    rng = pt.random.shared_rng(seed=1)
    twin = np.random.default_rng(1)
    [_, looped] = optapi.repeat(lambda r, v: (list(r.normal(size=(2,))), NONE), [rng, pt.zeros(2)], 2)
    outputs = [rng.normal(size=(2,))[1], looped, ifelse(C, rng, rng).normal(size=(2,))[1]]
    run = pytensor.function([C], outputs, mode=mode)
    expected = [twin.normal(size=2), twin.normal(size=2)]
    for choice in (0, 1):
        for result, wanted in zip(run(choice), (expected[0], expected[1], expected[0]), strict=True):
            np.testing.assert_array_equal(result, wanted)
    assert rng.get_value().bit_generator.state == np.random.default_rng(1).bit_generator.state


# Lazy conditionals


class Counted:
    """A vector function that counts its calls and fails for negative numbers."""

    def __init__(self):
        self.calls = 0

        def run(x):
            self.calls += 1
            if np.any(x < 0):
                raise ZeroDivisionError("negative")
            return x + 1

        self.op = pytensor.wrap_py(itypes=[pt.dvector], otypes=[pt.dvector])(run)


@OURS
def test_a_branch_that_is_not_chosen_does_not_run(mode):
    one, other = Counted(), Counted()
    output = ifelse(C, one.op(V) * 2, other.op(-V).sum() + V)
    run = pytensor.function([V, C], output, mode=mode)
    np.testing.assert_array_equal(run(np.ones(2), 1), 4.0)
    np.testing.assert_array_equal(run(-np.ones(2), 0), 3.0)
    assert (one.calls, other.calls) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        run(-np.ones(2), 1)


@OURS
def test_what_several_branches_share_runs_once_if_one_is_chosen(mode):
    shared, always = Counted(), Counted()
    value, base = shared.op(V), always.op(V)
    outputs = [ifelse(C, value + base, V), ifelse(K, value * 3, base), base]
    run = pytensor.function([V, C, K], outputs, mode=mode)
    for c, k, calls in ((0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)):
        shared.calls = always.calls = 0
        results = run(np.ones(2), c, k)
        expected = [4.0 if c else 1.0, 6.0 if k else 2.0, 2.0]
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted)
        assert (shared.calls, always.calls) == (calls, 1)


@OURS
def test_conditionals_in_branches_and_conditions(mode):
    counted = [Counted() for _ in range(4)]
    a, b, c, d = (each.op(V) for each in counted)
    inner = ifelse(K, a.sum() + b, b * 2)
    output = ifelse(C, ifelse(inner.sum() > 5, inner + c, inner), d)
    run = pytensor.function([V, C, K], output, mode=mode)
    for choice, key, wanted, calls in (
        (0, 0, 2.0, [0, 0, 0, 1]),
        (1, 0, 6.0, [0, 1, 1, 0]),
        (1, 1, 8.0, [1, 1, 1, 0]),
    ):
        for each in counted:
            each.calls = 0
        np.testing.assert_array_equal(run(np.ones(2), choice, key), wanted)
        assert [each.calls for each in counted] == calls


@OURS
def test_a_conditional_has_several_values_and_gradients(mode):
    first, second = ifelse(C, [A**2, V], [pt.exp(A), -V])
    outputs = [first, second, *pytensor.grad(first + second.sum(), [A, V])]
    run = pytensor.function([A, V, C], outputs, mode=mode)
    value = np.array([1.0, 2.0])
    for choice, expected in ((1, (4.0, value, 4.0, 1.0)), (0, (np.exp(2.0), -value, np.exp(2.0), -1.0))):
        for result, wanted in zip(run(2.0, value, choice), expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=1e-14)


@OURS
def test_a_conditional_in_a_loop(mode):
    counted = Counted()

    def body(x, turn):
        return [ifelse(pt.eq(turn, 2), counted.op(x), 2 * x), turn + 1], NONE

    x, _ = optapi.repeat(body, [V, np.int64(0)], 4)
    np.testing.assert_array_equal(pytensor.function([V], x, mode=mode)(np.ones(2)), 10.0)
    assert counted.calls == 1


def test_a_conditional_of_generators():
    one, other = (pt.random.shared_rng(seed=seed, name=f"rng{seed}") for seed in (1, 2))
    chosen = ifelse(C, one, other)
    next_rng, draw = chosen.normal(size=(2,))
    run = pytensor.function([C], draw, updates={one: next_rng}, mode=optapi.PYTHON)
    twin = np.random.default_rng(2)
    np.testing.assert_array_equal(run(0), twin.normal(size=2))
    assert one.get_value().bit_generator.state == twin.bit_generator.state
    assert other.get_value().bit_generator.state == np.random.default_rng(2).bit_generator.state


# What else functions do


def test_scans_and_their_gradients(no_compilers):
    """For a number of steps, and until a condition holds; gradients write into what they read."""
    w = pytensor.shared(0.5, name="w")
    values = pytensor.scan(
        lambda p, w: p * w + 1.0, outputs_info=[V], non_sequences=[w], n_steps=5, return_updates=False
    )
    gradients = pytensor.grad(values[-1].sum(), [w, V])
    doubled = pytensor.scan(lambda p: (2 * p, until(2 * p > 20)), outputs_info=[A], n_steps=99, return_updates=False)
    run = pytensor.function([V, A], [values, *gradients, doubled], mode=optapi.PYTHON)
    start, expected, slope = np.array([1.0, 2.0]), [], np.zeros(2)
    value = start
    for _ in range(5):
        value, slope = value * 0.5 + 1, value + slope * 0.5
        expected.append(value)
    for f in (run, copy.copy(run), pickle.loads(pickle.dumps(run))):
        for result, wanted in zip(
            f(start, 1.5), (expected, slope.sum(), np.full(2, 0.5**5), [3, 6, 12, 24]), strict=True
        ):
            np.testing.assert_allclose(result, wanted, rtol=1e-14)


def test_sparse_matrices(no_compilers):
    from pytensor import sparse
    from scipy.sparse import csr_matrix

    matrix = sparse.csr_matrix("matrix", dtype="float64")
    value = csr_matrix([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    product = sparse.dot(matrix, V[:, None]).ravel()
    run = pytensor.function([matrix, V], [product, matrix], mode=optapi.PYTHON)
    result, same = run(value, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(result, [7.0, 6.0])
    assert not np.shares_memory(same.data, value.data)


def test_checks_and_prints(capsys):
    checked = pytensor.raise_op.CheckAndRaise(KeyError, "a is negative")(A, A >= 0)
    run = pytensor.function([A], pytensor.printing.Print("a")(checked) * 2, mode=optapi.PYTHON)
    assert run(1.0) == 2.0
    assert capsys.readouterr().out == "a __str__ = 1.0\n"
    with pytest.raises(KeyError, match="a is negative"):
        run(-1.0)


def test_errors_are_of_their_own_type_and_name_the_node():
    counted = Counted()
    direct = counted.op(V).sum()
    [looped] = optapi.repeat(lambda v: ([counted.op(v - 1)], NONE), [V], 3)
    with pytensor.config.change_flags(exception_verbosity="medium"):
        for output in (direct, looped, ifelse(C, counted.op(V), V)):
            run = pytensor.function([V, C], output, mode=optapi.PYTHON, on_unused_input="ignore")
            with pytest.raises(ZeroDivisionError, match=r"negative[\s\S]*Apply node that caused the error: .*run"):
                run(-np.ones(2), 1)
    with pytest.raises(ValueError, match="broadcast"):
        pytensor.function([V, W], V + W, mode=optapi.PYTHON)(np.ones(2), np.ones(3, "float32"))


def test_functions_are_those_of_pytensor():
    """Without outputs, with unused inputs, trusted, profiled, copied, pickled, and as the mode of the configuration."""
    assert pytensor.function([V], [], mode=optapi.PYTHON, on_unused_input="ignore")(np.ones(2)) == []
    count = pytensor.shared(0)
    with pytensor.config.change_flags(mode=optapi.PYTHON):
        run = pytensor.function([pytensor.In(V, name="v"), A], V * A, updates={count: count + 1})
    assert isinstance(run.maker.linker, NumpyLinker)
    assert [node.op.scalar_op.name for node in run.maker.fgraph.toposort() if hasattr(node.op, "scalar_op")]
    run.trust_input = True
    np.testing.assert_array_equal(run(np.ones(2), np.array(3.0)), 3.0)
    twin, other = copy.copy(run), pickle.loads(pickle.dumps(run))
    for f in (twin, other):
        np.testing.assert_array_equal(f(v=np.ones(2), a=np.array(4.0)), 4.0)
    assert count.get_value() == 2
    profiled = pytensor.function([V], V + 1, mode=optapi.PYTHON, profile=True)
    profiled(np.ones(2))
    assert profiled.profile.fct_callcount == 1


@pytest.mark.parametrize("declared", [(None,), (3,)])
def test_an_extent_of_1_that_was_not_declared_does_not_broadcast(declared):
    """As in PyTensor's other linkers: the gradient would be that of another shape."""
    x, y = pt.dvector("x"), pt.tensor("y", shape=declared, dtype="float64")
    for output in (x + y, pt.switch(x > 0, y, 2.0 * x)):
        run = pytensor.function([x, y], output, mode=optapi.PYTHON)
        assert run(np.ones(3), np.arange(3.0)).shape == (3,)
        with pytest.raises(ValueError, match="Runtime broadcasting not allowed"):
            run(np.ones(1), np.arange(3.0))


@pytest.mark.parametrize("condition", [True, False])
@OURS
def test_what_is_written_in_place_is_not_seen_through_a_choice(mode, condition):
    n = 4
    rows, row, chosen = pt.dmatrix("rows", shape=(3, n)), pt.dvector("row", shape=(n,)), pt.bscalar("chosen")
    doubled = 2 * rows
    # Either the row itself or a view of the matrix that is then written over.
    seen = pt.switch(chosen, row, doubled[0])
    written = pt.set_subtensor(doubled[0], row + 1)
    function = pytensor.function([rows, row, chosen], [written, seen, seen.sum() + written.sum()], mode=mode)
    a, b = np.arange(3.0 * n).reshape(3, n), np.full(n, 9.0)
    new, old, total = function(a, b, condition)
    expected = b if condition else 2 * a[0]
    np.testing.assert_array_equal(old, expected)
    np.testing.assert_array_equal(new, np.vstack([b + 1, 2 * a[1:]]))
    assert total == expected.sum() + new.sum()
    np.testing.assert_array_equal(b, np.full(n, 9.0))


@pytest.mark.parametrize("condition", [True, False])
@OURS
def test_an_argument_behind_a_choice_is_not_written_over(mode, condition):
    rows, others, chosen = (pt.dmatrix(shape=(3, 4)), pt.dmatrix(shape=(3, 4)), pt.bscalar())
    picked = pt.switch(chosen, rows, others + 1)
    function = pytensor.function([rows, others, chosen], pt.set_subtensor(picked[0], 7.0), mode=mode)
    a, b = np.zeros((3, 4)), np.ones((3, 4))
    expected = (a if condition else b + 1).copy()
    expected[0] = 7
    np.testing.assert_array_equal(function(a, b, condition), expected)
    assert (a == 0).all()
    assert (b == 1).all()


@pytest.mark.parametrize("good", [True, False])
def test_rows_are_written_where_they_are(good):
    rows, row, flag = pytensor.shared(np.zeros((4, 3)), shape=(4, 3)), pt.dvector(shape=(3,)), pt.bscalar()
    new = rows
    for i in (0, 2):
        new = pt.set_subtensor(new[i], pt.switch(flag, row + i, new[i]))
    step = pytensor.function([row, flag], [], updates={rows: new}, mode=optapi.PYTHON)
    before = rows.get_value(borrow=True)
    step(np.ones(3), good)
    assert rows.get_value(borrow=True) is before
    np.testing.assert_array_equal(before[[0, 2]], np.array([[1.0] * 3, [3.0] * 3]) * good)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_are_written_as_pytensor_writes_them(dtype):
    rows, row, i = pt.dmatrix(shape=(2, 3)), pt.tensor(dtype=dtype, shape=(3,)), pt.lscalar()
    outputs = [rows[i].set(row), rows[i].set(rows[1 + i] + 1), rows[i].set(rows[0]), rows[i, ::-1].set(rows[0])]
    given = np.arange(6.0).reshape(2, 3), np.arange(7, 10).astype(dtype), -1
    before = given[0].copy()
    ours, theirs = (
        pytensor.function([rows, row, i], outputs, mode=mode, on_unused_input="ignore")(*given)
        for mode in (STEP, REFERENCE)
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(given[0], before)
