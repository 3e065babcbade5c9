"""Quadratic programs: a convex quadratic function, minimized under linear constraints inside of a graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.type import float_dtypes, integer_dtypes

from .checks import as_dtype, as_tensor, check_count, check_number
from .feasible import Box, boxes
from .graph.by_hand import FRACTION, NOTHING, REGULAR, InteriorPoint, repeat_by_hand
from .graph.loops import FALSE
from .hints import hinted
from .rules._linear_algebra import combined, ratio, times
from .typing import Bounds, Tensor
from .vectors import largest


class QuadraticSolution(NamedTuple):
    r"""The solution of a quadratic program, as variables.

    At a solution :math:`B x + g = A^T y + G^T z + w`.

    Attributes
    ----------
    x : vector
    equality_multipliers : vector
        :math:`y`, of the rows of :math:`A`. The minimum changes with :math:`b` at this rate.
    multipliers : vector
        :math:`z`, of the rows of :math:`G`: not negative, and 0 where a row is not active.
    bound_multipliers : vector
        :math:`w`: not negative at a low, not positive at a high, 0 inside.
    converged : boolean scalar variable
    iterations : integer scalar variable
    """

    x: Any
    equality_multipliers: Any
    multipliers: Any
    bound_multipliers: Any
    converged: Any
    iterations: Any


@hinted
def quadratic_program(B: Tensor, g: Tensor, A: Tensor | None = None, b: Tensor | None = None, G: Tensor | None = None,
                      h: Tensor | None = None, bounds: Bounds | None = None, *, max_iterations: int = 100,
                      tolerance: float | None = None) -> QuadraticSolution:  # fmt: skip
    r"""The minimizer of a convex quadratic function under linear constraints, as an expression.

    .. math:: \min_x \tfrac12 x^T B x + g^T x \quad \text{with} \quad A x = b, \quad G x \ge h, \quad l \le x \le u

    All arguments are variables or arrays, so that a quadratic program can be a part of any graph. It is solved by a
    primal-dual interior-point method, in one loop of arrays of fixed shapes.

    Parameters
    ----------
    B : matrix of shape (n, n)
        Symmetric and positive semidefinite.
    g : vector of shape (n,)
    A, b : matrix of shape (k, n) and vector of shape (k,), optional
    G, h : matrix of shape (m, n) and vector of shape (m,), optional
        Where a component of `h` is -inf, its row does not count.
    bounds : pair, optional
        ``(low, high)``, each None, a number, or an array or variable that broadcasts to :math:`x`.
    max_iterations : int
        Mostly 10 to 20 are enough.
    tolerance : float, optional
        The largest violation of the conditions of optimality, times the largest number of `g`, `b`, `h` and 1. By
        default the machine precision to the power of 0.8, 3e-13 in float64.

    Returns
    -------
    QuadraticSolution
        Where it has not converged, for instance where nothing is feasible, it holds the last finite iterate.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here, or has no static shape.

    Notes
    -----
    Cost per iteration: an LU decomposition of a matrix of :math:`n + k` rows, and :math:`m n^2` multiplications. Under
    numba loops do it for up to 32 rows, and LAPACK for more.

    References
    ----------
    Mehrotra (1992), On the implementation of a primal-dual interior point method; Nocedal and Wright (2006), Numerical
    optimization, algorithm 16.4.

    Examples
    --------
    >>> solution = optapi.quadratic_program(np.eye(2), np.array([-3.0, -5.0]), G=np.array([[-1.0, -1.0]]), h=[-4.0])
    >>> x, z = pytensor.function([], [solution.x, solution.multipliers], mode=optapi.PYTHON)()
    >>> x.round(6), z.round(6)
    (array([1., 3.]), array([2.]))
    """
    B, g = _number("B", B, 2), _number("g", g, 1)
    n = g.type.shape[0]
    _check_shape("B", B, (n, n))
    rows: dict[str, Any] = {}
    for matrix, vector, names in ((A, b, "Ab"), (G, h, "Gh")):
        if (matrix is None) != (vector is None):
            given, missing = (0, 1) if vector is None else (1, 0)
            raise ValueError(f"{names[given]} is given without {names[missing]}; pass both or none")
        if matrix is None:
            continue
        rows[names[0]], rows[names[1]] = _number(names[0], matrix, 2), _number(names[1], vector, 1)
        _check_shape(names[0], rows[names[0]], (rows[names[1]].type.shape[0], n))
    dtype = max((v.type.dtype for v in (B, g, *rows.values())), key=lambda name: np.dtype(name).itemsize)
    B, g = as_dtype(B, dtype), as_dtype(g, dtype)
    rows = {name: as_dtype(value, dtype) for name, value in rows.items()}
    x = pt.tensor("x", dtype=dtype, shape=(n,))
    box = boxes(None if bounds is None else [bounds], [x])
    infinite = pt.constant(np.full(n, np.inf, dtype))
    low, high = (-infinite, infinite) if box is None else (pt.broadcast_to(side, (n,)) for side in box[0] or ())
    if "G" in rows:
        low = pt.concatenate([low, rows["h"]])
        high = pt.concatenate([high, pt.full_like(rows["h"], np.inf)])
    check_count("max_iterations", max_iterations)
    if tolerance is not None:
        check_number("tolerance", tolerance, low=0)
    found = interior_point(B, g, rows.get("A"), rows.get("b"), rows.get("G"), Box(low, high), max_iterations, tolerance)
    nothing = pt.zeros((0,), dtype)
    y = nothing if found.y is None else found.y
    return QuadraticSolution(found.x, y, found.z[n:], found.z[:n], found.converged, found.iterations)


def _number(argument: str, value: Any, ndim: int) -> Any:
    """`value` as a matrix or a vector of floating-point numbers of known static shape."""
    tensor = as_tensor(argument, value)
    if tensor.type.dtype in integer_dtypes:
        tensor = tensor.astype("float64")
    if tensor.type.dtype not in float_dtypes:
        raise TypeError(f"{argument} has dtype {tensor.type.dtype}; pass real numbers")
    if tensor.type.ndim != ndim:
        raise ValueError(f"{argument} has {tensor.type.ndim} dimensions; pass a {'vector' if ndim == 1 else 'matrix'}")
    if None in tensor.type.shape:
        raise TypeError(f"{argument} has no static shape; make it with shape=, or put pt.specify_shape around it")
    return tensor


def _check_shape(argument: str, tensor: Any, shape: tuple[int, ...]) -> None:
    if tensor.type.shape != shape:
        raise ValueError(f"{argument} has shape {tensor.type.shape} in the place of {shape}, beside g and b or h")


class Interior(NamedTuple):
    """Where an interior-point method ends.

    Attributes
    ----------
    x : vector
    y : vector or None
        The multipliers of the equalities, None without.
    z : vector
        The multipliers of the components and then of the rows of inequalities: not negative at a low, not positive at a
        high.
    active : vector
        -1 for a component or row that is at its low but for rounding, 1 at its high, 0 for others.
    converged : boolean scalar variable
    iterations : integer scalar variable
    """

    x: Any
    y: Any
    z: Any
    active: Any
    converged: Any
    iterations: Any


def interior_point(B: Any, g: Any, A: Any, b: Any, G: Any, box: Box, steps: Any,
                   tolerance: float | None = None) -> Interior:  # fmt: skip
    r"""Mehrotra's predictor and corrector for a convex quadratic function under linear constraints.

    .. math:: \min_x \tfrac12 x^T B x + g^T x \quad \text{with} \quad A x = b, \quad l \le (x, G x) \le u

    What a turn of the loop does stands also in `graph.numba`, for few rows: a change here is one there.

    Parameters
    ----------
    B, g, A, b, G : variables of one dtype and of known static shape
        `A` and `b` are None where there are no equalities, `G` where there are no rows of inequalities.
    box : Box
        :math:`l` and :math:`u`, vectors for the components and the rows, infinite where there is no limit.
    steps : int or integer scalar variable
    tolerance : float, optional
        As for `quadratic_program`.
    """
    dtype, n = g.type.dtype, g.type.shape[0]
    k, m = (0 if part is None else part.type.shape[0] for part in (A, G))
    epsilon = float(np.finfo(dtype).eps)

    def number(value: Any) -> Any:
        return np.asarray(value, dtype)

    # In units in which the largest limit and the largest component of the gradient are 1.
    low, high = box
    finite = [pt.switch(pt.isfinite(side), side, pt.zeros_like(side)) for side in box]
    length = largest(pt.concatenate([*finite, *([] if A is None else [b])]))
    length = pt.switch(length > 0, length, number(1))
    steepness = pt.switch(largest(g) > 0, largest(g), number(1))
    low, high, g, B = low / length, high / length, g / steepness, B * (length / steepness)
    b = None if A is None else b / length

    # The two sides of all rows, as what is not to be negative: (x, Gx) - l, and u - (x, Gx). A side without a limit
    # has no multiplier, and a slack that stays as it is.
    sign, limits = number([[1], [-1]]), pt.stack([low, -high])
    counts = pt.isfinite(limits)
    limits = pt.switch(counts, limits, pt.zeros_like(limits))
    count = pt.maximum(pt.sum(counts.astype(dtype)), number(1))
    small = number(epsilon**0.8 if tolerance is None else tolerance)

    def longest(v: Any, dv: Any) -> Any:
        falls = dv < 0
        return pt.min(pt.switch(falls, -v / pt.switch(falls, dv, -pt.ones_like(dv)), pt.full_like(v, np.inf)))

    def turn(turns: Any, _: Any, x: Any, y: Any, s: Any, z: Any, *given: Any) -> Any:
        B, g, A, b, G, limits, counts, count, small = given

        def rows(v: Any) -> Any:
            return pt.concatenate([v, times(G, v)]) if m else v

        def transposed(v: Any) -> Any:
            return v[:n] + combined(G, v[n:]) if m else v

        dual = times(B, x) + g - transposed(pt.sum(sign * z, axis=0))
        slack = pt.switch(counts, sign * rows(x) - limits - s, pt.zeros_like(s))
        mu, w = pt.sum(s * z) / count, z / s
        sizes = [largest(dual), largest(slack.ravel()), mu]
        weights = pt.sum(w, axis=0)
        H = B + np.eye(n, dtype=dtype) * weights[:n]
        if m:
            H = H + pt.dot(G.T * weights[n:], G)
        if k:
            dual, primal = dual - combined(A, y), times(A, x) - b
            sizes = [largest(dual), *sizes[1:], largest(primal)]
            # It is negative definite below, so that dependent rows do not make it singular.
            below = number(-(epsilon**REGULAR)) * pt.eye(k, dtype=dtype)
            H = pt.concatenate([pt.concatenate([H, -A.T], axis=1), pt.concatenate([-A, below], axis=1)])
        converged = pt.max(pt.stack(sizes)) <= small
        finite = pt.all(pt.isfinite(H))
        # Decompositions need not take what is not finite.
        factors: Any = pt.linalg.lu_factor(pt.switch(finite, H, pt.eye(n + k, dtype=dtype)))

        def step(complementarity: Any) -> tuple[Any, Any, Any, Any]:
            complementarity = pt.switch(counts, complementarity, pt.zeros_like(s))
            pulled = transposed(pt.sum(sign * (w * slack + complementarity / s), axis=0))
            right = -(dual + pulled) if not k else pt.concatenate([-(dual + pulled), primal])
            both = pt.linalg.lu_solve(factors, right, check_finite=False)
            dx, dy = both[:n], both[n:]
            ds = pt.switch(counts, sign * rows(dx) + slack, pt.zeros_like(s))
            return dx, dy, ds, -(complementarity + z * ds) / s

        one, part = number(1), number(FRACTION)
        _, _, ds, dz = step(s * z)
        a = pt.minimum(one, pt.minimum(longest(s, ds), longest(z, dz)))
        ahead = pt.sum((s + a * ds) * (z + a * dz)) / count
        # Products of s and z far below what is asked for would amplify rounding errors.
        target = pt.maximum(ratio(ahead, mu) ** 3 * mu, small / 10)
        dx, dy, ds, dz = step(s * z + ds * dz - target)
        a = pt.minimum(one, part * pt.minimum(longest(s, ds), longest(z, dz)))
        moved = [x + a * dx, y + a * dy, s + a * ds, z + a * dz]
        for v in (dx, dz):
            finite = finite & pt.all(pt.isfinite(v))
        # Without limits there is nothing but a system of equations.
        stays = converged | ~finite | ((mu <= number(epsilon**NOTHING)) & pt.any(counts))
        kept = [pt.switch(stays, old, new) for old, new in zip((x, y, s, z), moved, strict=True)]
        return [turns + 1, converged, *kept], stays

    x, y = pt.zeros((n,), dtype), pt.zeros((k,), dtype)
    s, z = pt.ones_like(limits), counts.astype(dtype)
    A, b, G = (
        (part if some else pt.zeros(shape, dtype))
        for part, some, shape in ((A, k, (0, n)), (b, k, (0,)), (G, m, (0, n)))
    )
    values, given = [np.int64(0), FALSE, x, y, s, z], [B, g, A, b, G, limits, counts, count, small]
    turns, converged, x, y, s, z = repeat_by_hand(InteriorPoint, turn, values, given, steps)
    active = pt.sum(-sign * ((z > s) & (s <= 100 * small)).astype(dtype), axis=0)
    z = steepness * pt.sum(sign * z, axis=0)
    return Interior(length * x, steepness * y if k else None, z, active, converged, turns)
