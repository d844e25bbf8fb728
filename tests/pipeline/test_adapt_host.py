"""Adaptation with the readout on the host: through files, the command line, a deployment, its proof, and numpy alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.budget.check import check
from spear_deploy.cli.app import main
from spear_deploy.data.input_sums import sum_split
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF
from spear_deploy.network.host_readout import has_host_readout, read_host_readout
from spear_deploy.pipeline.adaptation.results import describe_adapted
from spear_deploy.pipeline.adaptation.task import Adapted, AdaptSettings, AdaptTask
from spear_deploy.pipeline.readout_fit import advise_host
from spear_deploy.simulator import simulate
from spear_deploy.training import train
from spear_deploy.training.evaluation import evaluate
from tests.support.deployments import OPTIONS, dense, network, task


@pytest.fixture(scope="module")
def trained():
    return train(dense(), task(), epochs=20)


@pytest.fixture(scope="module")
def speck(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speck")
    return sd.adapt(trained, "speck2f", task(), out=folder, epochs=6, readout="host"), folder


def test_the_readout_leaves_the_chip_without_a_spike_that_differs(speck, trained):
    facts, folder = speck
    first, *_ = facts["replaced"]
    assert (first["layer"], first["what"], first["kind"], first["neurons"]) == ("out", "LI", "exact", -3)
    assert first["by"] == "integrated by the host, from the spikes in front of it"
    rows = facts["waterfall"]
    assert [row["after"] for row in rows[:2]] == ["as trained", f"LI → {first['by']}"]
    assert rows[0]["accuracy"] == rows[1]["accuracy"] and rows[1]["differs"] is None
    assert facts["missing"] == [] and facts["accuracy"]["integers"] >= facts["accuracy"]["trained"] - 0.1
    adapted, integers = (sd.load(folder / facts["files"][name]) for name in ("adapted", "integers"))
    assert [layer.name for layer in integers.layers] == ["fc"] and has_host_readout(adapted)
    assert facts["host_readout"]["outputs"] == 8 and facts["host_readout"]["weights"] == 24
    run = evaluate(integers, task().test)
    sent = run.counts.sent["fc"].sum() / (run.counts.steps * run.counts.samples)
    assert run.accuracy == facts["accuracy"]["integers"] and facts["host_readout"]["spikes_per_step"] == pytest.approx(sent)


def test_numpy_alone_makes_the_classes_of_the_chips_spikes(speck):
    facts, folder = speck
    integers, test = sd.load(folder / "integers.snn"), task().test
    spikes = simulate(integers, np.moveaxis(test.x, 0, 1)).output
    labels = evaluate(integers, test).labels
    with np.load(folder / facts["files"]["host_readout"]) as host:
        assert str(host["model"]) == "LI"
        v, total = np.tile(host["v_leak"], (len(test), 1)), 0.0
        for sent in spikes:
            current = sent @ host["weight"].T + host["bias"]
            v = v + host["dt_s"] / host["tau_s"] * ((host["v_leak"] - v) + host["r"] * current)
            total = total + v
    assert (total.argmax(axis=1) == labels).mean() > 0.99  # sums of floats may part where two classes are equal


def test_a_second_run_leaves_no_file_of_the_first(trained, tmp_path):
    first = sd.adapt(trained, "loihi2", task(), out=tmp_path, readout="host")
    assert {"host_readout.npz", "integers.snn"} <= {path.name for path in tmp_path.iterdir()} >= set(first["files"].values())
    second = sd.adapt(trained, "loihi2", out=tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert not {"host_readout.npz", "integers.snn"} & left and set(second["files"].values()) <= left


def test_the_page_says_what_the_host_does(speck):
    _, folder = speck
    page = (folder / "adapt.html").read_text(encoding="utf-8")
    assert "integrated by the host, from the spikes in front of it" in page and "host_readout.npz" in page
    assert "the spikes of the 8 neurons of" in page and "spikes leave the chip in a step" in page


def test_without_data_the_readout_moves_and_what_is_to_be_learnt_is_listed(trained, tmp_path):
    facts = sd.adapt(trained, "speck2f", out=tmp_path, readout="host")
    assert [row["what"] for row in facts["replaced"]] == ["LI"] and facts["host_readout"]["spikes_per_step"] is None
    assert any("CubaLIF, to be replaced after learning" in need for need in facts["missing"])
    assert [layer.name for layer in sd.load(tmp_path / "adapted.snn").layers] == ["fc"]


def test_a_chip_that_lacks_nothing_gives_the_spikes_to_the_host_too(trained, tmp_path):
    facts = sd.adapt(trained, "loihi2", task(), out=tmp_path, readout="host")
    assert [row["kind"] for row in facts["replaced"]] == ["exact"] and len(facts["waterfall"]) == 3
    assert facts["accuracy"]["trained"] == facts["accuracy"]["adapted"]


def test_the_command_line_moves_the_readout_and_refuses_in_a_sentence(trained, tmp_path):
    for name, graph in (("net", trained), ("spikes", network(IF()).with_layers(_spike_at_the_end))):
        write_snn(graph, tmp_path / f"{name}.snn")
    done = CliRunner().invoke(
        main, ["adapt", str(tmp_path / "net.snn"), "--chip", "loihi2", "--readout", "host", "--out", str(tmp_path / "a")]
    )
    assert done.exit_code == 0 and "integrated by the host" in done.output, done.output
    again = ["adapt", str(tmp_path / "a" / "adapted.snn"), "--chip", "loihi2", "--readout", "host", "--out", str(tmp_path / "b")]
    for arguments, message in (
        (again, "the host integrates the outputs of this network already"),
        ([*again[:1], str(tmp_path / "spikes.snn"), *again[2:]], "output 'out' sends spikes, which the host counts in any case"),
    ):
        refused = CliRunner().invoke(main, arguments)
        assert refused.exit_code == 1 and message in " ".join(refused.output.split()), refused.output
        assert not (tmp_path / "b" / "adapted.snn").exists()


def _spike_at_the_end(layer):
    return replace(layer, neuron=IF())


def test_another_place_is_refused():
    with pytest.raises(UnsupportedError, match="readout 'cloud': expected one of chip, host"):
        AdaptSettings(readout="cloud")


def test_the_host_is_advised_where_it_could_integrate(trained):
    assert "next to try is `--readout host`" in advise_host(trained)[0]
    assert advise_host(network(IF()).with_layers(_spike_at_the_end)) == []


def test_the_notes_advise_the_host_where_the_chips_readout_loses_too_much(tmp_path):
    graph, data = dense(), task()
    labels = evaluate(graph, data.test).labels
    data = replace(data, test=replace(data.test, y=labels))  # the network is always right
    mute = graph.with_layers(lambda layer: replace(layer, synapse=replace(layer.synapse, weight=0 * layer.synapse.weight)))
    chip = load_profile("loihi2")
    for name, wanted in (("chip", True), ("host", False)):
        made = AdaptTask(network=graph, profile=chip, dataset=data, settings=AdaptSettings(readout=name))
        for adapted, loses in ((graph, False), (mute, True)):
            facts = describe_adapted(Adapted(graph=adapted, report=check(adapted, chip)), made, tmp_path, quantises=False)
            assert (facts["accuracy"]["adapted"] < 0.9) is loses
            assert any("next to try is `--readout host`" in note for note in facts["notes"]) is (wanted and loses)


def test_a_deployment_carries_the_readout_and_is_proven(trained, tmp_path):
    result = sd.deploy(trained, "speck2f", task(), out=tmp_path, readout="host", **OPTIONS)
    assert not result.failures and any("the readout is not on the chip" in note for note in result.notes)
    files = json.loads((tmp_path / "deployment.json").read_text())["files"]
    named = [name for key, name in files.items() if key.endswith("host_readout")]
    assert named and all((tmp_path / name).is_file() for name in named)
    certificate = json.loads((tmp_path / "nir" / "certificate.json").read_text())
    assert certificate["host_readout"] == "host_readout.npz" and certificate["mismatches"] == 0
    quantised = sd.load(tmp_path / files["quantised"])
    assert read_host_readout(quantised) is not None
    test = sum_split(task().test, quantised)
    assert result.accuracy["quantised"] == evaluate(quantised, test).accuracy > 0.6
    verdict = sd.verify(tmp_path, data=task())
    assert not verdict.failures, verdict.failures
