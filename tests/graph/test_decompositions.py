"""Singular value decompositions of small matrices, in all modes and in batches."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from optapi import PYTHON
from optapi.graph.decompositions import decomposed
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
