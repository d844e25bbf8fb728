"""N-MNIST, AEDAT and SHD recordings, written byte by byte and real."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest

from spear_deploy import data
from spear_deploy.data import load_data
from spear_deploy.data.events import read_shd
from spear_deploy.errors import DataError, FileError
from tests.conftest import shared


def nmnist_bytes(x, y, p, t_us) -> np.ndarray:
    rows = [(a, b, c << 7 | t >> 16, t >> 8 & 0xFF, t & 0xFF) for a, b, c, t in zip(x, y, p, t_us, strict=True)]
    return np.array(rows, np.uint8).reshape(-1, 5)


def some_events(seed: int, n: int = 80, side: int = 34):
    rng = np.random.default_rng(seed)
    return rng.integers(0, side, n), rng.integers(0, side, n), rng.integers(0, 2, n), np.sort(rng.integers(0, 300_000, n))


def slow_frames(x, y, p, t_us, steps: int, side: int) -> np.ndarray:
    frames = np.zeros((steps, 2, side, side), int)
    length = (t_us.max() - t_us.min()) * (1 + 1e-9)
    for a, b, c, t in zip(x, y, p, t_us, strict=True):
        frames[int((t - t_us.min()) * steps / length), c, b, a] += 1
    return frames


def test_a_folder_of_nmnist_recordings(tmp_path):
    expected = {}
    for which in ("Train", "Test"):
        for label in (0, 1, 10):
            for i in range(4):
                events = some_events(hash_of(which, label, i))
                path = tmp_path / which / str(label) / f"{i:05}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(nmnist_bytes(*events).tobytes())
                expected[which, label, i] = slow_frames(*events, 6, 34)
    result = load_data(tmp_path, steps=6)
    assert (result.kind, result.input_shape, result.classes) == ("spikes", (2, 34, 34), 3)
    assert result.test.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for i in range(4):
        assert np.array_equal(result.test.x[8 + i], expected["Test", 10, i])


def hash_of(which: str, label: int, i: int) -> int:
    return len(which) * 1000 + label * 10 + i


def test_recordings_to_train_on_alone_are_not_enough(tmp_path):
    path = tmp_path / "Train" / "3" / "0.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(nmnist_bytes(*some_events(0)).tobytes())
    with pytest.raises(DataError, match="has recordings to train on but none under test/; give both"):
        load_data(tmp_path)
    path.write_bytes(b"1234567")
    with pytest.raises(FileError, match="7 bytes are no whole number of 5-byte records; fetch it again"):
        data.read_nmnist(path)


def test_many_recordings_in_one_file(tmp_path):
    events = [some_events(seed, n=30 + seed) for seed in range(20)]
    raw = [nmnist_bytes(*e) for e in events]
    offset = np.cumsum([0, *(len(r) for r in raw)])
    label = np.arange(20) % 4
    for bounds in (offset, offset[:-1]):
        np.savez(tmp_path / "rec.npz", raw=np.concatenate(raw), offset=bounds, label=label)
        result = load_data(tmp_path / "rec.npz", steps=5)
        everything = np.concatenate([result.train.x, result.val.x, result.test.x])
        frames = {slow_frames(*e, 5, 34).astype(np.uint8).tobytes() for e in events}
        assert {sample.tobytes() for sample in everything} == frames
    np.savez(tmp_path / "rec.npz", raw=np.concatenate(raw), offset=offset[::-1], label=label)
    with pytest.raises(DataError, match="'raw' is .E, 5. uint8, 'offset' where each of the N recordings of 'label' begins"):
        load_data(tmp_path / "rec.npz")


def test_recordings_in_one_file_with_their_splits_and_groups(tmp_path):
    events = [some_events(seed, n=30 + seed) for seed in range(12)]
    raw = [nmnist_bytes(*e) for e in events]
    arrays = {"raw": np.concatenate(raw), "offset": np.cumsum([0, *map(len, raw)]), "label": np.arange(12) % 2}
    group, split = np.repeat(["a", "b", "c", "d"], 3), np.repeat(["train", "val", "test"], (6, 3, 3))
    np.savez(tmp_path / "rec.npz", **arrays, split=split, group=group)
    result = load_data(tmp_path / "rec.npz", steps=5)
    for name, numbers in (("train", range(6)), ("val", range(6, 9)), ("test", range(9, 12))):
        part = getattr(result, name)
        frames = [slow_frames(*events[i], 5, 34) for i in numbers]
        np.testing.assert_array_equal(part.x, np.stack(frames))
        assert part.y.tolist() == [i % 2 for i in numbers] and part.group.tolist() == [group[i] for i in numbers]
    assert not result.drew_test
    np.savez(tmp_path / "rec.npz", **arrays, split=np.roll(split, 1), group=group)
    with pytest.raises(DataError, match="group c lies in the train and the val split; put all samples of a group into one split"):
        load_data(tmp_path / "rec.npz", steps=5)


def test_an_event_outside_the_sensor(tmp_path):
    np.savez(tmp_path / "rec.npz", raw=np.array([[40, 3, 0, 0, 1]], np.uint8), offset=[0], label=[0])
    with pytest.raises(DataError, match="an event at x 40, y 3 is outside a sensor of 34 x 34"):
        load_data(tmp_path / "rec.npz")


def test_the_real_nmnist():
    result = load_data(shared("data/nmnist/nmnist_train1000.npz"), steps=10)
    assert sum(len(split) for split in (result.train, result.val, result.test)) == 1000
    assert result.input_shape == (2, 34, 34) and result.classes == 10 and result.kind == "spikes"
    assert 0.002 < (result.test.x > 0).mean() < 0.2


def aedat3(x, y, p, t_us, *, claimed: int | None = None) -> bytes:
    words = np.stack([1 | p << 1 | y << 2 | x << 17, t_us], axis=1).astype("<u4")
    n = len(x) if claimed is None else claimed
    other = struct.pack("<HHIIIIII", 0, 1, 16, 4, 0, 1, 1, 1) + bytes(16)
    return (
        b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
        + other
        + struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, n, n, n)
        + words.tobytes()
    )


def test_aedat_3(tmp_path):
    x, y, p, t = some_events(1, side=128)
    (tmp_path / "a.aedat").write_bytes(aedat3(x, y, p, t))
    result = data.read_aedat(tmp_path / "a.aedat")
    assert [v.tolist() for v in (result.x, result.y, result.p)] == [x.tolist(), y.tolist(), p.tolist()]
    assert np.allclose(result.time_s, (t - t[0]) * 1e-6)
    assert np.array_equal(result.frames((2, 128, 128), 4), slow_frames(x, y, p, t, 4, 128))


def test_aedat_2(tmp_path):
    x, y, p, t = some_events(2, side=128)
    body = np.stack([p | x << 1 | y << 8, t + 5_000_000], axis=1).astype(">u4").tobytes()
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + body + b"xy")
    result = data.read_aedat(tmp_path / "a.aedat")
    assert [v.tolist() for v in (result.x, result.y, result.p)] == [x.tolist(), y.tolist(), p.tolist()]
    assert np.allclose(result.time_s, (t - t[0]) * 1e-6)


def test_a_folder_of_aedat_recordings(tmp_path):
    for which in ("train", "test"):
        for label in ("clap", "wave"):
            for i in range(5):
                path = tmp_path / which / label / f"{i}.aedat"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(aedat3(*some_events(i, side=128)))
    result = load_data(tmp_path, steps=3)
    assert result.input_shape == (2, 128, 128) and result.test.y.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is no AEDAT recording; expected one that begins with #!AER-DAT"),
        (b"#!AER-DAT3.1", "ends within its header; fetch it again"),
        (b"#!AER-DAT\r\n", r"is AEDAT version \\\S+, expected 2.0"),
        (b"#!AER-DAT4.0\r\n", "is AEDAT version 4, expected 2.0 or 3.1; convert it"),
        (aedat3(*some_events(0), claimed=1 << 30), "a packet claims 1073741824 events of 8 bytes, the file is shorter"),
    ],
)
def test_a_broken_recording(tmp_path, content, message):
    (tmp_path / "a.aedat").write_bytes(content)
    with pytest.raises(FileError, match=message):
        data.read_aedat(tmp_path / "a.aedat")


def test_spike_times_in_hdf5(tmp_path):
    rng = np.random.default_rng(0)
    times = [np.sort(rng.random(n)).astype(np.float16) for n in rng.integers(5, 30, 24)]
    units = [rng.integers(0, 12, len(t)) for t in times]
    with h5py.File(tmp_path / "shd.h5", "w") as file:
        group = file.create_group("spikes")
        for name, values, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            stored = group.create_dataset(name, (24,), dtype=h5py.vlen_dtype(kind))
            for i, value in enumerate(values):
                stored[i] = value
        file["labels"] = np.arange(24) % 3
    raw = read_shd(tmp_path / "shd.h5", steps=4, units=12, duration_s=1.0 + 1e-9)
    for i in (0, 23):
        expected = np.zeros((4, 12), int)
        for t, u in zip(times[i].astype(float), units[i], strict=True):
            expected[int(t / (1.0 + 1e-9) * 4), u] += 1
        assert np.array_equal(raw["x"][i], expected)
    result = load_data(tmp_path / "shd.h5", steps=4, input_shape=(12,))
    assert (result.input_shape, result.classes, result.kind) == ((12,), 3, "spikes")
    (tmp_path / "other.h5").write_bytes(b"no hdf5")
    with pytest.raises(FileError, match="is not HDF5, a HDF5 file of spikes is; check that the file is complete"):
        load_data(tmp_path / "other.h5")


def write_shd(path, *, times=((0.1, 0.2), (0.3,)), units=((1, 0), (2,)), labels=(0, 1), time=np.float32, unit=np.int64):
    with h5py.File(path, "w") as file:
        group = file.create_group("spikes")
        for name, rows, kind in (("times", times, time), ("units", units, unit)):
            stored = group.create_dataset(name, (len(rows),), dtype=h5py.vlen_dtype(kind))
            for i, row in enumerate(rows):
                stored[i] = np.asarray(row, kind)
        file["labels"] = np.asarray(labels)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": ((0.1, np.nan), (0.3,))}, "recording 0: a time is negative or not finite"),
        ({"times": ((0.1, 0.2), (-0.3,))}, "recording 1: a time is negative or not finite"),
        ({"units": ((1, 0), (1 << 40,))}, "recording 1: a unit is no whole number from 0 to 1048575"),
        ({"units": ((1, -1), (0,))}, "recording 0: a unit is no whole number from 0"),
        ({"unit": np.float64}, "recording 0: a unit is no whole number from 0"),
        ({"times": ((0.1,), (0.3,))}, "recording 0: 1 times but 2 units; give one unit a spike"),
        ({"labels": (0, 1, 2)}, "2 rows of times, 2 of units, 3 labels; write it again"),
        ({"labels": (b"a", b"b")}, "has no rows spikes/times and spikes/units with labels"),
        ({"labels": (0, -1)}, "expected whole numbers|label"),
    ],
)
def test_a_spike_file_with_impossible_values_is_refused(tmp_path, options, message):
    with pytest.raises((FileError, DataError), match=message):
        load_data(write_shd(tmp_path / "a.h5", **options), steps=4)


def test_a_spike_file_of_more_frames_than_memory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"2 recordings of 1000000000 steps and 1000000 units take .* are free; use fewer steps"):
        read_shd(write_shd(tmp_path / "a.h5"), steps=10**9, units=10**6)


def test_rows_that_are_a_table_or_texts_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spikes/times"], file["spikes/units"], file["labels"] = np.ones(3), np.ones(3), np.zeros(3, int)
    with pytest.raises(DataError, match="recording 0: times and units are not rows of numbers"):
        read_shd(tmp_path / "a.h5", steps=4)


def test_a_spike_file_is_read_without_links_and_external_storage(tmp_path):
    write_shd(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["labels"]
        file["labels"] = h5py.ExternalLink("other.h5", "labels")
    with pytest.raises(FileError, match="'labels' points to another place; write the network into one file without links"):
        load_data(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["labels"]
        file.create_dataset("labels", (2,), np.uint8, external=[("/etc/hostname", 0, 2)])
    with pytest.raises(FileError, match="'labels' lies in another file"):
        load_data(tmp_path / "a.h5")


@pytest.mark.parametrize("count", [75, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_spike_files_are_read_or_refused_within_seconds(count, tmp_path):
    """Files of 1 to 4 changed bytes: ours alone are raised, and at least 20 of each kind are seen."""
    whole = write_shd(tmp_path / "a.h5", times=[(0.1 * i, 0.2) for i in range(20)], units=[(i, 1) for i in range(20)],
                      labels=np.arange(20) % 2).read_bytes()  # fmt: skip
    outcomes = {"read": 0, "refused": 0}
    for seed in range(count):
        rng, content = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 5)):
            content[place] = rng.integers(256)
        (tmp_path / "b.h5").write_bytes(content)
        try:
            load_data(tmp_path / "b.h5", steps=4)
            outcomes["read"] += 1
        except (FileError, DataError):
            outcomes["refused"] += 1
    assert min(outcomes.values()) >= 20, outcomes
