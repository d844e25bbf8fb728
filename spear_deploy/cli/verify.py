"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spear_deploy.cli import completion
from spear_deploy.cli.command import Command
from spear_deploy.cli.options import as_json, quiet
from spear_deploy.cli.output import ERROR, display, emit


@click.command(cls=Command, short_help="Derive every figure of a deployment again.")
@click.argument("folder", metavar="DIR")
@click.option("--data", metavar="DATA", shell_complete=completion.complete_data, help="The data, where DIR does not name it.")
@click.option("--chip", metavar="NAME|FILE", shell_complete=completion.complete_chips, help="The chip, where its file moved.")
@click.option("--full", is_flag=True, help="Run all samples on Lava again, not only a few.")
@click.option("--out", metavar="FILE", help="Also write the JSON here, outside DIR.")
@quiet
@as_json
def verify(folder: str, data: str | None, chip: str | None, full: bool, out: str | None, quiet: bool, as_json: bool) -> None:
    """Derive every figure of a deployment again from its networks, data and chip, and compare it with what DIR states.

    DIR is the output folder of 'deploy' or 'demo'. Computed again are accuracy, SynOps, cores, verdict, spikes, exported files,
    digests and the page; of the search the widths, kept channels, use of the budget, first and last lever; of an adaptation the
    accuracy, verdict, cores, energy, first and last step. Exit code 0: all hold; 1: the list of what does not.

    Held by digests alone, since the networks in between are not kept: times, command line and versions; the course of the
    search; levers and steps between the first and the last; where trained.snn came from. Digests are no signature: someone who
    writes all of them again can change these.

    Example: spear-deploy verify demo
    """
    from spear_deploy.pipeline.verification.verify import verify as run_verify
    from spear_deploy.report.folder import read_network_digest

    if out is not None and Path(folder).resolve() in Path(out).resolve().parents:
        raise click.UsageError(f"--out: file '{out}' lies in the folder that is verified; choose another place")
    with display(as_json, quiet) as progress:
        result = run_verify(folder, data=data, chip=chip, full=full, progress=progress)

    def show(console: Any) -> None:
        where = "Lava ran no sample" if not result.lava_samples else f"{result.lava_samples} samples ran on Lava"
        verdict = "HOLDS" if result.holds else "DOES NOT HOLD"
        console.print(f"{verdict} {folder}: {result.checked:,} values compared, {where}", highlight=False, markup=False)
        for row in result.failures:
            place = f"{row['file']} {row['where']}".strip()
            console.print(f"  {place}: {row['sentence']}", highlight=False, markup=False, soft_wrap=True)
        for note in result.notes:
            console.print(f"note: {note}", highlight=False, markup=False)

    facts = {**result.to_json(), "network_digest": read_network_digest(folder)}
    emit(facts, as_json=as_json, out=out, show=show)
    if not result.holds:
        raise SystemExit(ERROR)
