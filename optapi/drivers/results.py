"""Results: what a minimization hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..typing import Array, Tree
from .covariance import SecondDerivatives, inverses, inverted
from .termination import STATUSES


class Deferred:
    """An entry that is made when it is read."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]):
        self.make = make


class OptimizeResult(dict[str, Any]):
    """A dictionary whose entries are attributes too, as SciPy's.

    Attributes
    ----------
    x : as the start
        The best point with a finite cost that was seen.
    fun : float
        The cost there, with the penalties `l1` and `prox` of a rule, which are not in `jac`.
    jac : as the start
        The derivative there, with manifolds its projection on their tangent spaces.
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
        after each iteration; with general constraints also ``violation``, the largest one.
    hess_inv : matrix
        The inverse of the matrix of second derivatives, where the rule has an approximation of it. For errors of
        estimates take `covariance`.
    active : as the start
        With bounds: -1 for a component that is at its low, 1 at its high, 0 for one that is free.
    bound_multipliers : as the start
        With bounds, the multipliers of those that are active: the component of `jac` there, 0 where it is free. At a
        minimum it is not negative at a low and not positive at a high; at a maximum the other way around. It says how
        fast `fun` changes with the bound. With general constraints, that of the gradient of the Lagrangian.
    multipliers : list of arrays
        With general constraints, those of each, in the order in which they were passed, with the same signs; they are
        those of `iterate`.
    violation : float
        With general constraints, the largest violation at `x`.
    optimality : float
        With bounds or manifolds, the size of the largest component of the projected derivative; with general
        constraints, of that of the Lagrangian.

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
    _found: SecondDerivatives | None = None

    def covariance(self, absolute_sigma: bool = False) -> Array:
        """The covariance of the estimate `x`, where the cost is minus the logarithm of a likelihood or a posterior.

        It is the inverse of the exact matrix of second derivatives, see `optapi.covariance`; for a rule that takes
        residuals that of Gauss-Newton. With bounds it is that of the components inside of them; rows and columns of
        those at a bound are zero, and the degrees of freedom count all. With general constraints it is that along those
        that are active, from the second derivatives of the Lagrangian. For NumPy functions the derivatives are those
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
            If the matrix of second derivatives is not positive definite along active constraints, or not known; and
            with penalties.
        """
        known = self._known()
        return inverted(*known.matrix(), known.error, absolute_sigma, known.free, known.normals)

    def standard_errors(self, absolute_sigma: bool = False) -> Tree:
        """The standard errors of the components of `x`, as `x`: the roots of the diagonal of `covariance`.

        The cost has to be minus the logarithm of a likelihood or a posterior: a sum over the data, not a mean.
        """
        return self._known().build(self.covariance(absolute_sigma).diagonal() ** 0.5)

    @property
    def second_derivatives(self) -> str:
        """Where `covariance` has second derivatives from: ``"exact"``, or ``"differences"`` of the derivative."""
        return "differences" if self._known().differs else "exact"

    def _known(self) -> SecondDerivatives:
        if self._second is None:
            raise ValueError("this result has no second derivatives: it was made by hand, or comes from a pickle")
        found = self._found or self._second()
        object.__setattr__(self, "_found", found)
        return found

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if type(value) is Deferred:
            value = self[key] = value.make()
        return value

    def _whole(self) -> OptimizeResult:
        """The result, with all entries made."""
        for key in self:
            self[key]
        return self

    # Since it is here, and not that of dict, Python reads the entries of a copy by their keys.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """The entry, or `default` without it."""
        return self[key] if key in self else default  # noqa: SIM401, since get is here

    def items(self) -> Any:
        """The entries with their names."""
        return super(OptimizeResult, self._whole()).items()

    def values(self) -> Any:
        """The entries."""
        return super(OptimizeResult, self._whole()).values()

    def pop(self, *arguments: Any) -> Any:
        """Take an entry out, as of a dictionary."""
        return super(OptimizeResult, self._whole()).pop(*arguments)

    def popitem(self) -> Any:
        """Take the last entry out."""
        return super(OptimizeResult, self._whole()).popitem()

    def setdefault(self, *arguments: Any) -> Any:
        """The entry, which becomes what is given if there is none."""
        return super(OptimizeResult, self._whole()).setdefault(*arguments)

    def copy(self) -> dict[str, Any]:
        """A dictionary of the entries."""
        return super(OptimizeResult, self._whole()).copy()

    def __eq__(self, other: object) -> bool:
        return super(OptimizeResult, self._whole()).__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

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


class BatchResult(OptimizeResult):
    """The result of many minimizations; its entries have a row for each of them.

    Attributes
    ----------
    x : list of arrays
        The best points, for each parameter an array with one axis more in front; found by position or by name.
    fun : vector
        The costs there, NaN where none that is finite was seen.
    nit, nfev : vectors of int
        The numbers of iterations and of evaluations.
    status : vector of int
        Why each ended, see `STATUSES`.
    success : vector of bool
        Whether it converged, or reached the target.
    message : str
        How many have converged, and what the others did.
    errors : dict
        Only where the cost has raised exceptions: from the number of a row to the exception.

    Examples
    --------
    >>> rate, y = pytensor.shared(1.0, name="rate"), pt.dvector("y")
    >>> residuals = pt.exp(-rate * np.arange(4.0)) - y
    >>> run = optapi.compile_minimizer([rate], residuals=residuals, inputs=[y], mode=optapi.PYTHON)
    >>> result = run.on_data([[1.0, 0.6, 0.4, 0.2], [1.0, 0.1, np.nan, 0.0]])
    >>> print(result.message)
    1 of 2 converged; 1 not finite (status 3), the first of them row 1.
    >>> result.standard_errors()["rate"].round(3)
    array([0.024,   nan])
    """

    # What is known of the second derivatives, some rows at a time: see `LoopProgram.matrices`.
    _matrices: Callable[[], Iterator[tuple[Any, Any, float, Any]]] | None = None
    # From matrices, which have a row for each of these and a column for each component of a parameter, to what `x` is.
    _build: Callable[[list[Any]], Any] = list
    _ends: Sequence[int] = ()
    _absolute = False

    def covariance(self, absolute_sigma: bool | None = None) -> Array:
        """The covariances of the estimates, as `OptimizeResult.covariance`: a matrix for each row.

        They are NaN where there is none: with status 3, where the second derivatives are not positive definite or not
        finite, or the residuals are no more than the components. Residuals that are zero and have no derivatives, as
        those of weight zero, do not count. The derivatives are taken when this is called, in Python.

        Parameters
        ----------
        absolute_sigma : bool, optional
            Whether the residuals are in units of their standard deviations; by default what `curve_fit` was told.

        Returns
        -------
        array
            Of shape (rows, components, components).
        """
        if self._matrices is None:
            raise ValueError("this result has no second derivatives: it was made by hand, or comes from a pickle")
        absolute = self._absolute if absolute_sigma is None else absolute_sigma
        found: Any = np.concatenate([inverses(*part, absolute_sigma=absolute) for part in self._matrices()])
        found[self["status"] == 3] = np.nan
        return found

    def standard_errors(self, absolute_sigma: bool | None = None) -> Tree:
        """The standard errors of the estimates, as `x`: the roots of the diagonals of `covariance`."""
        covariance: Any = self.covariance(absolute_sigma)
        errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        return self._build(np.split(errors, self._ends, axis=1))

    @property
    def second_derivatives(self) -> str:
        return "exact"


def summed_up(status: np.ndarray) -> str:
    """A sentence on how many minimizations have ended how."""
    said = [f"{np.sum(status == 0)} of {len(status)} converged"]
    for other in sorted({*status.tolist()} - {0}):
        rows = np.flatnonzero(status == other)
        said.append(f"{len(rows)} {STATUSES[other]} (status {other}), the first of them row {rows[0]}")
    return "; ".join(said) + "."
