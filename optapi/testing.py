"""Tests of rules: what every rule promises, as a function that checks any rule, without pytest.

Each promise is a function of a `Case`, a rule with options, and raises an error where it is broken. The functions are
compiled without rewrites, which are most of the time that it takes to compile.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.traversal import ancestors

from . import schedules
from .checks import check_callable, check_flag, check_number
from .drivers.compiled import compile_minimizer
from .drivers.numpy import minimize, minimize_iterator
from .drivers.options import PASSED
from .graph.batches import batch
from .graph.loops import loop
from .graph.numpy_linker import PYTHON, STEP
from .state import load, save
from .transforms import skip_nonfinite
from .typing import Updates
from .updates import reports


__all__ = ["check_rule"]

ARGUMENTS = list(PASSED)
OPTIONS = {"step_size", "tolerance", "ascent", "name"}
# A driver hands all other keywords on to the rule.
DRIVER_KEYWORDS = {
    parameter.name
    for driver in (minimize, minimize_iterator, compile_minimizer)
    for parameter in inspect.signature(driver).parameters.values()
    if parameter.kind is not parameter.VAR_KEYWORD
} - set(PASSED)


def check_rule(
    rule: Callable[..., Updates], *, settles: bool = True, settling_step_size: float = 0.05, **options: Any
) -> None:
    """Check that `rule`, called with `options`, keeps the promises of all rules.

    They are about its signature and its errors; the keys, names and dtypes of its updates; ascent; step sizes and
    hyper-parameters in all forms; when it stops, and that nothing changes then; NaN; loops, batches and files; and
    costs that have inputs or draw random numbers. What the rule needs is found out: the cost, residuals, and whether it
    searches, which is to say that it reports a ``"reason"``.

    Parameters
    ----------
    rule : callable
    settles : bool
        Whether the rule comes to rest at the minimizer of a smooth convex cost with a constant step size. One that
        divides the gradient by its own size does not, and is then only started there.
    settling_step_size : float
        That step size. A rule that searches is not given one.
    **options
        Options of the rule: those that change what it computes, each in a check of its own, and a step size that suits
        a cost with second derivatives of about 1.

    Raises
    ------
    AssertionError
        If a promise is broken. The message says which and how.

    Notes
    -----
    It takes a few seconds. Whether the rule is the algorithm of its paper, only a comparison with another program of it
    can tell.

    Examples
    --------
    >>> def sign_descent(parameters, cost=None, gradients=None, stop=None, updates=None, *,
    ...                  step_size=0.01, tolerance=None, ascent=False, name="sign_descent"):
    ...     f = optapi.Objective.of(parameters, cost, gradients, stop, updates,
    ...                             tolerance=tolerance, ascent=ascent, name=name)
    ...     return f.finish({p: p - a * pt.sign(g) for p, g, a in f.each(f.step_size(step_size))})
    >>> optapi.testing.check_rule(sign_descent, settles=False, step_size=0.1)
    """
    check_callable("rule", rule, "a rule, a function such as optapi.sgd")
    check_flag("settles", settles)
    check_number("settling_step_size", settling_step_size, low=0)
    case = Case(rule, options, settles, settling_step_size)
    for promise in PROMISES:
        check_promise(case, promise)


@dataclass(frozen=True)
class Case:
    """A rule with options, and what the promises must know about it, see `check_rule`."""

    rule: Callable[..., Updates]
    options: dict[str, Any] = field(default_factory=dict)
    settles: bool = True
    settling_step_size: float = 0.05

    def __call__(self, parameters: Any, cost: Any = None, **kwargs: Any) -> Updates:
        """The updates of the rule, with one residual whose square is twice the cost if it needs residuals."""
        if self.needs_residuals:
            kwargs["residuals"] = pt.sqrt(2 * abs(cost))[None]
        return self.rule(parameters, cost, **{**self.options, **kwargs})

    def __str__(self) -> str:
        words = "-".join([getattr(self.rule, "__name__", "rule"), *(f"{k}={v}" for k, v in self.options.items())])
        return re.sub(r"<function (\w+) at \w+>", r"\1", words)

    @cached_property
    def needs_residuals(self) -> bool:
        """Whether the rule has an argument `residuals` without a default."""
        residuals = inspect.signature(self.rule).parameters.get("residuals")
        return residuals is not None and residuals.default is inspect.Parameter.empty

    @cached_property
    def needs_cost(self) -> bool:
        """Whether the rule asks for the cost where it is given gradients alone."""
        if self.needs_residuals:
            return True
        ps = _parameters()
        try:
            self(ps, gradients=pytensor.grad(_bowl(ps), ps))
        except ValueError as error:
            if "pass cost=" in str(error):
                return True
            raise
        return False

    @cached_property
    def searches(self) -> bool:
        """Whether the rule looks for a better point, and so knows when there is none: it reports a reason."""
        ps = _parameters()
        return "reason" in reports(self(ps, _bowl(ps), stop=pytensor.shared(0)))


Promise = Callable[[Case], None]
PROMISES: list[Promise] = []


def check_promise(case: Case, promise: Promise) -> None:
    """Raise an AssertionError that says which promise it is, if `case` breaks `promise`."""
    try:
        promise(case)
    except Exception as error:
        detail = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        raise AssertionError(
            f"{case} breaks a promise of all rules, {promise.__name__} ({inspect.getdoc(promise)}): {detail}"
        ) from error


def _promise(function: Promise) -> Promise:
    PROMISES.append(function)
    return function


def _expect(condition: Any, sentence: str) -> None:
    """Raise `sentence` unless `condition` holds; an assert statement would be left out by ``python -O``."""
    if not condition:
        raise AssertionError(sentence)


@contextmanager
def _raises(kind: type[Exception], word: str, cause: str) -> Iterator[None]:
    """Expect that `cause` raises an error of `kind` whose message contains `word`."""
    try:
        yield
    except kind as error:
        _expect(word in str(error), f"{cause} raised a {kind.__name__} that does not name {word!r}: {error}")
    else:
        raise AssertionError(f"{cause} did not raise a {kind.__name__}")


def _parameters(names: Sequence[str | None] = ("a", "b")) -> list[Any]:
    """A vector and a matrix, away from the minimizer."""
    values = [np.array([0.5, -1.0, 2.0]), np.array([[1.0, -2.0], [0.25, 3.0]])]
    return [pytensor.shared(value, name=name) for value, name in zip(values, names, strict=True)]


def _bowl(ps: Sequence[Any]) -> Any:
    """A smooth convex cost, its minimizer at zero, that no rule solves in one step."""
    return sum(pt.sum((0.5 + 0.1 * pt.arange(p.size).reshape(p.shape)) * pt.sqrt(1 + p**2)) for p in ps)


def _compiled(updates: Updates, inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()) -> Any:
    return pytensor.function(list(inputs), list(outputs), updates=updates, mode=STEP)


def _evaluated(expressions: Any) -> Any:
    return pytensor.function([], expressions, mode=PYTHON)


def _values(variables: Any) -> list[np.ndarray]:
    return [np.array(variable.get_value()) for variable in variables]


def _run(step: Callable[[], Any], calls: int) -> None:
    for _ in range(calls):
        step()


def _expect_close(first: Sequence[Any], second: Sequence[Any], sentence: str, tolerance: float = 1e-12) -> None:
    for x, y in zip(first, second, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=sentence)


def _expect_equal(first: Sequence[Any], second: Sequence[Any], sentence: str) -> None:
    _expect(all(np.array_equal(x, y, equal_nan=True) for x, y in zip(first, second, strict=True)), sentence)


# The promises


@_promise
def signature(case: Case) -> None:
    """The first five arguments and some options are those of all rules, the options by keyword alone."""
    found = inspect.signature(case.rule).parameters
    names = list(found)
    _expect(names[:5] == ARGUMENTS, f"its first arguments are {names[:5]}, not {ARGUMENTS}")
    _expect(all(found[n].default is None for n in names[1:5]), "an argument after parameters has a default but None")
    kinds = {found[n].kind for n in names[5:]}
    others = {inspect.Parameter.VAR_KEYWORD} & kinds  # options of another rule, such as its step size
    kinds -= others
    _expect(kinds == {inspect.Parameter.KEYWORD_ONLY}, "an option can be passed by position; put * before the options")
    _expect(others or set(names) >= OPTIONS, f"it has no option {', '.join(sorted(OPTIONS - set(names)))}")
    taken = DRIVER_KEYWORDS & set(names)
    _expect(not taken, f"minimize has an argument of the name of its option {', '.join(sorted(taken))}")


@_promise
def keys(case: Case) -> None:
    """The keys are the parameters, `stop`, and state whose names are unique and begin with `name`."""
    ps, stop = _parameters(), pytensor.shared(0, name="stop")
    updates = case(ps, _bowl(ps), stop=stop, name="mine")
    _expect(isinstance(updates, dict), f"it returned a {type(updates).__name__}, not a dictionary")
    _expect(set(ps) <= set(updates), "a parameter has no update")
    _expect(stop in updates, "stop has no update")
    names = [variable.name for variable in updates if variable not in ps and variable is not stop]
    _expect(all(name and name.startswith("mine/") for name in names), f"state has the names {names} for name='mine'")
    _expect(len(set(names)) == len(names), f"two states have one name: {names}")


@_promise
def updates_in_place(case: Case) -> None:
    """`updates` is extended and returned."""
    ps, other = _parameters(), pytensor.shared(1.0)
    mine = {other: other + 1}
    updates = case(ps, _bowl(ps), updates=mine)
    _expect(updates is mine, "it returned another dictionary")
    _expect(next(iter(updates)) is other, "the item that was there is not the first")
    _expect(set(ps) < set(updates), "a parameter has no update")


@_promise
def names_in_one_dictionary(case: Case) -> None:
    """Two calls that extend one dictionary name their state apart, so that it can be saved and loaded."""
    first, second = _parameters((None, None)), _parameters((None, None))
    updates = case(first, _bowl(first))
    case(second, _bowl(second), updates=updates)
    names = [variable.name for variable in updates if variable not in (*first, *second)]
    _expect(len(set(names)) == len(names), f"two variables have one name: {names}")
    before = _values(updates)
    with tempfile.TemporaryDirectory() as folder:
        save(f"{folder}/two.npz", updates)
        load(f"{folder}/two.npz", updates)
    _expect_equal(before, _values(updates), "what was loaded is not what was saved")


@_promise
def collisions(case: Case) -> None:
    """A parameter or `stop` that already has an update is a KeyError, which leaves `updates` as it was."""
    ps, stop = _parameters(), pytensor.shared(0, name="stop")
    for taken in (ps[1], stop):
        mine = {taken: taken}
        with _raises(KeyError, taken.name, f"a second update of {taken.name!r}"):
            case(ps, _bowl(ps), stop=stop, updates=mine)
        _expect(mine == {taken: taken}, "updates has changed")


@_promise
def types(case: Case) -> None:
    """Parameters keep dtypes and static shapes, and those in float32 have arithmetic in float32, for all `floatX`."""
    shapes = [(), (3,), (2, 3), (2, 2, 2), (3, 1)]
    for dtype, floatX in (("float32", "float32"), ("float32", "float64"), ("float64", "float32"), ("float64",) * 2):
        here = f"with parameters in {dtype} and floatX={floatX}"
        with pytensor.config.change_flags(floatX=floatX):
            ps = [pytensor.shared(np.ones(s, dtype), name=f"p{i}", shape=s) for i, s in enumerate(shapes)]
            cost = sum(((p - np.asarray(0.5, dtype)) ** 2).sum() for p in ps)
            updates = case(ps, cost, stop=pytensor.shared(0))
            for p, shape in zip(ps, shapes, strict=True):
                _expect(updates[p].type == p.type, f"the next value of {p.type} is {updates[p].type} {here}")
                _expect(updates[p].type.shape == shape, f"the next value has another static shape {here}")
            for variable, value in updates.items():
                kinds = (value.dtype, value.ndim), (variable.dtype, variable.ndim)
                _expect(kinds[0] == kinds[1], f"the next value of {variable.name} is {kinds[0]}, not {kinds[1]} {here}")
                _expect(variable.dtype in (dtype, "int64", "int8"), f"{variable.name} is in {variable.dtype} {here}")
            if dtype == "float32":
                graph = ancestors(list(updates.values()))
                wide = [v for v in graph if getattr(v.type, "dtype", None) == "float64" and v.type.ndim]
                _expect(not wide, f"{wide[:1]} is an array in float64 {here}; scalars alone may be")
            _run(_compiled(updates), 3)
        for p, shape in zip(ps, shapes, strict=True):
            value = p.get_value()
            _expect(value.dtype == dtype and value.shape == shape, f"{p.type} has become {value.dtype} {value.shape}")
            _expect(np.all(np.abs(value - 0.5) < 0.5), f"after 3 calls it is no nearer to the minimizer {here}")


@_promise
def mixed_dtypes(case: Case) -> None:
    """Parameters of several dtypes keep them, each its own."""
    ps = [pytensor.shared(np.ones(3, "float32"), name="narrow"), pytensor.shared(np.ones((2, 2)), name="wide")]
    _run(_compiled(case(ps, _bowl(ps))), 3)
    _expect([p.get_value().dtype for p in ps] == ["float32", "float64"], "a dtype has changed")
    _expect(all(np.all(p.get_value() < 1) for p in ps), "after 3 calls it is no nearer to the minimizer")


@_promise
def one_parameter_without_a_name(case: Case) -> None:
    """One variable stands for a list of one, and needs no name."""
    p = pytensor.shared(np.ones(3))
    updates = case(p, _bowl([p]))
    _expect(len({v.name for v in updates}) == len(updates), "two variables have one name")
    _run(_compiled(updates), 2)  # the first call of some rules only looks
    _expect(np.all(p.get_value() < 1), "after 2 calls it is no nearer to the minimizer")


@_promise
def given_gradients(case: Case) -> None:
    """Gradients that are passed do as those of the cost, and without it unless the rule needs it."""
    first, second = _parameters(), _parameters()
    cost = _bowl(second)
    by_cost = case(first, _bowl(first))
    by_gradients = case(second, cost if case.needs_cost else None, gradients=pytensor.grad(cost, second))
    _run(_compiled(by_cost), 5)
    _run(_compiled(by_gradients), 5)
    _expect_close(_values(by_cost), _values(by_gradients), "after 5 calls the values differ")


@_promise
def ascent(case: Case) -> None:
    """Ascent on the negative cost is descent on the cost, and reports the cost of the user."""
    first, second = _parameters(), _parameters()
    down, up = case(first, _bowl(first)), case(second, -_bowl(second), ascent=True)
    _run(_compiled(down), 5)
    _run(_compiled(up), 5)
    _expect_close(_values(down), _values(up), "after 5 calls the values differ")
    ps, stop = _parameters(), pytensor.shared(0)
    updates = case(ps, -_bowl(ps), stop=stop, ascent=True)
    _compiled(updates)()
    for cost in reports(updates).get("cost", []):
        _expect_close([cost.get_value()], [_evaluated(-_bowl(ps))()], "it reports another cost")


@_promise
def forms_of_step_size(case: Case) -> None:
    """A step size is a number, a variable, an expression, a schedule or a function, and all do the same."""
    shared = pytensor.shared(np.float64(0.25))
    runs = []
    for step_size in (0.25, shared, 1.0 * shared, schedules.Constant(0.25), lambda count: 0.25):
        ps = _parameters()
        _run(_compiled(case(ps, _bowl(ps), step_size=step_size)), 5)
        runs.append(_values(ps))
    for run in runs[1:]:
        _expect_close(runs[0], run, "after 5 calls the values differ")


@_promise
def shared_step_size(case: Case) -> None:
    """A shared step size can be changed between calls."""
    ps, shared = _parameters(), pytensor.shared(np.float64(0.25))
    updates = case(ps, _bowl(ps), step_size=shared)
    start, step = _values(updates), _compiled(updates)
    _run(step, 2)
    first = _values(ps)
    for variable, value in zip(updates, start, strict=True):
        variable.set_value(value)
    shared.set_value(0.15)
    _run(step, 2)
    _expect(not np.allclose(first[0], _values(ps)[0]), "another step size has led to the same point")


@_promise
def hyper_parameters_as_variables(case: Case) -> None:
    """Options that are floating-point numbers may be scalar variables, and do the same."""
    numbers = {n: p.default for n, p in inspect.signature(case.rule).parameters.items() if type(p.default) is float}
    numbers |= {n: value for n, value in case.options.items() if type(value) is float}
    # For 0 a rule may leave out a part, and refuse it elsewhere.
    numbers = {n: value for n, value in numbers.items() if value or n in case.options}
    variables = {n: pytensor.shared(np.float64(value)) for n, value in numbers.items()}
    first, second = _parameters(), _parameters()
    one, two = _compiled(case(first, _bowl(first), **numbers)), _compiled(case(second, _bowl(second), **variables))
    _run(one, 5)
    _run(two, 5)
    _expect_close(_values(first), _values(second), "after 5 calls the values differ")


@_promise
def loops(case: Case) -> None:
    """A loop of calls does as the calls, and nothing once it has stopped."""
    first, second, stops = _parameters(), _parameters(), [pytensor.shared(0), pytensor.shared(0)]
    calls = case(first, _bowl(first), stop=stops[0], tolerance=1e-6)
    looped = case(second, _bowl(second), stop=stops[1], tolerance=1e-6)
    begin, step = _values(looped), _compiled(loop(looped, 25, stops[1]))
    _run(_compiled(calls), 25)
    step()
    _expect_close(_values(calls), _values(looped), "after 25 calls and a loop of 25 the values differ")
    for variable, value in zip(looped, begin, strict=True):
        variable.set_value(value)
    stops[1].set_value(1)
    before = _values(looped)
    step()
    _expect_equal(before, _values(looped), "a value has changed after stop")


@_promise
def batches(case: Case) -> None:
    """A batch of starts does as a run from each."""
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=(3, 3)), rng.normal(size=(3, 2, 2))]
    ps, stop = _parameters(), pytensor.shared(0, name="stop")
    updates = case(ps, _bowl(ps), stop=stop, tolerance=1e-6)
    begin = _values(updates)

    wide = [pytensor.shared(start.copy()) for start in starts]
    stops = pytensor.shared(np.zeros(3, "int64"))
    together = batch(updates, {**dict(zip(ps, wide, strict=True)), stop: stops})
    _run(_compiled(together), 10)

    alone = _compiled(updates)
    for member in range(3):
        for variable, value in zip(updates, begin, strict=True):
            variable.set_value(value)
        for p, start in zip(ps, starts, strict=True):
            p.set_value(start[member])
        _run(alone, 10)
        found = [value[member] for value in _values(together)]
        _expect_close(_values(updates), found, "after 10 calls the values differ")


@_promise
def files(case: Case) -> None:
    """Going on from a file is, to the bit, going on."""
    ps, stop = _parameters(), pytensor.shared(0, name="stop")
    updates = case(ps, _bowl(ps), stop=stop)
    step = _compiled(updates)
    _run(step, 3)
    with tempfile.TemporaryDirectory() as folder:
        save(f"{folder}/run.npz", updates)
        _run(step, 3)
        uninterrupted = _values(updates)
        load(f"{folder}/run.npz", updates)
    _run(step, 3)
    _expect_equal(uninterrupted, _values(updates), "after 3 calls the values differ")


@_promise
def frozen_after_stop(case: Case) -> None:
    """After `stop` nothing of the rule changes, and what others wrote into `updates` does."""
    ps, stop, mine = _parameters(), pytensor.shared(0), pytensor.shared(0)
    updates = case(ps, _bowl(ps), stop=stop, updates={mine: mine + 1})
    step = _compiled(updates)
    _run(step, 2)
    stop.set_value(1)
    before = _values(updates)
    _run(step, 2)
    _expect(mine.get_value() == 4, "the update that was there is not done after stop")
    _expect_equal(before[1:], _values(updates)[1:], "a value has changed after stop")


@_promise
def start_at_the_minimizer(case: Case) -> None:
    """Where the gradient meets the tolerance before the first call, nothing moves, and `stop` is 1."""
    ps, stop = _parameters(), pytensor.shared(0)
    for p in ps:
        p.set_value(np.full_like(p.get_value(), 1e-9))
    before = _values(ps)
    updates = case(ps, _bowl(ps), stop=stop, tolerance=1e-6)
    _compiled(updates)()
    _expect(stop.get_value() == 1, "stop is not 1")
    _expect_equal(before, _values(ps), "a parameter has moved")
    found = reports(updates)
    _expect(all(reason.get_value() == 0 for reason in found.get("reason", [])), "the reason is not 0")
    for cost in found.get("cost", []):
        _expect_close([cost.get_value()], [_evaluated(_bowl(ps))()], "it reports another cost")


@_promise
def shapes(case: Case) -> None:
    """It takes parameters of all shapes; those without components have converged where they are."""
    for several in (((0,), (3, 0)), ((), (1, 1, 1), (0,))):
        ps, stop = [pytensor.shared(np.full(shape, 0.5)) for shape in several], pytensor.shared(0)
        updates = case(ps, 0.5 + _bowl(ps), stop=stop, tolerance=1e-3)
        _compiled(updates)()
        held = _values(ps)
        _expect([x.shape for x in held] == list(several), f"parameters of the shapes {several} have other ones")
        _expect(all(np.all(np.isfinite(x)) for x in held), f"one of the shapes {several} is not finite")
        if not sum(x.size for x in held):
            _expect(stop.get_value() == 1, f"stop is not 1 for the shapes {several}")
            found = reports(updates)
            _expect(all(reason.get_value() == 0 for reason in found.get("reason", [])), "the reason is not 0")
            _expect(all(cost.get_value() == 0.5 for cost in found.get("cost", [])), "it reports another cost")


@_promise
def stop_is_about_the_point_held(case: Case) -> None:
    """`stop` is 1 after a call that begins or ends where the gradient meets the tolerance, and only there."""
    ps, stop = _parameters(), pytensor.shared(0, name="stop")
    cost, tolerance = _bowl(ps), 1e-3
    options = {} if case.searches else {"step_size": case.settling_step_size}
    step = _compiled(case(ps, cost, stop=stop, tolerance=tolerance, **options))
    slopes: Any = pytensor.grad(cost, ps)
    sizes = _evaluated([abs(g).max() for g in slopes])
    if not case.settles:  # only a start can be the end
        for p in ps:
            p.set_value(np.zeros_like(p.get_value()))
    for _ in range(3000):
        met = max(sizes()) <= tolerance
        step()
        if stop.get_value():
            break
        _expect(not met, "the gradient met the tolerance before a call, and stop is 0 after it")
    _expect(
        stop.get_value() == 1,
        f"in 3000 calls with {options or 'its own step size'} it has not come to rest; pass another "
        "settling_step_size, or settles=False if it needs one that falls",
    )
    _expect(max(sizes()) <= tolerance, "stop is 1 where the gradient does not meet the tolerance")


@_promise
def nan(case: Case) -> None:
    """NaN in one component of the gradient meets no tolerance; a rule that searches says that it cannot go on."""
    ps, stop = _parameters(), pytensor.shared(0)
    ps[0].set_value(np.array([0.0, np.nan, 0.0]))
    ps[1].set_value(np.zeros((2, 2)))
    updates = case(ps, _bowl(ps), stop=stop, tolerance=1e-3)
    before = _values(ps)
    _compiled(updates)()
    if case.searches:
        reasons = [reason.get_value() for reason in reports(updates)["reason"]]
        _expect((stop.get_value(), reasons) == (1, [3]), f"stop is {stop.get_value()} and the reason {reasons}")
        _expect_equal(before, _values(ps), "a parameter has moved")
    else:
        _expect(stop.get_value() == 0, "stop is 1")


@_promise
def skipped_calls(case: Case) -> None:
    """A call with a cost of NaN can be skipped, see `optapi.skip_nonfinite`, and leaves no trace."""

    def run(scales: Sequence[float]) -> tuple[list[np.ndarray], Any]:
        ps, scale = _parameters(), pytensor.shared(1.0)
        updates = skip_nonfinite(case(ps, scale * _bowl(ps)))
        step = _compiled(updates)
        for value in scales:
            scale.set_value(value)
            step()
        [skipped] = reports(updates)["skipped"]
        return _values(ps), skipped.get_value()

    clean, none = run([1.0, 1.0, 1.0, 1.0])
    dirty, skipped = run([1.0, 1.0, np.nan, 1.0, 1.0])
    _expect(none == 0, f"{none} calls were skipped without NaN")
    _expect(all(np.all(np.isfinite(x)) for x in dirty), "a parameter is not finite")
    if not case.searches:  # a rule that searches never accepts such a point, so has nothing to skip
        _expect(skipped == 1, f"{skipped} calls were skipped, not 1")
        _expect_equal(clean, dirty, "the values are not those without the call")


@_promise
def costs_with_inputs(case: Case) -> None:
    """The cost may have inputs."""
    ps, x = _parameters(), pt.dscalar("x")
    step = _compiled(case(ps, _bowl(ps) * x), inputs=[x], outputs=[_bowl(ps)])
    costs = [step(1.0)[0] for _ in range(10)]
    _expect(costs[-1] < costs[0], f"10 calls have not lowered the cost: {costs}")


@_promise
def costs_with_draws(case: Case) -> None:
    """The cost may draw random numbers."""
    rng: Any = pt.random.shared_rng(seed=1)
    ps = _parameters()
    next_rng, noise = rng.normal(scale=1e-3, size=(3,))
    cost = _bowl(ps) + pt.sum(noise * ps[0])
    step = _compiled(case(ps, cost, updates={rng: next_rng}), outputs=[_bowl(ps)])
    costs = [step()[0] for _ in range(10)]
    _expect(costs[-1] < costs[0], f"10 calls have not lowered the cost: {costs}")


@_promise
def unknown_keywords(case: Case) -> None:
    """A keyword that the rule does not have is a TypeError that names it."""
    ps = _parameters()
    with _raises(TypeError, "step_sise", "the keyword step_sise"):
        case(ps, _bowl(ps), step_sise=0.1)
