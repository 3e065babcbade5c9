# ruff: noqa: T201
"""Rules with general constraints on the problems of tests/constrained.py, beside SciPy's methods.

Run by hand: ``python tests/benchmarks/constraints.py --output docs/constrained_problems.md``. All work on functions and
derivatives that PyTensor compiles, in pure Python; the times are of what numba compiles. Where jaxopt is installed, its
algorithms for bounds are timed too.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy
from scipy.optimize import Bounds, minimize

import optapi


try:
    import jax
    import jaxopt
except ImportError:
    jax = jaxopt = None

sys.path.insert(0, str(Path(__file__).parent.parent))

from constrained import PROBLEMS, Constrained


RULES = {"sqp": optapi.sqp, "augmented_lagrangian": optapi.augmented_lagrangian}
METHODS = {"SLSQP": {"ftol": 1e-9, "maxiter": 1000}, "trust-constr": {"gtol": 1e-6, "maxiter": 3000}}
TOLERANCE, FEASIBLE, LIMIT = 1e-6, 1e-5, 20_000
INTRODUCTION = """# Problems with constraints

What the rules with general constraints do on {count} problems of Hock and Schittkowski (1981), Test examples for
nonlinear programming codes, beside SciPy's SLSQP and trust-constr. This page is written by
`tests/benchmarks/constraints.py`, and `tests/constrained.py` has the problems; do not edit it.

All run on the same compiled functions and derivatives in float64, from the standard starting points, put inside of the
bounds where they are not: the rules to their default tolerance of {tolerance:g}, SLSQP with ftol 1e-9, trust-constr
with gtol 1e-6 and at most 3000 iterations. A cell has the number of evaluations: of the rules, of everything at a
point; of SciPy's methods, of the cost alone, which SLSQP differentiates less often. The cost at the end stands
behind it where it is not within 1e-5 of the minimum, or violates a constraint by more than 1e-5; "other" says that it
is that of another known local minimum. PyTensor {pytensor}, SciPy {scipy}.
"""


def ran_ours(rule, problem):
    """The cost at the end, the largest violation, and the evaluations."""
    x, stop = pytensor.shared(problem.start, name="x", shape=problem.start.shape), pytensor.shared(0, name="stop")
    cost, constraints = problem.on(x)
    updates = rule([x], cost, stop=stop, constraints=constraints, bounds=(problem.low, problem.high))
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    reports = {role: variables[0] for role, variables in optapi.reports(updates).items()}
    while not stop.get_value() and reports["evaluations"].get_value() < LIMIT:
        step()
        if not np.all((problem.low <= x.get_value()) & (x.get_value() <= problem.high)):
            raise AssertionError(f"{rule.__name__} is outside of the bounds of {problem}")
    return tuple(float(reports[role].get_value()) for role in ("cost", "violation", "evaluations"))


def ran_scipy(method, problem):
    """The same of a method of SciPy."""
    evaluate, constraints = problem.compiled()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = minimize(
                lambda x: float(evaluate(x)[0]), np.clip(problem.start, problem.low, problem.high), method=method,
                jac=lambda x: evaluate(x)[1], bounds=Bounds(problem.low, problem.high), constraints=constraints,
                options=METHODS[method],
            )  # fmt: skip
        except ValueError:  # a matrix that is not finite
            return math.nan, math.inf, math.nan
        violation = 0.0
        for constraint in constraints:
            values = constraint["fun"](found.x)
            violation = max(violation, float(np.max(abs(values) if constraint["type"] == "eq" else -values)))
    return float(found.fun), violation, float(found.nfev)


def minimum_of(problem, run):
    """The minimum that a run is at, else None."""
    return problem.reached(run[0], 1e-5) if run[1] <= FEASIBLE else None


def hs71(x):
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2], [pt.sum(x**2) - 40], [pt.prod(x) - 25]


def hs100(x):
    a, b, c, d, e, f, g = (x[i] for i in range(7))
    cost = (a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2 + 10 * e**6 + 7 * f**2 + g**4
    rows = [
        127 - 2 * a**2 - 3 * b**4 - c - 4 * d**2 - 5 * e,
        282 - 7 * a - 3 * b - 10 * c**2 - d + e,
        196 - 23 * a - b**2 - 6 * f**2 + 8 * g,
        -4 * a**2 - b**2 + 3 * a * b - 2 * c**2 - 5 * f + 11 * g,
    ]
    return cost - 4 * f * g - 10 * f - 8 * g, [], rows


def bounded(n):
    """Rosenbrock's function of n components, each second one at most 1/2."""
    high = np.where(np.arange(n) % 2 == 1, 0.5, np.inf)

    def cost(x):
        return pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), [], []

    return Constrained(f"Rosenbrock, {n}", np.full(n, -1.0), np.full(n, -2.0), high, cost, math.nan)


def with_scipy(problem, method):
    """A function that minimizes with a method of SciPy, on what numba compiles."""
    evaluate, dictionaries = problem.compiled("NUMBA")
    arguments = {
        "jac": True, "method": method, "bounds": Bounds(problem.low, problem.high), "constraints": dictionaries,
        "options": {"ftol": 1e-9} if method == "SLSQP" else {"ftol": 0.0, "gtol": 1e-5},
    }  # fmt: skip

    def minimized():
        found = minimize(evaluate, problem.start, **arguments)
        return float(found.fun), found.nfev

    return minimized


def with_jaxopt(problem, name):
    """The same with a solver of jaxopt, whose whole loop JAX compiles."""

    def cost(x):
        return jax.numpy.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    options = {"tol": 1e-5, "maxiter": 10_000}
    if name == "LBFGSB":
        solver = jaxopt.LBFGSB(cost, **options)
    else:
        solver = jaxopt.ProjectedGradient(cost, jaxopt.projection.projection_box, **options)
    start, low, high = map(jax.numpy.asarray, (problem.start, problem.low, problem.high))
    run = jax.jit(lambda x: solver.run(x, (low, high)))

    def minimized():
        found = jax.block_until_ready(run(start))
        count = getattr(found.state, "num_fun_eval", None)
        return float(cost(found.params)), f"{found.state.iter_num} iterations" if count is None else int(count)

    return minimized


def times():
    """What whole minimizations take that numba compiles, beside those of others, as lines of a table."""
    if jax is not None:
        jax.config.update("jax_enable_x64", True)
    unbounded = np.full((2, 7), np.inf) * [[-1], [1]]
    problems = [
        (Constrained("HS71", np.array([1.0, 5, 5, 1]), np.ones(4), np.full(4, 5.0), hs71, 17.0140173), "sqp"),
        (Constrained("HS100", np.array([1.0, 2, 0, 4, 0, 1, 1]), *unbounded, hs100, 680.63), "sqp"),
        *((bounded(n), "lbfgs") for n in (10, 50, 1000)),
    ]
    for problem, name in problems:
        x = pytensor.shared(problem.start, name="x", shape=problem.start.shape)
        cost, constraints = problem.on(x)
        options = {"bounds": (problem.low, problem.high)} | ({"constraints": constraints} if name == "sqp" else {})
        began = time.perf_counter()
        run = optapi.compile_minimizer([x], cost, name, mode="NUMBA", **options)

        def ours(x=x, run=run, problem=problem):
            x.set_value(problem.start)
            found = run()
            return found.fun, found.nfev

        ours()
        compiled = time.perf_counter() - began
        others = {"SLSQP" if name == "sqp" else "L-BFGS-B": with_scipy}
        if jax is not None and name == "lbfgs":
            others |= {"LBFGSB": with_jaxopt, "ProjectedGradient": with_jaxopt}
        calls = [ours, *(make(problem, other) for other, make in others.items())]
        ends, best = [call() for call in calls], [math.inf] * len(calls)
        lowest = min(fun for fun, _ in ends)
        for _ in range(15):  # in turns
            for place, call in enumerate(calls):
                began = time.perf_counter()
                for _ in range(5):
                    call()
                best[place] = min(best[place], (time.perf_counter() - began) / 5)
        for place, (other, make) in enumerate(others.items(), 1):
            label = f"{'jaxopt' if make is with_jaxopt else 'SciPy'}, {other}"
            fun, count = ends[place]
            if fun > lowest + 1e-6 * max(1, abs(lowest)):
                count = f"{count}: {fun:.6g}"
            yield (
                f"| {problem.name} | `{name}` | {1000 * best[0]:.2f} | {ends[0][1]} | {label} | "
                f"{1000 * best[place]:.2f} | {count} | {best[place] / best[0]:.1f} | {compiled:.0f} |"
            )


def cell(problem, run):
    """What the table says of a run."""
    minimum, count = minimum_of(problem, run), f"{run[2]:.0f}"
    if math.isnan(run[0]):
        return "error"
    if minimum == problem.minimum:
        return count
    return f"{count}: {'other' if minimum is not None else f'{run[0]:.6g}'}"


def summary(name, runs, others):
    """How often a method is at the minimum, and its evaluations beside those of SLSQP."""
    at = [minimum_of(problem, run) for problem, run in zip(PROBLEMS, runs, strict=True)]
    best = sum(minimum == problem.minimum for minimum, problem in zip(at, PROBLEMS, strict=True))
    other = sum(minimum is not None for minimum in at) - best
    ratios = [
        mine[2] / theirs[2]
        for problem, mine, theirs in zip(PROBLEMS, runs, others, strict=True)
        if minimum_of(problem, mine) is not None and minimum_of(problem, mine) == minimum_of(problem, theirs)
    ]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return (
        f"- `{name}`: at the minimum of {best} of {len(PROBLEMS)}, at another one of {other}; evaluations over those "
        f"of SLSQP, where both are at the same one: geometric mean {mean:.2f}, median {np.median(ratios):.2f}, largest "
        f"{max(ratios):.2f}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs = {name: [] for name in (*RULES, *METHODS)}
    for problem in PROBLEMS:
        for name, rule in RULES.items():
            runs[name].append(ran_ours(rule, problem))
        for method in METHODS:
            runs[method].append(ran_scipy(method, problem))
        print(problem, *(f"{name}: {cell(problem, found[-1])}" for name, found in runs.items()), sep="  ", flush=True)
    with_versions = ""
    if jax is not None:
        with_versions = f", and jaxopt {version('jaxopt')}'s solvers in loops that JAX {jax.__version__} compiles"
    versions = {"pytensor": pytensor.__version__, "scipy": scipy.__version__}
    lines = [
        INTRODUCTION.format(count=len(PROBLEMS), tolerance=TOLERANCE, **versions),
        *(summary(name, found, runs["SLSQP"]) for name, found in runs.items()),
        "",
        "| problem | n | " + " | ".join(f"`{name}`" if name in RULES else name for name in runs) + " |",
        "|---|--:" + "|--:" * len(runs) + "|",
    ]
    for number, problem in enumerate(PROBLEMS):
        cells = [cell(problem, found[number]) for found in runs.values()]
        lines.append("| " + " | ".join([problem.name, str(problem.start.size), *cells]) + " |")
    lines += [
        "",
        "## Times",
        "",
        (
            "Whole minimizations compiled by numba, result included, beside SciPy's methods on a cost and derivatives "
            f"that numba compiles{with_versions}, in milliseconds, the best of 15 in turns. A cost stands behind the "
            "evaluations where it is higher than that of others. The last column is the first call, part of which "
            "comes from numba's cache."
        ),
        "",
        "| problem | rule | ms | evaluations | beside | ms | evaluations | times as fast | s to compile |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|",
        *times(),
    ]
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[1 : 1 + len(runs)]))


if __name__ == "__main__":
    main()
