"""Rows of synapses onto other cores than the neuron's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from spear_deploy.budget.core_rows import BudgetRow, check_limit
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.placement.core_needs import Target, group_targets_by_source
from spear_deploy.placement.place import Placement


def check_remote_synapses(placement: Placement, profile: HardwareProfile) -> Iterator[BudgetRow]:
    """Yield a row for each layer whose neurons have synapses onto other cores, where the chip limits these.

        Σ over slices of the targets on other cores of min(neurons of the slice, synapses that leave a neuron)

    for the slice of the layer for which it is largest: exact for dense layers, an upper bound for convolutions. A profile that
    says nothing about it has no such limit: few chips have one.
    """
    limit = profile.connectivity.fan_out_remote
    if limit.max_value is None:
        return
    targets = group_targets_by_source(placement.populations)
    for name in placement.layers:
        reached = _count_by_core(placement, targets.get(name, []))
        everywhere = sum(reached.values())
        used = max(everywhere - reached[part.run, part.core] for part in placement.slices_of(name))
        yield from check_limit("fan_out_remote", name, used, limit)


def _count_by_core(placement: Placement, targets: Sequence[Target]) -> Counter[tuple[int, int]]:
    """Return the synapses of one neuron onto each (run, core), at most as many as the core has neurons of the target."""
    reached: Counter[tuple[int, int]] = Counter()
    for population, projection in targets:
        fan_out = int(projection.fan_out.max())
        for part in placement.slices_of(population.name):
            reached[part.run, part.core] += min(part.neurons, fan_out)
    return reached
