"""`sqp` and `augmented_lagrangian`: minima, multipliers, verdicts."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from constrained import PROBLEMS
from reference import constrained as reference

import optapi
from optapi.graph.numpy_linker import STEP


def run(rule, start, cost, constraints, calls=300, inner=None, dtype="float64", mode=STEP, **options):
    """The point after the last call of a rule, its updates, and what it reports."""
    x, stop = pytensor.shared(np.array(start, dtype), name="x", shape=np.shape(start)), pytensor.shared(0, name="stop")
    options = {"rule": inner, **options} if inner else options
    updates = rule([x], cost(x), stop=stop, constraints=constraints(x), **options)
    step = pytensor.function([], [], updates=updates, mode=mode)
    count = 0
    while not stop.get_value() and count < calls:
        step()
        count += 1
    return x.get_value(), updates, {role: v[0].get_value().item() for role, v in optapi.reports(updates).items()}


def solve(rule, problem, **options):
    """The same of one of the problems."""
    bounds = (problem.low, problem.high)
    return run(
        rule,
        problem.start,
        lambda x: problem.on(x)[0],
        lambda x: problem.on(x)[1],
        bounds=bounds,
        calls=9000,
        **options,
    )


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_sqp_is_at_the_minimum(problem):
    x, updates, said = solve(optapi.sqp, problem)
    assert np.all((problem.low <= x) & (x <= problem.high))
    assert said["violation"] <= 1e-6
    assert problem.reached(said["cost"], 1e-5) is not None
    assert said["reason"] in (0, 7)
    # The multipliers, from the compiled derivatives.
    evaluate, dictionaries = problem.compiled(STEP)
    found = optapi.multipliers(updates)
    of_bounds = found.pop() if problem.is_bounded else np.zeros_like(x)
    gradient, of_rows = evaluate(x)[1] - of_bounds, []
    for constraint in dictionaries:
        y = np.array([found.pop(0) for _ in constraint["fun"](x)])
        of_rows.append(y)
        gradient = gradient - constraint["jac"](x).T @ y
        if constraint["type"] == "ineq":
            assert np.all(y >= -1e-6)
            assert np.all(abs(y * constraint["fun"](x)) <= 1e-4 * max(1, abs(y).max()))
    scale = max(1, *(abs(y).max() for y in of_rows), abs(evaluate(x)[1]).max())
    assert abs(gradient).max() <= 1e-4 * scale
    inside = (x > problem.low) & (x < problem.high)
    assert np.all(abs(of_bounds[inside]) <= 1e-4 * scale)
    if problem.is_bounded:
        assert np.array_equal(optapi.active(updates)[0] == 0, inside)


@pytest.mark.parametrize(("name", "most"), [("HS108", 25), ("HS61", 60)])
def test_multipliers_that_are_not_determined_do_no_harm(name, most):
    """HS108 has active constraints whose gradients depend on each other, HS61 a Jacobian of rank 1 at the start."""
    [problem] = [p for p in PROBLEMS if str(p) == name]
    _, _, said = solve(optapi.sqp, problem)
    assert said["reason"] == 0
    assert said["evaluations"] <= most


SOME = [p for p in PROBLEMS if str(p) in ("HS10", "HS18", "HS36", "HS39", "HS61", "HS64", "HS76", "HS77")]


@pytest.mark.parametrize("problem", SOME, ids=str)
def test_the_augmented_lagrangian_is_at_the_minimum(problem):
    x, _, said = solve(optapi.augmented_lagrangian, problem)
    assert np.all((problem.low <= x) & (x <= problem.high))
    assert said["violation"] <= 1e-6
    assert problem.reached(said["cost"], 1e-5) == problem.minimum
    assert said["reason"] == 0


def circle(x):
    return [(pt.sum(x**2), 1, 2), (x[0] - x[1] ** 3, 0.25)]


def test_sqp_goes_the_way_of_its_twin():
    """Point by point, with each quadratic program solved by trying all active sets."""

    def values(x):
        return np.array([x @ x, x[0] - x[1] ** 3])

    def jacobian(x):
        return np.array([2 * x, [1, -3 * x[1] ** 2]])

    def cost(x):
        return (x[0] - 2) ** 2 + x[0] * x[1] + x[1] ** 4

    def gradient(x):
        return np.array([2 * (x[0] - 2) + x[1], x[0] + 4 * x[1] ** 3])

    start = np.array([0.5, 0.8])
    low, high = np.array([1, 0.25]), np.array([2, 0.25])
    points, y = reference.sqp(start, cost, gradient, values, jacobian, low, high, 6)
    x = pytensor.shared(start, name="x", shape=(2,))
    updates = optapi.sqp([x], cost(x), constraints=circle(x), tolerance=None)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    for point in points:
        step()
        np.testing.assert_allclose(x.get_value(), point, atol=1e-7)
    np.testing.assert_allclose(optapi.multipliers(updates), y, atol=1e-5)


@pytest.mark.parametrize("rule", [optapi.sqp, optapi.augmented_lagrangian])
@pytest.mark.parametrize(
    ("constraints", "violation"),
    [
        (lambda x: [(x[0], 1, None), (x[0], None, 0)], 0.5),
        (lambda x: (pt.sum(x**2), -1), 1.0),
        (lambda x: [(x, np.array([3, -np.inf]), np.array([np.inf, -3])), (x[0] - x[1], 0)], 2.0),
    ],
)
def test_what_cannot_be_says_so(rule, constraints, violation):
    _, _, said = run(rule, [3.0, 4.0], lambda x: pt.sum((x - 1) ** 2), constraints)
    assert said["reason"] == 6
    assert said["violation"] >= 0.99 * violation


def test_a_cost_without_bound_says_so():
    _, _, said = run(optapi.sqp, [3.0, 4.0], lambda x: -(x[0] ** 3) - x[1], lambda x: [(x[0], 1, None)])
    assert said["reason"] == 8


@pytest.mark.parametrize(
    ("cost", "constraint"),
    [
        (lambda x: x[0] + x[1], lambda x: [(x[0], 0, None)]),
        (lambda x: -x[0], lambda x: [(x[1], None, 4)]),
        (lambda x: -x[0] - x[1], lambda x: [(x[0] - x[1], 0)]),
    ],
)
def test_a_linear_cost_without_bound_is_no_success(cost, constraint):
    _, _, said = run(optapi.sqp, [1.0, 1.0], cost, constraint)
    assert said["reason"] in (2, 8)


def test_multipliers_that_grow_without_limit_are_no_success_elsewhere():
    """HS13, whose minimum at (1, 0) has no multipliers."""
    x, _, said = run(
        optapi.sqp, [-2.0, -2.0], lambda x: (x[0] - 2) ** 2 + x[1] ** 2, lambda x: [((1 - x[0]) ** 3 - x[1], 0, None)],
        bounds=(0, None),
    )  # fmt: skip
    assert said["reason"] != 0 or abs(x - [1, 0]).max() < 0.01


@pytest.mark.parametrize("rule", [optapi.sqp, optapi.augmented_lagrangian])
def test_a_cost_that_is_not_a_number_in_places(rule):
    x, _, said = run(rule, [3.0, 4.0], lambda x: pt.sum(x**2) - pt.sqrt(x[0] - 1), lambda x: (x[0] * x[1], 1, None))
    assert said["reason"] == 0
    assert np.isfinite(x).all()
    _, _, said = run(rule, [0.5, 4.0], lambda x: pt.sum(x**2) - pt.sqrt(x[0] - 1), lambda x: (x[0] * x[1], 1, None))
    assert said["reason"] == 3


@pytest.mark.parametrize("rule", [optapi.sqp, optapi.augmented_lagrangian])
def test_ascent_turns_the_signs(rule):
    x, updates, said = run(
        rule, [0.3, 0.1], lambda x: x[0] + 2 * x[1], lambda x: (pt.sum(x**2), None, 1), ascent=True,
        bounds=(None, np.array([np.inf, 0.5])),
    )  # fmt: skip
    np.testing.assert_allclose(x, [np.sqrt(0.75), 0.5], atol=1e-6)
    y, w = optapi.multipliers(updates)
    # The optimal cost grows with the limit of the circle and with the bound.
    np.testing.assert_allclose(y, 1 / (2 * np.sqrt(0.75)), rtol=1e-4)
    np.testing.assert_allclose(w, [0, 2 - y], atol=1e-4)
    assert said["cost"] == pytest.approx(np.sqrt(0.75) + 1)


def test_limits_may_be_variables():
    x, stop = pytensor.shared(np.array([3.0, 1.0]), name="x"), pytensor.shared(0, name="stop")
    total = pt.dscalar("total")
    updates = optapi.sqp([x], pt.sum(x**2), stop=stop, constraints=[(pt.sum(x), total, None)])
    step = pytensor.function([total], [], updates=updates, mode=STEP)
    for limit in (2.0, 4.0):
        stop.set_value(0)
        while not stop.get_value():
            step(limit)
        np.testing.assert_allclose(x.get_value(), limit / 2, atol=1e-6)


@pytest.mark.parametrize("rule", [optapi.sqp, optapi.augmented_lagrangian])
def test_single_precision(rule):
    x, _, said = run(
        rule, [1, 2, 3], lambda x: pt.sum((x - 5) ** 2), lambda x: [(pt.sum(x**2), None, 12), (x[0] - x[2], 0)],
        dtype="float32", tolerance=1e-3, bounds=(None, 2.5),
    )  # fmt: skip
    assert x.dtype == "float32"
    assert said["reason"] in (0, 7)
    np.testing.assert_allclose(x, 2, atol=2e-3)


def test_the_augmented_lagrangian_keeps_its_multipliers_where_rounding_ends_it():
    x, updates, said = run(
        optapi.augmented_lagrangian, [0, 0], lambda x: pt.sum((x - 3) ** 2), lambda x: (pt.sum(x**2), None, 1),
        dtype="float32",
    )  # fmt: skip
    assert said["reason"] in (0, 7)
    np.testing.assert_allclose(x, np.sqrt(0.5), rtol=1e-4)
    np.testing.assert_allclose(optapi.multipliers(updates), 1 - 3 * np.sqrt(2), rtol=1e-2)


def test_several_parameters_one_of_which_is_in_a_constraint_alone():
    """The smallest ball around points, whose cost is its radius."""
    points = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    center, radius = pytensor.shared(np.array([0.3, 2.0]), name="center"), pytensor.shared(5.0, name="radius")
    stop = pytensor.shared(0, name="stop")
    inside = radius**2 - pt.sum((points - center) ** 2, axis=1)
    updates = optapi.sqp([center, radius], radius, stop=stop, constraints=(inside, 0, None), bounds={radius: (0, None)})
    step = pytensor.function([], [], updates=updates, mode=STEP)
    while not stop.get_value():
        step()
    np.testing.assert_allclose(center.get_value(), [1, 0], atol=1e-5)
    assert radius.get_value() == pytest.approx(1, abs=1e-6)
    assert optapi.multipliers(updates)[0].shape == (3,)


@pytest.mark.parametrize("rule", [optapi.trust_region_cg, optapi.bfgs, optapi.adam])
def test_any_rule_can_be_inside(rule):
    options = {"step_size": 0.02, "inner_iterations": 300} if rule is optapi.adam else {}
    x, _, said = run(
        optapi.augmented_lagrangian, [2.0, 0.5], lambda x: pt.sum((x - 3) ** 2), lambda x: (pt.sum(x**2), None, 2),
        inner=rule, calls=5000, tolerance=1e-4, **options,
    )  # fmt: skip
    np.testing.assert_allclose(x, 1, atol=1e-3)
    assert said["reason"] == 0


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (3, "constraints is a int"),
        ([3], r"constraints\[0\] is a int"),
        (lambda x, y: [(1.0, 2)], r"constraints\[0\] has a float in the place of an expression"),
        (lambda x, y: [(x, 2), (y, 1)], r"constraints\[1\] does not depend on any of the parameters"),
        (lambda x, y: (pt.round(x).astype("int64"), 1), r"constraints\[0\] is of type"),
        (lambda x, y: (x, 2, 1), r"constraints\[0\] has a low above its high"),
        (lambda x, y: (x, None, None), r"constraints\[0\] has no limit"),
        (lambda x, y: (x, np.nan), "low that is NaN"),
        (lambda x, y: (x, "a"), "low that is a str"),
        (lambda x, y: (x, np.arange(3.0)), "does not broadcast"),
        (lambda x, y: (x, x), "depends on the parameters"),
        (lambda x, y: (x, np.inf, None), "leaves no point"),
        (lambda x, y: (x[: pt.cast(y, "int64")], 0), "has no static shape"),
    ],
)
def test_what_is_wrong_is_named(constraints, words):
    x, y = pytensor.shared(np.ones(2), name="x"), pytensor.shared(1.0, name="y")
    given = constraints(x, y) if callable(constraints) else constraints
    with pytest.raises((TypeError, ValueError), match=words):
        optapi.sqp([x], pt.sum(x**2), constraints=given)


def test_rules_that_do_not_fit_say_so():
    x = pytensor.shared(np.ones(2), name="x")
    with pytest.raises(TypeError, match="bfgs takes no bounds"):
        optapi.augmented_lagrangian([x], pt.sum(x**2), constraints=(x, 1), bounds=(0, 1), rule=optapi.bfgs)
    with pytest.raises(TypeError, match="rule is a int"):
        optapi.augmented_lagrangian([x], pt.sum(x**2), constraints=(x, 1), rule=3)
    with pytest.raises(TypeError, match="lbfgs has l1"):
        optapi.augmented_lagrangian([x], pt.sum(x**2), constraints=(x, 1), l1=1.0)
    with pytest.raises(ValueError, match="penalty is 0"):
        optapi.augmented_lagrangian([x], pt.sum(x**2), constraints=(x, 1), penalty=0)
    with pytest.raises(ValueError, match="no rule in updates has constraints"):
        optapi.multipliers(optapi.sgd([x], pt.sum(x**2), step_size=0.1))
    with pytest.raises(ValueError, match="no rule in updates has bounds"):
        optapi.active(optapi.sgd([x], pt.sum(x**2), step_size=0.1))


@pytest.mark.parametrize("mode", [pytest.param("JAX", marks=pytest.mark.jax)])
@pytest.mark.parametrize("rule", [optapi.sqp, optapi.augmented_lagrangian])
def test_backends_agree(rule, mode):
    [problem] = [p for p in PROBLEMS if str(p) == "HS43"]
    _, _, said = solve(rule, problem)
    _, _, other = solve(rule, problem, mode=mode)
    # Rounding decides when an inner minimization ends.
    assert said["evaluations"] == pytest.approx(other["evaluations"], rel=0 if rule is optapi.sqp else 0.2)
    assert said["reason"] == other["reason"]
    assert said["cost"] == pytest.approx(other["cost"], rel=1e-6)
