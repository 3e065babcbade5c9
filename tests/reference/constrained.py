"""Sequential quadratic programming in NumPy, with each quadratic program solved by trying all active sets."""

from itertools import product

import numpy as np


def quadratic_program(B, g, R, low, high):
    """The minimizer of x'Bx/2 + g'x with low <= Rx <= high, and the multipliers of the rows; B positive definite."""
    n = len(g)
    sides = [
        (0,) if a == b else (None, *(s for s, v in ((0, a), (1, b)) if np.isfinite(v)))
        for a, b in zip(low, high, strict=True)
    ]
    for chosen in product(*sides):
        active = [i for i, side in enumerate(chosen) if side is not None]
        values = [(low, high)[chosen[i]][i] for i in active]
        A = R[active]
        K = np.block([[B, -A.T], [A, np.zeros((len(active), len(active)))]])
        try:
            both = np.linalg.solve(K, np.concatenate([-g, values]))
        except np.linalg.LinAlgError:
            continue
        x, y = both[:n], np.zeros(len(low))
        y[active] = both[n:]
        feasible = np.all(R @ x >= low - 1e-9) and np.all(R @ x <= high + 1e-9)
        signs = all(low[i] == high[i] or (y[i] >= -1e-9 if chosen[i] == 0 else y[i] <= 1e-9) for i in active)
        if feasible and signs:
            return x, y
    raise AssertionError("no active set is optimal")


def sqp(x, cost, gradient, values, jacobian, low, high, steps):
    """The points after each of so many iterations, without the correction of second order, and the multipliers."""
    n, m = len(x), len(low)
    B, nu, points, is_first = np.eye(n), np.zeros(m), [], True

    def excess(c):
        return c - np.clip(c, low, high)

    for _ in range(steps):
        g, c, J = gradient(x), values(x), jacobian(x)
        v = excess(c)
        rho = 1e8 * max(1, abs(g).max())
        H = np.block([[B, np.zeros((n, 1))], [np.zeros((1, n)), rho]])
        R = np.vstack([np.hstack([J, -v[:, None]]), np.eye(n + 1)[-1:]])
        both, y = quadratic_program(H, np.append(g, 0), R, np.append(low - c, 0), np.append(high - c, 1))
        d, relaxed, y = both[:n], both[n], y[:m]
        nu = np.maximum(abs(y), (nu + abs(y)) / 2)
        gained = (1 - relaxed) * abs(v).sum() / 2
        if gained > 0:
            nu = np.maximum(nu, (g @ d + d @ B @ d / 2) / gained)
        level, slope = cost(x) + nu @ abs(v), g @ d - (1 - relaxed) * nu @ abs(v)
        a = 1.0
        while True:
            trial = x + a * d
            value = cost(trial) + nu @ abs(excess(values(trial)))
            if value <= level + 1e-4 * a * slope + 1e-15:
                break
            curved = (value - level) / a - slope
            a *= np.clip(-slope / (2 * curved), 0.2, 0.5)
        s = trial - x
        change = gradient(trial) - jacobian(trial).T @ y - (g - J.T @ y)
        if is_first and s @ change > 0:
            B = np.clip(change @ change / (s @ change), 1e-6, 1e6) * np.eye(n)
        is_first = False
        Bs = B @ s
        theta = 1.0 if s @ change >= 0.2 * (s @ Bs) else 0.8 * (s @ Bs) / (s @ Bs - s @ change)
        change = theta * change + (1 - theta) * Bs
        B = B - np.outer(Bs, Bs) / (s @ Bs) + np.outer(change, change) / (s @ change)
        x = trial
        points.append(x)
    return points, y
