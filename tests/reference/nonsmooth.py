"""Plain NumPy twins of the rules for costs with a penalty, written from the papers."""

import numpy as np

from .bounded import longest, model_step, projected_gradient
from .quasi_newton import strong_wolfe


def least_subgradient(x, g, weight):
    """The subgradient of least norm of f + weight |x|."""
    return np.where(x == 0, np.sign(g) * np.maximum(abs(g) - weight, 0), g + weight * np.sign(x))


def lbfgs_l1(x, cost_and_gradient, weight, steps, *, memory=10, along=None):
    """L-BFGS-B on the orthant of each point: where a component is 0, that to which the cost descends.

    On an orthant weight |x| is linear. A component leads to 0 and no further, and where the cost does not descend to
    either side it stays. The scale of the Hessian is that of Dai, Al-Baali and Yang (2015), of the components that have
    moved. Returns the points, and the number of evaluations up to each of them.
    """

    def scale(s, y):
        return np.linalg.norm(y[s != 0]) / np.linalg.norm(s)

    pairs, points, evaluations = [], [], [1]
    f, g = cost_and_gradient(x)
    for count in range(steps):
        side = np.where(x == 0, -np.sign(least_subgradient(x, g, weight)), np.sign(x))
        low, high = np.where(side < 0, -np.inf, 0.0), np.where(side > 0, np.inf, 0.0)
        slope = g + weight * side
        d = model_step(x, slope, low, high, pairs, scale)
        steepest = not (pairs and slope @ d < 0)
        if steepest:
            pairs, d = [], projected_gradient(x, slope, low, high)

        def line(a, x=x, d=d, side=side, low=low, high=high):
            f, g = cost_and_gradient(np.clip(x + a * d, low, high))
            return f + weight * np.sum(abs(np.clip(x + a * d, low, high))), (g + weight * side) @ d

        first = 1 / max(1.0, np.linalg.norm(d)) if steepest else 1.0
        start = f + weight * np.sum(abs(x))
        a, trials = strong_wolfe(line, start, slope @ d, first, limit=longest(x, d, low, high))
        points.append(np.clip(x + a * d, low, high))
        evaluations.append(evaluations[-1] + trials)
        new = points[-1] if along is None else along[count]
        f, g_new = cost_and_gradient(new)
        s, y = new - x, g_new - g
        if s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            pairs = [*pairs, (s, y)][-memory:]
        x, g = new, g_new
    return points, evaluations[1:]


def soft(v, s):
    return np.sign(v) * np.maximum(abs(v) - s, 0)


def proximal_gradient(x, cost_and_gradient, prox, steps, *, accelerated=True):
    """Beck and Teboulle (2009), section 4, with backtracking, and O'Donoghue and Candès (2015), section 3.2.

    `prox(v, t)`. Returns the points, and the number of evaluations of the cost up to each of them.
    """
    points, evaluations, before, t = [], [], x, 1.0
    count = 1
    _, g = cost_and_gradient(x)
    L = np.linalg.norm(g)
    for step in range(steps):
        L = L if step == 0 else 0.9 * L
        t_new = (1 + np.sqrt(1 + 4 * t**2)) / 2
        v = x + (t - 1) / t_new * (x - before) if accelerated else x
        count += accelerated and t > 1
        f, g = cost_and_gradient(v)
        while True:
            z = prox(v - g / L, 1 / L)
            count += 1
            f_new, _ = cost_and_gradient(z)
            d = z - v
            if f_new <= f + g @ d + L / 2 * d @ d:
                break
            L = 2 * L
        t = 1.0 if (v - z) @ (z - x) > 0 else t_new
        before, x = x, z
        points.append(x)
        evaluations.append(count)
    return points, evaluations


def minimized_model(g, B, x, prox, turns=20000):
    """The minimizer of g'(y - x) + (y - x)'B(y - x)/2 + h(y), by the proximal gradient method, to round-off."""
    L, y = np.linalg.eigvalsh(B)[-1], x
    for _ in range(turns):
        y = prox(y - (g + B @ (y - x)) / L, 1 / L)
    return y


def ftrl(x, gradient, steps, *, a, beta, l1, l2):
    """McMahan et al. (2013), algorithm 1, with sums of which the start is the point."""
    z, n, points = -(beta / a + l2) * x - l1 * np.sign(x), np.zeros_like(x), []
    for _ in range(steps):
        g = gradient(x)
        sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / a
        z, n = z + g - sigma * x, n + g**2
        x = np.where(abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / a + l2))
        points.append(x)
    return points


def rda(x, gradient, steps, *, a, weight):
    """Xiao (2010), equation 10, from the start `x`."""
    start, total, points = x, np.zeros_like(x), []
    for t in range(1, steps + 1):
        total = total + gradient(x)
        v = start - a * np.sqrt(t) * total / t
        x = soft(v, a * np.sqrt(t) * weight)
        points.append(x)
    return points


def exponentiated_gradient(x, gradient, steps, *, a, axis=None):
    """Kivinen and Warmuth (1997), equation 3.2."""
    points = []
    for _ in range(steps):
        x = x * np.exp(-a * gradient(x))
        x = x / np.sum(x, axis=axis, keepdims=True)
        points.append(x)
    return points


def frank_wolfe(x, cost_and_gradient, corner, steps):
    """Jaggi (2013), algorithm 1, with the step size and the backtracking of Pedregosa et al. (2020), algorithm 2."""
    points, gaps, L = [], [], None
    for _ in range(steps):
        f, g = cost_and_gradient(x)
        d = corner(g) - x
        gap = -g @ d
        L = np.linalg.norm(g) / np.linalg.norm(d) if L is None else 0.9 * L
        while True:
            a = min(1.0, gap / (L * d @ d))
            if cost_and_gradient(x + a * d)[0] <= f - a * gap + a**2 * L * (d @ d) / 2:
                break
            L = 2 * L
        x = x + a * d
        points.append(x)
        gaps.append(gap)
    return points, gaps
