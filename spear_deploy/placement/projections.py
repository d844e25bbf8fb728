"""What does a spike meet on its way from one neuron layer to the next? Sizes of the synapses, pools passed.

Pools and flattens between neuron layers are no neurons of a chip: a spike's synapses reach through them, so they are part
of the projection (a k × k convolution behind a p × p pool is a convolution with k·p × k·p positions). Chips that pool by
themselves store the kernel alone, so its own extent is kept too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.network import Array, Dense, Shape
from spear_deploy.network.graph import INPUT, SNNGraph

Kind: TypeAlias = Literal["dense", "conv", "one_to_one"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One spatial axis of a convolution, with the pools before and behind it.

    Output position o takes the input positions `o · stride + tap − padding` in 0..used − 1. `used` is less than `inputs` where
    the last positions fill no whole window of a pool.
    """

    inputs: int
    outputs: int
    used: int
    taps: tuple[int, ...] = (0,)
    stride: int = 1
    padding: int = 0

    @cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.outputs, self.used, self.taps, self.stride, self.padding))

    def __hash__(self) -> int:
        return self._hash

    def then(self, outputs: int, taps: Sequence[int], stride: int, padding: int) -> Axis:
        """Return the axis followed by another one."""
        joined = sorted({a + b * self.stride for a in self.taps for b in taps})
        return Axis(
            inputs=self.inputs,
            outputs=outputs,
            used=min(self.used, (self.outputs - 1) * self.stride + max(self.taps) - self.padding + 1),
            taps=tuple(joined),
            stride=self.stride * stride,
            padding=self.padding + padding * self.stride,
        )

    def reached(self, start: int, stop: int) -> Array:
        """Say which input positions the output positions start..stop take: bool (inputs,)."""
        positions = (np.arange(start, stop)[:, None] * self.stride + np.array(self.taps) - self.padding).ravel()
        found = np.zeros(self.inputs, bool)
        found[positions[(positions >= 0) & (positions < self.used)]] = True
        return found

    def takes(self) -> Array:
        """Say whether an output position meets an input through a tap: bool (outputs, taps)."""
        positions = np.arange(self.outputs)[:, None] * self.stride + np.array(self.taps) - self.padding
        return (positions >= 0) & (positions < self.used)

    def feeds(self) -> Array:
        """Say whether an input position meets an output through a tap: bool (inputs, taps)."""
        offset = np.arange(self.inputs)[:, None] + self.padding - np.array(self.taps)
        outputs = offset // self.stride
        here = (offset % self.stride == 0) & (outputs >= 0) & (outputs < self.outputs)
        here[self.used :] = False
        return here


def plain_axis(n: int) -> Axis:
    """Return the axis on which each position takes itself."""
    return Axis(inputs=n, outputs=n, used=n)


@lru_cache(maxsize=65536)
def reached_count(axis: Axis, start: int, stop: int) -> int:
    """Count the input positions that output positions take."""
    return int(axis.reached(start, stop).sum())


@lru_cache(maxsize=65536)
def pairs_along(axis: Axis, start: int, stop: int) -> int:
    """Count the pairs of an output position in start..stop and an input it takes."""
    return int(axis.takes()[start:stop].sum())


@dataclass(frozen=True, kw_only=True)
class Source:
    """A population (or `INPUT`) whose spikes take a projection.

    Attributes:
        wait_steps: how many steps they wait beyond the one that each layer of a chip with steps takes by itself.
        held_steps: how many they wait on a chip without steps, where only a loop takes one.
    """

    name: str
    wait_steps: int
    held_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Synapses between neuron layers.

    Attributes:
        layer: the layer that holds the weights.
        kind: "dense": each input its own weights to all targets; "conv": weights shared over positions; "one_to_one": one
            weight for each target.
        sources: whose spikes arrive.
        channels: input channels of a convolution; inputs of a dense layer, those in front of a pool included.
        outputs: output channels, or neurons.
        groups: of a convolution.
        axes: spatial axes of a convolution.
        plain: whether nothing but one weight per channel or neuron lies on the way.
        input_space, kernel_space, output_space: the pruning groups of `channels`, `kernel_channels` and `outputs`, or "".
        kernel: extent of the weights themselves, pools in front left out: taps along each axis of a convolution, positions
            of the map that a dense layer reads.
        kernel_channels: input channels that one output meets there.
        reads, makes: positions of the map that the weights read, and of the one they make, pools left out.
        front: of a dense layer, from the positions of its sources to those that it reads, through pools.
        signed: whether a weight is below 0.
        exists: which weights are not zero, (outputs, kernel channels, *taps or *positions); None where all are, or where
            nobody asked.
    """

    layer: str
    kind: Kind
    sources: tuple[Source, ...]
    channels: int
    outputs: int
    groups: int = 1
    axes: tuple[Axis, ...] = ()
    plain: bool = False
    input_space: str = ""
    kernel_space: str = ""
    output_space: str = ""
    kernel: Shape = ()
    kernel_channels: int = 1
    reads: Shape = ()
    makes: Shape = ()
    front: tuple[Axis, ...] = ()
    signed: bool = field(default=True, compare=False)
    exists: Array | None = field(default=None, compare=False, repr=False)

    @property
    def wait_steps(self) -> int:
        """Longest wait of a spike."""
        return max((source.wait_steps for source in self.sources), default=0)

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return int(np.prod([len(axis.taps) for axis in self.axes], dtype=np.int64))

    @property
    def source_channels(self) -> int:
        """Channels of the sources: not those that a dense layer reads where other weights lie between."""
        if self.kind != "dense":
            return self.channels
        return self.channels // int(np.prod([reached_count(axis, 0, axis.outputs) for axis in self.front], dtype=np.int64))

    @property
    def from_input(self) -> bool:
        """Whether only the network's input arrives."""
        return all(source.name == INPUT for source in self.sources)

    def narrowed(self, space: str, channels: int, left: int) -> Projection:
        """Return the projection with the first `left` of the `channels` channels of a pruning group."""

        def less(n: int, here: str) -> int:
            return n * left // channels if here == space else n

        outputs, into = less(self.outputs, self.output_space), less(self.kernel_channels, self.kernel_space)
        return replace(
            self,
            channels=less(self.channels, self.input_space),
            outputs=outputs,
            groups=outputs if self.groups == self.outputs else self.groups,
            kernel_channels=into,
            exists=None if self.exists is None else self.exists[:outputs, :into],
        )


# ------------------------------------------------------------------------------------------------------------- joining


class Walk:
    """Joins the synapses on a path into one: sizes, and which weights exist if they are given."""

    def __init__(self, shape: Shape) -> None:
        self.kind: Kind = "conv"
        self.channels = self.outputs = self.groups = shape[0]
        self.axes = [plain_axis(n) for n in shape[1:]]
        self.own = [plain_axis(n) for n in shape[1:]]
        self.kernel_channels = 1
        self.front: tuple[Axis, ...] = ()
        self.exists: Array | None = None
        self.kernel: Shape | None = None
        self.mixed = False
        self.reads: Shape = ()
        self.makes: Shape = ()

    def dense(self, outputs: int, exists: Array | None) -> None:
        """Pass all-to-all weights."""
        positions = [reached_count(axis, 0, axis.outputs) for axis in self.axes]
        self.kernel, self.kernel_channels = tuple(axis.outputs for axis in self.axes), self.outputs
        if self.kind != "dense":
            self.front, self.channels = tuple(self.axes), self.channels * int(np.prod(positions, dtype=np.int64))
        self.kind, self.outputs, self.groups, self.axes = "dense", outputs, 1, []
        self.exists = None if exists is None or self.mixed else exists.reshape(outputs, -1, *self.kernel)
        self.mixed = True

    def conv(self, after: Shape, taps: list[list[int]], stride: Shape, padding: Shape, groups: int, exists: Array | None) -> None:
        """Pass a convolution."""
        before = self.axes
        self.axes = _then(before, after, taps, stride, padding)
        self.own = _then([plain_axis(axis.outputs) for axis in before], after, taps, stride, padding)
        self.reads, self.makes = tuple(axis.outputs for axis in before), tuple(after[1:])
        self.kernel_channels = self.outputs // groups
        self.outputs, self.groups = after[0], groups
        self.kind, self.exists = "conv", None
        if exists is not None and not self.mixed:
            offsets = [
                [[a + b * axis.stride for a in axis.taps] for b in along] for axis, along in zip(before, taps, strict=True)
            ]
            self.exists = _spread(exists, offsets, [axis.taps for axis in self.axes])
        self.mixed = True

    def each(self) -> None:
        """Pass one weight for each neuron; behind weights that mix channels the synapses are theirs."""
        self.kind = self.kind if self.mixed else "one_to_one"

    def pool(self, after: Shape, windows: list[list[int]], stride: Shape, padding: Shape, *, behind: bool) -> None:
        """Pass a pool, in front of the weights or behind them."""
        before = self.axes
        self.axes = _then(before, after, windows, stride, padding)
        if behind:
            self.own = _then(self.own, after, windows, stride, padding)
        if self.exists is not None:
            offsets = [
                [[a + b * axis.stride for b in along] for a in axis.taps] for axis, along in zip(before, windows, strict=True)
            ]
            self.exists = _spread(self.exists, offsets, [axis.taps for axis in self.axes])

    @property
    def extent(self) -> Shape:
        """Extent of the weights themselves."""
        return tuple(len(axis.taps) for axis in self.own) if self.kernel is None else self.kernel


def _then(axes: Sequence[Axis], after: Shape, taps: list[list[int]], stride: Shape, padding: Shape) -> list[Axis]:
    return [axis.then(n, t, s, p) for axis, n, t, s, p in zip(axes, after[1:], taps, stride, padding, strict=True)]


def _spread(exists: Array, offsets: list[list[list[int]]], taps: list[tuple[int, ...]]) -> Array:
    """Return the weights that exist at joined taps: the k-th tap of an axis lies at its `offsets[k]`."""
    for axis, (along, joined) in enumerate(zip(offsets, taps, strict=True)):
        moved = np.moveaxis(exists, 2 + axis, 0)
        out = np.zeros((len(joined), *moved.shape[1:]), bool)
        for k, places in enumerate(along):
            for place in places:
                out[joined.index(place)] |= moved[k]
        exists = np.moveaxis(out, 0, 2 + axis)
    return exists


# FOLDED from spear_deploy/placement/projections.py
# Which projections are one on a chip? Those that a delay of each synapse splits in a graph.
#
# In a graph a delay belongs to an edge, on a chip to a synapse. Files with delays of single neurons or synapses are therefore
# read as one `Dense` for each delay, all between the same two layers, whose non-zero weights never overlap: together they are
# the weights of one list of synapses, each with its delay.


def joined(graph: SNNGraph, projections: Sequence[Projection]) -> tuple[Projection, ...]:
    """Return the projections with those that share no synapse, but source and target, made one; it waits the longest delay."""
    sets: dict[tuple[object, ...], list[Projection]] = {}
    for projection in projections:
        names = tuple(source.name for source in projection.sources)
        alike = projection.kind == "dense" and isinstance(graph[projection.layer].synapse, Dense)
        key = (names, projection.front, projection.channels) if alike else (id(projection),)
        sets.setdefault(key, []).append(projection)
    found: list[Projection] = []
    for parts in sets.values():
        found += [_one(parts, graph)] if len(parts) > 1 and _apart(graph, parts) else parts
    return tuple(found)


def _apart(graph: SNNGraph, parts: Sequence[Projection]) -> bool:
    """Say whether no weight is non-zero in two of the layers."""
    taken: Array | None = None
    for part in parts:
        mask = _weight(graph, part) != 0
        if taken is not None and (taken.shape != mask.shape or bool((taken & mask).any())):
            return False
        taken = mask if taken is None else taken | mask
    return True


def _one(parts: Sequence[Projection], graph: SNNGraph) -> Projection:
    """Return the projection that holds all parts; its layer is the one with the widest range of weights."""
    sources = tuple(
        Source(
            name=each[0].name,
            wait_steps=max(source.wait_steps for source in each),
            held_steps=max(source.held_steps for source in each),
        )
        for each in zip(*(part.sources for part in parts), strict=True)
    )
    masks = [part.exists for part in parts if part.exists is not None]
    exists = np.logical_or.reduce(masks) if len(masks) == len(parts) else None
    widest = max(parts, key=lambda part: float(np.abs(_weight(graph, part)).max()))
    return replace(widest, sources=sources, signed=any(part.signed for part in parts), exists=exists)


def _weight(graph: SNNGraph, part: Projection) -> Array:
    return graph[part.layer].synapse.weight  # type: ignore[union-attr]
