"""Arguments: what is taken, what is refused, and the sentence that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.type import TensorType, float_dtypes, integer_dtypes
from pytensor.tensor.variable import TensorVariable


def called(variable: Variable) -> str:
    """How a message names `variable`."""
    return repr(variable.name) if getattr(variable, "name", None) else f"without a name ({variable})"


def is_generator(variable: Variable) -> bool:
    """Whether `variable` is a random generator: state without arithmetic."""
    return isinstance(variable.type, RandomType)


def as_list(argument: str, values: object) -> list[Any]:
    """`values` as a list: a list or tuple, or one variable taken as a list of one."""
    if isinstance(values, Variable):
        return [values]
    if not isinstance(values, list | tuple):
        raise TypeError(f"{argument} is a {type(values).__name__}; pass a list or tuple of PyTensor variables")
    return list(values)


def check_parameters(parameters: object) -> list[TensorVariable]:
    """The list of `parameters`: at least one, real tensors, none twice."""
    parameters = as_list("parameters", parameters)
    if not parameters:
        raise ValueError("parameters is empty; pass at least one variable to optimize")
    for position, parameter in enumerate(parameters):
        if not isinstance(parameter, Variable) or isinstance(parameter, Constant):
            raise TypeError(
                f"parameters[{position}] is a {type(parameter).__name__}; "
                "pass PyTensor variables, for instance pytensor.shared(value)"
            )
        if not isinstance(parameter.type, TensorType):
            raise TypeError(
                f"the parameter {called(parameter)} is of type {parameter.type}, not a tensor; "
                "make it with pytensor.shared(numpy.asarray(value))"
            )
        if parameter.type.dtype not in float_dtypes:
            raise TypeError(
                f"the parameter {called(parameter)} has dtype {parameter.type.dtype}; only real floating-point "
                "parameters can be optimized (float32 or float64; split a complex one in two real ones)"
            )
    for parameter, times in Counter(parameters).items():
        if times > 1:
            raise ValueError(f"the parameter {called(parameter)} is listed twice in parameters; list it once")
    return parameters


def check_cost(cost: object, argument: str = "cost") -> Any:
    """`cost`: a real floating-point scalar."""
    if not isinstance(cost, Variable) or not isinstance(cost.type, TensorType):
        raise TypeError(f"{argument} is a {type(cost).__name__}; pass a scalar PyTensor expression")
    if cost.type.ndim != 0:
        raise ValueError(
            f"{argument} has {cost.type.ndim} dimensions; pass a scalar, for instance cost.mean() or cost.sum()"
        )
    if cost.type.dtype not in float_dtypes:
        raise TypeError(f"{argument} has dtype {cost.type.dtype}; pass a real floating-point scalar")
    return cost


def check_gradients(
    gradients: object, parameters: list[TensorVariable], argument: str = "gradients"
) -> list[TensorVariable]:
    """The list of `gradients`, or of what else `argument` is: one for each parameter, of its shape, floating point."""
    gradients = as_list(argument, gradients)
    entry = f"the {argument.removesuffix('s')}"
    if len(gradients) != len(parameters):
        raise ValueError(
            f"{argument} has {len(gradients)} entries for {len(parameters)} parameters; pass one for each parameter"
        )
    checked = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is None:
            raise TypeError(f"{entry} of {called(parameter)} in {argument} is None; leave the parameter out")
        if not isinstance(gradient, Variable):
            gradient = pt.as_tensor(np.asarray(gradient))
        shape = tuple(gradient.type.shape) if isinstance(gradient.type, TensorType) else None
        if shape is None or gradient.type.dtype not in float_dtypes:
            raise TypeError(
                f"{entry} of {called(parameter)} in {argument} is of type {gradient.type}; "
                f"pass a floating-point tensor such as {parameter.type}"
            )
        if len(shape) != parameter.type.ndim or any(
            known is not None and wanted is not None and known != wanted
            for known, wanted in zip(shape, parameter.type.shape, strict=True)
        ):
            raise ValueError(
                f"{entry} of {called(parameter)} in {argument} has static shape {shape}, "
                f"the parameter {tuple(parameter.type.shape)}; pass {argument} of the parameters' shapes"
            )
        checked.append(gradient)
    return checked


def check_outputs(argument: str, outputs: object, parameters: Sequence[Any]) -> list[TensorVariable]:
    """The list of `outputs`: floating-point tensors, none twice, each of which depends on `parameters`."""
    outputs = as_list(argument, outputs)
    if not outputs:
        raise ValueError(f"{argument} is empty; pass at least one variable")
    for position, output in enumerate(outputs):
        if not isinstance(output, Variable) or not isinstance(output.type, TensorType):
            raise TypeError(f"{argument}[{position}] is a {type(output).__name__}; pass PyTensor expressions")
        if output.type.dtype not in float_dtypes:
            raise TypeError(
                f"the variable {called(output)} of {argument} has dtype {output.type.dtype}; pass real ones"
            )
        if any(output is other for other in outputs[:position]):
            raise ValueError(f"the variable {called(output)} is listed twice in {argument}; list it once")
        if not any(variable in parameters for variable in ancestors([output])):
            raise ValueError(
                f"the variable {called(output)} of {argument} does not depend on the parameters; build it from them"
            )
    return outputs


def check_givens(argument: str, givens: object, graph: Sequence[Any]) -> dict[Any, Any]:
    """`givens` from variables that `graph` reads to tensors of their types."""
    if not isinstance(givens, Mapping):
        raise TypeError(
            f"{argument} is a {type(givens).__name__}; pass a dictionary from variables to what replaces them"
        )
    read, checked = set(ancestors(list(graph))), {}
    for variable, value in givens.items():
        if variable not in read:
            name = called(variable) if isinstance(variable, Variable) else repr(variable)
            raise ValueError(f"{argument} names the variable {name}, which the cost does not read")
        value = value if isinstance(value, Variable) else pt.as_tensor(np.asarray(value))
        if value.type.ndim != variable.type.ndim or value.type.dtype != variable.type.dtype:
            raise ValueError(
                f"{argument} replaces the variable {called(variable)}, which is {variable.type}, by {value.type}; pass "
                "the same dtype and number of dimensions"
            )
        checked[variable] = value
    return checked


def check_mask(mask: Sequence[bool] | Callable[[Any], bool] | None, parameters: Sequence[Any]) -> list[bool]:
    """Which of `parameters` the `mask` chooses: a bool for each, or a callable asked about each; None is all."""
    if mask is None:
        return [True] * len(parameters)
    chosen = [bool(choice) for choice in (map(mask, parameters) if callable(mask) else mask)]
    if len(chosen) != len(parameters):
        raise ValueError(f"mask has {len(chosen)} entries for {len(parameters)} parameters; pass one for each")
    return chosen


def check_stop(stop: object) -> Any:
    """`stop`: None, or a shared integer scalar."""
    return None if stop is None else shared_scalar("stop", stop, integer_dtypes)


def shared_scalar(argument: str, value: object, dtypes: Container[str]) -> Any:
    """`value`: a shared scalar of one of `dtypes`, which are those of the integers or of the floating-point numbers."""
    if not (
        isinstance(value, SharedVariable)
        and isinstance(value.type, TensorType)
        and value.type.ndim == 0
        and value.type.dtype in dtypes
    ):
        kind, example = ("integer", "0") if "int64" in dtypes else ("floating-point", "0.1")
        raise TypeError(f"{argument} must be a shared {kind} scalar; make it with pytensor.shared({example})")
    return value


def check_updates(updates: object) -> None:
    """`updates`: None, or a dictionary."""
    if updates is not None and not isinstance(updates, dict):
        raise TypeError(f"updates is a {type(updates).__name__}; pass a dictionary from variables to next values")


def check_count(argument: str, value: object, low: int = 1) -> int:
    """`value` as a Python int of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} is a {type(value).__name__}; pass a Python int")
    if value < low:
        raise ValueError(f"{argument} is {value}; pass an int of at least {low}")
    return int(value)


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """`value`: one of `choices`."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{argument} is {value!r}; pass {', '.join(most)} or {last}")


def scalar(
    argument: str, value: object, low: float = -np.inf, high: float = np.inf, *, below: float = np.inf
) -> TensorVariable:
    """`value` as a scalar variable; a number is checked to be from `low` to `high` and less than `below`.

    A number is kept in float64 whatever ``floatX`` is: scalars are worked out in full precision, and cast once, where
    they meet a tensor.
    """
    if isinstance(value, Variable):
        if not isinstance(value.type, TensorType) or value.type.ndim != 0:
            raise ValueError(f"{argument} is of type {value.type}; pass a number or a scalar variable")
        if value.type.dtype.startswith("complex"):
            raise TypeError(f"{argument} has dtype {value.type.dtype}; pass a real scalar")
        return value  # type: ignore[return-value]
    wanted = "a number or a scalar variable"
    return pt.constant(np.float64(check_number(argument, value, low, high, below=below, wanted=wanted)))


def as_dtype(value: TensorVariable, dtype: str) -> Any:
    """`value` cast to `dtype`; a constant stays a constant."""
    if isinstance(value, Constant):
        return pt.constant(np.asarray(value.data, dtype))
    return value.astype(dtype)


def is_zero(value: Any) -> bool:
    """Whether `value` is the number 0, so that what it multiplies need not be built."""
    return not isinstance(value, Variable) and np.ndim(value) == 0 and value == 0


def check_keys(argument: str, given: Mapping[Any, Any], updates: Mapping[Any, Any]) -> None:
    """Every key of `given` has an update in `updates`."""
    for variable in given:
        if variable not in updates:
            raise ValueError(f"{argument} names the variable {called(variable)}, which has no update")


def check_flag(argument: str, value: object) -> bool:
    """`value`, which is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{argument} is {value!r}; pass True or False")
    return bool(value)


def check_number(argument: str, value: object, low: float = -np.inf, high: float = np.inf, *, below: float = np.inf,
                 wanted: str = "a number") -> float:  # fmt: skip
    """`value` as a finite float from `low` to `high` and less than `below`; messages ask for what is `wanted`."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.ndarray | list | tuple):
        raise ValueError(f"{argument} is {value!r}; pass {wanted}")
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{argument} is {value!r}; pass {wanted}")
    number = float(value)
    if not (low <= number <= high and number < below):
        limits = [("at least", low), ("at most", high), ("less than", below)]
        allowed = " and ".join(f"{words} {limit:g}" for words, limit in limits if np.isfinite(limit))
        raise ValueError(f"{argument} is {number:g}; pass a number of {allowed or 'finite size'}")
    return number
