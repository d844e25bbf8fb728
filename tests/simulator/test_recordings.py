"""Input files, recordings, and counts read back from them."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import DataError, FileError
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.simulator import simulate
from spear_deploy.simulator.recordings import read_activity, read_input, read_labels, write_counts, write_recording
from spear_deploy.simulator.synops import count_synops
from spear_deploy.util.files import read_arrays
from tests.support.reference import random_graph, random_spikes


def test_counts_read_from_a_recording_are_those_of_the_run(tmp_path):
    for seed in range(8):
        graph = random_graph(seed)
        x = random_spikes(graph, seed)
        run = simulate(graph, x, record=("spikes", "v", "u"))
        write_recording(tmp_path / "run.npz", run, x)
        counts = read_activity(tmp_path / "run.npz", graph)
        assert (counts.steps, counts.samples) == (6, 2)
        for name, sent in run.counts.sent.items():
            np.testing.assert_array_equal(counts.sent[name], sent)
        for edge, count in run.counts.delivered.items():
            np.testing.assert_array_equal(counts.delivered[edge], count)


def test_activity_may_be_an_input_to_run(tmp_path):
    graph = random_graph(0)
    x = random_spikes(graph, 0)
    np.savez(tmp_path / "in.npz", spikes=x)
    np.testing.assert_array_equal(read_activity(tmp_path / "in.npz", graph).sent["fc"], simulate(graph, x).counts.sent["fc"])


def test_recording_has_the_documented_names(tmp_path):
    graph = random_graph(0)
    run = simulate(graph, random_spikes(graph, 0), record=("spikes", "v", "u"))
    write_recording(tmp_path / "run.npz", run)
    arrays = read_arrays(tmp_path / "run.npz")
    assert {"output", "conv1.spikes", "conv1.v", "pool.v", "out.v"} <= set(arrays)
    assert arrays["fc.v"].shape == (6, 2, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a file of arrays"),
        (b"PK\x03\x04 not a zip", "cannot be read as .npz"),
        (b"hello", "cannot be read as .npz"),
    ],
)
def test_files_without_arrays_are_refused(tmp_path, content, message):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_arrays(tmp_path / "x.npz")


def test_missing_pickled_and_oversized_files_are_refused(tmp_path):
    with pytest.raises(FileError, match="there is no such file of arrays"):
        read_arrays(tmp_path / "none.npz")
    with pytest.raises(FileError, match="is a folder"):
        read_arrays(tmp_path)
    np.savez(tmp_path / "pickled.npz", spikes=np.array([{}], dtype=object))
    with pytest.raises(FileError, match="cannot be read as .npz of plain arrays"):
        read_arrays(tmp_path / "pickled.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("spikes.npy", b"\0" * 10_000_000)
    with pytest.raises(FileError, match="'spikes.npy' claims 10000000 bytes, more than it can hold"):
        read_arrays(tmp_path / "bomb.npz")


def test_input_of_another_shape_is_refused(tmp_path):
    graph = random_graph(0)
    path = tmp_path / "in.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="holds 'other', expected either 'spikes' or 'current'; save one of them, .T, B"):
        read_input(path, graph)
    np.savez(path, spikes=np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"file '.*in.npz': input has shape \(3, 3\), the network takes"):
        read_input(path, graph)


def test_recordings_of_another_network(tmp_path):
    graph = random_graph(0)
    x = random_spikes(graph, 0)
    path = tmp_path / "run.npz"
    write_recording(path, simulate(graph, x, record=("spikes",)))
    with pytest.raises(DataError, match="has no 'input.spikes' of a recording, and no 'spikes' or 'current' of an input; r"):
        read_activity(path, graph)
    np.savez(path, **{"input.spikes": np.zeros((2, 2, 2))})
    with pytest.raises(
        DataError, match="'input.spikes' holds floating-point numbers of shape .2, 2, 2., expected numbers of shape"
    ):
        read_activity(path, graph)


def test_a_recording_of_a_current_is_an_activity_too(tmp_path):
    graph = random_graph(4)
    x = np.random.default_rng(0).random((5, 2, *graph.input_shape)) * (random_spikes(graph, 0, steps=5, batch=2))
    run = simulate(graph, x, kind="current", record=("spikes",))
    write_recording(tmp_path / "run.npz", run, x)
    counts = read_activity(tmp_path / "run.npz", graph)
    assert counts.input_kind == "current"
    np.testing.assert_array_equal(counts.sent["input"], run.counts.sent["input"])
    assert count_synops(graph, counts) == count_synops(graph, run.counts)


def delayed(hidden=4):
    """Return a network with an edge of two steps."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(size=shape).astype(np.float32)), neuron=IF())
        for name, shape in (("a.b", (hidden, 3)), ("back", (4, hidden)))
    ]
    edges = (Edge(source="input", target="a.b"), Edge(source="a.b", target="back", delay=2))
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=(3,))


def test_a_file_of_spike_counts_is_an_activity_too_delayed_edges_included(tmp_path):
    counts = simulate(delayed(), random_spikes(delayed(), 0, steps=6, batch=2)).counts
    write_counts(counts, tmp_path / "counts.npz")
    result = read_activity(tmp_path / "counts.npz", delayed())
    assert (result.steps, result.samples, result.input_kind) == (6, 2, "spikes") and list(result.sent) == list(counts.sent)
    assert count_synops(delayed(), result) == count_synops(delayed(), counts) and counts.delivered
    for other, name in ((delayed(hidden=5), "a.b"), (random_graph(0), "input")):
        with pytest.raises(
            DataError, match=f"its spike counts are not of this network, by '{name}'; give the one that was counted"
        ):
            read_activity(tmp_path / "counts.npz", other)
    direct = replace(delayed(), edges=(Edge(source="input", target="a.b"), Edge(source="a.b", target="back")))
    with pytest.raises(DataError, match="its spike counts are not of this network, by 'a.b'"):
        read_activity(tmp_path / "counts.npz", direct)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"counts": None}, "holds spike counts without the names of layers, as earlier releases wrote them; deploy again with"),
        ({"counts": np.array("{")}, "its spike counts are damaged .*; deploy again with --fresh"),
        ({"counts": np.array('{"sent": []}')}, "its spike counts are damaged"),
        ({"sent.1": None}, "its spike counts are damaged"),
        ({"sent.1": np.array([1, 2, 3, -4])}, "its spike counts are no whole numbers from 0, or more than can be counted"),
        ({"sent.1": np.full(4, 0.5)}, "its spike counts are no whole numbers from 0"),
        ({"sent.1": np.full(4, np.iinfo(np.int64).max)}, "its spike counts are no whole numbers from 0, or more than can be"),
    ],
)
def test_a_file_of_spike_counts_that_cannot_be(tmp_path, changed, message):
    path = tmp_path / "counts.npz"
    write_counts(simulate(delayed(), random_spikes(delayed(), 0, steps=6, batch=2)).counts, path)
    arrays = {name: value for name, value in {**read_arrays(path), **changed}.items() if value is not None}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        read_activity(path, delayed())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", 0, "damaged .steps: 0 given, expected a whole number of at least 1"),
        ("samples", 1.5, "damaged .samples: 1.5 given, expected a whole number"),
        ("input_kind", "light", "its spike counts are of an input 'light', expected 'spikes' or 'current'"),
    ],
)
def test_a_file_of_spike_counts_of_no_steps_samples_or_input(tmp_path, key, value, message):
    path = tmp_path / "counts.npz"
    facts = write_counts(simulate(delayed(), random_spikes(delayed(), 0, steps=6, batch=2)).counts, path)
    np.savez(path, **{**read_arrays(path), "counts": np.array(json.dumps({**facts, key: value}))})
    with pytest.raises(DataError, match=message):
        read_activity(path, delayed())


def test_damage_inside_a_compressed_file_is_one_sentence(tmp_path):
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "in.npz", spikes=rng.random((6, 3, 40)) < 0.4)
    content = (tmp_path / "in.npz").read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=3):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            read_arrays(tmp_path / "damaged.npz")
        except FileError as error:
            refused += 1
            assert "damaged.npz" in str(error)
    assert refused > 200


def test_an_error_names_a_few_arrays_not_all(tmp_path):
    np.savez(tmp_path / "many.npz", **{f"a{n}": np.zeros(1) for n in range(30)})
    with pytest.raises(DataError, match="holds 'a0', 'a1', 'a2', 'a3', 26 more, expected"):
        read_input(tmp_path / "many.npz", random_graph(0))


def test_labels_of_an_input_file(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, spikes=np.ones((2, 3, 4)))
    assert read_labels(path, 3, 2) is None
    np.savez(path, spikes=np.ones((2, 3, 4)), y=np.array([0.0, 2.0, 1.0]))
    assert read_labels(path, 3, 2).tolist() == [0, 2, 1] and read_labels(path, 3, 2).dtype == np.int64
    np.savez(path, y=np.array([[0, -1], [2, 1], [1, 1]]))
    assert read_labels(path, 3, 2).tolist() == [[0, -1], [2, 1], [1, 1]]
    for wrong in ([0, 1], [0, -1, 2], [0.5, 1, 2], ["a", "b", "c"], [[0, 1]] * 2, [[0, -2]] * 3):
        np.savez(path, y=np.array(wrong))
        with pytest.raises(
            DataError, match=r"expected \(3,\), one whole number from 0 for each sample, or \(3, 2\), one for each step"
        ):
            read_labels(path, 3, 2)
    np.savez(path, y=np.array([0, 1, 2**31]))
    assert read_labels(path, 3, 2).tolist() == [0, 1, 2**31]
    for large in (np.inf, 1e30, 2**63, 2**31 + 1):
        np.savez(path, y=np.array([0, 1, large]))
        with pytest.raises(
            DataError, match=r"in.npz': y goes up to (inf|1e\+30|9.22e\+18|2.15e\+09), expected numbers of classes; check"
        ):
            read_labels(path, 3, 2)
