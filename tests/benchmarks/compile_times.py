# ruff: noqa: T201
"""How long rules and loops take from the call to the first result: building, rewriting and linking, the first call.

Run by hand: ``python tests/benchmarks/compile_times.py [MODE ...] [RULE ...]``, with modes of PyTensor or ``PYTHON``,
and rules or ``loop(rule)``; by default the list below. Each runs in a process of its own, first with empty caches and
then again. The times are those of the processor, in seconds: they depend less on what else the machine does.

``python tests/benchmarks/compile_times.py --costs [RULE ...]`` has whole minimizations under numba, from
`compile_minimizer` to the first result: of a first cost with empty caches, of a second and a third that find what these
have left, and of the first again, each in a process of its own; seconds of the processor, and of the clock. A rule may
have options, as in ``lbfgs:bounds=(-9,9)``.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time


MODES = ["PYTHON", "NUMBA", "JAX"]
RULES = ["sgd", "adam", "lbfgs", "loop(adam)", "loop(lbfgs)", "loop(batch(lbfgs))"]
RULES += ["newton_cg", "hessian_free", "tonga"]
# What PyTensor takes for as much as every rule has in it, and for what a cost may have.
ALONE = ["cost and gradient", "product of matrices"]


def measure(mode, what):
    """Print the three times."""
    import numpy as np
    import pytensor
    import pytensor.tensor as pt

    import optapi

    if mode == "PYTHON":
        mode = optapi.PYTHON

    p, stop = pytensor.shared(np.full(10, -1.2), name="p", shape=(10,)), pytensor.shared(0, name="stop")
    cost = pt.sum(100.0 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
    times = [time.process_time()]
    if what == "cost and gradient":
        outputs, updates = [cost, pytensor.grad(cost, p)], {}
    elif what == "product of matrices":
        matrix = pytensor.shared(np.eye(10), shape=(10, 10))
        outputs, updates = [matrix @ (matrix + p)], {}
    else:
        *transforms, rule = what.rstrip(")").split("(")
        outputs, updates = [], getattr(optapi, rule)([p], cost, stop=stop)
        for transform in reversed(transforms):
            if transform == "batch":
                wide = pytensor.shared(np.full((3, 10), -1.2), shape=(3, 10))
                stops = pytensor.shared(np.zeros(3, "int64"), shape=(3,))
                updates, stop = optapi.batch(updates, {p: wide, stop: stops}), stops
            else:
                updates = getattr(optapi, transform)(updates, 1000, stop)
    times.append(time.process_time())
    function = pytensor.function([], outputs, updates=updates, mode=mode)
    times.append(time.process_time())
    function()
    times.append(time.process_time())
    print(*(end - begin for begin, end in itertools.pairwise(times)))


COSTS = ["Rosenbrock", "logistic regression", "network"]
MINIMIZERS = ["lbfgs", "lbfgs:bounds=(-9,9)", "bfgs", "newton_cg", "trust_region_cg", "hager_zhang_cg"]
MINIMIZERS += ["barzilai_borwein", "newton", "hessian_free", "adam"]


def problem(name):
    """Parameters, a cost, its inputs and their values."""
    import numpy as np
    import pytensor
    import pytensor.tensor as pt

    draws = np.random.default_rng(0)
    if name == "Rosenbrock":
        x = pytensor.shared(np.full(10, -1.0), name="x")
        return [x], pt.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), [], []
    if name == "logistic regression":
        w, b = pytensor.shared(np.zeros(20), name="w"), pytensor.shared(0.0, name="b")
        data, labels = pt.matrix("data"), pt.vector("labels")
        z = data @ w + b
        values = [draws.normal(size=(200, 20)), (draws.random(200) < 0.5) * 1.0]
        return [w, b], pt.mean(pt.softplus(z) - labels * z) + 0.01 * pt.sum(w**2), [data, labels], values
    shapes = {"W": (4, 8), "c": (8,), "V": (8, 2), "d": (2,)}
    W, c, V, d = parameters = [pytensor.shared(0.3 * draws.normal(size=s), name=k) for k, s in shapes.items()]
    data, targets = (pt.constant(draws.normal(size=(100, columns))) for columns in (4, 2))
    errors = pt.tanh(data @ W + c) @ V + d - targets
    return parameters, pt.mean(errors**2) + 0.01 * sum(pt.sum(p**2) for p in parameters), [], []


def minimize(rule, name):
    """Print the seconds of the processor and of the clock; without a rule those of the cost and its gradient."""
    import pytensor

    import optapi

    parameters, cost, inputs, values = problem(name)
    times = [time.process_time(), time.perf_counter()]
    if rule:
        rule, _, options = rule.partition(":")
        options = eval(f"dict({options})")
        optapi.compile_minimizer(parameters, cost, rule, inputs=inputs, mode="NUMBA", **options)(*values)
    else:
        pytensor.function(inputs, [cost, *pytensor.grad(cost, parameters)], mode="NUMBA")(*values)
    print(time.process_time() - times[0], time.perf_counter() - times[1])


def costs(rules):
    print(
        f"{'seconds of the processor (of the clock)':32}" + "".join(f"{name:>22}" for name in [*COSTS, "first again"])
    )
    for rule in ["", *(rules or MINIMIZERS)]:
        with tempfile.TemporaryDirectory() as caches:
            line = ""
            for number, name in enumerate([*COSTS, COSTS[0]]):
                directory = caches if rule or number == len(COSTS) else f"{caches}/{number or ''}"
                environment = {**os.environ, "PYTENSOR_FLAGS": f"base_compiledir={directory}"}
                command = [sys.executable, "-W", "ignore", __file__, "--minimize", rule, name]
                result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                line += "{:>14.1f} ({:5.1f})".format(*map(float, result.stdout.split()))
            print(f"{rule or 'cost and gradient, each alone':32}{line}", flush=True)


def main(arguments):
    modes = [a for a in arguments if a.isupper()] or MODES
    rules = [a for a in arguments if not a.isupper()] or RULES
    print(f"{'seconds of processor time':40}{'build':>8}{'rewrite':>9}{'call':>8}{'total':>8}{'again':>8}")
    for mode in modes:
        for what in [*ALONE, *rules]:
            with tempfile.TemporaryDirectory() as caches:
                environment = {**os.environ, "PYTENSOR_FLAGS": f"base_compiledir={caches}"}
                runs = []
                for _ in ("cold", "warm"):
                    command = [sys.executable, "-W", "ignore", __file__, "--measure", mode, what]
                    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                    runs.append([float(part) for part in result.stdout.split()] if result.returncode == 0 else None)
            if None in runs:
                print(f"{mode:8}{what:32}{result.stderr.strip().splitlines()[-1][:60]}", flush=True)
                continue
            cold, warm = runs
            columns = "".join(f"{seconds:{width}.2f}" for seconds, width in zip(cold, (8, 9, 8), strict=True))
            print(f"{mode:8}{what:32}{columns}{sum(cold):8.1f}{sum(warm):8.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    elif sys.argv[1:2] == ["--minimize"]:
        minimize(*sys.argv[2:])
    elif sys.argv[1:2] == ["--costs"]:
        costs(sys.argv[2:])
    else:
        main(sys.argv[1:])
