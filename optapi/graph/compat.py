"""What differs between PyTensor 3.0 and 3.3."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import repeat
from operator import setitem
from typing import Any

from pytensor.compile.aliasing import Supervisor, add_supervisor_to_fgraph, insert_deepcopy
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.io import In, Out
from pytensor.compile.mode import Mode, optdb
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import graph_rewriter
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.link.basic import JITLinker
from pytensor.scan.op import Scan


# PyTensor 3.3 rewrites an inner graph together with the outer one; 3.0 rewrites and compiles it on first use.
REWRITES_INNER_GRAPHS = hasattr(Scan, "compile_fn")

# Options of an `OpFromGraph`: 3.0 would compile its inner graph with the default mode, which is numba's, also inside a
# function that is linked with C.
INNER_FUNCTION: dict[str, Any] = {"on_unused_input": "ignore"} | ({} if REWRITES_INNER_GRAPHS else {"mode": "CVM"})

# Elementwise operations in one loop with others, of PyTensor 3.3 under numba.
FUSED: tuple[Any, ...] = ()
if REWRITES_INNER_GRAPHS:
    FUSED = (
        import_module("pytensor.tensor.rewriting.fused_elemwise").FusedElemwise,
        import_module("pytensor.tensor.rewriting.scalarize").ScalarizedElemwise,
    )


def rewrite_owned(fgraph: FunctionGraph, owned: int, optimizer: Any) -> None:
    """Rewrite an inner graph whose first `owned` outputs become its first `owned` inputs at the next turn.

    The graph may write over these inputs; PyTensor's own rewriting protects all inputs.
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
    # Imported by name, because a type checker sees the modules of one version only.
    builders: Any = import_module("pytensor.compile.builders")
    rewriting: Any = import_module("pytensor.compile.rewriting")

    class _Sealed(builders.FinalizedOpFromGraph):
        """An Op whose inner graph PyTensor does not rewrite."""

        def link_mode(self, impl: str | None) -> Any:
            # PyTensor's choice, "vm", lets two scalars share a place after it has told the nodes where to write, and
            # clears the wrong one of both. So what one call has returned may be written over by the next.
            return import_module("pytensor.compile.inner_function").link_only_mode("cvm")

    SealedOp: Any = _Sealed

    def rewrite_inner_graphs(kind: Any) -> None:
        """Register a rewrite of the inner graphs of Ops of the class `kind`, by `rewrite_owned`."""

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

        # Just before PyTensor rewrites the inner graphs of other Ops.
        optdb.register("optapi_inner_graphs", rewriter, "minimum_compile", "compile_inner_graph", position=49.59)

else:
    SealedOp = OpFromGraph

    def rewrite_inner_graphs(kind: Any) -> None:
        """Register a rewrite of the inner graphs of Ops of the class `kind` for the mode PYTHON.

        Other linkers rewrite an inner graph in PyTensor 3.0 when they compile it.
        """

        @graph_rewriter
        def rewriter(fgraph: Any) -> None:
            optimizer = import_module(f"{__package__}.numpy_linker").PYTHON.optimizer
            for node in fgraph.toposort():
                if isinstance(node.op, kind) and not node.op.rewritten:
                    inner = inner_graph(node.op)
                    rewrite_owned(inner, len(node.outputs), optimizer)
                    op = kind(inner.inputs, inner.outputs)
                    op.rewritten = True
                    fgraph.replace_all(list(zip(node.outputs, op.make_node(*node.inputs).outputs, strict=True)))

        optdb.register("optapi_inner_graphs", rewriter, "optapi_python", position=49.59)


class QuickSupervisor(Supervisor):
    """PyTensor's check that nothing is written over which must not be; that asks about each input at each rewrite."""

    def on_validate(self, fgraph: Any) -> bool:
        handler = getattr(fgraph, "destroy_handler", None)
        if handler is not None and handler.refresh_droot_impact()[0]:  # there is what is written over
            super().on_validate(fgraph)
        return True


@graph_rewriter
def _quick_supervisor(fgraph: Any) -> None:
    for feature in fgraph._features:
        if type(feature) is Supervisor:
            feature.__class__ = QuickSupervisor


# Before all rewrites, whose number times that of the inputs it would take.
optdb.register("optapi_supervisor", _quick_supervisor, "optapi_python", position=-1)


def inner_graph(op: OpFromGraph) -> FunctionGraph:
    """A copy of the inner graph of an Op, which may be changed."""
    frozen: Any = op.fgraph
    return frozen.unfreeze() if hasattr(frozen, "unfreeze") else frozen.clone()


# The lazy conditional; by name, because importing the old module warns in 3.3.
IfElse: Any = import_module("pytensor.conditional.op" if REWRITES_INNER_GRAPHS else "pytensor.ifelse").IfElse


# Shared variables, compiled functions and modes, as the drivers use them


def assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Set the shared `variables` to `values`, all or none, whatever interrupts it. The arrays are not copied."""
    filtered = [v.type.filter(value, allow_downcast=True) for v, value in zip(variables, values, strict=True)]
    # No line of Python runs between two of them, so no signal is handled there and no other thread runs.
    deque(map(setitem, [v.container.storage for v in variables], repeat(0), filtered), maxlen=0)


def compiled_of(function: Any) -> tuple[Callable[..., Any], Callable[[], list[Any]]]:
    """What numba or JAX compiled for `function`, and a function that returns what it takes after the arguments."""
    shared = [c for c in function.input_storage if c.implicit]
    return function.vm.jit_fn, lambda: [container.storage[0] for container in shared]


def free_callable(function: Any) -> Callable[..., Any]:
    """What a backend compiled for `function`: it may run in several threads at a time.

    A function of PyTensor keeps its arguments in itself while it runs. The linker of `function` must be numba's or
    JAX's.
    """
    compiled, shared = compiled_of(function)
    return lambda *arguments: compiled(*arguments, *shared())


def linked_by(linker: Any, mode: Mode) -> Mode:
    """`mode` with another linker."""
    return Mode(linker, mode.provided_optimizer)


def is_compiled_by(function: Any, backend: str) -> bool:
    """Whether the linker of `function` is that of `backend`."""
    return type(function.maker.linker).__name__.endswith(f"{backend}Linker")


def compiles_whole_graphs(mode: Mode) -> bool:
    """Whether the linker of `mode` hands the whole graph to a compiler, as those of numba, JAX and PyTorch do."""
    return isinstance(mode.linker, JITLinker)


def lowered(outputs: Sequence[Any]) -> list[Any]:
    """`outputs` with operations on variables with dims (``pytensor.xtensor``) written as those on tensors."""
    return rewritten(outputs, "lower_xtensor")


def rewritten(outputs: Sequence[Any], *names: str, clone: bool = False) -> list[Any]:
    """`outputs` as PyTensor's rewrites of these names, or tags, write them; without `clone` the graph is changed."""
    found: Any = rewrite_graph(list(outputs), include=names, clone=clone)
    return list(found)
