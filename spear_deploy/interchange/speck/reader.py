"""Independent reading of a Speck document.

Its sums and neurons in whole numbers, and sinabs' IAFSqueeze where it is installed.

    x ← sum of the sources' spikes over their windows;  v ← v + conv(x, weight) + bias
    n = ⌊v / threshold⌋ where v ≥ threshold;  v ← v − n · threshold, or 0 where n > 0;  v ← max(v, min_v_mem)

It shares no code with the simulator of networks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError
from spear_deploy.network import Array

NEEDED = ("input_shape", "input_pool", "layers", "output", "output_pool")


def read_speck(path: Path) -> dict[str, Any]:
    """Return the document of a file.

    Raises:
        FileError: not JSON, or no export to Speck.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(f"file '{path}': cannot be read as JSON ({error}); export the network again") from error
    missing = [name for name in NEEDED if not isinstance(document, dict) or name not in document]
    if missing:
        raise FileError(f"file '{path}': has no {', '.join(missing)}; it is not an export to Speck")
    return dict(document)


def run_document(document: Mapping[str, Any], x: Array) -> dict[str, Array]:
    """Run the layers in whole numbers.

    Args:
        document: of `read_speck`.
        x: events (T, B, *input shape), in any shape of that size.

    Returns:
        By layer, its spikes (T, B, O, H, W), int64.
    """
    sent = _take_input(document, x)
    for layer in document["layers"]:
        current = _convolve(_gather(document, layer["name"], sent), layer)
        v = np.broadcast_to(np.asarray(layer["v_init"], np.int64), current.shape[1:]).copy()
        spikes = np.empty(current.shape, np.int64)
        for t, step in enumerate(current):
            v = v + step
            spikes[t] = np.where(v >= layer["threshold"], v // layer["threshold"], 0)
            v = v - spikes[t] * layer["threshold"] if layer["reset"] == "subtract" else np.where(spikes[t] > 0, 0, v)
            v = np.maximum(v, layer["min_v_mem"])
        sent[layer["name"]] = spikes
    return {layer["name"]: sent[layer["name"]] for layer in document["layers"]}


def run_sinabs(document: Mapping[str, Any], x: Array) -> dict[str, Array] | None:
    """Run the layers as torch convolutions, sinabs' pools and `IAFSqueeze`; None where sinabs is not installed.

    Args:
        document, x: as in `run_document`.

    Returns:
        As `run_document`.
    """
    if find_spec("sinabs") is None:
        return None
    import torch
    from sinabs.activation import MembraneReset, MembraneSubtract
    from sinabs.layers import IAFSqueeze, SumPool2d

    steps, batch = x.shape[:2]

    def to_torch(value: Array) -> Any:
        return torch.as_tensor(np.ascontiguousarray(np.swapaxes(value, 0, 1)).reshape(-1, *value.shape[2:])).double()

    sent = {"input": to_torch(np.asarray(x, np.int64).reshape(steps, batch, *document["input_shape"]))}
    result: dict[str, Array] = {}
    with torch.no_grad():
        for layer in document["layers"]:
            total: Any = 0
            for source, window in _sources(document, layer["name"]):
                total = total + (SumPool2d(window)(sent[source]) if window > 1 else sent[source])
            current = torch.nn.functional.conv2d(
                total,
                torch.tensor(layer["weight"]).double(),
                None if layer["bias"] is None else torch.tensor(layer["bias"]).double(),
                stride=layer["stride"],
                padding=layer["padding"],
            )
            neuron = IAFSqueeze(
                batch_size=batch,
                spike_threshold=torch.tensor(float(layer["threshold"])),
                min_v_mem=float(layer["min_v_mem"]),
                reset_fn=MembraneSubtract() if layer["reset"] == "subtract" else MembraneReset(),
            ).double()
            start = torch.as_tensor(np.asarray(layer["v_init"])).double()
            neuron.v_mem = start.expand(batch, *current.shape[1:]).clone()
            sent[layer["name"]] = neuron(current).double()
            spikes = sent[layer["name"]].numpy().reshape(batch, steps, *current.shape[1:])
            result[layer["name"]] = np.swapaxes(spikes, 0, 1).astype(np.int64)
    return result


def values_by_layer(document: Mapping[str, Any], spikes: Mapping[str, Array], output: str) -> dict[str, Array]:
    """Return the spikes by layer, and under `output` those of the last one, summed over the window that the host pools.

    Args:
        document, spikes: of a run.
        output: name of the network's output.
    """
    return {**spikes, output: _pool(spikes[document["output"]], document["output_pool"])}


# ------------------------------------------------------------------------------------------------------------ inside


def _take_input(document: Mapping[str, Any], x: Array) -> dict[str, Array]:
    return {"input": np.asarray(x, np.int64).reshape(*x.shape[:2], *document["input_shape"])}


def _sources(document: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    """Return (source, window) of what reaches a layer; the first layers have no other source than the input."""
    ways = [(s["name"], d["pool"]) for s in document["layers"] for d in s["destinations"] if d["layer"] == name]
    entry = next(layer for layer in document["layers"] if layer["name"] == name)
    return [*ways, *([("input", document["input_pool"])] if entry["reads_input"] else [])]


def _gather(document: Mapping[str, Any], name: str, sent: Mapping[str, Array]) -> Array:
    parts = [_pool(sent[source], window) for source, window in _sources(document, name)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _pool(spikes: Array, window: int) -> Array:
    """Sum over windows; rows and columns that fill none are left out."""
    if window == 1:
        return spikes
    rows, columns = spikes.shape[-2] // window, spikes.shape[-1] // window
    cut = spikes[..., : rows * window, : columns * window]
    return np.asarray(cut.reshape(*cut.shape[:-2], rows, window, columns, window).sum(axis=(-3, -1)))


def _convolve(x: Array, layer: Mapping[str, Any]) -> Array:
    """Return the currents (T, B, O, H, W) of spikes (T, B, C, H, W)."""
    weight = np.asarray(layer["weight"], np.int64)
    (rows, columns), (up, left) = layer["stride"], layer["padding"]
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (up, up), (left, left)))
    views: Any = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(3, 4))  # type: ignore[call-overload]
    windows = views[:, :, :, ::rows, ::columns]
    current = np.stack([np.tensordot(step, weight, axes=([1, 4, 5], [1, 2, 3])) for step in windows])  # (T, B, H, W, O)
    current = np.moveaxis(current, -1, 2)
    if layer["bias"] is not None:
        current = current + np.asarray(layer["bias"], np.int64)[:, None, None]
    return current
