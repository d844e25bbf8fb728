"""Budget report in a terminal, as plain text and as HTML."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.budget.report import HTML_WIDTH, BudgetReport
from spear_deploy.budget.report_tables import MAX_OK_ROWS
from spear_deploy.cli.tables import show_check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LIF, Dense
from spear_deploy.network.graph import Layer, SNNGraph, chain
from tests.placement.test_brute_force import CHIPS, random_chip
from tests.support.chips import dense_net, random_net, small_chip


def words(text: str) -> str:
    """The words of a text, however its lines are broken."""
    return " ".join(text.split())


def findings(report: BudgetReport, width: int = 400) -> list[tuple[str, str]]:
    """The sentences below the table with their labels, each on one line where the text is wide enough."""
    below = report.to_text(width).split("\n\n", 2)[2]
    return [(line[2:11].strip(), line[11:].strip()) for line in below.splitlines() if line]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("base", CHIPS)
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(base: str, width: int) -> None:
    rng = np.random.default_rng([CHIPS.index(base), width])
    report = check(random_net(rng), random_chip(rng, base), activity=0.1)
    text = report.to_text(width)
    assert max(map(len, text.splitlines())) <= width
    assert words(text).startswith(report.headline)
    for row in report.over:
        assert f"over {row.resource.replace('_', ' ')} of {row.where}:" in words(text)
        for remedy in row.remedy.split("; "):
            assert f"→ {remedy}" in words(text)
    for finding in report.unsupported:
        assert f"{finding.what}; {finding.why}" in words(text)
    out = io.StringIO()
    show_check(Console(file=out, width=width), report)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == text.splitlines()


def test_each_layer_has_a_line_with_the_fullest_core() -> None:
    report = check(dense_net(30, 40, 20), small_chip("loihi1", core__neurons=20))
    head, _, *lines = report.to_text().split("\n\n")[1].splitlines()
    assert head.split() == "layer cores neurons syn mem axons in axons out fullest other".split()
    assert [line.split()[:4] for line in lines[-2:]] == [["fc1", "2", "100", "%"], ["fc2", "1", "100", "%"]]
    assert ("tight", "neurons of fc1 100 %, neurons of fc2 100 %") in findings(report)


def test_heads_break_between_words_and_shares_nowhere_in_60_columns() -> None:
    table = check(dense_net(30, 40, 20), small_chip("loihi1", core__neurons=20)).to_text(60).split("\n\n")[1]
    for word in ("layer", "cores", "neurons", "axons", "fullest", "100 %"):
        assert word in table


def test_a_chip_without_a_resource_has_no_column_for_it() -> None:
    text = str(check(dense_net(3, 4), load_profile("speck2f")))
    assert "axons in" not in text and "syn mem" in text and "input" not in text


def test_what_the_chip_lacks_stands_once_for_all_layers() -> None:
    def layer(name: str) -> Layer:
        return Layer(name=name, synapse=Dense(weight=np.ones((3, 3))), neuron=LIF(tau_s=0.01))

    net: SNNGraph = chain([layer("a"), layer("b")], input_shape=(3,))
    report = check(net, load_profile("speck2f"))
    assert ("missing", "layers 'a', 'b': LIF; speck2f has IF, SpeckIF") in findings(report)
    assert report.headline.startswith("DOES NOT FIT speck2f: 2 of 9 cores (22 %), 2 things the chip does not have")


def test_what_is_not_published_stands_once_for_all_layers() -> None:
    report = check(dense_net(3, 4, 5, 6, 7, 8), small_chip("loihi2", connectivity__fan_in=None))
    assert not [sentence for label, sentence in findings(report) if label == "unchecked"]
    [stated] = [sentence for label, sentence in findings(report) if label == "open"]
    assert stated.endswith("not published: fan_in") and str(report).count("not published") == 1


def test_limits_that_are_not_published_stand_in_one_line_beside_one_that_is_exceeded() -> None:
    report = check(dense_net(3, 400), small_chip("loihi2", core__neurons=1, connectivity__fan_in=None, core__axons_in=None))
    assert report.verdict == "does_not_fit"
    unchecked = [sentence for label, sentence in findings(report) if label == "unchecked"]
    assert unchecked == ["limits not published: axons in and fan in"]


def test_layers_that_share_a_core_have_one_line() -> None:
    chip = small_chip("truenorth", connectivity__weight_palette="unlimited")
    text = str(check(dense_net(30, 20, 20, 20), chip))
    assert "fc1 + fc2 + fc3" in text and "FITS truenorth: 1 of 4,096 cores" in text


def test_long_names_and_many_layers_keep_within_80_columns() -> None:
    layers = [
        Layer(name=f"a_layer_with_a_rather_long_name_{n}", synapse=Dense(weight=np.ones((9, 9))), neuron=IF()) for n in range(9)
    ]
    text = check(chain(layers, input_shape=(9,)), small_chip("odin", core__neurons=30)).to_text(80)
    assert max(map(len, text.splitlines())) <= 80 and "more" in text


def test_verdict_and_rows_have_the_colour_of_their_status() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system="standard", no_color=False)
    show_check(console, check(dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=8)))
    assert "\x1b[1;31mDOES NOT FIT\x1b[0m" in out.getvalue()
    assert re.search(r"\x1b\[1;31mover", out.getvalue()) and re.search(r"\x1b\[33mtight", out.getvalue())


# ---------------------------------------------------------------------------------------------------------------- HTML


class Reader(HTMLParser):
    """Collects the text, the tags and the colour of each text, and checks that tags close in order."""

    def __init__(self, report: BudgetReport) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[tuple[str, str]] = []
        self.text = ""
        self.styles: dict[str, str] = {}
        self.feed(report._repr_html_())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append((tag, dict(attrs).get("style") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self.styles[data.strip()] = self.open[-1][1] if self.open else ""

    @property
    def rows(self) -> list[list[str]]:
        """Cells of the table's rows, for tables without broken lines."""
        head, _, *lines = self.text.split("\n\n")[1].splitlines()
        spans = [match.span() for match in re.finditer(r"what to do|\S+", head)]
        starts = [0, *(start for start, _ in spans[1:])]
        starts[3:6] = [end + 1 for _, end in spans[2:5]]  # numbers end where their head ends
        starts[2] = spans[1][0] + max(len(line[spans[1][0] :].split("  ")[0]) for line in (head, *lines)) + 1
        return [[line[a:b].strip() for a, b in pairwise([*starts, len(line)])] for line in (head, *lines)]


def test_html_has_every_row_the_most_urgent_first() -> None:
    report = check(dense_net(30, 40, 20), small_chip("loihi2", core__neurons=30), limits=UserLimits(synops=10), activity=0.1)
    page = Reader(report)
    head, *rows = page.rows
    assert head == ["layer", "resource", "used", "limit", "share", "status", "what to do"]
    assert len(rows) == len(report.rows)
    assert {tuple(row[:2]) for row in rows} == {(row.where, row.resource.replace("_", " ")) for row in report.rows}
    assert [row[5] for row in rows] == sorted((row[5] for row in rows), key=["over", "tight", "unchecked", "ok"].index)
    assert rows[0] == ["chip", "synops", f"{report.synops:,.0f}", "10 synop", "2,000 %", "over", "prune: 95.0 % has to go"]
    assert words(page.text).startswith(report.headline)


def test_html_is_text_in_the_colours_of_the_notebook() -> None:
    page = Reader(check(dense_net(4, 100, 10), small_chip("loihi1", core__neurons=10, chip__usable_cores=8)))
    assert page.tags == {"pre", "span"}
    assert "color: #d1242f" in page.styles["DOES NOT FIT"]
    assert "background" not in page.open and max(map(len, page.text.splitlines())) <= HTML_WIDTH
    assert not any("background" in style for style in page.styles.values())


def test_html_names_what_the_chip_lacks() -> None:
    net = chain([Layer(name="a", synapse=Dense(weight=np.ones((3, 3))), neuron=LIF(tau_s=0.01))], input_shape=(3,))
    report = check(net, load_profile("speck2f"))
    assert "missing layer 'a': LIF; speck2f has IF, SpeckIF" in words(Reader(report).text)


def test_html_of_40_layers_counts_the_rows_that_it_leaves_out() -> None:
    layers = [Layer(name=f"fc{i}", synapse=Dense(weight=np.eye(4)), neuron=IF()) for i in range(40)]
    report = check(chain(layers, input_shape=(4,)), load_profile("loihi2"))
    ok = sum(row.status == "ok" for row in report.rows)
    assert ok > MAX_OK_ROWS and f"{ok - MAX_OK_ROWS} more within their limits" in Reader(report).text


def test_names_of_layers_are_neither_tags_nor_markup() -> None:
    name = "<script>alert(1)<b>[red]x"
    net = chain([Layer(name=name, synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    report = check(net, load_profile("loihi1"))
    page = Reader(report)
    assert "script" not in page.tags and name in page.text
    assert "<script>alert(1)<b>[red" in str(report)


def test_a_time_and_an_energy_over_their_limits_have_units() -> None:
    limits = UserLimits(latency_s=1e-8, energy_j=1e-9)
    text = words(check(dense_net(64, 32, 10), load_profile("loihi2"), activity=0.1, limits=limits).to_text(400))
    assert re.search(r"over latency of chip: [\d.]+ [nµ]s of 10 ns \(lower end of", text)
    assert re.search(r"over energy of chip: [\d.]+ [nµm]J of 1 nJ \(lower end of", text)


def test_one_core_is_not_compared_with_a_mean_and_hops_that_do_not_happen_have_no_price() -> None:
    text = words(check(dense_net(16, 8, 4), load_profile("catalyst_n1"), activity=0.1).to_text(400))
    assert "energy hop 0 J (0 tiles, one core; derived, structure: where nothing happens nothing is paid)" in text
    assert "work core 0 (" in text and "times the mean" not in text
