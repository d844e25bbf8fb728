"""How does progress look in a terminal? As a bar on stderr that goes when the work is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console

from spear_deploy.util.number_format import number

SHOWN = {"accuracy": "accuracy", "synops": "SynOps", "best": "best", "reward": "reward"}
"""Numbers worth showing beside the bar, by the name they are told with."""


class Display(AbstractContextManager["Display"]):
    """Progress on stderr: a live bar in a terminal, one line a stage elsewhere, nothing when quiet.

    Args:
        quiet: show nothing.
        after_s: show nothing before so many seconds are over, of what mostly takes less.
    """

    def __init__(self, *, quiet: bool = False, after_s: float = 0.0) -> None:
        self.console = Console(stderr=True)
        self.quiet, self.after_s = quiet, after_s
        self.stage = ""
        self.begin = time.monotonic()
        self.bars: Any = None
        self.shown = not after_s
        self.timer = threading.Timer(after_s, self._show)
        self.timer.daemon = True

    def __enter__(self) -> Display:
        if not self.quiet and not self.shown:
            self.timer.start()
        if not self.quiet and self.console.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
            self.task = self.bars.add_task("starting", total=None, visible=self.shown)
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """Take one piece of progress: `stage`, `done`, `of`, and numbers worth showing; or a `note`, which stays."""
        if self.quiet:
            return
        if "note" in facts:
            self.console.print(f"note: {facts['note']}", highlight=False, markup=False)
            return
        stage = str(facts.get("stage", self.stage))
        done, of = facts.get("done", 0), facts.get("of", 0)
        if self.bars is not None:
            extra = "  ".join(
                f"{name} {facts[key]:.1%}" if key == "accuracy" else f"{name} {number(facts[key])}"
                for key, name in SHOWN.items()
                if isinstance(facts.get(key), float)
            )
            if stage != self.stage:
                self.bars.reset(self.task, visible=self.shown)  # the time left is that of this stage
            self.bars.update(self.task, description=f"{stage}  {extra}", completed=done, total=of or None)
        elif stage != self.stage and self.shown:
            self._line(stage)
        self.stage = stage

    def _show(self) -> None:
        """Show what is going on by now."""
        self.shown = True
        if self.bars is not None:
            self.bars.update(self.task, visible=True)
        elif self.stage:
            self._line(self.stage)

    def _line(self, stage: str) -> None:
        self.console.print(f"[{time.monotonic() - self.begin:6.1f} s] {stage}", highlight=False, markup=False)
