"""Schedules: from the count of updates done so far to a step size.

A schedule is called with a count. Given a plain number or an array it returns numbers, so that it can be printed and
plotted; given a symbolic count it returns an expression. The first update uses the value at count 0. Any other function
of the count can stand in the place of a schedule.

The fields of a schedule are numbers or scalar variables; a shared variable can be changed while a program runs.

References
----------
Robbins and Monro (1951), A stochastic approximation method; Loshchilov and Hutter (2017), SGDR, equation 5 (cosine);
Goyal et al. (2017), Accurate, large minibatch SGD, section 2.2 (warm-up).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .checks import check_count, scalar


def at(argument: str, step_size: Any, count: Callable[[], Any]) -> Any:
    """A step size as a scalar variable, whatever its form: a number, a scalar variable, or a schedule.

    `count` makes the counter, and is called only for a schedule.
    """
    if callable(step_size) and not isinstance(step_size, Variable):
        step_size = step_size(count())
    return scalar(argument, step_size, low=0)


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules here: checks the fields that every one of them may have."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"{field.name} of {type(self).__name__}"
            if field.name in ("initial", "final", "exponent", "factor"):
                scalar(name, value, low=0)
            elif field.name == "scale":
                scalar(name, value, low=float(np.finfo("float64").tiny))
            elif field.name == "steps":
                check_count(name, value)

    def __call__(self, count: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    r"""The step size :math:`a_t = a_0`, with :math:`a_0` = `initial`."""

    initial: Any

    def __call__(self, count: Any) -> Any:
        return self.initial + 0.0 * count if isinstance(count, np.ndarray) else self.initial


@dataclass(frozen=True)
class Power(Schedule):
    r"""The step size :math:`a_t = a_0 / (1 + t / \tau)^p`.

    With :math:`a_0` = `initial`, :math:`\tau` = `scale` and :math:`p` = `exponent`. `scale` is the count at which an
    `exponent` of 1 has halved the step size. The sum of the step sizes is infinite and that of their squares finite,
    as stochastic approximation asks for, if the exponent is above 1/2 and at most 1.
    """

    initial: Any
    scale: Any = 1.0
    exponent: Any = 1.0

    def __call__(self, count: Any) -> Any:
        return self.initial / (1 + count / self.scale) ** self.exponent


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""The step size :math:`a_t = a_0 c^{t/T}`.

    With :math:`a_0` = `initial`, :math:`c` = `factor` and :math:`T` = `steps`. With `staircase` the exponent is
    :math:`\lfloor t/T \rfloor`.
    """

    initial: Any
    factor: Any
    steps: int = 1
    staircase: bool = False

    def __call__(self, count: Any) -> Any:
        exponent = count // self.steps if self.staircase else count / self.steps
        return self.initial * self.factor**exponent


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a cosine from `initial` :math:`a_0` to `final` :math:`a_1` in `steps` :math:`T`, and `final` after that.

    :math:`a_t = a_1 + (a_0 - a_1)(1 + \cos(\pi \min(t, T)/T))/2`
    """

    initial: Any
    steps: int
    final: Any = 0.0

    def __call__(self, count: Any) -> Any:
        xp = _module(count)
        share = xp.minimum(count, self.steps) / self.steps
        return self.final + (self.initial - self.final) * (1 + xp.cos(np.pi * share)) / 2


@dataclass(frozen=True)
class WarmUp(Schedule):
    r"""A linear rise in `steps` :math:`W`, then `schedule`, which starts at its own count of 0.

    :math:`a_t = b_0 (t + 1)/(W + 1)` for :math:`t < W`, then :math:`a_t = b_{t-W}`, with :math:`b` = `schedule`, a
    schedule or a number. No update has a step size of 0, and the rise is even up to its end.
    """

    schedule: Any
    steps: int

    def __call__(self, count: Any) -> Any:
        xp = _module(count)
        after = self.schedule if callable(self.schedule) else Constant(self.schedule)
        rise = after(0) * (count + 1) / (self.steps + 1)
        return xp.where(count < self.steps, rise, after(xp.maximum(count - self.steps, 0)))


def _module(count: Any) -> ModuleType:
    """The module whose functions `count` takes."""
    return pt if isinstance(count, Variable) else np
