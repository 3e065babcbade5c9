"""Penalties of rules, on arrays: what they add to the cost at a point, and what is left of a gradient there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from ..graph.derivatives import known_shapes
from ..graph.numpy_linker import PYTHON
from ..graph.replace import replaced
from ..prox import composite, exceeds, residual
from ..pytree import largest
from .locks import BUILDING
from .options import option_of, options_of, plain_function


# Options that are penalties or sets.
NAMES = ("l1", "prox", "region")


def is_penalty(rule: Callable[..., Any], name: str) -> bool:
    """Whether the option `name` of `rule`, one of `NAMES`, is a penalty that is added to the cost.

    That of `ftrl`, a number by default, is not: it is added to the sum over a stream.
    """
    # The default of a partial is what was given.
    parameter = (options_of(plain_function(rule))[0] or {}).get(name)
    return parameter is not None and parameter.default in (None, parameter.empty)


class Penalties:
    """The penalties and sets of a rule.

    Parameters
    ----------
    found : list of Penalty or None
        One for each parameter.
    parameters : list of variables
    inputs : list of variables
        What the penalties may read, and are given the values of.
    """

    def __init__(self, found: Sequence[Any], parameters: Sequence[Any], inputs: Sequence[Any] = ()):
        self.found, self.parameters, self.inputs = list(found), list(parameters), list(inputs)

    @classmethod
    def of(cls, rule: Callable[..., Any], options: Mapping[str, Any], parameters: Sequence[Any],
           inputs: Sequence[Any] = ()) -> Penalties | None:  # fmt: skip
        """Those of `rule` with `options`, None without."""
        l1, prox, region = (option_of(rule, options, name) if is_penalty(rule, name) else None for name in NAMES)
        found = composite(l1, region if prox is None else prox, parameters)
        return None if found is None else cls(found, parameters, inputs)

    def expression(self) -> Any:
        """What is added to the cost at the parameters' values; infinite outside of a set, but for rounding."""
        pairs = zip(self.found, self.parameters, strict=True)
        values = [
            pt.switch(exceeds(penalty, p), np.asarray(np.inf, p.type.dtype), penalty.value(p))
            for penalty, p in pairs
            if penalty is not None
        ]
        return sum(values[1:], values[0])

    def _compiled(self, outputs: Sequence[Any], gradients: Sequence[Any] = ()) -> Callable[..., Any]:
        now = [p.type() for p in self.parameters]
        with BUILDING:
            outputs = replaced(known_shapes(list(outputs)), dict(zip(self.parameters, now, strict=True)))
            return pytensor.function([*now, *gradients, *self.inputs], outputs, mode=PYTHON, on_unused_input="ignore")

    @cached_property
    def _value(self) -> Callable[..., Any]:
        return self._compiled([self.expression()])

    @cached_property
    def _residuals(self) -> Callable[..., Any]:
        gradients = [p.type() for p in self.parameters]
        parts = zip(self.found, self.parameters, gradients, strict=True)
        return self._compiled([g if h is None else residual(h, p, g) for h, p, g in parts], gradients)

    def value(self, point: Sequence[np.ndarray], inputs: Sequence[Any]) -> float:
        """What is added to the cost at `point`."""
        with np.errstate(all="ignore"):
            return float(self._value(*point, *inputs)[0])

    def size(self, point: Sequence[np.ndarray], gradients: Sequence[np.ndarray], inputs: Sequence[Any]) -> float:
        """The size of the largest component of the residual."""
        with np.errstate(all="ignore"):
            return largest(self._residuals(*point, *gradients, *inputs))

    def __reduce__(self) -> Any:
        return type(self), (self.found, self.parameters, self.inputs)
