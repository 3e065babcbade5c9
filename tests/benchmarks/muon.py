# ruff: noqa: T201
"""Processor time of a step of Muon on a matrix of 512 x 512 in float32, beside those of PyTorch and optax.

    OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \\
        python tests/benchmarks/muon.py [rounds] [size]

All have five turns of Newton-Schulz in float32; PyTorch's, which takes bfloat16, is measured as it is too. The
contenders take turns, and what counts is the median of the ratios within a round. Those that are not installed are left
out. Four products of matrices that a turn cannot do without, by NumPy, are the measure of the machine.
"""

import statistics
import sys
import time
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytensor

import optapi


def made(size):
    """A matrix and a gradient."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(size, size)).astype("float32") for _ in range(2)]


def ours(size, mode):
    start, slope = made(size)
    W, g = pytensor.shared(start, name="W", shape=start.shape), pytensor.shared(slope, name="g", shape=slope.shape)
    step = pytensor.function([], [], updates=optapi.muon([W], gradients=[g], step_size=1e-3), mode=mode)
    step.trust_input = True

    def call():
        step()
        if mode == "JAX":
            np.asarray(W.get_value(borrow=True))

    return call, lambda: W.get_value()


def torchs(size, *, narrow):
    import torch

    torch.set_num_threads(1)
    start, slope = made(size)
    W = torch.nn.Parameter(torch.tensor(start))
    W.grad = torch.tensor(slope)
    rule = torch.optim.Muon([W], lr=1e-3, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    cast = torch.Tensor.bfloat16

    def call():
        torch.Tensor.bfloat16 = cast if narrow else (lambda tensor: tensor.clone())
        try:
            rule.step()
        finally:
            torch.Tensor.bfloat16 = cast

    return call, lambda: W.detach().numpy().copy()


def optaxs(size):
    import jax
    import optax

    W, g = map(jax.numpy.asarray, made(size))
    rule = optax.contrib.muon(1e-3, weight_decay=0.1, consistent_rms=0.2)
    state = rule.init(W)

    @jax.jit
    def step(W, state, g):
        updates, state = rule.update(g, state, W)
        return optax.apply_updates(W, updates), state

    held = [W, state]

    def call():
        held[:] = step(*held, g)
        jax.block_until_ready(held[0])

    return call, lambda: np.asarray(held[0])


def products(size):
    """The three products of each of five turns: X X', A A, P X."""
    X = made(size)[0] / size

    def call():
        for _ in range(5):
            A = X @ X.T
            P = A @ A
            P @ X

    return call, None


def main(rounds=15, size=512):
    contenders = {
        "products by NumPy": products,
        "optapi, PYTHON": partial(ours, mode=optapi.PYTHON),
        "optapi, NUMBA": partial(ours, mode="NUMBA"),
    }
    if find_spec("jax"):
        contenders["optapi, JAX"] = partial(ours, mode="JAX")
    if find_spec("optax"):
        contenders["optax"] = optaxs
    if find_spec("torch"):
        contenders["torch, float32"] = partial(torchs, narrow=False)
        contenders["torch, bfloat16"] = partial(torchs, narrow=True)
    calls, points = {}, {}
    for name, make in contenders.items():
        calls[name], point = make(size)
        calls[name]()
        if point is not None:
            points[name] = point()
    for name, point in points.items():
        apart = np.max(np.abs(point - points["optapi, NUMBA"]))
        print(f"{name}: a first step {apart:.1e} from that of optapi, which is of size 2e-04")
    times = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 else -1]:
            began = time.process_time()
            for _ in range(5):
                calls[name]()
            times[name].append((time.process_time() - began) / 5)
    peers = [name for name in ("optax", "torch, float32") if name in times]
    faster = min(peers, key=lambda name: statistics.median(times[name])) if peers else "products by NumPy"
    print(f"{'milliseconds of the processor':30}{'best':>8}{'median':>8}   over {faster}, median")
    for name, found in times.items():
        ratio = statistics.median(one / other for one, other in zip(found, times[faster], strict=True))
        print(f"{name:30}{1e3 * min(found):8.1f}{1e3 * statistics.median(found):8.1f}{ratio:10.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
