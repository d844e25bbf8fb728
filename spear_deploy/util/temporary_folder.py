"""Temporary folders; those of killed runs are removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spear_deploy.errors import FileError

NAME = re.compile(r"spear-[a-z]+-(\d+)-\w+")
"""Names of the folders: what for, the number of the process, and random characters."""


@contextlib.contextmanager
def open_temporary_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a folder of this process, removed behind the block; folders that killed runs have left are removed before.

    Args:
        purpose: a word of lower-case letters, part of the name.
        parent: where it is made; the system's folder for temporary files unless given.

    Raises:
        FileError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            parent = Path(tempfile.gettempdir()) if parent is None else parent
            remove_leftovers(parent)
            prefix = f"spear-{purpose}-{os.getpid()}-"
            made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
            folder = stack.enter_context(hold(Path(stack.enter_context(made))))
        except OSError as error:
            raise make_file_error("no folder can be made", error, parent) from error
        yield folder


def make_file_error(what: str, error: OSError, parent: Path | None = None) -> FileError:
    """Return the error to raise where the folder for temporary files takes nothing.

    Args:
        what: what cannot be done there.
        error: that of the system.
        parent: the folder; the system's unless given.
    """
    place = tempfile.tempdir if parent is None else parent  # None where the system has no such folder that can be written
    where = "folder for temporary files" if place is None else f"folder for temporary files '{place}'"
    return FileError(f"{where}: {what} ({error.strerror or error}); free some space there, or set TMPDIR to another folder")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Path]:
    """Hold a lock on a folder, which the system releases when this process ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the number of the process must do
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        os.close(handle)


def remove_leftovers(parent: Path) -> list[Path]:
    """Remove the folders of killed runs: this user's, of a process that is gone, and with a lock that nobody holds."""
    removed = []
    for folder in parent.glob("spear-*"):
        match = NAME.fullmatch(folder.name)
        with contextlib.suppress(OSError):  # gone meanwhile, or held
            if match is None or folder.is_symlink() or folder.stat().st_uid != os.getuid() or _is_alive(int(match[1])):
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
            finally:
                os.close(handle)
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
