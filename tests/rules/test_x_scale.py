"""Typical sizes of the parameters: a change of variables that changes neither points nor tolerances."""

import copy

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.optimize import rosen, rosen_der, rosen_hess_prod

import optapi
from optapi.graph.numpy_linker import STEP
from optapi.scaling import equilibrated


RULES = [
    *("lbfgs", "bfgs", "sr1", "barzilai_borwein", "newton", "newton_cg", "trust_region_cg"),
    *("hessian_free", "krylov_subspace_descent"),
    *("conjugate_gradient", "polak_ribiere", "hager_zhang_cg", "scaled_conjugate_gradient"),
]
START = np.array([-1.2, 1.0])


def logistic(rows, units):
    """The mean cost of a logistic regression, its columns in `units`, the derivative and products with the Hessian."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(rows, len(units))) * units
    truth = np.random.default_rng(12345).normal(size=len(units))
    y = (rng.random(rows) < 1 / (1 + np.exp(-(X @ truth) / 5))).astype(float)

    def rate(w):
        return 1 / (1 + np.exp(-(X @ w)))

    def f(w):
        return np.mean(np.logaddexp(0, X @ w) - y * (X @ w))

    def hessp(w, v):
        return X.T @ (rate(w) * (1 - rate(w)) * (X @ v)) / rows

    return f, lambda w: X.T @ (rate(w) - y) / rows, hessp


UNITS = np.logspace(0, 1, 20)[::-1] / 3


@pytest.mark.parametrize(
    "rule, count, without, most",
    [
        ("lbfgs", lambda r: r.nfev + r.nhev, 50, 12),
        ("newton_cg", lambda r: r.nhev, 55, 12),
        ("trust_region_cg", lambda r: r.nhev, 55, 12),
    ],
)
def test_columns_in_unequal_units(rule, count, without, most):
    f, df, hessp = logistic(20000, UNITS)
    plain, scaled = (
        optapi.minimize(np.zeros(20), f, df, rule, hessp=hessp, full_output=True, tolerance=1e-7, **options)
        for options in ({}, {"x_scale": "curvature"})
    )
    assert plain.success and scaled.success
    np.testing.assert_allclose(scaled.x, plain.x, atol=1e-5)
    # The products that the scales take are among those counted.
    assert count(plain) >= without
    assert count(scaled) <= most


@pytest.mark.parametrize("rule", ["newton_cg", "trust_region_cg"])
def test_a_preconditioner_from_the_curvature(rule):
    f, df, hessp = logistic(20000, UNITS)
    result = optapi.minimize(
        np.zeros(20), f, df, rule, hessp=hessp, full_output=True, tolerance=1e-7, preconditioner="curvature"
    )
    assert result.success
    assert result.nhev <= 12


@pytest.mark.parametrize("rule", ["polak_ribiere", "hager_zhang_cg"])
def test_a_preconditioner_of_conjugate_gradients(rule):
    f, df, hessp = logistic(2000, UNITS)
    runs = [
        optapi.minimize(np.zeros(20), f, df, rule, hessp=hessp, full_output=True, tolerance=1e-6, **options)
        for options in (
            {"x_scale": 1 / UNITS},
            {"preconditioner": [UNITS**2]},
            {"x_scale": "curvature"},
            {"preconditioner": "curvature"},
            {},
        )
    ]
    assert all(run.success for run in runs)
    given, diagonal, found, curvature, plain = (run.nfev for run in runs)
    assert (given, found) == (diagonal, curvature)
    assert 3 * max(given, found) < plain
    np.testing.assert_allclose(runs[0].x, runs[1].x, rtol=1e-6)
    with pytest.raises(ValueError, match="x_scale and preconditioner are two ways to say the same"):
        optapi.minimize(np.zeros(20), f, df, rule, x_scale="start", preconditioner="curvature")
    with pytest.raises(ValueError, match="preconditioner is 'start'; pass"):
        optapi.minimize(np.zeros(20), f, df, rule, preconditioner="start")


@pytest.mark.parametrize("rule", RULES)
def test_points_are_those_of_the_problem_in_these_units(rule):
    units = np.array([2.0, 0.25])
    options = {"tolerance": 1e-12, "max_iterations": 12}
    # In powers of two nothing rounds, so that all is the same to the bit.
    in_units = optapi.minimize_iterator(
        START / units, lambda z: rosen(units * z), lambda z: units * rosen_der(units * z), rule,
        hessp=lambda z, v: units * rosen_hess_prod(units * z, units * v), **options,
    )  # fmt: skip
    scaled = optapi.minimize_iterator(
        START, rosen, rosen_der, rule, hessp=rosen_hess_prod, x_scale=units, **options
    )  # fmt: skip
    taken = 0
    for one, other in zip(in_units, scaled, strict=False):
        np.testing.assert_array_equal(units * one.iterate, other.iterate)
        assert (one.nfev, one.nhev) == (other.nfev, other.nhev)
        taken += 1
    assert taken >= 3
    first, second = in_units.result, scaled.result
    np.testing.assert_array_equal(first.jac / units, second.jac)
    if "hess_inv" in first:
        expected = units[:, None] * (first.hess_inv @ np.eye(2)) * units
        np.testing.assert_array_equal(expected, second.hess_inv @ np.eye(2))


@pytest.mark.parametrize("rule", RULES)
def test_the_tolerance_is_that_of_the_derivative_itself(rule):
    units = np.array([3e3, 0.7])
    run = optapi.minimize_iterator(START, rosen, rosen_der, rule, tolerance=1e-3, hessp=rosen_hess_prod, x_scale=units)
    sizes = [abs(rosen_der(state.iterate)).max() for state in run]
    assert run.success
    assert sizes[-1] <= 1e-3 < min(sizes[:-1])
    np.testing.assert_allclose(run.jac, rosen_der(run.x), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rule", ["lbfgs", "trust_region_cg"])
def test_no_point_is_evaluated_twice_and_nothing_moves_by_rounding(rule):
    seen = []

    def f(x):
        seen.append(x.tobytes())
        return rosen(x[:2]) + 0 * x[2]

    # A third has no finite number of digits; x[2] has no slope.
    result = optapi.minimize(
        [-1.2, 1.0, 0.1], f, lambda x: np.append(rosen_der(x[:2]), 0.0), rule, x_scale=[1 / 3, 7 / 3, 1 / 3],
        full_output=True,
    )  # fmt: skip
    assert result.success
    assert len(set(seen)) == len(seen) == result.nfev
    assert result.x[2] == 0.1


def scales_of(updates):
    [scale] = [variable for variable in updates if (variable.name or "").endswith("/x_scale")]
    return scale.get_value()


def compiled(updates):
    return pytensor.function([], [], updates=updates, mode=STEP)


def parameters(dtype="float64"):
    a = pytensor.shared(np.array([0.0, -3.0, 0.5], dtype), name="a")
    return a, pytensor.shared(np.asarray(-20.0, dtype), name="b")


def bowl(a, b):
    weights = np.array([1.0, 4.0, 100.0], a.type.dtype)
    return pt.sum(weights * (a - 2) ** 2) / 2 + (b + 1) ** 2 / 200 + (b + 1) ** 4 / 1000


def test_sizes_of_the_start():
    a, b = parameters()
    updates = optapi.lbfgs([a, b], bowl(a, b), x_scale="start")
    assert np.isnan(scales_of(updates)).all()
    step = compiled(updates)
    for _ in range(2):  # they are kept
        step()
        np.testing.assert_array_equal(scales_of(updates), [1.0, 3.0, 0.5, 20.0])


def test_scales_of_a_diagonal_hessian_are_those_of_its_diagonal():
    a, b = parameters()
    updates = optapi.newton_cg([a, b], bowl(a, b), x_scale="curvature")
    step = compiled(updates)
    step()
    expected = np.sqrt(1 / np.array([1.0, 4.0, 100.0, 1 / 100 + 12 * 19**2 / 1000]))
    np.testing.assert_allclose(scales_of(updates), expected, rtol=1e-12)
    step()
    np.testing.assert_allclose(scales_of(updates), expected, rtol=1e-12)


@pytest.mark.parametrize("decades", [1, 3, 6])
def test_rows_of_about_the_same_length(decades):
    rng = np.random.default_rng(decades)
    Z = rng.normal(size=(500, 30)) + rng.normal(size=(500, 1)) / 2
    Z = Z * 10 ** rng.uniform(-decades / 2, decades / 2, 30)
    H = Z.T @ Z / 500
    d, count = pytensor.function([], equilibrated(lambda v: (H * v).sum(axis=1), 30, "float64"), mode=optapi.PYTHON)()
    assert count <= 6
    lengths = np.linalg.norm(d[:, None] * H * d, axis=1)
    # Up to one factor for all. Before, it was 10^decades or more.
    assert lengths.max() / lengths.min() < 40
    diagonal = np.linalg.cond(H / np.sqrt(np.outer(np.diag(H), np.diag(H))))
    assert np.linalg.cond(d[:, None] * H * d) < 20 * diagonal


def test_components_without_curvature_keep_the_scale_one():
    H = np.diag([4.0, 0.0, np.nan])
    H[0, 2] = H[2, 0] = 0
    d, _ = pytensor.function([], equilibrated(lambda v: pt.as_tensor(np.diag(H)) * v, 3, "float64"),
                             mode=optapi.PYTHON)()  # fmt: skip
    np.testing.assert_array_equal(d, [0.5, 1, 1])


def test_forms():
    sizes = [1.0, 0.5, 3.0, 10.0]
    a, b = parameters()
    for x_scale in (
        [np.array(sizes[:3]), sizes[3]],
        (sizes[:3], np.float32(sizes[3])),
        {a: sizes[:3], "b": np.array(sizes[3])},
    ):
        np.testing.assert_array_equal(scales_of(optapi.bfgs([a, b], bowl(a, b), x_scale=x_scale)), sizes)
    np.testing.assert_array_equal(scales_of(optapi.bfgs([a], bowl(a, b), x_scale=sizes[:3])), sizes[:3])
    # Variables are read in the first call.
    shared = pytensor.shared(np.array(sizes[:3]))
    updates = optapi.bfgs([a, b], bowl(a, b), x_scale=[shared, pt.constant(sizes[3])])
    step = compiled(updates)
    for _ in range(2):
        step()
        np.testing.assert_array_equal(scales_of(updates), sizes)
        shared.set_value(np.ones(3))


def test_entries_that_are_left_out_are_one():
    a, b = parameters()
    np.testing.assert_array_equal(scales_of(optapi.lbfgs([a, b], bowl(a, b), x_scale={b: 5})), [1, 1, 1, 5])
    np.testing.assert_array_equal(scales_of(optapi.lbfgs([a, b], bowl(a, b), x_scale=2.0)), [2, 2, 2, 2])


@pytest.mark.parametrize(
    "x_scale, error, message",
    [
        ("jac", ValueError, "x_scale is 'jac'; pass 'start' or 'curvature'"),
        ([1.0], ValueError, "x_scale has 1 entries for 2 parameters; pass one for each"),
        (np.ones(4), ValueError, "x_scale is an array for 2 parameters; pass a list"),
        ([np.ones(2), 1.0], ValueError, r"x_scale of 'a' has shape \(2,\); pass positive numbers"),
        ([1.0, -1.0], ValueError, "x_scale of 'b' has sizes that are not positive"),
        (0, ValueError, "x_scale of 'a' has sizes that are not positive"),
        ([np.inf, 1], ValueError, "x_scale of 'a' has sizes that are not positive, or not finite"),
        ([True, 1], TypeError, "x_scale of 'a' is True"),
        ([None, 1], TypeError, "x_scale of 'a' is None"),
        ({"c": 1}, ValueError, r"x_scale has the keys \['c'\]; pass some of the parameters a, b"),
        ({}, ValueError, "x_scale has the keys"),
        ([pt.dmatrix(), 1], TypeError, "x_scale of 'a' is of type"),
    ],
)
def test_what_is_refused(x_scale, error, message):
    a, b = parameters()
    updates = {}
    with pytest.raises(error, match=message):
        optapi.lbfgs([a, b], bowl(a, b), x_scale=x_scale, updates=updates)
    assert updates == {}


def test_sizes_that_float32_does_not_have_are_refused():
    a, b = parameters("float32")
    with pytest.raises(ValueError, match="x_scale of 'b' has sizes"):
        optapi.lbfgs([a, b], bowl(a, b), x_scale=[1, 1e-60])


def test_a_rule_without_scales_names_those_that_have_them():
    with pytest.raises(TypeError, match=r"neither adam nor minimize takes it; it is taken by lbfgs, "):
        optapi.minimize(START, rosen, rosen_der, "adam", x_scale=2.0)


@pytest.mark.parametrize("rule", ["lbfgs", "bfgs"])
def test_the_inverse_hessian_is_in_the_units_of_the_parameters(rule):
    H = np.array([[2.0, 30.0], [30.0, 1000.0]])
    x, stop = pytensor.shared(np.array([3.0, -1.0]), name="x"), pytensor.shared(0)
    updates = getattr(optapi, rule)([x], pt.sum(x * pt.dot(H, x)) / 2, stop=stop, x_scale=[1.0, 0.03], tolerance=1e-9)
    wide = pytensor.shared(np.array([[3.0, -1.0], [1.0, 2.0]]))
    together = optapi.batch(updates, {x: wide, stop: pytensor.shared(np.zeros(2, "int64"))})
    steps = compiled(updates), compiled(together)
    for _ in range(8):
        for step in steps:
            step()
    expected = np.linalg.inv(H)
    for found in (optapi.inverse_hessian(updates), *optapi.inverse_hessian(together)):
        np.testing.assert_allclose(found @ np.eye(2), expected, rtol=0.02)


def test_the_structure_of_the_point(tmp_path):
    def f(x):
        return rosen(x["valley"]) + (x["rest"][0] - 3) ** 4

    def df(x):
        return {"valley": rosen_der(x["valley"]), "rest": [4 * (x["rest"][0] - 3) ** 3]}

    x0 = {"valley": START, "rest": [np.array(10.0)]}
    x_scale = {"rest": [4], "valley": [1, 0.5]}
    whole = optapi.minimize(x0, f, df, "lbfgs", x_scale=x_scale, full_output=True)
    assert whole.success
    part = optapi.minimize_iterator(x0, f, df, "lbfgs", x_scale=x_scale)
    for state in part:
        if state.nit == 4:
            break
    part.save(tmp_path / "run.npz")
    with pytest.raises(TypeError, match="does not hold x_scale"):
        optapi.minimize_iterator.load(tmp_path / "run.npz", f, df)
    loaded = optapi.minimize_iterator.load(tmp_path / "run.npz", f, df, x_scale=x_scale)
    for run in (loaded, copy.deepcopy(part)):
        for _ in run:
            pass
        assert run.nit == whole.nit
        np.testing.assert_array_equal(run.x["valley"], whole.x["valley"])
    with pytest.raises(ValueError, match="x_scale is a dict with the keys"):
        optapi.minimize(x0, f, df, "lbfgs", x_scale={"valley": 1.0})
    with pytest.raises(ValueError, match="x_scale of 'x0' has shape"):
        optapi.minimize(x0, f, df, "lbfgs", x_scale={"valley": np.ones(3), "rest": [1.0]})


def test_files_hold_scales_that_were_found(tmp_path):
    whole = optapi.minimize(START, rosen, rosen_der, "lbfgs", x_scale="curvature", full_output=True)
    part = optapi.minimize_iterator(START, rosen, rosen_der, "lbfgs", x_scale="curvature")
    for _ in range(5):
        next(part)
    part.save(tmp_path / "run.npz")
    loaded = optapi.minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der)
    for _ in loaded:
        pass
    np.testing.assert_array_equal(loaded.x, whole.x)
    assert loaded.nit == whole.nit


def minimizer(rule, x_scale, mode=STEP, dtype="float64", **options):
    ps = parameters(dtype)
    run = optapi.compile_minimizer(list(ps), bowl(*ps), rule, x_scale=x_scale, mode=mode, tolerance=1e-4, **options)
    return run, ps


def test_each_start_has_its_own_scales(tmp_path):
    starts = [np.array([[0.0, -3.0, 0.5], [5.0, 0.01, -7.0]]), np.array([-20.0, 3.0])]
    run, ps = minimizer("lbfgs", "start")
    together = sorted(run.from_starts(starts, together=True), key=lambda result: result.start)
    for member, result in enumerate(together):
        for p, rows in zip(ps, starts, strict=True):
            p.set_value(rows[member])
        alone = run()
        assert result.success and result.nit == alone.nit
        np.testing.assert_allclose(result.x[0], alone.x[0], rtol=1e-12)
    # In pieces, through a file.
    short, others = minimizer("lbfgs", "start", max_iterations=3)
    for p, rows in zip(others, starts, strict=True):
        p.set_value(rows[1])
    short()
    short.save(tmp_path / "run.npz")
    run.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(run.resume().x[0], alone.x[0])


def test_float32():
    for x_scale in ("curvature", 3):
        run, _ = minimizer("bfgs", x_scale, dtype="float32")
        result = run()
        assert result.success and result.x[0].dtype == np.float32 and result.hess_inv.dtype == np.float32
        np.testing.assert_allclose(result.x[0], 2, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "mode", [pytest.param("NUMBA", marks=pytest.mark.numba), pytest.param("JAX", marks=pytest.mark.jax)]
)
def test_the_same_under_each_backend(mode):
    one, other = (minimizer("barzilai_borwein", "curvature", m, max_iterations=4)[0]() for m in (STEP, mode))
    assert (one.nfev, one.nhev) == (other.nfev, other.nhev)
    assert one.nhev > 0
    np.testing.assert_allclose(one.x[0], other.x[0], rtol=1e-10)
