"""Failures of a verification, and the comparison of plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from spear_deploy.util.files import read_text

MAX_FAILURES = 100
MISSING = "missing"
"""In place of a value that is not there."""
NUMBER = re.compile(r"(\d[\d.,]*)(?:e[+-]?\d+)?")
"""A number in a sentence, its digits as a group."""


class Failures:
    """Failures and the number of comparisons.

    Attributes:
        rows: [{file, where, stated, derived, sentence}], at most `MAX_FAILURES`.
        checked: values and files that were compared.
        same_words: whether a sentence must be the same, or the digits of its numbers alone, where other code wrote it.
    """

    def __init__(self, *, same_words: bool = True) -> None:
        self.rows: list[dict[str, Any]] = []
        self.checked = 0
        self.same_words = same_words

    def add(self, file: str, where: str, stated: Any, derived: Any, sentence: str = "") -> None:
        """Add a failure.

        Args:
            file, where: of the value; a failure of the whole file is nowhere.
            stated, derived: the two values, or `MISSING`.
            sentence: what is wrong; that the two differ, unless given.
        """
        if len(self.rows) < MAX_FAILURES:
            row = {"file": file, "where": where, "stated": _short(stated), "derived": _short(derived)}
            self.rows.append({**row, "sentence": sentence or _describe_difference(row["stated"], row["derived"])})

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
                    self.add(file, name, stated.get(key, MISSING), derived.get(key, MISSING))
                else:
                    self.compare(file, stated[key], derived[key], name)
        elif is_keyed(stated) and is_keyed(derived):
            self.compare(file, {row["key"]: row for row in stated}, {row["key"]: row for row in derived}, where)
        elif isinstance(stated, list) and isinstance(derived, list) and len(stated) == len(derived):
            for index, pair in enumerate(zip(stated, derived, strict=True)):
                self.compare(file, *pair, f"{where}[{index}]")
        else:
            self.checked += 1
            if type(stated) is not type(derived) or not self._is_equal(stated, derived):
                self.add(file, where, *_leave_out_shared(stated, derived))

    def compare_keys(self, file: str, stated: Any, derived: dict[str, Any], where: str = "", later: Iterable[str] = ()) -> None:
        """Compare the keys of `derived` alone; those of `later` may be missing, since earlier releases did not write them."""
        if not isinstance(stated, dict):
            self.add(file, where, stated, derived)
            return
        keys = [key for key in derived if key in stated or key not in later]
        self.compare(
            file, {key: stated[key] for key in keys if key in stated}, {key: derived[key] for key in keys}, where
        )  # fmt: skip

    def _is_equal(self, stated: Any, derived: Any) -> bool:
        """Compare two leaves of one type; float sums may round in another order on another processor."""
        if isinstance(stated, float):
            return math.isclose(stated, derived, rel_tol=1e-9)
        if not self.same_words and isinstance(stated, str) and " " in stated and " " in derived:
            return _list_digits(stated) == _list_digits(derived)
        return bool(stated == derived)


def read_stated(path: Path) -> Any:
    """Return the content of a JSON file of a deployment.

    Raises:
        FileError: missing, a folder, empty, or a pipe, which would be waited for.
        ValueError, RecursionError: no JSON.
    """
    return json.loads(read_text(path, "file of a deployment"))


def _describe_difference(stated: Any, derived: Any) -> str:
    """Return in words how two values differ.

    >>> _describe_difference(0.9, 0.8), _describe_difference(MISSING, 3), _describe_difference(3, MISSING)
    ('states 0.9, derived 0.8', 'is missing, derived 3', 'states 3, nothing is derived')
    """
    first = "is missing" if stated == MISSING else f"states {stated}"
    return f"{first}, nothing is derived" if derived == MISSING else f"{first}, derived {derived}"


def _list_digits(sentence: str) -> list[str]:
    """Return the digits of each number that count: 4.83e-05 s and 48.3 µs have the same.

    >>> _list_digits("10 of 4,096 words in 4.83e-05 s.")
    ['1', '4096', '483']
    """
    return [re.sub("[.,]", "", number).strip("0") for number in NUMBER.findall(sentence)]


def is_keyed(rows: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Return whether plain data is a list of objects that a "key" tells apart, as the facts of a chip."""
    return (
        isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) and isinstance(row.get("key"), str) for row in rows)
    )


def _leave_out_shared(stated: Any, derived: Any) -> tuple[Any, Any]:
    """Return two lists of texts without those that both have, so that a message shows what differs; else both as they are."""
    if not all(isinstance(value, list) and all(isinstance(item, str) for item in value) for value in (stated, derived)):
        return stated, derived
    return [item for item in stated if item not in derived], [item for item in derived if item not in stated]


def _short(value: Any) -> Any:
    """Return a value as it is printed: numbers and short texts whole, longer ones cut."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
