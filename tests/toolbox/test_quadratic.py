"""`quadratic_program`: solutions that are known, degenerate ones too, and what is wrong."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import constrained as reference

import optapi
from optapi.graph.by_hand import SMALL
from optapi.graph.numpy_linker import STEP


def program(rng, n, k, m, condition, scale, degenerate):
    """A convex program with its solution and multipliers; if degenerate, with rows twice, and active ones without."""
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    B = Q * np.geomspace(1, condition, n) @ Q.T
    x, A, G = scale * rng.normal(size=n), rng.normal(size=(k, n)), rng.normal(size=(m, n))
    if degenerate:
        A[-1], G[-1] = A[0], G[0]
    active = rng.random(m) < 0.1
    z = np.where(active & (rng.random(m) < (0.5 if degenerate else 1)), scale * rng.random(m), 0)
    slack = np.where(active, 0, scale * (0.1 + rng.random(m)))
    if degenerate:
        z[-1], slack[-1] = 0, slack[0]
    kind = rng.integers(0, 12, n)  # at its low, at its high, between both, free
    low = np.select([kind == 0, kind == 2], [x, x - scale], -np.inf)
    high = np.select([kind == 1, kind == 2], [x, x + scale], np.inf)
    w = np.select([kind == 0, kind == 1], [1, -1], 0) * scale * (0.1 + rng.random(n))
    y = scale * rng.normal(size=k)
    g = A.T @ y + G.T @ z + w - B @ x
    return (B, g, A, A @ x, G, G @ x - slack, low, high), (x, y, z, w)


@pytest.mark.parametrize(("n", "k", "m"), [(3, 1, 1), (20, 5, 20), (200, 40, 100)])
def test_known_solutions(n, k, m):
    shapes = ((n, n), (n,), (k, n), (k,), (m, n), (m,), (n,), (n,))
    *given, low, high = (pt.tensor(shape=shape, dtype="float64") for shape in shapes)
    solution = optapi.quadratic_program(*given, (low, high))
    solve = pytensor.function([*given, low, high], list(solution), mode=STEP)
    rng = np.random.default_rng(n)
    for condition, scale, degenerate in ((1, 1, False), (1e6, 1e-3, False), (1e3, 1e4, False), (10, 1, n > 3)):
        arrays, (x, y, z, w) = program(rng, n, k, m, condition, scale, degenerate)
        B, g, A, b, G, h, low_, high_ = arrays
        found, *multipliers, converged, iterations = solve(*arrays)
        assert converged
        assert iterations < 40
        tiny = 1e-9 * scale
        assert np.all((found >= low_ - tiny) & (found <= high_ + tiny) & np.isfinite(found))
        assert np.all(h - G @ found <= tiny)
        np.testing.assert_allclose(A @ found, b, atol=tiny)
        cost = x @ B @ x / 2 + g @ x
        assert found @ B @ found / 2 + g @ found == pytest.approx(cost, rel=1e-7)
        np.testing.assert_allclose(found, x, atol=2e-3 * scale)
        assert np.all(multipliers[1] >= 0)
        if not degenerate and condition < 1e6 and n > 3:
            for mine, theirs in zip(multipliers, (y, z, w), strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-4 * max(scale, 1e-3 * abs(g).max()))


def test_all_active_sets_of_small_programs():
    rng = np.random.default_rng(3)
    B_, g_ = pt.matrix("B", shape=(3, 3), dtype="float64"), pt.vector("g", shape=(3,), dtype="float64")
    G_, h_ = pt.matrix("G", shape=(2, 3), dtype="float64"), pt.vector("h", shape=(2,), dtype="float64")
    solution = optapi.quadratic_program(B_, g_, G=G_, h=h_, bounds=(-1, np.array([1, np.inf, 1])))
    solve = pytensor.function(
        [B_, g_, G_, h_], [solution.x, solution.multipliers, solution.bound_multipliers], mode=STEP
    )
    for _ in range(10):
        root, g, G, h = rng.normal(size=(3, 3)), 3 * rng.normal(size=3), rng.normal(size=(2, 3)), -rng.random(2)
        B = root @ root.T + 0.1 * np.eye(3)
        x, y = reference.quadratic_program(
            B, g, np.vstack([np.eye(3), G]), np.append([-1, -1, -1], h), np.append([1, np.inf, 1], [np.inf, np.inf])
        )
        for found, wanted in zip(solve(B, g, G, h), (x, y[3:], y[:3]), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_without_constraints_it_is_a_linear_system():
    B, g = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([1.0, -2.0])
    solution = optapi.quadratic_program(B, g)
    np.testing.assert_allclose(solution.x.eval(mode=STEP), np.linalg.solve(B, -g), rtol=1e-9)
    assert solution.multipliers.eval(mode=STEP).shape == (0,)


def test_single_precision():
    dtype = "float32"
    solution = optapi.quadratic_program(
        np.eye(2, dtype=dtype), np.array([-2, -5], dtype), G=np.array([[-1, -1]], dtype), h=np.array([-3], dtype)
    )
    assert solution.x.type.dtype == dtype
    np.testing.assert_allclose(solution.x.eval(mode=STEP), [0, 3], atol=1e-4)


def test_what_has_no_solution_has_not_converged():
    solution = optapi.quadratic_program(np.eye(2), np.ones(2), G=np.array([[1.0, 0], [-1, 0]]), h=np.array([1.0, 1.0]))
    x, converged = pytensor.function([], [solution.x, solution.converged], mode=STEP)()
    assert not converged
    assert np.isfinite(x).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"B": np.eye(3)}, r"B has shape \(3, 3\) in the place of \(2, 2\)"),
        ({"B": np.ones(2)}, "B has 1 dimensions; pass a matrix"),
        ({"B": np.eye(2) * 1j}, "B has dtype complex128"),
        ({"g": pt.dvector("g")}, "g has no static shape"),
        ({"A": np.ones((1, 2))}, "A is given without b"),
        ({"h": np.ones(1)}, "h is given without G"),
        ({"G": np.ones((1, 3)), "h": np.ones(1)}, "G has shape"),
        ({"bounds": (1, 0)}, "low above its high"),
        ({"max_iterations": -1}, "max_iterations is -1"),
        ({"tolerance": -1.0}, "tolerance is -1"),
        ({"g": "a"}, "g is"),
    ],
)
def test_what_is_wrong_is_named(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        optapi.quadratic_program(**{"B": np.eye(2), "g": np.ones(2), **arguments})


@pytest.mark.numba
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "k", "m"), [(7, 3, 5), (4, 2, 0), (5, 0, 4), (3, 0, 0), (28, 5, 20)])
def test_numba_goes_the_same_way(n, k, m, dtype):
    """Up to 32 rows it has loops of its own, and above the graph."""
    shapes = {"B": (n, n), "g": (n,), "A": (k, n), "b": (k,), "G": (m, n), "h": (m,), "low": (n,), "high": (n,)}
    given = {name: pt.tensor(name, shape=shape, dtype=dtype) for name, shape in shapes.items() if 0 not in shape}
    matrices = {name: v for name, v in given.items() if name not in ("low", "high")}
    solution = optapi.quadratic_program(**matrices, bounds=(given["low"], given["high"]), max_iterations=40)
    functions = [pytensor.function(list(given.values()), list(solution), mode=mode) for mode in (STEP, "NUMBA")]
    rng = np.random.default_rng(n)
    for condition, scale, degenerate in ((1, 1, False), (1e4, 1e3, False), (10, 1, True)):
        arrays, _ = program(rng, n, max(k, 1), max(m, 1), condition, scale, degenerate and min(k, m) > 1)
        named = dict(zip(shapes, arrays, strict=True))
        values = [named[name].astype(dtype) for name in given]
        (x, *_, converged, iterations), (other, *_, agrees, count) = (f(*values) for f in functions)
        # In the graph numba may round otherwise, and be there a turn earlier or later.
        assert converged == agrees and abs(iterations - count) <= (n + k > SMALL)
        np.testing.assert_allclose(
            other, x, rtol=1e-6 if dtype == "float64" else 1e-2, atol=1e-3 * scale * (dtype == "float32")
        )
    values[list(given).index("g")][0] = np.nan
    x, *_, converged, _ = functions[1](*values)
    assert not converged
    assert np.isfinite(x).all()


@pytest.mark.parametrize(
    "mode", [pytest.param("NUMBA", marks=pytest.mark.numba), pytest.param("JAX", marks=pytest.mark.jax)]
)
def test_backends_agree(mode):
    arrays, (x, *_) = program(np.random.default_rng(0), 5, 2, 4, 10, 1, False)
    *given, low, high = arrays
    solution = optapi.quadratic_program(*given, (low, high))
    np.testing.assert_allclose(pytensor.function([], solution.x, mode=mode)(), x, atol=1e-5)
