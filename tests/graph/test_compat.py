"""The PYTHON mode compiles nothing, and gives what other modes give."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


@pytest.fixture
def no_compilers(monkeypatch):
    """Any compilation by numba or by the C linker fails."""
    from numba.core.dispatcher import Dispatcher
    from pytensor.link.c.cmodule import ModuleCache

    def fails(*args, **kwargs):
        raise AssertionError("a compiler was called")

    monkeypatch.setattr(Dispatcher, "compile", fails)
    monkeypatch.setattr(ModuleCache, "module_from_key", fails)


def test_the_fixture_notices_compilers(no_compilers):
    x = pt.dvector("x")
    for mode in ("NUMBA", "CVM"):
        with pytest.raises(AssertionError, match="a compiler was called"):
            pytensor.function([x], pt.sum(pt.exp(x) * 1.2345678), mode=mode)(np.ones(3))


def test_nothing_is_compiled(no_compilers):
    p, stop = pytensor.shared(np.zeros(3), name="p"), pytensor.shared(0, name="stop")
    wide, stops = pytensor.shared(np.ones((2, 3))), pytensor.shared(np.zeros(2, "int64"))
    updates = optapi.lbfgs([p], pt.sum(pt.exp(p) - 2 * p), stop=stop)
    together = optapi.loop(optapi.batch(updates, {p: wide, stop: stops}), 20, stops)
    pytensor.function([], [], updates=together, mode=optapi.PYTHON)()
    np.testing.assert_allclose(wide.get_value(), np.log(2), rtol=1e-5)


def test_a_softmax(no_compilers):
    """Its inner graph is the one that a rewrite recognizes as a softmax."""
    x = pt.dmatrix("x")
    for function in (pt.special.softmax, pt.special.log_softmax):
        outputs = [function(x, axis=1), pytensor.grad(pt.sum(function(x, axis=1) ** 2), x)]
        run = pytensor.function([x], outputs, mode=optapi.PYTHON)
        assert all(np.all(np.isfinite(value)) for value in run(np.array([[0.0, 0.0], [1.0, 3.0]])))


def test_sums_and_products_of_many_large_arrays():
    """As arrays, not element by element."""
    x = [pt.dvector() for _ in range(4)]
    run = pytensor.function(x, [x[0] + x[1] + x[2] + x[3], x[0] * x[1] * x[2] * x[3]], mode=optapi.PYTHON)
    values = [np.full(100_000, v) for v in (1.0, 2.0, 3.0, 4.0)]
    total, product = run(*values)
    np.testing.assert_array_equal(total, 10.0)
    np.testing.assert_array_equal(product, 24.0)


def test_ops_keep_what_other_modes_compiled():
    """The same node in a function of another mode, before and after."""
    x = pt.dvector("x")
    [value] = optapi.repeat(lambda v: ([2 * v], pt.constant(np.bool_(False))), [x], 3)
    for mode in (optapi.PYTHON, "FAST_COMPILE", optapi.PYTHON):
        np.testing.assert_array_equal(pytensor.function([x], value, mode=mode)(np.ones(2)), 8.0)
