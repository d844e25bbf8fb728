"""Notes of a verdict: replacements, approximations, open facts, packing and balance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isinf

from spear_deploy.budget.balance import Balanced
from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.budget.latency import StepLoad
from spear_deploy.budget.pools import note_pools
from spear_deploy.budget.unsupported import LATE_RESET, SEVERAL_SPIKES, WEIGHTED_SUM, Replaced, Unsupported
from spear_deploy.errors import did_you_mean
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, LI, LIF, WEIGHTED, CubaLI, is_bounded
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import name_layers
from spear_deploy.network.layer_bits import read_layer_bits
from spear_deploy.placement.place import Placement
from spear_deploy.placement.populations import Population
from spear_deploy.quantize import FORMATS
from spear_deploy.quantize.integer_layers import V_MIN
from spear_deploy.quantize.palette import AXONS
from spear_deploy.quantize.rounding import ROUNDED
from spear_deploy.quantize.weight_levels import FEW_LEVELS, WEIGHTS_LOST, describe_levels
from spear_deploy.util.number_format import join_names, plural, unit_noun

STATE_BITS = {
    "catalyst": 16, "loihi": 24, "odin": 8, "reckon": 16, "speck": 16, "spinnaker": 32, "spinnaker2": 32, "truenorth": 20,
    "xylo": 16,
}  # fmt: skip
"""Bits of u and v of the chips whose integers a family has."""


def note_chip(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield notes on its family, sizes without a limit, pools that no core does, bits by layer, and approximated neurons.

    Args:
        graph: the network.
        profile: the chip.
    """
    yield from _note_family(profile)
    yield from _note_open_sizes(graph, profile)
    yield from note_pools(graph, profile)
    yield from _note_layer_bits(graph, profile)
    yield from _note_missing_currents(graph, profile)
    yield from _note_mapper(graph, profile)
    yield from _note_bounds(graph, profile)
    yield from _note_state_bits(profile)


def _note_family(profile: HardwareProfile) -> Iterator[str]:
    """Yield a note where a family without integers is written almost like one that has them."""
    family, known = profile.meta.family, {*FORMATS, *ROUNDED}
    if family not in known and (hint := did_you_mean(family, known)):
        yield f"family: {profile.name} is of the family '{family}', for which no rounding is known{hint}"


def _note_open_sizes(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield the sizes of a convolution that a profile leaves open: where it states no limit, any is allowed."""
    sizes = profile.layers
    convs = [synapse for layer in graph.layers if isinstance(synapse := layer.synapse, CONVS)]
    convs = [conv for conv in convs if sizes.kinds.value is None or type(conv).__name__ in sizes.kinds.value]
    if not convs:
        return
    keys = ["channels_max", "input_map_max", "output_map_max"]
    if sizes.conv_stride_sizes.value is None and any(max(conv.stride) > 1 for conv in convs):
        keys.insert(0, "conv_stride_max")
    if sizes.conv_kernel_sizes.value is None:
        keys.insert(0, "conv_kernel_max")
    if left_out := [f"layers.{key}" for key in keys if getattr(sizes, key).value is None]:
        yield f"sizes: {profile.name} states no {join_names(left_out)}, so any size is allowed there"


def _note_layer_bits(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield the widths that a network states by layer, or that the chip stores all layers alike."""
    stated, default = read_layer_bits(graph), profile.weights.default_bits.value
    if stated and profile.weights.bits_by_layer.value:
        widths = ", ".join(f"{name_layers([name])} {profile.store_bits(bits)}" for name, bits in stated.items())
        yield f"bits of a weight by layer: {widths}; the chip's default is {default}"
    elif stated:
        yield (
            f"the network states bits of the weights of {plural(len(stated), 'layer')}; layers of {profile.name} are not known "
            f"to differ in theirs, so all have {default}"
        )


def note_axon_types(integer: SNNGraph, placement: Placement) -> Iterator[str]:
    """Yield a note where sources of integers take an axon for each type of their weights."""
    count = "have these axons as cores are cut" if placement.counted else "count one for each source"
    for row in integer.metadata.get("quantization", {}).get("findings", ()):
        if row["what"] == AXONS:
            yield (
                f"axons: the {row['given']:,.0f} sources of '{row['layer']}' take {row['stored']:,.0f} axons on one core, one "
                f"for each type of their weights; rows {count}"
            )


def note_lower_bound(graph: SNNGraph, placement: Placement, profile: HardwareProfile) -> Iterator[str]:
    """Yield a note where sources take an axon for each type of their weights, and a placement counts one."""
    has_types = profile.connectivity.weight_palette.max_value is not None and profile.synapse_memory.format.value == "crossbar"
    if has_types and not placement.counted and any(isinstance(layer.synapse, WEIGHTED) for layer in graph.layers):
        yield (
            f"cores: one axon is counted for each source; integers for {profile.name} take one for each type of its weights, "
            "so that cores and axons are a lower bound"
        )


def note_levels(integer: SNNGraph) -> Iterator[str]:
    """Yield a note on each layer of integers of whose weights one or two levels are left, or none."""
    for row in integer.metadata.get("quantization", {}).get("findings", ()):
        if row["what"] in (WEIGHTS_LOST, FEW_LEVELS):
            yield f"weights: {describe_levels(row)}"


def note_open_rows(rows: Sequence[BudgetRow], profile: HardwareProfile) -> Iterator[str]:
    """Yield a note on what a verdict of `unchecked` rests on: how much is decided, and what is not.

    Args:
        rows: of the check.
        profile: the chip.
    """
    unchecked = [row for row in rows if row.status == "unchecked"]
    if not unchecked or any(row.status == "over" for row in rows):
        return
    names = list(dict.fromkeys(row.resource for row in unchecked))
    unpublished = [n for n in names if n == "recurrent" or (n == "reset" and profile.neuron.resets.value is None)]
    unpublished += [row.resource for row in unchecked if row.limit is None and row.resource not in unpublished]
    unpublished = list(dict.fromkeys(unpublished))
    rest = [name for name in names if name not in unpublished]
    reasons = [f"not published: {join_names(unpublished)}"] if unpublished else []
    reasons += [f"not known: {join_names(rest)}"] if rest else []
    decided = len(rows) - len(unchecked)
    yield f"open: {decided} of {plural(len(rows), 'row')} are decided and none is over; {'; '.join(reasons)}"


# ------------------------------------------------------------------------------------------------------------ inside


def _note_missing_currents(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield notes where every neuron of the chip has a synaptic current and a threshold, and the network's have not."""
    dash = profile.neuron.current_of_none.value
    if dash is None:
        return
    without = [f"'{layer.name}'" for layer in graph.layers if isinstance(layer.neuron, (LIF, LI))]
    readouts = [f"'{layer.name}'" for layer in graph.layers if isinstance(layer.neuron, (LI, CubaLI))]
    if without:
        kept = 2.0**-dash
        yield (
            f"approximation: {join_names(without)} {'has' if len(without) == 1 else 'have'} no synaptic current, every neuron of "
            f"{profile.name} has one; the shortest stands in (dash_syn = {dash}, which keeps {1 - kept:g} of it a step), so that "
            "input arrives later; train with CubaLIF to avoid it"
        )
    if readouts:
        yield (
            f"approximation: {join_names(readouts)} {'is' if len(readouts) == 1 else 'are'} read as a potential; "
            f"{profile.name} takes a neuron whose threshold is out of reach"
        )


def _note_bounds(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield a note where v has a lower bound that the integers of the Loihi family leave out."""
    findings = graph.metadata.get("quantization", {}).get("findings", ())
    left_out = {finding["layer"] for finding in findings if finding["what"] == V_MIN}
    names = [f"'{layer.name}'" for layer in graph.layers if is_bounded(layer.neuron) or layer.name in left_out]
    if names and profile.meta.family == "loihi":
        yield (
            f"lower bound: {join_names(names)} {'keeps' if len(names) == 1 else 'keep'} v at or above v_min, the integers for "
            f"{profile.name} do not; `simulate NET --chip {profile.name} --explain --data DATA` measures what that changes"
        )


def _note_state_bits(profile: HardwareProfile) -> Iterator[str]:
    """Yield a note where states of the chip are not as wide as those of its family's integers."""
    held, bits = STATE_BITS.get(profile.meta.family), profile.neuron.state_bits.value
    if held is not None and bits is not None and bits != held:
        less = "a state beyond that overflows on the chip, not in the integers"
        yield (
            f"state: integers of the family '{profile.meta.family}' hold {held} bits of u and v, {profile.name} has {bits}; "
            f"{less if bits < held else 'the integers overflow before the chip does'}"
        )


def _note_mapper(graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield a note where the maker's mapper stops at a network that the chip may hold."""
    fewest = profile.connectivity.mapped_hidden_layers.max_value
    hidden = sum(layer.neuron is not None for layer in graph.layers) - 1
    if fewest is not None and 0 < hidden < fewest:
        yield (
            f"mapper: the maker's own mapper for {profile.name} stops at fewer than {fewest} hidden layers (the network has "
            f"{hidden}); the chip's limits hold, so `export` can write its arrays"
        )


def note_replaced(replaced: Sequence[Replaced], chip: str) -> Iterator[str]:
    """Yield a note where layers reset one step late and the chip in the step of the spike, or send more spikes in a step."""
    late = [f"'{entry.layer}'" for entry in replaced if entry.what == LATE_RESET]
    several = [entry for entry in replaced if entry.what == SEVERAL_SPIKES]
    if late:
        names = f"{', '.join(late)} {'subtracts' if len(late) == 1 else 'subtract'}"
        yield (
            f"reset: {names} the threshold one step after the spike, {chip} in the same step, which changes spikes; "
            f"`simulate NET --chip {chip} --explain --data DATA` measures how many; training with a reset of the chip "
            "(snnTorch: reset_mechanism='zero', reset_delay=False where it resets by value) or `adapt` avoids it"
        )
    for by in dict.fromkeys(entry.by for entry in several):
        names = join_names([f"'{entry.layer}'" for entry in several if entry.by == by])
        yield (
            f"spikes per step: {names} may send several spikes in a step, {chip} sends {by}, which changes spikes; "
            f"`simulate NET --chip {chip} --explain --data DATA` measures how many; training with as many avoids it (sinabs: "
            "SingleSpike or MaxSpike, Rockpool: max_spikes_per_dt)"
        )


def note_open_loads(loads: Sequence[StepLoad], profile: HardwareProfile) -> Iterator[str]:
    """Yield a note per load that is too much in the worst case while the activity is not known.

    It is no row: the network is placed, as the makers' mappers place it; what it does in a step, the activity decides.
    """
    for load in loads:
        if load.used is None and load.worst > load.limit:
            limit = f"{load.limit:,.0f}"
            work = f"{load.worst:,.0f} {unit_noun(load.unit, load.worst)}"
            most = f"if all spiked at every step, as often as they can, it would be {work} of {limit}"
            if isinf(load.worst):
                unit = unit_noun(load.unit, load.limit)
                most = f"neurons or inputs may spike any number of times in a step, and the limit is {limit} {unit}"
            yield f"pace: whether {profile.name} does the work of a step in time depends on the activity (`--activity`); {most}"


def note_balance(placement: Placement, balanced: Balanced | None) -> Iterator[str]:
    """Yield what levelling the work of the cores gains and costs."""
    if balanced is not None:
        interval = balanced.latency.interval
        time = "" if interval is None else f", time {interval.write('s')}"
        yield (
            f"balance: {balanced.placement.cores_used:,} cores instead of {placement.cores_used:,} leave the fullest core "
            f"1/{balanced.gain:.3g} of the work{time}"
        )


def note_readout(populations: Sequence[Population], findings: Sequence[Unsupported]) -> Iterator[str]:
    """Yield a note where the output is a weighted sum that nothing speaks against: the placement has neurons for it."""
    lacking = {finding.layer for finding in findings if finding.what == WEIGHTED_SUM}
    for population in populations:
        if population.readout and population.name not in lacking:
            yield (f"readout: '{population.name}' is a weighted sum without neurons; it is placed as neurons that hold the sum")


def note_packing(placement: Placement, fewest: Placement, bound: int) -> str:
    """Return how many cores the packings take, relative to the lower bound."""
    if not bound:
        return "packing: nothing to place"
    ratio = f"{fewest.cores_in_all / bound:.2f} times the lower bound of {bound}"
    if fewest.cores_in_all == placement.cores_in_all:
        return f"packing: {plural(placement.cores_in_all, 'core')}, {ratio}"
    return f"packing: {placement.cores_in_all} cores as the chip's tool packs; {fewest.cores_in_all} at the tightest, {ratio}"
