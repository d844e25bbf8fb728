"""Arguments of functions: whole numbers, seeds, switches and names, refused before work begins."""

from __future__ import annotations

from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

from spear_deploy.errors import DataError, SpearError

MAX_SEED = (1 << 32) - 1
"""The largest seed that numpy, torch and all searchers take."""


def require_whole_number(
    name: str, value: Any, *, least: int = 1, most: float = inf, error: type[SpearError] = DataError
) -> None:  # fmt: skip
    """Check that an argument is a whole number of `least` to `most`; True and 1.0 are none.

    Raises:
        DataError: it is not, or `error`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        expected = f"at least {least}" if most == inf else f"{least} to {most}"
        raise error(f"{name}: {_quote(value)} given, expected a whole number of {expected}")


def require_seed(value: Any) -> None:
    """Check that an argument is a seed.

    Raises:
        DataError: it is none.
    """
    require_whole_number("seed", value, least=0, most=MAX_SEED)


def require_switch(name: str, value: Any) -> None:
    """Check that an argument is True or False: a text such as "no" would count as True.

    Raises:
        DataError: it is neither.
    """
    if not isinstance(value, bool):
        raise DataError(f"{name}: {_quote(value)} given, expected True or False")


def require_seconds(name: str, value: Any) -> None:
    """Check that an argument is None or a number above 0.

    Raises:
        DataError: it is neither.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if value is not None and not (is_number and isfinite(value) and value > 0):
        raise DataError(f"{name}: {_quote(value)} given, expected a number of seconds above 0")


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
