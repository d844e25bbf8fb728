"""Results of the commands as plain data, under one header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

from spear_deploy.interchange.snn_file import hash_network

if TYPE_CHECKING:
    from spear_deploy.budget.chip_ranking import Ranked
    from spear_deploy.network.graph import SNNGraph
    from spear_deploy.pipeline.backends import BackendChoice
    from spear_deploy.simulator.spike_comparison import LayerDifference

SCHEMA_VERSION = 1
"""Of the JSON of all commands: it grows when a key changes its meaning or goes; new keys leave it."""


def tool_version() -> str:
    """Return the version of this package, "unknown" where it runs without being installed."""
    try:
        return metadata.version("spear-deploy")
    except metadata.PackageNotFoundError:
        return "unknown"


def describe_run(command: str | None) -> dict[str, Any]:
    """Return when a result was made, by which version, and by which command line; None of a call from Python."""
    return {"made": write_now(), "command": command, "tool_version": tool_version()}


def write_now() -> str:
    """Return this moment, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def add_header(value: Mapping[str, Any], graph: SNNGraph | None = None) -> dict[str, Any]:
    """Return a result with what the JSON of every command carries: tool_version, schema_version, network_digest, assumptions.

    Args:
        value: of a command; assumptions that it lists itself come after those of the network.
        graph: the network, whose digest is the sha256 of its `.snn` file; without one the digest is None.
    """
    header = {
        "tool_version": tool_version(),
        "schema_version": SCHEMA_VERSION,
        "network_digest": None if graph is None else hash_network(graph),
    }
    notes = [*([] if graph is None else list_assumptions(graph)), *value.get("assumptions", [])]
    return {**header, **value, "assumptions": list(dict.fromkeys(notes))}


def list_assumptions(graph: SNNGraph) -> list[str]:
    """Return the sentences on what the file of a network left open."""
    return [str(note) for note in graph.metadata.get("assumptions", [])]


def describe_ranking(ranking: Iterable[Ranked]) -> dict[str, Any]:
    """Return the result of `rank`: {chips: the reports, the best first}."""
    return {"chips": [ranked.to_json() for ranked in ranking]}


def describe_comparison(a: BackendChoice, b: BackendChoice, layers: Iterable[LayerDifference]) -> dict[str, Any]:
    """Return the result of `compare`.

    Args:
        a, b: the two runs, with their graphs loaded.
        layers: of `compare`.

    Returns:
        {layers, states, mismatches, a, b}: differences of spikes and output, those of states, the sum of the first, and net,
        backend, chip, network_digest and assumptions of each side.
    """
    rows = list(layers)
    spikes = [row for row in rows if row.what not in ("v", "u")]
    return {
        "layers": [row.to_json() for row in spikes],
        "states": [row.to_json() for row in rows if row not in spikes],
        "mismatches": sum(row.mismatches for row in spikes),
        "a": _describe_side(a),
        "b": _describe_side(b),
    }


def _describe_side(side: BackendChoice) -> dict[str, Any]:
    header = add_header({}, side.graph)
    names = {"net": str(side.net), "backend": side.backend, "chip": getattr(side.chip, "name", side.chip)}
    return {**names, "network_digest": header["network_digest"], "assumptions": header["assumptions"]}
