"""One output a class where a chip has too few for several: the same decisions, and what is not joined."""

import json
from dataclasses import replace

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.adaptation.class_outputs import find_class_outputs
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.data import from_arrays
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, BatchNorm, CubaLI, CubaLIF, Dense, Layer
from spear_deploy.network.classes import count_per_class, score_classes, state_decision, state_outputs_per_class
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide

CLASSES, N = 4, 10
READOUTS = {
    "LI": LI(tau_s=4e-3), "CubaLI": CubaLI(tau_mem_s=4e-3, tau_syn_s=2e-3), "a weighted sum": None,
    "LIF": LIF(tau_s=4e-3, v_threshold=0.1), "IF": IF(reset="subtract"),
    "CubaLIF": CubaLIF(tau_mem_s=4e-3, tau_syn_s=2e-3, w_in=2.0, v_threshold=0.1),
}  # fmt: skip


def network(readout, *, seed=0, per_class=N, norm=False):
    """Return a network that ends in `per_class` outputs for each of four classes."""
    rng = np.random.default_rng(seed)
    outputs = CLASSES * per_class
    weights = [rng.normal(size=shape).astype(np.float32) / 2 for shape in ((24, 10), (outputs, 24))]
    bias = rng.normal(size=outputs).astype(np.float32) / 20
    values = [rng.random(outputs).astype(np.float32) + 0.5 for _ in range(4)]
    layers = [
        Layer(name="fc", synapse=Dense(weight=weights[0]), neuron=LIF(tau_s=4e-3, v_threshold=0.2)),
        Layer(
            name="out", synapse=Dense(weight=weights[1], bias=bias), neuron=readout,
            norm=BatchNorm(weight=values[0], bias=values[1], mean=values[2], var=values[3]) if norm else None,
        ),
    ]  # fmt: skip
    return state_outputs_per_class(chain(layers, input_shape=(10,), dt_s=1e-3), per_class)


def join(graph, chip="reckon"):
    (offer,) = find_class_outputs(graph, load_profile(chip))
    assert offer.kind == "exact" and offer.what == f"{count_per_class(graph)} outputs a class"
    return offer.rewrite(graph)


@pytest.mark.parametrize("decision", ["mean", "maximum", "last", "each"])
@pytest.mark.parametrize("readout", READOUTS)
def test_each_sample_has_the_decision_of_several_outputs_a_class(readout, decision):
    for seed in range(5):
        before = state_decision(network(READOUTS[readout], seed=seed, norm=seed == 4 and readout != "CubaLIF"), decision)
        after = join(before)
        assert count_per_class(after) == 1 and after.shape_of(after.output) == (CLASSES,)
        x = np.random.default_rng(seed).random((12, 40, 10)) < 0.5
        runs = [simulate(graph, x, dtype=np.float64).output for graph in (before, after)]
        assert runs[0].max() != runs[0].min()
        np.testing.assert_array_equal(decide(runs[1], after), decide(runs[0], before))
        scores = [score_classes(run, graph) for run, graph in zip(runs, (before, after), strict=True)]
        factor = N / 8 if before["out"].spikes else 1.0  # the weights of votes are a power of two, so that sums are exact
        np.testing.assert_allclose(scores[1], factor * scores[0], rtol=0, atol=1e-6)  # weights and biases are float32


def test_classes_that_tie_still_tie():
    before = network(IF(reset="subtract"), per_class=7)
    after = join(before)
    x = np.random.default_rng(1).random((3, 400, 10)) < 0.3
    counts = simulate(before, x).output.reshape(3, 400, CLASSES, 7).sum(axis=(0, 3))
    assert (np.sort(counts, axis=1)[:, -1] == np.sort(counts, axis=1)[:, -2]).sum() > 10
    np.testing.assert_array_equal(simulate(after, x).output.sum(axis=0), counts / 8)


@pytest.mark.parametrize(
    ("graph", "limit"),
    [
        (network(LI(tau_s=4e-3)), 40),  # the chip has all of them
        (network(LI(tau_s=4e-3)), 3),  # and here not even one a class
        (network(LI(tau_s=4e-3)), "unlimited"),
        (state_outputs_per_class(network(LI(tau_s=4e-3)), 1), 16),
        (network(LI(tau_s=np.linspace(2e-3, 8e-3, 40).astype(np.float32))), 16),  # the outputs of a class integrate otherwise
    ],
)
def test_what_is_not_joined(graph, limit):
    profile = override_facts(load_profile("reckon"), {"connectivity.output_channels": limit})
    assert not list(find_class_outputs(graph, profile))


@pytest.mark.parametrize("readout", ["LI", "a weighted sum", "LIF"])
@pytest.mark.parametrize("chip", ["xylo_audio2", "xylo_audio3", "xylo_imu", "reckon"])
def test_a_chip_of_few_outputs_holds_a_population_code(chip, readout):
    plan = make_plans(network(READOUTS[readout]), load_profile(chip))[0]
    assert plan.report.verdict != "does_not_fit" and not plan.lacking and not plan.failed
    assert plan.steps[0].replacement.topic == "outputs"


def test_check_names_it_and_adapt_measures_it(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % CLASSES
    x = (rng.random((120, 12, 10)) < (rng.random((CLASSES, 10)) * 0.8)[y][:, None]).astype(np.uint8)
    graph = network(LI(tau_s=8e-3)).with_layers({"fc": replace(network(None)["fc"], neuron=LIF(tau_s=8e-3))})
    report = sd.check(graph, "reckon")
    (row,) = (row for row in report.over if row.resource == "output_channels")
    assert (
        row.used == 40 and "; `adapt` puts in its place: one output a class, with the mean of their weights (exact)" in row.remedy
    )
    assert any(note.startswith("adapt: `spear-deploy adapt NET --chip reckon") for note in report.notes)
    facts = sd.adapt(graph, "reckon", from_arrays({"x": x, "y": y}, name="d"), out=tmp_path)
    assert facts["verdict"] == "fits" and not facts["missing"]
    assert facts["replaced"][0]["by"] == "one output a class, with the mean of their weights"
    trained, joined = facts["waterfall"][:2]
    assert joined["after"] == "10 outputs a class → one output a class, with the mean of their weights"
    assert joined["accuracy"] == trained["accuracy"] and joined["differs"] is None
    assert count_per_class(sd.load(tmp_path / "adapted.snn")) == 1


BY_SUM = "the sum of their spikes, one output a class"
DEPLOYED = [
    pytest.param("reckon", "LI", "one output a class, with the mean of their weights", marks=pytest.mark.slow),
    ("reckon", "LIF", BY_SUM),
    pytest.param("xylo_audio3", "LI", "one output a class, with the mean of their weights", marks=pytest.mark.slow),
    pytest.param("xylo_audio3", "LIF", BY_SUM, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("chip", "readout", "by"), DEPLOYED)
def test_a_population_code_is_deployed_and_verified(chip, readout, by, tmp_path):
    """The outputs of a class are joined, the network is pruned and rounded, and all that was written is derived again."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % CLASSES
    x = (rng.random((240, 12, 10)) < (rng.random((CLASSES, 10)) * 0.8)[y][:, None]).astype(np.uint8)
    data = from_arrays({"x": x, "y": y}, name="task")
    result = sd.deploy(network(READOUTS[readout]), chip, data, out=tmp_path, synops="70%", method="uniform")
    facts = json.loads((tmp_path / "adapt.json").read_text())
    assert facts["replaced"][0]["by"] == by and not facts["missing"]
    trained, joined = facts["waterfall"][:2]
    assert joined["accuracy"] == trained["accuracy"] and joined["differs"] is None
    assert result.report.verdict == "fits" and not result.failures and result.synops["achieved"] <= result.synops["budget"]
    given, adapted, quantised = (sd.load(tmp_path / f"{name}.snn") for name in ("trained", "adapted", "quantised"))
    assert count_per_class(given) == N and count_per_class(adapted) == count_per_class(quantised) == 1
    assert quantised.is_integer and quantised.shape_of(quantised.output) == (CLASSES,)
    (row,) = (row for row in result.report.rows if row.resource == "output_channels")
    assert (row.used, row.status) == (CLASSES, "ok")
    verification = sd.verify(tmp_path, data=data, full=True)
    assert verification.holds and verification.checked > 500
