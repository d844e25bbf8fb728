"""Layers whose names are bare numbers carry kind and shape in tables and sentences, and their names in JSON."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy import count, rank
from spear_deploy.cli import main
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LIF, Conv2d, Dense, Layer, SumPool
from spear_deploy.network.graph import chain
from spear_deploy.network.labels import add_kinds, label_layers

NETWORK = chain(
    [
        Layer(name="0", synapse=Conv2d(weight=np.ones((4, 1, 3, 3), np.float32)), neuron=IF()),
        Layer(name="2.1", synapse=Dense(weight=np.ones((10, 144), np.float32)), neuron=IF()),
        Layer(name="out", synapse=Dense(weight=np.ones((3, 10), np.float32)), neuron=IF()),
    ],
    input_shape=(1, 8, 8),
)


def test_only_names_without_a_letter_are_completed():
    assert label_layers(NETWORK) == {"0": "0 Conv2d-IF 4 x 6 x 6", "2.1": "2.1 Dense-IF 10", "out": "out"}
    dense = Layer(name="1", synapse=NETWORK["2.1"].synapse)
    assert label_layers(chain([NETWORK.layers[0], dense], input_shape=(1, 8, 8)))["1"] == "1 Dense 10"


def test_a_sum_that_spikes_where_its_window_holds_a_spike_is_a_max_pool():
    def label(**neuron):
        layers = [NETWORK.layers[0], Layer(name="1", synapse=SumPool(kernel_size=2), neuron=IF(**neuron))]
        return label_layers(chain(layers, input_shape=(1, 8, 8)))["1"]

    assert label(v_threshold=0.5) == "1 MaxPool 4 x 3 x 3"
    assert label(v_threshold=1.0) == label(v_threshold=0.5, reset="subtract") == "1 SumPool-IF 4 x 3 x 3"


def test_a_ranking_names_a_max_pool_that_a_chip_lacks():
    layers = [NETWORK.layers[0], Layer(name="1", synapse=SumPool(kernel_size=2), neuron=IF(v_threshold=0.5))]
    entries = {entry.profile: entry for entry in rank(chain(layers, input_shape=(1, 8, 8)))}
    assert "layer '1': MaxPool" in entries["xylo_audio2"].missing
    layers[1] = Layer(name="1", synapse=SumPool(kernel_size=2), neuron=IF())
    entries = {entry.profile: entry for entry in rank(chain(layers, input_shape=(1, 8, 8)))}
    assert "layer '1': SumPool" in entries["xylo_audio2"].missing


def test_tables_show_the_labels_and_json_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    write_snn(NETWORK, tmp_path / "net.snn")
    np.savez("in.npz", spikes=np.ones((2, 1, 1, 8, 8), np.uint8))
    for command in (
        ("check", "net.snn", "--chip", "loihi2"),
        ("count", "net.snn", "--input", "in.npz"),
        ("simulate", "net.snn", "--input", "in.npz", "--out", "run.npz"),
        ("simulate", "net.snn", "--input", "in.npz", "--chip", "loihi2", "--explain"),
        ("compare", "net.snn", "net.snn", "--input", "in.npz"),
        ("count", "net.snn", "--input", "in.npz", "--times"),
    ):
        shown = CliRunner().invoke(main, command)
        assert shown.exit_code == 0 and "0 Conv2d-IF 4 x 6 x 6" in shown.stdout, (command, shown.stdout, shown.stderr)
    assert "  0 Conv2d-IF 4 x 6 x 6" in shown.stderr  # of --times
    assert "0 Conv2d-IF 4 x 6 x 6" in count(NETWORK, np.ones((2, 1, 1, 8, 8)))._repr_html_()
    value = json.loads(CliRunner().invoke(main, ("count", "net.snn", "--input", "in.npz", "--json")).stdout)
    assert list(value["synops_per_layer"]) == ["0", "2.1", "out"]


@pytest.mark.slow
def test_prune_prints_the_widths_under_the_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(0.3, 1, shape).astype(np.float32)), neuron=IF())
        for name, shape in (("0", (8, 6)), ("2", (3, 8)))
    ]
    write_snn(chain(layers, input_shape=(6,)), tmp_path / "net.snn")
    np.savez("mine.npz", x=rng.random((60, 4, 6)) < 0.5, y=np.arange(60) % 3)
    command = ("prune", "net.snn", "--chip", "loihi2", "--data", "mine.npz", "--parameters", "60%", "--levers", "channels")
    shown = CliRunner().invoke(main, (*command, "--episodes", "1", "--epochs", "1", "--out", "out", "--quiet"))
    assert shown.exit_code == 0 and "widths: 0 Dense-IF 8: 8→" in shown.stdout, (shown.stdout, shown.stderr)


def test_numbers_in_a_row_are_told_from_counts(tmp_path, monkeypatch):
    """A count beside a bare name, as "memory of 10 262,144", reads as two numbers."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(0, 1, shape).astype(np.float32)), neuron=LIF(tau_s=0.02))
        for name, shape in (("8", (512, 512)), ("10", (512, 512)), ("12", (10, 512)))
    ]
    graph = chain(layers, input_shape=(512,))
    write_snn(graph, "net.snn")
    missing = {entry.profile: entry.missing for entry in rank(graph, ["speck2f"])}
    assert "synapse memory of layer '10': 262,144 of 65,536" in missing["speck2f"]
    assert "layer '8': LIF" in missing["speck2f"]

    def words(*command, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = CliRunner().invoke(main, command)
        assert all(len(line) <= width for line in shown.stdout.splitlines()), shown.stdout
        return " ".join(shown.stdout.split()), " ".join(shown.stderr.split())

    checked, _ = words("check", "net.snn", "--chip", "speck2f")
    assert "synapse memory of layer '10' (Dense-LIF 512): 262,144 of 65,536" in checked
    assert "→ drop 384 of 512 channels of layer '10' (Dense-LIF 512)" in checked
    for width in (80, 120):
        ranked, _ = words("rank", "net.snn", "--chip", "speck2f", "--activity", "0.1", width=width)
        assert "layer '8' (Dense-LIF 512):" in ranked
    _, refused = words("export", "net.snn", "--to", "speck", "--out", "out/net.json")
    assert "layer '8' (Dense-LIF 512): synapse memory" in refused and "layer '10' (Dense-LIF 512): synapse memory" in refused


def test_a_sentence_names_the_kind_of_a_layer_once():
    labels = {"0": "0 Conv2d 4 x 6 x 6", "2.1": "2.1 Dense 10", "3": "3 Dense 2", "out": "out"}
    text = "layers '0' and '2.1': late; layer 'out' reads layer '0'; budget '3' is no layer"
    kinds = "layers '0' (Conv2d 4 x 6 x 6) and '2.1' (Dense 10): late; layer 'out' reads layer '0'; budget '3' is no layer"
    assert add_kinds(text, labels) == kinds
    assert add_kinds("layers '0', '2.1', '3': LIF", labels) == "layers '0', '2.1', '3': LIF"
    for words in ("spikes from '3'", "group '3'", "edge '3' -> 'out'", "of the given network '3' hardly spikes", "core 0 ('3')"):
        assert add_kinds(words, labels) == words.replace("'3'", "'3' (Dense 2)")
    assert add_kinds("'3' hardly spikes", {"3": "3"}) == "'3' hardly spikes"
