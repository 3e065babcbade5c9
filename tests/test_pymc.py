"""`optapi.pymc`, in environments that have PyMC."""

import logging
import warnings

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import graph_replace
from scipy.optimize import minimize, minimize_scalar
from scipy.special import gammaln
from scipy.stats import multivariate_normal

import optapi
from optapi import schedules


pm = pytest.importorskip("pymc")

from pymc.logprob.utils import ParameterValueError  # noqa: E402
from pymc_models import EFFECTS, ERRORS, MODELS, eight_schools  # noqa: E402

import optapi.pymc as op  # noqa: E402
from optapi.drivers.pathfinder import along  # noqa: E402


pytestmark = [pytest.mark.pymc, pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")]
NEWEST = tuple(map(int, pm.__version__.split(".")[:2])) >= (6, 4)
needs_newest = pytest.mark.skipif(not NEWEST, reason="find_MAP of PyMC 6.4")
logging.getLogger("pymc").setLevel(logging.ERROR)


def normal(data=(1.0, 2.0, 6.0)):
    with pm.Model() as model:
        data = pm.Data("data", np.array(data))
        mu, sigma = pm.Normal("mu", 0, 10), pm.HalfNormal("sigma", 10)
        pm.Deterministic("ratio", mu / sigma)
        pm.Normal("y", mu, sigma, observed=data)
    return model


def pm_map(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pm.find_MAP(
            model=model, jitter=False, return_inferencedata=True, progressbar=False,
            compile_kwargs={"mode": optapi.PYTHON}, **options,
        )  # fmt: skip


def reference(model):
    """The lowest cost that SciPy finds with the model's own function."""
    start = model.initial_point()
    names, shapes = list(start), [np.shape(value) for value in start.values()]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    f = model.compile_fn([-model.logp(jacobian=False), -model.dlogp(jacobian=False)], mode=optapi.PYTHON)

    def cost(x):
        parts = np.split(x, ends)
        value, gradient = f({n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)})
        return float(value), np.asarray(gradient)

    x = np.concatenate([np.ravel(value) for value in start.values()])
    return minimize(cost, x, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-7, "maxiter": 5000}).fun


class TestMaximum:
    @pytest.mark.parametrize("name", MODELS)
    def test_is_that_of_pymc(self, name):
        model = MODELS[name]()
        fit = op.compile_MAP("lbfgs", model=model, tolerance=1e-6)
        result = fit()
        assert result.success
        if not NEWEST:
            assert result.fun <= reference(model) + 1e-6
            return
        theirs = pm_map(model, tol=1e-12)
        assert result.fun <= float(theirs["optimizer_result"]["fun"]) + 1e-6
        # At the very same point.
        start = {rv.name: fit.point()[rv.name] for rv in model.free_RVs}
        at = pm_map(model, initvals=start, compute_hessian=True, tol=1e10)["fit"]
        expected = np.sqrt(np.diag(at["covariance_matrix"].values))
        np.testing.assert_allclose(at["mean_vector"], np.concatenate([np.ravel(x) for x in result.x]), rtol=1e-9)
        np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance())), expected, rtol=1e-5)

    @pytest.mark.parametrize("rule", ["lbfgs", "bfgs", "trust_region_cg", "newton_cg", "hager_zhang_cg"])
    def test_without_one_is_never_called_converged(self, rule):
        fit = op.compile_MAP(rule, model=eight_schools(centered=True), max_iterations=300)
        result = fit()
        assert not result.success
        with pytest.raises(ValueError, match="there is no covariance here"):
            fit.covariance()

    def test_is_warned_of_where_it_is_none(self):
        with pytest.warns(optapi.OptimizationWarning, match="has not converged"):
            op.find_MAP(model=eight_schools(centered=True), progressbar=False, max_iterations=3)

    def test_natural_scale_by_the_delta_method(self):
        fit = op.compile_MAP("trust_region_cg", model=normal(), tolerance=1e-8)
        fit()
        errors, point, covariance = fit.standard_errors(), fit.point(), fit.covariance()
        mu, sigma = float(point["mu"]), float(point["sigma"])
        slopes = np.array([1 / sigma, -mu / sigma])  # by mu and log sigma
        np.testing.assert_allclose(errors["mu"], np.sqrt(covariance[0, 0]))
        np.testing.assert_allclose(errors["sigma"], sigma * np.sqrt(covariance[1, 1]))
        np.testing.assert_allclose(errors["ratio"], np.sqrt(slopes @ covariance @ slopes))
        assert set(fit.standard_errors(transformed=True)) == {"mu", "sigma_log__"}
        assert set(point) == {"mu", "sigma", "ratio"}

    def test_data_are_read_anew(self, monkeypatch):
        model = normal()
        fit = op.compile_MAP(model=model)
        fit()
        tree = fit.to_datatree()
        monkeypatch.setattr(pytensor, "function", None)  # nothing is compiled
        model.set_data("data", np.array([11.0, 12.0, 16.0, 13.0]))
        again = fit().x["mu"]
        monkeypatch.undo()
        assert fit.to_datatree()["observed_data"]["y"].shape == (4,)
        assert tree["observed_data"]["y"].shape == (3,)
        np.testing.assert_allclose(again, op.compile_MAP(model=model)().x["mu"], rtol=1e-8)

    def test_from_starts(self):
        with pm.Model() as model:
            x = pm.Normal("x", 0, 10)
            pm.Potential("two", -((x**2 - 4) ** 2) + x)
        fit = op.compile_MAP(model=model)
        results = fit.from_starts([{"x": -3.0}, {"x": 0.5}, {"x": 5.0}])
        assert [round(float(r.x[0])) for r in sorted(results, key=lambda r: r.start)] == [-2, 2, 2]
        assert results[0].x[0] > 0
        tree = fit.to_datatree()
        assert tree["optimizer_result"]["starts_fun"].shape == (3,)
        first, second = (op.find_MAP(model=model, starts=5, random_seed=3, progressbar=False) for _ in range(2))
        np.testing.assert_array_equal(first["optimizer_result"]["starts_fun"], second["optimizer_result"]["starts_fun"])

    def test_a_start_that_fails_does_not_touch_the_others(self):
        """PyTensor makes of a check of parameters in a batch one of all members together."""
        with pm.Model() as model:
            x = pm.Normal("x", 0, 10)
            pm.Normal("y", 0, pt.sqrt(x), observed=[1.0, 2.0, 3.0])
        fit = op.compile_MAP(model=model)
        results = fit.from_starts([{"x": 2.0}, {"x": -1.0}])
        assert [(r.start, r.status) for r in results] == [(0, 0), (1, 3)]
        assert results[0].fun == pytest.approx(fit({"x": 2.0}).fun)

    def test_starts(self):
        fit = op.compile_MAP(model=normal(), max_iterations=0)
        assert fit({"sigma": 3.0}).x["sigma_log__"] == pytest.approx(np.log(3))
        assert fit({"sigma_log__": 0.5, "mu": 2.0}).x["mu"] == 2
        jittered = fit(jitter=True, random_seed=1).x["mu"]
        assert 0 < abs(jittered) <= 1
        assert fit(jitter=True, random_seed=1).x["mu"] == jittered
        assert fit().x["mu"] == 0

    def test_of_some_variables(self):
        model = normal()
        fit = op.compile_MAP("trust_region_cg", vars=["mu"], model=model, tolerance=1e-9)
        fit({"sigma": 2.0})
        np.testing.assert_allclose(fit.covariance(), [[1 / (3 / 4 + 1 / 100)]])
        assert fit.point()["sigma"] == pytest.approx(2)

    def test_discrete_variables_keep_their_start(self):
        with pm.Model() as model:
            k = pm.Poisson("k", 3)
            mu = pm.Normal("mu", k, 1)
            pm.Normal("y", mu, 1, observed=[1.0, 2.0])
        fit = op.compile_MAP(model=model)
        fit()
        assert fit.point()["mu"] == pytest.approx((3 + 1 + 2) / 3)
        with pytest.raises(TypeError, match="vars has 'k', discrete variables; leave them out"):
            op.compile_MAP(vars=[k], model=model)

    def test_dims_of_xtensors(self):
        dims = pytest.importorskip("pymc.dims")
        with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
            mu, tau = dims.Normal("mu", 0, 5), dims.HalfNormal("tau", 5)
            z = dims.Normal("z", 0, 1, dims="school")
            effects, errors = (dims.as_xtensor(a, dims=("school",)) for a in (EFFECTS, ERRORS))
            dims.Normal("y", mu + tau * z, errors, observed=effects)
        fit, plain = (
            op.compile_MAP("trust_region_cg", model=model),
            op.compile_MAP("trust_region_cg", model=eight_schools()),
        )
        assert fit().fun == pytest.approx(plain().fun, abs=1e-9)
        assert fit.to_datatree()["posterior"]["z"].dims == ("chain", "draw", "school")
        assert fit.standard_errors()["z"].shape == (8,)

    @pytest.mark.parametrize(
        "backend", [pytest.param("numba", marks=pytest.mark.numba), pytest.param("jax", marks=pytest.mark.jax)]
    )
    def test_on_backends(self, backend):
        model = normal()
        fit, plain = op.compile_MAP(model=model, backend=backend), op.compile_MAP(model=model)
        assert fit().fun == pytest.approx(plain().fun, abs=1e-10)
        model.set_data("data", np.array([4.0, 5.0, 9.0]))
        assert fit().fun == pytest.approx(plain().fun, abs=1e-10)


class TestLogDensities:
    def test_checks_of_parameters_are_values_in_a_whole_minimization(self):
        y = np.array([0.1, -0.2, 0.05])
        with pm.Model() as model:
            s = pm.Normal("s", 1, 10)
            pm.Normal("y", 0, s, observed=y)
        scale = pytensor.shared(0.3, name="s")
        logp = model.logp()
        [cost] = graph_replace([-logp], {model.rvs_to_values[s]: scale})
        before = pytensor.dprint(cost, file="str")
        result = optapi.compile_minimizer([scale], cost, "lbfgs", mode=optapi.PYTHON)()
        assert pytensor.dprint(cost, file="str") == before
        # Steps from there lead below 0, where PyMC's own check raises.
        scale.set_value(-0.1)
        with pytest.raises(ParameterValueError, match="sigma > 0"):
            cost.eval(mode=optapi.PYTHON)
        cost_of = lambda s: len(y) * np.log(s) + np.sum(y**2) / (2 * s**2) + (s - 1) ** 2 / 200  # noqa: E731
        exact = minimize_scalar(cost_of, bounds=(0.01, 1), method="bounded", options={"xatol": 1e-10}).x
        assert result.success
        assert result.x["s"] == pytest.approx(exact, rel=1e-6)


class TestTrees:
    def test_have_the_groups_and_names_of_pymc(self):
        model = eight_schools()
        options = {"progressbar": False, "compute_hessian": True, "idata_kwargs": {"include_transformed": True}}
        tree = op.find_MAP("trust_region_cg", model=model, **options)
        assert set(tree.children) == {"posterior", "observed_data", "fit", "optimizer_result"}
        assert tree["posterior"]["theta"].dims == ("chain", "draw", "school")
        assert list(tree["posterior"]["school"].values) == list("ABCDEFGH")
        assert "tau_log__" in (
            tree["unconstrained_posterior"] if "unconstrained_posterior" in tree.children else tree["posterior"]
        )
        assert list(tree["fit"]["rows"].values)[:3] == ["mu", "tau_log__", "z[A]"]
        assert tree["fit"]["covariance_matrix"].shape == (10, 10)
        result = tree["optimizer_result"]
        assert result["method"] == "trust_region_cg" and result["x"].dims == ("variables",) and bool(result["success"])

    @needs_newest
    def test_are_as_those_of_pymc(self):
        model = normal()
        ours = op.find_MAP(model=model, progressbar=False, compute_hessian=True)
        theirs = pm_map(model, compute_hessian=True, tol=1e-12)
        assert set(ours.children) == set(theirs.children)
        for group in ("posterior", "observed_data", "constant_data", "fit"):
            assert set(ours[group].data_vars) == set(theirs[group].data_vars)
            for name, array in theirs[group].data_vars.items():
                assert array.dims == ours[group][name].dims
                np.testing.assert_allclose(ours[group][name], array, rtol=1e-3)
        with pytest.warns(FutureWarning):
            values = pm.find_MAP(model=model, progressbar=False, compile_kwargs={"mode": optapi.PYTHON})
        assert set(op.find_MAP(model=model, progressbar=False, return_inferencedata=False)) == set(values)


class TestRefusals:
    def test_starts_that_are_not_finite(self):
        model = normal()
        fit = op.compile_MAP(model=model)
        with pytest.raises(ValueError, match=r"that of 'y' is nan, at mu = 0.; sigma_log__ = 2.3"):
            model.set_data("data", np.array([np.nan, 1.0]))
            fit()
        with pm.Model() as model:
            x = pm.Normal("x", 0, 1)
            pm.Potential("root", pt.sqrt(x - 1))
        with pytest.raises(ValueError, match="that of 'root' is nan, at x = 0"):
            op.compile_MAP(model=model)()
        with pytest.raises(ValueError, match="that of 'root' is nan"):
            op.compile_MAP(model=model).from_starts(2, random_seed=0)
        with pm.Model() as model:
            x = pm.Normal("x", 0, 1)
            pm.Potential("kink", pt.sqrt(abs(x)))
        with pytest.raises(ValueError, match="the gradient with respect to 'x' is not finite at the start"):
            op.compile_MAP(model=model)()

    def test_jitter_is_drawn_anew(self):
        with pm.Model() as model:
            x = pm.Normal("x", 0, 1)
            pm.Potential("root", pt.sqrt(x - 0.5))
        assert op.compile_MAP(model=model)(jitter=True, random_seed=0, jitter_max_retries=50).x["x"] > 0.5

    def test_no_gradient(self):
        class Blind(pytensor.graph.op.Op):
            def make_node(self, x):
                return pytensor.graph.basic.Apply(self, [x], [x.type()])

            def perform(self, node, inputs, outputs):
                outputs[0][0] = inputs[0]

        with pm.Model() as model:
            x, _ = pm.Normal("x", 0, 1), pm.Normal("w", 0, 1)
            pm.Potential("blind", Blind()(x))
        with pytest.raises(ValueError, match="no gradient with respect to 'x', in its terms of 'blind'"):
            op.compile_MAP(model=model)
        assert op.compile_MAP(vars=["w"], model=model)().success

    @pytest.mark.parametrize(
        "error, options, message",
        [
            (TypeError, {"method": "BFGS"}, r"pass the rule first"),
            (TypeError, {"maxiter": 3}, "write max_iterations="),
            (TypeError, {"memorry": 3}, "memory"),
            (ValueError, {"rule": "powell"}, "SciPy"),
            (ValueError, {"vars": ["nu"]}, "no free variable of the model; it has mu, sigma"),
            (ValueError, {"vars": []}, "vars is empty"),
            (ValueError, {"backend": "torch"}, "pass one of 'python', 'numba'"),
            (ValueError, {"backend": "jax", "compile_kwargs": {"mode": "CVM"}}, "pass one of them"),
            (TypeError, {"compile_kwargs": {"profile": True}}, "only 'mode' is taken"),
            (KeyError, {"initvals": {"nu": 1}}, "no free variable"),
            (TypeError, {"initvals": [1.0]}, "pass a dictionary"),
            (ValueError, {"starts": 0}, "starts"),
        ],
    )
    def test_arguments(self, error, options, message):
        with pytest.raises(error, match=message):
            op.find_MAP(model=normal(), progressbar=False, **options)

    def test_nothing_to_optimize(self):
        with pm.Model() as model:
            pm.Poisson("k", 3)
        with pytest.raises(ValueError, match="no continuous variables"):
            op.compile_MAP(model=model)
        with pytest.raises(ValueError, match="nothing has been maximized"):
            op.compile_MAP(model=normal()).point()


class TestLaplace:
    def test_is_exact_for_a_normal_posterior(self):
        y = np.array([1.0, 3.0])
        with pm.Model() as model:
            pm.Normal("y", pm.Normal("mu", 0, 2), 1, observed=y)
        tree = op.laplace(model=model, draws=4000, random_seed=1, progressbar=False)
        assert float(tree["fit"]["log_marginal_likelihood"]) == pytest.approx(
            multivariate_normal.logpdf(y, np.zeros(2), np.eye(2) + 4)
        )
        draws = tree["posterior"]["mu"].values
        assert draws.shape == (1, 4000)
        assert draws.mean() == pytest.approx(16 / 9, abs=4 * (2 / 3) / 4000**0.5)
        assert draws.std() == pytest.approx(2 / 3, rel=0.05)

    def test_is_stirlings_formula_for_a_gamma_posterior(self):
        """With rate exp(u) the integral is Gamma(a) / b^a, and Laplace's approximation of it Stirling's of Gamma."""
        counts, a0, b0 = np.array([3, 5, 4]), 2.0, 1.0
        with pm.Model() as model:
            pm.Poisson("y", pm.Gamma("rate", a0, b0), observed=counts)
        tree = op.laplace(model=model, draws=5, random_seed=1, progressbar=False)
        a, b = a0 + counts.sum(), b0 + len(counts)
        exact = a0 * np.log(b0) - gammaln(a0) + gammaln(a) - a * np.log(b) - gammaln(counts + 1).sum()
        stirling = (a - 0.5) * np.log(a) - a + 0.5 * np.log(2 * np.pi)
        assert float(tree["fit"]["log_marginal_likelihood"]) == pytest.approx(exact - gammaln(a) + stirling)
        assert np.exp(float(tree["fit"]["mean_vector"][0])) == pytest.approx(a / b, rel=1e-5)

    def test_refuses_what_is_no_maximum(self):
        with pytest.raises(ValueError, match="there is no covariance here"), pytest.warns(optapi.OptimizationWarning):
            op.laplace(model=eight_schools(centered=True), jacobian=False, max_iterations=50, progressbar=False)


class TestPaths:
    def test_are_those_of_the_minimizations(self):
        fit = op.compile_MAP("lbfgs", model=eight_schools())
        paths = fit.paths(3, random_seed=1)
        results = fit.from_starts(3, random_seed=1)
        for result in results:
            path, end = paths.points[result.start], paths.iterations[result.start]
            assert end == result.nit
            np.testing.assert_allclose(path[end], np.concatenate([np.ravel(x) for x in result.x]), rtol=1e-6)
            assert paths.costs[result.start, end] == pytest.approx(result.fun)
        logp = fit.model.compile_fn(
            [-fit.model.logp(jacobian=False), -fit.model.dlogp(jacobian=False)], mode=optapi.PYTHON
        )
        x = paths.points[1, 2]
        cost, gradient = logp({"mu": x[0], "tau_log__": x[1], "z": x[2:]})
        assert paths.costs[1, 2] == pytest.approx(float(cost))
        np.testing.assert_allclose(paths.gradients[1, 2], gradient, atol=1e-10)


MANY = np.linspace(-3.0, 9.0, 30)


def dense_inverse_hessian(alpha, steps, changes):
    """The updates of BFGS one after another (Nocedal and Wright (2006), equation 6.17)."""
    h = np.diag(alpha)
    for s, z in zip(steps, changes, strict=True):
        v = np.eye(s.size) - np.outer(s, z) / (s @ z)
        h = v @ h @ v.T + np.outer(s, s) / (s @ z)
    return h


class TestPathfinder:
    @pytest.mark.parametrize("n, memory", [(1, 3), (5, 4), (12, 4)])
    def test_normals_are_those_of_dense_bfgs(self, n, memory):
        rng = np.random.default_rng(n)
        root = rng.normal(size=(n, n))
        hessian = root @ root.T + np.eye(n)
        points = rng.normal(size=(7, n))
        points[4] = points[3]  # a step without curvature is left out
        gradients = points @ hessian
        normals = along(points, gradients, memory)
        alpha, steps, changes = np.ones(n), [], []
        for i in range(6):
            s, z = points[i + 1] - points[i], gradients[i + 1] - gradients[i]
            if s @ z > 0:
                a, b, c = sum(alpha * z * z), z @ s, sum(s * s / alpha)
                alpha = 1 / (a / (b * alpha) + z**2 / b - a * s**2 / (b * c * alpha**2))
                steps, changes = [*steps, s][-memory:], [*changes, z][-memory:]
            h = dense_inverse_hessian(alpha, steps, changes)
            expected = multivariate_normal(points[i + 1] - h @ gradients[i + 1], h)
            u = rng.normal(size=(6, 9, n))
            x, logq = normals.transformed(u)
            np.testing.assert_allclose(normals.means[i], expected.mean, rtol=1e-8, atol=1e-8)
            np.testing.assert_allclose(logq[i], expected.logpdf(x[i]).reshape(-1), rtol=1e-7)
            unit = normals.transformed(np.broadcast_to(np.eye(n), (6, n, n)))[0][i] - normals.means[i]
            np.testing.assert_allclose(unit.T @ unit, h, rtol=1e-7, atol=1e-8 * abs(h).max())

    def test_is_exact_for_a_normal_posterior(self):
        rng = np.random.default_rng(3)
        mean, root = 3 * rng.normal(size=4), rng.normal(size=(4, 4))
        covariance = root @ root.T + 0.1 * np.eye(4)
        with pm.Model() as model:
            pm.MvNormal("x", mean, covariance)
        tree = op.fit_pathfinder(8, 4000, model=model, num_elbo_draws=100, random_seed=1)
        found, draws = tree["pathfinder"], tree["posterior"]["x"].values
        assert draws.shape == (1, 4000, 4)
        assert float(found["pareto_k"]) < 0.5
        np.testing.assert_allclose(found["elbo"], 0, atol=0.2)  # the logarithm of the whole probability
        deviations = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(draws[0].mean(0), mean, atol=5 * deviations.max() / 4000**0.5)
        np.testing.assert_allclose(np.cov(draws[0].T) / np.outer(deviations, deviations),
                                   covariance / np.outer(deviations, deviations), atol=0.12)  # fmt: skip

    def test_transformed_scale_of_eight_schools(self):
        """Against quadrature; the normal distributions lack the long tail of log tau."""
        mu, tau = np.linspace(-25, 30, 500)[:, None], np.linspace(0.01, 30, 500)
        variances = ERRORS[:, None, None] ** 2 + tau**2
        logp = -(mu**2 + tau**2) / 50 - (np.log(variances) + (EFFECTS[:, None, None] - mu) ** 2 / variances).sum(0) / 2
        p = np.exp(logp) / np.exp(logp).sum()
        means = (p * mu).sum(), (p * tau).sum()
        fit = op.compile_MAP("lbfgs", model=eight_schools(), jacobian=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = fit.pathfinder(20, 4000, random_seed=1)["posterior"]
        assert float(draws["mu"].mean()) == pytest.approx(means[0], abs=0.4)
        assert float(draws["mu"].std()) == pytest.approx((p * (mu - means[0]) ** 2).sum() ** 0.5, abs=0.3)
        assert means[1] - 0.2 < float(draws["tau"].mean()) < means[1] + 1
        assert draws["theta"].shape == (1, 4000, 8)

    def test_a_seed_gives_the_same_draws(self):
        fit = op.compile_MAP("lbfgs", model=normal(MANY), jacobian=True)
        first, same, other = (fit.pathfinder(2, 50, random_seed=seed)["posterior"]["mu"].values for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, same)
        assert (first != other).all()

    def test_data_are_read_anew(self, monkeypatch):
        model = normal(MANY)
        fit = op.compile_MAP("lbfgs", model=model, jacobian=True)
        before = fit.pathfinder(2, random_seed=1)["posterior"]["mu"].values.mean()
        monkeypatch.setattr(pytensor, "function", None)  # nothing is compiled
        model.set_data("data", MANY + 10)
        assert fit.pathfinder(2, random_seed=1)["posterior"]["mu"].values.mean() - before > 5

    def test_importance_sampling(self):
        fit = op.compile_MAP("lbfgs", model=normal(MANY), jacobian=True)
        trees = {
            how: fit.pathfinder(3, 60, num_draws_per_path=40, random_seed=1, importance_sampling=how)
            for how in ("psis", "psir", "identity", None)
        }
        for how, tree in trees.items():
            found = tree["pathfinder"]
            assert found["log_weights"].shape == (3, 40)
            assert np.exp(found["log_weights"]).sum() == pytest.approx(1)
            assert tree["posterior"]["mu"].shape == (1, 60 if how else 120)
            distinct = len(np.unique(tree["posterior"]["mu"]))
            assert distinct == tree["posterior"]["mu"].size if how != "psir" else distinct < 60
            assert ("pareto_k" in found) == (how in ("psis", "psir"))
        assert (trees[None]["pathfinder"]["draw_path"].values == np.repeat([0, 1, 2], 40)).all()
        weights = [trees[how]["pathfinder"]["log_weights"].values for how in ("identity", None, "psis")]
        np.testing.assert_array_equal(weights[0], weights[1])
        assert weights[2].max() <= weights[0].max()  # its tail is smoothed

    def test_a_path_that_fails_counts_for_nothing(self):
        with pm.Model() as model:
            x = pm.Normal("x", 0, 0.1, initval=-0.5)
            pm.Potential("end", pt.switch(x > -1.5, 0.0, -np.inf))
        options = {"model": model, "random_seed": 3, "jitter_max_retries": 0, "importance_sampling": None}
        with pytest.warns(optapi.OptimizationWarning, match="of 6 paths have no normal distribution"):
            tree = op.fit_pathfinder(6, num_draws_per_path=10, **options)
        lost = np.isinf(tree["pathfinder"]["elbo"].values)
        assert 0 < lost.sum() < 6
        assert set(tree["pathfinder"]["draw_path"].values) == set(np.flatnonzero(~lost))
        assert float(abs(tree["posterior"]["x"]).max()) < 0.5

    @pytest.mark.parametrize(
        "error, options, message",
        [
            (ValueError, {"num_paths": 0}, "num_paths"),
            (ValueError, {"num_draws_per_path": 0}, "num_draws_per_path"),
            (ValueError, {"num_elbo_draws": -1}, "num_elbo_draws"),
            (ValueError, {"maxcor": 0}, "maxcor"),
            (TypeError, {"jitter": True}, "jitter is True"),
            (ValueError, {"jitter": -1.0}, "jitter"),
            (ValueError, {"importance_sampling": "sir"}, "pass 'psis', 'psir' or 'identity'"),
            (ValueError, {"num_draws_per_path": 5, "importance_sampling": "psis"}, "20 draws have a weight"),
            (TypeError, {"memorry": 3}, "memory"),
            (KeyError, {"initvals": {"nu": 1}}, "no free variable"),
        ],
    )
    def test_arguments(self, error, options, message):
        with pytest.raises(error, match=message):
            op.fit_pathfinder(model=normal(MANY), **options)

    def test_refusals(self):
        with pm.Model() as model:
            pm.Normal("y", pm.Poisson("k", 3) + pm.Normal("x"), observed=2.0)
        with pytest.raises(TypeError, match="'k' keep their start"):
            op.fit_pathfinder(model=model)
        with pytest.raises(TypeError, match="'sigma_log__' keep their start"):
            op.compile_MAP(vars=["mu"], model=normal(), jacobian=True).pathfinder()
        with pytest.raises(ValueError, match="pass jacobian=True"):
            op.compile_MAP(model=normal()).pathfinder()
        with pytest.raises(ValueError, match=r"that of 'y' is nan.* a smaller jitter"):
            model = normal()
            model.set_data("data", np.array([np.nan, 1.0]))
            op.fit_pathfinder(model=model, jitter_max_retries=1)
        with pytest.raises(ValueError, match="is random"), pytest.warns(optapi.OptimizationWarning):
            op.fit_pathfinder(model=conjugate(minibatch=True)[0])

    @pytest.mark.jax
    def test_under_jax(self):
        pytest.importorskip("jax")
        model = normal(MANY)
        trees = [op.fit_pathfinder(2, 50, model=model, backend=b, random_seed=1) for b in ("python", "jax")]
        np.testing.assert_allclose(*(tree["posterior"]["mu"] for tree in trees), rtol=1e-4)


def conjugate(minibatch=False):
    """The posterior of the mean is normal, with mean 3.1614 and standard deviation 0.2."""
    y = np.random.default_rng(7).normal(3, 2, size=100)
    with pm.Model() as model:
        rows = pm.Minibatch(y, batch_size=20) if minibatch else y
        pm.Normal("y", pm.Normal("mu", 0, 10), 2, observed=rows, total_size=100 if minibatch else None)
    variance = 1 / (100 / 4 + 1 / 100)
    return model, variance * y.sum() / 4, variance**0.5


class TestVariational:
    @pytest.mark.parametrize("name, tolerance", [("sgd", 1e-10), ("adam", 1e-6), ("momentum", 1e-10)])
    def test_pm_fit_takes_the_same_steps(self, name, tolerance):
        theirs = getattr(pm, name)(learning_rate=0.003)
        options = {"momentum": 0.9} if name == "momentum" else {}
        fits = [
            pm.fit(200, model=conjugate()[0], obj_optimizer=optimizer, random_seed=5, progressbar=False,
                   compile_kwargs={"mode": optapi.PYTHON})
            for optimizer in (op.obj_optimizer(name, step_size=0.003, **options), theirs)
        ]  # fmt: skip
        for ours, other in zip(fits[0].params, fits[1].params, strict=True):
            np.testing.assert_allclose(ours.get_value(), other.get_value(), rtol=0, atol=tolerance)

    def test_adam_of_pymc_has_its_epsilon_elsewhere(self):
        """PyMC corrects the bias in the step, so its epsilon is smaller by the root of 1 - beta2^t."""
        g = np.array([1.0, -2.0, 0.5, 3.0])
        for eps_inside in (True, False):
            m = v = 0.0
            x = 1.0
            for t, gradient in enumerate(g, 1):
                m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
                if eps_inside:  # PyMC
                    x -= 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-2)
                else:
                    x -= 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-2)
            p, gradient = pytensor.shared(1.0, name="p"), pt.dscalar()
            optimizer = (
                pm.adam(learning_rate=0.1, epsilon=1e-2)
                if eps_inside
                else op.obj_optimizer("adam", step_size=0.1, epsilon=1e-2)
            )
            step = pytensor.function([gradient], [], updates=optimizer([gradient], [p]), mode=optapi.PYTHON)
            for value in g:
                step(value)
            assert p.get_value() == pytest.approx(x, abs=1e-13)

    def test_schedules(self):
        model, mean, deviation = conjugate()
        optimizer = op.obj_optimizer("adam", step_size=schedules.Cosine(0.1, steps=1500))
        fit = pm.fit(
            1500,
            model=model,
            obj_optimizer=optimizer,
            random_seed=1,
            progressbar=False,
            compile_kwargs={"mode": optapi.PYTHON},
        )
        assert fit.mean.eval()[0] == pytest.approx(mean, abs=0.05)
        assert fit.std.eval()[0] == pytest.approx(deviation, rel=0.15)

    def test_a_rule_that_searches_is_refused(self):
        with pytest.raises(ValueError, match="pass cost="):
            pm.fit(5, model=conjugate()[0], obj_optimizer=op.obj_optimizer("lbfgs"), progressbar=False)

    @pytest.mark.parametrize("minibatch", [False, True])
    def test_fit_advi(self, minibatch):
        model, mean, deviation = conjugate(minibatch)
        options = {"step_size": schedules.Cosine(0.1, steps=2000), "backend": "python", "progressbar": False}
        first, second = (op.fit_advi(2000, model=model, random_seed=1, **options) for _ in range(2))
        assert first.mean.eval()[0] == pytest.approx(mean, abs=0.06)
        assert first.std.eval()[0] == pytest.approx(deviation, rel=0.2)
        np.testing.assert_array_equal(first.hist, second.hist)
        assert first.hist.shape == (2000,) and np.isfinite(first.hist).all()
        assert first.sample(7)["posterior"]["mu"].shape == (1, 7)

    def test_full_rank(self):
        with pm.Model() as model:
            x = pm.Normal("x", 0, 1, shape=2)
            pm.Normal("y", x.sum(), 0.5, observed=1.0)
        options = {"step_size": schedules.Cosine(0.05, steps=3000), "backend": "python", "progressbar": False}
        fit = op.fit_advi(3000, method="fullrank_advi", model=model, random_seed=1, **options)
        exact = np.linalg.inv(np.eye(2) + 4 * np.ones((2, 2)))
        np.testing.assert_allclose(fit.cov.eval(), exact, atol=0.1)

    def test_stops_by_a_moving_average(self):
        model = conjugate()[0]
        options = {"step_size": 0.05, "backend": "python", "progressbar": False, "random_seed": 1}
        fit = op.fit_advi(20_000, model=model, elbo_tolerance=1e-3, window=200, **options)
        assert 400 < len(fit.hist) < 10_000 and np.isfinite(fit.hist).all()

    def test_a_loss_that_is_not_finite(self):
        with pytest.raises(FloatingPointError, match="smaller step_size"):
            op.fit_advi(
                500, "sgd", model=conjugate()[0], step_size=1e3, backend="python", progressbar=False, random_seed=1
            )

    @pytest.mark.jax
    @pytest.mark.filterwarnings("ignore:Skipping Assert")
    def test_under_jax(self):
        model, mean, _ = conjugate(minibatch=True)
        options = {"step_size": schedules.Cosine(0.1, steps=2000), "backend": "jax", "progressbar": False}
        first, second = (op.fit_advi(2000, model=model, random_seed=1, **options) for _ in range(2))
        assert first.mean.eval()[0] == pytest.approx(mean, abs=0.1)
        np.testing.assert_array_equal(first.hist, second.hist)

    @pytest.mark.jax
    def test_under_jax_with_named_dimensions(self):
        with pm.Model(coords={"group": ["a", "b", "c"]}) as model:
            x = pm.Normal("x", 0, 1, dims="group")
            pm.Normal("y", x, 0.5, observed=[1.0, 2.0, -1.0], dims="group")
        options = {"step_size": schedules.Cosine(0.1, steps=2000), "backend": "jax", "progressbar": False}
        fit = op.fit_advi(2000, model=model, random_seed=1, **options)
        np.testing.assert_allclose(fit.mean.eval(), np.array([1.0, 2.0, -1.0]) * 0.8, atol=0.1)
        np.testing.assert_allclose(fit.std.eval(), np.sqrt(0.2), rtol=0.25)

    def test_trainer(self):
        advi = pytest.importorskip("pymc_extras.inference.advi")
        adam = pytest.importorskip("pymc_extras.inference.advi.optimizers").adam
        ends = []
        for optimizer in (op.gradient_transformation("adam", step_size=0.02), adam(learning_rate=0.02)):
            with conjugate()[0]:
                trainer = advi.Trainer(optimizer=optimizer, compile_kwargs={"mode": optapi.PYTHON}, random_seed=1)
                trainer.fit(100, random_seed=2)
            ends.append(trainer.state.params)
        for name, value in ends[0].items():
            np.testing.assert_allclose(value, ends[1][name], atol=1e-6)
