"""Jobs of the tests of workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import BudgetError, DataError


def multiply(shared: Any, item: int) -> Any:
    """Return a product that one thread adds up."""
    time.sleep(0.01 * (item % 3))  # jobs end in another order than they begin
    return (shared * np.float32(item)).sum()


def stop(_: Any, item: int) -> int:
    """Fail with an error that carries a value, the later item first."""
    if item == 2:
        time.sleep(0.3)
        raise BudgetError("budget 2 is too low", min_value=2.5)
    if item == 3:
        raise DataError("job 3 fails first")
    return item


def kill_once(folder: str, item: int) -> int:
    """Kill the process that runs item 1, the first time."""
    mark = Path(folder) / "killed"
    if item == 1 and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def kill_always(_: Any, item: int) -> int:
    """Kill the process that runs item 1, each time."""
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def fill_memory(_: Any, item: int) -> int:
    """Ask for more memory than there is."""
    return len(bytearray(1 << 60)) if item else 0


def report_process(_: Any, item: int) -> tuple[int, str, int]:
    """Return the process, its number of threads, and whether torch or BLAS was told otherwise."""
    print(f"item {item} on stdout")
    return os.getpid(), os.environ["OMP_NUM_THREADS"], len(sys.modules)


def square_slowly(seconds: float, item: int) -> int:
    """Return a square after a while, in which a machine may go."""
    time.sleep(seconds)
    return item * item
