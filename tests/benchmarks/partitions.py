# ruff: noqa: T201
"""Costs over partitions: what engines cost, how much memory a file takes, and a logistic regression beside others.

    python tests/benchmarks/partitions.py --output docs/partitions_times.md --dask-ml other/bin/python

needs scikit-learn, dask for its rows, and for the row of dask-ml the interpreter of an environment that has it. Times
are by the clock, the best of several, with one thread for each worker; on two cores that nothing else uses.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import scipy.optimize

import optapi
from optapi.distributed import Partitions, chunks, dask_engine


ROWS, COLUMNS, PARTS = 2_000_000, 20, 8
ROUNDS = 3
# Of the file of 2 GiB, and of one of its chunks.
MANY, CHUNK = 12_800_000, 200_000
POINT = np.full(COLUMNS, 0.01)
# See the notes of `dask_engine`.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
KEEPING = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(THREADS, 1)}
INTRODUCTION = f"""# Partitions of data, measured

`python tests/benchmarks/partitions.py --output docs/partitions_times.md --dask-ml other/bin/python` writes this page. A
logistic regression with {COLUMNS} columns, float64, compiled by numba, on two cores, each worker with one thread. When
it began, other programs kept {os.getloadavg()[0]:.1f} processes busy. Only if they are none do times by the clock and
the efficiency by it count; what is by the processor changes little with them.
"""
ENGINES = """An evaluation of the cost and its gradient, in milliseconds: by the clock, least and median, and what all
processes take of processors; the least of three rounds, in turns. Efficiency is the share of twice the speed of one
process, by the least; by the processor, what one process takes of what all do. Two threads without an engine evaluate
half of the partitions each and meet: the most that this machine gives. For {rows} rows the time of an evaluation of
{parts} rows, one in each partition, is what the engine itself takes. Workers keep the memory of one evaluation for the
next, as the notes of `dask_engine` say; without that setting those of dask take a fifth longer.
"""
STREAMING = """The same file of {size:.0f} MiB, in chunks of {chunk:.0f} MiB, in a process of its own: mapped, and then
read into memory, in turns, least of {times}. Memory is the highest of the process without what is mapped of files
(RssAnon), sampled while it evaluates.
"""
REGRESSION = f"""{ROWS:,} rows, from zero, in process but where it says threads, to a tolerance of 1e-5; the cost at the
end above the lowest, relative. Scaled is `x_scale="curvature"`, whose products count. dask-ml is dask-glm's L-BFGS on
SciPy's, which standardizes columns; with SciPy 1.18 it raises, and runs here without the argument that it passes too
much.
"""


def data(rows, seed=0):
    rng, truth = np.random.default_rng(seed), np.random.default_rng(1).normal(size=COLUMNS)
    X = rng.normal(size=(rows, COLUMNS)) * np.logspace(0, 1, COLUMNS)[::-1] / 3
    return X, (rng.random(rows) < 1 / (1 + np.exp(-(X @ truth) / 5))).astype(float)


def write(folder, rows, chunk):
    """Files of so many rows, mapped."""
    files = [np.lib.format.open_memmap(folder / f"{name}{rows}.npy", "w+", "float64", shape)
             for name, shape in (("X", (rows, COLUMNS)), ("y", (rows,)))]  # fmt: skip
    for begin in range(0, rows, chunk):
        part = slice(begin, begin + chunk)
        files[0][part], files[1][part] = data(min(chunk, rows - begin), begin)
    for file in files:
        file.flush()
    return mapped(folder, rows)


def mapped(folder, rows):
    return tuple(np.load(folder / f"{name}{rows}.npy", mmap_mode="r") for name in "Xy")


def made(parts, rows, engine=None, group=1):
    w, x, t = pt.tensor("w", shape=(COLUMNS,)), pt.matrix("x"), pt.vector("t")
    z = x @ w
    return Partitions([w], pt.sum(pt.softplus(z) - t * z), [x, t], parts, engine, weight=1 / rows, group=group,
                      mode="NUMBA")  # fmt: skip


def spent(call):
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def best(call, times=7):
    call()
    found = [spent(call) for _ in range(times)]
    return min(found), float(np.median(found))


def processors():
    """What this process and those below it have taken of processors so far, in seconds."""
    facts = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        facts[int(file.parent.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    mine = {os.getpid()}
    while more := {pid for pid, (parent, _) in facts.items() if parent in mine} - mine:
        mine |= more
    return sum(facts[pid][1] for pid in mine)


def engines(files, chunk, client):
    """Lines on an evaluation by each engine."""
    rows = len(files[0])
    parts = chunks(files, chunk)
    half = len(parts) // 2
    kinds = {"in process": (None, 1), "2 threads": (2, 1)}
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    kinds["2 processes"] = (pool, half)
    if client is not None:
        kinds["dask, 2 workers"] = (dask_engine(client), half)
    found = {name: made(parts, rows, engine, group) for name, (engine, group) in kinds.items()}
    value, slope = found["in process"](POINT)
    same = {name: value == f(POINT)[0] and np.array_equal(slope, f(POINT)[1]) for name, f in found.items()}
    apart = [made(some, rows) for some in (parts[:half], parts[half:])]
    calls = {name: partial(f, POINT) for name, f in found.items()}
    with Meeting([partial(f, POINT) for f in apart]) as meeting:
        calls["two threads without an engine"] = meeting.call
        times = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                call()
                before = processors()
                clocks = [spent(call) for _ in range(10)]
                times[name].append((min(clocks), float(np.median(clocks)), (processors() - before) * 1e2))
    alone = smallest(times["in process"])
    for name, some in times.items():
        least, middle, taken = smallest(some)
        share = " | " if name == "in process" else f"{alone[0] / least / 2:.0%} | {alone[2] / taken:.0%}"
        own = ""
        if rows == ROWS and name in kinds:
            few = [tuple(file[k : k + 1] for file in files) for k in range(len(parts))]
            f = made([(np.array(x), np.array(t)) for x, t in few], rows, *kinds[name])
            least_own, middle_own = best(partial(f, POINT), 30)
            own = f"{least_own:.2f} / {middle_own:.2f}"
        line = [name, f"{least:.0f} / {middle:.0f}", f"{taken:.0f}", share, own]
        yield f"| {' | '.join([*line, 'yes' if same.get(name) else 'no' if name in same else ''])} |"
    pool.shutdown()


class Meeting:
    """Threads that each call a function of its own, all at the same time: what the machine gives to two."""

    def __init__(self, calls):
        self.barrier, self.ended = threading.Barrier(len(calls) + 1), False
        for call in calls:
            threading.Thread(target=self.work, args=(call,), daemon=True).start()

    def work(self, call):
        while True:
            self.barrier.wait()
            if self.ended:
                return
            call()
            self.barrier.wait()

    def call(self):
        self.barrier.wait()
        self.barrier.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True
        self.barrier.wait()


class Anonymous(threading.Thread):
    """The highest memory of this process that is not of files, in MiB, from when it starts to when it is asked for."""

    def __init__(self):
        super().__init__(daemon=True)
        self.highest, self.ended = 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.002):
            held = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
            self.highest = max(self.highest, int(held) / 1024)

    def end(self):
        self.ended.set()
        self.join()
        return self.highest


def stream(folder, times=7):
    """In a process of its own: memory and times of evaluations of what is mapped, beside the same in memory."""
    watch = Anonymous()
    parts = chunks(mapped(folder, MANY), CHUNK)
    streamed = made(parts, MANY)
    best(lambda: streamed(POINT), 2)
    highest = watch.end()
    kept = made([tuple(np.array(array) for array in read()) for read in parts], MANY)
    best(lambda: kept(POINT), 1)
    rows = []
    for _ in range(times):
        for f in (streamed, kept):
            began = time.process_time()
            clock = spent(lambda f=f: f(POINT))
            rows.append((clock, (time.process_time() - began) * 1e3))
    print(
        json.dumps({"highest": highest, "times": times, "mapped": smallest(rows[::2]), "memory": smallest(rows[1::2])})
    )


def smallest(rows):
    return [min(column) for column in zip(*rows, strict=True)]


def streaming(folder):
    done = subprocess.run([sys.executable, __file__, "--stream", folder], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    size, chunk = (rows * (COLUMNS + 1) * 8 / 2**20 for rows in (MANY, CHUNK))
    yield STREAMING.format(size=size, chunk=chunk, times=found["times"])
    yield "| | clock, ms | processor, ms | MiB/s | speed | by the processor | memory, MiB |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name in ("mapped", "memory"):
        (clock, processor), (full, fully) = found[name], found["memory"]
        line = [name, f"{clock:.0f}", f"{processor:.0f}", f"{size / clock * 1e3:.0f}", f"{full / clock:.0%}"]
        line += [f"{fully / processor:.0%}", f"{found['highest']:.0f}" if name == "mapped" else ""]
        yield f"| {' | '.join(line)} |"


# dask-glm calls a function of SciPy with an argument that is not there any more.
DASK_ML = """
import json, sys, time
import dask.array, numpy as np
from dask_glm import algorithms
from dask_ml.linear_model import LogisticRegression
folder, rows, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
scipys, calls = algorithms.fmin_l_bfgs_b, []
def called(*arguments, iprint=None, **options):
    found = scipys(*arguments, **options)
    calls.append(found[2]["funcalls"])
    return found
algorithms.fmin_l_bfgs_b = called
X, y = (dask.array.from_array(np.load(f"{folder}/{name}{rows}.npy"), chunks=(rows // parts, -1)[:ndim])
        for name, ndim in (("X", 2), ("y", 1)))
model = LogisticRegression(solver="lbfgs", C=1e12, fit_intercept=False, tol=1e-5, max_iter=1000)
began = time.perf_counter()
model.fit(X, y)
seconds = time.perf_counter() - began
print(json.dumps({"x": model.coef_.ravel().tolist(), "seconds": seconds, "evaluations": sum(calls)}))
"""


def regressions(folder, dask_ml):
    """Lines on whole minimizations, of the mean cost without a penalty."""
    X, y = (np.array(file) for file in mapped(folder, ROWS))
    parts = [read() for read in chunks((X, y), ROWS // PARTS)]
    f, threads = made(parts, ROWS), made(parts, ROWS, 2)
    cases = {}
    for rule, cost in (("lbfgs", f), ("newton_cg", f), ("lbfgs", threads)):
        cost(np.zeros(COLUMNS)), cost.product(np.zeros(COLUMNS), np.ones(COLUMNS))
        for scale in (None, "curvature"):
            options = {} if scale is None else {"x_scale": scale}
            label = f"`{rule}`{'' if scale is None else ', scaled'}{'' if cost is f else ', 2 threads'}"

            def ours(rule=rule, options=options, cost=cost):
                result = optapi.minimize(np.zeros(COLUMNS), cost, opt_algo=rule, full_output=True, **options)
                return result.x, result.nfev, result.nhev

            cases[f"optapi, {label}"] = ours

    def scipys():
        result = scipy.optimize.minimize(f, np.zeros(COLUMNS), jac=True, method="L-BFGS-B", options={"gtol": 1e-5})
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
    if dask_ml is not None:
        program = [dask_ml, "-W", "ignore", "-c", DASK_ML, folder, str(ROWS), str(PARTS)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(program, check=True, capture_output=True, text=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(
            ("dask-ml, lbfgs, 2 threads", found["seconds"], found["evaluations"], 0, f(np.array(found["x"]))[0])
        )
    lowest = min(row[-1] for row in rows)
    for name, seconds, evaluations, products, cost in rows:
        each = f"{seconds / (evaluations + products) * 1e3:.0f}" if "iterations" not in name else ""
        yield f"| {name} | {seconds:.1f} | {evaluations} | {products or ''} | {each} | {cost / lowest - 1:.0e} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--dask-ml", help="the interpreter of an environment that has dask-ml")
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stream:
        return stream(arguments.stream)
    lines = []

    def say(*some):
        for line in some:
            print(line, flush=True)
            lines.append(line)

    head = "| engine | clock | processors | efficiency | by the processor | {own} | same bits |"
    head += "\n|---|--:|--:|--:|--:|--:|---|"
    with tempfile.TemporaryDirectory() as name:
        folder, client = Path(name), None
        small, large = write(folder, ROWS, ROWS // PARTS), write(folder, MANY, CHUNK)
        say(INTRODUCTION, "## Engines", "", ENGINES.format(rows=f"{ROWS:,}", parts=PARTS))
        if find_spec("distributed"):
            import dask
            from distributed import Client, LocalCluster

            dask.config.set(KEEPING)
            options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
            client = Client(LocalCluster(**options, memory_limit=None))
        for files, chunk in ((small, ROWS // PARTS), (large, CHUNK)):
            size = f"{len(files[0]):,} rows, {len(files[0]) // chunk} partitions of mapped files:"
            say(size, "", head.format(own=f"{PARTS} rows" if files is small else ""))
            say(*engines(files, chunk, client))
            say("")
        if client is not None:
            client.close()
        say("## A file that is larger than what is held of it", "", *streaming(folder), "", "## The regression", "")
        say(REGRESSION)
        say("| | s | gradients | products | ms for each | cost |\n|---|--:|--:|--:|--:|--:|")
        say(*regressions(folder, arguments.dask_ml))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")
    return None


if __name__ == "__main__":
    main()
