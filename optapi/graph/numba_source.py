"""A graph as the source of one function for numba, with what is inside of its loops.

LLVM optimizes each function together with all that it calls, so a loop whose body is a function of its own, and which
is itself called by a function, would be optimized again at each level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from hashlib import sha256
from math import exp, inf, log1p, sqrt
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils, imputils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array
from pytensor.compile.mode import NUMBA
from pytensor.graph.basic import Constant
from pytensor.link.numba.cache import compile_numba_function_src
from pytensor.link.numba.dispatch.basic import (
    cache_key_for_constant,
    numba_funcify_and_cache_key,
    numba_typify,
)
from pytensor.scalar import basic as scalar
from pytensor.scalar.basic import ScalarType, get_scalar_type
from pytensor.scalar.math import Sigmoid, Softplus
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot

from .compat import FUSED, REWRITES_INNER_GRAPHS, rewrite_owned
from .loops import Loop
from .products import known


VERSION = 8
# Operations with numbers, as they are written. As a call each would be a function to compile for every type, and leave
# a test of its status in the lines around it.
COMPARISONS = {scalar.LT: "<", scalar.GT: ">", scalar.LE: "<=", scalar.GE: ">=", scalar.EQ: "==", scalar.NEQ: "!="}
LOGIC = {scalar.AND: "{} & {}", scalar.OR: "{} | {}", scalar.Invert: "not {}"}
ARITHMETIC = {scalar.Sub: "{} - {}", scalar.Neg: "-{}", scalar.Sqr: "{0} * {0}"}
OF_FLOATS = {scalar.TrueDiv: "over({}, {})", scalar.Sqrt: "sqrt({})", scalar.Abs: "abs({})", scalar.IsNan: "{0} != {0}",
             scalar.IsInf: "abs({}) == inf"}  # fmt: skip
# Both by the same exponential of a number that is not positive, which LLVM computes once where a cost has the one and
# its gradient the other. PyTensor's softplus has branches, and takes twice the time.
BY_EXP = {Softplus: "select({0} > 0, {0}, zero_{1}) + log1p(exp(-abs({0})))",
          Sigmoid: "over(select({0} >= 0, one_{1}, exp(-abs({0}))), one_{1} + exp(-abs({0})))"}  # fmt: skip
SUMS = {scalar.Add: " + ", scalar.Mul: " * "}
NUMBERS = (("zero", 0), ("one", 1))
FLOATS, SIGNED = ("float32", "float64"), ("int8", "int32", "int64", "float32", "float64")


class Source:
    """Lines of Python, and the objects that they name.

    Parameters
    ----------
    whole : bool
        Whether arrays and whole numbers, which may depend on sizes, are not written into the function; it then takes
        them as further arguments.

    Attributes
    ----------
    lifted : dict
        These arguments, by name.
    """

    def __init__(self, whole: bool = False):
        self.whole = whole
        self.lifted: dict[str, Any] = {}
        # What PyTensor passes on, from one graph to those inside of it.
        self.options: dict[str, Any] = {"ofg_memo": {}}
        self.lines: list[str] = []
        self.indent = "    "
        self.names = 0
        self.objects: dict[str, Any] = {"fresh": fresh, "contiguous": contiguous, "of_blas": of_blas, "dot": np.dot}
        self.objects |= {"over": over, "select": select, "shuffled": shuffled, "sqrt": sqrt, "inf": inf}
        self.objects |= {"exp": exp, "log1p": log1p}
        self.objects |= {f"{name}_{dtype}": np.dtype(dtype).type(value) for dtype in FLOATS for name, value in NUMBERS}
        # The key of each object, and its name; of one without a key nothing can be kept.
        self.known: dict[str, str] = {}
        self.has_keys = True

    def new(self, letter: str) -> str:
        """A name that nothing else has."""
        self.names += 1
        return f"{letter}{self.names}"

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def object(self, letter: str, value: Any, key: str | None) -> str:
        """The name of `value`, which is that of an earlier one with the same key."""
        if key is None:
            self.has_keys = False
        elif key in self.known:
            return self.known[key]
        name = self.new(letter)
        self.objects[name] = value
        if key is not None:
            self.known[key] = name
        return name

    def constant(self, variable: Any) -> str:
        """The name of a constant."""
        data = variable.data
        key = f"{getattr(variable.type, 'dtype', variable.type)} {cache_key_for_constant(data)}"
        if not self.whole or not isinstance(data, np.ndarray | np.integer) or not is_of_sizes(data):
            return self.object("c", numba_typify(data, variable=variable), key)
        if key not in self.known:
            if isinstance(data, np.ndarray):
                data = np.array(data)
                # It may not be written over, by which numba tells constants.
                data.flags.writeable = False
            self.known[key] = self.new("a")
            self.lifted[self.known[key]] = data
        return self.known[key]

    def write(self, fgraph: Any, inputs: Sequence[str]) -> list[str]:
        """Write the lines of `fgraph`, and return the names of its outputs."""
        names: dict[Any, str] = dict(zip(fgraph.inputs, inputs, strict=True))

        def name_of(variable: Any) -> str:
            if variable not in names and isinstance(variable, Constant):
                names[variable] = self.constant(variable)
            return names[variable]

        for node in fgraph.toposort():
            values = list(map(name_of, node.inputs))
            if isinstance(node.op, Loop):
                results = self.loop(node.op, values)
            elif isinstance(node.op, scalar.Composite):
                results = self.write(node.op.fgraph, values)
            elif (text := written(node, values)) is not None:
                results = [self.new("v")]
                self.line(f"{results[0]} = {text}")
            elif isinstance(node.op, DimShuffle) and 0 < node.inputs[0].type.ndim < 10:
                results = [self.new("v")]
                self.line(f"{results[0]} = shuffled({values[0]}, {''.join(map(str, node.op.new_order))!r})")
            elif isinstance(node.op, Dot) and is_product(*node.inputs) and (self.whole or known(*node.inputs)):
                # Numba's own, which compiles in half a second where PyTensor's takes several, and says less of shapes.
                results = [self.new("v")]
                self.line(f"{results[0]} = dot({', '.join(map('of_blas({})'.format, values))})")
            else:
                results = [self.new("v") for _ in node.outputs]
                # On disk it is with the lines alone; kept by itself too, numba would compile it twice.
                call, key = numba_funcify_and_cache_key(with_lines(node), node=node, **self.options)
                # PyTensor's key is one of several that numba's types of the arguments distinguish.
                key = key and f"{key} {[kind(v.type) for v in node.inputs]}"
                called = self.object("f", call, key)
                self.line(f"{', '.join(results)} = {called}({', '.join(values)})")
            names |= zip(node.outputs, results, strict=True)
        return list(map(name_of, fgraph.outputs))

    def loop(self, op: Loop, inputs: Sequence[str]) -> list[str]:
        """Write a loop, and return the names of its last values."""
        inner: Any = op.fgraph
        count = len(inner.outputs) - 1
        if not REWRITES_INNER_GRAPHS:
            inner = inner.clone()
            # Else the graph inside of Softmax is recognized as a softmax, and so on for ever.
            rewrite_owned(inner, count, NUMBA.excluding("symbolic_op_recognition").optimizer)
        state, turn, limit = [self.new("s") for _ in range(count)], self.new("n"), self.new("n")
        # A variable has one type: what it begins with and what a turn gives must both be contiguous, or numba would
        # compile for each what is done with them.
        numbers = [isinstance(variable.type, ScalarType) for variable in inner.inputs[:count]]
        for name, first, is_number in zip(state, inputs, numbers, strict=False):
            self.line(f"{name} = {first}" if is_number else f"{name} = fresh({first})")
        self.line(f"{turn} = 0")
        self.line(f"{limit} = {inputs[-1]}.item()")
        self.line(f"while {turn} < {limit}:")
        outside, self.indent = self.indent, self.indent + "    "
        *next_values, done = self.write(inner, [*state, *inputs[count:-1]])
        # All at once, since one may be what another was.
        ends = [
            value if is_number else f"contiguous({value})"
            for value, is_number in zip(next_values, numbers, strict=True)
        ]
        self.line(f"{', '.join(state)} = {', '.join(ends)}")
        self.line(f"if {done}:")
        self.line("    break")
        self.line(f"{turn} += 1")
        self.indent = outside
        return state

    def function(self, name: str, inputs: Sequence[str], result: str) -> tuple[Callable[..., Any], str | None]:
        """A function that numba can compile, and the key that tells it from others, if there is one."""
        head, end = f"def {name}({', '.join([*inputs, *self.lifted])}):", f"    return {result}"
        source = "\n".join([head, *self.lines, end])
        known = [(key, name) for key, name in self.known.items() if name not in self.lifted]
        key = sha256(f"{VERSION} {source} {known}".encode()).hexdigest() if self.has_keys else None
        return compile_numba_function_src(source, name, {**self.objects, "__name__": __name__}), key


class Lines(scalar.Composite):
    """Operations with numbers as one function, which calls none for those that are `written`."""


def with_lines(node: Any) -> Any:
    """The operation of `node`; of an elementwise one, also with sums, the function is of `Lines` where it can be."""
    op = node.op
    if isinstance(op, Elemwise) and type(op.scalar_op) is scalar.Composite:
        return Elemwise(Lines(op.scalar_op.inputs, op.scalar_op.outputs), inplace_pattern=op.inplace_pattern)
    if isinstance(op, Elemwise) and type(op.scalar_op) in BY_EXP:
        number = get_scalar_type(node.inputs[0].type.dtype)()
        return Elemwise(Lines([number], [op.scalar_op(number)]), inplace_pattern=op.inplace_pattern)
    if not isinstance(op, FUSED):
        return op
    inner: Any = op.fgraph.unfreeze()
    [node] = [node for node in inner.apply_nodes if isinstance(node.op, Elemwise)]
    outputs = with_lines(node).make_node(*node.inputs).outputs
    inner.replace_all(list(zip(node.outputs, outputs, strict=True)), import_missing=True)
    new = copy(op)
    new.fgraph = inner
    return new


def kind(type: Any) -> tuple[Any, ...]:
    """What numba makes a difference of in a type of PyTensor: not the sizes."""
    return type.__class__.__name__, getattr(type, "dtype", None), getattr(type, "ndim", None)


def written(node: Any, values: Sequence[str]) -> str | None:
    """An operation with numbers as numba can read it, of which numba makes the same type as PyTensor; else None."""
    op, types = type(node.op), {getattr(variable.type, "dtype", None) for variable in node.inputs}
    if not all(isinstance(variable.type, ScalarType) for variable in [*node.inputs, *node.outputs]):
        return None
    result = node.outputs[0].type.dtype
    if op in COMPARISONS and types <= set(SIGNED):
        return f" {COMPARISONS[op]} ".join(values)
    if op is scalar.Switch and node.inputs[0].type.dtype == "bool":
        same = {node.inputs[1].type.dtype, node.inputs[2].type.dtype, result}
        return f"select({', '.join(values)})" if len(same) == 1 else None
    if op in LOGIC and types == {"bool"} and len(values) <= 2:
        return LOGIC[op].format(*values)
    if types <= set(FLOATS) and len(types) == 1 and op in OF_FLOATS and result in (*types, "bool"):
        return OF_FLOATS[op].format(*values)
    if op in BY_EXP and types == {result} and result in FLOATS:
        return BY_EXP[op].format(*values, result)
    if types in ({"int64"}, {"float32"}, {"float64"}) and types == {result}:
        return SUMS[op].join(values) if op in SUMS else ARITHMETIC[op].format(*values) if op in ARITHMETIC else None
    return None


def is_product(a: Any, b: Any) -> bool:
    """Whether both are matrices of the same type that BLAS multiplies."""
    return a.type.ndim == b.type.ndim == 2 and a.type.dtype == b.type.dtype in ("float32", "float64")


def is_of_sizes(data: Any) -> bool:
    """Whether a constant may depend on sizes: an array, or a whole number beyond 1."""
    return data.size > 1 or (data.dtype.kind in "iu" and data.size == 1 and abs(int(data.flat[0])) > 1)


def fresh(x):  # type: ignore[no-untyped-def]
    """A contiguous copy of an array; anything else as it is."""
    raise NotImplementedError


def contiguous(x):  # type: ignore[no-untyped-def]
    """An array itself if it is known to be contiguous, and not a constant, else a copy; anything else as it is."""
    raise NotImplementedError


def of_blas(x):  # type: ignore[no-untyped-def]
    """A matrix itself if it is known to be contiguous by rows or by columns, else a copy."""
    raise NotImplementedError


@intrinsic
def select(typing_context, condition, x, y):  # type: ignore[no-untyped-def]
    """One of two numbers, without a branch."""
    number = typing_context.unify_types(x, y)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.select(*values)

    return number(types.boolean, number, number), generate


@intrinsic
def over(typing_context, a, b):  # type: ignore[no-untyped-def]
    """A quotient; by 0 infinite or NaN, where numba's raises."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.fdiv(*values)

    return a(a, a), generate


@intrinsic(prefer_literal=True)
def shuffled(typing_context, array, order):  # type: ignore[no-untyped-def]
    """An array with its axes in another order, of which "x" is a new one; no axis that is left out has an extent."""
    axes = [None if axis == "x" else int(axis) for axis in order.literal_value]
    kept = [axis for axis in axes if axis is not None]
    layout = array.layout if kept == sorted(kept) and array.layout != "F" else "A"
    if kept == [1, 0] and len(axes) == 2:
        layout = {"C": "F", "F": "C"}.get(array.layout, "A")
    result = array.copy(ndim=len(axes), layout=layout)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        old, new = context.make_array(array)(context, builder, values[0]), context.make_array(result)(context, builder)
        shape, strides = (cgutils.unpack_tuple(builder, part) for part in (old.shape, old.strides))
        populate_array(
            new,
            data=old.data,
            shape=[context.get_constant(types.intp, 1) if axis is None else shape[axis] for axis in axes],
            strides=[old.itemsize if axis is None else strides[axis] for axis in axes],
            itemsize=old.itemsize,
            meminfo=old.meminfo,
            parent=old.parent,
        )
        return imputils.impl_ret_borrowed(context, builder, result, new._getvalue())

    return result(array, order), generate


@overload(fresh)
def _fresh(x):  # type: ignore[no-untyped-def]
    if not isinstance(x, types.Array):
        return lambda x: x
    if x.ndim == 0 or x.layout == "C":
        return lambda x: np.copy(x)
    return lambda x: np.ascontiguousarray(x).copy()


@overload(contiguous)
def _contiguous(x):  # type: ignore[no-untyped-def]
    if not isinstance(x, types.Array) or (x.layout == "C" and x.mutable):
        return lambda x: x
    if x.ndim == 0:
        return lambda x: np.copy(x)
    if not x.mutable:
        return lambda x: np.ascontiguousarray(x).copy()
    return lambda x: np.ascontiguousarray(x)


@overload(of_blas)
def _of_blas(x):  # type: ignore[no-untyped-def]
    if x.layout in "CF":
        return lambda x: x
    return lambda x: np.ascontiguousarray(x)
