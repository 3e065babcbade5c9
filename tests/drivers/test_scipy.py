"""The rules as methods of SciPy."""

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import rosen, rosen_der, rosen_hess, rosen_hess_prod
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.linalg import aslinearoperator

import optapi
from optapi import scipy_method


START = np.array([-1.2, 1.0, -0.5, 0.8])
LBFGS = scipy_method(optapi.lbfgs)


def test_it_is_a_method():
    result = scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS)
    assert type(result) is scipy.optimize.OptimizeResult
    assert (result.status, result.success) == (0, True)
    np.testing.assert_allclose(result.x, 1, atol=1e-4)
    ours = optapi.minimize(START, rosen, rosen_der, optapi.lbfgs, full_output=True)
    assert np.array_equal(result.x, ours.x)
    assert (result.nit, result.nfev, result.njev) == (ours.nit, ours.nfev, ours.njev)


def test_jac_true_and_args():
    def both(x, scale, shift):
        return scale * rosen(x - shift), scale * rosen_der(x - shift)

    result = scipy.optimize.minimize(both, START, args=(0.5, 1.0), jac=True, method=LBFGS)
    np.testing.assert_allclose(result.x, 2, atol=1e-4)


@pytest.mark.parametrize("jac", [None, False, "2-point"])
def test_without_jac_scipy_differentiates(jac):
    calls = []

    def fun(x, shift):
        calls.append(x.copy())
        return rosen(x - shift)

    result = scipy.optimize.minimize(fun, START, args=(1.0,), jac=jac, method=LBFGS, options={"gtol": 1e-4})
    np.testing.assert_allclose(result.x, 2, atol=1e-2)
    assert result.success
    assert result.nfev == len(calls)
    assert len({point.tobytes() for point in calls}) >= len(calls) - 1  # nothing is called twice at one point
    scipys = scipy.optimize.minimize(lambda x: fun(x, 1.0), START, method="L-BFGS-B", options={"gtol": 1e-4})
    step = np.sqrt(np.finfo(float).eps)
    np.testing.assert_allclose(calls[1] - START, [-1.2 * step, 0, 0, 0], atol=1e-15)
    assert result.nfev < 2 * scipys.nfev


def test_options_by_both_names():
    def run(tol=None, **options):
        return scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS, tol=tol, options=options)

    assert run(maxiter=3).nit == run(max_iterations=3).nit == 3
    assert run(maxiter=3).status == 1
    assert run(maxfun=5).nfev == run(max_evaluations=5).nfev < 10
    loose = run(tol=1.0)
    assert 1e-2 < np.max(np.abs(loose.jac)) <= 1.0
    assert np.array_equal(loose.x, run(gtol=1.0).x)
    assert np.array_equal(loose.x, run(tolerance=1.0).x)
    assert np.array_equal(loose.x, run(tol=1e-9, gtol=1.0).x)
    assert np.array_equal(run(ftol=1e-2).x, run(cost_tolerance=1e-2).x)
    assert run(memory=2).nit != run(memory=10).nit
    fixed = scipy_method(optapi.lbfgs, maxiter=3, memory=2)
    assert scipy.optimize.minimize(rosen, START, jac=rosen_der, method=fixed).nit == 3
    assert scipy.optimize.minimize(rosen, START, jac=rosen_der, method=fixed, options={"maxiter": 4}).nit == 4
    with pytest.raises(TypeError, match="'maxitr'"):
        run(maxitr=3)
    with pytest.raises(TypeError, match="both mean max_iterations"):
        run(maxiter=3, max_iterations=4)
    with pytest.raises(TypeError, match="'callback'"):
        scipy_method(optapi.lbfgs, callback=print)


def test_disp(capsys):
    scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS, options={"disp": True})
    assert "Converged" in capsys.readouterr().out
    scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS, options={"disp": False})
    assert capsys.readouterr().out == ""


def test_callbacks():
    seen = []

    def by_result(*, intermediate_result):
        seen.append(intermediate_result.fun)
        if len(seen) == 3:
            raise StopIteration

    result = scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS, callback=by_result)
    assert (result.status, result.success, len(seen)) == (99, False, 3)
    points = []
    scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS, callback=lambda xk: points.append(xk))
    assert points[2].shape == START.shape
    assert rosen(points[2]) == seen[2]


def test_second_derivatives():
    from test_numpy import newton_step

    method = scipy_method(newton_step, max_iterations=1)
    one = scipy.optimize.minimize(rosen, START, jac=rosen_der, hessp=rosen_hess_prod, method=method)
    two = scipy.optimize.minimize(rosen, START, jac=rosen_der, hess=rosen_hess, method=method)
    three = scipy.optimize.minimize(rosen, START, jac=rosen_der, method=method)
    np.testing.assert_allclose(one.iterate, two.iterate, rtol=1e-12)
    np.testing.assert_allclose(one.iterate, three.iterate, rtol=1e-6)
    assert (one.nhev, two.nhev, three.nhev) == (1, 1, 0)


@pytest.mark.parametrize("wrap", [np.asarray, csr_matrix, csr_array, aslinearoperator])
def test_hess_is_any_matrix(wrap):
    method = scipy_method("trust_region_cg")
    one = scipy.optimize.minimize(rosen, START, jac=rosen_der, hess=lambda x: wrap(rosen_hess(x)), method=method)
    assert one.success
    np.testing.assert_allclose(one.x, 1, atol=1e-4)


def test_without_jac_complex_steps_where_they_are_right():
    """SciPy does not say that jac="3-point" or "cs" was asked for, so the derivative is as precise as either."""
    points, slope = [], lambda x: 5 * np.exp(5 * x) - 7

    def fun(x):
        points.append(x)
        return np.sum(np.exp(5 * x) - 7 * x)

    result = scipy.optimize.minimize(fun, [1.0], jac="cs", method=LBFGS, options={"maxiter": 2})
    np.testing.assert_allclose(result.jac, slope(result.x), rtol=1e-12)
    assert np.iscomplexobj(points[-1])
    assert result.nfev == len(points)


@pytest.mark.parametrize("kind", ["raises", "real", "wrong"])
def test_without_jac_forward_differences_where_complex_steps_are_not_right(kind):
    def fun(x):
        if kind == "raises":
            return sum((float(component) - 3) ** 2 for component in x)
        return np.sum(np.abs(x - 3) ** 2) if kind == "real" else np.sum((x - 3) * np.conj(x - 3))

    result = scipy.optimize.minimize(fun, [1.0, 2.0], method=LBFGS)
    assert result.success
    np.testing.assert_allclose(result.x, 3, atol=1e-6)


def test_hess_is_called_once_for_a_point():
    seen = []

    def hess(x):
        seen.append(x.tobytes())
        return rosen_hess(x)

    scipy.optimize.minimize(rosen, START, jac=rosen_der, hess=hess, method=scipy_method("newton_cg"))
    assert len(seen) == len(set(seen)) > 3


def test_what_would_be_another_derivative_is_refused():
    for keywords in ({"jac": "3-point"}, {"jac": "cs"}, {"jac": rosen_der, "hess": "cs"}):
        with pytest.raises(NotImplementedError, match=r"pass a function"):
            LBFGS(rosen, START, **keywords)


@pytest.mark.parametrize(
    "x0, slope",
    [(1.0, lambda x: float(2 * (x[0] - 3))), ([1.0, 2.0], lambda x: 2 * (x - 3)[None])],
    ids=["number", "row"],
)
def test_derivatives_of_other_shapes(x0, slope):
    result = scipy.optimize.minimize(lambda x: np.sum((x - 3) ** 2), x0, jac=slope, method=LBFGS)
    np.testing.assert_allclose(result.x, 3)


def test_differences_of_float32():
    """The step is one that float32 resolves; forward differences with step h end at 3 - h / 2."""
    x0 = np.array([1, 2], "float32")
    result = scipy.optimize.minimize(lambda x: np.float64(np.sum((x - 3) ** 2)), x0, method=LBFGS, tol=1e-2)
    assert result.success
    np.testing.assert_allclose(result.x, 3, atol=5e-3)


def test_bounds():
    for jac in (rosen_der, None):
        for bounds in ([(None, 0.5)] * 4, scipy.optimize.Bounds(-np.inf, 0.5)):
            result = scipy.optimize.minimize(rosen, START, jac=jac, method=LBFGS, bounds=bounds)
            expected = scipy.optimize.minimize(rosen, START, jac=rosen_der, method="L-BFGS-B", bounds=bounds)
            np.testing.assert_allclose(result.x, expected.x, atol=1e-5)
    with pytest.raises(TypeError, match="bfgs takes no bounds; use lbfgs"):
        scipy.optimize.minimize(rosen, START, jac=rosen_der, method=optapi.scipy_method("bfgs"), bounds=bounds)


def test_constraints_go_to_a_rule_that_takes_them():
    result = scipy.optimize.minimize(
        rosen, START, jac=rosen_der, method=optapi.scipy_method(optapi.sqp), bounds=[(None, 2)] * 4,
        constraints={"type": "ineq", "fun": lambda x: 2 - x @ x, "jac": lambda x: -2 * x},
    )  # fmt: skip
    assert result.success
    assert result.x @ result.x == pytest.approx(2, abs=1e-6)
    assert result.multipliers[0] > 0


def test_constraints_are_refused():
    for constraints in ({"type": "eq", "fun": sum}, scipy.optimize.LinearConstraint(np.eye(4), 0, 1)):
        with pytest.raises(NotImplementedError, match="lbfgs takes no constraints"):
            scipy.optimize.minimize(rosen, START, jac=rosen_der, method=LBFGS, constraints=constraints)


def wells(x):
    return float(np.sum(np.cos(3 * x) + 0.1 * x**2))


def wells_der(x):
    return -3 * np.sin(3 * x) + 0.2 * x


def test_basinhopping():
    keywords = {"method": LBFGS, "jac": wells_der}
    result = scipy.optimize.basinhopping(wells, [3.2, -2.9], niter=25, stepsize=2.0, minimizer_kwargs=keywords, rng=1)
    np.testing.assert_allclose(np.abs(result.x), 1.0241, atol=1e-3)
    assert result.lowest_optimization_result.success


def test_dual_annealing():
    keywords = {"method": LBFGS, "jac": wells_der}
    result = scipy.optimize.dual_annealing(wells, [(-5, 5)] * 2, maxiter=15, minimizer_kwargs=keywords, rng=1)
    np.testing.assert_allclose(np.abs(result.x), 1.0241, atol=1e-3)
