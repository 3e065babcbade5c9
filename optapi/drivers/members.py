"""Many minimizations of one problem on many data sets, in one call of a compiled function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pytensor

from ..checks import called, filtered
from ..graph.members import for_members, vectorized
from .locks import BUILDING
from .loop_program import NUMBERS, LoopProgram
from .program import SEVERITY, full
from .progress import Monitor
from .run import LOOK
from .termination import Ending, is_same


# In one piece of work are at most so many members.
MOST = 2**12
# Of the first piece under numba, by which the others are measured.
FIRST = 16
STATUS = np.array([ending.status for ending in SEVERITY])
CONVERGED = SEVERITY.index(Ending.CONVERGED)
# The verdict for each reason that a rule may give, by its number.
VERDICTS = np.array([SEVERITY.index(Ending.of_reason(reason)) for reason in range(10)])


class Data(NamedTuple):
    """The inputs of many minimizations.

    Attributes
    ----------
    values : list
        Those that are wide have a row for each data set.
    wide : list of bool
    rows : int
        How many data sets there are.
    """

    values: list[Any]
    wide: list[bool]
    rows: int

    @classmethod
    def of_inputs(cls, variables: Sequence[Any], given: Sequence[Any]) -> Data:
        """What is `given` for the inputs `variables`, checked.

        Raises
        ------
        TypeError, ValueError
            If it does not fit them, if none is wide, or if they have not as many rows.
        """
        values, counts = [], {}
        for variable, value in zip(variables, given, strict=True):
            try:
                is_wide = np.ndim(value) == getattr(variable.type, "ndim", -2) + 1
            except ValueError as error:
                raise ValueError(
                    f"the input {called(variable)} has rows of different lengths; fill them up to one length, with "
                    "weights of zero as another input"
                ) from error
            kind = variable.type.clone(shape=(None, *variable.type.shape)) if is_wide else variable.type
            value = filtered(kind, value, variable)
            # Numba compiles anew for arrays that are laid out in another way, or must not be written to.
            values.append(np.require(value, requirements=["C", "W"]) if is_wide else value)
            if is_wide:
                counts[called(variable)] = len(values[-1])
        if not counts:
            raise ValueError(
                "no input has an axis more, with a row for each data set; for many starts on the same data use "
                "from_starts"
            )
        count = next(iter(counts.values()))
        if len(set(counts.values())) > 1 or count == 0:
            said = ", ".join(f"{rows} rows for {name}" for name, rows in counts.items())
            raise ValueError(f"the inputs have {said}; pass a row for each data set")
        return cls(values, [np.ndim(v) > v_.type.ndim for v, v_ in zip(values, variables, strict=True)], count)

    @property
    def shared(self) -> list[Any]:
        """The inputs, of those that are wide the first row."""
        return self.of(0)

    def of(self, row: int) -> list[Any]:
        """The inputs of one data set."""
        return [np.asarray(v[row]) if w else v for v, w in zip(self.values, self.wide, strict=True)]

    def cut(self, some: range) -> list[Any]:
        """The inputs of `some` data sets."""
        return [v[some.start : some.stop] if w else v for v, w in zip(self.values, self.wide, strict=True)]

    def part(self, some: range) -> Data:
        """The same of `some` data sets."""
        return Data(self.cut(some), self.wide, len(some))

    @property
    def numbers(self) -> int:
        """How many numbers a row of all that are wide has."""
        return sum(v[0].size for v, w in zip(self.values, self.wide, strict=True) if w)


class Ends(NamedTuple):
    """How some members have ended: arrays with a row for each.

    Attributes
    ----------
    x : list of arrays
    fun, nit, nfev, status : vectors
    errors : dict
        From the number of a member, whose cost has raised an exception, to that.
    """

    x: list[np.ndarray]
    fun: np.ndarray
    nit: np.ndarray
    nfev: np.ndarray
    status: np.ndarray
    errors: dict[int, Exception]

    def row(self) -> tuple[int, float, float, int]:
        """What a progress bar shows of them."""
        return len(self.fun), float(self.fun[-1]), np.nan, int(self.nfev[-1])

    @classmethod
    def joined(cls, parts: Sequence[Ends]) -> Ends:
        """All `parts`, one after another."""
        errors: dict[int, Exception] = {}
        before = 0
        for part in parts:
            errors |= {before + number: error for number, error in part.errors.items()}
            before += len(part.fun)
        x = [np.concatenate(arrays) for arrays in zip(*(part.x for part in parts), strict=True)]
        vectors: Any = (np.concatenate(arrays) for arrays in zip(*(part[1:-1] for part in parts), strict=True))
        fun, nit, nfev, status = vectors
        return cls(x, fun, nit, nfev, status, errors)


def worked(work: Callable[[Any], Any], blocks: Iterable[Any], workers: int) -> Iterator[Any]:
    """What `work` makes of each of the `blocks`, in so many threads."""
    with ThreadPoolExecutor(workers) as pool:
        yield from (pool.map if workers > 1 else map)(work, blocks)


def shown(results: Iterable[Any], bar: Monitor, row: Callable[[Any], tuple[int, float, float, int]]) -> list[Any]:
    """The `results`, while `bar` shows how many are done.

    `row` says of a result how many it is of, and the cost, the size of the derivative and the evaluations of the last.
    """
    done, found = 0, []
    for result in results:
        found.append(result)
        if bar.reads_rows:
            number, fun, size, evaluations = row(result)
            done += number
            bar.show(done, (fun, size, 0.0, evaluations, 0.0), done == bar.total)
    return found


def pieces(members: Members | None, data: Data, workers: int) -> Iterator[range]:
    """The data sets in pieces of work."""
    begin = 0
    while begin < data.rows:
        size = 1 if members is None else members.length(data, workers)
        yield range(begin, min(begin + size, data.rows))
        begin += size


class Members:
    """A program for many members at once, each from its start to its end.

    Parameters
    ----------
    program : LoopProgram
    wide : list of bool
        For each input, whether it has a row for each member, or is the same for all.
    limit : int
        Of the iterations of each.

    Raises
    ------
    ValueError
        If the cost cannot be computed of many data sets at once.
    """

    def __init__(self, program: LoopProgram, wide: Sequence[bool], limit: int):
        self.program, self.wide, self.limit = program, list(wide), limit
        places = program.places
        roles = [place for role in ("reason", "evaluations", "cost") for place in places.roles.get(role, ())]
        wanted = {*places.parameters, *roles, *program.carried[:1], *places.kept[:2], program.ended, program.iterations}
        wanted |= {place for place in (places.stop, program.lowest) if place is not None}
        # Of the best point its gradient is not wanted.
        wanted |= set(program.kept[: len(places.parameters)] if program.lowest is not None else ())
        self.wanted = sorted(wanted)
        self.start = [full(value) for value in program.values]
        self.pace: float | None = None
        self.cold = True
        with BUILDING:
            self.advance = self._built()

    def length(self, data: Data, workers: int) -> int:
        """How many members are the next piece of work."""
        share = -(-data.rows // workers)
        if self.program.is_fast:
            size = FIRST if self.pace is None else int(LOOK / self.pace)
            # Threads get their pieces at once, before the first is measured.
            size = size if workers == 1 else -(-share // 4) if self.pace is None else min(size, -(-share // 4))
        else:
            size = NUMBERS // (data.numbers + sum(np.size(value) for value in self.start))
            size = min(size, MOST, share)
            # Of pieces that are as long as others the functions are the same.
            size = -(-data.rows // -(-data.rows // max(1, size)))
        return max(1, size)

    def _built(self) -> Callable[..., list[Any]]:
        program = self.program
        begins = {*program.places.parameters, *program.carried}
        wide = [place in begins for place in range(len(self.start))] + [*self.wide, False]
        if program.is_fast:  # the function that is compiled already, since another takes seconds
            return program.members(wide, self.wanted)
        now, inputs, outputs = program.looped()
        return self._compiled([*now, *inputs], [outputs[place] for place in self.wanted], wide)

    @cached_property
    def _evaluate(self) -> Callable[..., list[Any]]:
        program, count = self.program, len(self.program.places.parameters)
        wide = [True] * count + self.wide
        if program.is_fast:
            return for_members(program.evaluating, wide, range(1 + count))
        with BUILDING:
            return self._compiled(*program.at_point, wide)

    def _compiled(self, inputs: Sequence[Any], outputs: Sequence[Any], wide: Sequence[bool]) -> Any:
        """A function of many members, of a graph of one."""
        if self.program.is_packed:
            function = pytensor.function(inputs, outputs, mode=self.program.mode, on_unused_input="ignore")
            return for_members(function, wide, range(len(outputs)))
        return vectorized(inputs, outputs, wide, self.program.mode)

    def __call__(self, points: list[np.ndarray], inputs: Sequence[Any]) -> Ends:
        """How the members end that start from `points`, with `inputs`, of which those that are wide have as many rows.

        Raises
        ------
        Exception
            What the cost raises of any of them.
        """
        program, values, began = self.program, list(self.start), time.perf_counter()
        bad = np.zeros(len(points[0]), bool)
        for place, array in zip(program.places.parameters, points, strict=True):
            values[place] = array
        if program.carried:
            known = self.evaluate(points, inputs)
            bad = ~np.all([np.isfinite(a).reshape(len(a), -1).all(axis=1) for a in known], axis=0)
            for place, array in zip(program.carried, known, strict=True):
                values[place] = np.ascontiguousarray(array, self.start[place].dtype)
        ends = map(np.asarray, self.advance(*values, *inputs, np.asarray(self.limit)))
        found = dict(zip(self.wanted, ends, strict=True))
        if not self.cold:  # the first call compiles
            self.pace = (time.perf_counter() - began) / len(bad)
        self.cold = False
        return self._judged(points, inputs, found, bad)

    def evaluate(self, points: Sequence[np.ndarray], inputs: Sequence[Any]) -> list[np.ndarray]:
        """The costs and their gradients at `points`, one of each member."""
        return [np.asarray(array) for array in self._evaluate(*points, *inputs)]

    def _judged(self, points: list[np.ndarray], inputs: Sequence[Any], values: dict[int, np.ndarray],
                bad: np.ndarray) -> Ends:  # fmt: skip
        """What `Run._after` says of one, of all."""
        program, places = self.program, self.program.places
        count = len(bad)
        reasons = [values[place] for place in places.roles.get("reason", ())]
        stopped = values[places.stop] > 0 if places.stop is not None else np.zeros(count, bool)
        said = np.max([VERDICTS[reason] for reason in reasons], axis=0) if reasons else np.full(count, CONVERGED)
        status = np.where(stopped, STATUS[said], np.where(values[program.ended] > 0, 3, 1))
        x = [values[place] for place in places.parameters]
        fun = self._costs(x, inputs, values)
        if not reasons:
            status[(status == 1) & ~np.isfinite(fun)] = 3
        if program.lowest is None:
            best, lowest = points, np.full(count, np.nan)
            lost = ~(np.isfinite(fun) & np.all([np.isfinite(a).reshape(count, -1).all(axis=1) for a in x], axis=0))
        else:
            best = [values[place] for place in program.kept[: len(x)]]
            lowest = program.sign * values[program.lowest].astype(float)
            with np.errstate(invalid="ignore"):
                worse = program.sign * fun > program.sign * lowest
                converged = (status == 0) & np.asarray(is_same(fun, lowest, x))
            lost = ~np.isfinite(fun) | (np.isfinite(lowest) & worse & ~converged)
        x = [self._chosen(lost, other, now) for other, now in zip(best, x, strict=True)]
        fun, nit = np.where(lost, lowest, fun), values[program.iterations].astype("int64")
        if bad.any():
            x = [self._chosen(bad, start, now) for start, now in zip(points, x, strict=True)]
            fun[bad], nit[bad], status[bad] = np.nan, 0, 3
        counted = [values[place] for place in places.roles.get("evaluations", ())]
        return Ends(x, fun, nit, sum(counted, np.full(count, int(bool(program.carried)))), status, {})

    def _costs(self, x: list[np.ndarray], inputs: Sequence[Any], values: dict[int, np.ndarray]) -> np.ndarray:
        """The costs of the points held."""
        program, places = self.program, self.program.places
        if program.carried:
            return values[program.carried[0]].astype(float)
        if not places.kept:
            [place] = places.roles["cost"]
            return values[place].astype(float)
        point = np.concatenate([array.reshape(len(array), -1) for array in x], axis=1)
        fun = program.sign * values[places.kept[1]].astype(float)
        unknown = ~(values[places.kept[0]] == point).all(axis=1)
        return np.where(unknown, self.evaluate(x, inputs)[0], fun) if unknown.any() else fun

    @staticmethod
    def _chosen(where: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(where.reshape(-1, *[1] * (one.ndim - 1)), one, other) if where.any() else other
