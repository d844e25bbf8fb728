"""What does an HDF5 file of another tool hold? Read as data, whole, and never more than the file can hold.

NIR and netx are HDF5. A damaged or hostile file may point outside itself, at itself, or declare arrays that it does not
store; so everything is read in one place, into plain dictionaries, before anything is made of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import FileError
from spear_deploy.files import existing_file

Tree: TypeAlias = dict[str, Any]
"""Names to numpy arrays, strings, or further trees."""

LARGEST_RATIO = 1100
"""Deflate compresses by at most 1032; a data set that declares more than this times what it stores is not read."""
SMALL_BYTES = 4096
MOST_NODES = 100_000
DEEPEST = 32


def read_tree(path: str | os.PathLike[str], what: str) -> Tree:
    """Read an HDF5 file into nested dictionaries of arrays and strings.

    Args:
        path: the file.
        what: what it is expected to be, for the error, e.g. "NIR file".

    Raises:
        FileError: missing, empty, not HDF5, damaged, linked to other files, or larger inside than it can be.
    """
    source = existing_file(path, what)
    import h5py

    try:
        if not h5py.is_hdf5(source):
            raise FileError(f"file '{source}': is not HDF5, a {what} is; check that the file is complete")
        with h5py.File(source, "r") as file:
            return _group(file, source, depth=0, seen=[0])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise FileError(f"file '{source}': is damaged ({reason}); write it again") from error


def _group(group: Any, source: Path, *, depth: int, seen: list[int]) -> Tree:
    import h5py

    if depth > DEEPEST:
        raise FileError(f"file '{source}': groups are nested more than {DEEPEST} deep; write it again")
    tree: Tree = {}
    for name in group:
        seen[0] += 1
        if seen[0] > MOST_NODES:
            raise FileError(f"file '{source}': holds more than {MOST_NODES} entries; write it again")
        place = f"{group.name}/{name}".lstrip("/")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FileError(f"file '{source}': '{place}' points to another place; write the network into one file without links")
        item = group[name]
        if isinstance(item, h5py.Group):
            tree[name] = _group(item, source, depth=depth + 1, seen=seen)
        elif isinstance(item, h5py.Dataset):
            tree[name] = _value(item, source, place)
    return tree


def _value(data: Any, source: Path, place: str) -> Any:
    import h5py

    if data.external or data.is_virtual:
        raise FileError(f"file '{source}': '{place}' lies in another file; write the network into one file")
    if data.shape is None:
        raise FileError(f"file '{source}': '{place}' is empty; write it again")
    text = h5py.check_string_dtype(data.dtype) is not None
    if data.dtype.kind not in "biufSO" or (data.dtype.kind == "O" and not text):
        raise FileError(f"file '{source}': '{place}' holds {data.dtype}, expected numbers or text")
    count = int(np.prod([int(n) for n in data.shape], dtype=object)) if data.shape else 1
    declared, stored = count * max(1, data.dtype.itemsize), data.id.get_storage_size()
    if declared > SMALL_BYTES and declared > LARGEST_RATIO * min(stored, source.stat().st_size):
        raise FileError(f"file '{source}': '{place}' declares {declared} bytes and stores {stored}; write it again")
    value = data[()]
    if not text:
        return np.asarray(value)
    if np.ndim(value) == 0:
        return _text(value)
    flat = np.array([_text(item) for item in np.asarray(value).ravel()], object)
    return flat.reshape(np.shape(value))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# ------------------------------------------------------------------------------------------- taking values from a tree


def text_of(value: Any) -> str | None:
    """Return a stored name whether it was stored as text, bytes or an array of one of them; None if it is no text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value if isinstance(value, str) else None


def whole_numbers(value: Any) -> tuple[int, ...] | None:
    """Return stored sizes as whole numbers whether they were stored as integers or floats; None if they are none."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return None
    flat = value.reshape(-1).astype(np.float64)
    if not np.isfinite(flat).all() or (flat != np.rint(flat)).any() or (np.abs(flat) > 2**31).any():
        return None
    return tuple(int(n) for n in flat)
