r"""Bijections: parameters that are positive, ordered or on a simplex, as expressions of free variables.

A bijection maps a free variable, which a rule optimizes, to the parameter that the cost is built of; `inverse` maps the
start the other way. No term for the volume is added: this is for optimization, not for densities.

A minimizer at the end of an interval, or with a 0 on a simplex, is at infinity here. Where that may be, take `bounds`,
or a set of `optapi.prox`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import ArrayLike

from .checks import as_numbers, as_tensor, check_number
from .typing import Tensor
from .vectors import norm


__all__ = ["Bijection", "Exponential", "Interval", "Ordered", "Orthogonal", "Positive", "Simplex", "UnitVector"]


@dataclass(frozen=True)
class Bijection:
    """Base of the bijections here: a subclass has `_forward(z)` and `_inverse(x)`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Odd(optapi.bijections.Bijection):
    ...     def _forward(self, z):
    ...         return z**3
    ...     def _inverse(self, x):
    ...         return np.cbrt(x)
    >>> float(Odd().inverse(8.0))
    2.0
    """

    def __call__(self, free: Tensor) -> Any:
        """The parameter as an expression of the variable `free`."""
        return self._forward(as_tensor("free", free))

    def inverse(self, x: ArrayLike) -> Any:
        """The array of free values at which the parameter is `x`.

        Raises
        ------
        ValueError
            If there are none.
        """
        x = as_numbers("x", x)
        with np.errstate(all="ignore"):
            free = self._inverse(x)
        if not np.all(np.isfinite(free)):
            raise ValueError(f"x is not inside of what {type(self).__name__} leads to; pass a point that is")
        return free

    def _forward(self, z: Any) -> Any:
        raise NotImplementedError

    def _inverse(self, x: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Positive(Bijection):
    r"""Positive numbers, by :math:`x = \log(1 + e^z)`, which is about :math:`z` where that is large.

    Examples
    --------
    >>> z = pytensor.shared(optapi.bijections.Positive().inverse(2.0), name="z")
    >>> rate = optapi.bijections.Positive()(z)
    >>> step = pytensor.function([], [], updates=optapi.lbfgs([z], rate - 3 * pt.log(rate)))
    >>> for _ in range(20):
    ...     _ = step()
    >>> print(f"{rate.eval():.4f}")
    3.0000
    """

    def _forward(self, z: Any) -> Any:
        return pt.softplus(z)

    def _inverse(self, x: Any) -> Any:
        return x + np.log(-np.expm1(-x))


@dataclass(frozen=True)
class Exponential(Bijection):
    r"""Positive numbers, by :math:`x = e^z`: for scales, of which factors count.

    Examples
    --------
    >>> float(optapi.bijections.Exponential().inverse(1.0))
    0.0
    """

    def _forward(self, z: Any) -> Any:
        return pt.exp(z)

    def _inverse(self, x: Any) -> Any:
        return np.log(x)


@dataclass(frozen=True)
class Interval(Bijection):
    r"""Numbers between `low` and `high`, by the logistic function.

    Examples
    --------
    >>> optapi.bijections.Interval(0.0, 10.0)(np.zeros(2)).eval()
    array([5., 5.])
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            check_number(f"{name} of Interval", getattr(self, name), -1e300, 1e300)
        if not self.low < self.high:
            raise ValueError(f"low of Interval is {self.low}, and high {self.high}; pass low < high")

    def _forward(self, z: Any) -> Any:
        return self.low + (self.high - self.low) * pt.sigmoid(z)

    def _inverse(self, x: Any) -> Any:
        return np.log((x - self.low) / (self.high - x))


@dataclass(frozen=True)
class Simplex(Bijection):
    r"""Vectors of :math:`n` positive numbers with the sum 1, from :math:`n - 1` free ones, by the softmax with a 0.

    Examples
    --------
    >>> optapi.bijections.Simplex()(np.zeros(2)).eval().round(4)
    array([0.3333, 0.3333, 0.3333])
    """

    def _forward(self, z: Any) -> Any:
        return pt.special.softmax(pt.concatenate([z, pt.zeros_like(z[:1])]))

    def _inverse(self, x: Any) -> Any:
        if x.ndim != 1 or abs(np.sum(x) - 1) > 1e-6:
            return np.nan
        return np.log(x[:-1] / x[-1])


@dataclass(frozen=True)
class Ordered(Bijection):
    r"""Vectors with :math:`x_1 < x_2 < \dots`, by :math:`x_1 = z_1` and steps :math:`\log(1 + e^{z_i})`.

    Examples
    --------
    >>> optapi.bijections.Ordered().inverse([0.0, 1.0, 3.0]).round(4)
    array([0.    , 0.5413, 1.8546])
    """

    def _forward(self, z: Any) -> Any:
        return pt.cumsum(pt.concatenate([z[:1], pt.softplus(z[1:])]))

    def _inverse(self, x: Any) -> Any:
        if x.ndim != 1:
            return np.nan
        return np.concatenate([x[:1], Positive()._inverse(np.diff(x))])


@dataclass(frozen=True)
class UnitVector(Bijection):
    r"""Vectors of length 1, by :math:`z / \|z\|`; the length of :math:`z`, not 0, is free.

    Examples
    --------
    >>> optapi.bijections.UnitVector()(np.array([3.0, 4.0])).eval()
    array([0.6, 0.8])
    """

    def _forward(self, z: Any) -> Any:
        return z / norm(z)

    def _inverse(self, x: Any) -> Any:
        return x if abs(np.sum(x * x) - 1) <= 1e-6 else np.nan


@dataclass(frozen=True)
class Orthogonal(Bijection):
    r"""Orthogonal matrices without the eigenvalue -1, by Cayley's :math:`(I - A)^{-1} (I + A)`.

    :math:`A` is the skew part :math:`(z - z^T) / 2` of a square matrix.

    Examples
    --------
    >>> Q = optapi.bijections.Orthogonal()(np.array([[0.0, 1.0], [0.0, 0.0]])).eval()
    >>> (Q @ Q.T).round(4)
    array([[1., 0.],
           [0., 1.]])
    """

    def _forward(self, z: Any) -> Any:
        A, eye = (z - z.T) / 2, pt.eye(z.shape[0], dtype=z.type.dtype)
        return pt.linalg.solve(eye - A, eye + A)

    def _inverse(self, x: Any) -> Any:
        if x.ndim != 2 or x.shape[0] != x.shape[1] or not np.allclose(x @ x.T, np.eye(len(x)), atol=1e-6):
            return np.nan
        try:
            return np.linalg.solve((x + np.eye(len(x))).T, (x - np.eye(len(x))).T).T
        except np.linalg.LinAlgError:
            return np.nan
