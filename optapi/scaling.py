"""Scales: typical sizes of the parameters, by which a rule with `x_scale` changes variables, see `Objective.scaled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt

from .graph.loops import repeat
from .typing import Tensor


# The largest number of products that `equilibrated` takes.
PRODUCTS = 6


def sizes(vector: Tensor) -> Any:
    """The sizes of the components of `vector`, 1 for those that are zero or not finite."""
    size = abs(vector)
    tiny = np.asarray(np.finfo(vector.type.dtype).tiny, vector.type.dtype)
    return pt.switch((size >= tiny) & pt.isfinite(size), size, pt.ones_like(size))


def equilibrated(product: Callable[[Any], Any], size: int, dtype: str) -> tuple[Any, Any]:
    r"""A diagonal :math:`D` with which the rows of :math:`D H D` have lengths of about 1, and the number of products.

    With random signs :math:`u`, the size of component i of :math:`r = D H D u` is about the length of row i, and
    :math:`D \leftarrow D / \sqrt{|r|}`, until no component of :math:`r` is off by more than a factor of 4, or after 6
    products. Of a matrix that is diagonal this is the root of the inverse of the diagonal, which of others would take a
    product for each component. A component without curvature keeps the scale 1. The signs are always the same, so that
    a run can be repeated.

    Where :math:`|r|` is small the row may be short, or its terms may cancel by chance. So it counts as no less than a
    quarter of what it would be if only units were wrong, :math:`\min(1, \sqrt{|r|})` with the last :math:`r`.

    Parameters
    ----------
    product : callable
        From a vector to the product of the symmetric matrix :math:`H` with it.
    size, dtype
        Those of a vector.

    Returns
    -------
    vector, integer scalar variable

    References
    ----------
    Bradley and Murray (2011), Matrix-free approximate equilibration, section 3, with geometric means in the place of
    arithmetic ones, which forget a start in wrong units; Dauphin, de Vries and Bengio (2015), Equilibrated adaptive
    learning rates for non-convex optimization, for lengths of rows in the place of the diagonal.
    """
    signs = pt.constant(2 * np.random.default_rng(0).integers(0, 2, (PRODUCTS, size), "int8") - 1)
    one, four = (np.asarray(value, dtype) for value in (1, 4))

    def turn(i: Any, d: Any, last: Any) -> tuple[list[Any], Any]:
        r = d * abs(product(d * signs[i].astype(dtype)))
        r = pt.switch((r > 0) & pt.isfinite(r), r, one)
        length = pt.maximum(r, pt.minimum(one, pt.sqrt(last)) / four)
        scaled = d / pt.sqrt(length)
        valid = (scaled > 0) & pt.isfinite(scaled)
        return [i + 1, pt.switch(valid, scaled, d), length], pt.all((r <= four) & (r >= one / four))

    initial = [np.int64(0), pt.ones((size,), dtype), pt.zeros((size,), dtype)]
    count, d, _ = repeat(turn, initial, PRODUCTS if size else 0)
    return d, count
