import pytest

from optapi.graph.numpy_linker import PYTHON


@pytest.fixture
def compiled():
    """`pytensor.function` in pure Python, of updates alone."""
    import pytensor

    return lambda updates, inputs=(), outputs=(): pytensor.function(
        list(inputs), list(outputs), updates=updates, mode=PYTHON
    )
