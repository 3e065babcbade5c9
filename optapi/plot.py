"""Plots of minimizations, schedules and benchmarks with matplotlib: ``pip install 'optapi[plot]'``.

Each function takes the axes to draw on, by default new ones, and returns them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import profiles, schedules
from .checks import as_numbers, check_callable, check_choice, check_count, check_number, shown
from .drivers.numpy import minimize_iterator
from .drivers.options import name_of
from .drivers.results import OptimizeResult
from .profiles import MEASURES, Benchmark
from .pytree import point


if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["data_profile", "path", "performance_profile", "schedule", "trace"]


# The colors of Okabe and Ito, which color-blind people can tell apart, without the yellow; then other dashes.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")

LABELS = {"cost": "cost", "gradient_size": "largest component of the gradient", "step": "length of the step"}


def trace(
    runs: object, y: str = "cost", x: str = "iterations", *, minimum: float | None = None, axes: Axes | None = None
) -> Any:
    """The cost, the gradient or the steps of runs against iterations, evaluations or seconds.

    Parameters
    ----------
    runs : result, iterator, trace, or list or mapping of these
        Of ``minimize(..., full_output=True, trace=True)`` or of `minimize_iterator` with ``trace=True``, finished or
        not. The keys of a mapping are the labels.
    y : "cost", "gradient_size" or "step"
        The ordinate. The last two are on a logarithmic scale; so is the cost if it is positive and changes by a factor
        of more than 100.
    x : "iterations", "evaluations" or "seconds"
        The abscissa.
    minimum : float, optional
        If given, the distance of the cost from it is shown, on a logarithmic scale.
    axes : matplotlib axes, optional

    Returns
    -------
    axes

    Raises
    ------
    ValueError
        If a run was not traced.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from optapi import bfgs, lbfgs, minimize, plot
    >>> runs = {
    ...     rule.__name__: minimize([-1.2, 1.0], rosen, rosen_der, rule, full_output=True, trace=True)
    ...     for rule in (lbfgs, bfgs)
    ... }
    >>> axes = plot.trace(runs, x="evaluations", minimum=0.0)
    """
    check_choice("y", y, tuple(LABELS))
    check_choice("x", x, MEASURES)
    minimum = None if minimum is None else check_number("minimum", minimum)
    traces = {label: profiles.traced(run) for label, run in _labelled("runs", runs, _is_run).items()}
    label = LABELS[y]
    curves = {name: np.asarray(run[y], float) for name, run in traces.items()}
    logarithmic = y != "cost"
    if y == "cost" and minimum is not None:
        label, logarithmic = "distance of the cost from its minimum", True
        curves = {name: np.abs(values - minimum) for name, values in curves.items()}
    elif y == "cost":
        costs = np.concatenate([values[np.isfinite(values)] for values in curves.values()])
        logarithmic = bool(costs.size and costs.min() > 0 and costs.max() > 100 * costs.min())

    axes = _ready(axes, xlabel=x, ylabel=label)
    for name, values in curves.items():
        # A logarithmic scale has no place for zeros, such as the step at the start.
        shown = np.where(values > 0, values, np.nan) if logarithmic else values
        axes.plot(profiles.counts(traces[name], x), shown, label=name, **_style(axes))
    if logarithmic:
        axes.set_yscale("log")
    return _with_legend(axes)


def path(runs: object, f: Callable[[Any], Any] | None = None, *, levels: int = 16, points: int = 80,
         axes: Axes | None = None) -> Any:  # fmt: skip
    """The paths of minimizations with two components over the contours of the cost.

    Parameters
    ----------
    runs : iterator, array, or list or mapping of these
        A `minimize_iterator` is copied, and the copy runs from its present point to its end. An array is of shape
        (points, 2). The keys of a mapping are the labels.
    f : callable, optional
        The cost, of a point such as the iterators have, or of an array of shape (2,). By default that of the first
        iterator; without an iterator there are no contours.
    levels : int
        The number of contours, on a logarithmic scale above the lowest visible cost.
    points : int
        The number of points along each side at which the cost is evaluated for the contours.
    axes : matplotlib axes, optional

    Returns
    -------
    axes

    Raises
    ------
    ValueError
        If a point does not have two components.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from optapi import lbfgs, minimize_iterator, nesterov, plot
    >>> axes = plot.path({
    ...     "lbfgs": minimize_iterator([-1.2, 1.0], rosen, rosen_der, lbfgs),
    ...     "nesterov": minimize_iterator([-1.2, 1.0], rosen, rosen_der, nesterov, step_size=1e-3, max_iterations=400),
    ... })
    """
    levels, points = check_count("levels", levels, low=2), check_count("points", points, low=2)
    if f is not None:
        check_callable("f", f, "a function from a point to the cost")
    labelled = _labelled("runs", runs, _is_path)
    iterators = [run for run in labelled.values() if isinstance(run, minimize_iterator)]
    paths = {label: _path_of(run) for label, run in labelled.items()}
    if f is None and iterators:
        f = _cost_of(iterators[0])
    elif f is not None and iterators:
        given, build = f, _builder(iterators[0])
        f = lambda x: given(build(x))  # noqa: E731

    axes = _ready(axes, xlabel="$x_1$", ylabel="$x_2$")
    axes.grid(False)
    visited = np.concatenate(list(paths.values()))
    visited = visited[np.isfinite(visited).all(axis=1)]
    low, high = visited.min(axis=0), visited.max(axis=0)
    # All points with a margin; never an axis of length zero.
    widths = np.maximum(high - low, 0.2 * np.max(high - low, initial=0.0))
    widths = np.where(widths > 0, widths, 1.0)
    middle = (low + high) / 2
    low, high = middle - 0.62 * widths, middle + 0.62 * widths
    if f is not None:
        sides = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
        _contours(axes, f, sides, levels)
    for label, track in paths.items():
        style = _style(axes)
        axes.plot(*track.T, marker=".", markersize=5, label=label, **style)
        axes.plot(*track[-1], "*", markersize=13, color=style["color"], markeredgecolor="white", zorder=3)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return _with_legend(axes)


def schedule(step_sizes: object, steps: int, *, axes: Axes | None = None) -> Any:
    """Step sizes against the count of updates.

    Parameters
    ----------
    step_sizes : schedule, or list or mapping of schedules
        Schedules, other functions of the count, or numbers. The keys of a mapping are the labels.
    steps : int
        The number of updates to show.
    axes : matplotlib axes, optional

    Returns
    -------
    axes

    Examples
    --------
    >>> from optapi import plot, schedules
    >>> axes = plot.schedule([schedules.WarmUp(schedules.Cosine(0.1, 90), 10), schedules.Power(0.1, 20)], 120)
    """
    steps = check_count("steps", steps)
    is_one = lambda one: not isinstance(one, Mapping | list | tuple)  # noqa: E731
    lines = {}
    for label, given in _labelled("step_sizes", step_sizes, is_one, repr).items():
        function = given if callable(given) else schedules.Constant(check_number("step_sizes", given, low=0))
        lines[label] = [float(function(count)) for count in range(steps)]
    axes = _ready(axes, xlabel="updates", ylabel="step size")
    for label, line in lines.items():
        axes.plot(range(steps), line, label=label, **_style(axes))
    axes.set_ylim(bottom=0)
    return _with_legend(axes, above=True)


def performance_profile(results: Benchmark | Mapping[str, Any], of: str = "evaluations", *,
                        accuracy: float | None = 1e-5, minima: Mapping[str, float] | None = None,
                        axes: Axes | None = None) -> Any:  # fmt: skip
    r"""The fraction of the problems that an algorithm solves at a cost of at most so many times that of the best one.

    .. math:: \rho_s(\tau) = \frac{1}{|P|} \bigl|\{p \in P: r_{p,s} \le \tau\}\bigr|

    for the ratios :math:`r` of `performance_ratios`. The value of a curve at 1 is the fraction of the problems on which
    the algorithm is the best, at the right end the fraction that it solves.

    Parameters
    ----------
    results : Benchmark, or mapping
        From `optapi.benchmark`, or a mapping from pairs of the names of a problem and an algorithm to results.
    of, accuracy, minima
        What to count, and when a problem is solved: see `Benchmark.measure`.
    axes : matplotlib axes, optional

    Returns
    -------
    axes

    References
    ----------
    Dolan and Moré (2002), Benchmarking optimization software with performance profiles.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from optapi import benchmark, bfgs, lbfgs, plot
    >>> starts = {"near": [-1.2, 1.0], "far": [9.0, -9.0], "flat": [0.0, 0.0]}
    >>> results = benchmark({name: (start, rosen, rosen_der) for name, start in starts.items()}, [lbfgs, bfgs])
    >>> axes = plot.performance_profile(results, accuracy=1e-8)
    """
    results = _benchmark(results)
    ratios = profiles.performance_ratios(results.measure(of, accuracy, minima))
    label = f"{of} relative to the best algorithm"
    axes = _profile(ratios, results.algorithms, 1.0, label, axes)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return axes


def data_profile(results: Benchmark | Mapping[str, Any], *, accuracy: float | None = 1e-5,
                 minima: Mapping[str, float] | None = None, axes: Axes | None = None) -> Any:  # fmt: skip
    r"""The fraction of the problems that an algorithm solves within so many evaluations.

    .. math:: d_s(\kappa) = \frac{1}{|P|} \left|\left\{p \in P: \frac{t_{p,s}}{n_p + 1} \le \kappa\right\}\right|

    for the evaluations :math:`t` and the numbers :math:`n` of components.

    Parameters
    ----------
    results : Benchmark, or mapping
        From `optapi.benchmark`, or a mapping from pairs of the names of a problem and an algorithm to results.
    accuracy, minima
        When a problem is solved: see `Benchmark.measure`.
    axes : matplotlib axes, optional

    Returns
    -------
    axes

    References
    ----------
    Moré and Wild (2009), Benchmarking derivative-free optimization algorithms, equation 2.1.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> from optapi import benchmark, bfgs, lbfgs, plot
    >>> starts = {"near": [-1.2, 1.0], "far": [9.0, -9.0], "flat": [0.0, 0.0]}
    >>> results = benchmark({name: (start, rosen, rosen_der) for name, start in starts.items()}, [lbfgs, bfgs])
    >>> axes = plot.data_profile(results, accuracy=1e-8)
    """
    results = _benchmark(results)
    costs = results.measure("evaluations", accuracy, minima) / (results.sizes()[:, None] + 1)
    return _profile(costs, results.algorithms, 0.0, "evaluations / (components + 1)", axes)


def _profile(costs: np.ndarray, algorithms: Sequence[str], start: float, label: str, axes: Any) -> Any:
    axes = _ready(axes, xlabel=label, ylabel="fraction of the problems solved")
    finite = costs[np.isfinite(costs)]
    end = 1.1 * max(np.max(finite, initial=start), start, 0.1)
    for algorithm, column in zip(algorithms, costs.T, strict=True):
        limits = np.concatenate([[start], np.unique(column[np.isfinite(column)]), [end]])
        solved = profiles.fraction_solved(column[:, None], limits)[:, 0]
        axes.plot(limits, solved, drawstyle="steps-post", label=algorithm, **_style(axes))
    axes.set(xlim=(start, end), ylim=(-0.02, 1.02))
    return _with_legend(axes)


def _benchmark(results: Any) -> Benchmark:
    results = results if isinstance(results, Benchmark) else Benchmark(results)
    if not results:
        raise ValueError("results is empty; pass at least one result")
    return results


def _labelled(argument: str, given: Any, is_one: Callable[[Any], bool], label_of: Any = None) -> dict[str, Any]:
    """One or several things to draw, by their labels."""
    if is_one(given):
        given = [given]
    if isinstance(given, Mapping) and given:
        return {", ".join(map(str, key)) if isinstance(key, tuple) else str(key): run for key, run in given.items()}
    if not isinstance(given, list | tuple) or not given or not all(map(is_one, given)):
        raise TypeError(
            f"{argument} is {shown(given)}, which cannot be drawn here; pass one to draw, or a list or mapping of them"
        )
    labels = [label_of(one) if label_of else _name(one) for one in given]
    alone = len(given) == 1
    return {
        label if label and (alone or labels.count(label) == 1) else f"{label or 'run'} {number}": one
        for number, (label, one) in enumerate(zip(labels, given, strict=True), 1)
    }


def _name(run: Any) -> str:
    return name_of(run.opt_algo) if isinstance(run, minimize_iterator) else ""


def _is_run(given: Any) -> bool:
    is_trace = isinstance(given, Mapping) and "cost" in given and "evaluations" in given
    return is_trace or isinstance(given, OptimizeResult | minimize_iterator)


def _is_path(given: Any) -> bool:
    return isinstance(given, minimize_iterator | np.ndarray)


def _path_of(run: Any) -> np.ndarray:
    """The points of a run, in rows."""
    if isinstance(run, minimize_iterator):
        run = copy.deepcopy(run)
        # The iterate, not the best point, which does not move at each iteration.
        run = [_flat(run.iterate), *(_flat(state.iterate) for state in run)]
    points = as_numbers("a path of runs", run)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"a path of runs has the shape {points.shape}; only points of two components can be drawn")
    return points


def _flat(x: Any) -> np.ndarray:
    return np.concatenate([array.ravel() for array in point("x", x)[1]])


def _builder(iterator: minimize_iterator) -> Callable[[np.ndarray], Any]:
    """A function from an array of shape (2,) to a point such as the iterator has."""
    structure, arrays = point("x", iterator.x)
    ends = np.cumsum([array.size for array in arrays])[:-1]

    def build(x: np.ndarray) -> Any:
        parts = zip(np.split(x, ends), arrays, strict=True)
        return structure.build([part.reshape(array.shape).astype(array.dtype) for part, array in parts])

    return build


def _cost_of(iterator: minimize_iterator) -> Callable[[np.ndarray], float]:
    """The cost that the iterator minimizes, as a function of an array of shape (2,)."""
    probe, build = copy.deepcopy(iterator), _builder(iterator)

    def cost(x: np.ndarray) -> float:
        probe.x = build(x)
        return probe.fun

    return cost


def _contours(axes: Any, f: Callable[[np.ndarray], Any], sides: Sequence[np.ndarray], levels: int) -> None:
    with np.errstate(all="ignore"):
        costs = np.array([[float(np.squeeze(f(np.array([u, v])))) for u in sides[0]] for v in sides[1]])
    excess = np.ma.masked_invalid(costs - np.nanmin(np.where(np.isfinite(costs), costs, np.nan)))
    positive = excess.compressed()
    positive = positive[positive > 0]
    if not positive.size:
        return  # a plane
    bounds = np.geomspace(np.quantile(positive, 0.005), positive.max(), levels)
    if bounds[0] < bounds[-1]:
        shades = np.ma.log(np.ma.maximum(excess, bounds[0]))
        axes.contourf(*sides, shades, levels=np.log(bounds), cmap="Greys", alpha=0.35, extend="both")
        axes.contour(*sides, excess, levels=bounds, colors="0.55", linewidths=0.6)


def _ready(axes: Any, **labels: str) -> Any:
    """The axes, with their labels."""
    if not (axes is None or (callable(getattr(axes, "set", None)) and callable(getattr(axes, "plot", None)))):
        raise TypeError(f"axes is {shown(axes)}; pass axes of matplotlib")
    if axes is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("optapi.plot needs matplotlib; install it with pip install 'optapi[plot]'") from error
        _, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.set(**labels)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _style(axes: Any) -> dict[str, Any]:
    """The color and the dashes of the next line on the axes."""
    number = sum(not line.get_label().startswith("_") for line in axes.lines)
    dashes = DASHES[number // len(COLORS) % len(DASHES)]
    return {"color": COLORS[number % len(COLORS)], "linestyle": dashes, "linewidth": 1.8}


def _with_legend(axes: Any, above: bool = False) -> Any:
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    if len(labels) > 1 or (labels and labels[0] != "run 1"):
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)} if above else {}
        axes.legend(fontsize="small", frameon=not above, framealpha=0.85, edgecolor="none", **place)
    return axes
