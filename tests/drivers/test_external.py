"""Loops under numba that call the cost through its address, and the sources that they are compiled from."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib import import_module

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.raise_op import Assert

import optapi
from optapi.drivers.external import Packing, is_separable
from optapi.drivers.loop_program import Problem
from optapi.drivers.progress import compiling
from optapi.objective import Objective


RANDOM = np.random.default_rng(0)
X, LABELS = RANDOM.normal(size=(40, 3)), (RANDOM.random((6, 40)) < 0.5) * 1.0


def logistic(dtype="float64"):
    """Two parameters, a cost, and its inputs."""
    w = pytensor.shared(np.zeros(3, dtype), name="w")
    b = pytensor.shared(np.zeros((1, 1), dtype), name="b", shape=(1, 1))
    data, labels = pt.matrix("data", dtype=dtype), pt.vector("labels", dtype=dtype)
    z = data @ w + b[0, 0]
    cost = pt.mean(pt.softplus(z) - labels * z) + np.asarray(0.05, dtype) * (pt.sum(w**2) + pt.sum(b**2))
    return [w, b], cost, [data, labels]


def minimizer(mode, rule="lbfgs", problem=None, **options):
    parameters, cost, inputs = problem or logistic()
    return optapi.compile_minimizer(parameters, cost, rule, inputs=inputs, mode=mode, **options)


# PyTensor 3.0 lets numba warn of matrices that are not contiguous.
@pytest.mark.numba
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("rule", "options", "dtype"),
    [
        ("lbfgs", {}, "float64"),
        ("lbfgs", {"tolerance": 1e-3}, "float32"),
        ("newton_cg", {}, "float64"),
        ("bfgs", {"line_search": optapi.line_search.weak_wolfe, "ascent": True}, "float64"),
        pytest.param("lbfgs", {"bounds": [(-0.1, None), (-0.05, 0.05)]}, "float64", marks=pytest.mark.long),
    ],
)
def test_it_is_the_loop_that_python_runs(rule, options, dtype):
    parameters, cost, inputs = logistic(dtype)
    problem = [parameters, -cost if options.get("ascent") else cost, inputs]
    run, twin = (minimizer(mode, rule, problem, **options) for mode in ("NUMBA", optapi.PYTHON))
    assert run._program._external is not None
    data, labels = X.astype(dtype), LABELS[0].astype(dtype)
    results = []
    for one in (run, twin):
        results.append(one(data, labels))
        one.restart()
    result, expected = results
    assert result.success
    assert (result.nit, result.nfev) == (expected.nit, expected.nfev)
    for x, y in zip(result.x, expected.x, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 if dtype == "float64" else 1e-4)
    many, others = (one.on_data(data, LABELS.astype(dtype)) for one in (run, twin))
    for x, y in zip(many.x, others.x, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 if dtype == "float64" else 1e-4)
    assert (many.status == others.status).all()
    if dtype == "float64":
        copied = pickle.loads(pickle.dumps(run))
        np.testing.assert_array_equal(copied(data, labels).x[0], result.x[0])
        starts = optapi.sample_starts(parameters, 4, seed=0, scale=0.05)
        found = list(run.from_starts(starts, data, labels, workers=2))
        np.testing.assert_allclose([r.fun for r in found], result.fun, rtol=1e-6)


@pytest.mark.numba
def test_the_second_cost_finds_the_rule_that_is_compiled():
    """Of other parameters, shapes, and data, which is read anew at each run."""
    run = minimizer("NUMBA")
    center = pytensor.shared(np.array([[1.0, -2.0], [3.0, 0.5]]), name="center")
    p = pytensor.shared(np.zeros((2, 2)), name="p")
    other = optapi.compile_minimizer([p], pt.sum(pt.cosh(p - center)), "lbfgs", mode="NUMBA")
    calls = [one._program._external.call for one in (run, other)]
    assert sum(calls[1].stats.cache_misses.values()) == 0
    assert len(calls[1].signatures) == 1
    np.testing.assert_allclose(other().x[0], center.get_value(), atol=1e-5)
    center.set_value(-center.get_value())
    other.restart()
    np.testing.assert_allclose(other().x[0], center.get_value(), atol=1e-5)
    center.set_value(np.asfortranarray(np.arange(4.0).reshape(2, 2)))
    other.restart()
    np.testing.assert_allclose(other().x[0], center.get_value(), atol=1e-5)


@pytest.mark.numba
@pytest.mark.filterwarnings("default")
def test_what_the_cost_raises_comes_out():
    x, allowed = pytensor.shared(np.array([3.0, 4.0]), name="x"), pt.scalar("allowed")
    checked = Assert("x is too small")(x, pt.all(x > allowed))
    run = optapi.compile_minimizer([x], pt.sum(checked**2), "lbfgs", inputs=[allowed], mode="NUMBA")
    assert run._program._external is not None
    with pytest.raises(AssertionError, match="x is too small"):
        run(1.0)
    np.testing.assert_array_equal(x.get_value(), [3.0, 4.0])
    np.testing.assert_allclose(run(-1.0).x[0], 0, atol=1e-5)


PROGRAM = """
import numpy as np, pytensor, pytensor.tensor as pt, optapi
x = pytensor.shared(np.zeros({size}), name="x")
run = optapi.compile_minimizer([x], pt.sum(pt.cosh(x - {size})), "barzilai_borwein", mode="NUMBA")
print(float(np.abs(run().x[0] - {size}).max()) < 1e-4)
"""


@pytest.mark.numba
@pytest.mark.long
def test_processes_share_what_is_compiled(tmp_path):
    """Several at a time with one empty cache, each with a cost of its own."""
    command = [sys.executable, "-W", "ignore", "-c"]
    environment = {"PYTENSOR_FLAGS": f"base_compiledir={tmp_path}", "PATH": "", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, PROGRAM.format(size=size)], env=environment, stdout=subprocess.PIPE, text=True)
        for size in (2, 3, 5)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["True"] * 3


@pytest.mark.numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_child_goes_on_with_what_is_compiled_and_compiles_anew():
    def made(center):
        x = pytensor.shared(np.zeros(2), name="x")
        return optapi.compile_minimizer([x], pt.sum(pt.cosh(x - center)), "barzilai_borwein", mode="NUMBA")

    run = made(2.0)
    expected = run().x[0]
    run.restart()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads are running, of Python or of JAX
        child = os.fork()
    if child == 0:
        signal.alarm(300)  # a child that waits for a lock would do so for ever
        code = 1
        try:
            found = [run().x[0], pickle.loads(pickle.dumps(run))().x[0], made(3.0)().x[0]]
            # The pickle starts where the first has ended.
            right = [np.array_equal(found[0], expected), *(abs(found[i] - c).max() < 1e-4 for i, c in ((1, 2), (2, 3)))]
            code = 0 if all(right) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(run.parameters[0].get_value(), 0)
    np.testing.assert_array_equal(run().x[0], expected)


def test_costs_that_stay_in_the_loop():
    (w, b), cost, inputs = logistic()

    def separable(cost=cost, rule=optapi.lbfgs, parameters=(w, b), updates=None, **options):
        return is_separable(Problem.of(list(parameters), cost, rule, options, inputs, updates, "NUMBA"))

    count = pytensor.shared(0.0, name="count")
    narrow = pytensor.shared(np.float32(0), name="narrow")
    rng = pytensor.shared(np.random.default_rng(0))
    assert separable()
    assert separable(bounds=(-1, 1), tolerance=1e-4, line_search=optapi.line_search.hager_zhang)
    assert not separable(updates={count: count + 1})
    assert not separable(cost + narrow**2, parameters=(w, b, narrow))
    assert not separable(cost + pt.random.normal.make_node(rng, None, 0.0, 1.0).outputs[1])
    assert not separable(rule=lambda parameters, *arguments, **options: optapi.lbfgs(parameters, *arguments, **options))
    assert not separable(step_size=pt.as_tensor(1.0))
    assert not separable(cost + optapi.Oracle(lambda w: (0.0, [w]))([w]))


def test_packing():
    a, b = pytensor.shared(np.array([1.0, 2.0]), name="a"), pytensor.shared(np.array([[3.0]]), name="b")
    point = pytensor.shared(np.zeros(3), name="minimization/point")

    def rule(parameters):
        f = Objective.of(parameters, sum(pt.sum(p**2) for p in parameters), name="rule")
        new = {p: p - f.full_like(p, "sizes", 0.5) * g for p, g in f.each()}
        states = [f.full_like(p, "sizes", 0.5) for p in parameters]
        return f.finish({f.state("norm"): 0.0 * f.count, **new, **{s: s * 2 for s in states}})

    apart, updates = rule([point]), rule([a, b])
    packing = Packing.of(apart, point, updates, [a, b])
    values = [variable.get_value() for variable in updates]
    together = packing.joined(values)
    assert [np.shape(value) for value in together] == [v.get_value().shape for v in apart]
    np.testing.assert_array_equal(together[list(apart).index(point)], [1, 2, 3])
    for value, expected in zip(packing.separated(together), values, strict=True):
        np.testing.assert_array_equal(value, expected)
        assert np.shape(value) == np.shape(expected)
    # A rule that keeps something else of each parameter does not fit.
    assert Packing.of(optapi.adam([point], pt.sum(point**2)), point, updates, [a, b]) is None


@pytest.mark.numba
def test_what_takes_long_to_compile_is_announced(capsys):
    linker = import_module("optapi.graph.threads").FreeNumbaLinker("lbfgs")
    linker.lines = 500
    linker.announce(None)
    said = capsys.readouterr().err
    assert said.startswith("optapi: numba compiles lbfgs for about 10 s")
    assert said.count("\n") == 1
    linker.lines = 50
    linker.announce(None)
    assert capsys.readouterr().err == ""


@pytest.mark.numba
@pytest.mark.parametrize("has_rich", [False, True])
def test_a_bar_shows_how_long_it_has_compiled(capsys, monkeypatch, has_rich):
    if has_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    linker = import_module("optapi.graph.threads").FreeNumbaLinker("lbfgs")
    linker.lines = 500
    before = threading.active_count()
    for progressbar in (False, "force"):
        with compiling(progressbar):
            linker.announce(None)
            time.sleep(0.5)
        said = capsys.readouterr().err
        assert ("compiling lbfgs" in said) == bool(progressbar)
    if not has_rich:
        lines = said.split("\n")[1].split("\r")
        assert len(lines) > 3
        assert lines[-1].strip() in [f"compiling lbfgs  {i} of about 10  seconds" for i in (0, 1)]
    assert threading.active_count() == before
    linker.announce(None)
    assert "compiling" not in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", [optapi.PYTHON, pytest.param("JAX", marks=pytest.mark.jax)])
def test_compile(mode):
    (w, b), cost, inputs = logistic()
    run = optapi.compile_minimizer([w, b], cost, "lbfgs", inputs=inputs, mode=mode)
    w.set_value(np.ones(3))
    run.compile(X, labels=LABELS[0])
    np.testing.assert_array_equal(w.get_value(), np.ones(3))
    with pytest.raises(ValueError, match="resume"):
        run.resume(X, LABELS[0])
    assert run(X, LABELS[0]).success


@pytest.mark.numba
def test_operations_that_differ_in_what_is_none_stay_apart():
    p = pytensor.shared(np.zeros((2, 3)), name="p")
    rows, columns = pt.specify_shape(p * 2, (2, None)), pt.specify_shape(p + 1, (None, 3))
    run = optapi.compile_minimizer(
        [p], pt.sum((rows - 1) ** 2 + (columns - 2) ** 2), "sgd", mode="NUMBA", step_size=0.1
    )
    np.testing.assert_allclose(run().x[0], 0.6, atol=1e-5)


@pytest.mark.numba
def test_a_gradient_that_is_a_constant():
    """It is not written over, and a linear cost within bounds ends in a corner."""
    x, slope = pytensor.shared(np.zeros(3), name="x"), np.array([1.0, -2.0, 3.0])
    run = optapi.compile_minimizer([x], pt.sum(slope * x), "barzilai_borwein", mode="NUMBA", max_iterations=5)
    result = run()
    assert result.status != 0
    assert (result.x[0] @ slope) < 0
    np.testing.assert_array_equal(slope, [1.0, -2.0, 3.0])
    np.testing.assert_array_equal(result.jac[0], slope)


@pytest.mark.numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_matrices_of_any_layout_in_a_loop(dtype):
    a, b = (pt.matrix(shape=shape, dtype=dtype) for shape in ((3, 5), (8, 5)))

    def turn(total):
        return [total + a @ b[::2].T + (total.T @ a).sum()], pt.constant(np.bool_(False))

    [total] = optapi.repeat(turn, [pt.zeros((3, 4), dtype)], 2)
    function = pytensor.function([a, b], total, mode="NUMBA")
    x, y = RANDOM.normal(size=(3, 5)).astype(dtype), RANDOM.normal(size=(8, 5)).astype(dtype)
    first = x @ y[::2].T
    expected = 2 * first + (first.T @ x).sum()
    np.testing.assert_allclose(function(x, y), expected, rtol=1e-4 if dtype == "float32" else 1e-10)
