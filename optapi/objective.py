"""The objective: what opens and closes every rule.

``f = Objective.of(parameters, cost, gradients, stop, updates, name=name, ...)`` checks what the user passed and maps it
in; the rule works out next values; ``return f.finish(new)`` maps them out. This is the only place that knows of ascent,
dtypes, packing into a vector, freezing after `stop`, and collisions of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors, explicit_graph_inputs

from . import schedules, state
from .checks import (
    as_dtype,
    called,
    check_cost,
    check_flag,
    check_givens,
    check_gradients,
    check_mask,
    check_name,
    check_not_swapped,
    check_outputs,
    check_parameters,
    check_stop,
    check_updates,
    check_x_scale,
    is_generator,
    is_zero,
    scalar,
)
from .constraints import Rows, expressions
from .feasible import Box, boxes, packed
from .gradients import is_transformed
from .graph.derivatives import (
    differentiate,
    known_shapes,
    loss_products,
    pullback,
    pushforward,
    second_derivatives,
    substituted,
)
from .graph.loops import FALSE, as_update, cond, hold, like
from .graph.replace import replaced
from .manifolds import Packed, manifolds
from .moments import running_average
from .notes import note, noted
from .prox import penalties, residual
from .scaling import equilibrated, sizes
from .typing import Bounds, Constraints, Manifolds, Mask, Prox, Scalar, StepSize, Tensor, Updates, Variables, XScale
from .updates import extend


# From a packed point and a packed vector to the product of a matrix at that point with the vector.
Product = Callable[[Any, Any], Any]


class Kept(NamedTuple):
    """A vector that is worked out in the first call and kept as state.

    Attributes
    ----------
    value : vector
        In this call and all later ones.
    state : variable
    products : integer scalar variable or None
        How many products with second derivatives it took in this call; None if it takes none.
    """

    value: Any
    state: Any
    products: Any = None


class Point(NamedTuple):
    """A point with the cost and the gradient there, the point and the gradient packed into vectors.

    The point is in the units of the parameters, the gradient in those of `x_scale`, see `Objective.scaled`.
    """

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
        The prefix of the names of the rule's state: the name that was passed, with a number if state in `updates` has
        that prefix already.
    boxes : list of Box or None, or None
        The bounds of each parameter; None without bounds.
    x_scale : Kept or None
        The typical sizes of the components.
    rows : Rows or None
        The general constraints, none or more, of a rule that takes them.
    penalties : list of Penalty or None, or None
        That of each parameter, whose proximal operator is taken after a step; None without any.
    manifold : Packed or None
        The manifold that the packed vector stays on. Gradients are then projected on its tangent spaces.

    Examples
    --------
    >>> def sign_descent(parameters, cost=None, gradients=None, stop=None, updates=None, *, step_size=0.01):
    ...     f = optapi.Objective.of(parameters, cost, gradients, stop, updates, name="sign_descent")
    ...     new = {}
    ...     for p, g, a in f.each(f.step_size(step_size)):
    ...         new[p] = p - a * pt.sign(g)
    ...     return f.finish(new)
    >>> x = pytensor.shared(np.array([1.0, -2.0]), name="x")
    >>> step = pytensor.function([], [], updates=sign_descent([x], pt.sum(x**2), step_size=0.5))
    >>> _ = step()
    >>> x.get_value()
    array([ 0.5, -1.5])
    """

    parameters: list[Any]
    cost: Any
    gradients: list[Any]
    stop: Any
    updates: Updates | None
    tolerance: Any
    ascent: bool
    name: str
    boxes: list[Box | None] | None = None
    x_scale: Kept | None = None
    rows: Rows | None = None
    penalties: list[Any] | None = None
    manifold: Packed | None = None
    _count: Any = field(default=None, init=False)
    _momenta: dict[Any, Any] = field(default_factory=dict, init=False)
    _metric: dict[Any, Any] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
           stop: Variable | None = None, updates: Updates | None = None, *, tolerance: Scalar | None = None,
           ascent: bool = False, name: str, needs_cost: bool = False,
           x_scale: XScale | None = None, bounds: Bounds | None = None,
           constraints: Constraints | None = None, prox: Prox | None = None,
           manifold: Manifolds | None = None) -> Objective:  # fmt: skip
        """Check the arguments that all rules have, and open the rule.

        Parameters
        ----------
        parameters, cost, gradients, stop, updates, tolerance, ascent, name
        x_scale, bounds, constraints, prox, manifold
            As the user passed them. A rule that passes `prox` on calls `metric` for each parameter.
        needs_cost : bool
            Whether the rule evaluates the cost and its gradients at other points than the parameters' values.
        """
        check_not_swapped(name, parameters, cost)
        parameters = check_parameters(parameters)
        limits = boxes(bounds, parameters)
        check_stop(stop)
        if updates is not None:
            check_updates(updates)
        if tolerance is not None:
            tolerance = scalar("tolerance", tolerance, low=0)
        check_name("name", name)
        check_flag("needs_cost", needs_cost)
        if cost is None and needs_cost:
            raise ValueError(f"{name} evaluates the cost at other points than the parameters' values; pass cost=")
        if cost is None and gradients is None:
            raise ValueError("neither cost nor gradients is given; pass cost=, or gradients= with one per parameter")
        if cost is not None:
            cost = check_cost(cost)
        if gradients is None:
            gradients = differentiate(cost, parameters, expressions(constraints))
        else:
            gradients = check_gradients(gradients, parameters)
            if needs_cost:
                _check_differentiable(cost, gradients, parameters, name)
        # Gradients take the dtype of their parameters, so that float32 parameters have float32 arithmetic.
        gradients = [as_dtype(g, p.type.dtype) for g, p in zip(gradients, parameters, strict=True)]
        if check_flag("ascent", ascent):
            cost, gradients = None if cost is None else pt.neg(cost), [pt.neg(g) for g in gradients]
        f = cls(parameters, cost, gradients, stop, updates, tolerance, bool(ascent), _unused(name, updates), limits)
        if x_scale is not None:
            f.x_scale = f._scales(x_scale)
        if constraints is not None:
            point = pt.tensor("point", dtype=f.dtype, shape=(f.size,))
            f.rows = Rows.of(constraints, parameters, point, f.unpack(point))
        if prox is not None:
            f.penalties = penalties(prox, parameters)
        if manifold is not None:
            f.manifold = f._on(manifold, {"x_scale": x_scale, "bounds": bounds})
        return f

    # What a rule reads

    @property
    def count(self) -> Any:
        """The number of updates done before this one, an int64 scalar. It exists in a rule that asks for it."""
        if self._count is None:
            self._count = self.state("count", dtype="int64")
        return self._count

    def step_size(self, step_size: StepSize) -> Any:
        """A step size in any of its forms as a scalar variable."""
        return schedules.at("step_size", step_size, lambda: self.count)

    def scalar(
        self, argument: str, value: Scalar, low: float = -np.inf, high: float = np.inf, *, below: float = np.inf
    ) -> Any:
        """A hyper-parameter as a scalar variable, a number in float64 whatever ``floatX`` is.

        Parameters
        ----------
        argument : str
            What the user calls it, for the message.
        value : number or scalar variable
        low, high, below : float, optional
            A number must be from `low` to `high`, and less than `below`. NaN is none of that.

        Raises
        ------
        TypeError, ValueError
            If `value` is neither, or is out of these limits.
        """
        return scalar(argument, value, low, high, below=below)

    def each(self, *scalars: Any) -> Iterator[tuple[Any, ...]]:
        """Each parameter with its gradient, and with `scalars` in its dtype."""
        for p, g in zip(self.parameters, self.gradients, strict=True):
            yield p, g, *(as_dtype(s, p.type.dtype) for s in scalars)

    def average(self, average: Tensor, value: Tensor, weight: Scalar) -> Any:
        r"""The next value :math:`w \bar g + (1 - w) g` of an exponential running average.

        Parameters
        ----------
        average, value : variables
            :math:`\bar g` and :math:`g`.
        weight : scalar
            :math:`w`, from 0 to 1, in float64 as `scalar` returns it: not one that `each` has cast. Both weights are
            worked out in float64 and then cast: in float32, 1 - 0.999 would be wrong in the fifth digit.
        """
        return running_average(average, value, scalar("weight", weight, 0, 1))

    # State

    def state(self, role: str, shape: tuple[int, ...] = (), dtype: str | None = None, fill: float | np.ndarray = 0, *,
              parameter: Variable | None = None) -> Any:  # fmt: skip
        """State of any shape, with the value `fill` at first.

        Parameters
        ----------
        role : str
            It is named ``rule/role``, or ``rule/role/parameter``.
        shape : tuple of int
            By default that of a scalar.
        dtype : str, optional
            By default that of `parameter`, or without one that of the packed vector.
        fill : number or array
        parameter : variable, optional
            The parameter that it belongs to.
        """
        if parameter is not None:
            role, dtype = f"{role}/{self.label(parameter)}", dtype or parameter.type.dtype
        return state.state(f"{self.name}/{role}", shape, dtype or self.dtype, fill)

    def zeros_like(self, parameter: Variable, role: str) -> Any:
        """State of the shape and dtype of `parameter`, zero at first, named ``rule/role/parameter``."""
        return self.full_like(parameter, role, 0)

    def momentum(self, parameter: Variable, role: str) -> Any:
        """`zeros_like` for a momentum: its next value is 0 where the step ends outside of the bounds."""
        momentum = self.zeros_like(parameter, role)
        self._momenta[momentum] = parameter
        return momentum

    def full_like(self, parameter: Variable, role: str, fill: float | np.ndarray) -> Any:
        """The same with the value `fill` at first."""
        return state.full_like(parameter, f"{self.name}/{role}/{self.label(parameter)}", fill)

    def shape(self, parameter: Variable) -> tuple[int, ...]:
        """The shape of `parameter` as it is now, in numbers.

        Raises
        ------
        TypeError
            If it is neither shared nor of fully known static shape.
        """
        return state.shape_of(parameter)

    def label(self, parameter: Variable) -> str:
        """What the names of state for `parameter` end with: its own name, or its position if that is not unique."""
        return self._labels[parameter]

    @cached_property
    def _labels(self) -> dict[Any, str]:
        return dict(zip(self.parameters, state.labels(self.parameters), strict=True))

    @property
    def stopped(self) -> Any:
        """Whether `stop` is 1 before the call; False without a stop."""
        return FALSE if self.stop is None else pt.gt(self.stop, 0)

    def converged(self, gradients: Sequence[Any] | None = None) -> Any:
        """Whether no component of the gradients, by default those at the parameters' values, exceeds the tolerance.

        With bounds or penalties it is to be given residuals, which it takes by default.

        NaN exceeds all. Without a tolerance, or a `stop` to write the answer to, nothing converges.
        """
        if self.tolerance is None or self.stop is None:
            return FALSE
        if gradients is None:
            slopes = [
                g if self._penalty[p] is None else residual(self._penalty[p], p, g)
                for p, g in zip(self.parameters, self.gradients, strict=True)
            ]
            gradients = [
                g if box is None else box.residual(p, g)
                for p, g, box in zip(self.parameters, slopes, self._each_box, strict=True)
            ]
        return conjunction([pt.all(abs(g) <= as_dtype(self.tolerance, g.type.dtype)) for g in gradients])

    def decay(self, new: Updates, decay: StepSize, mask: Mask | None = None, *,
              step_size: Scalar | Mapping[Any, Any] = 1.0, form: str = "beside") -> Updates:  # fmt: skip
        r"""`new` with decoupled weight decay, :math:`a \lambda x` less for each parameter :math:`x`.

        Parameters
        ----------
        new : dict
            From each parameter to its next value :math:`x'`, which is replaced; it is also returned.
        decay : scalar or schedule
            :math:`\lambda`, at least 0. Nothing is built for the number 0.
        mask : list of bool, or callable, optional
            Which parameters decay; a callable is asked about each parameter, for instance ``lambda p: p.ndim > 1`` to
            spare the biases. All by default.
        step_size : scalar, or dict from parameters to scalars
            :math:`a`, mostly what the method `step_size` returned; by default 1.
        form : str
            "beside" for :math:`x' - a \lambda x`, "after" for :math:`(1 - a \lambda) x'`, "proximal" for
            :math:`x' / (1 + a \lambda)`.
        """
        chosen, decay_now = check_mask(mask, self.parameters), schedules.at("decay", decay, lambda: self.count)
        if is_zero(decay):
            return new
        for p, decays in zip(self.parameters, chosen, strict=True):
            a = as_dtype((step_size[p] if isinstance(step_size, Mapping) else step_size) * decay_now, p.type.dtype)
            if decays and form == "proximal":
                new[p] = new[p] / (1 + a)
            elif decays:
                new[p] = new[p] - a * (new[p] if form == "after" else p)
        return new

    def part(
        self, rule: Callable[..., Updates], parameters: Sequence[Any], name: str, step_size: StepSize | None = None
    ) -> Updates:
        """What another `rule` does with some of the parameters, to be joined to the next values of this one.

        Its state has the prefix ``rule/name`` and the name of the function, so that what another one has saved is not
        taken for its own. It neither stops nor changes signs, which `finish` and `of` do for all. `step_size` is its
        own, unless it is a ``functools.partial`` that has one.
        """
        given = set(getattr(rule, "keywords", ())) & {"bounds", "prox", "l1", "region", "constraints", "manifold"}
        if given:
            raise ValueError(
                f"{rule.func.__name__} has {min(given)} inside of {self.name}, which does not judge by it; "  # type: ignore[attr-defined]
                f"call {rule.func.__name__} by itself on these parameters"  # type: ignore[attr-defined]
            )
        is_set = step_size is None or "step_size" in getattr(rule, "keywords", ())
        options = {} if is_set else {"step_size": step_size}
        gradients = dict(zip(self.parameters, self.gradients, strict=True))
        # The note is on a copy: the cost itself is the user's.
        cost = None if self.cost is None else noted(self.cost.copy(), partial=True)
        of_rule = getattr(getattr(rule, "func", rule), "__name__", "")
        prefix = [self.name, name, *([of_rule] if of_rule.isidentifier() else [])]
        return rule(
            list(parameters), cost, gradients=[gradients[p] for p in parameters], name="/".join(prefix), **options
        )

    # Penalties

    def metric(self, parameter: Variable, step_size: Tensor, divisor: Tensor | None = None) -> None:
        """Say with what step size the proximal operator of the penalty of `parameter` is taken after this step.

        Parameters
        ----------
        parameter : variable
        step_size : scalar variable
        divisor : tensor, optional
            By what the step of each component was divided.

        Raises
        ------
        ValueError
            If there is a divisor, and a penalty that is not separable: its proximal operator is then another one.
        """
        penalty = self._penalty[parameter]
        if penalty is None:
            return
        if divisor is not None and not getattr(penalty, "separable", False):
            raise ValueError(
                f"prox of {called(parameter)} is {type(penalty).__name__}, which is not separable, and {self.name} has "
                "a step size for each component; pass a separable one such as L1, or take sgd or momentum"
            )
        size = as_dtype(step_size, parameter.type.dtype)
        self._metric[parameter] = size if divisor is None else size / divisor

    @property
    def _penalty(self) -> dict[Any, Any]:
        return dict(zip(self.parameters, self.penalties or [None] * len(self.parameters), strict=True))

    def _penalized(self, new: Updates) -> Updates:
        """The next values after the proximal operators."""
        near = {}
        for p, box in zip(self.parameters, self._each_box, strict=True):
            penalty = self._penalty[p]
            if penalty is None:
                continue
            if box is not None and not getattr(penalty, "separable", False):
                raise ValueError(
                    f"{called(p)} has bounds, and its prox {type(penalty).__name__}, which is not separable; pass one "
                    "of them, or prox.Dykstra of two sets"
                )
            # A penalty may ask for the shape.
            value = pt.specify_shape(new[p], state.shape_of(p)) if _has_shape(p) else new[p]
            near[p] = penalty.prox(value, self._metric[p])
        return {**new, **near}

    # What is feasible

    @property
    def _each_box(self) -> list[Box | None]:
        return self.boxes or [None] * len(self.parameters)

    @cached_property
    def box(self) -> Box | None:
        """The bounds of the packed vector, None without bounds."""
        return None if self.boxes is None else packed(self.boxes, self.parameters, self.dtype)

    def around(self, point: Tensor) -> Box | None:
        """The box of the points to which a step from `point` may lead, None without bounds."""
        return self.box

    def residual(self, point: Tensor, gradient: Tensor) -> Any:
        """What vanishes at a solution, in units of the parameters: their gradient, with bounds the projected one."""
        gradient = self.unscaled(gradient)
        return gradient if self.box is None else self.box.residual(point, gradient)

    def _on(self, manifold: Manifolds, others: Mapping[str, Any]) -> Packed:
        """The option `manifold`, checked, for packed vectors; none of the options `others` may be given beside it."""
        found = manifolds(manifold, self.parameters)
        for argument, value in others.items():
            if value is not None:
                raise ValueError(f"manifold and {argument} do not go together; pass one of them")
        return Packed(found, [state.shape_of(p) for p in self.parameters], self.pack, self.unpack)

    # Scales: a rule with `x_scale` works on vectors z with x = x0 + D z from any point x0, and points stay as they are,
    # so that to scale them and back rounds none.

    def scaled(self, vector: Tensor) -> Any:
        """`vector` times `x_scale`: from a step to that of the parameters, from their gradient to that of the rule."""
        return vector if self.x_scale is None else self.x_scale.value * vector

    def unscaled(self, vector: Tensor) -> Any:
        """The inverse of `scaled`."""
        return vector if self.x_scale is None else vector / self.x_scale.value

    def _scales(self, x_scale: XScale) -> Kept:
        """The option `x_scale`, checked, as one vector. What is not known beforehand is kept from the first call on."""
        shapes = [state.shape_of(p) for p in self.parameters]
        given = check_x_scale(x_scale, self.parameters, shapes, ("start", "curvature"))
        if given == "curvature":
            kept = self.equilibrium("x_scale")
        elif given == "start" or any(isinstance(part, Variable) for part in given):
            scale, unknown = self._unset("x_scale")
            first = sizes(self.pack(self.parameters if given == "start" else list(map(pt.as_tensor, given))))
            kept = Kept(pt.switch(unknown, first, scale), scale)
        else:
            scale = self.state("x_scale", (self.size,), fill=np.concatenate([part.ravel() for part in given]))
            kept = Kept(scale, scale)
        noted(kept.state, x_scale=True)
        return kept

    def equilibrium(self, role: str) -> Kept:
        """Scales with which the rows of the Hessian at the start have about length 1, see `scaling.equilibrated`."""
        product, (scale, unknown) = self.curvature(), self._unset(role)

        def found(x: Any) -> list[Any]:
            return list(equilibrated(lambda v: product(x, v), self.size, self.dtype))

        first = cond(unknown, found, [self.pack(self.parameters)], [scale, pt.constant(np.int64(0))])
        return Kept(first[0], scale, first[1])

    def _unset(self, role: str) -> tuple[Any, Any]:
        """State for a vector, and whether this call is the one that works it out."""
        kept = self.state(role, (self.size,), fill=np.nan)
        return kept, pt.any(pt.isnan(kept)) & ~self.stopped

    # The cost elsewhere, for rules that work on one vector

    @property
    def dtype(self) -> str:
        """The dtype of the packed vector: the widest of the parameters'."""
        return np.result_type(*(p.type.dtype for p in self.parameters)).name

    @property
    def components(self) -> int:
        """The number of components of all parameters together."""
        return sum(prod(state.shape_of(p)) for p in self.parameters)

    @property
    def size(self) -> int:
        """The length of the packed vector: `components`, unless the rule works on another vector."""
        return self.components

    def pack(self, tensors: Sequence[Any]) -> Any:
        """One vector of all components of `tensors`, which need not be of the shapes of the parameters."""
        parts = [as_dtype(t if t.type.ndim == 1 else t.ravel(), self.dtype) for t in tensors]
        return parts[0] if len(parts) == 1 else pt.concatenate(parts)

    def unpack(self, vector: Tensor) -> list[Any]:
        """Tensors of the shapes and dtypes of the parameters."""
        tensors, begin = [], 0
        for p in self.parameters:
            shape = state.shape_of(p)
            end = begin + prod(shape)
            part = vector if len(self.parameters) == 1 else vector[begin:end]
            tensors.append(like(part[0] if not shape else part if len(shape) == 1 else part.reshape(shape), p))
            begin = end
        return tensors

    def at(self, point: Tensor) -> Point:
        """The cost and the gradient at the packed vector `point`."""
        tensors = self.unpack(point)
        replacements = dict(zip(self.parameters, tensors, strict=True))
        cost, *gradients = replaced([self.cost, *self.gradients], replacements)
        # Parameters of a narrower dtype than the vector round: the point is where the cost was evaluated. Else it is
        # `point`, which rewrites would find out part by part.
        rounds = any(p.type.dtype != self.dtype for p in self.parameters)
        return self._at(self.pack(tensors) if rounds else point, cost, gradients)

    def _at(self, point: Tensor, cost: Any, gradients: Sequence[Any]) -> Point:
        gradient = self.scaled(self.pack(gradients))
        return Point(point, cost, gradient if self.manifold is None else self.manifold.tangent(point, gradient))

    def product(self, point: Tensor, vector: Tensor) -> Any:
        """The product of the Hessian at the packed vector `point` with the packed `vector`.

        Raises
        ------
        ValueError
            If the cost has no second derivatives.
        """
        return self.curvature()(point, vector)

    def curvature(self, outputs: Variables | None = None, residuals: Variables | None = None,
                  givens: Mapping[Any, Any] | None = None) -> Product:  # fmt: skip
        r"""Products with a matrix of second derivatives, which is not formed, as a function of a point and a vector.

        By default it is the Hessian. With :math:`J` the derivatives of `outputs` or `residuals` by the parameters, it
        is the Gauss-Newton matrix :math:`J^T H J`. Of `outputs`, :math:`H` is the Hessian of the cost as a function of
        them, and the matrix is positive semidefinite if that function is convex; of `residuals` it is the identity.

        Parameters
        ----------
        outputs : variable or list of variables, optional
            What the cost depends on the parameters through. A parameter that has a penalty in the cost may be listed.
        residuals : variable or list of variables, optional
        givens : dict, optional
            From variables that the cost reads to what stands in their places, such as another batch.

        Returns
        -------
        callable
            From the packed point and the packed vector, both variables, to the packed product.

        Raises
        ------
        ValueError, TypeError
            If the cost depends on the parameters not through `outputs` alone, if `outputs` or `residuals` do not depend
            on the parameters, or if the cost does not depend on what `givens` replaces.
        """
        # Of its own, because what a caller passes may depend on the parameters, which are replaced.
        placeholder = pt.tensor("vector", dtype=self.dtype, shape=(self.size,))
        vectors = self.unpack(placeholder)
        if outputs is None and residuals is None:
            products = self.products(self.parameters, self.gradients, vectors)
        elif residuals is None:
            outputs = check_outputs("outputs", outputs, self.parameters)
            pushed = pushforward(outputs, self.parameters, vectors)
            pushed = loss_products(self.cost, outputs, self.parameters, pushed, self.name)
            products = pullback(outputs, self.parameters, pushed)
        else:
            residuals = check_outputs("residuals", residuals, self.parameters)
            pushed = pushforward(residuals, self.parameters, vectors)
            products = pullback(residuals, self.parameters, pushed)
        products = known_shapes([self.pack(products)])
        givens = {} if givens is None else check_givens("curvature_givens", givens, [self.cost, *self.gradients])
        if givens:
            products = replaced(products, givens)

        def product(point: Any, vector: Any) -> Any:
            point, vector = like(point, placeholder), like(vector, placeholder)
            replacements = dict(zip(self.parameters, self.unpack(point), strict=True))
            return self.scaled(substituted(products, replacements | {placeholder: self.scaled(vector)})[0])

        return product

    def products(self, parameters: Sequence[Any], gradients: Sequence[Any], vectors: Sequence[Any]) -> list[Any]:
        """The products of the matrix of second derivatives by `parameters` with `vectors`, at the parameters' values.

        Raises
        ------
        ValueError
            If the cost has no second derivatives.
        """
        return second_derivatives(parameters, gradients, vectors, self.name)

    def current(self, exact: bool | None) -> tuple[Point, Any, tuple[Any, ...]]:
        """The cost and the gradient at the point that the parameters hold, evaluated unless they are known.

        They are not evaluated after `stop` either, and then mean nothing. With bounds or a manifold the point is the
        nearest feasible one.

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
        if self.box is not None:
            x = self.box.project(x)
        if self.manifold is not None:
            x = self.manifold.project(x)
        if not self.is_exact(exact):
            is_free = self.box is None and self.manifold is None
            here = self._at(x, self.cost, self.gradients) if is_free else self.at(x)
            return here, pt.constant(np.int64(1)), ()
        # NaN equals nothing, so at first no point is known.
        kept = (
            self.state("point", (self.size,), fill=np.nan),
            self.state("point_cost", dtype=self.cost.type.dtype, fill=np.nan),
            self.state("point_gradient", (self.size,), fill=np.nan),
        )
        for part, variable in zip(Point._fields, kept, strict=True):
            noted(variable, kept=part)
        known = self.stopped | (pt.all(pt.eq(x, kept[0])) & ~pt.isnan(kept[1]))
        cost, gradient = cond(~known, lambda point: self.at(point)[1:], [x], [kept[1], self.scaled(kept[2])])
        if self.manifold is not None:
            # A driver that knows the gradient at the start writes it there as it is.
            gradient = self.manifold.tangent(x, gradient)
        return Point(x, cost, gradient), pt.switch(known, 0, 1).astype("int64"), kept

    def is_exact(self, exact: bool | None) -> bool:
        """Whether what was found at a point may be used at a later call, see `current`."""
        if exact is not None:
            return check_flag("exact", exact)
        inputs = [v for v in explicit_graph_inputs(self._graph) if not any(v is p for p in self.parameters)]
        return not inputs and not self.is_noisy

    @property
    def _graph(self) -> list[Any]:
        """What is evaluated at a point, with the constraints at the values of the parameters."""
        rows = [] if self.rows is None else self.rows.at(self.pack(self.parameters))
        return [self.cost, *self.gradients, *rows]

    @property
    def is_noisy(self) -> bool:
        """Whether the cost changes from call to call by itself: it draws, or reads what `updates` writes."""
        others = set(ancestors(self._graph)) - set(self.parameters)
        return any(is_generator(v) or v in (self.updates or {}) for v in others)

    # The end of a rule

    def finish(self, new: Updates, converged: Tensor | None = None, finished: Tensor = FALSE,
               reports: dict[str, Any] | None = None, unheld: Updates | None = None) -> Updates:  # fmt: skip
        """Close the rule: the dictionary that it returns.

        Parameters
        ----------
        new : dict
            The next values of the parameters and of the rule's state.
        converged : boolean scalar variable, optional
            Whether the point held before the call is already final: nothing of `new` is then written, and `stop` is 1.
            By default, whether the gradients there meet the tolerance.
        finished : boolean scalar variable
            Whether the algorithm has finished with the point held after the call.
        reports : dict, optional
            From roles to scalar variables, see `optapi.reports`. A cost is mapped back to the user's sign; evaluations
            and products are those of this call, and are summed up.
        unheld : dict, optional
            As `new`, for state that the rule itself leaves as it is where nothing may be written. A choice between the
            old and the new would copy large arrays of which a call changes only a part.

        Without a `stop` only `new` and `unheld` count.

        Raises
        ------
        KeyError
            If a variable already has an update in `updates`, which is then left as it was.
        """
        if self._count is not None:
            new = {**new, self._count: self._count + 1}
        if self.penalties is not None:
            new = self._penalized(new)
        inside = []
        for p, box in zip(self.parameters, self._each_box, strict=True):
            if box is not None:
                projected = box.project(new[p])
                # Else a momentum would press against the bound, and keep the component there.
                free = pt.eq(projected, new[p])
                stopped = {m: pt.switch(free, new[m], pt.zeros_like(m)) for m, q in self._momenta.items() if q is p}
                at = noted(self.state(f"active/{self.label(p)}", self.shape(p), "int8"), active=True)
                new = {**new, **stopped, p: projected, at: box.active(projected).astype("int8")}
                inside.append(pt.all(pt.eq(p, box.project(p))))
        if self.x_scale is not None:
            new = {**new, self.x_scale.state: self.x_scale.value}
        reports, counted = reports or {}, None if self.x_scale is None else self.x_scale.products
        new = {variable: as_update(value, variable) for variable, value in new.items()}
        if self.stop is not None:
            converged = self.converged() if converged is None else converged
            # A start that is not feasible does not stay where it is.
            still = self.stopped | conjunction([converged, *inside])
            new = hold(new, still)
            reported_as = dict(zip(reports, reports, strict=True))
            if counted is not None:
                # Not the name of the rule's own state, as the products that L-BFGS keeps.
                reported_as.setdefault("products", "x_scale_products")
                reports = {**reports, "products": reports.get("products", 0) + counted}
            for role, value in reports.items():
                reported, value = self._reported(role, value, reported_as[role])
                new[reported] = like(pt.switch(self.stopped, reported, value), reported)
            new[self.stop] = like(still | finished, self.stop)
        new |= {variable: as_update(value, variable) for variable, value in (unheld or {}).items()}
        return extend(self.updates, new)

    def _reported(self, role: str, value: Any, name: str) -> tuple[Any, Any]:
        """The state variable that reports `value`, and its next value."""
        dtype = value.type.dtype
        reported = state.state(f"{self.name}/{name}", dtype=dtype, fill=0 if dtype == "int64" else np.nan, role=role)
        if role in ("evaluations", "products"):
            return reported, reported + value
        return reported, -value if role == "cost" and self.ascent else value


def _has_shape(parameter: Any) -> bool:
    """Whether the shape of `parameter` is known in numbers."""
    try:
        state.shape_of(parameter)
    except TypeError:
        return False
    return True


def _unused(name: str, updates: Updates | None) -> str:
    """`name`, or `name` with the first number from 2 with which it is the prefix of no variable of `updates`."""
    unused, number = name, 1
    while any((variable.name or "").startswith(f"{unused}/") for variable in updates or ()):
        number += 1
        unused = f"{name}_{number}"
    return unused


def _check_differentiable(cost: Any, gradients: Sequence[Any], parameters: Sequence[Any], name: str) -> None:
    """`gradients` can be those of `cost` at any point."""
    if note(cost, "partial"):
        raise ValueError(
            f"{name.split('/')[0]} gives some parameters to a rule that evaluates the cost at other points, where the "
            "others would move too; pass a first-order rule, such as optapi.adam, in its place"
        )
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


def multiplier_state(f: Objective, y: Tensor, w: Tensor | None) -> Updates:
    """State for the multipliers of the constraints as the user gave them, and of the bounds, with their next values.

    `y` and `w` are those of the rows and of the packed vector in the signs of a minimization; `w` may be None without
    bounds.
    """
    sign, rows = np.asarray(-1 if f.ascent else 1, f.dtype), f.rows
    held: Updates = {}
    for i, value in enumerate([] if rows is None else rows.given(y)):
        held[noted(f.state(f"multipliers/{i}", value.type.shape), multipliers=True)] = sign * value
    if f.boxes is not None and w is not None:
        for p, value in zip(f.parameters, f.unpack(w), strict=True):
            held[noted(f.zeros_like(p, "bound_multipliers"), bound_multipliers=True)] = sign * value
    return held


def conjunction(conditions: Sequence[Any]) -> Any:
    """Whether all of the boolean scalars `conditions` are true."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = result & condition
    return result
