"""Budgets of pruning as rows: limit, aim and use where they were measured, and whether they are met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spear_deploy.pruning.budgets import ACTIVE, format_amount, resource_name
from spear_deploy.util.number_format import percent

MET, NOT_MET, UNKNOWN = ("yes", "ok"), ("no", "over"), ("not known", "unchecked")
"""Whether a budget is met, and the class of its mark."""


def list_budgets(budgets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each budget, with amounts in the units that users write.

    Where the test split was measured it decides whether a budget is met; what no spike changes, such as cores, is the same there.

    Args:
        budgets: by resource `budget`, `aim`, `used` and `met` (whether within the aim), `measured_on`, and `test` if measured.

    >>> row = {"budget": 2e-6, "aim": 1.9e-6, "used": 1.8e-6, "met": True, "measured_on": "validation"}
    >>> (cells,) = list_budgets({"energy_j": {**row, "test": {"budget": 2.1e-6, "used": 2.2e-6, "met": False}}})
    >>> cells["name"], cells["budget"], cells["aim"], cells["used"], cells["share"], cells["met"]
    ('energy', '2 µJ', '1.9 µJ', '1.8 µJ', '90.0 %', 'no')
    >>> cells["test"]
    {'budget': '2.1 µJ', 'used': '2.2 µJ', 'share': '104.8 %'}
    """
    rows = []
    for name, row in budgets.items():
        test, used = row.get("test"), row["used"]
        deciding = row if test is None else test
        status = UNKNOWN if deciding["used"] is None else MET if deciding["used"] <= deciding["budget"] else NOT_MET
        misses_aim = status == MET and used is not None and used > row["aim"]
        rows.append(
            {
                "name": resource_name(name),
                "measured_on": (row.get("measured_on") or "validation") if name in ACTIVE else "same for all samples",
                "aim": _write(name, row["aim"]),
                **_write_use(name, row),
                "test": None if test is None else _write_use(name, test),
                "met": status[0],
                "tone": status[1],
                "note": "above the aim while pruning" if misses_aim else "",
            }
        )
    return rows


def _write_use(resource: str, row: Mapping[str, Any]) -> dict[str, str]:
    limit, used = row["budget"], row["used"]
    share = "" if used is None or not limit else percent(used / limit, 1)
    return {"budget": _write(resource, limit), "used": _write(resource, used), "share": share}


def _write(resource: str, value: float | None) -> str:
    return "–" if value is None else format_amount(resource, value)
