"""Skips over layers of neurons, by relay channels in the layers between.

exact    a skip over a layer of neurons                 → channels of that layer that pass its spikes on, a spike for a spike
bounded  the same where neurons integrate and subtract  → up to `SPIKES` spikes of a neuron: their remainders make one more
exact    layers of weights that read the same neurons   → one layer of weights (`branches`)

A chip that works layer by layer delivers spikes to the next layer alone: one that jumps over a layer would have to wait a step
(a delay), or to meet other weights in a core that holds one layer of them. Spikes of a relay leave in the step of the graph in
which they came. Afterwards a residual block is a chain of wider layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.branches import Branch, as_full_weights, list_branches, merge_branches
from spear_deploy.adaptation.frames import keeps_potential
from spear_deploy.adaptation.kernels import join_groups, spread_taps
from spear_deploy.adaptation.readers import find_readers
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import (
    CONVS,
    IF,
    LIF,
    Array,
    Dense,
    Layer,
    Shape,
    array_parameters,
    find_max_spikes,
    find_start,
    resets_late,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, unused_name
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.util.number_format import join_names, plural

SPIKES = 64
"""Spikes of a neuron that a relay passes on without a remainder of a threshold: a weight is that part above the threshold."""
STRONG = 1.5
"""Weight of a relay over its threshold where a spike resets to 0."""
WEIGHT_SHARE = 0.5
"""Weight of a relay over the largest of its layer: few bits hold it without clipping."""


def find_skips(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield relays where a skip needs a delay that the chip lacks, or adds currents in a core of one layer of weights."""
    kernels, delay = profile.layers.kernels_into_layer.max_value, profile.weights.delay_max_steps.max_value
    delay = None if profile.timing.mode.value == "async" else delay
    if kernels is None and delay is None:
        return
    folded = fold_batchnorm(graph) if any(layer.norm is not None for layer in graph.layers) else graph
    for layer in folded.layers:
        branches = list_branches(folded, layer.name)
        adds_up = kernels is not None and len(branches) > kernels
        if len({branch.source for branch in branches}) == 1:
            if adds_up and merge_branches(folded, layer.name) is not None:
                names = [repr(branch.weights or branch.source) for branch in branches]
                yield Replacement(
                    layers=(layer.name,), what=f"currents of {join_names(names)} that add up", by="one layer of weights",
                    kind="exact", topic="skip", rewrite=partial(_merge_parallel, name=layer.name),
                )  # fmt: skip
            continue
        if not branches:
            continue
        first = min(branches, key=lambda branch: folded.depths[branch.source])
        jumped = folded.depths[layer.name] - folded.depths[first.source] - 1
        is_late = delay is not None and jumped > delay
        if (adds_up or is_late) and (step := _Relay.find(folded, layer.name, first)) is not None:
            what = f"a skip from '{first.source}' over {plural(jumped, 'layer')} of neurons"
            relays = plural(folded.shape_of(first.source)[0], "relay channel")
            yield Replacement(
                layers=(layer.name,), what=what, by=f"{relays} in '{step.between}' that pass its spikes on",
                kind="exact" if step.is_exact else "bounded", topic="skip",
                bound="" if step.is_exact else f"a neuron sends {SPIKES} spikes at most",
                rewrite=partial(_relay, name=layer.name),
            )  # fmt: skip


def _relay(graph: SNNGraph, *, name: str) -> SNNGraph:
    graph = fold_batchnorm(graph)
    first = min(list_branches(graph, name), key=lambda branch: graph.depths[branch.source])
    step = _Relay.find(graph, name, first)
    assert step is not None, "a rewrite that was offered is possible"
    return step.write(graph)


def _merge_parallel(graph: SNNGraph, *, name: str) -> SNNGraph:
    merged = merge_branches(fold_batchnorm(graph), name)
    assert merged is not None, "a rewrite that was offered is possible"
    return merged


# ------------------------------------------------------------------------------------------------------------ relays


@dataclass(frozen=True, kw_only=True)
class _Relay:
    """A skip that is taken over one layer.

    Attributes:
        target: layer that adds up currents.
        branch: the skip.
        between: layer of neurons that gets relay channels.
        widened: that layer.
        behind: weights of the skip, which read the relays.
        is_exact: whether relays pass on any number of spikes.
    """

    target: str
    branch: Branch
    between: str
    widened: Layer
    behind: Any
    is_exact: bool

    @classmethod
    def find(cls, graph: SNNGraph, target: str, branch: Branch) -> _Relay | None:
        """Return how a skip is taken over the first layer of neurons between, or None where it cannot be."""
        layer = _find_between(graph, target, branch.source)
        readers = None if layer is None else find_readers(graph, layer.name)
        if layer is None or not readers or layer.name == graph.output or not _can_relay(graph, layer, branch.source):
            return None
        if any(not isinstance(reader.synapse, (Dense, *CONVS)) or getattr(reader.synapse, "groups", 1) > 1 for reader in readers):
            return None
        shape = graph.shape_of(branch.source)
        widened, is_exact = _add_relays(graph, layer, shape[0])
        if widened is None:
            return None
        after = widened.output_shape(shape)
        passed = _read_relays(graph[branch.weights].synapse if branch.weights else None, shape, after, layer.synapse)
        if passed is None or passed.output_shape(after) != graph.input_shape_of(target):
            return None
        return cls(target=target, branch=branch, between=layer.name, widened=widened, behind=passed, is_exact=is_exact)

    def write(self, graph: SNNGraph) -> SNNGraph:
        """Return the network with the relays."""
        before, changes = graph[self.between], {self.between: self.widened}
        added = graph.shape_of(self.branch.source)[0]
        for reader in find_readers(graph, self.between) or ():
            changes[reader.name] = replace(reader, synapse=_read_more(reader.synapse, added, graph.shape_of(before.name)[0]))
        name = self.branch.weights
        edges = list(graph.edges)
        if name:
            changes[name] = replace(graph[name], synapse=self.behind)
            edges = [replace(edge, source=self.between) if edge.target == name else edge for edge in edges]
            layers = [changes.get(layer.name, layer) for layer in graph.layers]
        else:
            name = unused_name(f"{self.branch.source}_to_{self.target}", {layer.name for layer in graph.layers})
            edges = [edge for edge in edges if (edge.source, edge.target) != (self.branch.source, self.target)]
            edges += [Edge(source=self.between, target=name), Edge(source=name, target=self.target)]
            layers = [*(changes.get(layer.name, layer) for layer in graph.layers), Layer(name=name, synapse=self.behind)]
        return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _find_between(graph: SNNGraph, target: str, source: str) -> Layer | None:
    """Return the first layer of neurons behind a source on a chain of layers that leads to a target; None without a chain."""
    for branch in list_branches(graph, target):
        name = branch.source
        while name not in (INPUT, source):
            into = graph.edges_into(name)
            if len(into) != 1 or into[0].delay or not isinstance(graph[name].synapse, (Dense, *CONVS)):
                break
            if into[0].source == source:
                return graph[name]
            name = into[0].source
    return None


def _can_relay(graph: SNNGraph, layer: Layer, source: str) -> bool:
    """Return whether neurons of a layer can pass on spikes of another layer, one for one."""
    neuron: Any = layer.neuron
    most, sent = find_max_spikes(neuron), find_max_spikes(graph[source].neuron)
    if not isinstance(neuron, (IF, LIF)) or not graph[source].spikes or neuron.reset == "none":
        return False
    if most is not None and (sent is None or sent > most):
        return False
    levels = (neuron.v_reset, getattr(neuron, "v_leak", 0.0), find_start(neuron))
    return not resets_late(neuron) and not any(np.any(level) for level in levels) and bool(np.all(neuron.r > 0))


def _add_relays(graph: SNNGraph, layer: Layer, channels: int) -> tuple[Layer | None, bool]:
    """Return a layer with so many channels more, each of which passes on a channel that it reads, and whether that is exact.

    None where its weights have no place for that.
    """
    synapse: Any = layer.synapse
    synapse = spread_taps(join_groups(synapse)) if isinstance(synapse, CONVS) else synapse
    full = np.asarray(synapse.weight)
    kernel = full.shape[2:]
    padding = getattr(synapse, "padding", ())
    if channels != full.shape[1] or any(pad >= size for pad, size in zip(padding, kernel, strict=True)):
        return None, False
    largest = float(np.abs(full).max(initial=0)) or 1.0
    weight = WEIGHT_SHARE * largest
    relays = np.zeros((channels, *full.shape[1:]), full.dtype)
    number = np.arange(channels)
    own_position = (number, number) + tuple(padding)  # noqa: RUF005
    relays[own_position] = weight
    shape = graph.shape_of(layer.name)
    wide = _widen_neuron(layer.neuron, shape, channels)
    rate = np.asarray(graph.dt_s / wide.tau_s if isinstance(wide, LIF) else 1.0)
    driven = np.broadcast_to(rate * wide.r * weight, (shape[0] + channels, *shape[1:]))[shape[0] :]
    is_kept = keeps_potential(wide, graph.dt_s)
    above, is_exact = _choose_strength(wide, float(rate.min()), is_kept=is_kept)
    shift = 0.0 if is_kept else 0.5 * weight  # without memory n spikes reach n thresholds and a half
    bias = synapse.bias
    if bias is not None or shift:
        held = np.zeros(len(full), full.dtype) if bias is None else np.asarray(bias)
        bias = np.concatenate([held, np.full(channels, shift, held.dtype)])
    thresholds = np.broadcast_to(wide.v_threshold, (shape[0] + channels, *shape[1:])).copy()
    thresholds[shape[0] :] = driven / above
    flat = thresholds.reshape(len(thresholds), -1)
    if not np.ptp(flat, axis=1).any():
        thresholds = flat[:, 0].reshape(-1, *(1 for _ in shape[1:]))
    widened = replace(synapse, weight=np.concatenate([full, relays]), bias=bias)
    return replace(layer, synapse=widened, neuron=replace(wide, v_threshold=thresholds)), is_exact


def _choose_strength(neuron: Any, rate: float, *, is_kept: bool) -> tuple[float, bool]:
    """Return a relay's weight over its threshold, and whether it passes on any number of spikes.

    Args:
        neuron: IF or LIF.
        rate: share of v that it loses a step, of LIF.
        is_kept: whether it has a potential over steps.
    """
    most = find_max_spikes(neuron)
    if not is_kept:
        return 1.0, True
    if neuron.reset == "value":
        return (STRONG, True) if most == 1 else (1 + 1 / SPIKES, most is not None and most < SPIKES)
    return 1 + 1 / SPIKES, most == 1 and isinstance(neuron, LIF) and rate > 1 / SPIKES


def _widen_neuron(neuron: Any, shape: Shape, channels: int) -> Any:
    """Return a neuron whose parameters per channel or position have those of the first channel for so many more."""
    changes: dict[str, Array] = {}
    for name, value in array_parameters(neuron).items():
        if value.ndim == len(shape) and value.shape[0] == shape[0] and shape[0] > 1:
            changes[name] = np.concatenate([value, np.repeat(value[:1], channels, axis=0)])
        elif value.ndim == len(shape) and shape[0] == 1:
            changes[name] = np.repeat(value, 1 + channels, axis=0)
    return replace(neuron, **changes) if changes else neuron


def _read_relays(skip: Any, before: Shape, after: Shape, between: Any) -> Any:
    """Return the weights of a skip that read the relays behind channels of their layer, or None where these lack positions.

    Args:
        skip: weights that read the source, or None for spikes that are added as they are.
        before: shape of the source.
        after: shape of the layer with relays, which are its last channels.
        between: weights of that layer before.
    """
    own, channels = after[0] - before[0], before[0]
    strides = getattr(between, "stride", ())
    if any(size != -(-old // step) for size, old, step in zip(after[1:], before[1:], strides, strict=True)):
        return None
    synapse: Any = as_full_weights(skip, before)
    if synapse is None:
        return None
    if isinstance(synapse, CONVS):
        if max(strides) > 1 and (max(synapse.weight.shape[2:]) > 1 or any(synapse.padding)):
            return None
        if any(step % wide for step, wide in zip(synapse.stride, strides, strict=True)):
            return None
        left: Any = tuple(step // wide for step, wide in zip(synapse.stride, strides, strict=True))
        synapse = replace(synapse, stride=left)
    elif len(after) > 1:
        return None
    full = np.asarray(synapse.weight)
    zeros = np.zeros((len(full), own, *full.shape[2:]), full.dtype)
    assert full.shape[1] == channels
    return replace(synapse, weight=np.concatenate([zeros, full], axis=1))


def _read_more(synapse: Any, added: int, channels: int) -> Any:
    """Return weights that read so many channels more, with zeros."""
    full = np.asarray(synapse.weight)
    count = added if isinstance(synapse, CONVS) else added * (full.shape[1] // channels)
    zeros = np.zeros((len(full), count, *full.shape[2:]), full.dtype)
    return replace(synapse, weight=np.concatenate([full, zeros], axis=1))
