"""Failures of a verification, and the comparison of plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

MAX_FAILURES = 100


class Failures:
    """Failures and the number of comparisons.

    Attributes:
        rows: [{file, where, stated, derived}], at most `MAX_FAILURES`.
        checked: values and files that were compared.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.checked = 0

    def add(self, file: str, where: str, stated: Any, derived: Any) -> None:
        """Add a failure."""
        if len(self.rows) < MAX_FAILURES:
            self.rows.append({"file": file, "where": where, "stated": _short(stated), "derived": _short(derived)})

    def extend(self, other: Failures) -> None:
        """Add those of another comparison."""
        self.checked += other.checked
        for row in other.rows:
            self.add(**row)

    def compare(self, file: str, stated: Any, derived: Any, where: str = "") -> None:
        """Compare plain data, leaf by leaf."""
        if isinstance(stated, dict) and isinstance(derived, dict):
            for key in [*derived, *(key for key in stated if key not in derived)]:
                name = f"{where}.{key}" if where else str(key)
                if key not in stated or key not in derived:
                    self.add(file, name, stated.get(key, "missing"), derived.get(key, "missing"))
                else:
                    self.compare(file, stated[key], derived[key], name)
        elif isinstance(stated, list) and isinstance(derived, list) and len(stated) == len(derived):
            for index, pair in enumerate(zip(stated, derived, strict=True)):
                self.compare(file, *pair, f"{where}[{index}]")
        else:
            self.checked += 1
            if type(stated) is not type(derived) or not _equal(stated, derived):
                self.add(file, where, stated, derived)

    def compare_keys(self, file: str, stated: Any, derived: dict[str, Any], where: str = "", later: Iterable[str] = ()) -> None:
        """Compare the keys of `derived` alone; those of `later` may be missing, since earlier releases did not write them."""
        if not isinstance(stated, dict):
            self.add(file, where, stated, derived)
            return
        keys = [key for key in derived if key in stated or key not in later]
        self.compare(
            file, {key: stated[key] for key in keys if key in stated}, {key: derived[key] for key in keys}, where
        )  # fmt: skip


def _equal(stated: Any, derived: Any) -> bool:
    """Compare two leaves; float sums may round in another order on another processor."""
    return math.isclose(stated, derived, rel_tol=1e-9) if isinstance(stated, float) else bool(stated == derived)


def _short(value: Any) -> Any:
    """Return a value as it is printed: numbers and short texts whole, longer ones cut."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
