"""Rules with individual rates: whole trajectories against their NumPy twins, and facts of the papers."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from problems import PROBLEMS
from reference import per_parameter_rates as reference
from reference.per_parameter_rates import flat
from sklearn.datasets import load_breast_cancer

import optapi
from optapi import PYTHON, schedules


STEPS = 60
VARIANTS = ["rprop-", "rprop+", "irprop-", "irprop+"]


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


def assert_close(points, wanted, tolerance=1e-12):
    """Each point to `tolerance`, relative to its largest component or to 1."""
    assert len(points) == len(wanted)
    for t, (point, other) in enumerate(zip(points, wanted, strict=True)):
        x, y = flat(point), flat(other)
        assert np.max(np.abs(x - y)) <= tolerance * max(1, np.max(np.abs(y))), f"step {t}"


def path(rule, start, slope, steps, **options):
    """The values of one component along the updates, its gradient the function `slope` of it."""
    p = pytensor.shared(np.float64(start))
    points = trajectory([p], compiled(rule([p], gradients=[slope(p)], **options)), steps)
    return np.array([start, *(float(point[0]) for point in points)])


def given(rule, gradients, start=0.0, **options):
    """The values of a vector along the updates, for given gradients."""
    p, g = pytensor.shared(np.full(gradients.shape[1], start)), pt.dvector()
    step, values = compiled(rule([p], gradients=[g], **options), [g]), [p.get_value()]
    for value in gradients:
        step(value)
        values.append(p.get_value())
    return np.array(values)


def state_of(updates, role):
    """The state variable of `updates` with `role` in its name."""
    [found] = [v for v in updates if v.name and f"/{role}" in v.name]
    return found


# Second derivatives of the problems, by hand


def hessian(problem, x):
    if problem.name == "quadratic":
        n = x[0].size
        origin = problem.gradients([np.zeros(n)])[0]
        return np.array([problem.gradients([e])[0] - origin for e in np.eye(n)])
    if problem.name == "rosenbrock":
        (p,) = x
        H = np.zeros((p.size, p.size))
        for i in range(p.size - 1):
            H[i, i] += 1200 * p[i] ** 2 - 400 * p[i + 1] + 2
            H[i + 1, i + 1] += 200
            H[i, i + 1] = H[i + 1, i] = -400 * p[i]
        return H
    w, b = x
    X = load_breast_cancer().data[:, : w.size]
    X = np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(len(X))])
    share = 1 / (1 + np.exp(-(X @ [*w, b])))
    return (X.T * (share * (1 - share))) @ X / len(X) + np.diag([*np.full(w.size, 0.01), 0.0])


def diagonal(problem, x):
    return reference.packed(x)[1](np.diag(hessian(problem, x)))


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_hessians_of_the_problems(problem):
    x = [start + 0.1 for start in problem.starts]
    point, unpack = reference.packed(x)
    H = hessian(problem, x)
    for e, row in zip(np.eye(point.size), H, strict=True):
        change = [flat(problem.gradients(unpack(point + h * e))) for h in (1e-5, -1e-5)]
        np.testing.assert_allclose((change[0] - change[1]) / 2e-5, row, atol=1e-6 * np.max(np.abs(H)))


# Trajectories

RATES = {"quadratic": 0.02, "rosenbrock": 2e-4, "logistic": 0.5}
# Of the rules whose steps do not grow with the gradient.
SIZES = {"rprop": 0.05, "vsgd": 0.5}
SCHEDULES = {
    "constant": lambda a: (a, a),
    "power": lambda a: (schedules.Power(a, 5.0, 0.75), lambda t: a / (1 + t / 5) ** 0.75),
    "staircase": lambda a: (schedules.Exponential(a, 0.5, 7, staircase=True), lambda t: a * 0.5 ** (t // 7)),
}
EXTENDED = {
    "variant": "extended",
    "increase": 0.1,
    "decrease": 0.3,
    "min_rate": 0.05,
    "max_rate": 2.0,
    "mean_weight": 0.5,
    "damping": 0.1,
    "momentum_increase": 0.05,
    "momentum_decrease": 0.4,
    "momentum_damping": 0.2,
    "max_momentum": 0.6,
}
GAINS = {"variant": "gains", "increase": 0.1, "decrease": 0.4, "min_rate": 0.2, "max_rate": 1.5, "momentum": 0.7}
CASES = {
    "delta_bar_delta": ("delta_bar_delta", "constant", {}),
    "delta_bar_delta_options": (
        "delta_bar_delta",
        "power",
        {"increase": 0.2, "decrease": 0.5, "min_rate": 0.5, "max_rate": 1.5, "mean_weight": 0.0},
    ),
    "extended": ("delta_bar_delta", "constant", {"variant": "extended"}),
    "extended_options": ("delta_bar_delta", "staircase", EXTENDED),
    "gains": ("delta_bar_delta", "constant", {"variant": "gains"}),
    "gains_options": ("delta_bar_delta", "power", GAINS),
    **{variant: ("rprop", "constant", {"variant": variant}) for variant in VARIANTS},
    **{
        f"{variant}_options": (
            "rprop",
            "power",
            {"variant": variant, "growth": 1.1, "shrinkage": 0.3, "min_rate": 1e-3, "max_rate": 0.07},
        )
        for variant in VARIANTS
    },
    "super_sab": ("super_sab", "constant", {}),
    "super_sab_options": ("super_sab", "power", {"momentum": 0.3, "growth": 1.3, "shrinkage": 0.4, "max_rate": 2.0}),
    "quickprop": ("quickprop", "constant", {}),
    "quickprop_growth": ("quickprop", "power", {"growth": 1.2}),
    "idbd": ("idbd", "constant", {}),
    "idbd_theta": ("idbd", "power", {"meta_step_size": 0.1}),
    "smd": ("smd", "constant", {}),
    "smd_options": ("smd", "power", {"meta_step_size": 0.1, "trace_weight": 0.5}),
    "vsgd": ("vsgd", "constant", {}),
    "vsgd_options": ("vsgd", "power", {"samples": 3, "slow_start": 5.0, "outliers": 1.0}),
    "vsgd_no_outliers": ("vsgd", "constant", {"samples": 0, "outliers": None}),
    "vsgd_curvature": ("vsgd", "power", {"curvature": True}),
    "hypergradient": ("hypergradient", "constant", {}),
    "hypergradient_nesterov": ("hypergradient", "constant", {"direction": "nesterov"}),
    "hypergradient_adam": ("hypergradient", "constant", {"direction": "adam"}),
    "hypergradient_multiplicative": ("hypergradient", "power", {"multiplicative": True, "meta_step_size": 0.1}),
    "hypergradient_nesterov_options": (
        "hypergradient",
        "power",
        {"direction": "nesterov", "meta_step_size": 1e-9, "momentum": 0.5},
    ),
    "hypergradient_adam_options": (
        "hypergradient",
        "staircase",
        {
            "direction": "adam",
            "meta_step_size": 0.01,
            "multiplicative": True,
            "mean_weight": 0.8,
            "mean_square_weight": 0.95,
            "epsilon": 1e-3,
        },
    ),
}
# Where the step sizes of RATES would be too large.
FACTORS = {
    ("hypergradient", "rosenbrock"): {"meta_step_size": 1e-13},
    ("hypergradient_nesterov", "rosenbrock"): {"meta_step_size": 1e-13},
    ("hypergradient_nesterov_options", "rosenbrock"): {"meta_step_size": 1e-13},
    ("smd_options", "rosenbrock"): {"meta_step_size": 1e-4},
    ("hypergradient", "quadratic"): {"meta_step_size": 1e-5},
    ("hypergradient_nesterov", "quadratic"): {"meta_step_size": 1e-6},
}


def step_of(case, problem):
    rule = CASES[case][0]
    if "adam" in case:
        return 0.05
    return SMALLER.get((case, problem.name), 1.0) * SIZES.get(rule, RATES[problem.name])


# Where step sizes must be smaller still, for the trajectory to stay near the problem.
SMALLER = {("smd_options", "rosenbrock"): 0.1}
# These divide small differences of gradients, which amplifies round-off: each step is from the twin's point.
AMPLIFY = {"quickprop": 15, "quickprop_growth": 15, "hypergradient_multiplicative": 50}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_trajectory(problem, case):
    rule, schedule, options = CASES[case]
    ours = {**options, **FACTORS.get((case, problem.name), {})}
    theirs = dict(ours)
    symbolic, number = SCHEDULES[schedule](step_of(case, problem))
    parameters = shared_at(problem.starts)
    cost, noise = problem.cost(parameters), [pt.tensor(shape=start.shape, dtype="float64") for start in problem.starts]
    inputs, values = [], [[]] * STEPS
    if rule == "smd":
        theirs["hessian"] = lambda x: hessian(problem, x)
    elif rule == "idbd":
        theirs["curvature"] = lambda x: [np.abs(c) for c in diagonal(problem, x)]
    elif options.get("variant") == "irprop+":
        theirs["cost"] = lambda x: problem.value_and_gradients(x)[0]
    elif rule == "vsgd":
        # Noise as of batches keeps the mean gradients, along which there are differences, away from 0.
        point, unpack = reference.packed(problem.starts)
        size = np.max(np.abs(flat(problem.gradients(problem.starts))))
        theirs["noise"] = size * np.random.default_rng(0).normal(size=(STEPS, point.size))
        inputs, values = noise, [unpack(draws) for draws in theirs["noise"]]
        cost = cost + sum(pt.sum(n * p) for n, p in zip(noise, parameters, strict=True))
    if ours.get("curvature"):  # any positive function shows that it is used
        ours["curvature"] = [1e2 * (1 + p**2) for p in parameters]
        theirs["curvature"] = lambda x: [1e2 * (1 + p**2) for p in x]

    wanted = getattr(reference, rule)(problem.starts, problem.gradients, STEPS, step_size=number, **theirs)
    assert np.all(np.abs(flat(wanted[-1])) < 100)
    step = compiled(getattr(optapi, rule)(parameters, cost, step_size=symbolic, **ours), inputs)
    for t, (point, draws) in enumerate(zip(wanted, values, strict=True)):
        step(*draws)
        assert_close([[p.get_value() for p in parameters]], [point])
        if t >= AMPLIFY.get(case, STEPS):
            for p, value in zip(parameters, point, strict=True):
                p.set_value(np.asarray(value))


DEFAULTS = ["delta_bar_delta", "rprop", "super_sab", "quickprop", "hypergradient"]


@pytest.mark.parametrize("rule", DEFAULTS)
def test_default_options(rule):
    problem = PROBLEMS[2]
    steps = 30 if rule == "quickprop" else STEPS
    parameters = shared_at(problem.starts)
    points = trajectory(parameters, compiled(getattr(optapi, rule)(parameters, problem.cost(parameters))), steps)
    assert_close(points, getattr(reference, rule)(problem.starts, problem.gradients, steps))


def test_default_options_of_rules_with_curvature():
    problem = PROBLEMS[2]
    for rule, twin in (("idbd", "curvature"), ("smd", "hessian")):
        parameters = shared_at(problem.starts)
        points = trajectory(parameters, compiled(getattr(optapi, rule)(parameters, problem.cost(parameters))), STEPS)
        second = {"curvature": diagonal, "hessian": hessian}[twin]
        functions = {twin: lambda x, second=second: second(problem, x)}
        assert_close(points, getattr(reference, rule)(problem.starts, problem.gradients, STEPS, **functions))


@pytest.mark.parametrize("rule", [*DEFAULTS, "idbd", "smd", "vsgd"])
def test_float64_parameters_do_not_see_floatX(rule):
    problem, ends = PROBLEMS[0], []
    for floatX in ("float64", "float32"):
        with pytensor.config.change_flags(floatX=floatX):
            parameters = shared_at(problem.starts)
            step = compiled(getattr(optapi, rule)(parameters, problem.cost(parameters), step_size=0.01))
            ends.append(trajectory(parameters, step, 15)[-1])
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("delta_bar_delta", EXTENDED),
        ("delta_bar_delta", GAINS),
        ("rprop", {"growth": 1.1, "shrinkage": 0.3, "min_rate": 1e-3, "max_rate": 0.07}),
        ("super_sab", {"max_rate": 2.0}),
        ("vsgd", {"samples": 2, "slow_start": 3.0, "outliers": 1.0}),
        ("hypergradient", {"direction": "nesterov", "momentum": 0.5, "meta_step_size": 1e-6}),
        ("hypergradient", {"direction": "adam", "mean_weight": 0.5, "mean_square_weight": 0.7, "epsilon": 0.1}),
    ],
)
def test_options_may_be_variables(rule, options):
    problem, ends = PROBLEMS[0], []
    for number in (lambda value: value, lambda value: pytensor.shared(np.float64(value))):
        parameters = shared_at(problem.starts)
        values = {key: number(value) if type(value) is float else value for key, value in options.items()}
        step = compiled(getattr(optapi, rule)(parameters, problem.cost(parameters), step_size=0.01, **values))
        ends.append(trajectory(parameters, step, 15))
    assert_close(*ends)


@pytest.mark.parametrize(
    ("case", "rule"), [(case, CASES[case][0]) for case in CASES if "options" in case or case == "smd"]
)
def test_zero_gradients_move_nothing(case, rule):
    options = {key: value for key, value in CASES[case][2].items() if key != "samples"}
    p = pytensor.shared(np.array([1.0, -2.0]))
    updates = getattr(optapi, rule)([p], 0 * pt.sum(p**2), **options)
    points = trajectory([p], compiled(updates), 5)
    assert all(np.array_equal(point[0], [1.0, -2.0]) for point in points)
    assert all(np.all(np.isfinite(v.get_value())) for v in updates)


# Delta-bar-delta


def test_the_first_update_changes_no_gain():
    p, g = pytensor.shared(np.zeros(3)), np.array([[2.0, -0.5, 0.0]])
    for variant in ("jacobs", "extended"):
        updates = optapi.delta_bar_delta([p], gradients=[pt.constant(g[0])], variant=variant)
        compiled(updates)()
        np.testing.assert_array_equal(state_of(updates, "gain").get_value(), 1.0)
    np.testing.assert_allclose(given(optapi.delta_bar_delta, g, step_size=0.3)[1], -0.3 * g[0], rtol=1e-15)


def test_delta_bar_delta_of_a_constant_gradient():
    """The rate at update t is e + (t - 1) kappa."""
    g, t = np.array([2.0, -0.5]), np.arange(1, 21)[:, None]
    steps = np.diff(given(optapi.delta_bar_delta, np.tile(g, (20, 1)), step_size=0.1, increase=0.07 / 0.1), axis=0)
    np.testing.assert_allclose(steps, -(0.1 + (t - 1) * 0.07) * g, rtol=1e-12)


def test_delta_bar_delta_of_an_alternating_gradient():
    """The rate at update t is e (1 - phi)^(t - 1)."""
    t = np.arange(1, 21)[:, None]
    g = (-1.0) ** t * [1.0, 3.0]
    steps = np.diff(given(optapi.delta_bar_delta, g, step_size=0.1, mean_weight=0.0, decrease=0.3), axis=0)
    np.testing.assert_allclose(steps, -0.1 * 0.7 ** (t - 1) * g, rtol=1e-12)


def test_a_zero_gradient_lets_the_mean_decay():
    p, g = pytensor.shared(np.zeros(1)), pt.dvector()
    updates = optapi.delta_bar_delta([p], gradients=[g], mean_weight=0.5)
    step = compiled(updates, [g])
    step([4.0])
    step([0.0]), step([0.0])
    np.testing.assert_array_equal(state_of(updates, "mean").get_value(), [0.5])
    np.testing.assert_array_equal(state_of(updates, "gain").get_value(), [1.0])


def test_tiny_gradients_agree():
    """Their products would be 0."""
    for rule in (optapi.delta_bar_delta, optapi.super_sab, optapi.rprop):
        p = pytensor.shared(np.float64(0.0))
        updates = rule([p], gradients=[pt.constant(1e-200)])
        step = compiled(updates)
        step(), step()
        assert state_of(updates, "gain").get_value() > 1


def test_extended_without_momentum_and_damping_is_delta_bar_delta():
    g = np.random.default_rng(1).normal(size=(40, 5)) + 0.5
    plain = given(optapi.delta_bar_delta, g)
    np.testing.assert_allclose(given(optapi.delta_bar_delta, g, variant="extended", momentum_increase=0.0), plain)


def test_extended_of_a_constant_gradient():
    """With damping the mean gradient tends to g, and the increases to kappa exp(-gamma |g|)."""
    p, g = pytensor.shared(np.float64(0.0)), 2.0
    options = {"damping": 0.5, "momentum_damping": 1.0, "increase": 0.3, "momentum_increase": 0.1}
    updates = optapi.delta_bar_delta([p], gradients=[pt.constant(g)], variant="extended", **options)
    gain, momentum, step = state_of(updates, "gain"), state_of(updates, "momentum"), compiled(updates)
    for _ in range(45):
        step()
    before = gain.get_value(), momentum.get_value()
    step()
    np.testing.assert_allclose(gain.get_value() - before[0], 0.3 * np.exp(-0.5 * g), rtol=1e-6)
    np.testing.assert_allclose(momentum.get_value() - before[1], 0.1 * np.exp(-g), rtol=1e-6)
    for _ in range(60):
        step()
    assert momentum.get_value() == 0.9


def test_gains_of_a_constant_gradient():
    """The first update increases the gains already, since there is no velocity; each later one by as much."""
    g, a = np.array([2.0, -0.5]), 0.1
    points = given(optapi.delta_bar_delta, np.tile(g, (10, 1)), variant="gains", step_size=a)
    v, steps = 0.0, np.diff(points, axis=0)
    for t, step in enumerate(steps, start=1):
        v = 0.5 * v - a * (1 + 0.2 * t) * g
        np.testing.assert_allclose(step, v, rtol=1e-12)


def test_gains_fall_to_their_floor():
    """Where the gradient has the sign of the velocity: it does at every update after a turn, for a while."""
    p, g = pytensor.shared(np.zeros(1)), pt.dvector()
    updates = optapi.delta_bar_delta([p], gradients=[g], variant="gains", momentum=1.0)
    step, gain = compiled(updates, [g]), state_of(updates, "gain")
    step([-1e6])
    for t in range(1, 30):
        step([1e-6])
        np.testing.assert_allclose(gain.get_value(), max(1.2 * 0.8**t, 0.01), rtol=1e-12)
    assert gain.get_value() == 0.01


# Rprop

RPROP_START = [1, 0.9, 0.78, 0.636, 0.4632, 0.25584, 0.007008]
RPROP = {
    "rprop-": [-0.2915904, -0.142291, 0.036868, -0.052712],
    "irprop-": [-0.2915904, -0.2915904, -0.142291, 0.036868, 0.036868, -0.052712],
    "rprop+": [-0.2915904, 0.007008, -0.142291, 0.007008, -0.067642, 0.007008],
    "irprop+": [-0.2915904, 0.007008, -0.142291, 0.007008, -0.067642, 0.007008],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_rprop_sequence(variant):
    """Of half the square, from 1: all variants are the same until the first step over the minimum."""
    wanted = RPROP_START + RPROP[variant]
    w = pytensor.shared(np.float64(1.0))
    points = trajectory([w], compiled(optapi.rprop([w], w**2 / 2, variant=variant)), len(wanted) - 1)
    np.testing.assert_allclose(flat(points), wanted[1:], atol=6e-7)


def test_irprop_plus_undoes_only_steps_that_raise_the_cost():
    """A step over the minimum that lowers the cost is kept, where "rprop+" undoes it."""
    for variant, after in (("rprop+", 0.3), ("irprop+", -0.1)):
        w = pytensor.shared(np.float64(0.3))
        updates = optapi.rprop([w], w**2, variant=variant, step_size=0.4)
        points = flat(trajectory([w], compiled(updates), 2))
        np.testing.assert_allclose(points, [-0.1, after], atol=1e-15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rprop_does_not_depend_on_the_scale_of_the_cost(variant):
    problem, runs = PROBLEMS[1], []
    for scale in (1.0, 1024.0, 2.0**-600):
        parameters = shared_at(problem.starts)
        updates = optapi.rprop(parameters, scale * problem.cost(parameters), variant=variant, step_size=0.05)
        runs.append(trajectory(parameters, compiled(updates), STEPS))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(flat(one), flat(other))


def test_rprop_step_sizes_stay_within_their_bounds():
    up = np.diff(given(optapi.rprop, np.ones((60, 1)), max_rate=1.5), axis=0)
    np.testing.assert_allclose(up[:, 0], -np.minimum(0.1 * 1.2 ** np.arange(60), 1.5), rtol=1e-12)
    turns = (-1.0) ** np.arange(60)[:, None]
    down = np.diff(given(optapi.rprop, turns, variant="rprop-", min_rate=1e-3), axis=0)
    np.testing.assert_allclose(down[:, 0], -turns[:, 0] * np.maximum(0.1 * 0.5 ** np.arange(60), 1e-3), rtol=1e-12)
    still = given(optapi.rprop, np.ones((5, 1)), step_size=0.0)
    np.testing.assert_array_equal(still, 0.0)


# SuperSAB


def test_super_sab_of_a_constant_gradient():
    """Without momentum the rate at update t is e eta^(t - 1), up to its bound."""
    g, t = np.array([2.0, -0.5]), np.arange(20)[:, None]
    options = {"step_size": 0.1, "momentum": 0.0, "growth": 1.2, "max_rate": 10.0}
    steps = np.diff(given(optapi.super_sab, np.tile(g, (20, 1)), **options), axis=0)
    np.testing.assert_allclose(steps, -0.1 * np.minimum(1.2**t, 10) * g, rtol=1e-12)


def test_super_sab_undoes_a_step_over_the_minimum():
    """Of half the square: to -0.9 and back, with the rate halved; the next step is neutral, the one after grows."""
    points = path(optapi.super_sab, 1.0, lambda p: p, 4, step_size=1.9, momentum=0.0)
    left = 1 - 1.9 / 2
    np.testing.assert_allclose(points, [1, 1 - 1.9, 1, left, left * (1 - 1.05 * 1.9 / 2)], atol=1e-15)
    points = path(optapi.super_sab, 1.0, lambda p: p, 3, step_size=0.6, momentum=0.9)
    np.testing.assert_allclose(points, [1, 0.4, 0.4 - 0.54 - 0.6 * 1.05 * 0.4, 0.4], atol=1e-15)


# Quickprop


@pytest.mark.parametrize(("a", "wanted"), [(0.1, [1, 0.7, -0.035, 0]), (0.3, [1, 0.1, -0.09, 0])])
def test_quickprop_sequence(a, wanted):
    """Of 1.5 w^2: the secant step is exact as soon as the slope has changed its sign."""
    points = path(optapi.quickprop, 1.0, lambda p: 3 * p, 3, step_size=a)
    np.testing.assert_allclose(points, wanted, atol=1e-15)


def test_quickprop_of_a_constant_gradient():
    """The steps grow by the factor, and by the step of the first."""
    g, p = np.array([2.0, -0.5]), 0.0
    for step in np.diff(given(optapi.quickprop, np.tile(g, (10, 1)), step_size=0.1, growth=1.5), axis=0):
        p = 1.5 * p - 0.1 * g
        np.testing.assert_allclose(step, p, rtol=1e-12)


def test_quickprop_starts_again_after_a_gradient_of_zero():
    points = given(optapi.quickprop, np.array([[1.0], [0.0], [-1.0], [1.0]]), step_size=0.1)
    np.testing.assert_allclose(points[:, 0], [0, -0.1, -0.1, 0, -0.05], atol=1e-15)


# IDBD


def linear_unit(size=20):
    """A unit's weights, its input and target, and the error."""
    w = pytensor.shared(np.zeros(size), name="w")
    x, y = pt.tensor(shape=(size,), dtype="float64"), pt.dscalar()
    return w, x, y, y - pt.sum(w * x)


def drifting_task(examples, seed):
    """Sutton's: 20 normal inputs; the target sums the first five with signs, and at each 20th example one flips."""
    rng = np.random.default_rng(seed)
    X, signs = rng.normal(size=(examples, 20)), np.zeros(20)
    signs[:5] = rng.choice([-1.0, 1.0], 5)
    Y = np.empty(examples)
    for t in range(examples):
        if t % 20 == 0:
            signs[rng.integers(5)] *= -1
        Y[t] = X[t] @ signs
    return X, Y


def least_mean_squares(X, Y, rate):
    w, errors = np.zeros(X.shape[1]), []
    for x, y in zip(X, Y, strict=True):
        errors.append(y - w @ x)
        w = w + rate * errors[-1] * x
    return np.array(errors)


def sutton(X, Y, theta, rate=0.05):
    """The errors of the algorithm of the paper, figure 2, in NumPy."""
    w, h, beta, errors = np.zeros(20), np.zeros(20), np.full(20, np.log(rate)), []
    for x, y in zip(X, Y, strict=True):
        d = y - w @ x
        beta = beta + theta * d * x * h
        a = np.exp(beta)
        w = w + a * d * x
        h = h * np.maximum(1 - a * x**2, 0) + a * d * x
        errors.append(d)
    return np.array(errors)


def errors_of(X, Y, given=True, **options):
    """The errors of the rule on the examples, with the curvature given or found."""
    w, x, y, error = linear_unit()
    curvature = {"curvature": [x**2]} if given else {}
    updates = optapi.idbd([w], error**2 / 2, **curvature, **options)
    step = pytensor.function([x, y], error, updates=updates, mode=PYTHON)
    step.trust_input = True
    return np.array([step(x, np.asarray(y)) for x, y in zip(X, Y, strict=True)]), updates


def test_sutton_experiment():
    """After 20000 examples the rates of the irrelevant inputs are gone, and the error is less than half of that of LMS.

    The paper has 1.5 against 3.5, of the next 10000.
    """
    X, Y = drifting_task(30000, seed=0)
    errors, updates = errors_of(X, Y, meta_step_size=0.01)
    np.testing.assert_allclose(errors[:500], sutton(X[:500], Y[:500], 0.01), rtol=1e-9, atol=1e-12)
    best = min(np.mean(least_mean_squares(X, Y, rate)[20000:] ** 2) for rate in (0.03, 0.04, 0.05))
    assert 1.4 < np.mean(errors[20000:] ** 2) < 1.7
    assert 3.3 < best < 3.7
    rates = 0.05 * np.exp(state_of(updates, "log_gain").get_value())
    assert np.min(rates[:5]) > 0.08
    assert np.max(rates[5:]) < 0.01


def test_the_curvature_of_a_linear_unit_is_found():
    X, Y = drifting_task(60, seed=1)
    wanted = sutton(X, Y, 0.1)
    for known in (True, False):
        errors, _ = errors_of(X, Y, given=known, meta_step_size=0.1)
        np.testing.assert_allclose(errors, wanted, rtol=1e-12, atol=1e-12)


def test_idbd_is_least_mean_squares_at_first_and_without_a_meta_step_size():
    X, Y = drifting_task(60, seed=2)
    wanted = least_mean_squares(X, Y, 0.05)
    np.testing.assert_allclose(errors_of(X, Y, meta_step_size=0.0)[0], wanted, rtol=1e-12, atol=1e-12)
    _, updates = errors_of(X[:1], Y[:1], meta_step_size=10.0)
    np.testing.assert_array_equal(state_of(updates, "log_gain").get_value(), 0.0)


def test_the_bounds_of_idbd():
    """A logarithm changes by at most 2 in an update, and is at least -10."""
    p, g = pytensor.shared(np.zeros(2)), pt.dvector()
    updates = optapi.idbd([p], gradients=[g], curvature=[pt.zeros(2)], meta_step_size=1e6)
    step, log_gain, seen = compiled(updates, [g]), state_of(updates, "log_gain"), []
    for sign in (1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1):
        step([1.0 * sign, 0.0])
        seen.append(log_gain.get_value())
        if len(seen) == 3:  # the steps so far are remembered, so that their undoing is punished
            trace = state_of(updates, "trace")
            trace.set_value(np.array([-1e3, 0.0]))
    np.testing.assert_allclose(np.array(seen)[:, 0], [0, 2, 4, 2, 0, -2, -4, -6, -8, -10, -10, -10], atol=1e-12)
    np.testing.assert_array_equal(np.array(seen)[:, 1], 0.0)


# SMD


def test_smd_without_a_meta_step_size_is_gradient_descent():
    problem = PROBLEMS[1]
    runs = []
    for rule, options in ((optapi.sgd, {}), (optapi.smd, {"meta_step_size": 0.0})):
        parameters = shared_at(problem.starts)
        step = compiled(rule(parameters, problem.cost(parameters), step_size=2e-4, **options))
        runs.append(trajectory(parameters, step, 30))
    assert_close(*runs)


def test_the_trace_of_smd_is_the_derivative_by_the_logarithm_of_the_rates():
    """Without forgetting, and with fixed gains."""
    problem, ends = PROBLEMS[1], []
    for change in (1e-6, -1e-6, 0.0):
        parameters = shared_at(problem.starts)
        options = {"step_size": 2e-4 * np.exp(change), "meta_step_size": 0.0, "trace_weight": 1.0}
        updates = optapi.smd(parameters, problem.cost(parameters), **options)
        ends.append(flat(trajectory(parameters, compiled(updates), 30)[-1]))
    trace = state_of(updates, "trace").get_value()
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, trace, rtol=1e-6, atol=1e-8)


def test_smd_counts_its_products():
    for rule, products in ((optapi.smd, 3), (optapi.idbd, 3 * 2)):
        p, stop = pytensor.shared(np.ones(2)), pytensor.shared(0)
        updates = rule([p], pt.sum(p**4), stop=stop)
        step = compiled(updates)
        step(), step(), step()
        [count] = optapi.reports(updates)["products"]
        assert count.get_value() == products


def test_smd_has_the_products_of_the_whole_matrix():
    """Two parameters that only a product couples."""
    p, q = pytensor.shared(np.float64(1.0)), pytensor.shared(np.float64(2.0))
    updates = optapi.smd([p, q], p * q, step_size=0.1, trace_weight=1.0, meta_step_size=0.0)
    step = compiled(updates)
    step(), step()
    traces = [v.get_value() for v in updates if v.name and "/trace/" in v.name]
    first, second = np.array([-0.2, -0.1]), 0.1 * np.array([2 - 0.1, 1 - 0.2])
    np.testing.assert_allclose(traces, first - second - 0.1 * first[::-1], rtol=1e-12)


# vSGD


def test_vsgd_without_noise_solves_a_separable_quadratic_at_once():
    """After the first samples, at all of which the gradient is the same."""
    h, start = np.array([0.01, 1.0, 300.0]), np.array([1.0, -2.0, 5.0])
    for options in ({}, {"curvature": [pt.constant(h)]}):
        for samples in (0, 1, 5):
            p = pytensor.shared(start.copy())
            cost = pt.sum(h * p**2) / 2
            step = compiled(optapi.vsgd([p], cost, samples=samples, slow_start=1.0, **options))
            for _ in range(samples):
                step()
                np.testing.assert_array_equal(p.get_value(), start)
            step()
            np.testing.assert_allclose(p.get_value(), 0.0, atol=1e-9)


def test_vsgd_of_noise_alone_slows_down():
    """The rates fall like 1/t, and the memories grow with the updates, by about 0.6 in each."""
    rng, n, steps = np.random.default_rng(3), 50, 2000
    p, g = pytensor.shared(np.zeros(n)), pt.dvector()
    updates = optapi.vsgd([p], gradients=[g], curvature=[pt.ones(n)], outliers=None)
    step, memory = compiled(updates, [g]), state_of(updates, "memory")
    for _ in range(steps):
        step(rng.normal(size=n))
    assert 0.5 * steps < np.median(memory.get_value()) < 0.8 * steps
    ratio = state_of(updates, "mean/").get_value() ** 2 / state_of(updates, "mean_square/").get_value()
    assert np.mean(ratio) < 10 / steps


def test_vsgd_forgets_where_the_gradient_is_sure():
    p, g = pytensor.shared(np.zeros(1)), pt.dvector()
    updates = optapi.vsgd([p], gradients=[g], curvature=[pt.ones(1)], outliers=None)
    step, memory = compiled(updates, [g]), state_of(updates, "memory")
    for _ in range(60):
        step([1.0])
    np.testing.assert_allclose(memory.get_value(), 1.0, rtol=1e-2)


def test_vsgd_outliers_lengthen_the_memory():
    runs = []
    for outliers in (None, 2.0):
        p, g = pytensor.shared(np.zeros(2)), pt.dvector()
        updates = optapi.vsgd([p], gradients=[g], curvature=[pt.ones(2)], outliers=outliers)
        step, memory = compiled(updates, [g]), state_of(updates, "memory")
        for value in [1.0, -1.0] * 10:
            step([value, value])
        step([1.0, 50.0])
        runs.append(memory.get_value())
    assert runs[0][0] == runs[1][0]
    assert runs[1][1] > runs[0][1]


def test_vsgd_counts_its_evaluations():
    p, stop = pytensor.shared(np.ones(2)), pytensor.shared(0)
    updates = optapi.vsgd([p], pt.sum(p**2), stop=stop)
    step = compiled(updates)
    step(), step()
    [count] = optapi.reports(updates)["evaluations"]
    assert count.get_value() == 4
    assert optapi.reports(optapi.vsgd([p], gradients=[p], curvature=[p], stop=stop)) == {}


# Hypergradient descent


def test_the_first_rates_of_hypergradient_descent():
    """Of half the squared norm: b_2 = b_1 + beta (1 - b_1) |x|^2, and the first update is that of sgd."""
    x, a, beta = np.array([1.0, -2.0, 0.5]), 0.1, 0.01
    p = pytensor.shared(x.copy())
    updates = optapi.hypergradient([p], pt.sum(p**2) / 2, step_size=a, meta_step_size=beta)
    step, learned = compiled(updates), state_of(updates, "learned")
    step()
    assert learned.get_value() == 0
    np.testing.assert_allclose(p.get_value(), (1 - a) * x, rtol=1e-15)
    step()
    rate = a + beta * (1 - a) * (x @ x)
    np.testing.assert_allclose(a + learned.get_value(), rate, rtol=1e-14)
    np.testing.assert_allclose(p.get_value(), (1 - rate) * (1 - a) * x, rtol=1e-14)


@pytest.mark.parametrize(
    ("direction", "rule"),
    [
        ("sgd", lambda *a, **o: optapi.sgd(*a, **o)),
        ("nesterov", lambda *a, **o: optapi.sgd(*a, momentum=0.9, nesterov=True, **o)),
        ("adam", lambda *a, **o: optapi.adam(*a, **o)),
    ],
    ids=["sgd", "nesterov", "adam"],
)
@pytest.mark.parametrize("multiplicative", [False, True])
def test_hypergradient_descent_that_learns_nothing(direction, rule, multiplicative):
    problem, runs = PROBLEMS[2], []
    a = schedules.Power(0.05, 10.0)
    options = {"direction": direction, "meta_step_size": 0.0, "multiplicative": multiplicative}
    for each, extra in ((rule, {}), (optapi.hypergradient, options)):
        parameters = shared_at(problem.starts)
        runs.append(
            trajectory(parameters, compiled(each(parameters, problem.cost(parameters), step_size=a, **extra)), 30)
        )
    assert_close(*runs)


def test_multiplicative_rates_of_a_constant_gradient():
    """They grow by 1 + beta from the second update on, whatever the size of the gradient."""
    growth = 1.05 ** np.arange(10)[:, None]
    for size in (1e-8, 1.0, 1e8):
        g = size * np.array([[2.0, -0.5]])
        options = {"step_size": 0.1, "multiplicative": True, "meta_step_size": 0.05}
        steps = np.diff(given(optapi.hypergradient, np.tile(g, (10, 1)), **options), axis=0)
        np.testing.assert_allclose(steps, -0.1 * growth * g, rtol=1e-9)


def test_the_rate_is_never_negative():
    turns = (-1.0) ** np.arange(6)[:, None]
    steps = np.diff(given(optapi.hypergradient, turns, step_size=0.1, meta_step_size=0.06), axis=0)
    rates = [0.1, 0.04, 0, 0, 0, 0]
    np.testing.assert_allclose(steps[:, 0], -turns[:, 0] * rates, atol=1e-15)
    options = {"step_size": 0.1, "multiplicative": True, "meta_step_size": 2.0}
    steps = np.diff(given(optapi.hypergradient, turns, **options), axis=0)
    np.testing.assert_allclose(steps[:, 0], -turns[:, 0] * [0.1, 0, 0, 0, 0, 0], atol=1e-15)


# What is refused

P = pytensor.shared(np.ones(3), name="p")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optapi.rprop([P], gradients=[P], variant="irprop+"), ValueError, "compares costs; pass cost="),
        (lambda: optapi.rprop([P], gradients=[P], variant="plus"), ValueError, "variant is 'plus'; pass 'rprop-'"),
        (lambda: optapi.rprop([P], gradients=[P], growth=0.9), ValueError, "growth is 0.9"),
        (lambda: optapi.rprop([P], gradients=[P], shrinkage=1.5), ValueError, "shrinkage is 1.5"),
        (lambda: optapi.delta_bar_delta([P], gradients=[P], variant="x"), ValueError, "variant is 'x'"),
        (lambda: optapi.delta_bar_delta([P], gradients=[P], momentum=0.5), ValueError, "momentum is not an option"),
        (lambda: optapi.delta_bar_delta([P], gradients=[P], damping=0.5), ValueError, "damping is not an option"),
        (
            lambda: optapi.delta_bar_delta([P], gradients=[P], variant="gains", mean_weight=0.5),
            ValueError,
            "mean_weight is not an option of 'gains'",
        ),
        (lambda: optapi.delta_bar_delta([P], gradients=[P], decrease=1.2), ValueError, "decrease is 1.2"),
        (lambda: optapi.super_sab([P], gradients=[P], max_rate=-1.0), ValueError, "max_rate is -1"),
        (lambda: optapi.quickprop([P], gradients=[P], growth=-1.0), ValueError, "growth is -1"),
        (lambda: optapi.idbd([P], gradients=[P]), ValueError, "pass cost="),
        (lambda: optapi.idbd([P], gradients=[P], curvature=[]), ValueError, "curvature has 0 entries"),
        (lambda: optapi.idbd([P], gradients=[P], curvature=[None]), TypeError, "the curvature of 'p' in curvature"),
        (lambda: optapi.smd([P], gradients=[P]), ValueError, "pass cost="),
        (
            lambda: optapi.smd([P], pt.sum(P**2), gradients=optapi.gradients.clip([2 * P], 1.0)),
            ValueError,
            "transformed",
        ),
        (lambda: optapi.smd([P], pt.sum(P**2), trace_weight=1.5), ValueError, "trace_weight is 1.5"),
        (lambda: optapi.vsgd([P], gradients=[P]), ValueError, "pass cost="),
        (lambda: optapi.vsgd([P], pt.sum(P**2), samples=-1), ValueError, "samples is -1"),
        (lambda: optapi.vsgd([P], pt.sum(P**2), slow_start=0.5), ValueError, "slow_start is 0.5"),
        (lambda: optapi.hypergradient([P], gradients=[P], direction="up"), ValueError, "direction is 'up'"),
        (lambda: optapi.hypergradient([P], gradients=[P], momentum=0.5), ValueError, "momentum is not an option"),
        (lambda: optapi.hypergradient([P], gradients=[P], epsilon=0.5), ValueError, "epsilon is not an option"),
        (lambda: optapi.hypergradient([P], gradients=[P], meta_step_size=-1.0), ValueError, "meta_step_size is -1"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error) as refused:
        call()
    assert message in str(refused.value)
