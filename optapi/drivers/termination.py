"""Termination: when a minimization ends, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_count, check_number
from ..pytree import distance
from .evaluator import Evaluation


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

# The limit that a sentence names.
LIMITS = {
    "iterations": "max_iterations",
    "evaluations": "max_evaluations",
    "time": "time_limit",
    "cost": "cost_tolerance",
    "step": "step_tolerance",
}


@dataclass(frozen=True)
class Termination:
    """When a minimization ends, beside the verdict of its rule. It says so of numbers, whatever runs the rule."""

    max_iterations: int
    max_evaluations: int | None = None
    time_limit: float | None = None
    target: float | None = None
    cost_tolerance: float | None = None
    step_tolerance: float | None = None
    ascent: bool = False

    @classmethod
    def of(
        cls,
        size: int,
        max_iterations: Any,
        max_evaluations: Any,
        time_limit: Any,
        target: Any,
        cost_tolerance: Any,
        step_tolerance: Any,
        ascent: bool,
    ) -> Termination:
        """That of a minimization over `size` components, checked."""
        if max_iterations is None:
            max_iterations = min(max(200 * size, 1000), 15000)
        return cls(
            check_count("max_iterations", max_iterations, low=0),
            None if max_evaluations is None else check_count("max_evaluations", max_evaluations, low=0),
            None if time_limit is None else check_number("time_limit", time_limit, low=0),
            None if target is None else check_number("target", target),
            None if cost_tolerance is None else check_number("cost_tolerance", cost_tolerance, low=0),
            None if step_tolerance is None else check_number("step_tolerance", step_tolerance, low=0),
            bool(ascent),
        )

    @property
    def looks(self) -> bool:
        """Whether it looks at the cost or the point of each iteration."""
        return not (self.target is None and self.cost_tolerance is None and self.step_tolerance is None)

    def verdict(
        self, said: Ending | None, before: Evaluation, now: Evaluation, cost: Callable[[Evaluation], float]
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
        """
        if now is before:
            return said
        if self.target is not None and self.is_reached(cost(now)):
            return TARGET
        return said or self.settled(before, now, cost)

    def is_reached(self, cost: float) -> bool:
        """Whether `cost` is at the target or beyond."""
        return self.target is not None and (cost >= self.target if self.ascent else cost <= self.target)

    def settled(self, before: Evaluation, now: Evaluation, cost: Callable[[Evaluation], float]) -> Ending | None:
        """Whether an iteration that moved the point changed the cost, or the point, by too little to go on."""
        if self.cost_tolerance is not None:
            size = max(abs(cost(before)), abs(cost(now)), 1.0)
            if abs(cost(before) - cost(now)) <= self.cost_tolerance * size:
                return SAME_COST
        if self.step_tolerance is not None:
            size = max(distance(now.point, None), 1.0)
            if distance(now.point, before.point) <= self.step_tolerance * size:
                return SAME_POINT
        return None

    def exceeded(self, iterations: int, evaluations: int, seconds: float) -> Ending | None:
        """Whether one of the limits is reached."""
        if iterations >= self.max_iterations:
            return ITERATIONS
        if self.max_evaluations is not None and evaluations >= self.max_evaluations:
            return EVALUATIONS
        return TIME if self.time_limit is not None and seconds >= self.time_limit else None

    def is_better(self, cost: float, other: float | None) -> bool:
        """Whether `cost` is finite, and `other` is not or is no better."""
        if not isfinite(cost) or other is None or not isfinite(other):
            return isfinite(cost)
        return cost >= other if self.ascent else cost <= other

    def explained(self, ending: Ending | None, tolerance: Any, gradient: float, **facts: Any) -> str:
        """The message for `ending`, or for None, while it has not ended.

        Parameters
        ----------
        ending : Ending or None
        tolerance : number, variable or None
            That of the rule.
        gradient : float
            The largest component of the derivative where it ended.
        **facts
            `rule`, `cost`, `best`.
        """
        if ending is None:
            return "Not finished."
        if ending == CONVERGED and not (isinstance(tolerance, (float, int)) and gradient <= tolerance):
            ending = FINISHED
        name = LIMITS.get(ending.cause)
        limit = None if name is None else getattr(self, name)
        return SENTENCES[ending.cause].format(tolerance=tolerance, gradient=gradient, limit=limit, **facts)


def is_same(cost: float, other: float, point: Sequence[np.ndarray]) -> bool:
    """Whether two costs of such a point differ by no more than round-off, which decides nothing between them."""
    precision = np.finfo(np.result_type(*point)).eps if point else 0.0
    return abs(cost - other) <= 8 * float(precision) * abs(other)
