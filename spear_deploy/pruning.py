"""What is left after removal? Coupled groups of channels, plans, and pure slicing.

Channels that must go together (both sides of a residual sum, a depthwise convolution, the loop of a recurrent layer, a
flatten and the dense layer behind it, per-channel neuron parameters) form one group. A plan says which channels of each
group stay; `prune` slices them out. Nothing is masked: the pruned network is smaller, and its spikes are those of the
network in which the removed neurons are silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError, did_you_mean
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import CONVS, Array, BatchNorm, Dense, Flatten, Layer, Scale, Shape, parameters
from spear_deploy.simulator import SpikeCounts

Criterion: TypeAlias = Literal["l1", "bn_scale", "rate", "index"]
CRITERIA: tuple[Criterion, ...] = ("l1", "bn_scale", "rate", "index")


@dataclass(frozen=True, kw_only=True)
class Group:
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


@dataclass(frozen=True)
class _Stream:
    """What flows along an edge: which channel space, and how many consecutive elements of axis 0 one channel takes."""

    space: int
    per: int


class _Spaces:
    """Channel spaces, joined as the layers couple them (union-find)."""

    def __init__(self, graph: SNNGraph) -> None:
        self.graph = graph
        self.parent: list[int] = []
        self.size: list[int] = []
        self.frozen: dict[int, str] = {}
        self.into: dict[str, _Stream] = {}
        self.out: dict[str, _Stream] = {INPUT: self._new(graph.input_shape[0])}
        self.frozen[self.out[INPUT].space] = "it is the network's input"
        self._walk()
        self._freeze(self.out[graph.output], "it is the network's output")

    def _new(self, size: int) -> _Stream:
        self.parent.append(len(self.parent))
        self.size.append(size)
        return _Stream(len(self.parent) - 1, 1)

    def find(self, space: int) -> int:
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def _freeze(self, stream: _Stream, why: str) -> None:
        self.frozen.setdefault(self.find(stream.space), why)

    def _join(self, a: _Stream, b: _Stream, where: str) -> None:
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

    def _walk(self) -> None:
        """Follow the layers from the input; edges from layers not yet seen (over a delay) are joined when they are."""
        pending = list(self.graph.layers)
        while pending:
            layer = next(p for p in pending if any(e.source in self.out for e in self.graph.incoming(p.name)))
            pending.remove(layer)
            sources = [e.source for e in self.graph.incoming(layer.name) if e.source in self.out]
            self.into[layer.name] = self.out[sources[0]]
            for source in sources[1:]:
                self._join(self.out[sources[0]], self.out[source], layer.name)
            self.out[layer.name] = self._through(layer, self.into[layer.name])
            for edge in self.graph.outgoing(layer.name):
                if edge.target in self.into:
                    self._join(self.into[edge.target], self.out[layer.name], edge.target)

    def _through(self, layer: Layer, stream: _Stream) -> _Stream:
        synapse = layer.synapse
        if isinstance(synapse, Dense):
            return self._new(synapse.weight.shape[0])
        if isinstance(synapse, CONVS):
            if synapse.groups == 1:
                return self._new(synapse.weight.shape[0])
            out = self._new(synapse.weight.shape[0])
            if _is_depthwise(synapse):
                self._join(stream, out, layer.name)
            else:
                why = f"layer '{layer.name}' is a convolution in {synapse.groups} groups"
                self._freeze(stream, why)
                self._freeze(out, why)
            return out
        if isinstance(synapse, Flatten):
            return _Stream(stream.space, stream.per * int(np.prod(self.graph.input_shape_of(layer.name)[1:])))
        return stream


def all_groups(graph: SNNGraph) -> tuple[Group, ...]:
    """Return every group of coupled channels, those that cannot be pruned included, in the order of the layers."""
    spaces = _Spaces(graph)
    producers: dict[int, list[str]] = {}
    consumers: dict[int, list[str]] = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, (Dense, *CONVS)):
            producers.setdefault(spaces.find(spaces.out[layer.name].space), []).append(layer.name)
            consumers.setdefault(spaces.find(spaces.into[layer.name].space), []).append(layer.name)
    return tuple(
        Group(
            name=names[0],
            channels=spaces.size[space],
            producers=tuple(names),
            consumers=tuple(consumers.get(space, ())),
            frozen=spaces.frozen.get(space, ""),
        )
        for space, names in producers.items()
    )


def coupled_groups(graph: SNNGraph) -> tuple[Group, ...]:
    """Return the groups that may be pruned, in the order of the layers."""
    return tuple(group for group in all_groups(graph) if not group.frozen)


def importance(graph: SNNGraph, group: Group, criterion: Criterion = "l1", counts: SpikeCounts | None = None) -> Array:
    """Score each channel of a group; more is more worth keeping.

    "l1": sum of |weight| over everything that makes the channel, batch norm's scale included;
    "bn_scale": |weight| of its batch norms; "rate": spikes that it sends (needs `counts`); "index": the first are best.

    Returns:
        (channels,) float64.
    """
    score = np.zeros(group.channels)
    if criterion == "index":
        return -np.arange(group.channels, dtype=np.float64)
    spaces = _Spaces(graph)
    space = spaces.find(spaces.out[group.name].space)
    for layer in graph.layers:
        if spaces.find(spaces.out[layer.name].space) != space:
            continue
        if criterion == "rate":
            if counts is None:
                raise GraphError("importance 'rate' needs spike counts; run the network on data first")
            if layer.spikes:
                score += counts.sent[layer.name].reshape(group.channels, -1).sum(axis=1)
        elif criterion == "bn_scale" and layer.norm is not None:
            score += np.abs(layer.norm.weight)
        elif criterion == "l1" and layer.name in group.producers:
            score += _l1(graph, layer)
    return score


def _l1(graph: SNNGraph, layer: Layer) -> Array:
    assert isinstance(layer.synapse, (Dense, *CONVS))
    rows: Array = np.abs(layer.synapse.weight.astype(np.float64)).reshape(len(layer.synapse.weight), -1).sum(axis=1)
    norm = layer.norm or next((graph[e.target].norm for e in graph.outgoing(layer.name) if graph[e.target].synapse is None), None)
    return rows if norm is None else rows * np.abs(norm.weight) / np.sqrt(norm.var + norm.eps)


def plan_by_importance(
    graph: SNNGraph,
    widths: Mapping[str, int],
    criterion: Criterion = "l1",
    counts: SpikeCounts | None = None,
) -> PruningPlan:
    """Keep the `widths[group]` most important channels of each group (at least one, at most all)."""
    kept = {}
    for group in coupled_groups(graph):
        if group.name in widths:
            width = min(max(int(widths[group.name]), 1), group.channels)
            order = np.argsort(-importance(graph, group, criterion, counts), kind="stable")
            kept[group.name] = tuple(int(k) for k in order[:width])
    return PruningPlan(kept=kept)


def prune(graph: SNNGraph, plan: PruningPlan) -> SNNGraph:
    """Return the network with only the planned channels. The given network is untouched.

    The channels that are left, numbered as in the first network of the line, are in `metadata["kept_channels"]`.

    Raises:
        GraphError: the plan names an unknown group or channel, or leaves none.
        UnsupportedError: the plan names a group that cannot be pruned.
    """
    spaces = _Spaces(graph)
    keep: dict[int, Array] = {}
    groups = {group.name: group for group in all_groups(graph)}
    for name, channels in plan.kept.items():
        keep[spaces.find(_checked(groups, name, channels, spaces))] = np.array(channels)

    def taken(stream: _Stream, elements: int = 1) -> Array | None:
        kept = keep.get(spaces.find(stream.space))
        if kept is None:
            return None
        per = stream.per * elements
        return (kept[:, None] * per + np.arange(per)).ravel()

    def sliced(layer: Layer) -> Layer:
        into, out = spaces.into[layer.name], spaces.out[layer.name]
        inner = int(np.prod(graph.input_shape_of(layer.name)[1:])) if isinstance(layer.synapse, Dense) else 1
        shape = graph.shape_of(layer.name)
        return replace(
            layer,
            synapse=_sliced_synapse(layer.synapse, taken(into, inner), taken(out), graph.input_shape_of(layer.name)),
            norm=_sliced_norm(layer.norm, taken(out)),
            neuron=_sliced_parameters(layer.neuron, taken(out), shape),
        )

    metadata = {**graph.metadata, "kept_channels": _lineage(graph, groups, plan)}
    return graph.with_layers(sliced, metadata=metadata)


def _checked(groups: Mapping[str, Group], name: str, channels: tuple[int, ...], spaces: _Spaces) -> int:
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


def _lineage(graph: SNNGraph, groups: Mapping[str, Group], plan: PruningPlan) -> dict[str, list[int]]:
    before: Mapping[str, list[int]] = graph.metadata.get("kept_channels", {})
    after = {name: list(channels) for name, channels in before.items()}
    for name, channels in plan.kept.items():
        earlier = before.get(name, range(groups[name].channels))
        after[name] = [int(earlier[k]) for k in channels]
    return after


def _sliced_synapse(synapse: Any, into: Array | None, out: Array | None, input_shape: Shape) -> Any:
    if isinstance(synapse, Scale):
        pick: dict[str, Any] = {name: _picked(getattr(synapse, name), into, input_shape) for name in ("weight", "bias")}
        return replace(synapse, **pick)
    if not isinstance(synapse, (Dense, *CONVS)):
        return synapse
    weight, bias = synapse.weight, synapse.bias
    if out is not None:
        weight, bias = weight[out], None if bias is None else bias[out]
    if isinstance(synapse, CONVS) and _is_depthwise(synapse):
        return replace(synapse, weight=weight, bias=bias, groups=len(weight))
    if into is not None:
        weight = weight[:, into]
    return replace(synapse, weight=weight, bias=bias)


def _sliced_norm(norm: BatchNorm | None, out: Array | None) -> BatchNorm | None:
    if norm is None or out is None:
        return norm
    return replace(norm, weight=norm.weight[out], bias=norm.bias[out], mean=norm.mean[out], var=norm.var[out])


def _sliced_parameters(neuron: Any, out: Array | None, shape: Shape) -> Any:
    if neuron is None or out is None:
        return neuron
    return replace(neuron, **{name: _picked(value, out, shape) for name, value in parameters(neuron).items()})


def _picked(value: Array | None, indices: Array | None, shape: Shape) -> Array | None:
    """Slice axis 0 of what spreads over `shape`, where it is not the same for all channels anyway."""
    if value is None or indices is None or value.ndim < len(shape) or value.shape[0] == 1:
        return value
    return value[indices]


def _is_depthwise(conv: Any) -> bool:
    return bool(conv.weight.shape[1] == 1 and conv.weight.shape[0] == conv.groups)
