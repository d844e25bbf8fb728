"""Layers of a network: synapses, batch norm and neurons.

A layer is up to three parts in a row, each of which may be absent:

    sum over its incoming edges ─► synapse ─► norm ─► neuron ─► spikes (without a neuron: the value)

Axes: `C H W` channels and pixels, `I` inputs, `O` outputs; weights `(O, I)` or `(O, I / groups, kH, kW)` in torch's
orientation. Neuron parameters are scalars or arrays that broadcast to the layer's output shape, e.g. `(O, 1, 1)`.
Names are those of NIR, with the unit where there is one. Everything here is data: frozen, numpy only, arrays read-only. The
weights of a `Dense` may be a `SparseMatrix`.
"""

from spear_deploy.network.base import RESET_WORDS, Array, Reset, Shape, Weights
from spear_deploy.network.chip_neurons import (
    CHIP_NEURONS,
    CatalystLIF,
    ChipFormat,
    ChipNeuron,
    OdinLIF,
    ReckonLIF,
    SpinnakerLIF,
    TrueNorthLIF,
    find_drive,
)
from spear_deploy.network.integer_neurons import LOIHI_UNIT, LoihiLIF, SigmaDelta, SpeckIF, UnroundedLIF, XyloLIF
from spear_deploy.network.layer import Layer
from spear_deploy.network.neurons import (
    FLOAT_NEURONS,
    GRADED_NEURONS,
    IF,
    INTEGER_NEURONS,
    LI,
    LIF,
    READOUTS,
    CubaLI,
    CubaLIF,
    Neuron,
    array_parameters,
    emits_spikes,
    find_max_spikes,
    find_start,
    has_positions,
    is_bounded,
    resets_late,
    sends_several,
)
from spear_deploy.network.sparse_matrix import SparseMatrix, make_sparse, store_compactly, write_out
from spear_deploy.network.synapses import (
    CONVS,
    POOLS,
    WEIGHTED,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Flatten,
    Scale,
    SumPool,
    Synapse,
)

__all__ = [
    "CHIP_NEURONS",
    "CONVS",
    "FLOAT_NEURONS",
    "GRADED_NEURONS",
    "IF",
    "INTEGER_NEURONS",
    "LI",
    "LIF",
    "LOIHI_UNIT",
    "POOLS",
    "READOUTS",
    "RESET_WORDS",
    "WEIGHTED",
    "Array",
    "AvgPool",
    "BatchNorm",
    "CatalystLIF",
    "ChipFormat",
    "ChipNeuron",
    "Conv1d",
    "Conv2d",
    "CubaLI",
    "CubaLIF",
    "Dense",
    "Flatten",
    "Layer",
    "LoihiLIF",
    "Neuron",
    "OdinLIF",
    "ReckonLIF",
    "Reset",
    "Scale",
    "Shape",
    "SigmaDelta",
    "SparseMatrix",
    "SpeckIF",
    "SpinnakerLIF",
    "SumPool",
    "Synapse",
    "TrueNorthLIF",
    "UnroundedLIF",
    "Weights",
    "XyloLIF",
    "array_parameters",
    "emits_spikes",
    "find_drive",
    "find_max_spikes",
    "find_start",
    "has_positions",
    "is_bounded",
    "make_sparse",
    "resets_late",
    "sends_several",
    "store_compactly",
    "write_out",
]
