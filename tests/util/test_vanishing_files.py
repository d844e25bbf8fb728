"""A file that vanishes or changes between its check and its reading is one sentence."""

import json
import os
import shutil
import struct
import sys

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.budget.budget_file import read_budget
from spear_deploy.data import load_data
from spear_deploy.data.events import read_aedat, read_nmnist
from spear_deploy.data.images import read_cifar_folder, read_idx
from spear_deploy.errors import SpearError
from spear_deploy.hardware.catalog import read_profile_text
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.formats import lint
from spear_deploy.interchange.onnx.model_file import run_onnx
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain
from spear_deploy.pipeline.sweep import read_sweep
from spear_deploy.pipeline.verification.pruning import read_pruning
from spear_deploy.report.folder import read_json
from spear_deploy.report.sweep_page import describe_sweep
from spear_deploy.util import files

X = np.zeros((2, 1, 1, 8, 8), np.uint8)
READERS = {
    "a.snn": sd.load,
    "a.nir": sd.load,
    "a.net": sd.load,
    "lint/a.net": lint,
    "a.onnx": lambda path: run_onnx(path, X),
    "a.npz": load_data,
    "a.yaml": load_profile,
    "a.toml": read_budget,
    "sweep/a.toml": read_sweep,
    "a-idx1-ubyte": read_idx,
    "data_batch_1.bin": lambda path: read_cifar_folder(path.parent),
    "a.bin": read_nmnist,
    "a.aedat": read_aedat,
    "deployment.json": lambda path: read_json(path, ("done",)),
    "sweep.json": lambda path: describe_sweep(path.parent),
    "search.json": lambda path: read_pruning(path.parent),
}
"""By the name of a file what reads it; folders keep apart two readers of one name."""


def remove(path):
    path.unlink()


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def be_cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def become_empty(path):
    path.write_bytes(b"")


def become_noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(5003))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a file of each kind that its reader takes."""
    folder = tmp_path_factory.mktemp("sound")
    for name in READERS:
        (folder / name).parent.mkdir(exist_ok=True)
    net = sd.load("digits")
    write_snn(net, folder / "a.snn")
    for to in ("nir", "onnx"):
        sd.export(net, folder / f"a.{to}", to=to, x=X)
    neuron = LoihiLIF(decay_u=np.array(4096), decay_v=np.array(128), v_threshold=np.array(10))
    layers = [Layer(name=name, synapse=Dense(weight=np.full((4, 4), 6)), neuron=neuron) for name in "ab"]
    sd.export(chain(layers, input_shape=(4,)), folder / "a.net", to="netx", x=X[..., 0, 0, :4])
    shutil.copy(folder / "a.net", folder / "lint" / "a.net")
    np.savez(folder / "a.npz", x=np.zeros((10, 1, 8, 8)), y=np.arange(10))
    (folder / "a.yaml").write_text(read_profile_text("loihi2"))
    (folder / "a.toml").write_text("chips = 2\n")
    (folder / "sweep" / "a.toml").write_text('networks = ["digits"]\nchips = ["loihi2"]\nbudgets = ["50%"]\ndata = "digits"\n')
    (folder / "a-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 4) + b"abcd")
    (folder / "data_batch_1.bin").write_bytes(bytes(3073 * 2))
    (folder / "test_batch.bin").write_bytes(bytes(3073))
    (folder / "a.bin").write_bytes(b"\1" * 55)
    (folder / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + bytes(80))
    (folder / "deployment.json").write_text('{"done": true}')
    origin = {"version": "0.1.0", "command": "sweep", "time": "2026-01-01"}
    (folder / "sweep.json").write_text(json.dumps({"cells": [], "front": [], **origin}))
    (folder / "search.json").write_text("{}")
    return folder


@pytest.fixture
def checks(monkeypatch):
    """What happens to a file behind each of its checks: a list of functions of the path, none at first."""
    happening = []
    real = files.require_file

    def require_file(path, what):
        source = real(path, what)
        if happening and (change := happening.pop(0)):
            change(source)
        return source

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("spear_deploy") and "require_file" in vars(module):
            monkeypatch.setattr(module, "require_file", require_file)
    return happening


def copy_file(sound, folder, name):
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    return folder / name


@pytest.mark.parametrize("name", READERS)
def test_each_file_is_read_as_long_as_nothing_happens_to_it(sound, tmp_path, checks, name):
    READERS[name](copy_file(sound, tmp_path, name))


@pytest.mark.parametrize("change", [remove, become_a_folder, be_cut, become_empty, become_noise])
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_changes_behind_its_check_is_one_sentence(sound, tmp_path, checks, name, change):
    """Behind the first of its checks, and behind each further one; cut records and texts may be whole ones again."""
    for number in range(3):
        folder = tmp_path / str(number)
        path = copy_file(sound, folder, name)
        checks[:] = [None] * number + [change]
        try:
            READERS[name](path)
        except SpearError as error:
            assert "\n" not in str(error) and str(folder) in str(error)
        else:
            assert checks or change in (be_cut, become_empty, become_noise), "a file that is not there was read"
        if checks:  # it was not checked so often
            break
    assert number, "no check was seen"


def test_a_file_that_vanishes_while_it_is_checked_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.snn"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "access", lambda *_: path.unlink() is None)
    with pytest.raises(SpearError, match=r"a\.snn': cannot be read \(No such file or directory\); check its name and place$"):
        files.require_file(path, "network file")
