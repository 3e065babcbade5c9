"""Penalties in first-order rules: proximal steps in the metric of each rule."""

import nonsmooth
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import nonsmooth as reference

import optapi
from optapi import PYTHON, prox


TARGET = np.array([3.0, -0.2, 0.5, -4.0])
START = np.array([1.0, -1.0, 0.3, 2.0])
# With the size of the step of each component after the first call, from the gradient there; all with a = 0.1.
RULES = {
    optapi.sgd: lambda g: 0.1,
    optapi.momentum: lambda g: 0.1 / (1 - 0.9),  # with all later steps
    optapi.nesterov: lambda g: 0.1 / (1 - 0.9),
    optapi.adagrad: lambda g: 0.1 / (abs(g) + 1e-10),
    optapi.adadelta: lambda g: 0.1 * np.sqrt(1e-6) / np.sqrt(0.1 * g**2 + 1e-6),
    optapi.rmsprop: lambda g: 0.1 / (np.sqrt(0.1 * g**2) + 1e-8),
    optapi.adam: lambda g: 0.1 / (abs(g) + 1e-8),
    optapi.adamw: lambda g: 0.1 / (abs(g) + 1e-8),
    optapi.adamax: lambda g: 0.1 / (abs(g) + 1e-8),
    optapi.nadam: lambda g: 0.1 / (abs(g) + 1e-8),
    optapi.radam: lambda g: 0.1,  # no step is adaptive at first
}


def after_a_call(rule, **options):
    x = pytensor.shared(START, name="x")
    updates = rule([x], pt.sum((x - TARGET) ** 2) / 2, step_size=0.1, **options)
    pytensor.function([], [], updates=updates, mode=PYTHON)()
    return x.get_value()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_step_is_proximal_in_the_metric_of_the_rule(rule):
    plain, size = after_a_call(rule), RULES[rule](START - TARGET)
    np.testing.assert_allclose(after_a_call(rule, prox=prox.L1(2.0)), reference.soft(plain, 2 * size), atol=1e-9)
    np.testing.assert_array_equal(after_a_call(rule, prox=prox.L1(0.0)), plain)
    np.testing.assert_array_equal(after_a_call(rule, prox=prox.L1(1e5)), 0)
    within = after_a_call(rule, prox={"x": prox.NonNegativeL1(2.0)}, bounds=(-1, 0.8))
    np.testing.assert_allclose(within, np.minimum(np.maximum(plain - 2 * size, 0), 0.8), atol=1e-9)


def test_a_penalty_that_is_not_separable_needs_one_step_size():
    plain = after_a_call(optapi.sgd)
    norm = np.linalg.norm(plain)
    np.testing.assert_allclose(after_a_call(optapi.sgd, prox=prox.GroupL2(1.0)), plain * (1 - 0.2 / norm))
    with pytest.raises(
        ValueError, match="prox of 'x' is GroupL2, which is not separable, and adam has a step size for"
    ):
        after_a_call(optapi.adam, prox=prox.GroupL2(1.0))
    with pytest.raises(ValueError, match="'x' has bounds, and its prox GroupL2, which is not separable"):
        after_a_call(optapi.sgd, prox=prox.GroupL2(1.0), bounds=(0, 1))
    with pytest.raises(ValueError, match="prox has a key 'y', which is none of the parameters"):
        after_a_call(optapi.sgd, prox={"y": prox.L1(1.0)})


def test_shapes_are_known_to_penalties():
    """Also where the type of the parameter does not say them."""
    start = after_a_call(optapi.sgd, prox=prox.Isotonic())
    assert np.all(np.diff(start) >= 0)


@pytest.mark.parametrize(("rule", "step_size"), [("sgd", 2e-4), ("adam", optapi.schedules.Linear(1.0, 3000))])
def test_minima_with_exact_zeros(rule, step_size):
    """The drivers compare, report and stop by the whole cost."""
    problem = nonsmooth.problem("elastic_diabetes_0.01")
    x = pytensor.shared(np.zeros(10), name="x")
    options = {"step_size": step_size, "prox": problem.penalty, "max_iterations": 3000, "tolerance": 1.0}
    result = optapi.compile_minimizer([x], problem.cost(x), rule, mode=PYTHON, **options)()
    assert problem.excess(result.x[0]) <= 1e-6
    np.testing.assert_allclose(result.fun, problem.evaluate(result.x[0]), rtol=1e-12)
    assert result.x[0][0] == 0
    assert result.success


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (optapi.sgd, {"momentum": 0.9}),
        (optapi.sgd, {"momentum": 0.9, "nesterov": True}),
        (optapi.sgd, {"momentum": 0.9, "dampening": 0.5}),
        (optapi.momentum, {}),
        (optapi.nesterov, {}),
        (optapi.rmsprop, {"momentum": 0.9}),
        (optapi.adam, {}),
    ],
)
def test_a_momentum_leads_to_the_minimum(rule, options):
    """A gradient counts in all later steps, and so does the penalty."""
    x = pytensor.shared(np.array([1.0, 1.0]), name="x")
    cost = pt.sum((x - [3, 0.5]) ** 2) / 2
    step = pytensor.function(
        [], [], updates=rule([x], cost, step_size=0.01, prox=optapi.prox.L1(1.0), **options), mode=optapi.PYTHON
    )
    for _ in range(4000):
        step()
    np.testing.assert_allclose(x.get_value(), [2, 0], atol=0.02)
