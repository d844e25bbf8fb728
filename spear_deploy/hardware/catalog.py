"""Which profiles come with the toolkit? Their names, texts and headlines, without the model that checks them.

Kept apart from it, since a list of chips should not wait for a validator: tests check these files.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

FOLDER = "spear_deploy.hardware_profiles"
SUFFIX = ".yaml"


def list_profiles() -> list[str]:
    """Return the names of the profiles that come with the toolkit."""
    return sorted(file.name.removesuffix(SUFFIX) for file in resources.files(FOLDER).iterdir() if file.name.endswith(SUFFIX))


def profile_text(name: str) -> str:
    """Return the YAML text of a profile that comes with the toolkit."""
    return resources.files(FOLDER).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")


def summaries() -> list[dict[str, Any]]:
    """Return of each profile that comes with the toolkit: name, title, aliases, usable cores, and chips by board.

    >>> next(line["boards"] for line in summaries() if line["name"] == "spinnaker1")
    {'spin3': 4, 'spin5': 48}
    """
    return [
        _summary(yaml.load(profile_text(name), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))) for name in list_profiles()
    ]


def _summary(data: dict[str, Any]) -> dict[str, Any]:
    meta, chip = data["meta"], data["chip"]
    return {
        "name": data["name"],
        "title": meta["title"],
        "aliases": meta.get("aliases", []),
        "cores": chip["usable_cores"]["value"],
        "boards": {board: leaf["value"] for board, leaf in chip.get("boards", {}).items()},
    }
