"""Weights of few values, learnt on the values that the chip has.

A neuron with a palette of n weights gets n / 2 of each sign, multiples of a unit of its own, which all layers of weights into it
have in common; weights of few bits are multiples of one unit a layer. The unit is the one with the smallest squared error at the
start; while the network learns, weights move to the neighbouring value as their gradients accumulate (`training.fit` with
`rounding=`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, Array, Dense, Layer, SparseMatrix, Weights, write_out
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.value_grid import ValueGrid
from spear_deploy.quantize.fold import fold_batchnorm
from spear_deploy.quantize.rounding import Rounding

FEW = 63
"""Levels of each sign up to which weights are learnt on their values: 7 bits and a sign need no learning."""
FACTORS = np.linspace(0.25, 1.0, 31)
"""Units tried, as parts of the one at which the largest weight is the largest level."""


@dataclass(frozen=True, kw_only=True)
class FewValues:
    """Values that a weight of a chip may have.

    Attributes:
        levels: of each sign, beside 0.
        per_neuron: whether each neuron has a unit of its own, else each layer.
    """

    levels: int
    per_neuron: bool

    def describe(self) -> str:
        """Return them in words."""
        return f"{2 * self.levels} values{' a neuron' if self.per_neuron else ''}, and 0"

    def round_network(self, graph: SNNGraph) -> Rounding:
        """Return the rounding of a floating-point network; batch norm is folded."""
        folded = fold_batchnorm(graph)
        grids: dict[tuple[str, str], ValueGrid] = {}
        for weights in _group_weights(folded, per_neuron=self.per_neuron):
            unit = best_unit(_join_rows(weights), self.levels, per_neuron=self.per_neuron)
            for name, weight in weights.items():
                own = unit.reshape(-1, *(1 for _ in weight.shape[1:])) if self.per_neuron else unit
                grids[name, "weight"] = ValueGrid(unit=own, low=-self.levels, high=self.levels)

        def snap(layer: Layer) -> Layer:
            grid, synapse = grids.get((layer.name, "weight")), layer.synapse
            if grid is None:
                return layer
            weighted: Any = synapse
            return replace(layer, synapse=replace(weighted, weight=grid.snap(weighted.weight).astype(weighted.weight.dtype)))

        return Rounding(graph=folded.with_layers(snap), latent=folded, grids=grids)


def find_few_values(profile: HardwareProfile) -> FewValues | None:
    """Return the values of a weight where a chip has few, from its palette or its widest weight; else None."""
    palette = profile.connectivity.weight_palette.max_value
    if palette is not None and palette // 2 <= FEW:
        return FewValues(levels=max(1, palette // 2), per_neuron=True)
    bits = max(profile.weight_bits, default=0)
    if not bits:
        return None
    levels = 2**bits - 1 if profile.weights.sign.value == "presynaptic" else max(1, 2 ** (bits - 1) - 1)
    return FewValues(levels=levels, per_neuron=False) if levels <= FEW else None


def _group_weights(graph: SNNGraph, *, per_neuron: bool) -> list[dict[str, Weights]]:
    """Return layers of weights with units in common: where each neuron has one unit, those whose rows are the same neurons."""
    groups: dict[Any, dict[str, Weights]] = {}
    for layer in graph.layers:
        synapse, targets = layer.synapse, [edge.target for edge in graph.edges_from(layer.name)]
        if isinstance(synapse, (Dense, *CONVS)):
            drives = targets[0] if layer.neuron is None and len(targets) == 1 else layer.name
            key = (drives, len(synapse.weight)) if per_neuron else layer.name
            groups.setdefault(key, {})[layer.name] = synapse.weight
    return list(groups.values())


def _join_rows(weights: Mapping[str, Weights]) -> Weights:
    first, *others = weights.values()
    rows = [write_out(weight) if isinstance(weight, SparseMatrix) else weight for weight in (first, *others)]
    return np.concatenate([row.reshape(len(row), -1) for row in rows], axis=1) if others else first


def best_unit(weight: Weights, levels: int, *, per_neuron: bool) -> Array:
    """Return the unit at which multiples up to ±levels are nearest to weights (O, ...): one, or one per output, (O, 1, ...).

    >>> float(best_unit(np.array([[0.5, -1.0, 0.0]]), 2, per_neuron=False))
    0.5
    """
    is_one_row = isinstance(weight, SparseMatrix) and not per_neuron and weight.any()
    stored = weight.data if is_one_row else weight  # zeros have no error
    rows = stored.astype(np.float64).reshape(len(weight) if per_neuron else 1, -1)
    largest = np.abs(rows).max(axis=1, keepdims=True) / levels
    largest[largest == 0] = 1.0
    best, error = largest, np.full((len(rows), 1), np.inf)
    for factor in FACTORS:
        unit = factor * largest
        snapped = unit * np.clip(np.rint(rows / unit), -levels, levels)
        squared = ((rows - snapped) ** 2).sum(axis=1, keepdims=True)
        best, error = np.where(squared <= error, unit, best), np.minimum(squared, error)
    return best.reshape(-1, *(1 for _ in weight.shape[1:])) if per_neuron else best.reshape(())
