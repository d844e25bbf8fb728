"""The command `sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from spear_deploy.cli.command import Command, command_line
from spear_deploy.cli.options import as_json, device, quiet, workers
from spear_deploy.cli.output import ERROR, display, emit


@click.command(cls=Command, short_help="Prune for many networks, chips, budgets, methods and seeds.")
@click.argument("sweep_file", metavar="SWEEP.toml")
@click.option("--out", required=True, metavar="DIR", help="Folder for sweep.json, a page, and a folder for each cell.")
@workers
@device
@quiet
@as_json
def sweep(sweep_file: str, out: str, workers: Any, device: str | None, quiet: bool, as_json: bool) -> None:
    """Prune every combination that a TOML file names, and compare accuracy and SynOps.

    The file has lists `networks`, `chips`, `budgets`, `methods` and `seeds`, and `data`; it names files relative to itself.
    A sweep that was stopped or killed goes on: the same command takes finished cells from DIR. Exits with 1 if a cell has no
    result.

    Example: spear-deploy sweep sweep.toml --out swept --workers 2
    """
    from spear_deploy.pipeline.sweep import sweep as run_sweep

    with display(as_json, quiet) as progress:
        try:
            result = run_sweep(
                sweep_file, out=out, workers=workers, device=device or "cpu", command=command_line(), progress=progress
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"finished cells are in '{out}', and `{command_line()}` goes on") from None
    if result["taken"]:
        click.echo(f"note: {result['taken']} of {len(result['cells'])} cells are taken from an earlier run", err=True)
    emit(result, as_json=as_json, out=None, show=lambda c: _show(c, result, out))
    errors = [row for row in result["cells"] if "error" in row]
    for row in errors:
        click.echo(f"error: {row['folder']}: {row['error']}", err=True)
    if errors:
        raise SystemExit(ERROR)


def _show(console: Any, result: Mapping[str, Any], out: str) -> None:
    """Print the means over seeds as a table."""
    from spear_deploy.cli.tables import list_files, make_table
    from spear_deploy.report.sweep_page import list_means

    rows = [
        (row["network"], row["chip"], row["budget"], row["method"], f"{row['accuracy']} {row['spread']}", row["synops"],
         row["cores"], row["verdict"], "yes" if row["front"] else "")
        for row in list_means(result["cells"], set(result["front"]))
    ]  # fmt: skip
    names = ("network", "chip", "budget", "method", "accuracy", "SynOps", "cores", "verdict", "unbeaten")
    console.print(make_table("", names, rows, numbers=(4, 5, 6)), highlight=False)
    if result["front"]:
        console.print("unbeaten: no other has as much accuracy at as few SynOps", highlight=False)
    console.print(list_files((result["files"]["sweep"], result["files"]["report"]), out), highlight=False)
