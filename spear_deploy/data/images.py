"""Image files: IDX of MNIST and its relatives, binary CIFAR-10.

IDX: two zero bytes, a type byte (0x08: uint8), the number of axes, each size as big-endian 32 bits, then the values.
CIFAR-10, binary: records of a label byte and 3072 bytes of red, green and blue 32 × 32. Its Python version is a pickle,
which can run code when read, and is refused.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import DataError, FileError
from spear_deploy.network import Array
from spear_deploy.util.files import read_bytes, require_file

CIFAR_RECORD = 1 + 3 * 32 * 32
MAX_BYTES = 1 << 32
"""Largest size of an unpacked image file."""


def read_idx(path: Path) -> Array:
    """Return the array of an IDX file, compressed or not.

    Raises:
        FileError: not IDX, of another type than uint8, or with fewer values than its header states.
    """
    data = _read_bytes(require_file(path, "IDX file"))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != 0x08:
        raise FileError(f"file '{path}': is no IDX file of bytes; expected one that begins with 00 00 08")
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise FileError(f"file '{path}': ends within its header; fetch it again")
    shape = struct.unpack(f">{axes}I", data[4:start])
    size = 1
    for n in shape:
        size *= n
    if len(data) - start != size:
        raise FileError(f"file '{path}': holds {len(data) - start} values, its header says {size}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_idx_folder(folder: Path) -> dict[str, Any] | None:
    """Return the arrays of a folder with the four IDX files of MNIST or its relatives, or None if it has none.

    Intensities are 0..1, (N, 1, H, W).
    """
    if not any(folder.glob("*-images*idx3-ubyte*")):
        return None
    arrays: dict[str, Any] = {}
    for which, names in (("train", ("train",)), ("test", ("t10k", "test"))):
        images, labels = (_find_part(folder, names, part) for part in ("images", "labels"))
        x, y = read_idx(images), read_idx(labels)
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
            raise DataError(f"folder '{folder}': {x.shape} images and {y.shape} labels for {which} do not go together")
        arrays |= {f"x_{which}": (x / np.float32(255))[:, None], f"y_{which}": y.astype(np.int64)}
    return arrays


def read_cifar_folder(folder: Path) -> dict[str, Any] | None:
    """Return the arrays of a folder with CIFAR-10's binary batches, or None if it has none; intensities 0..1, (N, 3, 32, 32)."""
    train = sorted(folder.glob("data_batch_*.bin"))
    if not train:
        if any(folder.glob("data_batch_[0-9]")):
            raise DataError(
                f"folder '{folder}': holds CIFAR-10's Python version, which is pickled and never loaded; take the binary version"
            )
        return None
    arrays: dict[str, Any] = {}
    for which, files in (("train", train), ("test", [folder / "test_batch.bin"])):
        records = np.concatenate([_read_cifar_records(path) for path in files])
        images = records[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255)
        arrays |= {f"x_{which}": images, f"y_{which}": records[:, 0].astype(np.int64)}
    return arrays


def _read_cifar_records(path: Path) -> Array:
    data = read_bytes(path, "CIFAR-10 batch (binary)")
    if len(data) % CIFAR_RECORD:
        raise FileError(f"file '{path}': {len(data)} bytes are no whole number of records of {CIFAR_RECORD}; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD)


def _find_part(folder: Path, names: tuple[str, ...], part: str) -> Path:
    for name in names:
        for path in sorted(folder.glob(f"{name}*{part}*ubyte*")):
            return path
    raise DataError(
        f"folder '{folder}': has no {part} file for {names[0]}, e.g. {names[0]}-{part}-idx{3 if part == 'images' else 1}-ubyte"
    )


def _read_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"file '{path}': cannot be unpacked ({error}); fetch it again") from error
    if len(data) > MAX_BYTES:
        raise FileError(f"file '{path}': unpacks to more than {MAX_BYTES} bytes; it is no image collection")
    return data
