"""The oracle: a cost with gradients that a Python callable computes, as an expression that any rule can minimize.

``cost = Oracle(call)([p, q])`` is a scalar variable. Its gradients are those that ``call(p, q)`` returns, at any point
at which a rule evaluates it. ``r = VectorOracle(call, length)([p, q])`` is a vector, such as residuals or constraints,
whose derivatives are the Jacobians that the callable returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import reduce
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, grad_undefined
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op

from ..checks import as_dtype, as_list, as_tensor, check_callable, check_count, check_parameters
from ..hints import hinted
from ..pytree import derivative, number
from ..typing import Variables
from .replace import operations


Arrays = list[np.ndarray]


class Oracle:
    """A cost that a Python callable computes together with its gradients.

    Nothing may raise in a compiled step. So an exception of the callable, KeyboardInterrupt too, is kept in `failure`;
    this answer and all others are then NaN, without calling again, until `check` raises the very exception::

        cost = Oracle(call)([p, q], data)
        step = pytensor.function([data], [], updates=lbfgs([p, q], cost))

    Each use of the oracle in a graph may call: a rule that searches calls it at each trial. The drivers check by
    themselves. An oracle serves one thread at a time.

    Parameters
    ----------
    call : callable
        ``call(*parameters, *inputs) -> (cost, gradients)``, on arrays that it may keep or change. The cost is a number,
        the gradients are one array for each parameter, of its shape.
    product : callable, optional
        ``product(parameters, vectors, *inputs) -> products``, the products of the matrix of second derivatives with
        `vectors`, one for each parameter; all three are lists of arrays. By default a central difference of the
        gradients, which takes two calls.

    Attributes
    ----------
    failure : exception or None
        What was raised and not yet passed on.

    Examples
    --------
    >>> def call(x):
    ...     return np.sum((x - 3) ** 2), [2 * (x - 3)]
    >>> x = pytensor.shared(np.zeros(2), name="x")
    >>> cost = optapi.Oracle(call)([x])
    >>> step = pytensor.function([], cost, updates=optapi.lbfgs([x], cost))
    >>> for _ in range(5):
    ...     _ = step()
    >>> x.get_value()
    array([3., 3.])
    """

    @hinted
    def __init__(
        self,
        call: Callable[..., tuple[Any, Sequence[Any]]] | None,
        product: Callable[..., Sequence[Any]] | None = None,
    ):
        for argument, function in (("call", call), ("product", product)):
            if function is not None:
                check_callable(argument, function, "a function of arrays")
        self.call = call
        self.product = product
        # What the products are, if not those of `product` or exact: differences, of gradients with a relative error.
        self.differenced = product is None
        self.gradient_error = 0.0
        self.failure: BaseException | None = None
        self.errors: Any = None  # how the callable wants NumPy to treat floating-point errors, as np.geterr

    def __call__(self, parameters: Variables, *inputs: Sequence[Variable]) -> Any:
        """The cost as a scalar variable in float64, differentiable in `parameters` and not in `inputs`."""
        parameters = check_parameters(as_list("parameters", parameters))
        data = [as_tensor(f"inputs[{position}]", value) for position, value in enumerate(inputs)]
        variables: Any = self.operation(self, len(parameters))(*parameters, *data, return_list=True)
        return variables[0]

    @property
    def operation(self) -> Any:
        return Evaluation

    def types(self, parameters: Sequence[Any]) -> list[Any]:
        """Variables like the value and its derivatives by `parameters`."""
        return [pt.scalar(dtype="float64"), *(p.type() for p in parameters)]

    def check(self) -> None:
        """Raise the exception that was kept, if there is one, and be ready again."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def evaluate(self, arrays: Sequence[np.ndarray], count: int) -> tuple[Any, Sequence[np.ndarray]]:
        """The value and its derivatives in the first `count` of `arrays`, or NaN."""
        if self.failure is None:
            try:
                call: Any = self.call
                with self._errors():
                    value, derivatives = call(*[array.copy() for array in arrays])
                if len(derivatives) != count:
                    raise ValueError(f"the callable returned {len(derivatives)} gradients for {count} parameters")
                return self._answer(value, derivatives, arrays[:count])
            except BaseException as failure:
                self.failure = failure
        return self._nothing(arrays[:count])

    def _answer(self, value: Any, derivatives: Sequence[Any], arrays: Sequence[np.ndarray]) -> tuple[Any, Arrays]:
        return number("the callable", value), self._checked(derivatives, arrays)

    def _nothing(self, arrays: Sequence[np.ndarray]) -> tuple[Any, Arrays]:
        return np.nan, [np.full_like(array, np.nan) for array in arrays]

    def multiply(self, arrays: Sequence[np.ndarray], count: int) -> Sequence[np.ndarray]:
        """The products with the second derivatives: of the parameters, the vectors and the inputs in `arrays`."""
        copies = [array.copy() for array in arrays]
        parameters, vectors, inputs = copies[:count], copies[count : 2 * count], copies[2 * count :]
        if self.failure is None:
            try:
                call: Any = self.call
                with self._errors():
                    if self.product is not None:
                        products = self.product(parameters, vectors, *inputs)
                    else:
                        products = central_difference(
                            lambda *point: call(*point, *inputs)[1], parameters, vectors, self.gradient_error
                        )
                return self._checked(products, arrays[:count])
            except BaseException as failure:
                self.failure = failure
        return [np.full_like(array, np.nan) for array in arrays[:count]]

    def product_error(self, dtype: str) -> float:
        """The relative error of the products, of numbers of `dtype`."""
        epsilon = float(np.finfo(dtype).eps)
        return max(epsilon, self.gradient_error) ** (2 / 3) if self.differenced else epsilon

    def _errors(self) -> Any:
        return nullcontext() if self.errors is None else np.errstate(**self.errors)

    def _checked(self, values: Sequence[Any], models: Sequence[np.ndarray]) -> Arrays:
        return [derivative("the callable", value, model) for value, model in zip(values, models, strict=False)]


class VectorOracle(Oracle):
    """A vector that a Python callable computes together with its Jacobians, such as residuals or constraints.

    It is called once where the vector and its derivatives are asked for at a point. Products with the Jacobian, of
    either side, are those with the arrays; second derivatives are not known.

    Parameters
    ----------
    call : callable
        ``call(*parameters, *inputs) -> (values, jacobians)``, on arrays that it may keep or change. The values are a
        vector of shape ``(length,)``, the Jacobians one array for each parameter, of shape ``(length, *its shape)``.
    length : int

    Examples
    --------
    >>> from optapi.graph.oracle import VectorOracle
    >>> def call(x):
    ...     return np.array([x[0] - 1, x[0] * x[1]]), [np.array([[1.0, 0.0], [x[1], x[0]]])]
    >>> x = pytensor.shared(np.array([3.0, 2.0]), name="x", shape=(2,))
    >>> r = VectorOracle(call, 2)([x])
    >>> pytensor.function([], [r, pytensor.grad(pt.sum(r**2) / 2, x)], mode=optapi.PYTHON)()
    [array([2., 6.]), array([14., 18.])]
    """

    def __init__(self, call: Callable[..., tuple[Any, Sequence[Any]]] | None, length: int):
        super().__init__(call)
        self.length = check_count("length", length, low=0)
        self.differenced = False

    @property
    def operation(self) -> Any:
        return VectorEvaluation

    def types(self, parameters: Sequence[Any]) -> list[Any]:
        jacobians = [pt.tensor(dtype=p.type.dtype, shape=(self.length, *p.type.shape)) for p in parameters]
        return [pt.tensor(dtype="float64", shape=(self.length,)), *jacobians]

    def _answer(self, value: Any, derivatives: Sequence[Any], arrays: Sequence[np.ndarray]) -> tuple[Any, Arrays]:
        [values] = self._rows([value], [np.empty(())])
        return values, self._rows(derivatives, arrays)

    def _rows(self, values: Sequence[Any], models: Sequence[np.ndarray]) -> Arrays:
        """`values` as arrays that have rows like `models`, one for each component of the vector."""
        arrays = []
        for value, model in zip(values, models, strict=True):
            array, wanted = np.asarray(value, model.dtype), (self.length, *model.shape)
            if array.shape != wanted:
                raise ValueError(f"the callable returned an array of shape {array.shape} in the place of {wanted}")
            arrays.append(array)
        return arrays

    def _nothing(self, arrays: Sequence[np.ndarray]) -> tuple[Any, Arrays]:
        return np.full(self.length, np.nan), [np.full((self.length, *a.shape), np.nan, a.dtype) for a in arrays]


class Evaluation(Op):
    """``(parameters, inputs) -> (cost, gradients)``. It equals only itself."""

    def __init__(self, oracle: Oracle, count: int):
        self.oracle = oracle
        self.count = count

    def make_node(self, *inputs: Variable) -> Apply:
        inputs = tuple(map(pt.as_tensor, inputs))
        return Apply(self, inputs, self.oracle.types(inputs[: self.count]))

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        value, derivatives = self.oracle.evaluate(inputs, self.count)
        outputs[0][0] = np.asarray(value)
        for storage, array in zip(outputs[1:], derivatives, strict=True):
            storage[0] = array

    def do_constant_folding(self, fgraph: FunctionGraph, node: Apply) -> bool:
        return False

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[position < self.count] * len(node.outputs) for position in range(len(node.inputs))]

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Variable]:
        parameters, others = inputs[: self.count], inputs[self.count :]
        of_cost, *of_gradients = cotangents
        pulled = [None] * self.count
        if not isinstance(of_cost.type, DisconnectedType):
            pulled = [as_dtype(of_cost, g.type.dtype) * g for g in outputs[1:]]
        if not all(isinstance(v.type, DisconnectedType) for v in of_gradients):
            # The matrix of second derivatives is symmetric.
            products = Product(self.oracle, self.count).of(parameters, of_gradients, others)
            pulled = [b if a is None else a + b for a, b in zip(pulled, products, strict=True)]
        return [DisconnectedType()() if v is None else v for v in [*pulled, *[None] * len(others)]]

    def pushforward(self, inputs: Sequence[Any], outputs: Sequence[Any], tangents: Sequence[Any]) -> list[Variable]:
        parameters, vectors, others = inputs[: self.count], tangents[: self.count], inputs[self.count :]
        moved = [(g, v) for g, v in zip(outputs[1:], vectors, strict=True) if not isinstance(v.type, DisconnectedType)]
        if not moved:
            return [DisconnectedType()() for _ in outputs]
        slope = sum((pt.sum(g * v) for g, v in moved), pt.constant(np.float64(0.0)))
        products = Product(self.oracle, self.count).of(parameters, vectors, others)
        return [slope.astype("float64"), *products]


class VectorEvaluation(Evaluation):
    """``(parameters, inputs) -> (values, jacobians)``. It equals only itself."""

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Variable]:
        parameters, others = inputs[: self.count], inputs[self.count :]
        v, *of_jacobians = cotangents
        if not all(isinstance(c.type, DisconnectedType) for c in of_jacobians):
            unknown = "second derivatives of a vector oracle are not known"
            pulled = [grad_undefined(self, i, p, unknown) for i, p in enumerate(parameters)]
        elif isinstance(v.type, DisconnectedType):
            pulled = [DisconnectedType()() for _ in parameters]
        else:
            pulled = [
                (J.reshape((J.shape[0], p.size)) * as_dtype(v, J.type.dtype)[:, None]).sum(axis=0).reshape(p.shape)
                for J, p in zip(outputs[1:], parameters, strict=True)
            ]
        return [*pulled, *(DisconnectedType()() for _ in others)]

    def pushforward(self, inputs: Sequence[Any], outputs: Sequence[Any], tangents: Sequence[Any]) -> list[Variable]:
        vectors = tangents[: self.count]
        moved = [(J, v) for J, v in zip(outputs[1:], vectors, strict=True) if not isinstance(v.type, DisconnectedType)]
        if not moved:
            return [DisconnectedType()() for _ in outputs]
        pushed: Any = sum((J.reshape((J.shape[0], v.size)) * v.ravel()).sum(axis=1) for J, v in moved)
        return [pushed.astype("float64"), *(DisconnectedType()() for _ in outputs[1:])]


def jacobians(vector: Any, parameters: Sequence[Any]) -> list[Any] | None:
    """The derivatives of what a vector oracle returns by `parameters`, which it knows; None of any other vector."""
    node = vector.owner
    if node is None or not isinstance(node.op, VectorEvaluation) or vector is not node.outputs[0]:
        return None
    given = node.inputs[: node.op.count]
    if len(given) != len(parameters) or any(a is not b for a, b in zip(given, parameters, strict=True)):
        return None
    return list(node.outputs[1:])


class Product(Op):
    """``(parameters, vectors, inputs) -> products`` with the matrix of second derivatives. It equals only itself."""

    def __init__(self, oracle: Oracle, count: int):
        self.oracle = oracle
        self.count = count

    def of(self, parameters: Sequence[Any], vectors: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        """The products as variables, with zeros for vectors that are disconnected."""
        vectors = [
            pt.zeros_like(p) if isinstance(v.type, DisconnectedType) else as_dtype(v, p.type.dtype)
            for p, v in zip(parameters, vectors, strict=True)
        ]
        products: Any = self(*parameters, *vectors, *others, return_list=True)
        return list(products)

    def make_node(self, *inputs: Variable) -> Apply:
        inputs = tuple(map(pt.as_tensor, inputs))
        return Apply(self, inputs, [p.type() for p in inputs[: self.count]])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        products = self.oracle.multiply(inputs, self.count)
        for storage, product in zip(outputs, products, strict=True):
            storage[0] = product

    def do_constant_folding(self, fgraph: FunctionGraph, node: Apply) -> bool:
        return False

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[position < 2 * self.count] * len(node.outputs) for position in range(len(node.inputs))]

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Variable]:
        parameters, others = inputs[: self.count], inputs[2 * self.count :]
        third = [
            grad_undefined(self, i, p, "third derivatives of an oracle are not known") for i, p in enumerate(parameters)
        ]
        return [*third, *self.of(parameters, cotangents, others), *(DisconnectedType()() for _ in others)]

    def pushforward(self, inputs: Sequence[Any], outputs: Sequence[Any], tangents: Sequence[Any]) -> list[Variable]:
        parameters, others = inputs[: self.count], inputs[2 * self.count :]
        if not all(isinstance(v.type, DisconnectedType) for v in tangents[: self.count]):
            raise NotImplementedError("third derivatives of an oracle are not known")
        return self.of(parameters, tangents[self.count : 2 * self.count], others)


def oracles(variables: Iterable[Variable]) -> list[Oracle]:
    """The oracles that the graphs of `variables` call, also those of inner graphs, such as loops."""
    return list(dict.fromkeys(op.oracle for op in operations(variables) if isinstance(op, Evaluation | Product)))


@contextmanager
def checked(called: Sequence[Oracle]) -> Iterator[None]:
    """In this context the oracles `called` are used, whose failures are raised at its end."""
    for oracle in called:
        oracle.check()  # what nobody has asked for yet
    try:
        yield
        for oracle in called:
            oracle.check()
    finally:
        # One exception is passed on, and what comes next begins as new.
        for oracle in called:
            oracle.failure = None


class Elementwise(Op):
    """``z -> (values, first derivatives, second derivatives)`` of a Python callable, whose rows these are."""

    __props__ = ("call",)

    def __init__(self, call: Callable[[np.ndarray], Any]):
        self.call = call

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), [inputs[0].type() for _ in range(3)])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for storage, row in zip(outputs, self.call(inputs[0]), strict=True):
            storage[0] = np.asarray(row, inputs[0].dtype)

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Variable]:
        pulled = [
            c * slope
            for c, slope in zip(cotangents[:2], outputs[1:], strict=True)
            if not isinstance(c.type, DisconnectedType)
        ]
        return [sum(pulled[1:], pulled[0])]


def elementwise(call: Callable[[np.ndarray], Any]) -> Callable[[Any], Any]:
    """A function of tensors that Python computes with its derivatives: from an array to the three rows."""
    operation = Elementwise(call)

    def function(z: Any) -> Any:
        values: Any = operation(z, return_list=True)
        return values[0]

    return function


class ProductError(Op):
    """``() -> error``, the relative error of an oracle's products with second derivatives. It equals only itself."""

    def __init__(self, oracle: Oracle, dtype: str):
        self.oracle = oracle
        self.dtype = dtype

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), [pt.scalar(dtype=self.dtype)])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        # It is asked for at each call, since a compiled function serves oracles with products and without.
        outputs[0][0] = np.asarray(self.oracle.product_error(self.dtype), self.dtype)

    def do_constant_folding(self, fgraph: FunctionGraph, node: Apply) -> bool:
        return False


def product_error(cost: Variable, dtype: str) -> Any:
    """The relative error of products with the second derivatives of `cost`, a scalar variable.

    None if it is that of rounding: no oracle is in the graph of `cost`.
    """
    errors: list[Any] = [ProductError(oracle, dtype)() for oracle in oracles([cost])]
    return reduce(pt.maximum, errors) if errors else None


# A central difference with a point that is not finite is tried again with steps of a hundredth, so often.
SHORTER_STEPS = 4


def central_difference(
    gradients: Callable[..., Sequence[Any]], point: Arrays, vectors: Arrays, error: float = 0.0,
    limits: Sequence[tuple[Any, Any] | None] | None = None,
) -> Arrays:  # fmt: skip
    r"""The product of the matrix of second derivatives with `vectors`, by two calls of `gradients`.

    .. math:: (g(x + h v) - g(x - h v)) / 2h, \qquad h = \epsilon^{1/3} t / \|v\|, \qquad
        t = \max(\|x \circ v\| / \|v\|, \epsilon^{1/3} \max_i |x_i|)

    with the machine precision :math:`\epsilon`, or `error` if that is larger, the relative error of the gradients. So
    :math:`t` is the typical size of the components that move. The second term keeps the rounding errors of the others
    out of the difference where these components happen to be almost zero. Where they are zero, :math:`t` is the largest
    component, or 1 at the origin. None is called if `vectors` are zero. If a gradient is not finite, shorter steps are
    tried. With `limits`, pairs of a low and a high for each array, the middle is moved so that both points are inside;
    components without any room count as zeros of `vectors`.

    References
    ----------
    Brown and Saad (1990), Hybrid Krylov methods for nonlinear systems of equations, section 3.1, for sizes that depend
    on the direction; Dennis and Schnabel (1983), Numerical methods for unconstrained optimization, section 5.4.
    """
    wide = [v.astype("float64") for v in vectors]
    size = _norm(wide)
    if size == 0:
        return [np.zeros_like(v) for v in vectors]
    if not np.isfinite(size):
        return [np.full_like(v, np.nan) for v in vectors]
    root = max(error, *(float(np.finfo(x.dtype).eps) for x in point)) ** (1 / 3)
    moving = _norm([x * (v / size) for x, v in zip(point, wide, strict=True)])
    largest = _largest(point)
    h = root * (max(moving, root * largest) if moving > 0 else largest or 1.0) / size
    boxes = [box or (-np.inf, np.inf) for box in limits or [None] * len(point)]
    for v, (low, high) in zip(wide, boxes if limits else (), strict=False):
        moves = (high > low) & (v != 0)
        h = float(np.min(((high - low) / 2 / np.abs(np.where(moves, v, 1.0)))[moves], initial=h))

    def ends(h: float, sign: int) -> Iterator[Any]:
        for x, v, (low, high) in zip(point, wide, boxes, strict=True):
            if limits is None:
                yield (x + sign * h * v).astype(x.dtype)
            else:
                middle = np.clip(x, low + h * np.abs(v), high - h * np.abs(v))
                yield np.clip(middle + sign * h * v, low, high).astype(x.dtype)

    def difference(h: float) -> Arrays:
        ahead, behind = (gradients(*ends(h, sign)) for sign in (1, -1))
        return [
            ((np.asarray(a, "float64") - b) / (2 * h)).astype(v.dtype)
            for a, b, v in zip(ahead, behind, vectors, strict=True)
        ]

    products = difference(h)
    for _ in range(SHORTER_STEPS):
        if all(np.isfinite(product).all() for product in products):
            break
        h /= 100
        products = difference(h)
    return products


def _largest(arrays: Arrays) -> float:
    return max(float(np.max(np.abs(array), initial=0.0)) for array in arrays)


def _norm(arrays: Arrays) -> float:
    # Scaled, so that no square overflows.
    scale = _largest(arrays)
    if not 0 < scale < np.inf:
        return scale
    return scale * np.sqrt(sum(float(np.sum((array / scale) ** 2)) for array in arrays))
