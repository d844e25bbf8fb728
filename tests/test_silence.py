"""The tool tells nobody that it runs: no telemetry, and no files but those that were asked for."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import spear_deploy

PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR")
ONNX = "from spear_deploy.interchange.onnx.model_file import import_onnxruntime; import_onnxruntime()"


def left_behind(folder: Path, *command: str, **environment: str) -> list[str]:
    """Run a command in an empty home, and return every file that it leaves in all of the folder."""
    homes = {name: folder / name for name in PLACES}
    for home in homes.values():
        home.mkdir()
    (folder / "work").mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    here = {**kept, **{name: str(home) for name, home in homes.items()}, **environment}
    done = subprocess.run(
        [sys.executable, *command], env=here, cwd=folder / "work", capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_an_export_leaves_only_what_was_asked_for(tmp_path: Path) -> None:
    found = left_behind(tmp_path, "-m", "spear_deploy.cli", "export", "digits", "--to", "onnx", "--out", "digits.onnx", "--quiet")
    assert found == ["work/certificate.json", "work/digits.onnx"]


def test_a_child_of_the_process_is_as_silent(tmp_path: Path) -> None:
    child = f"{ONNX}; import subprocess, sys; subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)"
    assert left_behind(tmp_path, "-c", child) == []


def test_the_wish_of_the_environment_does_not_bring_telemetry_back(tmp_path: Path) -> None:
    assert left_behind(tmp_path, "-c", ONNX, ORT_DISABLE_TELEMETRY="0") == []


def test_one_module_imports_onnxruntime() -> None:
    root = Path(spear_deploy.__file__).parent
    found = [str(path.relative_to(root)) for path in root.rglob("*.py") if "onnxruntime" in imported(path)]
    assert found == ["interchange/onnx/model_file.py"]


def imported(path: Path) -> set[str]:
    """Names of the packages that a module imports, at its top or within."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
