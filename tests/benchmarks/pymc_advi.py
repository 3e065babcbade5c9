"""ADVI of PyMC models by `fit_advi` and by ``pm.fit``: ``pymc_advi.py [--write] [models]``.

Processor time of a step by `adam`, in microseconds: that of 1,000,000 steps less that of 10,000, over the difference,
in one process on one thread, after a first fit that has compiled; of ``pm.fit``, which numba compiles by default, of
60,000 steps. All start from the same point with the same step size. With ``--write`` the table goes to
``docs/pymc_advi.md``.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from pathlib import Path


FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "pymc_advi.md"
NAMES = ["eight schools", "poisson", "logistic", "mixture", "diabetes", "iris"]
FEW, MANY = 10_000, {"pm.fit": 60_000}
WAYS = ["pm.fit", "optapi, numba", "optapi, JAX"]


def fitted(way, model, steps):
    """One fit."""
    import pymc as pm

    import optapi.pymc

    if way == "pm.fit":
        rule = pm.adam(learning_rate=1e-3)
        return pm.fit(steps, model=model, obj_optimizer=rule, progressbar=False, random_seed=1)
    options = {"step_size": 1e-3, "backend": way.split()[1].lower(), "progressbar": False, "random_seed": 1}
    return optapi.pymc.fit_advi(steps, "adam", model=model, **options)


def seconds(way, model, steps):
    """The processor time of a fit, and the median of its last 1000 losses."""
    begin = time.process_time()
    fit = fitted(way, model, steps)
    return time.process_time() - begin, float(sorted(fit.hist[-1000:])[500])


def main():
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    sys.path.insert(0, str(FOLDER.parent))
    warnings.simplefilter("ignore")
    logging.getLogger("pymc").setLevel(logging.ERROR)
    import numpy as np
    import pymc as pm
    from pymc_models import MODELS

    lines = ["| model | way | a step, µs | of pm.fit's | 10,000 steps, s | loss then |"]
    lines.append("|---|---|--:|--:|--:|--:|")
    ratios = {way: [] for way in WAYS}
    for name in arguments.names or NAMES:
        model, beside = MODELS[name](), None
        for way in WAYS:
            fitted(way, model, 10)
            steps = MANY.get(way, 1_000_000)
            (few, loss), (many, _) = seconds(way, model, FEW), seconds(way, model, steps)
            step = (many - few) / (steps - FEW)
            beside = step if beside is None else beside
            ratios[way].append(beside / step)
            lines.append(f"| {name} | {way} | {1e6 * step:.1f} | {step / beside:.2f} | {few:.1f} | {loss:.2f} |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    means = ", ".join(f"{way} {np.exp(np.mean(np.log(ratios[way]))):.1f}" for way in WAYS[1:])
    said = f"How many times faster a step is than that of `pm.fit`, geometric means: {means}."
    sys.stdout.write(said + "\n")
    if arguments.write:
        by = f"By `tests/benchmarks/pymc_advi.py`, with PyMC {pm.__version__}, in one run."
        about = " ".join(__doc__.split("\n\n")[1].split(" With ``--write``")[0].split()).replace("``", "`")
        PAGE.write_text("\n\n".join(["# ADVI of PyMC models: timings", f"{by} {about}", "\n".join(lines), said]) + "\n")


if __name__ == "__main__":
    main()
