"""Newton's methods: steps from the matrix of second derivatives, the Hessian."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_choice, check_flag
from ..graph.derivatives import rows
from ..graph.loops import FALSE, repeat
from ..graph.oracle import product_error
from ..hints import hinted
from ..line_search import LineSearch, fixed, strong_wolfe
from ..objective import Kept, Objective
from ..typing import Bounds, Scalar, StepSize, Updates, Variables, XScale
from ..vectors import dot, guarded, largest, norm
from ._descent import ZERO, Descent, End, Proposal
from ._linear_algebra import (
    BOUNDARY,
    Solution,
    check_square,
    conjugate_gradients,
    forcing,
    limit,
    preconditioner_diagonal,
    times,
)
from ._projected import newton_step


@hinted
def newton(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
           escape: bool = True, line_search: LineSearch = strong_wolfe, exact: bool | None = None,
           x_scale: XScale | None = None, tolerance: Scalar | None = 1e-5, ascent: bool = False,
           name: str = "newton") -> Updates:  # fmt: skip
    r"""Newton's method, with the Hessian as a matrix.

    .. math:: x \leftarrow x - a Q |\Lambda|^{-1} Q^T g, \qquad H = Q \Lambda Q^T

    with :math:`Q` the eigenvectors of the Hessian :math:`H`, :math:`\Lambda` its eigenvalues, and :math:`a` from a line
    search. So the step is Newton's where the Hessian is positive definite. Along a direction of negative curvature the
    step has the same length and leads downhill, away from a saddle. Absolute values of eigenvalues below
    :math:`n \epsilon` times the largest are raised to this, with :math:`\epsilon` the machine precision: smaller ones
    are rounding errors. Where the products are differences of gradients, the bound is :math:`\epsilon^{2/3}` times the
    largest, or ten times what the Hessian lacks in symmetry, :math:`\|H - H^T\|`, if that is more.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The first step size that a search tries, by default 1, and about :math:`1 / \max(1, \|g\|)` along a steepest
        descent.
    escape : bool
        Whether to leave a start at which the gradient meets the tolerance, if the Hessian there has an eigenvalue below
        minus a hundred of these bounds: a saddle or a maximum. The search is then along its eigenvector. If that finds
        no lower cost, or the start is a minimum, the start stays bit for bit. It takes the Hessian of such a start.

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
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    check_square(f, "newton_cg or trust_region_cg")
    start = Descent.start(f, line_search, exact)
    # At a start that has converged the Hessian says whether it is a minimum.
    needed = ~f.stopped if check_flag("escape", escape) else ~start.finished
    product = f.curvature()
    hessian = rows(lambda v: product(start.point, v), f.size, f.size, f.dtype, needed)
    values, vectors, rounding = _eigen(f, hessian)
    d = -times(vectors, times(vectors.T, start.gradient) / pt.maximum(abs(values), rounding))
    least = Curved(vectors[:, 0], values[0], rounding) if escape and f.size else None
    start, end = _searched(start, d, step_size, least)
    return start.finish(end, {}, reports={"products": pt.switch(needed, f.size, 0).astype("int64")})


@hinted
def newton_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
              cg_steps: int | None = None, preconditioner: Sequence[Any] | str | None = None, escape: bool = False,
              line_search: LineSearch = strong_wolfe, exact: bool | None = None, x_scale: XScale | None = None,
              tolerance: Scalar | None = 1e-5, ascent: bool = False, name: str = "newton_cg") -> Updates:  # fmt: skip
    r"""Newton's method with conjugate gradients and a line search, also called truncated Newton.

    .. math:: x \leftarrow x + a d, \qquad \|H d + g\| \le \min(1/2, \sqrt{\|g\|}) \, \|g\|

    with :math:`H` the Hessian, of which only products with vectors are formed, and :math:`a` from a line search. The
    conjugate gradients begin at zero and end at a direction :math:`p` without positive curvature, which is downhill:
    :math:`d` is then the last iterate and a step along it, :math:`d + \frac{\|r\|^2}{\|p\| \|H p\|} \, p` with the
    residual :math:`r = H d + g`. This has the length of a step also where the curvature vanishes, and the search makes
    it longer where it pays.

    Far from a minimizer few steps are enough; close to it the tolerance decreases with the gradient, and the
    convergence is superlinear.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, line_search, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        As in `newton`.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients in a call; by default 20 for each component.
    preconditioner : list of variables or arrays, or "curvature", optional
        :math:`P`: for each parameter a diagonal of its shape that approximates that of :math:`H`, not negative, as in
        `hessian_free`. The conjugate gradients then work on :math:`P^{-1/2} H P^{-1/2}`, and their tolerance is that of
        :math:`P^{-1/2} g`. Elements below :math:`\epsilon` times the largest are raised to this. With
        ``"curvature"`` :math:`P` is found in the first call and kept: its inverse root makes the rows of :math:`H` at
        the start as long as each other, for up to 6 products. By default the identity. `x_scale` also scales the search
        along the steepest descent.
    escape : bool
        Whether to leave a start at which the gradient meets the tolerance, if conjugate gradients for a random vector
        meet negative curvature there, as `newton` does; they take up to `cg_steps` products.

    Raises
    ------
    ValueError
        As in `newton`.

    Notes
    -----
    Cost per call: a product for each step of the conjugate gradients, each about two evaluations of the gradient;
    mostly one evaluation of the cost and its gradients, more while the search brackets a step. Memory: a few vectors of
    the size of the parameters.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithm 7.1. There a direction without positive curvature is
    followed only if it is the first one; to follow each is from Royer, O'Neill and Wright (2020), A Newton-CG algorithm
    with complexity guarantees for smooth unconstrained optimization, where :math:`d` is along :math:`p` alone, with
    another length.

    Examples
    --------
    >>> def rosenbrock(x):
    ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> optapi.minimize([-1.2, 1.0], rosenbrock, None, optapi.newton_cg).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    start = Descent.start(f, line_search, exact)
    model = Model.at(start, preconditioner)
    steps = limit(cg_steps, f.size)
    least = model.least_curvature(steps) if check_flag("escape", escape) else None
    solution = model.solved(pt.switch(start.finished, 0, steps), follow=True)
    products = solution.products if least is None else solution.products + least.products
    start, end = _searched(start, solution.vector, step_size, least)
    new, reports = model.closing(products)
    return start.finish(end, new, reports=reports)


@hinted
def trust_region_cg(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                    stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize | None = None,
                    max_radius: Scalar | None = None, accept: Scalar = 0.15, cg_steps: int | None = None,
                    preconditioner: Sequence[Any] | str | None = None, escape: bool = False,
                    exact: bool | None = None, x_scale: XScale | None = None, bounds: Bounds | None = None,
                    tolerance: Scalar | None = 1e-5, ascent: bool = False,
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
    lost in the rounding errors of the cost, :math:`\rho` counts as 1, or is worked out from the gradients at both ends.
    Where a product is not finite the model is linear along its direction. If no step is taken, the next call begins
    anew with the first radius; if that fails too, the rule ends.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    step_size : scalar or schedule, optional
        The radius at first, in units of the parameters or of `x_scale`, or with a `preconditioner` of
        :math:`\|P^{1/2} p\|`; by default 1, or what changes the point by more than rounding.
    max_radius : scalar, optional
        The largest radius; by default there is none.
    accept : scalar
        The ratio above which a step is taken, from 0 to 1/4.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients for one step; by default 20 for each component.
    preconditioner : list of variables or arrays, or "curvature", optional
        As in `newton_cg`. The region is then :math:`\|P^{1/2} p\| \le \Delta`.
    escape : bool
        As in `newton_cg`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. The rule is then TRON: from the Cauchy point on the projected path the conjugate gradients
        minimize the model over the components that are inside, on one face of the box after the other.

    Raises
    ------
    ValueError
        As in `newton`; and if `bounds` are given together with `preconditioner` or `escape`.

    Notes
    -----
    Cost per call: a product for each step of the conjugate gradients, each about two evaluations of the gradient; one
    evaluation of the cost and its gradients, and both again for each step that is not taken. Memory: a few vectors of
    the size of the parameters.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 7.2 and 4.1. There the radius after a step that is not
    taken is a quarter of the last, so that a step from the inside of the region may be repeated. Conn, Gould and Toint
    (2000), Trust-region methods, section 17.4.2, for the rounding errors, and 7.5.1 for preconditioners. Lin and Moré
    (1999), Newton's method for large bound-constrained optimization problems, for bounds.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der, rosen_hess_prod
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.trust_region_cg, hessp=rosen_hess_prod).round(4)
    array([1., 1.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale, bounds=bounds,
    )  # fmt: skip
    if f.box is not None and (preconditioner is not None or check_flag("escape", escape)):
        raise ValueError("bounds do not go together with preconditioner= and escape=; leave these out")
    start = Descent.start(f, partial(fixed, max_trials=1), exact)
    model = Model.at(start, preconditioner)
    steps = limit(cg_steps, f.size)
    least = model.least_curvature(steps) if check_flag("escape", escape) else None
    away = FALSE if least is None else least.leaves(start)
    if max_radius is not None:
        max_radius = f.scalar("max_radius", max_radius, low=0).astype(f.dtype)

    def bounded(radius: Any) -> Any:
        return radius if max_radius is None else pt.minimum(radius, max_radius)

    def propose(radius: Any) -> Proposal:
        if start.room is not None:
            found = newton_step(start.room, start.gradient, model.product, radius, steps)
            return Proposal(found.step, -found.model, found.products, found.at_boundary)
        solution = model.solved(pt.switch(away, 0, steps), radius=radius)
        step, decrease = solution.vector, -solution.model
        if least is not None:
            step = pt.switch(away, radius * least.vector / model.norm(least.vector), step)
            decrease = pt.switch(away, -least.curvature * dot(step, step) / 2, decrease)
        return Proposal(step, decrease, solution.products, pt.eq(solution.reason, BOUNDARY))

    def adjust(quality: Any, proposal: Proposal, radius: Any) -> list[Any]:
        grown = pt.switch((quality > 0.75) & proposal.at_boundary, 2 * radius, radius)
        return [pt.switch(quality < 0.25, model.norm(proposal.step) / 4, bounded(grown))]

    min_quality = f.scalar("accept", accept, 0, 0.25).astype(f.dtype)
    radius = f.state("radius", fill=np.nan)
    initial = pt.maximum(start.resolved, 1) if step_size is None else f.step_size(step_size)
    current = pt.switch(pt.isnan(radius), bounded(initial.astype(f.dtype)), radius)
    if least is not None:
        current = pt.switch(away, bounded(pt.maximum(current, model.norm(least.step(start)))), current)
    unset = np.asarray(np.nan, f.dtype)
    if least is not None:
        start, known = start._replace(converged=start.converged & ~away), start
    end, (next_radius, products) = start.trust_region(propose, [current], adjust, min_quality, restart=[unset])
    if least is not None:
        end, products = _lower(known, end, away), products + least.products
    new, reports = model.closing(products)
    return start.finish(end, {radius: next_radius, **new}, patience=30, reports=reports)


# So many times its rounding error a negative curvature has to be, for a point to be left at which the gradient meets
# the tolerance: the Hessian itself has rounding errors, and a minimum must stay.
SURE = 100


class Curved(NamedTuple):
    """A direction with the curvature of the cost along it.

    Attributes
    ----------
    vector : vector
        Of length 1; downhill, or along a level.
    curvature : scalar variable
    rounding : scalar variable
        How large a curvature may be and yet be that of rounding errors.
    products : integer scalar variable
        How many products it took to find it.
    """

    vector: Any
    curvature: Any
    rounding: Any
    products: Any = ZERO

    def leaves(self, start: Descent) -> Any:
        """Whether to leave a start at which the gradient meets the tolerance."""
        return start.converged & ~start.objective.stopped & (self.curvature < -SURE * self.rounding)

    def step(self, start: Descent) -> Any:
        """The first step to try from there: as long as the largest component, or 1 from the origin."""
        size = largest(start.objective.unscaled(start.point))
        return pt.switch(size > 0, size, pt.ones_like(size)) * self.vector


class Model(NamedTuple):
    """The quadratic model of the cost at the start of a call, in variables scaled by a preconditioner.

    Attributes
    ----------
    start : Descent
    product : callable
        From a vector to the product of the Hessian with it.
    scale : vector or None
        The roots of the elements of the preconditioner.
    kept : Kept or None
        Their inverses, if the preconditioner is "curvature".
    """

    start: Descent
    product: Any
    scale: Any
    kept: Kept | None = None

    @classmethod
    def at(cls, start: Descent, preconditioner: Any) -> Model:
        f, scale, kept = start.objective, None, None
        product = f.curvature()
        if isinstance(preconditioner, str):
            check_choice("preconditioner", preconditioner, ("curvature",))
            kept = f.equilibrium("preconditioner")
            scale = 1 / kept.value
        elif preconditioner is not None:
            scale = pt.sqrt(preconditioner_diagonal(f, preconditioner, np.finfo(f.dtype).eps))
            scale = f.scaled(pt.switch(scale > 0, scale, pt.ones_like(scale)))
        return cls(start, lambda v: product(start.point, v), scale, kept)

    def closing(self, products: Any) -> tuple[Updates, dict[str, Any]]:
        """The next value of the state, and the report of the products: `products`, and those for the state."""
        if self.kept is None:
            return {}, {"products": products}
        return {self.kept.state: self.kept.value}, {"products": products + self.kept.products}

    def norm(self, step: Any) -> Any:
        """The length of a step, by the preconditioner."""
        return norm(step if self.scale is None else self.scale * step)

    def solved(self, steps: Any, **options: Any) -> Solution:
        """What conjugate gradients find in `steps` steps; the options are those of `conjugate_gradients`."""
        # A preconditioner is a change of variables, in which the trust region is a ball.
        g, s, product = self.start.gradient, self.scale, self.product
        if s is not None:
            g, product = g / s, lambda v: self.product(v / s) / s
        solution = conjugate_gradients(product, g, steps, tolerance=forcing(g), **options)
        return solution if s is None else solution._replace(vector=solution.vector / s)

    def least_curvature(self, steps: int) -> Curved:
        """A direction of negative curvature where the gradient meets the tolerance, if there is one.

        Conjugate gradients for a random right-hand side meet one almost surely: Royer, O'Neill and Wright (2020), A
        Newton-CG algorithm with complexity guarantees for smooth unconstrained optimization, procedure 2 and theorem 1.
        """
        f, g = self.start.objective, self.start.gradient
        epsilon: Any = np.asarray(f.size * np.finfo(f.dtype).eps, f.dtype)
        inexact = product_error(f.cost, f.dtype)
        if inexact is not None:
            epsilon = pt.maximum(inexact, epsilon)
        # Always the same one, so that a run can be repeated.
        b = pt.constant(np.random.default_rng(0).standard_normal(f.size).astype(f.dtype))
        smallest = (epsilon * norm(b)) ** 2

        def turn(i: Any, p: Any, r: Any, rr: Any, size: Any, v: Any, least: Any) -> tuple[list[Any], Any]:
            Bp, pp = self.product(p), dot(p, p)
            pBp, size = dot(p, Bp), pt.maximum(size, norm(Bp) / pt.sqrt(pp))
            lower = pBp / pp < least
            v, least = pt.switch(lower, p / pt.sqrt(pp), v), pt.switch(lower, pBp / pp, least)
            next_r = r + rr / pBp * Bp
            next_rr = dot(next_r, next_r)
            # Written so that NaN ends it. After a flat direction there is nothing but rounding errors.
            done = ~(pBp > SURE * epsilon * size * pp) | ~(next_rr > smallest)
            return [i + 1, next_rr / rr * p - next_r, next_r, next_rr, size, v, least], done

        zero = pt.zeros((), f.dtype)
        initial = [np.int64(0), -b, b, dot(b, b), zero, pt.zeros_like(g), zero]
        needed = self.start.converged & ~f.stopped
        count, _, _, _, size, v, least = repeat(turn, initial, pt.switch(needed, steps, 0))
        return Curved(pt.switch(dot(g, v) > 0, -v, v), least, epsilon * size, count)


def _eigen(f: Objective, hessian: Any) -> tuple[Any, Any, Any]:
    """The eigenvalues of the Hessian in ascending order, its eigenvectors as columns, the size of rounding errors.

    The eigenvectors are NaN if the Hessian is not finite.
    """
    if f.size == 0:
        return pt.zeros((0,), f.dtype), hessian, pt.zeros((), f.dtype)
    matrix, nonfinite = guarded((hessian + hessian.T) / 2)
    decomposition: Any = pt.linalg.eigh(matrix)
    values, vectors = decomposition
    resolution = np.asarray(hessian.type.shape[0] * np.finfo(hessian.type.dtype).eps, hessian.type.dtype)
    rounding, error = resolution * pt.max(abs(values)), product_error(f.cost, f.dtype)
    if error is not None:
        # What is not symmetric is an error of the products, and that of the symmetric part is as large. Ten times it,
        # since eigenvectors are wrong by it, so that those of the smallest eigenvalues have a part of the gradient.
        asymmetry = 10 * pt.sqrt(pt.sum((hessian - hessian.T) ** 2))
        differenced = pt.maximum(error * pt.max(abs(values)), asymmetry)
        rounding = pt.switch(error > resolution, differenced, rounding)
    return values, vectors + nonfinite, rounding


def _searched(start: Descent, d: Any, step_size: Any, least: Curved | None) -> tuple[Descent, End]:
    """The search along `d`, or away from a start that has converged and is no minimum; and the start for `finish`."""
    if least is None:
        return start, start.line_search(d, step_size)
    away = least.leaves(start)
    step = least.step(start)
    # The search needs a slope, and that of the gradient is about zero: it gets the mean one of the model over the step.
    mean = least.curvature * step / 2
    moving = start._replace(converged=start.converged & ~away)
    tilted = moving._replace(gradient=pt.switch(away, mean, start.gradient))
    return moving, _lower(start, tilted.line_search(pt.switch(away, step, d), step_size), away)


def _lower(start: Descent, end: End, away: Any) -> End:
    """`end`, or the start if that was to be left and the cost is not lower."""
    stays = away & ~(end.cost < start.cost)
    point, cost, gradient = (
        pt.switch(stays, old, new)
        for old, new in zip((start.point, start.cost, start.gradient), (end.point, end.cost, end.gradient), strict=True)
    )
    failed, restarted = end.failed | stays, end.restarted & ~stays
    return end._replace(point=point, cost=cost, gradient=gradient, failed=failed, restarted=restarted)
