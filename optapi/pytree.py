"""Pytrees: nested containers of arrays, and their leaves as a flat list.

A pytree is an array, or a list, tuple or mapping of pytrees. A list or tuple of numbers is one leaf, a vector. Points
of a NumPy function are pytrees, and so are the models of stateful optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, TypeGuard

import numpy as np

from .checks import shown
from .typing import Tree


class NamedList(list[Any]):
    """A list whose entries are found by their names too.

    Parameters
    ----------
    values : iterable
    names : sequence of str
    """

    def __init__(self, values: Iterable[Any], names: Sequence[str]):
        super().__init__(values)
        self._names = tuple(names)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._names:
            raise KeyError(f"there is no {key!r}; there are {', '.join(self._names)}")
        return self[self._names.index(key)]

    def __reduce__(self) -> Any:
        return type(self), (list(self), self._names)


@dataclass(frozen=True)
class PyTree:
    """The structure of a pytree, without its leaves.

    Attributes
    ----------
    kind : type or None
        None for a leaf; else `dict`, `list`, `tuple`, or the class of a named tuple.
    keys : tuple
        The keys of a mapping, the positions of a sequence.
    parts : tuple of PyTree
        The structure of the entry at each key.
    """

    kind: Any = None
    keys: tuple[Any, ...] = ()
    parts: tuple[PyTree, ...] = ()

    @classmethod
    def of(cls, tree: Tree) -> PyTree:
        """The structure of `tree`."""
        if isinstance(tree, Mapping):
            return cls(dict, tuple(tree), tuple(cls.of(child) for child in tree.values()))
        if is_sequence(tree):
            kind = list if isinstance(tree, list) else type(tree) if hasattr(tree, "_make") else tuple
            return cls(kind, tuple(range(len(tree))), tuple(map(cls.of, tree)))
        return cls()

    def build(self, leaves: Sequence[Any]) -> Any:
        """The pytree of this structure with `leaves`, in their order."""
        return leaves[0] if self.kind is None else self._build(iter(leaves))

    def _build(self, leaves: Any) -> Any:
        if self.kind is None:
            return next(leaves)
        children = [part._build(leaves) for part in self.parts]
        if self.kind is dict:
            return dict(zip(self.keys, children, strict=True))
        return self.kind._make(children) if hasattr(self.kind, "_make") else self.kind(children)

    def leaves(self, name: str, tree: Tree, model: str = "the point") -> list[tuple[str, Any]]:
        """The leaves of `tree`, which has this structure, each with its place, such as ``name['key'][0]``.

        Parameters
        ----------
        name : str
            The name of `tree` in messages.
        tree : pytree
        model : str
            The name in messages of the pytree of which this is the structure.

        Raises
        ------
        ValueError
            If `tree` has another structure; the message names the place.
        """
        if self.kind is None:
            return [(name, tree)]
        if self.kind is dict:
            if not isinstance(tree, Mapping) or set(tree) != set(self.keys):
                wanted = f"dict with the keys {list(self.keys)}"
                raise ValueError(f"{name} is {_kind_of(tree)}; it has to be a {wanted}, as {model} is")
        elif not isinstance(tree, list | tuple) or len(tree) != len(self.keys):
            wanted = f"{self.kind.__name__} of {len(self.keys)}"
            raise ValueError(f"{name} is {_kind_of(tree)}; it has to be a {wanted}, as {model} is")
        return [
            leaf
            for key, part in zip(self.keys, self.parts, strict=True)
            for leaf in part.leaves(f"{name}[{key!r}]", tree[key], f"{model}[{key!r}]")
        ]

    def described(self) -> Any:
        """The structure as lists and strings, for JSON.

        Raises
        ------
        TypeError
            If the structure has named tuples, or keys that are neither strings nor integers.
        """
        if self.kind is None:
            return None
        if self.kind not in (dict, list, tuple) or not all(type(key) in (str, int) for key in self.keys):
            raise TypeError(
                f"a point with a {self.kind.__name__} of keys {list(self.keys)} cannot be saved; build it of lists, "
                "tuples, and dictionaries with strings for keys"
            )
        return [self.kind.__name__, list(self.keys), [part.described() for part in self.parts]]

    @classmethod
    def from_description(cls, description: Any) -> PyTree:
        """The structure of which `described` returned the `description`."""
        if description is None:
            return cls()
        kind, keys, parts = description
        kinds = {"dict": dict, "list": list, "tuple": tuple}
        return cls(kinds[kind], tuple(keys), tuple(map(cls.from_description, parts)))


def spread(name: str, given: Any, structure: PyTree, is_one: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """What `given`, an option put together as a point of this structure, has for each leaf, with what it is called.

    None and what `is_one` says is one are for all leaves below; a dictionary need not have all keys, and the others
    have None.

    Raises
    ------
    ValueError
        If it is put together in another way; the message names the place.
    """
    if structure.kind is None:
        return [(name, given)]
    if given is None or is_one(given):
        given = dict.fromkeys(structure.keys, given)
    elif structure.kind is dict:
        if not isinstance(given, Mapping) or not set(given) <= set(structure.keys):
            was = f"has the keys {list(given)}" if isinstance(given, Mapping) else f"is {shown(given)}"
            raise ValueError(f"{name} {was}; pass a dictionary with some of the keys {list(structure.keys)}")
    elif not isinstance(given, list | tuple) or len(given) != len(structure.keys):
        raise ValueError(f"{name} is {shown(given)}; pass a list of {len(structure.keys)} as the point is")
    else:
        given = dict(enumerate(given))
    pairs = zip(structure.keys, structure.parts, strict=True)
    return [leaf for key, part in pairs for leaf in spread(f"{name}[{key!r}]", given.get(key), part, is_one)]


def is_sequence(tree: Tree) -> TypeGuard[Sequence[Tree]]:
    """Whether `tree` is a list or tuple of pytrees, and not one of numbers, which is a vector."""
    return isinstance(tree, list | tuple) and not all(isinstance(child, Number) for child in tree)


def tree_map(function: Callable[..., Any], trees: Mapping[str, Any]) -> Any:
    """`function` of the arrays at each place of all `trees`, as a pytree of the structure of the first.

    Parameters
    ----------
    function : callable
        From an array of each tree, all of the same shape, to an array.
    trees : mapping
        The pytrees by their names in messages.

    Raises
    ------
    ValueError
        If structures or shapes differ; the message names the place.
    TypeError
        If a leaf is not an array of real numbers.
    """
    (first, tree), *_ = trees.items()
    structure = PyTree.of(tree)
    leaves = [structure.leaves(name, other, first) for name, other in trees.items()]
    results = []
    for places in zip(*leaves, strict=True):
        arrays = [real_array(place, leaf) for place, leaf in places]
        for (place, _), array in zip(places, arrays, strict=True):
            if array.shape != arrays[0].shape:
                model = f"{places[0][0]} {arrays[0].shape}"
                raise ValueError(f"{place} has shape {array.shape}, {model}; pass the same shapes")
        results.append(np.asarray(function(*arrays)))
    return structure.build(results)


def real_array(place: str, leaf: object) -> np.ndarray:
    """`leaf`, which stands at `place`, as an array of real numbers; an array is not copied."""
    try:
        array = np.asarray(leaf)
    except ValueError as error:
        raise TypeError(f"{place} is a {type(leaf).__name__} that does not make an array: {error}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{place} is a {type(leaf).__name__} of dtype {array.dtype}; pass an array of real numbers")
    return array


def _kind_of(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return f"a {type(tree).__name__} with the keys {list(tree)}"
    if isinstance(tree, list | tuple):
        return f"a {type(tree).__name__} of {len(tree)}"
    return f"an array of shape {tree.shape}" if isinstance(tree, np.ndarray) else f"a {type(tree).__name__}"


def point(name: str, tree: Tree) -> tuple[PyTree, list[np.ndarray]]:
    """The structure of `tree` and copies of its leaves, in floating point.

    Raises
    ------
    TypeError
        If a leaf is not an array of one of the dtypes float32 and float64, or of integers.
    ValueError
        If a value is not finite, or there is no leaf.
    """
    structure = PyTree.of(tree)
    leaves = structure.leaves(name, tree)
    if not leaves:
        raise ValueError(f"{name} is empty; pass at least one array")
    return structure, [_parameter(place, leaf) for place, leaf in leaves]


def _parameter(place: str, leaf: Any) -> np.ndarray:
    try:
        array = np.asarray(leaf)
    except ValueError as error:
        raise TypeError(f"{place} is a {type(leaf).__name__} that does not make an array: {error}") from None
    if array.size == 0 and isinstance(leaf, list | tuple):
        array = array.astype("float64")
    if array.dtype.kind not in "iu" and array.dtype not in ("float32", "float64"):
        raise TypeError(
            f"{place} is a {type(leaf).__name__} of dtype {array.dtype}; pass numbers in float32, float64 or integers"
        )
    array = np.array(array, "float64" if array.dtype.kind in "iu" else array.dtype.newbyteorder("="), order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"{place} has values that are not finite; start from finite ones")
    return array


def as_array(value: object) -> np.ndarray:
    """`value` as an array, of no kind of number if it is none, as a ragged list."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.asarray(None)


def number(name: str, value: object) -> float:
    """`value`, a number or an array of size 1 that the function `name` returned, as a float.

    Raises
    ------
    ValueError
        If `value` is neither; the message names the function.
    """
    if isinstance(value, float):
        return float(value)
    array = as_array(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} returned {_short(value)}; it has to return a real number")
    if array.size != 1:
        raise ValueError(
            f"{name} returned an array of shape {array.shape}; it has to return a number, of shape (): "
            "sum or average what it returned"
        )
    return float(array.reshape(()))


def derivative(name: str, value: object, model: np.ndarray) -> np.ndarray:
    """`value`, which the function `name` returned for the array `model`, as an array of its shape and dtype, a copy.

    Raises
    ------
    ValueError
        If `value` has another shape or is not real; the message names the function and both shapes.
    """
    array = as_array(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} returned {_short(value)}; it has to return real numbers of shape {model.shape}")
    if array.shape != model.shape:
        raise ValueError(
            f"{name} returned an array of shape {array.shape} where the point has shape {model.shape}; "
            "return the derivative with respect to each component, in its place"
        )
    if array.dtype == model.dtype:
        return np.array(array, model.dtype, order="C")
    with np.errstate(over="ignore"):  # a float64 that is too large for float32 becomes infinite
        return np.array(array, model.dtype, order="C")


def derivatives(name: str, value: Tree, structure: PyTree, models: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`derivative` for each leaf of `value`, of the given structure; `models` are the leaves of the point."""
    if structure.kind is None:
        return [derivative(name, value, models[0])]
    leaves = structure.leaves(f"what {name} returned", value)
    return [
        derivative(f"{name}, in the place{place.removeprefix(f'what {name} returned')},", leaf, model)
        for (place, leaf), model in zip(leaves, models, strict=True)
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def named(argument: str, function: Callable[..., Any]) -> str:
    """How a message names the function that was passed as `argument`."""
    name = getattr(function, "__name__", None)
    return argument if name in (None, argument) else f"{argument} ({name})"


def largest(arrays: Sequence[np.ndarray]) -> float:
    """The largest component in absolute value; NaN if one is NaN, 0 if there is none."""
    result = 0.0
    for array in arrays:
        size = np.abs(array).max(initial=0.0)
        if not (size <= result or result != result):
            result = size
    return float(result)


def distance(arrays: Sequence[np.ndarray], others: Sequence[np.ndarray] | None) -> float:
    """The Euclidean distance of the points `arrays` and `others`, or of `arrays` and zero if `others` is None."""
    changes = arrays if others is None else [a - b for a, b in zip(arrays, others, strict=True)]
    return float(np.sqrt(sum(np.vdot(change, change) for change in changes)))
