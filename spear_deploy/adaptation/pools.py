"""Pools by folded weights or by strides of convolutions.

exact    mean over a window   → sum, its factor in the weights behind it
         pool, then weights   → one kernel (or matrix), strides multiplied
         pool of a neuron     → a convolution of ones
learnt   convolution, pool    → the mean of currents in place of that of spikes: one kernel with the pool's stride in front
         convolution, pool    → the convolution takes the pool's stride: fewer neurons in front
         pool, convolution    → the convolution behind takes it: the neurons stay
         pool                 → where none of these is possible, neurons of its own, which send a spike for each mean of one
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from spear_deploy.adaptation.kernels import fit_kernel
from spear_deploy.adaptation.readers import find_readers
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.budget.geometry import check_geometry
from spear_deploy.budget.pools import check_pools
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import (
    CONVS,
    IF,
    POOLS,
    WEIGHTED,
    AvgPool,
    Conv1d,
    Conv2d,
    Layer,
    SumPool,
    find_max_spikes,
    has_positions,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.host_readout import change_joined, has_host_readout, join_readout, list_host_layers
from spear_deploy.quantize.fuse_weights import compose_synapses, emits_current, find_chained_weights, fuse_weights
from spear_deploy.util.number_format import format_shape

FOLD, CURRENTS, BEFORE, BEHIND = "folded", "mean of currents", "stride before", "stride behind"
NEURONS = "neurons of its own"


def find_pools(graph: SNNGraph, profile: HardwareProfile, *, all_pools: bool = False) -> Iterator[Replacement]:
    """Yield what stands in for each pool that the chip lacks, the exact one first.

    Args:
        graph: the network.
        profile: the chip.
        all_pools: also yield strides for pools that the chip has or the host forms, where fewer neurons are the aim.
    """
    if all_pools and has_host_readout(graph):
        yield from _find_strides_on_host(graph, profile)
    lacking = {name for name, *_ in check_pools(graph, profile)}
    kinds = profile.layers.kinds.value
    for layer in graph.layers:
        if not isinstance(layer.synapse, POOLS):
            continue
        lacks = layer.name in lacking or (kinds is not None and type(layer.synapse).__name__ not in kinds)
        offers = list(_find_exact(graph, layer, profile)) if lacks else []
        if lacks or all_pools:
            offers += _find_strides(graph, layer, profile)
        yield from offers or (_find_neurons(graph, layer, profile) if lacks else ())


def _find_exact(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Replacement]:
    pool: Any = layer.synapse
    what = f"{type(pool).__name__} of {format_shape(pool.kernel_size)}"
    kinds = profile.layers.kinds.value or ()
    is_kind_only = "SumPool" in kinds and isinstance(pool, AvgPool) and "AvgPool" not in kinds
    summed = _sum_instead(graph, layer) if is_kind_only else None
    if summed is not None and layer.name not in {name for name, *_ in check_pools(summed, profile)}:
        by = "SumPool, its factor in the weights behind it"
        yield Replacement(
            layers=(layer.name,), what=what, by=by, kind="exact", topic="pool", option=FOLD,
            rewrite=lambda g: _required(_sum_instead(g, g[layer.name])),
        )  # fmt: skip
        return
    if _fold(graph, layer, profile) is not None:
        yield Replacement(
            layers=(layer.name,), what=what, by="the weights behind it" if layer.neuron is None else "a convolution of ones",
            kind="exact", topic="pool", option=FOLD, rewrite=lambda g: _required(_fold(g, g[layer.name], profile)),
        )  # fmt: skip


def _find_neurons(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield neurons of its own in place of a pool that the chip has in no other way."""
    pool: Any = layer.synapse
    if _pass_means_on(graph, layer.name, profile) is not None:
        yield Replacement(
            layers=(layer.name,), what=f"{type(pool).__name__} of {format_shape(pool.kernel_size)}",
            by="a convolution with neurons of its own, which send a spike for each mean of one", kind="learnt", topic="pool",
            option=NEURONS, rewrite=lambda g: _required(_pass_means_on(g, layer.name, profile)),
        )  # fmt: skip


def _find_strides(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Replacement]:
    pool: Any = layer.synapse
    what = f"{type(pool).__name__} of {format_shape(pool.kernel_size)}"
    moves: tuple[tuple[str, Callable[..., Any]], ...] = (
        (CURRENTS, partial(pool_currents, profile=profile)), (BEFORE, stride_before), (BEHIND, stride_behind),
    )  # fmt: skip
    for option, move in moves:
        moved = move(graph, layer.name)
        if moved is None:
            continue
        changed, graph_after = moved
        shapes = graph_after.input_shape_of(changed), graph_after.shape_of(changed)
        is_written_out = type(graph_after[changed].synapse).__name__ not in (profile.layers.kinds.value or ())
        strided: Any = graph_after[changed].synapse
        by = f"a stride of {format_shape(strided.stride)} of '{changed}'"
        if option == CURRENTS:
            by = f"a mean of currents, in a kernel of {format_shape(strided.weight.shape[2:])} of '{changed}'"
        if is_written_out or not any(check_geometry(graph_after[changed], *shapes, profile)):
            yield Replacement(
                layers=(layer.name,), what=what, by=by, kind="learnt",
                topic="pool", option=option, rewrite=partial(_move_stride, name=layer.name, move=move),
            )  # fmt: skip


def _find_strides_on_host(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield strides in place of pools that the host forms: fewer neurons in front of them, whose spikes leave the chip."""
    joined = join_readout(graph)
    for name in list_host_layers(joined):
        if isinstance(joined[name].synapse, POOLS):
            for offer in _find_strides(joined, joined[name], profile):
                yield replace(offer, rewrite=change_joined(offer.rewrite))


def _move_stride(graph: SNNGraph, *, name: str, move: Callable[..., Any]) -> SNNGraph:
    changed: SNNGraph = _required(move(graph, name))[1]
    return changed


# ------------------------------------------------------------------------------------------------------------ exact


def _sum_instead(graph: SNNGraph, layer: Layer) -> SNNGraph | None:
    """Return the network with a sum in place of a mean, whose factor the weights behind it take; None where they cannot."""
    pool: Any = layer.synapse
    if layer.neuron is not None or layer.norm is not None or layer.name == graph.output:
        return None
    readers = find_readers(graph, layer.name)
    if not readers:
        return None
    factor = 1 / float(np.prod(pool.kernel_size))
    summed = SumPool(kernel_size=pool.kernel_size, stride=pool.stride, padding=pool.padding)
    changes = {layer.name: replace(layer, synapse=summed)}
    for reader in readers:
        synapse: Any = reader.synapse
        changes[reader.name] = replace(reader, synapse=replace(synapse, weight=synapse.weight * factor))
    return graph.with_layers(changes)


def _fold(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> SNNGraph | None:
    """Return the network with a pool multiplied into the weights behind it, where the chip has the result; else None."""
    if layer.neuron is not None or layer.norm is not None:
        return _replace_by_ones(graph, layer, profile)
    out = graph.edges_from(layer.name)
    if not out or layer.name == graph.output:
        return None
    before = graph.input_shape_of(layer.name)
    changes: dict[str, Layer] = {}
    for edge in out:
        reader = graph[edge.target]
        if not isinstance(reader.synapse, WEIGHTED) or len(graph.edges_into(reader.name)) > 1:
            return None
        fused: Any = compose_synapses(layer.synapse, reader.synapse, before)
        if isinstance(fused, CONVS):
            fused = fit_kernel(fused, before, graph.shape_of(reader.name), profile)
        if fused is None or fused.output_shape(before) != reader.synapse.output_shape(graph.shape_of(layer.name)):
            return None
        changes[reader.name] = replace(reader, synapse=fused)
        if any(check_geometry(changes[reader.name], before, graph.shape_of(reader.name), profile)):
            return None
    return _bypass(graph, layer.name, changes)


def _bypass(graph: SNNGraph, name: str, changes: dict[str, Layer]) -> SNNGraph:
    """Return the network without a layer: what feeds it feeds its readers, which are exchanged."""
    layers = tuple(changes.get(layer.name, layer) for layer in graph.layers if layer.name != name)
    edges = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    edges += [
        Edge(source=a.source, target=b.target, delay=a.delay + b.delay)
        for a in graph.edges_into(name)
        for b in graph.edges_from(name)
    ]
    return replace(graph, layers=layers, edges=tuple(edges))


def _replace_by_ones(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> SNNGraph | None:
    """Return the network with a convolution of ones (or of the mean's factor) in place of a pool that feeds its own neurons."""
    pool: Any = layer.synapse
    before, after = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
    value = 1 / float(np.prod(pool.kernel_size)) if isinstance(pool, AvgPool) else 1.0
    kind: Any = Conv1d if len(pool.kernel_size) == 1 else Conv2d
    channels = before[0]
    ones = kind(
        weight=np.full((channels, 1, *pool.kernel_size), value), stride=pool.stride, padding=pool.padding, groups=channels
    )
    if any(emits_current(graph, edge.source) for edge in graph.edges_into(layer.name)):  # one kernel with the weights before
        graph = fuse_weights(graph.with_layers({layer.name: replace(layer, synapse=ones)}))
        if any(edge.target == layer.name for edge in find_chained_weights(graph)) or not isinstance(
            graph[layer.name].synapse, CONVS
        ):
            return None
        layer, ones, before = graph[layer.name], graph[layer.name].synapse, graph.input_shape_of(layer.name)
    fitted = fit_kernel(ones, before, after, profile)
    return None if fitted is None else graph.with_layers({layer.name: replace(layer, synapse=fitted)})


# ----------------------------------------------------------------------------------------------------------- learnt


def _pass_means_on(graph: SNNGraph, name: str, profile: HardwareProfile) -> SNNGraph | None:
    """Return the network with neurons behind a pool: they integrate the means of windows, and what reads a sum gets its factor.

    None where neurons or a layer that does more read the pool, or the chip has no such convolution.
    """
    layer, models = graph[name], profile.neuron.models.value
    pool: Any = layer.synapse
    readers = find_readers(graph, name)
    sources = [graph[edge.source] for edge in graph.edges_into(name) if edge.source != INPUT]
    is_plain = layer.neuron is None and layer.norm is None and name != graph.output and len(sources) == 1 and sources[0].spikes
    if not is_plain or not readers or (models is not None and "IF" not in models):
        return None
    count = float(np.prod(pool.kernel_size))
    reset: Any = "subtract" if "subtract" in (profile.neuron.resets.value or ("subtract",)) else "value"
    most = find_max_spikes(sources[0].neuron)
    neuron = IF(v_threshold=np.asarray(1 - 0.5 / count), reset=reset, max_spikes=most)  # means are multiples of 1 / count
    mean = AvgPool(kernel_size=pool.kernel_size, stride=pool.stride, padding=pool.padding)
    changes = {name: replace(layer, synapse=mean, neuron=neuron)}
    for reader in readers if isinstance(pool, SumPool) else ():
        synapse: Any = reader.synapse
        changes[reader.name] = replace(reader, synapse=replace(synapse, weight=synapse.weight * count))
    changed = graph.with_layers(changes)
    return _replace_by_ones(changed, changed[name], profile)


def pool_currents(graph: SNNGraph, name: str, *, profile: HardwareProfile) -> tuple[str, SNNGraph] | None:
    """Return (the convolution that a mean is multiplied into, the network without the pool), or None.

    The convolution is the layer that feeds the pool and nothing else; its neurons then take the mean of the currents of a window,
    so that no input is skipped as by a stride alone. The kernel gets zeros around it where the chip has only larger ones.
    """
    source = _find_source(graph, name)
    if source is None or not isinstance(graph[name].synapse, AvgPool):
        return None
    shape = graph.input_shape_of(source.name)
    kernel: Any = compose_synapses(source.synapse, graph[name].synapse, shape)
    if kernel is None or kernel.output_shape(shape) != graph.shape_of(name):
        return None
    kernel = fit_kernel(kernel, shape, graph.shape_of(name), profile) or kernel
    return _put_before(graph, name, source, kernel)


def stride_before(graph: SNNGraph, name: str) -> tuple[str, SNNGraph] | None:
    """Return (the convolution that takes a pool's stride, the network without the pool), or None.

    The convolution is the layer that feeds the pool and nothing else.
    """
    source = _find_source(graph, name)
    if source is None:
        return None
    strided = _add_stride(source.synapse, graph[name].synapse)
    if strided.output_shape(graph.input_shape_of(source.name)) != graph.shape_of(name):
        return None
    return _put_before(graph, name, source, strided)


def _find_source(graph: SNNGraph, name: str) -> Layer | None:
    """Return the convolution that feeds a plain pool and nothing else, if its neurons are alike at all positions; else None."""
    into = graph.edges_into(name)
    if len(into) != 1 or into[0].source == INPUT or not _is_plain(graph[name]):
        return None
    source = graph[into[0].source]
    alone = len(graph.edges_from(source.name)) == 1 and source.name != graph.output
    return source if isinstance(source.synapse, CONVS) and alone and not has_positions(source.neuron) else None


def _put_before(graph: SNNGraph, name: str, source: Layer, synapse: Any) -> tuple[str, SNNGraph]:
    """Return (the name of the layer before a pool, the network without the pool and with other weights there)."""
    renamed = replace(graph, output=source.name) if name == graph.output else graph
    return source.name, _bypass(renamed, name, {source.name: replace(source, synapse=synapse)})


def stride_behind(graph: SNNGraph, name: str) -> tuple[str, SNNGraph] | None:
    """Return (the convolution that takes a pool's stride, the network without the pool), or None.

    The convolution is the only layer that reads the pool, and reads nothing else.
    """
    out = graph.edges_from(name)
    if len(out) != 1 or not _is_plain(graph[name]) or name == graph.output or len(graph.edges_into(out[0].target)) > 1:
        return None
    reader = graph[out[0].target]
    if not isinstance(reader.synapse, CONVS):
        return None
    strided = _add_stride(reader.synapse, graph[name].synapse)
    if strided.output_shape(graph.input_shape_of(name)) != graph.shape_of(reader.name):
        return None
    return reader.name, _bypass(graph, name, {reader.name: replace(reader, synapse=strided)})


def _is_plain(layer: Layer) -> bool:
    """Return whether a layer is a pool of windows that do not overlap, and nothing else."""
    pool: Any = layer.synapse
    return layer.neuron is None and layer.norm is None and pool.stride == pool.kernel_size and not any(pool.padding)


def _add_stride(conv: Any, pool: Any) -> Any:
    return replace(conv, stride=tuple(s * n for s, n in zip(conv.stride, pool.stride, strict=True)))


def _required(value: Any) -> Any:
    assert value is not None, "a rewrite that was offered is possible"
    return value
