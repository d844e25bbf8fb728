"""How does NIR say this network?

Times in seconds, every parameter an array of the neurons' full shape, and what NIR has no word for in the metadata, which
other readers pass over: the time step, the kind of reset, the step that closes a cycle, and our own facts.

    a layer "fc" with weights and a neuron     nodes "fc.synapse" → "fc"
    batch norm                                 folded into the weights in float64, then rounded to float32
    an edge with delay                         a Delay node; in a cycle one step less, since closing it takes one
    integer neurons                            only where floating point does exactly the same: no decay, or full decay
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.files import written_aside
from spear_deploy.graph import INPUT, Edge, SNNGraph
from spear_deploy.layers import (
    CONVS,
    IF,
    LI,
    LIF,
    LOIHI_UNIT,
    POOLS,
    Array,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    Shape,
    SumPool,
    Synapse,
)

DT_KEY = "dt_s"
RESET_KEY = "reset"
EDGES_KEY = "closing_edges"
FACTS_KEY = "spear_deploy"
REMEDY = "export the floating-point network"


def write_nir(graph: SNNGraph, path: str | os.PathLike[str]) -> list[str]:
    """Write a network as NIR, whole or not at all.

    Returns:
        What was approximated, one sentence each; empty when nothing was.

    Raises:
        UnsupportedError: what NIR cannot say, by layer.
        FileError: the place is not writable.
    """
    import nir

    notes: list[str] = []
    draft = _draft(as_float(graph), notes)
    # nir infers shapes with square kernels and one group; where that is wrong it would refuse a right graph
    built = nir.NIRGraph(draft.nodes, draft.edges, metadata=draft.metadata, type_check=typable(graph))
    with written_aside(path) as aside:
        nir.write(aside, built)
    return notes


def typable(graph: SNNGraph) -> bool:
    """Say whether nir's own type check can follow the network: it takes kernels as square and groups as one."""
    for layer in graph.layers:
        synapse = layer.synapse
        if isinstance(synapse, Conv2d) and (synapse.weight.shape[2] != synapse.weight.shape[3] or synapse.groups > 1):
            return False
        if isinstance(synapse, Conv1d) and synapse.groups > 1:
            return False
        if isinstance(synapse, POOLS) and len(synapse.kernel_size) == 1:
            return False
        if layer.norm is not None and not isinstance(synapse, (Dense, *CONVS)):
            return False
        if isinstance(synapse, Scale) and synapse.bias is not None:
            return False
    return True


@dataclass
class _Draft:
    """A NIR graph on its way."""

    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, node: Any) -> str:
        while name in self.nodes:
            name += "_"
        self.nodes[name] = node
        return name


def _draft(graph: SNNGraph, notes: list[str]) -> _Draft:
    import nir

    for layer in graph.layers:
        if not graph.outgoing(layer.name) and layer.name != graph.output:
            raise UnsupportedError(f"layer '{layer.name}': feeds nothing and is not the output; NIR takes it for one, remove it")
    draft = _Draft()
    draft.add(INPUT, nir.Input(input_type={"input": np.array(graph.input_shape)}))
    first, last = {}, {INPUT: INPUT}
    for layer in graph.layers:
        draft.nodes[layer.name] = None
    for layer in graph.layers:
        parts = _parts(graph, layer, notes)
        names = [draft.add(f"{layer.name}.{label}", node) for label, node in parts[:-1]]
        draft.nodes[layer.name] = parts[-1][1]
        names.append(layer.name)
        draft.edges += list(itertools.pairwise(names))
        first[layer.name], last[layer.name] = names[0], names[-1]
    closing = _closing(graph)
    stated = [_connect(draft, graph, edge, first, last, closing=edge in closing) for edge in graph.edges]
    output = draft.add("output", nir.Output(output_type={"output": np.array(graph.shape_of(graph.output))}))
    draft.edges.append((graph.output, output))
    draft.metadata = {
        DT_KEY: float(graph.dt_s),
        EDGES_KEY: json.dumps([item for item in stated if item]),
        FACTS_KEY: json.dumps(dict(graph.metadata), allow_nan=False),
    }
    return draft


# ------------------------------------------------------------------------------------------------------------- edges


def _closing(graph: SNNGraph) -> set[Edge]:
    """Return the delayed edges whose one step a NIR reader adds by itself: those in a cycle, where no plain edge lies already."""
    import networkx

    view = networkx.DiGraph([(edge.source, edge.target) for edge in graph.edges])
    place = {name: n for n, part in enumerate(networkx.strongly_connected_components(view)) for name in part}
    plain = {(edge.source, edge.target) for edge in graph.edges if not edge.delay}
    closing = set()
    for edge in sorted(graph.edges):
        if edge.delay and place[edge.source] == place[edge.target]:
            ends = (edge.source, edge.target)
            if edge.delay > 1 or ends not in plain:
                closing.add(edge)
                plain |= {ends} if edge.delay == 1 else set()
    return closing


def _connect(
    draft: _Draft, graph: SNNGraph, edge: Edge, first: dict[str, str], last: dict[str, str], *, closing: bool
) -> list[Any] | None:
    """Add the nodes and edges of one edge; return the [source, target, delay] that the metadata must state, if any."""
    import nir

    source, target = last[edge.source], first[edge.target]
    steps = edge.delay - closing
    after = target
    if steps:
        delay = nir.Delay(delay=np.full(graph.shape_of(edge.source), steps * graph.dt_s))
        after = draft.add(f"{source}.delay{edge.delay}", delay)
        draft.edges.append((after, target))
    draft.edges.append((source, after))
    return [source, after, 1] if closing else None


# ------------------------------------------------------------------------------------------------------------- nodes


def _parts(graph: SNNGraph, layer: Layer, notes: list[str]) -> list[tuple[str, Any]]:
    """Return the nodes of a layer in order, each with the ending of its name."""
    shape, output = graph.input_shape_of(layer.name), graph.shape_of(layer.name)
    parts: list[tuple[str, Any]] = []
    synapse, norm = layer.synapse, layer.norm
    if norm is not None:
        notes.append(f"layer '{layer.name}': batch norm is folded into the weights and rounded to float32")
        if isinstance(synapse, (Dense, *CONVS)):
            synapse, norm = folded(synapse, norm), None
    if isinstance(synapse, Dense) and len(shape) > 1:
        parts.append(("flatten", _flatten(shape)))
    if synapse is not None:
        parts += [(f"synapse{n or ''}", node) for n, node in enumerate(_synapse(layer.name, synapse, shape))]
    if norm is not None:
        parts.append(("norm", _per_channel(layer.name, *_gain_shift(norm), output)))
    if layer.neuron is not None:
        parts.append(("neuron", _neuron(layer, output)))
    return parts or [("sum", _scale(np.ones(shape)))]


def _synapse(name: str, synapse: Synapse, shape: Shape) -> Iterable[Any]:
    import nir

    if isinstance(synapse, Dense):
        weight = _f4(synapse.weight)
        return [nir.Linear(weight=weight) if synapse.bias is None else nir.Affine(weight=weight, bias=_f4(synapse.bias))]
    if isinstance(synapse, CONVS):
        return [_conv(synapse, shape)]
    if isinstance(synapse, Flatten):
        return [_flatten(shape)]
    if isinstance(synapse, POOLS):
        return [_pool(synapse, shape)]
    nodes = [_scale(np.broadcast_to(_f4(synapse.weight), shape))]
    if synapse.bias is not None:
        shift = np.broadcast_to(synapse.bias, shape)
        per_channel = shift.reshape(shape[0], -1)
        if (per_channel != per_channel[:, :1]).any():
            raise UnsupportedError(f"layer '{name}': a bias per position has no place in NIR; use one per channel")
        nodes.append(_per_channel(name, np.ones(shape[0]), per_channel[:, 0], shape))
    return nodes


def _conv(conv: Any, shape: Shape) -> Any:
    import nir

    bias = np.zeros(conv.weight.shape[0], np.float32) if conv.bias is None else _f4(conv.bias)
    if isinstance(conv, Conv1d):
        return nir.Conv1d(
            input_shape=int(shape[1]),
            weight=_f4(conv.weight),
            stride=int(conv.stride[0]),
            padding=int(conv.padding[0]),
            dilation=int(conv.dilation[0]),
            groups=int(conv.groups),
            bias=bias,
        )
    return nir.Conv2d(
        input_shape=tuple(int(n) for n in shape[1:]),
        weight=_f4(conv.weight),
        stride=tuple(conv.stride),
        padding=tuple(conv.padding),
        dilation=tuple(conv.dilation),
        groups=int(conv.groups),
        bias=bias,
    )


def _pool(pool: Any, shape: Shape) -> Any:
    """NIR pools over two axes only; over one axis it is a depthwise convolution."""
    import nir

    if len(pool.kernel_size) == 1:
        weight = np.ones((shape[0], 1, *pool.kernel_size)) / (pool.kernel_size[0] if isinstance(pool, AvgPool) else 1)
        return _conv(Conv1d(weight=weight, stride=pool.stride, padding=pool.padding, groups=shape[0]), shape)
    kind = nir.SumPool2d if isinstance(pool, SumPool) else nir.AvgPool2d
    return kind(kernel_size=np.array(pool.kernel_size), stride=np.array(pool.stride), padding=np.array(pool.padding))


def _per_channel(name: str, gain: Array, shift: Array, shape: Shape) -> Any:
    """Return `gain · x + shift` per channel: NIR has no such node, a depthwise 1 × 1 convolution is one."""
    import nir

    if len(shape) == 1:
        return nir.Affine(weight=_f4(np.diag(gain)), bias=_f4(shift))
    if len(shape) > 3:
        raise UnsupportedError(f"layer '{name}': a scale and shift of {len(shape)} axes has no place in NIR; fold it")
    kind: Any = Conv1d if len(shape) == 2 else Conv2d
    return _conv(kind(weight=np.asarray(gain).reshape(-1, *(1 for _ in shape)), bias=shift, groups=shape[0]), shape)


def _scale(values: Array) -> Any:
    import nir

    return nir.Scale(scale=_f4(values))


def _flatten(shape: Shape) -> Any:
    import nir

    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _neuron(layer: Layer, shape: Shape) -> Any:
    import nir

    neuron = layer.neuron
    given = {"r": neuron.r} if not isinstance(neuron, LoihiLIF) and neuron is not None else {}
    if isinstance(neuron, (LIF, LI)):
        given |= {"tau": neuron.tau_s, "v_leak": neuron.v_leak}
    if isinstance(neuron, (CubaLIF, CubaLI)):
        given |= {"tau_mem": neuron.tau_mem_s, "tau_syn": neuron.tau_syn_s, "v_leak": neuron.v_leak, "w_in": neuron.w_in}
    metadata = {}
    if isinstance(neuron, (IF, LIF, CubaLIF)):
        given |= {"v_threshold": neuron.v_threshold, "v_reset": neuron.v_reset}
        metadata = {RESET_KEY: neuron.reset}
    kind = getattr(nir, type(neuron).__name__)
    return kind(**{name: _full(value, shape) for name, value in given.items()}, metadata=metadata)


def _full(value: Array, shape: Shape) -> Array:
    """Return a parameter in full shape: float32, or float64 where float32 would change it."""
    exact = value.astype(np.float64)
    short = exact.astype(np.float32)
    return np.broadcast_to(short if (short == exact).all() else exact, shape).copy()


def _f4(value: Array) -> Array:
    return np.ascontiguousarray(value, dtype=np.float32)


# ----------------------------------------------------------------------------------------- what becomes other numbers


def folded(synapse: Any, norm: BatchNorm) -> Any:
    """Return the weights that do what the weights and the batch norm behind them do; computed in float64."""
    gain, shift = _gain_shift(norm)
    bias = shift if synapse.bias is None else synapse.bias.astype(np.float64) * gain + shift
    weight = synapse.weight.astype(np.float64) * gain.reshape(-1, *(1 for _ in synapse.weight.shape[1:]))
    return replace(synapse, weight=weight, bias=bias)


def _gain_shift(norm: BatchNorm) -> tuple[Array, Array]:
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.var.astype(np.float64) + norm.eps)
    return gain, norm.bias.astype(np.float64) - norm.mean.astype(np.float64) * gain


def as_float(graph: SNNGraph) -> SNNGraph:
    """Return an integer network in floating point where that does exactly the same, states in units of 64.

    Truncated decays have no counterpart in NIR's equations, so only neurons that keep all or nothing of v are written.

    Raises:
        UnsupportedError: anything else, by layer.
    """
    if not graph.is_integer:
        return graph
    return graph.with_layers(lambda layer: _float_layer(layer, graph.dt_s))


def _float_layer(layer: Layer, dt_s: float) -> Layer:
    neuron, synapse = layer.neuron, layer.synapse
    if isinstance(synapse, Scale):
        raise UnsupportedError(f"layer '{layer.name}': rounds its input, NIR cannot; {REMEDY}")
    if isinstance(synapse, (Dense, *CONVS)):
        synapse = _shifted(layer.name, synapse)
    if not isinstance(neuron, LoihiLIF):
        return replace(layer, synapse=synapse)
    full, none = bool((neuron.decay_v == 4096).all()), bool((neuron.decay_v == 0).all())
    plain = (neuron.decay_u == 4096).all() and not neuron.v_init.any() and not neuron.refractory_steps
    if not plain or not (full or (none and neuron.v_threshold is not None)):
        raise UnsupportedError(f"layer '{layer.name}': integer decays truncate, NIR's equations do not; {REMEDY}")
    if neuron.bias.any():
        if not isinstance(synapse, (Dense, *CONVS)) or neuron.bias.size not in (1, synapse.weight.shape[0]):
            raise UnsupportedError(f"layer '{layer.name}': a bias without weights has no place in NIR; {REMEDY}")
        given = 0 if synapse.bias is None else synapse.bias
        shift = np.broadcast_to(neuron.bias.reshape(-1) / LOIHI_UNIT, synapse.weight.shape[:1])
        synapse = replace(synapse, bias=given + shift)
    if neuron.v_threshold is None:
        return replace(layer, synapse=synapse, neuron=LI(tau_s=np.asarray(dt_s)))
    threshold = neuron.v_threshold.astype(np.float64)
    if full:
        return replace(layer, synapse=synapse, neuron=LIF(tau_s=np.asarray(dt_s), v_threshold=threshold, reset=neuron.reset))
    return replace(layer, synapse=synapse, neuron=IF(v_threshold=threshold, reset=neuron.reset))


def _shifted(name: str, synapse: Any) -> Any:
    """Return the weights with their common exponent in them."""
    weight = synapse.weight * 2.0**synapse.weight_exponent
    if (weight != np.rint(weight)).any():
        raise UnsupportedError(f"layer '{name}': its sum is shifted down and truncated, NIR cannot; {REMEDY}")
    return replace(synapse, weight=weight, weight_exponent=0)
