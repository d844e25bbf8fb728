"""Hardware profiles that come with the toolkit: names, texts, summaries.

Without the model that checks them, since a list of chips should not wait for the import of pydantic; tests check these files.
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


def read_profile_text(name: str) -> str:
    """Return the YAML text of a profile that comes with the toolkit."""
    return resources.files(FOLDER).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")


def summarize_profiles() -> list[dict[str, Any]]:
    """Return name, title, aliases, usable cores, variants and chips by board of each profile that comes with the toolkit.

    >>> next(profile["boards"] for profile in summarize_profiles() if profile["name"] == "spinnaker1")
    {'spin3': 4, 'spin5': 48}
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [_summarize(yaml.load(read_profile_text(name), Loader=loader)) for name in list_profiles()]


def _summarize(data: dict[str, Any]) -> dict[str, Any]:
    meta, chip = data["meta"], data["chip"]
    return {
        "name": data["name"],
        "title": meta["title"],
        "aliases": meta.get("aliases", []),
        "cores": chip["usable_cores"]["value"],
        "variants": [f"{data['name']}@{name}" for name in data.get("variants", {})],
        "boards": {board: fact["value"] for board, fact in chip.get("boards", {}).items()},
    }
