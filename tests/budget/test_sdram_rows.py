"""Memory of SpiNNaker's rows of synapses, beside the matrices that sPyNNaker makes of the lists of a PyNN script."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import BudgetRow, check_cores
from spear_deploy.hardware.profile import override_facts
from spear_deploy.interchange.pynn.document import build_document
from spear_deploy.network import LIF, Conv1d, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import INPUT, SNNGraph, chain
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.place import Placement, place_populations
from spear_deploy.placement.splitting import find_largest
from tests.adaptation.random_networks import random_map_network
from tests.support.chips import small_chip
from tests.support.seeds import seeds


def sum_in_pools(place: str, seed: int) -> SNNGraph:
    """Return neurons that read others through weights in front of a pool or behind it."""
    rng = np.random.default_rng(seed)
    padding = (1 if place == "border" else 0,)  # at which no kernel has the sums of the weights
    pool = SumPool(kernel_size=(2,), stride=(2 if place == "apart" else 1,), padding=padding)
    weight = rng.normal(size=(3, 2, 3))
    conv = Conv1d(weight=np.abs(weight) if place in ("one sign", "border") else weight)
    synapses = {
        "in front": (conv, pool),
        "border": (conv, pool),
        "dense": (pool, Flatten(), Dense(weight=rng.normal(size=(3, 22)))),
    }.get(place, (pool, conv))
    first = Layer(name="a", synapse=Conv1d(weight=rng.random((2, 1, 1))), neuron=LIF(tau_s=0.02))
    layers = [Layer(name=f"l{i}", synapse=synapse) for i, synapse in enumerate(synapses)]
    return chain([first, *layers[:-1], replace(layers[-1], neuron=LIF(tau_s=0.02))], input_shape=(1, 12))


def count_matrices(graph: SNNGraph, placement: Placement) -> int:
    """Count the words of sPyNNaker's matrices for the lists of the PyNN script, which has projections of one sign.

    On each core of the target a row for each source neuron, of three words and as many as the longest row onto any core.
    """
    description, arrays = build_document(graph, chip="spinnaker1")
    names = [population["name"] for population in description["populations"]]
    words = 0
    for number, row in enumerate(description["projections"]):
        source, target, weight = (arrays[f"projection{number}.{name}"] for name in ("source", "target", "weight"))
        parts = placement.slices_of(names[row["target"]])
        (shape,) = (p.shape for p in placement.populations if p.name == names[row["target"]])
        core = np.zeros(shape, int)
        for k, part in enumerate(parts):
            core[tuple(slice(*along) for along in part.box)] = k
        before = graph.input_shape if row["source"] == INPUT else graph.shape_of(names[row["source"]])
        for sign in (1, -1):
            chosen = sign * weight > 0
            rows = np.zeros((prod(before), len(parts)), int)
            np.add.at(rows, (source[chosen], core.reshape(-1)[target[chosen]]), 1)
            words += len(parts) * len(rows) * (3 + int(rows.max())) if chosen.any() else 0
    return words


def draw_leaky(seed: int) -> SNNGraph:
    """Return a drawn network of leaky neurons without biases, with zeros among its weights."""
    rng = np.random.default_rng(seed)
    graph = random_map_network(seed, axes=1 + seed % 2, norms=False)

    def change(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if hasattr(synapse, "bias"):
            keep = rng.random(synapse.weight.shape) < (1, 0.3)[seed % 3 > 0]
            synapse = replace(synapse, bias=None, weight=synapse.weight * keep)
        return replace(layer, synapse=synapse, neuron=None if layer.neuron is None else LIF(tau_s=0.02))

    return graph.with_layers(change)


@pytest.mark.parametrize("kind", ["in front", "behind", "apart", "border", "one sign", "dense", "drawn"])
@pytest.mark.parametrize("seed", seeds(2, 6))
def test_rows_are_open_between_words_without_padding_and_the_longest_matrices(kind: str, seed: int) -> None:
    graph = draw_leaky(seed) if kind == "drawn" else sum_in_pools(kind, seed)
    chip = small_chip("spinnaker1", core__neurons=16 + seed, chip__usable_cores=1000, chip__cores=1000)
    placement = place_populations(find_chip_populations(graph, chip), {}, chip)
    written = count_matrices(graph, placement)

    def find(limit: int) -> BudgetRow:
        rows = check_cores(placement, override_facts(chip, {"chip.memory_words": limit}))
        (row,) = (row for row in rows if row.resource == "synapse_memory" and row.where == "chip")
        return row

    low = 1 + (find_largest(written, lambda limit: find(limit).status == "over") or 0)
    row = find(low)
    least, most = (int(n.replace(",", "")) for n in re.findall("take (.*) to (.*) words:", row.remedy)[0])
    assert (least, row.status) == (low, "unchecked") and least <= written <= most
    assert find(most - 1).status == "unchecked" and find(most).status in ("ok", "tight")


def test_lists_without_zeros_may_fit_where_rows_with_their_zeros_do_not() -> None:
    """100 inputs of which each reaches 2 of 50 neurons: rows of 3 + 50 words, and of 3 + 2 as a list.

    Cores are cut by the rows with zeros.
    """
    weight = (np.arange(50)[:, None] % 25 == np.arange(100) % 25).astype(float)
    graph = chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=LIF(tau_s=0.02))], input_shape=(100,))
    for limit, verdict, used in ((5300, "fits", 500), (5299, "fits", 1000), (499, "does_not_fit", None)):
        report = check(graph, small_chip("spinnaker1", chip__memory_words=limit), remedies=False)
        (row,) = (row for row in report.rows if row.resource == "synapse_memory")
        assert report.verdict == verdict and row.used == (used or row.used)


def test_weights_of_both_signs_are_two_matrices() -> None:
    """10 inputs to 4 neurons with weights of both signs: two rows each, of 3 words and at most 4 synapses."""
    weight = np.tile([1.0, -1.0], (4, 5))
    graph = chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=LIF(tau_s=0.02))], input_shape=(10,))
    for limit, status in ((69, "over"), (70, "unchecked"), (139, "unchecked"), (140, "ok")):
        report = check(graph, small_chip("spinnaker1", chip__memory_words=limit), remedies=False)
        (row,) = (row for row in report.rows if row.resource == "synapse_memory")
        assert row.status == status and (row.used == 70 or status == "over")
