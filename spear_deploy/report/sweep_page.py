"""Page of a sweep: Pareto charts and means over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from spear_deploy.errors import FileError
from spear_deploy.report.chart import Series, draw_chart
from spear_deploy.report.folder import read_origin
from spear_deploy.report.search_charts import pareto_front
from spear_deploy.util.files import read_text
from spear_deploy.util.number_format import number, percent, plural

SWEEP, PAGE = "sweep.json", "sweep.html"


def describe_sweep(folder: Path) -> dict[str, Any]:
    """Return charts and rows of a sweep, as plain data.

    Raises:
        FileError: `sweep.json` is missing or damaged.
    """
    path = folder / SWEEP
    try:
        content = json.loads(read_text(path, "results of a sweep"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"file '{path}': is damaged ({str(error)[:80]}); run the sweep again") from error
    cells, front = content["cells"], set(content["front"])
    done = [cell for cell in cells if "error" not in cell]
    places = list(dict.fromkeys((cell["network"], cell["chip"]) for cell in done))
    return {
        "cells": len(cells),
        "charts": [_draw_place([cell for cell in done if (cell["network"], cell["chip"]) == place], place) for place in places],
        "rows": list_means(cells, front),
        "errors": list_errors(cells),
        "origin": read_origin(content),
    }


def list_errors(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each reason why cells have no result, with their folders."""
    folders: dict[str, list[str]] = {}
    for cell in cells:
        if "error" in cell:
            folders.setdefault(cell["error"], []).append(cell["folder"])
    return [{"cells": names, "error": error} for error, names in folders.items()]


def measure_cell(cell: Mapping[str, Any]) -> tuple[float, float]:
    """Return (SynOps, accuracy) of a cell as integers; in floating point where those of the chip are not known."""
    accuracy, synops = cell["accuracy"], cell["synops"]
    if accuracy["quantised"] is None:
        return synops["achieved"], accuracy["pruned"]
    return synops["quantised"], accuracy["quantised"]


def list_means(cells: Sequence[Mapping[str, Any]], front: set[str]) -> list[dict[str, Any]]:
    """Return a row for each combination but for seeds: means over seeds, and the spread of the accuracy.

    Args:
        cells: of `sweep.json`.
        front: folders of the cells that no other beats.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if "error" not in cell:
            groups.setdefault((cell["network"], cell["chip"], cell["budget"], cell["method"]), []).append(cell)
    rows = []
    for (network, chip, budget, method), group in groups.items():
        synops, accuracies = zip(*map(measure_cell, group), strict=True)
        verdicts = dict.fromkeys(cell["verdict"].replace("_", " ") for cell in group)
        rows.append(
            {
                "network": network,
                "chip": chip,
                "budget": str(budget),
                "method": method,
                "seeds": plural(len(group), "seed"),
                "accuracy": percent(fmean(accuracies), 2),
                "spread": f"± {100 * pstdev(accuracies):.2f}" if len(group) > 1 else "",
                "synops": number(fmean(synops)),
                "cores": number(fmean(cell["cores_used"] for cell in group)),
                "verdict": ", ".join(verdicts),
                "met": all(cell["met"] for cell in group),
                "front": any(cell["folder"] in front for cell in group),
            }
        )
    return rows


def _draw_place(cells: Sequence[Mapping[str, Any]], place: tuple[str, str]) -> dict[str, Any]:
    """Draw the cells of a network on a chip: a point each, and the line of those that no other beats."""
    network, chip = place
    points = [measure_cell(cell) for cell in cells]
    form = "in floating point" if cells[0]["accuracy"]["quantised"] is None else "as integers"
    tips = [
        f"{cell['method']}, {cell['budget']}, seed {cell['seed']}: {percent(accuracy, 2)} at {number(synops)} SynOps"
        for cell, (synops, accuracy) in zip(cells, points, strict=True)
    ]
    dense = (cells[0]["synops"]["dense"], cells[0]["accuracy"]["dense"])
    best = pareto_front([{"synops": synops, "accuracy": accuracy} for synops, accuracy in points])
    series = [
        Series(name="no other is better", kind="line", points=[(row["synops"], row["accuracy"]) for row in best]),
        Series(name=form, kind="dots", points=points, tips=tips),
        Series(name="before pruning", kind="rings", role="quiet", points=[dense], tips=[f"{percent(dense[1], 2)}, not pruned"]),
    ]
    return draw_chart(
        f"{network} on {chip}, test split", x="SynOps per inference", y="accuracy", series=series,
        shares=True,
    )  # fmt: skip
