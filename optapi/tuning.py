"""Tuning: a step size, found by short runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.tensor.type import float_dtypes

from .checks import called, check_callable, check_count, check_number, check_updates, shared_scalar
from .hints import hinted
from .typing import Updates


@hinted
def find_step_size(updates: Updates, step_size: SharedVariable, run: Callable[[], Any], *, first: float = 1.0,
                   factor: float = 2.0, max_trials: int = 40) -> float:  # fmt: skip
    """The step size of lowest cost after a short run: doubled while that makes the cost lower, or else halved.

    ``find_step_size(updates, step_size, run)``, where `step_size` is the shared scalar that was passed to the rule, and
    `run` calls a compiled function of `updates` on a subset of the data, for instance once on each of a thousand
    examples, and returns the cost of the subset at the end. Each run begins with the present values of the variables of
    `updates`, which are restored after it. `step_size` is set to the value that is returned.

    Parameters
    ----------
    updates : dict
        What the rule returned.
    step_size : shared floating-point scalar
    run : callable
        Called without arguments, returns a number. One that is not finite is worse than any finite one.
    first : float
        The first step size to try, above 0.
    factor : float
        The ratio of a step size and the one tried before it, or its inverse; above 1.
    max_trials : int
        The largest number of runs.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If no run ended with a finite cost. `step_size` then has its old value.

    References
    ----------
    The programs of Bottou for stochastic gradient descent, which double or halve on the first 1000 examples.

    Examples
    --------
    >>> x, step_size = pytensor.shared(4.0, name="x"), pytensor.shared(0.0, name="step_size")
    >>> updates = optapi.sgd([x], x**2, step_size=step_size)
    >>> step = pytensor.function([], x**2, updates=updates)
    >>> def run():
    ...     return [step() for _ in range(6)][-1]
    >>> optapi.find_step_size(updates, step_size, run)
    0.5
    """
    for variable in check_updates(updates):
        if not isinstance(variable, SharedVariable):
            raise TypeError(f"the variable {called(variable)} is not shared, so it has no value to begin with")
    step_size = shared_scalar("step_size", step_size, float_dtypes)
    check_callable("run", run, "a function without arguments that returns a cost")
    if not check_number("first", first) > 0:
        raise ValueError(f"first is {first!r}; pass a number above 0")
    if not check_number("factor", factor) > 1:
        raise ValueError(f"factor is {factor!r}; pass a number above 1")
    max_trials = check_count("max_trials", max_trials)
    old, values = step_size.get_value(), {variable: variable.get_value() for variable in updates}
    costs: dict[float, float] = {}

    def cost(a: float) -> float:
        if a not in costs:
            if len(costs) >= max_trials:
                return np.inf
            step_size.set_value(np.asarray(a, step_size.type.dtype))
            try:
                value = float(run())
            finally:
                for variable, start in values.items():
                    variable.set_value(start)
                step_size.set_value(old)
            costs[a] = value if np.isfinite(value) else np.inf
        return costs[a]

    best = first
    for ratio in (factor, 1 / factor):
        # If the first step size diverges, smaller ones are tried until one does not.
        while cost(best * ratio) < cost(best) or (ratio < 1 and cost(best) == np.inf and len(costs) < max_trials):
            best *= ratio
    if not cost(best) < np.inf:
        raise ValueError(f"no step size from {min(costs):g} to {max(costs):g} ended with a finite cost; change first")
    step_size.set_value(np.asarray(best, step_size.type.dtype))
    return best
