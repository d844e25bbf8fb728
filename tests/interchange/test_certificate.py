"""Exports are proven before they are put in place; certificates name differences."""

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
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.onnx.float_bounds import FOLDED, SpikeGuidedRun, find_spikes
from spear_deploy.interchange.onnx.model_file import write_onnx
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LI, LIF, BatchNorm, Conv1d, Conv2d, Dense, Layer, LoihiLIF, Scale
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph, random_spikes
from tests.support.wild_graphs import wild_graph


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
    result = export(graph, tmp_path / f"out/net.{to}", to=to, proof=ProofInput(x=x))
    stored = json.loads((tmp_path / "out/certificate.json").read_text())
    assert stored == result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["certificate.json", f"net.{to}"]
    assert result["mismatches"] == 0 and result["first_difference"] is None and result["not_compared"] == []
    assert result["file"] == f"net.{to}" and result["bytes"] == (tmp_path / f"out/net.{to}").stat().st_size
    assert result["input"]["steps"] == 9 and result["input"]["samples"] == 5 and result["input"]["random_seed"] is None
    assert [(row["layer"], row["what"], row["compared"]) for row in result["layers"]] == [
        ("conv", "spikes", 9 * 5 * 48),
        ("fc", "values", 9 * 5 * 4),
    ]
    assert result["layers"][0]["spikes"] == int(simulate(graph, x, record=("spikes",)).spikes["conv"].sum()) > 0
    reader = {"nir": "nir 1.", "onnx": "onnxruntime ", "netx": "h5py "}[to]
    assert result["reader"].startswith(reader) and result["versions"]["numpy"] == np.__version__
    assert any("batch norm is folded" in text for text in result["approximations"]) == (to == "nir")


def test_random_networks_export_to_every_format_that_holds_them(tmp_path):
    for seed in range(2):
        for kind, formats in (("float", ("nir", "onnx")), ("integer", ("onnx",))):
            for to in formats:
                assert export(random_graph(seed, kind=kind), tmp_path / f"a.{to}", to=to)["mismatches"] == 0


@pytest.mark.parametrize("to", ["nir", "onnx", "netx"])
def test_a_file_of_another_network_has_mismatches(to, tmp_path):
    """One other threshold in the file: the certificate counts what differs and names the first place."""
    path = tmp_path / f"a.{to}"
    good, other = (floating(), integer()) if to == "nir" else (integer(), integer(threshold=260))
    if to == "nir":
        other = good.with_layers({"conv": replace(good["conv"], neuron=IF(v_threshold=1.25))})
    {"nir": write_nir, "onnx": write_onnx, "netx": write_netx}[to](other, path)
    x = random_spikes(good, 0, steps=12, batch=3)
    result = certify(good, path, format=to, proof=ProofInput(x=x))
    a, b = (simulate(g, x, record=("spikes", "v")) for g in (good, other))
    different = a.spikes["conv"].reshape(12, 3, -1) != b.spikes["conv"].reshape(12, 3, -1)
    step, sample, neuron = np.argwhere(different)[0].tolist()
    assert result["first_difference"] == {"layer": "conv", "step": step, "sample": sample, "neuron": neuron}
    conv, fc = result["layers"]
    assert conv["first_difference"] == result["first_difference"] and conv["mismatches"] > 0
    if to != "nir":  # there the file's neurons are reset by the network's spikes, since a norm is folded in
        assert (conv["mismatches"], conv["spikes_in_file"]) == (int(different.sum()), int(b.spikes["conv"].sum()))
        assert fc["largest_difference"] > 0 and fc["first_difference"]["layer"] == "fc"
    assert result["mismatches"] == sum(row["mismatches"] for row in result["layers"])
    json.dumps(result, allow_nan=False)


def folded(rng, neuron, *, kernel=False):
    """Layers with batch norm, whose sums round: a dense one, or a convolution behind one with a sum between."""

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def norm(channels):
        return BatchNorm(weight=draw(channels), bias=draw(channels), mean=draw(channels), var=draw(channels) ** 2 + 0.3)

    if not kernel:
        first = Layer(name="first", synapse=Dense(weight=draw(60, 50), bias=draw(60)), norm=norm(60), neuron=neuron)
        return chain([first, Layer(name="fc", synapse=Dense(weight=draw(4, 60)), neuron=LI(tau_s=5e-3))], input_shape=(50,))
    layers = [
        Layer(name="a", synapse=Conv2d(weight=draw(6, 2, 3, 3), padding=1), norm=norm(6)),
        Layer(name="first", neuron=neuron),
        Layer(name="skip", synapse=Conv2d(weight=draw(6, 2, 1, 1), bias=draw(6)), norm=norm(6)),
        Layer(name="fc", synapse=Dense(weight=draw(4, 6 * 25)), neuron=LI(tau_s=5e-3)),
    ]
    pairs = [("input", "a"), ("input", "skip"), ("a", "first"), ("skip", "first"), ("first", "fc")]
    return SNNGraph(layers=tuple(layers), edges=tuple(Edge(source=a, target=b) for a, b in pairs), input_shape=(2, 5, 5))


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("neuron", [IF(v_threshold=2.0), LIF(tau_s=3e-3, r=2.1, v_threshold=1.3, reset="subtract")])
def test_a_norm_in_the_weights_moves_values_by_no_more_than_the_bound(neuron, kernel, tmp_path):
    """At every value of 4 networks, and the bound is at most 200 times the largest difference."""
    rng = np.random.default_rng(11)
    closest = 0.0
    for _ in range(4):
        graph = folded(rng, neuron, kernel=kernel)
        write_nir(graph, tmp_path / "a.nir")
        here = SpikeGuidedRun(graph, 5, rounding="folded")
        there = SpikeGuidedRun(read_nir(tmp_path / "a.nir"), 5, rounding="none")
        for x in random_spikes(graph, 2, steps=10, batch=5):
            mine = here.advance(x)
            file = there.advance(x, {"first": find_spikes(graph["first"], mine["first"].value)})
            for name in ("first", "fc"):
                off = np.abs(mine[name].value.astype(np.float64) - file[name].value)
                assert (off <= mine[name].gap).all()
            closest = max(closest, float((np.abs(mine["first"].value - file["first"].value) / mine["first"].gap).max()))
        certificate = certify(graph, tmp_path / "a.nir", format="nir")
        assert certificate["mismatches"] == 0 and certificate["not_compared"] == []
        assert 0 < certificate["layers"][0]["largest_bound"] and certificate["bound"] == FOLDED
    assert closest > 0.005


def test_a_spike_that_folding_moves_over_the_threshold_is_a_tie_and_export_succeeds(tmp_path):
    """The threshold of one neuron lies between v of the network and v of the file."""
    rng = np.random.default_rng(12)
    silent = folded(rng, IF(v_threshold=np.full(60, 1e9)))
    x = random_spikes(silent, 0, steps=6, batch=2)
    write_nir(silent, tmp_path / "silent.nir")
    none = {"first": np.zeros((2, 60), bool)}
    mine, file = (
        SpikeGuidedRun(graph, 2, rounding="none").advance(x[0], none)["first"].value[0]
        for graph in (silent, read_nir(tmp_path / "silent.nir"))
    )
    neuron = int(np.argmax(np.where(mine != file, mine, 0)))  # the one with the largest drive, which spikes again
    threshold = np.full(60, 1e9)
    threshold[neuron] = min(mine[neuron], file[neuron])
    graph = silent.with_layers({"first": replace(silent["first"], neuron=IF(v_threshold=threshold))})
    certificate = export(graph, tmp_path / "a.nir", to="nir", proof=ProofInput(x=x))
    first, last = certificate["layers"]
    assert (first["ties"] > 0, certificate["mismatches"], certificate["first_difference"]) == (True, 0, None)
    assert first["tie_distance"] == certificate["tie_distance"] <= first["largest_bound"]
    assert first["after_ties"] == last["after_ties"] == 0 and first["compared"] == 6 * 2 * 60
    assert certify(graph, tmp_path / "silent.nir", format="nir", proof=ProofInput(x=x))["mismatches"] > 0


def test_a_large_network_is_proven_on_fewer_samples_and_steps(monkeypatch):
    def network(n):
        weight = np.zeros((n, n), np.float32)
        return chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(n,))

    assert default_input(network(100))[0].shape == (32, 4, 100)
    for products, steps, samples in ((2 * 32 * 100 * 100, 32, 2), (20 * 100 * 100, 20, 1), (1, 8, 1)):
        monkeypatch.setattr(certificates, "MAX_PRODUCTS", products)
        assert default_input(network(100))[0].shape == (steps, samples, 100)


@pytest.mark.parametrize("seed", range(12))
def test_a_run_by_steps_has_the_values_of_a_whole_run(seed, monkeypatch):
    graph = wild_graph(seed)
    x = random_spikes(graph, seed, steps=9, batch=2)
    whole = simulate(graph, x, record=("spikes", "v"))
    for block in (1, 1 << 20):
        monkeypatch.setattr(certificates, "BLOCK_VALUES", block)
        steps = 0
        for t, values in enumerate(certificates.run_steps(graph, x, "spikes")):
            steps += 1
            for name, value in values.items():
                expected = whole.spikes.get(name, whole.v[name] if name in whole.v else whole.output)
                assert np.array_equal(value, expected[t])
        assert steps == 9


def test_default_input_fits_the_network():
    x, kind = default_input(integer())
    assert x.shape == (32, 4, 1, 6, 6) and x.dtype == bool and kind == "spikes"
    first = Layer(name="in", synapse=Scale(weight=np.array(36)), neuron=LoihiLIF(decay_u=4096, decay_v=0, v_threshold=30))
    x, kind = default_input(chain([first], input_shape=(3,)))
    assert kind == "current" and x.dtype == float
    beside = Layer(name="beside", synapse=Dense(weight=np.ones((3, 3), int)), neuron=first.neuron)  # takes whole numbers alone
    last = Layer(name="out", synapse=Dense(weight=np.ones((2, 3), int)), neuron=first.neuron)
    edges = [("input", "in"), ("input", "beside"), ("in", "out"), ("beside", "out")]
    both = SNNGraph(
        layers=(first, beside, last), edges=tuple(Edge(source=a, target=b) for a, b in edges), input_shape=(3,), output="out"
    )
    assert default_input(both)[1] == "spikes"
    assert np.array_equal(default_input(integer())[0], default_input(integer())[0])
    assert not np.array_equal(default_input(integer())[0], default_input(integer(), 1)[0])


def test_a_certificate_lists_assumptions_and_the_seed(tmp_path):
    graph = replace(floating(), metadata={"assumptions": ["the network is a network"]})
    result = export(graph, tmp_path / "a.nir", to="nir", proof=ProofInput(seed=3), approximations=["what was done before"])
    assert result["assumptions"] == ["the network is a network"] and result["input"]["random_seed"] == 3
    assert result["approximations"][0] == "what was done before" and len(result["approximations"]) == 2
    assert all(row["first_difference"] is None for row in result["layers"])
    spiking = result["layers"][0]
    assert spiking["spikes"] == spiking["spikes_in_file"] > 0
    other = export(graph, tmp_path / "a.nir", to="nir", proof=ProofInput(seed=4))
    assert other["input"]["sha256"] != result["input"]["sha256"] and other["sha256"] == result["sha256"]


def test_a_network_quantised_for_export_reports_its_distance(tmp_path):
    from spear_deploy.pipeline import api

    result = api.export(floating(), tmp_path / "a.net", to="netx")
    assert result["mismatches"] == 0 and result["input"]["kind"] == "spikes" and result["input"]["random_seed"] == 0
    given = api.export(floating(), tmp_path / "b.net", to="netx", x=random_spikes(floating(), 0))
    assert given["input"]["random_seed"] is None
    assert api.export(floating(), tmp_path / "c.net", to="netx", seed=4)["input"]["random_seed"] == 4
    told = re.fullmatch(
        r"the integers are written: (\d+) spikes differ from those of the .* on this input", result["approximations"][0]
    )
    assert told and int(told[1]) < 0.2 * result["layers"][0]["compared"]


def test_a_nir_file_holds_the_cores_of_the_named_chip(tmp_path):
    import nir

    from spear_deploy.pipeline import api

    api.export(floating(), tmp_path / "a.nir", to="nir")
    assert "spear_cores" not in nir.read(tmp_path / "a.nir").nodes["conv"].metadata
    api.export(floating(), tmp_path / "b.nir", to="nir", chip="loihi2")
    result = nir.read(tmp_path / "b.nir")
    assert result.nodes["conv"].metadata["spear_core_neurons"].sum() == 48 and "spear_profile" in result.metadata


@pytest.mark.parametrize("to", ["nir", "netx", "onnx"])
def test_export_exits_with_1_where_the_file_spikes_differently(to, tmp_path, monkeypatch):
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
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "spikes differ after reading it back, see certificate.json; --force accepts that" in result.stderr
    certificate = json.loads(result.stdout)
    stored = json.loads((tmp_path / "certificate.json").read_text())
    assert {key: certificate[key] for key in stored} == stored
    assert certificate["mismatches"] > 0 and certificate["first_difference"]["layer"] == "conv"
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0


def test_nothing_is_left_behind_when_an_export_fails(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedError, match="netx holds integer networks; quantise this one first"):
        export(floating(), tmp_path / "a.net", to="netx")
    with pytest.raises(DataError, match="input has shape .2, 2., the network takes"):
        export(floating(), tmp_path / "a.nir", to="nir", proof=ProofInput(x=np.zeros((2, 2))))
    with pytest.raises(
        UnsupportedError, match="format 'nirr': expected one of nir, netx, onnx, xylo, speck, pynn; did you mean 'nir'"
    ):
        export(floating(), tmp_path / "a.nir", to="nirr")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.nir").write_text("old")
    monkeypatch.setattr(certificates, "compare_folded", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(floating(), tmp_path / "a.nir", to="nir")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nir"] and (tmp_path / "a.nir").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "to", "whose", "ending"),
    [
        ("a.net", "nir", "a netx file by its ending", ".nir"),
        ("a.SNN", "nir", "a network file by its ending", ".nir"),
        ("a.nir", "onnx", "a NIR file by its ending", ".onnx"),
        ("a.onnx", "netx", "an ONNX file by its ending", ".net"),
        ("certificate.json", "nir", "the certificate beside it", ".nir"),
    ],
)
def test_the_ending_of_another_format_raises(name, to, whose, ending, tmp_path):
    """Such a file was written, and no command could read it: an ending says what a file is."""
    with pytest.raises(FileError, match=f"{name}': is {whose}, and {to} is written; choose a name that ends in {ending}"):
        export(floating(), tmp_path / name, to=to)
    assert list(tmp_path.iterdir()) == []
    assert export(floating(), tmp_path / "other.bin", to="nir")["mismatches"] == 0


def test_a_place_that_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        export(floating(), tmp_path / "file/a.nir", to="nir")


def test_a_certificate_for_the_wrong_file_raises(tmp_path):
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
    result = export(graph, tmp_path / "a.net", to="netx", round_bias=True)
    assert result["approximations"] == ["layer 'conv': biases are rounded to multiples of 64"]
    assert result["mismatches"] > 0 and result["first_difference"] is not None


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
        ("a.zip", b"PK", {}, "ending '.zip' says no format, known are .snn, .nir, .net, .h5, .hdf5"),
        ("a.pt", b"PK", {}, "holds the weights of a model, not its layers; name a function that builds the model and loads them"),
        ("a.safetensors", b"x", {}, "holds the weights of a model, not its layers; name a function that builds the model"),
        ("my_net.py", b"x", {}, "is Python; name a function in it that returns the model, as in my_net:trained"),
        ("a.nri", b"x", {}, "ending '.nri' says no format, .*; did you mean '.nir'"),
        ("network", b"x", {}, "ending '' says no format"),
        ("a.onnx", b"x", {}, "ONNX files are written, not read as networks"),
        ("a.net", b"x", {"dt_s": 1e-3}, "a netx file states its own dt_s; leave the option out"),
        ("a.snn", b"x", {"reset": "value"}, "a network file states its own reset; leave the option out"),
    ],
)
def test_load_names_what_is_wrong_with_a_file(name, content, options, match, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=match) as caught:
        load(tmp_path / name, **options)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_raises(tmp_path):
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


def test_a_sum_before_a_convolution_that_widens_is_certified(tmp_path):
    """Two inputs add up before a padded convolution; what it emits adds up with another input one step later."""
    norm = BatchNorm(weight=np.ones(2), bias=np.zeros(2), mean=np.full(2, 0.25), var=np.ones(2))
    widening = Conv1d(weight=np.ones((2, 2, 1)), padding=(2,))
    layers = (
        Layer(name="normed", norm=norm, neuron=IF(v_threshold=0.5)),
        Layer(name="conv", synapse=widening),
        Layer(name="out", synapse=Scale(weight=np.full((2, 7), 0.5)), neuron=LIF(tau_s=2e-3)),
    )
    edges = (
        Edge(source="input", target="normed"), Edge(source="input", target="conv"), Edge(source="normed", target="conv", delay=1),
        Edge(source="conv", target="out", delay=1), Edge(source="out", target="out", delay=2),
    )  # fmt: skip
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(2, 3), output="out", dt_s=1e-3)
    result = export(graph, tmp_path / "a.nir", to="nir", proof=ProofInput(x=random_spikes(graph, 0)))
    assert result["mismatches"] == 0 and result["layers"][1]["compared"] > 100
