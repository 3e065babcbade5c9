"""Newton's methods and least squares: their twins, what the books prove of them, and the problems they are for."""

from itertools import pairwise

import more_garbow_hillstrom
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import newton as reference

import optapi
from optapi import minimize
from optapi.graph.compat import REWRITES_INNER_GRAPHS
from optapi.graph.numpy_linker import STEP
from optapi.line_search import fixed
from optapi.objective import Objective
from optapi.rules._descent import Descent, Proposal
from optapi.rules._linear_algebra import conjugate_gradients


LEAST_SQUARES = (optapi.gauss_newton, optapi.levenberg_marquardt)


def rosenbrock(x):
    return pt.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


def decay(x):
    times, data = reference.Decay.times, reference.Decay.data
    return x[0] * pt.exp(-x[1] * times) + x[2] * pt.exp(-x[3] * times) - data


PROBLEMS = {"rosenbrock": (reference.Rosenbrock(), rosenbrock), "decay": (reference.Decay(), decay)}


class Run:
    """A minimization of half the sum of the squares of ``residuals(p)`` by calls of one compiled function."""

    def __init__(self, rule, start, residuals, mode=STEP, **options):
        start = np.array(start)
        self.p = pytensor.shared(start, name="p", shape=start.shape)
        self.stop = pytensor.shared(np.int64(0), name="stop")
        r = residuals(self.p)
        given = {"residuals": r} if rule in LEAST_SQUARES else {"cost": pt.sum(r**2) / 2}
        self.updates = rule([self.p], stop=self.stop, **given, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=mode)

    def __call__(self, calls=1000):
        """Calls until it stops, and returns the points."""
        points = []
        while len(points) < calls and not self.stop.get_value():
            self.step()
            points.append(np.array(self.p.get_value()))
        return np.array(points)

    def __getattr__(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]


# The twins


TWINS = {
    "newton": (optapi.newton, {}, reference.Newton),
    "newton_cg": (optapi.newton_cg, {}, reference.NewtonCG),
    "trust_region_cg": (optapi.trust_region_cg, {}, reference.TrustRegion),
    "small_region": (optapi.trust_region_cg, {"step_size": 0.01}, lambda: reference.TrustRegion(radius=0.01)),
    "gauss_newton": (optapi.gauss_newton, {}, reference.GaussNewton),
    "levenberg": (optapi.levenberg_marquardt, {}, reference.LevenbergMarquardt),
    "marquardt": (
        optapi.levenberg_marquardt,
        {"x_scale": "jac", "damping": 1.0},
        lambda: reference.LevenbergMarquardt(scaled=True, tau=1.0),
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("case", TWINS)
def test_twins(case, problem):
    """Every step from the points of the trajectory; the first ten on their own."""
    rule, options, twin = TWINS[case]
    problem, residuals = PROBLEMS[problem]
    points = Run(rule, problem.start, residuals, tolerance=1e-4, **options)(40)
    assert len(points) >= 4
    for wanted in (
        twin().points(problem, problem.start, len(points), along=points),
        twin().points(problem, problem.start, min(10, len(points))),
    ):
        for point, other in zip(points, wanted, strict=False):
            assert np.max(np.abs(point - other)) <= 1e-12 * np.max(np.abs(other))


# What the books prove


def smooth(x):
    """Four equations that vanish at 0 only, where their derivatives are regular."""
    return pt.stack([pt.exp(x[0]) - 1, x[1] + x[0] ** 2, pt.sinh(x[2]) + x[1], 2 * x[3] - pt.sin(x[0] - x[2])])


@pytest.mark.parametrize(
    "rule, order, bound", [(optapi.newton, 2, 3), (optapi.newton_cg, 1.5, 1), (optapi.trust_region_cg, 1.5, 1)]
)
def test_convergence_is_fast(rule, order, bound):
    """Newton's is quadratic; with the tolerance of the conjugate gradients its order is 3/2."""
    run = Run(rule, np.ones(4), smooth, tolerance=1e-11)
    errors = np.max(np.abs(run()), axis=1)
    assert run.reason == 0
    last = errors[errors < 5e-2]
    assert len(last) >= 4
    assert all(after <= bound * before**order + 1e-15 for before, after in pairwise(last))


def line(m=12, n=4, seed=3):
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(m, n)), rng.normal(size=m)
    return A, b, np.linalg.lstsq(A, b, rcond=None)[0]


@pytest.mark.parametrize(
    "rule, options",
    [
        (optapi.newton, {}),
        (optapi.gauss_newton, {}),
        (optapi.levenberg_marquardt, {"damping": 1e-30}),
        (optapi.levenberg_marquardt, {"damping": 1e-30, "x_scale": "jac"}),
    ],
)
def test_one_step_on_linear_least_squares(rule, options):
    A, b, solution = line()
    run = Run(rule, np.full(4, 3.0), lambda p: pt.dot(A, p) - b, **options)
    run()
    np.testing.assert_allclose(run.p.get_value(), solution, rtol=1e-12)
    assert (run.reason, run.evaluations, run.products) == (0, 2, 4)


def test_singular_least_squares_have_the_shortest_step():
    A, b, _ = line()
    A[:, 3] = A[:, 0] - 2 * A[:, 1]
    run = Run(optapi.gauss_newton, np.zeros(4), lambda p: pt.dot(A, p) - b)
    run()
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), np.linalg.pinv(A) @ b, rtol=1e-11)


def test_strong_damping_is_the_gradient():
    A, b, _ = line()
    start, a = np.full(4, 3.0), 1e-9
    for options in ({}, {"solver": "cg"}):
        run = Run(optapi.levenberg_marquardt, start, lambda p: pt.dot(A, p) - b, step_size=a, **options)
        [point] = run(1)
        np.testing.assert_allclose((start - point) / a, A.T @ (A @ start - b), rtol=1e-5)


def test_the_damping_is_that_of_nielsen():
    """With a quality of 1, as it is on a quadratic, the damping falls to a third."""
    A, b, _ = line()
    run = Run(optapi.levenberg_marquardt, np.full(4, 3.0), lambda p: pt.dot(A, p) - b, tolerance=1e-14)
    [mu] = [v for v in run.updates if v.name == "levenberg_marquardt/damping"]
    run.step()
    first = mu.get_value()
    assert first == pytest.approx(1e-3 * np.max(np.sum(A**2, axis=0)) / 3, rel=1e-12)
    run.step()
    assert mu.get_value() == pytest.approx(first / 3, rel=1e-12)


def test_the_quality_of_a_step_on_a_quadratic_is_1():
    A, b, _ = line()
    p, stop = pytensor.shared(np.full(4, 30.0), shape=(4,)), pytensor.shared(0)
    r = pt.dot(A, p) - b
    f = Objective.of([p], pt.sum(r**2) / 2, stop=stop, tolerance=1e-6, name="test", needs_cost=True)
    start = Descent.start(f, fixed, None)
    B = f.curvature()

    def propose(radius, quality):
        found = conjugate_gradients(lambda v: B(start.point, v), start.gradient, 10, radius=radius)
        return Proposal(found.vector, -found.model, found.products)

    end, (_, quality, _) = start.trust_region(
        propose, [pt.constant(1.0), pt.constant(0.0)], lambda q, _, s, __: [s, q], 0.1
    )
    step = pytensor.function([], quality, updates=start.finish(end, {}), mode=STEP)
    found = []
    while not stop.get_value():
        found.append(step())
    assert 20 < len(found) < 100
    np.testing.assert_allclose(found[:-1], 1, rtol=1e-10)


def test_the_radius_grows_at_the_boundary_only():
    A, b, _ = line()
    run = Run(optapi.trust_region_cg, np.full(4, 30.0), lambda p: pt.dot(A, p) - b, max_radius=6.0)
    [radius] = [v for v in run.updates if v.name == "trust_region_cg/radius"]
    radii, points = [], [run.p.get_value()]
    while not run.stop.get_value():
        run.step()
        radii.append(radius.get_value()[()])
        points.append(run.p.get_value())
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert radii[:3] == [2.0, 4.0, 6.0]
    assert set(radii[2:]) == {6.0}
    np.testing.assert_allclose(lengths[:4], [1, 2, 4, 6], rtol=1e-12)
    assert lengths[-1] < 6


@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg])
def test_a_saddle_is_left(rule):
    run = Run(rule, [1.0, 1e-3], lambda x: pt.stack([x[0], x[1] ** 2 - 1]))
    run()
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), [0, 1], atol=1e-4)


# What a call does


def test_refused_steps_are_tried_again_in_the_same_call():
    """A region, or no damping, in which the first step is far too long: each call moves, and lowers the cost."""
    for rule, options in ((optapi.trust_region_cg, {"step_size": 1e4}), (optapi.levenberg_marquardt, {"damping": 0.0})):
        run = Run(rule, [2.0, 0.3], lambda x: pt.stack([pt.arctan(x[0]), 3 * pt.arctan(x[1] - x[0])]), **options)
        costs = [np.inf]
        points = [run.p.get_value()]
        while not run.stop.get_value():
            run.step()
            points.append(run.p.get_value())
            costs.append(run.cost)
        assert run.reason == 0
        assert run.evaluations > len(points) + 1
        assert np.all(np.diff(costs) < 0)
        assert np.all(np.any(np.diff(points, axis=0) != 0, axis=1))


@pytest.mark.parametrize(
    "rule, options",
    [
        (optapi.newton, {}),
        (optapi.newton_cg, {}),
        (optapi.trust_region_cg, {"step_size": 100.0}),
        (optapi.gauss_newton, {}),
        (optapi.levenberg_marquardt, {"damping": 1e-12}),
        (optapi.levenberg_marquardt, {"damping": 1e-12, "solver": "cg"}),
    ],
)
def test_a_cost_that_is_not_finite_beyond_a_wall(rule, options):
    """The step of Gauss and Newton from here leads to the logarithm of a negative number."""
    run = Run(rule, [5.0, 8.0], lambda x: pt.log(x) - np.array([0.0, 0.5]), **options)
    while not run.stop.get_value():
        run.step()
        assert np.all(run.p.get_value() > 0)
        assert np.isfinite(run.cost)
    assert run.reason == 0
    assert run.evaluations > 5
    np.testing.assert_allclose(run.p.get_value(), np.exp([0.0, 0.5]), rtol=1e-4)


def test_gradients_that_are_wrong_end_it():
    """No step along them lowers the cost."""
    for rule in (optapi.trust_region_cg, optapi.newton, optapi.newton_cg):
        p, stop = pytensor.shared(np.array([1.0, 2.0]), shape=(2,)), pytensor.shared(0)
        updates = rule([p], pt.sum(pt.cosh(p)), gradients=[-pt.sinh(p)], stop=stop)
        step = pytensor.function([], [], updates=updates, mode=STEP)
        for _ in range(35):
            step()
        assert stop.get_value() == 1
        assert optapi.reports(updates)["reason"][0].get_value() == 2
        np.testing.assert_allclose(p.get_value(), [1.0, 2.0], rtol=1e-13)


def test_what_is_counted():
    """Evaluations and products, by a cost that counts them."""

    def cost(x):
        counts["evaluations"] += 1
        return np.sum(np.cosh(x)), [np.sinh(x)]

    def product(point, vectors):
        counts["products"] += 1
        return [np.cosh(point[0]) * vectors[0]]

    for rule in (optapi.newton, optapi.newton_cg, optapi.trust_region_cg):
        counts = dict.fromkeys(("evaluations", "products"), 0)
        p, stop = pytensor.shared(np.array([1.0, 2.0, -3.0]), shape=(3,)), pytensor.shared(0)
        updates = rule([p], optapi.Oracle(cost, product)([p]), stop=stop)
        # Without rewrites the cost would be evaluated for the shape of its derivative by itself.
        step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
        while not stop.get_value():
            step()
        reports = optapi.reports(updates)
        assert counts == {role: int(reports[role][0].get_value()) for role in counts}
        assert counts["products"] >= 5


@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg])
def test_numpy_functions_with_products_and_without(rule):
    calls = []

    def hessp(x, v):
        calls.append(x)
        return np.cosh(x - 1) * v

    f, df = lambda x: np.sum(np.cosh(x - 1)), lambda x: np.sinh(x - 1)
    given = minimize(np.zeros(4), f, df, rule, hessp=hessp, full_output=True)
    by_differences = minimize(np.zeros(4), f, df, rule, full_output=True)
    assert given.status == by_differences.status == 0
    assert given.nhev == len(calls) > 0
    assert by_differences.nhev == 0
    assert by_differences.njev > given.njev
    np.testing.assert_allclose(by_differences.x, given.x, atol=1e-6)


def test_numpy_functions_have_no_residuals():
    for rule in LEAST_SQUARES:
        with pytest.raises(TypeError, match="needs residuals=, an expression of PyTensor"):
            minimize(np.zeros(2), lambda x: x @ x, lambda x: 2 * x, rule)


# Residuals


@pytest.mark.parametrize("options", [{}, {"solver": "cg"}])
@pytest.mark.parametrize("rule", LEAST_SQUARES)
def test_several_residuals_and_parameters(rule, options):
    """Residuals of any shape, and a cost with another sign and a constant."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(9, 2)), rng.normal(size=(9, 3))
    W = pytensor.shared(np.zeros((2, 3)), name="W", shape=(2, 3))
    c = pytensor.shared(0.5, name="c")
    fit, prior = pt.tanh(pt.dot(X, W)) * c - Y, c - 1
    likelihood = 7 - (pt.sum(fit**2) + prior**2) / 2
    stop = pytensor.shared(0)
    updates = rule([W, c], likelihood, residuals=[fit, prior], ascent=True, stop=stop, tolerance=1e-7, **options)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    for _ in range(100):
        step()
    assert optapi.reports(updates)["reason"][0].get_value() == 0
    gradients = pytensor.function([], pytensor.grad(likelihood, [W, c]), mode=STEP)()
    assert all(np.max(abs(g)) <= 1e-7 for g in gradients)
    [cost] = optapi.reports(updates)["cost"]
    assert cost.get_value() == pytest.approx(pytensor.function([], likelihood, mode=STEP)(), rel=1e-12)


@pytest.mark.parametrize("rule", LEAST_SQUARES)
def test_residuals_that_are_wrong(rule):
    p = pytensor.shared(np.ones(2), name="p")
    mine = {}
    for residuals, error, words in [
        (np.ones(3), TypeError, "residuals"),
        ([], ValueError, "residuals is empty"),
        (pt.arange(3), TypeError, "dtype"),
        ([p - 1, pt.dvector("z")], ValueError, "'z' of residuals does not depend on the parameters"),
    ]:
        with pytest.raises(error, match=words):
            rule([p], residuals=residuals, updates=mine)
    with pytest.raises(TypeError, match="residuals"):
        rule([p], pt.sum(p**2), updates=mine)
    with pytest.raises(ValueError, match="minus half of it"):
        rule([p], residuals=p - 1, ascent=True, updates=mine)
    with pytest.raises(ValueError, match="solver"):
        rule([p], residuals=p - 1, solver="qr", updates=mine)
    assert mine == {}


def test_options_that_are_wrong():
    p = pytensor.shared(np.ones(2), name="p")
    with pytest.raises(ValueError, match='pass solver="svd"'):
        optapi.levenberg_marquardt([p], residuals=p - 1, x_scale="jac", solver="cg")
    for wrong in (1.0, "columns", np.ones(2)):
        with pytest.raises(ValueError, match='pass None or "jac"'):
            optapi.levenberg_marquardt([p], residuals=p - 1, x_scale=wrong)
    with pytest.raises(ValueError, match="accept"):
        optapi.trust_region_cg([p], pt.sum(p**2), accept=0.5)
    with pytest.raises(ValueError, match="cg_steps"):
        optapi.newton_cg([p], pt.sum(p**2), cg_steps=0)


def test_a_few_steps_of_conjugate_gradients():
    """With one step the direction is the steepest descent."""
    A, b, _ = line()
    for rule in (optapi.newton_cg, optapi.trust_region_cg):
        run = Run(
            rule,
            np.full(4, 3.0),
            lambda p: pt.dot(A, p) - b,
            cg_steps=1,
            step_size=1e2 if rule is optapi.trust_region_cg else None,
        )
        [point] = run(1)
        g = A.T @ (A @ np.full(4, 3.0) - b)
        np.testing.assert_allclose((np.full(4, 3.0) - point) / g, (g @ g) / np.sum((A @ g) ** 2), rtol=1e-10)
        assert run.products == 1


@pytest.mark.parametrize("x_scale", [None, "jac"])
def test_scales_of_the_columns_make_units_irrelevant(x_scale):
    """With them the run is the same in other units, without it is not."""
    problem, residuals = PROBLEMS["decay"]
    units = np.array([1e3, 1.0, 1e-3, 10.0])
    first = Run(optapi.levenberg_marquardt, problem.start, residuals, x_scale=x_scale, tolerance=None)(8)
    second = Run(
        optapi.levenberg_marquardt,
        problem.start * units,
        lambda x: residuals(x / units),
        x_scale=x_scale,
        tolerance=None,
    )(8)
    assert np.allclose(first, second / units, rtol=1e-9) == (x_scale == "jac")


@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg, *LEAST_SQUARES])
def test_float32_ends(rule):
    run = Run(rule, np.array([-1.2, 1.0], "float32"), rosenbrock, tolerance=1e-3)
    run(200)
    assert run.reason == 0
    np.testing.assert_allclose(run.p.get_value(), 1, atol=1e-2)


@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg, *LEAST_SQUARES])
def test_an_impossible_tolerance_ends(rule):
    run = Run(rule, reference.Decay.start, decay, tolerance=0.0)
    run(300)
    assert run.stop.get_value() == 1
    assert run.reason == 7
    assert run.gradient_size <= 1e-7


@pytest.mark.jax
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "rule, options",
    [
        (optapi.newton, {}),
        (optapi.trust_region_cg, {}),
        (optapi.levenberg_marquardt, {"x_scale": "jac"}),
        (optapi.levenberg_marquardt, {"solver": "cg"}),
    ],
)
def test_jax(rule, options):
    """Matrices, decompositions, and loops inside of loops; residuals that are joined, so that pull-backs split.

    That PyTensor 3.0 cannot do under JAX, for any rule.
    """
    A, b, _ = line()

    def residuals(x):
        fit = pt.dot(A, pt.sinh(x)) - b
        return pt.concatenate([fit, x**2 - 1]) if REWRITES_INNER_GRAPHS else fit

    here = Run(rule, np.full(4, 1.5), residuals, **options)
    there = Run(rule, np.full(4, 1.5), residuals, mode="JAX", **options)
    points = here(8)
    assert len(points) >= 4
    np.testing.assert_allclose(there(8), points, rtol=1e-7)
    assert (there.evaluations, there.products) == (here.evaluations, here.products)


# The problems of Moré, Garbow and Hillstrom


MGH = more_garbow_hillstrom.PROBLEMS

# Meyer's gradient cannot be computed to 1e-6. The valley there, and the negative curvature of the other problem, at
# which the directions end after one step, are too much for the others; SciPy's methods of the same kind do not reach
# these minima either.
UNREACHED = {
    (optapi.newton_cg, "Meyer"),
    (optapi.newton_cg, "Gulf research"),
    (optapi.trust_region_cg, "Meyer"),
}


@pytest.mark.parametrize("problem", MGH, ids=str)
def test_minima_are_reached(problem):
    """From the standard start to a gradient of 1e-6, in no more than SciPy's limit of 200 n iterations."""
    x, v = pt.dvector(shape=problem.start.shape), pt.dvector(shape=problem.start.shape)
    slope = pt.sum(pytensor.grad(problem.cost([x]), x) * v)
    product = pytensor.grad(slope, x, consider_constant=[v], disconnected_inputs="ignore")
    hessp = pytensor.function([x, v], product, mode=STEP, on_unused_input="ignore")
    for rule in (optapi.newton, optapi.newton_cg, optapi.trust_region_cg):
        options = {"tolerance": 1e-6, "max_iterations": 200 * problem.start.size, "full_output": True}
        found = minimize(problem.start, problem.evaluate, True, rule, hessp=hessp, **options)
        reached = problem.reached(found.fun) is not None
        assert reached == ((rule, problem.name) not in UNREACHED), (rule, found)
        assert (found.status == 0) == (reached and problem.name != "Meyer"), (rule, found)
        assert found.nhev > 0


# Where the method of Levenberg and Marquardt ends elsewhere: in another minimum, where the derivatives vanish in the
# limit, or where the cost is not finite; Meyer's problem takes 5000 iterations from 100 times the start. MINPACK's
# program, by SciPy, ends elsewhere from all of these, too, but for Trigonometric from 10 times, and Gaussian, Meyer and
# Osborne 1 from 100 times the start. Rounding errors decide on Chebyquad.
ELSEWHERE = {
    1: set(),
    10: {"Osborne 2", "Trigonometric", "Chebyquad"},
    100: {
        *("Jennrich and Sampson", "Gaussian", "Meyer", "Gulf research", "Box three-dimensional", "Osborne 1"),
        *("Biggs EXP6", "Osborne 2", "Chebyquad"),
    },
}


@pytest.mark.parametrize("problem", MGH, ids=str)
def test_least_squares_from_near_and_far(problem):
    """From the standard start, and from 10 and 100 times that, or from 10 and 100 where it is zero."""
    shape = problem.start.shape
    p, stop = pytensor.shared(np.zeros(shape), shape=shape), pytensor.shared(np.int64(0))
    updates = optapi.levenberg_marquardt([p], residuals=problem.at(p), stop=stop, tolerance=1e-12)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    begin = [variable.get_value() for variable in updates]
    for factor in (factor for factor, names in ELSEWHERE.items() if problem.name not in names):
        for variable, value in zip(updates, begin, strict=True):
            variable.set_value(value)
        start = factor * problem.start
        p.set_value(start if factor == 1 or np.any(start) else np.full(shape, float(factor)))
        iterations = 0
        while not stop.get_value() and iterations < 400 * problem.start.size:
            step()
            iterations += 1
        found = problem.evaluate(p.get_value())[0]
        assert problem.reached(found) is not None, (factor, found)
