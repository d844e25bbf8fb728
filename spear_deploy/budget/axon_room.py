"""Room on TrueNorth's cores for axons beyond one for each source.

A source whose weights have several types, or that a neuron reads through several weights, takes a further axon for each, and a
copy of its neuron in front of it, since a neuron sends to one axon. A placement has one axon for each source. Here all further
ones are laid on every core that may hold them: where they find room even so, the network fits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from spear_deploy.budget.core_rows import measure_core_use
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.quantize.palette import AXONS


def find_further_axons(graph: SNNGraph) -> dict[str, tuple[int, int]]:
    """Return by layer of integer weights the sources and the axons that they take, where these are more."""
    findings = graph.metadata.get("quantization", {}).get("findings", ())
    return {row["layer"]: (int(row["given"]), int(row["stored"])) for row in findings if row["what"] == AXONS}


def find_crowded(graph: SNNGraph, placement: Placement, profile: HardwareProfile) -> set[str]:
    """Return the layers of weights whose further axons, or the copies of neurons in front of them, may find no room."""
    ways = _list_ways(graph, placement)
    crowded: set[str] = set()
    for use in measure_core_use(placement):
        here = [way for way in ways if way.target in use.layers]
        copied = [way for way in ways if way.source in use.layers]
        read = Counter(s.name for p in placement.populations if p.name in use.layers for q in p.projections for s in q.sources)
        rows = (use.amounts["axons_in"] or 0) + sum(way.axons - (way.placed if read[way.source] == 1 else 0) for way in here)
        neurons = (use.amounts["neurons"] or 0) + sum(way.copies for way in copied)
        cells = rows * neurons * int(profile.synapse_memory.cells_per_weight.max_value or 1)
        needs = {"axons_in": rows, "neurons": neurons, "axons_out": neurons, "synapse_memory": cells}
        limits = profile.core_limits(use.group)
        if any(need > limit for name, need in needs.items() if (limit := limits[name].max_value) is not None):
            crowded |= {way.layer for way in (*here, *copied)}
    return crowded


# ------------------------------------------------------------------------------------------------------------ inside


@dataclass(frozen=True, kw_only=True)
class _Way:
    """Weights from a source that takes further axons.

    Attributes:
        source, target, layer: the source, the population, and the layer of weights.
        axons: that the source takes of a core at most.
        placed: those of them that a core surely has, where nothing else on it reads the source.
        copies: neurons of the source beyond those that are placed, at most; of the input none, which is sent to each axon.
    """

    source: str
    target: str
    layer: str
    axons: int
    placed: int
    copies: int


def _list_ways(graph: SNNGraph, placement: Placement) -> list[_Way]:
    ways, further = [], find_further_axons(graph)
    for population in placement.populations:
        boxes = len(placement.slices_of(population.name))
        for p in (p for p in population.projections if p.layer in further):
            axons, placed, connected = further[p.layer][1], 0, 0
            weight = getattr(graph[p.layer].synapse, "weight", None)
            if p.kind == "dense" and weight is not None and weight.shape[1] == p.channels:  # each source has a column
                placed, connected = p.channels, int((weight != 0).any(axis=0).sum())
            for source in p.sources:
                copies = 0 if source.name == INPUT else boxes * (axons - connected)
                ways.append(
                    _Way(source=source.name, target=population.name, layer=p.layer, axons=axons, placed=placed, copies=copies)
                )
    return ways
