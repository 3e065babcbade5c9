import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import gradients


def evaluate(outputs):
    return pytensor.function([], outputs, mode=optapi.PYTHON)()


def constants(*values, dtype="float64"):
    return [pt.constant(np.asarray(v, dtype)) for v in values]


def test_clip():
    [a, b] = evaluate(gradients.clip(constants([-3.0, 0.5, 3.0], 2.0), 1.5))
    np.testing.assert_array_equal(a, [-1.5, 0.5, 1.5])
    np.testing.assert_array_equal(b, 1.5)


def test_clip_norm_is_for_each_gradient():
    [a, b] = evaluate(gradients.clip_norm(constants([3.0, 4.0], [0.3, 0.4]), 1.0))
    np.testing.assert_allclose(a, [0.6, 0.8], rtol=1e-15)
    np.testing.assert_array_equal(b, [0.3, 0.4])


def test_clip_global_norm_keeps_the_direction():
    before = [np.array([3.0, 4.0]), np.array([[12.0]])]
    a, b = evaluate(gradients.clip_global_norm(constants(*before), 1.3))
    np.testing.assert_allclose(a, before[0] / 10, rtol=1e-14)
    np.testing.assert_allclose(b, before[1] / 10, rtol=1e-14)
    for x, y in zip(before, evaluate(gradients.clip_global_norm(constants(*before), 13.0)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("clip", [gradients.clip_norm, gradients.clip_global_norm])
def test_norms_of_extreme_gradients(clip):
    [zero] = evaluate(clip(constants([0.0, 0.0]), 0.0))
    np.testing.assert_array_equal(zero, 0)
    [large] = evaluate(clip(constants([3e30, 4e30], dtype="float32"), 1.0))
    assert large.dtype == "float32"
    np.testing.assert_allclose(large, [0.6, 0.8], rtol=1e-6)
    [bad] = evaluate(clip(constants([np.nan, 1.0]), 1.0))
    assert np.isnan(bad[0])


def test_decay_and_its_mask():
    w, b = constants([[1.0, 2.0]], [3.0])
    g, h = constants([[0.5, 0.5]], [0.5])
    both = evaluate(gradients.decay([g, h], [w, b], 0.1))
    np.testing.assert_allclose(both[0], [[0.6, 0.7]])
    np.testing.assert_allclose(both[1], [0.8])
    for mask in ([True, False], lambda p: p.ndim > 1):
        masked = evaluate(gradients.decay([g, h], [w, b], 0.1, mask))
        np.testing.assert_allclose(masked[0], both[0])
        np.testing.assert_array_equal(masked[1], [0.5])


def test_decay_is_the_gradient_of_a_penalty(compiled):
    p, q = pytensor.shared(np.array([1.0, 2.0])), pytensor.shared(np.array([1.0, 2.0]))
    cost = pt.sum(pt.cosh(p))
    compiled(optapi.sgd([p], gradients=gradients.decay(pytensor.grad(cost, [p]), [p], 0.3)))()
    compiled(optapi.sgd([q], pt.sum(pt.cosh(q)) + 0.15 * pt.sum(q**2)))()
    np.testing.assert_allclose(p.get_value(), q.get_value(), rtol=1e-15)


def test_center():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(4, 3)), rng.normal(size=5), rng.normal(size=(2, 3, 4))]
    matrix, vector, kernel = evaluate(gradients.center(constants(*values)))
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-15)
    np.testing.assert_array_equal(vector, values[1])
    np.testing.assert_allclose(kernel.mean(axis=(0, 1)), 0, atol=1e-15)
    np.testing.assert_allclose(kernel, values[2] - values[2].mean(axis=(0, 1)))


@pytest.mark.parametrize(
    "transform",
    [
        lambda g, p: gradients.clip(g, 1.0),
        lambda g, p: gradients.clip_norm(g, 1.0),
        lambda g, p: gradients.clip_global_norm(g, 1.0),
        lambda g, p: gradients.decay(g, p, 0.1),
        lambda g, p: gradients.center(g),
    ],
)
def test_transforms_keep_types_compose_and_leave_their_arguments(transform):
    p = pytensor.shared(np.ones((2, 3), "float32"))
    given = [2 * p]
    [g] = transform(transform(given, [p]), [p])
    assert g.type.dtype == "float32"
    assert g.type.ndim == 2
    assert len(given) == 1
    assert not gradients.is_transformed(given[0])
    assert gradients.is_transformed(g)
