"""Rules for matrices: steps that depend on the rows and columns of a gradient, not on its components one by one.

For weights of ``x @ W``, of shape (inputs, outputs). A vector is no matrix: `muon` hands it to another rule, the others
have a form for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_dtype, called, check_callable, check_choice, check_count, check_flag, check_mask, is_zero
from ..graph.loops import FALSE, cond, repeat
from ..hints import hinted
from ..moments import correction, running_average
from ..objective import Objective
from ..typing import Bounds, Mask, Scalar, StepSize, Tensor, Updates, Variables
from ..updates import extend
from ..vectors import guarded, norm, root_mean_square
from ._linear_algebra import ratio
from .first_order import adamw


# Coefficients (a, b, c) of the turns X <- a X + (b A + c A A) X with A = X X' that bring singular values near to 1; the
# last ones are used again.
JORDAN = ((3.4445, -4.7750, 2.0315),)
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


@hinted
def adafactor(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
              stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2,
              variant: str = "torch", mean_square_exponent: Scalar = 0.8, clip: Scalar = 1.0,
              epsilon: Scalar | None = None, minimum_scale: Scalar = 1e-3, scale: bool = True, factor_from: int = 0,
              mean_weight: Scalar | None = None, decay: StepSize = 0.0, mask: Mask | None = None,
              bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
              name: str = "adafactor") -> Updates:  # fmt: skip
    r"""Adafactor: gradients over the root of a mean square that a matrix keeps as its row and column means.

    .. math::
        R \leftarrow w_t R + (1 - w_t) \mathrm{mean}_{columns}(g^2), \qquad
        C \leftarrow w_t C + (1 - w_t) \mathrm{mean}_{rows}(g^2), \qquad V = \frac{R C}{\mathrm{mean}(R)}

        u = \frac{g}{\sqrt V}, \qquad u \leftarrow \frac{u}{\max(1, \mathrm{rms}(u) / c)}, \qquad
        x \leftarrow x - a \lambda x - \min(a, 1/\sqrt t) \max(\mathrm{rms}(x), s) u

    with :math:`w_t = 1 - t^{-\gamma}` and the root mean square rms of a tensor. A vector keeps its mean square as it
    is, and a tensor of more dimensions has the means of its last two axes.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, the change of a tensor relative to its root mean square.
    variant : str
        "torch", where :math:`V` is at least :math:`\epsilon^2` and its denominator at least :math:`\epsilon`; "paper",
        where :math:`\epsilon` is added to :math:`g^2`; or "optax", as "paper" but with :math:`a` in the place of
        :math:`\min(a, 1/\sqrt t)`, and a decay without :math:`a`.
    mean_square_exponent : scalar
        :math:`\gamma`.
    clip : scalar
        :math:`c`, above 0.
    epsilon : scalar, optional
        :math:`\epsilon`; by default the machine precision for "torch", 1e-30 for the others.
    minimum_scale : scalar
        :math:`s`, in units of the parameters.
    scale : bool
        Whether the root mean square of the parameters multiplies the step.
    factor_from : int
        A tensor is only factored if its last two axes are at least that long; 128 in optax.
    mean_weight : scalar, optional
        The weight of a running mean of the steps, from 0 to below 1; by default there is none.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters; of the means of rows and columns, or the mean squares; of the means if there is a
        `mean_weight`; of the count of updates.

    Notes
    -----
    Cost per call: one gradient and two norms. Memory: m + n numbers for a matrix of m rows and n columns, one per
    component of a vector.

    References
    ----------
    Shazeer and Stern (2018), Adafactor: adaptive learning rates with sublinear memory cost, algorithms 4 to 6.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - 1.0) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.adafactor([W], cost, step_size=0.1))
    >>> for _ in range(500):
    ...     _ = step()
    >>> W.get_value().round(1)
    array([[1., 1.],
           [1., 1.]])
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    check_choice("variant", variant, ("torch", "paper", "optax"))
    check_flag("scale", scale)
    check_count("factor_from", factor_from, low=0)
    a, t = f.step_size(step_size), (f.count + 1).astype("float64")
    weight = 1.0 - t ** -f.scalar("mean_square_exponent", mean_square_exponent, 0)
    rate = a if variant == "optax" else pt.minimum(a, 1 / pt.sqrt(t))
    scalars = f.scalar("clip", clip, low=np.finfo("float64").tiny), f.scalar("minimum_scale", minimum_scale, low=0)
    new: Updates = {}
    for p, g, a_t, c, s in f.each(rate, *scalars):
        precision = np.finfo(p.type.dtype).eps if variant == "torch" else 1e-30
        eps = as_dtype(f.scalar("epsilon", precision if epsilon is None else epsilon, low=0), p.type.dtype)
        square = g**2 if variant == "torch" else g**2 + eps
        root = _factored(f, new, p, square, weight, factor_from, eps if variant == "torch" else None)
        u = g / (pt.maximum(root, eps) if variant == "torch" else root)
        u = a_t * u / pt.maximum(root_mean_square(u) / c, np.ones((), p.type.dtype))
        u = u * pt.maximum(root_mean_square(p), s) if scale else u
        if mean_weight is not None:
            m = f.momentum(p, "mean")
            new[m] = u = f.average(m, u, f.scalar("mean_weight", mean_weight, 0, below=1))
        new[p] = p - u
    return f.finish(f.decay(new, decay, mask, step_size=1.0 if variant == "optax" else a))


@hinted
def came(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *,
         step_size: StepSize = 2e-4, mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999,
         instability_weight: Scalar = 0.9999, clip: Scalar = 1.0, epsilon: Scalar = 1e-30,
         instability_epsilon: Scalar = 1e-16, decay: StepSize = 0.0, mask: Mask | None = None,
         bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
         name: str = "came") -> Updates:  # fmt: skip
    r"""CAME: Adafactor with a mean of its steps, which are smaller where they vary.

    .. math::
        u = \frac{g}{\sqrt V}, \qquad u \leftarrow \frac{u}{\max(1, \mathrm{rms}(u) / c)}, \qquad
        m \leftarrow \beta_1 m + (1 - \beta_1) u, \qquad
        x \leftarrow x - a \lambda x - a \frac{m}{\sqrt{S}}

    with the factored running mean squares :math:`V` of :math:`g^2 + \epsilon` and :math:`S` of
    :math:`(u - m)^2 + \epsilon_s`, see `adafactor`, with the constant weights :math:`\beta_2` and :math:`\beta_3`. For
    a vector :math:`V` is not factored, and :math:`S = 1`. Nothing is corrected: the first steps are small.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight, mean_square_weight, instability_weight : scalar
        :math:`\beta_1`, :math:`\beta_2` and :math:`\beta_3`, from 0 to below 1.
    clip : scalar
        :math:`c`, above 0.
    epsilon, instability_epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient, and :math:`\epsilon_s`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters and means, of the means of rows and columns, or the mean squares; of the count of
        updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient and a norm. Memory: one number per component, and for a matrix of m rows and n columns
    2 (m + n) more.

    References
    ----------
    Luo, Ren, Zheng, Jiang, Jiang and You (2023), CAME: confidence-guided adaptive memory efficient optimization,
    algorithm 2.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.came([W], cost, step_size=optapi.schedules.Linear(0.1, 400)))
    >>> for _ in range(400):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.02))
    True
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    w3 = f.scalar("instability_weight", instability_weight, 0, below=1)
    small = f.scalar("epsilon", epsilon, low=0), f.scalar("instability_epsilon", instability_epsilon, low=0)
    a, top = f.step_size(step_size), f.scalar("clip", clip, low=np.finfo("float64").tiny)
    new: Updates = {}
    for p, g, a_t, c, eps, eps_s in f.each(a, top, *small):
        m = f.momentum(p, "mean")
        u = g / _factored(f, new, p, g**2 + eps, w2)
        u = u / pt.maximum(root_mean_square(u) / c, np.ones((), p.type.dtype))
        new[m] = f.average(m, u, w1)
        is_steady = p.type.ndim < 2 or 0 in f.shape(p)
        root = 1 if is_steady else _factored(f, new, p, (u - new[m]) ** 2 + eps_s, w3, role="instability_")
        new[p] = p - a_t * (new[m] if is_steady else new[m] / root)
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def sm3(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
        stop: Variable | None = None, updates: Updates | None = None, *,
        step_size: StepSize = 0.1, momentum: Scalar = 0.9, mean_square_weight: Scalar = 1.0,
        epsilon: Scalar = 1e-30, decay: StepSize = 0.0, mask: Mask | None = None,
        bounds: Bounds | None = None, tolerance: Scalar | None = None, ascent: bool = False,
        name: str = "sm3") -> Updates:  # fmt: skip
    r"""SM3: AdaGrad with a sum of squares for each row and each column.

    .. math::
        v_{ij} = \min(r_i, c_j) + g_{ij}^2, \qquad r_i \leftarrow \max_j v_{ij}, \qquad c_j \leftarrow \max_i v_{ij}

        m \leftarrow \mu m + (1 - \mu) \frac{g}{\sqrt{v + \epsilon}}, \qquad x \leftarrow x - a \lambda x - a m

    for a matrix; a tensor has a vector for each axis, and of a vector it is `adagrad`. With a `mean_square_weight`
    :math:`\beta` below 1, :math:`v = \beta \min(r, c) + (1 - \beta) g^2`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    momentum : scalar
        :math:`\mu`, from 0 to below 1; with 0 there is no mean.
    mean_square_weight : scalar
        :math:`\beta`, from 0 to 1; 1 is for sums.
    epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.
    bounds : dict, list or pair, optional
        As in `lbfgs`. After a step the parameters are put inside, and a momentum that leads outside becomes 0.

    Returns
    -------
    dict
        Next values of the parameters and of the sums of each axis; of the means if there is momentum; of the count of
        updates if there is a schedule.

    Notes
    -----
    Cost per call: one gradient. Memory: a number for each row and column, and one per component with momentum.

    References
    ----------
    Anil, Gupta, Koren and Singer (2019), Memory-efficient adaptive optimization, algorithm SM3-II.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.sm3([W], cost, step_size=1.0, momentum=0.5))
    >>> for _ in range(200):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.02))
    True
    """
    f = Objective.of(
        parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name, bounds=bounds
    )
    a, mu = f.step_size(step_size), f.scalar("momentum", momentum, 0, below=1)
    w = f.scalar("mean_square_weight", mean_square_weight, 0, 1)
    fresh = pt.switch(pt.eq(w, 1), 1.0, 1.0 - w)
    new: Updates = {}
    for p, g, a_t, old, one, eps in f.each(a, w, fresh, f.scalar("epsilon", epsilon, low=0)):
        shape, rank = f.shape(p), p.type.ndim
        axes = list(range(rank)) if rank > 1 and 0 not in shape else [None]
        sums = [_sums_of_axis(f, p, axis) for axis in axes]
        v = sums[0]
        for other in sums[1:]:
            v = pt.minimum(v, other)
        v = old * v + one * g**2
        for axis, s in zip(axes, sums, strict=True):
            new[s] = v if axis is None else pt.max(v, axis=[i for i in range(rank) if i != axis], keepdims=True)
        u = ratio(g, pt.sqrt(v + eps))
        if not is_zero(momentum):
            m = f.momentum(p, "mean")
            new[m] = u = f.average(m, u, mu)
        new[p] = p - a_t * u
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def muon(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
         momentum: Scalar = 0.95, nesterov: bool = True, bias_correction: bool = False, iterations: int = 5,
         coefficients: str = "jordan", epsilon: Scalar = 1e-7, scale: str | None = "rms", outputs: str = "columns",
         decay: StepSize = 0.1, mask: Mask | None = None, matrices: Mask | None = None,
         others: Callable[..., Updates] | None = adamw, tolerance: Scalar | None = None, ascent: bool = False,
         name: str = "muon") -> Updates:  # fmt: skip
    r"""Muon: momentum for matrices, with all singular values of a step made about equal.

    .. math::
        m \leftarrow \mu m + (1 - \mu) g, \qquad B = \mu m + (1 - \mu) g, \qquad
        x \leftarrow x - a \lambda x - a k \, \mathrm{orth}(B)

    where :math:`\mathrm{orth}(U S V^T)` is about :math:`U V^T`, by a few Newton-Schulz turns: products of matrices, no
    decomposition. Without `nesterov` :math:`B = m`.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`; with the scale "rms" that of `adamw`.
    momentum : scalar
        :math:`\mu`, from 0 to below 1.
    nesterov : bool
        Whether to use Nesterov's momentum.
    bias_correction : bool
        Whether to divide the parts of :math:`B` by :math:`1 - \mu^{t+1}` and :math:`1 - \mu^t`, as optax does; without
        `nesterov` it changes nothing.
    iterations : int
        The number of Newton-Schulz turns.
    coefficients : str
        "jordan", with singular values that end between 0.68 and 1.16; "polar_express", between 0.85 and 1.15; or "svd",
        exact, by a singular value decomposition.
    epsilon : scalar
        What is added to the norm of :math:`B` that it is divided by, in units of the gradient.
    scale : str or None
        :math:`k`: "rms" for :math:`0.2 \sqrt{\max(inputs, outputs)}`, so that a step has the root mean square of one of
        `adamw`, and its step size and decay; "shape" for :math:`\sqrt{\max(1, outputs / inputs)}`, of the author;
        "spectral" for :math:`\sqrt{outputs / inputs}`; None for 1.
    outputs : str
        Where the outputs of a matrix are: "columns" for ``x @ W``, "rows" for ``W @ x``. A tensor of more dimensions is
        taken as a matrix with its last or its first axis as the outputs.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay of the matrices, see `adamw`.
    mask : list of bool, or callable, optional
        Which of the matrices decay, see `adamw`.
    matrices : list of bool, or callable, optional
        Which parameters are taken as matrices; by default those of two or more dimensions. Leave out embeddings and the
        last layer.
    others : callable or None
        The rule of the other parameters, see `partition`. It has this step size, unless it is a ``functools.partial``
        with one of its own. None refuses other parameters.

    Returns
    -------
    dict
        Next values of the parameters and means; of what `others` keeps; of the count of updates if there is a schedule
        or a bias correction.

    Raises
    ------
    ValueError
        Also if a parameter is no matrix and `others` is None.

    Notes
    -----
    Cost per call: one gradient, and for a matrix of m rows and n columns, m <= n, :math:`4 m^2 n + 2 m^3` operations a
    turn. Memory: one number per component. PyTorch divides by at least :math:`\epsilon` and does not add it, which
    differs where the gradient is near to it; its page adds the gradient to the buffer, its code averages, as here.

    References
    ----------
    Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein (2024), Muon: an optimizer for hidden layers in neural
    networks; Liu et al. (2025), Muon is scalable for LLM training, equation 4, for the scale "rms"; Amsel, Persson,
    Musco and Gower (2025), The Polar Express.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> updates = optapi.muon([W], cost, step_size=optapi.schedules.Linear(0.1, 300), decay=0.0)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.01))
    True
    """
    check_flag("nesterov", nesterov)
    check_flag("bias_correction", bias_correction)
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    orth, factor = _orthogonalizer(coefficients, iterations, f.scalar("epsilon", epsilon, 0)), _scale(scale, outputs)
    chosen, new = _divided(f, matrices, others, step_size)
    a, mu, t = f.step_size(step_size), f.scalar("momentum", momentum, 0, below=1), f.count + 1 if bias_correction else 0
    now, next_ = (correction(mu, t), correction(mu, t + 1)) if bias_correction else (1.0, 1.0)
    for (p, g, rate, past, fresh), is_chosen in zip(f.each(a, mu / next_, (1.0 - mu) / now), chosen, strict=True):
        if is_chosen:
            m, shape = f.zeros_like(p, "mean"), f.shape(p)
            new[m] = f.average(m, g, mu)
            step = orth(_as_matrix(past * new[m] + fresh * g if nesterov else new[m], shape, outputs))
            new[p] = p - rate * as_dtype(factor(shape), p.type.dtype) * step.reshape(shape)
    decays = [a and b for a, b in zip(check_mask(mask, f.parameters), chosen, strict=True)]
    return f.finish(f.decay(new, decay, decays, step_size=a))


@hinted
def normuon(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
            stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
            momentum: Scalar = 0.95, nesterov: bool = False, mean_square_weight: Scalar = 0.95, scale: Scalar = 0.2,
            iterations: int = 5, coefficients: str = "jordan", epsilon: Scalar = 1e-8, outputs: str = "columns",
            decay: StepSize = 0.1, mask: Mask | None = None, matrices: Mask | None = None,
            others: Callable[..., Updates] | None = adamw, tolerance: Scalar | None = None, ascent: bool = False,
            name: str = "normuon") -> Updates:  # fmt: skip
    r"""NorMuon: Muon with the weights of each output divided by the root mean square of their steps.

    .. math::
        O = \mathrm{orth}(B), \qquad
        v \leftarrow \beta v + (1 - \beta) \mathrm{mean}_{inputs}(O^2), \qquad U = \frac{O}{\sqrt v + \epsilon}, \qquad
        x \leftarrow x - a \lambda x - a \rho \frac{U}{\mathrm{rms}(U)}

    with :math:`B` and orth as in `muon`, and one number of :math:`v` for each output. The steps of `muon` are of
    unequal size for different outputs; these are about equal.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, that of `adamw`.
    momentum, nesterov
        As in `muon`; the algorithm of the paper has no Nesterov's momentum, its program has.
    mean_square_weight : scalar
        :math:`\beta`, from 0 to below 1.
    scale : scalar
        :math:`\rho`, the root mean square of a step with :math:`a` = 1.
    iterations, coefficients, outputs, matrices, others
        As in `muon`.
    epsilon : scalar
        :math:`\epsilon`, and what is added to the norm of :math:`B`, as in `muon`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay of the matrices, see `adamw`.
    mask : list of bool, or callable, optional
        Which of the matrices decay, see `adamw`.

    Returns
    -------
    dict
        Next values of the parameters and means, and of a mean square for each output; of what `others` keeps; of the
        count of updates if there is a schedule.

    Raises
    ------
    ValueError
        Also if a parameter is no matrix and `others` is None.

    Notes
    -----
    Cost per call: as `muon`, and a norm. Memory: one number per component, and one for each output. The authors'
    program keeps the norm of :math:`O` in the place of :math:`\rho`.

    References
    ----------
    Li, Liu, Liang, Chen and Zhao (2025), NorMuon: making Muon more efficient and scalable, algorithm 1.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> updates = optapi.normuon([W], cost, step_size=optapi.schedules.Linear(0.3, 300), decay=0.0)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.01))
    True
    """
    check_flag("nesterov", nesterov)
    check_choice("outputs", outputs, ("columns", "rows"))
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    small = f.scalar("epsilon", epsilon, 0)
    orth, axis = _orthogonalizer(coefficients, iterations, small), 0 if outputs == "columns" else 1
    chosen, new = _divided(f, matrices, others, step_size)
    mu, w = f.scalar("momentum", momentum, 0, below=1), f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    a, rho = f.step_size(step_size), f.scalar("scale", scale, low=0)
    for (p, g, step, eps), is_chosen in zip(f.each(a * rho, small), chosen, strict=True):
        if is_chosen:
            m, shape = f.zeros_like(p, "mean"), f.shape(p)
            new[m] = f.average(m, g, mu)
            u = orth(_as_matrix(f.average(new[m], g, mu) if nesterov else new[m], shape, outputs))
            v = f.state("mean_square", tuple(1 if i == axis else n for i, n in enumerate(u.type.shape)), parameter=p)
            new[v] = f.average(v, pt.mean(u**2, axis=axis, keepdims=True), w)
            u = u / (pt.sqrt(new[v]) + eps)
            new[p] = p - (step * ratio(u, root_mean_square(u))).reshape(shape)
    decays = [a and b for a, b in zip(check_mask(mask, f.parameters), chosen, strict=True)]
    return f.finish(f.decay(new, decay, decays, step_size=a))


@hinted
def scion(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *,
          step_size: StepSize = 1e-3, gradient_share: Scalar = 0.1, radius: Scalar = 1.0,
          constrained: bool = False, iterations: int = 5, coefficients: str = "jordan", epsilon: Scalar = 1e-7,
          outputs: str = "columns", signs: Mask | None = None,
          tolerance: Scalar | None = None, ascent: bool = False,
          name: str = "scion") -> Updates:  # fmt: skip
    r"""Scion: steps of one size in a norm that is chosen for each kind of parameter.

    .. math::
        m \leftarrow (1 - s) m + s g, \qquad x \leftarrow (1 - a) x - a \rho \, u(m), \qquad
        u(m) = \sqrt{\tfrac{outputs}{inputs}} \, \mathrm{orth}(m)

    for a matrix, with orth as in `muon`; :math:`u(m) = m / \mathrm{rms}(m)` for a vector, and
    :math:`u(m) = \mathrm{sgn}(m) / inputs` for the parameters of `signs`. Unless it is `constrained` the factor
    :math:`1 - a` is left out.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    gradient_share : scalar
        :math:`s`, from 0 to 1.
    radius : scalar
        :math:`\rho`, the size of a step, and if `constrained` of the parameters. By `partition` each kind may have its
        own: the authors have 50 for hidden layers, and 3000 for the last one.
    constrained : bool
        Whether the parameters stay in the ball of this radius.
    iterations, coefficients, epsilon, outputs
        As in `muon`.
    signs : list of bool, or callable, optional
        Which parameters move by signs, mostly the weights of the last layer; none by default.

    Returns
    -------
    dict
        Next values of the parameters and means, and of the count of updates if there is a schedule.

    Notes
    -----
    Cost per call and memory: as `muon`.

    References
    ----------
    Pethick, Xie, Antonakopoulos, Zhu, Silveti-Falls and Cevher (2025), Training deep learning models with
    norm-constrained LMOs, algorithms 1 and 2.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> step = pytensor.function([], cost, updates=optapi.scion([W], cost, step_size=optapi.schedules.Linear(0.1, 300)))
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.02))
    True
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    orth, factor = (
        _orthogonalizer(coefficients, iterations, f.scalar("epsilon", epsilon, 0)),
        _scale("spectral", outputs),
    )
    share = f.scalar("gradient_share", gradient_share, 0, 1)
    chosen = [False] * len(f.parameters) if signs is None else check_mask(signs, f.parameters, "signs")
    shrink = f.step_size(step_size) if check_flag("constrained", constrained) else 0.0
    scalars = f.step_size(step_size), f.scalar("radius", radius, low=0)
    new: Updates = {}
    for (p, g, a, rho), is_signed in zip(f.each(*scalars), chosen, strict=True):
        m, shape = f.zeros_like(p, "mean"), f.shape(p)
        new[m] = f.average(m, g, 1.0 - share)
        if is_signed:
            inputs = prod(shape) // max(1, shape[-1] if outputs == "columns" else shape[0]) if shape else 1
            u = pt.sign(new[m]) / np.asarray(max(inputs, 1), p.type.dtype)
        elif _is_matrix(p):
            u = as_dtype(factor(shape), p.type.dtype) * orth(_as_matrix(new[m], shape, outputs)).reshape(shape)
        else:
            u = new[m] / (root_mean_square(new[m]) + np.asarray(1e-8, p.type.dtype))
        new[p] = p - a * rho * u
    return f.finish(f.decay(new, 1.0, step_size=shrink) if constrained else new)


@hinted
def shampoo(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
            stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
            mean_weight: Scalar = 0.9, mean_square_weight: Scalar = 0.999, epsilon: Scalar = 1e-12, every: int = 10,
            start: int | None = None, graft: str | None = "adam", graft_epsilon: Scalar = 1e-8,
            exponent: Scalar | None = None, largest: int = 1024, decay: StepSize = 0.0, mask: Mask | None = None,
            tolerance: Scalar | None = None, ascent: bool = False, name: str = "shampoo") -> Updates:  # fmt: skip
    r"""Shampoo: gradients times inverse roots of their second moments along each axis.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad L \leftarrow \beta_2 L + (1 - \beta_2) g g^T, \qquad
        R \leftarrow \beta_2 R + (1 - \beta_2) g^T g

        d = \hat L^{-1/4} \hat m \hat R^{-1/4}, \qquad x \leftarrow x - a \lambda x - a d

    for a matrix, where hats divide by :math:`1 - \beta^t` and roots are of :math:`\hat L + \epsilon I`. A tensor with
    :math:`k` axes has a matrix for each, with the exponent :math:`-1/(2k)`; a vector is full-matrix AdaGrad. The roots
    are worked out anew every `every` updates. With :math:`\beta_2 = 1` the matrices are sums.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`.
    mean_weight : scalar
        :math:`\beta_1`, from 0 to below 1.
    mean_square_weight : scalar
        :math:`\beta_2`, from 0 to 1.
    epsilon : scalar
        :math:`\epsilon`, in units of the squared gradient. Eigenvalues below it by rounding are shifted to it.
    every : int
        The number of updates from one root to the next.
    start : int, optional
        The number of the first update with roots, `every` by default. Before it the steps are those of Adam or, without
        a graft, of the mean.
    graft : str or None
        "adam" for steps of the norm that Adam's would have, for each tensor; None for none.
    graft_epsilon : scalar
        Adam's, in units of the gradient.
    exponent : scalar, optional
        The exponent of the inverse roots, :math:`1/(2k)` by default.
    largest : int
        An axis that is longer has no matrix, and does not count in :math:`k`.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.

    Returns
    -------
    dict
        Next values of the parameters, means, matrices and roots; of the mean squares if there is a graft; of the count
        of updates.

    Notes
    -----
    Cost per call: one gradient and, for a matrix of m rows and n columns, :math:`4 m n (m + n)` operations; every
    `every` updates two eigenvalue decompositions. Memory: two numbers per component, and :math:`2 (m^2 + n^2)`. A
    matrix that is not finite counts as 0 there; `skip_nonfinite` keeps it from being written.

    The authors' program also merges short axes and cuts long ones into blocks, which this rule does not.

    References
    ----------
    Gupta, Koren and Singer (2018), Shampoo: preconditioned stochastic tensor optimization, algorithms 1 and 2; Shi,
    Lee, Iwasaki, Gallego-Posada, Li, Rangadurai, Mudigere and Rabbat (2023), A distributed data-parallel PyTorch
    implementation of the distributed Shampoo optimizer, for averages, grafting and `start`.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> updates = optapi.shampoo([W], cost, step_size=optapi.schedules.Linear(0.1, 300))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.01))
    True
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    if graft is not None:
        check_choice("graft", graft, ("adam",))
    every, largest = check_count("every", every), check_count("largest", largest)
    start = every if start is None else check_count("start", start)
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, 1)
    a, t = f.step_size(step_size), f.count + 1
    # Sums are averages with weights that are not divided by their sum.
    sums = pt.eq(w2, 1)
    fresh, c2 = pt.switch(sums, 1.0, 1.0 - w2), pt.switch(sums, 1.0, correction(w2, t))
    due, ready = (pt.eq(t % every, 0) & (t >= start)) | pt.eq(t, start), t >= start
    scalars = f.scalar("epsilon", epsilon, low=0), f.scalar("graft_epsilon", graft_epsilon, low=0)
    new: Updates = {}
    for p, g, rate, k1, k2, w, one, eps, graft_eps in f.each(a, correction(w1, t), c2, w2, fresh, *scalars):
        shape, m = f.shape(p), f.zeros_like(p, "mean")
        axes = [i for i, n in enumerate(shape) if 0 < n <= largest]
        new[m] = f.average(m, g, w1)
        mean = direction = new[m] / k1
        if axes:
            power = f.scalar("exponent", 1 / (2 * len(axes)) if exponent is None else exponent, low=0)
            L, R = ([f.state(f"{role}{i}", (shape[i],) * 2, parameter=p) for i in axes] for role in ("matrix", "root"))
            new |= {m: w * m + one * _second_moment(g, i) for i, m in zip(axes, L, strict=True)}
            arguments = [as_dtype(power, p.type.dtype), eps, *(new[m] / k2 for m in L)]
            new |= dict(zip(R, cond(due, _inverse_roots, arguments, R), strict=True))
            direction = _along([new[r] for r in R], axes, mean)
        if graft is not None:
            v = f.zeros_like(p, "mean_square")
            new[v] = w * v + one * g**2
            adam = mean / (pt.sqrt(new[v] / k2) + graft_eps)
            tiny = np.asarray(1e-16, p.type.dtype)
            direction = pt.switch(ready, direction * (norm(adam) / (norm(direction) + tiny)), adam)
        else:
            direction = pt.switch(ready, direction, mean)
        new[p] = p - rate * direction
    return f.finish(f.decay(new, decay, mask, step_size=a))


@hinted
def soap(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 3e-3,
         mean_weight: Scalar = 0.95, mean_square_weight: Scalar = 0.95, matrix_weight: Scalar | None = None,
         epsilon: Scalar = 1e-8, every: int = 10, largest: int = 10000, vectors: bool = False, decay: StepSize = 1e-2,
         mask: Mask | None = None, tolerance: Scalar | None = None, ascent: bool = False,
         name: str = "soap") -> Updates:  # fmt: skip
    r"""SOAP: Adam in the basis of the eigenvectors of Shampoo's matrices.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) (Q_L^T g Q_R)^2

        x \leftarrow (1 - a \lambda) \left(x - a \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \,
        Q_L \frac{Q_L^T m Q_R}{\sqrt v + \epsilon} Q_R^T\right)

    for a matrix. :math:`Q_L` and :math:`Q_R` are the eigenvectors of running averages of :math:`g g^T` and of
    :math:`g^T g`; every `every` updates they are brought up to date by one power iteration and a QR decomposition. The
    first call finds them and moves nothing, and :math:`t` counts the calls after it. A tensor has a basis for each
    axis, and a vector none: Adam.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, as that of `adamw`.
    mean_weight, mean_square_weight : scalar
        :math:`\beta_1` and :math:`\beta_2`, from 0 to below 1.
    matrix_weight : scalar, optional
        The weight of the past in the averages of :math:`g g^T`; :math:`\beta_2` by default.
    epsilon : scalar
        :math:`\epsilon`, in units of the gradient. Without noise the components beside the diagonal are rounding errors
        at first: take none below 1e-8.
    every : int
        The number of updates between two decompositions.
    largest : int
        An axis that is longer has no basis.
    vectors : bool
        Whether vectors have a basis too.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.

    Returns
    -------
    dict
        Next values of the parameters, of both moments, of the matrices and bases, and of the count of calls.

    Notes
    -----
    Cost per call: one gradient and, for a matrix of m rows and n columns, :math:`8 m n (m + n)` operations; every
    `every` calls two QR decompositions. Memory: two numbers per component, and :math:`2 (m^2 + n^2)`. A matrix that is
    not finite counts as 0 there; `skip_nonfinite` keeps it from being written.

    Where a gradient has a rank below its number of rows or columns, the basis of what is left is arbitrary, and so are,
    in their order of magnitude, the steps in it.

    References
    ----------
    Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade (2025), SOAP: improving and stabilizing
    Shampoo using Adam, algorithm 3 and the authors' program.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> updates = optapi.soap([W], cost, step_size=optapi.schedules.Linear(0.1, 300), decay=0.0)
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.01))
    True
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    w1 = f.scalar("mean_weight", mean_weight, 0, below=1)
    w2 = f.scalar("mean_square_weight", mean_square_weight, 0, below=1)
    w3 = w2 if matrix_weight is None else f.scalar("matrix_weight", matrix_weight, 0, below=1)
    every, largest = check_count("every", every), check_count("largest", largest)
    t, first = pt.maximum(f.count, 1), pt.eq(f.count, 0)
    due = ~first & pt.eq(f.count % every, 0)
    a = pt.switch(first, 0.0, f.step_size(step_size))
    rate = a * pt.sqrt(correction(w2, t)) / correction(w1, t)
    least = 1 if check_flag("vectors", vectors) else 2
    new: Updates = {}
    for p, g, a_t, eps in f.each(rate, f.scalar("epsilon", epsilon, low=0)):
        shape, m, v = f.shape(p), f.zeros_like(p, "mean"), f.zeros_like(p, "mean_square")
        axes = [i for i, n in enumerate(shape) if 0 < n <= largest] if len(shape) >= least else []
        L, Q = ([f.state(f"{role}{i}", (shape[i],) * 2, parameter=p) for i in axes] for role in ("matrix", "basis"))
        new[m] = pt.switch(first, m, f.average(m, g, w1))
        new_v = pt.switch(first, v, f.average(v, _along(Q, axes, g) ** 2, w2))
        step = _along(Q, axes, new[m]) / (pt.sqrt(new_v) + eps)
        new[p] = p - a_t * _along([q.T for q in Q], axes, step)
        new |= {matrix: f.average(matrix, _second_moment(g, i), w3) for i, matrix in zip(axes, L, strict=True)}
        *bases, new[v] = _renewed(first, due, [new[matrix] for matrix in L], Q, axes, new_v)
        new |= dict(zip(Q, bases, strict=True))
    return f.finish(f.decay(new, decay, mask, step_size=a, form="after"))


@hinted
def kron(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
         stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-3,
         mean_weight: Scalar = 0.9, factor_step_size: Scalar = 0.1, smoothness_weight: Scalar = 0.9,
         damping: Scalar = 1e-9, initial: Scalar | None = None, clip: Scalar = 2.0, clip_component: Scalar = 10.0,
         largest: int = 8192, decay: StepSize = 0.0, mask: Mask | None = None,
         tolerance: Scalar | None = None, ascent: bool = False, name: str = "kron") -> Updates:  # fmt: skip
    r"""PSGD with Kronecker factors: a preconditioner that whitens gradients, learned by products of matrices alone.

    .. math::
        A = Q_1^2 g Q_2^2, \qquad T_1 = A A^T, \qquad s_1 = n, \qquad
        \ell_1 \leftarrow \max(\beta \ell_1 + (1 - \beta) e_1, e_1), \quad e_1 \ge \|T_1\| + s_1

        X = Q_1 - \frac{\mu}{2 \ell_1} (T_1 - s_1) Q_1, \qquad
        Q_1 \leftarrow \mathrm{sym}\left(X - \frac{\mu}{2 \ell_1} X (T_1 - s_1)\right), \qquad
        x \leftarrow x - a \lambda x - a \, \mathrm{clip}(Q_1^2 m Q_2^2)

    for a matrix with m rows and n columns; likewise :math:`Q_2` with :math:`T_2 = A^T A` and :math:`s_2 = m`. They are
    symmetric and positive, and come to rest where the mean of :math:`T_1` is :math:`s_1`: where preconditioned
    gradients are white. Long axes, and vectors, have a diagonal for a matrix. The mean gradient :math:`m` is that of
    all gradients at first, later a running one.

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`. Steps have a root mean square of about :math:`a`, as those of `adam`.
    mean_weight : scalar
        The weight of the past in the mean gradient, from 0 to below 1.
    factor_step_size : scalar
        :math:`\mu`, from 0 to 1.
    smoothness_weight : scalar
        :math:`\beta`, from 0 to below 1; larger where gradients are sparse.
    damping : scalar
        The standard deviation of a noise in the gradients, in their units, which bounds the preconditioner. Rounding is
        added to it.
    initial : scalar, optional
        The preconditioner at first is this number squared times the identity. By default it is
        :math:`\overline{g^4}^{-1/8}` of the first gradient of each tensor, so that the first step is of size
        :math:`a`.
    clip : scalar
        The largest root mean square of a preconditioned gradient, which is scaled down to it.
    clip_component : scalar
        The largest component of it.
    largest : int
        An axis that is longer has a diagonal. So have a vector, and the longer axis of a matrix.
    decay : scalar or schedule
        :math:`\lambda` of a decoupled decay, see `adamw`.
    mask : list of bool, or callable, optional
        Which parameters decay, see `adamw`.

    Returns
    -------
    dict
        Next values of the parameters, means, factors and their smoothness :math:`\ell`, and of the count of updates.

    Notes
    -----
    Cost per call: one gradient and, for a matrix of m rows and n >= m columns, :math:`10 m^2 n + 12 m^3` operations; no
    decomposition. Memory: one number per component, and for each axis the square of its length, or its length.

    The author's program adds noise to the gradients and finds a lower bound of :math:`\|T\|` from random vectors. Here
    the mean of what the noise does is added, and :math:`\|T^4\|_F^{1/4}` is the bound, an upper one by at most
    :math:`m^{1/8}`, so that nothing is drawn. Of the author's forms of the update this is QUAD.

    References
    ----------
    Li (2018), Preconditioned stochastic gradient descent; Li (2024), Stochastic Hessian fittings with Lie groups, and
    the author's program.

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, -1.0], [0.5, 2.0]]), name="W")
    >>> cost = pt.sum((W - np.eye(2)) ** 2)
    >>> updates = optapi.kron([W], cost, step_size=optapi.schedules.Linear(0.1, 300))
    >>> step = pytensor.function([], cost, updates=updates)
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(W.get_value(), np.eye(2), atol=0.01))
    True
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    # At first the mean of all gradients.
    w1 = pt.minimum(f.scalar("mean_weight", mean_weight, 0, below=1), f.count / (f.count + 1.0))
    w2 = f.scalar("smoothness_weight", smoothness_weight, 0, below=1)
    tiny, largest = np.finfo("float64").tiny, check_count("largest", largest)
    scalars = [f.scalar("factor_step_size", factor_step_size, 0, 1), f.scalar("damping", damping, low=tiny)]
    scalars += [f.scalar("clip", clip, low=tiny), f.scalar("clip_component", clip_component, low=0)]
    begin = f.scalar("initial", 1.0 if initial is None else initial, low=tiny)
    a, new = f.step_size(step_size), dict[Any, Any]()
    for p, g, a_t, mu, noise, most, top, q0 in f.each(a, *scalars, begin):
        shape, m = f.shape(p) or (1,), f.zeros_like(p, "mean")
        new |= {m: f.average(m, g, w1), p: p}
        if 0 in shape:
            continue
        g, mean = (t.reshape(shape) if p.type.ndim == 0 else t for t in (g, new[m]))
        noise = noise + np.asarray(np.finfo(p.type.dtype).eps, p.type.dtype) * root_mean_square(g)
        start = _whitening(g, noise) if initial is None else q0
        factors = _Factors.of(f, p, shape, [1 < n <= largest and n**2 <= prod(shape) for n in shape])
        factors = factors.begun(pt.eq(f.count, 0), start).refitted(new, g, mu, w2, noise)
        d = factors.applied(factors.applied(mean))
        d = pt.clip(d / pt.maximum(root_mean_square(d) / most, np.ones((), p.type.dtype)), -top, top)
        new[p] = p - a_t * (d[0] if p.type.ndim == 0 else d)
    return f.finish(f.decay(new, decay, mask, step_size=a))


# What these rules share


class _Factors(NamedTuple):
    """The factors of a preconditioner of PSGD: a symmetric matrix for each axis, or its diagonal.

    Attributes
    ----------
    shape : tuple of int
        That of the parameter.
    states, smoothness : list of variables
        State for the factors, and for the bounds of what their steps depend on.
    values : list of tensors
        The factors; a diagonal as a tensor that broadcasts to the parameter.
    dense : list of bool
        Which are matrices.
    """

    shape: tuple[int, ...]
    states: list[Any]
    smoothness: list[Any]
    values: list[Any]
    dense: list[bool]

    @classmethod
    def of(cls, f: Objective, p: Any, shape: Sequence[int], dense: list[bool]) -> _Factors:
        """State for the factors of a parameter."""
        rank = len(shape)
        shapes = [
            (n, n) if d else tuple(n if j == i else 1 for j in range(rank))
            for i, (n, d) in enumerate(zip(shape, dense, strict=True))
        ]
        states = [f.state(f"factor{i}", s, parameter=p) for i, s in enumerate(shapes)]
        return cls(tuple(shape), states, [f.state(f"smoothness{i}", parameter=p) for i in range(rank)], states, dense)

    def begun(self, first: Any, start: Any) -> _Factors:
        """These, or at the `first` update `start` times the identity."""
        root = start ** np.asarray(1 / len(self.dense), start.type.dtype)
        ones = [
            np.eye(q.type.shape[0]) if d else np.ones(q.type.shape)
            for q, d in zip(self.values, self.dense, strict=True)
        ]
        values = [
            pt.switch(first, root * one.astype(start.type.dtype), q) for q, one in zip(self.values, ones, strict=True)
        ]
        return self._replace(values=values)

    def applied(self, tensor: Any) -> Any:
        """`tensor` times each of the factors along its axis."""
        axes = [i for i, d in enumerate(self.dense) if d]
        tensor = _along([self.values[i] for i in axes], axes, tensor)
        for q, d in zip(self.values, self.dense, strict=True):
            tensor = tensor if d else tensor * q
        return tensor

    def refitted(self, new: Updates, g: Any, mu: Any, weight: Any, noise: Any) -> _Factors:
        """The factors after a step toward those that whiten `g`, which is put in `new`."""
        white, dtype = self.applied(self.applied(g)), g.type.dtype
        # The preconditioner, of which the factors are the roots, and what noise would have added to the moments.
        P = [q @ q if d else q**2 for q, d in zip(self.values, self.dense, strict=True)]
        sizes, values = [pt.sum(q**2) for q in P], []
        for i, (q, d) in enumerate(zip(self.values, self.dense, strict=True)):
            spread = noise**2
            for j, size in enumerate(sizes):
                spread = spread if j == i else spread * size
            n, others = self.shape[i], tuple(j for j in range(g.type.ndim) if j != i)
            target = np.asarray(prod(self.shape) / max(n, 1), dtype)
            if d:
                T = _second_moment(white, i) + spread * (P[i] @ P[i])
                bound = _norm_bound(T) + target
            else:
                T = pt.sum(white**2, axis=others, keepdims=True) + spread * P[i] ** 2
                bound = pt.max(T) + target
            ell = new[self.smoothness[i]] = pt.maximum(running_average(self.smoothness[i], bound, weight), bound)
            rate = mu / (2 * ell)
            if d:
                error = T - target * np.eye(n, dtype=dtype)
                X = q - rate * (error @ q)
                X = X - rate * (X @ error)
                values.append((X + X.T) / 2)
            else:
                values.append(q * (1 - rate * (T - target)) ** 2)
            new[self.states[i]] = values[-1]
        return self._replace(values=values)


def _norm_bound(matrix: Any) -> Any:
    """An upper bound of the spectral norm of a positive semidefinite n x n matrix, at most n^(1/8) times that norm."""
    trace = pt.sum(pt.diagonal(matrix))
    power = ratio(matrix, trace)
    for _ in range(2):
        power = power @ power
    return trace * pt.sum(power**2) ** np.asarray(1 / 8, matrix.type.dtype)


def _whitening(g: Any, noise: Any) -> Any:
    """The mean fourth power of `g`, and of `noise`, to the power of -1/8."""
    size = root_mean_square(g) + noise
    fourth = root_mean_square((g / size) ** 2) ** 2 + (noise / size) ** 4
    return (size * fourth ** np.asarray(1 / 4, g.type.dtype)) ** np.asarray(-1 / 2, g.type.dtype)


def _factored(
    f: Objective,
    new: Updates,
    p: Any,
    square: Any,
    weight: Any,
    factor_from: int = 0,
    least: Any = None,
    role: str = "",
) -> Any:
    """The root of the running mean of `square`, which is put in `new`; of a matrix from those of rows and columns."""
    shape = f.shape(p)
    if len(shape) < 2 or min(shape[-2:]) < factor_from or 0 in shape:
        v = f.zeros_like(p, f"{role}mean_square")
        new[v] = f.average(v, square, weight)
        return pt.sqrt(new[v])
    R = f.state(f"{role}rows", (*shape[:-1], 1), parameter=p)
    C = f.state(f"{role}columns", (*shape[:-2], 1, shape[-1]), parameter=p)
    new[R] = f.average(R, pt.mean(square, axis=-1, keepdims=True), weight)
    new[C] = f.average(C, pt.mean(square, axis=-2, keepdims=True), weight)
    mean = pt.mean(new[R], axis=-2, keepdims=True)
    # Roots, since the product of the two may underflow, in whatever order rewrites put it.
    return pt.sqrt(new[R] / (mean if least is None else pt.maximum(mean, least))) * pt.sqrt(new[C])


def _divided(
    f: Objective, matrices: Mask | None, others: Callable[..., Updates] | None, step_size: StepSize
) -> tuple[list[bool], Updates]:
    """Which parameters are taken as matrices, and what `others` does with the rest."""
    if others is not None:
        check_callable("others", others, "a rule such as optapi.adamw, or None")
    chosen = check_mask(_is_matrix if matrices is None else matrices, f.parameters, "matrices")
    rest = [p for p, is_chosen in zip(f.parameters, chosen, strict=True) if not is_chosen]
    if not rest:
        return chosen, {}
    if others is None:
        raise ValueError(
            f"{f.name} is for matrices, and the parameter {called(rest[0])} is none; pass others=, a rule such as "
            "optapi.adamw for the rest, or leave it out"
        )
    return chosen, extend({}, f.part(others, rest, "others", step_size))


def _sums_of_axis(f: Objective, p: Any, axis: int | None) -> Any:
    """State of a number for each place along an axis, which broadcasts to `p`; None is for one for each component."""
    if axis is None:
        return f.zeros_like(p, "sum_of_squares")
    shape = tuple(n if i == axis else 1 for i, n in enumerate(f.shape(p)))
    return f.state(f"sum_of_squares{axis}", shape, parameter=p)


def _is_matrix(parameter: Variable) -> bool:
    return parameter.type.ndim >= 2


def _as_matrix(tensor: Tensor, shape: Sequence[int], outputs: str) -> Any:
    """`tensor` as a matrix of known shape, with its axis of outputs apart."""
    if len(shape) < 2:
        return pt.specify_shape(tensor.reshape((1, prod(shape))), (1, prod(shape)))
    wide = (prod(shape[:-1]), shape[-1]) if outputs == "columns" else (shape[0], prod(shape[1:]))
    return pt.specify_shape(tensor if len(shape) == 2 else tensor.reshape(wide), wide)


def _scale(scale: str | None, outputs: str) -> Callable[[Sequence[int]], Any]:
    """From the shape of a parameter to the factor of an orthogonal step."""
    check_choice("outputs", outputs, ("columns", "rows"))
    if scale is not None:
        check_choice("scale", scale, ("rms", "shape", "spectral"))

    def factor(shape: Sequence[int]) -> Any:
        out = shape[-1] if outputs == "columns" else shape[0]
        inn = max(prod(shape) // max(out, 1), 1)
        numbers = {"rms": 0.2 * max(out, inn) ** 0.5, "shape": max(1, out / inn) ** 0.5, "spectral": (out / inn) ** 0.5}
        return pt.constant(np.float64(1.0 if scale is None else numbers[scale]))

    return factor


def _orthogonalizer(coefficients: str, iterations: int, epsilon: Any) -> Callable[[Any], Any]:
    """From a matrix to one with the same singular vectors, and singular values near to 1."""
    check_choice("coefficients", coefficients, ("jordan", "polar_express", "svd"))
    given = JORDAN if coefficients == "jordan" else POLAR_EXPRESS
    table = np.array([given[min(i, len(given) - 1)] for i in range(check_count("iterations", iterations))])

    def orth(matrix: Any) -> Any:
        if 0 in matrix.type.shape:
            return matrix
        dtype, tall = matrix.type.dtype, matrix.type.shape[0] > matrix.type.shape[1]
        if coefficients == "svd":
            U, sizes, Vt = _svd(guarded(matrix)[0], full_matrices=False)
            # Singular values of 0, but for rounding, have no vectors of their own.
            rounding = np.asarray(np.finfo(dtype).eps * max(matrix.type.shape), dtype)
            polar = (U * (sizes > rounding * pt.max(sizes))) @ Vt
            return pt.switch(pt.all(pt.isfinite(matrix)), polar, np.asarray(np.nan, dtype))
        rows = pt.constant(table.astype(dtype))

        def turn(i: Any, X: Any) -> Any:
            a, b, c = rows[i, 0], rows[i, 1], rows[i, 2]
            # The smaller one of the two square matrices. To transpose X instead would change the order of what is
            # returned in memory, for which numba compiles all once more.
            A = X.T @ X if tall else X @ X.T
            P = b * A + c * (A @ A)
            return [i + 1, a * X + (X @ P if tall else P @ X)], FALSE

        start = matrix / (norm(matrix) + as_dtype(epsilon, dtype))
        return repeat(turn, [pt.constant(np.int64(0)), start], len(table))[1]

    return orth


def _along(matrices: Sequence[Any], axes: Sequence[int], tensor: Any) -> Any:
    """`tensor` times each of `matrices`, transposed, along its axis: ``L.T @ tensor @ R`` for a matrix."""
    for matrix, axis in zip(matrices, axes, strict=True):
        if tensor.type.ndim == 2:
            tensor = matrix.T @ tensor if axis == 0 else tensor @ matrix
        else:
            tensor = pt.moveaxis(pt.tensordot(tensor, matrix, [[axis], [0]]), -1, axis)
    return tensor


def _second_moment(g: Any, axis: int) -> Any:
    """The products of a gradient with itself over all axes but one, a square matrix."""
    if g.type.ndim == 1:
        return pt.outer(g, g)
    if g.type.ndim == 2:
        return g @ g.T if axis == 0 else g.T @ g
    rest = [i for i in range(g.type.ndim) if i != axis]
    return pt.tensordot(g, g, [rest, rest])


_eigh: Any = pt.linalg.eigh
_qr: Any = pt.linalg.qr
_svd: Any = pt.linalg.svd


def _inverse_roots(power: Any, epsilon: Any, *matrices: Any) -> list[Any]:
    """The matrices, with `epsilon` on their diagonals, to the power of ``-power``."""
    roots = []
    for matrix in matrices:
        values, vectors = _eigh(guarded(matrix)[0])
        least = pt.min(values)
        # Rounding may have made eigenvalues negative.
        values = epsilon + pt.switch(least < 0, values - least, values)
        roots.append((vectors * values**-power) @ vectors.T)
    return roots


def _descending(values: Any) -> Any:
    """The permutation matrix that puts columns in the descending order of `values`."""
    # By comparisons, since numba takes 6 s to compile a sort.
    places = np.arange(values.type.shape[0])
    first = (values[:, None] > values) | (pt.eq(values[:, None], values) & (places[:, None] < places))
    return pt.eq(pt.sum(first, axis=0)[:, None], places).astype(values.type.dtype)


def _renewed(first: Any, due: Any, matrices: list[Any], bases: list[Any], axes: list[int], square: Any) -> list[Any]:
    """The bases of eigenvectors, and the mean square in them: found if `first`, brought up to date if `due`."""
    if not axes:
        return [square]
    count = len(axes)

    def found(*matrices: Any) -> list[Any]:
        return [_eigh(guarded(matrix)[0])[1][:, ::-1] for matrix in matrices]

    def improved(*arguments: Any) -> list[Any]:
        square, new = arguments[2 * count], []
        for i, matrix, basis in zip(axes, arguments[:count], arguments[count : 2 * count], strict=True):
            order = _descending(pt.sum(basis * (matrix @ basis), axis=0))
            square = _along([order], [i], square)
            new.append(_qr(guarded(matrix @ basis @ order)[0], mode="economic")[0])
        return [*new, square]

    bases = cond(first, found, matrices, bases)
    return cond(due, improved, [*matrices, *bases, square], [*bases, square])
