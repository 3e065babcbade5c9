"""`optapi.scipy` beside SciPy itself. SciPy's own tests are run against it by `make scipy-suite`."""

import importlib
import inspect
import warnings

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import OptimizeWarning, rosen, rosen_der, rosen_hess, rosen_hess_prod

import optapi
from optapi.scipy import METHODS, minimize


START = np.array([1.3, 0.7, 0.8, 1.9])
NEWTON = {name: method.uses for name, method in METHODS.items() if method.uses}
ALL = [*METHODS]


def derivatives(method):
    return {"jac": rosen_der, **({"hess": rosen_hess} if method in NEWTON else {})}


@pytest.mark.parametrize("method", ALL)
def test_a_result_is_scipys(method):
    keywords = {"method": method.upper(), "tol": 1e-7, **derivatives(method)}
    own, scipys = (f(rosen, START, **keywords) for f in (minimize, scipy.optimize.minimize))
    assert type(own) is scipy.optimize.OptimizeResult
    assert set(own) >= {"x", "fun", "jac", "nit", "nfev", "njev", "status", "success", "message"}
    if method != "dogleg":  # which fails in SciPy, where the Hessian is not positive definite
        assert set(own) == set(scipys)
        assert own.message == scipys.message or "l-bfgs-b" in method
    assert (own.status, own.success) == (int(method == "trust-constr"), True)
    np.testing.assert_allclose(own.x, 1, atol=1e-4)
    assert own.fun == rosen(own.x)
    np.testing.assert_array_equal(own.grad if method == "trust-constr" else own.jac, rosen_der(own.x))
    assert isinstance(own.fun, float)


@pytest.mark.parametrize("method, function", [
    ("bfgs", "_optimize._minimize_bfgs"), ("cg", "_optimize._minimize_cg"),
    ("newton-cg", "_optimize._minimize_newtoncg"), ("l-bfgs-b", "_lbfgsb_py._minimize_lbfgsb"),
    ("trust-ncg", "_trustregion._minimize_trust_region"), ("slsqp", "_slsqp_py._minimize_slsqp"),
    ("trust-constr", "_trustregion_constr.minimize_trustregion_constr._minimize_trustregion_constr"),
])  # fmt: skip
def test_options_and_defaults_are_scipys(method, function):
    module, _, name = function.rpartition(".")
    scipys = inspect.signature(getattr(importlib.import_module(f"scipy.optimize.{module}"), name)).parameters
    passed = {"fun", "x0", "args", "jac", "hess", "hessp", "callback", "bounds", "subproblem", "unknown_options"}
    passed |= {"func", "grad", "constraints"}
    if method == "l-bfgs-b":
        passed |= {"disp", "iprint"}  # which older versions only take to warn of them
    defaults = {name: parameter.default for name, parameter in scipys.items() if name not in passed}
    own = METHODS[method].defaults
    assert {name: own[name] for name in defaults} == defaults
    assert set(own) - set(defaults) <= {"disp", "iprint", "subproblem_maxiter", "workers"}  # of other versions of SciPy


@pytest.mark.parametrize("jac", [None, False, "2-point", "3-point", "cs", True])
def test_every_form_of_the_derivative(jac):
    calls = []

    def fun(x, shift):
        calls.append(x.copy())
        value = rosen(x - shift)
        return (value, rosen_der(x - shift)) if jac is True else value

    for method in ("BFGS", "L-BFGS-B", "CG"):
        calls.clear()
        result = minimize(fun, START, 1.0, method, jac)
        np.testing.assert_allclose(result.x, 2, atol=2e-3)
        assert result.nfev == len(calls)
        if jac not in (True, "cs"):
            h = 1e-8 if method == "L-BFGS-B" else np.finfo(float).eps ** 0.5
            h *= 1 if jac in (None, False) else np.finfo(float).eps ** (-1 / 6) if jac == "3-point" else 1
            np.testing.assert_allclose(np.abs(calls[2] - START), [0, h, 0, 0], rtol=1.0, atol=1e-15)
    steps = {"eps": 1e-3} if jac is None else {"finite_diff_rel_step": 1e-3}
    if jac in (None, "2-point"):
        calls.clear()
        minimize(fun, START, 1.0, "BFGS", jac, options={**steps, "maxiter": 1})
        np.testing.assert_allclose(np.abs(calls[1] - START)[0], 1e-3 if jac is None else 1.3e-3, rtol=1e-9)


def test_every_form_of_second_derivatives():
    strategies = [scipy.optimize.BFGS(), scipy.optimize.SR1(), "2-point", "3-point", "cs", rosen_hess]
    for method in ("newton-cg", "trust-ncg", "trust-krylov"):
        for hess in strategies:
            result = minimize(rosen, [-1.2, 1.0], method=method, jac=rosen_der, hess=hess)
            assert result.success
            np.testing.assert_allclose(result.x, 1, atol=1e-3)
        result = minimize(rosen, [-1.2, 1.0], method=method, jac=rosen_der, hessp=rosen_hess_prod)
        assert result.nhev > result.nit
        np.testing.assert_allclose(result.x, 1, atol=1e-3)
    loose = minimize(rosen, [-1.2, 1.0], method="newton-cg", jac=rosen_der, options={"eps": 1e-6})
    np.testing.assert_allclose(loose.x, 1, atol=1e-3)
    with pytest.raises(ValueError, match="Jacobian is required"):
        minimize(rosen, START, method="newton-cg")
    for method in ("trust-ncg", "trust-exact", "dogleg"):
        with pytest.raises(ValueError, match="Hessian"):
            minimize(rosen, START, method=method, jac=rosen_der)


def test_options_have_scipys_meaning():
    def run(method="BFGS", **options):
        return minimize(rosen, START, method=method, jac=rosen_der, options=options)

    assert np.linalg.norm(run(gtol=1.0, norm=2).jac) <= 1.0 < np.linalg.norm(run(gtol=10.0, norm=2).jac) <= 10
    assert np.abs(run(gtol=1e-2).jac).max() <= 1e-2
    everything = run(return_all=True)
    assert len(everything.allvecs) == everything.nit + 1
    assert np.array_equal(everything.allvecs[0], START)
    assert np.array_equal(everything.allvecs[-1], everything.x)
    short = run(xrtol=1e-2, return_all=True)
    assert short.success
    assert np.linalg.norm(np.subtract(*short.allvecs[-2:])) <= 1e-2 * (1e-2 + np.linalg.norm(short.x))
    assert run(maxiter=3).message == "Maximum number of iterations has been exceeded."
    assert (run(maxiter=3).status, run(maxiter=3).nit, run(maxiter=0).status, run(maxiter=0).nit) == (1, 3, 1, 0)
    assert run(c2=1e-2).nit < run(c2=0.9).nit
    few = run("L-BFGS-B", maxfun=7)
    assert few.message == "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT"
    assert (few.status, few.success) == (1, False)
    assert 7 < few.nfev < 20
    assert run("L-BFGS-B", ftol=1e-2).message == "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH"
    assert run("L-BFGS-B", ftol=0, gtol=1e-3).message == "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL"
    assert run("L-BFGS-B", maxcor=1).nit != run("L-BFGS-B").nit
    for wrong in ({"maxls": 0}, {"method": "CG", "c1": 0.5, "c2": 0.1}):
        with pytest.raises(ValueError, match=r"maxls must be positive|'c1' and 'c2'"):
            run(**{"method": "L-BFGS-B", **wrong})


def test_options_of_trust_regions():
    def run(**options):
        options = {"return_all": True, **options}
        return minimize(rosen, START, method="trust-ncg", jac=rosen_der, hess=rosen_hess, options=options)

    def first(result):
        return np.linalg.norm(result.allvecs[1] - result.allvecs[0])

    assert first(run(initial_trust_radius=1e-2)) == pytest.approx(1e-2)
    lengths = np.linalg.norm(np.diff(run(initial_trust_radius=1e-3, max_trust_radius=0.05).allvecs, axis=0), axis=1)
    assert lengths.max() <= 0.05 * (1 + 1e-9)
    assert np.linalg.norm(run(gtol=1e-1).jac) < 1e-1
    np.testing.assert_array_equal(run().hess, rosen_hess(run().x))
    for wrong in ({"eta": 0.3}, {"max_trust_radius": 0}, {"initial_trust_radius": 0}, {"max_trust_radius": 0.5}):
        with pytest.raises(ValueError, match=r"acceptance|radius"):
            run(**wrong)


def test_the_inverse_hessian_at_first():
    A = np.array([[4.0, 1.0], [1.0, 3.0]])
    fun, jac = (lambda x: x @ A @ x / 2 - x[0]), (lambda x: A @ x - [1, 0])
    for method in ("BFGS", "bfgs"):
        exact = minimize(fun, [5.0, -7.0], method=method, jac=jac, options={"hess_inv0": np.linalg.inv(A)})
        assert (exact.nit, exact.nfev) == (1, 2)
        np.testing.assert_allclose(exact.hess_inv, np.linalg.inv(A), rtol=1e-10)
    for wrong in (-np.eye(2), np.diag([1.0, 0.0]), [[1.0, 2.0], [0.0, 1.0]], np.eye(3)):
        with pytest.raises(ValueError, match=r"hess_inv0"):
            minimize(fun, [5.0, -7.0], jac=jac, options={"hess_inv0": wrong})


def test_the_inverse_hessian_at_the_end():
    full = minimize(rosen, START, jac=rosen_der).hess_inv
    assert full.shape == (4, 4)
    end = minimize(rosen, START, jac=rosen_der, method="L-BFGS-B", options={"maxcor": 4, "maxiter": 9, "ftol": 0})
    pairs = end.hess_inv
    assert type(pairs) is scipy.optimize.LbfgsInvHessProduct
    np.testing.assert_allclose(
        pairs.todense() @ pairs.yk[-1], pairs.sk[-1], rtol=1e-9
    )  # the secant equation, newest last
    assert pairs.sk.shape == (4, 4)


def test_callbacks():
    points, results = [], []

    def by_result(intermediate_result):
        results.append(intermediate_result)
        if len(results) == 3:
            raise StopIteration

    minimize(rosen, START, jac=rosen_der, callback=lambda xk: points.append(xk))
    stopped = minimize(rosen, START, jac=rosen_der, callback=by_result)
    assert (stopped.status, stopped.success, stopped.nit) == (99, False, 3)
    assert stopped.message == "`callback` raised `StopIteration`."
    assert results[2].fun == rosen(points[2]) == stopped.fun


def test_disp_prints_what_scipy_prints(capsys):
    minimize(rosen, START, jac=rosen_der, options={"disp": True})
    own = capsys.readouterr().out
    scipy.optimize.minimize(rosen, START, jac=rosen_der, options={"disp": True})
    scipys = capsys.readouterr().out
    assert [line.partition(":")[0] for line in own.splitlines()] == [s.partition(":")[0] for s in scipys.splitlines()]
    with pytest.warns(OptimizeWarning, match="Maximum number of iterations"):
        minimize(rosen, START, jac=rosen_der, options={"disp": True, "maxiter": 2})


def test_warnings_are_scipys():
    for call, kind, message in (
        ({"options": {"gtool": 1, "maxiter": 1}}, OptimizeWarning, "Unknown solver options: gtool"),
        ({"hess": rosen_hess}, RuntimeWarning, "Method BFGS does not use Hessian information"),
        ({"method": "CG", "hessp": rosen_hess_prod}, RuntimeWarning, "does not use Hessian-vector product information"),
        ({"method": "CG", "bounds": [(0, 3)] * 4}, RuntimeWarning, "Method CG cannot handle bounds"),
        ({"method": "L-BFGS-B", "options": {"return_all": True}}, RuntimeWarning, "does not support the return_all"),
    ):
        with pytest.warns(kind, match=message) as caught:
            minimize(rosen, START, jac=rosen_der, **call)
        assert caught[0].filename == __file__
        with pytest.warns(kind, match=message), warnings.catch_warnings(action="ignore", category=OptimizeWarning):
            warnings.filterwarnings("default", message=message)
            scipy.optimize.minimize(rosen, START, jac=rosen_der, **call)


def test_what_has_no_counterpart_is_refused_by_a_sentence():
    for call, message in (
        (
            {"method": "Nelder-Mead"},
            r"Nelder-Mead has no counterpart .* call scipy.optimize.minimize\(fun, x0, method=",
        ),
        ({"method": "TNC"}, "pass method='L-BFGS-B'"),
    ):
        with pytest.raises(NotImplementedError, match=message):
            minimize(rosen, START, **call)
    with pytest.raises(ValueError, match="Unknown solver ekki; pass one of bfgs"):
        minimize(rosen, START, method="ekki")


BOUNDS = [(-2, 0.5), (None, 2), (-np.inf, 0.2), (2.0, 2.0)]


@pytest.mark.parametrize("jac", [rosen_der, True, None, "2-point", "3-point", "cs"])
@pytest.mark.parametrize("bounds", [BOUNDS, scipy.optimize.Bounds([-2, -np.inf, -np.inf, 2], [0.5, 2, 0.2, 2])])
def test_bounds(jac, bounds):
    low, high = [-2, -np.inf, -np.inf, 2], [0.5, 2, 0.2, 2]
    seen = []

    def fun(x):
        seen.append(x.real.copy())
        return (rosen(x), rosen_der(x)) if jac is True else rosen(x)

    own, scipys = (f(fun, [3, 1, 1, 1], jac=jac, bounds=bounds, tol=1e-10) for f in (minimize, scipy.optimize.minimize))
    assert np.all((np.array(seen) >= low) & (np.array(seen) <= high))
    assert set(own) == set(scipys)
    assert (own.status, own.success) == (0, True)
    np.testing.assert_allclose(own.x, scipys.x, atol=1e-6)
    np.testing.assert_allclose(own.fun, scipys.fun, rtol=1e-10)
    np.testing.assert_allclose(own.jac, scipys.jac, rtol=1e-5, atol=1e-3)  # NaN where it is fixed, of differences
    assert (own.hess_inv is None) == (scipys.hess_inv is None)
    if own.hess_inv is not None:
        A = own.hess_inv.todense()
        assert np.linalg.eigvalsh((A + A.T) / 2).min() > 0


def test_bounds_are_checked_as_by_scipy():
    for bounds in ([(0, 1)] * 3, [(0, 1)] * 3 + [(2, 1)], scipy.optimize.Bounds([0, 0, 0], [1, 1, 1])):
        raised = []
        for f in (minimize, scipy.optimize.minimize):
            with pytest.raises(ValueError, match="bound") as caught:
                f(rosen, START, bounds=bounds)
            raised.append(str(caught.value))
        assert raised[0] == raised[1]
    for bounds in ([(None, None)] * 4, scipy.optimize.Bounds(), [(-np.inf, np.inf)] * 4):
        result = minimize(rosen, START, jac=rosen_der, bounds=bounds)
        np.testing.assert_array_equal(result.x, minimize(rosen, START, method="L-BFGS-B", jac=rosen_der).x)
    for jac in (None, True):
        fun = (lambda x: (rosen(x), rosen_der(x))) if jac else rosen
        own, scipys = (f(fun, START, jac=jac, bounds=[(1, 1)] * 4) for f in (minimize, scipy.optimize.minimize))
        np.testing.assert_equal(dict(own), dict(scipys))


def test_forms_of_input():
    np.testing.assert_allclose(minimize(lambda x: (x - 3) ** 2, 17).x, [3], atol=1e-6)
    np.testing.assert_allclose(minimize(lambda x, a, b: (x - a) ** 2 * b, 1, (2, 3)).x, [2], atol=1e-6)
    np.testing.assert_allclose(minimize(rosen, [0, 0], jac=lambda x: rosen_der(x).tolist()).x, 1, atol=1e-4)
    single = minimize(lambda x: np.sum((x - 3) ** 2), np.ones(2, "float32"), jac=lambda x: 2 * (x - 3))
    assert single.x.dtype == "float32"
    with pytest.raises(ValueError, match="'x0' must only have one dimension"):
        minimize(rosen, np.ones((2, 2)))
    with pytest.raises(ValueError, match="must return a scalar value"):
        minimize(lambda x: x, [1.0, 2.0])

    def own(fun, x0, **options):
        return scipy.optimize.OptimizeResult(x=options["jac"])

    assert minimize(rosen, START, method=own, jac=rosen_der).x is rosen_der


def test_an_iteration_that_finds_nothing_is_no_convergence():
    """Where the search fails and begins anew, the step is zero and so is the fall."""
    calls = [0]

    def fun(x):
        calls[0] += 1
        return [0.3, 0.5][calls[0] - 1] if calls[0] <= 2 else np.nan

    for method in ("newton-cg", "l-bfgs-b", "bfgs"):
        calls[0] = 0
        result = minimize(fun, [1.0], method=method, jac=lambda x: np.ones(1), options={"maxiter": 20})
        assert not result.success
        assert (result.x, result.fun) == (1, 0.3)


def test_a_derivative_that_is_wrong_is_named():
    result = minimize(rosen, START, jac=lambda x: -rosen_der(x))
    assert result.status == 2
    assert result.message.startswith("Desired error not necessarily achieved due to precision loss.")
    assert "The derivative does not fit the cost" in result.message


def test_import_optapi_does_not_import_it():
    assert "scipy" not in optapi.__all__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optapi.scipy.minimize is minimize


def cost(x):
    return (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2


# All forms of SciPy. With a bound of 1.25 the minimum is at (1.25, 1.4375), where that and the parabola hold.
LINE = {"type": "ineq", "fun": lambda x: x[0] - 2 * x[1] + 2}
CONSTRAINTS = [
    LINE,
    scipy.optimize.NonlinearConstraint(lambda x: [x[0] ** 2 + x[1], x[0] + x[1]], [3, -9], [3, 9]),
    scipy.optimize.LinearConstraint([[1, 0], [0, 1]], -5, 5),
]


@pytest.mark.filterwarnings("ignore:Equality and inequality", "ignore:delta_grad")
@pytest.mark.parametrize("method", ["SLSQP", "trust-constr"])
def test_constraints(method):
    keywords = {"method": method, "constraints": CONSTRAINTS, "bounds": [(1.25, None), (0, None)]}
    own, scipys = (f(cost, [2.0, 0.0], **keywords) for f in (minimize, scipy.optimize.minimize))
    assert set(own) == set(scipys)
    assert own.success
    np.testing.assert_allclose(own.x, [1.25, 1.4375], atol=1e-5)
    if method == "SLSQP":
        assert (own.status, own.message) == (scipys.status, scipys.message)
        np.testing.assert_allclose(own.multipliers, scipys.multipliers, atol=1e-4)
        assert own.multipliers.shape == (8,)
    else:
        assert (own.status in (1, 2), own.method, own.niter) == (True, scipys.method, own.nit)
        for name in ("constr", "v", "jac"):
            for value, other in zip(own[name], scipys[name], strict=True):
                np.testing.assert_allclose(value, other, atol=1e-2)
        gradient = own.grad + sum(J.T @ v for J, v in zip(own.jac, own.v, strict=True))
        np.testing.assert_allclose(gradient, own.lagrangian_grad, atol=1e-12)
        assert own.optimality == np.abs(own.lagrangian_grad).max() <= 1e-6
        assert own.constr_nfev[2:] == scipys.constr_nfev[2:] == [0, 0]


def test_constraints_choose_slsqp():
    result = minimize(cost, [2.0, 0.0], constraints=LINE)
    np.testing.assert_allclose(result.multipliers, [0.8], atol=1e-5)
    assert result.message == "Optimization terminated successfully"
    for none in ((), [], None):
        assert "hess_inv" in minimize(cost, [2.0, 0.0], constraints=none)


def test_ends_with_constraints():
    def run(method, *constraints, **options):
        return minimize(cost, [2.0, 0.0], method=method, constraints=constraints, options=options)

    impossible = [LINE, {"type": "ineq", "fun": lambda x: 2 * x[1] - x[0] - 3}]
    for method, kind, infeasible, limit in (
        ("SLSQP", "Inequality constraints incompatible", 4, 9),
        ("trust-constr", "Constraint violation exceeds 'gtol'", 4, 0),
    ):
        result = run(method, *impossible)
        assert (result.status, result.success, result.message) == (infeasible, False, kind)
        result = run(method, {"type": "eq", "fun": lambda x: x[0] ** 2 + x[1] ** 2 - 1}, maxiter=2)
        assert (result.status, result.success, result.nit) == (limit, False, 2)
    assert run("SLSQP", LINE, ftol=1e-2).nit <= run("SLSQP", LINE, ftol=1e-12).nit
    exact = run("trust-constr", LINE, gtol=1e-5)
    assert (exact.status, exact.message) == (1, "`gtol` termination condition is satisfied.")
    assert max(exact.optimality, exact.constr_violation) < 1e-5


def test_callbacks_of_trust_constr():
    seen = []

    def callback(x, state):
        seen.append((state.nit, state.constr_violation, state.v))
        return len(seen) == 2

    result = minimize(cost, [2.0, 0.0], method="trust-constr", constraints=LINE, callback=callback)
    assert [nit for nit, _, _ in seen] == [1, 2]
    assert (result.status, result.message) == (3, "`callback` raised `StopIteration`.")


@pytest.mark.parametrize("jac, step", [(None, 1e-3), ("2-point", 2e-3)])
def test_constraints_are_differentiated_as_by_scipy(jac, step):
    seen = []

    def line(x):
        assert np.all((x >= 0) & (x <= 2))
        seen.append(x.copy())
        return x[0] - 2 * x[1] + 2

    options = {"eps": 1e-3} if jac is None else {"finite_diff_rel_step": 1e-3}
    keywords = {"jac": jac, "bounds": [(0, 2)] * 2, "constraints": {"type": "ineq", "fun": line}}
    result = minimize(cost, [2.0, 0.5], options=options, **keywords)
    assert result.success
    assert any(np.allclose(x - [2.0, 0.5], [-step, 0], atol=1e-12) for x in seen)


def test_bounds_that_leave_nothing_and_constraints():
    for jac in (lambda x: [1, -2], None):
        held = {**LINE, **({"jac": jac} if jac else {})}
        for bounds in ([(1, 1), (1, 1)], [(0, 0), (3, 3)], [(1, 1), (0, 5)]):
            keywords = {"jac": lambda x: 2 * (x - [1, 2.5]), "bounds": bounds, "constraints": held}
            own, scipys = (f(cost, [2.0, 0.0], **keywords) for f in (minimize, scipy.optimize.minimize))
            assert (own.success, own.message) == (scipys.success, scipys.message)
            np.testing.assert_allclose(own.x, scipys.x, atol=1e-6)
            if "jac" in scipys:
                np.testing.assert_array_equal(np.isnan(own.jac), np.isnan(scipys.jac))


def test_constraints_are_checked_as_by_scipy():
    for wrong in ({"fun": sum}, {"type": "eq"}, {"type": 3, "fun": sum}, {"type": "less", "fun": sum}):
        raised = []
        for f in (minimize, scipy.optimize.minimize):
            with pytest.raises((KeyError, TypeError, ValueError)) as caught:
                f(cost, [2.0, 0.0], constraints=wrong)
            raised.append((type(caught.value), str(caught.value)))
        assert raised[0] == raised[1]
    kept = scipy.optimize.LinearConstraint([1, 2], 0, 1, keep_feasible=True)
    with pytest.raises(ValueError, match="keep_feasible, which no rule for general constraints can promise"):
        minimize(cost, [2.0, 0.0], method="trust-constr", constraints=kept)
    with pytest.warns(OptimizeWarning, match="`keep_feasible` is ignored"):
        minimize(cost, [2.0, 0.0], constraints=kept)
    many = [{"type": "eq", "fun": lambda x: np.ones(3) * x[0]}]
    with pytest.raises(ValueError, match="more equality constraints than independent variables"):
        minimize(cost, [2.0, 0.0], method="trust-constr", constraints=many)
    with pytest.raises(ValueError, match="Whenever the gradient is estimated"):
        minimize(cost, [2.0, 0.0], method="trust-constr", hess="2-point")
    with pytest.warns(OptimizeWarning, match="Unknown solver options: gtool"):
        minimize(cost, [2.0, 0.0], method="trust-constr", options={"gtool": 1, "initial_tr_radius": 2.0})


def test_disp_with_constraints(capsys):
    for method, options in (("SLSQP", {"disp": True}), ("trust-constr", {"verbose": 1})):
        printed = []
        for f in (minimize, scipy.optimize.minimize):
            with warnings.catch_warnings(action="ignore"):
                f(cost, [2.0, 0.0], method=method, constraints=LINE, options=options)
            printed.append([line.partition(":")[0] for line in capsys.readouterr().out.splitlines()])
        assert len(printed[0]) == len(printed[1]) > 1
        assert printed[0][1:] == printed[1][1:]
