"""Files of all three kinds: what is refused, who reads what while others save, and what a save keeps.

The environment variable OPTAPI_INJECTIONS multiplies the numbers of mutated files, of kills and of reads beside savers.
"""

import copy
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi import files


INJECTIONS = int(os.environ.get("OPTAPI_INJECTIONS", "1"))
KINDS = ("updates", "minimize_iterator", "compiled minimizer")


def cost(x):
    return float(np.sum((x["a"] - 3) ** 2) + np.sum((x["b"] + 1) ** 4))


def slope(x):
    return {"a": 2 * (x["a"] - 3), "b": 4 * (x["b"] + 1) ** 3}


class Saved:
    """A good file of a kind, and how to load another one and save what was loaded."""

    def __init__(self, kind, folder):
        self.folder, self.path = folder, folder / f"{kind}.npz"
        getattr(self, f"_{kind.replace(' ', '_')}")()
        self.good = self.path.read_bytes()

    def _updates(self):
        x = pytensor.shared(np.arange(6.0).reshape(2, 3), name="x")
        y = pytensor.shared(np.asfortranarray(np.ones((2, 3))))
        rng = pt.random.shared_rng(np.random.Generator(np.random.MT19937(5)), name="rng")
        updates = optapi.adam([x, y], pt.sum(x**2) + pt.sum(y**2), updates={rng: rng.normal(size=(2,))[0]})
        optapi.save(self.path, updates)
        blank = {v: copy.deepcopy(v.get_value()) for v in updates}

        def load(path):
            for variable, value in blank.items():
                variable.set_value(value if variable is rng else value * 0 + 7)
            try:
                optapi.load(path, updates)
            except BaseException:
                assert all(v is rng or (v.get_value() == 7).all() for v in updates)
                raise
            return lambda to: optapi.save(to, updates)

        self.load = load

    def _minimize_iterator(self):
        start = {"a": np.zeros(2), "b": np.zeros((1, 2), "float32")}
        iterator = optapi.minimize_iterator(start, cost, slope, "lbfgs", memory=2, trace=True)
        for _ in range(3):
            next(iterator)
        iterator.save(self.path)
        self.load = lambda path: optapi.minimize_iterator.load(path, cost, slope).save

    def _compiled_minimizer(self):
        p = pytensor.shared(np.zeros(2), name="p")
        run = optapi.compile_minimizer([p], pt.sum((p - 3) ** 4), "lbfgs", max_iterations=2, mode=optapi.PYTHON)
        run()
        run.save(self.path)
        x = p.get_value()

        def load(path):
            p.set_value(x + 1)
            state = run._run._position
            try:
                run.load(path)
            except BaseException:
                assert run._run._position is state
                assert (p.get_value() == x + 1).all()
                raise
            return run.save

        self.load = load

    def entries(self):
        with zipfile.ZipFile(self.path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def refused(self, path):
        """Whether `path` is refused, by a ValueError that names it; else what was loaded is what was saved."""
        try:
            save = self.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            return True
        save(self.folder / "again.npz")
        assert (self.folder / "again.npz").read_bytes() == self.good
        return False


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return {kind: Saved(kind, folder) for kind in KINDS}


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def checksum(entries):
    """The checksum of `entries`, as the format has it."""
    digest = hashlib.sha256()
    for name, data in entries.items():
        if name != "checksum/.npy":
            digest.update(name.encode() + b"\0" + str(len(data)).encode() + b"\0" + data)
    return digest.hexdigest()


def crafted(file, change, path, sign=True, **options):
    """A file with `change` made to the entries of `file`; if asked, with the right checksum."""
    entries = file.entries()
    change(entries)
    if sign:
        entries["checksum/.npy"] = npy(np.array(checksum(entries)))
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def described(**parts):
    """A change of parts of the description; DELETED takes one away."""

    def change(entries):
        description = json.loads(np.load(io.BytesIO(entries["description/.npy"])).item())
        description |= parts
        description = {name: value for name, value in description.items() if value is not DELETED}
        entries["description/.npy"] = npy(np.array(json.dumps(description)))

    return change


DELETED = object()


def claiming(shape, descr="<f8"):
    """An entry whose header claims an array of this shape, and that has 8 bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(8)


# What a file holds


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_what_it_is(kind, saved):
    with np.load(saved[kind].path, allow_pickle=False) as file:
        description = json.loads(file["description/"].item())
        assert file["checksum/"].item() == checksum(saved[kind].entries())
        assert any(name.startswith("values/") for name in file.files)
    assert description["format"] == f"optapi {kind}"
    assert (description["version"], description["optapi"]) == (2, optapi.__version__)
    assert description["pytensor"] == pytensor.__version__
    assert not saved[kind].refused(saved[kind].path)


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_and_versions_are_refused(kind, saved, tmp_path):
    file = saved[kind]
    for other in KINDS:
        if other != kind:
            with pytest.raises(ValueError, match=f"format 'optapi {other}', not 'optapi {kind}'; nothing was loaded"):
                file.load(saved[other].path)
    newer = crafted(file, described(version=3, optapi="9.1"), tmp_path / "newer.npz")
    with pytest.raises(
        ValueError, match=r"newer.npz has format version 3, written by optapi 9.1, and this .* version 2"
    ):
        file.load(newer)
    # One that has what this version does not know, and is compressed.
    change = lambda entries: described(version=4)(entries) or entries.update({"future": b"\0" * 10**6})  # noqa: E731
    with pytest.raises(ValueError, match="has format version 4"):
        file.load(crafted(file, change, tmp_path / "far.npz", sign=False))
    first = crafted(file, lambda entries: entries.update({"format.npy": npy(np.array(1))}), tmp_path / "first.npz")
    with pytest.raises(ValueError, match=r"first.npz has format version 1.* Load it with the optapi that wrote it"):
        file.load(first)


def test_parameters_in_another_order_are_refused(tmp_path):
    """What a rule packs into one vector has no names in it."""
    a, b = (pytensor.shared(np.full(2, value), name=name) for name, value in (("a", 1.0), ("b", 2.0)))
    total = pt.sum(a**2) + pt.sum(b**4)
    optapi.save(tmp_path / "updates", optapi.sgd([a, b], total, momentum=0.9))
    with pytest.raises(ValueError, match="saved with a, b in this order, and here it is b, a"):
        optapi.load(tmp_path / "updates", optapi.sgd([b, a], total, momentum=0.9))
    run = optapi.compile_minimizer([a, b], total, "sgd", max_iterations=1, mode=optapi.PYTHON)
    run()
    run.save(tmp_path / "run")
    with pytest.raises(ValueError, match="saved with a, b in this order, and here it is b, a"):
        optapi.compile_minimizer([b, a], total, "sgd", mode=optapi.PYTHON).load(tmp_path / "run")


# What is damaged, hostile or foreign


def damages(file, path):
    """Files made from a good one, by what was done to it: each has to be refused."""
    raw, last = file.good, [*file.entries()][-2]

    def patched(*changes):
        damaged = bytearray(raw)
        for place, value in changes:
            damaged[place : place + len(value)] = value
        path.write_bytes(damaged)

    central, end = raw.find(b"PK\x01\x02"), raw.rfind(b"PK\x05\x06")
    yield "compression method 99", patched((8, b"\x63"), (central + 10, b"\x63"))
    yield "encrypted", patched((6, b"\x01"), (central + 8, b"\x01"))
    yield "offset of the directory", patched((end + 16, (2**32 - 9).to_bytes(4, "little")))
    yield "sizes of 4 GB", patched((central + 20, b"\xfe\xff\xff\xff" * 2))
    for sign in (True, False):
        for what, data in {
            "no array": b"hello",
            "1e12 numbers": claiming((10**12,)),
            "1e12 numbers of no size": claiming((10**12,), "<U0"),
            "negative shape": claiming((-1, -1)),
            "objects": claiming((1,), "|O"),
            "records": claiming((1,), [("a", "<f8")]),
            "a header of version 2": b"\x93NUMPY\x02\x00" + bytes(80),
            "a header that is deep": b"\x93NUMPY\x01\x00\xd0\x07" + b"(" * 2000,
            "another shape": npy(np.zeros((7, 7))),
            "strings": npy(np.array("{}")),
        }.items():
            yield f"{last} is {what}", crafted(file, lambda e, data=data: e.update({last: data}), path, sign)
        yield "an entry is missing", crafted(file, lambda e: e.pop(next(n for n in e if "values/" in n)), path, sign)
        yield "an entry more", crafted(file, lambda e: e.update({"future/.npy": npy(np.zeros(2))}), path, sign)
        yield "no .npy", crafted(file, lambda e: e.update({"future": b"whatever"}), path, sign)
        for text in ("", "[]", "5", "{}", "[" * 100_000, '{"version": 2}', '{"version": "2"}', "nul\0l"):
            data = npy(np.array(text))
            yield (
                f"described by {text[:9]}",
                crafted(file, lambda e, d=data: e.update({"description/.npy": d}), path, sign),
            )
    yield "compressed", crafted(file, lambda e: None, path, compression=zipfile.ZIP_DEFLATED)
    for value in (DELETED, None, 5, "x", [], {}, [1.5], {"a": 1}, True, -1, [["x"]]):
        for part in ("order", "format", "version"):
            yield f"{part} is {value}", crafted(file, described(**{part: value}), path)
    yield "another part", crafted(file, described(future=1), path)
    path.write_bytes(b"")
    yield "empty", None
    np.savez(path, a=np.ones(3))
    yield "of NumPy", None
    path.write_bytes(b"\x80\x04K\x05.")
    yield "a pickle", None


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(kind, saved, tmp_path):
    path = tmp_path / "damaged.npz"
    for what, _ in damages(saved[kind], path):
        assert saved[kind].refused(path), what


WRONG = (
    DELETED,
    None,
    5,
    -1.0,
    "x",
    [],
    {},
    [1, 2, 3, -4],
    [1, 2, 3, 4.0],
    [0, 0, 0, True],
    1e999,
    ["dict", ["a"], []],
)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_wrong_parts_of_a_run_are_refused(kind, saved, tmp_path):
    file, path = saved[kind], tmp_path / "wrong.npz"
    description = json.loads(np.load(io.BytesIO(file.entries()["description/.npy"])).item())
    for part in description.keys() - {"optapi", "pytensor"}:
        for value in WRONG:
            may_be = {
                "ending": [None],
                "rule": [None],
                "mode": [None],
                "others": [[]],
                "inputs": ["x"],
                "differences": [None],
                "options": [{}],
            }
            if value not in may_be.get(part, []):
                assert file.refused(crafted(file, described(**{part: value}), path)), (part, value)
    for name in file.entries():
        if name.startswith(("now/point/", "best/point/", "trace")):
            assert file.refused(crafted(file, lambda e, name=name: e.pop(name), path)), name
        if name.startswith(("now/", "best/", "trace")):
            for array in (np.zeros(3), np.array("x"), np.zeros((1, 1), "int8")):
                assert file.refused(crafted(file, lambda e, n=name, a=array: e.update({n: npy(a)}), path)), name


def test_wrong_parts_of_a_minimize_iterator_are_refused(saved, tmp_path):
    file, path = saved["minimize_iterator"], tmp_path / "wrong.npz"
    description = json.loads(np.load(io.BytesIO(file.entries()["description/.npy"])).item())
    driver, options = description["driver"], description["options"]
    structures = [["dict", ["a"], [None]], ["dict", ["a", "a"], [None, None]], ["list", [0, 1, 2], [None] * 3],
                  ["tuple", [5, 6], [None, None]], ["set", [0, 1], [None, None]], None]  # fmt: skip
    wrong = [
        *({"structure": structure} for structure in structures),
        *({"driver": driver | {name: "x"}} for name in driver),
        *({"driver": {n: v for n, v in driver.items() if n != name}} for name in driver),
        *({"options": options | {name: value}} for name, value in (("memory", "x"), ("memory", -1), ("memory", 3))),
        *({"options": options | {name: 1}} for name in ("future", "cost", "stop", "parameters", "f")),
        {"options": {"memory": [2]}},
        {"others": ["future"]},
        {"mode": "no such mode"},
        {"rule": "no_such_rule"},
        {"rule": "save"},
        {"rule": "adam"},
    ]
    for parts in wrong:
        assert file.refused(crafted(file, described(**parts), path)), parts
    # What the caller passes is not the fault of the file.
    with pytest.raises(TypeError, match="unexpected keyword 'future'"):
        optapi.minimize_iterator.load(file.path, cost, slope, future=1)
    with pytest.raises(TypeError, match="does not hold opt_algo"):
        optapi.minimize_iterator.load(crafted(file, described(rule=None), path), cost, slope)


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.Philox, np.random.PCG64, np.random.SFC64])
def test_the_state_of_a_generator_is_checked(bits, tmp_path):
    """NumPy itself would read memory that is not its own, from a place in a buffer that has none."""
    rng = pt.random.shared_rng(np.random.Generator(bits(5)), name="rng")
    optapi.save(tmp_path / "good.npz", {rng: rng})
    with np.load(tmp_path / "good.npz") as file:
        good = json.loads(file["values/rng/"].item())
    places = [(part, name) for part, names in good.items() if isinstance(names, dict) for name in names]
    places += [(part,) for part in good if not isinstance(good[part], dict)]
    assert len(places) >= 3
    for *parts, name in places:
        for value in (None, "x", -1, 625, 10**9, 2**70, 1.5, [], {"array": [1]}, {"array": ["x"] * 4}, {}):
            state = copy.deepcopy(good)
            inner = state[parts[0]] if parts else state
            inner[name] = value
            entries = {"description/.npy": None, "values/rng/.npy": npy(np.array(json.dumps(state)))}
            with zipfile.ZipFile(tmp_path / "good.npz") as archive:
                entries["description/.npy"] = archive.read("description/.npy")
            entries["checksum/.npy"] = npy(np.array(checksum(entries)))
            with zipfile.ZipFile(tmp_path / "wrong.npz", "w") as archive:
                for entry, data in entries.items():
                    archive.writestr(entry, data)
            before = copy.deepcopy(rng.get_value().bit_generator.state)
            is_number = isinstance(good[parts[0]][name] if parts else good[name], int)
            if is_number and isinstance(value, int) and "pos" not in name and value >= 0:
                continue  # another number, as good as any
            with pytest.raises(ValueError, match=r"wrong\.npz"):
                optapi.load(tmp_path / "wrong.npz", {rng: rng})
            np.testing.assert_equal(rng.get_value().bit_generator.state, before)


def test_files_are_read_in_bounded_memory(saved, tmp_path):
    """Thirty megabytes of zeros in a small file, and headers that claim much."""
    file, path = saved["updates"], tmp_path / "bomb.npz"
    size = 3 * 10**7
    zeros = claiming((size // 8,))[:-8] + bytes(size)
    bombs = [
        lambda: crafted(file, lambda e: e.update({"values/x/.npy": zeros}), path, compression=zipfile.ZIP_DEFLATED),
        lambda: crafted(file, lambda e: e.update({"description/.npy": zeros}), path, compression=zipfile.ZIP_DEFLATED),
        lambda: crafted(file, lambda e: e.update({"values/x/.npy": claiming((10**12,))}), path),
        lambda: crafted(file, lambda e: e.update({"description/.npy": claiming((10**7,), "<U9999")}), path),
    ]
    for make in bombs:
        make()
        assert path.stat().st_size < 10**6
        tracemalloc.start()
        assert file.refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
        tracemalloc.stop()


def mutated(raw, others, rng):
    """`raw` with bytes changed, lost, added, doubled, or taken from other files; and whether none were."""
    data = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        begin, length = int(rng.integers(len(data))), int(rng.choice([1, 2, 8, 100, 1000]))
        where = slice(begin, begin + length)
        match rng.integers(7):
            case 0 | 1:
                data[where] = rng.bytes(len(data[where]))
            case 2:
                data[begin] ^= 1 << int(rng.integers(8))
            case 3:
                del data[where]
            case 4:
                data[begin:begin] = data[where]
            case 5:
                other = others[rng.integers(len(others))]
                data[where] = other[where] or b"\0"
            case 6 if rng.random() < 0.5:
                del data[begin:]
                data += b"\0" * 22
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_refused_or_right(kind, saved, tmp_path):
    rng, path = np.random.default_rng(KINDS.index(kind)), tmp_path / "mutated.npz"
    others = [saved[other].good for other in KINDS]
    refused = 0
    for _ in range(100 * INJECTIONS):
        path.write_bytes(mutated(saved[kind].good, others, rng))
        refused += saved[kind].refused(path)
    assert refused > 50 * INJECTIONS


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_cannot_be_opened(kind, saved, tmp_path):
    with pytest.raises(FileNotFoundError):
        saved[kind].load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        saved[kind].load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no regular file"):
        saved[kind].load(tmp_path / "pipe")


# Savers and readers


def names(folder):
    return [path.name for path in folder.iterdir()]


def filled(value, size=2000):
    return {pytensor.shared(np.full(size, float(value)), name=name): 0 for name in "xy"}


SAVER = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
import optapi
from test_files import filled

def save(value):
    updates = filled(value)
    while True:
        optapi.save(sys.argv[1], updates)

optapi.save(sys.argv[1], filled(0))
print("begun", flush=True)
for value in map(int, sys.argv[2:]):
    threading.Thread(target=save, args=(value,)).start()
"""


def test_readers_beside_savers_find_whole_files(tmp_path):
    """Two threads here and two processes save to one path, and each file that is read is whole."""
    path, done = tmp_path / "shared.npz", threading.Event()
    processes = [
        subprocess.Popen([sys.executable, "-c", SAVER, path, value], stdout=subprocess.PIPE) for value in ("3", "4")
    ]
    errors = []

    def save(value):
        updates = filled(value)
        try:
            while not done.is_set():
                optapi.save(path, updates)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(value,)) for value in (1, 2)]
    try:
        for process in processes:
            assert process.stdout.readline() == b"begun\n"
        for thread in threads:
            thread.start()
        updates, seen = filled(9), set()
        reads = 0
        while reads < 200 * INJECTIONS or len(seen) < 4:
            optapi.load(path, updates)
            values = np.concatenate([variable.get_value() for variable in updates])
            assert (values == values[0]).all()
            seen.add(values[0])
            reads += 1
        assert {1, 2, 3, 4} <= seen
        assert [process.poll() for process in processes] == [None, None]
    finally:
        done.set()
        for process in processes:
            process.kill()
            process.communicate()
        for thread in threads:
            thread.join()
    assert not errors
    optapi.save(path, filled(5))
    assert names(tmp_path) == ["shared.npz"]


KILLER = f"""
import os, random, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import optapi
from test_files import filled

path, draws = sys.argv[1], random.Random(1)
folder, litter = os.path.dirname(path), 0
optapi.save(path, filled(0))
for kill in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        updates = filled(kill, 200_000 if kill % 2 else 2000)
        while True:
            optapi.save(path, updates)
    time.sleep(draws.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = len(os.listdir(folder))
    litter += found > 1
    assert found <= 2, found
    with np.load(path) as file:
        size = file["values/x/"].size
    updates = filled(-1, size)
    optapi.load(path, updates)
    values = np.concatenate([variable.get_value() for variable in updates])
    assert (values == values[0]).all() and values[0] <= kill
print(litter)
"""


def test_savers_that_are_killed(tmp_path):
    """They leave a whole file, and what else they leave the next save to the same path removes."""
    path, kills = tmp_path / "killed.npz", 20 * INJECTIONS
    run = subprocess.run([sys.executable, "-c", KILLER, path, str(kills)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 0
    optapi.save(path, filled(0))
    assert names(tmp_path) == ["killed.npz"]


def test_what_a_living_saver_writes_is_not_removed(tmp_path, monkeypatch):
    """A saver that is stopped before its file has its name, and another one to the same path meanwhile."""
    path, updates = tmp_path / "slow.npz", filled(1)
    replace, calls = os.replace, []

    def slow(*args):
        calls.append(args)
        if len(calls) == 1:
            optapi.save(path, filled(2))
            assert len(names(tmp_path)) == 2
        replace(*args)

    monkeypatch.setattr(os, "replace", slow)
    optapi.save(path, updates)
    assert len(calls) == 2
    assert names(tmp_path) == ["slow.npz"]
    with np.load(path) as file:
        assert file["values/x/"][0] == 1


def test_the_mode_is_kept_and_links_are_followed(tmp_path):
    path, updates = tmp_path / "file.npz", filled(1)
    optapi.save(path, updates)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    link, chain, dangling = tmp_path / "latest.npz", tmp_path / "chain.npz", tmp_path / "dangling.npz"
    link.symlink_to("file.npz")
    chain.symlink_to(link)
    dangling.symlink_to("new.npz")
    for mode in (0o600, 0o664, 0o400):
        path.chmod(mode)
        for name in (path, link, chain):
            inode = path.stat().st_ino
            optapi.save(name, updates)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert path.stat().st_ino != inode
    optapi.save(dangling, updates)
    assert link.is_symlink() and chain.is_symlink() and dangling.is_symlink()
    assert not (tmp_path / "new.npz").is_symlink()
    assert len(names(tmp_path)) == 5


def test_where_nothing_can_be_saved(tmp_path):
    with pytest.raises(IsADirectoryError):
        optapi.save(tmp_path, filled(1))
    with pytest.raises(FileNotFoundError):
        optapi.save(tmp_path / "none" / "file.npz", filled(1))
    with pytest.raises(OSError, match="no regular file"):
        optapi.save("/dev/null", filled(1))
    x = pytensor.shared(0.0, name="a\0b")
    with pytest.raises(ValueError, match="no file can hold the name"):
        optapi.save(tmp_path / "file.npz", {x: x})
    assert not names(tmp_path)


def test_file_and_folder_are_flushed_around_the_new_name(tmp_path, monkeypatch):
    seen = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)

        def noted(first, *rest, name=name, call=call):
            seen.append((name, name == "fsync" and stat.S_ISDIR(os.fstat(first).st_mode)))
            call(first, *rest)

        monkeypatch.setattr(os, name, noted)
    optapi.save(tmp_path / "file.npz", filled(1))
    assert seen == [("fsync", False), ("replace", False), ("fsync", True)]


FULL = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import optapi
from test_files import filled

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
optapi.save(sys.argv[1], filled(1))
for size in (6_200, 6_250, 20_000, 2_000_000):
    try:
        optapi.save(sys.argv[1], filled(2, size))
    except OSError as error:
        print(error.strerror)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.npz"
    # A limit of the size of files fails where a full disk does: in the middle, or when the rest is flushed.
    run = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["File too large"] * 4
    assert names(tmp_path) == ["file.npz"]
    old = path.read_bytes()
    for name in ("fsync", "replace"):

        def full(*args):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space left"):
                optapi.save(path, filled(3))
        assert path.read_bytes() == old
        assert names(tmp_path) == ["file.npz"]


def test_a_file_that_changes_while_it_is_saved_has_its_checksum(tmp_path):
    """A function may write the arrays in place in another thread: the values may be of two times, the file is whole."""
    values, done = np.zeros(2_000_000), threading.Event()

    def change():
        while not done.is_set():
            values[:] = np.random.default_rng(0).random()
            values[::2] += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3):
            files.write(tmp_path / "file.npz", "updates", {}, {"values": values})
            files.read(tmp_path / "file.npz", "updates", {})
    finally:
        done.set()
        thread.join()
