"""Update transforms: functions from the updates that a rule returned to other updates.

``lookahead(adam(parameters, cost), parameters)``. Three functions here are used beside a rule and have updates of their
own: `noise` and `accumulate` return gradients, `reduce_on_plateau` updates a step size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import float_dtypes

from . import schedules
from .checks import (
    as_dtype,
    as_tensors,
    called,
    check_cost,
    check_count,
    check_gradients,
    check_keys,
    check_name,
    check_number,
    check_parameters,
    check_updates,
    is_generator,
    scalar,
    shared_scalar,
)
from .gradients import mark
from .graph.loops import cond, hold, like, moved
from .graph.replace import replaced
from .hints import hinted
from .moments import running_average
from .notes import note, noted
from .objective import conjunction
from .state import full_like, labels, shape_of, state
from .stopping import improves
from .typing import Scalar, StepSize, Updates, Variables
from .updates import extend, reports
from .vectors import global_norm, inner


# From a mean of some 10 calls to one of a million.
MECHANIC_BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)

ANNEALED = schedules.Power(0.01, exponent=0.55)


@hinted
def skip_nonfinite(updates: Updates, *, name: str = "skip_nonfinite") -> Updates:
    """`updates` that skip each call that would make a finite value infinite or NaN.

    A call that is skipped changes nothing but random generators. The skipped calls are counted in a state variable of
    the role ``"skipped"``, see `reports`.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    name : str
        The prefix of the name of the counter.

    Returns
    -------
    dict

    Examples
    --------
    >>> x, data = pytensor.shared(1.0, name="x"), pt.dscalar("data")
    >>> updates = optapi.skip_nonfinite(optapi.sgd([x], (x - data) ** 2, step_size=0.25))
    >>> step = pytensor.function([data], x, updates=updates)
    >>> for value in (3.0, np.nan, 2.0):
    ...     _ = step(value)
    >>> float(x.get_value())
    2.0
    >>> [skipped] = optapi.reports(updates)["skipped"]
    >>> int(skipped.get_value())
    1
    """
    check_updates(updates)
    check_name("name", name)
    # State may say with NaN or infinity that nothing is known yet: what counts is a finite value that no longer is one.
    good = [
        pt.all(pt.isfinite(value) | ~pt.isfinite(variable))
        for variable, value in updates.items()
        if not is_generator(variable) and variable.type.dtype in float_dtypes
    ]
    if not good:
        return dict(updates)
    bad = ~conjunction(good)
    skipped = state(f"{name}/skipped", dtype="int64", role="skipped")
    return extend(hold(updates, bad), {skipped: skipped + bad})


@hinted
def project(updates: Updates, projections: Mapping[Any, Callable[[Any], Any]]) -> Updates:
    """`updates` with some parameters projected, for instance onto bounds: ``{p: lambda value: value.clip(0, 1)}``.

    A parameter that the rule does not move is not projected. For a rule whose steps are along the gradient this is the
    projected gradient method. At an active bound the gradient does not vanish, so a tolerance does not stop it: see
    `optapi.stopping.patience`.

    Parameters
    ----------
    updates : dict
        What a first-order rule returned.
    projections : dict
        From parameters to functions of the next value.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the rule reports the cost or the gradient of the point after the call, which would be those of the point
        before its projection. Projected steps of a rule that searches need not lead to a minimizer either.

    References
    ----------
    Bertsekas (1982), Projected Newton methods for optimization problems with simple constraints.

    Examples
    --------
    >>> x = pytensor.shared(np.array([0.5, 0.5]), name="x")
    >>> updates = optapi.sgd([x], pt.sum((x - [2.0, 0.7]) ** 2), step_size=0.25)
    >>> step = pytensor.function([], [], updates=optapi.project(updates, {x: lambda value: value.clip(0, 1)}))
    >>> for _ in range(40):
    ...     _ = step()
    >>> x.get_value().round(4)
    array([1. , 0.7])
    """
    check_updates(updates)
    check_keys("projections", projections, updates)
    _check_first_order(updates)
    projected = dict(updates)
    for parameter, projection in projections.items():
        value = projection(updates[parameter])
        projected[parameter] = like(pt.switch(moved(updates, [parameter]), value, parameter), parameter)
    return projected


@hinted
def average(updates: Updates, averages: Mapping[Any, Any], *, weight: Scalar | None = None, after: int = 0,
            name: str = "average") -> Updates:  # fmt: skip
    r"""`updates` that also average the parameters: ``average(updates, {p: p_bar})``.

    The mean of all values, :math:`\bar x \leftarrow \bar x + (x - \bar x) / t` (Polyak-Ruppert averaging), or with
    `weight` :math:`w` a running average :math:`\bar x \leftarrow w \bar x + (1 - w) x` that begins at the first value.
    Calls after a stop, and calls that were skipped, do not count.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    averages : dict
        From parameters to shared variables, which will hold their averages.
    weight : scalar, optional
        The weight of the past, from 0 to below 1.
    after : int
        The number of calls before averaging begins; until then the averages are the parameters.
    name : str
        The prefix of the name of the counter.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable for an average already has an update, or is passed for two parameters.

    References
    ----------
    Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging.

    Examples
    --------
    >>> x, mean = pytensor.shared(4.0, name="x"), pytensor.shared(0.0, name="mean")
    >>> step = pytensor.function([], x, updates=optapi.average(optapi.sgd([x], x**2, step_size=0.25), {x: mean}))
    >>> for _ in range(2):
    ...     _ = step()
    >>> float(x.get_value()), float(mean.get_value())
    (1.0, 1.5)
    """
    check_updates(updates)
    check_name("name", name)
    check_keys("averages", averages, updates)
    after = check_count("after", after, low=0)
    count = state(f"{name}/count", dtype="int64")
    moves = moved(updates, averages)
    new: Updates = {count: count + moves}
    t: Any = pt.maximum(count + 1 - after, 1)
    for parameter, mean in averages.items():
        value = updates[parameter].astype(_shared_average(parameter, mean).type.dtype)
        if weight is None:
            next_mean = mean + (value - mean) / as_dtype(t, mean.type.dtype)
        else:
            next_mean = running_average(mean, value, scalar("weight", weight, 0, below=1))
        next_mean = pt.switch(pt.eq(t, 1), value, next_mean)
        extend(new, {mean: like(pt.switch(moves, next_mean, mean), mean)})
    return extend(dict(updates), new)


@hinted
def lawa(updates: Updates, averages: Mapping[Any, Any], *, latest: int = 6, every: int = 100,
         name: str = "lawa") -> Updates:  # fmt: skip
    r"""`updates` that also average the latest of the parameters: ``lawa(updates, {p: p_bar}, every=epoch)``.

    At every `every`-th call the parameters are kept, and :math:`\bar x` is the mean of the `latest` ones that were;
    before the first it is the parameters themselves. Calls after a stop, and calls that were skipped, do not count. It
    lets a step size stay high and have the cost that a falling one would give; `average` takes in all points, also
    the first ones.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    averages : dict
        From parameters to shared variables, which will hold their averages.
    latest : int
        How many points are kept.
    every : int
        The number of calls from one to the next, mostly those of an epoch.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable for an average already has an update, or is passed for two parameters.

    Notes
    -----
    Memory: `latest` numbers per parameter component.

    References
    ----------
    Kaddour (2022), Stop wasting my time! Saving days of ImageNet and BERT training with latest weight averaging,
    section 2.

    Examples
    --------
    >>> x, mean = pytensor.shared(8.0, name="x"), pytensor.shared(0.0, name="mean")
    >>> updates = optapi.lawa(optapi.sgd([x], x**2, step_size=0.25), {x: mean}, latest=2, every=1)
    >>> step = pytensor.function([], [], updates=updates)
    >>> for _ in range(3):
    ...     _ = step()
    >>> float(x.get_value()), float(mean.get_value())
    (1.0, 1.5)
    """
    check_updates(updates)
    check_name("name", name)
    check_keys("averages", averages, updates)
    latest, every = check_count("latest", latest), check_count("every", every)
    count, moves = state(f"{name}/count", dtype="int64"), moved(updates, averages)
    kept, due = (count + 1) // every, pt.eq((count + 1) % every, 0)
    new: Updates = {count: count + moves}
    for p, label in zip(averages, labels(list(averages)), strict=True):
        mean = _shared_average(p, averages[p])
        points = state(f"{name}/points/{label}", (latest, *shape_of(p)), p.type.dtype)
        place = pt.eq(np.arange(latest), (kept - 1) % latest).reshape((latest, *(1 for _ in range(p.type.ndim))))
        taken = pt.switch(moves & due & place, updates[p], points)
        share = as_dtype(1.0 / pt.clip(kept, 1, latest), p.type.dtype)
        value = pt.switch(pt.eq(kept, 0), updates[p], pt.sum(taken, axis=0) * share)
        extend(new, {points: taken, mean: like(pt.switch(moves, value, mean), mean)})
    return extend(dict(updates), new)


def _shared_average(parameter: Any, mean: Any) -> Any:
    """`mean`, which has to be a shared variable."""
    if not isinstance(mean, SharedVariable):
        raise TypeError(f"averages holds a {type(mean).__name__} for {called(parameter)}; pass a shared variable")
    return mean


def _check_first_order(updates: Updates) -> None:
    if {"cost", "gradient_size"} & set(reports(updates)):
        raise ValueError(
            "updates are of a rule that searches and judges its own points; pass those of a first-order rule"
        )


def _check_free(updates: Updates) -> None:
    """Check that no rule of `updates` has bounds, which a step of another length would leave."""
    if any(note(variable, "active") for variable in updates):
        raise ValueError("updates are of a rule with bounds, which would no longer hold; leave them out")


@hinted
def lookahead(
    updates: Updates, parameters: Variables, every: int = 5, weight: Scalar = 0.5, *, name: str = "lookahead"
) -> Updates:
    r"""Lookahead: every `every`-th call moves slow weights a fraction toward the parameters, which are reset to them.

    With slow weights :math:`s`, which begin at the parameters' values, every :math:`k`-th call is
    :math:`x, s \leftarrow s + w (\hat x - s)`, with the next value :math:`\hat x` by the rule; all other calls are
    those of the rule. A call after a stop, or one that was skipped, does not count.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    parameters : list of variables
        Mostly all parameters of the rule. Its state is not changed.
    every : int
        :math:`k`. With 1 and plain `sgd`, the step size is in effect multiplied by :math:`w`.
    weight : scalar
        :math:`w`, from 0 to 1; with 1 all calls are those of the rule.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    dict

    References
    ----------
    Zhang, Lucas, Hinton and Ba (2019), Lookahead optimizer: k steps forward, 1 step back, algorithm 1.

    Examples
    --------
    >>> x = pytensor.shared(4.0, name="x")
    >>> updates = optapi.lookahead(optapi.sgd([x], x**2, step_size=0.25), [x], every=2)
    >>> step = pytensor.function([], x, updates=updates)
    >>> [float(step()) for _ in range(4)]
    [4.0, 2.0, 2.5, 1.25]
    """
    check_updates(updates)
    check_name("name", name)
    parameters = check_parameters(parameters)
    check_keys("parameters", dict.fromkeys(parameters), updates)
    every = check_count("every", every)
    weight = scalar("weight", weight, 0, 1)

    count = state(f"{name}/count", dtype="int64")
    moves = moved(updates, parameters)
    due = pt.eq((count + 1) % every, 0)
    ahead, new = dict(updates), {count: count + moves}
    for p, slow in zip(parameters, _all_zeros_like(parameters, f"{name}/slow"), strict=True):
        # The slow weights begin at the first call, not here: the start may still be set, or be one of a batch.
        last, fast = pt.switch(pt.eq(count, 0), p, slow), updates[p]
        mean = last + as_dtype(weight, p.type.dtype) * (fast - last)
        # With a weight of 1 the very values of the rule: last + (fast - last) may round.
        mean = pt.switch(pt.eq(weight, 1), fast, mean)
        ahead[p] = like(pt.switch(moves & due, mean, fast), p)
        new[slow] = like(pt.switch(moves & due, mean, last), slow)
    return extend(ahead, new)


@hinted
def schedule_free(updates: Updates, parameters: Variables, *, step_size: StepSize, interpolation: Scalar = 0.9,
                  power: Scalar = 0.0, rate_power: Scalar = 2.0, averages: Mapping[Any, Any] | None = None,
                  name: str = "schedule_free") -> Updates:  # fmt: skip
    r"""Schedule-free: gradients between the point of a rule and the average of its points, which is the one to use.

    .. math::
        z \leftarrow z + \Delta, \qquad w = t^r (\max_{s \le t} a_s)^q, \qquad c = \frac{w}{\sum_{s \le t} w_s}, \qquad
        \bar x \leftarrow (1 - c) \bar x + c z, \qquad x \leftarrow \beta \bar x + (1 - \beta) z

    with the change :math:`\Delta` by which the rule would move the parameters :math:`x`. Both :math:`z` and
    :math:`\bar x` begin at the parameters of the first call. With a constant step size :math:`\bar x` is the mean of
    :math:`z`. A call after a stop, or one that was skipped, does not count.

    Parameters
    ----------
    updates : dict
        What a rule without momentum returned, such as `sgd` or `adamw` with ``mean_weight=0.0``.
    parameters : list of variables
        All parameters of the rule. They hold the points of the gradients.
    step_size : scalar or schedule
        :math:`a`, the same as in the rule: constant, or constant after a warm-up.
    interpolation : scalar
        :math:`\beta`, from 0 to 1. With 0 the rule is as it was, and :math:`\bar x` is a Polyak-Ruppert average.
    power : scalar
        :math:`r`, at least 0.
    rate_power : scalar
        :math:`q`, at least 0.
    averages : dict, optional
        From each parameter to a shared variable, which will hold :math:`\bar x`. Without it they are state of the role
        ``"average"``, in the order of the parameters, see `reports`.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable for an average already has an update.

    Notes
    -----
    Memory: two numbers per parameter component. Stopping tests and `best` see the parameters; test the cost at the
    averages. The authors keep two of the three points, which fails for :math:`\beta` = 0.

    References
    ----------
    Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky (2024), The road less scheduled, algorithm 1 and the authors'
    program.

    Examples
    --------
    >>> x, mean = pytensor.shared(4.0, name="x"), pytensor.shared(0.0, name="mean")
    >>> updates = optapi.sgd([x], x**2, step_size=0.4)
    >>> updates = optapi.schedule_free(updates, [x], step_size=0.4, averages={x: mean})
    >>> step = pytensor.function([], [], updates=updates)
    >>> for _ in range(100):
    ...     _ = step()
    >>> bool(abs(mean.get_value()) < 1e-3)
    True
    """
    check_updates(updates)
    _check_first_order(updates)
    check_name("name", name)
    parameters = check_parameters(parameters)
    check_keys("parameters", dict.fromkeys(parameters), updates)
    if averages is not None:
        check_keys("averages", averages, updates)
        for p in parameters:
            if not isinstance(averages.get(p), SharedVariable):
                raise TypeError(f"averages has no shared variable for {called(p)}; pass one for each parameter")
    count, total = state(f"{name}/count", dtype="int64"), state(f"{name}/total_weight")
    largest, moves = state(f"{name}/largest_step_size"), moved(updates, parameters)
    top = pt.maximum(largest, schedules.at("step_size", step_size, lambda: count))
    exponents = scalar("power", power, low=0), scalar("rate_power", rate_power, low=0)
    weight = (count + 1).astype("float64") ** exponents[0] * top ** exponents[1]
    weights = total + weight
    # Without a weight so far, the average stays.
    share = pt.switch(weights > 0, weight / pt.switch(weights > 0, weights, 1.0), 0.0)
    beta = scalar("interpolation", interpolation, 0, 1)
    changed, new = dict(updates), {count: count + 1, total: weights, largest: top}
    for p, label in zip(parameters, labels(parameters), strict=True):
        z = full_like(p, f"{name}/point/{label}")
        mean = noted(full_like(p, f"{name}/average/{label}"), role="average") if averages is None else averages[p]
        z0, x0 = (pt.switch(pt.eq(count, 0), p, kept) for kept in (z, mean))
        c, b = as_dtype(share, p.type.dtype), as_dtype(beta, p.type.dtype)
        next_z = z0 + (updates[p] - p)
        next_mean = (1 - c) * x0 + c * next_z
        new |= {z: next_z, mean: next_mean.astype(mean.type.dtype)}
        changed[p] = like(pt.switch(moves, b * next_mean + (1 - b) * next_z, p), p)
    new = {variable: like(pt.switch(moves, value, variable), variable) for variable, value in new.items()}
    return extend(changed, new)


@hinted
def cautious(updates: Updates, gradients: Mapping[Any, Any]) -> Updates:
    r"""`updates` that move only components whose step goes against the gradient: ``cautious(updates, {p: g})``.

    .. math:: u = x - x', \qquad k = [u g > 0], \qquad x' \leftarrow x - \frac{k u}{\max(\mathrm{mean}(k), 10^{-3})}

    with the next value :math:`x'` by the rule and the mean over a tensor, so that the step keeps about its length. The
    state of the rule is as it was.

    Parameters
    ----------
    updates : dict
        What a rule with momentum returned, such as `adam`, `lion` or `muon`, without a decay: decay after it, or in the
        cost.
    gradients : dict
        From parameters to the gradients of what is minimized; under ascent pass their negatives.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the rule reports the cost or the gradient of the point after the call, as in `project`.

    References
    ----------
    Liang, Chen, Liu and Liu (2024), Cautious optimizers: improving training with one line of code, algorithm 1 and the
    authors' program.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> g = pytensor.grad(pt.sum((x - [1.0, 2.0]) ** 2), x)
    >>> updates = optapi.cautious(optapi.adam([x], gradients=[g], step_size=0.1), {x: g})
    >>> step = pytensor.function([], [], updates=updates)
    >>> for _ in range(200):
    ...     _ = step()
    >>> x.get_value().round(2)
    array([1., 2.])
    """
    check_updates(updates)
    check_keys("gradients", gradients, updates)
    _check_first_order(updates)
    _check_free(updates)
    changed = dict(updates)
    for p, g in zip(gradients, check_gradients(list(gradients.values()), list(gradients)), strict=True):
        step = p - updates[p]
        # The product of the two may underflow.
        keeps = pt.eq(pt.sign(step) * pt.sign(g), 1).astype(p.type.dtype)
        share = pt.sum(keeps) / pt.maximum(keeps.size, 1).astype(p.type.dtype)
        changed[p] = like(p - step * keeps / pt.maximum(share, np.asarray(1e-3, p.type.dtype)), p)
    return changed


@hinted
def mechanic(updates: Updates, gradients: Mapping[Any, Any], *, initial: Scalar = 1e-6, decay: Scalar = 1e-2,
             epsilon: Scalar = 1e-8, betas: Sequence[float] = MECHANIC_BETAS,
             name: str = "mechanic") -> Updates:  # fmt: skip
    r"""`updates` with a step size that is learned: ``mechanic(sgd([p], cost, step_size=1.0), {p: g})``.

    .. math::
        x \leftarrow x_0 + \Big(\sum_i s_i\Big) \Delta, \qquad \Delta \leftarrow \Delta + (x' - x)

    with the next value :math:`x'` by the rule, the point :math:`x_0` of the first call, and scales :math:`s_i`, one for
    each :math:`\beta_i`, that bet on the next change of the cost: with
    :math:`h = -\big(g + \lambda \sum_i s_i \tfrac{\|g\|}{\|x\|} x\big)^T \Delta`

    .. math::
        r \leftarrow \beta r + s \, \mathrm{clip}(h, m), \qquad m \leftarrow \max(\beta m, |h|), \qquad
        v \leftarrow \beta^2 v + h^2, \qquad s \leftarrow \frac{s_0 m / k + \max(r, 0)}{\sqrt v + \epsilon}

    A call after a stop, or one that was skipped, does not count.

    Parameters
    ----------
    updates : dict
        What a first-order rule returned, with a step size of 1, or a schedule with the peak 1. Not of one whose steps
        are relative to the parameters, such as `lamb`, or that finds its step size.
    gradients : dict
        From all parameters of the rule to the gradients of what is minimized; under ascent pass their negatives.
    initial : scalar
        :math:`s_0`, the first step size.
    decay : scalar
        :math:`\lambda`, a pull to zero that makes the scales less uneven.
    epsilon : scalar
        :math:`\epsilon`, in units of the cost.
    betas : list or tuple of float
        The :math:`\beta_i`, each from 0 to below 1; there are :math:`k`.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the rule reports the cost or the gradient of the point after the call, as in `project`, or has bounds.

    Notes
    -----
    Cost per call: three inner products. Memory: one number per parameter component. :math:`\Delta` is not kept but
    worked out from :math:`x - x_0`, and :math:`h` is clipped, both as in the authors' program.

    References
    ----------
    Cutkosky, Defazio and Mehta (2023), Mechanic: a learning rate tuner, algorithm 1 and the authors' program.

    Examples
    --------
    >>> x = pytensor.shared(np.array([3.0, -1.0]), name="x")
    >>> [g] = pytensor.grad(pt.sum((x - [1.0, 2.0]) ** 2), [x])
    >>> updates = optapi.adam([x], gradients=[g], step_size=optapi.schedules.Linear(1.0, 300))
    >>> step = pytensor.function([], [], updates=optapi.mechanic(updates, {x: g}))
    >>> for _ in range(300):
    ...     _ = step()
    >>> bool(np.allclose(x.get_value(), [1.0, 2.0], atol=0.1))
    True
    """
    check_updates(updates)
    _check_first_order(updates)
    _check_free(updates)
    check_name("name", name)
    check_keys("gradients", gradients, updates)
    if not isinstance(betas, list | tuple) or not betas:
        raise TypeError(f"betas is {betas!r}; pass a list of numbers from 0 to below 1")
    beta = np.array([check_number(f"betas[{i}]", b, low=0, below=1) for i, b in enumerate(betas)])
    parameters = check_parameters(list(gradients), "gradients")
    gs = [
        as_dtype(g, p.type.dtype)
        for g, p in zip(as_tensors("gradients", [*gradients.values()]), parameters, strict=True)
    ]
    s0, lam, eps = (scalar(n, v, low=0) for n, v in (("initial", initial), ("decay", decay), ("epsilon", epsilon)))
    r, m, v, scales = (
        state(f"{name}/{role}", (len(beta),), "float64") for role in ("reward", "largest", "sum_of_squares", "scale")
    )
    count, moves = state(f"{name}/count", dtype="int64"), moved(updates, parameters)
    first = pt.eq(count, 0)
    s = pt.switch(first, s0, scales)
    total = pt.sum(s)
    pull = lam * total * global_norm(gs) / (global_norm(parameters) + eps)
    h, starts, sums = pt.constant(0.0), [], []
    for p, g, start in zip(parameters, gs, _all_zeros_like(parameters, f"{name}/start"), strict=True):
        starts.append((start, pt.switch(first, p, start)))
        sums.append((starts[-1][1] - p) * as_dtype(1 / (total + eps), p.type.dtype))
        h = h + inner([g + as_dtype(pull, p.type.dtype) * p], [sums[-1]])
    new = dict(starts) | {
        r: beta * r + pt.clip(h, -m, m) * s,
        m: pt.maximum(beta * m, abs(h) + eps),
        v: beta**2 * v + h**2,
    }
    new[scales] = (s0 / len(beta) * new[m] + pt.maximum(new[r], 0.0)) / (pt.sqrt(new[v]) + eps)
    changed, total = dict(updates), pt.sum(new[scales])
    for p, (_, x0), back in zip(parameters, starts, sums, strict=True):
        value = x0 - as_dtype(total, p.type.dtype) * (back - (updates[p] - p))
        changed[p] = like(pt.switch(moves, value, p), p)
    new = {variable: like(pt.switch(moves, value, variable), variable) for variable, value in new.items()}
    return extend(changed, new | {count: count + moves})


@hinted
def best(updates: Updates, cost: Variable, points: Mapping[Any, Any], *, name: str = "best") -> Updates:
    """`updates` that also keep the point of lowest cost: ``best(updates, cost, {p: p_best})``.

    A call compares the cost at the point held before it, and keeps that point if the cost is the lowest so far. The
    point after the last call is not evaluated, and so not kept. A cost that is not finite is never the lowest. The
    lowest cost is kept in a state variable of the role ``"best_cost"``, see `reports`, which is infinite at first.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    cost : scalar variable
        The cost to compare; under ascent pass its negative. With the cost of a batch of examples the result is only a
        guess: another batch may have a lower cost at the same point.
    points : dict
        From parameters to shared variables, which will hold their best values.
    name : str
        The prefix of the name of the lowest cost.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable for a best value already has an update.

    Examples
    --------
    >>> x, x_best = pytensor.shared(2.0, name="x"), pytensor.shared(0.0, name="x_best")
    >>> updates = optapi.best(optapi.sgd([x], x**2, step_size=0.75), x**2, {x: x_best})
    >>> step = pytensor.function([], x, updates=updates)
    >>> [float(step()) for _ in range(4)]
    [2.0, -1.0, 0.5, -0.25]
    >>> float(x_best.get_value())
    -0.25
    """
    check_updates(updates)
    check_name("name", name)
    cost = check_cost(cost)
    check_keys("points", points, updates)
    lowest = state(f"{name}/best_cost", dtype=cost.type.dtype, fill=np.inf, role="best_cost")
    improved = improves(cost, lowest, 0.0)
    new = {lowest: like(pt.switch(improved, cost, lowest), lowest)}
    for parameter, kept in points.items():
        extend(new, {kept: like(pt.switch(improved, parameter.astype(kept.type.dtype), kept), kept)})
    return extend(dict(updates), new)


@hinted
def bold_driver(updates: Updates, step_size: Variable, cost: Variable, *, grow: Scalar = 1.05, shrink: Scalar = 0.5,
                name: str = "bold_driver") -> Updates:  # fmt: skip
    """`updates` with a step size that grows while the cost decreases; a step that increases it is undone.

    If the cost is lower than at the last point, the step size is multiplied by `grow`, and the rule takes its next
    step with that. If the cost is higher, or not finite, the last step has failed: the call resets the parameters and
    the state of the rule to their values before that step, and multiplies the step size by `shrink`. So a failed step
    takes two calls, between which the parameters hold a point of higher cost. The call after that has the same cost as
    before the failed step; it takes a step with the step size as it is.

    Bold driver is for exact costs: costs of different batches of examples cannot be compared. A point that is set from
    outside counts as the result of the last step.

    Parameters
    ----------
    updates : dict
        What a rule returned that reads `step_size`.
    step_size : shared floating-point scalar
        Its value is the first step size.
    cost : scalar variable
        What the rule minimizes, at the point held before the call; under ascent pass its negative.
    grow : scalar
        At least 1.
    shrink : scalar
        From 0 to below 1.
    name : str
        The prefix of the names of its state: the cost at the last point, and a copy of all that the rule updates.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If `step_size` already has an update.
    ValueError
        If `updates` do not read `step_size`.

    References
    ----------
    Vogl, Mangis, Rigler, Zink and Alkon (1988), Accelerating the convergence of the back-propagation method; Battiti
    (1989), Accelerated backpropagation learning.

    Examples
    --------
    >>> x, step_size = pytensor.shared(2.0, name="x"), pytensor.shared(1.5, name="step_size")
    >>> updates = optapi.bold_driver(optapi.sgd([x], x**2, step_size=step_size), step_size, x**2)
    >>> step = pytensor.function([], x**2, updates=updates)
    >>> for _ in range(20):
    ...     _ = step()
    >>> bool(step() < 1e-3), bool(step_size.get_value() < 1.5)
    (True, True)
    """
    check_updates(updates)
    check_name("name", name)
    cost, step_size = check_cost(cost), shared_scalar("step_size", step_size, float_dtypes)
    grow, shrink = scalar("grow", grow, low=1), scalar("shrink", shrink, low=0, below=1)
    if step_size not in ancestors(list(updates.values())):
        raise ValueError("updates do not read step_size; pass the same shared variable to the rule")

    # The first point is taken in the first call, not now: the start may be set later, or be one of a batch.
    last = state(f"{name}/cost", dtype=cost.type.dtype, fill=np.inf)
    comparable = pt.isfinite(last)
    fell, rose = comparable & (cost < last), comparable & ~(cost <= last)
    factor = pt.switch(fell, grow, pt.switch(rose, shrink, 1.0))
    next_step_size = like(step_size * factor, step_size)

    variables = [variable for variable in updates if not is_generator(variable)]
    values = graph_replace(list(updates.values()), {step_size: next_step_size})
    driven = dict(zip(updates, values, strict=True))
    new = {step_size: next_step_size, last: like(pt.switch(pt.isfinite(cost) & ~rose, cost, last), last)}
    for variable, kept in zip(variables, _all_zeros_like(variables, f"{name}/kept"), strict=True):
        driven[variable] = like(pt.switch(rose, kept, driven[variable]), variable)
        new[kept] = like(pt.switch(rose, kept, variable), kept)
    return extend(driven, new)


@hinted
def reduce_on_plateau(step_size: Variable, cost: Variable, updates: Updates | None = None, *, factor: Scalar = 0.1,
                      patience: int = 10, improvement: Scalar = 1e-4, cooldown: int = 0, minimum: Scalar = 0.0,
                      name: str = "reduce_on_plateau") -> Updates:  # fmt: skip
    r"""A step size that is multiplied by `factor` when `cost` has not improved for `patience` calls.

    A call improves the cost :math:`f` if :math:`f < f_{best} - \delta |f_{best}|`, with :math:`\delta` =
    `improvement`. The first finite cost is an improvement; one that is not finite never is. The new step size is used
    from the next call on.

    Parameters
    ----------
    step_size : shared floating-point scalar
        The one that was passed to the rule.
    cost : scalar variable
        The cost that has to improve; under ascent pass its negative.
    updates : dict, optional
        Extended in place.
    factor : scalar
        From 0 to 1.
    patience : int
        The number of consecutive calls without an improvement after which the step size is reduced.
    improvement : scalar
        The smallest relative decrease that counts.
    cooldown : int
        The number of calls after a reduction that are not counted.
    minimum : scalar
        The step size is not reduced below this.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If `step_size` already has an update; `updates` is then left as it was.

    Examples
    --------
    >>> step_size, cost = pytensor.shared(0.1, name="step_size"), pt.dscalar("cost")
    >>> updates = optapi.reduce_on_plateau(step_size, cost, patience=2)
    >>> see = pytensor.function([cost], step_size, updates=updates)
    >>> [round(float(see(value)), 4) for value in (3.0, 2.0, 2.0, 2.0, 2.0, 1.0)]
    [0.1, 0.1, 0.1, 0.1, 0.01, 0.01]
    """
    if updates is not None:
        check_updates(updates)
    check_name("name", name)
    step_size, cost = shared_scalar("step_size", step_size, float_dtypes), check_cost(cost).astype("float64")
    factor, minimum = scalar("factor", factor, 0, 1), scalar("minimum", minimum, low=0)
    patience, cooldown = check_count("patience", patience), check_count("cooldown", cooldown, low=0)
    lowest = state(f"{name}/best_cost", fill=np.inf)
    waited = state(f"{name}/waited", dtype="int64")

    improved = improves(cost, lowest, scalar("improvement", improvement, low=0))
    next_waited = pt.switch(improved, 0, waited + 1)
    new: Updates = {lowest: pt.switch(improved, cost, lowest)}
    if cooldown:
        cooling = state(f"{name}/cooling", dtype="int64")
        next_waited = pt.switch(cooling > 0, 0, next_waited)
        new[cooling] = pt.switch(next_waited >= patience, cooldown, pt.maximum(cooling - 1, 0))
    reduces = next_waited >= patience
    new[waited] = pt.switch(reduces, 0, next_waited)
    # A step size that is below the minimum already is not raised to it.
    smaller = pt.minimum(step_size, pt.maximum(step_size * factor, minimum))
    new[step_size] = pt.switch(reduces, smaller, step_size)
    return extend(updates, {variable: like(value, variable) for variable, value in new.items()})


@hinted
def accumulate(gradients: Sequence[Any], every: int, updates: Updates, parameters: Sequence[Any] | None = None, *,
               name: str = "accumulate") -> tuple[list[Any], Any]:  # fmt: skip
    """Gradient accumulation: the means of `gradients` over `every` calls, for batches that are too large for one call.

    ::

        updates = {}
        means, due = accumulate(gradients, 4, updates)
        updates = join(updates, hold(adam(parameters, gradients=means), ~due))

    If the cost is a mean over examples, four calls with batches of the same size are exactly one step on all of their
    examples. Apply `clip_global_norm`, `decay` and the like to the means.

    Parameters
    ----------
    gradients : list of variables
    every : int
        The number of calls.
    updates : dict
        Extended in place with the sums and the count.
    parameters : list of variables, optional
        The parameters, one for each gradient. Needed if the static shape of a gradient is not known, as for parameters
        made by ``pytensor.shared`` without ``shape=``.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    list of variables
        In a call that is due, the means over the last `every` calls, with this one. They are marked as transformed.
    boolean scalar variable
        Whether the call is due: true in every `every`-th call.

    Raises
    ------
    TypeError
        If the shape of a gradient is not known.

    Examples
    --------
    >>> x, data = pytensor.shared(0.0, name="x"), pt.dscalar("data")
    >>> updates = {}
    >>> means, due = optapi.accumulate(pytensor.grad((x - data) ** 2, [x]), 2, updates)
    >>> updates = optapi.join(updates, optapi.hold(optapi.sgd([x], gradients=means, step_size=0.5), ~due))
    >>> step = pytensor.function([data], x, updates=updates)
    >>> for value in (1.0, 3.0):
    ...     _ = step(value)
    >>> float(x.get_value())
    2.0
    """
    gradients, every = as_tensors("gradients", gradients), check_count("every", every)
    check_updates(updates)
    check_name("name", name)
    models = gradients if parameters is None else as_tensors("parameters", parameters)
    if len(models) != len(gradients):
        raise ValueError(f"gradients has {len(gradients)} entries for {len(models)} parameters; pass one for each")
    for position, gradient in enumerate(gradients):
        if parameters is None and None in gradient.type.shape:
            raise TypeError(f"the shape of gradients[{position}] is not known; pass parameters=, one for each gradient")

    count = state(f"{name}/count", dtype="int64")
    due = pt.eq(count, every - 1)
    new: Updates = {count: pt.switch(due, 0, count + 1)}
    means = []
    for gradient, total in zip(gradients, _all_zeros_like(models, f"{name}/sum"), strict=True):
        next_total = like(total + gradient, total)
        new[total] = like(pt.switch(due, 0, next_total), total)
        means.append(mark(next_total / as_dtype(pt.constant(every), total.type.dtype)))
    extend(updates, new)
    return means, due


@hinted
def noise(gradients: Sequence[Any], updates: Updates, *, rng: Variable | int | None, variance: StepSize = ANNEALED,
          name: str = "noise") -> list[Any]:  # fmt: skip
    r"""`gradients` with independent normal noise added to each component.

    ``adam(parameters, gradients=noise(gradients, updates, rng=1), updates=updates)``

    Parameters
    ----------
    gradients : list of variables
    updates : dict
        Extended in place with the next state of the generator, and with a count if `variance` is a schedule.
    rng : shared random generator, or int
        A generator made with ``pytensor.tensor.random.shared_rng``, or a seed.
    variance : scalar or schedule
        The variance of the noise. By default :math:`\eta/(1 + t)^\gamma` with :math:`\eta` = 0.01 and
        :math:`\gamma` = 0.55, for the count :math:`t` of calls.
    name : str
        The prefix of the names of the count, and of the generator made from a seed.

    Returns
    -------
    list of variables
        Marked as transformed.

    Raises
    ------
    KeyError
        If the generator already has an update; `updates` is then left as it was.

    References
    ----------
    Neelakantan et al. (2015), Adding gradient noise improves learning for very deep networks, section 3.

    Examples
    --------
    >>> x = pytensor.shared(np.zeros(3), name="x")
    >>> updates = {}
    >>> noisy = optapi.noise(pytensor.grad(pt.sum(x**2), [x]), updates, rng=1, variance=0.01)
    >>> updates = optapi.sgd([x], gradients=noisy, updates=updates, step_size=0.5)
    >>> step = pytensor.function([], x, updates=updates)
    >>> _ = step()
    >>> bool(0 < np.abs(x.get_value()).max() < 0.3)
    True
    """
    gradients = as_tensors("gradients", gradients)
    check_updates(updates)
    check_name("name", name)
    generator: Any
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        generator = pt.random.shared_rng(seed=check_count("rng", rng, low=0), name=f"{name}/rng")
    elif isinstance(rng, Variable) and is_generator(rng):
        generator = rng
    else:
        raise TypeError(f"rng is {rng!r}; pass a seed, or a generator made with pytensor.tensor.random.shared_rng")
    new: Updates = {generator: generator}
    extend(dict(updates), new)  # refuses a generator that has an update, before it is drawn from

    def count() -> Any:
        counter = state(f"{name}/count", dtype="int64")
        new[counter] = counter + 1
        return counter

    deviation = pt.sqrt(schedules.at("variance", variance, count))
    next_generator, noisy = generator, []
    for g in gradients:
        # Draws of the shape of a gradient, so that each member of a batch has its own.
        next_generator, draws = next_generator.normal(pt.zeros_like(g), dtype=g.type.dtype)
        noisy.append(mark(like(g + as_dtype(deviation, g.type.dtype) * draws, g)))
    extend(updates, {**new, generator: next_generator})
    return noisy


@hinted
def svrg(gradients: Sequence[Any], full_gradients: Sequence[Any], parameters: Variables, every: int,
         updates: Updates, *, name: str = "svrg") -> list[Any]:  # fmt: skip
    r"""Gradients of batches whose noise vanishes at a minimizer: ``sgd(ps, gradients=svrg(...), updates=updates)``.

    .. math:: g(x) - g(\tilde x) + \bar g(\tilde x)

    with the gradient :math:`g` of the batch of this call, and that of all data :math:`\bar g`, which is worked out at
    the first call and at every `every`-th after it, at the point :math:`\tilde x` held then. So a constant step size is
    enough, and convergence is linear. With a rule that has `prox` it is Prox-SVRG.

    Parameters
    ----------
    gradients : list of variables
        :math:`g`, of the cost of a batch, which is an input or drawn.
    full_gradients : list of variables
        :math:`\bar g`, of the mean cost of all data, the mean of :math:`g` over the batches.
    parameters : list of variables
        :math:`x`, one for each gradient.
    every : int
        The number of calls from one :math:`\tilde x` to the next: some passes over the data.
    updates : dict
        Extended in place with the next values of its state.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    list of variables
        Marked as transformed.

    Raises
    ------
    ValueError
        If a gradient does not depend on the parameters, so that it is not known elsewhere.

    Notes
    -----
    Cost per call: two gradients of the batch, and that of all data at every `every`-th. Memory: two numbers per
    parameter component. It is for smooth, mostly convex costs: with networks there is little gain. The count goes on
    after a stop of the rule.

    References
    ----------
    Johnson and Zhang (2013), Accelerating stochastic gradient descent using predictive variance reduction, figure 1
    with option I; Xiao and Zhang (2014), A proximal stochastic gradient method with progressive variance reduction.

    Examples
    --------
    >>> data, x = np.array([1.0, 2.0, 6.0]), pytensor.shared(0.0, name="x")
    >>> one, updates = pt.dscalar("one"), {}
    >>> batch, full = pt.exp(one * x) - x, pt.mean(pt.exp(pt.constant(data) * x)) - x
    >>> gs = optapi.svrg(pytensor.grad(batch, [x]), pytensor.grad(full, [x]), [x], 30, updates)
    >>> step = pytensor.function([one], [], updates=optapi.sgd([x], gradients=gs, step_size=0.02, updates=updates))
    >>> for i in np.random.default_rng(0).integers(3, size=3000):
    ...     _ = step(data[i])
    >>> slope = np.mean(data * np.exp(data * x.get_value())) - 1
    >>> bool(abs(slope) < 1e-10)
    True
    """
    parameters = check_parameters(parameters)
    gradients = check_gradients(gradients, parameters)
    full = check_gradients(full_gradients, parameters, "full_gradients")
    check_updates(updates)
    check_name("name", name)
    for argument, given in (("gradients", gradients), ("full_gradients", full)):
        if not set(ancestors(given)).intersection(parameters):
            raise ValueError(f"{argument} do not depend on the parameters, so they are not known elsewhere")
    count = state(f"{name}/count", dtype="int64")
    due = pt.eq(count % check_count("every", every), 0)
    anchors, means = (_all_zeros_like(parameters, f"{name}/{role}") for role in ("anchor", "mean"))
    points = [pt.switch(due, p, anchor) for p, anchor in zip(parameters, anchors, strict=True)]

    def everywhere(*point: Any) -> list[Any]:
        return [
            like(g, p)
            for g, p in zip(replaced(full, dict(zip(parameters, point, strict=True))), parameters, strict=True)
        ]

    at = cond(due, everywhere, parameters, means)
    there = replaced(gradients, {p: like(point, p) for p, point in zip(parameters, points, strict=True)})
    new = dict(zip([*anchors, *means], [*points, *at], strict=True)) | {count: count + 1}
    extend(updates, {variable: like(value, variable) for variable, value in new.items()})
    return [mark(like(g - other + mean, p)) for g, other, mean, p in zip(gradients, there, at, parameters, strict=True)]


def _all_zeros_like(variables: Sequence[Any], name: str) -> list[Any]:
    """State of the shapes and dtypes of `variables`, named ``name/label``."""
    return [full_like(v, f"{name}/{label}") for v, label in zip(variables, labels(variables), strict=True)]
