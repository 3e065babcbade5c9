"""State: the named shared variables that an algorithm carries from one call to the next, and their file.

Names are ``rule/role`` or ``rule/role/parameter``. They are for reading and for saving; in updates a variable is
found by itself.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pytensor
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.tensor.type import TensorType

from .checks import called, is_generator
from .typing import Updates


def state(
    name: str,
    shape: tuple[int, ...] = (),
    dtype: str = "float64",
    fill: Any = 0,
    role: str | None = None,
    static: tuple[int | None, ...] | None = None,
) -> Any:
    """A shared array of `fill`.

    Parameters
    ----------
    name : str
        Its name in messages and in files.
    shape : tuple of int
        Its shape.
    dtype : str
        Its dtype.
    fill : number
        The value of each element.
    role : str, optional
        What it reports, see `reports`.
    static : tuple of int or None, optional
        Its static shape, `shape` by default.
    """
    variable = pytensor.shared(np.full(shape, fill, dtype), name=name, shape=shape if static is None else static)
    if role is not None:
        variable.tag.role = role
    return variable


def shape_of(parameter: Any) -> tuple[int, ...]:
    """The shape of `parameter` as it is now.

    Raises
    ------
    TypeError
        If it is neither shared nor of fully known static shape.
    """
    if isinstance(parameter, SharedVariable):
        return tuple(np.shape(parameter.get_value(borrow=True)))
    if None in parameter.type.shape:
        raise TypeError(
            f"the parameter {called(parameter)} is not shared and its shape is not known, but the rule keeps state "
            "for it; make it with pytensor.shared(value), or give it a static shape"
        )
    return tuple(parameter.type.shape)


def labels(variables: Sequence[Any]) -> list[str]:
    """What the names of state for each of `variables` end with: its own name, or its position if that is not unique."""
    names = [variable.name for variable in variables]
    return [name if name and names.count(name) == 1 else str(position) for position, name in enumerate(names)]


def full_like(parameter: Any, name: str, fill: Any = 0) -> Any:
    """State of the shape, static shape and dtype of `parameter`."""
    return state(name, shape_of(parameter), parameter.type.dtype, fill, static=parameter.type.shape)


def save(path: str | os.PathLike[str], updates: Updates) -> None:
    """Write the values of all variables of `updates` to the file `path`.

    The file is NumPy's ``.npz``, with no pickled objects in it. It is written beside `path` and renamed, so that a
    crash leaves the old file or the new one. A variable is stored under its name, one without a name under its
    position among those without, a random generator as the state of its bit generator in JSON.

    Parameters
    ----------
    path : str or path
        The file; an existing one is replaced.
    updates : dict
        What a rule returned. All its keys must be shared variables.

    Raises
    ------
    ValueError
        If two variables have the same name.
    TypeError
        If a variable is not shared.

    Examples
    --------
    >>> x = pytensor.shared(4.0, name="x")
    >>> updates = optapi.adam([x], x**2)
    >>> optapi.save("training.npz", updates)
    >>> x.set_value(7.0)
    >>> optapi.load("training.npz", updates)
    >>> float(x.get_value())
    4.0
    """
    write(path, {entry: as_array(variable.get_value(borrow=True)) for entry, variable in _entries(updates).items()})


def load(path: str | os.PathLike[str], updates: Updates) -> None:
    """Set all variables of `updates` to the values in the file `path`, which `save` wrote.

    Going on with the same compiled function then gives, bit for bit, what going on without the file would have given.

    Raises
    ------
    ValueError
        If the names, shapes or dtypes in the file are not those of `updates`; the message lists what differs, and no
        variable has been changed.

    Examples
    --------
    >>> x = pytensor.shared(4.0, name="x")
    >>> optapi.save("training.npz", optapi.sgd([x], x**2))
    >>> optapi.load("training.npz", optapi.adam([x], x**2))
    Traceback (most recent call last):
        ...
    ValueError: training.npz was saved from other updates, nothing was loaded: ...
    """
    variables = _entries(updates)
    now = {entry: variable.get_value(borrow=True) for entry, variable in variables.items()}
    values = read(path)
    wrong = differences(now, values)
    if wrong:
        raise ValueError(f"{path} was saved from other updates, nothing was loaded: " + "; ".join(wrong))
    new = {entry: restored(value, values[entry]) for entry, value in now.items()}
    for entry, variable in variables.items():
        variable.set_value(new[entry], borrow=True)


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to the file `path`, which is at all times the old file or the new one."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            # The slash keeps an entry from being taken for an argument of savez, or for another entry's file name.
            np.savez(file, **{f"{entry}/": value for entry, value in arrays.items()})  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays in the file `path`, which `write` wrote."""
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {entry.removesuffix("/"): file[entry] for entry in file.files}
    except (ValueError, TypeError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is not a file that save wrote, or not all of it; nothing was loaded") from error


def differences(here: Mapping[str, Any], there: Mapping[str, np.ndarray]) -> list[str]:
    """What keeps the arrays `there`, read from a file, from taking the places of the values `here`, in words."""
    wrong = [f"{entry} is missing in the file" for entry in here if entry not in there]
    wrong += [f"{entry} is in the file only" for entry in there if entry not in here]
    for entry, value in here.items():
        if entry in there and _kind(as_array(value)) != _kind(there[entry]):
            wrong.append(f"{entry} is {_kind(there[entry])} in the file, {_kind(as_array(value))} here")
    return wrong


def as_array(value: Any) -> np.ndarray:
    """The value of a variable as an array; of a generator, its state as text."""
    if isinstance(value, np.random.Generator):
        return np.array(json.dumps(value.bit_generator.state, default=lambda array: {"array": array.tolist()}))
    return np.asarray(value)


def restored(value: Any, array: np.ndarray) -> Any:
    """What `as_array` made `array` of, where `value` is of that kind."""
    if not isinstance(value, np.random.Generator):
        return array
    generator = copy.deepcopy(value)
    generator.bit_generator.state = json.loads(
        array.item(), object_hook=lambda item: np.array(item["array"], "uint64") if set(item) == {"array"} else item
    )
    return generator


def _entries(updates: Updates) -> dict[str, Any]:
    """The variables of `updates` by the names that they have in a file."""
    entries: dict[str, Any] = {}
    unnamed = 0
    for variable in updates:
        if not isinstance(variable, SharedVariable):
            raise TypeError(f"the variable {called(variable)} is not shared, so it has no value to save or load")
        if not (isinstance(variable.type, TensorType) or is_generator(variable)):
            raise TypeError(f"the variable {called(variable)} is of type {variable.type}; only tensors can be saved")
        entry = variable.name or f"unnamed/{unnamed}"
        unnamed += not variable.name
        if entry in entries:
            raise ValueError(
                f"two variables of updates are named {entry!r}; pass name= to one of the rules, "
                "or give the parameters names of their own"
            )
        entries[entry] = variable
    return entries


def _kind(value: np.ndarray) -> str:
    """What must agree for `value` to be loaded: shape and dtype; of a generator, its algorithm."""
    if value.dtype.kind == "U":
        return f"a random generator {json.loads(value.item())['bit_generator']}"
    return f"of shape {value.shape} and dtype {value.dtype}"
