"""Lock of an output folder, and removal of leftovers.

Two runs that write into one folder would mix their files. So a run holds a lock on the file `.spear-lock` in its folder, with its
process and command inside. The system releases the lock when the process ends, however it ends; the file is removed at the end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spear_deploy.errors import FileError
from spear_deploy.util.files import ASIDE, advise_place, require_name
from spear_deploy.util.printable import escape_hidden
from spear_deploy.util.temporary_folder import remove_leftovers

LOCK = ".spear-lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems that have no locks; the folder is then used without one."""


@contextmanager
def own_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Hold an output folder: make it if it is missing, sweep it, and keep other runs out until the block ends.

    Temporary folders of killed runs go as well: a run that takes all that those had finished makes none of its own.

    Raises:
        FileError: another run holds it, it cannot be written, or no file can have its name.
    """
    place = Path(folder)
    if not os.fspath(folder):
        raise FileError("folder '': an output folder has a name; give one, or '.' for the current folder")
    require_name(place)
    made = [parent for parent in (place, *place.parents) if not parent.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = _lock(place)
    except OSError as error:
        _remove_empty(made)
        raise FileError(f"folder '{place}': cannot be written ({error.strerror}); {advise_place(error)}") from error
    try:
        sweep(place)
        with suppress(OSError):  # no folder for temporary files
            remove_leftovers(Path(tempfile.gettempdir()))
        yield place
    finally:
        with suppress(OSError):
            (place / LOCK).unlink()
        os.close(handle)
        _remove_empty(made)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the innermost first, up to the first in which something was written."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def require_kept(folder: str | os.PathLike[str], results: Iterable[str], *inputs: object) -> None:
    """Refuse an input that a run would replace by its own result: it would be gone, and the run could not be repeated.

    Args:
        folder: where the run writes.
        results: names of its files, relative to the folder.
        inputs: paths among the arguments of the run; what is no name of a file is passed over.

    Raises:
        FileError: names the input.
    """
    given = [path for path in inputs if isinstance(path, str | os.PathLike) and os.path.isfile(path)]
    for name in results if given else ():
        result = os.path.join(folder, name)
        for path in given:
            if os.path.isfile(result) and os.path.samefile(path, result):
                where = f"the result '{name}' in folder '{os.fspath(folder)}'"
                raise FileError(f"file '{os.fspath(path)}': is read, and {where} would replace it; choose another folder")


def _lock(place: Path) -> int:
    """Return the open file of the lock."""
    while True:
        handle = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(handle)
            os.close(handle)
            raise FileError(
                f"folder '{place}': {holder} is writing there; wait until it ends, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                raise
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == (place / LOCK).stat().st_ino:
                try:
                    _write_holder(handle)
                except OSError:  # a full disk: this process would hold the lock until it ends
                    (place / LOCK).unlink()
                    os.close(handle)
                    raise
                return handle
        os.close(handle)  # its holder removed the file meanwhile: take the new one


def _write_holder(handle: int) -> None:
    """Write this process into the file of a lock."""
    facts = {"pid": os.getpid(), "command": " ".join(sys.argv)[:500]}
    os.truncate(handle, 0)
    os.pwrite(handle, json.dumps(facts).encode(), 0)


def _read_holder(handle: int) -> str:
    """Return the holder of a lock in words."""
    try:
        facts = json.loads(os.pread(handle, 1 << 16, 0))
        return escape_hidden(f"process {int(facts['pid'])} ({facts['command']})")
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another run"


def sweep(place: Path) -> list[Path]:
    """Remove the temporary files of runs that were killed, in a folder that this run holds and in its folders; return them."""
    left = [path for pattern in (f"{ASIDE}*", f"*/{ASIDE}*") for path in place.glob(pattern) if path.is_file()]
    for path in left:
        with suppress(OSError):
            path.unlink()
    return left
