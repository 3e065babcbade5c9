"""Paths: all points of many minimizations, with the costs and the gradients there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from ..graph.loops import loop
from ..graph.members import vectorized
from .locks import BUILDING


class Paths(NamedTuple):
    """The paths of many minimizations. Their arrays end with the longest path; a shorter one stays at its last point.

    Attributes
    ----------
    points : array
        Of shape (starts, points, components), the start first.
    costs : matrix
        Of shape (starts, points).
    gradients : array
        As `points`.
    iterations : vector of int
        The numbers of iterations; a path has one point more.
    """

    points: Any
    costs: Any
    gradients: Any
    iterations: Any


class CompiledPaths:
    """What records the paths of so many starts, compiled for `program`."""

    def __init__(self, program: Any, rows: int, limit: int):
        with BUILDING:
            together, wide = program.widened(rows)
            self.parameters = [wide[p] for p in program.problem.parameters]
            variables = list(program.updates)
            self.carried = [wide[variables[place]] for place in program.carried]
            points = [
                pytensor.shared(np.zeros((limit, *p.get_value(borrow=True).shape), p.type.dtype))
                for p in self.parameters
            ]
            turn = pytensor.shared(0)
            # Written at each step: JAX has no traces of unknown length.
            together |= {
                record: pt.set_subtensor(record[turn], p) for record, p in zip(points, self.parameters, strict=True)
            }
            together[turn] = turn + 1
            looped = loop(together, limit, wide[program.ending])
            iterations = looped[wide[program.iterations_variable]]
            outputs = [*(looped[r] for r in points), *(looped[p] for p in self.parameters), iterations]
            self.function = pytensor.function(program.problem.inputs, outputs, mode=program.mode)
            variables, outputs = program.at_point
            wides = [True] * len(points) + [False] * len(program.problem.inputs)
            self.evaluate = vectorized(variables, outputs, wides, program.mode)

    def __call__(self, starts: list[np.ndarray], inputs: list[Any]) -> Paths:
        for wide, rows in zip(self.parameters, starts, strict=True):
            wide.set_value(rows)
        if self.carried:  # a rule that does not evaluate the start itself
            for wide, rows in zip(self.carried, self.evaluate(*starts, *inputs), strict=True):
                wide.set_value(np.asarray(rows, wide.type.dtype))
        *found, iterations = map(np.asarray, self.function(*inputs))
        length, half = int(iterations.max(initial=0)), len(found) // 2
        records = zip(found[:half], found[half:], strict=True)
        points = [np.concatenate([record[:length], last[None]]) for record, last in records]
        flat = [array.reshape(-1, *array.shape[2:]) for array in points]
        costs, *gradients = map(np.asarray, self.evaluate(*flat, *inputs))

        def arranged(arrays: list[np.ndarray]) -> np.ndarray:
            return np.concatenate([a.reshape(length + 1, len(iterations), -1) for a in arrays], axis=2).swapaxes(0, 1)

        return Paths(arranged(flat), arranged([costs])[..., 0], arranged(gradients), iterations)
