"""A logistic regression over partitions of a file, on a cluster of dask that this program starts on this machine.

It needs dask: pip install '.[dask]'. Dask's own page, whose address is printed, shows the tasks while it runs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytensor.tensor as pt

import optapi
from optapi.distributed import Partitions, chunks, dask_engine


def write(folder: Path, rows: int, columns: int) -> np.ndarray:
    """Files of data with known weights."""
    rng = np.random.default_rng(0)
    weights, X = rng.normal(size=columns), rng.normal(size=(rows, columns))
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", (rng.random(rows) < 1 / (1 + np.exp(-X @ weights))).astype("float64"))
    return weights


def main(rows: int = 1_000_000, columns: int = 20, mode: str = "NUMBA", dashboard: str | None = ":0") -> Any:
    """Fit the weights on two workers, and print how far they are from those of the data."""
    from distributed import Client, LocalCluster

    w, x, t = pt.tensor("w", shape=(columns,)), pt.matrix("x"), pt.vector("t")
    z = x @ w
    cost = pt.sum(pt.softplus(z) - t * z)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": dashboard, "host": "127.0.0.1"}
    with tempfile.TemporaryDirectory() as name, LocalCluster(**options) as cluster, Client(cluster) as client:
        weights = write(Path(name), rows, columns)
        print(f"dask shows its work at {client.dashboard_link}")
        files = tuple(np.load(Path(name) / file, mmap_mode="r") for file in ("X.npy", "y.npy"))
        data = chunks(files, rows // 8)
        f = Partitions([w], cost, [x, t], data, dask_engine(client), weight=1 / rows, group=4, mode=mode)
        began = time.perf_counter()
        result = optapi.minimize(np.zeros(columns), f, full_output=True)
        print(
            f"{result.nfev} evaluations in {time.perf_counter() - began:.1f} s, with the compilation: {result.message}"
        )
        print(f"the weights are off by at most {abs(result.x - weights).max():.3f}")
    return result


if __name__ == "__main__":
    main()
