"""Loops for which numba has functions written by hand, since their arithmetic takes a microsecond or two.

The arrays and calls of a graph would take ten times as long. The inner graph of such a loop is what it computes, and
what other backends run.
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


# Up to so many rows of a linear system loops are faster than LAPACK.
SMALL = 32
# Of an interior-point method: a step ends at so much of the way to the boundary; and the exponents of the machine
# precision of what makes dependent rows regular, and of a complementarity that is zero.
FRACTION = 0.995
REGULAR, NOTHING = 5 / 6, 2


class LoopByHand(Loop):
    """A loop for which numba has a function of its own, by the name of the class in `numba.BY_HAND`."""

    def fits(self) -> bool:
        """Whether the function is for values of these shapes."""
        return True


class InteriorPoint(LoopByHand):
    """The loop of `quadratic.interior_point`.

    Its current values are the number of turns, whether it has converged, and x, y, s and z; what does not change is B,
    g, A, b, G, the limits of both sides, which of these count, their number, and the tolerance.
    """

    def fits(self) -> bool:
        sizes = [self.input_types[place].shape[0] for place in (2, 3)]
        return None not in sizes and sum(sizes) <= SMALL


class FirstMinimizer(LoopByHand):
    """The turn, or none, of `cauchy_step` in which breakpoints are looked at.

    Its current values are the breakpoints, the components of the gradient that move, and the minimizer; what does not
    change are the vectors, products and scale of a `CompactHessian`.
    """


class ByHand(Op):
    """A `LoopByHand` as it is in a graph for numba."""

    __props__ = ("name", "count")

    def __init__(self, name: str, count: int):
        self.name, self.count = name, count

    def make_node(self, *inputs: Any) -> Apply:
        return Apply(self, list(inputs), [variable.type() for variable in inputs[: self.count]])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        raise NotImplementedError("only numba has a function for this")

    def do_constant_folding(self, fgraph: Any, node: Apply) -> bool:
        return False


def repeat_by_hand(kind: type[LoopByHand], turn: Callable[..., Any], start: Sequence[Any], given: Sequence[Any],
                   steps: Any) -> list[Any]:  # fmt: skip
    """The last values of ``turn(*values, *given)``, from `start` on, as of `repeat`, in a loop of this `kind`."""
    start, given = ([pt.as_tensor(value) for value in values] for values in (start, given))
    current, inside = ([value.type() for value in values] for values in (start, given))
    next_values, done = turn(*current, *inside)
    ends = [as_update(value, variable) for value, variable in zip(next_values, current, strict=True)]
    last: Any = kind([*current, *inside], [*ends, done])(*start, *given, steps, return_list=True)
    return list(last)


@graph_rewriter
def _by_hand(fgraph: Any) -> None:
    for node in fgraph.toposort():
        if isinstance(node.op, LoopByHand) and node.op.fits():
            found = ByHand(type(node.op).__name__, len(node.outputs)).make_node(*node.inputs).outputs
            fgraph.replace_all(list(zip(node.outputs, found, strict=True)))


# Before scalars are made numbers in loops.
optdb.register("optapi_by_hand", _by_hand, "numba", position=47)
