"""Plain NumPy twins of the line searches and the quasi-Newton rules, written from the papers.

A search takes ``line(a)``, which returns the cost and the slope at the step size `a`, the cost and the slope at 0, and
the first step to try. It returns the step size, 0 if there is none, and the number of trials.
"""

import numpy as np


def change(a, cost, slope, start_cost, start_slope):
    """The change of the cost since the start of a line; what the slopes say where rounding hides it."""
    if abs(cost - start_cost) <= 2.0**-49 * abs(start_cost):
        return a * (start_slope + slope) / 2
    return cost - start_cost


class Enough(Exception):
    """The search has ended."""


class Trials:
    """Counts the trials of a line, and keeps the lowest; their costs are changes since the start."""

    def __init__(self, line, cost, slope, accept, max_trials):
        self.line, self.accept, self.left, self.count = line, accept, max_trials, 0
        self.start, self.lowest, self.best, self.found = (cost, slope), 0.0, 0.0, None

    def __call__(self, a):
        if self.count == self.left or not (0 < a < np.inf):
            raise Enough
        self.count += 1
        cost, slope = self.line(a)
        if not (np.isfinite(cost) and np.isfinite(slope)):
            return np.inf, np.nan
        cost = change(a, cost, slope, *self.start)
        if self.accept(a, cost, slope):
            self.best = a
            raise Enough
        if cost < self.lowest:
            self.lowest, self.best = cost, a
        return cost, slope


def hager_zhang(
    line, cost, slope, first, *, decrease=0.1, curvature=0.9, error=1e-6, growth=5.0, shrink=0.66, max_trials=50
):
    """Hager and Zhang (2005), section 4, with nested loops as there."""
    if not (np.isfinite(cost) and slope < 0 and 0 < first < np.inf):
        return 0.0, 0
    ceiling = error * abs(cost)

    def accept(a, f, d):
        wolfe = f <= decrease * a * slope
        approximate = f <= ceiling and d <= (2 * decrease - 1) * slope
        return d >= curvature * slope and (wolfe or approximate)

    phi = Trials(line, cost, slope, accept, max_trials)

    def secant(p, q):
        return p[0] + (q[0] - p[0]) * (p[1] / (p[1] - q[1]))

    def bisect(low, high, share=0.5):
        """U3: `low` is low with a negative slope; `high` is high with one."""
        while True:
            a = low[0] + share * (high - low[0])
            if not low[0] < a < high:
                raise Enough
            f, d = phi(a)
            share = 0.5
            if d >= 0:
                return low, (a, d)
            if f <= ceiling:
                low = (a, d)
            else:
                high = a
                share = 0.5 if np.isfinite(f) else 0.1

    def update(low, high, a):
        """U1 to U3; says also which end the trial became."""
        f, d = phi(a)
        if d >= 0:
            return low, (a, d), "high"
        if f <= ceiling:
            return (a, d), high, "low"
        return *bisect(low, a, 0.5 if np.isfinite(f) else 0.1), "neither"

    def within(low, high, a):
        return a if low[0] < a < high[0] else middle(low, high)

    def middle(low, high):
        a = low[0] + 0.5 * (high[0] - low[0])
        if not low[0] < a < high[0]:
            raise Enough
        return a

    try:
        low, a = (0.0, slope), first
        while True:  # B1 to B3
            f, d = phi(a)
            if d >= 0:
                high = (a, d)
                break
            if f <= ceiling:
                low, a = (a, d), growth * a
            else:
                low, high = bisect(low, a, 0.5 if np.isfinite(f) else 0.1)
                break
        while True:  # L1 to L3
            width = high[0] - low[0]
            low_1, high_1, became = update(low, high, within(low, high, secant(low, high)))
            a = np.nan
            if became == "high":
                a = secant(high, high_1)
            elif became == "low":
                a = secant(low, low_1)
            low, high = low_1, high_1
            if low[0] < a < high[0]:
                low, high, _ = update(low, high, a)
            if high[0] - low[0] > shrink * width:
                low, high, _ = update(low, high, middle(low, high))
    except Enough:
        return phi.best, phi.count


def minimizer(p, q):
    """That of the cubic through two points (step size, cost, slope); Nocedal and Wright (2006), equation 3.59."""
    (a, fa, da), (b, fb, db) = p, q
    with np.errstate(all="ignore"):
        d1 = da + db - 3 * (fa - fb) / (a - b)
        d2 = np.sign(b - a) * np.sqrt(d1**2 - da * db)
        return b - (b - a) * (db + d2 - d1) / (db - da + 2 * d2)


def backtracking(line, cost, slope, first, *, decrease=1e-4, min_shrink=0.1, max_shrink=0.5, max_trials=40):
    """Dennis and Schnabel (1983), algorithm A6.3.1, with the slope of the trial."""
    a = first
    for count in range(1, max_trials + 1):
        f, d = line(a)
        f = change(a, f, d, cost, slope)
        if np.isfinite(f) and np.isfinite(d) and f <= decrease * a * slope:
            return a, count
        share = minimizer((0.0, 0.0, slope), (a, f, d)) / a
        a = a * (min(max(share, min_shrink), max_shrink) if np.isfinite(share) else max_shrink)
    return 0.0, max_trials


def strong_wolfe(line, cost, slope, first, *, decrease=1e-4, curvature=0.7, growth=10.0, error=2.0**-49, max_trials=30,
                 limit=np.inf):  # fmt: skip
    """Nocedal and Wright (2006), algorithms 3.5 and 3.6, with the acceptance at the level of round-off.

    At the `limit`, a trial of sufficient decrease with a negative slope is accepted.
    """
    if not (np.isfinite(cost) and slope < 0 and 0 < first < np.inf):
        return 0.0, 0

    count = 0

    def evaluate(a, low):
        """The trial, whether it is accepted, and whether it is a new low end."""
        nonlocal count
        count += 1
        f, d = line(a)
        f = change(a, f, d, cost, slope)
        fine = np.isfinite(f) and np.isfinite(d)
        better = fine and f <= decrease * a * slope and f < low[1]
        flat = fine and abs(d) <= -curvature * slope
        blocked = fine and a == limit and f <= decrease * a * slope and d < 0
        return (a, f, d), blocked or (flat and (better or f <= error * abs(cost))), better, fine

    last, a = (0.0, 0.0, slope), min(first, limit)
    while True:  # algorithm 3.5
        trial, accepted, better, fine = evaluate(a, last)
        if accepted:
            return a, count
        if not better:
            low, high = last, trial
            break
        if trial[2] >= 0:
            low, high = trial, last
            break
        step = (minimizer(trial, last) - a) / (a - last[0])
        a, last = min(a + (a - last[0]) * (max(step, 1.1) if 0 < step < growth else growth), limit), trial
        if count == max_trials:
            return last[0], count
    while count < max_trials:  # algorithm 3.6
        width = high[0] - low[0]
        share = (minimizer(low, high) - low[0]) / width
        share = min(max(share, 0.1), 0.9) if np.isfinite(share) else (0.5 if fine else 0.1)
        a = low[0] + share * width
        if a in (low[0], high[0]):
            break
        trial, accepted, better, fine = evaluate(a, low)
        if accepted:
            return a, count
        if not better:
            high = trial
        else:
            if trial[2] * (high[0] - low[0]) >= 0:
                high = low
            low = trial
    return low[0], count


class Run:
    """A run of a rule that searches, step by step from given points.

    A rule gives ``direction(g)`` and ``learn(s, y)``, which says whether it has learnt something. Its search is along
    the steepest descent, from a first trial of 1 / max(1, ||g||), if it knows nothing or the direction does not
    descend; a step there makes it ``forget()``.
    """

    def __init__(self, line_search=strong_wolfe):
        self.line_search, self.known = line_search, False

    def points(self, cost_and_gradient, x, steps, along=None):
        """The points after each step. With `along`, points, each step starts at the point there."""
        found = []
        f, g = cost_and_gradient(x)
        for count in range(steps):
            d = self.direction(g)
            steepest = not (self.known and g @ d < 0)
            if steepest:
                d = -g

            def line(a, x=x, d=d):
                f, g = cost_and_gradient(x + a * d)
                return f, g @ d

            first = 1 / max(1, np.linalg.norm(g)) if steepest else 1.0
            a, _ = self.line_search(line, f, g @ d, self.first(first))
            found.append(x + a * d)
            new = found[-1] if along is None else along[count]
            f, g_new = cost_and_gradient(new)
            s, y = new - x, g_new - g
            if steepest:
                self.forget()
            if self.learn(s, y):
                self.known = True
            x, g = new, g_new
        return found

    def first(self, default):
        return default

    def forget(self):
        self.H, self.known = None, False


class BFGS(Run):
    """Nocedal and Wright (2006), algorithm 6.1, with equation 6.20 before the first update."""

    H = None

    def direction(self, g):
        return -g if self.H is None else -self.H @ g

    def learn(self, s, y):
        if not s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            return False
        identity = np.eye(s.size)
        H = (s @ y) / (y @ y) * identity if self.H is None else self.H
        V = identity - np.outer(y, s) / (y @ s)
        self.H = V.T @ H @ V + np.outer(s, s) / (y @ s)
        return True


class SR1(BFGS):
    """Nocedal and Wright (2006), equations 6.25 and 6.26, begun with half of equation 6.20."""

    def direction(self, g):
        d = super().direction(g)
        return d if g @ d < 0 else -d

    def learn(self, s, y):
        if self.H is None and not s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            return False
        H = (s @ y) / (y @ y) / 2 * np.eye(s.size) if self.H is None else self.H
        v = s - H @ y
        if not abs(v @ y) > 1e-8 * np.linalg.norm(v) * np.linalg.norm(y):
            return False
        self.H = H + np.outer(v, v) / (v @ y)
        return True


class BarzilaiBorwein(Run):
    """Barzilai and Borwein (1988), equations 5 and 6, with the search of Raydan (1997), or that of Zhang and Hager."""

    def __init__(self, kind, memory=10, weight=None):
        super().__init__(self.above)
        self.kind, self.memory, self.weight, self.size, self.count = kind, memory, weight, 0.0, 0
        self.past, self.Q, self.C = [], 0.0, 0.0

    def above(self, line, cost, slope, first):
        self.past = [*self.past, cost][-self.memory :]
        reference = max(self.past)
        if self.weight is not None:
            Q = self.weight * self.Q + 1
            self.C, self.Q = (self.weight * self.Q * self.C + cost) / Q, Q
            reference = max(self.C, cost)
        return backtracking(line, reference, slope, first)

    def direction(self, g):
        return -g

    def first(self, default):
        return self.size or default

    def forget(self):
        pass

    def learn(self, s, y):
        self.size, sizes = 0.0, {}
        if s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            sizes = {"long": (s @ s) / (s @ y), "short": (s @ y) / (y @ y)}
            self.size = sizes[
                "long" if self.kind == "long" or (self.kind, self.count % 2) == ("alternate", 0) else "short"
            ]
        self.count += 1
        return False
