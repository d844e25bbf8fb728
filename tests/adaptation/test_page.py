"""Page of a network on every chip: the table says what the rows say, and the README what the page says."""

import json
from pathlib import Path

import pytest

from spear_deploy.hardware.profile import list_profiles
from tests.benchmarks.adapt import summarize, write_page, write_table

ROOT = Path(__file__).parents[2]
PAGE, ROWS = ROOT / "docs" / "benchmarks" / "adapt.md", ROOT / "docs" / "benchmarks" / "adapt.json"


def rows():
    return json.loads(ROWS.read_text(encoding="utf-8"))


def test_the_page_is_made_of_the_rows():
    assert PAGE.read_text(encoding="utf-8") == write_page(rows())


def test_every_row_is_of_a_chip_that_there_is_and_names_its_accuracy():
    assert {row["chip"] for row in rows()} <= set(list_profiles())
    for row in rows():
        line = next(line for line in write_table([row]).splitlines() if row["chip"] in line)
        if "error" not in row:
            assert f"{100 * row['accuracy']['adapted']:.1f} %" in line and (
                "missing" not in row or all(n in line for n in row["missing"])
            )


def test_the_readme_says_what_the_page_says():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert summarize([row for row in rows() if row["network"] == "digits"]) in readme and "docs/benchmarks/adapt.md" in readme


@pytest.mark.parametrize(("loss", "holds"), [(0.005, True), (0.03, False)])
def test_a_chip_is_counted_by_what_its_integers_lose(loss, holds):
    row = {**next(row for row in rows() if row["chip"] == "truenorth"), "missing": [], "verdict": "fits"}
    row["accuracy"] = {"trained": 0.98, "adapted": 0.98, "integers": 0.98 - loss}
    assert ("On 1 it loses" in summarize([row])) is holds


def test_what_the_hosts_help_adds_is_counted_apart():
    row = {**next(row for row in rows() if row["chip"] == "odin"), "readout": "chip", "missing": [], "verdict": "fits"}
    on_chip, on_host = ({**row, "accuracy": {"trained": 0.98, "adapted": 0.5, "integers": integers}} for integers in (0.9, 0.98))
    both = summarize([on_chip, {**on_host, "readout": "host"}])
    assert "of 1 chips 1 hold the adapted network. On 0 it loses" in both
    assert both.endswith("With the readout on the host, tried on 1 chip, it does so on 1 more: odin.")
    assert "readout on the host" not in summarize([on_chip])
    assert "| odin | host |" in write_table([{**on_host, "readout": "host"}])
