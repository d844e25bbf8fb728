"""Removal of weights until a chip's limits of synapses hold.

On chips that store and count no weight of zero, a limit that is exceeded says which weights have to go:

    fan_out          of each input of the layers behind the smallest, as many of each
    fan_in           of each output of the layer the smallest, as many of each
    fan_out_mean     of each layer between neurons the smallest
    synapse_memory   of each layer on the cores the smallest, where a word of memory holds a weight

A share of the weights stays, the largest for which the limit holds. It is found by bisection with the chip's own check.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, Array, Dense, Layer
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.populations import find_populations
from spear_deploy.pruning.chip_costs import ChipCosts, build_chip_costs, describe_rows
from spear_deploy.pruning.tune.thin_weights import WeightRemoval

Along: TypeAlias = Literal["inputs", "outputs", "all"]
ALONG: dict[str, Along] = {"fan_out": "inputs", "fan_in": "outputs", "fan_out_mean": "all", "synapse_memory": "all"}
"""Resources that a weight of zero takes nothing of, and the axis along which weights are compared."""
LEAST = 0.02
"""Share of the weights of a layer that always stays."""
BISECTIONS = 12
MAX_LIMITS = 32
"""Limits that are met one after the other."""


@dataclass(frozen=True, kw_only=True)
class LayerCut:
    """The share of its weights that a layer keeps, the largest of each input, of each output or of all."""

    layer: str
    along: Along
    kept: float


def can_remove(row: BudgetRow, profile: HardwareProfile) -> bool:
    """Return whether fewer weights lower the use of a limit of a chip."""
    stores_weights = profile.synapse_memory.format.value == "word_per_weight"
    return row.resource in ALONG and (row.resource != "synapse_memory" or stores_weights)


def list_rows_over(graph: SNNGraph, chip: ChipCosts) -> tuple[BudgetRow, ...]:
    """Return the limits of a chip that a network exceeds as it is, its zeros left out where the chip leaves them out."""
    costs = build_chip_costs(graph, chip.profile, chip.chips)
    return costs.place(tuple(group.channels for group in costs.groups))[1]


def find_cuts(graph: SNNGraph, chip: ChipCosts, cuts: Iterable[LayerCut] = ()) -> tuple[LayerCut, ...] | None:
    """Return the shares of weights with which a network fits a chip, the largest for one limit after the other.

    Args:
        graph: floating point.
        chip: whose limits have to hold.
        cuts: to begin with.

    Returns:
        None where no removal of weights makes it fit.
    """
    chosen = tuple(cuts)
    for _ in range(MAX_LIMITS):
        over = list_rows_over(cut_weights(graph, chosen), chip)
        if not over:
            return chosen
        if not all(can_remove(row, chip.profile) for row in over):
            return None
        tighter = _meet_limit(graph, chip, chosen, over[0])
        if tighter is None:
            return None
        chosen = tighter
    return None


def _meet_limit(graph: SNNGraph, chip: ChipCosts, cuts: tuple[LayerCut, ...], row: BudgetRow) -> tuple[LayerCut, ...] | None:
    """Return the cuts with the largest share of weights at which one limit holds; None where none is small enough."""
    names, along = _list_layers(graph, row, chip.profile), ALONG[row.resource]
    before = {cut.layer: cut.kept for cut in cuts if cut.along == along}

    def scale(share: float) -> tuple[LayerCut, ...]:
        others = [cut for cut in cuts if cut.along != along or cut.layer not in names]
        return (*others, *(LayerCut(layer=name, along=along, kept=share * before.get(name, 1.0)) for name in names))

    def holds(share: float) -> bool:
        rows = list_rows_over(cut_weights(graph, scale(share)), chip)
        return not any((other.resource, other.where) == (row.resource, row.where) for other in rows)

    if not names or not holds(LEAST):
        return None
    low, high = LEAST, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return scale(low)


def _list_layers(graph: SNNGraph, row: BudgetRow, profile: HardwareProfile) -> list[str]:
    """Return the layers whose weights take of the resource of a row."""
    populations = find_populations(graph)
    has_readout_cores = any(group.role.value == "readout" for group in profile.core_groups)
    inner = [population for population in populations if not (has_readout_cores and population.output)]
    if row.resource == "fan_out":
        projections = [p for target in inner for p in target.projections if row.where in [s.name for s in p.sources]]
    elif row.resource == "fan_out_mean":
        projections = [p for target in inner for p in target.projections if [s.name for s in p.sources] != [INPUT]]
    else:
        projections = [p for population in populations if population.name in row.layers for p in population.projections]
    names = {projection.layer for projection in projections}
    return [layer.name for layer in graph.layers if layer.name in names and isinstance(layer.synapse, (Dense, *CONVS))]


def cut_weights(graph: SNNGraph, cuts: Iterable[LayerCut], share: float = 1.0) -> SNNGraph:
    """Return the network with the weights of its cuts removed; after a share s of the removals a layer keeps kept^s of them."""
    by_layer: dict[str, list[LayerCut]] = {}
    for cut in cuts:
        by_layer.setdefault(cut.layer, []).append(cut)

    def cut_layer(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        for cut in by_layer.get(layer.name, ()):
            synapse = replace(synapse, weight=keep_largest(synapse.weight, cut.along, cut.kept**share))
        return layer if synapse is layer.synapse else replace(layer, synapse=synapse)

    return graph.with_layers(cut_layer)


def keep_largest(weight: Array, along: Along, share: float) -> Array:
    """Return weights (outputs, inputs, ...) of which the largest share of each input, each output or of all stays, at least one.

    >>> keep_largest(np.array([[3.0, -1.0], [-2.0, 4.0]]), "inputs", 0.5).tolist()
    [[3.0, 0.0], [0.0, 4.0]]
    >>> keep_largest(np.array([[3.0, -1.0], [-2.0, 4.0]]), "all", 0.25).tolist()
    [[0.0, 0.0], [0.0, 4.0]]
    """
    first = np.swapaxes(weight, 0, 1) if along == "inputs" else weight
    rows = first.reshape(1 if along == "all" else len(first), -1).copy()
    kept = max(1, int(share * rows.shape[1] + 1e-9))
    removed = np.argsort(-np.abs(rows), axis=1, kind="stable")[:, kept:]
    np.put_along_axis(rows, removed, 0, axis=1)
    left = rows.reshape(first.shape)
    return np.ascontiguousarray(np.swapaxes(left, 0, 1) if along == "inputs" else left)


@dataclass(kw_only=True)
class ChipWeightRemoval(WeightRemoval):
    """Gradual removal of weights until a network fits a chip.

    Attributes:
        chip: whose limits have to hold in the end.
        cuts: shares of the weights that layers keep.
    """

    gives_back: ClassVar[bool] = False
    kept: float = 1.0
    chip: ChipCosts
    cuts: tuple[LayerCut, ...]

    def thin(self, graph: SNNGraph, whole: SNNGraph, share: float) -> SNNGraph:
        """Return the network with all weights, less those that are removed by now.

        Raises:
            BudgetError: at the end no removal of weights makes it fit.
        """
        if share < 1:
            return cut_weights(whole, self.cuts, share)
        cuts = find_cuts(whole, self.chip, self.cuts)  # which weights are left decides what lies on a core
        if cuts is None:
            over = describe_rows(list_rows_over(cut_weights(whole, self.cuts), self.chip))
            raise BudgetError(
                f"chip '{self.chip.profile.name}': no removal of weights makes this network fit ({over}); `--levers channels` "
                "removes channels alone"
            )
        return cut_weights(whole, cuts)

    def describe(self) -> dict[str, Any]:
        """Return what its choices depend on, see `training.trainer_state`."""
        return {**super().describe(), "chip": hash_profile(self.chip.profile), "chips": self.chip.chips, "cuts": self.cuts}
