"""Integer arrays of a Xylo network, as rockpool's `config_from_specification` takes them.

    weights_in     (inputs, hidden that the input reaches, 1)     int8; hidden neurons 0 .. n − 1
    weights_rec    (hidden, hidden, 1)                            int8, [source, target]
    weights_out    (hidden that the outputs read, outputs)        int8; the last hidden neurons (Audio 2: all)
    dash_mem, dash_syn, threshold, bias_hidden                    (hidden,)
    dash_mem_out, dash_syn_out, threshold_out, bias_out           (outputs,)
    weight_shift_in, weight_shift_rec, weight_shift_out           left shift of the sums

The chip has one array of hidden neurons. All hidden layers lie in it: first the neurons that the input reaches, then those that
neither input nor output touches, then those that the outputs read. Spikes between its neurons, and onto the outputs, arrive one
step later, so a layer acts `offset` steps after the layer of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Array, Dense, Flatten, XyloLIF
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.spike_paths import SpikePath, find_offsets, find_spike_paths

OUT_OF_REACH = 2**15 - 1
"""Threshold of a readout: the highest potential there is."""
HIDDEN_SPIKES, OUTPUT_SPIKES = 31, 1
"""Spikes of a neuron in a step, as the chip has them."""


@dataclass(frozen=True, kw_only=True)
class XyloArrays:
    """A network as arrays, and where its neurons lie in them.

    Attributes:
        arrays: by rockpool's names, see the module.
        hidden: by hidden layer, the number in the array of each of its neurons.
        output: name of the output layer.
        readout: whether its potential, not its spikes, is the network's output.
        offsets: by layer, how many steps later it acts on the chip.
    """

    arrays: Mapping[str, Array]
    hidden: Mapping[str, Array]
    output: str
    readout: bool
    offsets: Mapping[str, int]


def build_arrays(graph: SNNGraph, *, all_read: bool) -> XyloArrays:
    """Return the arrays of an integer network.

    Args:
        graph: of `XyloLIF` neurons and dense weights.
        all_read: whether `weights_out` has a row for every hidden neuron (Xylo Audio 2).

    Raises:
        UnsupportedError: what the chip's arrays cannot hold, by layer.
    """
    _check_neurons(graph)
    paths = find_spike_paths(graph)
    offsets = find_offsets(graph, paths, input_steps=0, chip="Xylo")
    sizes = {layer.name: int(np.prod(graph.shape_of(layer.name))) for layer in graph.layers if layer.neuron is not None}
    hidden = [name for name in sizes if name != graph.output]
    total = sum(sizes[name] for name in hidden)
    start = dict(zip(hidden, np.cumsum([0, *(sizes[name] for name in hidden)])[:-1].tolist(), strict=True))
    _check_ways(graph, paths)
    ways = {
        "in": ([p for p in paths if p.source == INPUT], (int(np.prod(graph.input_shape)), total)),
        "rec": ([p for p in paths if p.source != INPUT and p.target != graph.output], (total, total)),
        "out": ([p for p in paths if p.target == graph.output], (total, sizes[graph.output])),
    }
    weights, shifts = {}, {}
    for name, (chosen, shape) in ways.items():
        weights[name], shifts[name] = _add_up(chosen, shape, start)
    order, reached, read = _order_hidden(weights["in"], weights["out"])
    place = np.empty(total, np.int64)
    place[order] = np.arange(total)
    neurons = {name: graph[name].neuron for name in sizes}
    hidden_values = {
        what: _gather(neurons, sizes, hidden, what)[order] for what in ("dash_mem", "dash_syn", "v_threshold", "bias")
    }
    output_values = {what: _gather(neurons, sizes, [graph.output], what) for what in hidden_values}
    rows = total if all_read else read
    arrays = {
        "weights_in": weights["in"][:, order][:, : total if all_read else reached, None],
        "weights_rec": weights["rec"][np.ix_(order, order)][..., None],
        "weights_out": weights["out"][order][total - rows :],
        "dash_mem": hidden_values["dash_mem"],
        "dash_mem_out": output_values["dash_mem"],
        "dash_syn": hidden_values["dash_syn"],
        "dash_syn_out": output_values["dash_syn"],
        "threshold": hidden_values["v_threshold"],
        "threshold_out": output_values["v_threshold"],
        "bias_hidden": hidden_values["bias"],
        "bias_out": output_values["bias"],
    }
    types = {"weights": np.int8, "dash": np.int8}
    arrays = {name: value.astype(types.get(name.split("_")[0], np.int16)) for name, value in arrays.items()}
    arrays |= {f"weight_shift_{name}": np.array(shift, np.int8) for name, shift in shifts.items()}
    return XyloArrays(
        arrays=arrays,
        hidden={name: place[start[name] : start[name] + sizes[name]] for name in hidden},
        output=graph.output,
        readout=not graph[graph.output].spikes,
        offsets=offsets,
    )


# ------------------------------------------------------------------------------------------------------------ inside


def _check_neurons(graph: SNNGraph) -> None:
    for layer in graph.layers:
        if layer.neuron is None:
            continue
        if not isinstance(layer.neuron, XyloLIF):
            raise UnsupportedError(
                f"layer '{layer.name}': {type(layer.neuron).__name__} neurons, Xylo's arrays hold XyloLIF; quantise the network "
                "for a Xylo chip"
            )
        expected = OUTPUT_SPIKES if layer.name == graph.output else HIDDEN_SPIKES
        if layer.spikes and layer.neuron.max_spikes != expected:
            raise UnsupportedError(
                f"layer '{layer.name}': up to {layer.neuron.max_spikes} spikes a step, the chip's neurons there send up to "
                f"{expected}; quantise with the chip's own limits"
            )
        if layer.name != graph.output and not layer.spikes:
            raise UnsupportedError(
                f"layer '{layer.name}': a readout inside the network; only the output layer may have no threshold"
            )
    if graph[graph.output].neuron is None:
        raise UnsupportedError(f"layer '{graph.output}': the output layer has no neurons; Xylo's outputs are neurons, add them")


def _check_ways(graph: SNNGraph, paths: Iterable[SpikePath]) -> None:
    for path in paths:
        kinds = [type(layer.synapse).__name__ for layer in path.layers if not isinstance(layer.synapse, (Dense, Flatten))]
        if kinds:
            raise UnsupportedError(
                f"layer '{path.target}': {kinds[0]} on its way from '{path.source}'; Xylo has dense weights only"
            )
        if sum(isinstance(layer.synapse, Dense) for layer in path.layers) != 1:
            raise UnsupportedError(
                f"layer '{path.target}': the way from '{path.source}' needs exactly one dense layer, as Xylo has"
            )
        if any(isinstance(layer.synapse, Dense) and layer.synapse.bias is not None for layer in path.layers):
            raise UnsupportedError(f"layer '{path.target}': weights with a bias; quantise anew, Xylo's neurons hold the bias")
        if path.source == graph.output:
            raise UnsupportedError(f"layer '{path.target}': reads the output layer '{path.source}', whose spikes leave the chip")
        if path.source == INPUT and path.target == graph.output:
            raise UnsupportedError(f"layer '{path.target}': the input feeds the output layer; put a hidden layer in between")


def _add_up(paths: list[SpikePath], shape: tuple[int, int], start: Mapping[str, int]) -> tuple[Array, int]:
    """Return the weights of the ways, [source, target], and the shift that they share.

    Raises:
        UnsupportedError: weights beyond 8 bits at the smallest shift of all, or a shift to the right.
    """
    total = np.zeros(shape, np.int64)
    synapses = [(path, next(layer.synapse for layer in path.layers if isinstance(layer.synapse, Dense))) for path in paths]
    used = [synapse.weight_exponent for _, synapse in synapses if synapse.weight.any()]
    shift = min(used, default=0)
    for path, synapse in synapses:
        if not synapse.weight.any():
            continue
        row, column = start.get(path.source, 0), start.get(path.target, 0)
        outputs, inputs = synapse.weight.shape
        part = synapse.weight.astype(np.int64).T << (synapse.weight_exponent - shift)
        total[row : row + inputs, column : column + outputs] += part
    if shift < 0 or (total < -128).any() or (total > 127).any():
        name = paths[0].target
        raise UnsupportedError(
            f"layer '{name}': weights {total.min()}..{total.max()} at the shift {shift} that its kind of weights share, the chip "
            "holds -128..127 and shifts to the left; quantise the network with one shift for all hidden layers"
        )
    return total, shift


def _order_hidden(into: Array, out: Array) -> tuple[Array, int, int]:
    """Return the order of the hidden neurons, how many of the first the input reaches and how many of the last are read."""
    is_reached, is_read = into.any(axis=0), out.any(axis=1)
    both = is_reached & is_read
    groups = [is_reached & ~is_read, both, ~is_reached & is_read]
    neither = ~is_reached & ~is_read
    if both.any():  # nothing can lie between the two groups, so the untouched ones join the smaller one as an end
        ends = [neither, *groups] if groups[0].sum() <= groups[2].sum() else [*groups, neither]
    else:
        ends = [groups[0], neither, groups[2]]
    order = np.concatenate([np.flatnonzero(group) for group in ends])
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    reached = int(places[is_reached].max(initial=-1)) + 1
    read = len(order) - int(places[is_read].min(initial=len(order)))
    return order, max(reached, 1), max(read, 1)


def _gather(neurons: Mapping[str, object], sizes: Mapping[str, int], names: Iterable[str], what: str) -> Array:
    """Return a parameter of the neurons of some layers, one number each; a missing threshold is out of reach."""
    parts = []
    for name in names:
        value = getattr(neurons[name], what)
        value = np.asarray(OUT_OF_REACH if value is None else value)
        parts.append(np.broadcast_to(value, (sizes[name],)) if value.ndim <= 1 else value.reshape(-1))
    return np.concatenate([np.asarray(part, np.int64) for part in parts]) if parts else np.zeros(0, np.int64)
