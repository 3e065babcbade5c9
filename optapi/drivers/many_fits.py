"""Fits of one model to many data sets at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from ..checks import as_numbers, check_number, shown
from ..feasible import limits
from ..graph.members import vectorized
from ..graph.numpy_linker import PYTHON
from ..graph.replace import replaced
from ..losses import Robust
from ..pytree import PyTree
from ..typing import OptAlgo
from .compiled import compile_minimizer
from .locks import BUILDING
from .numpy import by_leaf
from .results import BatchResult


class Misfit(ValueError):
    """What is wrong with the shapes of a model and its data."""


def check_row(values: Any, shape: tuple[int, ...]) -> None:
    """The values of a model have the `shape` of a row of the data.

    Raises
    ------
    Misfit
        If they do not.
    """
    if isinstance(values, TensorVariable):
        known = values.type.shape
        found = tuple(values.shape.eval(mode=PYTHON).tolist()) if None in known else known
        if found != shape:
            raise Misfit(
                f"the model returns values of shape {found} for a row of y of shape {shape}; with many=True x is the "
                "same for all rows. For an x of each, pass both as inputs to compile_minimizer, and call run.on_data"
            )


def many_fits(name: str, build: Callable[..., Any], structure: PyTree, start: Sequence[np.ndarray],
              data: Sequence[np.ndarray], sizes: np.ndarray | None, opt_algo: OptAlgo, *, starts: Any = None,
              workers: Any = 1, tolerance: float = 1e-10, bounds: Any = None, x_scale: Any = "auto",
              mode: Any = None, **options: Any) -> BatchResult:  # fmt: skip
    """Half of the sums of squares of residuals of many data sets, each minimized by itself.

    Parameters
    ----------
    name : str
        What `build` is called in messages.
    build : callable
        From a point of variables, and a variable for each of `data`, to the residuals of one data set.
    structure, start
        The point.
    data : list of arrays
        Each with a row for each data set.
    sizes : vector, optional
        The scale of the sum of squares of each, in whose units the tolerance is; by default that at the start.
    opt_algo, starts, workers, tolerance, bounds, x_scale, mode, **options
        See `curve_fit` and `least_squares`.

    Raises
    ------
    TypeError, ValueError
        If `build` does not take variables, or an argument is not as said.
    """
    counts = [len(array) for array in data]
    if starts is not None:
        starts = [as_numbers(place, leaf) for place, leaf in structure.leaves("starts", starts, "p0")]
        counts += [len(array) if array.ndim else 0 for array in starts]
    if len(set(counts)) > 1:
        raise ValueError(f"the data and the starts have {counts} rows; pass a row for each data set")
    # Powers of two, by which all is divided without rounding: the derivatives are then those by relative changes.
    scales = [np.exp2(np.round(np.log2(np.where(a != 0, abs(a), 1)))).astype(a.dtype) for a in start]
    shared = [
        pytensor.shared(np.asarray(a / scale), name=f"x{i}", shape=a.shape)
        for i, (a, scale) in enumerate(zip(start, scales, strict=True))
    ]
    inputs = [pt.tensor(f"data{i}", shape=array.shape[1:], dtype="float64") for i, array in enumerate(data)]
    size = pt.dscalar("size")
    point = structure.build([p * scale for p, scale in zip(shared, scales, strict=True)])
    try:
        residuals = build(point, *inputs)
    except Misfit:
        raise
    except Exception as error:
        raise TypeError(
            f"with many=True {name} is called with PyTensor variables, which raised a {type(error).__name__}: {error}; "
            "write it with functions of pytensor.tensor"
        ) from error
    if not isinstance(residuals, TensorVariable):
        raise TypeError(
            f"with many=True {name} has to build residuals of PyTensor variables; it returned {shown(residuals)}"
        )
    box = limits(bounds, structure, start)
    if box is not None:
        pairs = zip(box, scales, strict=True)
        options["bounds"] = [None if pair is None else tuple(side / s for side in pair) for pair, s in pairs]
    if isinstance(x_scale, str) and x_scale == "auto":
        loss = Robust.of(options.get("loss", "linear"), options.get("f_scale", 1.0))
        x_scale = "jac" if loss.is_linear and options.get("solver") != "cg" else None
    if x_scale is not None:
        given = by_leaf(x_scale, structure)
        given = given if isinstance(given, str | list) else [given] * len(scales)
        options["x_scale"] = given if isinstance(given, str) else [g / s for g, s in zip(given, scales, strict=True)]
    run = compile_minimizer(
        shared,
        None,
        opt_algo,
        residuals=residuals,
        inputs=[*inputs, size],
        tolerance=check_number("tolerance", tolerance, low=0) * size,
        mode=PYTHON if mode is None else mode,
        **options,
    )
    if starts is not None:
        starts = [array / scale for array, scale in zip(starts, scales, strict=True)]
    if sizes is None:
        sizes = squares(residuals, shared, inputs, data, starts)
    plain = run.on_data(*data, sizes, starts=starts, workers=workers)

    points = [array * scale for array, scale in zip(plain["x"], scales, strict=True)]
    result = BatchResult(plain | {"x": structure.build(points)})
    units = np.concatenate([scale.ravel() for scale in scales])

    def matrices() -> Iterator[Any]:
        for matrix, *rest in plain._matrices():  # type: ignore[misc]
            yield matrix / units, *rest

    def errors(parts: Sequence[np.ndarray]) -> Any:
        return structure.build([part.reshape(a.shape).astype(a.dtype) for part, a in zip(parts, points, strict=True)])

    for key, value in {"_matrices": matrices, "_build": errors, "_ends": plain._ends}.items():
        object.__setattr__(result, key, value)
    return result


def squares(residuals: Any, shared: Sequence[Any], inputs: Sequence[Any], data: Sequence[np.ndarray],
            starts: Sequence[np.ndarray] | None) -> np.ndarray:  # fmt: skip
    """The sums of squares of the residuals of each data set at its start."""
    now = [p.type() for p in shared]
    points = [p.get_value() for p in shared] if starts is None else starts
    [total] = replaced([pt.sum(residuals**2)], dict(zip(shared, now, strict=True)))
    wide = [starts is not None] * len(now) + [True] * len(inputs)
    with BUILDING:
        function = vectorized([*now, *inputs], [total], wide, PYTHON)
    return np.asarray(function(*points, *data)[0], "float64")
