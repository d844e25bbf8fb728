"""Weights that lie together in one cell of a crossbar.

Where one way from a neuron to another passes several weights (pools whose windows overlap, a convolution in front of a pool), the
cell holds their sum, which may need more bits than each of them. Some chips hold one weight from a neuron to another: where
several ways lead from one source to a neuron layer (a skip beside the main way, two layers of weights of one source), the cell
holds the sum of all. On the others each way has rows, or entries of a list, of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import CONVS, WEIGHTED, Array, CatalystLIF, Dense, ReckonLIF, Scale, Shape, SumPool
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer import Layer
from spear_deploy.network.spike_paths import SpikePath, find_spike_paths
from spear_deploy.quantize.fold import replace_mean_by_sum
from spear_deploy.simulator.synapse_math import fan_out, make_weigher

ONE_CELL = {"xylo": (-128, 127), "reckon": ReckonLIF.FORMAT.weights}
"""By family of chips with one weight from a neuron to another, what it may be."""
CELL_LIMITS = {**ONE_CELL, "catalyst": CatalystLIF.FORMAT.weights, "brainscales": (-63, 63)}
"""The same, with chips on which each way between two neurons has a weight: Catalyst N1's entries, BrainScaleS-2's rows."""
AXON_PER_WEIGHT = "truenorth"
"""Family on which a source takes a further axon for each further weight."""
MAX_CELLS = 1 << 21
"""Cells between two layers up to which their sums are formed; of more a bound is taken."""
CHUNK = 1 << 20
"""Cells whose sums are formed at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedCells:
    """The ways from a source to a neuron layer, some cells of which hold several weights.

    Attributes:
        source: a neuron layer, or the input.
        shape: of the source.
        ways: layers with synapses on each way, in order, with the shape of their input; means over a window are sums.
        count: weights in a cell at most.
        limits: what a cell may hold; None where each weight has a cell of its own, on an axon of its own.
        bounds: of very many cells, whose sums are not formed, by way the weights in a cell at most; else None.
    """

    source: str
    shape: Shape
    ways: tuple[tuple[tuple[Layer, Shape], ...], ...]
    count: int
    limits: tuple[int, int] | None
    bounds: tuple[int, ...] | None = None

    @property
    def weighted(self) -> tuple[str, ...]:
        """Names of the layers of weights, each once."""
        return tuple(dict.fromkeys(layer.name for way in self.ways for layer, _ in way if isinstance(layer.synapse, WEIGHTED)))

    def find_range(self, synapses: Mapping[str, Any], shift: int = 0) -> tuple[float, float]:
        """Return the lowest and the highest sum of a cell; of very many cells what no sum goes beyond.

        Args:
            synapses: by layer of weights.
            shift: to the left, of the sums; they are returned without it.
        """
        if self.bounds is not None:
            largest = [max(_find_largest(synapses.get(layer.name, layer.synapse)) for layer, _ in way) for way in self.ways]
            most = sum(n * bound for n, bound in zip(largest, self.bounds, strict=True)) / 2**shift
            return -most, most
        totals = [(float(total.min()), float(total.max())) for total in sum_cells(self.shape, self.ways, synapses)]
        return min(low for low, _ in totals) / 2**shift, max(high for _, high in totals) / 2**shift

    def count_axons(self, types: Mapping[str, Array]) -> int:
        """Return how many axons the source takes where each has a type, and a weight of a type an axon of its own.

        Args:
            types: by layer the type of each weight, -1 for those of 0.
        """
        kinds = 1 + max(int(each.max()) for each in types.values())
        is_alone = len(self.ways) == len(self.ways[0]) == 1
        if self.bounds is not None and not is_alone:
            return prod(self.shape) * self.count * kinds
        axons = 0
        for kind in range(kinds):
            passed = {layer.name: layer.synapse for way in self.ways for layer, _ in way if layer.name in types}
            marks: dict[str, Any] = {
                name: replace(synapse, weight=(types[name] == kind).astype(np.float64), bias=None)  # type: ignore[type-var]
                for name, synapse in passed.items()
            }
            if is_alone:  # a cell holds one weight at most
                layer, before = self.ways[0][0]
                axons += int(np.count_nonzero(fan_out(marks[layer.name], before)))
            else:
                axons += sum(int(total.max(axis=1).sum()) for total in sum_cells(self.shape, self.ways, marks))
        return axons

    def find_shift(self) -> int:
        """Return the shift to the left that integer weights have in common; a `Scale` holds the shifted numbers."""
        synapses = {layer.name: layer.synapse for way in self.ways for layer, _ in way if isinstance(layer.synapse, WEIGHTED)}
        exponents = [synapse.weight_exponent for synapse in synapses.values() if not isinstance(synapse, Scale)]
        if exponents:
            return min(exponents)
        bits = [int(np.bitwise_or.reduce(np.abs(s.weight.astype(np.int64)).ravel())) for s in synapses.values()]
        union = (1 << ReckonLIF.FORMAT.max_shift) | int(np.bitwise_or.reduce(bits))
        return (union & -union).bit_length() - 1


def find_shared_cells(graph: SNNGraph, family: str) -> dict[str, tuple[SharedCells, ...]]:
    """Return by neuron layer the ways on which a cell of a chip of a family holds more than one weight that is not 0.

    Where each weight takes an axon those of convolutions too: the source of one meets its weights at many neurons.
    A network with a loop without neurons, or with values in place of spikes, which no chip takes, has none.
    """
    if family not in CELL_LIMITS and family != AXON_PER_WEIGHT:
        return {}
    try:
        paths = find_spike_paths(graph)
    except UnsupportedError:
        return {}
    by_cell: dict[tuple[str, str, int], list[SpikePath]] = {}
    for number, path in enumerate(paths):
        by_cell.setdefault((path.target, path.source, 0 if family in ONE_CELL else number), []).append(path)
    shared: dict[str, tuple[SharedCells, ...]] = {}
    for (target, source, _), between in by_cell.items():
        cells = _find_between(graph, source, target, between, CELL_LIMITS.get(family))
        if cells is not None:
            shared[target] = (*shared.get(target, ()), cells)
    return shared


def _find_between(
    graph: SNNGraph, source: str, target: str, paths: Sequence[SpikePath], limits: tuple[int, int] | None
) -> SharedCells | None:
    """Return the ways between two layers, or None where every cell holds one weight."""
    ways = tuple(tuple((replace_mean_by_sum(layer), graph.input_shape_of(layer.name)) for layer in p.layers) for p in paths)
    shape, bounds = graph.shape_of(source), tuple(bound_count([layer.synapse for layer, _ in way]) for way in ways)
    count = sum(bounds)
    is_bounded = prod(shape) * prod(graph.shape_of(target)) > MAX_CELLS
    if count > 1 and not is_bounded:
        passed = [layer for way in ways for layer, _ in way if isinstance(layer.synapse, WEIGHTED)]
        marks = {layer.name: _mark_weights(layer.synapse) for layer in passed}
        count = max(int(total.max()) for total in sum_cells(shape, ways, marks))
    takes_axons = limits is None and any(isinstance(layer.synapse, CONVS) for way in ways for layer, _ in way)
    if count <= 1 and not takes_axons:
        return None
    return SharedCells(source=source, shape=shape, ways=ways, count=count, limits=limits, bounds=bounds if is_bounded else None)


def limit_shared_cells(cells: Sequence[SharedCells], synapses: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return (largest, largest stored) of the sums in cells, and of the single weights where very many lie in a cell.

    Weights are rounded each by itself, which moves a sum by up to half of their number.
    """
    limits: list[tuple[float, float]] = []
    for shared in cells:
        if shared.limits is None:
            continue
        max_weight = shared.limits[1]
        largest = max(map(abs, shared.find_range(synapses)))
        room = max_weight - shared.count / 2
        if 2 * room >= max_weight:
            limits.append((largest, room))
        else:
            single = max(float(np.abs(synapses[name].weight).max()) for name in shared.weighted)
            limits.append((single * shared.count, max_weight / 2))
    return limits


def holds_shared_cells(cells: Sequence[SharedCells], synapses: Mapping[str, Any], shift: int = 0) -> bool:
    """Return whether cells hold the sums of integer weights, which have a shift in common."""
    for shared in cells:
        if shared.limits is not None:
            low, high = shared.find_range(synapses, shift)
            if low < shared.limits[0] or high > shared.limits[1]:
                return False
    return True


def bound_count(synapses: Sequence[Any]) -> int:
    """Return how many weights lead from a neuron to another at most, along the synapses of a way.

    One of them connects a neuron that the first ones reach with one that the last ones read, by one weight.
    """
    reached, read = zip(*map(_bound_window, synapses), strict=True) if synapses else ((), ())
    splits = [i for i, synapse in enumerate(synapses) if isinstance(synapse, Dense)] or range(max(len(synapses), 1))
    return min(prod(reached[:i]) * prod(read[i + 1 :]) for i in splits)


def _bound_window(synapse: Any) -> tuple[int, int]:
    """Return how many windows of a synapse hold one position at most, and how many positions one window holds."""
    if isinstance(synapse, SumPool):
        kernel, dilation = synapse.kernel_size, (1,) * len(synapse.kernel_size)
    elif isinstance(synapse, CONVS):
        kernel, dilation = synapse.weight.shape[2:], synapse.dilation
    else:
        return 1, 1
    stride = synapse.stride or kernel
    windows = (size if d > 1 else -(-size // step) for size, step, d in zip(kernel, stride, dilation, strict=True))
    return prod(windows), prod(kernel)


def _find_largest(synapse: Any) -> float:
    """Return the largest weight of a synapse, its exponent in it; 0 of a pool."""
    return float(np.abs(_expand(synapse).weight).max()) if isinstance(synapse, WEIGHTED) else 0.0


def _mark_weights(synapse: Any) -> Any:
    return replace(synapse, weight=(synapse.weight != 0).astype(np.float64), bias=None)


def sum_cells(shape: Shape, ways: Sequence[Sequence[tuple[Layer, Shape]]], synapses: Mapping[str, Any]) -> Iterator[Array]:
    """Yield the sums of the weights from some neurons of a source at a time: (sources, targets).

    Args:
        shape: of the source.
        ways: layers with synapses on each way, in order, with the shape of their input.
        synapses: taken in place of those of the layers, by name.
    """
    size = prod(shape)
    weighers = [[(make_weigher(_expand(synapses.get(layer.name, layer.synapse)), dtype=np.float64), before)
                 for layer, before in way] for way in ways]  # fmt: skip
    step = max(1, CHUNK // size)
    for start in range(0, size, step):
        rows = min(step, size - start)
        total: Any = 0
        for way in weighers:
            value = np.zeros((rows, size))
            np.fill_diagonal(value[:, start:], 1.0)
            value = value.reshape(rows, *shape)
            for weigh, before in way:
                value = weigh(value.reshape(rows, *before))
            total = total + value.reshape(rows, -1)
        yield total


def _expand(synapse: Any) -> Any:
    """Return a synapse without bias, its exponent in its weights."""
    if not isinstance(synapse, WEIGHTED):
        return synapse
    exponent = 0 if isinstance(synapse, Scale) else synapse.weight_exponent
    return replace(synapse, weight=synapse.weight.astype(np.float64) * 2.0**exponent, bias=None, weight_exponent=0)
