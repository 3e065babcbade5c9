"""A rule of a user's own, written by docs/how_to/write_a_rule.md alone; and rules that break a promise."""

import subprocess
import sys

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.testing import PROMISES, Case, check_promise, check_rule


def rms(x):
    return pt.sqrt((x**2).mean())


def relative(count):
    return pt.minimum(np.float64(1e-2), 1 / pt.sqrt(count + 1))


def adafactor(parameters, cost=None, gradients=None, stop=None, updates=None, *,
              step_size=relative, exponent=0.8, clipping=1.0, epsilon1=1e-30, epsilon2=1e-3,
              tolerance=None, ascent=False, name="adafactor"):  # fmt: skip
    """Shazeer and Stern (2018), Adafactor: adaptive learning rates with sublinear memory cost, algorithms 4 to 6."""
    f = optapi.Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    beta = 1.0 - (f.count + 1.0) ** -f.scalar("exponent", exponent, low=0)
    scalars = f.scalar("clipping", clipping, low=1e-8), f.scalar("epsilon1", epsilon1, low=0)
    new = {}
    for p, g, rho, d, e1, e2 in f.each(f.step_size(step_size), *scalars, f.scalar("epsilon2", epsilon2, low=0)):
        squares = g**2 + e1
        if p.ndim == 2:
            n, m = f.shape(p)
            r, c = f.state("rows", (n,), parameter=p), f.state("columns", (m,), parameter=p)
            new[r] = f.average(r, squares.sum(axis=1), beta)
            new[c] = f.average(c, squares.sum(axis=0), beta)
            v = (new[r] / new[r].sum())[:, None] * new[c]
        else:
            v = f.zeros_like(p, "mean_square")
            new[v] = v = f.average(v, squares, beta)
        u = g / pt.sqrt(v)
        new[p] = p - rho * pt.maximum(e2, rms(p)) * u / pt.maximum(1, rms(u) / d)
    return f.finish(new)


def test_adafactor_keeps_all_promises():
    check_rule(adafactor, step_size=0.1, settles=False)


def network(dtype="float64"):
    W = pytensor.shared(np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], dtype), name="W")
    b = pytensor.shared(np.array([0.5, 0.0, -1.0], dtype), name="b")
    return [W, b], pt.sum((W + b) ** 2 * np.asarray([[1, 2, 3], [4, 5, 6]], dtype))


def test_adafactor_is_that_of_the_paper():
    (W, b), cost = network()
    step = pytensor.function([], cost, updates=adafactor([W, b], cost), mode=optapi.PYTHON)
    X, x, R, C, V = W.get_value(), b.get_value(), np.zeros((2, 1)), np.zeros((1, 3)), np.zeros(3)

    def updated(x, g, v, t):
        u = g / np.sqrt(v)
        u = u / max(1.0, np.sqrt(np.mean(u**2)) / 1.0)
        return x - max(1e-3, np.sqrt(np.mean(x**2))) * min(1e-2, 1 / np.sqrt(t)) * u

    for t in range(1, 31):
        step()
        G = 2 * (X + x) * np.array([[1, 2, 3], [4, 5, 6]])
        g, beta = G.sum(axis=0), 1 - t**-0.8
        R = beta * R + (1 - beta) * (G**2 + 1e-30) @ np.ones((3, 1))
        C = beta * C + (1 - beta) * np.ones((1, 2)) @ (G**2 + 1e-30)
        V = beta * V + (1 - beta) * (g**2 + 1e-30)
        X, x = updated(X, G, R @ C / R.sum(), t), updated(x, g, V, t)
        np.testing.assert_allclose(W.get_value(), X, rtol=1e-12)
        np.testing.assert_allclose(b.get_value(), x, rtol=1e-12)


def test_adafactor_saves_and_loads(tmp_path):
    (W, b), cost = network("float32")
    updates = adafactor([W, b], cost)
    step = pytensor.function([], [], updates=updates, mode=optapi.PYTHON)
    step(), step()
    optapi.save(tmp_path / "run.npz", updates)
    kept = {v.name: v.get_value() for v in updates}
    assert {name: (value.shape, str(value.dtype)) for name, value in kept.items()} == {
        "W": ((2, 3), "float32"),
        "b": ((3,), "float32"),
        "adafactor/rows/W": ((2,), "float32"),
        "adafactor/columns/W": ((3,), "float32"),
        "adafactor/mean_square/b": ((3,), "float32"),
        "adafactor/count": ((), "int64"),
    }
    step()
    expected = [v.get_value() for v in updates]
    optapi.load(tmp_path / "run.npz", updates)
    step()
    assert all(np.array_equal(v.get_value(), value) for v, value in zip(updates, expected, strict=True))


@pytest.mark.parametrize("bad", [-0.5, np.nan, "0.8", [0.8]])
def test_an_option_out_of_range_is_named(bad):
    ps, cost = network()
    with pytest.raises((ValueError, TypeError), match="exponent is"):
        adafactor(ps, cost, exponent=bad)


def test_decay():
    (W, b), cost = network()

    def rule(decay, mask=None, step_size=1.0):
        f = optapi.Objective.of([W, b], cost, name="rule")
        new = {W: 1.0 * W, b: 1.0 * b}
        f.decay(new, decay, mask, step_size=step_size)
        return new, f.finish(new)

    for decay in (0.5, pytensor.shared(0.5), lambda count: 0.5, optapi.schedules.Constant(0.5)):
        new, _ = rule(decay, lambda p: p.ndim > 1, pt.constant(0.5))
        np.testing.assert_array_equal(new[W].eval(mode=optapi.PYTHON), 0.75 * W.get_value())
        np.testing.assert_array_equal(new[b].eval(mode=optapi.PYTHON), b.get_value())
    np.testing.assert_array_equal(rule(0.25)[0][b].eval(mode=optapi.PYTHON), 0.75 * b.get_value())
    assert [v.name for v in rule(optapi.schedules.Linear(0.5, 10))[1]] == ["W", "b", "rule/count"]
    assert len(rule(0)[1]) == 2
    for bad, word in ((-0.1, "decay is -0.1"), (np.nan, "decay is nan")):
        with pytest.raises(ValueError, match=word):
            rule(bad)
    with pytest.raises(ValueError, match="mask has 1 entries"):
        rule(0, [True])


def test_two_rules_of_one_name_are_saved(tmp_path):
    (W, b), cost = network()
    updates = optapi.adamw([W], cost, decay=0.1)
    optapi.adamw([b], cost, decay=0.0, updates=updates)
    c = pytensor.shared(1.0, name="c")
    optapi.adamw([c], c**2, updates=updates)
    prefixes = [v.name.partition("/")[0] for v in updates if v.name.endswith("count")]
    assert prefixes == ["adamw", "adamw_2", "adamw_3"]
    pytensor.function([], [], updates=updates, mode=optapi.PYTHON)()
    before = [v.get_value() for v in updates]
    optapi.save(tmp_path / "run.npz", updates)
    for variable in updates:
        variable.set_value(0 * variable.get_value())
    optapi.load(tmp_path / "run.npz", updates)
    assert all(np.array_equal(v.get_value(), value) for v, value in zip(updates, before, strict=True))


def flawed(flaw):
    """Descent along a mean of gradients, with a flaw."""

    def rule(parameters, cost=None, gradients=None, stop=None, updates=None, *,
             step_size=0.1, weight=0.5, tolerance=None, ascent=False, name="flawed"):  # fmt: skip
        given = {"tolerance": tolerance, "ascent": ascent and flaw != "ascent", "name": name}
        f = optapi.Objective.of(parameters, cost, gradients, stop, updates, **given)
        f.name = name if flaw == "names_in_one_dictionary" else f.name
        a = pt.constant(np.float64(0.1)) if flaw == "shared_step_size" else f.step_size(step_size)
        w = f.scalar("weight", float(weight) if flaw == "hyper_parameters_as_variables" else weight)
        new, means = {}, {}
        for p, g, rate in f.each(a):
            m = (
                pytensor.shared(np.zeros_like(p.get_value()), name="mean")
                if flaw == "keys"
                else f.zeros_like(p, "mean")
            )
            means[m] = f.average(m, g, w)
            if flaw == "types":
                means[m] = pt.exp(pt.log(means[m].astype("float64"))).astype(p.dtype)
            new[p] = p - rate * means[m]
        return f.finish(new, unheld=means) if flaw == "frozen_after_stop" else f.finish({**new, **means})

    return rule


FLAWS = [
    *("keys", "names_in_one_dictionary", "types", "ascent", "shared_step_size", "hyper_parameters_as_variables"),
    "frozen_after_stop",
]


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_broken_promise_is_named(flaw):
    [promise] = [promise for promise in PROMISES if promise.__name__ == flaw]
    check_promise(Case(flawed(None)), promise)
    with pytest.raises(AssertionError, match=f"^rule breaks a promise of all rules, {flaw} "):
        check_promise(Case(flawed(flaw)), promise)


def test_an_unflawed_rule_passes():
    check_rule(flawed(None), step_size=0.1)


def test_the_check_needs_neither_pytest_nor_assert_statements():
    code = """
import sys
sys.modules["pytest"] = None
import optapi
def rule(parameters, cost=None, gradients=None, stop=None, updates=None):
    return optapi.sgd(parameters, cost, gradients, stop, updates)
try:
    optapi.testing.check_rule(rule)
except AssertionError as error:
    print(str(error)[:52])
"""
    result = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "rule breaks a promise of all rules, signature (The f"
