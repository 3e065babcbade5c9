"""A linker that writes a graph out as one Python function of NumPy calls.

PyTensor's own Python linker calls each node through several layers; where the arrays are small, that is most of the
time that a step takes. Here a node is one line, ``v7 = f7(v3, v5)`` with ``f7`` for instance `numpy.add`, a scalar is a
NumPy scalar and its arithmetic that of Python, ``v9 = v7 * v8``, a choice between two arrays copies neither, and a
temporary is dropped where it is used last. Nodes of other kinds are called as PyTensor calls them.

What a function returns may be an array that it was given. So it is for those who change no array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
from pytensor.graph.basic import Constant
from pytensor.graph.rewriting.basic import MergeOptimizer
from pytensor.link.basic import JITLinker
from pytensor.scalar import basic as scalars
from pytensor.tensor.basic import Alloc, Join
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.subtensor import Subtensor, unflatten_index_variables
from pytensor.tensor.type import TensorType

from .compat import in_python, inner_graph, universal_function
from .loops import Loop, is_scalar


# Of scalars.
EXPRESSIONS = {
    scalars.Add: "{0} + {1}",
    scalars.Sub: "{0} - {1}",
    scalars.Mul: "{0} * {1}",
    scalars.TrueDiv: "{0} / {1}",
    scalars.Sqr: "{0} * {0}",
    scalars.Neg: "-{0}",
    scalars.Abs: "abs({0})",
    scalars.LT: "{0} < {1}",
    scalars.LE: "{0} <= {1}",
    scalars.GT: "{0} > {1}",
    scalars.GE: "{0} >= {1}",
    scalars.EQ: "{0} == {1}",
    scalars.NEQ: "{0} != {1}",
    scalars.IsNan: "{0} != {0}",
    scalars.IsInf: "abs({0}) == inf",
    scalars.AND: "{0} & {1}",
    scalars.OR: "{0} | {1}",
    scalars.Invert: "~{0}",
    scalars.Switch: "{1} if {0} else {2}",
    scalars.Identity: "{0}",
}


class NumpyLinker(JITLinker):
    """See the module. It is for graphs without operations in place."""

    def fgraph_convert(  # type: ignore[override]
        self, fgraph: Any, order: Any = None, **kwargs: Any
    ) -> Callable[..., Any]:
        function = written_out(fgraph, order)
        narrow = [position for position, variable in enumerate(fgraph.inputs) if is_scalar(variable)]
        wide = [position for position, variable in enumerate(fgraph.outputs) if is_scalar(variable)]

        def run(*arrays: Any) -> Any:
            values = list(arrays)
            for position in narrow:
                values[position] = values[position][()]
            with np.errstate(all="ignore"):
                results = function(*values)
            for position in wide:
                results[position] = np.asarray(results[position])
            return results

        return run

    def jit_compile(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return fn

    def create_thunk_inputs(self, storage_map: Any) -> list[Any]:
        fgraph: Any = self.fgraph
        return [storage_map[variable] for variable in fgraph.inputs]


def written_out(fgraph: Any, order: Sequence[Any]) -> Callable[..., Any]:
    """A function from the values of the inputs of `fgraph` to a list of those of its outputs."""
    namespace: dict[str, Any] = {"inf": np.inf}
    names: dict[Any, str] = {}

    def name_of(variable: Any) -> str:
        if variable not in names:
            names[variable] = f"v{len(names)}"
            if isinstance(variable, Constant):
                namespace[names[variable]] = variable.data[()] if is_scalar(variable) else variable.data
        return names[variable]

    # From the end, to find the nodes that are needed, and for each the variables that are used nowhere after it.
    needed = {*fgraph.outputs}
    nodes = []
    for node in reversed(order):
        if needed.intersection(node.outputs):
            inputs = arguments(node)
            nodes.append((node, inputs, [v for v in {*inputs, *node.outputs} if v not in needed]))
            needed.update(inputs)

    lines = [f"def run({', '.join(map(name_of, fgraph.inputs))}):"]
    for number, (node, inputs, dropped) in enumerate(reversed(nodes)):
        values = list(map(name_of, inputs))
        expression, several = scalar_expression(node), False
        if expression is None:
            function = converted(node)
            several = isinstance(function, Called | Looped)
            if is_filled(node) and isinstance(inputs[0], Constant):
                namespace[f"f{number}"] = function(inputs[0].data)
                expression = f"f{number}"
            else:
                namespace[f"f{number}"] = function
                expression = f"f{number}({', '.join(values)})"
                if is_scalar(node.outputs[0]) and not several:
                    expression += "[()]"
        lines.append(f"    {', '.join(map(name_of, node.outputs))}{',' * several} = {expression.format(*values)}")
        dropped = [v for v in dropped if not isinstance(v, Constant)]
        if dropped:
            lines.append(f"    del {', '.join(map(name_of, dropped))}")
    lines.append(f"    return [{', '.join(map(name_of, fgraph.outputs))}]")
    exec(compile("\n".join(lines), f"<{__name__}>", "exec"), namespace)
    return namespace["run"]


def arguments(node: Any) -> list[Any]:
    """The inputs of `node`, with scalars in place of those that are widened for an elementwise function alone."""
    if not isinstance(node.op, Elemwise) or None in node.outputs[0].type.shape:
        return node.inputs
    shape = node.outputs[0].type.shape
    if is_filled(node):
        return [narrowed(node.inputs[1])]
    inputs = list(map(narrowed, node.inputs))
    # The others have to make up the shape.
    known: Any = [v.type.shape for v in inputs if isinstance(v.type, TensorType) and None not in v.type.shape]
    return inputs if known and np.broadcast_shapes(*known) == shape else node.inputs


def is_filled(node: Any) -> bool:
    """Whether the output of `node` is an array of a known shape that is filled with its second input."""
    known = isinstance(node.op, Elemwise) and None not in node.outputs[0].type.shape
    return known and isinstance(node.op.scalar_op, scalars.Second)


def narrowed(variable: Any) -> Any:
    """The scalar that `variable` is, with dimensions of extent 1; or `variable`."""
    node = variable.owner
    if node is not None and isinstance(node.op, DimShuffle) and is_scalar(node.inputs[0]):
        return node.inputs[0]
    return variable


class Looped:
    """A loop as a function from the values of its inputs to a list of those of its outputs."""

    def __init__(self, op: Loop):
        inner = inner_graph(op)
        MergeOptimizer().rewrite(inner)
        self.turn = written_out(inner, inner.toposort())
        self.count = len(op.inner_outputs) - 1

    def __call__(self, *values: Any) -> Any:
        now, given, steps = values[: self.count], values[self.count : -1], int(values[-1])
        for _ in range(steps):
            *now, done = self.turn(*now, *given)
            if done:
                break
        return now


class Called:
    """A node as PyTensor calls it: a function from the values of its inputs to a list of those of its outputs."""

    def __init__(self, node: Any):
        variables = [*dict.fromkeys(node.inputs), *node.outputs]
        storage: dict[Any, list[Any]] = {variable: [None] for variable in variables}
        computed: dict[Any, list[bool]] = {variable: [variable.owner is not node] for variable in variables}
        node.op = in_python(node.op)
        self.thunk = node.op.make_thunk(node, storage, computed, [], impl="py")
        if getattr(self.thunk, "lazy", False):
            raise NotImplementedError(f"{node.op} computes lazily, which {NumpyLinker.__name__} does not")
        self.inputs = [(storage[variable], is_scalar(variable)) for variable in node.inputs]
        self.outputs = [(storage[variable], is_scalar(variable)) for variable in node.outputs]

    def __call__(self, *values: Any) -> list[Any]:
        for (cell, scalar), value in zip(self.inputs, values, strict=True):
            cell[0] = np.asarray(value) if scalar else value
        self.thunk()
        results = [cell[0][()] if scalar else cell[0] for cell, scalar in self.outputs]
        for cell, _ in (*self.inputs, *self.outputs):
            cell[0] = None
        return results


def scalar_expression(node: Any) -> str | None:
    """The expression for a `node` of scalars, if there is one."""
    if not isinstance(node.op, Elemwise):
        return None
    if not all(map(is_scalar, node.inputs)):
        return choice(node)
    op, dtypes, dtype = node.op.scalar_op, [v.type.dtype for v in node.inputs], node.outputs[0].type.dtype
    if isinstance(op, scalars.Add | scalars.Mul) and all(other == dtype for other in dtypes):
        sign = " + " if isinstance(op, scalars.Add) else " * "
        return sign.join(f"{{{position}}}" for position in range(len(dtypes)))
    expression = EXPRESSIONS.get(type(op))
    if isinstance(op, scalars.Switch):
        return expression if dtypes[1] == dtypes[2] == dtype else None
    if isinstance(op, scalars.Second):
        return "{0}" if dtypes[-1] == dtype else None  # see `arguments`
    if isinstance(op, scalars.Identity):
        return expression
    return expression if expression is not None and universal_function(op, dtypes, dtype) is not None else None


def choice(node: Any) -> str | None:
    """The expression for one of two arrays, where a scalar says which; neither is copied."""
    if not isinstance(node.op.scalar_op, scalars.Switch):
        return None
    condition, *branches = arguments(node)
    output = node.outputs[0].type
    fits = all(v.type.dtype == output.dtype and v.type.shape == output.shape for v in branches)
    return "{1} if {0} else {2}" if is_scalar(condition) and fits and None not in output.shape else None


def converted(node: Any) -> Callable[..., Any]:
    """A function from the values of a node's inputs to that of its output, or a `Looped` or `Called`."""
    if isinstance(node.op, Loop):
        return Looped(node.op)
    kinds = TensorType | scalars.ScalarType
    if all(isinstance(variable.type, kinds) for variable in [*node.inputs, *node.outputs]):
        for function in candidates(node):
            return function
    return Called(node)


def candidates(node: Any) -> Iterator[Callable[..., Any]]:
    """The function for a node, if it has one that gives the dtype that is declared."""
    op, dtypes, dtype = node.op, [variable.type.dtype for variable in node.inputs], node.outputs[0].type.dtype
    same = all(other == dtype for other in dtypes)
    if isinstance(op, Elemwise) and not op.inplace_pattern and len(node.outputs) == 1:
        yield from elementwise(op.scalar_op, dtypes, node.outputs[0].type)
    elif isinstance(op, CAReduce) and dtypes[0] == dtype and op.acc_dtype in (None, dtype):
        axis, fold = op.axis, op.ufunc.reduce
        yield lambda x: fold(x, axis=axis, dtype=dtype)
    elif isinstance(op, DimShuffle) and not op.drop:
        index = tuple(None if entry == "x" else slice(None) for entry in op.new_order)
        shuffle = tuple(op.shuffle)
        if shuffle == tuple(range(len(shuffle))):
            yield lambda x: x[index]
        else:
            yield lambda x: x.transpose(shuffle)[index]
    elif isinstance(op, Subtensor):
        entries = op.idx_list
        if all(isinstance(variable, Constant) for variable in node.inputs[1:]):
            place = tuple(unflatten_index_variables([v.data.item() for v in node.inputs[1:]], entries))
            yield lambda x, *constants: x[place]
        else:
            yield lambda x, *places: x[tuple(unflatten_index_variables(places, entries))]
    elif isinstance(op, Alloc) and dtypes[0] == dtype:
        yield lambda value, *shape: np.full(shape, value)
    elif isinstance(op, Join) and same and isinstance(along := getattr(op, "axis", None), int):
        yield lambda *parts: np.concatenate(parts, axis=along)


def elementwise(op: Any, dtypes: list[str], output: Any) -> Iterator[Callable[..., Any]]:
    """The function for an elementwise node of the scalar `op`."""
    dtype, shape = output.dtype, output.shape
    if isinstance(op, scalars.Cast):
        yield lambda x: x.astype(dtype)
    elif isinstance(op, scalars.Identity):
        yield lambda x: x.copy()
    elif isinstance(op, scalars.Second) and dtypes[1] == dtype:
        if None in shape:
            yield lambda x, y: np.full(np.broadcast_shapes(x.shape, y.shape), y)
        else:
            yield lambda y: np.full(shape, y)
    elif isinstance(op, scalars.Switch) and dtypes[1] == dtypes[2] == dtype:
        yield np.where
    elif isinstance(op, scalars.Switch):
        yield lambda condition, one, other: np.asarray(np.where(condition, one, other), dtype)
    elif isinstance(op, scalars.Add | scalars.Mul) and len(dtypes) > 2 and all(other == dtype for other in dtypes):
        ufunc = np.add if isinstance(op, scalars.Add) else np.multiply
        yield lambda *terms: reduce(ufunc, terms)
    elif (function := universal_function(op, dtypes, dtype)) is not None:
        yield function
