"""Rules for large batches: a step for each tensor that is a fraction of its norm."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .. import schedules
from ..checks import as_dtype, check_flag, check_mask, is_zero, scalar
from ..hints import hinted
from ..moments import correction
from ..objective import Objective
from ..typing import Bounds, Mask, Scalar, StepSize, Tensor, Updates, Variables
from ..vectors import norm


@hinted
def lamb(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
         mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-6, decay: StepSize = 0.0,
         mask: Mask | None = None, adapt: Mask | None = None, clip: Scalar | None = None, bounds: Bounds | None = None,
         tolerance: Scalar | None = None, ascent: bool = False, name: str = "lamb") -> Updates:  # fmt: skip
    r"""LAMB: the step of AdamW, scaled for each tensor to the norm of the tensor.

    .. math::
        u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda x, \qquad
        x \leftarrow x - a \frac{\|x\|}{\|u\|} u

    with the moments :math:`m` and :math:`v` of `adam`. The norms are those of one tensor. If one of them is 0, the
    ratio is 1.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the change of a tensor in an update, as a fraction of its norm.
    mean_weight, mean_square_weight, epsilon
        As in `adam`.
    decay : scalar or schedule
        :math:`\lambda`. It is inside of the ratio.
    mask : list of bool, or callable, optional
        Which parameters decay, as in `adamw`.
    adapt : list of bool, or callable, optional
        Which parameters have the ratio, all by default; it is 1 for the others. Often the biases are left out, with
        ``lambda p: p.ndim > 1``.
    clip : scalar, optional
        The largest :math:`\|x\|` that counts. None by default; the authors' program has 10.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of both moments and of the count of updates.

    Notes
    -----
    Cost per call: one gradient and two norms. Memory: two numbers per parameter component.

    A tensor at exactly 0 moves with a ratio of 1, and one near 0 by a fraction of its small norm: it stays there. Start
    biases at 0, or leave them out of `adapt`.

    References
    ----------
    You, Li, Reddi, Hseu, Kumar, Bhojanapalli, Song, Demmel, Keutzer and Hsieh (2020), Large batch optimization for deep
    learning: training BERT in 76 minutes, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.lamb([x], cost, step_size=optapi.schedules.Linear(0.05, 300))
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
    decays, adapts = check_mask(mask, f.parameters), check_mask(adapt, f.parameters, "adapt")
    shrink, t, new = schedules.at("decay", decay, lambda: f.count), f.count + 1, {}
    scalars = f.step_size(step_size), correction(w1, t), correction(w2, t), f.scalar("epsilon", epsilon, low=0), shrink
    for (p, g, a, c1, c2, eps, k), decay_it, adapt_it in zip(f.each(*scalars), decays, adapts, strict=True):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new[m] = f.average(m, g, w1)
        new[v] = f.average(v, g**2, w2)
        u = (new[m] / c1) / (pt.sqrt(new[v] / c2) + eps)
        if decay_it and not is_zero(decay):
            u = u + k * p
        new[p] = p - a * (_trust_ratio(p, u, clip) * u if adapt_it else u)
    return f.finish(new)


@hinted
def lars(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1.0,
         trust: Scalar = 1e-3, momentum: Scalar = 0.9, nesterov: bool = False, epsilon: Scalar = 0.0,
         decay: StepSize = 0.0, mask: Mask | None = None, adapt: Mask | None = None, bounds: Bounds | None = None,
         tolerance: Scalar | None = None, ascent: bool = False, name: str = "lars") -> Updates:  # fmt: skip
    r"""LARS: momentum of gradients that are scaled for each tensor to a fraction of its norm.

    .. math::
        u = g + \lambda x, \qquad b \leftarrow \mu b + a \eta \frac{\|x\|}{\|u\| + \epsilon} u, \qquad
        x \leftarrow x - b

    The norms are those of one tensor. If one of them is 0, the factor :math:`\eta \|x\| / (\|u\| + \epsilon)` is 1.
    With `nesterov` the parameters hold the lookahead point, as in `optapi.nesterov`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`. Each gradient keeps the step size of its own update, as in `optapi.momentum`.
    trust : scalar
        :math:`\eta`: the first change of a tensor is :math:`a \eta` times its norm.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    nesterov : bool
        Whether to use Nesterov's momentum.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    decay : scalar or schedule
        :math:`\lambda`, of a penalty: it is inside of the ratio and of the momentum.
    mask : list of bool, or callable, optional
        Which parameters decay, as in `adamw`.
    adapt : list of bool, or callable, optional
        Which parameters have the ratio, as in `lamb`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters; of the buffers if there is momentum; of the count of updates if there is a
        schedule.

    Notes
    -----
    Cost per call: one gradient and two norms. Memory: one number per parameter component. The denominator is that of
    optax; the paper has :math:`\|g\| + \lambda \|x\|`.

    References
    ----------
    You, Gitman and Ginsburg (2017), Large batch training of convolutional networks, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.lars([x], cost, step_size=optapi.schedules.Linear(0.02, 300), trust=1.0, momentum=0.5)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    check_flag("nesterov", nesterov)
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    decays, adapts, new = check_mask(mask, f.parameters), check_mask(adapt, f.parameters, "adapt"), {}
    scalars = f.step_size(step_size), f.scalar("trust", trust, low=0), f.scalar("momentum", momentum, 0, 1)
    shrink, epsilon = schedules.at("decay", decay, lambda: f.count), f.scalar("epsilon", epsilon, low=0)
    for (p, g, a, eta, mu, k), decay_it, adapt_it in zip(f.each(*scalars, shrink), decays, adapts, strict=True):
        u = g + k * p if decay_it and not is_zero(decay) else g
        u = a * (_trust_ratio(p, u, factor=eta, epsilon=epsilon) * u if adapt_it else u)
        if is_zero(momentum):
            new[p] = p - u
        else:
            b = f.momentum(p, "buffer")
            new[b] = mu * b + u
            new[p] = p - (u + mu * new[b] if nesterov else new[b])
    return f.finish(new)


@hinted
def novograd(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
             stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
             mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.25, epsilon: Scalar = 1e-6,
             decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None,
             tolerance: Scalar | None = None, ascent: bool = False, name: str = "novograd") -> Updates:  # fmt: skip
    r"""NovoGrad: momentum of gradients that are divided by the running norm of their tensor.

    .. math::
        v \leftarrow \beta_2 v + (1 - \beta_2) \|g\|^2, \qquad
        m \leftarrow \beta_1 m + \frac{g}{\sqrt v + \epsilon} + \lambda x, \qquad x \leftarrow x - a m

    The first :math:`v` is :math:`\|g\|^2`. The norm is that of one tensor, so there is one :math:`v` for each.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`: the first change of a tensor has this norm.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1. The mean is a sum: a constant gradient moves a tensor by
        :math:`a / (1 - \beta_1)`.
    mean_square_weight : scalar
        :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the norm of the gradient.
    decay : scalar or schedule
        :math:`\lambda`. It is inside of the momentum.
    mask : list of bool, or callable, optional
        Which parameters decay, as in `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the means and norms and of the count of updates.

    Notes
    -----
    Cost per call: one gradient and a norm. Memory: one number per parameter component, and one per tensor.

    References
    ----------
    Ginsburg, Castonguay, Hrinchuk, Kuchaiev, Lavrukhin, Leary, Li, Nguyen, Zhang and Cohen (2019), Stochastic gradient
    methods with layer-wise adaptive moments for training of deep networks, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.novograd([x], cost, step_size=optapi.schedules.Linear(0.02, 300))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    scalars = f.scalar("mean_weight", mean_weight, 0, below=1), f.scalar("epsilon", epsilon, low=0)
    decays, shrink = check_mask(mask, f.parameters), schedules.at("decay", decay, lambda: f.count)
    first, new = pt.eq(f.count, 0), {}
    for (p, g, a, b1, eps, k), decay_it in zip(f.each(f.step_size(step_size), *scalars, shrink), decays, strict=True):
        m, v = f.momentum(p, "mean"), f.state("mean_square", parameter=p)
        square = norm(g) ** 2
        new[v] = pt.switch(first, square, f.average(v, square, w2))
        u = g / (pt.sqrt(new[v]) + eps)
        if decay_it and not is_zero(decay):
            u = u + k * p
        new[m] = b1 * m + u
        new[p] = p - a * new[m]
    return f.finish(new)


def _trust_ratio(
    parameter: Any, step: Tensor, clip: Scalar | None = None, factor: Any = None, epsilon: Any = None
) -> Any:
    """The norm of `parameter` over that of `step`, times `factor`; 1 if one of the norms is 0."""
    size, distance = norm(parameter), norm(step)
    top = size if clip is None else pt.minimum(size, as_dtype(scalar("clip", clip, low=0), parameter.type.dtype))
    top = top if factor is None else factor * top
    bottom = distance if epsilon is None else distance + as_dtype(epsilon, parameter.type.dtype)
    usual = (size > 0) & (distance > 0)
    # The denominator is replaced too, so that no undefined quotient is computed.
    return pt.switch(usual, top / pt.switch(usual, bottom, pt.ones_like(bottom)), pt.ones_like(top))
