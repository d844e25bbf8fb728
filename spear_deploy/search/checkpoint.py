"""What was measured already? A JSON file, so that a search that was stopped goes on where it was.

Searchers are deterministic given the scores of their plans. So the scores are all that has to be kept: run again, a search
is replayed from them in no time, and goes on with the first plan that was never measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from spear_deploy.errors import FileError
from spear_deploy.files import write_json

FORMAT = 2


class Checkpoint:
    """Measurements by key, written after each new one from `begin` on. Without a path they are kept in memory alone.

    Args:
        path: of the file; it is read if it exists.
        digest: of all that the measurements depend on.

    Raises:
        FileError: the file is of another network, other data or another version, or is damaged.

    Attributes:
        found: how many measurements were read.
    """

    def __init__(self, path: Path | None = None, digest: str = "") -> None:
        self.path, self.digest = path, digest
        self._rows: dict[str, Any] = {}
        if path is not None and path.exists():
            self._rows = _read(path, digest)
        self.found = len(self._rows)
        self._writes = False

    def begin(self) -> None:
        """Write from now on: before it is known that there is something to search, nothing shall be left behind."""
        self._writes = self.path is not None

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """Return the plain data that was measured under a key, or measure and keep it."""
        if key not in self._rows:
            self._rows[key] = measure()
            if self._writes and self.path is not None:
                write_json(self.path, {"format": FORMAT, "version": version(), "of": self.digest, "measured": self._rows})
        return self._rows[key]

    def __contains__(self, key: str) -> bool:
        return key in self._rows


def version() -> str:
    """Return the version of the toolkit that measures."""
    try:
        return metadata.version("spear-deploy")
    except metadata.PackageNotFoundError:
        return "unknown"


def _read(path: Path, digest: str) -> dict[str, Any]:
    advice = "choose another folder, or remove the file to start anew"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows, of, form, made = data["measured"], data["of"], data["format"], data["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"checkpoint '{path}': cannot be read ({type(error).__name__}); {advice}") from error
    if form != FORMAT or made != version():
        raise FileError(f"checkpoint '{path}': was written by version {made}, this is {version()}; {advice}")
    if of != digest or not isinstance(rows, dict):
        raise FileError(f"checkpoint '{path}': is of another network, other data or other settings; {advice}")
    return rows
