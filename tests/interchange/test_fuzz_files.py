"""Damaged `.snn` and `.onnx` files: only SpearError, bounded time and memory.

The reader runs in a separate process (`tests.support.fuzz_reader`), so that a crash is seen and memory can be measured.
"""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.interchange.onnx.model_file import write_onnx
from spear_deploy.interchange.snn_file import write_snn
from tests.support.fuzz_reader import damaged, repacked
from tests.support.reference import random_graph, random_spikes
from tests.support.wild_graphs import wild_graph, wild_spikes

ROOT = Path(__file__).parents[2]

GROWTH_BYTES = 16 << 20
GROWTH_PER_BYTE = 16
"""What reading any number of damaged files may make a process grow by, beyond what reading the sound one took."""


def write(folder, name, graph, x):
    """Write a network as one kind of file and its input beside it; return (form, file)."""
    form = "snn" if name == "snn" else "onnx"
    file = folder / f"{name}.{form}"
    if form == "snn":
        write_snn(graph, file)
    else:
        write_onnx(graph, file, scan=name == "scan")
        np.save(file.with_suffix(".npy"), x)
    return form, file


def fuzz(form, file, first, count):
    """Read COUNT damaged forms of a file; return how many were read and refused."""
    command = [sys.executable, "-m", "tests.support.fuzz_reader", form, str(file), str(first), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    result = json.loads(done.stdout)
    assert not result["foreign"], result["foreign"][:5]
    assert result["slowest_s"] < 5, result
    assert result["grown_bytes"] <= GROWTH_BYTES + GROWTH_PER_BYTE * result["bytes"], result
    assert result["read"] + result["refused"] == count
    return result["read"], result["refused"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("snn", 300),
        ("step", 150),
        ("scan", 100),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("snn", 1200), ("step", 600), ("scan", 300)]),
    ],
)
def test_damaged_files_raise_our_errors_only(name, count, tmp_path):
    graph = random_graph(1, kind="integer")
    _, refused = fuzz(*write(tmp_path, name, graph, random_spikes(graph, 0, steps=2)), 0, count)
    assert refused > count // 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "count"), [("snn", 10_000), ("step", 3_000), ("scan", 3_000)])
@pytest.mark.parametrize("numbers", ["float", "loihi", "xylo", "conv"])
def test_tens_of_thousands_of_damaged_files(numbers, name, count, tmp_path):
    """64 000 cases in all."""
    graph = {"conv": lambda: random_graph(3), "loihi": lambda: random_graph(5, kind="integer")}.get(
        numbers, lambda: wild_graph(7, numbers)
    )()
    read, refused = fuzz(*write(tmp_path, name, graph, wild_spikes(graph, 0, steps=2, batch=2)), 10_000, count)
    assert refused > read


def test_the_damage_is_real_and_repeatable():
    data = bytes(range(256)) * 20
    assert all(damaged(data, seed) == damaged(data, seed) for seed in range(60))
    assert sum(damaged(data, seed) != data for seed in range(300)) > 290


def test_archives_are_repacked_soundly(tmp_path):
    """The deep cases get past the checksums: the reader itself must refuse them."""
    write_snn(random_graph(1), tmp_path / "a.snn")
    data = (tmp_path / "a.snn").read_bytes()
    for seed in range(20):
        with zipfile.ZipFile(io.BytesIO(repacked(data, seed))) as archive:
            assert archive.testzip() is None
