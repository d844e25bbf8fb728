"""Who is told how far something is?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Is called with plain facts: `stage` in words, `done` and `of` (0: nobody knows how much there is), numbers worth showing."""


def part_of(progress: Progress | None, stage: str) -> Progress | None:
    """Return what is told of a part, with the whole's stage in front of the part's own."""
    if progress is None:
        return None
    return lambda facts: progress({**facts, "stage": f"{stage}: {facts['stage']}"})
