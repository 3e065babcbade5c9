"""Drivers: minimizations of NumPy functions, whole or step by step."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import pytensor.tensor as pt

from ..checks import as_numbers, check_flag, check_start_first, warn
from ..feasible import limits, put_inside
from ..files import refusing
from ..hints import hinted
from ..pytree import PyTree, point, spread
from ..state import is_names
from ..typing import CompileMode, Derivative, OptAlgo, Tree
from .constraint_functions import constraint_functions
from .differences import is_found
from .evaluator import Evaluation, evaluator_of, kinds_of
from .gradient_check import Comparison, along, compare
from .on_manifolds import OnManifolds
from .options import check_kind_of_mode, check_rule, name_of, option_of, options_of, own_rule, public_name, rule_of
from .oracle_program import OracleProgram
from .penalties import NAMES, Penalties, is_penalty
from .progress import Checkpoint, Monitor
from .run import LIMITS, Run, entries, read
from .termination import Ending, Termination


# The limits of a minimization, as its file has them.
LIMITED = [field.name for field in fields(Termination) if field.name != "ascent"]


# With more components, general constraints go to a rule that forms no matrix.
DENSE = 300
BY_DIFFERENCES = "That may be all that differences tell: pass df, or df='3-point', or raise the tolerance."


class minimize_iterator(Run):
    r"""A minimization that takes a step at each ``next``, and can be looked at, changed, saved and resumed in between.

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
    df : callable, True, "2-point", "3-point", "cs" or None
        ``df(x, *args)``, the derivative, of the shape of `x0`; called once for each point where the cost is finite. If
        True, `f` returns the pair of the cost and the derivative. With the name of a scheme it is by forward, central
        or complex differences, whose calls of `f` count; see Notes. If None, `f` is tried with PyTensor variables:
        where it builds a scalar of them, that is differentiated; else it is ``"2-point"``, with an
        `OptimizationWarning`.
    opt_algo : callable or str, optional
        A rule, for instance `optapi.lbfgs`, or its name; by default ``"lbfgs"``, with `constraints` ``"sqp"`` for up
        to 300 components and ``"augmented_lagrangian"`` for more.
    args : tuple
        Further arguments of `f`, `df` and `hessp`.
    max_iterations : int, optional
        By default 15000 for a rule that searches, which knows when it has finished; for others 200 for each component
        of `x0`, at least 1000 and at most 15000.
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
    checkpoint : str, path or Checkpoint, optional
        A file to save to, as `save` does, after each 100 iterations and at the end; `load` goes on from there. For
        other intervals, and to keep more than the last, see `Checkpoint`.
    check_gradient : bool
        Whether to compare `df` with differences of `f` first; a ValueError says where they differ, see
        `optapi.check_gradient`.
    hessp : callable, optional
        ``hessp(x, v, *args)``, the product of the matrix of second derivatives at `x` with `v`. By default it is a
        central difference of `df`. Of use to rules that need such products.
    workers : int or callable, optional
        Where `f` is evaluated for differences: in so many processes, -1 for one for each processor, or by a function
        such as `map`, for instance the `map` of an executor. `f` then must be such as pickle takes.
    mode : PyTensor mode or str, optional
        How the rule is compiled. By default it is written out in Python, which is ready at once; ``"NUMBA"`` takes half
        a minute, and is faster where `f` costs next to nothing.
    **options
        Options of the rule. Where the rule's own `tolerance` is None by default, it is 1e-5 here. An `x_scale` is put
        together as `x0` is, unless it is a number or a name. `bounds`, of a rule that takes them, are too: of a vector
        a pair ``(low, high)`` for each component or SciPy's ``Bounds``, of another array a pair of numbers or arrays,
        of a dictionary those of some of its keys; or one pair of numbers for all. None is no bound. `x0` is put inside,
        and no step leads outside. `constraints`, of a rule that takes them, are one or a list of SciPy's
        ``LinearConstraint``, ``NonlinearConstraint`` and dictionaries, triples ``(function, low, high)`` and pairs
        ``(function, value)``; a Jacobian that is missing is found as the derivative of `f` is if `df` is None. `l1`,
        `prox` and `manifold`, of rules that take them, are put together as `x0` too, or one for all; a dictionary need
        not have all keys.

    Attributes
    ----------
    x : as `x0`
        The best point with a finite cost that was seen, the current best estimate of the minimum; a copy. Setting it
        moves the iterate, inside of the bounds or on the manifold, and what was seen before no longer counts.
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

    A derivative by ``"2-point"`` takes a call of `f` for each component and has half of the digits of the cost,
    ``"3-point"`` two calls and two thirds, ``"cs"`` one call with complex numbers and all. The step is
    :math:`\epsilon^{1/2}`, or :math:`\epsilon^{1/3}`, times the size of the component, with the precision of its dtype.
    Each 20th derivative by ``"2-point"`` is compared with ``"3-point"``, which is taken from where the two differ.
    If values near the start show that `f` is noisier than rounding, an `OptimizationWarning` says so, and the step
    follows the noise, as Moré and Wild (2012) have it.

    An `f` that is tried with PyTensor variables is called twice more with arrays, to see that both agree.

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

    @hinted
    def __init__(self, x0: Tree, f: Callable[..., Any], df: Derivative = None, opt_algo: OptAlgo | None = None, *,
                 args: Any = (),
                 max_iterations: int | None = None, max_evaluations: int | None = None, time_limit: float | None = None,
                 target: float | None = None, cost_tolerance: float | None = None, step_tolerance: float | None = None,
                 callback: Callable[..., Any] | None = None, progressbar: bool | str = False,
                 verbose: bool | int = False, trace: bool = False,
                 checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
                 check_gradient: bool = False, hessp: Callable[..., Any] | None = None,
                 workers: int | Callable[..., Any] | None = None, mode: CompileMode = None,
                 **options: Any):  # fmt: skip
        check_start_first("minimize(x0, f)", x0, f)
        structure, start = point("x0", x0)
        if df is None and getattr(f, "returns_gradient", False):  # such as Partitions
            df, hessp = True, hessp or f.product  # type: ignore[attr-defined]
        constraints = options.pop("constraints", None)
        if constraints is None or (isinstance(constraints, list | tuple) and not constraints):
            constraints = None
        else:
            options["constraints"] = constraints
        if opt_algo is None:
            size = sum(array.size for array in start)
            opt_algo = "lbfgs" if constraints is None else "sqp" if size <= DENSE else "augmented_lagrangian"
        rule = rule_of(opt_algo)
        name = public_name(df) if callable(df) else df if isinstance(df, str) else None
        if own_rule(name) is not None:
            raise TypeError(f"df is the rule {name}; pass it as opt_algo={name!r}")
        options = check_rule(rule, options, minimize_iterator, "x0, f and df", symbolic=False)
        if "x_scale" in options:
            options["x_scale"] = by_leaf(options["x_scale"], structure)
        check_kind_of_mode(mode)
        bounds = limits(options.get("bounds"), structure, start)
        if "bounds" in options:
            options["bounds"], start = bounds, put_inside(start, bounds)
        for option in NAMES:
            if options.get(option) is not None and is_penalty(rule, option):
                options[option] = entries_by_leaf(option, options[option], structure)
        if options.get("manifold") is not None:
            options["manifold"] = entries_by_leaf("manifold", options["manifold"], structure)
        given = (max_iterations, max_evaluations, time_limit, target, cost_tolerance, step_tolerance)
        self.f, self.df = f, df
        self.opt_algo: Any = rule
        termination = Termination.of(option_of(rule, options, "ascent"), *given)
        monitor = Monitor(name_of(rule), callback, progressbar, verbose, trace, checkpoint)
        if checkpoint is not None:
            structure.described()
        self._check_gradient = check_flag("check_gradient", check_gradient)
        on = OnManifolds.of(rule, options, parameters_of(start))
        start = start if on is None else on.project(start)
        evaluator = evaluator_of(f, df, args, hessp, structure, start, mode, workers)
        evaluator.limits, evaluator.manifolds = bounds, on
        if constraints is not None:
            evaluator.constraints = constraint_functions(constraints, structure, start, bounds, mode)
            options["constraints"] = evaluator.constraints.limits
        evaluator.penalties = Penalties.of(rule, options, parameters_of(start))
        program = OracleProgram(rule, options, kinds_of(start), mode)
        self._running = False
        self._compared: tuple[Evaluation, Comparison | None] | None = None
        super().__init__(program, evaluator, termination, monitor, program.start(start))

    def _why(self) -> str:
        if self._evaluator.differenced is not None:
            return BY_DIFFERENCES
        # The run is over, so there is time to compare the derivative with the cost, when it is first asked for.
        now = self._position.now
        if self._compared is None or self._compared[0] is not now:
            try:
                self._compared = now, along(self._evaluator, now)
            except Exception:  # of f, beyond the points that it was asked for
                self._compared = now, None
        comparison = self._compared[1]
        if comparison is None or comparison.agrees:
            return super()._why()
        return (
            f"The derivative does not fit the cost: along itself it is {comparison.given:.6g}, and differences of f "
            f"are {comparison.difference:.6g}. Correct it; optapi.check_gradient names the worst component."
        )

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
                self._evaluator.close()
                raise StopIteration
            if self._check_gradient and not self._position.begun and self.nit == 0:
                comparison = compare(self._evaluator, self._position.now)
                if not comparison.agrees:
                    raise ValueError(f"{comparison}; check f and df, or leave check_gradient out")
            stepped = self._step()
            if self._position.ending is not None:
                self._evaluator.close()
            if not stepped:
                raise StopIteration
            return self
        except BaseException:
            self._monitor.pause()
            raise
        finally:
            self._running = False

    next = __next__

    @property
    def x(self) -> Any:
        return super().x

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
        arrays, on = put_inside(arrays, self._evaluator.limits), self._evaluator.manifolds
        arrays = arrays if on is None else on.project(arrays)
        values, places = list(self._position.values), self._program.places
        for place, array in zip(places.parameters, arrays, strict=True):
            values[place] = array
        if places.stop is not None:
            values[places.stop] = np.zeros_like(values[places.stop])
        known = self._evaluator.at(arrays)
        self._position = self._position._replace(values=values, now=known, best=known, begun=False, ending=None)

    def __repr__(self) -> str:
        return f"<minimize_iterator by {name_of(self.opt_algo)}, {self.nit} iterations: {self._state()}>"

    # Its file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": False}

    KIND = "minimize_iterator"
    OWN: ClassVar = {
        "options": lambda value: isinstance(value, dict) and all(map(is_plain, value.values())),
        "others": is_names,
        "driver": lambda value: isinstance(value, dict) and set(value) == {*LIMITED, "trace"},
        "mode": lambda value: value is None or isinstance(value, str),
        "differences": lambda value: value is None or is_found(value),
        "structure": lambda value: PyTree.from_description(value).described() == value,
    }

    def _own(self) -> dict[str, Any]:
        program, termination, differences = self._program, self._termination, self._evaluator.differenced
        return {
            "options": {
                name: option.item() if isinstance(option, np.generic) else option
                for name, option in program.options.items()
                if is_plain(option)
            },
            "others": [name for name, option in program.options.items() if not is_plain(option)],
            "driver": {name: getattr(termination, name) for name in LIMITED} | {"trace": self._monitor.trace},
            "mode": program.mode if isinstance(program.mode, str) else None,
            "differences": differences.found() if differences is not None else None,
            "structure": self._evaluator.structure.described(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that is needed to go on to the file `path`, but for `f`, `df` and other functions.

        The file is such as `optapi.save` writes: at all times the old file or the new one, whole.

        Raises
        ------
        TypeError
            If the structure of the point has named tuples, or keys that are neither strings nor integers.
        OSError
            If the file cannot be written. The old one is as it was then.
        """
        self._save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], f: Callable[..., Any], df: Derivative = None,
             opt_algo: OptAlgo | None = None, **kwargs: Any) -> minimize_iterator:  # fmt: skip
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
            What the file does not hold: `args`, `hessp`, `callback`, `progressbar`, `verbose`, `checkpoint`, a mode
            that is no name, and options that are no numbers or names. Others take the place of what it holds, for
            instance `max_iterations`.

        Raises
        ------
        ValueError
            If `save` did not write the file, or in another version of the format; if it is damaged; or if it holds
            another state than the rule has with these options.
        FileNotFoundError, OSError
            If there is no such file, or it cannot be read.
        TypeError
            If an argument is needed that the file does not hold; the message names it.
        """
        rule: Any = None if opt_algo is None else rule_of(opt_algo)
        description, arrays = read(path, cls, rule)
        if rule is None and description["rule"] is not None:
            rule = own_rule(description["rule"])
            if rule is None:
                raise ValueError(f"{path} was saved by {description['rule']}, which this optapi does not have")
        options, others = description["options"], description["others"]
        missing = [*(["opt_algo"] if rule is None else []), *(name for name in others if name not in kwargs)]
        saved = {**description["driver"], **options, "mode": description["mode"]}
        with refusing(path):
            leaves = entries(arrays, "best/point/")  # is finite, which the iterate may not be
            x0 = PyTree.from_description(description["structure"]).build(leaves)
            structure, start = point("x0", x0)
            if structure.described() != description["structure"] or len(start) != len(leaves):
                raise ValueError("its structure is not that of its point")
            Termination.of(False, *(saved[name] for name in LIMITED))
            if check_flag("trace", saved["trace"]) != ("trace" in arrays):
                raise ValueError("its trace is missing or wrong")
            known, keywords = (None, True) if rule is None else options_of(rule)
            unknown = [] if known is None or keywords else [name for name in (*options, *others) if name not in known]
            if unknown:
                raise ValueError(f"it has the options {', '.join(unknown)}, which {name_of(rule)} does not take")
        if missing:
            raise TypeError(f"{path} does not hold {', '.join(missing)}; pass the same as for the minimization saved")
        try:
            loaded = cls(x0, f, df, rule, **{**saved, **kwargs})
        except Exception:
            if not others:
                with refusing(path):  # if what the file says is no better alone, it is the fault of the file
                    OracleProgram(rule, options, kinds_of(start), saved["mode"]).start(start)
            raise
        found, differences = description["differences"], loaded._evaluator.differenced
        if (found is None) != (differences is None):
            taken = "a derivative" if found is None else "differences of f"
            raise ValueError(f"{path} was saved with {taken} in the place of df; pass the same df")
        if differences is not None:
            with refusing(path):
                differences.restore(found, sum(array.size for array in start))
        loaded._restore(path, description, arrays)
        position = loaded._position
        # The limits and the target may be others now.
        cost = loaded._evaluator.cost
        reached = position.ending == Ending.TARGET and loaded._termination.is_reached(cost(position.now))
        if position.ending is None or (position.ending in (*LIMITS, Ending.TARGET) and not reached):
            loaded._position = position._replace(
                ending=loaded._exceeded(position.values, position.nit, position.seconds)
            )
        return loaded


@hinted
def minimize(
    x0: Tree, f: Callable[..., Any], df: Derivative = None, opt_algo: OptAlgo | None = None, *,
    full_output: bool = False, **kwargs: Any
) -> Any:  # fmt: skip
    """A point that minimizes the function `f`.

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

    Warns
    -----
    OptimizationWarning
        If only the point is returned and the status is not success, with the message; and as said at
        `minimize_iterator` of `df` and noise.

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
    >>> minimize(np.zeros(2), lambda x: ((x - 3) ** 2).sum())
    array([3., 3.])
    >>> minimize(np.zeros(2), lambda x: np.linalg.norm(x - 3) ** 2, "2-point").round(6)
    array([3., 3.])
    """
    check_flag("full_output", full_output)
    iterator = minimize_iterator(x0, f, df, opt_algo, **kwargs)
    try:
        for _ in iterator:
            pass
    finally:
        iterator._evaluator.close()
    if full_output:
        return iterator.result
    if not iterator.success:
        warn(iterator.message)
    return iterator.x


def by_leaf(x_scale: Any, structure: PyTree) -> Any:
    """`x_scale`, a name, a number or a pytree of this structure, as a rule takes it: copies of the leaves as a list."""
    if isinstance(x_scale, str | float | int | np.number | None):
        return x_scale
    return [as_numbers(place, leaf).copy() for place, leaf in structure.leaves("x_scale", x_scale, "x0")]


def entries_by_leaf(name: str, given: Any, structure: PyTree) -> list[Any]:
    """The option `given`, a pytree of this structure or one for all, as a rule takes it: a list with one for each."""
    if structure.kind is None and isinstance(given, list | tuple):
        given = as_numbers(name, given)  # of each component of a vector
    return [
        entry for _, entry in spread(name, given, structure, lambda one: not isinstance(one, list | tuple | Mapping))
    ]


def parameters_of(start: Sequence[np.ndarray]) -> list[Any]:
    """Variables for points such as `start`."""
    kinds = kinds_of(start)
    names = [f"x{position}" if len(kinds) > 1 else "x" for position in range(len(kinds))]
    return [
        pt.tensor(name, shape=shape, dtype=np.dtype(dtype).name)
        for name, (shape, dtype) in zip(names, kinds, strict=True)
    ]


def is_plain(option: object) -> bool:
    """Whether an option of a rule is a number, a name or nothing, which JSON brings back as it is."""
    return option is None or isinstance(option, bool | int | float | str | np.bool_ | np.integer | np.floating)
