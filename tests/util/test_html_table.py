"""A notebook shows a good table, and lets nothing through that a name of a layer could smuggle in."""

from html.parser import HTMLParser

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.util.html_table import html_table


class Reader(HTMLParser):
    """Collect rows of cells and the tags, and check that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.text = set(), [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_report_shows_every_row_the_urgent_ones_first():
    report = sd.check("digits", "loihi2", synops=10, activity=0.1)
    found = Reader(report._repr_html_())
    head, *rows = found.rows
    assert head == ["layer", "resource", "used", "limit", "share", "status", "what to do"]
    assert len(rows) == len(report.rows)
    assert {tuple(row[:2]) for row in rows} == {(row.where, row.resource.replace("_", " ")) for row in report.rows}
    assert rows[0][1] == "synops" and rows[0][5] == "over" and rows[0][6]
    assert rows[0][2] == f"{report.synops:,.1f}"
    assert report.headline in found.text


def test_what_the_chip_does_not_have_is_said():
    report = sd.check("digits", "xylo_audio3")
    text = Reader(report._repr_html_()).text
    assert report.unsupported
    for one in report.unsupported:
        assert f"not on this chip: layer '{one.layer}': {one.what}; {one.why}" in text


def test_long_reports_say_how_much_they_leave_out():
    layers = [Layer(name=f"fc{i}", synapse=Dense(weight=np.eye(4)), neuron=IF()) for i in range(40)]
    report = sd.check(chain(layers, input_shape=(4,)), "loihi2")
    found = Reader(report._repr_html_())
    fine = sum(row.status == "ok" for row in report.rows)
    assert fine > 60 and f"{fine - 60} more within their limits" in found.text


def test_names_are_escaped():
    layer = Layer(name="<script>alert(1)<b>", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())
    net = chain([layer], input_shape=(3,))
    for shown in (sd.check(net, "loihi1"), sd.count(net, np.ones((2, 1, 3)))):
        found = Reader(shown._repr_html_())
        assert "script" not in found.tags and "<script>alert(1)<b>" in found.text


def test_a_count_shows_layers_rates_and_rules():
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF(v_threshold=2.5))], input_shape=(3,))
    found = Reader(sd.count(net, np.ones((4, 1, 3)), rules=True)._repr_html_())
    assert found.rows == [["layer", "SynOps", "rate"], ["fc", "24", "1.0000"]]
    assert "24 SynOps per inference (1 samples, 4 steps)" in found.text and "by the rule 'exact': 24" in found.text


def test_analogue_input_is_told_as_macs():
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    shown = sd.count(net, np.full((4, 1, 3), 0.5), kind="current")._repr_html_()
    assert "analogue input: 24 MACs" in shown


def test_an_unknown_status_is_no_colour():
    with pytest.raises(KeyError):
        html_table("", ("a",), [("fine", ("x",))])
