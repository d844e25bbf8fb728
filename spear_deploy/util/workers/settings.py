"""Settings of workers: their number, where they run, and their logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Literal, TypeAlias

from spear_deploy.errors import WorkerError
from spear_deploy.util.extras import require_packages

Place: TypeAlias = Literal["processes", "ray", "slurm"]
PACKAGES: dict[Place, tuple[str, tuple[str, ...]]] = {
    "processes": ("--workers", ("joblib", "cloudpickle")), "ray": ("--workers ray", ("ray",)),
    "slurm": ("--workers slurm", ("submitit",)),
}  # fmt: skip
"""Option and packages of each place."""
MAX_WORKERS = 1024
LOGS = "logs"
"""Folder of the logs in an output folder."""
EXPECTED = "expected a number of processes, 'ray', 'ray:HOST:PORT' or 'slurm:N'"


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where jobs run.

    Each job has one thread, however many workers there are, so that sums are made in the same order: results depend neither on
    `count` nor on `place`.

    Attributes:
        count: jobs at a time; 0 on Ray: as many as its machines have cores.
        place: "processes" of this machine, "ray", or "slurm".
        address: HOST:PORT of a Ray cluster that runs already; "" starts Ray on this machine.
        logs: folder in which each worker keeps a log; on Slurm a folder that all machines see. None: no logs.
    """

    count: int = 1
    place: Place = "processes"
    address: str = ""
    logs: Path | None = None

    def __post_init__(self) -> None:
        if not (self.place == "ray" and self.count == 0) and not 1 <= self.count <= MAX_WORKERS:
            raise WorkerError(f"workers: {self.count} given, expected 1 to {MAX_WORKERS}")


def parse_workers(text: str, logs: Path | None = None) -> Workers:
    """Return the workers of an option.

    >>> parse_workers("4").count, parse_workers("ray:head:6379").address, parse_workers("slurm:16").place
    (4, 'head:6379', 'slurm')

    Raises:
        WorkerError: the text is none of the forms.
    """
    place, _, rest = text.strip().partition(":")
    if place.isascii() and place.isdigit() and not rest:
        return Workers(count=int(place), logs=logs)
    if place == "ray":
        host, separator, port = rest.rpartition(":")
        if rest and not (host and separator and port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise WorkerError(f"workers '{text}': the address of a Ray cluster is HOST:PORT, e.g. ray:10.0.0.1:6379")
        return Workers(count=0, place="ray", address=rest, logs=logs)
    if place == "slurm" and rest.isascii() and rest.isdigit():
        return Workers(count=int(rest), place="slurm", logs=logs)
    raise WorkerError(f"workers '{text}': {EXPECTED}")


def require_place(place: Place) -> None:
    """Check that the packages of a place are installed.

    Raises:
        MissingPackageError: one is not.
    """
    option, packages = PACKAGES[place]
    require_packages(*packages, user=option)


def read_workers(workers: Workers | int | str | None) -> Workers | None:
    """Return workers, of a number of processes or the text of the option too, whose packages are installed.

    Raises:
        WorkerError: none of these.
        MissingPackageError: their package is not installed: before a command begins, not when it first has jobs for them.
    """
    if workers is None:
        return None
    if not isinstance(workers, Workers):
        if isinstance(workers, bool) or not isinstance(workers, (Integral, str)):
            raise WorkerError(f"workers {workers!r}: {EXPECTED}")
        workers = parse_workers(str(workers))
    require_place(workers.place)
    return workers


def give_logs(workers: Workers | int | str | None, folder: Path) -> Workers | None:
    """Return the workers that `read_workers` reads, with their logs in an output folder where they have no other place."""
    read = read_workers(workers)
    return read if read is None or read.logs is not None else replace(read, logs=folder / LOGS)
