# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Pausing, saving and resuming
#
# What is saved goes on bit for bit, from files without pickle that are at all times the old ones or the new ones.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
from scipy.optimize import rosen, rosen_der

import optapi
from optapi import plot


folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A minimization that is paused
#
# `minimize_iterator` takes a step at each `next`. In between it can be looked at, changed, copied and saved.

# %%
start = np.array([-1.2, 1.0] * 5)
minimization = optapi.minimize_iterator(start, rosen, rosen_der, optapi.lbfgs, trace=True)
for state in minimization:
    if state.fun < 1:
        break
print(minimization)
print("cost", round(minimization.fun, 4), "after", minimization.nfev, "evaluations; message:", minimization.message)
minimization.save(folder / "minimization.npz")
saved_at = minimization.nfev, minimization.fun

# %% [markdown]
# Another program, or this one after a crash, reads it. Functions are not in the file, so they are passed again;
# limits may be new.

# %%
resumed = optapi.minimize_iterator.load(folder / "minimization.npz", rosen, rosen_der)
for _ in resumed:
    pass
for _ in minimization:
    pass
assert np.array_equal(resumed.x, minimization.x) and resumed.nfev == minimization.nfev
print(resumed.message)
axes = plot.trace({"before and after the file": resumed}, x="evaluations", minimum=0.0)
axes.plot(*saved_at, "o", markersize=9, color="tab:red", label="saved here, and resumed")
axes.legend(frameon=False)

# %% [markdown]
# ## An exception in the middle
#
# An exception of the function, or Ctrl-C, comes out as it is. The iteration has then not happened, and `next` tries
# it again.

# %%
calls = 0


def unreliable(x):
    global calls
    calls += 1
    if calls == 20:
        raise ConnectionError("the server does not answer")
    return rosen(x)


minimization = optapi.minimize_iterator(start, unreliable, rosen_der, optapi.lbfgs)
interruptions = 0
while True:
    try:
        next(minimization)
    except ConnectionError as error:
        print(f"at iteration {minimization.nit}: {error}")
        interruptions += 1
    except StopIteration:
        break
print(minimization.message)
assert interruptions == 1 and np.array_equal(minimization.x, resumed.x)

# %% [markdown]
# ## A training program
#
# For updates there are `optapi.save` and `optapi.load`: all state of the rule, its counts and random generators, and
# the parameters. Here noise is added to the gradients, so that the generator matters too.


# %%
def program():
    w = pytensor.shared(np.zeros(3), name="w")
    data = pt.dmatrix("data")
    cost = pt.mean((data @ w - 1) ** 2)
    updates = {}
    noisy = optapi.noise(pytensor.grad(cost, [w]), updates, rng=3, variance=0.01)
    updates = optapi.adam([w], gradients=noisy, updates=updates, step_size=optapi.schedules.Power(0.1, scale=50))
    return w, updates, pytensor.function([data], cost, updates=updates, mode=optapi.PYTHON)


batches = np.random.default_rng(0).normal(size=(100, 8, 3)) + 1
w, updates, train = program()
for batch in batches[:60]:
    train(batch)
optapi.save(folder / "training.npz", updates)
for batch in batches[60:]:
    train(batch)

again, updates, train = program()
optapi.load(folder / "training.npz", updates)
for batch in batches[60:]:
    train(batch)
assert np.array_equal(w.get_value(), again.get_value())
print(w.get_value(), again.get_value())

# %% [markdown]
# Names, shapes and dtypes are compared first. What does not fit is said, and nothing is loaded.

# %%
try:
    optapi.load(folder / "training.npz", optapi.sgd([again], pt.sum(again**2), momentum=0.9))
except ValueError as error:
    print(str(error).partition(": ")[2])
