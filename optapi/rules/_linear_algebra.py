"""What several families of rules share: quasi-Newton pairs, the conjugate gradient solver, products of vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from ..checks import as_dtype, check_count
from ..graph.loops import FALSE, repeat
from ..notes import note, noted
from ..objective import Objective
from ..typing import Array, Scalar, Tensor, Updates


def dot(a: Array, b: Tensor) -> Any:
    """The inner product of two vectors.

    As a sum: for vectors ``pt.dot`` would be a call into BLAS, which numba takes long to compile.
    """
    return pt.sum(a * b)


def norm(a: Tensor) -> Any:
    """The Euclidean norm of a vector."""
    return pt.sqrt(dot(a, a))


def largest(a: Tensor) -> Any:
    """The largest component of a vector in absolute value; NaN if any is, 0 if there is none."""
    # A maximum would lose NaN under numba on PyTensor 3.0, and has no value for an empty vector.
    sizes = abs(a)
    if not a.type.shape[0]:
        # The zero is made from `a`, so that in a batch each member has one, and the join stays a join.
        sizes = pt.concatenate([pt.zeros_like(pt.sum(a, keepdims=True)), sizes])
    return pt.switch(pt.any(pt.isnan(sizes)), np.asarray(np.nan, a.type.dtype), pt.max(sizes))


def ratio(a: Tensor, b: Tensor, where: Tensor | None = None) -> Any:
    """`a` over `b` where `where` is true, by default where `b` is not 0, and 0 elsewhere."""
    where = pt.neq(b, 0) if where is None else where
    # The denominator is replaced too, so that no infinite or undefined quotient is worked out.
    return pt.switch(where, a / pt.switch(where, b, pt.ones_like(b)), pt.zeros_like(a))


def rows(times: Callable[[Any], Any], size: int, length: int | Tensor, dtype: str, wanted: Tensor) -> Any:
    """The transpose of the matrix of a linear map: its values for the unit vectors, one after the other.

    Parameters
    ----------
    times : callable
        From a vector to its image. What it reads beside the vector is computed once.
    size, length : int or integer scalar variable
        The numbers of components of a vector and of its image.
    dtype : str
    wanted : boolean scalar variable
        Whether the images are to be computed; else they are zeros.
    """

    def turn(place: Any, images: Any) -> Any:
        unit = pt.eq(np.arange(size), place).astype(dtype)
        return [place + 1, pt.set_subtensor(images[place], times(unit))], FALSE

    begin = pt.zeros((size, length), dtype=dtype)
    return repeat(turn, [np.int64(0), begin], pt.switch(wanted, size, 0))[1]


def guarded(matrix: Tensor) -> tuple[Any, Any]:
    """`matrix` and 0; or zeros and NaN where it is not finite: decompositions raise there."""
    good = pt.all(pt.isfinite(matrix))
    nan = pt.constant(np.asarray(np.nan, matrix.type.dtype))
    return pt.switch(good, matrix, pt.zeros_like(matrix)), pt.switch(good, pt.zeros_like(nan), nan)


class CompactInverseHessian(NamedTuple):
    r"""The last :math:`m` pairs :math:`(s_i, y_i)` of steps and changes of the gradient.

    They stand for the inverse Hessian in its compact form,

    .. math::
        H = \gamma I + \begin{pmatrix} S & \gamma Y \end{pmatrix}
        \begin{pmatrix} R^{-T} (D + \gamma Y^T Y) R^{-1} & -R^{-T} \\ -R^{-1} & 0 \end{pmatrix}
        \begin{pmatrix} S^T \\ \gamma Y^T \end{pmatrix}

    with the pairs as the columns of :math:`S` and :math:`Y`, :math:`R` the upper triangle of :math:`S^T Y` where the
    pairs are in the order of time, :math:`D` its diagonal and :math:`\gamma = s^T y / y^T y` of the newest pair. All
    that depends on the pairs alone is carried along. A new pair is written where the oldest was: the formula stays true
    if rows and columns are reordered throughout. A slot that is not in use has zeros in :math:`R^{-1}`, and so
    contributes nothing. Memory is :math:`2mn + 2m^2 + m` numbers, and a product or a new pair costs :math:`O(mn)`.

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
        """No pairs yet, as state of the rule whose objective is `f`; `prefix` begins the names of its roles."""
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
        """:math:`m`; of variables and of arrays."""
        return getattr(self.curvatures, "type", self.curvatures).shape[0]

    @property
    def empty(self) -> Any:
        """Whether there is no pair."""
        return pt.all(pt.eq(self.curvatures, 0))

    def times(self, g: Array) -> Any:
        """The product of the inverse Hessian with the vector `g`."""
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

    def push(self, s: Tensor, y: Tensor, unless: Tensor = FALSE) -> CompactInverseHessian:
        r"""These pairs with a new one, which takes the place of the oldest.

        A pair without curvature is left out, see `curvature`; so is any if `unless` is true.
        """
        memory = self.memory
        good, sy, yy = curvature(s, y)
        good = good & ~unless
        vectors = self.vectors
        # Only two rows change, so that the rest may stay where it is.
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
            pt.switch(good, sy / yy, self.scale),
            pt.switch(good, (self.slot + 1) % memory, self.slot),
        )


# Why `conjugate_gradients` has ended: all steps done; the residual is small; the model hardly falls any more; the
# curvature along a direction is not positive; the boundary of the trust region is reached.
STEPS, SOLVED, SETTLED, CURVED, BOUNDARY = (np.int64(reason) for reason in range(5))


class Iterates(NamedTuple):
    """Some iterates of `conjugate_gradients`, at counts that grow geometrically, and the last one.

    Attributes
    ----------
    vectors : matrix
        An iterate in each row, those in use first.
    models : vector
        The model at each.
    last : integer scalar variable
        The row of the last iterate.
    """

    vectors: Any
    models: Any
    last: Any


class Solution(NamedTuple):
    r"""What `conjugate_gradients` found.

    Attributes
    ----------
    vector : vector
        The last iterate :math:`d`.
    residual : vector
        :math:`B d + g`, as it was carried along, so that :math:`B d` needs no further product.
    products : integer scalar variable
        The number of products, those for the start among them.
    reason : integer scalar variable
        Why it has ended: `STEPS`, `SOLVED`, `SETTLED`, `CURVED` or `BOUNDARY`.
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


def conjugate_gradients(
    product: Callable[[Any], Any],
    gradient: Tensor,
    steps: int | Tensor,
    *,
    tolerance: Scalar = 0.0,
    start: Tensor | None = None,
    diagonal: Tensor | None = None,
    radius: Scalar | None = None,
    progress: Scalar | None = None,
    keep: bool = False,
    longest: int | None = None,
) -> Solution:
    r"""The minimizer of the quadratic model :math:`\frac12 d^T B d + g^T d`, by conjugate gradients.

    With the residual :math:`r = B d + g`, :math:`y = P^{-1} r` and first :math:`p = -y`,

    .. math:: a = \frac{r^T y}{p^T B p}, \qquad d \leftarrow d + a p, \qquad r \leftarrow r + a B p, \qquad
        p \leftarrow -y_{new} + \frac{r_{new}^T y_{new}}{r^T y} p

    The curvature along :math:`p` counts as positive if :math:`p^T B p > \epsilon \|p\| \|B p\|`, with :math:`\epsilon`
    the machine precision. Where it is not, the last iterate is returned, or, if that is still zero, the first direction
    with :math:`a = r^T y / \|p\| \|B p\|`, so that it has the length of a step also where the curvature vanishes; with
    a `radius` the point on the boundary. An iterate that would not be finite is not taken.

    Parameters
    ----------
    product : callable
        :math:`B`, from a vector to its product, symbolic. Called at one place.
    gradient : vector
        :math:`g`.
    steps : int or integer scalar variable
        The largest number of steps; with 0 the result is zero, without products.
    tolerance : scalar
        The norm of the residual at which it ends; at least :math:`\epsilon \|g\|`.
    start : vector, optional
        The first iterate, by default zero; one that is not zero costs a product. Not together with `radius`.
    diagonal : vector, optional
        The preconditioner :math:`P`, positive.
    radius : scalar, optional
        That of a trust region: an iterate outside is replaced by the point where the way to it leaves the region. Where
        the curvature is not positive, it is that of both ends of the line along :math:`p` that has the lower model.
    progress : scalar, optional
        :math:`\epsilon`: it ends at step :math:`i` if, with :math:`k = \max(10, \lceil 0.1 i \rceil)`, the model
        :math:`m` was negative :math:`k` steps ago, and :math:`(m_i - m_{i-k}) / m_i < k \epsilon`.
    keep : bool
        Whether to keep iterates: those at the steps 5, 7, 9, 11, 15, ..., each about 1.3 times the last.
    longest : int, optional
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
    g, dtype = gradient, gradient.type.dtype
    zero, half, one, epsilon = (np.asarray(value, dtype) for value in (0, 0.5, 1, np.finfo(dtype).eps))
    most: Any = steps if longest is None else longest
    # Beyond round-off there is nothing to solve.
    tolerance = pt.maximum(as_dtype(pt.as_tensor(tolerance), dtype), epsilon * norm(g))

    # A start that is not zero is the first direction, of a step of length 1 with the number 0.
    none = pt.zeros_like(g)
    y = g if diagonal is None else g / diagonal
    warm = FALSE if start is None else pt.any(pt.neq(start, 0))
    i0 = pt.switch(warm, np.int64(0), np.int64(1))
    p0 = -y if start is None else pt.switch(warm, start, -y)
    begin: list[Any] = [i0, STEPS, none, g, p0, dot(g, y)]
    if progress is not None:
        progress = as_dtype(pt.as_tensor(progress), dtype)
        window = max(11, -(-most // 10) + 1)
        begin.append(pt.zeros((window,), dtype))
    if keep:
        marks = _marks(most)
        rows = pt.zeros((len(marks), 1), dtype) * none
        begin += [np.int64(0), rows, pt.zeros((len(marks),), dtype)]

    def step(i: Any, reason: Any, d: Any, r: Any, p: Any, ry: Any, *rest: Any) -> tuple[list[Any], Any]:
        Bp = product(p)
        size, bent = norm(p) * norm(Bp), dot(p, Bp)
        curved = ~(bent > epsilon * size)
        a = ry / pt.switch(curved, size, bent)
        outside = FALSE
        if radius is not None:
            limit = as_dtype(pt.as_tensor(radius), dtype)
            outside = curved | ~(norm(d + a * p) < limit)
            a = pt.switch(outside, _to_boundary(d, p, dot(r, p), bent, limit, curved), a)
        else:
            a = pt.switch(curved & pt.any(pt.neq(d, 0)), zero, a)
        if start is not None:
            first = pt.eq(i, 0)
            curved = curved & ~first
            a = pt.switch(first, one, a)
        following = d + a * p, r + a * Bp
        known = pt.isfinite(a) & pt.isfinite(dot(*following))
        d, r = (pt.switch(known, new, old) for new, old in zip(following, (d, r), strict=True))
        y = r if diagonal is None else r / diagonal
        new = dot(r, y)
        beta = new / ry
        if start is not None:
            beta = pt.switch(first, zero, beta)
        # Written so that NaN ends it.
        solved = ~(norm(r) > tolerance) | ~(new > 0) | ~known
        reason = pt.switch(outside, BOUNDARY, pt.switch(curved, CURVED, pt.switch(solved, SOLVED, STEPS)))

        model = half * dot(r + g, d)
        now: list[Any] = []
        if progress is not None:
            history, rest = rest[0], rest[1:]
            k = pt.maximum(np.int64(10), (i + 9) // 10)
            before = history[(i - k) % window]
            slow = (i > k) & (before < 0) & (model - before > as_dtype(k, dtype) * progress * model)
            reason = pt.switch(pt.eq(reason, STEPS) & slow, SETTLED, reason)
            now.append(pt.set_subtensor(history[i % window], model))
        if keep:
            last, vectors, models = rest
            last = pt.switch(i > pt.constant(marks)[last], last + 1, last)
            now += [last, pt.set_subtensor(vectors[last], d), pt.set_subtensor(models[last], model)]
        return [i + 1, reason, d, r, -y + beta * p, new, *now], pt.neq(reason, STEPS)

    started = ~(norm(g) <= tolerance) if start is None else warm | ~(norm(g) <= tolerance)
    turns = pt.switch(started & pt.gt(steps, 0), pt.as_tensor(steps) + 1 - i0, 0)
    i, reason, d, r, _, _, *rest = repeat(step, begin, turns)
    reason = pt.switch(started, reason, SOLVED)
    kept = Iterates(rest[-2], rest[-1], rest[-3]) if keep else None
    return Solution(d, r, i - i0, reason, half * dot(r + g, d), kept)


def forcing(gradient: Tensor) -> Any:
    r"""The residual :math:`\min(1/2, \sqrt{\|g\|}) \, \|g\|` at which to end, for superlinear convergence."""
    size = norm(gradient)
    return pt.minimum(np.asarray(0.5, gradient.type.dtype), pt.sqrt(size)) * size


def limit(cg_steps: int | None, size: int) -> int:
    """The largest number of steps of a rule that solves by conjugate gradients, checked; by default 20 a component."""
    return 20 * size if cg_steps is None else check_count("cg_steps", cg_steps)


def _marks(steps: int) -> np.ndarray:
    """The steps whose iterates are kept, and a last one that no step reaches."""
    marks = np.ceil(5 * 1.3 ** np.arange(max(0, int(np.log(max(steps, 5) / 5) / np.log(1.3))) + 2)).astype("int64")
    return np.append(marks[marks <= steps], np.iinfo("int64").max)


def _to_boundary(d: Any, p: Any, slope: Any, bent: Any, radius: Any, curved: Any) -> Any:
    """How far it is from `d` along `p` to the sphere; where it is curved, to the end of lower model."""
    pp, dp, left = dot(p, p), dot(d, p), radius**2 - dot(d, d)
    # Along the directions of the method d grows, so that nothing cancels here.
    ahead = left / (dp + pt.sqrt(dp**2 + pp * left))
    behind = -(dp + pt.sqrt(dp**2 + pp * left)) / pp

    def model(a: Any) -> Any:
        return a * (slope + a * bent / 2)

    return pt.switch(curved & (model(behind) < model(ahead)), behind, ahead)


def curvature(s: Tensor, y: Tensor) -> tuple[Any, Any, Any]:
    r"""Whether the pair of vectors :math:`(s, y)` has curvature; :math:`s^T y` and :math:`y^T y`, 1 if it has not.

    The test is :math:`s^T y > \epsilon \|s\| \|y\|`, with :math:`\epsilon` the machine precision. With any other pair
    an inverse Hessian would lose its positive definiteness. It does not depend on the units of the cost or of the
    parameters.
    """
    sy, yy = dot(s, y), dot(y, y)
    good = (sy > np.finfo(s.type.dtype).eps * norm(s) * norm(y)) & pt.isfinite(1 / sy) & pt.isfinite(sy / yy)
    one = pt.ones_like(sy)
    return good, pt.switch(good, sy, one), pt.switch(good, yy, one)


def bfgs_update(H: Tensor, s: Tensor, y: Tensor, sy: Tensor) -> Any:
    r"""The inverse Hessian `H` after the pair :math:`(s, y)`, of which `sy` is :math:`s^T y`, by the formula of BFGS.

    .. math:: (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / s^T y

    multiplied out, so that it costs :math:`O(n^2)`.
    """
    Hy = times(H, y)
    cross = pt.outer(s, Hy) / sy
    return H - cross - cross.T + (1 + dot(y, Hy) / sy) / sy * pt.outer(s, s)


def times(matrix: Array, vector: Array) -> Any:
    """A matrix times a vector, as a sum for the reason given at `dot`; variables or arrays."""
    return (matrix * vector).sum(axis=1)


def combined(matrix: Array, weights: Array) -> Any:
    """The rows of a matrix, each times its weight, summed up; variables or arrays."""
    return (matrix * weights[:, None]).sum(axis=0)


def shifted(rows: Tensor, row: Tensor) -> Any:
    """`rows` without the first and with `row` at the end."""
    return pt.concatenate([rows[1:], row[None]])


def inverse_hessian_state(
    f: Objective, role: str, shape: tuple[int, ...], dtype: str | None = None, fill: float | np.ndarray = 0
) -> Any:
    """State that `inverse_hessian` finds: a matrix, or one of all the parts of a `CompactInverseHessian`."""
    return noted(f.state(role, shape, dtype, fill), inverse_hessian=True)


def inverse_hessian(updates: Updates) -> Any:
    """The present approximation of the inverse Hessian by the rule that made `updates`.

    Parameters
    ----------
    updates : dict
        What a rule returned.

    Returns
    -------
    array, LinearOperator, list of LinearOperator or None
        For a dense rule a matrix of shape (n, n); for one of limited memory an operator of SciPy, which keeps copies of
        the pairs; None for a rule that has none. Rows and columns are in the order of the parameters, each flattened.
        Under ascent it is that of the negative cost. Of a `batch`, an array of shape (members, n, n) or a list of
        operators.

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
    return inverse_hessian_of([v.get_value() for v in updates if note(v, "inverse_hessian")])


def inverse_hessian_of(values: Sequence[Any]) -> Any:
    """The same of the values of the state that `inverse_hessian_state` made for a rule; they are not copied."""
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    if len(values) != len(CompactInverseHessian._fields):
        raise ValueError("updates joins several rules with an inverse Hessian; pass the updates of one")
    from scipy.sparse.linalg import LinearOperator

    if np.ndim(values[-1]) > 0:  # of a batch, for each member
        return [inverse_hessian_of(member) for member in zip(*values, strict=True)]
    pairs = CompactInverseHessian(*values)
    size = pairs.vectors.shape[1]
    # Not a local function, so that a result pickles.
    product = partial(_product, pairs)
    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=pairs.vectors.dtype)


def _product(pairs: CompactInverseHessian, vector: Any) -> Any:
    # SciPy also passes columns.
    return pairs.times(np.ravel(vector))
