"""Who may import whom, and what must not be imported to check a file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spear_deploy

ROOT = Path(spear_deploy.__file__).parent

ORDER = [
    {"errors", "profile_folder", "progress"},
    {"files"},
    {"layers", "profile_leaves"},
    {"profile_costs"},
    {"profile_schema"},
    {"profile_file"},
    {"graph", "profile", "profile_template"},
    {"linear", "neurons", "memory"},
    {"stepper"},
    {"simulator"},
    {"synops", "pruning", "comparison", "layer_values"},
    {"quantize", "counting_rules", "recordings", "projections", "weight_widths", "words", "notebook"},
    {"delay_sets"},
    {"populations"},
    {"fan"},
    {"synapse_memory"},
    {"placement"},
    {"traffic"},
    {"latency"},
    {"energy"},
    {"interchange", "lava_backend", "norse_backend", "budget"},
    {"data", "spike_price"},
    {"training"},
    {"digests"},
    {"explain", "search"},
    {"ranking", "sarif", "budget_file"},
    {"networks"},
    {"nets"},
    {"sides"},
    {"verbs"},
    {"report"},
    {"pipeline"},
    {"console"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = ("torch", "norse", "lava", "matplotlib", "sklearn", "gymnasium", "stable_baselines3", "onnxruntime", "optuna", "scipy")


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if "worker" not in path.parts)


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path, *, top_only: bool = False):
    """Yield the names that a module imports; what only a type checker reads does not count."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "spear_deploy" else [node.module]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    here = room(path)
    if here == "__init__":
        return
    for name in imported(path, top_only=True):
        if name.startswith("spear_deploy."):
            other = name.split(".")[1]
            assert other == here or RANK[other] < RANK[here], f"{here} imports {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    if "norse" in path.name or path.name in ("agents.py", "environment.py") or room(path) == "lava_backend":
        return  # these rooms are entered only when the package they are about is needed
    assert not [name for name in imported(path, top_only=True) if name.split(".")[0] in HEAVY]


def test_every_room_has_a_place():
    assert {room(path) for path in modules()} - {"__init__"} <= set(RANK)


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
        "SNNGraph", "check", "compare", "count", "demo", "deploy", "export", "load", "prune", "rank", "simulate",
    ]  # fmt: skip
    for name in spear_deploy.__all__:
        assert callable(getattr(spear_deploy, name))
    with pytest.raises(AttributeError, match="has no attribute 'prun'; it has SNNGraph, check"):
        _ = spear_deploy.prun
