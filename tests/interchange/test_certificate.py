"""An export is proven before it is put in place, and the proof says what differs."""

import json
import re
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from spear_deploy.errors import DataError, FileError, UnsupportedError
from spear_deploy.interchange import certificate as certificates
from spear_deploy.interchange import export, load
from spear_deploy.interchange import formats as file_formats
from spear_deploy.interchange.certificate import ProofInput, certify, default_input
from spear_deploy.interchange.netx.writer import write_netx
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.onnx.model_file import write_onnx
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LI, BatchNorm, Conv2d, Dense, Layer, LoihiLIF, Scale
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph, random_spikes


def integer(threshold=200, **more):
    rng = np.random.default_rng(0)
    neuron = LoihiLIF(decay_u=4096, decay_v=400, v_threshold=threshold)
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=2 * rng.integers(-60, 61, (3, 1, 3, 3))), neuron=neuron),
        Layer(name="fc", synapse=Dense(weight=2 * rng.integers(-60, 61, (4, 48))), neuron=replace(neuron, v_threshold=None)),
    ]
    return chain(layers, input_shape=(1, 6, 6), **more)


def floating():
    rng = np.random.default_rng(0)
    norm = BatchNorm(weight=np.ones(3), bias=np.zeros(3), mean=np.zeros(3), var=np.full(3, 0.25))
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(3, 1, 3, 3)).astype("f4")), norm=norm, neuron=IF()),
        Layer(name="fc", synapse=Dense(weight=rng.normal(size=(4, 48)).astype("f4")), neuron=LI(tau_s=5e-3)),
    ]
    return chain(layers, input_shape=(1, 6, 6))


@pytest.mark.parametrize(("to", "graph"), [("nir", floating()), ("onnx", floating()), ("onnx", integer()), ("netx", integer())])
def test_an_export_is_proven(to, graph, tmp_path):
    x = random_spikes(graph, 3, steps=9, batch=5)
    found = export(graph, tmp_path / f"out/net.{to}", to=to, proof=ProofInput(x=x))
    stored = json.loads((tmp_path / "out/certificate.json").read_text())
    assert stored == found
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["certificate.json", f"net.{to}"]
    assert found["mismatches"] == 0 and found["first_difference"] is None and found["not_compared"] == []
    assert found["file"] == f"net.{to}" and found["bytes"] == (tmp_path / f"out/net.{to}").stat().st_size
    assert found["input"]["steps"] == 9 and found["input"]["samples"] == 5 and found["input"]["random_seed"] is None
    assert [(row["layer"], row["what"], row["compared"]) for row in found["layers"]] == [
        ("conv", "spikes", 9 * 5 * 48),
        ("fc", "values", 9 * 5 * 4),
    ]
    assert found["layers"][0]["spikes"] == int(simulate(graph, x, record=("spikes",)).spikes["conv"].sum()) > 0
    reader = {"nir": "nir 1.", "onnx": "onnxruntime ", "netx": "h5py "}[to]
    assert found["reader"].startswith(reader) and found["versions"]["numpy"] == np.__version__
    assert any("batch norm is folded" in text for text in found["approximations"]) == (to == "nir")


def test_random_networks_export_to_what_can_hold_them(tmp_path):
    for seed in range(4):
        for kind, formats in (("float", ("nir", "onnx")), ("integer", ("onnx",))):
            for to in formats:
                assert export(random_graph(seed, kind=kind), tmp_path / f"a.{to}", to=to)["mismatches"] == 0


@pytest.mark.parametrize("to", ["nir", "onnx", "netx"])
def test_a_file_that_does_something_else_is_found_out(to, tmp_path):
    """One other threshold in the file: the certificate counts what differs and names the first place."""
    path = tmp_path / f"a.{to}"
    good, other = (floating(), integer()) if to == "nir" else (integer(), integer(threshold=260))
    if to == "nir":
        other = good.with_layers({"conv": replace(good["conv"], neuron=IF(v_threshold=1.25))})
    {"nir": write_nir, "onnx": write_onnx, "netx": write_netx}[to](other, path)
    x = random_spikes(good, 0, steps=12, batch=3)
    found = certify(good, path, format=to, proof=ProofInput(x=x))
    a, b = (simulate(g, x, record=("spikes", "v")) for g in (good, other))
    different = a.spikes["conv"].reshape(12, 3, -1) != b.spikes["conv"].reshape(12, 3, -1)
    assert found["layers"][0]["mismatches"] == int(different.sum()) > 0
    step, sample, neuron = np.argwhere(different)[0].tolist()
    assert found["first_difference"] == {"layer": "conv", "step": step, "sample": sample, "neuron": neuron}
    conv, fc = found["layers"]
    assert conv["first_difference"] == found["first_difference"] and conv["spikes_in_file"] == int(b.spikes["conv"].sum())
    assert fc["largest_difference"] > 0 and fc["first_difference"]["layer"] == "fc"
    assert found["mismatches"] == sum(row["mismatches"] for row in found["layers"])
    json.dumps(found, allow_nan=False)


def test_default_input_fits_the_network():
    x, kind = default_input(integer())
    assert x.shape == (32, 4, 1, 6, 6) and x.dtype == bool and kind == "spikes"
    first = Layer(name="in", synapse=Scale(weight=np.array(36)), neuron=LoihiLIF(decay_u=4096, decay_v=0, v_threshold=30))
    x, kind = default_input(chain([first], input_shape=(3,)))
    assert kind == "current" and x.dtype == float
    assert np.array_equal(default_input(integer())[0], default_input(integer())[0])
    assert not np.array_equal(default_input(integer())[0], default_input(integer(), 1)[0])


def test_a_certificate_says_what_was_assumed_and_drawn(tmp_path):
    graph = replace(floating(), metadata={"assumptions": ["the network is a network"]})
    found = export(graph, tmp_path / "a.nir", to="nir", proof=ProofInput(seed=3), approximations=["what was done before"])
    assert found["assumptions"] == ["the network is a network"] and found["input"]["random_seed"] == 3
    assert found["approximations"][0] == "what was done before" and len(found["approximations"]) == 2
    assert all(row["first_difference"] is None for row in found["layers"])
    spiking = found["layers"][0]
    assert spiking["spikes"] == spiking["spikes_in_file"] > 0
    other = export(graph, tmp_path / "a.nir", to="nir", proof=ProofInput(seed=4))
    assert other["input"]["sha256"] != found["input"]["sha256"] and other["sha256"] == found["sha256"]


def test_a_network_that_is_quantised_on_the_way_says_how_far_it_is_off(tmp_path):
    from spear_deploy.pipeline import api

    found = api.export(floating(), tmp_path / "a.net", to="netx")
    assert found["mismatches"] == 0 and found["input"]["kind"] == "spikes"
    told = re.fullmatch(
        r"the integers are written: (\d+) spikes differ from those of the .* on this input", found["approximations"][0]
    )
    assert told and int(told[1]) < 0.2 * found["layers"][0]["compared"]


def test_a_nir_file_tells_the_cores_of_a_chip_that_is_named(tmp_path):
    import nir

    from spear_deploy.pipeline import api

    api.export(floating(), tmp_path / "a.nir", to="nir")
    assert "spear_cores" not in nir.read(tmp_path / "a.nir").nodes["conv"].metadata
    api.export(floating(), tmp_path / "b.nir", to="nir", chip="loihi2")
    found = nir.read(tmp_path / "b.nir")
    assert found.nodes["conv"].metadata["spear_core_neurons"].sum() == 48 and "spear_profile" in found.metadata


@pytest.mark.parametrize("to", ["nir", "netx", "onnx"])
def test_export_exits_with_1_where_the_file_does_something_else(to, tmp_path, monkeypatch):
    """A writer that drops a neuron's threshold by one part in two: the command says so, and --force accepts it."""
    from click.testing import CliRunner

    from spear_deploy.cli import main

    real = file_formats._import_writer(to)

    def careless(graph, path, **options):
        neuron = graph["conv"].neuron
        changed = replace(neuron, v_threshold=np.asarray(neuron.v_threshold // 2 if graph.is_integer else neuron.v_threshold / 2))
        return real(graph.with_layers({"conv": replace(graph["conv"], neuron=changed)}), path, **options)

    monkeypatch.setattr(file_formats, "_import_writer", lambda _: careless)
    write_snn(integer() if to == "netx" else floating(), tmp_path / "a.snn")
    command = ["export", str(tmp_path / "a.snn"), "--to", to, "--out", str(tmp_path / f"b.{to}"), "--json"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 1 and "read back it spikes differently, see certificate.json; --force accepts that" in found.stderr
    certificate = json.loads(found.stdout)
    assert certificate == json.loads((tmp_path / "certificate.json").read_text())
    assert certificate["mismatches"] > 0 and certificate["first_difference"]["layer"] == "conv"
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0


def test_nothing_is_left_behind_when_an_export_fails(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedError, match="netx holds integer networks; quantise this one first"):
        export(floating(), tmp_path / "a.net", to="netx")
    with pytest.raises(DataError, match="input has shape .2, 2., the network takes"):
        export(floating(), tmp_path / "a.nir", to="nir", proof=ProofInput(x=np.zeros((2, 2))))
    with pytest.raises(UnsupportedError, match="format 'nirr': expected one of nir, netx, onnx; did you mean 'nir'"):
        export(floating(), tmp_path / "a.nir", to="nirr")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.nir").write_text("old")
    monkeypatch.setattr(certificates, "simulate", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(floating(), tmp_path / "a.nir", to="nir")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nir"] and (tmp_path / "a.nir").read_text() == "old"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        export(floating(), tmp_path / "file/a.nir", to="nir")


def test_a_certificate_for_the_wrong_file(tmp_path):
    write_netx(integer(), tmp_path / "a.net")
    with pytest.raises(UnsupportedError, match="format 'net': expected one of nir, netx, onnx"):
        certify(integer(), tmp_path / "a.net", format="net")
    fewer = chain(
        [Layer(name="fc", synapse=Dense(weight=np.ones((2, 5), int)), neuron=integer()["conv"].neuron)], input_shape=(5,)
    )
    with pytest.raises(DataError, match="the file takes .1, 6, 6., the network .5,."):
        certify(fewer, tmp_path / "a.net", format="netx")
    same_input = chain(
        [Layer(name="conv", synapse=Dense(weight=np.ones((2, 36), int)), neuron=integer()["conv"].neuron)], input_shape=(36,)
    )
    with pytest.raises(DataError, match="layer 'conv': 2 neurons in the network, 4 in the file"):
        certify(same_input, tmp_path / "a.net", format="netx")


def test_rounded_biases_are_in_the_certificate(tmp_path):
    graph = integer()
    neuron = replace(graph["conv"].neuron, bias_mantissa=np.array(96))
    graph = graph.with_layers({"conv": replace(graph["conv"], neuron=neuron)})
    found = export(graph, tmp_path / "a.net", to="netx", round_bias=True)
    assert found["approximations"] == ["layer 'conv': biases are rounded to multiples of 64"]
    assert found["mismatches"] > 0 and found["first_difference"] is not None


# -------------------------------------------------------------------------------------------------------------- load


def test_load_goes_by_the_ending(tmp_path):
    graph = floating()
    write_snn(graph, tmp_path / "a.SNN")
    assert load(tmp_path / "a.SNN") == graph
    write_nir(graph, tmp_path / "a.nir")
    assert load(tmp_path / "a.nir", dt_s=2e-3, reset=None).dt_s == 2e-3
    write_netx(integer(), tmp_path / "a.h5")
    assert load(tmp_path / "a.h5", dt_s=None).is_integer


@pytest.mark.parametrize(
    ("name", "content", "options", "match"),
    [
        ("a.snn", None, {}, "there is no such network file; check the path"),
        ("a.net", b"", {}, "is empty, expected a network file"),
        ("a.snn", b"PK\x03\x04 and no more", {}, "is not a complete .snn file"),
        ("a.nir", b"text", {}, "is not HDF5, a NIR file is"),
        ("a.h5", b"text", {}, "is not HDF5, a netx file is"),
        ("a.pt", b"PK", {}, "ending '.pt' says no format, known are .snn, .nir, .net, .h5, .hdf5"),
        ("a.nri", b"x", {}, "ending '.nri' says no format, .*; did you mean '.nir'"),
        ("network", b"x", {}, "ending '' says no format"),
        ("a.onnx", b"x", {}, "ONNX files are written, not read as networks"),
        ("a.net", b"x", {"dt_s": 1e-3}, "a netx file states its own dt_s; leave the option out"),
        ("a.snn", b"x", {"reset": "value"}, "a network file states its own reset; leave the option out"),
    ],
)
def test_load_says_what_is_wrong_with_a_file(name, content, options, match, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=match) as caught:
        load(tmp_path / name, **options)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_is_no_network(tmp_path):
    with pytest.raises(FileError, match="is a folder, expected a network file"):
        load(tmp_path)


def test_reading_needs_neither_torch_nor_the_writers(tmp_path):
    import subprocess

    write_snn(floating(), tmp_path / "a.snn")
    write_netx(integer(), tmp_path / "a.net")
    write_nir(floating(), tmp_path / "a.nir")
    code = (
        "import sys; from spear_deploy.interchange import load; [load(path) for path in sys.argv[1:]]; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'nir', 'lava', 'matplotlib'} & set(sys.modules)))"
    )
    files = [str(tmp_path / name) for name in ("a.snn", "a.net", "a.nir")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_survive_netx(tmp_path):
    write_netx(integer(), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        assert file["layer/1/name"][()] == b"conv"
    assert [layer.name for layer in load(tmp_path / "a.net").layers] == ["conv", "fc"]
