"""The whole path on a task of seconds: every stage real, every file there, every promise held."""

import json

import numpy as np
import pytest

from spear_deploy import pipeline, verbs
from spear_deploy.data import from_arrays
from spear_deploy.errors import BudgetError, DataError, UnsupportedError
from spear_deploy.graph import chain
from spear_deploy.layers import IF, LI, LIF, CubaLIF, Dense, Layer
from spear_deploy.simulator import simulate
from spear_deploy.synops import synops
from spear_deploy.training import evaluate


def task(seed=0, samples=120):
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    rates = rng.random((3, 10)) * 0.8
    x = (rng.random((samples, 6, 10)) < rates[y][:, None]).astype(np.uint8)
    return from_arrays({"x": x, "y": y}, name="task")


def network(first, *, hidden=8, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape).astype(np.float32) / 2 for shape in ((hidden, 10), (3, hidden))]
    bias = np.zeros(hidden, np.float32) + np.float32(0.01)
    layers = [
        Layer(name="fc", synapse=Dense(weight=weights[0], bias=bias), neuron=first),
        Layer(name="out", synapse=Dense(weight=weights[1]), neuron=LI(tau_s=0.002)),
    ]
    return chain(layers, input_shape=(10,))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployed")
    # a bias on a current is what netx cannot hold: the rest of the path does not depend on that
    neuron = CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0, v_threshold=0.3)
    stages = []
    result = pipeline.deploy(
        network(neuron), "loihi2", task(), out=folder, synops="70%", method="uniform", lava_samples=4, progress=stages.append
    )
    return result, folder, stages


@pytest.mark.lava
def test_deploy_states_what_it_measured(deployed):
    result, folder, stages = deployed
    facts = result.to_json()
    assert facts == json.loads((folder / "deployment.json").read_text())
    assert set(facts["accuracy"]) == {"dense", "pruned", "quantised", "lava"}
    assert facts["synops"]["budget"] == pytest.approx(0.7 * facts["synops"]["dense"])
    assert facts["lava"]["samples"] == 4 and facts["lava"]["spike_mismatches"] == facts["lava"]["value_mismatches"] == 0
    assert facts["norse"]["spike_mismatches"] == 0
    names = ["evaluate", "prune", "quantise", "lava", "check", "export"]
    assert list(facts["seconds"]) == names
    assert [s["stage"] for s in stages if s["stage"] in names and not s.get("of")][:1] == ["evaluate"]
    for name in facts["files"].values():
        assert (folder / name).stat().st_size > 0, name


@pytest.mark.lava
def test_deployed_files_give_the_stated_numbers_again(deployed):
    result, folder, _ = deployed
    test = task().test
    dense, pruned, integer = (verbs.load(folder / f"{name}.snn") for name in ("dense", "pruned", "quantised"))
    assert evaluate(dense, test).accuracy == result.accuracy["dense"]
    assert evaluate(pruned, test).accuracy == result.accuracy["pruned"]
    assert evaluate(integer, test).accuracy == result.accuracy["quantised"]
    counts = simulate(integer, np.moveaxis(test.x, 0, 1)).counts
    assert synops(integer, counts).total == pytest.approx(result.synops["achieved"])
    before, after = result.widths["fc"]
    assert (before, after) == (8, pruned.shape_of("fc")[0]) and after < before


@pytest.mark.lava
def test_a_format_that_cannot_hold_the_network_is_a_note(deployed):
    result, folder, _ = deployed
    assert "netx" not in result.files and not (folder / "netx").exists()
    assert any(note.startswith("no netx file: layer 'fc': a bias on the current") for note in result.notes)
    for to in ("nir", "onnx"):
        certificate = json.loads((folder / result.files[f"{to}_certificate"]).read_text())
        assert certificate["mismatches"] == 0 and certificate["first_difference"] is None


def test_prune_writes_the_plan_that_gives_the_pruned_network(tmp_path):
    facts = pipeline.prune(network(IF()), "loihi2", task(), out=tmp_path, synops="60%", method="uniform")
    pruned = verbs.load(tmp_path / facts["files"]["pruned"])
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert facts["widths"]["fc"] == [8, pruned.shape_of("fc")[0]]
    assert len(plan["fc"]) == pruned.shape_of("fc")[0]
    assert facts["accuracy"]["pruned"] == evaluate(pruned, task().test).accuracy
    assert facts["synops"]["budget"] == pytest.approx(0.6 * facts["synops"]["dense"])
    assert json.loads((tmp_path / "search.json").read_text())


@pytest.mark.parametrize("text", ["much", "", "%", "0", "-3", "nan", "inf%"])
def test_budgets_that_are_none(text):
    with pytest.raises(BudgetError, match=f"synops budget '{text}': expected"):
        pipeline.budget_from(text, 100.0)


def test_a_budget_below_an_almost_empty_network_names_what_is_reachable(tmp_path):
    with pytest.raises(BudgetError, match=r"synops budget 1 is below \d+, .*; raise the budget to at least \d+") as caught:
        pipeline.prune(network(IF()), "loihi2", task(), out=tmp_path / "out", synops="1")
    assert caught.value.least > 1 and not (tmp_path / "out").exists()


def test_what_cannot_go_on_is_said_before_anything_is_trained(tmp_path):
    integer = verbs.for_chip(network(IF()), "loihi2")
    with pytest.raises(UnsupportedError, match="an integer network can be neither searched nor fine-tuned"):
        pipeline.deploy(integer, "loihi2", task(), out=tmp_path / "out")
    with pytest.raises(UnsupportedError, match="resets by subtraction, Lava's LIF resets to 0"):
        pipeline.deploy(network(LIF(tau_s=0.002, reset="subtract")), "loihi2", task(), out=tmp_path / "out")
    five = from_arrays({"x": np.ones((40, 6, 10), np.uint8), "y": np.arange(40) % 5}, name="five")
    with pytest.raises(DataError, match=r"labels go up to 4, the network has outputs 0\.\.2"):
        pipeline.prune(network(IF()), "loihi2", five, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lava_needs_a_sample():
    integer = verbs.for_chip(network(IF()), "loihi2")
    with pytest.raises(DataError, match="there is no test sample to run on Lava"):
        pipeline.run_on_lava(integer, task().test, 0)


def test_norse_and_our_simulator_agree_on_every_spike():
    found = pipeline.run_on_norse(network(LIF(tau_s=0.002, v_threshold=0.2)), task().test)
    assert found == {"samples": 24, "spike_mismatches": 0, "spikes_compared": 24 * 6 * 8}
