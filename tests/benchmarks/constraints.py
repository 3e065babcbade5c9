# ruff: noqa: T201
"""Rules with general constraints on the problems of tests/constrained.py, beside SciPy's methods.

Run by hand: ``python tests/benchmarks/constraints.py --output docs/constrained_problems.md``. All work on functions and
derivatives that PyTensor compiles, in pure Python.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytensor
import scipy
from scipy.optimize import Bounds, minimize

import optapi


sys.path.insert(0, str(Path(__file__).parent.parent))

from constrained import PROBLEMS


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
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[1 : 1 + len(runs)]))


if __name__ == "__main__":
    main()
