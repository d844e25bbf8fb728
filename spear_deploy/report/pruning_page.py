"""Results of `prune` for one budget or several, as charts and rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spear_deploy.errors import FileError
from spear_deploy.network.labels import add_kinds
from spear_deploy.report.budgets import list_budgets
from spear_deploy.report.chart import Series, draw_chart
from spear_deploy.report.folder import read_origin
from spear_deploy.report.search_charts import describe_levers, draw_search, pareto_front
from spear_deploy.util.files import read_text
from spear_deploy.util.number_format import number, percent

PAGES = {"front.json": "front.html", "prune.json": "prune.html"}
"""Results of `prune` for several budgets and for one, and the name of their page."""


def find_results(folder: Path) -> str | None:
    """Return the name of the newest results of `prune` in a folder, or None."""
    names = [name for name in PAGES if (folder / name).exists()]
    return max(names, key=lambda name: (folder / name).stat().st_mtime_ns, default=None)


def describe_results(folder: Path) -> dict[str, Any]:
    """Return charts and rows of the results and of the search for each budget, as plain data.

    Raises:
        FileError: a file is missing or damaged.
    """
    facts = _read_json(folder / (find_results(folder) or "front.json"))
    rows = facts["front"]
    ordered = sorted(rows, key=lambda row: -row["synops"]["achieved"])
    searches = [_read_json(folder / row["files"]["search"]) for row in rows]
    compares = len(rows) > 1 and any(search["search"] for search in searches)
    labels = rows[0].get("labels", {})
    budgets = [
        {**budget, "name": f"{row['wanted']}: {budget['name']}" if len(rows) > 1 else budget["name"]}
        for row in ordered
        for budget in list_budgets(row.get("budgets", {}))
    ]
    fault = _find_fault(rows, budgets)
    return {
        "title": fault or f"Accuracy within {'each' if len(rows) > 1 else 'the'} budget",
        "is_good": not fault,
        "lead": _write_lead([bool(search["search"]) for search in searches]),
        "notes": [add_kinds(note, labels) for note in _join_notes(rows)],
        "budgets": budgets,
        "charts": [_draw_networks(rows), *([_draw_plans(rows, searches)] if compares else [])],
        "rows": [_format_row(row) for row in ordered],
        "groups": [labels.get(name, name) for name in rows[0]["widths"]],
        "dense": {"accuracy": percent(rows[0]["accuracy"]["dense"], 2), "synops": number(rows[0]["synops"]["dense"])},
        "bits": _list_bits(ordered),
        "channels": [before for before, _ in rows[0]["widths"].values()],
        "chip": rows[0]["chip"],
        "origin": read_origin(facts),
        "parts": [
            {
                "name": row["wanted"],
                "charts": drawn["charts"],
                "summary": drawn["summary"],
                "levers": describe_levers(row.get("levers") or []),
                "bits": drawn["bits"],
            }
            for row, drawn in zip(rows, map(draw_search, searches), strict=True)
        ],
    }


def _find_fault(rows: Sequence[Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with a network, as a title, or an empty text.

    The table of budgets decides, where there is one: an aim that was missed is none. The limits of the chip hold besides.
    """
    missed, first = [row for row in rows if not row.get("met", True)], "A" if len(rows) > 1 else "The"
    if any(budget["tone"] != "ok" for budget in budgets) or (missed and not budgets):
        return f"{first} budget is not met"
    return f"{first} network does not fit {rows[0]['chip']}" if any(row["verdict"] == "does_not_fit" for row in missed) else ""


def _write_lead(changed: Sequence[bool]) -> str:
    """Return how the networks came about, of which some may be the trained one as it is.

    >>> _write_lead([False])
    'It is within the budget as it is.'
    >>> _write_lead([True, False])
    'One search proposed a network for each budget below that the trained network is not within; each was fine-tuned.'
    """
    if len(changed) == 1:
        return "The network below was proposed by a search and fine-tuned." if changed[0] else "It is within the budget as it is."
    if not any(changed):
        return "It is within each budget below as it is."
    kept = "" if all(changed) else " that the trained network is not within"
    return f"One search proposed a network for each budget below{kept}; each was fine-tuned."


def _join_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the notes of all networks, each once; one that is not about all of them names its budgets.

    >>> _join_notes([{"wanted": "50%", "notes": ["a", "b"]}, {"wanted": "20%", "notes": ["b"]}]), _join_notes([{"wanted": "50%"}])
    (['50%: a', 'b'], [])
    """
    notes = []
    for note in dict.fromkeys(note for row in rows for note in row.get("notes", [])):
        names = [row["wanted"] for row in rows if note in row.get("notes", [])]
        notes.append(note if len(names) == len(rows) else f"{', '.join(names)}: {note}")
    return notes


def _draw_networks(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the fine-tuned networks and the trained network."""
    dense = (rows[0]["synops"]["dense"], rows[0]["accuracy"]["dense"])
    finished = sorted((row["synops"]["achieved"], row["accuracy"]["pruned"]) for row in rows)
    tips = [f"{percent(accuracy, 2)} at {number(synops)} SynOps" for synops, accuracy in finished]
    best = pareto_front([{"synops": synops, "accuracy": accuracy} for synops, accuracy in [*finished, dense]])
    series = [
        Series(name="", kind="line", points=[(row["synops"], row["accuracy"]) for row in best]),
        Series(name="before pruning", kind="rings", role="quiet", points=[dense], tips=[f"{percent(dense[1], 2)}, not pruned"]),
        Series(name="fine-tuned to a budget", kind="dots", points=finished, tips=tips),
    ]
    return draw_chart(
        "Accuracy against SynOps, test split", x="SynOps per inference", y="accuracy", series=series,
        shares=True,
    )  # fmt: skip


def _draw_plans(rows: Sequence[Mapping[str, Any]], searches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw every plan of every budget as measured before fine-tuning."""
    plans = [{**plan, "wanted": row["wanted"]} for row, search in zip(rows, searches, strict=True) for plan in search["search"]]
    points = [(plan["synops"], plan["accuracy"]) for plan in plans]
    tips = [f"for {plan['wanted']}: {percent(plan['accuracy'], 1)} at {number(plan['synops'])} SynOps" for plan in plans]
    series = [
        Series(name="plan", kind="dots", role="quiet", points=points, tips=tips),
        Series(name="best of its size", kind="line", points=[(plan["synops"], plan["accuracy"]) for plan in pareto_front(plans)]),
    ]
    title = "Every plan of the search, before fine-tuning"
    return draw_chart(title, x="SynOps per inference", y="accuracy", series=series, shares=True)


def _list_bits(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the bits of a weight of each layer that has others than the chip's default in some row; None where none has."""
    stated = [row.get("weight_bits") or {"default": None, "layers": {}} for row in rows]
    names = list(dict.fromkeys(name for bits in stated for name in bits["layers"]))
    if not names:
        return None
    labels = rows[0].get("labels", {})
    return {
        "default": stated[0]["default"],
        "layers": [(labels.get(name, name), [bits["layers"].get(name, bits["default"]) for bits in stated]) for name in names],
    }


def _format_row(row: Mapping[str, Any]) -> dict[str, Any]:
    accuracy, synops = row["accuracy"], row["synops"]
    return {
        "wanted": row["wanted"],
        "pruned": percent(accuracy["pruned"], 2),
        "quantised": "–" if accuracy["quantised"] is None else percent(accuracy["quantised"], 2),
        "achieved": number(synops["achieved"]),
        "budget": f"{number(synops['budget'])} SynOps" if synops["budget"] else "",
        "share": percent(synops["achieved"] / synops["budget"], 1) if synops["budget"] else "–",
        "cores": row["cores_used"],
        "verdict": row["verdict"].replace("_", " "),
        "widths": [after for _, after in row["widths"].values()],
        "file": row["files"]["pruned"],
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "file of a front"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"file '{path}': is damaged ({str(error)[:80]}); prune again") from error
