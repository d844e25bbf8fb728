"""Energy of an inference, term by term.

    synapse         SynOps · energy of one
    mac             multiplications of an analogue first layer · energy of one
    neuron update   neurons · steps · energy of one, every neuron counted as active
    spike           messages (a spike goes once to each core that takes it) · energy within a tile, or of a packet
    hop             tiles crossed east-west and north-south · energy of each
    active cores    power of a core at work · cores · time of the inference, where a chip states it
    static          power of the chips used · time of the inference

A term is missing if the chip's number, or the count it needs, is not known; then there is no total, and the report names the
missing terms. An all-in figure includes everything and is used alone. SynOps and messages come from counted spikes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from spear_deploy.budget.latency import Latency, estimate_latency
from spear_deploy.budget.traffic import Traffic, count_traffic
from spear_deploy.hardware.schema import Fact, HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import SynOps


@dataclass(frozen=True, kw_only=True)
class EnergyTerm:
    """One part of the energy of an inference.

    Attributes:
        name: of the term, as in the module's table.
        joules: its energy.
        evidence, source: of the chip's number.
        how: the product in words.
    """

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


def estimate_energy(
    graph: SNNGraph, profile: HardwareProfile, placement: Placement, counts: SpikeCounts, operations: SynOps
) -> tuple[Energy, Latency]:
    """Estimate energy and latency of an inference from counted spikes."""
    traffic = count_traffic(graph, profile, placement, counts)
    latency = estimate_latency(graph, profile, placement, counts, traffic)
    measured = tuple(_describe_run(run) for run in profile.energy.measured)
    price = profile.energy.all_in_pj_per_synop
    if price.value is not None:
        term = _price("all in", operations.total, price, "SynOps", "everything else included")
        return Energy(total=term.joules, missing=(), terms=(term,), measured=measured), latency
    parts = _terms(profile, placement, counts, operations, traffic, latency)
    missing = tuple(name for name, term in parts.items() if term is None)
    terms = tuple(term for term in parts.values() if term is not None)
    total = None if missing else sum(term.joules for term in terms)
    return Energy(total=total, missing=missing, terms=terms, measured=measured), latency


def unknown_energy(profile: HardwareProfile) -> Energy:
    """Return the energy of a network whose activity is not known."""
    return Energy(total=None, missing=("activity",), measured=tuple(_describe_run(run) for run in profile.energy.measured))


def _terms(
    profile: HardwareProfile,
    placement: Placement,
    counts: SpikeCounts,
    operations: SynOps,
    traffic: Traffic,
    latency: Latency,
) -> dict[str, EnergyTerm | None]:
    prices = profile.energy
    updates = float(sum(part.neurons for part in placement.slices) * counts.steps)
    idle = prices.neuron_inactive_pj.value
    which = "all counted as active" if idle is None else f"all counted as active; {idle:g} pJ each if none were"
    message = prices.packet_pj if prices.spike_local_pj.value is None else prices.spike_local_pj
    terms = {
        "synapse": _term("synapse", operations.total, prices.synop_pj, "SynOps"),
        "neuron update": _term("neuron update", updates, prices.neuron_active_pj, "updates", which),
        "spike": _term("spike", traffic.messages, message, "spikes sent to a core"),
        "hop": _hop_term(profile, placement, traffic),
        "static": _power_term("static", prices.static_w_per_chip, placement.chips_used, "chip", latency),
    }
    if operations.macs_first_layer:
        terms["mac"] = _term("mac", operations.macs_first_layer, prices.mac_pj, "MACs of the analogue first layer")
    if prices.active_w_per_core.value is not None:
        terms["active cores"] = _power_term("active cores", prices.active_w_per_core, placement.cores_used, "core", latency)
    return terms


def _term(name: str, events: float, price: Fact, what: str, remark: str = "") -> EnergyTerm | None:
    return None if price.value is None and events else _price(name, events, price, what, remark)


def _price(name: str, events: float, price: Fact, what: str, remark: str = "") -> EnergyTerm:
    unit_pj = float(price.value or 0.0)
    return EnergyTerm(
        name=name,
        joules=events * unit_pj * 1e-12,
        evidence=price.evidence,
        source=price.source or "",
        how=f"{events:,.0f} {what} at {unit_pj:g} {price.unit}" + (f", {remark}" if remark else ""),
    )


def _hop_term(profile: HardwareProfile, placement: Placement, traffic: Traffic) -> EnergyTerm | None:
    if placement.cores_used == 1:
        return _price("hop", 0.0, profile.energy.hop_ew_pj, "tiles", "one core")
    if traffic.hops_ew is None or traffic.hops_ns is None:
        return None
    ew = _term("hop", traffic.hops_ew, profile.energy.hop_ew_pj, "tiles east-west")
    ns = _term("hop", traffic.hops_ns, profile.energy.hop_ns_pj, "tiles north-south")
    if ew is None or ns is None:
        return None
    return replace(ew, joules=ew.joules + ns.joules, how=f"{ew.how}, {ns.how}; cores filled in order")


def _power_term(name: str, power: Fact, pieces: int, what: str, latency: Latency) -> EnergyTerm | None:
    if power.value is None or latency.seconds is None:
        return None
    return EnergyTerm(
        name=name,
        joules=float(power.value) * pieces * latency.seconds,
        evidence=power.evidence,
        source=power.source or "",
        how=f"{pieces} {what}{'s' if pieces > 1 else ''} at {power.value:g} W for {latency.seconds:.3g} s",
    )


def _describe_run(run: Any) -> str:
    leaves = {
        "W in all": run.total_w,
        "W static": run.static_w,
        "W dynamic": run.dynamic_w,
        "mJ per inference": run.energy_per_inference_mj,
    }
    known = {what: leaf for what, leaf in leaves.items() if leaf.value is not None}
    numbers = ", ".join(f"{leaf.value:g} {what}" for what, leaf in known.items())
    first = next(iter(known.values()))
    return f"{run.task}: {numbers} ({first.evidence}; {first.source})"
