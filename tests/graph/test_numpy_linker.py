"""The linker that writes a graph out: the same numbers as PyTensor's own."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery

import optapi
from optapi.drivers.steps import STEP
from optapi.graph.numpy_linker import Called, NumpyLinker, converted


AS_IT_IS = Mode("py", RewriteDatabaseQuery(include=["minimum_compile"]))

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
    "sums": [V.sum(), M.sum(axis=0), M.sum(axis=(0, 1)), W.sum(), (V > 0).sum(), pt.all(V > 0), pt.any(pt.isnan(V))],
    "extremes": [M.max(axis=1), V.max(), M.min(), M.prod(axis=0), M.mean()],
    "shapes": [M.T, V[None], A[None, None], M[:, None, :], M.ravel(), M.reshape((3, 2)), M.shape[0], V[:, None] * V],
    "parts": [V[1:], V[-1], M[1, :2], M[:, ::-1], M[K - 6], V[: J + 2], M[pt.constant(0)]],
    "filled": [pt.zeros_like(M), pt.ones((2, 3)), pt.full((K - 5,), A), pt.zeros_like(A) + 1, pt.fill(V, B)],
    "joined": [pt.concatenate([V, V[:1]]), pt.stack([A, B]), pt.concatenate([M, M], axis=1), pt.concatenate([V, W])],
    "others": [pt.dot(M, V), pt.sort(V), pt.set_subtensor(M[0], 1.0), pt.special.softmax(M), pt.cumsum(V), pt.erf(A)],
    "inputs and constants": [A, V, pt.constant(2.0), pt.constant(np.ones(2)), A, -V],
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_are_those_of_pytensor(name):
    outputs = EXPRESSIONS[name]
    inputs = list(VALUES)
    ours, theirs = (
        pytensor.function(inputs, outputs, mode=mode, on_unused_input="ignore")(*VALUES.values())
        for mode in (STEP, optapi.PYTHON)
    )
    for expression, one, other in zip(outputs, ours, theirs, strict=True):
        assert type(one) is np.ndarray, expression
        assert (one.dtype, one.shape) == (expression.type.dtype, other.shape), expression
        np.testing.assert_allclose(one, other, rtol=1e-14 if one.dtype != "float32" else 1e-6)


def test_what_has_a_line_of_its_own():
    plain = [*EXPRESSIONS["arithmetic"], *EXPRESSIONS["switch"], *EXPRESSIONS["comparisons"], M.T, V[1:], M.sum(axis=0)]
    for expression in plain:
        assert not isinstance(converted(expression.owner), Called), expression
    assert isinstance(converted(pt.dot(M, V).owner), Called)


def test_loops():
    def body(x, total, count):
        return [x / 2, total + x.sum(), count + 1], x.sum() < A

    outputs = optapi.repeat(body, [M, pt.constant(0.0), pt.constant(0)], K)
    function = pytensor.function([M, A, K], outputs, mode=STEP)
    other = pytensor.function([M, A, K], outputs, mode=optapi.PYTHON)
    for values in ((VALUES[M], 1.0, 20), (VALUES[M], 0.0, 5), (VALUES[M], 100.0, 5), (VALUES[M], 1.0, 0)):
        for one, two in zip(function(*values), other(*values), strict=True):
            assert type(one) is np.ndarray
            assert np.array_equal(one, two)


def test_results_are_not_tied_to_arguments():
    value = np.ones(3)
    same, part = pytensor.function([V], [V, V[1:]], mode=STEP)(value)
    value[:] = 5
    assert np.array_equal(same, np.ones(3))
    assert np.array_equal(part, np.ones(2))


def test_nothing_is_held_after_a_call():
    import gc
    import weakref

    function = pytensor.function([V], [pt.cumsum(V) * 2], mode=STEP)
    value = np.ones(3)
    watched = weakref.ref(value)
    function(value)
    del value
    gc.collect()
    assert watched() is None


def test_updates_and_generators():
    count, rng = pytensor.shared(0), pt.random.shared_rng(seed=1)
    following, draw = rng.normal(size=(2,))
    function = pytensor.function([], [draw], updates={count: count + 1, rng: following}, mode=STEP)
    first, second = function()[0], function()[0]
    assert count.get_value() == 2
    assert not np.array_equal(first, second)


def test_errors_of_floating_point_are_quiet():
    with np.errstate(all="raise"):
        assert pytensor.function([A, B], A / (B - B), mode=STEP)(1.0, 2.0) == np.inf


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


def test_lazy_operations_are_refused():
    try:
        from pytensor.conditional.op import ifelse
    except ImportError:  # PyTensor 3.0
        from pytensor.ifelse import ifelse

    with pytest.raises(NotImplementedError, match="lazily"):
        pytensor.function([A, B], ifelse(A > 0, A, B), mode=Mode(NumpyLinker(), None))
