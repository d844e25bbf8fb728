"""How does a Lava run end, whatever happens in it?

Lava itself waits for ever when one of its processes dies. A thread looks ten times a second at the deadline, at the caller
and at Lava's processes; if one is gone, it writes `failure.json`, kills what Lava started and ends this process. The resource
tracker of multiprocessing is left alone: when all others are gone it removes their shared memory, and ends too. Segments and
semaphores carry the name of the run's folder, so that the caller can remove what the tracker had no time for.
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

LOOK_EVERY_S = 0.1
PATIENCE_S = 0.5
"""When one process fails, Lava tells others to end in good order, and they may be faster: so long we wait for the culprit."""
EXIT_CODES = {"exception": 70, "died": 71, "interrupted": 72, "timeout": 75, "orphaned": 76}
SHARED_MEMORY = Path("/dev/shm")
RANDOM_BYTES = 8
INTERRUPTIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
EXIT_CODE = "exit_code_at_close"
"""Where a process that was joined and closed keeps what `exitcode` no longer tells."""


class Guard:
    """Watches one worker process.

    Args:
        folder: where `failure.json` goes, and what shared memory is named after; removed when the caller is gone.
        timeout_s: from now on.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self.folder = folder
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.parent = os.getppid()
        self.running: Any = None
        """The Lava process whose runtime is up, or None while nothing of Lava's may be judged."""
        self.in_order_since = time.monotonic()
        self.looking = threading.Lock()
        self._dying = threading.Lock()

    def start(self) -> None:
        """Start to watch; children forked from now on die with this process, however it dies."""
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
            signal.signal(number, self._interrupted)
        name_memory(self.folder.name)
        _remember_exit_codes()
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    def watch(self, network: Any) -> None:
        """Judge the Lava processes of `network` from now on, or none (None): they may then end."""
        with self.looking:
            self.running = network

    def die(self, cause: str, message: str, details: str = "") -> NoReturn:
        """Say why, kill what Lava started, end. The first caller decides the cause."""
        if not self._dying.acquire(blocking=False):
            time.sleep(3600)  # another thread is ending this process
        try:
            if cause == "orphaned":
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                aside = self.folder / "failure.aside"
                aside.write_text(json.dumps({"cause": cause, "message": message, "details": details}), encoding="utf-8")
                aside.rename(self.folder / "failure.json")
        except OSError:
            pass  # nobody is left to read it
        finally:
            try:
                _kill_children()
            finally:
                os._exit(EXIT_CODES[cause])

    def die_of(self, error: BaseException) -> NoReturn:
        """End because Python code in this process, or in one of Lava's, raised."""
        with self.looking:
            ended = self._ended()
        self._die_of_ended(ended)
        self.die("exception", f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def _die_of_ended(self, ended: list[tuple[str, int, str]]) -> None:
        """End if one of Lava's processes left a traceback, else if one ended with an exit code or a signal."""
        for name, _, trace in ended:
            if trace:
                self.die("exception", f"{name}: {trace.strip().splitlines()[-1]}", trace)
        for name, code, _ in ended:
            if code:
                how = f"killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
                self.die("died", f"{name}: {how}")

    def _interrupted(self, number: int, _: Any) -> None:
        if not self._dying.locked():  # else this thread may be the one that is ending the process
            self.die("interrupted", f"the worker got {signal.Signals(number).name}")

    def _watch(self) -> None:
        try:
            while True:
                time.sleep(LOOK_EVERY_S)
                self._look()
        except BaseException as error:
            self.die("exception", f"the guard failed: {type(error).__name__}: {error}", traceback.format_exc())

    def _look(self) -> None:
        if os.getppid() != self.parent or _at_end(sys.stdin):
            self.die("orphaned", "the caller is gone")
        if time.monotonic() > self.deadline:
            self.die("timeout", f"not done after {self.timeout_s:g} s")
        with self.looking:
            ended = self._ended()
        self._die_of_ended(ended)
        if not ended:
            self.in_order_since = time.monotonic()
        elif time.monotonic() - self.in_order_since > PATIENCE_S:
            self.die("died", f"{ended[0][0]}: ended with exit code 0")

    def _ended(self) -> list[tuple[str, int, str]]:
        """Return Lava's processes that ended though they should run: name, exit code, traceback."""
        runtime: Any = getattr(self.running, "runtime", None)
        infrastructure = getattr(runtime, "_messaging_infrastructure", None)
        if infrastructure is None:
            return []
        names = [process.name for process in runtime._executable.proc_builders]
        actors = list(infrastructure.actors)
        names += ["runtime service"] * (len(actors) - len(names))
        looked = [(name, *_ending(actor)) for name, actor in zip(names, actors, strict=False)]  # some may yet be started
        looked.append(("shared-memory manager", *_ending(_manager(infrastructure))))
        return [(name, code, trace) for name, code, trace in looked if code is not None]


def name_memory(run: str) -> None:
    """Let the segments and semaphores that this process and its children make from now on be named `run-...`.

    multiprocessing has no public setting for either; a segment's name needs at least two random bytes behind the prefix.
    """
    segments: Any = shared_memory
    segments._SHM_NAME_PREFIX = f"/{run}-"
    segments._SHM_SAFE_NAME_LENGTH = len(segments._SHM_NAME_PREFIX) + 2 * RANDOM_BYTES
    current: Any = multiprocessing.current_process()
    current._config["semprefix"] = f"/{run}"  # multiprocessing adds the hyphen


def remove_memory(run: str) -> None:
    """Remove the segments and semaphores of a run whose processes are gone."""
    for pattern in (f"{run}-*", f"sem.{run}-*"):
        for left in SHARED_MEMORY.glob(pattern):
            left.unlink(missing_ok=True)


def _manager(infrastructure: Any) -> Any:
    """Return the process that owns Lava's shared memory, or None while there is none."""
    return getattr(getattr(infrastructure.smm, "_manager", None), "_process", None)


def _ending(actor: Any) -> tuple[int | None, str]:
    """Return exit code and traceback of a process of Lava's; None while it lives or after it was joined in good order."""
    try:
        if getattr(actor, "_is_done", False):  # joined: Lava has read what it had to say, if anything
            return (getattr(actor, EXIT_CODE, None) or None, "") if actor._exception is None else (0, actor._exception[1])
        code = getattr(actor, "exitcode", None)
        if code is not None and hasattr(actor, "_pconn") and actor._pconn.poll(0):
            sent = actor._pconn.recv()
            return code, sent[1] if sent else ""
        return code, ""
    except (OSError, EOFError, ValueError):  # closed between the looks
        return None, ""
    except Exception as error:  # an exception whose class cannot be unpickled here
        return 1, f"{type(error).__name__}: {error}"


def _remember_exit_codes() -> None:
    """Let processes keep their exit code when they are closed: Lava closes all of them before it says that one failed."""
    process: Any = BaseProcess
    close = process.close

    def close_and_keep(self: Any) -> None:
        setattr(self, EXIT_CODE, self.exitcode)
        close(self)

    process.close = close_and_keep


def _at_end(stream: Any) -> bool:
    """Say whether the pipe from the caller is closed: the kernel closes it when the caller ends."""
    try:
        ready, _, _ = select.select([stream], [], [], 0)
        return bool(ready) and not os.read(stream.fileno(), 1)
    except (OSError, ValueError):
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _kill_children() -> None:
    """Kill and reap what Lava started, as far as it goes: what is missed here, the kernel kills with this process."""
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


# FOLDED from spear_deploy/lava/worker/guard.py
# What does lava-nc 0.10.0 need on Pythons newer than itself?
#
# One thing, on Python 3.11 and later: `lava/magma/compiler/var_model.py` has dataclass fields whose default is an instance of
# the dataclass `ByteEncoder`. Since 3.11 `dataclasses` takes an unhashable default for a mutable one and refuses it. Lava is
# archived, so we give that one class a hash while that one module is imported, and change nothing else.
#
# numpy 2.4 and later would need more (`np.reshape(newshape=...)` is gone); the package bounds numpy instead.

MODULE = "lava.magma.compiler.var_model"


def prepare() -> None:
    """Make lava importable. Call it before the first import of lava; calling it again does nothing."""
    if sys.version_info < (3, 11) or MODULE in sys.modules:
        return
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        if cls.__module__ == MODULE and cls.__name__ == "ByteEncoder":
            options["unsafe_hash"] = True
        return original(cls, **options)

    dataclasses.dataclass = dataclass
    try:
        importlib.import_module(MODULE)
    finally:
        dataclasses.dataclass = original
