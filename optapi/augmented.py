"""The augmented Lagrangian: general constraints around any rule."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .checks import OptimizationWarning, check_callable, check_count, is_generator, takes
from .graph.derivatives import differentiate, known_shapes
from .graph.loops import FALSE, cond
from .graph.replace import replaced
from .hints import hinted
from .notes import NOTES, note, noted
from .objective import Objective, multiplier_state
from .rules._descent import NOISY, noisy
from .rules.quasi_newton import lbfgs
from .typing import Bounds, Constraints, Scalar, Updates, Variables
from .updates import reports
from .vectors import largest


# ALGENCAN's constants: the limits of the first penalty, its growth, and the fall of the measure without which it grows.
LEAST, MOST, GROWTH, FALL = 1e-8, 1e8, 10.0, 0.5
# The largest penalty, and the largest multiplier.
INFINITE = 1e20
# The calls of the rule before the first change of the multipliers.
FIRST = 10
# Options of a rule that add to the cost.
PENALTIES = ("l1", "prox", "region")
# Larger Jacobians are not formed for the scales of the constraints.
DENSE = 10_000_000


@hinted
def augmented_lagrangian(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                         stop: Variable | None = None, updates: Updates | None = None, *, constraints: Constraints = (),
                         bounds: Bounds | None = None, rule: Callable[..., Updates] = lbfgs,
                         penalty: Scalar | None = None, inner_iterations: int = 1000, outer_iterations: int = 50,
                         exact: bool | None = None, tolerance: Scalar | None = 1e-6, ascent: bool = False,
                         name: str = "augmented_lagrangian", **options: Any) -> Updates:  # fmt: skip
    r"""The augmented Lagrangian, or method of multipliers: general constraints around any rule.

    The rule minimizes, within the bounds,

    .. math:: f(x) + \tfrac{\rho}{2} \| t - P(t) \|^2, \qquad t = c(x) - y / \rho

    with :math:`P` the projection on the limits :math:`l \le c \le u`. Where it has finished, the multipliers become
    :math:`y \leftarrow -\rho (t - P(t))`, the penalty :math:`\rho` grows tenfold unless the violations have become half
    as large, the state of the rule is set back, and the rule begins anew with a smaller tolerance. It needs no matrix,
    so it is for many components; for up to some hundred `sqp` takes a tenth of the evaluations.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    constraints : triple, pair, or list of such
        As in `sqp`.
    bounds : dict, list or pair, optional
        As in `lbfgs`, if `rule` takes them.
    rule : callable
        Any rule without penalties; `options` are its options. One that does not say when it has finished, such as
        `adam`, ends after `inner_iterations` calls.
    penalty : scalar, optional
        The first :math:`\rho`; by default one for which the penalty is about ten times as large as the cost.
    inner_iterations, outer_iterations : int
        The largest numbers of calls between two changes of the multipliers, and of such changes.
    tolerance : scalar or None
        It has converged when no constraint is violated by more, no multiplier belongs to a constraint that is not
        active, and no component of the gradient of the Lagrangian is larger, in units in which the gradients of the
        cost and of the constraints at the start are at most 1.

    Returns
    -------
    dict
        As in `sqp`.

    Raises
    ------
    TypeError, ValueError
        As in `sqp`; and if `rule` takes no bounds and they are given.

    Notes
    -----
    One call is one of `rule`, and evaluates the cost and the constraints once more, without derivatives. No Jacobian is
    formed but at the start, for the units, and not if it has more than ten million numbers: constraints then have the
    units in which they are given.

    A point at which the rule found that its function has no bound, or is not finite, is given up for the last one
    before, and the penalty grows.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithm 17.4; Andreani, Birgin, Martínez and Schuverdt (2007),
    On augmented Lagrangian methods with general lower-level constraints, algorithm 3.1; the constants are those of
    Birgin and Martínez (2014), Practical augmented Lagrangian methods for constrained optimization, chapter 12.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.array([2.0, 0.0]), name="x"), pytensor.shared(0, name="stop")
    >>> cost, constraint = pt.sum((x - 3) ** 2), (pt.sum(x**2), None, 2)
    >>> updates = optapi.augmented_lagrangian([x], cost, stop=stop, constraints=constraint)
    >>> step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value().round(5)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        bounds=bounds, constraints=() if constraints is None else constraints,
    )  # fmt: skip
    check_callable("rule", rule, "a rule, for instance optapi.lbfgs")
    check_count("inner_iterations", inner_iterations)
    check_count("outer_iterations", outer_iterations)
    rows: Any = f.rows
    m, dtype = rows.size, f.dtype

    def number(value: float) -> Any:
        return np.asarray(value, dtype)

    one = number(1)
    y, scales = f.state("scaled_multipliers", (m,)), f.state("scales", (m + 1,), fill=np.nan)
    rho, measure = f.state("penalty", fill=np.nan), f.state("measure", fill=np.inf)
    small = number(1e-6) if f.tolerance is None else f.tolerance.astype(dtype)
    within = f.state("inner_tolerance", fill=np.nan)
    inner_stop, inner_count = f.state("inner_stop", dtype="int64"), f.state("inner_count", dtype="int64")
    outer_count, anchor = f.state("outer_count", dtype="int64"), f.state("anchor", (f.size,))

    # The function that the rule minimizes, in the units of the scales.
    x = f.pack(f.parameters)
    box = rows.box

    def scaled(values: Any, s: Any) -> Scaled:
        return Scaled(s * values, s * box.low, s * box.high)

    def pushed(c: Scaled, y: Any, rho: Any) -> Any:
        """The next multipliers, without what rounds where the penalty is large; NaN stays."""
        above, below = y + rho * (c.low - c.values), y + rho * (c.high - c.values)
        nothing = pt.zeros_like(above)
        return pt.switch(above <= 0, nothing, above) + pt.switch(below >= 0, nothing, below)

    lagrangian = scales[0] * f.cost + pt.sum(pushed(scaled(rows.at(x)[0], scales[1:]), y, rho) ** 2) / (2 * rho)
    called = getattr(rule, "__name__", "rule")
    for argument in PENALTIES:
        if argument in options or argument in getattr(rule, "keywords", ()):
            raise TypeError(
                f"{called} has {argument}, which would be in other units than the cost here; add it to the cost, or "
                "ask for it by constraints"
            )
    if "manifold" in options or "manifold" in getattr(rule, "keywords", ()):
        raise TypeError(f"{called} has manifold, which does not go together with constraints; write it as constraints")
    if takes(rule, "exact"):
        options = {"exact": f.is_exact(exact), **options}
    if bounds is not None and not takes(rule, "bounds"):
        raise TypeError(f"{called} takes no bounds; leave them out, or pass rule=lbfgs")
    if bounds is not None:
        options["bounds"] = bounds
    is_noisy, slopes = noisy(f), known_shapes(differentiate(lagrangian, f.parameters))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=OptimizationWarning, message=NOISY.partition("{")[0])
        inner = rule(
            f.parameters, lagrangian, slopes, stop=inner_stop, tolerance=within, name=f"{f.name}/inner", **options
        )
    told = {role: variables[0] for role, variables in reports(inner).items()}
    for variable in inner:
        noted(variable, **{kind: None for kind in NOTES if kind != "state" and note(variable, kind) is not None})

    # What is worked out in the first call.
    first = pt.isnan(rho) & ~f.stopped
    root = pt.sqrt(small)

    def begun(x: Any) -> list[Any]:
        at, (c, J) = f.at(x), rows.at(x)
        steepness = 1 / pt.maximum(largest(at.gradient), one)
        s = pt.concatenate([pt.maximum(steepness, number(LEAST))[None], _row_scales(J)])
        return [s, _first_penalty(scaled(c, s[1:]), s[0] * at.cost), x]

    s, rho_0, anchor_0 = cond(first, begun, [x], [scales, rho, anchor])
    if penalty is not None:
        rho_0 = pt.switch(first, f.scalar("penalty", penalty, low=LEAST).astype(dtype), rho_0)
    within_0 = pt.switch(first, root, within)
    now = {scales: s, rho: rho_0, within: within_0}
    after = dict(zip(inner, replaced(list(inner.values()), now), strict=True))

    # The point after this call. The function may have no bound where the penalty is too small.
    x_new = f.pack([after[p] for p in f.parameters])
    x_new = x_new if f.box is None else f.box.project(x_new)
    reason = after[told["reason"]] if "reason" in told else pt.constant(np.int64(0))
    lost = pt.eq(reason, 3) | pt.eq(reason, 8)
    x_new = pt.switch(lost, anchor_0, x_new)
    cost_new, (c_new, _) = f.at(x_new).cost, rows.at(x_new)
    residual = after[told["gradient_size"]].astype(dtype) if "gradient_size" in told else _size(f, slopes, now, x_new)
    c = scaled(c_new, s[1:])
    y_new = pt.clip(pushed(c, y, rho_0), number(-INFINITE), number(INFINITE))
    complementarity = largest(c.values - pt.clip(c.values - y_new, c.low, c.high))
    violation = largest(rows.excess(c_new))
    worst = pt.maximum(complementarity, violation)

    # Where the rule has finished, the multipliers and the penalty change, and it begins anew.
    limit = pt.switch(pt.eq(outer_count, 0), FIRST, inner_iterations)
    outer = pt.gt(after[inner_stop], 0) | (inner_count + 1 >= limit)
    # A cost that is steep at the start may be flat at the minimum, where its scale would ask for too little.
    enough = small * pt.maximum(s[0], number(0.01))
    # That the precision of the cost is reached is no reason for a larger penalty.
    precise = pt.eq(reason, 7)
    failed = pt.neq(reason, 0) & ~precise & ~(residual <= enough)
    grows = failed | ((worst > small) & (complementarity > number(FALL) * measure) & pt.gt(outer_count, 0))
    rho_new = pt.switch(grows, number(GROWTH) * rho_0, rho_0)
    if penalty is None:
        anew = pt.eq(outer_count, 0) & ~failed
        rho_new = pt.switch(anew, _first_penalty(c, s[0] * cost_new), rho_new)
    tight = pt.maximum(enough, pt.minimum(residual / 2, within_0 / 10))
    near = (complementarity <= root) & (residual <= root)
    new: Updates = {
        variable: value if is_generator(variable) else pt.switch(outer, variable.get_value(), value)
        for variable, value in after.items()
        if variable not in f.parameters
    }
    new |= zip(f.parameters, f.unpack(x_new), strict=True)
    changes = {
        y: (pt.switch(lost, y, y_new), y), rho: (rho_new, rho_0), measure: (complementarity, measure),
        within: (pt.switch(near, tight, within_0), within_0), anchor: (x_new, anchor_0),
        inner_count: (0, inner_count + 1), outer_count: (outer_count + 1, outer_count),
    }  # fmt: skip
    new |= {variable: pt.switch(outer, *values) for variable, values in changes.items()} | {scales: s}

    finite = pt.isfinite(cost_new) & pt.all(pt.isfinite(c_new))
    converged = FALSE
    if f.tolerance is not None and not is_noisy:
        converged = outer & finite & (worst <= small) & (residual <= enough)
    exhausted = FALSE if is_noisy else outer & precise & (worst <= small)
    over = (
        exhausted | (outer & ((outer_count + 1 >= outer_iterations) | (rho_new > number(INFINITE)))) | (first & ~finite)
    )
    because = pt.switch(finite, pt.switch(exhausted, 7, pt.switch(violation > small, 6, 2)), 3)
    spent = told.get("evaluations")
    reported = {
        "reason": pt.switch(over & ~converged, because, 0).astype("int64"),
        "evaluations": (first + (1 if spent is None else after[spent] - spent)).astype("int64"),
        "cost": cost_new, "gradient_size": residual / s[0], "violation": violation,
    }  # fmt: skip
    w = None
    if f.boxes is not None:
        box_of_x: Any = f.box
        [slope] = cond(outer, lambda x: [_slope(f, slopes, now, x)], [x_new], [pt.zeros_like(x_new)])
        w = pt.switch(pt.neq(box_of_x.active(x_new), 0), slope / s[0], pt.zeros_like(slope))
    held = multiplier_state(f, y_new * s[1:] / s[0], w)
    held = {variable: pt.switch(f.stopped | ~outer, variable, value) for variable, value in held.items()}
    return f.finish(new, FALSE, converged | over, reported, held)


class Scaled(NamedTuple):
    """The values of the constraints and their limits, in the units of their scales."""

    values: Any
    low: Any
    high: Any


def _row_scales(J: Any) -> Any:
    """One over the sizes of the gradients of the constraints where they are larger than 1; 1 if there are too many."""
    m, n = J.type.shape
    dtype = J.type.dtype
    if m * n > DENSE or not m:
        return pt.ones((m,), dtype)
    return 1 / pt.clip(pt.max(abs(J), axis=1), np.asarray(1, dtype), np.asarray(1 / LEAST, dtype))


def _first_penalty(c: Scaled, cost: Any) -> Any:
    """The penalty for which that of the violations is about as large as the cost."""
    excess = c.values - pt.clip(c.values, c.low, c.high)
    dtype = excess.type.dtype
    one = np.asarray(1, dtype)
    found = 10 * pt.maximum(abs(cost), one) / pt.maximum(pt.sum(excess**2) / 2, one)
    return pt.clip(found, np.asarray(LEAST, dtype), np.asarray(MOST, dtype)).astype(dtype)


def _slope(f: Objective, slopes: Sequence[Any], now: Any, point: Any) -> Any:
    """The gradient at a point of the function that the rule minimizes."""
    there = dict(zip(f.parameters, f.unpack(point), strict=True))
    return f.pack(replaced(slopes, now | there))


def _size(f: Objective, slopes: Sequence[Any], now: Any, point: Any) -> Any:
    """The largest component of its residual, for a rule that does not report it."""
    gradient = _slope(f, slopes, now, point)
    return largest(gradient if f.box is None else f.box.residual(point, gradient))
