"""Notes: what a rule says about a variable to code that finds it in updates or in a graph and does not know the rule.

A note is an attribute of ``variable.tag``, where PyTensor leaves room for such things, and it stays there when
PyTensor copies the variable. These are all that optapi writes and reads:

``state``
    True for a state variable, which `optapi.state.state` made. Updates do not hold two of the same name.
``role``
    What a state variable reports, see `optapi.reports`.
``kept``
    The field of a `Point` that a state variable keeps from one call to the next: the point held, its cost, its
    gradient, packed and with the signs of a minimization.
``inverse_hessian``
    True for a matrix that is the inverse Hessian, and for each part of a `CompactInverseHessian`.
``x_scale``
    True for the vector of typical sizes by which a rule has scaled the parameters.
``multipliers``, ``bound_multipliers``
    True for state with the multipliers of a constraint, or of the bounds of a parameter, of its shape and in the order
    in which they were passed.
``active``
    True for state that says which components of a parameter are at their bounds.
``transformed``
    True for a gradient that was clipped, decayed or otherwise changed, so that it is not that of the cost.
``partial``
    True for a cost that is handed on with some of its parameters, so that it must not be evaluated elsewhere.
"""

from __future__ import annotations

from typing import Any

from pytensor.graph.basic import Variable


NOTES = (
    *("state", "role", "kept", "inverse_hessian", "x_scale", "multipliers", "bound_multipliers", "active"),
    *("transformed", "partial"),
)


def noted(variable: Variable, **notes: Any) -> Any:
    """`variable`, with `notes` set."""
    for name, value in notes.items():
        if name not in NOTES:
            raise ValueError(f"there is no note {name!r}; there are {', '.join(NOTES)}")
        setattr(variable.tag, name, value)
    return variable


def note(variable: Variable, name: str) -> Any:
    """The note `name` of `variable`, None if it has none."""
    return getattr(variable.tag, name, None)


def copy_notes(variable: Variable, other: Variable) -> Any:
    """`other`, with all notes of `variable`, whose place it takes."""
    return noted(other, **{name: note(variable, name) for name in NOTES if note(variable, name) is not None})
