"""Minimizations by a program, on their way: cut into calls, looked at, and brought to an end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..pytree import distance, largest
from . import results, steps
from .options import tolerance_of
from .program import Program
from .progress import Monitor
from .results import Ending, OptimizeResult
from .termination import Limits, is_same


# A call of the compiled function cannot be interrupted; one takes about so many seconds, and less where somebody looks.
SECONDS, LOOK = 0.5, 0.1
# The length of the first call, in iterations, where nobody looks.
FIRST = 64
# Ends at which a minimization can go on.
RESUMABLE = (results.ITERATIONS, results.EVALUATIONS, results.TIME, results.CALLBACK, results.TARGET)


class Position(NamedTuple):
    """All that changes while a minimization goes on, replaced at once, so that nothing is ever half done."""

    values: Any
    start: list[np.ndarray]
    evaluated: int = 0  # how often the driver evaluated the cost, beside the rule
    seconds: float = 0.0
    ending: Ending | None = None


class Minimization:
    """One minimization by a program, on its way.

    Parameters
    ----------
    program : Program
    limits : Limits
    inputs : list
        The values of the inputs.
    position : Position
    """

    def __init__(self, program: Program, limits: Limits, inputs: Sequence[Any], position: Position):
        self.program, self.limits, self.inputs, self.position = program, limits, inputs, position
        self._seen: tuple[Any, float, list[np.ndarray]] | None = None

    @property
    def point(self) -> list[np.ndarray]:
        """The point that the rule holds."""
        return [self.position.values[place] for place in self.program.parameters]

    @property
    def nit(self) -> int:
        """The number of iterations. One that finds at the start that there is nothing to do does not count."""
        values = self.position.values
        count = int(values[self.program.iterations])
        at_rest = count == 1 and int(values[self.program.ended]) and self._at_start(self.point)
        return 0 if at_rest else count

    def _at_start(self, point: Sequence[np.ndarray]) -> bool:
        return all(np.array_equal(one, other) for one, other in zip(point, self.position.start, strict=True))

    @property
    def nfev(self) -> int:
        roles, values = self.program.roles, self.position.values
        if "evaluations" in roles:
            own = sum(int(values[place]) for place in roles["evaluations"])
        else:
            # The iteration that finds that there is nothing to do does not count, but has evaluated the gradient.
            own = self.nit + ("reason" not in roles and int(values[self.program.ended]))
        return own + self.position.evaluated

    def run(self, monitor: Monitor | None = None) -> None:
        """Go on to the end, or to one of the limits, which are those of this call."""
        limits, program = self.limits, self.program
        if self.position.ending in RESUMABLE:
            self.position = self.position._replace(ending=None)
        nit, nfev, spent = self.nit, self.nfev, self.position.seconds
        looks = limits.target is not None or limits.cost_tolerance is not None or limits.step_tolerance is not None
        each = looks or limits.max_evaluations is not None
        shows = monitor is not None and monitor.reads_rows
        if monitor is not None and (monitor.callback is not None or monitor.trace):
            each = True
        length = every = 1 if each else monitor.verbose if monitor is not None and monitor.verbose else 0
        looked = shows or limits.time_limit is not None
        if not every:
            length = 1 if looked else FIRST if program.pace is None else max(1, int(SECONDS / program.pace))
        if looks and self.position.ending is None:
            self._end(limits.reached(self.facts()[0]))
        if shows and nit == 0:
            self._show(monitor, 0.0, self.position.ending is not None)
        while self.position.ending is None:
            left = limits.max_iterations - (self.nit - nit)
            ending = limits.exceeded(self.nit - nit, self.nfev - nfev, self.position.seconds - spent)
            if ending is not None:
                self._end(ending)
                break
            before, count = self.position, self.nit
            cost = self.facts()[0] if looks else 0.0
            point, began = self.point, time.perf_counter()
            values = program.advance(before.values, self.inputs, min(length, left))
            taken = time.perf_counter() - began
            self.position = self.position._replace(values=values, seconds=before.seconds + taken)
            program.pace = max(taken, 1e-9) / max(self.nit - count, 1)
            self._end(self._verdict(cost, point) if looks else self._said())
            if self.position.ending is None:
                done = (self.nit - nit, self.nfev - nfev, self.position.seconds - spent)
                self._end(limits.exceeded(*done))
            if self.nit > count and monitor is not None:
                if shows:
                    self._show(monitor, distance(self.point, point), self.position.ending is not None)
                stop = monitor.call(self.intermediate, lambda: [array.copy() for array in self.point])
                if stop is not None and self.position.ending is None:
                    self._end(stop)
            if not every:
                length = max(1, min(8 * length, int((LOOK if looked else SECONDS) / program.pace)))

    def _end(self, ending: Ending | None) -> None:
        self.position = self.position._replace(ending=ending)

    def _said(self) -> Ending | None:
        """What the rule says, and whether there is a way on."""
        program, values = self.program, self.position.values
        if program.stop is not None and int(values[program.stop]) > 0:
            return results.of_reason(max((int(values[p]) for p in program.roles.get("reason", ())), default=0))
        return results.NOT_FINITE if int(values[program.ended]) > 0 else None

    def _verdict(self, cost: float, point: Sequence[np.ndarray]) -> Ending | None:
        """What is to be said of an iteration that began at `point`, where the cost was `cost`."""
        following = self.point
        if all(np.array_equal(old, new) for old, new in zip(point, following, strict=True)):
            return self._said()
        now = self.facts()[0]
        return self.limits.reached(now) or self._said() or self.limits.settled(cost, now, point, following)

    def facts(self) -> tuple[float, float]:
        """The cost and the size of the gradient at the point held, evaluated unless they are reported."""
        values, roles = self.position.values, self.program.roles
        if self.program.reports_cost and self.nit > 0:
            [where], [size] = roles["cost"], roles["gradient_size"]
            return float(values[where]), float(values[size])
        cost, gradients = self._evaluated()
        return cost, largest(gradients)

    def _evaluated(self) -> tuple[float, list[np.ndarray]]:
        """The cost and the gradients at the point held, evaluated once, unless the rule keeps them."""
        values = self.position.values
        if self._seen is None or self._seen[0] is not values:
            self._seen = (values, *(self.program.kept_at(values) or self._evaluate(self.point)))
        return self._seen[1:]

    def _evaluate(self, point: Sequence[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        self.position = self.position._replace(evaluated=self.position.evaluated + 1)
        return self.program.evaluate(point, self.inputs)

    def _show(self, monitor: Any, step: float, last: bool) -> None:
        cost, size = self.facts()
        monitor.show(self.nit, (cost, size, step, self.nfev, self.position.seconds), last)

    def _best(self) -> tuple[list[np.ndarray], float, list[np.ndarray]]:
        """The point to be handed back, with the cost and the gradients there."""
        program, point = self.program, self.point
        cost, gradients = self._evaluated()
        if not program.tracks:
            return point, cost, gradients
        lowest = float(self.position.values[program.lowest])
        known = -lowest if self.limits.ascent else lowest
        if self.limits.is_better(cost, known):
            return point, cost, gradients
        if self.position.ending == results.CONVERGED and is_same(cost, known, point):
            return point, cost, gradients  # the one whose gradient meets the tolerance
        kept = [self.position.values[place] for place in program.kept]
        other = kept if np.isfinite(lowest) else self.position.start
        return other, *self._evaluate(other)

    def result(self, inverse: bool = True) -> OptimizeResult:
        """What the minimization has to hand back."""
        program = self.program
        point, cost, gradients = self._best()
        ending = self.position.ending
        finite = np.isfinite(cost) and all(np.isfinite(gradient).all() for gradient in gradients)
        if not finite and (ending == results.NOT_FINITE or self.nit == 0) and self._at_start(point):
            ending = results.BAD_START
            self._end(ending)
        found = self._made(ending, point, cost, gradients)
        if inverse and program.inverse:
            found["hess_inv"] = program.inverse_hessian(self.position.values)
        return found

    def intermediate(self) -> OptimizeResult:
        """The result as a callback sees it: of the point held."""
        return self._made(self.position.ending, self.point, *self._evaluated())

    def _made(
        self, ending: Ending | None, point: Sequence[np.ndarray], cost: float, gradients: list[np.ndarray]
    ) -> OptimizeResult:
        now, at = self._evaluated()
        problem, nfev = self.program.problem, self.nfev
        if ending is None:
            message = results.sentence(None)
        else:
            message = self.limits.explained(
                ending,
                rule=steps.name_of(problem.rule),
                cost=now,
                best=cost,
                gradient=largest(at),
                tolerance=tolerance_of(problem.rule, problem.options),
            )
        return results.made(
            ending,
            message,
            x=[array.copy() for array in point],
            fun=cost,
            jac=gradients,
            iterate=[array.copy() for array in self.point],
            nit=self.nit,
            nfev=nfev,
            njev=nfev,
            nhev=sum(int(self.position.values[place]) for place in self.program.roles.get("products", ())),
        )


def all_together(
    program: Program,
    limits: Limits,
    inputs: Sequence[Any],
    minimizations: Sequence[Minimization],
    size: int,
    batched: Any,
) -> None:
    """Run `minimizations` step by step together, to their ends, by the function `batched` of so many members."""
    members = [one.position.values for one in minimizations]
    members += members[-1:] * (size - len(members))
    values = [widened([member[place] for member in members]) for place in range(len(members[0]))]
    length, done, began = FIRST, 0, time.perf_counter()
    while done < limits.max_iterations and not np.all(np.asarray(values[program.ended])):
        length, call = min(length, limits.max_iterations - done), time.perf_counter()
        values = program.advance(values, inputs, length, batched)
        done += length
        length = max(1, min(8 * length, int(length * SECONDS / max(time.perf_counter() - call, 1e-9))))
    seconds = (time.perf_counter() - began) / len(minimizations)
    for row, one in enumerate(minimizations):
        own = [value if isinstance(value, np.random.Generator) else np.asarray(value[row]) for value in values]
        one.position = one.position._replace(values=own, seconds=seconds)
        one.position = one.position._replace(ending=one._said() or results.ITERATIONS)


def widened(rows: Sequence[Any]) -> Any:
    """One array of all `rows`; a generator is shared by them."""
    first = rows[0]
    if isinstance(first, np.random.Generator):
        return first
    return np.stack(rows)
