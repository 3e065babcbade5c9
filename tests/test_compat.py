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


def test_ops_keep_what_other_modes_compiled():
    """The same node in a function of another mode, before and after."""
    x = pt.dvector("x")
    [value] = optapi.repeat(lambda v: ([2 * v], pt.constant(np.bool_(False))), [x], 3)
    for mode in (optapi.PYTHON, "FAST_COMPILE", optapi.PYTHON):
        np.testing.assert_array_equal(pytensor.function([x], value, mode=mode)(np.ones(2)), 8.0)
