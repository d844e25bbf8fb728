"""Splitting of layers into boxes, one core per box.

Packing "vendor" follows the rule of the chip's tool; "fewest" cuts into as few boxes as the limits allow. By `packing.rule`
of the profile:

    divide   Loihi 2. Dense: at most L neurons a core, L = the core's neurons at first; while a share overflows the synapse
             memory, L ← L // ceil(words / memory). Convolution: a core takes a tile of x · H · c neurons, c = C halved until
             the kernel fits the memory, x the largest power of two that the core's neurons allow; H is cut only where it has
             to, or, with `tile_axes` x and y, into the largest power of two ≤ sqrt(neurons / limit) parts.
    equal    Loihi 1 and others. Equal shares, as few as the limits allow.
    whole    Speck, Xylo. A layer is not cut.

Where the spikes of a neuron can go to few cores or layers only (a crossbar), the neuron stands on its core in several copies,
which read the same axons and so send the same spikes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import isqrt, prod
from typing import Any, Literal, TypeAlias

from spear_deploy.network import Shape
from spear_deploy.placement.axes import count_inputs
from spear_deploy.placement.axon_sets import AxonSet
from spear_deploy.placement.core_assignment import Slice
from spear_deploy.placement.core_needs import UNLIMITED, Core, Cuts, Target, group_targets_by_source
from spear_deploy.placement.populations import Population
from spear_deploy.placement.projections import Projection
from spear_deploy.placement.synapse_memory import Box, ceil_div

PackingName: TypeAlias = Literal["vendor", "fewest", "balanced"]

MAX_ROUNDS = 6
"""Rounds in which layers are cut again because the cores of their targets changed: loops settle within a few."""
MAX_GROWING_ROUNDS = 300
"""Rounds while copies of neurons become more: by one each, and a core of TrueNorth has room for 256."""
MAX_BOXES = 20_000
"""Boxes that are measured one by one, if the chips have no more cores."""


class SplitNetwork:
    """The layers of a network cut into boxes, with the needs of each box.

    A network that takes far more cores than there are is not cut to the end: its boxes hold as many neurons as a core,
    whatever else they need.

    Attributes:
        total_boxes: number of boxes of the network cut to the end.
        cuts, copies: by population.
        own_cuts: cuts of layers that are not split by the packing's rule.
    """

    def __init__(
        self,
        populations: Sequence[Population],
        cores: Sequence[Core],
        packing: PackingName,
        cache: dict[Any, Cuts],
        chips: int,
        own_cuts: Mapping[str, Cuts] | None = None,
    ) -> None:
        self.own_cuts = own_cuts or {}
        self.populations, self.cores, self.packing, self.cache = tuple(populations), cores, packing, cache
        self.targets: dict[str, list[Target]] = group_targets_by_source(populations)
        self.cuts, self.copies = self._cut()
        self.total_boxes = sum(prod(len(along) for along in cuts) for cuts in self.cuts.values())
        core = cores[0]
        if self.total_boxes > max(MAX_BOXES, core.profile.cores_limit(chips) or 0):
            min_neurons = sum(population.neurons for population in populations) // MAX_BOXES + 1
            self.cuts = {p.name: split_by_neurons(p, max(min_neurons, min(core.neurons, p.neurons))) for p in self.populations}
            self.copies = dict.fromkeys(self.copies, 1)

    def _cut(self) -> tuple[dict[str, Cuts], dict[str, int]]:
        """Cut the layers, last ones first: the cores that a neuron's spikes go to decide the number of its copies.

        Over a delay or in a loop spikes also go to layers that are cut later: then all are cut again until nothing changes.
        More copies of a neuron leave less room on a core, and so may need more of them in turn.
        """
        copies = {population.name: 1 for population in self.populations}
        cuts = {population.name: self._split(population, 1) for population in self.populations}
        for rounds in range(MAX_GROWING_ROUNDS):
            before, fewer = dict(cuts), dict(copies)
            for population in reversed(self.populations):
                name = population.name
                copies[name] = self._count_copies(population, cuts)
                cuts[name] = self._split(population, copies[name])
                cuts[name] = refine_for_axons_out(population, self._choose_core(population), cuts, self.targets)
            is_growing = any(count > fewer[name] for name, count in copies.items())
            if cuts == before or self._is_in_order or (rounds + 1 >= MAX_ROUNDS and not is_growing):
                break
        return cuts, copies

    def _count_copies(self, population: Population, cuts: Mapping[str, Cuts]) -> int:
        """Return how often a neuron stands on its core: on a crossbar it reaches few cores, and few layers."""
        core = self.cores[0]
        if core.profile.synapse_memory.format.value != "crossbar":
            return 1
        needed = ceil_div(core.count_target_cores(population, cuts, self.targets), core.max_target_cores)
        max_destinations = core.profile.core.destinations.max_value
        if max_destinations is not None:  # a copy on the same core reads the same axons, a loop's too
            needed = max(needed, ceil_div(self._count_destinations(population), int(max_destinations)))
        return max(1, needed)

    @cached_property
    def _is_in_order(self) -> bool:
        """Whether spikes go to later layers alone, so that each layer is cut when those that read it are."""
        place = {population.name: k for k, population in enumerate(self.populations)}
        readers = ((place.get(source, -1), place[target.name]) for source, pairs in self.targets.items() for target, _ in pairs)
        return all(a < b for a, b in readers)

    def _count_destinations(self, population: Population) -> int:
        """Count the layers that read a population."""
        return len({target.name for target, _ in self.targets.get(population.name, ())})

    def _split(self, population: Population, copies: int) -> Cuts:
        if population.name in self.own_cuts:
            return self.own_cuts[population.name]
        core = self._choose_core(population)
        bits = tuple(core.weight_bits.get(p.layer) for p in population.projections)
        is_divided = core.profile.packing.rule.value == "divide"
        key = (population, self.packing if is_divided else "", copies, *bits)
        if key not in self.cache:
            self.cache[key] = split_population(population, core, self.packing, copies)
        return self.cache[key]

    def _choose_core(self, population: Population) -> Core:
        """Return the kind of core by which a layer is cut: the one that takes it in the fewest pieces."""
        if len(self.cores) == 1 or self.cores[0].profile.packing.rule.value == "whole":
            return self.cores[0]
        return min(self.cores, key=lambda core: prod(len(along) for along in split_population(population, core, self.packing)))

    @cached_property
    def target_cores(self) -> dict[str, int]:
        """Cores that a neuron's spikes go to at most, by population."""
        return {p.name: self.cores[0].count_target_cores(p, self.cuts, self.targets) for p in self.populations}

    @cached_property
    def boxes(self) -> list[tuple[Population, Box]]:
        """The population and box of each item."""
        return [(population, box) for population, box, _ in self._measured]

    @cached_property
    def items(self) -> list[Slice]:
        """The slices that need a core, in the order of the layers; equal ones are one object."""
        return [item for *_, item in self._measured]

    @cached_property
    def _measured(self) -> list[tuple[Population, Box, Slice]]:
        core, measured = self.cores[0], []
        for population in self.populations:
            cuts = self.cuts[population.name]
            axons_out = core.count_axons_from(population, self.cuts, self.targets).transpose().reshape(-1).tolist()
            destinations = ceil_div(self._count_destinations(population), self.copies[population.name])
            boxes = core.iterate_needs(population, cuts, self.copies[population.name])
            projections = () if core.rule is not None else population.projections
            ways = [0] * len(projections) if core.adds_ways else number_ways(projections, population.shape, core)
            axon_sets: dict[tuple[int, Box], AxonSet] = {}
            kinds: dict[tuple[int, ...], Slice] = {}
            for out, (box, needs) in zip(axons_out, boxes, strict=True):
                axons = tuple(_find_axons(core, p, box, way, axon_sets) for p, way in zip(projections, ways, strict=True))
                key = (id(needs), out, *map(id, axons))
                if key not in kinds:
                    amounts = {**needs, "axons_out": out, "destinations": destinations}
                    kinds[key] = Slice(
                        layer=population.name, needs=amounts, axons=tuple(dict.fromkeys(axons)), readout=population.output
                    )
                measured.append((population, box, kinds[key]))
        return measured

    def list_orders(self) -> list[list[int]]:
        """Return orders for first fit: that of the layers, and by the share of a core, large ones first."""
        limits = self.cores[0].limits
        items = self.items

        def share(i: int) -> float:
            return max((items[i].needs.get(name) or 0) / limits[name] for name in limits if name != "layers")

        indices = list(range(len(items)))
        return [indices, sorted(indices, key=lambda i: (-share(i), i))]


def number_ways(projections: Sequence[Projection], shape: Shape, core: Core) -> list[int]:
    """Return for each projection its number among those from the same sources with its delay, the one with most rows first.

    Layers share the rows of ways with the same number, so that their order in the network does not decide which do.
    """
    whole: Box = tuple((0, n) for n in shape)
    sizes = [(-core.count_rows(p, whole), p.kind, p.tap_counts) for p in projections]
    numbers, met = [0] * len(sizes), Counter[tuple[int, tuple[str, ...]]]()
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        key = core.find_delay(projections[i]), tuple(sorted(source.name for source in projections[i].sources))
        numbers[i] = met[key]
        met[key] += 1
    return numbers


def _find_axons(core: Core, p: Projection, box: Box, way: int, known: dict[tuple[int, Box], AxonSet]) -> AxonSet:
    """Return the source neurons that reach a box; those of boxes that read the same ones are one object."""
    is_whole = p.kind == "dense"
    reads_all_channels = p.kind == "conv" and p.groups == 1 and len(box) == len(p.axes) + 1
    key = (id(p), box if core.knows_zeros(p) else () if is_whole else box[1:] if reads_all_channels else box)
    if key not in known:
        known[key] = core.find_axon_set(p, box, way)
    return known[key]


def split_population(population: Population, core: Core, packing: PackingName, copies: int = 1) -> Cuts:
    """Cut a population into boxes of one core each, every neuron standing there `copies` times."""
    rule = core.profile.packing.rule.value
    if rule == "whole":
        return cut_evenly(population.shape, population.shape)
    if rule == "divide" and packing == "vendor":
        if population.is_map:
            return cut_evenly(population.shape, _divide_tile(population, core))
        return cut_evenly(population.shape, (_divide_share(population, core),))
    limits = core.relax_limits(population, copies)

    def fits(box: Box, of: Population = population) -> bool:
        return core.fits(of, box, limits, copies)

    if not population.is_map:
        return cut_evenly(population.shape, (_find_share(population, core, fits, (), population.shape[0]),))
    return _refine_tile(population, core, fits, _largest_tile(population, core, fits, limits["neurons"] // copies))


def _find_share(population: Population, core: Core, fits: Callable[..., bool], tile: Box, most: int) -> int:
    """Return how many channels (or neurons) of a tile a core takes, in equal shares of at most `most`; 0 where not one fits.

    Shares need the same unless they differ by place: then each is measured. Where weights of 0 are why, that is not needed if
    all fit without zeros. One neuron fits, since its limits are raised to what it needs.
    """
    total, whole = population.shape[0], population.without_zeros
    differ, has_zeros = core.differs_by_place(population), core.has_zeros(population)
    alike = not core.differs_by_place(whole) and all(p.groups == 1 for p in population.projections)

    def fits_all(n: int) -> bool:
        if n == 1 and not tile:
            return True
        shares = [((a, min(a + n, total)), *tile) for a in (range(0, total, n) if differ else (0,))]
        if has_zeros and all(fits(share, whole) for share in shares[: 1 if alike else None]):
            return True
        return all(fits(share) for share in shares)

    largest = find_largest(min(most, total), fits_all)
    if largest is None:
        return 0
    parts = ceil_div(total, largest)
    while differ and not fits_all(ceil_div(total, parts)):
        parts = ceil_div(total, ceil_div(total, parts) - 1)
    return ceil_div(total, parts)


def split_by_neurons(population: Population, max_neurons: int) -> Cuts:
    """Halve the longest axis until no box has more than `max_neurons`, whatever else it needs."""
    extent = population.shape
    while prod(extent) > max_neurons:
        extent = _halve(extent, extent.index(max(extent)))
    return cut_evenly(population.shape, extent)


def cut_evenly(shape: Shape, extent: Sequence[int]) -> Cuts:
    """Return the pieces of each axis; the last may be smaller."""
    return tuple(tuple((a, min(a + step, n)) for a in range(0, n, step)) for n, step in zip(shape, extent, strict=True))


def refine_for_axons_out(
    population: Population, core: Core, cuts: Mapping[str, Cuts], targets: Mapping[str, Sequence[Target]]
) -> Cuts:
    """Cut a population further while its output axons are too many and a cut makes them fewer."""
    pieces = cuts[population.name]
    if core.limits["axons_out"] >= UNLIMITED or core.profile.packing.rule.value == "whole":
        return pieces
    axons = core.count_max_axons_from(population, cuts, targets)
    extent = tuple(along[0][1] - along[0][0] for along in pieces)
    while axons > core.limits["axons_out"]:
        for axis in _order_axes(extent, is_map=population.is_map):
            halved = _halve(extent, axis)
            finer = cut_evenly(population.shape, halved)
            fewer = core.count_max_axons_from(population, {**cuts, population.name: finer}, targets)
            if fewer < axons:
                extent, pieces, axons = halved, finer, fewer
                break
        else:
            break
    return pieces


def find_largest(limit: int, fits: Callable[[int], bool]) -> int | None:
    """Return the largest n in 1..limit that fits, by bisection, or None: fits(n) implies fits(n − 1).

    >>> find_largest(9, lambda n: n * n <= 30), find_largest(9, lambda n: False)
    (5, None)
    """
    if limit < 1 or not fits(1):
        return None
    return bisect_right(range(1, limit + 1), False, key=lambda n: not fits(n))


# ------------------------------------------------------------------------------------------------- Loihi 2's own rule


def _list_shares(population: Population, core: Core, neurons: int) -> list[Box]:
    """Return the shares of so many neurons, or the first alone where all need the same."""
    starts = range(0, population.neurons, neurons) if core.differs_by_place(population) else (0,)
    return [((start, min(start + neurons, population.neurons)),) for start in starts]


def _divide_share(population: Population, core: Core) -> int:
    """Return the neurons of a core by Loihi 2's rule.

    PilotNet's 2560 → 100 at 3 bits: 4095 → 682 → 113 neurons need 61440 words, six times 12000; 18 need 12800; 9 fit.
    """
    per_core = core.neurons if core.neurons < UNLIMITED else population.neurons
    while per_core > 1:
        words = max(core.count_words(population, share) or 0 for share in _list_shares(population, core, per_core))
        if words <= core.memory:
            break
        per_core = max(1, per_core // ceil_div(words, core.memory))
    return min(per_core, population.neurons)


def _divide_tile(population: Population, core: Core) -> tuple[int, ...]:
    """Return the extent of a tile by Loihi 2's rule."""
    channels, *positions = population.shape
    whole = tuple((0, n) for n in positions)
    while channels > 1 and (
        channels > core.neurons or (core.count_words(population, ((0, channels), *whole)) or 0) > core.memory
    ):
        channels = ceil_div(channels, 2)
    width, rows = positions[-1], positions[:-1]
    if rows:
        rows = [ceil_div(rows[0], _count_row_parts(rows[0], width, channels, core))]
    column = channels * (rows[0] if rows else 1)
    tile = 1
    while tile < width and 2 * tile * column <= core.neurons:
        tile *= 2
    return (channels, *rows, min(tile, width))


def _count_row_parts(rows: int, width: int, channels: int, core: Core) -> int:
    parts = 1
    if core.profile.packing.tile_axes.value and "y" in core.profile.packing.tile_axes.value:
        while (2 * parts) <= isqrt(ceil_div(rows * width * channels, core.neurons)):
            parts *= 2
    while parts < rows and ceil_div(rows, parts) * channels > core.neurons:
        parts *= 2
    return min(parts, rows)


# ------------------------------------------------------------------------------------------------- as few boxes as can be


def _largest_tile(population: Population, core: Core, fits: Callable[..., bool], max_neurons: int) -> tuple[int, ...]:
    """Return the extent of a tile so that equal tiles are as few as possible; among those the one with the widest rows."""
    channels, *positions = population.shape
    candidates = []
    for extent in product(*(_part_sizes(n) for n in positions)):
        area = prod(extent)
        if area <= min(max_neurons, core.positions):
            max_channels = min(channels, max_neurons // area)
            parts = prod(ceil_div(n, part) for n, part in zip(positions, extent, strict=True))
            candidates.append(
                (parts * ceil_div(channels, max_channels), parts, tuple(-n for n in reversed(extent)), max_channels)
            )
    best: tuple[int, tuple[int, ...], tuple[int, ...]] | None = None
    for min_tiles, parts, narrowness, max_channels in sorted(candidates):
        if best is not None and min_tiles > best[0]:
            break
        extent = tuple(-n for n in reversed(narrowness))
        share = _find_share(population, core, fits, _fullest_tile(population, core, extent), max_channels)
        if not share:
            continue
        candidate = (parts * ceil_div(channels, share), narrowness, (share, *extent))
        best = candidate if best is None else min(best, candidate)
    return best[2] if best else (1, *(1 for _ in positions))


def _refine_tile(population: Population, core: Core, fits: Callable[..., bool], extent: tuple[int, ...]) -> Cuts:
    """Return the cuts, finer where a tile in the middle of a map needs more than those that were measured."""
    cuts = cut_evenly(population.shape, extent)
    if core.has_uniform_tiles:
        return cuts
    whole = population.without_zeros

    def fits_all(cuts: Cuts) -> bool:
        if core.has_zeros(population) and all(fits(box, whole) for box in core.iterate_distinct_boxes(whole, cuts)):
            return True
        return all(fits(box) for box in core.iterate_distinct_boxes(population, cuts))

    while (axes := _order_axes(extent, is_map=True)) and not fits_all(cuts):
        extent = _halve(extent, axes[0])
        cuts = cut_evenly(population.shape, extent)
    return cuts


def _fullest_tile(population: Population, core: Core, extent: tuple[int, ...]) -> Box:
    """Return, along each axis of positions, the piece that reads the most inputs."""
    if core.has_uniform_tiles:
        return tuple((0, n) for n in extent)
    tile = []
    for k, (n, step) in enumerate(zip(population.shape[1:], extent, strict=True)):
        pieces = [(a, min(a + step, n)) for a in range(0, n, step)]
        candidates = [pieces[0], pieces[len(pieces) // 2]]
        axes = [p.axes[k] for p in population.projections if len(p.axes) == len(extent)]
        tile.append(max(candidates, key=lambda piece: sum(count_inputs(axis, *piece) for axis in axes)))
    return tuple(tile)


def _part_sizes(n: int) -> set[int]:
    """Return the sizes of the first part when n is cut into 1, 2, 3, ... parts."""
    return {ceil_div(n, parts) for parts in range(1, n + 1)}


def _order_axes(extent: Sequence[int], *, is_map: bool) -> list[int]:
    """Return the axes that can be cut, longest first; of a map channels last, since they share the axons of a position."""
    return sorted((k for k, n in enumerate(extent) if n > 1), key=lambda k: (is_map and k == 0, -extent[k]))


def _halve(extent: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(ceil_div(n, 2) if k == axis else n for k, n in enumerate(extent))
