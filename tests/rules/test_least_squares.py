"""Least squares: losses that forgive outliers, and scales; their twins, and SciPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.optimize
from reference import newton as reference

import optapi
from optapi.graph.numpy_linker import STEP
from optapi.losses import LOSSES, Robust


LOSS_NAMES = [name for name in LOSSES if name != "linear"]
TIMES = np.linspace(0, 3, 12)
DATA = 2.0 * np.exp(-0.8 * TIMES) + 0.05 * np.cos(7 * TIMES)
DATA[[3, 8]] += [3.0, -2.0]


class Outliers:
    """A curve through twelve numbers, two of which are wrong."""

    start = np.array([1.0, 0.3])

    def residuals(self, x):
        return x[0] * np.exp(-x[1] * TIMES) - DATA

    def jacobian(self, x):
        curve = np.exp(-x[1] * TIMES)
        return np.stack([curve, -x[0] * TIMES * curve], axis=1)


def symbolic(x):
    return x[0] * pt.exp(-x[1] * TIMES) - DATA


def run(rule, calls=200, start=Outliers.start, **options):
    """The updates, and the points of a run."""
    p = pytensor.shared(np.array(start), name="p", shape=np.shape(start))
    stop = pytensor.shared(np.int64(0), name="stop")
    updates = rule([p], residuals=symbolic(p), stop=stop, **options)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    points = []
    while len(points) < calls and not stop.get_value():
        step()
        points.append(p.get_value())
    return updates, points


def reported(updates, role):
    [variable] = optapi.reports(updates)[role]
    return float(variable.get_value())


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize(
    "rule, twin",
    [
        (optapi.levenberg_marquardt, reference.LevenbergMarquardt),
        (optapi.gauss_newton, reference.GaussNewton),
    ],
    ids=["levenberg_marquardt", "gauss_newton"],
)
def test_robust_twins(rule, twin, loss):
    problem = reference.Robust(Outliers(), loss, 0.1)
    updates, points = run(rule, 8, loss=loss, f_scale=0.1, tolerance=1e-7)
    wanted = twin().points(problem, problem.start, len(points), along=points)
    # The weights of outliers are the root of the precision, so that half of the digits of the sum are theirs.
    np.testing.assert_allclose(points, wanted, rtol=1e-12 if loss == "soft_l1" else 1e-8)
    assert reported(updates, "cost") == pytest.approx(problem.cost(points[-1]), rel=1e-14)


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_robust_minima_are_those_of_scipy(loss):
    """Also with products alone; arctan forgets outliers for good, so that it starts near."""
    wanted = scipy.optimize.least_squares(Outliers().residuals, [1.9, 0.7], Outliers().jacobian, loss=loss, f_scale=0.1,
                                          xtol=1e-15, ftol=1e-15, gtol=1e-13)  # fmt: skip
    for options in ({}, {"solver": "cg"}, {"x_scale": [2.0, 0.5]}):
        updates, points = run(
            optapi.levenberg_marquardt, start=[1.9, 0.7], loss=loss, f_scale=0.1, tolerance=1e-12, **options
        )
        np.testing.assert_allclose(points[-1], wanted.x, rtol=1e-7)
        assert reported(updates, "cost") == pytest.approx(wanted.cost, rel=1e-12)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weighted_residuals_have_the_gradient_of_the_cost(loss, dtype):
    """Outliers, inliers and zeros."""
    x = pt.vector("x", dtype=dtype)
    robust = Robust.of(loss, 0.5)
    [weighted], [root] = robust.linearized([x]), robust.roots([x])
    cost = robust.cost([x])
    gradient = pytensor.grad(cost, x)
    jacobian = pytensor.grad(pt.sum(weighted), x)  # diagonal
    at = pytensor.function([x], [cost, gradient, weighted * jacobian, pt.sum(root**2) / 2], mode=STEP)
    values = np.array([0.0, 1e-9, 0.1, -0.49, 0.51, -3.0, 1e3], dtype)
    found, g, product, again = at(values)
    assert {found.dtype, product.dtype, again.dtype} == {np.dtype(dtype)}
    digits = 1e-12 if dtype == "float64" else 1e-5
    rho = reference.LOSSES[loss]((values.astype(float) / 0.5) ** 2)
    np.testing.assert_allclose(found, 0.5**2 * np.sum(rho[0]) / 2, rtol=digits)
    np.testing.assert_allclose(g, values * rho[1], rtol=digits, atol=1e-30)
    np.testing.assert_allclose(product, g, rtol=digits, atol=1e-30)
    np.testing.assert_allclose(again, found, rtol=digits)


def test_a_loss_may_be_a_function():
    same = [run(optapi.levenberg_marquardt, loss=loss, f_scale=0.1)[1][-1] for loss in ("cauchy", pt.log1p)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("scale", [np.array([10.0, 0.01]), 3.0])
def test_scales_are_those_of_the_parameters(scale):
    """The twin, and the same problem in scaled parameters, as SciPy defines them."""
    _, points = run(optapi.levenberg_marquardt, 8, x_scale=scale, tolerance=1e-9)
    twin = reference.LevenbergMarquardt(x_scale=scale)
    np.testing.assert_allclose(points, twin.points(Outliers(), Outliers.start, len(points), points), rtol=1e-11)
    for options in ({}, {"solver": "cg"}):
        here, there = pytensor.shared(Outliers.start, name="x"), pytensor.shared(Outliers.start / scale, name="scaled")
        updates = optapi.levenberg_marquardt([here], residuals=symbolic(here), x_scale=scale, **options)
        updates |= optapi.levenberg_marquardt([there], residuals=symbolic(there * scale), name="scaled", **options)
        step = pytensor.function([], [], updates=updates, mode=STEP)
        for _ in range(5):
            step()
            np.testing.assert_allclose(here.get_value(), there.get_value() * scale, rtol=1e-6)


def test_gauss_newton_has_the_shortest_step_in_the_scales():
    """Two parameters of which only the sum counts: the larger scale takes the larger part of the step."""
    for scale in (None, [3.0, 1.0], "jac"):
        p = pytensor.shared(np.zeros(2), name="p", shape=(2,))
        updates = optapi.gauss_newton([p], residuals=pt.stack([p[0] + p[1] - 10, p[0] + p[1] - 10]), x_scale=scale)
        pytensor.function([], [], updates=updates, mode=STEP)()
        np.testing.assert_allclose(p.get_value(), [9.0, 1.0] if scale == [3.0, 1.0] else [5.0, 5.0])


def test_scales_of_several_parameters():
    """Numbers, arrays that are broadcast, and variables."""
    W, c = pytensor.shared(np.ones((2, 3)), name="W"), pytensor.shared(1.0, name="c")
    unit = pytensor.shared(1.0, name="unit")
    residuals = [(W - 2.0).ravel(), 5 * (c - 3.0) ** 2 + W.sum()]
    stop = pytensor.shared(0)
    updates = optapi.levenberg_marquardt([W, c], residuals=residuals, x_scale=[np.ones(3), unit], stop=stop)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    for _ in range(50):
        step()
    assert stop.get_value() == 1
    with pytest.raises(ValueError, match="x_scale"):
        optapi.levenberg_marquardt([W, c], residuals=residuals, x_scale=[1.0])
    with pytest.raises(ValueError, match="x_scale of 'W' has shape"):
        optapi.levenberg_marquardt([W, c], residuals=residuals, x_scale=[np.ones(2), 1.0])


@pytest.mark.parametrize("rule", [optapi.gauss_newton, optapi.levenberg_marquardt])
def test_losses_that_are_wrong(rule):
    p = pytensor.shared(np.ones(2), name="p")
    with pytest.raises(ValueError, match=r"loss is 'hinge'; pass 'linear', .* or 'arctan'"):
        rule([p], residuals=p - 1, loss="hinge")
    with pytest.raises(ValueError, match="f_scale"):
        rule([p], residuals=p - 1, loss="huber", f_scale=0.0)
    with pytest.raises(TypeError, match="f_scale"):
        rule([p], residuals=p - 1, f_scale="auto")
