"""Teach a restricted Boltzmann machine what digits look like, by contrastive divergence: no cost, but a sampler."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import optapi


PICTURE = Path(__file__).with_name("boltzmann.png")


def sigmoid(x):
    return 0.5 + 0.5 * np.tanh(x / 2)


def tiled(images, columns=5):
    """Images of 8 x 8 pixels beside each other, with a gap of one pixel."""
    padded = np.pad(images.reshape(-1, columns, 8, 8), [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    return padded.swapaxes(1, 2).reshape(-1, 9 * columns)[:-1, :-1]


def main(epochs=60, path=PICTURE):
    rng = np.random.default_rng(0)
    images, unseen = np.split(load_digits().data / 16, [-30])
    mean = images.mean(axis=0)
    weights, hidden = rng.normal(scale=0.05, size=(64, 100)), np.zeros(100)
    visible = np.log((mean + 0.01) / (1.01 - mean))

    def up(v):
        return sigmoid(v @ weights + hidden)

    def down(h):
        """The pixels, given a draw of the hidden units."""
        return sigmoid((rng.random(h.shape) < h) @ weights.T + visible)

    # The optimizer climbs the likelihood, and changes the arrays of the model in place.
    model = {"weights": weights, "visible": visible, "hidden": hidden}
    optimizer = optapi.ADAM(optapi.schedules.Cosine(0.005, steps=epochs), ascent=True)
    for epoch in range(1, epochs + 1):
        optimizer.update_lr()
        errors = []
        for batch in np.array_split(rng.permutation(len(images)), 45):
            v0, h0 = images[batch], up(images[batch])
            v1 = down(h0)
            h1 = up(v1)
            grad = {
                "weights": (v0.T @ h0 - v1.T @ h1) / len(batch) - 0.002 * weights,
                "visible": (v0 - v1).mean(axis=0),
                "hidden": (h0 - h1).mean(axis=0),
            }
            optimizer.update(model, grad)
            errors.append(np.mean((v0 - v1) ** 2))
        if epoch % 10 == 0:
            print(f"epoch {epoch}   step size {optimizer.lr:.4f}   reconstruction error {np.mean(errors):.4f}")

    # Unseen digits, of which the machine is shown the upper half: the lower one is its mean over Gibbs samples.
    shown = np.arange(64) < 32
    filled, samples = np.where(shown, unseen, mean), []
    for _ in range(500):
        samples.append(np.where(shown, unseen, down(up(filled))))
        filled = samples[-1]
    filled = np.mean(samples[100:], axis=0)
    error, chance = (np.mean((guess - unseen)[:, ~shown] ** 2) for guess in (filled, mean))
    print(f"mean square error of lower halves: {error:.4f}, of the mean digit: {chance:.4f}")

    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    figure.suptitle("A restricted Boltzmann machine completes digits that it has not seen")
    pictures = {"what it is shown": np.where(shown, unseen, 0.5), "what it fills in": filled, "the digits": unseen}
    pictures["weights of 30 hidden units"] = weights.T[:30]
    for axes, (title, rows) in zip(figure.subplots(1, 4), pictures.items(), strict=True):
        low, high, colours = (-1.5, 1.5, "RdBu") if title.startswith("weights") else (0, 1, "gray_r")
        axes.imshow(tiled(rows), cmap=colours, vmin=low, vmax=high)
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")
    return error, chance


if __name__ == "__main__":
    main()
