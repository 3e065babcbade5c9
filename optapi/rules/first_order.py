"""First-order rules: gradient descent with momentum and with adaptive steps."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import check_flag, is_zero
from ..hints import hinted
from ..moments import correction
from ..objective import Objective
from ..typing import Bounds, Mask, Prox, Scalar, StepSize, Updates, Variables
from ..vectors import root_mean_square


def _below(prox: Prox | None) -> float:
    """What a momentum is less than: with a penalty, which acts with the sum of all later steps, it is not 1."""
    return np.inf if prox is None else 1


@hinted
def sgd(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
        momentum: Scalar = 0.0, dampening: Scalar = 0.0, nesterov: bool = False, decay: StepSize = 0.0,
        mask: Mask | None = None, bounds: Bounds | None = None, prox: Prox | None = None,
        tolerance: Scalar | None = None, ascent: bool = False, name: str = "sgd") -> Updates:  # fmt: skip
    r"""Stochastic gradient descent, with momentum and annealing.

    .. math:: x \leftarrow x - a g

    With `momentum` :math:`\mu` and `dampening` :math:`\tau` a buffer :math:`b` takes the place of the gradient:

    .. math:: b \leftarrow \mu b + (1 - \tau) g, \qquad x \leftarrow x - a b

    At the first update :math:`b = g`, also with dampening. With `nesterov`,
    :math:`x \leftarrow x - a (g + \mu b)`. The whole buffer is scaled by the present step size; in `momentum` each
    gradient keeps the step size of its own update. Without a schedule the two rules agree.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`; a schedule anneals it.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    dampening : scalar
        :math:`\tau`, between 0 and 1.
    nesterov : bool
        Whether to use Nesterov's momentum; needs a momentum above 0 and a dampening of 0.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `proximal_gradient`. After a step :math:`x` becomes
        :math:`\operatorname{prox}_{a h}(x)`, which is FOBOS. With bounds too the penalty has to be separable.

    Returns
    -------
    dict
        Next values of the parameters; of the buffers if there is momentum; of the count of updates if there is a
        schedule or dampening.

    Notes
    -----
    Cost per call: one gradient. Memory: none, or one number per parameter component with momentum.

    References
    ----------
    Robbins and Monro (1951), A stochastic approximation method; Polyak (1964), Some methods of speeding up the
    convergence of iteration methods; Sutskever, Martens, Dahl and Hinton (2013), On the importance of initialization
    and momentum in deep learning, equations 3 and 4, in the form of Bengio, Boulanger-Lewandowski and Pascanu (2012).

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.sgd([x], cost, step_size=0.1, momentum=0.5))
    >>> for _ in range(60):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    check_flag("nesterov", nesterov)
    if is_zero(momentum) and (nesterov or not is_zero(dampening)):
        raise ValueError("nesterov and dampening need a momentum above 0")
    if nesterov and not is_zero(dampening):
        raise ValueError("nesterov needs a dampening of 0")
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    weight = 1.0 - f.scalar("dampening", dampening, 0, 1)
    weight = weight if is_zero(dampening) else pt.switch(pt.eq(f.count, 0), 1.0, weight)

    rate, new = f.step_size(step_size), {}
    for p, g, a, mu, w in f.each(rate, f.scalar("momentum", momentum, 0, 1, below=_below(prox)), weight):
        if is_zero(momentum):
            new[p] = p - a * g
        else:
            b = f.momentum(p, "buffer")
            new[b] = mu * b + w * g
            new[p] = p - a * (g + mu * new[b] if nesterov else new[b])
            # A gradient counts in all later steps too.
            a = a * (1 + mu * w / (1 - mu) if nesterov else w / (1 - mu))
        f.metric(p, a)
    return f.finish(f.decay(new, decay, mask, step_size=rate))


@hinted
def momentum(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
             stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
             momentum: Scalar = 0.9, decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None,
             prox: Prox | None = None, tolerance: Scalar | None = None, ascent: bool = False,
             name: str = "momentum") -> Updates:  # fmt: skip
    r"""Gradient descent with classical momentum, the heavy ball.

    .. math:: v \leftarrow \mu v - a g, \qquad x \leftarrow x + v

    In the velocity :math:`v` each gradient keeps the step size of its own update; in `sgd` the present step size scales
    all of them. Without a schedule the two rules agree.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`.

    Returns
    -------
    dict
        Next values of the parameters and velocities, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component.

    References
    ----------
    Polyak (1964), Some methods of speeding up the convergence of iteration methods; Sutskever, Martens, Dahl and Hinton
    (2013), On the importance of initialization and momentum in deep learning, equations 1 and 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.momentum([x], cost, step_size=0.05))
    >>> for _ in range(150):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    rate, new = f.step_size(step_size), {}
    for p, g, a, mu in f.each(rate, f.scalar("momentum", momentum, 0, 1, below=_below(prox))):
        v = f.momentum(p, "velocity")
        new[v] = mu * v - a * g
        new[p] = p + new[v]
        f.metric(p, a / (1 - mu))
    return f.finish(f.decay(new, decay, mask, step_size=rate))


@hinted
def nesterov(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
             stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
             momentum: Scalar = 0.9, decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None,
             prox: Prox | None = None, tolerance: Scalar | None = None, ascent: bool = False,
             name: str = "nesterov") -> Updates:  # fmt: skip
    r"""Gradient descent with Nesterov's momentum: the gradient is that at the lookahead point.

    .. math:: v \leftarrow \mu v - a g, \qquad x \leftarrow x + \mu v - a g

    The parameters hold the lookahead point, :math:`x = y + \mu v`, where :math:`y` is the point that the velocity
    :math:`v` moves. So a call needs the gradient only at :math:`x`. In the velocity each gradient keeps the step size
    of its own update; in `sgd` with `nesterov` the present step size scales all of them. Without a schedule the two
    rules agree.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momentum : scalar
        :math:`\mu`, between 0 and 1. It must be the same at all updates, because :math:`x` looks ahead by that of the
        next one.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`.

    Returns
    -------
    dict
        Next values of the parameters and velocities, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component.

    References
    ----------
    Nesterov (1983), A method of solving a convex programming problem with convergence rate O(1/k^2); Sutskever,
    Martens, Dahl and Hinton (2013), On the importance of initialization and momentum in deep learning, equations 3 and
    4, in the variables of Bengio, Boulanger-Lewandowski and Pascanu (2012), Advances in optimizing recurrent networks.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.nesterov([x], cost, step_size=0.05))
    >>> for _ in range(100):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1.    , 1.9999])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    rate, new = f.step_size(step_size), {}
    for p, g, a, mu in f.each(rate, f.scalar("momentum", momentum, 0, 1, below=_below(prox))):
        v = f.momentum(p, "velocity")
        new[v] = mu * v - a * g
        new[p] = p + mu * new[v] - a * g
        f.metric(p, a / (1 - mu))
    return f.finish(f.decay(new, decay, mask, step_size=rate))


@hinted
def adagrad(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
            stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
            epsilon: Scalar = 1e-10, initial: Scalar = 0.0, bounds: Bounds | None = None, prox: Prox | None = None,
            tolerance: Scalar | None = None, ascent: bool = False, name: str = "adagrad") -> Updates:  # fmt: skip
    r"""AdaGrad: the steps of each component shrink with the sum of its squared gradients.

    .. math:: s \leftarrow s + g^2, \qquad x \leftarrow x - a \frac{g}{\sqrt{s_0 + s} + \epsilon}

    With a constant gradient the step at update :math:`t` is :math:`a / \sqrt t`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the largest change of a component in an update.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    initial : scalar
        :math:`s_0`, the initial value of the sum, in units of the squared gradient; it makes the first steps smaller.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters and of the sums, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component. The defaults are those of PyTorch.

    References
    ----------
    Duchi, Hazan and Singer (2011), Adaptive subgradient methods for online learning and stochastic optimization, figure
    1 with diagonal matrices.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adagrad([x], cost, step_size=1.0))
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    scalars = f.scalar("epsilon", epsilon, low=0), f.scalar("initial", initial, low=0)
    new = {}
    for p, g, a, eps, s0 in f.each(f.step_size(step_size), *scalars):
        s = f.zeros_like(p, "sum_of_squares")
        new[s] = s + g**2
        new[p] = p - a * g / (pt.sqrt(s0 + new[s]) + eps)
        f.metric(p, a, pt.sqrt(s0 + new[s]) + eps)
    return f.finish(new)


@hinted
def adadelta(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
             stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1.0,
             mean_square_weight: Scalar = 0.9, epsilon: Scalar = 1e-6, bounds: Bounds | None = None,
             prox: Prox | None = None, tolerance: Scalar | None = None, ascent: bool = False,
             name: str = "adadelta") -> Updates:  # fmt: skip
    r"""AdaDelta: the step size is the ratio of two running averages, so that a step has the units of the parameters.

    .. math::
        v \leftarrow \rho v + (1 - \rho) g^2, \qquad d = \frac{\sqrt{u + \epsilon}}{\sqrt{v + \epsilon}} g, \qquad
        u \leftarrow \rho u + (1 - \rho) d^2, \qquad x \leftarrow x - a d

    The average :math:`u` is of the squares of :math:`d`, also with a step size :math:`a` other than the paper's 1. The
    first step is :math:`a \sqrt{\epsilon / (1 - \rho)}` for any gradient far above :math:`\sqrt\epsilon`, and later
    steps grow: a larger :math:`\epsilon` makes the start faster.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_square_weight : scalar
        :math:`\rho`, from 0 to below 1. The default is that of PyTorch and optax; the paper has 0.95.
    epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient in the denominator and of the squared parameter in the
        numerator.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters and of both averages, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component.

    References
    ----------
    Zeiler (2012), ADADELTA: an adaptive learning rate method, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adadelta([x], cost, epsilon=1e-3))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    w = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)

    new = {}
    for p, g, a, eps in f.each(f.step_size(step_size), f.scalar("epsilon", epsilon, low=0)):
        v, u = f.zeros_like(p, "mean_square"), f.zeros_like(p, "mean_square_change")
        new[v] = f.average(v, g**2, w)
        d = pt.sqrt(u + eps) / pt.sqrt(new[v] + eps) * g
        new[u] = f.average(u, d**2, w)
        new[p] = p - a * d
        f.metric(p, a, pt.sqrt(new[v] + eps) / pt.sqrt(u + eps))
    return f.finish(new)


@hinted
def rmsprop(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
            stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
            momentum: Scalar = 0.0, mean_square_weight: Scalar = 0.9, epsilon: Scalar = 1e-8, centered: bool = False,
            decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None, prox: Prox | None = None,
            tolerance: Scalar | None = None, ascent: bool = False, name: str = "rmsprop") -> Updates:  # fmt: skip
    r"""RMSProp: gradients divided by the root of their running mean square.

    .. math:: v \leftarrow \rho v + (1 - \rho) g^2, \qquad x \leftarrow x - a \frac{g}{\sqrt v + \epsilon}

    With `momentum` :math:`\mu` a buffer :math:`b \leftarrow \mu b + g / (\sqrt v + \epsilon)` takes the place of the
    quotient; the present step size scales all of it. If `centered`, the variance :math:`\max(v - m^2, 0)` takes the
    place of :math:`v`, with a running mean :math:`m \leftarrow \rho m + (1 - \rho) g`.

    The averages start at zero, without a correction: the first step is :math:`a / \sqrt{1 - \rho}`, or
    :math:`a / \sqrt{\rho (1 - \rho)}` if centered, larger than later ones.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    mean_square_weight : scalar
        :math:`\rho`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    centered : bool
        Whether to divide by a running standard deviation.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters and mean squares; of the buffers if there is momentum; of the means if
        centered; of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component, and one more each with momentum and if
    centered. The default step size and weight are those of the lecture; those of PyTorch are 0.01 and 0.99. As in
    PyTorch, :math:`\epsilon` is outside of the root, and the step size is outside of the buffer.

    References
    ----------
    Tieleman and Hinton (2012), Neural networks for machine learning, lecture 6e; Graves (2013), Generating sequences
    with recurrent neural networks, equations 38 to 41, for the centered form with momentum.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.rmsprop([x], cost, step_size=optapi.schedules.Linear(0.1, 200))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    w = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    check_flag("centered", centered)
    scalars = f.scalar("momentum", momentum, 0, 1, below=_below(prox)), f.scalar("epsilon", epsilon, low=0)

    rate, new = f.step_size(step_size), {}
    for p, g, a, mu, eps in f.each(rate, *scalars):
        v = f.zeros_like(p, "mean_square")
        new[v] = square = f.average(v, g**2, w)
        if centered:
            m = f.zeros_like(p, "mean")
            new[m] = f.average(m, g, w)
            square = pt.maximum(new[v] - new[m] ** 2, 0)
        d = g / (pt.sqrt(square) + eps)
        if not is_zero(momentum):
            b = f.momentum(p, "buffer")
            new[b] = d = mu * b + d
        new[p] = p - a * d
        f.metric(p, a if is_zero(momentum) else a / (1 - mu), pt.sqrt(square) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=rate))


@hinted
def adam(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
         mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-8, decay: StepSize = 0.0,
         mask: Mask | None = None, amsgrad: bool = False, clip_update: bool = False, bounds: Bounds | None = None,
         prox: Prox | None = None,
         tolerance: Scalar | None = None, ascent: bool = False, name: str = "adam") -> Updates:  # fmt: skip
    r"""Adam: steps of adaptive moments, with AMSGrad as an option.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
        x \leftarrow x - a \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    with :math:`t` the number of the update, from 1. With `amsgrad` the largest :math:`v` so far takes the place of
    :math:`v`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the largest change of a component in a typical update.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1.
    mean_square_weight : scalar
        :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay of the parameters, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    amsgrad : bool
        Whether to divide by the root of the largest mean square so far.
    clip_update : bool
        Whether to divide the step size, for each tensor, by the root mean square of
        :math:`g / \max(\sqrt{v / (1 - \beta_2^t)}, \epsilon)` where that is above 1, so that a gradient much larger
        than those before it makes no large step. With a decay it is StableAdamW; :math:`\beta_2` = 0.99 is advised.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters, of both moments (and the largest) and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component, three with `amsgrad`.

    References
    ----------
    Kingma and Ba (2015), Adam: a method for stochastic optimization, algorithm 1; Reddi, Kale and Kumar (2018), On the
    convergence of Adam and beyond, algorithm 2, with the bias correction of algorithm 1 kept; Wortsman, Dettmers,
    Zettlemoyer, Morcos, Farhadi and Schmidt (2023), Stable and low-precision training for large-scale vision-language
    models, algorithm 2, for `clip_update`.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adam([x], cost, step_size=0.1))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    a, t = f.step_size(step_size), f.count + 1
    rates = dict.fromkeys(f.parameters, a)
    # The corrections are applied to scalars, so that a component takes one root and one division.
    rate, scale = a / correction(w1, t), 1.0 / pt.sqrt(correction(w2, t))

    new: Updates = {}
    for p, g, a_t, c, eps in f.each(rate, scale, f.scalar("epsilon", epsilon, low=0)):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new |= {m: f.average(m, g, w1), v: (largest := f.average(v, g**2, w2))}
        if check_flag("amsgrad", amsgrad):
            bound = f.zeros_like(p, "largest_mean_square")
            new[bound] = largest = pt.maximum(bound, new[v])
        if check_flag("clip_update", clip_update):
            excess = pt.maximum(root_mean_square(g / pt.maximum(c * pt.sqrt(largest), eps)), np.ones((), p.type.dtype))
            a_t, rates[p] = a_t / excess, a / excess
        new[p] = p - a_t * new[m] / (c * pt.sqrt(largest) + eps)
        f.metric(p, rates[p], c * pt.sqrt(largest) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=rates))


@hinted
def adamw(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
          mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-8, decay: StepSize = 1e-2,
          mask: Mask | None = None, amsgrad: bool = False, clip_update: bool = False, bounds: Bounds | None = None,
          prox: Prox | None = None,
          tolerance: Scalar | None = None, ascent: bool = False, name: str = "adamw") -> Updates:  # fmt: skip
    r"""AdamW: Adam with decay of the parameters beside its steps, not in the gradients.

    .. math:: x \leftarrow x - a \lambda x - a \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    with :math:`m`, :math:`v`, :math:`t` and `amsgrad` as in `adam`. The present step size scales the decay too, as in
    PyTorch; in the paper only the multiplier of a schedule does. With `adam` on `gradients.decay` components of large
    gradients decay less, since the gradient of the penalty is divided by their size, too.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size, mean_weight, mean_square_weight, epsilon, amsgrad, clip_update
        As in `adam`, and so are the cost per call and the memory.
    decay : scalar or schedule
        :math:`\lambda`, in units of one over the step size.
    mask : list of bool, or callable, optional
        Which parameters decay, as in `gradients.decay`; for instance ``lambda p: p.ndim > 1``. All by default.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        As in `adam`.

    Notes
    -----
    A tolerance applies to the gradients of the cost, without the decay.

    References
    ----------
    Loshchilov and Hutter (2019), Decoupled weight decay regularization, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adamw([x], cost, step_size=0.1, decay=0.0))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    return adam(**locals())


@hinted
def adamax(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 2e-3,
           mean_weight: Scalar = 0.9, norm_weight: Scalar = 0.999, epsilon: Scalar = 1e-8, decay: StepSize = 0.0,
           mask: Mask | None = None, bounds: Bounds | None = None, prox: Prox | None = None,
           tolerance: Scalar | None = None, ascent: bool = False, name: str = "adamax") -> Updates:  # fmt: skip
    r"""Adamax: Adam with a decaying maximum of the gradients in the place of the root mean square.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad u \leftarrow \max(\beta_2 u, |g| + \epsilon), \qquad
        x \leftarrow x - \frac{a}{1 - \beta_1^t} \frac{m}{u}

    with :math:`t` the number of the update, from 1. The norm :math:`u` needs no correction, and is never below
    :math:`\epsilon`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the largest change of a component in a typical update.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1.
    norm_weight : scalar
        :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient. It is not in the paper, but in PyTorch and optax.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay of the parameters, see `adamw`: AdamaxW.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, the norm and the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component.

    References
    ----------
    Kingma and Ba (2015), Adam: a method for stochastic optimization, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adamax([x], cost, step_size=0.1))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("norm_weight", norm_weight, 0, below=1)
    a, c = f.step_size(step_size), correction(w1, f.count + 1)

    new = {}
    for p, g, rate, shrink, eps in f.each(a / c, w2, f.scalar("epsilon", epsilon, low=0)):
        m, u = f.momentum(p, "mean"), f.zeros_like(p, "norm")
        new[m] = f.average(m, g, w1)
        new[u] = pt.maximum(shrink * u, abs(g) + eps)
        new[p] = p - rate * new[m] / new[u]
        f.metric(p, a, new[u])
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def nadam(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 2e-3,
          mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-8,
          momentum_decay: Scalar = 4e-3, decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None,
          prox: Prox | None = None,
          tolerance: Scalar | None = None, ascent: bool = False, name: str = "nadam") -> Updates:  # fmt: skip
    r"""NAdam: Adam with Nesterov's momentum, which grows over the updates.

    .. math::
        \mu_t = \beta_1 (1 - 0.96^{\psi t} / 2), \qquad P_t = \mu_1 \cdots \mu_t, \qquad
        x \leftarrow x - \frac{a}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} \left(\frac{1 - \mu_t}{1 - P_t} g
        + \frac{\mu_{t+1}}{1 - P_t \mu_{t+1}} m\right)

    with :math:`m` and :math:`v` as in `adam` and :math:`t` the number of the update, from 1. This is the form with a
    schedule of :math:`\mu`, as in PyTorch. The form with a constant :math:`\mu`, as in optax, has other steps: the
    first one is 1.47 times the step size, and 1.06 times here.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1.
    mean_square_weight : scalar
        :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    momentum_decay : scalar
        :math:`\psi`: how fast :math:`\mu` grows from :math:`\beta_1 / 2` to :math:`\beta_1`; a large one makes it
        :math:`\beta_1` from the start, and the rule that of optax.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay of the parameters, see `adamw`: NAdamW.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters, of both moments, of the product :math:`P` and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component, and :math:`P`, a scalar of the widest
    dtype of the parameters.

    References
    ----------
    Dozat (2016), Incorporating Nesterov momentum into Adam, algorithm 2, with the schedule of PyTorch.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.nadam([x], cost, step_size=0.1))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    psi, base = f.scalar("momentum_decay", momentum_decay, low=0), f.scalar("base", 0.96)
    a, t = f.step_size(step_size), f.count + 1
    mu, next_mu = (w1 * (1.0 - 0.5 * base ** (psi * s)) for s in (t, t + 1))
    product = f.state("momentum_product", fill=1)
    new: Updates = {product: product * mu}

    gradient_weight = (1.0 - mu) / (1.0 - new[product])
    moment_weight = next_mu / (1.0 - new[product] * next_mu)
    for p, g, rate, u, w, c2, eps in f.each(
        a, gradient_weight, moment_weight, correction(w2, t), f.scalar("epsilon", epsilon, low=0)
    ):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new[m] = f.average(m, g, w1)
        new[v] = f.average(v, g**2, w2)
        new[p] = p - rate * (u * g + w * new[m]) / (pt.sqrt(new[v] / c2) + eps)
        f.metric(p, a, pt.sqrt(new[v] / c2) + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def radam(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
          mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-8,
          decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None, prox: Prox | None = None,
          tolerance: Scalar | None = None, ascent: bool = False, name: str = "radam") -> Updates:  # fmt: skip
    r"""RAdam: Adam with a rectification while the mean square is that of too few gradients.

    .. math::
        \rho_\infty = \frac{2}{1 - \beta_2} - 1, \qquad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad
        r_t^2 = \frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}

        x \leftarrow x - a \frac{m}{1 - \beta_1^t} \cdot
        \begin{cases} r_t \sqrt{1 - \beta_2^t} \, / \, (\sqrt v + \epsilon) & \rho_t > 5 \\ 1 & \text{else} \end{cases}

    with :math:`m`, :math:`v` and :math:`t` as in `adam`. The threshold of 5, and :math:`\epsilon` beside the root of
    the uncorrected :math:`v`, are those of PyTorch; the paper has a threshold of 4 and no :math:`\epsilon`. With the
    default weights the first five updates, in the paper four, are those of momentum: they scale with the gradient.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1.
    mean_square_weight : scalar
        :math:`\beta_2`, from 0 to below 1; with 2/3 or less no step is adaptive.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay of the parameters, see `adamw`: RAdamW.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.
    prox : penalty, dict or list, optional
        Penalties of `optapi.prox`, as in `sgd`, with the step size of each component, so that they must be separable.

    Returns
    -------
    dict
        Next values of the parameters, of both moments and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component.

    References
    ----------
    Liu, Jiang, He, Chen, Liu, Gao and Han (2020), On the variance of the adaptive learning rate and beyond, algorithm
    2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.radam([x], cost, step_size=0.1))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name,
                     bounds=bounds, prox=prox)  # fmt: skip
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    a, t = f.step_size(step_size), f.count + 1
    c1, c2 = correction(w1, t), correction(w2, t)
    rho_inf = 2.0 / (1.0 - w2) - 1.0
    rho = rho_inf - 2.0 * t * w2**t / c2
    adaptive = rho > 5
    # At least 5, so that the root is real where it is not used.
    rho_inf, rho = pt.maximum(rho_inf, 5.0), pt.maximum(rho, 5.0)
    r = pt.sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))

    new = {}
    for p, g, rate, scale, eps in f.each(a / c1, r * pt.sqrt(c2), f.scalar("epsilon", epsilon, low=0)):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new[m] = f.average(m, g, w1)
        new[v] = f.average(v, g**2, w2)
        new[p] = p - rate * pt.switch(adaptive, scale * new[m] / (pt.sqrt(new[v]) + eps), new[m])
        f.metric(p, a, pt.switch(adaptive, (pt.sqrt(new[v]) + eps) / scale, pt.ones_like(p)))
    return f.finish(f.decay(new, decay, mask, step_size=a))
