"""Neurons of an entry of a netx file.

    CUBA, LOIHI    iDecay = decay_u, vDecay = decay_v, vThMant = v_threshold, refDelay = 1 + refractory steps; 64 · bias
    SDNN           an encoder in an input entry, a decoder where `sigma_output` is stored, else both around a ReLU

The neurons of slayer that adapt their threshold or resonate have no counterpart and are refused by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.netx.entry import check_sizes, read_integers, read_text, spread_over_neurons
from spear_deploy.network import Array, LoihiLIF, Shape, SigmaDelta
from spear_deploy.util.hdf5.tree import Tree

UNREACHABLE_THRESHOLD = 2**17
"""64 times a threshold mantissa from here on is beyond a 24-bit state."""
BIAS_EXPONENT = 6
BIAS_MANTISSAS = 2**12
CUBA = ("CUBA", "LOIHI", "CUBA-LIF", "LIF")
"""lava-dl takes the first two; its documentation calls them CUBA-LIF."""
UNSUPPORTED = {
    "ALIF": "adapt their threshold and have no counterpart; train with CUBA neurons (slayer.block.cuba)",
    "ADRF": "resonate and adapt their threshold and have no counterpart; train with CUBA neurons (slayer.block.cuba)",
    "RF": "resonate, with complex weights, and have no counterpart; train with CUBA neurons (slayer.block.cuba)",
}


def read_neuron(row: Tree, shape: Shape, notes: list[str], name: str, *, is_input: bool = False) -> LoihiLIF | SigmaDelta | None:
    """Return the neurons of an entry, None where it states none.

    Args:
        row: the entry.
        shape: of its neurons.
        notes: list to which assumptions are added.
        name: of the layer.
        is_input: whether it is an input entry, whose bias belongs to the current.

    Raises:
        GraphError: numbers are missing or outside their format.
        UnsupportedError: the neurons have no counterpart, by name.
    """
    stored = row.get("neuron")
    if not isinstance(stored, dict):
        return None
    kind = read_text(stored, "type")
    if kind is None:
        notes.append(f"'{name}': states no type of neuron: CUBA is taken, the format's default")
        kind = "CUBA"
    bias = None if is_input or "bias" not in row else spread_over_neurons(read_integers(row, "bias"), shape, "bias", flipped=True)
    if kind == "SDNN":
        return _read_sigma_delta(stored, shape, bias, notes, name, is_input)
    if kind not in CUBA:
        reasons = (reason for start, reason in UNSUPPORTED.items() if kind.upper().startswith(start))
        raise UnsupportedError(f"'{kind}' neurons {next(reasons, 'have no counterpart; CUBA, LOIHI and SDNN are supported')}")
    return _read_cuba(stored, shape, bias, notes, name)


def _read_cuba(stored: Tree, shape: Shape, bias: Array | None, notes: list[str], name: str) -> LoihiLIF:
    graded = stored.get("gradedSpike")
    if isinstance(graded, np.ndarray) and graded.any():
        raise UnsupportedError("graded spikes between layers have no counterpart; use binary spikes")
    values: dict[str, Any] = {}
    for ours, theirs in (("decay_u", "iDecay"), ("decay_v", "vDecay"), ("v_threshold", "vThMant")):
        values[ours] = spread_over_neurons(read_integers(stored, theirs), shape, theirs)
    threshold: Array | None = values.pop("v_threshold")
    if (threshold is not None and (threshold >= UNREACHABLE_THRESHOLD).all()) or "readout" in stored:
        threshold = None
    delays = check_sizes(stored.get("refDelay", np.array(1)), "refDelay", 0)
    if len(set(delays)) > 1:
        raise UnsupportedError(
            f"'refDelay' of {min(delays)}..{max(delays)} in one layer has no counterpart; give all neurons one"
        )
    if delays[0] > 1:
        notes.append(f"'{name}': rests {delays[0] - 1} steps after a spike (refDelay); lava-dl's loader passes over it")
    mantissa, exponent = (np.zeros((), np.int64), 0) if bias is None else _split_bias(bias, notes)
    return LoihiLIF(
        **values,
        v_threshold=threshold,
        bias_mantissa=mantissa,
        bias_exponent=exponent,
        refractory_steps=max(0, delays[0] - 1),
    )


def _split_bias(bias: Array, notes: list[str]) -> tuple[Array, int]:
    """Return (mantissa, exponent) of 64 · bias, within 13 bits where it can be."""
    exponent = BIAS_EXPONENT
    while np.abs(bias).max() >= BIAS_MANTISSAS and exponent < 7 and not (bias % 2).any():
        bias, exponent = bias // 2, exponent + 1
    if np.abs(bias).max() >= BIAS_MANTISSAS:
        notes.append(f"a bias of {int(np.abs(bias).max())} is beyond the 13 bits of the chip and kept as it is")
    return bias, exponent


def _read_sigma_delta(stored: Tree, shape: Shape, bias: Array | None, notes: list[str], name: str, is_input: bool) -> SigmaDelta:
    if "sigma_output" in stored and not is_input:
        if bias is not None and bias.any():
            raise UnsupportedError("a bias behind a sum (sigma_output) has no counterpart; leave it out")
        return SigmaDelta(v_threshold=None)
    threshold = spread_over_neurons(read_integers(stored, "vThMant"), shape, "vThMant")
    if is_input:
        return SigmaDelta(v_threshold=threshold, takes="values")
    activation = read_text(stored, "activation")
    if activation in (None, "<lambda>"):
        notes.append(f"'{name}': names no activation: ReLU is taken, as lava-dl does")
    elif activation not in ("relu", "ReLU"):
        raise UnsupportedError(f"sigma-delta neurons around '{activation}' have no counterpart; use ReLU")
    return SigmaDelta(v_threshold=threshold, bias=np.zeros((), np.int64) if bias is None else bias)
