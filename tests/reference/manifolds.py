"""Plain NumPy twins of conjugate gradients and L-BFGS on the unit sphere, written from the books.

Absil, Mahony and Sepulchre (2008), algorithm 13, with the transport by projection of section 8.1.3, on both.
"""

import numpy as np
from reference.quasi_newton import strong_wolfe


def tangent(x, v):
    return v - (x @ v) * x


def search(cost_and_gradient, x, d, cost, slope, first, curvature):
    """The point at the end of a search along the retraction by normalization, and the step size."""

    def line(a):
        size = np.linalg.norm(x + a * d)
        y = (x + a * d) / size
        cost, gradient = cost_and_gradient(y)
        return cost, gradient @ tangent(y, d) / size

    a, _ = strong_wolfe(line, cost, slope, first, curvature=curvature)
    return (x + a * d) / np.linalg.norm(x + a * d), a


def conjugate_gradient(cost_and_gradient, x, steps, beta, *, overlap=0.5):
    """The points of conjugate gradients, with the restarts and first trials of `conjugate_gradient`."""
    points, d, share, decrease = [], None, np.zeros_like(x), 0.0
    for _ in range(steps):
        cost, gradient = cost_and_gradient(x)
        g = tangent(x, gradient)
        d = tangent(x, share) - g
        if not g @ d <= -0.01 * (g @ g):
            d = -g
        first = decrease / (g @ d) if decrease < 0 else 1 / max(1.0, np.linalg.norm(g))
        x, a = search(cost_and_gradient, x, d, cost, g @ d, first, 0.1)
        decrease = a * (g @ d)
        g_new, d, g = (tangent(x, v) for v in (cost_and_gradient(x)[1], d, g))
        share = beta(d, g, g_new) * d
        if abs(g_new @ g) >= overlap * (g_new @ g_new):
            share = np.zeros_like(x)
        points.append(x)
    return points


def lbfgs(cost_and_gradient, x, steps, memory):
    """The points of L-BFGS: the recursion of two loops, with all pairs projected on the present tangent space."""
    points, pairs, scale = [], [], 1.0
    for _ in range(steps):
        cost, gradient = cost_and_gradient(x)
        g = q = tangent(x, gradient)
        kept = []
        for s, y in reversed(pairs):
            a = (s @ q) / (s @ y)
            q = q - a * y
            kept.append(a)
        d = scale * q
        for (s, y), a in zip(pairs, reversed(kept), strict=True):
            d = d + (a - (y @ d) / (s @ y)) * s
        d, first = -d, 1.0 if pairs else 1 / max(1.0, np.linalg.norm(g))
        assert g @ d < 0
        x, a = search(cost_and_gradient, x, d, cost, g @ d, first, 0.7)
        new = tangent(x, a * d), tangent(x, cost_and_gradient(x)[1]) - tangent(x, g)
        pairs = [(tangent(x, s), tangent(x, y)) for s, y in pairs]
        pairs = [(s, y) for s, y in pairs if s @ y > 0]
        if new[0] @ new[1] > 0:
            pairs, scale = [*pairs, new][-memory:], new[0] @ new[1] / (new[1] @ new[1])
        points.append(x)
    return points
