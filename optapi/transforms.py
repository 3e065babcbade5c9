"""Update transforms: what is done to the updates that a rule returned. From a dictionary to a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytensor.tensor as pt
from pytensor.tensor.type import float_dtypes

from .checks import as_dtype, check_count, check_keys, is_generator, scalar
from .loops import hold, like
from .moments import running_average
from .objective import conjunction
from .state import state
from .updates import Updates, extend


def skip_nonfinite(updates: Updates, *, name: str = "skip_nonfinite") -> Updates:
    """`updates` that change nothing, but for random generators, in a call that would make a finite value not finite.

    The calls skipped are counted in a state variable of the role ``"skipped"``, see `reports`.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    name : str
        The prefix of the name of the counter.

    Returns
    -------
    dict
    """
    good = [
        pt.all(pt.isfinite(value) | ~pt.isfinite(variable))
        for variable, value in updates.items()
        if not is_generator(variable) and variable.type.dtype in float_dtypes
    ]
    if not good:
        return dict(updates)
    bad = ~conjunction(good)
    skipped = state(f"{name}/skipped", dtype="int64", role="skipped")
    return extend(hold(updates, bad), {skipped: skipped + bad})


def project(updates: Updates, projections: Mapping[Any, Callable[[Any], Any]]) -> Updates:
    """`updates` with some parameters projected, for instance onto bounds: ``{p: lambda value: value.clip(0, 1)}``.

    A parameter that its rule leaves where it is is left there. A rule that keeps what it knows of its last point
    notices that the point was moved, and evaluates the cost again.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    projections : dict
        From parameters to functions of the next value.

    Returns
    -------
    dict
    """
    check_keys("projections", projections, updates)
    projected = dict(updates)
    for parameter, projection in projections.items():
        value = updates[parameter]
        moved = pt.any(pt.neq(value, parameter))
        projected[parameter] = like(pt.switch(moved, projection(value), parameter), parameter)
    return projected


def average(
    updates: Updates, averages: Mapping[Any, Any], *, weight: Any = None, after: int = 0, name: str = "average"
) -> Updates:
    r"""`updates` that also average the parameters: ``average(updates, {p: p_bar})``.

    The mean of all values, :math:`\bar x \leftarrow \bar x + (x - \bar x) / t` (Polyak-Ruppert averaging), or with
    `weight` :math:`w` a running average :math:`\bar x \leftarrow w \bar x + (1 - w) x` that begins at the first value.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    averages : dict
        From parameters to the shared variables that are to hold their averages.
    weight : scalar, optional
        The weight of the past, from 0 to below 1.
    after : int
        The number of calls before averaging begins; until then an average is the parameter itself.
    name : str
        The prefix of the name of the counter.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable that is to hold an average already has an update.

    References
    ----------
    Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging.
    """
    check_keys("averages", averages, updates)
    after = check_count("after", after, low=0)
    count = state(f"{name}/count", dtype="int64")
    new: Updates = {count: count + 1}
    t: Any = pt.maximum(count + 1 - after, 1)
    for parameter, mean in averages.items():
        value = updates[parameter].astype(mean.type.dtype)
        if weight is None:
            following = mean + (value - mean) / as_dtype(t, mean.type.dtype)
        else:
            following = running_average(mean, value, scalar("weight", weight, 0, below=1))
        new[mean] = like(pt.switch(pt.eq(t, 1), value, following), mean)
    return extend(dict(updates), new)
