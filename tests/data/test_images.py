"""IDX and CIFAR-10 files, written byte by byte and real."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from spear_deploy import data
from spear_deploy.data import load_data
from spear_deploy.errors import DataError, FileError
from tests.conftest import shared


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
    result = load_data(tmp_path, steps=3)
    assert (result.kind, result.steps, result.input_shape, result.classes) == ("current", 3, (1, 5, 4), 3)
    assert len(result.train) + len(result.val) == 60 and len(result.test) == 60
    assert np.allclose(result.test.x[:, 2, 0], images / 255) and np.array_equal(result.test.y, labels)
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
    result = load_data(tmp_path, steps=2)
    assert result.input_shape == (3, 32, 32) and len(result.train) + len(result.val) == 60
    assert np.allclose(result.test.x[4, 0, 2, 1, 3] * 255, records[4, 1 + 2 * 1024 + 32 + 3])
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
    result = load_data(shared("data/mnist"), steps=2)
    assert len(result.train) + len(result.val) == 60_000 and len(result.test) == 10_000 and result.classes == 10
    assert result.test.y[:5].tolist() == [7, 2, 1, 0, 4]
