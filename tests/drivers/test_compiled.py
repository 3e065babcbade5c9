"""Compiled minimizations: single, watched, resumed, and from many starts."""

import inspect
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytensor
import pytensor.sparse
import pytensor.tensor as pt
import pytest
from pytensor.raise_op import Assert
from registry import public_rules
from scipy import sparse
from scipy.stats import qmc

import optapi
from optapi import compile_minimizer, minimize, sample_starts
from optapi.drivers import loop_program
from optapi.graph.compat import assign
from optapi.graph.numpy_linker import STEP
from optapi.graph.oracle import oracles


START = np.array([-1.2, 1.0, -0.5, 0.8])


def rosenbrock(start=START, name="x"):
    """A parameter and its cost, which is least, 0, where all components are 1."""
    x = pytensor.shared(start.copy(), name=name)
    return x, pt.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rosen(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def made(rule="lbfgs", start=START, mode=STEP, **keywords):
    x, cost = rosenbrock(start)
    return x, compile_minimizer([x], cost, rule, mode=mode, **keywords)


def bowl():
    """Two parameters and a cost with inputs, least where they are the inputs."""
    a, b = pytensor.shared(np.zeros(2), name="a"), pytensor.shared(np.float32(0), name="b")
    u, v = pt.dvector("u"), pt.fscalar("v")
    return [a, b], pt.sum((a - u) ** 2) + 3 * (b - v) ** 2, [u, v]


def same(one, other):
    """The same results, bit for bit."""
    assert list(one) == list(other)
    for name, value in one.items():
        if name in ("x", "jac", "iterate"):
            assert [a.tobytes() for a in value] == [a.tobytes() for a in other[name]], name
        elif name != "hess_inv":
            np.testing.assert_equal(value, other[name], err_msg=name)


# One minimization


def test_a_result_has_all_entries():
    x, run = made()
    result = run()
    names = ["x", "fun", "jac", "iterate", "nit", "nfev", "njev", "nhev", "status", "success", "message", "hess_inv"]
    assert sorted(result) == sorted(names)
    assert isinstance(result, optapi.OptimizeResult)
    assert result.success
    assert result.status == 0
    assert "1e-05" in result.message
    np.testing.assert_allclose(result.x[0], 1, atol=1e-5)
    assert result.fun == pytest.approx(rosen(result.x[0]), rel=1e-12)
    assert np.abs(result.jac[0]).max() <= 1e-5
    np.testing.assert_array_equal(x.get_value(), result.x[0])
    assert result.hess_inv.shape == (4, 4)
    result.x[0][:] = 7
    assert x.get_value()[0] != 7
    assert run().nit == 0


@pytest.mark.parametrize("rule", ["lbfgs", "adam", "barzilai_borwein", "rprop"])
def test_it_does_what_minimize_does(rule):
    """The same iterations; at most one evaluation more, for the result."""
    options = {"max_iterations": 60} | ({} if rule in ("lbfgs", "barzilai_borwein") else {"step_size": 0.02})

    def df(x):
        r, g = x[1:] - x[:-1] ** 2, np.zeros_like(x)
        g[1:] += 200 * r
        g[:-1] -= 400 * r * x[:-1] + 2 * (1 - x[:-1])
        return g

    expected = minimize(START, rosen, df, getattr(optapi, rule), full_output=True, **options)
    _, run = made(rule, **options)
    result = run()
    assert (result.nit, result.status) == (expected.nit, expected.status)
    assert 0 <= result.nfev - expected.nfev <= 1
    np.testing.assert_allclose(result.x[0], expected.x, rtol=1e-6)
    np.testing.assert_allclose(result.iterate[0], expected.iterate, rtol=1e-6)
    assert result.message.split(",")[0] == expected.message.split(",")[0]


def test_a_rule_by_itself_or_by_name():
    same(made("lbfgs")[1](), made(optapi.lbfgs)[1]())


def test_each_run_begins_with_the_rule_as_new():
    x, run = made("adam", step_size=0.05, max_iterations=30)
    first = run()
    run.restart()
    np.testing.assert_array_equal(x.get_value(), START)
    same(run(), first)
    x.set_value(START + 1)
    other = run()
    assert other.fun != first.fun
    run.restart()
    np.testing.assert_array_equal(x.get_value(), START)


def test_several_parameters_inputs_and_dtypes():
    parameters, cost, inputs = bowl()
    run = compile_minimizer(parameters, cost, "lbfgs", inputs=inputs, mode=STEP)
    result = run([1.0, -2.0], 0.5)
    np.testing.assert_allclose(result.x[0], [1, -2], atol=1e-5)
    assert result.x[1].dtype == parameters[1].get_value().dtype == "float32"
    assert result.x[1] == pytest.approx(0.5, abs=1e-5)
    assert result.x[1].shape == ()
    # The inputs stay the same in a minimization, so nothing is evaluated twice.
    run.restart()
    again = compile_minimizer(parameters, cost, "lbfgs", inputs=inputs, mode=STEP, exact=False)([1.0, -2.0], 0.5)
    assert again.nfev > result.nfev
    assert run([3.0, 3.0], 1.0).x[0] == pytest.approx([3.0, 3.0], abs=1e-5)


def test_inputs_and_points_by_name():
    parameters, cost, inputs = bowl()
    run = compile_minimizer(parameters, cost, "lbfgs", inputs=inputs, mode="PYTHON")
    result = run([1.0, -2.0], v=0.5)
    assert result.x["a"] is result.x[0]
    assert result.x["b"] == pytest.approx(0.5, abs=1e-5)
    assert result.jac["b"].dtype == "float32"
    assert isinstance(result.x, list)
    assert pickle.loads(pickle.dumps(result)).x["b"] == result.x["b"]
    with pytest.raises(KeyError, match="there is no 'c'; there are a, b"):
        result.x["c"]
    run.restart()
    same(run(v=0.5, u=[1.0, -2.0]), result)
    for arguments, named, message in [
        (([1.0, -2.0],), {}, "pass 2: u, v"),
        (([1.0, -2.0], 0.5), {"v": 0.5}, "'v' that is not given by its place"),
        (([1.0, -2.0],), {"w": 0.5}, "no input is called 'w'"),
    ]:
        with pytest.raises(TypeError, match=message):
            run(*arguments, **named)
    rows = [np.zeros((2, 2)), np.zeros(2)]
    assert run.from_starts(rows, u=[1.0, -2.0], v=0.5)[0].x["b"] == pytest.approx(0.5, abs=1e-5)


def test_float32():
    x, run = made(start=START.astype("float32"), tolerance=1e-2)
    result = run()
    assert result.success
    assert result.x[0].dtype == result.jac[0].dtype == x.get_value().dtype == np.float32


def test_ascent():
    x = pytensor.shared(np.ones(2), name="x")
    for rule, options in (("lbfgs", {}), ("adam", {"step_size": 0.1, "max_iterations": 300})):
        x.set_value(np.ones(2))
        result = compile_minimizer([x], 5 - pt.sum((x - 3) ** 2), rule, ascent=True, mode=STEP, **options)()
        assert result.fun == pytest.approx(5, abs=1e-3)
        np.testing.assert_allclose(result.x[0], 3, atol=0.05)


def test_the_best_point_of_a_rule_that_may_go_up():
    """With momentum it runs past the minimizer; the cost at the end is higher than before."""
    x = pytensor.shared(np.array([1.0]), name="x")
    run = compile_minimizer([x], x[0] ** 4, "momentum", step_size=0.1, max_iterations=13, trace=True, mode=STEP)
    result = run()
    assert result.fun == result.trace["cost"].min() < result.trace["cost"][-1]
    assert result.fun == result.x[0][0] ** 4
    np.testing.assert_array_equal(x.get_value(), result.x[0])
    assert result.iterate[0] ** 4 == result.trace["cost"][-1]
    assert result.status == 1


def test_divergence():
    _, run = made("sgd", step_size=1.0)
    result = run()
    assert result.status == 3
    assert "No way on" in result.message
    assert result.nit < 10
    np.testing.assert_array_equal(result.x[0], START)
    assert result.fun == pytest.approx(rosen(START))


@pytest.mark.parametrize(
    "made", [lambda x: pt.log(x) ** 2, lambda x: x**2 + pt.switch(x > 0, 0.0, np.inf)], ids=["no number", "infinite"]
)
@pytest.mark.parametrize("rule", ["lbfgs", "sgd", "newton", "newton_cg", "hessian_free"])
def test_a_start_where_the_cost_is_not_finite(rule, made):
    x = pytensor.shared(np.array([-1.0]), name="x")
    run = compile_minimizer([x], pt.sum(made(x)), rule, mode=STEP)
    result = run()
    assert result.status == 3
    assert not result.success
    assert "at the start" in result.message
    assert result.nit == 0
    np.testing.assert_array_equal(x.get_value(), [-1.0])
    x.set_value(np.array([np.nan]))
    with pytest.raises(ValueError, match="not finite"):
        run()


def test_no_iterations():
    x, run = made(max_iterations=0)
    result = run()
    assert (result.nit, result.status, result.nfev) == (0, 1, 1)
    assert result.fun == pytest.approx(rosen(START))
    np.testing.assert_array_equal(x.get_value(), START)


def test_start_at_the_minimizer():
    for rule in ("lbfgs", "sgd"):
        x, run = made(rule, start=np.ones(3))
        result = run()
        assert (result.nit, result.status) == (0, 0)
        assert x.get_value().tobytes() == np.ones(3).tobytes()


# Limits, and who looks on


def test_looking_changes_nothing():
    """A run in pieces is the run at once."""
    plain = made()[1]()
    rows, points = [], []

    def callback(intermediate_result):
        rows.append((intermediate_result.nit, intermediate_result.fun))

    for keywords in ({"callback": callback}, {"callback": points.append}, {"trace": True}, {"time_limit": 1e6}):
        result = made(**keywords)[1]()
        assert result.nit == plain.nit
        assert result.x[0].tobytes() == plain.x[0].tobytes()
    assert [nit for nit, _ in rows] == list(range(1, plain.nit + 1))
    assert rows[-1][1] == plain.fun
    assert len(points) == plain.nit
    assert points[-1][0].tobytes() == plain.x[0].tobytes()


def test_trace():
    result = made(trace=True)[1]()
    assert set(result.trace) == {"cost", "gradient_size", "step", "evaluations", "seconds"}
    assert all(len(column) == result.nit + 1 for column in result.trace.values())
    assert result.trace["cost"][0] == pytest.approx(rosen(START))
    assert result.trace["cost"][-1] == pytest.approx(result.fun)
    assert np.all(np.diff(result.trace["cost"]) <= 0)
    assert np.all(np.diff(result.trace["evaluations"]) > 0)


def test_table_and_bar(capsys):
    made(verbose=10, progressbar="force")[1]()
    said = capsys.readouterr()
    assert "iteration" in said.out
    assert "Converged" in said.out
    assert said.err


def test_limits():
    assert made(target=1.0)[1]().status == 5
    assert made(target=1.0)[1]().fun <= 1.0
    assert made(target=1e6)[1]().nit == 0
    assert made(cost_tolerance=1e-3)[1]().message.startswith("Converged: the last iteration changed the cost")
    assert made(step_tolerance=1e-3)[1]().message.startswith("Converged: the last iteration changed the point")
    limited = made(max_evaluations=10)[1]()
    assert limited.status == 1
    assert 10 <= limited.nfev < 15
    assert made(time_limit=0.0)[1]().status == 4


def test_a_callback_stops_it():
    def callback(intermediate_result):
        if intermediate_result.nit == 3:
            raise StopIteration

    x, run = made(callback=callback)
    result = run()
    assert (result.status, result.nit) == (99, 3)
    assert not result.success
    rest = run.resume()
    assert rest.success
    same(rest, made(callback=lambda intermediate_result: None)[1]())
    np.testing.assert_array_equal(x.get_value(), rest.x[0])


class Interrupted:
    """A callback that interrupts, once."""

    def __init__(self, at):
        self.at = at

    def __call__(self, intermediate_result):
        if intermediate_result.nit == self.at:
            self.at = None
            raise KeyboardInterrupt


def test_an_interrupt_between_pieces():
    x, run = made(callback=Interrupted(4))
    with pytest.raises(KeyboardInterrupt):
        run()
    at = x.get_value()
    limited = made(max_iterations=4)[1]()
    assert at.tobytes() == limited.x[0].tobytes()
    assert run.resume().nit == made()[1]().nit


def test_an_interrupt_inside_of_a_piece(monkeypatch):
    """The piece has not happened."""
    x, run = made(trace=True)
    calls = []
    inner = run._program.advance

    def advance(*arguments):
        calls.append(arguments)
        new = inner(*arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return new

    monkeypatch.setattr(run._program, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        run()
    limited = made(max_iterations=5)[1]()
    assert x.get_value().tobytes() == limited.x[0].tobytes()
    assert "not finished" in repr(run)
    result = run.resume()
    expected = made(trace=True)[1]()
    for one in (result, expected):
        del one.trace["seconds"]
    same(result, expected)


def test_nothing_else_begins_while_it_runs(tmp_path):
    def callback(x):
        begin = {
            "run": run,
            "resume": run.resume,
            "restart": run.restart,
            "from_starts": lambda: run.from_starts([np.zeros((2, 4))]),
            "load": lambda: run.load(tmp_path / "half.npz"),
        }
        for name, call in begin.items():
            with pytest.raises(RuntimeError, match="callback cannot"):
                call()
            refused.append(name)
        raise StopIteration

    refused = []
    x, run = made(callback=callback)
    result = run()
    assert len(refused) == 5 and result.nit == 1
    run.save(tmp_path / "half.npz")
    assert np.array_equal(x.get_value(), result.x[0])


class Positive:
    """A callable that does not take negative components."""

    def __init__(self, failure):
        self.failure = failure

    def __call__(self, x):
        if np.any(x < 0):
            raise self.failure
        return float(np.sum((x - 3) ** 4)), [4 * (x - 3) ** 3]


def test_what_an_oracle_raises_comes_out_once():
    x = pytensor.shared(np.array([-1.0, 2.0]), name="x", shape=(2,))
    oracle = optapi.Oracle(Positive(failure := KeyboardInterrupt("stopped")))
    run = compile_minimizer([x], oracle([x]), "lbfgs", mode=STEP)
    with pytest.raises(KeyboardInterrupt) as caught:
        run()
    assert caught.value is failure
    assert oracle.failure is None
    assert np.array_equal(x.get_value(), [-1, 2])
    x.set_value(np.array([1.0, 2.0]))
    assert run().success
    assert np.allclose(x.get_value(), 3, atol=0.05)


def test_what_an_oracle_has_kept_from_another_function_comes_out():
    x = pytensor.shared(np.array([-1.0]), name="x", shape=(1,))
    oracle = optapi.Oracle(Positive(ValueError("negative")))
    cost = oracle([x])
    run = compile_minimizer([x], cost, "lbfgs", mode=STEP)
    assert np.isnan(pytensor.function([], cost, mode=STEP)())
    x.set_value(np.array([1.0]))
    with pytest.raises(ValueError, match="negative"):
        run()
    assert run().success


def test_oracles_of_inner_graphs_are_found():
    x = pytensor.shared(np.array([1.0]), name="x", shape=(1,))
    oracle = optapi.Oracle(Positive(ValueError("negative")))
    [looped] = optapi.repeat(lambda y: ([y - pytensor.grad(oracle([y]), y)], pt.constant(False)), [x], 2)
    assert oracles([pt.sum(looped)]) == [oracle]


def test_a_start_that_raises_leaves_the_others():
    x = pytensor.shared(np.array([1.0, 2.0]), name="x", shape=(2,))
    failure = ValueError("negative")
    run = compile_minimizer([x], optapi.Oracle(Positive(failure))([x]), "lbfgs", mode=STEP)
    results = run.from_starts([np.array([[1.0, 2.0], [-1.0, 2.0], [2.0, 5.0]])])
    assert [result.status for result in results] == [0, 0, 3]
    last = results[-1]
    assert last.error is failure and last.start == 1 and "raised" in last.message
    assert np.array_equal(last.x[0], [-1, 2]) and np.isnan(last.fun)
    with pytest.raises(ValueError, match="negative"):
        run.from_starts([np.array([[-1.0, 2.0], [-1.0, 3.0]])])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_an_interrupt_parts_no_parameters():
    """Signals that come at any time find either the old values or the new ones."""
    variables = [pytensor.shared(np.zeros(1)) for _ in range(50)]
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for number in range(100):
            values = [np.full(1, number + 1.0)] * 50
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 3e-6 * number)
                while True:
                    assign(variables, values)
            except KeyboardInterrupt:
                pass
            held = {float(v.get_value(borrow=True)[0]) for v in variables}
            assert len(held) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


# Going on


@pytest.mark.parametrize("rule", ["lbfgs", "adam"])
def test_resuming_is_exact(rule, tmp_path):
    """At once, in two pieces, from a file and from a pickle: bit for bit the same."""
    at_once = made(rule, max_iterations=24)[1]()
    x, run = made(rule, max_iterations=12)
    half = run()
    assert half.status == 1
    run.save(tmp_path / "half.npz")
    copy = pickle.loads(pickle.dumps(run))
    x.set_value(np.zeros(4))  # is not looked at
    whole = run.resume()
    assert whole.nit == 24
    assert whole.x[0].tobytes() == at_once.x[0].tobytes()
    same(copy.resume(), whole)
    assert copy.parameters[0].get_value().tobytes() == whole.x[0].tobytes()

    y, loaded = made(rule, max_iterations=12)
    loaded.load(tmp_path / "half.npz")
    assert y.get_value().tobytes() == (half.iterate[0]).tobytes()
    same(loaded.resume(), whole)


def test_what_cannot_be_resumed(tmp_path):
    parameters, cost, inputs = bowl()
    run = compile_minimizer(parameters, cost, "sgd", inputs=inputs, step_size=0.01, max_iterations=3, mode=STEP)
    for act in (lambda: run.resume([0.0, 0.0], 0.0), lambda: run.save(tmp_path / "no.npz")):
        with pytest.raises(ValueError, match="no minimization"):
            act()
    run([1.0, 2.0], 1.0)
    run.resume([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="not those"):
        run.resume([1.0, 2.5], 1.0)
    run.save(tmp_path / "some.npz")
    before = [p.get_value() for p in parameters]
    other = compile_minimizer(parameters, cost, "adam", inputs=inputs, mode=STEP)
    with pytest.raises(ValueError, match="saved by sgd"):
        other.load(tmp_path / "some.npz")
    with pytest.raises(ValueError, match="a is in the file only"):
        made("sgd")[1].load(tmp_path / "some.npz")
    np.savez(tmp_path / "foreign.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match="not a file that optapi wrote"):
        run.load(tmp_path / "foreign.npz")
    assert all(np.array_equal(p.get_value(), value) for p, value in zip(parameters, before, strict=True))
    run.load(tmp_path / "some.npz")
    with pytest.raises(ValueError, match="not those"):
        run.resume([1.0, 2.5], 1.0)
    assert run.resume([1.0, 2.0], 1.0).nit == 9


# Random costs


def noisy(seed=3):
    x, rng = pytensor.shared(np.zeros(3), name="x"), pt.random.shared_rng(seed=seed, name="rng")
    following, noise = rng.normal(scale=0.1, size=(3,))
    return x, pt.sum((x - 1 + noise) ** 2), {rng: following}


def test_random_costs(tmp_path):
    x, cost, updates = noisy()
    run = compile_minimizer([x], cost, "sgd", updates=updates, step_size=0.1, max_iterations=20, mode=optapi.PYTHON)
    first = run()
    np.testing.assert_array_equal(first.x[0], first.iterate[0])
    np.testing.assert_allclose(first.x[0], 1, atol=0.3)
    run.save(tmp_path / "noisy.npz")
    second = run.resume()

    x, cost, updates = noisy(seed=4)
    again = compile_minimizer([x], cost, "sgd", updates=updates, step_size=0.1, max_iterations=20, mode=optapi.PYTHON)
    again.load(tmp_path / "noisy.npz")
    same(again.resume(), second)

    # The generator goes on: another minimization sees other draws.
    run.restart()
    assert run().x[0].tobytes() != first.x[0].tobytes()
    with pytest.raises(ValueError, match="never advanced"):
        compile_minimizer([x], cost, "sgd", mode=STEP)


def test_a_cost_of_data_that_change():
    """An iteration sees the next row, so nothing that was found at a point counts at the next iteration."""
    x, row = pytensor.shared(np.zeros(2), name="x"), pytensor.shared(0, name="row")
    data = np.random.default_rng(0).normal(size=(50, 2))
    cost = pt.sum((x - pt.constant(data)[row]) ** 2)
    options = {"updates": {row: row + 1}, "max_iterations": 7, "mode": STEP}
    result = compile_minimizer([x], cost, "sgd", step_size=0.5, **options)()
    np.testing.assert_allclose(result.x[0], data[6], rtol=1e-12)
    np.testing.assert_array_equal(result.x[0], result.iterate[0])
    assert row.get_value() == 7
    with pytest.warns(optapi.OptimizationWarning, match="reads what updates writes"):
        runs = [compile_minimizer([x], cost, "lbfgs", **{**options, "updates": u}) for u in ({row: row + 1}, {})]
    assert ["lbfgs/point" in " ".join(run._program.places.names) for run in runs] == [False, True]


# Many starts


@pytest.mark.parametrize("rule", ["lbfgs", "adam"])
def test_many_starts(rule):
    """Together, one after another, and each alone."""
    options = {"max_iterations": 40} | ({"step_size": 0.05} if rule == "adam" else {})
    x, run = made(rule, **options)
    starts = sample_starts([x], 6, seed=1)
    starts[0][2] = 1.0  # the minimizer
    together = run.from_starts(starts, together=True)
    x.set_value(np.zeros(4))
    apart = run.from_starts(starts, together=False)
    assert sorted(r.start for r in together) == list(range(6))
    assert together[0].start == apart[0].start == 2
    assert together[0].nit == 0
    assert [r.fun for r in apart] == sorted(r.fun for r in apart)
    by_start = {r.start: r for r in together}
    for result in apart:
        twin = by_start[result.start]
        assert (twin.nit, twin.nfev, twin.status) == (result.nit, result.nfev, result.status)
        np.testing.assert_allclose(twin.x[0], result.x[0], rtol=1e-6, atol=1e-8)
        x.set_value(starts[0][result.start])
        alone = run()
        assert alone.x[0].tobytes() == result.x[0].tobytes()
        assert (alone.nit, alone.nfev, alone.message) == (result.nit, result.nfev, result.message)
    run.from_starts(starts)
    np.testing.assert_array_equal(x.get_value(), np.ones(4))


@pytest.mark.parametrize(
    "rule, options", [("lbfgs", {}), ("nesterov", {"step_size": 1e-4}), ("adam", {"step_size": 0.1})]
)
def test_paths_lead_from_the_starts_to_the_ends(rule, options):
    x, run = made(rule, max_iterations=9, **options)
    starts = np.stack([START, START / 2])
    paths = run.paths([starts], max_iterations=9)
    assert np.array_equal(paths.points[:, 0], starts) and paths.iterations.tolist() == [9, 9]
    for start, points, costs in zip(starts, paths.points, paths.costs, strict=True):
        x.set_value(start)
        result = run()
        np.testing.assert_allclose(points[9], result.iterate[0], rtol=1e-12)
        assert costs[9] == pytest.approx(rosen(points[9]), rel=1e-12) != costs[0]


def test_the_best_of_many_starts():
    """A cost with two minima; non-finite starts come last."""
    x = pytensor.shared(0.5, name="x")
    run = compile_minimizer([x], (x**2 - 1) ** 2 + 0.3 * x + 0 * pt.log(x + 5), "bfgs", mode=STEP)
    for together in (True, False):
        results = run.from_starts(np.array([1.5, -6.0, -0.8, 0.4]), together=together)
        assert results[0].start == 2
        assert results[0].x[0] == pytest.approx(-1.035, abs=1e-2)
        assert results[-1].start == 1
        assert results[-1].status == 3
        assert x.get_value() == results[0].x[0]
        assert results[0].hess_inv.shape == (1, 1)
        assert "hess_inv" not in results[1]
    upwards = compile_minimizer([x], -((x**2 - 1) ** 2) - 0.3 * x, "bfgs", ascent=True, mode=STEP)
    assert upwards.from_starts(np.array([1.5, -0.8]))[0].start == 1
    assert upwards.resume().nit == upwards.from_starts(np.array([-0.8]))[0].nit


def test_starts_of_some_parameters():
    parameters, cost, inputs = bowl()
    run = compile_minimizer(parameters, cost, "lbfgs", inputs=inputs, mode=STEP)
    given = {parameters[0]: np.arange(6.0).reshape(3, 2)}
    for together in (True, False):
        results = run.from_starts(given, [1.0, 2.0], 3.0, together=together)
        assert len(results) == 3
        assert all(result.x[1] == pytest.approx(3.0, abs=1e-4) for result in results)


def test_limits_that_look_at_each_iteration_keep_starts_apart():
    x, run = made(target=1e-2)
    results = run.from_starts(sample_starts([x], 3, scale=0.1, seed=0))
    assert all(result.status == 5 for result in results)
    with pytest.raises(ValueError, match="together"):
        run.from_starts(sample_starts([x], 3, seed=0), together=True)


def test_bad_starts():
    parameters, cost, inputs = bowl()
    run = compile_minimizer(parameters, cost, "sgd", inputs=inputs, mode=STEP)
    good = [np.zeros((3, 2)), np.zeros(3)]
    for starts, message in (
        (np.zeros((3, 2)), "list of 2 arrays"),
        ([np.zeros((3, 3)), np.zeros(3)], "a row of shape"),
        ([np.zeros((0, 2)), np.zeros(0)], "a row of shape"),
        ([np.zeros((3, 2)), np.zeros(4)], "3, 4"),
        ([np.full((3, 2), np.nan), np.zeros(3)], "not finite"),
        ({}, "empty"),
        ({inputs[0]: np.zeros((3, 2))}, "none of the parameters"),
    ):
        with pytest.raises(ValueError, match=message):
            run.from_starts(starts, [0.0, 0.0], 0.0)
    with pytest.raises(ValueError, match="workers is 2"):
        run.from_starts(good, [0.0, 0.0], 0.0, workers=2)
    with pytest.raises(TypeError, match="workers"):
        run.from_starts(good, [0.0, 0.0], 0.0, workers=1.5)


def test_samples():
    a, b = pytensor.shared(np.array([10.0, 20.0]), name="a"), pytensor.shared(np.float32(-5), name="b")
    for method in ("normal", "uniform", "latin_hypercube", "sobol"):
        one, other = (sample_starts([a, b], 64, method, scale=[2.0, 0.5], seed=7) for _ in range(2))
        assert [s.shape for s in one] == [(64, 2), (64,)]
        assert [s.dtype.name for s in one] == ["float64", "float32"]
        assert all(s.tobytes() == t.tobytes() for s, t in zip(one, other, strict=True))
        assert one[0].tobytes() != sample_starts([a, b], 64, method, scale=[2.0, 0.5], seed=8)[0].tobytes()
        np.testing.assert_allclose(one[0].mean(0), [10, 20], atol=1)
        if method != "normal":
            assert np.abs(one[0] - [10, 20]).max() <= 2
            assert np.abs(one[1] + 5).max() <= 0.5
    even = sample_starts([a], 64, "latin_hypercube", scale=1.0, seed=0)[0]
    assert all(len(set(np.floor((column + 1) * 32))) == 64 for column in (even - [10, 20]).T)
    unit = [(sample_starts([a], 64, m, seed=0)[0] - [9, 19]) / 2 for m in ("uniform", "sobol")]
    assert qmc.discrepancy(unit[1]) < qmc.discrepancy(unit[0].clip(0, 1)) / 2
    for bad, message in (({"method": "grid"}, "method"), ({"scale": [1.0, 2.0]}, "one for each")):
        with pytest.raises(ValueError, match=message):
            sample_starts([a], 3, **bad)
    with pytest.raises(ValueError, match="count"):
        sample_starts([a], 0)


# What is refused


def test_no_rule_takes_a_keyword_of_the_driver():
    own = {n for n, p in inspect.signature(compile_minimizer).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for rule in public_rules():
        assert not (own - {"updates"}) & set(inspect.signature(rule).parameters), rule.__name__


def test_bad_input():
    x, cost = rosenbrock()
    v, w = pt.dvector("v"), pt.dscalar("w")
    y = pytensor.shared(np.zeros(2), name="y")
    for arguments, keywords, error, message in (
        (([x], cost, "lbgfs"), {}, ValueError, "did you mean 'lbfgs'"),
        (([x], cost, "minimize"), {}, ValueError, "no rule"),
        (([x], cost, 3), {}, TypeError, "opt_algo"),
        (([v], pt.sum(v**2), "sgd"), {}, TypeError, "'v' is not shared"),
        (([x], x**2, "sgd"), {}, ValueError, "1 dimensions"),
        (([], cost, "sgd"), {}, ValueError, "empty"),
        (([y], cost, "sgd"), {}, ValueError, "does not depend on the parameter 'y'"),
        (([x], cost * w, "sgd"), {}, ValueError, "reads 'w'"),
        (([x], cost, "sgd"), {"step_size": w}, ValueError, "reads 'w'"),
        (([x], cost, "sgd"), {"inputs": [w]}, ValueError, "lists 'w'"),
        (([x], cost * w, "sgd"), {"inputs": [w, w]}, ValueError, "twice"),
        (([x], cost, "sgd"), {"inputs": [y]}, TypeError, "Shared variables"),
        (([x], cost, "sgd"), {"inputs": 3}, TypeError, "inputs"),
        (([x], cost, "sgd"), {"memory": 3}, TypeError, "'memory'"),
        (([x], cost, "sgd"), {"maxiter": 3}, TypeError, "use max_iterations="),
        (([x], cost, "gauss_newton"), {}, TypeError, "gauss_newton needs residuals=; pass it as a keyword"),
        (([x], cost, "sgd"), {"gradients": [x]}, TypeError, "not taken here"),
        (([x], cost, "sgd"), {"max_iterations": -1}, ValueError, "max_iterations"),
        (([x], cost, "sgd"), {"callback": 3}, TypeError, "callback"),
        (([x], cost, "sgd"), {"progressbar": 3}, TypeError, "progressbar"),
        (([x], cost, "sgd"), {"updates": [1]}, TypeError, "updates"),
        (([x], cost, "sgd"), {"updates": {x: x}}, KeyError, "already has an update"),
        (([x], cost, "sgd"), {"mode": 3}, TypeError, "mode is 3"),
        (([x], cost, "sgd"), {"mode": "FASTER"}, ValueError, "FASTER"),
        (([x], cost, lambda p, **keywords: None), {}, TypeError, "no dictionary"),
    ):
        with pytest.raises(error, match=message):
            compile_minimizer(*arguments, **{"mode": STEP, **keywords})
    np.testing.assert_array_equal(x.get_value(), START)

    parameters, cost, inputs = bowl()
    run = compile_minimizer(parameters, cost, "sgd", inputs=inputs, mode=STEP)
    with pytest.raises(TypeError, match="pass 2: u, v"):
        run([1.0, 2.0])
    with pytest.raises(TypeError, match="input 'u'"):
        run([[1.0, 2.0]], 1.0)


def test_modes_that_cannot_run_it(monkeypatch):
    x, cost = rosenbrock()
    monkeypatch.setattr(loop_program, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="install jax"):
        compile_minimizer([x], cost, "sgd", mode="JAX")
    with pytest.raises(ValueError, match="cannot run loops"):
        compile_minimizer([x], cost, "sgd", mode="PYTORCH")


@pytest.mark.jax
def test_draws_under_jax_are_state(tmp_path):
    def made(iterations):
        x, cost, updates = noisy()
        options = {"updates": updates, "max_iterations": iterations, "step_size": 0.01, "mode": "JAX"}
        return compile_minimizer([x], cost, "adam", **options), *updates

    whole, generator = made(40)
    expected, before = whole().x[0], generator.get_value().bit_generator.state
    # Another run goes on with other draws.
    whole.restart()
    assert (whole().x[0] != expected).any() and generator.get_value().bit_generator.state != before
    half, _ = made(20)
    half()
    half.save(tmp_path / "half.npz")
    other, _ = made(20)
    other.load(tmp_path / "half.npz")
    np.testing.assert_array_equal(other.resume().x[0], expected)
    np.testing.assert_array_equal(half.resume().x[0], expected)
    # One after another, since one generator serves all.
    assert len(half.from_starts(np.zeros((2, *expected.shape)))) == 2


# The backends


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("mode", "rule", "dtype"),
    [
        pytest.param("NUMBA", "adam", "float32", marks=pytest.mark.numba),
        pytest.param("CVM", "sgd", "float64", marks=pytest.mark.c),
        pytest.param("JAX", "sgd", "float32", marks=pytest.mark.jax),
        pytest.param("JAX", "lbfgs", "float64", marks=pytest.mark.jax),
        ("PYTHON", "lbfgs", "float32"),
    ],
)
def test_backends(mode, rule, dtype):
    """The minimization that NumPy runs, from one start and from several, in threads where they can."""
    options = {"tolerance": 1e-3, "max_iterations": 30} | ({} if rule == "lbfgs" else {"step_size": 0.05})
    a = pytensor.shared(np.array([0.3, -0.2, 0.1], dtype), name="a")
    b = pytensor.shared(np.asarray(0.5, dtype), name="b")
    data, scale = pytensor.shared(np.array([1.0, 2.0, 3.0], dtype), name="data"), pt.scalar("scale", dtype=dtype)
    cost = pt.sum((a - data) ** 2) * scale + pt.cosh(b - a[0])

    def minimizer(mode):
        return compile_minimizer([a, b], cost, rule, inputs=[scale], mode=mode, **options)

    run, plain = minimizer(optapi.PYTHON if mode == "PYTHON" else mode), minimizer(STEP)
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    starts = sample_starts([a, b], 5, seed=0)
    expected = {r.start: r for r in plain.from_starts(starts, 0.5)}
    together = False if mode == "CVM" else None  # a batch would be compiled too
    for workers in (1, 2) if mode == "NUMBA" or (mode, rule) == ("JAX", "sgd") else (1,):
        for result in run.from_starts(starts, 0.5, workers=workers, together=together):
            twin = expected[result.start]
            if dtype == "float64":
                assert (result.nit, result.nfev) == (twin.nit, twin.nfev)
            for x, y in zip(result.x, twin.x, strict=True):
                np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
                assert type(x) is np.ndarray
                assert x.dtype == dtype
    run.restart()
    result = run(0.5)
    # Any function can use what is in the shared variables.
    values = pytensor.function([scale], [cost, a, b], mode=optapi.PYTHON)(np.asarray(0.5, dtype))
    assert values[0] == pytest.approx(result.fun, rel=1e-5)
    assert all(type(p.get_value(borrow=True)) is np.ndarray for p in (a, b))
    data.set_value(np.zeros(3, dtype))  # what a cost reads is read anew
    run.restart()
    assert np.abs(run(0.5).x[0]).max() < np.abs(result.x[0]).max()


DEVICES = """
import jax
import numpy as np
import pytensor
import pytensor.tensor as pt
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import optapi
rng = np.random.default_rng(0)
X = rng.normal(size=(200, 3))
y = X @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=200)
w, x, t = pytensor.shared(np.zeros(3), name="w"), pt.dmatrix("x"), pt.dvector("t")
cost = pt.mean(pt.log1p((x @ w - t) ** 2))
run = optapi.compile_minimizer([w], cost, "lbfgs", inputs=[x, t], mode="JAX", tolerance=1e-9)
rows = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
split = [jax.device_put(array, rows) for array in (X, y)]
assert [len(array.sharding.device_set) for array in split] == [2, 2]
expected = run(X, y)
run.restart()
np.testing.assert_allclose(run(*split).x[0], expected.x[0], rtol=1e-9)
assert type(run.parameters[0].get_value(borrow=True)) is np.ndarray
for result in run.from_starts(np.ones((2, 3)), *split):
    np.testing.assert_allclose(result.x[0], expected.x[0], rtol=1e-7)
"""


@pytest.mark.jax
def test_data_that_lie_on_several_devices(tmp_path):
    flags = f"--xla_force_host_platform_device_count=2 --xla_dump_to={tmp_path}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", DEVICES], check=True, env={**os.environ, "XLA_FLAGS": flags})
    programs = [path.read_text() for path in tmp_path.glob("*after_optimizations.txt")]
    # That of both devices has a half of the rows in each, and adds up.
    split = [text for text in programs if "num_partitions=2" in text]
    assert split and all("f64[100,3]" in text and "all-reduce" in text for text in split)


def test_starts_of_a_cost_with_sparse_data_run_one_after_another():
    data = sparse.random(50, 8, 0.3, format="csr", random_state=1)
    y, w = np.random.default_rng(0).normal(size=50), pytensor.shared(np.zeros(8), name="w")
    X = pytensor.sparse.csr_matrix("X")
    cost = pt.sum((pytensor.sparse.structured_dot(X, w[:, None])[:, 0] - y) ** 2)
    run = compile_minimizer([w], cost, "lbfgs", inputs=[X], mode=STEP)
    solution = np.linalg.lstsq(data.toarray(), y, rcond=None)[0]
    for result in run.from_starts([np.random.default_rng(1).normal(size=(3, 8))], data):
        assert result.success
        np.testing.assert_allclose(result.x[0], solution, atol=1e-5)
    try:
        together = run.from_starts([np.zeros((3, 8))], data, together=True)
    except ValueError as error:  # of some versions of PyTensor
        assert "leave together out" in str(error)
    else:
        for result in together:
            np.testing.assert_allclose(result.x[0], solution, atol=1e-5)


@pytest.mark.jax
def test_assertions_that_jax_has_not_are_left_out_without_a_word():
    x = pytensor.shared(np.ones(3), name="x")
    cost = Assert("positive")(pt.sum((x - 3) ** 2), pt.sum(x) > -100)
    assert compile_minimizer([x], cost, "lbfgs", mode="JAX")().success
