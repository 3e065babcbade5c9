"""Random generators as arrays: JAX carries keys, so that there the state of a program is arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pytensor
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.tensor.random.type import RandomType, random_generator_type
from pytensor.tensor.type import TensorType

from ..checks import is_generator
from ..typing import Updates
from .replace import replaced


KEY = TensorType("uint32", shape=(2,))


class FromKey(Op):
    """The generator of a key; there is one under JAX alone."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        [key] = inputs
        return Apply(self, [KEY.filter_variable(key)], [random_generator_type()])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        raise NotImplementedError("a generator is made of a key under JAX alone")


class ToKey(Op):
    """The key of a generator under JAX."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        [generator] = inputs
        if not isinstance(generator.type, RandomType):
            raise TypeError(f"{generator} is no random generator")
        return Apply(self, [generator], [KEY()])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        raise NotImplementedError("a generator has a key under JAX alone")


@_vectorize_node.register(FromKey)
@_vectorize_node.register(ToKey)
def _no_batch(op: Op, node: Apply, *inputs: Any) -> Any:
    raise NotImplementedError("a key cannot have a batch axis, since one generator serves all members")


def key_of(generator: np.random.Generator) -> np.ndarray:
    """A key for JAX, which the state of `generator` determines."""
    digest = sha256(repr(generator.bit_generator.state).encode()).digest()
    return np.frombuffer(digest[:8], "uint32").copy()


def generator_of(key: np.ndarray) -> np.random.Generator:
    """A generator that `key` determines. Its draws are not those of JAX."""
    return np.random.Generator(np.random.PCG64([int(word) for word in key]))


def keyed(updates: Updates) -> tuple[Updates, dict[Any, Any]]:
    """`updates` with keys in the places of generators.

    Returns
    -------
    dict
    dict
        From the generators to the shared variables of their keys.
    """
    keys = {
        g: pytensor.shared(key_of(g.get_value(borrow=True)), name=g.name, shape=(2,))
        for g in updates
        if is_generator(g)
    }
    if not keys:
        return updates, {}
    values = with_keys([ToKey()(new) if v in keys else new for v, new in updates.items()], keys)
    return dict(zip([keys.get(v, v) for v in updates], values, strict=True)), keys


def with_keys(outputs: Sequence[Any], keys: dict[Any, Any]) -> list[Any]:
    """`outputs`, which read keys in the places of generators."""
    return replaced(list(outputs), {g: FromKey()(key) for g, key in keys.items()})
