"""SHA-256 digests of plain data, files and the package's code."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

PACKAGES = (
    "spear-deploy", "numpy", "torch", "norse", "lava-nc", "stable-baselines3", "gymnasium", "networkx", "scikit-learn", "nir",
    "h5py", "onnx", "onnxruntime",
)  # fmt: skip
"""Packages whose versions change the numbers of a deployment."""


def hash_value(value: Any) -> str:
    """Return the sha256 of plain data.

    >>> hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hash_open_file(file)


def hash_open_file(file: IO[bytes]) -> str:
    """Return the sha256 of what an open file holds from its position on."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def hash_code() -> str:
    """Return the sha256 of this package's modules; a cached stage is valid for the same code only."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()};".encode() + path.read_bytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of the installed `PACKAGES`."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
