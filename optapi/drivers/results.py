"""Results: what a minimization hands back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..typing import Array, Tree
from .covariance import SecondDerivatives, inverted


class OptimizeResult(dict[str, Any]):
    """A dictionary whose entries are attributes too, as SciPy's.

    Attributes
    ----------
    x : as the start
        The best point with a finite cost that was seen.
    fun : float
        The cost there, with the penalties `l1` and `prox` of a rule, which are not in `jac`.
    jac : as the start
        The derivative there.
    iterate : as the start
        The point that the algorithm holds, at which it would go on; not always the best.
    nit : int
        The number of iterations.
    nfev, njev, nhev : int
        The numbers of calls of the cost, of its derivative, and of products with second derivatives.
    status : int or None
        Why it ended, see `STATUSES`; None while it has not.
    success : bool
        Whether it converged, or reached the target: status 0 or 5.
    message : str
        What happened, and what to try.
    trace : dict of arrays
        With ``trace=True``: ``cost``, ``gradient_size``, ``step``, ``evaluations`` and ``seconds``, at the start and
        after each iteration.
    hess_inv : matrix
        The inverse of the matrix of second derivatives, where the rule has an approximation of it. For errors of
        estimates take `covariance`.
    active : as the start
        With bounds: -1 for a component that is at its low, 1 at its high, 0 for one that is free.
    bound_multipliers : as the start
        With bounds, the multipliers of those that are active: the component of `jac` there, 0 where it is free. At a
        minimum it is not negative at a low and not positive at a high; at a maximum the other way around. It says how
        fast `fun` changes with the bound.
    optimality : float
        With bounds, the size of the largest component of the projected derivative.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.lbfgs, full_output=True, trace=True)
    >>> result.status, result["success"]
    (0, True)
    >>> result.message
    'Converged: no component of the derivative is larger than 1e-05 in absolute value.'
    >>> len(result.trace["cost"]) == result.nit + 1
    True
    """

    # The second derivatives at x. It is no entry, and is not pickled, since it has functions.
    _second: Callable[[], SecondDerivatives] | None = None

    def covariance(self, absolute_sigma: bool = False) -> Array:
        """The covariance of the estimate `x`, where the cost is minus the logarithm of a likelihood or a posterior.

        It is the inverse of the exact matrix of second derivatives, see `optapi.covariance`; for a rule that takes
        residuals that of Gauss-Newton. With bounds it is that of the components inside of them; rows and columns of
        those at a bound are zero, and the degrees of freedom count all. For NumPy functions the derivatives are those
        of `hessp`, or differences of `df`, see `second_derivatives`.

        Parameters
        ----------
        absolute_sigma : bool
            Whether the residuals are in units of their standard deviations.

        Returns
        -------
        matrix
            A row and a column for each component of `x`, in their order.

        Raises
        ------
        ValueError
            If the matrix of second derivatives is not positive definite, or not known.
        """
        known = self._known()
        return inverted(*known.matrix(), known.error, absolute_sigma, known.free)

    def standard_errors(self, absolute_sigma: bool = False) -> Tree:
        """The standard errors of the components of `x`, as `x`: the roots of the diagonal of `covariance`."""
        return self._known().build(self.covariance(absolute_sigma).diagonal() ** 0.5)

    @property
    def second_derivatives(self) -> str:
        """Where `covariance` has second derivatives from: ``"exact"``, or ``"differences"`` of the derivative."""
        return "differences" if self._known().differs else "exact"

    def _known(self) -> SecondDerivatives:
        if self._second is None:
            raise ValueError("this result has no second derivatives: it was made by hand, or comes from a pickle")
        return self._second()

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the result has no {name!r}; it has {', '.join(self)}") from None

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __dir__(self) -> list[str]:
        return [*self, *super().__dir__()]

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = []
        for name, value in self.items():
            first, *rest = repr(value).split("\n")
            lines += [f"{name:>{width}}: {first}", *(" " * (width + 2) + line for line in rest)]
        return "\n".join(lines) or f"{type(self).__name__}()"
