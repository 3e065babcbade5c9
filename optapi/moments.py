"""Running averages of gradients, of PyTensor variables and of NumPy arrays alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from .typing import Array


def running_average(average: Any, value: Array, weight: Array | np.floating) -> Any:
    r"""The next value :math:`w \bar g + (1 - w) g` of an exponential running average.

    `weight` :math:`w` is a float64 scalar. Both weights are worked out in float64 and then cast to the dtype of
    `average`: in float32, 1 - 0.999 would be wrong in the fifth digit.
    """
    dtype = average.dtype
    return weight.astype(dtype) * average + (1.0 - weight).astype(dtype) * value


def correction(weight: Array | float, count: Array | int) -> Any:
    r"""The sum :math:`1 - w^t` of the weights in a running average of `count` :math:`t` values that began at zero."""
    return 1.0 - weight**count
