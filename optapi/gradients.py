"""Gradient transforms: functions from a list of gradients to the list that a rule reads.

``adam(parameters, gradients=clip_global_norm(gradients, 1.0))``. Transforms compose by nesting. They are for rules that
only read gradients. A rule that evaluates the cost at other points needs the gradients of that cost, and refuses
transformed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from .checks import (
    as_dtype,
    as_tensors,
    check_choice,
    check_cost,
    check_flag,
    check_gradients,
    check_mask,
    check_parameters,
    scalar,
)
from .graph.derivatives import differentiate
from .graph.loops import like
from .graph.replace import replaced
from .notes import note, noted
from .typing import Scalar, Variables
from .vectors import global_norm, norm


__all__ = ["center", "clip", "clip_adaptive", "clip_global_norm", "clip_norm", "decay", "sharpness_aware"]


def clip(gradients: Sequence[Any], limit: Scalar) -> list[Any]:
    r"""Each component clipped to :math:`[-c, c]`, with :math:`c` = `limit`.

    Examples
    --------
    >>> optapi.gradients.clip([pt.constant([-3.0, 0.5])], 1.0)[0].eval()
    array([-1. ,  0.5])
    """
    limit = scalar("limit", limit, low=0)
    clipped = []
    for g in as_tensors("gradients", gradients):
        c = as_dtype(limit, g.type.dtype)
        clipped.append(mark(pt.clip(g, -c, c)))
    return clipped


def clip_norm(gradients: Sequence[Any], limit: Scalar) -> list[Any]:
    r"""Each gradient scaled down to a Euclidean norm of at most `limit`: :math:`g \min(1, c/\|g\|)`.

    Examples
    --------
    >>> clipped = optapi.gradients.clip_norm([pt.constant([3.0, 4.0]), pt.constant([0.3, 0.4])], 1.0)
    >>> [gradient.eval() for gradient in clipped]
    [array([0.6, 0.8]), array([0.3, 0.4])]
    """
    return [clipped for g in as_tensors("gradients", gradients) for clipped in clip_global_norm([g], limit)]


def clip_global_norm(gradients: Sequence[Any], limit: Scalar) -> list[Any]:
    r"""All gradients scaled by one factor, so that the Euclidean norm of all components is at most `limit`.

    References
    ----------
    Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, algorithm 1.

    Examples
    --------
    >>> clipped = optapi.gradients.clip_global_norm([pt.constant([3.0, 0.0]), pt.constant([0.0, 4.0])], 1.0)
    >>> [gradient.eval() for gradient in clipped]
    [array([0.6, 0. ]), array([0. , 0.8])]
    """
    gradients = as_tensors("gradients", gradients)
    limit = scalar("limit", limit, low=0)
    if not gradients:
        return []
    # Norms in float64: of many float32 components they may overflow.
    size = norm(pt.stack([norm(g.astype("float64")) for g in gradients]))
    factor = pt.switch(size > limit, limit / size, 1.0)
    return [mark(g * as_dtype(factor, g.type.dtype)) for g in gradients]


def decay(gradients: Sequence[Any], parameters: Sequence[Any], coefficient: Scalar,
          mask: Sequence[bool] | Callable[[Any], bool] | None = None) -> list[Any]:  # fmt: skip
    r"""The gradients of the cost with :math:`\lambda \|x\|^2 / 2` added to it: :math:`g + \lambda x`.

    Parameters
    ----------
    gradients : list of variables
    parameters : list of variables
        The parameters :math:`x`, one for each gradient.
    coefficient : scalar
        :math:`\lambda`.
    mask : list of bool, or callable, optional
        Which parameters decay, all by default. A callable is called with each parameter, for instance
        ``lambda p: p.ndim > 1``, which leaves out the biases.

    Examples
    --------
    >>> x = pytensor.shared(np.array([1.0, 2.0]), name="x")
    >>> optapi.gradients.decay([pt.constant([0.5, 0.5])], [x], 0.1)[0].eval()
    array([0.6, 0.7])
    """
    gradients, parameters = _pairs(gradients, parameters)
    coefficient = scalar("coefficient", coefficient, low=0)
    return [
        mark(g + as_dtype(coefficient, g.type.dtype) * p.astype(g.type.dtype)) if decays else g
        for g, p, decays in zip(gradients, parameters, check_mask(mask, parameters), strict=True)
    ]


def center(gradients: Sequence[Any]) -> list[Any]:
    """Gradient centralization: each gradient of two or more dimensions minus its mean over all axes but the last.

    For a weight matrix of shape (inputs, outputs), the gradient of the weights of each output then has mean zero.
    Gradients of fewer dimensions stay as they are.

    References
    ----------
    Yong, Huang, Hua and Zhang (2020), Gradient centralization, equation 1.

    Examples
    --------
    >>> optapi.gradients.center([pt.constant([[1.0, 2.0], [3.0, 6.0]])])[0].eval()
    array([[-1., -2.],
           [ 1.,  2.]])
    """
    return [
        mark(g - g.mean(axis=tuple(range(g.type.ndim - 1)), keepdims=True)) if g.type.ndim > 1 else g
        for g in as_tensors("gradients", gradients)
    ]


def clip_adaptive(gradients: Sequence[Any], parameters: Sequence[Any], limit: Scalar = 0.01,
                  minimum: Scalar = 1e-3, outputs: str = "columns") -> list[Any]:  # fmt: skip
    r"""Adaptive gradient clipping: the gradient of each unit at most a fraction of the norm of its weights.

    :math:`g \min\left(1, \frac{c \max(\|x\|, \delta)}{\|g\|}\right)` with norms over one unit: a vector, or the weights
    of one output of a tensor.

    Parameters
    ----------
    gradients : list of variables
    parameters : list of variables
        The parameters :math:`x`, one for each gradient. Leave out the last layer.
    limit : scalar
        :math:`c`.
    minimum : scalar
        :math:`\delta`, in units of the parameters.
    outputs : str
        Where the outputs of a tensor are: "columns", its last axis, for ``x @ W``; "rows", its first, for ``W @ x``.

    References
    ----------
    Brock, De, Smith and Simonyan (2021), High-performance large-scale image recognition without normalization, equation
    3.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, 4.0]), name="x")
    >>> [g] = optapi.gradients.clip_adaptive([pt.constant([30.0, 40.0])], [x], limit=0.01)
    >>> g.eval()
    array([0.03, 0.04])
    """
    gradients, parameters = _pairs(gradients, parameters)
    check_choice("outputs", outputs, ("columns", "rows"))
    limit, minimum = scalar("limit", limit, low=0), scalar("minimum", minimum, low=0)
    clipped = []
    for g, p in zip(gradients, parameters, strict=True):
        dtype, kept = g.type.dtype, g.type.ndim - 1 if outputs == "columns" else 0
        axes = [axis for axis in range(g.type.ndim) if axis != kept or g.type.ndim == 1]
        size, length = (pt.sqrt(pt.sum(t**2, axis=axes, keepdims=True)) for t in (p.astype(dtype), g))
        most = as_dtype(limit, dtype) * pt.maximum(size, as_dtype(minimum, dtype))
        tiny = np.asarray(1e-6, dtype)
        clipped.append(mark(pt.switch(length > most, g * (most / pt.maximum(length, tiny)), g)))
    return clipped


def sharpness_aware(cost: Variable, parameters: Variables, radius: Scalar = 0.05, *, adaptive: bool = False,
                    gradients: Sequence[Any] | None = None) -> list[Any]:  # fmt: skip
    r"""SAM: the gradients where the cost is about highest near the parameters, so that flat minima are found.

    They are those at :math:`x + e` of the same batch, with the same random draws, and

    .. math:: e = \rho \frac{g}{\|g\|} \quad \text{or, if adaptive,} \quad e = \rho \frac{x^2 g}{\| |x| g \|}

    with norms over all parameters.

    Parameters
    ----------
    cost : scalar variable
    parameters : list of variables
    radius : scalar
        :math:`\rho`; with 0 the gradients are those of the cost. 0.05 is usual, and 0.5 to 2 if `adaptive`.
    adaptive : bool
        Whether to measure in units of the parameters, which is ASAM.
    gradients : list of variables, optional
        :math:`g`, by default those of `cost`.

    Raises
    ------
    ValueError
        If the gradients that are given do not depend on the parameters.

    Notes
    -----
    Cost per call: two gradients. Under ascent pass the negative cost, and negate what is returned.

    References
    ----------
    Foret, Kleiner, Mobahi and Neyshabur (2021), Sharpness-aware minimization for efficiently improving generalization,
    algorithm 1; Kwon, Kim, Park and Choi (2021), ASAM: adaptive sharpness-aware minimization, equation 6.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, 4.0]), name="x")
    >>> [g] = optapi.gradients.sharpness_aware(pt.sum(x**2), [x], radius=0.5)
    >>> g.eval()
    array([6.6, 8.8])
    """
    parameters, radius = check_parameters(parameters), scalar("radius", radius, low=0)
    cost = check_cost(cost)
    g = differentiate(cost, parameters) if gradients is None else check_gradients(gradients, parameters)
    if not set(ancestors(g)).intersection(parameters):
        raise ValueError("gradients do not depend on the parameters, so they are not known elsewhere; leave them out")
    scaled = [abs(p) * d if check_flag("adaptive", adaptive) else d for p, d in zip(parameters, g, strict=True)]
    share = radius / (global_norm(scaled) + 1e-12)
    points = {}
    for p, d in zip(parameters, g, strict=True):
        step = as_dtype(share, p.type.dtype) * d
        points[p] = like(p + (p**2 * step if adaptive else step), p)
    return [mark(d) for d in replaced(g, points)]


def _pairs(gradients: Sequence[Any], parameters: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Both lists, checked to be as long as each other."""
    gradients, parameters = as_tensors("gradients", gradients), as_tensors("parameters", parameters)
    if len(gradients) != len(parameters):
        raise ValueError(f"gradients has {len(gradients)} entries for {len(parameters)} parameters; pass one for each")
    return gradients, parameters


def is_transformed(gradient: Variable) -> bool:
    """Whether `gradient` is the result of a transform, so that it need not be the gradient of the cost."""
    return bool(note(gradient, "transformed"))


def mark(gradient: Variable) -> Any:
    """`gradient`, marked as transformed, so that a rule that searches can refuse it, also below further arithmetic."""
    return noted(gradient, transformed=True)
