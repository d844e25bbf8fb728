"""File of the readout that a host computes, in numbers that numpy reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spear_deploy.network import array_parameters
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import merge_weights, read_host_readout
from spear_deploy.util.files import write_arrays

READOUT_FILE = "host_readout.npz"
"""Name of the file."""


def write_host_readout(graph: SNNGraph, folder: Path) -> str:
    """Write what the host computes of the spikes of a network, and return the file's name.

    The arrays are `weight` (classes, outputs), on the outputs in the order of their axes, `bias` (classes,), `model` ("LI",
    "CubaLI", or "" for a sum), `dt_s`, and the parameters of the model, (classes,). Pools are in the weights.

    Raises:
        GraphError: the readout in the metadata is damaged.
        FileError: the place is not writable.
    """
    host = read_host_readout(graph)
    assert host is not None, "there is a readout to write"
    weight, bias = merge_weights(host)
    neuron = host.layers[-1].neuron
    parameters = {} if neuron is None else array_parameters(neuron)
    spread = {name: np.broadcast_to(value, bias.shape) for name, value in parameters.items()}
    model = "" if neuron is None else type(neuron).__name__
    write_arrays(folder / READOUT_FILE, {"weight": weight, "bias": bias, "model": model, "dt_s": graph.dt_s, **spread})
    return READOUT_FILE
