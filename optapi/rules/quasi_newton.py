"""Quasi-Newton methods: curvature learned from the changes of the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_choice, check_count
from ..hints import hinted
from ..line_search import LineSearch, nonmonotone, strong_wolfe
from ..objective import Objective
from ..typing import Bounds, Manifolds, Scalar, StepSize, Updates, Variables, Weights, XScale
from ..vectors import dot, largest, norm
from ._descent import Descent, End
from ._linear_algebra import (
    CompactHessian,
    CompactInverseHessian,
    bfgs_update,
    check_square,
    curvature,
    inverse_hessian_state,
    ratio,
    times,
)
from ._projected import model_step
from ._split import Split


@hinted
def lbfgs(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
          memory: int = 10, line_search: LineSearch = strong_wolfe, exact: bool | None = None,
          x_scale: XScale | None = None, bounds: Bounds | None = None,
          l1: Weights | None = None, manifold: Manifolds | None = None, tolerance: Scalar | None = 1e-5,
          ascent: bool = False, name: str = "lbfgs") -> Updates:  # fmt: skip
    r"""Limited-memory BFGS.

    .. math:: x \leftarrow x - a H g

    with :math:`H` an approximation of the inverse Hessian from the last `memory` pairs of steps
    :math:`s = x_{new} - x` and changes of the gradient :math:`y = g_{new} - g`, and :math:`a` from a line search.

    A step along the steepest descent removes all pairs.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default 1, and about :math:`1 / \max(1, \|g\|)` along a
        steepest descent.
    memory : int
        The largest number of pairs.
    bounds : dict, list or pair, optional
        From parameters to pairs ``(low, high)``, each None, a number, or an array or symbolic variable that broadcasts
        to the parameter; or a list with a pair or None for each parameter; or one pair of numbers for all. Equal bounds
        fix a component. A start outside is projected by the first call. Every point that is evaluated or held is inside
        exactly. The rule is then L-BFGS-B: the direction leads to the minimizer of the quadratic model in the box, the
        search ends at the first bound behind it, and it has converged when the projected gradient, :math:`x - P(x - g)`
        with :math:`P` the projection, meets the tolerance.
    l1 : scalar, array, dict or list, optional
        The weights :math:`\lambda \ge 0` of a penalty :math:`\sum_i \lambda_i |x_i|`, which is added to the cost: a
        number, an array or a variable that broadcasts to the parameter; a dictionary from parameters to such, or a list
        with one or None for each. Components become exactly 0. Each is the difference of two parts that are not
        negative, of which one moves at a time, so that a step may lead to 0, and the next one across. The rule has
        converged when the subgradient of least norm, with bounds the projected one, meets the tolerance; the cost that
        it reports has the penalty in it. The scale of the Hessian is :math:`\|y\| / \|s\|` of the components that
        moved last, in the place of :math:`y^T y / s^T y`, which those that stay at 0 would make too large.
    manifold : manifold, dict or list, optional
        A manifold of `optapi.manifolds` that the parameters stay on: one for all, or a dictionary from parameters to
        such, or a list with one or None for each. A start that is not on it becomes the nearest point. All points that
        are evaluated or held are on it but for rounding: the search follows the curve of a retraction, gradients are
        projected on the tangent spaces, and pairs on that of the present point. It has converged when the projected
        gradient meets the tolerance. It does not go together with `bounds`, `l1` and `x_scale`.

    Raises
    ------
    TypeError, ValueError
        Also if `bounds`, `l1` or `manifold` are not as said here, or a `line_search` of your own takes no ``limit=``,
        which the first two need.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients, more while the search brackets a step;
    :math:`6mn` multiplications. Memory: :math:`2m + 3` vectors of state, and at most 17 more while a call runs under
    numba or C. A mode that keeps the old state, as `minimize` does, has the state twice.
    `optapi.inverse_hessian` returns the inverse Hessian as an operator.

    With bounds: :math:`n \log n` for the order in which components meet their bounds, about :math:`10 m^2 n`
    multiplications, :math:`2m + 4` vectors of state, and some :math:`10 m` more while a call runs. The inverse Hessian
    is that of the components inside of their bounds; rows and columns of the others are zero. With `l1` it is that of
    the components that are not 0, vectors have both parts, and three vectors of state are twice as long.

    On a manifold: :math:`2 m^2 n` multiplications more, and the projections of the pairs. The inverse Hessian is that
    on the tangent space.

    For groups of parameters of one cost use one `lbfgs` over all of them: for each of two, the parameters of the other
    would be data that change between calls.

    References
    ----------
    Nocedal (1980), Updating quasi-Newton matrices with limited storage; Liu and Nocedal (1989), On the limited memory
    BFGS method for large scale optimization, algorithm 2.1, with the scaling by :math:`\gamma` that they recommend.
    With bounds: Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization;
    Morales and Nocedal (2011), Remark on algorithm 778: L-BFGS-B. With `l1`: Schmidt, Fung and Rosales (2007), Fast
    optimization methods for L1 regularization, section 3.2, for the two parts; Andrew and Gao (2007), Scalable training
    of L1-regularized log-linear models, for orthants; Dai, Al-Baali and Yang (2015), A positive Barzilai-Borwein-like
    stepsize and an extension for symmetric linear systems, for the scale. On a manifold: Huang, Gallivan and Absil
    (2015), A Broyden class of quasi-Newton methods for Riemannian optimization, for the pairs.

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

    With bounds:

    >>> x, stop = pytensor.shared(np.array([-1.2, 1.0]), name="x"), pytensor.shared(0, name="stop")
    >>> cost = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> step = pytensor.function([], cost, updates=optapi.lbfgs([x], cost, stop=stop, bounds={x: (None, 0.5)}))
    >>> while not stop.get_value():
    ...     _ = step()
    >>> x.get_value()
    array([0.5 , 0.25])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale, bounds=bounds, manifold=manifold,
    )  # fmt: skip
    if l1 is not None:
        if manifold is not None:
            raise ValueError("manifold and l1 do not go together; pass one of them")
        f = Split.into_parts(f, l1)
    start = Descent.start(f, line_search, exact)
    check_count("memory", memory)
    if f.box is not None:
        return _bounded(start, CompactHessian.begin(f, memory), step_size)
    pairs = CompactInverseHessian.begin(f, memory)
    end = start.line_search(-pairs.times(start.gradient), step_size, restart=pairs.empty)
    return start.finish(end, {}, unheld=dict(zip(pairs, start.pushed(pairs, end), strict=True)))


def _bounded(start: Descent, pairs: CompactHessian, step_size: StepSize | None) -> Updates:
    """`lbfgs` with bounds, or with an L1 penalty."""
    f: Any = start.objective
    room: Any = start.room
    split = isinstance(f, Split)
    direction = model_step(room, start.gradient, f.model(pairs) if split else pairs) if f.size else start.gradient
    end = start.line_search(direction, step_size, restart=pairs.empty)
    step, change = f.pair(end) if split else (end.step, end.change)
    scale = f.scale(step, change) if split else None
    pushed = pairs.cleared(end.restarted).push(step, change, unless=end.failed, scale=scale)
    unheld = dict(zip(pairs[1:], pushed[1:], strict=True))
    return start.finish(end, {pairs.active: (f if split else f.box).active(end.point)}, unheld=unheld)


@hinted
def bfgs(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
         line_search: LineSearch = strong_wolfe, exact: bool | None = None, x_scale: XScale | None = None,
         tolerance: Scalar | None = 1e-5, ascent: bool = False, name: str = "bfgs") -> Updates:  # fmt: skip
    r"""BFGS, with the inverse Hessian as a matrix.

    .. math::
        x \leftarrow x - a H g, \qquad
        H \leftarrow (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \qquad \rho = 1 / y^T s

    with :math:`s` the step, :math:`y` the change of the gradient, and :math:`a` from a line search. Before the first
    update :math:`H = (s^T y / y^T y) I`. A pair without :math:`s^T y > \epsilon \|s\| \|y\|`, with :math:`\epsilon` the
    machine precision, is left out.

    A step along the steepest descent resets :math:`H` to a multiple of :math:`I`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default 1, and about :math:`1 / \max(1, \|g\|)` along a
        steepest descent.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients; :math:`4n^2` multiplications. State:
    :math:`n^2` numbers, which `optapi.inverse_hessian` returns. Use `lbfgs` for more than a few hundred components.

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
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    check_square(f, "lbfgs")
    start = Descent.start(f, line_search, exact)
    H = inverse_hessian_state(f, "inverse_hessian", (f.size, f.size), fill=np.eye(f.size))
    updated = f.state("updated", dtype="int64")
    end = start.line_search(-times(H, start.gradient), step_size, restart=pt.eq(updated, 0))

    s, y = end.step, end.change
    good, sy, scale = curvature(s, y)
    H0 = pt.switch(end.restarted, scale * pt.eye(f.size, dtype=f.dtype), H)
    next_H = bfgs_update(H0, s, y, sy)
    new = {H: pt.switch(good, next_H, H), updated: pt.switch(good, 1, pt.switch(end.restarted, 0, updated))}
    return start.finish(end, new)


@hinted
def sr1(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
        line_search: LineSearch = strong_wolfe, exact: bool | None = None, x_scale: XScale | None = None,
        tolerance: Scalar | None = 1e-5, ascent: bool = False, name: str = "sr1") -> Updates:  # fmt: skip
    r"""The symmetric rank-one method, with the inverse Hessian as a matrix.

    .. math::
        x \leftarrow x - a H g, \qquad H \leftarrow H + \frac{v v^T}{v^T y}, \qquad v = s - H y

    with :math:`s` the step, :math:`y` the change of the gradient, and :math:`a` from a line search. There is no update
    unless :math:`|v^T y| > 10^{-8} \|v\| \|y\|`. Before the first update :math:`H = (s^T y / 2 y^T y) I`; with
    :math:`H = (s^T y / y^T y) I`, :math:`v` would be orthogonal to :math:`y`. A step along the steepest descent resets
    :math:`H` to this matrix.

    :math:`H` may have negative eigenvalues, so :math:`-H g` may ascend. The search is then along :math:`H g`, which
    leads away from a saddle.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default 1, and about :math:`1 / \max(1, \|g\|)` along a
        steepest descent.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients; :math:`3n^2` multiplications. State:
    :math:`n^2` numbers, a matrix which `optapi.inverse_hessian` returns, and which need not be positive definite.

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
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    check_square(f, "lbfgs")
    start = Descent.start(f, line_search, exact)
    H = inverse_hessian_state(f, "inverse_hessian", (f.size, f.size), fill=np.eye(f.size))
    updated = f.state("updated", dtype="int64")
    Hg = times(H, start.gradient)
    # Where -Hg ascends, Hg descends. The steepest descent in its place takes up to 30 times as many evaluations.
    end = start.line_search(-pt.sign(dot(start.gradient, Hg)) * Hg, step_size, restart=pt.eq(updated, 0))

    s, y = end.step, end.change
    positive, _, scale = curvature(s, y)
    H0 = pt.switch(end.restarted, scale / 2 * pt.eye(f.size, dtype=f.dtype), H)
    v = s - times(H0, y)
    vy = dot(v, y)
    good = (abs(vy) > np.asarray(1e-8, f.dtype) * norm(v) * norm(y)) & pt.isfinite(1 / vy) & (positive | ~end.restarted)
    next_H = H0 + ratio(pt.outer(v, v), vy, good)
    new = {H: pt.switch(good, next_H, H), updated: pt.switch(good, 1, pt.switch(end.restarted, 0, updated))}
    return start.finish(end, new)


@hinted
def barzilai_borwein(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                     stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                     kind: str = "alternate", line_search: LineSearch = nonmonotone, exact: bool | None = None,
                     x_scale: XScale | None = None, bounds: Bounds | None = None, manifold: Manifolds | None = None,
                     tolerance: Scalar | None = 1e-5, ascent: bool = False,
                     name: str = "barzilai_borwein") -> Updates:  # fmt: skip
    r"""The method of Barzilai and Borwein: gradient descent with two-point step sizes.

    .. math:: x \leftarrow x - a g, \qquad a = \frac{s^T s}{s^T y} \text{ (long)} \quad\text{or}\quad
        a = \frac{s^T y}{y^T y} \text{ (short)}

    with :math:`s` the last step and :math:`y` the last change of the gradient. The `line_search` is a safeguard: it
    shortens a step that raises the cost above the largest of the last 10. Without
    :math:`s^T y > \epsilon \|s\| \|y\|`, with :math:`\epsilon` the machine precision, :math:`a = 1 / \max(1, \|g\|)`.
    The cost may rise from call to call; `optapi.best` keeps the best point.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        :math:`a`, in the place of the step sizes above.
    kind : "long", "short" or "alternate"
        Which step size; with "alternate" both, in turn.
    bounds : dict, list or pair, optional
        As in `lbfgs`. The rule is then the spectral projected gradient method: it searches along :math:`P(x - a g) - x`
        with :math:`P` the projection, and without positive curvature :math:`a = \max(1, \max_i |x_i|)` over the largest
        component of the projected gradient.
    manifold : manifold, dict or list, optional
        As in `lbfgs`. With a `step_size` the rule is gradient descent on the manifold.

    Notes
    -----
    Cost per call: mostly one evaluation of the cost and its gradients. State: a few numbers, and the point with its
    gradient if `exact`.

    References
    ----------
    Barzilai and Borwein (1988), Two-point step size gradient methods; Raydan (1997), The Barzilai and Borwein gradient
    method for the large scale unconstrained minimization problem, for the safeguard; Dai and Fletcher (2005), Projected
    Barzilai-Borwein methods for large-scale box-constrained quadratic programming, for the steps in turn; Birgin,
    Martínez and Raydan (2000), Nonmonotone spectral projected gradient methods on convex sets, algorithm 2.2, for
    bounds, where the largest step size takes the place of that without positive curvature.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.barzilai_borwein).round(4)
    array([1., 1.])
    """
    check_choice("kind", kind, ("long", "short", "alternate"))
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale, bounds=bounds, manifold=manifold,
    )  # fmt: skip
    start = Descent.start(f, line_search, exact)
    new: Updates = {}
    if step_size is not None:
        end = _along_gradient(start, step_size)
    else:
        # 0 means that there is none.
        step = f.state("step_size")
        end = _along_gradient(start, pt.switch(step > 0, step, _default(start)))
        good, sy, short = curvature(end.step, end.change)
        long = dot(end.step, end.step) / sy
        if kind == "alternate":
            turn = f.state("turn", dtype="int64")
            new[turn] = 1 - turn
            chosen = pt.switch(pt.eq(turn, 0), long, short)
        else:
            chosen = long if kind == "long" else short
        new[step] = pt.switch(good, chosen, pt.zeros_like(chosen))
    return start.finish(end, new)


def _default(start: Descent) -> Any:
    """The step size without positive curvature."""
    if start.objective.box is None:
        return start.first_step
    return pt.maximum(largest(start.objective.unscaled(start.point)), 1) / largest(start.descent)


def _along_gradient(start: Descent, size: Any) -> End:
    """The search from a step of this `size` along the gradient, with bounds along the way to its projection."""
    f, room = start.objective, start.room
    if room is None:
        return start.line_search(first=size)
    return start.line_search(room.project(-f.step_size(size).astype(f.dtype) * start.gradient), first=1.0)
