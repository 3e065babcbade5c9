"""Evaluators: a cost on NumPy arrays with its derivative, called once for each point, counted and remembered."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite
from typing import Any, ClassVar

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from ..checks import check_cost, warn
from ..feasible import projected_gradients
from ..graph.derivatives import differentiate
from ..graph.numpy_linker import PYTHON
from ..graph.oracle import Arrays, central_difference
from ..pytree import PyTree, derivatives, largest, named, number
from ..typing import CompileMode, Derivative
from .differences import SCHEMES, Differences, Workers
from .locks import BUILDING
from .on_manifolds import OnManifolds
from .penalties import Penalties


DIFFERENCED = (
    "df is None, and f does not take PyTensor variables, to be differentiated ({why}); so the derivative is by "
    "differences of f. Pass df, or write f with pytensor.tensor; df='2-point' takes differences without this warning."
)
NOISY = (
    "f is noisy: near the start its relative error is {noise:.1g}, more than rounding. The steps of the differences "
    "follow the noise; results have no more digits than it leaves."
)
# How far beside the start an expression is compared with the function.
BESIDE = 1e-4

# The shapes and dtypes of arrays.
Kinds = list[tuple[tuple[int, ...], str]]


def kinds_of(arrays: Sequence[np.ndarray]) -> Kinds:
    """The shapes and dtypes of `arrays`, for what is built for all such arrays."""
    return [(array.shape, array.dtype.str) for array in arrays]


# Arrays of so many numbers are compared as copies, which is faster; of larger ones nothing is copied.
FEW = 1000


class Bits:
    """An array that equals one of the same bits. It must not change."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray):
        self.array = array

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bits):
            return NotImplemented
        ours, others = (array.ravel().view(f"u{array.itemsize}") for array in (self.array, other.array))
        return self.array is other.array or np.array_equal(ours, others)

    __hash__ = None  # type: ignore[assignment]


class Evaluation:
    """A point with the cost and the gradients there, None where they were not asked for.

    `size` is the largest component of the gradients, where that alone is known. With penalties `total` is the cost with
    them, and `size` that of the residual. With general constraints, `optimality` is the size of the residual that a
    rule reports, `violation` the largest violation, and `constraints` the values and the Jacobians.
    """

    __slots__ = ("constraints", "cost", "gradients", "key", "optimality", "point", "size", "total", "violation")

    def __init__(self, point: Sequence[np.ndarray], cost: float | None = None, gradients: Arrays | None = None):
        self.key = [array.tobytes() if array.size <= FEW else Bits(array) for array in point]
        self.point, self.cost, self.gradients = list(point), cost, gradients
        self.size: float | None = None
        self.optimality: float | None = None
        self.violation: float | None = None
        self.constraints: tuple[np.ndarray, Arrays] | None = None
        self.total: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether the cost and the gradients are finite, as far as they are known."""
        cost_is_finite = self.cost is None or isfinite(self.cost)
        return cost_is_finite and all(np.isfinite(array).all() for array in self.gradients or ())


class Evaluator:
    """A function `f` of NumPy arrays with its derivative `df`, each called once for a point, and counted.

    What they return is checked, and remembered for the point held and the last few; the arrays that they get and return
    are copied, so that they may keep, change and reuse them.

    Parameters
    ----------
    f : callable
        From a point to the cost; if `df` is True, to the cost and the derivative.
    df : callable or True
    structure : PyTree
        That of the points.
    args : tuple
        Further arguments of all functions.
    hessp : callable, optional
        ``hessp(x, v, *args)``, the product of the matrix of second derivatives at `x` with `v`.

    Attributes
    ----------
    nfev, njev, nhev : int
        How often `f`, `df` and `hessp` were called; with `df` True a call of `f` is one of each.
    differenced : Differences or None
        What takes the place of `df`.
    """

    MEMORY = 4
    differenced: Differences | None = None
    kind: ClassVar[type[Evaluation]] = Evaluation

    def __init__(self, f: Callable[..., Any], df: Callable[..., Any] | bool, structure: PyTree,
                 args: tuple[Any, ...] = (), hessp: Callable[..., Any] | None = None):  # fmt: skip
        self.f, self.hessp, self.args = f, hessp, args
        self.df: Any = df
        self.structure = structure
        self.nfev = self.njev = self.nhev = 0
        self.limits: Any = None  # the bounds, see `feasible.limits`
        self.constraints: Any = None  # general ones, `ConstraintFunctions`
        self.violated: Any = None  # what finds the largest violation where they are expressions
        self.penalties: Penalties | None = None  # of the rule
        self.manifolds: OnManifolds | None = None  # of the rule
        self.sign = 1  # -1 where `f` is maximized
        self.held: Evaluation | None = None
        self.recent: list[Evaluation] = []

    @property
    def noise(self) -> float:
        """The relative noise of `f`, as far as it is known."""
        return 0.0 if self.differenced is None else self.differenced.noise

    @property
    def gradient_error(self) -> float:
        """The relative error of the derivative: what a `df` by differences has for its attribute `error`, else 0."""
        return getattr(self.df, "error", 0.0)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How often the functions were called."""
        return self.nfev, self.njev, self.nhev

    @counts.setter
    def counts(self, numbers: tuple[int, int, int]) -> None:
        self.nfev, self.njev, self.nhev = numbers

    def hold(self, evaluation: Evaluation) -> None:
        """Remember `evaluation` as that of the point held."""
        self.held = evaluation
        if not any(evaluation is known for known in self.recent):
            self._remember(evaluation)

    def _remember(self, evaluation: Evaluation) -> None:
        self.recent = [*self.recent, evaluation][-self.MEMORY :]

    def at(self, arrays: Sequence[np.ndarray]) -> Evaluation:
        """What is known of the point of `arrays`, which are kept; they must not change."""
        evaluation = self.kind(arrays)
        for known in (self.held, *reversed(self.recent)):
            if known is not None and known.key == evaluation.key:
                return known
        self._remember(evaluation)
        return evaluation

    def cost(self, evaluation: Evaluation) -> float:
        """The cost at a point, by a call of `f` unless it is known."""
        if evaluation.cost is None:
            self.nfev += 1
            self.njev += self.df is True
            value = self.f(self._argument(evaluation.point), *self.args)
            if self.df is True:
                value, gradients = self._pair(value)
                evaluation.gradients = derivatives(named("f", self.f), gradients, self.structure, evaluation.point)
            evaluation.cost = number(named("f", self.f), value)
        return evaluation.cost

    def total(self, evaluation: Evaluation) -> float:
        """What is minimized at a point: the cost, with the penalties of the rule."""
        if self.penalties is None:
            return self.cost(evaluation)
        if evaluation.total is None:
            evaluation.total = self.cost(evaluation) + self.sign * self.penalties.value(evaluation.point, self.args)
        return evaluation.total

    def gradients(self, evaluation: Evaluation) -> Arrays:
        """The gradients at a point, by a call of `df` unless they are known; NaN where the cost is not finite."""
        if evaluation.gradients is None:
            if evaluation.cost is not None and not isfinite(evaluation.cost):
                evaluation.gradients = [np.full_like(array, np.nan) for array in evaluation.point]
            elif self.df is True:
                evaluation.cost = None
                self.cost(evaluation)
            else:
                evaluation.gradients = self._derivative(evaluation.point)
        return evaluation.gradients  # type: ignore[return-value]

    def size(self, evaluation: Evaluation) -> float:
        """The largest component of the gradients at a point, with bounds, penalties or manifolds of the residual.

        With general constraints that of the Lagrangian, where a rule has found it.
        """
        if evaluation.optimality is not None:
            return evaluation.optimality
        if evaluation.size is not None and (evaluation.gradients is None or self.penalties is not None):
            return evaluation.size
        if self.penalties is not None:
            return self.penalties.size(evaluation.point, self.downhill(evaluation), self.args)
        if self.manifolds is not None:
            return largest(self.manifolds.tangent(evaluation.point, self.gradients(evaluation)))
        return largest(projected_gradients(evaluation.point, self.downhill(evaluation), self.limits))

    def downhill(self, evaluation: Evaluation) -> Arrays:
        """The gradients at a point of what is minimized."""
        gradients = self.gradients(evaluation)
        return gradients if self.sign > 0 else [-g for g in gradients]

    def evaluate(self, *arrays: np.ndarray) -> tuple[float, Arrays]:
        """The cost and the gradients, as an oracle calls it; where the cost is not finite, `df` is not called."""
        evaluation = self.at(arrays)
        return self.cost(evaluation), self.gradients(evaluation)

    def constrain(self, *arrays: np.ndarray) -> tuple[np.ndarray, Arrays]:
        """The values and the Jacobians of the constraints, as an oracle calls it."""
        evaluation = self.at(arrays)
        if evaluation.constraints is None:
            evaluation.constraints = self.constraints.evaluate(evaluation.point)
        return evaluation.constraints

    def violation(self, evaluation: Evaluation) -> float:
        """The largest violation of the general constraints at a point; infinite where it is not known."""
        if evaluation.violation is None and self.constraints is not None:
            evaluation.violation = self.constraints.violation(self.constrain(*evaluation.point)[0])
        elif evaluation.violation is None and self.violated is not None:
            evaluation.violation = self.violated(*evaluation.point, *self.args)
        return np.inf if evaluation.violation is None else evaluation.violation

    def product(self, point: Arrays, vectors: Arrays) -> Arrays:
        """The products with the second derivatives, as an oracle calls it."""
        if self.hessp is None:
            return central_difference(
                lambda *arrays: self._derivative(list(arrays)), point, vectors, self.gradient_error, self.limits
            )
        self.nhev += 1
        value = self.hessp(self._argument(point), self._argument(vectors), *self.args)
        return derivatives(named("hessp", self.hessp), value, self.structure, point)

    def _derivative(self, point: Arrays) -> Arrays:
        self.njev += 1
        self.nfev += self.df is True
        if self.df is True:
            name, value = named("f", self.f), self._pair(self.f(self._argument(point), *self.args))[1]
        else:
            name, value = named("df", self.df), self.df(self._argument(point), *self.args)
        return derivatives(name, value, self.structure, point)

    def close(self) -> None:
        """Give back what it holds: nothing is asked for soon."""

    def _argument(self, arrays: Arrays) -> Any:
        return self.structure.build([np.array(array, order="C") for array in arrays])

    def _pair(self, value: Any) -> tuple[Any, Any]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(
                f"df is True, so f has to return a cost and a derivative; it returned a {type(value).__name__}"
            )
        return value[0], value[1]


def complex_number(name: str, value: object) -> complex:
    """`value`, which the function `name` returned at a complex point, as a complex number."""
    array = np.asarray(value)
    if array.dtype.kind != "c" or array.size != 1:
        raise ValueError(
            f"{name} returned {array.dtype} of shape {array.shape} at a complex point; df='cs' needs a complex number. "
            "Use functions that take complex numbers, not abs or max, or df='3-point'"
        )
    return complex(array.reshape(()))


class Applied:
    """A function with its further arguments, that can be pickled if they can."""

    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]):
        self.function, self.args = function, args

    def __call__(self, point: Any) -> Any:
        return self.function(point, *self.args)


class DifferencedEvaluator(Evaluator):
    """An evaluator of a function without derivative, which takes differences, whose calls of `f` are counted.

    Parameters
    ----------
    f, structure, args, hessp
        As for `Evaluator`.
    differences : Differences
    workers : Workers
        Where the values that a derivative takes are evaluated.

    Attributes
    ----------
    njev : int
        How many derivatives were taken.
    """

    differenced: Differences

    def __init__(self, f: Callable[..., Any], differences: Differences, structure: PyTree, args: tuple[Any, ...] = (),
                 hessp: Callable[..., Any] | None = None, workers: Workers | None = None):  # fmt: skip
        super().__init__(f, False, structure, args, hessp)
        self.differenced, self.workers = differences, workers or Workers()
        self._epsilon = 0.0

    @property
    def gradient_error(self) -> float:
        return self.differenced.error(self._epsilon)

    def gradients(self, evaluation: Evaluation) -> Arrays:
        if evaluation.gradients is None:
            cost, point = self.cost(evaluation), evaluation.point
            if not isfinite(cost):
                evaluation.gradients = [np.full_like(array, np.nan) for array in point]
            else:
                self.njev += 1
                self._epsilon = max((float(np.finfo(array.dtype).eps) for array in point), default=0.0)
                quiet = self.differenced.noise == 0
                evaluation.gradients = self.differenced(self._costs, point, cost, self.limits)
                if quiet and self.differenced.noise:
                    warn(NOISY.format(noise=self.differenced.noise))
        return evaluation.gradients

    def _derivative(self, point: Arrays) -> Arrays:
        return self.gradients(self.at(point))

    def _costs(self, points: Iterable[list[np.ndarray]]) -> list[Any]:
        """The costs at `points`."""
        name = named("f", self.f)
        take = complex_number if self.differenced.scheme == "cs" else number
        build, costs = self.structure.build, []
        if self.workers.workers is None:
            for point in points:
                self.nfev += 1
                costs.append(take(name, self.f(build(point), *self.args)))
            return costs
        try:
            values = list(self.workers.map(Applied(self.f, self.args), map(build, points)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            error.add_note("workers= evaluates f in other processes; f and args have to be such as pickle takes")
            raise
        self.nfev += len(values)
        return [take(name, value) for value in values]

    def close(self) -> None:
        self.workers.close()


def beside(start: Sequence[np.ndarray]) -> Iterator[Arrays]:
    """The start, and a point near to it, where an expression is compared with the function."""
    yield list(start)
    ways = [(np.abs(a) + 1) * (1 + np.arange(a.size).reshape(a.shape) % 7) for a in start]
    yield [(a + BESIDE * way).astype(a.dtype) for a, way in zip(start, ways, strict=True)]


class Symbolic:
    """A function that builds a PyTensor scalar, as one of NumPy arrays that returns the cost and the derivative.

    Parameters
    ----------
    f : callable
        From a structure of variables, and `args`, to a scalar variable.
    structure : PyTree
    kinds : list of tuple
        The shapes and dtypes of the variables, see `kinds_of`.
    args : tuple
    mode : PyTensor mode, or str
    """

    def __init__(
        self, f: Callable[..., Any], structure: PyTree, kinds: Kinds, args: tuple[Any, ...], mode: CompileMode
    ):
        self.f, self.structure, self.kinds, self.args = f, structure, kinds, args
        self.mode = PYTHON if mode is None else mode
        self.__name__ = getattr(f, "__name__", type(f).__name__)
        self._variables = [
            pt.tensor(f"x{position}", shape=shape, dtype=np.dtype(dtype).name)
            for position, (shape, dtype) in enumerate(kinds)
        ]
        cost = self.f(self.structure.build(self._variables), *self.args)
        if not isinstance(cost, Variable):
            raise TypeError(f"it returned a {type(cost).__name__}, which is no expression of the variables")
        if isinstance(cost, TensorVariable) and cost.type.ndim and set(cost.type.shape) == {1}:
            cost = cost.reshape(())
        with BUILDING:
            self._gradients = differentiate(check_cost(cost), self._variables)
            self._evaluate = pytensor.function(self._variables, [cost, *self._gradients], mode=self.mode)
        self._multiply: Any = None

    def __reduce__(self) -> Any:
        mode = None if self.mode is PYTHON else self.mode
        return Symbolic, (self.f, self.structure, self.kinds, self.args, mode)

    def __call__(self, point: Any, *args: Any) -> tuple[Any, Any]:
        """The cost and the derivative at `point`."""
        cost, *gradients = self._evaluate(*self._leaves(point))
        return cost, self.structure.build(gradients)

    def product(self, point: Any, vector: Any, *args: Any) -> Any:
        """The product of the matrix of second derivatives at `point` with `vector`."""
        if self._multiply is None:
            with BUILDING:
                vectors = [variable.type() for variable in self._variables]
                slope = sum(pt.sum(g * v) for g, v in zip(self._gradients, vectors, strict=True))
                products = pytensor.grad(slope, self._variables, disconnected_inputs="ignore")
                inputs = [*self._variables, *vectors]
                self._multiply = pytensor.function(inputs, products, mode=self.mode, on_unused_input="ignore")
        return self.structure.build(self._multiply(*self._leaves(point), *self._leaves(vector)))

    def contradiction(self, start: Sequence[np.ndarray]) -> str | None:
        """How values of `f` itself differ from those of the expression, at the start and beside it.

        None if they do not, or if `f` returns no numbers for arrays.
        """
        for point in beside(start):
            try:
                value = number("f", self.f(self.structure.build([array.copy() for array in point]), *self.args))
            except Exception:
                return None
            cost = float(self._evaluate(*point)[0])
            epsilon = max((float(np.finfo(array.dtype).eps) for array in point), default=0.0)
            if not abs(value - cost) <= epsilon**0.5 * max(abs(value), abs(cost)) and not (value != value != cost):
                return f"as an expression it is {cost:.9g} where it is {value:.9g} of numbers"
        return None

    def _leaves(self, point: Any) -> list[Any]:
        return [leaf for _, leaf in self.structure.leaves("x", point)]


def evaluator_of(f: Callable[..., Any], df: Derivative, args: Any, hessp: Callable[..., Any] | None, structure: PyTree,
                 start: Sequence[np.ndarray], mode: CompileMode,
                 workers: int | Callable[..., Any] | None = None) -> Evaluator:  # fmt: skip
    """An evaluator of `f` and `df` in all their forms."""
    if not callable(f):
        raise TypeError(f"f is {f!r}; pass a function from a point to the cost")
    df = True if isinstance(df, np.bool_) and df else df
    if isinstance(df, str):
        df = Differences(df)
    if not (callable(df) or df is True or df is None):
        raise TypeError(
            f"df is {df!r}; pass the derivative of f, True if f returns it too, {', '.join(map(repr, SCHEMES))} for "
            "differences, or None for what f allows"
        )
    if hessp is not None and not callable(hessp):
        raise TypeError(f"hessp is {hessp!r}; pass a function of a point and a vector")
    args, evaluated_by = args if isinstance(args, tuple) else (args,), Workers(workers)
    if df is None:
        symbolic = symbolic_of(f, structure, start, args, mode)
        if symbolic is not None:
            return Evaluator(symbolic, True, structure, args, hessp or symbolic.product)
        df = Differences("2-point")
    if isinstance(df, Differences):
        return DifferencedEvaluator(f, df, structure, args, hessp, evaluated_by)
    return Evaluator(f, df, structure, args, hessp)


def symbolic_of(f: Callable[..., Any], structure: PyTree, start: Sequence[np.ndarray], args: tuple[Any, ...],
                mode: CompileMode) -> Symbolic | None:  # fmt: skip
    """`f` as an expression; None, with a warning that says why, if it does not make a right one of variables.

    Raises
    ------
    TypeError, ValueError
        If it does not take arrays either.
    """
    try:
        symbolic = Symbolic(f, structure, kinds_of(start), args, mode)
        why = symbolic.contradiction(start)
    except Exception as error:
        symbolic, failure, why = None, error, f"{type(error).__name__}: {error}".splitlines()[0]
        try:
            value = f(structure.build([array.copy() for array in start]), *args)
        except Exception as other:
            other.add_note(f"df is None, so f was first called with PyTensor variables, which raised {why}")
            raise
        if isinstance(value, Variable):
            raise TypeError(f"df is None, and f makes no scalar of PyTensor variables: {failure}") from error
    if why is None:
        return symbolic
    warn(DIFFERENCED.format(why=why))
    return None
