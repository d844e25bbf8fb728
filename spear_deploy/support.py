"""What of a network cannot exist on this chip, whatever its size?

Each finding names the layer, what it is, and why it cannot be. Batch norm folds into the weights before it, pools fold into
the layer behind them, and a readout that only integrates (LI) is a neuron that never spikes: all of that is fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from spear_deploy.graph import INPUT, SNNGraph
from spear_deploy.layers import CONVS, WEIGHTED, Layer, LoihiLIF
from spear_deploy.populations import Population
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.synapse_memory import list_bits

LOOP = "a loop without neurons"


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Something the chip does not have."""

    layer: str
    what: str
    why: str

    def to_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return asdict(self)


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
        findings += _synapse(layer, profile, stored=layer.name not in plain_inputs and graph.is_integer)
        findings += _neuron(layer, profile)
        findings += _flow(graph, layer)
        findings += delays.get(layer.name, [])
    return tuple(findings)


def _synapse(layer: Layer, profile: HardwareProfile, *, stored: bool) -> Iterator[Unsupported]:
    synapse, kinds = layer.synapse, profile.layers.kinds.value
    if synapse is None:
        return
    kind = type(synapse).__name__
    if kinds is not None and kind not in kinds:
        yield Unsupported(layer=layer.name, what=kind, why=f"{profile.name} maps {', '.join(kinds)}; replace the layer")
    if isinstance(synapse, CONVS):
        given = {
            "dilation": max(synapse.dilation),
            "groups": synapse.groups,
            "stride": max(synapse.stride),
            "kernel": max(synapse.weight.shape[2:]),
        }
        for name, value in given.items():
            most = getattr(profile.layers, f"conv_{name}_max").value
            if most is not None and value > most:
                yield Unsupported(
                    layer=layer.name, what=f"{kind} with {name} {value}", why=f"{profile.name} allows {name} up to {most}"
                )
    if stored and isinstance(synapse, WEIGHTED) and profile.weights.bits.value:
        need, most = list_bits(synapse.weight), max(profile.weights.bits.value)
        if need > most:
            yield Unsupported(
                layer=layer.name,
                what=f"weights of {need} bits",
                why=f"{profile.name} stores up to {most} bits; quantise the network to {most} bits",
            )


def _neuron(layer: Layer, profile: HardwareProfile) -> Iterator[Unsupported]:
    neuron, chip = layer.neuron, profile.neuron
    if neuron is None:
        return
    model = type(neuron).__name__
    if chip.models.value is not None and model not in chip.models.value:
        yield Unsupported(layer=layer.name, what=model, why=f"{profile.name} has {', '.join(chip.models.value)}")
    reset = getattr(neuron, "reset", "value")
    if layer.spikes and chip.resets.value is not None and reset not in chip.resets.value:
        yield Unsupported(
            layer=layer.name,
            what=f"reset by {'subtraction' if reset == 'subtract' else 'value'}",
            why=f"the stock neuron of {profile.name} resets to a value; train with reset='value'",
        )
    rest = neuron.refractory_steps if isinstance(neuron, LoihiLIF) else 0
    most = chip.refractory_max_steps.value
    if most is not None and rest > most:
        why = f"the stock neuron of {profile.name} rests at most {most}"
        yield Unsupported(layer=layer.name, what=f"refractory time of {rest} steps", why=why)


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
    most = profile.weights.delay_max_steps.value
    for projection in population.projections:
        for source in projection.sources:
            if source.wait_steps < 0:
                yield Unsupported(
                    layer=population.name,
                    what=f"feedback from '{source.name}' that arrives {-source.wait_steps} steps too early",
                    why=f"each layer on {profile.name} takes a step; give the edge a delay of {-source.wait_steps} more",
                )
            elif most is not None and source.wait_steps > most:
                yield Unsupported(
                    layer=population.name,
                    what=f"a delay of {source.wait_steps} steps from '{source.name}'",
                    why=f"{profile.name} delays at most {most} steps",
                )
