"""Arguments: what is taken, what is refused, and the sentence that says so."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
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


class OptimizationWarning(UserWarning):
    """A minimization may not give what is wanted.

    Examples
    --------
    >>> import warnings
    >>> warnings.simplefilter("ignore", optapi.OptimizationWarning)
    """


def warn(message: str, kind: type[Warning] = OptimizationWarning) -> None:
    """Warn of the line of the user, outside of this package and of PyTensor, which calls an oracle."""
    frame: Any = sys._getframe(1)
    level = 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("optapi", "pytensor"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)


def called(variable: Variable) -> str:
    """How a message names `variable`."""
    return repr(variable.name) if getattr(variable, "name", None) else f"without a name ({variable})"


def shown(value: object) -> str:
    """How a message says what was passed in the place of something else."""
    return "None" if value is None else f"a {type(value).__name__}"


def is_generator(variable: Variable) -> bool:
    """Whether `variable` is a random generator: state without arithmetic."""
    return isinstance(variable.type, RandomType)


def is_dense(variable: Any) -> bool:
    """Whether `variable` is a tensor; those of `pytensor.sparse` are of a type that is derived from the type of one."""
    return isinstance(variable, Variable) and type(variable.type) is TensorType


def as_list(argument: str, values: object) -> list[Any]:
    """`values` as a list: a list or tuple, or one variable taken as a list of one."""
    if isinstance(values, Variable):
        return [values]
    if not isinstance(values, list | tuple):
        raise TypeError(f"{argument} is a {type(values).__name__}; pass a list or tuple of PyTensor variables")
    return list(values)


def as_tensor(argument: str, value: object) -> TensorVariable:
    """`value`, a variable or an array, as a dense tensor variable."""
    if not isinstance(value, Variable):
        try:
            value = pt.as_tensor(np.asarray(value))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(f"{argument} is {shown(value)}; pass a variable or an array of numbers") from error
    if not is_dense(value):
        raise TypeError(f"{argument} is of type {value.type}; pass a dense tensor")
    return value  # type: ignore[return-value]


def as_variable(argument: str, value: object) -> Variable:
    """`value`, a random generator, a dense tensor or an array, as a variable."""
    return value if isinstance(value, Variable) and is_generator(value) else as_tensor(argument, value)


def as_tensors(argument: str, values: object) -> list[TensorVariable]:
    """The list of `values`: floating-point tensors."""
    tensors = [as_tensor(f"{argument}[{i}]", value) for i, value in enumerate(as_list(argument, values))]
    for position, tensor in enumerate(tensors):
        if tensor.type.dtype not in float_dtypes:
            raise TypeError(f"{argument}[{position}] has dtype {tensor.type.dtype}; pass real floating-point tensors")
    return tensors


def check_not_swapped(function: str, parameters: object, cost: object) -> None:
    """The parameters of `function` come before the cost."""
    is_expression = isinstance(parameters, Variable) and parameters.owner is not None and parameters.type.ndim == 0
    if is_expression and isinstance(cost, list | tuple | SharedVariable):
        raise TypeError(f"parameters is an expression, and cost is not: the order is {function}(parameters, cost)")


def check_start_first(order: str, x0: object, f: object) -> None:
    """The start comes before the function."""
    if callable(x0) and not callable(f):
        raise TypeError(f"x0 is a function: the start comes first, {order}; SciPy's order has optapi.scipy")


def check_parameters(parameters: object, argument: str = "parameters") -> list[TensorVariable]:
    """The list of `parameters`: at least one, real tensors, none twice."""
    parameters = as_list(argument, parameters)
    if not parameters:
        raise ValueError(f"{argument} is empty; pass at least one variable to optimize")
    entry = f"the {argument.removesuffix('s')}"
    for position, parameter in enumerate(parameters):
        if not isinstance(parameter, Variable) or isinstance(parameter, Constant):
            raise TypeError(
                f"{argument}[{position}] is a {type(parameter).__name__}; "
                "pass PyTensor variables, for instance pytensor.shared(value)"
            )
        if not is_dense(parameter):
            raise TypeError(
                f"{entry} {called(parameter)} is of type {parameter.type}, not a dense tensor; make it with "
                "pytensor.shared(numpy.asarray(value)), for instance of the nonzero values of a sparse matrix"
            )
        if parameter.type.dtype not in float_dtypes:
            raise TypeError(
                f"{entry} {called(parameter)} has dtype {parameter.type.dtype}; only real floating-point "
                "parameters can be optimized (float32 or float64; split a complex one in two real ones)"
            )
    for parameter, times in Counter(parameters).items():
        if times > 1:
            raise ValueError(f"{entry} {called(parameter)} is listed twice in {argument}; list it once")
    return parameters


def check_shared(parameters: object) -> list[Any]:
    """`check_parameters` of parameters that hold a start."""
    checked: list[Any] = check_parameters(parameters)
    for parameter in checked:
        if not isinstance(parameter, SharedVariable):
            raise TypeError(
                f"the parameter {called(parameter)} is not shared, so it holds no start; make it with "
                "pytensor.shared(value), and build the cost of that"
            )
    return checked


def check_cost(cost: object, argument: str = "cost") -> Any:
    """`cost`: a real floating-point scalar."""
    if not isinstance(cost, Variable):
        raise TypeError(f"{argument} is a {type(cost).__name__}; pass a scalar PyTensor expression")
    if not is_dense(cost):
        raise TypeError(f"{argument} is of type {cost.type}; pass a scalar PyTensor expression")
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
            gradient = as_tensor(f"{entry} of {called(parameter)} in {argument}", gradient)
        if isinstance(gradient.type, TensorType) and not is_dense(gradient):
            raise TypeError(
                f"{entry} of {called(parameter)} in {argument} is sparse; "
                "pass a dense one, pytensor.sparse.dense_from_sparse(...) of it"
            )
        shape = tuple(gradient.type.shape) if is_dense(gradient) else None
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
        if not is_dense(output):
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
        value = as_tensor(f"{argument} for {called(variable)}", value)
        if value.type.ndim != variable.type.ndim or value.type.dtype != variable.type.dtype:
            raise ValueError(
                f"{argument} replaces the variable {called(variable)}, which is {variable.type}, by {value.type}; pass "
                "the same dtype and number of dimensions"
            )
        checked[variable] = value
    return checked


def check_mask(
    mask: Sequence[bool] | Callable[[Any], bool] | None, parameters: Sequence[Any], argument: str = "mask"
) -> list[bool]:
    """Which of `parameters` the `mask` chooses: a bool for each, or a callable asked about each; None is all."""
    if mask is None:
        return [True] * len(parameters)
    if not callable(mask) and not isinstance(mask, list | tuple | np.ndarray):
        raise TypeError(f"{argument} is a {type(mask).__name__}; pass a list with True or False for each parameter")
    choices = [mask(p) for p in parameters] if callable(mask) else list(mask)
    chosen = [check_flag(f"{argument}[{position}]", choice) for position, choice in enumerate(choices)]
    if len(chosen) != len(parameters):
        raise ValueError(f"{argument} has {len(chosen)} entries for {len(parameters)} parameters; pass one for each")
    return chosen


def check_x_scale(
    x_scale: object, parameters: Sequence[Any], shapes: Sequence[tuple[int, ...]], names: Sequence[str]
) -> Any:
    """`x_scale`: one of `names`, or a list with the sizes of each parameter, positive arrays of its shape or variables.

    A number is that of all, an array or a list of numbers that of one parameter, a list has an entry for each, and a
    dictionary for some of them, from parameters or their names; it is 1 for the others.
    """
    if isinstance(x_scale, str):
        check_choice("x_scale", x_scale, names)
        return x_scale
    if isinstance(x_scale, Mapping):
        given = {p: x_scale[key] for p in parameters for key in (p, p.name) if key is not None and key in x_scale}
        if not given or len(given) != len(x_scale):
            known = ", ".join(str(p.name or p) for p in parameters)
            raise ValueError(f"x_scale has the keys {list(x_scale)}; pass some of the parameters {known}")
        entries = [given.get(p, 1.0) for p in parameters]
    elif isinstance(x_scale, list | tuple) and not (len(parameters) == 1 and all(isinstance(v, Real) for v in x_scale)):
        entries = list(x_scale)
        if len(entries) != len(parameters):
            raise ValueError(f"x_scale has {len(entries)} entries for {len(parameters)} parameters; pass one for each")
    elif len(parameters) > 1 and np.ndim(x_scale) > 0:  # type: ignore[arg-type]
        raise ValueError(f"x_scale is an array for {len(parameters)} parameters; pass a list with one for each")
    else:
        entries = [x_scale] * len(parameters)
    return [_sizes_of(entry, p, shape) for entry, p, shape in zip(entries, parameters, shapes, strict=True)]


def _sizes_of(entry: Any, parameter: Any, shape: tuple[int, ...]) -> Any:
    """The sizes `entry` of the components of `parameter`, as a variable or an array of its shape and dtype."""
    wanted = f"pass positive numbers, or an array of shape {shape} of them"
    if isinstance(entry, Variable):
        if not is_dense(entry) or entry.type.dtype.startswith("complex") or entry.type.ndim > parameter.type.ndim:
            raise TypeError(f"x_scale of {called(parameter)} is of type {entry.type}; {wanted}")
        return as_dtype(entry, parameter.type.dtype) + pt.zeros_like(parameter)  # type: ignore[arg-type]
    if entry is None or isinstance(entry, bool | np.bool_ | str | bytes):
        raise TypeError(f"x_scale of {called(parameter)} is {entry!r}; {wanted}")
    sizes = as_numbers(f"x_scale of {called(parameter)}", entry)
    try:
        sizes = np.broadcast_to(sizes, shape)
    except ValueError as error:
        raise ValueError(f"x_scale of {called(parameter)} has shape {sizes.shape}; {wanted}") from error
    with np.errstate(over="ignore", under="ignore"):
        sizes = sizes.astype(parameter.type.dtype)
    if not np.all((sizes >= np.finfo(sizes.dtype).tiny) & np.isfinite(sizes)):
        raise ValueError(f"x_scale of {called(parameter)} has sizes that are not positive, or not finite; {wanted}")
    return sizes


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


def check_updates(updates: object, argument: str = "updates") -> dict[Any, Any]:
    """`updates`: a dictionary from variables to variables, or to numbers and arrays, as PyTensor takes them too."""
    if not isinstance(updates, dict):
        raise TypeError(f"{argument} is {shown(updates)}; pass a dictionary from variables to their next values")
    for variable, value in updates.items():
        for part, kinds in ((variable, Variable), (value, Variable | Real | np.ndarray)):
            if not isinstance(part, kinds):
                where = "among its keys" if part is variable else f"for {called(variable)}"
                raise TypeError(f"{argument} has {shown(part)} {where}; pass PyTensor variables")
    return updates


def check_count(argument: str, value: object, low: int = 1) -> int:
    """`value` as a Python int of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} is a {type(value).__name__}; pass a Python int")
    if value < low:
        raise ValueError(f"{argument} is {value}; pass an int of at least {low}")
    return int(value)


def check_axis(argument: str, value: object) -> Any:
    """`value`: None, an int, or a tuple of ints."""
    axes = value if isinstance(value, tuple) else (value,)
    if value is not None and not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in axes):
        raise TypeError(f"{argument} is {value!r}; pass an int, a tuple of ints, or None for all axes")
    if value is not None and any(abs(int(v)) > 32 for v in axes):
        raise ValueError(f"{argument} is {value!r}; pass axes that the parameter has")
    return value


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """`value`: one of `choices`."""
    if not isinstance(value, str) or value not in choices:
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
    return isinstance(value, Real | np.ndarray) and getattr(value, "ndim", 0) == 0 and bool(value == 0)


def check_condition(argument: str, value: object) -> TensorVariable:
    """`value`: a boolean scalar, or what can be taken for one."""
    value = as_tensor(argument, value)
    if value.type.ndim != 0:
        raise ValueError(f"{argument} has {value.type.ndim} dimensions; pass a boolean scalar variable")
    if value.type.dtype != "bool" and value.type.dtype not in integer_dtypes:
        raise TypeError(f"{argument} has dtype {value.type.dtype}; pass a boolean scalar variable")
    return value


def check_callable(argument: str, value: object, wanted: str) -> None:
    """`value`, which can be called; messages ask for what is `wanted`."""
    if not callable(value) or isinstance(value, Variable):
        raise TypeError(f"{argument} is {shown(value)}; pass {wanted}")


def takes(function: Callable[..., Any], keyword: str) -> bool:
    """Whether `function` takes `keyword`, as far as its signature says."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == keyword or p.kind is p.VAR_KEYWORD for p in parameters)


def check_steps(steps: object) -> Any:
    """`steps`: an int of at least 0, or an integer scalar variable."""
    if not isinstance(steps, Variable):
        count = check_count("steps", steps, low=0)
        if count > np.iinfo("int64").max:
            raise ValueError("steps has more than 64 bits; pass a smaller int")
        return count
    if scalar("steps", steps).type.dtype not in integer_dtypes:
        raise TypeError(f"steps has dtype {steps.type.dtype}; pass an int or an integer scalar variable")
    return steps


def check_path(argument: str, value: object) -> None:
    """`value`: a path that is not empty."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise TypeError(f"{argument} is {value!r}; pass a string or a path")


def as_numbers(argument: str, value: Any, ndim: int | None = None) -> np.ndarray:
    """`value` as an array of float64, if given with `ndim` dimensions."""
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{argument} is {shown(value)}; pass an array of numbers") from error
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{argument} has {array.ndim} dimensions; pass an array of {ndim}")
    return array


def filtered(kind: Any, value: Any, variable: Any) -> Any:
    """The value of the input `variable` as the compiled function takes it, of the type `kind`."""
    try:
        return kind.filter(value, allow_downcast=None)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the input {called(variable)} does not fit: {error}") from error


def check_name(argument: str, value: object) -> str:
    """`value`: a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{argument} is {value!r}; pass a string that is not empty")
    return value


def check_keys(argument: str, given: Mapping[Any, Any], updates: Mapping[Any, Any]) -> None:
    """`given` is a dictionary, and every key of it has an update in `updates`."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} is {shown(given)}; pass a dictionary from variables of updates")
    for variable in given:
        if variable not in updates:
            raise ValueError(f"{argument} names the variable {called(variable)}, which has no update")


def check_flag(argument: str, value: object) -> bool:
    """`value`, which is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{argument} is {value!r}; pass True or False")
    return bool(value)


def check_number(argument: str, value: Any, low: float = -np.inf, high: float = np.inf, *, below: float = np.inf,
                 wanted: str = "a number") -> float:  # fmt: skip
    """`value` as a finite float from `low` to `high` and less than `below`; messages ask for what is `wanted`."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.ndarray | list | tuple):
        raise ValueError(f"{argument} is {value!r}; pass {wanted}")
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{argument} is {value!r}; pass {wanted}")
    try:
        number = float(value)
    except OverflowError:
        number = np.inf if value > 0 else -np.inf  # type: ignore[operator]
    if not (low <= number <= high and number < below):
        limits = [("at least", low), ("at most", high), ("less than", below)]
        allowed = " and ".join(f"{words} {limit:g}" for words, limit in limits if np.isfinite(limit))
        raise ValueError(f"{argument} is {number:g}; pass a number of {allowed or 'finite size'}")
    return number
