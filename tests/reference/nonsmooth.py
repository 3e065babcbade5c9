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
    either side it stays. Returns the points, and the number of evaluations up to each of them.
    """
    pairs, points, evaluations = [], [], [1]
    f, g = cost_and_gradient(x)
    for count in range(steps):
        side = np.where(x == 0, -np.sign(least_subgradient(x, g, weight)), np.sign(x))
        low, high = np.where(side < 0, -np.inf, 0.0), np.where(side > 0, np.inf, 0.0)
        slope = g + weight * side
        d = model_step(x, slope, low, high, pairs)
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
