# ruff: noqa: T201
"""Compiled loops against loops written by hand, and against SciPy and the solvers of JAX where they are installed.

Run by hand: ``python tests/benchmarks/loops.py [NUMBA] [JAX]``. Times are the best of several runs in one process, and
the ratios are what counts.
"""

import sys
import time
from functools import partial

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy.optimize
from numba import njit

import optapi


STEPS = 100_000
# Those that PyTensor compiles with.
FLAGS = {"arcp", "contract", "afn", "reassoc", "nsz"}


def best(run, times=5):
    """The shortest time of a run, in seconds."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        durations.append(time.perf_counter() - begin)
    return min(durations)


def begin_anew(updates, function):
    """A run of `function` from the values that the variables of `updates` have now."""
    start = {variable: variable.get_value() for variable in updates}

    def run():
        for variable, value in start.items():
            variable.set_value(value)
        function()
        # JAX returns before it is done.
        for variable in updates:
            np.asarray(variable.get_value(borrow=True))

    return run


# First-order steps: logistic regression


def logistic_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 20))
    return X, (X @ rng.normal(size=20) + rng.normal(size=100) > 0).astype("float64")


def logistic_loop(mode, rule):
    X, y = logistic_data()
    p = pytensor.shared(np.zeros(20), name="p", shape=(20,))
    z = pt.dot(pytensor.shared(X, shape=X.shape), p)
    cost = pt.mean(pt.softplus(z) - pytensor.shared(y, shape=y.shape) * z)
    updates = optapi.loop(rule([p], cost, step_size=0.01), STEPS)
    run = begin_anew(updates, pytensor.function([], [], updates=updates, mode=mode))
    run()
    return best(run), p.get_value()


@njit(fastmath=FLAGS)
def sgd_by_hand(p, X, y, steps):
    for _ in range(steps):
        p -= 0.01 * (X.T @ (1 / (1 + np.exp(-(X @ p))) - y) / y.size)
    return p


@njit(fastmath=FLAGS)
def adam_by_hand(p, X, y, steps):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        g = X.T @ (1 / (1 + np.exp(-(X @ p))) - y) / y.size
        first, second = 1 - 0.9**t, 1 - 0.999**t
        for i in range(p.size):
            m[i] = 0.9 * m[i] + (1 - 0.9) * g[i]
            v[i] = 0.999 * v[i] + (1 - 0.999) * g[i] ** 2
            p[i] -= 0.01 * (m[i] / first) / (np.sqrt(v[i] / second) + 1e-8)
    return p


def in_jax(rule):
    """The same in ``jax.lax.fori_loop``."""
    import jax
    import jax.numpy as jnp

    X, y = map(jnp.asarray, logistic_data())

    def gradient(p):
        return X.T @ (jax.nn.sigmoid(X @ p) - y) / y.size

    def sgd(t, state):
        (p,) = state
        return (p - 0.01 * gradient(p),)

    def adam(t, state):
        p, m, v = state
        g = gradient(p)
        m, v = 0.9 * m + (1 - 0.9) * g, 0.999 * v + (1 - 0.999) * g**2
        return p - 0.01 * (m / (1 - 0.9 ** (t + 1))) / (jnp.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8), m, v

    step, count = (sgd, 1) if rule is optapi.sgd else (adam, 3)
    run = jax.jit(lambda state: jax.lax.fori_loop(0, STEPS, step, state))
    start = (jnp.zeros(20),) * count
    run(start)
    return best(lambda: jax.block_until_ready(run(start))), np.asarray(run(start)[0])


def first_order(mode):
    print(f"\n{mode}: microseconds per step of {STEPS} in one loop, 20 parameters")
    print(f"{'':8}{'optapi':>10}{'by hand':>10}{'ratio':>8}")
    for rule, by_hand in ((optapi.sgd, sgd_by_hand), (optapi.adam, adam_by_hand)):
        ours, p = logistic_loop(mode, rule)
        if mode == "JAX":
            theirs, q = in_jax(rule)
        else:
            X, y = logistic_data()
            q = by_hand(np.zeros(20), X, y, STEPS)
            theirs = best(lambda by_hand=by_hand, X=X, y=y: by_hand(np.zeros(20), X, y, STEPS))
        assert np.allclose(p, q, rtol=1e-6)
        print(f"{rule.__name__:8}{ours / STEPS * 1e6:10.2f}{theirs / STEPS * 1e6:10.2f}{ours / theirs:8.2f}")


# L-BFGS on the extended Rosenbrock function


def start_of(n):
    x = np.full(n, -1.2)
    x[1::2] = 1.0
    return x


def rosenbrock(x):
    return pt.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@njit(fastmath=FLAGS)
def rosenbrock_by_hand(x, g):
    g[:] = 0
    f = 0.0
    for i in range(x.size - 1):
        r, q = x[i + 1] - x[i] ** 2, 1 - x[i]
        f += 100 * r * r + q * q
        g[i] -= 400 * x[i] * r + 2 * q
        g[i + 1] += 200 * r
    return f


@njit(fastmath=FLAGS)
def lbfgs_by_hand(x, memory=10, tolerance=1e-6):
    """Two loops, and a weak Wolfe search by bisection: the same arithmetic, as fast as it can be."""
    n = x.size
    S, Y, rho, alpha = np.zeros((memory, n)), np.zeros((memory, n)), np.zeros(memory), np.zeros(memory)
    g, new_x, new_g = np.empty(n), np.empty(n), np.empty(n)
    f, pairs, evaluations = rosenbrock_by_hand(x, g), 0, 1
    while np.max(np.abs(g)) > tolerance:
        d = -g
        for j in range(min(pairs, memory)):
            i = (pairs - 1 - j) % memory
            alpha[i] = rho[i] * np.sum(S[i] * d)
            d -= alpha[i] * Y[i]
        i = (pairs - 1) % memory
        d *= 1 / (rho[i] * np.sum(Y[i] * Y[i])) if pairs else 1 / max(1.0, np.sqrt(np.sum(g * g)))
        for j in range(min(pairs, memory) - 1, -1, -1):
            i = (pairs - 1 - j) % memory
            d += (alpha[i] - rho[i] * np.sum(Y[i] * d)) * S[i]
        slope, low, high, step, new_f = np.sum(d * g), 0.0, np.inf, 1.0, f
        for _ in range(40):
            for i in range(n):
                new_x[i] = x[i] + step * d[i]
            new_f = rosenbrock_by_hand(new_x, new_g)
            evaluations += 1
            if not new_f <= f + 1e-4 * step * slope:
                high = step
            elif np.sum(d * new_g) < 0.9 * slope:
                low = step
            else:
                break
            step = 2 * low if high == np.inf else (low + high) / 2
        i = pairs % memory
        S[i], Y[i] = new_x - x, new_g - g
        x[:], g[:], f = new_x, new_g, new_f
        curvature = np.sum(S[i] * Y[i])
        if curvature > 0:
            rho[i] = 1 / curvature
            pairs += 1
    return evaluations


def ours(mode, n, line_search):
    x, stop = pytensor.shared(start_of(n), name="x", shape=(n,)), pytensor.shared(0, name="stop")
    cost = rosenbrock(x)
    updates = optapi.lbfgs([x], cost, stop=stop, tolerance=1e-6, **line_search)
    [evaluations] = optapi.reports(updates)["evaluations"]
    looped = optapi.loop(updates, 100_000, stop)
    # As the others have it: a function of the start.
    start = pt.dvector("start", shape=(n,))
    givens = {variable: pt.constant(variable.get_value()) for variable in updates} | {x: start}
    function = pytensor.function([start], [looped[x], looped[evaluations]], givens=givens, mode=mode, trust_input=True)

    def run():
        # JAX returns before it is done.
        return [np.asarray(value) for value in function(start_of(n))]

    begin = time.perf_counter()
    run()
    first = time.perf_counter() - begin
    seconds = best(run)
    found, count = run()
    assert np.max(np.abs(found - 1)) < 1e-3
    return seconds, int(count), first


# Each of these returns a minimization to be called, and the number of its evaluations.


def scipys(n):
    x = pt.dvector("x")
    cost = rosenbrock(x)
    both = pytensor.function([x], [cost, pytensor.grad(cost, x)], mode="NUMBA", trust_input=True)
    run = partial(
        scipy.optimize.minimize,
        lambda v: [np.asarray(part) for part in both(v)],
        start_of(n),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-6, "ftol": 0, "maxiter": 10**6, "maxfun": 10**6},
    )
    return run, run().nfev


def by_hand(n):
    return lambda: lbfgs_by_hand(start_of(n)), lbfgs_by_hand(start_of(n))


def jaxopts(n):
    import jax
    import jaxopt

    solver = jaxopt.LBFGS(jax_rosenbrock, maxiter=100_000, tol=1e-6, history_size=10)
    run = jax.jit(lambda x: solver.run(x))
    result = run(start_of(n))
    return lambda: jax.block_until_ready(run(start_of(n))), int(result.state.num_fun_eval)


def optaxs(n):
    import jax
    import jax.numpy as jnp
    import optax

    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(jax_rosenbrock)

    def step(carry):
        x, state, _, evaluations = carry
        value, gradient = value_and_grad(x, state=state)
        change, state = solver.update(gradient, state, x, value=value, grad=gradient, value_fn=jax_rosenbrock)
        x = optax.apply_updates(x, change)
        after = optax.tree_utils.tree_get(state, "grad")
        steps = optax.tree_utils.tree_get(state, "info").num_linesearch_steps
        return x, state, jnp.max(jnp.abs(after)), evaluations + steps

    @jax.jit
    def run(x):
        return jax.lax.while_loop(lambda carry: carry[2] > 1e-6, step, (x, solver.init(x), jnp.inf, 1))

    result = run(jnp.asarray(start_of(n)))
    return lambda: jax.block_until_ready(run(jnp.asarray(start_of(n)))), int(result[3])


def jax_rosenbrock(x):
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def lbfgs(mode):
    print(f"\n{mode}: L-BFGS on the extended Rosenbrock function to a gradient of 1e-6, the whole minimization")
    print(f"{'':28}{'n':>6}{'ms':>10}{'evaluations':>13}{'us each':>9}{'first, s':>10}")
    others = [("by hand (numba)", by_hand), ("SciPy, compiled cost", scipys)]
    if mode == "JAX":
        for name, solver in (("jaxopt", jaxopts), ("optax", optaxs)):
            try:
                __import__(name)
                others.append((name, solver))
            except ImportError:
                print(f"{name} is not installed")
    for n in (10, 50, 1000):
        rows = [("optapi", *ours(mode, n, {}))]
        rows.append(("optapi, weak_wolfe", *ours(mode, n, {"line_search": optapi.line_search.weak_wolfe})))
        for name, solver in others:
            run, evaluations = solver(n)
            rows.append((name, best(run), evaluations))
        for name, seconds, evaluations, *first in rows:
            line = f"{name:28}{n:6}{seconds * 1e3:10.3f}{evaluations:13}{seconds / evaluations * 1e6:9.2f}"
            print(line + (f"{first[0]:10.1f}" if first else ""), flush=True)


if __name__ == "__main__":
    print(f"PyTensor {pytensor.__version__}, NumPy {np.__version__}, numba {numba.__version__}")
    for backend in sys.argv[1:] or ["NUMBA"]:
        first_order(backend)
        lbfgs(backend)
