r"""Penalties and sets that are no part of a smooth cost: their values, proximal operators and projections.

A penalty :math:`h` has `value(x)`, and `prox(v, t)`, its proximal operator

.. math:: \operatorname{prox}_{t h}(v) = \arg\min_x \; h(x) + \frac{1}{2 t} \|x - v\|^2

A set has `project(v)`, its nearest point, which is also its proximal operator for any :math:`t`. Both take tensors and
return expressions of their dtype. Weights, radii and limits are numbers, arrays that broadcast to the parameter, or
variables, which can be other ones at the next call.

Any object with methods `value` and `prox` serves as a penalty. One whose attribute `separable` is True takes a tensor
for :math:`t`, a number for each component.

References
----------
Parikh and Boyd (2014), Proximal algorithms, chapter 6; Beck (2017), First-order methods in optimization, chapters 6 and
7, where most of the formulas are derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import ceil, log2
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import float_dtypes, integer_dtypes

from .checks import as_dtype, as_tensor, called, check_axis, is_dense, shown
from .feasible import between, by_parameter
from .graph.loops import FALSE, repeat
from .graph.ordered import cumulative, in_order
from .state import shape_of
from .typing import Axis, Numbers, Tensor, Weight
from .vectors import guarded, largest, norm, unit


__all__ = [
    "L1",
    "PSD",
    "Affine",
    "Box",
    "BoxSection",
    "CappedSimplex",
    "Dykstra",
    "ElasticNet",
    "Entropy",
    "GroupL2",
    "Halfspace",
    "Huber",
    "Hyperplane",
    "Isotonic",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "MaxNorm",
    "NegativeLog",
    "NonNegative",
    "NonNegativeL1",
    "NonNegativeRidge",
    "Nuclear",
    "Penalty",
    "Projection",
    "Ridge",
    "SecondOrderCone",
    "Simplex",
    "SparseGroup",
    "Sphere",
    "TotalVariation1D",
]

# Fields by what they may be: at least 0, above 0, any numbers.
WEIGHTS = ("weight", "l1", "l2", "ridge", "group", "radius")
POSITIVE = ("delta", "weights")
NUMBERS = ("low", "high", "normal", "offset", "total")


@dataclass(frozen=True, eq=False)
class Penalty:
    """Base of the penalties here: checks their fields, and what they are called with.

    A subclass has `_value(x)` and `_prox(v, t)`, where all have the dtype of the point.

    Attributes
    ----------
    separable : bool
        Whether it is a sum over components, so that its proximal operator takes a number `t` for each.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False)
    ... class Square(optapi.prox.Penalty):
    ...     def _value(self, x):
    ...         return pt.sum(x**2)
    ...     def _prox(self, v, t):
    ...         return v / (1 + 2 * t)
    >>> Square().prox(np.array([3.0]), 1.0).eval()
    array([1.])
    """

    separable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = f"{field.name} of {type(self).__name__}", getattr(self, field.name)
            if field.name in WEIGHTS:
                value = _numbers(name, value, 0.0)
            elif field.name in POSITIVE:
                value = _numbers(name, value, float(np.finfo("float64").tiny))
            elif field.name in NUMBERS:
                value = _numbers(name, value, -np.inf, infinite=field.name in ("low", "high"))
            elif field.name == "axis":
                value = check_axis(name, value)
            elif field.name == "groups":
                value = _labels(name, value)
            object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        """What of the fields together is wrong is a ValueError."""

    def value(self, x: Tensor) -> Any:
        """The value at `x`, a scalar; infinite outside of where the penalty is defined. Of a set it is 0."""
        return self._value(as_point("x", x))

    def prox(self, v: Tensor, t: Any = 1.0) -> Any:
        """The proximal operator at `v`, of its shape; `t` is a positive scalar, or a tensor if it is `separable`."""
        v, t = as_point("v", v), as_tensor("t", t)
        if t.type.ndim and not self.separable:
            raise ValueError(
                f"t has {t.type.ndim} dimensions, and {type(self).__name__} is not separable; pass a scalar"
            )
        return self._prox(v, as_dtype(t, v.type.dtype))

    def _value(self, x: Any) -> Any:
        raise NotImplementedError

    def _prox(self, v: Any, t: Any) -> Any:
        raise NotImplementedError

    def _given(self, name: str, v: Any) -> Any:
        """The field `name` as a variable of the dtype of `v`."""
        return as_dtype(pt.as_tensor(getattr(self, name)), v.type.dtype)


@dataclass(frozen=True, eq=False)
class Projection(Penalty):
    """Base of the sets here. A subclass has `_project(v)`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False)
    ... class Integers(optapi.prox.Projection):
    ...     def _project(self, v):
    ...         return pt.round(v)
    >>> Integers().project(np.array([0.7, 2.2])).eval()
    array([1., 2.])
    """

    def project(self, v: Tensor) -> Any:
        """The nearest point of the set."""
        return self._project(as_point("v", v))

    def minimize(self, g: Tensor) -> Any:
        """The point of the set with the least :math:`g^T x`, which `frank_wolfe` needs.

        Raises
        ------
        TypeError
            If it is not known: it is of `Simplex`, `Box`, `L1Ball`, `L2Ball` and `LinfBall`.
        """
        return self._minimize(as_point("g", g))

    def _minimize(self, g: Any) -> Any:
        raise TypeError(f"{type(self).__name__} has no point of least g'x; pass Simplex, Box, or one of the balls")

    def _value(self, x: Any) -> Any:
        return pt.zeros((), x.type.dtype)

    def _prox(self, v: Any, t: Any) -> Any:
        return self._project(v)

    def _project(self, v: Any) -> Any:
        raise NotImplementedError


def as_point(argument: str, value: Any) -> Any:
    """`value` as a floating-point tensor."""
    value = as_tensor(argument, value)
    if value.type.dtype not in (*float_dtypes, *integer_dtypes):
        raise TypeError(f"{argument} has dtype {value.type.dtype}; pass real numbers")
    return value if value.type.dtype in float_dtypes else as_dtype(value, "float64")


def _numbers(name: str, value: Any, low: float, infinite: bool = False) -> Any:
    """`value`: a number, an array, both of at least `low`, or a real variable."""
    wanted = "numbers, an array of them or a variable"
    if low >= 0:
        wanted = ("positive " if low > 0 else "") + wanted + (" of at least 0" if low == 0 else "")
    if isinstance(value, Variable):
        if not is_dense(value) or value.type.dtype not in (*float_dtypes, *integer_dtypes):
            raise TypeError(f"{name} is of type {value.type}; pass {wanted}")
        return value
    if value is None or isinstance(value, bool | np.bool_ | str | bytes | Mapping | set):
        raise TypeError(f"{name} is {value!r}; pass {wanted}")
    try:
        array = np.array(value)
        if array.dtype.kind not in "iuf" or not array.size:
            raise TypeError
        array = array.astype(float)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} is {shown(value)}; pass {wanted}") from error
    if np.any(np.isnan(array)) or not np.all(array >= low) or not (infinite or np.all(np.isfinite(array))):
        raise ValueError(f"{name} is {value!r}; pass {wanted}")
    return array if array.ndim else float(array)


def _labels(name: str, value: Any) -> Any:
    """`value`: None, or an integer array of labels from 0 on."""
    if value is None:
        return None
    try:
        array = np.array(value)
    except ValueError:
        array = np.array(None)
    if isinstance(value, Variable) or array.dtype.kind not in "iu" or not array.size:
        raise TypeError(f"{name} is {shown(value)}; pass an array of integers, the label of each component")
    if sorted(set(array.flat)) != list(range(int(array.max()) + 1)):
        raise ValueError(f"{name} has labels {sorted(set(array.flat))}; pass 0, 1, 2 and so on, and leave none out")
    return array.astype("int64")


def _known_length(v: Any, what: str) -> int:
    """The length of a vector, which is to be known when the graph is built."""
    length = v.type.shape[0] if v.type.ndim == 1 else None
    if length is None:
        raise ValueError(
            f"v is of type {v.type}, and {what} takes vectors of known length; pass pt.specify_shape(v, (length,))"
        )
    return int(length)


def soft(v: Any, s: Any) -> Any:
    """`v` moved towards 0 by `s`, but not across; NaN stays."""
    return v - between(v, -s, s)


def _inside(condition: Any, value: Any) -> Any:
    """`value` where all of `condition` is true, else infinite."""
    return pt.switch(pt.all(condition), value, np.asarray(np.inf, value.type.dtype))


def positive_part(v: Any) -> Any:
    """`v`, or 0 where it is negative; NaN stays."""
    return pt.switch(v <= 0, pt.zeros_like(v), v)


# Penalties of each component


@dataclass(frozen=True, eq=False)
class _Separable(Penalty):
    separable: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class L1(_Separable):
    r"""The sum :math:`\sum_i \lambda_i |x_i|`, which makes components exactly 0. A weight of 0 leaves one alone.

    Its proximal operator is the soft threshold, :math:`\operatorname{sgn}(v) \max(|v| - t \lambda, 0)`.

    Examples
    --------
    >>> optapi.prox.L1(1.0).prox(np.array([-3.0, 0.5, 2.0])).eval()
    array([-2.,  0.,  1.])
    """

    weight: Weight

    def _value(self, x: Any) -> Any:
        return pt.sum(self._given("weight", x) * abs(x))

    def _prox(self, v: Any, t: Any) -> Any:
        return soft(v, t * self._given("weight", v))


@dataclass(frozen=True, eq=False)
class ElasticNet(_Separable):
    r"""The sum :math:`\sum_i \lambda_i |x_i| + \frac12 \rho_i x_i^2`, with `weight` and `ridge`.

    Examples
    --------
    >>> optapi.prox.ElasticNet(1.0, 1.0).prox(np.array([-3.0, 0.5, 2.0])).eval()
    array([-1. ,  0. ,  0.5])
    """

    weight: Weight
    ridge: Weight

    def _value(self, x: Any) -> Any:
        return pt.sum(self._given("weight", x) * abs(x) + self._given("ridge", x) * x**2 / 2)

    def _prox(self, v: Any, t: Any) -> Any:
        return soft(v, t * self._given("weight", v)) / (1 + t * self._given("ridge", v))


@dataclass(frozen=True, eq=False)
class NonNegativeL1(_Separable):
    r"""The sum :math:`\sum_i \lambda_i x_i` for :math:`x \ge 0`.

    Examples
    --------
    >>> optapi.prox.NonNegativeL1(1.0).prox(np.array([-3.0, 0.5, 2.0])).eval()
    array([0., 0., 1.])
    """

    weight: Weight

    def _value(self, x: Any) -> Any:
        return _inside(x >= 0, pt.sum(self._given("weight", x) * x))

    def _prox(self, v: Any, t: Any) -> Any:
        return positive_part(v - t * self._given("weight", v))


@dataclass(frozen=True, eq=False)
class Ridge(_Separable):
    r"""The sum :math:`\frac12 \sum_i \lambda_i x_i^2`. It is smooth, and may as well be a part of the cost.

    Examples
    --------
    >>> optapi.prox.Ridge(1.0).prox(np.array([-3.0, 2.0])).eval()
    array([-1.5,  1. ])
    """

    weight: Weight

    def _value(self, x: Any) -> Any:
        return pt.sum(self._given("weight", x) * x**2) / 2

    def _prox(self, v: Any, t: Any) -> Any:
        return v / (1 + t * self._given("weight", v))


@dataclass(frozen=True, eq=False)
class NonNegativeRidge(Ridge):
    r"""The sum :math:`\frac12 \sum_i \lambda_i x_i^2` for :math:`x \ge 0`.

    Examples
    --------
    >>> optapi.prox.NonNegativeRidge(1.0).prox(np.array([-3.0, 2.0])).eval()
    array([0., 1.])
    """

    def _value(self, x: Any) -> Any:
        return _inside(x >= 0, Ridge._value(self, x))

    def _prox(self, v: Any, t: Any) -> Any:
        return positive_part(Ridge._prox(self, v, t))


@dataclass(frozen=True, eq=False)
class Huber(_Separable):
    r"""Huber's penalty, which is that of `Ridge` near 0, and that of `L1` but for a constant far away.

    It is the sum of :math:`\frac12 \lambda x^2` where :math:`|x| \le \delta`, else of
    :math:`\lambda \delta (|x| - \delta / 2)`, with :math:`\lambda` = `weight`, and :math:`\delta` = `delta` above 0.

    Examples
    --------
    >>> optapi.prox.Huber(1.0, 1.0).prox(np.array([-3.0, 1.0])).eval()
    array([-2. ,  0.5])
    """

    weight: Weight
    delta: Weight = 1.0

    def _value(self, x: Any) -> Any:
        weight, delta = self._given("weight", x), self._given("delta", x)
        return pt.sum(weight * pt.switch(abs(x) <= delta, x**2 / 2, delta * (abs(x) - delta / 2)))

    def _prox(self, v: Any, t: Any) -> Any:
        s, delta = t * self._given("weight", v), self._given("delta", v)
        return pt.switch(abs(v) <= delta * (1 + s), v / (1 + s), v - s * delta * pt.sign(v))


@dataclass(frozen=True, eq=False)
class NegativeLog(_Separable):
    r"""The barrier :math:`-\sum_i \lambda_i \log x_i` of :math:`x > 0`.

    Its proximal operator is :math:`(v + \sqrt{v^2 + 4 t \lambda}) / 2`, written so that nothing cancels.

    Examples
    --------
    >>> optapi.prox.NegativeLog(2.0).prox(np.array([-1.0, 1.0])).eval()
    array([1., 2.])
    """

    weight: Weight

    def _value(self, x: Any) -> Any:
        logs = pt.log(pt.switch(x > 0, x, pt.ones_like(x)))
        return _inside(x > 0, -pt.sum(self._given("weight", x) * logs))

    def _prox(self, v: Any, t: Any) -> Any:
        s = t * self._given("weight", v)
        root = pt.sqrt(v**2 + 4 * s)
        return pt.switch(v < 0, 2 * s / (root - v), (v + root) / 2)


@dataclass(frozen=True, eq=False)
class Entropy(_Separable):
    r"""The sum :math:`\sum_i \lambda_i x_i \log x_i` for :math:`x \ge 0`, the negative entropy. Weights are above 0.

    The logarithm :math:`y` of its proximal operator solves :math:`e^y + t \lambda (1 + y) = v`, by Newton's method from
    above, where it converges from any start.

    Examples
    --------
    >>> optapi.prox.Entropy(1.0).prox(np.array([0.0, 1.0])).eval().round(4)
    array([0.2785, 0.5671])
    """

    weight: Weight = 1.0

    def _check(self) -> None:
        if not isinstance(self.weight, Variable) and not np.all(np.asarray(self.weight) > 0):
            raise ValueError(f"weight of Entropy is {self.weight!r}; pass positive numbers")

    def _value(self, x: Any) -> Any:
        logs = pt.log(pt.switch(x > 0, x, pt.ones_like(x)))
        return _inside(x >= 0, pt.sum(self._given("weight", x) * x * logs))

    def _prox(self, v: Any, t: Any) -> Any:
        s = t * self._given("weight", v) + pt.zeros_like(v)
        # Both are above the root: the first everywhere, the second where log x > -1.
        least = np.asarray(np.exp(-1), v.type.dtype)
        start = v / s - 1
        start = pt.switch(v > least, pt.minimum(start, pt.log(pt.maximum(v, least))), start)
        close = np.asarray(4 * np.finfo(v.type.dtype).eps, v.type.dtype)

        def turn(y: Any) -> Any:
            x = pt.exp(y)
            step = (x + s * (1 + y) - v) / (x + s)
            return [y - step], ~pt.any(abs(step) > close * (1 + abs(y)))

        (y,) = repeat(turn, [start], 50)
        return pt.exp(y)


# Penalties of groups of components


@dataclass(frozen=True, eq=False)
class GroupL2(Penalty):
    r"""The group lasso :math:`\lambda \sum_g \sqrt{n_g} \|x_g\|`, with :math:`n_g` the size of a group.

    Whole groups become exactly 0. They are along `axis`, one or several, so that ``axis=1`` of a matrix has its rows
    for groups; or `groups` has the label of each component, 0, 1, 2 and so on. Without both all components are one
    group. A weight for each group is an array with one for each label, or one that broadcasts to the norms along `axis`
    with that axis kept.

    References
    ----------
    Yuan and Lin (2006), Model selection and estimation in regression with grouped variables, equation 2.1.

    Examples
    --------
    >>> v = np.array([[3.0, 4.0], [0.3, 0.4]])
    >>> (optapi.prox.GroupL2(1 / np.sqrt(2), axis=1).prox(v) * 5).eval().round(4)
    array([[12., 16.],
           [ 0.,  0.]])
    """

    weight: Weight
    axis: Axis = None
    groups: Numbers | None = None

    def _check(self) -> None:
        if self.axis is not None and self.groups is not None:
            raise ValueError("GroupL2 has both axis and groups; pass one of them")

    def _norms(self, x: Any) -> tuple[Any, Any, Any]:
        """The norms of the groups, the roots of their sizes, and the labels or None."""
        u = unit(x)
        squares = (x / u) ** 2
        if self.groups is None:
            sizes = pt.sum(pt.ones_like(x), axis=self.axis, keepdims=True)
            return u * pt.sqrt(pt.sum(squares, axis=self.axis, keepdims=True)), pt.sqrt(sizes), None
        labels = np.asarray(self.groups)
        if labels.ndim != x.type.ndim or any(
            k not in (None, n) for k, n in zip(x.type.shape, labels.shape, strict=True)
        ):
            raise ValueError(f"groups of GroupL2 has shape {labels.shape}, and the point is of type {x.type}")
        labels = labels.ravel()
        sums = pt.inc_subtensor(pt.zeros(int(labels.max()) + 1, x.type.dtype)[labels], squares.ravel())
        return u * pt.sqrt(sums), pt.constant(np.sqrt(np.bincount(labels)).astype(x.type.dtype)), labels

    def _value(self, x: Any) -> Any:
        norms, roots, _ = self._norms(x)
        return pt.sum(self._given("weight", x) * roots * norms)

    def _prox(self, v: Any, t: Any) -> Any:
        norms, roots, labels = self._norms(v)
        least = t * self._given("weight", v) * roots
        moves = ~pt.eq(norms, 0)
        factor = positive_part(1 - least / pt.switch(moves, norms, pt.ones_like(norms)))
        factor = pt.switch(moves, factor, pt.zeros_like(factor))
        return v * (factor if labels is None else factor[labels].reshape(v.shape))


@dataclass(frozen=True, eq=False)
class SparseGroup(Penalty):
    r"""The sparse group lasso: `L1` with the weight `l1` and `GroupL2` with the weight `group`, added.

    Its proximal operator is that of the first, and then that of the second.

    References
    ----------
    Simon, Friedman, Hastie and Tibshirani (2013), A sparse-group lasso, section 3.

    Examples
    --------
    >>> optapi.prox.SparseGroup(1.0, 1.0, axis=1).prox(np.array([[3.0, 0.5], [1.2, 0.5]])).eval().round(4)
    array([[0.5858, 0.    ],
           [0.    , 0.    ]])
    """

    l1: Weight
    group: Weight
    axis: Axis = None
    groups: Numbers | None = None

    def _check(self) -> None:
        self._parts  # noqa: B018

    @property
    def _parts(self) -> tuple[L1, GroupL2]:
        return L1(self.l1), GroupL2(self.group, self.axis, self.groups)

    def _value(self, x: Any) -> Any:
        return sum(part._value(x) for part in self._parts)

    def _prox(self, v: Any, t: Any) -> Any:
        for part in self._parts:
            v = part._prox(v, t)
        return v


@dataclass(frozen=True, eq=False)
class Nuclear(Penalty):
    r"""The nuclear norm :math:`\lambda \sum_i \sigma_i` of a matrix, the sum of its singular values: ranks become low.

    Cost: a singular value decomposition.

    Examples
    --------
    >>> optapi.prox.Nuclear(1.0).prox(np.diag([3.0, 0.5])).eval().round(4) + 0.0
    array([[2., 0.],
           [0., 0.]])
    """

    weight: Weight

    def _value(self, x: Any) -> Any:
        _, s, _ = _decomposed(x)
        return self._given("weight", x) * pt.sum(s)

    def _prox(self, v: Any, t: Any) -> Any:
        left, s, right = _decomposed(v)
        return pt.dot(left * soft(s, t * self._given("weight", v)), right)

    def _check(self) -> None:
        _check_scalar("weight of Nuclear", self.weight)


def _decomposed(x: Any) -> tuple[Any, Any, Any]:
    """The singular value decomposition of a matrix; of one that is not finite the singular values are NaN."""
    if x.type.ndim != 2:
        raise ValueError(f"v is of type {x.type}, and the nuclear norm is of matrices; pass one")
    matrix, nonfinite = guarded(x)
    decomposition: Any = pt.linalg.svd(matrix, full_matrices=False)
    left, s, right = decomposition
    return left, s + nonfinite, right


def _check_scalar(name: str, value: Any) -> None:
    if (value.type.ndim if isinstance(value, Variable) else np.ndim(value)) != 0:
        raise ValueError(f"{name} is an array; pass a number or a scalar variable")


@dataclass(frozen=True, eq=False)
class MaxNorm(Penalty):
    r"""The largest component in absolute value, :math:`\lambda \max_i |x_i|`: the largest ones become equal.

    Its proximal operator is :math:`v` minus the projection of :math:`v` on the `L1Ball` of radius :math:`t \lambda`.

    Examples
    --------
    >>> optapi.prox.MaxNorm(2.0).prox(np.array([-3.0, 0.5, 2.0])).eval()
    array([-1.5,  0.5,  1.5])
    """

    weight: Weight

    def _check(self) -> None:
        _check_scalar("weight of MaxNorm", self.weight)

    def _value(self, x: Any) -> Any:
        return self._given("weight", x) * largest(x)

    def _prox(self, v: Any, t: Any) -> Any:
        return v - _on_l1_ball(v, t * self._given("weight", v))


@dataclass(frozen=True, eq=False)
class TotalVariation1D(Penalty):
    r"""The total variation :math:`\lambda \sum_i |x_{i+1} - x_i|` of a vector, which becomes piecewise constant.

    The proximal operator is exact, by Condat's direct algorithm: mostly about :math:`n` turns of a loop, each of which
    costs :math:`O(n)`, since a segment is written in the vector as a whole.

    References
    ----------
    Condat (2013), A direct algorithm for 1-D total variation denoising, section III.

    Examples
    --------
    >>> optapi.prox.TotalVariation1D(1.0).prox(np.array([0.0, 2.0, 1.0, 8.0, 9.0])).eval()
    array([1. , 1.5, 1.5, 8. , 8. ])
    """

    weight: Weight

    def _check(self) -> None:
        _check_scalar("weight of TotalVariation1D", self.weight)

    def _value(self, x: Any) -> Any:
        return self._given("weight", x) * pt.sum(abs(x[1:] - x[:-1]))

    def _prox(self, v: Any, t: Any) -> Any:
        return _taut_string(v, t * self._given("weight", v))


def _taut_string(y: Any, s: Any) -> Any:
    r"""The minimizer of :math:`\frac12 \|x - y\|^2 + s \sum_i |x_{i+1} - x_i|`.

    The segment from `first` on is either at `low` or at `high`, as far as is known at `now`; `down` and `up` are the
    places to which it would reach if it ended with a step down or up, and `under` and `over` the slopes of the
    corresponding dual variables.
    """
    n, places = y.shape[0], pt.arange(y.shape[0])
    zero, at = pt.constant(np.int64(0)), lambda i: y[pt.minimum(i, n - 1)]

    def turn(x: Any, first: Any, now: Any, down: Any, up: Any, low: Any, high: Any, under: Any, over: Any,
             done: Any) -> Any:  # fmt: skip
        last = now >= n - 1
        u, o = under + at(now + 1) - low, over + at(now + 1) - high
        falls = pt.switch(last, under < 0, u < -s)
        rises = ~falls & pt.switch(last, over > 0, o > s)
        ends = last & ~falls & ~rises
        # A segment is fixed.
        level = pt.switch(falls, low, pt.switch(rises, high, low + under / (now - first + 1)))
        until = pt.switch(falls, down, pt.switch(rises, up, now))
        fixed = falls | rises | ends
        x = pt.switch(fixed & (places >= first) & (places <= until), level, x)
        # The next one begins after it.
        begin = until + 1
        value = at(begin)
        fall = (pt.switch(last, value, value), pt.switch(last, high, value + 2 * s))
        rise = (pt.switch(last, low, value - 2 * s), value)
        fall_slopes = (s, pt.switch(last, value + s - high, -s))
        rise_slopes = (pt.switch(last, value - s - low, s), -s)
        # Or this one goes on.
        ahead = now + 1
        length = (ahead - first + 1).astype(y.type.dtype)
        above, below = u >= s, o <= -s
        stay = (
            pt.switch(above, low + (u - s) / length, low),
            pt.switch(below, high + (o + s) / length, high),
            pt.switch(above, s, u),
            pt.switch(below, -s, o),
        )
        begun = falls | rises
        new = [
            pt.switch(falls, a, pt.switch(rises, b, c))
            for a, b, c in zip((*fall, *fall_slopes), (*rise, *rise_slopes), stay, strict=True)
        ]
        down = pt.switch(falls | (rises & ~last), begin, pt.switch(~begun & above, ahead, down))
        up = pt.switch(rises | (falls & ~last), begin, pt.switch(~begun & below, ahead, up))
        values = [x, pt.switch(begun, begin, first), pt.switch(begun, begin, ahead), down, up, *new, ends]
        return values, ends | pt.isnan(u)

    dtype = y.type.dtype
    start = [pt.zeros_like(y), zero, zero, zero, zero, y[0] - s, y[0] + s, s, -s, FALSE]
    x, *_, done = repeat(turn, start, 2 * n * n + 2)
    return pt.switch(done, x, np.asarray(np.nan, dtype))


# Sets of each component


@dataclass(frozen=True, eq=False)
class Box(Projection):
    """The points with `low` <= x <= `high`; infinite limits are none.

    Examples
    --------
    >>> optapi.prox.Box(0.0, 1.0).project(np.array([-3.0, 0.5, 2.0])).eval()
    array([0. , 0.5, 1. ])
    """

    separable: ClassVar[bool] = True
    low: Numbers = -np.inf
    high: Numbers = np.inf

    def _check(self) -> None:
        _check_limits(self)

    def _project(self, v: Any) -> Any:
        return between(v, self._given("low", v), self._given("high", v))

    def _minimize(self, g: Any) -> Any:
        low, high = (self._given(name, g) + pt.zeros_like(g) for name in ("low", "high"))
        return pt.switch(g > 0, low, pt.switch(g < 0, high, between(pt.zeros_like(g), low, high)))


def _check_limits(box: Any) -> None:
    symbolic = any(isinstance(side, Variable) for side in (box.low, box.high))
    if not symbolic and np.any(np.asarray(box.low) > np.asarray(box.high)):
        raise ValueError(f"{type(box).__name__} has a low above its high, so that it is empty; pass low <= high")


@dataclass(frozen=True, eq=False)
class NonNegative(Projection):
    """The points without negative components.

    Examples
    --------
    >>> optapi.prox.NonNegative().project(np.array([-3.0, 0.5])).eval()
    array([0. , 0.5])
    """

    separable: ClassVar[bool] = True

    def _project(self, v: Any) -> Any:
        return positive_part(v)


@dataclass(frozen=True, eq=False)
class LinfBall(Projection):
    """The points whose components are at most `radius` in absolute value.

    Examples
    --------
    >>> optapi.prox.LinfBall(1.0).project(np.array([-3.0, 0.5])).eval()
    array([-1. ,  0.5])
    """

    separable: ClassVar[bool] = True
    radius: Weight = 1.0

    def _project(self, v: Any) -> Any:
        r = self._given("radius", v)
        return between(v, -r, r)

    def _minimize(self, g: Any) -> Any:
        return -self._given("radius", g) * pt.sign(g)


# Simplices and balls


@dataclass(frozen=True, eq=False)
class Simplex(Projection):
    r"""The points with :math:`x \ge 0` and :math:`\sum_i x_i = r`, with :math:`r` = `radius` above 0.

    The projection is :math:`\max(v - \tau, 0)`; all components of the tensor together are the point.

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra (2008), Efficient projections onto the l1-ball, figure 1.

    Examples
    --------
    >>> optapi.prox.Simplex().project(np.array([0.5, 1.0, -1.0])).eval()
    array([0.25, 0.75, 0.  ])
    """

    radius: Weight = 1.0

    def _check(self) -> None:
        _check_scalar("radius of Simplex", self.radius)
        radius: Any = self.radius
        if not isinstance(radius, Variable) and not radius > 0:
            raise ValueError(f"radius of Simplex is {self.radius!r}; pass a positive number")

    def _project(self, v: Any) -> Any:
        return _on_simplex(v.ravel(), self._given("radius", v)).reshape(v.shape)

    def _minimize(self, g: Any) -> Any:
        return _at(pt.argmin(g.ravel()), self._given("radius", g), g)


def _on_simplex(v: Any, r: Any) -> Any:
    """The projection of the vector `v` on the simplex of radius `r`."""
    v = v - pt.max(v)  # the same projection; sums are then accurate where the components that count are close
    _, falling = in_order(-v)
    sums = cumulative(-falling[None], pt.arange(v.shape[0]))[0]
    # Over the k largest components, tau would be the k-th of these; the largest is that of the right k.
    tau = pt.max((sums - r) / (pt.arange(v.shape[0]) + 1).astype(v.type.dtype))
    return positive_part(v - tau)


def _at(place: Any, value: Any, g: Any) -> Any:
    """`value` at a place of the flat tensor `g`, and 0 elsewhere."""
    return pt.switch(pt.eq(pt.arange(g.size), place).reshape(g.shape), value, pt.zeros_like(g))


def _on_l1_ball(v: Any, r: Any) -> Any:
    sizes = abs(v).ravel()
    inside = pt.sum(sizes) <= r
    onto = pt.sign(v) * _on_simplex(sizes, r).reshape(v.shape)
    return pt.switch(inside, v, pt.switch(pt.eq(onto, 0), pt.zeros_like(v), onto))


@dataclass(frozen=True, eq=False)
class L1Ball(Projection):
    r"""The points with :math:`\sum_i |x_i| \le r`: projections have few components that are not 0.

    Examples
    --------
    >>> optapi.prox.L1Ball(1.0).project(np.array([-3.0, 0.5, 2.5])).eval()
    array([-0.75,  0.  ,  0.25])
    """

    radius: Weight = 1.0

    def _check(self) -> None:
        _check_scalar("radius of L1Ball", self.radius)

    def _project(self, v: Any) -> Any:
        return _on_l1_ball(v, self._given("radius", v))

    def _minimize(self, g: Any) -> Any:
        return _at(pt.argmax(abs(g).ravel()), -self._given("radius", g) * pt.sign(g), g)


@dataclass(frozen=True, eq=False)
class L2Ball(Projection):
    r"""The points with :math:`\|x\| \le r`; `axis` as in `GroupL2`: the norms are along it, by default over all.

    Examples
    --------
    >>> optapi.prox.L2Ball(1.0).project(np.array([3.0, 4.0])).eval()
    array([0.6, 0.8])
    """

    radius: Weight = 1.0
    axis: Axis = None

    def _project(self, v: Any) -> Any:
        r, size = self._given("radius", v), _norms(v, self.axis)
        return pt.switch(size <= r, v, v * (r / pt.switch(size > 0, size, pt.ones_like(size))))

    def _minimize(self, g: Any) -> Any:
        size = _norms(g, self.axis)
        return -self._given("radius", g) * g / pt.switch(size > 0, size, pt.ones_like(size))


@dataclass(frozen=True, eq=False)
class Sphere(Projection):
    r"""The points with :math:`\|x\| = r`. It is not convex; the first unit vector stands for the nearest point to 0.

    Examples
    --------
    >>> optapi.prox.Sphere(5.0).project(np.array([0.6, 0.8])).eval()
    array([3., 4.])
    """

    radius: Weight = 1.0

    def _check(self) -> None:
        _check_scalar("radius of Sphere", self.radius)

    def _project(self, v: Any) -> Any:
        size = norm(v)
        flat = pt.zeros_like(v).ravel()
        first = pt.set_subtensor(flat[:1], np.asarray(1, v.type.dtype)).reshape(v.shape)
        at_zero = pt.eq(size, 0)
        ones = pt.ones_like(size)
        return self._given("radius", v) * pt.switch(at_zero, first, v / pt.switch(at_zero, ones, size))


def _norms(v: Any, axis: Any) -> Any:
    """The norms along `axis`, which is kept."""
    u = unit(v)
    return u * pt.sqrt(pt.sum((v / u) ** 2, axis=axis, keepdims=True))


# Sets by linear equations


@dataclass(frozen=True, eq=False)
class Hyperplane(Projection):
    r"""The points with :math:`a^T x = b`, with :math:`a` = `normal`, not 0, and :math:`b` = `offset`.

    Examples
    --------
    >>> optapi.prox.Hyperplane([1.0, 1.0], 1.0).project(np.array([2.0, 1.0])).eval()
    array([1., 0.])
    """

    normal: Numbers
    offset: Numbers = 0.0

    def _check(self) -> None:
        name = type(self).__name__
        if not isinstance(self.normal, Variable) and not np.any(self.normal):
            raise ValueError(f"normal of {name} is 0; pass a vector that is not")
        _check_scalar(f"offset of {name}", self.offset)

    def _excess(self, v: Any) -> tuple[Any, Any]:
        a = self._given("normal", v) + pt.zeros_like(v)
        return pt.sum(a * v) - self._given("offset", v), a / pt.sum(a * a)

    def _project(self, v: Any) -> Any:
        excess, a = self._excess(v)
        return v - excess * a


@dataclass(frozen=True, eq=False)
class Halfspace(Hyperplane):
    r"""The points with :math:`a^T x \le b`, with :math:`a` = `normal`, not 0, and :math:`b` = `offset`.

    Examples
    --------
    >>> optapi.prox.Halfspace([1.0, 1.0], 1.0).project(np.array([2.0, 1.0])).eval()
    array([1., 0.])
    """

    def _project(self, v: Any) -> Any:
        excess, a = self._excess(v)
        return v - positive_part(excess) * a


@dataclass(frozen=True, eq=False)
class Affine(Projection):
    r"""The vectors with :math:`A x = b`, with :math:`A` = `matrix`, an array, and :math:`b` = `offset`.

    The projection is :math:`v - A^+ (A v - b)`, with the pseudo-inverse worked out once, here.

    Examples
    --------
    >>> optapi.prox.Affine([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [1.0, 2.0]).project(np.zeros(3)).eval().round(4)
    array([0.5, 0.5, 2. ])
    """

    matrix: Numbers
    offset: Numbers

    def _check(self) -> None:
        if isinstance(self.matrix, Variable):
            raise TypeError("matrix of Affine is a variable; pass an array")
        matrix = _numbers("matrix of Affine", self.matrix, -np.inf)
        if np.ndim(matrix) != 2:
            raise ValueError(f"matrix of Affine has {np.ndim(matrix)} dimensions; pass a matrix")
        object.__setattr__(self, "matrix", matrix)
        if isinstance(self.offset, Variable):
            return
        offset = np.broadcast_to(self.offset, len(matrix)) if np.ndim(self.offset) == 0 else np.asarray(self.offset)
        if offset.shape != (len(matrix),):
            raise ValueError(
                f"offset of Affine has shape {offset.shape}; pass a number for each of the {len(matrix)} rows of matrix"
            )
        if not np.allclose(matrix @ np.linalg.pinv(matrix) @ offset, offset, rtol=1e-8, atol=1e-12):
            raise ValueError(
                "offset of Affine is none that matrix can have, so that the set is empty; pass another one"
            )

    def _project(self, v: Any) -> Any:
        matrix: Any = self.matrix
        A, inverse = (pt.constant(a.astype(v.type.dtype)) for a in (matrix, np.linalg.pinv(matrix)))
        b = self._given("offset", v)
        for _ in range(2):  # the second time for what rounding has left
            v = v - pt.dot(inverse, pt.dot(A, v) - b)
        return v


@dataclass(frozen=True, eq=False)
class BoxSection(Projection):
    r"""The points with :math:`l \le x \le h` and :math:`\sum_i w_i x_i = s`, with positive `weights` :math:`w`.

    The projection is :math:`P(v - \tau w)`, with :math:`P` that on the box. The sum falls with :math:`\tau`, and is
    linear between the values at which a component reaches a limit: among them, in order, those next to the solution are
    found by bisection, and :math:`\tau` between them by a division.

    Cost: :math:`O(n \log n)`.

    Examples
    --------
    >>> optapi.prox.BoxSection(0.0, 0.5, 1.0, 1.0).project(np.array([2.0, 0.3, 0.1])).eval().round(4)
    array([0.5 , 0.35, 0.15])
    """

    low: Numbers
    high: Numbers
    weights: Weight
    total: Numbers

    def _check(self) -> None:
        _check_limits(self)
        _check_scalar(f"total of {type(self).__name__}", self.total)
        given: list[Any] = [self.low, self.high, self.weights, self.total]
        if not any(isinstance(part, Variable) for part in given):
            low, high, weights, _ = np.broadcast_arrays(*given)
            # Limits that are numbers say nothing of how many components there are.
            if low.ndim and not np.sum(weights * low) <= self.total <= np.sum(weights * high):
                raise ValueError(
                    f"no point between low and high has the total of {type(self).__name__}; pass another one"
                )

    def _project(self, v: Any) -> Any:
        zeros = pt.zeros_like(v)
        low, high, w = (self._given(name, v) + zeros for name in ("low", "high", "weights"))
        flat = (part.ravel() for part in (v, low, high, w))
        return _on_section(*flat, self._given("total", v)).reshape(v.shape)  # type: ignore[call-arg]


def _on_section(v: Any, low: Any, high: Any, w: Any, s: Any) -> Any:
    leaves, reaches = (v - high) / w, (v - low) / w  # a component is at its high before, and at its low after
    _, ends = in_order(pt.concatenate([leaves, reaches]))
    count = ends.shape[0]

    def fixed(tau: Any) -> Any:
        """The sum of a point, where infinite values of tau give infinite limits."""
        return pt.sum(w * pt.switch(tau <= leaves, high, pt.switch(tau >= reaches, low, v - tau * w)))

    def turn(a: Any, b: Any) -> Any:
        middle = (a + b) // 2
        above = fixed(ends[middle]) > s
        return [pt.switch(above, middle, a), pt.switch(above, b, middle)], b - a <= 2

    length = v.type.shape[0]
    turns = 64 if length is None else ceil(log2(2 * length + 2)) + 1
    a, b = repeat(turn, [pt.constant(np.int64(-1)), count.astype("int64")], turns)
    inf = np.asarray(np.inf, v.type.dtype)
    begin = pt.switch(a >= 0, ends[pt.maximum(a, 0)], -inf)
    end = pt.switch(b < count, ends[pt.minimum(b, count - 1)], inf)
    at_high, at_low = end <= leaves, begin >= reaches
    free = ~(at_high | at_low)
    nothing = pt.zeros_like(v)
    held = pt.switch(at_high, high, pt.switch(at_low, low, nothing))
    curvature = pt.sum(pt.switch(free, w**2, nothing))
    excess = pt.sum(pt.switch(free, w * v, w * held)) - s
    one = pt.ones_like(excess)
    # Where none is free the total is that of a corner.
    tau = pt.switch(curvature > 0, excess / pt.switch(curvature > 0, curvature, one), end)
    return between(pt.switch(free, v - tau * w, held), low, high)


@dataclass(frozen=True, eq=False)
class CappedSimplex(Projection):
    r"""The points with :math:`0 \le x \le 1` and :math:`\sum_i x_i = k`, with :math:`k` = `total`: `k` soft choices.

    Examples
    --------
    >>> optapi.prox.CappedSimplex(2.0).project(np.array([3.0, 0.7, 0.3])).eval().round(4)
    array([1. , 0.7, 0.3])
    """

    total: Numbers

    def _check(self) -> None:
        _check_scalar("total of CappedSimplex", self.total)
        total: Any = self.total
        if not isinstance(total, Variable) and total < 0:
            raise ValueError(f"total of CappedSimplex is {self.total!r}; pass a number of at least 0")

    def _project(self, v: Any) -> Any:
        return BoxSection(0.0, 1.0, 1.0, self.total)._project(v)


# Cones


@dataclass(frozen=True, eq=False)
class Isotonic(Projection):
    r"""The vectors with :math:`x_1 \le x_2 \le \dots \le x_n`: the projection is isotonic regression.

    It is :math:`x_i = \max_{a \le i} \min_{b \ge i} \operatorname{mean}(v_a, \dots, v_b)`, from a table of :math:`n^2`
    means: for vectors of up to some thousand components, whose length must be known when the graph is built.

    References
    ----------
    Robertson, Wright and Dykstra (1988), Order restricted statistical inference, theorem 1.4.4.

    Examples
    --------
    >>> optapi.prox.Isotonic().project(pt.constant(np.array([1.0, 3.0, 2.0, 4.0]))).eval()
    array([1. , 2.5, 2.5, 4. ])
    """

    def _project(self, v: Any) -> Any:
        n, center = _known_length(v, "Isotonic"), pt.mean(v)
        sums = cumulative((v - center)[None], np.arange(n))[0]
        before = pt.concatenate([pt.zeros_like(sums[:1]), sums[:-1]])
        first, last = np.arange(n)[:, None], np.arange(n)[None]
        lengths = np.maximum(last - first + 1, 1).astype(v.type.dtype)
        upper = last >= first
        infinite = np.asarray(np.inf, v.type.dtype)
        table = pt.switch(upper, (sums[None] - before[:, None]) / lengths, infinite)
        # The smallest from each b on, then the largest up to each a, by doubling how far each looks.
        for step in _doubled(n):
            table = pt.concatenate([pt.minimum(table[:, :-step], table[:, step:]), table[:, -step:]], axis=1)
        table = pt.switch(upper, table, -infinite)
        return pt.max(table, axis=0) + center


def _doubled(n: int) -> list[int]:
    return [2**k for k in range(ceil(log2(n)))] if n > 1 else []


@dataclass(frozen=True, eq=False)
class SecondOrderCone(Projection):
    r"""The vectors :math:`(s, y)`, the first component before the others, with :math:`\|y\| \le s`.

    Examples
    --------
    >>> optapi.prox.SecondOrderCone().project(np.array([0.0, 3.0, 4.0])).eval()
    array([2.5, 1.5, 2. ])
    """

    def _project(self, v: Any) -> Any:
        s, y = v[0], v[1:]
        size = norm(y)
        half = (s + size) / 2
        onto = pt.concatenate([half[None], half * y / pt.switch(size > 0, size, pt.ones_like(size))])
        return pt.switch(size <= s, v, pt.switch(size <= -s, pt.zeros_like(v), onto))


@dataclass(frozen=True, eq=False)
class PSD(Projection):
    r"""The symmetric matrices without negative eigenvalues. Cost: the eigenvalues and eigenvectors.

    Examples
    --------
    >>> optapi.prox.PSD().project(np.diag([3.0, -1.0])).eval().round(4) + 0.0
    array([[3., 0.],
           [0., 0.]])
    """

    def _project(self, v: Any) -> Any:
        if v.type.ndim != 2:
            raise ValueError(f"v is of type {v.type}, and PSD is a set of matrices; pass one")
        matrix, nonfinite = guarded((v + v.T) / 2)
        decomposition: Any = pt.linalg.eigh(matrix)
        values, vectors = decomposition
        onto = pt.dot(vectors * positive_part(values + nonfinite), vectors.T)
        return (onto + onto.T) / 2


# Intersections


@dataclass(frozen=True, eq=False)
class Dykstra(Projection):
    r"""The intersection of convex `sets`: the projection is Dykstra's.

    .. math:: x \leftarrow P_i(x + p_i), \qquad p_i \leftarrow x_{old} + p_i - x

    over all sets in turn, until no component changes by more than 10 times the machine precision, or for `turns`
    rounds.
    Projections in turn without the corrections :math:`p_i` lead to a point of the intersection, but not to the nearest
    one. If it is empty, the result is in the last of the sets.

    References
    ----------
    Boyle and Dykstra (1986), A method for finding projections onto the intersection of convex sets in Hilbert spaces.

    Examples
    --------
    >>> ordered = optapi.prox.Dykstra([optapi.prox.Isotonic(), optapi.prox.Box(0.0, 1.0)])
    >>> ordered.project(pt.constant(np.array([-1.0, 3.0, 0.5]))).eval().round(4)
    array([0., 1., 1.])
    """

    sets: Sequence[Projection]
    turns: int = 1000

    def _check(self) -> None:
        if not isinstance(self.sets, list | tuple) or not self.sets:
            raise TypeError(
                f"sets of Dykstra is {shown(self.sets)}; pass a list of sets, for instance [Simplex(), Box(0, 1)]"
            )
        for position, part in enumerate(self.sets):
            if not callable(getattr(part, "project", None)) or isinstance(part, type):
                raise TypeError(f"sets[{position}] of Dykstra is {shown(part)}; pass sets, which have a method project")
        object.__setattr__(self, "sets", tuple(self.sets))
        if isinstance(self.turns, bool) or not isinstance(self.turns, int | np.integer) or self.turns < 1:
            raise (TypeError if not isinstance(self.turns, int | np.integer) else ValueError)(
                f"turns of Dykstra is {self.turns!r}; pass an int of at least 1"
            )

    def _project(self, v: Any) -> Any:
        close = np.asarray(10 * np.finfo(v.type.dtype).eps, v.type.dtype)

        def turn(x: Any, *corrections: Any) -> Any:
            changes, new = [], []
            for part, p in zip(self.sets, corrections, strict=True):
                moved = x + p
                # With the length that is known: a set may ask for it.
                x = part.project(pt.specify_shape(moved, v.type.shape) if None not in v.type.shape else moved)
                new.append(moved - x)
                changes.append(abs(new[-1] - p))
            change = changes[0]
            for other in changes[1:]:
                change = pt.maximum(change, other)
            return [x, *new], ~pt.any(change > close * (1 + abs(x)))

        return repeat(turn, [v, *(pt.zeros_like(v) for _ in self.sets)], self.turns)[0]


# What a user passes to a rule

FORMS = (
    "pass a dictionary from parameters, or their names, to {what}, a list with one or None for each parameter, or one"
)


def l1_weights(l1: Any, parameters: Sequence[Any]) -> list[Any]:
    """The weights of each of `parameters`, a variable of its dtype that broadcasts to it, or None.

    Raises
    ------
    TypeError, ValueError
        If `l1` is not in one of its forms; the message names the parameter.
    """
    forms = FORMS.format(what="numbers of at least 0, arrays or variables")
    if isinstance(l1, list | tuple) and len(parameters) == 1 != len(l1) and all(isinstance(v, Real) for v in l1):
        l1 = np.asarray(l1)
    found: list[Any] = []
    for weight, p in zip(each_entry("l1", l1, parameters, forms), parameters, strict=True):
        if weight is None:
            found.append(None)
            continue
        name = f"l1 of {called(p)}"
        weight = _numbers(name, weight, 0.0)
        shape = weight.type.shape if isinstance(weight, Variable) else np.shape(weight)
        _check_shape(name, shape, p)
        _check_independent(name, weight, parameters)
        found.append(as_dtype(pt.as_tensor(weight), p.type.dtype))
    return found


def entries(argument: str, given: Any, parameters: Sequence[Any], methods: Sequence[str]) -> list[Any]:
    """The object with these methods of each of `parameters`, which `given` has in one of its forms.

    Raises
    ------
    TypeError, ValueError
        If it has not; the message names the parameter.
    """
    found = each_entry(argument, given, parameters, FORMS.format(what="objects of optapi.prox"))
    for part, p in zip(found, parameters, strict=True):
        _check_methods(f"{argument} of {called(p)}", part, methods)
    return found


def _check_methods(name: str, value: Any, methods: Sequence[str]) -> None:
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        raise TypeError(f"{name} is {shown(value)}; pass one of optapi.prox, or an object with {' and '.join(methods)}")


def penalties(prox: Any, parameters: Sequence[Any]) -> list[Any]:
    """The penalty of each of `parameters`, or None.

    Raises
    ------
    TypeError, ValueError
        If `prox` is not in one of its forms; the message names the parameter.
    """
    forms = FORMS.format(what="penalties of optapi.prox")
    found = each_entry("prox", prox, parameters, forms)
    for penalty, p in zip(found, parameters, strict=True):
        if penalty is None:
            continue
        _check_methods(f"prox of {called(p)}", penalty, ("value", "prox"))
        for name in (field.name for field in fields(penalty)) if is_dataclass(penalty) else ():
            _check_independent(f"{name} of the prox of {called(p)}", getattr(penalty, name), parameters)
    if all(penalty is None for penalty in found):
        raise ValueError(f"prox has no penalty of any parameter; {forms}")
    return found


def composite(l1: Any, prox: Any, parameters: Sequence[Any]) -> list[Any] | None:
    """The penalties that `l1` and `prox` are for each of `parameters`; None if there are none.

    Raises
    ------
    ValueError
        If a parameter has both.
    """
    if l1 is None and prox is None:
        return None
    weights = [None] * len(parameters) if l1 is None else l1_weights(l1, parameters)
    found = [None] * len(parameters) if prox is None else penalties(prox, parameters)
    for weight, penalty, p in zip(weights, found, parameters, strict=True):
        if weight is not None and penalty is not None:
            raise ValueError(f"{called(p)} has both l1 and prox; pass one of them, for instance prox.ElasticNet")
    return [h if weight is None else L1(weight) for weight, h in zip(weights, found, strict=True)]


def residual(penalty: Any, x: Any, g: Any) -> Any:
    """What vanishes where the penalty and a cost with the gradient `g` are least together, in units of `g`.

    Of an L1 penalty it is the subgradient of least norm, of others `x` minus the proximal operator of a unit step.
    """
    if not isinstance(penalty, L1):
        return x - penalty.prox(x - g, 1.0)
    weight = penalty._given("weight", x)
    return pt.switch(pt.eq(x, 0), soft(g, weight), g + weight * pt.sign(x))


def exceeds(penalty: Any, x: Any) -> Any:
    """Whether `x` is outside of a set by more than rounding; False of a penalty that is no set."""
    if not hasattr(penalty, "project"):
        return FALSE
    close = np.asarray(np.sqrt(np.finfo(x.type.dtype).eps), x.type.dtype)
    return pt.any(abs(x - penalty.project(x)) > close * (1 + abs(x)))


def each_entry(argument: str, given: Any, parameters: Sequence[Any], forms: str) -> list[Any]:
    """The entry of `given` for each parameter."""
    if isinstance(given, Mapping):
        return by_parameter(argument, given, parameters, forms)
    if isinstance(given, list | tuple):
        if len(given) != len(parameters):
            raise ValueError(f"{argument} has {len(given)} entries for {len(parameters)} parameters; {forms}")
        return list(given)
    return [given] * len(parameters)


def _check_shape(name: str, shape: tuple[int | None, ...], parameter: Any) -> None:
    """An array of `shape` broadcasts to the parameter."""
    try:
        wanted: tuple[int | None, ...] = shape_of(parameter)
    except TypeError:
        wanted = parameter.type.shape
    if len(shape) > len(wanted) or any(
        a not in (None, 1, b) and b is not None for a, b in zip(shape[::-1], wanted[::-1], strict=False)
    ):
        raise ValueError(f"{name} has shape {shape}, which does not broadcast to {wanted}")


def _check_independent(name: str, value: Any, parameters: Sequence[Any]) -> None:
    if isinstance(value, Variable) and set(parameters) & set(ancestors([value])):
        raise ValueError(f"{name} depends on the parameters; weights are no functions of them")
