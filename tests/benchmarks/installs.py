"""Time and size of an installation with pip, by Python version and extra, from empty environments.

    python -m tests.benchmarks.installs python3.10 python3.13        the core, [train] and [all] on these interpreters
    python -m tests.benchmarks.installs python3.12 --extras "" onnx  the core and [onnx]

The package is installed from the last commit. A row holds the seconds of `pip install`, the size of the packages, what of
torch, Lava and ONNX is there, and the exit codes of a command that the extra is for. Packages that pip holds in its cache
are not downloaded again; pip's own configuration chooses the index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ("check digits --chip loihi2", "rank digits", "profiles", "export digits --to nir --out net.nir")
PRUNE = "prune digits --chip loihi2 --data digits --synops 80% --method uniform --epochs 1 --out pruned --quiet"
COMMANDS = {
    "": CORE,
    "train": (*CORE, PRUNE),
    "onnx": (*CORE, "export digits --to onnx --out net.onnx"),
    "all": (*CORE, PRUNE, "export digits --to onnx --out net.onnx"),
}
"""Commands by extra, which must exit with 0."""
FACTS = """
from importlib import metadata
for name in ("torch", "norse", "onnx", "lava-nc"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
"""


def measure_install(python: str, extra: str, folder: Path) -> list[str]:
    """Install into an empty environment, run the commands, and return the cells of a row.

    Raises:
        RuntimeError: the installation or a command fails.
    """
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    run([python, "-m", "venv", str(environment)], folder)
    before, began = size_mb(environment), time.monotonic()
    run([str(environment / "bin/pip"), "install", "-q", f"{source}[{extra}]" if extra else str(source)], folder)
    seconds = time.monotonic() - began
    size = size_mb(environment) - before
    inside = str(environment / "bin/python")
    version = run([inside, "-c", "import platform; print(platform.python_version())"], folder).strip()
    there = ", ".join(run([inside, "-c", FACTS], folder).split("\n")[:-1])
    for command in COMMANDS[extra]:
        run([str(environment / "bin/spear-deploy"), *command.split()], folder)
    return [version, f"`.[{extra}]`" if extra else "`.`", f"{seconds:.0f}", f"{size:,.0f}", there, str(len(COMMANDS[extra]))]


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder and return its output.

    Raises:
        RuntimeError: it exits with another code than 0.
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=clean)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def size_mb(folder: Path) -> float:
    """Return the size of the files below a folder in MB."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Print a row for each interpreter and extra."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--extras", nargs="+", default=["", "train", "all"], choices=list(COMMANDS))
    arguments = parser.parse_args()
    print("| Python | `pip install` | s | MB | of which | commands that ran |\n|---|---|--:|--:|---|--:|", flush=True)
    failed = False
    for python in arguments.pythons:
        for extra in arguments.extras:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row = measure_install(python, extra, Path(folder))
                except RuntimeError as error:
                    row, failed = [python, extra, "failed", "", str(error).strip().splitlines()[-1], ""], True
                    print(error, file=sys.stderr)
            print(f"| {' | '.join(row)} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
