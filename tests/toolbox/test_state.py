import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import state


def test_state_is_a_copy_with_a_static_shape():
    s = state.state("s", (2, 3), "float32", fill=1.5)
    assert s.type == pt.TensorType("float32", shape=(2, 3))
    np.testing.assert_array_equal(s.get_value(), np.full((2, 3), 1.5, "float32"))
    p = pytensor.shared(np.ones((3, 1), "float32"), shape=(3, 1))
    assert state.full_like(p, "m").type == p.type
    assert not np.shares_memory(state.full_like(p, "m").get_value(borrow=True), p.get_value(borrow=True))


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
        assert {name.strip("/").removeprefix("values/") for name in file.files} == {
            *("description", "checksum", "rng", "p", "0/unnamed", "adam/count"),
            *("adam/mean/p", "adam/mean_square/p", "adam/mean/1", "adam/mean_square/1"),
        }


def test_names_that_numpy_would_take_for_arguments(tmp_path):
    p = pytensor.shared(np.ones(2), name="file")
    updates = optapi.sgd([p], pt.sum(p**2))
    optapi.save(tmp_path / "x", updates)
    p.set_value(np.zeros(2))
    optapi.load(tmp_path / "x", updates)
    np.testing.assert_array_equal(p.get_value(), 1)


def check_saved_and_loaded(path, updates):
    """The file brings back all values; they are made to differ, so that none can take the place of another."""
    values = {}
    for i, variable in enumerate(updates, 1):
        values[variable] = variable.get_value() + np.asarray(i, variable.type.dtype)
        variable.set_value(values[variable])
    optapi.save(path, updates)
    for variable in updates:
        variable.set_value(variable.get_value() * 0)
    optapi.load(path, updates)
    for variable, value in values.items():
        np.testing.assert_array_equal(variable.get_value(), value)


@pytest.mark.parametrize(
    "names",
    [
        ("p", "p", "p"),
        (None, None, None),
        ("p", None, "p"),
        ("1", None, "2/unnamed"),
        ("0/p", "p", "p"),
        ("", "é", "é"),
    ],
)
def test_parameters_of_any_names_are_saved_and_loaded(names, tmp_path):
    ps = [pytensor.shared(np.ones(2), name=name) for name in names]
    updates = optapi.adamw(ps, sum(pt.sum(p**2) for p in ps))
    assert len(set(state.names(updates))) == len(updates)
    check_saved_and_loaded(tmp_path / "file", updates)


def test_two_rules_are_saved_and_loaded_under_names_of_their_own(tmp_path):
    """Two groups, whose parameters have the same names."""
    p, q = pytensor.shared(1.0, name="p"), pytensor.shared(1.0, name="p")
    updates = optapi.join(optapi.adamw([p], p**2), optapi.adamw([q], q**2, name="second"))
    assert {"adamw/count", "second/count", "adamw/mean/p", "second/mean/p"} < set(state.names(updates))
    check_saved_and_loaded(tmp_path / "file", updates)


def test_state_keeps_its_name_whatever_the_parameters_are_called():
    p = pytensor.shared(1.0, name="adam/count")
    assert state.names(optapi.sgd([p], p**2)) == ["adam/count"]
    assert set(state.names(optapi.adam([p], p**2))) >= {"adam/mean/adam/count"}


def test_labels_are_unique():
    variables = [pytensor.shared(0.0, name=name) for name in ("w", None, "b", "b", "1", "2x", "")]
    assert state.labels(variables) == ["w", "1", "2", "3", "4", "5", "6"]


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


def test_only_tensors_are_saved(tmp_path):
    other = pytensor.shared({"a": 1}, name="other")
    with pytest.raises(TypeError, match="'other' is of type"):
        optapi.save(tmp_path / "file", {other: other})


def test_the_array_of_the_user_is_not_aliased(compiled):
    value = np.ones(3)
    p = pytensor.shared(value)
    updates = optapi.adam([p], pt.sum(p**2))
    step = compiled(updates)
    step()
    np.testing.assert_array_equal(value, 1)
