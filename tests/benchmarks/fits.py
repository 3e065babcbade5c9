# ruff: noqa: T201
"""Many small fits: 1000 of three parameters to 30 points, by optapi and its peers; and 100,000 with bounds and errors.

    python tests/benchmarks/fits.py

Times are milliseconds of the processor for all fits, on one thread but where said, the best of several; the first call
is in seconds of wall time, with caches empty. Peers that are not installed are left out.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np


ONE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
TIMES, START = np.linspace(0, 4, 30), np.array([3.0, 1.0, 0.3])
# Relaxation of the transverse magnetization at 3 tesla, in ms, of white and gray matter (Stanisz and others, 2005,
# T1, T2 relaxation and magnetization transfer in tissue at 3T, table 1); 32 echoes.
T2, ECHOES = (69.0, 99.0), np.arange(10.0, 330.0, 10.0)
BOUNDS = {"height": (0, None), "rate": (1 / 1000, 1 / 5), "floor": (0, None)}


def data(count=1000):
    """Decaying exponentials with noise."""
    rng = np.random.default_rng(0)
    truth = np.c_[rng.uniform(2, 6, count), rng.uniform(0.5, 2, count), rng.uniform(0, 1, count)]
    return truth[:, :1] * np.exp(-truth[:, 1:2] * TIMES) + truth[:, 2:] + 0.1 * rng.normal(size=(count, len(TIMES)))


def gradients(x, y):
    """Those of half of the sums of squares."""
    e = np.exp(-x[:, 1:2] * TIMES)
    r = x[:, :1] * e + x[:, 2:] - y
    return np.stack([(r * e).sum(1), (-r * x[:, :1] * TIMES * e).sum(1), r.sum(1)], 1)


def optapis(y, mode, workers=1):
    import pytensor
    import pytensor.tensor as pt

    import optapi

    a, b, c = (pytensor.shared(value, name=name) for value, name in zip(START, "abc", strict=True))
    seen = pt.dvector("y")
    residuals = a * pt.exp(-b * TIMES) + c - seen
    run = optapi.compile_minimizer([a, b, c], residuals=residuals, inputs=[seen], mode=mode)
    return lambda: np.stack(run.on_data(y, workers=workers).x, axis=1)


def scipys(y, jac):
    import scipy.optimize

    def model(t, a, b, c):
        return a * np.exp(-b * t) + c

    def derivatives(t, a, b, c):
        e = np.exp(-b * t)
        return np.stack([e, -a * t * e, np.ones_like(t)], 1)

    given = derivatives if jac else None
    return lambda: np.array([scipy.optimize.curve_fit(model, TIMES, row, START, jac=given)[0] for row in y])


def leastsqs(y):
    import numba
    import scipy.optimize

    times = TIMES

    @numba.njit
    def residuals(p, row):
        return p[0] * np.exp(-p[1] * times) + p[2] - row

    @numba.njit
    def jacobian(p, row):
        e, J = np.exp(-p[1] * times), np.empty((30, 3))
        J[:, 0], J[:, 1], J[:, 2] = e, -p[0] * times * e, 1
        return J

    return lambda: np.array([scipy.optimize.leastsq(residuals, START, args=(row,), Dfun=jacobian)[0] for row in y])


def lumafits(y):
    import lumafit
    import numba

    @numba.njit
    def model(p, t):
        return p[0] * np.exp(-p[1] * t) + p[2]

    @numba.njit
    def jacobian(p, t):
        e, J = np.exp(-p[1] * t), np.empty((t.shape[0], 3))
        J[:, 0], J[:, 1], J[:, 2] = e, -p[0] * t * e, 1
        return J

    image, fit = y.reshape(25, -1, 30), lumafit.levenberg_marquardt_pixelwise
    return lambda: fit(model, START, image, jac_func=jacobian, args_for_each_pixel=(TIMES,))[0].reshape(-1, 3)


def optimistixs(y):
    import jax
    import optimistix

    def residuals(p, row):
        return p[0] * jax.numpy.exp(-p[1] * TIMES) + p[2] - row

    def one(row):
        start = jax.numpy.asarray(START)
        return optimistix.least_squares(residuals, solver, start, args=row, max_steps=100, throw=False).value

    solver = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-8)
    call = jax.jit(jax.vmap(one))
    return lambda: np.asarray(call(y))


def jaxopts(y):
    import jax
    import jaxopt

    def residuals(p, row):
        return p[0] * jax.numpy.exp(-p[1] * TIMES) + p[2] - row

    solver = jaxopt.LevenbergMarquardt(residuals, maxiter=50, tol=1e-8)
    call = jax.jit(jax.vmap(lambda row: solver.run(jax.numpy.asarray(START), row).params))
    return lambda: np.asarray(call(y))


def by_hand(y):
    """One after another, with the equations of order 3 written out."""
    import numba

    @numba.njit
    def fits(y, start, times, tolerance):
        found, A, g = np.empty((len(y), 3)), np.empty((3, 3)), np.empty(3)
        for i in range(len(y)):
            p, mu, nu, is_new, f = start.copy(), 1e-3, 2.0, True, 0.0
            for _ in range(100):
                if is_new:
                    A[:], g[:], f = 0, 0, 0.0
                    for j in range(len(times)):
                        e = np.exp(-p[1] * times[j])
                        b, r = -p[0] * times[j] * e, p[0] * e + p[2] - y[i, j]
                        A[0, 0] += e * e
                        A[0, 1] += e * b
                        A[0, 2] += e
                        A[1, 1] += b * b
                        A[1, 2] += b
                        A[2, 2] += 1
                        g[0] += e * r
                        g[1] += b * r
                        g[2] += r
                        f += r * r / 2
                    if max(abs(g[0]), abs(g[1]), abs(g[2])) < tolerance:
                        break
                d0, a1, a2 = A[0, 0] * (1 + mu), A[1, 1] * (1 + mu), A[2, 2] * (1 + mu)
                l1, l2 = A[0, 1] / d0, A[0, 2] / d0
                d1, c = a1 - l1 * A[0, 1], A[1, 2] - l1 * A[0, 2]
                l3 = c / d1
                d2, z1 = a2 - l2 * A[0, 2] - l3 * c, -g[1] + l1 * g[0]
                h2 = (-g[2] + l2 * g[0] - l3 * z1) / d2
                h1 = z1 / d1 - l3 * h2
                h0 = -g[0] / d0 - l1 * h1 - l2 * h2
                q0, q1, q2, after = p[0] + h0, p[1] + h1, p[2] + h2, 0.0
                for j in range(len(times)):
                    r = q0 * np.exp(-q1 * times[j]) + q2 - y[i, j]
                    after += r * r / 2
                promised = h0 * (mu * A[0, 0] * h0 - g[0]) + h1 * (mu * A[1, 1] * h1 - g[1])
                promised = (promised + h2 * (mu * A[2, 2] * h2 - g[2])) / 2
                is_new = after < f
                if is_new:
                    p[0], p[1], p[2] = q0, q1, q2
                    mu, nu = mu * max(1 / 3, 1 - (2 * (f - after) / promised - 1) ** 3), 2.0
                else:
                    mu, nu = mu * nu, 2 * nu
            found[i] = p
        return found

    return lambda: fits(y, START, TIMES, 1e-6)


WAYS = {
    "by hand, numba": by_hand,
    "optapi, NUMBA": partial(optapis, mode="NUMBA"),
    "optapi, NUMBA, two threads (wall time)": partial(optapis, mode="NUMBA", workers=2),
    "lumafit, numba": lumafits,
    "optapi, JAX": partial(optapis, mode="JAX"),
    "jaxopt, vmap": jaxopts,
    "optimistix, vmap": optimistixs,
    "SciPy leastsq, numba": leastsqs,
    "optapi, PYTHON": partial(optapis, mode="PYTHON"),
    "SciPy curve_fit, with jac": partial(scipys, jac=True),
    "SciPy curve_fit": partial(scipys, jac=False),
}


def timed(name):
    """Milliseconds, seconds of the first call, and the largest gradients: the median, and how many are above 1e-4."""
    import jax

    jax.config.update("jax_enable_x64", True)
    y = data()
    clock = time.perf_counter if "threads" in name else time.process_time
    began = time.perf_counter()
    call = WAYS[name](y)
    call()
    first, times = time.perf_counter() - began, []
    for _ in range(7):
        began = clock()
        x = call()
        times.append(clock() - began)
    sizes = abs(gradients(x, y)).max(axis=1)
    return 1e3 * min(times), first, float(np.median(sizes)), int((~(sizes < 1e-4)).sum())


def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def bounded(mode, count=100_000):
    """What comes of fits of three bounded parameters: shares, seconds, memory, and how often intervals are right."""
    import pytensor
    import pytensor.tensor as pt
    import scipy.optimize
    import scipy.stats

    import optapi

    rng = np.random.default_rng(1)
    height, rate = rng.uniform(0.7, 0.85, count), 1 / rng.choice(T2, count)
    truth = np.stack([height, rate, np.full(count, 0.015)], axis=1)
    y = truth[:, :1] * np.exp(-truth[:, 1:2] * ECHOES) + truth[:, 2:] + 0.01 * rng.normal(size=(count, len(ECHOES)))
    start = {"height": 1.0, "rate": 0.02, "floor": 0.1}
    p = {name: pytensor.shared(value, name=name) for name, value in start.items()}
    seen = pt.dvector("y")
    residuals = p["height"] * pt.exp(-p["rate"] * ECHOES) + p["floor"] - seen
    run = optapi.compile_minimizer(
        list(p.values()), residuals=residuals, inputs=[seen], mode=mode, x_scale="jac", tolerance=1e-7,
        bounds={variable: BOUNDS[name] for name, variable in p.items()},
    )  # fmt: skip
    run.on_data(y[:8000])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, began = resident("VmRSS"), time.process_time()
    result = run.on_data(y)
    seconds, memory = time.process_time() - began, (resident("VmHWM") - before) / count
    began = time.process_time()
    errors = np.stack(result.standard_errors(), axis=1)
    errors_in, x = time.process_time() - began, np.stack(result.x, axis=1)
    free = (x[:, 1] > BOUNDS["rate"][0]) & (x[:, 1] < BOUNDS["rate"][1]) & (x[:, 2] > 0) & (x[:, 0] > 0)
    width = scipy.stats.t.ppf(0.975, len(ECHOES) - 3) * errors
    inside = (abs(x - truth) <= width)[free & result.success].mean(axis=0)

    def model(t, a, b, c):
        return a * np.exp(-b * t) + c

    sides = [0, 1 / 1000, 0], [np.inf, 1 / 5, np.inf]
    some, theirs, wider = slice(1000), [], []
    began = time.process_time()
    for row in y[some]:
        popt, pcov = scipy.optimize.curve_fit(model, ECHOES, row, list(start.values()), bounds=sides, x_scale="jac")
        theirs.append(popt)
        wider.append(np.sqrt(np.diag(pcov)))
    other = time.process_time() - began
    cost = [np.sum((model(ECHOES, *v.T[:, :, None]) - y[some]) ** 2, axis=1) for v in (x[some], np.array(theirs))]
    both = free[some] & np.all(np.array(theirs)[:, [2]] > 1e-6, axis=1)
    return {
        "statuses": dict(zip(*(a.tolist() for a in np.unique(result.status, return_counts=True)), strict=True)),
        "share with an active bound": float(1 - free.mean()),
        "milliseconds per 1000": 1e6 * seconds / count,
        "errors, milliseconds per 1000": 1e6 * errors_in / count,
        "bytes per member": memory,
        "bytes of inputs and outputs": (y.nbytes + sum(v.nbytes for v in (*result.x, result.fun, result.nit))) / count,
        "coverage": inside.tolist(),
        "SciPy, milliseconds per 1000": 1e3 * other,
        "largest excess of the cost over SciPy's": float((cost[0] / cost[1] - 1).max()),
        "largest difference of errors": float(abs(errors[some] / wider - 1)[both].max()),
    }


def alone(name):
    """What a process of its own measures, with empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ",".join(filter(None, (os.environ.get("PYTENSOR_FLAGS"), f"base_compiledir={folder}")))
        environment = {**os.environ, **ONE, "PYTENSOR_FLAGS": flags}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, name], env=environment, capture_output=True, text=True
        )
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure():
    """All that is in the section of the page."""
    return {"fits": {name: alone(name) for name in WAYS}, "bounded": {mode: alone(mode) for mode in ("NUMBA", "JAX")}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        print(json.dumps(timed(sys.argv[1]) if sys.argv[1] in WAYS else bounded(sys.argv[1])))
    else:
        print(json.dumps(measure(), indent=1))
