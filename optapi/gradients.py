"""Gradient transforms: functions from a list of gradients to the list that a rule reads.

``adam(parameters, gradients=clip_global_norm(gradients, 1.0))``. Transforms compose by nesting. They are for rules that
only read gradients. A rule that evaluates the cost at other points needs the gradients of that cost, and refuses
transformed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .checks import as_dtype, as_tensors, check_mask, scalar
from .notes import note, noted
from .typing import Scalar
from .vectors import norm


__all__ = ["center", "clip", "clip_global_norm", "clip_norm", "decay"]


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
    gradients, parameters = as_tensors("gradients", gradients), as_tensors("parameters", parameters)
    if len(gradients) != len(parameters):
        raise ValueError(f"gradients has {len(gradients)} entries for {len(parameters)} parameters; pass one for each")
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


def is_transformed(gradient: Variable) -> bool:
    """Whether `gradient` is the result of a transform, so that it need not be the gradient of the cost."""
    return bool(note(gradient, "transformed"))


def mark(gradient: Variable) -> Any:
    """`gradient`, marked as transformed, so that a rule that searches can refuse it, also below further arithmetic."""
    return noted(gradient, transformed=True)
