"""Manifolds: projections on them and their tangent spaces, retractions, and what they are called with."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import PYTHON
from optapi.manifolds import Sphere, Stiefel


def evaluated(expression):
    return pytensor.function([], expression, mode=PYTHON)()


def point_of(manifold, shape, dtype="float64", seed=0):
    """A point of the manifold, worked out by NumPy."""
    v = np.random.default_rng(seed).normal(size=shape)
    if isinstance(manifold, Sphere):
        return (v / np.linalg.norm(v)).astype(dtype)
    left, _, right = np.linalg.svd(v, full_matrices=False)
    return (left @ right).astype(dtype)


def off(manifold, x):
    """How far `x` is from the manifold."""
    if isinstance(manifold, Sphere):
        return abs(np.sum(x.astype(float) ** 2) - 1)
    return abs(x.T.astype(float) @ x - np.eye(x.shape[1])).max()


ALL = [(Sphere(), (6,)), (Sphere(), (3, 2)), (Stiefel(), (6, 3)), (Stiefel(), (4, 4)), (Stiefel(), (5, 1))]


@pytest.mark.parametrize(("manifold", "shape"), ALL, ids=str)
class TestFacts:
    def vectors(self, shape, dtype="float64"):
        return np.random.default_rng(1).normal(size=(2, *shape)).astype(dtype)

    def test_the_projection_is_the_nearest_point(self, manifold, shape):
        v, _ = self.vectors(shape)
        np.testing.assert_allclose(evaluated(manifold.project(v)), point_of(manifold, shape, seed=1), atol=1e-14)

    def test_a_point_stays_bit_for_bit(self, manifold, shape):
        once = evaluated(manifold.project(self.vectors(shape)[0]))
        np.testing.assert_array_equal(evaluated(manifold.project(once)), once)

    def test_tangents(self, manifold, shape):
        x, (u, v) = point_of(manifold, shape), self.vectors(shape)
        Pu, Pv = (evaluated(manifold.tangent(x, w)) for w in (u, v))
        np.testing.assert_allclose(evaluated(manifold.tangent(x, Pu)), Pu, atol=1e-14)
        # Symmetric, so that it is the orthogonal projection; and along tangents the manifold is left to second order.
        np.testing.assert_allclose(np.sum(Pu * v), np.sum(u * Pv), rtol=1e-12)
        assert off(manifold, x + 1e-6 * Pu) < 1e-10 < 1e-7 < off(manifold, x + 1e-6 * (u - Pu))
        stack = evaluated(manifold._tangent(pt.as_tensor(x), pt.as_tensor(np.stack([u, v]))))
        np.testing.assert_allclose(stack, [Pu, Pv], atol=1e-14)

    def test_the_retraction_agrees_to_first_order(self, manifold, shape):
        x = point_of(manifold, shape)
        v = evaluated(manifold.tangent(x, self.vectors(shape)[0]))
        errors = []
        for t in (1e-2, 1e-3):
            y = evaluated(manifold.retract(x, t * v))
            assert off(manifold, y) < 1e-15 * np.sqrt(x.size) * 4
            errors.append(np.linalg.norm(y - x - t * v))
        assert 90 < errors[0] / errors[1] < 110
        np.testing.assert_allclose(evaluated(manifold.retract(x, 0 * v)), x, atol=1e-14)

    def test_the_velocity_of_the_curve(self, manifold, shape):
        x = point_of(manifold, shape)
        v = evaluated(manifold.tangent(x, self.vectors(shape)[0]))
        a = pt.dscalar("a")
        at = pytensor.function([a], manifold._curve(pt.as_tensor(x), pt.as_tensor(v))(a), mode=PYTHON)
        np.testing.assert_allclose(at(0.0)[1], v, atol=1e-14)
        for size in (0.3, 2.0):
            difference = (at(size + 1e-5)[0] - at(size - 1e-5)[0]) / 2e-5
            np.testing.assert_allclose(at(size)[1], difference, atol=1e-9)

    @pytest.mark.parametrize(("dtype", "precision"), [("float64", 2e-15), ("float32", 1e-6)])
    @pytest.mark.parametrize("size", [1e-8, 1.0, 1e3, 1e10])
    def test_far_steps_stay_on_the_manifold(self, manifold, shape, dtype, precision, size):
        x = point_of(manifold, shape, dtype)
        v = manifold.tangent(x, np.asarray(size, dtype) * self.vectors(shape, dtype)[0])
        y = evaluated(manifold.retract(x, v))
        assert y.dtype == dtype
        assert off(manifold, y) < precision


def test_points_that_are_not_finite():
    for manifold, shape in ALL:
        v = np.full(shape, np.nan)
        assert np.isnan(evaluated(manifold.project(v))).any()
        assert np.isnan(evaluated(manifold.retract(point_of(manifold, shape), v))).any()


def test_zero_has_a_nearest_point():
    np.testing.assert_array_equal(evaluated(Sphere().project(np.zeros(3))), [1, 0, 0])
    assert off(Stiefel(), evaluated(Stiefel().project(np.zeros((4, 2))))) < 1e-15


def test_manifolds_are_plain_values():
    assert Sphere() == Sphere() != Stiefel()
    assert repr(Stiefel()) == "Stiefel()"
    with pytest.raises(TypeError, match="v has dtype bool"):
        Sphere().project(np.array([True, False]))
    with pytest.raises(ValueError, match="v has 1 dimensions, and x has 2"):
        Stiefel().tangent(np.eye(2), np.ones(2))


@pytest.mark.parametrize(("given", "message"), [
    (Sphere, "the manifold of 'x' is a type; pass a manifold of optapi.manifolds"),
    (optapi.prox.Sphere(), "the manifold of 'x' is a Sphere; pass a manifold of optapi.manifolds"),
    ("sphere", "the manifold of 'x' is a str; pass"),
    ({"y": Sphere()}, "manifold has a key 'y', which is none of the parameters"),
    ([Sphere(), None], "manifold has 2 entries for 1 parameters"),
    ([None], "manifold has none of any parameter"),
    (Stiefel(), r"the manifold of 'x', which has the shape \(3,\), is Stiefel\(\); Stiefel is of matrices"),
])  # fmt: skip
def test_what_is_wrong_is_refused(given, message):
    x = pytensor.shared(np.ones(3), name="x")
    with pytest.raises((TypeError, ValueError), match=message):
        optapi.lbfgs([x], pt.sum(x), manifold=given)


@pytest.mark.parametrize(("shape", "manifold", "message"), [
    ((2, 3), Stiefel(), "orthonormal columns need at least as many rows"),
    ((3, 0), Stiefel(), "orthonormal columns need"),
    ((1,), Sphere(), "a sphere needs two components or more"),
    ((), Sphere(), "a sphere needs two components or more"),
])  # fmt: skip
def test_shapes_without_points_are_refused(shape, manifold, message):
    x = pytensor.shared(np.ones(shape), name="x")
    with pytest.raises(ValueError, match=message):
        optapi.polak_ribiere([x], pt.sum(x**2), manifold=manifold)


@pytest.mark.parametrize(("rule", "options", "message"), [
    (optapi.lbfgs, {"bounds": (0.0, 1.0)}, "manifold and bounds do not go together"),
    (optapi.lbfgs, {"l1": 1.0}, "manifold and l1 do not go together"),
    (optapi.lbfgs, {"x_scale": 2.0}, "manifold and x_scale do not go together"),
    (optapi.barzilai_borwein, {"bounds": (0.0, 1.0)}, "manifold and bounds do not go together"),
    (optapi.hager_zhang_cg, {"preconditioner": [np.ones(3)]}, "manifold and x_scale do not go together"),
    (optapi.bfgs, {}, "bfgs takes no keyword 'manifold'; take lbfgs, barzilai_borwein or conjugate_gradient"),
    (optapi.adam, {}, "adam takes no keyword 'manifold'; take lbfgs, barzilai_borwein or conjugate_gradient"),
    (optapi.augmented_lagrangian, {"constraints": []}, "lbfgs has manifold, which does not go together with constr"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(rule, options, message):
    x = pytensor.shared(np.ones(3), name="x")
    with pytest.raises((TypeError, ValueError), match=message):
        rule([x], pt.sum(x**2), manifold=Sphere(), **options)


def test_neither_parts_of_a_rule_nor_derivatives_of_solutions_have_manifolds():
    x, y = (pytensor.shared(np.ones(3), name=name) for name in "xy")
    on = partial(optapi.lbfgs, manifold=Sphere())
    with pytest.raises(ValueError, match="lbfgs has manifold inside of partition"):
        optapi.partition([x, y], pt.sum(x * y), groups=[([x], on)], otherwise=optapi.adam)
    w = pt.tensor("w", shape=(3,))
    with pytest.raises(ValueError, match="no derivatives of solutions with manifold="):
        optapi.solve([w], pt.sum(w**2), manifold=Sphere())
