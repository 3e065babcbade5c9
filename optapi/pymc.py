"""PyMC's models on the rules: maximum a posteriori, Laplace's approximation, variational inference.

::

    import optapi.pymc

    with model:
        tree = optapi.pymc.find_MAP("lbfgs", starts=8, random_seed=1, compute_hessian=True)

Names of arguments and the trees that come back are those of PyMC 6.4. PyMC is imported when something here is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import graph_replace

from . import stopping
from .checks import check_choice, check_count, check_flag, check_number, warn
from .drivers.compiled import CompiledMinimizer, compile_minimizer
from .drivers.covariance import laplace_evidence, propagated
from .drivers.options import name_of, rule_of
from .drivers.pathfinder import drawn, normalized, resampled
from .drivers.paths import Paths
from .drivers.program import joined
from .drivers.pymc_model import Density, by_adapter, generators_of, imported, mode_of
from .drivers.results import OptimizeResult
from .typing import Array, OptAlgo


__all__ = [
    *("CompiledMAP", "compile_MAP", "find_MAP", "fit_advi", "fit_pathfinder"),
    *("gradient_transformation", "laplace", "obj_optimizer"),
]

# From words of `pm.find_MAP` to what to write.
WORDS = {
    "method": "pass the rule first, find_MAP('lbfgs')",
    "start": "write initvals=",
    "seed": "write random_seed=",
    "maxeval": "write max_evaluations=",
    "tol": "write tolerance=, of the largest component of the gradient",
    "maxiter": "write max_iterations=",
    "use_grad": "leave it out, the rule takes what it needs",
    "use_hess": "leave it out, the rule takes what it needs",
    "use_hessp": "leave it out, the rule takes what it needs",
    "include_transformed": "write idata_kwargs={'include_transformed': True}",
    "return_raw": "leave it out, compile_MAP keeps the result",
}


def find_MAP(rule: OptAlgo = "lbfgs", *, vars: Any = None, initvals: Mapping[Any, Any] | None = None, starts: int = 1,
             jitter: bool = False, jitter_max_retries: int = 10, random_seed: Any = None,
             compute_hessian: bool = False, progressbar: bool = True, return_inferencedata: bool = True,
             model: Any = None, backend: str | None = None, compile_kwargs: Mapping[str, Any] | None = None,
             idata_kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:  # fmt: skip
    """The point of highest posterior density of a PyMC model, as ``pm.find_MAP`` of PyMC 6.4, by a rule.

    Parameters
    ----------
    rule : callable or str
        A rule, or the name of one; those for an exact cost, such as ``"lbfgs"`` and ``"trust_region_cg"``.
    vars : list of variables or names, optional
        The free variables that are optimized; the others keep their start. By default all continuous ones.
    initvals : dict, optional
        Starts of variables, by variable or name, natural or transformed (``"sigma_log__"``); the others are the
        model's.
    starts : int
        From how many points. The first is the start as it is, the others are jittered; the best counts.
    jitter : bool
        Whether also the first is jittered: by numbers between -1 and 1 that are added to the transformed values.
    jitter_max_retries : int
        How often a jittered start is drawn anew where the density is not finite.
    random_seed : int or numpy.random.Generator, optional
        Of the jitter.
    compute_hessian : bool
        Whether the tree has the covariance, from exact second derivatives. Where these are not positive definite, a
        warning says so, and it has none.
    progressbar : bool
    return_inferencedata : bool
        If False, a dictionary from the names of all variables, also transformed ones, to values.
    model : pymc.Model, optional
        By default that of the context.
    backend : str, optional
        ``"numba"``, ``"c"``, ``"jax"`` or ``"python"``. By default Python, which compiles nothing: for a single fit
        it is mostly the quickest. To fit often, take `compile_MAP`.
    compile_kwargs : dict, optional
        ``{"mode": ...}``, a mode of PyTensor, in the place of `backend`.
    idata_kwargs : dict, optional
        Options of ``pymc.to_inference_data``, such as ``{"include_transformed": True}``.
    **options
        Options of the rule and of `compile_minimizer`, such as ``tolerance`` and ``max_iterations``.

    Returns
    -------
    xarray.DataTree or dict
        With the groups ``posterior``, ``observed_data``, ``constant_data``, ``fit`` (``mean_vector`` and
        ``covariance_matrix``, of the transformed values) and ``optimizer_result``, the entries of an `OptimizeResult`,
        and with several starts one row for each, the best first.

    Raises
    ------
    ValueError
        If there is nothing to optimize, if the density or its gradient is not finite at the start, or if it has no
        gradient; the message names the variables.
    TypeError
        If `vars` has discrete variables.

    Warns
    -----
    OptimizationWarning
        If it has not converged.

    Notes
    -----
    The density is that of the natural scale, as in PyMC: without the Jacobian of the transforms. Where a rule tries
    parameters out of their domain, the density is zero there.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0, 10)
    ...     sigma = pm.HalfNormal("sigma", 10)
    ...     _ = pm.Normal("y", mu, sigma, observed=[1.0, 2.0, 6.0])
    ...     tree = optapi.pymc.find_MAP(compute_hessian=True, progressbar=False)
    >>> tree["posterior"]["mu"].values.round(3)
    array([[2.955]])
    >>> sorted(tree.children)
    ['fit', 'observed_data', 'optimizer_result', 'posterior']
    """
    check_flag("return_inferencedata", return_inferencedata)
    check_flag("compute_hessian", compute_hessian)
    fit = compile_MAP(
        rule, vars=vars, model=model, backend=backend, compile_kwargs=compile_kwargs, progressbar=progressbar, **options
    )
    if check_count("starts", starts) == 1:
        result = fit.run(initvals, jitter=jitter, jitter_max_retries=jitter_max_retries, random_seed=random_seed)
    else:
        result = fit.from_starts(starts, initvals, jitter=jitter, random_seed=random_seed)[0]
    if not result.success:
        warn(f"the maximization has not converged: {result.message}")
    if not return_inferencedata:
        return fit.point() | fit.point(transformed=True)
    return fit.to_datatree(compute_hessian=compute_hessian, idata_kwargs=idata_kwargs)


def compile_MAP(rule: OptAlgo = "lbfgs", *, vars: Any = None, model: Any = None, jacobian: bool = False,
                backend: str | None = None, compile_kwargs: Mapping[str, Any] | None = None,
                **options: Any) -> CompiledMAP:  # fmt: skip
    """A compiled maximization of the posterior density of a PyMC model, to be run again and again.

    Each run reads ``pm.Data`` anew, so after ``pm.set_data`` nothing is compiled again.

    Parameters
    ----------
    rule, vars, model, compile_kwargs
        As for `find_MAP`.
    jacobian : bool
        Whether the density is that of the transformed values, with the Jacobian of their transforms.
    backend : str, optional
        As for `find_MAP`. ``"jax"`` compiles for seconds and ``"numba"`` for tens of seconds; a run then takes a tenth
        to a hundredth of the time.
    **options
        Options of the rule and of `compile_minimizer`, such as ``tolerance``, ``max_iterations``, ``progressbar``.

    Returns
    -------
    CompiledMAP

    Raises
    ------
    ValueError, TypeError
        As of `find_MAP`.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> with pm.Model() as model:
    ...     y = pm.Data("y", [1.0, 2.0, 6.0])
    ...     mu = pm.Normal("mu", 0, 10)
    ...     _ = pm.Normal("likelihood", mu, 2.0, observed=y)
    ...     fit = optapi.pymc.compile_MAP("lbfgs")
    ...     for data in ([1.0, 2.0, 6.0], [4.0, 5.0, 9.0]):
    ...         pm.set_data({"y": data})
    ...         result = fit()
    ...         print(result.x["mu"].round(3), fit.standard_errors()["mu"].round(3))
    2.961 1.147
    5.921 1.147
    """
    pymc = imported()
    for name in options:
        if name in WORDS:
            raise TypeError(f"unexpected keyword {name!r}: {WORDS[name]}")
    model = pymc.modelcontext(model)
    algorithm = rule_of(rule, "rule")
    density = Density(model, vars, check_flag("jacobian", jacobian), mode_of(model, backend, compile_kwargs))
    compiled = compile_minimizer(
        density.parameters, density.cost, algorithm, updates=density.updates or None, mode=density.mode, **options
    )
    return CompiledMAP(density, compiled)


class CompiledMAP:
    """A compiled maximization of a posterior density; `compile_MAP` makes it.

    Called, it runs as `run` does.

    Attributes
    ----------
    model : pymc.Model
    minimizer : CompiledMinimizer
        What runs; its `parameters` are the transformed values, its `cost` minus the log density.
    result : OptimizeResult or None
        The last result, of several starts the best. Its points are found by the names of the transformed values.
    results : list of OptimizeResult
        Those of all starts, the best first.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> with pm.Model() as model:
    ...     sigma = pm.HalfNormal("sigma", 10)
    ...     _ = pm.Normal("y", 0, sigma, observed=[1.0, -2.0, 3.0])
    ...     fit = optapi.pymc.compile_MAP("trust_region_cg")
    >>> fit.run({"sigma": 5.0}).success
    True
    >>> round(float(fit.point()["sigma"]), 3), round(float(fit.standard_errors()["sigma"]), 3)
    (2.144, 0.862)
    """

    def __init__(self, density: Density, minimizer: CompiledMinimizer):
        self._density, self.minimizer, self.model = density, minimizer, density.model
        self.results: list[OptimizeResult] = []

    @property
    def result(self) -> OptimizeResult | None:
        return self.results[0] if self.results else None

    def run(self, initvals: Mapping[Any, Any] | None = None, *, jitter: bool = False, jitter_max_retries: int = 10,
            random_seed: Any = None) -> OptimizeResult:  # fmt: skip
        """Maximize from one start; see `find_MAP`.

        Raises
        ------
        ValueError
            If the density or its gradient is not finite at the start.
        """
        rng, density = np.random.default_rng(random_seed), self._density
        for _ in range(1 + (check_count("jitter_max_retries", jitter_max_retries, low=0) if jitter else 0)):
            density.hold(density.start(initvals, check_flag("jitter", jitter), int(rng.integers(2**30))))
            result = self.minimizer()
            if result.status != 3 or result.nit > 0:
                break
        else:
            raise ValueError(density.why_not_finite())
        self.results = [result]
        return result

    __call__ = run

    def from_starts(self, starts: int | Sequence[Mapping[Any, Any]], initvals: Mapping[Any, Any] | None = None, *,
                    jitter: bool = False, random_seed: Any = None, workers: int = 1,
                    together: bool | None = None) -> list[OptimizeResult]:  # fmt: skip
        """Maximize from many starts.

        Parameters
        ----------
        starts : int or list of dict
            How many, of which the first is that of `initvals` and the model and the others are jittered; or the
            `initvals` of each.
        initvals, jitter, random_seed
            As for `find_MAP`.
        workers, together
            As for `CompiledMinimizer.from_starts`.

        Returns
        -------
        list of OptimizeResult
            The best first. One from a start where the density is not finite has status 3.
        """
        rows = self._rows(starts, initvals, jitter, random_seed)
        results = self.minimizer.from_starts(rows, workers=workers, together=together)
        if all(result.status == 3 and result.nit == 0 for result in results):
            raise ValueError(self._density.why_not_finite())
        self.results = results
        return results

    def paths(self, starts: int | Sequence[Mapping[Any, Any]], initvals: Mapping[Any, Any] | None = None, *,
              jitter: bool = False, random_seed: Any = None, max_iterations: int = 200) -> Paths:  # fmt: skip
        """All points of maximizations from many starts, with minus the log density and its gradients, in one call.

        Parameters
        ----------
        starts, initvals, jitter, random_seed
            As for `from_starts`.
        max_iterations : int
            The largest number of iterations of each.

        Returns
        -------
        Paths
            Of the transformed values, see `CompiledMinimizer.paths`.
        """
        return self.minimizer.paths(self._rows(starts, initvals, jitter, random_seed), max_iterations=max_iterations)

    def pathfinder(self, num_paths: int = 4, num_draws: int = 1000, *, num_draws_per_path: int = 1000,
                   num_elbo_draws: int = 10, maxcor: int = 10, jitter: float = 2.0, jitter_max_retries: int = 10,
                   max_iterations: int = 200, importance_sampling: str | None = "psir",
                   initvals: Mapping[Any, Any] | None = None, random_seed: Any = None,
                   idata_kwargs: Mapping[str, Any] | None = None) -> Any:  # fmt: skip
        """Pathfinder along the paths from many starts; see `fit_pathfinder`.

        Raises
        ------
        TypeError, ValueError
            As of `fit_pathfinder`, and if the density is not that of the transformed values, ``jacobian=True``, or of
            all variables.
        """
        counts = {"num_paths": num_paths, "num_draws": num_draws, "num_draws_per_path": num_draws_per_path}
        for name, count in {**counts, "num_elbo_draws": num_elbo_draws, "maxcor": maxcor}.items():
            check_count(name, count)
        check_number("jitter", jitter, low=0)
        check_count("jitter_max_retries", jitter_max_retries, low=0)
        if importance_sampling is not None:
            check_choice("importance_sampling", importance_sampling, ("psis", "psir", "identity"))
        density, rng = self._density, np.random.default_rng(random_seed)
        density.check_continuous()
        base = density.start(initvals, None, None)
        density.hold(base)
        start = joined([base[v.name] for v in density.variables])
        starts, bad = np.empty((num_paths, start.size)), np.ones(num_paths, bool)
        for _ in range(1 + jitter_max_retries):
            starts[bad] = start + rng.uniform(-jitter, jitter, (bad.sum(), start.size))
            paths = self.minimizer.paths(density.split(starts), max_iterations=max_iterations)
            bad = ~(np.isfinite(paths.costs[:, 0]) & np.isfinite(paths.gradients[:, 0]).all(axis=1))
            if not bad.any():
                break
        if bad.all():
            density.hold(density.points(starts)[0])
            raise ValueError(density.why_not_finite("Pass initvals, or a smaller jitter"))
        log_density = partial(density.by_rows, block=num_draws_per_path)
        found = drawn(paths, log_density, maxcor, num_elbo_draws, num_draws_per_path, rng)
        lost = int(np.isinf(found.bounds).sum())
        if lost == num_paths:
            raise ValueError("no path has a normal distribution with a finite bound; pass initvals, or less jitter")
        if lost:
            warn(f"{lost} of {num_paths} paths have no normal distribution with a finite bound; the others count")
        weights, k = normalized(found.log_weights, importance_sampling in ("psis", "psir"))
        if k > 0.7:
            warn(f"Pareto's k is {k:.2f}, above 0.7: no normal distribution covers the posterior, nor do the draws")
        wanted = None if importance_sampling is None else num_draws
        picked = resampled(weights, wanted, importance_sampling == "psir", rng)
        groups = {"pathfinder": density.pathfinder_group(found, paths.iterations, weights, k, picked)}
        return density.tree(density.points(found.draws.reshape(-1, start.size)[picked]), groups, idata_kwargs)

    def _rows(self, starts: Any, initvals: Any, jitter: bool, random_seed: Any) -> list[np.ndarray]:
        """For each parameter an array with a row for each start. The variables hold the first."""
        rng, density = np.random.default_rng(random_seed), self._density
        if isinstance(starts, int):
            given = [(initvals, check_flag("jitter", jitter) or i > 0) for i in range(check_count("starts", starts))]
        else:
            given = [({**(initvals or {}), **one}, jitter) for one in starts]
        points = [density.start(values, moved, int(rng.integers(2**30))) for values, moved in given]
        density.hold(points[0])
        return [np.stack([point[v.name] for point in points]) for v in density.variables]

    def _done(self) -> OptimizeResult:
        if self.result is None:
            raise ValueError("nothing has been maximized yet; call run()")
        return self.result

    def _mode(self) -> dict[str, np.ndarray]:
        """The values of all value variables, those that were optimized as in the result."""
        done = self._done()
        return self._density.held() | {
            v.name: np.asarray(x, v.dtype) for v, x in zip(self._density.variables, done.x, strict=True)
        }

    def point(self, transformed: bool = False) -> dict[str, Any]:
        """The values of all variables at the maximum, by name.

        Parameters
        ----------
        transformed : bool
            Whether to return the transformed values, which `run` takes as `initvals`; else those on the natural scale,
            with the deterministic ones.
        """
        point = self._mode()
        if transformed:
            return point
        free = {rv.name for rv in self.model.free_RVs}
        return {n: a for n, a in self._density.named(point).items() if n in free or n not in point}

    def covariance(self) -> Array:
        """The covariance of the transformed values, from exact second derivatives.

        A row and a column for each component, in the order of the model, those that were optimized alone.

        Raises
        ------
        ValueError
            If the matrix of second derivatives is not positive definite, so that the point is no strict maximum.
        """
        return np.asarray(self._done().covariance())

    def standard_errors(self, transformed: bool = False) -> dict[str, Any]:
        """The standard errors of the variables, by name.

        Parameters
        ----------
        transformed : bool
            Whether of the transformed values; else of the variables on their natural scale, also of deterministic
            ones, by the delta method.

        Raises
        ------
        ValueError
            As of `covariance`.
        """
        done, density = self._done(), self._density
        if transformed:
            errors: Any = done.standard_errors()
            return dict(zip([v.name for v in density.variables], errors, strict=True))
        natural = density.natural()
        density.hold(self._mode())
        found = propagated(density.parameters, list(natural.values()), np.asarray(self.covariance()), {}, density.mode)
        return dict(zip(natural, found, strict=True))

    def to_datatree(self, compute_hessian: bool = False, idata_kwargs: Mapping[str, Any] | None = None) -> Any:
        """The maximum as PyMC's tree; see `find_MAP`."""
        covariance = None
        if compute_hessian:
            try:
                covariance = self.covariance()
            except ValueError as error:
                warn(str(error))
        return self._density.tree([self._mode()], self._groups(covariance), idata_kwargs)

    def _laplace(self, draws: int, rng: np.random.Generator, idata_kwargs: Mapping[str, Any] | None) -> Any:
        """The tree of draws from the normal distribution around the mode."""
        done, density, covariance = self._done(), self._density, np.asarray(self.covariance())
        mean = joined(done.x)
        values = mean + rng.normal(size=(draws, mean.size)) @ np.linalg.cholesky(covariance).T
        evidence = laplace_evidence(-done.fun, covariance)
        groups = self._groups(covariance, log_marginal_likelihood=evidence)
        return density.tree(density.points(values), groups, idata_kwargs)

    def _groups(self, covariance: Any, **more: float) -> dict[str, Any]:
        density, done = self._density, self._done()
        others = self.results if len(self.results) > 1 else ()
        return {
            "fit": density.fit_group(joined(done.x), covariance, **more),
            "optimizer_result": density.result_group(done, name_of(self.minimizer.opt_algo), others),
        }

    def __repr__(self) -> str:
        return repr(self.minimizer).replace("minimization", "maximization of a posterior density", 1)


def laplace(rule: OptAlgo = "trust_region_cg", *, draws: int = 1000, vars: Any = None,
            initvals: Mapping[Any, Any] | None = None, starts: int = 1, jitter: bool = False, random_seed: Any = None,
            jacobian: bool = True, progressbar: bool = True, model: Any = None, backend: str | None = None,
            compile_kwargs: Mapping[str, Any] | None = None, idata_kwargs: Mapping[str, Any] | None = None,
            **options: Any) -> Any:  # fmt: skip
    r"""Laplace's approximation of the posterior of a PyMC model: a normal distribution of the transformed values.

    Its mean is the mode, its covariance the inverse of the exact matrix of second derivatives there.

    Parameters
    ----------
    rule, vars, initvals, starts, jitter, random_seed, progressbar, model, backend, compile_kwargs, idata_kwargs
        As for `find_MAP`.
    draws : int
        How many draws the tree has, in one chain.
    jacobian : bool
        Whether the mode is that of the density of the transformed values, which is what is approximated. If False,
        that of the natural scale, as in `find_MAP` and in pymc-extras.
    **options
        As for `find_MAP`.

    Returns
    -------
    xarray.DataTree
        As of `find_MAP`, with the draws as ``posterior``. The group ``fit`` also has ``log_marginal_likelihood``,

        .. math:: \log p(y) \approx \log p(y, \hat\theta) + \tfrac{n}{2} \log 2 \pi + \tfrac{1}{2} \log |C|.

    Raises
    ------
    ValueError
        If the matrix of second derivatives is not positive definite; and as `find_MAP`.

    References
    ----------
    Tierney and Kadane (1986), Accurate approximations for posterior moments and marginal densities.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0, 2)
    ...     _ = pm.Normal("y", mu, 1, observed=[1.0, 3.0])
    ...     tree = optapi.pymc.laplace(draws=500, random_seed=1, progressbar=False)
    >>> tree["posterior"]["mu"].shape, float(tree["fit"]["log_marginal_likelihood"].round(4))
    ((1, 500), -4.3809)
    """
    check_count("draws", draws)
    fit = compile_MAP(
        rule, vars=vars, model=model, jacobian=jacobian, backend=backend, compile_kwargs=compile_kwargs,
        progressbar=progressbar, **options,
    )  # fmt: skip
    rng = np.random.default_rng(random_seed)
    if check_count("starts", starts) == 1:
        result = fit.run(initvals, jitter=jitter, random_seed=rng)
    else:
        result = fit.from_starts(starts, initvals, jitter=jitter, random_seed=rng)[0]
    if not result.success:
        warn(f"the maximization has not converged: {result.message}")
    return fit._laplace(draws, rng, idata_kwargs)


def fit_pathfinder(num_paths: int = 4, num_draws: int = 1000, *, num_draws_per_path: int = 1000,
                   num_elbo_draws: int = 10, maxcor: int = 10, jitter: float = 2.0, jitter_max_retries: int = 10,
                   max_iterations: int = 200, importance_sampling: str | None = "psir",
                   initvals: Mapping[Any, Any] | None = None, random_seed: Any = None, model: Any = None,
                   backend: str | None = None, compile_kwargs: Mapping[str, Any] | None = None,
                   idata_kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:  # fmt: skip
    """Pathfinder: draws from normal distributions that L-BFGS finds on its way to the mode, weighed by the density.

    Along each path, the inverse Hessian of L-BFGS is the covariance of a normal distribution at each point; that with
    the largest evidence lower bound counts. The paths go on together, in one call.

    Parameters
    ----------
    num_paths : int
        From how many starts.
    num_draws : int
        How many draws the tree has, in one chain.
    num_draws_per_path : int
        Out of how many of each path they are drawn.
    num_elbo_draws : int
        How many draws estimate each evidence lower bound.
    maxcor : int
        The largest number of pairs of L-BFGS, and of the covariances.
    jitter : float
        The starts are `initvals`, else the model's, and numbers between minus this and this that are added to the
        transformed values.
    jitter_max_retries : int
        How often a start is drawn anew where the density or its gradient is not finite.
    max_iterations : int
        The largest number of iterations of each path.
    importance_sampling : str or None
        ``"psir"``: drawn with replacement, by weights whose tail is smoothed (Pareto smoothed importance sampling, by
        ArviZ). ``"psis"``: without replacement, so that no draw occurs twice, and large weights count for less.
        ``"identity"``: the same by the weights as they are. None: all draws of all paths, path after path.
    initvals, random_seed, model, backend, compile_kwargs, idata_kwargs
        As for `find_MAP`.
    **options
        Options of `lbfgs`, such as ``tolerance``.

    Returns
    -------
    xarray.DataTree
        As of `find_MAP`, with the draws as ``posterior``, and in the place of ``fit`` and ``optimizer_result`` the
        group ``pathfinder``: for each path ``elbo``, ``lbfgs_niter`` and which point was the best, ``elbo_argmax``; the
        normalized ``log_weights`` of all draws, with ``pareto_k`` where these are smoothed; and ``draw_path``, the path
        of each draw of ``posterior``.

    Raises
    ------
    TypeError
        If the model has discrete variables that are not observed.
    ValueError
        If no path has a normal distribution with a finite bound; and as `find_MAP`.

    Warns
    -----
    OptimizationWarning
        If Pareto's k is above 0.7, so that the draws are not those of the posterior, or if paths have failed.

    References
    ----------
    Zhang, Carpenter, Gelman and Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference.
    Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0, 2)
    ...     _ = pm.Normal("y", mu, 1, observed=[1.0, 3.0])
    ...     tree = optapi.pymc.fit_pathfinder(random_seed=1)
    >>> tree["posterior"]["mu"].shape, tree["pathfinder"]["elbo"].values.round(3)
    ((1, 1000), array([-4.381, -4.381, -4.381, -4.381]))
    """
    fit = compile_MAP(
        "lbfgs", model=model, jacobian=True, backend=backend, compile_kwargs=compile_kwargs,
        memory=check_count("maxcor", maxcor), **options,
    )  # fmt: skip
    return fit.pathfinder(
        num_paths, num_draws, num_draws_per_path=num_draws_per_path, num_elbo_draws=num_elbo_draws, maxcor=maxcor,
        jitter=jitter, jitter_max_retries=jitter_max_retries, max_iterations=max_iterations,
        importance_sampling=importance_sampling, initvals=initvals, random_seed=random_seed, idata_kwargs=idata_kwargs,
    )  # fmt: skip


def obj_optimizer(rule: OptAlgo = "adam", **options: Any) -> Callable[..., Any]:
    """A rule as the `obj_optimizer` of ``pm.fit``.

    Parameters
    ----------
    rule : callable or str
        A rule that takes gradients; those that search along a line need the cost, which PyMC does not pass.
    **options
        Its options, such as ``step_size``, a schedule among them.

    Returns
    -------
    callable
        From gradients, or a cost, and parameters to updates.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> optimizer = optapi.pymc.obj_optimizer("adam", step_size=optapi.schedules.Cosine(0.1, steps=500))
    >>> with pm.Model():
    ...     mu = pm.Normal("mu", 0, 2)
    ...     _ = pm.Normal("y", mu, 1, observed=[1.0, 3.0])
    ...     approximation = pm.fit(
    ...         500, obj_optimizer=optimizer, random_seed=1, progressbar=False, compile_kwargs={"mode": optapi.PYTHON}
    ...     )
    >>> bool(abs(approximation.mean.eval()[0] - 16 / 9) < 0.2)
    True
    """
    algorithm = rule_of(rule, "rule")

    def updates(gradients: Any, parameters: Any) -> Any:
        return by_adapter(algorithm, options, gradients, parameters)

    return updates


def gradient_transformation(rule: OptAlgo = "adam", **options: Any) -> Any:
    """A rule as the `optimizer` of the ``Trainer`` of pymc-extras.

    Parameters
    ----------
    rule : callable or str
        A rule that takes gradients.
    **options
        Its options.

    Returns
    -------
    pymc_extras.inference.advi.GradientTransformation
        With a compiled step alone, which is what ``Trainer`` runs.

    Raises
    ------
    ImportError
        If pymc-extras is not installed.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> optimizer = optapi.pymc.gradient_transformation("adam", step_size=0.01)  # Trainer(optimizer=optimizer)
    """
    algorithm = rule_of(rule, "rule")
    try:
        from pymc_extras.inference.advi.optimizers import GradientTransformation
    except ImportError as error:
        raise ImportError("pymc-extras is not installed; install it with: pip install pymc-extras") from error

    def steps(gradients: Any, parameters: Any) -> Any:
        updates = dict(by_adapter(algorithm, options, list(gradients), parameters))
        # The trainer adds the steps to the parameters.
        return [updates.pop(p) - p for p in parameters], updates

    def alone(*arguments: Any) -> Any:
        raise NotImplementedError("a rule of optapi is a compiled step; pass it to Trainer as its only optimizer")

    return GradientTransformation(alone, alone, steps)


def fit_advi(n: int = 10_000, rule: OptAlgo = "adam", *, method: str = "advi", obj_n_mc: int = 1,
             elbo_tolerance: float | None = None, window: int = 1000, start: Any = None, random_seed: Any = None,
             progressbar: bool = True, model: Any = None, backend: str | None = None,
             compile_kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:  # fmt: skip
    """Automatic differentiation variational inference as ``pm.fit``, all of it in one compiled loop.

    Parameters
    ----------
    n : int
        The largest number of steps.
    rule : callable or str
        A rule for noisy gradients.
    method : str
        ``"advi"`` or ``"fullrank_advi"``: without or with correlations.
    obj_n_mc : int
        How many draws estimate the gradient at each step.
    elbo_tolerance : float, optional
        Stop when a moving average of the evidence lower bound has not improved by this part of itself in `window`
        steps. By default all `n` steps are taken.
    window : int
        The length of the moving average.
    start : dict, optional
        The means at the start, as for ``pm.fit``.
    random_seed : int, optional
        Of the draws, and of the generators of ``pm.Minibatch``.
    progressbar : bool
    model, backend, compile_kwargs
        As for `find_MAP`, but by default compiled as PyTensor does. ``"jax"`` compiles in seconds.
    **options
        Options of the rule, such as ``step_size``, and of `compile_minimizer`.

    Returns
    -------
    pymc.Approximation
        PyMC's own, as of ``pm.fit``: `sample` draws from it, and `hist` has the losses, minus the bound.

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.

    References
    ----------
    Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), Automatic differentiation variational inference.

    Examples
    --------
    >>> import pymc as pm
    >>> import optapi.pymc
    >>> with pm.Model():
    ...     mu = pm.Normal("mu", 0, 2)
    ...     _ = pm.Normal("y", mu, 1, observed=[1.0, 3.0])
    ...     approximation = optapi.pymc.fit_advi(
    ...         500, step_size=0.05, random_seed=1, backend="python", progressbar=False
    ...     )
    >>> bool(abs(approximation.mean.eval()[0] - 16 / 9) < 0.3), len(approximation.hist)
    (True, 500)
    """
    pymc = imported()
    check_count("n", n)
    check_choice("method", method, ("advi", "fullrank_advi"))
    model = pymc.modelcontext(model)
    algorithm = rule_of(rule, "rule")
    if elbo_tolerance is not None:
        check_number("elbo_tolerance", elbo_tolerance, low=0)
        algorithm = patient(algorithm, check_count("window", window), elbo_tolerance)
    inference = (pymc.ADVI if method == "advi" else pymc.FullRankADVI)(
        model=model, start=start, random_seed=random_seed
    )
    approximation = inference.approx
    loss: Any = inference.objective(check_count("obj_n_mc", obj_n_mc))
    # JAX makes no arrays whose shape is a variable.
    known = {p: pt.specify_shape(p, p.get_value(borrow=True).shape) for p in approximation.params}
    lengths = [v for v in model.dim_lengths.values() if isinstance(v, SharedVariable)]
    known |= {v: pt.constant(v.get_value(), dtype=v.type.dtype) for v in lengths}
    [loss] = graph_replace([loss], known, strict=False)
    generators = generators_of([loss])
    seeds = np.random.SeedSequence(random_seed).spawn(len(generators))
    for generator, seed in zip(generators, seeds, strict=True):
        generator.set_value(np.random.Generator(np.random.PCG64(seed)))
    losses, step = pytensor.shared(np.full(n, np.nan), name="losses"), pytensor.shared(0, name="step")
    recorded = {losses: pt.set_subtensor(losses[step], loss.astype("float64")), step: step + 1}
    result = compile_minimizer(
        list(approximation.params), loss, algorithm, updates={**generators, **recorded}, max_iterations=n,
        mode=mode_of(model, backend, compile_kwargs, default=None), progressbar=progressbar, **options,
    )()  # fmt: skip
    if result.status == 3:
        raise FloatingPointError(
            f"the loss is not finite after {result.nit} steps: try a smaller step_size, or start= nearer to the mode"
        )
    approximation.hist = losses.get_value()[: int(step.get_value())]
    for group in approximation.groups:
        group.include_transformed = False
    return approximation


def patient(rule: Callable[..., Any], window: int, improvement: float) -> Callable[..., Any]:
    """`rule` with a stop by a moving average of the cost."""

    @wraps(rule)
    def with_stop(parameters: Any, cost: Any = None, gradients: Any = None, stop: Any = None, updates: Any = None,
                  **options: Any) -> Any:  # fmt: skip
        new = rule(parameters, cost=cost, gradients=gradients, updates=updates, **options)
        return stopping.patience(
            cost, stop, new, calls=window, improvement=improvement, smoothing=1 - 1 / window, name="elbo"
        )

    return with_stop
