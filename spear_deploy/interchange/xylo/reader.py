"""Independent reading of Xylo's arrays.

The chip's update, neuron array by neuron array, and xylosim where it is installed.

    i ← clip(i + ((s_in · W_in) << shift_in) + ((s_rec of the step before · W_rec) << shift_rec));  i ← i − fall(i, dash_syn)
    v ← clip(v + clip(clip(i − fall(v, dash_mem)) + bias));  n = min(⌊v / threshold⌋, 31) spikes;  v ← v − n · threshold
    outputs: the same of (s_rec of the step before · W_out) << shift_out, one spike at most

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
from spear_deploy.util.files import read_arrays

NEEDED = (
    *("weights_in", "weights_rec", "weights_out", "dash_mem", "dash_mem_out", "dash_syn", "dash_syn_out", "threshold"),
    *("threshold_out", "bias_hidden", "bias_out", "weight_shift_in", "weight_shift_rec", "weight_shift_out"),
)
BITS16 = (-(2**15), 2**15 - 1)


def read_xylo(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a file and its description.

    Raises:
        FileError: no arrays for Xylo, or shapes that contradict each other.
    """
    arrays = read_arrays(path)
    missing = [name for name in (*NEEDED, "description") if name not in arrays]
    if missing:
        raise FileError(f"file '{path}': has no {', '.join(missing)}; it is not an export to Xylo")
    try:
        description: dict[str, Any] = json.loads(str(arrays.pop("description")))
        is_consistent = isinstance(description, dict) and _has_one_size(arrays)
    except (ValueError, RecursionError, IndexError, TypeError) as error:  # no JSON; an array without axes
        raise FileError(f"file '{path}': is damaged ({type(error).__name__}); export the network again") from error
    if not is_consistent:
        raise FileError(f"file '{path}': its arrays have different numbers of neurons; export the network again")
    return arrays, description


def _has_one_size(arrays: Mapping[str, Array]) -> bool:
    """Return whether all arrays are of the same numbers of neurons."""
    hidden, outputs = len(arrays["dash_mem"]), len(arrays["dash_mem_out"])
    return (
        arrays["weights_rec"].shape == (hidden, hidden, 1)
        and arrays["weights_in"].shape[1] <= hidden
        and arrays["weights_out"].shape[0] <= hidden
        and arrays["weights_out"].shape[1] == outputs
        and all(len(arrays[name]) == hidden for name in ("dash_syn", "threshold", "bias_hidden"))
        and all(len(arrays[name]) == outputs for name in ("dash_syn_out", "threshold_out", "bias_out"))
    )


def run_arrays(arrays: Mapping[str, Array], x: Array) -> dict[str, Array]:
    """Run the chip's update.

    Args:
        arrays: of `read_xylo`.
        x: events (T, B, inputs).

    Returns:
        "hidden" spikes (T, B, hidden), "out" spikes and "out_v" potentials (T, B, outputs), int64.
    """
    a = {name: value.astype(np.int64) for name, value in arrays.items()}
    steps, batch = x.shape[:2]
    hidden, outputs = len(a["dash_mem"]), len(a["dash_mem_out"])
    into = np.zeros((x.shape[2], hidden), np.int64)
    into[:, : a["weights_in"].shape[1]] = a["weights_in"][..., 0]
    onto = np.zeros((hidden, outputs), np.int64)
    onto[hidden - a["weights_out"].shape[0] :] = a["weights_out"]
    among = a["weights_rec"][..., 0]
    state = {
        "hidden": [np.zeros((batch, hidden), np.int64) for _ in range(2)],
        "out": [np.zeros((batch, outputs), np.int64) for _ in range(2)],
    }
    sent = np.zeros((batch, hidden), np.int64)
    result: dict[str, list[Array]] = {"hidden": [], "out": [], "out_v": []}
    for t in range(steps):
        onto_outputs = (sent @ onto) << a["weight_shift_out"]
        current = ((x[t].astype(np.int64) @ into) << a["weight_shift_in"]) + ((sent @ among) << a["weight_shift_rec"])
        sent = _advance(state["hidden"], current, a["dash_syn"], a["dash_mem"], a["bias_hidden"], a["threshold"], 31)
        out = _advance(state["out"], onto_outputs, a["dash_syn_out"], a["dash_mem_out"], a["bias_out"], a["threshold_out"], 1)
        for name, value in (("hidden", sent), ("out", out), ("out_v", state["out"][1])):
            result[name].append(value.copy())
    return {name: np.stack(values) for name, values in result.items()}


def run_xylosim(arrays: Mapping[str, Array], x: Array) -> dict[str, Array] | None:
    """Run SynSense's simulator on the arrays, sample by sample; None where xylosim is not installed.

    Args:
        arrays, x: as in `run_arrays`.

    Returns:
        As `run_arrays`.
    """
    if find_spec("xylosim") is None:
        return None
    from xylosim.v2 import XyloLayer, XyloSynapse

    hidden, outputs = len(arrays["dash_mem"]), len(arrays["dash_mem_out"])
    unread = hidden - arrays["weights_out"].shape[0]

    def synapses(weights: Array) -> list[list[Any]]:
        return [[XyloSynapse(int(j), 0, int(row[j])) for j in np.flatnonzero(row)] for row in weights]

    kept = {
        "synapses_in": synapses(arrays["weights_in"][..., 0]),
        "synapses_rec": synapses(arrays["weights_rec"][..., 0]),
        "synapses_out": [*([] for _ in range(unread)), *synapses(arrays["weights_out"])],
    }  # xylosim holds pointers to them
    result: dict[str, list[Array]] = {"hidden": [], "out": [], "out_v": []}
    for sample in range(x.shape[1]):
        model = XyloLayer(
            **kept,
            aliases=[[] for _ in range(hidden)],
            threshold=arrays["threshold"].tolist(),
            threshold_out=arrays["threshold_out"].tolist(),
            has_bias=True,
            bias=arrays["bias_hidden"].tolist(),
            bias_out=arrays["bias_out"].tolist(),
            weight_shift_inp=int(arrays["weight_shift_in"]),
            weight_shift_rec=int(arrays["weight_shift_rec"]),
            weight_shift_out=int(arrays["weight_shift_out"]),
            dash_mem=arrays["dash_mem"].tolist(),
            dash_mem_out=arrays["dash_mem_out"].tolist(),
            dash_syns=[[dash] for dash in arrays["dash_syn"].tolist()],
            dash_syns_out=[[dash] for dash in arrays["dash_syn_out"].tolist()],
            name="net",
        )
        spikes = model.evolve(x[:, sample].astype(int).tolist())
        result["out"].append(np.asarray(spikes, np.int64).reshape(-1, outputs))
        result["hidden"].append(np.asarray(model.rec_recurrent_spikes, np.int64).reshape(-1, hidden))
        result["out_v"].append(np.asarray(model.rec_v_mem_out, np.int64).reshape(outputs, -1).T)
    return {name: np.stack(values, axis=1) for name, values in result.items()}


def values_by_layer(runs: Mapping[str, Array], description: Mapping[str, Any], steps: int) -> dict[str, Array]:
    """Return the values of a run by the network's layers, each from its own first step on: (steps, B, neurons).

    Args:
        runs: of `run_arrays`, over `steps` and the largest offset.
        description: of the file.
        steps: of the network.
    """
    values = {name: runs["hidden"][:, :, ids] for name, ids in description["hidden"].items()}
    values[description["output"]] = runs["out_v" if description["readout"] else "out"]
    return {name: value[description["offsets"][name] :][:steps] for name, value in values.items()}


def _advance(
    state: list[Array], current: Array, dash_syn: Array, dash_mem: Array, bias: Array, threshold: Array, most: int
) -> Array:
    """Advance current and potential of an array of neurons in place, and return their spikes."""
    i = np.clip(state[0] + current, *BITS16)
    i = i - _fall(i, dash_syn)
    negated = -_fall(state[1], dash_mem)
    negated = np.where(negated > BITS16[1], BITS16[0], negated)
    v = np.clip(state[1] + np.clip(np.clip(i + negated, *BITS16) + bias, *BITS16), *BITS16)
    spikes = np.where(v >= threshold, np.minimum(v // threshold, most), 0)
    state[0], state[1] = i, v - spikes * threshold
    return spikes


def _fall(value: Array, dash: Array) -> Array:
    fall = value >> dash
    return np.where((fall == 0) & (value > 0), 1, fall)
