"""What of a network cannot exist on this chip, whatever its size?

Each finding names the layer, what it is, and why it cannot be. Batch norm folds into the weights before it, pools fold into
the layer behind them (or, where the chip pools by itself, into the one in front), and a readout that only integrates (LI) is
a neuron that never spikes: all of that is fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spear_deploy.budget.geometry import geometry_findings
from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import WEIGHTED, Layer, LoihiLIF
from spear_deploy.populations import Population
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.weight_widths import MAX_BIAS_EXPONENT, bias_bits, list_bits, mixed_signs

LOOP = "a loop without neurons"


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Something the chip does not have.

    Attributes:
        resource: the row of the check that counts it.
    """

    layer: str
    what: str
    why: str
    resource: str = "layer_kind"

    def to_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"layer": self.layer, "what": self.what, "why": self.why}


def unsupported(graph: SNNGraph, profile: HardwareProfile, found: Sequence[Population]) -> tuple[Unsupported, ...]:
    """Return everything the chip does not have, in the graph's order.

    Args:
        graph: the network.
        profile: the chip; a limit that is not published forbids nothing here.
        found: its populations.
    """
    delays = {population.name: list(_delays(population, profile)) for population in found}
    plain_inputs = {p.layer for population in found if population.is_input_layer for p in population.projections}
    findings: list[Unsupported] = []
    if not found:
        why = "nothing would lie on a core; add a layer with neurons"
        findings.append(Unsupported(layer=graph.output, what="a network without neurons", why=why))
    for layer in graph.layers:
        given = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
        findings += [Unsupported(layer=layer.name, what=what, why=why) for what, why in geometry_findings(layer, *given, profile)]
        findings += _weights(layer, profile, stored=layer.name not in plain_inputs and graph.is_integer)
        findings += _neuron(layer, profile)
        findings += _flow(graph, layer)
        findings += _recurrence(graph, layer, profile)
        findings += delays.get(layer.name, [])
    return tuple(findings)


def waits(population: Population, profile: HardwareProfile) -> dict[str, int]:
    """Return by source how many steps its spikes wait for a population beyond what the chip does by itself."""
    async_chip = profile.timing.mode.value == "async"
    return {s.name: s.held_steps if async_chip else s.wait_steps for p in population.projections for s in p.sources}


# ------------------------------------------------------------------------------------------------------------ inside


def _weights(layer: Layer, profile: HardwareProfile, *, stored: bool) -> Iterator[Unsupported]:
    synapse, widths = layer.synapse, profile.weights.bits.value
    if not isinstance(synapse, WEIGHTED):
        return
    if stored and widths:
        need, most = list_bits(synapse.weight), max(widths)
        if need > most:
            why = f"{profile.name} stores up to {most} bits; quantise the network to {most} bits"
            yield Unsupported(layer=layer.name, what=f"weights of {need} bits", why=why, resource="weight_bits")
    if profile.weights.sign.value == "presynaptic":
        mixed = mixed_signs(synapse.weight)
        if mixed:
            what = f"{mixed} sources with weights of both signs"
            why = f"a source on {profile.name} has one sign; send each twice, once for each sign ({mixed} inputs more)"
            yield Unsupported(layer=layer.name, what=what, why=why, resource="weight_sign")


def _neuron(layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    neuron, chip = layer.neuron, profile.neuron
    if neuron is None:
        return
    model = type(neuron).__name__
    if chip.models.value is not None and model not in chip.models.value:
        why = f"{profile.name} has {', '.join(chip.models.value)}"
        yield Unsupported(layer=layer.name, what=model, why=why, resource="neuron_model")
    reset = getattr(neuron, "reset", "value")
    if layer.spikes and hasattr(neuron, "reset") and chip.resets.value is not None and reset not in chip.resets.value:
        subtracts = reset == "subtract"
        other = ("to a value", "value") if subtracts else ("by subtraction", "subtract")
        yield Unsupported(
            layer=layer.name,
            what=f"reset by {'subtraction' if subtracts else 'value'}",
            why=f"the stock neuron of {profile.name} resets {other[0]}; train with reset='{other[1]}'",
            resource="reset",
        )
    rest = neuron.refractory_steps if isinstance(neuron, LoihiLIF) else 0
    most = chip.refractory_max_steps.most
    if most is not None and rest > most:
        why = f"the stock neuron of {profile.name} rests at most {most}"
        yield Unsupported(layer=layer.name, what=f"refractory time of {rest} steps", why=why, resource="refractory")
    bits = chip.bias_bits.most
    if isinstance(neuron, LoihiLIF) and bits is not None and (need := bias_bits(neuron.bias)) > bits:
        why = f"{profile.name} holds {bits} bits times 2^0 to 2^{MAX_BIAS_EXPONENT}; round it to fewer bits"
        yield Unsupported(layer=layer.name, what=f"a bias of {need} bits", why=why, resource="bias_bits")


def _flow(graph: SNNGraph, layer: Layer) -> Iterator[Unsupported]:
    """Find state without neurons, and values (not spikes) that would have to travel between cores."""
    if layer.neuron is None and _loops(graph, layer.name, layer.name, ()):
        why = "a chip keeps state in neurons only; put a neuron (LI) into the loop"
        yield Unsupported(layer=layer.name, what=LOOP, why=why)
        return
    if not isinstance(layer.synapse, WEIGHTED):
        return
    for edge in graph.incoming(layer.name):
        for name in _value_sources(graph, edge.source, (layer.name,)):
            if graph[name].neuron is None:
                what, why = f"weights behind the weights of '{name}'", "no neuron lies between; merge the two layers into one"
            else:
                what, why = f"the readout '{name}' feeds it", "only spikes travel between cores; let a spiking neuron feed it"
            yield Unsupported(layer=layer.name, what=what, why=why)


def _recurrence(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    if profile.connectivity.recurrent.value is not False:
        return
    order = [INPUT, *(each.name for each in graph.layers)]
    for edge in graph.incoming(layer.name):
        if edge.delay and order.index(edge.source) >= order.index(layer.name):
            why = f"spikes on {profile.name} do not return to a layer they have passed; unroll the loop or train without it"
            yield Unsupported(layer=layer.name, what=f"feedback from '{edge.source}'", why=why, resource="recurrent")


def _loops(graph: SNNGraph, start: str, name: str, passed: tuple[str, ...]) -> bool:
    """Say whether a layer feeds itself through layers without neurons."""
    for edge in graph.incoming(name):
        if edge.source == start:
            return True
        if edge.source == INPUT or edge.source in passed or graph[edge.source].neuron is not None:
            continue
        if _loops(graph, start, edge.source, (*passed, edge.source)):
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
        for edge in graph.incoming(name):
            yield from _value_sources(graph, edge.source, (*passed, name))


def _delays(population: Population, profile: HardwareProfile) -> Iterator[Unsupported]:
    most = profile.weights.delay_max_steps.most
    for source, wait in waits(population, profile).items():
        if wait < 0:
            what = f"feedback from '{source}' that arrives {-wait} steps too early"
            why = f"each layer on {profile.name} takes a step; give the edge a delay of {-wait} more"
            yield Unsupported(layer=population.name, what=what, why=why, resource="delay")
        elif most is not None and wait > most:
            what = f"a delay of {wait} steps from '{source}'"
            yield Unsupported(
                layer=population.name, what=what, why=f"{profile.name} delays at most {most} steps", resource="delay"
            )
