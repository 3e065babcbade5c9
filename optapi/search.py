r"""Line searches: how far to go along a line.

A search is a function ``search(line, start, first) -> Step``. ``line(a)`` returns a `Trial`, the cost and the slope at
the step size `a`, and anything that the caller wants back for the accepted step. The search compares costs and slopes
and knows nothing of vectors, so it serves any function of one variable::

    def line(a):
        return Trial((a - 2) ** 2, 2 * (a - 2))

    step = weak_wolfe(line, line(pt.constant(0.0)), first=1.0)

Options go along with `functools.partial`: ``partial(weak_wolfe, curvature=0.5)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from .checks import check_count, scalar
from .loops import repeat


class Trial(NamedTuple):
    """One point of a line.

    Attributes
    ----------
    cost : scalar variable
        The cost there.
    slope : scalar variable
        Its derivative along the line.
    carry : tuple of variables
        What else was computed there, for instance the point and its gradient. A search passes it on unread.
    """

    cost: Any
    slope: Any
    carry: tuple[Any, ...] = ()


class Step(NamedTuple):
    """What a search found.

    Attributes
    ----------
    size : scalar variable
        The step size; 0 if no step was acceptable.
    trial : Trial
        The point there; that of the start if no step was acceptable.
    evaluations : integer scalar variable
        How often the line was evaluated.
    failed : boolean scalar variable
        Whether no step was acceptable.
    """

    size: Any
    trial: Trial
    evaluations: Any
    failed: Any


Line = Callable[[Any], Trial]


def weak_wolfe(
    line: Line, start: Trial, first: Any = 1.0, *, decrease: Any = 1e-4, curvature: Any = 0.9, trials: int = 40
) -> Step:
    r"""A step that satisfies the weak Wolfe conditions, by doubling and bisection.

    With :math:`\phi(a)` the cost at step size :math:`a`, the conditions are
    :math:`\phi(a) \le \phi(0) + c_1 a \phi'(0)` and :math:`\phi'(a) \ge c_2 \phi'(0)`. The bracket :math:`(l, h)`
    starts as :math:`(0, \infty)`. A trial that fails the first becomes :math:`h`; one that passes it and fails the
    second becomes :math:`l`. The next trial is :math:`2a` while :math:`h` is infinite and :math:`(l + h)/2` afterwards.
    A trial whose cost or slope is not finite counts as failing the first. If the trials run out, the largest step that
    passed the first is taken.

    Parameters
    ----------
    line : callable
        From a step size to a `Trial`.
    start : Trial
        The trial at step size 0. Without a finite cost and a negative slope there is no search, and the step fails.
    first : scalar
        The first step size to try. If it is not positive and finite there is no search, and the step fails.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    curvature : scalar
        :math:`c_2`, between :math:`c_1` and 1.
    trials : int
        The largest number of evaluations.

    Returns
    -------
    Step

    References
    ----------
    Lewis and Overton (2013), Nonsmooth optimization via quasi-Newton methods, algorithm 2.6.
    """
    trials = check_count("trials", trials)
    dtype = np.result_type(start.cost.type.dtype, start.slope.type.dtype).name
    c1 = scalar("decrease", decrease, 0, 1).astype(dtype)
    c2 = scalar("curvature", curvature, 0, 1).astype(dtype)
    first = scalar("first", first).astype(dtype)

    def turn(a: Any, low: Any, high: Any, count: Any, *accepted: Any) -> Any:
        trial = line(a)
        far = ~(finite(trial) & (trial.cost <= start.cost + c1 * a * start.slope))
        steep = ~(trial.slope >= c2 * start.slope)
        high = pt.switch(far, a, high)
        low = pt.switch(far, low, a)
        following = pt.switch(pt.isinf(high), 2 * a, low + (high - low) / 2)
        kept = [pt.switch(far, old, new) for old, new in zip(accepted, _flat(trial), strict=True)]
        return [following, low, high, count + 1, *kept], (~far & ~steep) | pt.isinf(following)

    zero = pt.zeros((), dtype)
    ready = finite(start) & (start.slope < 0) & (first > 0) & pt.isfinite(first)
    begin = [first, zero, pt.constant(np.asarray(np.inf, dtype)), np.int64(0), *_flat(start)]
    _, size, _, count, cost, slope, *carry = repeat(turn, begin, pt.switch(ready, trials, 0))
    return Step(size, Trial(cost, slope, tuple(carry)), count, ~(size > 0))


def finite(trial: Trial) -> Any:
    """Whether the cost and the slope of `trial` are finite numbers."""
    return pt.isfinite(trial.cost) & pt.isfinite(trial.slope)


def _flat(trial: Trial) -> list[Any]:
    return [trial.cost, trial.slope, *trial.carry]
