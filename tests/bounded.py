"""Problems with bounds, and their minima.

From Hock and Schittkowski (1981), Test examples for nonlinear programming codes (HS), Schittkowski (1987), More test
examples for nonlinear programming codes, the CUTEst collection (Gould, Orban and Toint 2015), Dixon and Szegö (1978),
Towards global optimization 2, and NIST's certified data of weeds. A function of the symbolic point is the cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytensor
import pytensor.tensor as pt

from optapi import PYTHON


@dataclass(frozen=True, eq=False)
class Bounded:
    """A cost with bounds.

    Attributes
    ----------
    start, low, high : array
        One number for each component; infinite where there is no bound. A start may be outside.
    cost : callable
        From the symbolic point to the symbolic cost.
    minimum : float
        The lowest cost.
    others : tuple of float
        Those of other local minima in which a solver may end from this start.
    """

    name: str
    start: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cost: Callable
    minimum: float
    others: tuple[float, ...] = ()

    def __str__(self):
        return self.name

    @cached_property
    def evaluate(self):
        """A compiled function from a point to the cost and its gradient there."""
        x = pt.dvector("x")
        cost = self.cost(x)
        return pytensor.function([x], [cost, pytensor.grad(cost, x)], mode=PYTHON)

    def reached(self, value, tolerance=1e-6):
        """The minimum that `value` is at, else None."""
        for minimum, error in ((self.minimum, tolerance), *((other, 1e-3) for other in self.others)):
            if abs(value - minimum) <= error * max(1.0, abs(minimum)):
                return minimum
        return None


PROBLEMS: list[Bounded] = []


def problem(name, start, low, high, minimum, others=()):
    """What adds the problem whose cost the function that follows is."""

    def added(cost):
        x = np.asarray(start, float)
        sides = (np.broadcast_to(np.asarray(side, float), x.shape).copy() for side in (low, high))
        PROBLEMS.append(Bounded(name, x, *sides, cost, minimum, others))
        return cost

    return added


FREE = np.inf


def banana(x):
    """Rosenbrock's function, of any dimension."""
    return pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


problem("HS1", [-2, 1], [-FREE, -1.5], FREE, 0.0)(banana)
problem("HS229", [-1.2, 1], -2, 2, 0.0)(banana)
problem("ROSEN5_LOWER", [2] * 5, 1.1, 2, 1.380640)(banana)  # LBFGSpp's issue 20


@problem("HS3", [10, 1], [-FREE, 0], FREE, 0.0)
def hs3(x):
    return x[1] + 1e-5 * (x[1] - x[0]) ** 2


@problem("HS3MOD", [10, 1], [-FREE, 0], FREE, 0.0)
def hs3_modified(x):
    return x[1] + (x[1] - x[0]) ** 2


@problem("HS38", [-3, -1, -3, -1], -10, 10, 0.0, (7.876974,))
def colville(x):
    first = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return first + 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1)


@problem("HS45", [2] * 5, 0, [1, 2, 3, 4, 5], 1.0)
def hs45(x):
    return 2 - x[0] * x[1] * x[2] * x[3] * x[4] / 120


@problem("HS242", [2.5, 10, 10], 0, 10, 0.0)
def box(x):
    t = 0.1 * np.arange(1, 11)
    return pt.sum((pt.exp(-x[0] * t) - pt.exp(-x[1] * t) - x[2] * (np.exp(-t) - np.exp(-10 * t))) ** 2)


@problem("HATFLDA", [0.1] * 4, 1e-7, FREE, 0.0)
def hatflda(x):
    return (x[0] - 1) ** 2 + pt.sum((x[:-1] - pt.sqrt(x[1:])) ** 2)


@problem("HATFLDC", [0.9] * 25, [0] * 24 + [-FREE], [10] * 24 + [FREE], 0.0)
def hatfldc(x):
    return (x[0] - 1) ** 2 + pt.sum((x[2:] - x[1:-1] ** 2) ** 2) + (x[-1] - 1) ** 2


@problem("HIMMELP1", [95, 10], 0, [95, 75], -62.053869846, (-23.89740781,))
def himmelp1(x):
    a, b = x[0], x[1]
    of_a = 75.1963666677 - 3.8112755343 * a + 0.1269366345 * a**2 - 2.0567665e-3 * a**3 + 1.0345e-5 * a**4
    mixed = 3.02344793e-2 * a - 1.2813448e-3 * a**2 + 3.52599e-5 * a**3 - 2.266e-7 * a**4 - 6.8306567613
    squared = 0.2564581253 - 5.2375e-6 * a**2 - 6.3e-9 * a**3 + 3.405462e-4 * a
    cubed = -3.460403e-3 + 7e-10 * a**3 - 1.6638e-6 * a
    rest = 1.35139e-5 * b**4 - 28.1064434908 / (b + 1) - 2.86731124 * pt.exp(5e-4 * a * b)
    return -(of_a + mixed * b + squared * b**2 + cubed * b**3 + rest)


@problem("HART6", [0.2] * 6, 0, 1, -3.322368011415515, (-3.2031619,))
def hartman(x):
    A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    P = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ]
    return -pt.sum(np.array([1, 1.2, 3, 3.2]) * pt.exp(-pt.sum(np.array(A) * (x - np.array(P)) ** 2, axis=1)))


@problem("SIMBQP", [10, 1], [-FREE, 0], [FREE, 0.5], 0.0)
def simbqp(x):
    return x[1] + (x[1] - x[0]) ** 2 + (2 * x[0] + x[1]) ** 2


@problem("MDHOLE", [10, 1], [0, -FREE], FREE, 0.0)
def mdhole(x):
    return 100 * (pt.sin(x[0]) - x[1]) ** 2 + x[0]


ANGLES = [0.0, 0.174533, 0.349066, 0.523599, 0.698132, 0.872665, 1.047198, 1.22173, 1.396263, 1.570796, 1.745329]
PALMER_2 = (
    [*ANGLES[:6], 0.937187, *ANGLES[6:]],
    [19.4529, 17.7149, 13.4291, 8.108, 3.2053, 0.273, 0.0, 0.8596, 6.4762, 18.8548, 40.149455, 72.676767],
    {4: 3.2043},
)
PALMER_3 = (
    [*ANGLES[:5], 0.766531, *ANGLES[5:10], 1.658063],
    [9.8919, 8.5519, 5.5191, 2.3029, 0.2177, 0.0, 0.59447, 4.6547, 13.4575, 28.2034, 50.46046, 64.87939],
    {},
)


def palmer(angles, energies, left):
    """The fit of a rational function to energies at angles of both signs; those on the `left` may differ."""
    t = np.array([*angles, *angles[1:]]) ** 2
    y = np.array([*energies, *(left.get(i, energies[i]) for i in range(1, len(energies)))])
    return lambda x: pt.sum((x[0] * t + x[1] * t**2 + x[2] / (x[3] + t) - y) ** 2)


problem("PALMER2B", [1] * 4, [-FREE, -FREE, 1e-5, 1e-5], FREE, 0.62326690)(palmer(*PALMER_2))
problem("PALMER3B", [1] * 4, [-FREE, -FREE, 1e-5, 1e-5], FREE, 4.227647)(palmer(*PALMER_3))


@problem("WEEDS", [1] * 3, 0, [FREE, FREE, 3], 2.587277395, (9205.435,))
def weeds(x):
    found = np.array([5.308, 7.24, 9.638, 12.866, 17.069, 23.192, 31.443, 38.558, 50.156, 62.948, 75.995, 91.972])
    return pt.sum((x[0] / (1 + x[1] * pt.exp(-x[2] * np.arange(1, 13))) - found) ** 2)


@problem("BIGGSB1", [0] * 25, [0] * 24 + [-FREE], [0.9] * 24 + [FREE], 0.015)
def biggsb1(x):
    return (x[0] - 1) ** 2 + pt.sum((x[1:] - x[:-1]) ** 2) + (1 - x[-1]) ** 2


@problem("CHEBYQAD8", np.arange(1, 9) / 9, 0, 1, 0.0035168737256779)
def chebyquad(x):
    total, y, before, now = 0, 2 * x - 1, pt.ones_like(x), 2 * x - 1
    for degree in range(1, 9):
        integral = 0 if degree % 2 else -1 / (degree**2 - 1)
        total = total + (pt.mean(now) - integral) ** 2
        before, now = now, 2 * y * now - before
    return total
