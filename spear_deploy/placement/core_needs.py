"""What does a part of a layer need of its core? Neurons, words, axons, and how many cores its spikes go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.placement.populations import Population
from spear_deploy.placement.projections import Axis, Projection, pairs_along, plain_axis, reached_count
from spear_deploy.placement.synapse_memory import Box, axis_patterns, axons_of, memory_words, neuron_words, size

Target: TypeAlias = tuple[Population, Projection]
Cuts: TypeAlias = tuple[tuple[tuple[int, int], ...], ...]
"""Along each axis of a layer the pieces (start, stop) it is cut into; a core holds one piece of each axis."""
UNLIMITED = 1 << 62
"""Stands for a limit that there is none of or that is not published: the check says which, the placement goes on."""
BOX_RESOURCES = ("neurons", "synapse_memory", "neuron_memory", "bias_memory", "axons_in")
"""What a smaller part of a layer needs less of (or no more)."""


class Core:
    """The limits of one core of a group, and what a box of a population needs of them."""

    def __init__(self, profile: HardwareProfile, weight_bits: Mapping[str, int], group: int | None = None) -> None:
        self.profile, self.weight_bits = profile, weight_bits
        self.limits = {name: _limit(leaf) for name, leaf in profile.limits_of(group).items()}
        if profile.synapse_memory.scope.value == "chip":
            self.limits["synapse_memory"] = _limit(profile.chip.memory_words)
        self.rule = profile.axons.conv.value
        self.positions = _limit(profile.axons.positions_per_core) if self.rule == "position" else UNLIMITED
        self.slots = profile.axons.slots_per_position.most or 1
        self.zeros_count = profile.synapse_memory.format.value == "word_per_weight"
        self.patterns = profile.synapse_memory.format.value == "list_blocks"
        self.most_targets = _limit(profile.connectivity.fan_out_cores)
        self.alike = profile.synapse_memory.format.value in (None, "list_words", "packed_weights", "pow2_kernel")
        self.alike = self.alike and self.rule == "source"

    @property
    def neurons(self) -> int:
        """Neurons that it holds."""
        return self.limits["neurons"]

    @property
    def memory(self) -> int:
        """Words of synapse memory that it holds."""
        return self.limits["synapse_memory"]

    def words(self, population: Population, box: Box) -> int | None:
        """Count synapse memory, or None if the format is not public; Loihi drives an input layer without synapses."""
        if population.is_input_layer and self.profile.meta.family == "loihi":
            return 0
        default = int(self.profile.weights.default_bits.value or 0)
        memory = self.profile.synapse_memory
        found = [memory_words(p, box, self.weight_bits.get(p.layer, default), memory) for p in population.projections]
        return None if None in found else sum(n for n in found if n is not None)

    def needs(self, population: Population, box: Box, copies: int = 1) -> dict[str, int | None]:
        """Return what a box needs by resource, each of its neurons standing on the core `copies` times."""
        words = self.words(population, box)
        return {
            "neurons": copies * size(box),
            "synapse_memory": None if words is None else copies * words,
            "neuron_memory": copies * neuron_words(box, self.profile.synapse_memory),
            "bias_memory": copies * _biases(population, box),
            "axons_in": self.axons_into(population, box),
        }

    def holds(self, population: Population, box: Box, limits: Mapping[str, int], copies: int = 1) -> bool:
        """Say whether a box is within limits (the core's own, or what the least box needs anyway)."""
        if copies * size(box) > limits["neurons"] or (population.is_map and size(box[1:]) > self.positions):
            return False
        needs = self.needs(population, box, copies)
        return all((needs[name] or 0) <= limits[name] for name in BOX_RESOURCES)

    def eased(self, population: Population, copies: int = 1) -> dict[str, int]:
        """Return the core's limits, raised to what one neuron needs: no cut brings a core below that."""
        least = [self.needs(population, box, copies) for box in _single(population)]
        return {name: max(self.limits[name], *((need[name] or 0) for need in least)) for name in BOX_RESOURCES}

    # ---------------------------------------------------------------------------------------------------------- axons

    def axons_into(self, population: Population, box: Box) -> int:
        """Count input axons: one for each input; of a convolution by the chip's rule for each position, source or neuron."""
        if population.is_input_layer and self.rule is not None:
            return 0 if self.rule == "position" else 1
        return sum(self._axons_of(p, box) for p in population.projections)

    def _axons_of(self, p: Projection, box: Box) -> int:
        spatial = p.kind == "conv" and len(p.axes) > 0 and len(box) == len(p.axes) + 1
        if self.rule is None or not spatial:
            return axons_of(p, box)
        if self.rule == "source":
            return p.axes[-1].stride
        return prod(reached_count(axis, *along) for axis, along in zip(p.axes, box[1:], strict=True))

    def axon_sets(self, population: Population, box: Box) -> list[AxonSet]:
        """Return the axons into a box as sets of source neurons, where slices on one core share them."""
        return [axon_set(p, box) for p in population.projections]

    def axons_from(self, population: Population, cuts: Mapping[str, Cuts], targets: Mapping[str, Sequence[Target]]) -> Array:
        """Count the output axons of every box: int64, one axis for each axis of the cuts.

        To each target core one for each neuron or position. Loihi 2 (rule "source") counts by target layer: a dense target
        takes one for each neuron, a convolution one for each position, and as many more as its stride: so the compiler prints
        AxonMap for PilotNet LIF and SDNN. An input layer has one a position.
        """
        own = cuts[population.name]
        sizes = [np.array([stop - start for start, stop in along], np.int64) for along in own]
        total = np.zeros([len(along) for along in own], np.int64)
        for target, projection in targets.get(population.name, ()):
            spatial = projection.kind == "conv" and len(projection.axes) > 0 and len(own) == len(projection.axes) + 1
            if self.rule == "source":
                stride = 1 if population.is_input_layer else max((axis.stride for axis in projection.axes), default=1)
                total += _outer([stride + 0 * sizes[0], *sizes[1:]] if spatial else sizes)
            else:
                total += _outer(self._axons_to(projection, own, sizes, cuts[target.name], spatial))
        return total

    def _axons_to(self, p: Projection, own: Cuts, sizes: list[Array], there: Cuts, spatial: bool) -> list[Array]:
        """Return factors along each axis whose product counts the axons of each box."""
        if not spatial or len(there) != len(own):
            each_once = p.kind == "one_to_one" or (p.kind == "conv" and p.groups > 1 and len(there) == len(own))
            return sizes if each_once else [sizes[0] * prod(len(along) for along in there), *sizes[1:]]
        met = np.array([[_channels_met(p, piece, taken) for taken in there[0]] for piece in own[0]], np.int64)
        factors = [self.slots * (met > 0).sum(axis=1) if self.rule == "position" else met.sum(axis=1)]
        for axis, along, taken in zip(p.axes, own[1:], there[1:], strict=True):
            sums = np.concatenate([[0], np.cumsum(_takers(axis, taken))])
            factors.append(np.array([sums[stop] - sums[start] for start, stop in along], np.int64))
        return factors

    def target_cores(self, population: Population, cuts: Mapping[str, Cuts], targets: Mapping[str, Sequence[Target]]) -> int:
        """Count the cores that one neuron's spikes go to, at most."""
        total = 0
        for target, p in targets.get(population.name, ()):
            there = cuts.get(target.name)
            if there is None:
                continue
            if p.kind == "dense" or len(there) != len(p.axes) + 1:
                total += prod(len(along) for along in there)
            elif p.kind == "one_to_one":
                total += 1
            else:
                met = max(sum(_channels_met(p, (c, c + 1), piece) > 0 for piece in there[0]) for c in range(p.channels))
                total += met * prod(int(_takers(axis, along).max()) for axis, along in zip(p.axes, there[1:], strict=True))
        return total

    # ---------------------------------------------------------------------------------------------------------- boxes

    def needs_of_all(self, population: Population, cuts: Cuts, copies: int) -> Iterator[tuple[Box, dict[str, int | None]]]:
        """Yield every box with what it needs, x slowest; boxes that are alike are looked at once."""
        kinds = [self._kinds(population, k, along) for k, along in enumerate(cuts)]
        known: dict[tuple[object, ...], dict[str, int | None]] = {}
        for chosen in product(*(range(len(along)) for along in reversed(cuts))):
            place = chosen[::-1]
            box = tuple(along[i] for along, i in zip(cuts, place, strict=True))
            key = tuple(kind[i] for kind, i in zip(kinds, place, strict=True))
            if key not in known:
                known[key] = self.needs(population, box, copies)
            yield box, known[key]

    def unlike(self, population: Population, cuts: Cuts) -> Iterator[Box]:
        """Yield one box of each kind."""
        pieces = []
        for k, along in enumerate(cuts):
            kinds = self._kinds(population, k, along)
            pieces.append(list({kind: piece for kind, piece in zip(reversed(kinds), reversed(along), strict=True)}.values()))
        yield from product(*pieces)

    def _kinds(self, population: Population, k: int, along: Sequence[tuple[int, int]]) -> list[tuple[object, ...]]:
        """Return for each piece of an axis what its needs depend on."""
        if self.zeros_count and any(p.exists is not None for p in population.projections):
            return [(piece,) for piece in along]
        axes = [p.axes[k - 1] for p in population.projections if k > 0 and len(p.axes) == len(population.shape) - 1]
        groups = {p.outputs // p.groups for p in population.projections} if k == 0 else set()
        return [
            (
                stop - start,
                *(reached_count(axis, start, stop) for axis in axes),
                *(pairs_along(axis, start, stop) for axis in axes),
                *(axis_patterns(axis, start, stop) for axis in axes if self.patterns),
                *(value for group in groups for value in (start % group, stop % group)),
            )
            for start, stop in along
        ]


def copies_for(cores: int, most: int) -> int:
    """Return how often a neuron stands on its core so that each copy goes to as few cores as the chip allows."""
    return max(1, -(-cores // most))


def targets_by_source(found: Sequence[Population]) -> dict[str, list[Target]]:
    """Find who takes a population's spikes, and through which projection."""
    targets: dict[str, list[Target]] = {}
    for population in found:
        for projection in population.projections:
            for source in projection.sources:
                targets.setdefault(source.name, []).append((population, projection))
    return targets


# ------------------------------------------------------------------------------------------------------------ inside


def _limit(leaf: Any) -> int:
    return UNLIMITED if leaf.most is None else int(leaf.most)


def _outer(factors: Sequence[Array]) -> Array:
    """Return the product of factors along each axis."""
    total: Array = factors[0]
    for factor in factors[1:]:
        total = total[..., None] * factor
    return total


def _biases(population: Population, box: Box) -> int:
    if not population.biased:
        return 0
    return box[0][1] - box[0][0] if population.is_map else size(box)


def _single(population: Population) -> Iterator[Box]:
    """Yield boxes of one neuron: at the start, the middle and the end, since a border needs less than the inside."""
    for place in (lambda n: 0, lambda n: n // 2, lambda n: n - 1):
        yield tuple((place(n), place(n) + 1) for n in population.shape)


def _channels_met(p: Projection, sent: tuple[int, int], taken: tuple[int, int]) -> int:
    """Count the input channels of a range that reach some output channels."""
    into, out = p.channels // p.groups, p.outputs // p.groups
    first, last = taken[0] // out, (taken[1] - 1) // out
    return max(0, min(sent[1], (last + 1) * into) - max(sent[0], first * into))


@lru_cache(maxsize=4096)
def _takers(axis: Axis, pieces: tuple[tuple[int, int], ...]) -> Array:
    """Count the pieces of an output axis that take each input position."""
    takes = axis.feeds()
    offset = np.arange(axis.inputs)[:, None] + axis.padding - np.array(axis.taps)
    starts = np.array([start for start, _ in pieces])
    piece = np.searchsorted(starts, offset // axis.stride, side="right")
    piece = np.sort(np.where(takes, piece, 0), axis=1)
    new = piece > 0
    new[:, 1:] &= piece[:, 1:] != piece[:, :-1]
    total: Array = new.sum(axis=1)
    return total


# FOLDED from spear_deploy/placement/core_needs.py
# Which axons do slices on one core share? A source neuron has one row of a crossbar, whoever reads it.


@dataclass(frozen=True, kw_only=True)
class AxonSet:
    """Source neurons that have an axon into a core of which slices share the rows: a box of their layer.

    Attributes:
        sources: their layers.
        channels: range of their channels.
        ranges: along each axis of positions which output positions take them.
        count: axons.
    """

    sources: tuple[str, ...]
    channels: tuple[int, int]
    ranges: tuple[tuple[Axis, int, int], ...]
    count: int


def axon_set(p: Projection, box: Box) -> AxonSet:
    """Return the source neurons that reach a box."""
    sources = tuple(sorted(source.name for source in p.sources))
    channels: tuple[int, int] = (0, p.channels)
    ranges: tuple[tuple[Axis, int, int], ...] = tuple((axis, 0, axis.outputs) for axis in p.axes)
    if p.kind == "dense":
        channels, ranges = (0, p.source_channels), tuple((axis, 0, axis.outputs) for axis in p.front)
    elif len(box) == len(p.axes) + 1:
        into, out = p.channels // p.groups, p.outputs // p.groups
        channels = (box[0][0] // out * into, ((box[0][1] - 1) // out + 1) * into)
        axes = [plain_axis(axis.inputs) for axis in p.axes] if p.kind == "one_to_one" else p.axes
        ranges = tuple((axis, *along) for axis, along in zip(axes, box[1:], strict=True))
    return AxonSet(sources=sources, channels=channels, ranges=ranges, count=axons_of(p, box))


def union_count(sets: Sequence[AxonSet]) -> int:
    """Count the axon rows of a core on which several slices lie: a source neuron's row is shared."""
    by_sources: dict[tuple[str, ...], list[AxonSet]] = {}
    for one in dict.fromkeys(sets):
        by_sources.setdefault(one.sources, []).append(one)
    total = 0
    for together in by_sources.values():
        total += together[0].count if len(together) == 1 else _union(together)
    return total


def _union(sets: Sequence[AxonSet]) -> int:
    """Count source neurons that are in any of some boxes of one layer."""
    most = max(one.channels[1] for one in sets)
    seen = np.zeros((most, *(axis.inputs for axis, _, _ in sets[0].ranges)), bool)
    for one in sets:
        inside: Array = np.zeros(most, bool)
        inside[slice(*one.channels)] = True
        for axis, start, stop in one.ranges:
            inside = inside[..., None] & axis.reached(start, stop)
        seen |= inside
    return int(seen.sum())
