"""Limits: when a minimization ends, beside the verdict of its rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from ..checks import check_count, check_number
from ..pytree import distance
from . import results
from .results import Ending


@dataclass(frozen=True)
class Limits:
    """When a minimization ends, beside the rule's own verdict. It says so of numbers, whatever runs the rule."""

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
    ) -> Limits:
        """The limits for `size` components, checked."""
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

    def is_better(self, cost: float, other: float | None) -> bool:
        """Whether `cost` is finite, and `other` is not or is no better."""
        if not isfinite(cost) or other is None or not isfinite(other):
            return isfinite(cost)
        return cost >= other if self.ascent else cost <= other

    def reached(self, cost: float) -> Ending | None:
        """Whether `cost` reaches the target."""
        if self.target is not None and (cost >= self.target if self.ascent else cost <= self.target):
            return results.TARGET
        return None

    def settled(
        self, before: float, after: float, point: Sequence[np.ndarray], following: Sequence[np.ndarray]
    ) -> Ending | None:
        """Whether an iteration that moved the point changed the cost, or the point, by too little to go on."""
        if self.cost_tolerance is not None:
            size = max(abs(before), abs(after), 1.0)
            if abs(before - after) <= self.cost_tolerance * size:
                return results.SAME_COST
        if self.step_tolerance is not None:
            size = max(distance(following, None), 1.0)
            if distance(following, point) <= self.step_tolerance * size:
                return results.SAME_POINT
        return None

    def exceeded(self, iterations: int, evaluations: int, seconds: float) -> Ending | None:
        """Whether one of the limits is reached."""
        if iterations >= self.max_iterations:
            return results.ITERATIONS
        if self.max_evaluations is not None and evaluations >= self.max_evaluations:
            return results.EVALUATIONS
        return results.TIME if self.time_limit is not None and seconds >= self.time_limit else None

    def figure(self, ending: Ending) -> Any:
        """The limit that `ending` is about."""
        names = {"iterations": "max_iterations", "evaluations": "max_evaluations", "time": "time_limit"}
        names |= {"cost": "cost_tolerance", "step": "step_tolerance"}
        return getattr(self, names[ending.cause]) if ending.cause in names else None

    def explained(self, ending: Ending, tolerance: Any, gradient: float, **facts: Any) -> str:
        """The message for `ending`, with the `facts` that `results.sentence` asks for.

        Parameters
        ----------
        ending : Ending
        tolerance : number, variable or None
            That of the rule.
        gradient : float
            The largest component of the derivative where it ended.
        **facts
            `rule`, `cost`, `best`.
        """
        if ending == results.CONVERGED and not (isinstance(tolerance, (float, int)) and gradient <= tolerance):
            ending = results.FINISHED
        facts |= {"tolerance": tolerance, "gradient": gradient, "limit": self.figure(ending)}
        return results.sentence(ending, **facts)


def is_same(cost: float, other: float, point: Sequence[np.ndarray]) -> bool:
    """Whether two costs of such a point differ by no more than round-off, which decides nothing between them."""
    precision = np.finfo(np.result_type(*point)).eps if point else 0.0
    return abs(cost - other) <= 8 * float(precision) * abs(other)
