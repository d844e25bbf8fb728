"""Pruning plans, and slicing a network to its plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError, did_you_mean
from spear_deploy.network import (
    CONVS,
    Array,
    Dense,
    Layer,
    Scale,
    Shape,
    SparseMatrix,
    array_parameters,
    make_sparse,
    write_out,
)
from spear_deploy.network.channel_groups import ChannelGroup, Spaces, Stream, is_depthwise, list_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout, join_readout, split_readout


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """The channels that stay, by group name; a group that is not named stays whole."""

    kept: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        kept = {name: tuple(sorted(int(k) for k in channels)) for name, channels in self.kept.items()}
        object.__setattr__(self, "kept", MappingProxyType(kept))

    def widths(self) -> dict[str, int]:
        """Return the number of channels that stay by group."""
        return {name: len(channels) for name, channels in self.kept.items()}

    def to_json(self) -> dict[str, list[int]]:
        """Return the plan as plain data."""
        return {name: list(channels) for name, channels in self.kept.items()}


def prune(graph: SNNGraph, plan: PruningPlan) -> SNNGraph:
    """Return the network with only the planned channels. The argument is not changed.

    `metadata["kept_channels"]` holds the channels that are left, numbered as in the network before any pruning.

    Raises:
        GraphError: the plan names an unknown group or channel, or leaves none.
        UnsupportedError: the plan names a group that cannot be pruned.
    """
    if has_host_readout(graph):  # whose weights follow the channels
        return split_readout(prune(join_readout(graph), plan))
    spaces = Spaces(graph)
    keep: dict[int, Array] = {}
    groups = {group.name: group for group in list_groups(graph)}
    for name, channels in plan.kept.items():
        keep[spaces.find(_check_channels(groups, name, channels, spaces))] = np.array(channels)

    def kept_indices(stream: Stream, elements: int = 1) -> Array | None:
        kept = keep.get(spaces.find(stream.space))
        if kept is None:
            return None
        per = stream.per * elements
        return (kept[:, None] * per + np.arange(per)).ravel()

    def slice_layer(layer: Layer) -> Layer:
        into, out = spaces.into[layer.name], kept_indices(spaces.out[layer.name])
        inner = int(np.prod(graph.input_shape_of(layer.name)[1:])) if isinstance(layer.synapse, Dense) else 1
        synapse = _slice_synapse(layer.synapse, kept_indices(into, inner), out, graph.input_shape_of(layer.name))
        if out is None:
            return replace(layer, synapse=synapse)
        norm, neuron, shape = layer.norm, layer.neuron, graph.shape_of(layer.name)
        if norm is not None:
            norm = replace(norm, **{name: getattr(norm, name)[out] for name in ("weight", "bias", "mean", "var")})
        if neuron is not None:
            arrays: dict[str, Any] = {name: _slice_array(value, out, shape) for name, value in array_parameters(neuron).items()}
            neuron = replace(neuron, **arrays)
        return replace(layer, synapse=synapse, norm=norm, neuron=neuron)

    metadata = {**graph.metadata, "kept_channels": _number_kept_channels(graph, groups, plan)}
    return graph.with_layers(slice_layer, metadata=metadata)


LEARNT = ("weight", "bias", "mean", "var")
"""Arrays of synapses and batch norms that learning changes."""


def restore_channels(graph: SNNGraph, plan: PruningPlan, learnt: SNNGraph) -> SNNGraph:
    """Return a network with the values that its pruned form has learnt; what the plan removed keeps its values.

    Args:
        graph: before pruning.
        plan: of the pruning.
        learnt: `prune(graph, plan)`, with other weights, biases and batch norms.

    >>> from spear_deploy.network import IF
    >>> from spear_deploy.network.graph import chain
    >>> layers = [Layer(name=name, synapse=Dense(weight=np.ones((2, 2))), neuron=n) for name, n in (("a", IF()), ("b", IF()))]
    >>> net, plan = chain(layers, input_shape=(2,)), PruningPlan(kept={"a": (1,)})
    >>> twice = prune(net, plan).with_layers(lambda x: replace(x, synapse=Dense(weight=2 * x.synapse.weight)))
    >>> [layer.synapse.weight.tolist() for layer in restore_channels(net, plan, twice).layers]
    [[[1.0, 1.0], [2.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]]]
    """
    if has_host_readout(graph):
        return split_readout(restore_channels(join_readout(graph), plan, join_readout(learnt)))

    def number(part: str, name: str, values: Array) -> Array:
        return np.arange(values.size).reshape(values.shape)

    numbered = prune(graph.with_layers(lambda layer: _map_learnt(layer, number)), plan)

    def restore_layer(layer: Layer) -> Layer:
        def write(part: str, name: str, before: Array) -> Array:
            values = write_out(before).copy()
            where = write_out(getattr(getattr(numbered[layer.name], part), name)).astype(np.int64)
            values.ravel()[where] = write_out(getattr(getattr(learnt[layer.name], part), name))
            return make_sparse(values) if isinstance(before, SparseMatrix) else values

        return _map_learnt(layer, write)

    return graph.with_layers(restore_layer)


def _map_learnt(layer: Layer, change: Callable[[str, str, Array], Array]) -> Layer:
    """Return a layer with its learnt arrays changed, by part (synapse, norm) and name."""
    parts: dict[str, Any] = {}
    for part in ("synapse", "norm"):
        held = getattr(layer, part)
        arrays = {name: getattr(held, name, None) for name in LEARNT}
        changed = {name: change(part, name, array) for name, array in arrays.items() if array is not None}
        if changed:
            parts[part] = replace(held, **changed)
    return replace(layer, **parts)


def _check_channels(groups: Mapping[str, ChannelGroup], name: str, channels: tuple[int, ...], spaces: Spaces) -> int:
    """Return the channel space of a group, after checking its channels."""
    if name not in groups:
        raise GraphError(f"pruning plan: there is no group '{name}'{did_you_mean(name, groups)}")
    group = groups[name]
    if not channels:
        raise GraphError(f"pruning plan, group '{name}': no channel would be left; keep at least 1 of {group.channels}")
    if channels[0] < 0 or channels[-1] >= group.channels or len(set(channels)) != len(channels):
        raise GraphError(
            f"pruning plan, group '{name}': channels {channels[0]}..{channels[-1]}, expected distinct 0..{group.channels - 1}"
        )
    if group.frozen and len(channels) < group.channels:
        raise UnsupportedError(f"pruning plan, group '{name}': cannot be pruned, since {group.frozen}")
    return spaces.out[name].space


def _number_kept_channels(graph: SNNGraph, groups: Mapping[str, ChannelGroup], plan: PruningPlan) -> dict[str, list[int]]:
    before: Mapping[str, list[int]] = graph.metadata.get("kept_channels", {})
    after = {name: list(channels) for name, channels in before.items()}
    for name, channels in plan.kept.items():
        earlier = before.get(name, range(groups[name].channels))
        after[name] = [int(earlier[k]) for k in channels]
    return after


def _slice_synapse(synapse: Any, into: Array | None, out: Array | None, input_shape: Shape) -> Any:
    if isinstance(synapse, Scale):
        arrays: dict[str, Any] = {name: _slice_array(getattr(synapse, name), into, input_shape) for name in ("weight", "bias")}
        return replace(synapse, **arrays)
    if not isinstance(synapse, (Dense, *CONVS)):
        return synapse
    weight, bias = synapse.weight, synapse.bias
    if out is not None:
        weight, bias = weight[out], None if bias is None else bias[out]
    if isinstance(synapse, CONVS) and is_depthwise(synapse):
        return replace(synapse, weight=weight, bias=bias, groups=len(weight))
    if into is not None:
        weight = weight[:, into]
    return replace(synapse, weight=weight, bias=bias)


def _slice_array(value: Array | None, indices: Array | None, shape: Shape) -> Array | None:
    """Slice axis 0 of an array with the axes of `shape`, unless it holds one value for all channels."""
    if value is None or indices is None or value.ndim < len(shape) or value.shape[0] == 1:
        return value
    return value[indices]
