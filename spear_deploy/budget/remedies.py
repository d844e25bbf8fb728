"""Remedies of violations, each confirmed by a check of the changed network.

A remedy is offered only if `what_if` shows that the violation is gone, and with the fewest channels or the most bits for
which it is. Cheapest first: what costs nothing, then what loses the least share of bits or channels, then more chips; only
where none of these is enough, what changes several layers at once. A remedy that fails costs itself and never the verdict:
the failure is logged at level debug with its traceback.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import TypeAlias

from spear_deploy.budget.core_rows import CHIP, BudgetRow
from spear_deploy.budget.what_if import PLACED, UNCHANGED, Change, WhatIf
from spear_deploy.network.channel_groups import ChannelGroup
from spear_deploy.network.graph import INPUT
from spear_deploy.network.labels import name_layers
from spear_deploy.placement.place import Placement
from spear_deploy.placement.populations import Population
from spear_deploy.placement.splitting import find_largest
from spear_deploy.util.number_format import plural

MAX_GROUPS = 6
"""Groups of channels that are tried, those with the most cores first: each costs a bisection."""
MAX_MORE_CHIPS = 8
"""Numbers of chips that are tried."""
WIDTH_STEPS = 20
"""All layers are tried in steps of a twentieth of their width."""
MAX_WEIGHT_BITS = UNCHANGED.max_weight_bits
LAYER_COUNTS = ("destinations", "fan_out_cores")
"""Counts of whole layers, which no width changes."""

FIXED = ("input_channels", "output_channels")
"""Counts of channels at the ends of a network, which no narrower layer changes."""

LOG = logging.getLogger(__name__)

Offer: TypeAlias = tuple[float, str]
"""(cost: the share of bits or channels that go, more than 1 for hardware; the remedy in words)."""


def find_remedies(base: WhatIf, row: BudgetRow, fewest_cores: Placement) -> str:
    """Return what removes a violation, the cheapest first, separated by "; "."""
    resource = row.resource.replace("_", " ")
    if row.resource in LAYER_COUNTS:
        readers = plural(int(row.limit or 0), "layer" if row.resource == "destinations" else "core")
        return f"let {row.place} feed at most {readers}: merge layers that read it, or pass its spikes on"
    if base.is_exhausted and row.resource in PLACED:
        chips = [text for _, text in _offers(_more_chips, base, row)] if (row.resource, row.where) == ("cores", CHIP) else []
        return "; ".join([*chips, "too large to try narrower layers one by one: prune it with `spear-deploy prune`"])
    kinds = (_fewer_bits, _narrower_group, partial(_place_by_hand, fewest_cores=fewest_cores), _split_layer, _more_chips)
    offers = [offer for kind in kinds for offer in _offers(kind, base, row)]
    if not offers and not (base.is_exhausted and row.resource in PLACED):
        offers = _offers(_narrow_all, base, row)
    none = f"no layer, weight width, chip count or uniform width lowers {resource} enough"
    if row.resource in FIXED:
        none = f"no narrower layer changes them: give the network fewer {row.resource.split('_')[0]}s"
    return "; ".join(text for _, text in sorted(offers)) or none


def _offers(kind: Callable[[WhatIf, BudgetRow], Iterator[Offer]], base: WhatIf, row: BudgetRow) -> list[Offer]:
    """Return the offers of one kind of remedy, those before a failure if it fails."""
    offers: list[Offer] = []
    try:
        offers.extend(kind(base, row))
    except Exception:  # any failure: the verdict does not depend on remedies
        LOG.debug("a remedy of %s at %s failed", row.resource, row.where, exc_info=True)
    return offers


# ------------------------------------------------------------------------------------------------------------ kinds


def _fewer_bits(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer the widest weights that are enough, where weights take the resource."""
    if row.resource not in ("cores", "synapse_memory"):
        return
    widest = max(base.weight_bits.values(), default=0)
    widths = sorted(bits for bits in base.profile.weight_bits if 1 < bits < widest)
    if widths and base.removes(Change(max_weight_bits=widths[0]), row):
        enough = next(bits for bits in reversed(widths) if base.removes(Change(max_weight_bits=bits), row))
        gain = _describe_gain(base, Change(max_weight_bits=enough))
        yield 1 - enough / widest, f"{enough}-bit weights{gain}"


def _narrower_group(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer the group of which the least share has to go, or fewer inputs where no group removes the violation."""
    best: Offer | None = None
    for group in _related_groups(base, row):
        left = find_largest(group.channels - 1, partial(_removes_at_width, base, row, group.name))
        if left is not None:
            dropped = group.channels - left
            gain = _describe_gain(base, Change(widths=((group.name, left),)))
            text = f"drop {dropped} of {group.channels} channels of {name_layers(group.producers)}{gain}"
            best = min(best or (2.0, ""), (dropped / group.channels, text))
    if best is not None:
        yield best
    elif row.where != CHIP:
        yield from _narrower_input(base, row)


def _narrower_input(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer a smaller network input, and all that is tied to it, to a layer that reads it."""
    edge = base.edge
    if edge.frozen or not any(edge.name in _groups_read(p) for p in base.populations if p.name in row.layers):
        return
    left = find_largest(edge.channels - 1, partial(_removes_at_width, base, row, edge.name))
    if left is not None:
        what = "inputs" if base.inputs == edge.channels else "input channels"
        yield (edge.channels - left) / edge.channels, f"prune {edge.channels - left} of {edge.channels} {what}"


def _place_by_hand(base: WhatIf, row: BudgetRow, fewest_cores: Placement) -> Iterator[Offer]:
    if (row.resource, row.where) == ("cores", CHIP) and row.limit is not None and fewest_cores.cores_used <= row.limit:
        yield 0.0, f"the tightest packing takes {plural(fewest_cores.cores_used, 'core')}: place the layers by hand"


def _split_layer(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer a layer as several, on a chip whose layers lie whole on one core each."""
    packing = base.profile.packing
    is_one_layer = len(row.layers) == 1 and row.where != CHIP
    if not is_one_layer or packing.rule.value != "whole" or packing.share_cores.value or base.is_exhausted:
        return
    population = next((p for p in base.populations if p.name == row.where), None)
    if population is None or not _can_split(base, population):
        return
    kernels = base.profile.layers.kernels_into_layer.max_value
    sources = {source.name for reader in base.populations for p in reader.projections for source in p.sources}
    if kernels is not None and kernels < 2 and row.where in sources:
        return  # what reads the parts would add up the currents of several layers of weights
    broken = {(row.resource, row.where) for row in base.evaluate().rows if row.status == "over"}
    for parts in range(2, min(population.shape[0], base.profile.cores_limit(base.chips) or 2) + 1):
        change = Change(parts=(row.where, parts))
        if base.removes(change, row) and not any(
            other.status == "over" and (other.resource, other.where.split("[")[0]) not in broken
            for other in base.evaluate(change).rows
        ):
            channels = ceil(population.shape[0] / parts)
            yield 0.0, f"split {row.place} into {parts} layers of {channels} channels, a core each"
            return


def _more_chips(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer more chips, where the limit is the chip's."""
    per_chip = base.profile.cores_limit()
    is_user_limit = base.max_cores is not None and (per_chip is None or base.max_cores < per_chip * base.chips)
    is_chip_limit = row.where == CHIP and row.resource in ("synapse_memory", "fan_out_mean")
    if not is_chip_limit and (row.resource != "cores" or is_user_limit):
        return
    if row.used is None or not row.limit:
        return
    first = base.chips + 1
    if row.resource == "cores" and row.where == CHIP and per_chip:
        first = ceil(base.evaluate().placement.cores_used / per_chip)
    boards = [board.max_value or 1 for board in base.profile.chip.boards.values()]
    last = min(max(boards, default=first + MAX_MORE_CHIPS), first + MAX_MORE_CHIPS)
    for chips in range(max(first, base.chips + 1), last + 1):
        if base.removes(Change(chips=chips), row):
            yield 1.0 + chips / 1e6, f"{chips} chips instead of {base.chips}"
            return


def _narrow_all(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer one share of all widths, with weights as they are or of the fewest bits."""
    min_bits = min((bits for bits in base.profile.weight_bits if bits > 1), default=MAX_WEIGHT_BITS)
    for bits in dict.fromkeys((MAX_WEIGHT_BITS, min_bits)):

        def change_to(step: int, bits: int = bits) -> Change:
            widths = tuple((group.name, max(1, group.channels * step // WIDTH_STEPS)) for group in base.groups)
            return Change(widths=widths, max_weight_bits=bits)

        def removes(step: int, change_to: Callable[[int], Change] = change_to) -> bool:
            return base.removes(change_to(step), row)

        step = find_largest(WIDTH_STEPS - 1, removes)
        if step is not None:
            weights = "" if bits == MAX_WEIGHT_BITS else f" with {bits}-bit weights"
            share = f"{100 * step / WIDTH_STEPS:.0f} %"
            gain = _describe_gain(base, change_to(step))
            yield 1 - step / WIDTH_STEPS, f"all layers at {share} of their width{weights}{gain}"
            return


# ------------------------------------------------------------------------------------------------------------ inside


def _removes_at_width(base: WhatIf, row: BudgetRow, group: str, channels: int) -> bool:
    return base.removes(Change(widths=((group, channels),)), row)


def _related_groups(base: WhatIf, row: BudgetRow) -> list[ChannelGroup]:
    """Return the groups that can change a row, those with the most cores first.

    All groups for the chip, else those of the layers, of the layers they read and of the layers that read them.
    """
    groups = base.groups
    layers = set(row.layers)
    if not layers & {CHIP, INPUT}:
        names = {name for p in base.populations if p.name in layers for name in (p.channel_group, *_groups_read(p))}
        projections = [q for p in base.populations for q in p.projections]
        names |= {q.output_group for q in projections if layers & {source.name for source in q.sources}}
        groups = tuple(group for group in groups if group.name in names)
    placement = base.evaluate().placement
    cores: Counter[str] = Counter()
    for population in base.populations:
        for name in {population.channel_group, *_groups_read(population)}:
            cores[name] += len(placement.slices_of(population.name))
    return sorted(groups, key=lambda group: -cores[group.name])[:MAX_GROUPS]


def _groups_read(population: Population) -> set[str]:
    """Return the groups whose channels a population reads."""
    return {name for p in population.projections for name in (p.input_group, p.kernel_group)}


def _can_split(base: WhatIf, population: Population) -> bool:
    """Return whether a layer's channels can stand in several layers: no connection is recurrent or channel by channel."""
    own = [(population, p) for p in population.projections]
    own += [(q, p) for q in base.populations for p in q.projections if population.name in [s.name for s in p.sources]]
    return all(
        p.groups == 1 and p.kind != "one_to_one" and sum(len(r.sources) for r in q.projections if r.layer == p.layer) == 1
        for q, p in own
    ) and not any(population.name == s.name for p in population.projections for s in p.sources)


def _describe_gain(base: WhatIf, change: Change) -> str:
    """Return how many cores a change saves, where a placement is worth its time."""
    if base.is_exhausted:
        return ""
    fewer = base.count_cores(UNCHANGED) - base.count_cores(change)
    return f": −{plural(fewer, 'core')}" if fewer > 0 else ""
