r"""Nonlinear least squares: the cost is half of the sum of the squares of residuals, :math:`\frac12 \|r(x)\|^2`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_choice, check_count, check_outputs, check_parameters, check_x_scale
from ..feasible import Box
from ..graph.decompositions import SMALL, decomposed
from ..graph.derivatives import known_shapes, pushforward, rows
from ..graph.loops import FALSE
from ..graph.replace import replaced
from ..hints import hinted
from ..line_search import LineSearch, fixed, strong_wolfe
from ..losses import Robust
from ..objective import Objective
from ..typing import Bounds, Loss, Scalar, StepSize, Updates, Variables, XScale
from ..vectors import dot, guarded, largest, norm
from ._descent import ZERO, Descent, Proposal
from ._linear_algebra import conjugate_gradients, forcing, limit, ratio, times
from ._projected import Minimizer, by_conjugate_gradients, convex_step


@hinted
def gauss_newton(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                 stop: Variable | None = None, updates: Updates | None = None, *, residuals: Variables,
                 loss: Loss = "linear", f_scale: Scalar = 1.0, step_size: StepSize | None = None,
                 x_scale: XScale | None = None, solver: str = "svd", cg_steps: int | None = None,
                 line_search: LineSearch = strong_wolfe, exact: bool | None = None, bounds: Bounds | None = None,
                 tolerance: Scalar | None = 1e-5, ascent: bool = False,
                 name: str = "gauss_newton") -> Updates:  # fmt: skip
    r"""The method of Gauss and Newton for least squares, with a line search.

    .. math:: f(x) = \tfrac12 \|r(x)\|^2, \qquad x \leftarrow x + a d, \qquad
        d = \arg\min_d \|J d + r\|^2 = -J^+ r

    with :math:`J` the derivatives of the residuals :math:`r`, and :math:`a` from a line search. Of several minimizers
    :math:`d` is the shortest. **The cost is half of the sum of squares**, not the sum.

    It is fast where the residuals are small or close to linear at the minimizer. Elsewhere, and where :math:`J` is
    close to rank deficient, `levenberg_marquardt` is safer.

    Parameters
    ----------
    parameters, gradients, stop, updates, line_search, exact, tolerance, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    cost : scalar variable, optional
        By default :math:`\frac12 \|r\|^2`, or with a `loss` that of the loss. One that is given must equal it, but for
        a constant.
    residuals : variable or list of variables
        :math:`r`: floating-point tensors of any shapes, built from the parameters.
    loss : str or callable
        What large residuals count. With :math:`z = (r / C)^2` the cost is :math:`\frac12 C^2 \sum \rho(z)`, as of
        ``scipy.optimize.least_squares``: ``"linear"`` :math:`\rho = z`, the sum of squares; ``"soft_l1"``
        :math:`2 (\sqrt{1 + z} - 1)`; ``"huber"`` :math:`z` up to 1 and :math:`2 \sqrt z - 1` beyond; ``"cauchy"``
        :math:`\ln(1 + z)`; ``"arctan"`` :math:`\arctan z`; or a function from a tensor :math:`z` to :math:`\rho(z)`.
        The step is then that of residuals and derivatives that are weighted as by Triggs, see Notes.
    f_scale : scalar
        :math:`C`, from which size on a residual counts as an outlier. Not used with ``"linear"``.
    step_size : scalar or schedule, optional
        As in `newton`.
    x_scale : None, number, array, list of arrays or "jac"
        The typical sizes of the parameters: an array, or one for each parameter. The method is then that of the
        parameters divided by them, which counts where :math:`J` has not full rank, and for ``"cg"``. ``"jac"`` takes
        one over the norms of the columns of :math:`J`; it needs the solver ``"svd"``.
    solver : "svd" or "cg"
        With ``"svd"`` :math:`J` is formed and decomposed; singular values below :math:`\max(m, n) \epsilon` times the
        largest count as zero, with :math:`\epsilon` the machine precision. With ``"cg"`` conjugate gradients on
        :math:`J^T J d = -J^T r` end as in `newton_cg`, and form no matrix.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients; by default 20 for each component.
    bounds : dict, list or pair, optional
        As in `lbfgs`. The sum of squares of the linearized residuals is then minimized within the bounds, as in
        `levenberg_marquardt`, and the search ends at the first bound behind that point.
    ascent : bool
        Whether to maximize `cost`, which must then be given and equal :math:`-\frac12 \|r\|^2`, but for a constant.

    Returns
    -------
    dict
        As in every rule that searches. A column of :math:`J` counts as a product, and so does a product with
        :math:`J^T J`.

    Raises
    ------
    ValueError
        Also if a residual does not depend on the parameters.

    Notes
    -----
    With a robust loss :math:`J` and :math:`r` are replaced by :math:`w J` and :math:`\rho' r / w` with :math:`w^2 =
    \max(\rho' + 2 \rho'' z, \epsilon)`, which have the gradient of the cost and, where they are positive, the second
    derivatives of the loss (Triggs, McLauchlan, Hartley and Fitzgibbon, 2000, Bundle adjustment: a modern synthesis,
    section 4.3, as SciPy takes them).

    With :math:`m` residuals and :math:`n` components. Cost per call with ``"svd"``: :math:`J` by :math:`n` derivatives
    along a component, each about two evaluations of the residuals, and its decomposition, about
    :math:`6mn^2 + 20n^3` multiplications; memory: some copies of :math:`J`. With ``"cg"``: for each step of the
    conjugate gradients a product :math:`J^T (J v)`, which costs about two evaluations of the gradient; memory: a few
    vectors. Both: mostly one evaluation of the cost and its gradients, more while the search brackets a step.

    For residuals of NumPy see `least_squares`.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, section 10.3.

    Examples
    --------
    >>> times, seen = np.arange(5), np.array([1.0, 0.6, 0.35, 0.22, 0.13])
    >>> height, rate = pytensor.shared(2.0, name="height"), pytensor.shared(1.0, name="rate")
    >>> residuals = height * pt.exp(-rate * times) - seen
    >>> stop = pytensor.shared(0, name="stop")
    >>> updates = optapi.gauss_newton([height, rate], residuals=residuals, stop=stop)
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> print(height.get_value().round(3), rate.get_value().round(3))
    1.0 0.513
    """
    f, parts = _opened(
        parameters, cost, gradients, stop, updates, residuals, loss, f_scale, bounds=bounds, tolerance=tolerance,
        ascent=ascent, name=name,
    )  # fmt: skip
    _check_solver(solver, cg_steps, x_scale)
    D = _weights(f, x_scale)
    start = Descent.start(f, line_search, exact)
    needed = ~start.finished
    if solver == "svd":
        transposed, r = _jacobian(f, parts, start)
        if isinstance(x_scale, str):
            D = _nonzero(_column_norms(transposed))
        right, s, components = _decomposed(transposed if D is None else transposed / D[:, None], r)
        length = pt.maximum(right.shape[0], components.shape[0]).astype(f.dtype)
        # With a zero, since without residuals or parameters there is no singular value.
        largest = pt.max(pt.concatenate([np.zeros(1, f.dtype), s]))
        least = length * np.asarray(np.finfo(f.dtype).eps, f.dtype) * largest
        room = _room(start, D)
        if room is None:
            direction = _unscaled(-times(right, ratio(components, s, s > least)), D)
        else:
            model = Linearized(right, s, components)
            direction = _unscaled(model.bounded(room, lambda left, s: ratio(left, s, s > least)).step, D)
        products = pt.switch(needed, f.size, 0).astype("int64")
    else:
        product, g = _product(f, parts, start, D)
        steps, room = pt.switch(needed, limit(cg_steps, f.size), 0), _room(start, D)
        if room is None:
            solution = conjugate_gradients(product, g, steps, tolerance=forcing(g))
            direction, products = _unscaled(solution.vector, D), solution.products
        else:
            small = forcing(room.project(-g))
            found = convex_step(room, g, product, small, by_conjugate_gradients(product, steps, small))
            direction, products = _unscaled(found.step, D), found.products
    return start.finish(start.line_search(direction, step_size), {}, reports={"products": products})


@hinted
def levenberg_marquardt(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                        stop: Variable | None = None, updates: Updates | None = None, *, residuals: Variables,
                        loss: Loss = "linear", f_scale: Scalar = 1.0, step_size: StepSize | None = None,
                        damping: Scalar = 1e-3, x_scale: XScale | None = None, solver: str = "svd",
                        cg_steps: int | None = None, exact: bool | None = None, bounds: Bounds | None = None,
                        tolerance: Scalar | None = 1e-5, ascent: bool = False,
                        name: str = "levenberg_marquardt") -> Updates:  # fmt: skip
    r"""The method of Levenberg and Marquardt for least squares, with Nielsen's rule for the damping.

    .. math:: f(x) = \tfrac12 \|r(x)\|^2, \qquad x \leftarrow x + p, \qquad
        p = \arg\min_p \|J p + r\|^2 + \mu \|D p\|^2 = -(J^T J + \mu D^2)^{-1} J^T r

    with :math:`J` the derivatives of the residuals :math:`r`, and :math:`D` the identity, or a diagonal of scales.
    **The cost is half of the sum of squares**, not the sum.

    The step is taken if the cost decreases. With :math:`\rho` the ratio of the decrease to the one that the linearized
    residuals predict, the damping is then :math:`\mu \leftarrow \mu \max(1/3, 1 - (2 \rho - 1)^3)`; else
    :math:`\mu \leftarrow \mu \nu` with :math:`\nu = 2, 4, 8, \ldots`, and the same call tries again. Where the
    decreases are lost in the rounding errors of the cost, :math:`\rho` counts as 1.

    Parameters
    ----------
    parameters, gradients, stop, updates, exact, tolerance, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    cost, loss, f_scale : optional
        As in `gauss_newton`.
    residuals : variable or list of variables
        :math:`r`: floating-point tensors of any shapes, built from the parameters.
    step_size : scalar or schedule, optional
        :math:`1 / \mu` at first: if it is small, the first step is this times the negative gradient. By default the
        first :math:`\mu` is `damping` times the largest component of the diagonal of :math:`J^T J`.
    damping : scalar
        The factor of the first :math:`\mu`: 1e-6 for a start close to a minimizer, else 1e-3 or even 1. Not used with
        `step_size`.
    x_scale : None, number, array, list of arrays or "jac"
        What :math:`D^{-1}` is: by default the identity. The typical sizes of the parameters, a number, an array, or one
        for each parameter; the method is then that of the parameters divided by them. With ``"jac"`` :math:`D` holds
        the largest norms of the columns of :math:`J` so far, which makes the steps independent of the units of the
        parameters; this needs the solver ``"svd"``.
    solver : "svd" or "cg"
        With ``"svd"`` :math:`J D^{-1}` is formed and decomposed once for all :math:`\mu` of a call, so that its
        condition is not squared. With ``"cg"`` conjugate gradients on the equations above end as in `newton_cg`, and
        form no matrix; the largest component of the diagonal is then taken as :math:`\|J g\|^2 / \|g\|^2` with the
        gradient :math:`g`.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients for one :math:`\mu`; by default 20 for each component.
    bounds : dict, list or pair, optional
        As in `lbfgs`. The damped sum of squares is then minimized within the bounds: from the Cauchy point on the
        projected path over the components that are inside, on one face of the box after the other, at most 10. With
        ``"svd"`` the minimizer on a face is exact, and takes a decomposition of its own.
    ascent : bool
        As in `gauss_newton`.

    Returns
    -------
    dict
        As in `gauss_newton`. The name of the state for :math:`\mu` ends with ``damping``.

    Raises
    ------
    ValueError
        As in `gauss_newton`.

    Notes
    -----
    With :math:`m` residuals and :math:`n` components. Cost per call: as for `gauss_newton`, but there is no search: one
    evaluation of the cost and its gradients for each :math:`\mu` that is tried, mostly one. With ``"svd"`` another
    :math:`\mu` costs :math:`n^2` multiplications; with ``"cg"`` it costs a run of conjugate gradients.

    For residuals of NumPy see `least_squares`.

    References
    ----------
    Madsen, Nielsen and Tingleff (2004), Methods for non-linear least squares problems, algorithm 3.16; Moré (1978), The
    Levenberg-Marquardt algorithm: implementation and theory, for the scales. Conn, Gould and Toint (2000), Trust-region
    methods, section 17.4.2, for the rounding errors.

    With bounds: Kanzow, Yamashita and Fukushima (2004), Levenberg-Marquardt methods with strong local convergence
    properties for solving nonlinear equations with convex constraints, whose first method minimizes the same model in
    the box. Here that is done as by Lin and Moré (1999), Newton's method for large bound-constrained optimization
    problems, sections 3 and 4.

    Examples
    --------
    >>> times, seen = np.arange(5), np.array([1.0, 0.6, 0.35, 0.22, 0.13])
    >>> height, rate = pytensor.shared(2.0, name="height"), pytensor.shared(1.0, name="rate")
    >>> residuals = height * pt.exp(-rate * times) - seen
    >>> stop = pytensor.shared(0, name="stop")
    >>> updates = optapi.levenberg_marquardt([height, rate], residuals=residuals, stop=stop)
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> print(height.get_value().round(3), rate.get_value().round(3))
    1.0 0.513
    """
    # No scales by default: with the largest norms of the columns so far, fewer of the 35 problems of Moré, Garbow and
    # Hillstrom are solved from far starts.
    _check_solver(solver, cg_steps, x_scale)
    f, parts = _opened(
        parameters, cost, gradients, stop, updates, residuals, loss, f_scale, bounds=bounds, tolerance=tolerance,
        ascent=ascent, name=name,
    )  # fmt: skip
    D = _weights(f, x_scale)
    start = Descent.start(f, partial(fixed, max_trials=1), exact)
    needed = ~start.finished
    tau, mu = f.scalar("damping", damping, low=0), f.state("damping", fill=np.nan)
    new: Updates = {}

    if solver == "svd":
        formed = pt.switch(needed, f.size, 0).astype("int64")
        transposed, r = _jacobian(f, parts, start)
        if isinstance(x_scale, str):
            max_norms = f.state("column_norms", (f.size,))
            new[max_norms] = pt.maximum(max_norms, _column_norms(transposed))
            D = _nonzero(new[max_norms])
        if D is not None:
            transposed = transposed / D[:, None]
        right, s, components = _decomposed(transposed, r)
        diagonal = largest(pt.sum(transposed**2, axis=1))

        room, model = _room(start, D), Linearized(right, s, components)

        def propose(mu: Any, nu: Any) -> Proposal:
            if room is not None:
                found = model.bounded(room, lambda left, s: left * s / (s**2 + mu), mu)
                decrease = mu * dot(found.step, found.step) / 2 - found.model
                return Proposal(_unscaled(found.step, D), decrease)
            weights = components * s / (s**2 + mu)
            p = -times(right, weights)
            # All terms are positive: nothing cancels.
            decrease = pt.sum(weights**2 * (s**2 + 2 * mu)) / 2
            return Proposal(_unscaled(p, D), decrease)

    else:
        product, g = _product(f, parts, start, D)
        room, steps = _room(start, D), limit(cg_steps, f.size)
        residual = forcing(g if room is None else room.project(-g))
        unknown = needed & pt.isnan(mu) if step_size is None else FALSE
        first = conjugate_gradients(product, g, pt.switch(unknown, 1, 0))
        formed = first.products
        # One step of conjugate gradients is -g times the inverse of the curvature along g.
        diagonal = norm(g) / norm(first.vector)

        def propose(mu: Any, nu: Any) -> Proposal:
            def damped(v: Any) -> Any:
                return product(v) + mu * v

            if room is None:
                solution = conjugate_gradients(damped, g, steps, tolerance=residual)
                step, model, products = solution.vector, solution.model, solution.products
            else:
                solve = by_conjugate_gradients(damped, steps, residual)
                step, model, products, _ = convex_step(room, g, damped, residual, solve)
            return Proposal(_unscaled(step, D), mu * dot(step, step) / 2 - model, products)

    initial = tau.astype(f.dtype) * diagonal if step_size is None else 1 / f.step_size(step_size).astype(f.dtype)
    tiny = np.asarray(np.finfo(f.dtype).tiny, f.dtype)

    def adjust(quality: Any, proposal: Proposal, mu: Any, nu: Any) -> list[Any]:
        accepted = quality > 0
        smaller = mu * pt.maximum(np.asarray(1 / 3, f.dtype), 1 - (2 * quality - 1) ** 3)
        return [
            pt.maximum(pt.switch(accepted, smaller, mu * nu), tiny),
            pt.switch(accepted, np.asarray(2, f.dtype), 2 * nu),
        ]

    sizes = [pt.maximum(pt.switch(pt.isnan(mu), initial, mu), tiny), pt.constant(np.asarray(2, f.dtype))]
    end, (next_mu, _, products) = start.trust_region(propose, sizes, adjust, np.asarray(0, f.dtype))
    # Without a trial there is no next value, and mu may still be unknown.
    new[mu] = pt.switch(pt.eq(end.result.evaluations, 0), mu, next_mu)
    return start.finish(end, new, patience=30, reports={"products": formed + products})


def _opened(parameters: Variables, cost: Any, gradients: Any, stop: Any, updates: Updates | None, residuals: Any,
            loss: Loss, f_scale: Scalar, **kwargs: Any) -> tuple[Objective, list[Any]]:  # fmt: skip
    """The objective, and the residuals as a list, weighted where the loss is robust."""
    parts, robust = check_outputs("residuals", residuals, check_parameters(parameters)), Robust.of(loss, f_scale)
    if cost is None:
        if kwargs["ascent"]:
            raise ValueError("ascent=True maximizes, and a sum of squares is minimized; pass cost=, minus half of it")
        cost = robust.cost(parts)
    f = Objective.of(parameters, cost, gradients, stop, updates, needs_cost=True, **kwargs)
    return f, robust.linearized(parts)


def _check_solver(solver: str, cg_steps: int | None, x_scale: XScale | None) -> None:
    check_choice("solver", solver, ("svd", "cg"))
    if cg_steps is not None:
        check_count("cg_steps", cg_steps)
    if isinstance(x_scale, str) and x_scale == "jac" and solver == "cg":
        raise ValueError('x_scale is "jac", which needs the matrix of derivatives; pass solver="svd"')


def _weights(f: Objective, x_scale: XScale | None) -> Any:
    """The diagonal of :math:`D` as a vector, one over the scales; None where it is the identity or not yet known."""
    if x_scale is None or (isinstance(x_scale, str) and x_scale == "jac"):
        return None
    scales = check_x_scale(x_scale, f.parameters, [f.shape(p) for p in f.parameters], ("jac",))
    return 1 / f.pack([pt.as_tensor(scale) for scale in scales])


def _column_norms(transposed: Any) -> Any:
    """The norms of the columns of the Jacobian, 0 where they are not finite."""
    norms = pt.sqrt(pt.sum(transposed**2, axis=1))
    return pt.switch(pt.isfinite(norms), norms, pt.zeros_like(norms))


def _nonzero(norms: Any) -> Any:
    return pt.switch(norms > 0, norms, pt.ones_like(norms))


def _unscaled(step: Any, D: Any) -> Any:
    return step if D is None else step / D


def _room(start: Descent, D: Any) -> Box | None:
    """The box of steps in units of `D`, None without bounds."""
    return start.room if start.room is None or D is None else Box(*(side * D for side in start.room))


def _product(f: Objective, parts: list[Any], start: Descent, D: Any) -> tuple[Any, Any]:
    """The product of :math:`J^T J` with a vector at the start of the call, and the gradient, both in units of `D`."""
    product, x = f.curvature(residuals=parts), start.point
    if D is None:
        return lambda v: product(x, v), start.gradient
    return lambda v: product(x, v / D) / D, start.gradient / D


def _jacobian(f: Objective, parts: list[Any], start: Descent) -> tuple[Any, Any]:
    """The transpose of the Jacobian of `parts` at the start of the call, zeros where it has finished; and `parts`."""

    def there(vector: Any) -> Any:
        # A start outside of the bounds is not where the parameters are.
        return vector if f.box is None else replaced([vector], tensors)[0]

    tensors = {} if f.box is None else dict(zip(f.parameters, f.unpack(start.point), strict=True))
    r = there(f.pack(parts))
    length = r.shape[0] if r.type.shape[0] is None else r.type.shape[0]

    def image(v: Any) -> Any:
        [joined] = known_shapes([f.pack(pushforward(parts, f.parameters, f.unpack(v)))])
        return there(joined)

    return rows(image, f.size, length, f.dtype, ~start.finished), r


def _decomposed(transposed: Any, r: Any) -> tuple[Any, Any, Any]:
    """The right singular vectors of the Jacobian as columns, its singular values, and `r` along the left ones."""
    # After one decomposition each damping costs n^2; a Jacobian without full rank needs no special case.
    matrix, nonfinite = guarded(transposed)
    if (size := matrix.type.shape[0]) is not None and size <= SMALL:
        right, s, components = decomposed(matrix, r)
    else:
        decomposition: Any = pt.linalg.svd(matrix, full_matrices=False)
        right, s, left = decomposition
        components = times(left, r)
    return right, s, components + nonfinite


class Linearized(NamedTuple):
    """The linearized residuals, by the decomposition of their Jacobian.

    Attributes
    ----------
    right : matrix
        The right singular vectors as columns.
    s : vector
        The singular values.
    left : vector
        The residuals along the left singular vectors.
    """

    right: Any
    s: Any
    left: Any

    def bounded(self, room: Box, weights: Callable[[Any, Any], Any], mu: Any = None) -> Minimizer:
        """An approximate minimizer of half of the sum of squares in a box of steps, with a damping `mu`.

        Parameters
        ----------
        room : Box
        weights : callable
            From what `left` and `s` are on a face, to minus the minimizer there along the right singular vectors.
        mu : scalar variable, optional
        """
        # As many rows as singular values, and not as residuals.
        matrix = self.s[:, None] * self.right.T

        def product(v: Any) -> Any:
            image = times(matrix.T, times(matrix, v))
            return image if mu is None else image + mu * v

        def solve(mask: Any, s: Any, reduced: Any) -> tuple[Any, Any, Any]:
            held = self.left + times(matrix, (1 - mask) * s)
            right, values, left = _decomposed((matrix * mask).T, held)
            return mask * (-times(right, weights(left, values)) - s), ZERO, FALSE

        g = times(matrix.T, self.left)
        return convex_step(room, g, product, pt.zeros((), g.type.dtype), solve)
