"""Steps: a rule on a Python callable, compiled as a function from its state to its next state, and kept for later.

Such a function stands for an algorithm with its options on arrays of some shapes and dtypes, whatever is minimized: the
callable is put into its oracle for the time of a call.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytensor

from ..graph.numpy_linker import STEP, NumpyLinker
from ..graph.oracle import Arrays, Oracle, VectorOracle, central_difference
from ..typing import CompileMode, Updates
from .constraint_functions import RowLimits
from .covariance import Linearized, precision
from .evaluator import Evaluation, Evaluator, Kinds
from .locks import BUILDING, KEEPING
from .options import SYMBOLIC, needs, plain_function
from .program import Places, Program, apply, as_function, full, values_of


@dataclass(eq=False)
class Step:
    """A compiled step.

    Attributes
    ----------
    function : callable
        From the values of all variables to their next values.
    oracle : Oracle
        What the function calls.
    constraints : VectorOracle or None
        What it calls for general constraints.
    start : list
        The values before the first step.
    places : Places
    quiet : bool
        Whether NumPy's warnings are off while it runs.
    """

    function: Any
    oracle: Oracle
    constraints: VectorOracle | None
    start: list[Any]
    places: Places
    quiet: bool

    @cached_property
    def draws(self) -> bool:
        """Whether random generators are among the variables."""
        return any(isinstance(value, np.random.Generator) for value in self.start)

    def __call__(self, values: Sequence[Any], evaluator: Evaluator) -> list[Any]:
        """The next values, or the exception of the callable."""
        oracle = self.oracle
        oracle.call, oracle.product = evaluator.evaluate, evaluator.product
        oracle.differenced, oracle.gradient_error = evaluator.hessp is None, evaluator.gradient_error
        called = [oracle]
        if self.constraints is not None:
            self.constraints.call = evaluator.constrain
            called.append(self.constraints)
        try:
            for each in called:
                each.errors = np.geterr() if self.quiet else None
            new = self.function(*values)
            for each in called:
                each.check()
        finally:
            for each in called:
                each.call = each.product = each.failure = None
        return new


def build(rule: Callable[..., Updates], options: Mapping[str, Any], models: Sequence[np.ndarray], mode: CompileMode,
          length: int | None = None) -> Step:  # fmt: skip
    """`rule` with `options` for parameters like `models`, compiled."""
    oracle, constraints, parameters, stop, updates = on_oracle(rule, options, models, length)
    with warnings.catch_warnings():
        # That it calls Python is what is wanted.
        warnings.filterwarnings("ignore", message="Numba will use object mode")
        function = as_function(updates, (), mode)
    quiet = isinstance(getattr(mode, "linker", None), NumpyLinker)
    start, places = values_of(updates), Places.of(updates, parameters, stop)
    if is_own(rule):
        # The graph waits for Python's collector with all that it holds.
        for variable, value in zip(updates, start, strict=True):
            variable.set_value(value, borrow=True)
    return Step(function, oracle, constraints, start, places, quiet)


def on_oracle(rule: Callable[..., Updates], options: Mapping[str, Any], models: Sequence[np.ndarray],
              length: int | None = None) -> Any:  # fmt: skip
    """An oracle, that of constraints, parameters like `models`, a stop, and the updates that `rule` makes of them.

    The first oracle is of a cost, or with a `length` of so many residuals; the second is None without constraints.
    """
    oracle = Oracle(None) if length is None else VectorOracle(None, length)
    parameters = [
        pytensor.shared(model.copy(), name=f"x{position}" if len(models) > 1 else "x", shape=model.shape)
        for position, model in enumerate(models)
    ]
    stop = pytensor.shared(np.int64(0), name="stop")
    rows, constraints = options.get("constraints"), None
    if isinstance(rows, RowLimits):
        constraints = VectorOracle(None, rows.low.size)
        options = {**options, "constraints": [(constraints(parameters), rows.low, rows.high)] if rows.low.size else []}
    try:
        given = {"cost" if length is None else "residuals": oracle(parameters)}
        return oracle, constraints, parameters, stop, apply(rule, parameters, stop=stop, **given, **options)
    except (TypeError, ValueError) as error:
        for name in SYMBOLIC:
            if f"{name}=" in str(error) or f"'{name}'" in str(error):
                raise TypeError(needs(rule, name)) from error
        raise


def is_own(rule: Callable[..., Any]) -> bool:
    """Whether `rule` is one of this package, whose state at the start depends on shapes and dtypes alone."""
    module = getattr(plain_function(rule), "__module__", "")
    return str(module).partition(".")[0] == __name__.partition(".")[0]


# Functions kept for later


class Cache:
    """Steps that are not in use, by what they were built for: the last `size` of them.

    A step is taken out while it is in use, so that one call inside of another, and one in another thread, have their
    own.
    """

    def __init__(self, size: int = 32):
        self.size = size
        self._free: OrderedDict[Hashable, list[Step]] = OrderedDict()

    def take(self, key: Hashable) -> Step | None:
        """A step that was built for `key`, or None."""
        with KEEPING:
            steps = self._free.get(key)
            return steps.pop() if steps else None

    def give(self, key: Hashable, step: Step) -> None:
        """Keep `step` for later, and drop those that have waited longest if there are too many."""
        with KEEPING:
            self._free.setdefault(key, []).append(step)
            self._free.move_to_end(key)
            while len(self._free) > self.size or sum(map(len, self._free.values())) > self.size:
                oldest = next(iter(self._free))
                if len(self._free[oldest]) > 1:
                    self._free[oldest].pop(0)
                else:
                    del self._free[oldest]

    def clear(self) -> None:
        """Drop all."""
        with KEEPING:
            self._free.clear()


CACHE = Cache()


class OracleProgram(Program):
    """A rule on an oracle: one iteration at a time, by compiled steps that are kept while they are not in use.

    Parameters
    ----------
    rule : callable
    options : dict
    kinds : list of tuple
        The shapes and dtypes of the parameters, see `kinds_of`.
    mode : PyTensor mode, or str
    length : int, optional
        How many residuals the oracle has; by default it has a cost.
    """

    evaluates_start = True

    def __init__(self, rule: Callable[..., Any], options: Mapping[str, Any], kinds: Kinds, mode: CompileMode,
                 length: int | None = None):  # fmt: skip
        self.rule, self.options, self.kinds, self.length = rule, dict(options), kinds, length
        self.mode = STEP if mode is None else mode
        self._own: list[Step] = []
        self.key: Hashable | None = None
        try:
            name = f"mode {mode}" if isinstance(mode, str) else self.mode
            values = tuple((option, by_value(value)) for option, value in options.items())
            self.key = (by_value(rule), values, tuple(kinds), name, pytensor.config.floatX, length)
        except Incomparable:
            pass

    def __reduce__(self) -> Any:
        return type(self), (self.rule, self.options, self.kinds, None if self.mode is STEP else self.mode, self.length)

    def __deepcopy__(self, memo: Any) -> OracleProgram:
        # Options may be variables that mean themselves.
        return type(self)(self.rule, self.options, self.kinds, self.mode, self.length)

    @cached_property
    def places(self) -> Places:  # type: ignore[override]
        with self.step() as step:
            return step.places

    def start(self, parameters: Sequence[np.ndarray]) -> list[Any]:
        """The values of all variables before the first step, at the point `parameters`."""
        if is_own(self.rule):
            with self.step() as step:
                start = step.start
        else:
            start = values_of(on_oracle(self.rule, self.options, parameters, self.length)[-1])
        values = list(map(full, start))
        for place, parameter in zip(self.places.parameters, parameters, strict=True):
            values[place] = parameter.copy()
        return values

    def advance(self, values: Any, evaluator: Evaluator, length: int = 1) -> Any:
        with self.step() as step:
            return step(values, evaluator)

    def is_lost(self, before: Evaluation, values: Any, next_values: Any) -> bool:
        """Whether a rule that does not say so itself has no finite way on."""
        # A rule that reports no reason would go on from a cost that is not finite.
        return "reason" not in self.places.roles and (not before.is_finite or became_nonfinite(values, next_values))

    def linearized(self, point: Arrays, evaluator: Evaluator, inputs: Sequence[Any]) -> Linearized:
        values, jacobians = evaluator.constraints.evaluate(point)
        gradient = np.concatenate([g.ravel() for g in evaluator.gradients(evaluator.at(point))])
        jacobian = np.concatenate([J.reshape(len(values), -1) for J in jacobians], axis=1)
        limits = evaluator.constraints.limits
        return Linearized(gradient.astype(float), values, jacobian, limits.low, limits.high)

    def multiplied(self, point: Arrays, evaluator: Evaluator,
                   multipliers: np.ndarray | None = None) -> tuple[Callable[..., Any], bool, float, bool]:  # fmt: skip
        rows, error, differs = evaluator.constraints, precision(point), evaluator.hessp is None
        noise = max(error, evaluator.gradient_error) if differs else 0.0
        y = np.zeros(0) if multipliers is None else multipliers
        bent = multipliers is not None and rows.is_bent
        if bent:
            noise, differs = max(noise, error, rows.jacobian_error), True

        def pulled(*arrays: np.ndarray) -> Arrays:
            return [np.tensordot(y, J, 1) for J in rows.evaluate(list(arrays))[1]]

        def product(*arrays: np.ndarray) -> Arrays:
            at, vectors = list(arrays[: len(point)]), list(arrays[len(point) :])
            found = evaluator.product(at, vectors)
            if not bent:
                return found
            of_rows = central_difference(pulled, at, vectors, rows.jacobian_error, evaluator.limits)
            return [h - c for h, c in zip(found, of_rows, strict=True)]

        return product, False, noise ** (2 / 3) if differs else error, differs

    @contextmanager
    def step(self) -> Iterator[Step]:
        """A compiled step, for the time of the context."""
        step = self._own.pop() if self._own else None
        if step is None and self.key is not None:
            step = CACHE.take(self.key)
        if step is None:
            with BUILDING:
                models = [np.zeros(shape, dtype) for shape, dtype in self.kinds]
                step = build(self.rule, self.options, models, self.mode, self.length)
        if step.draws:
            self.key = None  # without a seed a rule draws anew each time that it is built
        try:
            yield step
        finally:
            if self.key is None:
                self._own = [step]
            else:
                CACHE.give(self.key, step)


def became_nonfinite(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether a value that was finite no longer is."""
    return any(
        getattr(new, "dtype", None) is not None
        and new.dtype.kind == "f"
        and not np.isfinite(new).all()
        and bool(np.any(np.isfinite(old) & ~np.isfinite(new)))
        for old, new in zip(before, after, strict=True)
    )


class Incomparable(Exception):
    """A value that cannot be told from another one that would do something else."""


def by_value(value: Any) -> Hashable:
    """`value` as a key: two values have the same key only if they mean the same.

    Raises
    ------
    Incomparable
        If that cannot be said.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes):
        return kind, value
    if kind is float or isinstance(value, np.floating | np.integer | np.bool_):
        return kind, value.tobytes() if isinstance(value, np.generic) else value.hex()
    if kind is np.ndarray and value.dtype.kind in "fiub":
        return kind, value.dtype.str, value.shape, value.tobytes()
    if kind in (list, tuple):
        return kind, tuple(map(by_value, value))
    if kind is functools.partial:
        keywords = tuple((name, by_value(keyword)) for name, keyword in value.keywords.items())
        return kind, by_value(value.func), by_value(value.args), keywords
    # A function of the user may read what changes.
    if (
        inspect.isfunction(value)
        and is_own(value)
        and value is getattr(sys.modules[value.__module__], value.__name__, None)
    ):
        return kind, value
    if is_dataclass(value) and not isinstance(value, type) and kind.__dataclass_params__.frozen:
        return kind, tuple(by_value(getattr(value, field.name)) for field in fields(value))
    raise Incomparable
