"""Which tests of SciPy are run, and what takes the place of its functions. A file of tests is an entry of `SUITES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import scipy.optimize

import optapi.scipy


@dataclass(frozen=True)
class Suite:
    """A file of tests that SciPy ships.

    Attributes
    ----------
    module : str
        Its name in ``scipy.optimize.tests``. The list of the tests that are run is in the file of this name: a test in
        each line, and after a bar, for a test that fails, a key of `REASONS`.
    names : dict
        From the places of functions, such as ``scipy.optimize.minimize``, to what takes them while the tests are
        imported and run.
    without : str, optional
        The class of tests that is left out, since it runs those of another class on the same rule.
    """

    module: str
    names: dict[str, Callable[..., Any]]
    without: str | None = None


# Why a test fails.
REASONS = {
    "trajectory": "It asks for more digits than the tolerances, which SciPy's first step or last step happens to give.",
    "counts": "It asks for the numbers of calls or iterations, or the trial points, of SciPy's implementation.",
    "best": "It asks for a NaN as the result, where SciPy goes to a point without a finite cost; the rules return the "
    "best finite point.",
    "keep_feasible": "It asks that a general constraint holds at each point; of the rules, bounds alone do.",
    "unbounded": "It goes on until the cost is infinite; the rules say at -1e100 that it has no bound.",
}

calls = []


def recorded(own: Callable[..., Any]) -> Callable[..., Any]:
    """`own`, whose calls are recorded."""

    @wraps(own)
    def function(*arguments: Any, **keywords: Any) -> Any:
        calls.append(own.__name__)
        return own(*arguments, **keywords)

    return function


def where_there_is_a_counterpart(own: Callable[..., Any], scipys: Callable[..., Any]) -> Callable[..., Any]:
    """`own` for the methods that it has, `scipys` for the others, which a test may have beside them."""

    @wraps(scipys)
    def minimize(fun: Any, x0: Any, args: Any = (), method: Any = None, *others: Any, **keywords: Any) -> Any:
        is_own = method is None or (isinstance(method, str) and method.lower() in optapi.scipy.METHODS)
        if is_own:
            calls.append(method)
        return (own if is_own else scipys)(fun, x0, args, method, *others, **keywords)

    return minimize


MINIMIZE = {"scipy.optimize.minimize": where_there_is_a_counterpart(optapi.scipy.minimize, scipy.optimize.minimize)}
LEAST_SQUARES = {"scipy.optimize.least_squares": recorded(optapi.scipy.least_squares)}
# The tests of `curve_fit` import it from where it is written.
CURVE_FIT = {"scipy.optimize._minpack_py.curve_fit": recorded(optapi.scipy.curve_fit)}

SUITES = [
    Suite("test_optimize", MINIMIZE),
    Suite("test_trustregion", MINIMIZE),
    Suite("test_slsqp", MINIMIZE),
    Suite("test_minimize_constrained", MINIMIZE),
    Suite("test_least_squares", LEAST_SQUARES, without="TestDogbox"),
    Suite("test_minpack", CURVE_FIT),
]
