# ruff: noqa: T201
"""Costs over partitions: what engines cost, how much memory a file takes, and a logistic regression beside others.

    python tests/benchmarks/partitions.py --output docs/partitions_times.md

needs scikit-learn, and dask for its rows. Times are by the clock, the best of several, with one thread for each worker;
on two cores that nothing else uses.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import scipy.optimize

import optapi
from optapi.distributed import Partitions, chunks, dask_engine


ROWS, COLUMNS, PARTS = 2_000_000, 20, 8
INTRODUCTION = f"""# Partitions of data, measured

`python tests/benchmarks/partitions.py --output docs/partitions_times.md` writes this page. A logistic regression of
{ROWS:,} rows and {COLUMNS} columns, float64, in {PARTS} partitions, compiled by numba, on two cores.
"""


def data(rows):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, COLUMNS)) * np.logspace(0, 1, COLUMNS)[::-1] / 3
    truth = rng.normal(size=COLUMNS)
    return X, (rng.random(rows) < 1 / (1 + np.exp(-(X @ truth) / 5))).astype(float)


def made(X, y, engine=None, group=1, rows=None):
    w, x, t = pt.tensor("w", shape=(COLUMNS,)), pt.matrix("x"), pt.vector("t")
    z = x @ w
    parts = chunks((X, y), rows or -(-len(X) // PARTS))
    if not isinstance(X, np.memmap):
        parts = [read() for read in parts]
    return Partitions([w], pt.sum(pt.softplus(z) - t * z), [x, t], parts, engine, weight=1 / len(X), group=group,
                      mode="NUMBA")  # fmt: skip


def best(call, times=7):
    call()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return min(spent) * 1e3, float(np.median(spent)) * 1e3


def engines(X, y, folder):
    """Lines on an evaluation by each engine: of all data, and of eight rows, which is what the engine costs."""
    np.save(folder / "X.npy", X), np.save(folder / "y.npy", y)
    mapped = tuple(np.load(folder / name, mmap_mode="r") for name in ("X.npy", "y.npy"))
    point = np.full(COLUMNS, 0.01)
    kinds = {"in process": (None, 1, False), "2 threads": (2, 1, False)}
    kinds["2 processes"] = (lambda: ProcessPoolExecutor(2), PARTS // 2, True)
    client = None
    if find_spec("distributed"):
        from distributed import Client, LocalCluster

        client = Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"))
        kinds["dask, 2 workers"] = (dask_engine(client), PARTS // 2, True)
    alone, bits = None, None
    for name, (engine, group, files) in kinds.items():
        f = made(*(mapped if files else (X, y)), engine, group)
        value, slope = f(point)
        bits = (value, slope) if bits is None else bits
        same = value == bits[0] and np.array_equal(slope, bits[1])
        least, middle = best(lambda f=f: f(point))
        alone = least if alone is None else alone
        small = made(X[:PARTS], y[:PARTS], engine if not callable(engine) else None, group)
        cost = best(lambda f=small: f(point), 30)
        share = "" if name == "in process" else f"{alone / least / 2:.0%}"
        own = "" if callable(engine) else f"{cost[0]:.2f} / {cost[1]:.2f}"
        yield f"| {name} | {least:.0f} / {middle:.0f} | {share} | {own} | {'yes' if same else 'no'} |"
    if client is not None:
        client.close()


def streaming(folder):
    """A line on a pass over a file that is larger than what is held of it."""
    rows, chunk = 8_000_000, 250_000
    X = np.lib.format.open_memmap(folder / "large.npy", "w+", "float64", (rows, COLUMNS))
    y = np.lib.format.open_memmap(folder / "labels.npy", "w+", "float64", (rows,))
    for begin in range(0, rows, chunk):
        X[begin : begin + chunk], y[begin : begin + chunk] = data(chunk)
    X.flush(), y.flush()
    del X, y
    gc.collect()
    sys.stdout.flush()
    reader, writer = os.pipe()
    if os.fork() == 0:  # the peak of a process of its own
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        mapped = tuple(np.load(folder / name, mmap_mode="r") for name in ("large.npy", "labels.npy"))
        f = made(*mapped, rows=chunk)
        least, _ = best(lambda: f(np.full(COLUMNS, 0.01)), 3)
        held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(writer, f"{least} {held}".encode())
        os._exit(0)
    os.wait()
    least, held = map(float, os.read(reader, 100).split())
    size = rows * (COLUMNS + 1) * 8 / 2**20
    return (
        f"A file of {size:.0f} MiB, mapped, in chunks of {chunk * (COLUMNS + 1) * 8 / 2**20:.0f} MiB, in process: "
        f"{least / 1e3:.2f} s for an evaluation, {size / least * 1e3:.0f} MiB/s, with at most {held:.0f} MiB more than "
        "before, of which the file itself may be a part."
    )


def regressions(X, y):
    """Lines on whole minimizations, of the mean cost without a penalty."""
    lowest = None
    f = made(X, y)
    f(np.zeros(COLUMNS)), f.product(np.zeros(COLUMNS), np.ones(COLUMNS))
    whole = f.__call__
    cases = {}
    for rule in ("lbfgs", "newton_cg"):
        for scale in (None, "curvature"):
            options = {} if scale is None else {"x_scale": scale}
            label = f"`{rule}`{'' if scale is None else ', scaled'}"

            def ours(rule=rule, options=options):
                result = optapi.minimize(np.zeros(COLUMNS), f, opt_algo=rule, full_output=True, **options)
                return result.x, result.nfev, result.nhev

            cases[f"optapi, {label}"] = ours

    def scipys():
        result = scipy.optimize.minimize(whole, np.zeros(COLUMNS), jac=True, method="L-BFGS-B", options={"gtol": 1e-5})
        return result.x, result.nfev, 0

    cases["SciPy, L-BFGS-B, on the same function"] = scipys
    if find_spec("sklearn"):
        from sklearn.linear_model import LogisticRegression

        for solver in ("lbfgs", "newton-cg", "newton-cholesky", "sag"):

            def sklearns(solver=solver):
                model = LogisticRegression(C=np.inf, fit_intercept=False, solver=solver, tol=1e-5, max_iter=1000)
                model.fit(X, y)
                return model.coef_[0], int(model.n_iter_[0]), 0

            cases[f"scikit-learn, {solver} (iterations)"] = sklearns
    rows = []
    for name, call in cases.items():
        began = time.perf_counter()
        x, evaluations, products = call()
        rows.append((name, time.perf_counter() - began, evaluations, products, f(x)[0]))
    lowest = min(row[-1] for row in rows)
    for name, seconds, evaluations, products, cost in rows:
        yield f"| {name} | {seconds:.1f} | {evaluations} | {products or ''} | {cost / lowest - 1:.0e} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    X, y = data(ROWS)
    lines = [INTRODUCTION, "## Engines", ""]
    lines += [
        "An evaluation of the cost and its gradient, in milliseconds, least and median; the share of twice the speed"
    ]
    lines += ["of one process; and what the engine itself takes, with a row in each partition.", ""]
    lines += ["| engine | all data | efficiency | eight rows | same bits |", "|---|--:|--:|--:|---|"]
    with tempfile.TemporaryDirectory() as name:
        for line in engines(X, y, Path(name)):
            print(line, flush=True)
            lines.append(line)
        lines += ["", "## A file larger than what is held of it", "", streaming(Path(name)), ""]
        print(lines[-2], flush=True)
    lines += [
        "## The regression",
        "",
        "From zero, in process, to a tolerance of 1e-5; the cost at the end above the lowest,",
    ]
    lines += ['relative. Scaled is `x_scale="curvature"`, whose products count.', ""]
    lines += ["| | s | gradients | products | cost |", "|---|--:|--:|--:|--:|"]
    for line in regressions(X, y):
        print(line, flush=True)
        lines.append(line)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
