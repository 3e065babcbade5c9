"""Update transforms: what is done to the updates that a rule returned. From a dictionary to a dictionary.

``lookahead(adam(parameters, cost), parameters)``. Here is also what stands beside a rule and needs updates of its own:
`noise` and `accumulate` map gradients to gradients, `reduce_on_plateau` writes a step size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    as_list,
    called,
    check_cost,
    check_count,
    check_keys,
    check_parameters,
    check_updates,
    is_generator,
    scalar,
    shared_scalar,
)
from .gradients import mark
from .graph.loops import hold, like
from .moments import running_average
from .objective import conjunction
from .state import full_like, labels, state
from .stopping import improves
from .typing import Updates
from .updates import extend, reports


ANNEALED = schedules.Power(0.01, exponent=0.55)


def skip_nonfinite(updates: Updates, *, name: str = "skip_nonfinite") -> Updates:
    """`updates` that change nothing, but for random generators, in a call that would make a finite value not finite.

    The calls skipped are counted in a state variable of the role ``"skipped"``, see `reports`.

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


def project(updates: Updates, projections: Mapping[Any, Callable[[Any], Any]]) -> Updates:
    """`updates` with some parameters projected, for instance onto bounds: ``{p: lambda value: value.clip(0, 1)}``.

    A parameter that its rule leaves where it is is left there. This is the projected gradient method for a rule whose
    steps are along the gradient. At an active bound no gradient vanishes, so a tolerance does not stop it: see
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
        If the rule reports the cost or the gradient of the point that it found, which would be another than the one
        held. Projected steps of a rule that searches need not lead to a minimizer either.

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
    check_keys("projections", projections, updates)
    if {"cost", "gradient_size"} & set(reports(updates)):
        raise ValueError("updates are of a rule that searches and judges its own points; project a first-order rule")
    projected = dict(updates)
    for parameter, projection in projections.items():
        value = updates[parameter]
        moved = _moved(updates, [parameter])
        projected[parameter] = like(pt.switch(moved, projection(value), parameter), parameter)
    return projected


def average(
    updates: Updates, averages: Mapping[Any, Any], *, weight: Any = None, after: int = 0, name: str = "average"
) -> Updates:
    r"""`updates` that also average the parameters: ``average(updates, {p: p_bar})``.

    The mean of all values, :math:`\bar x \leftarrow \bar x + (x - \bar x) / t` (Polyak-Ruppert averaging), or with
    `weight` :math:`w` a running average :math:`\bar x \leftarrow w \bar x + (1 - w) x` that begins at the first value.
    Calls that move no parameter, after a stop or where a call was skipped, do not count.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    averages : dict
        From parameters to the shared variables that are to hold their averages.
    weight : scalar, optional
        The weight of the past, from 0 to below 1.
    after : int
        The number of calls before averaging begins; until then an average is the parameter itself.
    name : str
        The prefix of the name of the counter.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable that is to hold an average already has an update, or is to hold two.

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
    check_keys("averages", averages, updates)
    after = check_count("after", after, low=0)
    count = state(f"{name}/count", dtype="int64")
    moved = _moved(updates, averages)
    new: Updates = {count: count + moved}
    t: Any = pt.maximum(count + 1 - after, 1)
    for parameter, mean in averages.items():
        if not isinstance(mean, SharedVariable):
            raise TypeError(f"averages holds a {type(mean).__name__} for {called(parameter)}; pass a shared variable")
        value = updates[parameter].astype(mean.type.dtype)
        if weight is None:
            following = mean + (value - mean) / as_dtype(t, mean.type.dtype)
        else:
            following = running_average(mean, value, scalar("weight", weight, 0, below=1))
        following = pt.switch(pt.eq(t, 1), value, following)
        extend(new, {mean: like(pt.switch(moved, following, mean), mean)})
    return extend(dict(updates), new)


def _moved(updates: Updates, parameters: Iterable[Any]) -> Any:
    """Whether `updates` move any of `parameters` in this call."""
    return ~conjunction([pt.all(pt.eq(updates[parameter], parameter)) for parameter in parameters])


def lookahead(
    updates: Updates, parameters: Any, every: int = 5, weight: Any = 0.5, *, name: str = "lookahead"
) -> Updates:
    r"""`updates` of which every `every`-th call ends a share of the way from where the last one ended.

    With slow weights :math:`s`, which begin at the parameters' values, every :math:`k`-th call is
    :math:`x, s \leftarrow s + w (\hat x - s)`, with :math:`\hat x` where the rule would go; the others follow the rule.
    A call in which the rule leaves all `parameters` where they are does not count, and leaves them there.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    parameters : list of variables
        Those that look ahead, mostly all of the rule's. Its other state is not touched.
    every : int
        :math:`k`. With 1 and the plain `sgd` it is a step size of :math:`w` times as much.
    weight : scalar
        :math:`w`, from 0 to 1; 1 follows the rule in all calls.
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
    parameters = check_parameters(parameters)
    check_keys("parameters", dict.fromkeys(parameters), updates)
    every = check_count("every", every)
    weight = scalar("weight", weight, 0, 1)

    count = state(f"{name}/count", dtype="int64")
    moved = _moved(updates, parameters)
    due = pt.eq((count + 1) % every, 0)
    ahead, new = dict(updates), {count: count + moved}
    for p, slow in zip(parameters, _all_zeros_like(parameters, f"{name}/slow"), strict=True):
        # The slow weights are the parameters at the first call, not now: the start may be set, or be one of a batch.
        last, fast = pt.switch(pt.eq(count, 0), p, slow), updates[p]
        mean = last + as_dtype(weight, p.type.dtype) * (fast - last)
        # The rule's very values where all the weight is theirs: last + (fast - last) may round.
        mean = pt.switch(pt.eq(weight, 1), fast, mean)
        ahead[p] = like(pt.switch(moved & due, mean, fast), p)
        new[slow] = like(pt.switch(moved & due, mean, last), slow)
    return extend(ahead, new)


def best(updates: Updates, cost: Any, points: Mapping[Any, Any], *, name: str = "best") -> Updates:
    """`updates` that also keep the point of lowest cost: ``best(updates, cost, {p: p_best})``.

    The cost is that at the point held before the call, and so is the point that is kept: where the last call leads is
    not known to be better. A cost that is not finite is never the lowest. The lowest cost is kept in a state variable
    of the role ``"best_cost"``, see `reports`; it is infinite before the first finite one.

    Parameters
    ----------
    updates : dict
        What a rule returned.
    cost : scalar variable
        What is to be low; under ascent pass its negative. The cost of a batch of examples serves only for a good
        guess: another batch may be easier.
    points : dict
        From parameters to the shared variables that are to hold their best values.
    name : str
        The prefix of the name of the lowest cost.

    Returns
    -------
    dict

    Raises
    ------
    KeyError
        If a variable that is to hold a best value already has an update.

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
    cost = check_cost(cost)
    check_keys("points", points, updates)
    lowest = state(f"{name}/best_cost", dtype=cost.type.dtype, fill=np.inf, role="best_cost")
    improved = improves(cost, lowest, 0.0)
    new = {lowest: like(pt.switch(improved, cost, lowest), lowest)}
    for parameter, kept in points.items():
        extend(new, {kept: like(pt.switch(improved, parameter.astype(kept.type.dtype), kept), kept)})
    return extend(dict(updates), new)


def bold_driver(
    updates: Updates, step_size: Any, cost: Any, *, grow: Any = 1.05, shrink: Any = 0.5, name: str = "bold_driver"
) -> Updates:
    """`updates` with a step size that grows while the cost falls, and shrinks, the step undone, when it has risen.

    If the cost is below that at the last point, the step size is multiplied by `grow`, and the rule takes its next
    step with that. If it is above, or not finite, the last step has failed: the call puts all that the rule writes,
    its state too, back to the values before that step, and multiplies the step size by `shrink`. So a failed step
    takes two calls, and the parameters hold a point of higher cost between them. The next call finds the same cost as
    before the failed step, which changes nothing.

    It is for exact costs: with the cost of a batch of examples the comparison means little. A point that is set from
    outside is taken for one that the rule went to.

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
        The prefix of the names of its state: a copy of all that the rule writes, and the cost there.

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
    cost, step_size = check_cost(cost), shared_scalar("step_size", step_size, float_dtypes)
    grow, shrink = scalar("grow", grow, low=1), scalar("shrink", shrink, low=0, below=1)
    if step_size not in ancestors(list(updates.values())):
        raise ValueError("updates do not read step_size; pass the same shared variable to the rule")

    last = state(f"{name}/cost", dtype=cost.type.dtype, fill=np.inf)
    known = pt.isfinite(last)
    fell, rose = known & (cost < last), known & ~(cost <= last)
    factor = pt.switch(fell, grow, pt.switch(rose, shrink, 1.0))
    following = like(step_size * factor, step_size)

    variables = [variable for variable in updates if not is_generator(variable)]
    values = graph_replace(list(updates.values()), {step_size: following})
    driven = dict(zip(updates, values, strict=True))
    new = {step_size: following, last: like(pt.switch(pt.isfinite(cost) & ~rose, cost, last), last)}
    for variable, kept in zip(variables, _all_zeros_like(variables, f"{name}/kept"), strict=True):
        driven[variable] = like(pt.switch(rose, kept, driven[variable]), variable)
        new[kept] = like(pt.switch(rose, kept, variable), kept)
    return extend(driven, new)


def reduce_on_plateau(
    step_size: Any,
    cost: Any,
    updates: Updates | None = None,
    *,
    factor: Any = 0.1,
    patience: int = 10,
    improvement: Any = 1e-4,
    cooldown: int = 0,
    minimum: Any = 0.0,
    name: str = "reduce_on_plateau",
) -> Updates:
    r"""A step size that is multiplied by `factor` when `cost` has not improved for `patience` calls.

    A call improves the cost :math:`f` if :math:`f < f_{best} - \delta |f_{best}|`, with :math:`\delta` =
    `improvement`. The first finite value is an improvement; one that is not finite never is. The new step size serves
    from the next call on.

    Parameters
    ----------
    step_size : shared floating-point scalar
        The one that was passed to the rule.
    cost : scalar variable
        What is to decrease; under ascent pass its negative.
    updates : dict, optional
        Extended in place.
    factor : scalar
        From 0 to 1.
    patience : int
        How many calls without an improvement lead to a smaller step size.
    improvement : scalar
        The smallest relative decrease that counts.
    cooldown : int
        The number of calls after a smaller step size that are not counted.
    minimum : scalar
        No step size is made smaller than this.
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
    step_size, cost = shared_scalar("step_size", step_size, float_dtypes), check_cost(cost).astype("float64")
    factor, minimum = scalar("factor", factor, 0, 1), scalar("minimum", minimum, low=0)
    patience, cooldown = check_count("patience", patience), check_count("cooldown", cooldown, low=0)
    lowest = state(f"{name}/best_cost", fill=np.inf)
    waited = state(f"{name}/waited", dtype="int64")

    improved = improves(cost, lowest, scalar("improvement", improvement, low=0))
    waits = pt.switch(improved, 0, waited + 1)
    new: Updates = {lowest: pt.switch(improved, cost, lowest)}
    if cooldown:
        cooling = state(f"{name}/cooling", dtype="int64")
        waits = pt.switch(cooling > 0, 0, waits)
        new[cooling] = pt.switch(waits >= patience, cooldown, pt.maximum(cooling - 1, 0))
    reduces = waits >= patience
    new[waited] = pt.switch(reduces, 0, waits)
    # Not below the minimum, and one that is below it already is not raised.
    smaller = pt.minimum(step_size, pt.maximum(step_size * factor, minimum))
    new[step_size] = pt.switch(reduces, smaller, step_size)
    return extend(updates, {variable: like(value, variable) for variable, value in new.items()})


def accumulate(
    gradients: Sequence[Any],
    every: int,
    updates: Updates,
    parameters: Sequence[Any] | None = None,
    *,
    name: str = "accumulate",
) -> tuple[list[Any], Any]:
    """The means of `gradients` over `every` calls, for batches that are too large for one call.

    ::

        updates = {}
        means, due = accumulate(gradients, 4, updates)
        updates = join(updates, hold(adam(parameters, gradients=means), ~due))

    Where the cost is a mean over examples, four calls with batches of one size are exactly one step on all of their
    examples; `clip_global_norm`, `decay` and the like belong on the means.

    Parameters
    ----------
    gradients : list of variables
    every : int
        The number of calls.
    updates : dict
        Extended in place with the sums and the count.
    parameters : list of variables, optional
        The parameters, one for each gradient, for gradients whose static shape is not known, as is so of those of
        shared variables made without ``shape=``.
    name : str
        The prefix of the names of its state.

    Returns
    -------
    list of variables
        The means over the last `every` calls, this one included, where the call is due. They are marked as
        transformed.
    boolean scalar variable
        Whether the call is due: true in each `every`-th call.

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
    gradients, every = as_list("gradients", gradients), check_count("every", every)
    _check_required(updates)
    models = gradients if parameters is None else as_list("parameters", parameters)
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
        following = like(total + gradient, total)
        new[total] = like(pt.switch(due, 0, following), total)
        means.append(mark(following / as_dtype(pt.constant(every), total.type.dtype)))
    extend(updates, new)
    return means, due


def noise(
    gradients: Sequence[Any],
    updates: Updates,
    *,
    rng: Any,
    variance: Any = ANNEALED,
    name: str = "noise",
) -> list[Any]:
    r"""`gradients` with independent normal noise added to each component.

    ``adam(parameters, gradients=noise(gradients, updates, rng=1), updates=updates)``

    Parameters
    ----------
    gradients : list of variables
    updates : dict
        Extended in place with the next state of the generator, and with a count if `variance` is a schedule.
    rng : shared random generator, or int
        A generator of one's own, made with ``pytensor.tensor.random.shared_rng``, or a seed.
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
    gradients = as_list("gradients", gradients)
    _check_required(updates)
    generator: Any
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        generator = pt.random.shared_rng(seed=rng, name=f"{name}/rng")
    elif isinstance(rng, Variable) and is_generator(rng):
        generator = rng
    else:
        raise TypeError(f"rng is {rng!r}; pass a seed, or a generator made with pytensor.tensor.random.shared_rng")
    new: Updates = {generator: generator}
    extend(dict(updates), new)  # a generator of another writer is refused before it is drawn from

    def count() -> Any:
        counter = state(f"{name}/count", dtype="int64")
        new[counter] = counter + 1
        return counter

    deviation = pt.sqrt(schedules.at("variance", variance, count))
    following, noisy = generator, []
    for g in gradients:
        # Draws of the shape of a gradient, by which each member of a batch has its own.
        following, draws = following.normal(pt.zeros_like(g), dtype=g.type.dtype)
        noisy.append(mark(like(g + as_dtype(deviation, g.type.dtype) * draws, g)))
    extend(updates, {**new, generator: following})
    return noisy


def _all_zeros_like(variables: Sequence[Any], name: str) -> list[Any]:
    """State of the shapes and dtypes of `variables`, named ``name/label``."""
    return [full_like(v, f"{name}/{label}") for v, label in zip(variables, labels(variables), strict=True)]


def _check_required(updates: Any) -> None:
    if updates is None:
        raise TypeError("updates is None; pass the dictionary that takes the state, which may be empty")
    check_updates(updates)
