"""SGD-QN, online L-BFGS, SQN and adaQN: trajectories against NumPy twins, and facts that the papers state."""

import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from reference import stochastic_quasi_newton as reference
from sklearn.datasets import load_breast_cancer

import optapi
from optapi import PYTHON, schedules


STEPS = 60
FULL = [problems.quadratic(), problems.logistic()]


def shared_at(starts):
    return [pytensor.shared(np.array(start, float), name=f"p{i}") for i, start in enumerate(starts)]


def compiled(updates, inputs=(), outputs=()):
    return pytensor.function(list(inputs), list(outputs), updates=updates, mode=PYTHON)


def assert_close(points, wanted, tolerance=1e-12):
    """Each point to `tolerance`, relative to its largest component or to 1."""
    assert len(points) == len(wanted)
    for t, (point, other) in enumerate(zip(points, wanted, strict=True)):
        x, y = reference.pack(point), reference.pack(other)
        assert np.max(np.abs(x - y)) <= tolerance * max(1, np.max(np.abs(y))), f"step {t}"


class Batches:
    """Logistic regression on mini-batches of the breast cancer data: 20 examples at step t, inputs of the function."""

    size, columns = 20, 8

    def __init__(self):
        data = load_breast_cancer()
        X = data.data[:, : self.columns]
        self.X, self.y = (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * data.target - 1
        self.starts = [np.full(self.columns, 0.1), np.array(0.5)]
        self.inputs = [pt.dmatrix("X"), pt.dvector("y")]

    def __str__(self):
        return "batches"

    def batch(self, t, size=size):
        rows = np.arange(size * t, size * (t + 1)) % len(self.y)
        return self.X[rows], self.y[rows]

    def cost(self, parameters, inputs=None):
        (w, b), (X, y) = parameters, inputs or self.inputs
        return pt.mean(pt.softplus(-y * (pt.dot(X, w) + b)))

    def value(self, x, batch):
        (w, b), (X, y) = x, batch
        return np.mean(np.logaddexp(0, -y * (X @ w + b)))

    def gradients(self, x, t):
        (w, b), (X, y) = x, self.batch(t)
        slope = -y / (1 + np.exp(y * (X @ w + b))) / y.size
        return [X.T @ slope, np.sum(slope)]

    def product(self, x, v, batch):
        (w, b), (dw, db), (X, y) = x, v, batch
        p = 1 / (1 + np.exp(-(X @ w + b)))
        change = p * (1 - p) * (X @ dw + db) / y.size
        return [X.T @ change, np.sum(change)]


BATCHES = Batches()


def run(rule, problem, steps=STEPS, **options):
    """The points after each call, of batches where the problem has them."""
    parameters = shared_at(problem.starts)
    inputs = getattr(problem, "inputs", [])
    step = compiled(rule(parameters, problem.cost(parameters), **options), inputs)
    points = []
    for t in range(steps):
        step(*(problem.batch(t) if inputs else []))
        points.append([p.get_value() for p in parameters])
    return points


def gradients_of(problem):
    if problem is BATCHES:
        return problem.gradients
    return lambda x, t: problem.gradients(x)


each_problem = pytest.mark.parametrize("problem", [*FULL, BATCHES], ids=str)


# SGD-QN

SGD_QN = {
    "default": {"step_size": 0.01},
    "no_penalty": {"step_size": 0.05, "skip": 3},
    "bounds": {"step_size": 0.05, "skip": 2, "min_curvature": 0.02, "max_curvature": 5.0},
    "penalty": {"step_size": 0.05, "skip": 4, "regularization": 0.01},
    "each_call": {"step_size": 0.05, "skip": 1, "regularization": 0.1},
    "penalty_bounds": {
        "step_size": 0.02,
        "skip": 5,
        "regularization": 0.05,
        "min_curvature": 0.1,
        "max_curvature": 1.0,
    },
}


@pytest.mark.parametrize("case", SGD_QN)
@each_problem
def test_sgd_qn(problem, case):
    options = SGD_QN[case]
    assert_close(
        run(optapi.sgd_qn, problem, **options),
        reference.sgd_qn(problem.starts, gradients_of(problem), STEPS, **options),
    )


@pytest.mark.parametrize("options", [{"skip": 4, "regularization": 0.01}, {"skip": 1, "regularization": 0.3}], ids=str)
@each_problem
def test_sgd_qn_of_2009(problem, options):
    options = {"step_size": 0.05, **options}
    assert_close(
        run(optapi.sgd_qn, problem, variant="2009", **options),
        reference.sgd_qn_2009(problem.starts, gradients_of(problem), STEPS, **options),
    )


def test_sgd_qn_spares_the_bias():
    options = {"step_size": 0.05, "skip": 3, "regularization": 0.2}
    points = run(optapi.sgd_qn, BATCHES, mask=lambda p: p.ndim > 0, **options)
    wanted = reference.sgd_qn(BATCHES.starts, BATCHES.gradients, STEPS, penalized=[True, False], **options)
    assert_close(points, wanted)
    assert not np.allclose(points[-1][1], run(optapi.sgd_qn, BATCHES, **options)[-1][1], rtol=1e-3)


def test_sgd_qn_on_a_parabola_has_the_optimal_gain():
    h, t0, start = 0.7, 5.0, 2.0
    w = pytensor.shared(start)
    updates = optapi.sgd_qn(
        w, h / 2 * w**2, step_size=1 / (h * t0), skip=1, min_curvature=0.1 * h, max_curvature=100 * h
    )
    step = compiled(updates)
    for t in range(1, STEPS + 1):
        step()
        np.testing.assert_allclose(w.get_value(), start * (t0 - 1) / (t0 + t - 1), rtol=1e-12)


def rates(updates, step_size):
    """The rates of a rule of the variant of 2010."""
    [curvature] = [v for v in updates if v.name and "/curvature/" in v.name]
    return step_size / (1 + step_size * curvature.get_value())


def test_sgd_qn_without_data():
    """With the penalty alone, 1/B rises by lambda with each call."""
    lam, a, skip = 0.2, 0.5, 4
    w = pytensor.shared(np.array([1.0, -2.0]), name="w")
    updates = optapi.sgd_qn(w, 0.0 * pt.sum(w), step_size=a, skip=skip, regularization=lam)
    step = compiled(updates)
    for t in range(3 * skip):
        step()
        np.testing.assert_allclose(rates(updates, a), 1 / (1 / a + lam * skip * (t // skip)), rtol=1e-12)


def test_sgd_qn_raises_the_inverse_rates_between_bounds():
    lam, a, skip = 1e-2, 0.05, 2
    parameters = shared_at([np.full(BATCHES.columns, 0.1)])
    X, y = BATCHES.inputs
    cost = pt.mean(pt.softplus(-y * pt.dot(X, parameters[0])))
    updates = optapi.sgd_qn(parameters, cost, step_size=a, skip=skip, regularization=lam)
    step = compiled(updates, [X, y])
    inverse, rises = 1 / rates(updates, a), []
    for t in range(STEPS):
        step(*BATCHES.batch(t))
        following = 1 / rates(updates, a)
        if t and t % skip == 0:
            rises.append((following - inverse) / (skip * lam))
        else:
            np.testing.assert_array_equal(following, inverse)
        inverse = following
    assert np.min(rises) >= 0.1 * (1 - 1e-9)
    assert np.max(rises) <= 100 * (1 + 1e-9)
    assert np.ptp(rises) > 1


def test_the_flaw_of_2009():
    """With single dense examples all components keep equal rates in 2009, and get rates of their own in 2010."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 5)) * [0.2, 0.4, 0.8, 1.6, 3.2]
    y = np.sign(X @ np.ones(5) + rng.normal(size=100))
    x, label = pt.dvector("x"), pt.dscalar("label")
    inverses = {"2009": "inverse", "2010": "curvature"}
    for variant, role in inverses.items():
        w = pytensor.shared(np.zeros(5), name="w")
        options = {"step_size": 0.1, "skip": 4, "regularization": 0.1, "variant": variant}
        updates = optapi.sgd_qn(w, pt.softplus(-label * pt.sum(x * w)), **options)
        step = compiled(updates, [x, label])
        for row, sign in zip(X, y, strict=True):
            step(row, sign)
        [found] = [v for v in updates if v.name == f"sgd_qn/{role}/w"]
        inverses[variant] = found.get_value()
    assert 0.011 < np.min(inverses["2009"]) < 0.9  # it has moved, and is not at a bound
    assert np.ptp(inverses["2009"]) < 1e-9 * np.max(inverses["2009"])
    assert np.ptp(inverses["2010"]) > 0.3 * np.max(inverses["2010"])


def test_sgd_qn_evaluates_when_it_compares_only():
    parameters, stop = shared_at(FULL[1].starts), pytensor.shared(0)
    updates = optapi.sgd_qn(parameters, FULL[1].cost(parameters), stop=stop, skip=4)
    [evaluations] = optapi.reports(updates)["evaluations"]
    step = compiled(updates)
    for calls in range(1, 14):
        step()
        assert evaluations.get_value() == calls + (calls - 1) // 4


class Loud(Op):
    """The identity, which counts its runs, and those of its derivative, in the list `calls`."""

    def __init__(self, calls):
        self.calls = calls

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        self.calls.append(1)
        outputs[0][0] = inputs[0].copy()

    def pullback(self, inputs, outputs, cotangents):
        return [self(cotangents[0])]


WANTED = {
    "sgd_qn": ({"skip": 4}, lambda t: 1 + (t > 0 and t % 4 == 0)),
    "olbfgs": ({}, lambda t: 2),
    "sqn": ({"every": 4}, lambda t: 1 + (t > 4 and t % 4 == 3)),
    "ada_qn": ({"every": 4}, lambda t: 1),
}


@pytest.mark.parametrize("rule", WANTED)
def test_gradients_are_computed_when_they_are_needed(rule):
    options, wanted = WANTED[rule]
    calls, p = [], pytensor.shared(np.ones(3), name="p")
    slope = Loud(calls)(4 * p**3)
    step = compiled(getattr(optapi, rule)(p, pt.sum(p**4), gradients=[slope], step_size=1e-3, **options))
    for t in range(17):
        calls.clear()
        step()
        assert len(calls) == wanted(t), f"step {t}"


@pytest.mark.parametrize("rule", WANTED)
def test_gradients_that_cannot_be_those_of_the_cost(rule):
    p = pytensor.shared(np.ones(3), name="p")
    with pytest.raises(ValueError, match="cost="):
        getattr(optapi, rule)(p, gradients=[p])
    with pytest.raises(ValueError, match="gradients do not depend on the parameters"):
        getattr(optapi, rule)(p, pt.sum(p**2), gradients=[pt.dvector()])


REFUSED = {
    "variant": ({"variant": "2008"}, ValueError, "variant is '2008'"),
    "skip": ({"skip": 0}, ValueError, "skip is 0"),
    "negative penalty": ({"regularization": -1.0}, ValueError, "regularization is -1"),
    "2009 without a penalty": ({"variant": "2009"}, ValueError, "regularization above 0"),
    "2009 with bounds": (
        {"variant": "2009", "regularization": 0.1, "min_curvature": 1.0},
        ValueError,
        "min_curvature and max_curvature",
    ),
    "mask": ({"mask": [True, False]}, ValueError, "mask has 2 entries"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sgd_qn_refuses(case):
    options, error, message = REFUSED[case]
    p, updates = pytensor.shared(np.ones(3), name="p"), {}
    with pytest.raises(error, match=message):
        optapi.sgd_qn(p, pt.sum(p**2), updates=updates, **options)
    assert not updates


# Online L-BFGS

OLBFGS = {
    "memory_10": {"epsilon": 0.01},
    "options": {"step_size": 0.5, "memory": 3, "regularization": 0.1, "epsilon": 0.02},
    "paper": {"memory": 4, "epsilon": 0.01},
}


@pytest.mark.parametrize("case", OLBFGS)
@each_problem
def test_olbfgs(problem, case):
    options, schedule = OLBFGS[case], {}
    if case == "paper":
        options, schedule = {**options, "step_size": schedules.Power(0.9, 20.0)}, {"step_size": lambda t: 18 / (20 + t)}
    points = run(optapi.olbfgs, problem, **options)
    for along in (points, None):
        steps = STEPS if along else 10
        wanted = reference.olbfgs(problem.starts, gradients_of(problem), steps, along=along, **{**options, **schedule})
        assert_close(points[:steps], wanted)


def test_olbfgs_by_default():
    """After a first step so short, round-off leaves few digits of a change, but for numbers of few bits."""
    h, start = 2.0 ** np.arange(-2, 3), np.array([-1.0, -0.75, 0.5, 1.25, 2.0])
    p = pytensor.shared(start.copy(), name="p")
    step, points = compiled(optapi.olbfgs(p, pt.sum(h * p**2) / 2, gradients=[h * p], step_size=0.125)), []
    for _ in range(STEPS):
        step()
        points.append([p.get_value()])
    wanted = reference.olbfgs([start], lambda x, t: [h * x[0]], STEPS, step_size=0.125, along=points)
    assert_close(points, wanted)
    assert np.max(np.abs(points[-1][0])) < 0.1


def test_olbfgs_begins_with_a_tiny_step():
    p = pytensor.shared(np.array([1.0, -2.0]), name="p")
    step = compiled(optapi.olbfgs(p, pt.sum(p**2), step_size=0.1, epsilon=1e-6))
    step()
    np.testing.assert_allclose(p.get_value(), np.array([1.0, -2.0]) * (1 - 2e-7), rtol=1e-15)
    step()  # the first pair is exact: the curvature is 2
    np.testing.assert_allclose(p.get_value(), np.array([1.0, -2.0]) * 0.9, rtol=1e-6)


def test_olbfgs_takes_both_gradients_from_one_batch():
    """With one example each call has another Hessian; a pair of two batches would have no such curvature."""
    p, x = pytensor.shared(np.array([3.0, 4.0]), name="p"), pt.dvector("x")
    updates = optapi.olbfgs(p, 0.5 * pt.sum(x * p**2) + pt.sum(p), step_size=0.1, memory=1)
    vectors = next(v for v in updates if v.name == "olbfgs/pairs/vectors")
    step = compiled(updates, [x])
    for values in ([1.0, 2.0], [5.0, 3.0], [0.5, 8.0]):
        step(np.array(values))
        s, y = vectors.get_value()
        np.testing.assert_allclose(y, values * s, rtol=1e-6)


# SQN

SQN = {
    "default": {},
    "options": {"step_size": 0.05, "memory": 3, "every": 4},
    "each_call": {"step_size": 0.05, "memory": 5, "every": 1},
}


@pytest.mark.parametrize("case", SQN)
@each_problem
def test_sqn(problem, case):
    options = SQN[case]
    points, product = run(optapi.sqn, problem, **options), product_of(problem)
    for along in (points, None):
        steps = STEPS if along else 10 + 2 * options.get("every", 10)
        wanted = reference.sqn(problem.starts, gradients_of(problem), steps, product=product, along=along, **options)
        assert_close(points[:steps], wanted)


def product_of(problem):
    """The product with the Hessian, worked out by hand."""
    if problem is BATCHES:
        return lambda x, v, t: problem.product(x, v, problem.batch(t))
    if problem.name == "quadratic":
        n = problem.starts[0].size
        origin = problem.gradients([np.zeros(n)])[0]
        A = np.array([problem.gradients([e])[0] - origin for e in np.eye(n)])
        return lambda x, v, t: [A @ v[0]]
    data = load_breast_cancer().data[:, :10]
    X = (data - data.mean(axis=0)) / data.std(axis=0)

    def product(x, v, t):
        p = 1 / (1 + np.exp(-(X @ x[0] + x[1])))
        change = p * (1 - p) * (X @ v[0] + v[1]) / len(X)
        return [X.T @ change + 0.01 * v[0], np.sum(change)]

    return product


def test_sqn_with_a_curvature_batch_of_its_own():
    parameters = shared_at(BATCHES.starts)
    inputs = [*BATCHES.inputs, pt.dmatrix("large X"), pt.dvector("large y")]
    curvature_cost = BATCHES.cost(parameters, inputs[2:])
    updates = optapi.sqn(parameters, BATCHES.cost(parameters), every=3, step_size=0.1, curvature_cost=curvature_cost)
    step, points = compiled(updates, inputs), []
    for t in range(STEPS):
        step(*BATCHES.batch(t), *BATCHES.batch(t, 100))
        points.append([p.get_value() for p in parameters])

    def product(x, v, t):
        return BATCHES.product(x, v, BATCHES.batch(t, 100))

    options = {"step_size": 0.1, "every": 3}
    assert_close(points, reference.sqn(BATCHES.starts, BATCHES.gradients, STEPS, product=product, **options))


def test_sqn_has_exact_pairs_on_a_quadratic():
    problem = problems.quadratic()
    parameters, stop = shared_at(problem.starts), pytensor.shared(0)
    updates = optapi.sqn(parameters, problem.cost(parameters), stop=stop, every=2, memory=3, step_size=0.02)
    vectors = next(v for v in updates if v.name == "sqn/pairs/vectors")
    step, product = compiled(updates), product_of(problem)
    for _ in range(10):
        step()
    steps, changes = np.split(vectors.get_value(), 2)
    assert np.all(np.any(steps != 0, axis=1))
    for s, y in zip(steps, changes, strict=True):
        np.testing.assert_allclose(y, product(None, [s], 0)[0], rtol=1e-11, atol=1e-13)
    assert [r.get_value() for r in optapi.reports(updates)["products"]] == [4]
    assert [r.get_value() for r in optapi.reports(updates)["evaluations"]] == [10]


@pytest.mark.parametrize("rule, argument", [(optapi.sqn, "curvature_cost"), (optapi.ada_qn, "monitor")])
def test_another_cost_is_named(rule, argument):
    p = pytensor.shared(np.ones(3), name="p")
    with pytest.raises(ValueError, match=f"{argument} has 1 dimensions"):
        rule(p, pt.sum(p**2), **{argument: p**2})


@pytest.mark.parametrize("rule, argument", [(optapi.sqn, "curvature_cost"), (optapi.ada_qn, "monitor")])
def test_gradients_alone_do_where_the_other_cost_is_given(rule, argument):
    points = []
    for alone in (False, True):
        p = pytensor.shared(np.array([1.0, -2.0, 0.5]), name="p")
        other = {argument: pt.sum(p**2 + p**4)}
        given = {"gradients": [2 * p]} if alone else {"cost": pt.sum(p**2)}
        step = compiled(rule(p, **given, **other, every=2))
        for _ in range(9):
            step()
        points.append([[p.get_value()]])
    assert_close(*points)


# adaQN

ADA_QN = {
    "default": {},
    "options": {"step_size": 0.05, "memory": 3, "every": 4, "gradient_memory": 6, "curvature": 1e-3, "epsilon": 1e-2},
    "strict": {"step_size": 0.05, "every": 2, "gradient_memory": 8, "increase": 1.0, "curvature": 1e-2},
}


@pytest.mark.parametrize("case", ADA_QN)
@each_problem
def test_ada_qn(problem, case):
    options = ADA_QN[case]
    if problem is BATCHES:

        def cost(x, t):
            return problem.value(x, problem.batch(t))
    else:

        def cost(x, t):
            # Positive, since the paper compares the costs by their quotient.
            return problem.value_and_gradients(x)[0] + (problem.name == "quadratic") * SHIFT

    lifted = Lifted(problem) if getattr(problem, "name", "") == "quadratic" else problem
    assert_close(
        run(optapi.ada_qn, lifted, **options),
        reference.ada_qn(problem.starts, gradients_of(problem), STEPS, cost=cost, **options),
    )


SHIFT = 500.0


class Lifted:
    """A problem with a constant added to its cost."""

    def __init__(self, problem):
        self.problem, self.starts = problem, problem.starts

    def cost(self, parameters):
        return self.problem.cost(parameters) + SHIFT


def test_ada_qn_with_a_monitoring_set():
    options = {"every": 3, "gradient_memory": 5, "step_size": 0.9, "curvature": 1e-5, "increase": 1.0}
    parameters, X, y = shared_at(BATCHES.starts), *BATCHES.batch(0, 200)
    monitor = BATCHES.cost(parameters, [pt.constant(X), pt.constant(y)])
    updates = optapi.ada_qn(parameters, BATCHES.cost(parameters), monitor=monitor, **options)
    [stored] = [v for v in updates if v.name == "ada_qn/stored"]
    step, points, reset = compiled(updates, BATCHES.inputs), [], 0
    for t in range(STEPS):
        step(*BATCHES.batch(t))
        points.append([p.get_value() for p in parameters])
        reset += stored.get_value() == 0
    assert reset
    wanted = reference.ada_qn(
        BATCHES.starts, BATCHES.gradients, STEPS, cost=lambda x, t: BATCHES.value(x, (X, y)), **options
    )
    assert_close(points, wanted)


def test_ada_qn_goes_back_where_the_cost_rises():
    """A cost that is not a number counts as a rise."""
    p, monitor = pytensor.shared(np.array([1.0, -2.0]), name="p"), pytensor.shared(1.0)
    updates = optapi.ada_qn(p, pt.sum(p**2), every=2, monitor=monitor * pt.sum(p**2))
    [mean] = [v for v in updates if v.name == "ada_qn/mean"]
    step = compiled(updates)
    for _ in range(5):
        step()
    last = mean.get_value()
    monitor.set_value(np.nan)
    step()
    np.testing.assert_array_equal(p.get_value(), last)
    assert all(np.all(v.get_value() == 0) for v in updates if v.name in ("ada_qn/stored", "ada_qn/pairs/steps"))
