"""Progress: what a minimization shows while it runs."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_count, check_flag
from ..graph.waiting import WAITING
from .results import OptimizeResult
from .termination import Ending


# What is recorded and shown of the start and of each iteration.
TRACED = ("cost", "gradient_size", "step", "evaluations", "seconds")


def columns(is_constrained: bool) -> tuple[str, ...]:
    """`TRACED`, with general constraints also their largest violation."""
    return (*TRACED, "violation") if is_constrained else TRACED


class Table:
    """Lines that can be read in a log: one for the start and each `every`-th iteration, and one for the end."""

    HEAD = f"{'iteration':>9} {'cost':>16} {'gradient':>10} {'step':>10} {'evaluations':>11} {'seconds':>9}"

    def __init__(self, every: int = 1):
        self.every = every
        self.lines = 0

    def show(self, iteration: int, row: tuple[float, ...], last: bool = False) -> None:
        """Write a line, under the names of the columns from time to time."""
        if iteration % self.every and not last:
            return
        cost, gradient, step, evaluations, seconds, *violation = row
        if self.lines % 40 == 0:
            sys.stdout.write(self.HEAD + (f" {'violation':>10}" if violation else "") + "\n")
        self.lines += 1
        sys.stdout.write(
            f"{iteration:9d} {cost:16.9e} {gradient:10.3e} {step:10.3e} {int(evaluations):11d} {seconds:9.3f}"
            f"{''.join(f' {beyond:10.3e}' for beyond in violation)}\n"
        )

    def close(self, message: str) -> None:
        """Write the last line."""
        sys.stdout.write(message + "\n")
        self.pause()

    def pause(self) -> None:
        """Write out what waits to be written."""
        sys.stdout.flush()


class Bar:
    """A line that is written over, ten times a second at most, with the iteration, cost, gradient size and rate.

    By `rich` where it is installed, else by itself; to the standard error stream.
    """

    INTERVAL = 0.1

    def __init__(self, label: str, total: int):
        self.label, self.total = label, total
        self.shown, self.width = -1.0, 0
        self.began = time.perf_counter()
        self.rich: Any = None

    @staticmethod
    def check(progressbar: Any) -> bool | str:
        """The option `progressbar`, as it was passed."""
        if not isinstance(progressbar, bool | np.bool_ | str) or progressbar not in (True, False, "force"):
            raise TypeError(f"progressbar is {progressbar!r}; pass True, False or 'force'")
        return progressbar if isinstance(progressbar, str) else bool(progressbar)

    @classmethod
    def wanted(cls, progressbar: bool | str) -> bool:
        """Whether there is a terminal to show it on, or it is forced."""
        return progressbar == "force" or bool(progressbar and sys.stderr.isatty())

    def open(self) -> None:
        """Begin to show."""
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn
            from rich.table import Column
        except ImportError:
            return
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn(
                "{task.completed:.0f}/{task.total:.0f}  {task.fields[facts]}", table_column=Column(no_wrap=True)
            ),
        )
        self.rich = Progress(*columns, console=Console(file=sys.stderr), auto_refresh=False)
        self.rich.start()
        self.task = self.rich.add_task(self.label, total=self.total, facts="")

    def show(self, iteration: int, row: tuple[float, ...], last: bool = False) -> None:
        """Show an iteration, unless the last that was shown was just now."""
        now = time.perf_counter()
        if not last and now - self.shown < self.INTERVAL:
            return
        rate = iteration / max(now - self.began, 1e-9)
        self.shown = now
        facts = f"cost {row[0]:.6e}  gradient {row[1]:.2e}  {rate:.0f}/s" if row else f"{rate:.1f}/s"
        self._draw(iteration, f"iteration {iteration}" if row else f"{iteration} of {self.total}", facts)

    def _draw(self, completed: float, place: str, facts: str) -> None:
        if self.rich is not None:
            self.rich.update(self.task, completed=completed, facts=facts, refresh=True)
            return
        line = f"{self.label}  {place}  {facts}"
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = len(line)

    def close(self, message: str) -> None:
        """Leave the line as it is."""
        self.pause()

    def pause(self) -> None:
        """Leave the line as it is."""
        if self.rich is not None:
            self.rich.stop()
        elif self.width:
            sys.stderr.write("\n")
            sys.stderr.flush()


class Clock(Bar):
    """A bar that moves by itself while something is compiled: the seconds so far, and how many it usually takes."""

    def __enter__(self) -> Clock:
        self.open()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._ended.set()
        self._thread.join()
        self._show()
        self.pause()

    def _run(self) -> None:
        while not self._ended.wait(self.INTERVAL):
            self._show()

    def _show(self) -> None:
        seconds = time.perf_counter() - self.began
        self._draw(seconds, f"{seconds:.0f} of about {self.total}", "seconds")


@contextmanager
def compiling(progressbar: bool | str) -> Iterator[None]:
    """Show how long a compilation has taken that a backend tells of meanwhile, if a bar is wanted."""
    with ExitStack() as shown:

        def waiting(label: str, seconds: int) -> None:
            shown.close()  # that of the one before
            shown.enter_context(Clock(f"compiling {label}", seconds))

        token = WAITING.set(waiting if Bar.wanted(progressbar) else None)
        try:
            yield
        finally:
            WAITING.reset(token)


@dataclass(frozen=True)
class Checkpoint:
    """A file to which a minimization saves itself: the option `checkpoint` of `minimize` and `compile_minimizer`.

    A path alone is a checkpoint with these defaults. `minimize_iterator.load` and `CompiledMinimizer.load` read it.

    Parameters
    ----------
    path : str or path
        The file. It is at all times a whole one, the last.
    every : int
        How many iterations from one save to the next. The end is saved too.
    keep : int
        How many of the last are kept. The one before the last has ``.1`` at the end of its name, the one before that
        ``.2``, up to ``keep - 1``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here, or there is no folder for the file; the message names it.

    Examples
    --------
    >>> from scipy.optimize import rosen, rosen_der
    >>> checkpoint = optapi.Checkpoint("rosenbrock.npz", every=10, keep=2)
    >>> x = optapi.minimize([-1.2, 1.0], rosen, rosen_der, "lbfgs", checkpoint=checkpoint)
    >>> optapi.minimize_iterator.load("rosenbrock.npz", rosen, rosen_der)
    <minimize_iterator by lbfgs, 32 iterations: converged>
    >>> optapi.minimize_iterator.load("rosenbrock.npz.1", rosen, rosen_der)
    <minimize_iterator by lbfgs, 30 iterations: not finished>
    """

    path: str | os.PathLike[str]
    every: int = 100
    keep: int = 1

    def __post_init__(self) -> None:
        check_count("every", self.every)
        check_count("keep", self.keep)
        if not isinstance(self.path, str | os.PathLike):
            raise TypeError(f"checkpoint is {self.path!r}; pass the path of a file, or a Checkpoint")
        path = Path(self.path)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint is {str(path)!r}; pass the path of a file in a folder that exists")

    @classmethod
    def of(cls, checkpoint: str | os.PathLike[str] | Checkpoint | None) -> Checkpoint | None:
        """That of the option of a driver; None if nothing is to be saved."""
        return checkpoint if checkpoint is None or isinstance(checkpoint, cls) else cls(checkpoint)  # type: ignore

    def left(self, nit: int) -> int:
        """How many iterations are left after `nit` until it is due."""
        return self.every - nit % self.every


class Monitor:
    """What looks on at a minimization, whatever runs the rule: callback, trace, table, bar, checkpoint.

    Parameters
    ----------
    label : str
        The name of the rule.
    callback, progressbar, verbose, trace, checkpoint
        As for `minimize`.

    Attributes
    ----------
    total : int
        The largest number of iterations, which the run knows.
    columns : tuple of str
        What the rows have, which it knows too.
    """

    total = 0
    columns: tuple[str, ...] = TRACED

    def __init__(self, label: str, callback: Callable[..., Any] | None = None,
                 progressbar: bool | str = False, verbose: bool | int = False, trace: bool = False,
                 checkpoint: str | os.PathLike[str] | Checkpoint | None = None):  # fmt: skip
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {callback!r}; pass a function of intermediate_result or of a point")
        self.label, self.callback, self.progressbar = label, callback, Bar.check(progressbar)
        self.verbose = check_count("verbose", int(verbose) if isinstance(verbose, bool | np.bool_) else verbose, low=0)
        self.checkpoint = Checkpoint.of(checkpoint)
        self.begin()
        self.trace = check_flag("trace", trace)
        self.takes_result = callback is not None and takes_result(callback)
        self._views: list[Any] | None = None

    def begin(self) -> None:
        """Forget what was seen of another minimization."""
        self.rows: list[tuple[float, ...]] = []
        self._saved = -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": None}

    @property
    def reads_rows(self) -> bool:
        """Whether anything wants the numbers of each iteration."""
        return bool(self.trace or self.verbose or self.views)

    @property
    def views(self) -> list[Any]:
        """What is shown."""
        if self._views is None:
            self._views = [Table(self.verbose)] if self.verbose else []
            if Bar.wanted(self.progressbar):
                bar = Bar(self.label, self.total)
                bar.open()
                self._views.append(bar)
        return self._views

    def show(self, iteration: int, row: tuple[float, ...], last: bool) -> None:
        """Take down and show the numbers of an iteration, in the order of `columns`."""
        if self.trace:
            # An iteration that was given up after this is taken down again.
            del self.rows[iteration:]
            self.rows.append(row)
        for view in self.views:
            view.show(iteration, row, last)

    def call(self, result: Callable[[], OptimizeResult], iterate: Callable[[], Any]) -> Ending | None:
        """Call the callback. Whether it wants to stop."""
        if self.callback is not None:
            try:
                if self.takes_result:
                    self.callback(intermediate_result=result())
                else:
                    self.callback(iterate())
            except StopIteration:
                return Ending.CALLBACK
        return None

    def save(self, nit: int, ended: bool, save: Callable[..., None]) -> None:
        """Make a checkpoint after `nit` iterations by `save`, if it is due or they have ended."""
        checkpoint = self.checkpoint
        if checkpoint is not None and (ended or nit % checkpoint.every == 0):
            # The end may be where the last one was made, whose place it takes then.
            save(checkpoint.path, older=0 if nit == self._saved else checkpoint.keep - 1)
            self._saved = nit

    def close(self, message: Callable[[], str]) -> None:
        """Show the end."""
        for view in self._views or ():
            view.close(message())
        self._views = None

    def pause(self) -> None:
        """Leave the terminal to others."""
        for view in self._views or ():
            view.pause()
        self._views = None

    def traced(self) -> dict[str, np.ndarray]:
        """The rows as columns."""
        return dict(zip(self.columns, np.array(self.rows).reshape(-1, len(self.columns)).T.copy(), strict=True))


def takes_result(callback: Callable[..., Any]) -> bool:
    """Whether the only parameter of `callback` is called ``intermediate_result``, as SciPy asks."""
    try:
        return set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):
        return False
