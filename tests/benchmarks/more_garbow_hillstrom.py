# ruff: noqa: T201
"""Rules on the problems of Moré, Garbow and Hillstrom, beside SciPy's methods of the same kind.

Run by hand, with the rules in the order of the page: ``python tests/benchmarks/more_garbow_hillstrom.py lbfgs bfgs sr1
hager_zhang_cg polak_ribiere fletcher_reeves hestenes_stiefel dai_yuan scaled_conjugate_gradient newton newton_cg
trust_region_cg levenberg_marquardt --single lbfgs newton_cg trust_region_cg --scale --output docs/problems.md``. Both
work on the cost and gradient that PyTensor compiles, in pure Python, and end at the same gradient tolerance.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy
from scipy.optimize import least_squares, minimize

import optapi


sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
sys.path.insert(0, str(Path(__file__).parent.parent))

from more_garbow_hillstrom import PROBLEMS
from test_scale import SEARCHING, quartic


# SciPy's method of the same kind. The others are judged beside its conjugate gradients.
METHODS = {
    "lbfgs": "L-BFGS-B",
    "bfgs": "BFGS",
    "sr1": "BFGS",
    "newton": "Newton-CG",
    "newton_cg": "Newton-CG",
    "trust_region_cg": "trust-ncg",
}
# What these count beside evaluations: products with the Hessian, each of which costs about two evaluations.
WITH_PRODUCTS = ("Newton-CG", "trust-ncg")
DEFAULT = ["lbfgs", "bfgs", "hager_zhang_cg", "polak_ribiere", "fletcher_reeves", "hestenes_stiefel", "dai_yuan"]


@dataclass(frozen=True)
class Result:
    """How one run ended."""

    value: float
    gradient_size: float
    iterations: int
    evaluations: int
    reached: bool
    why: str
    products: int | None = None

    @property
    def cells(self):
        """The cells of a table."""
        evaluations = f"{self.evaluations}" if self.products is None else f"{self.evaluations} + {self.products}"
        return ["yes" if self.reached else f"no: {self.value:.6g}", str(self.iterations), evaluations]

    @property
    def cost(self):
        """What the run cost, in evaluations."""
        return self.evaluations + 2 * (self.products or 0)


def ended(problem, point, iterations, evaluations, why, products=None):
    """The result of a run that ended at `point`, judged in float64."""
    value, gradient = problem.evaluate(np.asarray(point, "float64"))
    reached = problem.reached(float(value)) is not None
    return Result(float(value), float(np.max(np.abs(gradient))), iterations, int(evaluations), reached, why, products)


def budget(method, size):
    """SciPy's default limits of iterations and evaluations."""
    return (15000, 15000) if method == "L-BFGS-B" else (200 * size, math.inf)


def run_ours(rule, problem, method, tolerance, dtype, **options):
    """One compiled call of the rule after another."""
    p, stop = pytensor.shared(problem.start.astype(dtype), name="x"), pytensor.shared(0, name="stop")
    updates = rule([p], problem.cost([p]), stop=stop, tolerance=tolerance, **options)
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    reports = optapi.reports(updates)
    [evaluations], [reason] = reports["evaluations"], reports["reason"]
    limit, evaluations_limit = budget(method, problem.start.size)
    iterations = 0
    while not stop.get_value() and iterations < limit and evaluations.get_value() < evaluations_limit:
        step()
        iterations += 1
    why = "limit" if not stop.get_value() else str(int(reason.get_value()))
    products = int(reports["products"][0].get_value()) if method in WITH_PRODUCTS else None
    return ended(problem, p.get_value(), iterations, evaluations.get_value(), why, products)


def run_scipy(problem, method, tolerance, dtype):
    """SciPy's method with its defaults, but for the tolerances."""
    function = problem.evaluate if dtype == "float64" else problem.compiled(dtype)

    def cost_and_gradient(x):
        value, gradient = function(x.astype(dtype))
        return float(value), gradient.astype("float64")

    start = problem.start.astype(dtype).astype("float64")
    if method in WITH_PRODUCTS:
        return run_newton(problem, method, cost_and_gradient, start, tolerance, dtype)
    options = {"gtol": tolerance} | ({"ftol": 1e-20} if method == "L-BFGS-B" else {})
    with np.errstate(all="ignore"):
        found = minimize(cost_and_gradient, start, jac=True, method=method, options=options)
    return ended(problem, found.x, found.nit, found.nfev, str(found.status))


def run_newton(problem, method, cost_and_gradient, start, tolerance, dtype):
    """One of SciPy's methods with products, ended by a callback, since their own tests are of other quantities."""
    x, v = (pt.vector(dtype=dtype, shape=start.shape) for _ in range(2))
    slope = pt.sum(pytensor.grad(problem.cost([x]), x) * v)
    product = pytensor.grad(slope, x, consider_constant=[v], disconnected_inputs="ignore")
    multiply = pytensor.function([x, v], product, mode=optapi.PYTHON, on_unused_input="ignore")
    count = 0

    def hessp(x, v):
        nonlocal count
        count += 1
        return multiply(x.astype(dtype), v.astype(dtype)).astype("float64")

    def callback(x):
        if np.max(np.abs(cost_and_gradient(x)[1])) <= tolerance:
            raise StopIteration

    options = {"xtol": 1e-30} if method == "Newton-CG" else {"gtol": 1e-30}
    options["maxiter"] = 200 * start.size
    with np.errstate(all="ignore"):
        found = minimize(
            cost_and_gradient, start, jac=True, hessp=hessp, method=method, callback=callback, options=options
        )
    return ended(problem, found.x, found.nit, found.nfev, str(found.status), count)


def geometric_mean(ratios):
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def table(pairs):
    """The Markdown of the runs of one rule and SciPy's."""
    lines = [
        "| | problem | n | minimum | iterations | evaluations | SciPy: minimum | iterations | evaluations | ratio |",
        "|--:|---|--:|---|--:|--:|---|--:|--:|--:|",
    ]
    ratios = []
    for problem, ours, theirs in pairs:
        ratio = ""
        if ours.reached and theirs.reached:
            ratios.append(ours.cost / theirs.cost)
            ratio = f"{ratios[-1]:.2f}"
        cells = [str(problem.number), problem.name, str(problem.start.size), *ours.cells, *theirs.cells, ratio]
        lines.append("| " + " | ".join(cells) + " |")
    return lines, ratios


def section(name, method, pairs):
    """The Markdown of one rule: its table, and what the table comes to."""
    lines, ratios = table(pairs)
    ours, theirs = (sum(pair[i].reached for pair in pairs) for i in (1, 2))
    summary = f"`{name}` reaches a minimum of {ours} of {len(pairs)} problems, SciPy's {method} of {theirs}."
    if ratios:
        summary += (
            f" Evaluations of `{name}` over SciPy's, where both do: geometric mean {geometric_mean(ratios):.2f}, "
            f"largest {max(ratios):.2f}."
        )
    return "\n".join([f"## {name} and SciPy's {method}", "", summary, "", *lines, ""])


def marquardt_section(problems):
    """The Markdown of `levenberg_marquardt` and MINPACK's program, from near and far."""
    lines = [
        "| | problem | n | from | minimum | iterations | evaluations | SciPy: minimum | Jacobians | evaluations |",
        "|--:|---|--:|--:|---|--:|--:|---|--:|--:|",
    ]
    counts = {factor: [0, 0] for factor in (1, 10, 100)}
    for problem in problems:
        p, stop = pytensor.shared(problem.start, name="x", shape=problem.start.shape), pytensor.shared(0, name="stop")
        r = problem.at(p)
        updates = optapi.levenberg_marquardt([p], residuals=r, stop=stop, tolerance=1e-12)
        step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
        begin = [variable.get_value() for variable in updates]
        x = pt.dvector(shape=problem.start.shape)
        residuals = pytensor.function([x], problem.at(x), mode=optapi.PYTHON)
        jacobian = pytensor.function([x], pytensor.gradient.jacobian(problem.at(x), x), mode=optapi.PYTHON)
        for factor, count in counts.items():
            for variable, value in zip(updates, begin, strict=True):
                variable.set_value(value)
            start = factor * problem.start if factor == 1 or np.any(problem.start) else 0 * problem.start + factor
            p.set_value(start)
            iterations = 0
            while not stop.get_value() and iterations < 2000 * start.size:
                step()
                iterations += 1
            [evaluations] = optapi.reports(updates)["evaluations"]
            ours = ended(problem, p.get_value(), iterations, evaluations.get_value(), "")
            exactly = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 2000 * start.size}
            with np.errstate(all="ignore"):
                found = least_squares(residuals, start, jacobian, method="lm", **exactly)
            theirs = ended(problem, found.x, found.njev, found.nfev, "")
            for which, result in enumerate((ours, theirs)):
                count[which] += result.reached
            cells = [problem.number, problem.name, start.size, factor, *ours.cells, *theirs.cells]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    reached = ", ".join(f"{ours} and {theirs} from {f}" for f, (ours, theirs) in counts.items())
    summary = (
        "From the standard starts, and from 10 and 100 times these (or from points of 10 and 100 where it is zero), "
        "`levenberg_marquardt` and SciPy's `least_squares(method=\"lm\")`, which is MINPACK's program, reach a minimum "
        f"of so many of {len(problems)} problems: {reached} times the start. Both go on until there is no further "
        "progress, or the gradient is zero to 1e-12 (by SciPy's own measure to 1e-15), in no more than 2000 n "
        "iterations or evaluations. Each iteration has one Jacobian."
    )
    return "\n".join(["## levenberg_marquardt and MINPACK's", "", summary, "", *lines, ""])


def single_section(name, problems, tolerance):
    """The Markdown of one rule in float32: where it says success, and how far the minimum is in float64."""
    lines = [
        "| | problem | n | cost | above the minimum | says | iterations | evaluations |",
        "|--:|---|--:|--:|--:|---|--:|--:|",
    ]
    near, told = [], 0
    for problem in problems:
        run = run_ours(getattr(optapi, name), problem, METHODS[name], tolerance, "float32")
        minimum = min((*problem.minima, *problem.others), key=lambda minimum: abs(run.value - minimum))
        # What a cost is as a multiple of: by how much it fell, from the start in float32 on.
        fell = float(problem.evaluate(problem.start)[0]) - minimum
        above = (run.value - minimum) / fell if fell > 0 else math.inf
        says = {"0": "converged", "7": "converged to the precision of the cost"}.get(run.why)
        if above <= 1e-6:
            near.append(problem)
            told += says is not None
        cells = [problem.number, problem.name, problem.start.size, f"{run.value:.6g}", f"{above:.1e}"]
        cells += [says or {"2": "no further progress"}.get(run.why, run.why), run.iterations, run.cells[-1]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    summary = (
        f"In float32, `{name}` comes within 1e-6 of a minimum of {len(near)} of {len(problems)} problems, as a part of "
        f"what the cost falls from the start, and says success at {told} of these."
    )
    return "\n".join([f"## {name} in float32", "", summary, "", *lines, ""])


def scale_section(names):
    """The Markdown of the shares of a family of inputs in units beyond those in which the tests ask for all."""
    powers = {"float64": (20, 40), "float32": (8, 10)}
    heads = [f"{dtype}, 1e±{power}" for dtype in powers for power in powers[dtype]]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    lines += [
        f"| `{name}` | "
        + " | ".join(f"{share(name, dtype, power):.0%}" for dtype in powers for power in powers[dtype])
        + " |"
        for name in names
    ]
    summary = (
        "A separable quartic of two components with its minimizer at (1, 2) units of the parameters: the share of 12 "
        "inputs solved, with success and to 6 digits (3 in float32), where the units of the parameters and of the cost "
        "are 1 or the power at the head of the column. Up to 1e±12, in float32 1e±6, the tests ask for all. "
        "Inputs whose derivatives at the start are not normal numbers of the precision are left out."
    )
    return "\n".join(["## Units of the parameters and of the cost", "", summary, "", *lines, ""])


def share(name, dtype, power):
    """The share of the inputs of the tests of scales that the rule solves, in units of 10 to this power."""
    relative, digits = {"float64": (1e-6, 1e-6), "float32": (1e-4, 1e-3)}[dtype]
    solved = []
    for x_power, cost_power in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, -1), (1, 0)):
        x_unit, cost_unit = 10.0 ** (power * x_power), 10.0 ** (power * cost_power)
        f, df, hessp = quartic(dtype, x_unit, cost_unit)
        for start in ([3, -2], [0, 0]):
            x0 = np.asarray(x_unit, dtype) * np.asarray(start, dtype)
            with np.errstate(all="ignore"):
                sizes = np.abs([f(x0), *df(x0), *hessp(x0, np.asarray([x_unit, x_unit], dtype)), x_unit**2])
                if not np.all((sizes >= np.finfo(dtype).tiny) & (sizes <= np.finfo(dtype).max)):
                    continue
                options = {"tolerance": relative * cost_unit / x_unit, "full_output": True, "hessp": hessp}
                result = optapi.minimize(x0, f, df, name, **options)
            solved.append(result.success and np.allclose(result.x / x_unit, [1, 2], rtol=digits, atol=0))
    return np.mean(solved)


INTRODUCTION = """# The problems of Moré, Garbow and Hillstrom

What the rules do on the 35 problems of Moré, Garbow and Hillstrom (1981), Testing unconstrained optimization software,
ACM Transactions on Mathematical Software 7, 17-41, beside SciPy's methods of the same kind. This page is written by
`tests/benchmarks/more_garbow_hillstrom.py`; do not edit it.

Both run on the same compiled cost and gradient in {dtype}, from the standard starting points, until no component of the
gradient exceeds {tolerance:g}, and no longer than SciPy's default budget: 200 n iterations, or 15000 iterations and
evaluations for L-BFGS-B. The tolerance of L-BFGS-B on the cost is 1e-20; what else can be set is as by default. The
column "minimum" says yes if the cost at the end has three digits in common with one that the paper gives or that the
tests verify to be another local minimum, or is at most 1e-6 where the minimum is 0; else it gives the cost. An
evaluation is one of the cost together with its gradient. For Newton's methods products with the Hessian are counted
after a plus sign; a product is taken as two evaluations in the ratio. PyTensor {pytensor}, SciPy {scipy}.
"""


def main():
    """Run what the command line says, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rules", nargs="*", default=DEFAULT, help="names of rules of optapi")
    parser.add_argument(
        "--line-search", help="the name of a search of optapi.line_search; by default that of each rule"
    )
    parser.add_argument("--float32", action="store_true", help="parameters and arithmetic in float32")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--problems", type=int, nargs="*", help="the numbers of the problems; by default all")
    parser.add_argument("--output", type=Path, help="the file to write")
    parser.add_argument("--single", nargs="*", default=[], help="names of rules that have a section in float32, too")
    parser.add_argument("--scale", action="store_true", help="the shares of inputs solved in extreme units, too")
    arguments = parser.parse_args()

    dtype = "float32" if arguments.float32 else "float64"
    problems = [p for p in PROBLEMS if not arguments.problems or p.number in arguments.problems]
    options = {"line_search": getattr(optapi.line_search, arguments.line_search)} if arguments.line_search else {}
    sections, theirs = [], {}

    def add(text):
        print(text, flush=True)
        sections.append(text)

    for name in arguments.rules:
        if name == "levenberg_marquardt":
            add(marquardt_section(problems))
            continue
        method = METHODS.get(name, "CG")
        if method not in theirs:
            theirs[method] = [run_scipy(p, method, arguments.tolerance, dtype) for p in problems]
        rule = getattr(optapi, name)
        ours = [run_ours(rule, p, method, arguments.tolerance, dtype, **options) for p in problems]
        add(section(name, method, list(zip(problems, ours, theirs[method], strict=True))))
    for name in arguments.single:
        add(single_section(name, problems, arguments.tolerance))
    if arguments.scale:
        add(scale_section([name for name in arguments.rules if name in SEARCHING]))
    versions = {"pytensor": pytensor.__version__, "scipy": scipy.__version__}
    page = INTRODUCTION.format(dtype=dtype, tolerance=arguments.tolerance, **versions)
    if arguments.output:
        arguments.output.write_text("\n".join([page, *sections]))


if __name__ == "__main__":
    main()
