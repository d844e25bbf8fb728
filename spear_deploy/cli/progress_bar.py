"""Progress bar on stderr, removed when the work is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any

from spear_deploy.util.console import PrintableConsole
from spear_deploy.util.number_format import number
from spear_deploy.util.printable import write_note
from spear_deploy.util.progress import LINE_EVERY_S

LABELS = {"accuracy": "accuracy", "synops": "SynOps", "best": "best", "reward": "reward"}
"""Numbers beside the bar: key of the progress and label."""
BAR_WIDTH, SPINNER_WIDTH = 20, 2
MIN_BAR_TERMINAL = 100
"""Characters of a terminal that has room for a bar."""
STARTING = "data, checks and first measurements"
"""What is shown until the first stage is known."""
JOIN_S = 1.0
"""Seconds that the end waits for the thread, which may stand in a write to a pipe that nobody reads."""
TIMES_WIDTH = len("00:00:00, 00:00:00 left") + 1


class Display(AbstractContextManager["Display"]):
    """Progress on stderr: a live bar in a terminal, a line at each stage and each minute elsewhere.

    A thread writes the line of each minute, so that a stage that reports nothing, such as the measurement of a large network, is
    not silent. It ends with the block, and writes nothing after it.

    Args:
        after_s: show nothing during the first seconds, for work that is usually done by then.
    """

    def __init__(self, *, after_s: float = 0.0) -> None:
        self.console = PrintableConsole(stderr=True)
        self.after_s = after_s
        self.facts: Mapping[str, Any] = {}
        self.stage, self.done = "", 0
        self.begin = self.last_line = time.monotonic()
        self.bars: Any = None
        self.visible = False
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._show_over_time, name="progress", daemon=True)

    def __enter__(self) -> Display:
        if not self.after_s:
            self._show()
        if self.bars is None:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join(JOIN_S)
        if self.bars is not None:
            self.bars.stop()

    def __call__(self, facts: Mapping[str, Any]) -> None:
        """Show progress: `stage`, `done`, `of` and the numbers of `LABELS`; or print a `note`, which stays."""
        if "note" in facts:
            self.console.print(write_note(facts["note"]), highlight=False, markup=False)
            return
        with self.lock:
            before, self.facts = (self.stage, self.done), facts
            self.stage, self.done = str(facts.get("stage", self.stage)), facts.get("done", 0)
            if self.bars is not None:
                if self.stage != before[0] or self.done < before[1]:
                    self.bars.reset(self.task)  # restart the time estimate for this stage, or its next cycle
                self._update_bar()
            elif self.visible and self.stage != before[0]:
                self._line(self.stage)

    def _show(self) -> None:
        """Begin to show: the bar, or the line of the current stage."""
        self.visible = True
        if self.console.is_terminal:
            from rich.progress import Progress

            self.bars = Progress(*_make_columns(self.console.width), console=self.console, transient=True)
            self.task = self.bars.add_task(STARTING, total=None)
            self._update_bar()
            self.bars.start()
        elif self.stage:
            self._line(self.stage)

    def _update_bar(self) -> None:
        extra = "  ".join(_list_numbers(self.facts))
        self.bars.update(
            self.task, description=f"{self.stage or STARTING}  {extra}", completed=self.done, total=self.facts.get("of") or None
        )

    def _show_over_time(self) -> None:
        """Begin to show after `after_s`; outside a terminal, write a line whenever a minute has passed without one."""
        with suppress(OSError, ValueError):  # a stderr that is closed: the block meets it at its own next line
            if not self.visible:
                if self.ended.wait(self.after_s):
                    return
                with self.lock:
                    self._show()
                    if self.bars is not None and self.ended.is_set():  # the block ended meanwhile, and had no bar to stop
                        self.bars.stop()
            while self.bars is None and not self.ended.wait(self.last_line + LINE_EVERY_S - time.monotonic()):
                with self.lock:
                    if time.monotonic() - self.last_line >= LINE_EVERY_S and not self.ended.is_set():
                        self._line(", ".join([self.stage or STARTING, *_list_amounts(self.facts)]))

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(f"[elapsed {self.last_line - self.begin:6.1f} s] {text}", highlight=False, markup=False)


def _list_amounts(facts: Mapping[str, Any]) -> list[str]:
    """Return how far a stage is, where that is known, and its numbers."""
    return [*([f"{facts.get('done', 0)} of {facts['of']}"] if facts.get("of") else []), *_list_numbers(facts)]


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
