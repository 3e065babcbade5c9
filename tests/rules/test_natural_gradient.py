"""TONGA: trajectories against a twin with dense covariances, and the identities that it rests on."""

import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from reference import stochastic_quasi_newton as reference
from test_stochastic_quasi_newton import BATCHES, STEPS, assert_close, compiled, gradients_of, run, shared_at

import optapi
from optapi import PYTHON


each_problem = pytest.mark.parametrize("problem", [problems.quadratic(), problems.logistic(), BATCHES], ids=str)

CASES = {
    "default": {"step_size": 0.01},
    "truncated": {"step_size": 0.02, "rank": 2, "every": 4, "forgetting": 0.9},
    "each_call": {"step_size": 0.02, "rank": 3, "every": 1, "forgetting": 0.9},
    "normalized": {"step_size": 0.05, "rank": 3, "every": 7, "normalize": True, "forgetting": 0.8},
    "no_forgetting": {"step_size": 0.005, "rank": 2, "every": 9, "normalize": True, "forgetting": 1.0},
    "no_memory": {"step_size": 0.05, "rank": 1, "every": 2, "forgetting": 0.0},
    "parameters": {"step_size": 0.02, "rank": 2, "every": 5, "block": "parameter", "regularization": 0.3},
    "rows": {"step_size": 0.02, "rank": 1, "every": 3, "block": "row", "regularization": 2.0},
}


@pytest.mark.parametrize("case", CASES)
@each_problem
def test_tonga(problem, case):
    """The twin has the covariance itself, as a matrix of all components, and truncates that."""
    options = CASES[case]
    wanted = reference.tonga(problem.starts, gradients_of(problem), STEPS, **options)
    assert_close(run(optapi.tonga, problem, **options), wanted)


class Layers:
    """A matrix, a vector, an array of three dimensions and a scalar, given gradients that are drawn beforehand."""

    def __init__(self, examples=6, steps=STEPS):
        rng = np.random.default_rng(5)
        self.starts = [rng.normal(size=shape) for shape in [(3, 4), (5,), (2, 3, 2), ()]]
        self.examples = [[rng.normal(size=(examples, *p.shape)) for p in self.starts] for _ in range(steps)]
        self.inputs = [pt.tensor(shape=(None, *p.shape), dtype="float64") for p in self.starts]

    def gradients(self, x, t):
        return [g.mean(axis=0) + 0.1 * p for g, p in zip(self.examples[t], x, strict=True)]

    def run(self, each, **options):
        """The points, with the gradients of single examples if `each`; those of the cost have a penalty as well."""
        parameters = shared_at(self.starts)
        gradients = [g.mean(axis=0) + 0.1 * p for g, p in zip(self.inputs, parameters, strict=True)]
        if each:
            options["per_example"] = self.inputs
        step, points = compiled(optapi.tonga(parameters, gradients=gradients, **options), self.inputs), []
        for drawn in self.examples:
            step(*drawn)
            points.append([p.get_value() for p in parameters])
        return points


LAYERS = Layers()


@pytest.mark.parametrize("each", [False, True], ids=["means", "examples"])
@pytest.mark.parametrize("block", ["all", "parameter", "row"])
def test_blocks(block, each):
    options = {"step_size": 0.1, "rank": 3, "every": 4, "block": block, "forgetting": 0.9, "normalize": each}
    examples = (lambda x, t: LAYERS.examples[t]) if each else None
    wanted = reference.tonga(LAYERS.starts, LAYERS.gradients, STEPS, examples=examples, **options)
    assert_close(LAYERS.run(each, **options), wanted)
    if block == "all":
        assert not np.allclose(wanted[-1][0], LAYERS.run(each, **{**options, "block": "row"})[-1][0], rtol=1e-3)


def test_one_example_is_the_gradient_itself():
    """With one example and a decomposition at each call, both forms are the same rule."""
    layers = Layers(examples=1, steps=12)
    layers.gradients = lambda x, t: [g[0] for g in layers.examples[t]]
    options = {"step_size": 0.1, "rank": 2, "every": 1}
    parameters = shared_at(layers.starts)
    means = [g.mean(axis=0) for g in layers.inputs]
    runs = []
    for each in ({}, {"per_example": layers.inputs}):
        parameters = shared_at(layers.starts)
        step, points = compiled(optapi.tonga(parameters, gradients=means, **options, **each), layers.inputs), []
        for drawn in layers.examples:
            step(*drawn)
            points.append([p.get_value() for p in parameters])
        runs.append(points)
    assert_close(*runs)


def directions(gradients, **options):
    """The directions that given gradients make, and the updates."""
    p, g = pytensor.shared(np.zeros(gradients.shape[1]), name="p"), pt.dvector()
    updates = optapi.tonga(p, gradients=[g], step_size=1.0, **options)
    step, found = compiled(updates, [g]), []
    for gradient in gradients:
        p.set_value(np.zeros(gradients.shape[1]))
        step(gradient)
        found.append(-p.get_value())
    return np.array(found), updates


def covariance_of(updates):
    """The covariance that the state stands for, and the Gram matrix of the state."""
    X, G = (next(v for v in updates if v.name == f"tonga/{role}").get_value()[0] for role in ("vectors", "gram"))
    return X.T @ X, X @ X.T, G


@pytest.mark.parametrize("ridge", [0.1, 1.0, 1e3])
def test_it_is_the_dense_natural_gradient_while_nothing_is_truncated(ridge):
    rng, n, gamma = np.random.default_rng(1), 12, 0.95
    gradients = rng.normal(size=(30, n)) * np.geomspace(0.1, 3, n)
    found, updates = directions(gradients, rank=2, every=40, forgetting=gamma, regularization=ridge)
    C = np.zeros((n, n))
    for g, v in zip(gradients, found, strict=True):
        C = gamma * C + np.outer(g, g)
        wanted = np.linalg.solve(C + ridge * np.eye(n), g)
        np.testing.assert_allclose(v, wanted, rtol=0, atol=1e-12 * np.max(np.abs(wanted)))
    kept, gram, carried = covariance_of(updates)
    np.testing.assert_allclose(kept, C, rtol=0, atol=1e-12 * np.max(np.abs(C)))
    np.testing.assert_allclose(carried, gram, rtol=0, atol=1e-12 * np.max(np.abs(gram)))


def test_a_full_rank_never_truncates():
    rng, n, gamma = np.random.default_rng(2), 5, 0.9
    gradients = rng.normal(size=(40, n))
    found, _ = directions(gradients, rank=n, every=3, forgetting=gamma)
    C = np.zeros((n, n))
    for g, v in zip(gradients, found, strict=True):
        C = gamma * C + np.outer(g, g)
        np.testing.assert_allclose(v, np.linalg.solve(C + np.eye(n), g), rtol=1e-11, atol=1e-13)


def test_a_truncation_keeps_the_largest_eigenvalues():
    rng, n, rank, every = np.random.default_rng(3), 10, 3, 7
    gradients = rng.normal(size=(every, n))
    _, updates = directions(gradients, rank=rank, every=every, forgetting=0.9)
    C = sum(0.9 ** (every - 1 - t) * np.outer(g, g) for t, g in enumerate(gradients))
    values, vectors = np.linalg.eigh(C)
    kept, gram, carried = covariance_of(updates)
    wanted = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    np.testing.assert_allclose(kept, wanted, rtol=0, atol=1e-12 * values[-1])
    np.testing.assert_allclose(np.diag(carried)[:rank], values[-rank:], rtol=1e-12)
    np.testing.assert_allclose(carried, gram, rtol=0, atol=1e-12 * values[-1])


def test_the_first_step():
    g, ridge = np.array([3.0, -4.0]), 0.5
    [found], _ = directions(g[None], regularization=ridge)
    np.testing.assert_allclose(found, g / (ridge + 25), rtol=1e-14)
    sizes = [np.linalg.norm(directions(s * g[None], regularization=ridge)[0]) for s in (0.01, np.sqrt(0.5) / 5, 10.0)]
    np.testing.assert_allclose(sizes[1], 1 / (2 * np.sqrt(ridge)), rtol=1e-14)
    assert max(sizes) == sizes[1]


def test_far_regularized_it_is_gradient_descent():
    gradients = np.random.default_rng(4).normal(size=(20, 3))
    found, _ = directions(gradients, regularization=1e15, rank=2, every=5)
    np.testing.assert_allclose(found * 1e15, gradients, rtol=0, atol=1e-13)


def test_it_does_not_depend_on_the_basis():
    rng = np.random.default_rng(6)
    gradients, Q = rng.normal(size=(25, 6)), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    options = {"rank": 2, "every": 4, "forgetting": 0.9}
    found, turned = (directions(g, **options)[0] for g in (gradients, gradients @ Q))
    np.testing.assert_allclose(turned, found @ Q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zero_and_huge_gradients(dtype):
    """A zero gradient moves nothing; one beside which the regularization is lost in round-off still descends."""
    p, g = pytensor.shared(np.zeros(3, dtype), name="p"), pt.vector(dtype=dtype)
    step = compiled(optapi.tonga(p, gradients=[g], rank=2, every=2, step_size=1.0, regularization=1e-30), [g])
    for gradient in ([0, 0, 0], [1e8, -1e8, 0], [0, 0, 0], [1e8, -1e8, 1e8], [1e8, 1e8, 1e8]):
        before, gradient = p.get_value(), np.array(gradient, dtype)
        step(gradient)
        change = p.get_value() - before
        assert np.all(np.isfinite(change))
        assert gradient @ change < 0 or not np.any(gradient)
        assert np.any(change) or not np.any(gradient)


def test_a_gradient_that_is_not_finite_raises_nothing():
    p, g = pytensor.shared(np.zeros(3), name="p"), pt.dvector()
    for every in (1, 3):
        updates = optapi.skip_nonfinite(optapi.tonga(p, gradients=[g], rank=2, every=every, name=f"tonga{every}"))
        step = compiled(updates, [g])
        step(np.ones(3))
        before = [v.get_value() for v in updates][:-1]
        for bad in (np.nan, np.inf, 1e200):
            with np.errstate(all="ignore"):
                step(np.array([1.0, bad, 1.0]))
        [skipped] = optapi.reports(updates)["skipped"]
        assert skipped.get_value() == 3
        assert all(np.array_equal(x, y.get_value()) for x, y in zip(before, updates, strict=False))
        step(np.ones(3))
        assert np.all(np.isfinite(p.get_value()))


REFUSED = {
    "rank": ({"rank": 0}, ValueError, "rank is 0"),
    "every": ({"every": 2.0}, TypeError, "every is a float"),
    "block": ({"block": "column"}, ValueError, "block is 'column'"),
    "forgetting": ({"forgetting": 1.5}, ValueError, "forgetting is 1.5"),
    "regularization": ({"regularization": 0.0}, ValueError, "regularization is 0"),
    "number of examples": ({"per_example": []}, ValueError, "per_example has 0 entries"),
    "examples without their axis": ({"per_example": [pt.dvector()]}, ValueError, "'p' in per_example has 1 dimensions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    options, error, message = REFUSED[case]
    p, updates = pytensor.shared(np.ones(3), name="p"), {}
    with pytest.raises(error, match=message):
        optapi.tonga(p, pt.sum(p**2), updates=updates, **options)
    assert not updates


def test_per_example_gradients_of_a_cost():
    """As a user writes them: the gradients of each example of a logistic regression, by vectorization."""
    parameters, (X, y) = shared_at(BATCHES.starts), BATCHES.inputs
    w, b = parameters
    slope = -y * pt.sigmoid(-y * (pt.dot(X, w) + b))
    updates = optapi.tonga(
        parameters, BATCHES.cost(parameters), per_example=[slope[:, None] * X, slope], rank=3, step_size=0.1
    )
    step, points = compiled(updates, BATCHES.inputs), []
    for t in range(STEPS):
        step(*BATCHES.batch(t))
        points.append([p.get_value() for p in parameters])

    def examples(x, t):
        (w, b), (X, y) = x, BATCHES.batch(t)
        slope = -y / (1 + np.exp(y * (X @ w + b)))
        return [slope[:, None] * X, slope]

    wanted = reference.tonga(BATCHES.starts, BATCHES.gradients, STEPS, examples=examples, rank=3, step_size=0.1)
    assert_close(points, wanted)


def test_static_shapes_are_known():
    p = pytensor.shared(np.ones((2, 3)), name="p")
    updates = optapi.tonga(p, pt.sum(p**4), rank=2, every=3)
    shapes = {v.name: v.type.shape for v in updates}
    assert shapes["tonga/vectors"] == (1, 5, 6)
    assert shapes["tonga/gram"] == (1, 5, 5)
    assert all(None not in value.type.shape for v, value in updates.items() if v is not p)
    pytensor.function([], [], updates=updates, mode=PYTHON)()
