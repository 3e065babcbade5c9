"""`Loop`, `Product`, `Order` and `CumulativeSums` under JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from pytensor.graph.basic import Apply
from pytensor.link.jax.dispatch.basic import jax_funcify

from .compat import inner_graph
from .loops import Loop
from .ordered import CumulativeSums, Order
from .products import Product, with_products


@jax_funcify.register(Loop)
def jax_funcify_Loop(op: Loop, node: Apply | None = None, **kwargs: Any) -> Any:
    """``jax.lax.while_loop`` over the converted body."""
    if op.records_unknown:
        raise ValueError(
            "a loop with a stop, feeds or a symbolic number of steps cannot have traces under JAX, which has no arrays "
            "of unknown length; leave trace out, pass an int for steps and no stop, or compile with mode='NUMBA'"
        )
    kwargs.pop("storage_map", None)
    # XLA sums ten times as long.
    body = jax_funcify(with_products(inner_graph(op), fixed=False), **kwargs)
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


@jax_funcify.register(Product)
def jax_funcify_Product(op: Product, **kwargs: Any) -> Any:
    """``jnp.dot`` in full precision, of which GPUs else have only a part."""
    if op.axis:
        return lambda matrix, vector: jnp.dot(matrix, vector, precision="highest")
    return lambda matrix, vector: jnp.dot(vector, matrix, precision="highest")


@jax_funcify.register(Order)
def jax_funcify_Order(op: Order, **kwargs: Any) -> Any:
    """``jnp.argsort``."""

    def in_order(keys: Any) -> Any:
        order = jnp.argsort(keys, axis=-1)
        return order, jnp.take_along_axis(keys, order, -1)

    return in_order


@jax_funcify.register(CumulativeSums)
def jax_funcify_CumulativeSums(op: CumulativeSums, **kwargs: Any) -> Any:
    """``jnp.cumsum``."""
    return lambda matrix, order: jnp.cumsum(jnp.take_along_axis(matrix, order[..., None, :], -1), axis=-1)
