# ruff: noqa: T201
"""The NumPy interface beside SciPy's L-BFGS-B, on the same functions in one run.

    python tests/benchmarks/numpy_interface.py [--numba]

Times to the first result are those of the call, in a fresh process with empty compilation caches: by the clock, and of
the processor. Times per iteration are of the processor, the best of several minimizations, ours and SciPy's in turn.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.optimize

import optapi


FIRST = """
import json, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
began = time.perf_counter()
import {module}
from numpy_functions import START, rosenbrock, slope
imported, busy = time.perf_counter(), time.process_time()
{call}
print(json.dumps([imported - began, time.perf_counter() - imported, time.process_time() - busy]))
"""
OURS = "optapi.minimize(START, rosenbrock, slope, optapi.{rule}, max_iterations=300)"
ALONE = "optapi.minimize(START, rosenbrock)"
SCIPYS = "scipy.optimize.minimize(rosenbrock, START, jac=slope, method='L-BFGS-B')"
ITERATIONS = 25
OPTIONS = {"gtol": 1e-5, "ftol": 0.0, "maxiter": 10_000, "maxfun": 10_000}


def first_result(module: str, call: str) -> tuple[float, ...]:
    """The seconds that an import takes, and a first call by the clock and of the processor."""
    with tempfile.TemporaryDirectory() as caches:
        flags = os.environ.get("PYTENSOR_FLAGS", "")
        environment = {
            **os.environ,
            "PYTENSOR_FLAGS": f"{flags},base_compiledir={caches}".strip(","),
            "NUMBA_CACHE_DIR": caches,
            "PYTHONPATH": str(Path(optapi.__file__).parent.parent),
        }
        code = FIRST.format(module=module, call=call)
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return tuple(json.loads(output))


def per_iteration(f, df, start, repeats: int, mode=None) -> dict[str, float]:
    """The best time of an iteration, and the numbers of iterations and calls, ours and SciPy's.

    Without `df` of both by differences, for `ITERATIONS`.
    """
    alone = {} if df else {"max_iterations": ITERATIONS}
    options = OPTIONS if df else {**OPTIONS, "maxiter": ITERATIONS}
    best = {"ours": np.inf, "scipy": np.inf}
    optapi.minimize(start, f, df or "2-point", optapi.lbfgs, mode=mode, max_iterations=2)
    for _ in range(repeats):
        began = time.process_time()
        ours = optapi.minimize(start, f, df or "2-point", optapi.lbfgs, mode=mode, full_output=True, **alone)
        best["ours"] = min(best["ours"], (time.process_time() - began) / ours.nit)
        began = time.process_time()
        theirs = scipy.optimize.minimize(f, start, jac=df, method="L-BFGS-B", options=options)
        best["scipy"] = min(best["scipy"], (time.process_time() - began) / theirs.nit)
    assert ours.success or alone, ours.message
    return {**best, "nit": ours.nit, "nfev": ours.nfev, "scipy nit": theirs.nit, "scipy nfev": theirs.nfev}


def four(x):
    """The Rosenbrock function of four components in numbers of Python, which costs a microsecond."""
    a, b, c, d = x.tolist()
    return 100 * ((b - a * a) ** 2 + (c - b * b) ** 2 + (d - c * c) ** 2) + (1 - a) ** 2 + (1 - b) ** 2 + (1 - c) ** 2


def slow(function, seconds: float):
    """`function`, which takes `seconds` longer."""

    def slowed(x):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return function(x)

    return slowed


def report(label: str, found: dict[str, float], limit: float) -> None:
    print(
        f"{label:34} {found['ours'] * 1e6:8.0f} us  SciPy {found['scipy'] * 1e6:7.0f} us  "
        f"ratio {found['ours'] / found['scipy']:5.2f} (at most {limit})  "
        f"iterations {found['nit']}/{found['scipy nit']}, calls {found['nfev']}/{found['scipy nfev']}"
    )


def show(label: str, imported: float, called: float, busy: float) -> None:
    print(f"    {label:8} {called:6.2f} s, of the processor {busy:.2f} s, after an import of {imported:.2f} s")


def main() -> None:
    from numpy_functions import START, rosenbrock, slope

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numba", action="store_true", help="also under numba, which compiles for half a minute")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()

    print("first result, fresh process, empty caches (at most 1 s):")
    for rule in ("lbfgs", "adam"):
        show(rule, *first_result("optapi", OURS.format(rule=rule)))
    show("no df", *first_result("optapi", ALONE))
    show("SciPy", *first_result("scipy.optimize", SCIPYS))

    print(f"per iteration of lbfgs, Rosenbrock function of {START.size} components:")
    report("    f and df cost nothing", per_iteration(rosenbrock, slope, START, arguments.repeats), 10)
    slowed = slow(rosenbrock, 1e-3), slow(slope, 1e-3)
    report("    f and df cost 1 ms each", per_iteration(*slowed, START, 2), 1.2)
    print(f"by differences, {ITERATIONS} iterations with all that goes before them (at most 3):")
    report("    four components, in Python", per_iteration(four, None, START[:4], arguments.repeats), 3)
    report(f"    {START.size} components, in NumPy", per_iteration(rosenbrock, None, START, arguments.repeats), 3)
    if arguments.numba:
        began = time.perf_counter()
        optapi.minimize(START, rosenbrock, slope, optapi.lbfgs, mode="NUMBA", max_iterations=1)
        print(f"    numba compiled for {time.perf_counter() - began:.0f} s")
        report("    under numba", per_iteration(rosenbrock, slope, START, arguments.repeats, "NUMBA"), 2)


if __name__ == "__main__":
    main()
