"""SARIF 2.1.0 of a budget report, one result per finding.

Format: OASIS Static Analysis Results Interchange Format, version 2.1.0. The rule of a result is the resource, its place the
network's file and the layer. `error` is over a limit or absent from the chip, `warning` is tight, `note` is unchecked.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.budget.report import BudgetReport

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"over": "error", "tight": "warning", "unchecked": "note"}


def to_sarif(report: BudgetReport, net: str) -> dict[str, Any]:
    """Return the findings of a check as one SARIF log.

    Args:
        report: of `check`.
        net: name of the network's file, relative to the repository where a service looks for it.
    """
    results = list(_results(report, net))
    rules = sorted({result["ruleId"] for result in results})
    driver = {
        "name": "spear-deploy",
        "version": version("spear-deploy"),
        "rules": [{"id": rule, "shortDescription": {"text": rule.replace("_", " ")}} for rule in rules],
    }
    properties = {"verdict": report.verdict, "profile": report.profile, "headline": report.headline}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results, "properties": properties}],
    }


def _results(report: BudgetReport, net: str) -> Iterator[dict[str, Any]]:
    for finding in report.unsupported:
        text = f"layer '{finding.layer}': {finding.what}; {finding.why}"
        yield _result("not_on_this_chip", "error", text, net, finding.layer)
    for row in report.rows:
        if row.status in LEVELS:
            yield _result(row.resource, LEVELS[row.status], _sentence(row, report.profile), net, row.where)


def _result(rule: str, level: str, text: str, net: str, where: str) -> dict[str, Any]:
    location = {
        "physicalLocation": {"artifactLocation": {"uri": quote(PurePath(net).as_posix())}},
        "logicalLocations": [{"name": where, "kind": "module"}],
    }
    return {"ruleId": rule, "level": level, "message": {"text": text}, "locations": [location]}


def _sentence(row: BudgetRow, profile: str) -> str:
    what = row.resource.replace("_", " ")
    used = "not counted" if row.used is None else f"{row.used:,g} {row.unit}"
    limit = "does not publish a limit" if row.limit is None else f"allows {row.limit:,g}"
    return f"{row.place}: {what} {used}, {profile} {limit}" + (f"; {row.remedy}" if row.remedy else "")
