"""The order of numbers, and cumulative sums in an order.

PyTensor's own take a quarter of a minute to compile under numba, and in a batch go one member after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node


class Order(Op):
    """The positions of numbers along the last axis in ascending order, and the numbers in this order."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        (keys,) = inputs
        return Apply(self, [keys], [keys.type.clone(dtype="int64")(), keys.type()])

    def perform(self, node: Apply | None, inputs: Any, outputs: Any) -> None:
        (keys,) = inputs
        outputs[0][0] = order = np.argsort(keys, axis=-1, kind="stable")
        outputs[1][0] = np.take_along_axis(keys, order, -1)

    def infer_shape(self, *arguments: Any) -> list[Any]:
        # PyTensor 3.0 passes the graph as the first argument.
        (shape,) = arguments[-1]
        return [shape, shape]


class CumulativeSums(Op):
    """The cumulative sums of the rows of a matrix, the columns taken in an order."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        matrix, order = inputs
        return Apply(self, [matrix, order], [matrix.type()])

    def perform(self, node: Apply | None, inputs: Any, outputs: Any) -> None:
        matrix, order = inputs
        outputs[0][0] = np.cumsum(np.take_along_axis(matrix, order[..., None, :], -1), axis=-1)

    def infer_shape(self, *arguments: Any) -> list[Any]:
        return [arguments[-1][0]]


@_vectorize_node.register(Order)
def _vectorize_order(op: Order, node: Apply, *inputs: Any) -> Sequence[Any]:
    return op.make_node(*inputs).outputs


@_vectorize_node.register(CumulativeSums)
def _vectorize_sums(op: CumulativeSums, node: Apply, *inputs: Any) -> Sequence[Any]:
    matrix, order = inputs
    if matrix.type.ndim < order.type.ndim + 1:
        matrix = pt.broadcast_to(matrix, [*order.shape[:-1], *matrix.shape[-2:]])
    order = pt.broadcast_to(order, [*matrix.shape[:-2], order.shape[-1]])
    return op.make_node(matrix, order).outputs


def in_order(keys: Any) -> list[Any]:
    """The positions of the numbers of a vector in ascending order, and the numbers in this order."""
    return list(Order().make_node(keys).outputs)


def cumulative(matrix: Any, order: Any) -> Any:
    """The cumulative sums of the rows of a matrix, the columns taken in `order`."""
    return CumulativeSums().make_node(matrix, pt.as_tensor(order)).outputs[0]
