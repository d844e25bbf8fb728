"""Table of replacements: what a network has, what its chip has.

A rule is a function of the network and the profile. It reads the chip from the profile alone, so that a new chip needs a new
profile and no new rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spear_deploy.adaptation.biases import find_biases
from spear_deploy.adaptation.class_outputs import find_class_outputs
from spear_deploy.adaptation.crossbar import find_hidden_layer
from spear_deploy.adaptation.delays import find_delays
from spear_deploy.adaptation.frames import find_frames
from spear_deploy.adaptation.inputs import find_inputs
from spear_deploy.adaptation.kernels import find_kernels
from spear_deploy.adaptation.maps import find_maps
from spear_deploy.adaptation.mixed_means import find_mixed_means
from spear_deploy.adaptation.neurons import find_floors, find_models, find_resets, find_several_spikes, find_time_constants
from spear_deploy.adaptation.padding import find_paddings
from spear_deploy.adaptation.pools import find_pools
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.adaptation.shared_constants import find_shared_constants
from spear_deploy.adaptation.signs import find_signs
from spear_deploy.adaptation.skips import find_skips
from spear_deploy.adaptation.sums import find_sums
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import SNNGraph

Rule = Callable[[SNNGraph, HardwareProfile], Iterator[Replacement]]
RULES: tuple[Rule, ...] = (
    find_hidden_layer, find_inputs, find_class_outputs, find_pools, find_paddings, find_kernels, find_maps, find_delays,
    find_frames, find_sums, find_models, find_resets, find_several_spikes, find_floors, find_time_constants,
    find_shared_constants, find_biases, find_mixed_means, find_skips, find_signs,
)  # fmt: skip
"""In the order in which they apply: input and outputs, connections, neurons, skips; signs last, since all before may change
weights."""


def find_replacements(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the replacements of a floating-point network for a chip, rule by rule."""
    for rule in RULES:
        yield from rule(graph, profile)
