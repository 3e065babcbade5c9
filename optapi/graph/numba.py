"""`Loop`, `Product`, `Order` and `CumulativeSums` under numba."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from pytensor.compile.mode import NUMBA
from pytensor.link.numba.cache import compile_numba_function_src
from pytensor.link.numba.dispatch.basic import (
    numba_funcify_and_cache_key,
    numba_njit,
    register_funcify_and_cache_key,
    register_funcify_default_op_cache_key,
)

from .compat import REWRITES_INNER_GRAPHS, rewrite_owned
from .loops import Loop
from .ordered import CumulativeSums, Order
from .products import Product


VERSION = 2


@register_funcify_and_cache_key(Loop)
def numba_funcify_Loop(op: Loop, node: Any = None, **kwargs: Any) -> Any:
    """A ``while`` loop over the compiled body, and the key under which PyTensor keeps it on disk."""
    kwargs.pop("storage_map", None)
    inner = op.fgraph
    if not REWRITES_INNER_GRAPHS:
        inner = inner.clone()
        # Else the graph inside of Softmax is recognized as a softmax, and so on for ever.
        rewrite_owned(inner, len(node.outputs), NUMBA.excluding("symbolic_op_recognition").optimizer)
    body, key = numba_funcify_and_cache_key(inner, squeeze_output=True, fgraph_name="optapi_loop", **kwargs)
    count = len(op.fgraph.outputs) - 1
    start = [f"start{i}" for i in range(count)]
    given = [f"given{i}" for i in range(len(op.fgraph.inputs) - count)]
    state = [f"x{i}" for i in range(count)]
    # A variable has one type: what it begins with and what a turn gives must both be contiguous, or numba would compile
    # the body, and all that it calls, for each.
    source = f"""
def loop({", ".join([*start, *given, "steps"])}):
    {"; ".join(f"{x} = fresh({first})" for x, first in zip(state, start, strict=True))}
    turn = 0
    limit = steps.item()
    while turn < limit:
        {", ".join(state)}, done = body({", ".join([*state, *given])})
        {"; ".join(f"{x} = contiguous({x})" for x in state)}
        if done:
            break
        turn += 1
    return {", ".join(state)}
"""
    names = {"body": body, "fresh": fresh, "contiguous": contiguous}
    loop = compile_numba_function_src(source, "loop", names)
    return numba_njit(loop), key and sha256(f"{source}{key}{VERSION}".encode()).hexdigest()


def fresh(x):  # type: ignore[no-untyped-def]
    """A contiguous copy of an array; anything else as it is."""
    raise NotImplementedError


def contiguous(x):  # type: ignore[no-untyped-def]
    """An array itself if it is known to be contiguous, else a copy; anything else as it is."""
    raise NotImplementedError


@overload(fresh)
def _fresh(x):  # type: ignore[no-untyped-def]
    if not isinstance(x, types.Array):
        return lambda x: x
    if x.ndim == 0 or x.layout == "C":
        return lambda x: np.copy(x)
    return lambda x: np.ascontiguousarray(x).copy()


@overload(contiguous)
def _contiguous(x):  # type: ignore[no-untyped-def]
    if not isinstance(x, types.Array) or (x.layout == "C" and x.mutable):
        return lambda x: x
    if x.ndim == 0:
        return lambda x: np.copy(x)
    return lambda x: np.ascontiguousarray(x)


@register_funcify_default_op_cache_key(Product)
def numba_funcify_Product(op: Product, node: Any = None, **kwargs: Any) -> Any:
    """Two loops."""
    if op.axis:

        @numba_njit
        def product(matrix, vector):  # type: ignore[no-untyped-def]
            result = np.empty(matrix.shape[0], matrix.dtype)
            for i in range(matrix.shape[0]):
                total = result.dtype.type(0)
                for j in range(matrix.shape[1]):
                    total += matrix[i, j] * vector[j]
                result[i] = total
            return result

    else:

        @numba_njit
        def product(matrix, vector):  # type: ignore[no-untyped-def]
            result = np.zeros(matrix.shape[1], matrix.dtype)
            for i in range(matrix.shape[0]):
                for j in range(matrix.shape[1]):
                    result[j] += matrix[i, j] * vector[i]
            return result

    return product


@numba_njit
def _order(keys):  # type: ignore[no-untyped-def]
    """By heap sort, which compiles in a fifth of the time of numba's own."""
    size = keys.size
    order = np.empty(size, np.int64)
    for i in range(size):
        order[i] = i
    for turn in range(size // 2 + size - 1):
        # First a heap is made, then the largest is taken from its top, one after another.
        end = size if turn < size // 2 else size - 1 - (turn - size // 2)
        i = size // 2 - 1 - turn if turn < size // 2 else 0
        moved = order[i]
        if turn >= size // 2:
            moved = order[end]
            order[end] = order[0]
        while 2 * i + 1 < end:
            child = 2 * i + 1
            if child + 1 < end and not keys[order[child]] >= keys[order[child + 1]]:
                child += 1
            if keys[moved] >= keys[order[child]]:
                break
            order[i] = order[child]
            i = child
        order[i] = moved
    return order


@register_funcify_default_op_cache_key(Order)
def numba_funcify_Order(op: Order, **kwargs: Any) -> Any:
    """One row after another."""

    @numba_njit
    def in_order(keys):  # type: ignore[no-untyped-def]
        order, ordered = np.empty(keys.shape, np.int64), np.empty(keys.shape, keys.dtype)
        rows = np.ascontiguousarray(keys).reshape(-1, keys.shape[-1])
        orders, results = order.reshape(rows.shape), ordered.reshape(rows.shape)
        for row in range(rows.shape[0]):
            found = _order(rows[row])
            for i in range(found.size):
                orders[row, i] = found[i]
                results[row, i] = rows[row, found[i]]
        return order, ordered

    return in_order


@register_funcify_default_op_cache_key(CumulativeSums)
def numba_funcify_CumulativeSums(op: CumulativeSums, **kwargs: Any) -> Any:
    """Loops."""

    @numba_njit
    def cumulative(matrix, order):  # type: ignore[no-untyped-def]
        sums = np.empty(matrix.shape, matrix.dtype)
        height, size = matrix.shape[-2], matrix.shape[-1]
        matrices = np.ascontiguousarray(matrix).reshape(-1, height, size)
        orders, results = np.ascontiguousarray(order).reshape(-1, size), sums.reshape(matrices.shape)
        for member in range(matrices.shape[0]):
            for row in range(height):
                total = sums.dtype.type(0)
                for i in range(size):
                    total += matrices[member, row, orders[member, i]]
                    results[member, row, i] = total
        return sums

    return cumulative
