"""Maps over workers: equal results for any number of them, dead workers, failures, logs and wrong input."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.errors import BudgetError, FileError, MissingPackageError, WorkerError
from spear_deploy.pipeline.adaptation.task import AdaptSettings
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.util.workers import Workers, give_logs, map_jobs, parse_workers, read_workers
from spear_deploy.util.workers import settings as settings_of_workers
from spear_deploy.util.workers.job import check_versions, collect_versions, run_job
from tests.support import worker_jobs

TWO = Workers(count=2)


def test_results_are_those_of_one_process_in_the_order_of_the_items() -> None:
    shared = np.random.default_rng(0).standard_normal(100_003).astype(np.float32)
    items = [5, 1, 4, 2, 3]
    here = map_jobs(worker_jobs.multiply, items, shared=shared)
    assert here == [worker_jobs.multiply(shared, item) for item in items]
    assert map_jobs(worker_jobs.multiply, items, shared=shared, workers=Workers(count=1)) == here
    assert map_jobs(worker_jobs.multiply, items, shared=shared, workers=TWO) == here
    assert map_jobs(worker_jobs.multiply, [], workers=TWO) == []


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path) -> None:
    assert map_jobs(worker_jobs.kill_once, range(5), shared=str(tmp_path), workers=TWO) == [0, 1, 4, 9, 16]
    assert (tmp_path / "killed").is_file()


def test_workers_that_die_again_and_again_end_in_a_sentence() -> None:
    sentence = r"workers died 3 times while they ran '2 of 3' \(exit codes .*SIGKILL.*\), mostly for want of memory; use fewer"
    with pytest.raises(WorkerError, match=sentence):  # of two workers, one may die before the other is done with the first job
        map_jobs(worker_jobs.kill_always, range(3), names=("1 of 3", "2 of 3", "3 of 3"), workers=Workers(count=1))


def test_the_first_item_that_fails_is_raised_whichever_fails_first() -> None:
    for workers in (None, TWO):
        with pytest.raises(BudgetError, match="budget 2 is too low") as error:
            map_jobs(worker_jobs.stop, [1, 2, 3, 4], workers=workers)
        assert error.value.min_value == 2.5


def test_a_job_without_memory_names_itself() -> None:
    with pytest.raises(WorkerError, match=r"jobs 2 of 2: memory is full \(peak \d+ MB\); use fewer workers, smaller batches"):
        map_jobs(worker_jobs.fill_memory, range(2), workers=Workers(count=1))
    outcome = run_job(lambda *_: np.empty(1 << 57), None, 0, "recipe 3")
    with pytest.raises(WorkerError, match=r"recipe 3: memory is full \(peak \d+ MB, 1\.00 EiB more needed\); use fewer workers"):
        raise outcome.value


def test_workers_have_one_thread_keep_logs_and_report_progress(tmp_path) -> None:
    seen: list[dict] = []
    facts = map_jobs(
        worker_jobs.report_process, range(4), workers=Workers(count=2, logs=tmp_path / "logs"), stage="recipes",
        names=("a", "b", "c", "d"), progress=lambda row: seen.append(dict(row)),
    )  # fmt: skip
    assert {threads for _, threads, _ in facts} == {"1"}
    assert [row["done"] for row in seen] == [1, 2, 3, 4] and {row["job"] for row in seen} == set("abcd")
    assert {int(row["worker"].rpartition(":")[2]) for row in seen} == {process for process, _, _ in facts}
    logs = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    # One worker may be done with all jobs before the other, whose log is there too, has taken any.
    assert {f"worker-{process}.log" for process, _, _ in facts} <= set(logs) and len(logs) <= 2
    text = "".join(logs.values())
    assert all(line in text for line in ("item 3 on stdout", "a: begins", "d: is done after")) and "peak" in text


def test_a_temporary_folder_that_takes_no_file_ends_in_a_sentence(tmp_path, monkeypatch) -> None:
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fill)
        sentence = rf"^folder for temporary files '{tmp_path}': \d+ bytes for the workers cannot be written \(No space left"
        with pytest.raises(FileError, match=sentence):
            map_jobs(worker_jobs.multiply, [1], shared=np.ones(3, np.float32), workers=TWO)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(
        FileError, match=r"missing': no folder can be made \(No such file or directory\); .*, or set TMPDIR to another"
    ):
        map_jobs(worker_jobs.multiply, [1], shared=np.ones(3, np.float32), workers=TWO)


def test_other_versions_are_refused_by_name() -> None:
    check_versions(collect_versions())
    with pytest.raises(WorkerError, match=r"worker '.+': numpy .+ instead of 0\.9; install the same versions on all machines"):
        check_versions({**collect_versions(), "numpy": "0.9"})
    with pytest.raises(WorkerError, match="torch missing instead of|torch .+ instead of 0.1"):
        check_versions({**collect_versions(), "torch": "0.1"})


@pytest.mark.parametrize("text", ["", "0x2", "two", "ray:host", "ray:host:port", "ray::6379", "slurm", "slurm:-1", "-1", "1.5"])
def test_options_that_are_no_workers_are_refused(text) -> None:
    with pytest.raises(WorkerError, match=r"workers '.*': (expected a number of processes|the address of a Ray cluster is)"):
        parse_workers(text)


@pytest.mark.parametrize("count", [0, 1025])
def test_the_number_of_workers_has_bounds(count) -> None:
    with pytest.raises(WorkerError, match=f"workers: {count} given, expected 1 to 1024"):
        parse_workers(str(count))


def test_missing_packages_and_clusters_are_sentences(tmp_path, monkeypatch) -> None:
    from spear_deploy.util import extras
    from spear_deploy.util.workers import ray_cluster, slurm

    monkeypatch.setattr(extras, "_is_installed", lambda module: False)
    for place in ("processes", "ray", "slurm"):
        with pytest.raises(ImportError, match="needs the packages? .*, which (is|are) not installed; `pip install 'spear-deploy"):
            map_jobs(worker_jobs.multiply, [1], workers=Workers(count=1, place=place))
    monkeypatch.setattr(extras, "_is_installed", lambda module: True)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(WorkerError, match="workers 'slurm': this machine has no `sbatch`; run the command on a login node"):
        slurm.open_slurm(Workers(count=2, place="slurm", logs=tmp_path), None)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    with pytest.raises(WorkerError, match="workers 'slurm': no folder for logs is named, which all machines"):
        slurm.open_slurm(Workers(count=2, place="slurm"), None)
    with pytest.raises(WorkerError, match=r"workers 'ray:127.0.0.1:1': no Ray cluster answers there \(.+\); start it with"):
        ray_cluster.open_ray(parse_workers("ray:127.0.0.1:1"), None)


def test_a_number_or_the_text_of_the_option_are_workers() -> None:
    assert read_workers(None) is None
    assert read_workers(2) == Workers(count=2) == read_workers("2") == read_workers(Workers(count=2))
    assert read_workers(np.int64(2)) == Workers(count=2)  # type: ignore[arg-type]
    logged = give_logs(3, Path("out"))
    assert logged is not None and (logged.count, logged.logs) == (3, Path("out/logs"))
    for settings in (PruneSettings, DeploySettings, AdaptSettings):
        assert settings(workers=2).workers == Workers(count=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [True, 1.5, [2]])
def test_what_is_no_number_of_workers_is_refused(wrong: object) -> None:
    with pytest.raises(WorkerError, match="expected a number of processes, 'ray', 'ray:HOST:PORT' or 'slurm:N'"):
        read_workers(wrong)  # type: ignore[arg-type]
    with pytest.raises(WorkerError, match="workers: 0 given, expected 1 to 1024"):
        read_workers(0)


def test_a_package_of_workers_that_is_not_installed_is_missed_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings_of_workers.PACKAGES, "ray", ("--workers ray", ("ray_that_nobody_has",)))
    with pytest.raises(MissingPackageError, match="--workers ray needs the package 'ray_that_nobody_has'"):
        PruneSettings(workers=Workers(place="ray", count=0))
