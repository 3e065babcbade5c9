"""Conjugate gradients: each direction is the negative gradient plus beta times the previous direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.tensor.type import float_dtypes

from ..checks import as_dtype, as_tensor, check_count, scalar
from ..graph.loops import FALSE, cond
from ..hints import hinted
from ..line_search import LineSearch, fixed, strong_wolfe
from ..objective import Objective
from ..typing import Manifolds, Scalar, StepSize, Tensor, Updates, Variables, XScale
from ..vectors import dot, in_units, scaled, unit
from ._descent import Descent
from ._linear_algebra import CompactInverseHessian, preconditioner_scale, ratio


# From the direction d, the gradient g at its start and the gradient g_new at the end of the line search to beta; with a
# memory also from P (g_new - g).
Formula = Callable[..., Any]

# Conjugacy needs steps that come close to the minimizer along the line.
precise = partial(strong_wolfe, curvature=0.1)


def quotient(a: Tensor, b: Tensor) -> Any:
    """`a` / `b` where `b` is positive, else 0."""
    return ratio(a, b, b > 0)


def vectors(**given: Any) -> list[Any]:
    """The arguments of a formula, checked."""
    tensors = [as_tensor(name, vector) for name, vector in given.items()]
    for name, tensor in zip(given, tensors, strict=True):
        if tensor.type.ndim != 1 or tensor.type.dtype not in float_dtypes:
            raise TypeError(f"{name} is of type {tensor.type}; pass a vector of real numbers")
    return tensors


@hinted
def beta_fletcher_reeves(d: Tensor, g: Tensor, g_new: Tensor) -> Any:
    r"""The formula of Fletcher and Reeves, :math:`\beta = \|g_{new}\|^2 / \|g\|^2`.

    The arguments of all formulas are the direction :math:`d`, the gradient :math:`g` at its start and the gradient
    :math:`g_{new}` at the end of the line search, vectors of one shape and dtype. The result is a scalar, 0 where the
    denominator is not positive.

    Examples
    --------
    >>> d, g, g_new = (pt.constant(np.array(v)) for v in ([-2.0, 0.0], [2.0, 0.0], [0.0, 1.0]))
    >>> float(optapi.beta_fletcher_reeves(d, g, g_new).eval(mode=optapi.PYTHON))
    0.25
    """
    d, g, g_new = vectors(d=d, g=g, g_new=g_new)
    return quotient(dot(g_new, g_new), dot(g, g))


@hinted
def beta_polak_ribiere(d: Tensor, g: Tensor, g_new: Tensor) -> Any:
    r"""The formula of Polak and Ribière, not below 0 (PR+), :math:`\beta = \max(0, g_{new}^T y / \|g\|^2)`.

    With :math:`y = g_{new} - g`, and the arguments of `beta_fletcher_reeves`.

    Examples
    --------
    >>> d, g, g_new = (pt.constant(np.array(v)) for v in ([-2.0, 0.0], [2.0, 0.0], [1.0, 1.0]))
    >>> float(optapi.beta_polak_ribiere(d, g, g_new).eval(mode=optapi.PYTHON))
    0.0
    """
    d, g, g_new = vectors(d=d, g=g, g_new=g_new)
    return pt.maximum(quotient(dot(g_new, g_new - g), dot(g, g)), 0)


@hinted
def beta_hestenes_stiefel(d: Tensor, g: Tensor, g_new: Tensor) -> Any:
    r"""The formula of Hestenes and Stiefel, :math:`\beta = g_{new}^T y / d^T y`.

    With :math:`y = g_{new} - g`, and the arguments of `beta_fletcher_reeves`.

    Examples
    --------
    >>> d, g, g_new = (pt.constant(np.array(v)) for v in ([-2.0, 0.0], [2.0, 0.0], [-1.0, 1.0]))
    >>> round(float(optapi.beta_hestenes_stiefel(d, g, g_new).eval(mode=optapi.PYTHON)), 4)
    0.6667
    """
    d, g, g_new = vectors(d=d, g=g, g_new=g_new)
    y = g_new - g
    return quotient(dot(g_new, y), dot(d, y))


@hinted
def beta_dai_yuan(d: Tensor, g: Tensor, g_new: Tensor) -> Any:
    r"""The formula of Dai and Yuan, :math:`\beta = \|g_{new}\|^2 / d^T y`.

    With :math:`y = g_{new} - g`, and the arguments of `beta_fletcher_reeves`.

    Examples
    --------
    >>> d, g, g_new = (pt.constant(np.array(v)) for v in ([-2.0, 0.0], [2.0, 0.0], [0.0, 1.0]))
    >>> float(optapi.beta_dai_yuan(d, g, g_new).eval(mode=optapi.PYTHON))
    0.25
    """
    d, g, g_new = vectors(d=d, g=g, g_new=g_new)
    return quotient(dot(g_new, g_new), dot(d, g_new - g))


@hinted
def beta_hager_zhang(d: Tensor, g: Tensor, g_new: Tensor, theta: Scalar = 1.0, truncation: Scalar = 0.4,
                     preconditioned: Tensor | None = None) -> Any:  # fmt: skip
    r"""The formula of Hager and Zhang, bounded from below; see `hager_zhang_cg`.

    Parameters
    ----------
    d, g, g_new
        As in `beta_fletcher_reeves`.
    theta : scalar
        :math:`\theta`, at least 1/4.
    truncation : scalar
        :math:`\eta`, not negative.
    preconditioned : vector, optional
        :math:`P y`, with :math:`y = g_{new} - g` and the preconditioner :math:`P`; by default :math:`y`. The lower
        bound of :math:`\beta` is then :math:`-\eta`, else :math:`\eta d^T g / \|d\|^2`.

    Examples
    --------
    >>> d, g, g_new = (pt.constant(np.array(v)) for v in ([-2.0, 0.0], [2.0, 0.0], [0.0, 1.0]))
    >>> float(optapi.beta_hager_zhang(d, g, g_new).eval(mode=optapi.PYTHON))
    0.25
    """
    d, g, g_new = vectors(d=d, g=g, g_new=g_new)
    theta, eta = scalar("theta", theta, low=0.25), scalar("truncation", truncation, low=0)
    theta, eta = (as_dtype(s, d.type.dtype) for s in (theta, eta))
    y = Py = g_new - g
    bound = eta * quotient(dot(d, g), dot(d, d))
    if preconditioned is not None:
        (Py,) = vectors(preconditioned=preconditioned)
        bound = -eta
    dy = dot(d, y)
    beta = quotient(dot(Py, g_new) - theta * quotient(dot(y, Py) * dot(d, g_new), dy), dy)
    return pt.maximum(beta, bound)


@hinted
def conjugate_gradient(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                       stop: Variable | None = None, updates: Updates | None = None, *,
                       beta: Formula = beta_polak_ribiere, memory: int = 0, step_size: StepSize | None = None,
                       restart_overlap: Scalar | None = 0.5, restart_every: int | None = None,
                       line_search: LineSearch = precise, exact: bool | None = None, x_scale: XScale | None = None,
                       preconditioner: Sequence[Any] | str | None = None, manifold: Manifolds | None = None,
                       tolerance: Scalar | None = 1e-5,
                       ascent: bool = False, name: str = "conjugate_gradient") -> Updates:  # fmt: skip
    r"""Nonlinear conjugate gradients: the negative gradient plus :math:`\beta` times the previous direction.

    .. math:: d \leftarrow -g + \beta d, \qquad x \leftarrow x + a d

    with :math:`a` from a line search. The rule restarts, with :math:`-g` as the direction, where :math:`-g + \beta d`
    does not descend by at least a hundredth of :math:`\|g\|^2`, at a point that is not that of the last call, where
    consecutive gradients are far from orthogonal, :math:`|g_{new}^T g| \ge \nu \|g_{new}\|^2`, and every
    `restart_every` steps.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    beta : callable
        The formula of :math:`\beta`: `beta_fletcher_reeves`, `beta_polak_ribiere`, `beta_hestenes_stiefel`,
        `beta_dai_yuan`, `beta_hager_zhang`, or any function from the direction :math:`d`, the gradient :math:`g` at its
        start and the gradient :math:`g_{new}` at the end of the line search, all vectors, to a scalar. A value that is
        not finite means a restart.
    memory : int
        How many pairs of a step and a change of the gradient are kept. With pairs the direction is
        :math:`-P g + \beta d`, where the preconditioner :math:`P` is the inverse Hessian of L-BFGS from all of them but
        the newest, which is that of :math:`d`. The formula gets :math:`P (g_{new} - g)` as the keyword
        `preconditioned`; of those above `beta_hager_zhang` takes it. By the last two tests for a restart the next
        direction is then :math:`-P g` with all pairs; a step along the steepest descent removes them.
    step_size : scalar or schedule, optional
        The first step size that a search tries. By default the one with the same decrease to first order as the
        previous step, :math:`a_{prev} g_{prev}^T d_{prev} / g^T d`, or with a `memory` 1; and without a previous step
        :math:`1 / \max(1, \|g\|)`.
    restart_overlap : scalar or None
        :math:`\nu`; None for no such restarts. Powell's is 0.2; with 0.5 the rules of this module took the fewest
        evaluations, over the problems of Moré, Garbow and Hillstrom.
    restart_every : int, optional
        The number of steps between restarts; in theory the number of components.
    line_search : callable
        As in every rule that searches. By default `strong_wolfe` with a curvature of 0.1.
    preconditioner : list of variables or arrays, or "curvature", optional
        For each parameter a diagonal :math:`D` of its shape that approximates that of the Hessian, not negative. The
        rule then works in the variables :math:`D^{1/2} x`, so that gradients become :math:`D^{-1} g` in its directions:
        the same as an `x_scale` of :math:`D^{-1/2}`. Zeros count as 1. It is read in the first call and kept.
    manifold : manifold, dict or list, optional
        As in `lbfgs`. :math:`\beta` is then worked out from the direction and the gradients projected on the tangent
        space at the new point, and so is the next direction.

    Notes
    -----
    Cost per call: two or three evaluations of the cost and its gradients, mostly one with a `memory` of :math:`m`, and
    then :math:`12mn` multiplications. State: one number per parameter component, :math:`2m` more with a `memory`, and
    two more if `exact` is True.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithm 5.4, with the first trial of equation 3.59; Powell
    (1977), Restart procedures for the conjugate gradient method; Buckley and LeNir (1983), QN-like variable storage
    conjugate gradients, for the preconditioner.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> def liu_storey(d, g, g_new):
    ...     return pt.maximum(pt.sum(g_new * (g_new - g)) / -pt.sum(d * g), 0)
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.conjugate_gradient, beta=liu_storey).round(4)
    array([1., 1.])
    """
    if preconditioner is not None:
        if x_scale is not None:
            raise ValueError("x_scale and preconditioner are two ways to say the same here; pass one of them")
        x_scale = preconditioner_scale(parameters, preconditioner)
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale, manifold=manifold,
    )  # fmt: skip
    if not callable(beta):
        raise TypeError(f"beta is {beta!r}; pass a function of a direction and two gradients, as beta_polak_ribiere")
    start = Descent.start(f, line_search, exact)
    g = start.gradient
    steps = f.state("steps", dtype="int64")
    # The state is beta d, not the next direction: it is added to the gradient of the next call, so that with
    # exact=False a call uses the gradient of its own data.
    beta_d = f.state("beta_d", (f.size,))
    pairs = CompactInverseHessian.begin(f, memory) if check_count("memory", memory, low=0) else None
    # The newest pair is left to beta: with it P y would be the last step, and beta next to 0.
    if pairs is None:
        Pg, fresh = g, pt.eq(steps, 0)
    else:
        Pg, fresh = pairs.older(steps > 0).times(g), pairs.empty

    moved = start.evaluations > 0 if start.point_state else FALSE
    # In units of the vectors, so that no product overflows; beta does not depend on them.
    u, v = unit(g), unit(Pg)
    g_u = in_units(g, u)
    slope, gPg = dot(g_u, in_units(beta_d - Pg, v)), dot(g_u, in_units(Pg, v))
    restart = moved | fresh | ~(slope <= -0.01 * gPg)
    d = pt.switch(restart, -g, beta_d - Pg)
    new: Updates = {}
    if pairs is None:
        decrease = f.state("decrease")
        if step_size is None:
            same_decrease = in_units(in_units(decrease, u) / pt.switch(restart, gPg, -slope), u)
            valid = ~moved & (same_decrease > 0) & pt.isfinite(same_decrease)
            step_size = pt.switch(valid, same_decrease, start.first_step)
        end = start.line_search(d, step_size, restart)
        new[decrease] = scaled(scaled(-end.result.size * dot(g_u, in_units(end.direction, u)), u), u)
        d, g = start.transported(end, end.direction), start.transported(end, g)
        b, unheld = beta(*(in_units(a, u) for a in (d, g, end.gradient))), None
    else:
        end = start.line_search(d, step_size, restart)
        d, g = start.transported(end, end.direction), start.transported(end, g)
        pushed = start.pushed(pairs, end)
        v = unit(end.direction)
        Py = in_units(pushed.older(~end.failed).times(end.change), v)
        b = beta(in_units(d, v), in_units(g, u), in_units(end.gradient, u), preconditioned=Py)
        unheld = dict(zip(pairs, pushed, strict=True))
    b = as_tensor("what beta returned", b)
    restart = end.failed | ~pt.isfinite(b)
    if restart_overlap is not None:
        # Without Powell's restarts fletcher_reeves and dai_yuan take 2.7 and 2.9 times the evaluations of SciPy's CG on
        # the 35 problems of Moré, Garbow and Hillstrom.
        overlap = f.scalar("restart_overlap", restart_overlap, low=0).astype(f.dtype)
        v = unit(end.gradient)
        last = in_units(end.gradient, v)
        restart = restart | (abs(dot(last, in_units(g, v))) >= overlap * dot(last, last))
    next_steps = pt.switch(end.steepest, 0, steps) + 1
    if restart_every is not None:
        restart = restart | (next_steps >= check_count("restart_every", restart_every))
    new[steps] = pt.switch(restart, 0, next_steps)
    new[beta_d] = pt.switch(restart, pt.zeros_like(beta_d), b.astype(f.dtype) * d)
    return start.finish(end, new, unheld=unheld)


@hinted
def fletcher_reeves(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                    stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                    restart_overlap: Scalar | None = 0.5, restart_every: int | None = None,
                    line_search: LineSearch = precise, exact: bool | None = None, x_scale: XScale | None = None,
                    preconditioner: Sequence[Any] | str | None = None, manifold: Manifolds | None = None,
                    tolerance: Scalar | None = 1e-5,
                    ascent: bool = False, name: str = "fletcher_reeves") -> Updates:  # fmt: skip
    r"""Nonlinear conjugate gradients by the formula of Fletcher and Reeves.

    .. math:: \beta = \frac{\|g_{new}\|^2}{\|g\|^2}

    With a search by the strong Wolfe conditions and a curvature below 1/2 all directions descend. Without restarts the
    rule may take many short steps after a bad one, so keep `restart_overlap`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches.
    step_size, restart_overlap, restart_every, line_search, preconditioner, manifold
        As in `conjugate_gradient`, and so are the cost per call and the memory.

    References
    ----------
    Fletcher and Reeves (1964), Function minimization by conjugate gradients.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.fletcher_reeves, tolerance=1e-6).round(4)
    array([1., 1.])
    """
    return conjugate_gradient(beta=beta_fletcher_reeves, **locals())


@hinted
def polak_ribiere(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                  stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                  restart_overlap: Scalar | None = 0.5, restart_every: int | None = None,
                  line_search: LineSearch = precise, exact: bool | None = None, x_scale: XScale | None = None,
                  preconditioner: Sequence[Any] | str | None = None, manifold: Manifolds | None = None,
                  tolerance: Scalar | None = 1e-5,
                  ascent: bool = False, name: str = "polak_ribiere") -> Updates:  # fmt: skip
    r"""Nonlinear conjugate gradients by the formula of Polak and Ribière, with a lower bound of 0 (PR+).

    .. math:: \beta = \max\left(0, \frac{g_{new}^T (g_{new} - g)}{\|g\|^2}\right)

    After a short step :math:`\beta` is about 0, so that the rule restarts by itself. Without the bound it may cycle.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches.
    step_size, restart_overlap, restart_every, line_search, preconditioner, manifold
        As in `conjugate_gradient`, and so are the cost per call and the memory.

    References
    ----------
    Polak and Ribière (1969), Note sur la convergence de méthodes de directions conjuguées; Gilbert and Nocedal (1992),
    Global convergence properties of conjugate gradient methods for optimization.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.polak_ribiere).round(4)
    array([1., 1.])
    """
    return conjugate_gradient(beta=beta_polak_ribiere, **locals())


@hinted
def hestenes_stiefel(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                     stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                     restart_overlap: Scalar | None = 0.5, restart_every: int | None = None,
                     line_search: LineSearch = precise, exact: bool | None = None, x_scale: XScale | None = None,
                     preconditioner: Sequence[Any] | str | None = None, manifold: Manifolds | None = None,
                     tolerance: Scalar | None = 1e-5,
                     ascent: bool = False, name: str = "hestenes_stiefel") -> Updates:  # fmt: skip
    r"""Nonlinear conjugate gradients by the formula of Hestenes and Stiefel.

    .. math:: \beta = \frac{g_{new}^T y}{d^T y}, \qquad y = g_{new} - g

    Consecutive directions are conjugate, :math:`d_{new}^T y = 0`, with any search. Where :math:`d^T y` is not
    positive, which the Wolfe conditions exclude, :math:`\beta` is 0.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches.
    step_size, restart_overlap, restart_every, line_search, preconditioner, manifold
        As in `conjugate_gradient`, and so are the cost per call and the memory.

    References
    ----------
    Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear systems.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.hestenes_stiefel).round(4)
    array([1., 1.])
    """
    return conjugate_gradient(beta=beta_hestenes_stiefel, **locals())


@hinted
def dai_yuan(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
             stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
             restart_overlap: Scalar | None = 0.5, restart_every: int | None = None, line_search: LineSearch = precise,
             exact: bool | None = None, x_scale: XScale | None = None,
             preconditioner: Sequence[Any] | str | None = None, manifold: Manifolds | None = None,
             tolerance: Scalar | None = 1e-5, ascent: bool = False,
             name: str = "dai_yuan") -> Updates:  # fmt: skip
    r"""Nonlinear conjugate gradients by the formula of Dai and Yuan.

    .. math:: \beta = \frac{\|g_{new}\|^2}{d^T y}, \qquad y = g_{new} - g

    With any search by the Wolfe conditions all directions descend. Without restarts the rule may take many short steps
    after a bad one, so keep `restart_overlap`. Where :math:`d^T y` is not positive :math:`\beta` is 0.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches.
    step_size, restart_overlap, restart_every, line_search, preconditioner, manifold
        As in `conjugate_gradient`, and so are the cost per call and the memory.

    References
    ----------
    Dai and Yuan (1999), A nonlinear conjugate gradient method with a strong global convergence property.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.dai_yuan, tolerance=1e-6).round(4)
    array([1., 1.])
    """
    return conjugate_gradient(beta=beta_dai_yuan, **locals())


@hinted
def hager_zhang_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                   stop: Variable | None = None, updates: Updates | None = None, *, theta: Scalar = 1.0,
                   truncation: Scalar = 0.4, memory: int = 4, step_size: StepSize | None = None,
                   restart_overlap: Scalar | None = 0.5, restart_every: int | None = None,
                   line_search: LineSearch = strong_wolfe, exact: bool | None = None, x_scale: XScale | None = None,
                   preconditioner: Sequence[Any] | str | None = None, manifold: Manifolds | None = None,
                   tolerance: Scalar | None = 1e-5,
                   ascent: bool = False, name: str = "hager_zhang_cg") -> Updates:  # fmt: skip
    r"""Limited-memory conjugate gradients by the formula of Hager and Zhang (CG_DESCENT).

    .. math::
        d \leftarrow -P g_{new} + \beta d, \qquad
        \beta = \max\left(\frac{1}{d^T y} \left(P y - \theta \frac{y^T P y}{d^T y} d\right)^T g_{new},
        -\eta\right), \qquad y = g_{new} - g

    with :math:`P` the inverse Hessian of L-BFGS from the pairs of steps and changes of the gradient before the last
    step. With no memory :math:`P = I`, and the bound is :math:`\eta d^T g / \|d\|^2`. All directions descend,
    :math:`g^T d \le -(1 - 1/(4 \theta)) g^T P g`, with any search.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches.
    theta : scalar
        :math:`\theta`, at least 1/4: 2 in the papers, 1 in version 6 of the authors' program.
    truncation : scalar
        :math:`\eta`, how negative :math:`\beta` may become.
    memory : int
        How many pairs are kept, that of the last step included; 0 for the rule of 2005, which takes about twice the
        evaluations.
    step_size, restart_overlap, restart_every, preconditioner, manifold
        As in `conjugate_gradient`, and so are the cost per call and the memory.
    line_search : callable
        As in every rule that searches. By default `strong_wolfe`; with no memory give it a curvature of 0.1.

    References
    ----------
    Hager and Zhang (2005), A new conjugate gradient method with guaranteed descent and an efficient line search,
    equation 1.6; Hager and Zhang (2013), The limited memory conjugate gradient method, for the lower bound of
    :math:`\beta`, which does not depend on the units of the cost, and for the formula with a preconditioner. Theirs
    works in the space of the last 11 steps, and is L-BFGS where there are no more components.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.hager_zhang_cg).round(4)
    array([1., 1.])
    """
    options = locals()
    beta = partial(beta_hager_zhang, theta=options.pop("theta"), truncation=options.pop("truncation"))
    return conjugate_gradient(beta=beta, **options)


@hinted
def scaled_conjugate_gradient(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                              stop: Variable | None = None, updates: Updates | None = None, *,
                              step_size: StepSize | None = None, scale: Scalar | None = None, exact: bool | None = None,
                              x_scale: XScale | None = None, tolerance: Scalar | None = 1e-5, ascent: bool = False,
                              name: str = "scaled_conjugate_gradient") -> Updates:  # fmt: skip
    r"""Møller's scaled conjugate gradients: the step size from the curvature along the direction, without a search.

    .. math:: x \leftarrow x + a d, \qquad a = \frac{-g^T d}{d^T H d + \lambda \|d\|^2}

    with :math:`H` the Hessian. A call tries one step. The step is taken if the cost does not increase, and the next
    direction is :math:`d \leftarrow -g_{new} + \beta d` with
    :math:`\beta = (\|g_{new}\|^2 - g_{new}^T g) / (-g^T d)`, or :math:`-g_{new}` at each :math:`n`-th call, with
    :math:`n` components. Let :math:`\Delta` be the ratio of the decrease to the one that the quadratic model predicts.
    Where :math:`\Delta \ge 3/4`, :math:`\lambda` is divided by 4; where :math:`\Delta < 1/4`, it is increased by
    :math:`(1 - \Delta)(d^T H d + \lambda \|d\|^2) / \|d\|^2`. If :math:`d^T H d + \lambda \|d\|^2` is not positive,
    :math:`\lambda` is increased before the step until it is.

    The rule restarts, with :math:`-g` as the direction, where the direction does not descend, and at a point that is
    not that of the last call.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        An upper bound of :math:`a`; :math:`\lambda` is increased to meet it. By default there is none.
    scale : scalar, optional
        :math:`\lambda` at first, in units of the cost over those of the parameters, or of `x_scale`, squared. By
        default 1e-6, but no more than the curvature along the first direction.

    Notes
    -----
    Cost per call: one evaluation of the cost and its gradients, and after each step that was taken one product with the
    Hessian, which costs about two evaluations; one more of each if `exact` is False. State: one number per parameter
    component, and two more if `exact` is True.

    References
    ----------
    Møller (1993), A scaled conjugate gradient algorithm for fast supervised learning, section 4, with the exact
    product in the place of a difference quotient. After a trial that is not finite :math:`\Delta` is taken as -8,
    which makes the step ten times shorter.

    Examples
    --------
    >>> def rosenbrock(x):
    ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> optapi.minimize([-1.2, 1.0], rosenbrock, None, optapi.scaled_conjugate_gradient).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    start = Descent.start(f, partial(fixed, max_trials=1), exact)
    x, g = start.point, start.gradient
    beta_d = f.state("beta_d", (f.size,))
    damping = f.state("scale", fill=np.nan)
    curvature = f.state("curvature")
    curvature_valid = f.state("curvature_valid", dtype="int64")

    moved = start.evaluations > 0
    restart = pt.all(pt.eq(beta_d, 0)) | ~(dot(g, beta_d - g) < 0)
    if start.point_state:
        restart = restart | moved
    d = pt.switch(restart, -g, beta_d - g)
    # In units of d, so that no product overflows.
    u = unit(d)
    e = in_units(d, u)
    ee, descent = dot(e, e), -dot(g, e)
    # A step that was refused leaves the point and the direction, and so the curvature.
    needed = ~start.finished & (moved | pt.eq(curvature_valid, 0))
    [c] = cond(needed, lambda point, v: [dot(v, f.product(point, v))], [x, e], [curvature])
    c = pt.switch(pt.isfinite(c), c, pt.zeros_like(c))

    initial = f.scalar("scale", 1e-6 if scale is None else scale, low=0).astype(f.dtype)
    if scale is None:
        initial = pt.switch(pt.eq(c, 0), initial, pt.minimum(initial, abs(c) / ee))
    lam = pt.switch(pt.isnan(damping), initial, damping)
    lam = pt.switch(c + lam * ee > 0, lam, -2 * c / ee)
    if step_size is not None:
        lam = pt.maximum(lam, (descent / u / f.step_size(step_size).astype(f.dtype) - c) / ee)
    total = c + lam * ee
    end = start.line_search(d, descent / total / u, restart)

    # The decrease that the model predicts is half of that to first order.
    quality = (start.cost - end.cost) / (end.result.size * u * descent / 2)
    quality = pt.switch(end.result.failed | ~(quality > -8), pt.full_like(quality, -8), quality).astype(f.dtype)
    accepted = ~end.result.failed & (quality >= 0)
    untried = pt.eq(end.result.evaluations, 0)
    failed = untried | (accepted & end.failed)
    raised = lam + pt.switch(quality < 0.25, total * (1 - quality) / ee, pt.zeros_like(ee))
    lam = pt.switch(quality >= 0.75, lam / 4, raised)

    current = (x, start.cost, g)
    point, cost, gradient = (pt.switch(accepted, new, old) for new, old in zip(end[:3], current, strict=True))
    last = in_units(gradient, u)
    b = (dot(last, last) - dot(last, in_units(g, u))) / (descent / u)
    reset = failed | ~pt.isfinite(b) | pt.eq((f.count + 1) % f.size, 0)
    next_beta_d = pt.switch(reset, pt.zeros_like(d), b * d)
    new = {
        beta_d: pt.switch(accepted | failed, next_beta_d, pt.switch(restart, pt.zeros_like(d), beta_d)),
        damping: pt.switch(untried, damping, lam),
        curvature: c,
        curvature_valid: pt.switch(accepted | failed, 0, 1),
    }
    end = end._replace(point=point, cost=cost, gradient=gradient, failed=failed, steepest=end.steepest | untried)
    return start.finish(end, new, patience=30, reports={"products": pt.switch(needed, 1, 0).astype("int64")})
