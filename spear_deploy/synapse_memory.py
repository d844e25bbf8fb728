"""How many words of synapse memory does a core need? One function for each storage format.

A format sees a projection, the part of the population that lies on the core (a box: start and stop along each axis) and
the stored bits of a weight. A chip adds data; a new format adds one function and a line in `FORMATS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil, log2
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.graph import SNNGraph
from spear_deploy.layers import CONVS, WEIGHTED, Array
from spear_deploy.populations import Axis, Projection
from spear_deploy.profile_schema import HardwareProfile, SynapseMemory

Box: TypeAlias = tuple[tuple[int, int], ...]

SIGNED_LIMIT = 128
"""A signed weight of a list is scaled up to fill -128..127 before its bits are counted."""

CHUNK_WEIGHTS = 1 << 20
"""Weights looked at together: 8 MB, so that a layer of 10^8 weights needs no copy."""


def size(box: Box) -> int:
    """Count the neurons of a box."""
    count = 1
    for start, stop in box:
        count *= stop - start
    return count


def memory_words(projection: Projection, box: Box, weight_bits: int, memory: SynapseMemory) -> int:
    """Return the words that a projection's synapses onto the neurons of a box take on one core."""
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


FORMATS: dict[str, Callable[[Projection, Box, int, SynapseMemory], int]] = {
    "list_words": list_words,
    "list_blocks": list_blocks,
}


# ------------------------------------------------------------------------------------------------------- weight widths


def stored_bits(graph: SNNGraph, profile: HardwareProfile) -> dict[str, int]:
    """Return the bits of a stored weight by weighted layer.

    Integer networks: what their weights need; floating-point networks: the profile's default.
    """
    default, widths = _value(profile.weights.default_bits), profile.weights.bits.value or ()
    found = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, WEIGHTED):
            if not graph.is_integer:
                found[layer.name] = default
            elif isinstance(layer.synapse, CONVS):
                found[layer.name] = min(kernel_bits(layer.synapse.weight), max(widths))
            else:
                need = list_bits(layer.synapse.weight)
                found[layer.name] = min((w for w in widths if w >= need), default=need)
    return found


def list_bits(weight: Array) -> int:
    """Return the bits of a list's weights: netx's `num_weight_bits`.

    The weights are scaled up by the largest power of two that keeps them within -128..127 (signed; a list of one sign has
    twice the range), and the zeros at the end of all of them are not stored. One bit of a signed list is the sign.

    >>> list_bits(np.array([[-6, 4], [2, 6]])), list_bits(np.array([[0, 255]])), list_bits(np.array([[-178, 192]]))
    (3, 8, 8)
    """
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        return 1
    mixed = low < 0 <= high
    if mixed:
        scale = min((SIGNED_LIMIT - 1) / high if high else np.inf, SIGNED_LIMIT / -low)
    else:
        scale = (2 * SIGNED_LIMIT - 1) / high if high > 0 else 2 * SIGNED_LIMIT / -low
    scale_bits = int(np.floor(log2(scale))) + mixed
    return max(1, 8 - scale_bits - (_trailing_zeros(weight) - mixed))


def kernel_bits(weight: Array) -> int:
    """Return the bits of a convolution's weights: a sign and the magnitude, up to a power of two.

    >>> kernel_bits(np.array([-8, 8])), kernel_bits(np.array([-10, 8]))
    (4, 5)
    """
    largest = max(abs(int(weight.min())), abs(int(weight.max())))
    return 1 + (ceil(log2(largest)) if largest > 1 else 1)


def wait_bits(projection: Projection) -> int:
    """Return the bits of a synapse that hold its delay."""
    return ceil(log2(projection.wait_steps + 1)) if projection.wait_steps > 0 else 0


# ------------------------------------------------------------------------------------------------------------ inside


def _value(leaf: Any) -> int:
    return int(leaf.value or 0)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _trailing_zeros(weight: Array) -> int:
    """Count the zero bits at the end of all weights, at most 8."""
    together, flat = 256, weight.reshape(-1)
    for start in range(0, flat.size, CHUNK_WEIGHTS):
        if together & 1:
            break
        part = np.abs(flat[start : start + CHUNK_WEIGHTS].astype(np.int64))
        together |= int(np.bitwise_or.reduce(part))
    return (together & -together).bit_length() - 1


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
        along = _axis_patterns(axis, start, stop)
        found = Counter({(taps * n, (*each, n)): count * times for (taps, each), count in found.items() for n, times in along})
    return found


@lru_cache(maxsize=4096)
def _axis_patterns(axis: Axis, start: int, stop: int) -> tuple[tuple[int, int], ...]:
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
