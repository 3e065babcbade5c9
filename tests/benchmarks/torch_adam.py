"""Seconds of an Adam step by PyTorch, its fused form on one thread, as JSON; the cases are those of `tables.py`.

It needs NumPy and torch alone, so that another Python can run it: ``python tests/benchmarks/torch_adam.py``.
"""

import json
import sys
import time

import numpy as np
import torch


def best(step, calls, repeats=5):
    for _ in range(3):
        step()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            step()
        times.append((time.perf_counter() - begin) / calls)
    return min(times)


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    rng = np.random.default_rng(0)
    found = {}

    def timed(name, cost, parameters, calls):
        optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

        def step():
            optimizer.zero_grad()
            cost().backward()
            optimizer.step()

        found[name] = best(step, calls)

    x = rng.normal(size=(200, 20))
    y = (x @ rng.normal(size=20) > 0).astype(float)
    w, x, y = torch.zeros(20, requires_grad=True), torch.tensor(x), torch.tensor(y)
    timed("logistic_regression", lambda: (torch.nn.functional.softplus(x @ w) - y * (x @ w)).mean(), [w], 300)

    x, y = torch.tensor(rng.normal(size=(64, 64))), torch.tensor(rng.integers(0, 10, size=64))
    shapes = (64, 128), (128,), (128, 10), (10,)
    layers = [torch.tensor(rng.normal(scale=0.1, size=shape), requires_grad=True) for shape in shapes]

    def loss():
        scores = torch.tanh(x @ layers[0] + layers[1]) @ layers[2] + layers[3]
        return torch.nn.functional.cross_entropy(scores, y)

    timed("network", loss, layers, 100)

    p = torch.zeros(10_000_000, requires_grad=True)
    p.grad = torch.tensor(rng.normal(size=10_000_000))
    found["ten_million"] = best(torch.optim.Adam([p], lr=1e-3, fused=True).step, 3)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
