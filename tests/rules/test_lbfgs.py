"""L-BFGS: steps and pairs against NumPy twins, and what is true of whole minimizations."""

import itertools
from functools import cache, partial

import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from problems import PROBLEMS
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import apply_ancestors
from reference import first_order as reference
from reference import quasi_newton as reference_quasi_newton
from test_first_order import STEPS, assert_close, compiled, shared_at, trajectory

import optapi
from optapi import PYTHON, line_search, schedules
from optapi.graph.numpy_linker import STEP
from optapi.line_search import Step, strong_wolfe, weak_wolfe
from optapi.rules._linear_algebra import CompactInverseHessian


def rosenbrock(x):
    return pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


class Run:
    """A minimization by calls of one compiled function."""

    def __init__(self, start, cost, **options):
        self.p = pytensor.shared(np.asarray(start), name="p")
        self.stop = pytensor.shared(0, name="stop")
        objective = cost(self.p)
        self.updates = optapi.lbfgs([self.p], objective, stop=self.stop, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=STEP)

    def __call__(self, calls=500):
        for _ in range(calls):
            if self.stop.get_value():
                break
            self.step()
        return self

    def __getattr__(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]


@pytest.mark.parametrize("n, budget", [(2, 50), (10, 100), (50, 350)])
def test_rosenbrock(n, budget):
    run = Run(np.tile([-1.2, 1.0], n // 2), rosenbrock, tolerance=1e-6)()
    assert run.stop.get_value() == 1
    assert run.reason == 0
    assert run.gradient_size <= 1e-6
    assert run.evaluations <= budget
    np.testing.assert_allclose(run.p.get_value(), 1.0, atol=1e-5)
    np.testing.assert_allclose(run.cost, 0.0, atol=1e-10)


def test_from_many_starts():
    """It ends at a point where the gradient vanishes, or says why not."""
    rng = np.random.default_rng(0)
    run = Run(np.zeros(6), rosenbrock)
    begin = [v.get_value() for v in run.updates]
    for _ in range(10):
        for variable, value in zip(run.updates, begin, strict=True):
            variable.set_value(value)
        run.p.set_value(5 * rng.normal(size=6))
        run()
        assert (run.stop.get_value(), run.reason) == (1, 0)
        assert run.gradient_size <= 1e-5


def test_a_quadratic_takes_few_evaluations():
    matrix = np.diag(np.array([1.0, 10.0, 100.0, 1000.0]))
    run = Run(np.ones(4), lambda x: 0.5 * x @ matrix @ x, tolerance=1e-8)()
    assert run.reason == 0
    assert run.evaluations <= 45


def counted(calls):
    """A cost with a gradient that appends to `calls` each point at which the cost is evaluated."""
    from pytensor.graph.basic import Apply
    from pytensor.graph.op import Op

    class Counted(Op):
        __props__ = ()

        def make_node(self, x):
            return Apply(self, [x], [pt.dscalar()])

        def perform(self, node, inputs, outputs):
            calls.append(inputs[0].copy())
            outputs[0][0] = np.asarray(np.sum(np.cosh(inputs[0]) * np.arange(1, 4)))

        def pullback(self, inputs, outputs, cotangents):
            return [cotangents[0] * pt.sinh(inputs[0]) * np.arange(1.0, 4.0)]

    return Counted()


def test_nothing_is_evaluated_twice():
    calls = []
    run = Run([1.0, -2.0, 0.5], counted(calls))()
    assert run.reason == 0
    assert len(calls) == run.evaluations
    assert len({c.tobytes() for c in calls}) == len(calls)


def test_a_moved_point_costs_one_evaluation_and_gives_no_wrong_step():
    calls = []
    run = Run([1.0, -2.0, 0.5], counted(calls))
    run(3)
    run.p.set_value(np.array([2.0, 2.0, 2.0]))
    before = len(calls)
    run(1)
    np.testing.assert_array_equal(calls[before], 2.0)
    assert run.cost < 6 * np.cosh(2.0)
    assert len(calls) == run.evaluations
    run()
    np.testing.assert_allclose(run.p.get_value(), 0, atol=1e-5)


def test_without_exact_every_call_evaluates_where_it_starts():
    calls = []
    run = Run([1.0, -2.0, 0.5], counted(calls), exact=False)
    run(1)
    evaluations, point = len(calls), run.p.get_value()
    run(1)
    np.testing.assert_array_equal(calls[evaluations], point)
    assert len(calls) == run.evaluations


def test_exact_is_guessed():
    def keeps(cost, **options):
        return any(v.name == "lbfgs/point" for v in optapi.lbfgs([p], cost, **options))

    p, data = pytensor.shared(np.ones(2)), pytensor.shared(np.ones(2))
    _, draws = pt.random.shared_rng(seed=1).normal(size=(2,))
    assert keeps(pt.sum(p**2 * data))
    assert not keeps(pt.sum(p**2 * data), exact=False)
    assert not keeps(pt.sum(p**2 * pt.dvector()))
    assert keeps(pt.sum(p**2 * pt.dvector()), exact=True)
    assert not keeps(pt.sum(p**2 + draws * p))


def test_the_cost_stands_at_most_twice_in_the_graph():
    def count(outputs):
        nodes = list(apply_ancestors(outputs))
        inner = sum(count(n.op.fgraph.outputs) for n in nodes if isinstance(n.op, HasInnerGraph))
        return inner + sum(type(n.op).__name__ == "Counted" for n in nodes)

    for exact in (True, False):
        run = Run(np.ones(3), counted([]), exact=exact)
        assert count(list(run.updates.values())) == 2


def test_a_call_after_stop_evaluates_nothing():
    calls = []
    run = Run([1.0, -2.0, 0.5], counted(calls))()
    before = len(calls)
    run.step()
    assert len(calls) == before


def test_points_where_the_cost_is_not_finite_are_never_accepted():
    run = Run([1.0, 5.0], lambda x: pt.sum(x - 0.01 * pt.log(x)), step_size=10.0)
    for _ in range(100):
        run(1)
        assert np.all(run.p.get_value() > 0)
        assert np.isfinite(run.cost)
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 0.01, rtol=1e-3)


@pytest.mark.parametrize("start", [np.nan, np.inf, -1.0])
def test_a_start_that_is_not_finite(start):
    run = Run([1.0, start], lambda x: pt.sum(pt.log(x) ** 2))
    run(1)
    assert (run.stop.get_value(), run.reason) == (1, 3)
    np.testing.assert_array_equal(run.p.get_value(), [1.0, start])


def test_gradients_that_lie_end_the_run_and_say_so(compiled):
    p, stop = pytensor.shared(np.ones(2), name="p"), pytensor.shared(0)
    updates = optapi.lbfgs([p], pt.sum(p**2), gradients=[-2 * p], stop=stop)
    step = compiled(updates)
    step()
    assert stop.get_value() == 1
    assert optapi.reports(updates)["reason"][0].get_value() == 2
    np.testing.assert_array_equal(p.get_value(), 1)


def test_a_cost_that_ends_in_a_kink_stops_and_says_so():
    run = Run([3.0, -1.0], lambda x: pt.sum(pt.maximum(x - 0.3, 3 * (0.3 - x))), line_search=weak_wolfe)()
    assert (run.stop.get_value(), run.reason) == (1, 2)
    assert run.cost < 1e-3


@pytest.mark.parametrize(
    "start, cost",
    [
        (np.tile(np.array([-1.2, 1.0], "float32"), 5), rosenbrock),
        (np.array([1.0, 2.0], "float32"), lambda x: pt.sum((x - 0.25) ** 4) + 100),
        (np.array([3.0, -1.0, 2.0]), lambda x: pt.sum(abs(np.random.default_rng(1).normal(size=(9, 3)) @ x - 1))),
    ],
)
def test_it_ends_at_the_level_of_round_off(start, cost):
    """A run that cannot meet its tolerance says so, and does not try the same point for ever."""
    run = Run(start, cost, tolerance=0.0)(300)
    assert run.stop.get_value() == 1
    assert run.reason in ((0,) if run.gradient_size == 0 else (2, 7))


@pytest.mark.parametrize("dtype, scale", [("float32", 1e6), ("float64", 1e13), ("float64", 1e-6)])
def test_the_units_of_the_cost_do_not_matter(dtype, scale):
    run = Run(
        np.array([-1.2, 1.0], dtype), lambda x: np.asarray(scale, dtype) * rosenbrock(x), tolerance=1e-3 * scale
    )()
    assert run.reason == 0
    assert run.evaluations < 100


def test_a_quadratic_above_a_constant_in_float32_ends():
    curvatures = np.geomspace(1, 1e6, 10).astype("float32")
    run = Run(np.zeros(10, "float32"), lambda x: 1 + pt.sum(curvatures * (x - np.float32(1.3)) ** 2))(1500)
    assert run.stop.get_value() == 1
    np.testing.assert_allclose(run.cost, 1.0, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1, 1), (1,)])
def test_shapes_that_broadcast_but_are_not_declared(shape, compiled):
    p = pytensor.shared(np.ones(shape))
    step = compiled(optapi.lbfgs([p], pt.sum(pt.cosh(p))))
    for _ in range(20):
        step()
    np.testing.assert_allclose(p.get_value(), 0, atol=1e-5)


def test_what_the_updates_move_is_not_kept(compiled):
    """A cost whose data the same dictionary moves along."""
    p, turn = pytensor.shared(0.0, name="p"), pytensor.shared(0, name="turn")
    data = pt.constant(np.array([1.0, 2.0, 3.0]))
    updates = optapi.lbfgs([p], pt.cosh(p - data[turn]), updates={turn: (turn + 1) % 3})
    assert not any(v.name == "lbfgs/point" for v in updates)
    step = compiled(updates)
    for _ in range(5):
        step()
    assert p.get_value() > 0.5


def test_float32():
    run = Run(np.array([-1.2, 1.0], "float32"), rosenbrock, tolerance=1e-2)()
    assert run.p.get_value().dtype == "float32"
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 1.0, atol=0.05)


def test_an_empty_parameter():
    run = Run(np.zeros(0), lambda x: pt.sum(x**2))(1)
    assert (run.stop.get_value(), run.reason, run.gradient_size) == (1, 0, 0.0)


@pytest.mark.parametrize("options", [{"curvature": 0.1}, {"decrease": 0.1}, {"max_trials": 3}])
def test_options_of_the_search(options):
    run = Run([-1.2, 1.0], rosenbrock, line_search=partial(weak_wolfe, **options))()
    assert run.reason == 0


@pytest.mark.parametrize(
    "name", ["fixed", "backtracking", "strong_wolfe", "more_thuente", "hager_zhang", "nonmonotone"]
)
def test_takes_any_search(name):
    options = {"step_size": 1.0} if name == "fixed" else {}
    run = Run([0.5, -1.0], lambda x: pt.sum(pt.cosh(x)), line_search=getattr(line_search, name), **options)()
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 0.0, atol=1e-5)


def test_without_stop_it_never_climbs(compiled):
    p = pytensor.shared(np.array([-1.2, 1.0]), name="p")
    cost = rosenbrock(p)
    step = compiled(optapi.lbfgs([p], cost), outputs=[cost])
    costs = [float(step()[0]) for _ in range(80)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(costs))
    assert costs[-1] < 1e-20


# Against the twins

LBFGS = {
    "default": ({"line_search": strong_wolfe}, {"line_search": reference_quasi_newton.strong_wolfe}),
    "weak_wolfe": ({}, {}),
    "memory_3": ({"memory": 3}, {"memory": 3}),
    "memory_1": ({"memory": 1}, {"memory": 1}),
    "inexact": ({"exact": False}, {}),
    "step_size": ({"memory": 5, "step_size": 0.3}, {"memory": 5, "step_size": 0.3}),
    "schedule": ({"step_size": schedules.Power(2.0, 10.0)}, {"step_size": lambda t: 2 / (1 + t / 10)}),
}
# Compiling a search takes a second, so the other options are tried on one problem.
RUNS = [(problem, case) for problem in PROBLEMS for case in ("default", "weak_wolfe", "memory_3", "memory_1")]
RUNS += [(PROBLEMS[1], "step_size"), (PROBLEMS[1], "schedule"), (PROBLEMS[2], "inexact")]
each_run = pytest.mark.parametrize(("problem", "case"), RUNS, ids=str)


@cache
def run_lbfgs(problem, case):
    """The points, and the evaluations up to each of them, until the gradient is below 1e-6."""
    parameters, stop = shared_at(problem.starts), pytensor.shared(np.int64(0))
    options = {"line_search": weak_wolfe, **LBFGS[case][0]}
    updates = optapi.lbfgs(parameters, problem.cost(parameters), stop=stop, tolerance=1e-6, **options)
    (evaluations,) = optapi.reports(updates)["evaluations"]
    step, points, counts = compiled(updates), [], []
    while len(points) < STEPS and not stop.get_value():
        points += trajectory(parameters, step, 1)
        counts.append(int(evaluations.get_value()))
    if case == "inexact":
        counts = [count - calls for calls, count in enumerate(counts)]
    return points, counts


@each_run
def test_lbfgs_each_step(problem, case):
    """Every step and its number of trials, from the point and the pairs that the trajectory has."""
    points, counts = run_lbfgs(problem, case)
    assert len(points) > 12
    x, f = problem.starts, problem.value_and_gradients
    wanted, evaluations = reference.lbfgs(x, f, len(points), along=points, **LBFGS[case][1])
    assert_close(points, wanted)
    assert counts == evaluations


@pytest.mark.parametrize("product", [reference.two_loop, reference.compact])
@each_run
def test_lbfgs_from_the_start(problem, case, product):
    """The twin on its own. Later the searches amplify differences of round-off, those of two twins too."""
    points, counts = (values[:10] for values in run_lbfgs(problem, case))
    x, f = problem.starts, problem.value_and_gradients
    wanted, evaluations = reference.lbfgs(x, f, 10, product=product, **LBFGS[case][1])
    assert_close(points, wanted)
    assert counts == evaluations


def random_pairs(count, n=8):
    """Pairs of positive curvature: changes of the gradient of a quadratic, and a little more."""
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = (Q * np.geomspace(0.2, 5, n)) @ Q.T
    pairs = [(s, A @ s + 0.02 * rng.normal(size=n)) for s in rng.normal(size=(count, n))]
    assert all(s @ y > 0.1 for s, y in pairs)
    return pairs


def no_pairs(memory, n):
    x = pytensor.shared(np.zeros(n), name="x")
    return CompactInverseHessian.begin(optapi.Objective.of([x], pt.sum(x**2), name="pairs"), memory)


@pytest.mark.parametrize("memory", [1, 3, 5])
def test_pairs_are_bfgs_updates(memory):
    n, seen = 8, random_pairs(8)
    state = no_pairs(memory, n)
    s, y, g = pt.dvectors("s", "y", "g")
    push = compiled(dict(zip(state, state.push(s, y), strict=True)), [s, y])
    product = pytensor.function([g], state.times(g), mode=PYTHON)
    for count in range(len(seen) + 1):
        kept = seen[max(0, count - memory) : count]
        wanted = reference.dense(kept, n)
        H = np.array([product(e) for e in np.eye(n)])
        assert np.max(np.abs(H - wanted)) <= 1e-12 * np.max(np.abs(wanted))
        vector = np.cos(np.arange(n))
        for twin in (reference.two_loop, reference.compact):
            np.testing.assert_allclose(twin(kept, vector), wanted @ vector, rtol=1e-12, atol=1e-12)
        if count < len(seen):
            push(*seen[count])


def test_a_pair_of_negative_curvature_is_left_out():
    (s_value, y_value), *_ = random_pairs(1)
    state = no_pairs(3, 8)
    s, y = pt.dvectors("s", "y")
    push = compiled(dict(zip(state, state.push(s, y), strict=True)), [s, y])
    push(s_value, y_value)
    before = [variable.get_value() for variable in state]
    for change in (-y_value, 0 * y_value, np.nan * y_value):
        push(s_value, change)
        for old, variable in zip(before, state, strict=True):
            np.testing.assert_array_equal(variable.get_value(), old)


def exact_on_a_quadratic(line, start, first):
    """The minimizer along a line on which the slope is linear."""
    size = start.slope / (start.slope - line(pt.ones_like(start.slope)).slope)
    return Step(size, line(size), pt.constant(2), pt.constant(np.False_))


@pytest.mark.parametrize("memory", [1, 3, 10])
def test_lbfgs_with_exact_steps_is_conjugate_gradients(memory):
    problem = problems.quadratic(smallest=0.5)
    (x,), n = problem.starts, problem.starts[0].size
    origin = problem.gradients([np.zeros(n)])[0]
    A = np.array([problem.gradients([e])[0] - origin for e in np.eye(n)])
    r = -problem.gradients([x])[0]
    d, wanted = r, []
    for _ in range(n):
        a = r @ r / (d @ A @ d)
        x, r, old = x + a * d, r - a * (A @ d), r
        d = r + (r @ r) / (old @ old) * d
        wanted.append([x])
    parameters = shared_at(problem.starts)
    updates = optapi.lbfgs(parameters, problem.cost(parameters), memory=memory, line_search=exact_on_a_quadratic)
    assert_close(trajectory(parameters, compiled(updates), n), wanted)
    np.testing.assert_allclose(parameters[0].get_value(), np.linalg.solve(A, -origin), rtol=1e-11)
