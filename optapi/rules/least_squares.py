r"""Nonlinear least squares: the cost is half of the sum of the squares of residuals, :math:`\frac12 \|r(x)\|^2`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_choice, check_outputs, check_parameters
from ..graph.derivatives import known_shapes, pushforward
from ..graph.loops import FALSE
from ..line_search import LineSearch, fixed, strong_wolfe
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables
from ._descent import Descent, Proposal
from ._linear_algebra import conjugate_gradients, dot, forcing, guarded, largest, limit, norm, ratio, rows, times


def gauss_newton(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                 stop: Variable | None = None, updates: Updates | None = None, *, residuals: Variables,
                 step_size: StepSize | None = None, solver: str = "svd", cg_steps: int | None = None,
                 line_search: LineSearch = strong_wolfe, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
                 ascent: bool = False, name: str = "gauss_newton") -> Updates:  # fmt: skip
    r"""The method of Gauss and Newton for least squares, with a line search.

    .. math:: f(x) = \tfrac12 \|r(x)\|^2, \qquad x \leftarrow x + a d, \qquad
        d = \arg\min_d \|J d + r\|^2 = -J^+ r

    with :math:`J` the derivatives of the residuals :math:`r`, and :math:`a` from a line search. Of several minimizers
    :math:`d` is the shortest. **The cost is half of the sum of squares**, not the sum.

    It is fast where the residuals are small or close to linear at the minimizer. Elsewhere, and where :math:`J` is near
    to losing rank, `levenberg_marquardt` is safer. What happens where a search fails, and when it ends, is as in
    `newton`.

    Parameters
    ----------
    parameters, gradients, stop, updates, name
        As in every rule.
    cost : scalar variable, optional
        By default :math:`\frac12 \|r\|^2`. One that is given must equal it, but for a constant.
    residuals : variable or list of variables
        :math:`r`: floating-point tensors of any shapes, built from the parameters.
    step_size : scalar or schedule, optional
        The first step size that a search tries, by default 1.
    solver : "svd" or "cg"
        With ``"svd"`` :math:`J` is formed and decomposed; singular values below
        :math:`\max(m, n) \epsilon` times the largest count as zero, with :math:`\epsilon` the machine precision. With
        ``"cg"`` conjugate gradients on :math:`J^T J d = -J^T r` end as in `newton_cg`, and form no matrix.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients; by default 20 for each component.
    line_search : callable
        The line search, see `optapi.line_search`.
    exact : bool, optional
        Whether a cost and gradient found at a point are still true at the next call, see `lbfgs`.
    tolerance : scalar or None
        `stop` becomes 1 when no component of the gradient :math:`J^T r` is larger in absolute value.
    ascent : bool
        Whether `cost` is to be maximized, which must then be given and equal :math:`-\frac12 \|r\|^2`, but for a
        constant.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state. If `stop` is given, it reports ``reason``,
        ``evaluations``, ``products``, ``cost`` and ``gradient_size``, see `optapi.reports`. A column of :math:`J`
        counts as a product, and so does a product with :math:`J^T J`.

    Raises
    ------
    ValueError, TypeError, KeyError
        As every rule; ValueError also if a residual does not depend on the parameters.

    Notes
    -----
    With :math:`m` residuals and :math:`n` components. Cost per call with ``"svd"``: :math:`J` by :math:`n` derivatives
    along a component, each about two evaluations of the residuals, and its decomposition, about
    :math:`6mn^2 + 20n^3` multiplications; memory: some copies of :math:`J`. With ``"cg"``: for each step of the
    conjugate gradients a product :math:`J^T (J v)`, which costs about two evaluations of the gradient; memory: a few
    vectors. Both: mostly one evaluation of the cost and its gradients, more while the search looks for a step, and one
    at the start if `exact` is False.

    The NumPy interface has no residuals; build them with PyTensor, and call the rule.

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
        parameters, cost, gradients, stop, updates, residuals, tolerance=tolerance, ascent=ascent, name=name
    )
    check_choice("solver", solver, ("svd", "cg"))
    start = Descent.start(f, line_search, exact)
    wanted = ~start.still
    if solver == "svd":
        left, s, components = _decomposed(_jacobian(f, parts, wanted), f.pack(parts))
        most = pt.maximum(left.shape[0], components.shape[0]).astype(f.dtype)
        counted = s > most * np.asarray(np.finfo(f.dtype).eps, f.dtype) * pt.max(s)
        shares = ratio(components, s, counted)
        direction, products = -times(left, shares), pt.switch(wanted, f.size, 0).astype("int64")
    else:
        product, g, x = f.curvature(residuals=parts), start.gradient, start.point
        steps = pt.switch(wanted, limit(cg_steps, f.size), 0)
        found = conjugate_gradients(lambda v: product(x, v), g, steps, tolerance=forcing(g))
        direction, products = found.vector, found.products
    return start.finish(start.line_search(direction, step_size), {}, reports={"products": products})


def levenberg_marquardt(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                        stop: Variable | None = None, updates: Updates | None = None, *, residuals: Variables,
                        step_size: StepSize | None = None, damping: Scalar = 1e-3, scaling: str = "none",
                        solver: str = "svd", cg_steps: int | None = None, exact: bool | None = None,
                        tolerance: Scalar | None = 1e-5, ascent: bool = False,
                        name: str = "levenberg_marquardt") -> Updates:  # fmt: skip
    r"""The method of Levenberg and Marquardt for least squares, with Nielsen's rule for the damping.

    .. math:: f(x) = \tfrac12 \|r(x)\|^2, \qquad x \leftarrow x + p, \qquad
        p = \arg\min_p \|J p + r\|^2 + \mu \|D p\|^2 = -(J^T J + \mu D^2)^{-1} J^T r

    with :math:`J` the derivatives of the residuals :math:`r`, and :math:`D` the identity, or a diagonal of scales.
    **The cost is half of the sum of squares**, not the sum.

    The step is taken if the cost falls. With :math:`\rho` the ratio of the decrease to the one that the linearized
    residuals promise, the damping is then :math:`\mu \leftarrow \mu \max(1/3, 1 - (2 \rho - 1)^3)`; else
    :math:`\mu \leftarrow \mu \nu` with :math:`\nu = 2, 4, 8, \ldots`, and the same call tries again. Where the
    decreases are lost in the rounding errors of the cost, the promise is trusted. So each call moves the point; if no
    step does, or more than 30 calls on end have found no cost below the lowest, no further decrease is possible at the
    precision of the cost, and the algorithm has finished with reason 2; with 3 if the cost or a gradient was not finite
    at the start.

    Parameters
    ----------
    parameters, gradients, stop, updates, name
        As in every rule.
    cost : scalar variable, optional
        By default :math:`\frac12 \|r\|^2`. One that is given must equal it, but for a constant.
    residuals : variable or list of variables
        :math:`r`: floating-point tensors of any shapes, built from the parameters.
    step_size : scalar or schedule, optional
        :math:`1 / \mu` at first: with a small one the first step is this times the negative gradient. By default
        :math:`\mu` is `damping` times the largest component of the diagonal of :math:`J^T J`.
    damping : scalar
        :math:`\tau`, small where the start is believed to be good: 1e-6, else 1e-3 or even 1. Not used with
        `step_size`.
    scaling : "none" or "columns"
        What :math:`D` is. With ``"columns"`` it holds the largest norms of the columns of :math:`J` so far, which makes
        the steps independent of the units of the parameters; it needs the solver ``"svd"``.
    solver : "svd" or "cg"
        With ``"svd"`` :math:`J D^{-1}` is formed and decomposed once for all :math:`\mu` of a call, so that its
        condition is not squared. With ``"cg"`` conjugate gradients on the equations above end as in `newton_cg`, and
        form no matrix; the largest component of the diagonal is then taken as :math:`\|J g\|^2 / \|g\|^2` with the
        gradient :math:`g`.
    cg_steps : int, optional
        The largest number of steps of the conjugate gradients for one :math:`\mu`; by default 20 for each component.
    exact, tolerance, ascent
        As in `gauss_newton`.

    Returns
    -------
    dict
        Next values of the parameters and of the rule's state, among it :math:`\mu`, whose name ends with ``damping``.
        If `stop` is given, it reports as `gauss_newton` does.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `gauss_newton`.

    Notes
    -----
    With :math:`m` residuals and :math:`n` components. Cost per call: as for `gauss_newton`, but there is no search: one
    evaluation of the cost and its gradients for each :math:`\mu` that is tried, mostly one. With ``"svd"`` another
    :math:`\mu` costs :math:`n^2` multiplications; with ``"cg"`` its conjugate gradients begin anew.

    The NumPy interface has no residuals; build them with PyTensor, and call the rule.

    References
    ----------
    Madsen, Nielsen and Tingleff (2004), Methods for non-linear least squares problems, algorithm 3.16; Moré (1978), The
    Levenberg-Marquardt algorithm: implementation and theory, for the scales. Conn, Gould and Toint (2000), Trust-region
    methods, section 17.4.2, for the rounding errors.

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
    check_choice("scaling", scaling, ("none", "columns"))
    check_choice("solver", solver, ("svd", "cg"))
    if scaling == "columns" and solver == "cg":
        raise ValueError('scaling is "columns", which needs the matrix of derivatives; pass solver="svd"')
    f, parts = _opened(
        parameters, cost, gradients, stop, updates, residuals, tolerance=tolerance, ascent=ascent, name=name
    )
    start = Descent.start(f, partial(fixed, max_trials=1), exact)
    wanted = ~start.still
    tau, mu = f.scalar("damping", damping, low=0), f.state("damping", fill=np.nan)
    new: Updates = {}

    if solver == "svd":
        formed, D = pt.switch(wanted, f.size, 0).astype("int64"), None
        transposed = _jacobian(f, parts, wanted)
        if scaling == "columns":
            norms = pt.sqrt(pt.sum(transposed**2, axis=1))
            highest = f.state("norms", (f.size,))
            new[highest] = pt.maximum(highest, pt.switch(pt.isfinite(norms), norms, pt.zeros_like(norms)))
            D = pt.switch(new[highest] > 0, new[highest], pt.ones_like(norms))
            transposed = transposed / D[:, None]
        left, s, components = _decomposed(transposed, f.pack(parts))
        top = largest(pt.sum(transposed**2, axis=1))

        def propose(mu: Any, nu: Any) -> Proposal:
            weights = components * s / (s**2 + mu)
            p = -times(left, weights)
            # This is positive in each term: nothing cancels.
            decrease = pt.sum(weights**2 * (s**2 + 2 * mu)) / 2
            return Proposal(p if D is None else p / D, decrease)

    else:
        product, g, x = f.curvature(residuals=parts), start.gradient, start.point
        least, steps = forcing(g), limit(cg_steps, f.size)
        unknown = wanted & pt.isnan(mu) if step_size is None else FALSE
        first = conjugate_gradients(lambda v: product(x, v), g, pt.switch(unknown, 1, 0))
        formed = first.products
        # One step is -g times the inverse of what is wanted.
        top = norm(g) / norm(first.vector)

        def propose(mu: Any, nu: Any) -> Proposal:
            found = conjugate_gradients(lambda v: product(x, v) + mu * v, g, steps, tolerance=least)
            decrease = mu * dot(found.vector, found.vector) / 2 - found.model
            return Proposal(found.vector, decrease, found.products)

    begin = tau.astype(f.dtype) * top if step_size is None else 1 / f.step_size(step_size).astype(f.dtype)
    tiny = np.asarray(np.finfo(f.dtype).tiny, f.dtype)

    def adjust(quality: Any, proposed: Proposal, mu: Any, nu: Any) -> list[Any]:
        taken = quality > 0
        smaller = mu * pt.maximum(np.asarray(1 / 3, f.dtype), 1 - (2 * quality - 1) ** 3)
        return [
            pt.maximum(pt.switch(taken, smaller, mu * nu), tiny),
            pt.switch(taken, np.asarray(2, f.dtype), 2 * nu),
        ]

    sizes = [pt.maximum(pt.switch(pt.isnan(mu), begin, mu), tiny), pt.constant(np.asarray(2, f.dtype))]
    end, (following, _, products) = start.trust_region(propose, sizes, adjust, np.asarray(0, f.dtype))
    # Without a trial nothing is known.
    new[mu] = pt.switch(pt.eq(end.found.evaluations, 0), mu, following)
    return start.finish(end, new, patience=30, reports={"products": formed + products})


def _opened(
    parameters: Variables, cost: Any, gradients: Any, stop: Any, updates: Updates | None, residuals: Any, **kwargs: Any
) -> tuple[Objective, list[Any]]:
    """The objective, and the residuals."""
    parts = check_outputs("residuals", residuals, check_parameters(parameters))
    if cost is None:
        if kwargs["ascent"]:
            raise ValueError("ascent=True maximizes, and a sum of squares is minimized; pass cost=, minus half of it")
        sums = [pt.sum(part**2) for part in parts]
        cost = (pt.add(*sums) if len(sums) > 1 else sums[0]) / 2
    return Objective.of(parameters, cost, gradients, stop, updates, needs_cost=True, **kwargs), parts


def _jacobian(f: Objective, parts: list[Any], wanted: Any) -> Any:
    """The transpose of the matrix of derivatives of `parts` at the parameters' values; zeros if it is not `wanted`."""
    r = f.pack(parts)
    length = r.shape[0] if r.type.shape[0] is None else r.type.shape[0]

    def image(v: Any) -> Any:
        [joined] = known_shapes([f.pack(pushforward(parts, f.parameters, f.unpack(v)))])
        return joined

    return rows(image, f.size, length, f.dtype, wanted)


def _decomposed(transposed: Any, r: Any) -> tuple[Any, Any, Any]:
    """The right singular vectors of the Jacobian as columns, its singular values, and `r` along the left ones."""
    matrix, spoilt = guarded(transposed)
    decomposed: Any = pt.linalg.svd(matrix, full_matrices=False)
    left, s, right = decomposed
    return left, s, times(right, r) + spoilt
