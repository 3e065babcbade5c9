# ruff: noqa: T201
"""Rules for penalties on the problems of tests/nonsmooth.py, and larger ones beside other programs.

Run by hand: ``python tests/benchmarks/nonsmooth.py --large --output docs/nonsmooth_problems.md``. Without ``--large``
it leaves out the times of a lasso of 500 x 5000 and an L1 logistic regression, beside scikit-learn and, where it is
installed, jaxopt.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy

import optapi


sys.path.insert(0, str(Path(__file__).parent.parent))

import nonsmooth


REACHED, LIMIT = 1e-7, 20000
INTRODUCTION = """# Problems with penalties

What the rules for penalties do on the {count} problems of `tests/nonsmooth.py`, on data of scikit-learn, whose minima
are certified by a duality gap. This page is written by `tests/benchmarks/nonsmooth.py`; do not edit it.

All begin at 0, in float64. A cell has the number of evaluations, each one of the smooth cost together with its
gradient, after which the whole cost is within {reached:g} of the minimum, relative to it; and after a slash that of
the whole run, to a residual of 1e-6 times the root of the minimum. "Zeros" says whether at the end exactly those
components are 0 that are so at the minimizer. PyTensor {pytensor}, SciPy {scipy}.
"""


def ran(rule, problem, **options):
    """The evaluations to `REACHED`, those of the whole run, and the last point."""
    x, stop = pytensor.shared(np.zeros(problem.size), name="x"), pytensor.shared(0, name="stop")
    updates = rule([x], problem.cost(x), stop=stop, tolerance=1e-6 * problem.minimum**0.5, **options)
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    [evaluations] = optapi.reports(updates)["evaluations"]
    first = None
    while not stop.get_value() and evaluations.get_value() < LIMIT:
        step()
        if first is None and problem.excess(x.get_value()) <= REACHED:
            first = int(evaluations.get_value())
    return first, int(evaluations.get_value()), x.get_value()


def rules_of(problem):
    """The rules that take the problem, with their options."""
    rules = {}
    if problem.l1 is not None:
        rules["lbfgs"] = (optapi.lbfgs, {"l1": problem.l1})
    elif "nnls" in problem.name:
        rules["lbfgs"] = (optapi.lbfgs, {"bounds": (0, None)})
    rules["proximal_lbfgs"] = (optapi.proximal_lbfgs, {"prox": problem.penalty})
    rules["proximal_gradient"] = (optapi.proximal_gradient, {"prox": problem.penalty})
    return rules


def table():
    """The lines of the table, and the medians."""
    names = ["lbfgs", "proximal_lbfgs", "proximal_gradient"]
    rows, counts = [], {name: [] for name in names}
    for problem in map(nonsmooth.problem, nonsmooth.NAMES):
        cells, zeros = [], True
        for name in names:
            if name not in (rules := rules_of(problem)):
                cells.append("")
                continue
            rule, options = rules[name]
            first, total, x = ran(rule, problem, **options)
            counts[name].append(first)
            zeros = zeros and list(np.flatnonzero(x)) == problem.support
            cells.append(f"{first} / {total}")
        print(problem, cells, zeros)
        rows.append(
            " | ".join(
                ["", problem.name, str(problem.size), str(len(problem.support)), *cells, "all" if zeros else "no", ""]
            ).strip()
        )
    head = f"| problem | n | not 0 | {' | '.join(f'`{name}`' for name in names)} | zeros |"
    medians = [f"- `{name}`: {np.median(found):g} evaluations in the median." for name, found in counts.items()]
    return [*medians, "", head, "|---|--:|--:|--:|--:|--:|---|", *rows]


# Large ones


def timed(run, repeats=3):
    """The shortest of some runs, in seconds, and what the last returned."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def to_gap(run, gap, tolerances):
    """The tolerance, the seconds and the point of the first run with a relative gap of at most 1e-6."""
    for tolerance in tolerances:
        seconds, x = timed(lambda tolerance=tolerance: run(tolerance))
        if gap(x) <= 1e-6:
            break
    return tolerance, seconds, gap(x), int(np.count_nonzero(x))


def lasso_gap(A, y, weight):
    """From a point of the lasso to its relative duality gap."""

    def gap(x):
        r = y - A @ x
        primal = r @ r / 2 + weight * np.sum(abs(x))
        u = r * min(1.0, weight / np.max(abs(A.T @ r)))
        return (primal - (y @ y - (y - u) @ (y - u)) / 2) / primal

    return gap


def logistic_gap(A, y, weight):
    """The same of the L1 logistic regression."""

    def gap(x):
        m = y * (A @ x)
        primal = np.sum(np.logaddexp(0, -m)) + weight * np.sum(abs(x))
        u = 1 / (1 + np.exp(m))
        u = u * min(1.0, weight / np.max(abs(A.T @ (y * u))))
        dual = -np.sum(u * np.log(u) + (1 - u) * np.log1p(-u))
        return (primal - dual) / primal

    return gap


def ours(cost, rule, size, mode, **options):
    """A function from a tolerance to the solution, compiled once for all with the tolerance as an input."""
    x, tolerance = pytensor.shared(np.zeros(size), name="x"), pt.dscalar("tolerance")
    began = time.perf_counter()
    run = optapi.compile_minimizer(
        [x], cost(x), rule, inputs=[tolerance], tolerance=tolerance, mode=mode, max_iterations=20000, **options
    )

    def solved(value):
        x.set_value(np.zeros(size))
        return run(value).x[0]

    solved(1e30)
    return solved, time.perf_counter() - began


def large(mode):
    """Lines of a table of times."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(500, 5000))
    y = A[:, :50] @ rng.normal(size=50) + rng.normal(size=500)
    labels = np.sign(y)
    tolerances = [10.0**k for k in range(2, -8, -1)]
    lines = ["| problem | program | compiled in | seconds | relative gap | not 0 |", "|---|---|--:|--:|--:|--:|"]
    for name, cost, gap, weight in (
        ("lasso", lambda x: pt.sum((pt.dot(A, x) - y) ** 2) / 2, lasso_gap, 0.1 * np.max(abs(A.T @ y))),
        (
            "logistic",
            lambda x: pt.sum(pt.softplus(-labels * pt.dot(A, x))),
            logistic_gap,
            0.1 * np.max(abs(A.T @ labels)) / 2,
        ),
    ):
        gap = gap(A, y if name == "lasso" else labels, weight)

        def add(program, compiled, found, name=name):
            _, seconds, reached, count = found
            took = "" if compiled is None else f"{compiled:.1f} s"
            lines.append(f"| {name} | {program} | {took} | {seconds:.3f} | {reached:.1e} | {count} |")
            print(lines[-1], flush=True)

        for rule, options in (
            ("lbfgs", {"l1": weight}),
            ("proximal_lbfgs", {"prox": optapi.prox.L1(weight)}),
            ("proximal_gradient", {"prox": optapi.prox.L1(weight)}),
        ):
            run, compiled = ours(cost, rule, 5000, mode, **options)
            add(f"`{rule}`", compiled, to_gap(run, gap, tolerances))
        add("scikit-learn", None, to_gap(theirs(name, A, y if name == "lasso" else labels, weight), gap, tolerances))
        if find_spec("jaxopt") is not None:
            add("jaxopt", None, to_gap(by_jaxopt(name, A, y if name == "lasso" else labels, weight), gap, tolerances))
    return lines


def theirs(name, A, y, weight):
    """scikit-learn's coordinate descent, and liblinear."""
    from sklearn.linear_model import Lasso, LogisticRegression

    def run(tolerance):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "lasso":
                model = Lasso(weight / len(y), fit_intercept=False, tol=tolerance * 1e-3, max_iter=100000)
            else:
                options = {"penalty": "l1", "solver": "liblinear", "fit_intercept": False, "max_iter": 100000}
                model = LogisticRegression(C=1 / weight, tol=tolerance * 1e-3, **options)
            return model.fit(A, y).coef_.ravel()

    return run


def by_jaxopt(name, A, y, weight):
    """FISTA of jaxopt, compiled as a whole."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    import jaxopt

    def cost(x):
        if name == "lasso":
            return jnp.sum((A @ x - y) ** 2) / 2
        return jnp.sum(jnp.logaddexp(0, -y * (A @ x)))

    compiled = {}

    def run(tolerance):
        if tolerance not in compiled:
            solver = jaxopt.ProximalGradient(cost, jaxopt.prox.prox_lasso, tol=tolerance, maxiter=20000)
            compiled[tolerance] = jax.jit(lambda x: solver.run(x, hyperparams_prox=weight).params)
            compiled[tolerance](jnp.zeros(A.shape[1])).block_until_ready()
        return np.asarray(compiled[tolerance](jnp.zeros(A.shape[1])).block_until_ready())

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--mode", default="NUMBA")
    arguments = parser.parse_args()
    intro = INTRODUCTION.format(
        count=len(nonsmooth.NAMES), reached=REACHED, pytensor=pytensor.__version__, scipy=scipy.__version__
    )
    lines = [intro, *table()]
    if arguments.large:
        lines += ["", LARGE.format(mode=arguments.mode), *large(arguments.mode)]
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


LARGE = """## Larger ones

A lasso of 500 examples and 5000 columns of independent normal numbers, 50 of which count, with a tenth of the largest
weight, and an L1 logistic regression on the signs of what it predicts. The whole loop is compiled in the mode {mode}.
Tolerances are lowered by factors of 10 until the relative duality gap is at most 1e-6; the time is the shortest of
three runs at that tolerance, on one core, without compilation. scikit-learn's are coordinate descent, `Lasso` and
liblinear.
"""


if __name__ == "__main__":
    main()
