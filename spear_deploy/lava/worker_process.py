"""Start, wait for and clean up the Lava worker process.

Lava can hang and leaves processes and shared memory behind when it fails. So it runs in a separate process and session, which
reads its program from files in a temporary folder and writes its results there. The worker's guard (`worker/guard.py`) ends it
when something in it fails, when time is up, or when this process is gone. This side waits, reads the cause, and cleans up:
processes of the worker's session that still run get a second to end and are then killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from spear_deploy.errors import BackendError
from spear_deploy.lava.program import Program
from spear_deploy.lava.worker.guard import EXIT_CODES, remove_shared_memory, signal_name
from spear_deploy.util.temporary_folder import open_temporary_folder

WORKER = Path(__file__).parent / "worker" / "main.py"
PYTHON_VARIABLE = "SPEAR_LAVA_PYTHON"

MAX_OS_PROCESSES = 120
MAX_PREDICTED_S = 1800.0
TIMEOUT_FACTOR = 20.0
"""Run time over the predicted one above which a run counts as hung; a busy or slow machine takes a multiple."""
MIN_TIMEOUT_S = 180.0
GRACE_S = 1.0
MAX_FOLDER_CHARACTERS = 40
"""Longest path of the temporary folder: the worker puts sockets below it, whose paths may have 107 characters."""

LOG_LINES = 40
HINTS = {
    "not done after": "; give it a longer timeout_s, or look for what hangs",
    "SIGKILL": "; the machine may be short of memory",
    "SIGBUS": "; /dev/shm may be full, enlarge it",
    "No module named 'lava'": f"; install lava-nc==0.10.0, or set {PYTHON_VARIABLE} to a Python that has it",
}
"""Advice by a part of the error message."""

Result = TypeVar("Result")


def run_program(program: Program, read: Callable[[Path], Result], *, timeout_s: float | None = None) -> Result:
    """Run a program in a guarded worker and return `read(folder)`, of the folder with its recordings.

    Args:
        program: what runs.
        read: reads the folder, which is removed afterwards.
        timeout_s: give up after so many seconds; by default a generous multiple of the predicted time.

    Raises:
        BackendError: `cause` is "refused" (before the start), "timeout", "exception" (in Lava or in a Lava process), "died" (a
            process was killed or exited) or "interrupted" (the worker got SIGTERM or SIGINT).
    """
    channel_size = _check_limits(program, timeout_s)
    limit_s = max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * program.seconds) if timeout_s is None else timeout_s
    parent = tempfile.gettempdir()
    parent = parent if len(parent) <= MAX_FOLDER_CHARACTERS else "/tmp"
    with open_temporary_folder("lava", Path(parent)) as folder:
        try:
            program.save(folder, channel_size)
        except OSError as error:
            raise BackendError(f"folder '{folder}': cannot be written ({error.strerror}); set TMPDIR", cause="refused") from error
        code = _run_worker(folder, limit_s)
        if code != 0 or not (folder / "done.json").exists():
            raise _read_failure(folder, code, limit_s)
        return read(folder)


def free_shared_memory() -> int:
    """Return the free bytes of /dev/shm, through which Lava's processes talk."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError as error:
        raise BackendError("Lava needs /dev/shm, which this system does not have; run it on Linux", cause="refused") from error
    return room.f_bavail * room.f_frsize


def _check_limits(program: Program, timeout_s: float | None) -> int:
    """Return the channel size with which a program may start.

    Raises:
        BackendError: too many processes, too much time, too little shared memory.
    """
    processes = max(run.os_processes for run in program.passes)
    if processes > MAX_OS_PROCESSES:
        raise BackendError(
            f"the network takes {processes} operating-system processes in Lava, {MAX_OS_PROCESSES} are allowed; "
            "simulate it without Lava",
            cause="refused",
        )
    limit_s = MAX_PREDICTED_S if timeout_s is None else timeout_s
    if program.seconds > limit_s:
        raise BackendError(
            f"Lava would take about {program.seconds:.0f} s, {limit_s:g} s are allowed; use fewer samples, a longer timeout_s, "
            "or simulate it without Lava",
            cause="refused",
        )
    free = free_shared_memory()
    size = program.channel_size(free)
    if size is None:
        need = max(run.shared_bytes(2) for run in program.passes)
        raise BackendError(
            f"Lava's channels need {2 * need >> 10} KiB of /dev/shm, {free >> 10} KiB are free; enlarge it (docker: --shm-size) "
            "or free some",
            cause="refused",
        )
    return size


# ------------------------------------------------------------------------------------------------------------- process


def _run_worker(folder: Path, limit_s: float) -> int:
    """Start the worker, wait for it, clean up, and return its exit code (negative: a signal)."""
    command = [os.environ.get(PYTHON_VARIABLE) or sys.executable, str(WORKER), str(folder), str(limit_s)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
    lifeline, write_end = os.pipe()  # the worker reads end of file when this process is gone
    worker: subprocess.Popen[bytes] | None = None
    try:
        with open(folder / "log.txt", "wb") as log:
            worker = subprocess.Popen(
                command, stdin=lifeline, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
            )
        try:
            return worker.wait(limit_s + GRACE_S)
        except subprocess.TimeoutExpired:  # the guard failed to end it
            return EXIT_CODES["timeout"]
    except OSError as error:
        message = f"Lava's interpreter '{command[0]}' does not start ({error.strerror}); set {PYTHON_VARIABLE} to another"
        raise BackendError(message, cause="refused") from error
    finally:
        os.close(write_end)
        os.close(lifeline)
        if worker is not None:
            _sweep(worker, folder.name)


def _sweep(worker: subprocess.Popen[bytes], run: str) -> None:
    """End everything in the worker's session, and remove the shared memory that carries the name of the run.

    Lava's processes die with the worker (`worker/guard.py`). The resource tracker of multiprocessing then ends by itself; on a
    busy machine it may be killed before it has removed shared memory, so that is done here once more.
    """
    if worker.poll() is None:
        worker.kill()
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE_S
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, number)
        while _has_live_processes(worker) and time.monotonic() < end:
            time.sleep(0.01)
    worker.wait()
    remove_shared_memory(run)


def _has_live_processes(worker: subprocess.Popen[bytes]) -> bool:
    """Say whether the worker's process group has members other than zombies."""
    worker.poll()
    try:
        os.killpg(worker.pid, 0)
    except ProcessLookupError:
        return False
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                state, _, group = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:  # ended meanwhile
                continue
            if int(group) == worker.pid and state not in "ZX":
                return True
    return False


def _read_failure(folder: Path, code: int, limit_s: float) -> BackendError:
    """Return the error of a worker that failed, from its files and its exit code."""
    try:
        failure: dict[str, Any] | None = json.loads((folder / "failure.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it ended before its guard could write
        failure = None
    log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if failure:
        cause, message = str(failure["cause"]), str(failure["message"])
    elif code == EXIT_CODES["timeout"]:
        cause, message = "timeout", f"not done after {limit_s:g} s"
    elif code < 0:
        cause = "interrupted" if -code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) else "died"
        message = f"the worker was killed by {signal_name(-code)}"
    else:
        cause, message = "exception", log[-1] if log else f"the worker ended with exit code {code}"
    hint = next((hint for word, hint in HINTS.items() if word in message), "")
    error = BackendError(f"Lava failed: {message}{hint}", cause=cause)
    details = str(failure["details"]) if failure else ""
    if details or log:
        error.__cause__ = RuntimeError(details or "\n".join(log[-LOG_LINES:]))
    return error
