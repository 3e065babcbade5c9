"""Rules by group: one rule that gives each group of parameters a rule of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytensor.graph.basic import Variable

from ..checks import called, check_callable
from ..hints import hinted
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables
from ..updates import extend


@hinted
def partition(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *,
              groups: Sequence[tuple[Any, Callable[..., Updates]]], otherwise: Callable[..., Updates] | None = None,
              step_size: StepSize | None = None, tolerance: Scalar | None = None, ascent: bool = False,
              name: str = "partition") -> Updates:  # fmt: skip
    """A rule for each group of parameters, as one rule.

    So it goes wherever a rule goes, into `compile_minimizer`, `minimize` or `loop`, with one tolerance and one `stop`,
    and the gradients are differentiated once. The options of a group are those of its rule, mostly by
    ``functools.partial``: the step size, a schedule, the decay.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed by rules that read its value, such as `polyak_sgd`.
    groups : list of pairs
        Pairs ``(choice, rule)``. A choice is a function that is asked about each parameter, such as ``lambda p: p.ndim
        > 1``, or a list of parameters or of their names, or one of these. A parameter goes to the first group that
        takes it.
    otherwise : callable, optional
        The rule of all parameters that no group takes.
    step_size : scalar or schedule, optional
        That of the rules that are no ``functools.partial`` with one of their own; by default each has its default.

    Returns
    -------
    dict
        What the rules return, each with the parameters of its group. Their state is named ``name/number/rule/role``,
        with the number of the group, from 0; that of `otherwise` is the last.

    Raises
    ------
    ValueError
        Also if a group takes no parameter, if two lists name the same one, if no group takes one and there is no
        `otherwise`, or if a rule evaluates the cost at other points, where it would see the other groups move.

    Notes
    -----
    Two groups of the same elementwise rule do as that rule on all, bit for bit. A rule with numbers of all its
    parameters, as `prodigy`, `dog` and `polyak_sgd`, has them of its group alone; clip by a global norm before, see
    `optapi.gradients`.

    Examples
    --------
    >>> from functools import partial
    >>> W, b = pytensor.shared(np.ones((2, 2)), name="W"), pytensor.shared(np.ones(2), name="b")
    >>> cost = pt.sum((pt.dot([1.0, 2.0], W) + b - [1.0, -1.0]) ** 2)
    >>> fast, slow = partial(optapi.adam, step_size=0.1), partial(optapi.sgd, step_size=0.01)
    >>> updates = optapi.partition([W, b], cost, groups=[(["W"], fast)], otherwise=slow)
    >>> [variable.name for variable in updates]
    ['partition/0/adam/mean/W', 'partition/0/adam/mean_square/W', 'W', 'partition/0/adam/count', 'b']
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    new: Updates = {}
    for number, (rule, group) in enumerate(_parts(f.parameters, groups, otherwise)):
        extend(new, f.part(rule, group, str(number), step_size))
    return f.finish(new)


def _parts(parameters: Sequence[Any], groups: Any, otherwise: Any) -> list[tuple[Any, list[Any]]]:
    """The rules, each with the parameters that it takes."""
    if not isinstance(groups, list | tuple) or not all(isinstance(g, list | tuple) and len(g) == 2 for g in groups):
        raise TypeError("groups has to be a list of pairs (choice, rule); pass for instance [(['W'], optapi.adam)]")
    parts: list[tuple[Any, list[Any]]] = []
    listed, left = set(), list(parameters)
    for position, (choice, rule) in enumerate(groups):
        check_callable(f"the rule of groups[{position}]", rule, "a rule such as optapi.adam")
        chosen = _chosen(choice, parameters, position)
        if not callable(choice) or isinstance(choice, Variable):
            for p in chosen:
                if p in listed:
                    raise ValueError(f"groups lists the parameter {called(p)} twice; list it in one group")
                listed.add(p)
        taken = [p for p in chosen if p in left]
        if not taken:
            raise ValueError(f"groups[{position}] takes no parameter; leave it out, or correct its choice")
        left = [p for p in left if p not in taken]
        parts.append((rule, taken))
    if otherwise is not None:
        check_callable("otherwise", otherwise, "a rule such as optapi.adam")
    if left and otherwise is None:
        names = ", ".join(map(called, left))
        raise ValueError(f"no group takes the parameters {names}; pass otherwise=, a rule for the rest")
    return [*parts, (otherwise, left)] if left else parts


def _chosen(choice: Any, parameters: Sequence[Any], position: int) -> list[Any]:
    """The parameters of a choice, in their order."""
    if callable(choice) and not isinstance(choice, Variable):
        return [p for p in parameters if choice(p)]
    entries = list(choice) if isinstance(choice, list | tuple | set) else [choice]
    for entry in entries:
        matches = [p for p in parameters if p is entry or (isinstance(entry, str) and p.name == entry)]
        if not isinstance(entry, str | Variable):
            raise TypeError(
                f"groups[{position}] chooses by a {type(entry).__name__}; pass a function of a parameter, or a list of "
                "parameters or their names"
            )
        if len(matches) != 1:
            shown = repr(entry) if isinstance(entry, str) else called(entry)
            known = ", ".join(map(called, parameters))
            raise ValueError(
                f"groups[{position}] names {shown}, which {len(matches) or 'none'} of the parameters {known} "
                f"{'are' if len(matches) > 1 else 'is'}; pass names that are in parameters once"
            )
    return [p for p in parameters if any(p is e or (isinstance(e, str) and p.name == e) for e in entries)]
