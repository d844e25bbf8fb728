"""Facts that a file states beside its layers: each key with what no command can read, and with what one writes."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import main
from spear_deploy.data import input_sums, time_steps
from spear_deploy.errors import GraphError
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LI, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.network.host_readout import HOST_LAYERS
from spear_deploy.network.metadata import VALUES, check_metadata
from spear_deploy.quantize import rounding

# fmt: off
NOT_READ = {
    "assumptions": ("text", [3], {"a": 1}),
    "quantization": (
        3, "loihi", [], None, {"scale": 3}, {"scale": {"fc": "x"}}, {"input_scale": "x"}, {"input_scale": 0},
        {"input_events_max": []}, {"findings": 3}, {"findings": ["fc"]},
        {"findings": [{"layer": "fc", "what": "axons", "given": 3.0}]},
        {"findings": [{"layer": "fc", "what": "axons", "given": None, "stored": 1.0}]},
        {"findings": [{"layer": ["fc"], "what": "axons", "given": 3.0, "stored": 1.0}]},
    ),
    "learnt_rounding": (3, {"scale": {"fc": 1.0}}, {"scale": {"fc": "x"}, "shift": {"fc": 1}}, {"scale": [], "shift": {}}),
    "kept_channels": (3, {"fc": 1}, {"fc": [-1]}, {"fc": [[0]]}, ["fc"]),
    "steps": (0, -1, "8", 1.5, True, None, [8], 10**30),
    "trained_steps": (0, "x", {}),
    "input_sums": (2, "22", [0], [1.5], [1, 1], []),
    "input_sums_max": ("x", None, [1]),
    "input_frame": ("x", [1], 1e300),
    "input_twice": (3, "x", [[1]], [0]),
    "decision": ("median", None, 3, ["mean"]),
    "outputs_per_class": (0, 1.5, "2", True, None),
    HOST_LAYERS: (3, None, [["fc"]], ["fc"]),
}
READ = {
    "assumptions": ["the step is 1 ms"],
    "quantization": {
        "scale": {"fc": 1e30}, "input_scale": 15.5, "input_events_max": None,
        "findings": [{"layer": "fc", "what": "max_spikes", "given": None, "stored": 1}],
    },
    "learnt_rounding": {"format": "loihi", "weight_bits": 8, "scale": {"fc": 0.5}, "shift": {"fc": -1}},
    "kept_channels": {"fc": [0, 2]},
    "steps": 4,
    "trained_steps": 8,
    "input_sums": [2],
    "input_sums_max": 3,
    "input_frame": 15,
    "input_twice": [3],
    "decision": "each",
    "outputs_per_class": 2,
    HOST_LAYERS: ["out", "one that a rewrite removed"],
}
# fmt: on


def network():
    layers = [
        Layer(name="fc", synapse=Dense(weight=np.ones((2, 3), np.float32)), neuron=IF()),
        Layer(name="out", synapse=Dense(weight=np.ones((2, 2), np.float32)), neuron=LI(tau_s=0.01)),
    ]
    return chain(layers, input_shape=(3,))


def test_every_key_has_values_that_are_read_and_some_that_are_not():
    assert set(NOT_READ) == set(READ) == set(VALUES)
    keys = (input_sums.INPUT_SUMS, input_sums.INPUT_SUMS_MAX, input_sums.INPUT_FRAME, input_sums.INPUT_TWICE)
    assert {*keys, time_steps.STEPS, time_steps.TRAINED_STEPS, rounding.LEARNT} <= set(VALUES)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NOT_READ.items() for value in values])
def test_a_file_with_facts_that_cannot_be_read_is_refused(key, value, tmp_path):
    graph = replace(network(), metadata={key: value})
    write_snn(graph, tmp_path / "net.snn")
    with pytest.raises(GraphError, match=rf"file '.*net.snn': metadata '{key}': .*; correct or remove it"):
        read_snn(tmp_path / "net.snn")
    shown = CliRunner().invoke(main, ["check", str(tmp_path / "net.snn"), "--chip", "loihi2"])
    assert shown.exit_code == 1 and shown.stderr.startswith("error: file ") and shown.stdout == ""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"steps": "8"}, "metadata 'steps': '8' given, expected a whole number of at least 1; correct or remove it"),
        ({HOST_LAYERS: ["fc"]}, f"metadata '{HOST_LAYERS}': layer 'out' lies behind layers of the host and is none; correct"),
        ({"input_sums": [1, 1]}, "metadata 'input_sums': a window has at most the 1 axes of the input; correct or remove it"),
    ],
)
def test_the_sentence_names_key_value_and_what_it_may_be(value, message):
    with pytest.raises(GraphError, match=message):
        check_metadata(replace(network(), metadata=value))


@pytest.mark.parametrize("key", READ)
def test_facts_that_commands_write_are_read(key, tmp_path):
    graph = replace(network(), metadata={key: READ[key], "a key of its owner": [None]})
    write_snn(graph, tmp_path / "net.snn")
    assert read_snn(tmp_path / "net.snn") == graph
