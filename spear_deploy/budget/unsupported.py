"""What of a network cannot exist on this chip, whatever its size?

Each finding names the layer, what it is, and why it cannot be. Batch norm folds into the weights before it, pools fold into
the layer behind them (or, where the chip pools by itself, into the one in front), and a readout that only integrates (LI) is
a neuron that never spikes: all of that is fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spear_deploy.hardware.schema import HardwareProfile, LayerKinds
from spear_deploy.network import CONVS, POOLS, WEIGHTED, Dense, Layer, LoihiLIF, Shape
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.placement.populations import Population
from spear_deploy.placement.weight_bits import MAX_BIAS_EXPONENT, bias_bits, count_mixed_sign_inputs, list_bits

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


def find_unsupported(graph: SNNGraph, profile: HardwareProfile, found: Sequence[Population]) -> tuple[Unsupported, ...]:
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
        findings += [Unsupported(layer=layer.name, what=what, why=why) for what, why in check_geometry(layer, *given, profile)]
        findings += _weights(layer, profile, stored=layer.name not in plain_inputs and graph.is_integer)
        findings += _neuron(layer, profile)
        findings += _flow(graph, layer)
        findings += _recurrence(graph, layer, profile)
        findings += delays.get(layer.name, [])
    return tuple(findings)


def count_extra_delays(population: Population, profile: HardwareProfile) -> dict[str, int]:
    """Return by source how many steps its spikes wait for a population beyond what the chip does by itself."""
    async_chip = profile.timing.mode.value == "async"
    return {s.name: s.async_delay_steps if async_chip else s.delay_steps for p in population.projections for s in p.sources}


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
        mixed = count_mixed_sign_inputs(synapse.weight)
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
    most = chip.refractory_max_steps.max_value
    if most is not None and rest > most:
        why = f"the stock neuron of {profile.name} rests at most {most}"
        yield Unsupported(layer=layer.name, what=f"refractory time of {rest} steps", why=why, resource="refractory")
    bits = chip.bias_bits.max_value
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
    for edge in graph.edges_into(layer.name):
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
    for edge in graph.edges_into(layer.name):
        if edge.delay and order.index(edge.source) >= order.index(layer.name):
            why = f"spikes on {profile.name} do not return to a layer they have passed; unroll the loop or train without it"
            yield Unsupported(layer=layer.name, what=f"feedback from '{edge.source}'", why=why, resource="recurrent")


def _loops(graph: SNNGraph, start: str, name: str, passed: tuple[str, ...]) -> bool:
    """Say whether a layer feeds itself through layers without neurons."""
    for edge in graph.edges_into(name):
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
        for edge in graph.edges_into(name):
            yield from _value_sources(graph, edge.source, (*passed, name))


def _delays(population: Population, profile: HardwareProfile) -> Iterator[Unsupported]:
    most = profile.weights.delay_max_steps.max_value
    for source, wait in count_extra_delays(population, profile).items():
        if wait < 0:
            what = f"feedback from '{source}' that arrives {-wait} steps too early"
            why = f"each layer on {profile.name} takes a step; give the edge a delay of {-wait} more"
            yield Unsupported(layer=population.name, what=what, why=why, resource="delay")
        elif most is not None and wait > most:
            what = f"a delay of {wait} steps from '{source}'"
            yield Unsupported(
                layer=population.name, what=what, why=f"{profile.name} delays at most {most} steps", resource="delay"
            )


# FOLDED from spear_deploy/budget/unsupported.py
# Which connections of a network are of a kind or a size that the chip cannot map?

LIMITED = ("dilation", "groups", "stride", "kernel", "padding")
INSTEAD = {
    "Conv1d": "a Conv2d whose kernel is 1 high",
    "Conv2d": "a Dense of the same weights, written out",
    "Scale": "fold it into the weights behind it",
    "SumPool": "a convolution with a stride",
    "AvgPool": "a SumPool, its factor in the weights behind it",
    "Dense": "a Conv2d whose kernel is the map",
    "Flatten": "a Conv2d whose kernel is the map",
}


def check_geometry(layer: Layer, before: Shape, after: Shape, profile: HardwareProfile) -> Iterator[tuple[str, str]]:
    """Yield what a layer's connection is that the chip does not have, and why.

    Args:
        layer: a row of the network.
        before, after: shapes of what it takes and of what it gives.
        profile: the chip; what is not published restricts nothing.
    """
    synapse, sizes = layer.synapse, profile.layers
    if synapse is None:
        return
    kind = type(synapse).__name__
    if sizes.kinds.value is not None and kind not in sizes.kinds.value:
        yield kind, f"{profile.name} maps {', '.join(sizes.kinds.value)}; {_instead(kind, sizes)}"
    if isinstance(synapse, CONVS):
        given = {
            "dilation": max(synapse.dilation),
            "groups": synapse.groups,
            "stride": max(synapse.stride),
            "kernel": max(synapse.weight.shape[2:]),
            "padding": max(synapse.padding),
        }
        yield from _beyond(kind, given, profile)
        yield from _sets(kind, synapse.weight.shape[2:], synapse.stride, sizes, profile.name)
        same = tuple(-(-n // s) for n, s in zip(before[1:], synapse.stride, strict=True))
        if sizes.conv_padding_same.value and after[1:] != same:
            what = f"{kind} that gives {_by(after[1:])} positions of {_by(before[1:])}"
            yield what, f"{profile.name} pads so that {_by(same)} come out; train with padding 'same'"
    elif isinstance(synapse, Dense) and profile.synapse_memory.format.value == "pow2_kernel" and len(before) == 3:
        given = {"kernel": max(before[1:])}
        what = f"Dense behind a map of {_by(before[1:])}, a convolution with"
        yield from _beyond(what, given, profile)
        yield from _sets(what, before[1:], (), sizes, profile.name)
    elif isinstance(synapse, POOLS):
        yield from _pool(kind, synapse.kernel_size, synapse.stride or synapse.kernel_size, sizes, profile.name)


def find_unchecked_geometry(layer: Layer, profile: HardwareProfile) -> list[str]:
    """Return what a layer has out of the ordinary that the chip's maker says nothing about: dilation, groups."""
    if not isinstance(layer.synapse, CONVS):
        return []
    given = {"dilation": max(layer.synapse.dilation), "groups": layer.synapse.groups}
    unsaid = [name for name, value in given.items() if value > 1 and getattr(profile.layers, f"conv_{name}_max").value is None]
    return [f"{name} {given[name]}" for name in unsaid]


# ------------------------------------------------------------------------------------------------------------ inside


def _beyond(kind: str, given: dict[str, int], profile: HardwareProfile) -> Iterator[tuple[str, str]]:
    for name in LIMITED:
        leaf = getattr(profile.layers, f"conv_{name}_max")
        most = leaf.value if isinstance(leaf.value, int) else None
        if most is not None and given.get(name, 0) > most:
            joint = "" if kind.endswith("with") else " with"
            yield f"{kind}{joint} {name} {given[name]}", f"{profile.name} allows {name} up to {most}"


def _sets(kind: str, kernel: Shape, stride: Shape, sizes: LayerKinds, chip: str) -> Iterator[tuple[str, str]]:
    joint = "" if kind.endswith("with") else " with"
    for name, values, allowed in (
        ("kernel", kernel, sizes.conv_kernel_sizes.value),
        ("stride", stride, sizes.conv_stride_sizes.value),
    ):
        most = getattr(sizes, f"conv_{name}_max").value
        beyond = isinstance(most, int) and any(value > most for value in values)
        if allowed is not None and not beyond and any(value not in allowed for value in values):
            yield f"{kind}{joint} {name} {_by(values)}", f"{chip} has {name}s of {', '.join(map(str, allowed))}"
    if sizes.conv_kernel_square.value and len(set(kernel)) > 1:
        yield (
            f"{kind}{joint} kernel {_by(kernel)}",
            f"{chip} has square kernels; pad the kernel with zeros to {_by((max(kernel),) * 2)}",
        )


def _pool(kind: str, window: Shape, stride: Shape, sizes: LayerKinds, chip: str) -> Iterator[tuple[str, str]]:
    allowed = sizes.pool_sizes.value
    if allowed is not None and any(n not in allowed for n in window):
        yield f"{kind} of {_by(window)}", f"{chip} pools over {', '.join(map(str, allowed))}; use one of them, or a stride"
    elif sizes.pool_square.value and (len(set(window)) > 1 or tuple(stride) != tuple(window)):
        yield f"{kind} of {_by(window)} at stride {_by(stride)}", f"{chip} has square windows that do not overlap"


def _instead(kind: str, sizes: LayerKinds) -> str:
    """Say what may stand in place of a connection."""
    other = INSTEAD.get(kind, "")
    named = [name for name in INSTEAD if f"a {name}" in other]
    possible = sizes.kinds.value or ()
    return f"use {other}" if other.startswith("a ") and all(n in possible for n in named) and named else "replace the layer"


def _by(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)
