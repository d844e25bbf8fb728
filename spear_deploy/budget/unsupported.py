"""Parts of a network that a chip lacks, whatever their size.

Each finding names the layer, what it has, and why the chip cannot hold it. Batch norm folds into the weights before it, pools
fold into the layer behind them (or, where the chip pools by itself, into the one in front), and a readout that only integrates
(LI) is a neuron that never spikes: all of that is fine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from spear_deploy.budget.geometry import check_dense_maps, check_geometry, check_kernels, check_weightless
from spear_deploy.budget.pools import check_pools
from spear_deploy.frameworks.reset_words import name_resets
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import (
    RESET_WORDS,
    WEIGHTED,
    Layer,
    LoihiLIF,
    array_parameters,
    find_max_spikes,
    resets_late,
)
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.neurons import SAME_TAU, TIME_CONSTANT_WORDS, needs_no_current
from spear_deploy.placement.populations import Population, ends_in_weighted_sum
from spear_deploy.placement.weight_bits import MAX_BIAS_EXPONENT, bias_bits, count_mixed_sign_inputs, measure_width
from spear_deploy.quantize import FORMATS
from spear_deploy.quantize.even_neurons import find_uneven
from spear_deploy.quantize.integer_layers import MAX_SPIKES, RESET_DELAY
from spear_deploy.quantize.shared_cells import CELL_LIMITS, ONE_CELL, find_shared_cells
from spear_deploy.util.number_format import join_names, plural, write_steps

LOOP = "a loop without neurons"
WEIGHTED_SUM = "a weighted sum as output"


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Something the chip does not have.

    Attributes:
        layer: name of the layer that needs it.
        what: what the layer has.
        reason: what the chip has instead.
        remedy: what to do; empty where nothing but another layer helps.
        resource: the row of the check that counts it.
    """

    layer: str
    what: str
    reason: str
    remedy: str = ""
    resource: str = "layer_kind"

    @property
    def why(self) -> str:
        """What the chip has instead, and what to do."""
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason

    def to_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"layer": self.layer, "what": self.what, "why": self.why}


LATE_RESET = "a reset one step late"
SEVERAL_SPIKES = "several spikes in a step"
"""What `Replaced` names."""


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """Something the chip does in another way, which quantization puts in place: the network runs, with other spikes.

    Attributes:
        layer: name of the layer.
        what: what the layer has.
        by: what the chip does instead.
    """

    layer: str
    what: str
    by: str

    def to_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return dict(vars(self))


def find_replaced(graph: SNNGraph, profile: HardwareProfile) -> tuple[Replaced, ...]:
    """Return the resets one step late that come in the step of the spike on the chip, and the layers that may send more spikes.

    A chip that cannot subtract has no late resets. In integers both have changed, as the findings of the quantization say.
    """
    return (*_find_late_resets(graph, profile), *_find_several_spikes(graph, profile))


def _find_late_resets(graph: SNNGraph, profile: HardwareProfile) -> tuple[Replaced, ...]:
    resets = profile.neuron.resets.value
    if profile.neuron.late_reset.value is not False or (resets is not None and "subtract" not in resets):
        return ()
    findings = graph.metadata.get("quantization", {}).get("findings", ())
    moved = {finding["layer"] for finding in findings if finding["what"] == RESET_DELAY}
    late = [layer.name for layer in graph.layers if resets_late(layer.neuron) or layer.name in moved]
    return tuple(Replaced(layer=name, what=LATE_RESET, by="a reset in the step of the spike") for name in late)


def _find_several_spikes(graph: SNNGraph, profile: HardwareProfile) -> tuple[Replaced, ...]:
    limit = profile.neuron.max_spikes_per_step.max_value
    findings = graph.metadata.get("quantization", {}).get("findings", ())
    stored = {finding["layer"]: finding["stored"] for finding in findings if finding["what"] == MAX_SPIKES}
    if limit is not None and not graph.is_integer:
        for layer in graph.layers:
            most = find_max_spikes(layer.neuron)
            if layer.spikes and (most is None or most > limit):
                stored[layer.name] = int(limit)
    return tuple(
        Replaced(layer=name, what=SEVERAL_SPIKES, by="one spike" if most == 1 else f"up to {most} spikes")
        for name, most in stored.items()
    )


def find_unsupported(graph: SNNGraph, profile: HardwareProfile, populations: Sequence[Population]) -> tuple[Unsupported, ...]:
    """Return everything the chip does not have, in the graph's order.

    Args:
        graph: the network.
        profile: the chip; a limit that is not published forbids nothing here.
        populations: its populations.
    """
    delays = {population.name: list(_check_delays(population, profile)) for population in populations}
    outputs = {population.name for population in populations if population.output}
    outer = {population.name: list(_check_output_layer(population, outputs, profile)) for population in populations}
    maps = [*check_pools(graph, profile), *check_dense_maps(populations, profile), *check_kernels(populations, profile)]
    maps += check_weightless(graph, populations, profile)
    cells = _check_shared_cells(graph, profile)
    input_layers = {p.layer for population in populations if population.is_input_layer for p in population.projections}
    findings: list[Unsupported] = []
    if not populations:
        reason, remedy = "nothing would lie on a core", "add a layer with neurons"
        findings.append(Unsupported(layer=graph.output, what="a network without neurons", reason=reason, remedy=remedy))
    for layer in graph.layers:
        shapes = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
        of_layer = [lack for name, *lack in maps if name == layer.name]
        for what, reason, remedy in (*check_geometry(layer, *shapes, profile), *of_layer):
            findings.append(Unsupported(layer=layer.name, what=what, reason=reason, remedy=remedy))
        findings += _check_weights(graph, layer, profile, stored=layer.name not in input_layers and graph.is_integer)
        findings += cells.get(layer.name, [])
        findings += _check_neuron(graph, layer, profile)
        if layer.name == graph.output and ends_in_weighted_sum(graph):
            findings += _check_weighted_sum(layer, profile)
        findings += _check_time_constants(layer, profile, graph.dt_s)
        findings += _check_shared_constants(graph, layer, profile)
        findings += _check_values(graph, layer)
        findings += _check_recurrence(graph, layer, profile)
        findings += outer.get(layer.name, [])
        findings += delays.get(layer.name, [])
    return tuple(findings)


def list_extra_delays(population: Population, profile: HardwareProfile) -> list[tuple[str, int]]:
    """Return the sources with the steps that their spikes are delayed beyond what the chip does by itself, each pair once.

    A source may reach the neurons through several layers of weights, with a delay of its own on each way.
    """
    is_async = profile.timing.mode.value == "async"
    sources = [source for projection in population.projections for source in projection.sources]
    return list(dict.fromkeys((s.name, s.async_delay_steps if is_async else s.delay_steps) for s in sources))


# ------------------------------------------------------------------------------------------------------------ inside


def _check_weights(graph: SNNGraph, layer: Layer, profile: HardwareProfile, *, stored: bool) -> Iterator[Unsupported]:
    synapse, widths = layer.synapse, profile.weights.bits.value
    if not isinstance(synapse, WEIGHTED):
        return
    if stored and widths:
        need, max_bits = measure_width(graph, synapse), max(widths)
        if need > max_bits:
            reason, remedy = f"{profile.name} stores up to {max_bits} bits", f"quantise the network to {max_bits} bits"
            yield Unsupported(
                layer=layer.name, what=f"weights of {need} bits", reason=reason, remedy=remedy, resource="weight_bits"
            )
    if profile.weights.sign.value == "presynaptic":
        mixed = count_mixed_sign_inputs(synapse.weight)
        if mixed:
            what = f"{plural(mixed, 'source')} with weights of both signs"
            reason = f"a source on {profile.name} has one sign"
            remedy = f"send each twice, once for each sign ({plural(mixed, 'input')} more)"
            yield Unsupported(layer=layer.name, what=what, reason=reason, remedy=remedy, resource="weight_sign")


def _check_shared_cells(graph: SNNGraph, profile: HardwareProfile) -> dict[str, list[Unsupported]]:
    """Return by neuron layer the sums of integer weights that a weight of the chip from a neuron to another cannot hold."""
    family, findings = profile.meta.family, dict[str, list[Unsupported]]()
    if not graph.is_integer or family not in CELL_LIMITS or find_chip_format(graph) != family:
        return findings
    each_way = "" if family in ONE_CELL else " on each way"
    low, high = CELL_LIMITS[family]
    for name, cells in find_shared_cells(graph, family).items():
        for shared in cells:
            least, most = shared.find_range({}, shared.find_shift())
            if low <= least and most <= high:
                continue
            names = join_names([f"'{layer}'" for layer in shared.weighted])
            source = "the input" if shared.source == INPUT else f"'{shared.source}'"
            what = f"weights of {names} from {source} that add up to {least if least < low else most:g}"
            findings.setdefault(name, []).append(
                Unsupported(
                    layer=name,
                    what=what,
                    reason=f"{profile.name} has one weight of {low} to {high} from a neuron to another{each_way}",
                    remedy="quantise the floating-point network again, or merge the layers",
                    resource="integers",
                )
            )
    return findings


def _check_neuron(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    neuron, chip = layer.neuron, profile.neuron
    if neuron is None:
        return
    model = type(neuron).__name__
    if chip.models.value is not None and model not in chip.models.value:
        reason = f"{profile.name} has {', '.join(chip.models.value)}"
        yield Unsupported(layer=layer.name, what=model, reason=reason, resource="neuron_model")
    reset = getattr(neuron, "reset", "value")
    if layer.spikes and hasattr(neuron, "reset") and chip.resets.value is not None and reset not in chip.resets.value:
        has = [other for other in chip.resets.value if other != "none"]
        how = " or ".join(RESET_WORDS[other] for other in has)
        yield Unsupported(
            layer=layer.name,
            what={"value": "reset by value", "subtract": "reset by subtraction"}.get(reset, "no reset after a spike"),
            reason=f"the stock neuron of {profile.name} resets {how}",
            remedy=f"train with {name_resets(graph, has)}",
            resource="reset",
        )
    rest = neuron.refractory_steps if isinstance(neuron, LoihiLIF) else 0
    max_rest = chip.refractory_max_steps.max_value
    if max_rest is not None and rest > max_rest:
        reason = f"the stock neuron of {profile.name} rests at most {max_rest}"
        yield Unsupported(
            layer=layer.name, what=f"refractory time of {plural(rest, 'step')}", reason=reason, resource="refractory"
        )
    bits = chip.bias_bits.max_value
    if isinstance(neuron, LoihiLIF) and bits is not None and (need := bias_bits(neuron.bias)) > bits:
        reason, remedy = f"{profile.name} holds {bits} bits times 2^0 to 2^{MAX_BIAS_EXPONENT}", "round it to fewer bits"
        yield Unsupported(layer=layer.name, what=f"a bias of {need} bits", reason=reason, remedy=remedy, resource="bias_bits")


def _check_weighted_sum(layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    """Find a weighted sum at the output; a readout of one step holds it, where the chip has one."""
    models, shortest = profile.neuron.models.value, profile.neuron.tau_above_steps.value
    if models is None:
        return
    reason = remedy = ""
    if not {"LI", "CubaLI"} & set(models):
        reason = f"{profile.name} has {', '.join(models)}, of which spikes are read alone"
        remedy = "end the network in neurons whose spikes are counted"
    elif shortest is not None and shortest >= 1:
        reason = f"readouts on {profile.name} keep longer than {plural(int(shortest), 'step')}"
        remedy = "end the network in one (LI)"
    elif profile.meta.family in FORMATS:
        reason = f"the integers of {profile.name} hold values in neurons alone"
        remedy = "end the network in a readout of one step (LI)"
    if reason:
        yield Unsupported(layer=layer.name, what=WEIGHTED_SUM, reason=reason, remedy=remedy, resource="neuron_model")


def _check_time_constants(layer: Layer, profile: HardwareProfile, dt_s: float) -> Iterator[Unsupported]:
    """Find time constants that are no longer than the chip's shortest, or longer than its longest."""
    yield from _check_spiking_time_constants(layer, profile, dt_s)
    longest = profile.neuron.tau_max_steps.max_value
    parameters = {} if layer.neuron is None else array_parameters(layer.neuron)
    for name, values in parameters.items():
        if longest is not None and name.startswith("tau") and (values > longest * dt_s * (1 + SAME_TAU)).any():
            what = f"{TIME_CONSTANT_WORDS.get(name, name)} of {write_steps(float(values.max()) / dt_s)}"
            reason, remedy = f"time constants on {profile.name} last {plural(int(longest), 'step')} at most", "shorten it"
            yield Unsupported(layer=layer.name, what=what, reason=reason, remedy=remedy, resource="time_constant")
    shortest = profile.neuron.tau_above_steps.value
    if shortest is None:
        return
    for name, values in parameters.items():
        is_short = values <= shortest * dt_s * (1 + SAME_TAU)
        if name == "tau_syn_s" and layer.neuron is not None:
            is_short = is_short & ~needs_no_current(layer.neuron, dt_s, profile.neuron.models.value)
        if name.startswith("tau") and is_short.any():
            what = f"{TIME_CONSTANT_WORDS.get(name, name)} of {write_steps(float(values.min()) / dt_s)}"
            reason = f"time constants on {profile.name} are longer than {shortest:g} of its steps"
            remedy = "lengthen it or shorten dt_s"
            yield Unsupported(layer=layer.name, what=what, reason=reason, remedy=remedy, resource="time_constant")


def _check_spiking_time_constants(layer: Layer, profile: HardwareProfile, dt_s: float) -> Iterator[Unsupported]:
    """Find membranes of spiking neurons whose time constant is below the chip's shortest."""
    shortest = profile.neuron.tau_spiking_min_steps.value
    if shortest is None or layer.neuron is None or not layer.spikes:
        return
    for name, values in array_parameters(layer.neuron).items():
        if name in ("tau_s", "tau_mem_s") and (values < shortest * dt_s * (1 - SAME_TAU)).any():
            what = f"{TIME_CONSTANT_WORDS.get(name, name)} of {write_steps(float(values.min()) / dt_s)}"
            reason, remedy = f"spiking neurons of {profile.name} have {shortest:g} steps or more", "lengthen it or shorten dt_s"
            yield Unsupported(layer=layer.name, what=what, reason=reason, remedy=remedy, resource="time_constant")


def _check_shared_constants(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    """Find thresholds, time constants and gains that differ between neurons which share them on the chip."""
    sharing = profile.neuron.constants_of.value or "neuron"
    uneven = find_uneven(graph, layer, sharing, profile.meta.family)
    if uneven is not None:
        reason, group = f"{profile.name} has one for each {uneven.sharing}", uneven.sharing
        if sharing == "neuron":
            reason = f"weights of {profile.name} hold one gain for each channel, and a readout's value has no other unit"
            group = "channel"
        remedy = f"train with one value for each {group}"
        yield Unsupported(layer=layer.name, what=uneven.describe(), reason=reason, remedy=remedy, resource="neuron_constants")


def _check_output_layer(population: Population, outputs: Collection[str], profile: HardwareProfile) -> Iterator[Unsupported]:
    """Find input that goes straight to the output layer, and spikes of the output layer that go to neurons."""
    sources = dict.fromkeys(source.name for p in population.projections for source in p.sources)
    rules = profile.connectivity
    if rules.input_to_readout.value is False and population.output and INPUT in sources:
        reason, remedy = f"output neurons of {profile.name} read hidden neurons alone", "put a hidden layer in between"
        yield Unsupported(
            layer=population.name,
            what="an output layer that reads the input",
            reason=reason,
            remedy=remedy,
            resource="hidden_layer",
        )
    if rules.recurrent_readout.value is False:
        for name in sources:
            if name in outputs:
                what = f"spikes of the output layer '{name}' as input"
                reason, remedy = f"output neurons of {profile.name} feed no neurons", "feed back from a hidden layer"
                yield Unsupported(layer=population.name, what=what, reason=reason, remedy=remedy, resource="recurrent")


def _check_values(graph: SNNGraph, layer: Layer) -> Iterator[Unsupported]:
    """Find state without neurons, and values (not spikes) that would have to travel between cores."""
    if layer.neuron is None and _has_loop(graph, layer.name, layer.name, ()):
        reason, remedy = "a chip keeps state in neurons only", "put a neuron (LI) into the loop"
        yield Unsupported(layer=layer.name, what=LOOP, reason=reason, remedy=remedy)
        return
    has_weights = isinstance(layer.synapse, WEIGHTED)
    for edge in graph.edges_into(layer.name) if has_weights or layer.neuron is not None else ():
        for name in _value_sources(graph, edge.source, ()):
            if graph[name].neuron is not None:
                what, reason = f"the readout '{name}' feeds it", "only spikes travel between cores"
                remedy = "let a spiking neuron feed it"
            elif has_weights:
                what, reason = f"weights behind the weights of '{name}'", "no neuron lies between"
                remedy = "merge the two layers into one"
            else:
                continue  # neurons take the currents of weights
            yield Unsupported(layer=layer.name, what=what, reason=reason, remedy=remedy)


def find_feedback(graph: SNNGraph, layer: Layer) -> list[str]:
    """Return the sources of spikes that return to a layer which they have passed."""
    return [e.source for e in graph.edges_into(layer.name) if e.delay and graph.leads_to(layer.name, e.source)]


def _check_recurrence(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    if profile.connectivity.recurrent.value is not False:
        return
    for source in find_feedback(graph, layer):
        reason = f"spikes on {profile.name} do not return to a layer they have passed"
        remedy = "unroll the loop or train without it"
        yield Unsupported(layer=layer.name, what=f"feedback from '{source}'", reason=reason, remedy=remedy, resource="recurrent")


def _has_loop(graph: SNNGraph, start: str, name: str, passed: tuple[str, ...]) -> bool:
    """Return whether a layer feeds itself through layers without neurons."""
    for edge in graph.edges_into(name):
        if edge.source == start:
            return True
        if edge.source == INPUT or edge.source in passed or graph[edge.source].neuron is not None:
            continue
        if _has_loop(graph, start, edge.source, (*passed, edge.source)):
            return True
    return False


def _value_sources(graph: SNNGraph, name: str, passed: tuple[str, ...]) -> Iterator[str]:
    if name == INPUT or name in passed:
        return
    layer = graph[name]
    if layer.neuron is not None:
        if not layer.spikes:
            yield name
    elif isinstance(layer.synapse, WEIGHTED):
        yield name
    else:
        for edge in graph.edges_into(name):
            yield from _value_sources(graph, edge.source, (*passed, name))


def _check_delays(population: Population, profile: HardwareProfile) -> Iterator[Unsupported]:
    max_delay = profile.weights.delay_max_steps.max_value
    for source, delay in list_extra_delays(population, profile):
        if delay < 0:
            what = f"feedback from '{source}' that arrives {plural(-delay, 'step')} too early"
            reason, remedy = f"each layer on {profile.name} takes a step", f"give the edge a delay of {-delay} more"
            yield Unsupported(layer=population.name, what=what, reason=reason, remedy=remedy, resource="delay")
        elif max_delay is not None and delay > max_delay:
            what = f"a delay of {plural(delay, 'step')} from '{source}'"
            yield Unsupported(
                layer=population.name,
                what=what,
                reason=f"{profile.name} delays at most {plural(int(max_delay), 'step')}",
                resource="delay",
            )
