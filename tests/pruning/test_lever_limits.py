"""Levers that cannot do what is asked of them: layers that cannot go narrower, bits that gain nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from spear_deploy.errors import BudgetError, ChipError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import LI, LIF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.rounded_learning import (
    RoundedLearning,
    note_only_width,
    note_unused_bits,
)
from spear_deploy.pruning.tune.thin_weights import count_zero_weights
from spear_deploy.training.evaluation import evaluate
from tests.pruning.test_levers import low_bits
from tests.training.test_fit import toy_data, toy_network


def narrow_loop():
    """A recurrent neuron between two dense layers, which cannot go narrower."""
    rng = np.random.default_rng(0)
    weights = {"in": (1, 6), "loop": (1, 1), "out": (2, 1)}
    layers = [Layer(name=name, synapse=Dense(weight=rng.uniform(0.1, 0.6, shape))) for name, shape in weights.items()]
    layers[2] = replace(layers[2], neuron=LI(tau_s=4e-3))
    layers.insert(2, Layer(name="hidden", neuron=LIF(tau_s=4e-3)))
    edges = [(INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0), ("hidden", "out", 0)]
    return SNNGraph(
        layers=tuple(layers), edges=tuple(Edge(source=a, target=b, delay=d) for a, b, d in edges), input_shape=(6,), output="out"
    )


@pytest.mark.parametrize("method", ["recipe", "rl"])
def test_where_a_recurrent_layer_cannot_go_narrower_weights_take_the_rest(method):
    graph, data = narrow_loop(), toy_data()
    settings = PruneSettings(synops="60%", method=method, epochs=4, episodes=1)
    result = prune_to_budget(graph, data, settings)
    assert set(map(tuple, result.widths.values())) == {(1, 1)} and count_zero_weights(result.graph)[0] >= 2
    limit = 0.6 * evaluate(graph, data.test).synops.total
    assert evaluate(result.graph, data.test).synops.total <= limit
    with pytest.raises(
        BudgetError, match=r"one channel left in every layer \('in' cannot go narrower\); raise it to that or more"
    ):
        prune_to_budget(graph, data, replace(settings, method="uniform", levers="channels"))


def test_bits_that_do_nothing_are_stated():
    graph, data = toy_network(), toy_data()
    settings = PruneSettings(synops="60%", method="uniform", levers="channels,bits", epochs=3)
    chip = build_chip_costs(graph, load_profile("spinnaker1"))
    for costs, why in ((chip, "chip 'spinnaker1' has no rounding that is learnt with"), (None, "no chip is given")):
        assert f"bits: {why}, so this lever did nothing" in prune_to_budget(graph, data, settings, chip=costs).notes
    enough = note_unused_bits("channels,bits", (low_bits(graph, data, 8),), None)
    assert enough == ["bits: the integers lose at most 0.3 points on validation, so nothing was learnt for them"]
    assert note_unused_bits("channels", (), None) == note_unused_bits(None, (), None) == []


@pytest.mark.parametrize(
    ("chip", "bits", "widths"),
    [("loihi2", 16, "2, 3, 4, 5, 6, 8"), ("loihi2", 1, "2, 3, 4, 5, 6, 8"), ("speck2f", 16, "8"), ("spinnaker1", 8, "16")],
)
def test_a_width_that_the_integers_of_a_chip_do_not_have_is_refused(chip, bits, widths):
    profile = override_facts(load_profile(chip), {"weights.bits": [bits], "weights.default_bits": bits})
    why = f"profile '{chip}', key 'weights.bits': {bits} given, a width that the integers of this chip do not have; name none, or"
    with pytest.raises(ChipError, match=rf"{why} of {widths}$"):
        quantize_for_chip(toy_network(), profile)
    own = profile.model_copy(update={"name": "ours"})
    with pytest.raises(ChipError, match=r"profile 'ours', key 'weights.bits': .* name none, or of (2, 3, 4, 5, 6, 7, 8|16)$"):
        quantize_for_chip(toy_network(), own)


def test_a_width_of_the_chip_is_taken():
    profile = override_facts(load_profile("loihi2"), {"weights.bits": [4], "weights.default_bits": 4})
    assert quantize_for_chip(toy_network(), profile).metadata["quantization"]["weight_bits"] == 4


def test_bits_for_a_chip_with_one_width_save_nothing_and_that_is_stated():
    one, several = (build_chip_costs(toy_network(), load_profile(name)) for name in ("speck2f", "loihi2"))
    forms = (low_bits(toy_network(), toy_data(), 8),)
    (note,) = note_only_width("channels,bits", forms, one)
    assert note.startswith("bits: chip 'speck2f' has weights of 8 bits alone, so this lever saves no memory")
    for levers, deployed, costs in (("channels,bits", forms, several), ("channels", forms, one), (None, forms, one)):
        assert note_only_width(levers, deployed, costs) == []
    assert note_only_width("channels,bits", (), one) == []  # there is nothing that learns


def test_what_learning_with_rounding_gained_is_a_sentence():
    facts = {"graph": toy_network(), "use": None, "batches": 260, "batches_to_best": 260, "lost": 0.0094}
    notes = [
        RoundedLearning(**facts, left=left, kept=kept, exceeded=exceeded).note
        for left, kept, exceeded in ((0.004, True, False), (0.0091, True, False), (-0.002, True, False), (0.004, False, True))
    ]
    assert notes == [
        "the integers lost 0.9 points of accuracy on validation; after 260 batches with the chip's rounding they lose 0.4",
        "the integers lost 0.94 points of accuracy on validation; after 260 batches with the chip's rounding they lose 0.91",
        "the integers lost 0.9 points of accuracy on validation; after 260 batches with the chip's rounding they have 0.2 "
        "more than the network before",
        "the integers lose 0.9 points of accuracy on validation; 260 batches with the chip's rounding gained 0.5 but exceed a "
        "budget, so the network from before is kept",
    ]
