"""Solutions as variables: against closed forms, differences and quadrature."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph
from scipy.special import gammaln, logsumexp

import optapi
from optapi.graph.compat import REWRITES_INNER_GRAPHS


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*faster on contiguous arrays"),
    pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning"),
]
# PyTensor 3.0 does not know shapes for JAX that 3.3 knows.
SHAPES = pytest.mark.skipif(not REWRITES_INNER_GRAPHS, reason="PyTensor 3.0 cannot give JAX these shapes")
BACKENDS = [
    pytest.param(optapi.PYTHON, id="PYTHON"),
    pytest.param("NUMBA", marks=pytest.mark.numba, id="NUMBA"),
    pytest.param("CVM", marks=pytest.mark.c, id="C"),
    pytest.param("JAX", marks=pytest.mark.jax, id="JAX"),
]
# Those that numba compiles for a minute.
LONG = [
    pytest.param(*b.values, marks=[*b.marks, *{"NUMBA": [pytest.mark.long], "JAX": [SHAPES]}.get(b.id, [])], id=b.id)
    for b in BACKENDS[1:]
]
H = 1e-3


def compiled(inputs, outputs, mode=optapi.PYTHON):
    function = pytensor.function(inputs, outputs, mode=mode)
    return lambda *values: [np.asarray(value) for value in function(*values)]


def differences(function, point, h=H):
    """The derivatives of a function of a vector, by central differences of fourth order."""
    near, far = (
        np.array([function(point + step * e) - function(point - step * e) for e in np.eye(len(point))]) / (2 * step)
        for step in (h, 2 * h)
    )
    return (4 * near - far) / 3


class Ridge:
    """A ridge regression with the error on other data, and its derivatives by the penalty in closed form."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.X, self.X_new = rng.normal(size=(60, 8)), rng.normal(size=(40, 8))
        w = rng.normal(size=8)
        self.y, self.y_new = self.X @ w + rng.normal(size=60), self.X_new @ w + rng.normal(size=40)

    def closed(self, alpha):
        A = self.X.T @ self.X + alpha * np.eye(8)
        w = np.linalg.solve(A, self.X.T @ self.y)
        first = -np.linalg.solve(A, w)
        second = -2 * np.linalg.solve(A, first)
        g, along = self.X_new.T @ (self.X_new @ w - self.y_new), self.X_new @ first
        return w, np.sum((self.X_new @ w - self.y_new) ** 2) / 2, g @ first, along @ along + g @ second

    def solved(self, **options):
        w, alpha = pt.tensor("w", shape=(8,), dtype="float64"), pt.dscalar("alpha")
        cost = pt.sum((self.X @ w - self.y) ** 2) / 2 + alpha * pt.sum(w**2) / 2
        solution = optapi.solve([w], cost, **({"tolerance": 1e-12} | options))
        return alpha, solution, pt.sum((self.X_new @ solution.parameters[0] - self.y_new) ** 2) / 2


@pytest.mark.parametrize("mode", BACKENDS)
def test_ridge_has_the_derivatives_of_the_closed_form(mode):
    ridge = Ridge()
    alpha, solution, error = ridge.solved()
    first = pytensor.grad(error, alpha)
    outputs = [solution.parameters[0], error, first, pytensor.grad(first, alpha), solution.reason]
    *found, reason = compiled([alpha], outputs, mode)(3.7)
    for value, expected in zip(found, ridge.closed(3.7), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-10)
    assert reason == 0


def product_solver(product, b):
    """Richardson's iteration, which needs products alone."""
    return optapi.repeat(lambda v: ([v + (b - product(v)) / 120], pt.constant(False)), [pt.zeros_like(b)], 600)[0]


@pytest.mark.parametrize("linear_solver", ["cg", product_solver])
@pytest.mark.parametrize("rule", ["lbfgs", "trust_region_cg"])
def test_linear_solvers_and_rules_give_the_same_derivatives(linear_solver, rule):
    ridge = Ridge()
    alpha, _, error = ridge.solved(linear_solver=linear_solver, rule=rule, tolerance=1e-11)
    first = pytensor.grad(error, alpha)
    found = compiled([alpha], [first, pytensor.grad(first, alpha)])(3.7)
    np.testing.assert_allclose(found, ridge.closed(3.7)[2:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("order", "linear_solver"), [("before", "dense"), ("between", "cg"), ("after", "dense")])
def test_batches_before_and_after_the_gradient(order, linear_solver):
    check_batches(order, linear_solver, optapi.PYTHON)


@pytest.mark.parametrize("mode", LONG)
def test_batches_of_backends(mode):
    check_batches("after", "dense", mode)


def check_batches(order, linear_solver, mode):
    ridge, alphas = Ridge(), pt.dvector("alphas")
    alpha, solution, error = ridge.solved(linear_solver=linear_solver)
    count = solution.evaluations
    if order == "before":
        error, count = vectorize_graph([error, count], {alpha: alphas})
        first = pytensor.grad(error.sum(), alphas)
        second = pytensor.grad(first.sum(), alphas)
    else:
        first = pytensor.grad(error, alpha)
        second = pytensor.grad(first, alpha)
        if order == "after":
            first, second, count = vectorize_graph([first, second, count], {alpha: alphas})
        else:
            first, count = vectorize_graph([first, count], {alpha: alphas})
            second = pytensor.grad(first.sum(), alphas)
    values = np.array([0.1, 1.0, 3.7, 30.0])
    first, second, count = compiled([alphas], [first, second, count], mode)(values)
    expected = np.array([ridge.closed(value)[2:] for value in values])
    np.testing.assert_allclose(first, expected[:, 0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(second, expected[:, 1], rtol=0, atol=1e-10)
    assert len(set(count)) > 1  # each member ends on its own


@pytest.mark.parametrize("linear_solver", ["dense", "cg"])
def test_ten_random_problems_against_differences(linear_solver):
    """Strictly convex costs of two parameters of different shapes, whose arguments are of several kinds."""
    A, B, theta, weights = pt.dmatrix("A"), pt.dmatrix("B"), pt.dvector("theta"), pt.dmatrix("weights")
    M, v = pt.tensor("M", shape=(2, 2), dtype="float64"), pt.tensor("v", shape=(), dtype="float64")
    z = pt.concatenate([M.ravel(), v[None]])
    cost = pt.sum(pt.log(pt.cosh(A.T @ z - theta))) + pt.sum(pt.softplus(B @ z) * pt.exp(theta[0] / 3))
    cost = cost + pt.sum(z**4) / 10 + (0.2 + theta[1] ** 2) * pt.sum(z**2) / 2
    solution = optapi.solve([M, v], cost, tolerance=1e-11, linear_solver=linear_solver)
    value = pt.sum(weights * solution.parameters[0]) + pt.sin(solution.parameters[1]) + solution.cost
    first = pytensor.grad(value, theta)
    along = pt.sum(pt.sin(first))
    second = pytensor.grad(along, theta)
    f = compiled([theta, A, B, weights], [value, first, along, second, solution.reason])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        data = rng.normal(size=(5, 3)), rng.normal(size=(4, 5)), rng.normal(size=(2, 2))
        point = rng.normal(size=3)
        found = f(point, *data)
        assert found[-1] in (0, 7)
        for value in (0, 2):  # and its derivatives after it
            slopes = differences(lambda p, data=data, value=value: f(p, *data)[value], point)
            np.testing.assert_allclose(found[value + 1], slopes, rtol=1e-7, atol=1e-7)


class Counts:
    """Poisson counts with a latent normal effect each, whose marginal likelihood is known by quadrature."""

    def __init__(self, size=25):
        rng = np.random.default_rng(3)
        self.y = rng.poisson(np.exp(1.2 + 0.7 * rng.normal(size=size))).astype(float)
        self.mu, self.log_sigma = pt.dscalar("mu"), pt.dscalar("log_sigma")

    def approximated(self, **options):
        d, y = len(self.y), self.y
        z = pt.tensor("z", shape=(d,), dtype="float64")
        eta = self.mu + pt.exp(self.log_sigma) * z
        neg_logp = -pt.sum(y * eta - pt.exp(eta) - gammaln(y + 1)) + pt.sum(z**2) / 2 + d / 2 * np.log(2 * np.pi)
        return optapi.laplace([z], neg_logp, **({"tolerance": 1e-9} | options))

    def exact(self, mu, log_sigma):
        nodes, weights = np.polynomial.hermite_e.hermegauss(120)
        eta = mu + np.exp(log_sigma) * nodes[:, None]
        terms = self.y * eta - np.exp(eta) - gammaln(self.y + 1)
        return np.sum(logsumexp(terms, b=(weights / np.sqrt(2 * np.pi))[:, None], axis=0))


@pytest.mark.parametrize("mode", BACKENDS)
def test_laplace_marginal_and_its_gradient(mode):
    counts = Counts()
    marginal = counts.approximated().log_marginal
    wrt = [counts.mu, counts.log_sigma]
    f = compiled(wrt, [marginal, *pytensor.grad(marginal, wrt)], mode)
    point = np.array([1.1, np.log(0.6)])
    value, *slopes = f(*point)
    np.testing.assert_allclose(value, -69.37712, atol=1e-5)
    np.testing.assert_allclose(value, counts.exact(*point), atol=0.05)  # Laplace's own error
    np.testing.assert_allclose(slopes, differences(lambda p: f(*p)[0], point), rtol=1e-6)


def test_laplace_is_exact_for_correlated_normal_latents():
    rng = np.random.default_rng(1)
    n, y, places = 6, rng.normal(size=6), np.arange(6.0)
    log_length, log_noise = pt.dscalar("log_length"), pt.dscalar("log_noise")
    wrt = [log_length, log_noise]

    def covariance(xp, length):
        return xp.exp(-((places[:, None] - places) ** 2) / (2 * length**2)) + 0.1 * np.eye(n)

    z, K = pt.tensor("z", shape=(n,), dtype="float64"), covariance(pt, pt.exp(log_length))
    noise = pt.exp(log_noise)
    prior = (z @ pt.linalg.solve(K, z, b_ndim=1) + pt.linalg.slogdet(K)[1] + n * np.log(2 * np.pi)) / 2
    likelihood = pt.sum((y - z) ** 2) / (2 * noise**2) + n * log_noise + n / 2 * np.log(2 * np.pi)
    marginal = optapi.laplace([z], prior + likelihood, tolerance=1e-10).log_marginal
    f = compiled(wrt, [marginal, *pytensor.grad(marginal, wrt)])

    def exact(point):
        C = covariance(np, np.exp(point[0])) + np.exp(2 * point[1]) * np.eye(n)
        return -(y @ np.linalg.solve(C, y) + np.linalg.slogdet(C)[1] + n * np.log(2 * np.pi)) / 2

    point = np.array([0.2, -0.5])
    value, *slopes = f(*point)
    np.testing.assert_allclose(value, exact(point), rtol=1e-10)
    np.testing.assert_allclose(slopes, differences(exact, point), rtol=1e-7)


@pytest.mark.parametrize("mode", [BACKENDS[0], LONG[0], LONG[2]])
def test_empirical_bayes_is_a_minimization_of_a_minimization(mode):
    counts = Counts()
    marginal = counts.approximated().log_marginal
    mu, log_sigma = pytensor.shared(0.5, name="mu"), pytensor.shared(-1.0, name="log_sigma")
    [cost] = pytensor.graph.replace.graph_replace([-marginal], {counts.mu: mu, counts.log_sigma: log_sigma})
    result = optapi.compile_minimizer([mu, log_sigma], cost, "bfgs", mode=mode)()
    assert result.success
    np.testing.assert_allclose([float(v) for v in result.x], [1.2976, -0.2029], atol=2e-4)


def test_a_solution_inside_of_the_cost_of_another():
    # The inner minimizer is a x, so the outer cost is (x - 1)^2 + a^2 x^2 with the minimizer 1 / (1 + a^2).
    x, u, a = (pt.tensor(name, shape=(), dtype="float64") for name in ("x", "u", "a"))
    [inner] = optapi.solve([u], (u - a * x) ** 2, tolerance=1e-12).parameters
    [outer] = optapi.solve([x], (x - 1) ** 2 + inner**2, tolerance=1e-12).parameters
    first = pytensor.grad(outer, a)
    value, first, second = compiled([a], [outer, first, pytensor.grad(first, a)])(0.7)
    b = 1 + 0.7**2
    np.testing.assert_allclose([value, first, second], [1 / b, -1.4 / b**2, -2 / b**2 + 8 * 0.49 / b**3], atol=1e-10)


Q = np.array([[3.0, 1.0, 0.5], [1.0, 2.0, 0.3], [0.5, 0.3, 1.0]])


@pytest.mark.parametrize("ascent", [False, True])
def test_components_at_their_bounds_move_with_these(ascent):
    x, t, low = pt.tensor("x", shape=(3,), dtype="float64"), pt.dvector("t"), pt.dscalar("low")
    cost = x @ (Q @ x) / 2 - t @ x
    cost = -cost if ascent else cost
    solution = optapi.solve([x], cost, bounds=(low, None), tolerance=1e-10, ascent=ascent)
    slopes = [pytensor.grad(solution.parameters[0][i], wrt) for i in range(3) for wrt in (t, low)]
    rates = pytensor.grad(solution.cost, [low, t])
    f = compiled([t, low], [solution.parameters[0], *slopes, *solution.bound_multipliers, *rates])
    point, *slopes, w, by_low, by_t = f(np.array([1.0, 2.0, -3.0]), 0.1)
    middle = (2 - (1 + 0.3) * 0.1) / 2  # the first and the last component are at their bound
    np.testing.assert_allclose(point, [0.1, middle, 0.1], atol=1e-10)
    expected = [[0, 0, 0], 1, [0, 0.5, 0], -0.65, [0, 0, 0], 1]
    for found, value in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-9)
    gradient = Q @ point - [1.0, 2.0, -3.0]
    sign = -1 if ascent else 1
    np.testing.assert_allclose(w, sign * gradient * [1, 0, 1], atol=1e-8)
    np.testing.assert_allclose(by_low, w.sum(), atol=1e-8)  # the rate at which the cost changes
    np.testing.assert_allclose(by_t, -sign * point, atol=1e-8)


@pytest.mark.parametrize("mode", [BACKENDS[0], LONG[2]])
def test_multipliers_are_the_rates_of_the_limits(mode):
    # The point of the simplex sum x = b, x >= 0 nearest to t; one component is at its bound, and one row is not active.
    x, t, b = pt.tensor("x", shape=(3,), dtype="float64"), pt.dvector("t"), pt.dscalar("b")
    solution = optapi.solve(
        [x], pt.sum((x - t) ** 2) / 2, "sqp", bounds=(0, None), start=np.full(3, 1 / 3), tolerance=1e-10,
        constraints=[(pt.sum(x**2), None, 50.0), (pt.sum(x), b)],
    )  # fmt: skip
    unused, y = solution.multipliers
    wrt = [t, b]
    outputs = [
        solution.parameters[0], y, unused, solution.reason, *pytensor.grad(solution.cost, wrt), *pytensor.grad(y, wrt),
        *pytensor.grad(solution.parameters[0][0], wrt), pytensor.grad(unused, b),
    ]  # fmt: skip
    found = compiled([t, b], outputs, mode)(np.array([0.9, 0.6, -0.4]), 1.0)
    # x = t + y on the free components, so y = (b - t0 - t1) / 2.
    expected = [[0.65, 0.35, 0], -0.25, 0, 0, [0.25, 0.25, -0.4], -0.25, [-0.5, -0.5, 0], 0.5, [0.5, -0.5, 0], 0.5, 0]
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-8)


def test_failures_have_no_derivatives_each_in_its_member():
    x, a, many = pt.tensor("x", shape=(2,), dtype="float64"), pt.dscalar("a"), pt.dvector("many")
    # Unbounded below for a < 0.
    solution = optapi.solve([x], a * pt.sum(x**2) - pt.sum(x), start=np.ones(2))
    value = pt.sum(solution.parameters[0])
    outputs = [value, pytensor.grad(value, a), solution.reason]
    wide = vectorize_graph(outputs, {a: many})
    value, slope, reason = compiled([many], wide)(np.array([1.0, -1.0, 2.0]))
    np.testing.assert_allclose(slope[[0, 2]], [-1.0, -0.25], rtol=1e-6)
    assert np.isnan(slope[1])
    assert reason[1] not in (0, 5, 7) and list(reason[[0, 2]]) == [0, 0]
    assert np.isfinite(value[[0, 2]]).all()


def test_limits_and_singular_systems_have_no_derivatives():
    x, a = pt.tensor("x", shape=(2,), dtype="float64"), pt.dscalar("a")
    cost = pt.sum((x - a) ** 4)
    few = optapi.solve([x], cost, max_iterations=2, tolerance=1e-12)
    kept = optapi.solve([x], pt.sum((x - a) ** 2), max_iterations=1, step_size=0.1, rule="sgd", on_failure="ignore")
    flat = optapi.solve([x], (x[0] - a) ** 2)  # the second component does not matter
    outputs = []
    for solution in (few, kept, flat):
        value = pt.sum(solution.parameters[0])
        outputs += [pytensor.grad(value, a), solution.reason]
    first, reason, second, other, third, _ = compiled([a], outputs)(1.5)
    assert np.isnan(first) and reason == 1
    np.testing.assert_allclose(second, 2.0)
    assert other == 1
    assert np.isnan(third)


@pytest.mark.parametrize("linear_solver", ["dense", "cg"])
@pytest.mark.parametrize("method", ["newton", "levenberg_marquardt", "broyden"])
def test_roots_against_differences(method, linear_solver):
    x, a = pt.tensor("x", shape=(2,), dtype="float64"), pt.dvector("a")
    equations = [a[0] * x[0] ** 2 + x[1] - a[1], pt.exp(x[0]) - x[1] ** 2 * a[0] - 1]
    solution = optapi.root([x], equations, method, start=np.ones(2), tolerance=1e-11, linear_solver=linear_solver)
    check_equations(solution, a, np.array([1.0, 3.0]))


@pytest.mark.parametrize("memory", [0, 5])
def test_fixed_points_against_differences(memory):
    W = np.random.default_rng(0).normal(size=(6, 6)) * 0.3
    z, u = pt.tensor("z", shape=(6,), dtype="float64"), pt.dvector("u")
    solution = optapi.fixed_point([z], [pt.tanh(W @ z + u)], memory=memory, tolerance=1e-12)
    count = check_equations(solution, u, np.arange(6) / 6)
    assert count < (20 if memory else 60)


def check_equations(solution, theta, point):
    weights = np.arange(1.0, 1 + solution.parameters[0].type.shape[0])
    value = pt.sum(weights * pt.sin(solution.parameters[0]))
    first = pytensor.grad(value, theta)
    along = pt.sum(pt.sin(first))
    outputs = [value, first, along, pytensor.grad(along, theta), solution.reason, solution.evaluations]
    f = compiled([theta], outputs)
    found = f(point)
    assert found[4] in (0, 7)
    np.testing.assert_allclose(found[1], differences(lambda p: f(p)[0], point), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found[3], differences(lambda p: f(p)[2], point), rtol=1e-7, atol=1e-7)
    return found[5]


# PyTensor 3.0 keeps no batch of decompositions on disk, and numba says so.
@pytest.mark.filterwarnings("ignore:Cannot cache compiled function")
@pytest.mark.parametrize("mode", [LONG[0], *BACKENDS[2:]])
def test_roots_of_backends(mode):
    # JAX warns of each broadcast along a batch whose length it has to take on trust.
    x, a, many = (
        pt.tensor(name, shape=shape, dtype="float64") for name, shape in [("x", (2,)), ("a", ()), ("many", (3,))]
    )
    solution = optapi.root([x], pt.stack([x[0] ** 2 - a, x[0] * x[1] - 1]), start=np.ones(2), tolerance=1e-11)
    first = pytensor.grad(solution.parameters[0][1], a)  # x1 = a^(-1/2)
    wide = vectorize_graph([solution.parameters[0], first, pytensor.grad(first, a)], {a: many})
    values = np.array([0.5, 2.0, 9.0])
    point, first, second = compiled([many], wide, mode)(values)
    np.testing.assert_allclose(point, np.stack([values**0.5, values**-0.5], axis=1), rtol=1e-9)
    np.testing.assert_allclose(first, -(values**-1.5) / 2, rtol=1e-9)
    np.testing.assert_allclose(second, 3 / 4 * values**-2.5, rtol=1e-9)


def test_newtons_method_falls_back_where_the_jacobian_is_singular():
    # At the start the derivative of the second equation is zero.
    x, a = pt.tensor("x", shape=(2,), dtype="float64"), pt.dscalar("a")
    solution = optapi.root([x], pt.stack([x[0] + x[1] - a, x[1] ** 2 - 1 + 0 * x[0]]), start=np.array([2.0, 0.0]))
    nothing = optapi.root([x], pt.stack([x[0] ** 2 + 1 + a**2, x[1]]), start=np.ones(2))
    slopes = [pytensor.grad(pt.sum(s.parameters[0]), a) for s in (solution, nothing)]
    reason, point, slope, none, lost = compiled(
        [a], [solution.reason, solution.parameters[0], slopes[0], nothing.reason, slopes[1]]
    )(3.0)
    assert reason == 0
    np.testing.assert_allclose([*point, slope], [2.0, 1.0, 1.0], atol=1e-8)
    assert np.isnan(lost) and none not in (0, 5, 7)


def test_shared_parameters_give_the_start_and_are_not_changed():
    p, a = pytensor.shared(np.array([-3.0]), name="p"), pt.dscalar("a")
    solution = optapi.solve([p], pt.sum((p**2 - a) ** 2))
    f = compiled([a], [solution.parameters[0], pytensor.grad(solution.parameters[0][0], a)])
    point, slope = f(4.0)
    np.testing.assert_allclose([*point, slope], [-2.0, -0.25], rtol=1e-6)
    assert p.get_value() == -3.0
    p.set_value(np.array([1.0]))
    np.testing.assert_allclose(f(4.0)[0], [2.0], rtol=1e-6)


def test_only_inputs_count_where_they_are_given():
    x, a, b = pt.tensor("x", shape=(), dtype="float64"), pt.dscalar("a"), pt.dscalar("b")
    [found] = optapi.solve([x], (x - pt.exp(a) * b) ** 2, inputs=[a]).parameters
    f = compiled([a, b], [pytensor.grad(found, a), pytensor.grad(found, b, disconnected_inputs="ignore")])
    np.testing.assert_allclose(f(0.3, 2.0), [2 * np.exp(0.3), 0], rtol=1e-6)
    other = pt.dscalar("other")
    with pytest.raises(pytensor.gradient.DisconnectedInputError):
        pytensor.grad(found, other)
    with pytest.raises(ValueError, match=r"inputs\[0\] is other"):
        optapi.solve([x], (x - a) ** 2, inputs=[other])


def test_ops_of_other_problems_are_others():
    x, a = pt.tensor("x", shape=(), dtype="float64"), pt.dscalar("a")
    costs = [(x - a) ** 2, (x - a) ** 2, (x - a) ** 2, 2 * (x - a) ** 2]
    options = [{"linear_solver": "dense"}, {"linear_solver": "cg"}, {"tolerance": 1e-3}, {}]
    ops = [
        optapi.solve([x], cost, **keywords).parameters[0].owner.op
        for cost, keywords in zip(costs, options, strict=True)
    ]
    assert len(set(ops)) == 4
    assert all(one != other for i, one in enumerate(ops) for other in ops[:i])
    # Two solutions in one function keep their own derivatives.
    f = [optapi.solve([x], cost, tolerance=1e-12).parameters[0] for cost in ((x - a) ** 2, (x - 2 * a) ** 2)]
    found = compiled([a], [pytensor.grad(v, a) for v in f])(3.0)
    np.testing.assert_allclose(found, [1.0, 2.0], rtol=1e-12)


def test_float32():
    x, a = pt.tensor("x", shape=(2,), dtype="float32"), pt.fscalar("a")
    solution = optapi.solve([x], pt.sum((x - a) ** 2) + pt.sum(x**4), tolerance=1e-4)
    slope = pytensor.grad(pt.sum(solution.parameters[0]), a)
    assert solution.parameters[0].type.dtype == slope.type.dtype == "float32"
    point, slope = compiled([a], [solution.parameters[0], slope])(np.float32(1.5))
    np.testing.assert_allclose(slope, np.sum(2 / (2 + 12 * point**2)), rtol=1e-4)


def test_bad_arguments_are_refused_by_a_sentence():
    x, n, u = pt.tensor("x", shape=(2,), dtype="float64"), pt.lvector("n"), pt.dvector("u")
    cost = pt.sum(x**2)
    noisy = pt.sum((x - pt.random.shared_rng(seed=1).normal(size=(2,))[1]) ** 2)
    for call, kind, said in [
        (lambda: optapi.solve([n], pt.sum(n**2.0)), TypeError, "'n' has dtype int64"),
        (lambda: optapi.solve([x], noisy), ValueError, "draws random numbers"),
        (lambda: optapi.solve([x]), ValueError, "solve needs the cost"),
        (lambda: optapi.solve([u], pt.sum(u**2)), TypeError, r"pt.specify_shape\(variable, shape\)"),
        (lambda: optapi.solve([x], cost, start=np.zeros(3)), ValueError, r"start\[0\] has shape \(3,\)"),
        (lambda: optapi.solve([x], cost, start=[]), ValueError, "start has no entry for each of the 1 parameters"),
        (lambda: optapi.solve([x], cost, l1=0.1), ValueError, "leave it out"),
        (lambda: optapi.solve([x], cost, linear_solver="qr"), ValueError, "linear_solver is 'qr'"),
        (lambda: optapi.solve([x], cost, on_failure="raise"), ValueError, "on_failure is 'raise'"),
        (lambda: optapi.solve([x], cost, "lbgfs"), ValueError, "did you mean 'lbfgs'"),
        (lambda: optapi.solve([x], cost, "sqp", constraints=(x[0], 1), linear_solver="cg"), ValueError, "not definite"),
        (lambda: optapi.root([x], [x[0]]), ValueError, "1 components, and the parameters have 2"),
        (lambda: optapi.root([x], [x], "secant"), ValueError, "method is 'secant'"),
        (lambda: optapi.fixed_point([x], [x[0]]), ValueError, r"images\[0\] has shape \(\)"),
        (lambda: optapi.laplace([x], cost, bounds=(0, 1)), ValueError, "laplace takes no bounds="),
    ]:
        with pytest.raises(kind, match=said):
            call()


def test_placeholders_with_specified_shapes():
    raw, a = pt.dvector("raw"), pt.dscalar("a")
    x = pt.specify_shape(raw, (3,))
    [found] = optapi.solve([x], pt.sum((x - a) ** 2)).parameters
    assert found.type.shape == (3,)
    np.testing.assert_allclose(compiled([a], [found])(2.0)[0], 2.0, rtol=1e-6)
