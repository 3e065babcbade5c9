"""`Loop`, `Product`, `Order`, `CumulativeSums`, `Decomposition`, keys of generators and `Implicit` under JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from pytensor.graph.basic import Apply
from pytensor.link.jax.dispatch.basic import jax_funcify

from .compat import inner_graph
from .decompositions import SWEEPS, Decomposition, Elimination
from .generators import FromKey, ToKey
from .implicit import Implicit
from .loops import Loop
from .ordered import CumulativeSums, Order
from .products import Product, with_products


# Rotations of up to so many rows are written out.
FEW = 4


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


@jax_funcify.register(Decomposition)
def jax_funcify_Decomposition(op: Decomposition, **kwargs: Any) -> Any:
    """Reflections, and rotations of all pairs of rows that have no row in common at a time."""

    def decomposed(transposed: Any, vector: Any) -> Any:
        n, m = transposed.shape[-2:]
        k, dtype = min(n, m), transposed.dtype
        largest = jnp.max(jnp.abs(transposed), axis=(-2, -1), initial=0, keepdims=True)
        scale = jnp.where(largest > 0, largest, 1)
        # The last row is the vector. Reflections make the matrix triangular.
        work = jnp.concatenate([transposed / scale, vector[..., None, :]], axis=-2)
        for j in range(k):
            row = jnp.where(jnp.arange(m) >= j, work[..., j, :], 0)
            length, first = jnp.sqrt(jnp.sum(row**2, axis=-1)), row[..., j]
            ahead = jnp.where(first >= 0, length, -length)
            row = row.at[..., j].add(ahead)
            divisor = length * (length + jnp.abs(first))
            factor = jnp.where(divisor > 0, 1 / jnp.where(divisor > 0, divisor, 1), 0)
            along = factor[..., None] * jnp.sum(work * row[..., None, :], axis=-1)
            work = work - along[..., None] * row[..., None, :]
        rows = jnp.swapaxes(work, -2, -1)[..., :k, :]
        rows = rows * (jnp.arange(n + 1) >= jnp.arange(k)[:, None])
        rows = _rotated(rows)
        lengths = jnp.sqrt(jnp.sum(rows[..., :n] ** 2, axis=-1))
        right = rows[..., :n] / jnp.where(lengths > 0, lengths, 1)[..., None]
        return jnp.swapaxes(right, -2, -1), (lengths * scale[..., 0]).astype(dtype), rows[..., n]

    return decomposed


def _rotated(rows: Any) -> Any:
    """`rows`, whose last column goes along, rotated until they are orthogonal."""
    size = rows.shape[-2]
    count = max(size + size % 2, 2)
    half = count // 2
    rows = jnp.concatenate([rows, jnp.zeros((*rows.shape[:-2], count - size, rows.shape[-1]), rows.dtype)], axis=-2)
    small = 2 * jnp.finfo(rows.dtype).eps

    def some(turn: Any, carry: Any) -> Any:
        """Each of the first half with its partner; then all but the first row take the place of the next one."""
        quiet, rows = carry
        one, two = rows[..., :half, :], rows[..., half:, :][..., ::-1, :]
        a, b, both = (jnp.sum((x * y)[..., :-1], axis=-1) for x, y in ((one, one), (two, two), (one, two)))
        rotates = jnp.abs(both) > small * (jnp.sqrt(a) * jnp.sqrt(b))
        tilt = (b - a) / jnp.where(rotates, 2 * both, 1)
        tangent = jnp.where(tilt >= 0, 1, -1) / (jnp.abs(tilt) + jnp.sqrt(1 + tilt**2))
        tangent = jnp.where(rotates, tangent, 0)
        cosine = (1 / jnp.sqrt(1 + tangent**2))[..., None]
        sine = cosine * tangent[..., None]
        last = (sine * one + cosine * two)[..., ::-1, :]
        parts = [cosine * one - sine * two, last]
        parts = [parts[0][..., :1, :], last[..., -1:, :], parts[0][..., 1:, :], last[..., :-1, :]]
        return quiet & ~jnp.any(rotates), jnp.concatenate(parts, axis=-2)

    def sweep(carry: Any) -> Any:
        """All pairs; the rows are then in their places again."""
        turns, _, rows = carry
        return turns + 1, *jax.lax.fori_loop(0, count - 1, some, (jnp.asarray(True), rows), unroll=count <= FEW)

    def goes_on(carry: Any) -> Any:
        turns, quiet, _ = carry
        return (turns < SWEEPS) & ~quiet

    return jax.lax.while_loop(goes_on, sweep, (0, jnp.asarray(False), rows))[2][..., :size, :]


@jax_funcify.register(Elimination)
def jax_funcify_Elimination(op: Elimination, **kwargs: Any) -> Any:
    """Row after row."""

    def eliminated(matrix: Any, right: Any) -> Any:
        size = matrix.shape[-1]

        def turn(k: Any, both: Any) -> Any:
            row = both[..., k, :] / both[..., k, k][..., None]
            others = both - both[..., :, k][..., None] * row[..., None, :]
            return jnp.where((jnp.arange(size) == k)[:, None], row[..., None, :], others)

        return jax.lax.fori_loop(0, size, turn, jnp.concatenate([matrix, right], axis=-1))[..., size:]

    return eliminated


def for_members(function: Any, wide: Sequence[bool], kept: Sequence[int]) -> Callable[..., Any]:
    """`function` for all rows of the arguments that are `wide` at once; see `members.for_members`."""

    def member(*arguments: Any) -> Any:
        results = function(*arguments)
        return [results[place] for place in kept]

    call: Callable[..., Any] = jax.jit(jax.vmap(member, [0 if is_wide else None for is_wide in wide]))
    return call


@jax_funcify.register(Implicit)
def jax_funcify_Implicit(op: Implicit, **kwargs: Any) -> Any:
    """The identity, for inner graphs, which PyTensor 3.0 does not rewrite."""
    return lambda *inputs: inputs[: op.count] if op.count > 1 else inputs[0]


@jax_funcify.register(FromKey)
def jax_funcify_FromKey(op: FromKey, **kwargs: Any) -> Any:
    """What PyTensor's draws read of a generator under JAX."""
    return lambda key: {"jax_state": key}


@jax_funcify.register(ToKey)
def jax_funcify_ToKey(op: ToKey, **kwargs: Any) -> Any:
    """The same back."""
    return lambda generator: generator["jax_state"]


def is_of_type(value: Any, kind: Any) -> bool:
    """Whether a value is an array of JAX that a function takes for a variable of a type as it is."""
    if not isinstance(value, jax.Array) or value.ndim != kind.ndim or value.dtype != kind.dtype:
        return False
    return all(length in (None, size) for length, size in zip(kind.shape, value.shape, strict=True))
