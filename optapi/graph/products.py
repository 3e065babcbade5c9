"""Products of a matrix and a vector, written as sums, without the matrix of their terms.

Rules write ``pt.sum(matrix * vector, axis=1)``, which any backend and a batch can do. Where it is computed, the terms
would take as much memory as the matrix, which for L-BFGS is nearly all that there is.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import graph_rewriter
from pytensor.scalar.basic import Mul
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Sum


# Up to so many terms are computed at once.
TERMS = 2**15


def factors(node: Any) -> tuple[Any, Any, int] | None:
    """The matrix, the vector and the axis, if `node` is a sum over their products."""
    product = node.inputs[0].owner if isinstance(node.op, Sum) else None
    if product is None or not isinstance(product.op, Elemwise) or not isinstance(product.op.scalar_op, Mul):
        return None
    for axis, order in ((1, ("x", 0)), (0, (0, "x"))):
        for matrix, wide in (product.inputs, product.inputs[::-1]) if len(product.inputs) == 2 else ():
            expansion = wide.owner
            if (
                node.op.axis == (axis,)
                and matrix.type.ndim == 2
                and not any(matrix.type.broadcastable)
                and expansion is not None
                and isinstance(expansion.op, DimShuffle)
                and expansion.op.new_order == order
                and expansion.inputs[0].type.ndim == 1  # not the column of a matrix
                and matrix.type.dtype == wide.type.dtype == node.outputs[0].type.dtype
            ):
                return matrix, expansion.inputs[0], axis
    return None


def known(*variables: Any) -> bool:
    """Whether the shapes of `variables` are known, so that nothing can broadcast that was not declared."""
    return all(None not in variable.type.shape for variable in variables)


def by_rows(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The products of the rows with `vector`, to the bit those of ``(matrix * vector).sum(axis=1)``."""
    if matrix.size <= TERMS:
        return np.add.reduce(matrix * vector, axis=1)
    return np.array([np.add.reduce(row * vector) for row in matrix], matrix.dtype)


def by_columns(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The same of the columns: ``(matrix * vector[:, None]).sum(axis=0)``."""
    if matrix.size <= TERMS:
        return np.add.reduce(matrix * vector[:, None], axis=0)
    result = np.empty(matrix.shape[1], matrix.dtype)
    for begin in range(0, len(result), TERMS):
        part, columns = result[begin : begin + TERMS], matrix[:, begin : begin + TERMS]
        np.multiply(columns[0], vector[0], out=part)
        for row, weight in zip(columns[1:], vector[1:], strict=True):
            part += row * weight
    return result


class Product(Op):
    """A matrix times a vector, by its rows (axis 1) or by its columns (axis 0)."""

    __props__ = ("axis",)

    def __init__(self, axis: int):
        self.axis = axis

    def make_node(self, *inputs: Any) -> Apply:
        matrix, vector = inputs
        return Apply(self, [matrix, vector], [vector.type.clone(shape=(matrix.type.shape[1 - self.axis],))()])

    def perform(self, node: Apply | None, inputs: Any, outputs: Any) -> None:
        outputs[0][0] = (by_rows if self.axis else by_columns)(*inputs)

    def infer_shape(self, *arguments: Any) -> list[Any]:
        # PyTensor 3.0 passes the graph as the first argument.
        return [(arguments[-1][0][1 - self.axis],)]


def with_products(fgraph: Any, terms: int = 0, fixed: bool = True) -> Any:
    """`fgraph` with a `Product` for each sum over more than `terms` products of a matrix and a vector.

    With `fixed` only where their shapes are known, as it has to be where nothing checks them when it runs.
    """
    for node in fgraph.toposort():
        found = factors(node)
        if found is not None:
            matrix, vector, axis = found
            if not fixed or (known(matrix, vector) and prod(matrix.type.shape) > terms):
                fgraph.replace(node.outputs[0], Product(axis)(matrix, vector), reason="optapi_products")
    return fgraph


@graph_rewriter
def _products(fgraph: Any) -> None:
    with_products(fgraph)


@graph_rewriter
def _long_products(fgraph: Any) -> None:
    # A call of Python takes longer than C takes for a few numbers.
    with_products(fgraph, TERMS)


# Before elementwise functions are fused.
optdb.register("optapi_products", _products, "numba", position=48.5)
optdb.register("optapi_long_products", _long_products, "fast_run", "cxx_only", position=48.5)
