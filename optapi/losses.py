r"""Losses: what the square of a residual counts in a sum of squares.

SciPy's definition: the cost is :math:`\frac12 C^2 \sum_i \rho(z_i)` with :math:`z_i = (r_i / C)^2` and the soft margin
:math:`C`, its `f_scale`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from .checks import as_dtype, is_dense, scalar, shown
from .graph.derivatives import held
from .typing import Loss, Scalar


LOSSES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda z: z,
    # 2 (sqrt(1 + z) - 1), in which nothing cancels.
    "soft_l1": lambda z: 2 * z / (1 + pt.sqrt(1 + z)),
    "huber": lambda z: pt.switch(z <= 1, z, 2 * pt.sqrt(pt.maximum(z, 1)) - 1),
    "cauchy": pt.log1p,
    "arctan": pt.arctan,
}


class Robust(NamedTuple):
    r"""A loss with its scale.

    Attributes
    ----------
    rho : callable
        From a tensor :math:`z` to :math:`\rho(z)`.
    scale : scalar variable
        :math:`C`.
    is_linear : bool
        Whether it is the sum of squares.
    """

    rho: Callable[[Any], Any]
    scale: Any
    is_linear: bool

    @classmethod
    def of(cls, loss: Loss, f_scale: Scalar) -> Robust:
        """The loss that a rule was given, checked."""
        scale = scalar("f_scale", f_scale, low=np.finfo(float).tiny)
        if callable(loss):
            return cls(loss, scale, False)
        if not isinstance(loss, str) or loss not in LOSSES:
            *most, last = map(repr, LOSSES)
            given = repr(loss) if isinstance(loss, str) else shown(loss)
            raise ValueError(
                f"loss is {given}; pass {', '.join(most)} or {last}, or a function from z = (r / f_scale)**2 to rho(z)"
            )
        return cls(LOSSES[loss], scale, loss == "linear")

    def cost(self, residuals: Sequence[Any]) -> Any:
        r""":math:`\frac12 C^2 \sum \rho`, a scalar variable."""
        sums = [pt.sum(part) for part in self._squares(residuals)]
        return (pt.add(*sums) if len(sums) > 1 else sums[0]) / 2

    def roots(self, residuals: Sequence[Any]) -> list[Any]:
        """Tensors half of whose sum of squares is the cost."""
        return list(residuals) if self.is_linear else [pt.sqrt(part) for part in self._squares(residuals)]

    def linearized(self, residuals: Sequence[Any]) -> list[Any]:
        r"""Tensors whose sum of squares has the gradient of the cost, and the Gauss-Newton matrix of the robust cost.

        With :math:`J` the derivatives of the residuals :math:`r`, they have the values and the derivatives

        .. math:: \tilde r = \rho' r / w, \qquad \tilde J = w J, \qquad w^2 = \max(\rho' + 2 \rho'' z, \epsilon)

        so that :math:`\tilde J^T \tilde r` is the gradient and :math:`\tilde J^T \tilde J` the matrix of second
        derivatives without those of the residuals, as far as it is positive.

        References
        ----------
        Triggs, McLauchlan, Hartley and Fitzgibbon (2000), Bundle adjustment: a modern synthesis, section 4.3, in the
        form of ``scipy.optimize.least_squares``.
        """
        if self.is_linear:
            return list(residuals)
        results = []
        for part in residuals:
            z = self._z(part)
            dtype = part.type.dtype
            first: Any = pytensor.grad(pt.sum(self._counted(z)), z)
            second: Any = pytensor.grad(pt.sum(first), z, disconnected_inputs="ignore")
            first, second = as_dtype(first, dtype), as_dtype(second, dtype)  # of a choice they are in float64
            weight = pt.sqrt(pt.maximum(first + 2 * second * z, np.asarray(np.finfo(dtype).eps, dtype)))
            results.append(held(first * part / weight) + held(weight) * (part - held(part)))
        return results

    def _counted(self, z: Any) -> Any:
        """What the loss makes of `z`, checked."""
        value = self.rho(z)
        if not is_dense(value):
            raise TypeError(f"loss returned {shown(value)}; it has to return rho(z), an expression of the shape of z")
        return value

    def _z(self, part: Any) -> Any:
        return (part / as_dtype(self.scale, part.type.dtype)) ** 2

    def _squares(self, residuals: Sequence[Any]) -> list[Any]:
        if self.is_linear:
            return [part**2 for part in residuals]
        return [as_dtype(self.scale, part.type.dtype) ** 2 * self._counted(self._z(part)) for part in residuals]
