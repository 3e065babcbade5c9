"""Graphs with other variables in the places of some of theirs, and the operations in graphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import ancestors, toposort

from .compat import rewritten


def replaced(outputs: Sequence[Any], replacements: Mapping[Any, Any]) -> list[Any]:
    """`outputs` with the values of `replacements` in the places of its keys; what does not depend on these is shared.

    PyTensor's ``graph_replace`` does the same in a time that grows with the square of the number of keys.
    """
    new = {old: old.type.filter_variable(value) for old, value in replacements.items()}
    for node in toposort(outputs, blockers=replacements):
        inputs = [new.get(variable, variable) for variable in node.inputs]
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            copies = node.clone_with_new_inputs(inputs).outputs
            for old, copy in zip(node.outputs, copies, strict=True):
                new.setdefault(old, copy)
    return [new.get(variable, variable) for variable in outputs]


def operations(outputs: Iterable[Any]) -> Iterator[Any]:
    """The operations in the graphs of `outputs`, also those of inner graphs, such as loops."""
    for node in dict.fromkeys(v.owner for v in ancestors(list(outputs)) if v.owner is not None):
        yield node.op
        if isinstance(node.op, HasInnerGraph):
            yield from operations(node.op.inner_outputs)


# What PyMC's rewrite of its checks of parameters into minus infinity is called.
CHECKED = "local_check_parameter_to_ninf_switch"


def as_values(cost: Any) -> Any:
    """`cost` with PyMC's checks of parameters as values, as ``pymc.compile`` has them; any other as it is."""
    has_checks = any(type(op).__name__ == "CheckParameterValue" for op in operations([cost]))
    return rewritten([cost], "canonicalize", CHECKED, clone=True)[0] if has_checks else cost
