r"""Rules with a rate for each component, learned from the signs, the correlation or the noise of its gradients.

The rate of a component is the present step size times a gain, which is 1 at first. So `step_size` is the first rate of
all components in each of its forms, and a schedule, or a change of a shared step size, scales the rates and leaves the
gains. (`quickprop` has no rates; `hypergradient` learns one for all components, and adds it to the step size.)

`delta_bar_delta`, `rprop`, `super_sab` and `quickprop` compare the gradients of successive updates. They are for exact
gradients, those of all data: the signs of noisy gradients change by chance, and the rates shrink. `idbd`, `smd`, `vsgd`
and `hypergradient` are for noisy gradients too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.replace import vectorize_graph

from .. import state
from ..checks import as_dtype, check_choice, check_count, check_flag, check_gradients, scalar
from ..graph.loops import FALSE, like
from ..graph.replace import replaced
from ..hints import hinted
from ..moments import correction
from ..objective import Objective
from ..typing import Scalar, StepSize, Updates, Variables
from ..vectors import inner
from ._linear_algebra import ratio


@hinted
def delta_bar_delta(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                    stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
                    variant: str = "jacobs", increase: Scalar | None = None, decrease: Scalar = 0.2,
                    min_rate: Scalar | None = None, max_rate: Scalar | None = None, mean_weight: Scalar | None = None,
                    momentum: Scalar | None = None, damping: Scalar | None = None,
                    momentum_increase: Scalar | None = None, momentum_decrease: Scalar | None = None,
                    momentum_damping: Scalar | None = None, max_momentum: Scalar | None = None,
                    tolerance: Scalar | None = None, ascent: bool = False,
                    name: str = "delta_bar_delta") -> Updates:  # fmt: skip
    r"""Delta-bar-delta: a rate grows by a constant while the gradient keeps its sign, and else shrinks by a factor.

    .. math::
        k \leftarrow \begin{cases} k + \kappa & \bar g g > 0 \\ (1 - \phi) k & \bar g g < 0 \\ k & \text{else}
        \end{cases} \qquad
        x \leftarrow x - a k g, \qquad \bar g \leftarrow \theta \bar g + (1 - \theta) g

    with a gain :math:`k` for each component, 1 at first. The gradient is compared with the mean :math:`\bar g` of the
    previous ones, so the first update changes no gain. This is the `variant` "jacobs"; there are two more.

    "extended" also learns a momentum :math:`\mu` for each component, 0 at first, and gains grow less where the mean
    gradient is large. Where :math:`\bar g g` is positive

    .. math::
        k \leftarrow k + \kappa e^{-\gamma |\bar g|}, \qquad
        \mu \leftarrow \min(\mu + \kappa_\mu e^{-\gamma_\mu |\bar g|}, \mu_{max})

    and where it is negative :math:`k \leftarrow (1 - \phi) k` and :math:`\mu \leftarrow (1 - \phi_\mu) \mu`; then
    :math:`v \leftarrow \mu v - a k g` and :math:`x \leftarrow x + v`.

    "gains", the rule of t-SNE, compares the gradient with the velocity, and has one momentum for all components:

    .. math::
        k \leftarrow \begin{cases} k + \kappa & \mathrm{sgn}\, g \ne \mathrm{sgn}\, v \\ (1 - \phi) k & \text{else}
        \end{cases} \qquad v \leftarrow \mu v - a k g, \qquad x \leftarrow x + v

    The velocity points downhill, so the signs differ where the rule makes progress. The first update, when the velocity
    is 0, increases all gains.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the first rate; it scales the gains.
    variant : str
        "jacobs", "extended" or "gains".
    increase : scalar, optional
        :math:`\kappa`, the increase of a gain, as a fraction of the first rate. 0.05 by default, 0.2 in "gains".
    decrease : scalar
        :math:`\phi`, the relative decrease of a gain, from 0 to 1.
    min_rate, max_rate : scalar, optional
        The bounds of the gains. The lower one is 0 by default, 0.01 in "gains". Without an upper bound the rates can
        grow along a valley until a step leaves it.
    mean_weight : scalar, optional
        :math:`\theta`, from 0 to below 1; 0.7 by default. With 0 successive gradients are compared. Not in "gains".
    momentum : scalar, optional
        :math:`\mu` of "gains", between 0 and 1; 0.5 by default.
    damping : scalar, optional
        :math:`\gamma`, in units of one over the gradient; 0 by default. In "extended" only, as the options
        below.
    momentum_increase : scalar, optional
        :math:`\kappa_\mu`; 0.02 by default.
    momentum_decrease : scalar, optional
        :math:`\phi_\mu`, from 0 to 1; 0.2 by default.
    momentum_damping : scalar, optional
        :math:`\gamma_\mu`, in units of one over the gradient; 0 by default.
    max_momentum : scalar, optional
        :math:`\mu_{max}`, from 0 to below 1; 0.9 by default.

    Returns
    -------
    dict
        Next values of the parameters and gains; of the means ("jacobs", "extended"), the velocities ("extended",
        "gains") and the momenta ("extended"); of the count of updates if there is a schedule.

    Raises
    ------
    ValueError
        Also if an option is given that the variant does not have.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component, four in "extended".

    The papers give the increase of a rate, :math:`a \kappa` here, in units of the rate. There are no usual values: the
    defaults of "jacobs" and "extended" are ours. "extended" is without the recovery of its paper, which returns to an
    earlier point when the cost rises; `optapi.bold_driver` does that.

    References
    ----------
    Jacobs (1988), Increased rates of convergence through learning rate adaptation; Minai and Williams (1990),
    Back-propagation heuristics: a study of the extended delta-bar-delta algorithm; van der Maaten and Hinton (2008),
    Visualizing data using t-SNE, and its authors' program for "gains".

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.delta_bar_delta([x], cost, step_size=0.05))
    >>> for _ in range(100):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    check_choice("variant", variant, ("jacobs", "extended", "gains"))
    gains, extended = variant == "gains", variant == "extended"
    theta = _option("mean_weight", mean_weight, 0.7, not gains, variant, below=1)
    scalars = (
        _option("increase", increase, 0.2 if gains else 0.05, True, variant),
        1.0 - f.scalar("decrease", decrease, 0, 1),
        _option("min_rate", min_rate, 0.01 if gains else 0.0, True, variant),
        _bound("max_rate", max_rate),
        _option("momentum", momentum, 0.5, gains, variant, high=1),
        _option("damping", damping, 0.0, extended, variant),
        _option("momentum_increase", momentum_increase, 0.02, extended, variant),
        1.0 - _option("momentum_decrease", momentum_decrease, 0.2, extended, variant, high=1),
        _option("momentum_damping", momentum_damping, 0.0, extended, variant),
        _option("max_momentum", max_momentum, 0.9, extended, variant, below=1),
    )

    new: Updates = {}
    for p, g, a, kappa, shrink, low, high, mu, gamma, kappa_mu, shrink_mu, gamma_mu, max_mu in f.each(
        f.step_size(step_size), *scalars
    ):
        k = f.full_like(p, "gain", 1)
        if gains:
            v = f.zeros_like(p, "velocity")
            new[k] = _clipped(pt.switch(pt.neq(pt.sign(g), pt.sign(v)), k + kappa, shrink * k), low, high)
            new[v] = mu * v - a * new[k] * g
            new[p] = p + new[v]
            continue
        mean = f.zeros_like(p, "mean")
        agree = _agreement(mean, g)
        new[mean] = f.average(mean, g, theta)
        if not extended:
            new[k] = _clipped(_adapted(k, agree, k + kappa, shrink * k), low, high)
            new[p] = p - a * new[k] * g
        else:
            m, v = f.zeros_like(p, "momentum"), f.zeros_like(p, "velocity")
            larger_k, larger_m = k + kappa * pt.exp(-gamma * abs(mean)), m + kappa_mu * pt.exp(-gamma_mu * abs(mean))
            new[k] = _clipped(_adapted(k, agree, larger_k, shrink * k), low, high)
            new[m] = pt.minimum(_adapted(m, agree, larger_m, shrink_mu * m), max_mu)
            new[v] = new[m] * v - a * new[k] * g
            new[p] = p + new[v]
    return f.finish(new)


@hinted
def rprop(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.1,
          variant: str = "irprop-", growth: Scalar = 1.2, shrinkage: Scalar = 0.5, min_rate: Scalar = 1e-6,
          max_rate: Scalar = 50.0, tolerance: Scalar | None = None, ascent: bool = False,
          name: str = "rprop") -> Updates:  # fmt: skip
    r"""Resilient propagation: steps of learned sizes, against the sign of the gradient.

    .. math::
        \Delta \leftarrow \begin{cases} \min(\eta_+ \Delta, \Delta_{max}) & g g_{prev} > 0 \\
        \max(\eta_- \Delta, \Delta_{min}) & g g_{prev} < 0 \\ \Delta & \text{else} \end{cases} \qquad
        x \leftarrow x - \Delta \, \mathrm{sgn}\, g

    with a step size :math:`\Delta` for each component. Only the sign of the gradient counts, so the steps are the same
    for each positive multiple of the cost. The variants differ where the sign has changed, that is where the previous
    step went over a minimum:

    - "rprop-" steps back by the smaller step;
    - "rprop+" undoes the previous step;
    - "irprop-" does not move;
    - "irprop+" undoes the previous step if the cost has risen with it, and else does not move.

    After a change of sign all but "rprop-" set :math:`g_{prev}` to 0, so that the next update does not change the step
    size.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. "irprop+" needs the cost.
    step_size : scalar or schedule
        The first :math:`\Delta`, in units of the parameters. The rule learns the ratio of :math:`\Delta` to it, so that
        a schedule scales the steps.
    variant : str
        "rprop-", "rprop+", "irprop-" or "irprop+".
    growth : scalar
        :math:`\eta_+`, at least 1.
    shrinkage : scalar
        :math:`\eta_-`, from 0 to 1.
    min_rate, max_rate : scalar
        :math:`\Delta_{min}` and :math:`\Delta_{max}`, in units of the parameters.

    Returns
    -------
    dict
        Next values of the parameters, gains (ratios of :math:`\Delta` to `step_size`) and signs of the gradients; of
        the previous steps ("rprop+", "irprop+"); of the previous cost ("irprop+"); of the count of updates if there is
        a schedule.

    Raises
    ------
    ValueError
        Also if "irprop+" is not given the cost.

    Notes
    -----
    Cost per call: one gradient, in "irprop+" with the cost. Memory: two numbers per parameter component, three in
    "rprop+" and "irprop+". The defaults are those of 1993; PyTorch, whose rule is "irprop-", starts with 0.01.

    References
    ----------
    Riedmiller and Braun (1993), A direct adaptive method for faster backpropagation learning: the RPROP algorithm; Igel
    and Hüsken (2000), Improving the Rprop learning algorithm, which compares and names the variants.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.rprop([x], cost, step_size=0.1, variant="irprop-"))
    >>> for _ in range(60):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    check_choice("variant", variant, ("rprop-", "rprop+", "irprop-", "irprop+"))
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    if variant == "irprop+" and f.cost is None:
        raise ValueError('the variant "irprop+" compares costs; pass cost=, or choose "irprop-"')
    first = f.step_size(step_size)
    # The bounds of the gains; with a step size of 0 there are none.
    low = ratio(f.scalar("min_rate", min_rate, 0), first, first > 0)
    high = pt.switch(first > 0, f.scalar("max_rate", max_rate, low=0) / first, _bound("max_rate", None))

    new: Updates = {}
    if variant == "irprop+":
        previous_cost = f.state("previous_cost", dtype=f.cost.type.dtype, fill=np.inf)
        new[previous_cost] = f.cost
        risen = f.cost > previous_cost
    for p, g, a, up, down, low_k, high_k in f.each(
        first, f.scalar("growth", growth, 1), f.scalar("shrinkage", shrinkage, 0, 1), low, high
    ):
        k, previous_sign = f.full_like(p, "gain", 1), f.zeros_like(p, "sign")
        sign = pt.sign(g)
        agree = _agreement(previous_sign, sign)
        turned = agree < 0
        new[k] = _adapted(k, agree, pt.minimum(up * k, high_k), pt.maximum(down * k, low_k))
        step = -sign * (a * new[k])
        zeros = pt.zeros_like(p)
        if variant != "rprop-":
            sign = pt.switch(turned, zeros, sign)
        if variant == "irprop-":
            step = pt.switch(turned, zeros, step)
        elif variant != "rprop-":
            previous = f.zeros_like(p, "step")
            undo = -previous if variant == "rprop+" else pt.switch(risen, -previous, zeros)
            # An undone step is not undone again: the next update compares with a sign of 0.
            new[previous] = pt.switch(turned, zeros, step)
            step = pt.switch(turned, undo, step)
        new[previous_sign] = sign
        new[p] = p + step
    return f.finish(new)


@hinted
def super_sab(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
              momentum: Scalar = 0.9, growth: Scalar = 1.05, shrinkage: Scalar = 0.5, max_rate: Scalar | None = None,
              tolerance: Scalar | None = None, ascent: bool = False, name: str = "super_sab") -> Updates:  # fmt: skip
    r"""SuperSAB: a rate grows by a factor while the gradient keeps its sign; else it shrinks and the step is undone.

    Where the gradient has the sign of the previous one

    .. math:: k \leftarrow \min(\eta_+ k, k_{max}), \qquad v \leftarrow \mu v - a k g, \qquad x \leftarrow x + v

    with a gain :math:`k` for each component, 1 at first. Where the signs are opposite

    .. math:: k \leftarrow \eta_- k, \qquad x \leftarrow x - v, \qquad v \leftarrow 0

    and the sign is set to 0, so that the next update of the component is a plain step from the previous point.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the first rate; it scales the gains.
    momentum : scalar
        :math:`\mu`, between 0 and 1.
    growth : scalar
        :math:`\eta_+`, at least 1.
    shrinkage : scalar
        :math:`\eta_-`, from 0 to 1.
    max_rate : scalar, optional
        :math:`k_{max}`, the largest gain. The growth is exponential, and may overflow without a bound.

    Returns
    -------
    dict
        Next values of the parameters, gains, velocities and signs of the gradients, and of the count of updates if
        there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: three numbers per parameter component.

    The paper bounds the rates themselves, by 10. It does not say with what the gradient after an undone step is
    compared; here with 0, as in `rprop`.

    References
    ----------
    Tollenaere (1990), SuperSAB: fast adaptive back propagation with good scaling properties; Reed and Marks (1999),
    Neural smithing, section 9.5, which corrects its formulas.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.super_sab([x], cost, step_size=0.1))
    >>> for _ in range(100):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    scalars = (
        f.scalar("momentum", momentum, 0, 1),
        f.scalar("growth", growth, 1),
        f.scalar("shrinkage", shrinkage, 0, 1),
        _bound("max_rate", max_rate),
    )
    new: Updates = {}
    for p, g, a, mu, up, down, high in f.each(f.step_size(step_size), *scalars):
        k, v, previous_sign = f.full_like(p, "gain", 1), f.zeros_like(p, "velocity"), f.zeros_like(p, "sign")
        agree = _agreement(previous_sign, g)
        turned, zeros = agree < 0, pt.zeros_like(p)
        new[k] = _adapted(k, agree, pt.minimum(up * k, high), down * k)
        step = mu * v - a * new[k] * g
        new[v] = pt.switch(turned, zeros, step)
        new[previous_sign] = pt.switch(turned, zeros, pt.sign(g))
        new[p] = p + pt.switch(turned, -v, step)
    return f.finish(new)


@hinted
def quickprop(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
              growth: Scalar = 1.75, tolerance: Scalar | None = None, ascent: bool = False,
              name: str = "quickprop") -> Updates:  # fmt: skip
    r"""Quickprop: each component goes to the minimum of the parabola through its last two slopes.

    With the previous step :math:`p` and the previous gradient :math:`g_{prev}`

    .. math::
        q = \begin{cases} \mu p & g \, \mathrm{sgn}\, p \le \frac{\mu}{1 + \mu} g_{prev} \, \mathrm{sgn}\, p \\
        \dfrac{g}{g_{prev} - g} p & \text{else} \end{cases} \qquad
        l = \begin{cases} -a g & g p < 0 \text{ or } p = 0 \\ 0 & \text{else} \end{cases}

    the step is :math:`q + l`, and :math:`x \leftarrow x + q + l`. The growth factor :math:`\mu` bounds the steps where
    the parabola is flat or concave. The term :math:`l` starts the motion. It is 0 where the gradient has changed its
    sign; the step is then that of the secant rule, which is exact on a separable quadratic.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    growth : scalar
        :math:`\mu`, at least 0.

    Returns
    -------
    dict
        Next values of the parameters, previous steps and previous gradients, and of the count of updates if there is a
        schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component.

    The program of the paper's author adds a penalty of 1e-4 to the gradients: pass
    ``gradients=optapi.gradients.decay(gradients, parameters, 1e-4)``. His step sizes, near 0.5, are for costs summed
    over the patterns and divided by the fan-in of a unit.

    References
    ----------
    Fahlman (1988), Faster-learning variations on back-propagation: an empirical study, in the form of his program.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.quickprop([x], cost, step_size=0.1))
    >>> for _ in range(20):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    mu = f.scalar("growth", growth, 0)
    new: Updates = {}
    for p, g, a, mu_p, shrink in f.each(f.step_size(step_size), mu, mu / (1.0 + mu)):
        step, slope = f.zeros_like(p, "step"), f.zeros_like(p, "slope")
        # The slopes in the direction of the step, negative while it leads downhill.
        along, previous_along = pt.sign(step) * g, pt.sign(step) * slope
        change = slope - g
        flat = pt.eq(change, 0)
        secant = g / pt.switch(flat, pt.ones_like(p), change) * step
        jump = pt.switch(along <= shrink * previous_along, mu_p * step, secant)
        new[step] = jump + pt.switch((along < 0) | pt.eq(step, 0), -a * g, pt.zeros_like(p))
        new[slope] = g
        new[p] = p + new[step]
    return f.finish(new)


@hinted
def idbd(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.05,
         meta_step_size: Scalar = 1e-2, curvature: Variables | None = None, tolerance: Scalar | None = None,
         ascent: bool = False, name: str = "idbd") -> Updates:  # fmt: skip
    r"""Incremental delta-bar-delta: the logarithms of the rates descend the cost of the next example.

    .. math::
        \beta \leftarrow \beta - \theta g h, \qquad x \leftarrow x - a e^\beta g, \qquad
        h \leftarrow h \, [1 - a e^\beta c]_+ - a e^\beta g

    with the logarithm :math:`\beta` of the gain and a trace :math:`h` of the recent steps for each component, both 0 at
    first, and the curvature :math:`c` of the cost along the component. An update changes :math:`\beta` by at most 2,
    and :math:`\beta` is at least -10.

    The paper is about a linear unit, with the cost :math:`(y - w^T z)^2 / 2` of an example. There
    :math:`-g_i = (y - w^T z) z_i` and :math:`c_i = z_i^2`, and this is the algorithm of the paper. For other costs the
    curvature is the absolute value of the second derivative.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. Without `curvature` the cost is needed, and gradients, if given, must be its own.
    step_size : scalar or schedule
        :math:`a`, the first rate; it scales the gains.
    meta_step_size : scalar
        :math:`\theta`, in units of one over the cost, for parameters of any units. With 0 the rule is `sgd`.
    curvature : list of variables, optional
        For each parameter, in its shape, the diagonal of the Hessian or of an approximation, such as the Gauss-Newton
        matrix; its absolute value is used. For a layer of linear units with inputs :math:`z` it is the mean of
        :math:`z^2`. By default the exact diagonal, which takes the time and memory of the block of :math:`n^2` second
        derivatives of each parameter of :math:`n` components, so it is for small models.

    Returns
    -------
    dict
        Next values of the parameters, logarithms of the gains and traces, and of the count of updates if there is a
        schedule. If `stop` is given and `curvature` is not, the rule reports ``products``, see `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points, where they are differentiated.

    Notes
    -----
    Cost per call: one gradient, and the curvature. Memory: two numbers per parameter component.

    References
    ----------
    Sutton (1992), Adapting bias by gradient descent: an incremental version of delta-bar-delta, figure 2. The paper
    recommends the bounds, the lower one for the logarithm of the rate itself, against underflow.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> train = pytensor.function([x, y], cost, updates=optapi.idbd([w], cost, step_size=0.05))
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 0.99, -1.99])
    """
    exact = curvature is None
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=exact
    )
    curvatures = _second_derivatives(f) if exact else _check_curvature(curvature, f)
    rates = f.each(f.step_size(step_size), f.scalar("meta_step_size", meta_step_size, 0))
    new: Updates = {}
    for (p, g, a, theta), c in zip(rates, curvatures, strict=True):
        beta, h = f.zeros_like(p, "log_gain"), f.zeros_like(p, "trace")
        new[beta] = pt.maximum(beta - _clipped(theta * g * h, -2, 2), -10)
        rate = a * pt.exp(new[beta])
        new[p] = p - rate * g
        new[h] = h * pt.maximum(1 - rate * c, 0) - rate * g
    return f.finish(new, reports={"products": pt.constant(np.int64(f.size))} if exact else None)


@hinted
def smd(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
        meta_step_size: Scalar = 2e-2, trace_weight: Scalar = 0.99, tolerance: Scalar | None = None,
        ascent: bool = False, name: str = "smd") -> Updates:  # fmt: skip
    r"""Stochastic meta-descent: the rates descend the cost, with products of the whole Hessian.

    .. math::
        k \leftarrow k \max(\tfrac12, 1 - \mu g v), \qquad x \leftarrow x - a k g, \qquad
        v \leftarrow \lambda v - a k (g + \lambda H v)

    with a gain :math:`k` for each component, 1 at first, and a trace :math:`v`, 0 at first, which approximates the
    derivative of :math:`x` with respect to the logarithms of the rates. :math:`H` is the Hessian at the point of the
    gradient. `idbd` is the same rule with a diagonal :math:`H` and with :math:`\lambda = 1`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. The cost is needed; gradients, if given, must be its own.
    step_size : scalar or schedule
        :math:`a`, the first rate; it scales the gains.
    meta_step_size : scalar
        :math:`\mu`, in units of one over the cost. With 0 the rule is `sgd`.
    trace_weight : scalar
        :math:`\lambda`, from 0 to 1. With 0 only the previous gradient counts.

    Returns
    -------
    dict
        Next values of the parameters, gains and traces, and of the count of updates if there is a schedule. If `stop`
        is given, the rule reports ``products``, see `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points, where they are differentiated.

    Notes
    -----
    Cost per call: one gradient and one product with the Hessian, together about three gradients. Memory: two numbers
    per parameter component. With a Hessian that is not positive definite, or rates at which gradient descent would not
    converge, the trace can grow without bound.

    References
    ----------
    Schraudolph (1999), Local gain adaptation in stochastic gradient descent; Vishwanathan, Schraudolph, Schmidt and
    Murphy (2006), Accelerated training of conditional random fields with stochastic gradient methods, section 3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> train = pytensor.function([x, y], cost, updates=optapi.smd([w], cost, step_size=0.1))
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 1., -2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, needs_cost=True
    )
    traces = [f.zeros_like(p, "trace") for p in f.parameters]
    products = f.products(f.parameters, f.gradients, traces)
    rates = f.each(
        f.step_size(step_size),
        f.scalar("meta_step_size", meta_step_size, 0),
        f.scalar("trace_weight", trace_weight, 0, 1),
    )
    new: Updates = {}
    for (p, g, a, mu, w), v, product in zip(rates, traces, products, strict=True):
        k = f.full_like(p, "gain", 1)
        new[k] = k * pt.maximum(0.5, 1 - mu * g * v)
        rate = a * new[k]
        new[p] = p - rate * g
        new[v] = w * v - rate * (g + w * product)
    return f.finish(new, reports={"products": pt.constant(np.int64(1))})


@hinted
def vsgd(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1.0,
         curvature: Variables | None = None, samples: int = 10, slow_start: Scalar = 2.0, outliers: Scalar | None = 2.0,
         tolerance: Scalar | None = None, ascent: bool = False, name: str = "vsgd") -> Updates:  # fmt: skip
    r"""vSGD: rates from the noise of the gradients and from the curvature, without a step size to choose.

    The running means of the gradient, of its square and of the curvature :math:`c`, with a memory :math:`\tau` for each
    component,

    .. math::
        \bar g \leftarrow (1 - \tau^{-1}) \bar g + \tau^{-1} g, \qquad
        \bar v \leftarrow (1 - \tau^{-1}) \bar v + \tau^{-1} g^2, \qquad
        \bar c \leftarrow (1 - \tau^{-1}) \bar c + \tau^{-1} c

    give the rate that is best for a noisy quadratic, and the next memory:

    .. math::
        r = \frac{\bar g^2}{\bar v}, \qquad x \leftarrow x - a \frac{r}{\bar c} g, \qquad
        \tau \leftarrow (1 - r) \tau + 1

    Without noise :math:`r` is 1, and the step is that of Newton's method with the diagonal of the Hessian; where there
    is only noise, :math:`r` decreases like :math:`1/t`.

    By default the curvature is a finite difference along the mean gradient, of gradients of the same data,

    .. math:: c = \left|\frac{g(x + \bar g) - g(x)}{\bar g}\right|

    This is not exact and varies from call to call, so the rate is then :math:`r \bar c / \overline{c^2}`, with the
    running mean of the squares. Where :math:`\bar g` is 0, the difference is along :math:`g`; where that is 0 too,
    :math:`c` is 0.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. Without `curvature` the cost is needed, and gradients, if given, must be its own.
    step_size : scalar or schedule
        :math:`a`, 1 in the papers: a factor of all rates.
    curvature : list of variables, optional
        For each parameter, in its shape, the diagonal of the Hessian or of an approximation, such as the Gauss-Newton
        matrix; its absolute value is used. By default finite differences.
    samples : int
        The number of calls at first that do not move the parameters, and whose means are arithmetic; in the paper about
        a thousandth of the data. With 0 the first call moves them.
    slow_start : scalar
        At least 1: the mean square after the first `samples` calls is multiplied by this, which makes the first rates
        smaller. In the paper a tenth of the number of components, and 2 in a program of its author. With 1 and without
        noise at first, :math:`\tau` is 1 and stays 1, also if there is noise later.
    outliers : scalar or None
        :math:`\tau` increases by 1, before the means are updated, where the distance of :math:`g` or :math:`c` to its
        mean is larger than this many standard deviations. None for never.

    Returns
    -------
    dict
        Next values of the parameters, means, memories and the count of updates. If `stop` is given and `curvature` is
        not, the rule reports ``evaluations``, see `optapi.reports`.

    Raises
    ------
    ValueError
        Also if `gradients` cannot be those of `cost` at other points.

    Notes
    -----
    Cost per call: two gradients, or one and the curvature. Memory: four numbers per parameter component, five with
    finite differences. A component without curvature, or whose gradients were all 0, does not move.

    The mean square is that of the gradient of a call. If this is the mean over a batch, the variance is that of such
    means, and :math:`r` is the ratio that the second paper computes from the gradients of single examples.

    References
    ----------
    Schaul, Zhang and LeCun (2013), No more pesky learning rates, algorithm 1; Schaul and LeCun (2013), Adaptive
    learning rates and parallelization for stochastic, sparse, non-smooth gradients, algorithm 1, for finite differences
    and outliers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> train = pytensor.function([x, y], cost, updates=optapi.vsgd([w], cost))
    >>> for rows in np.split(np.arange(200), 20) * 5:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 1.  , -1.99])
    """
    differences = curvature is None
    f = Objective.of(
        parameters,
        cost,
        gradients,
        stop,
        updates,
        tolerance=tolerance,
        ascent=ascent,
        name=name,
        needs_cost=differences,
    )
    samples = check_count("samples", samples, low=0)
    means = [f.zeros_like(p, "mean") for p in f.parameters]
    curvatures = _differenced(f, means) if differences else _check_curvature(curvature, f)
    sampling = f.count < samples if samples else FALSE
    slow = f.scalar("slow_start", slow_start, 1)
    slow = pt.switch(pt.eq(f.count, max(samples - 1, 0)), slow, np.float64(1))
    deviations = f.scalar("outliers", 0 if outliers is None else outliers, 0)

    new: Updates = {}
    rates = f.each(f.step_size(step_size), slow, deviations**2)
    for (p, g, a, factor, max_variances), mean, c in zip(rates, means, curvatures, strict=True):
        mean_square, mean_c = f.zeros_like(p, "mean_square"), f.zeros_like(p, "mean_curvature")
        tau = f.full_like(p, "memory", 0 if samples else 1)
        one, zero = pt.ones_like(p), pt.zeros_like(p)

        outlying = _outlies(g, mean, mean_square, max_variances)
        if differences:
            mean_square_c = f.zeros_like(p, "mean_square_curvature")
            outlying = outlying | _outlies(c, mean_c, mean_square_c, max_variances)
        length = tau + pt.switch(sampling, one, zero if outliers is None else pt.switch(outlying, one, zero))

        w = 1 / length
        new[mean] = (1 - w) * mean + w * g
        new[mean_square] = factor * ((1 - w) * mean_square + w * g**2)
        new[mean_c] = (1 - w) * mean_c + w * c
        r = _clipped(ratio(new[mean] ** 2, new[mean_square]), 0, 1)
        if differences:
            new[mean_square_c] = (1 - w) * mean_square_c + w * c**2
            rate = ratio(r * new[mean_c], new[mean_square_c])
        else:
            rate = ratio(r, new[mean_c])
        new[tau] = pt.switch(sampling, length, (1 - r) * length + 1)
        new[p] = p - pt.switch(sampling, zero, a * rate) * g
    return f.finish(new, reports={"evaluations": pt.constant(np.int64(2))} if differences else None)


@hinted
def hypergradient(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                  stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
                  direction: str = "sgd", meta_step_size: Scalar | None = None, multiplicative: bool = False,
                  momentum: Scalar | None = None, mean_weight: Scalar | None = None,
                  mean_square_weight: Scalar | None = None, epsilon: Scalar | None = None,
                  tolerance: Scalar | None = None, ascent: bool = False,
                  name: str = "hypergradient") -> Updates:  # fmt: skip
    r"""Hypergradient descent: one rate for all components, which itself descends the cost.

    .. math:: b \leftarrow \max(b + \beta g^T u, 0), \qquad u \leftarrow d(g), \qquad x \leftarrow x - b u

    with the rate :math:`b`, at first the step size, and the direction :math:`u` of the previous update, 0 at first:
    :math:`-g^T u` is the derivative of the cost with respect to the rate of that update. The `direction` is that of
    "sgd", :math:`u = g`, of "nesterov",

    .. math:: v \leftarrow \mu v + g, \qquad u = g + \mu v

    or of "adam", :math:`u = \hat m / (\sqrt{\hat v} + \epsilon)` with the moments of `adam`. If `multiplicative`,

    .. math:: b \leftarrow b \max\left(1 + \beta \frac{g^T u}{\|g\| \|u\|}, 0\right)

    where 0/0 counts as 0: the factor of the rate is at most :math:`1 + \beta`, for gradients of any size.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. All components have one rate; for a rate for each group of parameters use a rule for each.
    step_size : scalar or schedule
        The first rate :math:`b`. The rule learns the difference of :math:`b` to the present step size or, if
        `multiplicative`, the ratio.
    direction : str
        "sgd", "nesterov" or "adam".
    meta_step_size : scalar, optional
        :math:`\beta`, in units of the step size over those of :math:`g^T u`, and without units if `multiplicative`; at
        least 0. By default 1e-3 for "sgd" and "nesterov", 1e-7 for "adam", and 0.02 if `multiplicative`.
    multiplicative : bool
        Whether an update multiplies the rate, or adds to it.
    momentum : scalar, optional
        :math:`\mu` of "nesterov", between 0 and 1; 0.9 by default.
    mean_weight, mean_square_weight, epsilon : scalar, optional
        Options of "adam", see `adam`; 0.9, 0.999 and 1e-8 by default.

    Returns
    -------
    dict
        Next values of the parameters and directions; of :math:`b - a` or, if `multiplicative`, :math:`b / a`, with the
        present step size :math:`a`; of the velocities or moments; of the count of updates with "adam" or a schedule.

    Raises
    ------
    ValueError
        Also if an option is given that the direction does not have.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component for "sgd", two for "nesterov", three for
    "adam". The paper has no lower bound of the rate, which may then become negative.

    References
    ----------
    Almeida, Langlois, Amaral and Plakhov (1998), Parameter adaptation in stochastic optimization; Baydin, Cornish,
    Rubio, Schmidt and Wood (2018), Online learning rate adaptation with hypergradient descent, algorithms 4 to 6 and
    section 3.2; its experiments have the defaults of `step_size` and of :math:`\beta`.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.hypergradient([x], cost, step_size=0.001, direction="adam", multiplicative=True)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(400):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    check_choice("direction", direction, ("sgd", "nesterov", "adam"))
    check_flag("multiplicative", multiplicative)
    adam = direction == "adam"
    beta = _option(
        "meta_step_size", meta_step_size, 0.02 if multiplicative else 1e-7 if adam else 1e-3, True, direction
    )
    weight = _option("momentum", momentum, 0.9, direction == "nesterov", direction, high=1)
    w1 = _option("mean_weight", mean_weight, 0.9, adam, direction, below=1)
    w2 = _option("mean_square_weight", mean_square_weight, 0.999, adam, direction, below=1)
    epsilon = _option("epsilon", epsilon, 1e-8, adam, direction)

    a, directions = f.step_size(step_size), [f.zeros_like(p, "direction") for p in f.parameters]
    slope = inner(f.gradients, directions)
    new: Updates = {}
    if multiplicative:
        gain = f.state("gain", fill=1)
        cosine = ratio(slope, pt.sqrt(inner(f.gradients, f.gradients)) * pt.sqrt(inner(directions, directions)))
        new[gain] = gain * pt.maximum(1.0 + beta * cosine, 0.0)
        rate = a * new[gain]
    else:
        learned = f.state("learned")
        rate = pt.maximum(a + learned + beta * slope, 0.0)
        new[learned] = rate - a

    corrections = [correction(w, f.count + 1) for w in (w1, w2)] if adam else [w1, w2]
    for (p, g, b, mu, c1, c2, eps), u in zip(f.each(rate, weight, *corrections, epsilon), directions, strict=True):
        new[u] = g
        if direction == "nesterov":
            v = f.zeros_like(p, "velocity")
            new[v] = mu * v + g
            new[u] = g + mu * new[v]
        elif adam:
            m, v = f.zeros_like(p, "mean"), f.zeros_like(p, "mean_square")
            new[m] = f.average(m, g, w1)
            new[v] = f.average(v, g**2, w2)
            new[u] = (new[m] / c1) / (pt.sqrt(new[v] / c2) + eps)
        new[p] = p - b * new[u]
    return f.finish(new)


# What these rules share


def _agreement(a: Any, b: Any) -> Any:
    """1 where `a` and `b` have the same sign, -1 where they have opposite signs, 0 where one is 0."""
    # The product of a and b may underflow.
    return pt.sign(a) * pt.sign(b)


def _adapted(rate: Any, agree: Any, larger: Any, smaller: Any) -> Any:
    """`larger` where the signs agree, `smaller` where they are opposite, else `rate`."""
    return pt.switch(agree > 0, larger, pt.switch(agree < 0, smaller, rate))


def _clipped(value: Any, low: Any, high: Any) -> Any:
    """`value` within bounds."""
    # Two nodes, since PyTensor's Python implementation of a clip goes element by element.
    return pt.minimum(pt.maximum(value, low), high)


def _outlies(value: Any, mean: Any, mean_square: Any, max_variances: Any) -> Any:
    """Whether the square of the deviation from the mean exceeds `max_variances` variances; False without statistics."""
    # With a variance at the level of round-off, rounding errors would be outliers.
    variance = pt.maximum(mean_square - mean**2, 8 * np.finfo(mean.dtype).eps.item() * mean_square)
    return (mean_square > 0) & ((value - mean) ** 2 > max_variances * variance)


def _bound(argument: str, value: Any) -> Any:
    """`value` as an upper bound; infinity for None."""
    return pt.constant(np.float64(np.inf)) if value is None else scalar(argument, value, 0)


def _option(argument: str, value: Any, default: float, applies: bool, choice: str, **limits: float) -> Any:
    """`value` as a scalar of at least 0, by default `default`; a value that does not apply to `choice` is refused."""
    if value is not None and not applies:
        raise ValueError(f"{argument} is not an option of {choice!r}; leave it out")
    return scalar(argument, default if value is None else value, 0, **limits)


# Second derivatives


def _check_curvature(curvature: Any, f: Objective) -> list[Any]:
    """The absolute value of the option `curvature`, checked: for each parameter a tensor of its dtype."""
    curvature = check_gradients(curvature, f.parameters, "curvature")
    return [abs(as_dtype(c, p.type.dtype)) for c, p in zip(curvature, f.parameters, strict=True)]


def _second_derivatives(f: Objective) -> list[Any]:
    """The absolute value of the diagonal of the Hessian, exactly."""
    diagonals = []
    for p, g in zip(f.parameters, f.gradients, strict=True):
        shape, direction = state.shape_of(p), p.type()
        size = prod(shape)
        if not size:
            diagonals.append(pt.zeros_like(p))
            continue
        [product] = f.products([p], [g], [direction])
        basis = pt.constant(np.eye(size, dtype=p.type.dtype).reshape(size, *shape))
        rows: Any = vectorize_graph(product, {direction: basis})
        diagonals.append(like(abs(pt.sum(basis * rows, axis=0)), p))
    return diagonals


def _differenced(f: Objective, means: Sequence[Any]) -> list[Any]:
    """The curvatures along the mean gradients, as finite differences."""
    steps = [pt.switch(pt.eq(mean, 0), g, mean) for mean, g in zip(means, f.gradients, strict=True)]
    points = {p: like(p + step, p) for p, step in zip(f.parameters, steps, strict=True)}
    gradients = replaced(f.gradients, points)
    return [abs(ratio(shifted - g, step)) for shifted, g, step in zip(gradients, f.gradients, steps, strict=True)]
