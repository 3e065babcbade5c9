"""Newton's methods: steps from the matrix of second derivatives, the Hessian."""

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
from ._linear_algebra import BOUNDARY, check_square, conjugate_gradients, forcing, guarded, limit, norm, rows, times


def newton(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
           line_search: LineSearch = strong_wolfe, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
           ascent: bool = False, name: str = "newton") -> Updates:  # fmt: skip
    r"""Newton's method, with the Hessian as a matrix.

    .. math:: x \leftarrow x - a Q |\Lambda|^{-1} Q^T g, \qquad H = Q \Lambda Q^T

    with :math:`Q` the eigenvectors of the Hessian :math:`H`, :math:`\Lambda` its eigenvalues, and :math:`a` from a line
    search. So the step is Newton's where the Hessian is positive definite. Along a direction of negative curvature the
    step has the same length and leads downhill, away from a saddle. Absolute values of eigenvalues below
    :math:`n \epsilon` times the largest are raised to this, with :math:`\epsilon` the machine precision: smaller ones
    are rounding errors.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The first step size that a search tries, by default 1, and :math:`1 / \max(1, \|g\|)` along a steepest descent.

    Raises
    ------
    ValueError
        Also if the cost has no second derivatives.

    Notes
    -----
    Cost per call: the Hessian by :math:`n` products, each about two evaluations of the gradient; mostly one evaluation
    of the cost and its gradients, more while the search brackets a step; an eigendecomposition, about :math:`9n^3`
    multiplications. Memory: some matrices of :math:`n^2` numbers while a call runs; the state is the point with its
    gradient. It is for problems of up to a few hundred components.

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
    check_square(f, "newton_cg or trust_region_cg")
    start = Descent.start(f, line_search, exact)
    x, g = start.point, start.gradient
    needed = ~start.finished
    hessian = rows(lambda v: f.product(x, v), f.size, f.size, f.dtype, needed)
    end = start.line_search(-_solved(hessian, g), step_size)
    return start.finish(end, {}, reports={"products": pt.switch(needed, f.size, 0).astype("int64")})


def newton_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
              cg_steps: int | None = None, line_search: LineSearch = strong_wolfe, exact: bool | None = None,
              tolerance: Scalar | None = 1e-5, ascent: bool = False, name: str = "newton_cg") -> Updates:  # fmt: skip
    r"""Newton's method with conjugate gradients and a line search, also called truncated Newton.

    .. math:: x \leftarrow x + a d, \qquad \|H d + g\| \le \min(1/2, \sqrt{\|g\|}) \, \|g\|

    with :math:`H` the Hessian, of which only products with vectors are formed, and :math:`a` from a line search. The
    conjugate gradients begin at zero and end at a direction without positive curvature: :math:`d` is then the iterate
    before it, or, at the first direction, :math:`-(\|g\| / \|H g\|) \, g`.

    Far from a minimizer few steps are enough; close to it the tolerance decreases with the gradient, and the
    convergence is superlinear.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        As in `newton`.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients in a call; by default 20 for each component.

    Raises
    ------
    ValueError
        As in `newton`.

    Notes
    -----
    Cost per call: a product for each step of the conjugate gradients, each about two evaluations of the gradient;
    mostly one evaluation of the cost and its gradients, more while the search brackets a step. Memory: a few vectors of
    the size of the parameters. `trust_region_cg` makes better use of negative curvature.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithm 7.1. There the step along a first direction without
    positive curvature is :math:`-g`, whose length is not related to that of a step.

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
    steps = pt.switch(start.finished, 0, limit(cg_steps, f.size))
    # They end at negative curvature, as in the book, although a trust region makes more of it: on two of the 35
    # problems of Moré, Garbow and Hillstrom the rule crawls, as SciPy's Newton-CG does.
    solution = conjugate_gradients(lambda v: product(x, v), g, steps, tolerance=forcing(g))
    return start.finish(start.line_search(solution.vector, step_size), {}, reports={"products": solution.products})


def trust_region_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                    stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                    max_radius: Scalar | None = None, accept: Scalar = 0.15, cg_steps: int | None = None,
                    exact: bool | None = None, tolerance: Scalar | None = 1e-5, ascent: bool = False,
                    name: str = "trust_region_cg") -> Updates:  # fmt: skip
    r"""Newton's method with conjugate gradients in a trust region, by Steihaug and Toint.

    .. math:: x \leftarrow x + p, \qquad p \approx \arg\min_{\|p\| \le \Delta} m(p), \qquad
        m(p) = g^T p + \tfrac12 p^T H p

    with :math:`H` the Hessian, of which only products with vectors are formed. The conjugate gradients begin at zero
    and end where :math:`\|H p + g\| \le \min(1/2, \sqrt{\|g\|}) \, \|g\|`, or at the boundary of the region: where an
    iterate leaves it, or along a direction without positive curvature.

    The step is taken if the ratio :math:`\rho = (f(x) - f(x + p)) / (-m(p))` of the decrease to the predicted one is
    above `accept`; else the same call tries a shorter one. Where :math:`\rho < 1/4` the radius :math:`\Delta` becomes
    :math:`\|p\| / 4`; where :math:`\rho > 3/4` and :math:`p` is at the boundary, it is doubled. Where the decreases are
    lost in the rounding errors of the cost, :math:`\rho` counts as 1.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The radius at first, in units of the parameters; by default 1.
    max_radius : scalar, optional
        The largest radius; by default there is none.
    accept : scalar
        The ratio above which a step is taken, from 0 to 1/4.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients for one step; by default 20 for each component.

    Raises
    ------
    ValueError
        As in `newton`.

    Notes
    -----
    Cost per call: a product for each step of the conjugate gradients, each about two evaluations of the gradient; one
    evaluation of the cost and its gradients, and both again for each step that is not taken. Memory: a few vectors of
    the size of the parameters.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 7.2 and 4.1. There the radius after a step that is not
    taken is a quarter of the last, so that a step from the inside of the region may be repeated. Conn, Gould and Toint
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
    residual, steps = forcing(g), limit(cg_steps, f.size)
    if max_radius is not None:
        max_radius = f.scalar("max_radius", max_radius, low=0).astype(f.dtype)

    def bounded(radius: Any) -> Any:
        return radius if max_radius is None else pt.minimum(radius, max_radius)

    def propose(radius: Any) -> Proposal:
        solution = conjugate_gradients(lambda v: product(x, v), g, steps, tolerance=residual, radius=radius)
        return Proposal(solution.vector, -solution.model, solution.products, pt.eq(solution.reason, BOUNDARY))

    def adjust(quality: Any, proposal: Proposal, radius: Any) -> list[Any]:
        grown = pt.switch((quality > 0.75) & proposal.at_boundary, 2 * radius, radius)
        return [pt.switch(quality < 0.25, norm(proposal.step) / 4, bounded(grown))]

    min_quality = f.scalar("accept", accept, 0, 0.25).astype(f.dtype)
    radius = f.state("radius", fill=np.nan)
    initial = f.step_size(1.0 if step_size is None else step_size).astype(f.dtype)
    current = pt.switch(pt.isnan(radius), bounded(initial), radius)
    end, (next_radius, products) = start.trust_region(propose, [current], adjust, min_quality)
    return start.finish(end, {radius: next_radius}, patience=30, reports={"products": products})


def _solved(hessian: Any, g: Any) -> Any:
    """The product of the inverse of the Hessian with `g`, with the absolute values of the eigenvalues."""
    # Absolute values need no shift to be chosen, and the steps leave saddles.
    matrix, nonfinite = guarded((hessian + hessian.T) / 2)
    decomposition: Any = pt.linalg.eigh(matrix)
    values, vectors = decomposition
    sizes = abs(values)
    resolution = np.asarray(hessian.type.shape[0] * np.finfo(hessian.type.dtype).eps, hessian.type.dtype)
    sizes = pt.maximum(sizes, resolution * pt.max(sizes))
    # A matrix of zeros gives a direction that is not finite: the search is then along the steepest descent.
    return times(vectors, times(vectors.T, g) / sizes) + nonfinite
