"""Plain NumPy twins of the rules, written from the papers.

Each takes a point (a list of arrays), a function of it, and a number of steps, and returns the list of the points after
each step. A step size is a number or a function of the count of steps done before.
"""

import numpy as np


def _at(step_size, count):
    return step_size(count) if callable(step_size) else step_size


def sgd(x, gradient, steps, *, step_size=0.01, momentum=0.0, dampening=0.0, nesterov=False):
    """Robbins and Monro (1951), equation 8, with Polyak's (1964) momentum in buffer form and a first buffer of g_1.

    With `nesterov`, equation 7 of Bengio, Boulanger-Lewandowski and Pascanu (2012).
    """
    x, buffers, points = list(x), None, []
    for count in range(steps):
        a, gs = _at(step_size, count), gradient(x)
        if buffers is None:
            buffers = gs
        else:
            buffers = [momentum * b + (1 - dampening) * g for b, g in zip(buffers, gs, strict=True)]
        ds = [g + momentum * b for b, g in zip(buffers, gs, strict=True)] if nesterov else buffers
        x = [p - a * d for p, d in zip(x, ds, strict=True)]
        points.append(x)
    return points


def momentum(x, gradient, steps, *, step_size=0.01, momentum=0.9):
    """Sutskever et al. (2013), equations 1 and 2: each gradient keeps its own step size."""
    x, vs, points = list(x), [np.zeros_like(p) for p in x], []
    for count in range(steps):
        a, gs = _at(step_size, count), gradient(x)
        vs = [momentum * v - a * g for v, g in zip(vs, gs, strict=True)]
        x = [p + v for p, v in zip(x, vs, strict=True)]
        points.append(x)
    return points


def look_ahead(x, gradient, steps, *, step_size=0.01, momentum=0.9):
    """Sutskever et al. (2013), equations 3 and 4: the gradient at x + mu v. Returns the points and the velocities."""
    x, vs, points, velocities = list(x), [np.zeros_like(p) for p in x], [], []
    for count in range(steps):
        a, gs = _at(step_size, count), gradient([p + momentum * v for p, v in zip(x, vs, strict=True)])
        vs = [momentum * v - a * g for v, g in zip(vs, gs, strict=True)]
        x = [p + v for p, v in zip(x, vs, strict=True)]
        points.append(x)
        velocities.append(vs)
    return points, velocities


def adam(
    x, gradient, steps, *, step_size=0.001, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, amsgrad=False
):
    """Kingma and Ba (2015), algorithm 1.

    With `amsgrad` the largest v so far takes the place of v, as in Reddi, Kale and Kumar (2018), algorithm 2.
    """
    b1, b2 = mean_weight, mean_square_weight
    x, points = list(x), []
    ms, vs, tops = ([np.zeros_like(p) for p in x] for _ in range(3))
    for count in range(steps):
        t, a, gs = count + 1, _at(step_size, count), gradient(x)
        ms = [b1 * m + (1 - b1) * g for m, g in zip(ms, gs, strict=True)]
        vs = [b2 * v + (1 - b2) * g**2 for v, g in zip(vs, gs, strict=True)]
        tops = [np.maximum(top, v) for top, v in zip(tops, vs, strict=True)] if amsgrad else vs
        x = [
            p - a * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
            for p, m, v in zip(x, ms, tops, strict=True)
        ]
        points.append(x)
    return points


def two_loop(pairs, g):
    """H g by Nocedal and Wright (2006), algorithm 7.4, with gamma of equation 7.20; `pairs` (s, y) oldest first."""
    q, kept = g.copy(), []
    for s, y in reversed(pairs):
        alpha = (s @ q) / (y @ s)
        q = q - alpha * y
        kept.append(alpha)
    if pairs:
        s, y = pairs[-1]
        q = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(kept), strict=True):
        q = q + (alpha - (y @ q) / (y @ s)) * s
    return q


def compact(pairs, g):
    """H g by Byrd, Nocedal and Schnabel (1994), theorem 2.2, equation 3.1; `pairs` (s, y) oldest first."""
    if not pairs:
        return g
    S, Y = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
    R, gamma = np.triu(S.T @ Y), (S[:, -1] @ Y[:, -1]) / (Y[:, -1] @ Y[:, -1])
    p = np.linalg.solve(R, S.T @ g)
    top = np.linalg.solve(R.T, np.diag(R) * p + gamma * (Y.T @ (Y @ p)) - gamma * (Y.T @ g))
    return gamma * g + S @ top - gamma * (Y @ p)


def dense(pairs, size):
    """H by Nocedal and Wright (2006), equation 6.17, from gamma I; `pairs` (s, y) oldest first."""
    identity = np.eye(size)
    s, y = pairs[-1] if pairs else (np.ones(1), np.ones(1))
    H = (s @ y) / (y @ y) * identity
    for s, y in pairs:
        V = identity - np.outer(y, s) / (y @ s)
        H = V.T @ H @ V + np.outer(s, s) / (y @ s)
    return H


def weak_wolfe(line, cost, slope, first, *, decrease=1e-4, curvature=0.9, trials=40):
    """Lewis and Overton (2013), algorithm 2.6; if the trials run out, the largest step of sufficient decrease.

    ``line(a)`` returns the cost and the slope at `a`. Returns the step size, 0 if there is none, and the number of
    trials.
    """
    if not (np.isfinite(cost) and slope < 0):
        return 0.0, 0
    low, high, a = 0.0, np.inf, first
    for trial in range(1, trials + 1):
        there, its_slope = line(a)
        finite = np.isfinite(there) and np.isfinite(its_slope)
        if not (finite and there <= cost + decrease * a * slope):
            high = a
        elif its_slope >= curvature * slope:
            return a, trial
        else:
            low = a
        a = 2 * a if high == np.inf else (low + high) / 2
    return low, trials


def lbfgs(x, cost_and_gradients, steps, *, memory=10, step_size=None, product=two_loop, along=None):
    """Liu and Nocedal (1989), algorithm 2.1, with the search `weak_wolfe`.

    Without pairs the first trial is 1 / max(1, ||g||), else 1. A pair counts if s'y > eps y'y. A search that fails
    leaves the point, and the pairs are forgotten. With `along`, a list of points, each step starts at the point there
    and has its pairs from the points there, so that differences of round-off do not add up from step to step.

    Returns the points, and the number of evaluations done up to each of them.
    """
    ends = np.cumsum([np.size(p) for p in x])[:-1]

    def unpack(vector):
        return [part.reshape(np.shape(p)) for part, p in zip(np.split(vector, ends), x, strict=True)]

    def pack(arrays):
        return np.concatenate([np.ravel(array) for array in arrays])

    def evaluate(vector):
        cost, gs = cost_and_gradients(unpack(vector))
        return cost, pack(gs)

    here, pairs, points, evaluations = pack(x), [], [], [1]
    cost, g = evaluate(here)
    for count in range(steps):
        d = -product(pairs, g)
        if not g @ d < 0:
            pairs, d = [], -g
        first = 1.0 if pairs else 1 / max(1.0, np.linalg.norm(g))
        if step_size is not None:
            first = _at(step_size, count)

        def line(a, here=here, d=d):
            cost, g = evaluate(here + a * d)
            return cost, g @ d

        a, trials = weak_wolfe(line, cost, g @ d, first)
        there = here + a * d
        points.append(unpack(there))
        evaluations.append(evaluations[-1] + trials)

        there = there if along is None else pack(along[count])
        cost, g_there = evaluate(there)
        s, y = there - here, g_there - g
        if a == 0:
            pairs = []
        elif s @ y > np.finfo(float).eps * (y @ y):
            pairs = [*pairs, (s, y)][-memory:]
        here, g = there, g_there
    return points, evaluations[1:]
