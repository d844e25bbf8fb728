"""Workers as jobs of Slurm (submitit)."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spear_deploy.errors import WorkerError
from spear_deploy.util.extras import require_packages
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
from spear_deploy.util.workers.settings import Workers

MINUTES = 24 * 60
"""Time limit of a job."""
POLL_S = 1.0
"""Seconds between looks at the jobs' files."""


def open_slurm(workers: Workers, shared: Any) -> RunBatch:
    """Return the function that submits jobs to Slurm, as an array of at most `workers.count` at a time.

    Raises:
        MissingPackageError: submitit is not installed.
        WorkerError: this machine has no Slurm, or no folder for logs that the machines share is named.
    """
    require_packages("submitit", user="--workers slurm")
    if shutil.which("sbatch") is None:
        raise WorkerError("workers 'slurm': this machine has no `sbatch`; run the command on a login node of the cluster")
    if workers.logs is None:
        raise WorkerError("workers 'slurm': no folder for logs is named, which all machines of the cluster have to see; name one")
    import submitit

    workers.logs.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(folder=workers.logs, cluster="slurm")
    setup = [f"export {name}={value}" for name, value in ONE_THREAD.items()]
    executor.update_parameters(timeout_min=MINUTES, cpus_per_task=1, slurm_array_parallelism=workers.count, slurm_setup=setup)
    return submit_to(executor, workers.logs, shared)


def submit_to(executor: Any, folder: Path, shared: Any) -> RunBatch:
    """Return the function that submits jobs to an executor of submitit, and waits for them."""
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
                done = [(index, job) for index, job in running if job.done()]
                running = [(index, job) for index, job in running if not any(job is other for _, other in done)]
                for index, job in done:
                    try:
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


def _run_checked(function: JobFunction, path: str, item: Any, name: str, versions: dict[str, str]) -> Outcome:
    import cloudpickle

    check = run_job(lambda _, expected: check_versions(expected), None, versions, f"{name}: versions")
    return check if check.failed else run_job(function, cloudpickle.loads(Path(path).read_bytes()), item, name)
