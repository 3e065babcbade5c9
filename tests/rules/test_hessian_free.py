"""Hessian-free rules: their twins, the facts of the papers, negative curvature, other data, and what is refused."""

import numpy as np
import problems
import pytensor
import pytensor.tensor as pt
import pytest
from reference import hessian_free as reference

import optapi
from optapi.graph.numpy_linker import STEP


NETWORK = reference.Network()


class Run:
    """Calls of a rule on the network of the twins, or on a given cost of one vector."""

    def __init__(self, rule, start=NETWORK.start, cost=None, **options):
        self.p = pytensor.shared(np.array(start), name="p", shape=np.shape(start))
        self.stop = pytensor.shared(np.int64(0), name="stop")
        self.X = pytensor.shared(NETWORK.X, name="X")
        if cost is None:
            n = NETWORK.shape[1]
            h = pt.tanh(pt.dot(self.X, self.p[:-n].reshape(NETWORK.shape)))
            z = pt.dot(h, self.p[-n:])
            self.cost = pt.mean(pt.logaddexp(np.float64(0), z) - pt.as_tensor(NETWORK.y)[: z.shape[0]] * z)
            options = {"outputs": z, **options}
            if options.pop("structural", False):
                options["hidden"] = h / np.sqrt(len(NETWORK.X))
        else:
            self.cost = cost(self.p)
        options = {
            key: value(self) if callable(value) and key != "line_search" else value for key, value in options.items()
        }
        self.updates = rule([self.p], self.cost, stop=self.stop, **options)
        self.step = pytensor.function([], [], updates=self.updates, mode=STEP)

    def __call__(self, calls):
        points = []
        while len(points) < calls and not self.stop.get_value():
            self.step()
            points.append(self.p.get_value())
        return points

    def state(self, role):
        [variable] = [v for v in self.updates if v.name.endswith(f"/{role}")]
        return variable

    def report(self, role):
        [variable] = optapi.reports(self.updates)[role]
        return variable.get_value()[()]


def squares(run):
    """The diagonal of the preconditioner, as a function of the vector, for the network."""
    n = NETWORK.shape[1]
    h = pt.tanh(pt.dot(run.X, run.p[:-n].reshape(NETWORK.shape)))
    w = run.p[-n:]
    slopes = pt.sigmoid(pt.dot(h, w)) - NETWORK.y
    by_V = (run.X[:, :, None] * (w * (1 - h**2))[:, None]).reshape((len(NETWORK.X), -1))
    return [pt.mean((pt.concatenate([by_V, h], axis=1) * slopes[:, None]) ** 2, axis=0)]


VARIANTS = {
    "plain": ({"damping_growth": 1.1}, {"growth": 1.1}),
    "cold": ({"start_decay": 0.0, "damping_growth": 1.3, "steps": 10}, {"decay": 0.0, "growth": 1.3, "steps": 10}),
    "preconditioner": ({"preconditioner": squares, "steps": 8}, {"diagonal": NETWORK.squares, "steps": 8}),
    "structural": ({"structural": True, "structural_damping": 0.5, "steps": 8}, {"mu": 0.5, "steps": 8}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_hessian_free_equals_its_twin(variant):
    """Ten iterations: each from the same point, and then free."""
    options, twins = VARIANTS[variant]
    run = Run(optapi.hessian_free, tolerance=None, **options)
    begin = [v.get_value() for v in run.updates]
    step = reference.Step(NETWORK.start, np.zeros_like(NETWORK.start), 1.0, 0, 0)
    costs, products, tried, trajectory = [NETWORK.cost(step.x)], 0, 0, []
    for _ in range(10):
        before = step.x
        run.p.set_value(before)
        run.state("solution").set_value(step.solution)
        run.state("damping").set_value(np.array(step.damping))
        step = reference.hessian_free_step(NETWORK, before, step.solution, step.damping, **twins)
        run.step()
        size = np.linalg.norm(step.x - before)
        assert np.linalg.norm(run.p.get_value() - step.x) <= 1e-12 * size
        assert np.linalg.norm(run.state("solution").get_value() - step.solution) <= 1e-12 * np.linalg.norm(
            step.solution
        )
        np.testing.assert_allclose(run.state("damping").get_value(), step.damping, rtol=1e-14)
        products, tried = products + step.products, tried + step.tried
        assert run.report("products") == products
        costs.append(NETWORK.cost(step.x))
        trajectory.append(step.x)
    # There is one more in a call that starts where the twin is, unless that is where the rule has been, bit for bit.
    assert tried + 1 <= run.report("evaluations") <= tried + 10
    assert np.all(np.diff(costs) < 0)
    for variable, value in zip(run.updates, begin, strict=True):
        variable.set_value(value)
    np.testing.assert_allclose(run(10), trajectory, rtol=1e-9)


def quadratic(**options):
    """A run on half x'Ax - b'x, with its matrix."""
    problem = problems.quadratic(smallest=0.1)
    A = problem.value_and_gradients([np.zeros(6)])[1][0]
    A = np.stack([problem.value_and_gradients([e])[1][0] - A for e in np.eye(6)])
    return Run(options.pop("rule", optapi.hessian_free), np.ones(6), lambda p: problem.cost([p]), **options), A


@pytest.mark.parametrize("damping", [0.01, 1.0, 100.0])
def test_the_ratio_is_1_on_a_quadratic(damping):
    """Whatever the damping is: the model of the ratio is without it. So the damping falls at each step."""
    run, _ = quadratic(damping=damping, tolerance=None)
    for count in range(1, 4):
        run(1)
        np.testing.assert_allclose(run.state("damping").get_value(), damping / 1.5**count, rtol=1e-14)


def test_linear_least_squares_without_damping_take_one_step():
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(30, 8)), rng.normal(size=30)
    for options in ({"outputs": lambda run: run.z}, {}):
        for rule in (optapi.hessian_free, optapi.krylov_subspace_descent):

            def cost(p):
                Run.z = pt.dot(A, p)
                return pt.sum((Run.z - b) ** 2) / 2

            extra = {"damping": 0.0} if rule is optapi.hessian_free else {}
            run = Run(rule, rng.normal(size=8), cost, **options, **extra)
            [x] = run(1)
            np.testing.assert_allclose(x, np.linalg.lstsq(A, b)[0], rtol=1e-11)
            assert run.stop.get_value() == 1
            assert run.report("products") in (8, 9)  # 9 with the last step, or where the last residual is round-off


def test_a_constant_preconditioner_changes_nothing_but_the_order_of_arithmetic():
    plain, _ = quadratic(damping=1.0, steps=4)
    scaled, _ = quadratic(damping=1.0, steps=4, preconditioner=lambda run: [pt.full((6,), 3.0)])
    np.testing.assert_allclose(plain(5), scaled(5), rtol=1e-9)


def test_the_dimensions_of_a_subspace_are_steps_of_conjugate_gradients():
    for k in (1, 2, 4):
        subspace, A = quadratic(rule=optapi.krylov_subspace_descent, dimensions=k, tolerance=None)
        x = subspace.p.get_value()
        g = A @ x - np.cos(np.arange(1.0, 7))
        [[expected], _] = [reference.conjugate_gradients(A, -g, 0 * g, 1.0, k, 0.0)[0][-1:], 0]
        [moved] = subspace(1)
        np.testing.assert_allclose(moved - x, expected, rtol=1e-7)


def test_krylov_subspace_descent_finds_the_minimizer_in_the_subspace():
    """The step is in the subspace, and the gradient where it leads is orthogonal to it."""
    run = Run(optapi.krylov_subspace_descent, dimensions=3, max_trials=100, tolerance=None)
    x, step = NETWORK.start, np.zeros_like(NETWORK.start)
    for _ in range(5):
        basis = reference.krylov_subspace(NETWORK, x, step, 3)
        run.step()
        here = run.p.get_value()
        step = here - x
        assert np.linalg.norm(step - basis @ (basis.T @ step)) < 1e-9 * np.linalg.norm(step)
        before, after = (np.linalg.norm(basis.T @ NETWORK.gradient(point)) for point in (x, here))
        assert after < 1e-6 * before
        assert NETWORK.cost(here) < NETWORK.cost(x)
        np.testing.assert_array_equal(run.state("step").get_value(), step)
        x = here


@pytest.mark.parametrize("rule", [optapi.hessian_free, optapi.krylov_subspace_descent])
@pytest.mark.parametrize("start", [[1e-3, 1.0], [0.0, 1e-3], [3.0, -0.5]])
def test_the_hessian_with_negative_curvature(rule, start):
    """From beside the saddle of x^4/4 - x^2/2 + y^2/2 to one of its minima."""
    run = (
        Run(rule, start, lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2 / 2, damping=0.1)
        if (rule is optapi.hessian_free)
        else Run(rule, start, lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2 / 2)
    )
    points = run(100)
    assert run.stop.get_value() == 1
    assert run.report("reason") == 0
    if start[0]:
        np.testing.assert_allclose(np.abs(points[-1]), [1.0, 0.0], atol=1e-5)
    else:  # there is no way off the axis
        np.testing.assert_allclose(points[-1], [0.0, 0.0], atol=1e-5)


def test_negative_curvature_raises_the_damping():
    run = Run(optapi.hessian_free, [0.1], lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2, damping=0.5, tolerance=None)
    run(1)
    np.testing.assert_allclose(run.state("damping").get_value(), 0.75)


@pytest.mark.parametrize("rule", [optapi.hessian_free, optapi.krylov_subspace_descent])
def test_the_curvature_of_other_data(rule):
    """As if the data were replaced, but for the gradient and the costs: the first direction is that of the twin."""
    part = NETWORK.X[:7]
    run = Run(
        rule,
        curvature_givens=lambda run: {run.X: pt.as_tensor(part)},
        line_search=optapi.line_search.fixed,
        tolerance=None,
    )
    whole = Run(rule, line_search=optapi.line_search.fixed, tolerance=None)
    if rule is optapi.hessian_free:
        run(1), whole(1)
        smaller = reference.Network()
        smaller.X, smaller.y = part, smaller.y[:7]
        A = smaller.curvature(NETWORK.start) + np.eye(NETWORK.start.size)
        np.testing.assert_allclose(
            run.state("solution").get_value(), np.linalg.solve(A, -NETWORK.gradient(NETWORK.start)), atol=2e-3
        )
    else:
        [x], [y] = run(1), whole(1)
        assert NETWORK.cost(x) < NETWORK.cost(NETWORK.start)
        assert not np.allclose(x, y)


def test_the_driver_counts_products():
    result = optapi.minimize(
        np.array([-1.2, 1.0]),
        lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2,
        lambda x: np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)]),
        optapi.hessian_free,
        hessp=lambda x, p: np.array(
            [
                (1200 * x[0] ** 2 - 400 * x[1] + 2) * p[0] - 400 * x[0] * p[1],
                -400 * x[0] * p[0] + 200 * p[1],
            ]
        ),
        full_output=True,
    )
    assert result.success
    np.testing.assert_allclose(result.x, [1.0, 1.0], atol=1e-4)
    assert result.nhev > result.nit


def test_an_iterate_of_infinite_cost_is_passed_over():
    """The cost is finite in the unit interval only, and the full step leads out of it."""
    run = Run(optapi.hessian_free, [0.5], lambda p: -pt.log(p[0]) - 0.01 * pt.log(1 - p[0]), damping=0.0)
    costs = [float(pytensor.function([], run.cost, mode=STEP)()) for _ in run(40)]
    assert np.isfinite(costs[-1])
    assert run.report("reason") == 0
    np.testing.assert_allclose(run.p.get_value(), 1 / 1.01, rtol=1e-6)


def test_the_damping_does_not_underflow():
    run, _ = quadratic(damping=1.0, damping_growth=1e6, tolerance=None, steps=1)
    dampings = []
    for _ in range(4):
        run(1)
        dampings.append(float(run.state("damping").get_value()))
    np.testing.assert_allclose(dampings, [1e-6, 1e-12, np.finfo(float).eps, np.finfo(float).eps], rtol=1e-12)


@pytest.mark.jax
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("rule", [optapi.hessian_free, optapi.krylov_subspace_descent])
def test_jax(rule):
    """Where all shapes are known: JAX has no loops over what is not."""
    A, b = NETWORK.X, np.cos(np.arange(60.0))
    V, w = (pytensor.shared(np.ones(shape), name=name, shape=shape) for name, shape in (("V", (5, 3)), ("w", (3,))))
    V.set_value(NETWORK.start[:15].reshape(5, 3))
    z = pt.dot(pt.tanh(pt.dot(A, V)), w)
    updates = rule([V, w], pt.mean((z - b) ** 2), outputs=z, stop=pytensor.shared(0), tolerance=None)
    begin, runs = [v.get_value() for v in updates], []
    for mode in (optapi.PYTHON, "JAX"):
        for variable, value in zip(updates, begin, strict=True):
            variable.set_value(value)
        step = pytensor.function([], [], updates=updates, mode=mode)
        for _ in range(2):
            step()
        runs.append(np.append(V.get_value(), w.get_value()))
    assert np.linalg.norm(runs[0] - NETWORK.start[:18]) > 0.1
    np.testing.assert_allclose(*runs, rtol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": lambda run: run.p}, "hidden is given and outputs is not"),
        ({"outputs": lambda run: 2 * run.p}, "the cost does not depend on the variable"),
        ({"preconditioner": lambda run: [run.p[0]]}, "preconditioner"),
        ({"preconditioner": lambda run: []}, "preconditioner has 0 entries"),
        ({"steps": 0}, "steps is 0"),
        ({"start_decay": 2.0}, "start_decay is 2"),
        ({"damping_growth": 0.5}, "damping_growth is 0.5"),
        ({"curvature_givens": lambda run: {run.X: run.X}}, "curvature_givens names the variable 'X'"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Run(optapi.hessian_free, [1.0, 2.0], lambda p: pt.sum(p**2), **options)
