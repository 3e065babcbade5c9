"""Results: what a minimization hands back, and the sentences that say why it ended."""

from __future__ import annotations

from typing import Any, NamedTuple


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


STATUSES = {
    0: "converged",
    1: "limit of iterations or evaluations",
    2: "no further progress",
    3: "not finite",
    4: "time limit",
    5: "target reached",
    99: "stopped by the callback",
}


class Ending(NamedTuple):
    """Why a minimization ended: a status, and the name of a sentence."""

    status: int
    cause: str


CONVERGED = Ending(0, "gradient")
FINISHED = Ending(0, "rule")
SAME_COST = Ending(0, "cost")
SAME_POINT = Ending(0, "step")
ITERATIONS = Ending(1, "iterations")
EVALUATIONS = Ending(1, "evaluations")
STUCK = Ending(2, "progress")
BAD_START = Ending(3, "start")
NOT_FINITE = Ending(3, "finite")
TIME = Ending(4, "time")
TARGET = Ending(5, "target")
CALLBACK = Ending(99, "callback")


def of_reason(reason: int) -> Ending:
    """Why a rule has stopped that reports this reason, see `optapi.reports`."""
    return {0: CONVERGED, 2: STUCK}.get(reason, NOT_FINITE)


SENTENCES = {
    "gradient": "Converged: no component of the derivative is larger than {tolerance} in absolute value.",
    "rule": "Converged: {rule} has finished. The largest component of the derivative is {gradient:.3g}.",
    "cost": "Converged: the last iteration changed the cost, {cost:.6g}, by no more than cost_tolerance={limit:g} of "
    "it. The largest component of the derivative is {gradient:.3g}.",
    "step": "Converged: the last iteration changed the point by no more than step_tolerance={limit:g} of it. "
    "The largest component of the derivative is {gradient:.3g}.",
    "iterations": "Stopped at the limit of {limit} iterations, where the largest component of the derivative is "
    "{gradient:.3g}. Raise max_iterations, or go on from iterate; if the cost has long been the same, raise the "
    "tolerance.",
    "evaluations": "Stopped at the limit of {limit} evaluations, where the largest component of the derivative is "
    "{gradient:.3g}. Raise max_evaluations, or go on from iterate.",
    "progress": "No further progress: no step that {rule} tried made the cost lower. The largest component of the "
    "derivative is {gradient:.3g}. If that is small for this cost, the point is as good as its rounding allows: raise "
    "the tolerance. Else compare df with f by check_gradient=True.",
    "start": "The cost or its derivative is not finite at the start: the cost is {cost}. Start from a point where "
    "both are finite.",
    "finite": "No way on: the cost or its derivative is not finite where {rule} went. The best finite cost is "
    "{best:.6g}. Try a smaller step_size, or another start.",
    "time": "Stopped at the time limit of {limit:g} seconds, where the largest component of the derivative is "
    "{gradient:.3g}. Raise time_limit, or go on from iterate.",
    "target": "The target was reached: the cost is {cost:.6g}.",
    "callback": "Stopped by the callback, which raised StopIteration.",
}


def sentence(ending: Ending | None, **facts: Any) -> str:
    """The message for `ending`, with the `facts` that its sentence names; None is not yet ended."""
    return "Not finished." if ending is None else SENTENCES[ending.cause].format(**facts)


def made(ending: Ending | None, message: str, **facts: Any) -> OptimizeResult:
    """The result of a minimization that ended so, or has not ended, with the `facts` named at `OptimizeResult`."""
    status = None if ending is None else ending.status
    return OptimizeResult(**facts, status=status, success=status in (0, 5), message=message)
