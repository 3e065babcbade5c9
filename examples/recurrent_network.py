"""The addition problem, by `hessian_free` with structural damping, through `pytensor.scan`.

A recurrent network reads a sequence of pairs: a number between 0 and 1, and a mark, which is 1 at two times and 0 at
all others. At the end it is to say the sum of the two numbers that are marked. One mark is in the first half and one in
the second, so the network must remember a number for up to `length` steps. To say 1 always has the mean squared error
1/6.

Each call has new sequences, all of them for the gradient and the costs, and half of them for the curvature. Structural
damping keeps a step from changing the hidden states much. The errors are those of sequences that were never trained on.
"""

import time
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
from matplotlib.figure import Figure

import optapi


PICTURE = Path(__file__).with_name("recurrent_network.png")


def sequences(rng, count, length):
    """Pairs of numbers and marks, of shape (length, count, 2), and the sums."""
    numbers, marks = rng.random((length, count)), np.zeros((length, count))
    first, second = rng.integers(0, length // 2, count), rng.integers(length // 2, length, count)
    marks[first, np.arange(count)] = marks[second, np.arange(count)] = 1
    return np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=0)


class Network:
    """Hidden units with tanh, and a linear output at the end."""

    def __init__(self, rng, units):
        connected = np.zeros((units, units))
        for column in range(units):  # each unit has few inputs, as in the paper
            rows = rng.choice(units, size=min(15, units), replace=False)
            connected[rows, column] = rng.normal(size=len(rows))
        connected *= 1.0 / max(abs(np.linalg.eigvals(connected)))
        starts = {
            "recurrent": connected,
            "inputs": rng.normal(size=(2, units)),
            "bias": np.zeros(units),
            "output": rng.normal(size=units) / np.sqrt(units),
            "mean": np.zeros(()),
        }
        self.parameters = [pytensor.shared(start, name=name, shape=start.shape) for name, start in starts.items()]

    def __call__(self, x):
        """The hidden states at all times, and the output."""
        recurrent, inputs, bias, output, mean = self.parameters
        states = pytensor.scan(
            lambda now, state, recurrent: pt.tanh(now + pt.dot(state, recurrent)),
            sequences=[pt.dot(x, inputs) + bias],
            outputs_info=[pt.zeros((x.shape[1], bias.shape[0]))],
            non_sequences=[recurrent],
            strict=True,
            return_updates=False,
        )
        return states, pt.dot(states[-1], output) + mean


def main(length=50, units=20, batch=400, calls=40, seed=0, path=PICTURE):
    rng = np.random.default_rng(seed)
    network = Network(rng, units)
    x, sums = (pytensor.shared(array) for array in sequences(rng, batch, length))
    some, some_sums = pytensor.shared(x.get_value()), pytensor.shared(sums.get_value())
    states, output = network(x)
    cost, stop = pt.mean((output - sums) ** 2), pytensor.shared(0)
    began = time.perf_counter()
    updates = optapi.hessian_free(
        network.parameters,
        cost,
        stop=stop,
        outputs=output,
        hidden=states / pt.sqrt(x.shape[1]),
        structural_damping=0.1,
        damping=0.1,
        steps=40,
        curvature_givens={x: some, sums: some_sums},
        exact=False,
        tolerance=None,
    )
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    error = pytensor.function([], cost, mode=optapi.PYTHON)
    print(f"{length} times, {units} hidden units; compiled in {time.perf_counter() - began:.1f} s\n")
    print("call   products   mean squared error   seconds")

    [products] = optapi.reports(updates)["products"]
    unseen = sequences(np.random.default_rng(seed + 1), 2000, length)
    errors, began = [], time.perf_counter()
    for call in range(calls + 1):
        for variable, value in zip((x, sums), unseen, strict=True):
            variable.set_value(value)
        errors.append(float(error()))
        if call % 5 == 0 or call == calls:
            seconds = time.perf_counter() - began
            print(f"{call:4}   {products.get_value():8}   {errors[-1]:18.6f}   {seconds:7.1f}", flush=True)
        new, new_sums = sequences(rng, batch, length)
        x.set_value(new), sums.set_value(new_sums)
        some.set_value(new[:, : batch // 2]), some_sums.set_value(new_sums[: batch // 2])
        step()

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(errors, label="hessian_free")
    axes.axhline(1 / 6, color="grey", linestyle="--", label="always 1")
    axes.set(xlabel="calls", ylabel="mean squared error of unseen sequences", yscale="log")
    axes.set_title(f"The sum of two marked numbers out of {length}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")
    return errors


if __name__ == "__main__":
    main()
