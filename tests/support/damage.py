"""Damage to what a file holds: values of its JSON, lines of its text, arrays of an archive.

Bytes changed at random seldom get past the container. These changes leave it sound, so that what lies within is read.
"""

import copy
import io
import json
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.support.fuzz_reader import damaged

DEEP = json.loads("[" * 200 + "]" * 200)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 1e308, -1e-308, float("nan"), float("inf"), 1 << 31, 1 << 63, 10**40, "", "x", "0",
    "../x", "\0", "\x1b[2J", "\ud800", "x" * 5000, [], [[]], [0], [None], ["x", 1], [1, 2, 3, 4, 5], [0] * 100, {}, {"x": 1},
    {"type": "x"}, DEEP,
)  # fmt: skip
"""What takes the place of a value of JSON."""
WORDS = (
    "null", "true", "-1", "0", "0.5", "1e308", "nan", "inf", "99999999999999999999", "9" * 5000, '""', '"x"', "'x'", "[]", "[1]",
    "[[1]]", "{}", "{a: 1}", "{a = 1}", '["x", 1]', "1979-05-27", "~", "&a [*a]", "!!python/name:os.system", "'''",
    '"\\u0000"', '"\\uD800"', "[" * 3000, ".".join("a" * 500), "x: y: z",
)  # fmt: skip
"""What takes the place of a value of TOML or YAML."""
TYPES = ("u1", "f8", "c8", "M8[s]", "V4", "S3", "U2")


def damaged_json(text: str, rng: random.Random) -> str:
    """Return JSON in which up to three values are exchanged, left out, doubled, or called by another name."""
    try:
        return json.dumps(_damage_value(json.loads(text), rng))
    except RecursionError:  # values that were put into each other are nested deeper than json writes
        return "[" * 20_000


def _damage_value(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_list_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        what = rng.randrange(8)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[rng.choice(["x", "", key.upper(), "\x1b", key + " "])] = holder.pop(key)
        elif what == 2:
            holder[key] = [holder[key]]
        elif what == 3 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif what == 4:
            other, name = rng.choice(places)
            holder[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other[name]))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def _list_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (dictionary or list, key) of every value within."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ():
            yield holder, key
            waiting.append(holder[key])


def damaged_lines(text: str, rng: random.Random) -> str:
    """Return TOML or YAML in which a line is left out, doubled, moved, or has another value, key or depth."""
    lines = text.split("\n")
    for _ in range(rng.choice([1, 1, 2, 4])):
        n, what = rng.randrange(len(lines)), rng.randrange(8)
        sign = next((sign for sign in ("=", ":") if sign in lines[n]), "")
        if what == 0 and len(lines) > 1:
            del lines[n]
        elif what == 1:
            lines.insert(rng.randrange(len(lines)), lines[n])
        elif what == 2:
            lines[n] = rng.choice([" ", "   ", "\t", "- ", "#", "["]) + lines[n]
        elif what == 3:
            lines[n] = lines[n].lstrip()
        elif sign:
            key, _, value = lines[n].partition(sign)
            other = f"{key}{rng.choice(['x', '.a', ' b', ''])}{sign}{value}"
            lines[n] = f"{key}{sign} {rng.choice(WORDS)}" if what < 7 else other
        else:
            lines[n] = rng.choice(WORDS)
    return "\n".join(lines)


def damaged_array(array: Any, rng: random.Random) -> Any:
    """Return an array of another type, shape or range."""
    numbers = array.dtype.kind in "biuf"
    what = rng.randrange(14 if numbers else 5)
    changed: tuple[Any, ...] = (
        lambda: array[..., None],
        lambda: array.reshape(-1)[: rng.randrange(array.size + 1)],
        lambda: np.repeat(array[None], 2, axis=0),
        lambda: np.array(rng.choice(["", "x", "{}", "[1]", "null"])),
        lambda: np.zeros(rng.choice([(0,), (1,), (), (0, 3), (1 << 12,)]), rng.choice(TYPES)),
        lambda: array.astype(rng.choice(["i1", "u8", "f2", "f4", "f8", "c16", "?", "S4"])),
        lambda: array.astype(np.float64) * rng.choice([-1.0, 0.0, 0.3, 1e30, 1e308, np.nan, np.inf]),
        lambda: array.T,
        lambda: np.asfortranarray(array),
        lambda: array.astype(array.dtype.newbyteorder()),
    )
    if what < len(changed):
        with np.errstate(all="ignore"):
            return changed[what]()
    flat = np.array(array, np.float64 if rng.random() < 0.5 and array.dtype.kind != "b" else array.dtype).reshape(-1)
    if flat.size:
        special = [-1, 1 << 15, 1 << 31, 1 << 62, np.nan, np.inf, -np.inf, 0.5] if flat.dtype.kind == "f" else [0, 1, 2, 100]
        flat[rng.randrange(flat.size)] = rng.choice(special)
    return flat.reshape(array.shape)


def damaged_archive(content: bytes, rng: random.Random) -> bytes:
    """Return an archive of arrays or files in which one member is damaged, left out or renamed, and the checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    described = [name for name in members if name in ("header.npy", "description.npy")]
    name = rng.choice(described if described and rng.random() < 0.5 else list(members))
    what = rng.randrange(10)
    if what == 0:
        del members[name]
    elif what == 1:
        members[rng.choice(["x.npy", "x", name.upper(), f"{name}.npy"])] = members.pop(name)
    elif what > 3 and name.endswith(".json"):
        members[name] = damaged_json(members[name].decode(), rng).encode("utf-8", "surrogatepass")
    elif what > 3 and name.endswith(".npz"):
        members[name] = damaged_archive(members[name], rng)
    elif what > 3 and name.endswith(".npy"):
        members[name] = _write_array(_damaged_member(np.load(io.BytesIO(members[name])), rng))
    else:
        members[name] = damaged(members[name], rng.getrandbits(40))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return written.getvalue()


def _damaged_member(array: Any, rng: random.Random) -> Any:
    """Return an array damaged; one that holds JSON, as bytes or as a text, more often within its JSON."""
    if rng.random() < 0.8:
        if array.dtype == np.uint8 and array.ndim == 1 and array[:1].tobytes() == b"{":
            text = damaged_json(array.tobytes().decode(), rng)
            return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        if array.dtype.kind == "U" and array.ndim == 0 and str(array)[:1] == "{":
            return np.array(damaged_json(str(array), rng))
    return damaged_array(array, rng)


def _write_array(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def damaged_tree(content: bytes, names: list[str], rng: random.Random) -> bytes:
    """Return an HDF5 file in which one of the named data sets is another, left out, renamed, or a group."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        name = rng.choice(names)
        what = rng.randrange(10)
        value = file[name][()]
        if what == 1:
            file.move(name, f"{name}x")
            return _close(file, buffer)
        del file[name]
        if what == 2:
            file.create_group(name)
        elif what == 3:
            file[name] = h5py.SoftLink("/")
        elif what == 4:
            file[name] = rng.choice(["x", "LIF", "dense", "\x1b", "NIRGraph", "Input"])
        elif what > 4 and not isinstance(value, bytes) and value.dtype != object:
            changed = damaged_array(np.asarray(value), rng)
            if changed.dtype.kind not in "UM":
                file[name] = changed
        return _close(file, buffer)


def _close(file: Any, buffer: io.BytesIO) -> bytes:
    file.close()
    return buffer.getvalue()
