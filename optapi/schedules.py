r"""Schedules: functions from the count of updates done so far to a step size.

A schedule is called with a count. Of a plain number or an array it returns numbers, for printing and plotting; of a
symbolic count it returns an expression. The first update uses the value at count 0, and a schedule of finite length
keeps its last value. Any other function of the count can be used in place of a schedule.

The real-valued fields of a schedule are numbers or scalar variables; a shared variable can be changed while a program
runs. Fields that are counts are Python ints.

Schedules compose. ``Join((a, Linear(a, steps=100)), (900,))`` is constant and then falls to 0 in the last tenth;
``WarmUp(Cosine(a, 900), 100)`` rises first. :math:`a_0 / (1 + t/\tau)` of Robbins and Monro is ``Power(a, tau)``.

References
----------
Robbins and Monro (1951), A stochastic approximation method; Darken and Moody (1991), Note on learning rate schedules
for stochastic optimization; Loshchilov and Hutter (2017), SGDR; Smith (2017), Cyclical learning rates for training
neural networks; Smith and Topin (2018), Super-convergence; Goyal et al. (2017), Accurate, large minibatch SGD; Vaswani
et al. (2017), Attention is all you need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .checks import check_choice, check_count, check_flag, scalar
from .typing import Array, Scalar, StepSize


__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "InverseSquareRoot",
    "Join",
    "Linear",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Power",
    "Rex",
    "Schedule",
    "SearchThenConverge",
    "Step",
    "Triangular",
    "WarmUp",
    "WarmupStableDecay",
]


POSITIVE = float(np.finfo("float64").tiny)


def at(argument: str, step_size: StepSize, count: Callable[[], Any]) -> Any:
    """A step size, which is a number, a scalar variable or a schedule, as a scalar variable.

    `count` returns the counter, and is called only for a schedule.
    """
    if callable(step_size) and not isinstance(step_size, Variable):
        step_size = step_size(count())
    return scalar(argument, step_size, low=0)


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules here: checks their fields, and evaluates their formula on numbers or symbolically.

    A subclass has its formula in `value`, written with the functions of the module `xp`, which is NumPy or
    ``pytensor.tensor``.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Reciprocal(optapi.schedules.Schedule):
    ...     scale: float
    ...     def value(self, count, xp):
    ...         return 1 / (1 + count / self.scale)
    >>> Reciprocal(10.0)(30)
    0.25
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"{field.name} of {type(self).__name__}"
            if field.name in ("initial", "peak", "final", "exponent", "factor", "limit"):
                scalar(name, value, low=0)
            elif field.name in ("scale", "divisor", "final_divisor"):
                scalar(name, value, low=POSITIVE)
            elif field.name in ("steps", "growth"):
                check_count(name, value)
            elif field.name == "staircase":
                check_flag(name, value)
            elif field.name in ("values", "schedules", "boundaries"):
                if not isinstance(value, list | tuple):
                    raise TypeError(f"{name} is a {type(value).__name__}; pass a list or tuple")
                object.__setattr__(self, field.name, tuple(value))

    def __call__(self, count: int | Array) -> Any:
        if _is_symbolic(count) or _is_symbolic(self):
            # Else PyTensor would round the numbers in the formula to floatX.
            with pytensor.config.change_flags(floatX="float64"):
                return self.value(pt.as_tensor(count), pt)
        value = self.value(np.asarray(count), np)
        return value if np.ndim(value) else float(value)

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        """The step size at `count`, an array or a tensor variable."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    r"""The step size :math:`a_t = a_0`, with :math:`a_0` = `initial`.

    Examples
    --------
    >>> optapi.schedules.Constant(0.1)(1000)
    0.1
    """

    initial: Scalar

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        return self.initial + 0.0 * count


@dataclass(frozen=True)
class Power(Schedule):
    r"""The step size :math:`a_t = a_0 / (1 + t / \tau)^p`.

    With :math:`a_0` = `initial`, :math:`\tau` = `scale` and :math:`p` = `exponent`. `scale` is the count at which an
    `exponent` of 1 has halved the step size. The sum of the step sizes is infinite and that of their squares finite,
    as stochastic approximation asks for (Robbins and Monro, 1951), if the exponent is above 1/2 and at most 1.

    An `exponent` of 1 is the schedule of Robbins and Monro, also named inverse time decay, with
    :math:`1/a_{t+1} = 1/a_t + 1/(a_0 \tau)`; 3/4 is common with averaged points.

    Examples
    --------
    >>> optapi.schedules.Power(0.1, scale=10)(np.array([0, 10, 30]))
    array([0.1  , 0.05 , 0.025])
    """

    initial: Scalar
    scale: Scalar = 1.0
    exponent: Scalar = 1.0

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        return self.initial / (1 + _ratio(count, self.scale)) ** self.exponent


@dataclass(frozen=True)
class SearchThenConverge(Schedule):
    r"""The step size :math:`a_t = a_0 \frac{1 + (c/a_0)(t/\tau)}{1 + (c/a_0)(t/\tau) + \tau (t/\tau)^2}`.

    With :math:`a_0` = `initial`, which is not 0, :math:`\tau` = `scale` and :math:`c` = `limit`. The step size stays
    near :math:`a_0` for a time that grows with :math:`\tau`, the search, and then decreases like :math:`c/t`. The
    convergence has the best rate if :math:`c` is above :math:`1/(2 \lambda)`, with the smallest curvature
    :math:`\lambda` of the cost. Darken and Moody (1991); their simpler schedule is `Power`.

    Examples
    --------
    >>> optapi.schedules.SearchThenConverge(0.1, scale=100, limit=1.0)(np.array([0, 10, 1000])).round(4)
    array([0.1   , 0.0667, 0.001 ])
    """

    initial: Scalar
    scale: Scalar
    limit: Scalar

    def __post_init__(self) -> None:
        super().__post_init__()
        scalar("initial of SearchThenConverge", self.initial, low=POSITIVE)

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        time = _ratio(count, self.scale)
        searching = 1 + self.limit / self.initial * time
        return self.initial * searching / (searching + self.scale * time**2)


@dataclass(frozen=True)
class InverseSquareRoot(Schedule):
    r"""A linear increase to `initial` :math:`a_0` in `steps` :math:`W`, then a decrease like :math:`1/\sqrt t`.

    :math:`a_t = a_0 \min((t + 1)/W, \sqrt{W/(t + 1)})`, with the peak at :math:`t = W - 1`. With
    :math:`a_0 = 1/\sqrt{dW}` it is that of Vaswani et al. (2017), section 5.3, for the model dimension :math:`d`.
    With a constant in place of the increase, as for T5, it is ``Join((a, Power(a, W, 0.5)), (W,))``.

    Examples
    --------
    >>> optapi.schedules.InverseSquareRoot(0.1, steps=4)(np.array([0, 3, 15]))
    array([0.025, 0.1  , 0.05 ])
    """

    initial: Scalar
    steps: int

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        time = _ratio(count + 1, self.steps)
        return self.initial * xp.minimum(time, time**-0.5)


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""The step size :math:`a_t = a_0 c^{t/T}`.

    With :math:`a_0` = `initial`, :math:`c` = `factor` and :math:`T` = `steps`. With `staircase` the exponent is
    :math:`\lfloor t/T \rfloor`.

    Examples
    --------
    >>> optapi.schedules.Exponential(0.1, factor=0.5, steps=10)(np.array([0, 5, 10])).round(4)
    array([0.1   , 0.0707, 0.05  ])
    """

    initial: Scalar
    factor: Scalar
    steps: int = 1
    staircase: bool = False

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        exponent = _ratio(count, self.steps)
        return self.initial * self.factor ** (xp.floor(exponent) if self.staircase else exponent)


@dataclass(frozen=True)
class Step(Schedule):
    r"""The step size :math:`a_t = a_0 c^{\lfloor t/T \rfloor}`: multiplied by `factor` after every `steps` updates.

    With :math:`a_0` = `initial`, :math:`c` = `factor` and :math:`T` = `steps`.

    Examples
    --------
    >>> optapi.schedules.Step(0.1, steps=10, factor=0.5)(np.array([9, 10, 20]))
    array([0.1  , 0.05 , 0.025])
    """

    initial: Scalar
    steps: int
    factor: Scalar = 0.1

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        return Exponential(self.initial, self.factor, self.steps, staircase=True).value(count, xp)


@dataclass(frozen=True)
class Polynomial(Schedule):
    r"""A power of the remaining fraction of `steps` :math:`T`, from `initial` :math:`a_0` to `final` :math:`a_1`.

    :math:`a_t = a_1 + (a_0 - a_1)(1 - \min(t, T)/T)^p`, with :math:`p` = `exponent`.

    Examples
    --------
    >>> optapi.schedules.Polynomial(0.1, steps=10, exponent=2.0)(np.array([0, 5, 10]))
    array([0.1  , 0.025, 0.   ])
    """

    initial: Scalar
    steps: int
    final: Scalar = 0.0
    exponent: Scalar = 1.0

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        remaining = 1 - _ratio(xp.minimum(count, self.steps), self.steps)
        return self.final + (self.initial - self.final) * remaining**self.exponent


@dataclass(frozen=True)
class Linear(Schedule):
    r"""A straight line from `initial` :math:`a_0` to `final` :math:`a_1` in `steps` :math:`T`, and `final` after that.

    :math:`a_t = a_0 + (a_1 - a_0) \min(t, T)/T`. Either end may be the larger.

    Examples
    --------
    >>> optapi.schedules.Linear(0.1, steps=10)(np.array([0, 5, 10]))
    array([0.1 , 0.05, 0.  ])
    """

    initial: Scalar
    steps: int
    final: Scalar = 0.0

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        return Polynomial(self.initial, self.steps, self.final).value(count, xp)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a cosine from `initial` :math:`a_0` to `final` :math:`a_1` in `steps` :math:`T`, and `final` after that.

    :math:`a_t = a_1 + (a_0 - a_1)(1 + \cos(\pi \min(t, T)/T))/2`. Loshchilov and Hutter (2017), equation 5, without
    restarts.

    Examples
    --------
    >>> optapi.schedules.Cosine(0.1, steps=10)(np.array([0, 5, 10]))
    array([0.1 , 0.05, 0.  ])
    """

    initial: Scalar
    steps: int
    final: Scalar = 0.0

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        fraction = _ratio(xp.minimum(count, self.steps), self.steps)
        return self.final + (self.initial - self.final) * (1 + xp.cos(np.pi * fraction)) / 2


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    r"""Half a cosine again and again, each from `initial` towards `final`, the first in `steps` updates.

    After each restart the number of updates to the next is `growth` times as large: with the :math:`k` restarts done
    at :math:`t`, the last one at :math:`t_k`, :math:`T_k = T m^k`, :math:`T` = `steps`, :math:`m` = `growth`,

    .. math:: a_t = a_1 + (a_0 - a_1)(1 + \cos(\pi (t - t_k)/T_k))/2

    Loshchilov and Hutter (2017), SGDR, equation 5. The state of a rule, such as its momentum, is not reset.

    Examples
    --------
    >>> optapi.schedules.CosineRestarts(0.1, steps=10, growth=2)(np.array([0, 5, 10, 20, 30]))
    array([0.1 , 0.05, 0.1 , 0.05, 0.1 ])
    """

    initial: Scalar
    steps: int
    growth: int = 1
    final: Scalar = 0.0

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        m = float(self.growth)
        if self.growth == 1:
            fraction = _ratio(count % self.steps, self.steps)
        else:
            # The restarts are at (m^k - 1)/(m - 1), in units of `steps`. The floor of the logarithm may be off by one
            # near a restart; `restart` is exact, and the comparisons with it correct that.
            def restart(k: Any) -> Any:
                return self.steps * xp.round((xp.round(m**k) - 1) / (m - 1))

            k = xp.floor(xp.log1p(_ratio(count, self.steps) * (m - 1)) / np.log(m))
            k = k + (restart(k + 1) <= count) - (restart(k) > count)
            fraction = _ratio(count - restart(k), self.steps) / xp.round(m**k)
        return self.final + (self.initial - self.final) * (1 + xp.cos(np.pi * fraction)) / 2


@dataclass(frozen=True)
class Triangular(Schedule):
    r"""Up in a straight line from `initial` :math:`a_0` to `peak` :math:`a_1` in `steps` :math:`T`, down, and again.

    :math:`a_t = a_0 + (a_1 - a_0)(1 - |1 - (t \bmod 2T)/T|)`. Smith (2017), section 3.1.

    Examples
    --------
    >>> optapi.schedules.Triangular(0.0, 0.1, steps=10)(np.array([0, 5, 10, 15, 20]))
    array([0.  , 0.05, 0.1 , 0.05, 0.  ])
    """

    initial: Scalar
    peak: Scalar
    steps: int

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        time = _ratio(count % (2 * self.steps), self.steps)
        return self.initial + (self.peak - self.initial) * (1 - abs(1 - time))


@dataclass(frozen=True)
class Join(Schedule):
    """One schedule after another: ``schedules[i + 1]`` begins at ``boundaries[i]``, each at its own count of 0.

    Parameters
    ----------
    schedules : list or tuple
        Schedules, other functions of the count, and numbers or scalar variables, which are constant.
    boundaries : list or tuple of int
        The counts at which the schedules after the first take over, ascending; one fewer than schedules.

    Examples
    --------
    >>> optapi.schedules.Join((0.1, optapi.schedules.Linear(0.1, 10)), (90,))(np.array([50, 95, 100]))
    array([0.1 , 0.05, 0.  ])
    """

    schedules: Any
    boundaries: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        for schedule in self.schedules:
            _check_part("schedules of Join", schedule)
        _check_boundaries(self, "schedules", self.schedules)

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        value = _part(self.schedules[0])(count)
        for begin, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            value = xp.where(count >= begin, _part(schedule)(xp.maximum(count - begin, 0)), value)
        return value


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Constant pieces: ``values[0]``, and from the count ``boundaries[i]`` on ``values[i + 1]``.

    Parameters
    ----------
    values : list or tuple of scalars
    boundaries : list or tuple of int
        Ascending; one fewer than values.

    Examples
    --------
    >>> optapi.schedules.Piecewise((0.1, 0.01), (100,))(np.array([99, 100]))
    array([0.1 , 0.01])
    """

    values: Any
    boundaries: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in self.values:
            scalar("values of Piecewise", value, low=0)
        _check_boundaries(self, "values", self.values)

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        return Join(self.values, self.boundaries).value(count, xp)


@dataclass(frozen=True)
class WarmUp(Schedule):
    r"""A linear rise in `steps` :math:`W`, then `schedule`, which starts at its own count of 0.

    :math:`a_t = b_0 (t + 1)/(W + 1)` for :math:`t < W`, then :math:`a_t = b_{t-W}`, with :math:`b` = `schedule`, a
    schedule or a number. No update has a step size of 0, and the rise is even up to its end. Goyal et al. (2017),
    section 2.2.

    Examples
    --------
    >>> optapi.schedules.WarmUp(optapi.schedules.Cosine(0.1, 10), steps=4)(np.array([0, 4, 9, 14])).round(4)
    array([0.02, 0.1 , 0.05, 0.  ])
    """

    schedule: Any
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("schedule of WarmUp", self.schedule)

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        top = _part(self.schedule)(0)
        rise = Linear(top / (self.steps + 1), self.steps, top)
        return Join((rise, self.schedule), (self.steps,)).value(count, xp)


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    r"""A straight rise to `peak` in `warm_up` updates, `stable` updates there, a fall to `final` in `decay` updates.

    The fall is a :math:`1 - s(q)` from `peak` to `final`, with the fraction :math:`q` of it that is done: by `shape`
    "linear" :math:`s = q`, "sqrt" :math:`\sqrt q`, "cosine" :math:`(1 - \cos \pi q)/2`, or "square" :math:`q^2`. The
    first update has a step size of 0 unless `warm_up` is 0. Hägele et al. (2024), Scaling laws and compute-optimal
    training beyond fixed training durations, for "sqrt".

    Examples
    --------
    >>> optapi.schedules.WarmupStableDecay(0.1, 10, 80, 10)(np.array([0, 5, 10, 90, 95, 100]))
    array([0.  , 0.05, 0.1 , 0.1 , 0.05, 0.  ])
    """

    peak: Scalar
    warm_up: int
    stable: int
    decay: int
    final: Scalar = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("warm_up", "stable", "decay"):
            check_count(f"{name} of WarmupStableDecay", getattr(self, name), low=name == "decay")
        check_choice("shape of WarmupStableDecay", self.shape, ("linear", "sqrt", "cosine", "square"))

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        rise = self.peak * _ratio(xp.minimum(count, self.warm_up), max(self.warm_up, 1))
        q = _ratio(xp.minimum(xp.maximum(count - self.warm_up - self.stable, 0), self.decay), self.decay)
        done = {"linear": q, "sqrt": q**0.5, "cosine": (1 - xp.cos(np.pi * q)) / 2, "square": q**2}[self.shape]
        return xp.where(count < self.warm_up, rise, self.final + (self.peak - self.final) * (1 - done))


@dataclass(frozen=True)
class Rex(Schedule):
    r"""A fall from `peak` :math:`a_0` to `final` :math:`a_1` in `steps` :math:`T`, slow at first and fast at the end.

    :math:`a_t = a_1 + (a_0 - a_1) \frac{1 - q}{1 - q/2}` with :math:`q = \min(t, T)/T`. Chen, Wolfe and Kyrillidis
    (2022), REX: revisiting budgeted training with an improved schedule.

    Examples
    --------
    >>> optapi.schedules.Rex(0.3, steps=10)(np.array([0, 5, 10]))
    array([0.3, 0.2, 0. ])
    """

    peak: Scalar
    steps: int
    final: Scalar = 0.0

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        q = _ratio(xp.minimum(count, self.steps), self.steps)
        return self.final + (self.peak - self.final) * (1 - q) / (1 - q / 2)


@dataclass(frozen=True)
class OneCycle(Schedule):
    r"""Three straight lines in `steps` updates: up to `peak`, down again, and down to almost nothing.

    With :math:`a` = `peak`, :math:`d` = `divisor` and :math:`e` = `final_divisor`: from :math:`a/d` to :math:`a` in
    the fraction `rise` of the updates, to :math:`a/d` at the fraction `fall`, and to :math:`a/(de)` at their end.
    Fractions are rounded down to whole updates. Smith and Topin (2018), section 3.

    Examples
    --------
    >>> optapi.schedules.OneCycle(0.1, steps=100)(np.array([0, 30, 85])).round(4)
    array([0.004, 0.1  , 0.004])
    """

    peak: Scalar
    steps: int
    rise: float = 0.3
    fall: float = 0.85
    divisor: Any = 25.0
    final_divisor: Any = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rise", "fall"):
            fraction = getattr(self, name)
            if isinstance(fraction, Variable):
                raise TypeError(f"{name} of OneCycle is a variable; pass a number")
            scalar(f"{name} of OneCycle", fraction, low=0, high=1)
        first, second = self._boundaries()
        if not 0 < first < second < self.steps:
            raise ValueError(
                f"the lines of OneCycle end at {first}, {second} and {self.steps} updates; "
                "pass steps, rise and fall that leave each at least one"
            )

    def _boundaries(self) -> tuple[int, int]:
        return int(self.rise * self.steps), int(self.fall * self.steps)

    def value(self, count: int | Array, xp: ModuleType) -> Any:
        first, second = self._boundaries()
        low = self.peak / self.divisor
        lines = (
            Linear(low, first, self.peak),
            Linear(self.peak, second - first, low),
            Linear(low, self.steps - second, low / self.final_divisor),
        )
        return Join(lines, (first, second)).value(count, xp)


def _ratio(count: Any, steps: Any) -> Any:
    """`count` / `steps` in float64; PyTensor would divide integers in floatX."""
    return count.astype("float64") / steps


def _is_symbolic(value: Any) -> bool:
    """Whether `value`, or a field of it, is a variable."""
    if isinstance(value, Schedule):
        return any(_is_symbolic(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple):
        return any(_is_symbolic(part) for part in value)
    return isinstance(value, Variable)


def _part(schedule: Any) -> Callable[[Any], Any]:
    """`schedule` as a function of the count."""
    return schedule if callable(schedule) and not isinstance(schedule, Variable) else Constant(schedule)


def _check_part(argument: str, schedule: Any) -> None:
    if isinstance(schedule, Variable) or not callable(schedule):
        scalar(argument, schedule, low=0)


def _check_boundaries(schedule: Any, argument: str, parts: tuple[Any, ...]) -> None:
    """The boundaries of `schedule` ascend, and are one fewer than its `parts`."""
    name = type(schedule).__name__
    low = 1
    for boundary in schedule.boundaries:
        low = check_count(f"boundaries of {name}", boundary, low) + 1
    if len(parts) != len(schedule.boundaries) + 1:
        raise ValueError(
            f"{argument} of {name} has {len(parts)} entries for {len(schedule.boundaries)} boundaries; pass one more"
        )
