"""Numbers, shares, units, shapes and lists as text for readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

UNKNOWN = "–"
"""Stands for a number that is not known."""
LARGEST_WHOLE = 1e15
"""Floats below have all digits of a whole number."""
ROUNDING = 1e-9
"""Relative difference from a whole number below which an amount is one: sums of products with a share in floats."""
KINDS = {
    "b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "floating-point numbers", "c": "complex numbers",
    "U": "text", "S": "bytes", "O": "Python objects", "M": "dates", "m": "durations", "V": "records",
}  # fmt: skip
"""What arrays hold, by numpy's letter for their kind."""


def number(value: float | None) -> str:
    """Write a number with three significant digits; whole numbers and those from 1000 with all digits before the point.

    >>> [number(value) for value in (12345.6, 0.01234, 3.0, 0, None)]
    ['12,346', '0.0123', '3', '0', '–']
    """
    if value is None:
        return UNKNOWN
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def amount(value: float | None) -> str:
    """Write an amount that stands beside its limit: a digit more than `number`, "?" where it is not known.

    >>> [amount(value) for value in (5120, 174131.24, 10240 + 1e-8, 0.0123, None)]
    ['5,120', '174,131.2', '10,240', '0.0123', '?']
    """
    if value is None:
        return "?"
    if math.isfinite(value) and math.isclose(value, round(value), rel_tol=ROUNDING):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def of_limit(used: float, limit: float | None) -> str:
    """Write an amount with its limit, if there is one.

    >>> of_limit(3, 1152), of_limit(3, None)
    ('3 of 1,152', '3')
    """
    return amount(used) if limit is None else f"{amount(used)} of {amount(limit)}"


def compact(value: float) -> str:
    """Write a number as short as an axis of a chart needs it.

    >>> [compact(value) for value in (65899.0, 2_500_000, 120.0, 0.25, -0.5, 0)]
    ['65.9k', '2.5M', '120', '0.25', '−0.5', '0']
    """
    text = f"{abs(value):.3g}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            text = f"{abs(value) / size:.3g}{letter}"
            break
    return f"−{text}" if value < 0 else text


def percent(share: float | None, digits: int = 0) -> str:
    """Write a share, 1 for all, in percent.

    >>> percent(0.98889, 1), percent(0.004), percent(0), percent(None)
    ('98.9 %', '0.4 %', '0 %', '–')
    """
    if share is None:
        return UNKNOWN
    if digits == 0 and 0 < abs(share) < 0.01:
        return f"{100 * share:.1g} %"
    return f"{100 * share:.{digits}f} %"


def points(change: float) -> str:
    """Write a change of a share in percentage points, with its sign.

    >>> points(-0.0123), points(0.0004), points(0.002)
    ('−1.2 points', '±0 points', '+0.2 points')
    """
    rounded = round(100 * change, 1)
    if not rounded:
        return "±0 points"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f} points"


def rate(value: float | None) -> str:
    """Write a firing rate in spikes per neuron and step.

    >>> rate(0.0603), rate(0.0002), rate(None)
    ('0.060', '0.0002', '–')
    """
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if value == 0 or value >= 0.001 else f"{value:.1g}"


def with_prefix(value: float, unit: str) -> str:
    """Write a quantity of at most some units with the SI prefix of its size.

    >>> with_prefix(1.66e-3, "J")
    '1.66 mJ'
    """
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def quantity(value: float | None, unit: str) -> str:
    """Write an amount that stands beside its limit: a time, an energy or a frequency with its unit and prefix, any other alone.

    >>> quantity(1.66e-3, "J"), quantity(275_799_935.6, "Hz"), quantity(32_768, "Hz"), quantity(5120, "word"), quantity(None, "s")
    ('1.66 mJ', '275.8 MHz', '32.77 kHz', '5,120', '?')
    """
    if value is None or unit not in ("s", "J", "Hz"):
        return amount(value)
    for factor, prefix in ((1e6, "M"), (1e3, "k")):
        if unit == "Hz" and value >= factor:
            return f"{amount(value / factor)} {prefix}{unit}"
    return with_prefix(value, unit)


def interval(low: float, high: float | None, unit: str) -> str:
    """Write a quantity between two ends with the SI prefix of the upper one; "≥" without an upper end.

    >>> interval(1.2e-6, 9e-5, "J"), interval(0.0, 2e-3, "s"), interval(4.999e-3, 5e-3, "s"), interval(2e-9, None, "J")
    ('1.2–90 µJ', '0–2 ms', '5 ms', '≥ 2 nJ')
    """
    if high is None:
        return f"≥ {with_prefix(low, unit)}"
    upper = with_prefix(high, unit)
    digits = upper.split()[0]
    lower = f"{low / high * float(digits):.3g}" if high else digits
    return upper if lower == digits else f"{lower}–{upper}"


def byte_size(n_bytes: float) -> str:
    """Write a size of memory in MiB, from 1 GiB on in GiB.

    >>> byte_size(3 << 20), byte_size(5 << 30)
    ('3 MiB', '5.0 GiB')
    """
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / 2**20:.0f} MiB"


def seconds(value: float) -> str:
    """Write a duration given in seconds.

    >>> seconds(207.4), seconds(0.31), seconds(9000)
    ('3 min 27 s', '0.3 s', '2 h 30 min')
    """
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def name_values(kind: str) -> str:
    """Return what an array holds in words, from numpy's letter for its kind (`array.dtype.kind`).

    >>> name_values("U"), name_values("f"), name_values("V")
    ('text', 'floating-point numbers', 'records')
    """
    return KINDS.get(kind, "other values")


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "core"), plural(3456, "core")
    ('1 core', '3,456 cores')
    """
    return f"{count:,} {noun}" + "s" * (count != 1)


def write_steps(steps: float, digits: int = 6) -> str:
    """Write a number of steps, not always whole, to some digits.

    >>> write_steps(1.0000000001), write_steps(0.5), write_steps(2.46, 2)
    ('1 step', '0.5 steps', '2.5 steps')
    """
    text = f"{steps:.{digits}g}"
    return f"{text} {'step' if text == '1' else 'steps'}"


def unit_noun(name: str, value: float | None) -> str:
    """Write the unit of a count as a noun; a symbol stays.

    >>> unit_noun("word", 12), unit_noun("word", 1), unit_noun("J", 2), unit_noun("synop", 2), unit_noun("pass", 2)
    ('words', 'word', 'J', 'SynOps', 'passes')
    """
    noun = {"synop": "SynOp"}.get(name, name)
    if len(name) < 3 or value == 1 or not name.isalpha():
        return noun
    if noun in ("axis", "entry"):
        return {"axis": "axes", "entry": "entries"}[noun]
    return f"{noun}es" if noun.endswith(("s", "sh")) else f"{noun}s"


def format_shape(axes: Sequence[int], sign: str = "x") -> str:
    """Write a shape.

    >>> format_shape([16, 8, 8]), format_shape([2, 3], "×")
    ('16 x 8 x 8', '2 × 3')
    """
    return f" {sign} ".join(str(size) for size in axes)


def format_fact(value: Any) -> str:
    """Write the value of a fact of a hardware profile; whole numbers have all their digits.

    >>> format_fact([1, 2.0]), format_fact(True), format_fact(0.5), format_fact("x"), format_fact(33792), format_fact(2536144.0)
    ('1, 2', 'yes', '0.5', 'x', '33,792', '2,536,144')
    >>> format_fact([41.7e6, 49.3e6]), format_fact(4.83e-05), format_fact(())
    ('41,700,000; 49,300,000', '4.83e-05', 'none')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        items = [item if isinstance(item, str) else format_fact(item) for item in value]
        return ("; " if any("," in item for item in items) else ", ").join(items) or "none"
    if isinstance(value, float) and not (value.is_integer() and abs(value) < LARGEST_WHOLE):
        return f"{value:g}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def join_names(names: Sequence[str]) -> str:
    """Join names with commas and "and".

    >>> join_names(["a", "b", "c"]), join_names(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
