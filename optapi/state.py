"""State: the named shared variables that an algorithm carries from one call to the next, and what files say of them.

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
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.tensor.type import TensorType

from . import files
from .checks import called, check_updates, is_generator
from .graph.compat import assign
from .hints import hinted
from .notes import note, noted
from .typing import Updates


# What the names of values begin with in a file.
VALUES = "values/"
# How far the places of bit generators in their buffers go, Mersenne Twister's and Philox's.
BUFFERS = {"pos": 624, "buffer_pos": 4}


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


@hinted
def save(path: str | os.PathLike[str], updates: Updates) -> None:
    """Write the values of all variables of `updates` to the file `path`.

    The file is NumPy's ``.npz``, without pickled objects. At all times it is the old file or the new one, whole,
    whoever else saves or reads there, and if the program is killed; its mode stays, and symbolic links are followed. A
    variable is stored under its name, or under a number and its name if that is not unique; a random generator as the
    state of its bit generator, in JSON. The file says what it holds, which versions wrote it, and has a checksum.

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
    OSError
        If the file cannot be written. The old one is as it was then.

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
    variables = _entries(updates)
    values = {f"{VALUES}{entry}": as_array(variable.get_value(borrow=True)) for entry, variable in variables.items()}
    files.write(path, "updates", {"order": _order(variables)}, values)


@hinted
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
        If the names, shapes or dtypes in the file are not those of `updates`; if `save` did not write the file, or in
        another version of the format; or if it is damaged. The message says so, and no variable has been changed.
    FileNotFoundError, OSError
        If there is no such file, or it cannot be read.
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
    now = {f"{VALUES}{entry}": variable.get_value(borrow=True) for entry, variable in variables.items()}
    description, arrays = files.read(path, "updates", {"order": is_names})
    new = replaced(path, now, arrays, "was saved from other updates, nothing was loaded")
    check_order(path, _order(variables), description["order"])
    assign(list(variables.values()), [new[f"{VALUES}{entry}"] for entry in variables])


def replaced(
    path: str | os.PathLike[str], values: Mapping[str, Any], arrays: Mapping[str, np.ndarray], said: str
) -> dict[str, Any]:
    """The values that `arrays`, of the file `path`, put in the place of `values`.

    Raises
    ------
    ValueError
        If they cannot, because names, shapes, dtypes or kinds of generators differ: what is `said` of the file, and all
        differences. Also if an array is not such as `as_array` makes.
    """
    wrong = [f"{_short(entry)} is missing in the file" for entry in values if entry not in arrays]
    wrong += [f"{_short(entry)} is in the file only" for entry in arrays if entry not in values]
    with files.refusing(path):
        for entry in values.keys() & arrays.keys():
            here, there = _kind(as_array(values[entry])), _kind(arrays[entry])
            if here != there:
                wrong.append(f"{_short(entry)} is {there} in the file, {here} here")
    if wrong:
        raise ValueError(f"{path} {said}: " + "; ".join(wrong))
    with files.refusing(path):
        return {entry: _restored(value, arrays[entry]) for entry, value in values.items()}


def check_order(path: str | os.PathLike[str], here: Sequence[str], there: Sequence[str]) -> None:
    """The variables are `there`, in the file `path`, in the order that they have `here`.

    A rule may keep those of all its parameters packed into one vector, where names cannot tell them apart.
    """
    if list(here) != list(there):
        raise ValueError(
            f"{path} was saved with {', '.join(there)} in this order, and here it is {', '.join(here)}; nothing was "
            "loaded. Build it in the same order"
        )


def is_names(value: Any) -> bool:
    """Whether `value` is a list of strings."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def as_array(value: Any) -> np.ndarray:
    """The value of a variable as an array; of a random generator, its state as JSON."""
    if isinstance(value, np.random.Generator):
        return np.array(json.dumps(value.bit_generator.state, default=lambda array: {"array": array.tolist()}))
    return np.asarray(value)


def _restored(value: Any, array: np.ndarray) -> Any:
    """The inverse of `as_array`: the value in `array`, for a variable whose present value is `value`."""
    if not isinstance(value, np.random.Generator):
        return array
    generator, saved = copy.deepcopy(value), json.loads(array.item(), object_hook=_with_array)
    _check_alike(generator.bit_generator.state, saved)
    generator.bit_generator.state = saved
    return generator


def _with_array(item: dict[str, Any]) -> Any:
    return np.array(item["array"], "uint64") if set(item) == {"array"} else item


def _check_alike(here: Any, there: Any, name: str = "state") -> None:
    """The state `there` of a bit generator has the parts that it has `here`.

    NumPy believes what it says of its arrays, and of places in buffers, and would read beside them.
    """
    if isinstance(here, dict):
        is_alike = isinstance(there, dict) and list(here) == list(there)
        for part in here if is_alike else ():
            _check_alike(here[part], there[part], part)
    elif isinstance(here, np.ndarray):
        is_alike = isinstance(there, np.ndarray) and here.shape == there.shape
    else:
        is_alike = type(there) is type(here) and (here == there or (isinstance(here, int) and there >= 0))
        is_alike = is_alike and (name not in BUFFERS or 0 <= there <= BUFFERS[name])
    if not is_alike:
        raise ValueError(f"the {name} of a random generator is not such as NumPy has")


def _entries(updates: Updates) -> dict[str, Any]:
    """The variables of `updates` by the names of their entries in a file."""
    for variable in check_updates(updates):
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


def _order(variables: Mapping[str, Any]) -> list[str]:
    """The names of those of `variables` that are no state: parameters, and what else the user updates."""
    return [entry for entry, variable in variables.items() if not note(variable, "state")]


def _short(entry: str) -> str:
    return entry.removeprefix(VALUES)
