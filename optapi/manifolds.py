r"""Manifolds that the parameters stay on: spheres, and matrices with orthonormal columns.

A rule with ``manifold=`` works in the tangent space at the point that it holds. Gradients are projected on it; a search
follows a retraction :math:`R_x(a d)`, a curve on the manifold that leaves :math:`x` in the direction :math:`d`; and
vectors that belong to an earlier point, such as directions and changes of the gradient, are projected on the tangent
space of the present one. The cost is a function of all points near the manifold, and its gradient the usual one.

References
----------
Absil, Mahony and Sepulchre (2008), Optimization algorithms on matrix manifolds, sections 3.6 for the projections, 4.1
for the retractions, 8.1 for the transport by projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pytensor.tensor as pt

from .checks import as_dtype, as_tensor, called, shown
from .graph.loops import cond
from .prox import Sphere as Unit
from .prox import as_point, each_entry, positive_part
from .state import shape_of
from .typing import Tensor
from .vectors import guarded, norm


__all__ = ["Manifold", "Sphere", "Stiefel"]

# From how far along a curve to the point there and the velocity of the curve.
Curve = Callable[[Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Manifold:
    """Base of the manifolds here.

    A subclass has `_project(v)`, `_tangent(x, v)`, which also takes a stack of vectors `v` along a first axis, and
    `_curve(x, v)`, and says by `_refusal(shape)` of which shapes it has no points.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Plane(optapi.manifolds.Manifold):
    ...     def _project(self, v):
    ...         return v - pt.mean(v)
    ...     def _tangent(self, x, v):
    ...         return v - pt.mean(v, axis=-1, keepdims=True)
    ...     def _curve(self, x, v):
    ...         return lambda a: (x + a * v, v)
    >>> x, stop = pytensor.shared(np.array([3.0, 0.0]), name="x"), pytensor.shared(0, name="stop")
    >>> step = pytensor.function([], [], updates=optapi.lbfgs([x], x[0] ** 2 + x[1], stop=stop, manifold=Plane()))
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value().round(4)
    array([ 0.5, -0.5])
    """

    def project(self, v: Tensor) -> Any:
        """The nearest point of the manifold, `v` itself where it is on it but for rounding."""
        return self._project(as_point("v", v))

    def tangent(self, x: Tensor, v: Tensor) -> Any:
        """The projection of `v` on the tangent space at the point `x` of the manifold."""
        return self._tangent(*_pair(x, v))

    def retract(self, x: Tensor, v: Tensor) -> Any:
        """The point to which the tangent vector `v` leads from the point `x`, `x + v` to first order."""
        x, v = _pair(x, v)
        return self._curve(x, v)(pt.ones((), x.type.dtype))[0]

    def _project(self, v: Any) -> Any:
        raise NotImplementedError

    def _tangent(self, x: Any, v: Any) -> Any:
        raise NotImplementedError

    def _curve(self, x: Any, v: Any) -> Curve:
        raise NotImplementedError

    def _refusal(self, shape: tuple[int, ...]) -> str | None:
        """Why there are no points of this shape; None if there are."""
        return None


def _pair(x: Any, v: Any) -> tuple[Any, Any]:
    """A point and a vector there, both of one floating-point type."""
    x, v = as_point("x", x), as_tensor("v", v)
    if v.type.ndim != x.type.ndim:
        raise ValueError(f"v has {v.type.ndim} dimensions, and x has {x.type.ndim}; pass a vector of the shape of x")
    return x, as_dtype(v, x.type.dtype)


def _rounding(x: Any, count: Any) -> Any:
    """The rounding error of a sum of `count` products of components of points."""
    return np.asarray(8 * np.finfo(x.type.dtype).eps, x.type.dtype) * pt.sqrt(as_dtype(count, x.type.dtype))


@dataclass(frozen=True)
class Sphere(Manifold):
    r"""The points with :math:`\|x\| = 1`; of a matrix or array it is the root of the sum of all squares.

    .. math:: P_x v = v - (x^T v) x, \qquad R_x(v) = \frac{x + v}{\|x + v\|}

    A start at 0 becomes the first unit vector.

    Examples
    --------
    The leading eigenvector of a matrix:

    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> x, stop = pytensor.shared(np.array([1.0, 0.0]), name="x"), pytensor.shared(0, name="stop")
    >>> cost = -pt.sum(x * pt.dot(A, x))
    >>> updates = optapi.lbfgs([x], cost, stop=stop, manifold=optapi.manifolds.Sphere())
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value().round(4)
    array([0.7071, 0.7071])
    """

    def _project(self, v: Any) -> Any:
        close = abs(pt.sum(v * v) - 1) <= _rounding(v, v.size)
        return pt.switch(close, v, Unit().project(v))

    def _tangent(self, x: Any, v: Any) -> Any:
        axes = tuple(range(v.type.ndim - x.type.ndim, v.type.ndim))
        return v - pt.sum(x * v, axis=axes, keepdims=True) * x

    def _curve(self, x: Any, v: Any) -> Curve:
        def at(a: Any) -> tuple[Any, Any]:
            moved = x + a * v
            size = norm(moved)
            point = moved / size
            return point, self._tangent(point, v) / size

        return at

    def _refusal(self, shape: tuple[int, ...]) -> str | None:
        return None if prod(shape) > 1 else "a sphere needs two components or more"


@dataclass(frozen=True)
class Stiefel(Manifold):
    r"""The matrices with orthonormal columns, :math:`X^T X = I`, with at least as many rows as columns.

    .. math:: P_X V = V - X \frac{X^T V + V^T X}{2}, \qquad R_X(V) = (X + V) (I + V^T V)^{-1/2}

    the polar factor of :math:`X + V`. The cost may also be one of the space alone that the columns span, the same for
    :math:`X Q` with any orthogonal :math:`Q`. Square matrices keep the sign of their determinant.

    Cost: a call of a search has the eigenvalues and eigenvectors of :math:`V^T V`, and each trial some :math:`6 n p^2`
    multiplications. A start that is not on the manifold becomes the nearest point by a singular value decomposition.

    Examples
    --------
    The rotation that fits best:

    >>> A, B = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [-2.0, 0.0], [-1.0, 1.0]])
    >>> X, stop = pytensor.shared(np.eye(2), name="X"), pytensor.shared(0, name="stop")
    >>> cost = pt.sum((pt.dot(A, X) - B) ** 2)
    >>> updates = optapi.lbfgs([X], cost, stop=stop, manifold=optapi.manifolds.Stiefel())
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> X.get_value().round(4) + 0.0
    array([[ 0.,  1.],
           [-1.,  0.]])
    """

    def _project(self, v: Any) -> Any:
        def nearest(v: Any) -> list[Any]:
            matrix, nonfinite = guarded(v)
            left, _, right = pt.linalg.svd(matrix, full_matrices=False)
            return [pt.dot(left, right) + nonfinite]

        close = pt.all(abs(pt.dot(v.T, v) - pt.eye(v.shape[1], dtype=v.type.dtype)) <= _rounding(v, v.shape[0]))
        return cond(~close, nearest, [v], [v])[0]

    def _tangent(self, x: Any, v: Any) -> Any:
        if v.type.ndim == x.type.ndim:
            inner = pt.dot(x.T, v)
            return v - pt.dot(x, (inner + inner.T) / 2)
        inner = pt.tensordot(v, x, [[1], [0]])
        both = (inner + inner.transpose(0, 2, 1)) / 2
        return v - pt.tensordot(both, x, [[1], [1]]).transpose(0, 2, 1)

    def _curve(self, x: Any, v: Any) -> Curve:
        # The eigenvectors of V'V are those of (I + a^2 V'V)^(-1/2) for all a, so that a trial decomposes nothing.
        matrix, nonfinite = guarded(pt.dot(v.T, v))
        decomposition: Any = pt.linalg.eigh(matrix)
        squares, vectors = decomposition
        squares = positive_part(squares) + nonfinite
        X, V = pt.dot(x, vectors), pt.dot(v, vectors)
        # There the curve is at its end but for the root of the precision, and beyond it rounding would bend it.
        far = np.asarray(np.finfo(x.type.dtype).eps ** -0.25, x.type.dtype)
        end = far / pt.sqrt(pt.max(squares))

        def at(a: Any) -> tuple[Any, Any]:
            beyond = a > end
            a = pt.switch(beyond, end, a)
            shrink = 1 / pt.sqrt(1 + a**2 * squares)
            moved = (X + a * V) * shrink
            velocity = pt.dot(V * shrink - moved * (a * squares * shrink**2), vectors.T)
            point = pt.dot(moved, vectors.T)
            # A step of Newton and Schulz, so that rounding errors do not add up from call to call.
            three_halves, half = (np.asarray(value, x.type.dtype) for value in (1.5, 0.5))
            point = three_halves * point - pt.dot(point, half * pt.dot(point.T, point))
            return point, pt.switch(beyond, pt.zeros_like(velocity), velocity)

        return at

    def _refusal(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) != 2:
            return "Stiefel is of matrices"
        return None if shape[0] >= shape[1] > 0 else "orthonormal columns need at least as many rows"


FORMS = (
    "pass a manifold of optapi.manifolds for all, a dictionary from parameters, or their names, to such, or a list "
    "with one or None for each parameter"
)


def manifolds(given: Any, parameters: Sequence[Any]) -> list[Manifold | None]:
    """The manifold of each of `parameters`, None for one that is free.

    Raises
    ------
    TypeError, ValueError
        If `given` is not in one of its forms; the message names the parameter.
    """
    found = each_entry("manifold", given, parameters, FORMS)
    for manifold, p in zip(found, parameters, strict=True):
        if manifold is None:
            continue
        if not isinstance(manifold, Manifold):
            raise TypeError(f"the manifold of {called(p)} is {shown(manifold)}; {FORMS}")
        shape = shape_of(p)
        refusal = manifold._refusal(shape)
        if refusal is not None:
            raise ValueError(f"the manifold of {called(p)}, which has the shape {shape}, is {manifold}; {refusal}")
    if all(manifold is None for manifold in found):
        raise ValueError(f"manifold has none of any parameter; {FORMS}")
    return found


def _straight(x: Any, v: Any) -> Curve:
    """The line from `x` on along `v`."""
    return lambda a: (x + a * v, v)


@dataclass(frozen=True)
class Packed:
    """The product of the manifolds of all parameters, for vectors into which they are packed.

    Attributes
    ----------
    each : list of Manifold or None
    shapes : list of tuple of int
    pack, unpack : callable
        From the parts of a vector to the vector, and back.
    """

    each: Sequence[Manifold | None]
    shapes: Sequence[tuple[int, ...]]
    pack: Callable[[Sequence[Any]], Any]
    unpack: Callable[[Any], list[Any]]

    def project(self, point: Tensor) -> Any:
        """The nearest point."""
        parts = zip(self.each, self.unpack(point), strict=True)
        return self.pack([x if manifold is None else manifold._project(x) for manifold, x in parts])

    def tangent(self, point: Tensor, vector: Tensor) -> Any:
        """The projection of `vector` on the tangent space at `point`."""
        parts = zip(self.each, self.unpack(point), self.unpack(vector), strict=True)
        return self.pack([v if manifold is None else manifold._tangent(x, v) for manifold, x, v in parts])

    def tangents(self, point: Tensor, rows: Tensor) -> Any:
        """The same of all rows of a matrix."""
        parts, end = [], 0
        for manifold, x, shape in zip(self.each, self.unpack(point), self.shapes, strict=True):
            begin, end = end, end + prod(shape)
            part = rows[:, begin:end]
            if manifold is not None:
                stack = part.reshape((rows.type.shape[0], *shape))
                part = manifold._tangent(as_dtype(x, rows.type.dtype), stack).reshape(part.shape)
            parts.append(part)
        return parts[0] if len(parts) == 1 else pt.concatenate(parts, axis=1)

    def curve(self, point: Tensor, vector: Tensor) -> Curve:
        """The curve from `point` on, whose velocity there is `vector`."""
        curves = [
            _straight(x, v) if manifold is None else manifold._curve(x, v)
            for manifold, x, v in zip(self.each, self.unpack(point), self.unpack(vector), strict=True)
        ]

        def at(a: Any) -> tuple[Any, Any]:
            ends = [curve(as_dtype(a, x.type.dtype)) for curve, x in zip(curves, self.unpack(point), strict=True)]
            return self.pack([x for x, _ in ends]), self.pack([v for _, v in ends])

        return at
