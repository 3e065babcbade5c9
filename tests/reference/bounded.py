"""Plain NumPy twins of the rules with bounds, written from the papers."""

import itertools

import numpy as np

from .quasi_newton import backtracking, strong_wolfe


def projected_gradient(x, g, low, high):
    """P(x - g) - x, with the digits of g where x is large."""
    return np.clip(-g, low - x, high - x)


def short(s, y):
    """The scale of the Hessian, whose inverse is the shorter step size of Barzilai and Borwein."""
    return (y @ y) / (s @ y)


def compact(pairs, size, scale=short):
    """theta, W and M of Byrd, Lu, Nocedal and Zhu (1995), equations 3.3 to 3.6; `pairs` (s, y) oldest first."""
    if not pairs:
        return 1.0, np.zeros((size, 0)), np.zeros((0, 0))
    S, Y = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
    theta, SY = scale(*pairs[-1]), S.T @ Y
    L = np.tril(SY, -1)
    M = np.linalg.inv(np.block([[-np.diag(np.diag(SY)), L.T], [L, theta * S.T @ S]]))
    return theta, np.hstack([Y, theta * S]), M


def cauchy_point(x, g, low, high, theta, W, M):
    """Algorithm CP of the paper: interval by interval, the slope and the curvature updated at each breakpoint."""
    t = np.full(x.size, np.inf)
    t[g < 0] = (x[g < 0] - high[g < 0]) / g[g < 0]
    t[g > 0] = (x[g > 0] - low[g > 0]) / g[g > 0]
    d, xc = np.where(t <= 0, 0.0, -g), x.copy()
    p, c = W.T @ d, np.zeros(W.shape[1])
    slope, told = -d @ d, 0.0
    curved = -theta * slope - p @ M @ p
    least = np.finfo(float).eps * -theta * slope
    for b in np.argsort(t, kind="stable"):
        if t[b] <= 0:
            continue
        if not (slope < 0 and np.isfinite(t[b]) and -slope / curved >= t[b] - told):
            break
        dt = t[b] - told
        xc[b] = high[b] if d[b] > 0 else low[b]
        z, w = xc[b] - x[b], W[b]
        c = c + dt * p
        slope = slope + dt * curved + g[b] ** 2 + theta * g[b] * z - g[b] * w @ M @ c
        curved = curved - theta * g[b] ** 2 - 2 * g[b] * w @ M @ p - g[b] ** 2 * w @ M @ w
        curved = max(curved, least)
        p, d[b], told = p + g[b] * w, 0.0, t[b]
    if slope < 0 and np.any(d):
        told = told - slope / curved
    moving = d != 0
    xc[moving] = np.clip(x + told * d, low, high)[moving]
    return xc, moving | (g == 0)


def model_step(x, g, low, high, pairs, scale=short):
    """The step to the minimizer on the face of the Cauchy point, by a dense solve, with the projection of 2011."""
    theta, W, M = compact(pairs, x.size, scale)
    B = theta * np.eye(x.size) - W @ M @ W.T
    xc, free = cauchy_point(x, g, low, high, theta, W, M)
    d = np.zeros(x.size)
    r = (g + B @ (xc - x))[free]
    d[free] = -np.linalg.solve(B[np.ix_(free, free)], r)
    projected = np.clip(xc + d, low, high)
    if g @ (projected - x) < 0:
        return projected - x
    with np.errstate(all="ignore"):
        room = np.where(d > 0, (high - xc) / d, np.where(d < 0, (low - xc) / d, np.inf))
    return np.clip(xc + min(1.0, room.min()) * d, low, high) - x


def longest(x, d, low, high):
    """The largest multiple of d that stays inside, at least 1."""
    with np.errstate(all="ignore"):
        return max(1.0, np.where(d > 0, (high - x) / d, np.where(d < 0, (low - x) / d, np.inf)).min())


def lbfgs(x, cost_and_gradient, low, high, steps, *, memory=10, along=None, line_search=strong_wolfe):
    """L-BFGS-B with the search of `line_search`, which gets the longest step as its limit.

    Without pairs, and where the step does not descend, it searches along the projected gradient, from a first trial of
    1 / max(1, its length). With `along`, points, each step starts at the point there and has its pairs from the points
    there. Returns the points, and the number of evaluations up to each of them.
    """
    x, pairs, points, evaluations = np.clip(x, low, high), [], [], [1]
    f, g = cost_and_gradient(x)
    for count in range(steps):
        d = model_step(x, g, low, high, pairs)
        steepest = not (pairs and g @ d < 0)
        if steepest:
            pairs, d = [], projected_gradient(x, g, low, high)

        def line(a, x=x, d=d):
            f, g = cost_and_gradient(np.clip(x + a * d, low, high))
            return f, g @ d

        first = 1 / max(1.0, np.linalg.norm(d)) if steepest else 1.0
        a, trials = line_search(line, f, g @ d, first, limit=longest(x, d, low, high))
        points.append(np.clip(x + a * d, low, high))
        evaluations.append(evaluations[-1] + trials)
        new = points[-1] if along is None else along[count]
        f, g_new = cost_and_gradient(new)
        s, y = new - x, g_new - g
        if s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            pairs = [*pairs, (s, y)][-memory:]
        x, g = new, g_new
    return points, evaluations[1:]


def spectral_projected_gradient(x, cost_and_gradient, low, high, steps, *, along=None):
    """Birgin, Martinez and Raydan (2000), algorithm 2.2, with the two step sizes of Barzilai and Borwein in turn.

    Without positive curvature the step size is max(1, max|x|) / max|P(x - g) - x|. Returns as `lbfgs`.
    """
    x, points, evaluations, past, size = np.clip(x, low, high), [], [1], [], None
    f, g = cost_and_gradient(x)
    for count in range(steps):
        residual = projected_gradient(x, g, low, high)
        if size is None:
            size = max(1.0, np.max(np.abs(x))) / np.max(np.abs(residual))
        d = np.clip(x - size * g, low, high) - x

        def line(a, x=x, d=d):
            f, g = cost_and_gradient(np.clip(x + a * d, low, high))
            return f, g @ d

        past = [*past, f][-10:]
        a, trials = backtracking(line, max(past), g @ d, 1.0)
        points.append(np.clip(x + a * d, low, high))
        evaluations.append(evaluations[-1] + trials)
        new = points[-1] if along is None else along[count]
        f, g_new = cost_and_gradient(new)
        s, y = new - x, g_new - g
        positive = s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y)
        size = ((s @ s) / (s @ y) if count % 2 == 0 else (s @ y) / (y @ y)) if positive else None
        x, g = new, g_new
    return points, evaluations[1:]


def momentum(x, gradient, low, high, steps, *, step_size, momentum):
    """The heavy ball with a projection; the velocity of a component whose step ends outside becomes 0."""
    v, points = np.zeros_like(x), []
    for _ in range(steps):
        v = momentum * v - step_size * gradient(x)
        new = np.clip(x + v, low, high)
        v = np.where(new == x + v, v, 0.0)
        x = new
        points.append(x)
    return points


def faces(low, high):
    """All faces of a box: which components are free, and the values of those that are held."""
    for places in itertools.product((-1, 0, 1), repeat=low.size):
        places = np.array(places)
        if np.isfinite(np.where(places < 0, low, np.where(places > 0, high, 0))).all():
            yield places == 0, np.where(places < 0, low, high)


def least_squares(residuals, low, high, solve):
    """The feasible point with the smallest sum of squares of all that `solve` finds on the faces of a box.

    `solve(free, x)` returns the components that are free of the best point on a face, where the others are those of x.
    """
    best, least = None, np.inf
    for free, x in faces(low, high):
        x = np.where(free, np.clip(0.5, low, high), x)
        if free.any():
            x[free] = solve(free, x)
        squares = np.sum(residuals(x) ** 2)
        if np.all((low <= x) & (x <= high)) and squares < least:
            best, least = x, squares
    return best
