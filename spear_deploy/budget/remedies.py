"""Remedies of a violation, each found by checking the changed network again.

A remedy is offered only if the trial shows that the violation is gone, and with the fewest channels or the most bits for
which it is. Cheapest first: what costs nothing, then what loses the least share of bits or channels, then more chips; only
where none of these is enough, what changes several layers at once. A remedy that fails costs itself and never the verdict:
the failure is logged at level debug with its traceback.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil

from spear_deploy.budget.core_rows import CHIP, BudgetRow
from spear_deploy.budget.what_if import PLACED, Change, WhatIf, WhatIfResult
from spear_deploy.network.channel_groups import ChannelGroup
from spear_deploy.placement.place import Placement
from spear_deploy.placement.populations import Population
from spear_deploy.util.number_format import plural

MAX_GROUPS = 6
"""Pruning groups that are tried, those with the most cores first: each costs a bisection."""
WIDTH_STEPS = 20
"""All layers are tried in steps of a twentieth of their width."""
LAYER_COUNTS = ("destinations", "fan_out_cores")
"""Counts of whole layers, which no width changes."""

LOG = logging.getLogger(__name__)

Offer = tuple[float, str]
"""(what it costs: the share of bits or channels that go, more than 1 for hardware; the remedy in words)."""


def find_remedies(base: WhatIf, row: BudgetRow, fewest_cores: Placement) -> str:
    """Return what removes a violation, the cheapest first."""
    if row.resource in LAYER_COUNTS:
        return _fewer_readers(base, row)
    if base.exhausted and row.resource in PLACED:
        return _too_large(base, row)
    kinds = (_bits, _narrower, partial(_by_hand, fewest_cores=fewest_cores), _parts, _chips)
    offers = [offer for kind in kinds for offer in _offers(kind, base, row)]
    if not offers and not (base.exhausted and row.resource in PLACED):
        offers = _offers(_all_narrower, base, row)
    return "; ".join(text for _, text in sorted(offers)) or _nothing(_said(row))


# ------------------------------------------------------------------------------------------------------------ inside


def _offers(kind: Callable[[WhatIf, BudgetRow], Iterator[Offer]], base: WhatIf, row: BudgetRow) -> list[Offer]:
    """Return the offers of one kind of remedy, those before a failure if it fails."""
    found: list[Offer] = []
    try:
        found.extend(kind(base, row))
    except Exception:  # whatever it is: the verdict is known without it
        LOG.debug("a remedy of %s at %s failed", row.resource, row.where, exc_info=True)
    return found


def _too_large(base: WhatIf, row: BudgetRow) -> str:
    """Say what needs no trial of a network whose placements take long."""
    chips = [text for _, text in _offers(_chips, base, row)] if (row.resource, row.where) == ("cores", CHIP) else []
    return "; ".join([*chips, "too large to try narrower layers one by one: prune it with `spear-deploy prune`"])


def _said(row: BudgetRow) -> str:
    return row.resource.replace("_", " ")


def _nothing(resource: str) -> str:
    return f"no layer, weight width, chip count or uniform width lowers {resource} enough"


def _bits(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer the widest weights that are enough, where weights take the resource."""
    if row.resource not in ("cores", "synapse_memory"):
        return
    widest = max(base.weight_bits.values(), default=0)
    widths = sorted(bits for bits in base.profile.weight_bits if 1 < bits < widest)
    if widths and base.met(Change(max_weight_bits=widths[0]), row):
        enough = next(bits for bits in reversed(widths) if base.met(Change(max_weight_bits=bits), row))
        gained = _fewer_cores(base, Change(max_weight_bits=enough))
        yield 1 - enough / widest, f"{enough}-bit weights{gained}"


def _narrower(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer the group of which the least share has to go, or fewer inputs where no group holds them."""
    best: Offer | None = None
    for group in _near(base, row):
        left = _most(group.channels - 1, partial(_met_at, base, row, group.name))
        if left is not None:
            dropped = group.channels - left
            gained = _fewer_cores(base, Change(widths=((group.name, left),)))
            text = f"drop {dropped} of {group.channels} channels of {_shown(group)}{gained}"
            best = min(best or (2.0, ""), (dropped / group.channels, text))
    if best is not None:
        yield best
    elif row.where != CHIP:
        yield from _fewer_inputs(base, row)


def _met_at(base: WhatIf, row: BudgetRow, group: str, channels: int) -> bool:
    return base.met(Change(widths=((group, channels),)), row)


def _near(base: WhatIf, row: BudgetRow) -> list[ChannelGroup]:
    """Return the pruning groups that can change a row: all for the chip, the layer's own and its neighbours' else."""
    placement = base.evaluate().placement
    groups = base.groups
    names = set(row.layers)
    if not names & {CHIP, "input"}:
        near = {space for p in base.found if p.name in names for space in (p.channel_group, *_read_spaces(p))}
        near |= {q.output_group for p in base.found for q in p.projections if names & {s.name for s in q.sources}}
        groups = tuple(group for group in groups if group.name in near)
    return sorted(groups, key=lambda g: -_cores_of(placement, base.found, g))[:MAX_GROUPS]


def _read_spaces(population: Population) -> set[str]:
    """Return the groups whose channels a population reads."""
    return {space for p in population.projections for space in (p.input_group, p.kernel_group)}


def _fewer_inputs(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer a smaller network input, and all that is tied to it, to a layer that reads it."""
    edge = base.edge
    read = any(edge.name in _read_spaces(p) for p in base.found if p.name in row.layers)
    left = _most(edge.channels - 1, partial(_met_at, base, row, edge.name)) if read and not edge.frozen else None
    if left is not None:
        what = "inputs" if base.inputs == edge.channels else "input channels"
        yield (edge.channels - left) / edge.channels, f"prune {edge.channels - left} of {edge.channels} {what}"


def _by_hand(base: WhatIf, row: BudgetRow, fewest_cores: Placement) -> Iterator[Offer]:
    if (row.resource, row.where) == ("cores", CHIP) and row.limit is not None and fewest_cores.cores_used <= row.limit:
        yield 0.0, f"the tightest packing takes {fewest_cores.cores_used} cores: place the layers by hand"


def _parts(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer a layer as several, on a chip whose layers lie whole on one core each."""
    packing = base.profile.packing
    alone = len(row.layers) == 1 and row.where != CHIP
    if not alone or packing.rule.value != "whole" or packing.share_cores.value or base.exhausted:
        return
    population = next((p for p in base.found if p.name == row.where), None)
    if population is None or not _can_part(base, population):
        return
    for parts in range(2, min(population.shape[0], base.profile.cores_limit(base.chips) or 2) + 1):
        change = Change(parts=(row.where, parts))
        if base.met(change, row) and not _worse(base.evaluate(), base.evaluate(change)):
            each = ceil(population.shape[0] / parts)
            yield 0.0, f"split {row.where} into {parts} layers of {each} channels, a core each"
            return


def _can_part(base: WhatIf, population: Population) -> bool:
    """Say whether a layer's channels can stand in layers of their own: none of its connections goes channel by channel."""
    read = [p for q in base.found for p in q.projections if population.name in [s.name for s in p.sources]]
    return all(
        p.groups == 1 and p.kind != "one_to_one" and len(p.sources) == 1 for p in (*population.projections, *read)
    ) and not any(population.name == s.name for p in population.projections for s in p.sources)


def _worse(before: WhatIfResult, after: WhatIfResult) -> bool:
    """Say whether a change breaks a limit that held."""
    broken = {(row.resource, row.where) for row in before.rows if row.status == "over"}
    return any(row.status == "over" and (row.resource, row.where.split("[")[0]) not in broken for row in after.rows)


def _chips(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer more chips, where the limit is the chip's."""
    outcome = base.evaluate()
    per_chip = base.profile.cores_limit()
    budgeted = base.cores is not None and (per_chip is None or base.cores < per_chip * base.chips)
    shared = row.where == CHIP and row.resource in ("synapse_memory", "fan_out_mean")
    if not (row.resource == "cores" or shared) or (row.resource == "cores" and budgeted) or row.used is None or not row.limit:
        return
    if row.resource == "cores" and row.where == CHIP and per_chip:
        first = ceil(outcome.placement.cores_used / per_chip)
    else:
        first = base.chips + 1
    boards = [board.max_value or 1 for board in base.profile.chip.boards.values()]
    most = max(boards, default=first + 8)
    for chips in range(max(first, base.chips + 1), min(most, first + 8) + 1):
        if base.met(Change(chips=chips), row):
            yield 1.0 + chips / 1e6, f"{chips} chips instead of {base.chips}"
            return


def _all_narrower(base: WhatIf, row: BudgetRow) -> Iterator[Offer]:
    """Offer one share of all widths, with weights as they are or of the fewest bits."""
    widths = [bits for bits in base.profile.weight_bits if bits > 1]
    least = min(widths, default=64)
    for bits in dict.fromkeys((64, least)):

        def met(step: int, bits: int = bits) -> bool:
            return base.met(_scaled(base, step, bits), row)

        step = _most(WIDTH_STEPS - 1, met)
        if step is not None:
            joined = "" if bits == 64 else f" with {bits}-bit weights"
            gained = _fewer_cores(base, _scaled(base, step, bits))
            yield (
                1 - step / WIDTH_STEPS,
                f"all layers at {step / WIDTH_STEPS:.0%} of their width{joined}{gained}".replace("%", " %"),
            )
            return


def _scaled(base: WhatIf, step: int, bits: int) -> Change:
    widths = tuple((group.name, max(1, group.channels * step // WIDTH_STEPS)) for group in base.groups)
    return Change(widths=widths, max_weight_bits=bits)


def _fewer_readers(base: WhatIf, row: BudgetRow) -> str:
    what = plural(int(row.limit or 0), "layer" if row.resource == "destinations" else "core")
    return f"let {row.where} feed at most {what}: merge layers that read it, or pass its spikes on"


def _most(limit: int, met: Callable[[int], bool]) -> int | None:
    """Return the largest number in 1..limit that meets a goal, by bisection, or None."""
    if limit < 1 or not met(1):
        return None
    return bisect_right(range(1, limit + 1), False, key=lambda n: not met(n))


def _fewer_cores(base: WhatIf, change: Change) -> str:
    """Say how many cores a change saves, where that is quickly told."""
    if base.exhausted:
        return ""
    fewer = base.evaluate().placement.cores_in_all - base.evaluate(change).placement.cores_in_all
    return f": −{fewer} core{'s' if fewer != 1 else ''}" if fewer > 0 else ""


def _cores_of(placement: Placement, found: Sequence[Population], group: ChannelGroup) -> int:
    return sum(len(placement.slices_of(p.name)) for p in found if p.channel_group == group.name or group.name in _read_spaces(p))


def _shown(group: ChannelGroup) -> str:
    return " + ".join(group.producers)
