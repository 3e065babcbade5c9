"""Compiled minimizations: a rule run to its end inside of one compiled function, from one start or from many."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pytensor.graph.basic import Constant, Variable

from ..checks import as_numbers, called, check_choice, check_count, check_flag, check_shared, filtered
from ..engines import built, is_engine, mapped, opened, workers_of
from ..feasible import Box, boxes, put_inside
from ..graph.compat import assign
from ..hints import hinted
from ..pytree import NamedList, PyTree, largest
from ..state import labels
from ..typing import Bounds, CompileMode, OptAlgo, Updates, Variables
from .evaluator import Evaluator
from .loop_program import LoopProgram, Problem
from .members import Data, Ends, Members, pieces, shown, worked
from .options import check_rule, name_of, option_of, rule_of
from .paths import CompiledPaths, Paths
from .progress import Checkpoint, Monitor, compiling
from .results import BatchResult, OptimizeResult, summed_up
from .run import Position, Run, all_together, no_second_derivatives, read
from .termination import Termination


RUNNING = (
    "this minimization is running; its callback cannot begin or load another one, nor restart it, and another thread "
    "needs a minimizer of its own, made by compile_minimizer"
)


@hinted
def compile_minimizer(parameters: Variables, cost: Variable | None = None, opt_algo: OptAlgo | None = None, *,
                      inputs: Sequence[Any] = (), updates: Updates | None = None, max_iterations: int | None = None,
                      max_evaluations: int | None = None, time_limit: float | None = None, target: float | None = None,
                      cost_tolerance: float | None = None, step_tolerance: float | None = None,
                      callback: Callable[..., Any] | None = None, progressbar: bool | str = False,
                      verbose: bool | int = False, trace: bool = False,
                      checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
                      mode: CompileMode = None, **options: Any) -> CompiledMinimizer:  # fmt: skip
    """A function that minimizes `cost`, whole minimizations inside of one compiled function.

    ::

        run = compile_minimizer([mu, log_sigma], -logp, "lbfgs")
        result = run()

    Parameters
    ----------
    parameters : list of shared variables
        What is optimized. A minimization starts from their values, and leaves the result in them.
    cost : scalar variable, optional
        What is minimized; may depend on `inputs`, on other shared variables, and draw random numbers. Not needed with
        ``residuals=``, whose cost it is; another one is a ValueError at the first run, which has the values of both.
    opt_algo : callable or str, optional
        A rule, or the name of one of optapi's, by default ``"lbfgs"``, with ``residuals=`` ``"levenberg_marquardt"``,
        and with ``constraints=`` ``"sqp"``.
    inputs : list of variables
        The inputs of the cost, such as data. They are the arguments of the function, and the same for all of a
        minimization; so a rule that searches may use what it knows of a point (its option `exact` is True).
    updates : dict, optional
        What else is updated at each iteration: needed for the random generators that the cost draws from,
        ``{generator: next_generator}``. Those variables go on from the values that they have.
    max_iterations : int, optional
        The largest number of iterations of one call; by default as for `minimize_iterator`.
    max_evaluations, target, cost_tolerance, step_tolerance, callback, trace
        As for `minimize_iterator`; they look at each iteration, so that each is a call of the compiled function.
    time_limit, progressbar, verbose
        As for `minimize_iterator`; they look from time to time, or at each of so many iterations. The time limit is
        that of one call. A progress bar also shows how long numba has compiled.
    checkpoint : str, path or Checkpoint, optional
        As for `minimize_iterator`; `CompiledMinimizer.load` and `resume` go on from such a file.
    mode : PyTensor mode or str, optional
        How it is compiled, by default as PyTensor does: ``"NUMBA"`` takes up to half a minute for a rule that has not
        been compiled before, which a line on stderr says, and seconds for each new cost, as long as the rule searches,
        takes no general constraints or penalties, and has no options that are variables; ``"JAX"`` takes seconds;
        ``"CVM"`` is C; ``optapi.PYTHON`` is ready at once and slow.
    **options
        Options of the rule. Where its own `tolerance` is None by default, it is 1e-5 here.

    Returns
    -------
    CompiledMinimizer

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here, or the mode cannot run it; the message says what to do.

    Examples
    --------
    >>> import numpy as np, pytensor, pytensor.tensor as pt
    >>> import optapi
    >>> p = pytensor.shared(np.zeros(2), name="p")
    >>> run = optapi.compile_minimizer([p], pt.sum((p - 3) ** 2), "lbfgs", mode=optapi.PYTHON)
    >>> run().x
    [array([3., 3.])]
    """
    if opt_algo is None:
        default = "sqp" if options.get("constraints") else "lbfgs"
        opt_algo = default if options.get("residuals") is None else "levenberg_marquardt"
    rule = rule_of(opt_algo)
    options = check_rule(rule, options, compile_minimizer, "parameters, cost and updates", symbolic=True)
    problem = Problem.of(parameters, cost, rule, options, inputs, updates, mode)
    given = (max_iterations, max_evaluations, time_limit, target, cost_tolerance, step_tolerance)
    termination = Termination.of(option_of(rule, options, "ascent"), *given)
    monitor = Monitor(name_of(rule), callback, progressbar, verbose, trace, checkpoint)
    return CompiledMinimizer(problem, termination, monitor)


class CompiledRun(Run):
    """A run of a compiled minimization.

    Attributes
    ----------
    inputs : str or None
        The `fingerprint` of the inputs.
    """

    KIND = "compiled minimizer"
    OWN: ClassVar = {"inputs": lambda value: isinstance(value, str)}
    inputs: str | None = None

    def _own(self) -> dict[str, Any]:
        return {"inputs": self.inputs}

    def _taken_up(self, position: Position, counts: tuple[int, int, int], error: Exception | None) -> OptimizeResult:
        """The result of this run, which another process has taken to its end."""
        self._position, self._evaluator.counts = position, counts
        return self._result(position.best) if error is None else self._failed(error)


class Sent:
    """A method of a minimizer as it is sent to other processes, each of which compiles the minimizer once.

    The values of the parameters travel beside the graph, since they change, and it is the same with others. All is
    pickled here, since what has come through a network otherwise may lie at any address and must not be written to.
    """

    def __init__(self, minimizer: CompiledMinimizer, method: str, *arguments: Any):
        parameters = minimizer.parameters
        held = {id(p.get_value(borrow=True)): place for place, p in enumerate(parameters)}
        self.home = minimizer._home

        class Pickler(pickle.Pickler):
            def persistent_id(self, thing: Any) -> int | None:
                return held.get(id(thing))

        file = BytesIO()
        try:
            Pickler(file).dump((minimizer._problem, minimizer._termination, minimizer._monitor.label))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            error.add_note(
                "an engine has other processes; the rule, its options and the cost have to be such as pickle takes"
            )
            raise
        self.graph = file.getvalue()
        self.digest = sha256(self.graph + pickle.dumps(self.home)).hexdigest()
        self.method, self.arguments = method, pickle.dumps(arguments)

    def by(self, engine: Any, blocks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the method makes of the `blocks`, which are arguments, in their order."""
        for result in mapped(engine, self, list(map(pickle.dumps, blocks))):
            yield pickle.loads(result)

    def __call__(self, block: bytes) -> bytes:
        minimizer = built(self.digest, self._built)
        return pickle.dumps(getattr(minimizer, self.method)(*pickle.loads(block), *pickle.loads(self.arguments)))

    def _built(self) -> tuple[CompiledMinimizer, bool]:
        home = self.home

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, place: int) -> np.ndarray:
                return home[place].copy()

        problem, termination, label = Unpickler(BytesIO(self.graph)).load()
        minimizer = CompiledMinimizer(problem, termination, Monitor(label))
        return minimizer, minimizer._program.is_free


class CompiledMinimizer:
    """A compiled minimization; `compile_minimizer` makes it.

    Called with the values of the inputs, ``run(*inputs)``, by place or by name, it minimizes from the values that the
    parameters have now, the rule as new, and returns an `OptimizeResult`, in which points are lists of arrays, one for
    each parameter, found by position or by the parameter's name. The parameters then hold its `x`.

    `x` is the point that the rule holds at the end, if the rule reports the cost there, as all do that search: it is
    then the best but where a search lets the cost rise. Of the other rules it is the best finite point seen, and of a
    random cost the last one. An evaluation is one of the cost with its gradients, so `nfev` and `njev` are the same
    number. A rule that does not search takes one for the start and one for each iteration that moves the point.

    Attributes
    ----------
    parameters : list of shared variables
    cost : scalar variable
    opt_algo : callable
        The rule.

    Notes
    -----
    An interrupt, and what a callback, an `Oracle` or an Op of the cost raises, comes out as it is. The parameters then
    hold the best finite point so far, and `resume` goes on after the last iteration that has ended. Where nobody looks
    on, a call of the compiled function takes up to about half a second, and cannot be interrupted.

    An object runs one minimization at a time. While it runs, also in its callback and in other threads, to begin
    another, to restart and to load is a `RuntimeError`.

    Examples
    --------
    >>> p = pytensor.shared(np.array([5.0]), name="p")
    >>> run = optapi.compile_minimizer([p], pt.sum((p**2 - 4) ** 2), "lbfgs", mode=optapi.PYTHON)
    >>> run().x["p"].round(3)
    array([2.])
    >>> p.set_value(np.array([-1.0]))
    >>> run().x[0].round(3)
    array([-2.])
    """

    def __init__(self, problem: Problem, termination: Termination, monitor: Monitor):
        self._problem, self._termination, self._monitor = problem, termination, monitor
        with compiling(monitor.progressbar):
            self._program = LoopProgram(problem)
        self._home = [p.get_value(borrow=False) for p in problem.parameters]
        self._run: CompiledRun | None = None
        self._running = False
        self._compiled: dict[Any, Any] = {}
        names = labels(problem.parameters)
        self._structure = PyTree(partial(NamedList, names=names), tuple(range(len(names))), (PyTree(),) * len(names))

    @property
    def parameters(self) -> list[Any]:
        return list(self._problem.parameters)

    @property
    def cost(self) -> Any:
        return self._problem.cost

    @property
    def opt_algo(self) -> Any:
        return self._problem.rule

    def __call__(self, *inputs: Any, **named: Any) -> OptimizeResult:
        """Minimize from the values that the parameters have now."""
        self._check_idle()
        if not all(np.isfinite(p.get_value(borrow=True)).all() for p in self._problem.parameters):
            raise ValueError("the parameters have values that are not finite; start from finite ones, or restart()")
        checked = self._checked(inputs, named)
        if self._run is None:
            self._program.check_cost(checked)
        self._program.write_out()  # before the clock of a time limit begins
        self._monitor.begin()
        return self._go(self._new_run(None, self._monitor, checked), checked)

    def compile(self, *inputs: Any, **named: Any) -> None:
        """Compile now all that a minimization with these inputs needs, which changes nothing.

        Under numba and without inputs that is done when the object is made. JAX compiles for the shapes of the inputs.

        Parameters
        ----------
        *inputs, **named : arrays
            The inputs of the cost.
        """
        self._check_idle()
        checked = self._checked(inputs, named)
        self._program.check_cost(checked)
        run = self._new_run(None, self._monitor, checked)
        self._program.advance(run._position.values, run._evaluator, 0)

    def resume(self, *inputs: Any, **named: Any) -> OptimizeResult:
        """Go on where the last minimization has ended: at a limit, by its callback or by an interrupt.

        It goes on bit for bit as if it had not ended, and the limits count anew. The values of the parameters do not
        count.

        Parameters
        ----------
        *inputs, **named : arrays
            The same as before.

        Raises
        ------
        ValueError
            If there is nothing to resume, or the inputs are others.
        """
        self._check_idle()
        if self._run is None:
            raise ValueError("there is no minimization to resume; begin one by calling this object")
        values = self._checked(inputs, named)
        if fingerprint(values) != self._run.inputs:
            raise ValueError("the inputs are not those of the minimization to resume; begin a new one for others")
        return self._go(self._run, values, resumed=True)

    def restart(self) -> None:
        """Put the parameters back to the values that they had when this object was made."""
        self._check_idle()
        assign(self._problem.parameters, [value.copy() for value in self._home])
        self._run = None

    def _new_run(self, point: Any, monitor: Monitor, inputs: Sequence[Any] | None) -> CompiledRun:
        """A run from `point`, by default from the values that the parameters have now; without inputs, one to load."""
        limits = None if inputs is None else self._program.limits(inputs)
        values = self._program.start_at(point, limits)
        evaluator = Evaluator(self._program.evaluate, True, self._structure, tuple(inputs or ()))
        evaluator.limits, evaluator.penalties = limits, self._program.penalties
        evaluator.manifolds = self._program.manifolds
        evaluator.violated = self._program.violated
        return CompiledRun(self._program, evaluator, self._termination, monitor, values)

    def _go(self, run: CompiledRun, inputs: list[Any], resumed: bool = False) -> OptimizeResult:
        # No call stands between the test and the setting, or a second thread could pass.
        if self._running:
            raise RuntimeError(RUNNING)
        self._running = True
        try:
            if resumed:
                run._resume()
            run._evaluator.args = tuple(inputs)
            run._evaluator.limits = self._program.limits(inputs)
            # A digest, since the caller may change the arrays, or they may be large.
            self._run, run.inputs = run, fingerprint(inputs)
            run._to_end()
            result = run.result
            self._hold(run)
            return result
        except BaseException:
            self._hold(run)
            self._monitor.pause()
            raise
        finally:
            self._running = False
            run._evaluator.args = ()  # they may be large, and are given again to go on

    def _check_idle(self) -> None:
        if self._running:
            raise RuntimeError(RUNNING)

    def _hold(self, run: CompiledRun) -> None:
        """Let the parameters hold the best point of `run`, and other variables of the caller go on from there."""
        self._run, position = run, run._position
        best = dict(zip(self._program.places.parameters, position.best.point, strict=True))
        held = self._program.handed_back(position.values, best)
        assign(list(held), list(held.values()))

    def _checked(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """The values of the inputs, as the compiled function takes them."""
        given = zip(self._problem.inputs, self._placed(inputs, named), strict=True)
        # An array of JAX may lie on several devices, and stays there.
        stays = import_module("optapi.graph.jax").is_of_type if self._program.is_packed else lambda *_: False
        return [
            value if stays(value, variable.type) else filtered(variable.type, value, variable)
            for variable, value in given
        ]

    def _placed(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """What is given for the inputs, in their order."""
        wanted = self._problem.inputs
        if len(inputs) == len(wanted) and not named:
            return list(inputs)
        names, rest = ", ".join(str(v.name or v) for v in wanted), wanted[len(inputs) :]
        for name in named:
            if [v.name for v in rest].count(name) != 1:
                raise TypeError(f"no input is called {name!r} that is not given by its place; the inputs are {names}")
        if len(inputs) + len(named) != len(wanted):
            count = len(inputs) + len(named)
            raise TypeError(f"{count} inputs are given; pass {f'{len(wanted)}: {names}' if wanted else 'none'}")
        return [*inputs, *(named[v.name] for v in rest)]

    def __repr__(self) -> str:
        said = "not run" if self._run is None else self._run._state()
        return f"<compiled minimization by {name_of(self.opt_algo)}: {said}>"

    # Many starts

    def from_starts(self, starts: Sequence[ArrayLike] | Mapping[Any, ArrayLike], *inputs: Any, workers: Any = 1,
                    together: bool | None = None, **named: Any) -> list[OptimizeResult]:  # fmt: skip
        """Minimize from many starts.

        Parameters
        ----------
        starts : list of arrays, or dict
            For each parameter an array with one axis more, the first: a row for each start; of one parameter, the
            array alone; or a dictionary from parameters to such arrays, where the others start from their values now.
            `sample_starts` makes them.
        *inputs, **named : arrays
            The inputs, by place or by name; one that is called as another argument here by place.
        workers : int or engine
            How many threads; more than one need a mode that leaves Python alone, ``"NUMBA"`` or ``"JAX"``. Or an
            engine, as `optapi.distributed.Partitions` takes it: an executor of ``concurrent.futures``, a function that
            makes one, which is called again where a process is killed, or ``dask_engine(client)``.
        together : bool, optional
            Whether the minimizations go step by step together, as one batch; if False, each runs to its end, one after
            another. By default together where a step costs more than its arithmetic: in all modes but ``"NUMBA"``.

        Returns
        -------
        list of OptimizeResult
            The best first, by the cost at `x`; those that have none that is finite come last. Each has its `start`, the
            number of its row. The first has `hess_inv`, where the rule has one. The parameters then hold its `x`.
            Where the cost raises an exception, that start ends with status 3, the exception is its `error`, and the
            others go on.

        Raises
        ------
        Exception
            What the cost raises, if it does so from all starts.
        PartitionError
            If workers of an engine are lost again and again.

        Notes
        -----
        With each piece of work an engine's process gets the problem, by pickle, with the data that the cost reads; it
        compiles it once. The results are those of one process, to the bit if members run one after another.

        Callback, trace, table and checkpoint are for single minimizations and do not look here. A progress bar counts
        starts. Limits are those of each minimization; if they look at each iteration (all but `max_iterations` do),
        the minimizations run one after another. All see the same random draws.
        """
        if self._running:
            raise RuntimeError(RUNNING)
        self._running = True
        try:
            checked = self._checked(inputs, named)
            if self._run is None:
                self._program.check_cost(checked)
            return self._from_starts(self._rows(starts), checked, workers, together)
        finally:
            self._running = False

    def _from_starts(
        self, rows: list[np.ndarray], values: list[Any], workers: Any, together: bool | None
    ) -> list[OptimizeResult]:
        program, count = self._program, len(rows[0])
        runs = self._runs(rows, values)

        def row(block: list[OptimizeResult]) -> tuple[int, float, float, int]:
            return len(block), block[-1].fun, largest(block[-1].jac), block[-1].nfev

        def taken_up(block: list[CompiledRun], ends: list[Any]) -> list[OptimizeResult]:
            return [run._taken_up(*end) for run, end in zip(block, ends, strict=True)]

        with self._bar(count) as bar, self._engine(workers) as (engine, number):
            size, batched = self._pieces(count, number, together)
            call = self._batch(size, together) if batched and engine is None else None
            if batched and engine is None and call is None:
                size, batched = self._pieces(count, number, False)
            blocks = [range(begin, min(begin + size, count)) for begin in range(0, count, size)]
            parts = [runs[block.start : block.stop] for block in blocks]
            if engine is None:
                found = worked(lambda some: self._ended(some, size, call), parts, number)
            else:
                sent = Sent(self, "_ended_elsewhere", values, size if batched else None, together)
                starts = [([array[block.start : block.stop] for array in rows],) for block in blocks]
                found = map(taken_up, parts, sent.by(engine, starts))
            results = [result for block in shown(found, bar, row) for result in block]
        for number, result in enumerate(results):
            result["start"] = number
        errors = [result.error for result in results if "error" in result]
        if len(errors) == count:
            raise errors[0]

        def rank(result: OptimizeResult) -> tuple[float, float]:
            beyond = result.get("violation", 0.0)
            cost = program.sign * result.fun if np.isfinite(result.fun) else np.inf
            return beyond if beyond > program.feasibility else 0.0, cost

        ranked = sorted(results, key=rank)
        first = runs[ranked[0].start]
        inverse = program.inverse_hessian(first._position.values)
        if inverse is not None:
            ranked[0]["hess_inv"] = inverse
        bar.close(lambda: ranked[0].message)
        first._monitor, first._evaluator.args, first.inputs = self._monitor, (), fingerprint(values)
        self._hold(first)
        return ranked

    @contextmanager
    def _bar(self, count: int) -> Iterator[Monitor]:
        """What shows the progress of many minimizations."""
        bar = Monitor(self._monitor.label, progressbar=self._monitor.progressbar)
        bar.total = count
        try:
            yield bar
        except BaseException:
            bar.pause()
            raise

    def _runs(self, rows: list[np.ndarray], values: list[Any]) -> list[CompiledRun]:
        silent = Monitor(self._monitor.label)
        return [self._new_run(point, silent, values) for point in zip(*rows, strict=True)]

    def _ended(self, runs: list[CompiledRun], size: int, batched: Any) -> list[OptimizeResult]:
        """The results of `runs`, together if there is a function of so many."""
        if batched is not None:
            # If one raises, the batch does not tell which.
            with suppress(Exception):
                all_together(runs, size, batched)

        def ended(run: CompiledRun) -> OptimizeResult:
            try:
                run._to_end()
                return run._result(run._position.best)
            except Exception as error:
                return run._failed(error)

        return [ended(run) for run in runs]

    def _ended_elsewhere(
        self, rows: list[np.ndarray], values: list[Any], size: int | None, together: bool | None
    ) -> list[Any]:
        """How the runs of another process end that start from `rows`: what that takes up."""
        runs, call = self._runs(rows, values), None if size is None else self._batch(size, together)
        results = self._ended(runs, size or 1, call)
        return [
            (run._position, run._evaluator.counts, result.get("error"))
            for run, result in zip(runs, results, strict=True)
        ]

    def _pieces(self, count: int, workers: int, together: bool | None) -> tuple[int, bool]:
        """How many minimizations are one piece of work, and whether they go together, if they can."""
        cut = self._termination.looks
        if together is not None and check_flag("together", together) and cut:
            raise ValueError("together is True, but some of the limits look at each iteration; leave it out")
        # A batch pays where the overhead of a step is larger than its arithmetic.
        if together or (together is None and not cut and not self._program.is_fast and count > 1):
            return -(-count // workers), True  # the same for all, so that they have one function
        return max(1, count // (8 * workers)), False

    def _batch(self, size: int, together: bool | None) -> Any:
        """What takes so many minimizations further together, None if nothing does."""
        try:
            return self._program.batch(size)
        except (NotImplementedError, ValueError) as error:
            if together:
                raise ValueError("the cost cannot be a batch, at least in this mode; leave together out") from error
            return None

    @contextmanager
    def _engine(self, workers: Any) -> Iterator[tuple[Any, int]]:
        """The engine that stands for `workers`, None for threads of this process, and how many work at a time."""
        if is_engine(workers):
            with opened(workers, "workers") as engine:
                yield engine, workers_of(engine)
            return
        if check_count("workers", workers) > 1 and not self._program.is_free:
            raise ValueError(
                f"workers is {workers}, but in this mode one thread keeps the others waiting; use mode='NUMBA' or "
                "'JAX', or processes, workers=lambda: ProcessPoolExecutor(2)"
            )
        yield None, workers

    def _rows(self, starts: Any) -> list[np.ndarray]:
        """For each parameter an array with a row for each start."""
        parameters = self._problem.parameters
        if isinstance(starts, Mapping):
            for key in starts:
                if not any(key is p for p in parameters):
                    raise ValueError(f"starts has {key}, which is none of the parameters")
            given = [starts.get(p) for p in parameters]
            lengths = [len(rows) for rows in given if rows is not None]
            if not lengths:
                raise ValueError("starts is empty; pass an array for at least one parameter")
            given = [
                np.stack([p.get_value(borrow=True)] * lengths[0]) if rows is None else rows
                for p, rows in zip(parameters, given, strict=True)
            ]
        else:
            given = [starts] if len(parameters) == 1 and isinstance(starts, np.ndarray) else starts
            if not isinstance(given, list | tuple) or len(given) != len(parameters):
                raise ValueError(
                    f"starts has to be a list of {len(parameters)} arrays, one for each parameter, with a row for each "
                    "start; sample_starts makes one"
                )
        checked = []
        for parameter, rows in zip(parameters, given, strict=True):
            shape = np.shape(parameter.get_value(borrow=True))
            array = as_numbers(f"starts for {called(parameter)}", rows).astype(parameter.type.dtype, order="C")
            if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not array.size:
                raise ValueError(
                    f"starts for {called(parameter)} are of shape {array.shape}; pass a row of shape {shape} for each"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"starts for {called(parameter)} have values that are not finite")
            checked.append(array)
        if len({len(array) for array in checked}) > 1:
            raise ValueError(f"starts have {[len(array) for array in checked]} rows; pass as many for each parameter")
        return checked

    def paths(self, starts: Sequence[ArrayLike] | Mapping[Any, ArrayLike], *inputs: Any, max_iterations: int = 200,
              **named: Any) -> Paths:  # fmt: skip
        """All points of minimizations from many starts, with the costs and the gradients there, in one call.

        Parameters
        ----------
        starts : list of arrays, or dict
            As for `from_starts`.
        *inputs, **named : arrays
            The inputs, by place or by name.
        max_iterations : int
            The largest number of iterations of each.

        Returns
        -------
        Paths
            Arrays with an axis of the starts in front; the components of all parameters are in one axis. The parameters
            keep their values.

        Raises
        ------
        ValueError
            If the cost draws random numbers, or has operations that cannot be given an axis more.

        Notes
        -----
        All go on step by step together, in all modes. Memory for `max_iterations` points of each is there from the
        start. The gradients are evaluated once more, at all points at a time.

        Examples
        --------
        >>> p = pytensor.shared(np.zeros(2), name="p")
        >>> run = optapi.compile_minimizer([p], pt.sum((p - 3) ** 4), "lbfgs", mode=optapi.PYTHON)
        >>> paths = run.paths([np.array([[0.0, 1.0], [5.0, 2.0]])])
        >>> paths.points.shape == paths.gradients.shape, paths.points[:, 0].tolist()
        (True, [[0.0, 1.0], [5.0, 2.0]])
        """
        self._check_idle()
        if self._problem.is_noisy:
            raise ValueError("the cost is random, or reads what updates writes, so no path can be evaluated again")
        rows, values = self._rows(starts), self._checked(inputs, named)
        key = ("paths", len(rows[0]), check_count("max_iterations", max_iterations))
        if key not in self._compiled:
            try:
                self._compiled[key] = CompiledPaths(self._program, len(rows[0]), max_iterations)
            except (NotImplementedError, ValueError) as error:
                raise ValueError("the cost cannot be a batch, so there are no paths of it") from error
        return self._compiled[key](rows, values)

    # Many data sets

    def on_data(self, *inputs: Any, starts: Any = None, workers: Any = 1, **named: Any) -> BatchResult:
        """Minimize for many data sets, each by itself.

        Parameters
        ----------
        *inputs, **named : arrays
            The inputs, by place or by name, with one axis more, the first: a row for each data set. An input without
            it is the same for all.
        starts : list of arrays, array or dict, optional
            A start for each data set, as for `from_starts`; by default all start from the values that the parameters
            have now.
        workers : int or engine
            How many threads, or an engine, as for `from_starts`.

        Returns
        -------
        BatchResult
            With arrays for entries, which have a row for each data set. The parameters keep their values. Where the
            cost raises an exception, or is not finite, that member ends with status 3, and the others go on.

        Raises
        ------
        ValueError
            If no input has the axis, if the numbers of rows differ, or if the rule has no end of its own, no limit and
            no tolerance.
        Exception
            What the cost raises, if it does so for all data sets.

        Notes
        -----
        Under ``"NUMBA"`` one compiled loop goes over the data sets; under ``"JAX"`` all go step by step together, in
        chunks if they are very many; in Python too, where the cost allows it. Memory: that of the inputs and of the
        results, and of the state of a chunk. Limits are those of each minimization; if they look at each iteration
        (all but `max_iterations` do), or the cost draws random numbers, the minimizations run one after another, with
        some tenths of a millisecond of Python for each. A progress bar counts data sets; callback, trace, table and
        checkpoint do not look here.

        Data sets of different lengths are filled up, with weights of zero where nothing was measured.

        Examples
        --------
        >>> times, rate, y = np.arange(4.0), pytensor.shared(1.0, name="rate"), pt.dvector("y")
        >>> run = optapi.compile_minimizer([rate], residuals=pt.exp(-rate * times) - y, inputs=[y], mode=optapi.PYTHON)
        >>> result = run.on_data(np.exp(-np.array([[0.5], [2.0]]) * times))
        >>> result.x["rate"].round(4), result.status
        (array([0.5, 2. ]), array([0, 0]))
        """
        if self._running:
            raise RuntimeError(RUNNING)
        self._running = True
        try:
            return self._on_data(Data.of_inputs(self._problem.inputs, self._placed(inputs, named)), starts, workers)
        finally:
            self._running = False

    def _on_data(self, data: Data, starts: Any, workers: Any) -> BatchResult:
        program, termination = self._program, self._termination
        points = self._points(data.rows, starts)
        if self._run is None:
            program.check_cost(data.of(0))
        has_reason, cut = "reason" in program.places.roles, termination.looks
        ends = has_reason or cut or termination.max_iterations is not None
        if not ends and option_of(program.rule, program.options, "tolerance") is None:
            raise ValueError(
                f"{name_of(self.opt_algo)} has no end: pass max_iterations or another limit to compile_minimizer, or a "
                "tolerance of the rule"
            )
        members = limit = None
        if not cut and program.takes_members(data.wide):
            limit = termination.limited(sum(array[0].size for array in points), has_reason).max_iterations
            members = self._members(data.wide, limit)
            points = put_inside(points, program.limits(data.shared))

        def part(some: range) -> tuple[list[np.ndarray], Data]:
            return [array[some.start : some.stop] for array in points], data.part(some)

        with self._bar(data.rows) as bar, self._engine(workers) as (engine, number):
            blocks = pieces(members, data, number)
            if engine is None:
                parts = worked(lambda some: self._ends(*part(some), limit), blocks, number)
            else:
                if members is None:
                    size = max(1, data.rows // (8 * number))
                    blocks = (range(data.rows)[begin : begin + size] for begin in range(0, data.rows, size))
                parts = Sent(self, "_ends", limit).by(engine, map(part, blocks))
            found = Ends.joined(shown(parts, bar, Ends.row))
        if len(found.errors) == data.rows:
            raise found.errors[0]
        result = self._joined(found, data)
        bar.close(lambda: result.message)
        return result

    def _ends(self, points: list[np.ndarray], data: Data, limit: int | None) -> Ends:
        """How minimizations end; with a limit they may be one call of a function."""
        members = None if limit is None else self._members(data.wide, limit)
        if members is not None:
            # If one raises, it does not tell which.
            with suppress(Exception):
                return members(points, data.values)
        return Ends.joined([self._alone([array[row] for array in points], data.of(row)) for row in range(data.rows)])

    def _members(self, wide: Sequence[bool], limit: Any) -> Members | None:
        """What takes members with such inputs to their ends, kept for the next data; None if nothing does."""
        key = (*wide, limit)
        if key not in self._compiled:
            found = None
            with suppress(ValueError):
                found = Members(self._program, wide, limit)
            self._compiled[key] = found  # at once, since other threads may look
        return self._compiled[key]

    def _points(self, count: int, starts: Any) -> list[np.ndarray]:
        """For each parameter an array with a row for each of `count` data sets."""
        if starts is not None:
            points = self._rows(starts)
            if len(points[0]) != count:
                raise ValueError(f"starts have {len(points[0])} rows for {count} data sets; pass one for each")
            return points
        held = [np.array(p.get_value(borrow=True)) for p in self._problem.parameters]
        if not all(np.isfinite(value).all() for value in held):
            raise ValueError("the parameters have values that are not finite; start from finite ones, or pass starts")
        return [np.repeat(value[None], count, axis=0) for value in held]

    def _alone(self, point: list[np.ndarray], inputs: list[Any]) -> Ends:
        """How one member ends."""
        run, errors = self._new_run(point, Monitor(self._monitor.label), inputs), {}
        try:
            run._to_end()
            fun: Any = run.fun
        except Exception as error:
            errors, fun = {0: error}, run._failed(error).fun
        x = [array[None] for array in run._position.best.point]
        fun, nit, nfev, status = (np.array([number]) for number in (fun, run.nit, run.nfev, run.status))
        return Ends(x, fun, nit, nfev, status, errors)

    def _joined(self, ends: Ends, data: Data) -> BatchResult:
        """The result of all members."""
        names = labels(self._problem.parameters)
        result = BatchResult(
            x=NamedList(ends.x, names),
            fun=ends.fun,
            nit=ends.nit,
            nfev=ends.nfev,
            status=ends.status,
            success=np.isin(ends.status, (0, 5)),
            message=summed_up(ends.status),
        )
        if ends.errors:
            result["errors"] = ends.errors

        def build(parts: Sequence[np.ndarray]) -> Any:
            arrays = [part.reshape(a.shape).astype(a.dtype) for part, a in zip(parts, ends.x, strict=True)]
            return NamedList(arrays, names)

        size = np.cumsum([array[0].size for array in ends.x])[:-1]
        matrices: Any = partial(self._program.matrices, ends.x, data)
        if self._program.penalties is not None or self._program.manifolds is not None:
            matrices = no_second_derivatives
        hidden = {"_matrices": matrices, "_build": build, "_ends": size}
        for name, value in hidden.items():
            object.__setattr__(result, name, value)
        return result

    # Its file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": False, "_compiled": {}}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that is needed to resume the minimization to the file `path`, but for the cost and the inputs.

        The file is such as `optapi.save` writes: at all times the old file or the new one, whole.

        Raises
        ------
        ValueError
            If there is no minimization to save.
        OSError
            If the file cannot be written. The old one is as it was then.
        """
        if self._run is None:
            raise ValueError("there is no minimization to save; begin one by calling this object")
        self._run._save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take up the minimization that was saved to the file `path` by one like this; `resume` then goes on.

        The parameters then hold its best point so far.

        Raises
        ------
        ValueError
            If `save` did not write the file, or in another version of the format; if it is damaged; or if it is of a
            minimization of other parameters, by another rule or with other options. The message says what differs, and
            nothing has been changed.
        FileNotFoundError, OSError
            If there is no such file, or it cannot be read.
        RuntimeError
            If this object is running, and its callback calls.
        """
        self._check_idle()
        description, arrays = read(path, CompiledRun, self.opt_algo)
        run = self._new_run(None, self._monitor, None)
        run._restore(path, description, arrays)
        run.inputs = description["inputs"]
        self._hold(run)


def fingerprint(inputs: Any) -> str:
    """A digest of the values of inputs, to tell them from others."""
    digest = sha256()
    for value in inputs:
        array = np.ascontiguousarray(value)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@hinted
def sample_starts(parameters: Variables, count: int, method: str = "normal", *,
                  scale: ArrayLike | Sequence[ArrayLike] = 1.0, bounds: Bounds | None = None,
                  seed: int | np.random.Generator | None = None) -> list[np.ndarray]:  # fmt: skip
    """Random starts around the values that `parameters` have now, for `CompiledMinimizer.from_starts`.

    Parameters
    ----------
    parameters : list of shared variables
    count : int
        How many.
    method : str
        ``"normal"``: each component normal, with its value now for mean and `scale` for standard deviation. Else in a
        box, up to `scale` from the value now on either side: ``"uniform"``; ``"latin_hypercube"``, where the projection
        onto each axis is even; ``"sobol"``, where the box is filled evenly, most so if `count` is a power of 2.
    scale : number or array, or list of those
        One for all, or one for each parameter, which may be an array of its shape.
    bounds : dict, list or pair, optional
        As for a rule that takes them, but numbers and arrays alone. Draws outside are put on the bound, and with a
        method other than ``"normal"`` a component with two bounds is drawn between them, whatever `scale` is.
    seed : int or numpy.random.Generator, optional

    Returns
    -------
    list of arrays
        For each parameter, its dtype kept, an array with one axis more: a row for each start.

    Examples
    --------
    >>> p = pytensor.shared(np.zeros(2), name="p")
    >>> [starts] = optapi.sample_starts([p], 8, "latin_hypercube", scale=2.0, seed=0)
    >>> starts.shape, bool(abs(starts).max() <= 2)
    ((8, 2), True)
    """
    shared = check_shared(parameters)
    values = [np.asarray(p.get_value(borrow=True)) for p in shared]
    check_count("count", count)
    check_choice("method", method, ("normal", "uniform", "latin_hypercube", "sobol"))
    scales = list(scale) if isinstance(scale, list | tuple) else [scale] * len(values)
    if len(scales) != len(values):
        raise ValueError(f"scale is a list of {len(scales)}; pass one for each of the {len(values)} parameters")
    widths = [as_numbers("scale", width) for width in scales]
    for width, value in zip(widths, values, strict=True):
        wide = (1,) * (value.ndim - width.ndim) + width.shape
        if len(wide) != value.ndim or any(a not in (1, b) for a, b in zip(wide, value.shape, strict=True)):
            raise ValueError(f"scale has an array of shape {width.shape} for a parameter of shape {value.shape}")
    try:
        rng = np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise TypeError(f"seed is {seed!r}; pass an int of at least 0, or a numpy.random.Generator") from error
    found = boxes(bounds, shared) or [None] * len(shared)
    limits = [None if box is None else _sides(box, p) for box, p in zip(found, shared, strict=True)]
    size = sum(value.size for value in values)
    if method == "normal":
        sample = rng.normal(size=(count, size))
    elif method == "uniform":
        sample = rng.uniform(-1, 1, size=(count, size))
    else:
        from scipy.stats import qmc

        engine = (qmc.LatinHypercube if method == "latin_hypercube" else qmc.Sobol)(size, rng=rng)
        sample = 2 * engine.random(count) - 1
    parts = np.split(sample, np.cumsum([value.size for value in values])[:-1], axis=1)
    drawn = []
    for value, width, part, box in zip(values, widths, parts, limits, strict=True):
        center, array = value, part.reshape(count, *value.shape)
        if box is not None and method != "normal":
            bounded = np.isfinite(box[0]) & np.isfinite(box[1])
            low, high = (np.where(bounded, side, 0.0) for side in box)
            center, width = np.where(bounded, (low + high) / 2, value), np.where(bounded, (high - low) / 2, width)
        drawn.append((center + width * array).astype(value.dtype))
    return put_inside(drawn, limits)


def _sides(box: Box, parameter: Any) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of a parameter as arrays of its shape."""
    shape = np.shape(parameter.get_value(borrow=True))
    if not all(isinstance(side, Constant) for side in box):
        raise TypeError(f"bounds of {called(parameter)} are symbolic; pass numbers and arrays to draw from")
    return np.broadcast_to(box.low.data, shape), np.broadcast_to(box.high.data, shape)
