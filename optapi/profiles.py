"""Benchmarks: algorithms compared on a set of problems, and their performance and data profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import as_numbers, check_choice, check_flag, check_number, shown
from .drivers.numpy import minimize
from .drivers.options import name_of, rule_of
from .drivers.results import OptimizeResult
from .drivers.termination import STATUSES
from .engines import mapped, opened
from .hints import hinted
from .pytree import PyTree, largest, point


__all__ = ["Benchmark", "benchmark", "fraction_solved", "performance_ratios"]


MEASURES = ("evaluations", "iterations", "seconds")


class Benchmark(dict[tuple[str, str], OptimizeResult]):
    """Results of several algorithms on several problems: a dictionary from ``(problem, algorithm)``, both by name.

    `benchmark` returns one. It can also be made of results from elsewhere. It prints as a table, also in a notebook.

    Parameters
    ----------
    results : mapping
        From pairs of names to results; those of ``minimize(..., full_output=True, trace=True)``, or of SciPy.
    ascent : bool
        Whether the algorithms maximize.

    Examples
    --------
    >>> import numpy as np
    >>> from optapi import benchmark, bfgs, lbfgs
    >>> problem = np.ones(2), lambda x: np.sum((x - [3, 30]) ** 4), lambda x: 4 * (x - [3, 30]) ** 3
    >>> results = benchmark({"quartic": problem}, [lbfgs, bfgs])
    >>> results.algorithms
    ['lbfgs', 'bfgs']
    >>> results["quartic", "bfgs"].success
    True
    >>> results.measure("iterations", accuracy=0.1)
    array([[2., 2.]])
    """

    def __init__(self, results: Mapping[tuple[str, str], Any] | None = None, ascent: bool = False):
        results = {} if results is None else results
        if not isinstance(results, Mapping) or not all(isinstance(key, tuple) and len(key) == 2 for key in results):
            raise TypeError(
                f"results is {shown(results)}; pass what optapi.benchmark returns, or a dictionary from pairs of the "
                "names of a problem and an algorithm to results"
            )
        super().__init__(results)
        self.ascent = check_flag("ascent", ascent)

    @property
    def problems(self) -> list[str]:
        """The names of the problems."""
        return list(dict.fromkeys(problem for problem, _ in self))

    @property
    def algorithms(self) -> list[str]:
        """The names of the algorithms."""
        return list(dict.fromkeys(algorithm for _, algorithm in self))

    def on(self, problem: str) -> dict[str, OptimizeResult]:
        """The results on one problem by the names of the algorithms, for instance for `optapi.plot.trace`."""
        if not isinstance(problem, str) or problem not in self.problems:
            raise ValueError(f"there is no problem {problem!r}; there are {', '.join(self.problems)}")
        return {algorithm: result for (name, algorithm), result in self.items() if name == problem}

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary of numbers and strings for each run, for instance for ``pandas.DataFrame``."""
        return [
            {
                "problem": problem,
                "algorithm": algorithm,
                "cost": float(result.fun),
                "gradient_size": largest([leaf for _, leaf in PyTree.of(result.jac).leaves("jac", result.jac)]),
                "iterations": result.nit,
                "evaluations": result.nfev,
                "seconds": float(result["trace"]["seconds"][-1]) if "trace" in result else np.nan,
                "status": STATUSES.get(result.status, str(result.status)),
            }
            for (problem, algorithm), result in self.items()
        ]

    def measure(
        self, of: str = "evaluations", accuracy: float | None = 1e-5, minima: Mapping[str, float] | None = None
    ) -> np.ndarray:
        r"""The evaluations, iterations or seconds of each algorithm until each problem is solved.

        A problem is solved at the first point :math:`x` with

        .. math:: f(x_0) - f(x) \ge (1 - \tau) (f(x_0) - f_L)

        for the start :math:`x_0` and the minimum :math:`f_L`.

        Parameters
        ----------
        of : "evaluations", "iterations" or "seconds"
            What to count. An evaluation is one of the cost, with its gradient where that is needed.
        accuracy : float or None
            :math:`\tau`, from 0 to below 1. With None a problem is solved if the result is a success, and all
            evaluations, iterations or seconds of the run count.
        minima : mapping, optional
            :math:`f_L` by name of the problem. By default, and for problems that are not in it, the lowest cost that
            any of the algorithms reached.

        Returns
        -------
        array
            Of shape (problems, algorithms), float64; infinite where the problem was not solved.

        Raises
        ------
        ValueError
            If a run was not traced, and the trace is needed.

        References
        ----------
        Moré and Wild (2009), Benchmarking derivative-free optimization algorithms, equation 2.2.
        """
        check_choice("of", of, MEASURES)
        if accuracy is not None:
            accuracy = check_number("accuracy", accuracy, low=0, below=1)
        if not (minima is None or isinstance(minima, Mapping)):
            raise TypeError(f"minima is {shown(minima)}; pass a dictionary from names of problems to numbers")
        minima = {problem: check_number(f"minima[{problem!r}]", value) for problem, value in (minima or {}).items()}
        counted = np.full((len(self.problems), len(self.algorithms)), np.inf)
        for row, problem in enumerate(self.problems):
            runs = self.on(problem)
            minimum = _minimum(runs, minima.get(problem), self.ascent) if accuracy is not None else None
            for algorithm, result in runs.items():
                column = self.algorithms.index(algorithm)
                if accuracy is not None:
                    trace = traced(result)
                    counted[row, column] = _first_within(
                        _lowest(trace, self.ascent), minimum, accuracy, counts(trace, of)
                    )
                elif result.success:
                    totals = {"evaluations": "nfev", "iterations": "nit"}
                    counted[row, column] = result[totals[of]] if of in totals else traced(result)[of][-1]
        return counted

    def sizes(self) -> np.ndarray:
        """The number of components of the point of each problem, an integer array."""
        arrays = {problem: point("x", result.x)[1] for (problem, _), result in self.items()}
        return np.array([sum(array.size for array in arrays[problem]) for problem in self.problems])

    def __str__(self) -> str:
        lines = list(zip(*map(_justified, _columns(self.rows())), strict=True))
        return "\n".join("  ".join(line).rstrip() for line in lines)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        first, *lines = zip(*_columns(self.rows()), strict=True)
        rule = ["---" if name in ("problem", "algorithm", "status") else "--:" for name in first]
        return "\n".join("| " + " | ".join(line) + " |" for line in [first, rule, *lines])


@hinted
def benchmark(problems: Mapping[str, Any] | Sequence[Any], algorithms: Mapping[str, Any] | Sequence[Any], *,
              engine: Any = None, **options: Any) -> Benchmark:  # fmt: skip
    """Run each algorithm on each problem, by `minimize`, with a trace.

    Parameters
    ----------
    problems : mapping or list
        From names to problems. A problem is ``(x0, f, df)``, as `minimize` takes them, or ``(x0, f, df, options)`` with
        a dictionary of keywords of `minimize` for this problem, such as ``args``. In a list, a problem has the name of
        its `f`.
    algorithms : mapping or list
        From names to rules, which are callables or names. A rule with options is ``functools.partial(rule, ...)``. In a
        list, a rule has the name of its function.
    engine : optional
        Where the runs are, as `optapi.distributed.Partitions` takes it: by default one after another in this process;
        a number of threads, an executor of ``concurrent.futures``, a function that makes one, or
        ``dask_engine(client)``. Functions and rules then have to be such as pickle takes, and results have no second
        derivatives.
    **options
        Keywords of `minimize` for all runs, such as ``tolerance``, ``max_evaluations`` and ``time_limit``.

    Returns
    -------
    Benchmark
        The results by ``(problem, algorithm)``. It prints as a table; `optapi.plot` draws profiles and traces of it.

    Raises
    ------
    TypeError, ValueError
        If two of a list have the same name, or an argument is not as described here. Exceptions of `minimize`, `f` and
        `df` are raised as they are, with a note that names the run.
    PartitionError
        If workers of an engine are lost again and again.

    Notes
    -----
    Seconds are those of the iterations, without compilation. Run a benchmark twice and read the seconds of the second
    run: the first one of a rule also fills caches.

    Examples
    --------
    >>> from functools import partial
    >>> from scipy.optimize import rosen, rosen_der
    >>> from optapi import benchmark, bfgs, lbfgs
    >>> results = benchmark(
    ...     {"valley": ([-1.2, 1.0], rosen, rosen_der), "far": ([9.0, -9.0], rosen, rosen_der)},
    ...     {"lbfgs": lbfgs, "lbfgs, 3 pairs": partial(lbfgs, memory=3), "bfgs": bfgs},
    ...     tolerance=1e-6,
    ... )
    >>> results.measure(accuracy=1e-8).shape
    (2, 3)
    """
    for name in ("trace", "full_output"):
        if name in options:
            raise TypeError(f"the keyword {name!r} is not taken here; every run has a trace and a full result")
    problems = _named("problems", problems, lambda problem: name_of(_problem("problems", problem)[1]))
    algorithms = _named("algorithms", algorithms, lambda rule: name_of(rule_of(rule, "one of algorithms")))
    rules = {name: rule_of(rule, f"algorithms[{name!r}]") for name, rule in algorithms.items()}
    runs = {}
    for problem, given in problems.items():
        *numbers, own = _problem(f"problems[{problem!r}]", given)
        for algorithm, rule in rules.items():
            keywords = {**options, **own, "trace": True, "full_output": True}
            runs[problem, algorithm] = ((problem, algorithm), (*numbers, rule), keywords)
    results = Benchmark(ascent=options.get("ascent", False))
    with opened(engine, "engine") as found:
        for run, result in zip(runs, mapped(found, _run, runs.values()), strict=True):
            results[run] = result
    return results


def _run(run: tuple[tuple[str, str], tuple[Any, ...], dict[str, Any]]) -> Any:
    """The result of one run of a benchmark, which an engine may call elsewhere."""
    (problem, algorithm), arguments, keywords = run
    try:
        return minimize(*arguments, **keywords)
    except Exception as error:
        error.add_note(f"in the run of {algorithm} on {problem}")
        raise


def performance_ratios(costs: ArrayLike) -> np.ndarray:
    r"""The cost of each algorithm on each problem, divided by the lowest cost of any algorithm on it.

    .. math:: r_{p,s} = \frac{t_{p,s}}{\min_s t_{p,s}}

    Parameters
    ----------
    costs : array
        :math:`t`, of shape (problems, algorithms), as of `Benchmark.measure`; infinite where a problem was not solved.

    Returns
    -------
    array
        Of the same shape, at least 1; infinite where a problem was not solved.

    References
    ----------
    Dolan and Moré (2002), Benchmarking optimization software with performance profiles, equation 2.1 and before.

    Examples
    --------
    >>> import numpy as np
    >>> from optapi.profiles import performance_ratios
    >>> performance_ratios([[10, 20], [30, np.inf], [np.inf, np.inf]])
    array([[ 1.,  2.],
           [ 1., inf],
           [inf, inf]])
    """
    costs = as_numbers("costs", costs, 2)
    lowest = costs.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(costs == lowest, 1.0, costs / lowest)
    return np.where(np.isfinite(costs), ratios, np.inf)


def fraction_solved(costs: ArrayLike, limits: ArrayLike) -> np.ndarray:
    """The fraction of the problems that each algorithm solves at a cost of at most each of the limits.

    Of `performance_ratios` this is a performance profile; of evaluations divided by the number of components plus one,
    a data profile.

    Parameters
    ----------
    costs : array
        Of shape (problems, algorithms); infinite where a problem was not solved.
    limits : array
        Finite numbers.

    Returns
    -------
    array
        Of shape (limits, algorithms), from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from optapi.profiles import fraction_solved
    >>> fraction_solved([[10, 20], [30, np.inf]], [10, 20, 30])
    array([[0.5, 0. ],
           [0.5, 0.5],
           [1. , 0.5]])
    """
    costs, limits = as_numbers("costs", costs, 2), as_numbers("limits", limits, 1)
    return np.mean(costs[None] <= limits[:, None, None], axis=1)


def traced(run: object) -> Mapping[str, np.ndarray]:
    """The trace of a result or an iterator; a trace itself."""
    result = getattr(run, "result", run)
    if isinstance(result, Mapping) and "cost" in result and "evaluations" in result:
        return result
    if not isinstance(result, Mapping) or "trace" not in result:
        raise ValueError("a run has no trace; pass trace=True, and full_output=True, to minimize")
    return result["trace"]


def counts(trace: Mapping[str, np.ndarray], of: str) -> np.ndarray:
    """The evaluations, iterations or seconds of a run at each point of its trace."""
    return np.arange(len(trace["cost"])) if of == "iterations" else np.asarray(trace[of])


def _problem(name: str, problem: Any) -> tuple[Any, Any, Any, Mapping[str, Any]]:
    """`problem`, checked, with options."""
    if isinstance(problem, list | tuple) and len(problem) == 3:
        return (*problem, {})
    if isinstance(problem, list | tuple) and len(problem) == 4 and isinstance(problem[3], Mapping):
        return tuple(problem)
    raise TypeError(f"{name} is {problem!r}; pass (x0, f, df), or (x0, f, df, options) with a dictionary")


def _named(argument: str, given: Any, name_of: Callable[[Any], str]) -> dict[str, Any]:
    """What was passed as `argument`, by name."""
    if isinstance(given, Mapping):
        named = {str(name): entry for name, entry in given.items()}
    elif isinstance(given, list | tuple):
        named = {name_of(entry): entry for entry in given}
        if len(named) < len(given):
            raise ValueError(f"two of {argument} have the same name; pass a dictionary from names of your own")
    else:
        raise TypeError(f"{argument} is a {type(given).__name__}; pass a dictionary or a list")
    if not named:
        raise ValueError(f"{argument} is empty; pass at least one")
    return named


def _lowest(trace: Mapping[str, np.ndarray], ascent: bool) -> np.ndarray:
    """The lowest cost up to each point of a run; where it ascends, of the negative cost."""
    costs = -np.asarray(trace["cost"]) if ascent else np.asarray(trace["cost"])
    return np.fmin.accumulate(costs)


def _minimum(runs: Mapping[str, Any], minimum: float | None, ascent: bool) -> float:
    """The minimum of a problem, by default the lowest cost of all runs; where they ascend, of the negative cost."""
    if minimum is not None:
        return -minimum if ascent else minimum
    return min(_lowest(traced(result), ascent)[-1] for result in runs.values())


def _first_within(lowest: np.ndarray, minimum: Any, accuracy: float, counted: np.ndarray) -> float:
    """The count at the first point at which a problem is solved, infinite if there is none."""
    solved = np.flatnonzero(lowest <= minimum + accuracy * (lowest[0] - minimum))
    return float(counted[solved[0]]) if len(solved) else np.inf


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A table as text: a list of cells for each column, its name first."""
    formats = {"cost": "{:.6g}", "gradient_size": "{:.1e}", "seconds": "{:.3f}"}
    rows = list(rows)
    names: Sequence[str] = list(rows[0]) if rows else []
    return [[name.replace("_", " "), *(formats.get(name, "{}").format(row[name]) for row in rows)] for name in names]


def _justified(column: Sequence[str]) -> list[str]:
    width, is_text = max(map(len, column)), column[0] in ("problem", "algorithm", "status")
    return [cell.ljust(width) if is_text else cell.rjust(width) for cell in column]
