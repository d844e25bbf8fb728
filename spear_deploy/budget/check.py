"""Check of a network against a chip and against the user's limits.

One row per resource and place: used, limit, status, and what removes an overrun. The verdict is `does_not_fit` if anything
is over its limit or does not exist on the chip, `unchecked` if only a number that is needed is not published, and `fits`
otherwise. What is open before weights are rounded (how many values those of a neuron have) the chip's integers decide. All
violations are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from sys import float_info

import numpy as np

from spear_deploy.budget.axon_cuts import count_axons
from spear_deploy.budget.axon_room import counts_axons, find_crowded
from spear_deploy.budget.balance import Balanced, balance_cores
from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.connection_rows import DELAY, PALETTE, check_bias, check_layer_kinds
from spear_deploy.budget.core_rows import CHIP, BudgetRow
from spear_deploy.budget.core_work import CoreWork, measure_core_work
from spear_deploy.budget.energy import Energy, count_neuron_ops, estimate_energy, unknown_energy
from spear_deploy.budget.latency import Latency, StepLoad, find_step_loads, has_fixed_steps, has_step_limits
from spear_deploy.budget.limit_rows import check_limits_of_user, check_load
from spear_deploy.budget.notes import (
    note_axon_types,
    note_balance,
    note_chip,
    note_levels,
    note_lower_bound,
    note_open_loads,
    note_open_rows,
    note_packing,
    note_readout,
    note_replaced,
)
from spear_deploy.budget.open_counts import open_bounds
from spear_deploy.budget.remedies import find_remedies
from spear_deploy.budget.remote_rows import check_remote_synapses
from spear_deploy.budget.report import BudgetReport, Verdict
from spear_deploy.budget.shared_lists import open_shared_lists
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.budget.unsupported import LOOP, Replaced, Unsupported, find_replaced, find_unsupported
from spear_deploy.budget.what_if import PLACED, WhatIf, build_what_if, find_core_limit, place_axons
from spear_deploy.budget.zero_weights import fill_zero_weights
from spear_deploy.errors import DataError, Refusal
from spear_deploy.hardware.fields import MAX_CAPACITY, quote_value
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.equal_values import collapse_equal_values
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.labels import label_layers
from spear_deploy.placement.chip_populations import find_chip_populations
from spear_deploy.placement.place import Placement, lower_bound, place_in_fewest_cores
from spear_deploy.placement.populations import Population
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.quantize.for_chip import ask_integers, takes_current
from spear_deploy.simulator import InputKind, SpikeCounts
from spear_deploy.simulator.synops import count_synops
from spear_deploy.util.arguments import require_whole_number
from spear_deploy.util.number_format import plural

NO_LIMITS = UserLimits()
OF_INTEGERS = "of its integers, rounded without data"
"""Detail of a row that the integers decide."""
NONE_HELD = "the integers of the chip hold none"
"""What the chip has where its integers refuse a part without naming another."""
OF_COSTS = ("synops", "energy", "latency", "events", "clock")
"""Resources that depend on what an inference costs on its cores."""
ASKED_WEIGHTS = 1_000_000
"""Weights up to which a network that is too large for a chip is quantised all the same, so that all that is missing is said."""


def check(
    graph: SNNGraph,
    profile: HardwareProfile,
    *,
    chips: int = 1,
    activity: SpikeCounts | float | None = None,
    steps: int | None = None,
    limits: UserLimits = NO_LIMITS,
    remedies: bool = True,
) -> BudgetReport:
    """Check a network against a chip, and against the user's limits.

    Args:
        graph: floating-point (checked with the profile's default weight bits) or integer (with the bits it needs).
        profile: the chip.
        chips: how many of them.
        activity: spike counts of a run, or a rate: spikes per step of every neuron and input.
        steps: of an inference, for a rate; the network's `metadata["steps"]`, or 1.
        limits: SynOps, cores, energy and latency that the user allows.
        remedies: whether to search what removes each overrun, and the tightest packing; both take most of the time.

    Raises:
        DataError: chips, a limit, the rate or the counts make no sense.
    """
    _check_arguments(chips, activity, steps, limits)
    graph = collapse_equal_values(graph)
    on_chip = _put_on_chip(graph, profile, chips, limits, remedies=remedies)
    counts, activity_notes = _resolve_defined_activity(on_chip, activity, steps)
    costs = _estimate_costs(on_chip, counts)
    measured = _measure_rows(on_chip, costs, limits)
    on_chip, integer = _ask_integers(on_chip, measured, "spikes" if counts is None else counts.input_kind)
    rows = _sort_rows(graph, [*measured, *_list_kinds(on_chip, measured), *_check_biases(on_chip, integer)])
    if integer is not None and _is_left_to_integers(integer, profile, rows):
        decided = check(integer, profile, chips=chips, limits=UserLimits(cores=limits.cores), remedies=remedies)
        rows = _sort_rows(graph, _decide_by_integers(rows, decided.rows))
        if decided.placement.counted:  # cores as the axons of its weights fill them
            rows = _sort_rows(graph, _take_placed(rows, decided.rows))
            on_chip = replace(on_chip, placement=decided.placement, fewest=decided.fewest_cores)
            costs = _estimate_costs(on_chip, counts)  # of the copies of each neuron, too
            kept = [row for row in rows if row.resource not in OF_COSTS]
            rows = _sort_rows(graph, [*kept, *_check_costs(on_chip, costs, limits)])
    used_steps = counts.steps if counts is not None else steps or int(graph.metadata.get("steps", 0))
    notes = (*activity_notes, *_list_notes(on_chip, costs, rows, integer or graph, is_input_known=counts is not None))
    return _write_report(on_chip, costs, rows, notes, used_steps)


def resolve_activity(
    graph: SNNGraph, activity: SpikeCounts | float | None, steps: int | None
) -> tuple[SpikeCounts | None, tuple[str, ...]]:
    """Return spike counts, and a note on what they rest on.

    Args:
        graph: the network.
        activity: counts of a run, a rate (spikes per step of every neuron and input), or None where it is not known.
        steps: of an inference, for a rate; else the network's `metadata["steps"]`, or 1.
    """
    if activity is None:
        return None, ()
    if isinstance(activity, SpikeCounts):
        return activity, (f"activity: measured, {activity.samples} samples of {activity.steps} steps",)
    used = steps or int(graph.metadata.get("steps", 0)) or 1
    names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
    sent = {name: np.full(graph.shape_of(name), activity * used) for name in names}
    note = f"activity: assumed, {activity:g} spikes per step of every neuron and input, {plural(used, 'step')} per inference"
    return SpikeCounts(sent=sent, steps=used, samples=1), (note,)


# -------------------------------------------------------------------------------------------------------------- inside


@dataclass(frozen=True, kw_only=True)
class _OnChip:
    """A network on its chip.

    Attributes:
        graph, profile: the network and the chip.
        populations: of the network.
        bits: of a stored weight, by layer.
        what_if: the network for changes that may remove an overrun.
        placement, fewest: as the chip's tool packs, and in as few cores as the limits allow.
        bound: number of cores that no packing goes below.
        unsupported, replaced: what the chip does not have, and what it does in another way.
        remedies: whether what removes an overrun is searched.
    """

    graph: SNNGraph
    profile: HardwareProfile
    populations: tuple[Population, ...]
    bits: dict[str, int]
    what_if: WhatIf
    placement: Placement
    fewest: Placement
    bound: int
    unsupported: tuple[Unsupported, ...]
    replaced: tuple[Replaced, ...]
    remedies: bool

    @property
    def has_loop(self) -> bool:
        """Whether values come back without a neuron in between, so that no work is defined."""
        return any(finding.what == LOOP for finding in self.unsupported)


def _put_on_chip(graph: SNNGraph, profile: HardwareProfile, chips: int, limits: UserLimits, *, remedies: bool) -> _OnChip:
    """Place a network on a chip, and find what the chip lacks."""
    populations = find_chip_populations(graph, profile)
    bits = stored_bits(graph, profile)
    what_if = build_what_if(graph, populations, bits, profile, chips=chips, max_cores=limits.cores)
    unsupported = find_unsupported(graph, profile, populations)
    packed = what_if.evaluate().placement
    limit = find_core_limit(packed.cores_limit, limits.cores)
    placement = packed if unsupported else place_axons(graph, what_if, max_cores=limit)
    is_packed = placement.slices == packed.slices  # else it is cut for axons of types, which packing does not count
    fewest = place_in_fewest_cores(packed, bits, profile, cache=what_if.cuts) if remedies and is_packed else placement
    if placement.counted and fewest.cores_in_all < placement.cores_in_all:
        fewest = count_axons(graph, fewest, profile) or placement
    return _OnChip(
        graph=graph,
        profile=profile,
        populations=populations,
        bits=bits,
        what_if=what_if,
        placement=placement,
        fewest=fewest,
        bound=lower_bound(populations, bits, profile),
        unsupported=unsupported,
        replaced=find_replaced(graph, profile),
        remedies=remedies,
    )


def _resolve_defined_activity(
    on_chip: _OnChip, activity: SpikeCounts | float | None, steps: int | None
) -> tuple[SpikeCounts | None, tuple[str, ...]]:
    """Return spike counts and their note; no counts of a loop without neurons."""
    counts, notes = resolve_activity(on_chip.graph, activity, steps)
    if counts is not None and on_chip.has_loop:
        return None, (f"activity: not used, since SynOps of {LOOP} are not defined",)
    return counts, notes


def _measure_rows(on_chip: _OnChip, costs: _Costs, limits: UserLimits) -> list[BudgetRow]:
    """Return the rows of sizes with their remedies, of the user's limits and of a step's work."""
    profile, max_cores = on_chip.profile, on_chip.what_if.max_cores
    counted = [*_add_remedies(on_chip), *check_remote_synapses(on_chip.placement, profile)]
    sizes = open_bounds(counted, on_chip.graph, on_chip.what_if)
    return [
        *open_shared_lists(sizes, on_chip.placement, on_chip.bits, profile, max_cores),
        *_check_costs(on_chip, costs, limits),
    ]


def _check_costs(on_chip: _OnChip, costs: _Costs, limits: UserLimits) -> Iterator[BudgetRow]:
    """Yield the rows of `OF_COSTS`: the user's limits that depend on activity, and a step's work."""
    is_fixed = has_fixed_steps(on_chip.profile)
    yield from check_limits_of_user(limits, costs.synops, costs.energy, costs.latency, is_fixed=is_fixed)
    yield from (check_load(load) for load in costs.loads if load.used is not None or load.worst <= load.limit)


def _ask_integers(on_chip: _OnChip, measured: Sequence[BudgetRow], kind: InputKind) -> tuple[_OnChip, SNNGraph | None]:
    """Add the parts of a network that the chip's integers refuse, where nothing else speaks against it; return the integers too.

    A network that is quantised for another chip is refused in any case. Else it is asked by quantising, which takes seconds for
    large networks: one that is too large as it is, is asked when it fits.
    """
    too_large = any(row.status == "over" for row in measured) and on_chip.graph.weights > ASKED_WEIGHTS
    is_of_another = find_chip_format(on_chip.graph) not in (None, on_chip.profile.meta.family)
    is_settled = bool(on_chip.unsupported) or too_large
    answer = None if is_settled and not is_of_another else ask_integers(on_chip.graph, on_chip.profile, kind)
    if not isinstance(answer, Refusal):
        return on_chip, answer
    found = [_read_refusal(part) for part in (answer, *answer.others)]
    return replace(on_chip, unsupported=(*found, *on_chip.unsupported)), None


def _read_refusal(part: Refusal) -> Unsupported:
    """Return a part that the integers refuse; where its refusal is one sentence, its last semicolon parts reason and remedy."""
    reason, _, remedy = part.why.rpartition("; ")
    reason, remedy = (reason, remedy) if reason and not part.remedy else (part.why or NONE_HELD, part.remedy)
    return Unsupported(layer=part.layer, what=part.what, reason=reason, remedy=remedy, resource="integers")


def _is_left_to_integers(integer: SNNGraph, profile: HardwareProfile, rows: Sequence[BudgetRow]) -> bool:
    """Return whether the integers decide what is open: values and delays, or axons of types where nothing is over."""
    is_open = {row.resource for row in rows if row.status == "unchecked"}
    has_axons = counts_axons(integer, profile) and all(row.status != "over" for row in rows if row.resource not in OF_COSTS)
    return is_open <= {PALETTE, DELAY} and (PALETTE in is_open or has_axons)


def _decide_by_integers(rows: Sequence[BudgetRow], decided: Sequence[BudgetRow]) -> Iterator[BudgetRow]:
    """Yield the rows of a network, those that are open as its integers have them, and what of the integers is over a limit.

    Integers may hold weights under other names: those of a layer whose neurons stand in the next one.
    """
    own = {(row.resource, row.where): replace(row, detail=OF_INTEGERS) for row in decided}
    for row in rows:
        found = own.pop((row.resource, row.where), None)
        if found is None and row.resource == PALETTE and row.status == "unchecked":
            continue
        takes = found is not None and (row.status == "unchecked" or (found.status == "over" and row.status != "over"))
        yield found if found is not None and takes else row
    yield from (row for row in own.values() if row.status == "over" or row.resource == PALETTE)


def _take_placed(rows: Sequence[BudgetRow], decided: Sequence[BudgetRow]) -> Iterator[BudgetRow]:
    """Yield the rows of a network, those of cores as its integers take them."""
    yield from (row for row in rows if row.resource not in PLACED or row.where == INPUT)
    yield from (replace(row, detail=OF_INTEGERS) for row in decided if row.resource in PLACED and row.where != INPUT)


def _list_kinds(on_chip: _OnChip, measured: Sequence[BudgetRow]) -> Iterator[BudgetRow]:
    """Return the rows of formats and kinds; axons by type are counted where nothing else speaks against the network."""
    graph, profile, placement = on_chip.graph, on_chip.profile, on_chip.placement
    is_settled = bool(on_chip.unsupported or placement.counted) or any(row.status == "over" for row in measured)
    crowded = {} if is_settled else find_crowded(graph, placement, profile)
    return check_layer_kinds(graph, profile, placement, on_chip.bits, on_chip.unsupported, crowded)


def _check_biases(on_chip: _OnChip, integer: SNNGraph | None) -> Iterator[BudgetRow]:
    """Yield the rows of biases that are too wide when a network is rounded, or whose limit is not published."""
    if integer is not None and not on_chip.graph.is_integer:
        rows = [row for layer in integer.layers for row in check_bias(layer, on_chip.profile, OF_INTEGERS)]
        yield from (row for row in rows if row.status != "ok")


def _sort_rows(graph: SNNGraph, rows: Iterable[BudgetRow]) -> tuple[BudgetRow, ...]:
    """Return rows in the order of the network's layers; those of layers that integers add come last."""
    order = {name: i for i, name in enumerate((CHIP, INPUT, *(layer.name for layer in graph.layers)))}
    return tuple(sorted(rows, key=lambda row: order.get(row.layers[0], len(order))))


def _add_remedies(on_chip: _OnChip) -> Iterator[BudgetRow]:
    """Yield the rows of sizes, each overrun with what removes it."""
    for row in on_chip.what_if.evaluate().rows:
        if on_chip.remedies and row.status == "over":
            row = replace(row, remedy=find_remedies(on_chip.what_if, row, on_chip.fewest))
        yield row


def _write_report(
    on_chip: _OnChip, costs: _Costs, rows: tuple[BudgetRow, ...], notes: tuple[str, ...], steps: int
) -> BudgetReport:
    """Return the report of a network on its chip; `steps` of an inference are 0 where they are not known."""
    placement = on_chip.placement
    return BudgetReport(
        profile=on_chip.profile.name,
        verdict=_decide(rows, on_chip.unsupported),
        cores_used=placement.cores_used,
        cores_limit=placement.cores_limit,
        rows=rows,
        synops=costs.synops,
        chip_synops=costs.chip_synops,
        neuron_ops=count_neuron_ops(placement, steps) if steps else None,
        energy=costs.energy,
        latency=costs.latency,
        work=costs.work,
        balanced=costs.balanced,
        labels=label_layers(on_chip.graph),
        unsupported=on_chip.unsupported,
        replaced=on_chip.replaced,
        placement=placement,
        fewest_cores=on_chip.fewest,
        passes=placement.runs if on_chip.profile.chip.multi_pass.value else None,
        bound=on_chip.bound,
        notes=notes,
    )


def _list_notes(
    on_chip: _OnChip, costs: _Costs, rows: Sequence[BudgetRow], integer: SNNGraph, *, is_input_known: bool
) -> Iterator[str]:
    """Yield what the verdict rests on, in the order in which it is shown; `integer` is the network, rounded where it can be."""
    profile = on_chip.profile
    if not is_input_known and not takes_current(profile):
        yield f"input: taken as spikes; values that are not coded as spikes (a current) cannot be sent to {profile.name}"
    yield from note_axon_types(integer, on_chip.placement)
    yield from note_lower_bound(on_chip.graph, on_chip.placement, profile)
    yield from note_levels(integer)
    yield from note_replaced(on_chip.replaced, profile.name)
    yield from note_readout(on_chip.populations, on_chip.unsupported)
    yield from note_chip(on_chip.graph, profile)
    yield from note_open_rows(rows, profile)
    yield from note_open_loads(costs.loads, profile)
    yield note_packing(on_chip.placement, on_chip.fewest, on_chip.bound)
    yield from note_balance(on_chip.placement, costs.balanced)


@dataclass(frozen=True, kw_only=True)
class _Costs:
    """What an inference costs, as far as the activity is known.

    Attributes:
        synops: one per spike and existing synapse; None without an activity.
        chip_synops: those that the chip works on; None also where it is not published whether it skips zero weights.
        energy, latency: per inference.
        loads: work of a step, on chips that limit it; without an activity the worst case.
        work, balanced: work of the cores, and their placement with the work levelled.
    """

    synops: float | None = None
    chip_synops: float | None = None
    energy: Energy
    latency: Latency
    loads: tuple[StepLoad, ...] = ()
    work: CoreWork | None = None
    balanced: Balanced | None = None


def _estimate_costs(on_chip: _OnChip, counts: SpikeCounts | None) -> _Costs:
    """Return the costs of an inference; of a loop without neurons no work is defined."""
    graph, profile, placement, bits = on_chip.graph, on_chip.profile, on_chip.placement, on_chip.bits
    unknown = _Costs(energy=unknown_energy(profile), latency=Latency(seconds=None, missing=("activity",)))
    if on_chip.has_loop or (counts is None and not has_step_limits(profile)):
        return unknown
    worked = fill_zero_weights(graph, profile)  # with the zero weights that the chip works on
    unknown = replace(unknown, loads=tuple(find_step_loads(worked, profile, placement, counts)))
    if counts is None:
        return unknown
    operations, chip_operations = count_synops(graph, counts), None
    if profile.weights.zero_synops.value is not None:
        chip_operations = operations if worked is graph else count_synops(worked, counts)
    known = replace(unknown, synops=operations.total, chip_synops=None if chip_operations is None else chip_operations.total)
    if not placement.populations:
        return known
    traffic = count_traffic(worked, profile, placement, counts)
    energy, latency = estimate_energy(worked, profile, placement, counts, chip_operations or operations, traffic)
    work = measure_core_work(profile, placement, traffic, counts.steps, bits)
    balanced = balance_cores(worked, profile, placement, counts, work, bits)
    return replace(known, energy=energy, latency=latency, work=work, balanced=balanced)


def _check_arguments(chips: int, activity: SpikeCounts | float | None, steps: int | None, limits: UserLimits) -> None:
    for name, value in (("chips", chips), ("steps", steps), ("cores", limits.cores)):
        if value is not None:
            require_whole_number(name, value, most=MAX_CAPACITY)
    for name, limit in (("synops", limits.synops), ("energy_j", limits.energy_j), ("latency_s", limits.latency_s)):
        if limit is not None and not (_is_number(limit) and 0 <= limit <= float_info.max):
            raise DataError(f"{name}: {quote_value(limit)} given, expected a finite number of at least 0")
    if activity is None or isinstance(activity, SpikeCounts):
        return
    if not (_is_number(activity) and 0 <= activity <= float_info.max):
        raise DataError(f"activity: {quote_value(activity)} given, expected spikes per neuron and step, at least 0")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _decide(rows: Sequence[BudgetRow], findings: Sequence[Unsupported]) -> Verdict:
    statuses = {row.status for row in rows}
    if findings or "over" in statuses:
        return "does_not_fit"
    return "unchecked" if "unchecked" in statuses else "fits"
