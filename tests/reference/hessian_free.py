"""Plain NumPy twins of the Hessian-free rules, with matrices, written from the papers; and a small network for them."""

from typing import NamedTuple

import numpy as np


EPSILON = np.finfo(float).eps


class Network:
    """z = tanh(X V) w with the logistic loss of labels 0 and 1, a mean over rows, at a vector of V and w."""

    def __init__(self, rows=60, inputs=5, units=8, seed=0):
        rng = np.random.default_rng(seed)
        self.X, self.y = rng.normal(size=(rows, inputs)), rng.integers(0, 2, size=rows)
        self.shape = inputs, units
        self.start = rng.normal(size=inputs * units + units)

    def __call__(self, x):
        V, w = x[: -self.shape[1]].reshape(self.shape), x[-self.shape[1] :]
        h = np.tanh(self.X @ V)
        return h, h @ w, w

    def cost(self, x):
        _, z, _ = self(x)
        return np.mean(np.logaddexp(0, z) - self.y * z)

    def jacobian(self, x):
        """Of z by the point."""
        h, _, w = self(x)
        return np.hstack([(self.X[:, :, None] * (w * (1 - h**2))[:, None]).reshape(len(h), -1), h])

    def hidden_jacobian(self, x):
        """Of the hidden units, over the root of the number of rows."""
        h, _, _ = self(x)
        by_V = self.X[:, None, :, None] * (np.eye(self.shape[1]) * (1 - h**2)[:, :, None])[:, :, None, :]
        by_V = by_V.reshape(h.size, -1)
        return np.hstack([by_V, np.zeros((h.size, self.shape[1]))]) / np.sqrt(len(h))

    def slopes(self, x):
        return 1 / (1 + np.exp(-self(x)[1])) - self.y

    def gradient(self, x):
        return self.jacobian(x).T @ self.slopes(x) / len(self.y)

    def curvature(self, x):
        """The Gauss-Newton matrix."""
        J, p = self.jacobian(x), self.slopes(x) + self.y
        return J.T @ (J * (p * (1 - p))[:, None]) / len(p)

    def squares(self, x):
        """The means over rows of squared gradients."""
        return np.mean((self.jacobian(x) * self.slopes(x)[:, None]) ** 2, axis=0)


class Step(NamedTuple):
    """What a step of `hessian_free` leads to, with the counts of products and of costs at other points."""

    x: np.ndarray
    solution: np.ndarray
    damping: float
    products: int
    tried: int


def conjugate_gradients(A, b, d, P, steps, progress):
    """Martens (2010), algorithm 2 with section 4.4; the iterates by their counts, the last of them, and products."""
    begun = bool(np.any(d))
    r = A @ d - b
    p, models, kept, i = -r / P, {}, {}, 0
    marks = {int(np.ceil(5 * 1.3**j)) for j in range(30)}
    while i < steps:
        i += 1
        Ap = A @ p
        assert p @ Ap > 0
        a = (r @ (r / P)) / (p @ Ap)
        d, new = d + a * p, r + a * Ap
        p, r = -new / P + (new @ (new / P)) / (r @ (r / P)) * p, new
        models[i] = (r - b) @ d / 2
        if i in marks:
            kept[i] = d
        k = max(10, int(np.ceil(0.1 * i)))
        if i > k and models[i - k] < 0 and (models[i] - models[i - k]) / models[i] < k * progress:
            break
        if np.linalg.norm(r) <= EPSILON * np.linalg.norm(b):
            break
    return [*(kept[j] for j in kept if j != i), d], i + begun


def hessian_free_step(
    f, x, solution, damping, *, decay=0.95, steps=250, progress=5e-4, diagonal=None, exponent=0.75, mu=0.0, growth=1.5
):
    """Martens (2010), algorithm 2, with sections 4.1 to 4.7, and Martens and Sutskever (2011) for `mu`."""
    g, G = f.gradient(x), f.curvature(x)
    A = G + damping * np.eye(x.size)
    if mu:
        J = f.hidden_jacobian(x)
        A = A + damping * mu * J.T @ J
    P = np.ones_like(g) if diagonal is None else (diagonal(x) + damping) ** exponent
    iterates, products = conjugate_gradients(A, -g, decay * solution, P, steps, progress)
    costs, d = [f.cost(x + iterates[-1])], iterates[-1]
    for before in reversed(iterates[:-1]):
        costs.append(f.cost(x + before))
        if not costs[-1] <= min(costs[:-1]):
            break
        d = before
    ratio = (min(costs) - f.cost(x)) / (d @ G @ d / 2 + g @ d)
    a = 1.0
    while not f.cost(x + a * d) <= f.cost(x) + 1e-2 * a * (g @ d):
        a *= 0.8
        costs.append(np.inf)
    damping = damping * growth if ratio < 0.25 else damping / growth if ratio > 0.75 else damping
    return Step(x + a * d, iterates[-1], damping, products + bool(mu), len(costs) + 1)


def krylov_subspace(f, x, step, k):
    """Vinyals and Povey (2012), section 3: an orthonormal basis, as columns."""
    g, G = f.gradient(x), f.curvature(x)
    columns = [np.linalg.matrix_power(G, i) @ g for i in range(k)]
    return np.linalg.qr(np.stack([*columns, step] if np.any(step) else columns, axis=1))[0]
