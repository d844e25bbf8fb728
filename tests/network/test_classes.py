"""Several outputs of a class: how many, their mean, and decisions, losses and measurements on them."""

from dataclasses import replace

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.classes import (
    COUNTED_AS_SPIKES,
    COUNTED_BY_MEAN,
    DECISION,
    OUTPUTS_PER_CLASS,
    average_classes,
    count_classes,
    count_per_class,
    describe_classes,
    read_decision,
    score_classes,
    state_decision,
    state_outputs_per_class,
    state_spikes,
    word_answer,
)
from spear_deploy.network.graph import chain
from spear_deploy.network.host_readout import move_to_host
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe

RNG = np.random.default_rng(0)
SPIKES = RNG.integers(0, 2, (7, 20, 6))
"""(T, B, outputs)."""


def network(outputs=6, per_class=2):
    """Return neurons that integrate four inputs."""
    layer = Layer(name="out", synapse=Dense(weight=np.random.default_rng(1).uniform(0, 1, (outputs, 4))), neuron=IF())
    return replace(chain([layer], input_shape=(4,)), metadata={OUTPUTS_PER_CLASS: per_class} if per_class else {})


def test_a_class_has_as_many_outputs_as_the_metadata_say():
    assert (count_per_class(network()), count_classes(network())) == (2, 3)
    assert (count_per_class(network(per_class=None)), count_classes(network(per_class=None))) == (1, 6)


@pytest.mark.parametrize("stated", [4, 0, -2, True, "2", 2.0, None])
def test_a_number_that_the_outputs_do_not_have_counts_as_one(stated):
    assert count_classes(network(per_class=stated)) == 6


def test_outputs_of_a_class_lie_side_by_side_and_are_added_up():
    expected = SPIKES.reshape(7, 20, 3, 2).sum(axis=(0, 3)).argmax(axis=1)
    np.testing.assert_array_equal(decide(SPIKES, network()), expected)
    assert (decide(SPIKES, network()) != decide(SPIKES) // 2).any()  # not the class of the most active output
    np.testing.assert_allclose(average_classes(SPIKES.astype(float), 2), (SPIKES[..., ::2] + SPIKES[..., 1::2]) / 2)


def test_accuracy_counts_classes_and_labels_beyond_them_are_refused():
    graph, x = network(), RNG.integers(0, 2, (20, 5, 4)).astype(np.uint8)
    output = simulate(graph, np.moveaxis(x, 0, 1)).output
    labels = decide(output, graph)
    assert evaluate(graph, Split(x=x, y=labels, kind="spikes")).accuracy == 1.0
    with pytest.raises(DataError, match=r"labels go up to 3, the network has outputs 0\.\.2"):
        evaluate(graph, Split(x=x, y=np.full(20, 3), kind="spikes"))


def test_a_teacher_with_one_output_a_class_teaches_a_network_with_several():
    x = RNG.integers(0, 2, (60, 5, 4)).astype(np.uint8)
    split = Split(x=x, y=np.argmax(x[..., :3].sum(axis=1), axis=1), kind="spikes")
    data = Dataset(name="sums", classes=3, train=split, val=split, test=split)
    teacher = Layer(name="out", synapse=Dense(weight=np.eye(3, 4)), neuron=IF())
    hints = score_outputs(chain([teacher], input_shape=(4,)), split)
    assert hints.shape == score_outputs(network(), split).shape == (60, 3)
    start = network()
    learnt = fit(start, data, Recipe(epochs=40, learning_rate=0.05), hints=hints)
    assert evaluate(learnt.graph, split).accuracy > evaluate(start, split).accuracy + 0.2
    assert learnt.last is not None and learnt.last.accuracy > 0.8
    assert count_classes(learnt.graph) == 3


@pytest.mark.parametrize("name", ["net.snn", "net.nir"])
def test_files_keep_the_number_and_a_certificate_says_it(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".snn"):
        write_snn(network(), path)
    else:
        facts = sd.export(network(), path, to="nir")
        assert [line for line in facts["assumptions"] if "each class has 2 outputs, class 0 the outputs 0 to 1" in line]
    assert count_per_class(sd.load(path)) == 2


def deciding(how, per_class=2):
    graph = network(per_class=per_class)
    return replace(graph, metadata={**graph.metadata, DECISION: how})


@pytest.mark.parametrize("per_class", [1, 2, 3])
@pytest.mark.parametrize("kind", [np.float32, np.int32, bool])
def test_the_maximum_of_a_step_or_the_last_one_decides_where_the_metadata_say_so(kind, per_class):
    values = (SPIKES if kind is bool else RNG.normal(0, 99, SPIKES.shape)).astype(kind)
    by_class = values.reshape(7, 20, 6 // per_class, per_class).astype(float).sum(axis=3)
    np.testing.assert_array_equal(decide(values, deciding("maximum", per_class)), by_class.max(axis=0).argmax(axis=1))
    np.testing.assert_array_equal(decide(values, deciding("last", per_class)), by_class[-1].argmax(axis=1))
    answers = [decide(values, deciding(how, per_class)) for how in ("mean", "maximum", "last")]
    assert all((a != b).any() for a, b in [(answers[0], answers[1]), (answers[1], answers[2]), (answers[0], answers[2])])


@pytest.mark.parametrize("stated", ["median", 3, None, ["maximum"], "mean"])
def test_a_decision_that_there_is_not_is_the_mean(stated):
    assert read_decision(deciding(stated)) == "mean"
    np.testing.assert_array_equal(decide(SPIKES, deciding(stated)), decide(SPIKES, network()))


@pytest.mark.parametrize("how", ["mean", "maximum", "last"])
def test_torch_and_numpy_score_classes_alike(how):
    torch = pytest.importorskip("torch")
    values = RNG.normal(0, 1, SPIKES.shape).astype(np.float32)
    theirs = score_classes(torch.tensor(values, requires_grad=True), deciding(how))
    np.testing.assert_allclose(theirs.detach().numpy(), score_classes(values, deciding(how)), rtol=1e-6, atol=1e-7)
    theirs.sum().backward()


@pytest.mark.parametrize("how", ["maximum", "last"])
def test_a_network_learns_by_its_own_decision_and_accuracy_counts_by_it(how):
    x = np.zeros((60, 5, 4), np.uint8)
    y = np.arange(60) % 3
    x[np.arange(60), -1, y] = 1  # the last step tells the class, the steps before tell another one
    x[np.arange(60), 0, (y + 1) % 3] = x[np.arange(60), 1, (y + 1) % 3] = how == "last"
    split = Split(x=x, y=y, kind="spikes")
    layer = Layer(name="out", synapse=Dense(weight=np.random.default_rng(1).uniform(0.4, 0.6, (3, 4))))
    start = replace(chain([layer], input_shape=(4,), dt_s=1e-3), metadata={DECISION: how})
    hints = score_outputs(start, split)
    np.testing.assert_allclose(
        hints, simulate(start, np.moveaxis(x, 0, 1)).output[-1 if how == "last" else slice(None)].reshape(-1, 60, 3).max(0)
    )
    learnt = fit(
        start, Dataset(name="ends", classes=3, train=split, val=split, test=split), Recipe(epochs=30, learning_rate=0.05)
    )
    assert evaluate(learnt.graph, split).accuracy == learnt.last.accuracy == 1.0
    if how == "last":
        assert evaluate(replace(learnt.graph, metadata={}), split).accuracy < 0.5


@pytest.mark.parametrize(("how", "words"), [("maximum", "of any one step"), ("last", "of the last step")])
def test_files_keep_the_decision_and_a_certificate_says_it(tmp_path, how, words):
    write_snn(deciding(how, 1), tmp_path / "net.snn")
    assert read_decision(sd.load(tmp_path / "net.snn")) == how
    facts = sd.export(deciding(how, 1), tmp_path / "net.nir", to="nir")
    assert f"the class with the largest value {words} is the answer" in facts["assumptions"]
    assert read_decision(sd.load(tmp_path / "net.nir")) == how


@pytest.mark.parametrize("form", ["nir", "onnx"])
def test_a_certificate_says_the_decision_once_where_the_note_of_the_model_does(form, tmp_path):
    pytest.importorskip("onnx") if form == "onnx" else None
    graph = deciding("last", 1)
    note = f"the forward returns the last of its outputs over time, and {word_answer('last')}"
    facts = sd.export(replace(graph, metadata={**graph.metadata, "assumptions": [note]}), tmp_path / f"net.{form}", to=form)
    assert [text for text in facts["assumptions"] if word_answer("last") in text] == [note]


def test_a_decision_is_stated_for_any_network_and_another_word_is_refused(tmp_path):
    write_snn(deciding("last", 1), tmp_path / "net.snn")
    assert read_decision(sd.load(tmp_path / "net.snn", decision="maximum")) == "maximum"
    assert DECISION not in sd.load(tmp_path / "net.snn", decision="mean").metadata
    assert read_decision(sd.load(network(), decision="last")) == "last"
    with pytest.raises(DataError, match=r"decision: 'median' given, expected one of mean, maximum, last"):
        sd.load(network(), decision="median")


def test_another_decision_takes_the_note_on_the_one_before_away():
    note = "the forward returns the maximum of its outputs over time"
    graph = deciding("maximum", 1)
    graph = replace(graph, metadata={**graph.metadata, "assumptions": [f"{note}, and {word_answer('maximum')}", "a note"]})
    assert state_decision(graph, "mean").metadata == {OUTPUTS_PER_CLASS: 1, "assumptions": [note, "a note"]}
    assert state_decision(graph, "maximum").metadata == graph.metadata


@pytest.mark.parametrize("counted", [COUNTED_BY_MEAN, COUNTED_AS_SPIKES])
def test_a_stated_decision_takes_the_note_on_counting_by_the_mean_away(counted):
    graph = replace(network(), metadata={"assumptions": [f"the forward returns the maximum, and {counted}"]})
    assert state_decision(graph, "maximum").metadata["assumptions"] == ["the forward returns the maximum"]
    assert state_decision(graph, "mean").metadata == graph.metadata


def stepwise():
    """Return random readouts of three classes on two inputs, decided in each step, and samples with labels of most steps."""
    rng = np.random.default_rng(3)
    layer = Layer(name="out", synapse=Dense(weight=rng.normal(0, 1, (3, 2)).astype(np.float32)))
    graph = chain([layer], input_shape=(2,), metadata={DECISION: "each"})
    x = rng.integers(0, 3, (60, 6, 2)).astype(np.uint8)
    y = np.where(rng.random((60, 6)) < 0.2, -1, (x @ rng.normal(0, 1, (2, 3))).argmax(-1))
    y[:, 0] = np.maximum(y[:, 0], 0)
    return graph, Split(x=x, y=y)


def test_each_step_is_decided_by_its_own_values():
    graph, split = stepwise()
    output = simulate(graph, np.moveaxis(split.x, 0, 1)).output
    np.testing.assert_array_equal(decide(output, graph), output.argmax(-1).T)
    assert score_classes(output, graph).shape == (60, 6, 3)
    assert score_outputs(graph, split).shape == (60, 6, 3)


def test_accuracy_of_each_step_counts_labelled_steps_alone():
    graph, split = stepwise()
    measured = evaluate(graph, split)
    right = [(a == b) for a, b in zip(measured.labels.ravel(), split.y.ravel(), strict=True) if b >= 0]
    assert measured.accuracy == pytest.approx(np.mean(right))
    assert measured.right.shape == (60,)
    assert measured.right.mean() == pytest.approx(measured.accuracy)


def test_a_candidate_in_torch_measures_the_same_steps():
    from spear_deploy.norse.network import to_norse
    from spear_deploy.training.evaluation import LOGIT_SCALE, quick_evaluate

    graph, split = stepwise()
    quick, scores = quick_evaluate(to_norse(graph).eval(), graph, split), score_outputs(graph, split).astype(np.float64)
    assert quick.accuracy == pytest.approx(evaluate(graph, split).accuracy)
    logs = [
        LOGIT_SCALE * scores[n, t] - np.log(np.exp(LOGIT_SCALE * scores[n, t]).sum())
        for n, t in np.argwhere(split.y >= 0)
    ]  # fmt: skip
    labels = split.y[split.y >= 0]
    assert quick.certainty == pytest.approx(
        np.exp(np.mean([log[label] for log, label in zip(logs, labels, strict=True)])), rel=1e-5
    )


def test_a_network_learns_its_labels_of_each_step():
    graph, split = stepwise()
    data = Dataset(name="d", train=split, val=split, test=split, classes=3)
    learnt = fit(graph, data, Recipe(epochs=200, learning_rate=5e-2), hints=None).graph
    assert evaluate(graph, split).accuracy < 0.8 < 0.95 < evaluate(learnt, split).accuracy
    hints = score_outputs(learnt, split)
    taught = fit(graph, data, Recipe(epochs=200, learning_rate=5e-2), hints=hints).graph
    assert evaluate(taught, split).accuracy > 0.95
    with pytest.raises(DataError, match=r"hints: of shape \(60, 3\), expected \(60, 6, 3\)"):
        fit(graph, data, Recipe(epochs=1), hints=hints[:, 0])


def test_labels_and_decision_go_together_where_a_split_is_measured():
    graph, split = stepwise()
    with pytest.raises(DataError, match="has a label at each step, and the network decides once"):
        evaluate(state_decision(graph, "mean"), split)
    with pytest.raises(DataError, match="has one label a sample, and the network decides in each step"):
        evaluate(graph, replace(split, y=split.y[:, 0]))


def test_a_network_that_decides_in_each_step_says_so_to_those_who_run_it_elsewhere():
    graph, _ = stepwise()
    assert describe_classes(graph) == ["in each step the class with the largest value is the answer"]
    several = replace(network(), metadata={OUTPUTS_PER_CLASS: 2, DECISION: "each"})
    assert describe_classes(several)[0].endswith("in each step the class whose outputs add up to most is the answer")
    assert state_spikes(graph) is graph
    assert read_decision(state_spikes(state_decision(graph, "last"))) == "mean"


def test_outputs_of_a_class_are_stated_and_taken_back():
    plain = network(per_class=None)
    assert count_classes(state_outputs_per_class(plain, 3)) == 2
    assert state_outputs_per_class(state_outputs_per_class(plain, 3), 1).metadata == plain.metadata
    stated = state_outputs_per_class(plain, np.int64(3)).metadata[OUTPUTS_PER_CLASS]
    assert stated == 3 and type(stated) is int


@pytest.mark.parametrize("outputs", [4, 0, -2, True, 2.0, 12])
def test_a_number_of_outputs_that_the_network_cannot_have_is_refused(outputs):
    with pytest.raises(DataError, match=rf"outputs per class: {outputs} given, the network has 6 outputs; give a whole number"):
        state_outputs_per_class(network(per_class=None), outputs)


def test_a_readout_on_the_host_has_an_output_a_class():
    layers = [network(per_class=None).layers[0], Layer(name="read", synapse=Dense(weight=np.ones((3, 6), np.float32)))]
    moved = move_to_host(chain(layers, input_shape=(4,)))
    with pytest.raises(
        DataError, match="outputs per class: the network has a readout on the host, of which each output is a class"
    ):
        state_outputs_per_class(moved, 3)
