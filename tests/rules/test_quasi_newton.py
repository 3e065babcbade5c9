"""BFGS, SR1 and Barzilai-Borwein: their twins, what the papers prove of them, and what happens when a cost fails."""

import itertools
from functools import cache, partial

import more_garbow_hillstrom
import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from reference import quasi_newton as reference
from scipy.optimize import minimize

import optapi
from optapi import line_search
from optapi.graph.numpy_linker import STEP
from optapi.line_search import NonMonotone, Step


class Run:
    """A minimization by calls of one compiled function."""

    def __init__(self, rule, start, cost, mode=STEP, **options):
        self.p = pytensor.shared(np.array(start), name="p")
        self.stop = pytensor.shared(np.int64(0), name="stop")
        self.updates = rule([self.p], cost(self.p), stop=self.stop, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=mode)

    def __call__(self, calls=1000):
        """Calls until it stops, and returns the points."""
        points = []
        while len(points) < calls and not self.stop.get_value():
            self.step()
            points.append(self.p.get_value())
        return np.array(points)

    def __getattr__(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]


TWINS = {
    "bfgs": (optapi.bfgs, {}, reference.BFGS),
    "bfgs_hager_zhang": (
        optapi.bfgs,
        {"line_search": line_search.hager_zhang},
        partial(reference.BFGS, reference.hager_zhang),
    ),
    "sr1": (optapi.sr1, {}, reference.SR1),
    "long": (optapi.barzilai_borwein, {"kind": "long"}, partial(reference.BarzilaiBorwein, "long")),
    "short": (
        optapi.barzilai_borwein,
        {"kind": "short", "line_search": NonMonotone(memory=3)},
        partial(reference.BarzilaiBorwein, "short", 3),
    ),
    "alternate": (optapi.barzilai_borwein, {}, partial(reference.BarzilaiBorwein, "alternate")),
    "average": (
        optapi.barzilai_borwein,
        {"line_search": NonMonotone(weight=0.85)},
        partial(reference.BarzilaiBorwein, "alternate", weight=0.85),
    ),
}


@pytest.mark.parametrize("case", TWINS)
def test_twins(case):
    """Every step from the points of the trajectory; the first ten on their own."""
    rule, options, twin = TWINS[case]
    problem = problems.rosenbrock()
    [x] = problem.starts

    def cost_and_gradient(x):
        value, [gradient] = problem.value_and_gradients([x])
        return value, gradient

    points = Run(rule, x, lambda p: problem.cost([p]), optapi.PYTHON, tolerance=1e-6, **options)(60)
    assert len(points) > 25
    for wanted in (
        twin().points(cost_and_gradient, x, len(points), along=points),
        twin().points(cost_and_gradient, x, 10),
    ):
        for point, other in zip(points, wanted, strict=False):
            assert np.max(np.abs(point - other)) <= 1e-12 * np.max(np.abs(other))


# What the papers prove


def exact_on_a_quadratic(line, start, first):
    """The minimizer along a line on which the slope is linear."""
    size = start.slope / (start.slope - line(pt.ones_like(start.slope)).slope)
    return Step(size, line(size), pt.constant(np.int64(2)), ~(start.slope < 0))


def quadratic(n=6):
    rng = np.random.default_rng(4)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = (Q * np.geomspace(0.5, 25, n)) @ Q.T
    A, b = (A + A.T) / 2, rng.normal(size=n)
    return A, b, lambda x: pt.sum(x * pt.dot(A, x)) / 2 - pt.sum(b * x)


def test_bfgs_with_exact_steps_is_lbfgs_and_finds_the_inverse_hessian():
    A, b, cost = quadratic()
    first = Run(optapi.bfgs, np.ones(6), cost, line_search=exact_on_a_quadratic, tolerance=None)
    second = Run(optapi.lbfgs, np.ones(6), cost, line_search=exact_on_a_quadratic, tolerance=None)
    one, two = first(6), second(6)
    np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(one[-1], np.linalg.solve(A, b), rtol=1e-10)
    np.testing.assert_allclose(optapi.inverse_hessian(first.updates), np.linalg.inv(A), rtol=1e-9, atol=1e-12)
    operator = optapi.inverse_hessian(second.updates)
    np.testing.assert_allclose(operator @ np.eye(6), np.linalg.inv(A), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(operator.T @ b, np.linalg.solve(A, b), rtol=1e-8)


def test_sr1_finds_the_inverse_hessian_without_a_search():
    """Any steps that span the space will do; here the step sizes make them so."""
    A, _, cost = quadratic()
    run = Run(optapi.sr1, np.ones(6), cost, line_search=line_search.fixed, step_size=0.03, tolerance=None)
    run(7)
    np.testing.assert_allclose(optapi.inverse_hessian(run.updates), np.linalg.inv(A), rtol=1e-5, atol=1e-7)


def test_sr1_leaves_a_saddle():
    run = Run(optapi.sr1, [1.0, 1e-3], lambda x: x[0] ** 2 + (x[1] ** 2 - 1) ** 2)
    run()
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), [0, 1], atol=1e-4)


def test_barzilai_borwein_on_a_quadratic_of_two_dimensions_is_superlinear():
    """Barzilai and Borwein (1988), theorem of section 3; with exact steps the error falls by 19/21 in each."""
    run = Run(
        optapi.barzilai_borwein,
        [1.0, -0.05],
        lambda x: (x[0] ** 2 + 20 * x[1] ** 2) / 2,
        kind="long",
        line_search=line_search.fixed,
        tolerance=1e-100,
    )
    points = run()
    assert len(points) <= 20
    assert np.max(np.abs(points[-1])) <= 1e-100


def test_there_is_one_inverse_hessian():
    p, q = pytensor.shared(np.ones(2), name="p"), pytensor.shared(np.ones((2, 2)), name="q")
    one = optapi.bfgs([p, q], pt.sum(p**2) + pt.sum(q**2))
    np.testing.assert_array_equal(optapi.inverse_hessian(one), np.eye(6))
    assert optapi.inverse_hessian(optapi.barzilai_borwein([p], pt.sum(p**2))) is None
    two = optapi.join(optapi.lbfgs([p], pt.sum(p**2)), optapi.lbfgs([q], pt.sum(q**2), name="other"))
    with pytest.raises(ValueError, match="joins several rules"):
        optapi.inverse_hessian(two)
    np.testing.assert_array_equal(optapi.inverse_hessian(optapi.lbfgs([p], pt.sum(p**2))) @ [3.0, 4.0], [3.0, 4.0])


# A cost that fails


class Faulty(Op):
    """0 for the cost and 0 for its gradient, but at the evaluation `at` the value `fault` for one of them or both."""

    def __init__(self):
        self.count, self.at, self.faults, self.costs = 0, 0, (0.0, 0.0), []

    def make_node(self, x, cost):
        return Apply(self, [x, cost], [pt.dscalar(), pt.dscalar()])

    def perform(self, node, inputs, outputs):
        self.count += 1
        faults = self.faults if self.count == self.at else (0.0, 0.0)
        self.costs.append(float(inputs[1] + faults[0] + faults[1]))
        for output, fault in zip(outputs, faults, strict=True):
            output[0] = np.asarray(fault)

    def pullback(self, inputs, outputs, cotangents):
        return [outputs[1] * pt.ones_like(inputs[0]), pt.zeros_like(inputs[1])]


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.bfgs, optapi.sr1, optapi.barzilai_borwein])
def test_one_evaluation_fails(rule):
    """For each evaluation of a run: no point that is not finite is taken, and the run ends well all the same."""
    faulty = Faulty()

    def objective(x):
        value = pt.sum(np.array([1.0, 5.0]) * pt.sqrt(1 + (x - 1) ** 2)) + (x[0] + x[1]) ** 2 / 4
        return value + faulty(x, value)[0]

    run = Run(rule, [-1.2, 3.0], objective, tolerance=1e-4)
    begin = [variable.get_value() for variable in run.updates]
    run()
    length = faulty.count
    assert run.reason == 0
    assert length == run.evaluations
    faults = [(np.nan, 0.0), (np.inf, 0.0), (-np.inf, 0.0), (0.0, np.nan), (np.nan, np.nan)]
    for faulty.faults, at in itertools.product(faults, range(1, length + 1)):
        for variable, value in zip(run.updates, begin, strict=True):
            variable.set_value(value)
        faulty.count, faulty.at, faulty.costs = 0, at, []
        points = run()
        assert np.all(np.isfinite(points))
        if at == 1:
            assert (len(points), run.reason) == (1, 3)
            np.testing.assert_array_equal(run.p.get_value(), [-1.2, 3.0])
        else:
            assert (run.reason, run.evaluations) == (0, faulty.count)
            assert run.cost == np.min([c for c in faulty.costs if np.isfinite(c)])


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.bfgs, optapi.sr1, optapi.barzilai_borwein])
def test_a_cost_that_fails_beyond_a_wall(rule):
    run = Run(rule, [1.0, 5.0], lambda x: pt.sum(x - 0.01 * pt.log(x)), optapi.PYTHON, step_size=10.0)
    for _ in range(200):
        if run.stop.get_value():
            break
        run.step()
        assert np.all(run.p.get_value() > 0)
        assert np.isfinite(run.cost)
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 0.01, rtol=2e-3)


# The problems of Moré, Garbow and Hillstrom


def from_scipy(function, start, method):
    """What SciPy reaches at the same tolerance, and its evaluations."""
    count = 0

    def cost_and_gradient(x):
        nonlocal count
        count += 1
        cost, gradient = function(x)
        return float(cost), np.asarray(gradient, float)

    options = {"gtol": 1e-6} | ({"ftol": 0.0, "maxfun": 15000} if method == "L-BFGS-B" else {})
    with np.errstate(all="ignore"):
        found = minimize(cost_and_gradient, start, jac=True, method=method, options=options)
    return found.fun, np.max(np.abs(function(found.x)[1])), count


class Box(Op):
    """The cost and the gradient that a function in NumPy returns, so that one compiled rule serves many costs."""

    def __init__(self):
        self.function = None

    def make_node(self, x):
        return Apply(self, [x], [pt.scalar(dtype=x.dtype), x.type()])

    def perform(self, node, inputs, outputs):
        for output, value in zip(outputs, self.function(inputs[0]), strict=True):
            output[0] = value

    def pullback(self, inputs, outputs, cotangents):
        return [cotangents[0] * outputs[1]]


@cache
def boxed(rule, size, dtype):
    """A run of `rule` on the cost in a box, with the values of its variables at the beginning."""
    box = Box()
    run = Run(rule, np.zeros(size, dtype), lambda x: box(x)[0], tolerance=1e-6)
    return run, box, [variable.get_value() for variable in run.updates]


def run_on(problem, rule, dtype="float64"):
    run, box, begin = boxed(rule, problem.start.size, dtype)
    for variable, value in zip(run.updates, begin, strict=True):
        variable.set_value(value)
    run.p.set_value(problem.start.astype(dtype))
    box.function = problem.evaluate if dtype == "float64" else problem.compiled(dtype)
    while not run.stop.get_value() and run.evaluations < 15000:
        run.step()
    return run


def solved(problem, cost, gradient):
    """Whether a run has come to a minimum; on Powell's badly scaled problem one of SciPy ends in the valley before."""
    minimum = problem.reached(cost)
    return minimum is not None and abs(cost - minimum) <= 1e-3 * minimum + 1e-8 and gradient <= 1e-6


@pytest.mark.parametrize("rule, method", [(optapi.lbfgs, "L-BFGS-B"), (optapi.bfgs, "BFGS"), (optapi.sr1, "BFGS")])
def test_evaluations_compared_with_scipy(rule, method):
    ratios = {}
    for problem in more_garbow_hillstrom.PROBLEMS:
        run = run_on(problem, rule)
        assert problem.reached(run.cost) is not None, problem
        cost, gradient, evaluations = from_scipy(problem.evaluate, problem.start, method)
        if solved(problem, cost, gradient) and solved(problem, run.cost, run.gradient_size):
            ratios[problem.name] = run.evaluations / evaluations
    assert len(ratios) >= 30
    assert np.exp(np.mean(np.log(list(ratios.values())))) <= 1.0
    if rule is not optapi.sr1:
        assert max(ratios.values()) <= 2.0


def test_float32_reaches_what_scipy_reaches():
    """With the same float32 function. Each run ends, and none because of values that are not finite."""
    for problem in more_garbow_hillstrom.PROBLEMS:
        run = run_on(problem, optapi.lbfgs, "float32")
        evaluate = boxed(optapi.lbfgs, problem.start.size, "float32")[1].function
        cost, *_ = from_scipy(lambda x, f=evaluate: f(np.asarray(x, "float32")), problem.start, "L-BFGS-B")
        assert run.cost <= cost + 4 * np.finfo("float32").eps * max(abs(cost), 1), problem
        assert run.reason in (0, 2, 7), problem
