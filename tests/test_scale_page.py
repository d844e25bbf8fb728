"""The page of the scale benchmark against its raw data, and its claims."""

import json
from pathlib import Path

from tests.benchmarks.scale import find_exponents, write_table

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
CASES = json.loads((DOCS / "scale.json").read_text())["cases"]


def test_the_page_is_the_table_of_the_raw_data():
    assert (DOCS / "scale.md").read_text() == write_table(CASES, find_exponents(CASES))


def test_memory_stays_near_three_copies_of_the_weights():
    measured = [case for case in CASES if "error" not in case]
    assert len(measured) > 40
    checked = [case for case in measured if case["verb"].startswith("check")]
    assert len(checked) > 30 and all(case["peak_bytes"] <= 12 * case["weights"] + 300e6 for case in checked)


def test_time_grows_no_faster_than_networks_and_with_the_square_of_skips():
    for name, value in find_exponents(CASES).items():
        assert value <= (2.05 if name.endswith("skips") else 1.05), name
