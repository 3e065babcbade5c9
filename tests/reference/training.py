"""Plain NumPy twins of the rules for training, written from the papers, tensor by tensor.

They are called as those in `reference.first_order`.
"""

import numpy as np
from reference.first_order import _at


def tensorwise(change):
    """A rule made of ``change(x, g, s, t, a, **options)``, the next value of one tensor.

    `s` is a dictionary for what is remembered of it, with zeros for what is not there yet; `t` the number of the
    update, from 1; `a` the present step size.
    """

    def rule(x, gradient, steps, *, step_size, **options):
        memories, points = [{} for _ in x], []
        for count in range(steps):
            a = _at(step_size, count)
            x = [change(p, g, s, count + 1, a, **options) for p, g, s in zip(x, gradient(x), memories, strict=True)]
            points.append(x)
        return points

    return rule


def mean(s, name, value, weight):
    """The running average `name` of `value`, from zero."""
    s[name] = weight * s.get(name, 0.0) + (1 - weight) * value
    return s[name]


def moments(s, g, t, b1, b2):
    """Adam's moments, corrected."""
    return mean(s, "m", g, b1) / (1 - b1**t), mean(s, "v", g**2, b2) / (1 - b2**t)


def rms(u):
    """The root mean square."""
    return np.sqrt(np.mean(u**2))


@tensorwise
def lion(x, g, s, t, a, *, mean_weight=0.9, memory_weight=0.99, decay=0.0):
    """Chen et al. (2023), algorithm 2."""
    update = np.sign(mean_weight * s.get("m", 0.0) + (1 - mean_weight) * g)
    mean(s, "m", g, memory_weight)
    return x - a * (update + decay * x)


@tensorwise
def signum(x, g, s, t, a, *, momentum=0.9, decay=0.0):
    """Bernstein et al. (2018), algorithm 2."""
    return x - a * (np.sign(mean(s, "m", g, momentum)) + decay * x)


@tensorwise
def adamw(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, decay=1e-2, clip_update=False):
    """Loshchilov and Hutter (2019), algorithm 2; with `clip_update` Wortsman et al. (2023), algorithm 2."""
    m, v = moments(s, g, t, mean_weight, mean_square_weight)
    if clip_update:
        a = a / max(1.0, np.sqrt(np.mean(g**2 / np.maximum(v, epsilon**2))))
    return x - a * (m / (np.sqrt(v) + epsilon) + decay * x)


@tensorwise
def adamax(x, g, s, t, a, *, mean_weight=0.9, norm_weight=0.999, epsilon=1e-8, decay=0.0):
    """Kingma and Ba (2015), algorithm 2."""
    m = mean(s, "m", g, mean_weight)
    s["u"] = np.maximum(norm_weight * s.get("u", 0.0), np.abs(g) + epsilon)
    return x - a * (m / (1 - mean_weight**t) / s["u"] + decay * x)


@tensorwise
def nadam(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, momentum_decay=4e-3, decay=0.0):
    """Dozat (2016), algorithm 2, with the schedule of PyTorch."""
    mu, following = (mean_weight * (1 - 0.5 * 0.96 ** (momentum_decay * i)) for i in (t, t + 1))
    s["product"] = s.get("product", 1.0) * mu
    m, v = mean(s, "m", g, mean_weight), mean(s, "v", g**2, mean_square_weight) / (1 - mean_square_weight**t)
    m = following * m / (1 - s["product"] * following) + (1 - mu) * g / (1 - s["product"])
    return x - a * (m / (np.sqrt(v) + epsilon) + decay * x)


@tensorwise
def radam(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, decay=0.0):
    """Liu et al. (2020), algorithm 2, with the threshold of PyTorch."""
    b2, last = mean_square_weight, 2 / (1 - mean_square_weight) - 1
    length = last - 2 * t * b2**t / (1 - b2**t)
    u, v = mean(s, "m", g, mean_weight) / (1 - mean_weight**t), mean(s, "v", g**2, b2)
    if length > 5:
        r = np.sqrt((length - 4) * (length - 2) * last / ((last - 4) * (last - 2) * length))
        u = r * u * np.sqrt(1 - b2**t) / (np.sqrt(v) + epsilon)
    return x - a * (u + decay * x)


@tensorwise
def adabelief(
    x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-16, inner_epsilon=1e-16, decay=0.0
):
    """Zhuang et al. (2020), algorithm 2."""
    m = mean(s, "m", g, mean_weight)
    s["s"] = mean(s, "s", (g - m) ** 2, mean_square_weight) + inner_epsilon
    root = np.sqrt(s["s"] / (1 - mean_square_weight**t))
    return x - a * (m / (1 - mean_weight**t) / (root + epsilon) + decay * x)


@tensorwise
def adan(
    x, g, s, t, a, *, mean_weight=0.98, difference_weight=0.92, mean_square_weight=0.99, epsilon=1e-8, decay=0.0,
    proximal=True,
):  # fmt: skip
    """Xie et al. (2024), algorithm 1, with the weights of the past in the place of one minus them."""
    b1, b2, b3 = mean_weight, difference_weight, mean_square_weight
    d = g - s.get("g", g)
    s["g"] = g
    m, v = mean(s, "m", g, b1) / (1 - b1**t), mean(s, "d", d, b2) / (1 - b2**t)
    n = mean(s, "n", (g + b2 * d) ** 2, b3) / (1 - b3**t)
    u = (m + b2 * v) / (np.sqrt(n) + epsilon)
    return (x - a * u) / (1 + a * decay) if proximal else x - a * (u + decay * x)


@tensorwise
def ademamix(
    x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, slow_weight=0.9999, slow_share=5.0, warm_up=None,
    epsilon=1e-8, decay=0.0,
):  # fmt: skip
    """Pagliardini, Ablin and Grangier (2025), algorithm 1 and its two schedules."""
    if warm_up is not None:
        done, logs = min(t / warm_up, 1.0), (np.log(mean_weight), np.log(slow_weight))
        slow_share = slow_share * done
        slow_weight = min(np.exp(logs[0] * logs[1] / ((1 - done) * logs[1] + done * logs[0])), slow_weight)
    m, v = moments(s, g, t, mean_weight, mean_square_weight)
    slow = mean(s, "slow", g, slow_weight)
    return x - a * ((m + slow_share * slow) / (np.sqrt(v) + epsilon) + decay * x)


@tensorwise
def adopt(
    x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.9999, epsilon=1e-6, clip=True, clip_first=1, decay=0.0
):
    """Taniguchi et al. (2024), algorithm 2 with the clipping of the authors' later program."""
    if t == 1:
        s["v"] = g**2
        return x
    n = g / np.maximum(np.sqrt(s["v"]), epsilon)
    if clip:
        c = (t - 2 + clip_first) ** 0.25
        n = np.clip(n, -c, c)
    m = mean(s, "m", n, mean_weight)
    mean(s, "v", g**2, mean_square_weight)
    return x - a * (m + decay * x)


@tensorwise
def yogi(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-3, initial=1e-6, decay=0.0):
    """Zaheer et al. (2018), algorithm 2, with Adam's corrections."""
    v = s.get("v", initial)
    s["v"] = v - (1 - mean_square_weight) * np.sign(v - g**2) * g**2
    m = mean(s, "m", g, mean_weight) / (1 - mean_weight**t)
    return x - a * (m / (np.sqrt(s["v"] / (1 - mean_square_weight**t)) + epsilon) + decay * x)


@tensorwise
def laprop(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-15, decay=0.0):
    """Ziyin, Wang and Ueda (2020), algorithm 1, then the decay."""
    v = mean(s, "v", g**2, mean_square_weight) / (1 - mean_square_weight**t)
    m = mean(s, "m", g / (np.sqrt(v) + epsilon), mean_weight)
    return (1 - a * decay) * (x - a * m / (1 - mean_weight**t))


def mars(x, gradient, steps, *, step_size, mean_weight=0.95, mean_square_weight=0.99, strength=0.025, base="adamw",
         second_gradient=False, epsilon=1e-8, decay=0.0):  # fmt: skip
    """Yuan et al. (2024), algorithms 2 and 3."""
    memories, points, before = [{} for _ in x], [], None
    for count in range(steps):
        a, gs, following = _at(step_size, count), gradient(x), []
        olds = [0 * g for g in gs] if before is None else gradient(before[0]) if second_gradient else before[1]
        for p, g, old, s in zip(x, gs, olds, memories, strict=True):
            c = g + strength * mean_weight / (1 - mean_weight) * (g - old)
            c = c / max(1.0, np.linalg.norm(c))
            if base == "lion":
                u = np.sign(mean(s, "m", c, mean_weight))
            else:
                m, v = moments(s, c, count + 1, mean_weight, mean_square_weight)
                u = m / (np.sqrt(v) + epsilon)
            following.append(p - a * (u + decay * p))
        before, x = (x, gs), following
        points.append(x)
    return points


def trusted(x, u, factor=1.0, epsilon=0.0):
    """`u` times the ratio of norms."""
    size, length = np.linalg.norm(x), np.linalg.norm(u)
    return factor * size / (length + epsilon) * u if size > 0 and length > 0 else u


@tensorwise
def lamb(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-6, decay=0.0):
    """You et al. (2020), algorithm 2 with the identity for phi."""
    m, v = moments(s, g, t, mean_weight, mean_square_weight)
    return x - a * trusted(x, m / (np.sqrt(v) + epsilon) + decay * x)


@tensorwise
def lars(x, g, s, t, a, *, trust=1e-3, momentum=0.9, nesterov=False, epsilon=0.0, decay=0.0):
    """You, Gitman and Ginsburg (2017), algorithm 1, with the norm of the decayed gradient."""
    u = a * trusted(x, g + decay * x, trust, epsilon)
    s["b"] = momentum * s.get("b", 0.0) + u
    return x - (u + momentum * s["b"] if nesterov else s["b"])


@tensorwise
def novograd(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.25, epsilon=1e-6, decay=0.0):
    """Ginsburg et al. (2019), algorithm 1."""
    square = np.sum(g**2)
    s["v"] = square if t == 1 else mean_square_weight * s["v"] + (1 - mean_square_weight) * square
    s["m"] = mean_weight * s.get("m", 0.0) + g / (np.sqrt(s["v"]) + epsilon) + decay * x
    return x - a * s["m"]


def prodigy(x, gradient, steps, *, step_size=1.0, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8, initial=1e-6,
            coefficient=1.0, growth=np.inf, bias_correction=False, safeguard=False, decay=0.0):  # fmt: skip
    """Mishchenko and Defazio (2024), algorithm 4, as their program has it."""
    start, d, largest, numerator, points = x, initial, initial, 0.0, []
    b1, b2, b3 = mean_weight, mean_square_weight, np.sqrt(mean_square_weight)
    ms, vs, ss = ([np.zeros_like(p) for p in x] for _ in range(3))
    for count in range(steps):
        gs, rate = gradient(x), d * _at(step_size, count)
        if bias_correction:
            rate *= np.sqrt(1 - b2 ** (count + 1)) / (1 - b1 ** (count + 1))
        gained = sum(np.sum(g * (p0 - p)) for g, p0, p in zip(gs, start, x, strict=True))
        numerator = b3 * numerator + d / initial * rate * gained
        ms = [b1 * m + (1 - b1) * d * g for m, g in zip(ms, gs, strict=True)]
        vs = [b2 * v + (1 - b2) * (d * g) ** 2 for v, g in zip(vs, gs, strict=True)]
        ss = [b3 * s + d / initial * (d if safeguard else rate) * g for s, g in zip(ss, gs, strict=True)]
        found = coefficient * numerator / sum(np.sum(np.abs(s)) for s in ss)
        d = max(d, found) if d == initial else d
        largest = max(largest, found)
        d = min(largest, d * growth)
        x = [p - rate * decay * p - rate * m / (np.sqrt(v) + d * epsilon) for p, m, v in zip(x, ms, vs, strict=True)]
        points.append(x)
    return points


def dog(x, gradient, steps, *, step_size=1.0, initial_distance=None, weighted=False, by_tensor=False, epsilon=1e-8):
    """Ivgi, Hinder and Carmon (2023), equation 1; Khaled, Mishchenko and Jin (2023), algorithm 1."""
    start, points = x, []
    groups = [[i] for i in range(len(x))] if by_tensor else [list(range(len(x)))]

    def size(arrays):
        return np.sqrt(sum(np.sum(a**2) for a in arrays))

    rs = [1e-6 * (1 + size([x[i] for i in g])) if initial_distance is None else initial_distance for g in groups]
    sums = [0.0 for _ in groups]
    for count in range(steps):
        gs, x = gradient(x), list(x)
        for k, group in enumerate(groups):
            rs[k] = max(rs[k], size([x[i] - start[i] for i in group]))
            sums[k] += size([gs[i] for i in group]) ** 2 * (rs[k] ** 2 if weighted else 1.0)
            rate = rs[k] ** 2 / (np.sqrt(sums[k]) + epsilon) if weighted else rs[k] / np.sqrt(sums[k] + epsilon)
            for i in group:
                x[i] = x[i] - _at(step_size, count) * rate * gs[i]
        points.append(x)
    return points


def polyak_sgd(x, gradient, steps, *, cost, step_size=1.0, maximum=1.0, lower_bound=0.0, scale=1.0, epsilon=0.0,
               momentum=0.0):  # fmt: skip
    """Loizou et al. (2021), equation 2; with momentum Berrada, Zisserman and Kumar (2020), algorithm 1."""
    points, buffers = [], [0.0 for _ in x]
    for count in range(steps):
        gs = gradient(x)
        gamma = min(max(cost(x) - lower_bound, 0) / (scale * sum(np.sum(g**2) for g in gs) + epsilon), maximum)
        moves = [_at(step_size, count) * gamma * g for g in gs]
        buffers = [momentum * b - m for b, m in zip(buffers, moves, strict=True)]
        x = [p - m + momentum * b for p, m, b in zip(x, moves, buffers, strict=True)]
        points.append(x)
    return points


@tensorwise
def adafactor(x, g, s, t, a, *, variant="torch", mean_square_exponent=0.8, clip=1.0, epsilon=None, minimum_scale=1e-3,
              scale=True, mean_weight=None, decay=0.0):  # fmt: skip
    """Shazeer and Stern (2018), algorithms 4 to 6."""
    w, torch = 1 - t**-mean_square_exponent, variant == "torch"
    e = epsilon if epsilon is not None else np.finfo(x.dtype).eps if torch else 1e-30
    square = g**2 if torch else g**2 + e
    if x.ndim > 1:
        rows, columns = mean(s, "rows", square.mean(axis=-1), w), mean(s, "columns", square.mean(axis=-2), w)
        total = rows.mean(axis=-1)
        V = rows[..., :, None] * columns[..., None, :] / (max(total, e) if torch else total)
    else:
        V = mean(s, "v", square, w)
    u = g / np.sqrt(np.maximum(V, e**2) if torch else V)
    u = u / max(1.0, rms(u) / clip)
    u = u * (a if variant == "optax" else min(a, 1 / np.sqrt(t)))
    if scale:
        u = u * max(rms(x), minimum_scale)
    if mean_weight is not None:
        u = mean(s, "m", u, mean_weight)
    return x - u - (1.0 if variant == "optax" else a) * decay * x


@tensorwise
def qhm(x, g, s, t, a, *, mean_weight=0.999, share=0.7, decay=0.0):
    """Ma and Yarats (2019), algorithm 1."""
    return x - a * ((1 - share) * g + share * mean(s, "m", g, mean_weight) + decay * x)


@tensorwise
def qhadam(x, g, s, t, a, *, mean_weight=0.995, mean_square_weight=0.999, share=0.7, square_share=1.0, epsilon=1e-8,
           decay=0.0):  # fmt: skip
    """Ma and Yarats (2019), algorithm 2."""
    m, v = moments(s, g, t, mean_weight, mean_square_weight)
    root = np.sqrt((1 - square_share) * g**2 + square_share * v)
    return x - a * (((1 - share) * g + share * m) / (root + epsilon) + decay * x)


@tensorwise
def aggmo(x, g, s, t, a, *, momenta=(0.0, 0.9, 0.99), decay=0.0):
    """Lucas et al. (2019), equation 3."""
    for k, mu in enumerate(momenta):
        s[k] = mu * s.get(k, 0.0) + g
    return x - a * (sum(s[k] for k in range(len(momenta))) / len(momenta) + decay * x)


@tensorwise
def madgrad(x, g, s, t, a, *, momentum=0.9, epsilon=1e-6):
    """Defazio and Jelassi (2022), algorithm 1."""
    rate = (a + epsilon) * np.sqrt(t)
    start = s.setdefault("start", x)
    s["s"], s["v"] = s.get("s", 0.0) + rate * g, s.get("v", 0.0) + rate * g**2
    return momentum * x + (1 - momentum) * (start - s["s"] / (np.cbrt(s["v"]) + epsilon))


def momo(x, gradient, steps, *, cost, step_size=1.0, mean_weight=0.9, lower_bound=0.0, decay=0.0):
    """Schaipp et al. (2024), algorithm 1."""
    points, f, c, ms = [], 0.0, 0.0, [0.0 for _ in x]
    for count in range(steps):
        gs, w, a = gradient(x), mean_weight if count else 0.0, _at(step_size, count)
        f, ms = w * f + (1 - w) * cost(x), [w * m + (1 - w) * g for m, g in zip(ms, gs, strict=True)]
        c = w * c + (1 - w) * sum(np.sum(g * p) for g, p in zip(gs, x, strict=True))
        model = (1 + a * decay) * (f - lower_bound - c) + sum(np.sum(m * p) for m, p in zip(ms, x, strict=True))
        tau = min(a, max(model, 0.0) / sum(np.sum(m**2) for m in ms))
        x = [(p - tau * m) / (1 + a * decay) for p, m in zip(x, ms, strict=True)]
        points.append(x)
    return points


def d_adaptation(x, gradient, steps, *, step_size=1.0, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-8,
                 initial=1e-6, decay=0.0):  # fmt: skip
    """Defazio and Mishchenko (2023), algorithm 5 as their program has it."""
    b1, b2, w, d, n, points = mean_weight, mean_square_weight, np.sqrt(mean_square_weight), initial, 0.0, []
    ms, vs, ss = ([np.zeros_like(p) for p in x] for _ in range(3))
    for count in range(steps):
        gs, rate = gradient(x), d * _at(step_size, count) * np.sqrt(1 - b2 ** (count + 1)) / (1 - b1 ** (count + 1))
        gained = sum(np.sum(g * s / (np.sqrt(v) + epsilon)) for g, s, v in zip(gs, ss, vs, strict=True))
        n = w * n + (1 - w) * rate * gained
        ms = [b1 * m + (1 - b1) * rate * g for m, g in zip(ms, gs, strict=True)]
        vs = [b2 * v + (1 - b2) * g**2 for v, g in zip(vs, gs, strict=True)]
        ss = [w * s + (1 - w) * rate * g for s, g in zip(ss, gs, strict=True)]
        d = max(d, n / ((1 - w) * sum(np.sum(np.abs(s)) for s in ss)))
        x = [p - rate * decay * p - m / (np.sqrt(v) + epsilon) for p, m, v in zip(x, ms, vs, strict=True)]
        points.append(x)
    return points


def factored(s, name, square, w):
    """Adafactor's fit of a running mean square of a matrix, by those of its rows and columns."""
    rows = mean(s, f"{name} rows", square.mean(axis=1), w)
    columns = mean(s, f"{name} columns", square.mean(axis=0), w)
    return np.outer(rows, columns) / rows.mean()


@tensorwise
def came(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, instability_weight=0.9999, clip=1.0,
         epsilon=1e-30, instability_epsilon=1e-16, decay=0.0):  # fmt: skip
    """Luo et al. (2023), algorithm 2."""
    square = g**2 + epsilon
    V = factored(s, "v", square, mean_square_weight) if x.ndim == 2 else mean(s, "v", square, mean_square_weight)
    u = g / np.sqrt(V)
    u = u / max(1.0, rms(u) / clip)
    m = mean(s, "m", u, mean_weight)
    if x.ndim == 2:
        m = m / np.sqrt(factored(s, "s", (u - m) ** 2 + instability_epsilon, instability_weight))
    return x - a * (m + decay * x)


@tensorwise
def sm3(x, g, s, t, a, *, momentum=0.9, mean_square_weight=1.0, epsilon=1e-30, decay=0.0):
    """Anil et al. (2019), algorithm SM3-II."""
    rows, columns = s.get("rows", np.zeros(x.shape[0])), s.get("columns", np.zeros(x.shape[-1]))
    v = np.minimum(rows[:, None], columns[None, :]) if x.ndim == 2 else rows
    v = mean_square_weight * v + (1.0 if mean_square_weight == 1 else 1 - mean_square_weight) * g**2
    s["rows"], s["columns"] = (v.max(axis=1), v.max(axis=0)) if x.ndim == 2 else (v, v)
    return x - a * (mean(s, "m", g / np.sqrt(v + epsilon), momentum) + decay * x)


def polar(B):
    """The nearest orthogonal matrix."""
    U, _, Vt = np.linalg.svd(B, full_matrices=False)
    return U @ Vt


def newton_schulz(B, epsilon=1e-7, iterations=5):
    """Jordan et al. (2024): five turns of an odd polynomial of degree 5, on the matrix with the shorter axis first."""
    X = B / (np.linalg.norm(B) + epsilon)
    X = X.T if B.shape[0] > B.shape[1] else X
    for _ in range(iterations):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.T if B.shape[0] > B.shape[1] else X


@tensorwise
def muon(x, g, s, t, a, *, momentum=0.95, nesterov=True, bias_correction=False, orthogonal=newton_schulz, scale="rms",
         decay=0.1):  # fmt: skip
    """Jordan et al. (2024), with averages; a vector is by AdamW."""
    if x.ndim < 2:
        return VECTORS(x, g, s, t, a)
    c, c_next = (1 - momentum**t, 1 - momentum ** (t + 1)) if bias_correction else (1, 1)
    m = mean(s, "m", g, momentum)
    B = momentum * m / c_next + (1 - momentum) * g / c if nesterov else m
    inputs, outputs = x.shape
    k = {"rms": 0.2 * np.sqrt(max(x.shape)), "shape": np.sqrt(max(1, outputs / inputs)), None: 1.0}[scale]
    return x - a * (decay * x + k * orthogonal(B))


@tensorwise
def scion(x, g, s, t, a, *, gradient_share=0.1, radius=1.0, constrained=False, signs=None):
    """Pethick et al. (2025), algorithms 1 and 2."""
    m = mean(s, "m", g, 1 - gradient_share)
    if signs is not None and signs(x):
        u = np.sign(m) / x.shape[0]
    else:
        u = np.sqrt(x.shape[1] / x.shape[0]) * newton_schulz(m) if x.ndim == 2 else m / (rms(m) + 1e-8)
    return (1 - a if constrained else 1) * x - a * radius * u


def VECTORS(x, g, s, t, a):
    m, v = moments(s, g, t, 0.9, 0.999)
    return x - a * (m / (np.sqrt(v) + 1e-8) + 1e-2 * x)


def unfolded(g, i):
    """The matrix with axis i as its rows."""
    return np.moveaxis(g, i, 0).reshape(g.shape[i], -1)


def multiplied(g, matrices):
    """The tensor times matrices, each along its axis."""
    for i, M in enumerate(matrices):
        g = np.moveaxis(np.tensordot(M, g, [[1], [i]]), 0, i)
    return g


@tensorwise
def shampoo(x, g, s, t, a, *, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-12, every=10, start=None,
            graft="adam", graft_epsilon=1e-8, decay=0.0):  # fmt: skip
    """Gupta, Koren and Singer (2018), algorithm 2; Shi et al. (2023) for averages, grafting and the start."""
    start, w, k = every if start is None else start, mean_square_weight, x.ndim
    one, c2 = (1.0, 1.0) if w == 1 else (1 - w, 1 - w**t)
    m = mean(s, "m", g, mean_weight) / (1 - mean_weight**t)
    for i in range(k):
        s[i] = w * s.get(i, 0.0) + one * unfolded(g, i) @ unfolded(g, i).T
        if t == start or (t > start and t % every == 0):
            values, Q = np.linalg.eigh(s[i] / c2)
            s["root", i] = Q * (values + epsilon) ** (-1 / (2 * k)) @ Q.T
    s["v"] = w * s.get("v", 0.0) + one * g**2
    adam = m / (np.sqrt(s["v"] / c2) + graft_epsilon)
    if t < start:
        return x - a * ((adam if graft else m) + decay * x)
    d = multiplied(m, [s["root", i] for i in range(k)])
    return x - a * ((d * np.linalg.norm(adam) / np.linalg.norm(d) if graft else d) + decay * x)


@tensorwise
def soap(x, g, s, t, a, *, mean_weight=0.95, mean_square_weight=0.95, epsilon=1e-8, every=10, decay=1e-2):
    """Vyas et al. (2025), algorithm 3; the first call only begins the matrices and bases."""
    axes = range(x.ndim) if x.ndim > 1 else []
    if t > 1:
        b1, b2, n = mean_weight, mean_square_weight, t - 1
        Q = [s["Q", i] for i in axes]
        rotated = multiplied(g, [q.T for q in Q])
        m, v = mean(s, "m", g, b1), mean(s, "v", rotated**2, b2)
        u = multiplied(multiplied(m, [q.T for q in Q]) / (np.sqrt(v) + epsilon), Q)
        x = (1 - a * decay) * (x - a * np.sqrt(1 - b2**n) / (1 - b1**n) * u)
    for i in axes:
        L = mean(s, i, unfolded(g, i) @ unfolded(g, i).T, mean_square_weight)
        if t == 1:
            s["Q", i] = np.linalg.eigh(L)[1][:, ::-1]
        elif (t - 1) % every == 0:
            order = np.argsort(-np.sum(s["Q", i] * (L @ s["Q", i]), axis=0), kind="stable")
            s["v"] = np.take(s["v"], order, axis=i)
            s["Q", i] = np.linalg.qr(L @ s["Q", i][:, order])[0]
    return x


def schedule_free(x, gradient, steps, *, step_size, interpolation=0.9, power=0.0, rate_power=2.0):
    """Defazio et al. (2024), equations 2 to 4, over gradient descent. Returns the points y and the averages x."""
    y, z, mean_, total, largest, points, averages = x, x, x, 0.0, 0.0, [], []
    for count in range(steps):
        a = _at(step_size, count)
        largest = max(largest, a)
        weight = (count + 1) ** power * largest**rate_power
        total += weight
        z = [p - a * g for p, g in zip(z, gradient(y), strict=True)]
        mean_ = [(1 - weight / total) * p + weight / total * q for p, q in zip(mean_, z, strict=True)]
        y = [interpolation * p + (1 - interpolation) * q for p, q in zip(mean_, z, strict=True)]
        points.append(y)
        averages.append(mean_)
    return points, averages


def sam(gradient, radius, adaptive=False):
    """Foret et al. (2021), algorithm 1, and Kwon et al. (2021), equation 6: another function for the gradient."""

    def uphill(x):
        gs = gradient(x)
        scales = [np.abs(p) if adaptive else 1.0 for p in x]
        size = np.sqrt(sum(np.sum((c * g) ** 2) for c, g in zip(scales, gs, strict=True)))
        return gradient([p + radius * c**2 * g / size for p, c, g in zip(x, scales, gs, strict=True)])

    return uphill


@tensorwise
def cautious_adam(x, g, s, t, a):
    """Liang et al. (2024), algorithm 1 with the mean of the authors' program."""
    m, v = moments(s, g, t, 0.9, 0.999)
    u, keeps = m / (np.sqrt(v) + 1e-8), (m * g > 0).astype(float)
    return x - a * u * keeps / max(np.mean(keeps), 1e-3)


def signs(size, seed, count):
    """Random signs by mixing integers of 32 bits, as `optapi.draws` says."""

    def mixed(bits):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            bits = (bits ^ bits >> shift) * factor % 2**32
        return bits

    return np.array([1.0 if mixed(mixed(mixed(i + 1) ^ seed) ^ count) < 2**31 else -1.0 for i in range(size)])


def hutchinson(x, product, seed, count):
    """Hutchinson (1990): signs times the product of the Hessian with them."""
    z, begin, vectors = signs(sum(p.size for p in x), seed, count), 0, []
    for p in x:
        vectors.append(z[begin : begin + p.size].reshape(p.shape))
        begin += p.size
    return [v * w for v, w in zip(vectors, product(x, vectors), strict=True)]


def sophia(x, gradient, steps, *, product, step_size, mean_weight=0.965, curvature_weight=0.99, scale=0.01, clip=1.0,
           epsilon=1e-8, every=10, seed=0, decay=1e-4):  # fmt: skip
    """Liu et al. (2024), algorithm 3, with Hutchinson's estimates, which count from the next update on."""
    ms, hs, points = [np.zeros_like(p) for p in x], [np.zeros_like(p) for p in x], []
    for count in range(steps):
        a, start = _at(step_size, count), x
        ms = [mean_weight * m + (1 - mean_weight) * g for m, g in zip(ms, gradient(x), strict=True)]
        ratios = [
            m / (1 - mean_weight ** (count + 1)) / np.maximum(scale * h, epsilon) for m, h in zip(ms, hs, strict=True)
        ]
        x = [p - a * decay * p - a * np.clip(r, -clip, clip) for p, r in zip(x, ratios, strict=True)]
        if count % every == 0:
            ds = hutchinson(start, product, seed, count)
            hs = [curvature_weight * h + (1 - curvature_weight) * d for h, d in zip(hs, ds, strict=True)]
        points.append(x)
    return points


def adahessian(x, gradient, steps, *, product, step_size, mean_weight=0.9, mean_square_weight=0.999, epsilon=1e-4,
               power=1.0, block=1, seed=0, decay=0.0):  # fmt: skip
    """Yao et al. (2021), algorithm 1."""
    ms, vs, points = [np.zeros_like(p) for p in x], [np.zeros_like(p) for p in x], []
    for count in range(steps):
        a, t, ds = _at(step_size, count), count + 1, hutchinson(x, product, seed, count)
        ds = [d if d.size % block else np.repeat(d.reshape(-1, block).mean(1), block).reshape(d.shape) for d in ds]
        ms = [mean_weight * m + (1 - mean_weight) * g for m, g in zip(ms, gradient(x), strict=True)]
        vs = [mean_square_weight * v + (1 - mean_square_weight) * d**2 for v, d in zip(vs, ds, strict=True)]
        x = [
            p - a * decay * p
            - a * m / (1 - mean_weight**t) / ((v / (1 - mean_square_weight**t)) ** (power / 2) + epsilon)
            for p, m, v in zip(x, ms, vs, strict=True)
        ]  # fmt: skip
        points.append(x)
    return points


@tensorwise
def normuon(x, g, s, t, a, *, momentum=0.95, nesterov=False, mean_square_weight=0.95, scale=0.2, epsilon=1e-8,
            decay=0.1):  # fmt: skip
    """Li et al. (2025), algorithm 1, for weights of (inputs, outputs); a vector is by AdamW."""
    if x.ndim < 2:
        return VECTORS(x, g, s, t, a)
    m = mean(s, "m", g, momentum)
    u = newton_schulz(momentum * m + (1 - momentum) * g if nesterov else m, epsilon)
    u = u / (np.sqrt(mean(s, "v", np.mean(u**2, axis=0), mean_square_weight)) + epsilon)
    return x - a * decay * x - a * scale * np.sqrt(x.size) / np.linalg.norm(u) * u


@tensorwise
def kron(x, g, s, t, a, *, mean_weight=0.9, factor_step_size=0.1, smoothness_weight=0.9, damping=1e-9, initial=None,
         clip=2.0, clip_component=10.0, decay=0.0):  # fmt: skip
    """PSGD, Li (2024), with the update QUAD of the author's program, here with whole matrices, diagonal ones too."""
    m, n, k = mean(s, "m", g, min(mean_weight, (t - 1) / t)), x.shape, x.ndim
    noise = damping + np.finfo(float).eps * rms(g)
    if t == 1:
        q = (np.mean(g**4) + noise**4) ** (-1 / 8) if initial is None else initial
        s["Q"], s["l"] = [q ** (1 / k) * np.eye(size) for size in n], np.zeros(k)
    Q = s["Q"]
    P = [q @ q for q in Q]
    A, Q_next = multiplied(g, P), []
    for i in range(k):
        T = unfolded(A, i) @ unfolded(A, i).T
        T = T + noise**2 * np.prod([np.sum(P[j] ** 2) for j in range(k) if j != i]) * P[i] @ P[i]
        is_dense = n[i] ** 2 <= x.size
        bound = np.linalg.norm(np.linalg.matrix_power(T, 4)) ** 0.25 if is_dense else np.max(np.diag(T))
        T = T if is_dense else np.diag(np.diag(T))
        one = x.size / n[i] * np.eye(n[i])
        bound += x.size / n[i]
        s["l"][i] = max(smoothness_weight * s["l"][i] + (1 - smoothness_weight) * bound, bound)
        step = np.eye(n[i]) - factor_step_size / 2 / s["l"][i] * (T - one)
        new = step @ Q[i] @ step
        Q_next.append((new + new.T) / 2)
    s["Q"] = Q_next
    d = multiplied(m, [q @ q for q in Q_next])
    d = np.clip(d * min(1, clip / rms(d)), -clip_component, clip_component)
    return x - a * (d + decay * x)


def mechanic(x, gradient, steps, *, betas, initial=1e-6, decay=1e-2, epsilon=1e-8):
    """Cutkosky, Defazio and Mehta (2023), algorithm 1 with the clipping of their program, over gradient descent."""
    x0, betas, points = x, np.array(betas), []
    D, r, m, v = [np.zeros_like(p) for p in x], np.zeros(len(betas)), np.zeros(len(betas)), np.zeros(len(betas))
    s = np.full(len(betas), initial)
    for _ in range(steps):
        gs = gradient(x)
        sizes = [np.sqrt(sum(np.sum(a**2) for a in arrays)) for arrays in (gs, x)]
        pulled = [g + decay * np.sum(s) * sizes[0] / (sizes[1] + epsilon) * p for g, p in zip(gs, x, strict=True)]
        # What the program works out from the points, with its epsilon.
        D = [(p - p0) / (np.sum(s) + epsilon) for p, p0 in zip(x, x0, strict=True)]
        h = -sum(np.sum(g * d) for g, d in zip(pulled, D, strict=True))
        r = betas * r + s * np.clip(h, -m, m)
        m, v = np.maximum(betas * m, abs(h) + epsilon), betas**2 * v + h**2
        s = (initial / len(betas) * m + np.maximum(r, 0)) / (np.sqrt(v) + epsilon)
        x = [p0 + np.sum(s) * (d - g) for p0, d, g in zip(x0, D, gs, strict=True)]
        points.append(x)
    return points


def svrg(x, gradients, order, *, step_size, every):
    """Johnson and Zhang (2013), figure 1 with option I: `gradients` of each batch, `order` which is seen."""
    points = []
    for count, i in enumerate(order):
        if count % every == 0:
            anchor, full = x, np.mean([g(x) for g in gradients], axis=0)
        x = x - step_size * (gradients[i](x) - gradients[i](anchor) + full)
        points.append(x)
    return points
