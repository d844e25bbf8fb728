"""The pages of the simulator beside frameworks and beside Lava against their raw data, and their claims."""

import json
from pathlib import Path
from statistics import median

from tests.benchmarks.simulation import write_page
from tests.benchmarks.simulation_frameworks import EARLIER, EARLIER_BUILDERS, OURS, PLAIN, ROWS, SIDES, TWO, write_table

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
CASES = json.loads((DOCS / "simulation_frameworks.json").read_text())["rows"]


def test_the_page_is_the_table_of_the_raw_data():
    assert (DOCS / "simulation_frameworks.md").read_text() == write_table(CASES)
    assert [(case["network"], case["batch"]) for case in CASES] == [(name, batch) for name in ROWS for batch in (1, 32)]


def test_the_page_beside_lava_is_made_of_its_raw_data_and_keeps_its_promises():
    page = (DOCS / "simulation.md").read_text()
    assert page == write_page(json.loads((DOCS / "simulation.json").read_text()))
    assert "broken" not in page and "all sides give the same spikes | yes" in page


def test_compiled_kernels_are_ahead_of_every_side_but_the_synapses_of_a_convolution():
    for case in CASES:
        us = {side: median(times) for side, times in case["us"].items()}
        sides = set(SIDES) - (set() if case["network"] in EARLIER_BUILDERS else {EARLIER})
        assert case["equal"] and not case["missing"] and us.keys() == sides
        assert all(us[OURS] < us[side] for side in (PLAIN, *SIDES[4:7])), case["network"]
        assert us[OURS] < 2 * us["synapses alone"] and us[TWO] < 1.05 * us[OURS], case["network"]
        if case["batch"] == 32 and EARLIER in us:
            assert us[EARLIER] > 2.5 * us[OURS], case["network"]
