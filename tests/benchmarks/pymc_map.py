"""Maxima of PyMC models by several programs, a process and an empty cache for each: ``pymc_map.py [--write] [models]``.

Cold is the processor time of a first fit, from the model to the result; warm that of one more, which is a run of what
is compiled for optapi, and another call for the others. With ``--write`` the table goes to ``docs/pymc_models.md``.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path


FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "pymc_models.md"
# What runs: a rule of optapi and its backend, or another program.
PROGRAMS = ["optapi lbfgs python", "optapi trust_region_cg python", "optapi lbfgs jax", "pm", "pymc_extras"]
TITLES = {"pm": "pm.find_MAP", "pymc_extras": "pymc-extras find_MAP (JAX)"}


def measured(program, name):
    """The numbers of one program on one model, in this process."""
    sys.path.insert(0, str(FOLDER.parent))
    warnings.simplefilter("ignore")
    logging.getLogger("pymc").setLevel(logging.ERROR)
    import numpy as np
    import pymc as pm
    from pymc_models import MODELS

    import optapi.pymc

    model = MODELS[name]()
    started = time.process_time()
    if program.startswith("optapi"):
        _, rule, backend = program.split()
        fit = optapi.pymc.compile_MAP(rule, model=model, backend=backend)
        result = fit()
        cold = time.process_time() - started
        warm = min(timed(fit) for _ in range(3))
        return {"cold": cold, "warm": warm, "nfev": result.nfev, "logp": -result.fun, "status": result.status,
                "gradient": max(float(np.max(np.abs(g))) for g in result.jac)}  # fmt: skip
    if program == "pm":
        options = {"return_inferencedata": True, "jitter": False} if pm.__version__ >= "6.4" else {"return_raw": True}
        call = lambda: pm.find_MAP(model=model, progressbar=False, **options)  # noqa: E731
    else:
        from pymc_extras import find_MAP

        call = lambda: find_MAP(  # noqa: E731
            model=model, progressbar=False, random_seed=0, jitter_rvs=[], compile_kwargs={"mode": "JAX"}
        )
    found = call()
    cold = time.process_time() - started
    result = found[1] if isinstance(found, tuple) else found["optimizer_result"]
    return {"cold": cold, "warm": timed(call), "nfev": int(result["nfev"]), "logp": -float(result["fun"]),
            "status": int(result["status"]), "gradient": float(np.max(np.abs(np.asarray(result["jac"]))))}  # fmt: skip


def timed(call):
    """The processor time of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def row(program, name):
    """The numbers of one program on one model, in a process of its own with empty caches."""
    with tempfile.TemporaryDirectory() as cache:
        flags = {"PYTENSOR_FLAGS": f"base_compiledir={cache}", "NUMBA_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--one", program, name]
        done = subprocess.run(command, env={**os.environ, **flags}, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(measured(*arguments.one)) + "\n")
        return
    sys.path.insert(0, str(FOLDER.parent))
    import numpy as np
    import pymc as pm
    from pymc_models import MODELS

    lines = ["| model | program | cold s | warm ms | evaluations | log density | largest gradient | status |",
             "|---|---|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    colds = {program: {} for program in PROGRAMS}
    for name in arguments.names or MODELS:
        for program in PROGRAMS:
            found = row(program, name)
            title = TITLES.get(program, program)
            if "error" in found:
                lines.append(f"| {name} | {title} | {found['error'][:60]} | | | | | |")
            else:
                colds[program][name] = found["cold"]
                numbers = f"{found['cold']:.1f} | {1e3 * found['warm']:.1f} | {found['nfev']} | {found['logp']:.5f}"
                lines.append(f"| {name} | {title} | {numbers} | {found['gradient']:.1g} | {found['status']} |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    others = colds["pymc_extras"]
    ratios = [np.log(colds[PROGRAMS[0]][n] / t) for n, t in others.items() if n in colds[PROGRAMS[0]]]
    said = f"Cold, {PROGRAMS[0]} takes {np.exp(np.mean(ratios)):.2f} times as long as pymc-extras." if ratios else ""
    sys.stdout.write(said + "\n")
    if arguments.write:
        by = f"By `tests/benchmarks/pymc_map.py`, with PyMC {pm.__version__}, in one run."
        head = f"# PyMC models: timings\n\n{by} {' '.join(__doc__.split(chr(10) * 2)[1].split('With')[0].split())}"
        PAGE.write_text("\n\n".join([head, "\n".join(lines), said]) + "\n")


if __name__ == "__main__":
    main()
