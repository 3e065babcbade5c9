"""What several families of rules share: the memory of quasi-Newton pairs, and products of vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from .loops import FALSE
from .state import state
from .updates import Updates


def dot(a: Any, b: Any) -> Any:
    """The inner product of two vectors.

    As a sum: for vectors ``pt.dot`` would be a call into BLAS, which numba takes long to compile.
    """
    return pt.sum(a * b)


def norm(a: Any) -> Any:
    """The Euclidean norm of a vector."""
    return pt.sqrt(dot(a, a))


def largest(a: Any) -> Any:
    """The largest component of a vector in absolute value; NaN if any is, 0 if there is none."""
    # A maximum would lose NaN under numba on PyTensor 3.0, and has no value for an empty vector.
    sizes = abs(a)
    if not a.type.shape[0]:
        # The zero is made from `a`, so that in a batch each member has one, and the join stays a join.
        sizes = pt.concatenate([pt.zeros_like(pt.sum(a, keepdims=True)), sizes])
    return pt.switch(pt.any(pt.isnan(sizes)), np.asarray(np.nan, a.type.dtype), pt.max(sizes))


class Pairs(NamedTuple):
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
    def begin(cls, name: str, memory: int, size: int, dtype: str) -> Pairs:
        """No pairs yet, as state."""
        shapes = [(2 * memory, size), (memory, memory), (memory, memory), (memory,), (), ()]
        return cls(
            *(
                inverse_hessian_state(f"{name}/{field}", shape, "int64" if field == "slot" else dtype, field == "scale")
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

    def times(self, g: Any) -> Any:
        """The product of the inverse Hessian with the vector `g`."""
        memory = self.memory
        along = times(self.vectors, g)
        u = times(self.inverse, along[:memory])
        v = self.curvatures * u + self.scale * (times(self.products, u) - along[memory:])
        join = np.concatenate if isinstance(g, np.ndarray) else pt.concatenate
        return self.scale * g + combined(self.vectors, join([combined(self.inverse, v), -self.scale * u]))

    def cleared(self, condition: Any) -> Pairs:
        """No pairs where `condition` is true, else these."""
        inverse, curvatures = (pt.switch(condition, pt.zeros_like(a), a) for a in (self.inverse, self.curvatures))
        scale = pt.switch(condition, pt.ones_like(self.scale), self.scale)
        return self._replace(inverse=inverse, curvatures=curvatures, scale=scale)

    def push(self, s: Any, y: Any, unless: Any = FALSE) -> Pairs:
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
        return Pairs(
            vectors,
            pt.switch(good, pt.switch(new, column[:, None], others), self.inverse),
            pt.switch(good & new[:, None], yYy, pt.switch(good & new, yYy[:, None], self.products)),
            pt.switch(good & new, sy, self.curvatures),
            pt.switch(good, sy / yy, self.scale),
            pt.switch(good, (self.slot + 1) % memory, self.slot),
        )


def curvature(s: Any, y: Any) -> tuple[Any, Any, Any]:
    r"""Whether the pair of vectors :math:`(s, y)` has curvature; :math:`s^T y` and :math:`y^T y`, 1 if it has not.

    The test is :math:`s^T y > \epsilon \|s\| \|y\|`, with :math:`\epsilon` the machine precision. With any other pair
    an inverse Hessian would lose its positive definiteness. It does not depend on the units of the cost or of the
    parameters.
    """
    sy, yy = dot(s, y), dot(y, y)
    good = (sy > np.finfo(s.type.dtype).eps * norm(s) * norm(y)) & pt.isfinite(1 / sy) & pt.isfinite(sy / yy)
    one = pt.ones_like(sy)
    return good, pt.switch(good, sy, one), pt.switch(good, yy, one)


def times(matrix: Any, vector: Any) -> Any:
    """A matrix times a vector, as a sum for the reason given at `dot`; variables or arrays."""
    return (matrix * vector).sum(axis=1)


def combined(matrix: Any, weights: Any) -> Any:
    """The rows of a matrix, each times its weight, summed up; variables or arrays."""
    return (matrix * weights[:, None]).sum(axis=0)


def shifted(rows: Any, row: Any) -> Any:
    """`rows` without the first and with `row` at the end."""
    return pt.concatenate([rows[1:], row[None]])


def inverse_hessian_state(name: str, shape: tuple[int, ...], dtype: str, fill: Any = 0) -> Any:
    """State that `inverse_hessian` finds: a matrix, or one of the parts of `Pairs`, then all of them."""
    variable = state(name, shape, dtype, fill)
    variable.tag.inverse_hessian = True
    return variable


def inverse_hessian(updates: Updates) -> Any:
    """The inverse Hessian as the rule behind `updates` now knows it.

    Parameters
    ----------
    updates : dict
        What a rule returned.

    Returns
    -------
    array, LinearOperator or None
        For a dense rule a matrix; for one of limited memory an operator of SciPy, which keeps copies of the pairs; None
        for a rule that has none. Rows and columns are in the order of the parameters, each flattened. Under ascent it
        is that of the negative cost.

    Raises
    ------
    ValueError
        If several rules are joined in `updates`.
    """
    values = [variable.get_value() for variable in updates if getattr(variable.tag, "inverse_hessian", False)]
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    if len(values) != len(Pairs._fields):
        raise ValueError("updates joins several rules with an inverse Hessian; pass the updates of one")
    from scipy.sparse.linalg import LinearOperator

    pairs = Pairs(*values)
    size = pairs.vectors.shape[1]

    def product(vector: Any) -> Any:
        # SciPy also passes columns.
        return pairs.times(np.ravel(vector))

    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=pairs.vectors.dtype)
