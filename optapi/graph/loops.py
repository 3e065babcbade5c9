"""Loops: many steps as one node of the graph. All iteration inside a compiled function is built here.

``repeat`` and ``cond`` build expressions, for line searches and inner solvers; ``loop`` and ``hold`` map updates to
updates. A loop is one node with an inner graph, so that `batch` can give each member of a batch its own loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from importlib import import_module
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node, vectorize_graph
from pytensor.graph.rewriting.basic import graph_rewriter
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scalar.basic import ScalarType, Switch, get_scalar_type
from pytensor.tensor.basic import scalar_from_tensor, tensor_from_scalar
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.subtensor import IncSubtensor, Subtensor
from pytensor.tensor.type import TensorType, complex_dtypes, integer_dtypes

from ..checks import (
    as_list,
    as_tensor,
    as_variable,
    called,
    check_callable,
    check_condition,
    check_steps,
    check_updates,
    is_dense,
    is_generator,
    shared_scalar,
    shown,
)
from ..hints import hinted
from ..typing import Tensor, Updates
from ..updates import extend
from .compat import INNER_FUNCTION, SealedOp, inner_graph, rewrite_inner_graphs
from .replace import replaced


FALSE, TRUE = pt.constant(np.bool_(False)), pt.constant(np.bool_(True))


def like(value: Any, variable: Variable) -> Any:
    """`value` cast to the type of `variable`: to its dtype, and to its static shape where that is known.

    Raises
    ------
    ValueError
        If the number of dimensions differs.
    """
    if is_generator(variable):
        return value
    value = pt.as_tensor(value)
    if value.type.ndim != variable.type.ndim:
        raise ValueError(
            f"the next value of the variable {called(variable)} has {value.type.ndim} dimensions, "
            f"the variable {variable.type.ndim}"
        )
    if value.type.dtype != variable.type.dtype:
        if value.type.dtype in complex_dtypes and variable.type.dtype not in complex_dtypes:
            raise TypeError(
                f"the next value of the variable {called(variable)} is {value.type.dtype}, the variable "
                f"{variable.type.dtype}; take the real part"
            )
        value = value.astype(variable.type.dtype)
    if any(
        known is None and declared is not None
        for known, declared in zip(value.type.shape, variable.type.shape, strict=True)
    ):
        value = pt.specify_shape(value, variable.type.shape)
    return value


def as_update(value: Any, variable: Variable) -> Any:
    """`value` cast to the type of the shared `variable`, as an update.

    No axis is broadcastable that is not so in the variable: PyTensor refuses such updates.
    """
    value = like(value, variable)
    if not is_generator(variable) and any(
        known == 1 and declared is None for known, declared in zip(value.type.shape, variable.type.shape, strict=True)
    ):
        value = pt.switch(FALSE, variable, value)
    return value


@hinted
def repeat(body: Callable[..., tuple[Sequence[Any], Any]], start: Sequence[Any], steps: int | Variable) -> list[Any]:
    """The last values of ``values, done = body(*values)``, run from `start` until `done` or for `steps` turns.

    What `body` reads beside its arguments is computed once, outside the loop; random draws among it are the same in all
    turns.

    Parameters
    ----------
    body : callable
        From the current values, symbolic, to a list of the next values and a boolean scalar. The next values are cast
        to the types of `start`. Their shapes must not change.
    start : list of variables
        The values before the first turn. Random generators may be among them.
    steps : int or integer scalar variable
        The largest number of turns; may be 0 when the function runs, and the values are then those of `start`.

    Returns
    -------
    list of variables

    Examples
    --------
    >>> def collatz(n, steps):
    ...     n = pt.switch(pt.eq(n % 2, 0), n // 2, 3 * n + 1)
    ...     return [n, steps + 1], pt.eq(n, 1)
    >>> n = pt.lscalar("n")
    >>> _, taken = optapi.repeat(collatz, [n, pt.constant(0)], 1000)
    >>> int(pytensor.function([n], taken)(27))
    111
    """
    check_callable("body", body, "a function from the current values to the next ones and whether they are the last")
    start = [as_variable("start", value) for value in as_list("start", start)]
    if not start:
        raise ValueError("start is empty; pass at least one value")
    steps = check_steps(steps)
    current = [value.type() for value in start]
    turn = body(*current)
    if not isinstance(turn, list | tuple) or len(turn) != 2 or not isinstance(turn[0], list | tuple):
        raise TypeError(f"body returned {shown(turn)}; it has to return a list of next values, and a boolean scalar")
    next_values, done = turn
    if len(next_values) != len(start):
        raise ValueError(f"body returned {len(next_values)} next values for {len(start)} in start; return one for each")
    next_values = [as_update(value, variable) for value, variable in zip(next_values, current, strict=True)]
    done = as_tensor("the end that body returned", done).astype("bool")

    fixed = read_beside([*next_values, done], current)
    inside = [variable.type() for variable in fixed]
    ends = replaced([*next_values, done], dict(zip(fixed, inside, strict=True)))
    last: Any = Loop([*current, *inside], ends)(*start, *fixed, steps, return_list=True)
    return list(last)


class Loop(SealedOp):
    """A while loop as one node: its inner graph is applied to its own outputs until a boolean output is true.

    The inner graph maps the current values, and values that do not change, to the next values and the boolean. The
    inputs of the node are the values before the first turn, the values that do not change, and the largest number of
    turns; its outputs are the values after the last turn.

    A turn may write over the current values: see `compat.rewrite_owned`.
    """

    rewritten = False
    # Whether it records traces of a length that is not known before it runs, which JAX cannot.
    records_unknown = False

    def __init__(self, inputs: list[Any], outputs: list[Any], **kwargs: Any):
        super().__init__(inputs, outputs, **{**INNER_FUNCTION, **kwargs})

    # In PyTensor 3.0 `OpFromGraph.__call__` compares the number of arguments with that of inputs of the inner graph.
    __call__ = Op.__call__

    def clone_with_inner_graph(self, inner: FunctionGraph) -> Any:
        new: Any = super().clone_with_inner_graph(inner)
        new.rewritten, new.records_unknown = True, self.records_unknown
        return new

    def make_node(self, *inputs: Any) -> Apply:
        *values, steps = inputs
        values = [type.filter_variable(value) for type, value in zip(self.input_types, values, strict=True)]
        # Nothing may raise in a compiled step, so a negative number of turns means none.
        return Apply(self, [*values, pt.as_tensor(steps).astype("int64")], [type() for type in self.output_types[:-1]])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        count = len(outputs)
        values, fixed, steps = [copy(value) for value in inputs[:count]], inputs[count:-1], int(inputs[-1])
        for _ in range(steps):
            *values, done = self.fn(*values, *fixed)
            if done:
                break
        for output, value in zip(outputs, values, strict=True):
            output[0] = value

    def infer_shape(self, *arguments: Any) -> list[Any]:
        # PyTensor 3.0 passes the graph as the first argument.
        *_, node, shapes = arguments
        return list(shapes[: len(node.outputs)])

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True] * len(node.outputs)] * len(node.inputs)

    def pullback(self, *arguments: Any) -> Any:
        raise NotImplementedError(
            "the gradient of a loop is not defined; differentiate the cost before it goes into a loop"
        )


rewrite_inner_graphs(Loop)


@_vectorize_node.register(Loop)
def _vectorize_loop(op: Loop, node: Apply, *inputs: Any) -> Sequence[Any]:
    """One loop for all members of a batch, until the last member is done; members that are done keep their values."""
    # PyTensor's own way, a Blockwise of loops, runs one member after another, cannot draw, and does not pickle.
    count = len(node.outputs)
    *_, steps = inputs
    batched = [
        (value, value.type.ndim - core.type.ndim)
        for value, core in zip(inputs, node.inputs, strict=True)
        if not is_generator(core) and value.type.ndim > core.type.ndim
    ]
    if not batched:
        return op.make_node(*inputs).outputs
    value, axes = max(batched, key=lambda pair: (pair[1], sum(known is not None for known in pair[0].type.shape)))
    rows = [value.shape[axis] if known is None else known for axis, known in enumerate(value.type.shape[:axes])]

    def wide(value: Any, core: Any) -> Any:
        # All members share a generator.
        if is_generator(core):
            return value
        return pt.broadcast_to(value, [*rows, *value.shape[value.type.ndim - core.type.ndim :]])

    inner = inner_graph(op)
    state = [wide(value, core) for value, core in zip(inputs[:count], node.inputs, strict=False)]

    def turn(turns: Any, running: Any, *current: Any) -> Any:
        replacements = dict(zip(inner.inputs, [*current, *inputs[count:-1]], strict=True))
        ends = wide_graph(inner.outputs, replacements)
        *next_values, done = ends
        kept = [
            new if is_generator(old) else pt.switch(expand(running, old), new, old)
            for new, old in zip(next_values, current, strict=True)
        ]
        running = running & ~done & (turns + 1 < steps)
        return [turns + 1, running, *kept], ~pt.any(running)

    def expand(flags: Any, value: Any) -> Any:
        return flags.reshape([*rows, *[1] * (value.type.ndim - axes)]) if value.type.ndim > axes else flags

    return repeat(turn, [np.int64(0), wide(pt.gt(steps, 0), node.inputs[-1]), *state], pt.max(steps))[2:]


def wide_graph(outputs: Sequence[Any], replacements: Mapping[Any, Any]) -> list[Any]:
    """`outputs` with `replacements`, which may have batch axes: PyTensor's ``vectorize_graph`` with one addition.

    Where the index of ``x[i]`` differs between members, the row is picked or set by choices over all rows. PyTensor
    would do it for one member after the other, in nodes that do not pickle.
    """
    wide = {v for v, new in replacements.items() if not is_generator(v) and new.type.ndim > v.type.ndim}
    new: dict[Any, Any] = {}
    for node in toposort(outputs):
        if wide.isdisjoint(node.inputs):
            continue
        wide.update(node.outputs)
        inputs = [new.get(variable, variable) for variable in node.inputs]
        if _is_of_a_row(node.op) and node.inputs[-1] in wide:
            x, *value, index = inputs
            index = index.owner.inputs[0] if isinstance(index.type, ScalarType) else index
            size = x.shape[0] if x.type.shape[0] is None else x.type.shape[0]
            chosen = pt.eq(pt.arange(size), pt.switch(index < 0, index + size, index))
            chosen = pt.shape_padright(chosen, x.type.ndim - 1)
            result = pt.switch(chosen, *value, x) if value else pt.sum(pt.switch(chosen, x, pt.zeros_like(x)), axis=0)
            new[node.outputs[0]] = result.astype(x.type.dtype)
        elif inputs != node.inputs:
            new |= zip(node.outputs, node.clone_with_new_inputs(inputs).outputs, strict=True)
    ends: list[Any] = vectorize_graph([new.get(variable, variable) for variable in outputs], dict(replacements))
    return ends


def _is_of_a_row(op: Any) -> bool:
    """Whether `op` reads or sets ``x[i]`` for an integer scalar i."""
    row = isinstance(op, Subtensor) or (isinstance(op, IncSubtensor) and op.set_instead_of_inc)
    return row and len(op.idx_list) == 1 and not isinstance(op.idx_list[0], slice)


def _imports(backend: str) -> None:
    """Import the module for `backend` when PyTensor first compiles a graph for it."""

    @graph_rewriter
    def register(fgraph: Any) -> None:
        import_module(f"{__package__}.{backend}")

    optdb.register(f"optapi_{backend}", register, backend, position=0)


_imports("numba")
_imports("jax")


@graph_rewriter
def _scalars_as_numbers(fgraph: Any) -> None:
    """Carry the scalars of a loop as numbers; numba would allocate an array for each of them in every turn."""

    def narrow(value: Any) -> Any:
        return scalar_from_tensor(value) if is_scalar(value) else value

    def widen(value: Any, like: Any) -> Any:
        return tensor_from_scalar(value) if is_scalar(like) else value

    for node in fgraph.toposort():
        if isinstance(node.op, Loop) and any(map(is_scalar, node.op.inner_inputs)):
            inner = inner_graph(node.op)
            inputs = [get_scalar_type(v.type.dtype)() if is_scalar(v) else v.type() for v in inner.inputs]
            replacements = {v: widen(new, v) for v, new in zip(inner.inputs, inputs, strict=True)}
            outputs = replaced(inner.outputs, replacements)
            values: Any = Loop(inputs, list(map(narrow, outputs)))(
                *map(narrow, node.inputs[:-1]), node.inputs[-1], return_list=True
            )
            fgraph.replace_all([(old, widen(new, old)) for old, new in zip(node.outputs, values, strict=True)])


def is_scalar(variable: Variable) -> bool:
    """Whether `variable` is a tensor without dimensions."""
    return isinstance(variable.type, TensorType) and variable.type.ndim == 0


# Before elementwise functions are fused and inner graphs are rewritten.
optdb.register("optapi_scalars", _scalars_as_numbers, "numba", position=48)


@hinted
def cond(
    condition: Tensor, body: Callable[..., Sequence[Any]], arguments: Sequence[Any], otherwise: Sequence[Any]
) -> list[Any]:
    """The values of ``body(*arguments)`` where the boolean scalar `condition` is true, else those of `otherwise`.

    Unlike a ``switch``, and under every linker, `body` is not computed where `condition` is false: it is a loop of one
    turn or none. This holds for what depends on `arguments`; the rest is outside the loop and computed in any case.

    Examples
    --------
    >>> a = pt.dscalar("a")
    >>> [root] = optapi.cond(a > 0, lambda a: [pt.sqrt(a)], [a], [pt.constant(-1.0)])
    >>> f = pytensor.function([a], root)
    >>> float(f(9.0)), float(f(-9.0))
    (3.0, -1.0)
    """
    # Not PyTensor's ifelse, which is not lazy under every linker.
    condition = check_condition("condition", condition)
    check_callable("body", body, "a function from the arguments to a list of values")
    arguments = [as_variable("arguments", value) for value in as_list("arguments", arguments)]
    otherwise = [as_variable("otherwise", value) for value in as_list("otherwise", otherwise)]
    count = len(arguments)

    def turn(*current: Any) -> tuple[list[Any], Any]:
        values = body(*current[:count])
        if not isinstance(values, list | tuple) or len(values) != len(otherwise):
            raise ValueError(f"body returned {values!r:.60}; it has to return a list of as many as otherwise has")
        for value, other in zip(values, otherwise, strict=True):
            if is_dense(other) and np.ndim(value) != other.type.ndim:
                raise ValueError(
                    f"body(*arguments) returned a value of {np.ndim(value)} dimensions for one of {other.type.ndim} in "
                    "otherwise; the values of both are to be alike"
                )
        # The arguments are carried although they do not change; otherwise the body would be moved out of the loop.
        return [*current[:count], *values], TRUE

    return repeat(turn, [*arguments, *otherwise], pt.switch(condition, 1, 0))[count:]


@hinted
def loop(updates: Updates, steps: int | Variable | None = None, stop: Variable | None = None,
         feeds: Mapping[Any, Any] | None = None, *, trace: Sequence[Any] | None = None,
         taken: Variable | None = None) -> Any:  # fmt: skip
    """Many applications of `updates` as one: again a dictionary of updates, of the same variables.

    Parameters
    ----------
    updates : dict
        What a rule returned, perhaps joined and transformed.
    steps : int or integer scalar variable, optional
        How many times `updates` is applied. With `feeds` it may be left out: once for each row.
    stop : variable, optional
        A key of `updates`. The loop ends when it is positive (of a vector: when all elements are) and does nothing if
        it already is.
    feeds : dict, optional
        From variables that `updates` reads, such as the inputs for a mini-batch, to variables or arrays with one axis
        more, the first: each step sees the next row in their place. The loop ends after the last row. To pick rows
        from data that stay where they are, write the cost of ``data[index]`` and feed the integer ``index``.
    trace : list of variables, optional
        Expressions to be recorded, each as it is before a step, as in the outputs of a function of `updates`.
    taken : shared integer scalar, optional
        Is updated to the number of steps that were taken.

    Returns
    -------
    dict
        With `taken` among its keys if it is given.
    list of variables
        Only if `trace` is given: for each expression its values, a row for each step that was taken.

    Raises
    ------
    ValueError
        If `stop` has no update, if `feeds` do not fit what they are to replace, or if `updates` reads a random
        generator and has no update that advances it: each step would see the same draws.
    KeyError
        If `taken` already has an update.

    Notes
    -----
    Memory does not grow with `steps`, but for what is traced. A trace of :math:`k` steps is copied at each of them,
    which for long ones of large expressions is slow. JAX has no arrays of unknown length: there only a loop of a given
    number of steps, without a `stop`, has traces.

    Examples
    --------
    >>> x, data, rows = pytensor.shared(0.0, name="x"), pt.dscalar("data"), pt.dvector("rows")
    >>> updates = optapi.sgd([x], (x - data) ** 2 / 2, step_size=optapi.schedules.Power(1.0))
    >>> epoch, [seen] = optapi.loop(updates, feeds={data: rows}, trace=[x])
    >>> run = pytensor.function([rows], seen, updates=epoch)
    >>> run([1.0, 2.0, 6.0])
    array([0. , 1. , 1.5])
    >>> float(x.get_value())
    3.0
    """
    variables = list(check_updates(updates))
    check_generators(updates)
    limit = _limit(steps, feeds)
    feeds = _check_feeds(feeds, updates)
    for rows in feeds.values():
        limit = pt.minimum(limit, rows.shape[0])
    if stop is not None:
        if not is_dense(stop):
            raise TypeError(f"stop is {shown(stop)}; pass the variable that was passed to the rule")
        if stop not in updates:
            raise ValueError(f"stop is the variable {called(stop)}, which has no update; pass it to the rule as well")
        limit = pt.switch(pt.all(pt.gt(stop, 0)), 0, limit)
    # Inside the loop `stop` is never positive, so conditions on it are replaced by False.
    stopped = [] if stop is None or stop.type.ndim else _whether_positive(stop, updates)
    expressions = [] if trace is None else as_list("trace", trace)
    outputs = [as_tensor(f"trace[{position}]", expression) for position, expression in enumerate(expressions)]
    records = [pt.zeros([pt.maximum(limit, 0), *expression.shape], expression.type.dtype) for expression in outputs]

    def body(turn: Any, *current: Any) -> tuple[list[Any], Any]:
        replacements = dict(zip(variables, current, strict=False)) | {x: rows[turn] for x, rows in feeds.items()}
        replacements |= dict.fromkeys(stopped, FALSE)
        everything = replaced([*updates.values(), *outputs], replacements)
        next_values, values = everything[: len(variables)], everything[len(variables) :]
        written = [
            pt.set_subtensor(record[turn], value)
            for record, value in zip(current[len(variables) :], values, strict=True)
        ]
        ended = FALSE if stop is None else pt.all(pt.gt(next_values[variables.index(stop)], 0))
        return [turn + 1, *next_values, *written], ended

    shortens = stop is not None or feeds or isinstance(steps, Variable)
    turns, *last = repeat(body, [np.int64(0), *variables, *records], limit)
    turns.owner.op.records_unknown = bool(shortens and records)
    new = dict(zip(variables, last, strict=False))
    if taken is not None:
        extend(new, {shared_scalar("taken", taken, integer_dtypes): like(turns, taken)})
    if trace is None:
        return new
    return new, [record[:turns] if shortens else record for record in last[len(variables) :]]


def _whether_positive(variable: Any, updates: Updates) -> list[Any]:
    """The variables in `updates` that say whether the scalar `variable` is positive."""
    return [
        node.outputs[0]
        for node in toposort(list(updates.values()))
        if node.op == pt.gt and node.inputs[0] is variable and getattr(node.inputs[1], "data", None) == 0
    ]


def _limit(steps: Any, feeds: Any) -> Any:
    """The largest number of steps, as a number or variable."""
    if steps is None:
        if not feeds:
            raise TypeError("steps is None; pass an int, an integer scalar variable, or feeds with a row for each step")
        return np.iinfo(np.int64).max
    return check_steps(steps)


def _check_feeds(feeds: Mapping[Any, Any] | None, updates: Updates) -> dict[Any, Any]:
    """`feeds` with tensor variables as values, checked against the variables that they replace."""
    if not (feeds is None or isinstance(feeds, Mapping)):
        raise TypeError(f"feeds is {shown(feeds)}; pass a dictionary from variables to rows of values")
    read, checked = set(ancestors(list(updates.values()))), {}
    for x, rows in (feeds or {}).items():
        if x in updates:
            raise ValueError(f"feeds names the variable {called(x)}, which has an update; feed what is only read")
        if x not in read:
            raise ValueError(f"feeds names the variable {called(x)}, which updates does not read")
        rows = checked[x] = as_tensor(f"feeds for {called(x)}", rows)
        if rows.type.dtype != x.type.dtype or rows.type.ndim != x.type.ndim + 1:
            raise ValueError(
                f"feeds holds {rows.type} for {called(x)}, which is {x.type}; "
                "pass the same dtype, and a row of its shape for each step"
            )
    return checked


@hinted
def hold(updates: Updates, condition: Tensor) -> Updates:
    """`updates` that leave their variables as they are while `condition` is true. Random generators go on.

    Parameters
    ----------
    updates : dict
        What a rule returned, perhaps joined and transformed.
    condition : boolean scalar variable

    Returns
    -------
    dict

    Examples
    --------
    >>> x, still = pytensor.shared(4.0, name="x"), pt.bscalar("still")
    >>> updates = optapi.hold(optapi.sgd([x], x**2, step_size=0.25), pt.gt(still, 0))
    >>> step = pytensor.function([still], x, updates=updates)
    >>> [float(step(still)) for still in (0, 1, 1, 0, 0)]
    [4.0, 2.0, 2.0, 2.0, 1.0]
    """
    check_updates(updates)
    condition = check_condition("condition", condition)
    return {
        variable: value if is_generator(variable) else like(pt.switch(condition, variable, value), variable)
        for variable, value in updates.items()
    }


def moved(updates: Updates, variables: Iterable[Variable]) -> Any:
    """Whether `updates` change any of `variables`, a boolean scalar.

    A comparison would be a pass of its own through a next value, which would have to be held for it. So where the graph
    chooses by a condition whether a variable stays, as `hold` does, the condition is the answer, and where it never
    does, the variable moves.
    """
    conditions, values = {}, {}
    for variable in variables:
        value, goes = updates[variable], ~FALSE
        while (choice := _choice(value.owner)) is not None and variable in choice[1:]:
            condition, first, value = choice
            if first is variable:
                condition = ~condition
            else:
                value = first
            goes = goes & condition
        conditions[variable], values[variable] = goes, value
    nodes = {v.owner for v in ancestors(list(values.values())) if v.owner is not None}
    has_loops = any(isinstance(node.op, Loop) for node in nodes)
    chosen = {v for choice in map(_choice, nodes) if choice is not None for v in choice[1:]}
    result: Any = FALSE
    for variable, value in values.items():
        goes = conditions[variable]
        if has_loops or value is variable or variable in chosen:
            goes = goes & pt.any(pt.neq(value, variable))
        result = result | goes
    return result


def _choice(node: Any) -> tuple[Any, Any, Any] | None:
    """The condition of a choice between two tensors as a whole, and these; None of any other node."""
    if node is None or not isinstance(node.op, Elemwise) or not isinstance(node.op.scalar_op, Switch):
        return None
    condition, first, second = node.inputs
    return (pt.neq(condition.dimshuffle(), 0), first, second) if all(condition.type.broadcastable) else None


def check_generators(updates: Updates) -> None:
    """Check that every random generator that `updates` reads has an update.

    Raises
    ------
    ValueError
        If one has none.
    """
    for variable in ancestors(list(updates.values())):
        if variable.owner is None and is_generator(variable) and variable not in updates:
            raise ValueError(
                f"the random generator {called(variable)} is drawn from and never advanced, so that all steps "
                "would see the same draws; add {generator: next_generator} to updates"
            )


def read_beside(outputs: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """The variables that `outputs` read and that do not depend on `inputs`.

    Constants, and what is computed from constants alone, are not among them: rewrites should see their values. (A
    product of three or more factors, two of them small integers, would overflow in PyTensor's Python implementation.)
    """
    changing, fixed = set(inputs), set()
    result: dict[Any, None] = {}

    def take(variables: Iterable[Any]) -> None:
        for variable in variables:
            if not (variable in changing or variable in fixed or isinstance(variable, Constant)):
                result[variable] = None

    for node in toposort(outputs):
        if any(variable in changing for variable in node.inputs):
            changing.update(node.outputs)
            take(node.inputs)
        elif all(variable in fixed or isinstance(variable, Constant) for variable in node.inputs):
            fixed.update(node.outputs)
    take(outputs)
    return list(result)
