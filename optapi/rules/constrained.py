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
from ..objective import Objective, multiplier_state
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
        x, g = (pt.specify_shape(vector, (f.size,)) for vector in (here.point, here.gradient))
        if not kept:
            return cls(x, here.cost, g, *rows.at(x)), evaluations, ()
        more = [f.state("values", (rows.size,)), f.state("jacobian", (rows.size, f.size))]
        known = cond(pt.gt(evaluations, 0), rows.at, [x], more)
        return cls(x, here.cost, g, *known), evaluations, (*kept, *more)

    @property
    def is_finite(self) -> Any:
        finite = pt.isfinite(self.cost)
        for part in (self.gradient, self.values, self.jacobian):
            finite = finite & pt.all(pt.isfinite(part))
        return finite

    def violation(self, f: Objective) -> Any:
        """The largest violation of a row."""
        rows: Any = f.rows
        return largest(rows.excess(self.values))

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
    model that had to be relaxed, or that grow without limit because gradients of constraints depend on each other,
    count at most 100 times the gradient of the cost, and :math:`B` stays as it is.

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
    here, evaluations, kept = Iterate.current(f, exact)
    B, updated = f.state("hessian", (f.size, f.size), fill=np.eye(f.size)), f.state("updated", dtype="int64")
    rows: Any = f.rows
    weights, search_failed = f.state("weights", (rows.size,)), f.state("search_failed", dtype="int64")

    model = Model.of(f, here, B)
    converged = FALSE if noisy(f) else model.is_solved(f, here, B)
    merit = Merit.of(f, here, model, B, weights)
    first = np.asarray(1, f.dtype) if step_size is None else f.step_size(step_size).astype(f.dtype)
    able = here.is_finite & ~f.stopped & ~converged
    there, found, trials = _searched(f, here, model, merit, first, able)

    # The multipliers are those of the model at both points.
    s, y = there.point - here.point, there.slope(model.y) - here.slope(model.y)
    B_new, good = _damped(B, updated, s, y)
    good = good & found & model.is_determined
    new: Updates = dict(zip(f.parameters, f.unpack(there.point), strict=True))
    new[B] = pt.switch(good, B_new, pt.switch(found, B, np.eye(f.size, dtype=f.dtype)))
    new |= {weights: merit.weights, search_failed: ~found, updated: pt.switch(found, pt.maximum(updated, good), 0)}
    new |= zip(kept, there, strict=bool(kept))
    lost = ~found & (pt.gt(search_failed, 0) | pt.eq(updated, 0))
    reason = _reason(f, here, there, model, merit, found, lost, new) if f.stop is not None else pt.constant(np.int64(0))
    reason = pt.switch(converged, 0, reason)
    residual = there.slope(model.y)
    reports = {
        "reason": reason, "evaluations": evaluations + trials, "cost": there.cost, "violation": there.violation(f),
        "gradient_size": largest(residual if f.box is None else f.box.residual(there.point, residual)),
    }  # fmt: skip
    held = multiplier_state(f, model.y, model.w)
    held = {variable: pt.switch(f.stopped, variable, value) for variable, value in held.items()}
    return f.finish(new, converged, pt.gt(reason, 0), reports, held)


class Model(NamedTuple):
    r"""The minimizer of the quadratic model under linear constraints.

    Attributes
    ----------
    step : vector
        :math:`d`.
    relaxed : scalar variable
        :math:`\delta`.
    y, w : vectors
        The multipliers of the rows, and of the bounds.
    steepness : scalar variable
        The largest component of the gradient of the cost, at least 1.
    is_determined : boolean scalar variable
        Whether the multipliers are those of the constraints.
    """

    step: Any
    relaxed: Any
    y: Any
    w: Any
    steepness: Any
    is_determined: Any

    @classmethod
    def of(cls, f: Objective, here: Iterate, B: Any) -> Model:
        """That at a point."""
        rows: Any = f.rows
        n, k, dtype = f.size, rows.equalities, f.dtype
        steepness = pt.maximum(largest(here.gradient), np.asarray(1, dtype))
        penalty = np.asarray(RELAXED, dtype) * steepness
        zero, one, side = pt.zeros((1,), dtype), pt.ones((1,), dtype), pt.zeros((n, 1), dtype)
        H = pt.concatenate([
            pt.concatenate([B, side], axis=1),
            pt.concatenate([side.T, penalty.reshape((1, 1))], axis=1),
        ])  # fmt: skip
        R = pt.concatenate([here.jacobian, -rows.excess(here.values)[:, None]], axis=1)
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
        relaxed, limit = pt.clip(found.x[n], zero[0], one[0]), 100 * steepness
        # Multipliers of a model that had to be relaxed are of the size of its penalty; where gradients of constraints
        # depend on each other they may grow without limit.
        known = (relaxed <= np.asarray(1e-3, dtype)) & (largest(y) <= penalty)
        y = pt.switch(known, y, pt.clip(y, -limit, limit))
        return cls(_moved(f, here.point, step) - here.point, relaxed, y, found.z[:n], steepness, known)

    @property
    def is_possible(self) -> Any:
        """Whether the violation becomes smaller along the step."""
        return self.relaxed < np.asarray(NOWHERE, self.step.type.dtype)

    def sides(self, f: Objective) -> Any:
        """The limits that the rows are at, by the signs of their multipliers."""
        rows: Any = f.rows
        return pt.switch(self.y < 0, rows.box.high, rows.box.low)

    def is_solved(self, f: Objective, here: Iterate, B: Any) -> Any:
        """Whether the conditions of optimality hold at the point, with these multipliers."""
        if f.tolerance is None or f.stop is None:
            return FALSE
        small, one = f.tolerance.astype(f.dtype), np.asarray(1, f.dtype)
        # Multipliers may be large, but not without limit.
        scale = pt.minimum(pt.maximum(one, largest(self.y)), 100 * self.steepness)
        still = (largest(here.slope(self.y) - self.w) <= small * scale) & (
            largest(times(B, self.step)) <= small * self.steepness
        )
        # A constraint that is not active has no multiplier.
        gap = here.values - self.sides(f)
        gap = pt.switch(pt.isfinite(gap), gap, pt.zeros_like(gap))
        complementary = largest(self.y * gap) <= small * pt.maximum(one, abs(here.cost))
        return here.is_finite & (here.violation(f) <= small) & complementary & still


class Merit(NamedTuple):
    r"""The merit function of Han and Powell, :math:`f + \nu^T |v|`.

    Attributes
    ----------
    weights : vector
        :math:`\nu`.
    level, slope : scalar variables
        Its value at the start of the search, and its slope along the step.
    noise : scalar variable
        By how much rounding may change it.
    """

    weights: Any
    level: Any
    slope: Any
    noise: Any

    @classmethod
    def of(cls, f: Objective, here: Iterate, model: Model, B: Any, weights: Any) -> Merit:
        """That at a point, with the `weights` of the last call."""
        rows: Any = f.rows
        g, d, size, excess = here.gradient, model.step, abs(model.y), abs(rows.excess(here.values))
        weights = pt.maximum(size, (weights + size) / 2)
        # So that d descends: half of what the model gains in feasibility pays for what it loses.
        gained = (1 - model.relaxed) * pt.sum(excess) / 2
        loss = dot(g, d) + dot(d, times(B, d)) / 2
        weights = pt.maximum(weights, ratio(loss, gained, model.is_possible & (gained > 0)))
        level = here.cost + dot(weights, excess)
        return cls(weights, level, dot(g, d) - (1 - model.relaxed) * dot(weights, excess), resolution(level, g))

    def at(self, f: Objective, trial: Iterate) -> Any:
        """Its value at another point."""
        rows: Any = f.rows
        return trial.cost + dot(self.weights, abs(rows.excess(trial.values)))


def _searched(f: Objective, here: Iterate, model: Model, merit: Merit, first: Any, able: Any) -> tuple[Any, Any, Any]:
    """The point that a search along the step leads to, whether it is another one, and the number of trials.

    The first trial that does not pass is corrected once; later ones are shorter.
    """
    x, d, level, slope = here.point, model.step, merit.level, merit.slope
    corrected = _corrected(f, here, model)

    def number(value: Any) -> Any:
        return np.asarray(value, f.dtype)

    def turn(count: Any, a: Any, correction: Any, shorter: Any, found: Any, *best: Any) -> Any:
        trial = Iterate.at(f, _moved(f, x, a * d + correction))
        value, good = merit.at(f, trial), trial.is_finite
        found = good & (value <= level + number(SUFFICIENT) * a * pt.minimum(slope, 0) + merit.noise)
        # The parabola through both values and the slope.
        curved = (value - level) / a - slope
        part = pt.switch(good & (curved > 0), pt.clip(-slope / (2 * curved), number(0.2), number(0.5)), number(0.5))
        corrects = pt.eq(count, 0) & good & ~found
        next_a = pt.switch(corrects, a, pt.switch(shorter > 0, shorter, a * part))
        shorter = pt.switch(corrects, a * part, number(0))
        if corrected is not None:
            [correction] = cond(corrects, lambda c: [corrected(c)], [trial.values], [pt.zeros_like(x)])
        held = [pt.switch(found, new, old) for new, old in zip(trial, best, strict=True)]
        return [count + 1, next_a, correction, shorter, found, *held], found

    start = [np.int64(0), first, pt.zeros_like(x), number(0), FALSE, *here]
    trials, _, _, _, found, *last = repeat(turn, start, pt.switch(able, TRIALS, 0))
    there = Iterate(*last)
    return there, found & ~pt.all(pt.eq(there.point, x)), trials


def _reason(f: Objective, here: Iterate, there: Iterate, model: Model, merit: Merit, found: Any, lost: Any,
            new: Updates) -> Any:  # fmt: skip
    """Why the rule has finished with the point after a step, 0 if it has not; the state for that goes into `new`."""

    def number(value: Any) -> Any:
        return np.asarray(value, f.dtype)

    epsilon, one = float(np.finfo(f.dtype).eps), number(1)
    violation = there.violation(f)
    feasible = violation <= (number(np.inf) if f.tolerance is None else f.tolerance.astype(f.dtype))
    stalled, infeasible = (f.state(role, dtype="int64") for role in ("stalled_calls", "infeasible_calls"))
    new[stalled] = pt.switch(found & (merit.at(f, there) < merit.level - merit.noise), 0, stalled + 1)
    # So far down that no step is found any more, or farther.
    low = number(-1e30 if f.dtype == "float32" else -1e100)
    unbounded = feasible & ((there.cost < low) | (lost & (there.cost < number(-1e30))))
    # Nothing that is allowed makes the violation smaller.
    held = ~model.is_possible & ~feasible & (violation > number(0.999) * here.violation(f))
    new[infeasible] = pt.switch(held, infeasible + 1, 0)
    tiny = largest(model.step) <= number(epsilon**0.25) * pt.maximum(one, largest(here.point))
    nowhere = held & (pt.gt(new[infeasible], pt.switch(tiny, 1, PATIENCE)) | lost)
    hidden = merit.noise + number(epsilon) * dot(abs(here.gradient), abs(here.point))
    # Far away a linear cost falls by less than it rounds.
    flat = largest(here.slope(model.y) - model.w) <= number(epsilon**0.25) * model.steepness
    why = pt.switch(feasible & flat & (abs(merit.slope) <= hidden), 7, 2)
    why = pt.switch(nowhere, 6, pt.switch(unbounded, 8, why))
    ends = lost | nowhere | unbounded | pt.gt(new[stalled], PATIENCE)
    return pt.switch(here.is_finite, pt.switch(ends, why, 0), 3).astype("int64")


def _moved(f: Objective, x: Any, step: Any) -> Any:
    return x + step if f.box is None else f.box.moved(x, step)


def _corrected(f: Objective, here: Iterate, model: Model) -> Any:
    """The correction of second order: from the constraints of a trial to the step back to the active ones.

    It is the shortest one, by the derivatives at the start. None without constraints.
    """
    rows: Any = f.rows
    if not rows.size:
        return None
    dtype, identity = f.dtype, np.eye(rows.size, dtype=f.dtype)
    one, size = np.asarray(1, dtype), abs(model.y)
    active = (np.arange(rows.size) < rows.equalities) | (
        size > np.asarray(1e-8, dtype) * pt.maximum(one, largest(size))
    )
    J = here.jacobian * active.astype(dtype)[:, None]
    small = np.asarray(np.finfo(dtype).eps ** 0.75, dtype) * pt.maximum(largest(pt.sum(J**2, axis=1)), one)
    M = pt.dot(J, J.T) + identity * pt.switch(active, small, one)
    factors: Any = pt.linalg.lu_factor(pt.switch(pt.all(pt.isfinite(M)), M, identity))

    def corrected(values: Any) -> Any:
        beyond = pt.switch(active, values - model.sides(f), pt.zeros_like(values))
        return -combined(J, pt.linalg.lu_solve(factors, beyond, check_finite=False))

    return corrected


def _damped(B: Any, updated: Any, s: Any, y: Any) -> tuple[Any, Any]:
    r"""The matrix after Powell's damped update of BFGS, and whether it is one.

    .. math:: \theta = 1 \text{ if } s^T y \ge 0.2 s^T B s, \text{ else } 0.8 s^T B s / (s^T B s - s^T y), \qquad
        y \leftarrow \theta y + (1 - \theta) B s
    """
    dtype = s.type.dtype

    def number(value: Any) -> Any:
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
