"""A loop over a cost that is a function of its own: under numba the loop is compiled once, for all costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import graph_inputs
from pytensor.tensor.type import TensorType

from .. import line_search
from ..checks import is_dense
from ..graph.compat import linked_by
from ..graph.external import External, ExternalProduct
from ..graph.oracle import oracles
from ..graph.replace import operations
from ..graph.threads import Link, WholeLinker, for_members, whole
from ..objective import Objective
from ..state import labels, names
from ..typing import Updates
from .options import name_of, option_of, plain_function
from .program import as_function, joined


# What is said of each parameter, so that a rule over one packed vector would take it otherwise.
OF_PARAMETERS = {"constraints", "prox", "l1", "manifold", "mask"}
RULES = __name__.replace("drivers.external", "rules.")
# The name of the packed vector.
POINT = "minimization/point"


def is_separable(problem: Any) -> bool:
    """Whether a rule over the packed parameters does what it does over them, and the cost may be apart."""
    rule, options = plain_function(problem.rule), {**getattr(problem.rule, "keywords", {}), **problem.options}
    return (
        getattr(rule, "__module__", "").startswith(RULES)
        and not problem.updates
        and not problem.is_noisy
        and not OF_PARAMETERS & set(options)
        and all(is_plain(option) for name, option in options.items() if name != "bounds")
        and len({p.type.dtype for p in problem.parameters}) == 1
        and sum(p.get_value(borrow=True).size for p in problem.parameters) > 0
        and not oracles([problem.cost])
        and all(isinstance(v, Constant) or is_dense(v) for v in graph_inputs([problem.cost]))
    )


def is_plain(option: Any) -> bool:
    """Whether an option says nothing of single parameters, and has no variables: a number, a word or a line search."""
    if callable(option):
        is_search = getattr(plain_function(option), "__module__", None) == line_search.__name__
        return is_search and all(map(is_plain, getattr(option, "keywords", {}).values()))
    return option is None or isinstance(option, int | float | str)


class Packing:
    """Where the values of a loop over a packed vector are among those of the loop over the parameters themselves.

    Parameters
    ----------
    places : list of list of int
        For each value of the first, its places among the values of the second: those of its parts, if it is packed.
    packed : list of int
        Which are packed.
    shapes : list of tuple
        The shapes of the parts, which are those of the parameters.
    """

    def __init__(self, places: list[list[int]], packed: list[int], shapes: list[tuple[int, ...]]):
        self.places, self.packed, self.shapes = places, packed, shapes
        self.ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
        self.first = [group[0] for group in places]
        self.source = [n for _, n in sorted((place, n) for n, group in enumerate(places) for place in group)]
        # A vector by itself is packed as it is.
        self.joins = [] if len(shapes) == 1 and len(shapes[0]) == 1 else packed

    @classmethod
    def of(cls, apart: Updates, point: Any, updates: Updates, parameters: Sequence[Any]) -> Packing | None:
        """That of `apart`, over the packed `point`, among `updates`; None if they do not have the same values."""
        where, variables = dict(zip(names(updates), range(len(updates)), strict=True)), list(updates)
        shapes = [kind(p)[1] for p in parameters]
        parts = [f"/{label}" for label in labels(parameters)]
        places: list[list[int]] = []
        packed: list[int] = []
        for variable, name in zip(apart, names(apart), strict=True):
            prefix = name.removesuffix(f"/{POINT}")
            group = [where.get(prefix + part, -1) for part in parts] if prefix != name else [where.get(name, -1)]
            if variable is point:
                group = [variables.index(p) for p in parameters]
            if -1 in group:
                return None
            kinds = [kind(variables[place]) for place in group]
            if variable is point or prefix != name:
                packed.append(len(places))
                fits = kinds == [(variable.type.dtype, shape) for shape in shapes]
            else:
                fits = kinds == [kind(variable)]
            if not fits:
                return None
            places.append(group)
        complete = sorted(place for group in places for place in group) == list(range(len(updates)))
        return cls(places, packed, shapes) if complete else None

    def joined(self, values: Sequence[Any], rows: Sequence[bool] = ()) -> list[Any]:
        """The values of the loop over the packed vector; those that are `rows` have one row for each member."""
        found = [values[place] for place in self.first]
        for number in self.joins:
            parts = [values[place] for place in self.places[number]]
            if rows and rows[number]:
                found[number] = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
            else:
                found[number] = joined(parts)
        return found

    def separated(self, values: Sequence[Any]) -> list[Any]:
        """The values of the loop over the parameters, which may share memory; also of many members."""
        found = [values[number] for number in self.source]
        for number in self.joins:
            for place, end, shape in zip(self.places[number], self.ends, self.shapes, strict=True):
                part = values[number][..., end - math.prod(shape) : end]
                found[place] = part.reshape(part.shape[:-1] + shape)
        return found


def kind(variable: Any) -> tuple[str, tuple[int, ...]]:
    """The dtype and the shape of the value of a shared variable."""
    return variable.type.dtype, np.shape(variable.get_value(borrow=True))


class ExternalLoop:
    """What a loop over a cost does, by one that calls the cost through its address, see `graph.external`.

    Its rule is one over the packed vector of the parameters. What there is for each of these is packed too.

    Parameters
    ----------
    program : LoopProgram
    packing : Packing
    link : Link
        To the functions of the cost.
    call : callable
        What numba has compiled: of the values, a link, the bounds, if there are any, the length and what is lifted.
    lifted : list
    """

    def __init__(self, program: Any, packing: Packing, link: Link, call: Callable[..., Any], lifted: list[Any]):
        self.packing, self.link, self.call, self.lifted = packing, link, call, lifted
        self.count, self.dtype = len(program.problem.inputs), program.problem.parameters[0].type.dtype
        self.is_bounded, self._limits = program.is_bounded, program.limits
        self._fixed: list[np.ndarray] | None = None
        self._has_fixed = program.has_fixed_limits

    @classmethod
    def of(cls, program: Any, build: Callable[[Any], Any]) -> ExternalLoop | None:
        """That of a program whose own updates are not compiled; None if its rule or its cost do not allow it.

        Parameters
        ----------
        program : LoopProgram
        build : callable
            From a problem to the updates of its loop, and its inputs, the last of which is the number of iterations.
        """
        problem, parameters = program.problem, program.problem.parameters
        if not is_separable(problem):
            return None
        size, dtype = sum(p.get_value(borrow=True).size for p in parameters), parameters[0].type.dtype
        vector, link, options = TensorType(dtype, (size,)), pt.lvector("link"), problem.options
        point = pytensor.shared(np.zeros(size, dtype), name=POINT, shape=(size,))
        sides = [vector("low"), vector("high")] if program.is_bounded else []
        if option_of(program.rule, options, "bounds") is not None:
            options = {**options, "bounds": [tuple(sides)] if sides else None}
        cost = External(vector, problem.cost.type.dtype).cost(link, point)
        apart, given = build(problem._replace(parameters=[point], cost=cost, options=options, inputs=[link, *sides]))
        packing = Packing.of(apart, point, program.updates, parameters)
        if packing is None or not set(parameters).isdisjoint(graph_inputs(list(apart.values()))):
            return None
        f = Objective.of(parameters, problem.cost, name="minimization")
        x, v = vector(), vector()
        here, multiplies = f.at(x), any(isinstance(op, ExternalProduct) for op in operations(apart.values()))
        product = f.product(x, v) if multiplies else None
        functions = Link(x, v, here.cost, here.gradient, product, problem.inputs, program.mode)
        call, lifted = whole(as_function(apart, given, linked_by(WholeLinker(name_of(program.rule)), program.mode)))
        # It compiles, and does nothing.
        nothing = [np.zeros(shape, dtype) for dtype, shape in map(kind, apart)]
        call(*nothing, functions.own, *[np.zeros(size, dtype) for _ in sides], np.asarray(0), *lifted)
        return cls(program, packing, functions, call, lifted)

    def sides(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """The lows and the highs of all components with these inputs; nothing without bounds."""
        if not self.is_bounded:
            return []
        if self._fixed is None:
            pairs = [(-np.inf, np.inf) if pair is None else pair for pair in self._limits(inputs)]
            wide = [
                [np.broadcast_to(side, shape) for side in pair]
                for pair, shape in zip(pairs, self.packing.shapes, strict=True)
            ]
            found = [np.array(joined(sides), self.dtype) for sides in zip(*wide, strict=True)]
            if not self._has_fixed:
                return found
            self._fixed = found
        return self._fixed

    def __call__(self, values: Sequence[Any], *arguments: Any) -> list[Any]:
        """The later values."""
        *inputs, length = arguments
        link, _arrays = self.link(inputs)
        results = self.call(*self.packing.joined(values), link, *self.sides(inputs), length, *self.lifted)
        return self.packing.separated(results)

    def members(self, wide: Sequence[bool], kept: Sequence[int]) -> Callable[..., list[Any]]:
        """The loop for each row of the arguments that are `wide`, as `members.for_members` of a loop that is whole."""
        count, packing = len(wide) - 1 - self.count, self.packing
        rows, links = [wide[place] for place in packing.first], any(wide[count:-1])
        chosen = [number for number, group in enumerate(packing.places) if not set(group).isdisjoint(kept)]
        others = [False] * (len(self.lifted) + 1 + 2 * self.is_bounded)
        call = for_members(self.call, [*rows, links, *others], chosen)

        def run(*arguments: Any) -> list[Any]:
            values, inputs, length = arguments[:count], arguments[count:-1], arguments[-1]
            given = packing.joined(values, rows)
            link, _arrays = self.link(inputs, len(given[rows.index(True)]) if links else None)
            results = call(*given, link, *self.sides(inputs), length, *self.lifted)
            for number, result in zip(chosen, results, strict=True):
                given[number] = result
            later = packing.separated(given)
            return [later[place] for place in kept]

        return run
