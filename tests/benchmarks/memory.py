# ruff: noqa: T201
"""How much memory rules take at their peak, in vectors of the length of the parameters, and how long building takes.

    python tests/benchmarks/memory.py

What is measured is the resident memory of a process, on Linux, beyond what it has before the calls, and the state. It
includes what the cost, the sum of ``c * (x - 1)**2``, takes itself: some two vectors. What was compiled before counts
not. Building is measured in seconds of the processor, for as many parameters of three components.
"""

import gc
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy.optimize

import optapi


N = 10**6
COUNTS = (50, 100, 200)
LBFGS = {"lbfgs, 3 pairs": partial(optapi.lbfgs, memory=3), "lbfgs, 10 pairs": optapi.lbfgs}
LBFGS["lbfgs, 30 pairs"] = partial(optapi.lbfgs, memory=30)
RULES = {name: getattr(optapi, name) for name in ("sgd", "momentum", "adam", "radam", "rprop", "hager_zhang_cg")}
RULES |= {"barzilai_borwein": optapi.barzilai_borwein, **LBFGS, "newton_cg": optapi.newton_cg}
RULES |= {"trust_region_cg": optapi.trust_region_cg, "hessian_free": optapi.hessian_free}
WAYS = ("PYTHON", "NUMBA", "CVM", "compile_minimizer, PYTHON", "compile_minimizer, NUMBA", "minimize")
# What takes long to compile is measured for some.
SOME = ("sgd", "adam", "lbfgs, 10 pairs")


def mode_of(way):
    return optapi.PYTHON if way.endswith("PYTHON") else way.rpartition(" ")[2]


def resident(name):
    """Bytes of memory in which the process is now (VmRSS), or was at the most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def beyond(call):
    """The most memory that `call` takes beyond what there is before it, in vectors."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return (resident("VmHWM") - before) / 8 / N


def problem():
    x, c = (pytensor.shared(value, name=name, shape=(N,)) for name, value in zip("xc", start(), strict=True))
    return x, pt.sum(c * (x - 1) ** 2)


def start():
    return np.zeros(N), np.linspace(1, 2, N)


def vectors(rule, way):
    """The vectors of state, and those at the peak, of one rule in one way to run it."""
    if way == "minimize":
        x0, c = start()
        call = partial(optapi.minimize, x0, lambda x: float(np.dot(c, (x - 1) ** 2)), lambda x: 2 * c * (x - 1), rule)
        call = partial(call, max_iterations=20)
        call()
        return None, beyond(call)
    x, cost = problem()
    if way.startswith("compile_minimizer"):
        minimizer = optapi.compile_minimizer([x], cost, rule, mode=mode_of(way), max_iterations=20)
        # It has been called for no iterations when it was compiled.
        return None, 1 + beyond(minimizer)
    updates = rule([x], cost)
    state = sum(variable.get_value(borrow=True).size for variable in updates) / N
    step = pytensor.function([], [], updates=updates, mode=mode_of(way))
    step()
    return state, state + beyond(lambda: [step() for _ in range(15)])


def scipys():
    """SciPy's L-BFGS-B with 10 pairs."""
    x0, c = start()
    f, df = lambda x: float(np.dot(c, (x - 1) ** 2)), lambda x: 2 * c * (x - 1)
    options = {"maxcor": 10, "maxiter": 20}
    return None, beyond(lambda: scipy.optimize.minimize(f, x0, jac=df, method="L-BFGS-B", options=options))


def building(rule, count):
    """Seconds to build, with PYTHON: a function of the rule, a minimizer; and to build and run three iterations."""

    def parameters():
        shared = [pytensor.shared(np.full(3, i / count), name=f"p{i}", shape=(3,)) for i in range(count)]
        return shared, sum(pt.sum((p - 1) ** 2) for p in shared)

    (ps, cost), stop, times = parameters(), pytensor.shared(0, name="stop"), [time.process_time()]
    pytensor.function([], cost, updates=getattr(optapi, rule)(ps, cost, stop=stop), mode=optapi.PYTHON)
    times.append(time.process_time())
    ps, cost = parameters()
    optapi.compile_minimizer(ps, cost, rule, mode=optapi.PYTHON, max_iterations=3).compile()
    times.append(time.process_time())
    x0 = [np.full(3, float(i)) for i in range(count)]
    f, df = lambda x: sum(np.dot(p - 1, p - 1) for p in x), lambda x: [2 * (p - 1) for p in x]
    optapi.minimize(x0, f, df, rule, max_iterations=3, full_output=True)
    times.append(time.process_time())
    return np.diff(times).tolist()


def in_a_process(*arguments):
    """What this file prints with `arguments`, in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure():
    """What is measured, for the tables."""
    peaks = {"SciPy, L-BFGS-B": {"minimize": in_a_process("scipy", "")}}
    for name in RULES:
        ways = WAYS if name in SOME else ("PYTHON", "minimize")
        peaks[name] = {way: in_a_process("vectors", name, way) for way in ways}
        print(name, peaks[name], file=sys.stderr)
    times = {rule: {n: in_a_process("building", rule, n) for n in COUNTS} for rule in ("adam", "lbfgs")}
    return {"peaks": peaks, "building": times}


def returning():
    """Go on in a process in which the allocator returns all large arrays at once; else it keeps some, and they would
    not be seen when they are used again."""
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def main(what=None, name=None, argument=None):
    if what == "vectors":
        result = vectors(RULES[name], argument)
    elif what == "scipy":
        result = scipys()
    elif what == "building":
        building(name, 3)  # what is imported when it is first used
        result = building(name, int(argument))
    else:
        result = measure()
    print(json.dumps(result))


if __name__ == "__main__":
    returning()
    main(*sys.argv[1:])
