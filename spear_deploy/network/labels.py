"""Names of layers for people; bare numbers with kind and shape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import IF
from spear_deploy.network.synapses import SumPool
from spear_deploy.util.number_format import format_shape, join_names

BEFORE = r"(?:^|\(|\b(?:layers?|groups?|edge|given network|of|from|by|reaches|readout) |\b(?:reset|step): )"
"""What stands before the name of a layer in a sentence; a name in quotes elsewhere may be of something else."""
QUOTED = re.compile(f"{BEFORE}'[^']+'(?:(?:, | and | or | -> )'[^']+')*")
"""Quoted names in a sentence, one or several."""
MAX_KINDS = 2
"""Layers in a row that are written with their kinds; of more the names alone."""


def label_layers(graph: SNNGraph) -> dict[str, str]:
    """Return a label for each layer: its name, and where that has no letter (torch's "0", "2.1") kind and output shape too.

    A layer of weights and neurons, which bears the name of one of the two, has both kinds: "2 Conv2d-LIF 8 x 6 x 6".
    """
    labels = {}
    for layer in graph.layers:
        parts = [type(part).__name__ for part in (layer.synapse, layer.neuron) if part is not None]
        kind = name_kind(layer) if _pools_spikes(layer) else join_kinds(*parts)
        named = not kind or not is_bare(layer.name)
        shape = format_shape(graph.shape_of(layer.name))
        labels[layer.name] = layer.name if named else f"{layer.name} {kind} {shape}"
    return labels


def join_kinds(*kinds: str | None) -> str:
    """Join the kinds of a layer's synapse and neuron, where it has them.

    >>> join_kinds("Conv2d", "LIF"), join_kinds("Dense", None)
    ('Conv2d-LIF', 'Dense')
    """
    return "-".join(kind for kind in kinds if kind)


def is_bare(name: str) -> bool:
    """Return whether a layer's name has no letter, as torch's "10" and "2.1": beside a count it reads as a number."""
    return not any(letter.isalpha() for letter in name)


def name_layers(names: Sequence[str], *, joint: str = " + ", most: int | None = None) -> str:
    """Return layers for a sentence: their names, and where one is a bare number all of them quoted, or the first of many.

    >>> name_layers(["fc1"]), name_layers(["fc1", "fc2"]), name_layers(["10"]), name_layers(["0", "2", "10"])
    ('fc1', 'fc1 + fc2', "layer '10'", "layers '0', '2' and '10'")
    >>> name_layers(["0", "2", "10"], most=2)
    "layer '0' and 2 more"
    """
    if not any(map(is_bare, names)):
        return joint.join(names)
    if most is not None and len(names) > most:
        return f"layer '{names[0]}' and {len(names) - 1} more"
    quoted = [f"'{name}'" for name in names]
    return f"layer{'s' * (len(names) > 1)} {join_names(quoted)}"


def add_kinds(sentence: str, labels: Mapping[str, str]) -> str:
    """Return a sentence with kind and shape behind the first mention of each layer whose name is a bare number.

    Args:
        sentence: with names in quotes.
        labels: of `label_layers`.

    >>> add_kinds("layer '10': 3 spikes, layer 'fc': 0", {"10": "10 Dense 512", "fc": "fc"})
    "layer '10' (Dense 512): 3 spikes, layer 'fc': 0"
    """
    kinds = {name: label.removeprefix(f"{name} ") for name, label in labels.items() if label != name}

    def add_kind(quoted: re.Match[str]) -> str:
        kind = kinds.pop(quoted[1], "")
        return f"{quoted.group()} ({kind})" if kind else quoted.group()

    def add(match: re.Match[str]) -> str:
        words = match.group()
        return words if words.count("'") > 2 * MAX_KINDS else re.sub("'([^']+)'", add_kind, words)

    return QUOTED.sub(add, sentence) if kinds else sentence


def name_kind(layer: Layer) -> str:
    """Return the kind of a layer's synapse as frameworks call it, else that of its neuron; "" where it has neither."""
    if _pools_spikes(layer):
        return "MaxPool"
    part = layer.neuron if layer.synapse is None else layer.synapse
    return "" if part is None else type(part).__name__


def _pools_spikes(layer: Layer) -> bool:
    """Return whether a layer is a max pool of spikes: an IF that spikes in the same step where its window holds a spike."""
    neuron = layer.neuron
    return (
        isinstance(layer.synapse, SumPool)
        and isinstance(neuron, IF)
        and neuron.reset == "value"
        and bool(np.all((neuron.v_threshold >= 0) & (neuron.v_threshold < 1)))
        and not np.any(neuron.v_reset)
    )
