"""Latency of an inference, and load of a time step.

    barrier       a step lasts as long as its slowest core, the longest way of a message, and the barrier:
                  max over cores (SynOps · synop_ns + neurons · neuron_ns) + hops + barrier
    fixed tick    steps · step_s, whether or not the work is done in time: that is a row of the check
    accelerated   the network's own time, divided by the speed-up (analogue chips)

A chip whose times of an event are known only by their ends has an interval instead, decided by its fullest core:

    low           steps · (max over cores of max(SynOps · synop_ns, neurons · neuron_ns) + barrier), all at their lower ends
    high          steps · (max over cores of (SynOps · synop_ns + neurons · neuron_ns) + barrier), all at their upper ends

Input and output from outside the chip can make a step longer: the interval is that of the cores.

Each layer answers a step later, so that an inference of T steps takes T + depth. Work per step is the mean over the steps of
the recording; a step that is busier than the mean takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import numpy as np

from spear_deploy.budget.intervals import Interval, weakest
from spear_deploy.budget.traffic import Traffic, count_traffic
from spear_deploy.hardware.fields import UNLIMITED
from spear_deploy.hardware.schema import CycleModel, Fact, HardwareProfile
from spear_deploy.network import Array, find_max_spikes
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.place import Placement
from spear_deploy.simulator import SpikeCounts


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The time from an inference's first input to its last output.

    Attributes:
        seconds: or None.
        missing: keys of the profile that are not known.
        how: the sum in words.
        interval: between which seconds the time lies, or None where nothing is known.
    """

    seconds: float | None
    missing: tuple[str, ...] = ()
    how: str = ""
    interval: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        interval = None if self.interval is None else {**asdict(self.interval), "text": self.interval.write("s")}
        return {"seconds": self.seconds, "missing": list(self.missing), "how": self.how, "interval": interval}


@dataclass(frozen=True, kw_only=True)
class StepLoad:
    """Work of a step, and what the chip can do in one.

    Attributes:
        resource: "events" of the busiest core, or "clock" of the chip.
        where: the layer on that core, or "chip".
        used: mean work of a step; None without activity.
        worst: the same if every neuron and input spiked at every step, as often as network and chip let it; infinite where
            neither has a limit of spikes that synapses take.
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
        return _fixed_time(steps * timing.step_s.value, how, timing.step_s)
    if timing.speedup.value:
        seconds = counts.steps * graph.dt_s / timing.speedup.value
        how = f"{counts.steps} steps of {graph.dt_s:g} s, {timing.speedup.value:g} times as fast"
        return _fixed_time(seconds, how, timing.speedup)
    return _barrier_time(profile, placement, counts, traffic, steps)


def count_core_neurons(placement: Placement) -> Array:
    """Count the neurons of each core that a step updates, copies too: float64, (cores,)."""
    neurons = np.zeros(placement.cores_used)
    for part in placement.slices:
        neurons[part.core] += placement.copies_on_core(part).sum()
    return neurons


def has_fixed_steps(profile: HardwareProfile) -> bool:
    """Return whether a step takes the chip a time of its own, whatever is done in it."""
    return profile.timing.step_s.value is not None or bool(profile.timing.speedup.value)


def _fixed_time(seconds: float, how: str, fact: Fact) -> Latency:
    interval = Interval(low=seconds, high=seconds, evidence=fact.evidence, source=fact.source or "", how=how)
    return Latency(seconds=seconds, how=how, interval=interval)


def _barrier_time(profile: HardwareProfile, placement: Placement, counts: SpikeCounts, traffic: Traffic, steps: int) -> Latency:
    timing = profile.timing
    synop_ns, neuron_ns = timing.synop_ns.value, timing.neuron_active_ns.value
    missing = _list_missing(profile, placement, traffic)
    if missing or synop_ns is None or neuron_ns is None:
        interval = _bound_barrier_time(profile, placement, counts, traffic, steps) if timing.mode.value == "barrier" else None
        return Latency(seconds=None, missing=tuple(missing), interval=interval)
    neurons = count_core_neurons(placement)
    synops_ns = traffic.core_synops / counts.steps * synop_ns
    busy_ns = synops_ns + neurons * neuron_ns
    slowest = int(np.argmax(busy_ns))
    way_ns = traffic.longest_ew * (timing.hop_ew_ns.value or 0) + traffic.longest_ns * (timing.hop_ns_ns.value or 0)
    step_s = (float(busy_ns[slowest]) + way_ns + _barrier_ns(profile, placement)) * 1e-9
    how = f"{steps} steps (each layer is a step later) of {step_s:.3g} s, mean activity; slowest core {_name(placement, slowest)}"
    idle_ns = neuron_ns if timing.neuron_inactive_ns.value is None else timing.neuron_inactive_ns.value
    quickest_s = (float((synops_ns + neurons * idle_ns).max()) + way_ns + _barrier_ns(profile, placement)) * 1e-9
    interval = Interval(
        low=steps * quickest_s,
        high=steps * step_s,
        evidence=weakest([timing.synop_ns.evidence, timing.neuron_active_ns.evidence]),
        source=timing.neuron_active_ns.source or "",
        how=f"{how}; from no neuron active to all",
    )
    return Latency(seconds=steps * step_s, how=how, interval=interval)


def _list_missing(profile: HardwareProfile, placement: Placement, traffic: Traffic) -> list[str]:
    """Return the keys without which no time can be told: those of a barrier, a step's time, or that a chip without steps has."""
    timing = profile.timing
    needed: dict[str, Fact] = {"synop_ns": timing.synop_ns, "neuron_active_ns": timing.neuron_active_ns}
    if timing.mode.value == "async":
        return ["timing.speedup"]
    if timing.mode.value is None and all(fact.value is not None for fact in needed.values()):
        return ["timing.mode"]
    if timing.mode.value != "barrier":
        return ["timing.step_s"]
    if profile.cores_limit(placement.chips) != 1:  # a core alone waits for no other
        needed["barrier_ns_by_tiles"] = timing.barrier_ns_by_tiles
    missing = [f"timing.{key}" for key, fact in needed.items() if fact.value is None]
    if placement.cores_used > 1 and traffic.hops_ew is None:
        missing += ["topology"] if placement.chips_used == 1 else ["timing between chips", "topology"]
    return missing


def _bound_barrier_time(
    profile: HardwareProfile, placement: Placement, counts: SpikeCounts, traffic: Traffic, steps: int
) -> Interval | None:
    """Return the interval of the cores' time from the ends of the times of an event, or None where these are not known."""
    timing = profile.timing
    facts = (timing.synop_ns_range, timing.neuron_ns_range, timing.barrier_ns_range)
    if any(fact.value is None for fact in facts) or not placement.slices:
        return None
    (synop_low, synop_high), (neuron_low, neuron_high), (barrier_low, barrier_high) = (fact.value or (0.0, 0.0) for fact in facts)
    synops, neurons = traffic.core_synops / counts.steps, count_core_neurons(placement)
    high_ns = synops * synop_high + neurons * neuron_high
    slowest = int(np.argmax(high_ns))
    low_s = steps * (float(np.maximum(synops * synop_low, neurons * neuron_low).max()) + barrier_low) * 1e-9
    high_s = steps * (float(high_ns[slowest]) + barrier_high) * 1e-9
    one_chip = placement.chips_used == 1
    how = (
        f"{steps} steps (each layer is a step later), mean activity; fullest core {_name(placement, slowest)}: "
        f"{synops[slowest]:,.0f} SynOps at {synop_low:g} to {synop_high:g} ns and {neurons[slowest]:,.0f} neurons "
        f"at {neuron_low:g} to {neuron_high:g} ns a step"
        f"; cores alone, {'input and output' if one_chip else 'messages between chips, input and output'} can add to it"
    )
    return Interval(
        low=low_s,
        high=high_s if one_chip else None,
        evidence=weakest([fact.evidence for fact in facts]),
        source="; ".join(dict.fromkeys(fact.source or "" for fact in facts)),
        how=how,
    )


def _name(placement: Placement, core: int) -> str:
    """Return a core's number with its layers."""
    layers = dict.fromkeys(part.layer for part in placement.slices if part.core == core)
    return f"{core} ({', '.join(repr(layer) for layer in layers)})"


def _barrier_ns(profile: HardwareProfile, placement: Placement) -> float:
    """Return the barrier's time for the next larger number of tiles in the table."""
    table = profile.timing.barrier_ns_by_tiles.value or {}
    per_tile = profile.topology.cores_per_tile
    tiles = 1 if per_tile.value == UNLIMITED else -(-placement.cores_used // (per_tile.max_value or 1))
    larger = [n for n in sorted(table) if n >= tiles] or [max(table, default=0)]
    return float(table.get(larger[0], 0.0))


# ------------------------------------------------------------------------------------------------------------ deadline


def has_step_limits(profile: HardwareProfile) -> bool:
    """Return whether a chip has a limit of what it does in a step."""
    timing = profile.timing
    return timing.events_per_core_and_step.max_value is not None or (
        timing.cycles is not None and timing.clock_hz.value is not None
    )


def find_step_loads(
    graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts | None
) -> Iterator[StepLoad]:
    """Yield the work that a chip with a fixed tick must do within it; without activity only the worst case is known."""
    limit = profile.timing.events_per_core_and_step.max_value
    is_open = any(most is None and graph.edges_from(name) for name, most in _find_most_spikes(graph, profile).items())
    if limit is not None and placement.slices:
        worst = _events(graph, profile, placement, _always(graph, profile))
        used = None if counts is None else _events(graph, profile, placement, counts)
        busiest = int(np.argmax(worst if used is None else used))
        yield StepLoad(
            resource="events",
            where=next(part.layer for part in placement.slices if part.core == busiest),
            used=None if used is None else float(used[busiest]),
            worst=inf if is_open else float(worst.max()),
            limit=float(limit),
            unit="event",
        )
    cycles, clock = profile.timing.cycles, profile.timing.clock_hz.value
    step_s = profile.timing.step_s.value or graph.dt_s
    if cycles is not None and clock is not None and placement.slices:
        most = _cycles(graph, profile, cycles, placement, _always(graph, profile))
        worst_hz = inf if is_open else most * float(cycles.margin.value or 1.0) / step_s
        used_hz = None
        if counts is not None:
            used_hz = _cycles(graph, profile, cycles, placement, counts) * float(cycles.margin.value or 1.0) / step_s
        yield StepLoad(resource="clock", where="chip", used=used_hz, worst=worst_hz, limit=float(clock), unit="Hz")


def _always(graph: SNNGraph, profile: HardwareProfile) -> SpikeCounts:
    """Return the counts of one step in which everything spikes as often as it can, once where there is no limit."""
    most = _find_most_spikes(graph, profile)
    sent = {name: np.full(graph.shape_of(name), float(spikes or 1)) for name, spikes in most.items()}
    return SpikeCounts(sent=sent, steps=1, samples=1)


def _find_most_spikes(graph: SNNGraph, profile: HardwareProfile) -> dict[str, int | None]:
    """Return the largest number of spikes in a step by layer and `INPUT`; None where neither network nor chip has a limit.

    Where the chip's limit of its inputs is not published an input sends one.
    """
    limit, inputs = profile.neuron.max_spikes_per_step.max_value, profile.neuron.max_input_events_per_step
    most: dict[str, int | None] = {INPUT: inputs.max_value or (None if inputs.value == UNLIMITED else 1)}
    for layer in graph.layers:
        if layer.spikes:
            limits = [n for n in (find_max_spikes(layer.neuron), limit) if n is not None]
            most[layer.name] = min(limits, default=None)
    return most


def _events(graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts) -> Array:
    """Count the synaptic events of each core in a step, mean over steps and samples."""
    return count_traffic(graph, profile, placement, counts).core_synops / counts.steps


def _cycles(graph: SNNGraph, profile: HardwareProfile, model: CycleModel, placement: Placement, counts: SpikeCounts) -> float:
    """Return the clock cycles of a step by Xylo's published model, terms of aliases left out:

        inputs     Nin · (p_in · Nhid · a + b)
        recurrent  Nhid · (mean fan-out · p · c + d)
        output     Nhid · p · (s + Nout · e)
        updates    Nhid · (f + d · p) + Nout · g                        p = spikes of a neuron in a step

    The fan-out is that of weights that are not zero: chips with this model have no word for the others.

    SpikeSource: SynSense rockpool, devices/xylo/syns61201/power_cycles_model.py.
    """
    a, b = _of(model.per_input_event_and_neuron), _of(model.per_input_channel)
    c, d = _of(model.per_recurrent_synapse), _of(model.per_hidden_loop)
    e, f, g = _of(model.per_output_synapse), _of(model.per_hidden_neuron), _of(model.per_output_neuron)
    s = _of(model.per_hidden_spike)
    hidden = [population for population in placement.populations if not population.output]
    n_in, n_hidden = int(np.prod(graph.input_shape)), sum(population.neurons for population in hidden)
    n_out = sum(population.neurons for population in placement.populations if population.output)
    scale = counts.steps * counts.samples
    p_in = float(np.sum(counts.sent[INPUT])) / (scale * n_in)
    spikes = sum(float(np.sum(counts.sent[population.name])) for population in hidden if population.name in counts.sent)
    p = spikes / (scale * n_hidden) if n_hidden else 0.0
    names = {population.name for population in hidden}
    inner = sum(
        int(projection.fan_in.sum())
        for population in find_chip_populations(graph, profile, zeros=True)
        if population.name in names
        for projection in population.synapses
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
