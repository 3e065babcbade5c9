"""Batches: the updates of a rule for many starts at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable

from ..checks import called, check_keys, check_updates, is_generator
from ..hints import hinted
from ..notes import copy_notes
from ..typing import Updates
from ..updates import extend
from .loops import as_update, check_generators, wide_graph


@hinted
def batch(updates: Updates, starts: Mapping[Any, Any]) -> Updates:
    """`updates` for many members at once, each with its own parameters, state and stop.

    Parameters
    ----------
    updates : dict
        What a rule returned. All its keys must be shared variables.
    starts : dict
        From variables of `updates`, mostly the parameters, to the shared variables that take their places. A variable
        of shape (...) is replaced by one of shape (members, ...) and the same dtype. Pass also the wide variables that
        you want to read, such as one for `stop`.

    Returns
    -------
    dict
        Updates of the wide variables. For state that is not in `starts` a wide variable is made, with the present
        value in each row. `reports` and `inverse_hessian` work on them: all that they return has an axis of the members
        in front. Random generators stay as they are and are shared by the members, as are the data that the cost reads.

    Raises
    ------
    ValueError, TypeError
        If a variable in `starts` has another shape or dtype, or a generator is drawn from and never advanced.
    KeyError
        If one variable in `starts` stands for two.

    Examples
    --------
    >>> x, stop = pytensor.shared(0.0, name="x"), pytensor.shared(0, name="stop")
    >>> updates = optapi.lbfgs([x], (x**2 - 4) ** 2, stop=stop)
    >>> starts, stops = pytensor.shared(np.array([-3.0, 0.5, 5.0])), pytensor.shared(np.zeros(3, "int64"))
    >>> many = optapi.loop(optapi.batch(updates, {x: starts, stop: stops}), 100, stops)
    >>> _ = pytensor.function([], [], updates=many)()
    >>> starts.get_value().round(3)
    array([-2.,  2.,  2.])
    """
    check_updates(updates)
    check_keys("starts", starts, updates)
    check_generators(updates)
    if not starts:
        raise ValueError("starts is empty; pass a wide shared variable for at least one parameter")
    members = {_members(variable, wide) for variable, wide in starts.items()}
    if len(members) > 1:
        raise ValueError(f"the variables in starts have {sorted(members)} rows; pass as many rows in each")
    [rows] = members

    wides = {
        variable: copy_notes(variable, starts[variable] if variable in starts else _widened(variable, rows))
        for variable in updates
        if not is_generator(variable)
    }
    generators = [variable for variable in updates if is_generator(variable)]
    # The static shape of a variable says how it broadcasts, also in a batch.
    shaped = {variable: pt.specify_shape(wide, (rows, *variable.type.shape)) for variable, wide in wides.items()}
    try:
        values = wide_graph([updates[variable] for variable in [*wides, *generators]], shaped)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            "updates cannot be given a batch axis, as those of sparse matrices, or of a scan that draws random "
            "numbers: there make the batch first and then the scan"
        ) from error
    new: Updates = {}
    for wide, value in zip(wides.values(), values, strict=False):
        if value.type.ndim < wide.type.ndim:
            value = pt.broadcast_to(value, wide.shape)
        extend(new, {wide: as_update(value, wide)})
    return extend(new, dict(zip(generators, values[len(wides) :], strict=True)))


def _members(variable: Any, wide: Any) -> int:
    """The number of rows of `wide`, which must fit `variable`."""
    if not isinstance(wide, SharedVariable):
        raise TypeError(f"starts holds a {type(wide).__name__} for {called(variable)}; pass a shared variable")
    value = wide.get_value(borrow=True)
    if (
        wide.type.dtype != variable.type.dtype
        or wide.type.ndim != variable.type.ndim + 1
        or value.shape[1:] != np.shape(_value(variable))
    ):
        raise ValueError(
            f"starts holds {wide.type} for {called(variable)}, which is {variable.type}; "
            "pass the same dtype and shape with one axis more in front"
        )
    return value.shape[0]


def _widened(variable: Any, rows: int) -> Any:
    """A shared variable with the value of `variable` in each of its `rows`."""
    value = np.asarray(_value(variable))
    return pytensor.shared(np.stack([value] * rows), name=variable.name, shape=(rows, *variable.type.shape))


def _value(variable: Any) -> Any:
    """The value of a shared variable, not copied."""
    if not isinstance(variable, SharedVariable):
        raise TypeError(f"the variable {called(variable)} is not shared; batch takes updates of shared variables only")
    return variable.get_value(borrow=True)
