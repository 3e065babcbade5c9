"""What differs between PyTensor 3.0 and 3.3, and the pure Python mode.

``PYTHON`` is a mode that runs a graph on NumPy alone. It compiles neither C nor numba, for all nodes of ordinary graphs
and for those inside of a ``Scan`` or an ``OpFromGraph``, so that a
function is ready in a fraction of a second; each node then costs microseconds of Python per call. Neither
version's own ``FAST_COMPILE`` does that: inside of a ``Scan`` or an ``OpFromGraph`` it falls back to C or numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial, reduce
from importlib import import_module
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.aliasing import add_supervisor_to_fgraph, insert_deepcopy
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.io import In, Out
from pytensor.compile.mode import Mode, optdb
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import SequentialGraphRewriter, graph_rewriter
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.basic import JITLinker
from pytensor.link.vm import Loop as OneAfterAnother
from pytensor.link.vm import VMLinker
from pytensor.scalar.basic import Add, Cast, Mul, Switch
from pytensor.scan.op import Scan
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.utils import import_func_from_string


# PyTensor 3.3 rewrites an inner graph together with the outer one; 3.0 compiles it on first use, as a function.
REWRITES_INNER_GRAPHS = hasattr(Scan, "compile_fn")

# How it compiles the inner graph of an `OpFromGraph` that is not run by a linker of its own: 3.0 would with the default
# mode, which is numba's, also inside of a function linked with C.
INNER_FUNCTION: dict[str, Any] = {"on_unused_input": "ignore"} | ({} if REWRITES_INNER_GRAPHS else {"mode": "CVM"})


def rewrite_owned(fgraph: FunctionGraph, owned: int, optimizer: Any) -> None:
    """Rewrite an inner graph whose first outputs, `owned` in number, take the place of its first inputs.

    So it may write over these inputs, where PyTensor lets none be written over.
    """
    specifications = [
        In(variable, update=fgraph.outputs[i], mutable=True, borrow=True) if i < owned else In(variable, borrow=True)
        for i, variable in enumerate(fgraph.inputs)
    ]
    add_supervisor_to_fgraph(fgraph, specifications, accept_inplace=True)
    optimizer.rewrite(fgraph)
    # No two outputs may share memory, nor an output and an input that stays as it is.
    insert_deepcopy(fgraph, specifications, [Out(variable) for variable in fgraph.outputs])


if REWRITES_INNER_GRAPHS:
    # By name, since a checker of types sees the modules of one version.
    builders: Any = import_module("pytensor.compile.builders")
    rewriting: Any = import_module("pytensor.compile.rewriting")

    # PyTensor leaves the inner graphs of these to others.
    SealedOp: Any = builders.FinalizedOpFromGraph

    def rewrite_inner_graphs(kind: Any) -> None:
        """Let PyTensor rewrite the inner graphs of loops, Ops of this `kind`, with `rewrite_owned`."""

        def rewrite(linker: Any, op: Any, node: Any, inner: Any, *, mode: Any) -> None:
            usual = rewriting.rewrite_ofg_inner_graph.dispatch(type(linker))
            if usual is rewriting.destructive_rewrite_ofg_inner_graph:
                rewrite_owned(inner, len(node.outputs), mode.optimizer)
            else:
                mode.optimizer.rewrite(inner)

        @graph_rewriter
        def rewriter(fgraph: Any) -> None:
            def is_due(op: Any) -> bool:
                return isinstance(op, kind) and not op.rewritten

            rewriting.rewrite_inner_graph(fgraph, is_due, rewrite)

        # Where PyTensor rewrites those of other Ops.
        optdb.register("optapi_inner_graphs", rewriter, "minimum_compile", "compile_inner_graph", position=49.59)

else:
    SealedOp = OpFromGraph

    def rewrite_inner_graphs(kind: Any) -> None:
        """PyTensor 3.0 leaves that to those who compile an inner graph."""


def inner_graph(op: OpFromGraph) -> FunctionGraph:
    """The inner graph of an Op, to build upon."""
    frozen: Any = op.fgraph
    return frozen.unfreeze() if hasattr(frozen, "unfreeze") else frozen.clone()


class Quiet(OneAfterAnother):
    """What runs the nodes, without NumPy's warnings: what is not finite is a value like others."""

    def __call__(self) -> Any:
        with np.errstate(all="ignore"):
            return super().__call__()


class PythonLinker(VMLinker):
    """A linker without C code, also for the graphs inside of an Op."""

    def __init__(self, **options: Any):
        super().__init__(**{**options, "use_cloop": False, "c_thunks": False})

    def make_all(self, *args: Any, **kwargs: Any) -> Any:
        for node in self.fgraph.apply_nodes:
            node.op = elementwise(node) if isinstance(node.op, Elemwise) else in_python(node.op)
        vm, *rest = super().make_all(*args, **kwargs)
        if type(vm) is OneAfterAnother:
            vm.__class__ = Quiet
        return vm, *rest


def in_python(op: Any) -> Any:
    """`op`, or a copy of it whose inner graph is linked by a `PythonLinker`.

    A copy, because the same Op may stand in functions of other modes and keeps what it has compiled.
    """
    if isinstance(op, Blockwise):
        core = in_python(op.core_op)
        if core is not op.core_op:
            op = copy(op)
            op.core_op = core
    elif isinstance(op, Scan | OpFromGraph):
        op = copy(op)
        if REWRITES_INNER_GRAPHS:
            as_it_is: Any = SequentialGraphRewriter()
            op._fn = op.compile_fn(Mode(PythonLinker(), as_it_is))
        elif isinstance(op, Scan):
            # Compiling rewrites the inner graph in place, and a copy of an Op has the same one.
            inner: Any = op.fgraph
            op._fn, op.mode, op.fgraph = None, PYTHON, inner.clone()
        else:
            # Else the graph inside of Softmax is recognized as a softmax, and so on for ever.
            mode = PYTHON.excluding("symbolic_op_recognition")
            op._fn = pytensor.function(op.inner_inputs, op.inner_outputs, mode=mode, on_unused_input="ignore")
            op._fn.trust_input = True
    return op


class ElementwiseInPython(Elemwise):
    """An elementwise function that calls NumPy at once.

    PyTensor's own finds out at each call what to call, and takes three times as long for it as NumPy for a small array.
    """

    def __init__(self, op: Elemwise, function: Callable[..., Any], dtype: str, broadcasts: bool):
        self.__dict__.update(op.__dict__)
        self.function, self.dtype, self.broadcasts = function, np.dtype(dtype), broadcasts

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        if self.broadcasts:
            shape = inputs[0].shape
            if any(value.shape != shape for value in inputs):
                self._check_runtime_broadcast(node, inputs)
        value = self.function(*inputs)
        if type(value) is not np.ndarray or value.dtype != self.dtype:
            value = np.asarray(value, self.dtype)
        output_storage[0][0] = value


def elementwise(node: Any) -> Any:
    """The Op of an elementwise `node`, or one that does the same with less ado, if NumPy or SciPy have its function."""
    op, [output] = node.op, [v.type.dtype for v in node.outputs]
    if isinstance(op.scalar_op, Cast):
        function: Any = partial(_cast, dtype=output)
    elif isinstance(op.scalar_op, Add | Mul) and len(node.inputs) > 2:
        function = partial(_fold, np.add if isinstance(op.scalar_op, Add) else np.multiply)
    elif isinstance(op.scalar_op, Switch):
        function = np.where
    else:
        function = universal_function(op.scalar_op, [v.type.dtype for v in node.inputs], output)
    if function is None or op.inplace_pattern:
        return op
    known = all(all(v.type.broadcastable) or None not in v.type.shape for v in node.inputs)
    return ElementwiseInPython(op, function, output, len(node.inputs) > 1 and not known)


def universal_function(op: Any, dtypes: Sequence[str], dtype: str) -> np.ufunc | None:
    """The universal function of NumPy or SciPy for the scalar `op` of `dtypes`, if it has one that gives `dtype`."""
    spec = getattr(op, "nfunc_spec", None)
    function = import_func_from_string(spec[0]) if spec and spec[1:] == (len(dtypes), 1) else None
    if not isinstance(function, np.ufunc):
        return None
    # Of small integers NumPy would work out some in another precision.
    return function if function.resolve_dtypes((*map(np.dtype, dtypes), None))[-1].name == dtype else None


def _fold(function: Any, *terms: Any) -> Any:
    return reduce(function, terms)


def _cast(x: Any, dtype: str) -> Any:
    return x.astype(dtype)


# Fusion makes one loop in C of several elementwise nodes; in Python it would make a loop over the elements. And there
# an elementwise function that changes its argument in place would copy its result into it.
PYTHON = Mode(
    PythonLinker(),
    RewriteDatabaseQuery(include=["fast_run", "py_only"], exclude=["fusion", "inplace_elemwise", "cxx_only"]),
)


# Compiled functions and modes, as the drivers use them


def free_callable(function: Any) -> Callable[..., Any]:
    """What a backend compiled for `function`: it may run in several threads at a time.

    A function of PyTensor keeps its arguments in itself while it runs. The linker of `function` must be numba's or
    JAX's.
    """
    compiled, shared = function.vm.jit_fn, [c for c in function.input_storage if c.implicit]
    # Shared variables come after the arguments.
    return lambda *arguments: compiled(*arguments, *[container.storage[0] for container in shared])


def linked_by(linker: Any, mode: Mode) -> Mode:
    """`mode` with another linker."""
    return Mode(linker, mode.provided_optimizer)


def compiles_whole_graphs(mode: Mode) -> bool:
    """Whether the linker of `mode` hands the whole graph to a compiler, as those of numba, JAX and PyTorch do."""
    return isinstance(mode.linker, JITLinker)
