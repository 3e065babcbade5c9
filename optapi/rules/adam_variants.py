"""Variants of Adam and of momentum: other moments, other corrections, and more than one mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from ..checks import check_choice, check_count, check_flag, is_zero
from ..graph.loops import like
from ..graph.replace import replaced
from ..hints import hinted
from ..moments import correction
from ..notes import note
from ..objective import Objective
from ..typing import Bounds, Mask, Scalar, StepSize, Updates, Variables
from ..vectors import norm
from ._linear_algebra import ratio


@hinted
def adabelief(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
              mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-16,
              inner_epsilon: Scalar = 1e-16, decay: StepSize = 0.0,
              mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
              ascent: bool = False, name: str = "adabelief") -> Updates:  # fmt: skip
    r"""AdaBelief: Adam with the mean square of what the mean does not predict in the place of that of the gradient.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        s \leftarrow \beta_2 s + (1 - \beta_2) (g - m)^2 + \epsilon_i, \qquad
        x \leftarrow x - a \lambda x - a \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}

    Where the gradient is steady the steps are large, where it varies they are small. The first step is
    :math:`a / \beta_1`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    inner_epsilon : scalar
        :math:`\epsilon_i`, in units of the squared gradient. It stays in :math:`s`, so that it adds up to
        :math:`\epsilon_i / (1 - \beta_2)`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the mean square and the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component. The small numbers are those of
    optax and of the authors' later advice.

    References
    ----------
    Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris and Duncan (2020), AdaBelief optimizer: adapting stepsizes by
    the belief in observed gradients, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.adabelief([x], cost, step_size=optapi.schedules.Linear(0.1, 300))
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
    a, t = f.step_size(step_size), f.count + 1
    rate, scale = a / correction(w1, t), 1.0 / pt.sqrt(correction(w2, t))
    scalars = f.scalar("epsilon", epsilon, low=0), f.scalar("inner_epsilon", inner_epsilon, low=0)

    new: Updates = {}
    for p, g, a_t, c, eps, inner in f.each(rate, scale, *scalars):
        m, s = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new[m] = f.average(m, g, w1)
        new[s] = f.average(s, (g - new[m]) ** 2, w2) + inner
        new[p] = p - a_t * new[m] / (c * pt.sqrt(new[s]) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def adan(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
         mean_weight: Scalar = 0.98, difference_weight: Scalar = 0.92, mean_square_weight: Scalar = 0.99,
         epsilon: Scalar = 1e-8, decay: StepSize = 0.0, proximal: bool = True,
         mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
         ascent: bool = False, name: str = "adan") -> Updates:  # fmt: skip
    r"""Adan: Adam with Nesterov's momentum, from a running mean of the differences of successive gradients.

    .. math::
        d = g - g_{prev}, \qquad m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        q \leftarrow \beta_2 q + (1 - \beta_2) d, \qquad n \leftarrow \beta_3 n + (1 - \beta_3) (g + \beta_2 d)^2

        u = \frac{m / (1 - \beta_1^t) + \beta_2 q / (1 - \beta_2^t)}{\sqrt{n / (1 - \beta_3^t)} + \epsilon}, \qquad
        x \leftarrow \frac{x - a u}{1 + a \lambda}

    At the first update :math:`d = 0`. With a constant gradient it is `adam`. Without `proximal`
    :math:`x \leftarrow x - a \lambda x - a u`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, difference_weight, mean_square_weight : scalar
        :math:`\beta_1`, :math:`\beta_2` and :math:`\beta_3`, from 0 to below 1; the paper writes :math:`1 - \beta`.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    proximal : bool
        Whether the decay divides the parameters after the step.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the mean difference, the mean square, the gradient and the count of
        updates.

    Notes
    -----
    Cost per call: one gradient. Memory: four numbers per parameter component. optax 0.2.8 has :math:`1 - \beta_2`
    in the two places of the factor :math:`\beta_2`, so its steps differ.

    References
    ----------
    Xie, Zhou, Li, Lin and Yan (2024), Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models,
    algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.adan([x], cost, step_size=optapi.schedules.Linear(0.2, 400))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(400):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    check_flag("proximal", proximal)
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w3 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    w2 = f.scalar("difference_weight", difference_weight, 0, below=1)
    new: Updates = {}
    a, t = f.step_size(step_size), f.count + 1
    corrections = correction(w1, t), correction(w2, t), correction(w3, t)
    for p, g, rate, b2, c1, c2, c3, eps in f.each(a, w2, *corrections, f.scalar("epsilon", epsilon, low=0)):
        m, q = f.momentum(p, "mean"), f.momentum(p, "mean_difference")
        n, last = f.zeros_like(p, "mean_square"), f.zeros_like(p, "gradient")
        d = pt.switch(pt.eq(f.count, 0), pt.zeros_like(g), g - last)
        new |= {last: g, m: f.average(m, g, w1), q: f.average(q, d, w2), n: f.average(n, (g + b2 * d) ** 2, w3)}
        new[p] = p - rate * (new[m] / c1 + b2 * new[q] / c2) / (pt.sqrt(new[n] / c3) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a, form="proximal" if proximal else "beside"))


@hinted
def ademamix(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
             stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
             mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, slow_weight: Scalar = 0.9999,
             slow_share: Scalar = 5.0, warm_up: int | None = None, epsilon: Scalar = 1e-8, decay: StepSize = 0.0,
             mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
             ascent: bool = False, name: str = "ademamix") -> Updates:  # fmt: skip
    r"""AdEMAMix: AdamW with a second, slow running mean, so that old gradients count too.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad l \leftarrow \beta_3 l + (1 - \beta_3) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2

        x \leftarrow x - a \lambda x
        - a \frac{m / (1 - \beta_1^t) + \alpha l}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    The slow mean is not corrected, so it comes in by and by. With `warm_up` :math:`T`,
    :math:`\alpha_t = \alpha \min(t/T, 1)`, and :math:`\beta_3` rises from :math:`\beta_1` so that the half-life of the
    mean grows in a straight line.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    slow_weight : scalar
        :math:`\beta_3`, from 0 to below 1.
    slow_share : scalar
        :math:`\alpha`; with 0 the steps are those of `adamw`.
    warm_up : int, optional
        :math:`T`, in the paper the number of updates of the whole run. Without it long runs may start unstable.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of both means and the mean square and the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: three numbers per parameter component.

    References
    ----------
    Pagliardini, Ablin and Grangier (2025), The AdEMAMix optimizer: better, faster, older, algorithm 1 and the
    schedules of its section 3.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.ademamix([x], cost, step_size=optapi.schedules.Linear(0.1, 400), slow_share=1.0)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(400):
    ...     _ = step()
    >>> x.get_value().round(1)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    w3, alpha = f.scalar("slow_weight", slow_weight, 0, below=1), f.scalar("slow_share", slow_share, low=0)
    new: Updates = {}
    a, t = f.step_size(step_size), f.count + 1
    if warm_up is not None:
        k = pt.minimum(t.astype("float64") / check_count("warm_up", warm_up), 1.0)
        # A weight of 0 has no half-life.
        l1, l3 = (pt.log(pt.maximum(w, np.float64(1e-300))) for w in (w1, w3))
        alpha, w3 = k * alpha, pt.minimum(w3, pt.exp(l1 * l3 / ((1.0 - k) * l3 + k * l1)))
    scalars = a, correction(w1, t), correction(w2, t), alpha, f.scalar("epsilon", epsilon, low=0)
    for p, g, rate, c1, c2, share, eps in f.each(*scalars):
        m, slow, v = f.momentum(p, "mean"), f.momentum(p, "slow_mean"), f.zeros_like(p, "mean_square")
        new |= {m: f.average(m, g, w1), slow: f.average(slow, g, w3), v: f.average(v, g**2, w2)}
        new[p] = p - rate * (new[m] / c1 + share * new[slow]) / (pt.sqrt(new[v] / c2) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def adopt(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
          mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.9999, epsilon: Scalar = 1e-6, clip: bool = True,
          clip_first: int = 1, decay: StepSize = 0.0,
          mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
          ascent: bool = False, name: str = "adopt") -> Updates:  # fmt: skip
    r"""ADOPT: Adam that divides a gradient by the mean square of those before it, so that it converges for any weights.

    .. math::
        n = \frac{g}{\max(\sqrt v, \epsilon)}, \qquad m \leftarrow \beta_1 m + (1 - \beta_1) n, \qquad
        x \leftarrow x - a \lambda x - a m, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2

    The first update moves nothing: it sets :math:`v = g^2`. With `clip`, :math:`n` is clipped to
    :math:`\pm k^{1/4}`, where :math:`k` = 1, 2, ... counts the moves.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    clip : bool
        Whether to clip, which the authors' later program does.
    clip_first : int
        The first :math:`k`. The authors and optax have 1, pytorch_optimizer 2.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the mean square and the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component.

    References
    ----------
    Taniguchi, Harada, Minegishi, Oshima, Jeong, Nagahara, Iiyama, Suzuki, Iwasawa and Matsuo (2024), ADOPT: modified
    Adam can converge with any beta2 with the optimal rate, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.adopt([x], cost, step_size=optapi.schedules.Linear(0.1, 300))
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
    first = pt.eq(f.count, 0)
    check_flag("clip", clip)
    limit = (pt.maximum(f.count, 1) - 1 + check_count("clip_first", clip_first)).astype("float64") ** 0.25
    a = pt.switch(first, 0.0, f.step_size(step_size))
    new: Updates = {}
    for p, g, rate, top, eps in f.each(a, limit, f.scalar("epsilon", epsilon, low=0)):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        n = g / pt.maximum(pt.sqrt(pt.switch(first, g**2, v)), eps)
        if clip:
            n = pt.minimum(pt.maximum(n, -top), top)
        new[m] = pt.switch(first, pt.zeros_like(m), f.average(m, n, w1))
        new[v] = pt.switch(first, g**2, f.average(v, g**2, w2))
        new[p] = p - rate * new[m]
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def mars(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 3e-3,
         mean_weight: Scalar = 0.95, mean_square_weight: Scalar = 0.99, strength: Scalar = 0.025,
         base: str = "adamw", second_gradient: bool = False, epsilon: Scalar = 1e-8, decay: StepSize = 0.0,
         mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
         ascent: bool = False, name: str = "mars") -> Updates:  # fmt: skip
    r"""MARS: gradients of less variance, corrected by their change since the last update, for AdamW or Lion.

    .. math::
        c = g + \gamma \frac{\beta_1}{1 - \beta_1} (g - g_{old}), \qquad
        c \leftarrow \frac{c}{\max(1, \|c\|)}, \qquad m \leftarrow \beta_1 m + (1 - \beta_1) c

    and then the step of `adamw` with :math:`c` in the place of the gradient, or with `base="lion"`
    :math:`x \leftarrow x - a \lambda x - a \, \mathrm{sgn}\, m`. The norm is that of one tensor. If `second_gradient`,
    :math:`g_{old}` is the gradient of this call's batch at the point before, else that of the last call; at the first
    update it is 0.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    strength : scalar
        :math:`\gamma`; with 0, and gradients of norms up to 1, the steps are those of `adamw`.
    base : str
        "adamw" or "lion".
    second_gradient : bool
        Whether to take the second gradient.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the mean square (not with "lion"), the last gradient or point, and
        the count of updates.

    Raises
    ------
    ValueError
        Also with `second_gradient`, and the gradients that are given do not depend on the parameters.

    Notes
    -----
    Cost per call: one gradient, two with `second_gradient`. Memory: three numbers per parameter component, two with
    "lion". The authors have plain AdamW for vectors: see `partition`. The limit of 1 for norms means that the scale of
    the cost counts.

    References
    ----------
    Yuan, Liu, Wu, Zhou and Gu (2024), MARS: unleashing the power of variance reduction for training large models,
    algorithms 2 and 3.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.mars([x], cost, step_size=optapi.schedules.Linear(0.1, 300))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds)  # fmt: skip
    check_choice("base", base, ("adamw", "lion"))
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    t, a = f.count + 1, f.step_size(step_size)
    boost, rate = f.scalar("strength", strength, low=0) * w1 / (1.0 - w1), a / correction(w1, t)
    role = "point" if check_flag("second_gradient", second_gradient) else "gradient"
    kept = [f.zeros_like(p, role) for p in f.parameters]
    scalars = a if base == "lion" else rate, boost, correction(w2, t), f.scalar("epsilon", epsilon, low=0)
    new: Updates = {last: p if second_gradient else g for (p, g), last in zip(f.each(), kept, strict=True)}
    there = _there(f, kept) if second_gradient else kept
    for (p, g, rate, gamma, c2, eps), old in zip(f.each(*scalars), there, strict=True):
        c = g + gamma * (g - pt.switch(pt.eq(f.count, 0), pt.zeros_like(g), old))
        c = c / pt.maximum(norm(c), np.ones((), p.type.dtype))
        m, v = f.momentum(p, "mean"), None if base == "lion" else f.zeros_like(p, "mean_square")
        new[m] = f.average(m, c, w1)
        if v is not None:
            new[v] = f.average(v, c**2, w2)
        new[p] = p - rate * (pt.sign(new[m]) if v is None else new[m] / (pt.sqrt(new[v] / c2) + eps))
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def yogi(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
         mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-3,
         initial: Scalar = 1e-6, decay: StepSize = 0.0,
         mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
         ascent: bool = False, name: str = "yogi") -> Updates:  # fmt: skip
    r"""Yogi: Adam with a mean square that changes by a sum, so that it falls slowly.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow v - (1 - \beta_2) \, \mathrm{sgn}(v - g^2) \, g^2, \qquad
        x \leftarrow x - a \lambda x - a \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    A gradient changes :math:`v` by at most :math:`(1 - \beta_2) g^2`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    initial : scalar
        The first :math:`v`, in units of the squared gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the mean square and the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component. optax also starts the mean at `initial`,
    so its first steps differ.

    References
    ----------
    Zaheer, Reddi, Sachan, Kale and Kumar (2018), Adaptive methods for nonconvex optimization, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.yogi([x], cost, step_size=optapi.schedules.Linear(0.1, 300))
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
    a, t = f.step_size(step_size), f.count + 1
    rate, scale, fresh = a / correction(w1, t), 1.0 / pt.sqrt(correction(w2, t)), 1.0 - w2

    new: Updates = {}
    scalars = rate, scale, fresh, f.scalar("initial", initial, low=0), f.scalar("epsilon", epsilon, low=0)
    for p, g, a_t, c, one, v0, eps in f.each(*scalars):
        m, last = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        v = pt.switch(pt.eq(f.count, 0), v0, last)
        new[m] = f.average(m, g, w1)
        new[last] = v - one * pt.sign(v - g**2) * g**2
        new[p] = p - a_t * new[m] / (c * pt.sqrt(new[last]) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def laprop(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 4e-4,
           mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-15,
           decay: StepSize = 0.0,
           mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
           ascent: bool = False, name: str = "laprop") -> Updates:  # fmt: skip
    r"""LaProp: Adam with a mean of the quotients in the place of the quotient of the mean.

    .. math::
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
        m \leftarrow \beta_1 m + (1 - \beta_1) \frac{g}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}, \qquad
        x \leftarrow (1 - a \lambda) \left(x - a \frac{m}{1 - \beta_1^t}\right)

    So each gradient is divided by what was known at its own time.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1; they may be chosen apart.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the mean square and the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component.

    References
    ----------
    Ziyin, Wang and Ueda (2020), LaProp: separating momentum and adaptivity in Adam, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.laprop([x], cost, step_size=optapi.schedules.Linear(0.1, 300))
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
    a, t = f.step_size(step_size), f.count + 1
    rate, scale = a / correction(w1, t), correction(w2, t)

    new: Updates = {}
    for p, g, a_t, c, eps in f.each(rate, scale, f.scalar("epsilon", epsilon, low=0)):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new[v] = f.average(v, g**2, w2)
        new[m] = f.average(m, g / (pt.sqrt(new[v] / c) + eps), w1)
        new[p] = p - a_t * new[m]
    return f.finish(f.decay(new, decay, mask, step_size=a, form="after"))


@hinted
def qhm(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *,
        step_size: StepSize = 1e-2, mean_weight: Scalar = 0.999, share: Scalar = 0.7, decay: StepSize = 0.0,
        mask: Mask | None = None,
        bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
        name: str = "qhm") -> Updates:  # fmt: skip
    r"""Quasi-hyperbolic momentum: a mix of the gradient and its running mean.

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \qquad x \leftarrow x - a \lambda x - a ((1 - \nu) g + \nu m)

    With :math:`\nu` = 0 it is gradient descent, with :math:`\nu = \beta` Nesterov's momentum, with 1 averaged momentum.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight : scalar
        :math:`\beta`, from 0 to below 1.
    share : scalar
        :math:`\nu`, from 0 to 1.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters and means, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component.

    References
    ----------
    Ma and Yarats (2019), Quasi-hyperbolic momentum and Adam for deep learning, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.qhm([x], cost, step_size=0.1, mean_weight=0.9))
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w, a = f.scalar("mean_weight", mean_weight, 0, below=1), f.step_size(step_size)
    new: Updates = {}
    for p, g, a_t, nu in f.each(a, f.scalar("share", share, 0, 1)):
        m = f.momentum(p, "mean")
        new[m] = f.average(m, g, w)
        new[p] = p - a_t * ((1 - nu) * g + nu * new[m])
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def qhadam(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *,
           step_size: StepSize = 1e-3, mean_weight: Scalar = 0.995, mean_square_weight: Scalar = 0.999,
           share: Scalar = 0.7, square_share: Scalar = 1.0, epsilon: Scalar = 1e-8, decay: StepSize = 0.0,
           mask: Mask | None = None,
           bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
           name: str = "qhadam") -> Updates:  # fmt: skip
    r"""QHAdam: Adam with mixes of the gradient and its moments in the place of the moments.

    .. math::
        x \leftarrow x - a \lambda x
        - a \frac{(1 - \nu_1) g + \nu_1 \hat m}{\sqrt{(1 - \nu_2) g^2 + \nu_2 \hat v} + \epsilon}

    with Adam's corrected moments :math:`\hat m` and :math:`\hat v`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight, epsilon
        As in `adam`; the defaults are those of the paper.
    share, square_share : scalar
        :math:`\nu_1` and :math:`\nu_2`, from 0 to 1; with 1 it is `adam`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of both moments and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component. pytorch_optimizer 3.8 has another mean
    square, which adds :math:`1 - \beta_2 g^2`.

    References
    ----------
    Ma and Yarats (2019), Quasi-hyperbolic momentum and Adam for deep learning, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.qhadam([x], cost, step_size=optapi.schedules.Linear(0.1, 300), mean_weight=0.9)
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
    a, t = f.step_size(step_size), f.count + 1
    scalars = f.scalar("share", share, 0, 1), f.scalar("square_share", square_share, 0, 1)
    new: Updates = {}
    for p, g, a_t, c1, c2, nu1, nu2, eps in f.each(
        a, correction(w1, t), correction(w2, t), *scalars, f.scalar("epsilon", epsilon, low=0)
    ):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new |= {m: f.average(m, g, w1), v: f.average(v, g**2, w2)}
        root = pt.sqrt((1 - nu2) * g**2 + nu2 * (new[v] / c2))
        new[p] = p - a_t * ((1 - nu1) * g + nu1 * (new[m] / c1)) / (root + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def aggmo(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *,
          step_size: StepSize = 1e-2, momenta: Sequence[Scalar] = (0.0, 0.9, 0.99), decay: StepSize = 0.0,
          mask: Mask | None = None,
          bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
          name: str = "aggmo") -> Updates:  # fmt: skip
    r"""AggMo: the mean of several heavy balls, slow and fast ones, which damps the oscillations of each.

    .. math:: b_k \leftarrow \mu_k b_k + g, \qquad x \leftarrow x - a \lambda x - \frac{a}{K} \sum_k b_k

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momenta : list or tuple of scalars
        The :math:`\mu_k`, each from 0 to 1. One alone is momentum, as in `sgd`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters and buffers, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: a number per parameter component for each momentum above 0.

    References
    ----------
    Lucas, Sun, Zemel and Grosse (2019), Aggregated momentum: stability through passive damping, equation 3.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.aggmo([x], cost, step_size=0.05))
    >>> for _ in range(400):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    if not isinstance(momenta, list | tuple) or not momenta:
        raise TypeError("momenta has to be a list or tuple of at least one scalar; pass for instance (0.0, 0.9, 0.99)")
    weights = [f.scalar(f"momenta[{k}]", mu, 0, 1) for k, mu in enumerate(momenta)]
    a, share = f.step_size(step_size), np.float64(1 / len(momenta))
    new: Updates = {}
    for p, g, a_t, *mus in f.each(a * share, *weights):
        total = pt.zeros_like(g)
        for k, mu in enumerate(mus):
            if is_zero(momenta[k]):
                total = total + g
            else:
                b = f.momentum(p, f"buffer{k}")
                new[b] = mu * b + g
                total = total + new[b]
        new[p] = p - a_t * total
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def madgrad(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
            stop: Variable | None = None, updates: Updates | None = None, *,
            step_size: StepSize = 1e-2, momentum: Scalar = 0.9, epsilon: Scalar = 1e-6,
            bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
            name: str = "madgrad") -> Updates:  # fmt: skip
    r"""MADGRAD: dual averaging with cube roots of the sums of squares, and momentum by averaging points.

    .. math::
        l_t = (a + \epsilon) \sqrt t, \qquad s \leftarrow s + l_t g, \qquad v \leftarrow v + l_t g^2, \qquad
        x \leftarrow \mu x + (1 - \mu) \left(x_0 - \frac{s}{\sqrt[3]{v} + \epsilon}\right)

    with the point :math:`x_0` of the first call. The scale of the cost counts: tune the step size anew.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momentum : scalar
        :math:`\mu`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the cube root of :math:`v`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, sums, sums of squares and starts, and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: three numbers per parameter component. A decoupled decay makes no sense in dual
    averaging; add a penalty to the cost.

    References
    ----------
    Defazio and Jelassi (2022), Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient method,
    algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.madgrad([x], cost, step_size=0.1))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    mu, small = f.scalar("momentum", momentum, 0, below=1), f.scalar("epsilon", epsilon, low=0)
    rate = (f.step_size(step_size) + small) * pt.sqrt((f.count + 1).astype("float64"))
    new: Updates = {}
    for p, g, l_t, w, fresh, third, eps in f.each(rate, mu, 1.0 - mu, pt.constant(np.float64(1 / 3)), small):
        s, v, start = f.zeros_like(p, "sum"), f.zeros_like(p, "sum_of_squares"), f.zeros_like(p, "start")
        new |= {s: s + l_t * g, v: v + l_t * g**2, start: pt.switch(pt.eq(f.count, 0), p, start)}
        new[p] = w * p + fresh * (new[start] - ratio(new[s], new[v] ** third + eps))
    return f.finish(new)


def _there(f: Objective, points: list[Any]) -> list[Any]:
    """The gradients of this call at other `points`, as many as parameters."""
    if f.cost is not None and note(f.cost, "partial"):
        raise ValueError(
            f"{f.name} has second_gradient=True, at a point where the other groups have been elsewhere too; call it by "
            "itself on these parameters"
        )
    if not set(ancestors(f.gradients)).intersection(f.parameters):
        raise ValueError(
            "gradients do not depend on the parameters, so they are not known at the point before; pass cost= alone, "
            "or second_gradient=False"
        )
    return replaced(f.gradients, {p: like(point, p) for p, point in zip(f.parameters, points, strict=True)})
