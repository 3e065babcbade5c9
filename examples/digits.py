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
W1, b1 = pytensor.shared(np.zeros((64, 32)), name="W1"), pytensor.shared(np.zeros(32), name="b1")
W2, b2 = pytensor.shared(np.zeros((32, 10)), name="W2"), pytensor.shared(np.zeros(10), name="b2")
parameters = [W1, b1, W2, b2]

x, y = pt.dmatrix("x"), pt.lvector("y")
scores = pt.tanh(x @ W1 + b1) @ W2 + b2
cost = -pt.special.log_softmax(scores, axis=1)[pt.arange(y.size), y].mean()
guess = scores.argmax(axis=1)

# %% [markdown]
# ## The rule
#
# What comes before a rule changes the gradients, a list; what comes after changes the updates, a dictionary. Here
# weight decay spares the biases, and a running average of the weights (an exponential moving average, EMA) is kept
# beside them. Whether its network is the better one is to be seen.

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
# ## Training, from ten seeds
#
# A seed draws the weights and the order of the images. One run says little of a difference of some tenths of a percent,
# so there are ten. The updates hold all that is remembered: put back to what it was, it is a new start.

# %%
remembered = {variable: variable.get_value() for variable in updates}


def learn(seed):
    """The mean costs of the epochs, and the errors on the test images, by the weights and by the averages."""
    rng = np.random.default_rng(seed)
    for variable, value in remembered.items():
        variable.set_value(value)
    W1.set_value(rng.normal(scale=1 / 8, size=(64, 32)))
    W2.set_value(rng.normal(scale=1 / 6, size=(32, 10)))
    history = []
    for _ in range(epochs):
        order = np.array_split(rng.permutation(len(digits)), batches)
        cost = np.mean([train(images[rows], digits[rows]) for rows in order])
        wrong = [np.mean(guess(test_images) != test_digits) for guess in (read, read_by_averages)]
        history.append([cost, *wrong])
    return history


runs = np.array([learn(seed) for seed in range(10)])  # of shape (seeds, epochs, 3)
by_weights, by_averages = 100 * runs[:, -1, 1], 100 * runs[:, -1, 2]
final = {"weights": by_weights, "averages": by_averages, "averages - weights": by_averages - by_weights}
for name, errors in final.items():
    spread = np.std(errors, ddof=1)
    print(f"{name:18} {errors.mean():5.2f} % of the test images, standard deviation over the seeds {spread:.2f}")
assert by_weights.max() < 5

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
epoch = np.arange(1, epochs + 1)
left.semilogy(epoch, runs[:, :, 0].T, color="C0", alpha=0.3)
left.set(xlabel="epoch", ylabel="mean cost of the batches")
for place, name in ((1, "weights"), (2, "averages")):
    errors = 100 * runs[:, :, place]
    mean, spread = errors.mean(axis=0), errors.std(axis=0, ddof=1)
    right.plot(epoch, mean, color=f"C{place - 1}", label=name)
    right.fill_between(epoch, mean - spread, mean + spread, color=f"C{place - 1}", alpha=0.2, linewidth=0)
right.set(xlabel="epoch", ylabel="test errors (%)", ylim=(0, 15))
right.legend(frameon=False, title="mean and standard deviation")

# %% [markdown]
# The two kinds of weights read the test images equally well at the end: their difference is smaller than what the seeds
# make of it. The step size has fallen to 0 by then, so there is little left to average. Earlier, while steps are large,
# compare the curves. Which weights to take is decided on validation data, which are not these.
#
# ## What the last one gets wrong

# %%
guesses = read(test_images)
wrong = np.flatnonzero(guesses != test_digits)[:8]
figure, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for one in axes:
    one.axis("off")
for one, index in zip(axes, wrong, strict=False):
    one.imshow(test_images[index].reshape(8, 8), cmap="Greys")
    one.set_title(f"{test_digits[index]} read as {guesses[index]}", fontsize=8)
