"""State: the named shared variables that an algorithm carries from one call to the next, and files of them.

Names are ``rule/role`` or ``rule/role/parameter``. They are for readers and for files; in updates a variable is found
by its identity. Updates hold no two state variables of the same name, see `updates`.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pytensor
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.tensor.type import TensorType

from .checks import called, is_generator
from .notes import noted
from .typing import Updates


# The version of the format of all files that optapi writes. A change of what they hold, or of the names in them, is a
# new version.
FORMAT = 1
ADVICE = "Load it with the optapi that wrote it, or begin anew and save with this one"


def state(name: str, shape: tuple[int, ...] = (), dtype: str = "float64", fill: float | np.ndarray = 0,
          role: str | None = None, static: tuple[int | None, ...] | None = None) -> Any:  # fmt: skip
    """A state variable: a shared array, filled with `fill`.

    Parameters
    ----------
    name : str
        The name in messages and in files, unique in the updates that the variable will be in.
    shape : tuple of int
    dtype : str
    fill : number or array
        The value of each element, or an array that broadcasts to `shape`.
    role : str, optional
        What the variable reports, see `reports`.
    static : tuple of int or None, optional
        The static shape, `shape` by default.
    """
    value = np.full(shape, fill, dtype)
    variable = pytensor.shared(value, name=name, shape=shape if static is None else static, borrow=True)
    return noted(variable, state=True) if role is None else noted(variable, state=True, role=role)


def shape_of(parameter: Variable) -> tuple[int, ...]:
    """The present shape of `parameter`.

    Raises
    ------
    TypeError
        If the parameter is neither shared nor of fully known static shape.
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
    """Unique labels of `variables`, with which the names of their state end.

    The label is the name of the variable, or its position if it has no name, a name that is not unique, or one that
    begins with a digit and might be taken for a position.
    """
    return [name or str(position) for position, name in enumerate(_unique_names(variables))]


def names(variables: Iterable[Any]) -> list[str]:
    """Unique names of the `variables` of a dictionary of updates: those of the entries in a file.

    The name is mostly that of the variable, and ``number/name`` for one whose label would be its position. The numbers
    count these variables in the order of the dictionary, so that the same program gives the same names.
    """
    variables, numbers = list(variables), count()
    return [
        name or f"{next(numbers)}/{variable.name or 'unnamed'}"
        for name, variable in zip(_unique_names(variables), variables, strict=True)
    ]


def _unique_names(variables: Sequence[Any]) -> list[str | None]:
    """The names of `variables`; None in the place of one that is missing, not unique, or might be a number."""
    names = [variable.name for variable in variables]
    repeats = Counter(names)
    return [name if name and repeats[name] == 1 and not name[0].isdigit() else None for name in names]


def full_like(parameter: Variable, name: str, fill: float | np.ndarray = 0) -> Any:
    """State of the shape, static shape and dtype of `parameter`."""
    return state(name, shape_of(parameter), parameter.type.dtype, fill, static=parameter.type.shape)


def save(path: str | os.PathLike[str], updates: Updates) -> None:
    """Write the values of all variables of `updates` to the file `path`.

    The file is NumPy's ``.npz``, with no pickled objects in it. It is written beside `path` and renamed, so that a
    crash leaves the old file or the new one. A variable is stored under its name, or under a number and its name
    if that is not unique, a random generator as the state of its bit generator in JSON. The file has the version of its
    format in it.

    Parameters
    ----------
    path : str or path
        The file; an existing one is replaced.
    updates : dict
        What a rule returned. All its keys must be shared variables.

    Raises
    ------
    TypeError
        If a variable is not shared, or is neither a tensor nor a random generator.

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

    Calls of the same compiled function then give, bit for bit, what they would have given after `save`.

    Parameters
    ----------
    path : str or path
    updates : dict
        What the same rules returned, for parameters of the same names, shapes and dtypes, in the same order.

    Raises
    ------
    ValueError
        If the names, shapes or dtypes in the file are not those of `updates`, or the file is of another version of the
        format; the message says what differs, and no variable has been changed.
    TypeError
        If a variable is not shared, or is neither a tensor nor a random generator.

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
    """Write `arrays`, and `FORMAT`, to the file `path`, which is at all times the old file or the new one."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            # With the slash no entry is an argument of savez, the format, or the file name of another entry.
            entries: Any = {f"{entry}/": value for entry, value in arrays.items()}
            np.savez(file, format=np.array(FORMAT), **entries)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays in the file `path`, which `write` wrote.

    Raises
    ------
    ValueError
        If `write` did not write the file, if a part of it is lost, or if its format has another version.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {entry: file[entry] for entry in file.files}
    except (ValueError, TypeError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is not a file that save wrote, or not all of it; nothing was loaded") from error
    if "format" not in arrays:
        raise ValueError(
            f"{path} has no format version: it was not written by optapi, or by one older than format version 1, and "
            f"this optapi reads version {FORMAT}; nothing was loaded. {ADVICE}"
        )
    version = arrays.pop("format")
    if not np.array_equal(version, FORMAT):
        raise ValueError(
            f"{path} has format version {version}, this optapi reads version {FORMAT}; nothing was loaded. {ADVICE}"
        )
    return {entry.removesuffix("/"): array for entry, array in arrays.items()}


def differences(values: Mapping[str, Any], saved: Mapping[str, np.ndarray]) -> list[str]:
    """Why the arrays `saved`, read from a file, cannot replace the values `values`: sentences, none if they can."""
    wrong = [f"{entry} is missing in the file" for entry in values if entry not in saved]
    wrong += [f"{entry} is in the file only" for entry in saved if entry not in values]
    for entry, value in values.items():
        if entry in saved and _kind(as_array(value)) != _kind(saved[entry]):
            wrong.append(f"{entry} is {_kind(saved[entry])} in the file, {_kind(as_array(value))} here")
    return wrong


def as_array(value: Any) -> np.ndarray:
    """The value of a variable as an array; of a random generator, its state as JSON."""
    if isinstance(value, np.random.Generator):
        return np.array(json.dumps(value.bit_generator.state, default=lambda array: {"array": array.tolist()}))
    return np.asarray(value)


def restored(value: Any, array: np.ndarray) -> Any:
    """The inverse of `as_array`: the value in `array`, for a variable whose present value is `value`."""
    if not isinstance(value, np.random.Generator):
        return array
    generator = copy.deepcopy(value)
    generator.bit_generator.state = json.loads(
        array.item(), object_hook=lambda item: np.array(item["array"], "uint64") if set(item) == {"array"} else item
    )
    return generator


def _entries(updates: Updates) -> dict[str, Any]:
    """The variables of `updates` by the names of their entries in a file."""
    for variable in updates:
        if not isinstance(variable, SharedVariable):
            raise TypeError(f"the variable {called(variable)} is not shared, so it has no value to save or load")
        if not (isinstance(variable.type, TensorType) or is_generator(variable)):
            raise TypeError(f"the variable {called(variable)} is of type {variable.type}; only tensors can be saved")
    return dict(zip(names(updates), updates, strict=True))


def _kind(value: np.ndarray) -> str:
    """The kind of a value, which is that of the variable it can be loaded into: shape and dtype, or the generator."""
    if value.dtype.kind == "U":
        return f"a random generator {json.loads(value.item())['bit_generator']}"
    return f"of shape {value.shape} and dtype {value.dtype}"
