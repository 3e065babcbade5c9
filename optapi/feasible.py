"""Bounds: which points are feasible, and how a rule stays among them.

What a user passes as ``bounds`` is checked here, in all its forms, and becomes a `Box` for each parameter. A rule that
works on one vector has the box of that vector, see `Objective.box`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import float_dtypes, integer_dtypes

from .checks import as_dtype, called, check_updates, is_dense, shown, warn
from .hints import hinted
from .notes import note
from .pytree import PyTree, spread
from .state import shape_of
from .typing import Bounds, Tensor, Updates
from .vectors import largest


FORMS = (
    "pass a dictionary from parameters, or their names, to pairs (low, high), a list with a pair or None for each "
    "parameter, or one pair of numbers for all; None is no bound"
)


class Box(NamedTuple):
    r"""The points :math:`x` with :math:`l \le x \le h`. Where :math:`h < l`, it is :math:`x = l`.

    Attributes
    ----------
    low, high : variables
        :math:`l` and :math:`h`, infinite where there is no bound. They broadcast to the points.
    """

    low: Any
    high: Any

    def project(self, point: Tensor) -> Any:
        """The nearest point of the box; NaN stays."""
        return between(point, self.low, self.high)

    def residual(self, point: Tensor, gradient: Tensor) -> Any:
        r"""The projected gradient, :math:`x - P(x - g)`, which vanishes where nothing feasible descends.

        It is written so that no digits of :math:`g` are lost where :math:`x` is much larger.
        """
        return -between(-gradient, self.low - point, self.high - point)

    def moved(self, point: Tensor, step: Tensor) -> Any:
        """The feasible point that is `step` away; a component that reaches its bound but for rounding is set to it."""
        nearly = np.asarray(1 - 4 * np.finfo(point.type.dtype).eps, point.type.dtype)
        low, high = step <= nearly * (self.low - point), step >= nearly * (self.high - point)
        return pt.switch(low, self.low, pt.switch(high, self.high, self.project(point + step)))

    def longest(self, direction: Tensor, point: Tensor | float = 0.0) -> Any:
        """The largest multiple of `direction` from `point` on that stays inside; infinite if all do."""
        room = pt.switch(direction > 0, self.high, self.low) - pt.as_tensor(point).astype(direction.type.dtype)
        moves = pt.neq(direction, 0)
        return 1 / largest(pt.switch(moves, direction / pt.switch(moves, room, pt.ones_like(room)), direction))

    def active(self, point: Tensor) -> Any:
        """-1 where `point` is at its lower bound, 1 where it is at the upper one, 0 inside; of the dtype of `point`."""
        minus, zero, one = (np.asarray(value, point.type.dtype) for value in (-1, 0, 1))
        return pt.switch(point <= self.low, minus, pt.switch(point >= self.high, one, zero))


def between(value: Any, low: Any, high: Any) -> Any:
    """`value` inside of the limits; where the high is below the low, the low. NaN stays."""
    # By comparisons: minimum and maximum lose NaN under numba on PyTensor 3.0.
    below = pt.switch(value > high, high, value)
    return pt.switch(below < low, low, below)


@hinted
def active(updates: Updates) -> list[np.ndarray]:
    """Which components are at their bounds after the last call of a rule.

    Returns
    -------
    list of arrays of int8
        For each parameter that has bounds, in their order: -1 at the low, 1 at the high, 0 inside.

    Raises
    ------
    ValueError
        If no rule in `updates` has bounds.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, 1.0]), name="x")
    >>> updates = optapi.sgd([x], pt.sum(x**2), step_size=0.1, bounds=(1.0, 2.0))
    >>> _ = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)()
    >>> optapi.active(updates)
    [array([ 1, -1], dtype=int8)]
    """
    found = [np.array(variable.get_value()) for variable in check_updates(updates) if note(variable, "active")]
    if not found:
        raise ValueError("no rule in updates has bounds; pass what a rule with bounds= returned")
    return found


def boxes(bounds: Bounds | None, parameters: Sequence[Any]) -> list[Box | None] | None:
    """A box for each of `parameters`, None for one that is free; None if all are.

    Parameters
    ----------
    bounds : dict, list, pair or None
        A dictionary from parameters, or their names, to pairs ``(low, high)``; a list with a pair or None for each
        parameter; or one pair, of numbers for all parameters, and where there is one parameter also of arrays. Each of
        the two is None, a number, or an array or symbolic variable that broadcasts to the parameter and does not depend
        on parameters.
        None and infinite are no bound.

    Raises
    ------
    TypeError, ValueError
        If it is not; the message names the parameter.
    """
    if bounds is None:
        return None
    found = [_box(pair, p, parameters) for pair, p in zip(_pairs(bounds, parameters), parameters, strict=True)]
    return None if all(box is None for box in found) else found


def _pairs(bounds: Any, parameters: Sequence[Any]) -> list[Any]:
    """The entry of `bounds` for each parameter."""
    if isinstance(bounds, Mapping):
        return by_parameter("bounds", bounds, parameters, FORMS)
    if not isinstance(bounds, list | tuple):
        raise TypeError(f"bounds is {shown(bounds)}; {FORMS}")
    is_pair = len(bounds) == 2 and not any(isinstance(value, list | tuple) for value in bounds)
    if is_pair and (len(parameters) == 1 or all(value is None or np.ndim(value) == 0 for value in bounds)):
        return [bounds] * len(parameters)
    if len(bounds) != len(parameters):
        raise ValueError(f"bounds has {len(bounds)} entries for {len(parameters)} parameters; {FORMS}")
    return list(bounds)


def by_parameter(argument: str, given: Mapping[Any, Any], parameters: Sequence[Any], forms: str) -> list[Any]:
    """The entry of the dictionary `given` for each parameter or its name, None for one that is not in it."""
    found = {p: given[key] for p in parameters for key in (p, p.name) if key is not None and key in given}
    for key in given:
        if not any(key is p or (isinstance(key, str) and key == p.name) for p in parameters):
            name = called(key) if isinstance(key, Variable) else repr(key)
            raise ValueError(f"{argument} has a key {name}, which is none of the parameters; {forms}")
    if len(found) != len(given):
        raise ValueError(f"{argument} has two keys that are one parameter; {forms}")
    return [found.get(p) for p in parameters]


def _box(pair: Any, parameter: Any, parameters: Sequence[Any]) -> Box | None:
    """The box of one parameter."""
    name = f"the bounds of {called(parameter)}"
    if pair is None:
        return None
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise TypeError(f"{name} are {pair!r}; pass a pair (low, high) or None")
    try:
        shape: Any = shape_of(parameter)
    except TypeError:  # a rule without state takes parameters of any shape
        shape = parameter.type.ndim
    dtype = parameter.type.dtype
    low, high = (side_of(name, v, side, dtype, shape, parameters) for v, side in zip(pair, (-1, 1), strict=True))
    if isinstance(low, Constant) and isinstance(high, Constant):
        _check_order(name, low.data, high.data)
        if np.all(np.isinf(low.data)) and np.all(np.isinf(high.data)):
            return None
    return Box(low, high)


def _check_order(name: str, low: np.ndarray, high: np.ndarray) -> None:
    if np.any(low > high):
        raise ValueError(f"{name} have a low above its high; pass low <= high, equal ones to fix a component")


def side_of(name: str, value: Any, side: int, dtype: str, shape: tuple[int, ...] | int,
            parameters: Sequence[Any]) -> Any:  # fmt: skip
    """One side of limits, -1 the lower and 1 the upper one, as a variable of `dtype` that broadcasts to `shape`.

    Of a shape that is not known it is the number of dimensions.
    """
    word, ndim = "low" if side < 0 else "high", shape if isinstance(shape, int) else len(shape)
    if value is None:
        value = side * np.inf
    if isinstance(value, Variable) and not isinstance(value, Constant):
        if not is_dense(value) or value.type.dtype not in (*float_dtypes, *integer_dtypes):
            raise TypeError(f"{name} have a {word} of type {value.type}; pass real numbers")
        if set(parameters) & set(ancestors([value])):
            raise ValueError(f"{name} have a {word} that depends on the parameters; bounds are no functions of them")
        if value.type.ndim > ndim:
            raise ValueError(f"{name} have a {word} of {value.type.ndim} dimensions, and it has {ndim}")
        return as_dtype(value, dtype)  # type: ignore[arg-type]
    value = value.data if isinstance(value, Constant) else value
    return pt.constant(_numbers(name, value, side, dtype, ndim, None if isinstance(shape, int) else shape))


def _numbers(name: str, value: Any, side: int, dtype: str, ndim: int, shape: tuple[int, ...] | None) -> np.ndarray:
    """One side of the box of a parameter, a number or an array, in the parameter's dtype."""
    word = "low" if side < 0 else "high"
    if isinstance(value, list | tuple) or np.asarray(value).dtype.kind not in "fiu":
        raise TypeError(f"{name} have a {word} that is {shown(value)}; pass a number, an array or None")
    with np.errstate(over="ignore"):
        array = np.asarray(value).astype(dtype)
    wide = (1,) * (ndim - array.ndim) + array.shape
    if len(wide) != ndim or (shape is not None and any(a not in (1, b) for a, b in zip(wide, shape, strict=True))):
        raise ValueError(f"{name} have a {word} of shape {array.shape}, which does not broadcast to {shape}")
    if np.any(np.isnan(array)):
        raise ValueError(f"{name} have a {word} that is NaN; pass numbers, None where there is no bound")
    if np.any(array == -side * np.inf):
        raise ValueError(f"{name} have a {word} of {-side * np.inf}, which leaves no point; None is no bound")
    return array


def packed(found: Sequence[Box | None], parameters: Sequence[Any], dtype: str) -> Box:
    """The box of the vector of all components of `parameters`, whose boxes are `found`."""
    return Box(*(_joined(found, parameters, dtype, side) for side in (0, 1)))


def _joined(found: Sequence[Box | None], parameters: Sequence[Any], dtype: str, side: int) -> Any:
    """One side of `packed`."""
    free = pt.constant(np.asarray((-np.inf, np.inf)[side], dtype))
    parts = [free if box is None else box[side] for box in found]
    if all(isinstance(part, Constant) for part in parts):
        if all(part.data.size == 1 and part.data.flat[0] == parts[0].data.flat[0] for part in parts):
            return pt.constant(np.asarray(parts[0].data.flat[0], dtype))
        arrays = [np.broadcast_to(part.data, shape_of(p)).ravel() for part, p in zip(parts, parameters, strict=True)]
        return pt.constant(np.concatenate(arrays).astype(dtype))
    vectors = []
    for part, p in zip(parts, parameters, strict=True):
        shape = shape_of(p)
        wide = pt.broadcast_to(as_dtype(part, dtype), shape) if part.type.ndim or shape else as_dtype(part, dtype)
        vectors.append(wide.reshape((prod(shape),)))
    return vectors[0] if len(vectors) == 1 else pt.concatenate(vectors)


# Of arrays

# A pair (low, high) of arrays for each leaf of a point, None for one that is free.
Limits = Sequence[tuple[np.ndarray, np.ndarray] | None]


def limits(bounds: Any, structure: PyTree, models: Sequence[np.ndarray]) -> list[Any] | None:
    """The bounds of a point of arrays, in any of the forms that `minimize` takes; None if there are none.

    Parameters
    ----------
    bounds : as the point, or one pair, or None
        One pair of numbers for all; else put together as the point is, with None for a part that is free and a
        dictionary that need not have all keys. For a vector it is what SciPy takes, ``Bounds(lb, ub)`` or a pair for
        each component; for another array a pair of numbers or arrays that broadcast to it.
    structure : PyTree
        That of the point.
    models : list of arrays
        Its leaves.

    Raises
    ------
    TypeError, ValueError
        If they are not; the message names the place.
    """
    if bounds is None:
        return None
    entries = spread("bounds", bounds, structure, _is_pair_of_numbers)
    found = [_of_leaf(name, given, model) for (name, given), model in zip(entries, models, strict=True)]
    return None if all(pair is None for pair in found) else found


def _is_pair_of_numbers(given: Any) -> bool:
    return isinstance(given, list | tuple) and len(given) == 2 and all(v is None or isinstance(v, Real) for v in given)


def _of_leaf(name: str, given: Any, model: np.ndarray) -> Any:
    """The bounds of one array."""
    low: Any
    high: Any
    if given is None:
        return None
    if hasattr(given, "lb") and hasattr(given, "ub"):  # scipy.optimize.Bounds
        low, high = np.asarray(given.lb), np.asarray(given.ub)
    elif isinstance(given, list | tuple | np.ndarray) and model.ndim == 1 and not _is_pair_of_numbers(given):
        lows_and_highs = "if they are the lows and the highs, pass scipy.optimize.Bounds(lows, highs)"
        if len(given) != model.size:
            remedy = lows_and_highs if [np.size(side) for side in given] == [model.size] * 2 else "pass one for each"
            raise ValueError(f"{name} has {len(given)} pairs for {model.size} components; {remedy}")
        pairs = [(None, None) if pair is None else pair for pair in given]
        if not all(np.shape(pair) == (2,) for pair in pairs):
            raise TypeError(f"{name} has an entry that is no pair; pass (low, high) or None for each component")
        low, high = ([side * np.inf if pair[k] is None else pair[k] for pair in pairs] for k, side in ((0, -1), (1, 1)))
        low, high = np.asarray(low), np.asarray(high)
        if len(pairs) == 2 and np.array_equal(low, high):
            warn(f"{name} has a pair (low, high) for each component, and so fixes both; {lows_and_highs}")
    elif isinstance(given, list | tuple) and len(given) == 2:
        low, high = (side * np.inf if value is None else value for value, side in zip(given, (-1, 1), strict=True))
    else:
        raise TypeError(f"{name} is {shown(given)}; pass a pair (low, high), or one for each component of a vector")
    low, high = (
        np.broadcast_to(_numbers(name, value, side, model.dtype.name, model.ndim, model.shape), model.shape).copy()
        for value, side in ((low, -1), (high, 1))
    )
    _check_order(name, low, high)
    return None if np.all(np.isinf(low)) and np.all(np.isinf(high)) else (low, high)


def put_inside(point: Sequence[np.ndarray], limits: Limits | None) -> list[np.ndarray]:
    """The arrays of the nearest feasible point."""
    if limits is None:
        return list(point)
    return [x if pair is None else _clipped(x, *pair) for x, pair in zip(point, limits, strict=True)]


def sides(point: Sequence[np.ndarray], limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of the vector of all components of `point`."""
    low, high = (
        np.concatenate([
            np.full(x.size, infinite) if pair is None else pair[side].ravel()
            for x, pair in zip(point, limits, strict=True)
        ])
        for side, infinite in enumerate((-np.inf, np.inf))
    )  # fmt: skip
    return low, high


def inside(point: Sequence[np.ndarray], limits: Limits | None) -> np.ndarray | None:
    """Which of all components of `point` are at no bound; None without bounds."""
    if limits is None:
        return None
    low, high = sides(point, limits)
    x = np.concatenate([array.ravel() for array in point])
    result: np.ndarray = (low < x) & (x < high)
    return result


def projected_gradients(
    point: Sequence[np.ndarray], gradients: Sequence[np.ndarray], limits: Limits | None
) -> list[np.ndarray]:
    """What `Box.residual` is of symbolic vectors, of arrays."""
    if limits is None:
        return list(gradients)
    return [
        g if pair is None else -_clipped(-g, pair[0] - x, pair[1] - x)
        for x, g, pair in zip(point, gradients, limits, strict=True)
    ]


def active_bounds(point: Sequence[np.ndarray], limits: Limits) -> list[np.ndarray]:
    """-1 where a component is at its low, 1 where it is at its high, 0 where it is free, as int8 arrays."""
    active = []
    for x, pair in zip(point, limits, strict=True):
        low, high = (-np.inf, np.inf) if pair is None else pair
        active.append(np.where(x <= low, -1, np.where(x >= high, 1, 0)).astype("int8"))
    return active


def _clipped(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(values, high), low)
