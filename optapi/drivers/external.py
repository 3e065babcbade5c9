"""A loop over a cost that is a function of its own: under numba the loop is compiled once, for all costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import ancestors, explicit_graph_inputs, graph_inputs
from pytensor.tensor.basic import scalar_from_tensor
from pytensor.tensor.type import DenseTensorType, TensorType

from .. import line_search, rules
from ..graph.compat import linked_by
from ..graph.external import EVALUATION, FUNCTIONS, PRODUCT, External, ExternalProduct
from ..graph.oracle import oracles
from ..graph.replace import replaced
from ..graph.threads import ExternalLinker, WholeLinker, address_of, for_members
from ..objective import Objective
from ..state import labels, names
from ..typing import Updates
from .options import option_of, plain_function
from .program import as_function, joined


# What is said of each parameter, so that a rule over one packed vector would take it otherwise.
OF_PARAMETERS = {"constraints", "prox", "l1", "mask"}
RULES = rules.__name__
# The name of the packed vector.
POINT = "minimization/point"


def is_separable(problem: Any) -> bool:
    """Whether a rule over the packed parameters does what it does over them, and the cost may be apart."""
    rule, options = plain_function(problem.rule), {**getattr(problem.rule, "keywords", {}), **problem.options}
    return (
        getattr(rule, "__module__", "").startswith(f"{RULES}.")
        and not problem.updates
        and not problem.is_noisy
        and not OF_PARAMETERS & set(options)
        and all(is_plain(option) for name, option in options.items() if name != "bounds")
        and len({p.type.dtype for p in problem.parameters}) == 1
        and not oracles([problem.cost])
        and all(isinstance(v, Constant) or isinstance(v.type, DenseTensorType) for v in graph_inputs([problem.cost]))
    )


def is_plain(option: Any) -> bool:
    """Whether an option says nothing of single parameters, and has no variables: a number, a word or a line search."""
    if callable(option):
        is_search = getattr(plain_function(option), "__module__", None) == line_search.__name__
        return is_search and all(map(is_plain, getattr(option, "keywords", {}).values()))
    return option is None or isinstance(option, int | float | str)


class ExternalLoop:
    """What a loop over a cost does, by one that calls the cost through its address, see `graph.external`.

    Its rule is one over the packed vector of the parameters. What there is for each of these is packed too.

    Parameters
    ----------
    program : LoopProgram
        Whose own updates are not compiled.
    build : callable
        From a problem to the updates of its loop, and the variable for the number of iterations.
    """

    def __init__(self, program: Any, build: Callable[[Any], Any]):
        problem, updates = program.problem, program.updates
        parameters, self.mode = problem.parameters, program.mode
        values = [p.get_value(borrow=True) for p in parameters]
        self.shapes, self.ends = [v.shape for v in values], np.cumsum([v.size for v in values]).tolist()
        self.dtype = parameters[0].type.dtype
        kind = TensorType(self.dtype, (self.ends[-1],))
        point = pytensor.shared(np.zeros(kind.shape, kind.dtype), name=POINT, shape=kind.shape)
        link, sides, options = pt.lvector("link"), [], problem.options
        self.limits = program.limits
        if option_of(program.rule, options, "bounds") is not None:
            sides = [kind("low"), kind("high")]
            options = {**options, "bounds": [tuple(sides)]}
        cost = External(kind, problem.cost.type.dtype).cost(link, point)
        apart, length = build(problem._replace(parameters=[point], cost=cost, options=options, inputs=[link, *sides]))
        self.places = places_of(apart, updates, point, parameters)
        self.is_same = self.places is not None and not set(parameters) & set(graph_inputs(list(apart.values())))
        if self.is_same:
            self.is_bounded = bool(sides)
            self._link_to(problem, apart)
            function = as_function(apart, [link, *sides, length], linked_by(WholeLinker(), self.mode))
            self._call, self._lifted = function.vm.jit_fn, function.maker.linker.lifted
            # It compiles, and does nothing.
            given = [np.zeros(v.get_value(borrow=True).shape, v.type.dtype) for v in apart]
            self._call(
                *given, self._link, *(np.zeros(kind.shape, kind.dtype) for _ in sides), np.asarray(0), *self._lifted
            )

    def _link_to(self, problem: Any, updates: Updates) -> None:
        """Compile the cost, and what of it `updates` need beside."""
        f = Objective.of(problem.parameters, problem.cost, name="minimization")
        x, v = (pt.tensor(shape=(f.size,), dtype=f.dtype) for _ in range(2))
        here = f.at(x)
        graphs = {EVALUATION: ([x], [scalar_from_tensor(here.cost), here.gradient])}
        if reads(list(updates.values()), ExternalProduct):
            graphs[PRODUCT] = ([x, v], [f.product(x, v)])
        outputs = [output for _, graph in graphs.values() for output in graph]
        explicit = [variable for variable in problem.inputs if variable in set(explicit_graph_inputs(outputs))]
        shared = [variable for variable in graph_inputs(outputs) if isinstance(variable, SharedVariable)]
        self._inputs = len(problem.inputs)
        self._explicit = [problem.inputs.index(variable) for variable in explicit]
        self._containers = [variable.container for variable in shared]
        data = [*explicit, *shared]
        inside = [variable.type() for variable in data]
        self._ndims = [variable.type.ndim for variable in data]
        self._functions, self._link = [], np.zeros(FUNCTIONS + sum(1 + ndim for ndim in self._ndims), "int64")
        for place, (vectors, graph) in graphs.items():
            mode = linked_by(ExternalLinker(len(vectors)), self.mode)
            results = replaced(graph, dict(zip(data, inside, strict=True)))
            # Kept, for what is compiled exists as long.
            self._functions.append(pytensor.function([*vectors, *inside], results, mode=mode, on_unused_input="ignore"))
            self._link[place] = address_of(self._functions[-1])

    def link(self, inputs: Sequence[Any], rows: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """A link to the functions with these inputs, and the arrays in it, which have to exist as long as it is used.

        With `rows` it is one in each row of a matrix, for inputs some of which have as many rows.
        """
        arrays = [np.ascontiguousarray(inputs[place]) for place in self._explicit]
        arrays += [np.ascontiguousarray(container.storage[0]) for container in self._containers]
        link, place = self._link.copy() if rows is None else np.tile(self._link, (rows, 1)), FUNCTIONS
        for array, ndim in zip(arrays, self._ndims, strict=True):
            link[..., place] = array.ctypes.data
            if array.ndim > ndim:
                link[..., place] += np.arange(len(array)) * array.strides[0]
            link[..., place + 1 : place + 1 + ndim] = array.shape[array.ndim - ndim :]
            place += 1 + ndim
        return link, arrays

    def sides(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """The lows and the highs of all components with these inputs; nothing without bounds."""
        if not self.is_bounded:
            return []
        found = self.limits(inputs)
        pairs = [(-np.inf, np.inf) if pair is None else pair for pair in found]
        sides = [
            [np.broadcast_to(pair[end], shape) for pair, shape in zip(pairs, self.shapes, strict=True)]
            for end in (0, 1)
        ]
        return [np.ascontiguousarray(joined(side), self.dtype) for side in sides]

    def __call__(self, values: Sequence[Any], *arguments: Any) -> list[Any]:
        """The later values; what is packed are parts of one vector."""
        *inputs, length = arguments
        link, _arrays = self.link(inputs)
        given = [
            joined([values[place] for place in places]) if isinstance(places, list) else values[places]
            for places in self.places
        ]
        results = self._call(*given, link, *self.sides(inputs), length, *self._lifted)
        later: list[Any] = [None] * len(values)
        for places, result in zip(self.places, results, strict=True):
            if isinstance(places, list):
                for place, part in zip(places, self.separated(result), strict=True):
                    later[place] = part
            else:
                later[places] = result
        return later

    def members(self, wide: Sequence[bool], kept: Sequence[int]) -> Callable[..., list[Any]]:
        """The loop for each row of the arguments that are `wide`, as `members.for_members` of a loop that is whole."""
        count = len(wide) - 1 - self._inputs
        is_wide = [wide[places[0] if isinstance(places, list) else places] for places in self.places]
        links = any(wide[count:-1])
        flags = [*is_wide, links, *[False] * (2 * self.is_bounded + 1 + len(self._lifted))]
        held = [set(places) if isinstance(places, list) else {places} for places in self.places]
        chosen = [number for number, places in enumerate(held) if places & set(kept)]
        call = for_members(self._call, flags, chosen)

        def run(*arguments: Any) -> list[Any]:
            values, inputs, length = arguments[:count], arguments[count:-1], arguments[-1]
            given = []
            for places, rows in zip(self.places, is_wide, strict=True):
                parts = [values[place] for place in places] if isinstance(places, list) else [values[places]]
                if isinstance(places, list):
                    parts = [np.concatenate([part.reshape(len(part) if rows else 1, -1) for part in parts], axis=1)]
                given.append(parts[0] if rows or not isinstance(places, list) else parts[0][0])
            rows = len(given[is_wide.index(True)])
            link, _arrays = self.link(inputs, rows if links else None)
            results = call(*given, link, *self.sides(inputs), length, *self._lifted)
            found: dict[int, Any] = {}
            for number, result in zip(chosen, results, strict=True):
                places = self.places[number]
                if isinstance(places, list):
                    found |= zip(places, self.separated(result), strict=True)
                else:
                    found[places] = result
            return [found[place] for place in kept]

        return run

    def separated(self, packed: Any) -> list[Any]:
        """The parts of a packed vector, or of a matrix whose rows are such, in the shapes of the parameters."""
        return [
            packed[..., end - math.prod(shape) : end].reshape(packed.shape[:-1] + shape)
            for end, shape in zip(self.ends, self.shapes, strict=True)
        ]


def places_of(apart: Updates, updates: Updates, point: Any, parameters: Sequence[Any]) -> list[Any] | None:
    """Where in `updates` is what `apart` has, a list of places of what is packed there; None if they do not fit."""
    where = dict(zip(names(updates), range(len(updates)), strict=True))
    variables, packed = list(updates), [f"/{label}" for label in labels(parameters)]
    found: list[Any] = []
    for variable, name in zip(apart, names(apart), strict=True):
        prefix = name.removesuffix(f"/{POINT}")
        if variable is point:
            found.append([variables.index(p) for p in parameters])
        elif prefix != name and all(prefix + label in where for label in packed):
            found.append([where[prefix + label] for label in packed])
        elif name in where:
            found.append(where[name])
        else:
            return None
    flat = [place for places in found for place in (places if isinstance(places, list) else [places])]
    if sorted(flat) != list(range(len(updates))):
        return None

    def kind(variable: Any, *shape: int) -> tuple[Any, ...]:
        return variable.type.dtype, shape or np.shape(variable.get_value(borrow=True))

    for variable, places in zip(apart, found, strict=True):
        if isinstance(places, list):
            parts = [variables[place] for place in places]
            fits = {kind(v, 0) for v in (*parts, variable)} == {kind(variable, 0)}
            fits &= [kind(v)[1] for v in parts] == [kind(p)[1] for p in parameters]
        else:
            fits = kind(variables[places]) == kind(variable)
        if not fits:
            return None
    return found


def reads(outputs: Sequence[Any], kind: type) -> bool:
    """Whether there is an operation of this `kind` in the graphs of `outputs`, also in inner ones."""
    operations = {variable.owner.op for variable in ancestors(list(outputs)) if variable.owner is not None}
    return any(
        isinstance(op, kind) or (isinstance(op, HasInnerGraph) and reads(op.inner_outputs, kind)) for op in operations
    )
