# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A network on handwritten digits
#
# 1797 images of 8 by 8 pixels, from scikit-learn. A network with one hidden layer learns to read them, by
# `optapi.adam` with a step size that falls along half a cosine.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import optapi
from optapi import plot, schedules


images, digits = load_digits(return_X_y=True)
split = train_test_split(images / 16, digits, test_size=1 / 4, stratify=digits, random_state=0)
images, test_images, digits, test_digits = split
images.shape, test_images.shape

# %% [markdown]
# ## The network, and its cost

# %%
rng = np.random.default_rng(0)
W1 = pytensor.shared(rng.normal(scale=1 / 8, size=(64, 32)), name="W1")
b1 = pytensor.shared(np.zeros(32), name="b1")
W2 = pytensor.shared(rng.normal(scale=1 / 6, size=(32, 10)), name="W2")
b2 = pytensor.shared(np.zeros(10), name="b2")
parameters = [W1, b1, W2, b2]

x, y = pt.dmatrix("x"), pt.lvector("y")
scores = pt.tanh(x @ W1 + b1) @ W2 + b2
cost = -pt.special.log_softmax(scores, axis=1)[pt.arange(y.size), y].mean()
guess = scores.argmax(axis=1)

# %% [markdown]
# ## The rule
#
# What comes before a rule changes the gradients, a list; what comes after changes the updates, a dictionary. Here
# weight decay spares the biases, and a running average of the weights is kept beside them, which is often the better
# network.

# %%
epochs, batches = 20, 32
gradients = optapi.gradients.decay(pytensor.grad(cost, parameters), parameters, 1e-4, mask=lambda p: p.ndim > 1)
step_size = schedules.WarmUp(schedules.Cosine(0.01, steps=epochs * batches - 32), 32)
updates = optapi.adam(parameters, gradients=gradients, step_size=step_size)

averages = {p: pytensor.shared(np.zeros_like(p.get_value()), name=f"mean_{p.name}") for p in parameters}
updates = optapi.average(updates, averages, weight=0.98)

train = pytensor.function([x, y], cost, updates=updates, mode=optapi.PYTHON)
read = pytensor.function([x], guess, mode=optapi.PYTHON)
read_by_averages = pytensor.function([x], guess, givens=averages, mode=optapi.PYTHON)

plot.schedule({"step size": step_size}, epochs * batches)

# %% [markdown]
# ## Training

# %%
costs, errors, errors_of_averages = [], [], []
for _ in range(epochs):
    order = np.array_split(rng.permutation(len(digits)), batches)
    costs.append(np.mean([train(images[rows], digits[rows]) for rows in order]))
    errors.append(np.mean(read(test_images) != test_digits))
    errors_of_averages.append(np.mean(read_by_averages(test_images) != test_digits))
print(f"errors on images that it has not seen: {errors[-1]:.1%}, by the averages {errors_of_averages[-1]:.1%}")
assert errors[-1] < 0.05

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.semilogy(range(1, epochs + 1), costs)
left.set(xlabel="epoch", ylabel="mean cost of the batches")
right.plot(range(1, epochs + 1), 100 * np.array(errors), label="weights")
right.plot(range(1, epochs + 1), 100 * np.array(errors_of_averages), label="averages")
right.set(xlabel="epoch", ylabel="test errors (%)", ylim=(0, None))
right.legend(frameon=False)

# %% [markdown]
# ## What it gets wrong

# %%
guesses = read(test_images)
wrong = np.flatnonzero(guesses != test_digits)[:8]
figure, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for one in axes:
    one.axis("off")
for one, index in zip(axes, wrong, strict=False):
    one.imshow(test_images[index].reshape(8, 8), cmap="Greys")
    one.set_title(f"{test_digits[index]} read as {guesses[index]}", fontsize=8)
