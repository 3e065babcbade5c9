"""Engines: what does pieces of work, in threads, in the processes of an executor or on a cluster of dask.

They sum costs over partitions in `distributed`, and run many minimizations in the drivers.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from .checks import check_count, shown


# How often a worker may be lost in one call, and so many of what was built a process keeps.
RETRIES, MOST = 3, 64

# From a group, and the arrays of a point, to a result; all of them can be pickled.
Task = Callable[..., Any]


class Engine(Protocol):
    """What does pieces of work, such as to evaluate partitions or to minimize: an object with this one method.

    Examples
    --------
    >>> class OneAfterAnother:
    ...     def map(self, task, groups, point):
    ...         return [task(group, *point) for group in groups]
    """

    def map(self, task: Task, groups: Sequence[Any], point: Sequence[Any]) -> Iterable[Any]:
        """``task(group, *point)`` for each of the groups, in their order.

        What it raises for a worker that is gone is a `Lost`; what has no result yet is then done once more.
        """


class Lost(Exception):
    """A worker is gone, for a reason that is not that of the cost: what an `Engine` raises.

    Attributes
    ----------
    group : int or None
        The place of the group that it had among those of the call, if that is known.

    Examples
    --------
    >>> from optapi.distributed import Lost
    >>> str(Lost("the machine has been switched off", group=3))
    'the machine has been switched off'
    """

    def __init__(self, message: str = "", group: int | None = None):
        super().__init__(message)
        self.group = group


class PartitionError(RuntimeError):
    """A partition could not be evaluated, or a minimization not be run, however often it was tried.

    Examples
    --------
    >>> from optapi.distributed import PartitionError
    >>> issubclass(PartitionError, RuntimeError)
    True
    """


class InProcess:
    """The engine without workers: one group after another, of which one is in memory at a time."""

    workers = 1

    def map(self, task: Task, groups: Sequence[Any], point: Sequence[Any]) -> Iterator[Any]:
        for group in groups:
            yield task(group, *point)


class Pool:
    """An engine on an executor of ``concurrent.futures``, or on what a function returns that makes one.

    One that is made here is made anew where it breaks, for instance because a process was killed.
    """

    def __init__(self, executor: Executor | Callable[[], Executor], name: str = "engine"):
        self.name = name
        self.make = None if isinstance(executor, Executor) else executor
        self.executor = executor if isinstance(executor, Executor) else None

    def running(self) -> Executor:
        """The executor, made if there is none."""
        if self.executor is None:
            made = self.make()  # type: ignore[misc]
            if not callable(getattr(made, "submit", None)):
                raise TypeError(
                    f"{self.name} is a function that returned {shown(made)}; it has to return an executor, for "
                    "instance lambda: ProcessPoolExecutor(2)"
                )
            self.executor = made
        return self.executor

    @property
    def workers(self) -> int:
        """How many groups are worked on at a time."""
        return getattr(self.running(), "_max_workers", os.cpu_count() or 1)

    def map(self, task: Task, groups: Sequence[Any], point: Sequence[Any]) -> Iterator[Any]:
        number, futures = None, []
        try:
            executor = self.running()
            futures += [executor.submit(task, group, *point) for group in groups]
            for number, future in enumerate(futures):  # noqa: B007
                yield future.result()
        except BrokenExecutor as error:
            if self.make is None:
                raise PartitionError(
                    "the executor is broken, for instance since a process was killed; pass a function that makes one, "
                    "for instance lambda: ProcessPoolExecutor(2), and a new one is made"
                ) from error
            self.executor = None
            raise Lost(str(error), number) from error
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the executor, if it was made here."""
        if self.make is not None and self.executor is not None:
            self.executor.shutdown()
            self.executor = None


def dask_engine(client: Any) -> Any:
    """An engine on a cluster of dask, for data that are read by functions.

    Groups of partitions are results of tasks, so that what a worker held is read again by another one when it is lost.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    Engine

    Notes
    -----
    Workers that dask starts are set to give memory back at once, by ``MALLOC_TRIM_THRESHOLD_``. Each evaluation then
    asks the system for all of its memory again, page by page, which takes a fifth of its time or more. Where the memory
    that one evaluation takes may be kept for the next, leave that out before the cluster is made::

        dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1}})

    Examples
    --------
    >>> from distributed import Client, LocalCluster  # doctest: +SKIP
    >>> client = Client(LocalCluster(n_workers=2))  # doctest: +SKIP
    >>> f = Partitions([w], cost, [x, t], data, dask_engine(client))  # doctest: +SKIP
    >>> results = run.from_starts(starts, workers=dask_engine(client))  # doctest: +SKIP
    """
    dask: Any = import_module("distributed")
    if not isinstance(client, dask.Client):
        raise TypeError(f"client is a {type(client).__name__}; pass a distributed.Client")
    return Dask(client, (dask.KilledWorker, dask.comm.CommClosedError, CancelledError))


class Dask:
    """What `dask_engine` returns."""

    def __init__(self, client: Any, surely: tuple[type[BaseException], ...]):
        self.client, self.surely = client, surely
        self.lost: tuple[type[BaseException], ...] = (*surely, OSError)
        self.placed: dict[tuple[str, int], Any] = {}

    @property
    def workers(self) -> int:
        """How many groups are worked on at a time."""
        return sum(self.client.nthreads().values()) or 1

    def map(self, task: Task, groups: Sequence[Any], point: Sequence[Any]) -> list[Any]:
        futures: list[Any] = []
        try:
            # What is needed again and again stays on the workers.
            held = self._placed(groups) if all(hasattr(group, "placed") for group in groups) else groups
            many = [[array] * len(groups) for array in point]
            futures += self.client.map(task, held, *many, pure=False, retries=2)
            return list(self.client.gather(futures))
        except self.lost as error:
            # A task, too, may raise an OSError, for instance of a file.
            if not isinstance(error, self.surely) and any(future.status == "error" for future in futures):
                raise
            raise Lost(f"{type(error).__name__}: {error}") from error

    def _placed(self, groups: Sequence[Any]) -> list[Any]:
        names = [(group.name, group.number) for group in groups]
        if any(name not in self.placed for name in names):
            self.placed = {name: group.placed(self.client) for name, group in zip(names, groups, strict=True)}
        return [self.placed[name] for name in names]


def engine_of(engine: Any, name: str = "engine") -> Any:
    """The engine that a user passed as `name`."""
    if engine is None:
        return InProcess()
    if isinstance(engine, int) and not isinstance(engine, bool):
        return Pool(ThreadPoolExecutor(check_count(name, engine)))
    if callable(getattr(engine, "map", None)) and not isinstance(engine, Executor):
        return engine
    if isinstance(engine, Executor) or callable(engine):
        return Pool(engine, name)
    raise TypeError(
        f"{name} is {shown(engine)}; pass None, a number of threads, an executor of concurrent.futures, a function "
        "that makes one, dask_engine(client), or an object with a method map(task, groups, point)"
    )


def is_engine(value: Any) -> bool:
    """Whether a value stands for an engine that may have other processes, and is no number of threads."""
    return isinstance(value, Executor) or callable(value) or callable(getattr(value, "map", None))


def workers_of(engine: Any) -> int:
    """How many groups an engine works on at a time; where it does not say, a guess."""
    return getattr(engine, "workers", None) or os.cpu_count() or 1


@contextmanager
def opened(engine: Any, name: str) -> Iterator[Any]:
    """The engine that a user passed as `name`, for one call; what was made for it ends with it."""
    found = engine_of(engine, name)
    try:
        yield found
    finally:
        if isinstance(found, Pool):
            found.close()


def mapped(engine: Engine, task: Task, groups: Iterable[Any], point: Sequence[Any] = (), retries: int = RETRIES,
           named: Callable[[int], str] = "group {}".format) -> Iterator[Any]:  # fmt: skip
    """What `engine` makes of the groups, in their order; what is left when a worker is lost is done once more.

    Raises
    ------
    PartitionError
        If workers are lost more often than `retries`.
    """
    left, done = list(groups), 0
    for trial in range(retries + 1):
        began = done
        try:
            for result in engine.map(task, left[began:], point):
                done += 1
                yield result
            return
        except Lost as error:
            if trial == retries:
                where = "" if error.group is None else f", at {named(began + error.group)}"
                raise PartitionError(
                    f"workers were lost {trial + 1} times in one call{where} ({error}); raise retries=, or look at "
                    "what ends them, for instance too little memory"
                ) from error


LOCK = threading.RLock()
BUILT: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


def built(digest: str, build: Callable[[], tuple[Any, bool]]) -> Any:
    """What `build` makes of something that was sent, once in each process; or in each thread, where it says so.

    It returns the thing, and whether several threads may use it at a time.
    """
    own, any_thread = (digest, threading.get_ident()), (digest, None)
    with LOCK:
        for key in (any_thread, own):
            if key in BUILT:
                BUILT.move_to_end(key)
                return BUILT[key]
        thing, is_free = build()
        BUILT[any_thread if is_free else own] = thing
        while len(BUILT) > MOST:
            BUILT.popitem(last=False)
        return thing
