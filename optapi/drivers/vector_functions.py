"""Vector functions of NumPy arrays with their Jacobians: residuals and constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from ..checks import shown
from ..feasible import Limits, sides
from ..graph.derivatives import pushforward, rows
from ..graph.numpy_linker import PYTHON
from ..graph.oracle import Arrays
from ..pytree import PyTree, as_array, named
from ..typing import CompileMode
from .evaluator import Kinds, beside, kinds_of
from .locks import BUILDING


# How large a step is in machine precisions, of each kind of differences.
METHODS = {"2-point": 1 / 2, "3-point": 1 / 3, "cs": 1}
# A column of a Jacobian with fewer roundings of the residuals than this in a step has no digits.
DIGITS = 1000


@dataclass(frozen=True)
class Part:
    """A function of the components `where` of a vector alone."""

    function: Callable[[Any], Any]
    x: np.ndarray
    where: np.ndarray

    def __call__(self, part: np.ndarray) -> Any:
        x = self.x.astype(np.result_type(self.x, part))
        x[self.where] = part
        return self.function(x)


class JacobianDifferences(NamedTuple):
    """A Jacobian by differences, with SciPy's steps.

    Attributes
    ----------
    method : "2-point", "3-point" or "cs"
    step : float, array, "relative" or None
        The relative step: by default one that depends on the precision, times each component; None for SciPy's own,
        where that of components that are smaller than 1 is that of 1.
    workers : int or map-like callable, optional
        What evaluates in parallel.
    sparsity : tuple, optional
        The structure of the Jacobian with its groups of columns.
    absolute : float or array, optional
        The step itself, where the relative one is None.
    """

    method: str
    step: Any = "relative"
    workers: Any = None
    sparsity: Any = None
    absolute: Any = None

    def count(self, size: int) -> int:
        """How many calls the Jacobian by so many components takes."""
        return 2 * size if self.method == "3-point" else size

    def __call__(self, function: Callable[[Any], Any], x: np.ndarray, values: np.ndarray, bounds: Any = None) -> Any:
        """The Jacobian of `function`, which has the `values` at the vector `x`; evaluated inside of `bounds` only."""
        from scipy.optimize._numdiff import approx_derivative

        low, high = (np.full(x.size, -np.inf), np.full(x.size, np.inf)) if bounds is None else bounds
        if (low == high).any():
            # No step leads anywhere: these columns are zero.
            J, movable = np.zeros((values.size, x.size)), np.flatnonzero(low < high)
            if movable.size:
                part: Any = Part(function, x, movable)
                J[:, movable] = self(part, x[movable], values, (low[movable], high[movable]))
            return J
        more = {} if self.workers is None else {"workers": self.workers}
        step = self.step
        if isinstance(step, str):
            step = max(float(np.finfo(array.dtype).eps) for array in (x, values)) ** METHODS[self.method]
        J = approx_derivative(
            function,
            x,
            method=self.method,
            rel_step=step,
            abs_step=self.absolute,
            f0=values,
            sparsity=self.sparsity,
            bounds=(low, high),
            **more,
        )
        if not hasattr(J, "toarray"):  # one of a single value is a vector
            J = np.reshape(J, (values.size, x.size))
        if isinstance(self.step, str) and self.method != "cs":
            # The size of a component may be much smaller than what moves the residuals: then it is that of 1.
            digits = DIGITS * np.finfo(values.dtype).eps * np.max(np.abs(values), initial=0.0)
            moved = np.max(np.abs(J), axis=0, initial=0.0) * step * np.abs(x)
            few = np.flatnonzero((moved <= digits) & (x != 0) & (np.abs(x) < 1))
            if few.size:
                J[:, few] = approx_derivative(
                    Part(function, x, few), x[few], method=self.method, abs_step=step, f0=values,
                    bounds=(low[few], high[few]), **more,
                ).reshape(values.size, few.size)  # fmt: skip
        return J


class Raveled:
    """A function of a point as one from a vector to a vector, which can be pickled if the function can."""

    def __init__(self, f: Callable[..., Any], structure: PyTree, kinds: Kinds, args: tuple[Any, ...]):
        self.f, self.structure, self.kinds, self.args = f, structure, kinds, args
        self.calls = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.calls += 1
        parts, begin = [], 0
        for shape, dtype in self.kinds:
            end = begin + prod(shape)
            kind = np.result_type(dtype, "complex64") if x.dtype.kind == "c" else dtype
            parts.append(x[begin:end].reshape(shape).astype(kind))
            begin = end
        return np.ravel(self.f(self.structure.build(parts), *self.args))


class Symbolic:
    """A function that builds residuals of PyTensor variables, as one of NumPy arrays that returns the Jacobian too.

    Parameters
    ----------
    f : callable
    structure : PyTree
    kinds : list of tuple
    args : tuple
    mode : PyTensor mode, or str

    Raises
    ------
    TypeError
        If `f` does not take variables, or returns something else than a tensor.
    """

    def __init__(
        self, f: Callable[..., Any], structure: PyTree, kinds: Kinds, args: tuple[Any, ...], mode: CompileMode
    ):
        self.f, self.structure, self.args = f, structure, args
        self.__name__ = getattr(f, "__name__", type(f).__name__)
        variables = [
            pt.tensor(f"x{position}", shape=shape, dtype=np.dtype(dtype).name)
            for position, (shape, dtype) in enumerate(kinds)
        ]
        try:
            built = f(structure.build(variables), *args)
        except Exception as error:
            raise TypeError(f"it raised a {type(error).__name__}: {error}") from error
        if not isinstance(built, TensorVariable) or built.type.dtype not in ("float64", "float32"):
            raise TypeError(f"it returned {shown(built)}")
        with BUILDING:
            r = built.ravel().astype("float64")
            ends = np.cumsum([prod(shape) for shape, _ in kinds])
            parts = [slice(end - prod(shape), end) for end, (shape, _) in zip(ends, kinds, strict=True)]

            def image(u: Any) -> Any:
                vectors = [
                    u[part].reshape(v.type.shape).astype(v.type.dtype) for part, v in zip(parts, variables, strict=True)
                ]
                return pushforward([r], variables, vectors)[0]

            transposed = rows(image, ends[-1], r.shape[0], "float64", pt.constant(True))
            jacobians = [
                transposed[part].T.reshape((-1, *v.type.shape)) for part, v in zip(parts, variables, strict=True)
            ]
            self._evaluate = pytensor.function(
                variables, [r, *jacobians], mode=PYTHON if mode is None else mode, on_unused_input="ignore"
            )

    def contradiction(self, start: Arrays) -> str | None:
        """How values of `f` itself differ from those of the expression, at the start and beside it.

        None if they do not, or if `f` returns no numbers for arrays. A function of NumPy may take a variable for a
        number, as ``np.dot`` does.
        """
        for point in beside(start):
            try:
                value = as_array(self.f(self.structure.build([array.copy() for array in point]), *self.args))
            except Exception:
                return None
            if value.dtype.kind not in "fiub":
                return None
            known = self._evaluate(*point)[0]
            epsilon = max((float(np.finfo(array.dtype).eps) for array in point), default=0.0)
            if value.size != known.size:
                return f"as an expression it has {known.size} values where it has {value.size} of numbers"
            if not np.allclose(value.ravel(), known, rtol=epsilon**0.5, atol=0.0, equal_nan=True):
                return "as an expression it has other values than of numbers"
        return None

    def __call__(self, point: Any, *args: Any) -> tuple[Any, Any]:
        """The residuals and the Jacobian at `point`."""
        values, *jacobians = self._evaluate(*(leaf for _, leaf in self.structure.leaves("x", point)))
        return values, self.structure.build(jacobians)


class VectorFunction:
    """A function of a point that returns a vector, with its Jacobian; calls are counted.

    Parameters
    ----------
    argument : str
        What the user calls it, for messages.
    f : callable
        From a point to the vector; if `jac` is True, to the vector and the Jacobian.
    jac : callable, True or JacobianDifferences
    structure : PyTree
    args : tuple
    length : int, optional
        How many components the vector has; by default as many as it has first.

    Attributes
    ----------
    nfev, njev : int
        How often `f` and `jac` were called; differences count as one Jacobian.
    difference_calls : int
        How many of the calls of `f` were for differences.
    """

    def __init__(self, argument: str, f: Callable[..., Any], jac: Any, structure: PyTree, args: tuple[Any, ...],
                 length: int | None = None):  # fmt: skip
        self.argument, self.f, self.jac, self.structure, self.args = argument, f, jac, structure, args
        self.length = length
        self.is_differenced = isinstance(jac, JacobianDifferences)
        self.nfev = self.njev = self.difference_calls = 0

    def values(self, point: Arrays) -> tuple[np.ndarray, Arrays | None]:
        """The vector at a point, and the Jacobians by each of its arrays where `f` returns them too."""
        self.nfev += 1
        value = self.f(self._argument(point), *self.args)
        if self.jac is not True:
            return self._vector(value), None
        self.njev += 1
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(
                f"jac is True, so {named(self.argument, self.f)} has to return the pair of its values and the "
                f"Jacobian; it returned a {type(value).__name__}"
            )
        values = self._vector(value[0])
        return values, self._rows(named(self.argument, self.f), value[1], point, values.size)

    def jacobians(self, point: Arrays, values: np.ndarray, limits: Limits | None) -> Arrays:
        """The Jacobians at a point with these values; NaN where those are not finite."""
        if not np.isfinite(values).all():
            return [np.full((values.size, *a.shape), np.nan, a.dtype) for a in point]
        self.njev += 1
        if self.is_differenced:
            return self._differences(point, values, limits)
        return self._rows(named("jac", self.jac), self.jac(self._argument(point), *self.args), point, values.size)

    def _argument(self, point: Arrays) -> Any:
        return self.structure.build([array.copy() for array in point])

    def _vector(self, value: Any) -> np.ndarray:
        name = named(self.argument, self.f)
        array = as_array(value)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} returned {shown(value)}; it has to return an array of real numbers")
        if self.length is None:
            self.length = array.size
        if array.size != self.length:
            raise ValueError(
                f"{name} returned an array of shape {array.shape}, of {array.size} numbers; return the same number at "
                f"each point, {self.length}"
            )
        return np.array(array.ravel(), array.dtype if array.dtype.kind == "f" else "float64")

    def _rows(self, name: str, value: Any, point: Arrays, count: int) -> Arrays:
        """The Jacobian that the function `name` returned, as an array for each array of the point."""
        places = self.structure.leaves(f"what {name} returned", value)
        jacobians = []
        for (place, leaf), model in zip(places, point, strict=True):
            array = np.asarray(leaf.toarray() if hasattr(leaf, "toarray") else leaf)
            wanted = (count, *model.shape)
            if count == 1 and array.shape == model.shape:  # a gradient
                array = array[None]
            if array.dtype.kind not in "fiub" or array.shape != wanted:
                raise ValueError(
                    f"{place} has shape {array.shape} for {count} values and an array of shape {model.shape}; it "
                    f"has to be of real numbers and of shape {wanted}, a row for each value"
                )
            jacobians.append(np.array(array, model.dtype))
        return jacobians

    def _differences(self, point: Arrays, values: np.ndarray, limits: Limits | None) -> Arrays:
        function = Raveled(self.f, self.structure, kinds_of(point), self.args)
        x = np.concatenate([array.ravel() for array in point])
        bounds = None if limits is None else sides(point, limits)
        J = self.jac(function, x, values, bounds)
        # In another process nothing is counted.
        calls = function.calls if self.jac.workers is None else self.jac.count(x.size)
        self.nfev, self.difference_calls = self.nfev + calls, self.difference_calls + calls
        J = np.reshape(J.toarray() if hasattr(J, "toarray") else J, (values.size, x.size))
        ends = np.cumsum([array.size for array in point])[:-1]
        return [
            np.array(part.reshape(values.size, *a.shape), a.dtype)
            for part, a in zip(np.split(J, ends, axis=1), point, strict=True)
        ]
