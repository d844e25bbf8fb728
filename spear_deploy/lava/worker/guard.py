"""Guard of the worker process: ends it at every failure.

Lava waits for ever when one of its processes dies. A thread checks the deadline, the caller and Lava's processes ten times a
second; if one is gone, it writes `failure.json`, kills Lava's processes and ends this process. The resource tracker of
multiprocessing is not killed: when all others are gone it removes their shared memory, and ends too. Segments and semaphores
have the name of the run's folder, so that the caller can remove those that the tracker did not.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import json
import multiprocessing
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from multiprocessing import shared_memory
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

CHECK_INTERVAL_S = 0.1
FAILURE_WAIT_S = 0.5
"""When one process fails, Lava ends others with exit code 0, maybe before it: the wait for the one that failed."""
EXIT_CODES = {"exception": 70, "died": 71, "interrupted": 72, "timeout": 75, "orphaned": 76}
SHARED_MEMORY = Path("/dev/shm")
RANDOM_BYTES = 8
INTERRUPTIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
EXIT_CODE = "exit_code_at_close"
"""Attribute with the exit code of a process that was joined and closed, where `exitcode` raises."""
PATCHED_MODULE = "lava.magma.compiler.var_model"


class Guard:
    """Ends one worker process when something in it fails, when time is up, or when its caller is gone.

    Args:
        folder: of `failure.json`; shared memory has its name. It is removed when the caller is gone.
        timeout_s: time limit from now on.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self.folder = folder
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.parent = os.getppid()
        self.running: Any = None
        """The Lava process whose runtime is up, or None while Lava's processes may end."""
        self.last_complete = time.monotonic()
        self.checking = threading.Lock()
        self._exiting = threading.Lock()

    def start(self) -> None:
        """Start the thread; children forked from now on are killed with this process, however it ends."""
        self_pid = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)

        def follow() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self_pid:
                os._exit(EXIT_CODES["orphaned"])
            for number in INTERRUPTIONS:
                signal.signal(number, signal.SIG_DFL)

        os.register_at_fork(after_in_child=follow)
        for number in INTERRUPTIONS:
            signal.signal(number, self._handle_signal)
        name_shared_memory(self.folder.name)
        _remember_exit_codes()
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    def watch(self, network: Any) -> None:
        """Watch the Lava processes of `network` from now on; None: they may end."""
        with self.checking:
            self.running = network

    def exit_with(self, cause: str, message: str, details: str = "") -> NoReturn:
        """Write the cause, kill Lava's processes, end this process. The first caller decides the cause."""
        if not self._exiting.acquire(blocking=False):
            time.sleep(3600)  # another thread is ending this process
        try:
            if cause == "orphaned":
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                aside = self.folder / "failure.aside"
                aside.write_text(json.dumps({"cause": cause, "message": message, "details": details}), encoding="utf-8")
                aside.rename(self.folder / "failure.json")
        except OSError:
            pass  # the folder is gone: there is no caller to read it
        finally:
            try:
                _kill_children()
            finally:
                os._exit(EXIT_CODES[cause])

    def exit_with_error(self, error: BaseException) -> NoReturn:
        """End this process since Python code in it, or in one of Lava's processes, raised."""
        with self.checking:
            ended = self._find_exits()
        self._exit_on_failure(ended)
        self.exit_with("exception", f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def _exit_on_failure(self, ended: list[tuple[str, int, str]]) -> None:
        """End this process if one of Lava's has a traceback, else if one ended with an exit code or a signal."""
        for name, _, trace in ended:
            if trace:
                self.exit_with("exception", f"{name}: {trace.strip().splitlines()[-1]}", trace)
        for name, code, _ in ended:
            if code:
                how = f"killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
                self.exit_with("died", f"{name}: {how}")

    def _handle_signal(self, number: int, _: Any) -> None:
        if not self._exiting.locked():  # this thread may be the one that ends the process
            self.exit_with("interrupted", f"the worker got {signal.Signals(number).name}")

    def _watch(self) -> None:
        try:
            while True:
                time.sleep(CHECK_INTERVAL_S)
                self._check()
        except BaseException as error:
            self.exit_with("exception", f"the guard failed: {type(error).__name__}: {error}", traceback.format_exc())

    def _check(self) -> None:
        if os.getppid() != self.parent or _is_closed(sys.stdin):
            self.exit_with("orphaned", "the caller is gone")
        if time.monotonic() > self.deadline:
            self.exit_with("timeout", f"not done after {self.timeout_s:g} s")
        with self.checking:
            ended = self._find_exits()
        self._exit_on_failure(ended)
        if not ended:
            self.last_complete = time.monotonic()
        elif time.monotonic() - self.last_complete > FAILURE_WAIT_S:
            self.exit_with("died", f"{ended[0][0]}: ended with exit code 0")

    def _find_exits(self) -> list[tuple[str, int, str]]:
        """Return Lava's processes that ended while they should run: name, exit code, traceback."""
        runtime: Any = getattr(self.running, "runtime", None)
        infrastructure = getattr(runtime, "_messaging_infrastructure", None)
        if infrastructure is None:
            return []
        names = [process.name for process in runtime._executable.proc_builders]
        actors = list(infrastructure.actors)
        names += ["runtime service"] * (len(actors) - len(names))
        exits = [(name, *_read_exit(actor)) for name, actor in zip(names, actors, strict=False)]  # some may start later
        manager = getattr(getattr(infrastructure.smm, "_manager", None), "_process", None)  # owns Lava's shared memory
        exits.append(("shared-memory manager", *_read_exit(manager)))
        return [(name, code, trace) for name, code, trace in exits if code is not None]


def name_shared_memory(run: str) -> None:
    """Name the segments and semaphores that this process and its children make from now on `run-...`.

    multiprocessing has no public setting for either; a segment's name needs at least two random bytes behind the prefix.
    """
    segments: Any = shared_memory
    segments._SHM_NAME_PREFIX = f"/{run}-"
    segments._SHM_SAFE_NAME_LENGTH = len(segments._SHM_NAME_PREFIX) + 2 * RANDOM_BYTES
    current: Any = multiprocessing.current_process()
    current._config["semprefix"] = f"/{run}"  # multiprocessing adds the hyphen


def remove_shared_memory(run: str) -> None:
    """Remove the segments and semaphores of a run whose processes are gone."""
    for pattern in (f"{run}-*", f"sem.{run}-*"):
        for path in SHARED_MEMORY.glob(pattern):
            path.unlink(missing_ok=True)


def _read_exit(actor: Any) -> tuple[int | None, str]:
    """Return exit code and traceback of one of Lava's processes; None while it runs or after it was joined without failure."""
    try:
        if getattr(actor, "_is_done", False):  # joined: Lava has read its message
            return (getattr(actor, EXIT_CODE, None) or None, "") if actor._exception is None else (0, actor._exception[1])
        code = getattr(actor, "exitcode", None)
        if code is not None and hasattr(actor, "_pconn") and actor._pconn.poll(0):
            message = actor._pconn.recv()
            return code, message[1] if message else ""
        return code, ""
    except (OSError, EOFError, ValueError):  # closed meanwhile
        return None, ""
    except Exception as error:  # an exception whose class cannot be unpickled here
        return 1, f"{type(error).__name__}: {error}"


def _remember_exit_codes() -> None:
    """Let processes keep their exit code when they are closed: Lava closes all of them before it reports a failure."""
    process: Any = BaseProcess
    close = process.close

    def close_and_keep(self: Any) -> None:
        setattr(self, EXIT_CODE, self.exitcode)
        close(self)

    process.close = close_and_keep


def _is_closed(stream: Any) -> bool:
    """Say whether the pipe from the caller is closed: the kernel closes it when the caller ends."""
    try:
        ready, _, _ = select.select([stream], [], [], 0)
        return bool(ready) and not os.read(stream.fileno(), 1)
    except (OSError, ValueError):
        return True


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9; some numbers have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _kill_children() -> None:
    """Kill and reap Lava's processes where possible; the kernel kills the others with this process."""
    try:
        children = multiprocessing.active_children()
    except Exception:  # another thread is joining them
        return
    for child in children:
        try:
            child.kill()
        except (OSError, ValueError):
            pass
    end = time.monotonic() + 0.5
    for child in children:
        try:
            while os.waitpid(child.pid or 0, os.WNOHANG) == (0, 0) and time.monotonic() < end:
                time.sleep(0.005)
        except OSError:  # reaped already
            pass


# --------------------------------------------------------------------------------------------------------------- Python


def make_lava_importable() -> None:
    """Make lava-nc 0.10.0 importable on Python 3.11 and later. Call it before the first import of lava; again, it does nothing.

    `lava/magma/compiler/var_model.py` has dataclass fields whose default is an instance of the dataclass `ByteEncoder`. Since
    3.11 `dataclasses` takes an unhashable default for a mutable one and refuses it. Lava is archived, so that one class gets a
    hash while that one module is imported, and nothing else changes. numpy 2.4 and later would need more
    (`np.reshape(newshape=...)` is gone); the package bounds numpy instead.
    """
    if sys.version_info < (3, 11) or PATCHED_MODULE in sys.modules:
        return
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        if cls.__module__ == PATCHED_MODULE and cls.__name__ == "ByteEncoder":
            options["unsafe_hash"] = True
        return original(cls, **options)

    dataclasses.dataclass = dataclass
    try:
        importlib.import_module(PATCHED_MODULE)
    finally:
        dataclasses.dataclass = original
