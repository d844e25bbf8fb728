"""Files of a finished deployment, read from its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spear_deploy.errors import FileError
from spear_deploy.network import Array
from spear_deploy.util.files import read_arrays, read_text

NEEDED = {
    "deployment": ("accuracy", "synops", "norse", "lava", "verdict", "cores_used", "widths", "files", "seconds", "notes", "seed"),
    "search": ("budget", "aim", "synops", "search", "fine_tune", "lre", "method", "widths"),
    "check": ("rows", "energy", "unsupported", "headline", "notes", "latency"),
    "layers": ("dense", "pruned", "quantised"),
    "cores": ("title", "chips", "kinds", "layers", "cores", "resources"),
    "provenance": ("made", "command", "options", "versions", "network", "data", "chip", "sha256"),
}
"""Required keys of the JSON files."""
DEPLOYMENT, PROVENANCE = "deployment.json", "provenance.json"
STAGES = "stages.json"
RASTER = "raster.npz"
AGAIN = "run the deployment again"
"""What to do about a damaged file of a deployment."""
ADAPTATION = "adapt.json"
OTHERS = {ADAPTATION: "adapt", "prune.json": "prune", "front.json": "prune", "sweep.json": "sweep"}
"""Results of other commands, by their files; a deployment that adapts writes the first of them too."""
UNFINISHED = {"checkpoint*.json": "prune", "*/cell.json": "sweep", "*/checkpoint*.json": "sweep"}
"""Files that `prune` and `sweep` leave when they are stopped."""
ORIGIN = ("made", "command", "tool_version")
"""Keys that say how results of `adapt`, `prune` and `sweep` were made."""
ADAPTATION_KEYS = ("chip", "replaced", "accuracy", "waterfall")
"""Required keys of the file of an adaptation, which a deployment of a network that the chip takes as it is does not have."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Contents of the files of a deployment, as `pipeline` writes them.

    Attributes:
        folder: of the files.
        deployment, search, check, layers, cores, provenance: parsed JSON.
        raster: `<layer>.<side>` (T, *shape) of one sample, `sample`, `y`.
        adaptation: parsed JSON, or None where nothing was replaced.
    """

    folder: Path
    deployment: dict[str, Any]
    search: dict[str, Any]
    check: dict[str, Any]
    layers: dict[str, Any]
    cores: dict[str, Any]
    provenance: dict[str, Any]
    raster: dict[str, Array]
    adaptation: dict[str, Any] | None = None


def read_folder(folder: str | os.PathLike[str]) -> Evidence:
    """Read the files of a deployment.

    Raises:
        FileError: the folder is missing or holds no finished deployment, or a file is missing or damaged.
    """
    place = require_finished(folder)
    values = {name: read_json(place / f"{name}.json", keys) for name, keys in NEEDED.items()}
    files = values["deployment"]["files"]
    if not isinstance(files, dict):
        raise FileError(f"file '{place / 'deployment.json'}': 'files' is no list of names and paths; run the deployment again")
    has_adaptation = "adaptation" in files
    adaptation = read_json(place / ADAPTATION, ADAPTATION_KEYS) if has_adaptation else None
    return Evidence(folder=place, raster=read_arrays(place / RASTER, again=AGAIN), adaptation=adaptation, **values)


def require_finished(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a folder after a check that it holds a finished deployment, whatever its files hold.

    Raises:
        FileError: the folder is missing or holds no finished deployment.
    """
    place = Path(folder)
    if not place.is_dir():
        what = "is a file" if place.exists() else "there is no such folder"
        raise FileError(f"folder '{place}': {what}; give the output folder of `deploy` or another command")
    if not (place / DEPLOYMENT).exists():
        is_deployment = (place / STAGES).exists()
        made = next((command for name, command in OTHERS.items() if (place / name).exists()), None)
        if made is not None and not is_deployment:
            raise FileError(
                f"folder '{place}': holds results of `{made}`, no deployment; give the output folder of `deploy` or `demo`"
            )
        stopped = None if is_deployment else _find_unfinished(place)
        if stopped is not None:
            raise FileError(
                f"folder '{place}': holds an unfinished `{stopped}`; run the same command again, which goes on where it stopped"
            )
        again = f"run `spear-deploy deploy ... --out {place}`, which goes on where it stopped"
        advice = again if is_deployment else "give the output folder of `deploy` or another command"
        raise FileError(f"folder '{place}': holds no finished deployment (no deployment.json); {advice}")
    return place


def _find_unfinished(place: Path) -> str | None:
    """Return the command that was stopped while it wrote into a folder; None where it holds nothing of one.

    A folder that holds finished results of `prune` in folders of their own is none of a sweep.
    """
    for pattern, command in UNFINISHED.items():
        if any(not (path.parent / "prune.json").exists() for path in place.glob(pattern)):
            return command
    return None


def read_json(path: Path, keys: tuple[str, ...], *, again: str = AGAIN) -> dict[str, Any]:
    """Read a file of results.

    Args:
        path: of the file.
        keys: that it has to hold.
        again: advice where it is damaged or foreign.

    Raises:
        FileError: it is missing, damaged, or lacks a key.
    """
    try:
        value = json.loads(read_text(path, "file of a deployment"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"file '{path}': is damaged ({str(error)[:80]}); {again}") from error
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise FileError(f"file '{path}': has no '{missing[0]}', it is of another version or foreign; {again}")
    return dict(value)


def read_origin(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return when, by which version and by which command results were made; None where an earlier release wrote them."""
    return {name: facts[name] for name in ORIGIN} if set(ORIGIN) <= set(facts) else None


def read_network_digest(folder: str | os.PathLike[str], results: str = DEPLOYMENT) -> str | None:
    """Return the digest of the network that results were made of; None where they state none, as those of a sweep.

    Args:
        folder: of the results.
        results: their file; of a deployment the provenance states the network.
    """
    name, keys = (PROVENANCE, ("network", "digest")) if results == DEPLOYMENT else (results, ("network_digest",))
    try:
        digest = json.loads(read_text(Path(folder) / name, "file of results"))
        for key in keys:
            digest = digest[key]
    except (FileError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) else None
