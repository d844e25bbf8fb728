"""Errors of several rooms whose cause is rare: each is one sentence with place, value and advice."""

import h5py
import numpy as np
import pytest
import yaml

from spear_deploy.data import Dataset, Split, images, load_data
from spear_deploy.errors import DataError, FileError, GraphError, ProfileError, UnsupportedError
from spear_deploy.hardware.catalog import read_profile_text
from spear_deploy.hardware.profile import parse_profile
from spear_deploy.interchange.nir.layout import find_ends, find_input_shape
from spear_deploy.network import IF, Conv2d, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.simulator.recordings import read_activity
from tests.reliability.raises import list_unmatched

NETWORK = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,))


def test_every_message_is_matched_by_a_test():
    """Messages are matched by three words in a row of any text in the tests."""
    assert list_unmatched() == []


def test_weights_that_are_no_numbers():
    with pytest.raises(GraphError, match=r"Dense.weight: expected numbers, got text"):
        Dense(weight=np.array([["a"]]))


def test_a_convolution_of_another_input():
    conv = Layer(name="c", synapse=Conv2d(weight=np.ones((2, 3, 1, 1))), neuron=IF())
    with pytest.raises(GraphError, match=r"Conv2d takes 3 channels and 2 axes of positions, got 4 x 5 x 5"):
        chain([conv], input_shape=(4, 5, 5))


def test_sizes_that_do_not_meet():
    layers = (Layer(name="z", synapse=Dense(weight=np.ones((3, 4))), neuron=IF()),
              Layer(name="b", synapse=Dense(weight=np.ones((3, 4))), neuron=IF()))  # fmt: skip
    edges = (Edge(source=INPUT, target="z"), Edge(source=INPUT, target="b"), Edge(source="z", target="b", delay=1))
    with pytest.raises(GraphError, match=r"layers 'z' -> 'b': 3 outputs meet 4 inputs; check what lies between them"):
        SNNGraph(layers=layers, edges=edges, input_shape=(4,))


def test_a_recording_of_another_shape(tmp_path):
    np.savez(tmp_path / "r.npz", **{"input.spikes": np.ones((2, 1, 7)), "fc.spikes": np.ones((2, 1, 3))})
    with pytest.raises(
        DataError,
        match=r"holds floating-point numbers of shape \(2, 1, 7\), expected numbers of shape \(T, B, 4\); record it again",
    ):
        read_activity(tmp_path / "r.npz", NETWORK)


def test_splits_of_two_shapes():
    def split(steps):
        return Split(x=np.ones((4, steps, 2), np.uint8), y=np.arange(4) % 2)

    with pytest.raises(DataError, match=r"x is \(N, 3 x 2\), that of train \(N, 5 x 2\); use one shape"):
        Dataset(name="two", train=split(5), val=split(3), test=split(5), classes=2)


def test_data_with_too_few_axes(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(40), y=np.arange(40) % 2)
    with pytest.raises(DataError, match=r"data 'a.npz': 'x' has shape \(40,\), expected \(N, T, \*input\) or \(N, \*input\)"):
        load_data(tmp_path / "a.npz")


def test_images_that_unpack_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(11))
    with pytest.raises(FileError, match="a': unpacks to more than 10 bytes; it is no image collection"):
        images._read_bytes(tmp_path / "a")


def test_nir_files_of_two_inputs_or_too_large_ones():
    with pytest.raises(UnsupportedError, match="2 Input nodes .'a', 'b'., one is supported; give the network one input"):
        find_ends({"a": {"type": "Input"}, "b": {"type": "Input"}}, [], [])
    with pytest.raises(UnsupportedError, match=r"node 'in': \d+ inputs, \d+ are supported; check its shape"):
        find_input_shape({"in": {"type": "Input", "shape": np.array([1 << 20, 1 << 20])}}, [], "in", [])


def test_a_profile_whose_facts_contradict_each_other():
    data = yaml.safe_load(read_profile_text("speck2f"))
    data["layers"]["conv_kernel_max"] = {"value": 3, "unit": "position", "source": "a test", "evidence": "user"}
    data["layers"]["conv_kernel_sizes"] = {"value": [1, 5], "unit": "position", "source": "a test", "evidence": "user"}
    with pytest.raises(ProfileError, match="conv_kernel_max.*3 given, but conv_kernel_sizes goes to 5; correct one of them"):
        parse_profile(yaml.safe_dump(data), "mine")


def test_a_spike_file_whose_rows_are_texts(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("times", "units"):
            file.create_dataset(f"spikes/{name}", (2,), h5py.vlen_dtype(np.dtype("S3")))
        file["labels"] = np.zeros(2, int)
    with pytest.raises((FileError, DataError), match=r"holds rows of \|S3, expected numbers|rows of numbers"):
        load_data(tmp_path / "a.h5")
