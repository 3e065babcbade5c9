"""Problems with general constraints, and their minima.

From Hock and Schittkowski (1981), Test examples for nonlinear programming codes. A function of the symbolic point is
the cost with the equalities and the inequalities, which are to be 0 and to be at least 0. Two minima are lower than
those of the book: of HS106 and HS112.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import pytensor
import pytensor.tensor as pt
from bounded import FREE, Bounded, banana

from optapi import PYTHON


@dataclass(frozen=True, eq=False)
class Constrained(Bounded):
    """A cost with constraints and bounds; `cost` returns the cost, the equalities and the inequalities."""

    @property
    def is_bounded(self):
        """Whether there are bounds."""
        return bool(np.isfinite([self.low, self.high]).any())

    def on(self, x):
        """The cost, and the constraints as a rule takes them, of a variable."""
        cost, equalities, inequalities = self.cost(x)
        return cost, [*((c, 0) for c in equalities), *((c, 0, None) for c in inequalities)]

    def compiled(self, mode=PYTHON):
        """Functions for SciPy: the cost with its gradient, and dictionaries of constraints."""
        x = pt.vector("x", shape=self.start.shape, dtype="float64")
        cost, *parts = self.cost(x)

        def function(outputs):
            return pytensor.function([x], outputs, mode=mode, on_unused_input="ignore")

        def gradient(scalar):
            return pytensor.grad(scalar, x, disconnected_inputs="ignore")

        dictionaries = [
            {
                "type": kind,
                "fun": function(pt.stack([pt.as_tensor(c) for c in part])),
                "jac": function(pt.stack([gradient(c) for c in part])),
            }
            for kind, part in zip(("eq", "ineq"), parts, strict=True)
            if part
        ]
        return function([cost, gradient(cost)]), dictionaries


PROBLEMS: list[Constrained] = []


def problem(name, start, minimum, low=-FREE, high=FREE, others=()):
    """What adds the problem whose cost and constraints the function that follows makes."""

    def added(cost):
        x = np.asarray(start, float)
        sides = (np.broadcast_to(np.asarray(side, float), x.shape).copy() for side in (low, high))
        PROBLEMS.append(Constrained(f"HS{name}", x, *sides, cost, minimum, others))
        return cost

    return added


@problem(8, [2, 1], -1.0)
def _(x):
    return -1 + 0 * x[0], [pt.sum(x**2) - 25, x[0] * x[1] - 9], []


@problem(10, [-10, 10], -1.0)
def _(x):
    return x[0] - x[1], [], [1 - 3 * x[0] ** 2 + 2 * x[0] * x[1] - x[1] ** 2]


@problem(15, [-2, 1], 306.5, high=[0.5, FREE], others=(360.379767,))
def _(x):
    return banana(x), [], [x[0] * x[1] - 1, x[0] + x[1] ** 2]


@problem(18, [2, 2], 5.0, low=[2, 0], high=50)
def _(x):
    return 0.01 * x[0] ** 2 + x[1] ** 2, [], [x[0] * x[1] - 25, pt.sum(x**2) - 25]


@problem(20, [-2, 1], 81.5 - 25 * sqrt(3), low=[-0.5, -FREE], high=[0.5, FREE], others=(40.19872978,))
def _(x):
    return banana(x), [], [x[0] + x[1] ** 2, x[0] ** 2 + x[1], pt.sum(x**2) - 1]


@problem(23, [3, 1], 2.0, low=-50, high=50)
def _(x):
    a, b = x[0], x[1]
    return pt.sum(x**2), [], [a + b - 1, pt.sum(x**2) - 1, 9 * a**2 + b**2 - 9, a**2 - b, b**2 - a]


@problem(24, [1, 0.5], -1.0, low=0, others=(0.0,))
def _(x):
    cost = ((x[0] - 3) ** 2 - 9) * x[1] ** 3 / (27 * sqrt(3))
    return cost, [], [x[0] / sqrt(3) - x[1], x[0] + sqrt(3) * x[1], 6 - x[0] - sqrt(3) * x[1]]


@problem(26, [-2.6, 2, 2], 0.0)
def _(x):
    return (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4, [(1 + x[1] ** 2) * x[0] + x[2] ** 4 - 3], []


@problem(27, [2, 2, 2], 0.04)
def _(x):
    return 0.01 * (x[0] - 1) ** 2 + (x[1] - x[0] ** 2) ** 2, [x[0] + x[2] ** 2 + 1], []


@problem(29, [1, 1, 1], -16 * sqrt(2))
def _(x):
    return -pt.prod(x), [], [48 - pt.sum(np.array([1, 2, 4]) * x**2)]


@problem(31, [1, 1, 1], 6.0, low=[-10, 1, -10], high=[10, 10, 1])
def _(x):
    return pt.sum(np.array([9, 1, 9]) * x**2), [], [x[0] * x[1] - 1]


@problem(32, [0.1, 0.7, 0.2], 1.0, low=0)
def _(x):
    cost = (x[0] + 3 * x[1] + x[2]) ** 2 + 4 * (x[0] - x[1]) ** 2
    return cost, [1 - pt.sum(x)], [6 * x[1] + 4 * x[2] - x[0] ** 3 - 3]


@problem(34, [0, 1.05, 2.9], -log(log(10)), low=0, high=[100, 100, 10])
def _(x):
    return -x[0], [], [x[1] - pt.exp(x[0]), x[2] - pt.exp(x[1])]


@problem(36, [10, 10, 10], -3300.0, low=0, high=[20, 11, 42])
def _(x):
    return -pt.prod(x), [], [72 - x[0] - 2 * x[1] - 2 * x[2]]


@problem(37, [10, 10, 10], -3456.0, low=0, high=42)
def _(x):
    total = x[0] + 2 * x[1] + 2 * x[2]
    return -pt.prod(x), [], [72 - total, total]


@problem(39, [2, 2, 2, 2], -1.0)
def _(x):
    return -x[0], [x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2], []


@problem(40, [0.8, 0.8, 0.8, 0.8], -0.25)
def _(x):
    return -pt.prod(x), [x[0] ** 3 + x[1] ** 2 - 1, x[0] ** 2 * x[3] - x[2], x[3] ** 2 - x[1]], []


@problem(43, [0, 0, 0, 0], -44.0)
def _(x):
    squares = np.array([[1, 1, 1, 1], [1, 2, 1, 2], [2, 1, 1, 0]])
    linear = np.array([[1, -1, 1, -1], [-1, 0, 0, -1], [2, -1, 0, -1]])
    values = np.array([8, 10, 5]) - pt.sum(squares * x**2, axis=1) - pt.sum(linear * x, axis=1)
    cost = pt.sum(np.array([1, 1, 2, 1]) * x**2) + pt.sum(np.array([-5, -5, -21, 7]) * x)
    return cost, [], [values[i] for i in range(3)]


def powers(x, shift):
    """What HS46 and HS77 have in common."""
    return (x[0] - x[1]) ** 2 + (x[2] - 1) ** 2 + (x[3] - 1) ** 4 + (x[4] - 1) ** 6 + shift * (x[0] - 1) ** 2


@problem(46, [sqrt(2) / 2, 1.75, 0.5, 2, 2], 0.0)
def _(x):
    return powers(x, 0), [x[0] ** 2 * x[3] + pt.sin(x[3] - x[4]) - 1, x[1] + x[2] ** 4 * x[3] ** 2 - 2], []


@problem(52, [2, 2, 2, 2, 2], 1859 / 349)
def _(x):
    cost = (4 * x[0] - x[1]) ** 2 + (x[1] + x[2] - 2) ** 2 + (x[3] - 1) ** 2 + (x[4] - 1) ** 2
    return cost, [x[0] + 3 * x[1], x[2] + x[3] - 2 * x[4], x[1] - x[4]], []


@problem(57, [0.42, 5], 0.02845966972, low=[0.4, -4], others=(0.0306476,))
def _(x):
    counts = {8: 2, 10: 4, 12: 4, 14: 3, 16: 3, 18: 2, 20: 3, 22: 3, 24: 3, 26: 3, 28: 2, 30: 3, 32: 2, 34: 1, 36: 2}
    counts |= {38: 2, 40: 1, 42: 1}
    weeks = np.repeat(list(counts), list(counts.values())).astype(float)
    chlorine = np.repeat([
        49, 48, 47, 48, 47, 46, 45, 43, 45, 43, 44, 43, 46, 45, 42, 43,
        41, 40, 42, 40, 41, 40, 41, 40, 38, 41, 40, 41, 38, 40, 39,
    ], [2, 1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 2, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 3, 1, 1, 2, 1, 1, 2, 2])  # fmt: skip
    residuals = chlorine / 100 - x[0] - (0.49 - x[0]) * pt.exp(-x[1] * (weeks - 8))
    return pt.sum(residuals**2), [], [0.49 * x[1] - x[0] * x[1] - 0.09]


@problem(60, [2, 2, 2], 0.03256820025, low=-10, high=10)
def _(x):
    cost = (x[0] - 1) ** 2 + (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4
    return cost, [x[0] * (1 + x[1] ** 2) + x[2] ** 4 - 4 - 3 * sqrt(2)], []


@problem(61, [0, 0, 0], -143.6461422)
def _(x):
    cost = pt.sum(np.array([4, 2, 2]) * x**2) + pt.sum(np.array([-33, 16, -24]) * x)
    return cost, [3 * x[0] - 2 * x[1] ** 2 - 7, 4 * x[0] - x[2] ** 2 - 11], []


@problem(63, [2, 2, 2], 961.7151721, low=0)
def _(x):
    cost = 1000 - pt.sum(np.array([1, 2, 1]) * x**2) - x[0] * (x[1] + x[2])
    return cost, [8 * x[0] + 14 * x[1] + 7 * x[2] - 56, pt.sum(x**2) - 25], []


@problem(64, [1, 1, 1], 6299.842428, low=1e-5)
def _(x):
    cost = pt.sum(np.array([5, 20, 10]) * x) + pt.sum(np.array([50000, 72000, 144000]) / x)
    return cost, [], [1 - pt.sum(np.array([4, 32, 120]) / x)]


@problem(65, [-5, 5, 0], 0.9535288567, low=[-4.5, -4.5, -5], high=[4.5, 4.5, 5])
def _(x):
    return (x[0] - x[1]) ** 2 + (x[0] + x[1] - 10) ** 2 / 9 + (x[2] - 5) ** 2, [], [48 - pt.sum(x**2)]


@problem(72, [1, 1, 1, 1], 727.67937, low=0.001, high=[4e5, 3e5, 2e5, 1e5])
def _(x):
    loads = np.array([[4, 2.25, 1, 0.25], [0.16, 0.36, 0.64, 0.64]])
    values = np.array([0.0401, 0.010085]) - pt.sum(loads / x, axis=1)
    return 1 + pt.sum(x), [], [values[0], values[1]]


@problem(74, [0, 0, 0, 0], 5126.4981, low=[0, 0, -0.55, -0.55], high=[1200, 1200, 0.55, 0.55])
def _(x):
    def flow(*angles):
        return 1000 * sum(pt.sin(angle - 0.25) for angle in angles)

    a, b = x[2], x[3]
    balances = [flow(-a, -b) + 894.8 - x[0], flow(a, a - b) + 894.8 - x[1], flow(b, b - a) + 1294.8]
    return 3 * x[0] + 1e-6 * x[0] ** 3 + 2 * x[1] + 2e-6 / 3 * x[1] ** 3, balances, [b - a + 0.55, a - b + 0.55]


@problem(76, [0.5, 0.5, 0.5, 0.5], -4.681818181, low=0)
def _(x):
    cost = pt.sum(np.array([1, 0.5, 1, 0.5]) * x**2) + x[2] * (x[3] - x[0]) + pt.sum(np.array([-1, -3, 1, -1]) * x)
    rows = pt.sum(np.array([[-1, -2, -1, -1], [-3, -1, -2, 1], [0, 1, 4, 0]]) * x, axis=1) + np.array([5, 4, -1.5])
    return cost, [], [rows[i] for i in range(3)]


@problem(77, [2, 2, 2, 2, 2], 0.24150513)
def _(x):
    first = x[0] ** 2 * x[3] + pt.sin(x[3] - x[4]) - 2 * sqrt(2)
    return powers(x, 1), [first, x[1] + x[2] ** 4 * x[3] ** 2 - 8 - sqrt(2)], []


@problem(79, [2, 2, 2, 2, 2], 0.0787768209)
def _(x):
    cost = (x[0] - 1) ** 2 + (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 2 + (x[2] - x[3]) ** 4 + (x[3] - x[4]) ** 4
    first = x[0] + x[1] ** 2 + x[2] ** 3 - 2 - 3 * sqrt(2)
    return cost, [first, x[1] - x[2] ** 2 + x[3] + 2 - 2 * sqrt(2), x[0] * x[4] - 2], []


@problem(81, [-2, 2, 2, -1, -1], 0.0539498478, low=[-2.3, -2.3, -3.2, -3.2, -3.2], high=[2.3, 2.3, 3.2, 3.2, 3.2])
def _(x):
    cubes = x[0] ** 3 + x[1] ** 3 + 1
    return pt.exp(pt.prod(x)) - cubes**2 / 2, [pt.sum(x**2) - 10, x[1] * x[2] - 5 * x[3] * x[4], cubes], []


@problem(83, [78, 33, 27, 27, 27], -30665.53867, low=[78, 33, 27, 27, 27], high=[102, 45, 45, 45, 45])
def _(x):
    a, b, c, d, e = (x[i] for i in range(5))
    values = [
        85.334407 + 0.0056858 * b * e + 0.0006262 * a * d - 0.0022053 * c * e,
        80.51249 + 0.0071317 * b * e + 0.0029955 * a * b + 0.0021813 * c**2 - 90,
        9.300961 + 0.0047026 * c * e + 0.0012547 * a * c + 0.0019085 * c * d - 20,
    ]
    cost = 5.3578547 * c**2 + 0.8356891 * a * e + 37.293239 * a - 40792.141
    return cost, [], [*values, *(limit - value for limit, value in zip((92, 20, 5), values, strict=True))]


@problem(
    106, [5000, 5000, 5000, 200, 350, 150, 225, 425], 7049.248020,
    low=[100, 1000, 1000, 10, 10, 10, 10, 10], high=[10000] * 3 + [1000] * 5,
)  # fmt: skip
def _(x):
    linear = [1 - 0.0025 * (x[3] + x[5]), 1 - 0.0025 * (x[4] + x[6] - x[3]), 1 - 0.01 * (x[7] - x[4])]
    products = [
        x[0] * x[5] - 833.33252 * x[3] - 100 * x[0] + 83333.333,
        x[1] * x[6] - 1250 * x[4] - x[1] * x[3] + 1250 * x[3],
        x[2] * x[7] - 1250000 - x[2] * x[4] + 2500 * x[4],
    ]
    return x[0] + x[1] + x[2], [], linear + products


@problem(108, [1] * 9, -sqrt(3) / 2, low=[-FREE] * 8 + [0], others=(-0.6749814, -0.5))
def _(x):
    def inside(*lengths):
        return 1 - sum(length**2 for length in lengths)

    areas = [x[0] * x[3] - x[1] * x[2], x[2] * x[8], -x[4] * x[8], x[4] * x[7] - x[5] * x[6]]
    circles = [
        inside(x[2], x[3]), inside(x[8]), inside(x[4], x[5]), inside(x[0], x[1] - x[8]),
        *(inside(x[i] - x[j], x[i + 1] - x[j + 1]) for i, j in ((0, 4), (0, 6), (2, 4), (2, 6))),
        inside(x[6], x[7] - x[8]),
    ]  # fmt: skip
    return -sum(areas) / 2, [], circles + areas


@problem(112, [0.1] * 10, -47.76109026, low=1e-6)
def _(x):
    energies = np.array([-6.089, -17.164, -34.054, -5.914, -24.721, -14.986, -24.1, -10.708, -26.662, -22.179])
    atoms = [
        x[0] + 2 * x[1] + 2 * x[2] + x[5] + x[9] - 2,
        x[3] + 2 * x[4] + x[5] + x[6] - 1,
        x[2] + x[6] + x[7] + 2 * x[8] + x[9] - 1,
    ]
    return pt.sum(x * (energies + pt.log(x / pt.sum(x)))), atoms, []


@problem(113, [2, 3, 5, 5, 1, 2, 7, 3, 6, 10], 24.3062091)
def _(x):
    a, b = x[0], x[1]
    weights, centers = np.array([1, 4, 1, 2, 5, 7, 2, 1]), np.array([10, 5, 3, 1, 0, 11, 10, 7])
    cost = a**2 + b**2 + a * b - 14 * a - 16 * b + pt.sum(weights * (x[2:] - centers) ** 2) + 45
    rows = [
        105 - 4 * a - 5 * b + 3 * x[6] - 9 * x[7],
        -10 * a + 8 * b + 17 * x[6] - 2 * x[7],
        8 * a - 2 * b - 5 * x[8] + 2 * x[9] + 12,
        -3 * (a - 2) ** 2 - 4 * (b - 3) ** 2 - 2 * x[2] ** 2 + 7 * x[3] + 120,
        -5 * a**2 - 8 * b - (x[2] - 6) ** 2 + 2 * x[3] + 40,
        -0.5 * (a - 8) ** 2 - 2 * (b - 4) ** 2 - 3 * x[4] ** 2 + x[5] + 30,
        -(a**2) - 2 * (b - 2) ** 2 + 2 * a * b - 14 * x[4] + 6 * x[5],
        3 * a - 6 * b - 12 * (x[8] - 8) ** 2 + 7 * x[9],
    ]
    return cost, [], rows


@problem(
    118, [20, 55, 15] + [20, 60, 20] * 4, 664.82045, low=[8, 43, 3] + [0] * 12, high=[21, 57, 16] + [90, 120, 60] * 4
)
def _(x):
    months = x.reshape((5, 3))
    changes = (months[1:] - months[:-1] + 7).ravel()
    cost = pt.sum(np.array([2.3, 1.7, 2.2]) * months + np.array([1e-4, 1e-4, 1.5e-4]) * months**2)
    demands = pt.sum(months, axis=1) - np.array([60, 50, 70, 85, 100])
    rows = pt.concatenate([changes, np.array([13, 14, 13] * 4) - changes, demands])
    return cost, [], [rows[i] for i in range(29)]
