"""Networks that decide in each step, on labels of each step: the whole way, in floating point, integers and on Lava."""

import json

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.data import from_arrays
from spear_deploy.errors import DataError
from spear_deploy.network import IF, LI, Dense, Layer
from spear_deploy.network.classes import read_decision, state_decision
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train
from spear_deploy.training.recipe import Recipe
from tests.support.deployments import OPTIONS, dense
from tests.support.seeds import few_first

CHANGE = 5
"""Step in which the class of a sequence changes."""


@pytest.fixture(scope="module")
def data():
    """Return sequences of two classes, one after the other, each with rates of its own; the step of the change has no label."""
    rng = np.random.default_rng(0)
    rates = 0.1 + 0.6 * np.eye(3)[:, np.arange(10) % 3]
    y = np.repeat(rng.integers(0, 3, (120, 2)), CHANGE, axis=1)
    x = (rng.random((120, 2 * CHANGE, 10)) < rates[y]).astype(np.uint8)
    y[:, CHANGE] = -1
    return from_arrays({"x": x, "y": y}, name="sequences")


@pytest.fixture(scope="module")
def trained(data):
    return train(state_decision(dense(), "each"), data, recipe=Recipe(epochs=80, learning_rate=1e-2))


def count_right(graph, split):
    """Return the accuracy, step by step."""
    output = sd.simulate(graph, np.moveaxis(split.x, 0, 1), kind=split.kind).output
    pairs = [
        (output[step, sample].argmax(), split.y[sample, step])
        for sample in range(len(split)) for step in range(split.x.shape[1])
    ]  # fmt: skip
    return np.mean([decided == label for decided, label in pairs if label >= 0])


@pytest.mark.lava
def test_a_deployment_counts_the_labelled_steps_in_floating_point_integers_and_on_lava(data, trained, tmp_path):
    result = sd.deploy(trained, "loihi2", data, out=tmp_path, **OPTIONS)
    assert result.accuracy["dense"] == pytest.approx(count_right(trained, data.test))
    assert count_right(trained, data.test) > 0.6
    pruned, integers = sd.load(tmp_path / "pruned.snn"), sd.load(tmp_path / "quantised.snn")
    assert (read_decision(pruned), read_decision(integers)) == ("each", "each")
    assert result.accuracy["pruned"] == pytest.approx(count_right(pruned, data.test))
    assert result.accuracy["quantised"] == pytest.approx(count_right(integers, data.test))
    lava = json.loads((tmp_path / "lava.json").read_text())
    assert lava["spike_mismatches"] == 0
    assert lava["accuracy"] == pytest.approx(count_right(integers, data.test.head(4)))
    assert any("labelled steps" in note for note in result.notes)
    assert any("are there 2 steps after its input" in note for note in result.notes)
    page = (tmp_path / "report.html").read_text()
    assert "in each step the class with the largest value is the answer" in page
    assert "label None" not in page
    assert sd.verify(tmp_path, data=data).failures == ()


@pytest.mark.parametrize("readout", few_first(["host", "chip"], 1))
def test_adaptation_learns_a_class_in_each_step(data, trained, tmp_path, readout):
    facts = sd.adapt(trained, "truenorth", data, out=tmp_path, epochs=24, readout=readout)
    adapted = sd.load(tmp_path / "adapted.snn")
    assert read_decision(adapted) == "each"
    assert facts["accuracy"]["adapted"] == pytest.approx(evaluate(adapted, data.test).accuracy)
    assert facts["accuracy"]["adapted"] > 0.5


def test_a_chip_that_keeps_nothing_between_inputs_decides_by_each_step_alone(data, trained, tmp_path):
    """One frame in place of all steps, as for a decision a sample, would have one answer."""
    facts = sd.adapt(trained, "akd1000", data, out=tmp_path, epochs=4)
    assert not facts["missing"]
    assert {"1 step"} == {row["by"] for row in facts["replaced"] if "time constant" in row["what"]}
    once = sd.adapt(state_decision(trained, "mean"), "akd1000", out=tmp_path)
    assert any("one frame" in text for text in once["missing"])


def test_the_host_is_advised_where_the_chip_takes_the_network_with_it_alone(data, tmp_path):
    """ODIN's neurons take the spikes of one layer; a layer learnt anew has an answer in each step on a host."""
    rng = np.random.default_rng(0)
    layers = (
        Layer(name="in", synapse=Dense(weight=rng.normal(size=(16, 10)))),
        Layer(name="more", synapse=Dense(weight=0.1 * rng.normal(size=(16, 16)))),
        Layer(name="hidden", neuron=IF()),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 16))), neuron=LI(tau_s=0.003)),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "more", 1), ("more", "hidden", 0), ("hidden", "out", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    graph = state_decision(SNNGraph(layers=layers, edges=edges, input_shape=(10,), output="out"), "each")
    facts = sd.adapt(graph, "odin", data, out=tmp_path / "chip", epochs=1)
    assert facts["missing"] and any("next to try is `--readout host`" in note for note in facts["notes"])
    assert sd.adapt(graph, "odin", data, out=tmp_path / "host", epochs=1, readout="host")["missing"] == []


def test_what_a_step_costs_is_told_by_labelled_steps(data, trained):
    costs = api.explain(trained, "loihi2", data)
    assert costs.costs[0].accuracy == pytest.approx(count_right(trained, data.test))


def test_labels_of_steps_and_a_decision_a_sample_are_refused_before_anything_is_learnt(data, trained, tmp_path):
    with pytest.raises(DataError, match="has a label at each step, and the network decides once a sample .decision 'mean'."):
        sd.prune(state_decision(trained, "mean"), "loihi2", data, synops="50%", out=tmp_path / "out")
    assert not (tmp_path / "out" / "pruned.snn").exists()
