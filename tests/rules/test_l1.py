"""L-BFGS with an L1 penalty: each step, certified minima with exact zeros, forms of weights, drivers."""

import nonsmooth
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import nonsmooth as reference
from test_first_order import assert_close

import optapi
from optapi import PYTHON
from optapi.graph.numpy_linker import STEP


PENALIZED = [name for name in nonsmooth.NAMES if name.split("_")[0] in ("lasso", "elastic", "logistic")]


class Run:
    """A minimization by calls of one compiled function."""

    def __init__(self, start, cost, rule=optapi.lbfgs, mode=STEP, dtype="float64", **options):
        self.p, self.stop = pytensor.shared(np.asarray(start, dtype), name="p"), pytensor.shared(0, name="stop")
        self.updates = rule([self.p], cost(self.p), stop=self.stop, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=mode)

    def __iter__(self):
        while not self.stop.get_value():
            self.step()
            yield self.p.get_value()

    def __call__(self):
        for _ in self:
            pass
        return self

    def __getattr__(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]

    @property
    def x(self):
        return self.p.get_value()


def quadratic(size=9, seed=0):
    """The cost, and its value and gradient on arrays."""
    rng = np.random.default_rng(seed)
    root, b = rng.normal(size=(2 * size, size)), rng.normal(size=size) * 5
    H = root.T @ root / size + 0.01 * np.eye(size)
    return lambda x: pt.dot(x, pt.dot(H, x)) / 2 - pt.dot(b, x), lambda x: (x @ H @ x / 2 - b @ x, H @ x - b)


@pytest.mark.parametrize(("memory", "start"), [(10, np.zeros(9)), (3, np.linspace(-2, 2, 9))])
def test_each_step(memory, start):
    cost, cost_and_gradient = quadratic()
    run = Run(start, cost, l1=2.0, memory=memory, tolerance=1e-9)
    points, counts = [], []
    for x in run:
        points.append(x)
        counts.append(int(run.evaluations))
    wanted, evaluations = reference.lbfgs_l1(start, cost_and_gradient, 2.0, len(points), memory=memory, along=points)
    assert len(points) > 6
    assert_close([[p] for p in points[:-2]], [[w] for w in wanted[:-2]], tolerance=1e-8)
    assert counts[:-2] == evaluations[:-2]
    assert 0 < np.sum(points[-1] == 0) < 9


EVALUATIONS = {}


@pytest.mark.parametrize("name", PENALIZED)
def test_certified_minima(name):
    problem = nonsmooth.problem(name)
    run = Run(np.zeros(problem.size), problem.cost, l1=problem.l1, tolerance=1e-6 * problem.minimum**0.5)
    for x in run:
        if name not in EVALUATIONS and problem.excess(x) <= 1e-7:
            EVALUATIONS[name] = int(run.evaluations)
    assert run.reason == 0
    assert problem.excess(run.x) <= 1e-10
    np.testing.assert_array_equal(np.flatnonzero(run.x), problem.support)
    np.testing.assert_allclose(run.cost, problem.evaluate(run.x), rtol=1e-14)
    weight = np.broadcast_to(problem.l1, run.x.shape)
    x = pt.vector("x", shape=run.x.shape)
    g = pytensor.function([x], pytensor.grad(problem.cost(x), x), mode=PYTHON)(run.x)
    slope = abs(reference.least_subgradient(run.x, g, weight)).max()
    np.testing.assert_allclose(run.gradient_size, slope, rtol=1e-6, atol=1e-9 * problem.minimum**0.5)
    if len(EVALUATIONS) == len(PENALIZED):
        assert np.median(list(EVALUATIONS.values())) <= 34


def test_weights_in_all_forms():
    cost, _ = quadratic()
    of_all = Run(np.zeros(9), cost, l1=1.5)().x
    for l1 in (np.full(9, 1.5), [1.5] * 9, {"p": 1.5}, [1.5], pytensor.shared(1.5), pytensor.shared(np.full(9, 1.5))):
        np.testing.assert_allclose(Run(np.zeros(9), cost, l1=l1)().x, of_all, atol=1e-12)
    # Components without a weight are as they are without the option.
    free = Run(np.zeros(9), cost, tolerance=1e-10)().x
    for l1 in (0.0, pytensor.shared(0.0)):
        np.testing.assert_allclose(Run(np.zeros(9), cost, l1=l1, tolerance=1e-10)().x, free, rtol=1e-8)
    some = Run(np.zeros(9), cost, l1=np.array([0.0] * 5 + [1e3] * 4))().x
    assert np.all(some[:5] != 0)
    np.testing.assert_array_equal(some[5:], 0)


def test_several_parameters():
    w, b, stop = pytensor.shared(np.ones((2, 3)), name="w"), pytensor.shared(2.0, name="b"), pytensor.shared(0)
    cost = pt.sum((w - np.arange(6).reshape(2, 3)) ** 2) / 2 + (b - 7) ** 2
    step = pytensor.function([], [], updates=optapi.lbfgs([w, b], cost, stop=stop, l1={w: 2.5}), mode=PYTHON)
    while not stop.get_value():
        step()
    np.testing.assert_allclose(w.get_value(), np.maximum(np.arange(6).reshape(2, 3) - 2.5, 0), atol=1e-5)
    np.testing.assert_array_equal(w.get_value()[0], 0)
    np.testing.assert_allclose(b.get_value(), 7)


@pytest.mark.parametrize(("low", "high"), [(0, np.inf), (-0.3, 0.8), (0.1, 0.9), (-1.0, -0.2)])
def test_with_bounds(low, high):
    """Split and bounded; with a low of 0 it is the non-negative lasso."""
    cost, cost_and_gradient = quadratic()
    run = Run(np.zeros(9), cost, l1=2.0, bounds=(low, high), tolerance=1e-8)
    for x in run:
        assert np.all((low <= x) & (x <= high))
    _, g = cost_and_gradient(run.x)
    slope = reference.least_subgradient(run.x, g, 2.0)
    assert np.all(slope[(run.x < high)] >= -1e-7)
    assert np.all(slope[(run.x > low)] <= 1e-7)
    if low == 0:
        assert np.any(run.x == 0)


def test_in_single_precision_and_in_other_units():
    problem = nonsmooth.problem("elastic_diabetes_0.01")
    single = Run(np.zeros(10), problem.cost, l1=problem.l1, dtype="float32", tolerance=5.0)()
    assert single.x.dtype == np.float32
    assert problem.excess(single.x) <= 1e-5
    scaled = Run(np.zeros(10), problem.cost, l1=problem.l1, x_scale="curvature", tolerance=1e-3)()
    assert problem.excess(scaled.x) <= 1e-10
    np.testing.assert_array_equal(np.flatnonzero(scaled.x), problem.support)


def test_ascent_subtracts_the_penalty():
    cost, _ = quadratic()
    down, up = Run(np.zeros(9), cost, l1=2.0)(), Run(np.zeros(9), lambda x: -cost(x), l1=2.0, ascent=True)()
    np.testing.assert_array_equal(down.x, up.x)
    assert up.cost == -down.cost


def test_the_inverse_hessian_is_that_of_the_components_that_are_not_0():
    cost, _ = quadratic()
    run = Run(np.zeros(9), cost, l1=2.0, tolerance=1e-9, memory=9)()
    inverse = optapi.inverse_hessian(run.updates) @ np.eye(9)
    inside = run.x != 0
    assert np.all(inverse[~inside] == 0)
    assert np.all(np.linalg.eigvalsh(inverse[np.ix_(inside, inside)]) > 0)


def test_minimize_reports_the_whole_cost():
    problem = nonsmooth.problem("lasso_diabetes2_0.5")
    X, y = nonsmooth.data("diabetes2")

    def f(w):
        return np.sum((X @ w - y) ** 2) / 2

    def df(w):
        return X.T @ (X @ w - y)

    options = {"l1": problem.l1, "tolerance": 1e-3, "full_output": True, "trace": True}
    result = optapi.minimize(np.zeros(65), f, df, "lbfgs", **options)
    np.testing.assert_allclose(result.fun, problem.minimum, rtol=1e-12)
    np.testing.assert_array_equal(np.flatnonzero(result.x), problem.support)
    assert result.success
    assert "no component of the residual" in result.message
    np.testing.assert_allclose(result.jac, df(result.x))
    np.testing.assert_allclose(result.trace["cost"][[0, -1]], [y @ y / 2, problem.minimum], rtol=1e-12)
    assert result.trace["gradient_size"][-1] <= 1e-3
    np.testing.assert_allclose(result.trace["gradient_size"][0], abs(X.T @ y).max() - problem.l1)
    # In the structure of the point.
    both = optapi.minimize(
        {"a": np.zeros(60), "b": np.zeros(5)}, lambda p: f(np.append(p["a"], p["b"])),
        lambda p: dict(zip("ab", np.split(df(np.append(p["a"], p["b"])), [60]), strict=True)), "lbfgs",
        **{**options, "l1": {"a": problem.l1, "b": np.full(5, problem.l1)}},
    )  # fmt: skip
    np.testing.assert_allclose(both.fun, problem.minimum, rtol=1e-12)


def test_a_path_is_one_program():
    problem = nonsmooth.problem("lasso_diabetes2_0.5")
    x, l1 = pytensor.shared(np.zeros(65), name="x"), pt.dscalar("l1")
    run = optapi.compile_minimizer([x], problem.cost(x), "lbfgs", l1=l1, inputs=[l1], mode=PYTHON, tolerance=1e-3)
    counts = []
    for share in (4.0, 1.5, 1.0):
        result = run(share * problem.l1)
        counts.append(int(np.sum(result.x[0] != 0)))
    assert counts[0] == 0 < counts[1]
    assert counts[2] == 2
    np.testing.assert_allclose(result.fun, problem.minimum, rtol=1e-12)


def test_a_saved_minimization_goes_on(tmp_path):
    problem = nonsmooth.problem("lasso_diabetes2_0.5")
    X, y = nonsmooth.data("diabetes2")
    functions = (lambda w: (np.sum((X @ w - y) ** 2) / 2, X.T @ (X @ w - y)), True)
    first = optapi.minimize_iterator(np.zeros(65), *functions, "lbfgs", l1=problem.l1, tolerance=1e-3)
    for _ in range(4):
        next(first)
    first.save(tmp_path / "run.npz")
    second = optapi.minimize_iterator.load(tmp_path / "run.npz", *functions, l1=problem.l1)
    assert second.fun == first.fun
    for state in (first, second):
        for _ in state:
            pass
    np.testing.assert_array_equal(first.x, second.x)
    assert first.fun == second.fun
    assert first.nfev == second.nfev


@pytest.mark.parametrize(("l1", "message"), [
    (-1.0, "l1 of 'p' is -1.0; pass numbers"),
    (np.ones(4), r"l1 of 'p' has shape \(4,\), which does not broadcast to \(9,\)"),
    ({"q": 1.0}, "l1 has a key 'q', which is none of the parameters"),
    ([1.0, 2.0, None], "l1 has 3 entries for 1 parameters"),
    ("big", "l1 of 'p' is 'big'"),
])  # fmt: skip
def test_what_is_wrong_is_refused(l1, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Run(np.zeros(9), quadratic()[0], l1=l1)


def test_weights_do_not_depend_on_the_parameters():
    p = pytensor.shared(np.ones(3), name="p")
    with pytest.raises(ValueError, match="l1 of 'p' depends on the parameters"):
        optapi.lbfgs([p], pt.sum(p**2), l1=abs(p))


@pytest.mark.parametrize(
    "mode",
    [pytest.param("NUMBA", marks=[pytest.mark.numba, pytest.mark.long]), pytest.param("JAX", marks=pytest.mark.jax)],
)
def test_backends(mode):
    pytest.importorskip("jax" if mode == "JAX" else "numba")
    cost, _ = quadratic()
    python, other = Run(np.zeros(9), cost, l1=2.0)(), Run(np.zeros(9), cost, l1=2.0, mode=mode)()
    np.testing.assert_allclose(other.x, python.x, atol=1e-5)
    np.testing.assert_array_equal(other.x == 0, python.x == 0)


def test_many_starts():
    cost, _ = quadratic()
    starts = np.random.default_rng(0).normal(size=(4, 9))
    p, stop = pytensor.shared(starts[0], name="p"), pytensor.shared(0, name="stop")
    updates = optapi.lbfgs([p], cost(p), stop=stop, l1=2.0, tolerance=1e-8)
    wide = pytensor.shared(starts, name="wide")
    together = pytensor.function([], [], updates=optapi.batch(updates, {p: wide}), mode=PYTHON)
    for _ in range(60):
        together()
    alone = Run(starts[0], cost, l1=2.0, tolerance=1e-8)().x
    np.testing.assert_allclose(wide.get_value(), np.broadcast_to(alone, (4, 9)), atol=1e-7)
