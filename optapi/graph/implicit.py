"""Solutions of equations as variables, whose derivatives are those of the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import optdb
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node, vectorize_graph
from pytensor.graph.rewriting.basic import graph_rewriter
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import float_dtypes

from ..checks import as_dtype
from .derivatives import TRUE, pullback, pushforward, rows
from .loops import wide_graph
from .replace import replaced


# From the products with a matrix and with its transpose, and a vector b, to the vector v for which the product is b.
Solver = Callable[[Callable[[Any], Any], Callable[[Any], Any], Any], Any]


class System:
    r"""Equations :math:`F(x, \theta) = 0`, and how linear systems with their matrix of derivatives are solved.

    Attributes
    ----------
    unknowns, arguments : lists of variables
        Placeholders for :math:`x`, of known shapes, and for :math:`\theta`.
    residuals : list of variables
        :math:`F`, expressions of these alone, one for each of `unknowns`, of its shape.
    solver : callable
        See `Solver`.
    is_symmetric : bool
        Whether the matrix of derivatives :math:`\partial F / \partial x` is symmetric.
    """

    def __init__(self, unknowns: Sequence[Any], arguments: Sequence[Any], residuals: Sequence[Any], solver: Solver,
                 is_symmetric: bool):  # fmt: skip
        self.unknowns, self.arguments, self.residuals = list(unknowns), list(arguments), list(residuals)
        self.solver, self.is_symmetric = solver, is_symmetric

    def transposed(self, vectors: Sequence[Any]) -> list[Any]:
        r"""The products :math:`J^T v` with the matrix of derivatives."""
        return pullback(self.residuals, self.unknowns, vectors)

    def times(self, vectors: Sequence[Any]) -> list[Any]:
        """The products :math:`J v`."""
        return self.transposed(vectors) if self.is_symmetric else pushforward(self.residuals, self.unknowns, vectors)

    def solved(self, solver: Solver, right: Sequence[Any]) -> list[Any]:
        r"""The :math:`\lambda` with :math:`J^T \lambda = b`, as variables that have derivatives."""
        lambdas, b = ([x.type() for x in self.unknowns] for _ in range(2))
        images = self.transposed(lambdas)
        read = set(ancestors(images))
        given = [v for v in [*self.unknowns, *self.arguments] if v in read]
        vector = pack(right)

        def packed(times: Callable[[Any], Any]) -> Callable[[Any], Any]:
            return lambda v: as_dtype(pack(times(unpack(v, self.unknowns))), vector.type.dtype)

        found = unpack(solver(packed(self.transposed), packed(self.times), vector), self.unknowns)
        system = LinearSystem(lambdas, [*given, *b], images, b, solver, self.is_symmetric)
        return implicit(system, found, TRUE, [*given, *right])

    @cached_property
    def pulled_back(self) -> tuple[list[Any], Any, list[Any]]:
        r"""Placeholders for cotangents of :math:`x` and for whether it solves the equations, and what is pulled back.

        With :math:`J^T \lambda = \bar x` this is :math:`-\lambda^T \partial F / \partial \theta`, one for each of the
        arguments: NaN where :math:`x` solves nothing, None for what has no derivative.
        """
        cotangents, is_solution = [x.type() for x in self.unknowns], pt.tensor(dtype="bool", shape=())
        right = [pt.switch(is_solution, c, np.asarray(np.nan, c.type.dtype)) for c in cotangents]
        lambdas = self.solved(self.solver, right)
        floats = [v for v in self.arguments if is_real(v)]
        known = {F.copy(): as_dtype(-v, F.type.dtype) for F, v in zip(self.residuals, lambdas, strict=True)}
        found: Any = pytensor.grad(None, floats, known_grads=known, disconnected_inputs="ignore")
        pulled = dict(zip(floats, found, strict=True))
        return cotangents, is_solution, [pulled.get(v) for v in self.arguments]


class LinearSystem(System):
    r"""The equations :math:`A \lambda - b = 0`, where :math:`b` is among the arguments."""

    def __init__(self, unknowns: Sequence[Any], arguments: Sequence[Any], images: Sequence[Any], b: Sequence[Any],
                 solver: Solver, is_symmetric: bool):  # fmt: skip
        residuals = [image - right for image, right in zip(images, b, strict=True)]
        super().__init__(unknowns, arguments, residuals, solver, is_symmetric)
        self.images = list(images)

    def transposed(self, vectors: Sequence[Any]) -> list[Any]:
        return self.times(vectors) if self.is_symmetric else super().transposed(vectors)

    def times(self, vectors: Sequence[Any]) -> list[Any]:
        return replaced(self.images, dict(zip(self.unknowns, vectors, strict=True)))


class Implicit(Op):
    """``(x, is_solution, arguments) -> x``: the identity, with the derivatives of a solution by its arguments.

    How `x` was found is the graph of `x`, which is not differentiated: so two solutions are never taken for one another
    unless that graph, with its rule, tolerances and start, is the same. An object equals only itself, since the system
    is a part of it. Nothing is left of it in a compiled function.
    """

    def __init__(self, system: System):
        self.system = system
        self.count = len(system.unknowns)

    def make_node(self, *inputs: Any) -> Apply:
        return Apply(self, list(inputs), [x.type() for x in inputs[: self.count]])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        for output, value in zip(outputs, inputs, strict=False):
            output[0] = np.array(value)

    def infer_shape(self, *arguments: Any) -> list[Any]:
        # PyTensor 3.0 passes the graph as the first argument.
        return list(arguments[-1][: self.count])

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        connected = [False] * (self.count + 1) + [is_real(v) for v in self.system.arguments]
        return [[flag] * self.count for flag in connected]

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        given, arguments = inputs[: self.count + 1], inputs[self.count + 1 :]
        system = self.system
        slots, is_solution, pulled = system.pulled_back
        vectors = [
            pt.zeros_like(x) if isinstance(c.type, DisconnectedType) else as_dtype(c, x.type.dtype)
            for x, c in zip(outputs, cotangents, strict=True)
        ]
        places = [*system.unknowns, *system.arguments, *slots, is_solution]
        values = [*outputs, *arguments, *vectors, given[-1]]
        ends = at([v for v in pulled if v is not None], dict(zip(places, values, strict=True)))
        found = iter(ends)
        nothing = [DisconnectedType()() for _ in given]
        return nothing + [
            DisconnectedType()() if v is None else summed(next(found), argument)
            for v, argument in zip(pulled, arguments, strict=True)
        ]


def implicit(system: System, found: Sequence[Any], is_solution: Any, arguments: Sequence[Any]) -> list[Any]:
    """`found`, which solves `system` where `is_solution`, with derivatives by `arguments`."""
    results: Any = Implicit(system)(*found, is_solution, *arguments, return_list=True)
    return list(results)


@_vectorize_node.register(Implicit)
def _vectorize_implicit(op: Implicit, node: Apply, *inputs: Any) -> Sequence[Any]:
    """The same, since the pullback is given the axes of the batch."""
    return op.make_node(*inputs).outputs


@graph_rewriter
def _values(fgraph: Any) -> None:
    for node in fgraph.toposort():
        if isinstance(node.op, Implicit):
            pairs = zip(node.outputs, node.inputs, strict=False)
            fgraph.replace_all(list(pairs), reason="optapi_implicit")


# Before all other rewrites, which would see less; in all modes.
optdb.register("optapi_implicit", _values, "fast_run", "fast_compile", "minimum_compile", position=-0.5)


def at(outputs: Sequence[Any], replacements: dict[Any, Any]) -> list[Any]:
    """`outputs` with `replacements`, which may have the axes of a batch in front."""
    is_wide = any(new.type.ndim > old.type.ndim for old, new in replacements.items() if hasattr(old.type, "ndim"))
    return wide_graph(outputs, replacements) if is_wide else replaced(outputs, replacements)


def summed(value: Any, argument: Any) -> Any:
    """The derivative by `argument`, which members of a batch may share: the sum of theirs."""
    if value.type.ndim > argument.type.ndim:
        value = value.sum(axis=tuple(range(value.type.ndim - argument.type.ndim)))
    shared = [
        axis
        for axis, (one, other) in enumerate(zip(argument.type.shape, value.type.shape, strict=True))
        if one == 1 and other != 1
    ]
    value = value.sum(axis=tuple(shared), keepdims=True) if shared else value
    return as_dtype(value, argument.type.dtype)


def is_real(variable: Any) -> bool:
    """Whether there are derivatives by `variable`."""
    return getattr(variable.type, "dtype", "") in float_dtypes


def pack(tensors: Sequence[Any]) -> Any:
    """One vector of all components of `tensors`."""
    parts = [t if t.type.ndim == 1 else t.reshape((prod(t.type.shape),)) for t in tensors]
    return parts[0] if len(parts) == 1 else pt.concatenate(parts)


def unpack(vector: Any, tensors: Sequence[Any]) -> list[Any]:
    """The parts of `vector` in the shapes and dtypes of `tensors`."""
    parts, begin = [], 0
    for t in tensors:
        end = begin + prod(t.type.shape)
        part = vector if len(tensors) == 1 else vector[begin:end]
        part = part if t.type.ndim == 1 else part.reshape(t.type.shape)
        parts.append(as_dtype(pt.specify_shape(part, t.type.shape), t.type.dtype))
        begin = end
    return parts


def vectorized_matrix(times: Callable[[Any], Any], size: int, dtype: str) -> Any:
    """The matrix of a linear map of vectors of `size` components, which has derivatives.

    Raises
    ------
    NotImplementedError, TypeError, ValueError
        If the map has an operation that cannot be vectorized.
    """
    vector = pt.tensor(shape=(size,), dtype=dtype)
    [images] = vectorize_graph([times(vector)], {vector: pt.eye(size, dtype=dtype)})
    return pt.broadcast_to(images, (size, size)).T


def matrix(times: Callable[[Any], Any], size: int, dtype: str) -> Any:
    """The same by a loop, where it cannot be vectorized; it need not have derivatives."""
    try:
        return vectorized_matrix(times, size, dtype)
    except (NotImplementedError, TypeError, ValueError):
        return rows(times, size, size, dtype).T
