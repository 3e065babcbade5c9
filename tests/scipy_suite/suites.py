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
        From names in ``scipy.optimize`` to what takes their places while the tests are imported and run.
    """

    module: str
    names: dict[str, Callable[..., Any]]


# Why a test fails. "bounds" is left out of the count.
REASONS = {
    "bounds": "It needs bounds or constraints, which the rules do not have yet.",
    "counts": "It asks for the numbers of calls or iterations, or the trial points, of SciPy's implementation.",
    "best": "It asks for a NaN as the result, where SciPy goes to a point without a finite cost; the rules return the "
    "best finite point.",
    "unbounded": "It goes on until the cost is infinite; the rules say at -1e100 that it has no bound.",
}

calls = []


def where_there_is_a_counterpart(own: Callable[..., Any], scipys: Callable[..., Any]) -> Callable[..., Any]:
    """`own` for the methods that it has, `scipys` for the others, which a test may have beside them."""

    @wraps(scipys)
    def minimize(fun: Any, x0: Any, args: Any = (), method: Any = None, *others: Any, **keywords: Any) -> Any:
        is_own = method is None or (isinstance(method, str) and method.lower() in optapi.scipy.METHODS)
        if is_own:
            calls.append(method)
        return (own if is_own else scipys)(fun, x0, args, method, *others, **keywords)

    return minimize


MINIMIZE = {"minimize": where_there_is_a_counterpart(optapi.scipy.minimize, scipy.optimize.minimize)}

SUITES = [Suite("test_optimize", MINIMIZE), Suite("test_trustregion", MINIMIZE)]
