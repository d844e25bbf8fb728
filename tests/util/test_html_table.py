"""HTML tables of reports in notebooks, with escaped names."""

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


def test_names_are_escaped():
    layer = Layer(name="<script>alert(1)<b>", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())
    net = chain([layer], input_shape=(3,))
    result = Reader(sd.count(net, np.ones((2, 1, 3)))._repr_html_())
    assert "script" not in result.tags and "<script>alert(1)<b>" in result.text


def test_a_count_shows_layers_rates_and_rules():
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF(v_threshold=2.5))], input_shape=(3,))
    result = Reader(sd.count(net, np.ones((4, 1, 3)), rules=True)._repr_html_())
    assert result.rows == [["layer", "SynOps", "rate"], ["fc", "24", "1.0000"]]
    assert "24 SynOps per inference (1 samples, 4 steps)" in result.text and "by the rule 'exact': 24" in result.text


def test_analogue_input_is_reported_as_macs():
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    html = sd.count(net, np.full((4, 1, 3), 0.5), kind="current")._repr_html_()
    assert "analogue input: 24 MACs" in html


def test_an_unknown_status_is_no_colour():
    with pytest.raises(KeyError):
        html_table("", ("a",), [("fine", ("x",))])
