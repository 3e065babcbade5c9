"""Derivatives of graphs: gradients, and products with matrices of derivatives that are not formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import NullTypeGradError, disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.shape import Shape

from ..checks import as_dtype, called
from .loops import FALSE, repeat
from .replace import replaced


TRUE = pt.constant(np.bool_(True))


def differentiate(cost: Any, parameters: Sequence[Any], beside: Sequence[Any] = ()) -> list[Any]:
    """The gradients of `cost`.

    Parameters
    ----------
    cost : scalar variable
    parameters : list of variables
    beside : list of variables, optional
        What else is read: for a parameter that is in their graphs alone the gradient is zero.

    Raises
    ------
    ValueError
        If `cost` does not depend on one of `parameters`; the message names it.
    """
    below = set(ancestors(list(beside)))
    gradients: Any = pytensor.grad(cost, list(parameters), disconnected_inputs="ignore", return_disconnected="none")
    for position, (gradient, parameter) in enumerate(zip(gradients, parameters, strict=True)):
        if gradient is None and parameter in below:
            gradients[position] = pt.zeros_like(parameter)
        elif gradient is None:
            raise ValueError(
                f"the cost does not depend on the parameter {called(parameter)}; leave it out of parameters, "
                "or check that the cost was built from this very variable"
            )
    return gradients


def held(value: Any) -> Any:
    """`value`, which counts as a constant where it is differentiated."""
    return disconnected_grad(value)


def known_shapes(outputs: Sequence[Any]) -> list[Any]:
    """`outputs` with the shapes that their types know as constants.

    A shape that does not change would be computed outside of a loop, and JAX needs constants where it splits and
    reshapes.
    """
    known: dict[Any, Any] = {
        shape: pt.constant(np.array(shape.owner.inputs[0].type.shape, "int64"))
        for shape in ancestors(list(outputs))
        if shape.owner is not None
        and isinstance(shape.owner.op, Shape)
        and None not in shape.owner.inputs[0].type.shape
    }
    return replaced(list(outputs), known)


def substituted(outputs: Sequence[Any], replacements: Mapping[Any, Any]) -> list[Any]:
    """`outputs` with variables replaced by ones whose shapes may be better known, and so known all the way up.

    What was built for a shared vector of any length would else compute its shapes, which JAX cannot do inside of a
    loop.
    """
    return known_shapes(replaced(outputs, replacements))


def pushforward(outputs: Sequence[Any], parameters: Sequence[Any], vectors: Sequence[Any]) -> list[Any]:
    """The derivatives of `outputs` along `vectors`, one for each of `parameters`.

    What is pulled back is linear in the cotangents, so its derivative by them is what is pushed forward. Unlike the
    forward mode of PyTensor's operations this works for each that has a gradient; what does not depend on `vectors`
    stays apart, so that a loop over them has it outside; and a `Scan` is differentiated into a shorter one.
    """
    cotangents = [pt.zeros_like(z) for z in outputs]
    try:
        pushed: Any = pullback(pullback(outputs, parameters, cotangents), cotangents, vectors)
    except (NotImplementedError, NullTypeGradError, TypeError):
        # A gradient need not have a gradient of its own; the operation may then have a forward mode. It comes second,
        # because Matmul has none in PyTensor 3.0 to 3.3, and a Scan is slower with it.
        pushed = pytensor.gradient.pushforward(
            list(outputs), list(parameters), list(vectors), disconnected_outputs="ignore", use_op_pushforward=True
        )
        pushed = [as_dtype(v, z.type.dtype) for v, z in zip(pushed, outputs, strict=True)]
    return list(pushed)


def pullback(outputs: Sequence[Any], parameters: Sequence[Any], vectors: Sequence[Any]) -> list[Any]:
    """The derivatives by `parameters` of the inner product of `outputs` with `vectors`, which do not change."""
    # Of copies, since one output may depend on another, or be a parameter, and what is known would be all that counts.
    known = {z.copy(): v for z, v in zip(outputs, vectors, strict=True)}
    pulled: Any = pytensor.grad(None, list(parameters), known_grads=known, disconnected_inputs="ignore")
    return [as_dtype(v, p.type.dtype) for v, p in zip(pulled, parameters, strict=True)]


def second_derivatives(
    parameters: Sequence[Any], gradients: Sequence[Any], vectors: Sequence[Any], rule: str
) -> list[Any]:
    """The products with `vectors` of the matrix of derivatives of `gradients`, those of a cost, by `parameters`.

    The matrix is symmetric, so one pull-back does it.

    Raises
    ------
    ValueError
        If the cost has no second derivatives, which `rule`, a name, needs.
    """
    try:
        # One pull-back of the gradients has half the nodes of the gradient of their product with the vectors.
        return pullback(gradients, parameters, vectors)
    except (NotImplementedError, NullTypeGradError, TypeError) as error:
        raise ValueError(
            f"{rule} needs second derivatives of the cost, which PyTensor cannot build ({error}); write the "
            "cost with other operations, or choose a rule that needs gradients alone"
        ) from error


def loss_products(
    cost: Variable, outputs: Sequence[Any], parameters: Sequence[Any], vectors: Sequence[Any], rule: str
) -> list[Any]:
    """The products with `vectors` of the Hessian of `cost` as a function of `outputs`.

    Raises
    ------
    ValueError
        If `cost` does not depend on one of `outputs`, or if it depends on one of `parameters` not through them alone;
        and as `second_derivatives`.
    """
    cut = [z.type() for z in outputs]
    [loss] = replaced([cost], dict(zip(outputs, cut, strict=True)))
    below = set(ancestors([loss]))
    for z, c in zip(outputs, cut, strict=True):
        if c not in below:
            raise ValueError(
                f"the cost does not depend on the variable {called(z)} of outputs; build the cost from this very "
                "variable, and list outputs that it reads"
            )
    for p in parameters:
        if p in below:
            raise ValueError(
                f"the cost depends on the parameter {called(p)} not through outputs alone; build the cost from the "
                "very variables of outputs, and list the parameter among them if the cost has a penalty on it"
            )
    slopes: Any = pytensor.grad(loss, cut)
    curved: Any = second_derivatives(cut, slopes, vectors, rule)
    return replaced(curved, dict(zip(cut, outputs, strict=True)))


def rows(times: Callable[[Any], Any], size: int, length: int | Variable, dtype: str, needed: Any = TRUE) -> Any:
    """The transpose of the matrix of a linear map: the images of the unit vectors, one after the other.

    Parameters
    ----------
    times : callable
        From a vector to its image. What does not depend on the vector is computed once.
    size, length : int or integer scalar variable
        The numbers of components of a vector and of its image.
    dtype : str
    needed : boolean scalar variable, optional
        Whether to compute the images; else they are zeros.
    """

    # A vectorized graph would be faster, but needs operations that can be vectorized.
    def turn(i: Any, images: Any) -> Any:
        unit = pt.eq(np.arange(size), i).astype(dtype)
        return [i + 1, pt.set_subtensor(images[i], times(unit))], FALSE

    zeros = pt.zeros((size, length), dtype=dtype)
    return repeat(turn, [np.int64(0), zeros], pt.switch(needed, size, 0))[1]


def lacks_gradient(cost: Variable, parameters: Sequence[Any]) -> list[Any]:
    """Those of `parameters` that `cost` depends on and has no gradient with respect to."""

    def lacks(parameter: Any) -> bool:
        try:
            gradient: Any = pytensor.grad(cost, parameter, disconnected_inputs="ignore", return_disconnected="none")
        except (NotImplementedError, NullTypeGradError, TypeError):
            return True
        return gradient is None and parameter in ancestors([cost])

    try:
        found: Any = pytensor.grad(cost, list(parameters), disconnected_inputs="ignore", return_disconnected="none")
        if None not in found:
            return []
    except (NotImplementedError, NullTypeGradError, TypeError):
        pass
    return [parameter for parameter in parameters if lacks(parameter)]
