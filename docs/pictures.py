"""Pictures of commands in a terminal, drawn from their real output.

`python docs/pictures.py [NAME ...]` writes docs/images/*.svg:

check      a network that does not fit the small chip of examples/
rank       which chip could run it
explain    what each step to the chip's integers costs
prune      the search while it runs: progress on stderr, with the time that is left
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).resolve().parent / "images"
ROOT = IMAGES.parents[1]
COMMANDS = {
    "check": "spear-deploy check digits --chip examples/smallchip.yaml",
    "rank": "spear-deploy rank digits --activity 0.1",
    "explain": "spear-deploy simulate digits --chip loihi2 --explain --data digits --samples 60 --quiet",
}
WIDTH = 110
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
"""rich's own format without the fonts that it would fetch from the network."""


def record_command(command: str) -> Console:
    """Run a command as in a terminal of `WIDTH` columns, and return a console that holds its output."""
    from click.testing import CliRunner

    from spear_deploy.cli import main

    before = os.getcwd()
    os.chdir(ROOT)
    try:
        environment = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "NO_COLOR": None, "TERM": "xterm-256color"}
        done = CliRunner().invoke(main, shlex.split(command)[1:], env=environment, color=True)
    finally:
        os.chdir(before)
    if done.exit_code not in (0, 3):
        raise RuntimeError(f"{command}: exit code {done.exit_code}: {done.stderr}")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(f"$ {command}", style="bold", highlight=False)
    console.print(Text.from_ansi(done.stdout))
    return console


def record_text(command: str) -> str:
    """Return the text of the picture of a command."""
    return record_command(command).export_text()


def record_pruning() -> Console:
    """Run `prune`, and return a console that holds the progress bar in the middle of each stage."""
    import spear_deploy as sd
    from spear_deploy.cli.progress_bar import Display

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(
        "$ spear-deploy prune digits --chip loihi2 --data digits --synops 50% --out pruned", style="bold", highlight=False
    )
    display = Display()
    display.console = Console(width=WIDTH, file=io.StringIO(), force_terminal=True)
    stages: list[str] = []

    def draw(facts: Any) -> None:
        display(facts)
        stage = str(facts.get("stage"))
        if stage not in stages and facts.get("of", 0) and facts["done"] * 2 >= facts["of"]:
            stages.append(stage)
            console.print(display.bars.get_renderable())

    with display, tempfile.TemporaryDirectory() as folder:
        sd.prune("digits", "loihi2", "digits", synops="50%", out=folder, progress=draw)
    return console


def main() -> None:
    """Write the pictures that are named, or all."""
    wanted = sys.argv[1:] or [*COMMANDS, "prune"]
    IMAGES.mkdir(exist_ok=True)
    for name in wanted:
        console = record_pruning() if name == "prune" else record_command(COMMANDS[name])
        console.save_svg(str(IMAGES / f"{name}.svg"), title="spear-deploy", unique_id=name, code_format=FORMAT)
        print(IMAGES / f"{name}.svg")


if __name__ == "__main__":
    main()
