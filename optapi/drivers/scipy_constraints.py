"""General constraints as methods of `scipy.optimize.minimize` take them, and what their results say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..checks import warn
from ..feasible import projected_gradients
from ..pytree import point
from .constraint_functions import ConstraintFunctions, constraint_functions
from .evaluator import Evaluation
from .numpy import minimize_iterator
from .vector_functions import METHODS, JacobianDifferences


EQUALITIES = (
    "trust-constr takes no more equality constraints than independent variables; leave out those that follow from the "
    "others, or pass options={'factorization_method': 'SVDFactorization'}"
)


class Matrix:
    """A Jacobian of a constraint in all forms of SciPy, as a dense matrix.

    Attributes
    ----------
    is_sparse : bool
        Whether the last one was sparse.
    """

    def __init__(self, jac: Callable[..., Any]):
        self.jac, self.is_sparse = jac, False

    def __call__(self, x: np.ndarray, *args: Any) -> np.ndarray:
        J = self.jac(x, *args)
        self.is_sparse = hasattr(J, "toarray")
        return np.reshape(J.toarray() if self.is_sparse else J, (-1, x.size))


def is_given(constraints: Any) -> bool:
    """Whether there are constraints."""
    return constraints is not None and np.size(constraints) > 0


def entries(constraints: Any, is_slsqp: bool, differences: JacobianDifferences) -> list[Any]:
    """`constraints` as `minimize_iterator` takes them.

    Parameters
    ----------
    constraints
        One or several of SciPy's.
    is_slsqp : bool
        Whether the method is SLSQP, else it is trust-constr.
    differences : JacobianDifferences
        What SLSQP takes where there is no Jacobian.

    Raises
    ------
    KeyError, TypeError, ValueError
        As SciPy.
    """
    if not is_given(constraints):
        return []
    several = not (hasattr(constraints, "lb") or isinstance(constraints, dict))
    return [
        _dictionary(position, entry, differences if is_slsqp else JacobianDifferences("2-point", None))
        if not hasattr(entry, "lb")
        else _ignoring(entry, differences)
        if is_slsqp
        else _nonlinear(entry)
        for position, entry in enumerate(constraints if several else [constraints])
    ]


def _dictionary(position: int, entry: Any, differences: JacobianDifferences) -> Any:
    try:
        kind = entry["type"].lower()
    except KeyError as error:
        raise KeyError(f"Constraint {position} has no type defined.") from error
    except TypeError as error:
        raise TypeError("Constraints must be a sequence of dictionaries.") from error
    except AttributeError as error:
        raise TypeError("Constraint's type must be a string.") from error
    if kind not in ("eq", "ineq"):
        raise ValueError(f"Unknown constraint type '{entry['type']}'.")
    if "fun" not in entry:
        raise ValueError(f"Constraint {position} has no function defined.")
    jac = entry.get("jac")
    return {"type": kind, "fun": entry["fun"], "jac": _jacobian(jac, differences), "args": entry.get("args", ())}


def _jacobian(jac: Any, differences: JacobianDifferences) -> Any:
    return Matrix(jac) if callable(jac) else differences


class Limited(NamedTuple):
    """A constraint with the attributes of SciPy's ``NonlinearConstraint``."""

    fun: Any
    lb: Any
    ub: Any
    jac: Any
    keep_feasible: Any = False


def _nonlinear(entry: Any) -> Any:
    if hasattr(entry, "A"):
        return entry
    scheme = entry.jac if entry.jac in METHODS else "2-point"
    steps = JacobianDifferences(scheme, entry.finite_diff_rel_step, sparsity=entry.finite_diff_jac_sparsity)
    return Limited(entry.fun, entry.lb, entry.ub, _jacobian(entry.jac, steps), entry.keep_feasible)


def _ignoring(entry: Any, differences: JacobianDifferences) -> Any:
    """`entry` without what SLSQP ignores, with SciPy's warnings."""
    from scipy.optimize import BFGS, LinearConstraint, OptimizeWarning

    low, high = np.asarray(entry.lb), np.asarray(entry.ub)
    if np.any(low == high) and np.any(low != high):
        warn(
            "Equality and inequality constraints are specified in the same element of the constraint list. For "
            "efficient use with this method, equality and inequality constraints should be specified in separate "
            "elements of the constraint list. ",
            OptimizeWarning,
        )
    if np.any(np.isneginf(low) & np.isposinf(high)):
        warn("At least one constraint is unbounded above and below. Such constraints are ignored.", OptimizeWarning)
    kept = np.any(entry.keep_feasible)
    if hasattr(entry, "A"):
        if kept:
            warn("Constraint option `keep_feasible` is ignored by this method.", OptimizeWarning)
        return LinearConstraint(entry.A, entry.lb, entry.ub)
    others = (entry.finite_diff_jac_sparsity, entry.finite_diff_rel_step)
    if kept or others != (None, None) or not isinstance(entry.hess, BFGS):
        warn(
            "Constraint options `finite_diff_jac_sparsity`, `finite_diff_rel_step`, `keep_feasible`, and `hess`"
            "are ignored by this method.",
            OptimizeWarning,
        )
    return Limited(entry.fun, entry.lb, entry.ub, _jacobian(entry.jac, differences))


def by_differences(constraints: list[Any]) -> bool:
    """Whether one of what `entries` returned has no Jacobian."""
    jacobians = (entry["jac"] if isinstance(entry, dict) else getattr(entry, "jac", None) for entry in constraints)
    return any(isinstance(jac, JacobianDifferences) for jac in jacobians)


def constraints_of(iterator: minimize_iterator) -> ConstraintFunctions:
    """The constraints of a minimization, which may be none."""
    return iterator._evaluator.constraints or ConstraintFunctions([], [], None)


class Lagrangian(NamedTuple):
    r"""What is known of general constraints at a point.

    Attributes
    ----------
    values, jacobian : vector and matrix
        Of all constraints.
    excess : vector
        By how much each of them is violated.
    multipliers : vector
        :math:`y` of :math:`f - y^T c`.
    slope : vector
        Its gradient, less the multipliers of the bounds.
    bounds : vector
        These, 0 where a component is free.
    """

    values: np.ndarray
    jacobian: np.ndarray
    excess: np.ndarray
    multipliers: np.ndarray
    slope: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, iterator: minimize_iterator, now: Evaluation) -> Lagrangian:
        """That at the point held."""
        evaluator, constraints = iterator._evaluator, constraints_of(iterator)
        values, jacobian = np.zeros(0), np.zeros((0, now.point[0].size))
        if constraints.constraints:
            values, (jacobian,) = evaluator.constrain(*now.point)
        places = iterator._program.places.multipliers
        y = np.concatenate([np.zeros(0), *(iterator._position.values[place] for place in places)])
        slope = evaluator.gradients(now)[0] - jacobian.T @ y
        (projected,) = projected_gradients(now.point, [slope], evaluator.limits)
        excess = np.abs(values - np.clip(values, constraints.limits.low, constraints.limits.high))
        return cls(values, jacobian, excess, y, projected, slope - projected)

    @property
    def violation(self) -> float:
        """The largest violation."""
        return float(np.max(self.excess, initial=0.0))


def slsqp_multipliers(constraints: ConstraintFunctions, y: np.ndarray) -> np.ndarray:
    """The multipliers as SLSQP has them: of equalities, then of inequalities, none of which is negative."""
    equalities, inequalities, mixed = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    parts = (constraints.split(vector) for vector in (y, constraints.limits.low, constraints.limits.high))
    for part, low, high in zip(*parts, strict=True):
        same = low == high
        equalities.append(part[same])
        below, above = np.isfinite(low) & ~same, np.isfinite(high) & ~same
        # SciPy puts the inequalities of a constraint that has both at the end.
        rows = mixed if same.any() else inequalities
        rows += [np.maximum(part[below], 0), np.maximum(-part[above], 0)]
    return np.concatenate([*equalities, *inequalities, *mixed])


def check_equalities(constraints: ConstraintFunctions, size: int, factorization: str | None) -> None:
    """There are no more equalities than components.

    Raises
    ------
    ValueError
        As SciPy's trust-constr.
    """
    limits = constraints.limits
    if np.sum(limits.low == limits.high) > size and factorization != "SVDFactorization":
        raise ValueError(EQUALITIES)


def trust_constr_fields(iterator: minimize_iterator, known: Any, step: float,
                        sparse_jacobian: bool | None) -> dict[str, Any]:  # fmt: skip
    """What a result of trust-constr has beside that of all methods.

    Bounds come last among the constraints. What only SciPy's algorithm has is as at its end: ``tr_radius`` is the
    length of the last step, the barrier is zero, and there are no conjugate gradients.
    """
    from scipy.sparse import csr_array, eye_array

    constraints, bounds, (x,) = constraints_of(iterator), iterator._evaluator.limits, iterator._position.now.point
    functions = [constraint.function for constraint in constraints.constraints]
    ends = np.cumsum(constraints.sizes)[:-1]
    jacobians = np.split(known.jacobian, ends) if functions else []
    values, v = constraints.split(known.values), [-y for y in constraints.split(known.multipliers)]
    limits = constraints.limits
    is_inequality = bool(np.any(limits.low != limits.high)) or bounds is not None
    if sparse_jacobian is None:
        sparse_jacobian = not functions or any(getattr(getattr(f, "jac", None), "is_sparse", False) for f in functions)
    jac: list[Any] = [csr_array(J) if sparse_jacobian else J.copy() for J in jacobians]
    if bounds is not None:
        values, v = [*values, x], [*v, -known.bounds]
        jac.append(eye_array(x.size, format="csr") if sparse_jacobian else np.eye(x.size))
    none = [0] * len(values)
    counts = {
        "constr_nfev": [0 if f is None else f.nfev for f in functions],
        "constr_njev": [0 if f is None or f.is_differenced else f.njev for f in functions],
        "constr_nhev": [0] * len(functions),
    }
    return {
        "grad": iterator._evaluator.gradients(iterator._position.now)[0].copy(),
        "lagrangian_grad": known.slope.copy(),
        "optimality": float(np.max(np.abs(known.slope), initial=0.0)),
        "constr_violation": known.violation,
        "constr": [value.copy() for value in values],
        "jac": jac,
        "v": [value.copy() for value in v],
        **{name: [*count, *none[len(count) :]] for name, count in counts.items()},
        "cg_niter": 0,
        "cg_stop_cond": 0,
        "tr_radius": step,
        "constr_penalty": float(np.max(np.abs(known.multipliers), initial=1.0)),
        "method": "tr_interior_point" if is_inequality else "equality_constrained_sqp",
        **({"barrier_parameter": 0.0, "barrier_tolerance": 0.0} if is_inequality else {}),
    }


def fixed(constraints: list[Any], x: np.ndarray) -> tuple[bool, str]:
    """SciPy's success and message where bounds leave the point `x` alone."""
    if not constraints:
        return True, "All independent variables were fixed by bounds."
    structure, start = point("x", x)
    functions = constraint_functions(constraints, structure, start, None, None)
    violation = functions.violation(functions.evaluate(start)[0])
    if violation == 0:
        return True, "All independent variables were fixed by bounds at values that satisfy the constraints."
    return False, (
        "All independent variables were fixed by bounds, but the independent variables do not satisfy the constraints "
        f"exactly. (Maximum violation: {violation})."
    )
