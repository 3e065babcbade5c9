"""Rules on manifolds: each step, minima that are known, starts, drivers, files, backends."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import conjugate_gradient as formulas
from reference import manifolds as reference
from registry import Everywhere
from test_l1 import Run

import optapi
from optapi import PYTHON
from optapi.manifolds import Sphere, Stiefel


RULES = [
    *(optapi.lbfgs, optapi.barzilai_borwein, optapi.conjugate_gradient, optapi.fletcher_reeves, optapi.polak_ribiere),
    *(optapi.hestenes_stiefel, optapi.dai_yuan, optapi.hager_zhang_cg),
]


def symmetric(size=12, seed=0):
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root + root.T


def start(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def rayleigh(A):
    """The cost, and its value and gradient on arrays."""
    return lambda x: pt.sum(x * pt.dot(A, x)), lambda x: (x @ A @ x, 2 * A @ x)


def brockett(A, weights):
    return lambda X: pt.sum(X * pt.dot(A, X) * weights)


def off(X):
    """How far a matrix is from having orthonormal columns."""
    return abs(X.T @ X - np.eye(X.shape[1])).max()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_lowest_eigenvector(rule):
    A = symmetric(30)
    values, vectors = np.linalg.eigh(A)
    run = Run(start(30), rayleigh(A)[0], rule, manifold=Sphere(), tolerance=1e-7)
    for x in run:
        assert abs(x @ x - 1) < 1e-15 * 8
    assert run.reason == 0
    np.testing.assert_allclose(run.cost, values[0], rtol=1e-13)
    np.testing.assert_allclose(abs(x @ vectors[:, 0]), 1, rtol=1e-13)
    g = 2 * A @ x
    np.testing.assert_allclose(run.gradient_size, abs(g - (x @ g) * x).max(), atol=1e-13)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_lowest_eigenvectors_in_their_order(rule):
    A, weights = symmetric(), np.array([3.0, 2.0, 1.0])
    values, vectors = np.linalg.eigh(A)
    run = Run(start(12, 3), brockett(A, weights), rule, manifold=Stiefel(), tolerance=1e-6)
    for X in run:
        assert off(X) < 2e-15
    assert run.reason == 0
    np.testing.assert_allclose(run.cost, values[:3] @ weights, rtol=1e-12)
    np.testing.assert_allclose(abs(np.sum(X * vectors[:, :3], axis=0)), 1, rtol=1e-10)


def test_the_space_of_the_highest_eigenvalues():
    A = symmetric()
    values, vectors = np.linalg.eigh(A)
    run = Run(start(12, 4), brockett(A, 1.0), manifold=Stiefel(), tolerance=1e-7, ascent=True)()
    np.testing.assert_allclose(run.cost, np.sum(values[-4:]), rtol=1e-13)
    np.testing.assert_allclose(run.x @ run.x.T, vectors[:, -4:] @ vectors[:, -4:].T, atol=1e-7)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_rotation_that_fits_best(sign):
    """Procrustes with a given determinant, by the formula of Kabsch."""
    A, B = start(9, 4), start(9, 4, seed=2)
    left, _, right = np.linalg.svd(A.T @ B)
    best = left @ np.diag([1, 1, 1, sign * np.linalg.det(left @ right)]) @ right
    first = np.diag([1.0, 1, 1, sign])
    run = Run(first, lambda X: pt.sum((pt.dot(A, X) - B) ** 2), manifold=Stiefel(), tolerance=1e-8)()
    np.testing.assert_allclose(run.x, best, atol=1e-8)


def test_some_parameters_on_manifolds_and_others_free():
    A = symmetric(8)
    x, X, c = (pytensor.shared(v, name=n) for n, v in [("x", start(8)), ("X", start(8, 2)), ("c", np.zeros(2))])
    stop = pytensor.shared(0, name="stop")
    cost = rayleigh(A)[0](x) + brockett(A, np.array([2.0, 1.0]))(X) + pt.sum((c - [1.0, 2.0]) ** 2)
    manifold = {x: Sphere(), "X": Stiefel()}
    for rule in (optapi.lbfgs, optapi.hager_zhang_cg):
        for variable, value in ((x, start(8)), (X, start(8, 2)), (c, np.zeros(2)), (stop, 0)):
            variable.set_value(value)
        updates = rule([x, X, c], cost, stop=stop, manifold=manifold, tolerance=1e-8)
        step = pytensor.function([], [], updates=updates, mode=PYTHON)
        while not stop.get_value():
            step()
        values = np.linalg.eigvalsh(A)
        np.testing.assert_allclose(cost.eval(mode=PYTHON), 3 * values[0] + values[1], rtol=1e-13)
        np.testing.assert_allclose(c.get_value(), [1, 2], atol=1e-7)


def test_each_step_of_conjugate_gradients():
    cost, cost_and_gradient = rayleigh(symmetric(8))
    for rule, beta in ((optapi.polak_ribiere, "polak_ribiere"), (optapi.fletcher_reeves, "fletcher_reeves"),
                       (optapi.dai_yuan, "dai_yuan")):  # fmt: skip
        run = Run(start(8), cost, rule, manifold=Sphere(), tolerance=1e-6)
        x = start(8) / np.linalg.norm(start(8))
        points = list(run)[:12]
        expected = reference.conjugate_gradient(cost_and_gradient, x, 12, getattr(formulas, beta))
        np.testing.assert_allclose(points, expected, atol=1e-9)


@pytest.mark.parametrize("memory", [2, 10])
def test_each_step_of_lbfgs(memory):
    cost, cost_and_gradient = rayleigh(symmetric(8))
    run = Run(start(8), cost, manifold=Sphere(), memory=memory, tolerance=1e-6)
    points = list(run)[:12]
    x = start(8) / np.linalg.norm(start(8))
    np.testing.assert_allclose(points, reference.lbfgs(cost_and_gradient, x, 12, memory), atol=1e-9)


def test_the_pairs_are_in_the_present_tangent_space():
    run = Run(start(8), rayleigh(symmetric(8))[0], manifold=Sphere(), tolerance=1e-6)
    for x in run:
        [vectors] = [v.get_value() for v in run.updates if v.name == "lbfgs/vectors"]
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.all(abs(vectors @ x) <= 1e-11 * lengths)
    assert np.all(lengths > 0)
    H = optapi.inverse_hessian(run.updates) @ np.eye(8)
    assert np.all(np.linalg.eigvalsh((H + H.T) / 2) > 0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_where_all_is_tangent_steps_are_those_without_a_manifold(rule):
    def rosenbrock(x):
        return pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    free, on = (Run(np.linspace(-1, 1, 5), rosenbrock, rule, **options) for options in ({}, {"manifold": Everywhere()}))
    for count, (x, y) in enumerate(zip(free, on, strict=False)):
        np.testing.assert_allclose(x, y, rtol=1e-6)
        if count == 15:
            break
    np.testing.assert_allclose(free().x, on().x, atol=1e-4)


def test_a_start_off_the_manifold_is_projected():
    A = np.diag([1.0, 2.0, 3.0])
    # It is stationary there, and does not stay where it was.
    run = Run([4.0, 0, 0], rayleigh(A)[0], manifold=Sphere())()
    np.testing.assert_array_equal(run.x, [1, 0, 0])
    assert run.reason == 0
    run = Run(2 * np.eye(3)[:, :2], brockett(A, np.array([2.0, 1.0])), manifold=Stiefel())()
    np.testing.assert_array_equal(run.x, np.eye(3)[:, :2])


def test_a_start_at_the_minimizer_stays_bit_for_bit():
    x = np.linalg.eigh(symmetric())[1][:, 0]
    run = Run(x, rayleigh(symmetric())[0], manifold=Sphere(), tolerance=1e-10)
    run.step()
    assert run.stop.get_value() == 1
    np.testing.assert_array_equal(run.x, x)


def test_a_start_that_is_not_finite():
    run = Run(np.array([1.0, np.nan, 0]), rayleigh(np.eye(3))[0], manifold=Sphere())()
    assert run.reason == 3


def test_gradient_descent_of_one_step():
    """A fixed step size and no search: the retraction of minus the gradient."""
    A, x = symmetric(5), start(5) / np.linalg.norm(start(5))
    fixed = optapi.line_search.fixed
    run = Run(x, rayleigh(A)[0], optapi.barzilai_borwein, manifold=Sphere(), step_size=0.01, line_search=fixed)
    run.step()
    expected = x - 0.01 * reference.tangent(x, 2 * A @ x)
    np.testing.assert_allclose(run.x, expected / np.linalg.norm(expected), rtol=1e-14)


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.polak_ribiere])
def test_float32(rule):
    A = symmetric().astype("float32")
    values = np.linalg.eigvalsh(A.astype(float))
    weights = np.array([2.0, 1.0], "float32")
    run = Run(start(12, 2), brockett(A, weights), rule, dtype="float32", manifold=Stiefel(), tolerance=1e-3)
    for X in run:
        assert off(X) < 2e-6
    assert X.dtype == "float32"
    assert run.reason == 0
    np.testing.assert_allclose(run.cost, 2 * values[0] + values[1], rtol=1e-6)


@pytest.mark.parametrize("manifold", [Sphere(), Stiefel()])
def test_many_starts(manifold):
    starts = start(4, 6, 2)
    A, weights = symmetric(6), np.array([2.0, 1.0])
    X, stop = pytensor.shared(starts[0], name="X"), pytensor.shared(0, name="stop")
    updates = optapi.lbfgs([X], brockett(A, weights)(X), stop=stop, manifold=manifold, tolerance=1e-8)
    wide = pytensor.shared(starts, name="wide")
    batched = optapi.batch(updates, {X: wide})
    pytensor.function([], [], updates=optapi.loop(batched, 100), mode=PYTHON)()
    for first, end in zip(starts, wide.get_value(), strict=True):
        alone = Run(first, brockett(A, weights), manifold=manifold, tolerance=1e-8)().x
        np.testing.assert_allclose(end, alone, atol=1e-6)


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.polak_ribiere, optapi.barzilai_borwein])
def test_data_and_points_that_change_between_calls(rule):
    M, x, stop = pt.dmatrix("M"), pytensor.shared(start(6), name="x"), pytensor.shared(0, name="stop")
    updates = rule([x], pt.sum(x * pt.dot(M, x)), stop=stop, manifold=Sphere(), tolerance=1e-7)
    step = pytensor.function([M], [], updates=updates, mode=PYTHON)
    for seed in range(3):
        # The pairs and the direction before belong to other places.
        A = symmetric(6, seed)
        x.set_value(5 * start(6, seed=seed))
        stop.set_value(0)
        while not stop.get_value():
            step(A)
            np.testing.assert_allclose(np.linalg.norm(x.get_value()), 1, rtol=1e-14)
        np.testing.assert_allclose(x.get_value() @ A @ x.get_value(), np.linalg.eigvalsh(A)[0], rtol=1e-12)


def test_parameters_of_two_dtypes():
    A = symmetric(6)
    X, c = pytensor.shared(start(6, 2).astype("float32"), name="X"), pytensor.shared(np.zeros(2), name="c")
    cost = brockett(A, np.array([2.0, 1.0]))(X) + pt.sum((c - [1.0, 2.0]) ** 2)
    stop = pytensor.shared(0, name="stop")
    updates = optapi.lbfgs([X, c], cost, stop=stop, manifold={X: Stiefel()}, tolerance=1e-3)
    step = pytensor.function([], [], updates=updates, mode=PYTHON)
    while not stop.get_value():
        step()
        assert off(X.get_value()) < 1e-6
    values = np.linalg.eigvalsh(A)
    np.testing.assert_allclose(cost.eval(mode=PYTHON), 2 * values[0] + values[1], rtol=1e-6)


def test_minimize():
    A, seen = symmetric(6), []
    values = np.linalg.eigvalsh(A)

    def f(point):
        seen.append((off(point["X"]), abs(point["x"] @ point["x"] - 1)))
        return np.trace(point["X"].T @ A @ point["X"]) + point["x"] @ A @ point["x"] + point["c"] ** 2

    def df(point):
        return {"X": 2 * A @ point["X"], "x": 2 * A @ point["x"], "c": 2 * point["c"]}

    x0 = {"X": start(6, 2), "x": start(6), "c": 3.0}
    options = {"manifold": {"X": Stiefel(), "x": Sphere()}, "full_output": True, "trace": True}
    result = optapi.minimize(x0, f, df, "lbfgs", **options)
    assert np.max(seen) < 3e-15
    assert result.success
    assert "no component of the projected derivative is larger" in result.message
    np.testing.assert_allclose(result.fun, 2 * values[0] + values[1], rtol=1e-10)
    X, x = result.x["X"], result.x["x"]
    slope = 2 * A @ X - X @ (2 * X.T @ A @ X)
    np.testing.assert_allclose(result.jac["X"], slope, atol=1e-12)
    assert result.optimality == max(abs(result.jac[key]).max() for key in result.jac) <= 1e-5
    assert result.optimality == result.trace["gradient_size"][-1]
    np.testing.assert_allclose(x @ A @ x, values[0], rtol=1e-10)
    with pytest.raises(ValueError, match="with penalties or manifolds"):
        result.covariance()


def test_minimize_iterator_moves_on_the_manifold():
    A = symmetric(6)
    run = optapi.minimize_iterator(start(6), lambda x: x @ A @ x, lambda x: 2 * A @ x, "lbfgs", manifold=Sphere())
    np.testing.assert_allclose(np.linalg.norm(run.x), 1, rtol=1e-15)
    run.x = np.arange(6.0)
    np.testing.assert_allclose(run.x, np.arange(6) / np.sqrt(55), rtol=1e-15)
    for _ in run:
        pass
    np.testing.assert_allclose(run.fun, np.linalg.eigvalsh(A)[0], rtol=1e-10)


def test_compiled_loops_and_many_starts():
    A = symmetric(6)
    x = pytensor.shared(3 * start(6), name="x")
    run = optapi.compile_minimizer([x], rayleigh(A)[0](x), "polak_ribiere", manifold=Sphere(), mode=PYTHON)
    result = run()
    assert result.success
    assert "projected derivative" in result.message
    np.testing.assert_allclose(result.fun, np.linalg.eigvalsh(A)[0], rtol=1e-9)
    np.testing.assert_allclose(result.optimality, abs(result.jac[0]).max())
    assert result.optimality <= 1e-5
    # The gradient there is not small, and its projection is.
    again = run()
    assert (again.nit, again.fun) == (0, result.fun)
    assert abs(2 * A @ again.x[0]).max() > 1
    for member in run.from_starts(optapi.sample_starts([x], 3, seed=0)):
        np.testing.assert_allclose(np.linalg.norm(member.x[0]), 1, rtol=1e-14)
        np.testing.assert_allclose(member.fun, result.fun, rtol=1e-9)


def test_a_matrix_that_is_data():
    A, M = np.stack([symmetric(5, seed) for seed in range(3)]), pt.dmatrix("M")
    x = pytensor.shared(start(5), name="x")
    run = optapi.compile_minimizer(
        [x], pt.sum(x * pt.dot(M, x)), "lbfgs", inputs=[M], manifold=Sphere(), mode=PYTHON, tolerance=1e-7
    )
    found = run.on_data(A)
    np.testing.assert_allclose(found.fun, np.linalg.eigvalsh(A)[:, 0], rtol=1e-12)


@pytest.mark.parametrize("rule", ["lbfgs", "hager_zhang_cg"])
def test_a_saved_minimization_goes_on(tmp_path, rule):
    A, manifold = symmetric(), Stiefel()
    functions = (lambda X: (np.trace(X.T @ A @ X), 2 * A @ X), True)
    first = optapi.minimize_iterator(start(12, 2), *functions, rule, manifold=manifold)
    for _ in range(5):
        next(first)
    first.save(tmp_path / "run.npz")
    second = optapi.minimize_iterator.load(tmp_path / "run.npz", *functions, manifold=manifold)
    for run in (first, second):
        for _ in run:
            pass
    np.testing.assert_array_equal(first.x, second.x)
    assert (first.fun, first.nfev, first.message) == (second.fun, second.nfev, second.message)


@pytest.mark.parametrize(
    "mode",
    [pytest.param("NUMBA", marks=[pytest.mark.numba, pytest.mark.long]), pytest.param("JAX", marks=pytest.mark.jax)],
)
@pytest.mark.parametrize("manifold", [Sphere(), Stiefel()])
def test_backends(mode, manifold):
    pytest.importorskip("jax" if mode == "JAX" else "numba")
    cost, options = brockett(symmetric(6), np.array([2.0, 1.0])), {"manifold": manifold, "tolerance": 1e-7}
    python, other = (Run(start(6, 2), cost, **options, **mode)() for mode in ({}, {"mode": mode}))
    assert other.reason == 0
    np.testing.assert_allclose(other.x, python.x, atol=1e-6)
