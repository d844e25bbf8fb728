"""`.snn` files: equal networks, equal bytes, one sentence for every error."""

import io
import json
import random
import zipfile
import zlib

import numpy as np
import pytest
from scipy import sparse

from spear_deploy.errors import FileError, GraphError, SpearError
from spear_deploy.interchange import load, snn_file
from spear_deploy.interchange.snn_file import PARTS, hash_network, read_snn, write_snn
from spear_deploy.network import IF, LIF, BatchNorm, Conv1d, Conv2d, CubaLI, Dense, Layer, LoihiLIF, Scale, SparseMatrix
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph
from tests.support.wild_graphs import wild_graph, wild_spikes

FACTS = {"assumptions": ["one"], "kept": {"fc": [0, 2]}, "scale": 0.1}


def small() -> SNNGraph:
    conv = Conv2d(weight=np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3), padding=(1, 0), stride=(1, 2))
    norm = BatchNorm(weight=np.ones(2), bias=np.zeros(2), mean=np.ones(2), var=np.ones(2), eps=1e-3)
    dense = Dense(weight=np.ones((3, 24), np.float16), bias=np.zeros(3))
    layers = [
        Layer(name="größe", synapse=conv, norm=norm, neuron=LIF(tau_s=np.full((2, 1, 1), 0.003), reset="subtract")),
        Layer(name="out", synapse=dense, neuron=CubaLI(tau_mem_s=0.01, tau_syn_s=0.1)),
    ]
    return chain(layers, input_shape=(1, 4, 7), dt_s=1e-4 / 3, metadata=FACTS)


def integer() -> SNNGraph:
    first = LoihiLIF(decay_u=4096, decay_v=9, v_threshold=5, refractory_steps=2)
    readout = LoihiLIF(decay_u=1, decay_v=np.arange(3).reshape(3, 1), v_threshold=None, bias_mantissa=-3, bias_exponent=6)
    layers = [
        Layer(name="in", synapse=Scale(weight=np.float32(36), bias=np.float32(34)), neuron=first),
        Layer(name="conv", synapse=Conv1d(weight=np.ones((3, 2, 2), np.int8), weight_exponent=-8), neuron=readout),
    ]
    return chain(layers, input_shape=(2, 5))


@pytest.mark.parametrize(
    "graph", [small(), integer(), *(random_graph(s, kind=k) for s in range(6) for k in ("float", "integer"))]
)
def test_round_trip_keeps_everything(graph, tmp_path):
    write_snn(graph, tmp_path / "a.snn")
    write_snn(graph, tmp_path / "b.snn")
    again = load(tmp_path / "a.snn")
    assert again == graph  # arrays in value, shape and type
    assert again.metadata == graph.metadata and again.dt_s == graph.dt_s
    assert (tmp_path / "a.snn").read_bytes() == (tmp_path / "b.snn").read_bytes()


@pytest.mark.parametrize("numbers", ["float", "loihi", "speck", "xylo"])
def test_any_network_comes_back_and_runs_alike(numbers, tmp_path):
    for seed in range(30):
        graph = wild_graph(seed, numbers)
        write_snn(graph, tmp_path / "a.snn")
        again = read_snn(tmp_path / "a.snn")
        assert again == graph and again.metadata == graph.metadata
        if seed % 3 == 0:
            x = wild_spikes(graph, seed)
            assert np.array_equal(simulate(again, x).output, simulate(graph, x).output)


def test_every_kind_of_part_can_be_written():
    assert {"IF", "LIF", "LoihiLIF", "SpeckIF", "XyloLIF"} <= set(PARTS["neuron"])
    assert {"Dense", "Conv1d", "Conv2d", "Scale", "SumPool", "AvgPool", "Flatten"} <= set(PARTS["synapse"])


def test_a_shape_beyond_the_file_is_refused_before_it_is_allocated(tmp_path):
    conv = Conv2d(weight=np.ones((1, 1, 1, 1)))
    write_snn(chain([Layer(name="c", synapse=conv, neuron=IF())], input_shape=(1, 9, 9)), tmp_path / "a.snn")
    rewritten(tmp_path / "a.snn", put("input_shape", value=[1, 30_000, 30_000]))
    with pytest.raises(FileError, match="a.snn': 'input' has 900000000 values, at most .* fit its size; write it again"):
        read_snn(tmp_path / "a.snn")
    rewritten(tmp_path / "a.snn", put("input_shape", value=[1, 10**7, 10**7]))
    with pytest.raises(GraphError, match="a.snn': layer 'c': emits 1 x 10000000 x 10000000 values, at most 2147483648"):
        read_snn(tmp_path / "a.snn")


def test_arrays_are_found_by_numpy_without_this_package(tmp_path):
    write_snn(small(), tmp_path / "a.snn")
    with np.load(tmp_path / "a.snn", allow_pickle=False) as archive:
        assert archive["layers.0.synapse.weight"].dtype == np.float32
        assert json.loads(archive["header"].tobytes())["version"] == 1


def sparse_network(size=500):
    places = np.random.default_rng(0).integers(0, size, (2, size))
    weight = sparse.coo_array((np.ones(size, np.float32), places), shape=(size, size))
    return chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(size,))


def test_sparse_weights_are_stored_sparse(tmp_path):
    graph = sparse_network()
    write_snn(graph, tmp_path / "a.snn")
    again = read_snn(tmp_path / "a.snn")
    assert again == graph
    assert isinstance(again["fc"].synapse.weight, SparseMatrix)
    assert (tmp_path / "a.snn").stat().st_size < 16 * 500 + 5_000
    assert hash_network(again) == hash_network(graph)
    with np.load(tmp_path / "a.snn") as archive:
        assert json.loads(archive["header"].tobytes())["version"] == 2
        assert archive["layers.0.synapse.weight.data"].dtype == np.float32


def test_metadata_that_is_no_json_is_refused_and_nothing_written(tmp_path):
    graph = chain([Layer(name="a", neuron=IF())], input_shape=(1,), metadata={"x": np.ones(2)})
    with pytest.raises(GraphError, match="metadata: is not JSON"):
        write_snn(graph, tmp_path / "a.snn")
    assert list(tmp_path.iterdir()) == []


def rewritten(path, change):
    """Write the file again with its header changed and all else as it was."""
    with zipfile.ZipFile(path) as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    header = json.loads(np.load(io.BytesIO(members["header.npy"])).tobytes())
    text = change(header)
    text = text if isinstance(text, str) else json.dumps(header)
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(text.encode(), np.uint8))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, "header.npy": buffer.getvalue()}.items():
            archive.writestr(name, data)


def put(*path, value):
    def change(header):
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (put("format", value="other"), FileError, "is not a 'spear-deploy network', expected a .snn file"),
        (put("version", value=3), FileError, "version 3, this release reads 1 and 2; update spear-deploy"),
        (
            put("layers", 0, "synapse", "kind", value="Conv2D"),
            FileError,
            "layer 0: unknown synapse 'Conv2D'; did you mean 'Conv2d'",
        ),
        (put("layers", 0, "dendrite", value={}), FileError, "layer 0: unknown part 'dendrite'"),
        (put("layers", 0, "synapse", "colour", value=1), FileError, "layer 0: Conv2d has no 'colour'; update spear-deploy"),
        (put("layers", 0, "synapse", "weight", value={"array": "x"}), FileError, "layer 0: array 'x' is missing"),
        (put("layers", 0, "synapse", "groups", value=1.5), FileError, "the header is damaged .*1.5 where a whole number belongs"),
        (put("layers", 0, "synapse", "stride", value="ab"), FileError, "the header is damaged"),
        (put("edges", 0, "source", value="nowhere"), GraphError, "there is no layer 'nowhere'"),
        (put("input_shape", value=[1, 4, 9]), GraphError, "Dense takes 24 inputs"),
        (put("metadata", value=[]), FileError, "metadata is not a dictionary"),
        (put("dt_s", value="soon"), FileError, "the header is damaged"),
        (lambda header: json.dumps(header).replace("0.001", "NaN"), FileError, "the header is damaged .NaN in the header"),
        (lambda header: "[" * 100_000, FileError, "the header is damaged"),
        (lambda header: "[]", FileError, "is not a 'spear-deploy network'"),
    ],
)
def test_a_wrong_header_is_one_sentence(change, error, match, tmp_path):
    write_snn(small(), tmp_path / "a.snn")
    rewritten(tmp_path / "a.snn", change)
    with pytest.raises(error, match=match) as caught:
        read_snn(tmp_path / "a.snn")
    assert str(caught.value).startswith(f"file '{tmp_path / 'a.snn'}'") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (put("layers", 0, "synapse", "weight", "shape", value=[500, 400]), GraphError, "columns .* expected 0..399"),
        (put("layers", 0, "synapse", "weight", "shape", value=[400, 500]), GraphError, "501 row starts, expected 401"),
        (put("layers", 0, "synapse", "weight", "shape", value=[500]), FileError, "the header is damaged"),
        (put("layers", 0, "synapse", "weight", "sparse", "data", value="x"), FileError, "array 'x' is missing"),
        (put("layers", 0, "synapse", "weight", "sparse", value={}), FileError, "the header is damaged"),
        (put("layers", 0, "synapse", "weight", "shape", value=[500, 10**9]), GraphError, "Dense takes 1000000000 inputs"),
    ],
)
def test_sparse_weights_that_are_no_matrix_are_one_sentence(change, error, match, tmp_path):
    write_snn(sparse_network(), tmp_path / "a.snn")
    rewritten(tmp_path / "a.snn", change)
    with pytest.raises(error, match=match) as caught:
        read_snn(tmp_path / "a.snn")
    assert str(caught.value).startswith(f"file '{tmp_path / 'a.snn'}'") and "\n" not in str(caught.value)


def test_foreign_archives_and_arrays_raise(tmp_path):
    with open(tmp_path / "a.snn", "wb") as file:
        np.savez(file, x=np.ones(3))
    with pytest.raises(FileError, match="is a zip archive without a network header"):
        read_snn(tmp_path / "a.snn")
    with zipfile.ZipFile(tmp_path / "b.snn", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", b"0" * 1_000_000)
    with pytest.raises(FileError, match="declares more than it holds"):
        read_snn(tmp_path / "b.snn")
    with open(tmp_path / "c.snn", "wb") as file:
        np.savez(file, x=np.array([{"pickle": 1}], dtype=object))
    with pytest.raises(FileError, match="is not a complete .snn file .array of object"):
        read_snn(tmp_path / "c.snn")
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "d.snn", "w") as archive:
        archive.writestr("header.npy", huge.getvalue() + b"few")
    with pytest.raises(FileError, match="array of shape .1000000000000,. in 3 bytes"):
        read_snn(tmp_path / "d.snn")
    with zipfile.ZipFile(tmp_path / "e.snn", "w") as archive:
        archive.writestr("header.npy", b"\x93NUMPY\x09\x00rest")
    with pytest.raises(FileError, match="npy version .9, 0."):
        read_snn(tmp_path / "e.snn")
    header = b"{'descr': (("
    with zipfile.ZipFile(tmp_path / "f.snn", "w") as archive:
        archive.writestr("header.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(FileError, match="f.snn': is not a complete .snn file"):
        read_snn(tmp_path / "f.snn")


def test_nan_in_a_stored_array_raises(tmp_path):
    write_snn(small(), tmp_path / "a.snn")
    data = (tmp_path / "a.snn").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.snn") as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    name = "layers.0.synapse.weight.npy"
    buffer = io.BytesIO()
    np.save(buffer, np.full((2, 1, 3, 3), np.nan, np.float32))
    with zipfile.ZipFile(tmp_path / "a.snn", "w") as archive:
        for member, content in {**members, name: buffer.getvalue()}.items():
            archive.writestr(member, content)
    assert data != (tmp_path / "a.snn").read_bytes()
    with pytest.raises(GraphError, match="Conv2d.weight: holds NaN or infinite values"):
        read_snn(tmp_path / "a.snn")


def test_an_array_that_ends_early_is_refused_whatever_its_checksum(tmp_path):
    write_snn(small(), tmp_path / "a.snn")
    with zipfile.ZipFile(tmp_path / "a.snn", "a") as archive:
        member = archive.getinfo("layers.0.synapse.weight.npy")
        member.CRC = zlib.crc32(archive.read(member)[:-8])
        member.compress_size -= 8
        archive._didModify = True  # the list at the end is written again
    with pytest.raises(FileError, match=r"is not a complete .snn file \(array of shape \(2, 1, 3, 3\) ends after 64 bytes\)"):
        read_snn(tmp_path / "a.snn")


def test_arrays_of_the_file_are_taken_without_a_copy(tmp_path, monkeypatch):
    taken, read_array = [], snn_file._read_array
    monkeypatch.setattr(snn_file, "_read_array", lambda *part: taken.append(read_array(*part)) or taken[-1])
    write_snn(small(), tmp_path / "a.snn")
    graph = read_snn(tmp_path / "a.snn")
    assert any(graph["out"].synapse.weight is array for array in taken)


def test_damaged_files_raise_our_errors_only(tmp_path):
    write_snn(small(), tmp_path / "a.snn")
    data = (tmp_path / "a.snn").read_bytes()
    refused = 0
    for seed in range(400):
        rng = random.Random(seed)
        damaged = bytearray(data[: rng.randrange(1, len(data))] if seed % 2 else data)
        for _ in range(rng.choice([1, 8])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "b.snn").write_bytes(damaged)
        try:
            read_snn(tmp_path / "b.snn")
        except SpearError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 300


def test_nan_weights_name_the_layer(tmp_path):
    graph = random_graph(0)
    write_snn(graph, tmp_path / "net.snn")
    place = [layer.name for layer in graph.layers].index("depthwise")
    with np.load(tmp_path / "net.snn") as file:
        arrays = {name: file[name] for name in file.files}
    arrays[f"layers.{place}.synapse.weight"] = arrays[f"layers.{place}.synapse.weight"] * np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    (tmp_path / "nan.npz").rename(tmp_path / "nan.snn")
    with pytest.raises(GraphError, match=rf"nan.snn', layer {place} .'depthwise'.: Conv2d.weight: holds NaN"):
        read_snn(tmp_path / "nan.snn")
