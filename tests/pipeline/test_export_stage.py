"""Files of a deployment for other tools, written by its last stage."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import from_arrays
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.pynn.reader import read_pynn
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.interchange.xylo.reader import read_xylo
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLIF, Dense, Layer
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pipeline import export_stage
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.export_stage import (
    choose_own_format,
    describe_simulator,
    explain_no_own_file,
    explain_refusal,
    export,
    keep_vendor_runs,
    list_missing_simulators,
    list_unrepeated_runs,
    list_vendor_failures,
)
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.stages import PRUNED, QUANTISED, Task
from tests.support.deployments import network, task


def spiking(neuron):
    return network(neuron).with_layers(lambda layer: replace(layer, neuron=neuron))


def weights(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def skipping():
    """Return a network whose first layer reaches the output beside the second one too, without a delay."""
    neuron = CubaLIF(tau_mem_s=0.008, tau_syn_s=0.002, reset="subtract")
    layers = (
        Layer(name="a", synapse=Dense(weight=weights(8, 10)), neuron=neuron),
        Layer(name="b", synapse=Dense(weight=weights(8, 8)), neuron=neuron),
        Layer(name="out", synapse=Dense(weight=weights(3, 8)), neuron=LI(tau_s=0.002)),
    )
    edges = tuple(
        Edge(source=source, target=target) for source, target in (("input", "a"), ("a", "b"), ("b", "out"), ("a", "out"))
    )
    return SNNGraph(layers=layers, edges=edges, input_shape=(10,), output="out")


def wide():
    """Return a network with a kernel that is no square."""
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=weights(4, 1, 1, 3)), neuron=IF(reset="subtract")),
        Layer(name="out", synapse=Dense(weight=weights(3, 4 * 4 * 2)), neuron=IF(reset="subtract")),
    ]
    return chain(layers, input_shape=(1, 4, 4))


def images():
    x = (np.random.default_rng(0).random((60, 6, 1, 4, 4)) < 0.4).astype(np.uint8)
    return from_arrays({"x": x, "y": np.arange(60) % 3}, name="images")


def export_to(folder, chip, graph, dataset=None, **facts):
    """Return what the stage gives for a network that needs no pruning."""
    profile = override_facts(load_profile(chip), facts)
    inputs = CheckedInputs(network=graph, profile=profile, chips=1, dataset=dataset or task())
    write_snn(graph, folder / PRUNED)
    write_snn(inputs.quantize(graph), folder / QUANTISED)
    return export(Task(folder=folder, inputs=inputs, digest="", settings=DeploySettings(), progress=None))


@pytest.mark.parametrize(
    ("chip", "to"),
    [("loihi1", "netx"), ("speck2f", "speck"), ("xylo_audio3", "xylo"), ("spinnaker1", "pynn"), ("odin", None)],
)  # fmt: skip
def test_each_chip_has_the_format_of_its_own_tool(chip, to):
    assert choose_own_format(load_profile(chip)) == to


def test_a_chip_without_a_format_has_a_note():
    assert explain_no_own_file(load_profile("odin")) == (
        "no file of a tool of odin is written here; quantised.snn holds its integers"
    )
    assert "written here: Akida's neurons keep no potential" in explain_no_own_file(load_profile("akd1000"))


def test_xylos_arrays_are_the_integers_of_the_deployment(tmp_path):
    neuron = CubaLIF(tau_mem_s=0.008, tau_syn_s=0.002, w_in=2.0, reset="subtract")
    output = export_to(tmp_path, "xylo_audio3", network(neuron))
    files = output.value["files"]
    own = {kind: name for kind, name in files.items() if kind.startswith("xylo")}
    assert own == {
        "xylo": "xylo/network.npz", "xylo_json": "xylo/network.json", "xylo_certificate": "xylo/certificate.json",
    }  # fmt: skip
    assert set(output.files) == set(files.values()) and all((tmp_path / name).is_file() for name in output.files)
    assert "netx" not in files and not output.value["failures"] and not output.value["notes"]
    arrays, description = read_xylo(tmp_path / files["xylo"])
    assert description["chip"] == "xylo_audio3" and arrays["weights_in"].shape[:2] == (10, 8)
    certificate = json.loads((tmp_path / files["xylo_certificate"]).read_text())
    assert certificate["mismatches"] == 0 and certificate["input"]["samples"] == 16  # of the test split, not random
    assert certificate["input"]["random_seed"] is None and certificate["chip"] == "xylo_audio3"


def test_spinnakers_script_is_of_the_pruned_network(tmp_path):
    output = export_to(tmp_path, "spinnaker1", spiking(LIF(tau_s=0.004, v_threshold=0.3)))
    files = output.value["files"]
    own = {kind: name for kind, name in files.items() if kind.startswith("pynn")}
    assert own == {
        "pynn": "pynn/network.py", "pynn_npz": "pynn/network.npz", "pynn_certificate": "pynn/certificate.json",
    }  # fmt: skip
    description, _ = read_pynn(tmp_path / files["pynn_npz"])
    assert description["chip"] == "spinnaker1"
    assert json.loads((tmp_path / files["pynn_certificate"]).read_text())["mismatches"] == 0
    assert [note[:28] for note in output.value["notes"]] == ["no onnx file: layer 'fc': Sp"]


def test_samples_that_pynn_cannot_send_are_a_note(tmp_path):
    data = task()
    twice = replace(data, test=replace(data.test, x=2 * data.test.x))
    value = export_to(tmp_path, "spinnaker1", spiking(LIF(tau_s=0.004, v_threshold=0.3)), twice).value
    assert "no pynn file: export to pynn: several spikes of an input in a step" in value["notes"][-1]
    assert "pynn" not in value["files"] and not (tmp_path / "pynn").exists()


def test_a_network_that_does_not_fit_has_no_file_for_the_chip(tmp_path):
    value = export_to(tmp_path, "speck2f", spiking(IF(reset="subtract")), **{"core.bias_memory": 4}).value
    assert any(note.startswith("no speck file: export to speck: the network does not fit speck2f") for note in value["notes"])
    assert set(value["files"]) == {"nir", "nir_certificate", "onnx", "onnx_certificate"} and value["vendor"] == {}


def twice_as_many_spikes():
    data = task()
    return replace(data, test=replace(data.test, x=2 * data.test.x))


@pytest.mark.parametrize(
    ("chip", "graph", "data", "why"),
    [
        ("loihi2", network(CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002)), task(), "no netx file .*: layer 'fc': a bias on the cur"),
        ("xylo_audio3", skipping(), task(), "no xylo file .*: layer 'out': spikes from 'b' would have to wait"),
        ("speck2f", wide(), images(), "no speck file .*: layer 'conv': a kernel of 1 x 3, Speck's are square"),
        ("spinnaker1", spiking(LIF(tau_s=0.004, reset="subtract")), task(), "no pynn file .*: layer 'fc': reset 'subtract'"),
        ("spinnaker1", spiking(LIF(tau_s=0.0004)), task(), "no pynn file .*: layer 'fc': a time constant of 0.4 steps"),
        ("spinnaker1", spiking(LIF(tau_s=0.004)), twice_as_many_spikes(), "no pynn file .*: several spikes of an input"),
        ("odin", spiking(IF(reset="value")), task(), "^no file of a tool of odin is written here"),
    ],
)  # fmt: skip
def test_what_the_file_of_the_chips_tool_cannot_hold_is_known_of_the_network_as_it_is(chip, graph, data, why):
    inputs = CheckedInputs(network=graph, profile=load_profile(chip), chips=1, dataset=data)
    assert re.search(why, explain_refusal(inputs))


@pytest.mark.parametrize(
    ("chip", "neuron"),
    [
        ("speck2f", IF(reset="subtract")), ("spinnaker1", LIF(tau_s=0.004)),
        ("xylo_audio3", CubaLIF(tau_mem_s=0.008, tau_syn_s=0.002, reset="subtract")),
    ],
)  # fmt: skip
def test_a_network_that_only_does_not_fit_yet_is_not_refused(chip, neuron):
    profile = override_facts(load_profile(chip), {"core.bias_memory": 4} if chip == "speck2f" else {})
    graph = spiking(neuron) if chip != "xylo_audio3" else network(neuron)
    assert explain_refusal(CheckedInputs(network=graph, profile=profile, chips=1, dataset=task())) == ""


def test_a_makers_simulator_that_differs_is_a_failure_and_one_that_is_not_installed_a_note():
    vendor = {"xylo": None, "speck": 1200, "pynn": 0}
    assert list_vendor_failures(vendor) == ["the speck file differs in 1,200 values when sinabs runs it"]
    assert list_missing_simulators(vendor) == [
        "xylo/network.npz: xylosim is not installed here; install it to have the file run by it"
    ]


def test_a_simulator_that_is_installed_later_has_the_export_made_anew(monkeypatch):
    chip = load_profile("speck2f")
    monkeypatch.setattr(export_stage, "has_simulator", lambda to: False)
    before = describe_simulator(chip)
    monkeypatch.setattr(export_stage, "has_simulator", lambda to: True)
    assert before != describe_simulator(chip) and describe_simulator(load_profile("loihi2")) == {}


@pytest.mark.parametrize(
    ("derived", "stated", "kept"),
    [
        (None, 3, 3), (None, 0, 0), (0, None, None),  # only one of both ran it
        (0, 3, 0), (3, 0, 3), (3, None, 3),  # the difference is found here
        (None, None, None), (None, "0", None), (None, True, None), (0, "none", 0),
    ],
)  # fmt: skip
def test_runs_by_a_makers_simulator_are_compared_where_both_made_one(derived, stated, kept):
    assert keep_vendor_runs({"speck": derived}, {"speck": stated}) == {"speck": kept}


@pytest.mark.parametrize("stated", [None, [], {}, {"xylo": 0}])
def test_an_export_without_runs_by_a_makers_simulator_is_derived(stated):
    assert keep_vendor_runs({"speck": 0}, stated) == {"speck": 0} and keep_vendor_runs({"speck": None}, stated) == {"speck": None}


def test_a_run_that_cannot_be_repeated_is_a_note(monkeypatch):
    monkeypatch.setattr(export_stage, "has_simulator", lambda to: to == "pynn")
    assert list_unrepeated_runs({"speck": 0, "xylo": None, "pynn": 0}) == [
        "speck/network.json: its run by sinabs, which is not installed here, is held by digests alone"
    ]
