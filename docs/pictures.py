"""What does a terminal show? Pictures of commands, as they run: `python docs/pictures.py` writes docs/images/*.svg.

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
"""rich's own, but for the fonts that it would fetch from the network."""


def recorded(command: str) -> Console:
    """Run a command as in a terminal of `WIDTH` columns, and return what recorded it."""
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


def plain(command: str) -> str:
    """Return what a picture of the command says, as text."""
    return recorded(command).export_text()


def pruning() -> Console:
    """Prune in earnest, and return what recorded the progress as it stood halfway through the search."""
    import spear_deploy as sd
    from spear_deploy.cli.progress_bar import Display

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(
        "$ spear-deploy prune digits --chip loihi2 --data digits --synops 50% --out pruned", style="bold", highlight=False
    )
    display = Display()
    display.console = Console(width=WIDTH, file=io.StringIO(), force_terminal=True)
    shown: list[str] = []

    def look(facts: Any) -> None:
        display(facts)
        stage = str(facts.get("stage"))
        if stage not in shown and facts.get("of", 0) and facts["done"] * 2 >= facts["of"]:
            shown.append(stage)
            console.print(display.bars.get_renderable())

    with display, tempfile.TemporaryDirectory() as folder:
        sd.prune("digits", "loihi2", "digits", synops="50%", out=folder, progress=look)
    return console


def main() -> None:
    """Write the pictures that are named, or all."""
    wanted = sys.argv[1:] or [*COMMANDS, "prune"]
    IMAGES.mkdir(exist_ok=True)
    for name in wanted:
        console = pruning() if name == "prune" else recorded(COMMANDS[name])
        console.save_svg(str(IMAGES / f"{name}.svg"), title="spear-deploy", unique_id=name, code_format=FORMAT)
        print(IMAGES / f"{name}.svg")


if __name__ == "__main__":
    main()
