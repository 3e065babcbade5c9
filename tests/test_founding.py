"""The examples of the founding document, to the letter."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.basic import equal_computations

from optapi import sgd


@pytest.mark.parametrize("name", ["p", None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [lambda name, dtype: pytensor.shared(np.ones(3, dtype), name=name), pt.vector])
def test_founding_examples(make, name, dtype):
    p = make(name, dtype=dtype) if make is pt.vector else make(name, dtype)
    g = pt.vector("g", dtype=dtype)
    a, b = pytensor.shared(1.0, name="a"), pt.scalar("b")
    step = p - np.asarray(0.1, dtype) * g

    updates = sgd([p], gradients=[g], step_size=0.1)
    assert type(updates) is dict
    assert list(updates) == [p]
    assert equal_computations([updates[p]], [step])

    updates = sgd([p], gradients=[g], updates={a: b}, step_size=0.1)
    assert list(updates) == [a, p]
    assert updates[a] is b
    assert equal_computations([updates[p]], [step])

    taken = {p: b}
    with pytest.raises(KeyError):
        sgd([p], gradients=[g], updates=taken, step_size=0.1)
    assert list(taken.items()) == [(p, b)]
