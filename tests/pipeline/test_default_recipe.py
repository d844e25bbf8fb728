"""The default of `deploy` on a chip that rewards zeros: half widths and half weights, to exports and verification."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import spear_deploy as sd
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF
from spear_deploy.pruning.tune.thin_weights import count_zero_weights
from spear_deploy.training.fit import train
from tests.support.seeds import few_first
from tests.training.test_fit import quick, toy_data, toy_network


@pytest.mark.parametrize("chip", few_first(["catalyst_n1", "truenorth"], 1))
def test_deploy_removes_weights_by_default_and_all_files_hold_the_zeros(chip, tmp_path):
    data = toy_data()
    graph = toy_network(hidden=24).with_layers(lambda layer: replace(layer, neuron=IF()))
    write_snn(train(graph, data, recipe=quick(10)), tmp_path / "net.snn")
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    x, y = ({f"{key}_{name}": getattr(split, key) for name, split in splits.items()} for key in "xy")
    np.savez(tmp_path / "data.npz", **x, **y)
    out = tmp_path / "out"
    result = sd.deploy(tmp_path / "net.snn", chip, tmp_path / "data.npz", out=out, synops="40%")
    names = [row["lever"] for row in result.levers]
    assert names[:3] == ["trained", "channels", "weights"] and not result.failures
    assert json.loads((out / "provenance.json").read_text())["options"]["method"] == "recipe"
    assert result.synops["achieved"] <= result.synops["budget"] == pytest.approx(0.4 * result.synops["dense"])
    pruned, integer = read_snn(out / "pruned.snn"), read_snn(out / "quantised.snn")
    zeros, weights = count_zero_weights(pruned)
    assert 0.1 * weights < zeros <= count_zero_weights(integer)[0]
    assert any(note == f"{zeros:,} of {weights:,} weights are zero" for note in result.notes)
    home = sd.load(out / "nir" / "network.nir")
    assert count_zero_weights(home) == (zeros, weights)
    assert json.loads((out / "nir" / "certificate.json").read_text())["mismatches"] == 0
    checked = sd.verify(out)
    assert checked.holds, checked.failures
    assert sd.deploy(tmp_path / "net.snn", chip, tmp_path / "data.npz", out=out, synops="40%").resumed
