"""Bounded reading of HDF5 files into dictionaries of arrays.

NIR, netx and SHD are HDF5. A damaged or hostile file may point outside itself, at itself, declare arrays that it does not store,
or make the HDF5 library hang. So a file is read whole into plain dictionaries, by a process with limits (`reader_process`),
before a network or a dataset is built from it.

A file of n bytes may hold 64 MiB + 100 · n bytes of arrays. That much is shared with the other process, which may take twice
that and 64 MiB for its work, and 3 s + n / 8 MiB/s of a processor.
"""

from __future__ import annotations

import mmap
import os
import signal
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spear_deploy.errors import FileError
from spear_deploy.util.files import explain_unreadable, require_file
from spear_deploy.util.hdf5 import reader_process

Tree: TypeAlias = dict[str, Any]
"""Names to numpy arrays (read-only), strings, lists of arrays (rows of different lengths), or further trees."""

MAX_RATIO = 1100
"""Deflate compresses by at most 1032; a data set that declares more than this times what it stores is not read."""
SMALL_BYTES = 4096
MAX_ENTRIES = 100_000
MAX_DEPTH = 32
FREE_BYTES = 64 << 20
BYTES_PER_BYTE = 100
"""Weights are small whole numbers, often most of them 0: they compress well, by 10 to 50. A file that is nothing but zeros
compresses by 1000 and is refused beyond 64 MiB."""
WORKING_FACTOR = 2
"""Working memory in units of the arrays: the arrays, and as much again to decompress them."""
MIN_CPU_S = 3
BYTES_PER_CPU_S = 8 << 20
WALL_PER_CPU = 20
"""A busy machine or a slow disk may take this many times longer than the processor."""


def max_array_bytes(file_bytes: int) -> int:
    """Return how many bytes of arrays a file of this size may hold."""
    return FREE_BYTES + BYTES_PER_BYTE * file_bytes


def read_tree(path: str | os.PathLike[str], what: str) -> Tree:
    """Read an HDF5 file into nested dictionaries of arrays and strings.

    Args:
        path: the file.
        what: kind of file, for the error, e.g. "NIR file".

    Raises:
        FileError: missing, empty, not HDF5, damaged, linked to other files, or larger inside than it can be.
    """
    source = require_file(path, what)
    with explain_unreadable(source):
        size = source.stat().st_size
    cpu_s = MIN_CPU_S + size // BYTES_PER_CPU_S
    limits = {
        "bytes": max_array_bytes(size),
        "working_bytes": WORKING_FACTOR * max_array_bytes(size) + FREE_BYTES,
        "ratio": MAX_RATIO,
        "small_bytes": SMALL_BYTES,
        "entries": MAX_ENTRIES,
        "depth": MAX_DEPTH,
        "cpu_s": cpu_s,
        "wall_s": cpu_s * WALL_PER_CPU,
    }
    with explain_unreadable(source):
        reply = reader_process.read_in_process(source, limits)
    try:
        if reply.exit_status:
            raise FileError(f"file '{source}': is damaged ({_describe_exit(reply.exit_status, limits)}); write it again")
        if "damaged" in reply.result:
            raise FileError(f"file '{source}': is damaged ({reply.result['damaged']}); write it again")
        if "unreadable" in reply.result:
            foreign = f", a {what} is; check that the file is complete" if reply.result["unreadable"] == "is not HDF5" else ""
            raise FileError(f"file '{source}': {reply.result['unreadable']}{foreign}")
        arrays_bytes = os.fstat(reply.arrays).st_size
        memory = mmap.mmap(reply.arrays, arrays_bytes, access=mmap.ACCESS_READ) if arrays_bytes else b""
        return _decode_group(reply.result["tree"], memoryview(memory))
    finally:
        os.close(reply.arrays)


def _describe_exit(status: int, limits: dict[str, int]) -> str:
    """Return the reason why the reader process ended early, in words."""
    if status == reader_process.OUT_OF_MEMORY:
        return f"it asks for more than the {limits['working_bytes']} bytes that a file of its size may"
    if status in (-signal.SIGXCPU, -signal.SIGALRM):
        return f"reading it takes more than {limits['cpu_s']} s"
    return "the library that reads HDF5 crashes on it"


def _decode_group(group: dict[str, Any], memory: memoryview) -> Tree:
    return {name: _decode_item(item, memory) for name, item in group.items()}


def _decode_item(item: dict[str, Any], memory: memoryview) -> Any:
    if "group" in item:
        return _decode_group(item["group"], memory)
    if "text" in item:
        return item["text"]
    if "texts" in item:
        texts = np.empty(len(item["texts"]), object)
        texts[:] = item["texts"]
        return texts.reshape(item["shape"])
    if "rows" in item:
        return np.split(_view(item["rows"], memory), np.cumsum(item["lengths"])[:-1]) if item["lengths"] else []
    return _view(item["array"], memory)


def _view(place: list[Any], memory: memoryview) -> NDArray[Any]:
    """Return the array at (start, type, shape) of the shared memory."""
    start, dtype, shape = place
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, dtype)
    array: NDArray[Any] = np.frombuffer(memory, dtype, count, start).reshape(shape)
    return array


# ---------------------------------------------------------------------------------------------- values of a tree's items


def decode_text(value: Any) -> str | None:
    """Return stored text, also from bytes or an array of one item; None if it is no text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value if isinstance(value, str) else None


def decode_integers(value: Any) -> tuple[int, ...] | None:
    """Return stored integers, also from floats that are whole; None if a number is not whole or beyond 2^31."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return None
    flat = value.reshape(-1).astype(np.float64)
    if not np.isfinite(flat).all() or (flat != np.rint(flat)).any() or (np.abs(flat) > 2**31).any():
        return None
    return tuple(int(n) for n in flat)
