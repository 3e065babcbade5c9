"""The time of a compiled Adam step: by optapi, and by updates written out by hand with the same arithmetic.

Run by ``make benchmark``. Where one is to be compared with the other, ``ratios.py`` beside this file measures better.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


def adam_by_hand(parameters, gradients, step_size=1e-3, b1=0.9, b2=0.999, epsilon=1e-8):
    count = pytensor.shared(np.int64(0))
    t = count + 1
    updates = {count: t}
    for p, g in zip(parameters, gradients, strict=True):
        m = pytensor.shared(np.zeros_like(p.get_value()))
        v = pytensor.shared(np.zeros_like(p.get_value()))
        updates[m] = b1 * m + (1 - b1) * g
        updates[v] = b2 * v + (1 - b2) * g**2
        updates[p] = p - step_size * (updates[m] / (1 - b1**t)) / (pt.sqrt(updates[v] / (1 - b2**t)) + epsilon)
    return updates


def logistic_regression():
    """20 parameters, a full batch of 200 rows."""
    rng = np.random.default_rng(0)
    x = pt.constant(rng.normal(size=(200, 20)))
    y = pt.constant((x.data @ rng.normal(size=20) > 0).astype("float64"))
    w = pytensor.shared(np.zeros(20), name="w")
    scores = x @ w
    return [w], pt.mean(pt.softplus(scores) - y * scores), None


def network():
    """Layers of 64, 128 and 10 units, a batch of 64 rows."""
    rng = np.random.default_rng(0)
    x = pt.constant(rng.normal(size=(64, 64)))
    y = pt.constant(rng.integers(0, 10, size=64))
    shapes = {"W1": (64, 128), "b1": 128, "W2": (128, 10), "b2": 10}
    W1, b1, W2, b2 = (pytensor.shared(rng.normal(scale=0.1, size=shape), name=name) for name, shape in shapes.items())
    scores = pt.tanh(x @ W1 + b1) @ W2 + b2
    return [W1, b1, W2, b2], -pt.special.log_softmax(scores, axis=1)[pt.arange(64), y].mean(), None


def million():
    """One tensor of a million numbers with given gradients."""
    p = pytensor.shared(np.zeros(1_000_000), name="p")
    g = pytensor.shared(np.random.default_rng(0).normal(size=1_000_000), name="g")
    return [p], None, [g]


CASES = (logistic_regression, network, million)


def compiled(case, by_hand):
    """A compiled step of `case`, to be called without arguments."""
    parameters, cost, gradients = case()
    if by_hand:
        updates = adam_by_hand(parameters, gradients or pytensor.grad(cost, parameters))
    else:
        updates = optapi.adam(parameters, cost, gradients)
    step = pytensor.function([], cost, updates=updates)
    step.trust_input = True
    step()
    return step, parameters


@pytest.mark.parametrize("by_hand", [False, True], ids=["optapi", "by_hand"])
@pytest.mark.parametrize("case", CASES)
def test_adam_step(benchmark, case, by_hand):
    benchmark.group = case.__name__
    step, _ = compiled(case, by_hand)
    benchmark(step)


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_is_the_same(case):
    (step, ours), (step_by_hand, theirs) = compiled(case, by_hand=False), compiled(case, by_hand=True)
    for _ in range(25):
        step()
        step_by_hand()
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.get_value(), other.get_value(), rtol=1e-10, atol=1e-12)
