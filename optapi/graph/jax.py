"""`Loop` under JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.jax.dispatch.basic import jax_funcify
from pytensor.scalar.basic import Mul
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Sum

from .compat import inner_graph
from .loops import Loop


@jax_funcify.register(Loop)
def jax_funcify_Loop(op: Loop, node: Apply | None = None, **kwargs: Any) -> Any:
    """``jax.lax.while_loop`` over the converted body."""
    if op.records_unknown:
        raise ValueError(
            "a loop with a stop, feeds or a symbolic number of steps cannot have traces under JAX, which has no arrays "
            "of unknown length; leave trace out, pass an int for steps and no stop, or compile with mode='NUMBA'"
        )
    kwargs.pop("storage_map", None)
    body = jax_funcify(_with_products(inner_graph(op)), **kwargs)
    count = len(op.fgraph.outputs) - 1
    types = op.output_types[:-1]

    def typed(values: Any) -> list[Any]:
        # Constants may come as Python numbers, and a carried value must not change its dtype.
        return [
            value if isinstance(value, dict) else jnp.asarray(value, type.dtype)
            for type, value in zip(types, values, strict=True)
        ]

    def loop(*arguments: Any) -> Any:
        start, given, steps = arguments[:count], arguments[count:-1], arguments[-1]

        def goes_on(carry: Any) -> Any:
            turn, done, _ = carry
            return (turn < steps) & ~done

        def turn(carry: Any) -> Any:
            turn, _, values = carry
            *values, done = body(*values, *given)
            return turn + 1, jnp.asarray(done, bool), typed(values)

        first = jnp.zeros_like(jnp.asarray(steps)), jnp.asarray(False), typed(start)
        last = jax.lax.while_loop(goes_on, turn, first)[2]
        return last[0] if count == 1 else tuple(last)

    return loop


class Product(Op):
    """A matrix times a vector, by its rows (axis 1) or by its columns (axis 0)."""

    __props__ = ("axis",)

    def __init__(self, axis: int):
        self.axis = axis

    def make_node(self, *inputs: Any) -> Apply:
        matrix, vector = inputs
        return Apply(self, [matrix, vector], [vector.type.clone(shape=(matrix.type.shape[1 - self.axis],))()])

    def perform(self, node: Apply | None, inputs: Any, outputs: Any) -> None:
        raise NotImplementedError


@jax_funcify.register(Product)
def jax_funcify_Product(op: Product, **kwargs: Any) -> Any:
    """``jnp.dot`` in full precision, of which GPUs else have only a part."""
    if op.axis:
        return lambda matrix, vector: jnp.dot(matrix, vector, precision="highest")
    return lambda matrix, vector: jnp.dot(vector, matrix, precision="highest")


def _with_products(fgraph: Any) -> Any:
    """`fgraph` with a `Product` for each sum over products of a matrix and a vector: XLA sums ten times as long."""
    for node in fgraph.toposort():
        for matrix, vector, axis in _factors(node):
            fgraph.replace(node.outputs[0], Product(axis)(matrix, vector))
    return fgraph


def _factors(node: Any) -> list[tuple[Any, Any, int]]:
    """The matrix, the vector and the axis, if `node` is a sum over their products."""
    product = node.inputs[0].owner if isinstance(node.op, Sum) else None
    if product is None or not isinstance(product.op, Elemwise) or not isinstance(product.op.scalar_op, Mul):
        return []
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
                and matrix.type.dtype == wide.type.dtype == node.outputs[0].type.dtype
            ):
                return [(matrix, expansion.inputs[0], axis)]
    return []
