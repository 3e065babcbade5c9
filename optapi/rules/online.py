"""Online rules: regularized leaders, and steps in other geometries, for streams of gradients."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_dtype, check_axis, check_choice
from ..hints import hinted
from ..objective import Objective
from ..prox import L1, l1_weights, soft
from ..typing import Axis, Scalar, StepSize, Updates, Variables, Weights


@hinted
def ftrl(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.1,
         offset: Scalar = 1.0, l1: Scalar = 0.0, l2: Scalar = 0.0, tolerance: Scalar | None = None,
         ascent: bool = False, name: str = "ftrl") -> Updates:  # fmt: skip
    r"""FTRL-proximal: the regularized leader of a stream, with a step size for each component and exact zeros.

    .. math::
        z \leftarrow z + g - \frac{\sqrt{n + g^2} - \sqrt n}{a} x, \qquad n \leftarrow n + g^2, \qquad
        x \leftarrow \begin{cases} 0 & |z| \le \lambda_1 \\
        -\frac{z - \operatorname{sgn}(z) \lambda_1}{(\beta + \sqrt n) / a + \lambda_2} & \text{else} \end{cases}

    It is the minimizer of the sum of all linearized costs so far, of :math:`\lambda_1 |x|_1 + \frac{\lambda_2}{2} x^2`,
    once, and of the squared distances to the points so far. Without both penalties and :math:`\beta` it is `adagrad`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    offset : scalar
        :math:`\beta`, in units of the gradient, at least 0.
    l1 : scalar
        :math:`\lambda_1`, at least 0, in units of the sum of the gradients: it belongs to the whole stream, and not to
        each cost.
    l2 : scalar
        :math:`\lambda_2`, at least 0. The penalty is :math:`\frac{\lambda_2}{2} x^2`; that of TensorFlow is twice as
        large.

    Returns
    -------
    dict
        Next values of the parameters, of both sums, and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component. The parameters are a function of the sums.
    So the first call sets :math:`z = -(\beta / a + \lambda_2) x - \lambda_1 \operatorname{sgn}(x)`, of which they are
    the function; else they would be 0 after it, wherever they start.

    References
    ----------
    McMahan et al. (2013), Ad click prediction: a view from the trenches, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 0.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.ftrl([x], cost, step_size=1.0, l1=1.0))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 0.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    scalars = [f.scalar(key, value, low=0) for key, value in (("offset", offset), ("l1", l1), ("l2", l2))]
    is_first = pt.eq(f.count, 0)
    new = {}
    for p, g, a, beta, lam1, lam2 in f.each(f.step_size(step_size), *scalars):
        z, n = f.zeros_like(p, "sum"), f.zeros_like(p, "sum_of_squares")
        start = pt.switch(is_first, -(beta / a + lam2) * p - lam1 * pt.sign(p), z)
        new[n] = n + g**2
        new[z] = start + g - (pt.sqrt(new[n]) - pt.sqrt(n)) / a * p
        divisor = (beta + pt.sqrt(new[n])) / a + lam2
        # Without an offset, where all gradients so far were 0.
        new[p] = pt.switch(divisor > 0, soft(-new[z], lam1) / pt.switch(divisor > 0, divisor, pt.ones_like(p)), p)
        new[p] = pt.switch(pt.isnan(divisor), divisor, new[p])
    return f.finish(new)


@hinted
def rda(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
        l1: Weights | None = None, tolerance: Scalar | None = None, ascent: bool = False,
        name: str = "rda") -> Updates:  # fmt: skip
    r"""Regularized dual averaging: the mean of all gradients so far, with exact zeros by an L1 penalty.

    .. math::
        \bar g \leftarrow \bar g + \frac{g - \bar g}{t}, \qquad
        x \leftarrow \operatorname{soft} \left( x_1 - a \sqrt t \, \bar g, \; a \sqrt t \, \lambda \right)

    with :math:`x_1` the start, :math:`t` the number of the update, from 1, and
    :math:`\operatorname{soft}(v, s) = \operatorname{sgn}(v) \max(|v| - s, 0)`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the :math:`1/\gamma` of the paper.
    l1 : scalar, array, dict or list, optional
        :math:`\lambda`, which is added to each cost, in the forms of `lbfgs`.

    Returns
    -------
    dict
        Next values of the parameters, of the mean, of the start and of the count of updates.

    Notes
    -----
    Cost per call: one gradient. Memory: two numbers per parameter component. Zeros are more stable than those of a
    proximal step, as the threshold grows with :math:`\sqrt t`, and does not shrink with a step size. Begin at 0 for few
    components that are not 0.

    References
    ----------
    Xiao (2010), Dual averaging methods for regularized stochastic learning and online optimization, algorithm 1 and
    equation 10, with the squared distance to the start in the place of the squared norm.

    Examples
    --------
    >>> x = pytensor.shared(np.array([0.0, 0.0]), name="x")
    >>> cost = pt.sum((x - [3.0, 0.5]) ** 2) / 2
    >>> step = pytensor.function([], cost, updates=optapi.rda([x], cost, step_size=0.5, l1=1.0))
    >>> for _ in range(300):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1.88, 0.  ])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    weights = [None] * len(f.parameters) if l1 is None else l1_weights(l1, f.parameters)
    f.penalties = None if l1 is None else [None if weight is None else L1(weight) for weight in weights]
    converged = f.converged()
    f.penalties = None
    t = f.count + 1
    new: Updates = {}
    rates = f.step_size(step_size) * pt.sqrt(t), 1.0 / t
    for (p, g, rate, share), weight in zip(f.each(*rates), weights, strict=True):
        mean, first = f.zeros_like(p, "mean"), f.zeros_like(p, "start")
        new[mean] = mean + share * (g - mean)
        new[first] = pt.switch(pt.eq(f.count, 0), p, first)
        ahead = new[first] - rate * new[mean]
        new[p] = ahead if weight is None else soft(ahead, rate * weight)
    return f.finish(new, converged)


@hinted
def mirror_descent(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
                   stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
                   geometry: str = "simplex", axis: Axis = None, tolerance: Scalar | None = None,
                   ascent: bool = False, name: str = "mirror_descent") -> Updates:  # fmt: skip
    r"""Mirror descent with the entropy: exponentiated gradients, on a simplex or among positive numbers.

    .. math::
        x \leftarrow \frac{x \, e^{-a g}}{\sum_i x_i e^{-a g_i}}, \qquad \text{or} \qquad
        x \leftarrow x \, e^{-a g}

    with the `geometry` ``"simplex"``, or ``"positive"``. A component that is 0 stays 0.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, in units of one over the gradient.
    geometry : "simplex" or "positive"
        Whether components sum up to 1.
    axis : int or tuple of int, optional
        Along which axes of each parameter they do; by default all components of a parameter sum up to 1.
    tolerance : scalar, optional
        It has converged when no component of the residual exceeds it: of :math:`x (g - x^T g)` on a simplex, of
        :math:`x g` among positive numbers.

    Returns
    -------
    dict
        Next values of the parameters, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: none. The start should be positive; on a simplex the first call scales it to
    the sum 1. On a simplex a constant that is added to the gradient changes nothing.

    References
    ----------
    Kivinen and Warmuth (1997), Exponentiated gradient versus gradient descent for linear predictors, equation 3.2; Beck
    and Teboulle (2003), Mirror descent and nonlinear projected subgradient methods for convex optimization, section 5.

    Examples
    --------
    >>> x = pytensor.shared(np.full(3, 1 / 3), name="x")
    >>> cost = pt.sum((x - [0.7, 0.5, -1.0]) ** 2) / 2
    >>> step = pytensor.function([], cost, updates=optapi.mirror_descent([x], cost, step_size=1.0))
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([0.6, 0.4, 0. ])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    check_choice("geometry", geometry, ("simplex", "positive"))
    check_axis("axis", axis)
    on_simplex = geometry == "simplex"
    new, residuals, sums = {}, [], []
    for p, g, a in f.each(f.step_size(step_size)):
        if not on_simplex:
            new[p] = p * pt.exp(-a * g)
            residuals.append(p * g)
            continue
        total = pt.sum(p, axis=axis, keepdims=True)
        residuals.append(p * (g - pt.sum(p * g, axis=axis, keepdims=True)))
        sums.append(abs(total - 1))
        # The smallest gradient of a component that is not 0, so that nothing overflows and not all become 0.
        infinite = np.asarray(np.inf, p.type.dtype)
        least = pt.min(pt.switch(pt.eq(p, 0), infinite, g), axis=axis, keepdims=True)
        grown = p * pt.exp(-a * pt.switch(pt.eq(p, 0), pt.zeros_like(g), g - least))
        new[p] = grown / pt.sum(grown, axis=axis, keepdims=True)
    converged = f.converged(residuals)
    for part in sums:
        converged = converged & pt.all(part <= as_dtype(pt.constant(1e-6), part.type.dtype))
    return f.finish(new, converged)
