"""SHA-256 digests of plain data, arrays, files and the package's code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

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


def hash_content(value: Any) -> str:
    """Return the sha256 of numbers, text and arrays, and of mappings, sequences and dataclasses of these.

    Raises:
        TypeError: something else, such as a function, whose content is not known.

    >>> hash_content({"a": np.zeros(2), "b": 1}) == hash_content({"b": 1, "a": np.zeros(2)})
    True
    """
    digest = hashlib.sha256()
    _add_content(value, digest)
    return digest.hexdigest()


def _add_content(value: Any, digest: Any) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape};".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif is_dataclass(value) and not isinstance(value, type):
        digest.update(f"{type(value).__name__};".encode())
        _add_content({field.name: getattr(value, field.name) for field in fields(value)}, digest)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)};".encode())
        for key in sorted(value, key=repr):
            _add_content(key, digest)
            _add_content(value[key], digest)
    elif isinstance(value, (list, tuple)):
        digest.update(f"sequence {len(value)};".encode())
        for item in value:
            _add_content(item, digest)
    else:
        raise TypeError(
            f"digest: the content of a {type(value).__name__} is not known; give numbers, text, arrays or dataclasses"
        )


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
