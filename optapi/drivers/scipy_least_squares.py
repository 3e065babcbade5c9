"""SciPy's `least_squares` and `curve_fit`, signatures and meanings to the letter, by `levenberg_marquardt`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..feasible import active_bounds, projected_gradients
from ..graph.oracle import elementwise
from ..losses import LOSSES, Robust
from ..pytree import PyTree
from ..rules.least_squares import levenberg_marquardt
from .differences import Workers
from .evaluator import Evaluation
from .least_squares import (
    FitEvaluator,
    FitRun,
    Relative,
    parameter_names,
    run_of,
    whitening,
)
from .termination import Ending
from .vector_functions import METHODS, JacobianDifferences


EPS = float(np.finfo(float).eps)
MESSAGES = {
    -2: "Stopped because `callback` function raised `StopIteration` or returned `True`",
    0: "The maximum number of function evaluations is exceeded.",
    1: "`gtol` termination condition is satisfied.",
    2: "`ftol` termination condition is satisfied.",
    3: "`xtol` termination condition is satisfied.",
    4: "Both `ftol` and `xtol` termination conditions are satisfied.",
}
# SciPy's first steps are long, and the tests of zero residuals expect that the last ones are not damped.
DAMPING = 1e-8
# What SciPy's LSMR takes, which is not used here.
LSMR = {"regularize", "damp", "atol", "btol", "conlim", "maxiter", "show"}


class Residuals:
    """A function with its further arguments, which can be pickled if these can."""

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]):
        self.fun, self.args, self.keywords = fun, args, keywords

    def __call__(self, x: np.ndarray) -> np.ndarray:
        values = np.atleast_1d(self.fun(x, *self.args, **self.keywords))
        if values.ndim > 1:
            raise ValueError(f"`fun` must return at most 1-d array_like. f0.shape: {values.shape}")
        return values


class Exhausted(Exception):
    """The function may not be evaluated again."""


class CountedEvaluator(FitEvaluator):
    """Residuals that are evaluated at so many points at most, those for differences apart."""

    limit = np.inf

    def residuals(self, evaluation: Any) -> np.ndarray:
        if evaluation.residuals is None and self.nfev - self.function.difference_calls >= self.limit:
            raise Exhausted
        return super().residuals(evaluation)


@dataclass(frozen=True)
class Tolerances(Relative):
    """SciPy's tests: `cost_tolerance` is its `ftol`, `step_tolerance` its `xtol`, `cosine` the `gtol` of MINPACK."""

    cosine: float | None = None

    def tests(self, before: Evaluation, now: Evaluation, cost: Callable[[Evaluation], float]) -> tuple[bool, bool]:
        """Whether the cost, and whether the point, changed by little enough."""
        x, step = before.point[0], now.point[0] - before.point[0]
        fall, ftol, xtol = cost(before) - cost(now), self.cost_tolerance or 0.0, self.step_tolerance or 0.0
        along = self.evaluator.weighted_jacobian(before) @ step
        promised = -float(self.evaluator.gradients(before)[0] @ step) - float(along @ along) / 2
        # A damped step says little: what is left is what the undamped one promises.
        small = fall < ftol * cost(before) and fall > promised / 4
        if small:
            left = -float(self.evaluator.gradients(now)[0] @ self.evaluator.undamped(now)) / 2
            small = left <= ftol * cost(before)
        return small, bool(np.linalg.norm(step) < xtol * (xtol + np.linalg.norm(x)))

    def settled(self, before: Evaluation, now: Any, cost: Callable[[Evaluation], float]) -> Ending | None:
        if self.cosine is not None:
            J, values = self.evaluator.jacobians(now)[0], self.evaluator.residuals(now)
            sizes = np.linalg.norm(J, axis=0) * np.linalg.norm(values)
            if (abs(J.T @ values) <= self.cosine * sizes).all():
                return Ending.CONVERGED
        small, near = self.tests(before, now, cost)
        return Ending.SAME_COST if small else Ending.SAME_POINT if near else None


def sides_of(bounds: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper bounds of a vector of so many components, numbers for each."""
    pair = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else bounds
    if len(pair) != 2:
        raise ValueError("`bounds` must contain 2 elements.")
    low, high = (np.full(size, b, float) if np.ndim(b) == 0 or (np.size(b) == 1 and hasattr(bounds, "lb"))
                 else np.asarray(b, float) for b in pair)  # fmt: skip
    return low, high


def check_bounds(bounds: Any, x0: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray] | None:
    """`bounds` as SciPy checks them, None if all are infinite."""
    low, high = sides_of(bounds, x0.size)
    is_bounded = not (np.all(low == -np.inf) and np.all(high == np.inf))
    if is_bounded and method == "lm":
        raise ValueError("Method 'lm' doesn't support bounds.")
    if low.shape != x0.shape or high.shape != x0.shape:
        raise ValueError("Inconsistent shapes between bounds and `x0`.")
    if np.any(low >= high):
        raise ValueError("Each lower bound must be strictly less than each upper bound.")
    if not np.all((x0 >= low) & (x0 <= high)):
        raise ValueError("Initial guess is outside of provided bounds")
    return (low, high) if is_bounded else None


def check_tolerances(method: str, **tolerances: float | None) -> list[float]:
    """`tolerances` as numbers, one of which, or all for "lm", is at least the machine precision."""
    checked = []
    for name, value in tolerances.items():
        if value is not None and value < EPS:
            warnings.warn(f"Setting `{name}` below the machine epsilon ({EPS:.2e}) effectively disables the "
                          "corresponding termination condition.", stacklevel=3)  # fmt: skip
        checked.append(0.0 if value is None else value)
    if method == "lm" and min(checked) < EPS:
        raise ValueError(f"All tolerances must be higher than machine epsilon ({EPS:.2e}) for method 'lm'.")
    if max(checked) < EPS:
        raise ValueError(f"At least one of the tolerances must be higher than machine epsilon ({EPS:.2e}).")
    return checked


def check_x_scale(x_scale: Any, x0: np.ndarray, method: str) -> Any:
    """`x_scale` as the rule takes it."""
    if x_scale is None:
        return "jac" if method == "lm" else None
    if isinstance(x_scale, str) and x_scale == "jac":
        return x_scale
    try:
        scale = np.asarray(x_scale, dtype=float) if not np.iscomplexobj(x_scale) else np.zeros(1)
        valid = bool(np.all(np.isfinite(scale) & (scale > 0)))
    except (ValueError, TypeError):
        valid = False
    if not valid:
        raise ValueError("`x_scale` must be 'jac' or array_like with positive numbers.")
    scale = np.resize(scale, x0.shape) if scale.ndim == 0 else scale
    if scale.shape != x0.shape:
        raise ValueError("Inconsistent shapes between `x_scale` and `x0`.")
    return None if (scale == 1).all() else [scale.tolist()]


def loss_of(loss: Any, m: int, values: np.ndarray, f_scale: float) -> Robust:
    """SciPy's loss: a name, or a NumPy function from z to the rows rho(z), rho'(z) and rho''(z)."""
    if not callable(loss):
        return Robust.of(loss, f_scale)
    if np.shape(loss((values / f_scale) ** 2)) != (3, m):
        raise ValueError("The return value of `loss` callable has wrong shape.")
    return Robust.of(elementwise(lambda z: np.asarray(loss(z), float)), f_scale)


def least_squares(fun: Callable[..., Any], x0: ArrayLike, jac: Any = "2-point", bounds: Any = (-np.inf, np.inf),
                  method: str = "trf", ftol: float | None = 1e-8, xtol: float | None = 1e-8,
                  gtol: float | None = 1e-8, x_scale: Any = None, loss: Any = "linear", f_scale: float = 1.0,
                  diff_step: Any = None, tr_solver: str | None = None, tr_options: Mapping[str, Any] | None = None,
                  jac_sparsity: Any = None, max_nfev: int | None = None, verbose: int = 0,
                  args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None,
                  callback: Callable[..., Any] | None = None, workers: Any = None) -> Any:  # fmt: skip
    """``scipy.optimize.least_squares``, by `levenberg_marquardt`.

    All arguments, tests and fields of the result mean what they mean there, but with bounds: `gtol` is compared with
    the projected gradient, of which `optimality` is the largest component, and not with the gradient that SciPy scales
    by the distances to the bounds; `active_mask` is about components that are at their bounds exactly. The three
    methods differ in what they accept and in their tests and default scales; `tr_solver` and `tr_options` are checked,
    and change nothing, since Jacobians are decomposed, also sparse ones.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    ValueError, TypeError
        As of SciPy.

    Examples
    --------
    >>> import numpy as np
    >>> from optapi.scipy import least_squares
    >>> result = least_squares(lambda x: np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]), [2.0, 2.0])
    >>> result.x.round(6), result.message
    (array([1., 1.]), '`gtol` termination condition is satisfied.')
    """
    from scipy.optimize import OptimizeResult

    if method not in ("trf", "dogbox", "lm"):
        raise ValueError("`method` must be 'trf', 'dogbox' or 'lm'.")
    if not (callable(jac) or (isinstance(jac, str) and jac in METHODS)):
        raise ValueError("`jac` must be '2-point', '3-point', 'cs' or callable.")
    if tr_solver not in (None, "exact", "lsmr"):
        raise ValueError("`tr_solver` must be None, 'exact' or 'lsmr'.")
    if not (callable(loss) or (isinstance(loss, str) and loss in LOSSES)):
        raise ValueError(f"`loss` must be one of {list(LOSSES)} or a callable.")
    if method == "lm" and loss != "linear":
        raise ValueError("method='lm' supports only 'linear' loss function.")
    if verbose not in (0, 1, 2):
        raise ValueError("`verbose` must be in [0, 1, 2].")
    if max_nfev is not None and max_nfev <= 0:
        raise ValueError("`max_nfev` must be None or positive integer.")
    if np.iscomplexobj(x0):
        raise ValueError("`x0` must be real.")
    start = np.atleast_1d(x0).astype(float)
    if start.ndim > 1:
        raise ValueError("`x0` must have at most 1 dimension.")
    limits = check_bounds(bounds, start, method)
    scale = check_x_scale(x_scale, start, method)
    ftol, xtol, gtol = check_tolerances(method, ftol=ftol, xtol=xtol, gtol=gtol)
    if method == "lm" and jac_sparsity is not None:
        raise ValueError("method='lm' does not support `jac_sparsity`.")
    if jac_sparsity is not None and tr_solver == "exact":
        raise ValueError("tr_solver='exact' is incompatible with `jac_sparsity`.")

    keywords: dict[str, Any] = dict(kwargs or {})
    raw: list[Any] = []  # what jac returned last
    residuals = Residuals(fun, tuple(args), keywords)

    def jacobian(x: np.ndarray) -> np.ndarray:
        J = jac(x, *args, **keywords)
        raw[:] = [J]
        if hasattr(J, "matmat") and not hasattr(J, "toarray"):
            J = J @ np.eye(start.size)
        J = np.atleast_2d(J.toarray() if hasattr(J, "toarray") else np.asarray(J, float))
        expected = evaluator.function.length, start.size
        if J.shape != expected:
            raise ValueError(f"The return value of `jac` has wrong shape: expected {expected}, actual {J.shape}.")
        return J

    # One pool for all Jacobians.
    pool = Workers(workers)
    mapped = None if workers is None else pool.map
    differences = JacobianDifferences(jac, diff_step, mapped, sparsity(jac_sparsity)) if isinstance(jac, str) else None
    evaluator = CountedEvaluator(residuals, differences or jacobian, PyTree(), (), Robust.of("linear", 1.0))
    evaluator.limits = None if limits is None else [limits]
    evaluator.limit = 100 * start.size if max_nfev is None else max_nfev
    begin = evaluator.at([start])
    values = evaluator.residuals(begin)
    if not np.isfinite(values).all():
        raise ValueError("Residuals are not finite in the initial point.")
    m = values.size
    if method == "lm" and m < start.size:
        raise ValueError("Method 'lm' doesn't work when the number of residuals is less than the number of variables.")
    if jac_sparsity is not None and np.shape(jac_sparsity) != (m, start.size):
        raise ValueError("`jac_sparsity` has wrong shape.")
    evaluator.jacobians(begin)
    is_dense = not raw or isinstance(raw[0], np.ndarray | list | float) or np.isscalar(raw[0])
    if raw and not is_dense:
        if method == "lm":
            raise ValueError("method='lm' works only with dense Jacobian matrices.")
        if tr_solver == "exact":
            raise ValueError("tr_solver='exact' works only with dense Jacobian matrices.")
        if scale == "jac" and not hasattr(raw[0], "toarray"):
            raise ValueError("x_scale='jac' can't be used when `jac` returns LinearOperator.")
    solver = tr_solver or ("exact" if is_dense and jac_sparsity is None else "lsmr")
    if solver == "lsmr" and not set(tr_options or {}) <= LSMR:
        raise TypeError(f"tr_options has {set(tr_options or {}) - LSMR}, which LSMR does not take")
    evaluator.robust = loss_of(loss, m, values, f_scale)
    if callback is not None and method == "lm":
        warnings.warn("Callback function specified, but not supported with `lm` method.", stacklevel=2)
        callback = None

    first = evaluator.cost(begin)
    with closing(pool):
        run, status = solved(evaluator, start, ftol, xtol, gtol, scale, method == "lm", callback, verbose == 2)
    best: Any = run._position.best
    J, grad = evaluator.weighted_jacobian(best), evaluator.gradients(best)[0]
    nfev = evaluator.nfev - evaluator.function.difference_calls
    result = OptimizeResult(
        x=best.point[0].copy(),
        cost=evaluator.cost(best),
        fun=evaluator.residuals(best).copy(),
        jac=J if is_dense and jac_sparsity is None else like_first(J, raw),
        grad=grad,
        optimality=float(np.max(abs(projected_gradients(best.point, [grad], evaluator.limits)[0]), initial=0.0)),
        active_mask=active_bounds(best.point, [limits])[0].astype(int),
        nfev=nfev,
        njev=None if method == "lm" and not callable(jac) else evaluator.njev,
        status=status,
        message=MESSAGES[status],
        success=status > 0,
    )
    if verbose >= 1:
        print(  # noqa: T201
            f"{result.message}\nFunction evaluations {nfev}, initial cost {first:.4e}, final cost {result.cost:.4e}, "
            f"first-order optimality {result.optimality:.2e}."
        )
    return result


def solved(evaluator: CountedEvaluator, start: np.ndarray, ftol: float, xtol: float, gtol: float, scale: Any,
           by_cosine: bool, callback: Any, shows: bool) -> tuple[FitRun, int]:  # fmt: skip
    """A run that has ended, and SciPy's status."""
    robust = evaluator.robust
    options: dict[str, Any] = {"tolerance": 0.0 if by_cosine else gtol, "x_scale": scale, "damping": DAMPING}
    if not robust.is_linear:
        # By its name, a step that was compiled for it is found again.
        loss = next((name for name, rho in LOSSES.items() if rho is robust.rho), robust.rho)
        options |= {"loss": loss, "f_scale": float(robust.scale.data)}
    if evaluator.limits is not None:
        options["bounds"] = evaluator.limits
    limit = 10**9  # iterations; those of the function count
    termination = Tolerances(limit, None, None, None, ftol, xtol, evaluator=evaluator,
                             cosine=gtol if by_cosine else None)  # fmt: skip
    run = run_of(evaluator, [start], levenberg_marquardt, options, termination, (None, False, shows, False), None)
    status = 0
    while run._position.ending is None:
        before = run._position
        try:
            stepped = run._step()
        except Exhausted:
            return run, 0
        position = run._position
        if position.ending is not None:
            status = status_of(position.ending, ftol, xtol)
            if position.ending in (Ending.SAME_COST, Ending.SAME_POINT):
                small, near = termination.tests(before.now, position.now, evaluator.cost)
                status = 4 if small and near else status
        if stepped and callback is not None and halted(callback, run):
            return run, -2
    return run, status


def status_of(ending: Ending, ftol: float, xtol: float) -> int:
    """SciPy's status; where no better point can be found the tests that are on are met."""
    if ending in (Ending.PRECISE, Ending.STUCK):
        return 3 if xtol > 0 else 2 if ftol > 0 else 1
    return {Ending.CONVERGED: 1, Ending.SAME_COST: 2, Ending.SAME_POINT: 3}.get(ending, 0)


def halted(callback: Callable[..., Any], run: FitRun) -> bool:
    """Call `callback` as SciPy does; whether it wants to stop."""
    from scipy.optimize import OptimizeResult

    evaluator: Any = run._evaluator
    now: Any = run._position.now
    x = now.point[0].copy()
    try:
        if set(inspect.signature(callback).parameters) == {"intermediate_result"}:
            nfev = evaluator.nfev - evaluator.function.difference_calls
            values, cost = evaluator.residuals(now).copy(), evaluator.cost(now)
            seen = OptimizeResult(x=x, fun=values, nit=run.nit, nfev=nfev, cost=cost)
            return bool(callback(intermediate_result=seen))
        return bool(callback(x))
    except StopIteration:
        return True


def sparsity(structure: Any) -> Any:
    """The structure of a Jacobian with its groups of columns, as SciPy's differences take it."""
    if structure is None:
        return None
    from scipy.optimize._numdiff import group_columns
    from scipy.sparse import issparse

    structure = structure if issparse(structure) else np.atleast_2d(structure)
    return structure, group_columns(structure)


def like_first(J: np.ndarray, raw: list[Any]) -> Any:
    """`J` as the kind of matrix that `jac` returned, or sparse."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import aslinearoperator

    return aslinearoperator(J) if raw and not hasattr(raw[0], "toarray") else csr_array(J)


def curve_fit(f: Callable[..., Any], xdata: Any, ydata: ArrayLike, p0: Any = None, sigma: Any = None,
              absolute_sigma: bool = False, check_finite: bool | None = None, bounds: Any = (-np.inf, np.inf),
              method: str | None = None, jac: Any = None, *, full_output: bool = False,
              nan_policy: str | None = None, **kwargs: Any) -> Any:  # fmt: skip
    """``scipy.optimize.curve_fit``, by `levenberg_marquardt`.

    All arguments mean what they mean there; the keywords of ``leastsq`` and of ``least_squares`` too. `factor` changes
    nothing.

    Returns
    -------
    popt, pcov : arrays
        With `full_output` also the dictionary, the message and the number of ``scipy.optimize.curve_fit``.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As of SciPy.

    Examples
    --------
    >>> import numpy as np
    >>> from optapi.scipy import curve_fit
    >>> x = np.linspace(0, 4, 30)
    >>> y = 2.5 * np.exp(-1.3 * x) + 0.05 * np.sin(9 * x)
    >>> best, covariance = curve_fit(lambda x, a, b: a * np.exp(-b * x), x, y)
    >>> best.round(2), np.sqrt(np.diag(covariance)).round(2)
    (array([2.52, 1.31]), array([0.03, 0.02]))
    """
    from scipy.optimize import OptimizeWarning

    if p0 is None:
        n = len(parameter_names(f, strict=False))
        if n < 1:
            raise ValueError("Unable to determine number of fit parameters.")
        p0 = between(*sides_of(bounds, n))
    p0 = np.atleast_1d(p0)
    check = nan_policy is None if check_finite is None else check_finite
    array = np.asarray_chkfinite if check else np.asarray
    ydata = array(ydata, float)
    xdata = array(xdata, float) if isinstance(xdata, list | tuple | np.ndarray) else xdata
    if ydata.size == 0:
        raise ValueError("`ydata` must not be empty!")
    if not check and nan_policy is not None:
        xdata, ydata, sigma = without_nan(nan_policy, xdata, ydata, sigma)
    if method not in (None, "lm", "trf", "dogbox"):
        raise ValueError("`method` must be 'trf', 'dogbox' or 'lm'.")
    limits = check_bounds(bounds, p0.astype(float), "trf" if method is None else method)
    method = method or ("lm" if limits is None else "trf")
    try:
        whiten = whitening("sigma", sigma, ydata)
    except ValueError as error:
        wrong = "positive definite" in str(error)
        raise ValueError("`sigma` must be positive definite." if wrong else "`sigma` has incorrect shape.") from error
    if "args" in kwargs:
        raise ValueError("'args' is not a supported keyword argument.")

    def residuals(p: np.ndarray) -> Any:
        return whiten(f(xdata, *p) - ydata)

    def jacobian(p: np.ndarray) -> Any:
        return whiten(np.asarray(jac(xdata, *p)))

    given = jacobian if callable(jac) else jac
    if method == "lm":
        if ydata.size != 1 and p0.size > ydata.size:
            raise TypeError(f"The number of func parameters={p0.size} must not exceed the number of data "
                            f"points={ydata.size}")  # fmt: skip
        result, infodict, message, status = minpack(residuals, p0, given, **kwargs)
    else:
        if "max_nfev" not in kwargs:
            kwargs["max_nfev"] = kwargs.pop("maxfev", None)
        result = least_squares(
            residuals, p0, "2-point" if given is None else given, bounds=bounds, method=method, **kwargs
        )
        message, status, infodict = result.message, result.status, {"nfev": result.nfev, "fvec": result.fun}
    if not 1 <= status <= 4:
        raise RuntimeError("Optimal parameters not found: " + message)

    _, s, rows = np.linalg.svd(result.jac, full_matrices=False)
    used = s > EPS * max(result.jac.shape) * s[0]
    pcov = (rows[used].T / s[used] ** 2) @ rows[used]
    m, n = result.fun.size, p0.size
    unknown = (method == "lm" and used.sum() < n) or not np.isfinite(pcov).all()
    if not absolute_sigma and not unknown:
        unknown = m <= n
        pcov = pcov if unknown else pcov * (2 * result.cost / (m - n))
    if unknown:
        pcov = np.full((n, n), np.inf)
        warnings.warn("Covariance of the parameters could not be estimated", OptimizeWarning, stacklevel=2)
    return (result.x, pcov, infodict, message, status) if full_output else (result.x, pcov)


def between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A point that is inside: in the middle, 1 from the only bound, or 1 where there is none."""
    first = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 2, 0))
    return first / 2 + np.where(np.isfinite(high), high, first + 2) / 2


def minpack(residuals: Any, p0: np.ndarray, jac: Any, *, ftol: float = 1.49012e-8, xtol: float = 1.49012e-8,
            gtol: float = 0.0, maxfev: int = 0, epsfcn: float | None = None, factor: float = 100.0,
            diag: Any = None, col_deriv: bool = False) -> tuple[Any, dict[str, Any], str, int]:  # fmt: skip
    """What ``leastsq`` returns, with its arguments: the result, its dictionary, the message and the number."""
    from scipy.linalg import qr
    from scipy.optimize import OptimizeResult

    start = p0.astype(float)

    def vector(p: np.ndarray) -> np.ndarray:
        return np.ravel(residuals(p))

    def derivative(p: np.ndarray) -> np.ndarray:
        J = np.asarray(jac(p))
        return J.T if col_deriv else J

    step = "relative" if epsfcn is None else np.sqrt(epsfcn)
    df = JacobianDifferences(jac if isinstance(jac, str) else "2-point", step) if not callable(jac) else derivative
    evaluator = CountedEvaluator(vector, df, PyTree(), (), Robust.of("linear", 1.0))
    evaluator.limit = maxfev or (100 if callable(jac) else 200) * (p0.size + 1)
    begin = evaluator.at([start])
    if evaluator.residuals(begin).size < p0.size:
        raise TypeError(f"Improper input: func input vector length N={p0.size} must not exceed func output vector "
                        f"length M={evaluator.residuals(begin).size}")  # fmt: skip
    scale = "jac" if diag is None else [(1 / np.asarray(diag, float)).tolist()]
    run, status = solved(evaluator, start, ftol, xtol, gtol, scale, True, None, False)
    best: Any = run._position.best
    J, values = evaluator.weighted_jacobian(best), evaluator.residuals(best)
    Q, R, order = qr(J, mode="economic", pivoting=True)
    fjac = np.zeros((p0.size, values.size))
    fjac[:, : p0.size] = R.T
    infodict = {"fvec": values.copy(), "nfev": evaluator.nfev, "njev": evaluator.njev, "fjac": fjac,
                "ipvt": order + 1, "qtf": Q.T @ values}  # fmt: skip
    if not callable(jac):
        del infodict["njev"]
    result = OptimizeResult(x=best.point[0].copy(), fun=values, jac=J, cost=evaluator.cost(best))
    # MINPACK's numbers: 1 ftol, 2 xtol, 3 both, 4 gtol, 5 the limit.
    number = {1: 4, 2: 1, 3: 2, 4: 3, 0: 5}[status]
    message = MESSAGES[status] if status else f"Number of calls to function has reached maxfev = {evaluator.limit}."
    return result, infodict, message, number


def without_nan(policy: str, xdata: Any, ydata: np.ndarray, sigma: Any) -> tuple[Any, np.ndarray, Any]:
    """The data without those that are NaN, as SciPy's `nan_policy` says."""
    if policy == "propagate":
        raise ValueError("`nan_policy='propagate'` is not supported by this function.")
    if policy not in ("raise", "omit"):
        raise ValueError("nan_policy must be one of {None, 'raise', 'omit'}")
    is_array = isinstance(xdata, np.ndarray)
    missing = np.isnan(ydata)
    if is_array:
        missing = missing | np.isnan(xdata).any(axis=tuple(range(xdata.ndim - 1)))
    if not missing.any():
        return xdata, ydata, sigma
    if policy == "raise":
        raise ValueError("The input contains nan values")
    kept = ~missing
    sigma = None if sigma is None else np.asarray(sigma)
    if sigma is not None and sigma.ndim:
        sigma = sigma[kept] if sigma.ndim == 1 else sigma[kept][:, kept]
    return xdata[..., kept] if is_array else xdata, ydata[kept], sigma
