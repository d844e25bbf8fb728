"""Bits by layer as a lever: where memory is the budget, chosen by short learning, then learnt with."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

pytest.importorskip("torch")

from rich.console import Console

from spear_deploy.budget.check import check
from spear_deploy.cli.prune import _show
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.catalog import list_profiles
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import read_snn
from spear_deploy.network import IF
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.pipeline.prune import prune, prune_front
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.pruning import layer_bits
from spear_deploy.pruning.bits_choice import can_choose_bits
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.fewer_bits import BitLimits, reduce_bits
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.quantize.network import list_layer_widths
from spear_deploy.report.search_charts import draw_search
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train
from tests.benchmarks.fit import perceptron
from tests.support.seeds import seeds
from tests.training.test_fit import quick, toy_data

LOIHI = load_profile("loihi1")


def words(graph: SNNGraph, profile=LOIHI) -> float:
    costs = build_chip_costs(graph, profile)
    memory = costs.sizes(tuple(group.channels for group in costs.groups))["memory_words"]
    assert memory is not None
    return memory


def learn_toy_task():
    """Return a network of large weights, which few bits round coarsely, and its data."""
    graph = perceptron(0, (6, 24, 20, 2), IF())
    graph = graph.with_layers(lambda layer: replace(layer, synapse=replace(layer.synapse, weight=2 * layer.synapse.weight)))
    data = toy_data()
    return train(graph, data, recipe=quick(8)), data


@pytest.fixture(scope="module")
def learnt():
    return learn_toy_task()


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_bits, "BATCHES", 12)
        patch.setattr(layer_bits, "ROUNDED_BATCHES", 6)
        yield


def make_problem(seed: int):
    """Layers of random sizes and losses that grow as bits fall, and a limit of their bits times sizes."""
    rng = np.random.default_rng(seed)
    widths, names = (2, 3, 4, 6), ("a", "b", "c", "d")[: 2 + seed % 3]
    sizes = {name: int(rng.integers(1, 40)) for name in names}
    start = dict.fromkeys(names, 8)
    saved = {(name, width): float(sizes[name] * (8 - width)) for name, width in product(names, widths)}
    losses = {}
    for name in names:
        steps = np.sort(rng.exponential(0.02, len(widths)))[::-1].cumsum()
        losses |= {(name, width): float(loss) for width, loss in zip(widths[::-1], np.sort(steps), strict=True)}
    limit = rng.uniform(0.3, 1.0) * 8 * sum(sizes.values())
    return start, saved, losses, lambda bits: sum(sizes[name] * bits[name] for name in names) > limit


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_bits_are_within_the_limits_and_no_layer_can_have_more(seed):
    """Against all combinations: a result wherever there is one, and a loss above the least by no more than one step's."""
    start, saved, losses, is_over = make_problem(seed)
    bits = reduce_bits(start, saved, losses, is_over)
    widths = sorted({width for _, width in saved} | {8})
    every = [dict(zip(start, choice, strict=True)) for choice in product(widths, repeat=len(start))]
    possible = [choice for choice in every if not is_over(choice)]

    def loss(choice):
        return sum(losses.get(item, 0.0) for item in choice.items())

    if not possible:
        assert is_over(bits) and bits == dict.fromkeys(start, 2)
        return
    assert not is_over(bits)
    for name, width in bits.items():
        wider = [w for w in widths if w > width]
        assert not wider or is_over({**bits, name: wider[0]})
    assert loss(bits) <= min(map(loss, possible)) + max(losses.values())
    assert bits == start if not is_over(start) else bits != start


@pytest.mark.parametrize("chip", list_profiles())
def test_widths_are_those_that_the_profile_lets_a_layer_have(chip):
    profile = load_profile(chip)
    expected = {"loihi1": (2, 3, 4, 5, 6, 8), "loihi2": (2, 3, 4, 5, 6, 8), "akd1000": (2, 4), "akd1500": (2, 4)}
    assert list_layer_widths(profile) == expected.get(chip, ())
    assert profile.weights.bits_by_layer.value is (True if chip in expected else None)
    for levers, can in (
        ("channels,bits", chip in expected),
        ("bits", chip in expected),
        ("weights,bits", False),
        ("channels", False),
        (None, False),
    ):
        assert can_choose_bits(PruneSettings(memory="50%", levers=levers), profile) is can
    if len(profile.weight_bits) > 1:
        one = override_facts(profile, {"weights.bits": [4], "weights.default_bits": 4})
        assert len(list_layer_widths(one)) == 1 and not can_choose_bits(PruneSettings(memory="50%", levers="channels,bits"), one)


@pytest.mark.parametrize(
    "method", ["uniform", *(pytest.param(method, marks=pytest.mark.slow) for method in ("recipe", "evolution"))]
)
def test_a_budget_of_memory_is_held_by_fewer_bits_and_more_channels(learnt, method, tmp_path, monkeypatch):
    """Whichever candidate is taken; here the one with fewer bits is preferred, so that the rest of the way is seen."""
    graph, data = learnt
    monkeypatch.setattr(layer_bits._Trial, "learn", prefer_fewer_bits(layer_bits._Trial.learn))
    options = {"memory": "40%", "method": method, "epochs": 1 if method == "uniform" else 3}
    alone = prune(graph, LOIHI, data, out=tmp_path / "alone", levers="channels", **options)
    both = prune(graph, LOIHI, data, out=tmp_path / "both", levers="channels,bits", **options)
    limit = 0.4 * words(graph)
    pruned = read_snn(tmp_path / "both" / "pruned.snn")
    bits = both["layer_bits"]["bits"]
    assert bits and read_layer_bits(pruned) == bits and alone["layer_bits"] is None
    assert both["budgets"]["memory_words"]["budget"] == pytest.approx(limit) == alone["budgets"]["memory_words"]["budget"]
    integer = quantize_for_chip(pruned, LOIHI)
    for network in (pruned, integer):
        assert words(network) <= limit < words(state_layer_bits(pruned, {}))
    assert all(stored_bits(integer, LOIHI)[name] <= width for name, width in bits.items())
    assert sum(after for _, after in both["widths"].values()) > sum(after for _, after in alone["widths"].values())
    assert both["met"] and both["accuracy"]["pruned"] > 0.6
    batches = both["batches"]
    assert batches["layer_bits"] == sum(row["batches"] for row in both["layer_bits"]["candidates"]) > 0
    assert batches["all"] == sum(n for name, n in batches.items() if name != "all")
    saved = json.loads((tmp_path / "both" / "search.json").read_text())
    assert saved["layer_bits"] == both["layer_bits"]
    console = Console(file=io.StringIO(), width=200)
    _show(console, both, both["labels"], str(tmp_path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "bits of a weight: " + ", ".join(f"{name} 8→{width}" for name, width in bits.items()) in text
    assert both["weight_bits"] == {"default": 8, "layers": bits} and alone["weight_bits"] == {"default": 8, "layers": {}}
    page = (tmp_path / "both" / "prune.html").read_text()
    table = page[page.index('<section id="bits">') :].split("</section>")[0]
    assert all(f'<td>{name}</td><td class="n">8</td><td class="n">{width}</td>' in table for name, width in bits.items())
    assert 'id="bits"' not in (tmp_path / "alone" / "prune.html").read_text()
    notes = check(pruned, LOIHI).notes
    assert any(note.startswith("bits of a weight by layer: ") for note in notes)


def prefer_fewer_bits(learn):
    def learn_and_prefer(self, bits, widths):
        row = learn(self, bits, widths)
        return {**row, "certainty": row["certainty"] + len(bits)}

    return learn_and_prefer


@pytest.mark.slow
def test_the_candidate_that_is_more_certain_is_taken(learnt, tmp_path):
    graph, data = learnt
    facts = prune(graph, LOIHI, data, out=tmp_path / "a", memory="40%", levers="channels,bits", method="uniform", epochs=1)
    candidates = facts["layer_bits"]["candidates"]
    best = max(candidates, key=lambda row: row["certainty"])
    assert facts["layer_bits"]["bits"] == best["bits"] and not candidates[0]["bits"]
    assert all(row["batches"] == 18 for row in candidates)
    assert [note for note in facts["notes"] if note.startswith("bits") and "after 18 batches each" in note]
    widths = [sum(row["widths"]) for row in candidates]
    assert len(candidates) == 2 and widths[0] < widths[1] and min(candidates[1]["bits"].values()) >= 4


def test_where_bits_alone_are_enough_all_channels_stay_and_it_goes_on_from_its_checkpoint(learnt, tmp_path, monkeypatch):
    graph, data = learnt
    monkeypatch.setattr(layer_bits._Trial, "learn", prefer_fewer_bits(layer_bits._Trial.learn))
    options = {"memory": "75%", "levers": "channels,bits", "epochs": 1}
    first = prune(graph, LOIHI, data, out=tmp_path / "a", **options)
    assert first["layer_bits"]["bits"] and all(before == after for before, after in first["widths"].values())
    assert first["batches"]["search"] == 0 and first["met"]

    def fail(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(layer_bits._Trial, "learn", fail)
    monkeypatch.setattr(BitLimits, "measure", fail)
    again = prune(graph, LOIHI, data, out=tmp_path / "a", **options)
    for name in ("layer_bits", "widths", "accuracy", "synops", "batches"):
        assert again[name] == first[name]


@pytest.mark.slow
def test_a_chip_whose_memory_is_exceeded_is_fitted_by_fewer_bits(learnt, tmp_path, monkeypatch):
    graph, data = learnt
    monkeypatch.setattr(layer_bits._Trial, "learn", prefer_fewer_bits(layer_bits._Trial.learn))
    costs = build_chip_costs(graph, LOIHI)
    largest = max(part.memory_words for part in costs.place(tuple(group.channels for group in costs.groups))[0].slices)
    cores = {"chip.cores": 3, "chip.usable_cores": 3}
    small = override_facts(LOIHI, {"core.synapse_memory": int(0.7 * largest), **cores})
    assert check(graph, small).verdict == "does_not_fit"
    facts = prune(graph, small, data, out=tmp_path / "a", levers="channels,bits", epochs=1)
    assert facts["verdict"] != "does_not_fit" and facts["layer_bits"]["bits"]
    pruned = read_snn(tmp_path / "a" / "pruned.snn")
    assert check(state_layer_bits(pruned, {}), small).verdict == "does_not_fit"


@pytest.mark.slow
def test_without_the_lever_nothing_changes_but_a_note_and_other_budgets_need_no_bits(learnt, tmp_path):
    graph, data = learnt
    facts = prune(graph, LOIHI, data, out=tmp_path / "a", memory="40%", method="uniform", epochs=1)
    assert facts["layer_bits"] is None and "layer_bits" not in facts["batches"]
    assert any("`--levers channels,bits` tries whether fewer bits save memory" in note for note in facts["notes"])
    facts = prune(graph, LOIHI, data, out=tmp_path / "b", synops="60%", levers="channels,bits", method="uniform", epochs=1)
    assert facts["layer_bits"] is None
    assert "bits: all layers keep theirs, since no limit of memory or cores is exceeded" in facts["notes"]
    front = prune_front(
        graph, LOIHI, data, ["70%"], out=tmp_path / "c", memory="40%", levers="channels,bits", method="uniform", epochs=1
    )
    assert front["front"][0]["layer_bits"] is None
    assert any(
        note.startswith("bits: their number by layer is chosen for one budget at a time") for note in front["front"][0]["notes"]
    )


def test_bits_that_leave_no_more_channels_are_kept_and_said(learnt, tmp_path):
    """Cores are full of neurons here, which bits do not change."""
    graph, data = learnt
    facts = prune(
        graph, "loihi1", data, out=tmp_path, method="uniform", levers="channels,bits", cores=4, epochs=1, seed=0,
        overrides={"core.neurons": 8},
    )  # fmt: skip
    assert "bits: all layers keep theirs, since fewer of them leave no more channels within the limits" in facts["notes"]
    assert facts["weight_bits"]["layers"] == {} and facts["verdict"] != "does_not_fit"


def test_a_network_within_its_budget_learns_for_the_bits_that_it_states(learnt, tmp_path):
    """An absolute budget that the bits hold alone: all channels stay, and the integers are learnt for."""
    graph, data = learnt
    stating = state_layer_bits(graph, dict.fromkeys(("fc1", "fc2", "fc3"), 2))
    options = {"out": tmp_path / "a", "memory": words(stating), "epochs": 12}
    facts = prune(stating, LOIHI, data, **options)
    assert all(before == after for before, after in facts["widths"].values()) and facts["met"]
    assert facts["batches"]["all"] == facts["batches"]["bits"] > 0 and [row["lever"] for row in facts["levers"]] == [
        "trained",
        "bits",
    ]
    assert any(
        note.startswith("the network is within the budget with its bits: no channel was removed") for note in facts["notes"]
    )
    pruned = read_snn(tmp_path / "a" / "pruned.snn")
    assert read_layer_bits(pruned) == read_layer_bits(stating) and words(quantize_for_chip(pruned, LOIHI)) <= options["memory"]
    before = evaluate(quantize_for_chip(stating, LOIHI, calibration=np.moveaxis(data.train.x[:256], 0, 1)), data.test).accuracy
    assert facts["accuracy"]["quantised"] > before
    summary = draw_search(json.loads((tmp_path / "a" / "search.json").read_text()))["summary"]
    assert summary[0].startswith(f"The network, which learnt from {facts['batches']['bits']} batches with the chip's rounding")
    wide = prune(graph, LOIHI, data, **{**options, "out": tmp_path / "b", "memory": words(graph)})
    assert wide["batches"]["all"] == 0 and any("nothing was changed" in note for note in wide["notes"])


def test_bits_alone_keep_all_channels_within_a_budget_of_memory(learnt, tmp_path):
    graph, data = learnt
    facts = prune(graph, LOIHI, data, out=tmp_path / "a", memory="80%", levers="bits", epochs=2)
    pruned = read_snn(tmp_path / "a" / "pruned.snn")
    bits = facts["layer_bits"]["bits"]
    assert bits == read_layer_bits(pruned) == facts["weight_bits"]["layers"] and min(bits.values()) >= 4
    assert all(before == after for before, after in facts["widths"].values()) and facts["met"]
    assert [row["lever"] for row in facts["levers"]][:2] == ["trained", "rates"]
    assert words(pruned) <= 0.8 * words(graph) < words(state_layer_bits(pruned, {}))
    assert facts["layer_bits"]["candidates"] == [] and facts["batches"]["layer_bits"] == facts["batches"]["search"] == 0
    assert any(
        note.startswith("bits of a weight in place of 8: ") and note.endswith("with all channels") for note in facts["notes"]
    )


@pytest.mark.slow
def test_bits_alone_that_the_limits_do_not_hold_with_name_the_least(learnt, tmp_path):
    graph, data = learnt
    twos = state_layer_bits(graph, dict.fromkeys(("fc1", "fc2", "fc3"), 2))
    with pytest.raises(
        BudgetError, match="what the fewest bits of this chip leave with all channels; raise .*, or let"
    ) as caught:
        prune(graph, LOIHI, data, out=tmp_path / "a", memory="10%", levers="bits", epochs=1)
    assert words(twos) <= (caught.value.min_value or 0) < words(graph)
    small = override_facts(LOIHI, {"core.synapse_memory": 20, "chip.cores": 3, "chip.usable_cores": 3})
    with pytest.raises(BudgetError, match=r"does not fit with the fewest bits and all channels \(.*; let channels go too"):
        prune(graph, small, data, out=tmp_path / "b", levers="bits", epochs=1)
    assert not any((tmp_path / name / "pruned.snn").exists() for name in "ab")


def test_bits_alone_are_refused_where_they_do_nothing(learnt, tmp_path):
    graph, data = learnt
    with pytest.raises(BudgetError, match="bits alone reaches budgets of memory and cores, not of --synops; name channels or"):
        PruneSettings(synops="50%", memory="50%", levers="bits")
    with pytest.raises(BudgetError, match="a deployment prunes to a budget of SynOps; name channels or weights too .*, or use"):
        DeploySettings(levers="bits")
    with pytest.raises(BudgetError, match="bits alone leaves all channels, so that method 'spear' has nothing to do; leave it"):
        PruneSettings(memory="50%", levers="bits", method="spear")
    with pytest.raises(BudgetError, match="does nothing here, layers of chip 'speck2f' have weights of one width"):
        prune(graph, "speck2f", data, out=tmp_path / "a", memory="50%", levers="bits")
    with pytest.raises(BudgetError, match=r"bits alone changes memory and cores, and chip 'loihi1' is exceeded elsewhere \("):
        prune(graph, override_facts(LOIHI, {"core.axons_in": 5}), data, out=tmp_path / "b", levers="bits")


@pytest.mark.slow
def test_bits_that_the_network_states_stay_where_fewer_are_chosen(learnt, tmp_path, monkeypatch):
    graph, data = learnt
    stating = state_layer_bits(graph, {"fc3": 3})
    monkeypatch.setattr(layer_bits._Trial, "learn", prefer_fewer_bits(layer_bits._Trial.learn))
    options = {"levers": "channels,bits", "method": "uniform", "epochs": 1}
    facts = prune(stating, LOIHI, data, out=tmp_path / "a", memory="50%", **options)
    choice = facts["layer_bits"]
    assert choice["stated"] == {"fc3": 3} == choice["candidates"][0]["bits"]
    assert choice["bits"]["fc3"] <= 3 and len(choice["bits"]) > 1
    assert read_layer_bits(read_snn(tmp_path / "a" / "pruned.snn")) == choice["bits"]
    assert any("on validation with rounding, the network's bits" in note for note in facts["notes"])


def prefer_the_bits_of_the_network(learn):
    def learn_and_prefer(self, bits, widths):
        row = learn(self, bits, widths)
        return {**row, "certainty": row["certainty"] - len(bits)}

    return learn_and_prefer


@pytest.mark.slow
def test_bits_that_the_network_states_stay_where_channels_are_better(learnt, tmp_path, monkeypatch):
    graph, data = learnt
    stating = state_layer_bits(graph, {"fc3": 3})
    monkeypatch.setattr(layer_bits._Trial, "learn", prefer_the_bits_of_the_network(layer_bits._Trial.learn))
    facts = prune(stating, LOIHI, data, out=tmp_path / "a", memory="50%", levers="channels,bits", method="uniform", epochs=1)
    assert facts["layer_bits"]["bits"] == facts["weight_bits"]["layers"] == {"fc3": 3}
    assert read_layer_bits(read_snn(tmp_path / "a" / "pruned.snn")) == {"fc3": 3}
    assert any(note.startswith("bits: all layers keep their bits, fewer channels cost less") for note in facts["notes"])
