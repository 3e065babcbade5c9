"""Stopping: several stops joined, and stopping by a cost that the rule does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from .checks import as_list, check_cost, check_count, check_name, check_stop, check_updates, scalar
from .graph.loops import hold, like
from .objective import conjunction
from .state import state
from .typing import Scalar, Tensor, Updates
from .updates import extend


__all__ = ["all_of", "patience"]


def all_of(stops: Sequence[Any], stop: Variable, updates: Updates | None = None) -> Updates:
    """`stop` becomes 1 when all of `stops` are positive, and 0 while one is not.

    For groups of parameters, each with a rule and a `stop` of its own. A group that has stopped does not move again,
    also while another one moves: if one cost depends on both, the point at the end need not be stationary for the
    group that stopped first.

    Parameters
    ----------
    stops : list of shared integer scalars
        Their next values are read from `updates`; of one without an update, its present value.
    stop : shared integer scalar
    updates : dict, optional
        Extended in place.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If `stop` already has an update; `updates` is then left as it was.

    Examples
    --------
    >>> u, v = pytensor.shared(1.0, name="u"), pytensor.shared(2.0, name="v")
    >>> first, second, stop = pytensor.shared(0), pytensor.shared(0), pytensor.shared(0)
    >>> updates = optapi.sgd([u], u**2, stop=first, step_size=0.4, tolerance=1e-3)
    >>> updates = optapi.sgd([v], v**2, stop=second, step_size=0.1, tolerance=1e-3, updates=updates)
    >>> updates = optapi.stopping.all_of([first, second], stop, updates)
    >>> step = pytensor.function([], [], updates=updates)
    >>> while not stop.get_value():
    ...     _ = step()
    >>> bool(abs(v.get_value()) < 1e-3)
    True
    """
    if updates is not None:
        check_updates(updates)
    next_values = updates or {}
    stops = as_list("stops", stops)
    if not stops:
        raise ValueError("stops is empty; pass the stop of at least one rule")
    verdicts = [pt.gt(next_values.get(_required(s), s), 0) for s in stops]
    return extend(updates, {_required(stop): like(conjunction(verdicts), stop)})


def patience(cost: Tensor, stop: Variable, updates: Updates | None = None, *, calls: int = 10,
             improvement: Scalar = 0.0, smoothing: Scalar = 0.0, name: str = "patience") -> Updates:  # fmt: skip
    r"""`stop` becomes 1 when `cost` has not improved for `calls` calls, and then stays 1.

    With :math:`f` the cost, or its running average with the weight `smoothing`, and :math:`f_{best}` the lowest so far,
    a call improves the cost if :math:`f < f_{best} - \delta |f_{best}|`, with :math:`\delta` = `improvement`. The
    first finite cost is an improvement; one that is not finite never is.

    Parameters
    ----------
    cost : scalar variable
        The cost that has to improve, at the point held before the call, as in the outputs of the same function; under
        ascent pass its negative.
    stop : shared integer scalar
        Not the `stop` of a rule, which has an update already.
    updates : dict, optional
        Extended in place.
    calls : int
        The number of consecutive calls without an improvement after which `stop` becomes 1.
    improvement : scalar
        The smallest relative decrease that counts.
    smoothing : scalar
        The weight of the past in a running average of the cost, for noisy costs; from 0 (none) to below 1.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If `stop` already has an update; `updates` is then left as it was.

    Examples
    --------
    >>> cost, stop = pt.dscalar("cost"), pytensor.shared(0, name="stop")
    >>> see = pytensor.function([cost], [], updates=optapi.stopping.patience(cost, stop, calls=2))
    >>> for value in (3.0, 1.0, 2.0, 1.5):
    ...     _ = see(value)
    ...     print(stop.get_value())
    0
    0
    0
    1
    """
    if updates is not None:
        check_updates(updates)
    cost = check_cost(cost).astype("float64")
    check_name("name", name)
    calls = check_count("calls", calls)
    weight = scalar("smoothing", smoothing, 0, below=1)
    improvement = scalar("improvement", improvement, low=0)
    stopped = pt.gt(_required(stop), 0)

    smooth, best = (state(f"{name}/{role}", fill=np.inf) for role in ("smooth_cost", "best_cost"))
    waited = state(f"{name}/waited", dtype="int64")
    average = pt.switch(pt.isfinite(smooth), weight * smooth + (1.0 - weight) * cost, cost)
    improved = improves(average, best, improvement)
    next_waited = pt.switch(improved, 0, waited + 1)
    new = {
        smooth: pt.switch(pt.isfinite(average), average, smooth),
        best: pt.switch(improved, average, best),
        waited: next_waited,
    }
    new = hold(new, stopped)
    new[stop] = like(stopped | (next_waited >= calls), stop)
    return extend(updates, new)


def improves(cost: Any, best: Any, improvement: Scalar) -> Any:
    """Whether `cost` is finite and lower than `best` by more than `improvement` times it; than inf any is."""
    bound = pt.switch(pt.isfinite(best), best - improvement * abs(best), np.inf)
    return pt.isfinite(cost) & (cost < bound)


def _required(stop: Any) -> Any:
    """`stop`, which is not None, checked."""
    if stop is None:
        raise TypeError("stop is None; pass a shared integer scalar, made with pytensor.shared(0)")
    return check_stop(stop)
