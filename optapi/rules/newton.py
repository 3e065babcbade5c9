"""Newton's methods: steps from second derivatives."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..line_search import LineSearch, fixed, strong_wolfe
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables
from ._descent import Descent, Proposal
from ._linear_algebra import BOUNDARY, conjugate_gradients, forcing, guarded, limit, norm, rows, times


def newton(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
           line_search: LineSearch = strong_wolfe, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
           ascent: bool = False, name: str = "newton") -> Updates:  # fmt: skip
    r"""Newton's method, with the Hessian as a matrix.

    .. math:: x \leftarrow x - a Q |\Lambda|^{-1} Q^T g, \qquad H = Q \Lambda Q^T

    with :math:`Q` the eigenvectors of the Hessian :math:`H`, :math:`\Lambda` its eigenvalues, and :math:`a` from a line
    search. So the step is Newton's where the Hessian is positive definite; elsewhere, along a direction of negative
    curvature it is as long and leads downhill, away from a saddle. An eigenvalue counts for no less than
    :math:`n \epsilon` times the largest in absolute value, with :math:`\epsilon` the machine precision: what is below
    is round-off.

    Where a search fails, the next call searches along the steepest descent. If that fails too, or more than 10 calls on
    end have found no cost below the lowest, no further decrease is possible at the precision of the cost, and the
    algorithm has finished with reason 2; with 3 if the cost or a gradient was not finite at the start.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        The first step size that a search tries, by default 1.
    line_search : callable
        The line search, see `optapi.line_search`.
    exact : bool, optional
        Whether a cost and gradient found at a point are still true at the next call, see `lbfgs`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports ``reason``,
        ``evaluations``, ``products``, ``cost`` and ``gradient_size``, see `optapi.reports`.

    Raises
    ------
    ValueError, TypeError, KeyError
        As every rule; ValueError also if `gradients` cannot be those of `cost` at other points, or if the cost has no
        second derivatives.

    Notes
    -----
    Cost per call: the Hessian by :math:`n` products, each about two evaluations of the gradient; mostly one evaluation
    of the cost and its gradients, more while the search looks for a step, and one at the start if `exact` is False; an
    eigendecomposition, about :math:`9n^3` multiplications. Memory: some matrices of :math:`n^2` numbers while a call
    runs; the state is the point with its gradient. It is for problems of up to a few hundred components.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, section 3.4, eigenvalue modification; with absolute values as in
    Dauphin et al. (2014), Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization, section 6.

    Examples
    --------
    >>> def rosenbrock(x):
    ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> optapi.minimize([-1.2, 1.0], rosenbrock, None, optapi.newton).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, line_search, exact)
    x, g = start.point, start.gradient
    wanted = ~start.still
    hessian = rows(lambda v: f.product(x, v), f.size, f.size, f.dtype, wanted)
    end = start.line_search(-_solved(hessian, g), step_size)
    return start.finish(end, {}, reports={"products": pt.switch(wanted, f.size, 0).astype("int64")})


def newton_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
              cg_steps: int | None = None, line_search: LineSearch = strong_wolfe, exact: bool | None = None,
              tolerance: Scalar | None = 1e-5, ascent: bool = False, name: str = "newton_cg") -> Updates:  # fmt: skip
    r"""Newton's method with conjugate gradients and a line search, also called truncated Newton.

    .. math:: x \leftarrow x + a d, \qquad \|H d + g\| \le \min(1/2, \sqrt{\|g\|}) \, \|g\|

    with :math:`H` the Hessian, of which only products with vectors are formed, and :math:`a` from a line search. The
    conjugate gradients begin at zero. Where they meet a direction without positive curvature, :math:`d` is what they
    have found before; if that is the first direction, :math:`d = -(\|g\| / \|H g\|) \, g`.

    Far from a minimizer few steps are enough; close to it the tolerance falls with the gradient, and the convergence is
    superlinear. What happens where a search fails, and when it ends, is as in `newton`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        The first step size that a search tries, by default 1.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients in a call; by default 20 for each component.
    search, exact, tolerance
        As in `newton`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports ``reason``,
        ``evaluations``, ``products``, ``cost`` and ``gradient_size``, see `optapi.reports`.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `newton`.

    Notes
    -----
    Cost per call: a product for each step of the conjugate gradients, each about two evaluations of the gradient;
    mostly one evaluation of the cost and its gradients, more while the search looks for a step, and one at the start if
    `exact` is False. Memory: a few vectors of the size of the parameters. `trust_region_cg` makes better use of
    negative curvature.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithm 7.1. There the first direction, if it has no positive
    curvature, is :math:`-g`, whose length says nothing of that of a step.

    Examples
    --------
    >>> def rosenbrock(x):
    ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> optapi.minimize([-1.2, 1.0], rosenbrock, None, optapi.newton_cg).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, line_search, exact)
    product, g, x = f.curvature(), start.gradient, start.point
    steps = pt.switch(start.still, 0, limit(cg_steps, f.size))
    found = conjugate_gradients(lambda v: product(x, v), g, steps, tolerance=forcing(g))
    return start.finish(start.line_search(found.vector, step_size), {}, reports={"products": found.products})


def trust_region_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                    stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                    max_radius: Scalar | None = None, accept: Scalar = 0.15, cg_steps: int | None = None,
                    exact: bool | None = None, tolerance: Scalar | None = 1e-5, ascent: bool = False,
                    name: str = "trust_region_cg") -> Updates:  # fmt: skip
    r"""Newton's method with conjugate gradients in a trust region, by Steihaug and Toint.

    .. math:: x \leftarrow x + p, \qquad p \approx \arg\min_{\|p\| \le \Delta} m(p), \qquad
        m(p) = g^T p + \tfrac12 p^T H p

    with :math:`H` the Hessian, of which only products with vectors are formed. The conjugate gradients begin at zero
    and end where :math:`\|H p + g\| \le \min(1/2, \sqrt{\|g\|}) \, \|g\|`, at the boundary where they leave the
    region, and there along a direction without positive curvature, too.

    The step is taken if the ratio :math:`\rho = (f(x) - f(x + p)) / (-m(p))` of the decrease to the promised one is
    above `accept`; else the same call tries a shorter one. Where :math:`\rho < 1/4` the radius :math:`\Delta` becomes
    :math:`\|p\| / 4`; where :math:`\rho > 3/4` and :math:`p` is at the boundary it is doubled. Where the decreases are
    lost in the rounding errors of the cost, the model is trusted. So each call moves the point; if no step does, or
    more than 30 calls on end have found no cost below the lowest, no further decrease is possible at the precision of
    the cost, and the algorithm has finished with reason 2; with 3 if the cost or a gradient was not finite at the
    start.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule, optional
        The radius at first, in units of the parameters; by default 1.
    max_radius : scalar, optional
        The largest radius; by default there is none.
    accept : scalar
        The smallest ratio with which a step is taken, from 0 to 1/4.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients for one step; by default 20 for each component.
    exact, tolerance
        As in `newton`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state, the radius among it. If `stop` is given, it reports
        ``reason``, ``evaluations``, ``products``, ``cost`` and ``gradient_size``, see `optapi.reports`.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `newton`.

    Notes
    -----
    Cost per call: a product for each step of the conjugate gradients, each about two evaluations of the gradient; one
    evaluation of the cost and its gradients, and both again for each step that is not taken; one evaluation at the
    start if `exact` is False. Memory: a few vectors of the size of the parameters.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 7.2 and 4.1. There a step that is not taken leaves a
    quarter of the radius, with which one from the inside of the region may be tried again. Conn, Gould and Toint
    (2000), Trust-region methods, section 17.4.2, for the rounding errors.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der, rosen_hess_prod
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.trust_region_cg, hessp=rosen_hess_prod).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    start = Descent.start(f, partial(fixed, max_trials=1), exact)
    product, g, x = f.curvature(), start.gradient, start.point
    least, most = forcing(g), None if max_radius is None else f.scalar("max_radius", max_radius, low=0).astype(f.dtype)
    steps = limit(cg_steps, f.size)

    def propose(radius: Any) -> Proposal:
        found = conjugate_gradients(lambda v: product(x, v), g, steps, tolerance=least, radius=radius)
        return Proposal(found.vector, -found.model, found.products, pt.eq(found.reason, BOUNDARY))

    def adjust(quality: Any, proposed: Proposal, radius: Any) -> list[Any]:
        grown = pt.switch((quality > 0.75) & proposed.full, 2 * radius, radius)
        return [pt.switch(quality < 0.25, norm(proposed.step) / 4, grown if most is None else pt.minimum(grown, most))]

    least_quality = f.scalar("accept", accept, 0, 0.25).astype(f.dtype)
    radius = f.state("radius", fill=np.nan)
    begin = f.step_size(1.0 if step_size is None else step_size).astype(f.dtype)
    begin = pt.switch(pt.isnan(radius), begin if most is None else pt.minimum(begin, most), radius)
    end, (following, products) = start.trust_region(propose, [begin], adjust, least_quality)
    return start.finish(end, {radius: following}, patience=30, reports={"products": products})


def _solved(hessian: Any, g: Any) -> Any:
    """The product of the inverse of the matrix with `g`, the eigenvalues taken as positive."""
    matrix, spoilt = guarded((hessian + hessian.T) / 2)
    decomposed: Any = pt.linalg.eigh(matrix)
    values, vectors = decomposed
    sizes = abs(values)
    least = np.asarray(hessian.type.shape[0] * np.finfo(hessian.type.dtype).eps, hessian.type.dtype) * pt.max(sizes)
    sizes = pt.maximum(sizes, least)
    # A matrix of zeros leaves no direction: the search is then along the steepest descent.
    return times(vectors, times(vectors.T, g) / sizes) + spoilt
