"""Synapse memory of a core in words, one function per storage format.

A format takes a projection, the part of the population that lies on the core (a box: start and stop along each axis) and
the stored bits of a weight. A chip adds data; a new format adds one function and a line in `FORMATS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, log2, prod
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.hardware.schema import SynapseMemory
from spear_deploy.placement.axes import Axis, count_inputs, count_pairs
from spear_deploy.placement.projections import Projection
from spear_deploy.placement.read_sources import count_read

Box: TypeAlias = tuple[tuple[int, int], ...]


def count_neurons(box: Box) -> int:
    """Count the neurons of a box."""
    return prod(stop - start for start, stop in box)


def ceil_div(a: int, b: int) -> int:
    """Divide whole numbers and round up."""
    return -(-a // b)


def count_memory_words(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int | None:
    """Return the words that a projection's synapses onto the neurons of a box take on one core.

    None if the chip's format is not public.
    """
    if memory.format.value is None:
        return None
    return FORMATS[str(memory.format.value)](projection, box, weight_bits, memory)


# ----------------------------------------------------------------------------------------------------------- formats


def list_words(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the words of Loihi 2 as its compiler prints them: a list in whole words per input axon or kernel position.

        dense        axons · ceil((n · (bits + index) + header) / word)                            n targets on the core
        convolution  input channels · positions · ceil((c · bits + header) / word)                 c channels on the core

    A convolution's lists are shared by all positions, so its words do not depend on the size of the tile. Onto neurons in a
    row nothing is shared: as of dense weights each source neuron that reaches the core has a list of all targets.

    100 inputs to 50 neurons at 4 bits: 100 · ceil((50 · 16 + 10) / 64) = 1300 words, as printed for PilotNet LIF.
    """
    word, bits = _value(memory.word_bits), weight_bits + delay_bits(projection)
    indexed, header = bits + _value(memory.index_bits), _value(memory.header_bits)
    if projection.kind == "one_to_one":
        return sum(lists * ceil_div(targets * indexed + header, word) for targets, lists in _count_lists(projection, box).items())
    if projection.kind == "dense" or len(box) != len(projection.axes) + 1:
        return count_axons(projection, box) * ceil_div(count_neurons(box) * indexed + header, word)
    per_group = projection.channels // projection.groups
    lists = per_group * projection.taps
    conv_header = _value(memory.conv_header_bits)
    parts = _channels_by_group(box[0], projection.outputs // projection.groups)
    return sum(count * lists * ceil_div(channels * bits + conv_header, word) for channels, count in parts.items())


def list_blocks(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the words of Loihi 1 as nengo-loihi does: lists in blocks of at most 64 synapses, each block in whole words.

        block        ceil((n · (weight + delay + tag + index) + header) / word)                    n synapses, at most 64
        dense        one list of all n neurons for each axon, no index; so of a convolution onto neurons in a row
        convolution  one list for each different set of kernel positions that an input position meets; indices from its
                     first target

    4200 inputs to 50 neurons at 8 bits: 4200 · ceil((50 · 8 + 10) / 64) = 29400 words = 1881600 bits.
    """
    bits = weight_bits + delay_bits(projection) + (memory.tag_bits.value or 0)
    if projection.kind == "one_to_one":
        return sum(lists * _block_words(targets, bits, memory) for targets, lists in _count_lists(projection, box).items())
    if projection.kind == "dense" or len(box) != len(projection.axes) + 1:
        return count_axons(projection, box) * _block_words(count_neurons(box), bits, memory)
    patterns = _count_patterns(projection.axes, box[1:])
    if not patterns:
        return 0
    bits += _index_width(box, patterns, memory)
    per_group = projection.channels // projection.groups
    parts = _channels_by_group(box[0], projection.outputs // projection.groups)
    pairs = per_group * sum(channels * count for channels, count in parts.items())
    return sum(count * _block_words(pairs * taps, bits, memory) for (taps, _), count in patterns.items())


def crossbar(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the cells of TrueNorth, BrainScaleS-2 and ODIN: one per crossing of an axon's row and a neuron's column, used or not.

        axons · neurons · cells          cells of a weight: 1, or `cells_per_weight` where any is below 0

    Nothing is shared, so a convolution is written out: each source neuron that reaches the box has a row (`count_rows`).

    100 axons to 50 neurons with weights of both signs, 2 cells each: 100 · 50 · 2 = 10000 cells.
    """
    cells = _value(memory.cells_per_weight) if projection.signed else 1
    return count_rows(projection, box) * count_neurons(box) * cells


def pow2_kernel(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the words of Speck: a kernel table whose sides are powers of two; pools in front lie on the source core.

        c · 2^(ceil(log2(kx · ky)) + ceil(log2 f))          c input, f output channels; a dense layer is a kernel of its map

    3 × 3 from 2 to 33 channels: 2 · 2^(4 + 6) = 2048 words.
    """
    outputs = box[0][1] - box[0][0] if _is_spatial(projection, box) else count_neurons(box)
    return projection.kernel_channels * 2 ** (_log2(prod(projection.kernel)) + _log2(outputs))


def word_per_weight(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the words of Xylo: one per weight that is not zero; nothing is shared."""
    return count_synapses(projection, box)


def packed_weights(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the words of Akida: the bits of the filters on the core, back to back; positions share them.

    16 filters of 3 × 3 from 8 channels at 4 bits: 16 · 72 · 4 = 4608 bits = 576 bytes.
    """
    outputs = box[0][1] - box[0][0] if _is_spatial(projection, box) else count_neurons(box)
    if projection.kind == "one_to_one":
        outputs = count_neurons(box)
    return ceil_div(outputs * projection.kernel_channels * prod(projection.kernel) * weight_bits, _value(memory.word_bits))


def sdram_rows(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Count the words of SpiNNaker: a row per source neuron that reaches the core: header, one word a synapse, zeros too.

    100 neurons to 50 on one core, 3 words of header: 100 · (3 + 50) = 5300 words.
    """
    stored = projection if projection.nonzero is None else replace(projection, nonzero=None)
    return count_axons(stored, box) * _value(memory.row_header_words) + count_synapses(stored, box)


def count_listed_rows(projection: Projection, box: Box, memory: SynapseMemory) -> int:
    """Count the words of SpiNNaker's rows without the weights of 0, which a list of synapses leaves out."""
    synapses = count_synapses(projection, box)
    return synapses + _value(memory.row_header_words) * min(synapses, count_axons(projection, box))


def count_padded_rows(projection: Projection, largest: int, memory: SynapseMemory) -> int:
    """Return the most words that sPyNNaker writes for the synapses onto a core.

    A matrix for each sign of weights, each with a row for each source neuron, all as long as the longest onto any core; cores
    have up to `largest` neurons of the population.
    """
    longest = min(largest, int(projection.fan_out.max(initial=0))) * projection.synapses_per_pair
    axes = projection.pool_axes if projection.kind == "dense" else projection.axes
    sources = projection.source_channels * prod(axis.inputs for axis in axes)
    return (2 if projection.signed else 1) * sources * (_value(memory.row_header_words) + longest) if longest else 0


FORMATS: dict[str, Callable[[Projection, Box, int, SynapseMemory], int]] = {
    "list_words": list_words,
    "list_blocks": list_blocks,
    "crossbar": crossbar,
    "pow2_kernel": pow2_kernel,
    "word_per_weight": word_per_weight,
    "packed_weights": packed_weights,
    "sdram_rows": sdram_rows,
}


# ---------------------------------------------------------------------------------------------------------- neurons


def count_neuron_words(box: Box, memory: SynapseMemory) -> int:
    """Count the words of neuron state on a core: one per neuron, on Speck a map whose sides are powers of two.

        f · 2^(ceil(log2 fy) + ceil(log2 fx))               f channels of fy · fx positions, before a pool behind them

    16 channels of 30 × 30 are 16 · 2^(5 + 5) = 16384 words.
    """
    if memory.format.value != "pow2_kernel":
        return count_neurons(box)
    words = box[0][1] - box[0][0]
    for start, stop in box[1:]:
        words <<= _log2(stop - start)
    return words


def count_axons(projection: Projection, box: Box) -> int:
    """Count the source neurons that reach a box, one axon each."""
    if projection.kind == "dense":
        return projection.channels
    if len(box) != len(projection.axes) + 1:
        whole = projection if projection.nonzero is None else replace(projection, nonzero=None)
        return int(np.count_nonzero(whole.count_fan_out(box)))
    groups = len(list(_channels_by_group(box[0], projection.outputs // projection.groups).elements()))
    channels = groups * (projection.channels // projection.groups)
    return channels * prod([count_inputs(a, *along) for a, along in zip(projection.axes, box[1:], strict=True)])


def count_max_targets(projection: Projection) -> int:
    """Count the neurons that a source neuron reaches, zeros too: the most of any."""
    reached = [int(axis.match_outputs().sum(axis=1).max(initial=0)) for axis in projection.axes]
    return projection.outputs // projection.groups * prod(reached)


def count_rows(projection: Projection, box: Box) -> int:
    """Count the axons of a crossbar into a box: none for a source whose weights onto the neurons of the box are all 0."""
    if projection.nonzero is None:
        return count_axons(projection, box)
    return count_read(projection, box)


def count_synapses(projection: Projection, box: Box) -> int:
    """Count the synapses onto the neurons of a box; those of weight zero are left out where `nonzero` is known."""
    if projection.kind != "dense" and len(box) == len(projection.axes) + 1 and projection.nonzero is None:
        pairs = prod(count_pairs(axis, *along) for axis, along in zip(projection.axes, box[1:], strict=True))
        return projection.channels // projection.groups * (box[0][1] - box[0][0]) * pairs
    if projection.nonzero is None and projection.kind == "dense":
        return projection.channels * count_neurons(box)
    if count_neurons(box) == projection.fan_in.size:  # of a map, too, whose ways are merged neuron by neuron
        return int(projection.fan_in.sum())
    return int(projection.count_fan_out(box).sum())


def delay_bits(projection: Projection) -> int:
    """Return the bits of a synapse that hold its delay."""
    return ceil(log2(projection.delay_steps + 1)) if projection.delay_steps > 0 else 0


@lru_cache(maxsize=4096)
def count_axis_patterns(axis: Axis, start: int, stop: int) -> tuple[tuple[tuple[int, int], int], ...]:
    """Count the different sets of kernel positions that an input reads along one axis: ((positions, reach), sets).

    The reach is the number of outputs from the first of the set to the last, between which a dilation leaves some out.
    """
    outputs = (np.arange(axis.inputs)[:, None] + axis.padding - np.array(axis.taps)) // axis.stride
    matches = axis.match_outputs(start, stop)
    sizes = {
        row.tobytes(): (int(row.sum()), int(np.ptp(reached[row])) + 1)
        for row, reached in zip(matches, outputs, strict=True)
        if row.any()
    }
    return tuple(sorted(Counter(sizes.values()).items()))


# ------------------------------------------------------------------------------------------------------------ inside


def _value(leaf: Any) -> int:
    """Return a number of the profile, 0 where it is not published; none that a format needs is "unlimited"."""
    return int(leaf.value or 0)


def _log2(n: int) -> int:
    """Return ceil(log2 n)."""
    return (n - 1).bit_length()


def _is_spatial(projection: Projection, box: Box) -> bool:
    """Return whether a box has the axes of a convolution."""
    return projection.kind == "conv" and len(box) == len(projection.axes) + 1


def _count_lists(projection: Projection, box: Box) -> Counter[int]:
    """Count the source neurons of weights one to one by the neurons of a box that they reach."""
    if len(box) != len(projection.axes) + 1:
        fan_out = replace(projection, nonzero=None).count_fan_out(box)
        return Counter(fan_out[fan_out > 0].tolist())
    counts: Counter[int] = Counter({1: box[0][1] - box[0][0]})
    for axis, (start, stop) in zip(projection.axes, box[1:], strict=True):
        longer: Counter[int] = Counter()
        for targets, sources in counts.items():
            for reached, places in _count_reached(axis, start, stop):
                longer[targets * reached] += sources * places
        counts = longer
    return counts


@lru_cache(maxsize=4096)
def _count_reached(axis: Axis, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Count the input positions along one axis by how many of the output positions start..stop they reach, 0 left out."""
    reached = axis.match_outputs(start, stop).sum(axis=1)
    return tuple(sorted(Counter(reached[reached > 0].tolist()).items()))


def _channels_by_group(channels: tuple[int, int], group: int) -> Counter[int]:
    """Count the groups of a range of output channels by the number of their channels in the range."""
    start, stop = channels
    first, last = start // group, (stop - 1) // group
    if first == last:
        return Counter({stop - start: 1})
    counts = Counter({group: last - first - 1}) if last - first > 1 else Counter()
    counts[(first + 1) * group - start] += 1
    counts[stop - last * group] += 1
    return counts


def _block_words(synapses: int, bits: int, memory: SynapseMemory) -> int:
    """Count the words of a list that is cut into blocks."""
    per_block, header, word = _value(memory.block_synapses), _value(memory.header_bits), _value(memory.word_bits)
    full, rest = divmod(synapses, per_block)
    return full * ceil_div(per_block * bits + header, word) + (ceil_div(rest * bits + header, word) if rest else 0)


def _count_patterns(axes: Sequence[Axis], ranges: Box) -> Counter[tuple[int, tuple[int, ...]]]:
    """Count the different sets of kernel positions that inputs read, by (positions, reach along each axis)."""
    counts: Counter[tuple[int, tuple[int, ...]]] = Counter({(1, ()): 1})
    for axis, (start, stop) in zip(axes, ranges, strict=True):
        longer: Counter[tuple[int, tuple[int, ...]]] = Counter()
        for (taps, extent), count in counts.items():
            for (n, reach), sets in count_axis_patterns(axis, start, stop):
                longer[taps * n, (*extent, reach)] += count * sets
        counts = longer
    return counts


def _index_width(box: Box, patterns: Counter[Any], memory: SynapseMemory) -> int:
    """Return the bits of an index that reaches the last target of any list, counted from its first one."""
    sizes = [stop - start for start, stop in box]
    largest = 0
    for _, extent in patterns:
        index = sizes[0] - 1
        for n, reach in zip(sizes[1:], extent, strict=True):
            index = index * n + reach - 1
        largest = max(largest, index)
    need = ceil(log2(largest + 1)) if largest else 0
    return min((w for w in memory.index_widths.value or () if w >= need), default=need)
