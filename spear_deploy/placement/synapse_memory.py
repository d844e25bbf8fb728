"""How many words of synapse memory does a core need? One function for each storage format.

A format sees a projection, the part of the population that lies on the core (a box: start and stop along each axis) and
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
from spear_deploy.placement.populations import fan_in
from spear_deploy.placement.projections import Axis, Projection, pairs_along, reached_count

Box: TypeAlias = tuple[tuple[int, int], ...]


def size(box: Box) -> int:
    """Count the neurons of a box."""
    count = 1
    for start, stop in box:
        count *= stop - start
    return count


def memory_words(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int | None:
    """Return the words that a projection's synapses onto the neurons of a box take on one core.

    None if the chip's format is not public.
    """
    if memory.format.value is None:
        return None
    return FORMATS[str(memory.format.value)](projection, box, weight_bits, memory)


# ----------------------------------------------------------------------------------------------------------- formats


def list_words(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Loihi 2, as its compiler prints it: a list in whole words for each input axon, or for each kernel position.

        dense        inputs · ceil((n · (bits + index) + header) / word)                           n targets on the core
        convolution  input channels · positions · ceil((c · bits + header) / word)                 c channels on the core

    A convolution's lists are shared by all positions, so its words do not depend on the size of the tile.

    100 inputs to 50 neurons at 4 bits: 100 · ceil((50 · 16 + 10) / 64) = 1300 words, as printed for PilotNet LIF.
    """
    word, bits = _value(memory.word_bits), weight_bits + wait_bits(projection)
    indexed, header = bits + _value(memory.index_bits), _value(memory.header_bits)
    if projection.kind == "dense" or len(box) != len(projection.axes) + 1:
        return _inputs(projection) * _ceil(size(box) * indexed + header, word)
    if projection.kind == "one_to_one":
        return size(box) * _ceil(indexed + header, word)
    per_group = projection.channels // projection.groups
    lists = per_group * projection.taps
    conv_header = _value(memory.conv_header_bits)
    parts = _channels_by_group(box[0], projection.outputs // projection.groups)
    return sum(count * lists * _ceil(channels * bits + conv_header, word) for channels, count in parts.items())


def list_blocks(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Loihi 1, exactly as nengo-loihi counts it: lists in blocks of at most 64 synapses, each in whole words.

        block        ceil((n · (weight + delay + tag + index) + header) / word)                    n synapses, at most 64
        dense        one list for each input axon, no index
        convolution  one list for each different set of kernel positions that an input position meets; indices from its
                     first target

    4200 inputs to 50 neurons at 8 bits: 4200 · ceil((50 · 8 + 10) / 64) = 29400 words = 1881600 bits.
    """
    bits = weight_bits + wait_bits(projection) + (memory.tag_bits.value or 0)
    if projection.kind == "dense" or len(box) != len(projection.axes) + 1:
        return _inputs(projection) * _blocks(size(box), bits, memory)
    if projection.kind == "one_to_one":
        return size(box) * _blocks(1, bits, memory)
    patterns = _patterns(projection.axes, box[1:])
    if not patterns:
        return 0
    bits += _index_width(projection, box, patterns, memory)
    per_group = projection.channels // projection.groups
    parts = _channels_by_group(box[0], projection.outputs // projection.groups)
    pairs = per_group * sum(channels * count for channels, count in parts.items())
    return sum(count * _blocks(pairs * taps, bits, memory) for (taps, _), count in patterns.items())


def crossbar(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """TrueNorth, BrainScaleS-2, ODIN: a cell at each crossing of an axon's row and a neuron's column, used or not.

        axons · neurons · cells          cells of a weight: 1, or `cells_per_weight` where any is below 0

    Nothing is shared, so a convolution is written out: each source neuron that reaches the box has a row.

    100 axons to 50 neurons with weights of both signs, 2 cells each: 100 · 50 · 2 = 10000 cells.
    """
    cells = _value(memory.cells_per_weight) if projection.signed else 1
    return axons_of(projection, box) * size(box) * cells


def pow2_kernel(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Speck: kernels in a table whose sides are powers of two, pools in front are the source core's.

        c · 2^(ceil(log2(kx · ky)) + ceil(log2 f))          c input, f output channels; a dense layer is a kernel of its map

    3 × 3 from 2 to 33 channels: 2 · 2^(4 + 6) = 2048 words.
    """
    outputs = box[0][1] - box[0][0] if _spatial(projection, box) else size(box)
    return projection.kernel_channels * 2 ** (_log2(_product(projection.kernel)) + _log2(outputs))


def word_per_weight(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Xylo: one word for each weight that is not zero; nothing is shared."""
    return synapses_onto(projection, box)


def packed_weights(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Akida: the bits of the filters that lie on the core, back to back; positions share them.

    16 filters of 3 × 3 from 8 channels at 4 bits: 16 · 72 · 4 = 4608 bits = 576 bytes.
    """
    outputs = box[0][1] - box[0][0] if _spatial(projection, box) else size(box)
    if projection.kind == "one_to_one":
        outputs = size(box)
    return _ceil(outputs * projection.kernel_channels * _product(projection.kernel) * weight_bits, _value(memory.word_bits))


def sdram_rows(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """SpiNNaker: for each source neuron that reaches the core a row, a header and one word a synapse, zeros stored too.

    100 neurons to 50 on one core, 3 words of header: 100 · (3 + 50) = 5300 words.
    """
    stored = replace(projection, exists=None)
    return axons_of(stored, box) * _value(memory.row_header_words) + synapses_onto(stored, box)


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


def neuron_words(box: Box, memory: SynapseMemory) -> int:
    """Return the words of neuron state on a core: one a neuron, on Speck a map whose sides are powers of two.

        f · 2^(ceil(log2 fy) + ceil(log2 fx))               f channels of fy · fx positions, before a pool behind them

    16 channels of 30 × 30 are 16 · 2^(5 + 5) = 16384 words.
    """
    if memory.format.value != "pow2_kernel":
        return size(box)
    words = box[0][1] - box[0][0]
    for start, stop in box[1:]:
        words <<= _log2(stop - start)
    return words


def axons_of(projection: Projection, box: Box) -> int:
    """Count the source neurons that reach a box, each with an axon of its own."""
    if projection.kind == "one_to_one":
        return size(box)
    if projection.kind == "dense":
        return projection.channels
    if not _spatial(projection, box):
        reached = [reached_count(axis, 0, axis.outputs) for axis in projection.axes]
        return (
            min(projection.channels * _product(reached), size(box))
            if projection.groups > 1
            else projection.channels * _product(reached)
        )
    groups = len(list(_channels_by_group(box[0], projection.outputs // projection.groups).elements()))
    channels = groups * (projection.channels // projection.groups)
    return channels * _product([reached_count(a, *along) for a, along in zip(projection.axes, box[1:], strict=True)])


def synapses_onto(projection: Projection, box: Box) -> int:
    """Count the synapses onto the neurons of a box, those of weight zero left out where `exists` says so."""
    if projection.kind == "one_to_one":
        return size(box)
    if projection.kind == "conv" and _spatial(projection, box) and projection.exists is None:
        each = projection.channels // projection.groups * (box[0][1] - box[0][0])
        return each * _product([pairs_along(a, *along) for a, along in zip(projection.axes, box[1:], strict=True)])
    if projection.exists is None and projection.kind == "dense":
        return projection.channels * size(box)
    counts = fan_in(projection)
    if counts.ndim != len(box):
        counts = counts.reshape(-1, *(1 for _ in box[1:])) if len(box) > 1 else counts.reshape(-1)
    return int(counts[tuple(slice(*along) for along in box)].sum())


def wait_bits(projection: Projection) -> int:
    """Return the bits of a synapse that hold its delay."""
    return ceil(log2(projection.wait_steps + 1)) if projection.wait_steps > 0 else 0


# ------------------------------------------------------------------------------------------------------------ inside


def _value(leaf: Any) -> int:
    return int(leaf.value or 0)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _product(values: Sequence[int]) -> int:
    return prod(values)


def _log2(n: int) -> int:
    """Return the least power that reaches n: ceil(log2 n)."""
    return (n - 1).bit_length()


def _spatial(projection: Projection, box: Box) -> bool:
    """Say whether a box has the axes of a convolution."""
    return projection.kind == "conv" and len(box) == len(projection.axes) + 1


def _inputs(projection: Projection) -> int:
    """Count input axons that each have lists of their own."""
    positions = [int(axis.reached(0, axis.outputs).sum()) for axis in projection.axes]
    return projection.channels * int(np.prod(positions, dtype=np.int64))


def _channels_by_group(channels: tuple[int, int], group: int) -> Counter[int]:
    """Count the groups of which a range of output channels holds so many channels."""
    start, stop = channels
    first, last = start // group, (stop - 1) // group
    if first == last:
        return Counter({stop - start: 1})
    found = Counter({group: last - first - 1}) if last - first > 1 else Counter()
    found[(first + 1) * group - start] += 1
    found[stop - last * group] += 1
    return found


def _blocks(synapses: int, bits: int, memory: SynapseMemory) -> int:
    """Return the words of one list that is cut into blocks."""
    most, header, word = _value(memory.block_synapses), _value(memory.header_bits), _value(memory.word_bits)
    full, rest = divmod(synapses, most)
    return full * _ceil(most * bits + header, word) + (_ceil(rest * bits + header, word) if rest else 0)


def _patterns(axes: Sequence[Axis], ranges: Box) -> Counter[tuple[int, tuple[int, ...]]]:
    """Count the different sets of kernel positions that inputs meet, by (their number, their number along each axis)."""
    found: Counter[tuple[int, tuple[int, ...]]] = Counter({(1, ()): 1})
    for axis, (start, stop) in zip(axes, ranges, strict=True):
        along = axis_patterns(axis, start, stop)
        found = Counter({(taps * n, (*each, n)): count * times for (taps, each), count in found.items() for n, times in along})
    return found


@lru_cache(maxsize=4096)
def axis_patterns(axis: Axis, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Return (positions of a kernel that an input meets, how many different such sets there are) along one axis."""
    taps = np.array(axis.taps)
    first = max(0, start * axis.stride - axis.padding + int(taps.min()))
    last = min(axis.used - 1, (stop - 1) * axis.stride - axis.padding + int(taps.max()))
    offset = np.arange(first, last + 1)[:, None] + axis.padding - taps
    outputs = offset // axis.stride
    meets = (offset % axis.stride == 0) & (outputs >= start) & (outputs < stop)
    different = {row.tobytes(): int(row.sum()) for row in meets if row.any()}
    return tuple(sorted(Counter(different.values()).items()))


def _index_width(projection: Projection, box: Box, patterns: Counter[Any], memory: SynapseMemory) -> int:
    """Return the bits of an index that reaches the last target of any list, counted from its first one."""
    sizes = [stop - start for start, stop in box]
    largest = 0
    for _, each in patterns:
        index = sizes[0] - 1
        for n, along in zip(sizes[1:], each, strict=True):
            index = index * n + along - 1
        largest = max(largest, index)
    need = ceil(log2(largest + 1)) if largest else 0
    return min((w for w in memory.index_widths.value or () if w >= need), default=need)
