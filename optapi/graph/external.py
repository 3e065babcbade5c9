"""A cost as a function of its own, which a graph calls through its address.

What numba compiles of such a graph does not depend on the cost, and is found on disk when the next cost comes. Points,
gradients and vectors are packed, so the shapes of the parameters are on the other side of the call; and so is all that
the cost reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.scalar.basic import get_scalar_type
from pytensor.tensor.basic import tensor_from_scalar
from pytensor.tensor.type import TensorType

from ..checks import as_dtype


# Where the addresses of the functions are in a link: of the cost and its gradient, and of products.
EVALUATION, PRODUCT, FUNCTIONS = 0, 1, 2


class Called(Op):
    """What is called through an address."""

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        raise NotImplementedError("only numba calls functions through addresses")

    def do_constant_folding(self, fgraph: Any, node: Apply) -> bool:
        return False


class External(Called):
    """``(link, point) -> (cost, gradient)``, with a link that says where the function is and what it reads.

    A link is a vector of int64: two addresses, and then for each array that the functions read, which is contiguous,
    where it begins, and its shape.

    Parameters
    ----------
    type : TensorType
        That of a packed vector.
    cost_dtype : str
    """

    __props__ = ("type", "cost_dtype")

    def __init__(self, type: TensorType, cost_dtype: str):
        self.type, self.cost_dtype = type, cost_dtype

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), [get_scalar_type(self.cost_dtype)(), self.type()])

    def cost(self, link: Variable, point: Variable) -> Any:
        """The cost, a scalar variable that is twice differentiable by `point`."""
        outputs: Any = self(link, point, return_list=True)
        return tensor_from_scalar(outputs[0])

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[False, False], [True, True]]

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Variable]:
        (link, point), (of_cost, of_gradient) = inputs, cotangents
        pulled: Any = []
        if not isinstance(of_cost.type, DisconnectedType):
            slope: Any = tensor_from_scalar(of_cost)
            pulled.append(as_dtype(slope, self.type.dtype) * outputs[1])
        if not isinstance(of_gradient.type, DisconnectedType):
            # The matrix of second derivatives is symmetric.
            pulled.append(ExternalProduct(self.type).of(link, point, of_gradient))
        return [DisconnectedType()(), sum(pulled[1:], pulled[0])]


class ExternalProduct(Called):
    """``(link, point, vector) -> product`` with the matrix of second derivatives, see `External`."""

    __props__ = ("type",)

    def __init__(self, type: TensorType):
        self.type = type

    def of(self, link: Variable, point: Variable, vector: Any) -> Any:
        """The product as a variable."""
        return self(link, point, as_dtype(vector, self.type.dtype))

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), [self.type()])

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[False], [False], [True]]

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Variable]:
        link, point, _ = inputs
        return [DisconnectedType()(), DisconnectedType()(), self.of(link, point, *cotangents)]
