"""Environments of frameworks, in which `nir_frameworks` and the tests of their modules run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

SCRIPT = Path(__file__).with_name("nir_frameworks.py")

# beside this environment's torch and nir, without their dependencies, which would bring another torch
BESIDE = {
    "snntorch": ["snntorch==1.0.0"],
    "spikingjelly": ["spikingjelly==2.0.0", "loguru", "tqdm"],
    "sinabs": ["sinabs==3.1.3", "pbr", "setuptools", "matplotlib", "numpy<2", "contourpy", "cycler", "fonttools", "kiwisolver"],
    "rockpool": ["rockpool==3.1.0"],
    "norse": [],
}
HARNESSES = {
    "neurobench": ["neurobench==2.3.0", "snntorch==1.0.0"],
    "xylo": ["rockpool==3.1.0", "xylosim==0.1.3", "bitstruct==8.24.0"],
}
ALONE = {"spyx": ["spyx==1.0.0", "nir"]}
MAPPERS = {
    "akida": ["akida==2.19.3", "numpy<2"],
    "nengo_loihi": ["nengo-loihi==1.1.0", "nengo==3.2.0", "numpy<1.24", "scipy<1.11", "setuptools<70"],
    "pynn": ["pynn==0.13.0", "brian2==2.7.1", "numpy<2", "setuptools<70", "cython<3.1"],
    "spynnaker": ["spynnaker==1!7.4.1", "pynn==0.13.0"],
    "snn_mlir": ["snn-mlir==1.0.0", "nir==1.0.8"],
    "brian2_loihi": ["brian2-loihi==0.5.2", "brian2==2.5.4", "numpy<1.25", "setuptools<70", "cython<3.1"],
}
VERSIONS = {
    "snntorch": "snnTorch 1.0.0",
    "spikingjelly": "SpikingJelly 2.0.0",
    "sinabs": "sinabs 3.1.3",
    "rockpool": "Rockpool 3.1.0",
    "norse": "Norse 1.1.0",
    "spyx": "Spyx 1.0.0",
}


class NotInstalled(Exception):
    """The framework cannot be installed here."""


def written_by(framework: str, folder: Path) -> list[dict]:
    """Let a framework write its networks into a folder; return what it says about each.

    Raises:
        NotInstalled: no network, or no build for this machine.
    """
    python, environment = install(framework, folder)
    command = [python, SCRIPT, framework, folder]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment, check=False)
    if completed.returncode:
        raise RuntimeError(completed.stderr)
    return json.loads(completed.stdout.splitlines()[-1])


def install(framework: str, folder: Path, *, also: tuple[str, ...] = ()) -> tuple[Path, dict[str, str]]:
    """Install a framework into a folder; return the Python that has it, and the environment to start it with.

    `SPEAR_TEST_ENVIRONMENTS` names a folder in which environments stay, to be used again.

    Args:
        framework: its name.
        folder: where it goes.
        also: packages in front of it, such as another version of nir.

    Raises:
        NotInstalled: no network, or no build for this machine.
    """
    uv = which("uv") or str(Path(sys.executable).with_name("uv"))
    kept = os.environ.get("SPEAR_TEST_ENVIRONMENTS")
    packages = Path(kept, framework) if kept else folder / "packages"
    python, alone, mark = Path(sys.executable), ALONE | MAPPERS, packages / "is_complete"
    if framework in alone:
        python = packages / "bin/python"
        if not mark.exists():
            _install(uv, "venv", "-q", "--clear", "--python", sys.executable, packages)
            _install(uv, "pip", "install", "-q", "--python", python, *alone[framework])
            mark.touch()
    elif (beside := (BESIDE | HARNESSES)[framework]) and not mark.exists():
        _install(uv, "pip", "install", "-q", "--python", python, "--target", packages, "--no-deps", *beside)
        mark.touch()
    if also:
        _install(uv, "pip", "install", "-q", "--python", python, "--target", folder / "also", "--no-deps", *also)
    path = os.pathsep.join([*([str(folder / "also")] if also else []), str(packages)])
    return python, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "" if framework in alone else path}


def find_tools(names: tuple[str, ...], *, variable: str) -> dict[str, str]:
    """Return an environment whose path begins with the folder that a variable names, and holds these programs.

    Raises:
        NotInstalled: one of them is not on that path.
    """
    path = os.pathsep.join([*filter(None, [os.environ.get(variable)]), os.environ.get("PATH", "")])
    if missing := [name for name in names if which(name, path=path) is None]:
        raise NotInstalled(f"no {', '.join(missing)} on the path; {variable} names the folder that holds {', '.join(names)}")
    return {"PATH": path}


def _install(*command: object) -> None:
    try:
        subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, timeout=400)
    except (OSError, subprocess.SubprocessError) as error:
        text = (getattr(error, "stderr", None) or str(error)).strip()
        raise NotInstalled(f"{' '.join(map(str, command))}: {text.splitlines()[-1]}") from error
