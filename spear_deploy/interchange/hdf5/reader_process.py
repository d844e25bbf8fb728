"""How is a file read on which the library that reads it may hang or die?

In another process with limits, which is started at the first file and kept for the next ones: a start costs what importing
h5py and numpy costs, a file a few milliseconds. Arrays come back through memory that both share, so large ones are not
copied. `hdf5_child` is what runs there.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spear_deploy.errors import FileError
from spear_deploy.interchange.hdf5 import child

PACKAGES = ("numpy", "h5py")
OUT_OF_MEMORY = child.OUT_OF_MEMORY


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the other process said.

    Attributes:
        ended: 0, its exit status, or minus the signal that ended it.
        arrays: an open file without a name that holds the arrays.
        found: the tree, or what is wrong; empty where `ended` is not 0.
    """

    ended: int
    arrays: int
    found: dict[str, Any]


@dataclass
class _Helper:
    """The other process, and the way to it."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


_lock = threading.Lock()
_helpers: list[_Helper] = []  # none or one


def _forget() -> None:
    """Let a fork start a process of its own: two that ask the same one would take each other's answers."""
    global _lock
    _lock = threading.Lock()
    while _helpers:
        _helpers.pop().socket.close()


os.register_at_fork(after_in_child=_forget)


def ask(source: Path, limits: dict[str, int]) -> Reply:
    """Have a file read. Close `arrays` of the reply.

    Raises:
        FileError: the other process cannot be started, or does not answer twice.
        OSError: the file cannot be opened.
    """
    file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    arrays, tree = _nameless(), _nameless()
    try:
        ended = _ask((file, arrays, tree), json.dumps(limits).encode() + b"\n")
        size = os.fstat(tree).st_size
        found = json.loads(_whole(tree, size)) if ended == 0 else {}
        return Reply(ended=ended, arrays=os.dup(arrays), found=found)
    finally:
        for opened in (file, arrays, tree):
            os.close(opened)


def start_ahead() -> None:
    """Start the other process, which then gets ready while this one does something else."""
    with _lock:
        _running()


def _ask(files: tuple[int, int, int], line: bytes) -> int:
    """Send the files and return how reading ended; a process that is gone is started once more."""
    with _lock:
        for _ in range(2):
            helper = _running()
            try:
                socket.send_fds(helper.socket, [line], files)
                answer = b""
                while not answer.endswith(b"\n"):
                    part = helper.socket.recv(64)
                    if not part:
                        raise ConnectionError
                    answer += part
                return int(answer)
            except (ConnectionError, BrokenPipeError):
                _stop(helper)
            except BaseException:  # an answer that nobody waits for would be taken for the next one
                _stop(helper)
                raise
    raise FileError("the process that reads HDF5 does not answer; check that h5py can be imported")


def _running() -> _Helper:
    """Return the other process, started if there is none."""
    if not _helpers:
        ours, theirs = socket.socketpair()
        folders = dict.fromkeys(_folder(package) for package in PACKAGES)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", child.__file__, str(theirs.fileno()), *folders],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise FileError(f"the process that reads HDF5 cannot be started ({error.strerror}); check the limits") from error
        finally:
            theirs.close()
        _helpers.append(_Helper(process, ours))
        atexit.register(stop)
    return _helpers[0]


def stop() -> None:
    """End the other process."""
    with _lock:
        if _helpers:
            _stop(_helpers[0])


def _stop(helper: _Helper) -> None:
    helper.socket.close()
    with suppress(ProcessLookupError):
        os.killpg(helper.process.pid, signal.SIGKILL)  # it leads a session: its copies go too
    helper.process.wait()
    _helpers.clear()
    atexit.unregister(stop)


def _folder(package: str) -> str:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileError(f"package '{package}' is missing; install it")
    return str(Path(next(iter(found.submodule_search_locations))).parent)


def _nameless() -> int:
    """Return an open file without a name, in memory where there is such a thing."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hdf5", os.MFD_CLOEXEC)
    handle, name = tempfile.mkstemp()
    os.unlink(name)
    return handle


def _whole(file: int, size: int) -> bytes:
    parts, at = [], 0
    while at < size:
        parts.append(os.pread(file, size - at, at))
        at += len(parts[-1])
    return b"".join(parts)
