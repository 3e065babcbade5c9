"""Plain NumPy twins of the rules with individual rates, written from the papers, component by component.

They are called as those in `reference`. A rate is a number of its own here, not a gain times the step size: it begins
at the step size, and is multiplied by the ratio when that changes.
"""

import numpy as np
from reference.first_order import _at


def componentwise(change):
    """A rule made of ``change(x, g, s, a, risen, **options)``, the next value of one component.

    `s` is a dictionary for what is remembered of it, with its rate; `a` the present step size; `risen` says whether the
    cost has risen since the last step, if there is a cost.
    """

    def rule(x, gradient, steps, *, step_size, cost=None, curvature=None, **options):
        shapes, points, last, previous = [np.shape(p) for p in x], [], _at(step_size, 0), np.inf
        memories = [[{"rate": last} for _ in range(np.size(p))] for p in x]
        for count in range(steps):
            a, gs = _at(step_size, count), gradient(x)
            value = None if cost is None else cost(x)
            curvatures = gs if curvature is None else curvature(x)
            following = []
            for p, g, c, memory, shape in zip(x, gs, curvatures, memories, shapes, strict=True):
                components = []
                for xi, gi, ci, s in zip(np.ravel(p), np.ravel(g), np.ravel(c), memory, strict=True):
                    s["rate"] *= a / last
                    s["curvature"] = ci
                    components.append(change(xi, gi, s, a, cost is not None and value > previous, **options))
                following.append(np.reshape(components, shape))
            x, last, previous = following, a, value
            points.append(x)
        return points

    return rule


@componentwise
def jacobs(x, g, s, a, risen, *, increase=0.05, decrease=0.2, min_rate=0.0, max_rate=np.inf, mean_weight=0.7):
    """Jacobs (1988), equations 3 to 5 of section 4, with bounds."""
    mean = s.get("mean", 0.0)
    if mean * g > 0:
        s["rate"] += increase * a
    elif mean * g < 0:
        s["rate"] -= decrease * s["rate"]
    s["rate"] = min(max(s["rate"], min_rate * a), max_rate * a)
    s["mean"] = (1 - mean_weight) * g + mean_weight * mean
    return x - s["rate"] * g


@componentwise
def extended(
    x,
    g,
    s,
    a,
    risen,
    *,
    increase=0.05,
    decrease=0.2,
    min_rate=0.0,
    max_rate=np.inf,
    mean_weight=0.7,
    damping=0.0,
    momentum_increase=0.02,
    momentum_decrease=0.2,
    momentum_damping=0.0,
    max_momentum=0.9,
):
    """Minai and Williams (1990): delta-bar-delta with damped increases, and the same for a momentum."""
    mean, mu = s.get("mean", 0.0), s.get("momentum", 0.0)
    if mean * g > 0:
        s["rate"] += increase * a * np.exp(-damping * abs(mean))
        mu += momentum_increase * np.exp(-momentum_damping * abs(mean))
    elif mean * g < 0:
        s["rate"] -= decrease * s["rate"]
        mu -= momentum_decrease * mu
    s["rate"] = min(max(s["rate"], min_rate * a), max_rate * a)
    s["momentum"] = min(mu, max_momentum)
    s["mean"] = (1 - mean_weight) * g + mean_weight * mean
    s["change"] = s["momentum"] * s.get("change", 0.0) - s["rate"] * g
    return x + s["change"]


@componentwise
def gains(x, g, s, a, risen, *, increase=0.2, decrease=0.2, min_rate=0.01, max_rate=np.inf, momentum=0.5):
    """The gains of t-SNE, of van der Maaten and Hinton's program."""
    v = s.get("velocity", 0.0)
    if np.sign(g) == np.sign(v):
        s["rate"] *= 1 - decrease
    else:
        s["rate"] += increase * a
    s["rate"] = min(max(s["rate"], min_rate * a), max_rate * a)
    s["velocity"] = momentum * v - s["rate"] * g
    return x + s["velocity"]


def delta_bar_delta(x, gradient, steps, *, step_size=0.01, variant="jacobs", **options):
    rule = {"jacobs": jacobs, "extended": extended, "gains": gains}[variant]
    return rule(x, gradient, steps, step_size=step_size, **options)


@componentwise
def _rprop(x, g, s, a, risen, *, variant, growth=1.2, shrinkage=0.5, min_rate=1e-6, max_rate=50.0):
    """Igel and Hüsken (2000), figures 1 to 4."""
    before = s.get("gradient", 0.0)
    if before * g > 0:
        s["rate"] = min(s["rate"] * growth, max_rate)
    elif before * g < 0:
        s["rate"] = max(s["rate"] * shrinkage, min_rate)
        if variant != "rprop-":
            s["gradient"] = 0.0
            undone = variant == "rprop+" or (variant == "irprop+" and risen)
            return x - s["step"] if undone else x
    s["gradient"], s["step"] = g, -np.sign(g) * s["rate"]
    return x + s["step"]


def rprop(x, gradient, steps, *, step_size=0.1, variant="irprop-", **options):
    return _rprop(x, gradient, steps, step_size=step_size, variant=variant, **options)


@componentwise
def _super_sab(x, g, s, a, risen, *, momentum=0.9, growth=1.05, shrinkage=0.5, max_rate=np.inf):
    """Reed and Marks (1999), section 9.5."""
    before = s.get("gradient", 0.0)
    if before * g < 0:
        s["rate"] *= shrinkage
        undone, s["step"], s["gradient"] = s["step"], 0.0, 0.0
        return x - undone
    if before * g > 0:
        s["rate"] = min(growth * s["rate"], max_rate * a)
    s["gradient"], s["step"] = g, momentum * s.get("step", 0.0) - s["rate"] * g
    return x + s["step"]


def super_sab(x, gradient, steps, *, step_size=0.01, **options):
    return _super_sab(x, gradient, steps, step_size=step_size, **options)


@componentwise
def _quickprop(x, g, s, a, risen, *, growth=1.75):
    """Fahlman (1988), the update of weights of his program."""
    p, d, shrink = s.get("step", 0.0), s.get("slope", 0.0), growth / (1 + growth)
    step = 0.0
    if p < 0:
        if g > 0:
            step -= a * g
        step += growth * p if g >= shrink * d else g / (d - g) * p
    elif p > 0:
        if g < 0:
            step -= a * g
        step += growth * p if g <= shrink * d else g / (d - g) * p
    else:
        step -= a * g
    s["step"], s["slope"] = step, g
    return x + step


def quickprop(x, gradient, steps, *, step_size=0.01, **options):
    return _quickprop(x, gradient, steps, step_size=step_size, **options)


@componentwise
def _idbd(x, g, s, a, risen, *, meta_step_size=0.01):
    """Sutton (1992), figure 2, with -g for the error times the input, and the curvature for the input's square."""
    h, beta = s.get("h", 0.0), np.log(s["rate"])
    beta += min(max(-meta_step_size * g * h, -2), 2)
    s["rate"] = np.exp(max(beta, np.log(a) - 10))
    s["h"] = h * max(1 - s["rate"] * s["curvature"], 0) - s["rate"] * g
    return x - s["rate"] * g


def idbd(x, gradient, steps, *, curvature, step_size=0.05, **options):
    return _idbd(x, gradient, steps, step_size=step_size, curvature=curvature, **options)


def packed(x):
    """The list of arrays `x` as one vector, and the function back."""
    ends = np.cumsum([np.size(p) for p in x])[:-1]

    def unpack(vector):
        return [part.reshape(np.shape(p)) for part, p in zip(np.split(vector, ends), x, strict=True)]

    return np.concatenate([np.ravel(p) for p in x]), unpack


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def smd(x, gradient, steps, *, hessian, step_size=0.01, meta_step_size=0.02, trace_weight=0.99):
    """Vishwanathan, Schraudolph, Schmidt and Murphy (2006), equations 6, 8 and 10."""
    w, unpack = packed(x)
    rates, v, points = np.full_like(w, _at(step_size, 0)), np.zeros_like(w), []
    for count in range(steps):
        g, Hv = flat(gradient(unpack(w))), hessian(unpack(w)) @ v
        if count:
            rates = rates * _at(step_size, count) / _at(step_size, count - 1)
        rates = rates * np.maximum(0.5, 1 - meta_step_size * g * v)
        w, v = w - rates * g, trace_weight * v - rates * (g + trace_weight * Hv)
        points.append(unpack(w))
    return points


def vsgd(x, gradient, steps, *, noise, curvature=None, step_size=1.0, samples=10, slow_start=2.0, outliers=2.0):
    """Schaul, Zhang and LeCun (2013), algorithm 1; without a curvature Schaul and LeCun (2013), algorithm 1.

    `noise` has a vector for each step, which is added to all gradients of that step.
    """

    def outlies(value, mean, mean_square):
        variance = max(mean_square - mean**2, 8 * np.finfo(float).eps * mean_square)
        return mean_square > 0 and (value - mean) ** 2 > outliers**2 * variance

    w, unpack = packed(x)
    n, points = w.size, []
    mean, square, bend, bend_square = np.zeros((4, n))
    tau = np.full(n, 0.0 if samples else 1.0)
    for count in range(steps):
        g = flat(gradient(unpack(w))) + noise[count]
        if curvature is None:
            d = np.where(mean == 0, g, mean)
            c = np.zeros(n)
            c[d != 0] = np.abs((flat(gradient(unpack(w + d))) + noise[count] - g)[d != 0] / d[d != 0])
        else:
            c = np.abs(flat(curvature(unpack(w))))
        rate = np.zeros(n)
        for i in range(n):
            if count < samples:
                tau[i] += 1
            elif outliers is not None:
                far = outlies(g[i], mean[i], square[i])
                if curvature is None:
                    far |= outlies(c[i], bend[i], bend_square[i])
                tau[i] += far
            mean[i] += (g[i] - mean[i]) / tau[i]
            square[i] += (g[i] ** 2 - square[i]) / tau[i]
            square[i] *= slow_start if count == max(samples - 1, 0) else 1
            bend[i] += (c[i] - bend[i]) / tau[i]
            bend_square[i] += (c[i] ** 2 - bend_square[i]) / tau[i]
            if count >= samples and square[i] > 0 and bend[i] > 0:
                r = min(mean[i] ** 2 / square[i], 1)
                rate[i] = r * bend[i] / bend_square[i] if curvature is None else r / bend[i]
                tau[i] = (1 - r) * tau[i] + 1
            elif count >= samples:
                tau[i] += 1
        w = w - _at(step_size, count) * rate * g
        points.append(unpack(w))
    return points


def hypergradient(
    x,
    gradient,
    steps,
    *,
    step_size=0.001,
    direction="sgd",
    meta_step_size=None,
    multiplicative=False,
    momentum=0.9,
    mean_weight=0.9,
    mean_square_weight=0.999,
    epsilon=1e-8,
):
    """Baydin et al. (2018), algorithms 4, 5 and 6; a change of the step size is added to the rate or multiplies it."""
    beta = meta_step_size
    if beta is None:
        beta = 0.02 if multiplicative else {"sgd": 1e-3, "nesterov": 1e-3, "adam": 1e-7}[direction]
    w, unpack = packed(x)
    rate, points = _at(step_size, 0), []
    u, v, m, s = np.zeros((4, w.size))
    for count in range(steps):
        g, a, last = flat(gradient(unpack(w))), _at(step_size, count), _at(step_size, max(count - 1, 0))
        if multiplicative:
            sizes = np.linalg.norm(g) * np.linalg.norm(u)
            rate = rate * a / last * max(1 + beta * (g @ u / sizes if sizes > 0 else 0.0), 0)
        else:
            rate = max(rate + a - last + beta * (g @ u), 0)
        if direction == "sgd":
            u = g
        elif direction == "nesterov":
            v = momentum * v + g
            u = g + momentum * v
        else:
            m = mean_weight * m + (1 - mean_weight) * g
            s = mean_square_weight * s + (1 - mean_square_weight) * g**2
            t = count + 1
            u = m / (1 - mean_weight**t) / (np.sqrt(s / (1 - mean_square_weight**t)) + epsilon)
        w = w - rate * u
        points.append(unpack(w))
    return points
