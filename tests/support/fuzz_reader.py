"""Process that reads damaged files and checks errors and memory.

Only errors of the package may be raised, and memory may not exceed a multiple of the file's size.

    python -m tests.support.fuzz_reader snn|onnx FILE FIRST COUNT

Damages the file in COUNT ways, drawn from seeds FIRST and following, reads each, and prints one JSON object: how many were
read and refused, what was raised that is not ours, the slowest case, and by how many bytes the process grew.
"""

import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from spear_deploy.errors import SpearError

SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
WORDS = (b"99999999999", b"-1", b"1e308", b"null", b"[[[[", b"NaN", b"{}", b"true", b'"x"')


def damaged(data: bytes, seed: int) -> bytes:
    """Return the data cut, with bits flipped, lying in its sizes, mixed with itself, or with a number in its text changed."""
    rng = random.Random(seed)
    kind = seed % 6
    changed = bytearray(data)
    if kind == 0:
        return data[: rng.randrange(1, len(data))]
    if kind == 1:
        for _ in range(rng.choice([1, 1, 2, 8])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        width = rng.choice("BHIQ")
        value = rng.choice([n for n in SIZES if n < 1 << 8 * struct.calcsize(width)])
        place = rng.randrange(len(changed) - 8)
        changed[place : place + struct.calcsize(width)] = struct.pack(f"<{width}", value)
    elif kind == 3:
        a, b = sorted(rng.sample(range(len(changed)), 2))
        place = rng.randrange(len(changed))
        changed[place:place] = changed[a : min(b, a + 4096)]
    elif kind == 4:
        a = rng.randrange(len(changed))
        del changed[a : a + rng.choice([1, 4, 64, 1024])]
    else:
        digits = [i for i, byte in enumerate(changed[:200_000]) if 48 <= byte <= 57]
        place = rng.choice(digits or range(len(changed)))
        word = rng.choice(WORDS)
        changed[place : place + rng.choice([1, len(word)])] = word
    return bytes(changed)


def repacked(data: bytes, seed: int) -> bytes:
    """Return an archive in which one member is damaged and the checksums are right: what the container cannot notice."""
    rng = random.Random(seed)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(["header.npy", rng.choice(list(members))])
    members[name] = damaged(members[name], seed)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return written.getvalue()


def reader(form: str):
    """Return what reads a file of a form."""
    if form == "snn":
        from spear_deploy.interchange.snn_file import read_snn

        return read_snn
    from spear_deploy.interchange.onnx.model_file import run_onnx

    return run_onnx


def main(form: str, file: str, first: int, count: int) -> dict:
    """Read all cases and say how it went."""
    read = reader(form)
    given = () if form == "snn" else (np.load(Path(file).with_suffix(".npy")),)
    data = Path(file).read_bytes()
    read(file, *given)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result: dict = {"read": 0, "refused": 0, "foreign": [], "slowest_s": 0.0, "bytes": len(data)}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"damaged.{form}"
        for seed in range(first, first + count):
            deep = form == "snn" and seed % 2
            target.write_bytes(repacked(data, seed // 2) if deep else damaged(data, seed // 2))
            start = time.perf_counter()
            try:
                read(target, *given)
                result["read"] += 1
            except SpearError as error:
                result["refused"] += 1
                if "\n" in str(error):
                    result["foreign"].append([seed, "two lines", str(error)])
            except BaseException as error:  # whatever it is, it is what this looks for
                result["foreign"].append([seed, type(error).__name__, str(error)[:200]])
            result["slowest_s"] = max(result["slowest_s"], time.perf_counter() - start)
    result["grown_bytes"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return result


if __name__ == "__main__":
    form, file, first, count = sys.argv[1:]
    print(json.dumps(main(form, file, int(first), int(count))))
