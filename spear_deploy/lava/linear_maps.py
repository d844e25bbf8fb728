"""Which linear map lies between two populations?

Lava joins neurons by one weighted connection. So the layers without neurons between two layers of neurons (weights, pooling,
reshaping, sums) become one integer matrix per pair and delay, by multiplying the matrices of the steps. A convolution that
has no other weights or pools before it stays one. What a bias adds on the way becomes a constant input of the neurons.

A `Scale` that only the network's input reaches turns analogue values into integers. That rounding is no matrix; the host
does it, and its result enters the network as a source of its own, named `<layer>/drive`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix, diags, identity

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.formats import check_weights
from spear_deploy.network import CONVS, WEIGHTED, Array, AvgPool, Dense, Layer, Scale, Shape, SumPool, Synapse
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import synapse_math

Matrix: TypeAlias = Any
"""A scipy csr matrix of int64, (outputs, inputs), both flattened in the order C, H, W."""

MAX_SYNAPSES = 20_000_000
"""Synapses of one connection: beyond, the matrix and Lava's copies of it take gigabytes, and a step takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A layer's convolution that takes its input as a source sends it: one process of Lava's.

    Attributes:
        layer: its name.
        synapse: Conv1d or Conv2d; its bias counts elsewhere, its exponent is not negative.
        input_shape: of the source.
    """

    layer: str
    synapse: Any
    input_shape: Shape

    @cached_property
    def matrix(self) -> Matrix:
        """Its matrix."""
        try:
            return _matrix(self.synapse, self.input_shape)[0]
        except UnsupportedError as error:
            raise UnsupportedError(f"layer '{self.layer}': {error}") from None


@dataclass(frozen=True, kw_only=True)
class Current:
    """What a source contributes to the input of a layer's neurons, `delay` steps later: `(matrix · s) >> shift`.

    The matrix of a mere convolution is made when it is asked for: it may be large, and Lava does without.
    """

    source: str
    delay: int
    made: Matrix | None = None
    shift: int = 0
    conv: Convolution | None = None

    @property
    def matrix(self) -> Matrix:
        """The matrix, (neurons, values of the source)."""
        return self.made if self.conv is None else self.conv.matrix


@dataclass(frozen=True, kw_only=True)
class Constant:
    """What biases contribute from step `delay` of a sample on: (neurons,)."""

    delay: int
    value: Array


@dataclass(frozen=True, kw_only=True)
class Drive:
    """Everything that a layer's synapse brings."""

    currents: tuple[Current, ...]
    constants: tuple[Constant, ...] = ()


def drive_of(graph: SNNGraph, name: str) -> Drive:
    """Collect what reaches the neurons of a layer, or leaves a layer without neurons.

    The graph has no cycle without neurons (`check_cycles`).

    Raises:
        UnsupportedError: weights that no 8-bit synapse holds, a sum that would be rounded in parts.
    """
    if graph[name].norm is not None:
        raise UnsupportedError(f"layer '{name}': has an unfolded batch norm; quantise the network again")
    if is_analogue(graph, name):
        size = int(np.prod(graph.shape_of(name)))
        return Drive(currents=(Current(source=f"{name}/drive", delay=0, made=identity(size, np.int64, "csr")),))
    currents: list[Current] = []
    constants: list[Constant] = []
    size = int(np.prod(graph.input_shape_of(name)))
    for edge in graph.incoming(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            currents.append(Current(source=edge.source, delay=edge.delay, made=identity(size, np.int64, "csr")))
        else:
            before = drive_of(graph, edge.source)
            currents += [replace(c, delay=c.delay + edge.delay) for c in before.currents]
            constants += [replace(c, delay=c.delay + edge.delay) for c in before.constants]
    return _through(graph[name], graph.input_shape_of(name), Drive(currents=_merged(currents), constants=tuple(constants)))


def is_analogue(graph: SNNGraph, name: str) -> bool:
    """Say whether the host computes what a layer's synapse gives: a `Scale` that only the network's input reaches."""
    return isinstance(graph[name].synapse, Scale) and _only_input(graph, name)


def check_cycles(graph: SNNGraph) -> None:
    """Refuse layers without neurons that feed each other.

    Raises:
        UnsupportedError: names one of them.
    """
    left = {layer.name for layer in graph.layers if layer.neuron is None}
    while done := {name for name in left if not any(edge.source in left for edge in graph.incoming(name))}:
        left -= done
    if left:
        name = min(left)
        raise UnsupportedError(
            f"layer '{name}': lies on a cycle without neurons, or behind one, which Lava cannot hold; add neurons"
        )


def as_matrix(synapses: Iterable[Synapse | None], input_shape: Shape) -> tuple[Matrix, int]:
    """Return the matrix of a chain of synapses, biases left out, and by how many bits its result is shifted down.

    >>> matrix, shift = as_matrix([SumPool(kernel_size=2), Dense(weight=np.array([[3]]))], (1, 2, 2))
    >>> matrix.toarray().tolist(), shift
    ([[3, 3, 3, 3]], 0)
    """
    matrix, shift = identity(int(np.prod(input_shape)), np.int64, "csr"), 0
    for synapse in synapses:
        if shift and isinstance(synapse, WEIGHTED):
            raise UnsupportedError("weights after a sum that is rounded down are no matrix; use a weight_exponent of 0 or more")
        step, down = _matrix(synapse, input_shape)
        matrix, shift = step @ matrix, shift + down
        input_shape = input_shape if synapse is None else synapse.output_shape(input_shape)
    return matrix, shift


# ------------------------------------------------------------------------------------------------------- the recursion


def _only_input(graph: SNNGraph, name: str) -> bool:
    """Say whether a layer's synapse sees the network's input alone, through layers without neurons."""
    return all(
        edge.source == INPUT or (graph[edge.source].neuron is None and _only_input(graph, edge.source))
        for edge in graph.incoming(name)
    )


def _merged(currents: list[Current]) -> tuple[Current, ...]:
    """Add up what comes from one source at one delay; convolutions stay processes of their own."""
    found: dict[tuple[str, int, int, str], Current] = {}
    for current in currents:
        key = (current.source, current.delay, current.shift, "" if current.conv is None else current.conv.layer)
        found[key] = replace(current, made=found[key].matrix + current.matrix) if key in found else current
    return tuple(found[key] for key in sorted(found))


def _through(layer: Layer, input_shape: Shape, before: Drive) -> Drive:
    """Pass what reaches a layer through its synapse."""
    synapse = layer.synapse
    if synapse is None:
        return before
    check_weights(layer)
    if isinstance(synapse, CONVS) and synapse.weight_exponent >= 0 and all(_is_plain(current) for current in before.currents):
        conv = Convolution(layer=layer.name, synapse=synapse, input_shape=input_shape)
        currents = [replace(current, made=None, conv=conv) for current in before.currents]
        constants = [replace(c, value=conv.matrix @ c.value) for c in before.constants]
        return Drive(currents=_merged(currents), constants=(*constants, *_bias(synapse, input_shape)))
    try:
        matrix, shift = _matrix(synapse, input_shape)
    except UnsupportedError as error:
        raise UnsupportedError(f"layer '{layer.name}': {error}") from None
    if any(current.shift for current in before.currents) and isinstance(synapse, WEIGHTED):
        raise UnsupportedError(
            f"layer '{layer.name}': weighs a sum that the layer before rounded down; use a weight_exponent of 0 or more there"
        )
    if shift and (len(before.currents) > 1 or before.constants):
        raise UnsupportedError(
            f"layer '{layer.name}': a weight_exponent below 0 rounds the sum of several edges (or of an edge and a bias before "
            "it), Lava rounds each by itself; use an exponent of 0 or more"
        )
    currents = [replace(c, made=matrix @ c.matrix, conv=None, shift=c.shift + shift) for c in before.currents]
    constants = [replace(c, value=matrix @ c.value) for c in before.constants]
    return Drive(currents=_merged(currents), constants=(*constants, *_bias(synapse, input_shape)))


def _is_plain(current: Current) -> bool:
    """Say whether a source arrives as it is: through no weights."""
    if current.conv is not None or current.shift:
        return False
    matrix = current.matrix
    return matrix.shape[0] == matrix.shape[1] == matrix.nnz and bool((matrix.diagonal() == 1).all())


def _bias(synapse: Synapse, input_shape: Shape) -> list[Constant]:
    if getattr(synapse, "bias", None) is None:
        return []
    zeros = np.zeros((1, *input_shape), np.int64)
    return [Constant(delay=0, value=synapse_math.apply(synapse, zeros, integer=True).reshape(-1))]


# -------------------------------------------------------------------------------------------------------- the matrices


def _matrix(synapse: Synapse | None, input_shape: Shape) -> tuple[Matrix, int]:
    """Return the matrix of one synapse without its bias, with its exponent folded in, and the shift down that is left."""
    size = int(np.prod(input_shape))
    if isinstance(synapse, Dense):
        return _scaled(csr_matrix(synapse.weight.astype(np.int64)), synapse.weight_exponent)
    if isinstance(synapse, Scale):
        weight = np.broadcast_to(synapse.weight, input_shape).reshape(-1)
        return diags(weight.astype(np.int64), format="csr", dtype=np.int64), 0  # a Scale's exponent has no meaning
    if isinstance(synapse, CONVS):
        matrix = _conv_matrix(synapse.weight, input_shape, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
        return _scaled(matrix, synapse.weight_exponent)
    if isinstance(synapse, SumPool):
        ones = np.ones((input_shape[0], 1, *synapse.kernel_size), np.int64)
        dilation = (1,) * len(synapse.kernel_size)
        geometry: Any = synapse  # SumPool's own checks made its stride and padding tuples
        return _conv_matrix(ones, input_shape, geometry.stride, geometry.padding, dilation, input_shape[0]), 0
    if isinstance(synapse, AvgPool):
        raise UnsupportedError("takes a mean, which is no whole number; quantise the network again")
    return identity(size, np.int64, "csr"), 0


def _scaled(matrix: Matrix, exponent: int) -> tuple[Matrix, int]:
    """Fold an exponent into integer weights as far as it goes."""
    if exponent < 0 and (matrix.data & ((1 << -exponent) - 1)).any():
        return matrix, -exponent
    matrix.data = matrix.data << exponent if exponent >= 0 else matrix.data >> -exponent
    return matrix, 0


def _conv_matrix(weight: Array, input_shape: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Matrix:
    """Unroll a convolution: one row per output position, one entry per tap that falls inside the input."""
    out_channels, per_group = weight.shape[:2]
    inside, kernel = input_shape[1:], weight.shape[2:]
    outside = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip(inside, padding, dilation, kernel, stride, strict=True)
    )
    synapses = int(np.count_nonzero(weight)) * int(np.prod(outside))
    if synapses > MAX_SYNAPSES:
        raise UnsupportedError(
            f"about {synapses} synapses after unrolling, the Lava graph takes {MAX_SYNAPSES} in one connection; "
            "prune it or simulate it without Lava"
        )
    rows, columns, values = [], [], []
    for tap in np.ndindex(*kernel):
        at_tap = np.moveaxis(weight, (0, 1), (-2, -1))[tap]
        o, i = np.nonzero(at_tap)
        axes = [np.arange(n) * s + d * k - p for n, s, d, k, p in zip(outside, stride, dilation, tap, padding, strict=True)]
        kept = [np.nonzero((axis >= 0) & (axis < n))[0] for axis, n in zip(axes, inside, strict=True)]
        to = np.ravel_multi_index(np.meshgrid(*kept, indexing="ij"), outside).reshape(-1)
        reached = [axis[keep] for axis, keep in zip(axes, kept, strict=True)]
        come = np.ravel_multi_index(np.meshgrid(*reached, indexing="ij"), inside).reshape(-1)
        channel = o // (out_channels // groups) * per_group + i
        rows.append((o[:, None] * int(np.prod(outside)) + to).reshape(-1))
        columns.append((channel[:, None] * int(np.prod(inside)) + come).reshape(-1))
        values.append(np.repeat(at_tap[o, i].astype(np.int64), len(to)))
    shape = (out_channels * int(np.prod(outside)), int(np.prod(input_shape)))
    return csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
