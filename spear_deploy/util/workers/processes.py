"""Workers as processes of this machine (loky, as joblib brings it)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spear_deploy.util.temporary_folder import make_file_error, open_temporary_folder
from spear_deploy.util.workers.job import ONE_THREAD, Batch, JobFunction, Outcome, RunBatch, WorkerDied, run_job
from spear_deploy.util.workers.settings import Workers, require_place

_shared: dict[str, Any] = {}
"""In a worker: what its jobs read, by file; one entry."""
IDLE_S = 300
"""Seconds without a job after which a worker ends."""


def open_processes(workers: Workers, shared: Any) -> RunBatch:
    """Return the function that runs jobs in processes; these stay for the next map.

    Raises:
        MissingPackageError: joblib or cloudpickle is not installed.
        FileError: of the function, where what the jobs read cannot be written into the temporary folder.
    """
    require_place("processes")
    from cloudpickle import dumps

    content = dumps(shared)

    def run_batch(function: JobFunction, batch: Batch) -> Iterator[tuple[int, Outcome]]:
        with _write_shared(content) as path:
            yield from _run(function, batch, workers, path)

    return run_batch


@contextmanager
def _write_shared(content: bytes) -> Iterator[Path]:
    """Yield a file with what all jobs read: of this run alone, readable by this user alone."""
    with open_temporary_folder("workers") as folder:
        try:
            (folder / "shared").write_bytes(content)
        except OSError as error:
            raise make_file_error(f"{len(content):,} bytes for the workers cannot be written", error) from error
        yield folder / "shared"


def _run(function: JobFunction, batch: Batch, workers: Workers, path: Path) -> Iterator[tuple[int, Outcome]]:
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    if workers.logs is not None:
        workers.logs.mkdir(parents=True, exist_ok=True)
    executor = get_reusable_executor(
        workers.count, timeout=IDLE_S, initializer=_begin, initargs=(workers.logs,), env=dict(ONE_THREAD)
    )  # that of the map before, unless a worker died in it: a worker starts in seconds
    futures: dict[Future[Outcome], int] = {
        executor.submit(_run_one, function, os.fspath(path), item, name): index for index, item, name in batch
    }
    died: WorkerDied | None = None
    left = dict(futures)
    try:
        for future in as_completed(futures):
            del left[future]
            try:
                yield futures[future], future.result()
            except BrokenProcessPool as error:  # all that are not done; those that are come as well
                died = WorkerDied(_first_sentence(error))
    finally:
        if left or died is not None:
            executor.shutdown(wait=True, kill_workers=True)  # nobody waits for what they still run
    if died is not None:
        raise died


def _begin(logs: Path | None) -> None:
    """Prepare a worker: the main process decides on Ctrl-C, and what the worker prints goes to its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target = os.devnull if logs is None else os.fspath(logs / f"worker-{os.getpid()}.log")
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)


def _run_one(function: JobFunction, path: str, item: Any, name: str) -> Outcome:
    from cloudpickle import loads

    if path not in _shared:
        _shared.clear()
        _shared[path] = loads(Path(path).read_bytes())
    return run_job(function, _shared[path], item, name)


def _first_sentence(error: Exception) -> str:
    """Return the exit codes of the workers that died."""
    text = " ".join(str(error).split())
    return text[text.index("exit codes") :].rstrip(".") if "exit codes" in text else text.partition(".")[0]
