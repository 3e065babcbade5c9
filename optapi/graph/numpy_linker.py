"""A linker that writes a graph out as one Python function of NumPy calls, and ``PYTHON``, the mode that uses it.

Nothing is compiled, neither by C nor by numba, also for graphs inside a ``Scan`` or an ``OpFromGraph``, so that a
function is ready in a fraction of a second. PyTensor's own ``FAST_COMPILE`` falls back to C or numba there.

A node becomes one line, ``v7 = f7(v3, v5)`` with ``f7`` for instance `numpy.add`. A scalar is a NumPy scalar and its
arithmetic that of Python, ``v9 = v7 * v8``. A choice between two arrays copies neither. A temporary is deleted after
its last use. Nodes of other kinds are called as PyTensor calls them. PyTensor's own Python linkers call every node
through several layers, which for small arrays takes most of the time of a step.

The values of a choice, lazy or not, of a loop, and of an array that is filled once may share memory without PyTensor's
knowledge. They are copied where they become outputs, unless these are declared as ``Out(..., borrow=True)``, and where
an operation in place would write over them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from functools import cache, reduce
from traceback import walk_tb
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.aliasing import alias_root, infer_reuse_pattern, view_tree_set
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode, predefined_modes
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.destroyhandler import DestroyHandler
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import MergeOptimizer, SequentialGraphRewriter
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.basic import Container, PerformLinker
from pytensor.link.utils import map_storage, raise_with_op
from pytensor.scalar import basic as scalars
from pytensor.scalar.math import Softplus
from pytensor.scan.op import Scan
from pytensor.tensor.basic import Alloc, ARange, Join, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.random.utils import custom_rng_deepcopy
from pytensor.tensor.subtensor import IncSubtensor, Subtensor, unflatten_index_variables
from pytensor.tensor.type import TensorType, complex_dtypes
from pytensor.tensor.utils import import_func_from_string

from .compat import IfElse, inner_graph
from .loops import Loop, is_scalar
from .products import by_columns, by_rows, factors, known


# Python expressions for operations on scalars.
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
    # NaN comes out, whichever it is, and the second of two zeros, as of NumPy's functions.
    scalars.ScalarMinimum: "{0} if {0} < {1} or {0} != {0} else {1}",
    scalars.ScalarMaximum: "{0} if {0} > {1} or {0} != {0} else {1}",
    scalars.Clip: "{1} if {0} < {1} else {2} if {0} > {2} else {0}",
}


# The block of what is computed in any case, see `needed`.
ALWAYS = frozenset({"always"})

# The file name of what is written out, by which tracebacks are recognized.
WRITTEN = f"<{__name__}>"


class NumpyLinker(PerformLinker):
    """The linker that the module describes.

    Parameters
    ----------
    borrow : bool
        Treat all outputs as ``Out(..., borrow=True)``: for callers that write over no array.
    allow_gc, schedule
        As in PyTensor's linkers.
    """

    required_rewrites = ("minimum_compile",)
    # NumPy has no function for fused operations; an elementwise one in place would copy its result into the argument.
    incompatible_rewrites = ("fusion", "inplace_elemwise", "cxx_only")

    def __init__(self, borrow: bool = False, **options: Any):
        super().__init__(**options)
        self.borrow = borrow
        self.updates: Mapping[Any, Any] = {}

    def accept_var_updates(self, updates: Mapping[Any, Any]) -> None:
        """Take the outputs that become the next values of inputs."""
        self.updates = updates

    def make_all(self, input_storage: Any = None, output_storage: Any = None, storage_map: Any = None) -> Any:
        """The function of the graph on its storage, as `PerformLinker.make_all`."""
        fgraph: Any = self.fgraph
        order = self.schedule(fgraph)
        inputs, outputs, storage = map_storage(fgraph, order, input_storage, output_storage, storage_map)
        function = written_out(fgraph, order, () if self.borrow else self.no_recycling)
        narrow = [position for position, variable in enumerate(fgraph.inputs) if is_scalar(variable)]
        wide = [position for position, variable in enumerate(fgraph.outputs) if is_scalar(variable)]
        updated = [
            (cell, fgraph.outputs.index(self.updates[variable]))
            for cell, variable in zip(inputs, fgraph.inputs, strict=True)
            if variable in self.updates
        ]

        def run() -> list[Any]:
            values: Any = [cell[0] for cell in inputs]
            for position in narrow:
                values[position] = values[position][()]
            try:
                with np.errstate(all="ignore"):
                    results: list[Any] = function(*values)
            except Exception as error:
                node = node_of(error)
                if node is None:
                    raise
                raise_with_op(fgraph, node)
            for position in wide:
                results[position] = np.asarray(results[position])
            for cell, result in zip(outputs, results, strict=True):
                cell[0] = result
            # Also here, and not by `Function` alone, because a `Scan` has no other that does it.
            for cell, position in updated:
                cell[0] = results[position]
            return results

        vm: Any = run
        vm.need_update_inputs, vm.allow_gc, vm.storage_map = False, self.allow_gc, storage
        containers = [
            [Container(variable, cell, readonly=readonly) for variable, cell in zip(variables, cells, strict=True)]
            for variables, cells, readonly in ((fgraph.inputs, inputs, False), (fgraph.outputs, outputs, True))
        ]
        return vm, *containers, [vm], order


# "optapi_python" rewrites the bodies of loops in PyTensor 3.0.
PYTHON = Mode(NumpyLinker(), RewriteDatabaseQuery(include=["fast_run", "py_only", "optapi_python"]))
predefined_modes["PYTHON"] = PYTHON  # as those of PyTensor, it has a name

# For a step of a rule on a NumPy function. Rules are built of few operations, which are merged and otherwise run as
# they are: to rewrite them would take longer than many a minimization.
# Only a row is written where it belongs.
STEP = Mode(
    NumpyLinker(borrow=True),
    RewriteDatabaseQuery(include=["minimum_compile", "merge", "add_destroy_handler", "local_inplace_setsubtensor"]),
)


def written_out(fgraph: FunctionGraph, order: Sequence[Any], exposed: Collection[Any] = ()) -> Callable[..., Any]:
    """A function from the values of the inputs of `fgraph` to a list of those of its outputs.

    Parameters
    ----------
    fgraph : FunctionGraph
    order : list of Apply
        Its nodes, sorted topologically.
    exposed : collection of variables
        Variables that share memory with an output, as PyTensor's ``infer_reuse_pattern`` finds them. Their values share
        no memory that PyTensor does not know of, because others may write over outputs.
    """
    steps = needed(order, fgraph.outputs)
    home = {variable: block for node, _, block in steps for variable in node.outputs}
    blocks: dict[Any, list[Any]] = {ALWAYS: []} | {block: [] for _, _, block in steps}
    numbers = {block: number for number, block in enumerate(blocks)}
    namespace: dict[str, Any] = {"inf": np.inf, "cache": cache, "fresh": fresh}
    names: dict[Any, str] = {}

    def name_of(variable: Any, block: Any = ALWAYS) -> str:
        if variable not in names:
            names[variable] = f"v{len(names)}"
            if isinstance(variable, Constant):
                namespace[names[variable]] = variable.data[()] if is_scalar(variable) else variable.data
        origin = home.get(variable, ALWAYS)
        return names[variable] if origin in (ALWAYS, block) else f"b{numbers[origin]}()['{names[variable]}']"

    # The node that reads a variable last deletes it, unless it is read in another block too.
    last: dict[Any, Any] = dict.fromkeys(fgraph.outputs)
    for node, inputs, block in reversed(steps):
        for variable in (*inputs, *node.outputs):
            last.setdefault(variable, node)
            if isinstance(node.op, IfElse) or home.get(variable, ALWAYS) != block:
                last[variable] = None

    statements = [statement(node, inputs, f"f{number}") for number, (node, inputs, _) in enumerate(steps)]
    memory = Memory(fgraph, steps, [shares for *_, shares in statements])

    for number, (node, inputs, block) in enumerate(steps):
        expression, function, several, shares = statements[number]
        if function is not None:
            namespace[f"f{number}"] = function
        values, results = ([name_of(v, block) for v in variables] for variables in (inputs, node.outputs))
        for position in {position for positions in node.op.destroy_map.values() for position in positions}:
            # With lazy conditionals a value may be read later than it seems.
            if len(blocks) > 1 or memory.is_read(inputs[position], number):
                values[position] = f"fresh({values[position]})"
        lines = [f"{', '.join(results)}{',' * several} = {expression.format(*values)}"]
        if shares:
            copied = [name_of(v, block) for v in node.outputs if v in exposed and not is_scalar(v)]
            lines += [f"{name} = fresh({name})" for name in copied]
        read = dict.fromkeys((*inputs, *node.outputs))
        dropped = [names[v] for v in read if last[v] is node and not isinstance(v, Constant)]
        if dropped:
            lines.append(f"del {', '.join(dropped)}")
        blocks[block] += [(f"    {line}", node) for line in lines]

    source: list[Any] = [(f"def run({', '.join(map(name_of, fgraph.inputs))}):", None)]
    always = blocks.pop(ALWAYS)
    for block, pairs in blocks.items():
        source += [("    @cache", None), (f"    def b{numbers[block]}():", None)]
        source += [(f"    {line}", node) for line, node in pairs]
        source.append(("        return locals()", None))
    source += [*always, (f"    return [{', '.join(map(name_of, fgraph.outputs))}]", None)]
    namespace["nodes"] = [None, *(node for _, node in source)]
    exec(compile("\n".join(line for line, _ in source), WRITTEN, "exec"), namespace)
    return namespace["run"]


class Memory:
    """Which values may be in the same memory: by what PyTensor knows, and by what a `statement` shares.

    Parameters
    ----------
    fgraph : FunctionGraph
    steps : list of tuple
        As `needed` returns them.
    shares : list of bool
        For each step whether arrays among its values may share memory without PyTensor's knowledge.
    """

    def __init__(self, fgraph: Any, steps: Sequence[Any], shares: Sequence[bool]):
        self.fgraph = fgraph
        self.made: dict[Any, int] = {}
        self.read: dict[Any, int] = {}
        # From a value to those that may be in its memory, and back.
        self.later: dict[Any, list[Any]] = {}
        self.earlier: dict[Any, list[Any]] = {}
        for number, ((node, inputs, _), shared) in enumerate(zip(steps, shares, strict=True)):
            pairs: list[Any] = [
                (node.inputs[place], node.outputs[position])
                for kind in (node.op.view_map, node.op.destroy_map)
                for position, places in kind.items()
                for place in places
            ]
            if shared:
                # Through one thing in the middle, for of a loop each may share with each.
                middle = object()
                self.made[middle] = number
                pairs += [*((v, middle) for v in {*node.inputs, *inputs}), *((middle, v) for v in node.outputs)]
            for value, other in pairs:
                self.later.setdefault(value, []).append(other)
                self.earlier.setdefault(other, []).append(value)
            self.made |= dict.fromkeys(node.outputs, number)
            # What is assigned may be in the memory that is written over, what else is read may not.
            until = number if isinstance(node.op, IncSubtensor) and node.op.set_instead_of_inc else number + 1
            self.read |= dict.fromkeys(inputs, until)
        self.read |= dict.fromkeys(fgraph.outputs, len(steps) + 1)

    def is_read(self, variable: Any, number: int) -> bool:
        """Whether what step `number` writes over `variable` would be seen where PyTensor does not think so."""
        known: set[Any] = set()
        view_tree_set(self.fgraph, alias_root(variable), known)
        affected = self._found(self._found([variable], self.earlier, number), self.later, number)
        return any(
            isinstance(v, Constant) or v in self.fgraph.inputs or self.read.get(v, -1) > number
            for v in affected - known
        )

    def _found(self, variables: Any, pairs: Mapping[Any, Any], number: int) -> set[Any]:
        found, left = set(variables), list(variables)
        while left:
            new = [v for v in pairs.get(left.pop(), ()) if v not in found and self.made.get(v, -1) < number]
            found.update(new)
            left += new
        return found


def needed(order: Sequence[Any], outputs: Sequence[Any]) -> list[tuple[Any, list[Any], frozenset[Any]]]:
    """The nodes that `outputs` need, with their `arguments`, and the block in which they are computed.

    A block is a set of branches of lazy conditionals, and is computed when the first of them is chosen: it is what all
    these branches need and nothing else does. A block needs nothing but what is in blocks of the same branches or more.
    """
    wanted: dict[Any, set[Any]] = {variable: {*ALWAYS} for variable in outputs}
    steps = []
    for node in reversed(order):
        branches = set().union(*(wanted.get(variable, ()) for variable in node.outputs))
        if not branches:
            continue
        block = ALWAYS if branches >= ALWAYS else frozenset(branches)
        inputs = arguments(node)
        for position, variable in enumerate(inputs):
            lazy = isinstance(node.op, IfElse) and position > 0
            wanted.setdefault(variable, set()).update([(node, position > node.op.n_outs)] if lazy else block)
        steps.append((node, inputs, block))
    return steps[::-1]


def node_of(error: BaseException) -> Any:
    """The innermost node whose line raised `error`, or None."""
    frames = [(frame, line) for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == WRITTEN]
    return frames[-1][0].f_globals["nodes"][frames[-1][1]] if frames else None


def fresh(value: Any) -> Any:
    """A copy of `value`."""
    if isinstance(value, np.random.Generator):
        return custom_rng_deepcopy(value)
    return value.copy() if isinstance(value, np.ndarray) else deepcopy(value)


def arguments(node: Apply) -> list[Any]:
    """The inputs of `node`, but what is computed from their sources where these do.

    Scalars in the places of their expansions where an elementwise function broadcasts them, and the matrix and the
    vector in the place of the terms of their product.
    """
    factored = product_of(node)
    if factored:
        return [*factored[:2]]
    if not isinstance(node.op, Elemwise) or None in node.outputs[0].type.shape:
        return node.inputs
    shape = node.outputs[0].type.shape
    if is_filled(node):
        return [narrowed(node.inputs[1])]
    # NumPy rounds a power with a scalar exponent otherwise than one with an array of exponents.
    if isinstance(node.op.scalar_op, scalars.Pow):
        return node.inputs
    inputs = list(map(narrowed, node.inputs))
    # The shape of the output must follow from the other inputs.
    known: Any = [v.type.shape for v in inputs if isinstance(v.type, TensorType) and None not in v.type.shape]
    return inputs if known and np.broadcast_shapes(*known) == shape else node.inputs


def product_of(node: Apply) -> tuple[Any, Any, int] | None:
    """The factors and the axis of a product of a matrix and a vector, see `products`, None if it is none."""
    found = factors(node)
    return found if found and known(*found[:2]) else None


def is_filled(node: Apply) -> bool:
    """Whether the output of `node` is an array of a known shape that is filled with its second input."""
    known = isinstance(node.op, Elemwise) and None not in node.outputs[0].type.shape
    return known and isinstance(node.op.scalar_op, scalars.Second)


def narrowed(variable: Variable) -> Any:
    """The scalar of which `variable` is an expansion with axes of extent 1; or `variable`."""
    node = variable.owner
    if node is not None and isinstance(node.op, DimShuffle) and is_scalar(node.inputs[0]):
        return node.inputs[0]
    return variable


class Looped:
    """A loop as a function from the values of its inputs to a list of those of its outputs."""

    def __init__(self, op: Loop):
        inner: Any = inner_graph(op)
        self.count, exposed = len(op.inner_outputs) - 1, ()
        # The values that a turn writes over: those of the caller are copied, and no two may share memory.
        self.destroyed: list[int] = []
        if any(node.op.destroy_map for node in inner.apply_nodes):
            inner.attach_feature(DestroyHandler())
            self.destroyed = [i for i in range(self.count) if inner.has_destroyers([inner.inputs[i]])]
            exposed = infer_reuse_pattern(inner, inner.outputs)
        else:
            MergeOptimizer().rewrite(inner)
        self.turn = written_out(inner, inner.toposort(), exposed)

    def __call__(self, *values: Any) -> Any:
        current, fixed, steps = [*values[: self.count]], values[self.count : -1], int(values[-1])
        for position in self.destroyed:
            current[position] = fresh(current[position])
        for _ in range(steps):
            *current, done = self.turn(*current, *fixed)
            if done:
                break
        return current


class Called:
    """A node by PyTensor's own method: a function from the values of its inputs to a list of those of its outputs."""

    def __init__(self, node: Apply):
        variables = [*dict.fromkeys(node.inputs), *node.outputs]
        storage: dict[Any, list[Any]] = {variable: [None] for variable in variables}
        computed: dict[Any, list[bool]] = {variable: [variable.owner is not node] for variable in variables}
        # A copy of the node, because that of the graph is pickled with it.
        called = copy(node)
        called.op = in_python(node.op)
        self.thunk = called.op.make_thunk(called, storage, computed, [], impl="py")
        self.inputs = [(storage[variable], is_scalar(variable)) for variable in node.inputs]
        self.outputs = [(storage[variable], is_scalar(variable)) for variable in node.outputs]

    def __call__(self, *values: Any) -> list[Any]:
        for (cell, scalar), value in zip(self.inputs, values, strict=True):
            cell[0] = np.asarray(value) if scalar else value
        self.thunk()
        results: list[Any] = [cell[0][()] if scalar else cell[0] for cell, scalar in self.outputs]
        for cell, _ in (*self.inputs, *self.outputs):
            cell[0] = None
        return results


def in_python(op: Any) -> Any:
    """`op`, or a copy of it whose inner graph is linked by a `NumpyLinker`.

    A copy, because the same Op may stand in functions of other modes and keeps what it has compiled.
    """
    if isinstance(op, Blockwise):
        core = in_python(op.core_op)
        if core is not op.core_op:
            op = copy(op)
            op.core_op = core
    elif hasattr(op, "compile_fn"):
        as_it_is: Any = SequentialGraphRewriter()
        op = copy(op)
        op._fn = op.compile_fn(Mode(NumpyLinker(), as_it_is))
    elif isinstance(op, Scan):
        op = copy(op)
        inner: Any = inner_graph(op)
        inputs, outputs = op.prepare_fgraph(inner)
        op._fn = PYTHON.function_maker(inputs, outputs, PYTHON, fgraph=inner, on_unused_input="ignore").create()
    elif isinstance(op, OpFromGraph):
        # Else the graph inside of Softmax is recognized as a softmax, and so on for ever.
        mode = PYTHON.excluding("symbolic_op_recognition")
        op = copy(op)
        op._fn = pytensor.function(op.inner_inputs, op.inner_outputs, mode=mode, on_unused_input="ignore")
        op._fn.trust_input = True
    return op


def statement(node: Apply, inputs: Sequence[Any], name: str) -> tuple[str, Any, bool, bool]:
    """How a node is written.

    Returns
    -------
    expression : str
        With a place for the value of each of `inputs`.
    function
        What the expression calls `name`, or None.
    several : bool
        Whether the expression has a value for each output, and not the value of the only one.
    shares : bool
        Whether arrays among the values may share memory with others without PyTensor's knowledge.
    """
    expression = plain_expression(node)
    if expression is not None:
        return expression, None, isinstance(node.op, IfElse), isinstance(node.op, IfElse | Elemwise)
    function: Any = converted(node)
    if is_filled(node) and isinstance(inputs[0], Constant):
        return name, function(inputs[0].data), False, True
    several = isinstance(function, Called | Looped)
    expression = f"{name}({', '.join(f'{{{position}}}' for position in range(len(inputs)))})"
    if is_scalar(node.outputs[0]) and not several:
        expression += "[()]"
    return expression, function, several, isinstance(function, Looped)


def plain_expression(node: Apply) -> str | None:
    """The Python expression for a `node` that is arithmetic of scalars, a choice, or nothing but another name."""
    if isinstance(node.op, IfElse):
        places = [f"{{{position}}}, " for position in range(len(node.inputs))]
        count = node.op.n_outs
        return f"({''.join(places[1 : count + 1])}) if {{0}} else ({''.join(places[count + 1 :])})"
    if isinstance(node.op, ViewOp | ScalarFromTensor | TensorFromScalar):
        return "{0}"
    if isinstance(node.op, DeepCopyOp) and is_scalar(node.inputs[0]):
        return "{0}"
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
    if isinstance(op, scalars.ScalarMinimum | scalars.ScalarMaximum | scalars.Clip):
        ordered = dtype not in complex_dtypes and all(other == dtype for other in dtypes)
        return expression if ordered and len(dtypes) == op.nin else None
    if isinstance(op, scalars.Second):
        return "{0}" if dtypes[-1] == dtype else None  # see `arguments`
    if isinstance(op, scalars.Identity):
        return expression
    return expression if expression is not None and universal_function(op, dtypes, dtype) is not None else None


def choice(node: Apply) -> str | None:
    """The expression for a ``switch`` between two arrays by a scalar condition; neither is copied."""
    if not isinstance(node.op.scalar_op, scalars.Switch):
        return None
    condition, *branches = arguments(node)
    output = node.outputs[0].type
    fits = all(v.type.dtype == output.dtype and v.type.shape == output.shape for v in branches)
    return "{1} if {0} else {2}" if is_scalar(condition) and fits and None not in output.shape else None


def converted(node: Apply) -> Callable[..., Any]:
    """A function from the values of a node's inputs to the value of its output, or a `Looped` or `Called`."""
    if isinstance(node.op, Loop):
        return Looped(node.op)
    kinds = TensorType | scalars.ScalarType
    if all(isinstance(variable.type, kinds) for variable in [*node.inputs, *node.outputs]):
        for function in candidates(node):
            return function
    return Called(node)


def candidates(node: Apply) -> Iterator[Callable[..., Any]]:
    """The function of NumPy for a node, if there is one that gives the declared dtype."""
    op, dtypes, dtype = node.op, [variable.type.dtype for variable in node.inputs], node.outputs[0].type.dtype
    same = all(other == dtype for other in dtypes)
    if factored := product_of(node):
        yield by_rows if factored[2] else by_columns
    elif isinstance(op, Elemwise) and not op.inplace_pattern and len(node.outputs) == 1:
        for function in elementwise(op.scalar_op, dtypes, node.outputs[0].type):
            yield checked(node, function)
    elif isinstance(op, CAReduce) and dtypes[0] == dtype and op.acc_dtype in (None, dtype) and is_numeric(op.ufunc):
        axis, fold = op.axis, op.ufunc.reduce
        yield lambda x: fold(x, axis=axis, dtype=dtype)
    elif isinstance(op, DimShuffle) and not op.drop:
        index = tuple(None if entry == "x" else slice(None) for entry in op.new_order)
        shuffle = tuple(op.shuffle)
        if not shuffle:
            # Not by the index, which would repeat the element with stride 0: see `arguments`.
            yield lambda x: np.reshape(x, (1,) * len(index))
        elif shuffle == tuple(range(len(shuffle))):
            yield lambda x: x[index]
        else:
            yield lambda x: x.transpose(shuffle)[index]
    elif isinstance(op, Subtensor):
        entries = op.idx_list
        constants = [v.data.item() for v in node.inputs[1:] if isinstance(v, Constant)]
        if len(constants) == len(node.inputs) - 1:
            place = tuple(unflatten_index_variables(constants, entries))
            yield lambda x, *_: x[place]
        else:
            yield lambda x, *places: x[tuple(unflatten_index_variables(places, entries))]
    elif isinstance(op, IncSubtensor) and is_assignment_to_row(node):
        yield put_into if op.inplace else lambda x, *rest: put_into(x.copy(), *rest)
    elif isinstance(op, DeepCopyOp):
        yield lambda x: x.copy()
    elif isinstance(op, ARange):
        arange: Any = np.arange
        yield lambda start, stop, step: arange(start, stop, step, dtype)
    elif isinstance(op, Alloc) and dtypes[0] == dtype:
        yield lambda value, *shape: np.full(shape, value)
    elif isinstance(op, Join) and same and isinstance(along := getattr(op, "axis", None), int):
        yield lambda *parts: np.concatenate(parts, axis=along)


def is_assignment_to_row(node: Apply) -> bool:
    """Whether `node` assigns a row of known shape to an array, by its number."""
    kinds = [getattr(v.type, "shape", ()) for v in node.inputs]
    row = len(node.inputs) == 3 and not kinds[2] and None not in kinds[0][1:] and kinds[1] == kinds[0][1:]
    same = node.inputs[0].type.dtype == node.inputs[1].type.dtype
    whole = len(node.op.idx_list) == 1 and not isinstance(node.op.idx_list[0], slice)
    return row and same and whole and node.op.set_instead_of_inc


def put_into(array: np.ndarray, row: np.ndarray, place: Any) -> np.ndarray:
    """`array`, with `row` written into it."""
    array[place] = row
    return array


def checked(node: Apply, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of an elementwise `node`, with PyTensor's check: no extent of 1 broadcasts that was not declared."""
    inputs = arguments(node)
    unknown = [v for v in inputs if None in getattr(v.type, "shape", ()) and not all(v.type.broadcastable)]
    if not unknown or len(inputs) == 1:
        return function
    places = [position for position, v in enumerate(inputs) if not is_scalar(v)]
    patterns = [inputs[position].type.broadcastable for position in places]

    def check(*values: Any) -> Any:
        shapes = [values[position].shape for position in places]
        if shapes.count(shapes[0]) != len(shapes):
            for extents in zip(*(zip(s, p, strict=True) for s, p in zip(shapes, patterns, strict=True)), strict=True):
                if (1, False) in extents and any(extent != 1 for extent, _ in extents):
                    raise ValueError(
                        f"Runtime broadcasting not allowed: {node.op} has inputs of the shapes {shapes}, and an "
                        "extent of 1 that was not declared; declare it by a static shape, or by specify_broadcastable"
                    )
        return function(*values)

    return check


def elementwise(op: Any, dtypes: list[str], output: TensorType) -> Iterator[Callable[..., Any]]:
    """The function of NumPy for an elementwise node of the scalar `op`, if there is one."""
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
    elif isinstance(op, scalars.Clip) and dtypes == [dtype] * 3:
        # PyTensor's own is a call of Python for each component. As there, NaN stays, and the lower limit wins.
        yield lambda x, low, high: np.where(x < low, low, np.where(x > high, high, x))
    elif isinstance(op, Softplus) and dtypes == [dtype]:
        # Also that of PyTensor is a call of Python for each.
        yield lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))
    elif isinstance(op, scalars.Add | scalars.Mul) and len(dtypes) > 2 and all(other == dtype for other in dtypes):
        ufunc = np.add if isinstance(op, scalars.Add) else np.multiply
        yield lambda *terms: reduce(ufunc, terms)
    elif (function := universal_function(op, dtypes, dtype)) is not None:
        yield function


def is_numeric(function: Any) -> bool:
    """Whether a universal function is of numbers, and not a function of Python applied to objects."""
    return function.types != ["OO->O"]


def universal_function(op: Any, dtypes: Sequence[str], dtype: str) -> np.ufunc | None:
    """The universal function of NumPy or SciPy for the scalar `op` of `dtypes`, if it has one that gives `dtype`."""
    spec = getattr(op, "nfunc_spec", None)
    function = import_func_from_string(spec[0]) if spec and spec[1:] == (len(dtypes), 1) else None
    if not isinstance(function, np.ufunc):
        return None
    # NumPy computes some functions of small integers in another precision than PyTensor declares.
    return function if function.resolve_dtypes((*map(np.dtype, dtypes), None))[-1].name == dtype else None
