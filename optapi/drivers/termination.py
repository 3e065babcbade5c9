"""Termination: when a minimization ends, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from ..checks import check_count, check_flag, check_number
from ..pytree import distance
from .evaluator import Evaluation


# The limit of iterations where none is given, at most.
MAX_ITERATIONS = 15000

STATUSES = {
    0: "converged",
    1: "limit of iterations or evaluations",
    2: "no further progress",
    3: "not finite",
    4: "time limit",
    5: "target reached",
    6: "infeasible",
    8: "unbounded below",
    99: "stopped by the callback",
}


class Ending(Enum):
    """Why a minimization ended: a status, and what decided, which may be an attribute of `Termination`."""

    CONVERGED = 0, "gradient"
    FINISHED = 0, "rule"
    SAME_COST = 0, "cost_tolerance"
    SAME_POINT = 0, "step_tolerance"
    PRECISE = 0, "precision"
    ITERATIONS = 1, "max_iterations"
    EVALUATIONS = 1, "max_evaluations"
    STUCK = 2, "progress"
    BAD_START = 3, "start"
    NOT_FINITE = 3, "finite"
    RAISED = 3, "raised"
    TIME = 4, "time_limit"
    TARGET = 5, "target"
    INFEASIBLE = 6, "infeasible"
    UNBOUNDED = 8, "unbounded"
    CALLBACK = 99, "callback"

    def __init__(self, status: int, cause: str):
        self.status, self.cause = status, cause

    @classmethod
    def of_reason(cls, reason: int) -> Ending:
        """Why a rule has stopped that reports this reason, see `optapi.reports`."""
        return {0: cls.CONVERGED, 2: cls.STUCK, 6: cls.INFEASIBLE, 7: cls.PRECISE, 8: cls.UNBOUNDED}.get(
            reason, cls.NOT_FINITE
        )


SENTENCES = {
    Ending.CONVERGED: "Converged: no component of the derivative is larger than {tolerance} in absolute value.",
    Ending.FINISHED: "Converged: {rule} has finished. The largest component of the derivative is {gradient:.3g}.",
    Ending.SAME_COST: "Converged: the last iteration changed the cost, {cost:.6g}, by no more than "
    "cost_tolerance={limit:g} of it. The largest component of the derivative is {gradient:.3g}.",
    Ending.SAME_POINT: "Converged: the last iteration changed the point by no more than step_tolerance={limit:g} of "
    "it. The largest component of the derivative is {gradient:.3g}.",
    Ending.ITERATIONS: "Stopped at the limit of {limit} iterations, where the largest component of the derivative is "
    "{gradient:.3g}. Raise max_iterations, or go on from iterate; if the cost has long been the same, raise the "
    "tolerance.",
    Ending.EVALUATIONS: "Stopped at the limit of {limit} evaluations, where the largest component of the derivative is "
    "{gradient:.3g}. Raise max_evaluations, or go on from iterate.",
    Ending.PRECISE: "Converged to the precision of the cost: it is {cost:.9g}, rounding hides changes of "
    "{rounding:.1g} and more, and no step promises as much. The largest component of the derivative is {gradient:.3g}.",
    Ending.STUCK: "No further progress: no step that {rule} tried made the cost, {cost:.6g}, {better}, although the "
    "derivative, whose largest component is {gradient:.3g}, promises more than rounding hides. {why}",
    Ending.INFEASIBLE: "Infeasible: no step that {rule} tried makes the largest violation of the constraints smaller. "
    "Loosen a constraint, or start elsewhere.",
    Ending.UNBOUNDED: "The cost has no bound: it is {cost:.6g} at the best point, and the derivative has not become "
    "smaller on the way; its largest component is {gradient:.3g}. Bound the parameters, add a penalty, or start "
    "elsewhere.",
    Ending.BAD_START: "The cost or its derivative is not finite at the start: the cost is {cost}. Start from a point "
    "where both are finite.",
    Ending.NOT_FINITE: "No way on: the cost or its derivative is not finite where {rule} went. The best finite cost is "
    "{best:.6g}. Try a smaller step_size, or another start.",
    Ending.RAISED: "No way on: the cost raised an exception, which is the error of this result.",
    Ending.TIME: "Stopped at the time limit of {limit:g} seconds, where the largest component of the derivative is "
    "{gradient:.3g}. Raise time_limit, or go on from iterate.",
    Ending.TARGET: "The target was reached: the cost is {cost:.6g}.",
    Ending.CALLBACK: "Stopped by the callback, which raised StopIteration.",
}


@dataclass(frozen=True)
class Termination:
    """When a minimization ends, beside the verdict of its rule. It says so of numbers, whatever runs the rule."""

    max_iterations: int | None = None
    max_evaluations: int | None = None
    time_limit: float | None = None
    target: float | None = None
    cost_tolerance: float | None = None
    step_tolerance: float | None = None
    ascent: bool = False

    @classmethod
    def of(cls, ascent: bool | None, *limits: float | None) -> Termination:
        """That with `limits`, in the order of the attributes, which are checked."""
        checked: dict[str, Any] = {}
        for field, value in zip(fields(cls), limits, strict=False):
            if field.name.startswith("max_") and value is not None:
                check_count(field.name, value, low=0)
            elif value is not None:
                check_number(field.name, value, low=-np.inf if field.name == "target" else 0)
            checked[field.name] = value
        return cls(**checked, ascent=ascent is not None and check_flag("ascent", ascent))

    def limited(self, size: int, gives_reason: bool) -> Termination:
        """The same with a limit of iterations, for a rule over `size` components."""
        if self.max_iterations is not None:
            return self
        # A rule that gives a reason knows when it has finished. Others might never.
        limit = MAX_ITERATIONS if gives_reason else min(max(200 * size, 1000), MAX_ITERATIONS)
        return replace(self, max_iterations=limit)

    @property
    def needs_each_iteration(self) -> bool:
        """Whether it looks at the cost or the point of each iteration."""
        return not (self.target is None and self.cost_tolerance is None and self.step_tolerance is None)

    @property
    def looks(self) -> bool:
        """Whether it looks at iterations on the way, or at the clock."""
        return self.needs_each_iteration or (self.max_evaluations, self.time_limit) != (None, None)

    def verdict(
        self,
        said: Ending | None,
        before: Evaluation,
        now: Evaluation,
        cost: Callable[[Evaluation], float],
        feasible: bool = True,
    ) -> Ending | None:
        """Why it ends after an iteration, None if it goes on; the limits apart, see `exceeded`.

        Parameters
        ----------
        said : Ending or None
            The verdict of the rule.
        before, now : Evaluation
            Of the points before and after the iteration, the very same if it has not moved the point.
        cost : callable
            The cost of an evaluation. It is asked for where it decides.
        feasible : bool
            Whether the general constraints hold, without which nothing is a success.
        """
        if now is before or not feasible:
            return said
        if self.target is not None and self.is_reached(cost(now)):
            return Ending.TARGET
        return said or self.settled(before, now, cost)

    def is_reached(self, cost: float) -> bool:
        """Whether `cost` is at the target or beyond."""
        return self.target is not None and (cost >= self.target if self.ascent else cost <= self.target)

    def settled(self, before: Evaluation, now: Evaluation, cost: Callable[[Evaluation], float]) -> Ending | None:
        """Whether an iteration that moved the point changed the cost, or the point, by too little to go on."""
        if self.cost_tolerance is not None:
            size = max(abs(cost(before)), abs(cost(now)), 1.0)
            if abs(cost(before) - cost(now)) <= self.cost_tolerance * size:
                return Ending.SAME_COST
        if self.step_tolerance is not None:
            size = max(distance(now.point, None), 1.0)
            if distance(now.point, before.point) <= self.step_tolerance * size:
                return Ending.SAME_POINT
        return None

    def exceeded(self, iterations: int, evaluations: int, seconds: float) -> Ending | None:
        """Whether one of the limits is reached."""
        if self.max_iterations is not None and iterations >= self.max_iterations:
            return Ending.ITERATIONS
        if self.max_evaluations is not None and evaluations >= self.max_evaluations:
            return Ending.EVALUATIONS
        return Ending.TIME if self.time_limit is not None and seconds >= self.time_limit else None

    def is_better(self, cost: float, other: float | None) -> bool:
        """Whether `cost` is finite, and `other` is not or is no better."""
        if not isfinite(cost) or other is None or not isfinite(other):
            return isfinite(cost)
        return cost >= other if self.ascent else cost <= other

    def explained(self, ending: Ending, tolerance: Any, gradient: float, **facts: Any) -> str:
        """The message for `ending`.

        Parameters
        ----------
        ending : Ending
        tolerance : number, variable or None
            That of the rule.
        gradient : float
            The largest component of the derivative where it ended.
        **facts
            `rule`, `cost`, `best`, `rounding`, `why`.
        """
        if ending == Ending.CONVERGED and not (isinstance(tolerance, Real) and gradient <= float(tolerance)):
            ending = Ending.FINISHED
        limit = getattr(self, ending.cause, None)
        better = "higher" if self.ascent else "lower"
        return SENTENCES[ending].format(tolerance=tolerance, gradient=gradient, limit=limit, better=better, **facts)


def is_same(cost: Any, other: Any, point: Sequence[np.ndarray]) -> Any:
    """Whether two costs of such a point differ by no more than round-off, which decides nothing between them.

    Of arrays, of each.
    """
    # The round-off of a cost is more than that of a number; rules go on by slopes where costs differ by so little.
    precision = np.finfo(np.result_type(*point)).eps if point else 0.0
    return abs(cost - other) <= float(precision) ** (2 / 3) * abs(other)


def rounding(cost: float, point: Sequence[np.ndarray]) -> float:
    """By how much a cost of such a point may be wrong; as `resolution` of the searches."""
    precision = np.finfo(np.result_type(*point)).eps if point else 0.0
    return 8 * float(precision) * abs(cost)
