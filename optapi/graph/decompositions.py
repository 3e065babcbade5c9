"""Small systems of linear equations, and singular value decompositions, as the rules need them.

LAPACK takes a microsecond per call before it begins, and in a batch goes one member after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node


# Up to so many columns rotations are faster than LAPACK, and above LAPACK is.
SMALL = 16
# Each turn of rotations squares what is left of the angles: about five are needed, and more where rows are dependent.
SWEEPS = 30


class Decomposition(Op):
    r"""The singular value decomposition :math:`A = U S V^T` of a matrix, and a vector :math:`b`, as :math:`U^T b`.

    The inputs are :math:`A^T` and :math:`b`; the outputs :math:`V`, the singular values, in no order, and
    :math:`U^T b`. Where a singular value is 0 the column of :math:`V` may be 0 too.

    Compiled for a few columns it is a QR decomposition by reflections, and rotations of the rows of R until they are
    orthogonal, which finds all singular values of a matrix without full rank, or with columns of zeros, like any other
    (Golub and Van Loan, Matrix computations, 4th edition, algorithm 5.2.1 and section 8.6.3).
    """

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        transposed, vector = inputs
        n, m = transposed.type.shape[-2:]
        k = None if n is None or m is None else min(n, m)
        axes, dtype = transposed.type.shape[:-2], transposed.type.dtype
        shapes = ((*axes, n, k), (*axes, k), (*axes, k))
        return Apply(self, [transposed, vector], [pt.tensor(shape=shape, dtype=dtype) for shape in shapes])

    def perform(self, node: Apply | None, inputs: Any, outputs: Any) -> None:
        transposed, vector = inputs
        outputs[0][0], outputs[1][0], left = np.linalg.svd(transposed, full_matrices=False)
        outputs[2][0] = np.asarray((left * vector[..., None, :]).sum(axis=-1))

    def infer_shape(self, *arguments: Any) -> list[Any]:
        # PyTensor 3.0 passes the graph as the first argument.
        *axes, n, m = arguments[-1][0]
        k = pt.minimum(n, m)
        return [(*axes, n, k), (*axes, k), (*axes, k)]


@_vectorize_node.register(Decomposition)
def _vectorize_decomposition(op: Decomposition, node: Apply, *inputs: Any) -> Sequence[Any]:
    transposed, vector = inputs
    if transposed.type.ndim < vector.type.ndim + 1:
        transposed = pt.broadcast_to(transposed, [*vector.shape[:-1], *transposed.shape[-2:]])
    vector = pt.broadcast_to(vector, [*transposed.shape[:-2], vector.shape[-1]])
    return op.make_node(transposed, vector).outputs


def decomposed(transposed: Any, vector: Any) -> list[Any]:
    """What a `Decomposition` has of a matrix, given transposed, and a vector."""
    return list(Decomposition().make_node(transposed, vector).outputs)


class Elimination(Op):
    """The solution X of A X = B by Gaussian elimination, infinite or NaN where A is singular."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        matrix, right = inputs
        return Apply(self, [matrix, right], [right.type()])

    def perform(self, node: Apply | None, inputs: Any, outputs: Any) -> None:
        matrix, right = inputs
        try:
            outputs[0][0] = np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:  # of all members, although one is at fault
            members = [_solution(a, b) for a, b in zip(_matrices(matrix), _matrices(right), strict=True)]
            outputs[0][0] = np.array(members).reshape(right.shape)

    def infer_shape(self, *arguments: Any) -> list[Any]:
        return [arguments[-1][1]]


def _matrices(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, *array.shape[-2:])


def _solution(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)


@_vectorize_node.register(Elimination)
def _vectorize_elimination(op: Elimination, node: Apply, *inputs: Any) -> Sequence[Any]:
    matrix, right = inputs
    if matrix.type.ndim < right.type.ndim:
        matrix = pt.broadcast_to(matrix, [*right.shape[:-2], *matrix.shape[-2:]])
    right = pt.broadcast_to(right, [*matrix.shape[:-2], *right.shape[-2:]])
    return op.make_node(matrix, right).outputs


def eliminated(matrix: Any, right: Any) -> Any:
    """The solution X of `matrix` X = `right`, a vector or a matrix, by elimination, under JAX without pivots.

    It raises nothing, and without pivots it is as good for the matrices of a `CompactHessian`, whose first half is
    negative definite and leaves a second half that is positive definite, and for triangles whose rows and columns are
    in another order.
    """
    matrix, right = pt.as_tensor(matrix), pt.as_tensor(right)
    if right.type.ndim == 1:
        return eliminated(matrix, right[:, None])[:, 0]
    return Elimination().make_node(matrix, right).outputs[0]
