"""Loihi's integers as NIR's real numbers, and back.

Only neurons that keep all of v or nothing have a counterpart, which computes exactly the same. NIR states no integers: the
metadata hold what a reader needs to make them again, and a file whose numbers are others by now stays one of real numbers.

    weights         W · 2^weight_exponent                      W, exact
    bias            bias of the weights + bias / 64            both in the metadata
    v               in units of 64, as thresholds are          of a readout the stored integers, which it hands out
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.network import CONVS, IF, LI, LIF, LOIHI_UNIT, WEIGHTED, Dense, Layer, LoihiLIF, Scale, Weights
from spear_deploy.network.graph import SNNGraph

INTEGERS_KEY = "spear_integers"
"""Metadata of a graph: by layer the integer neuron, and exponent, type and bias of its weights, as JSON."""

MAX_EXPONENT = 64

REMEDY = "export the floating-point network"


def convert_to_float(graph: SNNGraph) -> SNNGraph:
    """Return an integer network in floating point, with exactly the same spikes and readouts.

    States of spiking neurons are in units of 64, as thresholds are; a readout's are the stored integers, which it hands out.

    Truncated decays have no counterpart in NIR's equations: only neurons that keep all of v or nothing can be converted.

    Raises:
        UnsupportedError: a layer that truncates, wraps or counts in another way.
    """
    if not graph.is_integer:
        return graph
    return graph.with_layers(lambda layer: _convert_layer(layer, graph.dt_s))


def _convert_layer(layer: Layer, dt_s: float) -> Layer:
    neuron, synapse = layer.neuron, layer.synapse
    if isinstance(synapse, Scale):
        raise UnsupportedError(f"layer '{layer.name}': rounds its input, NIR cannot; {REMEDY}")
    if isinstance(synapse, (Dense, *CONVS)):
        synapse = _apply_exponent(layer.name, synapse)
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
        bias = 0 if synapse.bias is None else synapse.bias
        shift = np.broadcast_to(neuron.bias.reshape(-1) / LOIHI_UNIT, synapse.weight.shape[:1])
        synapse = replace(synapse, bias=bias + shift)
    if neuron.v_threshold is None:
        return replace(layer, synapse=synapse, neuron=LI(tau_s=np.asarray(dt_s), r=np.asarray(float(LOIHI_UNIT))))
    levels: dict[str, Any] = {
        "v_threshold": neuron.v_threshold.astype(np.float64),
        "v_reset": neuron.v_reset / LOIHI_UNIT,
        "reset": neuron.reset,
    }
    return replace(layer, synapse=synapse, neuron=LIF(tau_s=np.asarray(dt_s), **levels) if full else IF(**levels))


def _apply_exponent(name: str, synapse: Any) -> Any:
    """Return the weights with their common exponent in them."""
    weight = synapse.weight * 2.0**synapse.weight_exponent
    if (weight != np.rint(weight)).any():
        raise UnsupportedError(f"layer '{name}': its sum is shifted down and truncated, NIR cannot; {REMEDY}")
    return replace(synapse, weight=weight, weight_exponent=0)


# -------------------------------------------------------------------------------------------------------- and back


def describe_integers(graph: SNNGraph) -> dict[str, str]:
    """Return the metadata of an integer network from which its integers are made again; none of another network."""
    if not graph.is_integer:
        return {}
    rows: dict[str, dict[str, Any]] = {}
    for layer in graph.layers:
        row: dict[str, Any] = {}
        if isinstance(layer.synapse, (Dense, *CONVS)):
            bias = layer.synapse.bias
            row["weights"] = {
                "exponent": layer.synapse.weight_exponent,
                "type": str(layer.synapse.weight.dtype),
                "bias": None if bias is None else {"type": str(bias.dtype), "values": bias.tolist()},
            }
        if isinstance(layer.neuron, LoihiLIF):
            values = {field.name: getattr(layer.neuron, field.name) for field in fields(layer.neuron)}
            row["neuron"] = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
        if row:
            rows[layer.name] = row
    return {INTEGERS_KEY: json.dumps(rows)}


def restore_integers(graph: SNNGraph, stated: str) -> tuple[SNNGraph, str | None]:
    """Return a network of real numbers as the integers that it was written from.

    Args:
        graph: the network of the file.
        stated: the metadata of `INTEGERS_KEY`.

    Returns:
        The integer network and None; or the same network, and the first layer whose numbers are no longer those of the integers.

    Raises:
        GraphError: the metadata are damaged.
    """
    try:
        rows = json.loads(stated)
        held = {layer.name: layer for layer in graph.layers if layer.neuron is not None or isinstance(layer.synapse, WEIGHTED)}
        if unmatched := rows.keys() ^ held.keys():
            return graph, min(unmatched)
        layers = {name: _restore_layer(layer, rows[name]) for name, layer in held.items()}
        changed = [name for name, layer in held.items() if not _is_made_of(layer, layers[name], graph.dt_s)]
        return (graph, changed[0]) if changed else (graph.with_layers(layers), None)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, GraphError) as error:
        raise GraphError(f"metadata '{INTEGERS_KEY}' is damaged ({error}); export the network again") from error


def _restore_layer(layer: Layer, row: Mapping[str, Any]) -> Layer:
    synapse, neuron = layer.synapse, layer.neuron
    if (weights := row.get("weights")) is not None and isinstance(synapse, (Dense, *CONVS)):
        exponent, bias = _read_parameter(weights["exponent"], "int"), weights["bias"]
        if abs(exponent) > MAX_EXPONENT:
            raise ValueError(f"an exponent of {exponent}")
        with np.errstate(invalid="ignore"):  # numbers beyond the type are no longer the network's, and are found out below
            whole = np.rint(synapse.weight * 2.0**-exponent).astype(_read_type(weights["type"]))
        held = None if bias is None else np.array(bias["values"], _read_type(bias["type"]))
        synapse = replace(synapse, weight=whole, bias=held, weight_exponent=exponent)
    if (values := row.get("neuron")) is not None:
        kinds = {field.name: field.type for field in fields(LoihiLIF)}
        parameters: dict[str, Any] = {key: _read_parameter(value, kinds[key]) for key, value in values.items()}
        neuron = LoihiLIF(**parameters)
    return replace(layer, synapse=synapse, neuron=neuron)


def _read_parameter(value: Any, kind: Any) -> Any:
    if kind == "int" and type(value) is not int:
        raise TypeError(f"{value!r} where a whole number belongs")
    return np.array(value) if "Array" in kind and isinstance(value, list) else value


def _read_type(name: str) -> np.dtype[Any]:
    kind = np.dtype(name)
    if kind.kind not in "iuf":
        raise ValueError(f"numbers of type '{name}'")
    return kind


def _is_made_of(layer: Layer, integer: Layer, dt_s: float) -> bool:
    """Return whether a layer of a file holds the real numbers of an integer layer."""
    try:
        wanted = _convert_layer(integer, dt_s)
    except UnsupportedError:
        return False
    return all(_hold_equal_values(getattr(layer, part), getattr(wanted, part)) for part in ("synapse", "norm", "neuron"))


def _hold_equal_values(a: Any, b: Any) -> bool:
    """Return whether two parts of a layer are equal in value; types and repeated values do not count."""
    if a is None or b is None or type(a) is not type(b):
        return a is b
    pairs = [(field.name, getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]
    return all(_are_equal(*(np.zeros(()) if name == "bias" and v is None else v for v in values)) for name, *values in pairs)


def _are_equal(a: Weights, b: Weights) -> bool:
    if hasattr(a, "dtype") and hasattr(b, "dtype"):
        return not (a != b).any()
    return type(a) is type(b) and bool(a == b)
