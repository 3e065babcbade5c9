"""Hessian-free methods: minimizers of quadratic models, of whose matrix only products with vectors are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_dtype, as_list, check_count, is_zero
from ..graph.loops import FALSE, repeat
from ..hints import hinted
from ..line_search import LineSearch, Trial, backtracking, strong_wolfe
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables, XScale
from ..vectors import dot, guarded, norm
from ._descent import Descent
from ._linear_algebra import (
    CURVED,
    Iterates,
    bfgs_update,
    conjugate_gradients,
    curvature,
    preconditioner_diagonal,
    ratio,
    times,
)


ONE = pt.constant(np.int64(1))

# Martens' line search: a step of sufficient decrease, by backtracking with the factor 0.8.
shorten = partial(backtracking, decrease=1e-2, min_shrink=0.8, max_shrink=0.8, max_trials=60)


@hinted
def hessian_free(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                 stop: Variable | None = None, updates: Updates | None = None, *, outputs: Variables | None = None,
                 step_size: StepSize | None = None, damping: Scalar = 1.0, damping_growth: Scalar = 1.5,
                 start_decay: Scalar = 0.95, steps: int = 250, progress: Scalar = 5e-4,
                 preconditioner: Sequence[Any] | None = None, exponent: Scalar = 0.75, hidden: Variables | None = None,
                 structural_damping: Scalar = 0.03, curvature_givens: Mapping[Any, Any] | None = None,
                 line_search: LineSearch = shorten, exact: bool | None = None, x_scale: XScale | None = None,
                 tolerance: Scalar | None = 1e-5, ascent: bool = False,
                 name: str = "hessian_free") -> Updates:  # fmt: skip
    r"""Martens' Hessian-free optimization: truncated Newton steps with damping, for large problems like deep networks.

    .. math:: x \leftarrow x + a d, \qquad (G + \lambda I) d \approx -g

    with :math:`G` the Gauss-Newton matrix of `outputs`, or without these the Hessian. The system is solved by conjugate
    gradients, from 0.95 times the last solution, until the quadratic model
    :math:`q(d) = \frac12 d^T (G + \lambda I) d + g^T d` has hardly decreased for some steps. Some iterates are kept, at
    counts that grow by the factor 1.3. From the last of them the rule goes back as long as the previous one has no
    higher cost, and takes the result for :math:`d`. Then :math:`a` is the first of 1, 0.8, 0.64, ... with a sufficient
    decrease. The damping is changed by the ratio of the decrease to that of the model without damping:

    .. math::
        \rho = \frac{f(x + d) - f(x)}{\frac12 d^T G d + g^T d}, \qquad \lambda \leftarrow
        \begin{cases} \frac32 \lambda & \rho < \frac14 \\ \frac23 \lambda & \rho > \frac34 \end{cases}

    At a direction without positive curvature, which the Hessian may have, conjugate gradients end with the last
    iterate, or, at the first direction, with a step along it, and the damping is increased.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    outputs : variable or list of variables, optional
        Functions of the parameters. The cost must depend on the parameters only through them and be convex in them: for
        a network with a softmax pass the inputs of the softmax. List a parameter that has a penalty in the cost too;
        the second derivatives of the penalty are then exact. By default the matrix is the Hessian.
    step_size : scalar or schedule, optional
        The first :math:`a` that is tried, by default 1.
    damping : scalar
        :math:`\lambda` at first, in units of the cost over those of the parameters, or of `x_scale`, squared. For costs
        that are means of sums over outputs, values from 0.1 to 45 are in use. :math:`\lambda` never becomes smaller
        than the machine precision times this.
    damping_growth : scalar
        The factor :math:`3/2` of the formula, and the inverse of :math:`2/3`; at least 1.
    start_decay : scalar
        The factor of the last solution at the start of conjugate gradients, from 0 to 1.
    steps : int
        The largest number of steps of conjugate gradients.
    progress : scalar
        :math:`\epsilon`: conjugate gradients end at step :math:`i` if over the last
        :math:`k = \max(10, \lceil 0.1 i \rceil)` the model has decreased by less than :math:`k \epsilon` times its
        value.
    preconditioner : list of variables, optional
        For each parameter a diagonal :math:`D` that approximates that of :math:`G`, of its shape and not negative.
        Conjugate gradients are preconditioned by :math:`(D + \lambda)^\alpha`. Martens takes the mean over examples of
        their squared gradients, divided by the number of examples if :math:`g` is a sum and not a mean.
    exponent : scalar
        :math:`\alpha`, from 0 to 1.
    hidden : variable or list of variables, optional
        For structural damping: values that a step should not change too much, such as the hidden states of a recurrent
        network at all times. The damped matrix is then :math:`G + \lambda (I + \mu S)` with :math:`S = J^T J` and
        :math:`J` the derivatives of `hidden`. Divide `hidden` by the root of the number of examples where the cost is a
        mean over them. It needs `outputs`.
    structural_damping : scalar
        :math:`\mu`, used only with `hidden`.
    curvature_givens : dict, optional
        From variables that the cost reads to replacements: :math:`G` is that of the cost with the replacements, for
        instance with a part of the batch. They do not apply to `preconditioner`.
    line_search : callable
        As in every rule that searches. By default `backtracking` with the factor 0.8.

    Returns
    -------
    dict
        As in every rule that searches; ``evaluations`` counts those of the cost alone, too.

    Raises
    ------
    ValueError
        Also if the cost does not depend on the parameters through `outputs` alone, or has no second derivatives.

    Notes
    -----
    Cost per call: a cost and gradient; a product for each step of conjugate gradients, and one for a start that is not
    zero; two or more costs. Inside of conjugate gradients a product with the Gauss-Newton matrix costs about as much as
    a gradient, with the Hessian about twice as much: what does not depend on the vector is computed once. Structural
    damping adds one product. Memory: about :math:`6 + \log_{1.3}(\text{steps} / 5)` numbers per parameter component,
    and the intermediate values of the cost.

    On a small batch the minimizer of the model is good for this batch only. Give the cost a large batch,
    `curvature_givens` a smaller one, and reduce `steps`.

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
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    steps = check_count("steps", steps)
    growth = f.scalar("damping_growth", damping_growth, low=1).astype(f.dtype)
    decay = as_dtype(f.scalar("start_decay", start_decay, 0, 1), f.dtype)
    progress, power = f.scalar("progress", progress, low=0), f.scalar("exponent", exponent, 0, 1)
    if hidden is not None and outputs is None:
        raise ValueError("hidden is given and outputs is not; structural damping needs both")
    start = Descent.start(f, line_search, exact, takes_noise=True)
    x, g = start.point, start.gradient
    previous = f.state("solution", (f.size,))
    damping_state = f.state("damping", fill=np.nan)
    initial = as_dtype(f.scalar("damping", damping, low=0), f.dtype)
    lam = pt.switch(pt.isnan(damping_state), initial, damping_state)

    product, structural = _damped(
        f, outputs, hidden, lam, f.scalar("structural_damping", structural_damping, low=0), curvature_givens
    )
    diagonal = None
    if preconditioner is not None:
        diagonal = (f.scaled(f.scaled(preconditioner_diagonal(f, preconditioner))) + lam) ** as_dtype(power, f.dtype)

    solution = conjugate_gradients(
        lambda v: product(x, v) + lam * v,
        g,
        pt.switch(start.finished, 0, steps),
        start=None if is_zero(start_decay) else decay * previous,
        diagonal=diagonal,
        progress=progress,
        keep=True,
        max_steps=steps,
    )
    d, model, cost_at_d, evaluations = _backtracked(f, x, solution.iterates, start.finished)
    end = start.line_search(d, 1.0 if step_size is None else step_size)

    # The model without damping needs no further product, but for structural damping, which takes one.
    model = model - lam * dot(d, d) / 2
    if structural is not None:
        model = model - dot(d, structural(x, d)) / 2
    quality = as_dtype(cost_at_d - start.cost, f.dtype) / model
    trusted = (model < 0) & (quality >= 0.25) & ~pt.eq(solution.reason, CURVED)
    # Where conjugate gradients end early the model may be right at each step; the damping must not underflow.
    min_damping = np.asarray(np.finfo(f.dtype).eps, f.dtype) * initial
    reduced = pt.maximum(lam / growth, min_damping)
    next_damping = pt.switch(trusted, pt.switch(quality > 0.75, reduced, lam), lam * growth)
    new = {previous: solution.vector, damping_state: next_damping}
    reports = {
        "evaluations": start.evaluations + evaluations + end.result.evaluations,
        "products": solution.products + (0 if structural is None else ONE),
    }
    return start.finish(end, new, reports=reports)


def _damped(f: Objective, outputs: Any, hidden: Any, lam: Any, mu: Any, givens: Any) -> tuple[Any, Any]:
    """The products with the curvature and structural damping, and with structural damping alone; None without it."""
    if hidden is None:
        return f.curvature(outputs, givens=givens), None
    # The Hessian of half a sum of squares is the identity, so the penalty adds S to the matrix, at any point.
    hidden = as_list("hidden", hidden)
    weight = lam * as_dtype(mu, f.dtype)
    alone = f.curvature(residuals=hidden, givens=givens)
    penalty = sum(as_dtype(weight, h.type.dtype) * pt.sum(h**2) / 2 for h in hidden)
    both = replace(f, cost=f.cost + penalty).curvature([*as_list("outputs", outputs), *hidden], givens=givens)
    return both, lambda point, vector: weight * alone(point, vector)


def _backtracked(f: Objective, x: Any, iterates: Iterates, skip: Any) -> tuple[Any, Any, Any, Any]:
    """The last iterate, or an earlier one: back as long as the previous one has no higher cost.

    Returns the iterate, the model and the cost at it, and the number of evaluations.
    """

    # Costs alone decide here; the line search that follows evaluates the gradient too, which is that of the next call.
    def turn(row: Any, *best: Any) -> tuple[list[Any], Any]:
        d = iterates.vectors[row]
        cost = f.at(x + f.scaled(d)).cost
        # A cost that is not finite does not end the loop.
        cost = pt.switch(pt.isfinite(cost), cost, np.asarray(np.inf, cost.type.dtype))
        better = cost <= best[-1]
        trial = (d, iterates.models[row], cost)
        return [row - 1, *(pt.switch(better, a, b) for a, b in zip(trial, best, strict=True))], ~better | pt.eq(row, 0)

    initial = [iterates.last, pt.zeros_like(x), pt.zeros((), f.dtype), np.asarray(np.inf, f.cost.type.dtype)]
    row, d, model, cost = repeat(turn, initial, pt.switch(skip, 0, iterates.last + 1))
    return d, model, cost, iterates.last - row


@hinted
def krylov_subspace_descent(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                            stop: Variable | None = None, updates: Updates | None = None, *,
                            outputs: Variables | None = None, step_size: StepSize | None = None, dimensions: int = 20,
                            max_trials: int | None = None, floor: Scalar = 1e-4,
                            preconditioner: Sequence[Any] | None = None,
                            curvature_givens: Mapping[Any, Any] | None = None, line_search: LineSearch = shorten,
                            exact: bool | None = None, x_scale: XScale | None = None,
                            tolerance: Scalar | None = 1e-5, ascent: bool = False,
                            name: str = "krylov_subspace_descent") -> Updates:  # fmt: skip
    r"""Krylov subspace descent: the minimizer of the cost itself in a space of few dimensions.

    The space is spanned by :math:`P^{-1} g, P^{-1} G P^{-1} g, (P^{-1} G)^2 P^{-1} g, \ldots`, :math:`k` of them, and
    the last step, with :math:`G` the Gauss-Newton matrix of `outputs`, or without these the Hessian. With an
    orthonormal basis as the columns of :math:`V`, the cost :math:`f(x + V c)` is minimized over :math:`c` by BFGS,
    whose initial inverse Hessian is the inverse of :math:`V^T G V`. Eigenvalues below `floor` times the largest are
    raised to this, so negative curvature does no harm. There is no damping. Then :math:`x \leftarrow x + a V c`, with
    :math:`a = 1` unless this does not decrease the cost.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, exact, x_scale, tolerance, ascent, name
        As in every rule that searches; see there also what is returned, reported and raised, and when the rule ends.
    outputs : variable or list of variables, optional
        As in `hessian_free`.
    step_size : scalar or schedule, optional
        The first :math:`a` that is tried, by default 1.
    dimensions : int
        :math:`k`, the number of dimensions without that of the last step.
    max_trials : int, optional
        The largest number of evaluations by BFGS, by default :math:`2k`.
    floor : scalar
        The lower bound of the eigenvalues, and of the elements of `preconditioner`, as a fraction of the largest.
    preconditioner : list of variables, optional
        :math:`P`: for each parameter a diagonal that approximates that of :math:`G`, not negative, see `hessian_free`.
        By default the identity.
    curvature_givens, line_search
        As in `hessian_free`.

    Raises
    ------
    ValueError
        As in `hessian_free`.

    Notes
    -----
    Cost per call: a cost and gradient, and up to `max_trials` more; :math:`k + 1` products; for each evaluation and
    each product :math:`4k` multiplications per parameter component. Memory: :math:`k + 4` numbers per parameter
    component, and the intermediate values of the cost.

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
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True,
        x_scale=x_scale,
    )  # fmt: skip
    k = check_count("dimensions", dimensions)
    max_trials = 2 * k if max_trials is None else check_count("max_trials", max_trials)
    k = max(1, min(k, f.size))
    floor = as_dtype(f.scalar("floor", floor, 0, 1), f.dtype)
    product = f.curvature(outputs, givens=curvature_givens)
    start = Descent.start(f, line_search, exact, takes_noise=True)
    x, g = start.point, start.gradient
    step = f.state("step", (f.size,))
    diagonal = pt.ones_like(g)
    if preconditioner is not None:
        diagonal = f.scaled(f.scaled(preconditioner_diagonal(f, preconditioner, floor)))

    basis, projected = _krylov_basis(lambda v: product(x, v), g, diagonal, step, k, start.finished)
    scaled = _whitened(basis, projected, floor)
    c, evaluations = _minimized(f, x, start.cost, g, scaled, pt.switch(start.finished, 0, max_trials), max_trials)
    end = start.line_search(times(scaled.T, c), 1.0 if step_size is None else step_size)
    reports = {
        "evaluations": start.evaluations + evaluations + end.result.evaluations,
        "products": pt.switch(start.finished, 0, k + 1).astype("int64"),
    }
    return start.finish(end, {step: pt.switch(end.failed, step, end.step)}, reports=reports)


def _krylov_basis(product: Any, g: Any, diagonal: Any, step: Any, k: int, skip: Any) -> tuple[Any, Any]:
    """An orthonormal basis as rows, and the products with it projected on it, of which the lower triangle is valid.

    A direction that depends on the ones before has a row of zeros.
    """
    epsilon = np.asarray(np.finfo(g.type.dtype).eps, g.type.dtype)
    zeros = pt.zeros((k + 1, 1), g.type.dtype) * pt.zeros_like(g)

    def turn(i: Any, v: Any, basis: Any, projected: Any) -> tuple[list[Any], Any]:
        size = norm(v)
        # Twice, since after one projection rounding errors are left.
        for _ in range(2):
            v = v - times(basis.T, times(basis, v))
        length = norm(v)
        v = ratio(v, length, length > 100 * epsilon * size)
        w = product(v)
        basis = pt.set_subtensor(basis[i], v)
        projected = pt.set_subtensor(projected[i], times(basis, w))
        return [i + 1, pt.switch(pt.eq(i, k - 1), step, w / diagonal), basis, projected], FALSE

    initial = [np.int64(0), g / diagonal, zeros, pt.zeros((k + 1, k + 1), g.type.dtype)]
    _, _, basis, projected = repeat(turn, initial, pt.switch(skip, 0, k + 1))
    return basis, projected


def _whitened(basis: Any, projected: Any, floor: Any) -> Any:
    """A basis of the same space, as rows, in which the projected matrix is the identity."""
    lower = pt.tril(projected, -1)
    matrix, _ = guarded(lower + lower.T + pt.diag(pt.diagonal(projected)))
    decomposition: Any = pt.linalg.eigh(matrix)
    values, vectors = decomposition
    values = pt.maximum(values, floor * pt.max(abs(values)))
    scale = ratio(pt.ones_like(values), pt.sqrt(values), values > 0)
    return scale[:, None] * pt.dot(vectors.T, basis)


def _minimized(f: Objective, x: Any, cost: Any, g: Any, rows: Any, limit: Any, max_trials: int) -> tuple[Any, Any]:
    """The coefficients c of the lowest cost at x + rows' c, by BFGS, and the number of evaluations."""
    dtype, size = f.dtype, int(rows.type.shape[0])
    zeros, initial_slope = pt.zeros_like(rows[:, 0]), times(rows, g)
    tolerance = np.asarray(np.sqrt(np.finfo(dtype).eps), dtype) * norm(initial_slope)

    def turn(c: Any, value: Any, slope: Any, H: Any, evaluations: Any) -> tuple[list[Any], Any]:
        d = -times(H, slope)

        def line(a: Any) -> Trial:
            trial = c + a.astype(dtype) * d
            point = f.at(x + f.scaled(times(rows.T, trial)))
            slope = times(rows, point.gradient)
            return Trial(point.cost, dot(slope, d), (trial, slope))

        result = strong_wolfe(line, Trial(value, dot(slope, d), (c, slope)), max_trials=10)
        next_c, next_slope = result.trial.carry
        s, y = next_c - c, next_slope - slope
        good, sy, _ = curvature(s, y)
        evaluations = evaluations + result.evaluations
        done = result.failed | (evaluations >= max_trials) | ~(norm(next_slope) > tolerance)
        next_H = pt.switch(good, bfgs_update(H, s, y, sy), H)
        return [next_c, result.trial.cost, next_slope, next_H, evaluations], done

    initial = [zeros, cost, initial_slope, pt.eye(size, dtype=dtype), np.int64(0)]
    c, *_, evaluations = repeat(turn, initial, limit)
    return c, evaluations
