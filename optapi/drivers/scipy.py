"""The rules as methods of `scipy.optimize.minimize`, and what its functions are made to be for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checks import takes
from ..feasible import Limits
from ..hints import WORDS, hinted
from ..typing import OptAlgo
from .differences import Costs, Differences
from .numpy import minimize, minimize_iterator
from .options import name_of, rule_of


@hinted
def scipy_method(opt_algo: OptAlgo, **options: Any) -> Callable[..., Any]:
    """A rule as SciPy takes a method: ``scipy.optimize.minimize(fun, x0, jac=jac, method=scipy_method(lbfgs))``.

    It serves wherever SciPy takes a method, for instance in the `minimizer_kwargs` of ``basinhopping`` and
    ``dual_annealing``. Programs that only name a method of SciPy run on the rules by `optapi.scipy.minimize`.

    Parameters
    ----------
    opt_algo : callable or str
        A rule, for instance `optapi.lbfgs`, or its name.
    **options
        Options of the rule and keywords of `minimize_iterator`, also by SciPy's names: `maxiter`, `maxfun` or `maxfev`,
        `ftol` for `cost_tolerance`, `gtol` for the rule's `tolerance`, `disp`. The `options` of
        ``scipy.optimize.minimize`` take their places.

    Returns
    -------
    callable
        It returns SciPy's ``OptimizeResult``. `tol` is the rule's `tolerance`, unless `gtol` or `tolerance` is given.
        A `hess` that is a function, whose matrices may be sparse or linear operators, is used where a rule needs
        products, as `hessp` is.

    Raises
    ------
    NotImplementedError
        When it is called with `constraints` that the rule does not take, with another scheme of differences for `jac`,
        or with a `hess` that is not a function.
    TypeError
        At an unknown option, here or when it is called; at `bounds` if the rule takes none.

    Notes
    -----
    Without `jac` the derivative is by SciPy's forward differences, with the step `eps` of the options, by default the
    root of the machine precision of `x0` times ``max(1, abs(x))``; their calls of the function count. SciPy does not
    tell a method that is a function of ``jac="3-point"`` or ``"cs"``. So at the start `fun` is also tried with complex
    numbers: where these give the derivative that the forward differences give, it is by the complex step from then on,
    which is at least as precise as what was asked for. With `eps`, nothing is tried.

    Examples
    --------
    >>> import scipy.optimize
    >>> from scipy.optimize import rosen, rosen_der
    >>> method = optapi.scipy_method(optapi.lbfgs, memory=5)
    >>> scipy.optimize.minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=method).x.round(4)
    array([1., 1.])
    """
    rule = rule_of(opt_algo)
    check_options(options)

    def method(fun: Callable[..., Any], x0: Any, args: tuple[Any, ...] = (), jac: Any = None, hess: Any = None,
               hessp: Any = None, bounds: Any = None, constraints: Any = (), callback: Any = None,
               **given: Any) -> Any:  # fmt: skip
        from scipy.optimize import OptimizeResult

        constrained = constraints is not None and np.size(constraints) != 0
        if constrained and not takes(rule, "constraints"):
            raise NotImplementedError(f"{name_of(rule)} takes no constraints; leave them out, or take sqp")
        if not (jac in (None, False, "2-point") or callable(jac)):
            raise NotImplementedError(f"jac is {jac!r}; pass a function, or None for forward differences")
        if not (hess is None or callable(hess)):
            raise NotImplementedError(f"hess is {hess!r}; pass a function that returns the matrix, or hessp")
        keywords = {**translated(options), **translated(given)}
        if bounds is not None:
            keywords["bounds"] = bounds
        if constrained:
            keywords["constraints"] = constraints
        tolerance = keywords.pop("tol", None)
        if tolerance is not None:
            keywords.setdefault("tolerance", tolerance)
        step = keywords.pop("eps", None)
        if hessp is None and hess is not None:
            hessp = Products(hess)
        derivative = Shaped(jac) if callable(jac) else ComplexWhereTaken() if step is None else steps(None, step)
        result = minimize(
            x0,
            fun,
            derivative,
            rule,
            args=args,
            hessp=hessp,
            callback=callback,
            full_output=True,
            **keywords,
        )
        return OptimizeResult(result)

    return method


def steps(jac: str | None, absolute: Any, relative: Any = None, fixed: bool = True) -> Differences:
    """SciPy's differences: with its absolute steps by default, with relative ones for a scheme."""
    if jac is None:
        return Differences("2-point", absolute=absolute, fixed=fixed)
    return Differences(jac, relative=relative, scipy=True, fixed=fixed)


class ComplexWhereTaken(Differences):
    """SciPy's forward differences; by the complex step from the first derivative on, if both are the same there."""

    def __init__(self) -> None:
        super().__init__("2-point", scipy=True)
        self.tried = False

    def __call__(self, costs: Costs, point: Sequence[np.ndarray], cost: float,
                 limits: Limits | None = None) -> list[np.ndarray]:  # fmt: skip
        slope = super().__call__(costs, point, cost, limits)
        if self.tried:
            return slope
        self.tried, self.scheme = True, "cs"
        try:
            with np.errstate(all="ignore"):
                exact = super().__call__(costs, point, cost, limits)
            error = 1e-6 * (max(float(np.max(np.abs(g), initial=0.0)) for g in exact) + abs(cost))
            if all(np.allclose(g, s, rtol=1e-5, atol=error) for g, s in zip(exact, slope, strict=True)):
                return exact
        except Exception:  # of a function that takes real numbers only
            pass
        self.scheme = "2-point"
        return slope


class Shaped:
    """A derivative as SciPy takes it, a number, row or column too, in the shape of the point."""

    def __init__(self, jac: Callable[..., Any]):
        self.jac = jac

    def __call__(self, x: Any, *args: Any) -> Any:
        return np.reshape(self.jac(x, *args), x.shape)


class Products:
    """Products with the matrix that `hess` returns, dense, sparse or a linear operator; it is called once for a point.

    Attributes
    ----------
    calls : int
    matrix
        The last one.
    """

    def __init__(self, hess: Callable[..., Any]):
        self.hess = hess
        self.calls = 0
        self.matrix: Any = None
        self._at: bytes | None = None

    def at(self, x: Any, *args: Any) -> Any:
        """The matrix at `x`."""
        key = x.tobytes()
        if self._at != key:
            self.calls += 1
            self.matrix, self._at = self.hess(x.copy(), *args), key
        return self.matrix

    def __call__(self, x: Any, v: Any, *args: Any) -> Any:
        return np.asarray(self.at(x, *args) @ v).reshape(x.shape)


# SciPy's names of options, and ours.
SCIPY_NAMES = {name: WORDS[name][0] for name in ("maxiter", "maxfun", "maxfev", "ftol", "gtol", "disp")}


def translated(options: dict[str, Any]) -> dict[str, Any]:
    """`options` by the names of the driver."""
    new: dict[str, Any] = {}
    for name, value in options.items():
        other = SCIPY_NAMES.get(name, name)
        if other in new:
            raise TypeError(f"{name} and another option both mean {other}; pass one of them")
        new[other] = value
    return new


def check_options(options: dict[str, Any]) -> None:
    """`options` can be passed on beside what SciPy passes."""
    passed = {*list(inspect.signature(minimize_iterator).parameters)[:4], "args", "hessp", "callback", "full_output"}
    for name in options:
        if name in passed:
            raise TypeError(f"the option {name!r} is not taken here: scipy.optimize.minimize passes it")
