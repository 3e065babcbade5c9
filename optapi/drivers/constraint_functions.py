"""General constraints of NumPy functions, in all the forms that `minimize` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..checks import as_numbers, shown
from ..graph.oracle import Arrays
from ..pytree import PyTree
from ..typing import CompileMode
from .evaluator import kinds_of
from .vector_functions import METHODS, JacobianDifferences, Symbolic, VectorFunction


FORMS = (
    "pass SciPy's LinearConstraint, NonlinearConstraint or a dictionary with type and fun, or a triple "
    "(function, low, high) or pair (function, value), or a list of such"
)


@dataclass(frozen=True)
class RowLimits:
    """The limits of the rows of all constraints, as an option of a rule that an oracle gives their values."""

    low: np.ndarray
    high: np.ndarray


class Constraint(NamedTuple):
    """One constraint, checked: a function with a Jacobian, or a matrix, and the limits of its components."""

    function: Any
    matrix: np.ndarray | None
    low: Any
    high: Any


class ConstraintFunctions:
    """All constraints, as a vector function with one row after the other.

    Parameters
    ----------
    constraints : list of Constraint
    start : list of arrays
        A point, where they are called to find out how many components each has.
    bounds : list or None
        The bounds of the parameters, see `feasible.limits`: differences are taken inside.

    Attributes
    ----------
    limits : RowLimits
    sizes : list of int
        The number of components of each.
    """

    def __init__(self, constraints: Sequence[Constraint], start: Arrays, bounds: Any):
        self.constraints, self.bounds = list(constraints), bounds
        values = [self._values(constraint, start)[0] for constraint in constraints]
        self.sizes = [value.size for value in values]
        low: list[np.ndarray] = []
        high: list[np.ndarray] = []
        for position, (constraint, value) in enumerate(zip(constraints, values, strict=True)):
            for word, limit, rows in (("low", constraint.low, low), ("high", constraint.high, high)):
                try:
                    rows.append(np.broadcast_to(np.asarray(limit, float).ravel(), value.shape))
                except ValueError:
                    raise ValueError(
                        f"constraints[{position}] has {np.size(limit)} numbers for its {word}, and {value.size} values"
                    ) from None
            if np.any(np.isnan(low[-1]) | np.isnan(high[-1])):
                raise ValueError(f"constraints[{position}] has a limit that is NaN; infinity is no limit")
            if np.any(low[-1] > high[-1]):
                raise ValueError(f"constraints[{position}] has a low above its high; pass low <= high")
        nothing = [np.zeros(0)]
        self.limits = RowLimits(np.concatenate(nothing + low), np.concatenate(nothing + high))

    def evaluate(self, point: Arrays) -> tuple[np.ndarray, Arrays]:
        """The values at a point, and their Jacobians by each of its arrays."""
        values, jacobians = [np.zeros(0)], [[np.zeros((0, *array.shape), array.dtype)] for array in point]
        for constraint in self.constraints:
            value, known = self._values(constraint, point)
            if constraint.matrix is not None:
                known = [constraint.matrix.astype(point[0].dtype)]
            elif known is None:
                known = constraint.function.jacobians(point, value, self.bounds)
            values.append(value)
            for parts, part in zip(jacobians, known, strict=True):
                parts.append(part)
        return np.concatenate(values), [np.concatenate(parts) for parts in jacobians]

    @property
    def is_bent(self) -> bool:
        """Whether some are not linear, as far as is known."""
        return any(constraint.matrix is None for constraint in self.constraints)

    @property
    def jacobian_error(self) -> float:
        """The relative error of their Jacobians, beside rounding."""
        differs = any(c.matrix is None and c.function.is_differenced for c in self.constraints)
        return float(np.finfo("float64").eps) ** 0.5 if differs else 0.0

    def violation(self, values: np.ndarray) -> float:
        """The largest violation of a limit by `values`."""
        beyond = np.abs(values - np.clip(values, self.limits.low, self.limits.high))
        return float(np.max(beyond, initial=0.0)) if not np.isnan(beyond).any() else np.inf

    def split(self, vector: np.ndarray) -> list[np.ndarray]:
        """A vector with a number for each row, as one vector for each constraint."""
        return np.split(vector, np.cumsum(self.sizes)[:-1]) if self.sizes else []

    @staticmethod
    def _values(constraint: Constraint, point: Arrays) -> tuple[np.ndarray, Arrays | None]:
        if constraint.matrix is not None:
            return constraint.matrix @ point[0], None
        values, jacobians = constraint.function.values(point)
        return values.astype(float), jacobians


def constraint_functions(constraints: Any, structure: PyTree, start: Arrays, bounds: Any,
                         mode: CompileMode) -> ConstraintFunctions:  # fmt: skip
    """`constraints` in all their forms.

    Raises
    ------
    TypeError, ValueError
        If they are in none; the message names the constraint.
    """
    entries = list(constraints) if is_list(constraints) else [constraints]
    found = [
        _constraint(f"constraints[{position}]", entry, structure, start, mode) for position, entry in enumerate(entries)
    ]
    return ConstraintFunctions(found, start, bounds)


def is_list(constraints: Any) -> bool:
    """Whether `constraints` are several, and not one triple or pair."""
    if not isinstance(constraints, list | tuple):
        return False
    return not (len(constraints) in (2, 3) and callable(constraints[0]))


def _constraint(name: str, entry: Any, structure: PyTree, start: Arrays,
                mode: CompileMode) -> Constraint:  # fmt: skip
    jac: Any = None
    own: tuple[Any, ...] = ()
    if isinstance(entry, Mapping):
        unknown = set(entry) - {"type", "fun", "jac", "args"}
        if unknown or not {"type", "fun"} <= set(entry):
            raise ValueError(f"{name} has the keys {list(entry)}; pass type and fun, and if you like jac and args")
        kind = str(entry["type"]).lower()
        if kind not in ("eq", "ineq"):
            raise ValueError(f"{name} has the type {entry['type']!r}; pass 'eq' or 'ineq'")
        function, low, high = entry["fun"], 0.0, 0.0 if kind == "eq" else np.inf
        jac, own = entry.get("jac"), entry.get("args", ())
        own = own if isinstance(own, tuple) else (own,)
    elif hasattr(entry, "lb") and hasattr(entry, "ub") and (hasattr(entry, "A") or hasattr(entry, "fun")):
        if np.any(getattr(entry, "keep_feasible", False)):
            raise ValueError(
                f"{name} has keep_feasible, which no rule for general constraints can promise; leave it out, or pass "
                "what must hold at each point as bounds="
            )
        low, high = entry.lb, entry.ub
        if hasattr(entry, "A"):
            return _linear(name, entry.A, low, high, structure, start)
        function, jac = entry.fun, entry.jac
    elif isinstance(entry, list | tuple) and len(entry) in (2, 3) and callable(entry[0]):
        function, low, high = entry if len(entry) == 3 else (entry[0], entry[1], entry[1])
        low, high = -np.inf if low is None else low, np.inf if high is None else high
    else:
        raise TypeError(f"{name} is {shown(entry)}; {FORMS}")
    if not callable(function):
        raise TypeError(f"{name} has {shown(function)} in the place of a function of the point; {FORMS}")
    for word, limit in (("low", low), ("high", high)):
        as_numbers(f"the {word} of {name}", limit)
    if isinstance(jac, str):
        if jac not in METHODS:
            raise ValueError(
                f"{name} has jac {jac!r}; pass a function, True, or one of {', '.join(map(repr, METHODS))}"
            )
        step = getattr(entry, "finite_diff_rel_step", None)
        jac = JacobianDifferences(jac, "relative" if step is None else step)
    if jac is None or jac is False:
        try:
            symbolic = Symbolic(function, structure, kinds_of(start), own, mode)
            function, jac = (symbolic, True) if symbolic.contradiction(start) is None else (function, None)
        except TypeError:
            jac = None
        jac = JacobianDifferences("2-point") if jac is None else jac
    if not (callable(jac) or jac is True):
        raise TypeError(
            f"{name} has jac {shown(jac)}; pass a function, True, or one of {', '.join(map(repr, METHODS))}"
        )
    return Constraint(VectorFunction(name, function, jac, structure, own), None, low, high)


def _linear(name: str, A: Any, low: Any, high: Any, structure: PyTree, start: Arrays) -> Constraint:
    if structure.kind is not None or start[0].ndim != 1:
        raise TypeError(f"{name} is linear in a vector, and x0 is none; pass a function, (function, low, high)")
    matrix = np.atleast_2d(np.asarray(A.toarray() if hasattr(A, "toarray") else A, float))
    if matrix.ndim != 2 or matrix.shape[1] != start[0].size:
        raise ValueError(f"{name} has a matrix of shape {matrix.shape}; pass one with {start[0].size} columns")
    return Constraint(None, matrix, low, high)
