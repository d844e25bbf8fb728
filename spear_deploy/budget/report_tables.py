"""Tables of a budget report, by layer and by resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from spear_deploy.budget.core_rows import THING, TOGETHER, BudgetRow, Status
from spear_deploy.network.labels import add_kinds
from spear_deploy.placement.place import Placement
from spear_deploy.util.number_format import amount

STATUS_STYLES: dict[Status, str] = {"ok": "", "tight": "yellow", "unchecked": "cyan", "over": "bold red"}
"""By urgency, the least urgent first."""
URGENCY = tuple(STATUS_STYLES)
COLUMNS = {"neurons": "neurons", "synapse_memory": "syn mem", "axons_in": "axons in", "axons_out": "axons out"}
"""Head of a column by resource; of all other resources the fullest is named."""
KEPT_LIMITS = ("weight_bits", "bias_bits", "neuron_groups", "destinations", "fan_out_cores")
"""Resources whose share says little while the limit is kept."""
MAX_NAME = 30
"""Characters of a layer's name in a table."""
MAX_OK_ROWS = 60
"""Rows within their limits that the notebook shows."""


def draw_layer_table(rows: Sequence[BudgetRow], labels: Mapping[str, str], placement: Placement) -> Table:
    """Return a table with a line per layer (or layers that share cores): its cores, and how full the fullest one is."""
    places: dict[str, list[BudgetRow]] = {}
    for row in rows:
        if row.unit != THING:
            places.setdefault(row.where, []).append(row)
    columns = [name for name in COLUMNS if any(row.resource == name for row in rows)]
    cells = {}
    for where, here in places.items():
        shares = {row.resource: write_share(row) for row in here}
        line = [_count_cores(placement, where), *(shares.get(name, "") for name in columns), _write_fullest_other(here, columns)]
        if any(line):
            cells[where] = [shorten_place(TOGETHER.join(labels.get(name, name) for name in where.split(TOGETHER))), *line]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    heads = ["layer", "cores", *(COLUMNS[name] for name in columns), "fullest other"]
    for index, head in enumerate(heads):
        is_number = 0 < index < len(heads) - 1
        unbroken = [*(line[index] for line in cells.values()), *head.split()] if is_number else head.split()
        table.add_column(
            head,
            justify="right" if is_number else "left",
            no_wrap=index == 0,
            overflow="ellipsis" if index == 0 else "fold",
            min_width=max(map(len, unbroken)),
        )
    for where, line in cells.items():
        status = max((row.status for row in places[where]), key=URGENCY.index)
        table.add_row(*map(Text, line), style=STATUS_STYLES[status])
    return table


def draw_resource_table(rows: Sequence[BudgetRow], labels: Mapping[str, str]) -> Table:
    """Return a table with a row per resource and place, the most urgent first."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("layer", overflow="fold")
    for head in ("resource", "used", "limit", "share", "status"):
        table.add_column(head, justify="right" if head in ("used", "limit", "share") else "left", no_wrap=True)
    table.add_column("what to do", overflow="fold")
    for status in reversed(URGENCY):
        members = [row for row in rows if row.status == status]
        limit = MAX_OK_ROWS if status == "ok" else len(members)
        for row in members[:limit]:
            unit = "" if row.unit in (THING, row.resource) else f" {row.unit}"
            share = "" if row.share is None else write_share(row)
            remedy = add_kinds(row.remedy.replace("; ", "\n"), labels)
            place = TOGETHER.join(labels.get(name, name) for name in row.layers)
            cells = (place, write_resource(row), amount(row.used), f"{amount(row.limit)}{unit}", share, status)
            table.add_row(*map(Text, cells), Text(remedy or row.detail), style=STATUS_STYLES[status])
        if len(members) > limit:
            table.add_row("…", f"{len(members) - limit} more within their limits", "", "", "", status)
    return table


def shorten_place(where: str) -> str:
    """Return a place in the width of a column: of many layers the first, and how many more there are."""
    names = where.split(TOGETHER)
    if len(where) <= MAX_NAME:
        return where
    rest = f" + {len(names) - 1} more" if len(names) > 1 else ""
    room = MAX_NAME - len(rest)
    return (names[0] if len(names[0]) <= room else f"{names[0][: room - 1]}…") + rest


def _count_cores(placement: Placement, where: str) -> str:
    """Return the number of cores of a layer, or of those that hold exactly these layers."""
    names = set(where.split(TOGETHER))
    if not names & set(placement.layers):
        return ""
    layers_on: dict[tuple[int, int], set[str]] = {}
    for name in names:
        for part in placement.slices_of(name):
            layers_on.setdefault((part.run, part.core), set()).add(name)
    cores = sum(layers == names for layers in layers_on.values())
    return f"{cores:,}" if cores else ""


def _write_fullest_other(rows: Sequence[BudgetRow], columns: Sequence[str]) -> str:
    """Return the fullest resource without a column."""
    others = [row for row in rows if row.resource not in columns and row.share is not None]
    others = [row for row in others if row.status == "over" or row.resource not in KEPT_LIMITS]
    if not others:
        return ""
    fullest = max(others, key=lambda row: row.share or 0.0)
    return f"{write_resource(fullest)} {write_share(fullest)}"


def write_share(row: BudgetRow) -> str:
    """Return how much of its limit a row uses, in percent."""
    return "?" if row.share is None else f"{100 * row.share:,.0f} %"


def write_resource(row: BudgetRow) -> str:
    """Return the name of a row's resource in words."""
    return row.resource.replace("_", " ")
