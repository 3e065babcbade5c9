"""The loop of an interior-point method, for which numba has a function of its own where the matrices are small.

There the arithmetic of a turn takes a microsecond, and the arrays and calls of a graph ten of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytensor.tensor as pt
from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import graph_rewriter

from .loops import Loop, as_update


# Up to so many rows of the linear system loops are faster than LAPACK.
SMALL = 32
# A step ends at so much of the way to the boundary.
FRACTION = 0.995
# The exponents of the machine precision: of what makes dependent rows regular, and of a complementarity that is zero.
REGULAR, NOTHING = 5 / 6, 2


class InteriorPoint(Loop):
    """The loop of `quadratic.interior_point`, whose inner graph is what it computes.

    Its current values are the number of turns, whether it has converged, and x, y, s and z; what does not change is B,
    g, A, b, G, the limits of both sides, which of these count, their number, and the tolerance.
    """

    @property
    def is_small(self) -> bool:
        """Whether numba has a function for it."""
        sizes = [self.input_types[place].shape[0] for place in (2, 3)]
        return None not in sizes and sum(sizes) <= SMALL


class SmallInteriorPoint(Op):
    """An `InteriorPoint` as it is in a graph for numba."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        return Apply(self, list(inputs), [variable.type() for variable in inputs[:6]])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        raise NotImplementedError("only numba has a function for this")

    def do_constant_folding(self, fgraph: Any, node: Apply) -> bool:
        return False


def interior_point_loop(turn: Callable[..., Any], start: Sequence[Any], given: Sequence[Any], steps: Any) -> list[Any]:
    """The last values of ``turn(*values, *given)``, from `start` on, as `repeat` finds them."""
    start, given = ([pt.as_tensor(value) for value in values] for values in (start, given))
    current, inside = ([value.type() for value in values] for values in (start, given))
    next_values, done = turn(*current, *inside)
    ends = [as_update(value, variable) for value, variable in zip(next_values, current, strict=True)]
    last: Any = InteriorPoint([*current, *inside], [*ends, done])(*start, *given, steps, return_list=True)
    return list(last)


@graph_rewriter
def _small_ones(fgraph: Any) -> None:
    for node in fgraph.toposort():
        if isinstance(node.op, InteriorPoint) and node.op.is_small:
            found = SmallInteriorPoint().make_node(*node.inputs).outputs
            fgraph.replace_all(list(zip(node.outputs, found, strict=True)))


# Before scalars are made numbers in loops.
optdb.register("optapi_interior_point", _small_ones, "numba", position=47)
