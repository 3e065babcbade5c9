"""The types of public signatures mean something to a checker of types."""

import subprocess
import sys


RIGHT = """
import numpy as np
import pytensor
import pytensor.tensor as pt

import optapi

x = pytensor.shared(np.zeros(3), name="x")
stop = pytensor.shared(0, name="stop")
rate = pt.dscalar("rate")
cost = pt.sum(x**2)
a: dict = optapi.adam([x], cost, stop=stop, step_size=optapi.schedules.Exponential(0.1, 100), mean_weight=0.5)
a = optapi.adam((x,), gradients=[2 * x], step_size=lambda count: 1 / (1 + count), updates=a, name="other")
a = optapi.sgd(x, cost, step_size=rate, momentum=np.float32(0.9), tolerance=None)
a = optapi.sgd([x], cost, gradients=pytensor.grad(cost, [x]), step_size=pytensor.shared(0.1))
a = optapi.lbfgs([x], cost, memory=5, line_search=optapi.line_search.strong_wolfe, tolerance=1e-8)
a = optapi.conjugate_gradient([x], cost, beta=optapi.beta_dai_yuan)
a = optapi.adamw([x], cost, mask=[True], decay=1e-3)
a = optapi.gauss_newton([x], residuals=x - 1)
minimum = optapi.minimize([1.0, 2.0], lambda x: x @ x, lambda x: 2 * x, optapi.lbfgs, max_iterations=10)
run = optapi.compile_minimizer([x], cost, "adam", inputs=[rate], target=1e-3, mode=optapi.PYTHON)
result: optapi.OptimizeResult = run(0.1)
"""

# Each line is wrong, by the type of one argument.
WRONG = """
optapi.adam([x], cost, step_size="0.1")
optapi.adam([x], cost, mean_weight=[0.9])
optapi.adam(3.0, cost)
optapi.adam([x], cost="cost")
optapi.adam([x], cost, amsgrad="yes")
optapi.adam([x], cost, updates=[x])
optapi.adam([x], cost, name=3)
optapi.adam([x], cost, rate=0.1)
optapi.adamw([x], cost, mask=0.5)
optapi.lbfgs([x], cost, memory="5")
optapi.lbfgs([x], cost, line_search="strong_wolfe")
optapi.lbfgs([x], cost, tolerance="small")
optapi.conjugate_gradient([x], cost, beta="dai_yuan")
optapi.compile_minimizer([x], cost, "adam", max_iterations="10")
optapi.minimize([1.0], lambda x: x @ x, lambda x: 2 * x, optapi.lbfgs, full_output="yes")
"""


def checked(tmp_path, program):
    """The lines of `program` that mypy refuses."""
    path = tmp_path / "program.py"
    path.write_text(program)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--no-error-summary",
        "--follow-imports=silent",
        "--ignore-missing-imports",
    ]
    command += ["--config-file=", f"--cache-dir={tmp_path / 'cache'}", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {int(line.split(":")[1]) for line in output.splitlines() if ": error:" in line}, output


def test_a_right_program_is_accepted_and_each_wrong_line_refused(tmp_path):
    refused, output = checked(tmp_path, RIGHT.lstrip() + WRONG.lstrip())
    first = len(RIGHT.lstrip().splitlines()) + 1
    assert refused == set(range(first, first + len(WRONG.lstrip().splitlines()))), output
