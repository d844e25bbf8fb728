"""Where is a layer cut? The vendors' rules, and as few cores as the limits allow.

By `packing.rule` of the profile:

    divide   Loihi 2. Dense: at most L neurons a core, L = the core's neurons at first; while a share overflows the synapse
             memory, L ← L // ceil(words / memory). Convolution: a core takes a tile of x · H · c neurons, c = C halved until
             the kernel fits the memory, x the largest power of two that the core's neurons allow; H is cut only where it has
             to, or, with `tile_axes` x and y, into the largest power of two ≤ sqrt(neurons / limit) parts.
    equal    Loihi 1 and others. Equal shares, as few as the limits allow.
    whole    Speck, Xylo. A layer is not cut.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import isqrt, prod
from typing import Any, Literal, TypeAlias

from spear_deploy.network import Shape
from spear_deploy.placement.core_assignment import Item
from spear_deploy.placement.core_needs import UNLIMITED, Core, Cuts, Target, copies_for, targets_by_source
from spear_deploy.placement.populations import Population
from spear_deploy.placement.projections import reached_count
from spear_deploy.placement.synapse_memory import Box, size

PackingName: TypeAlias = Literal["vendor", "fewest"]


def split(population: Population, core: Core, packing: PackingName, copies: int = 1) -> Cuts:
    """Cut a population into the boxes that lie on one core each, every neuron standing there `copies` times."""
    rule = core.profile.packing.rule.value
    if rule == "whole":
        return cuts_of(population.shape, population.shape)
    if rule == "divide" and packing == "vendor":
        if population.is_map:
            return cuts_of(population.shape, _divided_tile(population, core))
        return cuts_of(population.shape, (_divided_share(population, core), *population.shape[1:]))
    limits = core.eased(population, copies)

    def fits(box: Box) -> bool:
        return core.holds(population, box, limits, copies)

    extent = _fewest_tile(population, core, fits, limits, copies) if population.is_map else _fewest_share(population, fits)
    return _within(population, core, fits, extent)


def by_neurons(population: Population, most: int) -> Cuts:
    """Cut a population so that no box has more neurons, whatever else it needs: the longest axis is halved as often as needed."""
    extent = list(population.shape)
    while prod(extent) > most:
        axis = extent.index(max(extent))
        extent[axis] = _ceil(extent[axis], 2)
    return cuts_of(population.shape, extent)


def cuts_of(shape: Shape, extent: Sequence[int]) -> Cuts:
    """Return the pieces of each axis; the last may be smaller."""
    return tuple(tuple((a, min(a + step, n)) for a in range(0, n, step)) for n, step in zip(shape, extent, strict=True))


def boxes_of(cuts: Cuts) -> Iterator[Box]:
    """Yield the boxes; x runs slowest, as the vendors count."""
    for chosen in product(*reversed(cuts)):
        yield tuple(reversed(chosen))


def _within(population: Population, core: Core, fits: Callable[[Box], bool], extent: tuple[int, ...]) -> Cuts:
    """Return the cuts, finer where a tile in the middle of a map needs more than those that were looked at."""
    cuts = cuts_of(population.shape, extent)
    if core.alike or not population.is_map:
        return cuts
    while max(extent[1:]) > 1 and not all(fits(box) for box in core.unlike(population, cuts)):
        axis = _longest_position(extent)
        extent = (*extent[:axis], _ceil(extent[axis], 2), *extent[axis + 1 :])
        cuts = cuts_of(population.shape, extent)
    return cuts


def _share(population: Population, neurons: int) -> Box:
    return ((0, min(neurons, population.shape[0])), *((0, n) for n in population.shape[1:]))


def _divided_share(population: Population, core: Core) -> int:
    """Return the neurons of a core by Loihi 2's rule.

    PilotNet's 2560 → 100 at 3 bits: 4095 → 682 → 113 neurons need 61440 words, six times 12000; 18 need 12800; 9 fit.
    """
    inner = size(_share(population, 1))
    per_core = max(1, core.neurons // inner) if core.neurons < UNLIMITED else population.shape[0]
    while per_core > 1:
        words = core.words(population, _share(population, per_core)) or 0
        if words <= core.memory:
            break
        per_core = max(1, per_core // _ceil(words, core.memory))
    return min(per_core, population.shape[0])


def _fewest_share(population: Population, fits: Callable[[Box], bool]) -> tuple[int, ...]:
    """Return the extent of a share so that equal shares are as few as possible."""
    total = population.shape[0]
    most = _largest(total, lambda n: fits(_share(population, n)))
    return (_ceil(total, _ceil(total, most)), *population.shape[1:])


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest n in 1..limit that fits, or 1: fits(n) implies fits(n − 1)."""
    return max(1, bisect_right(range(1, limit + 1), False, key=lambda n: not fits(n)))


def _divided_tile(population: Population, core: Core) -> tuple[int, ...]:
    """Return the extent of a tile by Loihi 2's rule."""
    channels, *positions = population.shape
    whole = tuple((0, n) for n in positions)
    while channels > 1 and (channels > core.neurons or (core.words(population, ((0, channels), *whole)) or 0) > core.memory):
        channels = _ceil(channels, 2)
    width, rows = positions[-1], positions[:-1]
    if rows:
        rows = [_ceil(rows[0], _row_parts(rows[0], width, channels, core))]
    across = channels * (rows[0] if rows else 1)
    tile = 1
    while tile < width and 2 * tile * across <= core.neurons:
        tile *= 2
    return (channels, *rows, min(tile, width))


def _row_parts(rows: int, width: int, channels: int, core: Core) -> int:
    """Return into how many parts the rows are cut."""
    parts = 1
    if core.profile.packing.tile_axes.value and "y" in core.profile.packing.tile_axes.value:
        while (2 * parts) <= isqrt(_ceil(rows * width * channels, core.neurons)):
            parts *= 2
    while parts < rows and _ceil(rows, parts) * channels > core.neurons:
        parts *= 2
    return min(parts, rows)


def _fewest_tile(
    population: Population, core: Core, fits: Callable[[Box], bool], limits: Mapping[str, int], copies: int
) -> tuple[int, ...]:
    """Return the extent of a tile so that equal tiles are as few as possible; among those the one with the widest rows."""
    channels, *positions = population.shape
    room = limits["neurons"] // copies
    candidates = []
    for extent in product(*(_equal_parts(n) for n in positions)):
        area = size(tuple((0, n) for n in extent))
        if area <= min(room, core.positions):
            most = min(channels, room // area)
            parts = _parts(positions, extent)
            candidates.append((parts * _ceil(channels, most), parts, tuple(-n for n in reversed(extent)), most))
    best: tuple[int, tuple[int, ...], tuple[int, ...]] | None = None
    for at_least, parts, narrowness, most in sorted(candidates):
        if best is not None and at_least > best[0]:
            break
        inside = _fullest_tile(population, core, tuple(-n for n in reversed(narrowness)))
        if not fits(((0, 1), *inside)):
            continue

        def holds(n: int, inside: Box = inside) -> bool:
            return fits(((0, n), *inside))

        cuts = _ceil(channels, _largest(most, holds))
        extent = (_ceil(channels, cuts), *(-n for n in reversed(narrowness)))
        candidate = (parts * cuts, narrowness, extent)
        best = candidate if best is None else min(best, candidate)
    return best[2] if best else (1, *(1 for _ in positions))


def _fullest_tile(population: Population, core: Core, extent: tuple[int, ...]) -> Box:
    """Return, along each axis of positions, the piece that takes the most inputs."""
    if core.alike:
        return tuple((0, n) for n in extent)
    found = []
    for k, (n, step) in enumerate(zip(population.shape[1:], extent, strict=True)):
        pieces = [(a, min(a + step, n)) for a in range(0, n, step)]
        middle = [pieces[0], pieces[len(pieces) // 2]]
        axes = [p.axes[k] for p in population.projections if len(p.axes) == len(extent)]
        found.append(max(middle, key=lambda piece: (sum(reached_count(axis, *piece) for axis in axes), -piece[0])))
    return tuple(found)


def _equal_parts(n: int) -> list[int]:
    """Return the sizes of the first part when n is cut into 1, 2, 3, ... parts."""
    return sorted({_ceil(n, parts) for parts in range(1, n + 1)}, reverse=True)


def _parts(whole: Sequence[int], extent: Sequence[int]) -> int:
    count = 1
    for n, part in zip(whole, extent, strict=True):
        count *= _ceil(n, part)
    return count


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def with_axons_out(population: Population, core: Core, cuts: Mapping[str, Cuts], targets: Mapping[str, Sequence[Target]]) -> Cuts:
    """Cut a population further while its output axons are too many and a cut makes them fewer."""
    parts = cuts[population.name]
    if core.limits["axons_out"] >= UNLIMITED or core.profile.packing.rule.value == "whole":
        return parts
    most = int(core.axons_from(population, cuts, targets).max())
    while most > core.limits["axons_out"]:
        extent = [along[0][1] - along[0][0] for along in parts]
        axis = _longest_position(extent) if population.is_map else extent.index(max(extent))
        if extent[axis] == 1:
            break
        extent[axis] = _ceil(extent[axis], 2)
        finer = cuts_of(population.shape, extent)
        fewer = int(core.axons_from(population, {**cuts, population.name: finer}, targets).max())
        if fewer >= most:
            break
        parts, most = finer, fewer
    return parts


def _longest_position(extent: Sequence[int]) -> int:
    """Return the axis to cut: a longest one of the positions, whose axons channels share; channels last."""
    positions = list(extent[1:])
    return 1 + positions.index(max(positions)) if max(positions) > 1 else 0


# FOLDED from spear_deploy/placement/splitting.py
# Into which boxes do the layers of a network fall, and what does each need?

ROUNDS = 6
"""How often layers are cut again because the cores of their targets changed: loops settle within a few."""
MOST_BOXES = 20_000
"""Boxes that are looked at one by one, if the chips at hand have no more cores."""


class Parts:
    """Layers cut into boxes, and what each box needs.

    A network that takes far more cores than there are is not cut to the end: `boxes_in_all` says into how many boxes it falls,
    the boxes themselves hold as many neurons as a core, whatever else they need.
    """

    def __init__(
        self, found: Sequence[Population], cores: Sequence[Core], packing: PackingName, known: dict[Any, Cuts], chips: int
    ) -> None:
        self.found, self.cores, self.packing, self.known = tuple(found), cores, packing, known
        self.targets: dict[str, list[Target]] = targets_by_source(found)
        self.cuts, self.copies = self._cut()
        self.boxes_in_all = sum(prod(len(along) for along in cuts) for cuts in self.cuts.values())
        core = cores[0]
        self.hopeless = self.boxes_in_all > max(MOST_BOXES, core.profile.cores_limit(chips) or 0)
        if self.hopeless:
            least = sum(population.neurons for population in found) // MOST_BOXES + 1
            self.cuts = {p.name: by_neurons(p, max(least, min(core.neurons, p.neurons))) for p in found}
            self.copies = dict.fromkeys(self.copies, 1)
        self.target_cores = {p.name: core.target_cores(p, self.cuts, self.targets) for p in found}
        self.boxes: list[tuple[Population, Box]] = []
        self.items = self._items()

    def _cut(self) -> tuple[dict[str, Cuts], dict[str, int]]:
        """Cut the layers, last ones first: how many cores a neuron's spikes go to decides how often it stands on its own."""
        cuts: dict[str, Cuts] = {}
        copies: dict[str, int] = {}
        copied = self.cores[0].profile.synapse_memory.format.value == "crossbar"
        limited = self.cores[0].most_targets if copied else UNLIMITED
        for _ in range(ROUNDS):
            before = dict(cuts)
            for population in reversed(self.found):
                copies[population.name] = copies_for(self.cores[0].target_cores(population, cuts, self.targets), limited)
                cuts[population.name] = self._split(population, copies[population.name])
            for population in reversed(self.found):
                core = self._core_for(population)
                cuts[population.name] = with_axons_out(population, core, cuts, self.targets)
            if cuts == before or len(copies) == sum(copies.values()):
                break
        return cuts, copies

    def _split(self, population: Population, copies: int) -> Cuts:
        core = self._core_for(population)
        bits = tuple(core.weight_bits.get(p.layer) for p in population.projections)
        divided = core.profile.packing.rule.value == "divide"
        key = (population, self.packing if divided else "", copies, *bits)
        if key not in self.known:
            self.known[key] = split(population, core, self.packing, copies)
        return self.known[key]

    def _core_for(self, population: Population) -> Core:
        """Return the kind of core by which a layer is cut: the one that takes it in the fewest pieces."""
        if len(self.cores) == 1 or self.cores[0].profile.packing.rule.value == "whole":
            return self.cores[0]

        def pieces(core: Core) -> int:
            return prod(len(along) for along in split(population, core, self.packing))

        return min(self.cores, key=pieces)

    def _items(self) -> list[Item]:
        """Return what has to be seated, and note the boxes."""
        core, found = self.cores[0], []
        for population in self.found:
            cuts = self.cuts[population.name]
            out = core.axons_from(population, self.cuts, self.targets).transpose().reshape(-1).tolist()
            destinations = len({target.name for target, _ in self.targets.get(population.name, ())})
            boxes = core.needs_of_all(population, cuts, self.copies[population.name])
            for axons_out, (box, needs) in zip(out, boxes, strict=True):
                needs = {**needs, "axons_out": axons_out, "destinations": destinations}
                axons = () if core.rule is not None else tuple(core.axon_sets(population, box))
                found.append(Item(layer=population.name, needs=needs, axons=axons, readout=population.output))
                self.boxes.append((population, box))
        return found

    def orders(self) -> list[list[int]]:
        """Return orders in which first fit may do better than in that of the layers: by the share of a core, large ones first."""
        limits = self.cores[0].limits
        items = self.items

        def share(i: int) -> float:
            return max((items[i].needs.get(name) or 0) / limits[name] for name in limits if name != "layers")

        indices = list(range(len(items)))
        return [indices, sorted(indices, key=lambda i: (-share(i), i))]
