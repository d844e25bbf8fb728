"""Files of images, events and spike times: written byte by byte here, and real ones where they are present."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from spear_deploy import data
from spear_deploy.data import load_data
from spear_deploy.data.events import read_shd
from spear_deploy.errors import DataError, FileError
from tests.conftest import shared

# -------------------------------------------------------------------------------------------------------------- encoders


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_bernoulli_spikes_are_as_many_as_the_intensity_on_average_and_repeat_with_the_seed(steps):
    image = np.tile(np.linspace(0, 1, 5), (400, 1))
    once, again = (data.bernoulli(image, steps, seed=3) for _ in range(2))
    assert np.array_equal(once, again) and not np.array_equal(once, data.bernoulli(image, steps, seed=4))
    assert np.abs(once.mean(axis=(0, 1)) - image[0]).max() < 5 * 0.5 / np.sqrt(400 * steps)
    assert once[..., 0].max() == 0 and once[..., -1].min() == 1


def test_latency_is_one_spike_the_earlier_the_brighter():
    image = np.array([[0.0, 0.1, 0.5, 0.9, 1.0]])
    coded = data.latency(image, 11)
    assert coded.sum(axis=1).tolist() == [[0, 1, 1, 1, 1]]
    assert coded[0, :, 1:].argmax(axis=0).tolist() == [9, 5, 1, 0]


@pytest.mark.parametrize("encoding", ["rate", "bernoulli", "latency"])
def test_an_encoding_refuses_what_is_no_intensity(encoding):
    with pytest.raises(DataError, match=r"intensities: 0..2 given, .* takes 0..1; rescale them"):
        data.encode(np.array([[0.0, 2.0]]), encoding, 4)


def test_unknown_encoding():
    with pytest.raises(
        DataError, match="encoding 'ratee': expected one of direct, rate, bernoulli, latency; did you mean 'rate'"
    ):
        load_data("digits", encoding="ratee")
    with pytest.raises(DataError, match="encoding 'x': expected one of direct"):
        data.encode(np.zeros((1, 1)), "x", 4)


@pytest.mark.parametrize("seed", range(5))
def test_bins_hold_each_event_once(seed):
    rng = np.random.default_rng(seed)
    time, place = rng.random(200) * 1.2, rng.integers(0, 7, 200)
    expected = np.zeros((5, 7), int)
    for t, p in zip(time, place, strict=True):
        if t < 1.0:
            expected[int(t / 0.2), p] += 1
    assert np.array_equal(data.bin_events(time, place, 7, 5, duration_s=1.0), expected)


# ---------------------------------------------------------------------------------------------------------------- images


def write_idx(path: Path, array: np.ndarray) -> None:
    body = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(body)


def write_mnist(folder: Path, suffix: str = "") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 5, 4)), np.arange(60) % 3
    for which in ("train", "t10k"):
        write_idx(folder / f"{which}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{which}-labels-idx1-ubyte{suffix}", labels)
    return images, labels


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_idx_files(tmp_path, suffix):
    images, labels = write_mnist(tmp_path, suffix)
    found = load_data(tmp_path, steps=3)
    assert (found.kind, found.steps, found.input_shape, found.classes) == ("current", 3, (1, 5, 4), 3)
    assert len(found.train) + len(found.val) == 60 and len(found.test) == 60
    assert np.allclose(found.test.x[:, 2, 0], images / 255) and np.array_equal(found.test.y, labels)
    spikes = load_data(tmp_path, steps=10, encoding="rate")
    assert spikes.kind == "spikes" and np.abs(spikes.test.x.mean(axis=1)[:, 0] - images / 255).max() <= 0.05 + 1e-6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d\x01\0\0\0\1\0", "is no IDX file of bytes; expected one that begins with 00 00 08"),
        (b"\0\0\x08\x03\0\0", "ends within its header; fetch it again"),
        (b"\0\0\x08\x01\0\0\0\x05\0\0", "holds 2 values, its header says 5; fetch it again"),
        (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", "holds 1 values, its header says"),
    ],
)
def test_a_broken_idx_file(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FileError, match=message):
        data.read_idx(tmp_path / "x")


def test_a_truncated_idx_archive(tmp_path):
    write_mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileError, match="cannot be unpacked .*; fetch it again"):
        load_data(tmp_path)


def test_idx_files_that_do_not_go_together(tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(7))
    with pytest.raises(DataError, match=r"\(60, 5, 4\) images and \(7,\) labels for test do not go together"):
        load_data(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has no labels file for t10k, e.g. t10k-labels-idx1-ubyte"):
        load_data(tmp_path)


def test_the_binary_batches_of_cifar(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (30, 3073)).astype(np.uint8)
    records[:, 0] = np.arange(30) % 10
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    found = load_data(tmp_path, steps=2)
    assert found.input_shape == (3, 32, 32) and len(found.train) + len(found.val) == 60
    assert np.allclose(found.test.x[4, 0, 2, 1, 3] * 255, records[4, 1 + 2 * 1024 + 32 + 3])
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(FileError, match="3 bytes are no whole number of records of 3073; fetch it again"):
        load_data(tmp_path)


def test_pickled_batches_are_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}")
    with pytest.raises(DataError, match="Python version, which is pickled and never loaded; take the binary version"):
        load_data(tmp_path)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(DataError, match="holds no data that is known; expected MNIST's IDX files, CIFAR-10's data_batch"):
        load_data(tmp_path)


def test_the_real_mnist():
    found = load_data(shared("data/mnist"), steps=2)
    assert len(found.train) + len(found.val) == 60_000 and len(found.test) == 10_000 and found.classes == 10
    assert found.test.y[:5].tolist() == [7, 2, 1, 0, 4]


# ---------------------------------------------------------------------------------------------------------------- events


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
    found = load_data(tmp_path, steps=6)
    assert (found.kind, found.input_shape, found.classes) == ("spikes", (2, 34, 34), 3)
    assert found.test.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for i in range(4):
        assert np.array_equal(found.test.x[8 + i], expected["Test", 10, i])


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
        found = load_data(tmp_path / "rec.npz", steps=5)
        everything = np.concatenate([found.train.x, found.val.x, found.test.x])
        frames = {slow_frames(*e, 5, 34).astype(np.uint8).tobytes() for e in events}
        assert {sample.tobytes() for sample in everything} == frames
    np.savez(tmp_path / "rec.npz", raw=np.concatenate(raw), offset=offset[::-1], label=label)
    with pytest.raises(DataError, match="'raw' is .E, 5. uint8, 'offset' where each of the N recordings of 'label' begins"):
        load_data(tmp_path / "rec.npz")


def test_an_event_outside_the_sensor(tmp_path):
    np.savez(tmp_path / "rec.npz", raw=np.array([[40, 3, 0, 0, 1]], np.uint8), offset=[0], label=[0])
    with pytest.raises(DataError, match="an event at x 40, y 3 is outside a sensor of 34 x 34"):
        load_data(tmp_path / "rec.npz")


def test_the_real_nmnist():
    found = load_data(shared("data/nmnist/nmnist_train1000.npz"), steps=10)
    assert sum(len(split) for split in (found.train, found.val, found.test)) == 1000
    assert found.input_shape == (2, 34, 34) and found.classes == 10 and found.kind == "spikes"
    assert 0.002 < (found.test.x > 0).mean() < 0.2


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
    found = data.read_aedat(tmp_path / "a.aedat")
    assert [v.tolist() for v in (found.x, found.y, found.p)] == [x.tolist(), y.tolist(), p.tolist()]
    assert np.allclose(found.time_s, (t - t[0]) * 1e-6)
    assert np.array_equal(found.frames((2, 128, 128), 4), slow_frames(x, y, p, t, 4, 128))


def test_aedat_2(tmp_path):
    x, y, p, t = some_events(2, side=128)
    body = np.stack([p | x << 1 | y << 8, t + 5_000_000], axis=1).astype(">u4").tobytes()
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + body + b"xy")
    found = data.read_aedat(tmp_path / "a.aedat")
    assert [v.tolist() for v in (found.x, found.y, found.p)] == [x.tolist(), y.tolist(), p.tolist()]
    assert np.allclose(found.time_s, (t - t[0]) * 1e-6)


def test_a_folder_of_aedat_recordings(tmp_path):
    for which in ("train", "test"):
        for label in ("clap", "wave"):
            for i in range(5):
                path = tmp_path / which / label / f"{i}.aedat"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(aedat3(*some_events(i, side=128)))
    found = load_data(tmp_path, steps=3)
    assert found.input_shape == (2, 128, 128) and found.test.y.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is no AEDAT recording; expected one that begins with #!AER-DAT"),
        (b"#!AER-DAT3.1", "ends within its header; fetch it again"),
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
    found = load_data(tmp_path / "shd.h5", steps=4, input_shape=(12,))
    assert (found.input_shape, found.classes, found.kind) == ((12,), 3, "spikes")
    (tmp_path / "other.h5").write_bytes(b"no hdf5")
    with pytest.raises(FileError, match="has no spikes/times, spikes/units and labels"):
        load_data(tmp_path / "other.h5")


# ----------------------------------------------------------------------------------------------------------------- torch


def test_datasets_of_torch():
    import torch

    x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 2
    both = torch.utils.data.TensorDataset(x, y)
    found = data.from_torch(both, both, steps=3, input_shape=(1, 4, 4), samples=30)
    assert (len(found.test), found.kind, found.steps) == (30, "current", 3)
    assert np.allclose(found.test.x[7, 1], x[7].numpy())
    coded = data.from_torch(both, both, steps=3, input_shape=(1, 4, 4), encoding="latency")
    assert coded.kind == "spikes"


EVENT = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


def tonic_like(seed: int, label: int) -> tuple[np.ndarray, int]:
    x, y, p, t = some_events(seed, side=9)
    events = np.zeros(len(x), EVENT)
    events["x"], events["y"], events["p"], events["t"] = x, y, p, t
    return events, label


def test_datasets_of_events_as_tonic_gives_them():
    train = [tonic_like(seed, seed % 2) for seed in range(20)]
    found = data.from_torch(train, train[:6], steps=4)
    assert found.input_shape == (2, 9, 9) and found.kind == "spikes"
    x, y, p, t = some_events(3, side=9)
    assert np.array_equal(found.test.x[3], slow_frames(x, y, p, t, 4, 9))


def test_events_of_torch_take_the_sensor_from_the_input_shape():
    train = [tonic_like(seed, seed % 2) for seed in range(20)]
    wide = data.from_torch(train, train[:6], steps=4, input_shape=(2, 12, 16))
    assert wide.input_shape == (2, 12, 16) and wide.kind == "spikes"
    assert np.array_equal(wide.test.x[..., :9, :9], data.from_torch(train, train[:6], steps=4).test.x)


def test_events_without_a_place_or_samples_of_different_shape():
    nowhere = np.zeros(3, np.dtype([("t", int), ("p", int)]))
    with pytest.raises(DataError, match="events have no field x; expected x, y, t"):
        data.from_torch([(nowhere, 0)], [(nowhere, 0)], steps=2)
    uneven = [(np.zeros((3, 4)), 0), (np.zeros((2, 4)), 1)]
    with pytest.raises(DataError, match="train split: samples differ in shape, e.g. .*; pad or bin them to one shape"):
        data.from_torch(uneven, uneven)
