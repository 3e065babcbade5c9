"""Hessian-free methods: steps to the minimizers of damped quadratic models, found by products with their matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_dtype, as_list, check_count, check_gradients, is_zero
from ..graph.loops import FALSE, repeat
from ..line_search import LineSearch, Trial, backtracking, strong_wolfe
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables
from ._descent import Descent
from ._linear_algebra import CURVED, Iterates, bfgs_update, conjugate_gradients, curvature, dot, guarded, norm, times


ONE = pt.constant(np.int64(1))

# Martens' line search: a step of sufficient decrease, by trials each 0.8 times as long as the last.
shorten = partial(backtracking, decrease=1e-2, min_shrink=0.8, max_shrink=0.8, max_trials=60)


def hessian_free(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                 stop: Variable | None = None, updates: Updates | None = None, *, outputs: Variables | None = None,
                 step_size: StepSize | None = None, damping: Scalar = 1.0, damping_growth: Scalar = 1.5,
                 start_decay: Scalar = 0.95, steps: int = 250, progress: Scalar = 5e-4,
                 preconditioner: Sequence[Any] | None = None, exponent: Scalar = 0.75, hidden: Variables | None = None,
                 structural_damping: Scalar = 0.03, curvature_givens: Mapping[Any, Any] | None = None,
                 line_search: LineSearch = shorten, exact: bool | None = None, tolerance: Scalar | None = 1e-5,
                 ascent: bool = False, name: str = "hessian_free") -> Updates:  # fmt: skip
    r"""Martens' Hessian-free optimization: truncated Newton steps with damping, for large problems like deep networks.

    .. math:: x \leftarrow x + a d, \qquad (G + \lambda I) d \approx -g

    with :math:`G` the Gauss-Newton matrix of `outputs`, or without these the Hessian. The system is solved by conjugate
    gradients, from 0.95 times the last solution, until the quadratic model
    :math:`q(d) = \frac12 d^T (G + \lambda I) d + g^T d` has hardly fallen for some steps. Some of the iterates on the
    way are kept, at counts that grow by the factor 1.3; from the last of them the rule goes back as long as the one
    before has no higher cost. Then :math:`a` is the first of 1, 0.8, 0.64, ... with a sufficient decrease. The damping
    is changed by the ratio of the decrease to that of the model without damping:

    .. math::
        \rho = \frac{f(x + d) - f(x)}{\frac12 d^T G d + g^T d}, \qquad \lambda \leftarrow
        \begin{cases} \frac32 \lambda & \rho < \frac14 \\ \frac23 \lambda & \rho > \frac34 \end{cases}

    The Hessian may have negative curvature. Conjugate gradients then end, with the solution so far or with a step along
    the first direction, and the damping is increased. Where the direction does not descend, the search is along the
    steepest descent, as it is after one that has failed. If that fails too, or more than 10 calls on end have found no
    cost below the lowest, the algorithm has finished with reason 2; with 3 if the cost or a gradient was not finite at
    the start.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    outputs : variable or list of variables, optional
        What the cost depends on the parameters through, and is convex in: of a network with a softmax the values before
        it. A parameter that has a penalty in the cost is listed too; the penalty's second derivatives are then exact.
        By default the matrix is the Hessian.
    step_size : scalar or schedule, optional
        The first :math:`a` that is tried, by default 1.
    damping : scalar
        :math:`\lambda` at first, in units of the cost over those of the parameters squared. For costs that are means of
        sums over outputs, values from 0.1 to 45 are in use. It never falls below the machine precision times this.
    damping_growth : scalar
        At least 1; :math:`3/2` in the formula, and its inverse for :math:`2/3`.
    start_decay : scalar
        From 0 to 1: the share of the last solution that conjugate gradients start from.
    steps : int
        The largest number of steps of conjugate gradients.
    progress : scalar
        :math:`\epsilon`: conjugate gradients end at step :math:`i` if over the last
        :math:`k = \max(10, \lceil 0.1 i \rceil)` the model has fallen by less than :math:`k \epsilon` of its value.
    preconditioner : list of variables, optional
        For each parameter the diagonal of a matrix like :math:`G`, of its shape and not negative. Conjugate gradients
        are preconditioned by :math:`(D + \lambda)^\alpha`. Martens takes the mean over examples of their squared
        gradients, divided by the number of examples if :math:`g` is a sum and not a mean.
    exponent : scalar
        :math:`\alpha`, from 0 to 1.
    hidden : variable or list of variables, optional
        For structural damping: what a step should not change too much, such as the hidden states of a recurrent network
        at all times. With :math:`S = J^T J`, :math:`J` its derivatives, :math:`G + \lambda (I + \mu S)` stands for
        :math:`G + \lambda I`. Divide it by the root of the number of examples where the cost is a mean over them. It
        needs `outputs`.
    structural_damping : scalar
        :math:`\mu`, of use only with `hidden`.
    curvature_givens : dict, optional
        From variables that the cost reads to others: :math:`G` is of the cost with these in their places, for instance
        of a part of the batch. `preconditioner` is taken as it is.
    line_search : callable
        The line search, see `optapi.line_search`.
    exact : bool, optional
        Whether a cost and gradient found at a point are still true at the next call, see `lbfgs`.

    Returns
    -------
    dict
        Next values of the parameters, of the last solution, of the damping, and of the rest of the rule's state. If
        `stop` is given, it reports ``reason``, ``evaluations`` (those of the cost alone among them), ``products``,
        ``cost`` and ``gradient_size``, see `optapi.reports`.

    Raises
    ------
    ValueError, TypeError, KeyError
        As every rule; ValueError also if the cost depends on the parameters not through `outputs` alone, or has no
        second derivatives.

    Notes
    -----
    Cost per call: a cost and gradient, one more if `exact` is False; a product for each step of conjugate gradients,
    and one for a start that is not zero; two or more costs. Inside conjugate gradients a product with the Gauss-Newton
    matrix costs about as much as a gradient, with the Hessian about twice that: what does not depend on the vector is
    worked out once. Structural damping adds one product. Memory: about
    :math:`6 + \log_{1.3}(\text{steps} / 5)` numbers per parameter component, and the intermediate values of the cost.

    With small batches the model fits the batch alone. Give the cost a large batch, `curvature_givens` a smaller one,
    and reduce `steps`.

    References
    ----------
    Martens (2010), Deep learning via Hessian-free optimization; Martens and Sutskever (2011), Learning recurrent neural
    networks with Hessian-free optimization, for structural damping; Martens and Sutskever (2012), Training deep and
    recurrent networks with Hessian-free optimization. The start is as in Martens' program; the papers have no decay.

    Examples
    --------
    >>> inputs = np.linspace(-1, 1, 20)
    >>> W, v = pytensor.shared(np.array([1.0, -2.0, 0.5]), name="W"), pytensor.shared(np.ones(3), name="v")
    >>> outputs = pt.tanh(inputs[:, None] * W) @ v
    >>> cost = pt.mean((outputs - np.sin(2 * inputs)) ** 2)
    >>> updates = optapi.hessian_free([W, v], cost, outputs=outputs, damping=0.1)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(30):
    ...     last = step()
    >>> bool(last < 1e-3)
    True
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    steps = check_count("steps", steps)
    growth = f.scalar("damping_growth", damping_growth, low=1).astype(f.dtype)
    decay = as_dtype(f.scalar("start_decay", start_decay, 0, 1), f.dtype)
    progress = f.scalar("progress", progress, low=0)
    if hidden is not None and outputs is None:
        raise ValueError("hidden is given and outputs is not; structural damping needs both")
    start = Descent.start(f, line_search, exact)
    x, g = start.point, start.gradient
    last = f.state("solution", (f.size,))
    known = f.state("damping", fill=np.nan)
    initial = as_dtype(f.scalar("damping", damping, low=0), f.dtype)
    lam = pt.switch(pt.isnan(known), initial, known)

    product, changed = _damped(
        f, outputs, hidden, lam, f.scalar("structural_damping", structural_damping, low=0), curvature_givens
    )
    diagonal = None
    if preconditioner is not None:
        diagonal = (_diagonal(f, preconditioner) + lam) ** as_dtype(f.scalar("exponent", exponent, 0, 1), f.dtype)

    found = conjugate_gradients(
        lambda v: product(x, v) + lam * v,
        g,
        pt.switch(start.still, 0, steps),
        start=None if is_zero(start_decay) else decay * last,
        diagonal=diagonal,
        progress=progress,
        keep=True,
        longest=steps,
    )
    d, model, reached, tried = _back(f, x, found.iterates, start.still)
    end = start.line_search(d, 1.0 if step_size is None else step_size)

    model = model - lam * dot(d, d) / 2
    if changed is not None:
        model = model - dot(d, changed(x, d)) / 2
    ratio = as_dtype(reached - start.cost, f.dtype) / model
    curved = pt.eq(found.reason, CURVED)
    trusted = (model < 0) & (ratio >= 0.25) & ~curved
    # Where conjugate gradients end early the model may be right at each step; the damping must not underflow.
    least = np.asarray(np.finfo(f.dtype).eps, f.dtype) * initial
    less = pt.maximum(lam / growth, least)
    following = pt.switch(trusted, pt.switch(ratio > 0.75, less, lam), lam * growth)
    new = {last: found.vector, known: following}
    reports = {
        "evaluations": start.evaluated + tried + end.found.evaluations,
        "products": found.products + (0 if changed is None else ONE),
    }
    return start.finish(end, new, reports=reports)


def _diagonal(f: Objective, preconditioner: Any) -> Any:
    """The diagonals of `preconditioner`, checked, as one vector."""
    return f.pack(check_gradients(preconditioner, f.parameters, "preconditioner"))


def _damped(f: Objective, outputs: Any, hidden: Any, lam: Any, mu: Any, givens: Any) -> tuple[Any, Any]:
    """Products with the curvature, structural damping among it, and with structural damping alone if there is some."""
    if hidden is None:
        return f.curvature(outputs, givens=givens), None
    # The Hessian of half a sum of squares is the identity, so this adds the wanted matrix, at the point as elsewhere.
    hidden = as_list("hidden", hidden)
    weight = lam * as_dtype(mu, f.dtype)
    alone = f.curvature(residuals=hidden, givens=givens)
    penalty = sum(as_dtype(weight, h.type.dtype) * pt.sum(h**2) / 2 for h in hidden)
    both = replace(f, cost=f.cost + penalty).curvature([*as_list("outputs", outputs), *hidden], givens=givens)
    return both, lambda point, vector: weight * alone(point, vector)


def _back(f: Objective, x: Any, iterates: Iterates, skip: Any) -> tuple[Any, Any, Any, Any]:
    """From the last iterate back, as long as the one before has no higher cost.

    Returns the iterate, the model and the cost there, and the number of evaluations.
    """

    def turn(row: Any, *kept: Any) -> tuple[list[Any], Any]:
        d = iterates.vectors[row]
        cost = f.at(x + d).cost
        # One that is not finite does not end it.
        cost = pt.switch(pt.isfinite(cost), cost, np.asarray(np.inf, cost.type.dtype))
        better = cost <= kept[-1]
        found = (d, iterates.models[row], cost)
        return [row - 1, *(pt.switch(better, a, b) for a, b in zip(found, kept, strict=True))], ~better | pt.eq(row, 0)

    begin = [iterates.last, pt.zeros_like(x), pt.zeros((), f.dtype), np.asarray(np.inf, f.cost.type.dtype)]
    row, d, model, cost = repeat(turn, begin, pt.switch(skip, 0, iterates.last + 1))
    return d, model, cost, iterates.last - row


def krylov_subspace_descent(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                            stop: Variable | None = None, updates: Updates | None = None, *,
                            outputs: Variables | None = None, step_size: StepSize | None = None, dimensions: int = 20,
                            max_trials: int | None = None, floor: Scalar = 1e-4,
                            preconditioner: Sequence[Any] | None = None,
                            curvature_givens: Mapping[Any, Any] | None = None, line_search: LineSearch = shorten,
                            exact: bool | None = None, tolerance: Scalar | None = 1e-5, ascent: bool = False,
                            name: str = "krylov_subspace_descent") -> Updates:  # fmt: skip
    r"""Krylov subspace descent: the minimizer of the cost itself in a space of few dimensions.

    The space is spanned by :math:`P^{-1} g, P^{-1} G P^{-1} g, (P^{-1} G)^2 P^{-1} g, \ldots`, :math:`k` of them, and
    the last step, with :math:`G` the Gauss-Newton matrix of `outputs`, or without these the Hessian. With an
    orthonormal basis as the columns of :math:`V`, the cost :math:`f(x + V c)` is minimized over :math:`c` by BFGS,
    which begins with the inverse of :math:`V^T G V` for its inverse Hessian. Eigenvalues below `floor` times the
    largest are raised to that, so negative curvature does no harm. There is no damping.

    Then :math:`x \leftarrow x + a V c`, with :math:`a = 1` unless that does not lower the cost. Where the direction
    does not descend, the search is along the steepest descent; when it ends is as in `hessian_free`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    outputs : variable or list of variables, optional
        As in `hessian_free`.
    step_size : scalar or schedule, optional
        The first :math:`a` that is tried, by default 1.
    dimensions : int
        :math:`k`, without the last step.
    max_trials : int, optional
        The largest number of evaluations by BFGS, by default :math:`2k`.
    floor : scalar
        Of the eigenvalues, and of the elements of `preconditioner`, as a share of the largest.
    preconditioner : list of variables, optional
        :math:`P`: for each parameter the diagonal of a matrix like :math:`G`, not negative, see `hessian_free`. The
        identity by default.
    curvature_givens, search, exact, tolerance
        As in `hessian_free`.

    Returns
    -------
    dict
        Next values of the parameters, of the last step, and of the rest of the rule's state. If `stop` is given, it
        reports as `hessian_free` does.

    Raises
    ------
    ValueError, TypeError, KeyError
        As `hessian_free`.

    Notes
    -----
    Cost per call: a cost and gradient, up to `max_trials` more, and another one if `exact` is False; :math:`k + 1`
    products; :math:`4k` multiplications per parameter component for each of both. Memory: :math:`k + 4` numbers per
    parameter component, and the intermediate values of the cost.

    References
    ----------
    Vinyals and Povey (2012), Krylov subspace descent for deep learning, algorithm 1. There BFGS has a batch of its own.
    On a quadratic the step is that of :math:`k` steps of conjugate gradients.

    Examples
    --------
    >>> inputs = np.linspace(-1, 1, 20)
    >>> W, v = pytensor.shared(np.array([1.0, -2.0, 0.5]), name="W"), pytensor.shared(np.ones(3), name="v")
    >>> outputs = pt.tanh(inputs[:, None] * W) @ v
    >>> cost = pt.mean((outputs - np.sin(2 * inputs)) ** 2)
    >>> updates = optapi.krylov_subspace_descent([W, v], cost, outputs=outputs, dimensions=4)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(30):
    ...     last = step()
    >>> bool(last < 1e-3)
    True
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    k = check_count("dimensions", dimensions)
    max_trials = 2 * k if max_trials is None else check_count("max_trials", max_trials)
    k = min(k, f.size)
    floor = as_dtype(f.scalar("floor", floor, 0, 1), f.dtype)
    product = f.curvature(outputs, givens=curvature_givens)
    start = Descent.start(f, line_search, exact)
    x, g = start.point, start.gradient
    step = f.state("step", (f.size,))
    diagonal = pt.ones_like(g)
    if preconditioner is not None:
        diagonal = _diagonal(f, preconditioner)
        diagonal = pt.maximum(diagonal, floor * pt.max(diagonal))

    basis, projected = _krylov_basis(lambda v: product(x, v), g, diagonal, step, k, start.still)
    scaled = _whitened(basis, projected, floor)
    c, evaluations = _minimized(f, x, start.cost, g, scaled, pt.switch(start.still, 0, max_trials), max_trials)
    end = start.line_search(times(scaled.T, c), 1.0 if step_size is None else step_size)
    reports = {
        "evaluations": start.evaluated + evaluations + end.found.evaluations,
        "products": pt.switch(start.still, 0, k + 1).astype("int64"),
    }
    return start.finish(end, {step: pt.switch(end.failed, step, end.step)}, reports=reports)


def _krylov_basis(product: Any, g: Any, diagonal: Any, step: Any, k: int, skip: Any) -> tuple[Any, Any]:
    """Orthonormal rows, and the matrix of the products projected on them, of which the lower triangle is filled.

    A direction that is in the space already has a row of zeros.
    """
    epsilon = np.asarray(np.finfo(g.type.dtype).eps, g.type.dtype)
    zeros = pt.zeros((k + 1, 1), g.type.dtype) * pt.zeros_like(g)

    def turn(i: Any, v: Any, basis: Any, projected: Any) -> tuple[list[Any], Any]:
        size = norm(v)
        # Once more, for what round-off has left.
        for _ in range(2):
            v = v - times(basis.T, times(basis, v))
        left = norm(v)
        v = pt.switch(left > 100 * epsilon * size, v / left, pt.zeros_like(v))
        w = product(v)
        basis = pt.set_subtensor(basis[i], v)
        projected = pt.set_subtensor(projected[i], times(basis, w))
        return [i + 1, pt.switch(pt.eq(i, k - 1), step, w / diagonal), basis, projected], FALSE

    begin = [np.int64(0), g / diagonal, zeros, pt.zeros((k + 1, k + 1), g.type.dtype)]
    _, _, basis, projected = repeat(turn, begin, pt.switch(skip, 0, k + 1))
    return basis, projected


def _whitened(basis: Any, projected: Any, floor: Any) -> Any:
    """Rows that span what `basis` does, for which the projected matrix is the identity."""
    lower = pt.tril(projected, -1)
    matrix, _ = guarded(lower + lower.T + pt.diag(pt.diagonal(projected)))
    decomposed: Any = pt.linalg.eigh(matrix)
    values, vectors = decomposed
    top = pt.max(abs(values))
    values = pt.maximum(values, floor * top)
    scale = pt.switch(values > 0, 1 / pt.sqrt(values), pt.zeros_like(values))
    return scale[:, None] * pt.dot(vectors.T, basis)


def _minimized(f: Objective, x: Any, cost: Any, g: Any, rows: Any, limit: Any, max_trials: int) -> tuple[Any, Any]:
    """The coefficients c of lowest cost at x + rows' c that BFGS finds, and the number of evaluations."""
    dtype, size = f.dtype, int(rows.type.shape[0])
    zero, begun = pt.zeros_like(rows[:, 0]), times(rows, g)
    least = np.asarray(np.sqrt(np.finfo(dtype).eps), dtype) * norm(begun)

    def turn(c: Any, value: Any, slope: Any, H: Any, spent: Any) -> tuple[list[Any], Any]:
        d = -times(H, slope)

        def line(a: Any) -> Trial:
            there = c + a.astype(dtype) * d
            point = f.at(x + times(rows.T, there))
            slope = times(rows, point.gradient)
            return Trial(point.cost, dot(slope, d), (there, slope))

        found = strong_wolfe(line, Trial(value, dot(slope, d), (c, slope)), max_trials=10)
        there, slope_there = found.trial.carry
        s, y = there - c, slope_there - slope
        good, sy, _ = curvature(s, y)
        spent = spent + found.evaluations
        done = found.failed | (spent >= max_trials) | ~(norm(slope_there) > least)
        return [there, found.trial.cost, slope_there, pt.switch(good, bfgs_update(H, s, y, sy), H), spent], done

    begin = [zero, cost, begun, pt.eye(size, dtype=dtype), np.int64(0)]
    c, *_, spent = repeat(turn, begin, limit)
    return c, spent
