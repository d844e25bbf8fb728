"""No telemetry, and no files but the requested ones."""

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


def test_an_export_leaves_only_its_two_files(tmp_path: Path) -> None:
    result = left_behind(
        tmp_path, "-m", "spear_deploy.cli", "export", "digits", "--to", "onnx", "--out", "digits.onnx", "--quiet"
    )
    assert result == ["work/certificate.json", "work/digits.onnx"]


def test_a_child_process_writes_no_files_either(tmp_path: Path) -> None:
    child = f"{ONNX}; import subprocess, sys; subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)"
    assert left_behind(tmp_path, "-c", child) == []


def test_the_environment_cannot_switch_telemetry_back_on(tmp_path: Path) -> None:
    assert left_behind(tmp_path, "-c", ONNX, ORT_DISABLE_TELEMETRY="0") == []


def test_one_module_imports_onnxruntime() -> None:
    root = Path(spear_deploy.__file__).parent
    result = [str(path.relative_to(root)) for path in root.rglob("*.py") if "onnxruntime" in imported(path)]
    assert result == ["interchange/onnx/model_file.py"]


def imported(path: Path) -> set[str]:
    """Names of the packages that a module imports, at its top or within."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
