"""Removal of weights by magnitude per spike that arrives.

A weight w of an input whose spikes arrive n times costs n SynOps and adds n w² to the energy of its layer's drive. As in LAMP
(Lee et al., arXiv 2010.07611) its loss is a share of the energy of the weights of its layer that are no smaller, here per SynOp:

    score = (n w² / Σ n_k w_k²) / n        sum over the weights of the layer with |w_k| ≥ |w|

The weights of least score go first, in the whole network. So layers whose weights are few or alike, such as a recurrent loop,
lose fewer. A removed weight is zero, and a zero weight is no synapse (see `simulator.synops`). Layers without SynOps, such as the
first layer of an analogue input, keep all weights.

Weights are removed several times while the network learns (`WeightRemoval`). Each time chooses anew among all weights, the
removed ones at their last values: a weight comes back where present ones have become smaller than it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from spear_deploy.data import Split
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, Array, Dense, Layer
from spear_deploy.network.fixed_weights import list_fixed_layers
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.spike_paths import carries_spikes
from spear_deploy.pruning.budgets import refuse_budget
from spear_deploy.pruning.levers import rewards_zeros
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import count_arrivals, count_synops
from spear_deploy.training.evaluation import Evaluation, evaluate

MAX_SHARE = 0.995
"""Largest share of the weights, of the network and of a layer, that is removed at once."""


def count_zero_weights(graph: SNNGraph) -> tuple[int, int]:
    """Return (weights that are zero, all weights) of dense and convolutional synapses."""
    weights = [layer.synapse.weight for layer in graph.layers if isinstance(layer.synapse, (Dense, *CONVS))]
    return sum(int(weight.size - np.count_nonzero(weight)) for weight in weights), sum(weight.size for weight in weights)


@dataclass(frozen=True, kw_only=True)
class WeightOrder:
    """The order in which weights are removed.

    Attributes:
        starts: by layer the number of its first weight; the weights of a layer follow each other in the order of its array.
        order: numbers of the weights that may be removed, least score first.
        present: weights that are not zero, those that have to stay included.
    """

    starts: dict[str, int]
    order: Array
    present: int

    def zero_first(self, graph: SNNGraph, count: int) -> SNNGraph:
        """Return the network in which the first weights of the order are zero."""
        removed = np.sort(self.order[:count])

        def zero_layer(layer: Layer) -> Layer:
            if layer.name not in self.starts:
                return layer
            synapse: Any = layer.synapse
            first = self.starts[layer.name]
            low, high = np.searchsorted(removed, (first, first + synapse.weight.size))
            if low == high:
                return layer
            weight = synapse.weight.copy()
            weight.ravel()[removed[low:high] - first] = 0
            return replace(layer, synapse=replace(synapse, weight=weight))

        return graph.with_layers(zero_layer)

    def only_zeros_of(self, graph: SNNGraph) -> WeightOrder:
        """Return the order of those weights alone that are zero in another network of the same layers; `present` of that one."""
        layers: dict[str, Any] = {layer.name: layer.synapse for layer in graph.layers if layer.name in self.starts}
        present = np.concatenate([layers[name].weight.ravel() != 0 for name in self.starts] or [np.zeros(0, bool)])
        return WeightOrder(starts=self.starts, order=self.order[~present[self.order]], present=int(present.sum()))


def order_weights(graph: SNNGraph, counts: SpikeCounts) -> WeightOrder:
    """Return the order in which weights are removed; each layer keeps its largest, 1 − `MAX_SHARE` of them, fixed ones all.

    Args:
        graph: floating point.
        counts: of its own spikes.
    """
    synops = count_synops(graph, counts).per_layer
    starts: dict[str, int] = {}
    numbers, scores, start, present = [], [], 0, 0
    fixed = list_fixed_layers(graph)
    for layer in graph.layers:
        synapse: Any = layer.synapse
        if not isinstance(synapse, (Dense, *CONVS)) or not synops.get(layer.name) or layer.name in fixed:
            continue
        starts[layer.name] = start
        weight = synapse.weight.ravel().astype(np.float64)
        arriving = np.broadcast_to(count_arriving_spikes(graph, layer, counts), synapse.weight.shape).ravel() + 1e-9
        where = np.flatnonzero(weight)
        rising = where[np.argsort(np.abs(weight[where]), kind="stable")]
        energy = arriving[rising] * weight[rising] ** 2
        score = energy / np.cumsum(energy[::-1])[::-1] / arriving[rising]
        removable = min(len(rising) - 1, int(MAX_SHARE * len(rising)))
        numbers.append(start + rising[:removable])
        scores.append(score[:removable])
        start, present = start + weight.size, present + len(rising)
    if not numbers:
        return WeightOrder(starts=starts, order=np.zeros(0, np.int64), present=0)
    order = np.argsort(np.concatenate(scores), kind="stable")
    return WeightOrder(starts=starts, order=np.concatenate(numbers)[order], present=present)


def zero_weight_share(graph: SNNGraph, counts: SpikeCounts, share: float) -> SNNGraph:
    """Return the network in which a share of the non-zero weights is zero, those of least score.

    Args:
        graph: floating point.
        counts: of its own spikes.
        share: 0..1, of the weights of layers that take SynOps.
    """
    order = order_weights(graph, counts)
    return order.zero_first(graph, int(share * order.present))


def thin_most(graph: SNNGraph, measured: Evaluation) -> float:
    """Return the SynOps of a network without most of its weights, `MAX_SHARE`, at its present spikes."""
    return count_synops(zero_weight_share(graph, measured.counts, MAX_SHARE), measured.counts).total


def note_unused_weights(graph: SNNGraph, counts: SpikeCounts, profile: HardwareProfile) -> list[str]:
    """Return what removing half of the weights would save, where a chip is not known to reward it; else nothing.

    Args:
        graph: floating point.
        counts: of its own spikes.
        profile: the chip.
    """
    if rewards_zeros(profile):
        return []
    before, after = (count_synops(net, counts).total for net in (graph, zero_weight_share(graph, counts, 0.5)))
    return [
        f"weights were not removed, since chip '{profile.name}' is not known to reward zeros; half of them would be "
        f"{1 - after / max(before, 1e-12):.0%} of the counted SynOps (`--levers channels,weights`)"
    ]


def thin_to_synops(graph: SNNGraph, counts: SpikeCounts, synops: float) -> SNNGraph:
    """Return the network with the fewest zero weights that has at most so many SynOps at its present spikes.

    The weights of least score become zero. The thinned network spikes differently, so it is measured again.

    Args:
        graph: floating point.
        counts: of its own spikes.
        synops: per inference.

    Raises:
        BudgetError: even `MAX_SHARE` of the weights leaves more SynOps; carries what it leaves.
    """
    if count_synops(graph, counts).total <= synops:
        return graph
    order = order_weights(graph, counts)
    low, high = 0, int(MAX_SHARE * order.present)
    best = order.zero_first(graph, high)
    least = count_synops(best, counts).total
    if least > synops:
        raise refuse_budget("synops", synops, least, f"{1 - MAX_SHARE:.1%} of the weights cost")
    while high - low > 1:
        middle = (low + high) // 2
        thinner = order.zero_first(graph, middle)
        if count_synops(thinner, counts).total <= synops:
            best, high = thinner, middle
        else:
            low = middle
    return best


def fill_zero_weights(graph: SNNGraph, unthinned: SNNGraph) -> SNNGraph:
    """Return the network whose weights of zero have the values of another network of the same layers."""

    def fill_layer(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if not isinstance(synapse, (Dense, *CONVS)):
            return layer
        stored: Any = unthinned[layer.name].synapse
        return replace(layer, synapse=replace(synapse, weight=np.where(synapse.weight == 0, stored.weight, synapse.weight)))

    return graph.with_layers(fill_layer)


@dataclass
class WeightRemoval:
    """Gradual removal of weights while a network learns, the `remove` of `training.fit`.

    After a share s of the removals the weights that are left cost kept^s of the SynOps that all weights would cost at the
    present spikes. So the removal does not wait for rates to fall, and does not race the price on SynOps.

    Attributes:
        split: on which spikes are counted.
        kept: what the weights that are left in the end cost, relative to all weights, above 0 and at most 1.
        unthinned: the network with its removed weights at their last values; None before the first removal.
        thinned: the network after the last removal so far; None before the first.
        gives_back: whether removed weights may come back where a budget is left over.
    """

    gives_back: ClassVar[bool] = True

    split: Split
    kept: float
    unthinned: SNNGraph | None = None
    thinned: SNNGraph | None = None

    def __call__(self, graph: SNNGraph, share: float) -> SNNGraph:
        """Return the network with its zeros chosen anew."""
        self.unthinned = graph if self.unthinned is None else fill_zero_weights(graph, self.unthinned)
        self.thinned = self.thin(graph, self.unthinned, share)
        return self.thinned

    def describe(self) -> dict[str, Any]:
        """Return what its choices depend on, see `training.trainer_state`."""
        networks = {"unthinned": self.unthinned, "thinned": self.thinned}
        return {"removal": type(self).__name__, "split": self.split, "kept": self.kept, **networks}

    def thin(self, graph: SNNGraph, whole: SNNGraph, share: float) -> SNNGraph:
        """Return the network with all weights, less those that are removed by now."""
        counts = evaluate(graph, self.split).counts
        return thin_to_synops(whole, counts, count_synops(whole, counts).total * self.kept**share)


@dataclass
class LayerWeightRemoval(WeightRemoval):
    """Gradual removal of the weights of least magnitude in each layer, down to a density of its own.

    After a share s of the removals a layer has density^s of its weights. The order within a layer is that of `order_weights`.

    Attributes:
        densities: share of its weights that each layer keeps in the end; layers that are not named keep all.
    """

    kept: float = 1.0
    densities: Mapping[str, float] = field(default_factory=dict)

    def thin(self, graph: SNNGraph, whole: SNNGraph, share: float) -> SNNGraph:
        """Return the network with all weights, less those that are removed by now."""
        return thin_layers(whole, {name: density**share for name, density in self.densities.items()})

    def describe(self) -> dict[str, Any]:
        """Return what its choices depend on, see `training.trainer_state`."""
        return {**super().describe(), "densities": self.densities}


def thin_layers(graph: SNNGraph, densities: Mapping[str, float]) -> SNNGraph:
    """Return the network in which layers keep a share of their weights, the largest, at least one; zeros count as removed."""

    fixed = list_fixed_layers(graph)

    def thin_layer(layer: Layer) -> Layer:
        if layer.name not in densities or layer.name in fixed:
            return layer
        synapse: Any = layer.synapse
        magnitude = np.abs(synapse.weight.ravel())
        removed = magnitude.size - max(1, round(densities[layer.name] * magnitude.size))
        weight = synapse.weight.copy()
        weight.ravel()[np.argsort(magnitude, kind="stable")[:removed]] = 0
        return replace(layer, synapse=replace(synapse, weight=weight))

    return graph.with_layers(thin_layer)


def list_densities(graph: SNNGraph) -> dict[str, float]:
    """Return the share of the weights that are not zero by layer, of dense and convolutional synapses.

    >>> from spear_deploy.network import IF
    >>> from spear_deploy.network.graph import chain
    >>> weight = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> list_densities(chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=IF())], input_shape=(2,)))
    {'fc': 0.75}
    """
    layers = {layer.name: layer.synapse for layer in graph.layers if isinstance(layer.synapse, (Dense, *CONVS))}
    return {name: float(np.mean(synapse.weight != 0)) for name, synapse in layers.items()}


def count_arriving_spikes(graph: SNNGraph, layer: Layer, counts: SpikeCounts) -> Array:
    """Return the spikes that arrive at each weight's input, summed over positions of a kernel, with the axes of the weight.

    Dense: (1, inputs). Convolution: (outputs, inputs / groups, 1, ...), or (1, inputs, 1, ...) without groups.
    """
    synapse: Any = layer.synapse
    edges = [edge for edge in graph.edges_into(layer.name) if carries_spikes(graph, edge.source)]
    arriving = sum((count_arrivals(graph, counts, edge) for edge in edges), np.zeros(graph.input_shape_of(layer.name)))
    if isinstance(synapse, Dense):
        return arriving.reshape(1, -1)
    channels = arriving.reshape(len(arriving), -1).sum(axis=1)
    by_group = channels.reshape(synapse.groups, -1)
    rows = by_group if synapse.groups == 1 else np.repeat(by_group, len(synapse.weight) // synapse.groups, axis=0)
    return rows.reshape(*rows.shape, *(1,) * (synapse.weight.ndim - 2))
