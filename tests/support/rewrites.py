"""Networks written otherwise: rewrites after which a network computes, and needs, what it did before.

Each takes a network and a generator, and returns the network written otherwise, or None where it has no place for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.network import CONVS, AvgPool, Conv2d, Dense, Flatten, Layer, Scale, SparseMatrix, make_sparse, write_out
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, unused_name

Rng = np.random.Generator
NAMES = ("q{}", "{}", "1.{}.x", "{} a b", "é中{}", "'{}'", "weight{}.bias", "{}:", "__{}__", "l\\{}", "%{}s")
"""Names that files, messages and paths of modules have to escape, or that are numbers."""
TAUS = ("tau_s", "tau_mem_s", "tau_syn_s")


@dataclass(frozen=True)
class Rewritten:
    """A network written otherwise.

    Attributes:
        graph: the network.
        old: names of layers before, by name; layers that were added have none.
        order: of the channels of a layer, by name: which one of before each is.
        is_transposed: whether height and width of all maps are exchanged.
    """

    graph: SNNGraph
    old: dict[str, str] = field(default_factory=dict)
    order: dict[str, np.ndarray] = field(default_factory=dict)
    is_transposed: bool = False

    def name(self, layer: str) -> str:
        """Return the name of a layer before."""
        return self.old.get(layer, layer)

    def turn_input(self, x: np.ndarray) -> np.ndarray:
        """Return an input (T, B, *shape) of the network before as one of this."""
        x = x.swapaxes(-1, -2) if self.is_transposed else x
        return x.reshape(*x.shape[:2], *self.graph.input_shape)

    def turn_back(self, layer: str, values: np.ndarray) -> np.ndarray:
        """Return what a layer of this network emits as what it emitted before, as lists (T, B, neurons)."""
        if layer in self.order:
            values = values[:, :, np.argsort(self.order[layer])]
        values = values.swapaxes(-1, -2) if self.is_transposed and values.ndim == 5 else values
        return values.reshape(*values.shape[:2], -1)


def rename_layers(graph: SNNGraph, rng: Rng) -> Rewritten:
    """Return the network with other names, whose order is another one."""
    names = [layer.name for layer in graph.layers]
    pattern = NAMES[rng.integers(len(NAMES))]
    new = {name: pattern.format(place) for name, place in zip(names, rng.permutation(len(names)), strict=True)} | {INPUT: INPUT}
    layers = tuple(replace(layer, name=new[layer.name]) for layer in graph.layers)
    edges = tuple(replace(edge, source=new[edge.source], target=new[edge.target]) for edge in graph.edges)
    renamed = replace(graph, layers=layers, edges=edges, output=new[graph.output])
    return Rewritten(renamed, {name: old for old, name in new.items()})


def reorder_layers(graph: SNNGraph, rng: Rng) -> Rewritten:
    """Return the network with its layers in another order."""
    return Rewritten(replace(graph, layers=tuple(graph.layers[place] for place in rng.permutation(len(graph.layers)))))


def stretch_time(graph: SNNGraph, rng: Rng) -> Rewritten:
    """Return the network with a step and time constants of the same multiple, a power of two."""
    factor = float(rng.choice([0.5, 2.0, 4.0]))

    def stretch(layer: Layer) -> Layer:
        taus = {name: getattr(layer.neuron, name) for name in TAUS if hasattr(layer.neuron, name)}
        values: Any = {name: np.asarray(tau * np.asarray(factor, tau.dtype)) for name, tau in taus.items()}
        return replace(layer, neuron=replace(layer.neuron, **values)) if values else layer  # type: ignore[type-var]

    return Rewritten(graph.with_layers(stretch, dt_s=graph.dt_s * factor))


def _insert(graph: SNNGraph, rng: Rng, synapse: Any, fits: Callable[[tuple[int, ...]], bool]) -> Rewritten | None:
    """Return the network with a layer of a synapse alone on one of its edges, ahead of or behind the edge's delay."""
    edges = [edge for edge in graph.edges if fits(graph.shape_of(edge.source))]
    if not edges:
        return None
    edge, is_ahead = edges[rng.integers(len(edges))], bool(rng.integers(2))
    name = unused_name("between", {layer.name for layer in graph.layers})
    new = synapse(graph.shape_of(edge.source)) if callable(synapse) else synapse
    ways = [
        Edge(source=edge.source, target=name, delay=0 if is_ahead else edge.delay),
        Edge(source=name, target=edge.target, delay=edge.delay if is_ahead else 0),
    ]
    layers = (*graph.layers, Layer(name=name, synapse=new))
    others = [other for other in graph.edges if other != edge]
    return Rewritten(replace(graph, layers=layers, edges=tuple([*others, *ways]), output=graph.output))


def pool_one_position(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with a mean over one position on an edge."""
    return _insert(graph, rng, lambda shape: AvgPool(kernel_size=(1,) * (len(shape) - 1)), lambda shape: len(shape) > 1)


def flatten_list(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with a reshape of a list on an edge."""
    return _insert(graph, rng, Flatten(), lambda shape: len(shape) == 1)


def sum_one_way(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with a sum of one way on an edge."""
    return _insert(graph, rng, None, lambda shape: True)


def pad_kernel(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with a ring of zeros around a kernel, and as much more padding."""
    convs = [layer for layer in graph.layers if isinstance(layer.synapse, CONVS)]
    if not convs:
        return None
    layer = convs[rng.integers(len(convs))]
    conv: Any = layer.synapse
    weight = np.pad(conv.weight, ((0, 0), (0, 0), *((1, 1) for _ in conv.padding)))
    padding = tuple(int(a + b) for a, b in zip(conv.padding, conv.dilation, strict=True))
    return Rewritten(graph.with_layers({layer.name: replace(layer, synapse=replace(conv, weight=weight, padding=padding))}))


def store_otherwise(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network with sparse weights written out, and some of the full ones sparse."""
    changes: dict[str, Layer] = {}
    for layer in graph.layers:
        if isinstance(layer.synapse, Dense):
            weight: Any = layer.synapse.weight
            other = write_out(weight) if isinstance(weight, SparseMatrix) else make_sparse(weight) if rng.integers(3) else weight
            changes[layer.name] = replace(layer, synapse=replace(layer.synapse, weight=other))
    return Rewritten(graph.with_layers(changes)) if changes else None


def add_axes(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return the network whose input is a map of one position, reshaped ahead of its first layers; None of other inputs."""
    if len(graph.input_shape) > 1:
        return None
    name = unused_name("flat", {layer.name for layer in graph.layers})
    edges = [replace(edge, source=name) if edge.source == INPUT else edge for edge in graph.edges]
    layers, shape = (Layer(name=name, synapse=Flatten()), *graph.layers), (*graph.input_shape, *(1,) * int(rng.integers(1, 3)))
    edges.append(Edge(source=INPUT, target=name))
    return Rewritten(replace(graph, layers=layers, edges=tuple(edges), input_shape=shape, output=graph.output))


def convolve_one_position(graph: SNNGraph, rng: Rng) -> Rewritten | None:
    """Return a network of dense layers as convolutions of maps of one position; None of other networks."""
    if len(graph.input_shape) > 1 or any(not isinstance(layer.synapse, (Dense, Scale, type(None))) for layer in graph.layers):
        return None

    def spread(part: Any) -> Any:
        values = {name: value for name, value in vars(part).items() if isinstance(value, np.ndarray)}
        return replace(part, **{name: v.reshape(-1, 1, 1) if v.size > 1 else v.reshape(()) for name, v in values.items()})

    def change(layer: Layer) -> Layer:
        synapse: Any = layer.synapse
        if isinstance(synapse, Dense):
            synapse = Conv2d(weight=np.asarray(write_out(synapse.weight))[:, :, None, None], bias=synapse.bias)
        elif synapse is not None:
            synapse = spread(synapse)
        return replace(layer, synapse=synapse, neuron=None if layer.neuron is None else spread(layer.neuron))

    shape = (*graph.input_shape, 1, 1)
    return Rewritten(replace(graph, layers=tuple(map(change, graph.layers)), input_shape=shape))


REWRITES: dict[str, Callable[[SNNGraph, Rng], Rewritten | None]] = {
    "rename": rename_layers,
    "reorder": reorder_layers,
    "time": stretch_time,
    "pool": pool_one_position,
    "flatten": flatten_list,
    "sum": sum_one_way,
    "ring": pad_kernel,
    "storage": store_otherwise,
    "axes": add_axes,
    "convolution": convolve_one_position,
}
"""By name; all leave spikes, SynOps and channels as they are, and those of `SAME_NEEDS` what the network needs on a chip."""
SAME_NEEDS = ("rename", "reorder", "time", "pool", "flatten", "sum", "storage", "axes")
"""Rewrites after which a chip needs the same. A kernel with a ring of zeros is another kernel, and so is a convolution."""
