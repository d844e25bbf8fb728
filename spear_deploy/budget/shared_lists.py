"""Lists of synapses that several sources may share.

Where spikes of several layers are added in front of one layer of weights, their neurons of equal number have equal lists. On
Loihi they may send to one axon, which is counted once; no open document says whether the compiler lets them, or makes a list for
each. Where a list for each source finds no room, the verdict is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spear_deploy.budget.core_rows import BudgetRow, check_cores
from spear_deploy.budget.what_if import check_core_count
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.labels import name_layers
from spear_deploy.placement.chip_populations import part_by_source
from spear_deploy.placement.place import Placement, place_populations

SHARED = ("list_words", "list_blocks")
"""Formats of lists that axons of several sources may have in common."""


def open_shared_lists(
    rows: Sequence[BudgetRow],
    placement: Placement,
    weight_bits: Mapping[str, int],
    profile: HardwareProfile,
    max_cores: int | None = None,
) -> list[BudgetRow]:
    """Return the rows of a placement, those open that are over with a list of synapses for each source.

    Args:
        rows: of the placement, none of them over.
        placement: with one list for all sources of a layer of weights.
        weight_bits: of a stored weight, by layer.
        profile: the chip.
        max_cores: the user's limit of cores, or None.
    """
    shared = [p.name for p in placement.populations if any(len(q.sources) > 1 for q in p.projections)]
    if profile.synapse_memory.format.value not in SHARED or not shared or any(row.status == "over" for row in rows):
        return list(rows)
    parted = tuple(replace(p, projections=part_by_source(p.projections)) for p in placement.populations)
    apart = place_populations(parted, weight_bits, profile, chips=placement.chips)
    over = {
        (row.resource, row.where): row
        for row in (*check_cores(apart, profile), check_core_count(apart, max_cores, profile))
        if row.status == "over"
    }
    reason = (
        f"spikes of several layers are added in front of the weights of {name_layers(shared)}; with a list of synapses for each"
    )

    def open_row(row: BudgetRow, found: BudgetRow) -> BudgetRow:
        remedy = f"{reason} source it is {found.used:,.0f} of {found.limit:,.0f}; whether they share one is not published"
        return replace(row, status="unchecked", remedy=remedy)

    places = {(row.resource, row.where) for row in rows}
    opened = [open_row(row, over[place]) if (place := (row.resource, row.where)) in over else row for row in rows]
    # layers that share cores may do so with others, so that a core of those above has no row
    return opened + [open_row(replace(row, used=None), row) for place, row in over.items() if place not in places]
