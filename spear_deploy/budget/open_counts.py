"""Rows that are open since synapses are not counted one by one.

Where weights are 0 at some places of a map, or a kernel with zeros pads behind windows that overlap, the synapses that the zeros
leave are known between two ends: all that there may be, and the fewest. The rows of a check are of the first. Where they are over
a limit, and with the fewest they are not, the verdict is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.budget.remote_rows import check_remote_synapses
from spear_deploy.budget.what_if import WhatIf
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import name_layers
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.util.number_format import amount


def open_bounds(rows: Sequence[BudgetRow], graph: SNNGraph, what_if: WhatIf) -> list[BudgetRow]:
    """Return the rows of a network, those open that are over a limit, and not with the fewest synapses that there may be.

    Args:
        rows: of the network.
        graph: the network.
        what_if: the same network on its chip.
    """
    bound = [p.name for p in what_if.populations if any(q.is_bound for q in (*p.projections, *p.merged))]
    if not bound or all(row.status != "over" for row in rows):
        return list(rows)
    least = replace(
        what_if,
        populations=find_chip_populations(graph, what_if.profile, fewest=True),
        cuts={}, _connections={}, _results={}, _placed_cores={},
    ).evaluate()  # fmt: skip
    fewest = [*least.rows, *check_remote_synapses(least.placement, what_if.profile)]
    used = {(row.resource, row.where): row.used for row in fewest}
    over = {(row.resource, layer) for row in fewest if row.status == "over" for layer in row.layers}

    def open_row(row: BudgetRow) -> BudgetRow:
        if row.status != "over" or any((row.resource, layer) in over for layer in row.layers):
            return row
        low = used.get((row.resource, row.where))
        ends = f"up to {amount(row.used)}" if low is None else f"{amount(low)} to {amount(row.used)}"
        open_count = f"weights of 0 stop some synapses onto {name_layers(bound)} that are not counted one by one"
        remedy = f"{open_count}: {ends}, and the limit is {amount(row.limit)}"
        return replace(row, used=None, status="unchecked", remedy=remedy)

    return [open_row(row) for row in rows]
