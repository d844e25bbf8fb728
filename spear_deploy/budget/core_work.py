"""Work of each core in a step, and the fullest core.

    SynOps          spikes that meet a synapse on the core
    updates         neurons of the core
    messages in     spikes sent to the core, those from outside included
    memory reads    words: of a dense list its words a message, of a crossbar a row a message, of a kernel those of a weight a
                    SynOp, without headers; where each weight that is not 0 has a word, one a SynOp

The core with most work is the one that takes longest, SynOps · synop_ns + updates · neuron_ns (at the upper ends where only
these are known). Without times an update counts as much as the maker states, else as a SynOp. Numbers are means over the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spear_deploy.budget.latency import count_core_neurons
from spear_deploy.budget.traffic import Traffic
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.placement.place import CoreSlice, Placement
from spear_deploy.placement.populations import Population
from spear_deploy.placement.projections import Projection
from spear_deploy.placement.synapse_memory import count_axons, count_memory_words, count_neurons, count_rows, delay_bits


@dataclass(frozen=True, kw_only=True)
class CoreWork:
    """Work of each core in a step, mean over steps and samples: arrays (cores,).

    Attributes:
        memory_reads: words, or None where the chip's format is not public.
        weight: what an update counts in SynOps.
        layers: names of the layers on the fullest core.
    """

    synops: Array
    updates: Array
    messages_in: Array
    memory_reads: Array | None
    weight: float
    layers: tuple[str, ...]

    @property
    def load(self) -> Array:
        """Work of each core in SynOps: `synops + weight · updates`."""
        return self.synops + self.weight * self.updates

    @property
    def fullest(self) -> int:
        """The core with most work."""
        return int(np.argmax(self.load))

    @property
    def times_mean(self) -> float:
        """Work of the fullest core by the mean of the cores."""
        mean = float(self.load.mean())
        return float(self.load.max()) / mean if mean else 1.0

    def of_core(self, core: int) -> dict[str, float | None]:
        """Return the work of one core by name."""
        reads = None if self.memory_reads is None else float(self.memory_reads[core])
        return {
            "synops": float(self.synops[core]),
            "updates": float(self.updates[core]),
            "messages_in": float(self.messages_in[core]),
            "memory_reads": reads,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the fullest core as plain data."""
        return {
            "core": self.fullest,
            "layers": list(self.layers),
            **self.of_core(self.fullest),
            "times_mean": self.times_mean,
        }

    @property
    def sentence(self) -> str:
        """The fullest core in words."""
        core = self.of_core(self.fullest)
        reads = "" if core["memory_reads"] is None else f", {core['memory_reads']:,.0f} words read"
        share = f"; {self.times_mean:.3g} times the mean of {len(self.load)} cores" if len(self.load) > 1 else ""
        return (
            f"core {self.fullest} ({', '.join(repr(name) for name in self.layers)}) has most in a step: {core['synops']:,.0f} "
            f"SynOps, {core['updates']:,.0f} updates, {core['messages_in']:,.0f} messages in{reads}{share}"
        )


def measure_core_work(
    profile: HardwareProfile, placement: Placement, traffic: Traffic, steps: int, weight_bits: Mapping[str, int]
) -> CoreWork:
    """Measure the work of each core in a step.

    Args:
        profile: the chip.
        placement: of the network.
        traffic: of an inference on this placement.
        steps: of the inference.
        weight_bits: stored bits of a weight by layer.
    """
    reads = np.zeros(placement.cores_used)
    is_public = profile.synapse_memory.format.value is not None
    for population in placement.populations:
        for number, part in enumerate(placement.slices_of(population.name)):
            arrivals = [float(traffic.arrivals[population.name, i][number]) for i in range(len(population.projections))]
            if is_public and not (population.is_input_layer and profile.meta.family == "loihi"):
                copies = float(placement.copies_on_core(part).mean())
                synops = float(traffic.slice_synops[population.name][number]) / copies
                reads[part.core] += copies * _count_reads(profile, population, part, arrivals, synops, weight_bits)
    updates = count_core_neurons(placement)
    weight = weigh_update(profile)
    load = traffic.core_synops / steps + weight * updates
    fullest = int(np.argmax(load))
    return CoreWork(
        synops=traffic.core_synops / steps,
        updates=updates,
        messages_in=traffic.core_messages / steps,
        memory_reads=reads / steps if is_public else None,
        weight=weight,
        layers=tuple(dict.fromkeys(part.layer for part in placement.slices if part.core == fullest)),
    )


def weigh_update(profile: HardwareProfile) -> float:
    """Return what a neuron's update counts in SynOps: by time, else as the chip's maker states, else 1."""
    timing = profile.timing
    if timing.synop_ns.value and timing.neuron_active_ns.value:
        return timing.neuron_active_ns.value / timing.synop_ns.value
    if timing.synop_ns_range.value and timing.neuron_ns_range.value and timing.synop_ns_range.value[1]:
        return timing.neuron_ns_range.value[1] / timing.synop_ns_range.value[1]
    ratio = profile.energy.neuron_op_synops.value
    return 1.0 if ratio is None else ratio


def _count_reads(
    profile: HardwareProfile,
    population: Population,
    part: CoreSlice,
    arrivals: list[float],
    synops: float,
    weight_bits: Mapping[str, int],
) -> float:
    """Count the words that the spikes of an inference read on one core for one copy of each neuron."""
    memory = profile.synapse_memory
    if memory.format.value == "word_per_weight":
        return synops
    default = int(profile.weights.default_bits.value or 0)
    total, lists = 0.0, 0.0
    kernels: list[Projection] = []
    for projection, messages in zip(population.projections, arrivals, strict=True):
        is_kernel = projection.kind == "conv" and len(part.box) == len(projection.axes) + 1
        if memory.format.value != "crossbar" and is_kernel:
            kernels.append(projection)
            continue
        lists += messages * count_neurons(part.box)
        if memory.format.value == "pow2_kernel":  # its table is padded, and padding is not read
            total += messages * count_neurons(part.box)
            continue
        words = count_memory_words(projection, part.box, weight_bits.get(projection.layer, default), memory) or 0
        count = count_rows if memory.format.value == "crossbar" else count_axons
        total += messages * words / max(1, count(projection, part.box))
    if kernels:
        bits = max(weight_bits.get(p.layer, default) + delay_bits(p) for p in kernels)
        is_word = memory.format.value in ("pow2_kernel", "sdram_rows")
        total += max(0.0, synops - lists) * (1.0 if is_word else bits / (memory.word_bits.max_value or bits))
    return total
