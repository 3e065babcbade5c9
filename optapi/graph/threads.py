"""Functions compiled by numba that let other threads of Python run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numba import carray, from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from pytensor import config
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS, compile_numba_function_src
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker

from .external import FUNCTIONS
from .numba_source import Source, contiguous


class FreeNumbaLinker(NumbaLinker):
    """PyTensor's linker for numba, whose functions give up Python's global lock while they run.

    Attributes
    ----------
    lifted : list
        Arguments that the compiled function takes after those of the graph, see `Source`.
    """

    is_whole = False

    def fgraph_convert(self, fgraph: Any, **options: Any) -> Any:
        source = Source(self.is_whole)
        inputs = [source.new("x") for _ in fgraph.inputs]
        outputs = source.write(fgraph, inputs)
        self.lifted = list(source.lifted.values())
        return source.function("optapi_function", inputs, "".join(f"{output}, " for output in outputs))

    def jit_compile(self, fn_and_cache: Any) -> Any:
        function, key = fn_and_cache
        if key is not None:
            # Numba's cache does not tell functions by what they may do.
            CACHED_SRC_FUNCTIONS[function] = f"{key}_free_fastmath{int(config.numba__fastmath)}"
        return numba_njit(function, final_function=True, cache=key is not None, nogil=True)


class WholeLinker(FreeNumbaLinker):
    """The linker of a function that is the same for all costs, and is found on disk as a whole."""

    is_whole = True


class ExternalLinker(FreeNumbaLinker):
    """The linker of a function that is called through its address, see `external`.

    It takes the first of the inputs and a link, in which it finds the others.
    """

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def fgraph_convert(self, fgraph: Any, **options: Any) -> Any:
        source = Source()
        source.objects |= {"carray": carray, "pointer": pointer, "contiguous": contiguous, "np": np}
        given, link = [source.new("x") for _ in range(self.count)], source.new("x")
        place, inputs = FUNCTIONS, list(given)
        for variable in fgraph.inputs[self.count :]:
            name, (dtype, ndim) = source.new("x"), (variable.type.dtype, variable.type.ndim)
            shape = "".join(f"{link}[{place + 1 + axis}], " for axis in range(ndim))
            source.line(f"{name} = carray(pointer({link}[{place}]), ({shape or '1, '}), np.dtype('{dtype}'))")
            if ndim == 0:
                source.line(f"{name} = {name}.reshape(())")
            place += 1 + ndim
            inputs.append(name)
        outputs = [f"contiguous({name})" for name in source.write(fgraph, inputs)]
        return source.function("optapi_cost", [*given, link], ", ".join(outputs))

    def jit_compile(self, fn_and_cache: Any) -> Any:
        function, key = fn_and_cache
        vectors = [types.Array(from_dtype(np.dtype(v.type.dtype)), 1, "C") for v in self.fgraph.inputs[: self.count]]
        if key is not None:
            CACHED_SRC_FUNCTIONS[function] = f"{key}_external_fastmath{int(config.numba__fastmath)}"
        compiled: Any = numba_njit(function, cache=key is not None, nogil=True)
        compiled.compile((*vectors, types.Array(types.int64, 1, "C")))
        return compiled


def address_of(function: Any) -> int:
    """Where what an `ExternalLinker` has compiled begins, as long as `function` exists."""
    [compiled] = function.vm.jit_fn.overloads.values()
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


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
