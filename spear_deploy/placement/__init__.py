"""Placement of networks on the cores of a chip.

projections       synapses between two neuron layers as sizes     populations      neurons, fan-in and fan-out
synapse_memory    words by storage format                         weight_bits      bits of stored weights
core_needs        what a box needs of a core                      splitting        layers cut into boxes
core_assignment   slices on cores                                 place            the placement as a whole
chip_populations  populations as a chip stores their synapses
"""

from spear_deploy.placement.place import (
    CoreSlice,
    Placement,
    Unplaced,
    lower_bound,
    place,
    place_in_fewest_cores,
    place_populations,
)

__all__ = ["CoreSlice", "Placement", "Unplaced", "lower_bound", "place", "place_in_fewest_cores", "place_populations"]
