"""First-order rules: momentum and adaptive steps."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from .checks import is_zero, scalar
from .moments import correction, running_average
from .objective import Objective
from .updates import Updates


def sgd(
    parameters: Any,
    cost: Any = None,
    gradients: Any = None,
    stop: Any = None,
    updates: Updates | None = None,
    *,
    step_size: Any = 1e-2,
    momentum: Any = 0.0,
    dampening: Any = 0.0,
    nesterov: bool = False,
    tolerance: Any = None,
    ascent: bool = False,
    name: str = "sgd",
) -> Updates:
    r"""Stochastic gradient descent, with momentum and annealing.

    .. math:: x \leftarrow x - a g

    With `momentum` :math:`\mu` and `dampening` :math:`\tau` a buffer :math:`b` takes the place of the gradient,

    .. math:: b \leftarrow \mu b + (1 - \tau) g, \qquad x \leftarrow x - a b

    which is :math:`g` itself at the first update, also with dampening. With `nesterov`,
    :math:`x \leftarrow x - a (g + \mu b)`. The whole buffer is scaled by the present step size; in `momentum` each
    gradient keeps the step size of its own update. Without a schedule the two agree.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`; a schedule anneals it.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    dampening : scalar
        :math:`\tau`, between 0 and 1.
    nesterov : bool
        Whether to look ahead; needs momentum and no dampening.
    tolerance : scalar or None
        If given, `stop` becomes 1 when no component of the gradients is larger in absolute value.

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
    """
    if is_zero(momentum) and (nesterov or not is_zero(dampening)):
        raise ValueError("nesterov and dampening need a momentum above 0")
    if nesterov and not is_zero(dampening):
        raise ValueError("nesterov needs a dampening of 0")
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    fresh = 1.0 - scalar("dampening", dampening, 0, 1)
    if not is_zero(dampening):
        fresh = pt.switch(pt.eq(f.count, 0), 1.0, fresh)

    new = {}
    for p, g, a, mu, share in f.each(f.step_size(step_size), scalar("momentum", momentum, 0, 1), fresh):
        if is_zero(momentum):
            new[p] = p - a * g
        else:
            b = f.beside(p, "buffer")
            new[b] = mu * b + share * g
            new[p] = p - a * (g + mu * new[b] if nesterov else new[b])
    return f.finish(new)


def momentum(
    parameters: Any,
    cost: Any = None,
    gradients: Any = None,
    stop: Any = None,
    updates: Updates | None = None,
    *,
    step_size: Any = 1e-2,
    momentum: Any = 0.9,
    tolerance: Any = None,
    ascent: bool = False,
    name: str = "momentum",
) -> Updates:
    r"""Gradient descent with classical momentum, the heavy ball.

    .. math:: v \leftarrow \mu v - a g, \qquad x \leftarrow x + v

    Each gradient keeps in the velocity :math:`v` the step size of its own update; in `sgd` the present step size scales
    them all. Without a schedule the two agree.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    tolerance : scalar or None
        If given, `stop` becomes 1 when no component of the gradients is larger in absolute value.

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
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    new = {}
    for p, g, a, mu in f.each(f.step_size(step_size), scalar("momentum", momentum, 0, 1)):
        v = f.beside(p, "velocity")
        new[v] = mu * v - a * g
        new[p] = p + new[v]
    return f.finish(new)


def adam(
    parameters: Any,
    cost: Any = None,
    gradients: Any = None,
    stop: Any = None,
    updates: Updates | None = None,
    *,
    step_size: Any = 1e-3,
    mean_weight: Any = 0.9,
    mean_square_weight: Any = 0.999,
    epsilon: Any = 1e-8,
    amsgrad: bool = False,
    tolerance: Any = None,
    ascent: bool = False,
    name: str = "adam",
) -> Updates:
    r"""Adam: steps of adaptive moments, with AMSGrad as an option.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
        x \leftarrow x - a \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    with :math:`t` the number of this update, from 1. With `amsgrad` the largest :math:`v` so far stands in the
    denominator.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the largest change of a component in a typical update.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1.
    mean_square_weight : scalar
        :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient.
    amsgrad : bool
        Whether to keep the largest mean square.
    tolerance : scalar or None
        If given, `stop` becomes 1 when no component of the gradients is larger in absolute value.

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
    convergence of Adam and beyond, algorithm 2, with the bias correction of algorithm 1 kept.
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    w1 = scalar("mean_weight", mean_weight, 0, below=1)
    w2 = scalar("mean_square_weight", mean_square_weight, 0, below=1)
    t = f.count + 1

    new = {}
    for p, g, a, c1, c2, eps in f.each(
        f.step_size(step_size), correction(w1, t), correction(w2, t), scalar("epsilon", epsilon, low=0)
    ):
        m, v = f.beside(p, "mean"), f.beside(p, "mean_square")
        new[m] = running_average(m, g, w1)
        new[v] = largest = running_average(v, g**2, w2)
        if amsgrad:
            bound = f.beside(p, "largest_mean_square")
            new[bound] = largest = pt.maximum(bound, new[v])
        new[p] = p - a * (new[m] / c1) / (pt.sqrt(largest / c2) + eps)
    return f.finish(new)
