"""One job in a worker: versions, threads and log."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from spear_deploy.errors import SpearError, WorkerError
from spear_deploy.util.digests import hash_code, package_versions
from spear_deploy.util.memory import is_out_of_memory

JobFunction: TypeAlias = Callable[[Any, Any], Any]
"""(shared, item) → result; a function of a module, since another process imports it."""
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")}
"""Environment of a worker."""
MAX_DEATHS = 3
"""Times in a row that a worker may die before any job ends."""
FEWER = "use fewer workers, smaller batches, or a machine with more memory"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A job that ended.

    Attributes:
        value: its result, or the exception that it raised.
        failed: whether `value` is an exception.
        worker: host and process.
        seconds: wall time.
    """

    value: Any
    failed: bool
    worker: str
    seconds: float


Batch: TypeAlias = Sequence[tuple[int, Any, str]]
"""(index, item, name) of the jobs that are left."""
RunBatch: TypeAlias = Callable[[JobFunction, Batch], Iterator[tuple[int, Outcome]]]
"""Runs jobs and yields them as they end; ends early, or raises `WorkerDied`, where a worker died."""


class WorkerDied(Exception):
    """A worker ended without a result: killed, or out of memory."""


def run_job(function: JobFunction, shared: Any, item: Any, name: str) -> Outcome:
    """Run a job, and return its result or its exception."""
    worker, begin = f"{socket.gethostname()}:{os.getpid()}", time.perf_counter()
    _log(f"{name}: begins")
    value: Any
    try:
        value, failed = function(shared, item), False
    except SpearError as error:
        value, failed = error, True
    except Exception as error:
        value, failed = error, True
        if is_out_of_memory(error):
            value = WorkerError(f"{name}: memory is full ({_peak()}{_describe_request(error)}); {FEWER}")
            value.__cause__ = error
    seconds = time.perf_counter() - begin
    _log(f"{name}: {f'fails, {value}' if failed else 'is done'} after {seconds:.1f} s, {_peak()}")
    return Outcome(value=value, failed=failed, worker=worker, seconds=seconds)


def check_versions(expected: Mapping[str, str]) -> None:
    """Check that this worker has the versions of the process that sent the job.

    Raises:
        WorkerError: names what differs.
    """
    here = collect_versions()
    differing = [name for name in sorted({*expected, *here}) if expected.get(name) != here.get(name)]
    if differing:
        facts = ", ".join(f"{name} {here.get(name, 'missing')} instead of {expected.get(name, 'none')}" for name in differing)
        raise WorkerError(
            f"worker '{socket.gethostname()}': {facts}; install the same versions on all machines, since results would differ"
        )


def collect_versions() -> dict[str, str]:
    """Return the versions of Python, of packages that change numbers, and the first digits of the digest of this code."""
    return {"python": platform.python_version(), **package_versions(), "code": hash_code()[:12]}


def _log(line: str) -> None:
    """Write a line to the worker's log, which is its stderr."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def _describe_request(error: Exception) -> str:
    """Return how much was asked for beyond that, where numpy or torch says so."""
    amount = re.search(r"allocate ([\d.]+ \w+)", str(error))
    return f", {amount[1]} more needed" if amount else ""


def _peak() -> str:
    import resource

    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
