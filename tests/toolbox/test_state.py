import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.state import full_like, state


def test_state_is_a_copy_with_a_static_shape():
    s = state("s", (2, 3), "float32", fill=1.5)
    assert s.type == pt.TensorType("float32", shape=(2, 3))
    np.testing.assert_array_equal(s.get_value(), np.full((2, 3), 1.5, "float32"))
    p = pytensor.shared(np.ones((3, 1), "float32"), shape=(3, 1))
    assert full_like(p, "m").type == p.type
    assert not np.shares_memory(full_like(p, "m").get_value(borrow=True), p.get_value(borrow=True))


def run(bit_generator=np.random.PCG64):
    p, q = pytensor.shared(np.ones(3, "float32"), name="p"), pytensor.shared(2.0)
    rng = pt.random.shared_rng(np.random.Generator(bit_generator(5)), name="rng")
    following, draws = rng.normal(size=(3,))
    updates = optapi.adam([p, q], pt.sum((p - draws) ** 2) + q**2, updates={rng: following})
    return updates, pytensor.function([], [draws], updates=updates, mode=optapi.PYTHON)


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_save_and_load_generators_too(bits, tmp_path):
    updates, step = run(bits)
    step()
    optapi.save(tmp_path / "file", updates)
    expected = [step()[0] for _ in range(3)]
    optapi.load(tmp_path / "file", updates)
    np.testing.assert_array_equal(expected, [step()[0] for _ in range(3)])
    others, other = run(bits)  # as another process would
    optapi.load(tmp_path / "file", others)
    np.testing.assert_array_equal(expected, [other()[0] for _ in range(3)])
    assert all(v.get_value().dtype == v.type.dtype for v in others if hasattr(v.type, "dtype"))


def test_the_file_is_plain_npz(tmp_path):
    updates, _ = run()
    optapi.save(tmp_path / "file.npz", updates)
    with np.load(tmp_path / "file.npz", allow_pickle=False) as file:
        assert {name.strip("/") for name in file.files} == {
            *("rng", "p", "unnamed/0", "adam/count"),
            *("adam/mean/p", "adam/mean_square/p", "adam/mean/1", "adam/mean_square/1"),
        }


def test_names_that_numpy_would_take_for_arguments(tmp_path):
    p = pytensor.shared(np.ones(2), name="file")
    updates = optapi.sgd([p], pt.sum(p**2))
    optapi.save(tmp_path / "x", updates)
    p.set_value(np.zeros(2))
    optapi.load(tmp_path / "x", updates)
    np.testing.assert_array_equal(p.get_value(), 1)


def test_duplicate_names_are_refused(tmp_path):
    p, q = pytensor.shared(1.0, name="p"), pytensor.shared(1.0, name="q")
    updates = optapi.join(optapi.adam([p], p**2), optapi.adam([q], q**2))
    with pytest.raises(ValueError, match="pass name="):
        optapi.save(tmp_path / "file", updates)
    assert list(tmp_path.iterdir()) == []
    optapi.save(tmp_path / "file", optapi.join(optapi.adam([p], p**2), optapi.adam([q], q**2, name="other")))


def test_variables_that_are_not_shared_are_refused(tmp_path):
    x = pt.dvector("x")
    with pytest.raises(TypeError, match="'x' is not shared"):
        optapi.save(tmp_path / "file", optapi.sgd([x], pt.sum(x**2)))


def test_loading_compares_first_and_sets_all_or_nothing(tmp_path):
    p, q = pytensor.shared(np.ones(2), name="p"), pytensor.shared(np.ones(2), name="q")
    optapi.save(tmp_path / "file", {p: p, q: q})
    narrow = pytensor.shared(np.zeros(2, "float32"), name="p")
    long = pytensor.shared(np.zeros(3), name="q")
    extra = pytensor.shared(0.0, name="extra")
    rng = pt.random.shared_rng(seed=1, name="rng")
    good = pytensor.shared(np.zeros(2), name="p")
    with pytest.raises(ValueError, match=r"extra is missing in the file") as info:
        optapi.load(tmp_path / "file", {narrow: narrow, long: long, extra: extra, rng: rng})
    message = str(info.value)
    assert "p is of shape (2,) and dtype float64 in the file, of shape (2,) and dtype float32 here" in message
    assert "q is of shape (2,)" in message
    assert "rng is missing" in message
    with pytest.raises(ValueError, match="q is in the file only"):
        optapi.load(tmp_path / "file", {good: good})
    np.testing.assert_array_equal(good.get_value(), 0)
    other = pt.random.shared_rng(np.random.Generator(np.random.MT19937(1)), name="rng")
    optapi.save(tmp_path / "generator", {rng: rng})
    with pytest.raises(ValueError, match="a random generator PCG64 in the file, a random generator MT19937 here"):
        optapi.load(tmp_path / "generator", {other: other})


def test_names_that_could_be_mistaken_for_files(tmp_path):
    variables = [pytensor.shared(float(i), name=n) for i, n in enumerate(["a", "a.npy", "a/", "é/..", "file"])]
    optapi.save(tmp_path / "x", {v: v for v in variables})
    for v in variables:
        v.set_value(-1.0)
    optapi.load(tmp_path / "x", {v: v for v in variables})
    assert [float(v.get_value()) for v in variables] == [0, 1, 2, 3, 4]


def test_files_that_save_did_not_write(tmp_path):
    p = pytensor.shared(1.0, name="p")
    (tmp_path / "garbage").write_bytes(b"no such thing")
    optapi.save(tmp_path / "good", {p: p})
    (tmp_path / "half").write_bytes((tmp_path / "good").read_bytes()[:60])
    for name in ("garbage", "half"):
        with pytest.raises(ValueError, match="is not a file that save wrote"):
            optapi.load(tmp_path / name, {p: p})


def test_only_tensors_are_saved(tmp_path):
    other = pytensor.shared({"a": 1}, name="other")
    with pytest.raises(TypeError, match="'other' is of type"):
        optapi.save(tmp_path / "file", {other: other})


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    p = pytensor.shared(np.ones(2), name="p")
    optapi.save(tmp_path / "file", {p: p})
    old = (tmp_path / "file").read_bytes()

    def fails(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(OSError, match="disk full"):
        optapi.save(tmp_path / "file", {p: p})
    assert (tmp_path / "file").read_bytes() == old
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_the_array_of_the_user_is_not_aliased(compiled):
    value = np.ones(3)
    p = pytensor.shared(value)
    updates = optapi.adam([p], pt.sum(p**2))
    step = compiled(updates)
    step()
    np.testing.assert_array_equal(value, 1)
