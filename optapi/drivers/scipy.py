"""The rules as methods of `scipy.optimize.minimize`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..typing import OptAlgo
from .numpy import minimize, minimize_iterator
from .options import SCIPY_NAMES, name_of, rule_of


def scipy_method(opt_algo: OptAlgo, **options: Any) -> Callable[..., Any]:
    """A rule as SciPy takes a method: ``scipy.optimize.minimize(fun, x0, jac=jac, method=scipy_method(lbfgs))``.

    It serves wherever SciPy takes a method, for instance in the `minimizer_kwargs` of ``basinhopping`` and
    ``dual_annealing``.

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
        Without `jac` it takes SciPy's forward differences, with the step `eps` of the options, by default the root of
        the machine precision of `x0`; their calls of the function count. So it does with ``jac="3-point"`` and
        ``"cs"``, which SciPy hands on to no method that is a function. A `hess` that is a function, whose matrices may
        be sparse or linear operators, is used where a rule needs products, as `hessp` is.

    Raises
    ------
    NotImplementedError
        When it is called with `bounds` or `constraints`, with another scheme of differences for `jac`, or with a `hess`
        that is not a function.
    TypeError
        At an unknown option, here or when it is called.

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

        for name, value in (("bounds", bounds), ("constraints", constraints)):
            if value is not None and np.size(value) != 0:
                raise NotImplementedError(f"{name_of(rule)} takes no {name}; leave {name} out or use SciPy's method")
        if not (jac in (None, False, "2-point") or callable(jac)):
            raise NotImplementedError(f"jac is {jac!r}; pass a function, or None for forward differences")
        if not (hess is None or callable(hess)):
            raise NotImplementedError(f"hess is {hess!r}; pass a function that returns the matrix, or hessp")
        keywords = {**translated(options), **translated(given)}
        tolerance = keywords.pop("tol", None)
        if tolerance is not None:
            keywords.setdefault("tolerance", tolerance)
        step = keywords.pop("eps", None)
        counted = Counted(fun)
        if hessp is None and hess is not None:
            # SciPy takes sparse matrices and linear operators too, and shapes are what its methods make of them.
            hessp = lambda x, v, *args: np.asarray(hess(x, *args) @ v).reshape(x.shape)  # noqa: E731
        if callable(jac):
            derivative = lambda x, *args: np.reshape(jac(x, *args), x.shape)  # noqa: E731
        else:
            derivative = counted.forward_difference(step)
        result = minimize(
            x0,
            counted,
            derivative,
            rule,
            args=args,
            hessp=hessp,
            callback=callback,
            full_output=True,
            **keywords,
        )
        return OptimizeResult({**result, "nfev": counted.calls})

    return method


class Counted:
    """A function that counts its calls, and remembers the last one."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.calls = 0
        self.last: tuple[Any, Any] | None = None

    def __call__(self, x: Any, *args: Any) -> Any:
        self.calls += 1
        kept = x.copy()
        value = self.function(x, *args)
        self.last = kept, value
        return value

    def forward_difference(self, step: float | None) -> Callable[..., Any]:
        """SciPy's own forward differences of the function."""

        def derivative(x: Any, *args: Any) -> Any:
            from scipy.optimize import approx_fprime

            known = self.last

            def function(moved: Any) -> Any:
                # It asks for the value at x first, which the minimization has asked for just before.
                if known is not None and np.array_equal(moved, known[0]):
                    return known[1]
                return self(moved.copy(), *args)

            return approx_fprime(x, function, np.sqrt(np.finfo(x.dtype).eps) if step is None else step)

        derivative.error = step  # type: ignore[attr-defined]
        return derivative


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
