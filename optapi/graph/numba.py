"""What numba makes of `Loop`, `External`, `Product`, `Order`, `CumulativeSums`, `Decomposition` and `ByHand`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.core import cgutils, imputils
from numba.extending import intrinsic
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_and_cache_key,
    register_funcify_default_op_cache_key,
)

from .by_hand import FRACTION, NOTHING, REGULAR, ByHand
from .decompositions import SWEEPS, Decomposition, Elimination
from .external import EVALUATION, PRODUCT, External, ExternalProduct
from .loops import Loop
from .numba_source import VERSION, Lines, Source, contiguous
from .ordered import CumulativeSums, Order
from .products import Product


# The part of a sum below which it is summed anew.
FEW = 0.1


@register_funcify_and_cache_key(Loop)
def numba_funcify_Loop(op: Loop, node: Any = None, **kwargs: Any) -> Any:
    """A ``while`` loop, and the key under which PyTensor keeps it on disk."""
    source = Source()
    inputs = [source.new("x") for _ in node.inputs]
    outputs = source.loop(op, inputs)
    loop, key = source.function("optapi_loop", inputs, outputs[0] if len(outputs) == 1 else ", ".join(outputs))
    return numba_njit(loop), key


@register_funcify_and_cache_key(Lines)
def numba_funcify_Lines(op: Lines, node: Any = None, **kwargs: Any) -> Any:
    """Lines, and a key of them."""
    source = Source()
    inputs = [source.new("x") for _ in node.inputs]
    function, key = source.function("lines", inputs, ", ".join(source.write(op.fgraph, inputs)))
    return numba_njit(function), key


def _by_address(place: int, result: Any, count: int) -> Any:
    """What calls the function with the address at `place` of a link, on `count` vectors of the dtype of the first."""

    @intrinsic
    def call(typing_context, address, given):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            convention = context.call_conv
            function = builder.inttoptr(values[0], convention.get_function_type(result, given.types).as_pointer())
            parts = cgutils.unpack_tuple(builder, values[1])
            status, returned = convention.call_function(builder, function, result, given.types, parts)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return imputils.impl_ret_new_ref(context, builder, result, returned)

        return result(address, given), generate

    if count == 1:

        @numba_njit
        def external(link, point):  # type: ignore[no-untyped-def]
            return call(link[place], (contiguous(point), link))

    else:

        @numba_njit
        def external(link, point, vector):  # type: ignore[no-untyped-def]
            return call(link[place], (contiguous(point), contiguous(vector), link))

    return external


def returned(place: int, dtype: str, cost_dtype: str) -> Any:
    """The type of what the function with the address at `place` of a link returns."""
    vector = types.Array(from_dtype(np.dtype(dtype)), 1, "C")
    return types.Tuple([from_dtype(np.dtype(cost_dtype)), vector]) if place == EVALUATION else vector


@register_funcify_and_cache_key(External)
def numba_funcify_External(op: External, **kwargs: Any) -> Any:
    """A call, the same for all costs and lengths."""
    result = returned(EVALUATION, op.type.dtype, op.cost_dtype)
    return _by_address(EVALUATION, result, 1), f"optapi External {op.type.dtype} {op.cost_dtype} {VERSION}"


@register_funcify_and_cache_key(ExternalProduct)
def numba_funcify_ExternalProduct(op: ExternalProduct, **kwargs: Any) -> Any:
    """A call, the same for all costs and lengths."""
    result = returned(PRODUCT, op.type.dtype, op.type.dtype)
    return _by_address(PRODUCT, result, 2), f"optapi ExternalProduct {op.type.dtype} {VERSION}"


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


@numba_njit
def _rotated(rows, small):  # type: ignore[no-untyped-def]
    """Rotate pairs of `rows`, whose last column goes along, until the squares of their cosines are at most `small`."""
    one = np.uint64(1)
    count, size = np.uint64(rows.shape[0]), np.uint64(rows.shape[1]) - one
    for _ in range(SWEEPS):
        done = True
        for p in range(count):
            for q in range(p + one, count):
                a, b, both = rows[0, 0] * 0, rows[0, 0] * 0, rows[0, 0] * 0
                for i in range(size):
                    a += rows[p, i] * rows[p, i]
                    b += rows[q, i] * rows[q, i]
                    both += rows[p, i] * rows[q, i]
                if both * both > small * (a * b):
                    done = False
                    half = (b - a) / (both + both)
                    tangent = 1 / (abs(half) + np.sqrt(1 + half * half))
                    tangent = tangent if half >= 0 else -tangent
                    cosine = 1 / np.sqrt(1 + tangent * tangent)
                    sine = cosine * tangent
                    for i in range(size + one):
                        x, y = rows[p, i], rows[q, i]
                        rows[p, i] = rows.dtype.type(cosine * x - sine * y)
                        rows[q, i] = rows.dtype.type(sine * x + cosine * y)
        if done:
            break


@numba_njit
def _decomposed(transposed, vector, right, values, along, small):  # type: ignore[no-untyped-def]
    """Write into the last but one what a `Decomposition` has of `transposed` and `vector`."""
    # Of indices without a sign numba knows that they do not count from the end.
    n, m, k = np.uint64(transposed.shape[0]), np.uint64(transposed.shape[1]), np.uint64(values.size)
    one, zero = np.uint64(1), transposed.dtype.type(0)
    scale, most, squares = transposed.dtype.type(1), np.sqrt(np.finfo(transposed.dtype).max), zero
    for i in range(n):
        for c in range(m):
            squares += transposed[i, c] * transposed[i, c]
    if not 1 / most < squares < most:
        largest = zero
        for i in range(n):
            for c in range(m):
                largest = max(largest, abs(transposed[i, c]))
        scale = largest if largest > 0 else scale
    # The last row is the vector. Reflections make the matrix triangular.
    work, rows = np.empty((n + one, m), transposed.dtype), np.zeros((k, n + one), transposed.dtype)
    for i in range(n):
        for c in range(m):
            work[i, c] = transposed[i, c] / scale
    for c in range(m):
        work[n, c] = vector[c]
    for j in range(k):
        squares = zero
        for c in range(j, m):
            squares += work[j, c] * work[j, c]
        length = np.sqrt(squares)
        if length > 0:
            first = work[j, j]
            end = -length if first >= 0 else length
            work[j, j] = first - end
            factor = 1 / (length * (length + abs(first)))
            for i in range(j + one, n + one):
                total = zero
                for c in range(j, m):
                    total += work[j, c] * work[i, c]
                total *= factor
                for c in range(j, m):
                    work[i, c] -= total * work[j, c]
            rows[j, j] = end
        for i in range(j + one, n + one):
            rows[j, i] = work[i, j]
    _rotated(rows, small)
    for j in range(k):
        squares = zero
        for i in range(n):
            squares += rows[j, i] * rows[j, i]
        length = np.sqrt(squares)
        values[j], along[j] = length * scale, rows[j, n]
        for i in range(n):
            right[i, j] = rows[j, i] / length if length > 0 else zero


@register_funcify_default_op_cache_key(Decomposition)
def numba_funcify_Decomposition(op: Decomposition, **kwargs: Any) -> Any:
    """One matrix after another."""

    @numba_njit
    def decomposed(transposed, vector):  # type: ignore[no-untyped-def]
        n, m = transposed.shape[-2:]
        k, axes, dtype = min(n, m), transposed.shape[:-2], transposed.dtype
        right, values, along = np.empty((*axes, n, k), dtype), np.empty((*axes, k), dtype), np.empty((*axes, k), dtype)
        small = 4 * np.finfo(dtype).eps ** 2
        if transposed.ndim == 2:
            _decomposed(transposed, vector, right, values, along, small)
        else:
            matrices = np.ascontiguousarray(transposed).reshape(-1, n, m)
            vectors = np.ascontiguousarray(vector).reshape(-1, m)
            rights, rows, others = right.reshape(-1, n, k), values.reshape(-1, k), along.reshape(-1, k)
            for i in range(matrices.shape[0]):
                _decomposed(matrices[i], vectors[i], rights[i], rows[i], others[i], small)
        return right, values, along

    return decomposed, 2


@numba_njit
def _factored(matrix, order):  # type: ignore[no-untyped-def]
    """Write the LU decomposition of `matrix` with partial pivoting over it, and whether there is one is returned."""
    size, one = np.uint64(matrix.shape[0]), np.uint64(1)
    for j in range(size):
        pivot, largest = j, abs(matrix[j, j])
        for i in range(j + one, size):
            if abs(matrix[i, j]) > largest:
                pivot, largest = i, abs(matrix[i, j])
        if not 0 < largest < np.inf:
            return False
        order[j] = pivot
        if pivot != j:
            for c in range(size):
                matrix[j, c], matrix[pivot, c] = matrix[pivot, c], matrix[j, c]
        inverse = 1 / matrix[j, j]
        for i in range(j + one, size):
            factor = matrix[i, j] * inverse
            matrix[i, j] = factor
            if factor != 0:
                for c in range(j + one, size):
                    matrix[i, c] -= factor * matrix[j, c]
    return True


@numba_njit
def _solved(factors, order, vector):  # type: ignore[no-untyped-def]
    """Write the solution of a linear system over its right side `vector`."""
    size, one = np.uint64(factors.shape[0]), np.uint64(1)
    for j in range(size):
        vector[j], vector[order[j]] = vector[order[j]], vector[j]
    for i in range(size):
        total = vector[i]
        for c in range(i):
            total -= factors[i, c] * vector[c]
        vector[i] = total
    for turn in range(size):
        i = size - one - turn
        total = vector[i]
        for c in range(i + one, size):
            total -= factors[i, c] * vector[c]
        vector[i] = total / factors[i, i]


@numba_njit
def _eliminated(matrix, right):  # type: ignore[no-untyped-def]
    """Write over `right` the solution for a `matrix`, which is lost; NaN where there is none."""
    order = np.empty(matrix.shape[0], np.uint64)
    if _factored(matrix, order):
        for j in range(right.shape[1]):
            _solved(matrix, order, right[:, j])
    else:
        right[...] = np.nan


@register_funcify_default_op_cache_key(Elimination)
def numba_funcify_Elimination(op: Elimination, **kwargs: Any) -> Any:
    """One matrix after another."""

    @numba_njit
    def eliminated(matrix, right):  # type: ignore[no-untyped-def]
        work, result = np.copy(matrix), np.copy(right)
        if matrix.ndim == 2:
            _eliminated(work, result)
        else:
            matrices = work.reshape(-1, matrix.shape[-2], matrix.shape[-1])
            results = result.reshape(-1, right.shape[-2], right.shape[-1])
            for i in range(matrices.shape[0]):
                _eliminated(matrices[i], results[i])
        return result

    return eliminated, 1


@numba_njit
def _with_rows(G, x, result):  # type: ignore[no-untyped-def]
    """Write `x`, and behind it its products with the rows of `G`."""
    m, n = np.uint64(G.shape[0]), np.uint64(G.shape[1])
    for j in range(n):
        result[j] = x[j]
    for i in range(m):
        total = x.dtype.type(0)
        for j in range(n):
            total += G[i, j] * x[j]
        result[n + i] = total


def _interior_point() -> Any:
    """Loops, in the order of `quadratic.interior_point`."""

    @numba_njit
    def interior_point(turns, converged, x, y, s, z, B, g, A, b, G, limits, counts, count, small, steps):  # type: ignore[no-untyped-def]
        n, k, m = np.uint64(x.size), np.uint64(y.size), np.uint64(G.shape[0])
        size, rows, dtype = n + k, n + m, x.dtype.type
        zero, one, sides = dtype(0), dtype(1), np.uint64(2)
        x, y, s, z = x.copy(), y.copy(), s.copy(), z.copy()
        turns, converged = turns.copy(), converged.copy()
        number, tolerance = count.item(), small.item()
        epsilon = np.finfo(x.dtype).eps
        below, nothing = dtype(-(epsilon**REGULAR)), dtype(epsilon**NOTHING)
        limited = False
        for i in range(sides):
            for j in range(rows):
                limited = limited or counts[i, j]
        matrix, order = np.empty((size, size), x.dtype), np.empty(size, np.uint64)
        dual, primal, right = np.empty(n, x.dtype), np.empty(k, x.dtype), np.empty(size, x.dtype)
        wide, along = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
        slack, products = np.zeros((sides, rows), x.dtype), np.empty((sides, rows), x.dtype)
        ds, dz = np.zeros((sides, rows), x.dtype), np.zeros((sides, rows), x.dtype)
        # Divisions take most of the time where the matrices are small.
        over_s, over_z = np.zeros((sides, rows), x.dtype), np.zeros((sides, rows), x.dtype)
        for _ in range(steps.item()):
            turns[()] = turns.item() + 1
            mu, settled = zero, True
            _with_rows(G, x, wide)
            for i in range(sides):
                for j in range(rows):
                    products[i, j] = s[i, j] * z[i, j]
                    mu += products[i, j]
                    if counts[i, j]:
                        slack[i, j] = (wide[j] if i == 0 else -wide[j]) - limits[i, j] - s[i, j]
                        settled = settled and abs(slack[i, j]) <= tolerance
            mu /= number
            settled = settled and mu <= tolerance
            for j in range(n):
                total = g[j] - (z[0, j] - z[1, j])
                for c in range(n):
                    total += B[j, c] * x[c]
                for i in range(k):
                    total -= A[i, j] * y[i]
                for i in range(m):
                    total -= G[i, j] * (z[0, n + i] - z[1, n + i])
                dual[j] = total
                settled = settled and abs(total) <= tolerance
            for i in range(k):
                total = -b[i]
                for j in range(n):
                    total += A[i, j] * x[j]
                primal[i] = total
                settled = settled and abs(total) <= tolerance
            converged[()] = settled
            if settled:
                break

            for i in range(sides):
                for j in range(rows):
                    if counts[i, j]:
                        over_s[i, j], over_z[i, j] = one / s[i, j], one / z[i, j]
            for j in range(rows):
                along[j] = z[0, j] * over_s[0, j] + z[1, j] * over_s[1, j]
            for r in range(n):
                for c in range(r + np.uint64(1)):
                    total = B[r, c]
                    for i in range(m):
                        total += G[i, r] * along[n + i] * G[i, c]
                    matrix[r, c], matrix[c, r] = total, total
                matrix[r, r] += along[r]
            for i in range(k):
                for j in range(n):
                    matrix[n + i, j], matrix[j, n + i] = -A[i, j], -A[i, j]
                for c in range(k):
                    matrix[n + i, n + c] = below if i == c else zero
            if not _factored(matrix, order):
                break

            length = one
            for corrects in range(2):
                for j in range(rows):
                    low = (z[0, j] * slack[0, j] + products[0, j]) * over_s[0, j]
                    along[j] = low - (z[1, j] * slack[1, j] + products[1, j]) * over_s[1, j]
                for j in range(n):
                    total = dual[j] + along[j]
                    for i in range(m):
                        total += G[i, j] * along[n + i]
                    right[j] = -total
                for i in range(k):
                    right[n + i] = primal[i]
                _solved(matrix, order, right)
                _with_rows(G, right, wide)
                fastest = zero  # of the rates at which components of s and z fall to 0
                for i in range(sides):
                    for j in range(rows):
                        if counts[i, j]:
                            ds[i, j] = (wide[j] if i == 0 else -wide[j]) + slack[i, j]
                            dz[i, j] = -(products[i, j] + z[i, j] * ds[i, j]) * over_s[i, j]
                            fastest = max(fastest, -ds[i, j] * over_s[i, j], -dz[i, j] * over_z[i, j])
                length = one / fastest if fastest > 0 else dtype(np.inf)
                if corrects == 0:
                    length, ahead = min(one, length), zero
                    for i in range(sides):
                        for j in range(rows):
                            ahead += (s[i, j] + length * ds[i, j]) * (z[i, j] + length * dz[i, j])
                    part = ahead / number / mu if mu != 0 else zero
                    # Products far below what is asked for would amplify rounding errors.
                    target = max(part**3 * mu, tolerance / 10)
                    for i in range(sides):
                        for j in range(rows):
                            products[i, j] += ds[i, j] * dz[i, j] - target
            length = min(one, dtype(FRACTION) * length)

            finite = True
            for j in range(n):
                finite = finite and np.isfinite(right[j])
            for i in range(sides):
                for j in range(rows):
                    finite = finite and np.isfinite(dz[i, j])
            if not finite or (limited and mu <= nothing):
                break
            for j in range(n):
                x[j] += length * right[j]
            for i in range(k):
                y[i] += length * right[n + i]
            for i in range(sides):
                for j in range(rows):
                    s[i, j] += length * ds[i, j]
                    z[i, j] += length * dz[i, j]
        return turns, converged, x, y, s, z

    return interior_point


@numba_njit
def _sums(order, first, moving, V, sums):  # type: ignore[no-untyped-def]
    """Write the sums over the components from `first` on, in this order, into `sums`; that of squares is returned."""
    total = moving.dtype.type(0)
    for row in range(V.shape[0]):
        sums[row] = total
    for j in range(first, order.size):
        i = order[j]
        total += moving[i] * moving[i]
    for row in range(V.shape[0]):
        for j in range(first, order.size):
            i = order[j]
            sums[row] += V[row, i] * moving[i]
    return total


@numba_njit
def _times_inverse(products, theta, factors, pivots, sums, result):  # type: ignore[no-untyped-def]
    """Write what `CompactHessian.solved` has of a vector, from the `factors` of its small matrix, into `result`."""
    m = factors.shape[0]
    lower = result[m:]
    for i in range(m):
        total = sums[m + i]
        for j in range(m):
            total += products[m + i, j] * sums[j] / theta
        lower[i] = total
    _solved(factors, pivots, lower)
    for j in range(m):
        total = -sums[j]
        for i in range(m):
            total += products[m + i, j] * lower[i]
        result[j] = total / theta


def _first_minimizer() -> Any:
    """The intervals one after another, in the order of `_projected.first_minimizer`, to the one with a minimizer."""

    @numba_njit
    def first_minimizer(t, moving, last, V, products, scale, steps):  # type: ignore[no-untyped-def]
        if steps.item() < 1:
            return t.copy(), moving.copy(), last.copy()
        dtype, theta, rows = V.dtype.type, scale.item(), V.shape[0]
        m, zero, inf = rows // 2, dtype(0), dtype(np.inf)
        factors, pivots, least = np.empty((m, m), V.dtype), np.empty(m, np.uint64), np.finfo(V.dtype).eps
        for i in range(m):
            for j in range(m):
                total = products[m + i, m + j]
                for k in range(m):
                    total += products[m + i, k] * products[m + j, k] / theta
                factors[i, j] = total
        if not _factored(factors, pivots):
            return t.copy(), moving.copy(), np.array(inf)
        P, MP, C = np.empty(rows, V.dtype), np.empty(rows, V.dtype), np.zeros(rows, V.dtype)
        order, begin, found = _order(t), zero, inf
        whole = square = _sums(order, 0, moving, V, P)
        for j in range(t.size):
            i = order[j]
            end = t[i]
            if begin == inf:
                break
            _times_inverse(products, theta, factors, pivots, P, MP)
            slope, curved = begin * square, square
            for row in range(rows):
                slope -= MP[row] * C[row]
                curved -= MP[row] * P[row]
            fall, curved = max(square - theta * slope, zero), theta * max(curved, least * square)
            if square <= zero or fall < curved * (end - begin):
                found = begin + (fall / curved if square > zero else fall)
                break
            square -= moving[i] * moving[i]
            for row in range(rows):
                if end < inf:
                    C[row] += P[row] * (end - begin)
                P[row] -= V[row, i] * moving[i]
            if square < FEW * whole:
                # What is left of sums by subtraction would be of rounding errors.
                whole = square = _sums(order, j + 1, moving, V, P)
            begin = end
        return t.copy(), moving.copy(), np.array(found)

    return first_minimizer


BY_HAND = {"InteriorPoint": (_interior_point, 2), "FirstMinimizer": (_first_minimizer, 2)}


@register_funcify_default_op_cache_key(ByHand)
def numba_funcify_ByHand(op: ByHand, **kwargs: Any) -> Any:
    """The function, and its version, which is part of its key."""
    make, version = BY_HAND[op.name]
    return make(), version
