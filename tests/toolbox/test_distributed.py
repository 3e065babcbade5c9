"""Costs over partitions of data: the same bits by any engine, and the numbers of the cost on all data."""

import os
import pickle
import runpy
import signal
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.distributed import Lost, PartitionError, Partitions, chunks, dask_engine, dask_parts, row_groups, tree_sum


EXAMPLES = Path(__file__).parents[2] / "examples"
ROWS, POINT = 500, np.array([0.3, -0.2, 0.1])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3))
Y = (RNG.random(ROWS) < 1 / (1 + np.exp(-X @ [1.0, 2.0, 3.0]))).astype(float)
W, A, T = pt.tensor("w", shape=(3,)), pt.matrix("x"), pt.vector("t")


def logistic(w, x, t):
    z = x @ w
    return pt.sum(pt.softplus(z) - t * z)


def made(engine=None, data=None, **options):
    options = {"weight": 1 / ROWS, "mode": "PYTHON", **options}
    return Partitions([W], logistic(W, A, T), [A, T], chunks((X, Y), 37) if data is None else data, engine, **options)


def whole(point):
    """The cost on all data, its gradient and the matrix of second derivatives, in NumPy."""
    p = 1 / (1 + np.exp(-X @ point))
    cost = np.mean(np.logaddexp(0, X @ point) - Y * (X @ point))
    return cost, X.T @ (p - Y) / ROWS, (X.T * (p * (1 - p))) @ X / ROWS


def test_the_numbers_are_those_of_all_data():
    f, (cost, gradient, hessian) = made(), whole(POINT)
    found, slope = f(POINT)
    assert found == pytest.approx(cost, rel=1e-13)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12)
    np.testing.assert_allclose(f.product(POINT, [1.0, -1.0, 2.0]), hessian @ [1.0, -1.0, 2.0], rtol=1e-12)
    assert f.evaluations == 2


@pytest.mark.parametrize("count", range(1, 20))
def test_sums_of_groups_are_part_of_the_tree(count):
    values = [[np.asarray(v)] for v in RNG.normal(size=count) * 10.0 ** RNG.integers(-8, 8, size=count)]
    [total] = tree_sum(iter(values))
    for size in (2, 4, 8):
        [grouped] = tree_sum(tree_sum(iter(values[i : i + size])) for i in range(0, count, size))
        assert grouped == total
    assert total == pytest.approx(sum(v for [v] in values), rel=1e-6, abs=1e-6)


# Not forked, since JAX may have been imported.
PROCESSES = partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))
ENGINES = {
    "threads": lambda: 2,
    "executor": lambda: ThreadPoolExecutor(2),
    "processes": lambda: PROCESSES,
}


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_bits_are_the_same(engine, group):
    if group != 2 and engine == "processes":
        pytest.skip("one is enough: processes begin slowly")
    f, g = made(), made(ENGINES[engine](), group=group)
    assert f(POINT)[0] == g(POINT)[0]
    np.testing.assert_array_equal(f(POINT)[1], g(POINT)[1])
    np.testing.assert_array_equal(f.product(POINT, POINT), g.product(POINT, POINT))


def test_processes_that_are_killed_cost_time_and_no_bits():
    f, expected = made(PROCESSES, group=4), optapi.minimize(np.zeros(3), made(), full_output=True)

    def kill(intermediate_result):
        if intermediate_result.nit == 2:
            os.kill(next(iter(f.engine.executor._processes)), signal.SIGKILL)

    found = optapi.minimize(np.zeros(3), f, full_output=True, callback=kill)
    assert (found.nit, found.status) == (expected.nit, 0)
    np.testing.assert_array_equal(found.x, expected.x)
    f.engine.executor.shutdown()


@pytest.mark.parametrize("rule", ["lbfgs", "newton_cg", "trust_region_cg", "adam"])
def test_minimize_needs_no_more(rule):
    options = {"max_iterations": 300, "step_size": 0.1} if rule == "adam" else {}
    result = optapi.minimize(np.zeros(3), made(), opt_algo=rule, full_output=True, **options)
    best = optapi.minimize(np.zeros(3), lambda x: whole(x)[0], lambda x: whole(x)[1], tolerance=1e-10)
    np.testing.assert_allclose(result.x, best, atol=1e-3)
    assert (result.nhev > 0) == (rule in ("newton_cg", "trust_region_cg"))


def test_a_symbolic_cost_with_a_penalty():
    w = pytensor.shared(np.zeros(3), name="w")
    run = optapi.compile_minimizer([w], made().cost([w]) + pt.sum(w**2), "newton_cg", tolerance=1e-9, mode="PYTHON")
    _, gradient, _ = whole(run().x[0])
    np.testing.assert_allclose(gradient + 2 * w.get_value(), 0, atol=1e-8)


def test_a_run_goes_on_with_another_engine(tmp_path):
    whole_run = optapi.minimize(np.zeros(3), made(), full_output=True)
    iterator = optapi.minimize_iterator(np.zeros(3), made(2))
    for state in iterator:
        if state.nit == 3:
            break
    iterator.save(tmp_path / "run.npz")
    resumed = optapi.minimize_iterator.load(tmp_path / "run.npz", made(group=4))
    for _ in resumed:
        pass
    np.testing.assert_array_equal(resumed.x, whole_run.x)
    assert resumed.nit == whole_run.nit


# Least squares


S = np.linspace(0, 4, 200)
SIGNAL = 2 * np.exp(-1.5 * S) + 0.01 * RNG.normal(size=200)
P, Q = pt.scalar("p"), pt.tensor("q", shape=(1,))


def decay(**options):
    x, t = pt.vector("x"), pt.vector("t")
    residuals = P * pt.exp(-Q[0] * x) - t
    return Partitions(
        [P, Q], residuals=residuals, inputs=[x, t], data=chunks((S, SIGNAL), 30), mode="PYTHON", **options
    )


def test_normal_equations_and_gauss_newton_products():
    f, point = decay(weight=0.5), [np.array(1.5), np.array([1.2])]
    r = 1.5 * np.exp(-1.2 * S) - SIGNAL
    J = np.column_stack([np.exp(-1.2 * S), -1.5 * S * np.exp(-1.2 * S)])
    cost, gradient, matrix = f.normal(point)
    assert cost == pytest.approx(r @ r / 4)
    np.testing.assert_allclose(gradient, J.T @ r / 2)
    np.testing.assert_allclose(matrix, J.T @ J / 2)
    one, other = f.gauss_newton(point, [np.array(1.0), np.array([2.0])])
    np.testing.assert_allclose([one, *other], J.T @ J @ [1, 2] / 2)


def test_levenberg_marquardt_takes_the_steps_of_all_data():
    p, q = pytensor.shared(1.0, name="p"), pytensor.shared(np.array([1.0]), name="q")
    results = []
    for residuals in (decay().residuals([p, q]), p * pt.exp(-q[0] * S) - SIGNAL):
        p.set_value(1.0), q.set_value(np.array([1.0]))
        run = optapi.compile_minimizer([p, q], opt_algo="levenberg_marquardt", residuals=residuals, mode="PYTHON")
        results.append(run())
    mine, theirs = results
    assert (mine.nit, mine.status) == (theirs.nit, theirs.status)
    for one, other in zip(mine.x, theirs.x, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    assert mine.fun == pytest.approx(theirs.fun, rel=1e-10)


# Data


def test_data_from_files_are_read_when_they_are_needed(tmp_path):
    np.save(tmp_path / "x.npy", X), np.save(tmp_path / "y.npy", Y)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy")]
    data = chunks(tuple(mapped), 37)
    again = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data[0])) < 1000
    for read in (data, again, chunks((mapped[0][:], mapped[1][:]), 37)):
        assert made(data=read)(POINT)[0] == made()(POINT)[0]


@pytest.mark.dask  # its environment has pyarrow
def test_row_groups_of_parquet_files(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(file, **columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / file, row_group_size=37)
        return tmp_path / file

    a, b, c = X.T
    whole_file = write("all.parquet", a=a, b=b, c=c, t=Y, name=["x"] * ROWS)
    data = pickle.loads(pickle.dumps(row_groups(whole_file, ["a", "b", "c"], "t")))
    assert len(data) == 14 and len(pickle.dumps(data[0])) < 1000
    for (x, t), (x_, t_) in zip((read() for read in data), (read() for read in chunks((X, Y), 37)), strict=True):
        np.testing.assert_array_equal(x, x_), np.testing.assert_array_equal(t, t_)
        assert x.flags.c_contiguous
    assert made(data=data)(POINT)[0] == made()(POINT)[0] == made(PROCESSES, data=data)(POINT)[0]
    halves = [write(f"{k}.parquet", a=a[k::2], b=b[k::2], c=c[k::2], t=Y[k::2]) for k in range(2)]
    assert len(row_groups(halves, "a")) == 14
    assert made(data=row_groups(halves, list("abc"), "t"))(POINT)[0] == pytest.approx(whole(POINT)[0], rel=1e-13)

    missing = write("missing.parquet", a=[1.0, None])
    [read] = row_groups(missing, "a")
    with pytest.raises(ValueError, match="'a' has missing values in row group 0"):
        read()
    for paths, columns, message in (
        (whole_file, ["a", "d"], "has no column 'd', only a, b, c, t, name"),
        (whole_file, ["a", "name"], "'name' of .* is of string; pass numbers"),
        ([whole_file, write("other.parquet", a=a.astype("float32"))], ["a"], "is of float32, and that .* of float64"),
        (whole_file, [], "columns are empty"),
    ):
        with pytest.raises(ValueError, match=message):
            row_groups(paths, *columns)


def test_a_line_counts_the_partitions_of_what_takes_long(capsys):
    def slow(k):
        time.sleep(0.06)
        return X[k : k + 100], Y[k : k + 100]

    f = made(data=[partial(slow, k) for k in range(0, 500, 100)], group=2, progressbar="force")
    f(POINT)
    lines = capsys.readouterr().err.split("\n")
    assert lines[0].split("\r")[-1].startswith("evaluation 1, partition  5 of 5  ") and lines[1:] == [""]
    quick = made(progressbar="force")
    quick(POINT), capsys.readouterr()  # this compiles
    quick(POINT), made(progressbar=True)(POINT)
    assert capsys.readouterr().err == ""
    with pytest.raises(TypeError, match="progressbar is 'yes'"):
        made(progressbar="yes")


def test_a_process_keeps_what_it_has_read():
    calls = []

    def read(k):
        calls.append(k)
        return X[k : k + 100], Y[k : k + 100]

    for _ in range(2):
        f = made(data=[partial(read, k) for k in range(0, 500, 100)], group=2)
        f._keeps = True  # as in a process of an executor
        values = [f(POINT)[0] for _ in range(3)]
        assert values == [made(data=[(X[k : k + 100], Y[k : k + 100]) for k in range(0, 500, 100)])(POINT)[0]] * 3
    assert calls == [0, 100, 200, 300, 400] * 2


def test_batches_have_each_row_once_in_a_pass():
    f, seen = made(data=[(X[:13], Y[:13]), (X[13:20], Y[13:20])]), []
    for x, t in f.batches(5, np.random.default_rng(1)):
        assert len(x) == len(t) <= 5
        seen += x.tolist()
        if len(seen) == 20:
            break
    assert sorted(seen) == sorted(X[:20].tolist())
    assert seen != X[:20].tolist()


def test_arrays_from_a_network_may_lie_at_any_address():
    def moved(array):
        bytes_ = b"." + array.tobytes()
        return np.frombuffer(bytes_, array.dtype, offset=1).reshape(array.shape)

    assert not moved(X).flags.aligned
    assert made(data=[(moved(X), moved(Y))])(moved(POINT))[0] == made(data=[(X, Y)])(POINT)[0]


# What goes wrong


class Losing:
    """An engine that loses a worker some times."""

    def __init__(self, times):
        self.left = times

    def map(self, task, groups, point):
        for number, group in enumerate(groups):
            if number == 2 and self.left:
                self.left -= 1
                raise Lost("gone", 2)
            yield task(group, *point)


def test_an_evaluation_is_done_again_and_then_given_up():
    f = made(Losing(3), retries=3)
    assert f(POINT)[0] == made()(POINT)[0]
    with pytest.raises(PartitionError, match=r"lost 2 times in one call, at partitions 8 to 9 .*raise retries="):
        made(Losing(2), retries=1, group=2)(POINT)


def test_what_the_user_raises_comes_out_at_once():
    def broken():
        raise OSError("no such table")

    with pytest.raises(OSError, match="no such table"):
        made(data=[(X, Y), broken])(POINT)
    with pytest.raises(OSError, match="no such table"):
        optapi.minimize(np.zeros(3), made(2, data=[(X, Y), broken]))


def test_an_executor_that_is_broken_cannot_be_made_again():
    with ThreadPoolExecutor(1) as pool:
        f = made(pool)
        f(POINT)
        pool._broken = "killed"
        with pytest.raises(PartitionError, match="pass a function that makes one"):
            f(POINT)
        pool._broken = False


_, DRAWN = pt.random.normal(size=3, rng=pytensor.shared(np.random.default_rng(0)), return_next_rng=True)
BAD = {
    "no cost": (lambda: Partitions([W], None, [A, T], [(X, Y)]), "pass cost= or residuals="),
    "both": (lambda: Partitions([W], logistic(W, A, T), [A, T], [(X, Y)], residuals=[A @ W]), "one of the two"),
    "data": (lambda: made(data=X), "data is .*pass a list of tuples"),
    "no data": (lambda: made(data=[]), "data is empty"),
    "an array too few": (lambda: made(data=[(X, Y), (X,)]), r"data\[1\] has 1 arrays for 2 inputs"),
    "chunks": (lambda: chunks((X, Y[:-1]), 10), r"arrays have \[499, 500\] rows"),
    "group": (lambda: made(group=3), "pass a power of 2"),
    "engine": (lambda: made("dask"), "engine is a str; pass None, a number of threads"),
    "shared data": (
        lambda: Partitions([W], logistic(W, pytensor.shared(X, name="X"), T), [T], [(Y,)]),
        "reads the shared variable 'X'",
    ),
    "random": (lambda: Partitions([W], pt.sum(W * DRAWN), [], [()]), "draws random numbers"),
    "a parameter not read": (lambda: Partitions([W, Q], logistic(W, A, T), [A, T], [(X, Y)]), "parameter 'q'"),
    "normal": (lambda: made().normal(POINT), "pass residuals="),
    "gauss_newton": (lambda: made().gauss_newton(POINT, POINT), "pass residuals= or outputs="),
    "a point": (lambda: made()(np.zeros(2)), r"x has shape \(2,\)"),
    "parameters": (lambda: made().cost([pytensor.shared(np.zeros(2))]), r"parameters have the shapes \[\(2,\)\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


# Backends, and dask


@pytest.mark.numba
@pytest.mark.filterwarnings("ignore:.*faster on contiguous arrays")
def test_threads_run_what_numba_compiles():
    f, g = made(mode="NUMBA"), made(2, mode="NUMBA")
    assert f(POINT)[0] == g(POINT)[0] == pytest.approx(whole(POINT)[0], rel=1e-13)
    np.testing.assert_array_equal(f(POINT)[1], g(POINT)[1])


@pytest.mark.jax
def test_jax():
    np.testing.assert_allclose(made(2, mode="JAX")(POINT)[1], whole(POINT)[1], rtol=1e-12)


def killer(client, count):
    """A callback that kills so many workers in mid-run."""

    def kill(intermediate_result):
        if intermediate_result.nit == 2:
            for process in list(client.run(os.getpid).values())[:count]:
                os.kill(process, signal.SIGKILL)

    return kill


@pytest.mark.dask
@pytest.mark.filterwarnings("ignore")
def test_dask_has_the_same_bits_also_when_workers_are_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    np.save(tmp_path / "x.npy", X), np.save(tmp_path / "y.npy", Y)
    data = chunks(tuple(np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy")), 37)
    expected = optapi.minimize(np.zeros(3), made(), full_output=True)
    for workers in (1, 2):
        local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
        with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
            for group in (1, 2, 4):
                f = made(dask_engine(client), data, group=group)
                assert f(POINT)[0] == made()(POINT)[0]
                np.testing.assert_array_equal(f(POINT)[1], made()(POINT)[1])
                np.testing.assert_array_equal(f.product(POINT, POINT), made().product(POINT, POINT))
            for killed in range(1, workers + 1):
                found = optapi.minimize(np.zeros(3), f, full_output=True, callback=killer(client, killed))
                assert found.nit == expected.nit
                np.testing.assert_array_equal(found.x, expected.x)


@pytest.mark.dask
@pytest.mark.filterwarnings("ignore")
def test_collections_of_dask():
    distributed, array = pytest.importorskip("distributed"), pytest.importorskip("dask.array")
    x, y = array.from_array(X, chunks=(37, 3)), array.from_array(Y, chunks=37)
    for bad, message in (
        ((x, y.rechunk(50)), "chunks of rows do not agree"),
        ((x.rechunk((37, 2)), y), r"has \[14, 2\] chunks along its axes"),
        ((X, y), r"collections\[0\] is"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            dask_parts(*bad)
    with pytest.raises(ValueError, match="pass engine=dask_engine"):
        made(data=dask_parts(x, y))
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
        f = made(dask_engine(client), dask_parts(x + 0, y), group=2)
        assert f(POINT)[0] == made()(POINT)[0]
        found = optapi.minimize(np.zeros(3), f, full_output=True)
        killer(client, 2)(type("result", (), {"nit": 2}))
        assert f(POINT)[0] == made()(POINT)[0] and found.success


@pytest.mark.dask
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_the_example_with_dask(capsys):
    pytest.importorskip("distributed")
    result = runpy.run_path(str(EXAMPLES / "partitions_on_dask.py"))["main"](4000, 3, "PYTHON", None)
    assert result.success and "the weights are off by at most 0." in capsys.readouterr().out
