"""Synaptic operations counted from spikes, by our and other tools' rules.

A SynOp is one spike delivered over one existing (non-zero) synapse. Per layer:

    SynOps = Σ over inputs of (spikes that arrive there) × (non-zero weights that leave there)

so borders, stride, padding, dilation, groups and zero weights are exact. Pooling, bias, batch norm and neuron updates are
no SynOps, nor is what a host does with the spikes that leave a chip; a spike that passes a pool costs the synapses behind
it. An edge that delivers spikes straight to a neuron, or to a layer that adds them to values, is one synapse of weight one,
to a batch norm behind no weights one of its factor. An analogue input, and the output of a layer without a neuron or of a
readout, is a value, not a spike: its products are MACs and reported separately.

SynOps of two tools are comparable only under the same rule. `count_by_rules` evaluates each on the same spike counts:

    exact           spikes × existing synapses (ours)
    all_weights     spikes × synapses, zero weights included (sinabs' connection map)
    kernel          spikes × out_channels · kernel positions / groups: stride and borders ignored (Norse's counter)
    mean_rate       mean spikes per input × weights × output positions: borders charged (syops-counter)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Array, Layer, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.host_readout import list_host_layers
from spear_deploy.network.spike_paths import carries_spikes, reads_input
from spear_deploy.simulator import synapse_math
from spear_deploy.simulator.run import SpikeCounts

RULES = ("exact", "all_weights", "kernel", "mean_rate")


@dataclass(frozen=True, kw_only=True)
class SynOps:
    """Operations per inference, mean over samples.

    Attributes:
        total: SynOps of all layers.
        per_layer: SynOps by the layer whose synapses were used.
        macs_first_layer: multiplications by an analogue input: non-zero values × non-zero weights.
    """

    total: float
    per_layer: dict[str, float]
    macs_first_layer: float


def count_synops(graph: SNNGraph, counts: SpikeCounts) -> SynOps:
    """Count synaptic operations from spike counts.

    Three inputs that spike 2, 0 and 1 times, fully connected to 4 neurons, cost (2 + 0 + 1) · 4 = 12. Setting one weight
    of the first input to zero saves its two spikes: 10.

    Raises:
        DataError: the counts are of another network.
    """
    _check_counts(graph, counts)
    per_layer: dict[str, float] = {}
    macs, on_host = 0.0, list_host_layers(graph)
    for layer in graph.layers:
        if not has_synapses(graph, layer) or layer.name in on_host:
            continue
        weighted = isinstance(layer.synapse, WEIGHTED)
        shape = graph.input_shape_of(layer.name) if weighted else graph.shape_of(layer.name)
        fan_out = synapse_math.fan_out(layer.synapse if weighted else None, shape).astype(np.float64)
        operations = 0.0
        for edge in graph.edges_into(layer.name):
            if not carries_spikes(graph, edge.source):
                continue
            spikes, values = split_arrivals(graph, counts, edge)
            operations += _sum_products(pool_counts(layer, spikes).astype(np.float64), fan_out)
            if values is not None:
                macs += _sum_products(pool_counts(layer, values).astype(np.float64), fan_out)
        per_layer[layer.name] = operations / counts.samples
    return SynOps(total=sum(per_layer.values()), per_layer=per_layer, macs_first_layer=macs / counts.samples)


def has_synapses(graph: SNNGraph, layer: Layer) -> bool:
    """Return whether spikes that reach a layer are operations there.

    They are where it has weights, and where they go straight to a neuron, to a norm or into a sum with values. A norm behind no
    weights is one weight a channel, as `fold_batchnorm` makes of it.
    """
    if isinstance(layer.synapse, WEIGHTED) or layer.norm is not None or layer.neuron is not None:
        return True
    are_spikes = {carries_spikes(graph, edge.source) for edge in graph.edges_into(layer.name)}
    return len(are_spikes) == 2


def count_arrivals(graph: SNNGraph, counts: SpikeCounts, edge: Edge, _behind: tuple[Edge, ...] = ()) -> Array:
    """Count the spikes an edge delivers at each position of its target, through layers that only pool, add or reshape.

    Raises:
        DataError: the edge lies in a loop without a neuron, in which a spike would circulate for ever.
    """
    if edge.source in [later.source for later in _behind]:
        raise DataError(
            f"layer '{edge.source}': lies in a loop without a neuron, whose spikes have no number; put a neuron into it"
        )
    if edge.source == INPUT or graph[edge.source].neuron is not None:
        path = (edge, *_behind)
        return counts.arrivals(Edge(source=edge.source, target=path[-1].target, delay=sum(part.delay for part in path)))
    layer = graph[edge.source]
    parts = (count_arrivals(graph, counts, before, (edge, *_behind)) for before in graph.edges_into(layer.name))
    total = sum(parts, np.zeros((), np.int64))
    if isinstance(layer.synapse, POOLS):
        return pool_counts(layer, total)
    return synapse_math.apply_synapse(layer.synapse, total[None])[0]


def split_arrivals(graph: SNNGraph, counts: SpikeCounts, edge: Edge) -> tuple[Array, Array | None]:
    """Count the spikes an edge delivers and, apart from them, the values of an analogue input; None where there are none."""
    reaches = edge.source == INPUT or (graph[edge.source].neuron is None and reads_input(graph, edge.source))
    if counts.input_kind != "current" or not reaches:
        return count_arrivals(graph, counts, edge), None
    spikes, values = (_keep_counts(counts, of_input=of_input) for of_input in (False, True))
    return count_arrivals(graph, spikes, edge), count_arrivals(graph, values, edge)


def _keep_counts(counts: SpikeCounts, *, of_input: bool) -> SpikeCounts:
    """Return the counts of the input alone, or of all other sources; the rest is 0."""
    sent = {name: count if (name == INPUT) is of_input else np.zeros_like(count) for name, count in counts.sent.items()}
    delivered = {
        edge: count if (edge.source == INPUT) is of_input else np.zeros_like(count) for edge, count in counts.delivered.items()
    }
    return replace(counts, sent=sent, delivered=delivered)


def pool_counts(layer: Layer, count: Array) -> Array:
    """Sum the spikes of each window of a layer's pool; without a pool return them unchanged."""
    if not isinstance(layer.synapse, POOLS):
        return count
    pool = SumPool(kernel_size=layer.synapse.kernel_size, stride=layer.synapse.stride, padding=layer.synapse.padding)
    return synapse_math.apply_synapse(pool, count[None])[0]


def _sum_products(spikes: Array, fan_out: Array) -> float:
    """Return Σ spikes · fan_out; of an assumed rate as one product, since 0.1 + 0.1 + ... rounds otherwise in each order."""
    rate = spikes.flat[0] if spikes.size else 0.0
    return float(rate * fan_out.sum()) if (spikes == rate).all() else float(np.vdot(spikes, fan_out))


def _check_counts(graph: SNNGraph, counts: SpikeCounts) -> None:
    expected = {INPUT, *(layer.name for layer in graph.layers if layer.spikes)}
    for name in sorted(expected):
        if name not in counts.sent:
            raise DataError(f"layer '{name}': the spike counts do not have it; count this network's own spikes")
        if counts.sent[name].shape != graph.shape_of(name):
            raise DataError(
                f"layer '{name}': spike counts of shape {counts.sent[name].shape}, the network has {graph.shape_of(name)}"
            )


def synops_per_spike(graph: SNNGraph) -> dict[str, Array]:
    """Return the SynOps of one spike of each neuron, float64, in the layer's shape, by spiking layer and `INPUT`.

    The network's SynOps are `Σ spikes · cost`, so this is their gradient by spikes. The last spikes over an edge with delay
    do not arrive within the run; `count_synops` leaves them out, this does not.

    Two inputs, both connected to 3 neurons, which are connected to one readout each: 3 SynOps a spike of an input, 1 of a neuron.
    """
    known = {name: np.zeros(graph.input_shape_of(name)) for name in list_host_layers(graph)}
    sources = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    return {name: _emission_cost(graph, name, known) for name in sources}


def _emission_cost(graph: SNNGraph, name: str, known: dict[str, Array]) -> Array:
    """Return the SynOps of one spike of each output of a layer, summed over its outgoing edges: (*shape)."""
    total = np.zeros(graph.shape_of(name))
    for edge in graph.edges_from(name):
        if edge.target not in known:
            known[edge.target] = _arrival_cost(graph, graph[edge.target], known)
        if carries_spikes(graph, edge.source):
            total += known[edge.target]
    return total


def _arrival_cost(graph: SNNGraph, layer: Layer, known: dict[str, Array]) -> Array:
    """Return the SynOps of one spike that arrives at each input of a layer: (*input shape)."""
    shape = graph.input_shape_of(layer.name)
    if isinstance(layer.synapse, WEIGHTED):
        return synapse_math.fan_out(layer.synapse, shape).astype(np.float64)
    if has_synapses(graph, layer):
        cost = np.ones(graph.shape_of(layer.name))
    elif carries_spikes(graph, layer.name):
        cost = _emission_cost(graph, layer.name, known)
    else:
        return np.zeros(shape)
    if isinstance(layer.synapse, POOLS):
        pool: Any = layer.synapse
        taps = np.ones((shape[0], *pool.kernel_size))
        return synapse_math.scatter(cost, taps, shape, pool.stride, pool.padding, (1,) * len(pool.kernel_size))
    return cost.reshape(shape)


# --------------------------------------------------------------------------------------------------------- other rules


def count_by_rules(graph: SNNGraph, counts: SpikeCounts) -> dict[str, float]:
    """Return the total of each rule per inference, for spikes only (no MACs of an analogue input)."""
    totals, on_host = dict.fromkeys(RULES, 0.0), list_host_layers(graph)
    for layer in graph.layers:
        edges = [edge for edge in graph.edges_into(layer.name) if carries_spikes(graph, edge.source)]
        if has_synapses(graph, layer) and layer.name not in on_host and edges:
            spikes = sum(pool_counts(layer, split_arrivals(graph, counts, edge)[0]) for edge in edges)
            for rule, value in _count_layer_by_rules(graph, layer, np.asarray(spikes, np.float64)).items():
                totals[rule] += value / counts.samples
    return totals


def _count_layer_by_rules(graph: SNNGraph, layer: Layer, spikes: Array) -> dict[str, float]:
    total = float(spikes.sum())
    synapse: Any = layer.synapse
    if not isinstance(synapse, WEIGHTED):
        return dict.fromkeys(RULES, total)
    shape = graph.input_shape_of(layer.name)
    exact = synapse_math.fan_out(synapse, shape)
    if isinstance(synapse, Scale):
        return dict.fromkeys(RULES, total) | {"exact": _sum_products(spikes, exact)}
    full = synapse_math.fan_out(replace(synapse, weight=np.broadcast_to(np.int8(1), synapse.weight.shape)), shape)
    outputs = len(synapse.weight)
    positions = int(np.prod(synapse.output_shape(shape)[1:]))
    kernel = int(np.prod(synapse.weight.shape[2:])) / synapse.groups if isinstance(synapse, CONVS) else 1
    return {
        "exact": _sum_products(spikes, exact),
        "all_weights": _sum_products(spikes, full),
        "kernel": total * outputs * kernel,
        "mean_rate": total / spikes.size * synapse.weight.size * positions,
    }
