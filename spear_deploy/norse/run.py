"""Backend Norse: spikes of a network from Norse's cells.

The result has the form of the simulator's. Spikes come from Norse's cells in float32; potentials and currents are not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import Array, sends_several
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import ChipRun, InputKind, Record, check_input, count_spikes


def run_on_norse(
    graph: SNNGraph,
    x: Array,
    *,
    kind: InputKind = "spikes",
    record: Iterable[Record] = (),
    forward: Callable[[Array], Array] | None = None,
    device: str = "cpu",
) -> ChipRun:
    """Run a floating-point network as Norse cells.

    Args:
        graph: the network.
        x: (T, B, *input shape): whole numbers of spikes, or values of a current.
        kind: "spikes" or "current".
        record: "spikes", or nothing.
        forward: of the Norse model that the graph was read from, if any, (T, B, *input) -> (T, B, *output): it gives the output.
        device: of torch, one that is there.

    Raises:
        DataError: the input does not match the network, or a state is to be recorded.
        UnsupportedError: the network holds integers.
    """
    import torch

    from spear_deploy.norse.network import to_norse

    x, record = check_input(graph, x, kind), tuple(record)
    if graph.is_integer:
        raise UnsupportedError("backend 'norse': the network holds integers, Norse has floating point; use 'fast' or 'lava'")
    states = [what for what in record if what != "spikes"]
    if states:
        raise DataError(f"record '{states[0]}': backend 'norse' keeps spikes alone; record spikes, or use 'fast'")
    with torch.no_grad():
        output, spikes = to_norse(graph).to(device).eval()(torch.from_numpy(x.astype(np.float32)), record=True)
    emitted = {name: _read_spikes(graph, name, value.cpu().numpy()) for name, value in spikes.items()}
    y = output.cpu().numpy() if forward is None else forward(x.astype(np.float32))
    return ChipRun(
        output=_read_spikes(graph, graph.output, y) if graph[graph.output].spikes else y,
        spikes=emitted if "spikes" in record else {},
        v={},
        u={},
        counts=count_spikes(graph, {INPUT: x, **emitted}, kind),
        overflows={},
    )


def _read_spikes(graph: SNNGraph, name: str, emitted: Array) -> Array:
    """Return spikes as bool, or their number as int64 where a neuron sends several in a step."""
    return emitted.astype(np.int64) if sends_several(graph[name].neuron) else emitted > 0
