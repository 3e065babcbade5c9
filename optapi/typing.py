"""What the arguments of rules are, as types: for readers, editors and checkers of types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable


# One variable stands for a list of one.
Variables: TypeAlias = Variable | Sequence[Variable]
# A number, or a scalar variable, which a shared one lets change between calls.
Scalar: TypeAlias = float | np.floating | np.integer | TensorVariable
# A scalar, or a schedule: a function from the count of updates done so far to a scalar.
StepSize: TypeAlias = Scalar | Callable[[Any], Any]
# Which parameters: a bool for each, or a function that is asked about each.
Mask: TypeAlias = Sequence[bool] | Callable[[Any], bool]
# A pair (low, high) for each parameter, by the parameter or in a list, or one for all; see `feasible.boxes`.
Bounds: TypeAlias = Mapping[Any, Any] | Sequence[Any]
# Triples (expression, low, high) or pairs (expression, value), or one; see `constraints.Rows`.
Constraints: TypeAlias = Sequence[Any]
# Numbers, an array of them, or a variable; weights are at least 0.
Numbers: TypeAlias = "ArrayLike | Variable"
Weight: TypeAlias = "ArrayLike | Variable"
# Weights of each parameter, by the parameter or in a list, or one for all; see `prox.l1_weights`.
Weights: TypeAlias = "ArrayLike | Variable | Mapping[Any, Any] | Sequence[Any]"
# A penalty or set of each parameter, by the parameter or in a list, or one for all; see `prox.penalties`.
Prox: TypeAlias = Any
# A manifold for each parameter, by the parameter or in a list, or one for all; see `manifolds.manifolds`.
Manifolds: TypeAlias = Any
# An axis, several ones, or all.
Axis: TypeAlias = int | tuple[int, ...] | None
# Typical sizes of the parameters: a number, an array, one of these for each parameter, or where they come from.
XScale: TypeAlias = "str | ArrayLike | Variable | Sequence[Any] | Mapping[Any, Any]"
# From a variable to its next value.
Updates: TypeAlias = dict[Any, Any]
# A symbolic tensor; and one that is symbolic or not, for functions that serve both.
Tensor: TypeAlias = TensorVariable
Array: TypeAlias = TensorVariable | np.ndarray
# Arrays and numbers, or lists, tuples and mappings of such.
Tree: TypeAlias = "ArrayLike | Sequence[Tree] | Mapping[Any, Tree]"
# A rule, or the name of one of this package.
OptAlgo: TypeAlias = Callable[..., Updates] | str
# A derivative; True where the function returns it too, a scheme of differences, or None for what the function allows.
Derivative: TypeAlias = Callable[..., Any] | bool | str | None
# A loss of residuals: a name, or a function from z to rho(z), see `optapi.least_squares`.
Loss: TypeAlias = str | Callable[[Any], Any]
# How PyTensor compiles.
CompileMode: TypeAlias = Mode | str | None
