"""Steps of the rules for training beside updates by hand, on ten million numbers: ``elementwise.py [--write] [rules]``.

One shared vector in float64 with a given gradient, under numba on one thread. The rule and the updates that are
written out with the same arithmetic take turns, each turn a call; what counts is the least processor time of each. By
hand, a norm is the root of the sum of the squares, which overflows earlier than that of the rules. Both must give the
same numbers after three steps. ``sophia`` and ``adahessian`` are left out, since most of their step is the product
with the Hessian of the cost, and so are ``polyak_sgd`` and ``momo``, which read the cost, and the rules for matrices.
With ``--write`` the table goes to ``docs/step_times.md``.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt

import optapi


PAGE = Path(__file__).parents[2] / "docs" / "step_times.md"
SIZE, ROUNDS = 10_000_000, 20


class Vector:
    """A parameter `p`, its gradient `g`, the number `t` of the update, and the updates, by hand and not."""

    def __init__(self, size):
        rng = np.random.default_rng(0)
        self.p = pytensor.shared(rng.normal(size=size), name="p", shape=(size,))
        self.g = pytensor.shared(rng.normal(size=size), name="g", shape=(size,))
        self.count = pytensor.shared(np.int64(0), name="count")
        self.t = self.count + 1
        self.first = pt.eq(self.count, 0)
        self.by_hand = {}

    def state(self):
        """A new vector of zeros."""
        return pytensor.shared(np.zeros(self.p.get_value(borrow=True).shape), shape=self.p.type.shape)

    def number(self, value=0.0):
        """A new scalar."""
        return pytensor.shared(np.float64(value))

    def mean(self, value, weight):
        """The next running average of `value`."""
        m = self.state()
        self.by_hand[m] = weight * m + (1 - weight) * value
        return self.by_hand[m]

    def kept(self):
        """The start."""
        start = self.state()
        self.by_hand[start] = pt.switch(self.first, self.p, start)
        return self.by_hand[start]


def norm(a):
    return pt.sqrt(pt.sum(a**2))


def quotient(a, b):
    """`a / b`, and 0 where `b` is."""
    usual = pt.neq(b, 0)
    return pt.switch(usual, a / pt.switch(usual, b, 1.0), 0.0)


# The next parameter by hand, for the defaults of each rule; what it keeps goes to `v.by_hand`.


def lion(v, b1=0.9, b2=0.99):
    m = v.state()
    v.by_hand[m] = b2 * m + (1 - b2) * v.g
    return v.p - 1e-4 * pt.sign(b1 * m + (1 - b1) * v.g)


def signum(v):
    return v.p - 1e-3 * pt.sign(v.mean(v.g, 0.9))


def adabelief(v, b1=0.9, b2=0.999, epsilon=1e-16):
    m, s = v.mean(v.g, b1), v.state()
    v.by_hand[s] = b2 * s + (1 - b2) * (v.g - m) ** 2 + epsilon
    root = pt.sqrt(v.by_hand[s]) * (1 / pt.sqrt(1 - b2**v.t))
    return v.p - 1e-3 / (1 - b1**v.t) * m / (root + epsilon)


def adan(v, b1=0.98, b2=0.92, b3=0.99):
    last = v.state()
    d = pt.switch(v.first, 0.0, v.g - last)
    v.by_hand[last] = v.g
    m, q, n = v.mean(v.g, b1), v.mean(d, b2), v.mean((v.g + b2 * d) ** 2, b3)
    u = m / (1 - b1**v.t) + b2 * q / (1 - b2**v.t)
    return v.p - 1e-3 * u / (pt.sqrt(n / (1 - b3**v.t)) + 1e-8)


def ademamix(v, b1=0.9, b2=0.999):
    m, slow, s = v.mean(v.g, b1), v.mean(v.g, 0.9999), v.mean(v.g**2, b2)
    return v.p - 1e-3 * (m / (1 - b1**v.t) + 5.0 * slow) / (pt.sqrt(s / (1 - b2**v.t)) + 1e-8)


def adopt(v, b1=0.9, b2=0.9999):
    m, s = v.state(), v.state()
    limit = pt.maximum(v.count, 1).astype("float64") ** 0.25
    n = v.g / pt.maximum(pt.sqrt(pt.switch(v.first, v.g**2, s)), 1e-6)
    n = pt.minimum(pt.maximum(n, -limit), limit)
    v.by_hand[m] = pt.switch(v.first, 0.0, b1 * m + (1 - b1) * n)
    v.by_hand[s] = pt.switch(v.first, v.g**2, b2 * s + (1 - b2) * v.g**2)
    return v.p - pt.switch(v.first, 0.0, 1e-3) * v.by_hand[m]


def mars(v, b1=0.95, b2=0.99):
    last = v.state()
    v.by_hand[last] = v.g
    c = v.g + 0.025 * b1 / (1 - b1) * (v.g - pt.switch(v.first, 0.0, last))
    c = c / pt.maximum(norm(c), 1.0)
    return v.p - 3e-3 / (1 - b1**v.t) * v.mean(c, b1) / (pt.sqrt(v.mean(c**2, b2) / (1 - b2**v.t)) + 1e-8)


def yogi(v, b1=0.9, b2=0.999):
    m, s = v.mean(v.g, b1), v.state()
    last = pt.switch(v.first, 1e-6, s)
    v.by_hand[s] = last - (1 - b2) * pt.sign(last - v.g**2) * v.g**2
    return v.p - 1e-2 / (1 - b1**v.t) * m / (pt.sqrt(v.by_hand[s]) * (1 / pt.sqrt(1 - b2**v.t)) + 1e-3)


def laprop(v, b1=0.9, b2=0.999):
    root = pt.sqrt(v.mean(v.g**2, b2) / (1 - b2**v.t)) + 1e-15
    return v.p - 4e-4 / (1 - b1**v.t) * v.mean(v.g / root, b1)


def qhm(v):
    return v.p - 1e-2 * (0.3 * v.g + 0.7 * v.mean(v.g, 0.999))


def qhadam(v, b1=0.995, b2=0.999):
    root = pt.sqrt(v.mean(v.g**2, b2) / (1 - b2**v.t))
    return v.p - 1e-3 * (0.3 * v.g + 0.7 * v.mean(v.g, b1) / (1 - b1**v.t)) / (root + 1e-8)


def aggmo(v):
    first, second = v.state(), v.state()
    v.by_hand[first], v.by_hand[second] = 0.9 * first + v.g, 0.99 * second + v.g
    return v.p - 1e-2 / 3 * (v.g + v.by_hand[first] + v.by_hand[second])


def madgrad(v):
    s, q = v.state(), v.state()
    rate = (1e-2 + 1e-6) * pt.sqrt(v.t.astype("float64"))
    v.by_hand[s], v.by_hand[q] = s + rate * v.g, q + rate * v.g**2
    return 0.9 * v.p + 0.1 * (v.kept() - quotient(v.by_hand[s], v.by_hand[q] ** (1 / 3) + 1e-6))


def lamb(v, b1=0.9, b2=0.999):
    u = v.mean(v.g, b1) / (1 - b1**v.t) / (pt.sqrt(v.mean(v.g**2, b2) / (1 - b2**v.t)) + 1e-6)
    return v.p - 1e-3 * quotient(norm(v.p), norm(u)) * u


def lars(v):
    b = v.state()
    v.by_hand[b] = 0.9 * b + 1e-3 * quotient(norm(v.p), norm(v.g)) * v.g
    return v.p - v.by_hand[b]


def novograd(v):
    m, s, square = v.state(), v.number(), norm(v.g) ** 2
    v.by_hand[s] = pt.switch(v.first, square, 0.25 * s + 0.75 * square)
    v.by_hand[m] = 0.9 * m + v.g / (pt.sqrt(v.by_hand[s]) + 1e-6)
    return v.p - 1e-3 * v.by_hand[m]


def ftrl(v, a=0.1):
    z, n = v.state(), v.state()
    v.by_hand[n] = n + v.g**2
    v.by_hand[z] = pt.switch(v.first, -v.p / a, z) + v.g - (pt.sqrt(v.by_hand[n]) - pt.sqrt(n)) / a * v.p
    return -v.by_hand[z] / ((1 + pt.sqrt(v.by_hand[n])) / a)


def dog(v):
    r, s, start = v.number(), v.number(), v.kept()
    v.by_hand[r] = pt.maximum(pt.switch(v.first, 1e-6 * (1 + norm(v.p)), r), norm(v.p - start))
    v.by_hand[s] = s + norm(v.g) ** 2
    return v.p - v.by_hand[r] / pt.sqrt(v.by_hand[s] + 1e-8) * v.g


def prodigy(v, b1=0.9, b2=0.999, d0=1e-6):
    d, n, sums, start = v.number(1), v.number(), v.state(), v.kept()
    size, b3 = d * d0, math.sqrt(b2)
    v.by_hand[sums] = b3 * sums + d * size * v.g
    m, s = v.mean(size * v.g, b1), v.mean((size * v.g) ** 2, b2)
    v.by_hand[n] = b3 * n + d * size * pt.sum(v.g * (start - v.p))
    v.by_hand[d] = pt.maximum(d, v.by_hand[n] / (pt.sum(abs(v.by_hand[sums])) * d0))
    return v.p - size * quotient(m, pt.sqrt(s) + v.by_hand[d] * d0 * 1e-8)


def d_adaptation(v, b1=0.9, b2=0.999, d0=1e-6):
    d, n, w, old, sums = v.number(1), v.number(), math.sqrt(b2), v.state(), v.state()
    rate = d * d0 * pt.sqrt(1 - b2**v.t) / (1 - b1**v.t)
    gained = pt.sum(v.g * quotient(sums, pt.sqrt(old) + 1e-8))
    m = v.mean(rate * v.g, b1)
    v.by_hand[old], v.by_hand[sums] = b2 * old + (1 - b2) * v.g**2, w * sums + (1 - w) * rate * v.g
    v.by_hand[n] = w * n + (1 - w) * rate * gained
    v.by_hand[d] = pt.maximum(d, v.by_hand[n] / ((1 - w) * d0 * pt.sum(abs(v.by_hand[sums]))))
    return v.p - quotient(m, pt.sqrt(v.by_hand[old]) + 1e-8)


def adam(v, b1=0.9, b2=0.999):
    m, s = v.mean(v.g, b1), v.mean(v.g**2, b2)
    return v.p - 1e-3 * (m / (1 - b1**v.t)) / (pt.sqrt(s / (1 - b2**v.t)) + 1e-8)


def cautious(v):
    step = v.p - adam(v)
    agree = pt.eq(pt.sign(step) * pt.sign(v.g), 1).astype("float64")
    return v.p - step * agree / pt.maximum(pt.mean(agree), 1e-3)


def schedule_free(v):
    z, x, total = v.state(), v.state(), v.number()
    v.by_hand[total] = total + 1e-4
    c = 1e-4 / v.by_hand[total]
    v.by_hand[z] = pt.switch(v.first, v.p, z) - 1e-2 * v.g
    v.by_hand[x] = (1 - c) * pt.switch(v.first, v.p, x) + c * v.by_hand[z]
    return 0.9 * v.by_hand[x] + 0.1 * v.by_hand[z]


BY_HAND = (
    lion, signum, adabelief, adan, ademamix, adopt, mars, yogi, laprop, qhm, qhadam, aggmo, madgrad, lamb, lars,
    novograd, ftrl, dog, prodigy, d_adaptation, adam, cautious, schedule_free,
)  # fmt: skip
TITLES = {"cautious": "cautious(adam)", "schedule_free": "schedule_free(sgd)"}


def updates_of(name, v):
    """The updates of optapi."""
    if name == "cautious":
        return optapi.cautious(optapi.adam([v.p], gradients=[v.g]), {v.p: v.g})
    if name == "schedule_free":
        return optapi.schedule_free(optapi.sgd([v.p], gradients=[v.g], step_size=1e-2), [v.p], step_size=1e-2)
    return getattr(optapi, name)([v.p], gradients=[v.g])


def made(by_hand, size, *, ours):
    """A compiled step and its parameter."""
    v = Vector(size)
    updates = updates_of(by_hand.__name__, v) if ours else {v.count: v.t, v.p: by_hand(v)} | v.by_hand
    step = pytensor.function([], [], updates=updates, mode="NUMBA")
    step.trust_input = True
    for _ in range(3):
        step()
    return step, v.p


def seconds(step):
    """The processor time of a call."""
    begin = time.process_time()
    step()
    return time.process_time() - begin


def write(lines):
    """Write the page."""
    head, said = __doc__.split("\n\n")
    by = f"By `tests/benchmarks/elementwise.py`, with PyTensor {pytensor.__version__}, in milliseconds."
    said = " ".join(said.split()).split(" With ``--write``")[0].replace("``", "`")
    PAGE.write_text("\n\n".join([f"# {head.split(':')[0]}", f"{by} {said}", "\n".join(lines)]) + "\n")


def main():
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lines = ["| rule | optapi | by hand | ratio |", "|---|--:|--:|--:|"]
    for by_hand in BY_HAND:
        name = by_hand.__name__
        if arguments.names and name not in arguments.names:
            continue
        steps, points = zip(*(made(by_hand, SIZE, ours=ours) for ours in (True, False)), strict=True)
        np.testing.assert_allclose(*(p.get_value(borrow=True) for p in points), rtol=1e-8, atol=1e-10, err_msg=name)
        times = np.array([[seconds(step) for step in steps] for _ in range(ROUNDS)]).min(axis=0)
        row = f"| `{TITLES.get(name, name)}` | {1e3 * times[0]:.1f} | {1e3 * times[1]:.1f} |"
        lines.append(f"{row} {times[0] / times[1]:.2f} |")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    if arguments.write:
        write(lines)


if __name__ == "__main__":
    main()
