"""Populations of a network with their synapses as a chip stores them.

Spikes of several sources that are added in front of one layer of weights are one projection of the network. A crossbar, a word
for each weight and a row for each source hold the weights of each source apart: there each source has a projection of its own.

A crossbar has no synapse for a weight of 0, so that zeros around a kernel make no source a row.

Some chips hold one weight from a neuron to another. Where several ways lead from a source to a layer, its weights are added, and
two neurons have one synapse, however many of the ways connect them: `Population.merged`. SpiNNaker's rows have one for each way
and, where pools let several weights of a way connect them, one with their sum or as many as weights: `synapses_per_pair`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, Array, Layer, SparseMatrix, Weights, write_out
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.axes import Axis, identity_axis
from spear_deploy.placement.populations import Population, find_populations
from spear_deploy.placement.projections import Projection, unite_nonzero
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.quantize.fuse_pools import count_unsummed
from spear_deploy.quantize.shared_cells import ONE_CELL

BY_SOURCE = ("crossbar", "word_per_weight", "sdram_rows")
"""Formats of a memory that holds the weights of each source apart."""
COUNTED = ("fan_in", "fan_out", "fan_out_mean", "input_reaches", "output_reads")
MAX_PAIRS = 1 << 21
"""Pairs of neurons between two layers up to which ways that differ in kind are merged; chips of `ONE_CELL` have fewer by far."""


def find_chip_populations(
    graph: SNNGraph, profile: HardwareProfile, *, zeros: bool | None = None, fewest: bool = False
) -> tuple[Population, ...]:
    """Return the neuron layers of a network with their synapses as a chip stores them.

    Args:
        graph: the network.
        profile: the chip.
        zeros: also find which weights are not zero; where not stated, if the chip has a limit for which that matters.
        fewest: the fewest synapses that there may be (`find_populations`).
    """
    if profile.synapse_memory.format.value == "crossbar":
        graph = graph.with_layers(_trim_kernel)
    known = needs_nonzero_weights(profile) if zeros is None else zeros
    populations = find_populations(graph, zeros=known, fewest=fewest)
    if profile.synapse_memory.format.value not in BY_SOURCE:
        return populations
    populations = tuple(replace(p, projections=part_by_source(p.projections)) for p in populations)
    if profile.synapse_memory.format.value == "sdram_rows":
        several = count_unsummed(graph)
        populations = tuple(_repeat_synapses(p, several[p.name]) if p.name in several else p for p in populations)
    if profile.meta.family not in ONE_CELL:
        return populations
    bits = stored_bits(graph, profile)
    return tuple(replace(p, merged=_merge_by_source(p.projections, bits)) for p in populations)


def needs_nonzero_weights(profile: HardwareProfile) -> bool:
    """Return whether the chip has a limit for which weights of zero matter."""
    if profile.synapse_memory.format.value in BY_SOURCE:
        return True
    return any(getattr(profile.connectivity, name).max_value is not None for name in COUNTED)


def part_by_source(projections: Sequence[Projection]) -> tuple[Projection, ...]:
    """Return the projections with one for each source of spikes that are added in front of weights."""
    return tuple(p if len(p.sources) == 1 else replace(p, sources=(source,)) for p in projections for source in p.sources)


# ------------------------------------------------------------------------------------------------------------ inside


def _trim_kernel(layer: Layer) -> Layer:
    """Return a layer without the zeros around its kernel that padding makes up for: on a crossbar they are no synapses."""
    conv: Any = layer.synapse
    if not isinstance(conv, CONVS):
        return layer
    used, taken = (conv.weight != 0).any(axis=(0, 1)), [slice(None), slice(None)]
    padding: list[int] = []
    for axis, (pad, dilation) in enumerate(zip(conv.padding, conv.dilation, strict=True)):
        lines = used.any(axis=tuple(other for other in range(used.ndim) if other != axis))
        cut = min(int(lines.argmax()), int(lines[::-1].argmax()), pad // dilation)
        taken.append(slice(cut, len(lines) - cut))
        padding.append(pad - cut * dilation)
    trimmed: Any = {"weight": conv.weight[tuple(taken)], "padding": tuple(padding)}
    return replace(layer, synapse=replace(conv, **trimmed))


def _repeat_synapses(population: Population, count: int) -> Population:
    return replace(population, projections=tuple(replace(p, synapses_per_pair=count) for p in population.projections))


def _merge_by_source(projections: Sequence[Projection], bits: Mapping[str, int]) -> tuple[Projection, ...]:
    """Return the projections with one for each source and delay; () where each stays as it is.

    Ways between layers too large to list their pairs of neurons stay apart, which counts no synapse too few.
    """
    ways: dict[object, list[Projection]] = {}
    for p in projections:
        ways.setdefault(p.sources, []).append(p)
    merged = [q for parts in ways.values() for q in _merge(parts, bits)]
    return tuple(merged) if any(a is not b for a, b in zip(merged, projections, strict=False)) else ()


def _merge(parts: Sequence[Projection], bits: Mapping[str, int]) -> Sequence[Projection]:
    """Return the ways from one source as a projection, with the layer whose weights take most bits."""
    first = parts[0]
    if len(parts) == 1:
        return parts
    widest = max(parts, key=lambda p: bits.get(p.layer, 0))
    signed = any(p.signed for p in parts)
    if len({_form(p) for p in parts}) == 1 and first.kind == "dense":
        return [replace(widest, signed=signed, nonzero=unite_nonzero(parts))]
    targets = first.outputs * prod(axis.outputs for axis in first.axes)
    axes = first.pool_axes if first.kind == "dense" else first.axes
    shape = (first.source_channels, *(axis.inputs for axis in axes))
    if targets * prod(shape) > MAX_PAIRS:
        return parts
    pairs = reduce(np.logical_or, (_mark_pairs(p).reshape(targets, *shape) for p in parts))
    whole = Projection(
        layer=widest.layer,
        kind="dense",
        sources=first.sources,
        channels=prod(shape),
        outputs=targets,
        is_elementwise=all(p.is_elementwise for p in parts),
        input_group=first.input_group,
        kernel_group=first.input_group,
        output_group=first.output_group,
        kernel=shape[1:],
        kernel_channels=shape[0],
        map_channels=shape[0],
        pool_axes=tuple(identity_axis(n) for n in shape[1:]),
        signed=signed,
        nonzero=None if pairs.all() else pairs,
    )
    return [whole]


def _form(p: Projection) -> tuple[object, ...]:
    """Return what dense weights have in common whose numbers stand at the same places."""
    return p.kind, p.channels, p.pool_axes, p.kernel, p.kernel_channels, p.input_group, p.kernel_group, p.output_group


def _mark_pairs(p: Projection) -> Array:
    """Mark which source reaches which neuron: bool (outputs, *positions, source channels, *source positions)."""
    if p.kind == "dense":
        axes, into = p.pool_axes, p.source_channels
        windows = [axis.match_windows() for axis in axes]
        if p.nonzero is None:
            reached = reduce(np.multiply.outer, [window.any(axis=0) for window in windows], np.ones(into, bool))
            return np.broadcast_to(reached, (p.outputs, *reached.shape))
        counts = _write_out(p.nonzero).reshape(p.outputs, into, *(axis.outputs for axis in axes)).astype(np.int64)
        for k, window in enumerate(windows):
            counts = np.moveaxis(np.tensordot(counts, window.astype(np.int64), axes=([2 + k], [0])), -1, 2 + k)
        return counts > 0
    groups = p.groups
    out, into = p.outputs // groups, p.channels // groups
    nonzero = np.ones((p.outputs, into, *p.tap_counts), bool) if p.nonzero is None else _write_out(p.nonzero)
    counts = nonzero.astype(np.int64)
    for axis in p.axes:  # the first of the taps that are left gives way to a pair of positions at the end
        counts = np.tensordot(counts, _mark_taps(axis), axes=([2], [0]))
    rank = len(p.axes)
    order = (0, *range(2, 2 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2))
    counts = counts.transpose(order)
    before, after = counts.shape[1 : 1 + rank], counts.shape[2 + rank :]
    marks = np.zeros((p.outputs, *before, p.channels, *after), bool)
    for group in range(groups):
        rows, columns = slice(group * out, (group + 1) * out), slice(group * into, (group + 1) * into)
        place = (rows, *[slice(None)] * rank, columns)
        marks[place] = counts[rows] > 0
    return marks


def _mark_taps(axis: Axis) -> Array:
    """Mark through which tap an output position reads an input position: int64 (taps, outputs, inputs)."""
    positions = np.arange(axis.outputs) * axis.stride + np.array(axis.taps)[:, None] - axis.padding
    marks: Array = (positions[..., None] == np.arange(axis.inputs)) & axis.match_inputs().T[..., None]
    return marks.astype(np.int64)


def _write_out(nonzero: Weights) -> Array:
    return write_out(nonzero) if isinstance(nonzero, SparseMatrix) else nonzero
