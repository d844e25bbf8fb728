"""Is this the same input as before? Digests of data, profiles, networks, files, and of the code that works on them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import spear_deploy
from spear_deploy.graph import SNNGraph

if TYPE_CHECKING:
    from spear_deploy.data import Dataset
    from spear_deploy.profile import HardwareProfile

PACKAGES = (
    "spear-deploy", "numpy", "torch", "norse", "lava-nc", "stable-baselines3", "gymnasium", "networkx", "scikit-learn", "nir",
    "h5py", "onnx", "onnxruntime",
)  # fmt: skip
"""What the numbers of a deployment depend on."""


def of_value(value: Any) -> str:
    """Return the sha256 of plain data.

    >>> of_value({"a": 1, "b": 2}) == of_value({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def of_file(path: Path) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def of_network(graph: SNNGraph) -> str:
    """Return the sha256 of the `.snn` file that holds a network: the same network always gives the same bytes."""
    from spear_deploy.interchange.snn_file import write_snn

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.snn"
        write_snn(graph, path)
        return of_file(path)


def of_data(dataset: Dataset) -> str:
    """Return the sha256 of all samples and labels, with their types, shapes and splits."""
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        for array in (split.x, split.y):
            digest.update(f"{name} {split.kind} {array.dtype.str} {array.shape};".encode())
            for part in array:  # sample by sample: a view of a large file is never copied as a whole
                digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def of_profile(profile: HardwareProfile) -> str:
    """Return the sha256 of every fact of a profile, with sources."""
    return of_value(profile.model_dump(mode="json", by_alias=True))


@lru_cache(maxsize=1)
def of_code() -> str:
    """Return the sha256 of this package's modules: a stage of other code is not the same stage."""
    root = Path(spear_deploy.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()};".encode() + path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on; one that is not installed is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
