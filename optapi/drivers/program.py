"""Programs: a rule, compiled to take its state some iterations further. Here is what all of them have in common.

A program changes nothing: it maps the values of all that the rule writes to their later values, so that an iteration
that fails has not happened. `oracle_program` has those over an oracle, which go one iteration at a time; `loop_program`
those over a symbolic cost, which go many.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Real
from typing import Any

import numpy as np
import pytensor

from ..feasible import Limits, inside
from ..graph.loops import check_generators
from ..graph.oracle import Arrays
from ..graph.replace import replaced
from ..notes import note
from ..objective import Point
from ..rules._linear_algebra import inverse_hessian_of
from ..state import names
from ..typing import CompileMode, Updates
from ..updates import reports
from .covariance import Linearized, SecondDerivatives, information
from .evaluator import Evaluation, Evaluator
from .options import option_of
from .termination import Ending


# The verdict of several rules is that of the worst.
SEVERITY = [
    *(Ending.CONVERGED, Ending.PRECISE, Ending.STUCK, Ending.INFEASIBLE, Ending.UNBOUNDED),
    Ending.NOT_FINITE,
]


@dataclass(frozen=True)
class Places:
    """Where what a driver reads is among the values of all that a rule writes.

    Attributes
    ----------
    names : list of str
        What the values are called in a file.
    parameters : list of int
    stop : int or None
    roles : dict
        From a role to where it is reported, see `optapi.reports`.
    kept : list of int
        Where the rule keeps the point held, its cost and its gradient, as one vector each; empty if it does not.
    inverse, scales : list of int
        Where it keeps an inverse Hessian, and the typical sizes in whose units that is.
    multipliers, bound_multipliers : list of int
        Where it keeps the multipliers of general constraints, and of the bounds of the parameters.
    """

    names: list[str]
    parameters: list[int]
    stop: int | None
    roles: dict[str, list[int]]
    kept: list[int]
    inverse: list[int]
    scales: list[int]
    multipliers: list[int]
    bound_multipliers: list[int]

    @classmethod
    def of(cls, updates: Updates, parameters: Sequence[Any], stop: Any) -> Places:
        """The places in the values of `updates`."""
        where = {variable: place for place, variable in enumerate(updates)}
        kept = {note(v, "kept"): place for v, place in where.items() if note(v, "kept")}
        point = [v for v in where if note(v, "kept") == "point"]
        sizes = [sum(v.get_value(borrow=True).size for v in variables) for variables in (point, parameters)]
        # A rule over some of the parameters keeps another point, and of two rules each has its own.
        is_whole = len(point) == 1 and sizes[0] == sizes[1]
        return cls(
            names(updates),
            [where[p] for p in parameters],
            where.get(stop),
            {role: [where[v] for v in variables] for role, variables in reports(updates).items()},
            [kept[part] for part in Point._fields] if is_whole else [],
            *(
                [place for v, place in where.items() if note(v, kind)]
                for kind in ("inverse_hessian", "x_scale", "multipliers", "bound_multipliers")
            ),
        )


class Program:
    """A rule with its options, compiled.

    Attributes
    ----------
    rule : callable
    options : dict
    mode : PyTensor mode, or str
    places : Places
    evaluates_start : bool
        Whether the cost and the gradients have to be known before the first iteration.
    pace : float or None
        Seconds of an iteration, as last measured.
    """

    rule: Any
    options: Mapping[str, Any]
    mode: Any
    places: Places
    evaluates_start: bool
    pace: float | None = None

    def advance(self, values: Any, evaluator: Evaluator, length: int) -> Any:
        """The values at most `length` iterations later, with the functions or the inputs that `evaluator` has."""
        raise NotImplementedError

    def begin(self, values: Any, start: Evaluation) -> Any:
        """The values before the first iteration, now that the evaluation of the start is known."""
        return values

    def count(self, values: Any, before: int, moved: bool) -> int:
        """The number of iterations, which was `before`. An iteration that moves nothing and stops does not count."""
        return before + (moved or self.said(values) is None)

    def said(self, values: Any) -> Ending | None:
        """The verdict of the rule."""
        stop, reasons = self.places.stop, self.places.roles.get("reason", ())
        if stop is None or not int(values[stop]) > 0:
            return None
        endings = [Ending.of_reason(int(values[place])) for place in reasons]
        return max(endings, key=SEVERITY.index, default=Ending.CONVERGED)

    def is_lost(self, before: Evaluation, values: Any, next_values: Any) -> bool:
        """Whether to discard the iteration from `values`, at the point of `before`, to `next_values`."""
        return False

    def counted(self, values: Any) -> tuple[int, int]:
        """The numbers of evaluations and of products with second derivatives that no evaluator has counted."""
        return 0, 0

    def point(self, values: Any) -> list[np.ndarray]:
        """The point held."""
        return [values[place] for place in self.places.parameters]

    def evaluation(self, values: Any, evaluator: Evaluator) -> Evaluation:
        """That of the point held, with what the rule knows of it."""
        evaluation = evaluator.at(self.point(values))
        if self.is_constrained:
            evaluation.violation = self._reported(values, "violation")
            evaluation.optimality = self._reported(values, "gradient_size")
        if evaluation.cost is not None and evaluation.gradients is not None and evaluator.penalties is None:
            return evaluation
        if self.places.kept:
            point, cost, gradient = (values[place] for place in self.places.kept)
            # A point without components is that of the state at first, which knows nothing.
            known = point.size or not np.isnan(cost)
            if known and (point == joined(evaluation.point)).all():
                evaluation.cost, evaluation.gradients, end = self.sign * float(cost), [], 0
                for array in evaluation.point:
                    begin, end = end, end + array.size
                    part = gradient[begin:end].reshape(array.shape).astype(array.dtype, copy=False)
                    evaluation.gradients.append(part if self.sign > 0 else -part)
        elif evaluator.penalties is not None:
            evaluation.total, evaluation.size = (self._reported(values, role) for role in ("cost", "gradient_size"))
        elif evaluation.cost is None:
            evaluation.cost, evaluation.size = (self._reported(values, role) for role in ("cost", "gradient_size"))
        return evaluation

    def _reported(self, values: Any, role: str) -> float | None:
        """What the rule reports in this role, None if it reports nothing or several numbers."""
        places = self.places.roles.get(role, ())
        return float(values[places[0]]) if len(places) == 1 else None

    def best(self, values: Any, best: Evaluation) -> Evaluation | None:
        """The best point before the last iteration, where it was `best` before; None if the one held is to be it."""
        return best

    def inverse_hessian(self, values: Any) -> Any:
        """What the rule knows of the inverse of the matrix of second derivatives, or None."""
        held = ([values[place] for place in places] for places in (self.places.inverse, self.places.scales))
        inverse = inverse_hessian_of(*held)
        return inverse.copy() if isinstance(inverse, np.ndarray) else inverse

    def second_derivatives(self, point: Arrays, evaluator: Any, inputs: Sequence[Any],
                           limits: Limits | None) -> SecondDerivatives:  # fmt: skip
        """What a result says of the second derivatives at `point`."""
        free, normals, multipliers = inside(point, limits), None, None
        if self.is_constrained:
            normals, multipliers = self.linearized(point, evaluator, inputs).active(free, self.feasibility)
        product, of_residuals, error, differs = self.multiplied(point, evaluator, multipliers)

        @cache
        def matrix() -> tuple[np.ndarray, float | None]:
            found, variance = information(product, point, inputs, of_residuals)
            return self.sign * found, variance

        def build(values: np.ndarray) -> Any:
            parts = np.split(values, np.cumsum([array.size for array in point])[:-1])
            return evaluator.structure.build(
                [v.reshape(a.shape).astype(a.dtype) for v, a in zip(parts, point, strict=True)]
            )

        return SecondDerivatives(matrix, error, differs, build, free, normals)

    def linearized(self, point: Arrays, evaluator: Evaluator, inputs: Sequence[Any]) -> Linearized:
        """The cost and the general constraints at `point`."""
        raise NotImplementedError

    def multiplied(self, point: Arrays, evaluator: Evaluator,
                   multipliers: np.ndarray | None = None) -> tuple[Callable[..., Any], bool, float, bool]:  # fmt: skip
        """How vectors are multiplied with the second derivatives at `point`, with `multipliers` of the Lagrangian.

        Returns
        -------
        callable
            As `covariance.products` makes it.
        bool
            Whether it is of residuals.
        float
            The relative error of the products.
        bool
            Whether they are differences.
        """
        raise NotImplementedError

    @property
    def is_constrained(self) -> bool:
        """Whether the rule has general constraints."""
        return "violation" in self.places.roles

    @cached_property
    def feasibility(self) -> float:
        """The largest violation of a general constraint that counts for none."""
        tolerance = option_of(self.rule, self.options, "tolerance")
        return float(tolerance) if isinstance(tolerance, Real) else 1e-6

    @cached_property
    def sign(self) -> int:
        """-1 under ascent, where a rule works with the negative cost."""
        return -1 if option_of(self.rule, self.options, "ascent") else 1


def apply(rule: Callable[..., Updates], parameters: Sequence[Any], /, **keywords: Any) -> Updates:
    """What `rule` makes of `parameters`, checked."""
    updates = rule(parameters, **keywords)
    if not isinstance(updates, dict) or not all(p in updates for p in parameters):
        raise TypeError(
            f"the rule {rule!r} returned no dictionary with a next value of each parameter; pass one of optapi's, for "
            "instance optapi.lbfgs, or return its updates"
        )
    check_generators(updates)
    return updates


def as_graph(updates: Updates) -> tuple[list[Any], list[Any]]:
    """Variables for the values of the variables of `updates`, and their next values as expressions of these."""
    now = [variable.type() for variable in updates]
    return now, replaced(list(updates.values()), dict(zip(updates, now, strict=True)))


def as_function(updates: Updates, inputs: Sequence[Any], mode: CompileMode) -> Any:
    """A function from the values of the variables of `updates`, and of `inputs`, to their next values.

    It changes nothing, and takes arguments as they are: arrays of the very types.
    """
    now, outputs = as_graph(updates)
    function = pytensor.function([*now, *inputs], outputs, mode=mode, on_unused_input="ignore")
    function.trust_input = True
    return function


def values_of(updates: Updates) -> list[Any]:
    """Copies of the values of the variables of `updates`, see `compact`, which are not to be written over."""
    return [compact(variable.get_value(borrow=True)) for variable in updates]


def compact(value: Any) -> Any:
    """A copy of `value`; of an array of equal numbers, its first with the shape of all."""
    if isinstance(value, np.random.Generator):
        return copy.deepcopy(value)
    array = np.asarray(value)
    first = array[(slice(1),) * array.ndim]
    if array.size > 1 and (array.view(f"V{array.itemsize}") == first.view(f"V{array.itemsize}")).all():
        return np.broadcast_to(first.copy(), array.shape)
    return array.copy()


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The vector of all components of `arrays`, not copied if it need not be."""
    return arrays[0].ravel() if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])


def full(value: Any) -> Any:
    """A copy of `value` in full."""
    return copy.deepcopy(value) if isinstance(value, np.random.Generator) else np.array(value, order="C")
