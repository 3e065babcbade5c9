"""Rules with the diagonal of a matrix of second derivatives, which is estimated in passing.

That of the Hessian by Hutchinson's method: the product with a vector of random signs, times these signs, is the
diagonal in the mean. A product takes about as long as a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from ..checks import as_dtype, check_choice, check_cost, check_count
from ..draws import random_signs
from ..gradients import is_transformed
from ..graph.derivatives import differentiate
from ..graph.loops import FALSE, cond, repeat
from ..graph.replace import replaced
from ..hints import hinted
from ..moments import correction
from ..objective import Objective, Product
from ..typing import Bounds, Mask, Scalar, StepSize, Updates, Variables


@hinted
def sophia(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 8e-4,
           mean_weight: Scalar = 0.965, curvature_weight: Scalar = 0.99, scale: Scalar = 0.01, clip: Scalar = 1.0,
           epsilon: Scalar = 1e-8, every: int = 10, curvature: str = "hutchinson", seed: int = 0,
           sampled_cost: Variable | None = None, batch_size: Scalar | None = None, decay: StepSize = 1e-4,
           mask: Mask | None = None, bounds: Bounds | None = None, tolerance: Scalar | None = None,
           ascent: bool = False, name: str = "sophia") -> Updates:  # fmt: skip
    r"""Sophia: a mean gradient over a running diagonal of second derivatives, clipped component by component.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        x \leftarrow x - a \lambda x - a \, \mathrm{clip}\left(\frac{\hat m}{\max(\gamma h, \epsilon)}, c\right), \qquad
        h \leftarrow \beta_2 h + (1 - \beta_2) d

    with :math:`\hat m = m / (1 - \beta_1^t)`. The diagonal :math:`d` is estimated at the first update and at every
    `every`-th after it, and the steps from the next update on see it. Where the curvature is negative or not known a
    step is :math:`a c` along the sign of the mean, as in `signum`; so are the first steps.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. Where gradients were clipped or otherwise transformed the cost is needed too.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, curvature_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    scale : scalar
        :math:`\gamma`: the smaller, the more components are clipped. The authors tune it so that 10 to 50 % are not.
    clip : scalar
        :math:`c`.
    epsilon : scalar
        :math:`\epsilon`, in units of the second derivatives.
    every : int
        The number of updates from one estimate to the next.
    curvature : str
        "hutchinson", one product of the Hessian with random signs; "diagonal", the diagonal of the Hessian exactly, by
        as many products as there are components; or "gauss_newton", from `sampled_cost`.
    seed : int
        Of the random signs. They are a function of it and of the count of updates, so there is no generator.
    sampled_cost : scalar variable, optional
        For "gauss_newton": the mean cost of the batch with labels that are drawn from the model itself. Its gradient
        :math:`g_s` gives :math:`d = B g_s^2`, the Gauss-Newton-Bartlett estimate, which is never negative.
    batch_size : scalar, optional
        :math:`B`, the number of examples in the batch, with `sampled_cost`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, means, diagonals and the count of updates.

    Raises
    ------
    ValueError
        Also if the cost has no second derivatives, or the options do not fit `curvature`.

    Notes
    -----
    Cost per call: one gradient, and one product or gradient more in every `every`-th. Memory: two numbers per parameter
    component. The paper takes a new estimate into the step of the same update; here, as in optax, it counts from the
    next one on.

    References
    ----------
    Liu, Li, Hall, Liang and Ma (2024), Sophia: a scalable stochastic second-order optimizer for language model
    pre-training, algorithms 1 to 3; Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum([1.0, 100.0] * (x - [1.0, 2.0]) ** 2)
    >>> falling = optapi.schedules.Linear(0.1, 400)
    >>> updates = optapi.sophia([x], cost, step_size=falling, scale=1.0, mean_weight=0.9)
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
    w2 = f.scalar("curvature_weight", curvature_weight, 0, below=1)
    a, due = f.step_size(step_size), pt.eq(f.count % check_count("every", every), 0)
    estimate = _estimator(f, curvature, _check_seed(seed), sampled_cost, batch_size)
    [diagonal] = cond(due, estimate, [f.pack(f.parameters), f.count], [pt.zeros(f.size, dtype=f.dtype)])
    scalars = [f.scalar(n, v, low=0) for n, v in (("scale", scale), ("epsilon", epsilon), ("clip", clip))]
    new: Updates = {}
    for (p, g, a_t, c, gamma, eps, top), d in zip(
        f.each(a, correction(w1, f.count + 1), *scalars), f.unpack(diagonal), strict=True
    ):
        m, h = f.momentum(p, "mean"), f.zeros_like(p, "curvature")
        new |= {m: f.average(m, g, w1), h: pt.switch(due, f.average(h, d, w2), h)}
        new[p] = p - a_t * pt.clip(new[m] / c / pt.maximum(gamma * h, eps), -top, top)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def adahessian(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
               stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 0.1,
               mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-4,
               power: Scalar = 1.0, block: int = 1, seed: int = 0, decay: StepSize = 0.0, mask: Mask | None = None,
               bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
               name: str = "adahessian") -> Updates:  # fmt: skip
    r"""AdaHessian: Adam with estimates of the diagonal of the Hessian in the place of gradients in its mean square.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) \bar d^2, \qquad
        x \leftarrow x - a \lambda x - a \frac{\hat m}{\hat v^{k/2} + \epsilon}

    with :math:`d = z \cdot H z` for a new vector :math:`z` of random signs at each update, whose mean over blocks of
    neighbors is :math:`\bar d`; hats divide by :math:`1 - \beta^t`. On a quadratic with a diagonal Hessian a step is
    Newton's, by the mean gradient.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule. Where gradients were clipped or otherwise transformed the cost is needed too.
    step_size : scalar or schedule
        :math:`a`; about 1 is a Newton step, so larger than that of `adam`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the second derivatives to the power :math:`k`.
    power : scalar
        :math:`k`, from 0 to 1. With 0 it is a mean gradient.
    block : int
        The number of neighbors along the last axes, in the order of memory, that share the mean of their estimates, for
        instance the size of a kernel. A parameter whose number of components is no multiple of it keeps its own.
    seed : int
        Of the random signs. They are a function of it and of the count of updates, so there is no generator.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters, of the means, the mean squares and the count of updates.

    Raises
    ------
    ValueError
        Also if the cost has no second derivatives.

    Notes
    -----
    Cost per call: one gradient and one product with the Hessian. Memory: two numbers per parameter component.

    References
    ----------
    Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney (2021), ADAHESSIAN: an adaptive second order optimizer for machine
    learning, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> cost = pt.sum([1.0, 100.0] * (x - [1.0, 2.0]) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adahessian([x], cost, step_size=0.1))
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    a, t, block = f.step_size(step_size), f.count + 1, check_count("block", block)
    [diagonal] = _estimator(f, "hutchinson", _check_seed(seed))(f.pack(f.parameters), f.count)
    scalars = 0.5 * f.scalar("power", power, 0, 1), f.scalar("epsilon", epsilon, low=0)
    new: Updates = {}
    for (p, g, a_t, c1, c2, half_k, eps), d in zip(
        f.each(a, correction(w1, t), correction(w2, t), *scalars), f.unpack(diagonal), strict=True
    ):
        m, v = f.momentum(p, "mean"), f.zeros_like(p, "mean_square")
        new |= {m: f.average(m, g, w1), v: f.average(v, _block_means(d, f.shape(p), block) ** 2, w2)}
        new[p] = p - a_t * (new[m] / c1) / ((new[v] / c2) ** half_k + eps)
    return f.finish(f.decay(new, decay, mask, step_size=a))


# The estimates


def _estimator(
    f: Objective, curvature: str, seed: int, sampled_cost: Any = None, batch_size: Scalar | None = None
) -> Callable[[Any, Any], list[Any]]:
    """From the packed point and the count to an estimate of the packed diagonal there, in a list."""
    check_choice("curvature", curvature, ("hutchinson", "diagonal", "gauss_newton"))
    if (curvature == "gauss_newton") != (sampled_cost is not None) or (sampled_cost is None) != (batch_size is None):
        raise ValueError('sampled_cost and batch_size go with curvature="gauss_newton"; pass all three or none')
    if curvature == "gauss_newton":
        sampled = [as_dtype(g, f.dtype) for g in differentiate(check_cost(sampled_cost), f.parameters)]
        examples = as_dtype(f.scalar("batch_size", batch_size, low=0), f.dtype)  # type: ignore[arg-type]

        def bartlett(point: Any, count: Any) -> list[Any]:
            there = replaced(sampled, dict(zip(f.parameters, f.unpack(point), strict=True)))
            return [examples * f.pack(there) ** 2]

        return bartlett
    product = _hessian(f)

    def hutchinson(point: Any, count: Any) -> list[Any]:
        signs = random_signs(f.size, f.dtype, seed, count)
        return [signs * product(point, signs)]

    def exact(point: Any, count: Any) -> list[Any]:
        def turn(i: Any, diagonal: Any) -> Any:
            unit = pt.eq(np.arange(f.size), i).astype(f.dtype)
            return [i + 1, diagonal + unit * product(point, unit)], FALSE

        return repeat(turn, [pt.constant(np.int64(0)), pt.zeros(f.size, dtype=f.dtype)], f.size)[1:]

    return hutchinson if curvature == "hutchinson" else exact


def _hessian(f: Objective) -> Product:
    """Products with the Hessian, as a function of a packed point and a packed vector."""
    above = set(ancestors(f.gradients))
    if above.intersection(f.parameters) and not any(map(is_transformed, above)):
        return f.curvature()
    if f.cost is None:
        raise ValueError(
            f"{f.name} differentiates the gradients once more, and those given were transformed, or do not depend on "
            "the parameters; pass cost= beside them"
        )
    return replace(f, gradients=differentiate(f.cost, f.parameters)).curvature()


def _check_seed(seed: int) -> int:
    if check_count("seed", seed, low=0) >= 2**32:
        raise ValueError(f"seed is {seed}; pass an int below 2**32")
    return seed


def _block_means(tensor: Any, shape: tuple[int, ...], block: int) -> Any:
    """`tensor` with the mean of each block of neighbors in the place of its components."""
    size = prod(shape)
    if block == 1 or size % block or not size:
        return tensor
    means = pt.mean(tensor.reshape((size // block, block)), axis=1, keepdims=True)
    return (means + pt.zeros((1, block), dtype=tensor.type.dtype)).reshape(shape)
