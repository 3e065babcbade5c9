"""Functions compiled by numba that let other threads of Python run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numba.extending import overload
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS, compile_numba_function_src
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker


class FreeNumbaLinker(NumbaLinker):
    """PyTensor's linker for numba, whose functions give up Python's global lock while they run."""

    def jit_compile(self, fn_and_cache: Any) -> Any:
        function, key = fn_and_cache
        if key is not None:
            # Numba's cache does not tell a function with the lock from one without.
            CACHED_SRC_FUNCTIONS[function.py_func] = f"{CACHED_SRC_FUNCTIONS[function.py_func]}free"
        return numba_njit(function.py_func, final_function=True, cache=key is not None, nogil=True)


def for_members(function: Any, wide: Sequence[bool], kept: Sequence[int]) -> Callable[..., Any]:
    """`function` for each row of the arguments that are `wide`, one after another; see `members.for_members`."""
    names = [f"x{i}" for i in range(len(wide))]
    rows = [", ".join(f"row({x}, {i})" if w else x for x, w in zip(names, wide, strict=True)) for i in ("0", "i")]
    source = f"""
def members({", ".join(names)}):
    count = {names[list(wide).index(True)]}.shape[0]
    first = function({rows[0]})
    {"; ".join(f"y{place} = np.empty((count,) + first[{place}].shape, first[{place}].dtype)" for place in kept)}
    {"; ".join(f"put(y{place}, 0, first[{place}])" for place in kept)}
    for i in range(1, count):
        next = function({rows[1]})
        {"; ".join(f"put(y{place}, i, next[{place}])" for place in kept)}
    return {", ".join(f"y{place}" for place in kept)},
"""
    key = CACHED_SRC_FUNCTIONS.get(function.py_func)
    key = key and sha256(f"{source}{key}".encode()).hexdigest()
    # Without the name of a module numba cannot read what it has cached.
    known = {"function": function, "row": row, "put": put, "np": np, "__name__": __name__}
    members = compile_numba_function_src(source, "members", known, cache_key=key)
    call: Callable[..., Any] = numba_njit(members, final_function=True, cache=key is not None, nogil=True)
    return call


@numba_njit
def row(x, i):  # type: ignore[no-untyped-def]
    """The row `i` of an array, as an array also where it is a number."""
    return np.asarray(x[i])


def put(x, i, value):  # type: ignore[no-untyped-def]
    """Set the row `i` of an array to another array."""
    raise NotImplementedError


@overload(put)
def _put(x, i, value):  # type: ignore[no-untyped-def]
    def number(x, i, value):  # type: ignore[no-untyped-def]
        x[i] = value[()]

    def array(x, i, value):  # type: ignore[no-untyped-def]
        x[i] = value

    return array if value.ndim else number
