"""Constrained optimization: general constraints beside bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..feasible import Box
from ..graph.loops import FALSE, cond, repeat
from ..hints import hinted
from ..line_search import resolution
from ..notes import noted
from ..objective import Objective
from ..quadratic import interior_point
from ..typing import Bounds, Constraints, Scalar, StepSize, Tensor, Updates, Variables
from ..vectors import dot, largest
from ._descent import noisy
from ._linear_algebra import check_square, combined, ratio, times


# So many steps of the interior-point method, and so many trials of a search.
QP_STEPS, TRIALS = 60, 25
# Of the promised decrease of the merit function.
SUFFICIENT = 1e-4
# The penalty on the relaxation of the constraints, in units of the gradient.
RELAXED = 1e8
# A relaxation with which the model does not say how the violation becomes smaller.
NOWHERE = 0.99
PATIENCE = 10


class Iterate(NamedTuple):
    """A point with all that is known there.

    Attributes
    ----------
    point : vector
    cost : scalar variable
    gradient : vector
    values : vector
        Of the constraints.
    jacobian : matrix
    """

    point: Any
    cost: Any
    gradient: Any
    values: Any
    jacobian: Any

    @classmethod
    def at(cls, f: Objective, point: Tensor) -> Iterate:
        """That at a packed point."""
        rows: Any = f.rows
        return cls(*f.at(point), *rows.at(point))

    @classmethod
    def current(cls, f: Objective, exact: bool | None) -> tuple[Iterate, Any, tuple[Any, ...]]:
        """As `Objective.current`, with the constraints."""
        rows: Any = f.rows
        here, evaluations, kept = f.current(exact)
        if not kept:
            x, g = (pt.specify_shape(vector, (f.size,)) for vector in (here.point, here.gradient))
            return cls(x, here.cost, g, *rows.at(x)), evaluations, ()
        more = [f.state("values", (rows.size,)), f.state("jacobian", (rows.size, f.size))]
        known = cond(pt.gt(evaluations, 0), rows.at, [here.point], more)
        return cls(*here, *known), evaluations, (*kept, *more)

    @property
    def is_finite(self) -> Any:
        finite = pt.isfinite(self.cost)
        for part in (self.gradient, self.values, self.jacobian):
            finite = finite & pt.all(pt.isfinite(part))
        return finite

    def slope(self, multipliers: Tensor) -> Any:
        r"""The gradient of the Lagrangian, :math:`g - J^T y`."""
        return self.gradient - combined(self.jacobian, multipliers)


@hinted
def sqp(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, constraints: Constraints = (),
        bounds: Bounds | None = None, step_size: StepSize | None = None, exact: bool | None = None,
        tolerance: Scalar | None = 1e-6, ascent: bool = False, name: str = "sqp") -> Updates:  # fmt: skip
    r"""Sequential quadratic programming: general constraints, for up to some hundred components.

    .. math:: \min_x f(x) \quad \text{with} \quad l \le c(x) \le u, \quad \text{bounds of } x

    A step minimizes a quadratic model of the Lagrangian :math:`f - y^T c` under linear models of the constraints,

    .. math:: \min_{d, \delta} \; g^T d + \tfrac12 d^T B d + \tfrac12 \rho \delta^2 \quad \text{with} \quad
        l \le c + J d - \delta v \le u, \quad 0 \le \delta \le 1

    where :math:`v` is by how much each constraint is violated, so that there is always a feasible step, and :math:`B`
    is learned from the changes of the gradient of the Lagrangian by damped BFGS. The multipliers of the model are the
    next :math:`y`. A search along :math:`d` makes the merit function :math:`f + \nu^T |v|` smaller.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends. A
        parameter that only constraints depend on is fine.
    constraints : triple, pair, or list of such
        Triples ``(expression, low, high)`` and pairs ``(expression, value)``, which are equalities. The expression is a
        floating-point tensor of any static shape, built from the parameters; `low` and `high` are None, numbers, or
        arrays or variables that broadcast to it and do not depend on the parameters. Where both are equal numbers, it
        is an equality.
    bounds : dict, list or pair, optional
        As in `lbfgs`. Each point that is evaluated or held is inside exactly; of `constraints` that holds at the end.
    step_size : scalar or schedule, optional
        The first step size that a search tries, by default 1.
    tolerance : scalar or None
        It has converged when no constraint is violated by more, and no component of the gradient of the Lagrangian,
        :math:`g - J^T y` less the multipliers of the bounds, is larger than this times the largest multiplier, but at
        least 1 and at most 100 times the largest component of the gradient of the cost.

    Returns
    -------
    dict
        With `stop`, the report ``"violation"`` too: the largest violation. `optapi.multipliers` and `optapi.active`
        read the multipliers and the bounds that hold. The reason 6 says that nothing makes the violation smaller.

    Raises
    ------
    TypeError, ValueError
        Also if `constraints` or `bounds` are not as said here; the message names the constraint or the parameter.

    Notes
    -----
    With :math:`n` components, :math:`k` equalities and :math:`m` rows in all. Cost per call: mostly one evaluation of
    the cost, its gradient, the constraints and their Jacobian; about 10 decompositions of a matrix of :math:`n + k + 1`
    rows, in the interior-point method of `quadratic_program`. State: :math:`n^2 + m n` numbers. For more components
    take `augmented_lagrangian`.

    Where the first trial does not pass, it is corrected once by a step back to the active constraints. Multipliers of a
    model that had to be relaxed count at most 100 times the gradient of the cost.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 18.3 and 16.4, equation 18.36 for the weights of the
    merit function, section 18.3 for the damped update and the second-order correction; Powell (1978), A fast algorithm
    for nonlinearly constrained optimization calculations; Kraft (1988), A software package for sequential quadratic
    programming, section 2.2.3, for the relaxation.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.array([2.0, 0.0]), name="x"), pytensor.shared(0, name="stop")
    >>> cost = (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2
    >>> updates = optapi.sqp([x], cost, stop=stop, constraints=[(x[0] - 2 * x[1], -2, None)], bounds=(0, None))
    >>> step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> print(x.get_value().round(6), optapi.multipliers(updates)[0].round(6))
    [1.4 1.7] 0.8
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        bounds=bounds, constraints=() if constraints is None else constraints,
    )  # fmt: skip
    check_square(f, "augmented_lagrangian")
    rows: Any = f.rows
    here, evaluations, kept = Iterate.current(f, exact)
    x, g = here.point, here.gradient
    n, m = f.size, rows.size

    B, updated = f.state("hessian", (n, n), fill=np.eye(n)), f.state("updated", dtype="int64")
    weights, search_failed = f.state("weights", (m,)), f.state("search_failed", dtype="int64")

    def number(value: float) -> Any:
        return np.asarray(value, f.dtype)

    one = number(1)
    excess = rows.excess(here.values)
    violation, steepness = largest(excess), pt.maximum(one, largest(g))
    d, relaxed, y, w = _step(f, here, excess, B, number(RELAXED) * steepness)

    # The conditions of optimality, with multipliers that may be large, but not without limit.
    lagrangian = here.slope(y) - w
    scale = pt.minimum(pt.maximum(one, largest(y)), 100 * steepness)
    finite = here.is_finite
    # A constraint that is not active has no multiplier.
    gap = here.values - _sides(rows, y)
    complementarity = y * pt.switch(pt.isfinite(gap), gap, pt.zeros_like(gap)) / pt.maximum(one, abs(here.cost))
    converged, is_noisy = FALSE, noisy(f)
    if f.tolerance is not None and f.stop is not None and not is_noisy:
        small = f.tolerance.astype(f.dtype)
        still = (largest(lagrangian) <= small * scale) & (largest(times(B, d)) <= small * steepness)
        converged = finite & (violation <= small) & (largest(complementarity) <= small) & still

    # Search along d, by the merit function of Han and Powell.
    # Multipliers of a model that had to be relaxed are of the size of its penalty.
    limit = 100 * steepness
    y = pt.switch(relaxed > number(1e-3), pt.clip(y, -limit, limit), y)
    size = abs(y)
    nu = pt.maximum(size, (weights + size) / 2)
    # So that d descends: half of what the model gains in feasibility pays for what it loses.
    gained = (1 - relaxed) * pt.sum(abs(excess)) / 2
    possible = relaxed < number(NOWHERE)
    nu = pt.maximum(nu, ratio(dot(g, d) + dot(d, times(B, d)) / 2, gained, possible & (gained > 0)))
    level = here.cost + dot(nu, abs(excess))
    slope = dot(g, d) - (1 - relaxed) * dot(nu, abs(excess))
    noise = resolution(level, g)
    correction = _corrected(f, here, y)

    def turn(count: Any, a: Any, offset: Any, shorter: Any, found: Any, *best: Any) -> Any:
        trial = Iterate.at(f, _moved(f, x, a * d + offset))
        value = trial.cost + dot(nu, abs(rows.excess(trial.values)))
        good = pt.isfinite(value) & pt.all(pt.isfinite(trial.gradient)) & pt.all(pt.isfinite(trial.jacobian))
        found = good & (value <= level + number(SUFFICIENT) * a * pt.minimum(slope, 0) + noise)
        corrects = pt.eq(count, 0) & good & ~found if m else FALSE
        curved = (value - level) / a - slope
        part = pt.switch(good & (curved > 0), pt.clip(-slope / (2 * curved), number(0.2), number(0.5)), number(0.5))
        after = a * part
        [next_offset] = cond(corrects, lambda values: [correction(values)], [trial.values], [pt.zeros_like(x)])
        next_a = pt.switch(corrects, a, pt.switch(shorter > 0, shorter, after))
        shorter = pt.switch(corrects, after, number(0))
        held = [pt.switch(found, new, old) for new, old in zip(trial, best, strict=True)]
        return [count + 1, next_a, next_offset, shorter, found, *held], found

    able = finite & ~f.stopped & ~converged
    first = one if step_size is None else f.step_size(step_size).astype(f.dtype)
    start = [np.int64(0), first, pt.zeros_like(x), number(0), FALSE, *here]
    trials, _, _, _, found, *there = repeat(turn, start, pt.switch(able, TRIALS, 0))
    there = Iterate(*there)
    found = found & ~pt.all(pt.eq(there.point, x))

    # Powell's damped update, with the new multipliers at both points.
    s, change = there.point - x, there.slope(y) - here.slope(y)
    B_new, good = _damped(B, updated, s, change)
    good = good & found
    new: Updates = dict(zip(f.parameters, f.unpack(there.point), strict=True))
    new[B] = pt.switch(good, B_new, pt.switch(found, B, np.eye(n, dtype=f.dtype)))
    new |= {weights: nu, search_failed: ~found, updated: pt.switch(found, pt.maximum(updated, good), 0)}
    new |= zip(kept, there, strict=bool(kept))

    next_excess = rows.excess(there.values)
    next_violation = largest(next_excess)
    reason = finished = None
    if f.stop is not None:
        feasible = next_violation <= (number(np.inf) if f.tolerance is None else f.tolerance.astype(f.dtype))
        stalled = f.state("stalled_calls", dtype="int64")
        value = there.cost + dot(nu, abs(next_excess))
        new[stalled] = pt.switch(found & (value < level - noise), 0, stalled + 1)
        lost = ~found & (pt.gt(search_failed, 0) | pt.eq(updated, 0))
        lowest = np.asarray(-1e30 if f.dtype == "float32" else -1e100, f.dtype)
        unbounded = feasible & (there.cost < lowest)
        # Nothing that is allowed makes the violation smaller.
        infeasible = f.state("infeasible_calls", dtype="int64")
        held = ~possible & ~feasible & (next_violation > number(0.999) * violation)
        new[infeasible] = pt.switch(held, infeasible + 1, 0)
        tiny = largest(d) <= number(np.finfo(f.dtype).eps ** 0.25) * pt.maximum(one, largest(x))
        nowhere = held & (pt.gt(new[infeasible], pt.switch(tiny, 1, PATIENCE)) | lost)
        promise = abs(slope)
        hidden = noise + number(np.finfo(f.dtype).eps) * dot(abs(g), abs(x))
        reason = pt.switch(feasible & (promise <= hidden), 7, 2)
        reason = pt.switch(nowhere, 6, pt.switch(unbounded, 8, reason))
        reason = pt.switch(finite, reason, 3)
        finished = (lost | nowhere | unbounded | pt.gt(new[stalled], PATIENCE) | ~finite) & ~converged
        reason = pt.switch(finished, reason, 0).astype("int64")
    residual = there.slope(y)
    residual = residual if f.box is None else f.box.residual(there.point, residual)
    return f.finish(
        new, converged, FALSE if finished is None else finished,
        reports={
            "reason": reason, "evaluations": evaluations + trials, "cost": there.cost,
            "gradient_size": largest(residual), "violation": next_violation,
        },
        unheld=_multipliers(f, y, w),
    )  # fmt: skip


def _moved(f: Objective, x: Any, step: Any) -> Any:
    return x + step if f.box is None else f.box.moved(x, step)


def _step(f: Objective, here: Iterate, excess: Any, B: Any, penalty: Any) -> tuple[Any, Any, Any, Any]:
    r"""The step of the quadratic model, the relaxation, and the multipliers of the rows and of the bounds.

    .. math:: \min_{d, \delta} g^T d + \tfrac12 d^T B d + \tfrac12 \rho \delta^2 \quad \text{with} \quad
        l \le c + J d - \delta v \le u, \quad 0 \le \delta \le 1

    with :math:`v` the violation, so that :math:`d = 0`, :math:`\delta = 1` is feasible.
    """
    rows: Any = f.rows
    n, k, dtype = f.size, rows.equalities, f.dtype
    zero, one = pt.zeros((1,), dtype), pt.ones((1,), dtype)
    side = pt.zeros((n, 1), dtype)
    H = pt.concatenate([
        pt.concatenate([B, side], axis=1),
        pt.concatenate([side.T, penalty.reshape((1, 1))], axis=1),
    ])  # fmt: skip
    R = pt.concatenate([here.jacobian, -excess[:, None]], axis=1)
    low, high = (limit - here.values for limit in rows.box)
    free = pt.full((n,), np.asarray(np.inf, dtype))
    sides = (-free, free) if f.box is None else (limit - here.point for limit in f.box)
    box = Box(*(
        pt.concatenate([of_step, of_relaxation, of_rows[k:]])
        for of_step, of_relaxation, of_rows in zip(sides, (zero, one), (low, high), strict=True)
    ))  # fmt: skip
    found = interior_point(
        H, pt.concatenate([here.gradient, zero]), R[:k] if k else None, low[:k] if k else None,
        R[k:] if rows.size > k else None, box, pt.switch(f.stopped, 0, QP_STEPS),
    )  # fmt: skip
    y = pt.concatenate([*([found.y] if k else []), found.z[n + 1 :]])
    # A step ends inside; that of an active component is set to its bound.
    step, at = found.x[:n], found.active[:n]
    step = pt.switch(at < 0, box.low[:n], pt.switch(at > 0, box.high[:n], step))
    d = _moved(f, here.point, step) - here.point
    return d, pt.clip(found.x[n], zero[0], one[0]), y, found.z[:n]


def _corrected(f: Objective, here: Iterate, y: Any) -> Any:
    """The second-order correction of a trial whose constraints have some values: a step back to the active ones."""
    rows: Any = f.rows
    k, dtype = rows.equalities, f.dtype
    if not rows.size:
        return lambda values: pt.zeros_like(here.point)
    equal = np.arange(rows.size) < k
    active = equal | (abs(y) > np.asarray(1e-8, dtype) * pt.maximum(np.asarray(1, dtype), largest(y)))
    J = here.jacobian * active.astype(dtype)[:, None]
    M = pt.dot(J, J.T)
    diagonal = largest(pt.sum(J**2, axis=1))
    small = np.asarray(np.finfo(dtype).eps ** 0.75, dtype) * pt.maximum(diagonal, np.asarray(1, dtype))
    M = M + np.eye(rows.size, dtype=dtype) * pt.switch(active, small, np.asarray(1, dtype))
    finite = pt.all(pt.isfinite(M))
    factors: Any = pt.linalg.lu_factor(pt.switch(finite, M, np.eye(rows.size, dtype=dtype)))

    def correction(values: Any) -> Any:
        beyond = pt.switch(active, values - _sides(rows, y), pt.zeros_like(values))
        return -combined(J, pt.linalg.lu_solve(factors, beyond, check_finite=False))

    return correction


def _sides(rows: Any, y: Any) -> Any:
    """The limits that constraints with these multipliers are at."""
    return pt.switch(y < 0, rows.box.high, rows.box.low)


def _damped(B: Any, updated: Any, s: Any, y: Any) -> tuple[Any, Any]:
    r"""The matrix after Powell's damped update of BFGS, and whether it is one.

    .. math:: \theta = 1 \text{ if } s^T y \ge 0.2 s^T B s, \text{ else } 0.8 s^T B s / (s^T B s - s^T y), \qquad
        y \leftarrow \theta y + (1 - \theta) B s
    """
    dtype = s.type.dtype

    def number(value: float) -> Any:
        return np.asarray(value, dtype)

    sy = dot(s, y)
    first = pt.eq(updated, 0) & (sy > 0)
    unit = pt.clip(dot(y, y) / pt.switch(sy > 0, sy, number(1)), number(1e-6), number(1e6))
    B = pt.switch(first, unit * np.eye(s.type.shape[0], dtype=dtype), B)
    Bs = times(B, s)
    sBs = dot(s, Bs)
    enough = sy >= number(0.2) * sBs
    theta = pt.switch(enough, number(1), number(0.8) * sBs / pt.switch(enough, number(1), sBs - sy))
    y = theta * y + (1 - theta) * Bs
    new = B - pt.outer(Bs, Bs) / sBs + pt.outer(y, y) / dot(s, y)
    return new, (sBs > 0) & pt.all(pt.isfinite(new))


def _multipliers(f: Objective, y: Any, w: Any) -> Updates:
    """Of the constraints as the user gave them, and of the bounds, as state; with the signs of the user's cost."""
    sign = np.asarray(-1 if f.ascent else 1, f.dtype)
    rows: Any = f.rows
    new: Updates = {}
    for i, value in enumerate(rows.given(y)):
        held = noted(f.state(f"multipliers/{i}", value.type.shape), multipliers=True)
        new[held] = pt.switch(f.stopped, held, sign * value)
    if f.boxes is not None:
        for p, value in zip(f.parameters, f.unpack(w), strict=True):
            held = noted(f.zeros_like(p, "bound_multipliers"), bound_multipliers=True)
            new[held] = pt.switch(f.stopped, held, sign * value)
    return new
