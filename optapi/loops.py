"""Loops: many steps as one. Everything in the package that repeats, repeats here.

``repeat`` and ``when`` build expressions and serve line searches and inner solvers; ``loop`` and ``hold`` map updates
to updates. A loop is sealed in one node of its own, so that `batch` can give each member its own loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort, truncated_graph_inputs
from pytensor.scan.utils import until

from .checks import called, is_generator, scalar
from .updates import Updates


def like(value: Any, variable: Any) -> Any:
    """`value` with the type of `variable`: its dtype, and its static shape where that is known.

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
        value = value.astype(variable.type.dtype)
    if any(
        known is None and wanted is not None
        for known, wanted in zip(value.type.shape, variable.type.shape, strict=True)
    ):
        value = pt.specify_shape(value, variable.type.shape)
    return value


def repeat(body: Callable[..., tuple[Sequence[Any], Any]], start: Sequence[Any], steps: Any) -> list[Any]:
    """The last values of ``values, done = body(*values)``, run from `start` until `done` or for `steps` turns.

    What `body` reads beside its arguments is computed once, outside of the loop; random draws among it are the same in
    all turns.

    Parameters
    ----------
    body : callable
        From the values now, symbolic, to a list of the next values and a boolean scalar. The next values are cast to
        the types of `start`. Their shapes must not change.
    start : list of variables
        The values before the first turn. Random generators may be among them.
    steps : int or integer scalar variable
        The largest number of turns; may be 0 when the function runs, and the values are then those of `start`.

    Returns
    -------
    list of variables
    """
    start = [_as_variable(value) for value in start]
    now = [value.type() for value in start]
    following, done = body(*now)
    following = [like(value, variable) for value, variable in zip(following, now, strict=True)]
    outside = _frontier([*following, done], now)
    return _sealed_scan(following, done, now, start, outside, steps)


def when(condition: Any, body: Callable[[], Sequence[Any]], otherwise: Sequence[Any]) -> list[Any]:
    """The values of ``body()`` where the boolean scalar `condition` is true, else those of `otherwise`.

    Unlike a ``switch``, and under every linker, this does not compute the values of `body` where they are not wanted:
    it is a loop of one turn or none.
    """
    otherwise = [_as_variable(value) for value in otherwise]
    values = [like(value, variable) for value, variable in zip(body(), otherwise, strict=True)]
    now = [value.type() for value in otherwise]
    # Down to the roots of the graph, so that nothing of the body is computed before the condition is known.
    outside = [v for v in truncated_graph_inputs(values) if not isinstance(v, Constant)]
    return _sealed_scan(values, pt.constant(True), now, otherwise, outside, pt.switch(condition, 1, 0))


def loop(updates: Updates, steps: Any, stop: Any = None) -> Updates:
    """Many applications of `updates` as one: again a dictionary of updates, of the same variables.

    Parameters
    ----------
    updates : dict
        What a rule returned, perhaps joined and transformed.
    steps : int or integer scalar variable
        How many times `updates` is applied.
    stop : variable, optional
        A key of `updates`. The loop ends when it is positive (of a vector: when all elements are) and does nothing if
        it already is.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If `stop` has no update, or if `updates` reads a random generator and has no update that advances it: each step
        would see the same draws.
    """
    variables = list(updates)
    check_generators(updates)
    limit: Any = scalar("steps", steps, low=0).astype("int64")
    if stop is not None:
        if stop not in updates:
            raise ValueError(f"stop is the variable {called(stop)}, which has no update; pass it to the rule as well")
        limit = pt.switch(pt.all(pt.gt(stop, 0)), 0, limit)

    def body(*now: Any) -> tuple[list[Any], Any]:
        following = graph_replace(list(updates.values()), dict(zip(variables, now, strict=True)), strict=False)
        if stop is None:
            return following, pt.constant(False)
        return following, pt.all(following[variables.index(stop)] > 0)

    return dict(zip(variables, repeat(body, variables, limit), strict=True))


def hold(updates: Updates, condition: Any) -> Updates:
    """`updates` that leave their variables as they are while `condition` is true. Random generators go on.

    Parameters
    ----------
    updates : dict
        What a rule returned, perhaps joined and transformed.
    condition : boolean scalar variable

    Returns
    -------
    dict
    """
    condition = pt.as_tensor(condition)
    return {
        variable: value if is_generator(variable) else like(pt.switch(condition, variable, value), variable)
        for variable, value in updates.items()
    }


def check_generators(updates: Updates) -> None:
    """Every random generator that `updates` reads has an update.

    Raises
    ------
    ValueError
        If one has not.
    """
    for variable in ancestors(list(updates.values())):
        if variable.owner is None and is_generator(variable) and variable not in updates:
            raise ValueError(
                f"the random generator {called(variable)} is drawn from and never advanced, so that all steps "
                "would see the same draws; add {generator: next_generator} to updates"
            )


def _as_variable(value: Any) -> Any:
    """`value` as a variable; a number in NumPy's dtype for it, where PyTensor would take the smallest that holds it."""
    return value if isinstance(value, Variable) else pt.as_tensor(np.asarray(value))


def _frontier(outputs: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """The variables, constants apart, that stand between `inputs` and all that does not depend on them."""
    inner = set(inputs)
    found: dict[Any, None] = {}

    def take(variables: Iterable[Any]) -> None:
        for variable in variables:
            if variable not in inner and not isinstance(variable, Constant):
                found[variable] = None

    for node in toposort(outputs):
        if any(variable in inner for variable in node.inputs):
            inner.update(node.outputs)
            take(node.inputs)
    take(outputs)
    return list(found)


def _sealed_scan(following: Any, done: Any, now: Any, start: Any, outside: Any, steps: Any) -> list[Any]:
    """`repeat` for expressions: `following` and `done` of `now`, and of the variables `outside` of the loop."""
    steps = pt.as_tensor(steps).astype("int64")
    inner = [variable.type() for variable in outside]
    limit, begin = steps.type(), [variable.type() for variable in start]
    reads = [*now, *outside]

    def once(*values: Any) -> Any:
        *new, stopped = graph_replace([*following, done], dict(zip(reads, values, strict=True)), strict=False)
        return new, until(stopped)

    traces = pytensor.scan(
        once,
        outputs_info=begin,
        non_sequences=inner,
        n_steps=limit,
        strict=True,
        return_list=True,
        return_updates=False,
    )
    last = [_last(trace, variable) for trace, variable in zip(traces, now, strict=True)]
    node = OpFromGraph([*begin, *inner, limit], last, on_unused_input="ignore")
    values = node(*start, *outside, steps)
    return list(values) if isinstance(values, list | tuple) else [values]


def _last(trace: Any, variable: Any) -> Any:
    """The last value of a trace: the start if there was no turn.

    What ``scan`` returns is the trace without its start; the Op below it returns both.
    """
    if is_generator(variable):
        return trace
    return like(trace.owner.inputs[0][-1], variable)
