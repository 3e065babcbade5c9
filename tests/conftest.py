import gc

import pytensor
import pytest

from optapi.graph.numpy_linker import PYTHON


# Graphs are many small objects that live long: to look through them so often takes a twentieth of the time.
gc.set_threshold(200_000, 20, 20)
# Nor need each variable know the line that made it.
pytensor.config.traceback__limit = 0


@pytest.fixture
def compiled():
    """`pytensor.function` in pure Python, of updates alone."""
    return lambda updates, inputs=(), outputs=(): pytensor.function(
        list(inputs), list(outputs), updates=updates, mode=PYTHON
    )
