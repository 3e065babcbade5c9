# ruff: noqa: T201
"""Rules with bounds on the problems of tests/bounded.py, beside SciPy's methods.

Run by hand: ``python tests/benchmarks/constrained.py --output docs/bounds_problems.md``. All work on the cost and
gradient that PyTensor compiles, in pure Python, and end at the same tolerance for the projected gradient.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pytensor
import scipy
from scipy.optimize import minimize

import optapi


sys.path.insert(0, str(Path(__file__).parent.parent))

from bounded import PROBLEMS


RULES = {
    "lbfgs": optapi.lbfgs,
    "trust_region_cg": optapi.trust_region_cg,
    "barzilai_borwein": optapi.barzilai_borwein,
}
METHODS = {
    "L-BFGS-B": {"ftol": 0.0, "maxfun": 15000},
    "TNC": {"ftol": 0.0, "xtol": 0.0, "maxfun": 15000},
}
TOLERANCE, LIMIT = 1e-6, 15000
INTRODUCTION = """# Problems with bounds

What the rules with bounds do on {count} problems, most of them of Hock and Schittkowski (1981), Test examples for
nonlinear programming codes, and of the CUTEst collection, beside SciPy's L-BFGS-B and TNC. This page is written by
`tests/benchmarks/constrained.py`, and `tests/bounded.py` has the problems; do not edit it.

All run on the same compiled cost and gradient in float64, from the standard starting points, put inside of the bounds
where they are not, until no component of the projected gradient exceeds {tolerance:g}, for at most {limit} evaluations;
SciPy's tolerances on the cost and the step are 0. A cell has the number of evaluations, each one of the cost together
with its gradient, and of products with the Hessian after a plus sign. A cost at the end stands behind the evaluations
where it is not within 1e-6 of the minimum; "other" says that it is that of another known local minimum. PyTensor
{pytensor}, SciPy {scipy}.
"""


def ran_ours(rule, problem):
    """The cost at the end, the evaluations and the products of one compiled call of the rule after another."""
    p, stop = pytensor.shared(problem.start, name="x"), pytensor.shared(0, name="stop")
    bounds = {p: (problem.low, problem.high)}
    updates = rule([p], problem.cost(p), stop=stop, bounds=bounds, tolerance=TOLERANCE)
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    reports = optapi.reports(updates)
    [evaluations] = reports["evaluations"]
    while not stop.get_value() and evaluations.get_value() < LIMIT:
        step()
        x = p.get_value()
        if not np.all((problem.low <= x) & (x <= problem.high)):
            raise AssertionError(f"{rule.__name__} is outside of the bounds of {problem}")
    products = int(reports["products"][0].get_value()) if "products" in reports else 0
    return float(problem.evaluate(p.get_value())[0]), int(evaluations.get_value()), products


def ran_scipy(method, problem):
    """The same of a method of SciPy."""

    def cost_and_gradient(x):
        value, gradient = problem.evaluate(x)
        return float(value), gradient

    with np.errstate(all="ignore"):
        found = minimize(
            cost_and_gradient,
            np.clip(problem.start, problem.low, problem.high),
            jac=True,
            method=method,
            bounds=list(zip(problem.low, problem.high, strict=True)),
            options={"gtol": TOLERANCE, **METHODS[method]},
        )
    return float(found.fun), int(found.nfev), 0


def cell(problem, value, evaluations, products):
    """What the table says of a run."""
    count = f"{evaluations} + {products}" if products else f"{evaluations}"
    minimum = problem.reached(value)
    if minimum == problem.minimum:
        return count
    return f"{count}: {'other' if minimum is not None else f'{value:.6g}'}"


def summary(name, problems, ours, theirs):
    """How often a rule is at a minimum, and its evaluations beside those of L-BFGS-B."""
    at = sum(p.reached(run[0]) is not None for p, run in zip(problems, ours, strict=True))
    ratios = [
        (mine[1] + 2 * mine[2]) / other[1]
        for p, mine, other in zip(problems, ours, theirs, strict=True)
        if p.reached(mine[0]) is not None and p.reached(mine[0]) == p.reached(other[0])
    ]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return (
        f"- `{name}`: at a minimum of {at} of {len(problems)}; evaluations over those of L-BFGS-B, where both are at "
        f"the same one: geometric mean {mean:.2f}, median {np.median(ratios):.2f}, largest {max(ratios):.2f}."
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
        print(problem, *(f"{name}: {cell(problem, *found[-1])}" for name, found in runs.items()), sep="  ", flush=True)
    lines = [
        INTRODUCTION.format(
            count=len(PROBLEMS),
            tolerance=TOLERANCE,
            limit=LIMIT,
            pytensor=pytensor.__version__,
            scipy=scipy.__version__,
        ),
        *(summary(name, PROBLEMS, runs[name], runs["L-BFGS-B"]) for name in (*RULES, "TNC")),
        "",
        "In a sum of evaluations a product counts as two.\n",
        "| problem | n | " + " | ".join(f"`{name}`" for name in RULES) + " | " + " | ".join(METHODS) + " |",
        "|---|--:" + "|--:" * len(runs) + "|",
    ]
    for number, problem in enumerate(PROBLEMS):
        cells = [cell(problem, *found[number]) for found in runs.values()]
        lines.append("| " + " | ".join([problem.name, str(problem.start.size), *cells]) + " |")
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
