"""The objective: what opens and closes every rule.

``f = Objective.of(parameters, cost, gradients, stop, updates, name=name, ...)`` checks what the user passed and maps it
in; the rule works out next values; ``return f.finish(new)`` maps them out. This is the only place that knows of ascent,
dtypes, packing into a vector, freezing after `stop`, and collisions of keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import NullTypeGradError
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, explicit_graph_inputs

from . import schedules, state
from .checks import (
    as_dtype,
    called,
    check_cost,
    check_gradients,
    check_parameters,
    check_stop,
    check_updates,
    is_generator,
    scalar,
)
from .gradients import is_transformed
from .loops import FALSE, as_update, hold, like, when
from .updates import Updates, extend


class Point(NamedTuple):
    """A point with the cost and the gradient there, the point and the gradient packed into vectors."""

    point: Any
    cost: Any
    gradient: Any


@dataclass(eq=False)
class Objective:
    """A cost, to be minimized, and its gradients.

    Attributes
    ----------
    parameters : list of variables
    cost : scalar variable or None
        Its sign is changed under ascent, as is that of the gradients.
    gradients : list of variables
    name : str
        The prefix of the names of the rule's state.
    """

    parameters: list[Any]
    cost: Any
    gradients: list[Any]
    stop: Any
    updates: Updates | None
    tolerance: Any
    ascent: bool
    name: str
    _count: Any = field(default=None, init=False)

    @classmethod
    def of(
        cls,
        parameters: Any,
        cost: Any = None,
        gradients: Any = None,
        stop: Any = None,
        updates: Updates | None = None,
        *,
        tolerance: Any = None,
        ascent: bool = False,
        name: str,
        searches: bool = False,
    ) -> Objective:
        """Check the arguments that all rules have, and open the rule.

        Parameters
        ----------
        parameters, cost, gradients, stop, updates, tolerance, ascent, name
            As the user passed them.
        searches : bool
            Whether the rule evaluates the cost and its gradients at other points than the parameters' values.
        """
        parameters = check_parameters(parameters)
        check_stop(stop)
        check_updates(updates)
        if tolerance is not None:
            tolerance = scalar("tolerance", tolerance, low=0)
        if not isinstance(name, str) or not name:
            raise TypeError(f"name is {name!r}; pass a string that is not empty")
        if cost is None and searches:
            raise ValueError(f"{name} evaluates the cost at other points than the parameters' values; pass cost=")
        if cost is None and gradients is None:
            raise ValueError("neither cost nor gradients is given; pass cost=, or gradients= with one per parameter")
        if cost is not None:
            cost = check_cost(cost)
        if gradients is None:
            gradients = differentiate(cost, parameters)
        else:
            gradients = check_gradients(gradients, parameters)
            if searches:
                _check_differentiable(cost, gradients, parameters)
        # Gradients take the dtype of their parameters, so that float32 parameters have float32 arithmetic.
        gradients = [as_dtype(g, p.type.dtype) for g, p in zip(gradients, parameters, strict=True)]
        if ascent:
            cost, gradients = None if cost is None else -cost, [-g for g in gradients]
        return cls(parameters, cost, gradients, stop, updates, tolerance, bool(ascent), name)

    # What a rule reads

    @property
    def count(self) -> Any:
        """The number of updates done before this one, an int64 scalar. It exists in a rule that asks for it."""
        if self._count is None:
            self._count = state.state(f"{self.name}/count", dtype="int64")
        return self._count

    def step_size(self, step_size: Any) -> Any:
        """A step size in any of its forms as a scalar variable."""
        return schedules.at("step_size", step_size, lambda: self.count)

    def each(self, *scalars: Any) -> Iterator[tuple[Any, ...]]:
        """Each parameter with its gradient, and with `scalars` in its dtype."""
        for p, g in zip(self.parameters, self.gradients, strict=True):
            yield p, g, *(as_dtype(s, p.type.dtype) for s in scalars)

    def beside(self, parameter: Any, role: str, fill: Any = 0) -> Any:
        """State of the shape and dtype of `parameter`, named ``rule/role/parameter``."""
        return state.beside(parameter, f"{self.name}/{role}/{self.label(parameter)}", fill)

    def label(self, parameter: Any) -> str:
        """What the names of state for `parameter` end with: its own name, or its position if that is not unique."""
        names = [p.name for p in self.parameters]
        position = next(i for i, p in enumerate(self.parameters) if p is parameter)
        return parameter.name if parameter.name and names.count(parameter.name) == 1 else str(position)

    @property
    def stopped(self) -> Any:
        """Whether `stop` is 1 before the call; False without a stop."""
        return FALSE if self.stop is None else pt.gt(self.stop, 0)

    def converged(self, gradients: Sequence[Any] | None = None) -> Any:
        """Whether no component of the gradients, by default those at the parameters' values, exceeds the tolerance.

        NaN exceeds all. Without a tolerance, or a `stop` to write the answer to, nothing converges.
        """
        if self.tolerance is None or self.stop is None:
            return FALSE
        gradients = self.gradients if gradients is None else gradients
        return conjunction([pt.all(abs(g) <= as_dtype(self.tolerance, g.type.dtype)) for g in gradients])

    # The cost elsewhere, for rules that work on one vector

    @property
    def dtype(self) -> str:
        """The dtype of the packed vector: the widest of the parameters'."""
        return np.result_type(*(p.type.dtype for p in self.parameters)).name

    @property
    def size(self) -> int:
        """The number of components of all parameters together."""
        return sum(int(np.prod(state.shape_of(p), dtype=int)) for p in self.parameters)

    def pack(self, tensors: Sequence[Any]) -> Any:
        """One vector of all components of `tensors`."""
        parts = [as_dtype(t if t.type.ndim == 1 else t.ravel(), self.dtype) for t in tensors]
        return parts[0] if len(parts) == 1 else pt.concatenate(parts)

    def unpack(self, vector: Any) -> list[Any]:
        """Tensors of the shapes and dtypes of the parameters."""
        tensors, begin = [], 0
        for p in self.parameters:
            shape = state.shape_of(p)
            end = begin + int(np.prod(shape, dtype=int))
            part = vector if len(self.parameters) == 1 else vector[begin:end]
            tensors.append(like(part[0] if not shape else part if len(shape) == 1 else part.reshape(shape), p))
            begin = end
        return tensors

    def at(self, point: Any) -> Point:
        """The cost and the gradient at the packed vector `point`."""
        tensors = self.unpack(point)
        replacements = dict(zip(self.parameters, tensors, strict=True))
        cost, *gradients = graph_replace([self.cost, *self.gradients], replacements, strict=False)
        # Parameters of a narrower dtype than the vector round: the point is where the cost was evaluated.
        return Point(self.pack(tensors), cost, self.pack(gradients))

    def product(self, point: Any, vector: Any) -> Any:
        """The product of the Hessian at the packed vector `point` with the packed `vector`.

        Raises
        ------
        ValueError
            If the cost has no second derivatives.
        """
        products = self.products(self.parameters, self.gradients, self.unpack(vector))
        replacements = dict(zip(self.parameters, self.unpack(point), strict=True))
        return self.pack(graph_replace(products, replacements, strict=False))

    def products(self, parameters: Sequence[Any], gradients: Sequence[Any], vectors: Sequence[Any]) -> list[Any]:
        """The products of the matrix of second derivatives by `parameters` with `vectors`, at the parameters' values.

        Raises
        ------
        ValueError
            If the cost has no second derivatives.
        """
        parts = [pt.sum(g * v) for g, v in zip(gradients, vectors, strict=True)]
        slope: Any = pt.add(*parts) if len(parts) > 1 else parts[0]
        try:
            # A gradient that does not depend on a parameter has no derivative by it.
            products: Any = pytensor.grad(
                slope, list(parameters), consider_constant=list(vectors), disconnected_inputs="ignore"
            )
        except (NotImplementedError, NullTypeGradError, TypeError) as error:
            raise ValueError(
                f"{self.name} needs second derivatives of the cost, which PyTensor cannot build ({error}); write the "
                "cost with other operations, or choose a rule that needs gradients alone"
            ) from error
        return [as_dtype(product, p.type.dtype) for product, p in zip(products, parameters, strict=True)]

    def here(self, exact: bool | None) -> tuple[Point, Any, tuple[Any, ...]]:
        """The cost and the gradient at the point that the parameters hold, evaluated unless they are known.

        They are not evaluated after `stop` either, and then mean nothing.

        Parameters
        ----------
        exact : bool or None
            Whether what was found at a point may be used at a later call; if None, a guess: False when the cost has
            explicit inputs, draws random numbers, or reads what the given updates write.

        Returns
        -------
        Point
        integer scalar variable
            The number of evaluations.
        tuple of variables
            State for the point held after the call, its cost and its gradient. Empty if `exact` is False.
        """
        x = self.pack(self.parameters)
        if not self._is_exact(exact):
            return Point(x, self.cost, self.pack(self.gradients)), pt.constant(np.int64(1)), ()
        # NaN equals nothing, so at first no point is known.
        kept = (
            state.state(f"{self.name}/point", (self.size,), self.dtype, np.nan),
            state.state(f"{self.name}/point_cost", (), self.cost.type.dtype, np.nan),
            state.state(f"{self.name}/point_gradient", (self.size,), self.dtype, np.nan),
        )
        known = self.stopped | (pt.all(pt.eq(x, kept[0])) & ~pt.isnan(kept[1]))
        cost, gradient = when(~known, lambda point: self.at(point)[1:], [x], kept[1:])
        return Point(x, cost, gradient), pt.switch(known, 0, 1).astype("int64"), kept

    def _is_exact(self, exact: bool | None) -> bool:
        if exact is not None:
            if not isinstance(exact, bool | np.bool_):
                raise TypeError(f"exact is {exact!r}; pass None, True or False")
            return bool(exact)
        graph = [self.cost, *self.gradients]
        inputs = [v for v in explicit_graph_inputs(graph) if not any(v is p for p in self.parameters)]
        return not inputs and not any(is_generator(v) or v in (self.updates or {}) for v in ancestors(graph))

    # The end of a rule

    def finish(
        self,
        new: Updates,
        rest: Any = None,
        verdict: Any = FALSE,
        reports: dict[str, Any] | None = None,
        steady: Updates | None = None,
    ) -> Updates:
        """Close the rule: the dictionary that it returns.

        Parameters
        ----------
        new : dict
            The next values of the parameters and of the rule's state.
        rest : boolean scalar variable, optional
            Whether the point held before the call is already final: nothing of `new` is then written, and `stop` is 1.
            By default, whether the gradients there meet the tolerance.
        verdict : boolean scalar variable
            Whether the algorithm has finished with the point held after the call.
        reports : dict, optional
            From roles to scalar variables, see `optapi.reports`. A cost is mapped back to the user's sign; evaluations
            and products are those of this call, and are summed up.
        steady : dict, optional
            As `new`, for state that the rule itself leaves as it is where nothing may be written. A choice between the
            old and the new would copy large arrays of which a call changes only a part.

        Without a `stop` only `new` and `steady` count.

        Raises
        ------
        KeyError
            If a variable already has an update in `updates`, which is then left as it was.
        """
        if self._count is not None:
            new = {**new, self._count: self._count + 1}
        new = {variable: as_update(value, variable) for variable, value in new.items()}
        if self.stop is not None:
            still = self.stopped | (self.converged() if rest is None else rest)
            new = hold(new, still)
            for role, value in (reports or {}).items():
                reported, value = self._reported(role, value)
                new[reported] = like(pt.switch(self.stopped, reported, value), reported)
            new[self.stop] = like(still | verdict, self.stop)
        new |= {variable: as_update(value, variable) for variable, value in (steady or {}).items()}
        return extend(self.updates, new)

    def _reported(self, role: str, value: Any) -> tuple[Any, Any]:
        """The state variable that reports `value`, and its next value."""
        dtype = value.type.dtype
        reported = state.state(f"{self.name}/{role}", dtype=dtype, fill=0 if dtype == "int64" else np.nan, role=role)
        if role in ("evaluations", "products"):
            return reported, reported + value
        return reported, -value if role == "cost" and self.ascent else value


def differentiate(cost: Any, parameters: Sequence[Any]) -> list[Any]:
    """The gradients of `cost`.

    Raises
    ------
    ValueError
        If `cost` does not depend on one of `parameters`; the message names it.
    """
    gradients: Any = pytensor.grad(cost, list(parameters), disconnected_inputs="ignore", return_disconnected="none")
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is None:
            raise ValueError(
                f"the cost does not depend on the parameter {called(parameter)}; leave it out of parameters, "
                "or check that the cost was built from this very variable"
            )
    return gradients


def _check_differentiable(cost: Any, gradients: Sequence[Any], parameters: Sequence[Any]) -> None:
    """`gradients` can be those of `cost` at any point."""
    below = set(ancestors([cost]))
    above = set(ancestors(list(gradients)))
    for parameter in parameters:
        if parameter not in below:
            raise ValueError(
                f"the cost does not depend on the parameter {called(parameter)}; leave it out of parameters"
            )
    if not above.intersection(parameters):
        raise ValueError(
            "gradients do not depend on the parameters, so they are not those of the cost at other points; "
            "leave gradients out, or build them from the parameters"
        )
    if any(is_transformed(variable) for variable in above):
        raise ValueError(
            "gradients were clipped, decayed or otherwise transformed, so they are not those of the cost, which this "
            "rule evaluates at other points; leave gradients out, and add a penalty to the cost itself"
        )


def conjunction(conditions: Sequence[Any]) -> Any:
    """Whether all of the boolean scalars `conditions` are true."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = result & condition
    return result
