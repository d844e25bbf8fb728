"""Adaptation of small networks: exact steps keep accuracy, learnt ones end in integers of the chip, the rest is listed."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.adaptation.differences import describe_difference, find_first_difference
from spear_deploy.adaptation.learn import LearnSettings
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.cli.app import main
from spear_deploy.data import Dataset, Split
from spear_deploy.data.arrays import from_arrays
from spear_deploy.data.input_sums import sum_inputs
from spear_deploy.errors import ChipError, DataError, GraphError, UnsupportedError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Layer, make_sparse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.adapt_stage import adapt_for_deployment
from spear_deploy.pipeline.adaptation.learn_plan import _list_rows, note_lack_of_room
from spear_deploy.pipeline.adaptation.task import AdaptSettings, AdaptTask
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.learn_integers import learn_integers
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.stage_cache import StageCache
from spear_deploy.pipeline.stages import Task
from spear_deploy.pipeline.verification.adaptation import compare_adaptation, derive_adaptation
from spear_deploy.pipeline.verification.failures import Failures
from spear_deploy.pipeline.verification.results import derive
from spear_deploy.quantize.for_chip import require_unsigned
from spear_deploy.simulator import simulate
from spear_deploy.training import learning_store, train
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.learning_store import list_learning
from spear_deploy.util import memory
from tests.support.deployments import OPTIONS, dense, task
from tests.training.test_fit import quick, toy_data
from tests.training.test_rounding import toy

FAST = {"epochs": 3, "seed": 0}


@pytest.fixture(scope="module")
def trained():
    return train(dense(), task(), epochs=20)


@pytest.fixture(scope="module")
def speck(trained, tmp_path_factory):
    """Return what adapting a network with currents to Speck gives, and its folder."""
    folder = tmp_path_factory.mktemp("speck")
    return sd.adapt(trained, "speck2f", task(), out=folder, epochs=15), folder


def small_map_network():
    rng = np.random.default_rng(1)
    return chain(
        [
            Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(3, 1, 3, 3)), padding=(1, 1)), neuron=LIF(tau_s=0.002)),
            Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 12))), neuron=LI(tau_s=0.002)),
        ],
        input_shape=(1, 4, 4),
    )


def test_a_network_with_currents_and_a_readout_runs_in_specks_integers(speck):
    facts, folder = speck
    assert [(row["layer"], row["what"], row["kind"]) for row in facts["replaced"]] == [
        ("fc", "CubaLIF", "learnt"), ("out", "LI", "learnt"),
    ]  # fmt: skip
    assert facts["missing"] == [] and facts["verdict"] == "fits"
    assert facts["accuracy"]["integers"] >= facts["accuracy"]["trained"] - 0.1
    integers = sd.load(folder / facts["files"]["integers"])
    assert {type(layer.neuron).__name__ for layer in integers.layers if layer.neuron} == {"SpeckIF"}


@pytest.mark.parametrize("chip", ["speck2f", "spinnaker1"])
def test_images_that_are_given_as_a_current_reach_the_integers(chip, tmp_path):
    rng = np.random.default_rng(0)
    images = from_arrays({"x": rng.random((40, 1, 4, 4)), "y": np.arange(40) % 3}, name="images", steps=4, encoding="direct")
    facts = sd.adapt(small_map_network(), chip, images, out=tmp_path / "out", **FAST)
    assert images.kind == "current" and facts["missing"] == [] and facts["accuracy"]["integers"] is not None
    assert facts["waterfall"][-1]["after"] == f"integers of {chip}" and facts["waterfall"][-1]["differs"]["share"] > 0


@pytest.mark.parametrize("chip", ["speck2f", "spinnaker1", "akd1000", "odin", "catalyst_n1", "xylo_audio2"])
def test_a_current_below_0_is_refused_before_anything_is_learnt_for_a_chip_that_takes_events(chip, tmp_path):
    rng = np.random.default_rng(0)
    images = from_arrays({"x": rng.normal(size=(40, 1, 4, 4)), "y": np.arange(40) % 3}, name="images", steps=4, encoding="direct")
    with pytest.raises(DataError, match=rf"data 'images': -\d.* given, {chip} takes a current as events, which have no sign"):
        sd.adapt(small_map_network(), chip, images, out=tmp_path / "out", progress=pytest.fail, **FAST)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="which have no sign"):
        sd.deploy(small_map_network(), chip, images, out=tmp_path / "deployed", synops="70%", method="uniform")


def test_a_current_whose_values_below_0_round_to_no_event_is_taken():
    speck, values = load_profile("speck2f"), np.array([[0.0, 1.0, -1e-6]])
    require_unsigned(speck, values, "current", "data")
    require_unsigned(load_profile("loihi2"), -values, "current", "data")
    with pytest.raises(DataError, match="data: -1 given, speck2f takes a current as events"):
        require_unsigned(speck, -values, "current", "data")


def test_accuracy_stands_after_each_step_of_the_waterfall(speck):
    facts, folder = speck
    names = [row["after"] for row in facts["waterfall"]]
    assert names[0] == "as trained" and names[-1] == "integers of speck2f"
    assert any(name.startswith("learning, ") for name in names)
    assert facts["waterfall"][0]["accuracy"] == facts["accuracy"]["trained"]
    assert facts["waterfall"][-1]["accuracy"] == facts["accuracy"]["integers"]
    assert json.loads((folder / "adapt.json").read_text())["waterfall"] == facts["waterfall"]


def test_the_first_spikes_that_a_replacement_changes_are_named(speck):
    facts, _ = speck
    rows = {row["after"].partition(" → ")[0]: row for row in facts["waterfall"][:-1] if "differs" in row}
    assert set(rows) == {"CubaLIF", "LI"}
    assert rows["CubaLIF"]["differs"]["layer"] == "fc" and 0 < rows["CubaLIF"]["differs"]["share"] < 1
    assert rows["LI"]["differs"] is None  # what the readout had were no spikes


def test_the_integers_are_compared_with_the_adapted_network_too(speck):
    facts, _ = speck
    differs = facts["waterfall"][-1]["differs"]
    assert differs is None or differs["layer"] in ("fc", "out")


def test_an_explanation_of_an_adapted_network_begins_with_its_adaptation(speck):
    facts, folder = speck
    x = np.moveaxis(task().test.x[:8], 0, 1)
    np.savez(folder / "in.npz", **{task().kind: x})

    def explain(path, chip="speck2f"):
        args = ["simulate", str(path), "--chip", chip, "--explain", "--input", str(folder / "in.npz")]
        result = CliRunner().invoke(main, [*args, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), CliRunner().invoke(main, args).stdout

    shown, text = explain(folder / "adapted.snn")
    assert shown["adaptation"] == {name: facts[name] for name in ("chip", "replaced", "accuracy", "waterfall")}
    assert text.index("What each step to the parts that speck2f has cost") < text.index("What each step to the chip's integers")
    assert "learning, " in text and "What each step" in text
    (folder / "other").mkdir()
    write_snn(sd.load(folder / "adapted.snn"), folder / "other" / "adapted.snn")
    assert "adaptation" not in explain(folder / "other" / "adapted.snn")[0]  # no facts beside it
    for damage in ("{", json.dumps({**facts, "adapted_digest": "0"}), json.dumps({**facts, "chip": "truenorth"})):
        (folder / "other" / "adapt.json").write_text(damage)
        assert "adaptation" not in explain(folder / "other" / "adapted.snn")[0]


def test_no_spike_is_named_where_a_replacement_is_exact():
    graph = small_map_network()
    x = (np.random.default_rng(0).random((4, 6, 1, 4, 4)) < 0.5).astype(np.uint8)
    split = Split(x=x, y=np.zeros(4, np.int64), kind="spikes")
    plan = make_plans(graph, load_profile("brainscales2"), learns=False)[0]
    assert plan.steps and find_first_difference(graph, plan.graph, split) is None
    conv = replace(graph["conv"], synapse=replace(graph["conv"].synapse, weight=-graph["conv"].synapse.weight))
    found = find_first_difference(graph, graph.with_layers({"conv": conv}), split)
    assert found["layer"] == "conv" and describe_difference(found).startswith(f"conv from step {found['step']} (")


@pytest.mark.parametrize("chip", ["loihi2", "reckon"])
def test_a_network_whose_integers_lose_learns_with_the_rounding_of_the_chip(chip):
    """Weights of two bits: integers are better after learning with them, or the network stays."""
    data = toy_data()
    leaks = {"tau_s": 9.3e-3, "r": 4.0}
    graph = train(toy(LIF(**leaks), LI(**leaks), bias=False), data, recipe=quick(12))
    profile = override_facts(load_profile(chip), {"weights.bits": [2], "weights.default_bits": 2})
    inputs = CheckedInputs(network=graph, profile=profile, chips=1, dataset=data)
    before = evaluate(*inputs.deploy_integers(graph, data.val)).accuracy
    assert before < evaluate(graph, data.val).accuracy - 0.01
    result = learn_integers(inputs, LearnSettings(epochs=8))
    learnt = result.graph
    after = evaluate(*inputs.deploy_integers(learnt, data.val)).accuracy
    assert result.batches in (16, 32) and after > before and after == result.accuracy
    assert len(np.unique(learnt["hidden"].synapse.weight)) <= 3


def test_a_chip_that_has_all_leaves_the_network_as_it_is(tmp_path):
    network = dense()
    facts = sd.adapt(network, "loihi2", task(), out=tmp_path, **FAST)
    assert facts["replaced"] == [] and facts["missing"] == []
    assert sd.load(tmp_path / "adapted.snn") == network


def test_without_data_exact_replacements_are_made_and_the_rest_is_listed(tmp_path):
    network = small_map_network()
    facts = sd.adapt(network, "brainscales2", out=tmp_path / "exact")
    assert {row["kind"] for row in facts["replaced"]} == {"exact"} and facts["missing"] == []
    adapted = sd.load(tmp_path / "exact" / "adapted.snn")
    assert {type(layer.neuron) for layer in adapted.layers} == {CubaLIF, CubaLI}
    x = (np.random.default_rng(0).random((6, 4, 1, 4, 4)) < 0.5).astype(np.float32)
    np.testing.assert_allclose(simulate(adapted, x).output, simulate(network, x).output, atol=1e-5)

    assert "one_sign" not in adapted.metadata
    dale = override_facts(load_profile("brainscales2"), {"weights.sign": "presynaptic"})
    sd.adapt(network, dale, out=tmp_path / "signs")
    adapted = sd.load(tmp_path / "signs" / "adapted.snn")
    assert adapted.metadata["one_sign"] and set(adapted.metadata["one_sign"]) <= {layer.name for layer in adapted.layers}

    facts = sd.adapt(network, "speck2f", out=tmp_path / "learnt")
    assert facts["replaced"] == [] and facts["files"]["report"] == "adapt.html"
    assert (tmp_path / "learnt" / "adapt.html").exists()
    assert [need.partition(":")[0] for need in facts["missing"]] == ["layer 'conv'", "layer 'out'"]
    assert all("give data to learn from" in need for need in facts["missing"])


def test_options_of_data_without_data_are_refused(tmp_path, trained, monkeypatch):
    with pytest.raises(DataError, match=r"steps: says how data are read, and none are given; give data, or leave the option out"):
        sd.adapt(trained, "loihi2", out=tmp_path / "a", steps=3)
    monkeypatch.chdir(tmp_path)
    write_snn(trained, "net.snn")
    for option in ("--epochs=3", "--keep-widths", "--steps=3", "--encoding=rate"):
        done = CliRunner().invoke(main, ["adapt", "net.snn", "--chip", "loihi2", "--out", "a", option])
        assert done.exit_code == 2 and f"{option.partition('=')[0]} goes with --data, to learn from" in done.stderr
    (tmp_path / "spear.toml").write_text("[data]\nsteps = 3\n")
    assert CliRunner().invoke(main, ["adapt", "net.snn", "--chip", "loihi2", "--out", "a"]).exit_code == 0


def test_without_data_what_is_missing_is_what_has_no_exact_replacement(tmp_path):
    """Written out, the convolution has no windows left that the host could sum over; with data that comes first."""
    facts = sd.adapt("digits", "xylo_audio3", out=tmp_path)
    assert {row["kind"] for row in facts["replaced"]} == {"exact"}
    assert facts["missing"] == [
        "layer 'conv1': 64 inputs, to be replaced after learning by sums over windows of 2 x 2 inputs, which the host forms; "
        "give data to learn from",
        "layers 'conv1' and 'conv2': reset by value, to be replaced after learning by reset by subtraction; give data to learn "
        "from",
    ]
    assert "pool2" in {row["layer"] for row in facts["replaced"]}
    assert facts["notes"][0] == "input reaches of input: 1,024 of 128" and "exceeded" in facts["headline"]
    assert facts["notes"][3] == "4 limits more exceeded; `check` on the adapted network names all"
    assert facts["notes"][4:] == [
        "layer 'pool2': with a mean of currents, in a kernel of 4 x 4 of 'conv2' in place of AvgPool of 2 x 2, the network would "
        "need less of the chip; give data to learn from",
    ]


def test_without_data_a_pool_that_is_replaced_exactly_is_not_missing(tmp_path):
    """A mean of currents takes fewer cores, but has to be learnt; the pools are in exact weights, and the chip lacks nothing."""
    facts = sd.adapt("digits", "brainscales2", out=tmp_path)
    replaced = {row["layer"]: row["kind"] for row in facts["replaced"]}
    assert replaced["pool1"] == replaced["pool2"] == "exact"
    assert facts["missing"] == [] and facts["verdict"] == "does_not_fit"
    assert [note.partition(":")[0] for note in facts["notes"][:3]] == ["cores of chip", "fan in of conv2", "fan in of readout"]
    assert [note.partition(", the network")[0] for note in facts["notes"][3:]] == [
        f"layer 'pool{n}': with a mean of currents, in a kernel of 4 x 4 of 'conv{n}' in place of AvgPool of 2 x 2"
        for n in (1, 2)
    ]


def test_a_part_that_nothing_replaces_is_named_with_what_the_chip_would_need(tmp_path):
    rng = np.random.default_rng(0)
    layer = Layer(name="fc", synapse=Dense(weight=rng.normal(size=(3, 10))), neuron=IF())
    facts = sd.adapt(chain([layer], input_shape=(10,)), "loihi2", out=tmp_path, overrides={"neuron.models": "[SigmaDelta]"})
    assert facts["missing"] == ["layer 'fc': IF; loihi2 has SigmaDelta, it would need IF or LIF or CubaLIF"]


def test_layers_become_narrower_where_the_adapted_network_is_too_large(tmp_path):
    small = {"connectivity.output_reads": 6}
    facts = sd.adapt(dense(), "speck2f", task(), out=tmp_path / "narrow", overrides=small, **FAST)
    assert facts["widths"] == {"fc": [8, 6]} and facts["verdict"] == "fits"
    assert facts["replaced"][0] == {
        "layer": "fc", "what": "8 channels", "by": "6 channels", "kind": "learnt", "bound": "", "neurons": 0,
    }  # fmt: skip
    facts = sd.adapt(dense(), "speck2f", task(), out=tmp_path / "wide", overrides=small, narrows=False, **FAST)
    assert facts["widths"] == {} and facts["verdict"] == "does_not_fit" and facts["missing"] == []


def test_what_cannot_be_sent_to_the_chip_does_not_fit(tmp_path):
    """Values of an analogue input have no spikes on Loihi 1: the verdict says what the refusal of the integers says."""
    rng = np.random.default_rng(0)
    current = Dataset(name="c", classes=3, **{
        name: Split(x=rng.random((12, 4, 10)).astype(np.float32), y=np.arange(12) % 3, kind="current")
        for name in ("train", "val", "test")
    })  # fmt: skip
    facts = sd.adapt(dense(), "loihi1", current, out=tmp_path / "out", **FAST)
    assert facts["verdict"] == "does_not_fit"
    assert [need.startswith("integers: input: a current is sent as spikes that carry a value") for need in facts["missing"]] == [
        True
    ]


def test_a_layer_of_one_channel_is_named_in_the_singular():
    trial = SimpleNamespace(widths={"fc": (2, 1)})
    assert _list_rows(trial, [], None)[0] == {  # type: ignore[arg-type]
        "layer": "fc", "what": "2 channels", "by": "1 channel", "kind": "learnt", "bound": "", "neurons": 0,
    }  # fmt: skip


def test_after_a_check_of_several_chips_pruning_is_for_one_where_no_board_carries_them():
    report = sd.check(dense(), "loihi1", chips=3, overrides={"core.neurons": 1, "chip.usable_cores": 1})
    _, purpose = api.suggest_command("net.nir", "loihi1", report, chips=3)
    assert purpose == "make it smaller, until it fits one chip: no board of loihi1 carries 3"
    command, _ = api.suggest_command("net.nir", "loihi1", report, chips=2)
    assert command.startswith("spear-deploy prune net.nir --chip loihi1:kapoho_bay ")
    assert api.suggest_command("net.nir", "loihi1", report)[1] == "make it smaller, until it fits"


def test_a_layer_keeps_the_width_that_others_leave_it(tmp_path):
    """Of 256 neurons two channels of 64 and eight of 16 take all: one share for both layers would leave six of 16."""
    rng = np.random.default_rng(0)
    first = Conv2d(weight=rng.normal(size=(4, 1, 3, 3)), padding=(1, 1))
    second = Conv2d(weight=rng.normal(size=(8, 4, 3, 3)), padding=(1, 1), stride=(2, 2))
    layers = [
        Layer(name="a", synapse=first, neuron=LIF(tau_s=0.002)),  # 8 steps or more on ReckOn
        Layer(name="b", synapse=second, neuron=LIF(tau_s=0.01)),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 128))), neuron=LI(tau_s=0.01)),
    ]
    x = rng.random((24, 3, 1, 8, 8)) < 0.3
    splits = {name: Split(x=x, y=np.arange(24) % 3) for name in ("train", "val", "test")}
    data = Dataset(name="maps", classes=3, **splits)
    facts = sd.adapt(chain(layers, input_shape=(1, 8, 8)), "reckon", data, out=tmp_path, epochs=1, seed=0)
    assert facts["widths"] == {"a": [4, 2]} and facts["verdict"] == "fits"


@pytest.mark.slow
def test_layers_leave_the_clock_room_for_their_spikes(tmp_path):
    """A step of Xylo takes cycles for each spike and synapse: with a slow clock fewer neurons, down to half."""
    widths = {}
    for clock_hz in (5e7, 5e5, 2e5):
        facts = {"connectivity.output_reads": 6, "timing.clock_hz": clock_hz}
        widths[clock_hz] = sd.adapt(dense(), "xylo_audio3", task(), out=tmp_path, overrides=facts, **FAST)["widths"]["fc"][1]
    assert widths[5e7] == widths[2e5] == 6 and 3 <= widths[5e5] < 6


def test_a_network_at_chance_is_said_so(tmp_path):
    network = dense()
    silent = network.with_layers({"out": Layer(name="out", synapse=Dense(weight=np.zeros((3, 8))), neuron=LI(tau_s=0.002))})
    facts = sd.adapt(silent, "speck2f", task(), out=tmp_path, **FAST)
    assert any("at chance" in note for note in facts["notes"])


def test_an_integer_network_is_refused(speck, tmp_path):
    facts, folder = speck
    with pytest.raises(UnsupportedError, match="a quantised network is of one chip already; give the floating-point network"):
        sd.adapt(folder / facts["files"]["integers"], "speck2f", out=tmp_path)


def test_the_trained_network_of_one_frame_is_verified_on_the_steps_of_the_data(tmp_path):
    graph = train(dense(), task(), epochs=2)
    frame = replace(graph, metadata={**graph.metadata, "input_frame": 15})
    write_snn(graph, tmp_path / "trained.snn")
    write_snn(frame, tmp_path / "dense.snn")
    inputs = CheckedInputs(network=frame, profile=load_profile("akd1000"), chips=1, dataset=sum_inputs(task(), frame))
    assert inputs.dataset.steps == 1
    made = Task(folder=tmp_path, inputs=inputs, digest="", settings=DeploySettings(), progress=None)
    derived = derive_adaptation(tmp_path, made, task())
    as_trained = evaluate(graph, task().test).accuracy
    assert as_trained != evaluate(graph, inputs.dataset.test).accuracy
    assert derived.first == derived.facts["accuracy"]["trained"] == as_trained
    assert derived.last == evaluate(frame, inputs.dataset.test).accuracy


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(TypeError, match="adapt: there is no option 'epoch'; expected .*; did you mean 'epochs'"):
        sd.adapt(dense(), load_profile("speck2f"), task(), out=tmp_path, epoch=3)


def test_deploy_adapts_first_and_verify_derives_the_accuracies_again(trained, tmp_path):
    out = tmp_path / "deployed"
    result = sd.deploy(trained, "speck2f", task(), out=out, **OPTIONS)
    assert result.notes[0].startswith("adapted to speck2f: 2 parts replaced (2 learnt); accuracy of the trained")
    facts = json.loads((out / "adapt.json").read_text())
    assert [row["layer"] for row in facts["replaced"]] == ["fc", "out"]
    assert {type(layer.neuron) for layer in sd.load(out / "dense.snn").layers} == {IF}
    assert sd.load(out / "trained.snn") == trained
    assert [name for name in ("netx", "nir", "onnx", "speck") if name in result.files] == ["nir", "onnx", "speck"]
    assert not [row for row in sd.verify(out, data=task()).failures if row["file"] == "adapt.json"]
    facts["accuracy"]["trained"] = 0.5
    (out / "adapt.json").write_text(json.dumps(facts))
    write_snn(trained, out / "adapted.snn")  # another network than was pruned
    failures = sd.verify(out, data=task()).failures
    assert any(row["file"] == "adapted.snn" and not row["where"] for row in failures)
    assert any(row["file"] == "adapt.json" and row["where"] == "accuracy.trained" for row in failures)


def edit(folder, path, value):
    facts = place = json.loads((folder / "adapt.json").read_text())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "adapt.json").write_text(json.dumps(facts))


ADAPTED_FIGURES = [
    (("chip",), "speck2"), (("adapted_digest",), "0"),
    (("accuracy", "trained"), 0.999), (("accuracy", "adapted"), 0.999), (("accuracy", "integers"), 0.9),
    (("verdict",), "tight"), (("headline",), "FITS"), (("cores_used",), 1.0), (("cores_limit",), 99), (("energy", "total"), 1e-9),
    (("widths",), {"fc": [8, 2]}), (("missing",), ["a part"]), (("files", "adapted"), "other.snn"),
    (("waterfall", 0, "accuracy"), 0.999), (("waterfall", -1, "accuracy"), 0.999), (("waterfall",), 3), (("waterfall",), [1]),
    (("replaced", 0), {"layer": "fc", "what": "8 channels", "by": "3 channels", "kind": "learnt"}),
]  # fmt: skip


def test_verify_finds_every_edited_figure_of_the_adaptation_and_another_trained_network(trained, tmp_path):
    out = tmp_path / "deployed"
    sd.deploy(trained, "speck2f", task(), out=out, **OPTIONS)
    settings, original = DeploySettings(**OPTIONS), (out / "adapt.json").read_text()
    derived = derive(out, settings=settings, data=task(), chip="speck2f", full=False)

    def compare():
        rows = Failures()
        compare_adaptation(out, derived.adaptation, rows, same_code=True)
        return [row["where"] for row in rows.rows]

    assert compare() == []
    for path, value in ADAPTED_FIGURES:
        edit(out, path, value)
        where = "widths" if path[0] == "replaced" else path[0]
        assert any(found.startswith(where) for found in compare()), path
        (out / "adapt.json").write_text(original)
    (out / "adapt.json").write_text("[]")
    assert compare() == [""]
    (out / "adapt.json").write_text(original)
    write_snn(sd.load(out / "dense.snn"), out / "trained.snn")  # of which the chip lacks nothing
    derived = derive(out, settings=settings, data=task(), chip="speck2f", full=False)
    assert "parts" in compare() and "waterfall[0].accuracy" in compare()
    write_snn(dense(), out / "trained.snn")  # of another accuracy
    derived = derive(out, settings=settings, data=task(), chip="speck2f", full=False)
    assert "parts" not in compare() and "accuracy.trained" in compare()


@pytest.mark.slow
def test_check_deploy_and_verify_know_that_sums_stand_in_for_too_many_inputs(trained, tmp_path):
    few = {"connectivity.input_channels": 5}
    report = sd.check(trained, "loihi2", overrides=few)
    (row,) = [row for row in report.rows if row.resource == "input_channels"]
    assert row.remedy == (
        "no narrower layer changes them: give the network fewer inputs; `adapt` puts in its place: sums over windows of "
        "2 inputs, which the host forms (learnt)"
    )
    assert api.suggest_command("net.nir", "loihi2", report)[0].startswith("spear-deploy adapt net.nir --chip loihi2 --data DATA")
    result = sd.deploy(trained, "loihi2", task(), out=tmp_path / "out", overrides=few, **OPTIONS)
    assert result.report.verdict == "fits" and result.notes[0].startswith("adapted to loihi2: 1 part replaced")
    verified = sd.verify(tmp_path / "out", data=task())
    assert not [failure for failure in verified.failures if failure["file"] in ("trained.snn", "adapt.json")]


def test_too_many_outputs_lead_to_another_chip_and_are_refused_before_anything_is_learnt(trained, tmp_path):
    few = {"connectivity.output_channels": 2}
    report = sd.check(trained, "loihi2", overrides=few)
    (row,) = [row for row in report.rows if row.resource == "output_channels"]
    assert row.remedy == "no narrower layer changes them: give the network fewer outputs"
    assert api.suggest_command("net.nir", "loihi2", report) == ("spear-deploy rank net.nir", "which chip takes it")
    with pytest.raises(ChipError, match="nothing replaces it: output: 3 channels; loihi2 has 2, so that the output has to be"):
        sd.deploy(trained, "loihi2", task(), out=tmp_path / "out", overrides=few, **OPTIONS)


def test_an_adaptation_that_is_stopped_goes_on_behind_its_last_epoch_to_the_same_files(trained, speck, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_store, "COST_SHARE", np.inf)
    told = []

    def stop(facts):
        if (facts["stage"], facts["done"]) == ("learn", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sd.adapt(trained, "speck2f", task(), out=tmp_path, epochs=15, progress=stop)
    assert list_learning(tmp_path)
    again = sd.adapt(trained, "speck2f", task(), out=tmp_path, epochs=15, progress=told.append)
    assert next(facts["done"] for facts in told if facts["stage"] == "learn") == 4
    facts, folder = speck
    assert not list_learning(tmp_path)
    for name in (facts["files"]["adapted"], facts["files"]["integers"]):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert again["accuracy"] == facts["accuracy"] and again["waterfall"] == facts["waterfall"]


def test_ctrl_c_while_a_deployment_adapts_keeps_no_half_learnt_network(trained, tmp_path):
    """A network of half an adaptation was taken for the adapted one, by this run and the next."""

    def stop(facts):
        if facts["done"] == 1 and not seen:
            seen.append(facts["stage"])
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt, match="no stage is finished; its learning is kept in '.*', and the same call goes on"):
        sd.deploy(trained, "speck2f", task(), out=tmp_path, progress=stop, **OPTIONS)
    assert seen and not (tmp_path / "adapted.snn").exists() and not (tmp_path / "stages.json").exists()


def test_deploy_names_what_nothing_replaces(trained, tmp_path):
    with pytest.raises(ChipError, match=r"chip 'speck2f' lacks what this network needs, and nothing replaces it: layer 'fc': .*"):
        sd.deploy(trained, "speck2f", task(), out=tmp_path, overrides={"neuron.models": "[SigmaDelta]"})


def test_check_names_the_replacement_and_rank_says_what_is_within_reach(trained):
    report = sd.check(trained, "speck2f")
    remedies = {row.where: row.remedy for row in report.rows if row.resource == "neuron_model" and row.status == "over"}
    assert remedies["fc"].endswith("`adapt` puts in its place: IF that resets by subtraction (learnt)")
    assert any(
        note.startswith("adapt: `spear-deploy adapt NET --chip speck2f --data DATA --out adapted`") for note in report.notes
    )
    ranked = {entry.profile: entry for entry in sd.rank(trained, ["speck2f", "loihi2"])}
    assert ranked["speck2f"].reach == "within reach: adapt (2 to learn)" and ranked["loihi2"].reach == ""
    assert ranked["speck2f"].to_json()["adaptation"]["within_reach"] is True


def test_weights_behind_weights_are_one_product_for_every_verb(tmp_path):
    rng = np.random.default_rng(0)
    before = [Layer(name=f"w{n}", synapse=Dense(weight=rng.normal(size=(10, 10)))) for n in range(2)]
    net = chain([*before, *dense().layers], input_shape=(10,))
    assert sd.check(net, "loihi2").verdict == sd.rank(net, ["loihi2"])[0].verdict == "fits"
    cache = StageCache(tmp_path / "deployed", fresh=False, advice=lambda *_: "", progress=None)
    assert adapt_for_deployment(cache, net, "loihi2", task(), DeploySettings()) is net
    missing = sd.adapt(net, "speck2f", out=tmp_path / "adapted")["missing"]
    assert [text.split(",")[0] for text in missing] == ["layer 'fc': CubaLIF", "layer 'out': LI"]


def test_deploying_replaces_what_the_integers_alone_refuse(tmp_path):
    """IF is a neuron of Akida where a network has one step; over several steps its potential is lost."""
    rng = np.random.default_rng(0)
    net = chain([Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 10)) / 3), neuron=IF())], input_shape=(10,))
    (finding,) = sd.check(net, "akd1500").unsupported
    assert (finding.layer, finding.what) == ("out", "IF keeps a potential from one step to the next")
    assert finding.why.startswith("Akida's neurons keep none; use LIF")
    cache = StageCache(tmp_path, fresh=False, advice=lambda *_: "", progress=None)
    adapted = adapt_for_deployment(cache, net, "akd1500", task(), DeploySettings())
    facts = json.loads((tmp_path / "adapt.json").read_text())
    assert [row["what"] for row in facts["replaced"]] == ["a potential over steps", "weights"] and facts["missing"] == []
    assert api.quantize_for_chip(adapted, "akd1500").metadata["quantization"]["states"] == "whole numbers"


def test_sparse_weights_that_do_not_fit_written_out_are_refused_before_learning(monkeypatch, tmp_path):
    """Learning holds eight full copies of them, as `prune` does; what needs no learning takes them sparse."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((1500, 1500)) < 0.001, rng.normal(size=(1500, 1500)), 0).astype(np.float32)
    neuron = LIF(tau_s=0.01, reset="subtract")
    layers = [
        Layer(name="first", synapse=Dense(weight=np.ones((1500, 10), np.float32)), neuron=neuron),
        Layer(name="wide", synapse=Dense(weight=make_sparse(weight)), neuron=neuron),
        Layer(name="out", synapse=Dense(weight=np.ones((3, 1500), np.float32)), neuron=LI(tau_s=0.002)),
    ]
    network, data = chain(layers, input_shape=(10,)), task()
    need = 8 * weight.nbytes
    monkeypatch.setattr(memory, "free_bytes", lambda: need - 1)
    refused = r"layer 'wide': learning with sparse weights of 1500x1500: written out 8 times they take 0\.072 GB, "
    learnt = []
    with pytest.raises(GraphError, match=refused):
        sd.adapt(network, "loihi1", data, out=tmp_path / "adapted", progress=learnt.append, **FAST)
    assert learnt == [] and not (tmp_path / "adapted").exists()
    with pytest.raises(GraphError, match=refused):
        sd.prune(network, "loihi1", data, synops="50%", out=tmp_path / "pruned")
    facts = sd.adapt(network, "loihi2", data, out=tmp_path / "same", **FAST)
    assert facts["replaced"] == [] and sd.load(tmp_path / "same" / "adapted.snn") == network
    work = AdaptTask(network=network, profile=load_profile("loihi1"), dataset=data, settings=AdaptSettings())
    (note,) = note_lack_of_room(work, network)
    assert note.startswith("not learnt with the rounding of loihi1: layer 'wide': learning with sparse weights of 1500x1500")
    monkeypatch.setattr(memory, "free_bytes", lambda: need)
    assert note_lack_of_room(work, network) == []
    network.require_learning_room()


def test_integers_that_are_refused_are_missing_without_data_too(tmp_path):
    """A bias that reaches the neurons 3 steps late: nothing that a profile names, but no integers."""
    layers = (
        Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=IF()),
        Layer(name="weights", synapse=Dense(weight=np.eye(2), bias=np.ones(2))),
        Layer(name="sum", neuron=IF()),
    )
    edges = (Edge(source=INPUT, target="a"), Edge(source="a", target="weights"), Edge(source="weights", target="sum", delay=3))
    facts = sd.adapt(SNNGraph(layers=layers, edges=edges, input_shape=(2,)), "loihi2", out=tmp_path)
    (refusal,) = facts["missing"]
    assert refusal == "layer 'weights': its bias reaches 'sum' 3 steps late; the chip's neurons hold it from the first step"


def test_a_refusal_stands_where_its_advice_fails(trained, monkeypatch):
    def fail(*_):
        raise ValueError("a fault of the search for replacements")

    monkeypatch.setattr("spear_deploy.adaptation.table.find_replacements", fail)
    with pytest.raises(ChipError, match=r"layer 'fc': CubaLIF leaks, .*; use IF \(a constant leak is a bias\)$"):
        api.explain(trained, "speck2f", np.moveaxis(task().test.x[:4], 0, 1))


def test_integers_that_the_chip_cannot_hold_name_the_command_that_adapts(trained):
    x = np.moveaxis(task().test.x[:4], 0, 1)
    with pytest.raises(
        ChipError, match=r"layer 'fc': CubaLIF leaks, .*; or let `spear-deploy adapt NET --chip speck2f --data DATA"
    ):
        api.explain(trained, "speck2f", x)
    nothing = override_facts(load_profile("speck2f"), {"neuron.models": "[SigmaDelta]"})
    with pytest.raises(ChipError, match=r"use IF \(a constant leak is a bias\)$"):
        api.explain(trained, nothing, x)


def test_a_replacement_that_costs_no_neurons_says_none(trained):
    spiking = trained.with_layers(lambda layer: replace(layer, neuron=IF()) if layer.name == "out" else layer)
    notes = [note for note in sd.check(spiking, "speck2f").notes if note.startswith("adapt: ")]
    assert notes and "neurons more" not in notes[0] and notes[0].endswith("that takes 2 of 9 cores")


def test_the_next_command_of_check_rank_and_adapt_is_of_the_same_chip(tmp_path):
    """Facts that `--set` replaces and the number of chips are repeated: without them the command answers another question."""
    from click.testing import CliRunner

    from spear_deploy.cli.app import main

    def run(*words):
        result = CliRunner().invoke(main, [*words])
        return next(line for line in result.output.splitlines() if line.startswith("next, "))

    facts = ("--set", "chip.cores=2", "--set", "chip.usable_cores=2")
    repeated = "--set chip.cores=2 --set chip.usable_cores=2"
    assert f"prune digits --chip loihi2 {repeated} --data DATA" in run("check", "digits", "--chip", "loihi2", *facts)
    assert run("rank", "digits", "--chip", "loihi2", *facts).endswith(f": spear-deploy check digits --chip loihi2 {repeated}")
    adapting = ("adapt", "digits", "--chip", "brainscales2", "--set", "core.neurons=400", "--out", str(tmp_path / "a"))
    assert "--chip brainscales2 --set core.neurons=400 --data DATA" in run(*adapting)
    assert api.repeat_chip("spinnaker1", chips=48) == "spinnaker1:spin5"
    assert api.repeat_chip("spinnaker1", chips=7) == "spinnaker1"
