# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A first minimization
#
# Three ways to run an algorithm: as a whole minimization, as updates, and on NumPy functions. The cost is Rosenbrock's
# valley, $(1 - x_1)^2 + 100 (x_2 - x_1^2)^2$: easy to find, hard to follow to its lowest point at $(1, 1)$.

# %%
import numpy as np
import pytensor

import optapi
from optapi import plot


def valley(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


x = pytensor.shared(np.array([-1.2, 1.0]), name="x")
cost = valley(x)

# %% [markdown]
# ## A whole minimization
#
# `compile_minimizer` compiles a rule with all of its iterations into one function. A run starts from the values of the
# parameters, leaves the result in them, and says why it has ended. `mode=optapi.PYTHON` is ready at once, which is what
# one wants for trying things out; without it PyTensor compiles with numba, and the function is faster.

# %%
run = optapi.compile_minimizer([x], cost, "lbfgs", mode=optapi.PYTHON)
start = x.get_value()
result = run()
result

# %% [markdown]
# `run.paths` has all points on the way, from one start or many. Another rule takes another way:

# %%
by_gradients = optapi.compile_minimizer(
    [x], cost, "nesterov", step_size=0.001, momentum=0.95, max_iterations=300, mode=optapi.PYTHON
)
ways = {}
for name, each in {"lbfgs": run, "nesterov": by_gradients}.items():
    paths = each.paths([start[None]], max_iterations=300)
    ways[f"{name}, {paths.iterations[0]} iterations"] = paths.points[0, : paths.iterations[0] + 1]
plot.path(ways, valley).legend(loc="upper center")

# %% [markdown]
# The cost is exact here, so a rule that searches along lines does much better, and there is no step size to choose.
#
# ## Updates
#
# A rule returns a dictionary: the next value of each parameter, and of what else the rule remembers.

# %%
x.set_value(start)
updates = optapi.nesterov([x], cost, step_size=0.001, momentum=0.95)
{variable.name: str(value.type) for variable, value in updates.items()}

# %% [markdown]
# `pytensor.function` compiles it. A call takes one step.

# %%
step = pytensor.function([], cost, updates=updates, mode=optapi.PYTHON)
costs = [float(step()) for _ in range(300)]
print(f"from {costs[0]:.2f} to {costs[-1]:.6f}, at {x.get_value().round(3)}")

# %% [markdown]
# A rule that searches says that it has finished by `stop`; `optapi.loop` repeats it until then, inside of the compiled
# function. This is what `compile_minimizer` does, and what one takes to put more into the same function.

# %%
x.set_value(start)
stop = pytensor.shared(0, name="stop")
updates = optapi.lbfgs([x], cost, stop=stop)
minimize = pytensor.function([], cost, updates=optapi.loop(updates, 100, stop), mode=optapi.PYTHON)
minimize()
print(x.get_value())
for role, [variable] in optapi.reports(updates).items():
    print(f"{role}: {variable.get_value():.6g}")

# %% [markdown]
# The reason 0 is that no component of the gradient is larger than the tolerance.
#
# ## Functions of NumPy arrays
#
# The same rule for a NumPy function and its derivative. With `None` for the derivative the function builds a PyTensor
# scalar, and is differentiated; with `True` it returns both.

# %%
from scipy.optimize import rosen, rosen_der


result = optapi.minimize([-1.2, 1.0], rosen, rosen_der, optapi.lbfgs, full_output=True)
result

# %%
optapi.minimize([-1.2, 1.0], valley, None, optapi.lbfgs)

# %% [markdown]
# ## How fast
#
# `trace=True` records the cost at each iteration, and `plot.trace` draws it over the evaluations that it took.

# %%
rules = {"lbfgs": optapi.lbfgs, "hager_zhang_cg": optapi.hager_zhang_cg, "barzilai_borwein": optapi.barzilai_borwein}
runs = {
    name: optapi.minimize([-1.2, 1.0], rosen, rosen_der, rule, full_output=True, trace=True)
    for name, rule in rules.items()
}
plot.trace(runs, x="evaluations", minimum=0.0)
