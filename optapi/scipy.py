"""SciPy's own interface on the rules, where only the import changes.

::

    from optapi.scipy import curve_fit, least_squares, minimize

Order of arguments, names of methods, options, defaults, tests of convergence, messages and results are SciPy's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import scipy.optimize
from scipy.linalg import LinAlgError, cholesky
from scipy.optimize import Bounds, HessianUpdateStrategy, LbfgsInvHessProduct, OptimizeResult, OptimizeWarning

from .checks import warn
from .drivers.differences import SCHEMES, Differences
from .drivers.numpy import minimize_iterator
from .drivers.progress import takes_result
from .drivers.scipy import Products, Shaped, steps
from .drivers.scipy_constraints import (
    Lagrangian,
    by_differences,
    check_equalities,
    constraints_of,
    entries,
    fixed,
    is_given,
    slsqp_multipliers,
    trust_constr_fields,
)
from .drivers.scipy_least_squares import curve_fit, least_squares
from .drivers.vector_functions import JacobianDifferences
from .feasible import projected_gradients
from .line_search import strong_wolfe
from .rules._linear_algebra import CompactHessian, CompactInverseHessian
from .rules.conjugate_gradient import polak_ribiere
from .rules.constrained import sqp
from .rules.newton import newton_cg, trust_region_cg
from .rules.quasi_newton import bfgs, lbfgs


__all__ = ["curve_fit", "least_squares", "minimize"]

EPSILON = float(np.finfo(float).eps) ** 0.5
SUCCESS = "Optimization terminated successfully."
MAXITER = "Maximum number of iterations has been exceeded."
NAN = "NaN result encountered."
SMALL_FALL = "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH"
PRECISION = "Desired error not necessarily achieved due to precision loss."
STOPPED = "`callback` raised `StopIteration`."
SLSQP = "Optimization terminated successfully"
EVALUATIONS = "The maximum number of function evaluations is exceeded."
GTOL = "`gtol` termination condition is satisfied."
XTOL = "`xtol` termination condition is satisfied."
VIOLATED = "Constraint violation exceeds 'gtol'"


@dataclass
class State:
    """A minimization between two iterations, as a test of convergence sees it.

    Attributes
    ----------
    x, fun, jac, projected
        The point, the cost and the derivative there, and what of this is feasible with bounds.
    step, fall
        What the last iteration has changed; None and infinite at the start.
    known : Lagrangian or None
        What is known of general constraints, for a method that takes them.
    """

    x: np.ndarray
    fun: float
    jac: np.ndarray
    projected: np.ndarray
    step: np.ndarray | None = None
    fall: float = np.inf
    known: Lagrangian | None = None


# From a state and SciPy's options to the message if it has converged, else None.
Test = Callable[[State, dict[str, Any]], str | None]


@dataclass(frozen=True)
class Method:
    """A method of SciPy.

    Attributes
    ----------
    rule : callable
    defaults : dict
        SciPy's options.
    translated : callable
        From SciPy's options to those of the rule.
    test : callable
        A `Test`.
    tol : tuple of str
        The options that `tol` sets.
    precise, limit, stuck, nan : str
        Messages: of a success that is the rule's, and of the statuses 1 to 3; None if the status of NaN is 2.
    infeasible : str or None
        The message where no step makes the violation of constraints smaller.
    uses : tuple of str
        Which of `hess` and `hessp` it takes, and then needs `jac`.
    ignores : tuple of str
        Which of them SciPy's takes, and the rule does without.
    needs_hess : bool
        Whether it needs one of these too.
    limit_wins : bool
        Whether the limit of iterations is the verdict where it converges at the last one.
    warning : type
        Of the warning with `disp`.
    bounded, constrained : bool
        Whether it takes bounds, and general constraints.
    first : int
        The number of the start among the iterations; if it is 1, the callback is called there too.
    statuses : dict
        SciPy's statuses, from a message or from 1 of the limit, 2 if it is stuck, 3 of NaN, 6 if infeasible and 99 of
        the callback, where they are others.
    fields : callable or None
        From the minimization, a state and the options to what a result has beside the fields of all methods.
    """

    rule: Callable[..., Any]
    defaults: dict[str, Any]
    translated: Callable[[dict[str, Any]], dict[str, Any]]
    test: Test
    tol: tuple[str, ...] = ("gtol",)
    precise: str = SUCCESS
    limit: str = MAXITER
    stuck: str = PRECISION
    nan: str | None = NAN
    infeasible: str | None = None
    uses: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    needs_hess: bool = False
    limit_wins: bool = True
    warning: type[Warning] = OptimizeWarning
    bounded: bool = False
    constrained: bool = False
    first: int = 0
    statuses: dict[int | str, int] = field(default_factory=dict)
    fields: Callable[[minimize_iterator, State, dict[str, Any]], dict[str, Any]] | None = None


def small_gradient(state: State, given: dict[str, Any]) -> str | None:
    """The test of CG."""
    return SUCCESS if np.linalg.norm(state.jac, given["norm"]) <= given["gtol"] else None


def small_gradient_or_step(state: State, given: dict[str, Any]) -> str | None:
    """The test of BFGS."""
    xrtol = given["xrtol"]
    if state.step is not None and np.linalg.norm(state.step) <= xrtol * (xrtol + np.linalg.norm(state.x)):
        return SUCCESS
    return small_gradient(state, given)


def small_gradient_or_fall(state: State, given: dict[str, Any]) -> str | None:
    """The test of L-BFGS-B."""
    if np.max(np.abs(state.projected), initial=0.0) <= given["gtol"]:
        return "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL"
    if state.step is not None and state.fall <= given["ftol"] * max(abs(state.fun + state.fall), abs(state.fun), 1.0):
        return SMALL_FALL
    return None


def small_step(state: State, given: dict[str, Any]) -> str | None:
    """The test of Newton-CG."""
    short = state.step is not None and np.sum(np.abs(state.step)) <= state.x.size * given["xtol"]
    return SUCCESS if short else None


def short_gradient(state: State, given: dict[str, Any]) -> str | None:
    """The test of the trust regions."""
    return SUCCESS if np.linalg.norm(state.jac) < given["gtol"] else None


def small_change(state: State, given: dict[str, Any]) -> str | None:
    """The test of SLSQP."""
    known: Any = state.known
    if state.step is None or not np.sum(known.excess) < given["ftol"]:
        return None
    return SLSQP if abs(state.fall) < given["ftol"] or np.linalg.norm(state.step) < given["ftol"] else None


def small_lagrangian(state: State, given: dict[str, Any]) -> str | None:
    """The test of trust-constr, with the step in the place of the radius."""
    known: Any = state.known
    if not known.violation < given["gtol"]:
        return None
    if np.max(np.abs(known.slope), initial=0.0) < given["gtol"]:
        return GTOL
    return XTOL if state.step is not None and np.linalg.norm(state.step) < given["xtol"] else None


def wolfe(given: dict[str, Any]) -> dict[str, Any]:
    """The options of a rule with SciPy's constants of the Wolfe conditions."""
    if not 0 < given["c1"] < given["c2"] < 1:
        raise ValueError("'c1' and 'c2' do not satisfy 0 < c1 < c2 < 1.")
    return {"line_search": partial(strong_wolfe, decrease=float(given["c1"]), curvature=float(given["c2"]))}


def limited(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `lbfgs`."""
    if not given["maxls"] > 0:
        raise ValueError("maxls must be positive.")
    return {"memory": int(given["maxcor"]), "line_search": partial(strong_wolfe, max_trials=int(given["maxls"]))}


def region(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `trust_region_cg`."""
    first, largest, accept = given["initial_trust_radius"], given["max_trust_radius"], given["eta"]
    if not 0 <= accept < 0.25:
        raise ValueError("invalid acceptance stringency: eta is to be at least 0 and below 0.25")
    if largest <= 0:
        raise ValueError("the max trust radius must be positive")
    if first <= 0:
        raise ValueError("the initial trust radius must be positive")
    if first >= largest:
        raise ValueError("the initial trust radius must be less than the max trust radius")
    return {"step_size": float(first), "max_radius": float(largest), "accept": float(accept)}


def tolerant(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `sqp`, which has to know what is feasible."""
    return {"tolerance": float(given["gtol"] if "gtol" in given else given["ftol"])}


def of_slsqp(iterator: minimize_iterator, state: State, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of SLSQP."""
    known: Any = state.known
    return {"multipliers": slsqp_multipliers(constraints_of(iterator), known.multipliers)}


def of_trust_constr(iterator: minimize_iterator, state: State, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of trust-constr."""
    step = 0.0 if state.step is None else float(np.linalg.norm(state.step))
    return trust_constr_fields(iterator, state.known, step, given["sparse_jacobian"])


COMMON = {"maxiter": None, "disp": False, "return_all": False, "workers": None}
SEARCHES = {**COMMON, "gtol": 1e-5, "norm": np.inf, "eps": EPSILON, "finite_diff_rel_step": None, "c1": 1e-4}
TRUST = Method(
    trust_region_cg,
    {**COMMON, "gtol": 1e-4, "initial_trust_radius": 1.0, "max_trust_radius": 1000.0, "eta": 0.15, "inexact": True,
     "subproblem_maxiter": None},
    region,
    short_gradient,
    stuck="A bad approximation caused failure to predict improvement.",
    uses=("hess", "hessp"),
    needs_hess=True,
    limit_wins=False,
    warning=RuntimeWarning,
)  # fmt: skip
METHODS = {
    "bfgs": Method(bfgs, {**SEARCHES, "c2": 0.9, "xrtol": 0, "hess_inv0": None}, wolfe, small_gradient_or_step),
    "cg": Method(polak_ribiere, {**SEARCHES, "c2": 0.4}, wolfe, small_gradient),
    "l-bfgs-b": Method(
        lbfgs,
        # Before 1.18 it had disp and iprint too.
        {"maxcor": 10, "ftol": 2.2204460492503131e-09, "gtol": 1e-5, "eps": 1e-8, "maxfun": 15000, "maxiter": 15000,
         "maxls": 20, "finite_diff_rel_step": None, "workers": None, "disp": None, "iprint": -1},
        limited,
        small_gradient_or_fall,
        tol=("ftol", "gtol"),
        precise=SMALL_FALL,
        limit="STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT",
        stuck="ABNORMAL:",
        nan=None,
        bounded=True,
    ),
    "newton-cg": Method(
        newton_cg,
        {**COMMON, "xtol": 1e-5, "eps": EPSILON, "c1": 1e-4, "c2": 0.9},
        wolfe,
        small_step,
        tol=("xtol",),
        limit=f"Warning: {MAXITER}",
        stuck=f"Warning: {PRECISION}",
        uses=("hess", "hessp"),
        limit_wins=False,
    ),
    "trust-ncg": TRUST,
    "trust-krylov": TRUST,
    "trust-exact": replace(TRUST, uses=("hess",)),
    "dogleg": replace(TRUST, uses=("hess",)),
    "slsqp": Method(
        sqp,
        {"maxiter": 100, "ftol": 1e-6, "iprint": 1, "disp": False, "eps": EPSILON, "finite_diff_rel_step": None,
         "workers": None},
        tolerant,
        small_change,
        tol=("ftol",),
        precise=SLSQP,
        limit="Iteration limit reached",
        stuck="Positive directional derivative for linesearch",
        nan=None,
        infeasible="Inequality constraints incompatible",
        limit_wins=False,
        bounded=True,
        constrained=True,
        statuses={1: 9, 2: 8, 6: 4},
        fields=of_slsqp,
    ),
    "trust-constr": Method(
        sqp,
        {"xtol": 1e-8, "gtol": 1e-8, "barrier_tol": 1e-8, "sparse_jacobian": None, "maxiter": 1000, "verbose": 0,
         "finite_diff_rel_step": None, "initial_constr_penalty": 1.0, "initial_tr_radius": 1.0,
         "initial_barrier_parameter": 0.1, "initial_barrier_tolerance": 0.1, "factorization_method": None,
         "disp": False, "workers": None},
        tolerant,
        small_lagrangian,
        tol=("xtol", "gtol", "barrier_tol"),
        precise=XTOL,
        limit=EVALUATIONS,
        stuck=XTOL,
        nan=EVALUATIONS,
        infeasible=VIOLATED,
        ignores=("hess", "hessp"),
        limit_wins=False,
        bounded=True,
        constrained=True,
        first=1,
        # SciPy's trust region becomes shorter than xtol where no step is better, which is no success here.
        statuses={GTOL: 1, XTOL: 2, 1: 0, 2: 2, 3: 0, 6: 4, 99: 3},
        fields=of_trust_constr,
    ),
}  # fmt: skip


def minimize(fun: Callable[..., Any], x0: Any, args: Any = (), method: Any = None, jac: Any = None, hess: Any = None,
             hessp: Any = None, bounds: Any = None, constraints: Any = (), tol: float | None = None,
             callback: Callable[..., Any] | None = None,
             options: dict[str, Any] | None = None) -> OptimizeResult:  # fmt: skip
    """`scipy.optimize.minimize` on the rules.

    Parameters
    ----------
    fun, x0, args, jac, hess, hessp, tol, callback, options
        As for `scipy.optimize.minimize`, with the options that its method has.
    method : str, optional
        ``"BFGS"``, the default, ``"L-BFGS-B"``, ``"CG"``, ``"Newton-CG"``, ``"trust-ncg"``, ``"trust-krylov"``,
        ``"trust-exact"``, ``"dogleg"``, ``"SLSQP"`` or ``"trust-constr"``, in any case of letters. A callable is passed
        on to SciPy.
    bounds
        As for `scipy.optimize.minimize`, of ``"L-BFGS-B"``, the default where there are bounds, ``"SLSQP"`` and
        ``"trust-constr"``. No function is called outside of them.
    constraints
        As for `scipy.optimize.minimize`, of ``"SLSQP"``, the default where there are some, and ``"trust-constr"``; but
        for `keep_feasible`, which `bounds` alone always are.

    Returns
    -------
    scipy.optimize.OptimizeResult
        With SciPy's fields for the method, statuses and messages. After SciPy's own sentence, the message of a status 2
        says more. A minimization that has converged to the precision of the cost is a success; SciPy has status 2.

    Warns
    -----
    scipy.optimize.OptimizeWarning, RuntimeWarning
        As SciPy, of unknown options, and of arguments that the method does not use.

    Raises
    ------
    NotImplementedError
        If the method is one of SciPy that has no counterpart; the message says what to call.
    KeyError, TypeError, ValueError
        As SciPy; and at a general constraint of ``"trust-constr"`` that is to be kept feasible.

    Notes
    -----
    The rules are `bfgs`, `lbfgs`, `polak_ribiere`, `newton_cg`, for all trust regions `trust_region_cg`, which solves
    the model by conjugate gradients, and for both methods with constraints `sqp`. Their trial points are not SciPy's,
    so numbers of calls differ. A step that a trust region refuses is part of the iteration. Forward differences with
    SciPy's default steps become central ones where they have lost their digits. ``hess="2-point"`` and the other
    schemes are products by central differences of `jac`.

    ``"trust-constr"`` learns second derivatives from changes of the gradient of the Lagrangian: `hess` and `hessp`, and
    the options of SciPy's trust region and barrier, are taken and not used. In its results ``tr_radius`` is the length
    of the last step, ``method`` is what SciPy takes for such constraints, and what counts conjugate gradients is 0.
    Where no step is better although the conditions of a minimum do not hold, the status is 2, and it is no success. No
    tables of iterations are printed.

    Examples
    --------
    >>> from optapi.scipy import minimize
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = minimize(rosen, [1.3, 0.7, 0.8, 1.9, 1.2], jac=rosen_der, options={"gtol": 1e-8})
    >>> result.x.round(6), result.message
    (array([1., 1., 1., 1., 1.]), 'Optimization terminated successfully.')
    """
    if callable(method):
        return scipy.optimize.minimize(
            fun, x0, args, method, jac, hess, hessp, bounds, constraints, tol, callback, options
        )
    x = np.atleast_1d(np.asarray(x0))
    if x.ndim != 1:
        raise ValueError("'x0' must only have one dimension.")
    args = args if isinstance(args, tuple) else (args,)
    name = named(method, bounds, constraints)
    chosen, box = METHODS[name], box_of(bounds, x)
    if x.dtype not in ("float32", "float64") or chosen.bounded:
        x = x.astype("float64")
    given = options_of(name, method or "BFGS", options or {}, tol)
    if given["maxiter"] is None:
        given["maxiter"] = 200 * x.size
    if chosen.uses or callable(jac) or jac is True:
        if not (callable(jac) or jac is True):
            raise ValueError(f"Jacobian is required for the method {method}")
        derivative: Any = True if jac is True else Shaped(jac)
    else:
        absolute, relative = given.get("eps"), given["finite_diff_rel_step"]
        scheme = jac if jac in SCHEMES else None if "eps" in given else "2-point"
        is_default = relative is None if scheme else absolute is chosen.defaults["eps"]
        derivative = steps(scheme, absolute, relative, fixed=not is_default)
        if "hess" in chosen.ignores and isinstance(hess, str) and hess in SCHEMES:
            raise ValueError(
                "Whenever the gradient is estimated via finite-differences, we require the Hessian to be estimated "
                "using one of the quasi-Newton strategies."
            )
    for argument, value in (("hess", hess), ("hessp", hessp)):
        if value is not None and argument not in (*chosen.uses, *chosen.ignores):
            about = "Hessian" if argument == "hess" else "Hessian-vector product"
            warn(f"Method {method or 'BFGS'} does not use {about} information ({argument}).", RuntimeWarning)
    products = products_of(chosen, given, hess, hessp)
    if chosen.needs_hess and products is None and not isinstance(hess, str):
        raise ValueError(f"The Hessian{' or its product' * ('hessp' in chosen.uses)} is required for {method}")
    cost: Any = Paired(fun) if jac is True else Scalar(fun)
    equal, more = box.lb == box.ub, dict[str, Any]()
    if chosen.constrained:
        by_eps = jac not in SCHEMES
        more["constraints"] = entries(
            constraints, name == "slsqp", JacobianDifferences("2-point", None, absolute=given["eps"])
            if "eps" in given and by_eps
            else JacobianDifferences(jac if jac in SCHEMES else "2-point", given["finite_diff_rel_step"]),
        )  # fmt: skip
    if equal.all() and equal.size and name in ("l-bfgs-b", "slsqp"):
        value = cost(box.lb.copy(), *args)
        success, message = fixed(more.get("constraints", []), box.lb)
        return OptimizeResult(x=box.lb.copy(), fun=value[0] if jac is True else value, success=success, message=message,
                              nfev=1, njev=0, nhev=0)  # fmt: skip
    if chosen.bounded and not (chosen.constrained and bounds is None):
        more["bounds"] = box
    iterator = minimize_iterator(
        x, cost, derivative, chosen.rule, args=args, hessp=products, max_iterations=2**62, workers=given["workers"],
        **{"tolerance": 0.0, **chosen.translated(given), **more},
    )  # fmt: skip
    if name == "trust-constr":
        check_equalities(constraints_of(iterator), x.size, given["factorization_method"])
    if isinstance(products, Follower):
        products.iterator = iterator
    if given.get("hess_inv0") is not None:
        begin_with(iterator, given["hess_inv0"])
    try:
        result = followed(iterator, chosen, given, callback, patience=1 + isinstance(products, Updated))
    finally:
        iterator._evaluator.close()
    differs = isinstance(derivative, Differences) or by_differences(more.get("constraints", []))
    if equal.any() and differs and name in ("l-bfgs-b", "slsqp"):
        result.jac[equal] = np.nan
        if "hess_inv" in result:
            result["hess_inv"] = None
    if isinstance(products, Products):
        result["nhev"] = products.calls
        if chosen.needs_hess:
            result["hess"] = products.at(result.x, *args)
    show(chosen, given, result)
    return result


def named(method: str | None, bounds: Any, constraints: Any) -> str:
    """The key of the method in `METHODS`. What is not taken, is refused here."""
    constrained = is_given(constraints)
    if method is None:
        method = "SLSQP" if constrained else "BFGS" if bounds is None else "L-BFGS-B"
    name = method.lower()
    own = f"scipy.optimize.minimize(fun, x0, method={method!r})"
    if name == "tnc":
        raise NotImplementedError(
            f"TNC has no counterpart; pass method='L-BFGS-B', which takes bounds too, or call {own}"
        )
    if name in ("nelder-mead", "powell", "cobyla", "cobyqa"):
        raise NotImplementedError(f"{method} has no counterpart among the rules, which need derivatives; call {own}")
    if name not in METHODS:
        raise ValueError(f"Unknown solver {method}; pass one of {', '.join(METHODS)}")
    chosen = METHODS[name]
    for argument, is_there, is_taken in (
        ("constraints", constrained, chosen.constrained),
        ("bounds", bounds is not None, chosen.bounded),
    ):
        if is_there and not is_taken:
            warn(f"Method {method} cannot handle {argument}.", RuntimeWarning)
    return name


def box_of(bounds: Any, x: np.ndarray) -> Bounds:
    """`bounds`, in either form of SciPy, for the point `x`; none if they are None."""
    if bounds is None:
        bounds = Bounds()
    elif not isinstance(bounds, Bounds):
        lows, highs = zip(*bounds, strict=True)
        bounds = Bounds(*([free if end is None else np.asarray(end).item() for end in ends]
                          for free, ends in ((-np.inf, lows), (np.inf, highs))))  # fmt: skip
    if np.any(bounds.ub < bounds.lb):
        raise ValueError("An upper bound is less than the corresponding lower bound.")
    try:
        return Bounds(*(np.broadcast_to(side, x.shape) for side in (bounds.lb, bounds.ub)))
    except ValueError:
        raise ValueError("The number of bounds is not compatible with the length of `x0`.") from None


def options_of(name: str, method: str, options: dict[str, Any], tol: float | None) -> dict[str, Any]:
    """All options of a method, with those that are given; unknown ones are left out, with SciPy's warning."""
    chosen = METHODS[name]
    given = dict(options)
    if tol is not None:
        given = {**dict.fromkeys(chosen.tol, tol), **given}
    if name in ("l-bfgs-b", "slsqp") and given.pop("return_all", False):
        warn(f"Method {method} does not support the return_all option.", RuntimeWarning)
    unknown = [option for option in given if option not in chosen.defaults]
    if unknown:
        warn(f"Unknown solver options: {', '.join(unknown)}", OptimizeWarning)
    return chosen.defaults | {option: value for option, value in given.items() if option in chosen.defaults}


def products_of(chosen: Method, given: dict[str, Any], hess: Any, hessp: Any) -> Any:
    """How a method multiplies with second derivatives; None for differences of the derivative."""
    if callable(hess) and "hess" in chosen.uses:
        return Products(hess)
    if callable(hessp) and "hessp" in chosen.uses and not isinstance(hess, str):
        return Multiplied(hessp)
    if isinstance(hess, HessianUpdateStrategy) and "hessp" in chosen.uses:
        return Updated(hess)
    if hess is None and chosen.uses and not chosen.needs_hess and given["eps"] != EPSILON:
        return Ahead(given["eps"])
    return None


def begin_with(iterator: minimize_iterator, hess_inv0: Any) -> None:
    """Let BFGS begin with this inverse of the Hessian."""
    H, n = np.array(hess_inv0, "float64"), iterator.x.size
    try:
        if H.shape != (n, n) or not np.array_equal(H, H.T):
            raise LinAlgError
        cholesky(H)
    except (LinAlgError, ValueError):
        raise ValueError("'hess_inv0' matrix isn't positive definite.") from None
    values, places = list(iterator._position.values), iterator._program.places
    (inverse,), updated = places.inverse, places.names.index("bfgs/updated")
    values[inverse] = H.astype(values[inverse].dtype)
    values[updated] = np.ones_like(values[updated])
    iterator._position = iterator._position._replace(values=values)


def followed(iterator: minimize_iterator, chosen: Method, given: dict[str, Any], callback: Any,
             patience: int) -> OptimizeResult:  # fmt: skip
    """The result of SciPy's loop around the iterations, which ends when the test is met `patience` times in a row.

    The step of a quasi-Newton model, which may be poor, says less of the error than Newton's.
    """
    by_result, began = callback is not None and takes_result(callback), time.time()
    state = state_at(iterator, chosen)
    points, nit, met, status = [state.x.copy()], chosen.first, 0, None

    def result(status: int | None = None, message: str | None = None) -> OptimizeResult:
        """The result with one of our statuses."""
        code = None if status is None else chosen.statuses.get(message or "", chosen.statuses.get(status, status))
        found = OptimizeResult(
            x=state.x.copy(), success=status == 0, status=code, message=message, fun=state.fun,
            jac=state.jac.copy(), nit=nit, nfev=iterator.nfev, njev=iterator.njev,
        )  # fmt: skip
        if chosen.rule is bfgs:
            found["hess_inv"] = iterator.result.hess_inv
        if chosen.rule is lbfgs:
            found["hess_inv"] = pairs_of(iterator)
        if chosen.uses or chosen.ignores:
            found["nhev"] = iterator.nhev
        if chosen.fields is not None:
            found |= chosen.fields(iterator, state, given) | (
                {"niter": nit, "execution_time": time.time() - began} if chosen.first else {}
            )
        if given.get("return_all"):
            found["allvecs"] = points
        return found

    def stops() -> bool:
        """Whether the callback says so."""
        if callback is None:
            return False
        try:
            if chosen.first:
                seen = result()
                # Of trust-constr what the callback returns counts too.
                return bool(callback(intermediate_result=seen) if by_result else callback(state.x.copy(), seen))
            if by_result:
                callback(intermediate_result=OptimizeResult(x=state.x.copy(), fun=state.fun))
            else:
                callback(state.x.copy())
        except StopIteration:
            return True
        return False

    if chosen.first and stops():
        return result(99, STOPPED)
    message = chosen.test(state, given)
    if nit >= given["maxiter"] and (message is None or chosen.limit_wins):
        status, message = 1, chosen.limit
    elif message is not None:
        status = 0
    while status is None:
        before = iterator._position.now
        try:
            next(iterator)
        except StopIteration:
            status, message = end_of(iterator, chosen)
            if chosen.constrained:
                # The rule has found new multipliers there.
                state = state_at(iterator, chosen)
                message = chosen.test(state, given) or message
            break
        now, nit = iterator._position.now, nit + 1
        # An iteration without a better point, after which the rule begins anew, says nothing of convergence.
        step = now.point[0] - before.point[0] if now.key != before.key else None
        state = state_at(iterator, chosen, step, state.fun)
        if given.get("return_all"):
            points.append(state.x.copy())
        if stops():
            status, message = 99, STOPPED
            break
        message = chosen.test(state, given)
        met = 0 if message is None else met + 1
        if nit >= given["maxiter"] and (message is None or chosen.limit_wins):
            status, message = 1, chosen.limit
        elif iterator.nfev > given.get("maxfun", np.inf):
            status, message = 1, "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT"
        elif met >= patience:
            status = 0
    return result(status, message)


def state_at(iterator: minimize_iterator, chosen: Method, step: np.ndarray | None = None,
             before: float = np.inf) -> State:  # fmt: skip
    """The state at the point held, to which the `step` led from a point with the cost `before`."""
    evaluator, now = iterator._evaluator, iterator._position.now
    cost, gradients = evaluator.cost(now), evaluator.gradients(now)
    projected = projected_gradients(now.point, gradients, evaluator.limits)
    known = Lagrangian.of(iterator, now) if chosen.constrained else None
    return State(now.point[0], cost, gradients[0], projected[0], step, before - cost, known)


def end_of(iterator: minimize_iterator, chosen: Method) -> tuple[int, str]:
    """Our status and SciPy's message where the rule itself has found its end."""
    if iterator.status == 0:
        return 0, chosen.precise
    if iterator.status == 3 and chosen.nan is not None:
        return 3, chosen.nan
    if iterator.status == 6 and chosen.infeasible is not None:
        return 6, chosen.infeasible
    if iterator.status == 2 and chosen.infeasible == VIOLATED and not iterator._is_feasible(iterator._position.now):
        return 6, f"{VIOLATED} {iterator.message}"
    if iterator.status == 8 and chosen.constrained:
        return 1, f"{chosen.limit} {iterator.message}"
    return 2, f"{chosen.stuck} {iterator.message}"


def pairs_of(iterator: minimize_iterator) -> LbfgsInvHessProduct:
    """The pairs of `lbfgs` as SciPy has them, the oldest first."""
    values = [iterator._position.values[place] for place in iterator._program.places.inverse]
    if len(values) == len(CompactHessian._fields):
        bounded = CompactHessian(*values)
        # Each pair is multiplied by a number, which changes no product.
        y, s = np.split(bounded.vectors, 2)
        slot, used = int(bounded.pushed) % bounded.memory, (s != 0).any(axis=1)
    else:
        pairs = CompactInverseHessian(*values)
        s, y = np.split(pairs.vectors, 2)
        slot, used = int(pairs.slot), pairs.curvatures != 0
    order = (np.arange(slot, slot + len(s))) % len(s)
    order = order[used[order]]
    return LbfgsInvHessProduct(s[order], y[order])


def show(chosen: Method, given: dict[str, Any], result: OptimizeResult) -> None:
    """Print what SciPy prints with `disp`."""
    if chosen.constrained:
        sys.stdout.write(of_constrained(given, result))
        return
    if not given.get("disp"):
        return
    lines = [
        f"         Current function value: {result.fun:f}",
        f"         Iterations: {result.nit:d}",
        f"         Function evaluations: {result.nfev:d}",
        f"         Gradient evaluations: {result.njev:d}",
        *([f"         Hessian evaluations: {result.nhev:d}"] if chosen.uses else []),
    ]
    if result.status == 0:
        lines.insert(0, result.message)
    else:
        warn(result.message, chosen.warning)
    sys.stdout.write("\n".join([*lines, ""]))


def of_constrained(given: dict[str, Any], result: OptimizeResult) -> str:
    """What is printed of a method with constraints at its end; tables of iterations are not."""
    if "verbose" in given:
        counted = (
            f"Number of iterations: {result.nit}, function evaluations: {result.nfev}, CG iterations: "
            f"{result.cg_niter}, optimality: {result.optimality:.2e}, constraint violation: "
            f"{result.constr_violation:.2e}, execution time: {result.execution_time:4.2} s."
        )
        return f"{result.message}\n{counted}\n" if given["verbose"] or given["disp"] else ""
    lines = [
        f"{result.message}    (Exit mode {result.status})",
        f"            Current function value: {result.fun}",
        f"            Iterations: {result.nit}",
        f"            Function evaluations: {result.nfev}",
        f"            Gradient evaluations: {result.njev}",
    ]
    return "\n".join([*lines, ""]) if given["disp"] and given["iprint"] >= 1 else ""


# Functions as SciPy takes them. They are classes, so that they pickle for `workers`.


class Scalar:
    """A cost that may return an array of size 1."""

    def __init__(self, fun: Callable[..., Any]):
        self.fun = fun

    def __call__(self, x: Any, *args: Any) -> Any:
        return self.number(self.fun(x, *args))

    @staticmethod
    def number(value: Any) -> Any:
        if np.size(value) != 1:
            raise ValueError("The user-provided objective function must return a scalar value.")
        return value


class Paired(Scalar):
    """A cost that returns the derivative too."""

    def __call__(self, x: Any, *args: Any) -> Any:
        value, gradient = self.fun(x, *args)
        return self.number(value), np.reshape(gradient, x.shape)


class Multiplied:
    """Products of any shape of a vector."""

    def __init__(self, hessp: Callable[..., Any]):
        self.hessp = hessp

    def __call__(self, x: Any, v: Any, *args: Any) -> Any:
        return np.reshape(self.hessp(x, v, *args), x.shape)


class Follower:
    """Products that take the derivatives of a minimization."""

    iterator: minimize_iterator

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """The derivative at `x`."""
        evaluator = self.iterator._evaluator
        return evaluator.gradients(evaluator.at([x]))[0]


class Ahead(Follower):
    """Forward differences of the derivative with the step `eps`."""

    def __init__(self, eps: Any):
        self.eps = eps

    def __call__(self, x: Any, v: Any, *args: Any) -> Any:
        return (self.gradient(x + self.eps * v) - self.gradient(x)) / self.eps


class Updated(Follower):
    """A quasi-Newton approximation of the Hessian, by SciPy's ``BFGS`` or ``SR1``."""

    def __init__(self, strategy: HessianUpdateStrategy):
        self.strategy = strategy
        self.known: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, x: Any, v: Any, *args: Any) -> Any:
        if self.known is None:
            self.strategy.initialize(x.size, "hess")
            self.known = x, self.gradient(x)
        elif not np.array_equal(x, self.known[0]):
            gradient = self.gradient(x)
            self.strategy.update(x - self.known[0], gradient - self.known[1])
            self.known = x, gradient
        return self.strategy.dot(v)
