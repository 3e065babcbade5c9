"""Rules that find their step size: from the distance to the start, or from the lowest cost that is possible."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .. import schedules
from ..checks import check_flag, is_zero
from ..hints import hinted
from ..moments import correction
from ..objective import Objective
from ..typing import Bounds, Mask, Scalar, StepSize, Updates, Variables
from ..vectors import global_norm, inner
from ._linear_algebra import ratio


@hinted
def prodigy(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
            stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1.0,
            mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, distance_weight: Scalar | None = None,
            epsilon: Scalar = 1e-8, initial: Scalar = 1e-6, coefficient: Scalar = 1.0, growth: Scalar | None = None,
            bias_correction: bool = False, safeguard: bool = False, decay: StepSize = 0.0, mask: Mask | None = None,
            bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
            name: str = "prodigy") -> Updates:  # fmt: skip
    r"""Prodigy: Adam whose step size is an estimate of the distance from the start to the minimizer.

    .. math::
        r = \gamma a d, \qquad
        n \leftarrow \beta_3 n + \frac{d}{d_0} r \, g^T (x_0 - x), \qquad
        s \leftarrow \beta_3 s + \frac{d}{d_0} r g, \qquad
        d \leftarrow \max\left(d, \frac{c\, n}{\|s\|_1}\right)

        m \leftarrow \beta_1 m + (1 - \beta_1) d g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) d^2 g^2, \qquad
        x \leftarrow x - r \lambda x - r \frac{m}{\sqrt v + d \epsilon}

    with the estimate :math:`d`, at first :math:`d_0`, which all parameters share and which never falls, and the point
    :math:`x_0` of the first call. The moments and :math:`r` have the :math:`d` before the update. :math:`\gamma` is 1,
    or with `bias_correction` :math:`\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`. Where all gradients have been 0 nothing
    changes.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. All components have one :math:`d`; in a `partition` each group has its own.
    step_size : scalar or schedule
        :math:`a`, a factor without units: 1, or a schedule that falls from 1 to 0.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    distance_weight : scalar, optional
        :math:`\beta_3`, from 0 to below 1; :math:`\sqrt{\beta_2}` by default.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    initial : scalar
        :math:`d_0`, in units of the parameters: far below the distance.
    coefficient : scalar
        :math:`c`: what to tune, if anything.
    growth : scalar, optional
        The largest factor by which :math:`d` grows in an update after the first ones; no limit by default.
    bias_correction : bool
        Whether to correct the moments.
    safeguard : bool
        Whether to have :math:`d` in the place of :math:`r` in :math:`s`; for a step size that rises from 0.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`; :math:`r` scales it.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, moments, sums :math:`s` and starts; of the distance and the largest one so far,
        in units of :math:`d_0`, and of :math:`n`; of the count of updates.

    Notes
    -----
    Cost per call: one gradient and two inner products. Memory: four numbers per parameter component. A multiple of the
    cost changes nothing, but for :math:`\epsilon`.

    References
    ----------
    Mishchenko and Defazio (2024), Prodigy: an expeditiously adaptive parameter-free learner, algorithm 4, with the
    options of the authors' program.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.prodigy([x], cost, step_size=optapi.schedules.Linear(1.0, 300))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    w3 = pt.sqrt(w2) if distance_weight is None else f.scalar("distance_weight", distance_weight, 0, below=1)
    d0, c = f.scalar("initial", initial, low=0), f.scalar("coefficient", coefficient, low=0)
    t, a = f.count + 1, f.step_size(step_size)
    # In units of d0, which may be a variable.
    d, largest, n = f.state("distance", fill=1), f.state("largest_distance", fill=1), f.state("numerator")
    rate = d * d0 * a
    if check_flag("bias_correction", bias_correction):
        rate = rate * pt.sqrt(correction(w2, t)) / correction(w1, t)

    new: Updates = {}
    moments, gained, length = [], pt.constant(0.0), pt.constant(0.0)
    for p, g, size, weight, b3 in f.each(d * d0, d * d * d0 if check_flag("safeguard", safeguard) else d * rate, w3):
        x0, s = f.zeros_like(p, "start"), f.zeros_like(p, "sum")
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new |= {x0: pt.switch(pt.eq(f.count, 0), p, x0), s: b3 * s + weight * g}
        new |= {m: f.average(m, size * g, w1), v: f.average(v, (size * g) ** 2, w2)}
        moments.append((new[m], new[v]))
        gained, length = gained + inner([g], [new[x0] - p]), length + pt.sum(abs(new[s])).astype("float64")
    new[n] = w3 * n + d * rate * gained
    found = ratio(c * new[n], length * d0, length > 0)
    new[largest] = pt.maximum(largest, found)
    next_d = pt.switch(pt.eq(d, 1), pt.maximum(d, found), d)
    new[d] = new[largest] if growth is None else pt.minimum(new[largest], f.scalar("growth", growth, 1) * next_d)
    eps = new[d] * d0 * f.scalar("epsilon", epsilon, low=0)
    for (p, _, r, e), (mean, square) in zip(f.each(rate, eps), moments, strict=True):
        new[p] = p - r * ratio(mean, pt.sqrt(square) + e)
    return f.finish(f.decay(new, decay, mask, step_size=pt.switch(length > 0, rate, 0.0)))


@hinted
def dog(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1.0,
        initial_distance: Scalar | None = None, weighted: bool = False, by_tensor: bool = False,
        epsilon: Scalar = 1e-8, bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
        name: str = "dog") -> Updates:  # fmt: skip
    r"""DoG: the step size is the distance from the start over the root of the sum of squared gradients.

    .. math::
        r \leftarrow \max(r, \|x - x_0\|), \qquad s \leftarrow s + \|g\|^2, \qquad
        x \leftarrow x - a \frac{r}{\sqrt{s + \epsilon}} g

    with the point :math:`x_0` of the first call and norms over all parameters. If `weighted` it is DoWG:
    :math:`s \leftarrow s + r^2 \|g\|^2` and the step size :math:`a r^2 / (\sqrt s + \epsilon)`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, a factor without units.
    initial_distance : scalar, optional
        The first :math:`r`, in units of the parameters, by default :math:`10^{-6} (1 + \|x_0\|)`: the length of the
        first step.
    weighted : bool
        Whether to weight the gradients by the distances.
    by_tensor : bool
        Whether each tensor has its own distance and sum, which is L-DoG.
    epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient; of the gradient times the parameters if `weighted`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside.

    Returns
    -------
    dict
        Next values of the parameters and starts, of the distances and sums, and of the count of updates.

    Notes
    -----
    Cost per call: one gradient and two norms. Memory: one number per parameter component. The point to use is an
    average: see `average`.

    References
    ----------
    Ivgi, Hinder and Carmon (2023), DoG is SGD's best friend: a parameter-free dynamic step size schedule, equation 1;
    Khaled, Mishchenko and Jin (2023), DoWG unleashed, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.dog([x], cost))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    check_flag("weighted", weighted), check_flag("by_tensor", by_tensor)
    a, eps, first = f.step_size(step_size), f.scalar("epsilon", epsilon, low=0), pt.eq(f.count, 0)
    new: Updates = {}
    every = list(zip(f.parameters, f.gradients, strict=True))
    for tensors in [[pair] for pair in every] if by_tensor else [every]:
        one = tensors[0][0] if by_tensor else None
        r, s = f.state("distance", parameter=one), f.state("sum_of_squares", parameter=one)
        x0 = {p: f.zeros_like(p, "start") for p, _ in tensors}
        new |= {start: pt.switch(first, p, start) for p, start in x0.items()}
        size = 1e-6 * (1.0 + global_norm([p for p, _ in tensors])) if initial_distance is None else initial_distance
        begin = f.scalar("initial_distance", size, low=0)
        new[r] = pt.maximum(pt.switch(first, begin, r), global_norm([p - new[x0[p]] for p, _ in tensors]))
        new[s] = s + (global_norm([g for _, g in tensors]) * (new[r] if weighted else 1.0)) ** 2
        rate = ratio(new[r] ** 2, pt.sqrt(new[s]) + eps) if weighted else ratio(new[r], pt.sqrt(new[s] + eps))
        new |= {p: p - (a * rate).astype(p.type.dtype) * g for p, g in tensors}
    return f.finish(new)


@hinted
def polyak_sgd(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
               stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1.0,
               maximum: Scalar = 1.0, lower_bound: Scalar = 0.0, scale: Scalar = 1.0, epsilon: Scalar = 0.0,
               clip: bool = True, momentum: Scalar = 0.0, bounds: Bounds | None = None,
               tolerance: Scalar | None = None, ascent: bool = False, name: str = "polyak_sgd") -> Updates:  # fmt: skip
    r"""Gradient descent with Polyak's step size, from the lowest cost that is possible.

    .. math::
        \gamma = \min\left(\frac{f - f_{low}}{c \|g\|^2 + \epsilon}, \gamma_{max}\right), \qquad
        x \leftarrow x - a \gamma g

    with the norm over all parameters; :math:`\gamma` is 0 where :math:`\|g\|^2` is below the machine precision.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. It needs the cost.
    step_size : scalar or schedule
        :math:`a`, a factor without units.
    maximum : scalar
        :math:`\gamma_{max}`, in the units of the parameters over those of the gradient.
    lower_bound : scalar
        :math:`f_{low}`, in units of the cost that is minimized; under ascent, of the negative cost.
    scale : scalar
        :math:`c`, above 0. The stochastic Polyak step of the paper has 1/2.
    epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient.
    clip : bool
        Whether :math:`f - f_{low}` counts as 0 where it is negative.
    momentum : scalar
        :math:`\mu`, between 0 and 1. With it :math:`b \leftarrow \mu b - a \gamma g` and
        :math:`x \leftarrow x - a \gamma g + \mu b`, as in ALI-G, where :math:`\epsilon` = 1e-5.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters; of the buffers if there is momentum; of the count of updates if there is a
        schedule.

    Raises
    ------
    ValueError
        Also if there is no cost.

    Notes
    -----
    Cost per call: one gradient and the cost. Memory: none, or one number per parameter component with momentum. With
    mini-batches it is for models that can fit each example: else it stalls, or lower the maximum by a schedule.

    References
    ----------
    Polyak (1969), Minimization of unsmooth functionals; Loizou, Vaswani, Laradji and Lacoste-Julien (2021), Stochastic
    Polyak step-size for SGD, equation 2; Berrada, Zisserman and Kumar (2020), Training neural networks for and by
    interpolation, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.polyak_sgd([x], cost))
    >>> for _ in range(30):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    if f.cost is None:
        raise ValueError("polyak_sgd reads the value of the cost; pass cost=, beside gradients if you have them")
    gap = f.cost.astype("float64") - f.scalar("lower_bound", lower_bound)
    gap = pt.maximum(gap, 0.0) if check_flag("clip", clip) else gap
    square, c = global_norm(f.gradients) ** 2, f.scalar("scale", scale, low=np.finfo("float64").tiny)
    gamma = ratio(gap, c * square + f.scalar("epsilon", epsilon, low=0), ~(square < np.finfo(f.dtype).eps))
    rate = f.step_size(step_size) * pt.minimum(gamma, f.scalar("maximum", maximum, low=0))
    new: Updates = {}
    for p, g, a, mu in f.each(rate, f.scalar("momentum", momentum, 0, 1)):
        new[p] = p - a * g
        if not is_zero(momentum):
            b = f.momentum(p, "buffer")
            new[b] = mu * b - a * g
            new[p] = new[p] + mu * new[b]
    return f.finish(new)


@hinted
def momo(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *,
         step_size: StepSize = 1.0, mean_weight: Scalar = 0.9, lower_bound: Scalar = 0.0, decay: StepSize = 0.0,
         bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
         name: str = "momo") -> Updates:  # fmt: skip
    r"""MoMo: momentum with the step size of a model of the cost that is at least a lower bound.

    .. math::
        \bar f \leftarrow \beta \bar f + (1 - \beta) f, \qquad m \leftarrow \beta m + (1 - \beta) g, \qquad
        c \leftarrow \beta c + (1 - \beta) g^T x

        \tau = \frac{\max(\bar f - f_{low} - c + m^T x, 0)}{\|m\|^2}, \qquad x \leftarrow x - \min(a, \tau) m

    where the first averages are the first values. With a decay :math:`\bar f - f_{low} - c` is multiplied by
    :math:`1 + a \lambda`, and :math:`x` is divided by it.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. It needs the cost.
    step_size : scalar or schedule
        :math:`a`, the largest step size.
    mean_weight : scalar
        :math:`\beta`, from 0 to below 1; with 0 it is Polyak's step, see `polyak_sgd`.
    lower_bound : scalar
        :math:`f_{low}`, in units of the cost that is minimized.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see above.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters and means, of the averages :math:`\bar f` and :math:`c`, and of the count of
        updates.

    Raises
    ------
    ValueError
        Also if there is no cost.

    Notes
    -----
    Cost per call: one gradient, the cost and three inner products. Memory: one number per parameter component.

    References
    ----------
    Schaipp, Ohana, Eickenberg, Defazio and Gower (2024), MoMo: momentum models for adaptive learning rates,
    algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.momo([x], cost))
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    if f.cost is None:
        raise ValueError("momo reads the value of the cost; pass cost=, beside gradients if you have them")
    w = pt.switch(pt.eq(f.count, 0), 0.0, f.scalar("mean_weight", mean_weight, 0, below=1))
    a, mean_cost, mean_slope = f.step_size(step_size), f.state("mean_cost"), f.state("mean_slope")
    new: Updates = {mean_cost: w * mean_cost + (1.0 - w) * f.cost.astype("float64")}
    new[mean_slope] = w * mean_slope + (1.0 - w) * inner(f.gradients, f.parameters)
    means = [f.momentum(p, "mean") for p in f.parameters]
    new |= {m: f.average(m, g, w) for m, g in zip(means, f.gradients, strict=True)}
    grown = 1.0 + a * schedules.at("decay", decay, lambda: f.count)
    gap = grown * (new[mean_cost] - f.scalar("lower_bound", lower_bound) - new[mean_slope])
    gap = pt.maximum(gap + inner([new[m] for m in means], f.parameters), 0.0)
    tau = ratio(gap, global_norm([new[m] for m in means]) ** 2)
    for (p, _, rate), m in zip(f.each(pt.minimum(a, tau)), means, strict=True):
        new[p] = p - rate * new[m]
    return f.finish(f.decay(new, decay, step_size=a, form="proximal"))


@hinted
def d_adaptation(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                 stop: Variable | None = None, updates: Updates | None = None, *,
                 step_size: StepSize = 1.0, mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999,
                 epsilon: Scalar = 1e-8, initial: Scalar = 1e-6, decay: StepSize = 0.0, mask: Mask | None = None,
                 bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
                 name: str = "d_adaptation") -> Updates:  # fmt: skip
    r"""D-Adaptation for Adam: the step size grows with a lower bound of the distance to the minimizer.

    .. math::
        r = d a \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}, \qquad
        n \leftarrow \beta n + (1 - \beta) r \, g^T \frac{s}{\sqrt v + \epsilon}, \qquad
        s \leftarrow \beta s + (1 - \beta) r g

        d \leftarrow \max\left(d, \frac{n}{(1 - \beta) \|s\|_1}\right), \qquad
        x \leftarrow x - r \lambda x - \frac{m}{\sqrt v + \epsilon}

    with :math:`\beta = \sqrt{\beta_2}`, the running means :math:`m` of :math:`r g` and :math:`v` of :math:`g^2`, and
    the estimate :math:`d`, which all parameters share and which never falls. In :math:`n` the
    sums :math:`s` and :math:`v` are those before the update. `prodigy` is its successor, and mostly faster.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, a factor without units: 1, or a schedule that falls from 1 to 0.
    mean_weight, mean_square_weight, epsilon
        As in `adam`.
    initial : scalar
        The first :math:`d`, in units of the parameters: far below the distance.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`; :math:`r` scales it.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, moments and sums; of the distance, in units of `initial`, and :math:`n`; of the
        count of updates.

    Notes
    -----
    Cost per call: one gradient and two inner products. Memory: three numbers per parameter component.

    References
    ----------
    Defazio and Mishchenko (2023), Learning-rate-free learning by D-Adaptation, algorithm 5 and the authors' program.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.d_adaptation([x], cost, step_size=optapi.schedules.Linear(1.0, 400))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(400):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    w, d0, t = pt.sqrt(w2), f.scalar("initial", initial, low=0), f.count + 1
    d, n = f.state("distance", fill=1), f.state("numerator")
    rate = d * d0 * f.step_size(step_size) * pt.sqrt(correction(w2, t)) / correction(w1, t)
    new: Updates = {}
    gained, length = pt.constant(0.0), pt.constant(0.0)
    for p, g, r, eps in f.each(rate, f.scalar("epsilon", epsilon, low=0)):
        m, v, s = f.momentum(p, "mean"), f.zeros_like(p, "mean_square"), f.zeros_like(p, "sum")
        gained = gained + inner([g], [ratio(s, pt.sqrt(v) + eps)])
        new |= {m: f.average(m, r * g, w1), v: f.average(v, g**2, w2), s: f.average(s, r * g, w)}
        length = length + pt.sum(abs(new[s])).astype("float64")
        new[p] = p - ratio(new[m], pt.sqrt(new[v]) + eps)
    new[n] = w * n + (1.0 - w) * rate * gained
    new[d] = pt.maximum(d, ratio(new[n], (1.0 - w) * d0 * length))
    return f.finish(f.decay(new, decay, mask, step_size=rate))
