"""Minimizations that save themselves."""

import pickle

import numpy as np
import pytensor
import pytest
from scipy.optimize import rosen, rosen_der

import optapi
from optapi.graph.numpy_linker import STEP


START = [-1.2, 1.0]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def iterations(path):
    """How far the minimization was that saved itself to `path`, and whether it had ended."""
    loaded = optapi.minimize_iterator.load(path, rosen, rosen_der)
    return loaded.nit, loaded.status


def compiled(rule="lbfgs", **options):
    x = pytensor.shared(np.array(START), name="x")
    cost = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    return optapi.compile_minimizer([x], cost, rule, mode=STEP, **options)


def test_a_path_alone_has_the_end(tmp_path):
    path = tmp_path / "run.npz"
    result = optapi.minimize(START, rosen, rosen_der, "lbfgs", checkpoint=str(path), full_output=True)
    assert names(tmp_path) == ["run.npz"]
    loaded = optapi.minimize_iterator.load(path, rosen, rosen_der)
    assert (loaded.nit, loaded.status, loaded.nfev) == (result.nit, 0, result.nfev)
    np.testing.assert_array_equal(loaded.x, result.x)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_are_kept(keep, tmp_path):
    path = tmp_path / "run.npz"
    seen = []

    def callback(intermediate_result):
        seen.append([iterations(tmp_path / name)[0] for name in names(tmp_path)])

    checkpoint = optapi.Checkpoint(path, every=5, keep=keep)
    result = optapi.minimize(
        START, rosen, rosen_der, "lbfgs", checkpoint=checkpoint, max_iterations=23, callback=callback, full_output=True
    )
    assert result.nit == 23
    # A callback sees the checkpoints of the iterations before; the last first.
    for nit, found in enumerate(seen, 1):
        due = list(range(5, nit, 5))
        assert found == due[::-1][:keep], nit
    files = [path, *(tmp_path / f"run.npz.{age}" for age in range(1, keep))]
    assert names(tmp_path) == [file.name for file in files]
    assert [iterations(file) for file in files] == [(23, 1), (20, None), (15, None), (10, None)][:keep]


@pytest.mark.parametrize("every", [7, 32])
def test_the_end_takes_the_place_of_a_checkpoint_at_the_same_iteration(every, tmp_path):
    path = tmp_path / "run.npz"
    checkpoint = optapi.Checkpoint(path, every=every, keep=3)
    result = optapi.minimize(START, rosen, rosen_der, "lbfgs", checkpoint=checkpoint, full_output=True)
    assert result.nit == 32
    kept = {7: [(32, 0), (28, None), (21, None)], 32: [(32, 0)]}[every]
    assert [iterations(tmp_path / name) for name in names(tmp_path)] == kept


def test_going_on_from_a_checkpoint_is_exact(tmp_path):
    whole = optapi.minimize(START, rosen, rosen_der, "lbfgs", full_output=True)
    checkpoint = optapi.Checkpoint(tmp_path / "run.npz", every=10)

    def failing(x):
        if failing.left == 0:
            raise RuntimeError("power cut")
        failing.left -= 1
        return rosen(x)

    failing.left = whole.nfev - 4
    with pytest.raises(RuntimeError, match="power cut"):
        optapi.minimize(START, failing, rosen_der, "lbfgs", checkpoint=checkpoint)
    loaded = optapi.minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der, checkpoint=checkpoint)
    assert loaded.nit in (20, 30)
    for _ in loaded:
        pass
    assert (loaded.nit, loaded.nfev, loaded.x.tobytes()) == (whole.nit, whole.nfev, whole.x.tobytes())
    assert iterations(tmp_path / "run.npz") == (32, 0)


def test_compiled_minimizations(tmp_path, capsys):
    """The pieces of a run end where a checkpoint is due, and it is the same run, and goes on from each of them."""
    piece = compiled("adam", step_size=0.1, max_iterations=9)
    pieces = {9: piece()}
    for nit in (18, 27, 36):
        pieces[nit] = piece.resume()
    for driver in ({}, {"verbose": 4}, {"callback": lambda x: None}, {"time_limit": 1e6}):
        checkpoint = optapi.Checkpoint(tmp_path / "run.npz", every=9, keep=5)
        run = compiled("adam", step_size=0.1, max_iterations=28, **driver, checkpoint=checkpoint)
        result = run()
        assert names(tmp_path) == ["run.npz", "run.npz.1", "run.npz.2", "run.npz.3"]
        piece.load(tmp_path / "run.npz")
        assert piece.parameters[0].get_value().tobytes() == result.x[0].tobytes()
        for age, nit in ((1, 27), (2, 18), (3, 9)):
            piece.load(tmp_path / f"run.npz.{age}")
            assert piece.parameters[0].get_value().tobytes() == pieces[nit].x[0].tobytes()
            again = piece.resume()
            assert again.nit == nit + 9
            assert again.iterate[0].tobytes() == pieces[nit + 9].iterate[0].tobytes()
        for name in names(tmp_path):
            (tmp_path / name).unlink()


def test_another_run_keeps_the_end_of_the_one_before(tmp_path):
    run = compiled(max_iterations=4, checkpoint=optapi.Checkpoint(tmp_path / "run.npz", keep=2))
    run()
    run.restart()
    run()
    assert names(tmp_path) == ["run.npz", "run.npz.1"]
    pickle.loads(pickle.dumps(run)).resume()
    loaded = compiled()
    loaded.load(tmp_path / "run.npz")
    assert loaded._run.nit == 8


def test_a_callback_saves_what_runs_and_loads_nothing(tmp_path):
    path, refused = tmp_path / "run.npz", []

    def callback(intermediate_result):
        if intermediate_result.nit == 3:
            run.save(path)
        if intermediate_result.nit == 5:
            with pytest.raises(RuntimeError, match="cannot begin or load another"):
                run.load(path)
            refused.append(True)

    run = compiled("adam", step_size=0.1, max_iterations=7, callback=callback)
    result = run()
    assert refused == [True]
    run.load(path)
    assert run._run.nit == 3
    assert run.resume().nit == 10
    assert (result.nit, run.parameters[0].get_value().shape) == (7, (2,))


def test_many_starts_save_nothing(tmp_path):
    run = compiled(max_iterations=4, checkpoint=tmp_path / "run.npz")
    run.from_starts(np.zeros((3, 2)), together=False)
    assert names(tmp_path) == []


def test_an_end_that_is_not_finite_is_saved(tmp_path):
    path = tmp_path / "run.npz"
    with np.errstate(all="ignore"):
        result = optapi.minimize(
            START, rosen, rosen_der, "sgd", step_size=1.0, checkpoint=path, full_output=True, max_iterations=99
        )
    assert result.status == 3
    assert iterations(path) == (result.nit, 3)
    bad = optapi.minimize(START, lambda x: np.nan, rosen_der, "lbfgs", checkpoint=path, full_output=True)
    assert (bad.nit, bad.status) == (0, 3)
    assert iterations(path) == (0, 3)


def test_file_systems_without_links(tmp_path, monkeypatch):
    def fails(*args):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", fails)
    checkpoint = optapi.Checkpoint(tmp_path / "run.npz", every=10, keep=3)
    optapi.minimize(START, rosen, rosen_der, "lbfgs", checkpoint=checkpoint)
    assert [iterations(tmp_path / name) for name in names(tmp_path)] == [(32, 0), (30, None), (20, None)]


def test_bad_input(tmp_path):
    for checkpoint in (5, True, ["run.npz"], b"run.npz"):
        with pytest.raises(TypeError, match="checkpoint is"):
            optapi.minimize(START, rosen, rosen_der, "lbfgs", checkpoint=checkpoint)
        with pytest.raises(TypeError, match="checkpoint is"):
            compiled(checkpoint=checkpoint)
    for path in (tmp_path, tmp_path / "none" / "run.npz"):
        with pytest.raises(ValueError, match=r"checkpoint is .* in a folder that exists"):
            optapi.minimize(START, rosen, rosen_der, "lbfgs", checkpoint=path)
    for options in ({"every": 0}, {"keep": 0}, {"every": 1.5}, {"keep": True}):
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            optapi.Checkpoint(tmp_path / "run.npz", **options)

    def unseen(x):
        raise AssertionError

    with pytest.raises(TypeError, match="cannot be saved"):
        optapi.minimize({1.5: np.zeros(2)}, unseen, unseen, "lbfgs", checkpoint=tmp_path / "run.npz")
    assert names(tmp_path) == []
