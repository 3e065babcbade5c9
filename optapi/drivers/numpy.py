"""Drivers: minimizations of NumPy functions, whole or step by step."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from pytensor.compile.mode import Mode

from .. import state
from ..checks import check_flag
from ..pytree import PyTree, distance, largest, point
from ..rules._linear_algebra import inverse_hessian
from . import results, steps
from .evaluator import Known, evaluator_of
from .gradient_check import compare
from .options import check_rule, own_rule, public_name, rule_of, tolerance_of
from .progress import TRACED, Monitor
from .results import Ending, OptimizeResult
from .termination import Limits, is_same


class Position(NamedTuple):
    """All that changes from one iteration to the next, replaced at once, so that nothing is ever half done."""

    values: list[Any]
    now: Known
    best: Known
    nit: int = 0
    seconds: float = 0.0
    begun: bool = False
    ending: Ending | None = None


class minimize_iterator:
    """A minimization that takes a step at each ``next``, and can be looked at, changed, saved and resumed in between.

    ::

        for state in minimize_iterator(x0, f, df, lbfgs):
            print(state.nit, state.fun)

    Parameters
    ----------
    x0 : array, or list, tuple or dict of arrays
        The start. Lists, tuples and dictionaries may be nested; a list of numbers is one vector; integers become
        float64; float32 stays. It is copied.
    f : callable
        ``f(x, *args)``, the cost: a number, or an array of size 1. It is called once for each point, with an array, or
        a structure of arrays as `x0` is, that it may keep or change.
    df : callable, True or None
        ``df(x, *args)``, the derivative, of the shape of `x0`; called once for each point where the cost is finite. If
        True, `f` returns the pair of the cost and the derivative. If None, `f` builds a PyTensor scalar of PyTensor
        variables, which is differentiated.
    opt_algo : callable or str
        A rule, for instance `optapi.lbfgs`, or its name, ``"lbfgs"``.
    args : tuple
        Further arguments of `f`, `df` and `hessp`.
    max_iterations : int, optional
        By default 200 for each component of `x0`, at least 1000 and at most 15000.
    max_evaluations : int, optional
        The largest number of calls of `f`. It is looked at after each iteration.
    time_limit : float, optional
        The largest number of seconds spent in iterations. It is looked at after each iteration.
    target : float, optional
        A cost that is good enough.
    cost_tolerance : float, optional
        It has converged when an iteration that moved the point changes the cost by no more than this times the largest
        of both costs' sizes and 1.
    step_tolerance : float, optional
        The same for the point: the Euclidean length of its change, and the largest of its length and 1.
    callback : callable, optional
        Called after each iteration as ``callback(intermediate_result=...)`` with an `OptimizeResult` of the iterate if
        its only parameter has that name, else as ``callback(x)``. If it raises StopIteration, the minimization ends.
    progressbar : bool or "force"
        Whether to show a live line. It needs a terminal, unless forced.
    verbose : bool or int
        Whether to print a table of all iterations; if an int, of each one of so many.
    trace : bool
        Whether to record cost, gradient size, step, evaluations and seconds at each iteration.
    check_gradient : bool
        Whether to compare `df` with differences of `f` first; a ValueError says where they differ, see
        `optapi.check_gradient`.
    hessp : callable, optional
        ``hessp(x, v, *args)``, the product of the matrix of second derivatives at `x` with `v`. By default it is a
        central difference of `df`. Of use to rules that need such products.
    mode : PyTensor mode or str, optional
        How the rule is compiled. By default it is written out in Python, which is ready at once; ``"NUMBA"`` takes half
        a minute, and is faster where `f` costs next to nothing.
    **options
        Options of the rule. Where the rule's own `tolerance` is None by default, it is 1e-5 here.

    Attributes
    ----------
    x : as `x0`
        The best point with a finite cost that was seen, the current best estimate of the minimum; a copy. Setting it
        moves the iterate, and what was seen before no longer counts.
    f, df, opt_algo
        As they were passed.
    iterate : as `x0`
        The point that the algorithm holds; a copy.
    fun, jac
        The cost and the derivative at `x`.
    nit, nfev, njev, nhev, status, message, success, result
        See `OptimizeResult`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here; the message names it.

    Notes
    -----
    Since `x` is the best point, the cost is evaluated at each iterate also for rules that need only the derivative.

    An exception of `f` or `df` comes out as it is, and so does KeyboardInterrupt. The iteration has then not happened:
    all is as it was before it, but for the numbers of calls, and ``next`` tries again.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> minimization = optapi.minimize_iterator([-1.2, 1.0], rosen, rosen_der, optapi.lbfgs)
    >>> for state in minimization:
    ...     if state.nit == 10:
    ...         break
    >>> minimization.save("minimization.npz")
    >>> resumed = optapi.minimize_iterator.load("minimization.npz", rosen, rosen_der)
    >>> for state in resumed:
    ...     pass
    >>> print(state.x.round(4), state.message)
    [1. 1.] Converged: no component of the derivative is larger than 1e-05 in absolute value.
    """

    def __init__(
        self,
        x0: Any,
        f: Callable[..., Any],
        df: Any,
        opt_algo: Any,
        *,
        args: Any = (),
        max_iterations: int | None = None,
        max_evaluations: int | None = None,
        time_limit: float | None = None,
        target: float | None = None,
        cost_tolerance: float | None = None,
        step_tolerance: float | None = None,
        callback: Callable[..., Any] | None = None,
        progressbar: bool | str = False,
        verbose: bool | int = False,
        trace: bool = False,
        check_gradient: bool = False,
        hessp: Callable[..., Any] | None = None,
        mode: Any = None,
        **options: Any,
    ):
        structure, start = point("x0", x0)
        opt_algo = rule_of(opt_algo)
        options = check_rule(opt_algo, options, minimize_iterator, "x0, f and df", symbolic=False)
        if not (mode is None or isinstance(mode, str | Mode)):
            raise TypeError(f"mode is {mode!r}; pass a PyTensor mode or the name of one")
        size = sum(array.size for array in start)
        given = (max_iterations, max_evaluations, time_limit, target, cost_tolerance, step_tolerance)
        self.f, self.df, self.opt_algo = f, df, opt_algo
        self._limits = Limits.of(size, *given, options.get("ascent", False))
        label = steps.name_of(opt_algo)
        self._monitor = Monitor(label, self._limits.max_iterations, callback, progressbar, verbose, trace)
        self._check_gradient = check_flag("check_gradient", check_gradient)
        self._evaluator = evaluator_of(f, df, args, hessp, structure, start, mode)
        self._recipe = steps.Recipe(opt_algo, options, start, mode)
        self._running = False
        known = self._evaluator.at(start)
        self._position = Position(self._recipe.start(start), known, known)

    # Taking steps

    def __iter__(self) -> minimize_iterator:
        return self

    def __next__(self) -> minimize_iterator:
        """Take a step and return this object.

        Raises
        ------
        StopIteration
            If the minimization has ended. An iteration that finds this out and moves nothing does not count.
        """
        if self._running:
            raise RuntimeError("this minimization is in the middle of a step; f and df cannot take another one")
        self._running = True
        try:
            if self._position.ending is not None:
                raise StopIteration
            nit = self._position.nit
            self._position = self._moved_on(self._position)
            moved_on = self._position.nit != nit
            if moved_on:
                self._call_back()
            if self._position.ending is not None:
                self._monitor.close(lambda: self.message)
            if not moved_on:
                raise StopIteration
            return self
        except BaseException:
            self._monitor.pause()
            raise
        finally:
            self._running = False

    next = __next__

    def _moved_on(self, position: Position) -> Position:
        """What comes after `position`: an iteration later, or at its end."""
        began = time.perf_counter()
        if not position.begun:
            position = self._begin(position, began)
        if position.ending is None:
            ending = self._limits.exceeded(position.nit, self.nfev, position.seconds)
            position = self._iterated(position, began) if ending is None else position._replace(ending=ending)
        return position

    def _begin(self, position: Position, began: float) -> Position:
        """The cost and the derivative at the start."""
        start, evaluator = position.now, self._evaluator
        if self._check_gradient and position.nit == 0:
            comparison = compare(evaluator, start)
            if not comparison.agrees:
                raise ValueError(f"{comparison}; check f and df, or leave check_gradient out")
        evaluator.remember(start)
        cost, gradients = evaluator.evaluate(*start.point)
        ending = self._limits.reached(cost) if is_finite(start) else results.BAD_START
        position = position._replace(begun=True, ending=ending)
        if self._monitor.reads_rows and position.nit == 0:
            seconds = position.seconds + time.perf_counter() - began
            self._monitor.show(0, (cost, largest(gradients), 0.0, self.nfev, seconds), ending is not None)
        return position

    def _iterated(self, position: Position, began: float) -> Position:
        """One call of the rule, and what is to be said of it."""
        limits, evaluator, before = self._limits, self._evaluator, position.now
        step = self._recipe.take()
        try:
            values = step(position.values, evaluator)
        finally:
            self._recipe.give(step)
        roles = step.roles
        stopped = step.stop is not None and int(values[step.stop]) > 0
        if "reason" not in roles and (not is_finite(before) or became_nonfinite(position.values, values)):
            return position._replace(ending=results.NOT_FINITE, seconds=position.seconds + time.perf_counter() - began)

        now = evaluator.at([values[place] for place in step.parameters])
        moved = now.key != before.key
        if not moved:
            now = before
        elif now.cost is None and len(roles.get("cost", ())) == 1:
            now.cost = float(values[roles["cost"][0]])
        cost = evaluator.cost(now)
        best = now if moved and limits.is_better(cost, position.best.cost) else position.best
        nit = position.nit + (moved or not stopped)
        is_shown = self._monitor.reads_rows and nit > position.nit
        if is_shown:
            evaluator.gradients(now)
        seconds = position.seconds + time.perf_counter() - began

        ending = limits.reached(cost) if moved else None
        if ending is None and stopped:
            reason = max((int(values[place]) for place in roles.get("reason", ())), default=0)
            ending = results.of_reason(reason)
            if ending == results.CONVERGED and is_same(cost, evaluator.cost(best), now.point):
                best = now  # the one whose gradient meets the tolerance
        if ending is None and moved:
            ending = limits.settled(evaluator.cost(before), cost, before.point, now.point)
        if ending is None:
            ending = limits.exceeded(nit, self.nfev, seconds)
        if is_shown:
            row = (cost, largest(evaluator.gradients(now)), distance(now.point, before.point), self.nfev, seconds)
            self._monitor.show(nit, row, ending is not None)
        return Position(values, now, best, nit, seconds, True, ending)

    def _call_back(self) -> None:
        """Let the callback see the iteration, and end if it asks for that."""
        stop = self._monitor.call(self._intermediate, lambda: self.iterate)
        if stop is not None and self._position.ending is None:
            self._position = self._position._replace(ending=stop)

    # What can be seen

    @property
    def x(self) -> Any:
        return self._built(self._position.best.point)

    @x.setter
    def x(self, value: Any) -> None:
        if self._running:
            raise RuntimeError("this minimization is in the middle of a step; x cannot be set by f and df")
        structure, arrays = point("x", value)
        if structure != self._evaluator.structure:
            raise ValueError("x is put together in another way than x0; pass a point such as x0")
        for array, old in zip(arrays, self._position.now.point, strict=True):
            if array.shape != old.shape:
                raise ValueError(f"x has an array of shape {array.shape} where x0 has {old.shape}; pass a point as x0")
        arrays = [array.astype(old.dtype) for array, old in zip(arrays, self._position.now.point, strict=True)]
        values = list(self._position.values)
        with self._recipe.step() as step:
            for place, array in zip(step.parameters, arrays, strict=True):
                values[place] = array
            if step.stop is not None:
                values[step.stop] = np.zeros_like(values[step.stop])
        known = self._evaluator.at(arrays)
        self._position = self._position._replace(values=values, now=known, best=known, begun=False, ending=None)

    @property
    def iterate(self) -> Any:
        return self._built(self._position.now.point)

    @property
    def fun(self) -> float:
        return self._evaluator.cost(self._position.best)

    @property
    def jac(self) -> Any:
        best = self._position.best
        if best.gradients is None and not np.isfinite(self.fun):
            return self._built([np.full_like(array, np.nan) for array in best.point])
        return self._built(self._evaluator.gradients(best))

    @property
    def nit(self) -> int:
        return self._position.nit

    @property
    def nfev(self) -> int:
        return self._evaluator.nfev

    @property
    def njev(self) -> int:
        return self._evaluator.njev

    @property
    def nhev(self) -> int:
        return self._evaluator.nhev

    @property
    def status(self) -> int | None:
        ending = self._position.ending
        return None if ending is None else ending.status

    @property
    def success(self) -> bool:
        return self.status in (0, 5)

    @property
    def message(self) -> str:
        ending = self._position.ending
        if ending is None:
            return results.sentence(None)
        now = self._position.now
        return self._limits.explained(
            ending,
            rule=steps.name_of(self.opt_algo),
            cost=self._evaluator.cost(now),
            best=self._evaluator.cost(self._position.best),
            gradient=largest(now.gradients or self._evaluator.gradients(now)),
            tolerance=tolerance_of(self.opt_algo, self._recipe.options),
        )

    @property
    def result(self) -> OptimizeResult:
        jac, message = self.jac, self.message  # these may count a call
        facts = {"x": self.x, "fun": self.fun, "jac": jac, "iterate": self.iterate, **self._counts()}
        result = results.made(self._position.ending, message, **facts)
        inverse = self._inverse_hessian()
        if inverse is not None:
            result["hess_inv"] = inverse
        if self._monitor.trace:
            result["trace"] = self._monitor.traced()
        return result

    def _inverse_hessian(self) -> Any:
        """What the rule knows of the inverse of the matrix of second derivatives, or None."""
        with self._recipe.step() as step:
            return step.read(inverse_hessian, self._position.values)

    def _intermediate(self) -> OptimizeResult:
        """The result as a callback sees it: of the iterate."""
        now = self._position.now
        fun, jac = self._evaluator.cost(now), self._built(self._evaluator.gradients(now))
        facts = {"x": self.iterate, "fun": fun, "jac": jac, "iterate": self.iterate}
        return results.made(self._position.ending, self.message, **facts, **self._counts())

    def _counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("nit", "nfev", "njev", "nhev")}

    def _built(self, arrays: Sequence[np.ndarray]) -> Any:
        return self._evaluator.structure.build([array.copy() for array in arrays])

    def __repr__(self) -> str:
        ending = self._position.ending
        state = "not finished" if ending is None else results.STATUSES[ending.status]
        return f"<minimize_iterator by {steps.name_of(self.opt_algo)}, {self.nit} iterations: {state}>"

    # Its file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": False}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that is needed to go on to the file `path`, but for `f`, `df` and other functions.

        The file is NumPy's ``.npz`` without pickled objects. At all times it is the old file or the new one.

        Raises
        ------
        TypeError
            If the structure of the point has named tuples, or keys that are neither strings nor integers.
        """
        position = self._position
        description = {
            "rule": public_name(self.opt_algo),
            "options": {
                name: option.item() if isinstance(option, np.generic) else option
                for name, option in self._recipe.options.items()
                if is_plain(option)
            },
            "others": [name for name, option in self._recipe.options.items() if not is_plain(option)],
            "driver": {name: value for name, value in asdict(self._limits).items() if name != "ascent"}
            | {"trace": self._monitor.trace},
            "mode": self._recipe.mode if isinstance(self._recipe.mode, str) else None,
            "structure": self._evaluator.structure.described(),
            "counts": self._counts(),
            "seconds": position.seconds,
            "begun": position.begun,
            "ending": position.ending,
        }
        arrays = {"description": np.array(json.dumps(description))}
        with self._recipe.step() as step:
            names = step.names
        arrays |= {f"values/{n}": state.as_array(v) for n, v in zip(names, position.values, strict=True)}
        for name, known in (("now", position.now), ("best", position.best)):
            arrays |= {f"{name}/point/{i}": array for i, array in enumerate(known.point)}
            arrays |= {f"{name}/gradient/{i}": array for i, array in enumerate(known.gradients or ())}
            if known.cost is not None:
                arrays[f"{name}/cost"] = np.array(known.cost)
        if self._monitor.trace:
            arrays["trace"] = np.array(self._monitor.rows).reshape(-1, len(TRACED))
        state.write(path, arrays)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], f: Callable[..., Any], df: Any, opt_algo: Any = None, **kwargs: Any
    ) -> minimize_iterator:
        """The minimization that was saved to the file `path`.

        It goes on exactly as the saved one would have gone on, bit for bit.

        Parameters
        ----------
        path : str or path
        f, df
            As for the saved one.
        opt_algo : callable or str, optional
            Needed if the rule is none of this package's own.
        **kwargs
            What the file does not hold: `args`, `hessp`, `callback`, `progressbar`, `verbose`, a mode that is no name,
            and options that are no numbers or names. Others take the place of what it holds, for instance
            `max_iterations`.

        Raises
        ------
        ValueError
            If the file was not written by `save`, or holds another state than the rule has with these options.
        TypeError
            If an argument is needed that the file does not hold; the message names it.
        """
        arrays = state.read(path)
        try:
            description = json.loads(arrays["description"].item())
            structure = PyTree.from_description(description["structure"])
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} was not written by minimize_iterator.save") from error
        if opt_algo is None:
            opt_algo = own_rule(description["rule"])
        elif public_name(rule_of(opt_algo)) != description["rule"]:
            saved = description["rule"] or "a rule that is none of this package's own"
            raise ValueError(f"{path} was saved by {saved}, not by {steps.name_of(opt_algo)}; pass the same rule")
        missing = [name for name in description["others"] if name not in kwargs]
        if opt_algo is None or missing:
            names = [*(["opt_algo"] if opt_algo is None else []), *missing]
            raise TypeError(f"{path} does not hold {', '.join(names)}; pass the same as for the minimization saved")
        points = {name: [arrays[e] for e in entries(arrays, f"{name}/point/")] for name in ("now", "best")}
        kwargs = {"mode": description["mode"], **description["driver"], **description["options"], **kwargs}
        loaded = cls(structure.build(points["now"]), f, df, opt_algo, **kwargs)

        with loaded._recipe.step() as step:
            here = {f"values/{n}": v for n, v in zip(step.names, loaded._position.values, strict=True)}
        there = {name: array for name, array in arrays.items() if name.startswith("values/")}
        wrong = state.differences(here, there)
        if wrong:
            raise ValueError(f"{path} holds another state than the rule has with these options: " + "; ".join(wrong))
        loaded._restore(arrays, description, points, [state.restored(v, there[n]) for n, v in here.items()])
        return loaded

    def _restore(self, arrays: Mapping[str, np.ndarray], description: Any, points: Any, values: list[Any]) -> None:
        evaluator = self._evaluator
        for name in ("nfev", "njev", "nhev"):
            setattr(evaluator, name, description["counts"][name])
        known = {}
        for name in ("best", "now"):
            known[name] = evaluator.at(points[name])
            if f"{name}/cost" in arrays:
                known[name].cost = float(arrays[f"{name}/cost"])
            known[name].gradients = [arrays[e] for e in entries(arrays, f"{name}/gradient/")] or None
        if "trace" in arrays:
            self._monitor.rows = [tuple(map(float, row)) for row in arrays["trace"]]
        ending = description["ending"]
        self._position = Position(
            values,
            known["now"],
            known["best"],
            description["counts"]["nit"],
            description["seconds"],
            description["begun"],
            None if ending is None else Ending(*ending),
        )
        # A limit that is no longer reached is none.
        if ending is not None and self._position.ending in (results.ITERATIONS, results.EVALUATIONS, results.TIME):
            exceeded = self._limits.exceeded(self.nit, self.nfev, self._position.seconds)
            self._position = self._position._replace(ending=exceeded)


def minimize(
    x0: Any, f: Callable[..., Any], df: Any, opt_algo: Any, *, full_output: bool = False, **kwargs: Any
) -> Any:
    """A point that minimizes the function `f` with derivative `df`.

    Parameters
    ----------
    x0, f, df, opt_algo, **kwargs
        As for `minimize_iterator`.
    full_output : bool
        Whether to return the `OptimizeResult`, which says how good the point is and why it ended there.

    Returns
    -------
    as `x0`, or OptimizeResult
        The best point with a finite cost that was seen.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said at `minimize_iterator`; the message names it. What `f`, `df` and a callback raise
        comes out as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from optapi import lbfgs, minimize
    >>> minimize(np.zeros(2), lambda x: np.sum((x - 3) ** 2), lambda x: 2 * (x - 3), lbfgs)
    array([3., 3.])
    """
    check_flag("full_output", full_output)
    iterator = minimize_iterator(x0, f, df, opt_algo, **kwargs)
    for _ in iterator:
        pass
    return iterator.result if full_output else iterator.x


def is_plain(option: Any) -> bool:
    """Whether an option of a rule is a number, a name or nothing, which JSON brings back as it is."""
    return option is None or isinstance(option, bool | int | float | str | np.bool_ | np.integer | np.floating)


def entries(arrays: Mapping[str, np.ndarray], prefix: str) -> list[str]:
    """The names in `arrays` that are `prefix` and a number, in order."""
    return [name for name in (f"{prefix}{i}" for i in range(len(arrays))) if name in arrays]


def is_finite(known: Known) -> bool:
    """Whether the cost and the gradients, as far as they are known, are finite."""
    arrays = [*(known.gradients or ()), *(() if known.cost is None else (known.cost,))]
    return all(np.isfinite(array).all() for array in arrays)


def became_nonfinite(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether a value that was finite no longer is."""
    return any(
        getattr(new, "dtype", None) is not None
        and new.dtype.kind == "f"
        and not np.isfinite(new).all()
        and bool(np.any(np.isfinite(old) & ~np.isfinite(new)))
        for old, new in zip(before, after, strict=True)
    )
