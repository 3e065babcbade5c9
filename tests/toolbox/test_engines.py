"""Engines for many minimizations: the results of one process, whoever does the work, and after failures."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.optimize import rosen, rosen_der

import optapi
from optapi.distributed import Lost, PartitionError, dask_engine


# Not forked, since JAX may have been imported.
PROCESSES = partial(ProcessPoolExecutor, 2, mp_context=get_context("spawn"))
DATA = np.random.default_rng(0).normal(size=(20, 3))


@pytest.fixture(scope="module")
def pool():
    with PROCESSES() as executor:
        yield executor


@pytest.fixture(scope="module")
def run():
    return made()


class OneAfterAnother:
    def map(self, task, groups, point):
        self.groups = len(groups)
        return [task(group, *point) for group in groups]


def made(mode="PYTHON", **options):
    """A cost with several minima, and a limit beyond which it raises."""
    p, q, y = (pytensor.shared(np.zeros(3), name="p"), pytensor.shared(0.5, name="q"), pt.dvector("y"))
    low = pytensor.raise_op.Assert("beyond the limit")(p, pt.all(p < 1e3)) if mode == "PYTHON" else p
    cost = pt.sum(pt.log1p((low - y) ** 2)) + pt.sum((q - p[0] ** 2) ** 2) + 0.1 * pt.sum(pt.cos(3 * p))
    return optapi.compile_minimizer([p, q], cost, "lbfgs", inputs=[y], mode=mode, **options)


def starts():
    rng = np.random.default_rng(1)
    return [rng.normal(scale=3.0, size=(5, 3)), rng.normal(scale=3.0, size=5)]


def check_starts(run, engine):
    """Many starts by `engine`, and what is left in the minimizer, are as in this process."""
    here, there = run.from_starts(starts(), DATA[0]), run.from_starts(starts(), DATA[0], workers=engine)
    assert [r.start for r in there] == [r.start for r in here]
    for one, two in zip(here, there, strict=True):
        for entry in ("x", "jac", "iterate"):
            for a, b in zip(one[entry], two[entry], strict=True):
                np.testing.assert_array_equal(a, b)
        for entry in ("fun", "nit", "nfev", "njev", "status", "message"):
            assert one[entry] == two[entry]
    np.testing.assert_array_equal(here[0].covariance(), there[0].covariance())
    np.testing.assert_array_equal(here[0].hess_inv @ np.ones(4), there[0].hess_inv @ np.ones(4))
    np.testing.assert_array_equal(run.parameters[0].get_value(), here[0].x["p"])
    assert run.resume(DATA[0]).nit == here[0].nit


def check_data(run, engine):
    here, there = run.on_data(DATA), run.on_data(DATA, workers=engine)
    for entry in ("fun", "nit", "nfev", "status"):
        np.testing.assert_array_equal(here[entry], there[entry])
    np.testing.assert_array_equal(here.x["p"], there.x["p"])
    np.testing.assert_array_equal(here.covariance(), there.covariance())


def check_benchmark(run, engine):
    problems = {"valley": ([-1.2, 1.0], rosen, rosen_der), "far": ([9.0, -9.0], rosen, rosen_der)}
    algorithms = {"lbfgs": "lbfgs", "3 pairs": partial(optapi.lbfgs, memory=3)}
    here, there = (optapi.benchmark(problems, algorithms, engine=one, tolerance=1e-6) for one in (None, engine))
    assert list(here) == list(there)
    for name, result in here.items():
        np.testing.assert_array_equal(result.x, there[name].x)
        np.testing.assert_array_equal(result.trace["cost"], there[name].trace["cost"])


@pytest.mark.parametrize("check", [check_starts, check_data, check_benchmark])
@pytest.mark.parametrize("engine", [OneAfterAnother, lambda: ThreadPoolExecutor(2)])
def test_engines_in_this_process(run, check, engine):
    check(run, engine())


@pytest.mark.parametrize("check", [check_starts, check_data, check_benchmark])
def test_processes(run, check, pool):
    check(run, pool)


@pytest.mark.numba
@pytest.mark.filterwarnings("ignore:.*faster on contiguous arrays")
def test_engines_with_numba():
    run = made("NUMBA")
    check_starts(run, OneAfterAnother())
    check_data(run, OneAfterAnother())


def test_limits_and_single_runs(pool):
    run = made(target=1.0)
    here, there = run.from_starts(starts(), DATA[0]), run.from_starts(starts(), DATA[0], workers=pool)
    assert [(r.start, r.fun, r.status) for r in here] == [(r.start, r.fun, r.status) for r in there]
    one, two = run.on_data(DATA), run.on_data(DATA, workers=pool)
    np.testing.assert_array_equal(one.fun, two.fun)
    with pytest.raises(ValueError, match="leave it out"):
        run.from_starts(starts(), DATA[0], workers=pool, together=True)


def test_a_minimizer_is_compiled_once_in_a_process(monkeypatch):
    run, built = made(), []
    kind = type(run)
    start = kind.__init__
    monkeypatch.setattr(kind, "__init__", lambda *a: built.append(1) or start(*a))
    engine = OneAfterAnother()
    for seed in range(3):  # the parameters hold other values each time
        run.from_starts(optapi.sample_starts(run.parameters, 64, seed=seed), DATA[0], workers=engine)
        run.on_data(DATA, workers=engine)
    # PyTensor 3.0 writes down with a constant what it has found out of it, and then it is another pickle, once.
    assert engine.groups > 1 and len(built) <= 2


def test_what_a_cost_raises_is_that_of_its_start_or_of_all(run, pool):
    some = starts()
    some[0][4] = 2e3
    result = run.from_starts(some, DATA[0], workers=pool)[-1]
    assert (result.start, result.status, type(result.error)) == (4, 3, AssertionError)
    bad = run.on_data(DATA, starts=[np.where(np.arange(20)[:, None] == 7, 2e3, 0.0) * np.ones(3), np.zeros(20)],
                      workers=pool)  # fmt: skip
    assert bad.status.tolist().count(3) == 1 and list(bad.errors) == [7]
    with pytest.raises(AssertionError, match="beyond the limit"):
        run.from_starts([np.full((3, 3), 2e3), np.zeros(3)], DATA[0], workers=pool)


def failing(x):
    raise ArithmeticError("no such number")


def unreadable(x):
    raise OSError("no such table")


def test_what_a_run_of_a_benchmark_raises_comes_out_as_it_is(pool):
    with pytest.raises(ArithmeticError, match="no such number") as caught:
        optapi.benchmark({"one": ([1.0], failing, failing)}, ["lbfgs"], engine=pool)
    assert caught.value.__notes__ == ["in the run of lbfgs on one"]


def test_what_cannot_be_pickled_is_named(pool):
    run = optapi.compile_minimizer(
        [p := pytensor.shared(1.0)], p**2, lambda *a, **b: optapi.lbfgs(*a, **b), mode="PYTHON"
    )
    with pytest.raises(Exception, match="lambda") as caught:
        run.from_starts([np.ones(2)], workers=pool)
    assert "such as pickle takes" in caught.value.__notes__[0]


@pytest.mark.parametrize("workers", [0, 1.5, "dask", None])
def test_bad_workers(run, workers):
    with pytest.raises((TypeError, ValueError), match="workers is"):
        run.from_starts(starts(), DATA[0], workers=workers)


# Workers that are lost


class Losing(OneAfterAnother):
    """An engine that loses a worker so many times, after the first group of a call."""

    def __init__(self, times):
        self.left, self.done = times, 0

    def map(self, task, groups, point):
        for number, group in enumerate(groups):
            if number == 1 and self.left:
                self.left -= 1
                raise Lost("gone", number)
            self.done += 1
            yield task(group, *point)


def test_only_what_is_left_is_done_again():
    engine = Losing(3)
    check_benchmark(None, engine)
    assert (engine.left, engine.done) == (0, 4)
    with pytest.raises(PartitionError, match=r"lost 4 times in one call, at group 4 \(gone\)"):
        check_benchmark_of_many(Losing(4))


def check_benchmark_of_many(engine):
    optapi.benchmark({str(k): ([1.0 * k], rosen_1, rosen_1_der) for k in range(6)}, ["lbfgs"], engine=engine)


def rosen_1(x):
    return float(x[0] ** 2)


def rosen_1_der(x):
    return 2 * x


def deadly(flag, x):
    """A cost whose process is killed once, while the file `flag` is there."""
    if Path(flag).exists():
        Path(flag).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.sum((x - 1) ** 4), [4 * (x - 1) ** 3]


def check_killed(engine, flag):
    p = pytensor.shared(np.zeros(3), name="p")
    run = optapi.compile_minimizer([p], optapi.Oracle(partial(deadly, str(flag)))([p]), "lbfgs", mode="PYTHON")
    expected = run.from_starts(starts()[:1])
    flag.touch()
    found = run.from_starts(starts()[:1], workers=engine)
    assert not flag.exists()
    assert [(r.start, r.fun) for r in found] == [(r.start, r.fun) for r in expected]


def test_a_process_that_is_killed_costs_time_and_no_bits(tmp_path):
    check_killed(PROCESSES, tmp_path / "flag")


@pytest.mark.dask
@pytest.mark.filterwarnings("ignore")
def test_dask(run, tmp_path):
    distributed = pytest.importorskip("distributed")
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
        engine = dask_engine(client)
        for check in (check_starts, check_data, check_benchmark):
            check(run, engine)
        check_killed(engine, tmp_path / "flag")
        with pytest.raises(ArithmeticError, match="no such number"):
            optapi.benchmark({"one": ([1.0], failing, failing)}, ["lbfgs"], engine=engine)
        with pytest.raises(OSError, match="no such table"):  # and no lost worker
            optapi.benchmark({"one": ([1.0], unreadable, unreadable)}, ["lbfgs"], engine=engine)
