"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spear_deploy.cli.command import Command
from spear_deploy.cli.options import as_json
from spear_deploy.cli.output import emit


@click.command(cls=Command, short_help="Write the page of an output folder again.")
@click.argument("folder", metavar="DIR")
@click.option(
    "--out", metavar="FILE", help="The page.  [default: report.html, adapt.html, prune.html, front.html or sweep.html in DIR]"
)
@as_json
def report(folder: str, out: str | None, as_json: bool) -> None:
    """Write the page of an output folder again, from its files alone.

    DIR is the output folder of 'deploy', 'demo', 'adapt', 'prune' or 'sweep'. The page is one file without scripts,
    which loads nothing from elsewhere, follows light and dark, and can be printed.

    Example: spear-deploy report demo
    """
    from spear_deploy.report import write_report
    from spear_deploy.report.folder import read_network_digest
    from spear_deploy.report.page import find_shown

    path, digest = write_report(folder, out), read_network_digest(folder, find_shown(Path(folder)))
    facts: dict[str, Any] = {"report": str(path), "bytes": path.stat().st_size, "network_digest": digest}
    emit(facts, as_json=as_json, out=None, show=lambda console: console.print(f"report: {path}", highlight=False, soft_wrap=True))
