"""Products and norms of vectors, which neither overflow nor underflow where the result does not."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import pytensor.tensor as pt

from .typing import Array, Tensor


def dot(a: Array, b: Tensor) -> Any:
    """The inner product of two vectors.

    As a sum: for vectors ``pt.dot`` would be a call into BLAS, which numba takes long to compile.
    """
    return pt.sum(a * b)


def norm(a: Tensor) -> Any:
    """The Euclidean norm of all components of a tensor; not finite if a component is not."""
    # Squares of float64 overflow above 1.3e154, those of float32 above 1.8e19. All three sums are one pass; to divide
    # by the largest component first would be two, and under numba a maximum takes ten times as long as a sum.
    dtype, k = a.type.dtype, np.finfo(a.type.dtype).maxexp
    up, down, high, low = (np.asarray(2.0**e, dtype) for e in (k // 2 + 28, -k // 2 - 28, k * 9 // 10, -k * 9 // 10))
    square, large, small = pt.sum(a**2), pt.sum((a * down) ** 2), pt.sum((a * up) ** 2)
    usual = pt.switch(square > high, pt.sqrt(large) * up, pt.sqrt(square))
    return pt.switch(square < low, pt.sqrt(small) * down, usual)


def unit(a: Tensor) -> Any:
    """A power of two of the size of the largest component of a tensor, so that a division by it is exact.

    Where all components are 0 it is the smallest number, and where one is not finite it is not defined.
    """
    size = abs(a) if a.type.ndim == 0 else pt.max(_sizes(a))
    tiny = np.asarray(np.finfo(a.type.dtype).tiny, a.type.dtype)
    return pt.exp2(pt.floor(pt.log2(pt.maximum(size, tiny))))


# PyTensor takes a factor that all components share out of products and sums, where it may overflow, but not out of a
# switch.


def scaled(a: Tensor, u: Array) -> Any:
    """`a` times a positive scalar, with which no product or sum of it is written otherwise."""
    return pt.switch(pt.gt(u, 0), u * a, a)


def in_units(a: Tensor, u: Array) -> Any:
    """`a` divided by a positive scalar, with which no product or sum of it is written otherwise."""
    return pt.switch(pt.gt(u, 0), a / u, a)


def largest(a: Tensor) -> Any:
    """The largest component of a vector in absolute value; NaN if one is NaN, 0 for an empty vector."""
    # A maximum would lose NaN under numba on PyTensor 3.0.
    sizes = _sizes(a)
    return pt.switch(pt.any(pt.isnan(sizes)), np.asarray(np.nan, a.type.dtype), pt.max(sizes))


def guarded(matrix: Tensor) -> tuple[Any, Any]:
    """`matrix` and 0; or zeros and NaN if it is not finite, because decompositions raise then.

    Add the second to what is computed from the first, so that the result is not finite either.
    """
    finite = pt.all(pt.isfinite(matrix))
    nan = pt.constant(np.asarray(np.nan, matrix.type.dtype))
    return pt.switch(finite, matrix, pt.zeros_like(matrix)), pt.switch(finite, pt.zeros_like(nan), nan)


def _sizes(a: Tensor) -> Any:
    """The absolute values of the components of a tensor, as a vector that is not empty."""
    sizes = abs(a if a.type.ndim == 1 else a.ravel())
    if not sizes.type.shape[0]:
        # The zero is made from `a`, so that in a batch each member has one, and the join stays a join.
        sizes = pt.concatenate([pt.zeros_like(pt.sum(sizes, keepdims=True)), sizes])
    return sizes


def root_mean_square(a: Tensor) -> Any:
    """The root of the mean square of the components of a tensor, which are about 1; 0 if it has none."""
    return pt.sqrt(pt.sum(a**2) / _count(a).astype(a.type.dtype))


def global_norm(tensors: Sequence[Any]) -> Any:
    """The Euclidean norm of all components of several tensors together, in float64."""
    sizes = [norm(a).astype("float64") for a in tensors]
    if len(sizes) == 1:
        return sizes[0]
    # As in `norm`, with scalars: float32 tensors shall have no vector in float64.
    top = pt.constant(np.finfo("float64").tiny)
    for size in sizes:
        top = pt.maximum(top, size)
    return top * pt.sqrt(sum((size / top) ** 2 for size in sizes))


def inner(first: Sequence[Any], second: Sequence[Any]) -> Any:
    """The inner product of two lists of tensors, in float64."""
    return sum(pt.sum(a * b).astype("float64") for a, b in zip(first, second, strict=True))


def _count(a: Tensor) -> Any:
    """The number of components of a tensor, at least 1."""
    # Where it is known it is a number: JAX has none in a loop on PyTensor 3.0.
    known = None not in a.type.shape
    return pt.constant(max(prod(a.type.shape), 1)) if known else pt.maximum(a.size, 1)
