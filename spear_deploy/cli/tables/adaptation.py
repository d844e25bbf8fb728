"""Table of an adaptation: accuracy after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spear_deploy.adaptation.differences import describe_difference
from spear_deploy.cli.tables.grid import make_table

if TYPE_CHECKING:
    from rich.console import Console


def show_waterfall(console: Console, waterfall: Sequence[Mapping[str, Any]], labels: Mapping[str, str], title: str = "") -> None:
    """Print accuracy after each step, the points that it cost or brought, and the first spikes that it changed."""
    before = [None, *(row["accuracy"] for row in waterfall)]
    steps = [row["after"] for row in waterfall]
    rows = [
        (
            _name_layers(row, labels) + row["after"] if steps.count(row["after"]) > 1 else row["after"],
            row["kind"],
            f"{row['accuracy']:.2%}",
            "" if last is None else f"{100 * (row['accuracy'] - last):+.1f}",
            describe_difference(row.get("differs"), labels),
        )
        for row, last in zip(waterfall, before, strict=False)
    ]
    columns = ("after", "kind", "accuracy", "points", "spikes differ first")
    console.print(make_table(title, columns, rows, numbers=(2, 3)), highlight=False, markup=False)
    console.print()


def _name_layers(row: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return the layers of a step in front of it, which tell two steps of one kind apart."""
    layers = ", ".join(labels.get(name, name) for name in row.get("layers") or ())
    return f"{layers}: " if layers else ""
