"""Rules with bounds: steps against a NumPy twin, minima, and that no point is ever outside."""

import bounded
import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from reference import bounded as reference
from test_first_order import assert_close, trajectory

import optapi
from optapi import PYTHON, line_search
from optapi.feasible import Box
from optapi.graph.numpy_linker import STEP
from optapi.rules._linear_algebra import CompactHessian
from optapi.rules._projected import cauchy_step, newton_step


BOUNDED = {problem.name: problem for problem in bounded.PROBLEMS}


class Run:
    """A minimization by calls of one compiled function; each point that it holds is inside exactly."""

    def __init__(self, start, cost, low, high, rule=optapi.lbfgs, mode=STEP, **options):
        self.p, self.stop = pytensor.shared(np.array(start), name="p"), pytensor.shared(0, name="stop")
        self.low, self.high = (np.asarray(side, self.p.type.dtype) for side in (low, high))
        bounds = {self.p: (np.asarray(low), np.asarray(high))}
        self.updates = rule([self.p], cost(self.p), stop=self.stop, bounds=bounds, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=mode)

    def __call__(self, calls=1000):
        for _ in range(calls):
            if self.stop.get_value():
                break
            self.step()
            x = self.p.get_value()
            assert np.all((self.low <= x) & (x <= self.high))
        return self

    def __getattr__(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]

    @property
    def x(self):
        return self.p.get_value()


def of(problem, **options):
    return Run(problem.start, problem.cost, problem.low, problem.high, **options)


# Each step of L-BFGS-B

BOXES = {
    "quadratic": (problems.quadratic(), [0.1, -np.inf, -0.5, -1.0, -np.inf, 0.2], [2.0, 0.3, np.inf, 0.0, 0.1, 0.2]),
    "rosenbrock": (problems.rosenbrock(8), -2.0, [np.inf, 0.5] * 4),
    "rosenbrock from outside": (problems.rosenbrock(), 0.3, 0.9),
}


def steps(name, **options):
    problem, low, high = BOXES[name]
    run = Run(problem.starts[0], lambda x: problem.cost([x]), low, high, tolerance=1e-7, **options)
    points, counts = [], []
    while not run.stop.get_value():
        points += trajectory([run.p], run.step, 1)
        counts.append(int(run.evaluations))
    return [point for (point,) in points], counts


EACH = [("quadratic", reference.lbfgs, optapi.lbfgs, {"memory": 10})]
EACH += [("rosenbrock", reference.lbfgs, optapi.lbfgs, {"memory": 3})]
EACH += [("rosenbrock from outside", reference.lbfgs, optapi.lbfgs, {"memory": 10})]
EACH += [("rosenbrock", reference.spectral_projected_gradient, optapi.barzilai_borwein, {})]


@pytest.mark.parametrize(("name", "twin", "rule", "options"), EACH)
def test_each_step(name, twin, rule, options):
    """Every step and its number of trials, from the point and the pairs that the trajectory has."""
    problem, low, high = BOXES[name]
    points, counts = steps(name, rule=rule, **options)
    low, high = (np.broadcast_to(side, points[0].shape).astype(float) for side in (low, high))

    def cost_and_gradient(x):
        f, (g,) = problem.value_and_gradients([x])
        return f, g

    wanted, evaluations = twin(problem.starts[0], cost_and_gradient, low, high, len(points), along=points, **options)
    # The last steps are at round-off level.
    assert len(points) > 6
    assert_close([[p] for p in points[:-2]], [[w] for w in wanted[:-2]], tolerance=1e-8)
    assert counts[:-2] == evaluations[:-2]
    assert np.any((points[-1] == low) | (points[-1] == high))


def pairs_of(count, n=7, memory=4, seed=0):
    """Pairs of a convex quadratic, and the `CompactHessian` that they were pushed into, evaluated."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    p = pytensor.shared(np.zeros(n))
    state = CompactHessian.begin(optapi.Objective.of([p], pt.sum(p**2), name="test"), memory)
    s, y = pt.dvectors("s", "y")
    pushed = dict(zip(state[1:], state.push(s, y)[1:], strict=True))
    push = pytensor.function([s, y], [], updates=pushed, mode=PYTHON)
    pairs = [(v, root @ root.T @ v + v) for v in rng.normal(size=(count, n))]
    for pair in pairs:
        push(*pair)
    return pairs[-memory:], CompactHessian(*(v.get_value() for v in state))


def by_recursion(pairs, n):
    """B by Nocedal and Wright (2006), equation 6.19, from theta I."""
    s, y = pairs[-1]
    B = (y @ y) / (s @ y) * np.eye(n)
    for s, y in pairs:
        B = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (s @ y)
    return B


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_the_compact_hessian_is_that_of_the_recursion(count):
    pairs, H = pairs_of(count)
    B, V = by_recursion(pairs, 7), H.vectors
    np.testing.assert_allclose(H.scale * (np.eye(7) - V.T @ np.linalg.solve(H.matrix(), V)), B, atol=1e-9 * H.scale)
    K = CompactHessian(*map(pt.constant, H)).inverse_matrix().eval(mode=PYTHON)
    np.testing.assert_allclose(K @ H.matrix(), np.eye(8), atol=1e-8)
    inverse = np.column_stack([H.times(e) for e in np.eye(7)])
    np.testing.assert_allclose(inverse @ B, np.eye(7), atol=1e-8)
    # With bounds, the inverse on the components inside.
    active = np.array([1.0, 0, 0, -1, 0, 0, 0])
    free = active == 0
    inverse = np.column_stack([H._replace(active=active).times(e) for e in np.eye(7)])
    np.testing.assert_allclose(inverse[np.ix_(free, free)] @ B[np.ix_(free, free)], np.eye(5), atol=1e-8)
    assert not np.any(inverse[~free]) and not np.any(inverse[:, ~free])


@pytest.mark.parametrize("width", [1, 100])
@pytest.mark.parametrize("seed", range(4))
def test_the_cauchy_point_is_the_first_minimizer_on_the_path(seed, width):
    """The model falls all the way to it along the projected path, and not behind it.

    In the wide box it is in front of the first breakpoint.
    """
    pairs, H = pairs_of(3, seed=seed)
    rng = np.random.default_rng(seed)
    g, low, high = 3 * rng.normal(size=7), -width * rng.random(7), width * rng.random(7)
    x = np.where(rng.random(7) < 0.3, low, rng.uniform(low, high))
    high[0] = np.inf
    room = Box(pt.constant(low - x), pt.constant(high - x))
    found = cauchy_step(room, pt.constant(g), CompactHessian(*map(pt.constant, H)))
    step, free = pytensor.function([], found, mode=PYTHON)()
    np.testing.assert_array_equal(free, (step != low - x) & (step != high - x))
    point = x + step
    stuck = np.where(g < 0, x == high, x == low)
    assert np.any(free) and np.array_equal(free, ~stuck) == (width == 100 or seed == 1)
    B = by_recursion(pairs, 7)

    def model(t):
        d = np.clip(x - t * g, low, high) - x
        return g @ d + d @ B @ d / 2

    t = ((x - point) / g)[free]
    np.testing.assert_allclose(t, t[0])
    np.testing.assert_allclose(np.clip(x - t[0] * g, low, high), point, atol=1e-15)
    before = [model(share * t[0]) for share in np.linspace(0, 1, 500)]
    assert np.all(np.diff(before) < 0)
    assert model(1.001 * t[0]) > before[-1]


@pytest.mark.numba
@pytest.mark.filterwarnings("ignore:np.dot")  # of PyTensor 3.0, of parts of matrices outside of loops
@pytest.mark.parametrize("n", [7, 60])
def test_the_cauchy_point_is_the_same_under_numba(n):
    """There intervals are looked at one after another, here all at once; also with ties, corners and no way at all."""
    _, H = pairs_of(3, n=n)
    fields = [pt.tensor(dtype=np.asarray(v).dtype, shape=np.shape(v)) for v in H]
    g, low, high = (pt.tensor(shape=(n,), dtype="float64") for _ in range(3))
    outputs = cauchy_step(Box(low, high), g, CompactHessian(*fields))
    functions = [pytensor.function([*fields, g, low, high], outputs, mode=mode, on_unused_input="ignore")
                 for mode in (PYTHON, "NUMBA")]  # fmt: skip
    rng, behind = np.random.default_rng(n), 0
    for case in range(60):
        scale = 10.0 ** rng.integers(-4, 3)
        sides = [sign * scale * rng.random(n) for sign in (-1, 1)]
        if case % 3 == 1:  # ties, and components that do not move
            sides = [np.round(side / scale) * scale for side in sides]
        elif case % 3 == 2:
            sides[1][: n // 2] = np.inf
        slope = rng.normal(size=n) * (rng.random(n) < 0.9)
        if case == 59:
            slope = np.where(sides[0] < 0, 0, np.abs(slope))
        _, pairs = pairs_of(3, n=n, seed=case) if case % 20 == 0 else (None, H)
        (step, free), (found, free_found) = (f(*pairs, slope, *sides) for f in functions)
        np.testing.assert_allclose(found, step, rtol=1e-9, atol=1e-12 * scale)
        np.testing.assert_array_equal(free_found, free)
        behind += 0 < np.sum(~free) < n
    assert behind > 20


# Minima

# One of each kind; tests/benchmarks/constrained.py has all.
SOME = ["HS3", "HS45", "PALMER3B", "MDHOLE", "ROSEN5_LOWER"]


@pytest.mark.parametrize("name", SOME)
def test_lbfgs_reaches_the_minimum(name):
    problem = BOUNDED[name]
    run = of(problem, tolerance=1e-6)()
    assert (run.stop.get_value(), run.reason) == (1, 0)
    assert problem.reached(run.cost) == problem.minimum
    g = problem.evaluate(run.x)[1]
    residual = reference.projected_gradient(run.x, g, problem.low, problem.high)
    assert run.gradient_size == pytest.approx(np.max(np.abs(residual)), rel=1e-6, abs=1e-12)
    assert run.gradient_size <= 1e-6


# Iterations and evaluations of SciPy 1.18.1 with ftol=0 and gtol=1e-5; its search is that of Moré and Thuente.
@pytest.mark.parametrize(("n", "evaluations", "iterations"), [(12, 32, 27), (25, 40, 32)])
def test_the_counts_of_scipy(n, evaluations, iterations):
    def cost(x):
        return pt.sum((100 + n / 100) * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    high = np.where(np.arange(n) % 2 == 1, 0.5, np.inf)
    run = Run(np.full(n, -1.0), cost, np.full(n, -2.0), high, line_search=line_search.more_thuente)
    calls = 0
    while not run.stop.get_value():
        run(1)
        calls += 1
    assert (run.evaluations, calls) == (evaluations, iterations)


def quadratic_program(n, condition, degenerate, seed=0):
    """A convex quadratic in a box with a chosen solution, of which a part is on the bounds, and its multipliers."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = (Q * np.geomspace(1, condition, n)) @ Q.T
    low, high = -rng.random(n) - 0.1, rng.random(n) + 0.1
    side = rng.integers(-2, 3, size=n)  # -1 at the lower bound, 1 at the upper one, else inside
    x = np.where(side == -1, low, np.where(side == 1, high, rng.uniform(low, high)))
    multipliers = np.where(abs(side) == 1, -side * rng.random(n), 0.0)
    if degenerate:
        multipliers[rng.random(n) < 0.5] = 0
    b = A @ x - multipliers
    return A, b, low, high, x, multipliers


@pytest.mark.parametrize(("n", "condition", "degenerate"), [(5, 1e6, False), (40, 1e3, True), (200, 1e2, True)])
def test_lbfgs_on_random_quadratic_programs(n, condition, degenerate):
    A, b, low, high, solution, multipliers = quadratic_program(n, condition, degenerate)
    run = Run(np.zeros(n), lambda x: pt.sum(x * pt.dot(A, x)) / 2 - pt.sum(b * x), low, high, tolerance=1e-7)()
    assert run.reason in (0, 7)
    np.testing.assert_allclose(run.x, solution, atol=1e-5)
    strong = abs(multipliers) > 1e-3
    np.testing.assert_array_equal(run.x[strong], solution[strong])
    gradient = A @ run.x - b
    np.testing.assert_allclose(gradient[strong], multipliers[strong], atol=1e-3)


@pytest.mark.parametrize("name", ["HS45", "ROSEN5_LOWER"])
def test_barzilai_borwein_reaches_the_minimum(name):
    problem = BOUNDED[name]
    run = of(problem, rule=optapi.barzilai_borwein, tolerance=1e-6)()
    assert (run.stop.get_value(), run.reason) == (1, 0)
    assert problem.reached(run.cost) == problem.minimum


@pytest.mark.parametrize(("n", "condition", "degenerate"), [(5, 1e4, False), (30, 1e2, True)])
def test_trust_region_cg_on_random_quadratic_programs(n, condition, degenerate):
    A, b, low, high, solution, multipliers = quadratic_program(n, condition, degenerate)
    cost = lambda x: pt.sum(x * pt.dot(A, x)) / 2 - pt.sum(b * x)  # noqa: E731
    run = Run(np.zeros(n), cost, low, high, rule=optapi.trust_region_cg, tolerance=1e-7)()
    assert run.reason == 0
    assert run.evaluations <= 15
    np.testing.assert_allclose(run.x, solution, atol=1e-6)
    strong = abs(multipliers) > 1e-3
    np.testing.assert_array_equal(run.x[strong], solution[strong])


def test_trust_region_cg_reaches_the_minimum():
    problem = BOUNDED["ROSEN5_LOWER"]
    run = of(problem, rule=optapi.trust_region_cg, tolerance=1e-6)()
    assert run.reason == 0
    assert problem.reached(run.cost) == problem.minimum
    for options in ({"escape": True}, {"preconditioner": [np.ones(5)]}):
        with pytest.raises(ValueError, match="bounds do not go together with preconditioner= and escape="):
            of(problem, rule=optapi.trust_region_cg, **options)


@pytest.mark.parametrize("radius", [0.1, 100.0])
def test_the_newton_step_is_in_the_box_and_lower_than_the_best_cauchy_point(radius):
    """Also of a Hessian with negative eigenvalues."""
    rng = np.random.default_rng(5)
    H = rng.normal(size=(8, 8))
    H, g, low, high = H + H.T, rng.normal(size=8), -rng.random(8), rng.random(8)
    x = np.where(rng.random(8) < 0.3, high, rng.uniform(low, high))
    # Shared, since constants are folded by what PyTensor compiles by default.
    matrix, gradient, lows, highs, size = map(pytensor.shared, (H, g, low - x, high - x, radius))
    found = newton_step(Box(lows, highs), gradient, lambda v: pt.dot(matrix, v), size, 100)
    step, model, products = pytensor.function([], found[:3], mode=PYTHON)()
    assert np.all((low - 1e-15 <= x + step) & (x + step <= high + 1e-15))
    np.testing.assert_allclose(model, g @ step + step @ H @ step / 2)
    assert 0 < products < 200
    paths = [np.clip(x - a * g, low, high) - x for a in radius / np.linalg.norm(g) * 0.1 ** np.arange(6)]
    allowed = [s for s in paths if g @ s + s @ H @ s / 2 <= 0.01 * g @ s]
    assert model <= min(g @ s + s @ H @ s / 2 for s in allowed[:1]) + 1e-15


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.barzilai_borwein, optapi.trust_region_cg])
def test_x_scale_changes_units_and_no_bounds(rule):
    """Three components with units from 1e-4 to 1e4, one of them on its bound."""
    D, target = np.array([1e-4, 1.0, 1e4]), np.array([0.7, -0.2, 3.0])
    low, high = D * -0.5, D * np.array([0.5, 2.0, 4.0])
    run = Run(np.zeros(3), lambda x: pt.sum((x / D - target) ** 4), low, high, rule=rule, x_scale=D, tolerance=1e-6)()
    assert run.reason in (0, 7)
    np.testing.assert_allclose(run.x / D, [0.5, -0.2, 3.0], atol=0.05)
    assert run.x[0] == high[0]


# First-order rules

TARGET = np.array([0.3, 2.0, -0.4, -3.0])
FIRST_ORDER = [
    (optapi.sgd, {"step_size": 0.1}),
    (optapi.sgd, {"step_size": 0.1, "momentum": 0.9, "nesterov": True}),
    (optapi.nesterov, {"step_size": 0.1}),
    (optapi.adagrad, {"step_size": 0.5}),
    (optapi.rmsprop, {"step_size": optapi.schedules.Exponential(0.1, 0.9), "momentum": 0.5}),
    (optapi.adam, {"step_size": optapi.schedules.Exponential(0.1, 0.99)}),
    (optapi.adamw, {"step_size": optapi.schedules.Exponential(0.1, 0.99), "decay": 0.0}),
    (optapi.adamax, {"step_size": optapi.schedules.Exponential(0.1, 0.99)}),
    (optapi.nadam, {"step_size": optapi.schedules.Exponential(0.1, 0.99)}),
    (optapi.radam, {"step_size": optapi.schedules.Exponential(0.1, 0.99)}),
    (optapi.adafactor, {"step_size": optapi.schedules.Exponential(0.1, 0.99), "scale": False, "mean_weight": 0.5}),
    (optapi.came, {"step_size": optapi.schedules.Exponential(0.1, 0.99)}),
    (optapi.sm3, {"step_size": 0.1}),
    (optapi.sophia, {"step_size": optapi.schedules.Exponential(0.1, 0.99), "mean_weight": 0.5}),
    (optapi.adahessian, {"step_size": 0.1}),
]


@pytest.mark.parametrize(("rule", "options"), FIRST_ORDER, ids=lambda value: getattr(value, "__name__", ""))
def test_first_order_rules_end_at_the_projected_solution(rule, options):
    run = Run([0.5, 0, 0, 0], lambda x: pt.sum((x - TARGET) ** 2) / 2, -0.5, 0.5, rule=rule, tolerance=1e-3, **options)
    run(1000)
    assert run.stop.get_value() == 1
    np.testing.assert_allclose(run.x, np.clip(TARGET, -0.5, 0.5), atol=1e-3)
    np.testing.assert_array_equal(run.x[[1, 3]], [0.5, -0.5])
    momenta = [v.get_value() for v in run.updates if v.name.endswith(("velocity/p", "buffer/p", "mean/p"))]
    assert bool(momenta) == (rule not in (optapi.adagrad, optapi.sgd) or "momentum" in options)
    assert all(not np.any(m[[1, 3]]) for m in momenta)


def test_momentum_each_step():
    """A component that has met its bound starts from there without a momentum when the gradient turns."""
    problem = problems.rosenbrock()
    low, high, options = np.full(6, -1.0), np.full(6, 0.6), {"step_size": 2e-3, "momentum": 0.9}
    p = pytensor.shared(problem.starts[0], name="p")
    updates = optapi.momentum([p], problem.cost([p]), bounds=[(low, high)], **options)
    points = trajectory([p], pytensor.function([], [], updates=updates, mode=STEP), 60)
    wanted = reference.momentum(
        problem.starts[0], lambda x: problem.gradients([x])[0], low, high, len(points), **options
    )
    assert_close(points, [[w] for w in wanted], tolerance=1e-9)
    on_bound = np.array([(x == low) | (x == high) for (x,) in points])
    assert np.any(on_bound[:-1] & ~on_bound[1:])


def test_a_first_order_rule_takes_a_start_inside_that_is_the_solution():
    run = Run([7.0, -7.0], lambda x: x[0] - x[1], [-1, -2], [7, 1.0], rule=optapi.sgd, tolerance=1e-6, step_size=100.0)
    run(3)
    np.testing.assert_array_equal(run.x, [-1, 1])
    run.stop.set_value(0)
    run.p.set_value(np.array([-1 - 1e-9, 1.0]))
    run(2)
    np.testing.assert_array_equal(run.x, [-1, 1])
    assert run.stop.get_value() == 1


# Facts


def test_wide_bounds_are_none():
    """The steps of `lbfgs` without bounds, but for round-off in the direction."""
    problem = problems.rosenbrock()
    p, q, stop = *(pytensor.shared(problem.starts[0]) for _ in range(2)), pytensor.shared(0)
    free = pytensor.function([], [], updates=optapi.lbfgs([p], problem.cost([p])), mode=STEP)
    wide = pytensor.function(
        [], [], updates=optapi.lbfgs([q], problem.cost([q]), stop=stop, bounds=(-1e10, 1e10)), mode=STEP
    )
    assert_close(trajectory([q], wide, 15), trajectory([p], free, 15), tolerance=1e-6)


def test_without_bounds_nothing_is_there():
    p, stop = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(0, name="stop")
    cost = pt.sum((p - 1) ** 2)
    names = [
        [v.name for v in optapi.lbfgs([p], cost, stop=stop, bounds=bounds)] for bounds in (None, {}, (None, np.inf))
    ]
    assert names[0] == names[1] == names[2]
    assert "lbfgs/active" not in names[0]


def test_a_separable_quadratic_takes_two_evaluations():
    target = np.array([0.3, 2.0, -0.4, -3.0])
    run = Run(np.zeros(4), lambda x: pt.sum((x - target) ** 2) / 2, -0.25, 0.25)()
    np.testing.assert_array_equal(run.x, np.clip(target, -0.25, 0.25))
    assert (run.reason, run.evaluations) == (0, 2)


def test_a_component_of_equal_bounds_never_moves():
    low, high = np.array([-np.inf, 0.1, -2]), np.array([np.inf, 0.1, 2])
    run = Run([-1.2, 5.0, 1.0], bounded.banana, low, high)()
    assert run.reason == 0
    assert run.x[1] == 0.1


def test_a_start_at_the_solution_stays():
    run = Run([0.5, -0.5], lambda x: x[0] - x[1] + pt.sum(x**2) / 100, -0.5, np.array([1.0, 0.75]))()
    solution = np.array([-0.5, 0.75])
    np.testing.assert_array_equal(run.x, solution)
    run.stop.set_value(0)
    evaluations = run.evaluations
    run.step()
    assert (run.stop.get_value(), run.reason, run.evaluations) == (1, 0, evaluations)
    np.testing.assert_array_equal(run.x, solution)
    # One that is outside is put there, and is then known to be the solution.
    run.p.set_value(np.array([-3.0, 4.0]))
    run.stop.set_value(0)
    run(2)
    np.testing.assert_array_equal(run.x, solution)
    assert (run.stop.get_value(), run.reason) == (1, 0)


SEARCHES = [("strong_wolfe", True), ("weak_wolfe", False), ("more_thuente", True), ("hager_zhang", False)]
SEARCHES += [("backtracking", True), ("nonmonotone", False)]


@pytest.mark.parametrize(("name", "exact"), SEARCHES)
def test_all_points_that_are_evaluated_are_inside(name, exact):
    points = []

    def call(x):
        points.append(x.copy())
        u, v = x[1:] - x[:-1] ** 2, 1 - x[:-1]
        g = np.zeros_like(x)
        g[1:] += 200 * u
        g[:-1] -= 400 * u * x[:-1] + 2 * v
        return np.sum(100 * u**2 + v**2), [g]

    low, high = np.array([-1.5, 0.1, -np.inf, -0.3, 0.7]), np.array([0.3, 0.1 + 1e-9, 0.2, np.inf, 0.7])
    oracle = optapi.Oracle(call)
    options = {"line_search": getattr(line_search, name), "exact": exact}
    run = Run(np.full(5, -2.0), lambda p: oracle([p]), low, high, **options)()
    oracle.check()
    assert run.reason in (0, 7)
    assert len(points) >= run.evaluations > 5
    assert all(np.all((low <= x) & (x <= high)) for x in points)
    assert np.sum((run.x == low) | (run.x == high)) >= 2


def test_searches_without_a_limit_are_refused():
    def search(line, start, first):
        return line_search.backtracking(line, start, first)

    p = pytensor.shared(np.zeros(2), name="p")
    with pytest.raises(TypeError, match="takes no limit="):
        optapi.lbfgs([p], pt.sum(p**2), bounds=(1, 2), line_search=search)
    optapi.lbfgs([p], pt.sum(p**2), line_search=search)


def test_where_the_cost_is_not_finite_is_no_success():
    """A part of the box on which it is NaN, with lower costs in front of it than anywhere else."""
    run = Run([2.0, 2.0], lambda x: pt.switch(x[0] > 1, pt.sum(x**2), np.nan), -5.0, 5.0)()
    assert run.x[0] > 1
    assert run.stop.get_value() == 1
    assert run.reason != 0
    run = Run([0.5, 2.0], lambda x: pt.switch(x[0] > 1, pt.sum(x**2), np.nan), -5.0, 5.0)()
    assert run.reason == 3


def test_float32():
    for name in ("HS45", "HATFLDC"):
        problem = BOUNDED[name]
        with pytensor.config.change_flags(floatX="float32"):
            run = Run(problem.start.astype("float32"), problem.cost, problem.low, problem.high, tolerance=1e-3)()
        assert run.reason in (0, 7)
        assert run.x.dtype == "float32"
        assert problem.reached(run.cost, 1e-3) == problem.minimum


def test_parameters_of_two_dtypes_and_bounds_for_one():
    a, b = pytensor.shared(np.zeros(2, "float32"), name="a"), pytensor.shared(np.zeros((2, 2)), name="b")
    stop = pytensor.shared(0)
    cost = pt.sum((a - 0.7) ** 2).astype("float64") + pt.sum((b - 0.7) ** 2)
    updates = optapi.lbfgs([a, b], cost, stop=stop, bounds={a: (None, 0.1)})
    step = pytensor.function([], [], updates=updates, mode=STEP)
    while not stop.get_value():
        step()
    np.testing.assert_array_equal(a.get_value(), np.float32(0.1))
    np.testing.assert_allclose(b.get_value(), 0.7, rtol=1e-6)


def test_ascent_has_the_bounds_of_the_parameters():
    p, stop = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(0)
    updates = optapi.lbfgs([p], -pt.sum((p - 3) ** 2), stop=stop, ascent=True, bounds=(None, np.array([1.0, 9.0])))
    step = pytensor.function([], [], updates=updates, mode=STEP)
    while not stop.get_value():
        step()
    np.testing.assert_allclose(p.get_value(), [1, 3])
    assert p.get_value()[0] == 1
    [cost], [size] = optapi.reports(updates)["cost"], optapi.reports(updates)["gradient_size"]
    np.testing.assert_allclose(cost.get_value(), -4)
    assert size.get_value() <= 1e-5


def test_a_bound_that_is_a_shared_variable_can_be_changed():
    p, stop, high = pytensor.shared(np.zeros(2), name="p"), pytensor.shared(0), pytensor.shared(1.0, name="high")
    updates = optapi.lbfgs([p], pt.sum((p - 3) ** 2), stop=stop, bounds={p: (0, high)})
    step = pytensor.function([], [], updates=updates, mode=STEP)
    # -1 is below the low, which then counts alone.
    for value, wanted in ((1.0, 1.0), (2.5, 2.5), (0.5, 0.5), (-1.0, 0.0)):
        high.set_value(value)
        stop.set_value(0)
        for _ in range(20):
            step()
        np.testing.assert_array_equal(p.get_value(), wanted)


def test_the_inverse_hessian_is_that_of_the_components_inside():
    A, b, low, high, _, _ = quadratic_program(6, 10, False, seed=3)
    run = Run(np.zeros(6), lambda x: pt.sum(x * pt.dot(A, x)) / 2 - pt.sum(b * x), low, high, tolerance=1e-9)()
    H = optapi.inverse_hessian(run.updates) @ np.eye(6)
    free = (run.x != low) & (run.x != high)
    assert 0 < np.sum(free) < 6
    assert not np.any(H[~free]) and not np.any(H[:, ~free])
    np.testing.assert_allclose(H[np.ix_(free, free)], np.linalg.inv(A[np.ix_(free, free)]), atol=0.05)
