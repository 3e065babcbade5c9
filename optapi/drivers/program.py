"""Programs: a rule on a symbolic cost, compiled as functions from state to state, many iterations in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode, get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, explicit_graph_inputs
from pytensor.link.basic import JITLinker

from .. import state
from ..checks import called, check_cost, check_parameters, check_updates, is_generator
from ..graph.batches import batch
from ..graph.loops import check_generators, loop
from ..graph.numpy_linker import PYTHON, NumpyLinker
from ..objective import Point, differentiate
from ..rules._linear_algebra import inverse_hessian_of
from ..state import full_like
from ..transforms import best
from ..updates import Updates, extend, reports
from . import steps
from .evaluator import BUILDING
from .options import options_of


MODES = "'NUMBA', 'JAX', 'CVM' or optapi.PYTHON"


class Problem(NamedTuple):
    """What is to be compiled."""

    parameters: list[Any]
    cost: Any
    rule: Any
    options: dict[str, Any]
    inputs: list[Any]
    updates: Updates
    mode: Any

    @classmethod
    def of(
        cls, parameters: Any, cost: Any, rule: Any, options: dict[str, Any], inputs: Any, updates: Any, mode: Any
    ) -> Problem:
        """The problem, checked."""
        parameters = check_parameters(parameters)
        for parameter in parameters:
            if not isinstance(parameter, SharedVariable):
                raise TypeError(
                    f"the parameter {called(parameter)} is not shared, so it holds no start; make it with "
                    "pytensor.shared(value), and build the cost of that"
                )
        check_cost(cost)
        check_updates(updates)
        options = dict(options)
        if isinstance(inputs, Variable):
            inputs = [inputs]
        if not isinstance(inputs, list | tuple):
            raise TypeError(f"inputs is a {type(inputs).__name__}; pass a list of the variables that the cost reads")
        for position, variable in enumerate(inputs):
            if not isinstance(variable, Variable) or isinstance(variable, Constant | SharedVariable) or variable.owner:
                raise TypeError(
                    f"inputs[{position}] is {variable}; pass a variable such as pytensor.tensor.matrix('x') makes. "
                    "Shared variables are read as they are, and are not listed"
                )
            if any(variable is other for other in inputs[:position]):
                raise ValueError(f"the input {called(variable)} is listed twice in inputs; list it once")
        if not (mode is None or isinstance(mode, str | Mode)):
            raise TypeError(f"mode is {mode!r}; pass a PyTensor mode or the name of one")
        problem = cls(parameters, cost, rule, options, list(inputs), dict(updates or {}), mode)
        if "exact" in (options_of(rule)[0] or ()) and options.get("exact") is None:
            # Unlike in a function that is called again and again, the inputs stay the same.
            options["exact"] = not problem.is_noisy
        return problem

    @property
    def is_noisy(self) -> bool:
        """Whether the cost is another one at each iteration."""
        return any(is_generator(variable) or variable in self.updates for variable in ancestors([self.cost]))

    def __reduce__(self) -> Any:
        # A mode of optapi means itself.
        return _problem, (*self[:-1], None if self.mode is PYTHON else self.mode, self.mode is PYTHON)


def _problem(*parts: Any) -> Problem:
    *most, mode, python = parts
    return Problem._make([*most, PYTHON if python else mode])


class Program:
    """A problem, compiled: functions from the values of all that changes to their values some iterations later.

    They change nothing, so that an iteration that fails has not happened.

    Attributes
    ----------
    names : list of str
        The names of what changes.
    values : list
        Its values before the first iteration.
    parameters, stop, ended, iterations, kept, lowest, roles
        Where to find in it: the parameters; the `stop` of the rule; whether it is at an end; the number of iterations;
        the best point and its cost, for a rule that does not report the cost and may go up; and what the rule reports.
    known : list of int
        Where a rule keeps the last point, its cost and its gradient, as one vector each.
    pace : float or None
        Seconds of an iteration, as last measured.
    given : dict
        The variables of the caller, which go on from their values, by where they are.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        parameters, cost = problem.parameters, problem.cost
        stop = pytensor.shared(np.int64(0), name="stop")
        updates = apply(problem, stop)
        found = reports(updates)
        self.reports_cost = all(len(found.get(role, ())) == 1 for role in ("cost", "gradient_size"))
        self.draws = any(is_generator(variable) for variable in updates)
        # A rule that does not say at which cost it is may go up.
        self.tracks = not self.reports_cost and not problem.is_noisy
        iterations, ended = self._follow(updates, stop)
        kept: dict[Any, Any] = {}
        if self.tracks:
            kept = {p: full_like(p, f"best/{position}") for position, p in enumerate(parameters)}
            updates = best(updates, -cost if problem.options.get("ascent") else cost, kept)
        self.updates = updates
        self._ended = ended
        self._check_inputs()

        where = {variable: position for position, variable in enumerate(updates)}
        self.names = steps.names_of(updates)
        self.values: Any = steps.values_of(updates)
        self.parameters, self.stop = [where[p] for p in parameters], where.get(stop)
        self.ended, self.iterations = where[ended], where[iterations]
        self.kept = [where[kept[p]] for p in parameters] if kept else []
        self.lowest = where[reports(updates)["best_cost"][-1]] if kept else None
        self.roles = {role: [where[v] for v in variables] for role, variables in found.items()}
        found_kept = {v.tag.kept: place for v, place in where.items() if getattr(v.tag, "kept", None)}
        self.known = [found_kept[part] for part in Point._fields] if len(found_kept) == 3 else []
        self.pace: float | None = None
        mine = {id(v) for v in [*parameters, *problem.updates]}
        self.given = {position: variable for variable, position in where.items() if id(variable) in mine}
        self.inverse = [place for variable, place in where.items() if getattr(variable.tag, "inverse_hessian", False)]

        self.mode = check_mode(problem.mode, self.draws)
        linker = get_mode(self.mode).linker
        # Whether a step costs little more than its arithmetic, and whether other threads can run meanwhile.
        self.is_fast = type(linker).__name__ == "FreeNumbaLinker"
        self.is_packed = type(linker).__name__ == "JAXLinker"
        self.is_free = self.is_fast or self.is_packed
        self._advance = self._compiled(updates, ended)
        if self.is_packed:
            self.values = Layout.of(updates).packed(self.values)
        self._batches: dict[int, Any] = {}
        if not problem.inputs:
            # What a backend finds wrong with the graph it says at the first call.
            self.advance(self.values, [], 0)

    def _follow(self, updates: Updates, stop: Any) -> tuple[Any, Any]:
        """Join `updates` with a count of iterations and an end, which are returned."""
        iterations, ended = (state.state(name, dtype="int64") for name in ("iterations", "ended"))
        stopped, found = pt.gt(updates.get(stop, stop), 0), reports(updates)
        over, moved = stopped, ~stopped
        if self.reports_cost:
            for role in ("cost", "gradient_size"):
                [reported] = found[role]
                moved = moved | pt.neq(updates[reported], reported)
        else:
            # A rule that knows the gradient only where it starts has moved nothing when it stops.
            lost = ~pt.isfinite(self.problem.cost)
            moved = ~lost if "reason" in found else moved & ~lost
            over = over | lost
        was = pt.gt(ended, 0)
        following = {iterations: pt.switch(was, iterations, iterations + moved), ended: pt.cast(was | over, "int64")}
        extend(updates, following)
        return iterations, ended

    def _check_inputs(self) -> None:
        """What the iterations read is shared or listed in `inputs`, and what is listed is read."""
        inputs = self.problem.inputs
        read = list(explicit_graph_inputs([*self.updates.values(), self.problem.cost]))
        for variable in read:
            if not any(variable is other for other in inputs):
                raise ValueError(
                    f"the cost or an option of the rule reads {called(variable)}, which has no value; list it in "
                    "inputs, or replace it by a shared variable"
                )
        for variable in inputs:
            if not any(variable is other for other in read):
                raise ValueError(f"inputs lists {called(variable)}, which the cost does not depend on; leave it out")

    def _compiled(self, updates: Updates, ended: Any) -> Any:
        """What `advance` calls: a function of the values, those of the inputs, and how many iterations."""
        length = pt.lscalar("length")
        looped, inputs = loop(updates, length, ended), [*self.problem.inputs, length]
        if self.is_packed:
            return self._packed(looped, inputs)
        call = self._callable(steps.as_function(looped, inputs, self.mode))
        return lambda values, *arguments: plain(call(*values, *arguments))

    def _packed(self, updates: Updates, inputs: Sequence[Any]) -> Any:
        """The same from `Packed` values to such, since JAX takes as long for a number as for a long array."""
        layout = Layout.of(updates)
        vectors = [pt.tensor(shape=(size,), dtype=dtype) for dtype, size in layout.vectors]
        now = list(Packed(layout, vectors))
        following: Any = graph_replace(list(updates.values()), dict(zip(updates, now, strict=True)), strict=False)
        outputs = [pt.concatenate([following[place].ravel() for place in places]) for places in layout.groups]
        function = pytensor.function([*vectors, *inputs], outputs, mode=self.mode, on_unused_input="ignore")
        call = self._callable(function)
        return lambda values, *arguments: Packed(layout, plain(call(*layout.packed(values).vectors, *arguments)))

    def _callable(self, function: Any) -> Any:
        """`function`, which several threads may call at a time where the mode allows it."""
        if not self.is_free:
            return function
        # A function of PyTensor keeps its arguments in itself while it runs. Shared variables come after them.
        inner, shared = function.vm.jit_fn, [c for c in function.input_storage if c.implicit]
        return lambda *arguments: inner(*arguments, *[container.storage[0] for container in shared])

    @property
    def start(self) -> Any:
        """The values before the first iteration, with the values that the variables of the caller have now."""
        values = self.values.copy()
        for position, variable in self.given.items():
            value = variable.get_value(borrow=True)
            values[position] = deepcopy(value) if is_generator(variable) else np.array(value)
        return values

    def advance(self, values: Sequence[Any], inputs: Sequence[Any], length: int, call: Any = None) -> list[Any]:
        """The values at most `length` iterations later."""
        return (call or self._advance)(values, *inputs, np.asarray(length))

    @cached_property
    def _evaluate(self) -> Any:
        # Most rules keep what it would find.
        parameters, cost = self.problem.parameters, self.problem.cost
        now = [p.type() for p in parameters]
        replaced = dict(zip(parameters, now, strict=True))
        with BUILDING:
            at = graph_replace([cost, *differentiate(cost, parameters)], replaced, strict=False)
            function = pytensor.function([*now, *self.problem.inputs], at, mode=self.mode, on_unused_input="ignore")
        function.trust_input = True
        return self._callable(function)

    def evaluate(self, point: Sequence[Any], inputs: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
        """The cost and its gradients at `point`."""
        cost, *gradients = plain(self._evaluate(*point, *inputs))
        return float(cost), gradients

    def kept_at(self, values: Sequence[Any]) -> tuple[float, list[np.ndarray]] | None:
        """The cost and the gradients at the point held, if the rule keeps them."""
        if not self.known:
            return None
        point, cost, gradient = (values[place] for place in self.known)
        sign = -1 if self.problem.options.get("ascent") else 1
        gradients, begin = [], 0
        for place in self.parameters:
            array = values[place]
            end = begin + array.size
            if not (point[begin:end] == array.ravel()).all():
                return None
            gradients.append((sign * gradient[begin:end]).reshape(array.shape).astype(array.dtype, copy=False))
            begin = end
        return sign * float(cost), gradients

    def batch(self, rows: int) -> Any:
        """What `advance` can call for values with one axis more, the first: a member for each of the `rows`."""
        if rows not in self._batches:
            variables = [v for v in self.updates if not is_generator(v)]
            wide = {
                v: pytensor.shared(
                    np.broadcast_to(v.get_value(borrow=True), (rows, *np.shape(v.get_value(borrow=True)))).copy(),
                    name=v.name,
                    shape=(rows, *v.type.shape),
                )
                for v in variables
            }
            together = batch(self.updates, wide)
            ordered = {wide.get(v, v): together[wide.get(v, v)] for v in self.updates}
            self._batches = {rows: self._compiled(ordered, wide[self._ended])}
        return self._batches[rows]

    def inverse_hessian(self, values: Sequence[Any]) -> Any:
        """What the rule knows of the inverse of the matrix of second derivatives, or None."""
        found = inverse_hessian_of([values[place] for place in self.inverse])
        return found.copy() if isinstance(found, np.ndarray) else found


class Layout(NamedTuple):
    """Where arrays are in vectors, one for each dtype.

    Attributes
    ----------
    groups : list of list of int
        For each vector, which arrays it has, in this order.
    parts : list of tuple
        For each array, which vector it is in, between where, and its shape.
    vectors : list of tuple
        The dtype and the length of each vector.
    """

    groups: list[list[int]]
    parts: list[tuple[int, slice, tuple[int, ...]]]
    vectors: list[tuple[str, int]]

    @classmethod
    def of(cls, updates: Updates) -> Layout:
        """The layout of the values of `updates`."""
        shapes = [value.shape for value in steps.values_of(updates)]
        groups: dict[str, list[int]] = {}
        for place, variable in enumerate(updates):
            groups.setdefault(variable.type.dtype, []).append(place)
        parts: list[Any] = [None] * len(shapes)
        vectors = []
        for which, (dtype, places) in enumerate(groups.items()):
            end = 0
            for place in places:
                begin, end = end, end + math.prod(shapes[place])
                parts[place] = which, slice(begin, end), shapes[place]
            vectors.append((dtype, end))
        return cls(list(groups.values()), parts, vectors)

    def packed(self, values: Any) -> Packed:
        """`values` so laid out."""
        if isinstance(values, Packed):
            return values
        return Packed(self, [np.concatenate([np.ravel(values[place]) for place in places]) for places in self.groups])


class Packed(Sequence):
    """Arrays that are parts of a few vectors."""

    def __init__(self, layout: Layout, vectors: Sequence[Any]):
        self.layout, self.vectors = layout, vectors

    def __len__(self) -> int:
        return len(self.layout.parts)

    def __getitem__(self, place: Any) -> Any:
        which, part, shape = self.layout.parts[place]
        return self.vectors[which][part].reshape(shape)

    def __setitem__(self, place: int, array: Any) -> None:
        which, part, _ = self.layout.parts[place]
        self.vectors[which][part] = np.ravel(array)

    def copy(self) -> Packed:
        return Packed(self.layout, [vector.copy() for vector in self.vectors])


def apply(problem: Problem, stop: Any) -> Updates:
    """The updates that the rule makes of the problem."""
    updates = problem.rule(
        problem.parameters, cost=problem.cost, stop=stop, updates=dict(problem.updates), **problem.options
    )
    if not isinstance(updates, dict) or not all(p in updates for p in problem.parameters):
        raise TypeError(
            f"opt_algo is {problem.rule!r}, which returned no dictionary with a next value of each parameter; pass a "
            "rule, for instance optapi.lbfgs"
        )
    check_generators(updates)
    for variable in updates:
        if not isinstance(variable, SharedVariable):
            raise TypeError(f"updates has a next value of {called(variable)}, which is not shared")
    return updates


def plain(values: Sequence[Any]) -> list[Any]:
    """`values` as NumPy arrays, whatever a backend returns; generators as they are."""
    return [v if isinstance(v, np.random.Generator) else np.asarray(v) for v in values]


def check_mode(mode: Any, draws: bool) -> Any:
    """`mode`, which can run a loop.

    Raises
    ------
    ValueError
        If it cannot.
    """
    try:
        mode = get_mode(mode)
    except (KeyError, ValueError) as error:
        raise ValueError(f"mode is {mode!r}, which PyTensor does not know; use {MODES}") from error
    name = type(mode.linker).__name__
    if name == "NumbaLinker":
        backend = import_module("optapi.graph.threads")
        return Mode(backend.FreeNumbaLinker(), mode.provided_optimizer)
    if name == "JAXLinker":
        if find_spec("jax") is None:
            raise ValueError(f"mode is JAX, which is not installed: install jax, or use {MODES}")
        if draws:
            raise ValueError(
                "mode is JAX, where random generators belong to the compiled function, so that no minimization could "
                "be begun anew or saved; for a cost that draws use 'NUMBA', 'CVM' or optapi.PYTHON"
            )
    elif isinstance(mode.linker, JITLinker) and not isinstance(mode.linker, NumpyLinker):
        raise ValueError(f"mode has a {name}, which cannot run loops; use {MODES}")
    return mode
