"""Which core holds what? Layers are cut into boxes, and each box gets a core.

cores        what a box needs of a core                  splitting    where a layer is cut
cutting      all layers as boxes with their needs        first_fit    cores that fill up
seating      which box lies on which core                placing      the placement as a whole
bounds       cores that no placement goes below          axon_sets    axons that slices on one core share
"""

from spear_deploy.placement.place import CoreSlice, Placement, Stranded, lower_bound, place, place_populations, tightest

__all__ = ["CoreSlice", "Placement", "Stranded", "lower_bound", "place", "place_populations", "tightest"]
