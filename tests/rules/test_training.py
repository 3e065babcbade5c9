"""Rules for training: against recorded runs of other libraries, their NumPy twins, and facts of the papers."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import first_order
from reference import training as reference

import optapi
from optapi import PYTHON, gradients, schedules
from optapi.draws import random_signs
from optapi.graph.compat import REWRITES_INNER_GRAPHS


FILE = np.load(Path(__file__).parent.parent / "golden" / "training_rules.npz")
RECORDED = json.loads(str(FILE["calls"]))
STEPS = 40


def shared_at(starts, dtype="float64"):
    return [pytensor.shared(np.array(start, dtype), name=f"p{i}") for i, start in enumerate(starts)]


def compiled(updates, inputs=()):
    return pytensor.function(list(inputs), [], updates=updates, mode=PYTHON, on_unused_input="ignore")


def flat(parts):
    return np.concatenate([np.ravel(part) for part in parts])


def values(variables):
    return [v.get_value() for v in variables]


def trajectory(parameters, updates, steps):
    step, points = compiled(updates), []
    for _ in range(steps):
        step()
        points.append(values(parameters))
    return points


# Recorded runs


def recorded_cost(problem, count):
    """The parameters of a recorded problem and its cost at the update `count`: a quadratic, or a small network."""
    data = {name: FILE[f"data/{name}"] for name in (n.removeprefix("data/") for n in FILE.files if n[:4] == "data")}
    if problem.startswith("quad"):
        W, v = shared_at([data["quad/W"], data["quad/v"]])
        z = pt.concatenate([W.ravel(), v])
        cost = 0.5 * pt.sum(z * pt.dot(data["quad/A"], z)) - pt.sum(data["quad/c"] * z)
        return [W] if problem == "quadW" else [W, v], cost
    ps = W1, b1, W2, b2 = shared_at([data[f"mlp/{name}"] for name in ("W1", "b1", "W2", "b2")])
    X = pt.as_tensor(data["mlp/X"].reshape(4, 8, 5))[count % 4]
    Y = pt.as_tensor(data["mlp/Y"].reshape(4, 8, 3))[count % 4]
    z = pt.dot(pt.tanh(pt.dot(X, W1) + b1), W2) + b2
    return list(ps), pt.mean(pt.log(pt.sum(pt.exp(z), axis=1)) - pt.sum(Y * z, axis=1))


def recorded_call(rule, options, ps, cost):
    """The updates of a recorded call, and the averages if it has some."""
    a, averages = options.get("step_size"), None
    options = {"second_gradient" if name == "exact" else name: value for name, value in options.items()}
    if rule == "sam":
        updates = optapi.sgd(ps, gradients=gradients.sharpness_aware(cost, ps, options["radius"]), step_size=a)
    elif "gradients" in options:
        updates = optapi.sgd(
            ps, gradients=gradients.clip_adaptive(pt.grad(cost, ps), ps, **options["gradients"]), step_size=a
        )
    elif rule == "mechanic":
        gs = pytensor.grad(cost, ps)
        updates = getattr(optapi, options["base"])(ps, gradients=gs, step_size=1.0)
        updates = optapi.mechanic(updates, dict(zip(ps, gs, strict=True)))
    elif rule.startswith("schedule_free"):
        base = optapi.sgd if rule.endswith("sgd") else partial(optapi.adamw, mean_weight=0.0, decay=0.0)
        averages = {p: pytensor.shared(0 * p.get_value()) for p in ps}
        updates = optapi.schedule_free(base(ps, cost, step_size=a), ps, step_size=a, averages=averages)
    else:
        if "others" in options:  # optax has its nadam
            options = options | {"others": partial(optapi.nadam, momentum_decay=1e9)}
        updates = getattr(optapi, rule)(ps, cost, **options)
    return updates, averages


@pytest.mark.parametrize("key", RECORDED["calls"])
def test_recorded(key):
    call, count = RECORDED["calls"][key], pt.iscalar("count")
    ps, cost = recorded_cost(call["problem"], count)
    updates, averages = recorded_call(call["rule"], call["options"], ps, cost)
    step, rows = compiled(updates, [count]), dict(zip(RECORDED["steps"], range(len(RECORDED["steps"])), strict=True))
    for t in range(max(rows)):
        step(t)
        for name, variables in ((key, ps), (f"eval/{key}", list((averages or {}).values()))):
            if t + 1 in rows and variables:
                wanted = FILE[name][rows[t + 1]]
                error = np.max(np.abs(flat(values(variables)) - wanted)) / max(1, np.max(np.abs(wanted)))
                assert error <= call["allowed"], (t + 1, error)


# Twins


class Small:
    """A smooth cost of a matrix and a vector, with its gradients by hand."""

    def __init__(self, seed=3, shape=(3, 3)):
        rng = np.random.default_rng(seed)
        self.X, self.Y = rng.normal(size=(12, shape[0])), rng.normal(size=(12, shape[1]))
        self.starts = [rng.normal(size=shape), rng.normal(size=shape[1])]

    def cost(self, parameters):
        W, b = parameters
        return pt.mean(pt.sum(pt.sqrt(1 + (pt.dot(self.X, W) + b - self.Y) ** 2), axis=1))

    def value(self, x):
        return np.mean(np.sum(np.sqrt(1 + (self.X @ x[0] + x[1] - self.Y) ** 2), axis=1))

    def gradient(self, x):
        r = self.X @ x[0] + x[1] - self.Y
        d = r / np.sqrt(1 + r**2) / len(r)
        return [self.X.T @ d, d.sum(axis=0)]

    def product(self, x, v):
        """That of the Hessian at x with v."""
        d = (self.X @ v[0] + v[1]) / (1 + (self.X @ x[0] + x[1] - self.Y) ** 2) ** 1.5 / len(self.X)
        return [self.X.T @ d, d.sum(axis=0)]


SMALL = Small()
FALLING = schedules.Linear(0.1, 50)
CASES = [
    ("lion", {"decay": 0.2, "mean_weight": 0.8}),
    ("signum", {"decay": 0.2, "momentum": 0.7}),
    ("adamw", {"decay": 0.1, "mean_square_weight": 0.9, "clip_update": True}),
    ("adamax", {"decay": 0.1}),
    ("nadam", {"decay": 0.1}),
    ("radam", {"decay": 0.1, "mean_square_weight": 0.9}),
    ("adabelief", {"decay": 0.1, "epsilon": 1e-8, "inner_epsilon": 1e-10}),
    ("adan", {"decay": 0.1}),
    ("adan", {"decay": 0.1, "proximal": False, "difference_weight": 0.6}),
    ("ademamix", {"decay": 0.1, "warm_up": 30}),
    ("ademamix", {"slow_weight": 0.99, "slow_share": 2.0}),
    ("adopt", {"decay": 0.1, "clip_first": 2}),
    ("adopt", {"clip": False, "mean_square_weight": 0.9}),
    ("mars", {"decay": 0.1, "strength": 0.1}),
    ("mars", {"second_gradient": True, "base": "lion", "decay": 0.1}),
    ("yogi", {"decay": 0.1}),
    ("laprop", {"decay": 0.1, "epsilon": 1e-8}),
    ("lamb", {"decay": 0.1}),
    ("lars", {"trust": 0.5, "decay": 0.1, "nesterov": True, "epsilon": 1e-3}),
    ("lars", {"trust": 0.5, "momentum": 0.0}),
    ("novograd", {"decay": 0.1}),
    ("prodigy", {"step_size": 1.0, "initial": 1e-3, "decay": 0.01, "safeguard": True, "growth": 1.5}),
    ("prodigy", {"step_size": 1.0, "initial": 1e-3, "bias_correction": True, "coefficient": 0.5}),
    ("dog", {"step_size": 1.0, "by_tensor": True}),
    ("dog", {"step_size": 1.0, "weighted": True, "initial_distance": 1e-2}),
    ("polyak_sgd", {"step_size": 0.8, "lower_bound": 2.0, "scale": 0.5, "maximum": 0.5}),
    ("polyak_sgd", {"step_size": 1.0, "momentum": 0.5, "epsilon": 1e-5, "maximum": 0.1}),
    ("adafactor", {"decay": 0.1, "mean_weight": 0.9}),
    ("adafactor", {"variant": "paper", "clip": 0.5}),
    ("adafactor", {"variant": "optax", "scale": False, "decay": 0.01}),
    ("qhm", {"mean_weight": 0.9, "decay": 0.1}),
    ("qhadam", {"mean_weight": 0.9, "square_share": 0.8, "decay": 0.1}),
    ("aggmo", {"decay": 0.1}),
    ("madgrad", {"momentum": 0.8}),
    ("momo", {"step_size": 0.3, "lower_bound": 1.0, "decay": 0.1}),
    ("d_adaptation", {"step_size": 1.0, "initial": 1e-3, "decay": 0.01}),
    ("came", {"decay": 0.1, "clip": 0.5}),
    ("sm3", {"decay": 0.1}),
    ("sm3", {"momentum": 0.5, "mean_square_weight": 0.9}),
    ("scion", {"radius": 0.5, "constrained": True}),
    ("scion", {"signs": lambda p: p.ndim == 2}),
    ("muon", {"scale": "shape"}),
    ("muon", {"nesterov": False, "bias_correction": True, "scale": None}),
    ("normuon", {"nesterov": True}),
    ("normuon", {"mean_square_weight": 0.8, "scale": 0.5}),
    ("kron", {"decay": 0.1}),
    ("kron", {"initial": 0.7, "clip": 0.5, "clip_component": 0.8, "damping": 1e-2, "factor_step_size": 0.3}),
    ("sophia", {"every": 3, "scale": 0.5, "clip": 0.7, "seed": 5}),
    ("adahessian", {"block": 3, "decay": 0.1}),
    ("adahessian", {"power": 0.5, "seed": 5}),
    ("shampoo", {"every": 3, "decay": 0.1}),
    ("shampoo", {"every": 1, "start": 5, "graft": None, "mean_square_weight": 1.0, "epsilon": 1e-6}),
    ("soap", {"every": 4, "mean_square_weight": 0.8}),
]


@pytest.mark.parametrize(("rule", "options"), CASES, ids=lambda part: part if isinstance(part, str) else None)
def test_twin(rule, options):
    ps, options = shared_at(SMALL.starts), {"step_size": FALLING} | options
    points = trajectory(ps, getattr(optapi, rule)(ps, SMALL.cost(ps), **options), STEPS)
    more = {"cost": SMALL.value} if rule in ("polyak_sgd", "momo") else {}
    more |= {"product": SMALL.product} if rule in ("sophia", "adahessian") else {}
    wanted = getattr(reference, rule)(SMALL.starts, SMALL.gradient, STEPS, **options, **more)
    # Rules with decompositions amplify the rounding of the smallest eigenvalues.
    tolerance = 1e-7 if rule in ("shampoo", "soap") else 1e-11
    for t, (point, other) in enumerate(zip(points, wanted, strict=True)):
        np.testing.assert_allclose(flat(point), flat(other), rtol=tolerance, atol=tolerance, err_msg=f"step {t}")


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 3, 2)], ids=str)
def test_kron_twin_of_other_shapes(shape):
    """The longer axis has a diagonal, and of three axes all but those whose square is no more than the components."""
    start, target = (np.random.default_rng(seed).normal(size=shape) for seed in (4, 5))
    [W] = ps = shared_at([start])
    cost = pt.sum(pt.sqrt(1 + (W - target) ** 2))
    points = trajectory(ps, optapi.kron(ps, cost, step_size=FALLING), STEPS)
    wanted = reference.kron(
        [start], lambda x: [(x[0] - target) / np.sqrt(1 + (x[0] - target) ** 2)], STEPS, step_size=FALLING
    )
    np.testing.assert_allclose(points, wanted, rtol=1e-11, atol=1e-11)


def test_schedule_free_twin():
    ps, options = shared_at(SMALL.starts), {"step_size": schedules.WarmUp(0.3, 5), "power": 1.0, "interpolation": 0.8}
    updates = optapi.sgd(ps, SMALL.cost(ps), step_size=options["step_size"])
    updates = optapi.schedule_free(updates, ps, **options)
    points = trajectory(ps, updates, STEPS)
    wanted, averages = reference.schedule_free(SMALL.starts, SMALL.gradient, STEPS, **options)
    np.testing.assert_allclose(flat(points[-1]), flat(wanted[-1]), rtol=1e-12)
    np.testing.assert_allclose(flat(values(optapi.reports(updates)["average"])), flat(averages[-1]), rtol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sharpness_aware_twin(adaptive):
    ps = shared_at(SMALL.starts)
    sharp = gradients.sharpness_aware(SMALL.cost(ps), ps, 0.1, adaptive=adaptive)
    points = trajectory(ps, optapi.sgd(ps, gradients=sharp, step_size=0.1), STEPS)
    x, uphill = SMALL.starts, reference.sam(SMALL.gradient, 0.1, adaptive)
    for _ in range(STEPS):
        x = [p - 0.1 * g for p, g in zip(x, uphill(x), strict=True)]
    np.testing.assert_allclose(flat(points[-1]), flat(x), rtol=1e-11)


def test_cautious_twin():
    ps = shared_at(SMALL.starts)
    gs = pytensor.grad(SMALL.cost(ps), ps)
    updates = optapi.cautious(optapi.adam(ps, gradients=gs, step_size=0.1), dict(zip(ps, gs, strict=True)))
    wanted = reference.cautious_adam(SMALL.starts, SMALL.gradient, STEPS, step_size=0.1)
    np.testing.assert_allclose(flat(trajectory(ps, updates, STEPS)[-1]), flat(wanted[-1]), rtol=1e-11)


def test_mechanic_twin():
    ps, options = shared_at(SMALL.starts), {"betas": (0.5, 0.9), "initial": 1e-3, "decay": 0.1}
    gs = pytensor.grad(SMALL.cost(ps), ps)
    updates = optapi.sgd(ps, gradients=gs, step_size=1.0)
    points = trajectory(ps, optapi.mechanic(updates, dict(zip(ps, gs, strict=True)), **options), STEPS)
    wanted = reference.mechanic(SMALL.starts, SMALL.gradient, STEPS, **options)
    for point, other in zip(points, wanted, strict=True):
        np.testing.assert_allclose(flat(point), flat(other), rtol=1e-11, atol=1e-11)


class Regression:
    """Least squares of five examples, one in a batch."""

    A, y = np.random.default_rng(8).normal(size=(5, 3)), np.random.default_rng(9).normal(size=5)

    def gradients(self):
        return [lambda x, a=a, y=y: a * (a @ x - y) for a, y in zip(self.A, self.y, strict=True)]

    def reduced(self, rule, every=10, **options):
        """A parameter, and a step with SVRG that takes the number of an example."""
        i, x = pt.iscalar("i"), pytensor.shared(np.zeros(3), name="x")
        residuals = pt.dot(self.A, x) - self.y
        updates = {}
        [g] = optapi.svrg(
            pytensor.grad(residuals[i] ** 2 / 2, [x]),
            pytensor.grad(pt.mean(residuals**2) / 2, [x]),
            [x],
            every,
            updates,
        )
        return x, compiled(rule([x], gradients=[g], updates=updates, **options), [i])


def test_svrg_twin_and_minimizer():
    problem, order = Regression(), np.random.default_rng(1).integers(5, size=2000)
    x, step = problem.reduced(optapi.sgd, step_size=0.05)
    points = []
    for i in order:
        step(i)
        points.append(x.get_value())
    wanted = reference.svrg(np.zeros(3), problem.gradients(), order, step_size=0.05, every=10)
    np.testing.assert_allclose(points, wanted, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(points[-1], np.linalg.lstsq(problem.A, problem.y)[0], rtol=1e-10)


def test_prox_svrg_lands_on_the_lasso():
    problem, l1 = Regression(), 0.4
    x, step = problem.reduced(optapi.sgd, step_size=0.05, prox=optapi.prox.L1(l1))
    for i in np.random.default_rng(1).integers(5, size=4000):
        step(i)
    slope, found = np.mean([g(x.get_value()) for g in problem.gradients()], axis=0), x.get_value()
    assert 0 < np.sum(found == 0) < 3
    np.testing.assert_allclose(slope[found != 0], -l1 * np.sign(found[found != 0]), rtol=1e-9)
    assert np.all(np.abs(slope[found == 0]) < l1)


@pytest.mark.parametrize("kind", ["mechanic", "lawa", "svrg"])
def test_a_loop_does_as_calls_and_nothing_moves_after_a_stop(kind):
    found = []
    for looped in (False, True):
        [W, b], stop = shared_at(SMALL.starts), pytensor.shared(0, name="stop")
        gs, updates = pytensor.grad(SMALL.cost([W, b]), [W, b]), {}
        given = optapi.svrg(gs, gs, [W, b], 4, updates) if kind == "svrg" else gs
        updates = optapi.sgd([W, b], gradients=given, step_size=0.1, stop=stop, updates=updates)
        if kind == "mechanic":
            updates = optapi.mechanic(updates, {W: gs[0], b: gs[1]}, initial=0.1)
        elif kind == "lawa":
            updates = optapi.lawa(updates, {W: pytensor.shared(np.zeros((3, 3)), name="mean")}, every=3)
        step = compiled(optapi.loop(updates, 10) if looped else updates)
        for _ in range(1 if looped else 10):
            step()
        found.append(values(updates))
        stop.set_value(1)
        step()
        held = {v.name: v.get_value() for v in updates if not v.name.startswith("svrg/")}
        for name, value in zip([v.name for v in updates], found[-1], strict=True):
            np.testing.assert_array_equal(value if name != "stop" else 1, held.get(name, value))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_lawa_is_the_mean_of_the_latest():
    ps = shared_at(SMALL.starts)
    means = [pytensor.shared(np.zeros_like(start, "float32")) for start in SMALL.starts]
    updates = optapi.sgd(ps, SMALL.cost(ps), step_size=0.1)
    updates = optapi.lawa(updates, dict(zip(ps, means, strict=True)), latest=3, every=2)
    step, points = compiled(updates), []
    for count in range(1, 12):
        step()
        points.append(flat(values(ps)))
        wanted = np.mean(points[1::2][-3:], axis=0) if count > 1 else points[-1]
        np.testing.assert_allclose(flat(values(means)), wanted, rtol=1e-6)


# Facts


def test_random_signs_are_independent():
    count = pt.lscalar("count")
    draw = pytensor.function([count], random_signs(500, "float64", 3, count), mode=PYTHON)
    signs = np.array([draw(i) for i in range(500)])
    np.testing.assert_array_equal(signs[7], reference.signs(500, 3, 7))
    others = pytensor.function([count], random_signs(500, "float64", 4, count), mode=PYTHON)(7)
    # Sums of 500 signs have the standard deviation 1 in units of the root of 500; of all pairs none is far out.
    assert abs(signs.mean()) < 4 / 500
    for products in (signs @ signs.T, signs.T @ signs):
        apart = products[np.triu_indices(500, 1)] / np.sqrt(500)
        assert np.max(np.abs(apart)) < 6 and abs(np.mean(apart**2) - 1) < 0.02
    assert abs(others @ signs[7]) / np.sqrt(500) < 4


def test_estimates_of_the_diagonal():
    """Exact at once, and Hutchinson's in the mean, within four standard deviations."""
    rng = np.random.default_rng(3)
    B = rng.normal(size=(4, 4))
    H = B @ B.T

    def learned(steps, **options):
        x = pytensor.shared(np.ones(4), name="x")
        weight = 1 - 1 / steps
        updates = optapi.sophia(
            [x], pt.dot(x, pt.dot(H, x)) / 2, step_size=0.0, every=1, curvature_weight=weight, **options
        )
        pytensor.function([], [], updates=optapi.loop(updates, steps), mode=PYTHON)()
        [h] = [v.get_value() for v in updates if "curvature" in v.name]
        return h / (1 - weight**steps)

    np.testing.assert_allclose(learned(3, curvature="diagonal"), np.diag(H), rtol=1e-12)
    spread = np.sqrt(2 * (np.sum(H**2, axis=1) - np.diag(H) ** 2) / 300)
    assert np.all(np.abs(learned(600) - np.diag(H)) < 4 * spread)


def test_bartlett_estimates():
    """In the mean over labels from the model, B g^2 is the diagonal of the Gauss-Newton matrix: X^2' p (1 - p)."""
    X = np.random.default_rng(2).normal(size=(6, 3))
    w, labels = pytensor.shared(np.array([0.5, -1.0, 0.2]), name="w"), pt.dvector("labels")
    z = pt.dot(X, w)

    def cost(y):
        return pt.mean(pt.log1p(pt.exp(z)) - y * z)

    options = {"curvature": "gauss_newton", "sampled_cost": cost(labels), "batch_size": 6, "every": 1}
    updates = optapi.sophia([w], cost(np.ones(6)), step_size=0.0, curvature_weight=0.0, **options)
    step, p = compiled(updates, [labels]), 1 / (1 + np.exp(-X @ w.get_value()))
    [h] = [v for v in updates if "curvature" in v.name]
    total = 0.0
    for case in np.ndindex(*[2] * 6):
        y = np.array(case)
        step(y.astype(float))
        total = total + np.prod(np.where(y, p, 1 - p)) * h.get_value()
    np.testing.assert_allclose(total, X.T**2 @ (p * (1 - p)) / 6, rtol=1e-12)


def test_kron_whitens():
    """With gradients B N C' and N white, the preconditioner becomes (B B')^(-1/2) times (C C')^(-1/2)."""
    rng = np.random.default_rng(0)
    B, C = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    W, G = pytensor.shared(np.zeros((3, 3)), name="W"), pt.dmatrix("G")
    noise = pt.dtensor3("noise")
    updates = optapi.kron([W], gradients=[G], step_size=0.0, factor_step_size=0.02)
    step = pytensor.function([noise], [], updates=optapi.loop(updates, feeds={G: noise}), mode=PYTHON)
    step(B @ rng.normal(size=(2500, 3, 3)) @ C.T)
    Q, R = (v.get_value() for v in updates if "factor" in v.name)

    def root(M):
        sizes, vectors = np.linalg.eigh(M)
        return vectors / np.sqrt(sizes) @ vectors.T

    wanted = np.kron(root(B @ B.T), root(C @ C.T))
    assert np.linalg.norm(np.kron(Q @ Q, R @ R) - wanted) < 0.15 * np.linalg.norm(wanted)


def test_sophia_takes_clipped_gradients_with_the_cost():
    ps = shared_at(SMALL.starts)
    clipped = gradients.clip_global_norm(pytensor.grad(SMALL.cost(ps), ps), 1e9)
    found = trajectory(ps, optapi.sophia(ps, SMALL.cost(ps), gradients=clipped, every=2, scale=1.0), 5)[-1]
    ps = shared_at(SMALL.starts)
    wanted = trajectory(ps, optapi.sophia(ps, SMALL.cost(ps), every=2, scale=1.0), 5)[-1]
    np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-12)
    with pytest.raises(ValueError, match=r"sophia differentiates the gradients once more.*pass cost="):
        optapi.sophia(ps, gradients=clipped)


def run(rule, steps=20, problem=SMALL, units=1.0, **options):
    """The point after some steps, as one vector."""
    ps = shared_at(problem.starts)
    step = compiled(rule(ps, units * problem.cost(ps), **options))
    for _ in range(steps):
        step()
    return flat(values(ps))


EQUAL = {
    "qhm without the mean is gradient descent": (partial(optapi.qhm, share=0.0), partial(optapi.sgd, step_size=0.01)),
    "qhadam of the moments alone is adam": (
        partial(optapi.qhadam, share=1.0, mean_weight=0.9),
        optapi.adam,
    ),
    "aggmo with one momentum is that": (
        partial(optapi.aggmo, momenta=(0.9,), step_size=0.01),
        partial(optapi.sgd, momentum=0.9, step_size=0.01),
    ),
    "lion with one weight is signum": (
        partial(optapi.lion, mean_weight=0.7, memory_weight=0.7, step_size=0.1),
        partial(optapi.signum, momentum=0.7, step_size=0.1),
    ),
    "ademamix without the slow mean is adamw": (
        partial(optapi.ademamix, slow_share=0.0, decay=0.1),
        partial(optapi.adamw, decay=0.1),
    ),
    "mars without strength is adamw": (
        partial(optapi.mars, strength=0.0, decay=0.1, step_size=0.1),
        partial(optapi.adamw, decay=0.1, mean_weight=0.95, mean_square_weight=0.99, step_size=0.1),
    ),
    "laprop without a mean is adam": (
        partial(optapi.laprop, mean_weight=0.0, epsilon=1e-8, step_size=0.1),
        partial(optapi.adam, mean_weight=0.0, step_size=0.1),
    ),
    "SAM of radius 0 is the rule": (
        lambda ps, cost: optapi.adam(ps, gradients=gradients.sharpness_aware(cost, ps, 0.0)),
        optapi.adam,
    ),
    "schedule_free without interpolation is the rule": (
        lambda ps, cost: optapi.schedule_free(optapi.sgd(ps, cost), ps, step_size=0.01, interpolation=0.0),
        optapi.sgd,
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal(name):
    one, other = EQUAL[name]
    # Small gradients, since MARS clips those of norms above 1.
    np.testing.assert_allclose(run(one, units=0.1), run(other, units=0.1), rtol=1e-11)


FIRST = {
    "lion": ({}, lambda x, g: np.sign(g)),
    "signum": ({}, lambda x, g: np.sign(g)),
    "adan": ({"epsilon": 0.0}, lambda x, g: np.sign(g)),
    "laprop": ({}, lambda x, g: np.sign(g)),
    "mars": ({"epsilon": 0.0}, lambda x, g: np.sign(g)),
    "adabelief": ({}, lambda x, g: np.sign(g) / 0.9),
    "ademamix": ({"epsilon": 0.0}, lambda x, g: 1.0005 * np.sign(g)),
    "adopt": ({}, lambda x, g: 0 * x),
    "soap": ({"decay": 0.0}, lambda x, g: 0 * x),
    "sophia": ({"decay": 0.0}, lambda x, g: np.sign(g)),
    "lamb": ({"epsilon": 0.0}, lambda x, g: np.sign(g) * np.linalg.norm(x) / np.sqrt(x.size)),
    "lars": ({"trust": 0.5}, lambda x, g: 0.5 * np.linalg.norm(x) * g / np.linalg.norm(g)),
    "novograd": ({"epsilon": 0.0}, lambda x, g: g / np.linalg.norm(g)),
    "muon": (
        {"coefficients": "svd", "scale": None, "decay": 0.0, "others": optapi.signum},
        lambda x, g: reference.polar(g) if x.ndim == 2 else np.sign(g),
    ),
}


@pytest.mark.parametrize("rule", FIRST)
def test_first_step(rule):
    options, wanted = FIRST[rule]
    first = flat([p - 0.01 * wanted(p, g) for p, g in zip(SMALL.starts, SMALL.gradient(SMALL.starts), strict=True)])
    np.testing.assert_allclose(run(getattr(optapi, rule), 1, step_size=0.01, **options), first, rtol=1e-9)


def test_first_steps_without_a_step_size():
    start, g = flat(SMALL.starts), flat(SMALL.gradient(SMALL.starts))
    moved = run(optapi.prodigy, 1, epsilon=0.0) - start
    np.testing.assert_allclose(moved, -1e-6 * 0.1 / np.sqrt(0.001) * np.sign(g), rtol=1e-6)
    moved = run(optapi.dog, 1, epsilon=0.0) - start
    np.testing.assert_allclose(np.linalg.norm(moved), 1e-6 * (1 + np.linalg.norm(start)), rtol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        partial(optapi.lion, step_size=0.1),
        partial(optapi.lamb, epsilon=0.0),
        partial(optapi.adan, epsilon=0.0),
        partial(optapi.ademamix, epsilon=0.0),
        partial(optapi.adopt, epsilon=0.0),
        partial(optapi.laprop, epsilon=0.0),
        partial(optapi.adabelief, epsilon=0.0, inner_epsilon=0.0),
        partial(optapi.novograd, epsilon=0.0),
        partial(optapi.prodigy, epsilon=0.0),
        partial(optapi.dog, epsilon=0.0),
        partial(optapi.muon, epsilon=0.0, others=partial(optapi.adam, epsilon=0.0)),
        optapi.adafactor,
        optapi.came,
        optapi.sm3,
        optapi.kron,
        partial(optapi.normuon, epsilon=0.0, others=partial(optapi.adam, epsilon=0.0)),
        partial(optapi.sophia, epsilon=0.0, every=2),
        partial(optapi.adahessian, epsilon=0.0),
        partial(optapi.d_adaptation, epsilon=0.0),
    ],
    ids=lambda rule: getattr(rule, "func", rule).__name__,
)
def test_units_of_the_cost_do_not_count(rule):
    np.testing.assert_allclose(run(rule), run(rule, units=2.0**10), rtol=1e-11)


class Matrix:
    """A cost of one matrix, which may be rotated: the W of `Small` is ``P' W Q``."""

    def __init__(self, rows, columns, P=None, Q=None):
        rng = np.random.default_rng(5)
        self.X, self.Y, start = (
            rng.normal(size=(9, rows)),
            rng.normal(size=(9, columns)),
            rng.normal(size=(rows, columns)),
        )
        self.P, self.Q = np.eye(rows) if P is None else P, np.eye(columns) if Q is None else Q
        self.starts = [self.P @ start @ self.Q]

    def cost(self, parameters):
        W = pt.dot(pt.dot(self.P.T, parameters[0]), self.Q.T)
        return pt.mean(pt.sqrt(1 + (pt.dot(self.X, W) - self.Y) ** 2))


@pytest.mark.parametrize("rule", [optapi.muon, optapi.shampoo, optapi.soap], ids=lambda rule: rule.__name__)
def test_rotations_of_matrices_do_not_count(rule):
    rng = np.random.default_rng(6)
    P, Q = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    # A graft looks at components.
    options = {"graft": None, "epsilon": 1e-6, "every": 2} if rule is optapi.shampoo else {}
    straight, turned = (
        run(rule, 12, problem, step_size=0.05, **options).reshape(3, 3)
        for problem in (Matrix(3, 3), Matrix(3, 3, P, Q))
    )
    np.testing.assert_allclose(turned, P @ straight @ Q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coefficients", ["jordan", "polar_express", "svd"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 4)], ids=str)
def test_orthogonal_steps(coefficients, shape):
    W = pytensor.shared(np.zeros(shape), name="W")
    g = np.random.default_rng(7).normal(size=shape)
    options = {"coefficients": coefficients, "scale": None, "decay": 0.0, "step_size": 1.0}
    compiled(optapi.muon([W], gradients=[pt.constant(g)], **options))()
    step = -W.get_value().reshape(-1, shape[-1])
    sizes = np.linalg.svd(step, compute_uv=False)
    low, high = {"jordan": (0.68, 1.16), "polar_express": (0.85, 1.15), "svd": (1 - 1e-12, 1 + 1e-12)}[coefficients]
    assert low <= sizes.min() and sizes.max() <= high
    # The same singular vectors: the product with the polar factor is symmetric.
    product = reference.polar(g.reshape(step.shape)).T @ step
    np.testing.assert_allclose(product, product.T, atol=1e-10)


@pytest.mark.parametrize("rule", [partial(optapi.muon, scale="shape"), optapi.normuon], ids=["muon", "normuon"])
def test_outputs_in_rows_is_the_transposed_run(rule):
    W = shared_at([np.arange(6.0).reshape(2, 3) - 2])
    V = shared_at([np.arange(6.0).reshape(2, 3).T - 2])
    for p, outputs in ((W, "columns"), (V, "rows")):
        g = pt.sin(p[0] if outputs == "columns" else p[0].T)
        step = compiled(rule(p, gradients=[g if outputs == "columns" else g.T], outputs=outputs))
        for _ in range(5):
            step()
    np.testing.assert_allclose(W[0].get_value(), V[0].get_value().T, rtol=1e-12)


ALL = [
    *(optapi.lion, optapi.signum, optapi.adabelief, optapi.adan, optapi.ademamix, optapi.adopt, optapi.mars),
    *(optapi.qhm, optapi.qhadam, optapi.aggmo, optapi.madgrad, optapi.momo, optapi.d_adaptation, optapi.came),
    *(
        optapi.sm3,
        optapi.scion,
        optapi.yogi,
        optapi.laprop,
        optapi.lamb,
        optapi.lars,
        optapi.novograd,
        optapi.prodigy,
        optapi.dog,
    ),
    *(optapi.polyak_sgd, optapi.adafactor, optapi.muon, optapi.shampoo, optapi.soap),
    *(optapi.sophia, optapi.adahessian, optapi.normuon, optapi.kron),
    partial(optapi.muon, coefficients="svd"),
]


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: getattr(rule, "__name__", "muon, exact"))
def test_gradients_of_zero_and_what_is_not_finite(rule):
    """Zeros leave all finite, in any shape; infinity and NaN reach the parameters, and nothing raises."""
    ps = shared_at([np.ones((2, 3)), np.ones(2), np.array(1.0)], "float32")
    scale = pytensor.shared(np.float32(0))
    updates = rule(ps, sum(scale * pt.sum(p) for p in ps))
    step = compiled(updates)
    for _ in range(3):
        step()
        assert all(np.all(np.isfinite(v)) for v in values(updates))
    for value in (np.inf, np.nan):
        scale.set_value(np.float32(value))
        with np.errstate(all="ignore"):
            for _ in range(12):
                step()
    assert not any(np.any(np.isfinite(p)) for p in values(ps))


def test_memory_of_adafactor_is_that_of_rows_and_columns():
    W, V = shared_at([np.ones((30, 20)), np.ones((30, 20))])
    sizes = {v.name: v.get_value().size for v in optapi.adafactor([W, V], pt.sum(W**2) + pt.sum(V**2)) if "/" in v.name}
    assert sum(sizes.values()) == 2 * (30 + 20) + 1
    unfactored = optapi.adafactor([W], pt.sum(W**2), factor_from=25)
    assert sum(v.get_value().size for v in unfactored if "/" in v.name) == 600 + 1


# Decay and masks


DECAYING = [
    *(optapi.sgd, optapi.momentum, optapi.nesterov, optapi.rmsprop, optapi.nadam, optapi.radam, optapi.adamax),
    *(optapi.lion, optapi.muon, optapi.normuon, optapi.kron, optapi.sophia, optapi.adahessian, optapi.soap),
]


@pytest.mark.parametrize("rule", DECAYING, ids=lambda rule: rule.__name__)
def test_a_mask_and_a_schedule_of_decay(rule):
    ps = shared_at([np.ones((2, 2)), np.ones(2)])
    zero = [0 * p for p in ps]
    options = {"decay": lambda count: 0.5 / (count + 1), "mask": lambda p: p.ndim > 1, "step_size": 0.1}
    options |= {"others": partial(optapi.adamw, decay=0.0)} if rule in (optapi.muon, optapi.normuon) else {}
    points = trajectory(ps, rule(ps, gradients=zero, **options), 3)
    first = 1 if rule is optapi.soap else 0  # whose first call moves nothing
    kept = np.prod([1 - 0.1 * 0.5 / (count + 1) for count in range(first, 3)])
    np.testing.assert_allclose(points[-1][0], kept * np.ones((2, 2)), rtol=1e-12)
    np.testing.assert_array_equal(points[-1][1], np.ones(2))


@pytest.mark.parametrize("rule", [optapi.sgd, optapi.momentum, optapi.nesterov, optapi.rmsprop])
def test_decay_of_first_order_rules(rule):
    """It is apart from the gradient, the momentum and its own step size: x - a lambda x less at each update."""
    options = {"momentum": 0.6} if rule in (optapi.sgd, optapi.rmsprop) else {}
    twin, points, held = getattr(first_order, rule.__name__), [], SMALL.starts
    ps = shared_at(SMALL.starts)
    found = trajectory(ps, rule(ps, SMALL.cost(ps), step_size=0.1, decay=0.2, **options), 10)
    # The twin with gradients at the points with decay, and its own point moved along.
    shift = [np.zeros_like(p) for p in held]

    def gradient(x):
        nonlocal shift, held
        now = [p + s for p, s in zip(x, shift, strict=True)]
        points.append(now)
        held, shift = now, [s - 0.1 * 0.2 * p for s, p in zip(shift, now, strict=True)]
        return SMALL.gradient(now)

    twin(SMALL.starts, gradient, 11, step_size=0.1, **options)
    for point, other in zip(found, points[1:], strict=True):
        np.testing.assert_allclose(flat(point), flat(other), rtol=1e-12, atol=1e-12)


# Bad input


def test_bad_input():
    W, b = shared_at([np.ones((2, 2)), np.ones(2)])
    ps, cost = [W, b], pt.sum(W**2) + pt.sum(b**2)
    with pytest.raises(ValueError, match="muon is for matrices, and the parameter 'p1' is none; pass others="):
        optapi.muon(ps, cost, others=None)
    with pytest.raises(ValueError, match="gives some parameters to a rule that evaluates the cost at other points"):
        optapi.muon(ps, cost, others=optapi.lbfgs)
    with pytest.raises(ValueError, match="matrices has 1 entries for 2 parameters"):
        optapi.muon(ps, cost, matrices=[True])
    with pytest.raises(ValueError, match=r"decay is -0.1; pass a number of at least 0|decay is -0.1"):
        optapi.lion(ps, cost, decay=-0.1)
    with pytest.raises(ValueError, match="polyak_sgd reads the value of the cost; pass cost="):
        optapi.polyak_sgd(ps, gradients=[W, b])
    with pytest.raises(ValueError, match="gradients do not depend on the parameters"):
        optapi.mars(ps, gradients=[pt.ones((2, 2)), pt.ones(2)], second_gradient=True)
    with pytest.raises(ValueError, match="gradients do not depend on the parameters"):
        gradients.sharpness_aware(cost, ps, gradients=[pt.ones((2, 2)), pt.ones(2)])
    with pytest.raises(ValueError, match='go with curvature="gauss_newton"'):
        optapi.sophia(ps, cost, batch_size=3)
    with pytest.raises(ValueError, match="normuon is for matrices, and the parameter 'p1' is none"):
        optapi.normuon(ps, cost, others=None)
    with pytest.raises(ValueError, match="seed is 4294967296"):
        optapi.adahessian(ps, cost, seed=2**32)
    with pytest.raises(ValueError, match="full_gradients do not depend on the parameters"):
        optapi.svrg(pytensor.grad(cost, ps), [pt.ones((2, 2)), pt.ones(2)], ps, 3, {})
    with pytest.raises(ValueError, match="pass those of a first-order rule"):
        optapi.mechanic(optapi.lbfgs(ps, cost, stop=pytensor.shared(0)), {W: W})
    with pytest.raises(TypeError, match=r"betas is 0\.9; pass a list"):
        optapi.mechanic(optapi.sgd(ps, cost), {W: W, b: b}, betas=0.9)
    with pytest.raises(TypeError, match="averages holds a ndarray"):
        optapi.lawa(optapi.sgd(ps, cost), {W: np.ones(3)})
    with pytest.raises(TypeError, match="averages has no shared variable for 'p1'"):
        averages = {W: pytensor.shared(np.ones((2, 2)))}
        optapi.schedule_free(optapi.sgd(ps, cost), ps, step_size=0.1, averages=averages)
    with pytest.raises(ValueError, match="pass those of a first-order rule"):
        optapi.cautious(optapi.lbfgs(ps, cost, stop=pytensor.shared(0)), {W: W})


# Backends

KINDS = {
    "kron": {},
    "normuon": {},
    "sophia": {"every": 3},
    "muon": {},
    "soap": {"every": 3},
    "shampoo": {"every": 3},
    "adafactor": {},
    "prodigy": {"initial": 1e-2},
}


SIZES = pytest.mark.xfail(not REWRITES_INNER_GRAPHS, reason="PyTensor 3.0 cannot give JAX the size of any array")


@pytest.mark.filterwarnings("default")  # numba warns of products of arrays that are not contiguous
@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        pytest.param("NUMBA", "muon", marks=pytest.mark.numba),
        *(
            pytest.param("JAX", rule, marks=[pytest.mark.jax, *([SIZES] if rule == "adafactor" else [])])
            for rule in KINDS
        ),
    ],
)
def test_backends(mode, rule):
    """Loops and decompositions do under numba and JAX as under Python."""
    found = []
    for each in (PYTHON, mode):
        ps = shared_at(SMALL.starts)
        updates = optapi.loop(getattr(optapi, rule)(ps, SMALL.cost(ps), step_size=0.1, **KINDS[rule]), 8)
        pytensor.function([], [], updates=updates, mode=each)()
        found.append(flat(values(ps)))
    np.testing.assert_allclose(*found, rtol=1e-7)


def test_the_step_of_momo_with_decay_lands_on_the_zero_of_the_model():
    start, decay = np.array([2.0, -1.0]), 0.3
    x = pytensor.shared(start.copy(), name="x")
    step = pytensor.function([], updates=optapi.momo([x], 0.2 * pt.sum(x**2), step_size=2.0, decay=decay), mode=PYTHON)
    step()
    slope = 0.4 * start
    np.testing.assert_allclose(0.2 * start @ start + slope @ (x.get_value() - start), 0.0, atol=1e-12)


def test_shampoo_takes_empty_parameters():
    x = pytensor.shared(np.ones((0, 3)), name="x")
    step = pytensor.function([], updates=optapi.shampoo([x], pt.sum(x**2), every=1), mode=PYTHON)
    step()
    assert x.get_value().shape == (0, 3)
