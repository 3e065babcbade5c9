"""Conjugate gradients: their twins, what the papers prove of them, restarts, and what happens when a cost fails."""

from functools import partial

import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from reference import conjugate_gradient as reference
from reference.quasi_newton import strong_wolfe as strong_wolfe_in_numpy

import optapi
from optapi.graph.numpy_linker import STEP
from optapi.line_search import Step, hager_zhang, strong_wolfe, weak_wolfe


precise = partial(strong_wolfe, curvature=0.1)

FORMULAS = {
    optapi.fletcher_reeves: reference.fletcher_reeves,
    optapi.polak_ribiere: reference.polak_ribiere,
    optapi.hestenes_stiefel: reference.hestenes_stiefel,
    optapi.dai_yuan: reference.dai_yuan,
    optapi.hager_zhang_cg: reference.hager_zhang,
}
RULES = [*FORMULAS, optapi.scaled_conjugate_gradient]


def rule_name(rule):
    return rule.__name__


each_formula = pytest.mark.parametrize("rule", FORMULAS, ids=rule_name)
each_rule = pytest.mark.parametrize("rule", RULES, ids=rule_name)


class Run:
    """A minimization by calls of one compiled function, by default without rewrites, which take most of the time."""

    def __init__(self, rule, start, cost, mode=STEP, **options):
        self.p = pytensor.shared(np.array(start), name="p")
        self.stop = pytensor.shared(np.int64(0), name="stop")
        self.cost_graph = cost(self.p)
        self.updates = rule([self.p], self.cost_graph, stop=self.stop, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=mode)
        self.begin = [v.get_value() for v in self.updates]

    def __call__(self, calls=1000):
        """Calls until it stops, and returns the points."""
        points = []
        while len(points) < calls and not self.stop.get_value():
            self.step()
            points.append(self.p.get_value())
        return np.array(points)

    def again(self, start):
        """Everything as it was at first, but for the start."""
        for variable, value in zip(self.updates, self.begin, strict=True):
            variable.set_value(value)
        self.p.set_value(np.array(start))

    def state(self, role):
        """The value of the variable of the rule's state that ends with `role`."""
        [variable] = [v for v in self.updates if v.name.endswith(f"/{role}")]
        return variable.get_value()

    def __getattr__(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]


def rosenbrock(x):
    return pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


ROSENBROCK = problems.rosenbrock()


def rosenbrock_in_numpy(x):
    value, [gradient] = ROSENBROCK.value_and_gradients([x])
    return value, gradient


def rosenbrock_product(x, v):
    """The product of the Hessian with `v`."""
    H = np.zeros((x.size, x.size))
    for i in range(x.size - 1):
        H[i, i] += 1200 * x[i] ** 2 - 400 * x[i + 1] + 2
        H[i + 1, i + 1] += 200
        H[i, i + 1] -= 400 * x[i]
        H[i + 1, i] -= 400 * x[i]
    return H @ v


# Twins


def close(arrays, others):
    for array, other in zip(arrays, others, strict=True):
        assert np.max(np.abs(array - other)) <= 1e-12 * np.max(np.abs(other))


CASES = {rule.__name__: (rule, {}, partial(reference.conjugate_gradient, beta=f)) for rule, f in FORMULAS.items()}
CASES["hager_zhang_cg"] = (
    optapi.hager_zhang_cg,
    {},
    partial(reference.conjugate_gradient, beta=reference.hager_zhang, memory=4, line_search=strong_wolfe_in_numpy),
)
CASES |= {
    "no_restarts": (
        optapi.conjugate_gradient,
        {"restart_overlap": None},
        partial(reference.conjugate_gradient, beta=reference.polak_ribiere, overlap=np.inf),
    ),
    "restart_every": (
        optapi.fletcher_reeves,
        {"restart_overlap": 0.2, "restart_every": 4, "exact": False},
        partial(reference.conjugate_gradient, beta=reference.fletcher_reeves, overlap=0.2, every=4),
    ),
    "theta": (
        optapi.hager_zhang_cg,
        {"theta": 2.0, "truncation": 0.1, "memory": 2, "restart_overlap": None, "line_search": precise},
        partial(
            reference.conjugate_gradient,
            beta=partial(reference.hager_zhang, theta=2.0, eta=0.1),
            memory=2,
            overlap=np.inf,
        ),
    ),
    "no_memory": (
        optapi.hager_zhang_cg,
        {"memory": 0, "line_search": precise},
        partial(reference.conjugate_gradient, beta=reference.hager_zhang),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_twins(case):
    """Every step from the points and directions of the trajectory; the first five on their own."""
    rule, options, twin = CASES[case]
    [x] = ROSENBROCK.starts
    # Closer to the minimizer the cubics of the search lose digits in differences of costs.
    run = Run(rule, x, rosenbrock, optapi.PYTHON, tolerance=1e-2, **options)
    found = []
    while len(found) < 60 and not run.stop.get_value():
        run.step()
        found.append((run.p.get_value(), run.state("beta_d")))
    assert len(found) > 20
    points, shares = zip(*found, strict=True)
    wanted, wanted_shares = zip(*twin(rosenbrock_in_numpy, x, len(found), along=found), strict=True)
    close(points, wanted)
    assert [np.any(share) for share in shares] == [np.any(share) for share in wanted_shares]
    close(shares, wanted_shares)
    close(points[:5], [point for point, _ in twin(rosenbrock_in_numpy, x, 5)])


@pytest.mark.parametrize("options", [{}, {"exact": False}, {"scale": 10.0}], ids=str)
def test_the_twin_of_scaled_conjugate_gradients(options):
    [x] = ROSENBROCK.starts
    points = Run(optapi.scaled_conjugate_gradient, x, rosenbrock, optapi.PYTHON, tolerance=1e-6, **options)(60)
    twin = partial(
        reference.scaled_conjugate_gradient, rosenbrock_in_numpy, rosenbrock_product, scale=options.get("scale", 1e-6)
    )
    assert len(points) == 60
    close(points, twin(x, len(points), along=points))
    close(points[:10], twin(x, 10))


def test_the_trajectory_of_scaled_conjugate_gradients():
    """The twin with differences, as in the paper, gives the numbers that were found before it was written."""
    product = reference.difference(lambda x: rosenbrock_in_numpy(x)[1], 5e-5)
    x = np.array([-1.2, 1.0])
    points = reference.scaled_conjugate_gradient(rosenbrock_in_numpy, product, x, 100, scale=5e-7)
    costs = [rosenbrock_in_numpy(point)[0] for point in points]
    np.testing.assert_allclose(costs[:3], [4.56757, 4.12757, 4.11666], rtol=2e-6)
    assert costs[3] == costs[2]
    assert costs[-1] < 1e-20


# What the papers prove


def exact_on_a_quadratic(line, start, first):
    """The minimizer along a line on which the slope is linear."""
    size = start.slope / (start.slope - line(first).slope) * first
    return Step(size, line(size), pt.constant(np.int64(2)), ~(start.slope < 0))


def quadratic(eigenvalues):
    n = len(eigenvalues)
    rng = np.random.default_rng(4)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = (Q * np.array(eigenvalues)) @ Q.T
    A, b = (A + A.T) / 2, rng.normal(size=n)
    return A, b, lambda x: pt.sum(x * pt.dot(A, x)) / 2 - pt.sum(b * x)


def linear_conjugate_gradients(A, b, x, steps):
    """Hestenes and Stiefel (1952)."""
    r = p = b - A @ x
    points = []
    for _ in range(steps):
        a = (r @ r) / (p @ A @ p)
        x, r_new = x + a * p, r - a * (A @ p)
        p, r = r_new + (r_new @ r_new) / (r @ r) * p, r_new
        points.append(x)
    return np.array(points)


@pytest.mark.parametrize("rule", [*RULES, optapi.bfgs], ids=rule_name)
def test_on_a_quadratic_all_take_the_steps_of_linear_conjugate_gradients(rule):
    A, b, cost = quadratic(np.geomspace(0.5, 25, 6))
    options = {"scale": 0.0} if rule is optapi.scaled_conjugate_gradient else {"line_search": exact_on_a_quadratic}
    points = Run(rule, np.ones(6), cost, tolerance=None, **options)(6)
    np.testing.assert_allclose(points, linear_conjugate_gradients(A, b, np.ones(6), 6), rtol=1e-10, atol=1e-10)
    assert np.max(np.abs(A @ points[-1] - b)) < 1e-10


@each_rule
def test_as_many_steps_as_there_are_eigenvalues(rule):
    A, b, cost = quadratic([1.0, 1.0, 1.0, 4.0, 4.0, 20.0])
    options = {"scale": 0.0} if rule is optapi.scaled_conjugate_gradient else {"line_search": exact_on_a_quadratic}
    run = Run(rule, np.ones(6), cost, tolerance=1e-9, **options)
    assert len(run()) == 3
    assert run.reason == 0
    np.testing.assert_allclose(A @ run.p.get_value(), b, atol=1e-9)


def directions(run, starts, gradient, calls):
    """Of each call that starts with a share of the direction before: the gradient, and the direction."""
    found = []
    for start in starts:
        run.again(start)
        for _ in range(calls):
            run.step()
            g, share = gradient(run.p.get_value()), run.state("beta_d")
            if np.any(share) and np.max(np.abs(g)) > 1e-5:
                found.append((g, share - g))
    return found


STARTS = np.random.default_rng(2).normal(size=(20, 6))


@pytest.mark.parametrize("theta", [2.0, 1.0])
def test_directions_of_hager_zhang_descend_whatever_the_search(theta):
    options = {"line_search": partial(weak_wolfe, curvature=0.99), "restart_overlap": None, "memory": 0}
    run = Run(optapi.hager_zhang_cg, STARTS[0], rosenbrock, theta=theta, **options)
    found = directions(run, STARTS, lambda x: rosenbrock_in_numpy(x)[1], 60)
    ratios = [(g @ d) / (g @ g) for g, d in found]
    assert len(ratios) > 500
    assert max(ratios) <= -(1 - 1 / (4 * theta)) * (1 - 1e-12)
    assert max(ratios) > -0.99


@pytest.mark.parametrize("theta", [2.0, 1.0])
def test_directions_of_hager_zhang_descend_with_any_preconditioner(theta):
    d, g, g_new, Py = (pt.dvector(name) for name in ("d", "g", "g_new", "Py"))
    beta = optapi.beta_hager_zhang(d, g, g_new, theta=theta, preconditioned=Py)
    formula = pytensor.function([d, g, g_new, Py], beta, mode=optapi.PYTHON)
    rng = np.random.default_rng(8)
    ratios = []
    for _ in range(5000):
        d, g, g_new, *root = rng.normal(size=(6, 3)) * rng.lognormal(size=(6, 1))
        P = np.transpose(root) @ root
        # A search by the Wolfe conditions ends where the slope has risen.
        g_new = g_new if d @ (g_new - g) > 0 else 2 * g - g_new
        direction = formula(d, g, g_new, P @ (g_new - g)) * d - P @ g_new
        ratios.append((g_new @ direction) / (g_new @ P @ g_new))
    limit = -(1 - 1 / (4 * theta))
    assert limit - 0.05 < max(ratios) <= limit + 1e-9


def test_the_memory_of_hager_zhang_is_state_where_there_is_one():
    sizes = [
        sum(v.size for v in Run(optapi.hager_zhang_cg, np.ones(50), rosenbrock, memory=m).begin if v.dtype.kind == "f")
        for m in (0, 1, 4)
    ]
    assert 50 * 2 <= sizes[1] - sizes[0] < 50 * 3
    assert 50 * 6 <= sizes[2] - sizes[1] < 50 * 7


def test_directions_of_dai_yuan_descend_after_any_wolfe_search():
    line_search = partial(weak_wolfe, curvature=0.9)
    run = Run(optapi.dai_yuan, STARTS[0], rosenbrock, line_search=line_search, restart_overlap=None)
    found = directions(run, STARTS, lambda x: rosenbrock_in_numpy(x)[1], 60)
    assert len(found) > 500
    assert all(g @ d < 0 for g, d in found)


def test_directions_of_hestenes_stiefel_are_conjugate_whatever_the_search():
    run = Run(optapi.hestenes_stiefel, STARTS[0], rosenbrock, line_search=weak_wolfe, restart_overlap=None)
    checked = 0
    for start in STARTS[:5]:
        run.again(start)
        for _ in range(30):
            before, g = run.p.get_value(), rosenbrock_in_numpy(run.p.get_value())[1]
            run.step()
            g_new, share = rosenbrock_in_numpy(run.p.get_value())[1], run.state("beta_d")
            y, step = g_new - g, run.p.get_value() - before
            if np.any(share) and np.linalg.norm(step) > 1e-6:
                d = share - g_new
                # Both directions are known only to the round-off of the points.
                assert abs(d @ y) <= 1e-6 * np.linalg.norm(d) * np.linalg.norm(y)
                checked += 1
    assert checked > 100


def test_polak_ribiere_starts_anew_after_a_short_step():
    run = Run(optapi.polak_ribiere, STARTS[0], rosenbrock, restart_overlap=None)
    for start in STARTS:
        run.again(start)
        for _ in range(20):
            g = rosenbrock_in_numpy(run.p.get_value())[1]
            run.step()
            g_new = rosenbrock_in_numpy(run.p.get_value())[1]
            if (g_new - g) @ g_new <= 0:
                assert not np.any(run.state("beta_d"))


# Restarts


def test_restarts():
    every = Run(optapi.fletcher_reeves, STARTS[0], rosenbrock, restart_every=3, restart_overlap=None)
    ages = []
    for _ in range(9):
        every.step()
        ages.append(bool(np.any(every.state("beta_d"))))
    assert ages == [True, True, False] * 3

    for overlap in (0.2, 0.5):
        run = Run(optapi.fletcher_reeves, STARTS[0], rosenbrock, restart_overlap=overlap)
        seen = set()
        for _ in range(40):
            g = rosenbrock_in_numpy(run.p.get_value())[1]
            run.step()
            g_new = rosenbrock_in_numpy(run.p.get_value())[1]
            far = abs(g @ g_new) >= overlap * (g_new @ g_new)
            seen.add(far)
            assert np.any(run.state("beta_d")) != far
        assert seen == {True, False}


@each_rule
def test_a_moved_point_starts_anew(rule):
    """After the move it does what it does from there, but for the first trial of a search."""
    options = {"step_size": 1e-3} if rule is not optapi.scaled_conjugate_gradient else {}
    moved, other = (Run(rule, start, rosenbrock, **options) for start in (STARTS[0], STARTS[1]))
    moved(3)
    moved.p.set_value(STARTS[1])
    if rule is optapi.scaled_conjugate_gradient:
        moved.step()
        other.step()
        step = moved.p.get_value() - STARTS[1]
        g = rosenbrock_in_numpy(STARTS[1])[1]
        np.testing.assert_allclose(step @ g, -np.linalg.norm(step) * np.linalg.norm(g), rtol=1e-12)
    else:
        np.testing.assert_allclose(moved(5), other(5), rtol=1e-12)


# Scaled conjugate gradients


def test_products_and_evaluations_are_counted():
    run = Run(optapi.scaled_conjugate_gradient, np.array([-1.2, 1.0]), rosenbrock)
    taken = 0
    for calls in range(1, 40):
        before = run.p.get_value()
        # The first call, and each after a step that was taken, needs the curvature along a new direction.
        products = 1 + taken
        run.step()
        assert run.products == products
        assert run.evaluations == calls + 1
        taken += not np.array_equal(before, run.p.get_value())
    assert 10 < taken < 39


def test_negative_curvature_raises_the_scale():
    run = Run(optapi.scaled_conjugate_gradient, np.array([1e-3, 1.0]), lambda x: pt.sum((x**2 - 1) ** 2))
    run.step()
    assert run.state("scale") > 1
    run()
    assert run.reason == 0
    np.testing.assert_allclose(np.abs(run.p.get_value()), 1, rtol=1e-5)


def test_the_step_size_limits_scaled_conjugate_gradients():
    A, b, cost = quadratic([0.1, 0.2, 0.3])
    limited = Run(optapi.scaled_conjugate_gradient, np.ones(3), cost, step_size=0.5)
    limited.step()
    np.testing.assert_allclose(limited.p.get_value(), np.ones(3) - 0.5 * (A @ np.ones(3) - b), rtol=1e-12)
    free = Run(optapi.scaled_conjugate_gradient, np.ones(3), cost, step_size=1e6)
    np.testing.assert_allclose(free(3), Run(optapi.scaled_conjugate_gradient, np.ones(3), cost)(3), rtol=1e-12)


# Searches, precision, ends


@pytest.mark.parametrize("line_search", [weak_wolfe, hager_zhang], ids=rule_name)
@pytest.mark.parametrize("rule", [optapi.polak_ribiere, optapi.hager_zhang_cg], ids=rule_name)
def test_any_search(rule, line_search):
    run = Run(rule, np.tile([-1.2, 1.0], 3), rosenbrock, line_search=line_search)
    run(3000)
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 1.0, atol=1e-3)


@each_rule
def test_start_at_the_minimizer(rule):
    run = Run(rule, np.ones(4), rosenbrock)
    run.step()
    assert (run.stop.get_value(), run.reason, run.evaluations) == (1, 0, 1)
    np.testing.assert_array_equal(run.p.get_value(), 1.0)


@each_rule
def test_units_of_the_cost_do_not_matter(rule):
    scale, tolerance = pytensor.shared(1.0), pytensor.shared(1.0)
    run = Run(rule, np.array([-1.2, 1.0]), lambda x: scale * rosenbrock(x), tolerance=tolerance)
    for value in (1e-6, 1e10):
        run.again([-1.2, 1.0])
        scale.set_value(value)
        tolerance.set_value(1e-4 * value)
        run()
        assert run.reason == 0
        assert run.evaluations < 300


@each_rule
def test_it_ends_at_the_level_of_round_off(rule):
    run = Run(rule, np.array([-1.2, 1.0, 0.5]), lambda x: rosenbrock(x) + pt.sum(x**4), tolerance=0.0)
    run(1000)
    assert run.stop.get_value() == 1
    assert run.reason == (0 if run.gradient_size == 0 else 7)
    assert run.gradient_size < 1e-6


@each_rule
def test_float32(rule):
    run = Run(rule, np.tile([-1.2, 1.0], 3).astype("float32"), rosenbrock, tolerance=1e-3)
    run(1500)
    assert run.p.get_value().dtype == "float32"
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 1.0, atol=0.02)


@each_rule
def test_a_start_that_is_not_finite(rule):
    run = Run(rule, np.ones(2), lambda x: pt.sum(pt.log(x) ** 2))
    for start in (np.nan, np.inf, -1.0):
        run.again([1.0, start])
        run.step()
        assert (run.stop.get_value(), run.reason) == (1, 3)
        np.testing.assert_array_equal(run.p.get_value(), [1.0, start])


class Faulty(Op):
    """A convex cost with its gradient, that at one of the evaluations is not what it should be."""

    def __init__(self):
        self.costs, self.fault_at, self.fault = [], -1, np.nan

    def make_node(self, x):
        return Apply(self, [x], [pt.dscalar(), pt.dvector()])

    def perform(self, node, inputs, outputs):
        weights = np.arange(1.0, 4.0)
        cost = self.fault if len(self.costs) == self.fault_at else np.sum(weights * np.cosh(inputs[0]))
        self.costs.append(float(cost))
        outputs[0][0], outputs[1][0] = np.asarray(cost), weights * np.sinh(inputs[0])


@each_formula
def test_faults_at_any_evaluation(rule):
    """No point is accepted where the cost is not finite, and the last one is the best of those that are."""
    op, start = Faulty(), np.array([1.0, -2.0, 3.0])
    p, stop = pytensor.shared(start, name="p"), pytensor.shared(np.int64(0), name="stop")
    cost, gradient = op(p)
    updates = rule([p], cost, gradients=[gradient], stop=stop)
    step, begin = pytensor.function([], [], updates=updates, mode=optapi.PYTHON), [v.get_value() for v in updates]
    [reason], [reported] = (optapi.reports(updates)[role] for role in ("reason", "cost"))

    def run():
        for variable, value in zip(updates, begin, strict=True):
            variable.set_value(value)
        op.costs.clear()
        while not stop.get_value():
            step()
            assert np.all(np.isfinite(p.get_value()))
            assert np.isfinite(reported.get_value()) or len(op.costs) == 1
        return reason.get_value()

    assert run() == 0
    evaluations = len(op.costs)
    assert evaluations > 10
    for op.fault in (np.nan, np.inf, -np.inf):
        for op.fault_at in range(evaluations):
            assert run() == (3 if op.fault_at == 0 else 0)
            if op.fault_at:
                assert reported.get_value() <= min(c for c in op.costs if np.isfinite(c)) * (1 + 1e-14)
        op.fault_at = -1


def test_a_trial_that_is_not_finite_shortens_the_step_of_scaled_conjugate_gradients():
    run = Run(optapi.scaled_conjugate_gradient, np.array([1.0, 5.0]), lambda x: pt.sum(x - 0.01 * pt.log(x)))
    for _ in range(200):
        if run.stop.get_value():
            break
        run.step()
        assert np.all(run.p.get_value() > 0)
        assert np.isfinite(run.cost)
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 0.01, rtol=1e-3)


def test_bad_input():
    p = pytensor.shared(np.ones(2), name="p")
    with pytest.raises(TypeError, match="beta is 3; pass a function"):
        optapi.conjugate_gradient([p], pt.sum(p**2), beta=3)
    with pytest.raises(ValueError, match=r"theta is 0\.1; pass a number of at least 0\.25"):
        optapi.hager_zhang_cg([p], pt.sum(p**2), theta=0.1)
    with pytest.raises(ValueError, match="memory is -1; pass an int of at least 0"):
        optapi.hager_zhang_cg([p], pt.sum(p**2), memory=-1)
    with pytest.raises(TypeError, match="restart_every is a float; pass a Python int"):
        optapi.dai_yuan([p], pt.sum(p**2), restart_every=2.5)
    with pytest.raises(ValueError, match="restart_overlap is -1; pass a number of at least 0"):
        optapi.dai_yuan([p], pt.sum(p**2), restart_overlap=-1)


def test_a_formula_of_ones_own():
    """The hybrid of Dai and Yuan with Hestenes and Stiefel."""

    def hybrid(d, g, g_new):
        y = g_new - g
        return pt.maximum(0, pt.minimum(pt.sum(g_new * y), pt.sum(g_new**2)) / pt.sum(d * y))

    def twin(d, g, g_new):
        return max(0.0, min(reference.hestenes_stiefel(d, g, g_new), reference.dai_yuan(d, g, g_new)))

    [x] = ROSENBROCK.starts
    points = Run(optapi.conjugate_gradient, x, rosenbrock, beta=hybrid)(5)
    close(points, [point for point, _ in reference.conjugate_gradient(rosenbrock_in_numpy, x, 5, twin)])


def test_a_cost_without_second_derivatives_is_refused():
    p = pytensor.shared(np.ones(3), name="p")
    with pytest.raises(ValueError, match="scaled_conjugate_gradient needs second derivatives of the cost"):
        optapi.scaled_conjugate_gradient([p], pt.prod(p) ** 2)
