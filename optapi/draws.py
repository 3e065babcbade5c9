"""Random numbers without a generator: functions of a seed and a count.

What a rule draws is then a function of its state. It is the same after a resume, in a loop, and for each member of a
batch, under all backends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from .checks import as_dtype


def random_signs(size: int, dtype: str, seed: int, count: Any) -> Any:
    """A vector of independent signs, 1 or -1, of equal chances.

    Parameters
    ----------
    size : int
    dtype : str
    seed : int
        From 0 to below 2**32.
    count : integer scalar variable
        Which vector of the sequence it is.

    References
    ----------
    Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, for generators that mix a count
    with a key; the mixing is the finalizer of MurmurHash3 (Appleby).
    """
    # Keyed by the seed, then by the count; with the count alone in the second turn, two vectors differ in all places.
    places = pt.arange(size).astype("uint32")
    bits = _mixed(_mixed(places + np.uint32(1)) ^ np.uint32(seed))
    bits = _mixed(bits ^ count.astype("uint32"))
    return pt.switch(bits < np.uint32(2**31), *(as_dtype(pt.constant(sign), dtype) for sign in (1.0, -1.0)))


def _mixed(bits: Any) -> Any:
    """A permutation of the integers of 32 bits in which each bit depends on all."""
    bits = (bits ^ bits // np.uint32(2**16)) * np.uint32(0x85EBCA6B)
    bits = (bits ^ bits // np.uint32(2**13)) * np.uint32(0xC2B2AE35)
    return bits ^ bits // np.uint32(2**16)
