"""Test problems: a symbolic cost, and the same cost with its gradients in NumPy, written by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
from sklearn.datasets import load_breast_cancer


@dataclass(frozen=True, eq=False)
class Problem:
    """A cost of a list of parameters, and where to start."""

    name: str
    starts: list[np.ndarray]
    cost: Callable
    value_and_gradients: Callable

    def gradients(self, x):
        """Only the gradients, in NumPy."""
        return self.value_and_gradients(x)[1]

    def __str__(self):
        return self.name


def quadratic(n=6, smallest=0.01, largest=10.0):
    """Half x'Ax - b'x, with the eigenvalues of A evenly spaced on a logarithmic scale."""
    v = np.arange(1.0, n + 1)
    Q = np.eye(n) - 2 * np.outer(v, v) / (v @ v)
    A = (Q * np.geomspace(smallest, largest, n)) @ Q
    A, b = (A + A.T) / 2, np.cos(v)

    def cost(parameters):
        (x,) = parameters
        return pt.sum(x * pt.dot(A, x)) / 2 - pt.sum(b * x)

    def value_and_gradients(arrays):
        (x,) = arrays
        return x @ A @ x / 2 - b @ x, [A @ x - b]

    return Problem("quadratic", [np.ones(n)], cost, value_and_gradients)


def rosenbrock(n=6):
    """Sum of 100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2."""

    def cost(parameters):
        (x,) = parameters
        return pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    def value_and_gradients(arrays):
        (x,) = arrays
        u, v = x[1:] - x[:-1] ** 2, 1 - x[:-1]
        g = np.zeros_like(x)
        g[1:] += 200 * u
        g[:-1] -= 400 * u * x[:-1] + 2 * v
        return np.sum(100 * u**2 + v**2), [g]

    start = np.where(np.arange(n) % 2 == 0, -1.2, 1.0)
    return Problem("rosenbrock", [start], cost, value_and_gradients)


def logistic(columns=10, penalty=0.01):
    """Logistic regression on the breast cancer data: weights and an intercept, the weights with an L2 penalty."""
    data = load_breast_cancer()
    X = data.data[:, :columns]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    sign = 2.0 * data.target - 1

    def cost(parameters):
        w, b = parameters
        return pt.mean(pt.softplus(-sign * (pt.dot(X, w) + b))) + penalty / 2 * pt.sum(w**2)

    def value_and_gradients(arrays):
        w, b = arrays
        margin = sign * (X @ w + b)
        slope = -sign / (1 + np.exp(margin)) / sign.size
        value = np.mean(np.logaddexp(0, -margin)) + penalty / 2 * w @ w
        return value, [X.T @ slope + penalty * w, np.sum(slope)]

    return Problem("logistic", [np.zeros(columns), np.array(0.0)], cost, value_and_gradients)


PROBLEMS = [quadratic(), rosenbrock(), logistic()]
