"""Imports run down the listing of the folders, and checking a file imports nothing heavy."""

import ast
import configparser
import subprocess
import sys
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

import spear_deploy
from tests.support.statements import walk_statements

ROOT = Path(spear_deploy.__file__).parent

ORDER = (
    "errors", "util", "network", "hardware", "simulator", "data", "norse", "frameworks", "quantize", "placement", "budget",
    "training", "adaptation", "interchange", "pruning", "lava", "report", "pipeline", "cli", "__main__",
)  # fmt: skip
"""The folders from bottom to top: each imports from those before it, at the top of a module and inside its functions."""
RANK = {name: rank for rank, name in enumerate(ORDER)}
HEAVY = ("torch", "norse", "lava", "matplotlib", "sklearn", "gymnasium", "stable_baselines3", "onnxruntime", "optuna", "scipy")
NEED_HEAVY = (
    "norse/", "frameworks/", "lava/", "pruning/search/rl_agents.py", "pruning/search/environment.py",
    "pruning/search/lever_environment.py",
)  # fmt: skip
"""Entered only by who needs the package that they are about."""


def modules() -> list[Path]:
    """Return the package's modules; those of the Lava worker run in a process of their own."""
    return sorted(path for path in ROOT.rglob("*.py") if "worker" not in path.parts)


def folder(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported(path: Path, *, top_only: bool = False) -> tuple[str, ...]:
    """Return the full names that a module imports; what only a type checker reads does not count."""
    tree, names = read_tree(path), []
    for node in tree.body if top_only else walk_statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return tuple(names)


@cache
def read_tree(path: Path) -> ast.Module:
    """Return the code of a module without what only a type checker reads."""
    tree = ast.parse(path.read_text())
    for node in walk_statements(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    return tree


def test_folders_import_downwards_only_lazy_imports_included():
    upwards = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        for name in imported(path)
        if name.startswith("spear_deploy.") and folder(path) != "__init__" and not is_below(name.split(".")[1], folder(path))
    ]
    assert upwards == [] and len(modules()) > 400


def is_below(other: str, here: str) -> bool:
    """Return whether a folder may be imported in another one."""
    return other == here or RANK[other] < RANK[here]


def test_no_module_is_in_a_circle():
    names = {module_name(path) for path in modules()}
    graph = nx.DiGraph()
    for path in modules():
        here = module_name(path)
        if path.name == "__init__.py":
            continue
        for name in imported(path):
            target = name if name in names else name.rpartition(".")[0]
            if target in names and target != here and not (ROOT.parent / target.replace(".", "/")).is_dir():
                graph.add_edge(here, target)
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []


def test_heavy_packages_are_imported_where_they_are_used():
    light = [path for path in modules() if not path.relative_to(ROOT).as_posix().startswith(NEED_HEAVY)]
    found = [(path, name) for path in light for name in imported(path, top_only=True) if name.split(".")[0] in HEAVY]
    assert found == [] and len(light) > 300


def test_the_root_holds_18_folders_the_errors_and_what_python_runs():
    entries = {path.name for path in ROOT.iterdir() if not path.name.startswith("__pycache__")}
    folders = set(ORDER) - {"errors", "__main__"}
    assert entries == {*folders, "errors.py", "__init__.py", "__main__.py", "py.typed"}


def test_setup_cfg_names_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT.parent / "setup.cfg")
    packages = {module_name(path) for path in ROOT.rglob("__init__.py")} | {"spear_deploy.hardware_profiles"}
    assert set(config["options"]["packages"].split()) == packages


def test_init_files_hold_a_docstring_and_names_only():
    for path in ROOT.rglob("__init__.py"):
        if path.parent != ROOT:
            kinds = {type(node).__name__ for node in ast.parse(path.read_text()).body}
            assert kinds <= {"Expr", "ImportFrom", "Assign"}, path


@pytest.mark.parametrize("command", [["--help"], ["profiles"], ["check", "--help"]])
def test_light_commands_import_nothing_heavy(command):
    code = (
        "import sys\nfrom spear_deploy.cli import main\n"
        f"try:\n    main({command!r}, standalone_mode=False)\nexcept SystemExit:\n    pass\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "sys.exit('imported: ' + ', '.join(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names():
    assert spear_deploy.__all__ == [
        "SNNGraph", "adapt", "check", "compare", "count", "demo", "deploy", "export", "load", "prune", "rank", "simulate",
        "verify",
        "weights_into",
    ]  # fmt: skip
    for name in spear_deploy.__all__:
        assert callable(getattr(spear_deploy, name))
    with pytest.raises(AttributeError, match="has no attribute 'prun'; it has SNNGraph, adapt"):
        _ = spear_deploy.prun
