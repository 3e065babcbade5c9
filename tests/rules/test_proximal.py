"""Proximal rules: each step, certified minima, sets, drivers."""

import nonsmooth
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import bounded
from reference import nonsmooth as reference
from test_first_order import assert_close
from test_l1 import Run, quadratic

import optapi
from optapi import PYTHON, prox


@pytest.mark.parametrize("accelerated", [True, False])
def test_each_step(accelerated):
    cost, cost_and_gradient = quadratic()
    run = Run(np.linspace(-2, 2, 9), cost, rule=optapi.proximal_gradient, prox=prox.L1(2.0), accelerated=accelerated)
    points, counts = [], []
    for x in run:
        points.append(x)
        counts.append(int(run.evaluations))
        if len(points) == 30:
            break
    wanted, evaluations = reference.proximal_gradient(
        np.linspace(-2, 2, 9),
        cost_and_gradient,
        lambda v, t: reference.soft(v, 2 * t),
        len(points),
        accelerated=accelerated,
    )
    assert_close([[p] for p in points], [[w] for w in wanted], tolerance=1e-8)
    assert counts == evaluations
    if not accelerated:
        costs = [cost_and_gradient(x)[0] + 2 * np.sum(abs(x)) for x in points]
        assert np.all(np.diff(costs) <= 1e-12)


def test_each_step_of_the_quasi_newton_rule():
    """From each point and the pairs there, with inner iterations to the end."""
    cost, cost_and_gradient = quadratic()
    run = Run(np.linspace(-2, 2, 9), cost, rule=optapi.proximal_lbfgs, prox=prox.L1(2.0), steps=100000, tolerance=1e-8)
    x, pairs, checked = np.linspace(-2, 2, 9), [], 0
    for new in run:
        _, g = cost_and_gradient(x)
        if pairs:
            theta, W, M = bounded.compact(pairs, 9)
            B = theta * np.eye(9) - W @ M @ W.T
            y = reference.minimized_model(g, B, x, lambda v, t: reference.soft(v, 2 * t))
            model = [g @ (z - x) + (z - x) @ B @ (z - x) / 2 + 2 * np.sum(abs(z)) for z in (x, y, new)]
            # The inner iterations end where their residual is a tenth of the outer one.
            assert model[2] - model[1] <= 0.1 * (model[0] - model[1]) + 1e-11
            checked += 1
        s, change = new - x, cost_and_gradient(new)[1] - g
        if s @ change > 1e-14:
            pairs = [*pairs, (s, change)][-10:]
        x = new
    assert checked > 5
    assert run.reason == 0


EVALUATIONS = {"proximal_gradient": {}, "proximal_lbfgs": {}}


@pytest.mark.parametrize("rule", [optapi.proximal_gradient, optapi.proximal_lbfgs], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", nonsmooth.NAMES)
def test_certified_minima(name, rule):
    problem, counts = nonsmooth.problem(name), EVALUATIONS[rule.__name__]
    tolerance = 1e-6 * problem.minimum**0.5
    run = Run(np.zeros(problem.size), problem.cost, rule=rule, prox=problem.penalty, tolerance=tolerance)
    for x in run:
        if name not in counts and problem.excess(x) <= 1e-7:
            counts[name] = int(run.evaluations)
    assert run.reason == 0
    assert run.gradient_size <= tolerance
    assert problem.excess(run.x) <= 2e-11
    np.testing.assert_array_equal(np.flatnonzero(run.x), problem.support)
    np.testing.assert_allclose(run.cost, problem.evaluate(run.x), rtol=1e-14)
    if all(len(counts) == len(nonsmooth.NAMES) for counts in EVALUATIONS.values()):
        first, second = (np.median(list(counts.values())) for counts in EVALUATIONS.values())
        assert second <= first / 4


RULES = [optapi.proximal_gradient, optapi.proximal_lbfgs]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sets_and_a_start_outside(rule):
    """The projection of a point is the minimizer of the distance; a start outside of the set is no minimizer."""
    a = np.array([0.9, 0.8, -1.0, 0.1])
    near = pytensor.function([], prox.Simplex().project(a), mode=PYTHON)()
    for start in (a, np.zeros(4)):
        run = Run(start, lambda x: pt.sum((x - a) ** 2) / 2, rule=rule, prox=prox.Simplex(), tolerance=1e-8)()
        np.testing.assert_allclose(run.x, near, atol=1e-6)
        result = optapi.minimize(
            start, lambda x: np.sum((x - a) ** 2) / 2, lambda x: x - a, rule, prox=prox.Simplex(), tolerance=1e-8
        )
        np.testing.assert_allclose(result, near, atol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_several_parameters_and_a_low_rank(rule):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(5, 4))
    W, b, stop = pytensor.shared(np.zeros((5, 4)), name="W"), pytensor.shared(1.0, name="b"), pytensor.shared(0)
    cost = pt.sum((W - target) ** 2) / 2 + pt.sum((W + b) ** 2) * 0 + (b - 3) ** 2
    updates = rule([W, b], cost, stop=stop, prox={W: prox.Nuclear(1.5)}, tolerance=1e-7)
    step = pytensor.function([], [], updates=updates, mode=PYTHON)
    while not stop.get_value():
        step()
    left, s, right = np.linalg.svd(target, full_matrices=False)
    np.testing.assert_allclose(W.get_value(), left * np.maximum(s - 1.5, 0) @ right, atol=1e-6)
    np.testing.assert_allclose(b.get_value(), 3, atol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_in_single_precision_under_ascent_and_in_a_batch(rule):
    cost, _ = quadratic()
    double = Run(np.zeros(9), cost, rule=rule, prox=prox.L1(2.0), tolerance=1e-7)()
    single = Run(np.zeros(9), cost, rule=rule, prox=prox.L1(2.0), dtype="float32", tolerance=1e-3)()
    assert single.x.dtype == np.float32
    np.testing.assert_allclose(single.x, double.x, atol=5e-3)
    up = Run(np.zeros(9), lambda x: -cost(x), rule=rule, prox=prox.L1(2.0), tolerance=1e-7, ascent=True)()
    np.testing.assert_array_equal(up.x, double.x)
    assert up.cost == -double.cost
    p, stop = pytensor.shared(np.zeros(9), name="p"), pytensor.shared(0, name="stop")
    updates = rule([p], cost(p), stop=stop, prox=prox.L1(2.0), tolerance=1e-7)
    wide = pytensor.shared(np.random.default_rng(0).normal(size=(3, 9)), name="wide")
    together = pytensor.function([], [], updates=optapi.batch(updates, {p: wide}), mode=PYTHON)
    for _ in range(150):
        together()
    np.testing.assert_allclose(wide.get_value(), np.broadcast_to(double.x, (3, 9)), atol=1e-5)


def test_the_drivers_count_the_penalty():
    """Of rules that report the cost and of those that do not, with NumPy functions and with expressions."""
    problem = nonsmooth.problem("lasso_diabetes2_0.5")
    X, y = nonsmooth.data("diabetes2")

    def f(w):
        return np.sum((X @ w - y) ** 2) / 2, X.T @ (X @ w - y)

    for rule in (optapi.proximal_gradient, optapi.proximal_lbfgs):
        result = optapi.minimize(np.zeros(65), f, True, rule, prox=problem.penalty, tolerance=1e-3, full_output=True)
        np.testing.assert_allclose(result.fun, problem.minimum, rtol=1e-12)
        assert result.success
        assert "residual" in result.message
    x, weight = pytensor.shared(np.zeros(65), name="x"), pt.dscalar("weight")
    run = optapi.compile_minimizer(
        [x], problem.cost(x), "proximal_lbfgs", prox=prox.L1(weight), inputs=[weight], mode=PYTHON, tolerance=1e-3
    )
    for share in (2.0, 1.0):
        result = run(share * problem.l1)
    np.testing.assert_allclose(result.fun, problem.minimum, rtol=1e-12)
    np.testing.assert_array_equal(np.flatnonzero(result.x[0]), problem.support)


def test_a_penalty_of_ones_own():
    class Square:
        def value(self, x):
            return pt.sum(x**2)

        def prox(self, v, t):
            return v / (1 + 2 * t)

    cost, cost_and_gradient = quadratic()
    run = Run(np.zeros(9), cost, rule=optapi.proximal_lbfgs, prox=Square(), tolerance=1e-8)()
    np.testing.assert_allclose(cost_and_gradient(run.x)[1] + 2 * run.x, 0, atol=1e-7)


@pytest.mark.parametrize(("penalty", "message"), [
    (1.0, "prox of 'p' is a float; pass one of optapi.prox"),
    (prox.L1, "prox of 'p' is a type"),
    ({"q": prox.L1(1.0)}, "prox has a key 'q', which is none of the parameters"),
    ([prox.L1(1.0), None], "prox has 2 entries for 1 parameters"),
    (None, "prox has no penalty"),
])  # fmt: skip
def test_what_is_wrong_is_refused(penalty, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Run(np.zeros(9), quadratic()[0], rule=optapi.proximal_gradient, prox=penalty)


def test_weights_do_not_depend_on_the_parameters():
    p = pytensor.shared(np.ones(3), name="p")
    with pytest.raises(ValueError, match="weight of the prox of 'p' depends on the parameters"):
        optapi.proximal_gradient([p], pt.sum(p**2), prox=prox.L1(abs(p)))


@pytest.mark.parametrize(
    "mode",
    [pytest.param("NUMBA", marks=[pytest.mark.numba, pytest.mark.long]), pytest.param("JAX", marks=pytest.mark.jax)],
)
def test_backends(mode):
    pytest.importorskip("jax" if mode == "JAX" else "numba")
    cost, _ = quadratic()
    options = {"rule": optapi.proximal_lbfgs, "prox": prox.GroupL2(2.0, groups=[0, 0, 0, 1, 1, 1, 2, 2, 2])}
    python, other = Run(np.zeros(9), cost, **options)(), Run(np.zeros(9), cost, mode=mode, **options)()
    np.testing.assert_allclose(other.x, python.x, atol=1e-5)
    np.testing.assert_array_equal(other.x == 0, python.x == 0)


# Frank-Wolfe


def l1_corner(g):
    return np.where(np.arange(g.size) == np.argmax(abs(g)), -3.0 * np.sign(g), 0.0)


def test_each_step_to_a_corner():
    cost, cost_and_gradient = quadratic()
    run = Run(np.zeros(9), cost, rule=optapi.frank_wolfe, region=prox.L1Ball(3.0), tolerance=1e-3)
    points, gaps = [], []
    for x in run:
        points.append(x)
        gaps.append(float(run.gradient_size))
        if len(points) == 30:
            break
    wanted, _ = reference.frank_wolfe(np.zeros(9), cost_and_gradient, l1_corner, len(points))
    assert_close([[p] for p in points], [[w] for w in wanted], tolerance=1e-8)
    gradients = [cost_and_gradient(x)[1] for x in points]
    np.testing.assert_allclose(
        gaps, [g @ (x - l1_corner(g)) for x, g in zip(points, gradients, strict=True)], atol=1e-9
    )
    assert np.sum(points[2] != 0) <= 3


CORNERS = [
    prox.Simplex(2.0),
    prox.L1Ball(1.5),
    prox.L2Ball(1.5),
    prox.LinfBall(0.7),
    prox.Box(-0.5, np.linspace(0, 1, 9)),
]


@pytest.mark.parametrize("region", CORNERS, ids=lambda region: type(region).__name__)
def test_corners_are_the_least_points(region):
    g, x = pt.vector("g", shape=(9,)), pt.vector("x", shape=(9,))
    corner = pytensor.function([g], region.minimize(g), mode=PYTHON)
    inside = pytensor.function([x], region.project(x), mode=PYTHON)
    rng = np.random.default_rng(0)
    for slope in rng.normal(size=(20, 9)):
        s = corner(slope)
        np.testing.assert_allclose(inside(s), s, atol=1e-12)
        assert all(slope @ s <= slope @ inside(3 * v) + 1e-12 for v in rng.normal(size=(20, 9)))


def test_the_gap_bounds_the_excess():
    cost, cost_and_gradient = quadratic()
    exact = Run(np.zeros(9), cost, rule=optapi.proximal_lbfgs, prox=prox.L1Ball(3.0), tolerance=1e-9)()
    for options in ({}, {"step_size": lambda k: 2 / (k + 2)}):
        run = Run(np.full(9, 7.0), cost, rule=optapi.frank_wolfe, region=prox.L1Ball(3.0), tolerance=0.05, **options)()
        assert np.sum(abs(run.x)) <= 3 + 1e-12
        assert run.reason == 0
        assert -1e-12 <= run.cost - exact.cost <= run.gradient_size <= 0.05
    # A start outside is no minimizer, though its cost may be lower.
    result = optapi.minimize(
        np.full(9, 3.0), lambda x: cost_and_gradient(x), True, "frank_wolfe", region=prox.L1Ball(3.0), tolerance=0.05
    )
    np.testing.assert_allclose(cost_and_gradient(result)[0], exact.cost, atol=0.05)


def test_regions_that_are_none():
    cost, _ = quadratic()
    with pytest.raises(TypeError, match="region of 'p' is a L1; pass one of"):
        Run(np.zeros(9), cost, rule=optapi.frank_wolfe, region=prox.L1(1.0))
    with pytest.raises(TypeError, match="Isotonic has no point of least"):
        Run(np.zeros(9), cost, rule=optapi.frank_wolfe, region=prox.Isotonic())
    with pytest.raises(TypeError, match="region of 'p' is None"):
        Run(np.zeros(9), cost, rule=optapi.frank_wolfe, region={})


@pytest.mark.parametrize("rule", [*RULES, optapi.frank_wolfe], ids=lambda rule: rule.__name__)
def test_a_noisy_cost_never_converges(rule):
    rng = pt.random.shared_rng(seed=1)
    next_rng, noise = rng.normal(size=(9,))
    p, stop = pytensor.shared(np.zeros(9), name="p"), pytensor.shared(0, name="stop")
    options = {"region": prox.L1Ball(3.0)} if rule is optapi.frank_wolfe else {"prox": prox.L1(1.0)}
    cost = quadratic()[0](p) + 1e-9 * pt.sum(noise * p)
    with pytest.warns(optapi.OptimizationWarning, match="the cost draws random numbers"):
        updates = rule([p], cost, stop=stop, updates={rng: next_rng}, tolerance=1e3, **options)
    step = pytensor.function([], [], updates=updates, mode=PYTHON)
    for _ in range(5):
        step()
    assert not stop.get_value()


def test_a_cost_without_bound():
    run = Run(np.zeros(2), lambda x: -3 * pt.sum(x), rule=optapi.proximal_lbfgs, prox=prox.L1(1.0))()
    assert run.reason == 8


@pytest.mark.parametrize(("rule", "options"), [
    (optapi.lbfgs, {"l1": 1.0}),
    (optapi.proximal_gradient, {"prox": prox.L1(1.0)}),
    (optapi.proximal_lbfgs, {"prox": prox.L1(1.0)}),
    (optapi.frank_wolfe, {"region": prox.L1Ball(2.0)}),
], ids=lambda part: getattr(part, "__name__", ""))  # fmt: skip
def test_parameters_without_components_have_converged(rule, options):
    run = Run(np.zeros(0), lambda x: pt.sum((x - 3.0) ** 2), rule=rule, **options)()
    assert run.reason == 0
