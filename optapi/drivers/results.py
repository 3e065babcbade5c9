"""Results: what a minimization hands back."""

from __future__ import annotations

from typing import Any


class OptimizeResult(dict[str, Any]):
    """A dictionary whose entries are attributes too, as SciPy's.

    Attributes
    ----------
    x : as the start
        The best point with a finite cost that was seen.
    fun : float
        The cost there.
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
        The inverse of the matrix of second derivatives, where the rule has an approximation of it.

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
