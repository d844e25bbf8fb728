"""What does an HDF5 file of another tool hold? Read as data, whole, and never more than the file can hold.

NIR and netx are HDF5. A damaged or hostile file may point outside itself, at itself, declare arrays that it does not store,
or make the library that reads it hang; so everything is read in one place, into plain dictionaries, by a process with limits
(`hdf5_process`), before anything is made of it.

A file of n bytes may hold 64 MiB + 100 · n bytes of arrays. That much is shared with the other process, which may take twice
that and 64 MiB for its work, and 3 s + n / 8 MiB/s of a processor.
"""

from __future__ import annotations

import mmap
import os
import signal
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.errors import FileError
from spear_deploy.interchange.hdf5 import reader_process
from spear_deploy.network import Array
from spear_deploy.util.files import existing_file

Tree: TypeAlias = dict[str, Any]
"""Names to numpy arrays (read-only), strings, or further trees."""

LARGEST_RATIO = 1100
"""Deflate compresses by at most 1032; a data set that declares more than this times what it stores is not read."""
SMALL_BYTES = 4096
MOST_NODES = 100_000
DEEPEST = 32
FREE_BYTES = 64 << 20
BYTES_PER_BYTE = 100
"""Weights are small whole numbers, often most of them 0: they compress well, by 10 to 50. A file that is nothing but zeros
compresses by 1000 and is refused beyond 64 MiB."""
WORK = 2
"""The arrays, and as much again to decompress them."""
LEAST_CPU_S = 3
BYTES_PER_CPU_S = 8 << 20
WALL_PER_CPU = 20
"""A busy machine or a slow disk may take this many times longer than the processor."""


def most_bytes(file_bytes: int) -> int:
    """Return how many bytes of arrays a file of this size may hold."""
    return FREE_BYTES + BYTES_PER_BYTE * file_bytes


def read_tree(path: str | os.PathLike[str], what: str) -> Tree:
    """Read an HDF5 file into nested dictionaries of arrays and strings.

    Args:
        path: the file.
        what: what it is expected to be, for the error, e.g. "NIR file".

    Raises:
        FileError: missing, empty, not HDF5, damaged, linked to other files, or larger inside than it can be.
    """
    source = existing_file(path, what)
    size = source.stat().st_size
    cpu_s = LEAST_CPU_S + size // BYTES_PER_CPU_S
    limits = {
        "bytes": most_bytes(size),
        "working_bytes": WORK * most_bytes(size) + FREE_BYTES,
        "ratio": LARGEST_RATIO,
        "small_bytes": SMALL_BYTES,
        "entries": MOST_NODES,
        "depth": DEEPEST,
        "cpu_s": cpu_s,
        "wall_s": cpu_s * WALL_PER_CPU,
    }
    try:
        reply = reader_process.ask(source, limits)
    except OSError as error:
        raise FileError(f"file '{source}': cannot be read ({error.strerror}); check its permissions") from error
    try:
        if reply.ended:
            raise FileError(f"file '{source}': is damaged ({_how(reply.ended, limits)}); write it again")
        if "damaged" in reply.found:
            raise FileError(f"file '{source}': is damaged ({reply.found['damaged']}); write it again")
        if "unreadable" in reply.found:
            foreign = f", a {what} is; check that the file is complete" if reply.found["unreadable"] == "is not HDF5" else ""
            raise FileError(f"file '{source}': {reply.found['unreadable']}{foreign}")
        return _tree(reply.found["tree"], _mapped(reply.arrays))
    finally:
        os.close(reply.arrays)


def _how(ended: int, limits: dict[str, int]) -> str:
    """Say in words how reading ended."""
    if ended == reader_process.OUT_OF_MEMORY:
        return f"it asks for more than the {limits['working_bytes']} bytes that a file of its size may"
    if ended in (-signal.SIGXCPU, -signal.SIGALRM):
        return f"reading it takes more than {limits['cpu_s']} s"
    return "the library that reads HDF5 crashes on it"


def _mapped(file: int) -> memoryview:
    size = os.fstat(file).st_size
    return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ) if size else b"")


def _tree(found: dict[str, Any], memory: memoryview) -> Tree:
    return {name: _value(item, memory) for name, item in found.items()}


def _value(item: dict[str, Any], memory: memoryview) -> Any:
    if "group" in item:
        return _tree(item["group"], memory)
    if "text" in item:
        return item["text"]
    if "texts" in item:
        texts = np.empty(len(item["texts"]), object)
        texts[:] = item["texts"]
        return texts.reshape(item["shape"])
    start, dtype, shape = item["array"]
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, dtype)
    array: Array = np.frombuffer(memory, dtype, count, start).reshape(shape)
    return array


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
