"""Groups of coupled channels, and the layers that make and read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import CONVS, Dense, Flatten, Layer
from spear_deploy.network.fixed_weights import list_fixed_layers
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.host_readout import has_host_readout, join_readout, list_host_layers

OUTPUT_STAYS = "it is the network's output"


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that are removed together.

    Attributes:
        name: the first layer whose weights make these channels.
        channels: how many there are.
        producers: layers whose output weights are sliced.
        consumers: layers whose input weights are sliced.
        frozen: why they cannot be removed, or "".
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    frozen: str = ""


@dataclass(frozen=True, kw_only=True)
class ChannelCoupling:
    """The channel groups of a network, and those of each layer's input and output.

    Attributes:
        groups: all groups that weights make, in the order of the layers, those that cannot be pruned included.
        edge: the group of the network's input channels; its `frozen` is empty where all layers tied to the input could be
            narrowed with it, though only the user can make the input narrower.
        into, out: names of groups by layer; `out` also has the network's input. "" where no weights make the channels.
    """

    groups: tuple[ChannelGroup, ...]
    edge: ChannelGroup
    into: Mapping[str, str]
    out: Mapping[str, str]

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups that may be pruned."""
        return tuple(group for group in self.groups if not group.frozen)


@dataclass(frozen=True)
class Stream:
    """The channels on an edge: their space, and the number of consecutive elements of axis 0 that a channel takes."""

    space: int
    per: int


class Spaces:
    """Channel spaces, joined as the layers couple them (union-find)."""

    def __init__(self, graph: SNNGraph) -> None:
        self.graph = graph
        self.parent: list[int] = []
        self.size: list[int] = []
        self.frozen: dict[int, str] = {}
        self.into: dict[str, Stream] = {}
        self.out: dict[str, Stream] = {INPUT: self._new(graph.input_shape[0])}
        self._follow_layers()
        self._freeze(self.out[graph.output], OUTPUT_STAYS)
        for name in list_fixed_layers(graph):
            for stream in (self.into[name], self.out[name]):
                self._freeze(stream, f"layer '{name}' has fixed weights, which go back into the model as they are")
        self.input_frozen = self.frozen.get(self.find(self.out[INPUT].space), "")
        self._freeze(self.out[INPUT], "its channels are tied to those of the network's input")

    def _new(self, size: int) -> Stream:
        self.parent.append(len(self.parent))
        self.size.append(size)
        return Stream(len(self.parent) - 1, 1)

    def find(self, space: int) -> int:
        """Return the space that a space was joined to."""
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def _freeze(self, stream: Stream, why: str) -> None:
        self.frozen.setdefault(self.find(stream.space), why)

    def _join(self, a: Stream, b: Stream, where: str) -> None:
        x, y = self.find(a.space), self.find(b.space)
        if x == y:
            return
        if self.size[x] != self.size[y] or a.per != b.per:
            for stream in (a, b):
                self._freeze(stream, f"layer '{where}' adds values whose channels do not line up")
            return
        self.parent[max(x, y)] = min(x, y)
        if max(x, y) in self.frozen:
            self.frozen.setdefault(min(x, y), self.frozen.pop(max(x, y)))

    def _follow_layers(self) -> None:
        """Follow the layers from the input; edges from layers not yet seen (over a delay) are joined when those are reached."""
        pending = list(self.graph.layers)
        while pending:
            layer = next(layer for layer in pending if any(edge.source in self.out for edge in self.graph.edges_into(layer.name)))
            pending.remove(layer)
            sources = [edge.source for edge in self.graph.edges_into(layer.name) if edge.source in self.out]
            self.into[layer.name] = self.out[sources[0]]
            for source in sources[1:]:
                self._join(self.out[sources[0]], self.out[source], layer.name)
            self.out[layer.name] = self._pass_layer(layer, self.into[layer.name])
            for edge in self.graph.edges_from(layer.name):
                if edge.target in self.into:
                    self._join(self.into[edge.target], self.out[layer.name], edge.target)

    def _pass_layer(self, layer: Layer, stream: Stream) -> Stream:
        synapse = layer.synapse
        if isinstance(synapse, Dense):
            return self._new(synapse.weight.shape[0])
        if isinstance(synapse, CONVS):
            if synapse.groups == 1:
                return self._new(synapse.weight.shape[0])
            out = self._new(synapse.weight.shape[0])
            if is_depthwise(synapse):
                self._join(stream, out, layer.name)
            else:
                why = f"layer '{layer.name}' is a convolution in {synapse.groups} groups"
                self._freeze(stream, why)
                self._freeze(out, why)
            return out
        if isinstance(synapse, Flatten):
            return Stream(stream.space, stream.per * int(np.prod(self.graph.input_shape_of(layer.name)[1:])))
        return stream


def couple_channels(graph: SNNGraph) -> ChannelCoupling:
    """Return every channel group of a network, and the groups at the input and output of each layer.

    Channels that the host reads may be removed as those between layers: its weights follow (`pruning.plan.prune`).
    """
    if graph.is_integer and has_host_readout(graph):  # the host's neurons hold real numbers
        graph = graph.with_layers(lambda layer: replace(layer, neuron=None))
    joined = join_readout(graph)
    on_host, spaces = list_host_layers(joined), Spaces(joined)
    producers: dict[int, list[str]] = {}
    consumers: dict[int, list[str]] = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, (Dense, *CONVS)):
            producers.setdefault(spaces.find(spaces.out[layer.name].space), []).append(layer.name)
            consumers.setdefault(spaces.find(spaces.into[layer.name].space), []).append(layer.name)
    names = {space: layers[0] for space, layers in producers.items()}
    first = spaces.find(spaces.out[INPUT].space)
    names.setdefault(first, INPUT)

    def make_group(space: int, frozen: str) -> ChannelGroup:
        writers, readers = tuple(producers.get(space, ())), tuple(consumers.get(space, ()))
        if frozen == OUTPUT_STAYS and len(writers) > 1 and writers[0] != graph.output:
            frozen = f"its channels are tied to those of the network's output, '{graph.output}'"
        return ChannelGroup(name=names[space], channels=spaces.size[space], producers=writers, consumers=readers, frozen=frozen)

    def name_spaces(streams: Mapping[str, Stream]) -> dict[str, str]:
        on_chip = (item for item in streams.items() if item[0] not in on_host)
        return {layer: names.get(spaces.find(stream.space), "") for layer, stream in on_chip}

    return ChannelCoupling(
        groups=tuple(make_group(space, spaces.frozen.get(space, "")) for space in producers),
        edge=make_group(first, spaces.input_frozen),
        into=name_spaces(spaces.into),
        out=name_spaces(spaces.out),
    )


def list_groups(graph: SNNGraph) -> tuple[ChannelGroup, ...]:
    """Return every group of coupled channels, those that cannot be pruned included, in the order of the layers."""
    return couple_channels(graph).groups


def list_prunable_groups(graph: SNNGraph) -> tuple[ChannelGroup, ...]:
    """Return the groups that may be pruned, in the order of the layers."""
    return couple_channels(graph).prunable


def is_depthwise(conv: Any) -> bool:
    """Return whether each channel of a convolution sees its own input channel alone."""
    return bool(conv.weight.shape[1] == 1 and conv.weight.shape[0] == conv.groups)
