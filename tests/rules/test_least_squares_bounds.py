"""Least squares within bounds: the minimum among all faces of the box, and every point inside."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.optimize
from reference import bounded as reference

import optapi
from optapi.graph.numpy_linker import STEP


TIMES = np.linspace(0, 3, 12)
DATA = 2.0 * np.exp(-0.8 * TIMES) + 0.05 * np.cos(7 * TIMES)


class Fit:
    """A rule that is compiled once, for any start, data and bounds."""

    def __init__(self, rule, residuals, data, size, dtype="float64", **options):
        def shared(value, name):
            return pytensor.shared(np.asarray(value, dtype), name=name, shape=np.shape(value))

        self.x, self.low, self.high = (shared(np.zeros(size), name) for name in ("x", "low", "high"))
        self.data = [shared(value, f"data{i}") for i, value in enumerate(data)]
        self.stop = pytensor.shared(np.int64(0), name="stop")
        self.residuals = residuals(self.x, *self.data)
        bounds = {self.x: (self.low, self.high)}
        updates = rule([self.x], residuals=self.residuals, bounds=bounds, stop=self.stop, exact=False, **options)
        self.reports = optapi.reports(updates)
        self.state = {variable: variable.get_value() for variable in updates if hasattr(variable, "get_value")}
        self.step = pytensor.function([], self.residuals, updates=updates, mode=STEP)

    def __call__(self, start, low, high, *data, calls=100):
        """The point at the end, and its number of calls; all points are inside."""
        for variable, value in self.state.items():
            variable.set_value(value)
        for variable, value in zip([self.x, self.low, self.high, *self.data], [start, low, high, *data], strict=False):
            variable.set_value(np.asarray(value, variable.type.dtype))
        count, low, high = 0, self.low.get_value(), self.high.get_value()
        while not self.stop.get_value():
            self.step()
            x, count = self.x.get_value(), count + 1
            assert np.all((low <= x) & (x <= high))
            assert count < calls
        assert self.reports["reason"][0].get_value() in (0, 7)
        return x, count


@pytest.mark.parametrize("solver", ["svd", "cg"])
@pytest.mark.parametrize("rule", [optapi.levenberg_marquardt, optapi.gauss_newton])
def test_linear_problems_with_active_bounds(rule, solver):
    m, n = 9, 4
    fit = Fit(rule, lambda x, A, b: pt.dot(A, x) - b, [np.zeros((m, n)), np.zeros(m)], n, solver=solver, tolerance=1e-9)
    rng, at_bounds = np.random.default_rng(1), 0
    for _ in range(20):
        A, b = rng.standard_normal((m, n)) * 10 ** rng.uniform(-1, 1, n), 3 * rng.standard_normal(m)
        low, high = -0.5 * rng.random(n), 0.5 * rng.random(n)
        low[0], high[1] = -np.inf, np.inf
        x, count = fit(rng.standard_normal(n), low, high, A, b)

        def solve(free, x, A=A, b=b):
            return np.linalg.lstsq(A[:, free], b - A[:, ~free] @ x[~free], rcond=None)[0]

        best = reference.least_squares(lambda x, A=A, b=b: A @ x - b, low, high, solve)
        np.testing.assert_allclose(x, best, rtol=1e-8, atol=1e-8)
        assert count <= 20
        np.testing.assert_array_equal(x[(best == low) | (best == high)], best[(best == low) | (best == high)])
        at_bounds += np.sum((best == low) | (best == high))
    assert at_bounds >= 30


def curve(x):
    return x[0] * np.exp(-x[1] * TIMES) - DATA


def best_of(low, high):
    """The minimum of the exponential fit in a box."""

    def solve(free, x):
        def residuals(z):
            y = x.copy()
            y[free] = z
            return curve(y)

        return scipy.optimize.least_squares(residuals, x[free], "3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15).x

    return reference.least_squares(curve, low, high, solve)


INF = np.inf
BOXES = {
    "inactive": ([0.0, 0.0], [5.0, 5.0]),
    "active": ([-INF, -INF], [1.8, INF]),
    "both active": ([2.5, 1.2], [3.0, 2.0]),
    "equal": ([-INF, 0.7], [INF, 0.7]),
    "all equal": ([1.0, 0.7], [1.0, 0.7]),
}
STARTS = {"inside": None, "corner": "low", "other corner": "high", "outside": [10.0, -3.0]}


@pytest.fixture(scope="module")
def exponential():
    return Fit(
        optapi.levenberg_marquardt, lambda x: x[0] * pt.exp(-x[1] * TIMES) - DATA, [], 2, x_scale="jac", tolerance=1e-9
    )


@pytest.mark.parametrize("box", BOXES)
def test_exponential_fits_from_inside_from_corners_and_from_outside(exponential, box):
    low, high = map(np.array, BOXES[box])
    best = best_of(low, high)
    for start in STARTS.values():
        if start is None:
            start = np.clip([1.0, 0.5], low, high)
        elif isinstance(start, str):
            start = np.clip(np.array(BOXES[box][start == "high"]), -2, 2)
        x, count = exponential(start, low, high)
        np.testing.assert_allclose(x, best, rtol=1e-7)
        assert count <= 30


def test_loss_scales_and_float32():
    low, high = np.array([0.0, 0.0], "float32"), np.array([5.0, 0.6], "float32")
    times, data = TIMES.astype("float32"), DATA.astype("float32")
    data[3] += 3
    fit = Fit(
        optapi.levenberg_marquardt, lambda x: x[0] * pt.exp(-x[1] * times) - data, [], 2, "float32",
        x_scale=np.array([1.0, 0.1], "float32"), loss="soft_l1", f_scale=0.2, tolerance=1e-4,
    )  # fmt: skip
    x, _ = fit([1.0, 0.2], low, high)
    assert x.dtype == np.float32 and x[1] == high[1]
    r = np.exp(-high[1].astype(float) * TIMES)
    found = scipy.optimize.least_squares(lambda a: a * r - data, 1.0, loss="soft_l1", f_scale=0.2, xtol=1e-14)
    np.testing.assert_allclose(x[0], found.x[0], rtol=1e-4)


def test_the_jacobian_is_that_of_the_start_that_was_put_inside():
    # Where the parameter is, the residual has another slope, and far outside none that is finite.
    x, stop = pytensor.shared(np.array([-4.0]), name="x"), pytensor.shared(0, name="stop")
    updates = optapi.levenberg_marquardt(
        [x], residuals=pt.sqrt(x) - 2, stop=stop, bounds={x: (1.0, None)}, damping=1e-12
    )
    pytensor.function([], [], updates=updates, mode=STEP)()
    # The first step of Newton's method from 1: sqrt(1) + (x - 1) / 2 = 2.
    np.testing.assert_allclose(x.get_value(), 3.0, rtol=1e-6)


def test_ascent_is_refused_as_without_bounds():
    x = pytensor.shared(np.array([1.0]), name="x")
    with pytest.raises(ValueError, match="ascent=True maximizes"):
        optapi.levenberg_marquardt([x], residuals=x, bounds={x: (0, 1)}, ascent=True)
