"""Placement of networks on the cores of a chip.

axes                 which inputs an output reads
projections          sizes of the synapses between two neuron layers
compose_projections  the synapses on a path as one projection
populations          neurons, fan-in and fan-out
chip_populations     populations as a chip stores their synapses
weight_bits          bits of stored weights
synapse_memory       words by storage format
axon_sets            source neurons of a box, and the rows that boxes share
core_needs           what a box needs of a core
core_axons           source neurons that have rows on cores
splitting            layers cut into boxes
core_assignment      slices on cores
place                the placement as a whole
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
