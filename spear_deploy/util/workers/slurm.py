"""Workers as jobs of Slurm (submitit)."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spear_deploy.errors import WorkerError
from spear_deploy.util.workers.job import (
    ONE_THREAD,
    Batch,
    JobFunction,
    Outcome,
    RunBatch,
    WorkerDied,
    check_versions,
    collect_versions,
    run_job,
)
from spear_deploy.util.workers.settings import Workers, require_place

MINUTES = 24 * 60
"""Time limit of a job."""
POLL_S = 1.0
"""Seconds between looks at the jobs' files."""
PRIVATE = 0o700
"""Mode of the folder of tasks and results: submitit keeps them as pickles, which run code of whoever can write them."""
QUEUE_S = 10.0
"""Seconds between looks at Slurm's queue, which names the jobs that live."""


def open_slurm(workers: Workers, shared: Any) -> RunBatch:
    """Return the function that submits jobs to Slurm, as an array of at most `workers.count` at a time.

    Raises:
        MissingPackageError: submitit is not installed.
        WorkerError: this machine has no Slurm, or no folder for logs that the machines share is named.
    """
    require_place("slurm")
    if shutil.which("sbatch") is None:
        raise WorkerError("workers 'slurm': this machine has no `sbatch`; run the command on a login node of the cluster")
    if workers.logs is None:
        raise WorkerError("workers 'slurm': no folder for logs is named, which all machines of the cluster have to see; name one")
    import submitit

    workers.logs.mkdir(parents=True, exist_ok=True)
    workers.logs.chmod(PRIVATE)
    logging.getLogger("submitit").setLevel(logging.ERROR)  # no warning of a missing accounting: the queue is asked
    executor = submitit.AutoExecutor(folder=workers.logs, cluster="slurm")
    setup = [f"export {name}={value}" for name, value in ONE_THREAD.items()]
    executor.update_parameters(timeout_min=MINUTES, cpus_per_task=1, slurm_array_parallelism=workers.count, slurm_setup=setup)
    return submit_to(executor, workers.logs, shared, queue=Queue())


def submit_to(executor: Any, folder: Path, shared: Any, *, queue: Queue | None = None) -> RunBatch:
    """Return the function that submits jobs to an executor of submitit, and waits for them.

    Args:
        executor: of submitit.
        folder: for logs, tasks and results.
        shared: what all jobs read.
        queue: in which the jobs of Slurm live.
    """
    import cloudpickle

    content = cloudpickle.dumps(shared)

    def run_batch(function: JobFunction, batch: Batch) -> Iterator[tuple[int, Outcome]]:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        handle, name = tempfile.mkstemp(prefix=".spear-shared-", dir=folder)  # readable by this user alone
        with open(handle, "wb") as file:
            file.write(content)
        versions, running = collect_versions(), []
        try:
            with executor.batch():
                running = [(i, executor.submit(_run_checked, function, name, item, label, versions)) for i, item, label in batch]
            died: WorkerDied | None = None
            while running:
                lost = queue.find_lost([job.job_id for _, job in running]) if queue else set()
                done = [(index, job) for index, job in running if job.done() or job.job_id in lost]
                running = [(index, job) for index, job in running if not any(job is other for _, other in done)]
                for index, job in done:
                    try:
                        if job.job_id in lost and not job.done():
                            raise UncompletedJobError(job.job_id)
                        yield index, job.result()
                    except (UncompletedJobError, FailedJobError):
                        died = WorkerDied(f"job {job.job_id} ended without a result")
                if running and not done:
                    time.sleep(POLL_S)
            if died is not None:
                raise died
        finally:
            for _, job in running:
                job.cancel()
            Path(name).unlink()

    return run_batch


class Queue:
    """Slurm's queue. submitit asks the accounting, which many clusters do not keep, and would wait for a killed job for ever."""

    def __init__(self) -> None:
        self.asked = time.monotonic()
        self.missed: Counter[str] = Counter()

    def find_lost(self, names: Iterable[str]) -> set[str]:
        """Return which of these jobs were in the queue no more, at two looks in a row."""
        if time.monotonic() - self.asked >= QUEUE_S:
            self.asked = time.monotonic()
            living = _list_living_jobs()
            self.missed = Counter() if living is None else Counter({name: self.missed[name] + 1 for name in {*names} - living})
        return {name for name, count in self.missed.items() if count > 1}


def _list_living_jobs() -> set[str] | None:
    """Return the jobs in Slurm's queue, or None where it does not answer."""
    done = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], check=False, capture_output=True, text=True)
    return None if done.returncode else set(done.stdout.split())


def _run_checked(function: JobFunction, path: str, item: Any, name: str, versions: dict[str, str]) -> Outcome:
    import cloudpickle

    check = run_job(lambda _, expected: check_versions(expected), None, versions, f"{name}: versions")
    return check if check.failed else run_job(function, cloudpickle.loads(Path(path).read_bytes()), item, name)
