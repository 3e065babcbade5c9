"""Penalties and sets: each proximal operator by the inequality that it alone solves, and the exact algorithms."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.optimize

import optapi
from optapi import PYTHON, prox


RNG = np.random.default_rng(0)
N = 12
LABELS = np.array([0, 0, 1, 2, 1, 1, 2, 2, 2, 3, 3, 0])
NORMAL = RNG.normal(size=N)
ROWS = RNG.normal(size=(3, N))
# With the shape of the point.
PENALTIES = {
    "L1": (prox.L1(0.7), (N,)),
    "L1 by component": (prox.L1(np.linspace(0, 2, N)), (N,)),
    "ElasticNet": (prox.ElasticNet(0.4, 1.5), (N,)),
    "NonNegativeL1": (prox.NonNegativeL1(0.3), (3, 4)),
    "Ridge": (prox.Ridge(1.3), (N,)),
    "NonNegativeRidge": (prox.NonNegativeRidge(1.3), (N,)),
    "Huber": (prox.Huber(0.8, 0.3), (N,)),
    "NegativeLog": (prox.NegativeLog(0.6), (N,)),
    "Entropy": (prox.Entropy(0.6), (N,)),
    "GroupL2": (prox.GroupL2(0.8), (N,)),
    "GroupL2 by axis": (prox.GroupL2(0.8, axis=1), (4, 3)),
    "GroupL2 by axes": (prox.GroupL2(np.array([0.2, 1.0])[:, None, None], axis=(1, 2)), (2, 2, 3)),
    "GroupL2 by labels": (prox.GroupL2([0.2, 0.8, 0.4, 5.0], groups=LABELS), (N,)),
    "SparseGroup": (prox.SparseGroup(0.3, 0.4, groups=LABELS), (N,)),
    "SparseGroup by axis": (prox.SparseGroup(0.3, 0.4, axis=0), (4, 3)),
    "Nuclear": (prox.Nuclear(0.9), (4, 3)),
    "MaxNorm": (prox.MaxNorm(1.4), (3, 4)),
    "TotalVariation1D": (prox.TotalVariation1D(0.5), (N,)),
    "Box": (prox.Box(-0.5, np.linspace(0, 2, N)), (N,)),
    "NonNegative": (prox.NonNegative(), (N,)),
    "Simplex": (prox.Simplex(1.5), (3, 4)),
    "L1Ball": (prox.L1Ball(2.0), (3, 4)),
    "L2Ball": (prox.L2Ball(1.2), (N,)),
    "L2Ball by axis": (prox.L2Ball(0.7, axis=1), (4, 3)),
    "LinfBall": (prox.LinfBall(0.6), (N,)),
    "Hyperplane": (prox.Hyperplane(NORMAL, 0.4), (N,)),
    "Halfspace": (prox.Halfspace(NORMAL, -0.4), (N,)),
    "Affine": (prox.Affine(ROWS, [0.3, -1.0, 2.0]), (N,)),
    "BoxSection": (prox.BoxSection(-0.5, np.linspace(0.1, 2, N), np.linspace(0.5, 1.5, N), 1.2), (N,)),
    "BoxSection without a high": (prox.BoxSection(0.0, np.inf, 1.0, 2.0), (3, 4)),
    "CappedSimplex": (prox.CappedSimplex(3.0), (N,)),
    "Isotonic": (prox.Isotonic(), (N,)),
    "SecondOrderCone": (prox.SecondOrderCone(), (N,)),
    "PSD": (prox.PSD(), (4, 4)),
    "Dykstra": (prox.Dykstra([prox.Isotonic(), prox.L2Ball(1.0)]), (N,)),
}


def compiled(penalty, shape, dtype="float64"):
    """Functions from v and t to the proximal operator, and from x to the value."""
    v, t = pt.tensor("v", shape=shape, dtype=dtype), pt.scalar("t", dtype="float64")
    near, value = penalty.prox(v, t), penalty.value(v)
    assert near.type.dtype == value.type.dtype == dtype
    assert near.type.ndim == len(shape)
    assert value.type.ndim == 0
    return (
        pytensor.function([v, t], near, mode=PYTHON, on_unused_input="ignore"),
        pytensor.function([v], value, mode=PYTHON, on_unused_input="ignore"),
    )


def test_every_object_is_here():
    others = {"Penalty", "Projection", "Sphere"}
    assert {name.split()[0] for name in PENALTIES} | others == set(prox.__all__)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_variational_inequality(name):
    """h(x) >= h(z) + (v - z)'(x - z) / t for all x is what z = prox(v, t) alone has."""
    penalty, shape = PENALTIES[name]
    near, value = compiled(penalty, shape)
    rng = np.random.default_rng(1)
    if name == "PSD":
        points = [(a + a.T) / 2 for a in rng.normal(size=(40, *shape))]
    else:
        points = [rng.choice([0.1, 1, 10]) * rng.normal(size=shape) for _ in range(40)]
    steps = rng.choice([0.2, 1.0, 3.0], size=40)
    within = [near(v, 1.0) for v in points]
    for v, t in zip(points, steps, strict=True):
        z = near(v, t)
        assert z.shape == shape
        start = value(z)
        assert np.isfinite(start)
        for x in (*within[:10], *(near(z + d, 1e-3) for d in 0.01 * rng.normal(size=(5, *shape)) if name != "PSD")):
            slope = np.sum((v - z) * (x - z)) / t
            assert value(x) - start - slope >= -1e-10 * (1 + abs(start) + np.sum(v * v) / t)
        if isinstance(penalty, prox.Projection):
            np.testing.assert_allclose(near(z, 1.0), z, atol=1e-11 * (1 + abs(v).max()))


def test_a_sphere_has_the_nearest_point():
    near, _ = compiled(prox.Sphere(2.0), (3,))
    np.testing.assert_allclose(near(np.array([0.0, 3.0, 4.0]), 1.0), [0, 1.2, 1.6], rtol=1e-15)
    np.testing.assert_array_equal(near(np.zeros(3), 1.0), [2, 0, 0])


@pytest.mark.parametrize("name", PENALTIES)
def test_in_single_precision_and_of_nan(name):
    penalty, shape = PENALTIES[name]
    near, value = compiled(penalty, shape, "float32")
    wide, _ = compiled(penalty, shape)
    v = np.random.default_rng(2).normal(size=shape)
    z = near(v.astype("float32"), 0.7)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, wide(v, 0.7), atol=1e-5)
    assert np.isfinite(value(z))
    v.flat[1] = np.nan
    with np.errstate(all="ignore"):
        assert np.isnan(wide(v, 0.7)).any()


def solved(H, g, A, b, low, high):
    """The minimizer of x'Hx/2 + g'x with A x = b in a box, by another algorithm."""
    result = scipy.optimize.minimize(
        lambda x: x @ H @ x / 2 + g @ x, np.clip(np.zeros(len(g)), low, high), jac=lambda x: H @ x + g, method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: A @ x - b, "jac": lambda x: A},
        bounds=list(zip(low, high, strict=True)),
        options={"ftol": 1e-15, "maxiter": 1000},
    )  # fmt: skip
    return result.x


def test_isotonic_is_that_of_scikit_learn():
    isotonic = pytest.importorskip("sklearn.isotonic").isotonic_regression
    for n in (1, 2, 5, 33):
        near, _ = compiled(prox.Isotonic(), (n,))
        for v in np.random.default_rng(n).normal(size=(5, n)) + np.linspace(0, 2, n) + 100:
            np.testing.assert_allclose(near(v, 1.0), isotonic(v), rtol=1e-12)


def test_sorted_projections_are_exact():
    """With the threshold that the definition asks for, to all digits; with ties, and far away."""
    rng = np.random.default_rng(3)
    simplex, ball = compiled(prox.Simplex(1.5), (40,))[0], compiled(prox.L1Ball(2.0), (40,))[0]
    for v in (rng.normal(size=40), np.repeat(rng.normal(size=8), 5), 1e3 + rng.normal(size=40), np.zeros(40)):
        x = simplex(v, 1.0)
        tau = (v - x)[x > 0]
        assert np.all(x >= 0)
        np.testing.assert_allclose(np.sum(x), 1.5, rtol=1e-12)
        np.testing.assert_allclose(tau, tau[0], rtol=1e-12, atol=1e-12)
        assert np.all(v[x == 0] <= tau[0] + 1e-12)
        y = ball(v, 1.0)
        if np.sum(abs(v)) > 2:
            np.testing.assert_allclose(np.sum(abs(y)), 2.0, rtol=1e-12)
            np.testing.assert_allclose(abs(y), np.maximum(abs(v) - (abs(v) - abs(y))[y != 0][0], 0), atol=1e-12)


def test_a_section_of_a_box():
    rng = np.random.default_rng(4)
    for _ in range(5):
        low, high, w = -rng.random(9), rng.random(9), 0.5 + rng.random(9)
        total = w @ rng.uniform(low, high)
        near, _ = compiled(prox.BoxSection(low, high, w, total), (9,))
        v = 2 * rng.normal(size=9)
        x = near(v, 1.0)
        np.testing.assert_allclose(w @ x, total, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(x, solved(np.eye(9), -v, w[None], total, low, high), atol=1e-6)
        free = (low < x) & (x < high)
        tau = ((v - x) / w)[free]
        np.testing.assert_allclose(tau, tau.mean(), atol=1e-12)
    # Where no component is free the total is that of a corner.
    near, _ = compiled(prox.CappedSimplex(2.0), (4,))
    np.testing.assert_array_equal(near(np.array([9.0, 5.0, -4.0, -3.0]), 1.0), [1, 1, 0, 0])


def test_total_variation_of_long_and_short_signals():
    """By the dual variables u, |u_i| <= s, which are at their limit where the signal has a step."""
    rng = np.random.default_rng(5)
    for n, s in ((1, 1.0), (2, 0.1), (300, 0.4), (300, 20.0)):
        near, _ = compiled(prox.TotalVariation1D(s), (n,))
        v = np.cumsum(rng.normal(size=n)) + rng.normal(size=n)
        x = near(v, 1.0)
        u = np.cumsum(v - x)
        np.testing.assert_allclose(u[-1], 0, atol=1e-10)
        assert np.all(abs(u[:-1]) <= s + 1e-10)
        steps = np.diff(x)
        np.testing.assert_allclose(u[:-1][abs(steps) > 1e-10], -s * np.sign(steps[abs(steps) > 1e-10]), atol=1e-10)


def test_weights_and_step_sizes_may_be_variables():
    weight, v = pytensor.shared(1.0), np.array([3.0, -1.5])
    f = pytensor.function([], prox.L1(weight).prox(pt.as_tensor(v), pt.as_tensor([1.0, 2.0])), mode=PYTHON)
    np.testing.assert_array_equal(f(), [2, 0])
    weight.set_value(0.5)
    np.testing.assert_array_equal(f(), [2.5, -0.5])
    radius = pytensor.shared(2.0)
    g = pytensor.function([], prox.Simplex(radius).project(v), mode=PYTHON)
    np.testing.assert_allclose(g(), [2, 0])
    radius.set_value(6.5)
    np.testing.assert_allclose(g(), [5.5, 1])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: prox.L1(-1.0), "weight of L1 is -1.0; pass numbers"),
    (lambda: prox.L1([1.0, np.nan]), "weight of L1"),
    (lambda: prox.L1("big"), "weight of L1 is 'big'"),
    (lambda: prox.ElasticNet(1.0, -2.0), "ridge of ElasticNet"),
    (lambda: prox.Huber(1.0, 0.0), "delta of Huber is 0.0; pass positive"),
    (lambda: prox.Entropy(0.0), "weight of Entropy"),
    (lambda: prox.Box(1.0, 0.0), "Box has a low above its high"),
    (lambda: prox.L2Ball(-1.0), "radius of L2Ball"),
    (lambda: prox.Simplex(0.0), "radius of Simplex is 0.0; pass a positive number"),
    (lambda: prox.Simplex([1.0, 2.0]), "radius of Simplex is an array"),
    (lambda: prox.Hyperplane(np.zeros(3)), "normal of Hyperplane is 0"),
    (lambda: prox.Affine([[1.0, 1.0], [1.0, 1.0]], [0.0, 1.0]), "so that the set is empty"),
    (lambda: prox.BoxSection([0, 0], 1.0, 1.0, 5.0), "no point between low and high has the total"),
    (lambda: prox.GroupL2(1.0, axis=0, groups=[0, 1]), "both axis and groups"),
    (lambda: prox.GroupL2(1.0, groups=[0, 2]), "leave none out"),
    (lambda: prox.GroupL2(1.0, groups=[0, 1]).prox(np.zeros(3)), "groups of GroupL2 has shape"),
    (lambda: prox.GroupL2(1.0, axis="rows"), "axis of GroupL2"),
    (lambda: prox.GroupL2(1.0).prox(np.zeros(3), np.ones(3)), "t has 1 dimensions"),
    (lambda: prox.Isotonic().project(pt.dvector("v")), "takes vectors of known length"),
    (lambda: prox.Nuclear(1.0).prox(np.zeros(3)), "nuclear norm is of matrices"),
    (lambda: prox.Dykstra([]), "sets of Dykstra"),
    (lambda: prox.Dykstra([prox.L1(1.0)]), r"sets\[0\] of Dykstra"),
    (lambda: prox.Dykstra([prox.Simplex()], turns=0), "turns of Dykstra"),
])  # fmt: skip
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("name", [
    *("Entropy", "GroupL2 by labels", "GroupL2 by axis", "Nuclear", "MaxNorm", "TotalVariation1D", "Simplex", "L1Ball"),
    *("BoxSection", "Isotonic", "SecondOrderCone", "PSD", "Affine", "Dykstra"),
])  # fmt: skip
def test_of_many_points_at_once(name):
    """Those with loops, orders or decompositions in them."""
    penalty, shape = PENALTIES[name]
    p = pytensor.shared(np.zeros(shape), name="p", shape=shape)
    wide = pytensor.shared(np.random.default_rng(6).normal(size=(3, *shape)), name="wide")
    start = wide.get_value()
    updates = optapi.sgd([p], gradients=[pt.zeros_like(p)], step_size=0.7, prox=penalty)
    pytensor.function([], [], updates=optapi.batch(updates, {p: wide}), mode=PYTHON)()
    near, _ = compiled(penalty, shape)
    for row, v in zip(wide.get_value(), start, strict=True):
        np.testing.assert_allclose(row, near(v, 0.7), atol=1e-10)
