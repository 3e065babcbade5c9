r"""Line searches: how far to go along a line.

A search is a function ``search(line, start, first) -> Step``. ``line(a)`` returns a `Trial`, the cost and the slope at
the step size `a`, and anything that the caller wants back for the accepted step. The search compares costs and slopes
and knows nothing of vectors, so it serves any function of one variable::

    def line(a):
        return Trial((a - 2) ** 2, 2 * (a - 2))

    step = strong_wolfe(line, line(pt.zeros(())), first=1.0)

Options go along with `functools.partial`: ``partial(strong_wolfe, curvature=0.1)``.

With :math:`\phi(a)` the cost and :math:`\phi'(a)` the slope at step size :math:`a`, the conditions are

- sufficient decrease (Armijo): :math:`\phi(a) \le \phi(0) + c_1 a \phi'(0)`;
- curvature, weak: :math:`\phi'(a) \ge c_2 \phi'(0)`; strong: :math:`|\phi'(a)| \le c_2 |\phi'(0)|`.

Every search takes ``line``, ``start``, the trial at step size 0, and ``first``, the first step size to try. Without a
finite cost and a negative slope at the start, or with a first step that is not positive and finite, there is no
evaluation and the step fails. A trial whose cost or slope is not finite is not accepted, and a smaller one follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from .checks import check_count, scalar
from .graph.loops import repeat
from .state import state
from .typing import Scalar, Tensor


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
    memory : tuple of variables
        The next values of what the search remembers from call to call, see `NonMonotone`; mostly nothing.
    """

    size: Any
    trial: Trial
    evaluations: Any
    failed: Any
    memory: tuple[Any, ...] = ()


# From a step size to the trial there.
Line = Callable[[Any], Trial]
# From a line, the trial at its start and the first step size to the step; with what it remembers, if anything.
LineSearch = Callable[..., Step]


def fixed(line: Line, start: Trial, first: Scalar = 1.0, *, shrink: Scalar = 0.5, max_trials: int = 40) -> Step:
    """The first step, whatever it does to the cost; `shrink` times as long while the trial is not finite.

    Parameters
    ----------
    line, start, first
        As in every search.
    shrink : scalar
        Between 0 and 1.
    max_trials : int
        The largest number of evaluations.

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

    def turn(a: Any, trial: Trial, kept: Kept) -> Decision:
        return Decision(factor * a, (), finite(trial), finite(trial))

    return _search(line, start, first, max_trials, (), turn)


def backtracking(
    line: Line,
    start: Trial,
    first: Scalar = 1.0,
    *,
    decrease: Scalar = 1e-4,
    min_shrink: Scalar = 0.1,
    max_shrink: Scalar = 0.5,
    max_trials: int = 40,
) -> Step:
    r"""A step of sufficient decrease, by going back from the first one.

    The next trial is the minimizer of the cubic with the costs and slopes at 0 and at the trial, but no less than
    `min_shrink` and no more than `max_shrink` times the trial; after one that is not finite, `max_shrink` times it.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    min_shrink, max_shrink : scalar
        The limits of the next trial as shares of this one, between 0 and 1.
    max_trials : int
        The largest number of evaluations.

    Returns
    -------
    Step

    References
    ----------
    Dennis and Schnabel (1983), Numerical methods for unconstrained optimization and nonlinear equations, algorithm
    A6.3.1, with the slope of the trial, which is known, in the place of an older trial.

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

    def turn(a: Any, trial: Trial, kept: Kept) -> Decision:
        good = finite(trial) & (trial.cost <= start.cost + c1 * a * start.slope)
        back = cubic(pt.zeros_like(a), start.cost, start.slope, a, trial.cost, trial.slope)
        # Written so that NaN, from a trial that is not finite or a cubic without a minimizer, becomes the upper limit.
        back = pt.switch(back < max_shrink * a, pt.maximum(back, min_shrink * a), max_shrink * a)
        return Decision(back, (), good, good)

    return _search(line, start, first, max_trials, (), turn)


def weak_wolfe(
    line: Line,
    start: Trial,
    first: Scalar = 1.0,
    *,
    decrease: Scalar = 1e-4,
    curvature: Scalar = 0.9,
    max_trials: int = 40,
) -> Step:
    r"""A step that satisfies the weak Wolfe conditions, by doubling and bisection.

    The bracket :math:`(l, h)` starts as :math:`(0, \infty)`. A trial without sufficient decrease becomes :math:`h`; one
    with it that fails the curvature condition becomes :math:`l`. The next trial is :math:`2a` while :math:`h` is
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

    def turn(a: Any, trial: Trial, kept: Kept, high: Any) -> Decision:
        near = finite(trial) & (trial.cost <= start.cost + c1 * a * start.slope)
        high = pt.switch(near, high, a)
        low = pt.switch(near, a, kept.size)
        following = pt.switch(pt.isinf(high), 2 * a, low + (high - low) / 2)
        return Decision(following, (high,), near, near & (trial.slope >= c2 * start.slope))

    return _search(line, start, first, max_trials, [np.inf], turn)


def strong_wolfe(
    line: Line,
    start: Trial,
    first: Scalar = 1.0,
    *,
    decrease: Scalar = 1e-4,
    curvature: Scalar = 0.7,
    growth: Scalar = 10.0,
    error: Scalar | None = None,
    max_trials: int = 30,
) -> Step:
    r"""A step that satisfies the strong Wolfe conditions, by cubic interpolation in a bracket.

    The bracket has the end :math:`l` of the lowest cost among the trials of sufficient decrease, and the other end
    :math:`h`, infinite at first. A trial without sufficient decrease, or of no lower cost than :math:`l`, becomes
    :math:`h`; another one becomes :math:`l`, and the old :math:`l` becomes :math:`h` if the slope leads back to it.
    The next trial is the minimizer of the cubic with the costs and slopes of both ends, kept off the ends by a tenth of
    the bracket; without an :math:`h`, that of the last two trials, from 1.1 to `growth` times the last step farther on.
    After a trial that is not finite, the next one is a tenth of the way to it. Where there is no cubic, or it has no
    minimizer, it is the middle of the bracket or the far limit. If the trials run out, :math:`l` is taken.

    Close to a minimizer, sufficient decrease is less than the cost resolves. A trial that satisfies the curvature
    condition there is accepted with :math:`\phi(a) \le \phi(0) + \epsilon |\phi(0)|`, as in `hager_zhang`.

    Parameters
    ----------
    line, start, first
        As in every search.
    decrease : scalar
        :math:`c_1`, between 0 and 1.
    curvature : scalar
        :math:`c_2`, between :math:`c_1` and 1. From 0.7 to 0.9 suits quasi-Newton directions, 0.1 conjugate gradients.
    growth : scalar
        At least 1.1.
    error : scalar, optional
        :math:`\epsilon`, the relative error of the cost; by default 8 times the precision of its dtype.
    max_trials : int
        The largest number of evaluations.

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
    if error is None:
        error = 8 * float(np.finfo(_dtype(start)).eps)
    c1, c2, far, epsilon = _scalars(
        start, decrease=(decrease, 0, 1), curvature=(curvature, 0, 1), growth=(growth, 1.1), error=(error, 0)
    )
    near, half, tenth, infinity = _numbers(start, 1.1, 0.5, 0.1, np.inf)
    ceiling = start.cost + epsilon * abs(start.cost)

    def turn(a: Any, trial: Trial, kept: Kept, high: Any, high_cost: Any, high_slope: Any) -> Decision:
        ok = finite(trial)
        here, low, other = (a, *trial[:2]), (kept.size, *kept.trial[:2]), (high, high_cost, high_slope)
        better = ok & (trial.cost <= start.cost + c1 * a * start.slope) & (trial.cost < kept.trial.cost)
        unbounded = pt.isinf(high)
        opened = better & unbounded & (trial.slope < 0)
        # Both ends of the bracket; without a high end, the old low one takes its place in the cubic.
        swap = better & (unbounded | (trial.slope * (high - kept.size) >= 0))
        q = _choose(swap, low, _choose(better, other, here))
        p = _choose(better, here, low)

        width = q[0] - p[0]
        # As a share of the way from p to q, or backwards, where the bracket is open.
        share = (cubic(*p, *q) - p[0]) / width
        onwards = pt.switch((share < 0) & (-share < far), pt.minimum(share, -near), -far)
        between = pt.switch(pt.isfinite(share), pt.clip(share, tenth, 1 - tenth), pt.switch(ok, half, tenth))
        following = p[0] + pt.switch(opened, onwards, between) * width
        high = pt.switch(opened, infinity, q[0])

        good = ok & (abs(trial.slope) <= -c2 * start.slope) & (better | (trial.cost <= ceiling))
        return Decision(following, (high, *q[1:]), better | good, good | pt.eq(following, q[0]))

    return _search(line, start, first, max_trials, [np.inf, np.inf, 0.0], turn)


def more_thuente(
    line: Line,
    start: Trial,
    first: Scalar = 1.0,
    *,
    decrease: Scalar = 1e-3,
    curvature: Scalar = 0.9,
    width: Scalar = 0.1,
    max_trials: int = 20,
) -> Step:
    r"""A step that satisfies the strong Wolfe conditions, by the search of Moré and Thuente.

    An interval of uncertainty has the best step :math:`x` and another end :math:`y`, infinite at first. The next trial
    is chosen from the minimizers of a cubic and a quadratic. Until a trial has a sufficient decrease and a slope that
    is not negative, a trial that lowers the cost too little is judged by
    :math:`\psi(a) = \phi(a) - \phi(0) - c_1 a \phi'(0)`. Where two trials have not shrunk the interval to 0.66 times
    what it was, it is bisected. If the trials run out, or the interval is shorter than `width` times its far end,
    :math:`x` is taken.

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
    half, shorter, tenth = _numbers(start, 0.5, 0.66, 0.1)
    least = c1 * start.slope

    def turn(
        a: Any, trial: Trial, kept: Kept, first_stage: Any, y: Any, fy: Any, dy: Any, top: Any, last: Any, older: Any
    ) -> Decision:
        ok = finite(trial)
        x, fx, dx, f, d = kept.size, kept.trial.cost, kept.trial.slope, trial.cost, trial.slope
        enough = ok & (f <= start.cost + a * least)
        good = enough & (abs(d) <= -c2 * start.slope)
        first_stage = first_stage & ~(enough & (d >= 0))

        # The costs and slopes of psi, or of the cost itself where the shift is 0.
        shift = pt.switch(first_stage & ~enough & (f <= fx), least, pt.zeros_like(least))
        best, this = (x, fx - x * shift, dx - shift), (a, f - a * shift, d - shift)
        other = (y, fy - y * shift, dy - shift)
        following = _more_thuente_trial(best, this, other, *_numbers(start, 0.5, 0.66, 1.1))

        # The trial becomes y if it is higher than x, else x; then the old x becomes y if it is on the other side.
        higher = ~(this[1] <= best[1])
        across = ~higher & (pt.sign(this[2]) * pt.sign(best[2]) < 0)
        new = [*_choose(higher, (a, f, d), _choose(across, (x, fx, dx), (y, fy, dy))), pt.switch(higher, x, a)]
        y, fy, dy, x = (pt.switch(ok, value, old) for value, old in zip(new, (y, fy, dy, x), strict=True))
        size = abs(y - x)
        following = pt.switch(pt.isfinite(y) & (size >= shorter * older), x + half * (y - x), following)
        following = pt.switch(ok, following, x + tenth * (a - x))
        top = pt.switch(ok | (a < x), top, a)
        following = pt.switch(following < top, following, x + half * (top - x))

        ends = pt.minimum(x, y), pt.maximum(x, y)
        spent = pt.isfinite(y) & ~((ends[0] < following) & (following < ends[1]) & (size > xtol * ends[1]))
        return Decision(following, (first_stage, y, fy, dy, top, size, last), good | (ok & ~higher), good | spent)

    begin = [pt.constant(np.bool_(True)), np.inf, 0.0, 0.0, np.inf, np.inf, np.inf]
    return _search(line, start, first, max_trials, begin, turn)


def _more_thuente_trial(x: Any, t: Any, y: Any, half: Any, most: Any, near: Any) -> Any:
    """The next trial from the best step, this trial and the other end, each with its cost and slope; section 4."""
    (a, f, d), (b, f_best, d_best) = t, x
    bracketed = pt.isfinite(y[0])
    # The limits of a trial while there is no other end. At first there is no lower one.
    low, high = pt.switch(b > 0, a + near * (a - b), pt.zeros_like(a)), a + 4 * (a - b)
    c = cubic(*x, *t)
    s = secant(a, d, b, d_best)
    q = b + half * (a - b) * d_best / ((f_best - f) / (a - b) + d_best)

    case_1 = pt.switch(abs(c - b) < abs(q - b), c, c + half * (q - c))
    case_2 = pt.switch(abs(c - a) > abs(s - a), c, s)
    # A cubic that falls for ever, or has its minimizer behind the trial, leads as far as allowed.
    far = pt.switch(bracketed, y[0], high)
    c = pt.switch((c - a) * (a - b) > 0, c, far)
    nearer, limit = pt.switch(abs(c - a) < abs(s - a), c, s), a + most * (y[0] - a)
    nearer = pt.switch(a > b, pt.minimum(nearer, limit), pt.maximum(nearer, limit))
    farther = pt.clip(pt.switch(abs(c - a) > abs(s - a), c, s), low, high)
    case_3 = pt.switch(bracketed, nearer, farther)
    case_4 = pt.switch(bracketed, cubic(*t, *y), high)
    same = pt.switch(abs(d) < abs(d_best), case_3, case_4)
    return pt.switch(f > f_best, case_1, pt.switch(pt.sign(d) * pt.sign(d_best) < 0, case_2, same))


def hager_zhang(
    line: Line,
    start: Trial,
    first: Scalar = 1.0,
    *,
    decrease: Scalar = 0.1,
    curvature: Scalar = 0.9,
    error: Scalar = 1e-6,
    growth: Scalar = 5.0,
    shrink: Scalar = 0.66,
    max_trials: int = 50,
) -> Step:
    r"""A step that satisfies the weak Wolfe conditions, or Hager and Zhang's approximation of them.

    The approximate conditions are :math:`(2 c_1 - 1) \phi'(0) \ge \phi'(a) \ge c_2 \phi'(0)` and
    :math:`\phi(a) \le \phi(0) + \epsilon |\phi(0)|`. Close to a minimizer they hold to the precision of the slope,
    where a difference of costs has lost all its digits. So the search works at the level of round-off, and in float32.

    It keeps a bracket :math:`(l, h)` with :math:`\phi(l) \le \phi(0) + \epsilon |\phi(0)|`, :math:`\phi'(l) < 0` and
    :math:`\phi'(h) \ge 0`. The first trials grow by the factor `growth` until there is one. Inside, a round has one
    or two steps of the secant method on the slope, and a bisection if the bracket has not shrunk to `shrink` times what
    it was. A trial of a high cost and a negative slope becomes a preliminary :math:`h`, and bisections follow. If the
    trials run out, the one of the lowest cost is taken, if that is lower than at the start.

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
        Above 1.
    shrink : scalar
        Between 0 and 1.
    max_trials : int
        The largest number of evaluations.

    Returns
    -------
    Step

    References
    ----------
    Hager and Zhang (2005), A new conjugate gradient method with guaranteed descent and an efficient line search,
    section 4. Both sets of conditions are in force from the first call on, and a trial of a high cost brackets together
    with the last one of a low cost instead of with 0. After a trial that is not finite, the next one is a tenth of the
    way to it.

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
    ceiling = start.cost + epsilon * abs(start.cost)
    alone, secant_first, secant_second, middle = range(4)

    def turn(
        a: Any, trial: Trial, kept: Kept, low: Any, low_slope: Any, high: Any, high_slope: Any, width: Any, kind: Any
    ) -> Decision:
        ok = finite(trial)
        calm = ok & (trial.cost <= ceiling)
        up = ok & (trial.slope >= 0)
        new_low = calm & ~up
        # The end that the trial replaces; then the bracket with the trial. A high end to be bisected away has a
        # negative slope.
        old, old_slope = _choose(new_low, (low, low_slope), (high, high_slope))
        low, low_slope = _choose(new_low, (a, trial.slope), (low, low_slope))
        high, high_slope = _choose(new_low, (high, high_slope), (a, pt.switch(up, trial.slope, start.slope)))

        expand = pt.isinf(high)
        bisect = high_slope < 0
        second = secant(old, old_slope, a, trial.slope)
        twice = pt.eq(kind, secant_first) & (low < second) & (second < high)
        halve = pt.neq(kind, middle) & (high - low > gamma * width)
        point = secant(low, low_slope, high, high_slope)
        inside = (low < point) & (point < high) & ~halve
        centre = low + pt.switch(bisect & ~ok, tenth, half) * (high - low)
        following = pt.switch(
            expand, rho * a, pt.switch(bisect, centre, pt.switch(twice, second, pt.switch(inside, point, centre)))
        )
        kind = pt.switch(
            expand | bisect,
            alone,
            pt.switch(twice, secant_second, pt.switch(halve, middle, secant_first)),
        )
        width = pt.switch(expand | bisect | twice | halve, width, high - low)

        slope = trial.slope >= c2 * start.slope
        wolfe = trial.cost <= start.cost + c1 * a * start.slope
        approximate = calm & (trial.slope <= (2 * c1 - 1) * start.slope)
        good = ok & slope & (wolfe | approximate)
        lower = ok & (trial.cost < kept.trial.cost)
        spent = ~((low < following) & (following < high))
        return Decision(following, (low, low_slope, high, high_slope, width, kind), good | lower, good | spent)

    begin = [0.0, start.slope, np.inf, 0.0, np.inf, np.int64(alone)]
    return _search(line, start, first, max_trials, begin, turn)


@dataclass(frozen=True)
class NonMonotone:
    r"""A search that lets the cost rise at times: `line_search`, with the decrease measured from costs of the past.

    In the place of the cost at the start stands the largest of the last `memory` costs at which a search has started,
    or, with a `weight` :math:`\eta`, their average

    .. math:: Q \leftarrow \eta Q + 1, \qquad C \leftarrow C + (\phi(0) - C) / Q

    as far as it is higher. It suits steps that need freedom, such as those of `barzilai_borwein`.

    A rule keeps what the search remembers, see `begin`; one object may serve many rules. On its own the search takes
    its memory as further arguments, and returns the next one as the `memory` of the `Step`. `nonmonotone` is the search
    with the default options.

    Parameters
    ----------
    line_search : callable
        The search inside.
    memory : int
        How many costs count. The largest of one cost is that cost.
    weight : scalar, optional
        From 0, which is the last cost alone, to 1, the average of all.

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

    search: Callable[..., Step] = backtracking
    memory: int = 10
    weight: Any = None

    def begin(self, name: str, dtype: str) -> tuple[Any, ...]:
        """The memory before the first call, as state of a rule."""
        if self.weight is None:
            past = check_count("memory", self.memory)
            return (state(f"{name}/past_costs", (past,), dtype, -np.inf),)
        return state(f"{name}/average_cost", (), dtype), state(f"{name}/average_count", (), dtype)

    def __call__(self, line: Line, start: Trial, first: Scalar, *memory: Tensor) -> Step:
        """Search along `line`, see the module."""
        cost = start.cost
        known = pt.isfinite(cost)
        following: tuple[Any, ...]
        if self.weight is None:
            (past,) = memory
            past = pt.concatenate([past[1:], cost[None]])
            reference, following = pt.max(past), (past,)
        else:
            average, count = memory
            count = scalar("weight", self.weight, 0, 1).astype(cost.type.dtype) * count + 1
            average = average + (cost - average) / count
            reference, following = pt.maximum(average, cost), (average, count)
        step = self.search(line, start._replace(cost=pt.switch(known, reference, cost)), first)
        # Without a step the trial is the start, with its own cost.
        trial = step.trial._replace(cost=pt.switch(step.failed, cost, step.trial.cost))
        following = tuple(pt.switch(known, new, old) for new, old in zip(following, memory, strict=True))
        return step._replace(trial=trial, memory=following)


nonmonotone = NonMonotone()


# What the searches share


class Kept(NamedTuple):
    """The trial that a search would return now, and its step size; the start, with 0, if there is none."""

    size: Any
    trial: Trial


class Decision(NamedTuple):
    """What one turn of a search decides: the next trial, its next state, whether to keep this trial, and to end."""

    following: Any
    state: Any
    keep: Any
    done: Any


def _search(line: Line, start: Trial, first: Any, max_trials: int, own: Any, turn: Callable[..., Decision]) -> Step:
    """The loop of all searches, with the one place at which the line is evaluated; `own` is the state of this one."""
    max_trials = check_count("max_trials", max_trials)
    dtype = _dtype(start)
    first = scalar("first", first).astype(dtype)

    def body(a: Any, size: Any, count: Any, *values: Any) -> Any:
        flat, own = values[: len(begin)], values[len(begin) :]
        trial = line(a)
        decided = turn(a, trial, Kept(size, Trial(flat[0], flat[1], flat[2:])), *own)
        size = pt.switch(decided.keep, a, size)
        kept = _choose(decided.keep, _flat(trial), flat)
        # At the resolution of the numbers there is nothing left to try.
        following = decided.following
        spent = pt.eq(following, a) | pt.eq(following, size) | ~(following > 0) | pt.isinf(following)
        return [following, size, count + 1, *kept, *decided.state], decided.done | spent

    begin = _flat(start)
    ready = finite(start) & (start.slope < 0) & (first > 0) & pt.isfinite(first)
    own = [np.asarray(value, dtype) if isinstance(value, float) else value for value in own]
    loop = [first, pt.zeros((), dtype), np.int64(0), *begin, *own]
    _, size, count, cost, slope, *rest = repeat(body, loop, pt.switch(ready, max_trials, 0))
    return Step(size, Trial(cost, slope, tuple(rest[: len(start.carry)])), count, ~(size > 0))


def finite(trial: Trial) -> Any:
    """Whether the cost and the slope of `trial` are finite numbers."""
    return pt.isfinite(trial.cost) & pt.isfinite(trial.slope)


def cubic(
    p: Tensor,
    p_cost: Tensor,
    p_slope: Tensor,
    q: Tensor,
    q_cost: Tensor,
    q_slope: Tensor,
) -> Any:
    """The minimizer of the cubic with these costs and slopes at `p` and `q`; NaN if it has none."""
    d = p_slope + q_slope - 3 * (p_cost - q_cost) / (p - q)
    root = pt.sign(q - p) * pt.sqrt(d**2 - p_slope * q_slope)
    return q - (q - p) * (q_slope + root - d) / (q_slope - p_slope + 2 * root)


def secant(p: Tensor, p_slope: Tensor, q: Tensor, q_slope: Tensor) -> Any:
    """Where a slope that is linear between `p` and `q` vanishes."""
    return p + (q - p) * (p_slope / (p_slope - q_slope))


def _choose(condition: Any, first: Any, second: Any) -> list[Any]:
    return [pt.switch(condition, a, b) for a, b in zip(first, second, strict=True)]


def _dtype(start: Trial) -> str:
    return np.result_type(start.cost.type.dtype, start.slope.type.dtype).name


def _scalars(start: Trial, **options: Any) -> list[Any]:
    """The options of a search, each a value with the limits of its range, in the dtype of the line."""
    return [scalar(name, *value).astype(_dtype(start)) for name, value in options.items()]


def _numbers(start: Trial, *values: float) -> list[Any]:
    """Numbers in the dtype of the line; PyTensor would make float64 of some."""
    return [pt.constant(np.asarray(value, _dtype(start))) for value in values]


def _flat(trial: Trial) -> list[Any]:
    return [trial.cost, trial.slope, *trial.carry]
