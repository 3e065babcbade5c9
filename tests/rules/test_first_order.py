"""Whole trajectories of the rules against their NumPy twins, and facts that the papers prove."""

import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from problems import PROBLEMS
from reference import first_order as reference
from scipy.optimize import approx_fprime

import optapi
from optapi import PYTHON, schedules


STEPS = 60


def shared_at(starts):
    return [pytensor.shared(start.copy(), name=f"p{i}") for i, start in enumerate(starts)]


def compiled(updates, inputs=()):
    return pytensor.function(list(inputs), [], updates=updates, mode=PYTHON)


def trajectory(parameters, step, steps):
    """The points after each of `steps` calls."""
    points = []
    for _ in range(steps):
        step()
        points.append([p.get_value() for p in parameters])
    return points


def flat(point):
    return np.concatenate([np.ravel(part) for part in point])


def assert_close(points, wanted, tolerance=1e-12):
    """Each point to `tolerance`, relative to its largest component or to 1."""
    assert len(points) == len(wanted)
    for t, (point, other) in enumerate(zip(points, wanted, strict=True)):
        x, y = flat(point), flat(other)
        assert np.max(np.abs(x - y)) <= tolerance * max(1, np.max(np.abs(y))), f"step {t}"


# Problems


@pytest.mark.parametrize("problem", [*PROBLEMS, problems.rosenbrock(7)], ids=str)
def test_problem(problem):
    rng = np.random.default_rng(1)
    point = [start + rng.normal(size=start.shape) for start in problem.starts]
    value, gradients = problem.value_and_gradients(point)
    variables = [pt.tensor(shape=part.shape, dtype="float64") for part in point]
    cost = problem.cost(variables)
    f = pytensor.function(variables, [cost, *pytensor.grad(cost, variables)], mode=PYTHON)
    symbolic_value, *symbolic = f(*point)
    np.testing.assert_allclose(symbolic_value, value, rtol=1e-13)
    for g, other, part in zip(gradients, symbolic, point, strict=True):
        assert np.shape(g) == part.shape
        np.testing.assert_allclose(g, other, rtol=1e-12, atol=1e-12 * np.max(np.abs(other)))

    def numeric(vector):
        ends = np.cumsum([part.size for part in point])[:-1]
        parts = np.split(vector, ends)
        return problem.value_and_gradients([v.reshape(p.shape) for v, p in zip(parts, point, strict=True)])[0]

    slopes = approx_fprime(flat(point), numeric)
    np.testing.assert_allclose(slopes, flat(gradients), rtol=1e-4, atol=1e-5 * np.max(np.abs(slopes)))


# First-order rules

RATES = {"quadratic": 0.02, "rosenbrock": 2e-4, "logistic": 0.5}
# Of the rules whose steps do not grow with the gradient.
SIZES = {"adam": 0.05, "adamw": 0.05, "adamax": 0.05, "nadam": 0.05, "adagrad": 0.3, "adadelta": 5.0, "rmsprop": 0.01}
SCHEDULES = {
    "constant": lambda a: (a, a),
    "power": lambda a: (schedules.Power(a, 5.0, 0.75), lambda t: a / (1 + t / 5) ** 0.75),
    "exponential": lambda a: (schedules.Exponential(a, 0.9, 4), lambda t: a * 0.9 ** (t / 4)),
    "staircase": lambda a: (schedules.Exponential(a, 0.5, 7, staircase=True), lambda t: a * 0.5 ** (t // 7)),
    "cosine": lambda a: (
        schedules.Cosine(a, 40, a / 10),
        lambda t: a * (0.1 + 0.9 * (1 + np.cos(np.pi * min(t, 40) / 40)) / 2),
    ),
    "warm_up": lambda a: (
        schedules.WarmUp(schedules.Power(a, 5.0), 10),
        lambda t: a * (t + 1) / 11 if t < 10 else a / (1 + (t - 10) / 5),
    ),
}
FIRST_ORDER = {
    "sgd": ("sgd", "constant", {}),
    "sgd_momentum": ("sgd", "constant", {"momentum": 0.9}),
    "sgd_dampening": ("sgd", "constant", {"momentum": 0.8, "dampening": 0.3}),
    "sgd_nesterov": ("sgd", "constant", {"momentum": 0.9, "nesterov": True}),
    "sgd_power": ("sgd", "power", {}),
    "sgd_exponential": ("sgd", "exponential", {}),
    "sgd_staircase": ("sgd", "staircase", {}),
    "sgd_cosine_nesterov": ("sgd", "cosine", {"momentum": 0.7, "nesterov": True}),
    "sgd_warm_up_dampening": ("sgd", "warm_up", {"momentum": 0.9, "dampening": 0.9}),
    "momentum": ("momentum", "constant", {}),
    "momentum_small": ("momentum", "constant", {"momentum": 0.5}),
    "momentum_power": ("momentum", "power", {}),
    "momentum_warm_up": ("momentum", "warm_up", {"momentum": 0.8}),
    "adam": ("adam", "constant", {}),
    "adam_amsgrad": ("adam", "constant", {"amsgrad": True}),
    "adam_weights": ("adam", "constant", {"mean_weight": 0.8, "mean_square_weight": 0.95}),
    "adam_amsgrad_weights": ("adam", "power", {"mean_weight": 0.0, "mean_square_weight": 0.7, "amsgrad": True}),
    "adam_epsilon": ("adam", "constant", {"epsilon": 0.1}),
    "adam_cosine": ("adam", "cosine", {}),
    "nesterov": ("nesterov", "constant", {}),
    "nesterov_cosine": ("nesterov", "cosine", {"momentum": 0.7}),
    "adagrad": ("adagrad", "constant", {}),
    "adagrad_initial": ("adagrad", "power", {"initial": 0.1, "epsilon": 1e-3}),
    "adadelta": ("adadelta", "constant", {}),
    "adadelta_paper": ("adadelta", "exponential", {"mean_square_weight": 0.95, "epsilon": 1e-4}),
    "rmsprop": ("rmsprop", "constant", {}),
    "rmsprop_momentum": ("rmsprop", "power", {"momentum": 0.9, "mean_square_weight": 0.99}),
    "rmsprop_centred": ("rmsprop", "cosine", {"centered": True, "epsilon": 1e-2}),
    "rmsprop_centred_momentum": ("rmsprop", "constant", {"centered": True, "momentum": 0.8, "epsilon": 1e-4}),
    "adamw": ("adamw", "constant", {}),
    "adamw_decay": ("adamw", "cosine", {"decay": 0.3, "mean_weight": 0.8, "mean_square_weight": 0.95}),
    "adamax": ("adamax", "constant", {}),
    "adamax_weights": ("adamax", "power", {"mean_weight": 0.5, "norm_weight": 0.9, "epsilon": 1e-2}),
    "nadam": ("nadam", "constant", {}),
    "nadam_weights": (
        "nadam",
        "warm_up",
        {"mean_weight": 0.95, "mean_square_weight": 0.99, "momentum_decay": 0.5, "epsilon": 1e-4},
    ),
    "radam": ("radam", "constant", {}),
    "radam_weights": ("radam", "power", {"mean_weight": 0.8, "mean_square_weight": 0.9, "epsilon": 1e-3}),
    "radam_never": ("radam", "constant", {"mean_square_weight": 0.5}),
}


@pytest.mark.parametrize("case", FIRST_ORDER)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_first_order(problem, case):
    rule, schedule, options = FIRST_ORDER[case]
    symbolic, number = SCHEDULES[schedule](SIZES.get(rule, RATES[problem.name]))
    parameters = shared_at(problem.starts)
    updates = getattr(optapi, rule)(parameters, problem.cost(parameters), step_size=symbolic, **options)
    points = trajectory(parameters, compiled(updates), STEPS)
    wanted = getattr(reference, rule)(problem.starts, problem.gradients, STEPS, step_size=number, **options)
    assert_close(points, wanted)


@pytest.mark.parametrize("rule", sorted({rule for rule, _, _ in FIRST_ORDER.values()}))
def test_default_options(rule):
    problem = PROBLEMS[0]
    parameters = shared_at(problem.starts)
    points = trajectory(parameters, compiled(getattr(optapi, rule)(parameters, problem.cost(parameters))), STEPS)
    assert_close(points, getattr(reference, rule)(problem.starts, problem.gradients, STEPS))


# What the papers prove of the first-order rules


def steps_of(rule, gradients, **options):
    """The changes of a parameter that given gradients make."""
    p, g = pytensor.shared(np.zeros(gradients.shape[1])), pt.dvector()
    step, changes = compiled(rule([p], gradients=[g], **options), [g]), []
    for value in gradients:
        p.set_value(np.zeros(gradients.shape[1]))
        step(value)
        changes.append(p.get_value())
    return np.array(changes)


def test_sgd_with_one_over_t_is_the_running_mean():
    targets = np.random.default_rng(3).normal(size=(50, 3))
    p, a = pytensor.shared(np.full(3, 100.0)), pt.dvector()
    step = compiled(optapi.sgd([p], pt.sum((p - a) ** 2) / 2, step_size=schedules.Power(1.0)), [a])
    for t, target in enumerate(targets, start=1):
        step(target)
        np.testing.assert_allclose(p.get_value(), targets[:t].mean(axis=0), rtol=1e-12, atol=1e-12)


def test_sgd_on_a_quadratic_is_a_matrix_power():
    problem = problems.quadratic()
    (x,), n, a = problem.starts, problem.starts[0].size, 0.15
    origin = problem.gradients([np.zeros(n)])[0]
    A = np.array([problem.gradients([e])[0] - origin for e in np.eye(n)])
    lowest = np.linalg.solve(A, -origin)
    parameters = shared_at(problem.starts)
    points = trajectory(parameters, compiled(optapi.sgd(parameters, problem.cost(parameters), step_size=a)), STEPS)
    powers = (np.linalg.matrix_power(np.eye(n) - a * A, t) for t in range(1, STEPS + 1))
    assert_close(points, [[lowest + power @ (x - lowest)] for power in powers])


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.momentum])
def test_the_heavy_ball_can_cycle(rule):
    """Lessard, Recht and Packard (2016), section 4.6."""
    p = pytensor.shared(3.3)
    slope = pt.switch(p < 1, 25 * p, pt.switch(p < 2, p + 24, 25 * p - 24))
    step = compiled(rule([p], gradients=[slope], step_size=1 / 9, momentum=4 / 9))
    last = [float(flat(point)[0]) for point in trajectory([p], step, 300)[-3:]]
    np.testing.assert_allclose(sorted(last), np.array([-2208, 792, 2592]) / 1225, rtol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_nesterov_looks_ahead(problem):
    a, mu = RATES[problem.name], 0.9
    parameters = shared_at(problem.starts)
    updates = optapi.sgd(parameters, problem.cost(parameters), step_size=a, momentum=mu, nesterov=True)
    points = trajectory(parameters, compiled(updates), STEPS)
    xs, vs = reference.look_ahead(problem.starts, problem.gradients, STEPS, step_size=a, momentum=mu)
    assert_close(points, [[p + mu * v for p, v in zip(x, v, strict=True)] for x, v in zip(xs, vs, strict=True)])


def test_dampening_is_a_running_average_from_the_first_gradient():
    gradients, w = np.random.default_rng(4).normal(size=(30, 4)), 0.9
    changes = steps_of(optapi.sgd, gradients, step_size=0.1, momentum=w, dampening=w)
    mean = gradients[0]
    for g, change in zip(gradients, changes, strict=True):
        mean = w * mean + (1 - w) * g
        np.testing.assert_allclose(change, -0.1 * mean, rtol=1e-12, atol=1e-14)


def test_momentum_of_a_constant_gradient():
    g, t, w = np.array([2.0, -0.5]), np.arange(1, 31)[:, None], 0.8
    for rule in (optapi.sgd, optapi.momentum):
        changes = steps_of(rule, np.tile(g, (30, 1)), step_size=0.1, momentum=w)
        np.testing.assert_allclose(changes, -0.1 * g * (1 - w**t) / (1 - w), rtol=1e-12)
    changes = steps_of(optapi.sgd, np.tile(g, (30, 1)), step_size=0.1, momentum=w, dampening=w)
    np.testing.assert_allclose(changes, np.tile(-0.1 * g, (30, 1)), rtol=1e-12)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_of_a_constant_gradient(amsgrad):
    """Every step is a g / (|g| + epsilon)."""
    g, a, epsilon = np.array([1e3, -1.0, 1e-6, 0.0]), 0.01, 1e-8
    changes = steps_of(optapi.adam, np.tile(g, (40, 1)), step_size=a, epsilon=epsilon, amsgrad=amsgrad)
    np.testing.assert_allclose(changes, np.tile(-a * g / (np.abs(g) + epsilon), (40, 1)), rtol=1e-12)


def test_adam_without_memory_is_sign_descent():
    gradients = np.random.default_rng(5).normal(size=(20, 5))
    options = {"step_size": 0.1, "mean_weight": 0.0, "mean_square_weight": 0.0}
    changes = steps_of(optapi.adam, gradients, epsilon=0.0, **options)
    np.testing.assert_allclose(changes, -0.1 * np.sign(gradients), rtol=1e-15)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.9, 0.99), (0.5, 0.9), (0.0, 0.5)])
def test_the_largest_step_of_adam(b1, b2):
    """Cauchy's inequality bounds the step at t, and gradients proportional to (b2 / b1)^i attain the bound.

    It is larger than the bounds of Kingma and Ba's section 2.1, which are for a gradient after zeros.
    """
    steps, r = 60, b1**2 / b2
    t = np.arange(1, steps + 1)
    square = ((1 - b1) / (1 - b1**t)) ** 2 * (1 - b2**t) / (1 - b2) * (1 - r**t) / (1 - r)
    bound = 0.1 * np.sqrt(square)
    options = {"step_size": 0.1, "mean_weight": b1, "mean_square_weight": b2, "epsilon": 0.0}
    gradients = np.random.default_rng(6).standard_cauchy(size=(steps, 50))
    changes = steps_of(optapi.adam, gradients, **options)
    assert np.all(np.abs(changes) <= bound[:, None] * (1 + 1e-12))
    if b1 > 0:
        attaining = steps_of(optapi.adam, (b2 / b1) ** t[:, None], **options)
        np.testing.assert_allclose(-attaining[:, 0], bound, rtol=1e-11)


def test_a_step_of_adam_after_zeros():
    """Kingma and Ba (2015), section 2.1: (1 - b1) / sqrt(1 - b2) in the most severe case of sparsity."""
    b1, b2, zeros = 0.9, 0.999, 400
    gradients = np.zeros((zeros + 1, 1))
    gradients[-1] = 7.0
    change = steps_of(optapi.adam, gradients, step_size=0.1, mean_weight=b1, mean_square_weight=b2, epsilon=1e-30)[-1]
    t = zeros + 1
    wanted = 0.1 * (1 - b1) / np.sqrt(1 - b2) * np.sqrt(1 - b2**t) / (1 - b1**t)
    np.testing.assert_allclose(change, -wanted, rtol=1e-12)


def test_amsgrad_converges_where_adam_does_not():
    """Reddi, Kale and Kumar (2018), section 3: every third gradient is C, the others -1; the minimizer is -1."""
    C = 3.0
    options = {"step_size": schedules.Power(0.5, 1.0, 0.5), "mean_weight": 0.0, "mean_square_weight": 1 / (1 + C**2)}
    count = pytensor.shared(np.int64(0))
    updates, points = {count: count + 1}, []
    for amsgrad in (False, True):
        p = pytensor.shared(0.0)
        g = pt.switch(pt.eq(count % 3, 0), C, -1.0)
        rule = optapi.adam([p], gradients=[g], amsgrad=amsgrad, name=f"adam{amsgrad}", **options)
        updates |= optapi.project(rule, {p: lambda value: pt.clip(value, -1, 1)})
        points.append(p)
    compiled(optapi.loop(updates, 3000))()
    adam, amsgrad = (float(p.get_value()) for p in points)
    assert adam > 0.99
    assert amsgrad < -0.9


def test_adagrad_of_a_constant_gradient():
    """The step at t is a / sqrt(t); what the sum begins with counts like earlier gradients."""
    g, t = np.array([2.0, -1e-3]), np.arange(1, 31)[:, None]
    changes = steps_of(optapi.adagrad, np.tile(g, (30, 1)), epsilon=0.0)
    np.testing.assert_allclose(changes, -0.01 * np.sign(g) / np.sqrt(t), rtol=1e-12)
    np.testing.assert_allclose(changes[:2, 1], [0.01, 0.00707107], rtol=1e-6)
    changes = steps_of(optapi.adagrad, np.tile(g[:1], (30, 1)), epsilon=0.0, initial=5 * g[0] ** 2)
    np.testing.assert_allclose(changes, -0.01 / np.sqrt(t + 5), rtol=1e-12)


def test_the_first_steps_of_adadelta():
    g = np.tile([0.3, -2.0], (20, 1))
    changes = steps_of(optapi.adadelta, g)
    np.testing.assert_allclose(changes[:2, 0], [-3.1621e-3, -3.2442e-3], rtol=2e-5)
    np.testing.assert_allclose(changes[0], -np.sqrt(1e-6 / (0.1 * g[0] ** 2 + 1e-6)) * g[0], rtol=1e-12)
    np.testing.assert_allclose(steps_of(optapi.adadelta, g, step_size=7.0), 7 * changes, rtol=1e-12)


@pytest.mark.parametrize("rho", [0.9, 0.99])
def test_the_first_step_of_rmsprop(rho):
    g, options = np.array([[3.0, -1e-4]]), {"step_size": 0.1, "mean_square_weight": rho, "epsilon": 0.0}
    change = steps_of(optapi.rmsprop, g, **options)
    np.testing.assert_allclose(change, -0.1 * np.sign(g) / np.sqrt(1 - rho), rtol=1e-12)
    change = steps_of(optapi.rmsprop, g, centered=True, momentum=0.9, **options)
    np.testing.assert_allclose(change, -0.1 * np.sign(g) / np.sqrt(rho * (1 - rho)), rtol=1e-12)


def test_rmsprop_does_not_depend_on_the_scale_of_gradients():
    gradients = np.random.default_rng(7).normal(size=(30, 4))
    options = {"epsilon": 0.0, "centered": True, "momentum": 0.5}
    changes = steps_of(optapi.rmsprop, gradients, **options)
    np.testing.assert_allclose(steps_of(optapi.rmsprop, 1e6 * gradients, **options), changes, rtol=1e-9)


def test_rmsprop_is_adam_without_a_mean_and_corrections():
    """Undone by the step size, that is: Adam's is larger by the root of 1 - rho^t."""
    gradients, rho = np.random.default_rng(8).normal(size=(30, 4)), 0.9
    adam = steps_of(optapi.adam, gradients, mean_weight=0.0, mean_square_weight=rho, epsilon=0.0)
    changes = steps_of(optapi.rmsprop, gradients, step_size=lambda t: 1e-3 * pt.sqrt(1 - rho ** (t + 1)), epsilon=0.0)
    np.testing.assert_allclose(changes, adam, rtol=1e-12)


def test_a_variance_that_rounds_below_zero_is_zero():
    """Of a constant gradient v - m^2 is of the size of round-off in the end, and of any sign."""
    g, steps, m, v, lowest = np.linspace(0.1, 3, 50), 500, 0.0, 0.0, 0.0
    for _ in range(steps):
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g**2
        lowest = min(lowest, np.min(v - m**2))
    assert lowest < 0
    assert np.all(np.isfinite(steps_of(optapi.rmsprop, np.tile(g, (steps, 1)), centered=True)))


def test_adamw_decays_without_a_gradient():
    """By 1 - a lambda at each update, and only what the mask chooses."""
    start, a = np.array([[3.0, -2.0], [1.0, 0.5]]), schedules.Power(0.5, 1.0)
    for mask in ([True, False], lambda p: p.ndim > 1):
        W, b = pytensor.shared(start.copy()), pytensor.shared(start[0].copy())
        gradients = [pt.zeros_like(W), pt.zeros_like(b)]
        step = compiled(optapi.adamw([W, b], gradients=gradients, step_size=a, decay=0.1, mask=mask))
        for _ in range(10):
            step()
        left = np.prod(1 - 0.1 * 0.5 / np.arange(1, 11))
        np.testing.assert_allclose(W.get_value(), left * start, rtol=1e-12)
        np.testing.assert_array_equal(b.get_value(), start[0])


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_without_decay_is_adam(amsgrad):
    gradients = np.random.default_rng(9).normal(size=(30, 4))
    changes = steps_of(optapi.adamw, gradients, decay=0.0, amsgrad=amsgrad)
    np.testing.assert_array_equal(changes, steps_of(optapi.adam, gradients, amsgrad=amsgrad))


def test_adamax_of_a_constant_gradient():
    g = np.array([1e3, -1.0, 1e-6, 0.0])
    changes = steps_of(optapi.adamax, np.tile(g, (30, 1)))
    np.testing.assert_allclose(changes, np.tile(-2e-3 * g / (np.abs(g) + 1e-8), (30, 1)), rtol=1e-12)


def test_the_first_steps_of_nadam():
    g = np.tile([0.3, -2.0], (2, 1))
    changes = steps_of(optapi.nadam, g, epsilon=0.0)
    np.testing.assert_allclose(changes, [[-0.0021129, 0.0021129], [-0.00156737, 0.00156737]], rtol=1e-5)


def test_nadam_whose_momentum_has_grown():
    """With a constant momentum it is optax's, whose first step is 1.473684 times the step size."""
    gradients, b1, b2 = np.random.default_rng(10).normal(size=(30, 4)), 0.9, 0.999
    changes, m, v = steps_of(optapi.nadam, gradients, momentum_decay=1e6), 0.0, 0.0
    np.testing.assert_allclose(np.abs(changes[0]), 1.473684 * 2e-3, rtol=1e-6)
    for t, (g, change) in enumerate(zip(gradients, changes, strict=True), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        np.testing.assert_allclose(change, -2e-3 * mean / (np.sqrt(v / (1 - b2**t)) + 1e-8), rtol=1e-12)


def test_radam_adapts_from_the_sixth_update():
    g = np.tile([3.0, -0.01], (12, 1))
    changes = steps_of(optapi.radam, g, epsilon=0.0)
    np.testing.assert_array_equal(changes[0], -1e-3 * g[0])
    np.testing.assert_allclose(changes[:5], -1e-3 * g[:5], rtol=1e-12)
    np.testing.assert_allclose(changes[5], [-1e-3 * 0.0258211, 1e-3 * 0.0258211], rtol=1e-5)
    assert np.all(np.diff(np.abs(changes[5:]), axis=0) > 0)
    np.testing.assert_allclose(np.abs(changes[5:, 0]), np.abs(changes[5:, 1]), rtol=1e-12)


ADAPTIVE = ["adagrad", "adadelta", "rmsprop", "adam", "adamw", "adamax", "nadam", "radam"]


@pytest.mark.parametrize("rule", ADAPTIVE)
def test_a_gradient_of_zero_from_the_start_moves_nothing(rule):
    changes = steps_of(getattr(optapi, rule), np.zeros((10, 3)))
    np.testing.assert_array_equal(changes, 0.0)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", *ADAPTIVE])
def test_float64_parameters_do_not_see_floatX(rule):
    problem, ends = PROBLEMS[1], []
    for floatX in ("float64", "float32"):
        with pytensor.config.change_flags(floatX=floatX):
            parameters = shared_at(problem.starts)
            options = {"step_size": 1e-4, "momentum": 0.7} if rule in ("sgd", "momentum", "nesterov") else {}
            step = compiled(getattr(optapi, rule)(parameters, problem.cost(parameters), **options))
            ends.append(trajectory(parameters, step, 20)[-1])
    np.testing.assert_array_equal(*ends)
