"""Runs of `deploy`, `prune` and `sweep` killed at random moments: the next run finishes with the files of one left alone.

    python -m tests.reliability.kills --deploy 200 --prune 100     # kills in all; a chain of up to 5 and its last run are a block
    python -m tests.reliability.kills --deploy 0 --prune 0 --sweep 10 --sweep-workers 10 --sweep-parent 10

Of a sweep on two workers the kill is of all its processes (`sweep_workers`), or of its own process alone (`sweep_parent`).
`deploy_stop` sends SIGTERM instead, after which the command ends by itself and keeps what is finished.

A chain starts the command, sends SIGKILL at a random moment of the time that it still needs, starts it again, and lets the last
run finish. Its output folder must then hold the files of the reference run, byte for byte; in JSON times and dates may
differ. Nothing may be left beside them, nor in the folder for temporary files. A run is a copy of this process, which has
imported the packages: imports write nothing, and take longer than all that is to be killed.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.cli import main as run_command
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.util.workers.settings import LOGS
from tests.reliability.campaign import options, run_blocks
from tests.support.deployments import arrays, dense

KILLS = 5
"""Kills of a chain at most."""
KILLS_BEFORE_THE_END = 3
"""Kills of a chain on average: some runs are done before their moment."""
SHORTEST = 0.1
"""Share of a whole run within which a late run is killed."""
GIVEN = ["net.snn", "--chip", "loihi2", "--data", "data.npz", "--synops", "70%", "--out", "out", "--quiet"]
SWEEP = ["sweep", "sweep.toml", "--out", "out", "--quiet"]
COMMANDS = {
    "deploy": ["deploy", *GIVEN, "--method", "uniform", "--lava-samples", "2"],
    "prune": ["prune", *GIVEN, "--method", "evolution", "--episodes", "12", "--epochs", "2"],
    "deploy_stop": ["deploy", *GIVEN, "--lava-samples", "2"],
    "sweep": SWEEP,
    "sweep_workers": [*SWEEP, "--workers", "2"],
    "sweep_parent": [*SWEEP, "--workers", "2"],
}
CELLS = """
networks = ["net.snn"]
chips = ["loihi2"]
budgets = ["70%", "50%", 1]
methods = ["uniform"]
data = "data.npz"
epochs = 2
"""
"""A sweep: two cells with a result, and one whose budget is out of reach, so that it ends with 1."""
EXPECTED = {"sweep": 1, "sweep_workers": 1, "sweep_parent": 1}
"""Exit codes other than 0."""
TIMES = {"seconds", "made", "command", "duration_s", "wall_s", "sha256", "digest", "evaluations"}
"""Keys of JSON that differ between two runs: times, dates, and digests of the files that hold them."""


PACKAGES = (
    "torch", "norse.torch", "onnx", "optuna", "scipy.optimize", "jinja2", "spear_deploy.pipeline.deploy",
    "spear_deploy.pipeline.prune", "spear_deploy.pipeline.sweep", "spear_deploy.interchange.onnx.model_file",
    "spear_deploy.report.page",
)  # fmt: skip
POLL_S = 0.005


@dataclass(frozen=True)
class Run:
    """A copy of this process that runs a command, in a process group of its own.

    Attributes:
        alone: whether a kill leaves the processes that it started.
        number: of the signal that ends it.
    """

    pid: int
    alone: bool = False
    number: signal.Signals = signal.SIGKILL

    def wait(self, seconds: float | None = None) -> int | None:
        """Return its exit code, or None where it still runs after so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            pid, status = os.waitpid(self.pid, 0 if end is None else os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(POLL_S)
        return None

    def kill(self) -> None:
        """Send its signal, and wait for its end."""
        if self.alone or self.number == signal.SIGTERM:
            os.kill(self.pid, self.number)
        else:
            os.killpg(self.pid, self.number)
        os.waitpid(self.pid, 0)


def start(command: str, folder: Path) -> Run:
    """Start a command in a folder, with a folder for temporary files of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        with suppress(OSError):  # whichever of the two comes first
            os.setpgid(pid, pid)
        ends = signal.SIGTERM if command == "deploy_stop" else signal.SIGKILL
        return Run(pid, alone=command == "sweep_parent", number=ends)
    code = 1
    try:
        os.setpgid(0, 0)
        os.environ["TMPDIR"], tempfile.tempdir = str(folder / "tmp"), None
        os.chdir(folder)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        run_command(COMMANDS[command], prog_name="spear-deploy")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        threading._shutdown()  # what ends an interpreter: workers first, then what is registered
        atexit._run_exitfuncs()
        os._exit(code)


def make_folder(place: Path) -> Path:
    """Write the network and the data of a run."""
    place.mkdir(parents=True)
    write_snn(dense(), place / "net.snn")
    np.savez(place / "data.npz", **arrays())
    (place / "sweep.toml").write_text(CELLS)
    return place


def read_files(out: Path) -> dict[str, Any]:
    """Return the files of a folder: bytes, of JSON the values without times, of pages and stages (which hold times) the name."""
    files: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.parent.name != LOGS):
        name = path.relative_to(out).as_posix()
        content: Any = path.read_bytes()
        if path.suffix == ".json":
            content = _without_times(json.loads(content))
        if path.suffix == ".html" or path.name == "stages.json":
            content = None
        files[name] = content
    return files


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key not in TIMES}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def run_reference(command: str, cache: Path) -> tuple[dict[str, Any], float]:
    """Return the files of a run that is left alone, and its seconds; run once for all blocks of this process."""
    folder = cache / command
    if not folder.exists():
        make_folder(folder)
        begin = time.monotonic()
        code = start(command, folder).wait()
        if code != EXPECTED.get(command, 0):
            raise SystemExit(f"{command}: exit {code}: {(folder / 'log').read_text()[-500:]}")
        (folder / "seconds").write_text(str(time.monotonic() - begin))
    return read_files(folder / "out"), float((folder / "seconds").read_text())


def run_block(block: str, cache: Path) -> dict[str, Any]:
    """Run a chain of kills, and compare its end with the reference."""
    command, number = block.split()
    expected, seconds = run_reference(command, cache)
    rng, wrong, kills = random.Random(block), [], 0
    place = Path(tempfile.mkdtemp())  # no TemporaryDirectory: a copy of this process would remove it when it ends
    try:
        folder = make_folder(place / "run")
        left = seconds
        for _ in range(KILLS):
            run, moment = start(command, folder), rng.random() * left
            if run.wait(moment) is not None:
                break  # a later run takes what is there and is done before its time
            run.kill()
            kills += 1
            left = max(left - moment, SHORTEST * seconds)  # what was done is not done again
        code = start(command, folder).wait()
        failed = code != EXPECTED.get(command, 0)
        if failed:
            wrong.append(f"{block}: the last run ends with {code}: {(folder / 'log').read_text()[-300:]}")
        files = read_files(folder / "out") if not failed else {}
        wrong += [f"{block}: '{key}' is missing" for key in expected.keys() - files.keys() if not failed]
        wrong += [f"{block}: '{key}' is left" for key in files.keys() - expected.keys()]
        wrong += [f"{block}: '{key}' differs" for key in files.keys() & expected.keys() if files[key] != expected[key]]
        wrong += [
            f"{block}: '{path.name}' is left in the temporary folder"
            for path in (folder / "tmp").iterdir()
            if not (cache / command / "tmp" / path.name).exists()
        ]  # torch keeps a folder there, killed or not
    finally:
        shutil.rmtree(place)
    return {"kills": kills, "chains": 1, "number": int(number), "wrong": wrong}


def main() -> None:
    """Run chains until so many kills were sent."""
    parser = options(__doc__)
    parser.add_argument("--deploy", type=int, default=200, help="kills of deploy")
    parser.add_argument("--deploy-stop", type=int, default=0, help="SIGTERM to deploy")
    parser.add_argument("--prune", type=int, default=100, help="kills of prune")
    parser.add_argument("--sweep", type=int, default=0, help="kills of sweep")
    parser.add_argument("--sweep-workers", type=int, default=0, help="kills of all processes of a sweep on two workers")
    parser.add_argument("--sweep-parent", type=int, default=0, help="kills of the main process of a sweep on two workers")
    arguments = parser.parse_args()
    counts = {command: -(-getattr(arguments, command) // KILLS_BEFORE_THE_END) for command in COMMANDS}
    blocks = [f"{command} {number:03d}" for command, count in counts.items() for number in range(count)]
    cache = Path(tempfile.mkdtemp())
    for package in PACKAGES:
        importlib.import_module(package)
    try:
        run_blocks(
            "kills",
            sorted(blocks, key=lambda block: block.split()[1]),
            lambda block: run_block(block, cache),
            record=arguments.record,
        )
    finally:
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
