"""How do spike counts lie in a file? `sent.<n>` and `delivered.<n>` of an `.npz`; which layer and edge is n, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.files import written_aside
from spear_deploy.graph import Edge
from spear_deploy.recordings import read_arrays
from spear_deploy.simulator import SpikeCounts


def write_counts(counts: SpikeCounts, path: Path) -> dict[str, Any]:
    """Write the counts, whole or not at all, and return what `read_counts` needs to know besides."""
    arrays = {f"sent.{n}": array for n, array in enumerate(counts.sent.values())}
    arrays |= {f"delivered.{n}": array for n, array in enumerate(counts.delivered.values())}
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **arrays)
    return {
        "sent": list(counts.sent),
        "delivered": [[edge.source, edge.target, edge.delay] for edge in counts.delivered],
        "steps": counts.steps,
        "samples": counts.samples,
        "input_kind": counts.input_kind,
    }


def read_counts(path: Path, facts: dict[str, Any]) -> SpikeCounts:
    """Return the counts that `write_counts` wrote.

    Raises:
        FileError: the file is missing, truncated or foreign.
    """
    arrays = read_arrays(path)
    edges = [Edge(source=source, target=target, delay=delay) for source, target, delay in facts["delivered"]]
    return SpikeCounts(
        sent={name: arrays[f"sent.{n}"] for n, name in enumerate(facts["sent"])},
        delivered={edge: arrays[f"delivered.{n}"] for n, edge in enumerate(edges)},
        steps=facts["steps"],
        samples=facts["samples"],
        input_kind=facts["input_kind"],
    )
