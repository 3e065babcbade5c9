"""The order of numbers and cumulative sums in an order, in all modes and in batches."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from optapi import PYTHON
from optapi.graph.loops import wide_graph
from optapi.graph.ordered import cumulative, in_order


MODES = [
    PYTHON,
    pytest.param("NUMBA", marks=pytest.mark.numba),
    pytest.param("CVM", marks=pytest.mark.c),
    pytest.param("JAX", marks=pytest.mark.jax),
]


@pytest.mark.parametrize("mode", MODES)
def test_as_numpy(mode):
    keys, matrix = pt.vector(shape=(40,), dtype="float64"), pt.matrix(shape=(3, 40), dtype="float64")
    order, ordered = in_order(keys)
    function = pytensor.function([keys, matrix], [order, ordered, cumulative(matrix, order)], mode=mode)
    rng = np.random.default_rng(0)
    for ties in (False, True):
        values, rows = rng.normal(size=40), rng.normal(size=(3, 40))
        if ties:
            values = np.where(rng.random(40) < 0.5, np.inf, np.round(values))
        order, ordered, sums = map(np.asarray, function(values, rows))
        np.testing.assert_array_equal(ordered, np.sort(values))
        np.testing.assert_array_equal(values[order], ordered)
        np.testing.assert_array_equal(np.sort(order), np.arange(40))
        np.testing.assert_allclose(sums, np.cumsum(rows[:, order], axis=1), atol=1e-13)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wide", ["both", "matrix"])
def test_in_a_batch(mode, wide):
    keys, matrix = pt.vector(shape=(5,), dtype="float64"), pt.matrix(shape=(3, 5), dtype="float64")
    order, _ = in_order(keys)
    many = pt.matrix(shape=(4, 5), dtype="float64"), pt.tensor(shape=(4, 3, 5), dtype="float64")
    replaced = dict(zip((keys, matrix), many, strict=True)) if wide == "both" else {matrix: many[1]}
    outputs = wide_graph([cumulative(matrix, order)], replaced)
    function = pytensor.function([replaced.get(keys, keys), many[1]], outputs, mode=mode)
    rng = np.random.default_rng(1)
    values, rows = rng.normal(size=(4, 5)), rng.normal(size=(4, 3, 5))
    [found] = function(values if wide == "both" else values[0], rows)
    for member in range(4):
        order = np.argsort(values[member if wide == "both" else 0])
        np.testing.assert_allclose(found[member], np.cumsum(rows[member][:, order], axis=1), atol=1e-13)
