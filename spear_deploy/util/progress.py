"""Progress callbacks of long computations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Called with plain facts: `stage` as text, `done` and `of` (0 where the total is unknown), and numbers to display."""

LINE_EVERY_S = 60.0
"""Outside a terminal a stage has a line when it begins, and another after so many seconds."""


def prefix_stage(progress: Progress | None, stage: str) -> Progress | None:
    """Return a callback for a part of a computation, which puts the stage of the whole before that of the part."""
    if progress is None:
        return None
    return lambda facts: progress({**facts, "stage": f"{stage}: {facts['stage']}"})
