"""What differs between PyTensor 3.0 and 3.3, and the pure Python mode.

``PYTHON`` is a mode that runs a graph on NumPy alone. It compiles neither C nor numba, for all nodes of ordinary graphs
and for those inside of a ``Scan`` or an ``OpFromGraph``, so that a
function is ready in a fraction of a second; each node then costs microseconds of Python per call. Neither
version's own ``FAST_COMPILE`` does that: inside of a ``Scan`` or an ``OpFromGraph`` it falls back to C or numba.
"""

from __future__ import annotations

from copy import copy
from functools import reduce
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.basic import SequentialGraphRewriter
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.vm import VMLinker
from pytensor.scalar.basic import Add, Cast, Mul
from pytensor.scan.op import Scan
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import Elemwise


# PyTensor 3.3 rewrites an inner graph together with the outer one; 3.0 compiles it on first use, as a function.
REWRITES_INNER_GRAPHS = hasattr(Scan, "compile_fn")


class PythonLinker(VMLinker):
    """A linker without C code, also for the graphs inside of an Op."""

    def __init__(self, **options: Any):
        super().__init__(**{**options, "use_cloop": False, "c_thunks": False})

    def make_all(self, *args: Any, **kwargs: Any) -> Any:
        for node in self.fgraph.apply_nodes:
            node.op = in_python(node.op)
        return super().make_all(*args, **kwargs)


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
            op._fn = pytensor.function(op.inner_inputs, op.inner_outputs, mode=mode)
            op._fn.trust_input = True
    elif isinstance(op, Elemwise) and not REWRITES_INNER_GRAPHS:
        ufunc = on_arrays(op.scalar_op)
        if ufunc is not None:
            op = copy(op)
            op.ufunc = ufunc
    return op


def on_arrays(scalar_op: Any) -> Any:
    """`scalar_op` as a function of arrays, where PyTensor 3.0 would call Python for each element.

    That is for casts, and for sums and products of more than two terms.
    """

    def fold(*terms: Any) -> Any:
        return reduce(np.add if isinstance(scalar_op, Add) else np.multiply, terms)

    def cast(x: Any) -> Any:
        return np.asarray(x).astype(scalar_op.o_type.dtype)

    ufunc: Any = fold if isinstance(scalar_op, Add | Mul) else cast if isinstance(scalar_op, Cast) else None
    if ufunc is not None:
        ufunc.nout = 1
    return ufunc


# Fusion makes one loop in C of several elementwise nodes; in Python it would make a loop over the elements.
PYTHON = Mode(
    PythonLinker(),
    RewriteDatabaseQuery(include=["fast_run", "py_only"], exclude=["fusion", "cxx_only"]),
)
