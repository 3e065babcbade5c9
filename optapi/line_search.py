r"""Line searches: how far to go along a line.

A search is a function ``search(line, start, first) -> Step``. ``line(a)`` returns a `Trial`: the cost and the slope at
the step size `a`, and anything else that the caller needs of the accepted step. The search compares costs and slopes
and knows nothing of vectors, so it serves any function of one variable::

    def line(a):
        return Trial((a - 2) ** 2, 2 * (a - 2))

    step = strong_wolfe(line, line(pt.zeros(())), first=1.0)

Options are set with `functools.partial`: ``partial(strong_wolfe, curvature=0.1)``.

With :math:`\phi(a)` the cost and :math:`\phi'(a)` the slope at step size :math:`a`, the conditions are

- sufficient decrease (Armijo): :math:`\phi(a) \le \phi(0) + c_1 a \phi'(0)`;
- curvature, weak: :math:`\phi'(a) \ge c_2 \phi'(0)`; strong: :math:`|\phi'(a)| \le c_2 |\phi'(0)|`.

Every search takes ``line``, ``start``, which is the trial at step size 0, and ``first``, the first step size to try. If
the cost at the start is not finite, the slope there is not negative, or the first step size is not positive and finite,
the line is not evaluated and the search fails. A trial whose cost or slope is not finite is not accepted, and the next
one is smaller.

With a ``limit``, no step is longer. A trial at the limit of sufficient decrease, from which the line still goes down,
is accepted whatever the curvature condition says.

**Rounding.** The searches compare changes of the cost, :math:`\phi(a) - \phi(0)`. A change that is no larger than the
rounding error of the cost, 8 times the machine precision times :math:`|\phi(0)|`, says nothing; in its place stands
what the slopes say, :math:`a (\phi'(0) + \phi'(a)) / 2`. So a step that is too short to change the cost is lengthened,
and close to a minimizer the searches go on by slopes: sufficient decrease is then the approximate condition of Hager
and Zhang, :math:`\phi'(a) \le (2 c_1 - 1) \phi'(0)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from .checks import check_callable, check_count, scalar, shown
from .graph.loops import FALSE, repeat
from .state import state
from .typing import Scalar, Tensor
from .vectors import unit


__all__ = [
    "NonMonotone",
    "Step",
    "Trial",
    "backtracking",
    "fixed",
    "hager_zhang",
    "more_thuente",
    "nonmonotone",
    "strong_wolfe",
    "weak_wolfe",
]


class Trial(NamedTuple):
    """One point of a line.

    Attributes
    ----------
    cost : scalar variable
        The cost at the point.
    slope : scalar variable
        The derivative of the cost along the line.
    carry : tuple of variables
        What else was computed at the point, for instance its coordinates and the gradient. A search returns that of the
        accepted trial.
    """

    cost: Any
    slope: Any
    carry: tuple[Any, ...] = ()


class Step(NamedTuple):
    """The result of a search.

    Attributes
    ----------
    size : scalar variable
        The step size; 0 if no step was acceptable.
    trial : Trial
        The trial at the step size; the start if no step was acceptable.
    evaluations : integer scalar variable
        How often the line was evaluated.
    failed : boolean scalar variable
        Whether no step was acceptable.
    memory : tuple of variables
        The next values of the state of the search, see `NonMonotone`; mostly empty.
    promise : scalar variable, optional
        How far the slopes say that the cost can fall along the line; infinite if they say nothing.
    lowest : scalar variable, optional
        The lowest cost of all trials, also where it is minus infinity.
    noise : scalar variable, optional
        How far costs of trials were seen to be wrong, see `seen_noise`; by default 0.
    """

    size: Any
    trial: Trial
    evaluations: Any
    failed: Any
    memory: tuple[Any, ...] = ()
    promise: Any = None
    lowest: Any = None
    noise: Any = 0.0


# From a step size to the trial at it.
Line = Callable[[Any], Trial]
# From a line, the trial at its start and the first step size, and the state of the search if it has some, to the step.
LineSearch = Callable[..., Step]


def fixed(line: Line, start: Trial, first: Scalar = 1.0, *, shrink: Scalar = 0.5, max_trials: int = 40,
          limit: Scalar | None = None) -> Step:  # fmt: skip
    """The first step, whatever the cost at its end; it is shortened only while the trial is not finite.

    Parameters
    ----------
    line, start, first
        As in every search.
    shrink : scalar
        The ratio of the next step size to that of a trial which is not finite, between 0 and 1.
    max_trials : int
        The largest number of evaluations.
    limit : scalar, optional
        The largest step size, see the module.

    Returns
    -------
    Step

    Examples
    --------
    >>> def line(a):
    ...     return optapi.line_search.Trial((a - 2) ** 2, 2 * (a - 2))
    >>> step = optapi.line_search.fixed(line, line(pt.constant(0.0)), first=0.5)
    >>> size, failed = pytensor.function([], [step.size, step.failed])()
    >>> round(float(size), 6), bool(failed)
    (0.5, False)
    """
    (factor,) = _scalars(start, shrink=(shrink, 0, 1))

    def turn(a: Any, trial: Trial, best: Best) -> Decision:
        return Decision(factor * a, (), finite(trial), finite(trial))

    return _search(line, start, first, max_trials, (), turn, limit)


def backtracking(line: Line, start: Trial, first: Scalar = 1.0, *, decrease: Scalar = 1e-4, min_shrink: Scalar = 0.1,
                 max_shrink: Scalar = 0.5, max_trials: int = 40, limit: Scalar | None = None) -> Step:  # fmt: skip
    r"""A step of sufficient decrease, by backtracking from the first one.

    The next step size is the minimizer of the cubic with the costs and slopes at 0 and at the trial, but at least
    `min_shrink` and at most `max_shrink` times the present one. After a trial that is not finite it is `max_shrink`
    times the present one.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    min_shrink, max_shrink : scalar
        The bounds of the ratio of the next step size to the present one, between 0 and 1.
    max_trials : int
        The largest number of evaluations.
    limit : scalar, optional
        The largest step size, see the module.

    Returns
    -------
    Step

    References
    ----------
    Dennis and Schnabel (1983), Numerical methods for unconstrained optimization and nonlinear equations, algorithm
    A6.3.1, with the slope of the trial in the place of the cost of an older trial.

    Examples
    --------
    >>> def line(a):
    ...     return optapi.line_search.Trial((a - 2) ** 2, 2 * (a - 2))
    >>> step = optapi.line_search.backtracking(line, line(pt.constant(0.0)), first=5.0)
    >>> size, failed = pytensor.function([], [step.size, step.failed])()
    >>> round(float(size), 6), bool(failed)
    (2.0, False)
    """
    c1, min_shrink, max_shrink = _scalars(
        start, decrease=(decrease, 0, 1), min_shrink=(min_shrink, 0, 1), max_shrink=(max_shrink, 0, 1)
    )

    def turn(a: Any, trial: Trial, best: Best) -> Decision:
        accepted = finite(trial) & (trial.cost <= c1 * a * start.slope)
        zero = pt.zeros_like(a)
        minimizer = cubic(zero, zero, start.slope, a, trial.cost, trial.slope)
        # Written so that NaN, from a trial that is not finite or a cubic without a minimizer, becomes the upper bound.
        next_a = pt.switch(minimizer < max_shrink * a, pt.maximum(minimizer, min_shrink * a), max_shrink * a)
        return Decision(next_a, (), accepted, accepted)

    return _search(line, start, first, max_trials, (), turn, limit)


def weak_wolfe(line: Line, start: Trial, first: Scalar = 1.0, *, decrease: Scalar = 1e-4, curvature: Scalar = 0.9,
               max_trials: int = 40, limit: Scalar | None = None) -> Step:  # fmt: skip
    r"""A step that satisfies the weak Wolfe conditions, by doubling and bisection.

    The bracket :math:`(l, h)` starts as :math:`(0, \infty)`. A trial without sufficient decrease becomes :math:`h`; one
    with it that fails the curvature condition becomes :math:`l`. The next step size is :math:`2a` while :math:`h` is
    infinite and :math:`(l + h)/2` afterwards. If the trials run out, the largest step of sufficient decrease is taken.
    It suits costs with kinks, on which no step need satisfy the strong conditions.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    curvature : scalar
        :math:`c_2`, between :math:`c_1` and 1.
    max_trials : int
        The largest number of evaluations.
    limit : scalar, optional
        The largest step size, see the module.

    Returns
    -------
    Step

    References
    ----------
    Lewis and Overton (2013), Nonsmooth optimization via quasi-Newton methods, algorithm 2.6.

    Examples
    --------
    >>> def line(a):
    ...     return optapi.line_search.Trial((a - 2) ** 2, 2 * (a - 2))
    >>> step = optapi.line_search.weak_wolfe(line, line(pt.constant(0.0)), first=0.5, curvature=0.5)
    >>> size, failed = pytensor.function([], [step.size, step.failed])()
    >>> round(float(size), 6), bool(failed)
    (1.0, False)
    """
    c1, c2 = _scalars(start, decrease=(decrease, 0, 1), curvature=(curvature, 0, 1))

    def turn(a: Any, trial: Trial, best: Best, high: Any) -> Decision:
        decreased = finite(trial) & (trial.cost <= c1 * a * start.slope)
        high = pt.switch(decreased, high, a)
        low = pt.switch(decreased, a, best.size)
        next_a = pt.switch(pt.isinf(high), 2 * a, low + (high - low) / 2)
        return Decision(next_a, (high,), decreased, decreased & (trial.slope >= c2 * start.slope))

    return _search(line, start, first, max_trials, [np.inf], turn, limit, c1)


def strong_wolfe(line: Line, start: Trial, first: Scalar = 1.0, *, decrease: Scalar = 1e-4, curvature: Scalar = 0.7,
                 growth: Scalar = 10.0, error: Scalar | None = None, max_trials: int = 30,
                 limit: Scalar | None = None) -> Step:  # fmt: skip
    r"""A step that satisfies the strong Wolfe conditions, by cubic interpolation in a bracket.

    The bracket has the end :math:`l` of the lowest cost among the trials of sufficient decrease, and the other end
    :math:`h`, infinite at first. A trial without sufficient decrease, or of no lower cost than :math:`l`, becomes
    :math:`h`; another one becomes :math:`l`, and the old :math:`l` becomes :math:`h` if the slope leads back to it. The
    next step size is the minimizer of the cubic with the costs and slopes of both ends, at a distance from the ends of
    at least a tenth of the bracket. While :math:`h` is infinite, it is the minimizer of the cubic of the last two
    trials, and exceeds the last one by 1.1 to `growth` times the distance between the two. After a trial that is not
    finite, the next one is a tenth of the way to it. Where there is no cubic, or it has no minimizer, the next step
    size is the middle of the bracket, or the upper bound while :math:`h` is infinite. If the trials run out, :math:`l`
    is taken.

    Close to a minimizer, a sufficient decrease is smaller than the rounding error of the cost. So a trial that
    satisfies the curvature condition is also accepted with :math:`\phi(a) \le \phi(0) + \epsilon |\phi(0)|`, as in
    `hager_zhang`.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    curvature : scalar
        :math:`c_2`, between :math:`c_1` and 1. From 0.7 to 0.9 suits quasi-Newton directions, 0.1 conjugate gradients.
    growth : scalar
        How much longer than the last extension the next one may be, at least 1.1.
    error : scalar, optional
        :math:`\epsilon`, the relative error of the cost; by default 8 times the precision of its dtype.
    max_trials : int
        The largest number of evaluations.
    limit : scalar, optional
        The largest step size, see the module.

    Returns
    -------
    Step

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 3.5 and 3.6 and equation 3.59.

    Examples
    --------
    >>> def line(a):
    ...     return optapi.line_search.Trial((a - 2) ** 2, 2 * (a - 2))
    >>> step = optapi.line_search.strong_wolfe(line, line(pt.constant(0.0)), first=0.5, curvature=0.1)
    >>> size, failed = pytensor.function([], [step.size, step.failed])()
    >>> round(float(size), 6), bool(failed)
    (2.0, False)
    """
    # Without this, lbfgs in float32 ends at gradients up to 1000 times their rounding error on 15 of the 35 problems of
    # Moré, Garbow and Hillstrom; with it on 6.
    c1, c2, max_growth = _scalars(start, decrease=(decrease, 0, 1), curvature=(curvature, 0, 1), growth=(growth, 1.1))
    min_growth, half, tenth, infinity = _numbers(start, 1.1, 0.5, 0.1, np.inf)
    ceiling = resolution(*start[:2])
    if error is not None:
        ceiling = _scalars(start, error=(error, 0))[0] * abs(start.cost)

    def turn(a: Any, trial: Trial, best: Best, high: Any, high_cost: Any, high_slope: Any) -> Decision:
        valid = finite(trial)
        current, low, other = (a, *trial[:2]), (best.size, *best.trial[:2]), (high, high_cost, high_slope)
        better = valid & (trial.cost <= c1 * a * start.slope) & (trial.cost < best.trial.cost)
        unbounded = pt.isinf(high)
        extends = better & unbounded & (trial.slope < 0)
        # p and q are the ends of the bracket; without a high end, the old low end takes its place in the cubic.
        swap = better & (unbounded | (trial.slope * (high - best.size) >= 0))
        q = _choose(swap, low, _choose(better, other, current))
        p = _choose(better, current, low)

        width = q[0] - p[0]
        # The minimizer of the cubic as a fraction of the way from p to q; negative beyond p, where the bracket is open.
        fraction = (cubic(*p, *q) - p[0]) / width
        outside = pt.switch((fraction < 0) & (-fraction < max_growth), pt.minimum(fraction, -min_growth), -max_growth)
        inside = pt.switch(pt.isfinite(fraction), pt.clip(fraction, tenth, 1 - tenth), pt.switch(valid, half, tenth))
        next_a = p[0] + pt.switch(extends, outside, inside) * width
        high = pt.switch(extends, infinity, q[0])

        accepted = valid & (abs(trial.slope) <= -c2 * start.slope) & (better | (trial.cost <= ceiling))
        return Decision(next_a, (high, *q[1:]), better | accepted, accepted | pt.eq(next_a, q[0]))

    return _search(line, start, first, max_trials, [np.inf, np.inf, 0.0], turn, limit, c1)


def more_thuente(line: Line, start: Trial, first: Scalar = 1.0, *, decrease: Scalar = 1e-3, curvature: Scalar = 0.9,
                 width: Scalar = 0.1, max_trials: int = 20,
                 limit: Scalar | None = None) -> Step:  # fmt: skip
    r"""A step that satisfies the strong Wolfe conditions, by the search of Moré and Thuente.

    The interval of uncertainty has the best step :math:`x` as one end, and another end :math:`y`, infinite at first.
    The next step size is chosen from the minimizers of a cubic and a quadratic. Until a trial has a sufficient decrease
    and a slope that is not negative, a trial without sufficient decrease is judged by
    :math:`\psi(a) = \phi(a) - \phi(0) - c_1 a \phi'(0)` in the place of :math:`\phi`. The interval is bisected where
    two trials have not shortened it to 0.66 times its length. If the trials run out, or the interval is shorter than
    `width` times its upper end, :math:`x` is taken.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    curvature : scalar
        :math:`c_2`, between 0 and 1.
    width : scalar
        The relative width of the interval at which the search ends, between 0 and 1.
    max_trials : int
        The largest number of evaluations.
    limit : scalar, optional
        The largest step size, see the module.

    Returns
    -------
    Step

    References
    ----------
    Moré and Thuente (1994), Line search algorithms with guaranteed sufficient decrease, sections 2 to 4. After a trial
    that is not finite, the next one is a tenth of the way to it, and no later one is as long.

    Examples
    --------
    >>> def line(a):
    ...     return optapi.line_search.Trial((a - 2) ** 2, 2 * (a - 2))
    >>> step = optapi.line_search.more_thuente(line, line(pt.constant(0.0)), first=0.5, curvature=0.1)
    >>> size, failed = pytensor.function([], [step.size, step.failed])()
    >>> round(float(size), 6), bool(failed)
    (2.0, False)
    """
    c1, c2, xtol = _scalars(start, decrease=(decrease, 0, 1), curvature=(curvature, 0, 1), width=(width, 0, 1))
    half, shrink, tenth = _numbers(start, 0.5, 0.66, 0.1)
    min_slope = c1 * start.slope

    def turn(a: Any, trial: Trial, best: Best, first_stage: Any, y: Any, fy: Any, dy: Any, max_size: Any, width: Any,
             previous_width: Any) -> Decision:  # fmt: skip
        valid = finite(trial)
        x, fx, dx, f, d = best.size, best.trial.cost, best.trial.slope, trial.cost, trial.slope
        decreased = valid & (f <= a * min_slope)
        accepted = decreased & (abs(d) <= -c2 * start.slope)
        first_stage = first_stage & ~(decreased & (d >= 0))

        # The costs and slopes of psi, or of the cost itself where the shift is 0.
        shift = pt.switch(first_stage & ~decreased & (f <= fx), min_slope, pt.zeros_like(min_slope))
        lowest, current = (x, fx - x * shift, dx - shift), (a, f - a * shift, d - shift)
        other = (y, fy - y * shift, dy - shift)
        next_a = _more_thuente_trial(lowest, current, other, *_numbers(start, 0.5, 0.66, 1.1))

        # If the trial is higher than x, it becomes y. Else it becomes x, and the old x becomes y if the slopes of the
        # two have opposite signs.
        higher = ~(current[1] <= lowest[1])
        across = ~higher & (pt.sign(current[2]) * pt.sign(lowest[2]) < 0)
        new = [*_choose(higher, (a, f, d), _choose(across, (x, fx, dx), (y, fy, dy))), pt.switch(higher, x, a)]
        y, fy, dy, x = _choose(valid, new, (y, fy, dy, x))
        next_width = abs(y - x)
        next_a = pt.switch(pt.isfinite(y) & (next_width >= shrink * previous_width), x + half * (y - x), next_a)
        next_a = pt.switch(valid, next_a, x + tenth * (a - x))
        max_size = pt.switch(valid | (a < x), max_size, a)
        next_a = pt.switch(next_a < max_size, next_a, x + half * (max_size - x))

        low, high = pt.minimum(x, y), pt.maximum(x, y)
        exhausted = pt.isfinite(y) & ~((low < next_a) & (next_a < high) & (next_width > xtol * high))
        new_state = (first_stage, y, fy, dy, max_size, next_width, width)
        return Decision(next_a, new_state, accepted | (valid & ~higher), accepted | exhausted)

    initial = [pt.constant(np.bool_(True)), np.inf, 0.0, 0.0, np.inf, np.inf, np.inf]
    return _search(line, start, first, max_trials, initial, turn, limit, c1)


def _more_thuente_trial(x: Any, t: Any, y: Any, half: Any, shrink: Any, min_growth: Any) -> Any:
    """The next step size from the best trial, the present one and the other end, as (size, cost, slope); section 4."""
    (a, f, d), (b, f_best, d_best) = t, x
    bracketed = pt.isfinite(y[0])
    # The bounds of the next step size while there is no other end. At first there is no lower bound.
    low, high = pt.switch(b > 0, a + min_growth * (a - b), pt.zeros_like(a)), a + 4 * (a - b)
    c = cubic(*x, *t)
    s = secant(a, d, b, d_best)
    q = b + half * (a - b) * d_best / ((f_best - f) / (a - b) + d_best)

    case_1 = pt.switch(abs(c - b) < abs(q - b), c, c + half * (q - c))
    case_2 = pt.switch(abs(c - a) > abs(s - a), c, s)
    # A cubic that decreases without end, or has its minimizer behind the trial, leads as far as allowed.
    limit = pt.switch(bracketed, y[0], high)
    c = pt.switch((c - a) * (a - b) > 0, c, limit)
    nearer, limit = pt.switch(abs(c - a) < abs(s - a), c, s), a + shrink * (y[0] - a)
    nearer = pt.switch(a > b, pt.minimum(nearer, limit), pt.maximum(nearer, limit))
    farther = pt.clip(pt.switch(abs(c - a) > abs(s - a), c, s), low, high)
    case_3 = pt.switch(bracketed, nearer, farther)
    case_4 = pt.switch(bracketed, cubic(*t, *y), high)
    same_sign = pt.switch(abs(d) < abs(d_best), case_3, case_4)
    return pt.switch(f > f_best, case_1, pt.switch(pt.sign(d) * pt.sign(d_best) < 0, case_2, same_sign))


def hager_zhang(line: Line, start: Trial, first: Scalar = 1.0, *, decrease: Scalar = 0.1, curvature: Scalar = 0.9,
                error: Scalar = 1e-6, growth: Scalar = 5.0, shrink: Scalar = 0.66,
                max_trials: int = 50, limit: Scalar | None = None) -> Step:  # fmt: skip
    r"""A step that satisfies the weak Wolfe conditions, or Hager and Zhang's approximation of them.

    The approximate conditions are :math:`(2 c_1 - 1) \phi'(0) \ge \phi'(a) \ge c_2 \phi'(0)` and
    :math:`\phi(a) \le \phi(0) + \epsilon |\phi(0)|`. Close to a minimizer a difference of costs has no correct digits,
    and these conditions can still be tested to the precision of the slope. So the search works at the level of
    round-off, and in float32.

    The search keeps a bracket :math:`(l, h)` with :math:`\phi(l) \le \phi(0) + \epsilon |\phi(0)|`,
    :math:`\phi'(l) < 0` and :math:`\phi'(h) \ge 0`. The first trials grow by the factor `growth` until there is a
    bracket. In a bracket, a round has one or two steps of the secant method on the slope, and a bisection if the
    bracket has not shrunk to `shrink` times its width. A trial of a high cost and a negative slope becomes a
    preliminary :math:`h`, and bisections follow. If the trials run out, the trial of the lowest cost is taken, if it is
    lower than that of the start.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1/2.
    curvature : scalar
        :math:`c_2`, between :math:`c_1` and 1.
    error : scalar
        :math:`\epsilon`, the relative error of the cost: a step may raise the cost by as much.
    growth : scalar
        The ratio of the first trials, above 1.
    shrink : scalar
        The ratio of widths above which a bracket is bisected, between 0 and 1.
    max_trials : int
        The largest number of evaluations.
    limit : scalar, optional
        The largest step size, see the module.

    Returns
    -------
    Step

    References
    ----------
    Hager and Zhang (2005), A new conjugate gradient method with guaranteed descent and an efficient line search,
    section 4. Either set of conditions is enough from the first call on, and the other end of the bracket with a trial
    of a high cost is the last trial of a low cost, not 0. After a trial that is not finite, the next one is a tenth of
    the way to it.

    Examples
    --------
    >>> def line(a):
    ...     return optapi.line_search.Trial((a - 2) ** 2, 2 * (a - 2))
    >>> step = optapi.line_search.hager_zhang(line, line(pt.constant(0.0)), first=0.5, curvature=0.1)
    >>> size, failed = pytensor.function([], [step.size, step.failed])()
    >>> round(float(size), 6), bool(failed)
    (2.5, False)
    """
    c1, c2, epsilon, rho, gamma = _scalars(
        start,
        decrease=(decrease, 0, 0.5),
        curvature=(curvature, 0, 1),
        error=(error, 0),
        growth=(growth, 1),
        shrink=(shrink, 0, 1),
    )
    half, tenth = _numbers(start, 0.5, 0.1)
    ceiling = epsilon * abs(start.cost)
    alone, secant_first, secant_second, middle = range(4)

    def turn(
        a: Any, trial: Trial, best: Best, low: Any, low_slope: Any, high: Any, high_slope: Any, width: Any, kind: Any
    ) -> Decision:
        valid = finite(trial)
        below = valid & (trial.cost <= ceiling)
        rising = valid & (trial.slope >= 0)
        new_low = below & ~rising
        # The end that the trial replaces; then the bracket with the trial. A preliminary high end has a negative slope.
        old, old_slope = _choose(new_low, (low, low_slope), (high, high_slope))
        low, low_slope = _choose(new_low, (a, trial.slope), (low, low_slope))
        high, high_slope = _choose(new_low, (high, high_slope), (a, pt.switch(rising, trial.slope, start.slope)))

        # The bracket itself tells the phases of the paper's nested loops apart: the high end is infinite while there is
        # none, and its slope is negative while it is preliminary.
        expand = pt.isinf(high)
        bisect = high_slope < 0
        second = secant(old, old_slope, a, trial.slope)
        twice = pt.eq(kind, secant_first) & (low < second) & (second < high)
        halve = pt.neq(kind, middle) & (high - low > gamma * width)
        point = secant(low, low_slope, high, high_slope)
        inside = (low < point) & (point < high) & ~halve
        center = low + pt.switch(bisect & ~valid, tenth, half) * (high - low)
        next_a = pt.switch(
            expand, rho * a, pt.switch(bisect, center, pt.switch(twice, second, pt.switch(inside, point, center)))
        )
        kind = pt.switch(
            expand | bisect,
            alone,
            pt.switch(twice, secant_second, pt.switch(halve, middle, secant_first)),
        )
        width = pt.switch(expand | bisect | twice | halve, width, high - low)

        slope = trial.slope >= c2 * start.slope
        wolfe = trial.cost <= c1 * a * start.slope
        approximate = below & (trial.slope <= (2 * c1 - 1) * start.slope)
        accepted = valid & slope & (wolfe | approximate)
        lower = valid & (trial.cost < best.trial.cost)
        exhausted = ~((low < next_a) & (next_a < high))
        return Decision(next_a, (low, low_slope, high, high_slope, width, kind), accepted | lower, accepted | exhausted)

    initial = [0.0, start.slope, np.inf, 0.0, np.inf, np.int64(alone)]
    return _search(line, start, first, max_trials, initial, turn, limit, c1)


@dataclass(frozen=True)
class NonMonotone:
    r"""A nonmonotone search, which may raise the cost: another search, with the decrease measured from earlier costs.

    The cost at the start is replaced by the largest of the last `memory` costs at which a search has started, or, with
    a `weight` :math:`\eta`, by their average

    .. math:: Q \leftarrow \eta Q + 1, \qquad C \leftarrow C + (\phi(0) - C) / Q

    where this is higher. It suits rules whose steps may raise the cost at times, such as `barzilai_borwein`.

    The rule keeps the state of the search, see `begin`; one object may serve many rules. A direct call takes the state
    as further arguments, and returns its next values as the `memory` of the `Step`. `nonmonotone` is the search with
    the default options.

    Parameters
    ----------
    line_search : callable
        The search that is called with the replaced cost.
    memory : int
        How many costs count. With 1 the search is `line_search` itself.
    weight : scalar, optional
        :math:`\eta`, from 0, where the average is the last cost, to 1, where it is that of all costs.

    References
    ----------
    Grippo, Lampariello and Lucidi (1986), A nonmonotone line search technique for Newton's method; Zhang and Hager
    (2004), A nonmonotone line search technique and its application to unconstrained optimization.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> search = optapi.line_search.NonMonotone(optapi.line_search.backtracking, memory=5)
    >>> optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.barzilai_borwein, line_search=search).round(4)
    array([1., 1.])
    """

    line_search: Callable[..., Step] = backtracking
    memory: int = 10
    weight: Any = None

    def begin(self, name: str, dtype: str) -> tuple[Any, ...]:
        """The state of the search before the first call, as state of the rule called `name`."""
        if self.weight is None:
            count = check_count("memory", self.memory)
            return (state(f"{name}/past_costs", (count,), dtype, -np.inf),)
        return state(f"{name}/average_cost", (), dtype), state(f"{name}/average_count", (), dtype)

    def __call__(self, line: Line, start: Trial, first: Scalar, *memory: Tensor,
                 limit: Scalar | None = None) -> Step:  # fmt: skip
        """Search along `line`, see the module."""
        cost = start.cost
        valid = pt.isfinite(cost)
        next_memory: tuple[Any, ...]
        if self.weight is None:
            (past,) = memory
            past = pt.concatenate([past[1:], cost[None]])
            reference, next_memory = pt.max(past), (past,)
        else:
            average, count = memory
            count = scalar("weight", self.weight, 0, 1).astype(cost.type.dtype) * count + 1
            average = average + (cost - average) / count
            reference, next_memory = pt.maximum(average, cost), (average, count)
        options = {} if limit is None else {"limit": limit}
        step = self.line_search(line, start._replace(cost=pt.switch(valid, reference, cost)), first, **options)
        # If the search has failed, its trial is the start, whose cost is that before the replacement.
        trial = step.trial._replace(cost=pt.switch(step.failed, cost, step.trial.cost))
        # Costs were compared with those of other points, which says nothing of their noise.
        return step._replace(trial=trial, memory=tuple(_choose(valid, next_memory, memory)), noise=0.0)


nonmonotone = NonMonotone()


# What the searches share


class Best(NamedTuple):
    """The trial that a search would return if it ended now, and its step size; at first the start, with size 0.

    Its cost, as that of the trial that a search sees, is the change since the start.
    """

    size: Any
    trial: Trial


class Decision(NamedTuple):
    """What a search decides after a trial: the next step size, its next state, whether this trial is the best, the end.

    The search ends with the best trial where `done` is true.
    """

    next_size: Any
    state: Any
    is_best: Any
    done: Any


def _search(line: Line, start: Trial, first: Any, max_trials: int, initial: Any, turn: Callable[..., Decision],
            limit: Any = None, decrease: Any = None) -> Step:  # fmt: skip
    """The loop of all searches, with the one place at which the line is evaluated.

    `initial` are the initial values of the state of this search, which `turn` gets and returns. `decrease` is what
    counts as sufficient at the `limit`.
    """
    check_callable("line", line, "a function from a step size to the Trial there")
    max_trials = check_count("max_trials", max_trials)
    dtype = _dtype(start)
    first = scalar("first", first).astype(dtype)
    if limit is not None:
        limit = scalar("limit", limit).astype(dtype)
        first = pt.switch(first > limit, limit, first)
    error = resolution(start.cost, start.slope)

    def body(
        a: Any,
        size: Any,
        count: Any,
        settled: Any,
        best_change: Any,
        promise: Any,
        lowest: Any,
        noise: Any,
        *values: Any,
    ) -> Any:
        best, own = list(values[: len(flat)]), values[len(flat) :]
        trial = line(a)
        if not isinstance(trial, Trial):
            raise TypeError(f"line returned {shown(trial)}; it has to return a Trial")
        change = trial.cost - start.cost
        noise = seen_noise(noise, start, a, trial)
        change = pt.switch(abs(change) <= error, a * (start.slope + trial.slope) / 2, change)
        seen = Best(size, Trial(best_change, best[1], tuple(best[2:])))
        decision = turn(a, trial._replace(cost=change), seen, *own)
        if limit is not None:
            decreased = FALSE if decrease is None else change <= decrease * a * start.slope
            decision = _limited(decision, a, trial, limit, decreased)
        size, best_change, *best = _choose(decision.is_best, [a, change, *_flat(trial)], [size, best_change, *best])
        promise = least_fall(promise, a, start.slope, trial)
        lowest = pt.switch(trial.cost < lowest, trial.cost, lowest)
        # At the resolution of the numbers there is nothing left to try.
        next_a = decision.next_size
        exhausted = pt.eq(next_a, a) | pt.eq(next_a, size) | ~(next_a > 0) | pt.isinf(next_a)
        settled = decision.is_best & decision.done
        values = (next_a, size, count + 1, settled, best_change, promise, lowest, noise, *best, *decision.state)
        return values, decision.done | exhausted

    flat, zero = _flat(start), pt.zeros((), dtype)
    ready = finite(start) & (start.slope < 0) & (first > 0) & pt.isfinite(first)
    initial = [np.asarray(value, dtype) if isinstance(value, float) else value for value in initial]
    variables = [
        first,
        zero,
        np.int64(0),
        FALSE,
        zero,
        np.asarray(np.inf, dtype),
        start.cost,
        pt.zeros_like(start.cost),
        *flat,
        *initial,
    ]
    last = repeat(body, variables, pt.switch(ready, max_trials, 0))
    _, size, count, settled, _, promise, lowest, noise, *rest = last
    # Where the trials have run out, slopes alone do not make a step: they may be wrong.
    taken = (size > 0) & (settled | (rest[0] < start.cost))
    cost, slope, *carry = _choose(taken, rest[: len(flat)], flat)
    trial = Trial(cost, slope, tuple(carry))
    return Step(pt.switch(taken, size, zero), trial, count, ~taken, (), promise, lowest, noise)


def _limited(decision: Decision, a: Any, trial: Trial, limit: Any, decreased: Any) -> Decision:
    """`decision` on the trial at `a` of a line that ends at `limit`."""
    blocked = (a >= limit) & finite(trial) & decreased & (trial.slope < 0)
    next_size = pt.switch(decision.next_size > limit, limit, decision.next_size)
    return Decision(next_size, decision.state, decision.is_best | blocked, decision.done | blocked)


def least_fall(promise: Any, size: Any, slope: Any, trial: Trial) -> Any:
    """The lower of `promise` and how far the cost can fall along a line by its `slope` and that of the trial at `size`.

    It is that of the parabola with these slopes, but at least half of the slope times the size: where the trial is far
    behind the minimizer, a parabola says too little. A slope that has not become flatter says nothing.
    """
    fall = -size * slope / 2 / pt.minimum(1 - trial.slope / slope, 1)
    return pt.switch(finite(trial) & (trial.slope > slope) & (fall < promise), fall, promise)


def precision(*variables: Tensor) -> float:
    """The machine precision of the least precise of `variables`."""
    return max(float(np.finfo(variable.type.dtype).eps) for variable in variables)


def resolution(cost: Tensor, derivative: Tensor) -> Any:
    """The rounding error of a cost: differences that are no larger say nothing.

    It is 8 times the machine precision times the cost. The precision is that of the derivative, if this is lower: a
    cost of float32 parameters may be handed on as a float64.
    """
    return np.asarray(8 * precision(cost, derivative), cost.type.dtype) * abs(cost)


def seen_noise(noise: Any, start: Trial, size: Any, trial: Trial) -> Any:
    """The larger of `noise` and of how wrong the cost of the `trial` at `size` is seen to be.

    The costs of sums of squares of small differences are off by much more than `resolution`, and nothing but a
    difference of costs that the slopes do not explain tells by how much. It counts where the slopes at both ends, times
    the size, are within the resolution, and where it is in the second half of the digits of the cost.
    """
    error, change = resolution(start.cost, start.slope), abs(trial.cost - start.cost)
    most = np.asarray(precision(start.cost, start.slope) ** 0.5, start.cost.type.dtype) * abs(start.cost)
    told = (abs(size * start.slope) <= error) & (abs(size * trial.slope) <= error) & (change <= most)
    return pt.switch(told & (change > noise), change, noise)


def finite(trial: Trial) -> Any:
    """Whether the cost and the slope of `trial` are finite numbers."""
    return pt.isfinite(trial.cost) & pt.isfinite(trial.slope)


def cubic(p: Tensor, p_cost: Tensor, p_slope: Tensor, q: Tensor, q_cost: Tensor, q_slope: Tensor) -> Any:  # fmt: skip
    """The minimizer of the cubic with the given costs and slopes at `p` and `q`; NaN if there is none."""
    d = p_slope + q_slope - 3 * (p_cost - q_cost) / (p - q)
    # The squares of large slopes overflow.
    u = unit(pt.maximum(abs(d), pt.maximum(abs(p_slope), abs(q_slope))))
    root = pt.sign(q - p) * u * pt.sqrt((d / u) ** 2 - p_slope / u * (q_slope / u))
    return q - (q - p) * (q_slope + root - d) / (q_slope - p_slope + 2 * root)


def secant(p: Tensor, p_slope: Tensor, q: Tensor, q_slope: Tensor) -> Any:
    """The zero of the line through the given slopes at `p` and `q`."""
    return p + (q - p) * (p_slope / (p_slope - q_slope))


def _choose(condition: Any, first: Any, second: Any) -> list[Any]:
    return [pt.switch(condition, a, b) for a, b in zip(first, second, strict=True)]


def _dtype(start: Trial) -> str:
    if not isinstance(start, Trial):
        raise TypeError(f"start is {shown(start)}; pass the Trial at the start of the line")
    return np.result_type(start.cost.type.dtype, start.slope.type.dtype).name


def _scalars(start: Trial, **options: Any) -> list[Any]:
    """The options of a search, each given as a value and the bounds of its range, in the dtype of the line."""
    return [scalar(name, *value).astype(_dtype(start)) for name, value in options.items()]


def _numbers(start: Trial, *values: float) -> list[Any]:
    """Constants in the dtype of the line; PyTensor would make some of them float64."""
    return [pt.constant(np.asarray(value, _dtype(start))) for value in values]


def _flat(trial: Trial) -> list[Any]:
    return [trial.cost, trial.slope, *trial.carry]
