"""Quasi-Newton methods: curvature learnt from the changes of the gradient."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_choice, check_count
from ..line_search import LineSearch, nonmonotone, strong_wolfe
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables
from ._descent import Descent
from ._linear_algebra import CompactInverseHessian, bfgs_update, curvature, dot, inverse_hessian_state, norm, times


def lbfgs(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
          memory: int = 10, line_search: LineSearch = strong_wolfe, exact: bool | None = None,
          tolerance: Scalar | None = 1e-5, ascent: bool = False, name: str = "lbfgs") -> Updates:  # fmt: skip
    r"""Limited-memory BFGS.

    .. math:: x \leftarrow x - a H g

    with :math:`H` an approximation of the inverse Hessian from the last `memory` pairs of steps
    :math:`s = x_{new} - x` and changes of the gradient :math:`y = g_{new} - g`, and :math:`a` from a line search.

    Where the direction does not descend, the search is along the steepest descent; so it is in the call after one whose
    search has failed, which leaves the point where it is. With a step along the steepest descent the pairs are
    forgotten. If that search fails too, or more than 10 calls on end have found no cost below the lowest, no
    further decrease is possible at the precision of the cost, and the algorithm has finished with reason 2; with 3 if
    the cost or a gradient was not finite at the start.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default 1, and :math:`1 / \max(1, \|g\|)` along a steepest descent.
    memory : int
        The largest number of pairs.
    line_search : callable
        The line search, see `optapi.line_search`.
    exact : bool, optional
        Whether a cost and gradient found at a point are still true at the next call. By default True, unless the cost
        has explicit inputs, draws random numbers, or reads a variable of `updates`. Pass False if data in another
        shared variable change between calls.

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
    while a call runs. `optapi.inverse_hessian` has the pairs as an operator.

    For groups of parameters of one cost use one `lbfgs` over all of them: two would each take the other's parameters
    for data, which change between calls.

    References
    ----------
    Nocedal (1980), Updating quasi-Newton matrices with limited storage; Liu and Nocedal (1989), On the limited memory
    BFGS method for large scale optimization, algorithm 2.1, with the scaling by :math:`\gamma` that they recommend.

    Examples
    --------
    >>> x, stop = pytensor.shared(np.array([-1.2, 1.0]), name="x"), pytensor.shared(0, name="stop")
    >>> cost = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> updates = optapi.lbfgs([x], cost, stop=stop)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 1.])
    >>> [reason] = optapi.reports(updates)["reason"]
    >>> int(reason.get_value())
    0
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, line_search, exact)
    pairs = CompactInverseHessian.begin(f, check_count("memory", memory))
    end = start.line_search(-pairs.times(start.gradient), step_size, fresh=pairs.empty)
    pushed = pairs.cleared(end.restarted).push(end.step, end.change, unless=end.failed)
    return start.finish(end, {}, unheld=dict(zip(pairs, pushed, strict=True)))


def bfgs(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
         line_search: LineSearch = strong_wolfe, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
         ascent: bool = False, name: str = "bfgs") -> Updates:  # fmt: skip
    r"""BFGS, with the inverse Hessian as a matrix.

    .. math::
        x \leftarrow x - a H g, \qquad
        H \leftarrow (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / y^T s

    with :math:`s` the step, :math:`y` the change of the gradient, and :math:`a` from a line search. Before the first
    update :math:`H = (s^T y / y^T y) I`. A pair without :math:`s^T y > \epsilon \|s\| \|y\|`, with :math:`\epsilon` the
    machine precision, makes no update.

    Where the direction does not descend, the search is along the steepest descent; so it is in the call after one whose
    search has failed, which leaves the point where it is. A step along the steepest descent begins :math:`H` anew. If
    that search fails too, or more than 10 calls on end have found no cost below the lowest, no further decrease is
    possible at the precision of the cost, and the algorithm has finished with reason 2; with 3 if the cost or a
    gradient was not finite at the start.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default 1, and :math:`1 / \max(1, \|g\|)` along a steepest descent.
    search, exact, tolerance
        As in `lbfgs`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports as `lbfgs` does.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `lbfgs`.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients; :math:`4n^2` multiplications. State:
    :math:`n^2` numbers, which `optapi.inverse_hessian` returns. From a few hundred components on use `lbfgs`.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithm 6.1 with equations 6.17 and 6.20.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.bfgs, full_output=True)
    >>> result.x.round(4)
    array([1., 1.])
    >>> result.hess_inv.round(1)
    array([[0.5, 1. ],
           [1. , 2.1]])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, line_search, exact)
    H = inverse_hessian_state(f, "inverse_hessian", (f.size, f.size), fill=np.eye(f.size))
    updated = f.state("updated", dtype="int64")
    end = start.line_search(-times(H, start.gradient), step_size, fresh=pt.eq(updated, 0))

    s, y = end.step, end.change
    good, sy, yy = curvature(s, y)
    before = pt.switch(end.restarted, sy / yy * pt.eye(f.size, dtype=f.dtype), H)
    after = bfgs_update(before, s, y, sy)
    new = {H: pt.switch(good, after, H), updated: pt.switch(good, 1, pt.switch(end.restarted, 0, updated))}
    return start.finish(end, new)


def sr1(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
        line_search: LineSearch = strong_wolfe, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
        ascent: bool = False, name: str = "sr1") -> Updates:  # fmt: skip
    r"""The symmetric rank-one method, with the inverse Hessian as a matrix.

    .. math::
        x \leftarrow x - a H g, \qquad H \leftarrow H + \frac{v v^T}{v^T y}, \qquad v = s - H y

    with :math:`s` the step, :math:`y` the change of the gradient, and :math:`a` from a line search. There is no update
    unless :math:`|v^T y| > 10^{-8} \|v\| \|y\|`. Before the first update :math:`H = (s^T y / 2 y^T y) I`; with twice as
    much :math:`v` would be orthogonal to :math:`y`.

    :math:`H` follows negative curvature, so :math:`-H g` may ascend; the search is then along :math:`H g`, which leads
    away from a saddle. What happens where a search fails, and when it ends, is as in `bfgs`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, step_size, search, exact, tolerance, ascent, name
        As in `bfgs`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports as `lbfgs` does.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `lbfgs`.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients; :math:`3n^2` multiplications. State:
    :math:`n^2` numbers, which `optapi.inverse_hessian` returns. They need not be positive definite.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, equations 6.25 and 6.26, with a line search.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.sr1).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, line_search, exact)
    H = inverse_hessian_state(f, "inverse_hessian", (f.size, f.size), fill=np.eye(f.size))
    updated = f.state("updated", dtype="int64")
    Hg = times(H, start.gradient)
    end = start.line_search(-pt.sign(dot(start.gradient, Hg)) * Hg, step_size, fresh=pt.eq(updated, 0))

    s, y = end.step, end.change
    curved, sy, yy = curvature(s, y)
    before = pt.switch(end.restarted, sy / (2 * yy) * pt.eye(f.size, dtype=f.dtype), H)
    v = s - times(before, y)
    vy = dot(v, y)
    good = (abs(vy) > np.asarray(1e-8, f.dtype) * norm(v) * norm(y)) & pt.isfinite(1 / vy) & (curved | ~end.restarted)
    after = before + pt.outer(v, v) / pt.switch(good, vy, pt.ones_like(vy))
    new = {H: pt.switch(good, after, H), updated: pt.switch(good, 1, pt.switch(end.restarted, 0, updated))}
    return start.finish(end, new)


def barzilai_borwein(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                     stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                     kind: str = "alternate", line_search: LineSearch = nonmonotone, exact: bool | None = None,
                     tolerance: Scalar | None = 1e-5, ascent: bool = False,
                     name: str = "barzilai_borwein") -> Updates:  # fmt: skip
    r"""The method of Barzilai and Borwein: gradient descent with two-point step sizes.

    .. math:: x \leftarrow x - a g, \qquad a = \frac{s^T s}{s^T y} \text{ (long)} \quad\text{or}\quad
        a = \frac{s^T y}{y^T y} \text{ (short)}

    with :math:`s` the last step and :math:`y` the last change of the gradient. A safeguard, the `line_search`, shortens
    a step that raises the cost above the largest of the last 10. Without :math:`s^T y > \epsilon \|s\| \|y\|`, with
    :math:`\epsilon` the machine precision, :math:`a = 1 / \max(1, \|g\|)`.

    When a search fails, or 100 calls on end have found no cost below the lowest, no further decrease is possible at the
    precision of the cost, and the algorithm has finished with reason 2; with 3 if the cost or a gradient was not finite
    at the start. The cost may rise from call to call; `optapi.best` keeps the best point.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        :math:`a`, in the place of the steps of Barzilai and Borwein.
    kind : "long", "short" or "alternate"
        Which step; alternate takes them in turn.
    search, exact, tolerance
        As in `lbfgs`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports as `lbfgs` does.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `lbfgs`; ValueError also if `kind` is none of the three.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients. State: a few numbers, and the point with its
    gradient if `exact`.

    References
    ----------
    Barzilai and Borwein (1988), Two-point step size gradient methods; Raydan (1997), The Barzilai and Borwein gradient
    method for the large scale unconstrained minimization problem, for the safeguard; Dai and Fletcher (2005), Projected
    Barzilai-Borwein methods for large-scale box-constrained quadratic programming, for the steps in turn.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.barzilai_borwein).round(4)
    array([1., 1.])
    """
    check_choice("kind", kind, ("long", "short", "alternate"))
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, line_search, exact)
    new: Updates = {}
    if step_size is not None:
        end = start.line_search(first=step_size)
    else:
        # 0 says that there is none.
        step = f.state("step_size")
        end = start.line_search(first=pt.switch(step > 0, step, 1 / pt.maximum(1, norm(start.gradient))))
        good, sy, yy = curvature(end.step, end.change)
        long, short = dot(end.step, end.step) / sy, sy / yy
        if kind == "alternate":
            turn = f.state("turn", dtype="int64")
            new[turn] = 1 - turn
            chosen = pt.switch(pt.eq(turn, 0), long, short)
        else:
            chosen = long if kind == "long" else short
        new[step] = pt.switch(good, chosen, pt.zeros_like(chosen))
    return start.finish(end, new)
