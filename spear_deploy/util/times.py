"""Wall time of a run by stage and layer.

Stages lie inside each other (a search holds evaluations); each gets the time that no stage inside it took, so that all rows add
up to the whole. Nothing is measured outside of `record_times`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

REST = "everything else"
"""Stage of the time outside of all others."""


@dataclass
class Times:
    """Seconds and calls by (stage, layer); layer "" is the stage without its layers.

    Attributes:
        rows: [seconds, calls].
        seconds: of the whole, so far.
    """

    rows: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    begin: float = field(default_factory=lambda: time.perf_counter())
    stages: list[str] = field(default_factory=lambda: [REST])
    inside: list[float] = field(default_factory=lambda: [0.0])
    """Seconds of what lay inside each open stage or layer."""

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self.begin

    def add(self, key: tuple[str, str], seconds: float) -> None:
        """Add a call."""
        row = self.rows.setdefault(key, [0.0, 0])
        row[0] += seconds
        row[1] += 1

    def to_json(self) -> dict[str, Any]:
        """Return {seconds, stages: [{stage, seconds, share, calls, layers: {name: seconds}}]}, the longest stage first."""
        total = self.seconds
        rest = total - sum(seconds for seconds, _ in self.rows.values())
        rows = {**self.rows, (REST, ""): [max(rest, 0.0), 1]}
        stages = []
        for stage in dict.fromkeys(stage for stage, _ in rows):
            parts = {layer: row for (of, layer), row in rows.items() if of == stage}
            seconds = sum(row[0] for row in parts.values())
            layers = {name: row[0] for name, row in sorted(parts.items(), key=lambda part: -part[1][0]) if name}
            calls = int(parts.get("", [0.0, 0])[1])
            stages.append(
                {"stage": stage, "seconds": seconds, "share": seconds / max(total, 1e-12), "calls": calls, "layers": layers}
            )
        return {"seconds": total, "stages": sorted(stages, key=lambda row: -row["seconds"])}


_current: ContextVar[Times | None] = ContextVar("times", default=None)


@contextmanager
def record_times() -> Iterator[Times]:
    """Measure what runs in this block, in this process."""
    times = Times()
    token = _current.set(times)
    try:
        yield times
    finally:
        _current.reset(token)


def current_times() -> Times | None:
    """Return what the surrounding `record_times` has measured, or None outside of one."""
    return _current.get()


@contextmanager
def timed_stage(name: str) -> Iterator[None]:
    """Count the time of this block to a stage."""
    times = _current.get()
    if times is None:
        yield
        return
    times.stages.append(name)
    with _measure(times, (name, "")):
        try:
            yield
        finally:
            times.stages.pop()


@contextmanager
def timed_layer(name: str) -> Iterator[None]:
    """Count the time of this block to a layer of the present stage."""
    times = _current.get()
    if times is None:
        yield
        return
    with _measure(times, (times.stages[-1], name)):
        yield


@contextmanager
def _measure(times: Times, key: tuple[str, str]) -> Iterator[None]:
    times.inside.append(0.0)
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - begin
        times.add(key, seconds - times.inside.pop())
        times.inside[-1] += seconds
