"""Sums over the products of a matrix and a vector, without the matrix of their terms."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.tensor.elemwise import CAReduce

from optapi import PYTHON
from optapi.graph.numpy_linker import STEP
from optapi.graph.products import TERMS, Product, by_columns, by_rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (20, TERMS + 1), (7, 2 * TERMS), (40, 1000), (2, 3 * TERMS)])
def test_the_sums_are_those_of_numpy_to_the_bit(rows, columns, dtype):
    random = np.random.default_rng(0)
    matrix, long, short = (random.normal(size=size).astype(dtype) for size in ((rows, columns), columns, rows))
    np.testing.assert_array_equal(by_rows(matrix, long), (matrix * long).sum(axis=1))
    np.testing.assert_array_equal(by_columns(matrix, short), (matrix * short[:, None]).sum(axis=0))
    assert by_rows(matrix, long).dtype == by_columns(matrix, short).dtype == dtype


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        (PYTHON, 50),
        (STEP, 50),
        (PYTHON, TERMS),
        pytest.param("NUMBA", 50, marks=pytest.mark.numba),
        pytest.param("CVM", TERMS, marks=pytest.mark.c),
    ],
)
def test_products_in_all_modes(mode, size):
    matrix, long, short = pt.dmatrix(shape=(3, size)), pt.dvector(shape=(size,)), pt.dvector(shape=(3,))
    function = pytensor.function(
        [matrix, long, short], [(matrix * long).sum(axis=1), (short[:, None] * matrix).sum(axis=0)], mode=mode
    )
    random = np.random.default_rng(1)
    values = random.normal(size=(3, size)), random.normal(size=size), random.normal(size=3)
    rows, columns = function(*values)
    np.testing.assert_allclose(rows, values[0] @ values[1], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(columns, values[2] @ values[0], rtol=1e-10, atol=1e-10)
    ops = [node.op for node in function.maker.fgraph.toposort()]
    if isinstance(mode, str):
        assert [type(op) for op in ops] == [Product, Product]
    else:
        assert sum(isinstance(op, CAReduce) for op in ops) == 2


@pytest.mark.parametrize("mode", [PYTHON, pytest.param("NUMBA", marks=pytest.mark.numba)])
def test_a_vector_that_is_the_column_of_a_matrix(mode):
    matrix, columns = pt.dmatrix(shape=(3, 5)), pt.dmatrix(shape=(5, 1))
    function = pytensor.function([matrix, columns], (matrix * columns[:, 0]).sum(axis=1), mode=mode)
    random = np.random.default_rng(1)
    values = random.normal(size=(3, 5)), random.normal(size=(5, 1))
    np.testing.assert_allclose(function(*values), (values[0] @ values[1])[:, 0], rtol=1e-12)


def test_terms_that_are_also_an_output_are_computed():
    matrix, vector = pt.dmatrix(shape=(2, 3)), pt.dvector(shape=(3,))
    terms = matrix * vector
    function = pytensor.function([matrix, vector], [terms, terms.sum(axis=1)], mode=STEP)
    found, sums = function(np.ones((2, 3)), np.arange(3.0))
    np.testing.assert_array_equal(found, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(sums, [3, 3])
