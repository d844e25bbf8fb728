"""Tables of an adaptation and of a deployment."""

import io
from types import SimpleNamespace

from rich.console import Console

from spear_deploy.cli.tables.adaptation import show_waterfall
from spear_deploy.cli.tables.results import _describe_peak


def print_steps(*steps):
    """Return the lines of a table with these steps behind the trained network, each a name and layers."""
    rows = [{"after": "as trained", "kind": "", "layers": [], "accuracy": 0.5}]
    rows += [{"after": after, "kind": "learnt", "layers": list(layers), "accuracy": 0.5} for after, layers in steps]
    stream = io.StringIO()
    show_waterfall(Console(file=stream, width=200), rows, {"1": "1 Dense-LIF 20"})
    return [" ".join(line.split("│")[0].split()) for line in stream.getvalue().splitlines() if "50.00%" in line]


def test_steps_of_one_kind_name_their_layers_and_others_do_not():
    same = "membrane time constant of 5 steps → 8 steps"
    assert print_steps((same, ["1"]), (same, ["fc2"]), ("thresholds set on data", ["1", "fc2"])) == [
        "as trained", f"1 Dense-LIF 20: {same}", f"fc2: {same}", "thresholds set on data",
    ]  # fmt: skip
    assert print_steps((same, ["1"])) == ["as trained", same]


def test_a_memory_that_a_chip_has_for_all_its_cores_is_that_of_the_chip():
    def peak(where, layers):
        row = SimpleNamespace(resource="synapse_memory", used=1, limit=4, where=where, layers=layers)
        return _describe_peak(SimpleNamespace(rows=(row,)), {"1": "1 Dense-LIF 20"})

    assert peak("chip", ("chip",)) == "synapse memory 25 % on the fullest chip"
    assert peak("1 + fc", ("1", "fc")) == "synapse memory 25 % on the fullest core (1 Dense-LIF 20 + fc)"
