"""Functions compiled by numba that let other threads of Python run."""

from __future__ import annotations

from typing import Any

from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker


class FreeNumbaLinker(NumbaLinker):
    """PyTensor's linker for numba, whose functions give up Python's global lock while they run."""

    def jit_compile(self, fn_and_cache: Any) -> Any:
        function, key = fn_and_cache
        if key is not None:
            # Numba's cache does not tell a function with the lock from one without.
            CACHED_SRC_FUNCTIONS[function.py_func] = f"{CACHED_SRC_FUNCTIONS[function.py_func]}free"
        return numba_njit(function.py_func, final_function=True, cache=key is not None, nogil=True)
