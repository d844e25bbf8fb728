"""Workers on Ray and Slurm: results, killed workers and jobs, a machine that goes.

These need Ray and submitit, `pip install "spear-deploy[ray,slurm]"`, and one needs Slurm itself (Debian's `slurm-wlm`), of
which it starts a cluster of one node on the loopback interface: `pytest -m slow tests/util/test_clusters.py`.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.errors import BudgetError, WorkerError
from spear_deploy.util.workers import Workers, map_jobs, parse_workers, slurm
from tests.support import worker_jobs
from tests.support.slurm_cluster import find_missing_programs, run_slurm, search_path

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHARED = np.random.default_rng(0).standard_normal(100_003).astype(np.float32)


@pytest.fixture
def ray(monkeypatch):
    """Ray, whose workers find the jobs of the tests, and which is shut down afterwards."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield ray
    ray.shutdown()


def test_ray_gives_the_results_of_one_process_also_where_a_worker_is_killed(ray, tmp_path):
    items, workers = [5, 1, 4, 2, 3], Workers(count=2, place="ray")
    assert map_jobs(worker_jobs.multiply, items, shared=SHARED, workers=workers) == [
        worker_jobs.multiply(SHARED, item) for item in items
    ]
    assert map_jobs(worker_jobs.kill_once, range(5), shared=str(tmp_path), workers=workers) == [0, 1, 4, 9, 16]
    assert (tmp_path / "killed").is_file()
    with pytest.raises(BudgetError, match="budget 2 is too low") as error:
        map_jobs(worker_jobs.stop, [1, 2, 3, 4], workers=workers)
    assert error.value.min_value == 2.5
    with pytest.raises(WorkerError, match="workers died 3 times while they ran .*, mostly for want of memory; use fewer"):
        map_jobs(worker_jobs.kill_always, range(2), workers=workers)


def test_a_machine_that_leaves_a_ray_cluster_changes_no_result(ray):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node, seen = cluster.add_node(num_cpus=1), []

    def remove_node(row):
        seen.append(row["worker"])
        if len(seen) == 2:
            cluster.remove_node(node, allow_graceful=False)

    try:
        workers = parse_workers(f"ray:{cluster.address}")
        values = map_jobs(worker_jobs.square_slowly, range(8), shared=0.5, workers=workers, progress=remove_node)
        assert values == [item * item for item in range(8)] and len(seen) == 8
        for _ in range(120):  # Ray notices within seconds
            if sum(entry["Alive"] for entry in ray.nodes()) == 1:
                break
            time.sleep(0.5)
        assert sum(entry["Alive"] for entry in ray.nodes()) == 1
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_the_jobs_of_slurm_run_as_scripts_of_submitit(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    logs = tmp_path / "logs"

    def open_locally(workers, shared):
        executor = submitit.AutoExecutor(folder=workers.logs, cluster="local")
        executor.update_parameters(timeout_min=5)
        return slurm.submit_to(executor, workers.logs, shared)

    logs.mkdir()
    monkeypatch.setattr(slurm, "open_slurm", open_locally)  # the executor alone: this machine has no Slurm
    workers = Workers(count=2, place="slurm", logs=logs)
    items = [5, 1, 4]
    assert map_jobs(worker_jobs.multiply, items, shared=SHARED, workers=workers) == [
        worker_jobs.multiply(SHARED, item) for item in items
    ]
    assert map_jobs(worker_jobs.kill_once, range(3), shared=str(tmp_path), workers=workers) == [0, 1, 4]
    with pytest.raises(BudgetError, match="budget 2 is too low"):
        map_jobs(worker_jobs.stop, [1, 2], workers=workers)
    assert not list(logs.glob(".spear-shared-*"))  # what the jobs read is removed with them
    assert any("jobs 1 of 3: is done" in path.read_text() for path in logs.glob("*_log.err"))


def test_slurm_gives_the_results_of_one_process_also_where_jobs_are_killed_or_cancelled(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    if missing := find_missing_programs():
        pytest.skip(f"Slurm is not installed ({', '.join(missing)})")
    monkeypatch.setattr(slurm, "QUEUE_S", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", search_path())
    with run_slurm(tmp_path / "slurm") as configuration:
        monkeypatch.setenv("SLURM_CONF", os.fspath(configuration))
        workers = parse_workers("slurm:2", logs=tmp_path / "logs")
        items = [5, 1, 4]
        assert map_jobs(worker_jobs.multiply, items, shared=SHARED, workers=workers) == [
            worker_jobs.multiply(SHARED, item) for item in items
        ]
        assert map_jobs(worker_jobs.kill_once, range(3), shared=str(tmp_path), workers=workers) == [0, 1, 4]
        assert (tmp_path / "killed").is_file()
        with pytest.raises(BudgetError, match="budget 2 is too low"):
            map_jobs(worker_jobs.stop, [1, 2], workers=workers)
        cancelled: list[str] = []
        threading.Thread(target=_cancel_first_job, args=(cancelled,), daemon=True).start()
        assert map_jobs(worker_jobs.square_slowly, range(3), shared=5.0, workers=workers) == [0, 1, 4]
        assert len(cancelled) == 1
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "logs").glob(".spear-shared-*"))


def _cancel_first_job(cancelled: list[str]) -> None:
    """Cancel the first job that runs, and append its name."""
    for _ in range(240):
        command = ["squeue", "--noheader", "--array", "--states=R", "--format=%i"]
        names = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
        if names:
            subprocess.run(["scancel", names[0]], check=True)
            cancelled.append(names[0])
            return
        time.sleep(0.25)
