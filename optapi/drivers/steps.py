"""Steps: a rule on a Python callable, compiled as a function from its state to its next state, and kept for later.

The function changes nothing, so a step that fails has not happened. It stands for an algorithm with its options on
arrays of some shapes and dtypes, whatever is minimized: the callable is put into its oracle for the time of a call.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.mode import Mode
from pytensor.graph.replace import graph_replace
from pytensor.graph.rewriting.db import RewriteDatabaseQuery

from ..graph.loops import check_generators
from ..graph.numpy_linker import NumpyLinker
from ..graph.oracle import Oracle
from ..updates import Updates, reports
from .evaluator import BUILDING, Evaluator


# Rules are built of few operations, which are merged and otherwise run as they are: to rewrite them would take longer
# than many a minimization.
STEP = Mode(NumpyLinker(borrow=True), RewriteDatabaseQuery(include=["minimum_compile", "merge"]))

# What a rule may need beside a cost and its gradients, and a NumPy function cannot give.
SYMBOLIC = ("residuals", "outputs", "per_example")


@dataclass(eq=False)
class Step:
    """A compiled step.

    Attributes
    ----------
    function : callable
        From the values of all variables to their next values.
    oracle : Oracle
        What the function calls.
    updates : dict
        What the rule returned, for the variables it is about.
    names : list of str
        The names of the variables, for a file.
    start : list
        Their values before the first step.
    parameters : list of int
        Where the parameters are among them.
    stop : int or None
        Where the stop is.
    roles : dict
        Where the reports are, see `optapi.reports`.
    """

    function: Any
    oracle: Oracle
    updates: Updates
    names: list[str]
    start: list[Any]
    parameters: list[int]
    stop: int | None
    roles: dict[str, list[int]]
    quiet: bool  # whether NumPy's warnings are off while it runs

    @cached_property
    def draws(self) -> bool:
        """Whether random generators are among the variables."""
        return any(isinstance(value, np.random.Generator) for value in self.start)

    def __call__(self, values: Sequence[Any], evaluator: Evaluator) -> list[Any]:
        """The next values, or the exception of the callable."""
        oracle = self.oracle
        oracle.call, oracle.product = evaluator.evaluate, evaluator.product
        oracle.errors = np.geterr() if self.quiet else None
        try:
            new = self.function(*values)
            oracle.check()
        finally:
            oracle.call = oracle.product = oracle.failure = None
        return new

    def read(self, function: Callable[[Updates], Any], values: Sequence[Any]) -> Any:
        """What `function` of the updates finds when their variables have `values`."""
        try:
            for variable, value in zip(self.updates, values, strict=True):
                variable.set_value(value, borrow=True)
            return function(self.updates)
        finally:
            for variable, value in zip(self.updates, self.start, strict=True):
                variable.set_value(value, borrow=True)


def build(rule: Callable[..., Updates], options: Mapping[str, Any], models: Sequence[np.ndarray], mode: Any) -> Step:
    """`rule` with `options` for parameters like `models`, compiled."""
    oracle, parameters, stop, updates = apply(rule, options, models)
    with warnings.catch_warnings():
        # That it calls Python is what is wanted.
        warnings.filterwarnings("ignore", message="Numba will use object mode")
        function = as_function(updates, (), mode)
    where = {variable: position for position, variable in enumerate(updates)}
    return Step(
        function,
        oracle,
        updates,
        names=names_of(updates),
        start=values_of(updates),
        parameters=[where[p] for p in parameters],
        stop=where.get(stop),
        roles={role: [where[v] for v in found] for role, found in reports(updates).items()},
        quiet=isinstance(getattr(mode, "linker", None), NumpyLinker),
    )


def as_function(updates: Updates, inputs: Sequence[Any], mode: Any) -> Any:
    """A function from the values of the variables of `updates`, and of `inputs`, to their next values.

    It changes nothing, and takes arguments as they are: arrays of the very types.
    """
    variables = list(updates)
    now = [variable.type() for variable in variables]
    following = graph_replace(list(updates.values()), dict(zip(variables, now, strict=True)), strict=False)
    function = pytensor.function([*now, *inputs], following, mode=mode, on_unused_input="ignore")
    function.trust_input = True
    return function


def names_of(updates: Updates) -> list[str]:
    """Names for the variables of `updates` in a file, of which no two are the same."""
    return [f"{position}/{variable.name}" for position, variable in enumerate(updates)]


def apply(rule: Callable[..., Updates], options: Mapping[str, Any], models: Sequence[np.ndarray]) -> Any:
    """An oracle, parameters like `models`, a stop, and the updates that `rule` makes of them."""
    oracle = Oracle(None)
    parameters = [
        pytensor.shared(model.copy(), name=f"x{position}" if len(models) > 1 else "x", shape=model.shape)
        for position, model in enumerate(models)
    ]
    stop = pytensor.shared(np.int64(0), name="stop")
    try:
        updates = rule(parameters, cost=oracle(parameters), stop=stop, **options)
    except (TypeError, ValueError) as error:
        for name in SYMBOLIC:
            if f"{name}=" in str(error) or f"'{name}'" in str(error):
                raise TypeError(needs(rule, name)) from error
        raise
    if not isinstance(updates, dict) or not all(p in updates for p in parameters):
        raise TypeError(
            f"opt_algo is {rule!r}, which returned no dictionary with a next value of each parameter; pass a rule, for "
            "instance optapi.lbfgs"
        )
    check_generators(updates)
    return oracle, parameters, stop, updates


def needs(rule: Any, name: str) -> str:
    """The sentence for a rule that needs an expression."""
    return (
        f"{name_of(rule)} needs {name}=, an expression of PyTensor, which a NumPy function has not; build the cost "
        "with PyTensor and use compile_minimizer, or call the rule on it"
    )


def values_of(updates: Updates) -> list[Any]:
    """Copies of the values of the variables of `updates`."""
    values = [variable.get_value(borrow=False) for variable in updates]
    return [value if isinstance(value, np.random.Generator) else np.asarray(value) for value in values]


def name_of(rule: Any) -> str:
    """The name of a rule, for messages."""
    while isinstance(rule, functools.partial):
        rule = rule.func
    return getattr(rule, "__name__", type(rule).__name__)


def is_own(rule: Any) -> bool:
    """Whether `rule` is one of this package, whose state at the start depends on shapes and dtypes alone."""
    while isinstance(rule, functools.partial):
        rule = rule.func
    return str(getattr(rule, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


# Functions kept for later


class Cache:
    """Steps that are not in use, by what they were built for: the last `size` of them.

    A step is taken out while it is in use, so that one call inside of another, and one in another thread, have their
    own.
    """

    def __init__(self, size: int = 32):
        self.size = size
        self._lock = threading.Lock()
        self._free: OrderedDict[Hashable, list[Step]] = OrderedDict()

    # An interrupt may come between any two lines.

    def take(self, key: Hashable) -> Step | None:
        """A step that was built for `key`, or None."""
        with self._lock:
            steps = self._free.get(key)
            return steps.pop() if steps else None

    def give(self, key: Hashable, step: Step) -> None:
        """Keep `step` for later, and drop those that have waited longest if there are too many."""
        with self._lock:
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
        with self._lock:
            self._free.clear()


CACHE = Cache()


class Recipe:
    """What a step is built from, and where it is kept while it is not in use.

    Parameters
    ----------
    rule : callable
    options : dict
    models : list of arrays
        Arrays of the shapes and dtypes of the parameters.
    mode : PyTensor mode, or str
    """

    def __init__(self, rule: Any, options: Mapping[str, Any], models: Sequence[np.ndarray], mode: Any):
        self.rule, self.options, self.mode = rule, dict(options), STEP if mode is None else mode
        self.shapes = [(model.shape, model.dtype.str) for model in models]
        self._set_key()

    def _set_key(self) -> None:
        self.key: Hashable | None
        try:
            mode = self.mode if not isinstance(self.mode, str) else f"mode {self.mode}"
            options = {name: by_value(option) for name, option in self.options.items()}
            self.key = (by_value(self.rule), tuple(options.items()), tuple(self.shapes), mode, pytensor.config.floatX)
        except Incomparable:
            self.key = None
        self._own: list[Step] = []

    def __getstate__(self) -> dict[str, Any]:
        mode = None if self.mode is STEP else self.mode
        return {"rule": self.rule, "options": self.options, "shapes": self.shapes, "mode": mode}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.mode = STEP if self.mode is None else self.mode
        self._set_key()

    def __deepcopy__(self, memo: Any) -> Recipe:
        return Recipe(self.rule, self.options, self.models, self.mode)  # options may be variables that mean themselves

    @property
    def models(self) -> list[np.ndarray]:
        """Arrays of the shapes and dtypes of the parameters."""
        return [np.zeros(shape, dtype) for shape, dtype in self.shapes]

    def start(self, parameters: Sequence[np.ndarray]) -> list[Any]:
        """The values of all variables before the first step, at the point `parameters`."""
        with self.step() as step:
            if is_own(self.rule):
                values = copy.deepcopy(step.start)
            else:
                values = values_of(apply(self.rule, self.options, parameters)[-1])
            for position, parameter in zip(step.parameters, parameters, strict=True):
                values[position] = parameter.copy()
        return values

    @contextmanager
    def step(self) -> Iterator[Step]:
        """A compiled step, for the time of the context."""
        step = self.take()
        try:
            yield step
        finally:
            self.give(step)

    def take(self) -> Step:
        """A compiled step, which is to be given back."""
        step = self._own.pop() if self._own else None
        if step is None and self.key is not None:
            step = CACHE.take(self.key)
        if step is None:
            with BUILDING:
                step = build(self.rule, self.options, self.models, self.mode)
        if step.draws:
            self.key = None  # without a seed a rule draws anew each time that it is built
        return step

    def give(self, step: Step) -> None:
        """Keep `step` for later."""
        if self.key is None:
            self._own = [step]
        else:
            CACHE.give(self.key, step)


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
    if kind in (list, tuple):
        return kind, tuple(map(by_value, value))
    if kind is functools.partial:
        keywords = tuple((name, by_value(keyword)) for name, keyword in value.keywords.items())
        return kind, by_value(value.func), by_value(value.args), keywords
    if inspect.isfunction(value) and value is getattr(sys.modules.get(value.__module__), value.__name__, None):
        return kind, value
    if is_dataclass(value) and not isinstance(value, type) and kind.__dataclass_params__.frozen:
        return kind, tuple(by_value(getattr(value, field.name)) for field in fields(value))
    raise Incomparable
