"""Proximal rules: a smooth cost together with penalties or sets that have a proximal operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_flag
from ..graph.loops import FALSE, cond, repeat
from ..hints import hinted
from ..line_search import resolution
from ..objective import Objective, Point
from ..prox import penalties
from ..typing import Scalar, StepSize, Updates, Variables
from ..vectors import dot, largest, norm
from ._descent import MAX_TRIALS


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

    def prox(self, v: Any, t: Any) -> Any:
        """The proximal operator at a packed vector."""
        f = self.objective
        parts = zip(f.unpack(v), self.found, strict=True)
        return f.pack([part if h is None else h.prox(part, t) for part, h in parts])

    def forward_backward(self, x: Any, g: Any, L: Any) -> Any:
        r""":math:`\operatorname{prox}_{h/L}(x - g/L)`."""
        return self.prox(x - g / L, 1 / L)


@hinted
def proximal_gradient(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                      stop: Variable | None = None, updates: Updates | None = None, *,
                      prox: Any | Mapping[Any, Any] | Sequence[Any], accelerated: bool = True,
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
    here, evaluations, kept = f.current(exact)
    x, g = here.point, here.gradient
    curvature, previous, t = f.state("curvature"), f.state("previous", (f.size,)), f.state("momentum", fill=1)

    first = pt.eq(curvature, 0)
    unset = pt.switch(norm(g) > 0, norm(g), pt.ones_like(curvature))
    L = pt.switch(first, unset, np.asarray(0.9, f.dtype) * curvature)
    if step_size is not None:
        L = (1 / f.step_size(step_size)).astype(f.dtype)
    residual = L * (x - F.forward_backward(x, g, L))
    able = pt.isfinite(here.cost) & pt.all(pt.isfinite(g))
    converged = f.converged([residual]) & able

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
    z, cost_z, gradient_z = (pt.switch(failed, old, new) for old, new in zip(here, (z, *at_z[1:]), strict=True))
    restarts = dot(v - z, z - x) > 0
    still = pt.all(pt.eq(z, x)) & ~moves
    next_residual = L * (z - F.forward_backward(z, gradient_z, L))
    size, total = largest(next_residual), cost_z + F.value(z)
    settled = f.converged([next_residual]) & ~failed
    ends, reason, new = _verdict(f, here, total, size, failed | still, able)
    new |= dict(zip(f.parameters, f.unpack(z), strict=True))
    new |= {curvature: L, previous: x, t: pt.switch(restarts | failed, pt.ones_like(t), t_new)}
    if not accelerated:
        new = {variable: value for variable, value in new.items() if variable not in (previous, t)}
    new |= zip(kept, (z, cost_z, gradient_z), strict=False)
    ends = ends & ~(settled | converged)
    return f.finish(
        new,
        converged,
        ends | settled,
        reports={
            "reason": pt.switch(ends, reason, 0).astype("int64"),
            "evaluations": evaluations + pt.cast(moves, "int64") + trials,
            "cost": pt.switch(converged, here.cost + F.value(x), total),
            "gradient_size": pt.switch(converged, largest(residual), size),
        },
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


def _verdict(f: Objective, here: Point, total: Any, size: Any, stuck: Any, able: Any) -> tuple[Any, Any, Updates]:
    """Whether to give up, the reason, and state: where no lower cost has been found for long, or no step moves."""
    if f.stop is None:
        return FALSE, np.int64(0), {}
    lowest = f.state("lowest_cost", dtype=total.type.dtype, fill=np.inf)
    least = f.state("least_residual", fill=np.inf)
    stalled = f.state("stalled_calls", dtype="int64")
    falls = (total < lowest) | (size < np.asarray(0.9, f.dtype) * least)
    count = pt.switch(falls, 0, stalled + 1)
    new = {
        lowest: pt.switch(total < lowest, total, lowest),
        least: pt.switch(size < least, size, least),
        stalled: count,
    }
    ends = stuck | (count > PATIENCE) | ~able
    hidden = total - lowest <= resolution(here.cost, here.gradient)
    reason = pt.switch(able, pt.switch(hidden, 7, 2), 3)
    return ends, reason, new
