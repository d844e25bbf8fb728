"""Progress bar on stderr, removed when the work is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from spear_deploy.util.console import PrintableConsole
from spear_deploy.util.number_format import number
from spear_deploy.util.printable import write_note

LABELS = {"accuracy": "accuracy", "synops": "SynOps", "best": "best", "reward": "reward"}
"""Numbers beside the bar: key of the progress and label."""
BAR_WIDTH, SPINNER_WIDTH = 20, 2
MIN_BAR_TERMINAL = 100
"""Characters of a terminal that has room for a bar."""
LINE_EVERY_S = 60.0
"""Outside a terminal a stage has a line when it begins, and another after so many seconds."""
TIMES_WIDTH = len("00:00:00, 00:00:00 left") + 1


class Display(AbstractContextManager["Display"]):
    """Progress on stderr: a live bar in a terminal, a line at each stage and each minute elsewhere, nothing when quiet.

    Args:
        quiet: show nothing.
        after_s: show nothing during the first seconds, for work that is usually done by then.
    """

    def __init__(self, *, quiet: bool = False, after_s: float = 0.0) -> None:
        self.console = PrintableConsole(stderr=True)
        self.quiet, self.after_s = quiet, after_s
        self.stage, self.done = "", 0
        self.begin = self.last_line = time.monotonic()
        self.bars: Any = None
        self.visible = not after_s
        self.timer = threading.Timer(after_s, self._show)
        self.timer.daemon = True

    def __enter__(self) -> Display:
        if not self.quiet and not self.visible:
            self.timer.start()
        if not self.quiet and self.console.is_terminal:
            from rich.progress import Progress

            self.bars = Progress(*_make_columns(self.console.width), console=self.console, transient=True)
            self.bars.start()
            self.task = self.bars.add_task("starting", total=None, visible=self.visible)
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """Show progress: `stage`, `done`, `of` and the numbers of `LABELS`; or print a `note`, which stays."""
        if self.quiet:
            return
        if "note" in facts:
            self.console.print(write_note(facts["note"]), highlight=False, markup=False)
            return
        stage = str(facts.get("stage", self.stage))
        done, of = facts.get("done", 0), facts.get("of", 0)
        if self.bars is not None:
            extra = "  ".join(_list_numbers(facts))
            if stage != self.stage or done < self.done:
                self.bars.reset(self.task, visible=self.visible)  # restart the time estimate for this stage, or its next cycle
            self.bars.update(self.task, description=f"{stage}  {extra}", completed=done, total=of or None)
        elif self.visible and stage != self.stage:
            self._line(stage)
        elif self.visible and time.monotonic() - self.last_line >= LINE_EVERY_S:
            self._line(", ".join([stage, *([f"{done} of {of}"] if of else []), *_list_numbers(facts)]))
        self.stage, self.done = stage, done

    def _show(self) -> None:
        """Show the current stage, once `after_s` seconds have passed."""
        self.visible = True
        if self.bars is not None:
            self.bars.update(self.task, visible=True)
        elif self.stage:
            self._line(self.stage)

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(f"[elapsed {self.last_line - self.begin:6.1f} s] {text}", highlight=False, markup=False)


def _list_numbers(facts: Mapping[str, Any]) -> list[str]:
    """Return the numbers of `LABELS` that a progress has, with their names."""
    return [
        f"{name} {facts[key]:.1%}" if key == "accuracy" else f"{name} {number(facts[key])}"
        for key, name in LABELS.items()
        if isinstance(facts.get(key), float)
    ]


def _make_columns(width: int) -> list[Any]:
    """Return the columns of a bar: what is not the times is cut where the terminal is narrow, and the bar left out."""
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class _TimesColumn(ProgressColumn):
        """Time since the stage began, and that until its end where it is known."""

        def render(self, task: Any) -> Text:
            begun, left = timedelta(seconds=int(task.elapsed or 0)), task.time_remaining
            return Text(f"{begun}" if left is None else f"{begun}, {timedelta(seconds=int(left))} left", style="cyan")

    bar = [BarColumn(BAR_WIDTH)] if width >= MIN_BAR_TERMINAL else []
    room = width - TIMES_WIDTH - SPINNER_WIDTH - len(bar) * (BAR_WIDTH + 1)
    column = Column(no_wrap=True, overflow="ellipsis", max_width=max(room, 10))
    return [SpinnerColumn(), TextColumn("{task.description}", table_column=column), *bar, _TimesColumn(Column(no_wrap=True))]
