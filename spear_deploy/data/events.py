"""Event recordings (N-MNIST, AEDAT, SHD) as counts per time step.

N-MNIST        records of 40 bits: x, y, polarity << 7 and 23 bits of time in µs; a folder has Train/<label>/*.bin and
               Test/<label>/*.bin
npz            the same records of many recordings: `raw` (E, 5) uint8, `offset` (N + 1,) or (N,), `label` (N,)
AEDAT 3.1      packets of polarity events (DVS128 Gesture); a folder has train/<label>/*.aedat and test/<label>/*.aedat
AEDAT 2.0      32 bits of address and 32 of time in µs, big-endian, of a 128 × 128 sensor
SHD (HDF5)     `spikes/times`, `spikes/units`, `labels`
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data.encoders import bin_events
from spear_deploy.errors import DataError, FileError
from spear_deploy.network import Array, Shape
from spear_deploy.util.files import read_bytes
from spear_deploy.util.hdf5.tree import read_tree
from spear_deploy.util.memory import free_bytes
from spear_deploy.util.number_format import byte_size
from spear_deploy.util.printable import escape_hidden

RECORD_BYTES = 5
MAX_UNITS = 1 << 20
"""Units of a recording for a network that is not known; SHD has 700."""
POLARITY_EVENTS = 1
"""Type of a packet of AEDAT 3.1 with brightness changes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """One recording.

    Attributes:
        x, y, p: (E,) column, row and polarity (0, 1).
        time_s: (E,) seconds from the first event.
    """

    x: Array
    y: Array
    p: Array
    time_s: Array

    def frames(self, shape: Shape, steps: int, duration_s: float | None = None) -> Array:
        """Count the events in `steps` equal intervals: (T, 2, H, W) uint16; by default over the recording's own length."""
        _, height, width = shape
        if len(self.x) and (self.x.max() >= width or self.y.max() >= height):
            raise DataError(f"an event at x {self.x.max()}, y {self.y.max()} is outside a sensor of {width} x {height}")
        length = duration_s or (float(self.time_s.max(initial=0.0)) * (1 + 1e-9) or 1.0)
        place = (self.p.astype(np.int64) * height + self.y) * width + self.x
        return bin_events(self.time_s, place, 2 * height * width, steps, duration_s=length).reshape(steps, *shape)


def parse_nmnist(raw: Array) -> Events:
    """Return the events of N-MNIST's 40-bit records, (E, 5) uint8."""
    wide = raw.astype(np.int64)
    time_us = (wide[:, 2] & 0x7F) << 16 | wide[:, 3] << 8 | wide[:, 4]
    return Events(x=wide[:, 0], y=wide[:, 1], p=wide[:, 2] >> 7, time_s=(time_us - time_us.min(initial=1 << 23)) * 1e-6)


def read_nmnist(path: Path) -> Events:
    """Return the events of one recording of N-MNIST."""
    data = read_bytes(path, "recording of N-MNIST")
    if len(data) % RECORD_BYTES:
        raise FileError(f"file '{path}': {len(data)} bytes are no whole number of 5-byte records; fetch it again")
    return parse_nmnist(np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES))


def read_aedat(path: Path) -> Events:
    """Return the polarity events of an AEDAT file, version 2.0 or 3.1.

    Raises:
        FileError: another version, or truncated.
    """
    data = read_bytes(path, "AEDAT recording")
    version, start = _parse_aedat_header(data, path)
    if version == "2":
        body = np.frombuffer(data[start : len(data) - (len(data) - start) % 8], ">u4").reshape(-1, 2).astype(np.int64)
        return _make_events(body[:, 0] >> 1 & 0x7F, body[:, 0] >> 8 & 0x7F, body[:, 0] & 1, body[:, 1])
    parts = list(_parse_aedat3_packets(data, start, path))
    words = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    valid = (words[:, 0] & 1) == 1
    value, time_us = words[valid, 0], words[valid, 1]
    return _make_events(value >> 17 & 0x7FFF, value >> 2 & 0x7FFF, value >> 1 & 1, time_us)


def _make_events(x: Array, y: Array, p: Array, time_us: Array) -> Events:
    """Return events with their time from the first one."""
    return Events(x=x, y=y, p=p, time_s=(time_us - time_us.min(initial=np.iinfo(np.int64).max)) * 1e-6)


def _parse_aedat_header(data: bytes, path: Path) -> tuple[str, int]:
    if not data.startswith(b"#!AER-DAT"):
        raise FileError(f"file '{path}': is no AEDAT recording; expected one that begins with #!AER-DAT")
    version, start = data[9:10].decode("ascii", "replace"), 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise FileError(f"file '{path}': ends within its header; fetch it again")
        line, start = data[start:end], end + 1
        if line.startswith(b"#!END-HEADER"):
            break
    if version not in ("2", "3"):
        shown = escape_hidden(version)
        raise FileError(f"file '{path}': is AEDAT version {shown}, expected 2.0 or 3.1; convert it with the camera's own tool")
    return version, start


def _parse_aedat3_packets(data: bytes, start: int, path: Path) -> Iterable[Array]:
    """Yield the (value, time in µs) words of each packet of polarity events."""
    while start + 28 <= len(data):
        kind, _, size, _, overflow, _, number, _ = struct.unpack_from("<HHIIIIII", data, start)
        start += 28
        if start + number * size > len(data) or (kind == POLARITY_EVENTS and size != 8):
            raise FileError(
                f"file '{path}': a packet claims {number} events of {size} bytes, the file is shorter; fetch it again"
            )
        if kind == POLARITY_EVENTS:
            words = np.frombuffer(data, "<u4", count=2 * number, offset=start).reshape(-1, 2).astype(np.int64)
            yield np.stack([words[:, 0], words[:, 1] + (overflow << 31)], axis=1)
        start += number * size


# ----------------------------------------------------------------------------------------------------------- collections


def read_event_folder(folder: Path, *, steps: int, sensor: Shape | None) -> dict[str, Any] | None:
    """Return the arrays of a folder Train/<label>/* and Test/<label>/* of recordings, or None for another folder."""
    for suffix, read, shape in ((".bin", read_nmnist, (2, 34, 34)), (".aedat", read_aedat, (2, 128, 128))):
        parts = {which: _list_recordings(folder, which, suffix) for which in ("train", "test")}
        if parts["train"]:
            return _bin_recordings(folder, parts, read, steps, sensor or shape)
    return None


def _list_recordings(folder: Path, which: str, suffix: str) -> list[tuple[Path, str]]:
    """Return (path, label) of each recording of a split."""
    for name in (which, which.capitalize()):
        paths = sorted((folder / name).glob(f"*/*{suffix}"))
        if paths:
            return [(path, path.parent.name) for path in paths]
    return []


def _bin_recordings(
    folder: Path, parts: Mapping[str, list[tuple[Path, str]]], read: Callable[[Path], Events], steps: int, shape: Shape
) -> dict[str, Any]:
    names = sorted(
        {label for part in parts.values() for _, label in part}, key=lambda label: (not label.isdigit(), label.zfill(8))
    )
    arrays: dict[str, Any] = {"kind": "spikes"}
    for which, part in parts.items():
        if not part:
            raise DataError(f"folder '{folder}': has recordings to train on but none under {which}/; give both")
        x = np.stack([_shrink(read(path).frames(shape, steps)) for path, _ in part])
        arrays |= {f"x_{which}": x, f"y_{which}": np.array([names.index(label) for _, label in part])}
    return arrays


def bin_event_arrays(arrays: Mapping[str, Array], name: str, *, steps: int, sensor: Shape | None) -> dict[str, Any] | None:
    """Return x, y (and split, group) of the records of many recordings in an `.npz`, or None for other arrays."""
    if not {"raw", "offset", "label"} <= set(arrays):
        return None
    raw, offset, label = arrays["raw"], arrays["offset"].astype(np.int64), arrays["label"]
    bounds = offset if len(offset) == len(label) + 1 else np.append(offset, len(raw))
    whole = raw.ndim == 2 and raw.shape[1] == RECORD_BYTES and raw.dtype == np.uint8
    if not whole or len(bounds) != len(label) + 1 or (np.diff(bounds) < 0).any() or bounds[0] < 0 or bounds[-1] > len(raw):
        raise DataError(f"data '{name}': 'raw' is (E, 5) uint8, 'offset' where each of the N recordings of 'label' begins")
    shape = sensor or (2, 34, 34)
    frames = [_shrink(parse_nmnist(raw[a:b]).frames(shape, steps)) for a, b in pairwise(bounds)]
    more = {key: arrays[key] for key in ("split", "group") if key in arrays}
    return {"x": np.stack(frames), "y": label.astype(np.int64), "kind": "spikes", **more}


def read_shd(path: Path, *, steps: int, units: int | None = None, duration_s: float | None = None) -> dict[str, Any]:
    """Return (x (N, T, units), y) of an HDF5 file in the layout of the Heidelberg digits.

    Raises:
        FileError: missing, damaged, larger inside than it can be, or of another layout.
        DataError: times or units that no recording has, or more frames than there is memory.
    """
    tree = read_tree(path, "HDF5 file of spikes")
    spikes = tree.get("spikes")
    parts = [spikes.get(name) if isinstance(spikes, dict) else None for name in ("times", "units")]
    times, channels = (list(part) if isinstance(part, (list, np.ndarray)) else None for part in parts)
    labels = tree.get("labels")
    if times is None or channels is None or not isinstance(labels, np.ndarray) or labels.dtype.kind not in "biuf":
        raise FileError(f"file '{path}': has no rows spikes/times and spikes/units with labels; expected SHD's layout")
    if labels.shape != (len(times),) or len(channels) != len(times):
        raise FileError(
            f"file '{path}': {len(times)} rows of times, {len(channels)} of units, {labels.size} labels; write it again"
        )
    for number, (time_s, unit) in enumerate(zip(times, channels, strict=True)):
        _check_recording(f"file '{path}', recording {number}", time_s, unit, units)
    size = units or 1 + max((int(u.max(initial=0)) for u in channels), default=0)
    need, free = 3 * len(times) * steps * size, free_bytes()
    if need > free:
        raise DataError(
            f"file '{path}': {len(times)} recordings of {steps} steps and {size} units take {byte_size(need)}, {byte_size(free)} "
            "are free; use fewer steps, or name a network with fewer inputs"
        )
    length = duration_s or max((float(t.max(initial=0.0)) for t in times), default=0.0) * (1 + 1e-9) or 1.0
    frames = [
        _shrink(bin_events(t, u.astype(np.int64), size, steps, duration_s=length)) for t, u in zip(times, channels, strict=True)
    ]
    return {"x": np.stack(frames) if frames else np.zeros((0, steps, size), np.uint8), "y": labels, "kind": "spikes"}


def _check_recording(where: str, time_s: Any, unit: Any, units: int | None) -> None:
    """Raise DataError where times or units are none."""
    if not all(isinstance(row, np.ndarray) and row.ndim == 1 and row.dtype.kind in "biuf" for row in (time_s, unit)):
        raise DataError(f"{where}: times and units are not rows of numbers; write them as rows of different lengths")
    if len(time_s) != len(unit):
        raise DataError(f"{where}: {len(time_s)} times but {len(unit)} units; give one unit a spike")
    if not np.isfinite(time_s).all() or (time_s < 0).any():
        raise DataError(f"{where}: a time is negative or not finite; times are seconds from the start of the recording")
    limit = MAX_UNITS if units is None else units
    if unit.dtype.kind not in "iu" or (unit < 0).any() or (unit >= limit).any():
        raise DataError(f"{where}: a unit is no whole number from 0 to {limit - 1}; check the number of inputs")


def _shrink(counts: Array) -> Array:
    """Keep counts in a byte where they fit."""
    return counts.astype(np.uint8) if counts.max(initial=0) < 256 else counts
