"""Placements of random networks on small chips of every kind, as recorded: where layers are cut shows in them.

python -m tests.placement.test_recorded_placements        # writes the record, after a change that is meant to cut otherwise
"""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.hardware.profile import HardwareProfile, list_profiles
from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, SumPool
from spear_deploy.network.graph import Edge, Layer, SNNGraph, chain
from spear_deploy.placement.place import PackingName, lower_bound, place
from spear_deploy.placement.weight_bits import stored_bits
from tests.support.chips import small_chip

RECORD = Path(__file__).with_name("recorded_placements.json")
PACKINGS: tuple[PackingName, ...] = ("vendor", "fewest")
ALIKE = ("akd1500", "xylo_audio3", "xylo_imu")
"""Chips that cut as one of the others does."""
NEEDS = ("core", "neurons", "memory_words", "axons_in", "axons_out", "target_cores", "copies")
LIMITS = {
    "core.neurons": (12, 90), "core.synapse_memory": (60, 900), "core.axons_in": (10, 120), "core.axons_out": (8, 200),
}  # fmt: skip
"""Range of a core's limits: small ones, so that layers are cut in several ways."""


def network(seed: int) -> SNNGraph:
    """Return maps of odd sizes with pools, groups and feedback, dense layers, or signals of one axis."""
    rng = np.random.default_rng(seed)
    inputs = int(rng.integers(1, 4))
    if seed % 4 == 3:
        first = Conv1d(weight=weights(rng, 6, inputs, 3), stride=(int(rng.integers(1, 3)),))
        layers = [Layer(name="a", synapse=first, neuron=IF()), Layer(name="flat", synapse=Flatten())]
        shape = (inputs, int(rng.integers(17, 40)))
        size = int(np.prod(first.output_shape(shape)))
        return chain([*layers, Layer(name="out", synapse=Dense(weight=weights(rng, 7, size)), neuron=IF())], input_shape=shape)
    shape = (inputs, int(rng.integers(9, 16)), int(rng.integers(9, 16)))
    channels = int(rng.integers(2, 9))
    first = Conv2d(weight=weights(rng, channels, inputs, 3, 3), padding=(int(rng.integers(2)), 1))
    groups = channels if rng.random() < 0.4 else 1
    second = Conv2d(weight=weights(rng, channels, channels // groups, 3, 3), padding=(1, 1), groups=groups)
    layers = [Layer(name="a", synapse=first, neuron=IF()), Layer(name="b", synapse=second), Layer(name="sum", neuron=IF())]
    edges = [Edge(source="input", target="a"), Edge(source="a", target="b"), Edge(source="b", target="sum")]
    if seed % 4 == 1:  # what passes around the weights adds up
        edges.append(Edge(source="a", target="sum"))
    layers += [Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))), Layer(name="flat", synapse=Flatten())]
    _, height, width = first.output_shape(shape)
    size = channels * (height // 2) * (width // 2)
    layers += [Layer(name="fc", synapse=Dense(weight=weights(rng, 23, size)), neuron=IF())]
    layers += [Layer(name="out", synapse=Dense(weight=weights(rng, 5, 23)), neuron=IF())]
    names = ["sum", "pool", "flat", "fc", "out"]
    edges += [Edge(source=source, target=target) for source, target in pairwise(names)]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=shape)


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return weights, of which a third is zero."""
    return rng.normal(size=shape) * (rng.random(shape) < 0.67)


def chip(name: str, seed: int) -> HardwareProfile:
    """Return a chip with small cores: those of its limits that are numbers are drawn anew."""
    rng = np.random.default_rng([seed, sum(map(ord, name))])
    drawn = {key: int(rng.integers(*span)) for key, span in LIMITS.items()}
    whole = small_chip(name)
    cores = {key: value for key, value in drawn.items() if isinstance(getattr(whole.core, key.split(".")[1]).value, (int, float))}
    return small_chip(name, **{key.replace(".", "__"): value for key, value in cores.items()})


def describe(name: str, seed: int) -> dict[str, Any]:
    """Return, by packing, the cores, and by layer the pieces along each axis and the sums of what they need."""
    graph, profile = network(seed), chip(name, seed)
    described: dict[str, Any] = {}
    for packing in PACKINGS:
        placement = place(graph, profile, packing=packing)
        layers = {}
        for layer in placement.layers:
            parts = placement.slices_of(layer)
            axes = [sorted({box[k] for box in (part.box for part in parts)}) for k in range(len(parts[0].box))]
            needs = [sum((getattr(part, key) or 0) * (n % 7 + 1) for n, part in enumerate(parts)) for key in NEEDS]
            layers[layer] = [[[stop for _, stop in pieces] for pieces in axes], needs]
        described[packing] = {"cores": placement.cores_in_all, "runs": placement.runs, "layers": layers}
        described["bound"] = lower_bound(placement.populations, stored_bits(graph, profile), profile)
    return described


NAMES = [name for name in list_profiles() if name not in ALIKE]


SLOW = ("truenorth", 1)
"""Takes 4 s; ODIN, a crossbar too, places the same network in a tenth of that."""


@pytest.mark.parametrize(
    ("name", "seed"),  # the first four: one network of each kind
    [pytest.param(*case, marks=pytest.mark.slow if case == SLOW or case[1] >= 4 else ()) for case in product(NAMES, range(12))],
)
def test_placements_are_those_recorded(name: str, seed: int) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(describe(name, seed))) == recorded[f"{name} {seed}"]


def test_layers_of_the_record_are_cut_along_each_axis() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    assert recorded.keys() == {f"{name} {seed}" for name in NAMES for seed in range(12)}
    cuts = [axes for row in recorded.values() for packing in PACKINGS for axes, _ in row[packing]["layers"].values()]
    for axis in range(3):
        assert sum(len(axes) > axis and len(axes[axis]) > 1 for axes in cuts) > 50, axis


if __name__ == "__main__":
    cases = product(NAMES, range(12))
    rows = [f'"{name} {seed}": {json.dumps(describe(name, seed), separators=(",", ":"))}' for name, seed in cases]
    RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
