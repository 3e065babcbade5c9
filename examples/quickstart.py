"""Teach a small network to read handwritten digits: the 1797 images of scikit-learn, 8 x 8 pixels each."""

from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import optapi


# The data: a fifth of the images is kept for the test.
images, digits = load_digits(return_X_y=True)
split = train_test_split(images / 16, digits, test_size=1 / 5, stratify=digits, random_state=0)
images, test_images, digits, test_digits = split

# The network: 64 pixels, 64 hidden units, 10 scores.
rng = np.random.default_rng(0)
W1 = pytensor.shared(rng.normal(scale=1 / 8, size=(64, 64)), name="W1")
b1 = pytensor.shared(np.zeros(64), name="b1")
W2 = pytensor.shared(rng.normal(scale=1 / 8, size=(64, 10)), name="W2")
b2 = pytensor.shared(np.zeros(10), name="b2")

x, y = pt.dmatrix("x"), pt.lvector("y")
scores = pt.tanh(x @ W1 + b1) @ W2 + b2
cost = -pt.special.log_softmax(scores, axis=1)[pt.arange(y.size), y].mean()
accuracy = pt.eq(scores.argmax(axis=1), y).mean()

# The optimizer: a dictionary of updates, compiled by PyTensor together with the cost.
epochs, batches = 30, 45
updates = optapi.adam([W1, b1, W2, b2], cost, step_size=optapi.schedules.Cosine(0.01, steps=epochs * batches))

# PYTHON runs on NumPy and is ready in a second; the default mode is faster, but compiles for a minute the first time.
train = pytensor.function([x, y], cost, updates=updates, mode=optapi.PYTHON)
test = pytensor.function([x, y], accuracy, mode=optapi.PYTHON)
read = pytensor.function([x], scores.argmax(axis=1), mode=optapi.PYTHON)

costs, accuracies = [], []
for epoch in range(1, epochs + 1):
    shuffled = np.array_split(rng.permutation(len(digits)), batches)
    costs.append(np.mean([train(images[batch], digits[batch]) for batch in shuffled]))
    accuracies.append(100 * test(test_images, test_digits))
    if epoch % 5 == 0:
        print(f"epoch {epoch:2}   cost {costs[-1]:.4f}   test accuracy {accuracies[-1]:.1f} %")
assert accuracies[-1] >= 95

# The picture: the curves, and test images with what the network reads, those that it gets wrong first.
guesses = read(test_images)
shown = np.argsort(guesses == test_digits, kind="stable")[:16]
figure = Figure(figsize=(9, 5.8), layout="constrained")
above, below = figure.subfigures(2, height_ratios=[3, 2])
above.suptitle("Adam learns to read handwritten digits")
curves = {"training cost (nats per image)": costs, "test accuracy (% of images)": accuracies}
for axes, (label, values) in zip(above.subplots(1, 2), curves.items(), strict=True):
    axes.plot(range(1, epochs + 1), values, ".-")
    axes.set(xlabel="epoch (passes over the training images)", ylabel=label)
    axes.grid(alpha=0.3)
above.axes[0].set_yscale("log")
below.suptitle(f"test images, first the {np.sum(guesses != test_digits)} of {len(guesses)} that it gets wrong")
for axes, index in zip(below.subplots(2, 8).flat, shown, strict=True):
    axes.imshow(test_images[index].reshape(8, 8), cmap="Greys")
    right = guesses[index] == test_digits[index]
    text = f"reads {guesses[index]}" if right else f"reads {guesses[index]}, is {test_digits[index]}"
    axes.set_title(text, fontsize=8, color="C0" if right else "C3")
    axes.axis("off")
path = Path(__file__).with_name("digits.png")
figure.savefig(path, dpi=150)
print(f"curves and digits: {path}")
