"""Floor plans of the cores in use, for each chip and pass.

A cell is a core. Where the mesh is published, cells lie on it, several to a router's tile; otherwise they lie in a grid in the
order of their numbers. The colour of a cell shows how full the core is, its number the layer on it; outlines separate layers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, sqrt
from statistics import median
from typing import Any

from spear_deploy.util.number_format import number, percent, plural

CELL, GAP = 10, 3
"""Pitch of cores, and additional gap between routers' tiles, in units of the drawing."""
CELLS = 1 << 16
"""Cores of a chip that are drawn; those of a larger one, which no profile here has, are left out beyond."""
DETAILED = 1500
"""Cores on the page up to which each core has a tooltip of its own; above, cores of one layer and colour share one."""
PANELS = 12
"""Chips and passes that are drawn; the page states how many more there are."""
LEVELS = 5
ASPECT = 1.7
LABELLED = 20
"""Columns up to which each cell has room for its layer's number."""
NAMED = 5
"""Columns up to which it has room for words."""
MEASURES = (("synapse_memory", "synapse memory"), ("neurons", "neurons"))
"""Resources by which cells are coloured: the first that is known."""
TOOLTIP_RESOURCES = (
    *MEASURES, ("neuron_memory", "neuron memory"), ("axons_in", "input axons"), ("axons_out", "output axons"),
)  # fmt: skip
WORK = (("synops", "SynOps"), ("updates", "updates"), ("messages_in", "messages in"), ("memory_reads", "words read"))
"""Work of a core in a step, as tooltips show it."""
AXES = {1: ("neurons",), 2: ("channels", "positions"), 3: ("channels", "rows", "columns")}


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Positions of the cores of one chip, in cells and in units of the drawing."""

    columns: int
    rows: int
    tile: tuple[int, int]

    def cell(self, place: int) -> tuple[int, int]:
        """Return (column, row) of the core with number `place`."""
        per_tile = self.tile[0] * self.tile[1]
        across = self.columns // self.tile[0]
        tile, inside = divmod(place, per_tile)
        row, column = divmod(tile, across)
        if self.tile != (1, 1) and row % 2:  # odd rows run backwards, as `budget.traffic` counts hops
            column = across - 1 - column
        return column * self.tile[0] + inside % self.tile[0], row * self.tile[1] + inside // self.tile[0]

    def corner(self, cell: tuple[int, int]) -> tuple[int, int]:
        """Return the upper left corner of a cell in the drawing."""
        gaps = [GAP * (n // size) if size > 1 else 0 for n, size in zip(cell, self.tile, strict=True)]
        return CELL * cell[0] + gaps[0], CELL * cell[1] + gaps[1]


def draw_floor_plan(cores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the panels and the legend of a floor plan as plain data.

    Args:
        cores: `cores.json`.
    """
    key, measure = _choose_measure(cores)
    shares = [_used_share(cores, core, key) for core in cores["cores"]]
    groups: dict[tuple[int, int], list[int]] = {}
    for index, core in enumerate(cores["cores"]):
        groups.setdefault((core["pass"], core["chip"]), []).append(index)
    drawn = sorted(groups.items())[:PANELS]
    detailed = sum(len(members) for _, members in drawn) <= DETAILED
    panels = [_draw_panel(cores, members, shares, run, chip, detailed) for (run, chip), members in drawn]
    if len(panels) > 1:  # several stand side by side: no room for words
        for label in (label for panel in panels if panel["columns"] > NAMED for label in panel["labels"]):
            label["share"] = ""
    return {
        "panels": panels,
        "more": max(0, len(groups) - PANELS),
        "measure": measure,
        "known": any(share is not None for share in shares),
        "work": cores.get("work"),
        "mesh": cores["mesh"] is not None and len(cores["kinds"]) == 1,
        "layers": _list_layers(cores, shares),
        "over": any(share is not None and share > 1 for share in shares),
        "free": any(panel["free"] for panel in panels),
    }


def color_class(share: float | None) -> str:
    """Return the class of a colour: m0..m4 up to 100 %, `over`, or `unknown`.

    >>> [color_class(s) for s in (0.0, 0.2, 0.21, 1.0, 1.01, None)]
    ['m0', 'm0', 'm1', 'm4', 'over', 'unknown']
    """
    if share is None:
        return "unknown"
    return "over" if share > 1 else f"m{max(0, ceil(share * LEVELS) - 1)}"


# -------------------------------------------------------------------------------------------------------------- panels


def _choose_measure(cores: Mapping[str, Any]) -> tuple[str, str]:
    """Return the resource of the colours: synapse memory if it is known of some core with its limit, else neurons."""
    for key, name in MEASURES:
        if key == "synapse_memory" and cores["memory_of"] == "chip":
            continue
        if any(_used_share(cores, core, key) is not None for core in cores["cores"]):
            return key, name
    return MEASURES[0]


def _used_share(cores: Mapping[str, Any], core: Mapping[str, Any], key: str) -> float | None:
    used = core["amounts"][cores["resources"].index(key)]
    limit = cores["kinds"][core["kind"]]["limits"][key]
    return used / limit if used is not None and isinstance(limit, int) and limit else None


def _draw_panel(
    cores: Mapping[str, Any], members: Sequence[int], shares: Sequence[float | None], run: int, chip: int, detailed: bool
) -> dict[str, Any]:
    """Return one chip in one pass: used cells, free cells, outlines, and below them the cores that the chip lacks."""
    exists = chip < cores["chips"]
    places = [cores["cores"][index]["place"] for index in members]
    capacity = cores["cores_per_chip"] or 1 + max((place for place in places if place is not None), default=0)
    shown = min(capacity, CELLS)
    grid = _make_grid(cores, shown)
    cells: dict[tuple[int, int], int] = {}
    beyond: list[int] = []
    for index, place in zip(members, places, strict=True):
        if place is None or place >= capacity:
            beyond.append(index)
        elif place < shown:
            cells[grid.cell(place)] = index
    free = {cell: place for place in range(shown) if exists and (cell := grid.cell(place)) not in cells}
    for n, index in enumerate(beyond):  # below the chip, with a row between
        cells[n % grid.columns, grid.rows + 1 + n // grid.columns] = index
    width, height = (n - 1 for n in grid.corner((grid.columns, 1 + max((row for _, row in [*cells, *free]), default=0))))
    return {
        "title": _write_title(cores, run, chip, len(members) - len(beyond), capacity),
        "exists": exists,
        "columns": grid.columns,
        "wide": grid.columns <= NAMED and any(kind["name"] for kind in cores["kinds"]),
        "width": max(width, 1),
        "height": max(height, 1),
        "free": _draw_squares(grid, free),
        "fullest": _draw_squares(grid, [cell for cell, index in cells.items() if index == cores.get("fullest")]),
        "outline": _draw_outline(grid, {cell: layers_of(cores["cores"][index]) for cell, index in cells.items()}),
        "beyond": len(beyond),
        "cells": _draw_used_cells(cores, cells, grid, shares, detailed),
        "labels": [*_label_cells(cores, grid, cells, shares), *_label_free_cells(cores, grid, free)],
    }


def _make_grid(cores: Mapping[str, Any], capacity: int) -> _Grid:
    mesh = cores["mesh"]
    if mesh is not None and len(cores["kinds"]) == 1:
        across = ceil(sqrt(mesh["cores_per_tile"]))
        down = ceil(mesh["cores_per_tile"] / across)
        if across * down == mesh["cores_per_tile"]:
            return _Grid(columns=mesh["columns"] * across, rows=mesh["rows"] * down, tile=(across, down))
    start = max(1, round(sqrt(capacity * ASPECT)))
    candidates = range(max(1, start - start // 4), start + start // 4 + 1)
    columns = min(candidates, key=lambda n: (-capacity % n, abs(n - start)))
    return _Grid(columns=columns, rows=ceil(capacity / columns), tile=(1, 1))


def _write_title(cores: Mapping[str, Any], run: int, chip: int, used: int, capacity: int) -> str:
    of = f" of {number(capacity)}" if cores["cores_per_chip"] else ""
    what = f"{number(used)}{of} cores in use"
    where = [f"pass {run + 1} of {cores['passes']}"] if cores["passes"] > 1 else []
    if chip >= cores["chips"]:
        where, what = (
            [*where, f"chip {chip + 1}, not available"],
            f"{plural(used, 'more core')} needed",
        )
    elif cores["chips"] > 1:
        where.append(f"chip {chip + 1} of {cores['chips']}")
    return ": ".join([*([", ".join(where)] if where else []), what])


def _draw_used_cells(
    cores: Mapping[str, Any],
    cells: Mapping[tuple[int, int], int],
    grid: _Grid,
    shares: Sequence[float | None],
    detailed: bool,
) -> list[dict[str, Any]]:
    """Return the cells in use: each alone, or those of one layer and colour together."""
    groups: dict[Any, list[tuple[tuple[int, int], int]]] = {}
    for cell, index in cells.items():
        key = index if detailed else (layers_of(cores["cores"][index]), color_class(shares[index]))
        groups.setdefault(key, []).append((cell, index))
    marks = []
    for members in groups.values():
        first = cores["cores"][members[0][1]]
        single = len(members) == 1
        tip = (
            describe_core(cores, first)
            if single
            else describe_similar_cores(cores, first, [shares[index] for _, index in members])
        )
        path = _draw_squares(grid, [cell for cell, _ in members])
        marks.append({"class": color_class(shares[members[0][1]]), "path": path, "tip": tip})
    return marks


def _label_cells(
    cores: Mapping[str, Any], grid: _Grid, cells: Mapping[tuple[int, int], int], shares: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Return the layer numbers of the cells; with many cells one number a layer, in the middle of its longest row."""
    if grid.columns <= LABELLED:
        return [
            _make_label(
                grid,
                cell,
                color_class(shares[index]),
                _join_numbers(layers_of(cores["cores"][index])),
                "" if shares[index] is None else percent(shares[index]),
                cores["kinds"][cores["cores"][index]["kind"]]["name"],
            )
            for cell, index in cells.items()
        ]
    rows: dict[tuple[tuple[int, ...], int], list[tuple[int, int]]] = {}
    for cell, index in cells.items():
        rows.setdefault((layers_of(cores["cores"][index]), cell[1]), []).append(cell)
    longest: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for (layers, _), members in rows.items():
        longest[layers] = max(longest.get(layers, []), members, key=len)
    middle = {layers: sorted(members)[len(members) // 2] for layers, members in longest.items()}
    return [_make_label(grid, cell, "halo", _join_numbers(layers)) for layers, cell in middle.items()]


def _label_free_cells(cores: Mapping[str, Any], grid: _Grid, free: Mapping[tuple[int, int], int]) -> list[dict[str, Any]]:
    """Return the kinds of the free cores, if kinds differ and there is room."""
    ends = list(accumulate(kind["count"] or 0 for kind in cores["kinds"]))
    if grid.columns > NAMED or len(ends) < 2:
        return []
    names = {cell: cores["kinds"][min(bisect_right(ends, place), len(ends) - 1)]["name"] for cell, place in free.items()}
    return [_make_label(grid, cell, "quiet", kind=name) for cell, name in names.items()]


def _make_label(
    grid: _Grid, cell: tuple[int, int], color: str, text: str = "", share: str = "", kind: str = ""
) -> dict[str, Any]:
    x, y = (n + CELL / 2 - 0.5 for n in grid.corner(cell))
    kind = kind.replace("_", " ") if grid.columns <= NAMED else ""
    size = round(min(1.5, 14 / max(len(kind), 1)), 2)
    return {"x": x, "y": y, "class": color, "text": text, "share": share, "kind": kind, "size": size}


def _join_numbers(layers: Sequence[int]) -> str:
    return "+".join(str(n + 1) for n in layers[:2]) + ("+" if len(layers) > 2 else "")


def _draw_squares(grid: _Grid, cells: Iterable[tuple[int, int]]) -> str:
    """Return the squares of the cells as one path."""
    return "".join(f"M{x} {y}h9v9h-9z" for x, y in map(grid.corner, cells))


def _draw_outline(grid: _Grid, layers: Mapping[tuple[int, int], tuple[int, ...]]) -> str:
    """Return the edges of cells at which the layers change, as one path."""
    path = []
    for (column, row), own in layers.items():
        x, y = grid.corner((column, row))
        for neighbour, edge in (
            ((column, row - 1), f"M{x - 0.5} {y - 0.5}h10"),
            ((column, row + 1), f"M{x - 0.5} {y + 9.5}h10"),
            ((column - 1, row), f"M{x - 0.5} {y - 0.5}v10"),
            ((column + 1, row), f"M{x + 9.5} {y - 0.5}v10"),
        ):
            if layers.get(neighbour) != own:
                path.append(edge)
    return "".join(path)


def _list_layers(cores: Mapping[str, Any], shares: Sequence[float | None]) -> list[dict[str, Any]]:
    """Return a row for each layer: its cores, and how full they are."""
    rows = []
    cores_by_layer: dict[int, list[int]] = {}
    for index, core in enumerate(cores["cores"]):
        for layer in layers_of(core):
            cores_by_layer.setdefault(layer, []).append(index)
    for layer, members in sorted(cores_by_layer.items()):
        known = [share for index in members if (share := shares[index]) is not None]
        rows.append(
            {
                "number": layer + 1,
                "name": cores["layers"][layer],
                "cores": len(members),
                "max": max(known) if known else None,
                "median": median(known) if known else None,
                "class": color_class(max(known) if known else None),
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------------------ tooltips


def layers_of(core: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the indices of the layers on a core."""
    return tuple(dict.fromkeys(layer for layer, _ in core["parts"]))


def describe_core(cores: Mapping[str, Any], core: Mapping[str, Any]) -> str:
    """Return the tooltip of one core: its parts of layers, and used and limit of each resource."""
    kind = cores["kinds"][core["kind"]]
    place = "core beyond the chip's cores" if core["place"] is None else f"core {core['place']}"
    lines = [f"{place} ({kind['name']})" if kind["name"] else place]
    lines += [f"{cores['layers'][layer]}: {_format_box(box)}" for layer, box in core["parts"][:6]]
    lines += [f"and {len(core['parts']) - 6} more parts"] if len(core["parts"]) > 6 else []
    for key, name in TOOLTIP_RESOURCES:
        used, limit = core["amounts"][cores["resources"].index(key)], kind["limits"][key]
        if used is None:
            lines.append(f"{name}: format not public")
        elif isinstance(limit, int):
            lines.append(f"{name}: {number(used)} of {number(limit)} ({percent(used / limit)})")
        elif used:
            lines.append(f"{name}: {number(used)}, {'no limit' if limit else 'limit not published'}")
    work = {name: core.get("work", {}).get(key) for key, name in WORK}
    known = [f"{number(amount)} {name}" for name, amount in work.items() if amount is not None]
    lines += [f"work of a step: {', '.join(known)}"] if known else []
    return "\n".join(lines)


def describe_similar_cores(cores: Mapping[str, Any], core: Mapping[str, Any], shares: Sequence[float | None]) -> str:
    """Return the tooltip of cores that hold the same layers and have the same colour."""
    names = ", ".join(cores["layers"][layer] for layer in layers_of(core)[:4])
    known = [share for share in shares if share is not None]
    ends = dict.fromkeys(percent(end) for end in (min(known), max(known))) if known else ()
    how = f"{' to '.join(ends)} full" if ends else "use not known"
    return f"{names}: {number(len(shares))} cores, {how}"


def _format_box(box: Sequence[Sequence[int]]) -> str:
    names = AXES.get(len(box), tuple(f"axis {n}" for n in range(len(box))))
    return ", ".join(f"{name} {a}–{b - 1}" if b - a > 1 else f"{name} {a}" for name, (a, b) in zip(names, box, strict=True))
