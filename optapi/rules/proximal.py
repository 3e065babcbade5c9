"""Proximal rules: a smooth cost together with penalties or sets that have a proximal operator."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_count, check_flag
from ..graph.loops import FALSE, cond, repeat
from ..hints import hinted
from ..line_search import resolution
from ..objective import Objective, Point
from ..prox import entries, exceeds, penalties
from ..typing import Prox, Scalar, StepSize, Updates, Variables
from ..vectors import dot, largest, norm
from ._descent import MAX_TRIALS, noisy
from ._linear_algebra import CompactHessian, combined, times


# How many calls in a row may find no lower cost.
PATIENCE = 100


class Composite(NamedTuple):
    r"""The sum :math:`F = f + h` of a smooth cost, the objective, and of penalties, one or None for each parameter."""

    objective: Objective
    found: list[Any]

    def value(self, point: Any) -> Any:
        """:math:`h` at a packed point."""
        f = self.objective
        parts = zip(f.unpack(point), self.found, strict=True)
        values = [h.value(part).astype(f.cost.type.dtype) for part, h in parts if h is not None]
        return sum(values[1:], values[0])

    def feasible_value(self, point: Any) -> Any:
        """The same, and infinite outside of a set."""
        parts = zip(self.objective.unpack(point), self.found, strict=True)
        outside = [exceeds(h, part) for part, h in parts if h is not None]
        value = self.value(point)
        return pt.switch(pt.any(pt.stack(outside)), np.asarray(np.inf, value.type.dtype), value)

    def prox(self, v: Any, t: Any) -> Any:
        """The proximal operator at a packed vector."""
        f = self.objective
        parts = zip(f.unpack(v), self.found, strict=True)
        return f.pack([part if h is None else h.prox(part, t) for part, h in parts])

    def forward_backward(self, x: Any, g: Any, L: Any) -> Any:
        r""":math:`\operatorname{prox}_{h/L}(x - g/L)`."""
        return self.prox(x - g / L, 1 / L)

    def residual(self, at: Point, L: Any) -> Any:
        r""":math:`L (x - \operatorname{prox}_{h/L}(x - g/L))`, which vanishes at a solution."""
        return L * (at.point - self.forward_backward(at.point, at.gradient, L))


@hinted
def proximal_gradient(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                      stop: Variable | None = None, updates: Updates | None = None, *,
                      prox: Prox, accelerated: bool = True,
                      step_size: StepSize | None = None, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
                      ascent: bool = False, name: str = "proximal_gradient") -> Updates:  # fmt: skip
    r"""The proximal gradient method, accelerated: FISTA with restarts, or ISTA.

    .. math::
        v = x + \frac{t_{old} - 1}{t} (x - x_{old}), \qquad
        x_{new} = \operatorname{prox}_{h/L} \left( v - \frac{1}{L} \nabla f(v) \right), \qquad
        t_{new} = \frac{1 + \sqrt{1 + 4 t^2}}{2}

    minimizes :math:`f + h`, the cost and the penalties. The curvature :math:`L` is nine tenths of that of the last
    call, doubled until :math:`f(x_{new}) \le f(v) + g^T d + \frac{L}{2} \|d\|^2` with :math:`d = x_{new} - v`. The
    momentum begins anew, with :math:`t = 1`, where :math:`(v - x_{new})^T (x_{new} - x) > 0`.

    With a set for :math:`h` it is the projected gradient method.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised. It has converged when no
        component of the residual, :math:`L (x - \operatorname{prox}_{h/L}(x - g/L))`, exceeds the tolerance.
    prox : penalty, dict or list
        A penalty or set of `optapi.prox` for each parameter: a dictionary from parameters, or their names, a list with
        one or None for each, or one for all. Parameters without one are free.
    accelerated : bool
        Whether there is a momentum. Without it the method is ISTA, which never lets :math:`f + h` rise.
    step_size : scalar or schedule, optional
        The first :math:`1/L` that a call tries. By default that which follows from the last call, and at first a step
        of length 1.

    Raises
    ------
    TypeError, ValueError
        Also if `prox` is not as said here, or has a key that is no parameter.

    Notes
    -----
    Cost per call: two evaluations of the cost and its gradients, one without momentum, more where :math:`L` is doubled;
    a proximal operator for each, and one for the residual. State: five vectors. With a cost that is convex,
    :math:`F(x_k) - F^\star \le 2 L \|x_0 - x^\star\|^2 / (k + 1)^2` as long as :math:`L` does not fall.

    References
    ----------
    Beck and Teboulle (2009), A fast iterative shrinkage-thresholding algorithm for linear inverse problems, section 4;
    O'Donoghue and Candès (2015), Adaptive restart for accelerated gradient schemes, section 3.2, for the restarts.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.zeros(3), name="x"), pytensor.shared(0, name="stop")
    >>> cost = pt.sum((x - [3.0, 0.5, -2.0]) ** 2) / 2
    >>> updates = optapi.proximal_gradient([x], cost, stop=stop, prox=optapi.prox.L1(1.0))
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value().round(4)
    array([ 2.,  0., -1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    check_flag("accelerated", accelerated)
    F = Composite(f, penalties(prox, f.parameters))
    here, evaluations, kept = _opened(f, exact)
    x, g = here.point, here.gradient
    curvature, previous, t = f.state("curvature"), f.state("previous", (f.size,)), f.state("momentum", fill=1)

    first = pt.eq(curvature, 0)
    unset = pt.switch(norm(g) > 0, norm(g), pt.ones_like(curvature))
    L = pt.switch(first, unset, np.asarray(0.9, f.dtype) * curvature)
    if step_size is not None:
        L = (1 / f.step_size(step_size)).astype(f.dtype)
    able = pt.isfinite(here.cost) & pt.all(pt.isfinite(g))
    converged = _converged(f, [F.residual(here, L)]) & able

    # Where the parameters are not where the last call left them, the momentum is not theirs either.
    t_new = (1 + pt.sqrt(1 + 4 * t**2)) / 2
    known = pt.eq(evaluations, 0) if kept else pt.constant(np.bool_(True))
    moves = (t > 1) & known & ~f.stopped if accelerated else FALSE
    v, at_v = x, here
    if accelerated:
        v = pt.switch(moves, x + (t - 1) / t_new * (x - previous), x)
        cost_v, gradient_v = cond(moves, lambda point: f.at(point)[1:], [v], [here.cost, g])
        at_v = Point(v, cost_v, gradient_v)
    z, at_z, L, trials = _backtracked(F, at_v, L, pt.switch(able & ~f.stopped & ~converged, MAX_TRIALS, 0))

    failed = ~(pt.isfinite(at_z.cost) & pt.all(pt.isfinite(at_z.gradient))) | pt.eq(trials, 0)
    restarts = (dot(v - z, z - x) > 0) | failed
    new = {curvature: L}
    if accelerated:
        new |= {previous: x, t: pt.switch(restarts, pt.ones_like(t), t_new)}
    end = Point(*(pt.switch(failed, old, new) for old, new in zip(here, (z, *at_z[1:]), strict=True)))
    still = failed | (pt.all(pt.eq(z, x)) & ~moves)
    return _finished(F, here, kept, end, L, still, new, evaluations + pt.cast(moves, "int64") + trials)


def _opened(f: Objective, exact: bool | None) -> tuple[Point, Any, tuple[Any, ...]]:
    """`Objective.current`, with a warning if the rule is to say when it has finished, and the cost is noisy."""
    noisy(f)
    return f.current(exact)


def _converged(f: Objective, residuals: Sequence[Any]) -> Any:
    """Whether the residuals meet the tolerance; of a noisy cost no draw says so."""
    return FALSE if f.is_noisy else f.converged(residuals)


def _finished(F: Composite, here: Point, kept: Sequence[Any], end: Point, L: Any, stuck: Any, new: Updates,
              evaluations: Any, unheld: Updates | None = None) -> Updates:  # fmt: skip
    """`_closed` with the residuals, and with the penalties added to the costs."""
    f = F.objective
    ends = here, end
    residuals = [F.residual(place, L) for place in ends]
    able = pt.isfinite(here.cost) & pt.all(pt.isfinite(here.gradient))
    converged = [_converged(f, [residual]) & able for residual in residuals]
    costs = [place.cost + F.value(place.point) for place in ends]
    sizes = [largest(residual) for residual in residuals]
    return _closed(f, here, kept, end, costs, sizes, converged, stuck, new, evaluations, unheld)


def _closed(f: Objective, here: Point, kept: Sequence[Any], end: Point, costs: Sequence[Any], sizes: Sequence[Any],
            converged: Sequence[Any], stuck: Any, new: Updates, evaluations: Any,
            unheld: Updates | None = None) -> Updates:  # fmt: skip
    """Close a rule that leads from the point `here` to `end`, which are the same where it is `stuck`.

    It has finished when it has converged at either, of which `costs`, `sizes` and `converged` have two entries, when it
    is stuck, and when more than `PATIENCE` calls in a row have found neither a lower cost nor a size below nine tenths
    of the smallest.
    """
    able = pt.isfinite(here.cost) & pt.all(pt.isfinite(here.gradient))
    (cost, total), (_, size), (begins, settled) = costs, sizes, converged
    new |= dict(zip(f.parameters, f.unpack(end.point), strict=True))
    new |= zip(kept, end, strict=False)
    ends, reason = stuck | ~able, np.int64(0)
    if f.stop is not None:
        lowest = f.state("lowest_cost", dtype=total.type.dtype, fill=np.inf)
        least, stalled = f.state("least_residual", fill=np.inf), f.state("stalled_calls", dtype="int64")
        falls = (total < lowest) | (size < np.asarray(0.9, f.dtype) * least)
        new[lowest] = pt.switch(total < lowest, total, lowest)
        new[least] = pt.switch(size < least, size, least)
        new[stalled] = pt.switch(falls, 0, stalled + 1)
        ends = ~able if f.is_noisy else ends | (new[stalled] > PATIENCE)
        hidden = total - lowest <= resolution(here.cost, here.gradient)
        # So low that no more can be asked for.
        single = "float32" in (total.type.dtype, f.dtype)
        unbounded = total < np.asarray(-1e30 if single else -1e100, total.type.dtype)
        ends = ends | unbounded
        reason = pt.switch(able, pt.switch(unbounded, 8, pt.switch(hidden, 7, 2)), 3)
    ends = ends & ~(begins | settled)
    return f.finish(
        new,
        begins,
        ends | settled,
        reports={
            "reason": pt.switch(ends, reason, 0).astype("int64"),
            "evaluations": evaluations,
            "cost": pt.switch(begins, cost, total),
            "gradient_size": pt.switch(begins, sizes[0], size),
        },
        unheld=unheld,
    )


def _backtracked(F: Composite, start: Point, L: Any, turns: Any) -> tuple[Any, Point, Any, Any]:
    """The step from `start` with the first of the curvatures L, 2 L, ... whose parabola lies above the smooth cost.

    Where the cost changes by no more than rounding, the gradients at both ends say whether it does.

    Returns
    -------
    vector
        The point that it leads to.
    Point
        The same with the cost and the gradient.
    scalar variables
        :math:`L`, and the number of trials.
    """
    f = F.objective
    v, cost, g = start
    noise, half = resolution(cost, g), np.asarray(0.5, f.dtype)

    def turn(count: Any, L: Any, *_: Any) -> Any:
        L = pt.switch(count > 0, 2 * L, L)
        z = F.forward_backward(v, g, L)
        trial, d = f.at(z), z - v
        change, bound = trial.cost - cost, half * L * dot(d, d)
        flat = abs(change) <= 1e4 * noise
        left = pt.switch(flat, half * dot(trial.gradient - g, d), change - dot(g, d))
        slack = np.asarray(4 * np.finfo(f.dtype).eps, f.dtype) * bound
        return [count + 1, L, z, trial.cost, trial.gradient], left <= bound + slack

    count, L, z, cost_z, gradient_z = repeat(turn, [np.int64(0), L, v, cost, g], turns)
    return z, Point(z, cost_z, gradient_z), L, count


# The inner iterations end where their residual is this part of the outer one; the decrease that suffices.
FORCING, DECREASE = 0.1, 1e-4


@hinted
def proximal_lbfgs(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                   stop: Variable | None = None, updates: Updates | None = None, *,
                   prox: Prox, step_size: StepSize | None = None,
                   memory: int = 10, steps: int = 100, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
                   ascent: bool = False, name: str = "proximal_lbfgs") -> Updates:  # fmt: skip
    r"""The proximal quasi-Newton method with the Hessian of L-BFGS, for any penalty.

    .. math::
        y = \arg\min_y \; g^T (y - x) + \frac12 (y - x)^T B (y - x) + h(y), \qquad x_{new} = x + a (y - x)

    with :math:`B` from the last `memory` pairs of steps and changes of the gradient, and :math:`a` the first of
    1, 1/2, 1/4, ... with a sufficient decrease of :math:`f + h`. The minimizer is found by FISTA, which takes proximal
    operators and products with :math:`B`, but no evaluation of the cost: use this rule where that is what takes the
    time. Where no step is found, all pairs are removed, and the next call takes a step of the proximal gradient method.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised. It has converged when no
        component of the residual, :math:`\theta (x - \operatorname{prox}_{h/\theta}(x - g/\theta))`, exceeds the
        tolerance, with :math:`\theta` the scale of :math:`B`.
    prox : penalty, dict or list
        As in `proximal_gradient`.
    step_size : scalar or schedule, optional
        The first :math:`a` that is tried, at most 1; by default 1.
    memory : int
        The largest number of pairs.
    steps : int
        The largest number of inner iterations.

    Raises
    ------
    TypeError, ValueError
        Also if `prox` is not as in `proximal_gradient`.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients; at most `steps` proximal operators and products
    with :math:`B`, of :math:`4mn` multiplications. They end where the residual of the inner problem is a tenth of that
    of the outer one. Memory: :math:`2m + 4` vectors of state. For an L1 penalty alone, `lbfgs` with `l1` needs no inner
    iterations.

    References
    ----------
    Lee, Sun and Saunders (2014), Proximal Newton-type methods for minimizing composite functions, algorithm 1;
    Scheinberg and Tang (2016), Practical inexact proximal quasi-Newton method with global complexity analysis; Byrd,
    Nocedal and Schnabel (1994), Representations of quasi-Newton matrices and their use in limited memory methods, for
    :math:`B`.

    Examples
    --------
    >>> W, stop = pytensor.shared(np.zeros((2, 2)), name="W"), pytensor.shared(0, name="stop")
    >>> cost = pt.sum((W - [[3.0, 4.0], [0.3, 0.4]]) ** 2) / 2
    >>> groups = optapi.prox.GroupL2(1.0, axis=1)
    >>> step = pytensor.function([], [], updates=optapi.proximal_lbfgs([W], cost, stop=stop, prox=groups))
    >>> while not stop.get_value():
    ...     _ = step()
    >>> W.get_value().round(4)
    array([[2.1515, 2.8686],
           [0.    , 0.    ]])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    check_count("memory", memory)
    check_count("steps", steps)
    F = Composite(f, penalties(prox, f.parameters))
    here, evaluations, kept = _opened(f, exact)
    x, g = here.point, here.gradient
    pairs, curvature = CompactHessian.begin(f, memory), f.state("curvature")
    unset = pt.switch(norm(g) > 0, norm(g), pt.ones_like(curvature))
    L = pt.switch(pairs.empty, pt.switch(curvature > 0, curvature, unset), pairs.scale)
    able = pt.isfinite(here.cost) & pt.all(pt.isfinite(g))
    active = able & ~f.stopped & ~_converged(f, [F.residual(here, L)])

    y = _model_minimizer(F, here, pairs._replace(scale=L), pt.switch(active, steps, 0))
    size = f.step_size(1.0 if step_size is None else step_size).astype(f.dtype)
    end, trials, failed = _shortened(F, here, y, pt.minimum(size, pt.ones_like(size)), active)
    pushed = pairs.cleared(failed & active).push(end.point - x, end.gradient - g, unless=failed)
    # Without pairs a failure says that the parabola is too flat, and a step without curvature that it is too steep.
    eight = np.asarray(8, f.dtype)
    steeper, flatter = eight * pt.switch(pairs.empty, L, curvature), pt.switch(pushed.empty, L / eight, L)
    next_curvature = pt.switch(active, pt.switch(failed, steeper, flatter), L)
    new = {pairs.active: pairs.active, curvature: next_curvature}
    stuck = failed & active & pairs.empty & pt.all(pt.eq(F.forward_backward(x, g, L), x))
    unheld = dict(zip(pairs[1:], pushed[1:], strict=True))
    return _finished(F, here, kept, end, L, stuck, new, evaluations + trials, unheld)


def _model_minimizer(F: Composite, here: Point, pairs: CompactHessian, turns: Any) -> Any:
    """The minimizer of the quadratic model and the penalties, by FISTA with restarts."""
    x, g = here.point, here.gradient
    V, M, theta, dtype = pairs.vectors, pairs.inverse_matrix(), pairs.scale, g.type.dtype

    def times_B(d: Any) -> Any:
        return theta * (d - combined(V, times(M, times(V, d))))

    enough = np.asarray(FORCING, dtype) * norm(F.residual(here, theta))
    one = pt.ones_like(theta)

    def turn(z: Any, v: Any, Bv: Any, Bz: Any, t: Any, L: Any) -> Any:
        new = F.forward_backward(v, g + Bv, L)
        d = new - v
        B_new = times_B(new - x)
        curved, square = dot(d, B_new - Bv), dot(d, d)
        short = curved > L * square * np.asarray(1 + 1e-6, dtype)
        restarts = dot(v - new, new - z) > 0
        t_new = pt.switch(restarts, one, (1 + pt.sqrt(1 + 4 * t**2)) / 2)
        momentum = pt.switch(restarts, pt.zeros_like(t), (t - 1) / t_new)
        ahead, B_ahead = new + momentum * (new - z), B_new + momentum * (B_new - Bz)
        values = [
            pt.switch(short, old, found)
            for old, found in ((z, new), (v, ahead), (Bv, B_ahead), (Bz, B_new), (t, t_new))
        ]
        done = ~short & (L * pt.sqrt(square) <= enough)
        return [*values, pt.switch(short, pt.maximum(2 * L, curved / square), L)], done

    zeros = pt.zeros_like(x)
    return repeat(turn, [x, x, zeros, zeros, one, theta], turns)[0]


def _shortened(F: Composite, here: Point, y: Any, size: Any, active: Any) -> tuple[Point, Any, Any]:
    """The first point on the way to `y` at which cost and penalties have decreased enough: of `size`, half of it, ...

    Returns
    -------
    Point
        That of the start if there is none.
    integer scalar variable
        The number of evaluations.
    boolean scalar variable
        Whether there is none.
    """
    f, (x, cost, g) = F.objective, here
    start = cost + F.feasible_value(x)
    promised = dot(g, y - x) + F.value(y) - F.value(x)
    noise = resolution(start, g)
    limit = start + np.asarray(DECREASE, start.type.dtype) * pt.minimum(promised, pt.zeros_like(promised)) + noise

    def turn(count: Any, a: Any, found: Any, *_: Any) -> Any:
        point = pt.switch(a < 1, x + a * (y - x), y)
        trial = f.at(point)
        total = trial.cost + F.value(point)
        found = pt.isfinite(trial.cost) & pt.all(pt.isfinite(trial.gradient)) & (total <= limit)
        return [count + 1, a / 2, found, point, trial.cost, trial.gradient], found

    moves = active & ~pt.all(pt.eq(y, x)) & pt.all(pt.isfinite(y)) & (promised < noise)
    initial = [np.int64(0), size, FALSE, x, cost, g]
    count, _, found, *end = repeat(turn, initial, pt.switch(moves, 30, 0))
    return Point(*(pt.switch(found, new, old) for new, old in zip(end, here, strict=True))), count, ~found


@hinted
def frank_wolfe(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                stop: Variable | None = None, updates: Updates | None = None, *, region: Prox,
                step_size: StepSize | None = None, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
                ascent: bool = False, name: str = "frank_wolfe") -> Updates:  # fmt: skip
    r"""The Frank-Wolfe method, or conditional gradients: steps to corners of a set, without projections.

    .. math::
        s = \arg\min_{s \in C} g^T s, \qquad x \leftarrow x + a (s - x), \qquad
        a = \min \left( 1, \frac{g^T (x - s)}{L \|s - x\|^2} \right)

    The curvature :math:`L` is nine tenths of that of the last call, doubled until the cost is below the parabola of
    which :math:`a` is the minimizer. After :math:`k` calls from a corner the point is a mean of at most :math:`k + 1`
    corners: on a simplex or an L1 ball it has few components that are not 0.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised.
    region : set, dict or list
        The set :math:`C` of each parameter, with a method `minimize`: `prox.Simplex`, `prox.Box`, `prox.L1Ball`,
        `prox.L2Ball`, `prox.LinfBall`; in the forms of `prox` in `proximal_gradient`. Each parameter needs one.
    step_size : scalar or schedule, optional
        :math:`a`, at most 1, in the place of the one from :math:`L`; for instance ``lambda k: 2 / (k + 2)``.
    tolerance : scalar or None
        It has converged when the gap :math:`g^T (x - s)` does not exceed it. For a convex cost the cost is then no more
        than this above the minimum. It is reported as ``"gradient_size"``.

    Raises
    ------
    TypeError, ValueError
        Also if a parameter has no `region`, or one without a method `minimize`.

    Notes
    -----
    Cost per call: mostly two evaluations of the cost and its gradients. Memory: three vectors. The gap falls as
    :math:`1 / k`, slowly; a start outside of the set goes to the first corner.

    References
    ----------
    Frank and Wolfe (1956), An algorithm for quadratic programming; Jaggi (2013), Revisiting Frank-Wolfe:
    projection-free sparse convex optimization, algorithm 1; Pedregosa, Negiar, Askari and Jaggi (2020), Linearly
    convergent Frank-Wolfe with backtracking line-search, algorithm 2, for :math:`L`.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.zeros(3), name="x"), pytensor.shared(0, name="stop")
    >>> cost = pt.sum((x - [3.0, 0.5, -0.1]) ** 2) / 2
    >>> updates = optapi.frank_wolfe([x], cost, stop=stop, region=optapi.prox.L1Ball(2.0))
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value().round(4)
    array([2., 0., 0.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    regions = entries("region", region, f.parameters, ("minimize", "project"))
    here, evaluations, kept = _opened(f, exact)
    x, g, curvature = here.point, here.gradient, f.state("curvature")

    def gap_at(at: Point) -> tuple[Any, Any]:
        """The way to the corner, and the gap."""
        parts = zip(f.parameters, regions, f.unpack(at.gradient), strict=True)
        corner = f.pack([r.minimize(part) if prod(f.shape(p)) else part for p, r, part in parts])
        return corner, -dot(at.gradient, corner - at.point)

    corner, gap = gap_at(here)
    d = corner - x
    parts = zip(f.parameters, regions, f.unpack(x), strict=True)
    outside = pt.any(pt.stack([exceeds(r, part) if prod(f.shape(p)) else FALSE for p, r, part in parts]))
    able = pt.isfinite(here.cost) & pt.all(pt.isfinite(g))
    converged = _converged(f, [gap]) & able & ~outside
    active = able & ~f.stopped & ~converged
    square, one = dot(d, d), pt.ones_like(gap)
    flat = pt.eq(square, 0)
    unset = norm(g) / pt.switch(flat, one, norm(d))
    L = pt.switch(curvature > 0, np.asarray(0.9, f.dtype) * curvature, pt.switch(unset > 0, unset, one))
    noise = resolution(here.cost, g)
    chosen = None if step_size is None else f.step_size(step_size).astype(f.dtype)

    def turn(count: Any, L: Any, *_: Any) -> Any:
        L = pt.switch(count > 0, 2 * L, L)
        a = gap / (L * pt.switch(flat, one, square)) if chosen is None else chosen
        a = pt.switch(outside | (a > 1), one, a)
        point = pt.switch(a < 1, x + a * d, corner)
        trial = f.at(point)
        bound = here.cost - a * gap + a**2 * L * square / 2 + noise
        done = (pt.isfinite(trial.cost) & pt.all(pt.isfinite(trial.gradient))) & (outside | (trial.cost <= bound))
        if chosen is not None:
            done = pt.eq(count, count)
        return [count + 1, L, point, trial.cost, trial.gradient], done

    trials, L, *found = repeat(turn, [np.int64(0), L, x, here.cost, g], pt.switch(active, MAX_TRIALS, 0))
    failed = ~(pt.isfinite(found[1]) & pt.all(pt.isfinite(found[2]))) | pt.eq(trials, 0)
    end = Point(*(pt.switch(failed, old, new) for old, new in zip(here, found, strict=True)))
    next_gap = gap_at(end)[1]
    stuck = failed | pt.all(pt.eq(end.point, x))
    settled = _converged(f, [next_gap]) & able & ~failed
    costs, gaps = (here.cost, end.cost), (gap, next_gap)
    return _closed(f, here, kept, end, costs, gaps, (converged, settled), stuck, {curvature: L}, evaluations + trials)
