"""Newton's methods and least squares: their twins, what the books prove of them, and the problems they are for."""

from functools import partial
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
    """Every step from the points of the trajectory; the first ten on their own.

    Nine of newton_cg, whose steps along negative curvature amplify round-off.
    """
    rule, options, twin = TWINS[case]
    problem, residuals = PROBLEMS[problem]
    points = Run(rule, problem.start, residuals, tolerance=1e-4, **options)(40)
    assert len(points) >= 4
    for wanted in (
        twin().points(problem, problem.start, len(points), along=points),
        twin().points(problem, problem.start, min(9 if case == "newton_cg" else 10, len(points))),
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


# Curvature that is negative, unknown, or noise


def late_negative_curvature(x):
    """It is negative along the last component alone, which conjugate gradients meet last. The minimum is 0."""
    return pt.stack([x[0], x[1] + x[1] ** 2, pt.exp(x[2]) - 1])


@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg])
def test_negative_curvature_is_followed_wherever_it_is_met(rule):
    run = Run(rule, [2.0, 3.0, -8.0], late_negative_curvature, tolerance=1e-8)
    points = run(100)
    assert (run.reason, len(points) <= 20) == (0, True)
    x = run.p.get_value()
    np.testing.assert_allclose([x[0], x[1] * (x[1] + 1), x[2]], 0, atol=1e-8)


def test_the_step_along_a_later_direction_of_negative_curvature():
    """Two steps of conjugate gradients by hand."""
    H, g = np.diag([1.0, -1.0]), np.array([2e-6, 1e-6])
    p, stop = pytensor.shared(np.zeros(2), shape=(2,)), pytensor.shared(0)
    cost = (p @ H @ p) / 2 + g @ p + pt.sum(p**4)
    updates = optapi.newton_cg([p], cost, stop=stop, tolerance=1e-9, line_search=partial(fixed, max_trials=1))
    pytensor.function([], [], updates=updates, mode=STEP)()
    a = (g @ g) / (g @ H @ g)
    r = g - a * H @ g
    d = -r - (r @ r) / (g @ g) * g
    assert d @ H @ d < 0
    wanted = -a * g + (r @ r) / (np.linalg.norm(d) * np.linalg.norm(H @ d)) * d
    np.testing.assert_allclose(p.get_value(), wanted, rtol=1e-12)
    assert wanted @ g < -a * g @ g


def test_a_model_that_is_not_finite_is_linear():
    """Without one product that is a number, the steps are along the steepest descent, as long as the radius."""
    oracle = optapi.Oracle(lambda x: (np.sum(np.cosh(x)), [np.sinh(x)]), lambda ps, vs: [np.full(2, np.nan)])
    p, stop = pytensor.shared(np.array([3.0, -2.0]), shape=(2,)), pytensor.shared(0)
    updates = optapi.trust_region_cg([p], oracle([p]), stop=stop, tolerance=1e-4)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    step()
    g = np.sinh([3.0, -2.0])
    np.testing.assert_allclose(p.get_value(), [3.0, -2.0] - g / np.linalg.norm(g), rtol=1e-12)
    for _ in range(100):
        step()
    assert optapi.reports(updates)["reason"][0].get_value() == 0
    np.testing.assert_allclose(p.get_value(), 0, atol=1e-4)


def test_a_radius_begins_anew_once():
    """With gradients of the wrong sign no step is taken, from any radius. The cost is 0: nothing hides in it."""
    p, stop = pytensor.shared(np.array([1.0, 2.0]), shape=(2,)), pytensor.shared(0)
    cost = pt.sum((p - np.array([1.0, 2.0])) * pt.sinh([1.0, 2.0])) + pt.sum((p - np.array([1.0, 2.0])) ** 2)
    gradients = [-pytensor.grad(cost, p)]
    updates = optapi.trust_region_cg([p], cost, gradients=gradients, stop=stop, step_size=8.0)
    [radius] = [v for v in updates if v.name == "trust_region_cg/radius"]
    step = pytensor.function([], [], updates=updates, mode=STEP)
    step()
    assert (stop.get_value(), np.isnan(radius.get_value())) == (0, True)
    step()
    assert (stop.get_value(), optapi.reports(updates)["reason"][0].get_value()) == (1, 2)


class Misra1a:
    """Of NIST: 14 residuals of up to 80 that leave squares of 0.12, so that the cost is noisy to 160 roundings."""

    certified = np.array([2.3894212918e02, 5.5015643181e-04])
    x = np.array([77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0])
    y = np.array([10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78])

    def cost(self, b):
        return np.sum((b[0] * (1 - np.exp(-b[1] * self.x)) - self.y) ** 2)

    def derivative(self, b):
        e = np.exp(-b[1] * self.x)
        r = b[0] * (1 - e) - self.y
        return 2 * np.array([r @ (1 - e), r @ (b[0] * self.x * e)])

    def product(self, b, v):
        e = np.exp(-b[1] * self.x)
        r, J = b[0] * (1 - e) - self.y, np.stack([1 - e, b[0] * self.x * e])
        cross = r @ (self.x * e)
        return 2 * (J @ (v @ J) + np.array([cross * v[1], cross * v[0] - b[0] * (r @ (self.x**2 * e)) * v[1]]))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("start", [[500.0, 1e-4], [250.0, 5e-4]])
def test_a_cost_noisier_than_its_rounding_errors(start, exact):
    problem = Misra1a()
    hessp = problem.product if exact else None
    found = minimize(
        np.array(start), problem.cost, problem.derivative, "trust_region_cg", hessp=hessp, full_output=True
    )
    assert found.status == 0
    assert np.max(abs(problem.derivative(found.x))) <= 1e-5
    np.testing.assert_allclose(found.x, problem.certified, rtol=1e-6)


@pytest.mark.parametrize("start", [1e-4, 1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg])
def test_differences_stay_in_the_domain(rule, start):
    """The derivative of this is 0 where 300 log x = 50."""
    f, df = lambda x: np.sum(-50 * x + 300 * x * (np.log(x) - 1)), lambda x: -50 + 300 * np.log(x)
    found = minimize(np.full(3, start), f, df, rule, full_output=True)
    assert found.success
    np.testing.assert_allclose(found.x, np.exp(50 / 300), rtol=1e-6)


@pytest.mark.parametrize("rule", [optapi.newton, optapi.newton_cg, optapi.trust_region_cg])
def test_differences_where_units_are_small(rule):
    """A rate per hour: the counts over the hours. The derivative is finite, and wrong, at negative rates."""
    counts, hours = np.array([3, 5, 2, 4.0]), np.array([1e6, 2e6, 1e6, 3e6])
    found = minimize(
        np.array([1e-7]),
        lambda rate: np.sum(rate[0] * hours - counts * np.log(rate[0] * hours)),
        lambda rate: np.array([hours.sum() - counts.sum() / rate[0]]),
        rule,
        full_output=True,
        tolerance=1e-3,
    )
    assert found.success
    np.testing.assert_allclose(found.x, counts.sum() / hours.sum(), rtol=1e-7)


@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1e-17, 1.0, 0.5]])
@pytest.mark.parametrize("differences", ["evaluator", "oracle"])
def test_eigenvalues_of_differences_are_noise(start, differences):
    """Two equal columns: the data do not determine the difference of their coefficients, so no step changes it much."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(30, 2))
    A, y = np.c_[A, A[:, 0]], (rng.normal(size=30) > 0) * 1.0

    def f(p):
        return np.sum(np.logaddexp(0, A @ p) - y * (A @ p))

    def df(p):
        return A.T @ (1 / (1 + np.exp(-A @ p)) - y)

    if differences == "evaluator":
        found = minimize(np.array(start), f, df, "newton", full_output=True)
        x, status = found.x, found.status
    else:
        p, stop = pytensor.shared(np.array(start), shape=(3,)), pytensor.shared(0)
        updates = optapi.newton([p], optapi.Oracle(lambda p: (f(p), [df(p)]))([p]), stop=stop)
        step = pytensor.function([], [], updates=updates, mode=STEP)
        for _ in range(20):
            step()
        x, status = p.get_value(), optapi.reports(updates)["reason"][0].get_value()
    assert status == 0
    assert np.max(abs(df(x))) <= 1e-5
    assert abs((x[0] - x[2]) - (start[0] - start[2])) < 0.5


# A start that is no minimum


ESCAPES = [(optapi.newton, {}), (optapi.newton_cg, {"escape": True}), (optapi.trust_region_cg, {"escape": True})]


def symbolic(cost, start, rule, mode=STEP, **options):
    """The point at which a rule ends, and its reports."""
    p, stop = pytensor.shared(np.array(start), shape=(len(start),)), pytensor.shared(0)
    updates = rule([p], cost(p), stop=stop, **options)
    step = pytensor.function([], [], updates=updates, mode=mode)
    for _ in range(60):
        step()
    return p.get_value(), {role: v.get_value()[()] for role, [v] in optapi.reports(updates).items()}


@pytest.mark.parametrize("rule, options", ESCAPES)
@pytest.mark.parametrize(
    "start, cost, minima",
    [
        ([0.0], lambda x: 2 - x[0] ** 2 + x[0] ** 4, [np.sqrt(0.5)]),
        ([0.0, 0.0], lambda x: x[0] ** 2 + (x[1] ** 2 - 1) ** 2, [0.0, 1.0]),
        ([0.0, 0.0], lambda x: 1e8 * x[0] ** 2 - x[1] ** 2 + x[1] ** 4, [0.0, np.sqrt(0.5)]),
        ([3e9, 0.0], lambda x: (x[0] / 1e9 - 3) ** 2 + ((x[1] / 1e9) ** 2 - 1) ** 2, [3e9, 1e9]),
    ],
)
def test_a_maximum_and_saddles_are_left(start, cost, minima, rule, options):
    tolerance = 1e-5 / max(1, max(np.abs(minima)))
    x, reports = symbolic(cost, start, rule, tolerance=tolerance, **options)
    assert reports["reason"] == 0
    assert reports["gradient_size"] <= tolerance
    np.testing.assert_allclose(abs(x), minima, rtol=1e-4, atol=1e-5)
    stays, _ = symbolic(cost, start, rule, tolerance=tolerance, **options | {"escape": False})
    assert np.array_equal(stays, start)


@pytest.mark.parametrize("rule, options", ESCAPES)
@pytest.mark.parametrize(
    "start, cost",
    [
        ([0.1, 1.0], lambda x: (x[0] - 0.1) ** 2 + (x[1] ** 2 - 1) ** 2),
        # Minima along a line, where the Hessian is singular.
        ([0.3, 1 / 0.3], lambda x: (x[0] * x[1] - 1) ** 2),
        ([1.0, 2.0, 3.0], lambda x: (pt.sum(x) - 6) ** 2 / 2),
        # Negative curvature that the cost cannot show.
        ([0.0], lambda x: 1e20 + 0 * x[0] - 1e-3 * pt.minimum(x[0] ** 2, 1)),
    ],
)
def test_a_minimum_stays_bit_for_bit(start, cost, rule, options):
    x, reports = symbolic(cost, start, rule, **options)
    assert x.tobytes() == np.array(start).tobytes()
    assert reports["reason"] == 0


def test_a_minimum_is_left_by_ascent():
    x, reports = symbolic(lambda x: pt.cos(x[0]), [np.pi], optapi.newton, ascent=True)
    assert reports["reason"] == 0
    assert np.cos(x[0]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("rule, options", ESCAPES)
def test_what_it_costs_to_know_a_minimum(rule, options):
    """Products with all unit vectors, or at most 20 for each component; and none by default."""
    cost = lambda x: pt.sum(pt.arange(1, 5) * x**2)  # noqa: E731
    _, reports = symbolic(cost, np.zeros(4), rule, **options)
    assert reports["evaluations"] == 1
    assert reports["products"] in ((4,) if rule is optapi.newton else (4, 5))
    _, reports = symbolic(cost, np.zeros(4), rule, escape=False)
    assert (reports["evaluations"], reports["products"]) == (1, 0)


# Preconditioners


UNITS = np.array([1e3, 1.0, 1e-3, 10.0])


@pytest.mark.parametrize("rule", [optapi.newton_cg, optapi.trust_region_cg])
def test_a_preconditioner_makes_units_irrelevant(rule):
    problem, residuals = PROBLEMS["decay"]
    diagonal = np.diag(problem.hessian(problem.start))
    assert np.all(diagonal > 0)
    first = Run(rule, problem.start, residuals, preconditioner=[diagonal], tolerance=None)(8)
    scaled = Run(rule, problem.start * UNITS, lambda x: residuals(x / UNITS), preconditioner=[diagonal / UNITS**2],
                 tolerance=None)(8)  # fmt: skip
    np.testing.assert_allclose(scaled / UNITS, first, rtol=1e-7)
    other = Run(rule, problem.start * UNITS, lambda x: residuals(x / UNITS), tolerance=None)(8)
    assert not np.allclose(other / UNITS, first, rtol=1e-3)


@pytest.mark.parametrize("rule, options", [(optapi.newton_cg, {}), (optapi.trust_region_cg, {"step_size": 1e9})])
def test_the_diagonal_of_a_diagonal_matrix_solves_it_in_one_product(rule, options):
    """Parameters of several shapes; an expression and an array."""
    a, b = pytensor.shared(np.array([1.0, -2.0]), shape=(2,)), pytensor.shared(3.0)
    weights, stop = pytensor.shared(np.array([1e4, 1e-2])), pytensor.shared(0)
    cost = pt.sum(weights * a**2) / 2 + 50 * (b - 1) ** 2
    updates = rule([a, b], cost, stop=stop, preconditioner=[weights, np.array(100.0)], **options)
    step = pytensor.function([], [], updates=updates, mode=STEP)
    step()
    np.testing.assert_allclose([*a.get_value(), b.get_value()], [0, 0, 1], atol=1e-12)
    assert optapi.reports(updates)["products"][0].get_value() == 1


@pytest.mark.parametrize("rule", [optapi.newton_cg, optapi.trust_region_cg])
def test_preconditioners_that_are_wrong(rule):
    p = pytensor.shared(np.ones(2), name="p", shape=(2,))
    for wrong, words in [
        ([np.array([1.0, -1.0])], "preconditioner of 'p' has elements that are negative or not finite"),
        ([np.array([1.0, np.nan])], "negative or not finite"),
        ([np.ones(3)], "static shape"),
        ([], "preconditioner has 0 entries"),
    ]:
        with pytest.raises(ValueError, match=words):
            rule([p], pt.sum(p**2), preconditioner=wrong)
    # Elements of zero, as an expression may have, are raised.
    run = Run(rule, np.ones(2), lambda x: x - 3, preconditioner=[pytensor.shared(np.array([0.0, 1.0]))])
    run(200)
    assert run.reason == 0


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
    for wrong in (0.0, "columns", np.ones(3), [1.0, np.inf]):
        with pytest.raises(ValueError, match="x_scale"):
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


@pytest.mark.jax
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("intercept", [0.0, np.zeros(1)], ids=["scalar", "vector"])
@pytest.mark.parametrize("rule", ["newton", "newton_cg", "trust_region_cg", "hessian_free"])
def test_jax_with_shapes_that_are_not_static(rule, intercept):
    """A logistic regression with slopes of any length: at the minimum the gradient is 0, by hand."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    s = np.where(X @ [1.0, -2.0, 0.5] + rng.logistic(size=50) > 0, 1.0, -1.0)
    shape = {} if np.ndim(intercept) == 0 else {"shape": (1,)}

    def run(mode):
        w, b = pytensor.shared(np.zeros(3), name="w"), pytensor.shared(intercept, name="b", **shape)
        cost = pt.sum(pt.softplus(-s * (pt.constant(X) @ w + b))) + pt.sum(w**2) / 2
        return optapi.compile_minimizer([w, b], cost, rule, mode=mode, tolerance=1e-6)()

    here, there = run(optapi.PYTHON), run("JAX")
    w, b = there.x
    slopes = -s / (1 + np.exp(s * (X @ w + b)))
    np.testing.assert_allclose([*(X.T @ slopes + w), np.sum(slopes)], 0, atol=1e-6)
    assert there.status == 0
    assert (there.nit, there.nfev) == (here.nit, here.nfev)


@pytest.mark.long
@pytest.mark.jax
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("rule, options", ESCAPES)
def test_jax_decides_alike(rule, options):
    """Of negative curvature in conjugate gradients, of starts that are no minima, of noise."""
    for start, cost in [
        ([2.0, 3.0, -8.0], lambda x: pt.sum(late_negative_curvature(x) ** 2)),
        ([0.0, 0.0], lambda x: x[0] ** 2 + (x[1] ** 2 - 1) ** 2 + 100),
        ([0.3, 1 / 0.3], lambda x: (x[0] * x[1] - 1) ** 2),
    ]:
        (x, here), (other, there) = (symbolic(cost, start, rule, mode, **options) for mode in (STEP, "JAX"))
        np.testing.assert_allclose(other, x, rtol=1e-7, atol=1e-9)
        assert all(here[role] == there[role] for role in ("reason", "evaluations", "products"))


@pytest.mark.long
@pytest.mark.numba
@pytest.mark.parametrize("rule, options", ESCAPES)
def test_numba_decides_alike(rule, options):
    cost = lambda x: x[0] ** 2 + (x[1] ** 2 - 1) ** 2 + 100  # noqa: E731
    (x, here), (other, there) = (symbolic(cost, np.zeros(2), rule, mode, **options) for mode in (STEP, "NUMBA"))
    np.testing.assert_allclose(other, x, rtol=1e-7, atol=1e-9)
    assert all(here[role] == there[role] for role in ("reason", "evaluations", "products"))


# The problems of Moré, Garbow and Hillstrom


MGH = more_garbow_hillstrom.PROBLEMS

# Meyer's gradient cannot be computed to 1e-6. The valley there is too much for the others; SciPy's methods of the same
# kind do not reach this minimum either.
UNREACHED = {
    (optapi.newton_cg, "Meyer"),
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
