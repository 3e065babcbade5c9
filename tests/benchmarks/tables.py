# ruff: noqa: T201
"""What optapi costs beside its peers, measured in one run, and written to `docs/benchmarks.md` and `.png`.

    python tests/benchmarks/tables.py [section ...] [--torch PYTHON]

Sections are minimizations, starts, fits, steps, growth, compilation, memory; by default all. Each runs in a process of
its own, and what it finds is kept in `docs/benchmarks.json`, from which the tables are written, so that one section can
be measured anew. Times are the best of several in one process. Peers that are not installed are left out; PyTorch may
be that of another Python. Set OMP_NUM_THREADS=1 for times on one core.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fits
import loops
import memory
import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy.optimize
from loops import FLAGS, best
from numba import njit
from test_adam_step import adam_by_hand, logistic_regression, network

import optapi


DOCS = Path(__file__).parent.parent.parent / "docs"
DATA, PAGE, PICTURE = (DOCS / f"benchmarks.{kind}" for kind in ("json", "md", "png"))
PEERS = ("pytensor", "numba", "scipy", "jax", "jaxopt", "optax", "optimistix", "lumafit", "pytensor_ml", "torch")
TOLERANCE = 1e-6


def optional(name, function, *arguments):
    """What `function` returns, or None if a package that it needs is not installed."""
    try:
        return function(*arguments)
    except ImportError as error:
        print(f"{name}: {error}")
        return None


# Whole minimizations


# Each returns a call, the number of its evaluations, and seconds of compilation and the first run.


def ours(mode, n, **options):
    x = pytensor.shared(loops.start_of(n), name="x", shape=(n,))
    begin = time.perf_counter()
    run = optapi.compile_minimizer(
        [x], loops.rosenbrock(x), "lbfgs", tolerance=TOLERANCE, max_iterations=100_000, mode=mode, **options
    )
    result = run()
    first = time.perf_counter() - begin
    assert result.success, result.message

    def anew():
        run.restart()
        run()

    return anew, result.nfev, first


def of_loops(solver, n):
    """One of those in `loops.py`."""
    call, count = solver(n)
    return call, count, None


def optimistixs(n):
    import jax
    import optimistix

    # It has no tolerance of the gradient; this is the largest, in powers of ten, with which the gradient meets ours.
    for tolerance in 10.0 ** -np.arange(4, 13):
        solver = optimistix.LBFGS(rtol=tolerance, atol=tolerance)

        @jax.jit
        def run(x, solver=solver):
            found = optimistix.minimise(lambda y, _: loops.jax_rosenbrock(y), solver, x, max_steps=100_000, throw=False)
            return found.value, found.stats["num_steps"]

        start = jax.numpy.asarray(loops.start_of(n))
        value, count = run(start)
        if np.abs(jax.grad(loops.jax_rosenbrock)(value)).max() <= TOLERANCE:
            return (lambda run=run, start=start: jax.block_until_ready(run(start))), int(count), None
    raise ImportError("it does not get to the gradient that is asked for")


def pytensor_mls(n):
    from pytensor_ml.optim import lbfgs

    x = pytensor.shared(loops.start_of(n), name="x")
    cost = loops.rosenbrock(x)
    gradient = pytensor.grad(cost, x)
    begin = time.perf_counter()
    updates = lbfgs()(cost, [x])
    step = pytensor.function([], pt.max(pt.abs(gradient)), updates=updates, mode="NUMBA")
    start = {variable: variable.get_value() for variable in updates}

    def run():
        for variable, value in start.items():
            variable.set_value(value)
        count = 1
        while step() > TOLERANCE and count < 50_000:
            count += 1
        return count

    count = run()
    return run, count, time.perf_counter() - begin


def minimizations():
    if optional("jax", __import__, "jax"):
        __import__("jax").config.update("jax_enable_x64", True)
    rows = []
    contenders = {
        "SciPy L-BFGS-B, compiled cost": ("numba", partial(of_loops, loops.scipys)),
        "optapi": ("numba", partial(ours, "NUMBA")),
        "optapi, weak_wolfe": ("numba", partial(ours, "NUMBA", line_search=optapi.line_search.weak_wolfe)),
        "by hand": ("numba", partial(of_loops, loops.by_hand)),
        "pytensor-ml, steps": ("numba", pytensor_mls),
        "optapi ": ("JAX", partial(ours, "JAX")),
        "optapi, weak_wolfe ": ("JAX", partial(ours, "JAX", line_search=optapi.line_search.weak_wolfe)),
        "jaxopt": ("JAX", partial(of_loops, loops.jaxopts)),
        "optax": ("JAX", partial(of_loops, loops.optaxs)),
        "optimistix, steps": ("JAX", optimistixs),
    }
    for n in (10, 50, 1000):
        made = {name: optional(name, make, n) for name, (_, make) in contenders.items()}
        made = {name: found for name, found in made.items() if found is not None}
        seconds = in_turns({name: call for name, (call, _, _) in made.items()})
        for name, (_, count, first) in made.items():
            rows.append([n, name.strip(), contenders[name][0], seconds[name], count, first])
            print(*rows[-1], flush=True)
    return rows


# Many starts


def starts():
    """A thousand minimizations of the function of 10 variables: by SciPy, and by optapi on one core and on two."""
    x = pytensor.shared(loops.start_of(10), name="x", shape=(10,))
    cost = loops.rosenbrock(x)
    where = optapi.sample_starts([x], 1000, "latin_hypercube", scale=2.0, seed=0)
    v = pt.dvector("v")
    both = pytensor.function([v], [loops.rosenbrock(v), pytensor.grad(loops.rosenbrock(v), v)], mode="NUMBA")
    both.trust_input = True
    options = {"gtol": TOLERANCE, "ftol": 0, "maxiter": 10**6, "maxfun": 10**6}

    def by_scipy():
        return [
            scipy.optimize.minimize(
                lambda v: [np.asarray(part) for part in both(v)], s, jac=True, method="L-BFGS-B", options=options
            )
            for s in where[0]
        ]

    calls = {"SciPy L-BFGS-B, compiled cost": by_scipy}
    for mode in ("NUMBA", "JAX"):
        if mode == "JAX" and not optional("jax", __import__, "jax"):
            continue
        run = optapi.compile_minimizer([x], cost, "lbfgs", tolerance=TOLERANCE, mode=mode)
        cases = [(False, 1), (False, 2), (True, 1), (True, 2)] if mode == "JAX" else [(False, 1), (False, 2)]
        for together, workers in cases:
            # A batch of another size is another function.
            if together and workers == 2:
                run = optapi.compile_minimizer([x], cost, "lbfgs", tolerance=TOLERANCE, mode=mode)
            how = f"optapi, {mode}, {'a batch' if together else 'one after another'}, threads: {workers}"
            calls[how] = partial(run.from_starts, where, together=together, workers=workers)
    found = {how: call() for how, call in calls.items()}
    seconds = in_turns(calls)
    rows = []
    for how, results in found.items():
        rows.append([how, seconds[how], sum(r.nfev for r in results), lowest(results)])
        print(*rows[-1], flush=True)
    return rows


def lowest(found):
    """How many of the minimizations found the lowest minimum."""
    costs = np.array([r.fun for r in found])
    return int((costs < costs.min() + 1e-6).sum())


# Steps of Adam


@njit(fastmath=FLAGS, error_model="numpy")
def adam_loop(p, m, v, g, t):
    """Four arrays are read and three written, in place: as fast as the memory."""
    rate, scale = 0.001 / (1 - 0.9**t), 1 / np.sqrt(1 - 0.999**t)
    for i in range(p.size):
        mean, square = 0.9 * m[i] + (1 - 0.9) * g[i], 0.999 * v[i] + (1 - 0.999) * g[i] * g[i]
        m[i], v[i] = mean, square
        p[i] -= rate * mean / (scale * np.sqrt(square) + 1e-8)


def ten_million():
    p = pytensor.shared(np.zeros(10_000_000), name="p")
    g = pytensor.shared(np.random.default_rng(0).normal(size=10_000_000), name="g")
    return [p], None, [g]


def in_turns(calls, budget=20.0, block=0.02):
    """The shortest time of each of `calls`, which take turns, so that what else the machine does falls on all.

    A turn is as many calls as fit in `block` seconds; there are 5 to 300 turns, about `budget` seconds in all.
    """
    lengths, found = {}, dict.fromkeys(calls, np.inf)
    for name, call in calls.items():
        call()
        lengths[name] = max(1, int(block / max(best(call, 3), 1e-7)))
    began, turns = time.perf_counter(), 0
    while turns < 5 or (turns < 300 and time.perf_counter() - began < budget):
        turns += 1
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(lengths[name]):
                call()
            found[name] = min(found[name], (time.perf_counter() - begin) / lengths[name])
    return found


def pytensor_step(parameters, cost, updates):
    function = pytensor.function([], cost, updates=updates, mode="NUMBA")
    function.trust_input = True
    return function


def by_pytensor_ml(case):
    from pytensor_ml.optim import adam

    parameters, cost, gradients = case()
    updates = adam(1e-3)(cost, parameters) if gradients is None else adam(1e-3)(gradients, parameters)
    return pytensor_step(parameters, cost, updates)


def by_optax(case):
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", True)
    parameters, _, gradients = case()
    values = [jnp.asarray(p.get_value()) for p in parameters]
    optimizer = optax.adam(1e-3)
    rng = np.random.default_rng(0)
    if case is ten_million:
        given = [jnp.asarray(gradients[0].get_value())]

        def derivative(_):
            return 0.0, given
    else:
        if case is logistic_regression:
            x = rng.normal(size=(200, 20))
            y = (x @ rng.normal(size=20) > 0).astype("float64")

            def loss(ps):
                scores = x @ ps[0]
                return jnp.mean(jax.nn.softplus(scores) - y * scores)
        else:
            x, y = rng.normal(size=(64, 64)), rng.integers(0, 10, size=64)

            def loss(ps):
                scores = jnp.tanh(x @ ps[0] + ps[1]) @ ps[2] + ps[3]
                return -jax.nn.log_softmax(scores)[jnp.arange(64), y].mean()

        derivative = jax.value_and_grad(loss)

    def step(ps, state):
        value, gs = derivative(ps)
        change, state = optimizer.update(gs, state, ps)
        return value, optax.apply_updates(ps, change), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    box = [values, optimizer.init(values)]

    def call():
        _, *box[:] = compiled(*box)
        jax.block_until_ready(box)

    return call


def steps(torch=None):
    found = {}
    for case in (logistic_regression, network, ten_million):
        parameters, cost, gradients = case()
        calls = {"optapi": pytensor_step(parameters, cost, optapi.adam(parameters, cost, gradients))}
        parameters, cost, gradients = case()
        updates = adam_by_hand(parameters, gradients or pytensor.grad(cost, parameters))
        calls["updates by hand"] = pytensor_step(parameters, cost, updates)
        calls["pytensor-ml"] = optional("pytensor-ml", by_pytensor_ml, case)
        calls["optax"] = optional("optax", by_optax, case)
        if case is ten_million:
            arrays, g = [np.zeros(10_000_000) for _ in range(3)], gradients[0].get_value()
            calls["numba loop"] = lambda arrays=arrays, g=g: adam_loop(*arrays, g, 5)
        found[case.__name__] = in_turns({name: call for name, call in calls.items() if call is not None})
        print(case.__name__, found[case.__name__], flush=True)
    command = [torch or sys.executable, str(Path(__file__).parent / "torch_adam.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        for name, seconds in json.loads(result.stdout).items():
            found[name]["PyTorch, fused"] = seconds
    else:
        print(f"PyTorch: {result.stderr.strip().splitlines()[-1]}")
    return found


# Growth


def per_iteration(rule, n, iterations, **options):
    """Seconds of an iteration of `rule` inside of the compiled loop: of the second half of twice as many."""
    x = pytensor.shared(loops.start_of(n), name="x", shape=(n,))
    stop, steps = pytensor.shared(0, name="stop"), pt.lscalar("steps")
    updates = getattr(optapi, rule)([x], loops.rosenbrock(x), stop=stop, tolerance=0.0, **options)
    run = pytensor.function([steps], [], updates=optapi.loop(updates, steps, stop), mode="NUMBA")
    start = {variable: variable.get_value() for variable in updates}

    def seconds(count):
        for variable, value in start.items():
            variable.set_value(value)
        begin = time.perf_counter()
        run(count)
        return time.perf_counter() - begin

    seconds(1)
    once, twice = (min(seconds(count) for _ in range(3)) for count in (iterations, 2 * iterations))
    return (twice - once) / iterations


def growth():
    sizes = [10, 1000, 100_000, 10_000_000]
    found = {"sizes": sizes, "rules": {}, "memory": {}}
    v = pt.dvector("v")
    cost = loops.rosenbrock(v)
    both = pytensor.function([v], [cost, pytensor.grad(cost, v)], mode="NUMBA")
    both.trust_input = True
    calls = {n: partial(both, loops.start_of(n)) for n in sizes}
    found["rules"]["cost and gradient alone"] = list(in_turns(calls).values())
    for rule, options in (("adam", {"step_size": 1e-3}), ("polak_ribiere", {}), ("lbfgs", {})):
        # Those that search would end in a long run.
        most = 10_000 if rule == "adam" else 25
        found["rules"][rule] = [per_iteration(rule, n, int(np.clip(3 * 10**6 // n, 4, most)), **options) for n in sizes]
        print(rule, found["rules"][rule], flush=True)
    for pairs in (3, 30):
        found["memory"][str(pairs)] = [per_iteration("lbfgs", n, 35, memory=pairs) for n in (1000, 100_000)]
        print(pairs, found["memory"][str(pairs)], flush=True)
    return found


# Compilation


def compilation():
    """The lines of `compile_times.py`."""
    command = [sys.executable, str(Path(__file__).parent / "compile_times.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    print(result.stdout)
    _, *lines = result.stdout.splitlines()
    return [[line[:8].strip(), line[8:40].strip(), *line[40:].split()] for line in lines]


def costs():
    """The lines of `compile_times.py --costs`."""
    command = [sys.executable, str(Path(__file__).parent / "compile_times.py"), "--costs"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    print(result.stdout)
    return of_costs(result.stdout)


def of_costs(text):
    _, *lines = text.splitlines()
    return [[line[:32].strip(), *re.sub(r"\(\s*", "(", line[32:]).replace(" (", "~(").split()] for line in lines]


# The page


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value, digits=3):
    return "" if value is None else f"{value:.{digits}g}" if value < 1000 else f"{value:.0f}"


def page(data):
    said = {name: [] for name in SECTIONS}
    if "minimizations" in data:
        rows = data["minimizations"]["found"]
        reference = {n: seconds for n, name, _, seconds, *_ in rows if name.startswith("SciPy")}
        said["minimizations"] = [
            "## Whole minimizations",
            (
                "L-BFGS with 10 pairs on the extended Rosenbrock function, from (-1.2, 1, -1.2, ...) to a gradient "
                f"whose largest component is {TOLERANCE:g}. SciPy's L-BFGS-B calls the compiled cost and gradient "
                "of the same graph. `optapi` is `compile_minimizer`, its result included, with its default search and "
                "with one that makes fewer evaluations here. The loop by hand is numba's with the flags that PyTensor "
                "compiles with. optimistix has no such tolerance: it is given "
                "the largest power of ten with which it gets as far. It and pytensor-ml do not count evaluations, "
                "but iterations."
            ),
            table(
                ["n", "", "", "ms", "evaluations", "us each", "SciPy's time / this"],
                [
                    [n, name, backend, number(s * 1e3), count, number(s / count * 1e6), number(reference[n] / s, 2)]
                    for n, name, backend, s, count, _ in rows
                ],
            ),
        ]
    if "starts" in data:
        rows = data["starts"]["found"]
        said["starts"] = [
            "## Many starts",
            (
                "1000 minimizations of the extended Rosenbrock function of 10 variables, from a Latin hypercube of "
                f"half width 2 around the usual start, to a gradient of {TOLERANCE:g}."
            ),
            table(
                ["", "s", "evaluations", "SciPy's time / this", "found the lowest minimum"],
                [[how, number(s), count, number(rows[0][1] / s, 3), good] for how, s, count, good in rows],
            ),
        ]
    if "fits" in data:
        found = data["fits"]["found"]
        kinds = ("milliseconds per 1000", "errors, milliseconds per 1000", "SciPy, milliseconds per 1000")
        kinds += (
            "bytes per member",
            "bytes of inputs and outputs",
            "share with an active bound",
            "largest excess of the cost over SciPy's",
        )
        rows = [[kind, *(number(result[kind]) for result in found["bounded"].values())] for kind in kinds]
        coverage = [", ".join(f"{100 * share:.1f}" for share in r["coverage"]) for r in found["bounded"].values()]
        statuses = [", ".join(f"{k}: {v}" for k, v in r["statuses"].items()) for r in found["bounded"].values()]
        said["fits"] = [
            "## Many fits",
            (
                "1000 fits of a exp(-b t) + c to 30 points with noise, all from one start, by `on_data`, beside other "
                "packages, SciPy one after another, and a loop of numba with the equations of order 3 written out. "
                "Milliseconds of the processor for all, on one thread but where said; the first call in seconds of "
                "wall time with empty caches, compilation included; the largest component of the gradient, its median "
                "and how often it is above 1e-4. Each in a process of its own."
            ),
            table(
                ["", "ms", "cold, s", "median gradient", "above 1e-4"],
                [
                    [name, number(row[0]), number(row[1]), f"{row[2]:.0e}", row[3]]
                    for name, row in sorted(found["fits"].items(), key=lambda item: (item[1] or [np.inf])[0])
                    if row
                ],
            ),
            (
                "100,000 fits of three parameters with bounds to 32 points, simulated from the relaxation times of "
                "white and gray matter (`tests/benchmarks/fits.py`): how many ended with which status; percent of the "
                "95% intervals, by Student's t, that hold the true values, where no bound is active; what SciPy's "
                "bounded `curve_fit` takes for 1000 of them; and the most memory beyond that of the data."
            ),
            table(
                ["", *found["bounded"]],
                [["status: how many", *statuses], ["right intervals, %", *coverage], *rows],
            ),
        ]
    if "steps" in data:
        found = data["steps"]["found"]
        names = list(dict.fromkeys(name for row in found.values() for name in row))
        said["steps"] = [
            "## Steps of Adam",
            (
                "Microseconds per call of a compiled step, in float64 on one thread: a logistic regression with 20 "
                "parameters and 200 rows; a network of 64, 128 and 10 units with a batch of 64; ten million "
                "numbers with given gradients, beside a numba loop that reads four arrays and writes three in "
                "place."
            ),
            table(
                ["", *names],
                [
                    [case.replace("_", " "), *(number(row[n] and row[n] * 1e6) if n in row else "" for n in names)]
                    for case, row in found.items()
                ],
            ),
        ]
    if "growth" in data:
        found = data["growth"]["found"]
        said["growth"] = [
            "## How an iteration grows",
            (
                "Microseconds of an iteration inside of one compiled loop under numba, on the extended Rosenbrock "
                "function: 25 of them after the first 25, and 4 after 4 for the largest n. In these the searches need "
                "more evaluations than later. Of `adam`, which never ends, as many as 3 million components take, from "
                "4 to 10,000."
            ),
            table(
                ["n", *(f"{n:,}" for n in found["sizes"])],
                [[rule, *(number(s * 1e6) for s in row)] for rule, row in found["rules"].items()],
            ),
            "`lbfgs` with other numbers of pairs, 35 iterations after the first 35:",
            table(
                ["pairs", "n = 1,000", "n = 100,000"],
                [[m, *(number(s * 1e6) for s in row)] for m, row in found["memory"].items()],
            ),
        ]
    if "compilation" in data:
        said["compilation"] = [
            "## Compilation",
            (
                "Seconds of the processor from the call to the first result, for 10 variables: cold, with empty "
                "caches, and warm, with what the first left in its cache. The first two of each mode are PyTensor's "
                "own, without a rule."
            ),
            table(["", "", "build", "rewrite", "call", "total, cold", "warm"], data["compilation"]["found"]),
        ]
    if "costs" in data:
        said["costs"] = [
            "### Whole minimizations under numba",
            (
                "From `compile_minimizer` to the first result, seconds of the processor, and of the clock in "
                "parentheses: of a first cost with empty caches, of a second and a third that find what these have "
                "left, and of the first once more, each in a process of its own. The first line is the cost with its "
                "gradient alone, each with empty caches, but for the last, as PyTensor compiles them. Rosenbrock's "
                "function has 10 variables; the regression 21, and 200 rows, which are inputs; the network 58."
            ),
            table(
                ["", "Rosenbrock", "then a logistic regression", "then a network", "Rosenbrock again"],
                [[name, *(cell.replace("~", " ") for cell in cells)] for name, *cells in data["costs"]["found"]],
            ),
        ]
    if "memory" in data:
        found = data["memory"]["found"]
        peaks, times = found["peaks"], found["building"]
        rows = []
        for rule, ways in peaks.items():
            states = [state for state, _ in ways.values() if state is not None]
            cells = [number(ways[way][1]) if way in ways else "" for way in memory.WAYS]
            rows.append([rule, *([number(states[0])] if states else [""]), *cells])
        said["memory"] = [
            "## Memory",
            (
                "The most memory in use at a time, in vectors of as many numbers as the parameters have, of a million "
                "each. The state, with the parameters, is part of it, as is what the cost takes itself, some two "
                "vectors. The first modes are those of a function that updates shared variables. "
                "`compile_minimizer` and `minimize` keep the state from before an iteration until it is over."
            ),
            table(["", "state", *memory.WAYS], rows),
            "Seconds of the processor to build and compile under PYTHON for as many parameters, and to minimize:",
            table(
                ["", "parameters", "function", "compile_minimizer", "minimize"],
                [[rule, n, *map(number, row)] for rule, counts in times.items() for n, row in counts.items()],
            ),
        ]
    conditions = sorted({data[name]["conditions"] for name in data})
    lines = [
        "# Benchmarks",
        (
            "Written by `python tests/benchmarks/tables.py`. Times are the best of several in one process on "
            "two cores of a shared machine; the ratios are what counts. They are warm, compiled and run before, where "
            "nothing else is said; cold is a first call with empty caches, compilation included."
        ),
        *(f"Measured with {condition}." for condition in conditions),
        "![Times of whole minimizations, and of an iteration](benchmarks.png)",
    ]
    for section in said.values():
        lines += section
    PAGE.write_text("\n\n".join(lines) + "\n")


def picture(data):
    """Each curve has its name at its right end, spread so that none covers another."""
    from matplotlib.figure import Figure

    drawn = [name for name in ("minimizations", "growth") if name in data]
    figure = Figure(figsize=(7, 4.6 * len(drawn)), layout="constrained")
    panels = dict(zip(drawn, figure.subplots(len(drawn), 1, squeeze=False)[:, 0], strict=True))
    if "minimizations" in data:
        upper, curves = panels["minimizations"], {}
        for n, name, backend, seconds, *_ in data["minimizations"]["found"]:
            if "weak_wolfe" in name:
                continue  # hardly another curve
            curves.setdefault(name if name.startswith("SciPy") else f"{name} ({backend})", []).append(
                (n, 1e3 * seconds)
            )
        for name, points in curves.items():
            style = {"linewidth": 2.5} if name.startswith("optapi") else {"linewidth": 1, "linestyle": "--"}
            upper.loglog(*np.transpose(points), marker="o", label=name, **style)
        upper.set(xlabel="variables", ylabel="milliseconds, warm", title="L-BFGS to a gradient of 1e-6")
    if "growth" in data:
        lower, found = panels["growth"], data["growth"]["found"]
        for rule, row in found["rules"].items():
            lower.loglog(found["sizes"], [1e6 * s for s in row], marker="o", label=rule)
        lower.set(xlabel="variables", ylabel="microseconds, warm", title="An iteration, under numba")
    for axes in panels.values():
        axes.grid(alpha=0.3)
        name_curves(axes)
    figure.savefig(PICTURE, dpi=110)


def name_curves(axes):
    """Write the name of each curve beside its last point, a line of text apart from the next."""
    low, high = np.log(axes.get_ylim())
    lines = sorted(axes.lines, key=lambda line: line.get_ydata()[-1])
    heights = [(np.log(line.get_ydata()[-1]) - low) / (high - low) for line in lines]
    for k in range(1, len(heights)):
        heights[k] = max(heights[k], heights[k - 1] + 0.062)
    excess = max(0, heights[-1] - 0.98)
    for line, height in zip(lines, heights, strict=True):
        end = (line.get_xdata()[-1], line.get_ydata()[-1])
        arrow = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "relpos": (0, 0.5)}
        axes.annotate(line.get_label(), end, (1.03, height - excess), textcoords="axes fraction", va="center",
                      color=line.get_color(), arrowprops=arrow)  # fmt: skip


SECTIONS = {
    "minimizations": minimizations,
    "starts": starts,
    "fits": fits.measure,
    "steps": steps,
    "growth": growth,
    "compilation": compilation,
    "costs": costs,
    "memory": memory.measure,
}


def conditions(torch):
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch:
        code = "import torch; print(torch.__version__)"
        found["torch"] = subprocess.run([torch, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return f"Python {platform.python_version()}, " + ", ".join(f"{name} {number}" for name, number in found.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--torch", help="a Python that has torch")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, path = arguments.measure.split(":", 1)
        found = steps(arguments.torch) if name == "steps" else SECTIONS[name]()
        Path(path).write_text(json.dumps(found))
        return
    data = json.loads(DATA.read_text()) if DATA.exists() else {}
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    for name in arguments.sections or SECTIONS:
        part = DOCS / f".{name}.json"
        command = [sys.executable, "-W", "ignore", __file__, "--measure", f"{name}:{part}"]
        try:
            subprocess.run(
                [*command, *(["--torch", arguments.torch] if arguments.torch else [])], env=environment, check=True
            )
            data[name] = {"found": json.loads(part.read_text()), "conditions": conditions(arguments.torch)}
        finally:
            part.unlink(missing_ok=True)
        data = {name: data[name] for name in SECTIONS if name in data}
        DATA.write_text(json.dumps(data, indent=1) + "\n")
    page(data)
    picture(data)


if __name__ == "__main__":
    main()
