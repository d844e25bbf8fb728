"""Process that reads HDF5 files within limits, seen from its parent.

The HDF5 library may hang or crash on a damaged file, so it reads in a process of its own. The process starts with the first file
and is kept for the next ones: a start costs what importing h5py and numpy costs, a file a few milliseconds. Arrays come back
through shared memory, so large ones are not copied. `child` is the program that runs there.
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
from spear_deploy.util.hdf5 import child

PACKAGES = ("numpy", "h5py")
OUT_OF_MEMORY = child.OUT_OF_MEMORY


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Answer of the reader process.

    Attributes:
        exit_status: 0, its exit status, or minus the signal that ended it.
        arrays: an open file without a name that holds the arrays.
        result: the tree, or what is wrong; empty where `exit_status` is not 0.
    """

    exit_status: int
    arrays: int
    result: dict[str, Any]


@dataclass
class _Reader:
    """The reader process and the socket to it."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


_lock = threading.Lock()
_readers: list[_Reader] = []  # none or one


def _forget_reader() -> None:
    """Make a fork start another reader: two processes with the same reader would take each other's answers."""
    global _lock
    _lock = threading.Lock()
    while _readers:
        _readers.pop().socket.close()


os.register_at_fork(after_in_child=_forget_reader)


def read_in_process(source: Path, limits: dict[str, int]) -> Reply:
    """Read a file in the reader process. The caller closes `arrays` of the reply.

    Raises:
        FileError: the process cannot be started, or does not answer twice.
        OSError: the file cannot be opened.
    """
    file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    arrays, tree = _open_unnamed_file(), _open_unnamed_file()
    try:
        exit_status = _send_request((file, arrays, tree), json.dumps(limits).encode() + b"\n")
        os.lseek(tree, 0, os.SEEK_SET)
        with open(tree, "rb", closefd=False) as stream:
            result = json.load(stream) if exit_status == 0 else {}
        return Reply(exit_status=exit_status, arrays=os.dup(arrays), result=result)
    finally:
        for descriptor in (file, arrays, tree):
            os.close(descriptor)


def start_ahead() -> None:
    """Start the reader process, which then imports h5py while this one goes on."""
    with _lock:
        _ensure_reader()


def _send_request(files: tuple[int, int, int], line: bytes) -> int:
    """Send the files and return the exit status of reading; a process that is gone is started once more."""
    with _lock:
        for _ in range(2):
            reader = _ensure_reader()
            try:
                socket.send_fds(reader.socket, [line], files)
                answer = b""
                while not answer.endswith(b"\n"):
                    part = reader.socket.recv(64)
                    if not part:
                        raise ConnectionError
                    answer += part
                return int(answer)
            except (ConnectionError, BrokenPipeError):
                _stop(reader)
            except BaseException:  # a late answer would be taken for that of the next file
                _stop(reader)
                raise
    raise FileError("the process that reads HDF5 does not answer; check that h5py can be imported")


def _ensure_reader() -> _Reader:
    """Return the reader process, started if there is none."""
    if not _readers:
        folders = dict.fromkeys(_find_site_folder(package) for package in PACKAGES)
        ours, theirs = socket.socketpair()
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
        _readers.append(_Reader(process, ours))
        atexit.register(stop)
    return _readers[0]


def stop() -> None:
    """End the reader process."""
    with _lock:
        if _readers:
            _stop(_readers[0])


def _stop(reader: _Reader) -> None:
    reader.socket.close()
    with suppress(ProcessLookupError):
        os.killpg(reader.process.pid, signal.SIGKILL)  # it leads a session: its copies go too
    reader.process.wait()
    _readers.clear()
    atexit.unregister(stop)


def _find_site_folder(package: str) -> str:
    """Return the folder that a package is installed in."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileError(f"package '{package}' is missing; install it")
    return str(Path(next(iter(spec.submodule_search_locations))).parent)


def _open_unnamed_file() -> int:
    """Return an open file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hdf5", os.MFD_CLOEXEC)
    handle, name = tempfile.mkstemp()
    os.unlink(name)
    return handle
