"""The memory that rules take at their peak, in vectors of as many numbers as the parameters have."""

import gc
import inspect
import json
import re
import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from registry import public_rules, required

import optapi
from optapi import PYTHON
from optapi.rules import _linear_algebra


SCRIPT = Path(__file__).parent.parent / "benchmarks" / "memory.py"
N = 200_000


def f(x):
    return float(np.dot(x - 1, x - 1))


def df(x):
    return 2 * (x - 1)


def peak(call):
    """The vectors that `call` allocates at most, and those still there after it, of which it may have freed none."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return [size / 8 / N for size in reversed(tracemalloc.get_traced_memory())]
    finally:
        tracemalloc.stop()


def step_of(rule):
    """A step, and the vectors of its state."""
    x = pytensor.shared(np.zeros(N), name="x", shape=(N,))
    updates = rule([x], pt.sum((x - 1) ** 2 * np.linspace(1, 2, N)), stop=pytensor.shared(0, name="stop"))
    return pytensor.function([], [], updates=updates, mode=PYTHON), sum(v.get_value().size for v in updates) / N


def test_lbfgs_writes_its_pairs_where_they_are():
    allocated = {}
    for memory in (3, 10):
        step, state = step_of(partial(optapi.lbfgs, memory=memory))
        assert state == pytest.approx(2 * memory + 3, abs=0.1)
        step()
        allocated[memory], _ = peak(lambda: [step() for _ in range(memory + 5)])  # noqa: B023
        assert state + allocated[memory] <= 2 * memory + 21
    assert allocated[10] == pytest.approx(allocated[3], abs=1)


@pytest.mark.parametrize("memory", [3, 10])
def test_minimize_has_the_pairs_twice_and_no_more(memory):
    run = partial(optapi.minimize, np.zeros(N), f, df, "lbfgs", memory=memory, max_iterations=memory + 5)
    run()
    allocated, _ = peak(run)
    assert 4 * memory < allocated <= 4 * memory + 30


def test_minimize_leaves_nothing_large_behind():
    optapi.minimize(np.zeros(N), f, df, "lbfgs", memory=7, max_iterations=3, full_output=True)
    allocated, left = peak(partial(optapi.minimize, np.zeros(N), f, df, "lbfgs", memory=8, max_iterations=3))
    # The first call for a kind of points also builds.
    assert allocated <= 4 * 8 + 30
    # The state alone is 19.
    assert left < 8


@pytest.mark.parametrize(("rule", "vectors"), [(optapi.sgd, 1), (optapi.momentum, 2), (optapi.adam, 3)])
def test_first_order_rules_allocate_their_next_state_and_few_vectors(rule, vectors):
    # Under Python nothing elementwise is done in place.
    step, state = step_of(rule)
    step()
    assert state == pytest.approx(vectors, abs=0.1)
    allocated, _ = peak(lambda: [step() for _ in range(3)])
    assert allocated <= 2 * vectors + 2.1


def documented_state():
    """The vectors of state that the documentation says for each rule, None for as many as there are components."""
    page = (Path(__file__).parents[2] / "docs" / "rules" / "index.md").read_text().partition("## How much state")[2]
    for vectors, rules in re.findall(r"^\| (\d+|n \+ 2) \| (.*) \|$", page, re.MULTILINE):
        for name in re.findall("`([a-z0-9_]+)`", rules.partition(":")[0]):
            yield name, None if vectors == "n + 2" else int(vectors)


def test_the_documentation_says_how_much_state_a_rule_has():
    said = dict(documented_state())
    assert set(said) == {rule.__name__ for rule in public_rules()}
    for rule in public_rules():
        vectors = said[rule.__name__]
        n = 1000 if vectors is None else 20_000
        x = pytensor.shared(np.zeros(n), name="x", shape=(n,))
        options = {"residuals": [x - 1]} if "residuals" in inspect.signature(rule).parameters else {}
        options |= required(rule)
        options |= {"groups": [("x", optapi.sgd)]} if rule is optapi.partition else {}
        updates = rule([x], pt.sum((x - 1) ** 2) / 2, stop=pytensor.shared(0), **options)
        size = sum(v.get_value().size for v in updates if isinstance(v.get_value(), np.ndarray)) / n - 1
        assert size == pytest.approx(n + 2 if vectors is None else vectors, abs=0.4), rule.__name__


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("way", "rule", "most"),
    [
        pytest.param("NUMBA", "lbfgs, 10 pairs", 40, marks=pytest.mark.numba),
        pytest.param("CVM", "lbfgs, 10 pairs", 40, marks=pytest.mark.c),
        pytest.param("NUMBA", "adam", 5, marks=pytest.mark.numba),
        pytest.param("NUMBA", "sgd", 3, marks=pytest.mark.numba),
        pytest.param("compile_minimizer, NUMBA", "lbfgs, 10 pairs", 70, marks=pytest.mark.numba),
    ],
)
def test_vectors_of_a_process(way, rule, most):
    command = [sys.executable, "-W", "ignore", SCRIPT, "vectors", rule, way]
    _, vectors = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert vectors <= most


@pytest.mark.parametrize("rule", ["adam", "lbfgs"])
def test_what_is_built_grows_with_the_number_of_parameters_and_not_its_square(rule):
    def calls(count):
        ps = [pytensor.shared(np.full(3, i / count), name=f"p{i}", shape=(3,)) for i in range(count)]
        cost = sum(pt.sum((p - 1) ** 2) for p in ps)
        seen = 0

        def count_call(frame, event, argument):
            nonlocal seen
            seen += event == "call"

        before = sys.getprofile()
        sys.setprofile(count_call)
        try:
            updates = getattr(optapi, rule)(ps, cost, stop=pytensor.shared(0, name="stop"))
            pytensor.function([], cost, updates=updates, mode=PYTHON)
        finally:
            sys.setprofile(before)
        return seen

    calls(2)
    few, many = calls(10), calls(40)
    # Four times as many parameters; with the square of their number it would tend to 16.
    assert many < 4.5 * few


@pytest.mark.parametrize(("rule", "other"), [("bfgs", "lbfgs"), ("sr1", "lbfgs"), ("newton", "newton_cg")])
def test_matrices_beyond_the_memory_of_the_machine_are_refused(rule, other, monkeypatch):
    monkeypatch.setattr(_linear_algebra, "memory_of_machine", lambda: 16e9)
    x = pytensor.shared(np.zeros(100_000), name="x", shape=(100_000,))
    updates = {}
    with pytest.raises(ValueError, match=f"^{rule} .* 100000 x 100000 .* 240 GB.* Use {other}"):
        getattr(optapi, rule)([x], pt.sum(x**2), updates=updates)
    assert updates == {}
    # Three of 20,000 x 20,000 take 9.6 GB.
    x = pytensor.shared(np.zeros(20_000), name="x", shape=(20_000,))
    _linear_algebra.check_square(optapi.Objective.of([x], pt.sum(x**2), name="any"), "lbfgs")
