"""Rounding errors of a layer's numbers, in the units of the chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.network import LOIHI_UNIT, WEIGHTED, Array, Layer, LoihiLIF, UnroundedLIF
from spear_deploy.quantize.explain.stages import Stage


@dataclass(frozen=True, kw_only=True)
class LayerRounding:
    """What rounding did to one layer.

    Attributes:
        scale: integer units of the potential per trained unit; None for a layer without neurons.
        headroom: the scale over the one that the format would allow, if that is known.
        weights, weights_zeroed, weights_clipped: number of weights, of those that round to 0, and of those that are clipped.
        weight_error: root mean square of the rounding error over that of the weights.
        threshold_real, threshold_integer, threshold_error: of the neuron with the largest relative error (signed).
        decays: by state, [smallest, largest] in 1/4096: {real, integer}.
        decays_lost: by state and end of the range (0 or 4096), (neurons, real decay) of decays that round to that end.
        bias_error: largest error of what is added to the potential in each step, over the threshold.
    """

    scale: float | None = None
    headroom: float | None = None
    weights: int = 0
    weights_zeroed: int = 0
    weights_clipped: int = 0
    weight_error: float | None = None
    threshold_real: float | None = None
    threshold_integer: int | None = None
    threshold_error: float | None = None
    decays: Mapping[str, Mapping[str, Sequence[float]]] | None = None
    decays_lost: Mapping[str, Mapping[int, tuple[int, float]]] | None = None
    bias_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        lost = {
            state: {str(end): list(neurons_and_decay) for end, neurons_and_decay in ends.items()}
            for state, ends in (self.decays_lost or {}).items()
        }
        return {**vars(self), "decays_lost": lost}


def measure_rounding(chain: Sequence[Stage]) -> dict[str, LayerRounding]:
    """Return what rounding did, by layer of the integer network; empty for a chain without a stage in units of the chip."""
    by_name = {step.name: step for step in chain}
    if "scale" not in by_name:
        return {}
    real, integer = by_name["scale"].graph, chain[-1].graph
    rounding = {}
    for layer in integer.layers:
        facts: dict[str, Any] = {}
        if isinstance(layer.synapse, WEIGHTED):
            facts |= _weight_rounding(real[layer.name], layer)
        if isinstance(layer.neuron, LoihiLIF):
            facts |= _neuron_rounding(real[layer.name].neuron, layer.neuron, real.shape_of(layer.name))
            headroom = integer.metadata["quantization"].get("headroom")
            facts["scale"] = float(integer.metadata["quantization"]["scale"][layer.name])
            facts["headroom"] = None if headroom is None else float(headroom.get(layer.name, 1.0))
        if facts:
            rounding[layer.name] = LayerRounding(**facts)
    return rounding


def _weight_rounding(real: Layer, layer: Layer) -> dict[str, Any]:
    trained: Any = real.synapse
    integer: Any = layer.synapse
    wanted = trained.weight.astype(np.float64) * 2.0**-integer.weight_exponent
    stored = integer.weight.astype(np.int64)
    grid = int(np.gcd.reduce(np.unique(stored))) or 1  # the step between weights that the format stores, or a multiple of it
    error = stored - wanted
    size = float(np.sqrt(np.mean(wanted**2)))
    return {
        "weights": int(stored.size),
        "weights_zeroed": int(np.count_nonzero(wanted) - np.count_nonzero((stored != 0) & (wanted != 0))),
        "weights_clipped": int(np.count_nonzero(np.abs(wanted) - np.abs(stored) > 0.501 * grid)) if stored.any() else 0,
        "weight_error": float(np.sqrt(np.mean(error**2))) / size if size else 0.0,
    }


def _neuron_rounding(real: Any, integer: LoihiLIF, shape: tuple[int, ...]) -> dict[str, Any]:
    assert isinstance(real, UnroundedLIF)
    decays: dict[str, dict[str, list[float]]] = {}
    lost: dict[str, dict[int, tuple[int, float]]] = {}
    for state in ("decay_u", "decay_v"):
        wanted, stored = (np.broadcast_to(getattr(side, state), shape).astype(np.float64) for side in (real, integer))
        decays[state] = {"real": _range(wanted), "integer": _range(stored)}
        for end in (0, 4096):
            lost_here = (stored == end) & (wanted != end)
            if lost_here.any():
                lost.setdefault(state, {})[end] = (int(np.count_nonzero(lost_here)), float(wanted[lost_here].mean()))
    facts: dict[str, Any] = {"decays": decays, "decays_lost": lost}
    if real.v_threshold is None or integer.v_threshold is None:
        return facts
    wanted, stored = (np.asarray(side.v_threshold, np.float64).reshape(-1) for side in (real, integer))
    error = np.divide(stored - wanted, wanted, out=np.zeros_like(wanted), where=wanted != 0)
    worst = int(np.abs(error).argmax())
    bias = np.abs(integer.bias - real.bias)
    min_threshold = float(wanted[wanted > 0].min(initial=np.inf))
    return facts | {
        "threshold_real": float(wanted[worst]),
        "threshold_integer": int(stored[worst]),
        "threshold_error": float(error[worst]),
        "bias_error": float(bias.max()) / (LOIHI_UNIT * min_threshold) if np.isfinite(min_threshold) else None,
    }


def _range(values: Array) -> list[float]:
    return [float(values.min()), float(values.max())]
