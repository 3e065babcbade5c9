"""Variables replaced in graphs: the same as PyTensor's `graph_replace`, in linear time."""

import numpy as np
import pytensor.tensor as pt
import pytest
from pytensor.graph.basic import equal_computations
from pytensor.graph.replace import graph_replace

from optapi.graph.replace import replaced


def test_it_does_what_pytensor_does():
    x, y, z = pt.dvector("x", shape=(3,)), pt.dvector("y", shape=(3,)), pt.dscalar("z")
    a = pt.exp(x) * z
    b = pt.sum(a + y)
    outputs = [b, a, x, pt.stack([b, z]), y]
    for replacements in ({x: y + 1}, {a: y}, {a: x * 2, x: y}, {z: pt.constant(np.float64(2.0))}, {b: z}, {}):
        expected = graph_replace(outputs, replacements, strict=False)
        assert equal_computations(replaced(outputs, replacements), expected)


def test_what_does_not_depend_on_them_is_shared():
    x, y = pt.dscalar("x"), pt.dscalar("y")
    shared = pt.exp(y)
    [new] = replaced([x * shared], {x: y})
    assert new.owner.inputs[1] is shared


def test_another_type_is_refused():
    x = pt.dvector("x")
    with pytest.raises(TypeError, match="Cannot convert"):
        replaced([x + 1], {x: pt.constant(np.zeros((2, 2)))})
