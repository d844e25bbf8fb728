"""Packing that levels the work of cores: time against cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spear_deploy.budget.core_rows import check_cores
from spear_deploy.budget.core_work import CoreWork, measure_core_work
from spear_deploy.budget.latency import Latency, estimate_latency
from spear_deploy.budget.traffic import count_neuron_synops, count_traffic
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.leveling import level_cuts
from spear_deploy.placement.place import Placement, place_populations
from spear_deploy.simulator import SpikeCounts

MAX_NEURONS = 5_000_000
"""Neurons of a network whose work is levelled: beyond, the counts of each neuron take too much memory."""


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """A placement whose fullest core has less work.

    Attributes:
        placement: with packing "balanced".
        work, latency: of it.
        gain: work of the fullest core before, by that after.
    """

    placement: Placement
    work: CoreWork
    latency: Latency
    gain: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        interval = self.latency.interval
        return {
            "cores": self.placement.cores_used,
            "gain": self.gain,
            "latency_s": self.latency.seconds,
            "latency_interval_s": None if interval is None else interval.ends(),
            "fullest_core": self.work.to_json(),
        }


def balance_cores(
    graph: SNNGraph,
    profile: HardwareProfile,
    placement: Placement,
    counts: SpikeCounts,
    work: CoreWork,
    weight_bits: Mapping[str, int],
) -> Balanced | None:
    """Level the work of the cores; None where the chip does not cut layers into cores of one layer, or nothing is gained.

    Ends where the fullest core's work takes no longer than the barrier, or no core is left.
    """
    limit = placement.cores_limit
    packing = profile.packing
    is_cut = packing.rule.value in ("divide", "equal") and not packing.share_cores.value and not profile.core_groups
    is_whole = placement.runs == 1 and not placement.more_cores and not placement.unplaced
    if not is_cut or not is_whole or limit is None or placement.cores_used >= limit:
        return None
    if sum(population.neurons for population in placement.populations) > MAX_NEURONS:
        return None
    loads = {name: synops / counts.steps + work.weight for name, synops in count_neuron_synops(graph, placement, counts).items()}
    cuts = level_cuts(placement, loads, max_cores=limit, enough=_barrier_synops(profile))
    if not cuts:
        return None
    levelled = place_populations(placement.populations, weight_bits, profile, chips=placement.chips, own_cuts=cuts)
    if levelled.cores_used > limit or any(row.status == "over" for row in check_cores(levelled, profile)):
        return None
    levelled = replace(levelled, packing="balanced")
    traffic = count_traffic(graph, profile, levelled, counts)
    after = measure_core_work(profile, levelled, traffic, counts.steps, weight_bits)
    latency = estimate_latency(graph, profile, levelled, counts, traffic)
    return Balanced(placement=levelled, work=after, latency=latency, gain=float(work.load.max() / after.load.max()))


def _barrier_synops(profile: HardwareProfile) -> float:
    """Return the SynOps of a core that take as long as the barrier; 0 where a time is not known."""
    timing = profile.timing
    if timing.synop_ns_range.value and timing.barrier_ns_range.value and timing.synop_ns_range.value[1]:
        return timing.barrier_ns_range.value[1] / timing.synop_ns_range.value[1]
    if timing.synop_ns.value and timing.barrier_ns_by_tiles.value:
        return max(timing.barrier_ns_by_tiles.value.values()) / timing.synop_ns.value
    return 0.0
