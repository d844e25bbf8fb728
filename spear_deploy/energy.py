"""What does an inference draw, and how long does it take?

    synapse         SynOps · energy of one
    neuron update   neurons · steps · energy of one, every neuron counted as active
    spike           messages (a spike goes once to each core that takes it) · energy within a tile
    hop             tiles crossed east-west and north-south · energy of each
    static          power of the chips used · time of the inference

A term is missing if the chip's number, or the count it needs, is not known; then there is no total, and what is missing is
named. An all-in figure holds everything and is used alone. Nothing is guessed: SynOps and messages come from counted spikes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.graph import SNNGraph
from spear_deploy.placement import Placement
from spear_deploy.profile_schema import HardwareProfile, Leaf
from spear_deploy.simulator import SpikeCounts
from spear_deploy.synops import SynOps
from spear_deploy.traffic import Traffic, traffic


@dataclass(frozen=True, kw_only=True)
class EnergyTerm:
    """One part of the energy of an inference."""

    name: str
    joules: float
    evidence: str
    source: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Energy:
    """The energy of an inference.

    Attributes:
        total: joules, or None while something is missing.
        missing: names of the terms without a number.
        measured: published runs on boards, as text: information, not part of the sum.
    """

    total: float | None
    missing: tuple[str, ...]
    terms: tuple[EnergyTerm, ...] = ()
    measured: tuple[str, ...] = ()

    @property
    def partial(self) -> float:
        """Sum of the terms that are known, in joules."""
        return sum(term.joules for term in self.terms)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "total": self.total,
            "missing": list(self.missing),
            "terms": [asdict(term) for term in self.terms],
            "measured": list(self.measured),
        }


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The time from an inference's first input to its last output."""

    seconds: float | None
    missing: tuple[str, ...] = ()
    how: str = ""


def estimate(
    graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts, operations: SynOps
) -> tuple[Energy, Latency]:
    """Estimate energy and latency of an inference from the spikes that were counted."""
    flow = traffic(graph, profile, placement, counts)
    latency = _latency(graph, profile, placement, counts, flow)
    measured = tuple(_shown_run(run) for run in profile.energy.measured)
    price = profile.energy.all_in_pj_per_synop
    if price.value is not None:
        term = _priced("all in", operations.total, price, "SynOps", "everything else included")
        return Energy(total=term.joules, missing=(), terms=(term,), measured=measured), latency
    parts = _terms(profile, placement, counts, operations, flow, latency)
    missing = tuple(name for name, term in parts.items() if term is None)
    terms = tuple(term for term in parts.values() if term is not None)
    total = None if missing else sum(term.joules for term in terms)
    return Energy(total=total, missing=missing, terms=terms, measured=measured), latency


def unknown(profile: HardwareProfile) -> Energy:
    """Return the energy of a network whose activity nobody gave."""
    return Energy(total=None, missing=("activity",), measured=tuple(_shown_run(run) for run in profile.energy.measured))


def _terms(
    profile: HardwareProfile,
    placement: Placement,
    counts: SpikeCounts,
    operations: SynOps,
    flow: Traffic,
    latency: Latency,
) -> dict[str, EnergyTerm | None]:
    prices = profile.energy
    updates = float(sum(part.neurons for part in placement.slices) * counts.steps)
    idle = prices.neuron_inactive_pj.value
    which = "all counted as active" if idle is None else f"all counted as active; {idle:g} pJ each if none were"
    return {
        "synapse": _term("synapse", operations.total, prices.synop_pj, "SynOps"),
        "neuron update": _term("neuron update", updates, prices.neuron_active_pj, "updates", which),
        "spike": _term("spike", flow.messages, prices.spike_local_pj, "spikes sent to a core"),
        "hop": _hop_term(profile, flow),
        "static": _static_term(profile, placement, latency),
    }


def _term(name: str, events: float, price: Leaf, what: str, remark: str = "") -> EnergyTerm | None:
    return None if price.value is None and events else _priced(name, events, price, what, remark)


def _priced(name: str, events: float, price: Leaf, what: str, remark: str = "") -> EnergyTerm:
    each = float(price.value or 0.0)
    return EnergyTerm(
        name=name,
        joules=events * each * 1e-12,
        evidence=price.evidence,
        source=price.source or "",
        how=f"{events:,.0f} {what} at {each:g} {price.unit}" + (f", {remark}" if remark else ""),
    )


def _hop_term(profile: HardwareProfile, flow: Traffic) -> EnergyTerm | None:
    if flow.hops_ew is None or flow.hops_ns is None:
        return None
    ew = _term("hop", flow.hops_ew, profile.energy.hop_ew_pj, "tiles east-west")
    ns = _term("hop", flow.hops_ns, profile.energy.hop_ns_pj, "tiles north-south")
    if ew is None or ns is None:
        return None
    return replace(ew, joules=ew.joules + ns.joules, how=f"{ew.how}, {ns.how}; cores filled in order")


def _static_term(profile: HardwareProfile, placement: Placement, latency: Latency) -> EnergyTerm | None:
    power = profile.energy.static_w_per_chip
    if power.value is None or latency.seconds is None:
        return None
    chips = placement.chips_used
    return EnergyTerm(
        name="static",
        joules=power.value * chips * latency.seconds,
        evidence=power.evidence,
        source=power.source or "",
        how=f"{chips} chip{'s' if chips > 1 else ''} at {power.value:g} W for {latency.seconds:.3g} s",
    )


def _shown_run(run: Any) -> str:
    parts = [f"{run.total_w.value:g} W in all"]
    if run.static_w.value is not None:
        parts.append(f"{run.static_w.value:g} W of it static")
    if run.energy_per_inference_mj.value is not None:
        parts.append(f"{run.energy_per_inference_mj.value:g} mJ per inference")
    return f"{run.task}: {', '.join(parts)} ({run.total_w.evidence}; {run.total_w.source})"


# ------------------------------------------------------------------------------------------------------------- latency


def _latency(graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts, flow: Traffic) -> Latency:
    """Time the steps: by a published step, or by the slowest core of a chip whose cores wait for each other."""
    timing = profile.timing
    steps = counts.steps + max(graph.depths.values())
    if timing.step_s.value is not None:
        how = f"{steps} steps (each layer is a step later) of {timing.step_s.value:g} s"
        return Latency(seconds=steps * timing.step_s.value, how=how)
    synop_ns, neuron_ns = timing.synop_ns.value, timing.neuron_active_ns.value
    needed = {"synop_ns": synop_ns, "neuron_active_ns": neuron_ns, "barrier_ns_by_tiles": timing.barrier_ns_by_tiles.value}
    missing = [f"timing.{key}" for key, value in needed.items() if value is None]
    if timing.mode.value != "barrier":
        missing.append("timing.step_s")
    if placement.chips_used > 1:
        missing.append("timing between chips")
    if flow.hops_ew is None:
        missing.append("topology")
    if missing or synop_ns is None or neuron_ns is None:
        return Latency(seconds=None, missing=tuple(missing))
    neurons = np.array([part.neurons for part in placement.slices])
    busy_ns = flow.core_synops / counts.steps * synop_ns + neurons * neuron_ns
    slowest = int(np.argmax(busy_ns))
    way_ns = flow.longest_ew * (timing.hop_ew_ns.value or 0) + flow.longest_ns * (timing.hop_ns_ns.value or 0)
    step_s = (float(busy_ns[slowest]) + way_ns + _barrier_ns(profile, placement)) * 1e-9
    where = placement.slices[slowest]
    how = f"{steps} steps (each layer is a step later) of {step_s:.3g} s, mean activity; slowest core {slowest} ('{where.layer}')"
    return Latency(seconds=steps * step_s, how=how)


def _barrier_ns(profile: HardwareProfile, placement: Placement) -> float:
    """Return the barrier's time for the next larger number of tiles in the table."""
    table = profile.timing.barrier_ns_by_tiles.value or {}
    tiles = -(-placement.cores_used // int(profile.topology.cores_per_tile.value or 1))
    larger = [n for n in sorted(table) if n >= tiles] or [max(table)]
    return float(table[larger[0]])
