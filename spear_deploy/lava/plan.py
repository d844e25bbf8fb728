"""Which populations does Lava run, what feeds each, and when does it act? The network without its input.

Everything that Lava cannot do exactly is refused here, by name, before any process starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.convolution import check_conv, conv_reach, conv_synapses
from spear_deploy.lava.formats import Plane, neuron_parameters, planes
from spear_deploy.lava.linear_maps import Constant, Convolution, Current, check_cycles, drive_of
from spear_deploy.lava.schedule import Link, extra_delay, offsets
from spear_deploy.network import Array, LoihiLIF
from spear_deploy.network.graph import INPUT, SNNGraph

MAX_DELAY = 62
"""Steps of delay a Loihi synapse holds, as netx states it."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """One connection into a population.

    Attributes:
        target, source: the layer; the network's input, a layer with neurons, or `<layer>/drive`, which the host computes.
        delay: graph steps between sending and arriving.
        reach: the most that one unit of the source gives each neuron, before the sum is shifted down: (neurons,).
        shift: bits by which the sum is shifted down.
        injected: needs no synapse: the host's integers for these very neurons.
        synapses: number of weights, unrolled.
        current: where the weights come from.
    """

    target: str
    source: str
    delay: int
    reach: Array
    shift: int
    injected: bool
    synapses: int
    current: Current

    @property
    def hosted(self) -> bool:
        """Whether the host plays the source."""
        return not is_population(self.source)

    @property
    def conv(self) -> Convolution | None:
        """The convolution that it is, if it is nothing else."""
        return self.current.conv

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """Weights in Lava's numbers; their sum counts."""
        try:
            return () if self.injected else tuple(planes(self.current.matrix, self.shift))
        except UnsupportedError as error:
            raise UnsupportedError(f"layer '{self.target}': fed by '{self.source}' through {error}; prune or rescale") from None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to build.

    Attributes:
        graph: the network.
        feeds: what feeds each population, sources first; a population is a layer with neurons, or the output layer.
        constants: what biases of synapses add to it.
        offsets: at which of Lava's steps each population acts out the graph's step 0.
        parameters: Lava's neuron parameters, by layer with neurons.
    """

    graph: SNNGraph
    feeds: Mapping[str, tuple[Feed, ...]]
    constants: Mapping[str, tuple[Constant, ...]]
    offsets: Mapping[str, int]
    parameters: Mapping[str, Mapping[str, Array]]

    @property
    def depth(self) -> int:
        """Steps by which the last population lags."""
        return max(self.offsets.values())

    @property
    def side_by_side(self) -> bool:
        """Whether samples need a copy of the network each.

        Samples run one after another through one network, each layer reset when the next sample reaches it, unless spikes
        can cross that border: over an edge with delay a spike of one sample arrives in the next (and waiting does not help,
        since biased neurons go on spiking). Nor can Lava's LIFReset set a potential that starts elsewhere than at 0.
        """
        late = any(feed.delay and not feed.hosted for feeds in self.feeds.values() for feed in feeds)
        return late or any(bool(values["v"].any()) for values in self.parameters.values())

    def size(self, name: str) -> int:
        """Number of neurons of a population, or of values of a source."""
        return int(np.prod(self.graph.shape_of(name.removesuffix("/drive"))))

    def synaptic_delay(self, target: str, feed: Feed) -> int:
        """Return what a synapse adds to its own step; what the host plays comes at the right time anyway."""
        return 0 if feed.hosted else extra_delay(Link(source=feed.source, target=target, delay=feed.delay), self.offsets)


def plan(graph: SNNGraph) -> Plan:
    """Decide what Lava runs.

    Raises:
        UnsupportedError: layer, value and range of what Lava cannot do exactly.
    """
    check_family(graph)
    check_cycles(graph)
    drives = {layer.name: drive_of(graph, layer.name) for layer in graph.layers if layer.neuron is not None}
    parameters = {name: neuron_parameters(graph[name], graph.shape_of(name)) for name in drives}
    if graph.output not in drives:
        drive = drive_of(graph, graph.output)
        if any(is_population(current.source) for current in drive.currents):
            drives[graph.output] = drive
    feeds = {name: tuple(_feed(name, current) for current in drive.currents) for name, drive in drives.items()}
    links = [
        Link(source=feed.source, target=name, delay=feed.delay) for name, fed in feeds.items() for feed in fed if not feed.hosted
    ]
    _check_sources(graph, links)
    played = {name: any(feed.hosted and not feed.injected for feed in fed) for name, fed in feeds.items()}
    least = {name: int(played[name] or bool(drives[name].constants)) for name in feeds}
    found = offsets(least, links)
    _check_delays(links, found)
    constants = {name: drive.constants for name, drive in drives.items()}
    return Plan(graph=graph, feeds=feeds, constants=constants, offsets=found, parameters=parameters)


def check_family(graph: SNNGraph) -> None:
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
    """Say whether a source is neurons, and not played by the host."""
    return source != INPUT and not source.endswith("/drive")


def _feed(target: str, current: Current) -> Feed:
    conv = current.conv
    if conv is not None:
        check_conv(conv)
        reach, synapses = conv_reach(conv), conv_synapses(conv)
    else:
        reach, synapses = np.asarray(abs(current.matrix).sum(axis=1), np.int64).reshape(-1), int(current.matrix.nnz)
    feed = Feed(
        target=target,
        source=current.source,
        delay=current.delay,
        reach=reach,
        shift=current.shift,
        injected=conv is None and current.source.endswith("/drive") and _is_identity(current),
        synapses=synapses,
        current=current,
    )
    if conv is None:
        _ = feed.planes  # refuses what no connection holds
    return feed


def _is_identity(current: Current) -> bool:
    matrix = current.matrix
    rows, columns = matrix.shape
    return rows == columns == matrix.nnz and not current.shift and bool((matrix.diagonal() == 1).all())


def _check_sources(graph: SNNGraph, links: Iterable[Link]) -> None:
    for link in links:
        if not graph[link.source].spikes:
            raise UnsupportedError(
                f"layer '{link.source}': its potential feeds '{link.target}', Lava's LIF sends spikes only; give it a threshold"
            )


def _check_delays(links: Iterable[Link], found: Mapping[str, int]) -> None:
    for link in links:
        delay = extra_delay(link, found)
        if delay > MAX_DELAY:
            raise UnsupportedError(
                f"edge '{link.source}' -> '{link.target}': needs a synaptic delay of {delay} steps, a synapse holds {MAX_DELAY}; "
                "shorten the delay or the skip"
            )
