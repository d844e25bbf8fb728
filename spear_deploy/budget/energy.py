"""Energy of an inference, term by term.

    synapse         SynOps onto all neurons and their copies on the cores · energy of one
    mac             multiplications of an analogue first layer · energy of one
    neuron update   neurons and their copies · steps · energy of one, every neuron counted as active
    spike           messages (a spike goes once to each core that takes it) · energy within a tile, or of a packet
    hop             tiles crossed east-west and north-south · energy of each, unless packets have a price, on one chip
    active cores    power of a core at work · cores · time of the inference, where a chip states it
    static          power of the chips used · time of the inference

Neurons that read the same sums of weights have synapses of their own on a chip, so that SynOps and MACs count for each of them.
A term is missing if the chip's number, or the count it needs, is not known; then there is no total, and the report names the
missing terms. An all-in figure includes everything and is used alone. SynOps and messages come from counted spikes.

Beside the total stand two intervals, dynamic and static energy:

    dynamic   (SynOps + MACs + k · updates) · price of an effective operation, k updates in SynOps, where no event has a price;
              else the sum of the terms, from all neurons idle to all active, with an open upper end where a term is missing
    static    power · time, both from their lower to their upper ends
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isclose
from typing import Any

from spear_deploy.budget.intervals import Interval, weakest
from spear_deploy.budget.latency import Latency, count_core_neurons, estimate_latency
from spear_deploy.budget.traffic import Traffic, count_traffic
from spear_deploy.hardware.fields import Number, Range
from spear_deploy.hardware.schema import Fact, HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.quantize.fuse_weights import find_chained_weights
from spear_deploy.simulator import SpikeCounts
from spear_deploy.simulator.synops import SynOps
from spear_deploy.util.number_format import join_names, plural, with_prefix

ALL_IN = "all in"
"""Name of the only term of a chip whose price holds everything."""
STATIC_TERMS = ("static", "active cores")
"""Terms that are power times time."""
BETWEEN_CHIPS = "packets between chips"
"""Term that no price holds: that of a packet is for its way on one chip."""
KEYS_OF_TERMS = {
    "synapse": ("synop_pj",), "mac": ("mac_pj",), "neuron update": ("neuron_active_pj",), "spike": ("spike_local_pj",),
    "hop": ("hop_ew_pj", "hop_ns_pj"), "static": ("static_w_per_chip",), "active cores": ("active_w_per_core",),
}  # fmt: skip
"""Keys of the prices that a term needs."""


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
class EffectiveOps:
    """Operations of an inference in one number: `synops + macs + neuron_op_synops · neuron_ops`.

    Attributes:
        total: the sum.
        neuron_op_synops: a neuron's update in synaptic operations, as the chip's maker states it.
        source: of that ratio.
    """

    total: float
    synops: float
    macs: float
    neuron_ops: int
    neuron_op_synops: float
    source: str

    @property
    def how(self) -> str:
        """The sum in words."""
        macs = f" + {self.macs:,.0f} MACs" if self.macs else ""
        updates = f"{self.neuron_op_synops:g} · {self.neuron_ops:,} neuron updates"
        return f"{self.synops:,.0f} SynOps{macs} + {updates} = {self.total:,.0f}"


@dataclass(frozen=True, kw_only=True)
class Energy:
    """The energy of an inference.

    Attributes:
        total: joules, or None while something is missing.
        missing: names of the terms without a number.
        unstated: keys of the profile that have no value, without which the terms are missing.
        measured: published runs on boards, as text: information, not part of the sum.
        dynamic, static: intervals in joules, each None where nothing is known.
        effective_ops: SynOps, MACs and updates weighted as the chip's maker does, or None.
    """

    total: float | None
    missing: tuple[str, ...]
    terms: tuple[EnergyTerm, ...] = ()
    measured: tuple[str, ...] = ()
    dynamic: Interval | None = None
    static: Interval | None = None
    effective_ops: EffectiveOps | None = None
    unstated: tuple[str, ...] = ()

    @property
    def partial(self) -> float:
        """Sum of the terms that are known, in joules."""
        return sum(term.joules for term in self.terms)

    @property
    def interval(self) -> Interval | None:
        """Dynamic and static energy together; of an all-in figure that figure; None where nothing is known."""
        if self.total is not None and len(self.terms) == 1 and self.terms[0].name == ALL_IN:
            term = self.terms[0]
            return Interval(low=term.joules, high=term.joules, evidence=term.evidence, source=term.source, how=term.how)
        parts = [part for part in (self.dynamic, self.static) if part is not None]
        if not parts:
            return None
        high = None if len(parts) < 2 or None in [part.high for part in parts] else sum(part.upper for part in parts)
        return Interval(low=sum(part.low for part in parts), high=high, evidence=weakest([part.evidence for part in parts]))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        parts = {"dynamic": self.dynamic, "static": self.static}
        known = {name: part for name, part in parts.items() if part is not None}
        return {
            "total": self.total,
            "interval_j": {
                **{name: None if part is None else part.ends() for name, part in parts.items()},
                "evidence": {name: part.evidence for name, part in known.items()},
                "source": {name: part.source for name, part in known.items()},
                "how": {name: part.how for name, part in known.items()},
            }
            if known
            else None,
            "effective_ops": None if self.effective_ops is None else asdict(self.effective_ops),
            "missing": list(self.missing),
            "terms": [asdict(term) for term in self.terms],
            "measured": list(self.measured),
        }


def estimate_energy(
    graph: SNNGraph,
    profile: HardwareProfile,
    placement: Placement,
    counts: SpikeCounts,
    operations: SynOps,
    traffic: Traffic | None = None,
) -> tuple[Energy, Latency]:
    """Estimate energy and latency of an inference from counted spikes; `traffic` if it is counted already."""
    traffic = count_traffic(graph, profile, placement, counts) if traffic is None else traffic
    latency = estimate_latency(graph, profile, placement, counts, traffic)
    measured = tuple(_describe_run(run) for run in profile.energy.measured)
    network, operations = operations, _count_placed(graph, operations, traffic)
    remark = _describe_placed(network, operations, traffic)
    effective = _count_effective_ops(profile, placement, counts, operations)
    price = profile.energy.all_in_pj_per_synop
    if price.value is not None:
        remark = ", ".join(filter(None, (remark, "everything else included")))
        term = _price(ALL_IN, operations.total, price, "SynOps", remark)
        part = Interval(low=0.0, high=term.joules, evidence=term.evidence, source=term.source, how=f"a part of {term.how}")
        energy = Energy(total=term.joules, missing=(), terms=(term,), measured=measured, dynamic=part, static=part)
        return replace(energy, effective_ops=effective), latency
    parts = _terms(profile, placement, counts, operations, traffic, latency, remark)
    missing = tuple(name for name, term in parts.items() if term is None)
    terms = tuple(term for term in parts.values() if term is not None)
    total = None if missing else sum(term.joules for term in terms)
    energy = Energy(
        total=total,
        missing=missing,
        terms=terms,
        measured=measured,
        dynamic=_bound_dynamic(profile, placement, counts, parts, effective),
        static=_bound_static(profile, placement, latency),
        effective_ops=effective,
        unstated=_list_unstated(profile, missing, latency),
    )
    return energy, latency


def count_neuron_ops(placement: Placement, steps: int) -> int:
    """Count the neuron updates of an inference: every neuron in every step."""
    return sum(population.neurons for population in placement.populations) * steps


def _count_updates(placement: Placement, steps: int) -> float:
    """Count the neuron updates of an inference on the chip, where a neuron may stand in several copies."""
    return float(count_core_neurons(placement).sum()) * steps


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
    remark: str,
) -> dict[str, EnergyTerm | None]:
    prices = profile.energy
    updates = _count_updates(placement, counts.steps)
    idle = prices.neuron_inactive_pj.value
    which = "all counted as active" if idle is None else f"all counted as active; {idle:g} pJ each if none were"
    message = prices.packet_pj if prices.spike_local_pj.value is None else prices.spike_local_pj
    terms = {
        "synapse": _term("synapse", operations.total, prices.synop_pj, "SynOps", remark),
        "neuron update": _term("neuron update", updates, prices.neuron_active_pj, "updates", which),
        "spike": _term("spike", traffic.messages, message, "spikes sent to a core"),
        "hop": _hop_term(profile, placement, traffic),
        "static": _power_term("static", prices.static_w_per_chip, placement.chips_used, "chip", latency),
    }
    if prices.packet_pj.value is not None:  # goes wherever the spike goes on its chip
        del terms["hop"]
        if placement.chips_used > 1:
            terms[BETWEEN_CHIPS] = None
    if operations.macs_first_layer:
        terms["mac"] = _term("mac", operations.macs_first_layer, prices.mac_pj, "MACs of the analogue first layer")
    if prices.active_w_per_core.value is not None:
        terms["active cores"] = _power_term("active cores", prices.active_w_per_core, placement.cores_used, "core", latency)
    return terms


def _count_placed(graph: SNNGraph, network: SynOps, traffic: Traffic) -> SynOps:
    """Return the operations of all cores; those of the network where rounding alone parts them, or weights follow on weights.

    Weights behind weights have no neurons to be placed with until they are fused.
    """
    if find_chained_weights(graph):
        return network
    counted, placed = network.total + traffic.copied_synops, float(traffic.core_synops.sum())
    macs = network.macs_first_layer if isclose(network.macs_first_layer, traffic.macs) else traffic.macs
    return replace(network, total=counted if isclose(counted, placed) else placed, macs_first_layer=macs)


def _describe_placed(network: SynOps, placed: SynOps, traffic: Traffic) -> str:
    """Return why the cores have other SynOps than the network."""
    shared = placed.total - network.total - traffic.copied_synops
    parts = (
        (traffic.copied_synops, "of them onto copies of neurons"),
        (max(shared, 0.0), "of them since neurons read the same sums"),
        (max(-shared, 0.0), "of the network reach no neuron"),
    )
    return ", ".join(f"{amount:,.0f} {what}" for amount, what in parts if round(amount))


def _list_unstated(profile: HardwareProfile, missing: tuple[str, ...], latency: Latency) -> tuple[str, ...]:
    """Return the keys that the missing terms need and a profile leaves open."""
    names = [f"energy.{key}" for term in missing for key in KEYS_OF_TERMS.get(term, ())]
    needs_time = not set(STATIC_TERMS).isdisjoint(missing)
    if "hop" in missing or (needs_time and "topology" in latency.missing):
        names += [f"topology.{key}" for key in type(profile.topology).model_fields]
    if needs_time:
        names += [key for key in latency.missing if key.startswith("timing.")]
    blocks = {"energy": profile.energy, "topology": profile.topology, "timing": profile.timing}
    places = [(name, *name.split(".")) for name in dict.fromkeys(names)]
    return tuple(name for name, block, key in places if getattr(blocks[block], key).value is None)


def _count_effective_ops(
    profile: HardwareProfile, placement: Placement, counts: SpikeCounts, operations: SynOps
) -> EffectiveOps | None:
    ratio = profile.energy.neuron_op_synops
    if ratio.value is None:
        return None
    updates, macs = count_neuron_ops(placement, counts.steps), operations.macs_first_layer
    return EffectiveOps(
        total=operations.total + macs + ratio.value * updates,
        synops=operations.total,
        macs=macs,
        neuron_ops=updates,
        neuron_op_synops=ratio.value,
        source=ratio.source or "",
    )


def _bound_dynamic(
    profile: HardwareProfile,
    placement: Placement,
    counts: SpikeCounts,
    parts: Mapping[str, EnergyTerm | None],
    effective: EffectiveOps | None,
) -> Interval | None:
    """Return the dynamic energy between its ends: of the terms if none is missing, else of effective operations if priced."""
    dynamic = {name: term for name, term in parts.items() if name not in STATIC_TERMS}
    missing = [name for name, term in dynamic.items() if term is None]
    price = profile.energy.effective_op_pj_range
    if set(missing) - {BETWEEN_CHIPS} and price.value is not None and effective is not None:
        low, high = price.value
        return Interval(
            low=effective.total * low * 1e-12,
            high=effective.total * high * 1e-12,
            evidence=price.evidence,
            source=price.source or "",
            how=f"{effective.how} effective operations at {low:g} to {high:g} {price.unit}",
        )
    known = [term for term in dynamic.values() if term is not None and term.joules]
    if not known:
        return None
    total, idle = sum(term.joules for term in known), profile.energy.neuron_inactive_pj.value
    updates = dynamic.get("neuron update")
    saved = 0.0
    if updates is not None and idle is not None:
        saved = updates.joules - _count_updates(placement, counts.steps) * idle * 1e-12
    names = ", ".join(term.name for term in known)
    return Interval(
        low=total - max(saved, 0.0),
        high=None if missing else total,
        evidence=weakest([term.evidence for term in known]),
        source="; ".join(dict.fromkeys(term.source for term in known)),
        how=f"{names}{', from no neuron active to all' if saved else ''}{f'; without {join_names(missing)}' if missing else ''}",
    )


def _bound_static(profile: HardwareProfile, placement: Placement, latency: Latency) -> Interval | None:
    """Return the static energy between its ends: power of the chips, and of cores at work, times the time."""
    time, prices = latency.interval, profile.energy
    is_known = prices.static_w_range.value is None or prices.static_w_per_chip.evidence == "user"
    power: Number | Range = prices.static_w_per_chip if is_known else prices.static_w_range
    if time is None or power.value is None:
        return None
    low, high = power.value if isinstance(power.value, tuple) else (power.value, power.value)
    chips, cores = placement.chips_used, (prices.active_w_per_core.value or 0.0) * placement.cores_used
    ends = f"{low:g} W" if low == high else f"{low:g} to {high:g} W"
    busy = f" and {cores:g} W of its cores" if cores else ""
    return Interval(
        low=(low * chips + cores) * time.low,
        high=None if time.high is None else (high * chips + cores) * time.high,
        evidence=weakest([power.evidence, time.evidence]),
        source=power.source or "",
        how=f"{plural(chips, 'chip')} at {ends}{busy} for {time.write('s')}",
    )


def _term(name: str, events: float, price: Fact, what: str, remark: str = "") -> EnergyTerm | None:
    return None if price.value is None and events else _price(name, events, price, what, remark)


def _price(name: str, events: float, price: Fact, what: str, remark: str = "") -> EnergyTerm:
    cost = "" if price.value is None else f" at {float(price.value):g} {price.unit}"
    return EnergyTerm(
        name=name,
        joules=events * float(price.value or 0.0) * 1e-12,
        evidence="derived" if price.value is None else price.evidence,
        source=price.source or "structure: where nothing happens nothing is paid",
        how=f"{events:,.0f} {what}{cost}" + (f", {remark}" if remark else ""),
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
        "mJ dynamic per inference": run.dynamic_energy_mj,
        "per inference": run.seconds,
    }
    known = {what: leaf for what, leaf in leaves.items() if leaf.value is not None}
    values = {
        what: with_prefix(leaf.value, "s") if leaf is run.seconds else _write_value(leaf.value) for what, leaf in known.items()
    }
    numbers = ", ".join(f"{value} {what}" for what, value in values.items())
    first = next(iter(known.values()))
    return f"{run.task}: {numbers} ({first.evidence}; {first.source})"


def _write_value(value: Any) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, tuple) else f"{value:g}"
