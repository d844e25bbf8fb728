"""Rows of connections, formats and kinds of layers.

Connections: fan-in, fan-out, the network's input and output, sizes of maps. Synapses are counted exactly, weights of zero left
out, but only where the chip has a limit for them. Formats and kinds: weight bits, delays, neuron models, resets, kinds of
layers. What a chip has or has not gets a row too: `used` counts what it does not have, the limit is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from spear_deploy.budget.axon_room import count_values, counts_axons
from spear_deploy.budget.core_rows import CHIP, THING, BudgetRow, check_limit, classify_use
from spear_deploy.budget.geometry import find_unchecked_geometry
from spear_deploy.budget.unsupported import Unsupported, find_feedback, list_extra_delays
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import (
    FLOAT_NEURONS,
    WEIGHTED,
    Array,
    Layer,
    LoihiLIF,
    Scale,
    array_parameters,
    resets_late,
    sends_several,
)
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.place import Placement
from spear_deploy.placement.populations import Population, add_counts, count_synapses_out_of
from spear_deploy.placement.weight_bits import bias_bits, max_distinct_weights
from spear_deploy.util.number_format import join_names

PALETTE = "weight_palette"
"""Resource of how many distinct weights a neuron has, which integers alone have."""
BIAS = "bias_bits"
"""Resource of the widths of biases, which integers alone have."""
DELAY = "delay"
"""Resource of the delays into a layer; those that differ between synapses of a source take axons, which integers decide."""


# ---------------------------------------------------------------------------------------------------------- connections


def check_connections(
    populations: Sequence[Population], profile: HardwareProfile, *, chips: int, inputs: int
) -> Iterator[BudgetRow]:
    """Yield the rows of neurons, and of the network's input and output.

    Args:
        populations: of `find_chip_populations`.
        profile: the chip.
        chips: how many there are.
        inputs: of the network.
    """
    rules = profile.connectivity
    has_readout_cores = any(group.role.value == "readout" for group in profile.core_groups)
    inner = [population for population in populations if not (has_readout_cores and population.output)]
    for population in populations:
        if not population.is_input_layer or profile.meta.family != "loihi":
            used = None if rules.fan_in.max_value is None else _max_fan_in(population, profile)
            yield from check_limit("fan_in", population.name, used, rules.fan_in)
        used = None if rules.fan_out.max_value is None else count_synapses_out_of(population.name, inner).largest
        yield from check_limit("fan_out", population.name, used, rules.fan_out)
        yield from _check_maps(population, profile)
    yield from _check_mean_fan_out(populations, inner, profile, chips)
    outputs = [population for population in populations if population.output]
    yield from check_limit("input_channels", INPUT, inputs, rules.input_channels, capacity=False)
    for population in outputs:
        yield from check_limit("output_channels", population.name, population.neurons, rules.output_channels, capacity=False)
    reached = None if rules.input_reaches.max_value is None else sum(_count_input_targets(p) for p in inner)
    yield from check_limit("input_reaches", INPUT, reached, rules.input_reaches)
    read = None if rules.output_reads.max_value is None else _count_output_sources(outputs)
    for population in outputs[:1]:
        yield from check_limit("output_reads", population.name, read, rules.output_reads)
    dense = [p.name for p in populations if any(q.kind == "dense" for q in p.projections)]
    if dense and profile.chip.dense_layers.max_value is not None:
        yield from check_limit("dense_layers", CHIP, len(dense), profile.chip.dense_layers, capacity=False)
    readers = [p for p in populations if any(s.name == INPUT for q in p.projections for s in q.sources)]
    if profile.synapse_memory.format.value != "crossbar":  # to a crossbar an input is sent once for each axon
        yield from check_limit("destinations", INPUT, len(readers), profile.core.destinations, capacity=False)


def _max_fan_in(population: Population, profile: HardwareProfile) -> int:
    """Count the synapses of the neuron that has most; in a crossbar the cells of its column."""
    cells = int(profile.synapse_memory.cells_per_weight.max_value or 1)
    factors = [cells if projection.signed else 1 for projection in population.synapses]
    return add_counts([projection.fan_in for projection in population.synapses], factors).largest


def _check_mean_fan_out(
    populations: Sequence[Population], inner: Sequence[Population], profile: HardwareProfile, chips: int
) -> list[BudgetRow]:
    """Return the row of the mean fan-out: synapses of the whole chip against its neurons times the mean.

    A readout that has cores of its own is not in `inner`: fan-out does not count its synapses.
    """
    leaf = profile.connectivity.fan_out_mean
    if leaf.value == "unlimited":
        return []
    if leaf.max_value is None:
        return check_limit("fan_out_mean", CHIP, None, leaf)
    groups = [g for g in range(len(profile.core_groups)) if profile.core_groups[g].role.value != "readout"]
    if groups:
        neurons = [(profile.core_limits(g)["neurons"].max_value, profile.core_groups[g].count.max_value) for g in groups]
    else:
        neurons = [(profile.core.neurons.max_value, profile.chip.usable_cores.max_value)]
    if any(n is None or count is None for n, count in neurons):
        return check_limit("fan_out_mean", CHIP, None, leaf)
    capacity = chips * sum((n or 0) * (count or 0) for n, count in neurons)
    used = sum(count_synapses_out_of(population.name, inner).total for population in populations)
    budget = leaf.model_copy(update={"value": leaf.max_value * capacity})
    detail = f"{leaf.max_value} for each of the chip's {capacity} neurons"
    return check_limit("fan_out_mean", CHIP, used, budget, detail=detail)


def _count_input_targets(population: Population) -> int:
    """Count the neurons that the network's input reaches."""
    reading = [p for p in population.projections if any(source.name == INPUT for source in p.sources)]
    return add_counts([projection.fan_in for projection in reading]).connected


def _count_output_sources(outputs: Sequence[Population]) -> int:
    """Count the neurons that the output layer reads."""
    counts: dict[str, list[Array]] = {}
    for projection in (p for population in outputs for p in population.projections):
        for source in projection.sources:
            if source.name not in (INPUT, *(population.name for population in outputs)):
                counts.setdefault(source.name, []).append(projection.fan_out)
    return sum(add_counts(parts).connected for parts in counts.values())


def _check_maps(population: Population, profile: HardwareProfile) -> Iterator[BudgetRow]:
    """Yield the rows of a layer's sizes; a limit that is not published restricts nothing here."""
    sizes = profile.layers
    convs = [p for p in population.projections if p.kind == "conv" and p.input_map]
    dense = [p for p in population.projections if p.kind == "dense"]
    dense_inputs = max((p.kernel_channels * prod(p.kernel) for p in dense), default=None)
    amounts = [("dense_inputs", dense_inputs, sizes.dense_inputs_max)]
    if convs:
        amounts += [
            ("input_map", max(n for p in convs for n in p.input_map), sizes.input_map_max),
            ("output_map", max(n for p in convs for n in p.output_map), sizes.output_map_max),
            ("channels", max(max(p.channels, p.outputs) for p in convs), sizes.channels_max),
        ]
    elif dense and profile.synapse_memory.format.value == "pow2_kernel":
        amounts.append(("channels", max(max(p.kernel_channels, p.outputs) for p in dense), sizes.channels_max))
    for resource, used, leaf in amounts:
        if used is not None and leaf.max_value is not None:
            yield from check_limit(resource, population.name, used, leaf, capacity=False)


# ---------------------------------------------------------------------------------------------------- formats and kinds


def check_layer_kinds(
    graph: SNNGraph,
    profile: HardwareProfile,
    placement: Placement,
    weight_bits: Mapping[str, int],
    findings: Sequence[Unsupported],
    crowded: Mapping[str, str],
) -> Iterator[BudgetRow]:
    """Yield the rows of formats and kinds, layer by layer.

    Args:
        graph: the network.
        profile: the chip.
        placement: of the network.
        weight_bits: of a stored weight, by layer.
        findings: what the chip does not have.
        crowded: layers of weights whose axons may have no room on a core, with the reason (`axon_room`).
    """
    by_name = {population.name: population for population in placement.populations}
    by_layer: dict[str, dict[str, list[Unsupported]]] = {}
    for finding in findings:
        by_layer.setdefault(finding.layer, {}).setdefault(finding.resource, []).append(finding)
    if refused := by_layer.get(INPUT, {}).get("integers"):
        yield _count_missing("integers", INPUT, refused, known=True)
    for layer in graph.layers:
        missing = by_layer.get(layer.name, {})
        if layer.name in by_name:
            yield from _check_formats(graph, by_name[layer.name], profile, weight_bits)
        yield from _check_palette(graph, layer, profile, crowded.get(layer.name, ""))
        yield from _check_neuron(layer, profile, missing)
        if layer.synapse is not None or missing.get("layer_kind"):
            yield _check_kind(layer, profile, missing.get("layer_kind", []))
        is_open = profile.connectivity.recurrent.value is None and not missing.get("recurrent")
        if is_open and (sources := find_feedback(graph, layer)):
            what = f"feedback from {join_names([repr(name) for name in sources])}"
            yield _count_missing("recurrent", layer.name, (), known=False, what=what)
        for resource in ("recurrent", "hidden_layer", "time_constant", "neuron_constants", "weight_sign", "integers"):
            if missing.get(resource):
                yield _count_missing(resource, layer.name, missing[resource], known=True)


def _check_formats(
    graph: SNNGraph, population: Population, profile: HardwareProfile, weight_bits: Mapping[str, int]
) -> Iterator[BudgetRow]:
    """Yield rows for weight bits and delays, where there are any."""
    has_no_synapses = population.is_input_layer and profile.meta.family == "loihi"
    bits = [] if has_no_synapses else [weight_bits[p.layer] for p in population.projections if p.layer in weight_bits]
    if bits:
        max_bits = max(profile.weights.bits.value or (0,))
        status = classify_use(max(bits), max_bits, capacity=False)
        yield BudgetRow(
            resource="weight_bits",
            where=population.name,
            used=max(bits),
            limit=max_bits,
            unit="bit",
            status=status,
            remedy=f"quantise to {max_bits} bits" if status == "over" else "",
        )
    delay = max((steps for _, steps in list_extra_delays(population, profile)), default=0)
    ways, is_crossbar = population.projections, profile.synapse_memory.format.value == "crossbar"
    if delay > 0 and profile.weights.delay_max_steps.value != "unlimited":
        limit, free = profile.weights.delay_max_steps.max_value, profile.weights.delay_free_steps.max_value
        status, remedy = classify_use(delay, limit, capacity=False), ""
        if status == "ok" and free is not None and delay > free:
            status = "unchecked"
            remedy = f"delays above {free} steps leave fewer neurons on a core; how many is not published"
        elif status == "ok" and is_crossbar and any(p.mixed_delays for p in ways) and not counts_axons(graph, profile):
            status = "unchecked"
            remedy = (
                "a source whose synapses differ in delay takes an axon, and a copy of its neuron, for each delay; one is placed"
            )
        elif status == "over":
            beyond = delay - (limit or 0)
            layers = "a layer that passes" if beyond == 1 else f"{beyond} layers that pass"
            remedy = f"let {layers} spikes on lie in between, one for each step too many"
        yield BudgetRow(resource=DELAY, where=population.name, used=delay, limit=limit, unit="step", status=status, remedy=remedy)


def _check_palette(graph: SNNGraph, layer: Layer, profile: HardwareProfile, crowded: str) -> list[BudgetRow]:
    leaf = profile.connectivity.weight_palette
    if not isinstance(layer.synapse, WEIGHTED) or isinstance(layer.synapse, Scale) or leaf.value == "unlimited":
        return []
    if leaf.max_value is None:
        return check_limit(PALETTE, layer.name, None, leaf)
    level = f"quantise each neuron's weights to {leaf.max_value} values"
    if not graph.is_integer:
        return check_limit(PALETTE, layer.name, None, leaf, remedy=f"weights are not quantised yet; {level}")
    used = max_distinct_weights(layer.synapse.weight)
    if used <= leaf.max_value and counts_axons(graph, profile):
        used = count_values(graph, layer.name)
    if used <= leaf.max_value and crowded:
        return check_limit(PALETTE, layer.name, None, leaf, remedy=f"{crowded}; no finer cut that was tried has room")
    remedy = level if used > leaf.max_value else ""
    return check_limit(PALETTE, layer.name, used, leaf, capacity=False, remedy=remedy)


def _check_neuron(layer: Layer, profile: HardwareProfile, missing: Mapping[str, Sequence[Unsupported]]) -> Iterator[BudgetRow]:
    neuron = layer.neuron
    if neuron is None:
        if found := missing.get("neuron_model"):
            yield _count_missing("neuron_model", layer.name, found, known=True)
        return
    models, resets = profile.neuron.models.value, profile.neuron.resets.value
    model = type(neuron).__name__
    yield _count_missing("neuron_model", layer.name, missing.get("neuron_model", ()), known=models is not None, what=model)
    if layer.spikes and hasattr(neuron, "reset"):
        yield _count_missing("reset", layer.name, missing.get("reset", ()), known=resets is not None, what=neuron.reset)
    if resets_late(neuron):
        late = profile.neuron.late_reset.value
        what = "in the step of the spike, where the network resets one step late" if late is False else "one step late"
        yield _count_missing("late_reset", layer.name, (), known=late is not None, what=what)
    if sends_several(neuron) and isinstance(neuron, FLOAT_NEURONS) and layer.spikes:
        leaf = profile.neuron.max_spikes_per_step
        what = "several spikes in a step" if leaf.max_value is None else f"up to {leaf.max_value:g} spikes in a step"
        yield _count_missing("max_spikes_per_step", layer.name, (), known=leaf.value is not None, what=what)
    yield from _check_distinct(layer, profile)
    rest = neuron.refractory_steps if isinstance(neuron, LoihiLIF) else 0
    if rest and profile.neuron.refractory_max_steps.value != "unlimited":
        limit = profile.neuron.refractory_max_steps.max_value
        status = classify_use(rest, limit, capacity=False)
        remedy = f"train with a rest of at most {limit} steps" if status == "over" else ""
        yield BudgetRow(
            resource="refractory", where=layer.name, used=rest, limit=limit, unit="step", status=status, remedy=remedy
        )
    yield from check_bias(layer, profile)


def check_bias(layer: Layer, profile: HardwareProfile, detail: str = "") -> Iterator[BudgetRow]:
    """Yield the row of the biases of integer neurons; `detail` says of what they are, where the network has others."""
    neuron, bits = layer.neuron, profile.neuron.bias_bits
    if isinstance(neuron, LoihiLIF) and neuron.bias.any() and bits.value != "unlimited":
        used = bias_bits(neuron.bias)
        act = "train with smaller biases, or none" if detail else f"round the bias to {bits.max_value} bits"
        remedy = act if bits.max_value is not None and used > bits.max_value else ""
        yield from check_limit(BIAS, layer.name, used, bits, capacity=False, remedy=remedy, detail=detail)


def _check_distinct(layer: Layer, profile: HardwareProfile) -> Iterator[BudgetRow]:
    """Yield a row where a layer has more thresholds, or time constants, than a core surely holds; each core may have fewer."""
    leaf, parameters = profile.neuron.distinct_per_core, array_parameters(layer.neuron) if layer.neuron is not None else {}
    if leaf.max_value is None:
        return
    thresholds = [values for name, values in parameters.items() if name == "v_threshold"]
    times = [values for name, values in parameters.items() if name.startswith(("tau", "decay"))]
    for what, arrays in (("thresholds", thresholds), ("time constants", times)):
        used = len(np.unique(np.stack([a.ravel() for a in np.broadcast_arrays(*arrays)]), axis=1).T) if arrays else 0
        if used > leaf.max_value:
            reason = (
                f"{used:,} distinct {what}, of which a core of {profile.name} surely holds {leaf.max_value}; train with fewer"
            )
            yield BudgetRow(
                resource="distinct_constants", where=layer.name, used=None, limit=leaf.max_value, unit=leaf.unit,
                status="unchecked", remedy=reason,
            )  # fmt: skip


def _check_kind(layer: Layer, profile: HardwareProfile, missing: Sequence[Unsupported]) -> BudgetRow:
    unchecked = find_unchecked_geometry(layer, profile)
    if unchecked and not missing:
        detail = f"{' and '.join(unchecked)}: {profile.name} publishes no limit"
        return BudgetRow(
            resource="layer_kind", where=layer.name, used=None, limit=0, unit=THING, status="unchecked", detail=detail
        )
    known = profile.layers.kinds.value is not None
    return _count_missing("layer_kind", layer.name, missing, known=known, what=type(layer.synapse).__name__)


def _count_missing(resource: str, where: str, missing: Sequence[Unsupported], *, known: bool, what: Any = "") -> BudgetRow:
    """Return the row of something that the chip has or has not; the remedies are those of the findings."""
    used = len(missing) if known or missing else None
    return BudgetRow(
        resource=resource,
        where=where,
        used=used,
        limit=0,
        unit=THING,
        status=classify_use(used, 0, capacity=False),
        remedy="; ".join(finding.remedy or finding.reason for finding in missing),
        detail="; ".join(f"{finding.what}: {finding.why}" for finding in missing) or str(what),
    )
