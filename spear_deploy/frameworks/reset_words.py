"""Resets after a spike, and one spike in a step, as the frameworks of networks write them."""

from __future__ import annotations

from collections.abc import Iterable

from spear_deploy.network.graph import SNNGraph

RESET_OPTIONS = {
    "norse": {
        "value": "LIFBoxParameters(reset_method=norse.torch.reset_value)",
        "subtract": "LIFBoxParameters(reset_method=norse.torch.reset_subtract)",
    },
    "snntorch": {
        "value": "reset_mechanism='zero'",
        "subtract": "reset_mechanism='subtract'",
        "none": "reset_mechanism='none'",
    },
    "spikingjelly": {"value": "v_reset=0.0", "subtract": "v_reset=None"},
    "sinabs": {"value": "reset_fn=MembraneReset()", "subtract": "reset_fn=MembraneSubtract()"},
}
"""Arguments of neurons by framework and reset; Rockpool's neurons subtract their threshold alone."""

ONE_SPIKE_OPTIONS = {"sinabs": "spike_fn=SingleSpike", "rockpool": "max_spikes_per_dt=1"}
"""Arguments of neurons that send one spike in a step, of the frameworks whose neurons send several."""


def name_one_spike(graph: SNNGraph) -> str:
    """Return how the neurons of a network send one spike in a step, in the words of its framework."""
    return ONE_SPIKE_OPTIONS.get(str(graph.metadata.get("source")), "max_spikes=1")


def name_resets(graph: SNNGraph, resets: Iterable[str]) -> str:
    """Return how a network is given one of several resets: in the words of the framework that it comes from, else in those here.

    >>> from spear_deploy.network import IF, Dense, Layer
    >>> from spear_deploy.network.graph import chain
    >>> import numpy as np
    >>> net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 2))), neuron=IF())], input_shape=(2,))
    >>> name_resets(net, ["value", "subtract"])
    "reset='value' or reset='subtract'"
    """
    options = RESET_OPTIONS.get(str(graph.metadata.get("source")), {})
    return " or ".join(options.get(reset, f"reset='{reset}'") for reset in resets)
