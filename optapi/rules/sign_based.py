"""Rules that step by the sign of a running mean, so that every component moves by the step size."""

from __future__ import annotations

import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import is_zero
from ..hints import hinted
from ..objective import Objective
from ..typing import Bounds, Mask, Scalar, StepSize, Updates, Variables


@hinted
def lion(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-4,
         mean_weight: Scalar = 0.9, memory_weight: Scalar = 0.99, decay: StepSize = 0.0, mask: Mask | None = None,
         bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
         name: str = "lion") -> Updates:  # fmt: skip
    r"""Lion: the sign of a mix of the running mean and the gradient.

    .. math::
        x \leftarrow x - a \lambda x - a \, \mathrm{sgn}(\beta_1 m + (1 - \beta_1) g), \qquad
        m \leftarrow \beta_2 m + (1 - \beta_2) g

    The step takes the old mean :math:`m`. All components move by :math:`a` where their sign is not 0, and a multiple of
    the cost changes nothing. With :math:`\beta_1 = \beta_2` it is `signum`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the change of a component in an update: 3 to 10 times less than that of `adamw`.
    mean_weight : scalar
        :math:`\beta_1`, the weight of the mean in the step, from 0 to 1.
    memory_weight : scalar
        :math:`\beta_2`, the weight of the past in the mean, from 0 to below 1.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`: 3 to 10 times more than there.
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
    Cost per call: one gradient. Memory: one number per parameter component. It is for large batches: at a minimizer the
    steps do not shrink, so lower the step size by a schedule.

    References
    ----------
    Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu and Le (2023), Symbolic discovery of optimization
    algorithms, algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.lion([x], cost, step_size=optapi.schedules.Linear(0.1, 400))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(400):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    new: Updates = {}
    a = f.step_size(step_size)
    w1, w2 = f.scalar("mean_weight", mean_weight, 0, 1), f.scalar("memory_weight", memory_weight, 0, below=1)
    for p, g, rate in f.each(a):
        m = f.momentum(p, "mean")
        new |= {p: p - rate * pt.sign(f.average(m, g, w1)), m: f.average(m, g, w2)}
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def signum(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
           momentum: Scalar = 0.9, decay: StepSize = 0.0, mask: Mask | None = None, bounds: Bounds | None = None,
           tolerance: Scalar | None = None, ascent: bool = False, name: str = "signum") -> Updates:  # fmt: skip
    r"""Signum: the sign of the running mean; sign gradient descent without momentum.

    .. math:: m \leftarrow \mu m + (1 - \mu) g, \qquad x \leftarrow x - a \lambda x - a \, \mathrm{sgn}\, m

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the change of a component in an update.
    momentum : scalar
        :math:`\mu`, from 0 to below 1; with 0 there is no mean.
    decay, mask, bounds
        As in `lion`.

    Returns
    -------
    dict
        Next values of the parameters; of the means if there is momentum; of the count of updates if there is a
        schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: one number per parameter component, none without momentum.

    References
    ----------
    Bernstein, Wang, Azizzadenesheli and Anandkumar (2018), signSGD: compressed optimisation for non-convex problems,
    algorithm 2.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum((x - [1.0, 2.0]) ** 2)
    >>> updates = optapi.signum([x], cost, step_size=optapi.schedules.Linear(0.05, 200))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    a, mu = f.step_size(step_size), f.scalar("momentum", momentum, 0, below=1)
    new: Updates = {}
    for p, g, rate in f.each(a):
        if not is_zero(momentum):
            m = f.momentum(p, "mean")
            new[m] = g = f.average(m, g, mu)
        new[p] = p - rate * pt.sign(g)
    return f.finish(f.decay(new, decay, mask, step_size=a))
