"""General constraints: functions of the parameters between limits, as a rule sees them.

What a user passes as ``constraints`` is checked here, in all its forms, and becomes one vector of values with its
limits and its Jacobian, see `Objective.rows`. Bounds of the parameters themselves are in `feasible`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import float_dtypes

from .checks import as_dtype, check_updates, is_dense, shown
from .feasible import Box, side_of
from .graph.derivatives import pullback, rows, substituted
from .graph.oracle import jacobians
from .graph.replace import replaced
from .hints import hinted
from .notes import note
from .typing import Constraints, Tensor, Updates


FORMS = (
    "pass a triple (expression, low, high) or a pair (expression, value), or a list of such; None is no limit, and "
    "equal limits are an equality"
)


def as_entries(constraints: Any) -> list[Any]:
    """The list of `constraints`, of which one alone may be given."""
    if constraints is None:
        return []
    if not isinstance(constraints, list | tuple):
        raise TypeError(f"constraints is {shown(constraints)}; {FORMS}")
    if len(constraints) in (2, 3) and isinstance(constraints[0], Variable):
        return [constraints]
    return list(constraints)


def expressions(constraints: Any) -> list[Any]:
    """The expressions of `constraints`, as far as they are some."""
    entries = [entry[0] for entry in as_entries(constraints) if isinstance(entry, list | tuple) and entry]
    return [expression for expression in entries if isinstance(expression, Variable)]


@hinted
def multipliers(updates: Updates) -> list[np.ndarray]:
    r"""The multipliers of the constraints after the last call of a rule, and those of the bounds.

    They are those of the Lagrangian :math:`f - y^T c`: not negative where a constraint is at its low, not positive
    where it is at its high, 0 where it is not active; under ascent the other way around. The optimal cost changes with
    a limit at the rate of its multiplier.

    Returns
    -------
    list of arrays
        One for each constraint, of the shape of its expression; then one for each parameter, if there are bounds.

    Raises
    ------
    ValueError
        If no rule in `updates` has constraints.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.array([3.0, 1.0]), name="x"), pytensor.shared(0, name="stop")
    >>> updates = optapi.sqp([x], pt.sum(x**2), stop=stop, constraints=[(x[0] + x[1], 2)])
    >>> step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> print(optapi.multipliers(updates)[0].round(6))
    2.0
    """
    found = [
        np.array(variable.get_value())
        for kind in ("multipliers", "bound_multipliers")
        for variable in check_updates(updates)
        if note(variable, kind)
    ]
    if not found and not any(note(variable, "role") == "violation" for variable in updates):
        raise ValueError("no rule in updates has constraints; pass what optapi.sqp or augmented_lagrangian returned")
    return found


class Rows(NamedTuple):
    r"""The rows of all constraints, :math:`l \le c(x) \le u`, equalities first.

    Attributes
    ----------
    point : vector
        A placeholder for :math:`x`.
    values, jacobian : vector and matrix
        :math:`c(x)`, and its derivatives, a row for each, as expressions of it.
    box : Box
        :math:`l` and :math:`u`, two vectors.
    equalities : int
        How many rows are equalities.
    shapes : list of tuple
        Of the constraints as the user passed them.
    order : array
        Where each row is in the order of the user.
    """

    point: Any
    values: Any
    jacobian: Any
    box: Box
    equalities: int
    shapes: list[tuple[int, ...]]
    order: np.ndarray

    @classmethod
    def of(cls, constraints: Constraints, parameters: Sequence[Any], point: Tensor, tensors: Sequence[Any]) -> Rows:
        """The rows of `constraints`, checked.

        Parameters
        ----------
        constraints : triple, pair, or list of such
            Triples ``(expression, low, high)`` or pairs ``(expression, value)``.
        parameters : list of variables
            What the expressions are built from.
        point, tensors : vector and list of variables
            A placeholder for the packed point, and its parts in the shapes of the parameters.

        Raises
        ------
        TypeError, ValueError
            If they are not as said; the message names the constraint.
        """
        entries, dtype = as_entries(constraints), point.type.dtype
        if not entries:
            nothing = pt.zeros((0,), dtype)
            jacobian = pt.zeros((0, point.type.shape[0]), dtype)
            return cls(point, nothing, jacobian, Box(nothing, nothing), 0, [], np.zeros(0, int))
        found = [_Entry.of(f"constraints[{i}]", entry, parameters, tensors) for i, entry in enumerate(entries)]
        equal = np.concatenate([np.broadcast_to(entry.equal, entry.shape).ravel() for entry in found])
        order = np.argsort(~equal, kind="stable")
        values = joined([as_dtype(e.value.reshape((e.size,)), dtype) for e in found])
        jacobian = joined([as_dtype(e.jacobian(tensors, dtype), dtype) for e in found])
        low, high = (joined([as_dtype(e.side(k), dtype) for e in found]) for k in (0, 1))
        if not np.array_equal(order, np.arange(len(order))):
            values, jacobian, low, high = (part[order] for part in (values, jacobian, low, high))
        return cls(point, values, jacobian, Box(low, high), int(equal.sum()), [e.shape for e in found], order)

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.order)

    def at(self, point: Tensor) -> list[Any]:
        """The values and the Jacobian at a packed point."""
        return replaced([self.values, self.jacobian], {self.point: point})

    def excess(self, values: Tensor) -> Any:
        """By how much each row is above its high, or, as a negative number, below its low."""
        return values - self.box.project(values)

    def given(self, vector: Tensor) -> list[Any]:
        """A vector with a number for each row as tensors, one for each constraint as the user passed it."""
        if not np.array_equal(self.order, np.arange(self.size)):
            vector = vector[np.argsort(self.order)]
        tensors: list[Any] = []
        begin = 0
        for shape in self.shapes:
            end = begin + prod(shape)
            tensors.append(vector[begin:end].reshape(shape) if shape else vector[begin])
            begin = end
        return tensors


class _Entry(NamedTuple):
    """One constraint: its expression at the placeholder, its limits, and which of its components are equalities."""

    value: Any
    low: Any
    high: Any
    equal: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.type.shape

    @property
    def size(self) -> int:
        return prod(self.shape)

    @classmethod
    def of(cls, name: str, entry: Any, parameters: Sequence[Any], tensors: Sequence[Any]) -> _Entry:
        if not isinstance(entry, list | tuple) or len(entry) not in (2, 3):
            raise TypeError(f"{name} is {shown(entry)}; {FORMS}")
        expression, *limits = entry
        if not isinstance(expression, Variable):
            raise TypeError(f"{name} has {shown(expression)} in the place of an expression of the parameters; {FORMS}")
        if not is_dense(expression) or expression.type.dtype not in float_dtypes:
            raise TypeError(f"{name} is of type {expression.type}; pass a floating-point expression")
        if not set(parameters) & set(ancestors([expression])):
            raise ValueError(f"{name} does not depend on any of the parameters; leave it out, or build it from them")
        [value] = substituted([expression], dict(zip(parameters, tensors, strict=True)))
        if None in value.type.shape:
            raise TypeError(f"{name} has no static shape; put pt.specify_shape around its expression")
        dtype, shape = value.type.dtype, value.type.shape
        low, high = (
            side_of(f"the limits of {name}", limits[which % len(limits)], side, dtype, shape, parameters)
            for which, side in enumerate((-1, 1))
        )
        if len(limits) == 1:
            return cls(value, low, low, True)
        if isinstance(low, Constant) and isinstance(high, Constant):
            if np.any(low.data > high.data):
                raise ValueError(f"{name} has a low above its high; pass low <= high, equal ones for an equality")
            if np.all(np.isinf(low.data) & np.isinf(high.data)):
                raise ValueError(f"{name} has no limit; {FORMS}")
            return cls(value, low, high, low.data == high.data)
        return cls(value, low, high, low is high)

    def side(self, which: int) -> Any:
        """The low or the high of all components, as a vector."""
        limit = (self.low, self.high)[which]
        if isinstance(limit, Constant):
            return pt.constant(np.broadcast_to(limit.data, self.shape).ravel())
        return pt.broadcast_to(limit, self.shape).reshape((self.size,))

    def jacobian(self, tensors: Sequence[Any], dtype: str) -> Any:
        """A row for each component, with the derivatives by all `tensors`."""

        def packed(parts: Sequence[Any]) -> Any:
            return joined([as_dtype(part, dtype) for part in parts])

        known = jacobians(self.value, tensors)
        if known is not None:
            wide = [
                as_dtype(J.reshape((self.size, prod(t.type.shape))), dtype) for J, t in zip(known, tensors, strict=True)
            ]
            return wide[0] if len(wide) == 1 else pt.concatenate(wide, axis=1)

        def pulled(v: Any) -> Any:
            along = as_dtype(v.reshape(self.shape), self.value.type.dtype)
            return packed(
                [
                    g.reshape((prod(t.type.shape),))
                    for g, t in zip(pullback([self.value], tensors, [along]), tensors, strict=True)
                ]
            )

        if self.size == 1:
            return pulled(pt.ones((1,), dtype))[None]
        return rows(pulled, self.size, sum(prod(t.type.shape) for t in tensors), dtype)


def joined(parts: Sequence[Any]) -> Any:
    """One vector or matrix of the rows of all `parts`."""
    if all(isinstance(part, Constant) for part in parts):
        return pt.constant(np.concatenate([part.data for part in parts]))
    return parts[0] if len(parts) == 1 else pt.concatenate(list(parts))
