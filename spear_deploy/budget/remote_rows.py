"""Rows of synapses onto other cores than the neuron's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from spear_deploy.budget.core_rows import BudgetRow, check_limit
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.placement.core_needs import Target, group_targets_by_source
from spear_deploy.placement.place import Placement
from spear_deploy.placement.populations import Population


def check_remote_synapses(placement: Placement, profile: HardwareProfile) -> Iterator[BudgetRow]:
    """Yield a row for each layer whose neurons have synapses onto other cores, where the chip limits these.

    It counts the synapses of the neuron that has most, borders and zero weights included. A profile that says nothing about it
    has no such limit: few chips have one.
    """
    limit = profile.connectivity.fan_out_remote
    if limit.max_value is None:
        return
    targets = group_targets_by_source(placement.populations)
    for population in placement.populations:
        used = int(_count_remote(placement, population, targets.get(population.name, ())).max())
        yield from check_limit("fan_out_remote", population.name, used, limit)


def _count_remote(placement: Placement, population: Population, targets: Sequence[Target]) -> Array:
    """Count the synapses of each neuron onto other cores: those of all its synapses that do not lead to its own."""
    own: dict[tuple[int, int], list[tuple[slice, ...]]] = {}
    for part in placement.slices_of(population.name):
        own.setdefault((part.run, part.core), []).append(tuple(slice(*along) for along in part.box))
    remote: Array = np.zeros(population.shape, np.int64)
    for target, projection in targets:
        remote += projection.fan_out.reshape(population.shape)
        for part in placement.slices_of(target.name):
            if (part.run, part.core) in own:
                onto = projection.count_fan_out(part.box).reshape(population.shape)
                for here in own[part.run, part.core]:
                    remote[here] -= onto[here]
    return remote
