"""Linear maps between populations as integer matrices.

Lava connects neurons by one weighted connection. So the layers without neurons between two layers of neurons (weights, pooling,
reshaping, sums) become one integer matrix per pair and delay, the product of their matrices. A convolution
without other weights or pools before it stays one. What a bias adds on the way becomes a constant input of the neurons.

A `Scale` that only the network's input reaches turns analogue values into integers. That rounding is no matrix; the host
does it, and its result enters the network as another source, named `<layer>/drive`.
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
from spear_deploy.network import CONVS, WEIGHTED, Array, AvgPool, Dense, Layer, Scale, Shape, SparseMatrix, SumPool, Synapse
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import synapse_math

Matrix: TypeAlias = Any
"""A scipy csr matrix of int64, (outputs, inputs), both flattened in the order C, H, W."""

MAX_SYNAPSES = 20_000_000
"""Synapses of one connection: beyond, the matrix and Lava's copies of it take gigabytes, and a step takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution directly behind a source: one process of Lava's.

    Attributes:
        layer: its name.
        synapse: Conv1d or Conv2d with an exponent of at least 0; its bias is a `Constant`.
        input_shape: of the source.
    """

    layer: str
    synapse: Any
    input_shape: Shape

    @cached_property
    def matrix(self) -> Matrix:
        """The unrolled matrix, (neurons, values of the source)."""
        try:
            return _synapse_matrix(self.synapse, self.input_shape)[0]
        except UnsupportedError as error:
            raise UnsupportedError(f"layer '{self.layer}': {error}") from None


@dataclass(frozen=True, kw_only=True)
class Current:
    """Contribution of a source to the input of a layer's neurons, `delay` steps later: `(matrix · s) >> shift`.

    Attributes:
        source: layer, network input, or `<layer>/drive`.
        delay: graph steps.
        product: the matrix, of all but a convolution (`conv`), whose matrix may be large and is unrolled on first use.
        shift: bits by which the sum is shifted down.
        conv: the convolution, where it is nothing else.
    """

    source: str
    delay: int
    product: Matrix | None = None
    shift: int = 0
    conv: Convolution | None = None

    @property
    def matrix(self) -> Matrix:
        """The matrix, (neurons, values of the source)."""
        return self.product if self.conv is None else self.conv.matrix

    @property
    def is_identity(self) -> bool:
        """Whether the source's values arrive as they are, through no weights."""
        if self.conv is not None or self.shift:
            return False
        rows, columns = self.matrix.shape
        return rows == columns == self.matrix.nnz and bool((self.matrix.diagonal() == 1).all())


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Contribution of biases from step `delay` of a sample on: (neurons,)."""

    delay: int
    value: Array


@dataclass(frozen=True, kw_only=True)
class Drive:
    """All input of a layer's neurons, or the output of a layer without neurons."""

    currents: tuple[Current, ...]
    constants: tuple[Constant, ...] = ()


def collect_drive(graph: SNNGraph, name: str) -> Drive:
    """Return all that reaches the neurons of a layer, or leaves a layer without neurons.

    The graph has no cycle without neurons (`check_cycles`).

    Raises:
        UnsupportedError: weights that no 8-bit synapse holds, a sum that would be rounded in parts.
    """
    if graph[name].norm is not None:
        raise UnsupportedError(f"layer '{name}': has an unfolded batch norm; quantise the network again")
    if is_analogue(graph, name):
        size = int(np.prod(graph.shape_of(name)))
        return Drive(currents=(Current(source=f"{name}/drive", delay=0, product=identity(size, np.int64, "csr")),))
    currents: list[Current] = []
    constants: list[Constant] = []
    size = int(np.prod(graph.input_shape_of(name)))
    for edge in graph.edges_into(name):
        if edge.source == INPUT or graph[edge.source].neuron is not None:
            currents.append(Current(source=edge.source, delay=edge.delay, product=identity(size, np.int64, "csr")))
        else:
            before = collect_drive(graph, edge.source)
            currents += [replace(c, delay=c.delay + edge.delay) for c in before.currents]
            constants += [replace(c, delay=c.delay + edge.delay) for c in before.constants]
    before_synapse = Drive(currents=_add_currents(currents), constants=tuple(constants))
    return _pass_synapse(graph[name], graph.input_shape_of(name), before_synapse)


def is_analogue(graph: SNNGraph, name: str) -> bool:
    """Say whether the host computes the output of a layer's synapse: a `Scale` that only the network's input reaches."""
    return isinstance(graph[name].synapse, Scale) and _reads_only_input(graph, name)


def check_cycles(graph: SNNGraph) -> None:
    """Refuse layers without neurons that feed each other.

    Raises:
        UnsupportedError: names one of them.
    """
    cyclic = {layer.name for layer in graph.layers if layer.neuron is None}
    while done := {name for name in cyclic if not any(edge.source in cyclic for edge in graph.edges_into(name))}:
        cyclic -= done
    if cyclic:
        name = min(cyclic)
        raise UnsupportedError(
            f"layer '{name}': lies on a cycle without neurons, or behind one, which Lava cannot hold; add neurons"
        )


def multiply_synapses(synapses: Iterable[Synapse | None], input_shape: Shape) -> tuple[Matrix, int]:
    """Return the matrix of a chain of synapses without biases, and the bits by which its result is shifted down.

    >>> matrix, shift = multiply_synapses([SumPool(kernel_size=2), Dense(weight=np.array([[3]]))], (1, 2, 2))
    >>> matrix.toarray().tolist(), shift
    ([[3, 3, 3, 3]], 0)
    """
    matrix, shift = identity(int(np.prod(input_shape)), np.int64, "csr"), 0
    for synapse in synapses:
        if shift and isinstance(synapse, WEIGHTED):
            raise UnsupportedError("weights after a sum that is rounded down are no matrix; use a weight_exponent of 0 or more")
        step, down = _synapse_matrix(synapse, input_shape)
        matrix, shift = step @ matrix, shift + down
        input_shape = input_shape if synapse is None else synapse.output_shape(input_shape)
    return matrix, shift


# ---------------------------------------------------------------------------------------------- currents and constants


def _reads_only_input(graph: SNNGraph, name: str) -> bool:
    """Say whether the network's input alone reaches a layer's synapse, through layers without neurons."""
    return all(
        edge.source == INPUT or (graph[edge.source].neuron is None and _reads_only_input(graph, edge.source))
        for edge in graph.edges_into(name)
    )


def _add_currents(currents: list[Current]) -> tuple[Current, ...]:
    """Add up the currents of one source at one delay; each convolution, and each sum that is rounded, stays a connection."""
    sums: dict[tuple[str, int, int, str, int], Current] = {}
    for number, current in enumerate(currents):
        conv = "" if current.conv is None else current.conv.layer
        key = (current.source, current.delay, current.shift, conv, number if current.shift else 0)
        sums[key] = replace(current, product=sums[key].matrix + current.matrix) if key in sums else current
    return tuple(sums[key] for key in sorted(sums))


def _pass_synapse(layer: Layer, input_shape: Shape, before: Drive) -> Drive:
    """Pass the input of a layer through its synapse."""
    synapse = layer.synapse
    if synapse is None:
        return before
    check_weights(layer)
    unweighted = all(current.is_identity for current in before.currents)
    if isinstance(synapse, CONVS) and synapse.weight_exponent >= 0 and unweighted:
        conv = Convolution(layer=layer.name, synapse=synapse, input_shape=input_shape)
        currents = [replace(current, product=None, conv=conv) for current in before.currents]
        constants = [replace(c, value=conv.matrix @ c.value) for c in before.constants]
        return Drive(currents=_add_currents(currents), constants=(*constants, *_bias_constants(synapse, input_shape)))
    try:
        matrix, shift = _synapse_matrix(synapse, input_shape)
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
    currents = []
    for current in before.currents:
        parts = _split_window(synapse, input_shape) if current.shift and isinstance(synapse, SumPool) else [matrix]
        currents += [replace(current, product=part @ current.matrix, conv=None, shift=current.shift + shift) for part in parts]
    constants = [replace(c, value=matrix @ c.value) for c in before.constants]
    return Drive(currents=_add_currents(currents), constants=(*constants, *_bias_constants(synapse, input_shape)))


def _bias_constants(synapse: Synapse, input_shape: Shape) -> list[Constant]:
    if getattr(synapse, "bias", None) is None:
        return []
    zeros = np.zeros((1, *input_shape), np.int64)
    return [Constant(delay=0, value=synapse_math.apply_synapse(synapse, zeros, integer=True).reshape(-1))]


# ------------------------------------------------------------------------------------------------------------ matrices


def _synapse_matrix(synapse: Synapse | None, input_shape: Shape) -> tuple[Matrix, int]:
    """Return the matrix of a synapse without its bias, with its exponent folded in, and the shift down that remains."""
    size = int(np.prod(input_shape))
    if isinstance(synapse, Dense):
        weight = synapse.weight.astype(np.int64)
        matrix = csr_matrix(weight.to_scipy() if isinstance(weight, SparseMatrix) else weight)
        return _fold_exponent(matrix, synapse.weight_exponent)
    if isinstance(synapse, Scale):
        weight = np.broadcast_to(synapse.weight, input_shape).reshape(-1)
        return diags(weight.astype(np.int64), format="csr", dtype=np.int64), 0  # a Scale's exponent has no meaning
    if isinstance(synapse, CONVS):
        matrix = _unroll_conv(synapse.weight, input_shape, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
        return _fold_exponent(matrix, synapse.weight_exponent)
    if isinstance(synapse, SumPool):
        ones = np.ones((input_shape[0], 1, *synapse.kernel_size), np.int64)
        dilation = (1,) * len(synapse.kernel_size)
        geometry: Any = synapse  # SumPool's checks turn its stride and padding into tuples
        return _unroll_conv(ones, input_shape, geometry.stride, geometry.padding, dilation, input_shape[0]), 0
    if isinstance(synapse, AvgPool):
        raise UnsupportedError("takes a mean, which is no whole number; quantise the network again")
    return identity(size, np.int64, "csr"), 0


def _split_window(pool: SumPool, input_shape: Shape) -> list[Matrix]:
    """Return a matrix for each place in a pool's window, whose sum is the pool's.

    Sums that were rounded down are added one by one: the sum of their matrices, rounded once, would be another number.
    """
    geometry: Any = pool
    parts = []
    for place in np.ndindex(*geometry.kernel_size):
        one = np.zeros((input_shape[0], 1, *geometry.kernel_size), np.int64)
        index = (Ellipsis, *place)
        one[index] = 1
        dilation = (1,) * len(geometry.kernel_size)
        parts.append(_unroll_conv(one, input_shape, geometry.stride, geometry.padding, dilation, input_shape[0]))
    return parts


def _fold_exponent(matrix: Matrix, exponent: int) -> tuple[Matrix, int]:
    """Fold an exponent into integer weights where that is exact; return them and the shift down that remains."""
    if exponent < 0 and (matrix.data & ((1 << -exponent) - 1)).any():
        return matrix, -exponent
    matrix.data = matrix.data << exponent if exponent >= 0 else matrix.data >> -exponent
    return matrix, 0


def _unroll_conv(weight: Array, input_shape: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> Matrix:
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
        targets = np.ravel_multi_index(np.meshgrid(*kept, indexing="ij"), outside).reshape(-1)
        reached = [axis[keep] for axis, keep in zip(axes, kept, strict=True)]
        sources = np.ravel_multi_index(np.meshgrid(*reached, indexing="ij"), inside).reshape(-1)
        channel = o // (out_channels // groups) * per_group + i
        rows.append((o[:, None] * int(np.prod(outside)) + targets).reshape(-1))
        columns.append((channel[:, None] * int(np.prod(inside)) + sources).reshape(-1))
        values.append(np.repeat(at_tap[o, i].astype(np.int64), len(targets)))
    shape = (out_channels * int(np.prod(outside)), int(np.prod(input_shape)))
    return csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
