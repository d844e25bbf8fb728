"""The chip format that a network's numbers are rounded for."""

from __future__ import annotations

from spear_deploy.network.chip_neurons import CatalystLIF, OdinLIF, ReckonLIF, SpinnakerLIF, TrueNorthLIF
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.integer_neurons import LoihiLIF, SigmaDelta, SpeckIF, XyloLIF

FORMAT_OF_NEURONS: dict[type, str] = {
    LoihiLIF: "loihi",
    SigmaDelta: "loihi",
    SpeckIF: "speck",
    XyloLIF: "xylo",
    TrueNorthLIF: "truenorth",
    SpinnakerLIF: "spinnaker",
    ReckonLIF: "reckon",
    OdinLIF: "odin",
    CatalystLIF: "catalyst",
}
"""By class of integer neurons their format (`quantize.FORMATS`)."""


def find_chip_format(graph: SNNGraph) -> str | None:
    """Return the chip format of a quantised network; None of one that is not quantised.

    Where a chip's neurons compute with real numbers (Akida, BrainScaleS-2, SpiNNaker 2), the metadata alone say it.
    """
    for layer in graph.layers:
        if (format := FORMAT_OF_NEURONS.get(type(layer.neuron))) is not None:
            return format
    stated = graph.metadata.get("quantization", {}).get("format")
    return stated if isinstance(stated, str) and stated not in FORMAT_OF_NEURONS.values() else None
