"""No telemetry, and no files but the requested ones."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import spear_deploy
from spear_deploy.interchange.snn_file import write_snn
from tests.support.deployments import OPTIONS, arrays, dense
from tests.support.statements import walk_statements

PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR")
ONNX = "from spear_deploy.interchange.onnx.model_file import import_onnxruntime; import_onnxruntime()"


NO_NETWORK = str(Path(__file__).parent / "support" / "no_network.py")
KERNELS = """
import numpy as np
from spear_deploy.simulator import compiled_kernels
spikes, starts, outputs = np.ones((1, 2), np.uint8), np.array([0, 3, 6]), np.array([0, 1, 2, 0, 1, 2])
sums = np.zeros((1, 3), np.int32)
compiled_kernels.sum_sparse(spikes, starts, outputs, np.ones(6, np.int8), np.zeros(3, np.int32), 0, sums)
assert sums.tolist() == [[2, 2, 2]]
"""


def left_behind(folder: Path, *command: str, **environment: str) -> list[str]:
    """Run Python in an empty home, and return every file that it leaves in all of the folder."""
    return run_in_empty_home(folder, sys.executable, *command, **environment)[0]


def run_in_empty_home(folder: Path, *command: str, **environment: str) -> tuple[list[str], str]:
    """Run a command in an empty home, and return every file that it leaves in all of the folder, and what it printed."""
    homes = {name: folder / name for name in PLACES}
    for home in homes.values():
        home.mkdir()
    (folder / "work").mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    here = {**kept, **{name: str(home) for name, home in homes.items()}, **environment}
    done = subprocess.run(command, env=here, cwd=folder / "work", capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()), done.stdout


def test_an_export_leaves_only_its_two_files(tmp_path: Path) -> None:
    result = left_behind(
        tmp_path, "-m", "spear_deploy.cli", "export", "digits", "--to", "onnx", "--out", "digits.onnx", "--quiet"
    )
    assert result == ["work/certificate.json", "work/digits.onnx"]


@pytest.mark.lava
def test_a_deployment_leaves_only_its_folder_and_looks_nothing_up(tmp_path: Path) -> None:
    write_snn(dense(), tmp_path / "net.snn")
    np.savez(tmp_path / "task.npz", **arrays())
    options = [part for key, value in OPTIONS.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    command = ["deploy", "../net.snn", "--chip", "loihi2", "--data", "../task.npz", *options, "--out", "out", "--quiet"]
    program = [sys.executable, "-m", "spear_deploy.cli", *command]
    if has_namespaces():
        program = ["unshare", "-rnm", sys.executable, NO_NETWORK, *program]
    found, printed = run_in_empty_home(tmp_path, *program)
    others = [path for path in found if not path.startswith("work/out/")]
    assert others == ["net.snn", "task.npz"] and "work/out/report.html" in found
    if has_namespaces():
        facts = json.loads(printed.splitlines()[-1])
        assert facts["on_purpose"] > 0 and facts["queries"] == []


@cache
def has_namespaces() -> bool:
    """Return whether this machine lets a user make a network of its own with a name server."""
    command = ["unshare", "-rnm", sys.executable, NO_NETWORK, "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.lava
def test_a_demo_leaves_only_its_folder(tmp_path: Path) -> None:
    result = left_behind(tmp_path, "-m", "spear_deploy.cli", "demo", "--out", "out", "--quiet")
    assert "work/out/report.html" in result and all(path.startswith("work/out/") for path in result)


def test_machine_code_is_kept_beside_the_modules_or_nowhere(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    kept, not_kept = tmp_path / "kept", tmp_path / "not_kept"
    kept.mkdir()
    not_kept.mkdir()
    assert left_behind(kept, "-c", KERNELS) == []
    assert left_behind(not_kept, "-c", f"import os; os.access = lambda *_: False{KERNELS}") == []


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
    nodes = list(walk_statements(ast.parse(path.read_text())))
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
