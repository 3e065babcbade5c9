"""Plain NumPy twins of the rules, written from the papers.

Each takes a point (a list of arrays), a function of it, and a number of steps, and returns the list of the points after
each step. A step size is a number or a function of the count of steps done before.
"""

from collections import defaultdict

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


def nesterov(x, gradient, steps, *, step_size=0.01, momentum=0.9):
    """The points looked ahead to, x + mu v, of `look_ahead`: where Sutskever et al. (2013) have the gradient."""
    points, velocities = look_ahead(x, gradient, steps, step_size=step_size, momentum=momentum)
    return [[p + momentum * v for p, v in zip(ps, vs, strict=True)] for ps, vs in zip(points, velocities, strict=True)]


def componentwise(change):
    """A rule made of ``change(p, g, t, s, step_size=a)``, the next value of one array.

    `s` is a dictionary for what the array's rule remembers: at first, all of it is 0. `t` counts from 1.
    """

    def rule(x, gradient, steps, **options):
        step_size = options.pop("step_size", change.__kwdefaults__["step_size"])
        x, memories, points = list(x), [defaultdict(float) for _ in x], []
        for count in range(steps):
            a, gs = _at(step_size, count), gradient(x)
            x = [change(p, g, count + 1, s, step_size=a, **options) for p, g, s in zip(x, gs, memories, strict=True)]
            points.append(x)
        return points

    return rule


@componentwise
def adagrad(p, g, t, s, *, step_size=0.01, epsilon=1e-10, initial=0.0):
    """Duchi, Hazan and Singer (2011), figure 1, with the diagonal of G."""
    s["sum"] = s["sum"] + g**2
    return p - step_size / (np.sqrt(initial + s["sum"]) + epsilon) * g


@componentwise
def adadelta(p, g, t, s, *, step_size=1.0, mean_square_weight=0.9, epsilon=1e-6):
    """Zeiler (2012), algorithm 1; a step size scales only what is added to the point."""
    rho = mean_square_weight
    s["g2"] = rho * s["g2"] + (1 - rho) * g**2
    change = -np.sqrt(s["x2"] + epsilon) / np.sqrt(s["g2"] + epsilon) * g
    s["x2"] = rho * s["x2"] + (1 - rho) * change**2
    return p + step_size * change


@componentwise
def rmsprop(p, g, t, s, *, step_size=0.001, momentum=0.0, mean_square_weight=0.9, epsilon=1e-8, centered=False):
    """Tieleman and Hinton (2012), lecture 6e; centered and with momentum as Graves (2013), epsilon beside the root."""
    rho = mean_square_weight
    s["n"] = rho * s["n"] + (1 - rho) * g**2
    s["g"] = rho * s["g"] + (1 - rho) * g
    variance = np.maximum(s["n"] - s["g"] ** 2, 0) if centered else s["n"]
    s["d"] = momentum * s["d"] + g / (np.sqrt(variance) + epsilon)
    return p - step_size * s["d"]


@componentwise
def adamw(p, g, t, s, *, step_size=0.001, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, decay=0.01):
    """Loshchilov and Hutter (2019), algorithm 2, with a schedule that scales all of the step."""
    s["m"] = mean_weight * s["m"] + (1 - mean_weight) * g
    s["v"] = mean_square_weight * s["v"] + (1 - mean_square_weight) * g**2
    m_hat, v_hat = s["m"] / (1 - mean_weight**t), s["v"] / (1 - mean_square_weight**t)
    return p - step_size * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * p)


@componentwise
def adamax(p, g, t, s, *, step_size=0.002, mean_weight=0.9, norm_weight=0.999, epsilon=1e-8):
    """Kingma and Ba (2015), algorithm 2, with epsilon added to the gradient's size."""
    s["m"] = mean_weight * s["m"] + (1 - mean_weight) * g
    s["u"] = np.maximum(norm_weight * s["u"], np.abs(g) + epsilon)
    return p - step_size / (1 - mean_weight**t) * s["m"] / s["u"]


@componentwise
def nadam(
    p, g, t, s, *, step_size=0.002, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, momentum_decay=0.004
):
    """Dozat (2016), algorithm 2, with mu_t = b1 (1 - 0.96^(psi t) / 2)."""
    mus = mean_weight * (1 - 0.5 * 0.96 ** (momentum_decay * np.arange(1, t + 2)))
    s["m"] = mean_weight * s["m"] + (1 - mean_weight) * g
    s["n"] = mean_square_weight * s["n"] + (1 - mean_square_weight) * g**2
    g_hat, m_hat = g / (1 - np.prod(mus[:-1])), s["m"] / (1 - np.prod(mus))
    n_hat = s["n"] / (1 - mean_square_weight**t)
    return p - step_size * ((1 - mus[-2]) * g_hat + mus[-1] * m_hat) / (np.sqrt(n_hat) + epsilon)


@componentwise
def radam(p, g, t, s, *, step_size=0.001, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8):
    """Liu et al. (2020), algorithm 2, with a threshold of 5 and epsilon beside the root of the uncorrected v."""
    b2 = mean_square_weight
    s["m"] = mean_weight * s["m"] + (1 - mean_weight) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    m_hat = s["m"] / (1 - mean_weight**t)
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return p - step_size * m_hat
    r = np.sqrt((rho - 4) / (rho_inf - 4) * (rho - 2) / (rho_inf - 2) * rho_inf / rho)
    return p - step_size * m_hat * r * np.sqrt(1 - b2**t) / (np.sqrt(s["v"]) + epsilon)


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


def weak_wolfe(line, cost, slope, first, *, decrease=1e-4, curvature=0.9, max_trials=40):
    """Lewis and Overton (2013), algorithm 2.6; if the trials run out, the largest step of sufficient decrease.

    ``line(a)`` returns the cost and the slope at `a`. Returns the step size, 0 if there is none, and the number of
    trials.
    """
    if not (np.isfinite(cost) and slope < 0):
        return 0.0, 0
    low, high, a = 0.0, np.inf, first
    for trial in range(1, max_trials + 1):
        there, its_slope = line(a)
        finite = np.isfinite(there) and np.isfinite(its_slope)
        if not (finite and there <= cost + decrease * a * slope):
            high = a
        elif its_slope >= curvature * slope:
            return a, trial
        else:
            low = a
        a = 2 * a if high == np.inf else (low + high) / 2
    return low, max_trials


def lbfgs(
    x, cost_and_gradients, steps, *, memory=10, step_size=None, line_search=weak_wolfe, product=two_loop, along=None
):
    """Liu and Nocedal (1989), algorithm 2.1.

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

        a, trials = line_search(line, cost, g @ d, first)
        there = here + a * d
        points.append(unpack(there))
        evaluations.append(evaluations[-1] + trials)

        there = there if along is None else pack(along[count])
        cost, g_there = evaluate(there)
        s, y = there - here, g_there - g
        if a == 0:
            pairs = []
        elif s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            pairs = [*pairs, (s, y)][-memory:]
        here, g = there, g_there
    return points, evaluations[1:]
