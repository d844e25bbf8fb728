"""Latency of an inference, and load of a time step.

    barrier       a step lasts as long as its slowest core, the longest way of a message, and the barrier:
                  max over cores (SynOps · synop_ns + neurons · neuron_ns) + hops + barrier
    fixed tick    steps · step_s, whether or not the work is done in time: that is a row of the check
    accelerated   the network's own time, divided by the speed-up (analogue chips)

Each layer answers a step later, so that an inference of T steps takes T + depth. Work per step is the mean over the steps of
the recording; a step that is busier than the mean takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spear_deploy.budget.traffic import Traffic, count_traffic
from spear_deploy.hardware.schema import CycleModel, HardwareProfile
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.simulator import SpikeCounts


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The time from an inference's first input to its last output.

    Attributes:
        seconds: or None.
        missing: keys of the profile that are not known.
        how: the sum in words.
    """

    seconds: float | None
    missing: tuple[str, ...] = ()
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class StepLoad:
    """Work of a step, and what the chip can do in one.

    Attributes:
        resource: "events" of the busiest core, or "clock" of the chip.
        where: the layer on that core, or "chip".
        used: mean work of a step; None without activity.
        worst: the same if every neuron and input spiked at every step, as often as it can.
    """

    resource: str
    where: str
    used: float | None
    worst: float
    limit: float
    unit: str


def estimate_latency(
    graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts, traffic: Traffic
) -> Latency:
    """Time an inference."""
    timing = profile.timing
    steps = counts.steps + max(graph.depths.values(), default=0)
    if timing.step_s.value is not None:
        how = f"{steps} steps (each layer is a step later) of {timing.step_s.value:g} s"
        return Latency(seconds=steps * timing.step_s.value, how=how)
    if timing.speedup.value:
        seconds = counts.steps * graph.dt_s / timing.speedup.value
        how = f"{counts.steps} steps of {graph.dt_s:g} s, {timing.speedup.value:g} times as fast"
        return Latency(seconds=seconds, how=how)
    return _barrier_time(profile, placement, counts, traffic, steps)


def _barrier_time(profile: HardwareProfile, placement: Placement, counts: SpikeCounts, traffic: Traffic, steps: int) -> Latency:
    timing = profile.timing
    synop_ns, neuron_ns = timing.synop_ns.value, timing.neuron_active_ns.value
    needed = {"synop_ns": synop_ns, "neuron_active_ns": neuron_ns, "barrier_ns_by_tiles": timing.barrier_ns_by_tiles.value}
    missing = [f"timing.{key}" for key, value in needed.items() if value is None]
    if timing.mode.value != "barrier":
        missing = ["timing.step_s"]
    elif traffic.hops_ew is None:
        missing += ["topology"] if placement.chips_used == 1 else ["timing between chips", "topology"]
    if missing or synop_ns is None or neuron_ns is None:
        return Latency(seconds=None, missing=tuple(missing))
    neurons = np.zeros(placement.cores_used)
    for part in placement.slices:
        neurons[part.core] += part.neurons
    busy_ns = traffic.core_synops / counts.steps * synop_ns + neurons * neuron_ns
    slowest = int(np.argmax(busy_ns))
    way_ns = traffic.longest_ew * (timing.hop_ew_ns.value or 0) + traffic.longest_ns * (timing.hop_ns_ns.value or 0)
    layers = dict.fromkeys(part.layer for part in placement.slices if part.core == slowest)
    names = ", ".join(repr(layer) for layer in layers)
    step_s = (float(busy_ns[slowest]) + way_ns + _barrier_ns(profile, placement)) * 1e-9
    how = f"{steps} steps (each layer is a step later) of {step_s:.3g} s, mean activity; slowest core {slowest} ({names})"
    return Latency(seconds=steps * step_s, how=how)


def _barrier_ns(profile: HardwareProfile, placement: Placement) -> float:
    """Return the barrier's time for the next larger number of tiles in the table."""
    table = profile.timing.barrier_ns_by_tiles.value or {}
    tiles = -(-placement.cores_used // int(profile.topology.cores_per_tile.value or 1))
    larger = [n for n in sorted(table) if n >= tiles] or [max(table)]
    return float(table[larger[0]])


# ------------------------------------------------------------------------------------------------------------ deadline


def find_step_loads(
    graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts | None
) -> Iterator[StepLoad]:
    """Yield the work that a chip with a fixed tick must do within it; without activity only the worst case is known."""
    limit = profile.timing.events_per_core_and_step.max_value
    if limit is not None and placement.slices:
        worst = _events(graph, profile, placement, _always(graph))
        used = None if counts is None else _events(graph, profile, placement, counts)
        busiest = int(np.argmax(worst if used is None else used))
        yield StepLoad(
            resource="events",
            where=next(part.layer for part in placement.slices if part.core == busiest),
            used=None if used is None else float(used[busiest]),
            worst=float(worst.max()),
            limit=float(limit),
            unit="event",
        )
    cycles, clock = profile.timing.cycles, profile.timing.clock_hz.value
    step_s = profile.timing.step_s.value or graph.dt_s
    if cycles is not None and clock is not None and placement.slices:
        worst_hz = _cycles(graph, cycles, placement, _always(graph)) * float(cycles.margin.value or 1.0) / step_s
        used_hz = None
        if counts is not None:
            used_hz = _cycles(graph, cycles, placement, counts) * float(cycles.margin.value or 1.0) / step_s
        yield StepLoad(resource="clock", where="chip", used=used_hz, worst=worst_hz, limit=float(clock), unit="Hz")


def _always(graph: SNNGraph) -> SpikeCounts:
    """Return the counts of one step in which everything spikes once."""
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    return SpikeCounts(sent={name: np.ones(graph.shape_of(name)) for name in names}, steps=1, samples=1)


def _events(graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts) -> Array:
    """Count the synaptic events of each core in a step, mean over steps and samples."""
    return count_traffic(graph, profile, placement, counts).core_synops / counts.steps


def _cycles(graph: SNNGraph, model: CycleModel, placement: Placement, counts: SpikeCounts) -> float:
    """Return the clock cycles of a step by Xylo's published model, terms of aliases left out:

        inputs     Nin · (p_in · Nhid · a + b)
        recurrent  Nhid · (mean fan-out · p · c + d)
        output     Nhid · p · (s + Nout · e)
        updates    Nhid · (f + d · p) + Nout · g                        p = spikes of a neuron in a step

    SpikeSource: SynSense rockpool, devices/xylo/syns61201/power_cycles_model.py.
    """
    a, b = _of(model.per_input_event_and_neuron), _of(model.per_input_channel)
    c, d = _of(model.per_recurrent_synapse), _of(model.per_hidden_loop)
    e, f, g = _of(model.per_output_synapse), _of(model.per_hidden_neuron), _of(model.per_output_neuron)
    s = _of(model.per_hidden_spike)
    last = placement.populations[-1].name
    hidden = [population for population in placement.populations if population.name != last]
    n_hidden = sum(population.neurons for population in hidden)
    n_in, n_out = int(np.prod(graph.input_shape)), placement.populations[-1].neurons
    scale = counts.steps * counts.samples
    p_in = float(np.sum(counts.sent[INPUT])) / (scale * n_in)
    spikes = sum(float(np.sum(counts.sent[population.name])) for population in hidden if population.name in counts.sent)
    p = spikes / (scale * n_hidden) if n_hidden else 0.0
    inner = sum(
        projection.channels * projection.outputs
        for population in hidden
        for projection in population.projections
        if not projection.from_input
    )
    fan_out = inner / n_hidden if n_hidden else 0.0
    return (
        n_in * (p_in * n_hidden * a + b)
        + n_hidden * (fan_out * p * c + d)
        + n_hidden * p * (s + n_out * e)
        + n_hidden * (f + d * p)
        + n_out * g
    )


def _of(leaf: object) -> float:
    return float(getattr(leaf, "value", None) or 0.0)
