"""The report as a person reads it: the verdict first, a line a layer, no line too wide, every violation with a way out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from spear_deploy.budget.check import check
from spear_deploy.budget.report import lines, text
from spear_deploy.cli.tables import show_check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LIF, Dense
from spear_deploy.network.graph import Layer, SNNGraph, chain
from tests.placement.test_brute_force import CHIPS, random_chip
from tests.support.chips import dense_net, random_net, small_chip


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("base", CHIPS)
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(base: str, width: int) -> None:
    rng = np.random.default_rng([CHIPS.index(base), width])
    report = check(random_net(rng), random_chip(rng, base), activity=0.1)
    shown = text(report, width)
    assert max(map(len, shown.splitlines())) <= width
    joined = " ".join(shown.split())
    assert joined.startswith(report.headline)
    for row in report.over:
        assert f"over: {row.resource.replace('_', ' ')} of {row.where}" in joined
        for remedy in row.remedy.split("; "):
            assert f"→ {remedy}" in joined
    for finding in report.unsupported:
        assert f"{finding.what}; {finding.why}" in joined
    out = io.StringIO()
    show_check(Console(file=out, width=width), report)
    assert out.getvalue().split() == shown.split()


def test_each_layer_has_a_line_with_the_fullest_core() -> None:
    report = check(dense_net(30, 40, 20), small_chip("loihi1", core__neurons=20))
    table = [line.split() for _, line in lines(report)][2:6]
    assert table[0] == "layer cores neurons syn mem axons in axons out fullest other".split()
    assert table[2][:4] == ["fc1", "2", "100", "%"] and table[3][:4] == ["fc2", "1", "100", "%"]
    assert "tight: neurons of fc1 100 %, neurons of fc2 100 %" in str(report)


def test_a_chip_without_a_resource_has_no_column_for_it() -> None:
    shown = str(check(dense_net(3, 4), load_profile("speck2f")))
    assert "axons in" not in shown and "syn mem" in shown and "input" not in shown


def test_things_that_are_missing_are_said_once_for_all_layers() -> None:
    def layer(name: str) -> Layer:
        return Layer(name=name, synapse=Dense(weight=np.ones((3, 3))), neuron=LIF(tau_s=0.01))

    net: SNNGraph = chain([layer("a"), layer("b")], input_shape=(3,))
    report = check(net, load_profile("speck2f"))
    assert "not on this chip: layers 'a', 'b': LIF; speck2f has IF, SpeckIF" in str(report)
    assert report.headline.startswith("DOES NOT FIT speck2f: 2 of 9 cores (22 %), 2 things the chip does not have")


def test_what_is_not_published_is_said_once_for_all_layers() -> None:
    report = check(dense_net(3, 4, 5, 6, 7, 8), small_chip("loihi2", connectivity__fan_in=None))
    assert "unchecked: fan in of fc1, fc2, fc3 and 2 more: limit not published" in str(report)


def test_layers_that_share_a_core_have_a_line_together() -> None:
    chip = small_chip("truenorth", connectivity__weight_palette="unlimited")
    shown = str(check(dense_net(30, 20, 20, 20), chip))
    assert "fc1 + fc2 + fc3" in shown and "FITS truenorth: 1 of 4096 cores" in shown


def test_long_names_and_many_layers_stay_readable() -> None:
    layers = [
        Layer(name=f"a_layer_with_a_rather_long_name_{n}", synapse=Dense(weight=np.ones((9, 9))), neuron=IF()) for n in range(9)
    ]
    report = check(chain(layers, input_shape=(9,)), small_chip("odin", core__neurons=30))
    shown = text(report, 80)
    assert max(map(len, shown.splitlines())) <= 80 and "more" in shown
