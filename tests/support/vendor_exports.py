"""Exports to Xylo and Speck, run by their makers' simulators; in an environment that has them, beside this package.

    python -m tests.support.vendor_exports OUT.json CHIP

writes `{"chip", "simulator", "networks", "spikes", "differ"}`: spikes that the layers send here, and values (spikes, or
the potential of a readout) that differ there, over 20 random networks, for Xylo 40 with biases, and one trained on the digits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from tests.interchange import test_speck_file, test_xylo_file
from tests.interchange.test_vendor_simulators import SEEDS, XYLO_CHIPS, list_biased_networks, trained_digits

FEW_OUTPUTS = ("xylo_audio2",)
"""Chips with fewer outputs than there are digits."""


def list_networks(family: str, chip: str) -> Iterator[tuple[SNNGraph, Any, str]]:
    """Yield networks with input and its kind."""
    module = test_xylo_file if family == "xylo" else test_speck_file
    make = test_xylo_file.random_float_network if family == "xylo" else test_speck_file.random_network
    for seed in SEEDS:
        graph = make(seed)
        yield graph, module.spikes(graph, seed), "spikes"
    if family == "xylo":
        yield from ((graph, x, "spikes") for graph, x in list_biased_networks(chip))
    if chip not in FEW_OUTPUTS:
        graph, x = trained_digits(family)
        yield graph, x, "spikes" if (x == np.rint(x)).all() else "current"


def run(chip: str) -> dict[str, Any]:
    """Export all networks for a chip."""
    family = "xylo" if chip in XYLO_CHIPS else "speck"
    row: dict[str, Any] = {"chip": chip, "networks": 0, "spikes": 0, "differ": 0}
    for graph, x, kind in list_networks(family, chip):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "net.npz" if family == "xylo" else "net.json")
            certificate = api.export(graph, path, to=family, chip=chip, x=x, kind=kind)  # type: ignore[arg-type]
        sent = api.simulate(graph, x, chip=chip, kind=kind).counts.sent  # type: ignore[arg-type]
        row["networks"] += 1
        row["spikes"] += sum(int(np.sum(count)) for name, count in sent.items() if name != "input")
        row["differ"] += certificate["vendor"]["mismatches"] + certificate["mismatches"]
        row["simulator"] = certificate["vendor"]["simulator"]
    return row


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(run(sys.argv[2])))
