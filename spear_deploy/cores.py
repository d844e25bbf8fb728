"""What does a part of a layer need of its core? Neurons, synapse memory, input and output axons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from spear_deploy.populations import Axis, Population, Projection
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.synapse_memory import Box, memory_words, size

Target: TypeAlias = tuple[Population, Projection]
UNLIMITED = 1 << 62
"""Stands for a limit that is not published: the check says so, the placement goes on."""


class Core:
    """The limits of one core, and what a box of a population needs of them."""

    def __init__(self, profile: HardwareProfile, weight_bits: Mapping[str, int]) -> None:
        self.profile, self.weight_bits = profile, weight_bits
        self.neurons = _limit(profile.core.neurons)
        self.memory = _limit(profile.core.synapse_memory)
        self.axons_in = _limit(profile.core.axons_in)
        self.axons_out = _limit(profile.core.axons_out)
        self.by_position = profile.axons.conv.value == "position"
        self.positions = _limit(profile.axons.positions_per_core) if self.by_position else UNLIMITED
        self.slots = profile.axons.slots_per_position.value or 1

    def words(self, population: Population, box: Box) -> int:
        """Count synapse memory; a netx input layer is driven without synapses."""
        if population.is_input_layer:
            return 0
        default = int(self.profile.weights.default_bits.value or 0)
        memory = self.profile.synapse_memory
        return sum(memory_words(p, box, self.weight_bits.get(p.layer, default), memory) for p in population.projections)

    def axons_into(self, population: Population, box: Box) -> int:
        """Count input axons: one for each input, or for each position (or source) of a convolution's."""
        if population.is_input_layer:
            return 0 if self.by_position else 1
        return sum(self._axons_of(p, box) for p in population.projections)

    def _axons_of(self, p: Projection, box: Box) -> int:
        if p.kind == "one_to_one":
            return size(box)
        if p.kind == "dense" or not p.axes or len(box) != len(p.axes) + 1:
            inputs = p.channels
            for axis in p.axes:
                inputs *= _reached(axis, 0, axis.outputs)
            return inputs if p.kind == "dense" or p.groups == 1 else box[0][1] - box[0][0]
        if not self.by_position:
            return p.axes[-1].stride
        count = 1
        for axis, (start, stop) in zip(p.axes, box[1:], strict=True):
            count *= _reached(axis, start, stop)
        return count

    def axons_from(
        self,
        population: Population,
        box: Box,
        boxes: Mapping[str, Sequence[Box]],
        targets: Mapping[str, Sequence[Target]],
    ) -> int:
        """Count output axons: to each target core one for each neuron (Loihi 1), or one for each target layer (Loihi 2)."""
        total = 0
        for target, projection in targets.get(population.name, ()):
            spatial = len(projection.axes) > 0 and len(box) == len(projection.axes) + 1 and projection.kind == "conv"
            if not self.by_position:
                total += size(box[1:]) if spatial else size(box)
                continue
            for there in boxes[target.name]:
                total += self._axons_between(projection, box, there, spatial)
        return total

    def _axons_between(self, projection: Projection, box: Box, there: Box, spatial: bool) -> int:
        if not spatial or len(there) != len(box):
            return size(box) if projection.kind == "dense" or projection.groups == 1 else _overlap(box, there)
        if projection.groups > 1 and not _channels_meet(projection, box[0], there[0]):
            return 0
        count = self.slots
        for axis, here, (start, stop) in zip(projection.axes, box[1:], there[1:], strict=True):
            count *= _reached_between(axis, start, stop, *here)
        return count

    def holds(self, population: Population, box: Box) -> bool:
        """Say whether a box is within every limit that a smaller box would ease."""
        if size(box) > self.neurons or self.words(population, box) > self.memory:
            return False
        return not population.is_map or (size(box[1:]) <= self.positions and self.axons_into(population, box) <= self.axons_in)


def _limit(leaf: Any) -> int:
    return UNLIMITED if leaf.value is None else int(leaf.value)


@lru_cache(maxsize=4096)
def _reached(axis: Axis, start: int, stop: int) -> int:
    return int(axis.reached(start, stop).sum())


@lru_cache(maxsize=65536)
def _reached_between(axis: Axis, start: int, stop: int, first: int, last: int) -> int:
    return int(axis.reached(start, stop)[first:last].sum())


def _overlap(a: Box, b: Box) -> int:
    """Count the neurons in both boxes, one axis of a vector against one of another."""
    if len(a) != len(b):
        return size(a)
    return size(tuple((max(p, r), max(max(p, r), min(q, s))) for (p, q), (r, s) in zip(a, b, strict=True)))


def _channels_meet(p: Projection, sent: tuple[int, int], taken: tuple[int, int]) -> bool:
    """Say whether input channels `sent` reach output channels `taken` of a convolution in groups."""
    into, out = p.channels // p.groups, p.outputs // p.groups
    first, last = taken[0] // out, (taken[1] - 1) // out
    return sent[0] < (last + 1) * into and sent[1] > first * into


def targets_by_source(found: Sequence[Population]) -> dict[str, list[Target]]:
    """Find who takes a population's spikes, and through which projection."""
    targets: dict[str, list[Target]] = {}
    for population in found:
        for projection in population.projections:
            for source in projection.sources:
                targets.setdefault(source.name, []).append((population, projection))
    return targets
