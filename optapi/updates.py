"""Updates: dictionaries from a variable to its next value, joined without losing one.

PyTensor takes any dictionary and writes what it says; two rules that write the same variable would silently
leave one of them out. Here the second writer is a ``KeyError``.
"""

from __future__ import annotations

from typing import Any

from .checks import called, check_updates
from .typing import Updates


def extend(updates: Updates | None, new: Updates) -> Updates:
    """`updates` extended in place with the items of `new`, or a new dictionary if it is None.

    Raises
    ------
    KeyError
        If a variable of `new` already has an update. `updates` is then left as it was.
    TypeError
        If `updates` is not a dictionary.
    """
    check_updates(updates)
    if updates is None:
        updates = {}
    for variable in new:
        if variable in updates:
            raise KeyError(f"the variable {called(variable)} already has an update; a variable can have only one")
    updates.update(new)
    return updates


def join(*dictionaries: Updates) -> Updates:
    """One new dictionary of all items of `dictionaries`.

    Raises
    ------
    KeyError
        If a variable has an update in more than one of them.

    Examples
    --------
    >>> u, v = pytensor.shared(1.0, name="u"), pytensor.shared(2.0, name="v")
    >>> updates = optapi.join(optapi.sgd([u], u**2), optapi.sgd([v], v**2))
    >>> [variable.name for variable in updates]
    ['u', 'v']
    >>> optapi.join(updates, {u: v})
    Traceback (most recent call last):
        ...
    KeyError: "the variable 'u' already has an update; a variable can have only one"
    """
    joined: Updates = {}
    for updates in dictionaries:
        if updates is None:
            raise TypeError("join takes dictionaries of updates, not None")
        extend(joined, updates)
    return joined


def reports(updates: Updates) -> dict[str, list[Any]]:
    """What the rules behind `updates` report: a dictionary from a role to the variables that have it.

    The roles are ``"reason"`` (0 while running, else why it ended: 0 converged, 2 no further progress, 3 not finite),
    ``"evaluations"`` (of the cost with its gradients, in total), ``"products"`` (with a matrix of second derivatives,
    in total), ``"cost"`` and ``"gradient_size"`` (largest component in absolute value, both at the point held after
    the call). A rule reports only when it is given a `stop`, and only what it knows. Each list is in the order of
    `updates`: one variable for each rule that was joined.

    Examples
    --------
    >>> x, stop = pytensor.shared(3.0, name="x"), pytensor.shared(0, name="stop")
    >>> updates = optapi.lbfgs([x], (x - 1) ** 2, stop=stop)
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> {role: variables[0].get_value().item() for role, variables in optapi.reports(updates).items()}
    {'reason': 0, 'evaluations': 3, 'cost': 0.0, 'gradient_size': 0.0}
    """
    found: dict[str, list[Any]] = {}
    for variable in updates:
        role = getattr(variable.tag, "role", None)
        if role is not None:
            found.setdefault(role, []).append(variable)
    return found
