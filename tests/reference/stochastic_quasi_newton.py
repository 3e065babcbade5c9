"""Plain NumPy twins of the stochastic quasi-Newton rules and of TONGA, written from the papers.

Each takes a point (a list of arrays), ``gradients(point, t)`` of the batch of step t, from 0, and a number of steps,
and returns the list of the points after each step. With `along`, a list of points, each step starts at the point there
and has its pairs from the points there, so that differences of round-off do not add up from step to step.
"""

import numpy as np
from reference.first_order import _at, two_loop


def pack(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def unpack(vector, arrays):
    ends = np.cumsum([np.size(array) for array in arrays])[:-1]
    return [part.reshape(np.shape(array)) for part, array in zip(np.split(vector, ends), arrays, strict=True)]


def on_vectors(rule):
    """A rule of lists of arrays, from one of a vector."""

    def wrapped(x, gradients, steps, **options):
        def g(vector, t):
            return pack(gradients(unpack(vector, x), t))

        if options.get("along") is not None:
            options["along"] = [pack(point) for point in options["along"]]
        for key in ("product", "cost"):
            if key in options:
                given = options.pop(key)
                options[key] = lambda *a, given=given: given(
                    *[unpack(v, x) if isinstance(v, np.ndarray) else v for v in a]
                )
        points = rule(pack(x), g, steps, **options)
        return [unpack(point, x) for point in points]

    return wrapped


def sgd_qn(
    x,
    gradients,
    steps,
    *,
    step_size,
    regularization=0.0,
    penalized=None,
    skip=16,
    min_curvature=None,
    max_curvature=None,
):
    """The loop of Bordes and Bottou's programs: B itself is carried, one example or batch at a time."""
    lam = regularization
    low = 0.1 * lam if min_curvature is None else min_curvature
    high = (100 * lam if lam else 1 / step_size) if max_curvature is None else max_curvature
    penalties = [lam if chosen else 0.0 for chosen in (penalized or [True] * len(x))]
    w, points = [np.array(p, float) for p in x], []
    B = [np.full(np.shape(p), float(step_size)) for p in w]
    last, renew, count = None, False, skip
    for t in range(steps):
        d = gradients(w, t)
        if renew:
            before = gradients(last, t)
            for i, penalty in enumerate(penalties):
                for j in np.ndindex(B[i].shape):
                    dw, dg = w[i][j] - last[i][j], d[i][j] - before[i][j]
                    ratio = penalty + dg / dw if dw != 0 else penalty if dg == 0 else high
                    B[i][j] = 1 / (1 / B[i][j] + skip * min(max(ratio, low), high))
            renew = False
        count -= 1
        if count <= 0:
            last, renew, count = [p.copy() for p in w], True, skip
            w = [p - skip * penalty * b * p for p, b, penalty in zip(w, B, penalties, strict=True)]
        w = [p - b * g for p, b, g in zip(w, B, d, strict=True)]
        points.append(w)
    return points


def sgd_qn_2009(x, gradients, steps, *, step_size, regularization, skip=16):
    """Bordes, Bottou and Gallinari (2009), figure 2, with t0 = 1 / (step_size lambda), and an upper bound on B."""
    lam = regularization
    w, points = [np.array(p, float) for p in x], []
    B = [np.full(np.shape(p), 1 / lam) for p in w]
    t0, renew, count, r = 1 / (step_size * lam), False, skip, 2
    for t in range(steps):
        d = gradients(w, t)
        new = [p - b * g / (t + t0) for p, b, g in zip(w, B, d, strict=True)]
        if renew:
            after = gradients(new, t)
            for i in range(len(w)):
                for j in np.ndindex(B[i].shape):
                    dw = new[i][j] - w[i][j]
                    ratio = dw / (after[i][j] - d[i][j] + lam * dw) if dw != 0 else 1 / lam
                    B[i][j] += 2 / r * (ratio - B[i][j])
                    B[i][j] = min(max(B[i][j], 1e-2 / lam), 1e2 / lam)
            r, renew = r + 1, False
        count -= 1
        if count <= 0:
            new = [p - skip / (t + t0) * lam * b * p for p, b in zip(new, B, strict=True)]
            count, renew = skip, True
        w = new
        points.append(w)
    return points


def recursion(pairs, q, begin):
    """H q by the two loops of Nocedal and Wright (2006), algorithm 7.4; ``begin(q)`` is the product with H0."""
    kept = []
    for s, y in reversed(pairs):
        kept.append((s @ q) / (s @ y))
        q = q - kept[-1] * y
    q = begin(q)
    for (s, y), alpha in zip(pairs, reversed(kept), strict=True):
        q = q + (alpha - (y @ q) / (s @ y)) * s
    return q


@on_vectors
def olbfgs(x, gradients, steps, *, step_size=0.1, memory=10, regularization=0.0, epsilon=2.0**-26, along=None):
    """Schraudolph, Yu and Guenter (2007), section 3.2, with step_size = eta_t / c."""
    pairs, points = [], []
    for t in range(steps):
        g = gradients(x, t)
        scale = np.mean([(s @ y) / (y @ y) for s, y in pairs]) if pairs else epsilon
        there = x - _at(step_size, t) * recursion(pairs, g, lambda q, scale=scale: scale * q)
        points.append(there)
        there = there if along is None else along[t]
        s = there - x
        y = gradients(there, t) - g + regularization * s
        if s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
            pairs = [*pairs, (s, y)][-memory:]
        x = there
    return points


@on_vectors
def sqn(x, gradients, steps, *, product, step_size=0.1, memory=10, every=10, along=None):
    """Byrd, Hansen, Nocedal and Singer (2016), algorithm 1; ``product(point, v, t)`` is with the Hessian."""
    pairs, points, total, last, period = [], [], np.zeros_like(x), None, -1
    for k in range(1, steps + 1):
        g = gradients(x, k - 1)
        total = total + x
        x_new = x - _at(step_size, k - 1) * (two_loop(pairs, g) if k > 2 * every else g)
        if k % every == 0:
            period += 1
            mean, total = total / every, np.zeros_like(x)
            if period > 0:
                s = mean - last
                y = pack(product(mean, s, k - 1))
                if s @ y > np.finfo(float).eps * np.linalg.norm(s) * np.linalg.norm(y):
                    pairs = [*pairs, (s, y)][-memory:]
            last = mean
        points.append(x_new)
        x = x_new if along is None else along[k - 1]
    return points


@on_vectors
def ada_qn(
    x,
    gradients,
    steps,
    *,
    cost,
    step_size=0.1,
    memory=10,
    every=20,
    gradient_memory=100,
    increase=1.01,
    curvature=1e-4,
    epsilon=1e-4,
):
    """Keskar and Berahas (2016), algorithm 1; ``cost(point, t)`` is that of the monitoring set."""
    pairs, points, fisher, v, total, last = [], [], [], np.zeros_like(x), np.zeros_like(x), None
    for k in range(1, steps + 1):
        g = gradients(x, k - 1)
        fisher = [*fisher, g][-gradient_memory:]
        v = v + g**2
        total = total + x
        x_new = x - _at(step_size, k - 1) * recursion(pairs, g, lambda q, v=v: q / np.sqrt(v + epsilon))
        if k % every == 0:
            mean, total = total / every, np.zeros_like(x)
            if last is None:
                last = mean
            elif cost(mean, k - 1) > increase * cost(last, k - 1):
                pairs, fisher, x_new = [], [], last
            else:
                s = mean - last
                y = sum(g_i * (g_i @ s) for g_i in fisher) / len(fisher)
                if s @ y > curvature * (s @ s):
                    pairs, last = [*pairs, (s, y)][-memory:], mean
        x = x_new
        points.append(x)
    return points


def truncated(C, rank):
    """C with its `rank` largest eigenvalues only."""
    values, vectors = np.linalg.eigh(C)
    return (vectors[:, -rank:] * np.maximum(values[-rank:], 0)) @ vectors[:, -rank:].T


def tonga(
    x,
    gradients,
    steps,
    *,
    step_size,
    rank=5,
    every=50,
    block="all",
    forgetting=0.995,
    regularization=1.0,
    examples=None,
    normalize=False,
):
    """Le Roux, Manzagol and Bengio (2008), with dense covariances; ``examples(point, t)`` adds an axis in front."""
    x, points, total = [np.array(p, float) for p in x], [], 0.0
    if block == "all":
        blocks = [[(i, ...) for i in range(len(x))]]
    elif block == "parameter":
        blocks = [[(i, ...)] for i in range(len(x))]
    else:
        blocks = [[(i, j)] for i, p in enumerate(x) for j in (range(len(p)) if p.ndim > 1 else [...])]
    covariances = [0.0] * len(blocks)
    for t in range(steps):
        gs = gradients(x, t)
        total = forgetting * total + 1
        singles = None if examples is None else examples(x, t)
        x = [p.copy() for p in x]
        for n, parts in enumerate(blocks):
            g = np.concatenate([np.ravel(gs[i][j]) for i, j in parts])
            added = [g] if singles is None else _rows(singles, parts)
            C = forgetting * covariances[n] + sum(np.outer(a, a) for a in added) / len(added)
            v = np.linalg.solve(C + regularization * np.eye(g.size), g) * (total if normalize else 1)
            if singles is not None or (t + 1) % every == 0:
                C = truncated(C, rank)
            covariances[n] = C
            begin = 0
            for i, j in parts:
                size = np.size(x[i][j])
                x[i][j] -= _at(step_size, t) * v[begin : begin + size].reshape(np.shape(x[i][j]))
                begin += size
        points.append(x)
    return points


def _rows(singles, parts):
    return np.concatenate([singles[i][(slice(None), j)].reshape(len(singles[i]), -1) for i, j in parts], axis=1)
