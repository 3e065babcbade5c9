"""Files: the one format of all that optapi saves, written so that every reader finds a whole file.

A file is NumPy's ``.npz``, uncompressed and without pickled objects: the entry ``description``, in JSON, says what it
holds and what wrote it; then come arrays; ``checksum`` is the SHA-256 of all before it. A slash ends the name of each
entry, so that ``numpy.load`` finds ``description/``.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import pytensor

from .checks import check_path


try:
    import fcntl
except ImportError:  # on Windows, where a file that is open cannot be removed, which serves as well
    fcntl = None  # type: ignore[assignment]


# A change of what files hold, or of the names in them, is a new version.
VERSION = 2
ADVICE = "Load it with the optapi that wrote it, or begin anew and save with this one"
DESCRIPTION, CHECKSUM = "description/.npy", "checksum/.npy"
FIRST = "format.npy"  # in files of version 1
# Bytes that are read, written and summed at a time.
CHUNK = 2**20
# The kinds of dtypes in a file: numbers, and strings for what is in JSON.
KINDS = "biufcU"


def write(path: str | os.PathLike[str], kind: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray],
          older: int = 0) -> None:  # fmt: skip
    """Write a file, which at all times is the old one or the new one, whole, whoever else saves or reads there.

    Its mode stays as it is, and symbolic links are followed. What savers that were killed have left is removed.

    Parameters
    ----------
    path : str or path
    kind : str
        What is saved: ``"updates"``, ``"minimize_iterator"`` or ``"compiled minimizer"``.
    description : dict
        What JSON can hold.
    arrays : dict
        Arrays by their names.
    older : int
        How many of the files before are kept, under the same name with ``.1``, ``.2`` and so on at the end.

    Raises
    ------
    OSError
        If it cannot be written, for instance on a full disk; the old file is as it was, and nothing else is left.
    """
    check_path("path", path)
    versions = {"optapi": sys.modules["optapi"].__version__, "pytensor": pytensor.__version__}
    described = {"format": f"optapi {kind}", "version": VERSION, **versions, **description}
    target = Path(os.path.realpath(os.fspath(path)))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "this is no regular file", str(path))
    _clear(target)
    file, unfinished = _begin(target, mode)
    try:
        with file:
            _write(file, {"description": np.array(json.dumps(described)), **arrays})
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()
            # Until it has its name the file is open and locked, so that nobody takes it for what a killed saver left.
            _shift(target, older)
            os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    _flush_folder(target.parent)


def read(path: str | os.PathLike[str], kind: str, parts: Mapping[str, Callable[[Any], bool]]) -> tuple[Any, Any]:
    """The description and the arrays in the file `path`, which `write` wrote.

    Parameters
    ----------
    path : str or path
    kind : str
        As for `write`.
    parts : dict
        What the description has to have, no more and no less, and whether a value is right.

    Raises
    ------
    ValueError
        If `write` did not write the file, or wrote something of another kind, or in a format of another version, or if
        the file is damaged. The arrays take no more memory than the file has bytes, whatever it claims.
    OSError
        If the file cannot be read; FileNotFoundError if there is none.
    """
    check_path("path", path)
    if stat.S_ISFIFO(Path(path).stat().st_mode):  # to open it would wait for a writer
        raise ValueError(f"{path} is no regular file; nothing was loaded")
    with open(path, "rb") as file:
        with refusing(path):
            size, archive = os.fstat(file.fileno()).st_size, ZipFile(file)
            entries = {info.filename: info for info in archive.infolist()}
            _check(len(entries) == len(archive.infolist()), "two entries have one name")
            _check(all(info.compress_size <= size for info in entries.values()), "an entry is larger than the file")
            description = json.loads(_array(archive, entries[DESCRIPTION]).item()) if DESCRIPTION in entries else {}
            version = 1 if FIRST in entries else description.pop("version")
            held, writer = description.pop("format", "optapi"), description.pop("optapi", None)
            _check(held.startswith("optapi"), f"its format is {held}")
        if version != VERSION:
            by = f", written by optapi {writer}" if writer else ""
            raise ValueError(
                f"{path} has format version {version}{by}, and this optapi reads version {VERSION}; nothing was "
                f"loaded. {ADVICE}"
            )
        if held != f"optapi {kind}":
            raise ValueError(f"{path} has the format {held!r}, not 'optapi {kind}'; nothing was loaded")
        with refusing(path):
            _check(sum(info.file_size for info in entries.values()) <= size, "its entries are larger than the file")
            checksum = _array(archive, entries.pop(CHECKSUM)).item()
            _check(checksum == _checksum(archive, entries.values()), "its checksum is not that of its contents")
            del entries[DESCRIPTION], description["pytensor"]
            unknown = description.keys() - parts.keys() | {name for name in entries if not name.endswith("/.npy")}
            _check(not unknown, f"it has {', '.join(sorted(unknown))}, which this version does not know")
            for name, is_right in parts.items():
                _check(name in description and is_right(description[name]), f"its {name} is missing or wrong")
            return description, {name.removesuffix("/.npy"): _array(archive, info) for name, info in entries.items()}


@contextmanager
def refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the file `path`, and a ValueError; but for failures to read it."""
    try:
        yield
    except Exception as error:  # damage shows as errors of all kinds
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a position before the beginning
            raise
        why = f": {error}" if type(error) is ValueError else ""
        raise ValueError(
            f"{path} is not a file that optapi wrote, or not as it was written{why}; nothing was loaded"
        ) from error


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise ValueError(what)


# What is in a file


def _write(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an archive of `arrays`, and of their checksum, to `file`."""
    digest = sha256()
    with ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            _write_array(archive, f"{name}/.npy", array, digest)
        _write_array(archive, CHECKSUM, np.array(digest.hexdigest()), digest)


def _write_array(archive: ZipFile, name: str, array: np.ndarray, digest: Any) -> None:
    """Add the entry `name` to `archive` and to the `digest` of all entries."""
    header, layout = BytesIO(), np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(header, layout)
    data = array.reshape(-1, order="F" if layout["fortran_order"] else "C").view("u1")
    info = ZipInfo(name)
    _check(info.filename == name, f"no file can hold the name {name.removesuffix('/.npy')!r}; choose another one")
    info.file_size = header.tell() + data.size
    digest.update(_label(info))
    with archive.open(info, "w") as entry:
        for part in _parts(header.getvalue(), data):
            digest.update(part)
            entry.write(part)


def _parts(header: bytes, data: np.ndarray) -> Iterator[bytes]:
    """The bytes of an entry. They are copies: another thread may change the array while it is summed and written."""
    yield header
    for begin in range(0, data.size, CHUNK):
        yield data[begin : begin + CHUNK].tobytes()


def _label(info: ZipInfo) -> bytes:
    """What the checksum has of an entry, beside its bytes."""
    return f"{info.filename}\0{info.file_size}\0".encode()


def _checksum(archive: ZipFile, entries: Iterable[ZipInfo]) -> str:
    """The checksum of `entries`, which are read piece by piece."""
    digest = sha256()
    for info in entries:
        digest.update(_label(info))
        with _stored(archive, info) as entry:
            while part := entry.read(CHUNK):
                digest.update(part)
    return digest.hexdigest()


def _stored(archive: ZipFile, info: ZipInfo) -> IO[bytes]:
    """An entry, opened. One that is compressed could be larger than the file."""
    is_stored = info.compress_type == ZIP_STORED and info.file_size == info.compress_size
    _check(is_stored and not info.flag_bits & 1, f"{info.filename} is compressed or encrypted")
    return archive.open(info)


def _array(archive: ZipFile, info: ZipInfo) -> np.ndarray:
    """The array in an entry, once its header is found to claim as many bytes as there are."""
    with _stored(archive, info) as entry:
        _check(np.lib.format.read_magic(entry) == (1, 0), f"{info.filename} is no array")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(entry)
        size = info.file_size - entry.tell()
        is_plain = dtype.kind in KINDS and dtype.itemsize > 0 and prod(shape) * dtype.itemsize == size
        _check(is_plain, f"{info.filename} has the shape {shape} and dtype {dtype}, and {size} bytes")
        array = np.empty(shape, dtype, order="F" if is_fortran else "C")
        data = array.reshape(-1, order="F" if is_fortran else "C").view("u1")
        for begin in range(0, size, CHUNK):
            data[begin : begin + CHUNK] = np.frombuffer(entry.read(min(CHUNK, size - begin)), "u1")
        return array


# Where it is


def _begin(target: Path, mode: int | None) -> tuple[IO[bytes], Path]:
    """A new file beside `target`, with its mode, open and locked."""
    while True:
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(unfinished, flags, 0o666 if mode is None else stat.S_IMODE(mode)), "wb")
        try:
            if mode is not None:
                unfinished.chmod(stat.S_IMODE(mode))  # also what the umask takes away from new files
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file, unfinished
        except FileNotFoundError:
            pass  # another saver has cleared it away before it was locked
        except BaseException:
            file.close()
            unfinished.unlink(missing_ok=True)
            raise
        file.close()


def _clear(target: Path) -> None:
    """Remove what savers to `target` have left that were killed: files such as those of `_begin`, and not locked."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    with suppress(PermissionError):
        for path in target.parent.iterdir():
            if pattern.fullmatch(path.name):
                with suppress(OSError):
                    _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    if fcntl is None:
        path.unlink()
    else:
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _shift(target: Path, older: int) -> None:
    """Keep the file at `target` as the first of as many `older` ones. It stays where it is, too."""
    numbered = [target.with_name(f"{target.name}.{age}") for age in range(1, older + 1)]
    for age in range(older - 1, 0, -1):
        with suppress(FileNotFoundError):
            os.replace(numbered[age - 1], numbered[age])
    if older:
        numbered[0].unlink(missing_ok=True)
        with suppress(FileNotFoundError, FileExistsError):  # there is none yet, or another saver was faster
            try:
                os.link(target, numbered[0])
            except (PermissionError, NotImplementedError):  # a file system without links
                shutil.copyfile(target, numbered[0])


def _flush_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk, where the system can."""
    if os.name == "posix":
        with suppress(PermissionError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
            finally:
                os.close(handle)
