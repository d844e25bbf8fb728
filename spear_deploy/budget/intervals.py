"""Intervals of estimated amounts, with evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from spear_deploy.util.number_format import interval, with_prefix

WEAKEST_FIRST = ("unpublished", "projected", "derived", "simulated", "vendor", "measured", "user")
"""Kinds of evidence; an amount has the weakest one of its factors."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An amount that lies between two ends.

    Attributes:
        low, high: the ends, in SI units; `high` is None where only a lower end is known.
        evidence: the weakest kind of evidence of its factors.
        source: of the chip's numbers.
        how: the product in words.
    """

    low: float
    high: float | None
    evidence: str
    source: str = ""
    how: str = ""

    @property
    def upper(self) -> float:
        """The upper end, infinite where it is not known."""
        return inf if self.high is None else self.high

    def ends(self) -> list[float | None]:
        """Return [low, high] as plain data."""
        return [self.low, self.high]

    def write(self, unit: str) -> str:
        """Write the interval with its unit.

        >>> Interval(low=1.2e-6, high=9e-5, evidence="derived").write("J")
        '1.2–90 µJ'
        """
        return interval(self.low, self.high, unit)


def weakest(kinds: Sequence[str]) -> str:
    """Return the weakest of several kinds of evidence.

    >>> weakest(["measured", "derived", "vendor"])
    'derived'
    """
    return min(kinds, key=WEAKEST_FIRST.index)


def upper_end(amount: float | None, bounds: Interval | None) -> float | None:
    """Return an amount, or where it is not known the upper end of its interval, or None."""
    return amount if amount is not None or bounds is None else bounds.high


def rank_by_overlap(intervals: Sequence[Interval | None]) -> list[int | None]:
    """Return for each interval 1 + the number of intervals that lie wholly below it; None for an amount that is not known.

    Intervals that overlap say nothing about each other: neither counts against the other.

    >>> a, b, c = (Interval(low=low, high=high, evidence="derived") for low, high in ((1, 2), (1.5, 4), (3, 5)))
    >>> rank_by_overlap([c, a, None, b])
    [2, 1, None, 1]
    """
    known = [interval for interval in intervals if interval is not None]
    return [None if own is None else 1 + sum(other.upper < own.low for other in known) for own in intervals]


def describe_energy(energy: Mapping[str, Any]) -> tuple[str, str]:
    """Return the energy of an inference and its evidence in words; ("", "") where nothing is known.

    Args:
        energy: as `check --json` writes it.

    >>> parts = {"dynamic": [4e-6, 3e-5], "static": None, "evidence": {"dynamic": "derived"}}
    >>> describe_energy({"total": None, "interval_j": parts})
    ('4–30 µJ dynamic', 'derived')
    """
    parts = energy.get("interval_j") or {}
    known = {name: parts[name] for name in ("dynamic", "static") if parts.get(name) is not None}
    evidence = weakest(list(parts["evidence"].values())) if known else ""
    if energy["total"] is not None:
        return with_prefix(energy["total"], "J"), evidence
    return ", ".join(f"{interval(ends[0], ends[1], 'J')} {name}" for name, ends in known.items()), evidence


def describe_time(check: Mapping[str, Any]) -> tuple[str, str]:
    """Return the time of an inference and its evidence in words; ("", "") where nothing is known.

    Args:
        check: as `check --json` writes it.

    >>> describe_time({"latency_s": None, "latency_interval_s": [1e-4, 8e-4], "latency_evidence": "derived"})
    ('100–800 µs', 'derived')
    """
    ends, evidence = check.get("latency_interval_s"), check.get("latency_evidence") or ""
    if check["latency_s"] is not None:
        return with_prefix(check["latency_s"], "s"), evidence
    return ("", "") if ends is None else (interval(ends[0], ends[1], "s"), evidence)
