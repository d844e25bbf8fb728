"""Ctrl-C held back while a library cannot be interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def hold_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends; for a few seconds of work at most.

    An import that is interrupted may leave a library that cannot be imported again. LLVM loses the KeyboardInterrupt in its
    callbacks, and numba raises a RuntimeError in its place. Signals reach the main thread alone: in others nothing is done.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            before(*received[0])
