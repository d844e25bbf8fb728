"""Unexpected exceptions, signals and streams of the command line, in sentences.

Every error that a user can act on is a `SpearError`. Any other exception is a fault of this program: it ends in one sentence that
names the place in the code, and in a line by which it can be reported. It never passes for a success.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from spear_deploy.util.extras import describe_missing
from spear_deploy.util.memory import is_out_of_memory
from spear_deploy.util.printable import escape_hidden

FAULT = "fault in spear-deploy"
"""First words of the sentence about an unexpected exception; tests look for them."""
STOPPING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Signals that end a command, with their exit codes (128 + number)."""
GRACE_S = 3.0
"""Seconds in which a command ends after a signal, before it is stopped again."""
SOON_S = 0.05
"""Seconds after which a KeyboardInterrupt that a callback of a library has lost is raised again."""
COMPLETING = ("prune",)
"""Commands that complete the best result so far after the first Ctrl-C."""
STILL_AT_WORK = "stopping: the best result so far is completed first; Ctrl-C again ends without it"
PLACES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.EDQUOT)
"""Errors of the system about the name or the place of a file, which the user can mend."""
LOADER_OUT_OF_MEMORY = re.compile("failed to map segment|annot map zero-fill pages|annot allocate memory")
"""What the system's loader says where a library finds no room in memory."""
PACKAGE = Path(__file__).resolve().parents[1]


@contextmanager
def stop_on_signals(read_command: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on Ctrl-C, SIGTERM and SIGHUP; where signals are ignored (nohup) they stay so.

    The commands of `COMPLETING` catch the first one, and complete the best result so far. Where that takes longer than `GRACE_S`,
    stderr says so after Ctrl-C. In all others, after the other signals, which a kill follows, and after another Ctrl-C the
    exception is raised again until the block ends.

    Args:
        read_command: returns the name of the command that runs.
    """
    before: dict[int, Any] = {}
    owner = os.getpid()

    def stop(number: int, _: Any) -> None:
        received.append(number)
        if os.getpid() == owner:  # a forked process has the handlers, too
            signal.setitimer(signal.ITIMER_REAL, GRACE_S, GRACE_S)
        raise KeyboardInterrupt

    def stop_again(_: int, __: Any) -> None:
        is_completing = not lost and received == [signal.SIGINT] and read_command() in COMPLETING
        lost.clear()
        if is_completing:
            signal.setitimer(signal.ITIMER_REAL, 0)
            with suppress(OSError):  # not by sys.stderr, in whose own code the signal may have come
                os.write(2, f"{chr(10) * os.isatty(2)}{STILL_AT_WORK}\n".encode())
        else:
            raise KeyboardInterrupt

    received.clear()
    try:
        for number in STOPPING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
        if before:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop_again)
    except ValueError:  # not in the main thread: the caller's own handlers hold
        pass
    try:
        with _raise_lost_again():
            yield
    finally:
        if before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for stopping, handler in before.items():
            signal.signal(stopping, handler)


@contextmanager
def _raise_lost_again() -> Iterator[None]:
    """Raise a KeyboardInterrupt of a signal again, at once, that a callback has lost.

    C code cannot pass on an exception within a callback, e.g. LLVM when it tells numba that a function is compiled, or Python
    when a weak reference ends; it goes to `sys.unraisablehook`. What a library raises meanwhile, as numba does without its
    compiled function, is the interruption too.
    """
    owner, report = os.getpid(), sys.unraisablehook

    def raise_soon(unraisable: Any) -> None:
        if not received or not issubclass(unraisable.exc_type, KeyboardInterrupt) or os.getpid() != owner:
            report(unraisable)
            return
        lost.append(received[-1])
        signal.setitimer(signal.ITIMER_REAL, SOON_S, GRACE_S)

    lost.clear()
    sys.unraisablehook = raise_soon
    try:
        yield
    except Exception as error:
        if lost:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = report


received: list[int] = []
"""Signals that arrived, in order."""
lost: list[int] = []
"""Those whose KeyboardInterrupt was lost in a callback, and not raised again yet."""


def exit_code_of_stop() -> int:
    """Return 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return STOPPING[signal.Signals(received[-1] if received else signal.SIGINT)]


def ignore_ctrl_c() -> None:
    """Let a process that was stopped end: another Ctrl-C would show tracebacks of libraries that clean up."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_streams_safe() -> None:
    """Let stdout and stderr escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def describe(error: Exception) -> str:
    """Return the sentence about an exception that is no `SpearError`."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None and not error.name.startswith("spear_deploy"):
        module = error.name.partition(".")[0]
        return f"this needs the {describe_missing(module)}"
    if _is_out_of_memory(error):
        return f"memory is full ({_place(error)}); use fewer samples or steps, a smaller network, or a machine with more memory"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        what = f"file '{error.filename}'" if error.filename else "output"
        return f"{what} cannot be written (the disk is full); free some space, and run the command again"
    if isinstance(error, OSError) and error.errno in PLACES:
        what = f"file '{_cut(str(error.filename))}'" if error.filename else "a file"
        return f"{what} cannot be opened ({os.strerror(error.errno or 0).lower()}); check its name and place"
    text = " ".join(str(error).split())[:300]
    detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{FAULT}: {detail} at {_place(error)}; it is no fault of yours, please report it with the next line"


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory is full; where it is too small for the libraries, an import fails with the loader's words."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    return is_out_of_memory(error) or any(
        isinstance(part, ImportError) and LOADER_OUT_OF_MEMORY.search(str(part)) for part in causes
    )


def is_import_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was full while a module was imported."""
    frames = traceback.extract_tb(error.__traceback__)
    return _is_out_of_memory(error) and any(frame.name == "<module>" for frame in frames[1:])


def leave_at_once(code: int) -> NoReturn:
    """End the process without Python's own end: a library that is loaded in part may crash there, and hide the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _cut(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def report_line(error: Exception) -> str:
    """Return the facts by which a fault is found again: versions, place and exception, without names of files."""
    try:
        version = metadata.version("spear-deploy")
    except metadata.PackageNotFoundError:
        version = "?"
    return (
        f"report: spear-deploy {version}, python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{type(error).__name__} at {_place(error)}; spear-deploy --debug shows the traceback"
    )


def _place(error: BaseException) -> str:
    """Return the last line of this package in a traceback, e.g. `quantize/fold.py:53 in fold_batchnorm`."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    frame = ours[-1] if ours else frames[-1] if frames else None
    if frame is None:
        return "an unknown place"
    name = Path(frame.filename)
    short = name.relative_to(PACKAGE).as_posix() if ours else name.name
    return escape_hidden(f"{short}:{frame.lineno} in {frame.name}")
