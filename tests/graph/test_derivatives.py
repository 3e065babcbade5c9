"""Products with second derivatives, and the conjugate gradient solver, against explicit matrices."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.graph.numpy_linker import STEP
from optapi.objective import Objective
from optapi.rules import _linear_algebra
from optapi.rules._linear_algebra import conjugate_gradients


RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(7, 3)), RNG.integers(0, 4, size=7)


def network(dtype="float64", data=None):
    """A layer of tanh and a softmax: parameters, logits, and the loss as a function of the logits."""
    shapes = {"V": (3, 5), "c": (5,), "W": (5, 4), "b": (4,)}
    rng = np.random.default_rng(1)
    ps = [pytensor.shared(rng.normal(size=shape).astype(dtype), name=name) for name, shape in shapes.items()]
    V, c, W, b = ps
    z = pt.tanh((X.astype(dtype) if data is None else data) @ V + c) @ W + b
    return ps, z


def cross_entropy(z, labels=LABELS):
    return -pt.mean(pt.special.log_softmax(z, axis=1)[np.arange(len(labels)), labels])


def residual_network():
    ps, z = network()
    target = RNG.normal(size=(7, 4))
    return ps, (z - target).ravel()


def matrix(f, product, *, point=None):
    """The matrix of `product`, column by column."""
    x = f.pack(f.parameters) if point is None else pt.as_tensor(point)
    v = pt.vector("v", dtype=f.dtype, shape=(f.size,))
    function = pytensor.function([v], product(x, v), mode=STEP)
    return np.stack([function(e) for e in np.eye(f.size, dtype=f.dtype)], axis=1)


def numeric_jacobian(ps, outputs):
    """The derivatives of `outputs` by all parameters, by central differences of fourth order."""
    function = pytensor.function([], pt.concatenate([z.ravel() for z in outputs]), mode=STEP)
    columns, h = [], 1e-3
    for p in ps:
        begin = p.get_value()
        for index in np.ndindex(begin.shape):
            column = 0
            for weight, times in ((8, 1), (-8, -1), (-1, 2), (1, -2)):
                value = begin.copy()
                value[index] += times * h
                p.set_value(value)
                column = column + weight * function() / (12 * h)
            columns.append(column)
        p.set_value(begin)
    return np.stack(columns, axis=1)


def test_the_product_with_the_hessian():
    ps, z = network()
    f = Objective.of(ps, cross_entropy(z), name="test", needs_cost=True)
    H = matrix(f, f.curvature())
    np.testing.assert_allclose(H, H.T, atol=1e-14)
    np.testing.assert_allclose(H, numeric_jacobian(ps, f.gradients), atol=1e-10)


def test_the_gauss_newton_product_of_outputs():
    ps, z = network()
    f = Objective.of(ps, cross_entropy(z), name="test", needs_cost=True)
    G = matrix(f, f.curvature(outputs=z))
    J = numeric_jacobian(ps, [z])
    logits = pytensor.function([], z, mode=STEP)()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    H = np.zeros((28, 28))
    for i in range(7):
        H[4 * i : 4 * i + 4, 4 * i : 4 * i + 4] = (np.diag(p[i]) - np.outer(p[i], p[i])) / 7
    np.testing.assert_allclose(G, J.T @ H @ J, atol=1e-10)
    np.testing.assert_allclose(G, G.T, atol=1e-15)
    assert np.linalg.eigvalsh(G)[0] > -1e-15
    assert np.linalg.eigvalsh(matrix(f, f.curvature()))[0] < -1e-3


def test_the_gauss_newton_product_of_residuals():
    ps, r = residual_network()
    f = Objective.of(ps, 0.5 * pt.sum(r**2), name="test", needs_cost=True)
    J = numeric_jacobian(ps, [r])
    by_residuals = matrix(f, f.curvature(residuals=r))
    np.testing.assert_allclose(by_residuals, J.T @ J, atol=1e-9)
    np.testing.assert_allclose(matrix(f, f.curvature(outputs=r)), by_residuals, rtol=1e-13, atol=1e-13)
    half = matrix(f, f.curvature(residuals=[r[:10], r[10:]]))
    np.testing.assert_allclose(half, by_residuals, rtol=1e-13, atol=1e-13)


def test_linear_outputs_with_a_squared_loss_have_the_hessian():
    w = pytensor.shared(RNG.normal(size=3), name="w")
    z = pt.dot(X, w)
    f = Objective.of([w], pt.sum((z - 1) ** 2), name="test", needs_cost=True)
    np.testing.assert_allclose(matrix(f, f.curvature(outputs=z)), matrix(f, f.curvature()), rtol=1e-14)


def test_a_penalty_on_a_parameter_that_is_listed():
    ps, z = network()
    penalty = 0.3 * pt.sum(ps[0] ** 2) + 0.1 * pt.sum(ps[2] ** 4)
    f = Objective.of(ps, cross_entropy(z), name="test", needs_cost=True)
    g = Objective.of(ps, cross_entropy(z) + penalty, name="test", needs_cost=True)
    added = matrix(g, g.curvature(outputs=[z, ps[0], ps[2]])) - matrix(f, f.curvature(outputs=z))
    W = ps[2].get_value().ravel()
    np.testing.assert_allclose(
        added, np.diag(np.r_[np.full(15, 0.6), np.zeros(5), 1.2 * W**2, np.zeros(4)]), atol=1e-14
    )


def test_ascent_changes_the_sign():
    ps, z = network()
    down = Objective.of(ps, cross_entropy(z), name="test", needs_cost=True)
    up = Objective.of(ps, -cross_entropy(z), ascent=True, name="test", needs_cost=True)
    np.testing.assert_allclose(
        matrix(up, up.curvature(outputs=z)), matrix(down, down.curvature(outputs=z)), rtol=1e-14, atol=1e-16
    )


def test_another_point_and_other_data():
    data = pytensor.shared(X, name="data")
    ps, z = network(data=data)
    f = Objective.of(ps, pt.mean(z**2), name="test", needs_cost=True)
    point = RNG.normal(size=f.size)
    here = matrix(f, f.curvature(outputs=z, givens={data: X[:3]}), point=point)
    data.set_value(X[:3])
    for p, value in zip(ps, np.split(point, np.cumsum([15, 5, 20])), strict=True):
        p.set_value(value.reshape(p.get_value().shape))
    np.testing.assert_allclose(here, matrix(f, f.curvature(outputs=z)), rtol=1e-13, atol=1e-15)


def test_a_vector_that_depends_on_the_parameters():
    """It is not moved to the other point."""
    w = pytensor.shared(np.array([1.0, 2.0]), name="w")
    f = Objective.of([w], pt.sum(w**4), name="test", needs_cost=True)
    out = f.product(pt.as_tensor(np.array([1.0, 1.0])), f.pack(f.gradients))
    np.testing.assert_allclose(pytensor.function([], out, mode=STEP)(), 12 * 4 * np.array([1.0, 8.0]))


def test_float32_stays():
    ps, z = network("float32")
    f = Objective.of(ps, cross_entropy(z), name="test", needs_cost=True)
    x, v = f.pack(ps), pt.fvector()
    for product in (f.curvature(), f.curvature(outputs=z)):
        assert product(x, v).dtype == "float32"


def test_an_operation_whose_gradient_has_none():
    """Forward mode is the fall-back."""

    class Cube(pytensor.graph.op.Op):
        itypes, otypes = [pt.dvector], [pt.dvector]

        def perform(self, node, inputs, outputs):
            outputs[0][0] = inputs[0] ** 3

        def pullback(self, inputs, outputs, cotangents):
            return [CubeGradient()(*inputs, *cotangents)]

        def pushforward(self, inputs, outputs, tangents):
            return [3 * inputs[0] ** 2 * tangents[0]]

    class CubeGradient(pytensor.graph.op.Op):
        itypes, otypes = [pt.dvector, pt.dvector], [pt.dvector]

        def perform(self, node, inputs, outputs):
            outputs[0][0] = 3 * inputs[0] ** 2 * inputs[1]

    w = pytensor.shared(np.array([1.0, 2.0]), name="w")
    z = Cube()(w)
    f = Objective.of([w], pt.sum(z**2) / 2, name="test", needs_cost=True)
    np.testing.assert_allclose(matrix(f, f.curvature(outputs=z)), np.diag([9.0, 144.0]))


def test_through_a_scan():
    W = pytensor.shared(RNG.normal(size=(3, 3)), name="W")
    states = pytensor.scan(
        lambda x, h, W: pt.tanh(pt.dot(h, W) + x), [pt.as_tensor(X)], [pt.zeros(3)], [W], return_updates=False
    )
    z = states[-1]
    f = Objective.of([W], pt.sum((z - 1) ** 2) / 2, name="test", needs_cost=True)
    x, v = f.pack([W]), pt.dvector()
    function = pytensor.function([v], f.curvature(outputs=z)(x, v), mode=optapi.PYTHON)
    G = np.stack([function(e) for e in np.eye(9)])
    h, J = np.zeros(3), np.zeros((3, 9))
    for row in X:
        slopes = 1 - np.tanh(h @ W.get_value() + row) ** 2
        J = slopes[:, None] * (
            W.get_value().T @ J + np.einsum("a,bc->bac", h, np.eye(3)).transpose(0, 1, 2).reshape(3, 9)
        )
        h = np.tanh(h @ W.get_value() + row)
    np.testing.assert_allclose(G, J.T @ J, atol=1e-12)


@pytest.mark.parametrize(
    ("message", "outputs"),
    [
        ("is empty", lambda ps, z: []),
        ("listed twice", lambda ps, z: [z, z]),
        ("does not depend on the parameters", lambda ps, z: pt.as_tensor(X)),
        ("the cost does not depend on the variable 'V' of outputs", lambda ps, z: [z, ps[0]]),
        ("the cost does not depend on the variable", lambda ps, z: z - 1),
        ("parameter 'b' not through outputs alone", lambda ps, z: z),
    ],
)
def test_bad_outputs(message, outputs):
    ps, z = network()
    cost = cross_entropy(z) + (pt.sum(ps[3] ** 2) if "'b'" in message else 0)
    with pytest.raises(ValueError, match=message):
        Objective.of(ps, cost, name="test", needs_cost=True).curvature(outputs=outputs(ps, z))


def test_bad_givens():
    ps, z = network()
    f = Objective.of(ps, cross_entropy(z), name="test", needs_cost=True)
    with pytest.raises(ValueError, match="which the cost does not read"):
        f.curvature(givens={pytensor.shared(1.0, name="other"): 2.0})
    with pytest.raises(TypeError, match="pass a dictionary"):
        f.curvature(givens=[1.0])


# Conjugate gradients


def solve(A, g, **options):
    """What the solver returns for the model of the matrix `A` and the gradient `g`, as arrays."""
    A, g = np.asarray(A), np.asarray(g)
    matrix, gradient = pt.as_tensor(A), pt.as_tensor(g)
    solution = conjugate_gradients(lambda v: pt.dot(matrix, v), gradient, **options)
    outputs = [*solution[:5], *(solution.iterates or ())]
    values = pytensor.function([], outputs, mode=STEP)()
    iterates = _linear_algebra.Iterates(*values[5:]) if solution.iterates else None
    return _linear_algebra.Solution(*values[:5], iterates)


def problem(n=20, condition=100.0, negative=0):
    Q = np.linalg.qr(np.random.default_rng(2).normal(size=(n, n)))[0]
    eigenvalues = np.geomspace(1, condition, n)
    eigenvalues[:negative] *= -1
    return Q @ np.diag(eigenvalues) @ Q.T, np.random.default_rng(3).normal(size=n)


def twin(A, g, steps, *, start=None, diagonal=1.0):
    """Plain preconditioned conjugate gradients: the iterates."""
    d = np.zeros_like(g) if start is None else start
    r = A @ d + g
    p, iterates = -r / diagonal, []
    for _ in range(steps):
        a = (r @ (r / diagonal)) / (p @ A @ p)
        d, new = d + a * p, r + a * A @ p
        p, r = -new / diagonal + (new @ (new / diagonal)) / (r @ (r / diagonal)) * p, new
        iterates.append(d)
    return iterates


def value(A, g, d):
    return 0.5 * d @ A @ d + g @ d


def test_each_step_and_the_solution():
    A, g = problem(condition=10.0)
    expected = twin(A, g, 8)
    models = [0.0]
    for steps in range(1, 9):
        found = solve(A, g, steps=steps)
        np.testing.assert_allclose(found.vector, expected[steps - 1], rtol=1e-11)
        np.testing.assert_allclose(found.residual, A @ found.vector + g, atol=1e-12)
        assert (found.products, found.reason) == (steps, _linear_algebra.STEPS)
        models.append(float(found.model))
        np.testing.assert_allclose(models[-1], value(A, g, found.vector), rtol=1e-12)
    assert np.all(np.diff(models) < 0)
    found = solve(A, g, steps=200, tolerance=1e-10)
    np.testing.assert_allclose(found.vector, np.linalg.solve(A, -g), rtol=1e-8, atol=1e-10)
    assert found.reason == _linear_algebra.SOLVED
    assert found.products <= 22


def test_no_steps_and_nothing_to_solve():
    A, g = problem()
    found = solve(A, g, steps=0)
    assert (found.products, found.model) == (0, 0)
    assert np.all(found.vector == 0)
    found = solve(A, 0 * g, steps=5)
    assert (found.products, found.reason) == (0, _linear_algebra.SOLVED)
    found = solve(A, g, steps=5, start=np.zeros_like(g), tolerance=1e3)
    assert (found.products, found.reason) == (0, _linear_algebra.SOLVED)


def test_a_start_and_a_preconditioner():
    A, g = problem()
    A = A + np.diag(np.geomspace(1, 1e4, 20))
    start, diagonal = np.random.default_rng(4).normal(size=20), np.diag(A).copy()
    found = solve(A, g, steps=6, start=start, diagonal=diagonal)
    np.testing.assert_allclose(found.vector, twin(A, g, 6, start=start, diagonal=diagonal)[-1], rtol=1e-10)
    assert found.products == 7  # the first is for the start
    cold = solve(A, g, steps=6, start=np.zeros(20), diagonal=diagonal)
    np.testing.assert_allclose(cold.vector, solve(A, g, steps=6, diagonal=diagonal).vector, rtol=1e-12)
    assert cold.products == 6
    constant = solve(A, g, steps=6, diagonal=np.full(20, 3.0))
    np.testing.assert_allclose(constant.vector, solve(A, g, steps=6).vector, rtol=1e-10)


def runs(A, g, **options):
    """A function from the number of steps to the solver's own result: that of another order of arithmetic parts from it
    after some tens of steps.
    """
    count, v = pt.lscalar(), pt.as_tensor(g)
    return pytensor.function([count], conjugate_gradients(lambda v: pt.dot(A, v), v, count, **options)[:5], mode=STEP)


@pytest.mark.parametrize(("start", "condition"), [(None, 100.0), (None, 1e5), (0.5, 1e3)])
def test_the_stop_at_little_progress(start, condition):
    A, g = problem(n=150, condition=condition)
    begin = None if start is None else start * np.random.default_rng(5).normal(size=150)
    run = runs(A, g, start=begin)
    models = [run(i)[-1] for i in range(1, 251)]
    for i in range(1, 251):
        k = max(10, -(-i // 10))
        if i > k and models[i - k - 1] < 0 and (models[i - 1] - models[i - k - 1]) / models[i - 1] < k * 5e-4:
            break
    found = solve(A, g, steps=250, start=begin, progress=5e-4)
    assert 15 < i < 240
    assert (i > 100) == (condition == 1e5)  # the window has grown
    assert (found.products, found.reason) == (i + (start is not None), _linear_algebra.SETTLED)
    np.testing.assert_allclose(found.model, models[i - 1], rtol=1e-12)


@pytest.mark.parametrize("steps", [3, 5, 6, 26, 250])
def test_kept_iterates(steps):
    A, g = problem(n=40, condition=1e3)
    found = solve(A, g, steps=steps, keep=True, tolerance=1e-7)
    marks = np.ceil(5 * 1.3 ** np.arange(40))
    kept = [i for i in marks if i < found.products] + [int(found.products)]
    run = runs(A, g)
    assert found.iterates.last == len(kept) - 1
    for row, i in enumerate(kept):
        vector, *_, model = run(i)
        np.testing.assert_allclose(found.iterates.vectors[row], vector, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found.iterates.models[row], model, rtol=1e-12)
        np.testing.assert_allclose(model, value(A, g, vector), rtol=1e-8)
    assert np.array_equal(found.iterates.vectors[len(kept) - 1], found.vector)
    assert len(found.iterates.vectors) == 1 + sum(marks <= steps)


def test_curvature_that_is_not_positive():
    A, g = problem(negative=3)
    found = solve(A, g, steps=50)
    assert found.reason == _linear_algebra.CURVED
    d = twin(A, g, int(found.products) - 1)
    np.testing.assert_allclose(found.vector, d[-1], rtol=1e-8)
    assert found.model < 0
    first = solve(-np.eye(3), np.array([3.0, 0.0, 4.0]), steps=50)
    np.testing.assert_allclose(first.vector, [-3.0, 0.0, -4.0])
    assert (first.reason, first.products) == (_linear_algebra.CURVED, 1)
    flat = solve(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 0.0]), steps=5)
    np.testing.assert_allclose(flat.vector, [-2.0, 0.0])


def test_curvature_that_is_not_positive_is_followed():
    A, g = problem(negative=3)
    found, inner = solve(A, g, steps=50, follow=True), solve(A, g, steps=50)
    assert (found.reason, found.products) == (_linear_algebra.CURVED, inner.products)
    p, r = found.vector - inner.vector, A @ inner.vector + g
    assert p @ A @ p < 0
    assert g @ p < 0
    # The direction is conjugate to what was done before, and its length is |r|^2 / |A p| by the unscaled direction.
    np.testing.assert_allclose(p @ A @ inner.vector, 0, atol=1e-8 * abs(g @ p))
    np.testing.assert_allclose(-(g @ p), (r @ r) ** 2 / (-(g @ p) * np.linalg.norm(A @ p) / np.linalg.norm(p)), rtol=1)
    np.testing.assert_allclose(found.model, value(A, g, found.vector), rtol=1e-9)
    assert found.model < inner.model


def test_a_model_without_curvature_and_one_that_is_not_finite():
    for bad in (np.zeros((2, 2)), np.full((2, 2), np.nan)):
        found = solve(bad, np.ones(2), steps=5)
        assert np.all(found.vector == 0)
        assert found.reason == _linear_algebra.CURVED


@pytest.mark.parametrize("negative", [0, 3])
@pytest.mark.parametrize("radius", [1e-3, 0.1, 0.5, 1e3])
def test_a_trust_region(radius, negative):
    A, g = problem(negative=negative)
    found = solve(A, g, steps=100, tolerance=1e-9, radius=radius)
    size = np.linalg.norm(found.vector)
    if negative or radius < np.linalg.norm(np.linalg.solve(A, g)):
        assert found.reason == _linear_algebra.BOUNDARY
        np.testing.assert_allclose(size, radius, rtol=1e-12)
    else:
        assert found.reason == _linear_algebra.SOLVED
        assert size < radius
    # No worse than the best point along the steepest descent, which the first step is.
    gAg, most = g @ A @ g, radius / np.linalg.norm(g)
    a = min(most, g @ g / gAg) if gAg > 0 else most
    assert found.model <= value(A, g, -a * g) + 1e-12
    np.testing.assert_allclose(found.model, value(A, g, found.vector), rtol=1e-9)


def test_the_lower_end_of_a_line_of_negative_curvature():
    A, g = np.diag([1.0, 0.1, -2.0]), np.array([1.0, 1.0, 1e-3])
    found = solve(A, g, steps=10, radius=20.0)
    inner = solve(A, g, steps=int(found.products) - 1, radius=20.0)
    assert found.reason == _linear_algebra.BOUNDARY
    towards = found.vector - inner.vector
    roots = np.roots([towards @ towards, 2 * towards @ inner.vector, inner.vector @ inner.vector - 400])
    best = min(value(A, g, inner.vector + a * towards) for a in roots)
    np.testing.assert_allclose(found.model, best, rtol=1e-10)


def test_float32():
    A, g = problem(condition=10.0)
    found = solve(A.astype("float32"), g.astype("float32"), steps=30, tolerance=1e-4, keep=True, progress=5e-4)
    assert {v.dtype.name for v in (found.vector, found.residual, found.model, found.iterates.vectors)} == {"float32"}
    np.testing.assert_allclose(found.vector, np.linalg.solve(A, -g), atol=2e-3)
