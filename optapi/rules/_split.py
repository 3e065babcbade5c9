r"""An L1 penalty by splitting: the parameters as differences of parts that are not negative.

With :math:`w = a - b`, :math:`a, b \ge 0`, the penalty :math:`\sum_i \lambda_i |w_i|` is
:math:`\lambda^T (a + b)` where :math:`\min(a, b) = 0`, and it is linear. So a rule that takes bounds minimizes a smooth
cost of twice the components: all is done where a vector is packed and unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant, Variable

from ..feasible import Box, packed
from ..objective import Objective, Point
from ..prox import l1_weights, positive_part
from ..state import shape_of
from ..typing import Tensor, Weights
from ..vectors import dot, norm
from ._descent import End
from ._linear_algebra import CompactHessian


@dataclass(eq=False)
class Split(Objective):
    r"""An objective with :math:`\sum_i \lambda_i |w_i|` added, as a smooth one of the vector :math:`(a, b)`.

    A component without a weight has its own value for :math:`a`, and 0 for :math:`b`.

    Attributes
    ----------
    weights : vector
        :math:`\lambda`.
    penalized : vector or array of bool
        Which components have a weight above 0.
    """

    weights: Any = None
    penalized: Any = None

    @classmethod
    def into_parts(cls, f: Objective, l1: Weights) -> Split:
        """The objective `f` with the penalty `l1`, in any of its forms."""
        given = [0.0 if weight is None else weight for weight in l1_weights(l1, f.parameters)]
        shapes = [shape_of(p) for p in f.parameters]
        if any(isinstance(weight, Variable) and not isinstance(weight, Constant) for weight in given):
            weights = f.pack([pt.broadcast_to(pt.as_tensor(w), shape) for w, shape in zip(given, shapes, strict=True)])
            penalized = weights > 0
        else:
            arrays = [getattr(weight, "data", weight) for weight in given]
            wide = [np.broadcast_to(array, shape).ravel() for array, shape in zip(arrays, shapes, strict=True)]
            weights = pt.constant(np.concatenate(wide).astype(f.dtype))
            penalized = weights.data > 0
        known = {field.name: getattr(f, field.name) for field in fields(Objective) if field.init}
        return cls(**known, weights=weights, penalized=penalized)

    @property
    def size(self) -> int:
        """The number of components of both parts together."""
        return 2 * self.components

    @property
    def _all(self) -> bool:
        """Whether all components are known to have a weight."""
        return isinstance(self.penalized, np.ndarray) and bool(self.penalized.all())

    def _parts(self, vector: Any) -> tuple[Any, Any]:
        return vector[: self.components], vector[self.components :]

    def pack(self, tensors: Sequence[Any]) -> Any:
        """The parts of the parameters' values `tensors`, of which one is 0 for each component with a weight."""
        w = super().pack(tensors)
        a, b = positive_part(w), positive_part(-w)
        if not self._all:
            a, b = pt.switch(self.penalized, a, w), pt.switch(self.penalized, b, pt.zeros_like(w))
        return pt.concatenate([a, b])

    def unpack(self, vector: Tensor) -> list[Any]:
        """Tensors of the shapes and dtypes of the parameters: the differences of the parts."""
        a, b = self._parts(vector)
        return super().unpack(a - b)

    def _at(self, point: Tensor, cost: Any, gradients: Sequence[Any]) -> Point:
        g, (a, b) = Objective.pack(self, gradients), self._parts(point)
        penalty = dot(self.weights, pt.switch(self.penalized, a + b, pt.zeros_like(a)))
        slopes = pt.concatenate([self.weights + g, self.weights - g])
        return Point(point, cost + penalty.astype(cost.type.dtype), self.scaled(slopes))

    @cached_property
    def box(self) -> Box:
        """The parts are not negative, and their difference is inside of the bounds of the parameters."""
        low, high = (pt.constant(np.asarray(side * np.inf, self.dtype)) for side in (-1, 1))
        if self.boxes is not None:
            low, high = packed(self.boxes, self.parameters, self.dtype)
        constant = all(isinstance(part, Constant) for part in (low, high, self.weights))
        if constant:
            low, high = low.data, high.data
        choose: Any = np.where if constant else pt.switch
        larger: Any = np.maximum if constant else pt.maximum
        joined: Any = np.concatenate if constant else pt.concatenate
        zero = np.zeros(self.components, self.dtype)
        sides = [
            joined([choose(self.penalized, larger(a, zero), a + zero), choose(self.penalized, larger(b, zero), zero)])
            for a, b in ((low, -high), (high, -low))
        ]  # fmt: skip
        return Box(*(pt.as_tensor(side) for side in sides))

    def residual(self, point: Tensor, gradient: Tensor) -> Any:
        """The subgradient of least norm of the penalized cost, with bounds the projected one; twice, as the parts are.

        The two parts of the gradient are what it is where the component is positive, and minus what it is where it is
        negative, so that it comes without rounding.
        """
        (a, b), (up, down) = self._parts(point), self._parts(self.unscaled(gradient))
        w = a - b
        at_zero = pt.switch((up >= 0) & (down >= 0), pt.zeros_like(w), pt.switch(down < 0, -down, up))
        slope = pt.switch(w > 0, up, pt.switch(w < 0, -down, at_zero))
        if not self._all:
            slope = pt.switch(self.penalized, slope, up)
        if self.boxes is not None:
            slope = packed(self.boxes, self.parameters, self.dtype).residual(w, slope)
        return pt.concatenate([slope, slope])

    def scaled(self, vector: Tensor) -> Any:
        """`vector` times `x_scale`, the same for both parts."""
        return vector if self.x_scale is None else self._scale * vector

    def unscaled(self, vector: Tensor) -> Any:
        """The inverse of `scaled`."""
        return vector if self.x_scale is None else vector / self._scale

    @cached_property
    def _scale(self) -> Any:
        scale: Any = self.x_scale
        return pt.concatenate([scale.value, scale.value])

    def around(self, point: Tensor) -> Box:
        """The box in which one part of each component moves: the one that is not 0, and the other stays.

        So a step may lead to 0, and the next one across, and on the way the penalized cost has no kink.
        """
        a, b = self._parts(point)
        held = pt.concatenate([b, a]) > 0
        if not self._all:
            held = held & pt.concatenate([pt.as_tensor(self.penalized)] * 2)
        return Box(self.box.low, pt.switch(held, pt.zeros_like(point), self.box.high))

    # The pairs are those of the parameters: on the parts that move, the model is then the one of L-BFGS for them.

    def model(self, pairs: CompactHessian) -> CompactHessian:
        """The Hessian `pairs` of the parameters as one of the parts."""
        return pairs._replace(vectors=pt.concatenate([pairs.vectors, -pairs.vectors], axis=1))

    def pair(self, end: End) -> tuple[Any, Any]:
        """The changes of the parameters and of the gradient of the smooth cost."""
        (a, b), (up, _) = self._parts(end.step), self._parts(end.change)
        return a - b, up

    def scale(self, step: Tensor, change: Tensor) -> Any:
        r"""The scale of the Hessian from the last pair: :math:`\|y\| / \|s\|` of the components that have moved.

        The change of the gradient where components stay at 0 says nothing of the curvature along those that move, but
        would make :math:`y^T y / s^T y` larger, and steps shorter.
        """
        return norm(pt.switch(pt.eq(step, 0), pt.zeros_like(change), change)) / norm(step)

    def active(self, point: Tensor) -> Any:
        """What `Box.active` is of the parameters, where a component with a weight is at a bound also at 0."""
        a, b = self._parts(self.box.active(point))
        return pt.switch(self.penalized & (pt.eq(a, 0) | pt.eq(b, 0)), pt.zeros_like(a), a)
