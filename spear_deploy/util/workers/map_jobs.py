"""Map over jobs, with equal results for any number of workers.

Results come in the order of the items. If jobs fail, the exception of the first item that failed is raised, whichever ended
first. A worker that dies is replaced, and the jobs that it and its neighbours held run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spear_deploy.errors import WorkerError
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers.job import FEWER, MAX_DEATHS, Batch, JobFunction, Outcome, RunBatch, WorkerDied
from spear_deploy.util.workers.settings import Workers


def map_jobs(
    function: JobFunction,
    items: Sequence[Any],
    *,
    workers: Workers | None = None,
    shared: Any = None,
    names: Sequence[str] = (),
    stage: str = "jobs",
    keep: Callable[[int, Any], None] | None = None,
    progress: Progress | None = None,
) -> list[Any]:
    """Return `function(shared, item)` of each item, in their order.

    Args:
        function: of a module, without state of this process.
        items: what the jobs differ in.
        workers: where they run; None: one after the other in this process.
        shared: what all jobs read; it is sent once to each worker.
        names: of the jobs, for logs and progress; their numbers unless given.
        stage: of `progress`.
        keep: is called with the index of each item and its result as soon as it is there.
        progress: is called after each job, with `worker` and `job`.

    Raises:
        WorkerError: workers die again and again, a machine has other versions, or a cluster is not there.
        MissingPackageError: the package of the workers is not installed.
    """
    named = [(i, item, names[i] if names else f"{stage} {i + 1} of {len(items)}") for i, item in enumerate(items)]
    if workers is None:
        return _run_here(function, shared, named, stage, keep, progress)
    run_batch = _open(workers, shared)
    results: dict[int, Outcome] = {}
    deaths = 0
    while left := [job for job in named if job[0] not in results and job[0] < _first_failure(results, len(items))]:
        before = len(results)
        try:
            for index, outcome in run_batch(function, left):
                results[index] = outcome
                if keep is not None and not outcome.failed:
                    keep(index, outcome.value)
                if progress is not None and not outcome.failed:
                    facts = {"worker": outcome.worker, "job": named[index][2], "seconds": outcome.seconds}
                    progress({"stage": stage, "done": len(results), "of": len(items), **facts})
                failed = _first_failure(results, len(items))
                if all(job[0] in results for job in left if job[0] < failed):
                    break  # where one failed, the jobs behind it are not waited for
        except WorkerDied as error:
            deaths = 1 if len(results) > before else deaths + 1
            if deaths == MAX_DEATHS:
                names_left = [f"'{name}'" for index, _, name in left if index not in results]
                running = ", ".join(names_left[: max(1, workers.count)])
                raise WorkerError(
                    f"workers died {MAX_DEATHS} times while they ran {running} ({error}), mostly for want of memory; {FEWER}"
                ) from error
    failed = _first_failure(results, len(items))
    if failed < len(items):
        raise results[failed].value
    return [results[i].value for i in range(len(items))]


def _run_here(
    function: JobFunction,
    shared: Any,
    jobs: Batch,
    stage: str,
    keep: Callable[[int, Any], None] | None,
    progress: Progress | None,
) -> list[Any]:
    values = []
    for index, item, name in jobs:
        values.append(function(shared, item))
        if keep is not None:
            keep(index, values[-1])
        if progress is not None:
            progress({"stage": stage, "done": index + 1, "of": len(jobs), "job": name})
    return values


def _first_failure(results: dict[int, Outcome], count: int) -> int:
    """Return the index of the first job that failed, or `count`."""
    return min((index for index, outcome in results.items() if outcome.failed), default=count)


def _open(workers: Workers, shared: Any) -> RunBatch:
    """Return the function that runs jobs on these workers."""
    if workers.place == "ray":
        from spear_deploy.util.workers.ray_cluster import open_ray

        return open_ray(workers, shared)
    if workers.place == "slurm":
        from spear_deploy.util.workers.slurm import open_slurm

        return open_slurm(workers, shared)
    from spear_deploy.util.workers.processes import open_processes

    return open_processes(workers, shared)
