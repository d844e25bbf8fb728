"""Populations, connections and start steps of a network in Lava.

Whatever Lava cannot do exactly is refused here, with the layer's name, before any process starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.convolution import check_conv, count_conv_synapses, max_conv_gain
from spear_deploy.lava.formats import Plane, split_into_planes, to_lava_parameters
from spear_deploy.lava.linear_maps import Constant, Convolution, Current, check_cycles, collect_drive
from spear_deploy.lava.schedule import Connection, extra_delay, solve_offsets
from spear_deploy.network import Array, LoihiLIF
from spear_deploy.network.graph import INPUT, SNNGraph

MAX_DELAY = 62
"""Steps of delay a Loihi synapse holds, as netx states it."""


@dataclass(frozen=True, kw_only=True)
class InputConnection:
    """One connection into a population.

    Attributes:
        target: the layer.
        source: the network's input, a layer with neurons, or `<layer>/drive`, which the host computes.
        delay: graph steps between sending and arriving.
        max_gain: the largest sum that one unit of the source gives each neuron, before it is shifted down: (neurons,).
        shift: bits by which the sum is shifted down.
        injected: whether the host's integers are for these neurons one to one, so that no synapse is needed.
        synapses: number of weights, unrolled.
        current: where the weights come from.
    """

    target: str
    source: str
    delay: int
    max_gain: Array
    shift: int
    injected: bool
    synapses: int
    current: Current

    @property
    def from_host(self) -> bool:
        """Whether the host sends the source's values."""
        return not is_population(self.source)

    @property
    def conv(self) -> Convolution | None:
        """The convolution, where the connection is one and nothing else."""
        return self.current.conv

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """Weights in Lava's numbers; the connection is their sum."""
        try:
            return () if self.injected else tuple(split_into_planes(self.current.matrix, self.shift))
        except UnsupportedError as error:
            raise UnsupportedError(f"layer '{self.target}': fed by '{self.source}' through {error}; prune or rescale") from None


@dataclass(frozen=True, kw_only=True)
class LavaPlan:
    """The network as Lava runs it, without its input.

    Attributes:
        graph: the network.
        inputs: the connections into each population, sources first; a population is a layer with neurons, or the output layer.
        constants: what the biases of synapses add to each population.
        offsets: Lava's step at which each population runs the graph's step 0.
        parameters: Lava's neuron parameters, by layer with neurons.
    """

    graph: SNNGraph
    inputs: Mapping[str, tuple[InputConnection, ...]]
    constants: Mapping[str, tuple[Constant, ...]]
    offsets: Mapping[str, int]
    parameters: Mapping[str, Mapping[str, Array]]

    @property
    def depth(self) -> int:
        """Steps by which the last population is later."""
        return max(self.offsets.values())

    @property
    def needs_copies(self) -> bool:
        """Whether each sample needs a copy of the network.

        Samples run one after another through one network, and each layer is reset when the next sample reaches it. That is not
        possible where a spike of one sample can arrive in the next, over an edge with delay (waiting does not help, since
        biased neurons go on spiking), or where a potential starts elsewhere than at 0, which Lava's LIFReset cannot set.
        """
        late = any(incoming.delay and not incoming.from_host for inputs in self.inputs.values() for incoming in inputs)
        return late or any(bool(values["v"].any()) for values in self.parameters.values())

    def size(self, name: str) -> int:
        """Number of neurons of a population, or of values of a source."""
        return int(np.prod(self.graph.shape_of(name.removesuffix("/drive"))))

    def synaptic_delay(self, target: str, incoming: InputConnection) -> int:
        """Return the steps that a synapse waits beyond its one step; 0 for values that the host sends at the right time."""
        if incoming.from_host:
            return 0
        return extra_delay(Connection(source=incoming.source, target=target, delay=incoming.delay), self.offsets)


def plan_network(graph: SNNGraph) -> LavaPlan:
    """Return the network as Lava runs it.

    Raises:
        UnsupportedError: Lava cannot do it exactly; names layer, value and range.
    """
    check_loihi_neurons(graph)
    check_cycles(graph)
    drives = {layer.name: collect_drive(graph, layer.name) for layer in graph.layers if layer.neuron is not None}
    parameters = {name: to_lava_parameters(graph[name], graph.shape_of(name)) for name in drives}
    if graph.output not in drives:
        drive = collect_drive(graph, graph.output)
        if any(is_population(current.source) for current in drive.currents):
            drives[graph.output] = drive
    inputs = {name: tuple(_connect_input(name, current) for current in drive.currents) for name, drive in drives.items()}
    connections = [
        Connection(source=incoming.source, target=name, delay=incoming.delay)
        for name, group in inputs.items()
        for incoming in group
        if not incoming.from_host
    ]
    _check_sources(graph, connections)
    min_offsets = {}
    for name, group in inputs.items():
        has_host_synapse = any(incoming.from_host and not incoming.injected for incoming in group)
        min_offsets[name] = int(has_host_synapse or bool(drives[name].constants))
    offsets = solve_offsets(min_offsets, connections)
    _check_delays(connections, offsets)
    constants = {name: drive.constants for name, drive in drives.items()}
    return LavaPlan(graph=graph, inputs=inputs, constants=constants, offsets=offsets, parameters=parameters)


def check_loihi_neurons(graph: SNNGraph) -> None:
    """Refuse a network that does not hold integers of the Loihi family.

    Raises:
        UnsupportedError: names a layer of another kind.
    """
    if not graph.is_integer:
        raise UnsupportedError("the network has no integer neurons, which Lava's fixed-point models need; quantise it for a chip")
    for layer in graph.layers:
        if layer.neuron is not None and not isinstance(layer.neuron, LoihiLIF):
            kind = type(layer.neuron).__name__
            raise UnsupportedError(
                f"layer '{layer.name}': has {kind} neurons, Lava's fixed-point models are those of LoihiLIF; "
                "quantise for loihi1 or loihi2, or use the simulator"
            )


def is_population(source: str) -> bool:
    """Say whether a source is neurons, and not values that the host sends."""
    return source != INPUT and not source.endswith("/drive")


def _connect_input(target: str, current: Current) -> InputConnection:
    conv = current.conv
    if conv is not None:
        check_conv(conv)
        max_gain, synapses = max_conv_gain(conv), count_conv_synapses(conv)
    else:
        max_gain, synapses = np.asarray(abs(current.matrix).sum(axis=1), np.int64).reshape(-1), int(current.matrix.nnz)
    incoming = InputConnection(
        target=target,
        source=current.source,
        delay=current.delay,
        max_gain=max_gain,
        shift=current.shift,
        injected=current.source.endswith("/drive") and current.is_identity,
        synapses=synapses,
        current=current,
    )
    if conv is None:
        _ = incoming.planes  # raises where no connection holds the weights
    return incoming


def _check_sources(graph: SNNGraph, connections: Iterable[Connection]) -> None:
    for connection in connections:
        if not graph[connection.source].spikes:
            raise UnsupportedError(
                f"layer '{connection.source}': its potential feeds '{connection.target}', Lava's LIF sends spikes only; "
                "give it a threshold"
            )


def _check_delays(connections: Iterable[Connection], offsets: Mapping[str, int]) -> None:
    for connection in connections:
        delay = extra_delay(connection, offsets)
        if delay > MAX_DELAY:
            raise UnsupportedError(
                f"edge '{connection.source}' -> '{connection.target}': needs a synaptic delay of {delay} steps, "
                f"a synapse holds {MAX_DELAY}; shorten the delay or the skip"
            )
