"""Numbers in loops under numba: what is written out for them is what PyTensor's functions give."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import PYTHON
from optapi.distributed import free


pytestmark = pytest.mark.numba

OPERATIONS = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "-a": lambda a, b: -a,
    "a**2": lambda a, b: pt.sqr(a),
    "abs(a)": lambda a, b: abs(a),
    "a < b": lambda a, b: pt.lt(a, b),
    "a <= b": lambda a, b: pt.le(a, b),
    "a == b": lambda a, b: pt.eq(a, b),
    "a != b": lambda a, b: pt.neq(a, b),
    "not (a > b)": lambda a, b: ~(a > b),
    "a > 0 and b > 0": lambda a, b: (a > 0) & (b > 0),
    "a > 0 or b > 0": lambda a, b: (a > 0) | (b > 0),
    "a if a > b else b": lambda a, b: pt.switch(a > b, a, b),
}
OF_FLOATS = {
    "a / b": lambda a, b: a / b,
    "sqrt(a)": lambda a, b: pt.sqrt(a),
    "is NaN": lambda a, b: pt.isnan(a),
    "is infinite": lambda a, b: pt.isinf(a),
}
NUMBERS = {
    "float64": [0.0, -0.0, 1.0, -2.5, 1e300, 1e-310, np.inf, -np.inf, np.nan],
    "float32": [0.0, -0.0, 1.0, -2.5, 1e38, np.inf, -np.inf, np.nan],
    "int64": [0, 1, -7, 2**53, -(2**53)],
    "int8": [0, 1, -7, 100, -128],
}


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_in_a_loop(dtype):
    """In a loop of one turn, by numba and in Python, for all pairs; the dtypes are equal, too."""
    operations = OPERATIONS | (OF_FLOATS if dtype.startswith("float") else {})
    a, b = pt.scalar("a", dtype=dtype), pt.scalar("b", dtype=dtype)
    kinds = [operation(a, b) for operation in operations.values()]

    def body(a, b, *_):
        return [a, b, *(operation(a, b) for operation in operations.values())], pt.constant(np.bool_(True))

    outputs = optapi.repeat(body, [a, b, *map(pt.zeros_like, kinds)], 1)[2:]
    functions = [pytensor.function([a, b], outputs, mode=mode) for mode in (PYTHON, "NUMBA")]
    for x in np.array(NUMBERS[dtype], dtype):
        for y in np.array(NUMBERS[dtype], dtype):
            with np.errstate(all="ignore"):
                expected, found = (function(x, y) for function in functions)
            for name, one, other in zip(operations, expected, found, strict=True):
                assert np.asarray(one).dtype == np.asarray(other).dtype, name
                np.testing.assert_array_equal(other, one, err_msg=f"{name} of {x} and {y}")


def test_long_functions_of_elements():
    """Several operations in one, with sums beside them, of float32 and float64."""
    outputs, inputs = [], [pt.vector("x", dtype="float64"), pt.vector("y", dtype="float32")]
    for v in inputs:

        def body(v, total, kept):
            w = pt.switch(v > 0, pt.sqrt(abs(v)) / (1 + v**2), -v * pt.exp(v))
            return [w, total + pt.sum(w), pt.any(pt.isnan(w)) | kept], pt.constant(np.bool_(False))

        outputs += optapi.repeat(body, [v, pt.zeros((), v.type.dtype), pt.constant(np.bool_(False))], 3)
    functions = [pytensor.function(inputs, outputs, mode=mode) for mode in (PYTHON, "NUMBA")]
    x = np.random.default_rng(0).normal(size=50)
    for one, other in zip(*(function(x, x.astype("float32")) for function in functions), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_allclose(other, one, rtol=1e-5 if np.asarray(one).dtype == np.float32 else 1e-12)


EXACT = {  # by the module decimal, with 60 digits
    -800.0: (0.0, 0.0),
    -740.0: (4.2e-322, 4.2e-322),
    -40.0: (4.2483542552915889863e-18, 4.2483542552915889773e-18),
    -1.0: (0.31326168751822283405, 0.26894142136999512075),
    -1e-300: (0.69314718055994530942, 0.5),
    -0.0: (0.69314718055994530942, 0.5),
    0.5: (0.97407698418010668087, 0.62245933120185456464),
    20.0: (20.000000002061153620, 0.99999999793884638183),
    50.0: (50.0, 1.0),
    800.0: (800.0, 1.0),
    np.inf: (np.inf, 1.0),
    -np.inf: (0.0, 0.0),
    np.nan: (np.nan, np.nan),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in others"])
def test_softplus_and_sigmoid(dtype, alone):
    x = pt.vector("x", dtype=dtype)
    outputs = [f(x if alone else 2 * x / 2) for f in (pt.softplus, pt.sigmoid)]
    function = pytensor.function([x], outputs, mode=free("NUMBA"))
    given = np.array(list(EXACT), dtype)
    for found, expected in zip(function(given), np.array(list(EXACT.values())).T, strict=True):
        assert found.dtype == dtype
        info = np.finfo(dtype)
        np.testing.assert_allclose(found, expected, rtol=3 * info.eps, atol=2 * info.smallest_subnormal)


def test_axes_in_another_order():
    """Of arrays that are contiguous and of parts of them, in a loop; what comes out may be written over."""
    x = pt.tensor("x", shape=(3, 4, 1), dtype="float64")

    def body(x):
        views = [
            x.transpose(2, 1, 0),
            x[:, :, 0].T,
            x[:, ::2].transpose(1, 2, 0),
            pt.expand_dims(x[1:, 1:3, 0], (0, 2)),
        ]
        views += [x.T[0, ::-1].T[None], pt.squeeze(x, 2)[:, None]]
        new = x + sum(pt.sum(view * pt.arange(view.size).reshape(view.shape)) for view in views)
        return [pt.set_subtensor(pt.squeeze(new, 2)[0], 7.0).reshape(x.shape)], pt.constant(np.bool_(False))

    functions = [pytensor.function([x], optapi.repeat(body, [x], 2), mode=mode) for mode in (PYTHON, "NUMBA")]
    value = np.random.default_rng(0).normal(size=(3, 4, 1))
    kept = value.copy()
    [one], [other] = (function(value) for function in functions)
    np.testing.assert_allclose(other, one, rtol=1e-12)
    np.testing.assert_array_equal(value, kept)
