"""Small charts: axes with round ticks, dots, lines and rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from typing import Any, Literal, TypeAlias

from spear_deploy.util.number_format import compact, percent

WIDTH, HEIGHT = 360, 216
TOP, BOTTOM, RIGHT = 24, 36, 14
"""Margins, in pixels at a width of 360: a chart fills the column of a phone, and half of a wide page."""
TICKS = 5
CHARACTER = 6.4
"""Width of a digit at an axis, in the same pixels."""

Point: TypeAlias = "tuple[float, float]"


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind, with an entry in the legend.

    Attributes:
        name: for the legend; "" for no entry.
        kind: shape of the marks.
        role: of the colour: "main", "quiet" or "alert".
        points: (x, y).
        tips: tooltips of the dots.
    """

    name: str
    kind: Literal["dots", "rings", "line", "steps"]
    points: Sequence[Point]
    role: Literal["main", "quiet", "alert"] = "main"
    tips: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A line across the chart at height `y`; without `y` the diagonal."""

    name: str
    y: float | None = None


def draw_chart(
    title: str,
    *,
    x: str,
    y: str,
    series: Sequence[Series],
    rules: Sequence[Rule] = (),
    shares: bool = False,
) -> dict[str, Any]:
    """Return ticks, marks and rules in pixels, and the legend, as plain data.

    Args:
        title, x, y: of the chart and of the axes, with units.
        series, rules: at least one point together.
        shares: whether values of the y axis are shares, written in percent.
    """
    points = [point for line in series for point in line.points]
    diagonal = any(rule.y is None for rule in rules)
    xs, ys = [point[0] for point in points], [point[1] for point in points] + [r.y for r in rules if r.y is not None]
    if diagonal:
        xs = ys = xs + ys
    counted = not diagonal and all(float(value).is_integer() for value in xs)
    x_ticks = choose_ticks(min(xs), max(xs), smallest=1.0 if counted else 0.0)
    y_ticks = choose_ticks(min(ys), max(ys), highest=1 if shares else inf)
    y_text = _write_share if shares else compact
    left = 10 + CHARACTER * max(len(y_text(tick)) for tick in y_ticks)

    def place(point: Point) -> tuple[float, float]:
        return (
            round(left + (WIDTH - RIGHT - left) * _interpolate(point[0], x_ticks), 1),
            round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * _interpolate(point[1], y_ticks), 1),
        )

    return {
        "title": title,
        "x": x,
        "y": y,
        "width": WIDTH,
        "height": HEIGHT,
        "left": round(left, 1),
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "x_ticks": [(place((tick, y_ticks[0]))[0], compact(tick)) for tick in x_ticks],
        "y_ticks": [(place((x_ticks[0], tick))[1], y_text(tick)) for tick in y_ticks],
        "rules": [_draw_rule(rule, place, x_ticks, y_ticks) for rule in rules],
        "series": [_draw_series(line, place) for line in series if len(line.points) > 1 or line.kind in ("dots", "rings")],
    }


def _write_share(share: float) -> str:
    return percent(share, 1)


def choose_ticks(low: float, high: float, count: int = TICKS, *, highest: float = inf, smallest: float = 0.0) -> list[float]:
    """Return round numbers, about `count`, from at most `low` to at least `high`; around a single value none above `highest`.

    They are at least `smallest` apart, 1 for whole numbers.

    >>> choose_ticks(0, 59), choose_ticks(0.61, 0.98), choose_ticks(7, 7)
    ([0.0, 20.0, 40.0, 60.0], [0.6, 0.7, 0.8, 0.9, 1.0], [6.0, 6.5, 7.0, 7.5, 8.0])
    >>> choose_ticks(0.98, 0.98, highest=1)
    [0.8, 0.85, 0.9, 0.95, 1.0]
    >>> choose_ticks(1, 1, smallest=1.0), choose_ticks(1, 4, smallest=1.0), choose_ticks(1, 3, 5, smallest=1.0)
    ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    """
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):
        around = max(abs(low), abs(high)) / 7
        around = max(around if around > 1e-300 else 1.0, smallest)
        low, high = low - around, max(high, min(high + around, highest))
    rough = max((high - low) / (count - 1), smallest)
    size = 10.0 ** floor(log10(rough))
    sizes = (1, 2, 2.5, 5, 10) if size > smallest else (1, 2, 5, 10)  # no 2.5 between whole numbers
    step = next(n * size for n in sizes if n * size >= rough * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(n * step, 12 - floor(log10(size))) for n in range(first, last + 1)]


def _interpolate(value: float, over: Sequence[float]) -> float:
    return (value - over[0]) / (over[-1] - over[0])


def _draw_rule(
    rule: Rule, place: Callable[[Point], tuple[float, float]], x_ticks: Sequence[float], y_ticks: Sequence[float]
) -> dict[str, Any]:
    ends = [(x_ticks[0], rule.y), (x_ticks[-1], rule.y)] if rule.y is not None else None
    (x1, y1), (x2, y2) = (place(end) for end in ends or [(x_ticks[0], y_ticks[0]), (x_ticks[-1], y_ticks[-1])])
    return {"name": rule.name, "x1": x1, "y1": y1, "x2": x2, "y2": y2}


def _draw_series(series: Series, place: Callable[[Point], tuple[float, float]]) -> dict[str, Any]:
    marks = [place(point) for point in series.points]
    path = ""
    if series.kind == "line":
        path = "M" + "L".join(f"{x} {y}" for x, y in marks)
    elif series.kind == "steps":
        path = f"M{marks[0][0]} {marks[0][1]}" + "".join(f"H{x}V{y}" for x, y in marks[1:])
    dots = [(*mark, tip) for mark, tip in zip(marks, series.tips or [""] * len(marks), strict=True)]
    return {"name": series.name, "kind": series.kind, "role": series.role, "path": path, "dots": dots if not path else []}
