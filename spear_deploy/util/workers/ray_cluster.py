"""Workers on Ray, on this machine or on a running cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from spear_deploy.errors import WorkerError
from spear_deploy.util.workers.job import (
    MAX_DEATHS,
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

CONNECT_S = 5.0
"""Seconds after which a cluster that does not answer is not there."""


def open_ray(workers: Workers, shared: Any) -> RunBatch:
    """Return the function that runs jobs on Ray, which it joins or starts.

    Raises:
        MissingPackageError: ray is not installed.
        WorkerError: no cluster answers at the address.
    """
    require_place("ray")
    if workers.address:
        _check_answers(workers.address)
    import ray

    if not ray.is_initialized():
        try:
            if workers.address:
                ray.init(address=workers.address, log_to_driver=False, logging_level="error")
            else:
                ray.init(num_cpus=workers.count or None, include_dashboard=False, log_to_driver=False, logging_level="error")
        except Exception as error:  # Ray raises bare ones
            where = workers.address or "this machine"
            reason = str(error).strip().partition("\n")[0]
            raise WorkerError(f"workers: Ray on {where} does not start ({reason}); `ray status` there says more") from error
    reference = ray.put(shared)

    def run_batch(function: JobFunction, batch: Batch) -> Iterator[tuple[int, Outcome]]:
        task = ray.remote(num_cpus=1, max_retries=MAX_DEATHS, runtime_env={"env_vars": ONE_THREAD})(_run_checked)
        versions = collect_versions()
        died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        running = {task.remote(function, reference, item, name, versions): index for index, item, name in batch}
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                try:
                    outcome = ray.get(done)
                except died as error:
                    raise WorkerDied(type(error).__name__) from error
                yield running.pop(done), outcome
        finally:
            for left in running:
                ray.cancel(left, force=True)

    return run_batch


def _check_answers(address: str) -> None:
    """Raise where nothing listens at HOST:PORT; Ray itself waits for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        reason = (error.strerror or "no answer").lower()
        raise WorkerError(
            f"workers 'ray:{address}': no Ray cluster answers there ({reason}); start it with `ray start --head`, or correct "
            "the address"
        ) from error


def _run_checked(function: JobFunction, shared: Any, item: Any, name: str, versions: dict[str, str]) -> Outcome:
    check = run_job(lambda _, expected: check_versions(expected), None, versions, f"{name}: versions")
    return check if check.failed else run_job(function, shared, item, name)
