"""Programs over a symbolic cost: many iterations in one call of a compiled function."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors, explicit_graph_inputs, graph_inputs

from ..checks import (
    as_list,
    called,
    check_cost,
    check_not_swapped,
    check_outputs,
    check_shared,
    check_updates,
    is_dense,
    is_generator,
)
from ..feasible import boxes, put_inside, sides
from ..graph.batches import batch
from ..graph.compat import compiles_whole_graphs, free_callable, linked_by
from ..graph.derivatives import differentiate
from ..graph.generators import generator_of, key_of, keyed, with_keys
from ..graph.loops import FALSE, as_update, loop
from ..graph.members import for_members, vectorized
from ..graph.numpy_linker import PYTHON
from ..graph.oracle import Arrays, checked, oracles
from ..graph.replace import as_values, replaced
from ..losses import Robust
from ..objective import Objective, conjunction
from ..pytree import largest
from ..state import full_like, state
from ..transforms import best
from ..typing import CompileMode, Updates, Variables
from ..updates import extend, reports
from ..vectors import largest as largest_of
from .covariance import (
    Lagrangian,
    Linearized,
    information,
    limits_function,
    precision,
    products,
    products_graph,
)
from .evaluator import FEW, Evaluation, Evaluator
from .locks import BUILDING
from .on_manifolds import OnManifolds
from .options import check_kind_of_mode, name_of, option_of, options_of
from .penalties import Penalties
from .program import Places, Program, apply, as_function, as_graph, full, values_of
from .termination import Ending


# Where many members are computed at once, at most so many numbers are.
NUMBERS = 2**22
MODES = "'NUMBA', 'JAX', 'CVM' or 'PYTHON'"


class Problem(NamedTuple):
    """What is to be compiled."""

    parameters: list[Any]
    cost: Any
    rule: Any
    options: dict[str, Any]
    inputs: list[Any]
    updates: Updates
    has_cost: bool
    mode: Any

    @classmethod
    def of(cls, parameters: Variables, cost: Variable | None, rule: Callable[..., Any], options: dict[str, Any],
           inputs: Any, updates: Updates | None, mode: CompileMode) -> Problem:  # fmt: skip
        """The problem, checked."""
        check_not_swapped("compile_minimizer", parameters, cost)
        parameters = check_shared(parameters)
        has_cost = cost is not None or options.get("residuals") is None
        cost = as_values(check_cost(cost) if has_cost else residual_cost(parameters, rule, options))
        if updates is not None:
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
        check_kind_of_mode(mode)
        problem = cls(parameters, cost, rule, options, list(inputs), dict(updates or {}), has_cost, mode)
        if "exact" in (options_of(rule)[0] or ()) and options.get("exact") is None:
            # Unlike in a function that is called again and again, the inputs stay the same.
            options["exact"] = not problem.is_noisy
        return problem

    @property
    def is_noisy(self) -> bool:
        """Whether the cost is another one at each iteration."""
        return any(is_generator(variable) or variable in self.updates for variable in ancestors([self.cost]))

    def __reduce__(self) -> Any:
        return type(self), (*self[:-1], "PYTHON" if self.mode is PYTHON else self.mode)


def residual_cost(parameters: Sequence[Any], rule: Any, options: Mapping[str, Any]) -> Any:
    """The cost that belongs to the residuals among the `options` of a rule, with its loss."""
    residuals = check_outputs("residuals", options["residuals"], parameters)
    return robust_of(rule, options).cost(residuals)


def robust_of(rule: Any, options: Mapping[str, Any]) -> Robust:
    """The loss of a rule that takes residuals."""
    loss, f_scale = (option_of(rule, options, name) for name in ("loss", "f_scale"))
    return Robust.of("linear" if loss is None else loss, 1.0 if f_scale is None else f_scale)


class LoopProgram(Program):
    """A problem, compiled: a loop of as many iterations as are asked for.

    The values include the number of iterations, and whether they have ended, which ends the loop. For a rule that does
    not report the cost they include the cost and the gradients of the point held: the rule reads them there, and the
    loop evaluates them at the next point. Such a rule may go up, so the loop also keeps the best point. A random cost
    is another one at each iteration: there the rule itself evaluates it, and no point is the best.

    An iteration that leaves the point evaluates it once more, since a choice would cost more for large parameters. That
    is not counted.

    Attributes
    ----------
    values : list
        The values before the first iteration.
    carried, kept : list of int
        Where the cost and the gradients of the point held are among them; and the best point, with its gradients.
    lowest : int or None
        Where the cost of the best point is.
    given : dict
        The variables of the caller, which go on from their values, by where they are.
    """

    def __init__(self, problem: Problem):
        # As PyTensor does when it compiles: to note by which lines each operation is made takes a tenth of the time.
        with BUILDING, pytensor.config.change_flags(traceback__limit=pytensor.config.traceback__compile_limit):
            self._build(problem)

    def _build(self, problem: Problem) -> None:
        self.problem, self.rule, self.options = problem, problem.rule, problem.options
        parameters = problem.parameters
        updates, stop, ended, iterations, carried, kept = step_of(problem, self.penalties, self.sign)
        self.evaluates_start = bool(carried)
        self.ending = ended
        self.mode = check_mode(problem.mode, name_of(problem.rule))
        linker = type(get_mode(self.mode).linker).__name__
        # Whether a step costs little more than its arithmetic, and whether other threads can run meanwhile.
        self.is_fast, self.is_packed = linker == "FreeNumbaLinker", linker == "JAXLinker"
        updates, self._keys = keyed(updates) if self.is_packed else (updates, {})
        self.updates = updates
        self._check_inputs()

        self.places = Places.of(updates, parameters, stop)
        where = {variable: place for place, variable in enumerate(updates)}
        self.values: Any = values_of(updates)
        self.iterations_variable = iterations
        self.ended, self.iterations = where[ended], where[iterations]
        self.carried, self.kept = ([where[v] for v in variables] for variables in (carried, kept.values()))
        self.lowest = self.places.roles["best_cost"][-1] if kept else None
        mine = {id(v) for v in [*parameters, *problem.updates]}
        owners = {key: generator for generator, key in self._keys.items()}
        given = {place: owners.get(variable, variable) for variable, place in where.items()}
        self.given = {place: variable for place, variable in given.items() if id(variable) in mine}

        self._oracles = oracles([problem.cost, *updates.values()])
        self.is_free = (self.is_fast or self.is_packed) and not self._oracles
        self._external = self._apart()
        if self.is_packed:
            self.values = Layout.of(updates).packed(self.values)
        self._batches: dict[int, Any] = {}
        self._fixed_limits: Any = None
        if linker == "NumpyLinker":
            return  # nothing is compiled, and who goes on from many starts alone never asks for a step of one
        # What a backend finds wrong with the graph it says when it compiles.
        self.write_out()
        if not problem.inputs:
            self._advance(self.values if self.is_packed else list(map(full, self.values)), np.asarray(0))
        elif self.is_fast and self._external is None and all(map(is_dense, problem.inputs)):
            some = [np.zeros((1,) * v.type.ndim, v.type.dtype) for v in problem.inputs]
            backend = import_module("optapi.graph.threads")
            backend.compile_for(self.function, [*map(full, self.values), *some, np.asarray(0)])

    def __reduce__(self) -> Any:
        return LoopProgram, (self.problem,)

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

    def _apart(self) -> Any:
        """The loop over a cost that is a function of its own; None if mode, rule or cost do not allow it."""
        if not (self.is_fast and self.is_free and self.places.kept):
            return None

        def build(problem: Problem) -> tuple[Updates, list[Any]]:
            step = step_of(problem, None, self.sign)
            return looped(step.updates, step.ended, problem.inputs)

        # Imported late, because it imports numba.
        return import_module(f"{__package__}.external").ExternalLoop.of(self, build)

    def write_out(self) -> None:
        """Make now what `advance` calls, which takes longer than a few iterations."""
        self._advance  # noqa: B018

    @cached_property
    def _advance(self) -> Any:
        with BUILDING:
            return self._external or self._compiled(self.updates, self.ending)

    def _compiled(self, updates: Updates, ended: Any) -> Any:
        """What `advance` calls: a function of the values, those of the inputs, and how many iterations."""
        updates, inputs = looped(updates, ended, self.problem.inputs)
        if self.is_packed:
            return self._packed(updates, inputs)
        self.function = as_function(updates, inputs, self.mode)
        call = self._callable(self.function)
        if self.is_fast and self.is_free:
            return lambda values, *arguments: list(call(*values, *arguments))
        return lambda values, *arguments: plain(call(*values, *arguments))

    def looped(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Variables for the values, the inputs, and the later values as expressions of these."""
        updates, inputs = looped(self.updates, self.ending, self.problem.inputs)
        now, outputs = as_graph(updates)
        return now, inputs, outputs

    def _packed(self, updates: Updates, inputs: Sequence[Any]) -> Any:
        """The same from `Packed` values to such, since JAX takes as long for a number as for a long array."""
        layout = Layout.of(updates)
        vectors = [pt.tensor(shape=(size,), dtype=dtype) for dtype, size in layout.vectors]
        now = list(Packed(layout, vectors))
        next_values: Any = replaced(list(updates.values()), dict(zip(updates, now, strict=True)))
        outputs = [pt.concatenate([next_values[place].ravel() for place in places]) for places in layout.groups]
        with warnings.catch_warnings():
            # JAX has no assertions, which users have mostly not written themselves.
            warnings.filterwarnings("ignore", message="Skipping .* Op")
            function = pytensor.function([*vectors, *inputs], outputs, mode=self.mode, on_unused_input="ignore")
        call = self._callable(function)
        return lambda values, *arguments: Packed(layout, plain(call(*layout.packed(values).vectors, *arguments)))

    def _callable(self, function: Any) -> Any:
        """`function`, which several threads may call at a time where the mode allows it."""
        return free_callable(function) if self.is_free else function

    def start_at(self, point: Sequence[np.ndarray] | None = None, limits: Any = None) -> Any:
        """The values before the first iteration, at `point` or at the values that the parameters have now, inside."""
        values = (
            self.values.copy() if self.is_packed else [value if f is None else f(value) for f, value in self._fresh]
        )
        for place, variable in self.given.items():
            value = variable.get_value(borrow=True)
            if is_generator(variable):
                values[place] = key_of(value) if variable in self._keys else deepcopy(value)
            else:
                values[place] = np.array(value)
        for place, array in zip(self.places.parameters, point or (), strict=point is not None):
            values[place] = np.asarray(array)
        start = put_inside(self.point(values), limits)
        start = start if self.manifolds is None else self.manifolds.project(start)
        for place, array in zip(self.places.parameters, start, strict=True):
            values[place] = array
        return values

    def handed_back(self, values: Any, best: Mapping[int, np.ndarray]) -> dict[Any, Any]:
        """Copies of the values of the variables of the caller, by variable, the `best` point among them."""

        def copied(variable: Any, value: Any) -> Any:
            if variable in self._keys:
                return generator_of(value)
            return value.copy() if isinstance(value, np.ndarray) else deepcopy(value)

        return {v: copied(v, best[place] if place in best else values[place]) for place, v in self.given.items()}

    @cached_property
    def _fresh(self) -> list[tuple[Any, Any]]:
        """The values before the first iteration, and what is called for another; small arrays are not written over."""
        small = [isinstance(value, np.ndarray) and value.size <= FEW for value in self.values]
        return [(None, full(value)) if few else (full, value) for few, value in zip(small, self.values, strict=True)]

    @cached_property
    def violated(self) -> Callable[..., float] | None:
        """From a point and the inputs to the largest violation of general constraints; None without."""
        if not self.is_constrained:
            return None
        problem, parameters = self.problem, self.problem.parameters
        f = Objective.of(parameters, problem.cost, name="violated", constraints=self.options.get("constraints") or ())
        rows: Any = f.rows
        now = [p.type() for p in parameters]
        with BUILDING:
            found = replaced(
                [largest_of(rows.excess(rows.at(f.pack(parameters))[0]))], dict(zip(parameters, now, strict=True))
            )
            function = pytensor.function([*now, *problem.inputs], found, mode=PYTHON, on_unused_input="ignore")
        return lambda *arguments: float(function(*arguments)[0])

    @cached_property
    def penalties(self) -> Penalties | None:
        """Those of the rule."""
        return Penalties.of(self.rule, self.options, self.problem.parameters, self.problem.inputs)

    @cached_property
    def manifolds(self) -> OnManifolds | None:
        """Those of the rule."""
        return OnManifolds.of(self.rule, self.options, self.problem.parameters)

    def limits(self, inputs: Sequence[Any]) -> Any:
        """The bounds of the parameters with these `inputs`, see `feasible.limits`; None without."""
        if self._boxes is None:
            return None
        if not self.has_fixed_limits:
            return self._limits(*inputs)
        if self._fixed_limits is None:
            self._fixed_limits = self._limits(*inputs)
        return self._fixed_limits

    @property
    def is_bounded(self) -> bool:
        """Whether a parameter has bounds."""
        return self._boxes is not None

    @cached_property
    def has_fixed_limits(self) -> bool:
        """Whether the bounds depend on nothing."""
        return all(isinstance(v, Constant) for v in graph_inputs(self._all_sides))

    @property
    def _all_sides(self) -> list[Any]:
        return [side for box in self._boxes or () if box is not None for side in box]

    def takes_members(self, wide: Sequence[bool]) -> bool:
        """Whether minimizations on data sets, of which these inputs have one each, may be one call of a function."""
        mine = bool(self._oracles or self._keys or self.problem.updates) or any(map(is_generator, self.updates))
        # With a penalty the best point is not that of the lowest cost.
        mine = mine or self.penalties is not None or self.manifolds is not None
        moving = {v for v, is_wide in zip(self.problem.inputs, wide, strict=True) if is_wide}
        return not mine and moving.isdisjoint(explicit_graph_inputs(self._all_sides))

    @cached_property
    def _boxes(self) -> Any:
        return boxes(option_of(self.rule, self.options, "bounds"), self.problem.parameters)

    @cached_property
    def _limits(self) -> Callable[..., Any]:
        shapes = [p.get_value(borrow=True).shape for p in self.problem.parameters]
        return limits_function(self._boxes, shapes, self.problem.inputs)

    def advance(self, values: Any, evaluator: Evaluator, length: int, call: Any = None) -> Any:
        """The values at most `length` iterations later; `call` is that of a `batch`."""
        # The length is an input, so that one function serves whole runs, runs in pieces, resuming and many starts.
        with checked(self._oracles):
            return (call or self._advance)(values, *evaluator.args, np.asarray(length))

    def begin(self, values: Any, start: Evaluation) -> Any:
        values, cost, gradients = values.copy(), np.asarray(start.cost), start.gradients or []
        places, new = self.carried, [cost, *gradients]
        if self.places.kept:
            point, gradient = (np.concatenate([a.ravel() for a in arrays]) for arrays in (start.point, gradients))
            places, new = self.places.kept, [point, self.sign * cost, self.sign * gradient]
        for place, value in zip(places, new, strict=False):
            values[place] = np.asarray(value, values[place].dtype)
        return values

    def count(self, values: Any, before: int, moved: bool) -> int:
        return int(values[self.iterations])

    def said(self, values: Any) -> Ending | None:
        return super().said(values) or (Ending.NOT_FINITE if int(values[self.ended]) > 0 else None)

    def counted(self, values: Any) -> tuple[int, int]:
        roles = self.places.roles
        evaluations = sum([int(values[place]) for place in roles.get("evaluations", ())])
        return evaluations, sum([int(values[place]) for place in roles.get("products", ())])

    def evaluation(self, values: Any, evaluator: Evaluator) -> Evaluation:
        evaluation = super().evaluation(values, evaluator)
        if self.carried:
            cost, *gradients = (values[place] for place in self.carried)
            evaluation.cost, evaluation.gradients = float(cost), gradients
        return evaluation

    def best(self, values: Any, best: Evaluation) -> Evaluation | None:
        if self.lowest is None:  # there is no best point
            return None
        kept = [values[place] for place in self.kept]
        count = len(self.places.parameters)
        found = Evaluation(kept[:count], None, kept[count:])
        cost = float(self.sign * values[self.lowest])
        if self.penalties is None:
            found.cost = cost
        else:
            found.total = cost
        return found

    @property
    def at_point(self) -> tuple[list[Any], list[Any]]:
        """Variables for a point and the inputs, and the cost with its gradients as expressions of these."""
        now = [p.type() for p in self.problem.parameters]
        cost, parameters = self.problem.cost, self.problem.parameters
        outputs = replaced([cost, *differentiate(cost, parameters)], dict(zip(parameters, now, strict=True)))
        return [*now, *self.problem.inputs], with_keys(outputs, self._keys)

    @cached_property
    def evaluating(self) -> Any:
        """The function of these."""
        with BUILDING:
            variables, at = self.at_point
            function = pytensor.function(variables, at, mode=self.mode, on_unused_input="ignore")
        function.trust_input = True
        return function

    @cached_property
    def _evaluate(self) -> Any:
        return self._callable(self.evaluating)

    def evaluate(self, point: Sequence[Any], *inputs: Any) -> tuple[Any, list[np.ndarray]]:
        """The cost and its gradients at `point`."""
        with checked(self._oracles):
            cost, *gradients = plain(self._evaluate(*point, *inputs))
        return cost, gradients

    def multiplied(self, point: Arrays, evaluator: Evaluator,
                   multipliers: np.ndarray | None = None) -> tuple[Callable[..., Any], bool, float, bool]:  # fmt: skip
        if self.problem.is_noisy:
            raise ValueError("the cost is random, or reads what updates writes, so it has no second derivatives")

        def product(*arrays: Any) -> Any:
            with checked(self._oracles):
                if multipliers is not None:
                    return self._products_of_lagrangian(*arrays, multipliers)
                return self._products(*arrays)

        dtypes = [array.dtype.name for array in point]
        errors = [oracle.product_error(dtype) for oracle in self._oracles for dtype in dtypes]
        differs = any(oracle.differenced for oracle in self._oracles)
        return product, "residuals" in self.options, max([precision(point), *errors]), differs

    def check_cost(self, inputs: Sequence[Any]) -> None:
        """The cost is that of the residuals of the rule, but for a constant, where the parameters are now.

        Raises
        ------
        ValueError
            If it is not.
        """
        problem = self.problem
        if not problem.has_cost or problem.options.get("residuals") is None or problem.is_noisy:
            return
        own = residual_cost(problem.parameters, problem.rule, problem.options) * self.sign
        with BUILDING:
            gradients = [differentiate(cost, problem.parameters) for cost in (problem.cost, own)]
            outputs = [problem.cost, own, *gradients[0], *gradients[1]]
            function = pytensor.function(problem.inputs, outputs, mode=PYTHON, on_unused_input="ignore")
        with checked(self._oracles):
            given, expected, *slopes = plain(function(*inputs))
        half = len(slopes) // 2
        size = max(largest(slopes[:half]), largest(slopes[half:]))
        error = max(float(np.finfo(slope.dtype).eps) for slope in slopes) ** (1 / 2)
        difference = largest([a - b for a, b in zip(slopes[:half], slopes[half:], strict=True)])
        if difference > error * size:
            sums = "half of the sum of the squares of the residuals" if self.sign > 0 else "minus half of the sum"
            raise ValueError(
                f"the cost is not that of the residuals: at the start it is {given:.6g}, and {sums} (or of their loss) "
                f"is {expected:.6g}, and their derivatives differ by {difference:.3g}. Leave the cost out"
            )

    @cached_property
    def _products(self) -> Callable[..., Any]:
        parameters, residuals, robust = self._of_products
        return products(parameters, self.problem.cost, residuals, self.problem.inputs, self.mode, robust)

    def linearized(self, point: Arrays, evaluator: Evaluator, inputs: Sequence[Any]) -> Linearized:
        with checked(self._oracles):
            return self._lagrangian.at(point, inputs)

    @cached_property
    def _lagrangian(self) -> Lagrangian:
        problem = self.problem
        return Lagrangian.of(problem.parameters, problem.cost, self.options.get("constraints") or (), problem.inputs)

    @cached_property
    def _products_of_lagrangian(self) -> Callable[..., Any]:
        return self._lagrangian.products(self.mode)

    @property
    def _of_products(self) -> tuple[Any, Any, Robust]:
        """The parameters, the residuals if the rule has any, and their loss."""
        residuals = self.options.get("residuals")
        residuals = None if residuals is None else as_list("residuals", residuals)
        return self.problem.parameters, residuals, robust_of(self.rule, self.options)

    def matrices(self, point: Sequence[np.ndarray], data: Any) -> Iterator[tuple[Any, ...]]:
        """What `covariance.inverses` needs of the members at `point` with `data`, some at a time."""
        if self.is_constrained:
            # Other constraints may be active for each.
            for row in range(data.rows):
                inputs = data.of(row)
                part = [array[row] for array in point]
                known = self.second_derivatives(part, None, inputs, self.limits(inputs))
                inside = None if known.free is None else known.free[None]
                yield known.matrix()[0][None], None, known.error, inside, [known.normals]
            return
        parameters, residuals, robust = self._of_products
        limits, error = self.limits(data.shared), precision(point)
        variables, outputs = products_graph(parameters, self.problem.cost, residuals, self.problem.inputs, robust)
        count = len(parameters)
        wide = [place < count for place in range(2 * count)] + data.wide
        size = sum(array[0].size for array in point)
        length = max(1, NUMBERS // ((size + 1) * (data.numbers + size)))
        with BUILDING:
            function: Any = vectorized(variables, outputs, wide, PYTHON)
        for begin in range(0, data.rows, length):
            some = range(begin, min(begin + length, data.rows))
            part = [array[some.start : some.stop] for array in point]
            found = information(function, part, data.cut(some), residuals is not None, (len(some),))
            matrix, variance = found
            free = None
            if limits is not None:
                low, high = sides([array[0] for array in part], limits)
                x = np.concatenate([array.reshape(len(some), -1) for array in part], axis=1)
                free = (low < x) & (x < high)
            yield self.sign * matrix if variance is None else matrix, variance, error, free

    def members(self, wide: Sequence[bool], kept: Sequence[int]) -> Callable[..., list[Any]]:
        """What `advance` calls, for each row of the values, the inputs and the length that are `wide`."""
        return (self._external.members if self._external else partial(for_members, self.function))(wide, kept)

    def batch(self, rows: int) -> Any:
        """What `advance` can call for values with one axis more, the first: a member for each of the `rows`."""
        if rows not in self._batches:
            with BUILDING:
                together, wide = self.widened(rows)
                self._batches = {rows: self._compiled(together, wide[self.ending])}
        return self._batches[rows]

    def widened(self, rows: int) -> tuple[Updates, dict[Any, Any]]:
        """The updates of a step of `rows` members, and the variables that have an axis more for those that have not."""
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
        return {wide.get(v, v): together[wide.get(v, v)] for v in self.updates}, wide


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
        shapes = [value.shape for value in values_of(updates)]
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


class Step(NamedTuple):
    """An iteration of a rule with what a driver adds.

    Attributes
    ----------
    updates : dict
    stop, ended, iterations : variables
    carried : list of variables
        The cost and the gradients of the point held, of a rule that does not report the cost.
    kept : dict
        From the parameters and their gradients to those of the best point.
    """

    updates: Updates
    stop: Any
    ended: Any
    iterations: Any
    carried: list[Any]
    kept: dict[Any, Any]


def step_of(problem: Problem, penalties: Penalties | None, sign: int) -> Step:
    """The iteration that minimizes `problem`."""
    parameters = problem.parameters
    stop, ended, iterations = (own(name, dtype="int64") for name in ("stop", "ended", "iterations"))
    updates = apply_to(problem, stop, problem.cost)
    carried: list[Any] = []
    kept: dict[Any, Any] = {}
    lost = ~pt.isfinite(problem.cost)
    if len(reports(updates).get("cost", ())) == 1:
        lost = FALSE
    elif not problem.is_noisy:
        updates, carried, lost = carrying(problem, stop)
    roles = reports(updates)
    stopped, was = pt.gt(updates.get(stop, stop), 0), pt.gt(ended, 0)
    changed = ~conjunction([pt.all(pt.eq(updates[p], p)) for p in parameters])
    moved = ~stopped
    if "reason" in roles:
        moved = moved | changed
    elif not carried:
        moved = moved & ~lost
    if "evaluations" not in roles:
        evaluations = own("evaluations", dtype="int64", role="evaluations")
        updates[evaluations] = pt.switch(was, evaluations, evaluations + (changed if carried else 1))
    updates[iterations] = pt.switch(was, iterations, iterations + moved)
    updates[ended] = pt.cast(was | stopped | lost, "int64")
    if carried:
        kept = {v: full_like(v, f"minimization/best/{i}") for i, v in enumerate([*parameters, *carried[1:]])}
        cost = -carried[0] if sign < 0 else carried[0]
        if penalties is not None:
            cost = cost + penalties.expression()
        updates = best(updates, cost, kept, name="minimization/best")
    return Step(updates, stop, ended, iterations, carried, kept)


def looped(updates: Updates, ended: Any, inputs: Sequence[Any]) -> tuple[Updates, list[Any]]:
    """The updates of a whole loop, and its inputs, the last of which is the number of iterations."""
    length = pt.lscalar("length")
    return loop(updates, length, ended), [*inputs, length]


def apply_to(problem: Problem, stop: Any, cost: Variable, **keywords: Any) -> Updates:
    """The updates that the rule makes of the problem."""
    keywords |= {"cost": cost, "stop": stop, "updates": dict(problem.updates)}
    updates = apply(problem.rule, problem.parameters, **keywords, **problem.options)
    for variable in updates:
        if not isinstance(variable, SharedVariable):
            raise TypeError(f"updates has a next value of {called(variable)}, which is not shared")
    return updates


def carrying(problem: Problem, stop: Any) -> tuple[Updates, list[Any], Any]:
    """The updates of a rule that finds the cost and the gradients of the point held in state, and evaluates the next.

    Returns
    -------
    dict
    list of variables
        The state, first of the cost.
    boolean scalar variable
        Whether the next cost is not finite.
    """
    parameters = problem.parameters
    at_point = [problem.cost, *differentiate(problem.cost, parameters)]
    # Copies, which are nothing else in the updates than what the rule is given.
    cost, *gradients = (v.copy() for v in at_point)
    named, takes_any = options_of(problem.rule)
    takes = takes_any or "gradients" in (named or ())
    updates = apply_to(problem, stop, cost, **({"gradients": gradients} if takes else {}))
    held = [own("cost", dtype=cost.type.dtype, fill=np.nan)]
    held += [full_like(p, f"minimization/gradient/{i}", np.nan) for i, p in enumerate(parameters)]
    values = replaced(list(updates.values()), dict(zip([cost, *gradients], held, strict=True)))
    updates = dict(zip(updates, values, strict=True))
    after = replaced(at_point, {p: updates[p] for p in parameters})
    carried = {variable: as_update(value, variable) for variable, value in zip(held, after, strict=True)}
    return extend(updates, carried), held, ~pt.isfinite(after[0])


def own(name: str, **keywords: Any) -> Any:
    """State of the driver; the rule or the caller may have some of the same name."""
    return state(f"minimization/{name}", **keywords)


def plain(values: Sequence[Any]) -> list[Any]:
    """`values` as NumPy arrays, whatever a backend returns; generators as they are."""
    return [v if isinstance(v, np.random.Generator) else np.asarray(v) for v in values]


def check_mode(mode: CompileMode, rule: str) -> Any:
    """`mode`, which can run a loop, here that of a `rule`, by its name.

    Raises
    ------
    ValueError
        If it cannot.
    """
    try:
        known: Any = get_mode(mode)
    except (KeyError, ValueError) as error:
        raise ValueError(f"mode is {mode!r}, which PyTensor does not know; use {MODES}") from error
    name = type(known.linker).__name__
    if name == "NumbaLinker":
        backend = import_module("optapi.graph.threads")
        return linked_by(backend.FreeNumbaLinker(rule), known)
    if name == "JAXLinker":
        if find_spec("jax") is None:
            raise ValueError(f"mode is JAX, which is not installed: install jax, or use {MODES}")
    elif compiles_whole_graphs(known):
        raise ValueError(f"mode has a {name}, which cannot run loops; use {MODES}")
    return known
