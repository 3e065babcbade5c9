# ruff: noqa: T201
"""Solutions with derivatives, beside PyTensor's own, jaxopt and optimistix, written to a page.

    python tests/benchmarks/solutions.py [--peers PYTHON] [--output docs/solutions_times.md]

Each contender runs in a process of its own, with empty compile directories, on one core: the processor time of
building, compiling and the first call, and the best wall time of a later call. jaxopt and optimistix may be installed
for another Python.
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


RIDGE, SYSTEM = "ridge", "system"
INTRODUCTION = """# Solutions beside other packages

The error of a ridge regression on other data with its derivative by the penalty (60 rows, 8 weights), and a root of 8
equations, $x_i + \\tfrac12 \\sin(x_{i+1}) + \\tfrac1{10} x_i^3 = \\theta_i$, with the derivatives of the sum of its
squares by all $\\theta$. *First* is the processor time of building, compiling and the first call, with nothing in any
cache; *call* the wall time of a later one. The *error* is the largest of the derivatives, beside exact ones. Tolerance
1e-8; the packages judge by other quantities.

"""
END = """
Measured by `tests/benchmarks/solutions.py` on {machine}, one process after another. PyTensor's `minimize` and `root`
call SciPy in Python, also under numba, and cannot be compiled for JAX.
"""


def ridge():
    rng = np.random.default_rng(0)
    X, X_new, w = rng.normal(size=(60, 8)), rng.normal(size=(40, 8)), rng.normal(size=8)
    return X, X @ w + rng.normal(size=60), X_new, X_new @ w + rng.normal(size=40)


def expected(problem):
    """The derivatives, by linear algebra."""
    if problem == RIDGE:
        X, y, X_new, y_new = ridge()
        A = X.T @ X + 3.7 * np.eye(8)
        w = np.linalg.solve(A, X.T @ y)
        return X_new.T @ (X_new @ w - y_new) @ -np.linalg.solve(A, w)
    x, theta = np.zeros(8), np.arange(8) / 4
    for _ in range(30):
        J = np.diag(1 + 0.3 * x**2)
        for i in range(8):
            J[i, (i + 1) % 8] += np.cos(x[(i + 1) % 8]) / 2
        x = x - np.linalg.solve(J, x + np.sin(np.roll(x, -1)) / 2 + x**3 / 10 - theta)
    return np.linalg.solve(J.T, 2 * x)


def with_pytensor(problem, kind, mode):
    import pytensor
    import pytensor.tensor as pt

    import optapi

    mode = optapi.PYTHON if mode == "PYTHON" else mode
    if problem == RIDGE:
        X, y, X_new, y_new = ridge()
        w, theta = pt.tensor("w", shape=(8,), dtype="float64"), pt.dscalar("alpha")
        cost = pt.sum((X @ w - y) ** 2) / 2 + theta * pt.sum(w**2) / 2
        if kind == "optapi":
            [found] = optapi.solve([w], cost).parameters
        else:
            found, _ = pt.optimize.minimize(cost, w, method="BFGS", optimizer_kwargs={"tol": 1e-8})
        value, start, point = pt.sum((X_new @ found - y_new) ** 2) / 2, [w], 3.7
    else:
        x, theta = pt.tensor("x", shape=(8,), dtype="float64"), pt.dvector("theta")
        equations = x + pt.sin(pt.roll(x, -1)) / 2 + x**3 / 10 - theta
        if kind == "optapi":
            [found] = optapi.root([x], equations).parameters
        else:
            found, _ = pt.optimize.root(equations, x, method="hybr", optimizer_kwargs={"tol": 1e-8})
        value, start, point = pt.sum(found**2), [x], np.arange(8) / 4
    outputs = [value, pytensor.grad(value, theta)]
    if kind == "optapi":
        function = pytensor.function([theta], outputs, mode=mode)
        return lambda: [np.asarray(v) for v in function(point)]
    function = pytensor.function([*start, theta], outputs, mode=mode)
    return lambda: [np.asarray(v) for v in function(np.zeros(8), point)]


def with_jax(problem, kind):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    X, y, X_new, y_new = ridge()

    def cost(w, alpha):
        return jnp.sum((X @ w - y) ** 2) / 2 + alpha * jnp.sum(w**2) / 2

    def equations(x, theta):
        return x + jnp.sin(jnp.roll(x, -1)) / 2 + x**3 / 10 - theta

    def solved(theta):
        zero = jnp.zeros(8)
        if kind == "jaxopt":
            import jaxopt

            if problem == RIDGE:
                return jaxopt.LBFGS(cost, tol=1e-8, maxiter=1000).run(zero, theta).params
            return jaxopt.Broyden(equations, tol=1e-8).run(zero, theta).params
        import optimistix

        if problem == RIDGE:
            solver = optimistix.BFGS(rtol=1e-8, atol=1e-8)
            return optimistix.minimise(cost, solver, zero, theta, max_steps=1000).value
        return optimistix.root_find(equations, optimistix.Newton(rtol=1e-8, atol=1e-8), zero, theta).value

    def value(theta):
        x = solved(theta)
        return jnp.sum((X_new @ x - y_new) ** 2) / 2 if problem == RIDGE else jnp.sum(x**2)

    function = jax.jit(jax.value_and_grad(value))
    point = 3.7 if problem == RIDGE else np.arange(8) / 4
    return lambda: [np.asarray(v) for v in function(point)]


CONTENDERS = {
    "optapi, numba": ("optapi", "NUMBA"),
    "optapi, JAX": ("optapi", "JAX"),
    "optapi, C": ("optapi", "CVM"),
    "optapi, PYTHON": ("optapi", "PYTHON"),
    "PyTensor, numba": ("pytensor", "NUMBA"),
    "PyTensor, C": ("pytensor", "CVM"),
    "jaxopt": ("jaxopt", None),
    "optimistix": ("optimistix", None),
}


def measured(problem, name):
    kind, mode = CONTENDERS[name]
    begin = time.process_time()
    call = with_pytensor(problem, kind, mode) if mode else with_jax(problem, kind)
    _, slope = call()
    first = time.process_time() - begin
    best, stop = np.inf, time.perf_counter() + 3
    while time.perf_counter() < stop:
        begin = time.perf_counter()
        for _ in range(10):
            call()
        best = min(best, (time.perf_counter() - begin) / 10)
    return {"first": first, "call": best, "error": float(np.max(np.abs(slope - expected(problem))))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--problems", nargs="*", default=[RIDGE, SYSTEM])
    parser.add_argument("--output")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(*arguments.one)))
        return
    lines = [INTRODUCTION]
    for problem in arguments.problems:
        title = {RIDGE: "Ridge", SYSTEM: "Equations"}[problem]
        lines += [f"## {title}\n\n", "| | first, s | call, ms | error |\n", "|---|--:|--:|--:|\n"]
        for name, (_, mode) in CONTENDERS.items():
            python = sys.executable if mode else arguments.peers
            with tempfile.TemporaryDirectory() as folder:
                flags = {"PYTENSOR_FLAGS": f"base_compiledir={folder}", "OMP_NUM_THREADS": "1"}
                command = [python, __file__, "--one", problem, name]
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **flags}, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines()[-1]
                print(name, said)
                continue
            row = json.loads(done.stdout)
            print(problem, name, row, flush=True)
            lines.append(f"| {name} | {row['first']:.1f} | {1e3 * row['call']:.3f} | {row['error']:.0e} |\n")
        lines.append("\n")
    text = "".join(lines).rstrip() + "\n" + END.format(machine=f"one of {os.cpu_count()} cores")
    if arguments.output:
        Path(arguments.output).write_text(text)


if __name__ == "__main__":
    main()
