"""Which floating-point network does exactly what an integer one does?

Truncated decays have no counterpart in NIR's equations, so only neurons that keep all or nothing of v are written. States
count in units of 64, as thresholds do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import CONVS, IF, LI, LIF, LOIHI_UNIT, Dense, Layer, LoihiLIF, Scale

REMEDY = "export the floating-point network"


def as_float(graph: SNNGraph) -> SNNGraph:
    """Return an integer network in floating point where that does exactly the same, states in units of 64.

    Raises:
        UnsupportedError: what truncates, wraps or counts otherwise, by layer.
    """
    if not graph.is_integer:
        return graph
    return graph.with_layers(lambda layer: _float_layer(layer, graph.dt_s))


def _float_layer(layer: Layer, dt_s: float) -> Layer:
    neuron, synapse = layer.neuron, layer.synapse
    if isinstance(synapse, Scale):
        raise UnsupportedError(f"layer '{layer.name}': rounds its input, NIR cannot; {REMEDY}")
    if isinstance(synapse, (Dense, *CONVS)):
        synapse = _shifted(layer.name, synapse)
    if neuron is None:
        return replace(layer, synapse=synapse)
    if not isinstance(neuron, LoihiLIF):
        raise UnsupportedError(f"layer '{layer.name}': {type(neuron).__name__} has no counterpart in NIR; {REMEDY}")
    full, none = bool((neuron.decay_v == 4096).all()), bool((neuron.decay_v == 0).all())
    starts = neuron.v_reset if none else 0
    plain = (neuron.decay_u == 4096).all() and (neuron.v_init == starts).all() and not neuron.refractory_steps
    if not plain or not (full or (none and neuron.v_threshold is not None)):
        raise UnsupportedError(f"layer '{layer.name}': integer decays truncate, NIR's equations do not; {REMEDY}")
    if neuron.bias.any():
        if not isinstance(synapse, (Dense, *CONVS)) or neuron.bias.size not in (1, synapse.weight.shape[0]):
            raise UnsupportedError(f"layer '{layer.name}': a bias without weights has no place in NIR; {REMEDY}")
        given = 0 if synapse.bias is None else synapse.bias
        shift = np.broadcast_to(neuron.bias.reshape(-1) / LOIHI_UNIT, synapse.weight.shape[:1])
        synapse = replace(synapse, bias=given + shift)
    if neuron.v_threshold is None:
        return replace(layer, synapse=synapse, neuron=LI(tau_s=np.asarray(dt_s)))
    levels: dict[str, Any] = {
        "v_threshold": neuron.v_threshold.astype(np.float64),
        "v_reset": neuron.v_reset / LOIHI_UNIT,
        "reset": neuron.reset,
    }
    return replace(layer, synapse=synapse, neuron=LIF(tau_s=np.asarray(dt_s), **levels) if full else IF(**levels))


def _shifted(name: str, synapse: Any) -> Any:
    """Return the weights with their common exponent in them."""
    weight = synapse.weight * 2.0**synapse.weight_exponent
    if (weight != np.rint(weight)).any():
        raise UnsupportedError(f"layer '{name}': its sum is shifted down and truncated, NIR cannot; {REMEDY}")
    return replace(synapse, weight=weight, weight_exponent=0)
