"""Files written whole or not at all, and checked before reading."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from spear_deploy.errors import FileError, SpearError
from spear_deploy.util.memory import free_bytes
from spear_deploy.util.number_format import byte_size

ASIDE = ".spear-aside-"
"""Beginning of the names of temporary files; those of killed runs are known by it."""


@contextmanager
def rename_in_errors(hidden: str | os.PathLike[str], shown: str | os.PathLike[str]) -> Iterator[None]:
    """Put the path `shown` in place of `hidden` in errors of the block: the user knows no temporary files."""
    try:
        yield
    except SpearError as error:
        error.args = (str(error).replace(str(hidden), str(shown)), *error.args[1:])
        raise


def advise_place(error: OSError) -> str:
    """Return what helps where something cannot be written."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some space, and run the command again" if is_full else "choose a writable place"


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` when the block succeeds; links stay links.

    Raises:
        FileError: the folder is not writable, or `path` is one, or a device; all then stays as it was, and folders made for it
            are removed.
    """
    target = Path(path)
    new_folders: list[Path] = []
    require_name(target)
    if target.is_dir():
        raise FileError(f"file '{os.fspath(path)}': is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():  # a rename would put a file in the place of the device
        raise FileError(f"file '{target}': is a device or a pipe; give the name of a file")
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    try:
        new_folders = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{ASIDE}{target.name}.", suffix=target.suffix)
        os.close(handle)
    except OSError as error:
        raise FileError(f"file '{target}': cannot be written ({error.strerror}); {advise_place(error)}") from error
    temporary = Path(name)
    try:
        with rename_in_errors(temporary, target):
            yield temporary
        temporary.chmod(0o666 & ~_read_umask())
        _flush_to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"file '{target}': cannot be written ({error.strerror or error}); {advise_place(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
        for folder in new_folders:
            with suppress(OSError):  # not empty: something was written
                folder.rmdir()


def require_name(path: Path) -> None:
    """Refuse a path that no file can have.

    Raises:
        FileError: it holds a zero byte or half of a character.
    """
    try:
        is_name = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise FileError(f"path '{path}': holds a character that no name can have; give another name")


@contextmanager
def replace_from_memory(path: str | os.PathLike[str]) -> Iterator[io.BytesIO]:
    """Yield a file in memory, and write it to `path`, whole or not at all, when the block succeeds.

    For libraries that do not end well where a disk is full: HDF5's crashes, numpy leaves an archive open. It takes as much
    memory as the file is large.

    Raises:
        FileError: the folder is not writable, or the disk is full.
    """
    memory = io.BytesIO()
    yield memory
    with replace_file(path) as aside:
        aside.write_bytes(memory.getbuffer())


def _flush_to_disk(path: Path) -> None:
    """Write a file through to the disk, so that a rename never outlives what was renamed."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_umask() -> int:
    """Return the mask of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def find_beside(folder: Path, name: str, endings: tuple[str, ...]) -> str:
    """Return a file with one of these endings as named from a folder, with the variant or board of a profile; other names stay.

    >>> find_beside(Path("a"), "chip.yaml:board", (".yaml",)), find_beside(Path("a"), "loihi2", (".yaml",))
    ('a/chip.yaml:board', 'loihi2')
    """
    file = re.split(r"(?<=\.yaml|.\.yml)[@:]", name)[0]
    return str(folder / name) if file.lower().endswith(endings) else name


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any], *, compressed: bool = True) -> None:
    """Write arrays as an `.npz`, whole or not at all; compressed unless the time counts more than the size."""
    with replace_from_memory(path) as memory:
        (np.savez_compressed if compressed else np.savez)(memory, **arrays)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def explain_unreadable(path: Path) -> Iterator[None]:
    """Turn errors of the system in the block into a sentence: a file may vanish, or become another, while it is read.

    Raises:
        FileError: names the file and the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise FileError(f"file '{path}': cannot be read ({error.strerror or error}); check its name and place") from error


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """Return the content of a file.

    Raises:
        FileError: as `require_file`, or it cannot be read any more.
    """
    source = require_file(path, what)
    with explain_unreadable(source):
        return source.read_bytes()


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """Return the content of a file in UTF-8, with or without a byte order mark.

    Raises:
        FileError: as `read_bytes`, or it is not text in UTF-8.
    """
    source = require_file(path, what)
    try:
        with explain_unreadable(source):
            return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"file '{source}': is not text in UTF-8, expected a {what}; save it as UTF-8") from error


def require_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path` if it is a file with content.

    Raises:
        FileError: missing, without a name, a folder, a device, empty or unreadable.
    """
    source = Path(path)
    if not source.exists():
        raise FileError(f"file '{source}': there is no such {what}; check the path")
    if not os.fspath(path):
        raise FileError(f"file '': the name is empty, expected that of a {what}")
    if source.is_dir():
        raise FileError(f"file '{source}': is a folder, expected a {what}")
    if not source.is_file():
        raise FileError(f"file '{source}': is a device or a pipe, expected a {what}")
    if not os.access(source, os.R_OK):
        raise FileError(f"file '{source}': cannot be read; check its permissions")
    with explain_unreadable(source):
        size = source.stat().st_size
    if size == 0:
        raise FileError(f"file '{source}': is empty, expected a {what}")
    return source


UNREADABLE = (BadZipFile, zlib.error, EOFError, OSError, KeyError, RuntimeError, MemoryError, ValueError, TypeError, SyntaxError,
              TokenError, OverflowError)  # fmt: skip
"""What numpy and zipfile raise on a damaged `.npz`: numpy reads the header of an array as Python."""


def read_arrays(path: str | os.PathLike[str], *, again: str = "write it with numpy.savez") -> dict[str, NDArray[Any]]:
    """Return the arrays of an `.npz`. Pickled objects are refused, and so is a header that claims more than the file holds.

    Args:
        path: the file.
        again: what to do about a file that cannot be read.

    Raises:
        FileError: missing, empty, truncated or foreign.
    """
    source = require_file(path, "file of arrays (.npz)")
    try:
        with ZipFile(source) as archive:
            need, free = sum(member.file_size for member in archive.infolist()), free_bytes()
            if 2 * need > free:
                raise FileError(
                    f"file '{source}': holds {byte_size(need)} of arrays and {byte_size(free)} of memory are free, less than "
                    "twice as much; use fewer samples"
                )
            for member in archive.infolist():
                if member.file_size > 1100 * max(member.compress_size, 1):
                    raise FileError(
                        f"file '{source}': '{member.filename}' claims {member.file_size} bytes, more than it can hold"
                    )
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(f"file '{source}': cannot be read as .npz of plain arrays ({reason}); {again}") from error
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]  # other members are bytes
    if foreign:
        raise FileError(f"file '{source}': '{foreign[0]}' is no array; {again}")
    return arrays
