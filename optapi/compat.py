"""What differs between PyTensor 3.0 and 3.3, and the pure Python mode.

``PYTHON`` is a mode that runs a graph on NumPy alone. It compiles nothing, neither C nor numba, so that a
function is ready in a fraction of a second; each node then costs microseconds of Python per call. Neither
version's own ``FAST_COMPILE`` does that: inside of a ``Scan`` or an ``OpFromGraph`` it falls back to C or numba.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import pytensor
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.basic import SequentialGraphRewriter
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.vm import VMLinker
from pytensor.scan.op import Scan
from pytensor.tensor.blockwise import Blockwise


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
            op._fn, op.mode = None, PYTHON
        else:
            op._fn = pytensor.function(op.inner_inputs, op.inner_outputs, mode=PYTHON)
            op._fn.trust_input = True
    return op


# Fusion makes one loop in C of several elementwise nodes; in Python it would make a loop over the elements.
PYTHON = Mode(
    PythonLinker(),
    RewriteDatabaseQuery(include=["fast_run", "py_only"], exclude=["fusion", "cxx_only"]),
)
