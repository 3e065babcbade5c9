"""What several families of rules share: limited-memory BFGS, the conjugate gradient solver, products of matrices."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant

from ..checks import as_dtype, called, check_choice, check_count, check_gradients, check_parameters, check_updates
from ..graph.decompositions import eliminated
from ..graph.loops import FALSE, repeat
from ..hints import hinted
from ..notes import note, noted
from ..objective import Objective
from ..typing import Array, Scalar, Tensor, Updates, Variables
from ..vectors import dot, in_units, norm, scaled, unit


def ratio(a: Tensor, b: Tensor, where: Tensor | None = None) -> Any:
    """`a` over `b` where `where` is true, by default where `b` is not 0, and 0 elsewhere."""
    where = pt.neq(b, 0) if where is None else where
    # The denominator is replaced too, so that no infinite or undefined quotient is computed.
    return pt.switch(where, a / pt.switch(where, b, pt.ones_like(b)), pt.zeros_like(a))


# How many matrices of n x n a rule that holds one needs at the least: the old one, the new one, and one of terms.
MATRICES = 3


def check_square(f: Objective, others: str) -> None:
    """Check that the machine has the memory for the matrices of a rule that holds one row for each component.

    Raises
    ------
    ValueError
        If it has not. The message names the rules `others`, whose memory grows with the number of components.
    """
    needed, there = MATRICES * f.size**2 * np.dtype(f.dtype).itemsize, memory_of_machine()
    if needed > there:
        raise ValueError(
            f"{f.name} works with matrices of {f.size} x {f.size} numbers, as many rows as the parameters have "
            f"components, and {MATRICES} of them take {needed / 1e9:.3g} GB; this machine has {there / 1e9:.3g} GB. "
            f"Use {others}, whose memory grows with the number of components and not with its square"
        )


def memory_of_machine() -> float:
    """The bytes of memory that the machine has, infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return np.inf


class CompactInverseHessian(NamedTuple):
    r"""The inverse Hessian of L-BFGS, from the last :math:`m` pairs :math:`(s_i, y_i)` of steps and gradient changes.

    Its compact form is

    .. math::
        H = \gamma I + \begin{pmatrix} S & \gamma Y \end{pmatrix}
        \begin{pmatrix} R^{-T} (D + \gamma Y^T Y) R^{-1} & -R^{-T} \\ -R^{-1} & 0 \end{pmatrix}
        \begin{pmatrix} S^T \\ \gamma Y^T \end{pmatrix}

    with the pairs as the columns of :math:`S` and :math:`Y`, :math:`R` the upper triangle of :math:`S^T Y` with the
    pairs in the order of time, :math:`D` its diagonal and :math:`\gamma = s^T y / y^T y` of the newest pair. All
    factors are kept as state. A new pair is written where the oldest was: the formula stays true if rows and columns
    are reordered throughout. A slot that is not in use has zeros in :math:`R^{-1}`, and so contributes nothing. Memory
    is :math:`2mn + 2m^2 + m` numbers, and a product or a new pair costs :math:`O(mn)`.

    Attributes
    ----------
    vectors : matrix of shape (2m, n)
        :math:`S^T` above :math:`Y^T`.
    inverse : matrix of shape (m, m)
        :math:`R^{-1}`.
    products : matrix of shape (m, m)
        :math:`Y^T Y`.
    curvatures : vector of shape (m,)
        The diagonal of :math:`D`.
    scale : scalar
        :math:`\gamma`, 1 without pairs.
    slot : integer scalar
        Where the next pair is written.

    References
    ----------
    Byrd, Nocedal and Schnabel (1994), Representations of quasi-Newton matrices and their use in limited memory methods,
    theorem 2.2 and equation 3.1.
    """

    vectors: Any
    inverse: Any
    products: Any
    curvatures: Any
    scale: Any
    slot: Any

    @classmethod
    def begin(cls, f: Objective, memory: int, prefix: str = "") -> CompactInverseHessian:
        """The state without pairs, for the rule with the objective `f`; the names of the roles begin with `prefix`."""
        shapes = [(2 * memory, f.size), (memory, memory), (memory, memory), (memory,), (), ()]
        return cls(
            *(
                inverse_hessian_state(
                    f, f"{prefix}{field}", shape, "int64" if field == "slot" else None, field == "scale"
                )
                for field, shape in zip(cls._fields, shapes, strict=True)
            )
        )

    @property
    def memory(self) -> int:
        """:math:`m`, for fields that are variables or arrays."""
        return getattr(self.curvatures, "type", self.curvatures).shape[0]

    @property
    def empty(self) -> Any:
        """Whether there is no pair."""
        return pt.all(pt.eq(self.curvatures, 0))

    def older(self, condition: Tensor) -> CompactInverseHessian:
        """These pairs without the newest where `condition` is true, with its scale; else all of them."""
        newest = condition & pt.eq(pt.arange(self.memory), (self.slot + self.memory - 1) % self.memory)
        inverse = pt.switch(newest[:, None] | newest, pt.zeros_like(self.inverse), self.inverse)
        return self._replace(
            inverse=inverse, curvatures=pt.switch(newest, pt.zeros_like(self.curvatures), self.curvatures)
        )

    def times(self, g: Array) -> Any:
        """The product of the inverse Hessian with the vector `g`, a variable or an array as the fields are."""
        memory = self.memory
        along = times(self.vectors, g)
        u = times(self.inverse, along[:memory])
        v = self.curvatures * u + self.scale * (times(self.products, u) - along[memory:])
        join = np.concatenate if isinstance(g, np.ndarray) else pt.concatenate
        return self.scale * g + combined(self.vectors, join([combined(self.inverse, v), -self.scale * u]))

    def cleared(self, condition: Tensor) -> CompactInverseHessian:
        """No pairs where `condition` is true, else these."""
        inverse, curvatures = (pt.switch(condition, pt.zeros_like(a), a) for a in (self.inverse, self.curvatures))
        scale = pt.switch(condition, pt.ones_like(self.scale), self.scale)
        return self._replace(inverse=inverse, curvatures=curvatures, scale=scale)

    def transported(self, project: Callable[[Any], Any], unless: Tensor = FALSE) -> CompactInverseHessian:
        """These pairs in another tangent space, on which `project` projects the rows of a matrix.

        A pair that has lost its positive curvature is left out. Where `unless` is true, nothing changes.
        """
        memory, vectors = self.memory, project(self.vectors)
        S, Y = vectors[:memory], vectors[memory:]
        SY, YY, eye = pt.dot(S, Y.T), pt.dot(Y, Y.T), np.eye(memory, dtype=vectors.type.dtype)
        sy, lengths = pt.diagonal(SY), pt.sqrt(pt.sum(S**2, axis=1) * pt.diagonal(YY))
        used = pt.gt(self.curvatures, 0) & (sy > np.asarray(np.finfo(eye.dtype).eps, eye.dtype) * lengths)
        both, order = used[:, None] & used, (pt.arange(memory) - self.slot) % memory
        R = pt.switch(both & (order[:, None] <= order), SY, eye)
        inverse = pt.switch(both, eliminated(R, pt.constant(eye)), np.zeros_like(eye))
        curvatures = pt.switch(used, sy, pt.zeros_like(sy))
        new = self._replace(vectors=vectors, inverse=inverse, products=YY, curvatures=curvatures)
        return CompactInverseHessian(*(pt.switch(unless, a, b) for a, b in zip(self, new, strict=True)))

    def push(self, s: Tensor, y: Tensor, unless: Tensor = FALSE) -> CompactInverseHessian:
        r"""These pairs with a new one, which replaces the oldest.

        A pair without curvature is left out, see `curvature`; where `unless` is true, any pair is.
        """
        memory = self.memory
        # The matrix does not depend on the lengths of the pairs, and with these its factors do not overflow.
        u = unit(y)
        s, y = s / u, y / u
        good, sy, scale = curvature(s, y)
        good = good & ~unless
        vectors = self.vectors
        # Only two rows change, so that PyTensor can write them in place.
        for row, vector in ((self.slot, s), (self.slot + memory, y)):
            vectors = pt.set_subtensor(vectors[row], pt.switch(good, vector, vectors[row]))
        along = times(vectors, y)
        sYy, yYy = along[:memory], along[memory:]
        # The inverse of a triangle bordered by one more column needs no solve.
        new = pt.eq(pt.arange(memory), self.slot)
        others = pt.switch(new[:, None] | new, pt.zeros_like(self.inverse), self.inverse)
        column = pt.switch(new, 1 / sy, -times(others, sYy) / sy)
        return CompactInverseHessian(
            vectors,
            pt.switch(good, pt.switch(new, column[:, None], others), self.inverse),
            pt.switch(good & new[:, None], yYy, pt.switch(good & new, yYy[:, None], self.products)),
            pt.switch(good & new, sy, self.curvatures),
            pt.switch(good, scale, self.scale),
            pt.switch(good, (self.slot + 1) % memory, self.slot),
        )


class CompactHessian(NamedTuple):
    r"""The Hessian of L-BFGS, from the last :math:`m` pairs :math:`(s_i, y_i)` of steps and gradient changes.

    Its compact form, with each pair scaled so that :math:`s_i^T y_i = 1`, is

    .. math:: B = \theta \, (I - V^T K^{-1} V), \qquad V = \begin{pmatrix} Y^T \\ S^T \end{pmatrix}, \qquad
        K = \begin{pmatrix} -\theta I & L^T \\ L & S^T S \end{pmatrix}

    with :math:`L_{ij} = s_i^T y_j` where pair i is newer than pair j, else 0, and :math:`\theta = y^T y / s^T y` of the
    newest pair. All but :math:`-\theta I` is kept as state. A new pair is written where the oldest was: the order is in
    L alone. A slot that is not in use has zeros in V and contributes nothing. On the components inside of their bounds,
    with the columns of V for them, the inverse is

    .. math:: B_F^{-1} = \frac{1}{\theta} \left( I + V_F^T (K - V_F V_F^T)^{-1} V_F \right)

    Attributes
    ----------
    active : vector of shape (n,)
        0 for the components inside of their bounds, -1 for those at the lower and 1 for those at the upper one.
    vectors : matrix of shape (2m, n)
        :math:`V`.
    products : matrix of shape (2m, 2m)
        :math:`K` with zeros for :math:`-\theta I`, and 1 on the diagonal of slots not in use.
    scale : scalar
        :math:`\theta`, 1 without pairs.
    pushed : integer scalar
        How many pairs there have been.

    References
    ----------
    Byrd, Nocedal and Schnabel (1994), Representations of quasi-Newton matrices and their use in limited memory methods,
    theorem 2.3; Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization,
    equations 3.3 and 5.10.
    """

    active: Any
    vectors: Any
    products: Any
    scale: Any
    pushed: Any

    @classmethod
    def begin(cls, f: Objective, memory: int) -> CompactHessian:
        """The state without pairs, for the rule with the objective `f`."""
        return cls(
            inverse_hessian_state(f, "active", (f.components,)),
            inverse_hessian_state(f, "vectors", (2 * memory, f.components)),
            inverse_hessian_state(f, "products", (2 * memory,) * 2, fill=_without_pairs(memory)),
            inverse_hessian_state(f, "scale", (), fill=1),
            inverse_hessian_state(f, "pushed", (), "int64"),
        )

    @property
    def memory(self) -> int:
        """:math:`m`, for fields that are variables or arrays."""
        return getattr(self.products, "type", self.products).shape[0] // 2

    @property
    def empty(self) -> Any:
        """Whether there is no pair."""
        return pt.eq(self.pushed, 0)

    def matrix(self) -> Any:
        """:math:`K`, of variables or arrays as the fields are."""
        upper = np.diag(np.repeat([True, False], self.memory))
        choose = np.where if isinstance(self.products, np.ndarray) else pt.switch
        return choose(upper, -self.scale, self.products)

    def solved(self, right: Tensor) -> Any:
        r""":math:`K^{-1} R` for a vector or a matrix R, by eliminating the half that is :math:`-\theta I` first."""
        memory, product = self.memory, times if right.type.ndim == 1 else pt.dot
        L, SS, upper = self.products[memory:, :memory], self.products[memory:, memory:], right[:memory] / self.scale
        rest = right[memory:] + product(L, upper)
        lower = eliminated(SS + pt.dot(L, L.T) / self.scale, rest)
        return pt.concatenate([product(L.T, lower) / self.scale - upper, lower])

    def inverse_matrix(self) -> Any:
        r""":math:`K^{-1}`."""
        return self.solved(pt.constant(np.eye(2 * self.memory, dtype=self.products.type.dtype)))

    def times(self, g: np.ndarray) -> Any:
        """The product of the inverse Hessian of the components inside with the vector `g`, both arrays; 0 elsewhere."""
        free = self.active == 0
        V, g = self.vectors * free, g * free
        return (g + np.linalg.solve(self.matrix() - V @ V.T, V @ g) @ V) / self.scale

    def cleared(self, condition: Tensor) -> CompactHessian:
        """No pairs where `condition` is true, else these."""
        nothing = _without_pairs(self.memory).astype(self.products.type.dtype)
        empty = pt.zeros_like(self.vectors), nothing, pt.ones_like(self.scale), pt.zeros_like(self.pushed)
        fields = [pt.switch(condition, none, field) for none, field in zip(empty, self[1:], strict=True)]
        return CompactHessian(self.active, *fields)

    def push(self, s: Tensor, y: Tensor, unless: Tensor = FALSE, scale: Any = None) -> CompactHessian:
        r"""These pairs with a new one, which replaces the oldest; see `CompactInverseHessian.push`.

        By default the `scale` is :math:`y^T y / s^T y`.
        """
        memory = self.memory
        good, sy, inverse_scale = curvature(s, y)
        scale = 1 / inverse_scale if scale is None else scale
        good = good & ~unless
        s, y = s / pt.sqrt(sy), y / pt.sqrt(sy)
        slot, vectors = self.pushed % memory, self.vectors
        for row, vector in ((slot, y), (slot + memory, s)):
            vectors = pt.set_subtensor(vectors[row], pt.switch(good, vector, vectors[row]))
        place = pt.arange(2 * memory)
        # No step is newer than the new change of the gradient, so that it has no products in L.
        of_y, of_s = pt.eq(place, slot), pt.eq(place, slot + memory)
        along = pt.switch(of_y, np.asarray(0, s.type.dtype), times(vectors, s))
        others = pt.switch(of_y[:, None] | of_y, pt.zeros_like(self.products), self.products)
        products = pt.switch(of_s, along[:, None], pt.switch(of_s[:, None], along, others))
        return CompactHessian(
            self.active,
            vectors,
            pt.switch(good, products, self.products),
            pt.switch(good, scale, self.scale),
            pt.switch(good, self.pushed + 1, self.pushed),
        )


def _without_pairs(memory: int) -> np.ndarray:
    return np.diag(np.repeat([0.0, 1.0], memory))


# Why `conjugate_gradients` has ended: all steps are done; the residual is small; the model hardly decreases any more;
# the curvature along a direction is not positive; the boundary of the trust region is reached.
STEPS, SOLVED, SETTLED, CURVED, BOUNDARY = (np.int64(reason) for reason in range(5))


class Iterates(NamedTuple):
    """Some iterates of `conjugate_gradients`, at counts that grow geometrically, and the last one.

    Attributes
    ----------
    vectors : matrix
        An iterate in each row; rows after the last one are not in use.
    models : vector
        The value of the model at each iterate.
    last : integer scalar variable
        The row of the last iterate.
    """

    vectors: Any
    models: Any
    last: Any


class Solution(NamedTuple):
    r"""The result of `conjugate_gradients`.

    Attributes
    ----------
    vector : vector
        The last iterate :math:`d`.
    residual : vector
        :math:`B d + g`, by the recursion, so that :math:`B d` needs no further product.
    products : integer scalar variable
        The number of products, with that for the start.
    reason : integer scalar variable
        Why the iteration has ended: `STEPS`, `SOLVED`, `SETTLED`, `CURVED` or `BOUNDARY`.
    model : scalar variable
        :math:`\frac12 d^T B d + g^T d`, never positive from a start of zero.
    iterates : Iterates or None
    """

    vector: Any
    residual: Any
    products: Any
    reason: Any
    model: Any
    iterates: Any = None


def conjugate_gradients(product: Callable[[Any], Any], gradient: Tensor, steps: int | Tensor, *,
                        tolerance: Scalar = 0.0, start: Tensor | None = None, diagonal: Tensor | None = None,
                        radius: Scalar | None = None, follow: bool = False, progress: Scalar | None = None,
                        keep: bool = False, max_steps: int | None = None) -> Solution:  # fmt: skip
    r"""The minimizer of the quadratic model :math:`\frac12 d^T B d + g^T d`, by conjugate gradients.

    With the residual :math:`r = B d + g`, :math:`y = P^{-1} r` and first :math:`p = -y`,

    .. math:: a = \frac{r^T y}{p^T B p}, \qquad d \leftarrow d + a p, \qquad r \leftarrow r + a B p, \qquad
        p \leftarrow -y_{new} + \frac{r_{new}^T y_{new}}{r^T y} p

    The curvature along :math:`p` counts as positive if :math:`p^T B p > \epsilon \|p\| \|B p\|`, with :math:`\epsilon`
    the machine precision. Where it is not positive, the iteration ends. The result is then the last iterate; if that is
    still zero, or with `follow`, one more step along the direction with :math:`a = r^T y / \|p\| \|B p\|`, which has
    the length of a step also where the curvature vanishes; with a `radius`, the point on the boundary. An iterate that
    would not be finite is not taken. With a `radius`, a product that is not finite counts as zero: the model is then
    linear along :math:`p`.

    Parameters
    ----------
    product : callable
        From a symbolic vector :math:`v` to :math:`B v`. It is called once, inside of the loop.
    gradient : vector
        :math:`g`.
    steps : int or integer scalar variable
        The largest number of steps; with 0 the result is zero, without products.
    tolerance : scalar
        The norm of the residual at which the iteration ends; at least :math:`\epsilon \|g\|`.
    start : vector, optional
        The first iterate, by default zero. A start that is not zero costs a product. Not together with `radius`.
    diagonal : vector, optional
        The preconditioner :math:`P`, positive.
    radius : scalar, optional
        The radius of a trust region. The last iterate is then the point where the line to the first iterate outside
        leaves the region. Where the curvature is not positive, it is the end of the line along :math:`p` at which the
        model is lower.
    follow : bool
        Whether to step along a direction without positive curvature at any iterate, not only at zero. It descends: in
        exact arithmetic :math:`g^T p = -r^T y`.
    progress : scalar, optional
        :math:`\epsilon`: the iteration ends at step :math:`i` if, with :math:`k = \max(10, \lceil 0.1 i \rceil)`, the
        model :math:`m` was negative :math:`k` steps ago, and :math:`(m_i - m_{i-k}) / m_i < k \epsilon`.
    keep : bool
        Whether to keep iterates: those at the steps 5, 7, 9, 11, 15, ..., each about 1.3 times the previous one.
    max_steps : int, optional
        The largest value of `steps`, if `steps` is a variable and `progress` or `keep` is used.

    Returns
    -------
    Solution

    References
    ----------
    Steihaug (1983), The conjugate gradient method and trust regions in large scale optimization; Nocedal and Wright
    (2006), Numerical optimization, algorithms 5.3, 7.1 and 7.2; Martens (2010), Deep learning via Hessian-free
    optimization, section 4.4, for `progress`, and 4.6 for `keep`. The first count there is 1; 5 is that of the author's
    program.
    """
    dtype = gradient.type.dtype
    zero, half, one, epsilon = (np.asarray(value, dtype) for value in (0, 0.5, 1, np.finfo(dtype).eps))
    # From a start of zero the result is linear in the gradient, and in its unit the squares of that do not overflow.
    u = unit(gradient) if start is None else one
    g = in_units(gradient, u)
    limit: Any = steps if max_steps is None else max_steps
    # A residual at the level of round-off cannot be reduced.
    tolerance = pt.maximum(as_dtype(pt.as_tensor(tolerance), dtype) / u, epsilon * norm(g))
    if radius is not None:
        radius = as_dtype(pt.as_tensor(radius), dtype) / u

    # A start that is not zero is the direction of a step number 0, of size 1.
    zeros = pt.zeros_like(g)
    y = g if diagonal is None else g / diagonal
    warm = FALSE if start is None else pt.any(pt.neq(start, 0))
    i0 = pt.switch(warm, np.int64(0), np.int64(1))
    p0 = -y if start is None else pt.switch(warm, start, -y)
    initial: list[Any] = [i0, STEPS, zeros, g, p0, dot(g, y)]
    if progress is not None:
        progress = as_dtype(pt.as_tensor(progress), dtype)
        window = max(11, -(-limit // 10) + 1)
        initial.append(pt.zeros((window,), dtype))
    if keep:
        marks = _marks(limit)
        rows = pt.zeros((len(marks), 1), dtype) * zeros
        initial += [np.int64(0), rows, pt.zeros((len(marks),), dtype)]

    def step(i: Any, reason: Any, d: Any, r: Any, p: Any, ry: Any, *rest: Any) -> tuple[list[Any], Any]:
        Bp = product(p)
        if radius is not None:
            Bp = pt.switch(pt.all(pt.isfinite(Bp)), Bp, pt.zeros_like(Bp))
        size, pBp = norm(p) * norm(Bp), dot(p, Bp)
        nonpositive = ~(pBp > epsilon * size)
        a = ry / pt.switch(nonpositive, size, pBp)
        outside = FALSE
        if radius is not None:
            outside = nonpositive | ~(norm(d + a * p) < radius)
            a = pt.switch(outside, _to_boundary(d, p, dot(r, p), pBp, radius, nonpositive), a)
        elif not follow:
            a = pt.switch(nonpositive & pt.any(pt.neq(d, 0)), zero, a)
        if start is not None:
            first = pt.eq(i, 0)
            nonpositive = nonpositive & ~first
            a = pt.switch(first, one, a)
        next_d, next_r = d + a * p, r + a * Bp
        valid = pt.isfinite(a) & pt.isfinite(dot(next_d, next_r))
        d, r = pt.switch(valid, next_d, d), pt.switch(valid, next_r, r)
        y = r if diagonal is None else r / diagonal
        next_ry = dot(r, y)
        beta = next_ry / ry
        if start is not None:
            beta = pt.switch(first, zero, beta)
        # Written so that NaN ends the iteration.
        solved = ~(norm(r) > tolerance) | ~(next_ry > 0) | ~valid
        reason = pt.switch(outside, BOUNDARY, pt.switch(nonpositive, CURVED, pt.switch(solved, SOLVED, STEPS)))

        model = half * dot(r + g, d)
        next_rest: list[Any] = []
        if progress is not None:
            history, rest = rest[0], rest[1:]
            k = pt.maximum(np.int64(10), (i + 9) // 10)
            previous = history[(i - k) % window]
            slow = (i > k) & (previous < 0) & (model - previous > as_dtype(k, dtype) * progress * model)
            reason = pt.switch(pt.eq(reason, STEPS) & slow, SETTLED, reason)
            next_rest.append(pt.set_subtensor(history[i % window], model))
        if keep:
            last, vectors, models = rest
            last = pt.switch(i > pt.constant(marks)[last], last + 1, last)
            next_rest += [last, pt.set_subtensor(vectors[last], d), pt.set_subtensor(models[last], model)]
        return [i + 1, reason, d, r, -y + beta * p, next_ry, *next_rest], pt.neq(reason, STEPS)

    needed = ~(norm(g) <= tolerance) if start is None else warm | ~(norm(g) <= tolerance)
    count = pt.switch(needed & pt.gt(steps, 0), pt.as_tensor(steps) + 1 - i0, 0)
    i, reason, d, r, _, _, *rest = repeat(step, initial, count)
    reason = pt.switch(needed, reason, SOLVED)
    model = scaled(scaled(half * dot(r + g, d), u), u)
    iterates = Iterates(u * rest[-2], scaled(scaled(rest[-1], u), u), rest[-3]) if keep else None
    return Solution(scaled(d, u), scaled(r, u), i - i0, reason, model, iterates)


def forcing(gradient: Tensor) -> Any:
    r"""The norm of the residual, :math:`\min(1/2, \sqrt{\|g\|}) \, \|g\|`, that gives superlinear convergence."""
    size = norm(gradient)
    return pt.minimum(np.asarray(0.5, gradient.type.dtype), pt.sqrt(size)) * size


def limit(cg_steps: int | None, size: int) -> int:
    """The option `cg_steps`, checked: the largest number of steps of conjugate gradients, by default 20 a component."""
    return 20 * size if cg_steps is None else check_count("cg_steps", cg_steps)


def preconditioner_diagonal(f: Objective, preconditioner: Any, floor: Scalar | None = None) -> Any:
    """The option `preconditioner` as one vector: for each parameter a diagonal of its shape that is not negative.

    With a `floor`, elements below it times the largest are raised to this.

    Raises
    ------
    TypeError, ValueError
        If it is not such a list, or an element is known to be negative or not finite.
    """
    diagonal = f.pack(_preconditioner(f.parameters, preconditioner))
    if floor is not None:
        diagonal = pt.maximum(diagonal, as_dtype(pt.as_tensor(floor), f.dtype) * pt.max(diagonal))
    return diagonal


def preconditioner_scale(parameters: Variables, preconditioner: Any) -> Any:
    """The option `preconditioner`, a name or a diagonal as in `preconditioner_diagonal`, as an `x_scale`.

    Raises
    ------
    TypeError, ValueError
        As in `preconditioner_diagonal`, or if it is another name than "curvature".
    """
    if isinstance(preconditioner, str):
        check_choice("preconditioner", preconditioner, ("curvature",))
        return preconditioner
    return [1 / pt.sqrt(part) for part in _preconditioner(check_parameters(parameters), preconditioner)]


def _preconditioner(parameters: list[Any], preconditioner: Any) -> list[Any]:
    parts = check_gradients(preconditioner, parameters, "preconditioner")
    for part, parameter in zip(parts, parameters, strict=True):
        if isinstance(part, Constant) and not np.all((part.data >= 0) & np.isfinite(part.data)):
            raise ValueError(
                f"the preconditioner of {called(parameter)} has elements that are negative or not finite; pass typical "
                "second derivatives of the cost, for instance the mean square of an input"
            )
    return parts


def _marks(steps: int) -> np.ndarray:
    """The steps whose iterates are kept, and a last number that no step reaches."""
    marks = np.ceil(5 * 1.3 ** np.arange(max(0, int(np.log(max(steps, 5) / 5) / np.log(1.3))) + 2)).astype("int64")
    return np.append(marks[marks <= steps], np.iinfo("int64").max)


def _to_boundary(d: Any, p: Any, slope: Any, pBp: Any, radius: Any, nonpositive: Any) -> Any:
    """The step size from `d` along `p` to the sphere; where the curvature is `nonpositive`, to the lower of both ends.

    `slope` and `pBp` are the first and second derivative of the model along `p`.
    """
    # In units of the radius and of the length of p.
    length = norm(p)
    inside = in_units(d, radius)
    dp, gap = dot(inside, in_units(p, length)), 1 - dot(inside, inside)
    # The norm of d grows along the directions of the method, so that dp is not negative and nothing cancels here.
    root = dp + pt.sqrt(dp**2 + gap)
    forward, backward = radius / length * (gap / root), -(radius / length) * root

    def model(a: Any) -> Any:
        return a * (slope + a * pBp / 2)

    return pt.switch(nonpositive & (model(backward) < model(forward)), backward, forward)


def curvature(s: Tensor, y: Tensor) -> tuple[Any, Any, Any]:
    r"""Whether the pair :math:`(s, y)` has positive curvature; :math:`s^T y` and :math:`s^T y / y^T y`, 1 if not.

    The test is :math:`s^T y > \epsilon \|s\| \|y\|`, with :math:`\epsilon` the machine precision. With any other pair
    an inverse Hessian would lose its positive definiteness. The test does not depend on the units of the cost or of the
    parameters. The test :math:`s^T y > \epsilon y^T y`, which is often stated, depends on those of the cost: in float32
    no pair passes it where the curvature is above 1e7.
    """
    u = unit(y)
    v = in_units(y, u)
    sy, scale = dot(s, y), dot(s, v) / dot(v, v) / u
    good = (
        (sy > np.finfo(s.type.dtype).eps * norm(s) * norm(y)) & pt.isfinite(1 / sy) & pt.isfinite(scale) & (scale > 0)
    )
    one = pt.ones_like(sy)
    return good, pt.switch(good, sy, one), pt.switch(good, scale, one)


def bfgs_update(H: Tensor, s: Tensor, y: Tensor, sy: Tensor) -> Any:
    r"""The inverse Hessian `H`, updated with the pair :math:`(s, y)` by the formula of BFGS; `sy` is :math:`s^T y`.

    .. math:: (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / s^T y

    multiplied out, so that it costs :math:`O(n^2)`.
    """
    Hy = times(H, y)
    cross = pt.outer(s, Hy) / sy
    return H - cross - cross.T + (1 + dot(y, Hy) / sy) / sy * pt.outer(s, s)


def times(matrix: Array, vector: Array) -> Any:
    """The product of a matrix and a vector, variables or arrays; as a sum for the reason given at `dot`."""
    return (matrix * vector).sum(axis=1)


def combined(matrix: Array, weights: Array) -> Any:
    """The sum of the rows of a matrix, each times its weight; variables or arrays."""
    return (matrix * weights[:, None]).sum(axis=0)


def shifted(rows: Tensor, row: Tensor) -> Any:
    """`rows` without the first one, and with `row` appended."""
    return pt.concatenate([rows[1:], row[None]])


def inverse_hessian_state(
    f: Objective, role: str, shape: tuple[int, ...], dtype: str | None = None, fill: float | np.ndarray = 0
) -> Any:
    """State that `inverse_hessian` reads: a matrix, or a field of a `CompactInverseHessian`."""
    return noted(f.state(role, shape, dtype, fill), inverse_hessian=True)


@hinted
def inverse_hessian(updates: Updates) -> Any:
    """The present approximation of the inverse Hessian, from the state of a rule.

    It is what sufficed to go downhill, right only where the rule has gone. For errors of estimates take `covariance`.

    Parameters
    ----------
    updates : dict
        The dictionary that the rule returned.

    Returns
    -------
    array, LinearOperator, list of LinearOperator or None
        For a dense rule a matrix of shape (n, n); for a rule of limited memory an operator of SciPy, which keeps copies
        of the pairs; None for a rule without an inverse Hessian. Rows and columns are in the order of the parameters,
        each flattened. Under ascent it is the inverse Hessian of the negative cost. For a `batch` it is an array of
        shape (members, n, n), or a list of operators.

    Raises
    ------
    ValueError
        If several rules are joined in `updates`.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.array([3.0, -1.0]), name="x"), pytensor.shared(0, name="stop")
    >>> updates = optapi.bfgs([x], x[0] ** 2 + 5 * x[1] ** 2, stop=stop)
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> optapi.inverse_hessian(updates).round(2) + 0.0
    array([[0.5, 0. ],
           [0. , 0.1]])
    """
    values, scales = (
        [v.get_value() for v in check_updates(updates) if note(v, kind)] for kind in ("inverse_hessian", "x_scale")
    )
    return inverse_hessian_of(values, scales)


def inverse_hessian_of(values: Sequence[Any], scales: Sequence[Any] = ()) -> Any:
    """`inverse_hessian` from the values of the state that `inverse_hessian_state` made; they are not copied.

    `scales` are those of `x_scale` if there are any, in whose units that state is.
    """
    if not values:
        return None
    # Not a number before they are known: the rule has not made a step.
    scales = [np.where(np.isnan(D), 1, D).astype(D.dtype) for D in scales]
    kinds: dict[int, Any] = {len(kind._fields): kind for kind in (CompactInverseHessian, CompactHessian)}
    if len(values) not in (1, *kinds) or len(scales) > 1:
        raise ValueError("updates joins several rules with an inverse Hessian; pass the updates of one")
    if len(values) == 1:
        return values[0] if not scales else scales[0][..., :, None] * values[0] * scales[0][..., None, :]
    from scipy.sparse.linalg import LinearOperator

    if np.ndim(values[-1]) > 0:  # those of a batch: one operator for each member
        return [
            inverse_hessian_of(member, [D[i] for D in scales]) for i, member in enumerate(zip(*values, strict=True))
        ]
    pairs = kinds[len(values)](*values)
    size = pairs.vectors.shape[1]
    # Not a local function, so that a result pickles.
    product = partial(_product, pairs, scales[0] if scales else 1)
    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=pairs.vectors.dtype)


def _product(pairs: CompactInverseHessian | CompactHessian, scale: Any, vector: Any) -> Any:
    # SciPy also passes columns.
    return scale * pairs.times(scale * np.ravel(vector))
