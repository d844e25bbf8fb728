"""Where data made by others lies, and how a test says that it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(name: str) -> Path:
    """Return a path below SPEAR_SHARED (default: `shared` beside the repository), or skip the test."""
    root = Path(os.environ.get("SPEAR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = root / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set SPEAR_SHARED to the folder that holds {name}")
    return path
