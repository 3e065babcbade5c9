"""Stochastic quasi-Newton methods: curvature from noisy gradients. Both gradients of a pair are those of one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_dtype, check_choice, check_cost, check_count, check_mask, is_zero
from ..graph.loops import cond
from ..graph.replace import replaced
from ..hints import hinted
from ..objective import Objective
from ..typing import Mask, Scalar, StepSize, Updates, Variables
from ..vectors import dot
from ._linear_algebra import CompactInverseHessian, ratio, shifted, times


ONE, TWO = (pt.constant(np.int64(count)) for count in (1, 2))


@hinted
def sgd_qn(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
           regularization: Scalar = 0.0, mask: Mask | None = None, skip: int = 16,
           min_curvature: Scalar | None = None, max_curvature: Scalar | None = None, variant: str = "2010",
           tolerance: Scalar | None = None, ascent: bool = False, name: str = "sgd_qn") -> Updates:  # fmt: skip
    r"""SGD-QN: stochastic gradient descent with a rate for each component, from an estimate of its curvature.

    The rule minimizes the cost plus :math:`\lambda \|x\|^2 / 2`. Each call is

    .. math:: x \leftarrow x - b \, (g + [t = 0 \bmod s] \, s \lambda x), \qquad b = \frac{1}{1/a + q}

    with :math:`t` the number of the call, from 1: the penalty acts at every :math:`s`-th call only. The next call
    estimates a curvature for each component, from the point :math:`x'` at the start of the last call and the gradient
    :math:`g'` at :math:`x'` on the present batch, and adds it to the sum :math:`q`:

    .. math:: q \leftarrow q + s \operatorname{clip}\Big(\lambda + \frac{g - g'}{x - x'}, c_{min}, c_{max}\Big)

    So the rates decrease as :math:`1/t`, each by its own curvature. Where a component of :math:`x - x'` is 0, the
    quotient is 0 if that of :math:`g - g'` is 0 too, and :math:`c_{max}` if not.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed, without the penalty; gradients, if given, must be its own. The tolerance
        applies to the gradient with the penalty.
    step_size : scalar or schedule
        :math:`a`, the initial rate of all components; :math:`1/(\lambda t_0)` in the paper. `find_step_size` searches
        for it.
    regularization : scalar
        :math:`\lambda`. If the penalty is part of the cost, leave it 0 and pass the bounds of the curvature.
    mask : list of bool, or callable, optional
        Which parameters are penalized; a callable is called with each parameter, for instance ``lambda p: p.ndim > 0``
        to exclude a bias. All by default.
    skip : int
        :math:`s`. 16 with dense data; with sparse data 16 times the fraction of features that are 0 in an example.
    min_curvature, max_curvature : scalar, optional
        :math:`c_{min}` and :math:`c_{max}`. By default :math:`0.1 \lambda` and :math:`100 \lambda`; without
        `regularization`, 0 and :math:`1/a`, so that no rate falls below :math:`a/(1 + t)`.
    variant : {"2010", "2009"}
        The corrected algorithm, or, for comparison only, the first one, which has a flaw: see the notes.

    Returns
    -------
    dict
        Next values of the parameters, of the sums of curvatures, of the points :math:`x'`, and of the count of updates.
        If `stop` is given, the rule reports ``evaluations``, see `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points.

    Notes
    -----
    Cost per call: one gradient, and another one at every `skip`-th call. Memory: two numbers per parameter component.

    The quotient is a diagonal element of the Hessian plus a weighted sum of the other elements of its row. It may be
    far from the diagonal element, and of either sign, hence the bounds.

    The variant of 2009 compares the gradients before and after the step of one call. With one example the step is a
    multiple of the example, which therefore cancels in the quotient: from equal rates, all features of the example get
    the same rate. The rates are :math:`B / (t - 1 + t_0)`, with :math:`\lambda t_0 = 1/a` and :math:`B` a running
    average, with weights :math:`2/r`, of the inverse curvatures, between :math:`10^{-2}/\lambda` and
    :math:`10^2/\lambda`; this variant does not take `min_curvature` and `max_curvature`.

    References
    ----------
    Bordes, Bottou, Gallinari, Chang and Smith (2010), Erratum: SGDQN is less careful than expected; for the variant,
    Bordes, Bottou and Gallinari (2009), SGD-QN: careful quasi-Newton stochastic gradient descent, figure 2. The bounds
    are those of the authors' programs. The paper of 2009 has no upper bound, which a convex cost does not reach.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> updates = optapi.sgd_qn([w], cost, step_size=optapi.schedules.Power(0.5, scale=50), skip=4)
    >>> train = pytensor.function([x, y], cost, updates=updates)
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 0.99, -1.99])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    skip = check_count("skip", skip)
    check_choice("variant", variant, ("2010", "2009"))
    a, penalty = f.step_size(step_size), f.scalar("regularization", regularization, low=0)
    penalized = check_mask(mask, f.parameters)
    penalties = [
        as_dtype(penalty if chosen else pt.zeros((), "float64"), p.type.dtype)
        for p, chosen in zip(f.parameters, penalized, strict=True)
    ]
    compares = pt.gt(f.count, 0) & pt.eq(f.count % skip, 0)
    # The weight of the penalty in this call, in units of lambda.
    weight = pt.switch(pt.eq((f.count + 1) % skip, 0), np.float64(skip), np.float64(0))

    if variant == "2009":
        if min_curvature is not None or max_curvature is not None:
            raise ValueError("the variant of 2009 does not take min_curvature and max_curvature; leave them out")
        if is_zero(regularization):
            raise ValueError("the variant of 2009 needs a regularization above 0; pass regularization=")
        new = _sgd_qn_2009(f, a, penalty, penalties, compares, weight, skip)
    else:
        low = 0.1 * penalty if min_curvature is None else f.scalar("min_curvature", min_curvature, low=0)
        high = 1.0 / a if is_zero(regularization) else 100.0 * penalty
        high = high if max_curvature is None else f.scalar("max_curvature", max_curvature, low=0)
        new = _sgd_qn_2010(f, a, penalties, compares, weight, skip, low, high)
    converged = None
    if not is_zero(regularization):
        converged = f.converged([g + lam * p for (p, g), lam in zip(f.each(), penalties, strict=True)])
    return f.finish(new, converged, reports={"evaluations": pt.switch(compares, TWO, ONE)})


def _sgd_qn_2010(
    f: Objective, a: Any, penalties: list[Any], compares: Any, weight: Any, skip: int, low: Any, high: Any
) -> Updates:
    points = [f.zeros_like(p, "previous") for p in f.parameters]
    gradients = _gradients_at(f, points, compares)
    scalars = a, weight, pt.constant(np.float64(skip)), low, high
    new: Updates = {}
    for (p, g, a0, w, s, c_min, c_max), lam, x, g_x in zip(f.each(*scalars), penalties, points, gradients, strict=True):
        # The state is the sum of curvatures, not the rates: it begins at zero, so the step size may have any form.
        q = f.zeros_like(p, "curvature")
        change, step = g - g_x, p - x
        infinite = pt.eq(step, 0) & pt.neq(change, 0)
        curvature = pt.clip(lam + pt.switch(infinite, c_max, ratio(change, step)), c_min, c_max)
        new[q] = pt.switch(compares & pt.isfinite(curvature), q + s * curvature, q)
        new[x] = pt.switch(pt.gt(w, 0), p, x)
        new[p] = p - a0 / (1 + a0 * new[q]) * (g + w * lam * p)
    return new


def _sgd_qn_2009(
    f: Objective, a: Any, penalty: Any, penalties: list[Any], compares: Any, weight: Any, skip: int
) -> Updates:
    """The variant with the flaw, with b = lambda B."""
    rate = a / (1.0 + a * penalty * f.count)
    inverses = [f.full_like(p, "inverse", 1) for p in f.parameters]
    points = [p - a_t * b * g for (p, g, a_t), b in zip(f.each(rate), inverses, strict=True)]
    gradients = _gradients_at(f, points, compares)
    bounds = (pt.constant(np.float64(bound)) for bound in (0.01, 100))
    scalars = rate, weight, 2.0 / (f.count // skip + 1), penalty, *bounds
    new: Updates = {}
    for (p, g, a_t, w, average_weight, unit, b_min, b_max), lam, b, x, g_x in zip(
        f.each(*scalars), penalties, inverses, points, gradients, strict=True
    ):
        # A component that has not moved has the curvature of the penalty alone.
        curvature = lam + ratio(g_x - g, x - p)
        inverse = unit / pt.switch(pt.eq(curvature, 0), unit, curvature)
        next_b = pt.clip(b + average_weight * (inverse - b), b_min, b_max)
        new[b] = pt.switch(compares & pt.isfinite(next_b), next_b, b)
        new[p] = x - w * lam * a_t * new[b] * x
    return new


def _gradients_at(f: Objective, points: list[Any], condition: Any) -> list[Any]:
    """The gradients at `points` on the batch of this call, if `condition` is true; else zeros."""

    def gradients(*points: Any) -> list[Any]:
        return replaced(f.gradients, dict(zip(f.parameters, points, strict=True)))

    return cond(condition & ~f.stopped, gradients, points, [pt.zeros_like(p) for p in f.parameters])


@hinted
def olbfgs(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.1, memory: int = 10,
           regularization: Scalar = 0.0, epsilon: Scalar | None = None, tolerance: Scalar | None = None,
           ascent: bool = False, name: str = "olbfgs") -> Updates:  # fmt: skip
    r"""Online L-BFGS: L-BFGS with step sizes in the place of line searches, and each pair from one batch.

    .. math:: x_{new} = x - a H g, \qquad s = x_{new} - x, \qquad y = g_{new} - g + \lambda s

    with :math:`g` and :math:`g_{new}` the gradients at both points on the batch of this call, and :math:`H` the inverse
    Hessian of L-BFGS from the last `memory` pairs :math:`(s, y)`. The scale of :math:`H` is the mean of
    :math:`s^T y / y^T y` over all pairs, not that of the newest. The first step is :math:`-a \epsilon g`, so short that
    it does no harm.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule
        :math:`a`; 1 is a full quasi-Newton step. With noise it must decrease. In the paper it is ``Power(eta / c,
        tau)``.
    memory : int
        The largest number of pairs.
    regularization : scalar
        :math:`\lambda`; for a cost that is not convex, at least the largest absolute value of a negative curvature. It
        keeps the curvature of the pairs positive, and is not a penalty.
    epsilon : scalar, optional
        :math:`\epsilon`, in units of an inverse second derivative. By default the root of the machine precision, with
        which the difference of gradients has the most correct digits; the paper has 1e-10.

    Returns
    -------
    dict
        Next values of the parameters and of the pairs, and of the count of updates if there is a schedule. If `stop` is
        given, the rule reports ``evaluations``, see `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points.

    Notes
    -----
    Cost per call: two gradients and :math:`6mn` multiplications. Memory: :math:`2m` numbers per parameter component.
    A pair is left out unless :math:`s^T y` is positive.

    References
    ----------
    Schraudolph, Yu and Guenter (2007), A stochastic quasi-Newton method for online convex optimization, section 3.2.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> train = pytensor.function([x, y], cost, updates=optapi.olbfgs([w], cost, step_size=0.2, memory=3))
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 1., -2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    pairs = CompactInverseHessian.begin(f, check_count("memory", memory), "pairs/")
    if epsilon is None:
        epsilon = float(np.sqrt(np.finfo(f.dtype).eps))
    scalars = f.scalar("regularization", regularization, low=0), f.scalar("epsilon", epsilon, low=0)
    a, lam, eps = (as_dtype(s, f.dtype) for s in (f.step_size(step_size), *scalars))

    x, g = f.pack(f.parameters), f.pack(f.gradients)
    count = as_dtype(pt.sum(pt.gt(pairs.curvatures, 0)), f.dtype)
    mean = pt.sum(ratio(pairs.curvatures, pt.diagonal(pairs.products))) / pt.maximum(count, 1)
    d = pairs._replace(scale=pt.switch(pairs.empty, eps, mean)).times(g)
    result = f.at(x - a * d)
    s = result.point - x
    pushed = pairs.push(s, result.gradient - g + lam * s)
    new = dict(zip([*f.parameters, *pairs], [*f.unpack(result.point), *pushed], strict=True))
    return f.finish(new, reports={"evaluations": TWO})


@hinted
def sqn(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.1, memory: int = 10,
        every: int = 10, curvature_cost: Variable | None = None, tolerance: Scalar | None = None, ascent: bool = False,
        name: str = "sqn") -> Updates:  # fmt: skip
    r"""SQN: stochastic L-BFGS with pairs of averaged points and products of the Hessian with their differences.

    .. math:: x \leftarrow x - a H g, \qquad s = \bar x - \bar x', \qquad y = \nabla^2 f(\bar x) s

    where :math:`\bar x` is the mean of the points of the last :math:`L` calls, :math:`\bar x'` that of the :math:`L`
    calls before, and :math:`H` the inverse Hessian of L-BFGS from the last `memory` pairs :math:`(s, y)`. Each
    :math:`L`-th call but the first of them makes a pair; until then :math:`H` is the identity.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. Without `curvature_cost` the cost is needed, and must be twice differentiable; gradients, if
        given, must then be its own.
    step_size : scalar or schedule
        :math:`a`. The paper has :math:`\beta / k` at call :math:`k`, which is ``Power(beta)``.
    memory : int
        The largest number of pairs.
    every : int
        :math:`L`; 10 to 20 in the paper.
    curvature_cost : scalar variable, optional
        The cost whose second derivatives are used: in the paper on a batch of its own, of 300 to 1000 examples, while
        the batches of the gradients have 50 to 300. It is evaluated at each :math:`L`-th call only. By default `cost`.

    Returns
    -------
    dict
        Next values of the parameters, the pairs, the sum and the mean of the points, and the count of updates. If
        `stop` is given, the rule reports ``evaluations`` and ``products``, see `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points.

    Notes
    -----
    Cost per call: one gradient, :math:`6mn` multiplications, and a product with the Hessian at every :math:`L`-th call.
    Memory: :math:`2m + 2` numbers per parameter component. A pair is left out unless :math:`s^T y` is positive.

    References
    ----------
    Byrd, Hansen, Nocedal and Singer (2016), A stochastic quasi-Newton method for large-scale optimization, algorithm 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> train = pytensor.function([x, y], cost, updates=optapi.sqn([w], cost, step_size=0.3, memory=3, every=5))
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 1., -2.])
    """
    needs = curvature_cost is None
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=needs
    )
    pairs = CompactInverseHessian.begin(f, check_count("memory", memory), "pairs/")
    curvature = _with_cost(f, "curvature_cost", curvature_cost)
    x, g = f.pack(f.parameters), f.pack(f.gradients)
    due, makes_pair, previous, mean, new = _averaged(f, x, check_count("every", every))

    a = as_dtype(f.step_size(step_size), f.dtype)
    s = mean - previous
    [y] = cond(makes_pair & ~f.stopped, lambda x, v: [curvature.product(x, v)], [mean, s], [pt.zeros_like(s)])
    new[previous] = pt.switch(due, mean, previous)
    new |= dict(zip(pairs, pairs.push(s, y), strict=True))
    new |= dict(zip(f.parameters, f.unpack(x - a * pairs.times(g)), strict=True))
    return f.finish(new, reports={"evaluations": ONE, "products": makes_pair.astype("int64")})


@hinted
def ada_qn(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.1, memory: int = 10,
           every: int = 20, gradient_memory: int = 100, monitor: Variable | None = None, increase: Scalar = 1.01,
           curvature: Scalar = 1e-4, epsilon: Scalar = 1e-4, tolerance: Scalar | None = None, ascent: bool = False,
           name: str = "ada_qn") -> Updates:  # fmt: skip
    r"""adaQN: stochastic L-BFGS with the initial matrix of AdaGrad, and pairs from the empirical Fisher information.

    .. math::
        x \leftarrow x - a H g, \qquad s = \bar x - \bar x', \qquad
        y = \frac{1}{|F|} \sum_{g_i \in F} g_i g_i^T s

    where :math:`\bar x` is the mean of the points of the last :math:`L` calls, :math:`\bar x'` the mean at the last
    pair, :math:`F` the last `gradient_memory` gradients, and :math:`H` the inverse Hessian of L-BFGS from the last
    `memory` pairs :math:`(s, y)`. Its initial matrix is the diagonal :math:`1/\sqrt{v + \epsilon}` of AdaGrad, with
    :math:`v` the sum of all squared gradients. Each :math:`L`-th call but the first of them makes a pair, unless
    :math:`s^T y \le c \|s\|^2`. If the cost at :math:`\bar x` is larger than `increase` times that at
    :math:`\bar x'`, the parameters are reset to :math:`\bar x'`, and all pairs and gradients are removed.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. Without `monitor` the cost is needed, and gradients, if given, must be its own.
    step_size : scalar or schedule
        :math:`a`.
    memory : int
        The largest number of pairs.
    every : int
        :math:`L`.
    gradient_memory : int
        The largest number of gradients in :math:`F`.
    monitor : scalar variable, optional
        The cost that is compared, in the paper that of a fixed set of examples. It is evaluated, at both means, at
        each :math:`L`-th call only. By default `cost`, on the batch of the call.
    increase : scalar
        At least 1. A negative cost may rise by `increase` - 1 times its absolute value.
    curvature : scalar
        :math:`c`, in units of the squared gradient.
    epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient; above 0.

    Returns
    -------
    dict
        Next values of the parameters, the pairs, the gradients and their number, the sum of squares, the sum and the
        mean of the points, and the count of updates. If `stop` is given, the rule reports ``evaluations``, see
        `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points.

    Notes
    -----
    Cost per call: one gradient and :math:`(m^2 + 6m)n` multiplications; at every :math:`L`-th call the cost at two
    points, which are not counted as evaluations, and two products with the gradients. Memory: :math:`2m + 3` numbers
    per parameter component, and `gradient_memory` more.

    References
    ----------
    Keskar and Berahas (2016), adaQN: an adaptive quasi-Newton algorithm for training RNNs, algorithm 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> train = pytensor.function([x, y], cost, updates=optapi.ada_qn([w], cost, step_size=0.1, memory=3, every=5))
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 1., -2.])
    """
    needs = monitor is None
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=needs
    )
    pairs = CompactInverseHessian.begin(f, check_count("memory", memory), "pairs/")
    fisher = f.state("gradients", (check_count("gradient_memory", gradient_memory), f.size))
    stored = f.state("stored", dtype="int64")
    squares = f.state("sum_of_squares", (f.size,))
    monitored = _with_cost(f, "monitor", monitor)
    allowed = f.scalar("increase", increase, low=1) - 1.0
    scalars = (
        f.step_size(step_size),
        f.scalar("curvature", curvature, low=0),
        f.scalar("epsilon", epsilon, low=float(np.finfo("float64").tiny)),
    )
    a, min_curvature, eps = (as_dtype(s, f.dtype) for s in scalars)

    x, g = f.pack(f.parameters), f.pack(f.gradients)
    due, makes_pair, previous, mean, new = _averaged(f, x, check_count("every", every))
    new[fisher], new[squares] = shifted(fisher, g), squares + g**2
    count = pt.minimum(stored + 1, fisher.type.shape[0])

    def compared(mean: Any, previous: Any) -> list[Any]:
        """The costs at both points, and the product of the Fisher information with their difference."""
        y = times(new[fisher].T, times(new[fisher], mean - previous)) / as_dtype(count, f.dtype)
        return [monitored.at(mean).cost, monitored.at(previous).cost, y]

    s = mean - previous
    zeros = [pt.zeros((), monitored.cost.type.dtype)] * 2
    mean_cost, previous_cost, y = cond(makes_pair & ~f.stopped, compared, [mean, previous], [*zeros, pt.zeros_like(s)])
    bound = previous_cost + as_dtype(allowed, previous_cost.type.dtype) * abs(previous_cost)
    worse = makes_pair & ~(mean_cost <= bound)
    good = makes_pair & ~worse & (dot(s, y) > min_curvature * dot(s, s))

    # In the variables x / r the diagonal is the identity, with r the root of the diagonal.
    r = 1 / pt.sqrt(pt.sqrt(new[squares] + eps))
    steps, changes = pairs.vectors[:memory] / r, pairs.vectors[memory:] * r
    scaled = pairs._replace(
        vectors=pt.concatenate([steps, changes]), products=pt.dot(changes, changes.T), scale=pt.ones_like(pairs.scale)
    )
    x_new = pt.switch(worse, previous, x - a * r * scaled.times(r * g))

    new[previous] = pt.switch((due & ~makes_pair) | good, mean, previous)
    new[fisher] = pt.switch(worse, pt.zeros_like(fisher), new[fisher])
    new[stored] = pt.switch(worse, 0, count)
    pushed = pairs.push(pt.switch(good, s, pt.zeros_like(s)), y).cleared(worse)
    new |= dict(zip([*f.parameters, *pairs], [*f.unpack(x_new), *pushed], strict=True))
    return f.finish(new, reports={"evaluations": ONE})


def _with_cost(f: Objective, argument: str, cost: Any) -> Objective:
    """The objective of another cost of the same parameters; `f` if `cost` is None."""
    if cost is None:
        return f
    return Objective.of(f.parameters, check_cost(cost, argument), ascent=f.ascent, name=f.name)


def _averaged(f: Objective, x: Any, every: int) -> tuple[Any, Any, Any, Any, Updates]:
    """The mean of the points of the last `every` calls, at each `every`-th call.

    Returns
    -------
    boolean scalar variable
        Whether this is an `every`-th call.
    boolean scalar variable
        Whether it is one, and not the first.
    shared vector
        State for the previous mean, of which the caller sets the next value.
    vector variable
        The mean, valid at an `every`-th call.
    dict
        Next values of the rest of the state.
    """
    total = f.state("sum", (f.size,))
    previous = f.state("mean", (f.size,))
    due = pt.eq((f.count + 1) % every, 0)
    next_total = total + x
    mean = next_total / as_dtype(pt.constant(np.float64(every)), f.dtype)
    new: Updates = {total: pt.switch(due, pt.zeros_like(next_total), next_total)}
    return due, due & pt.ge(f.count, every), previous, mean, new
