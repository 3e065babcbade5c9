"""Functions compiled by numba that let other threads of Python run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pytensor
from numba import carray, from_dtype, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from pytensor import config
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.traversal import graph_inputs
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS, compile_numba_function_src
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker
from pytensor.tensor.basic import scalar_from_tensor

from .compat import compiled_of, linked_by
from .external import EVALUATION, FUNCTIONS, PRODUCT
from .numba import returned
from .numba_source import Source
from .replace import replaced
from .waiting import WAITING


# What numba takes for a line, which mostly calls an operation, to say so beforehand.
SECONDS = 1 / 45


class FreeNumbaLinker(NumbaLinker):
    """PyTensor's linker for numba, whose functions give up Python's global lock while they run.

    Parameters
    ----------
    name : str
        What is compiled, for the line that says so where it will take long.

    Attributes
    ----------
    lifted : list
        Arguments that the compiled function takes after those of the graph, see `Source`.
    """

    is_whole = False
    # Whether Python calls what is compiled; numba's cache does not tell functions by what they may do.
    is_final, key = True, "free"

    def __init__(self, name: str = "a function"):
        super().__init__()
        self.label = name

    def fgraph_convert(self, fgraph: Any, **options: Any) -> Any:  # type: ignore[override]
        source = Source(self.is_whole)
        inputs, result = self.write(source, fgraph)
        self.lifted, self.lines = list(source.lifted.values()), len(source.lines)
        return source.function("optapi_function", inputs, result)

    def write(self, source: Source, fgraph: Any) -> tuple[list[str], str]:
        """Write the lines of the function, and return the names of its arguments, and what it returns."""
        inputs = [source.new("x") for _ in fgraph.inputs]
        return inputs, "".join(f"{output}, " for output in source.write(fgraph, inputs))

    def jit_compile(self, fn_and_cache: Any) -> Any:
        function, key = fn_and_cache
        if key is not None:
            CACHED_SRC_FUNCTIONS[function] = f"{key}_{self.key}_fastmath{int(config.numba__fastmath)}"
        compiled = numba_njit(function, final_function=self.is_final, cache=key is not None, nogil=True)
        self.announce(compiled)
        return compiled

    def announce(self, compiled: Any) -> None:
        """Say that numba will take more than two seconds, for what is not on disk."""
        kept = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
        seconds = SECONDS * self.lines
        if seconds > 2 and not (kept and kept._load_index()):
            about = 5 * round(seconds / 5) or round(seconds)
            sys.stderr.write(
                f"optapi: numba compiles {self.label} for about {about} s, the first time; mode='JAX' and "
                "mode=optapi.PYTHON begin sooner\n"
            )
            waiting = WAITING.get()
            if waiting is not None:
                waiting(self.label, about)


class WholeLinker(FreeNumbaLinker):
    """The linker of a function that is the same for all costs, and is found on disk as a whole."""

    is_whole = True


class ExternalLinker(FreeNumbaLinker):
    """The linker of a function that is called through its address, see `external`.

    It takes the first of the inputs and a link, in which it finds the others.
    """

    is_final, key = False, "external"

    def __init__(self, count: int, name: str = "a cost"):
        super().__init__(name)
        self.count = count

    def write(self, source: Source, fgraph: Any) -> tuple[list[str], str]:
        source.objects |= {"carray": carray, "pointer": pointer, "np": np}
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
        return [*given, link], ", ".join(f"contiguous({name})" for name in source.write(fgraph, inputs))

    def jit_compile(self, fn_and_cache: Any) -> Any:
        compiled = super().jit_compile(fn_and_cache)
        fgraph: Any = self.fgraph
        vectors = [types.Array(from_dtype(np.dtype(v.type.dtype)), 1, "C") for v in fgraph.inputs[: self.count]]
        compiled.compile((*vectors, types.Array(types.int64, 1, "C")))
        return compiled


class Link:
    """Functions of a cost that are called through their addresses, and what they read.

    Parameters
    ----------
    point, vector : vector variables
    cost, gradient : variables
        The cost at `point`, and its gradient.
    product : variable or None
        The product of the second derivatives there with `vector`, if it is needed.
    inputs : list of variables
        What the cost may read beside shared variables.
    mode : PyTensor mode
        With numba's linker.

    Attributes
    ----------
    own : array of int64
        The link, without what the functions read.
    """

    def __init__(
        self, point: Any, vector: Any, cost: Any, gradient: Any, product: Any, inputs: Sequence[Any], mode: Any
    ):
        graphs = {EVALUATION: ([point], [scalar_from_tensor(cost), gradient])}
        if product is not None:
            graphs[PRODUCT] = ([point, vector], [product])
        below = list(graph_inputs([output for _, outputs in graphs.values() for output in outputs]))
        self._explicit = [place for place, variable in enumerate(inputs) if variable in below]
        shared = [variable for variable in below if isinstance(variable, SharedVariable)]
        self._containers = [variable.container for variable in shared]
        data = [*(inputs[place] for place in self._explicit), *shared]
        inside = [variable.type() for variable in data]
        self._ndims = [variable.type.ndim for variable in data]
        self.own = np.zeros(FUNCTIONS + sum(1 + ndim for ndim in self._ndims), "int64")
        # What is compiled exists as long as the functions.
        self._functions = []
        for place, (vectors, outputs) in graphs.items():
            results = replaced(outputs, dict(zip(data, inside, strict=True)))
            apart = linked_by(ExternalLinker(len(vectors)), mode)
            function: Any = pytensor.function([*vectors, *inside], results, mode=apart, on_unused_input="ignore")
            self._functions.append(function)
            [compiled] = function.vm.jit_fn.overloads.values()
            if compiled.signature.return_type != returned(place, gradient.type.dtype, cost.type.dtype):
                raise TypeError(f"the cost returns {compiled.signature.return_type}")  # which no caller expects
            self.own[place] = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)

    def __call__(self, inputs: Sequence[Any], rows: int | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """The link with these inputs, and the arrays in it, which have to exist as long as it is used.

        With `rows` it is one in each row of a matrix, for inputs some of which have as many rows.
        """
        arrays = [np.asarray(inputs[place], order="C") for place in self._explicit]
        arrays += [np.asarray(container.storage[0], order="C") for container in self._containers]
        if not arrays:
            return self.own, arrays
        link, place = self.own.copy() if rows is None else np.tile(self.own, (rows, 1)), FUNCTIONS
        for array, ndim in zip(arrays, self._ndims, strict=True):
            link[..., place] = array.ctypes.data
            if array.ndim > ndim:
                link[..., place] += np.arange(len(array)) * array.strides[0]
            link[..., place + 1 : place + 1 + ndim] = array.shape[array.ndim - ndim :]
            place += 1 + ndim
        return link, arrays


def compile_for(function: Any, arguments: Sequence[Any]) -> None:
    """Compile `function`, which a `FreeNumbaLinker` has linked, for arguments of these types."""
    compiled, shared = compiled_of(function)
    compiled.compile(tuple(map(typeof, [*arguments, *shared()])))  # type: ignore[attr-defined]


def whole(function: Any) -> tuple[Callable[..., Any], list[Any]]:
    """What a `WholeLinker` has compiled for `function`, and the further arguments that it takes."""
    return function.vm.jit_fn, function.maker.linker.lifted


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
