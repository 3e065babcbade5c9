"""Plain NumPy twins of the conjugate gradient rules, written from the papers."""

from functools import partial

import numpy as np
from reference.quasi_newton import strong_wolfe


PRECISE = partial(strong_wolfe, curvature=0.1)


def fletcher_reeves(d, g, g_new):
    return np.sum(g_new**2) / np.sum(g**2)


def polak_ribiere(d, g, g_new):
    return max(0.0, (np.sum(g_new**2) - g_new @ g) / np.sum(g**2))


def hestenes_stiefel(d, g, g_new):
    return (g_new - g) @ g_new / ((g_new - g) @ d)


def dai_yuan(d, g, g_new):
    return np.sum(g_new**2) / ((g_new - g) @ d)


def hager_zhang(d, g, g_new, P=None, theta=1.0, eta=0.4):
    """Hager and Zhang (2005), equation 1.6, with the lower limit and the preconditioner of Hager and Zhang (2013)."""
    y = g_new - g
    if P is None:
        return max((y - theta * d * (y @ y) / (d @ y)) @ g_new / (d @ y), eta * (d @ g) / (d @ d))
    return max((P @ y @ g_new - theta * (y @ P @ y) * (d @ g_new) / (d @ y)) / (d @ y), -eta)


def lbfgs_matrix(H, pairs):
    """Nocedal and Wright (2006), equation 7.16, from the first matrix `H`."""
    for s, y in pairs:
        V = np.eye(s.size) - np.outer(y, s) / (y @ s)
        H = V.T @ H @ V + np.outer(s, s) / (y @ s)
    return H


def conjugate_gradient(
    cost_and_gradient,
    x,
    steps,
    beta,
    *,
    memory=0,
    overlap=0.5,
    every=np.inf,
    line_search=PRECISE,
    along=None,
):
    """Nocedal and Wright (2006), algorithm 5.4, with restarts, and the first trial of equation 3.59.

    With a `memory` the preconditioner is L-BFGS's matrix of all pairs but the newest, of all pairs after a restart, and
    the first trial is 1.

    With `along`, a list of points with the part of the next direction that is not the gradient's, each step starts from
    those, so that differences of round-off do not add up from step to step. Returns such a list.
    """
    cost, g = cost_and_gradient(x)
    found, d, turns, decrease, pairs, P = [], -g, 0, 0.0, [], np.eye(x.size)
    for count in range(steps):
        if not g @ d <= -0.01 * (g @ P @ g):
            d, turns, pairs = -g, 0, []
        first = decrease / (g @ d) if decrease < 0 else 1 / max(1.0, np.sqrt(g @ g))
        if pairs:
            first = 1.0

        def line(a, x=x, d=d):
            cost, g = cost_and_gradient(x + a * d)
            return cost, g @ d

        a, _ = line_search(line, cost, g @ d, first)
        there, before = x + a * d, x
        decrease, turns = a * (g @ d), turns + 1

        x = there if along is None else along[count][0]
        cost, g_new = cost_and_gradient(x)
        if memory:
            s, y = x - before, g_new - g
            pairs = [*pairs, (s, y)][-memory:]
            H0 = (s @ y) / (y @ y) * np.eye(x.size)
            P = lbfgs_matrix(H0, pairs[:-1])
        share = np.zeros_like(x)
        if a == 0 or turns >= every or abs(g_new @ g) >= overlap * (g_new @ g_new):
            turns = 0
            P = lbfgs_matrix(H0, pairs) if memory else P
        else:
            share = (beta(d, g, g_new, P) if memory else beta(d, g, g_new)) * d
        found.append((there, share))
        d, g = (share if along is None else along[count][1]) - P @ g_new, g_new
    return found


def difference(gradient, sigma):
    """A product with the Hessian, by a difference of gradients, as in Moller's paper."""

    def product(x, v):
        step = sigma / np.linalg.norm(v)
        return (gradient(x + step * v) - gradient(x)) / step

    return product


def scaled_conjugate_gradient(cost_and_gradient, product, x, steps, *, scale=1e-6, along=None):
    """Moller (1993), section 4, line by line, with a guard against directions that climb.

    Returns the points; with `along` each step starts at the point there.
    """
    cost, g = cost_and_gradient(x)
    r = p = -g
    lam, bar, success, points = scale, 0.0, True, []
    for k in range(1, steps + 1):
        if not p @ r > 0:
            p = r
        if not p.any():
            points.append(x)
            continue
        size = p @ p
        if success:
            delta = p @ product(x, p)
        delta = delta + (lam - bar) * size
        if delta <= 0:
            bar = 2 * (lam - delta / size)
            delta = -delta + lam * size
            lam = bar
        mu = p @ r
        alpha = mu / delta
        there = x + alpha * p
        cost_there, _ = cost_and_gradient(there)
        # The square of a gradient at the end of all digits is 0.
        comparison = max(2 * delta * (cost - cost_there) / max(mu**2, np.finfo(float).tiny), -8.0)
        success = comparison >= 0
        points.append(there if success else x)
        if success:
            x = there if along is None else along[k - 1]
            cost, g = cost_and_gradient(x)
            r_new, bar = -g, 0.0
            share = 0.0 if k % x.size == 0 else (r_new @ r_new - r_new @ r) / mu
            p, r = r_new + share * p, r_new
            if comparison >= 0.75:
                lam = lam / 4
        else:
            bar = lam
        if comparison < 0.25:
            lam = lam + delta * (1 - comparison) / size
    return points
