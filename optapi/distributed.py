"""Costs that are sums over partitions of data: more data than fit in memory, more work than one process does.

A cost is given symbolically for one partition. An engine maps it over all of them, in this process, in threads, in the
processes of an executor or on a cluster of dask; what comes back is summed in a fixed order, so that the bits are the
same for any engine. Every rule works on top, by `minimize` or on the symbolic cost.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from math import prod
from mmap import mmap
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.traversal import ancestors

from .checks import (
    as_list,
    called,
    check_cost,
    check_count,
    check_number,
    check_outputs,
    check_parameters,
    is_generator,
    shown,
)
from .drivers.options import check_kind_of_mode
from .drivers.progress import Bar
from .engines import LOCK, RETRIES, Dask, Engine, Lost, PartitionError, Pool, built, dask_engine, engine_of, mapped
from .graph.compat import free_callable, is_compiled_by, linked_by
from .graph.derivatives import differentiate, loss_products, pullback, pushforward, second_derivatives
from .graph.implicit import unpack
from .graph.loops import wide_graph
from .graph.oracle import Oracle, VectorOracle
from .graph.replace import replaced
from .hints import hinted
from .state import shape_of
from .typing import CompileMode, Variables


__all__ = ["Engine", "Lost", "PartitionError", "Partitions", "chunks", "dask_engine", "dask_parts", "row_groups"]

# Of so many `Partitions` a process keeps what it has read.
KEPT = 2


class Group:
    """Partitions that are evaluated together, a block of the tree in which all are summed.

    Attributes
    ----------
    number : int
    name : str
        That of the `Partitions`, unique in all processes.
    parts : list
        Of each partition the arrays, or a function that returns them.
    """

    def __init__(self, number: int, name: str, parts: Sequence[Any]):
        self.number, self.name, self.parts = number, name, list(parts)

    def arrays(self) -> Iterator[tuple[Any, ...]]:
        """The arrays of each partition, read one after another and not kept."""
        for part in self.parts:
            yield tuple(part() if callable(part) else part)

    def placed(self, client: Any) -> Any:
        """The group on a worker of dask, as the result of a task, so that it can be made again."""
        flat = [part if callable(part) else tuple(part) for part in self.parts]
        lazy = [client.compute(list(part)) if is_lazy(part) else part for part in flat]
        return client.submit(_read, self.number, self.name, lazy, pure=False)

    def kept(self) -> Iterator[tuple[Any, ...]]:
        """The same, read once in each process."""
        with LOCK:
            groups = READ.setdefault(self.name, {})
            READ.move_to_end(self.name)
            while len(READ) > KEPT:
                READ.popitem(last=False)
            if self.number not in groups:
                groups[self.number] = list(self.arrays())
            return iter(groups[self.number])


READ: OrderedDict[str, dict[int, list[Any]]] = OrderedDict()


def _read(number: int, name: str, parts: Sequence[Any]) -> Group:
    """A group with the arrays in the place of the functions that read them."""
    return Group(number, name, list(Group(number, name, parts).arrays()))


class Kernel:
    """A kind of sum over partitions, as it is sent to workers: the graph, which each process compiles once.

    Attributes
    ----------
    graph : bytes
        The pickle of parameters, inputs, outputs and mode.
    keeps : bool
        Whether a process keeps what it has read.
    """

    def __init__(self, graph: bytes, keeps: bool = False):
        self.graph, self.keeps = graph, keeps
        self.digest = hashlib.sha256(graph).hexdigest()

    def __call__(self, group: Group, *point: np.ndarray) -> list[np.ndarray]:
        """The sums of the outputs over a group."""
        function = self.function()
        parts = group.kept() if self.keeps else group.arrays()
        # What has come through a network may lie at any address.
        point = tuple(np.require(array, requirements="A") for array in point)
        return tree_sum(
            [
                np.array(value, "float64")
                for value in function(*point, *(np.require(array, requirements="A") for array in arrays))
            ]
            for arrays in parts
        )

    def function(self) -> Callable[..., Any]:
        """What the graph was compiled to in this process, or in this thread if it cannot run in several."""

        def build() -> tuple[Any, bool]:
            variables, outputs, mode = pickle.loads(self.graph)
            function = pytensor.function(variables, outputs, mode=free(mode), on_unused_input="ignore")
            is_free = is_compiled_by(function, "Numba") or is_compiled_by(function, "JAX")
            return (free_callable(function) if is_free else function), is_free

        return built(self.digest, build)


def free(mode: CompileMode) -> Any:
    """The mode, whose functions under numba let other threads run."""
    known = get_mode(mode)
    if type(known.linker).__name__ == "NumbaLinker":
        return linked_by(import_module("optapi.graph.threads").FreeNumbaLinker(), known)
    return known


def tree_sum(values: Iterable[list[np.ndarray]]) -> list[np.ndarray]:
    """The sums of the entries, pairwise in their order; as many are held at a time as the number has digits in base 2.

    The sums over blocks of a power of 2 may stand for these, with the same bits.
    """
    stack: list[list[np.ndarray]] = []
    for count, value in enumerate(values, 1):
        while count % 2 == 0:
            value, count = [a + b for a, b in zip(stack.pop(), value, strict=True)], count // 2
        stack.append(value)
    while len(stack) > 1:
        value = stack.pop()
        stack[-1] = [a + b for a, b in zip(stack[-1], value, strict=True)]
    return stack[0]


def is_lazy(part: Any) -> bool:
    """Whether a partition has what dask has not computed yet."""
    return isinstance(part, list | tuple) and any(hasattr(entry, "__dask_graph__") for entry in part)


def dask_parts(*collections: Any) -> list[tuple[Any, ...]]:
    """Partitions of dask's arrays, or of columns of its dataframes, for `dask_engine`: a partition for each chunk.

    They are computed by the workers when they are first needed, stay there, and are computed again where one is lost.

    Parameters
    ----------
    *collections : dask arrays, series or dataframes
        One for each input, in as many chunks of rows each.

    Returns
    -------
    list of tuple

    Raises
    ------
    ValueError
        If their chunks do not agree, or an array has several along another axis.

    Examples
    --------
    >>> import dask.array  # doctest: +SKIP
    >>> f = Partitions([w], cost, [x, t], dask_parts(X, y), dask_engine(client))  # doctest: +SKIP
    """
    columns, known = [], []
    for position, collection in enumerate(collections):
        if not hasattr(collection, "to_delayed"):
            raise TypeError(f"collections[{position}] is {shown(collection)}; pass arrays or dataframes of dask")
        chunked = getattr(collection, "chunks", None)
        if chunked is not None and any(len(sizes) > 1 for sizes in chunked[1:]):
            raise ValueError(
                f"collections[{position}] has {[len(sizes) for sizes in chunked]} chunks along its axes; pass one with "
                "all columns in each, array.rechunk({1: -1})"
            )
        columns.append(np.ravel(collection.to_delayed()).tolist())
        if chunked is not None and not np.isnan(chunked[0]).any():
            known.append(tuple(chunked[0]))
    if len({len(column) for column in columns}) != 1 or len(set(known)) > 1:
        sizes = known if len(known) == len(columns) else [len(column) for column in columns]
        raise ValueError(f"the chunks of rows do not agree: {sizes}; pass collections with the same, see rechunk")
    return list(zip(*columns, strict=True))


# Data


def chunks(arrays: Any, rows: int) -> list[Callable[[], tuple[np.ndarray, ...]]]:
    """Partitions of so many rows of arrays that may be larger than memory, as functions that read them.

    Parameters
    ----------
    arrays : array or tuple of arrays
        With as many rows each: ``numpy.memmap``, or of zarr or h5py, which read what is asked for.
    rows : int

    Returns
    -------
    list of callable

    Examples
    --------
    >>> from optapi.distributed import chunks
    >>> [x.shape for read in chunks(np.zeros((10, 3)), 4) for x in read()]
    [(4, 3), (4, 3), (2, 3)]
    """
    arrays = arrays if isinstance(arrays, tuple) else (arrays,)
    counts = {array.shape[0] for array in arrays}
    if len(counts) != 1:
        raise ValueError(f"the arrays have {sorted(counts)} rows; pass arrays with as many each")
    check_count("rows", rows)
    arrays = tuple(_writable(array) for array in arrays)
    return [Chunk(arrays, begin, begin + rows) for begin in range(0, counts.pop(), rows)]


class Chunk:
    """A function that reads some rows of arrays. One that is mapped from a file is opened where it is read."""

    def __init__(self, arrays: Sequence[Any], begin: int, end: int):
        self.arrays, self.begin, self.end = tuple(arrays), begin, end

    def __call__(self) -> tuple[np.ndarray, ...]:
        # What is mapped is not copied.
        return tuple(np.ascontiguousarray(array[self.begin : self.end]) for array in self.arrays)

    def __reduce__(self) -> Any:
        return _reopened, ([_described(array) for array in self.arrays], self.begin, self.end)


def row_groups(paths: Any, *columns: str | Sequence[str]) -> list[Callable[[], tuple[np.ndarray, ...]]]:
    """Partitions of Parquet files, one for each row group, as functions that read them; with ``pyarrow``.

    Parameters
    ----------
    paths : str, path or list of those
        The files, in their order.
    *columns : str or list of str
        For each input a column, which is a vector, or several, which are the columns of a matrix.

    Returns
    -------
    list of callable

    Raises
    ------
    ValueError
        If a file lacks a column, or has one that is not of numbers, or of others than the first file; and when it is
        read, if one has missing values.

    Notes
    -----
    To decode a row group takes some ten times as long as to read the same numbers from a mapped file, so data that are
    read at each evaluation are better written once as such.

    Examples
    --------
    >>> f = Partitions([w], cost, [x, t], row_groups("rows.parquet", ["age", "income"], "answer"))  # doctest: +SKIP
    """
    names = [[column] if isinstance(column, str) else list(column) for column in columns]
    if not names or not all(names):
        raise ValueError("columns are empty; pass a name, or a list of names, for each input")
    parquet: Any = import_module("pyarrow.parquet")
    found: list[Callable[[], tuple[np.ndarray, ...]]] = []
    kinds: dict[str, np.dtype] = {}
    for path in paths if isinstance(paths, list | tuple) else [paths]:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            for name in (name for some in names for name in some):
                if name not in schema.names:
                    raise ValueError(f"{path} has no column {name!r}, only {', '.join(schema.names)}")
                try:
                    kind = np.dtype(schema.field(name).type.to_pandas_dtype())
                except (NotImplementedError, TypeError):
                    kind = np.dtype(object)
                if kind.kind not in "biuf":
                    raise ValueError(f"the column {name!r} of {path} is of {schema.field(name).type}; pass numbers")
                if kinds.setdefault(name, kind) != kind:
                    raise ValueError(
                        f"the column {name!r} of {path} is of {kind}, and that of the files before of {kinds[name]}; "
                        "write the files with one schema"
                    )
            flat = [isinstance(column, str) for column in columns]
            found += [RowGroup(str(path), number, names, flat) for number in range(file.num_row_groups)]
    return found


class RowGroup:
    """A function that reads a row group of a Parquet file."""

    def __init__(self, path: str, number: int, names: Sequence[Sequence[str]], flat: Sequence[bool]):
        self.path, self.number, self.names, self.flat = path, number, names, flat

    def __call__(self) -> tuple[np.ndarray, ...]:
        wanted = list(dict.fromkeys(name for some in self.names for name in some))
        with import_module("pyarrow.parquet").ParquetFile(self.path) as file:
            table = file.read_row_group(self.number, columns=wanted)
        for name in wanted:
            if table[name].null_count:
                raise ValueError(
                    f"the column {name!r} has missing values in row group {self.number} of {self.path}; fill them, for "
                    "instance with zeros beside a column of weights"
                )
        arrays = {name: table[name].to_numpy() for name in wanted}
        return tuple(
            np.ascontiguousarray(arrays[some[0]]) if is_flat else np.column_stack([arrays[name] for name in some])
            for some, is_flat in zip(self.names, self.flat, strict=True)
        )


class Mapped(NamedTuple):
    """What is to be known of a file to map it again in another process."""

    path: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    order: str

    def open(self) -> np.ndarray:
        """The file, mapped, as an array that compiled functions take as one in memory; writing would not change it."""
        return np.memmap(self.path, self.dtype, "c", self.offset, self.shape, self.order)  # type: ignore[call-overload]


def _described(array: Any) -> Any:
    if isinstance(array, np.memmap) and isinstance(array.base, mmap):
        order = "C" if array.flags.c_contiguous else "F"
        return Mapped(str(array.filename), array.dtype.str, array.offset, array.shape, order)
    return array


def _writable(array: Any) -> Any:
    """What is mapped to be read, mapped so that it could be written to: for others numba would compile anew."""
    described = _described(array)
    return described.open() if isinstance(described, Mapped) and not array.flags.writeable else array


def _reopened(arrays: Sequence[Any], begin: int, end: int) -> Chunk:
    return Chunk([array.open() if isinstance(array, Mapped) else array for array in arrays], begin, end)


def parts_of(data: Any, count: int) -> list[Any]:
    """The partitions of `data`, each a tuple of `count` arrays or a function that returns one."""
    if isinstance(data, np.ndarray) or not isinstance(data, Iterable):
        raise TypeError(f"data is {shown(data)}; pass a list of tuples of arrays, or of functions that return them")
    parts = [(part,) if isinstance(part, np.ndarray) else part for part in data]
    if not parts:
        raise ValueError("data is empty; pass at least one partition")
    for number, part in enumerate(parts):
        if callable(part):
            continue
        if not isinstance(part, list | tuple):
            raise TypeError(f"data[{number}] is {shown(part)}; pass a tuple of arrays, or a function that returns one")
        if len(part) != count:
            raise ValueError(f"data[{number}] has {len(part)} arrays for {count} inputs; pass one for each")
    return parts


class Partitions:
    r"""A cost :math:`f(x) = w \sum_k f_k(x)` that is a sum over partitions of data.

    It is a function of NumPy, which `minimize` and `minimize_iterator` take in the place of `f`: they need no
    derivative, and rules with products of second derivatives get them. `cost` has it as a symbolic cost. In both all
    rules work as they are.

    All is summed pairwise, in the order of the partitions and in float64. The bits are the same for any engine, any
    number of workers, any `group`, and after failures.

    Parameters
    ----------
    parameters : list of variables
        Shared, or placeholders of known shape.
    cost : scalar variable
        :math:`f_k`, of one partition: a sum over its rows, not a mean, of `parameters` and `inputs`.
    inputs : list of variables
        What stands for the arrays of a partition.
    data : list
        The partitions: tuples of an array for each input, or functions without arguments that return one, which is
        read when it is needed; see `chunks`. What is sent to other processes has to be pickled; functions are to be
        preferred there, since arrays travel at each evaluation.
    engine : optional
        By default one partition after another in this process, where a function is read at each evaluation, so that
        data may be larger than memory. A number: of threads, for functions compiled by numba or JAX. An executor of
        ``concurrent.futures``, or a function that makes one, which is called again where its processes are killed; or
        `dask_engine`. Processes keep what they have read. Or an object with the one method of an `Engine`.
    weight : float
        :math:`w`, for instance one over the number of all rows.
    residuals : variable or list of variables, optional
        In the place of `cost`, which is half of the sum of their squares; for `normal` and `least_squares`.
    outputs : list of variables, optional
        What the cost is a convex function of, for `gauss_newton`; by default `residuals`.
    group : int
        How many partitions one task has, a power of 2.
    mode : PyTensor mode or str, optional
        How it is compiled, once in each process.
    retries : int
        How often what is left of an evaluation is tried again where a worker is lost.
    progressbar : bool or "force"
        Whether a line on the standard error stream counts the partitions of each evaluation that takes longer than a
        tenth of a second: if True in a terminal, with ``"force"`` always.

    Attributes
    ----------
    evaluations : int
        How many sums there were.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here, or the cost reads shared variables that are no parameters, or draws random
        numbers.
    PartitionError
        When it is called: if workers are lost more often than `retries`. An exception of the cost comes out as it is.

    Notes
    -----
    Between processors of different kinds, and between versions of libraries, a partition itself may differ in its last
    digits.

    Examples
    --------
    >>> from optapi.distributed import Partitions, chunks
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 3))
    >>> y = X @ [1.0, 2.0, 3.0]
    >>> w, x, t = pt.tensor("w", shape=(3,)), pt.matrix("x"), pt.vector("t")
    >>> cost, data = pt.sum((x @ w - t) ** 2), chunks((X, y), 30)
    >>> f = Partitions([w], cost, [x, t], data, weight=1 / 100, mode="PYTHON")
    >>> optapi.minimize(np.zeros(3), f).round(4)
    array([1., 2., 3.])
    """

    # What `minimize` asks of a function, see there.
    returns_gradient = True

    @hinted
    def __init__(self, parameters: Variables, cost: Any = None, inputs: Variables = (), data: Any = (),
                 engine: Any = None, *, weight: float = 1.0, residuals: Any = None, outputs: Variables | None = None,
                 group: int = 1, mode: CompileMode = None, retries: int = RETRIES,
                 progressbar: bool | str = False):  # fmt: skip
        given = check_parameters(parameters)
        if (cost is None) == (residuals is None):
            raise ValueError("pass cost= or residuals=, one of the two")
        inner = None if residuals is None else check_outputs("residuals", as_list("residuals", residuals), given)
        cost = check_cost(cost) if inner is None else sum(pt.sum(r**2) for r in inner) / 2
        z = inner if outputs is None else check_outputs("outputs", outputs, given)
        inputs = as_list("inputs", inputs)
        self.weight = check_number("weight", weight)
        self.retries = check_count("retries", retries, low=0)
        if check_count("group", group) & (group - 1):
            raise ValueError(f"group is {group}; pass a power of 2, so that the sums of groups are parts of one tree")
        check_kind_of_mode(mode)
        self.progressbar = Bar.check(progressbar)
        self.engine = engine_of(engine)
        # In other processes a group is new at each evaluation.
        self._keeps = isinstance(self.engine, Pool) and not isinstance(self.engine.executor, ThreadPoolExecutor)
        parts = parts_of(data, len(inputs))
        if any(map(is_lazy, parts)) and not isinstance(self.engine, Dask):
            raise ValueError("data has what dask computes; pass engine=dask_engine(client)")
        self.count = len(parts)
        name = uuid4().hex
        self._groups = [
            Group(number, name, parts[begin : begin + group])
            for number, begin in enumerate(range(0, len(parts), group))
        ]
        self._parameters = [pt.tensor(p.name, dtype=p.type.dtype, shape=shape_of(p)) for p in given]
        new = dict(zip(given, self._parameters, strict=True))
        expressions = replaced([cost, *(inner or []), *(z or [])], new)
        for v in ancestors(expressions):
            if is_generator(v):
                raise ValueError(f"the cost draws random numbers from {called(v)}; pass them as inputs=")
            if isinstance(v, SharedVariable):
                raise ValueError(
                    f"the cost reads the shared variable {called(v)}, which would travel at each evaluation; pass it "
                    "in parameters, or as a part of the data of each partition in inputs="
                )
        self._cost, rest = expressions[0], expressions[1:]
        self._residuals = rest[: len(inner)] if inner is not None else None
        self._outputs = rest[len(inner or []) :] or None
        differentiate(self._cost, self._parameters)
        self._inputs, self._mode = inputs, mode
        self._kernels: dict[str, Kernel] = {}
        self.evaluations = 0

    # What it is as a function

    def __call__(self, x: Any) -> tuple[float, Any]:
        """The cost and its gradient at a point, an array or, of several parameters, a list of arrays."""
        cost, *gradients = self._sums("gradient", self._point("x", x))
        return float(cost), self._like(gradients, x)

    def product(self, x: Any, v: Any) -> Any:
        """The product of the matrix of second derivatives at `x` with `v`."""
        return self._like(self._sums("product", [*self._point("x", x), *self._point("v", v)]), x)

    def gauss_newton(self, x: Any, v: Any) -> Any:
        """The product of the Gauss-Newton matrix at `x` with `v`, which is positive semidefinite for a convex cost of
        `outputs`.
        """
        if self._outputs is None:
            raise ValueError(
                "there is no Gauss-Newton matrix without outputs; pass residuals= or outputs= to Partitions"
            )
        return self._like(self._sums("gauss_newton", [*self._point("x", x), *self._point("v", v)]), x)

    def normal(self, x: Any) -> tuple[float, np.ndarray, np.ndarray]:
        """Half of the sum of squares of the residuals r at `x`, J'r with their Jacobian J, and the matrix J'J."""
        if self._residuals is None:
            raise ValueError("there are no normal equations of a cost; pass residuals= to Partitions in its place")
        cost, gradient, matrix = self._sums("normal", self._point("x", x))
        return float(cost), gradient, matrix

    def batches(self, rows: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """Mini-batches without end, in a new order in each pass: for rules that take steps on a batch.

        A pass reads one partition after another, in random order, and gives its rows in random order. So rows are mixed
        within partitions alone: mix the data once before they are split. The rest of a partition is a smaller batch.

        Parameters
        ----------
        rows : int
            The size of a batch.
        rng : numpy.random.Generator

        Yields
        ------
        tuple of arrays
            One for each input.
        """
        check_count("rows", rows)
        parts = [part for group in self._groups for part in group.parts]
        while True:
            for number in rng.permutation(len(parts)):
                part = parts[number]
                arrays = [np.asarray(a) for a in (part() if callable(part) else part)]
                order = rng.permutation(len(arrays[0]))
                for begin in range(0, len(order), rows):
                    yield tuple(array[order[begin : begin + rows]] for array in arrays)

    # What it is in a graph

    def cost(self, parameters: Variables) -> Any:
        """The cost as a scalar variable of `parameters`, to which local terms may be added, such as a penalty."""
        oracle = Oracle(
            lambda *point: split(self._sums("gradient", point)),
            lambda point, vectors: self._sums("product", [*point, *vectors]),
        )
        return oracle(self._checked(parameters))

    def residuals(self, parameters: Variables) -> Any:
        """Residuals for `levenberg_marquardt` and `gauss_newton`: as many as components and one more, with the sum of
        squares, J'r and J'J of all partitions.
        """
        if self._residuals is None:
            raise ValueError("there are no residuals of a cost; pass residuals= to Partitions in its place")
        size = self._size

        def call(*point: np.ndarray) -> tuple[Any, list[Any]]:
            cost, gradient, matrix = self._sums("normal", point)
            r, J = compressed(float(cost), gradient, matrix)
            ends = np.cumsum([array.size for array in point])[:-1]
            parts = np.split(J, ends, axis=1)
            return r, [part.reshape(size + 1, *array.shape) for part, array in zip(parts, point, strict=True)]

        return VectorOracle(call, size + 1)(self._checked(parameters))

    # How it is evaluated

    @property
    def _size(self) -> int:
        """The number of components of all parameters."""
        return sum(prod(p.type.shape) for p in self._parameters)

    def _checked(self, parameters: Variables) -> list[Any]:
        found = check_parameters(parameters)
        if [shape_of(p) for p in found] != [tuple(p.type.shape) for p in self._parameters]:
            raise ValueError(
                f"parameters have the shapes {[shape_of(p) for p in found]}, and those of the cost of a partition "
                f"{[tuple(p.type.shape) for p in self._parameters]}; pass variables like these"
            )
        return found

    def _point(self, name: str, x: Any) -> list[np.ndarray]:
        arrays = list(x) if isinstance(x, list | tuple) and len(self._parameters) > 1 else [x]
        if len(arrays) != len(self._parameters):
            raise ValueError(
                f"{name} has {len(arrays)} arrays for {len(self._parameters)} parameters; pass a list of them"
            )
        found = []
        for p, value in zip(self._parameters, arrays, strict=True):
            array = np.asarray(value, p.type.dtype)
            if array.shape != p.type.shape:
                raise ValueError(f"{name} has shape {array.shape} for the parameter of shape {p.type.shape}")
            found.append(array)
        return found

    def _like(self, arrays: list[np.ndarray], x: Any) -> Any:
        return arrays[0] if len(self._parameters) == 1 and not isinstance(x, list) else arrays

    def _sums(self, kind: str, point: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums over all partitions, with the weight; evaluated again where a worker is lost."""
        kernel = self._kernel(kind)
        size = len(self._groups[0].parts)

        def named(number: int) -> str:
            return f"partitions {number * size} to {min((number + 1) * size, self.count) - 1}"

        parts = mapped(self.engine, kernel, self._groups, list(point), self.retries, named)
        sums = tree_sum(self._shown(parts) if Bar.wanted(self.progressbar) else parts)
        self.evaluations += 1
        return [value * self.weight for value in sums]

    def _shown(self, parts: Iterable[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """The `parts`, while a line shows of how many partitions they are."""
        bar, size = Bar(f"evaluation {self.evaluations + 1}, partition", self.count), len(self._groups[0].parts)
        # By itself, since a minimization may have one by `rich`; quick evaluations are not shown.
        bar.shown = bar.began
        try:
            for number, part in enumerate(parts, 1):
                done = min(number * size, self.count)
                bar.show(done, (), done == self.count and bool(bar.width))
                yield part
        finally:
            bar.pause()

    def _kernel(self, kind: str) -> Kernel:
        if kind not in self._kernels:
            ps, vectors = self._parameters, [p.type() for p in self._parameters]
            gradients = differentiate(self._cost, ps)
            if kind == "gradient":
                variables, outputs = ps, [self._cost, *gradients]
            elif kind == "product":
                variables, outputs = [*ps, *vectors], second_derivatives(ps, gradients, vectors, "product")
            elif kind == "gauss_newton":
                z: Any = self._outputs
                images = loss_products(self._cost, z, ps, pushforward(z, ps, vectors), "gauss_newton")
                outputs = pullback(z, ps, images)
                variables = [*ps, *vectors]
            else:
                variables, outputs = ps, self._normal(gradients)
            mode = "PYTHON" if getattr(self._mode, "linker", None) is get_mode("PYTHON").linker else self._mode
            self._kernels[kind] = Kernel(pickle.dumps(([*variables, *self._inputs], outputs, mode)), self._keeps)
        return self._kernels[kind]

    def _normal(self, gradients: Sequence[Any]) -> list[Any]:
        """The cost, J'r and J'J as expressions."""
        ps, residuals = self._parameters, self._residuals
        unit = pt.tensor(dtype=ps[0].type.dtype, shape=(self._size,))
        along = pt.concatenate([v.ravel() for v in pushforward(residuals, ps, unpack(unit, ps))])  # type: ignore[arg-type]
        [rows] = wide_graph([along], {unit: pt.eye(self._size, dtype=unit.type.dtype)})
        packed = pt.concatenate([g.ravel() for g in gradients])
        return [self._cost, packed, pt.dot(rows, rows.T)]


def split(sums: list[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    """The first of them, a cost, and the others."""
    return sums[0], sums[1:]


def compressed(cost: float, gradient: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals and their Jacobian, with this half of the sum of squares, J'r and J'J: n and one more.

    From the eigenvalues of J'J it has half of the digits where J is of low rank.
    """
    values, vectors = np.linalg.eigh(matrix)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    roots = np.sqrt(np.where(kept, values, 0.0))
    r = np.where(kept, vectors.T @ gradient, 0.0) / np.where(kept, roots, 1.0)
    rest = np.sqrt(max(2 * cost - float(r @ r), 0.0))
    J = roots[:, None] * vectors.T
    return np.append(r, rest), np.vstack([J, np.zeros(len(values))])
