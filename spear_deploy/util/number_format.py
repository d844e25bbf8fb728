"""How is a number written for a reader?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def number(value: float | None) -> str:
    """Write a number with at most three digits that matter, thousands apart.

    >>> [number(v) for v in (12345.6, 0.01234, 3.0, 0, None)]
    ['12,346', '0.0123', '3', '0', '–']
    """
    if value is None:
        return "–"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: float | None, digits: int = 0) -> str:
    """Write a share of one.

    >>> percent(0.98889, 1), percent(0.004), percent(0), percent(None)
    ('98.9 %', '0.4 %', '0 %', '–')
    """
    if share is None:
        return "–"
    if digits == 0 and 0 < abs(share) < 0.01:
        return f"{100 * share:.1g} %"
    return f"{100 * share:.{digits}f} %"


def rate(value: float | None) -> str:
    """Write spikes per neuron and step.

    >>> rate(0.0603), rate(0.0002), rate(None)
    ('0.060', '0.0002', '–')
    """
    if value is None:
        return "–"
    return f"{value:.3f}" if value == 0 or value >= 0.001 else f"{value:.1g}"


def points(change: float) -> str:
    """Write a change of a share in percentage points, with its sign.

    >>> points(-0.0123), points(0.0004), points(0.002)
    ('−1.2 points', '±0 points', '+0.2 points')
    """
    rounded = round(100 * change, 1)
    if not rounded:
        return "±0 points"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f} points"


def compact(value: float) -> str:
    """Write a number as short as an axis needs it.

    >>> [compact(v) for v in (65899.0, 2_500_000, 120.0, 0.25, -0.5, 0)]
    ['65.9k', '2.5M', '120', '0.25', '−0.5', '0']
    """
    text = f"{abs(value):.3g}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            text = f"{abs(value) / size:.3g}{unit}"
            break
    return f"−{text}" if value < 0 else text


def unit(name: str, value: float | None) -> str:
    """Write the unit of a count as a noun; a symbol stays.

    >>> unit("word", 12), unit("word", 1), unit("J", 2), unit("synop", 2)
    ('words', 'word', 'J', 'SynOps')
    """
    noun = {"synop": "SynOp"}.get(name, name)
    return noun if len(name) < 3 or value == 1 or not name.isalpha() else f"{noun}s"


def seconds(value: float) -> str:
    """Write a duration.

    >>> seconds(207.4), seconds(0.31), seconds(9000)
    ('3 min 27 s', '0.3 s', '2 h 30 min')
    """
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shape(axes: Sequence[int]) -> str:
    """Write a shape.

    >>> shape([16, 8, 8])
    '16 × 8 × 8'
    """
    return " × ".join(str(n) for n in axes)


def listed(value: Any) -> str:
    """Write a fact of a profile.

    >>> listed([1, 2]), listed(True), listed(0.5), listed("x")
    ('1, 2', 'yes', '0.5', 'x')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    >>> words(["a", "b", "c"]), words(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


# FOLDED from spear_deploy/util/number_format.py
# How are amounts written? With the prefix of their size, and their noun.


def with_prefix(value: float, unit: str) -> str:
    """Return a quantity with the prefix of its size.

    >>> with_prefix(1.66e-3, "J")
    '1.66 mJ'
    """
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def plural(n: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
