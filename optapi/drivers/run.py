"""Runs: a minimization on its way, whatever drives it and whatever program takes it further."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from math import isfinite
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from .. import files, state
from ..feasible import active_bounds
from ..pytree import distance
from .evaluator import Evaluation, Evaluator, kinds_of
from .options import name_of, option_of, public_name
from .program import Program, joined
from .progress import Monitor, columns
from .results import Deferred, OptimizeResult
from .termination import SENTENCES, STATUSES, Ending, Termination, is_same, rounding


# A call of a loop cannot be interrupted. One takes about so many seconds, and less with progress or a time limit. A
# callback, a trace, a target or a tolerance of the cost or the step needs every iteration.
SECONDS, LOOK = 0.5, 0.1
# The length of the first call, in iterations, without any of these.
FIRST = 64
# So many components at most are moved alone before a minimization is called precise.
BESIDE = 200
LIMITS = (Ending.ITERATIONS, Ending.EVALUATIONS, Ending.TIME)
# Ends at which a minimization can go on.
RESUMABLE = (*LIMITS, Ending.CALLBACK)


class Position(NamedTuple):
    """All that a call of the program changes, replaced at once, so that nothing is ever half done."""

    values: Any
    now: Evaluation
    best: Evaluation
    nit: int = 0
    seconds: float = 0.0
    begun: bool = False
    ending: Ending | None = None


def no_second_derivatives() -> NoReturn:
    """What a result with penalties or manifolds says in the place of second derivatives."""
    raise ValueError(
        "with penalties or manifolds the errors of an estimate are not those of the second derivatives of the cost; "
        "draw new data sets from the fitted model, and fit them, for instance with run.on_data"
    )


class Run:
    """A minimization on its way: its position, the best point, the verdict, the result, and its file.

    Parameters
    ----------
    program : Program
    evaluator : Evaluator
    termination : Termination
    monitor : Monitor
    values : list
        Of all that the rule writes, before the first iteration.
    """

    # What its file is called, and what the driver says in it of itself, with whether a value is right.
    KIND: ClassVar[str]
    OWN: ClassVar[Mapping[str, Callable[[Any], bool]]]

    def __init__(self, program: Program, evaluator: Evaluator, termination: Termination, monitor: Monitor, values: Any):
        self._program, self._evaluator, self._monitor = program, evaluator, monitor
        size = sum(array.size for array in program.point(values))
        self._termination = termination.limited(size, "reason" in program.places.roles)
        self._limit = monitor.total = self._termination.max_iterations or 0
        monitor.columns = columns(program.is_constrained)
        evaluator.sign = program.sign
        start = evaluator.at(program.point(values))
        self._position = Position(values, start, start)
        self._spent = (0, 0, 0.0)  # what does not count for the limits

    # Going on

    def _step(self, length: int = 1) -> bool:
        """Go on by at most `length` iterations, or find that there is an end. Whether an iteration was done."""
        self._evaluator.hold(self._position.now)
        if not self._position.begun:
            self._position = self._begun()
        position = self._position
        if position.ending is None:
            began = time.perf_counter()
            length = min(length, self._limit - position.nit + self._spent[0])
            values = self._program.advance(position.values, self._evaluator, length)
            position = self._after(values, began)
        stepped = position.nit > self._position.nit
        if stepped and self._monitor.reads_rows:
            self._show(position, distance(position.now.point, self._position.now.point))
        self._position = position
        if stepped:
            stop = self._monitor.call(self._intermediate, lambda: self.iterate)
            if stop is not None and position.ending is None:
                self._position = position._replace(ending=stop)
        ended = self._position.ending is not None
        if stepped or ended:
            self._monitor.save(self.nit, ended, self._save)
        if ended:
            self._monitor.close(lambda: self.message)
        return stepped

    def _begun(self) -> Position:
        """The position at the start, with what has to be known there, and the verdict on it."""
        position, evaluator, termination = self._position, self._evaluator, self._termination
        needed, shows = termination.needs_each_iteration or self._program.evaluates_start, self._monitor.reads_rows
        ending, values = position.ending, position.values
        if needed or (shows and position.nit == 0):
            evaluator.gradients(position.now)
            cost = evaluator.total(position.now)
            if not position.now.is_finite:
                ending = Ending.BAD_START
            elif termination.is_reached(cost) and self._is_feasible(position.now):
                ending = Ending.TARGET
        if ending is None:
            ending = self._exceeded(values, position.nit, position.seconds)
        if needed:
            values = self._program.begin(values, position.now)
        position = position._replace(values=values, begun=True, ending=ending)
        if shows and position.nit == 0:
            self._show(position, 0.0)
        return position

    def _after(self, values: Any, began: float) -> Position:
        """The position after the iterations that led to `values`, with the verdict on them."""
        program, evaluator, termination = self._program, self._evaluator, self._termination
        before = self._position
        if program.is_lost(before.now, before.values, values):
            seconds = before.seconds + time.perf_counter() - began
            return before._replace(ending=Ending.NOT_FINITE, seconds=seconds)
        now = program.evaluation(values, evaluator)
        nit = program.count(values, before.nit, now is not before.now)
        best = program.best(values, before.best)
        if best is None:
            # The last finite point counts, of a rule that searches and of a random cost.
            finite = now.is_finite and all(np.isfinite(array).all() for array in now.point)
            best = now if finite else before.best
        elif self._is_better(now, best):
            best = now
        if self._monitor.reads_rows and nit > before.nit:
            evaluator.size(now)
        seconds = before.seconds + time.perf_counter() - began

        said = program.said(values)
        if said is None and "reason" not in program.places.roles and now.cost is not None and not isfinite(now.cost):
            said = Ending.NOT_FINITE
        ending = termination.verdict(said, before.now, now, evaluator.total, self._is_feasible(now))
        if ending == Ending.PRECISE and self._falls_beside(now):
            ending = Ending.STUCK
        if ending == Ending.CONVERGED and best is not now:
            # The point held is the one whose gradient meets the tolerance. With constraints that are violated by less
            # than the tolerance, a cost may be lower than the minimum.
            same = program.is_constrained or is_same(evaluator.total(now), evaluator.total(best), now.point)
            best = now if same else best
        if ending is None:
            ending = self._exceeded(values, nit, seconds)
        elif ending == Ending.NOT_FINITE and before.nit == 0 and now is before.now and not now.is_finite:
            nit, ending = 0, Ending.BAD_START
        return Position(values, now, best, nit, seconds, True, ending)

    def _falls_beside(self, now: Evaluation) -> bool:
        """Whether the cost falls where one component alone moves, although no direction of a search promised it.

        As in a funnel: where other components are far more curved, no step along a direction that has them promises
        anything. Components are looked at of which a small step is worth far more than rounding, if all of them are
        free and the cost has no penalties.
        """
        evaluator, sign = self._evaluator, self._program.sign
        if evaluator.limits is not None or self._program.is_constrained or self._has_no_second_derivatives:
            return False
        cost, point = evaluator.total(now), now.point
        ends = np.cumsum([array.size for array in point])
        slopes, values = (joined(arrays).astype(float) for arrays in (evaluator.gradients(now), point))
        units, hidden = np.maximum(np.abs(values), 1.0), rounding(cost, point)
        least = float(np.finfo(np.result_type(*point)).eps) ** 0.5
        worth = np.abs(slopes) * units * least
        steep = np.argsort(worth)[np.sum(~(worth > 1e3 * hidden)) :]
        if len(steep) > BESIDE:
            steep = np.concatenate([steep[: BESIDE // 2], steep[-BESIDE // 2 :]])
        for place in steep:
            which = int(np.searchsorted(ends, place, side="right"))
            within = np.unravel_index(place - (ends[which] - point[which].size), point[which].shape)
            for size in (least, least**0.5, 0.1):
                moved = [array.copy() for array in point]
                moved[which][within] = values[place] - sign * np.sign(slopes[place]) * size * units[place]
                beside = evaluator.total(evaluator.at(moved))
                if isfinite(beside) and sign * (cost - beside) > 2 * hidden:
                    return True
        return False

    def _is_feasible(self, evaluation: Evaluation) -> bool:
        """Whether general constraints, if there are some, are not violated by more than the tolerance."""
        program = self._program
        return not program.is_constrained or self._evaluator.violation(evaluation) <= program.feasibility

    def _is_better(self, now: Evaluation, best: Evaluation) -> bool:
        """Whether a point is better than another one, feasible ones first."""
        evaluator, feasible = self._evaluator, [self._is_feasible(evaluation) for evaluation in (now, best)]
        if all(feasible):
            return self._termination.is_better(evaluator.total(now), evaluator.total(best))
        return feasible[0] or (not feasible[1] and evaluator.violation(now) <= evaluator.violation(best))

    def _exceeded(self, values: Any, nit: int, seconds: float) -> Ending | None:
        """Whether one of the limits is reached."""
        before, counts = self._spent, self._termination.max_evaluations is not None
        evaluations = self._counts(values)["nfev"] - before[1] if counts else 0
        return self._termination.exceeded(nit - before[0], evaluations, seconds - before[2])

    def _show(self, position: Position, step: float) -> None:
        evaluator, now = self._evaluator, position.now
        cost, size = evaluator.total(now), evaluator.size(now)
        row: tuple[float, ...] = (cost, size, step, self._counts(position.values)["nfev"], position.seconds)
        if self._program.is_constrained:
            row = (*row, evaluator.violation(now))
        self._monitor.show(position.nit, row, position.ending is not None)

    def _resume(self) -> None:
        """Go on where a limit or the callback has ended it. The limits count anew."""
        position = self._position
        if position.ending is None or position.ending in RESUMABLE:
            self._position = position._replace(ending=None, begun=False)
        self._spent = (position.nit, self.nfev, position.seconds)

    def _to_end(self) -> None:
        """Go on to the end, in calls of the program that are as long as its limits and its monitor allow."""
        program, termination, monitor = self._program, self._termination, self._monitor
        each = termination.needs_each_iteration or termination.max_evaluations is not None
        fixed = 1 if each or monitor.callback or monitor.trace else monitor.verbose
        looked = monitor.reads_rows or termination.time_limit is not None
        length = fixed or (1 if looked else FIRST if program.pace is None else max(1, int(SECONDS / program.pace)))
        checkpoint = monitor.checkpoint
        while self._position.ending is None:
            before = self._position
            self._step(length if checkpoint is None else min(length, checkpoint.left(before.nit)))
            taken, done = self._position.seconds - before.seconds, self._position.nit - before.nit
            program.pace = max(taken, 1e-9) / max(done, 1)
            length = fixed or max(1, min(8 * length, int((LOOK if looked else SECONDS) / program.pace)))

    # What can be seen

    @property
    def x(self) -> Any:
        return self._built(self._position.best.point)

    @property
    def iterate(self) -> Any:
        return self._built(self._position.now.point)

    @property
    def fun(self) -> float:
        return self._evaluator.total(self._position.best)

    @property
    def jac(self) -> Any:
        return self._jac(self._position.best)

    @property
    def nit(self) -> int:
        return self._position.nit

    @property
    def nfev(self) -> int:
        return self._counts(self._position.values)["nfev"]

    @property
    def njev(self) -> int:
        return self._counts(self._position.values)["njev"]

    @property
    def nhev(self) -> int:
        return self._counts(self._position.values)["nhev"]

    @property
    def status(self) -> int | None:
        ending = self._position.ending
        return None if ending is None else ending.status

    @property
    def success(self) -> bool:
        return self.status in (0, 5)

    @property
    def message(self) -> str:
        return self._message(self._position)

    def _message(self, position: Position) -> str:
        evaluator, program = self._evaluator, self._program
        if position.ending is None:
            return "Not finished."
        cost, noise = evaluator.total(position.now), evaluator.noise
        said = self._termination.explained(
            position.ending,
            tolerance=option_of(program.rule, program.options, "tolerance"),
            gradient=evaluator.size(position.now),
            rule=name_of(program.rule),
            cost=cost,
            best=evaluator.total(position.best),
            rounding=max(rounding(cost, position.now.point), noise * abs(cost)),
            why=self._why() if position.ending == Ending.STUCK else "",
        )
        if noise:
            said = said.replace("rounding hides", "the noise of f hides")
        if program.is_constrained:
            worst = evaluator.violation(position.best)
            return (
                f"{said.replace(' derivative', ' derivative of the Lagrangian')} The largest violation is {worst:.3g}."
            )
        if evaluator.penalties is not None:
            return said.replace(" derivative", " residual")
        if evaluator.limits is None and evaluator.manifolds is None:
            return said
        return said.replace(" derivative", " projected derivative")

    @property
    def _has_no_second_derivatives(self) -> bool:
        """Whether those of the cost say nothing of errors."""
        return self._evaluator.penalties is not None or self._evaluator.manifolds is not None

    def _why(self) -> str:
        """What may be the cause where there is no further progress."""
        if np.result_type(*self._position.now.point) == np.float32:
            return "In float32 that may be all that can be had: try float64, or raise the tolerance."
        return "The cost may have a kink or an edge there: try another start."

    @property
    def result(self) -> OptimizeResult:
        result = self._result(self._position.best)
        if self._program.places.inverse:
            result["hess_inv"] = Deferred(partial(self._program.inverse_hessian, self._position.values))
        if self._monitor.trace:
            result["trace"] = self._monitor.traced()
        return result

    def _intermediate(self) -> OptimizeResult:
        """The result as a callback sees it: of the iterate."""
        return self._result(self._position.now)

    def _result(self, evaluation: Evaluation) -> OptimizeResult:
        position, evaluator, program = self._position, self._evaluator, self._program
        limits = evaluator.limits
        evaluations = (evaluation, position.now, position.best)
        later: Any = Deferred
        if evaluator.penalties is not None or not all(map(self._is_known, evaluations)):
            later = _now  # since a call may count, and the inputs of a compiled minimization are there while it runs
        jac, message = later(partial(self._jac, evaluation)), later(partial(self._message, position))
        result = OptimizeResult(
            x=self._built(evaluation.point),
            fun=evaluator.total(evaluation),
            jac=jac,
            iterate=Deferred(partial(self._built, position.now.point)),
            nit=position.nit,
            **self._counts(position.values),
            status=self.status,
            success=self.success,
            message=message,
        )
        size = partial(evaluator.size, evaluation)
        if limits is not None:
            result["active"] = later(partial(self._active, evaluation, limits))
            if not program.places.bound_multipliers:
                result["bound_multipliers"] = later(partial(self._bound_multipliers, evaluation, limits))
        if limits is not None or evaluator.manifolds is not None:
            result["optimality"] = later(size)
        if program.is_constrained:
            result["multipliers"] = later(partial(self._multipliers, position))
            if program.places.bound_multipliers:
                result["bound_multipliers"] = later(partial(self._bound_multipliers_found, position))
            result |= {"violation": evaluator.violation(evaluation), "optimality": later(size)}
        second: Any = partial(program.second_derivatives, evaluation.point, evaluator, evaluator.args, limits)
        if self._has_no_second_derivatives:
            second = no_second_derivatives
        object.__setattr__(result, "_second", second)
        return result

    def _is_known(self, evaluation: Evaluation) -> bool:
        """Whether all is known that a result says of a point."""
        violation = evaluation.violation is not None or not self._program.is_constrained
        return violation and evaluation.cost is not None and evaluation.gradients is not None

    def _active(self, evaluation: Evaluation, limits: Any) -> Any:
        return self._built(active_bounds(evaluation.point, limits))

    def _bound_multipliers(self, evaluation: Evaluation, limits: Any) -> Any:
        """Those of bounds alone: what is left of the gradient where they are active."""
        gradients = zip(self._evaluator.gradients(evaluation), active_bounds(evaluation.point, limits), strict=True)
        return self._built([np.where(a, g, g.dtype.type(0)) for g, a in gradients])

    def _bound_multipliers_found(self, position: Position) -> Any:
        """Those that a rule with general constraints has found."""
        return self._built([position.values[place] for place in self._program.places.bound_multipliers])

    def _multipliers(self, position: Position) -> list[np.ndarray]:
        """Those of general constraints."""
        found, constraints = self._program.places.multipliers, self._evaluator.constraints
        multipliers = [np.array(position.values[place]) for place in found]
        if constraints is None:
            return multipliers
        split: list[np.ndarray] = constraints.split(np.concatenate([np.zeros(0), *multipliers]))
        return split

    def _failed(self, error: Exception) -> OptimizeResult:
        """The result of a run in which the cost has raised `error`."""
        self._position = self._position._replace(ending=Ending.RAISED)
        best = self._position.best
        result = OptimizeResult(
            x=self._built(best.point),
            fun=np.nan if best.cost is None else self._evaluator.total(best),
            jac=self._built(best.gradients or [np.full_like(array, np.nan) for array in best.point]),
            iterate=self.iterate,
            nit=self.nit,
            **self._counts(self._position.values),
            status=self.status,
            success=False,
            message=SENTENCES[Ending.RAISED],
        )
        result["error"] = error
        return result

    def _counts(self, values: Any) -> dict[str, int]:
        evaluator, (evaluations, products) = self._evaluator, self._program.counted(values)
        return {
            "nfev": evaluator.nfev + evaluations,
            "njev": evaluator.njev + evaluations,
            "nhev": evaluator.nhev + products,
        }

    def _jac(self, evaluation: Evaluation) -> Any:
        gradients, manifolds = self._evaluator.gradients(evaluation), self._evaluator.manifolds
        return self._built(gradients if manifolds is None else manifolds.tangent(evaluation.point, gradients))

    def _built(self, arrays: Sequence[np.ndarray]) -> Any:
        return self._evaluator.structure.build([array.copy() for array in arrays])

    def _state(self) -> str:
        """Where it is, in words."""
        ending = self._position.ending
        return "not finished" if ending is None else STATUSES[ending.status]

    # Its file

    def _own(self) -> dict[str, Any]:
        """What the driver says of itself in a file, see `OWN`."""
        raise NotImplementedError

    def _save(self, path: str | os.PathLike[str], older: int = 0) -> None:
        """Write the position to the file `path`; as many `older` files are kept beside it."""
        position, evaluator = self._position, self._evaluator
        description = {
            "rule": public_name(self._program.rule),
            **self._own(),
            "order": self._order(),
            "counts": [position.nit, evaluator.nfev, evaluator.njev, evaluator.nhev],
            "seconds": position.seconds,
            "begun": position.begun,
            "ending": position.ending and position.ending.name,
        }
        arrays = {name: state.as_array(value) for name, value in self._entries(position).items()}
        for name, known in (("now", position.now), ("best", position.best)):
            arrays |= {f"{name}/point/{i}": array for i, array in enumerate(known.point)}
            arrays |= {f"{name}/gradient/{i}": array for i, array in enumerate(known.gradients or ())}
            costs = {"cost": known.cost, "total": known.total}
            arrays |= {f"{name}/{what}": np.array(cost) for what, cost in costs.items() if cost is not None}
        if self._monitor.trace:
            arrays["trace"] = np.array(self._monitor.rows).reshape(-1, len(self._monitor.columns))
        files.write(path, self.KIND, description, arrays, older)

    def _entries(self, position: Position) -> dict[str, Any]:
        """The values by their names in a file."""
        names = (f"{state.VALUES}{name}" for name in self._program.places.names)
        return dict(zip(names, position.values, strict=True))

    def _order(self) -> list[str]:
        """The names of the parameters."""
        places = self._program.places
        return [places.names[place] for place in places.parameters]

    def _restore(self, path: str | os.PathLike[str], description: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Take up the position that `read` has read from the file `path`.

        Raises
        ------
        ValueError
            If the rule has another state, or the file is damaged; nothing has been changed then.
        """
        evaluator, known, arrays = self._evaluator, {}, dict(arrays)
        saved = {name: arrays.pop(name) for name in list(arrays) if name.startswith(state.VALUES)}
        here = self._entries(self._position)
        new = state.replaced(path, here, saved, "holds another state than the rule has with these options")
        state.check_order(path, self._order(), description["order"])
        values = [new[name] for name in here]
        with files.refusing(path):
            for name in ("now", "best"):
                point, gradients = (self._taken(arrays, f"{name}/{part}/") for part in ("point", "gradient"))
                costs = [arrays.pop(f"{name}/{what}", None) for what in ("cost", "total")]
                right = all(cost is None or (cost.shape, cost.dtype) == ((), np.dtype("float64")) for cost in costs)
                if point is None or not right:
                    raise ValueError(f"its {name}/point or {name}/cost is missing or wrong")
                cost, total = (None if cost is None else float(cost) for cost in costs)
                known[name] = Evaluation(point, cost, gradients)
                known[name].total = total
            if known["now"].key != Evaluation(self._program.point(values)).key:
                raise ValueError("its point is not that of its values")
            width = len(self._monitor.columns)
            rows = arrays.pop("trace", np.empty((0, width)))
            if rows.dtype != "float64" or rows.ndim != 2 or rows.shape[1] != width or arrays:
                raise ValueError(f"its {', '.join(arrays) or 'trace'} is not known to this version")
        if known["now"].key == known["best"].key:
            known["best"] = known["now"]
        nit, evaluator.nfev, evaluator.njev, evaluator.nhev = description["counts"]
        self._monitor.rows = [tuple(map(float, row)) for row in rows]
        ending = None if description["ending"] is None else Ending[description["ending"]]
        self._position = Position(
            values, known["now"], known["best"], nit, description["seconds"], description["begun"], ending
        )

    def _taken(self, arrays: dict[str, np.ndarray], prefix: str) -> list[np.ndarray] | None:
        """Those of `arrays` whose names are `prefix` and a number, taken out; None if they are not as a point is."""
        taken = entries(arrays, prefix)
        for i in range(len(taken)):
            del arrays[f"{prefix}{i}"]
        is_point = kinds_of(taken) == kinds_of(self._position.now.point)
        if taken and not is_point:
            raise ValueError(f"its {prefix} is of other shapes or dtypes than the point")
        return taken if is_point else None


def _now(make: Callable[[], Any]) -> Any:
    """What stands for `Deferred` where an entry is to be made at once."""
    return make()


# What is in the description of a run, and whether a value is right.
PARTS: Mapping[str, Callable[[Any], bool]] = {
    "rule": lambda value: value is None or isinstance(value, str),
    "order": state.is_names,
    "counts": lambda value: isinstance(value, list) and len(value) == 4 and all(map(is_natural, value)),
    "seconds": lambda value: isinstance(value, float) and 0 <= value < np.inf,
    "begun": lambda value: isinstance(value, bool),
    "ending": lambda value: value is None or (isinstance(value, str) and value in Ending.__members__),
}


def is_natural(value: object) -> bool:
    """Whether `value` is an int that counts something."""
    return type(value) is int and value >= 0


def read(
    path: str | os.PathLike[str], kind: type[Run], rule: Callable[..., Any] | None
) -> tuple[Any, dict[str, np.ndarray]]:
    """The description and the arrays in the file `path` of a `kind` of runs, which `rule` is to have made if given."""
    description, arrays = files.read(path, kind.KIND, {**PARTS, **kind.OWN})
    if rule is not None and public_name(rule) != description["rule"]:
        saved = description["rule"] or "a rule that is none of this package's own"
        raise ValueError(f"{path} was saved by {saved}, not by {name_of(rule)}; pass the same rule")
    return description, arrays


def entries(arrays: Mapping[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """The `arrays` whose names are `prefix` and a number, in order."""
    names = (f"{prefix}{i}" for i in range(len(arrays)))
    return [arrays[name] for name in takewhile(arrays.__contains__, names)]


def all_together(runs: Sequence[Run], size: int, batched: Callable[..., Any]) -> None:
    """Take `runs` of one program step by step together to their ends, by the function `batched` of so many members."""
    for run in runs:
        run._position = run._begun()
    runs = [run for run in runs if run._position.ending is None]
    if not runs:
        return
    program: Any = runs[0]._program
    members = [run._position.values for run in runs]
    members += members[-1:] * (size - len(members))
    values = [widened([member[place] for member in members]) for place in range(len(members[0]))]
    length, left, began = FIRST, runs[0]._limit, time.perf_counter()
    while left > 0 and not np.all(np.asarray(values[program.ended])):
        length, call = min(length, left), time.perf_counter()
        values = program.advance(values, runs[0]._evaluator, length, batched)
        left -= length
        length = max(1, min(8 * length, int(length * SECONDS / max(time.perf_counter() - call, 1e-9))))
    for row, run in enumerate(runs):
        own = [value if isinstance(value, np.random.Generator) else np.asarray(value[row]) for value in values]
        run._evaluator.hold(run._position.now)
        position = run._after(own, began)
        run._position = position._replace(seconds=position.seconds / len(runs))


def widened(rows: Sequence[Any]) -> Any:
    """One array of all `rows`; a generator is shared by them."""
    first = rows[0]
    return first if isinstance(first, np.random.Generator) else np.stack(rows)
