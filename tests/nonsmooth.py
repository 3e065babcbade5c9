"""Problems with a penalty or a set, on data of scikit-learn, with minima that a duality gap certifies.

The relative gaps are at most 2e-15. The problems are the lasso, the elastic net, non-negative least squares, the group
lasso, and the L1 logistic regression with and without an intercept, which is not penalized.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from optapi import PYTHON, prox


@dataclass(frozen=True, eq=False)
class NonSmooth:
    """A smooth cost, and a penalty or a set.

    Attributes
    ----------
    cost : callable
        From the symbolic point to the smooth part of the cost.
    l1 : float, array or None
        The weights of the L1 penalty; None if there is another one.
    penalty : Penalty
    minimum : float
    support : list of int
        The components that are not 0 at the minimizer.
    """

    name: str
    size: int
    cost: Callable
    l1: Any
    penalty: Any
    minimum: float
    support: list[int]

    def __str__(self):
        return self.name

    @cached_property
    def evaluate(self):
        """A compiled function from a point to the whole cost."""
        x = pt.vector("x", shape=(self.size,), dtype="float64")
        return pytensor.function([x], self.cost(x) + self.penalty.value(x), mode=PYTHON)

    def excess(self, x):
        """How much higher than the minimum the cost is, relative to it."""
        return float(self.evaluate(np.asarray(x, float)) - self.minimum) / self.minimum


@cache
def data(name):
    """The columns, of mean 0 and variance 1, and what is to be predicted."""
    datasets = pytest.importorskip("sklearn.datasets")
    if name.startswith("diabetes"):
        X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
        if name == "diabetes2":  # with all products of two columns
            X = standardized(X)
            i, j = np.triu_indices(X.shape[1])
            X = np.hstack([X, X[:, i] * X[:, j]])
        return standardized(X), y - y.mean()
    load, chosen = {
        "cancer": (datasets.load_breast_cancer, 1),
        "wine": (datasets.load_wine, 0),
        "digits": (datasets.load_digits, 8),
    }[name]
    X, y = load(return_X_y=True)
    return standardized(X[:, X.std(axis=0) > 0]), np.where(y == chosen, 1.0, -1.0)


def standardized(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def squares(X, y, ridge=0.0):
    return lambda x: pt.sum((pt.dot(X, x) - y) ** 2) / 2 + ridge * pt.sum(x**2) / 2


def logistic(X, y):
    return lambda x: pt.sum(pt.softplus(-y * pt.dot(X, x)))


# With the share of the largest weight, the minimum, and where the minimizer is not 0.
ROWS = [
    ("group_diabetes_0.3", "diabetes", 0.3, 1021666.903906463, "0011000111"),
    ("logistic_wine_0.01", "wine", 0.01, 15.449024642115347, "1111101000011"),
    ("logistic_bias_digits_0.1", "digits", 0.1, 314.62464796697066,
     "00000101010110000100110000100001111110010010000111000001010101"),
    ("logistic_cancer_0.01", "cancer", 0.01, 61.60721193207095, "010000010010001100011101101110"),
    ("logistic_cancer_0.1", "cancer", 0.1, 178.4637024172778, "000000010010000000001101100110"),
    ("logistic_bias_digits_0.01", "digits", 0.01, 160.6410466177956,
     "01110101110111011110111111111101110110111110001111100001111101"),
    ("lasso_diabetes2_0.01", "diabetes2", 0.01, 596176.352138596,
     "11111011111101011011111011101111000011101001010110000100101111011"),
    ("elastic_diabetes_0.01", "diabetes", 0.01, 655955.907110685, "0111101111"),
    ("elastic_diabetes2_0.1", "diabetes2", 0.1, 795222.0068611581,
     "01110010110101000001100000000110000000000000000000000000000000001"),
    ("elastic_diabetes2_0.01", "diabetes2", 0.01, 597243.1711141515,
     "11111011111101011011111011101111000010101001010110000100101111011"),
    ("lasso_diabetes2_0.5", "diabetes2", 0.5, 1164911.2683020886,
     "00100000100000000000000000000000000000000000000000000000000000000"),
    ("logistic_digits_0.01", "digits", 0.01, 1071.849054488932,
     "0111111111111111111111111111111111111111111111111111011111101"),
    ("nnls_diabetes", "diabetes", None, 679393.4882206647, "0011000111"),
]  # fmt: skip
GROUPS = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 3])


@cache
def problem(name):
    """The problem of this name."""
    _, which, share, minimum, bits = next(row for row in ROWS if row[0] == name)
    (X, y), kind, support = data(which), name.split("_")[0], [i for i, bit in enumerate(bits) if bit == "1"]
    largest = {"diabetes": 19960.7332690446, "diabetes2": 19960.7332690446, "wine": 69.29553194402307}
    largest |= {"cancer": 218.31576610777654, "digits": 138.05877730325807}
    weight = None if share is None else share * largest[which]
    if kind == "group":
        penalty = prox.GroupL2(5300.019931538129, groups=GROUPS)
        return NonSmooth(name, X.shape[1], squares(X, y), None, penalty, minimum, support)
    if kind == "nnls":
        return NonSmooth(name, X.shape[1], squares(X, y), None, prox.NonNegative(), minimum, support)
    if kind == "logistic":
        l1: Any = weight
        if "bias" in name:
            X = np.hstack([X, np.ones((len(X), 1))])
            l1 = np.append(np.full(X.shape[1] - 1, weight), 0.0)
        return NonSmooth(name, X.shape[1], logistic(X, y), l1, prox.L1(l1), minimum, support)
    ridge = 100 * share if kind == "elastic" else 0.0
    return NonSmooth(name, X.shape[1], squares(X, y, ridge), weight, prox.L1(weight), minimum, support)


NAMES = [row[0] for row in ROWS]
