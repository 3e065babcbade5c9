# ruff: noqa: T201
"""How long rules and loops take from the call to the first result: building, rewriting and linking, the first call.

Run by hand: ``python tests/benchmarks/compile_times.py [MODE ...] [RULE ...]``, with modes of PyTensor or ``PYTHON``,
and rules or ``loop(rule)``; by default the list below. Each runs in a process of its own, first with empty caches and
then again. The times are those of the processor, in seconds: they depend less on what else the machine does.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time


MODES = ["PYTHON", "NUMBA", "JAX"]
RULES = ["sgd", "adam", "lbfgs", "loop(adam)", "loop(lbfgs)", "loop(batch(lbfgs))"]
RULES += ["newton_cg", "hessian_free", "tonga"]
# What PyTensor takes for as much as every rule has in it, and for what a cost may have.
ALONE = ["cost and gradient", "product of matrices"]


def measure(mode, what):
    """Print the three times."""
    import numpy as np
    import pytensor
    import pytensor.tensor as pt

    import optapi

    if mode == "PYTHON":
        mode = optapi.PYTHON

    p, stop = pytensor.shared(np.full(10, -1.2), name="p", shape=(10,)), pytensor.shared(0, name="stop")
    cost = pt.sum(100.0 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
    times = [time.process_time()]
    if what == "cost and gradient":
        outputs, updates = [cost, pytensor.grad(cost, p)], {}
    elif what == "product of matrices":
        matrix = pytensor.shared(np.eye(10), shape=(10, 10))
        outputs, updates = [matrix @ (matrix + p)], {}
    else:
        *transforms, rule = what.rstrip(")").split("(")
        outputs, updates = [], getattr(optapi, rule)([p], cost, stop=stop)
        for transform in reversed(transforms):
            if transform == "batch":
                wide = pytensor.shared(np.full((3, 10), -1.2), shape=(3, 10))
                stops = pytensor.shared(np.zeros(3, "int64"), shape=(3,))
                updates, stop = optapi.batch(updates, {p: wide, stop: stops}), stops
            else:
                updates = getattr(optapi, transform)(updates, 1000, stop)
    times.append(time.process_time())
    function = pytensor.function([], outputs, updates=updates, mode=mode)
    times.append(time.process_time())
    function()
    times.append(time.process_time())
    print(*(end - begin for begin, end in itertools.pairwise(times)))


def main(arguments):
    modes = [a for a in arguments if a.isupper()] or MODES
    rules = [a for a in arguments if not a.isupper()] or RULES
    print(f"{'seconds of processor time':40}{'build':>8}{'rewrite':>9}{'call':>8}{'total':>8}{'again':>8}")
    for mode in modes:
        for what in [*ALONE, *rules]:
            with tempfile.TemporaryDirectory() as caches:
                environment = {**os.environ, "PYTENSOR_FLAGS": f"base_compiledir={caches}"}
                runs = []
                for _ in ("cold", "warm"):
                    command = [sys.executable, "-W", "ignore", __file__, "--measure", mode, what]
                    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                    runs.append([float(part) for part in result.stdout.split()] if result.returncode == 0 else None)
            if None in runs:
                print(f"{mode:8}{what:32}{result.stderr.strip().splitlines()[-1][:60]}", flush=True)
                continue
            cold, warm = runs
            columns = "".join(f"{seconds:{width}.2f}" for seconds, width in zip(cold, (8, 9, 8), strict=True))
            print(f"{mode:8}{what:32}{columns}{sum(cold):8.1f}{sum(warm):8.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main(sys.argv[1:])
