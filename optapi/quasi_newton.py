"""Quasi-Newton methods: curvature learnt from the changes of the gradient."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from .checks import check_count
from .directions import Pairs, dot, largest, norm
from .objective import Objective
from .search import Trial, weak_wolfe
from .state import state
from .updates import Updates


def lbfgs(
    parameters: Any,
    cost: Any = None,
    gradients: Any = None,
    stop: Any = None,
    updates: Updates | None = None,
    *,
    step_size: Any = None,
    memory: int = 10,
    search: Any = weak_wolfe,
    exact: bool | None = None,
    tolerance: Any = 1e-5,
    ascent: bool = False,
    name: str = "lbfgs",
) -> Updates:
    r"""Limited-memory BFGS.

    .. math:: x \leftarrow x - a H g

    with :math:`H` an approximation of the inverse Hessian from the last `memory` pairs of steps
    :math:`s = x_{new} - x` and changes of the gradient :math:`y = g_{new} - g`, and :math:`a` from a line search.

    If the direction does not descend, the pairs are forgotten and the search is along the steepest descent. If a search
    fails, the point stays, the pairs are forgotten, and the next call searches along the steepest descent. If that
    fails too, or more than `memory` calls on end have not lowered the cost, the algorithm has finished with reason 2;
    with 3 if the cost or a gradient was not finite at the start.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default 1, and :math:`1 / \max(1, \|g\|)` along a steepest descent.
    memory : int
        The largest number of pairs.
    search : callable
        The line search, see `optapi.search`.
    exact : bool, optional
        Whether a cost and gradient found at a point are still true at the next call. By default True, unless the cost
        has explicit inputs, draws random numbers, or reads a variable of `updates`. Pass False if data in another
        shared variable change between calls.
    tolerance : scalar or None
        `stop` becomes 1 when no component of the gradient is larger in absolute value.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports ``reason``,
        ``evaluations``, ``cost`` and ``gradient_size``, see `optapi.reports`.

    Raises
    ------
    ValueError, TypeError, KeyError
        As every rule; ValueError also if `gradients` cannot be those of `cost` at other points.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients, more while the search brackets a step, and one
    at the start if `exact` is False; :math:`6mn` multiplications. State: :math:`2mn` numbers, and some copies of them
    while a call runs.

    For groups of parameters of one cost use one `lbfgs` over all of them: two would each take the other's parameters
    for data, which change between calls.

    References
    ----------
    Nocedal (1980), Updating quasi-Newton matrices with limited storage; Liu and Nocedal (1989), On the limited memory
    BFGS method for large scale optimization, algorithm 2.1, with the scaling by :math:`\gamma` that they recommend.
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, searches=True
    )
    if not callable(search):
        raise TypeError(f"search is {search!r}; pass a function of optapi.search, for instance weak_wolfe")
    pairs = Pairs.begin(name, check_count("memory", memory), f.size, f.dtype)
    here, evaluated, kept = f.here(exact)
    x, g = here.point, here.gradient
    rest = f.converged([g])

    d = -pairs.times(g)
    steepest = pairs.empty | ~(dot(g, d) < 0)
    d = pt.switch(steepest, -g, d)
    slope = dot(g, d)
    unit = pt.ones_like(slope)
    first = pt.switch(steepest, unit / pt.maximum(1, norm(g)), unit) if step_size is None else f.step_size(step_size)

    def line(a: Any) -> Trial:
        there = f.at(x + a.astype(f.dtype) * d)
        return Trial(there.cost, dot(there.gradient, d), (there.point, there.gradient))

    first = pt.switch(f.stopped | rest, pt.zeros_like(first), first)
    step = search(line, Trial(here.cost, slope, (x, g)), first)
    x_new, g_new = step.trial.carry

    # At round-off level a step may pass the tests of the search and leave the point where it is.
    failed = step.failed | pt.all(pt.eq(x_new, x))
    settled = f.converged([g_new]) | pt.all(pt.eq(g_new, 0))
    new: Updates = {}
    lost = failed & steepest
    if f.stop is not None:
        # There too it may go round among points of the same cost.
        level = state(f"{name}/level", dtype="int64")
        new[level] = pt.switch(step.trial.cost < here.cost, 0, level + 1)
        lost = lost | (new[level] > memory)
    lost = lost & ~(rest | settled)
    finite = pt.isfinite(here.cost) & pt.all(pt.isfinite(g))
    pushed = pairs.cleared(steepest).push(x_new - x, g_new - g).cleared(failed)
    new |= dict(zip([*f.parameters, *pairs], [*f.unpack(x_new), *pushed], strict=True))
    if kept:
        new |= dict(zip(kept, (x_new, step.trial.cost, g_new), strict=True))
    return f.finish(
        new,
        rest,
        lost | settled,
        reports={
            "reason": pt.switch(lost, pt.switch(finite, 2, 3), 0).astype("int64"),
            "evaluations": evaluated + step.evaluations,
            "cost": step.trial.cost,
            "gradient_size": largest(g_new),
        },
    )
