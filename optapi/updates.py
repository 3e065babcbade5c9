"""Updates: dictionaries from a variable to its next value, joined without losing one.

A plain dictionary would take the second of two updates of the same variable and silently drop the first; here that is
a ``KeyError``. Two state variables of the same name are a ``ValueError``: the names of state are those of the entries
in a file, see `optapi.save`, and a clash is best known before the training. Only what `state` of `optapi.state` made
counts. Parameters and other variables of the user may have any names, or none.
"""

from __future__ import annotations

from typing import Any

from .checks import called, check_updates
from .hints import hinted
from .notes import note
from .typing import Updates


def extend(updates: Updates | None, new: Updates) -> Updates:
    """`updates` extended in place with the items of `new`, or a new dictionary if it is None.

    Raises
    ------
    KeyError
        If a variable of `new` already has an update. `updates` is then left as it was.
    ValueError
        If two state variables of the result have the same name. `updates` is then left as it was.
    """
    if updates is None:
        updates = {}
    for variable in new:
        if variable in updates:
            raise KeyError(f"the variable {called(variable)} already has an update; a variable can have only one")
    names = set()
    for variable in [*updates, *new]:
        if note(variable, "state") and variable.name in names:
            raise ValueError(
                f"two state variables are named {variable.name!r}; pass name= with a name of its own to one of the "
                "rules or transforms that made them"
            )
        if note(variable, "state"):
            names.add(variable.name)
    updates.update(new)
    return updates


def join(*dictionaries: Updates) -> Updates:
    """One new dictionary of all items of `dictionaries`.

    Raises
    ------
    KeyError
        If a variable has an update in more than one of them.
    ValueError
        If two state variables have the same name, as those of two rules that were called with the same `name`.

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
    result: Updates = {}
    for updates in dictionaries:
        extend(result, check_updates(updates, "an argument of join"))
    return result


@hinted
def reports(updates: Updates) -> dict[str, list[Any]]:
    """The variables of `updates` in which rules report how they are doing, by role.

    The roles of rules are ``"reason"`` (0 while running, and then why it ended: 0 converged, 2 no further progress,
    3 not finite, 6 infeasible, 7 converged to the precision of the cost, 8 unbounded below), ``"evaluations"`` (of the
    cost with its gradients, in total), ``"products"`` (with a matrix of second derivatives, in total), ``"cost"``,
    ``"gradient_size"`` (the largest absolute component) and ``"violation"`` (the largest of general constraints; all
    three at the point held after the call). A rule reports only when it is given a `stop`, and only what it computes
    anyway.

    Returns
    -------
    dict
        From a role to a list of variables in the order of `updates`, one for each rule that was joined.

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
    result: dict[str, list[Any]] = {}
    for variable in check_updates(updates):
        role = note(variable, "role")
        if role is not None:
            result.setdefault(role, []).append(variable)
    return result
