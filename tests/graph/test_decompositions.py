"""Singular value decompositions and eliminations of small matrices, in all modes and in batches."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from optapi import PYTHON
from optapi.graph.decompositions import decomposed, eliminated
from optapi.graph.loops import wide_graph


MODES = [
    PYTHON,
    pytest.param("NUMBA", marks=pytest.mark.numba),
    pytest.param("JAX", marks=pytest.mark.jax),
]


def hard(rng):
    """Pairs of a transposed matrix and a vector: any, of rank 2, with zeros, graded, of one column, of few rows."""
    for n, m in ((3, 30), (16, 20), (1, 5), (2, 2), (5, 2), (4, 1)):
        yield rng.normal(size=(n, m)), rng.normal(size=m)
    yield rng.normal(size=(5, 2)) @ rng.normal(size=(2, 9)), rng.normal(size=9)
    matrix = rng.normal(size=(4, 9))
    yield np.where(np.arange(4)[:, None] % 2, 0.0, matrix), rng.normal(size=9)
    yield np.zeros((3, 6)), rng.normal(size=6)
    yield 10.0 ** -np.arange(0, 160, 40)[:, None] * matrix, rng.normal(size=9)
    yield 1e200 * matrix, rng.normal(size=9)
    yield np.repeat(matrix[:1], 4, axis=0), rng.normal(size=9)
    yield np.vander(np.linspace(0, 1, 9), 6).T, rng.normal(size=9)


@pytest.mark.parametrize("mode", MODES)
def test_as_numpy(mode):
    A, b = pt.dmatrix(), pt.dvector()
    function = pytensor.function([A, b], decomposed(A, b), mode=mode)
    for transposed, vector in hard(np.random.default_rng(0)):
        right, s, along = map(np.asarray, function(transposed, vector))
        k = min(transposed.shape)
        assert (right.shape, s.shape, along.shape) == ((len(transposed), k), (k,), (k,))
        expected = np.linalg.svd(transposed, compute_uv=False)
        np.testing.assert_allclose(np.sort(s)[::-1], expected, rtol=1e-13, atol=4e-15 * expected[0])
        counts = s > 1e-14 * expected[0]
        gram = right[:, counts].T @ right[:, counts]
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-13)
        scale = expected[0] * np.linalg.norm(vector) or 1.0
        np.testing.assert_allclose(right @ (s * along) / scale, transposed @ vector / scale, atol=1e-14)
        # The rows of A with V are U S.
        image = transposed.T @ right[:, counts] / s[counts]
        np.testing.assert_allclose(image.T @ vector, along[counts], atol=1e-12 * np.linalg.norm(vector))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wide", ["both", "matrix", "vector"])
def test_in_a_batch(mode, wide):
    A, b = pt.tensor(shape=(3, 5), dtype="float64"), pt.tensor(shape=(5,), dtype="float64")
    many = pt.tensor(shape=(4, 3, 5), dtype="float64"), pt.tensor(shape=(4, 5), dtype="float64")
    replaced = {v: w for v, w in zip((A, b), many, strict=True) if wide in ("both", "matrix" if v is A else "vector")}
    outputs = wide_graph(decomposed(A, b), replaced)
    function = pytensor.function([replaced.get(v, v) for v in (A, b)], outputs, mode=mode)
    rng = np.random.default_rng(1)
    matrices, vectors = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 5))
    given = [v if w in replaced.values() else v[0] for v, w in zip((matrices, vectors), many, strict=True)]
    right, s, along = map(np.asarray, function(*given))
    for i in range(4):
        matrix, vector = (
            v[i] if w in replaced.values() else v[0] for v, w in zip((matrices, vectors), many, strict=True)
        )
        np.testing.assert_allclose(right[i] @ (s[i] * along[i]), matrix @ vector, atol=1e-13)
        np.testing.assert_allclose(np.sort(s[i])[::-1], np.linalg.svd(matrix, compute_uv=False), rtol=1e-13)


@pytest.mark.parametrize("mode", [*MODES, pytest.param("CVM", marks=pytest.mark.c)])
def test_linear_systems(mode):
    """A negative definite half and one that is positive definite in front of it, as of L-BFGS; triangles; batches."""
    A, B, b, wide = pt.dmatrix(), pt.dmatrix(), pt.dvector(), pt.dtensor3()
    outputs = [eliminated(A, B), eliminated(A, b), *wide_graph([eliminated(A, B)], {A: wide})]
    function = pytensor.function([A, B, b, wide], outputs, mode=mode)
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        roots = rng.normal(size=(2, size, size))
        negative, positive = (root @ root.T + np.eye(size) for root in roots)
        quasi = np.block([[-negative, roots[0].T], [roots[0], positive]])
        for matrix in (quasi, np.triu(quasi) + 3 * np.eye(2 * size)):
            many, right = np.stack([matrix, 2 * matrix, matrix.T]), rng.normal(size=(2 * size, 3))
            found = list(map(np.asarray, function(matrix, right, right[:, 0], many)))
            np.testing.assert_allclose(matrix @ found[0], right, atol=1e-9)
            np.testing.assert_allclose(matrix @ found[1], right[:, 0], atol=1e-9)
            np.testing.assert_allclose(many @ found[2], np.broadcast_to(right, (3, *right.shape)), atol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_a_singular_member_does_not_take_the_others_along(mode):
    A, B = pt.dtensor3(), pt.dtensor3()
    core, right = pt.dmatrix(), pt.dmatrix()
    function = pytensor.function([A, B], wide_graph([eliminated(core, right)], {core: A, right: B}), mode=mode)
    matrices, ones = np.stack([2 * np.eye(3), np.zeros((3, 3)), 4 * np.eye(3)]), np.ones((3, 3, 1))
    with np.errstate(all="ignore"):
        [found] = map(np.asarray, function(matrices, ones))
    np.testing.assert_array_equal(found[[0, 2], :, 0], [[0.5] * 3, [0.25] * 3])
    assert not np.isfinite(found[1]).any()
