"""Functions of one data set, compiled for many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytensor

from .compat import compiled_of, is_compiled_by
from .loops import wide_graph


def for_members(function: Any, wide: Sequence[bool], kept: Sequence[int]) -> Callable[..., list[Any]]:
    """`function`, which numba or JAX has compiled, for each row of those of its arguments that are `wide`.

    Parameters
    ----------
    function : function of PyTensor
        With several outputs.
    wide : list of bool
        For each of its arguments, whether it gets an axis more in front.
    kept : list of int
        Which of the outputs are wanted.

    Returns
    -------
    callable
        From the arguments to a list of arrays with the axis in front. It may run in several threads at a time.
    """
    compiled, shared = compiled_of(function)
    backend = import_module(f"{__package__}.{'jax' if is_compiled_by(function, 'JAX') else 'threads'}")
    call = backend.for_members(compiled, [*wide, *[False] * len(shared())], kept)
    return lambda *arguments: list(call(*arguments, *shared()))


def vectorized(inputs: Sequence[Any], outputs: Sequence[Any], wide: Sequence[bool],
               mode: Any) -> Callable[..., list[Any]]:  # fmt: skip
    """The same for a graph, which is given the axis as a whole.

    Raises
    ------
    ValueError
        If it has operations that cannot be given one.
    """
    widened = {
        v: v.type.clone(shape=(None, *v.type.shape))(v.name) for v, is_wide in zip(inputs, wide, strict=True) if is_wide
    }
    try:
        ends = wide_graph(outputs, widened)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError("the graph cannot be given an axis more") from error
    if any(end.type.ndim != output.type.ndim + 1 for end, output in zip(ends, outputs, strict=True)):
        raise ValueError("a result does not depend on what is wide")
    function = pytensor.function([widened.get(v, v) for v in inputs], ends, mode=mode, on_unused_input="ignore")
    function.trust_input = True
    call: Callable[..., list[Any]] = function
    return call
