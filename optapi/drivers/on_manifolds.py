"""The manifolds of rules, on arrays: the nearest point, and what is left of a gradient there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from ..graph.numpy_linker import PYTHON
from ..manifolds import manifolds
from ..state import shape_of
from .locks import BUILDING
from .options import option_of


class OnManifolds:
    """The manifolds of a rule.

    Parameters
    ----------
    found : list of Manifold or None
        One for each array of a point.
    kinds : list of pairs
        The shape and the dtype of each.
    """

    def __init__(self, found: Sequence[Any], kinds: Sequence[tuple[tuple[int, ...], str]]):
        self.found, self.kinds = list(found), list(kinds)

    @classmethod
    def of(cls, rule: Callable[..., Any], options: Mapping[str, Any], parameters: Sequence[Any]) -> OnManifolds | None:
        """Those of `rule` with `options`, None without."""
        given = option_of(rule, options, "manifold")
        if given is None:
            return None
        return cls(manifolds(given, parameters), [(shape_of(p), p.type.dtype) for p in parameters])

    def _compiled(self, build: Callable[..., Any], count: int) -> Callable[..., Any]:
        """`build` from a manifold and `count` variables of each array, the free ones apart."""
        inputs, outputs = [], []
        for manifold, (shape, dtype) in zip(self.found, self.kinds, strict=True):
            arguments = [pt.tensor(shape=shape, dtype=dtype) for _ in range(count)]
            inputs.append(arguments)
            outputs.append(arguments[-1] if manifold is None else build(manifold, *arguments))
        with BUILDING:
            return pytensor.function([v for parts in zip(*inputs, strict=True) for v in parts], outputs, mode=PYTHON,
                                     on_unused_input="ignore")  # fmt: skip

    @cached_property
    def _project(self) -> Callable[..., Any]:
        return self._compiled(lambda manifold, x: manifold.project(x), 1)

    @cached_property
    def _tangent(self) -> Callable[..., Any]:
        return self._compiled(lambda manifold, x, v: manifold.tangent(x, v), 2)

    def project(self, point: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The nearest point."""
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in self._project(*point)]

    def tangent(self, point: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What is left of `gradients` in the tangent space at `point`."""
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in self._tangent(*point, *gradients)]

    def __reduce__(self) -> Any:
        return type(self), (self.found, self.kinds)
