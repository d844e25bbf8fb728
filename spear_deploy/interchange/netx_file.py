"""What network does a netx file (lava-dl, HDF5) describe?

A chain of integer layers, `layer/0`, `layer/1`, ..., in the order of the data:

    weight   (O, I) or (O, I, kH, kW[, 1]), torch's orientation        shape   (C, H, W)
    bias     what is added to v each step is 64 · bias                  delay   further steps on the way in
    neuron   iDecay = decay_u, vDecay = decay_v, vThMant = v_threshold, refDelay = 1 + refractory steps
    input    its neurons get the bias round(weight · current + bias)

lava-dl flattens (C, H, W) in that order in front of a dense layer. Sigma-delta and resonate-and-fire neurons have no
counterpart yet and are refused by name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError
from spear_deploy.graph import INPUT, Edge, SNNGraph, merge_parts
from spear_deploy.interchange.hdf5_tree import Tree, read_tree, text_of, whole_numbers
from spear_deploy.interchange.netx_writer import write_netx
from spear_deploy.layers import Array, Conv2d, Dense, Flatten, Layer, LoihiLIF, Scale, Shape

__all__ = ["read_netx", "write_netx"]

NEVER = 2**17
"""64 times a threshold mantissa from here on is out of reach of a 24-bit state."""
MOST_DELAY = 62
BIAS_EXPONENT = 6
BIAS_MANTISSAS = 2**12
WEIGHTS = (-256, 255)


def read_netx(path: str | os.PathLike[str], *, input_shape: Shape | None = None) -> SNNGraph:
    """Read a netx file as an integer network.

    Args:
        path: the file.
        input_shape: of the input, (C, H, W); needed only where a file without an input layer starts with a strided convolution.

    Returns:
        The network; layers are called "layer0", "layer1", ... by their index in the file.

    Raises:
        FileError: missing, truncated, foreign.
        GraphError: layers that contradict each other, weights that are no whole numbers.
        UnsupportedError: a layer or neuron with no counterpart, by name.
    """
    tree = read_tree(path, "netx file")
    try:
        return _network(tree, input_shape)
    except SpearError as error:
        raise type(error)(f"file '{Path(path)}': {error}") from error


@dataclass
class _Chain:
    """The network on its way: what has been read, and what comes out of it so far."""

    shape: Shape | None
    source: str = INPUT
    input_shape: Shape | None = None
    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, layer: Layer, *, delay: int = 0) -> None:
        """Put a layer at the end."""
        self.edges.append(Edge(source=self.source, target=layer.name, delay=delay))
        self.layers.append(layer)
        self.shape, self.source = layer.output_shape(self.known_shape()), layer.name

    def known_shape(self) -> Shape:
        """Return the shape at the end."""
        assert self.shape is not None
        return self.shape


def _network(tree: Tree, input_shape: Shape | None) -> SNNGraph:
    rows = tree.get("layer")
    if not isinstance(rows, dict) or not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise FileError("holds no netx network; expected groups 'layer/0', 'layer/1', ...")
    missing = [str(n) for n in range(len(rows)) if str(n) not in rows]
    if missing:
        raise GraphError(f"layer {missing[0]} is missing, {len(rows)} layers are there; export the network again")
    chain = _Chain(shape=input_shape, input_shape=input_shape)
    for n in range(len(rows)):
        row = rows[str(n)]
        name = text_of(row.get("name")) or f"layer{n}"
        kind = text_of(row.get("type")) or "none"
        if kind not in READERS:
            known = ", ".join(READERS)
            raise UnsupportedError(f"layer {n}: type '{kind}' has no counterpart; known are {known}")
        try:
            READERS[kind](chain, name, row)
        except SpearError as error:
            raise type(error)(f"layer {n}: {error}") from error
    if not chain.layers or chain.input_shape is None:
        raise GraphError("there is no layer behind the input; export the network again")
    graph = SNNGraph(
        layers=tuple(chain.layers),
        edges=tuple(chain.edges),
        input_shape=chain.input_shape,
        dt_s=_time_step(tree, chain.notes),
        output=chain.source,
        metadata={"assumptions": chain.notes},
    )
    return merge_parts(graph)


def _time_step(tree: Tree, notes: list[str]) -> float:
    simulation = tree.get("simulation")
    step = simulation.get("Ts") if isinstance(simulation, dict) else None
    if isinstance(step, np.ndarray) and step.size == 1 and step.dtype.kind in "iuf":
        return float(step.reshape(-1)[0]) * 1e-3
    notes.append("the file states no Ts: a step of 1 ms is taken")
    return 1e-3


# ------------------------------------------------------------------------------------------------------------ layers


def _input(chain: _Chain, name: str, row: Tree) -> None:
    if chain.layers:
        raise UnsupportedError("an input layer behind others has no counterpart; one in front is supported")
    chain.shape = chain.input_shape = _stated_shape(row)
    neuron = _neuron(chain, row, chain.shape)
    if neuron is None:
        return
    weight, bias = (_per_neuron(_numbers(row, key), chain.shape, key) if key in row else None for key in ("weight", "bias"))
    scale = Scale(weight=np.array(64.0) if weight is None else weight, bias=bias)
    still = replace(neuron, decay_u=np.array(4096), bias_mantissa=np.array(0), bias_exponent=0)
    chain.add(Layer(name=name, synapse=scale, neuron=still))


def _dense(chain: _Chain, name: str, row: Tree) -> None:
    outputs = int(np.prod(_stated_shape(row)))
    weight = _rows(_weights(chain, name, row, "weight"), outputs)
    if chain.shape is None:
        chain.shape = chain.input_shape = (weight.shape[1],)
    recurrent = _rows(_weights(chain, name, row, "weight_rec"), outputs) if text_of(row["type"]) == "dense_rec" else None
    _weighted(chain, name, row, weight, {}, recurrent)


def _conv(chain: _Chain, name: str, row: Tree) -> None:
    weight = _kernel(_weights(chain, name, row, "weight"))
    geometry = _geometry(row)
    geometry["groups"] = _sizes(row.get("groups", np.array(1)), "groups", 1)[0]
    if chain.shape is None:
        chain.shape = chain.input_shape = _shape_before(weight, geometry, _stated_shape(row))
    _weighted(chain, name, row, weight, geometry, None)


def _pool(chain: _Chain, name: str, row: Tree) -> None:
    """A pool is a convolution of each channel with one kernel; its neurons are like others."""
    if chain.shape is None:
        raise UnsupportedError("a pool in front tells no input shape; give input_shape")
    if "weight" in row:
        kernel = _kernel(_weights(chain, name, row, "weight"))[:1, :1]
    else:
        sizes = _sizes(row.get("kernelSize"), "kernelSize", 1)
        kernel = np.ones((1, 1, *_pair(sizes)), np.int32)
    channels = chain.shape[0]
    geometry = {**_geometry(row), "groups": channels}
    if "stride" not in row:
        geometry["stride"] = kernel.shape[2:]
    _weighted(chain, name, row, np.repeat(kernel, channels, axis=0), geometry, None)


def _flatten(chain: _Chain, name: str, row: Tree) -> None:
    if chain.shape is None:
        chain.shape = chain.input_shape = _stated_shape(row)
    chain.add(Layer(name=name, synapse=Flatten()))


def _average(chain: _Chain, name: str, row: Tree) -> None:
    """Integers hold no mean: the sum is the same up to a factor."""
    groups, count = int(np.prod(_stated_shape(row))), int(np.prod(chain.shape or 0))
    if not count or count % groups:
        raise GraphError(f"averages {count} neurons into {groups}, which do not divide; export the network again")
    chain.notes.append(f"'{name}' sums {count // groups} neurons into one instead of averaging them")
    chain.add(Layer(name=name, synapse=Dense(weight=np.repeat(np.eye(groups, dtype=np.int32), count // groups, axis=1))))


READERS: dict[str, Any] = {
    "input": _input,
    "dense": _dense,
    "dense_rec": _dense,
    "conv": _conv,
    "pool": _pool,
    "flatten": _flatten,
    "average": _average,
}


def _weighted(chain: _Chain, name: str, row: Tree, weight: Array, geometry: dict[str, Any], recurrent: Array | None) -> None:
    """Add a layer with weights: one row, or several that add up where delays differ or the layer feeds itself."""
    shape = _synapse(weight, geometry).output_shape(chain.known_shape())
    stated = _stated_shape(row)
    if int(np.prod(stated)) != int(np.prod(shape)) or (geometry and len(stated) == 3 and stated != shape):
        raise GraphError(f"states a shape of {stated}, its weights give {shape}; export the network again")
    neuron = _neuron(chain, row, shape)
    exponent = _exponent(row, chain.notes, name)
    delays = _delays(row, weight, chain.notes, name)
    bias = None if neuron is not None or "bias" not in row else _whole(_numbers(row, "bias"), "bias").reshape(-1)
    if recurrent is None and delays.size == 1:
        synapse = replace(_synapse(weight, geometry), weight_exponent=exponent, bias=bias)
        chain.add(Layer(name=name, synapse=synapse, neuron=neuron), delay=int(delays))
        return
    if neuron is None or (recurrent is not None and delays.size > 1):
        raise UnsupportedError("delays that differ need a neuron and no recurrent weights; give the layer one delay")
    parts = [(f"{name}.input", chain.source, weight, 0)]
    if recurrent is not None:
        if recurrent.shape != (weight.shape[0], weight.shape[0]):
            raise GraphError(f"recurrent weights of shape {recurrent.shape} for {weight.shape[0]} neurons; export it again")
        parts.append((f"{name}.recurrent", name, recurrent, 1))
    for label, source, values, least in parts:
        spread = np.broadcast_to(delays, values.shape)
        for delay in np.unique(spread):
            part = label if delays.size == 1 else f"{label}.delay{delay}"
            chosen = np.where(spread == delay, values, 0)
            chain.layers.append(Layer(name=part, synapse=replace(_synapse(chosen, geometry), weight_exponent=exponent)))
            chain.edges += [Edge(source=source, target=part, delay=least + int(delay)), Edge(source=part, target=name)]
    chain.layers.append(Layer(name=name, neuron=neuron))
    chain.shape, chain.source = shape, name


def _synapse(weight: Array, geometry: dict[str, Any]) -> Dense | Conv2d:
    return Conv2d(weight=weight, **geometry) if geometry else Dense(weight=weight)


def _neuron(chain: _Chain, row: Tree, shape: Shape) -> LoihiLIF | None:
    stored = row.get("neuron")
    if not isinstance(stored, dict):
        return None
    kind = text_of(stored.get("type"))
    if kind not in ("LOIHI", "CUBA"):
        what = "sigma-delta" if kind == "SDNN" else f"'{kind}'"
        raise UnsupportedError(f"{what} neurons have no counterpart yet; CUBA and LOIHI are supported")
    graded = stored.get("gradedSpike")
    if isinstance(graded, np.ndarray) and graded.any():
        raise UnsupportedError("graded spikes between layers have no counterpart; use binary spikes")
    values: dict[str, Any] = {}
    for ours, theirs in (("decay_u", "iDecay"), ("decay_v", "vDecay"), ("v_threshold", "vThMant")):
        values[ours] = _per_neuron(_whole(_numbers(stored, theirs), theirs), shape, theirs)
    threshold: Array | None = values.pop("v_threshold")
    if (threshold is not None and (threshold >= NEVER).all()) or "readout" in stored:
        threshold = None
    rest = _sizes(stored.get("refDelay", np.array(1)), "refDelay", 0)[0]
    mantissa, exponent = np.zeros((), np.int64), 0
    if "bias" in row:
        mantissa, exponent = _bias(chain, _per_neuron(_whole(_numbers(row, "bias"), "bias"), shape, "bias", flipped=True))
    return LoihiLIF(
        **values,
        v_threshold=threshold,
        bias_mantissa=mantissa,
        bias_exponent=exponent,
        refractory_steps=max(0, rest - 1),
    )


def _bias(chain: _Chain, bias: Array) -> tuple[Array, int]:
    """Return (mantissa, exponent) of 64 · bias, within 13 bits where it can be."""
    exponent = BIAS_EXPONENT
    while np.abs(bias).max() >= BIAS_MANTISSAS and exponent < 7 and not (bias % 2).any():
        bias, exponent = bias // 2, exponent + 1
    if np.abs(bias).max() >= BIAS_MANTISSAS:
        chain.notes.append(f"a bias of {int(np.abs(bias).max())} is beyond the 13 bits of the chip and kept as it is")
    return bias, exponent


# ------------------------------------------------------------------------------------------------------------ values


def _numbers(row: Tree, key: str) -> Array:
    value = row.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.size == 0:
        raise GraphError(f"'{key}' is missing or holds no numbers; export the network again")
    if not np.isfinite(value).all():
        raise GraphError(f"'{key}' holds NaN or infinite values; retrain or repair the network")
    return value


def _whole(value: Array, key: str) -> Array:
    wrong = (value != np.rint(value)) | (np.abs(value.astype(np.float64)) > 2**31)
    if wrong.any():
        raise GraphError(f"'{key}' holds {value[wrong][0]:g}, expected whole numbers of the chip; export the quantised network")
    return value.astype(np.int64)


def _weights(chain: _Chain, name: str, row: Tree, key: str) -> Array:
    if isinstance(row.get(key), dict):
        raise UnsupportedError("complex weights have no counterpart; use real ones")
    weight = _whole(_numbers(row, key), key)
    if weight.min() < WEIGHTS[0] or weight.max() > WEIGHTS[1]:
        chain.notes.append(
            f"'{name}': weights of {weight.min()}..{weight.max()} are kept; lava-dl would clip them to {WEIGHTS[0]}..{WEIGHTS[1]}"
        )
    return weight.astype(np.int32)


def _rows(weight: Array, outputs: int) -> Array:
    if weight.size % outputs:
        raise GraphError(f"{weight.size} weights for {outputs} neurons do not divide; export the network again")
    return weight.reshape(outputs, -1)


def _kernel(weight: Array) -> Array:
    if weight.ndim < 4 or any(n != 1 for n in weight.shape[4:]):
        raise GraphError(f"kernel of shape {weight.shape}, expected (O, I, kH, kW) or (O, I, kH, kW, 1); export it again")
    return weight.reshape(weight.shape[:4])


def _geometry(row: Tree) -> dict[str, Any]:
    defaults = {"stride": 1, "padding": 0, "dilation": 1}
    return {key: _pair(_sizes(row.get(key, np.array(n)), key, min(n, 1))) for key, n in defaults.items()}


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    if len(sizes) > 2 and any(n != sizes[1] for n in sizes[2:]):
        raise GraphError(f"sizes {sizes}, expected one or two numbers; export the network again")
    return (sizes[0], sizes[0] if len(sizes) == 1 else sizes[1])


def _sizes(value: Any, key: str, least: int) -> tuple[int, ...]:
    numbers = whole_numbers(value)
    if not numbers or min(numbers) < least:
        raise GraphError(f"'{key}' is missing or no whole number from {least}; export the network again")
    return numbers


def _stated_shape(row: Tree) -> Shape:
    return _sizes(row.get("shape"), "shape", 1)


def _shape_before(weight: Array, geometry: dict[str, Any], output: Shape) -> Shape:
    """Return the input shape of a convolution that is the first layer."""
    if len(output) != 3 or any(s != 1 for s in geometry["stride"]):
        raise UnsupportedError("a strided convolution in front tells no input shape; give input_shape")
    kernel, padding, dilation = weight.shape[2:], geometry["padding"], geometry["dilation"]
    sizes = [n + d * (k - 1) - 2 * p for n, k, p, d in zip(output[1:], kernel, padding, dilation, strict=True)]
    return (weight.shape[1] * geometry["groups"], *sizes)


def _per_neuron(value: Array, shape: Shape, key: str, *, flipped: bool = False) -> Array:
    """Return a parameter that spreads over (C, H, W): one number, one per channel, or one per neuron (lava-dl: W, H, C)."""
    if value.size == 1:
        return value.reshape(())
    if value.size == shape[0]:
        return value.reshape(-1, *(1 for _ in shape[1:]))
    if flipped and value.shape == shape[::-1]:
        return value.transpose()
    if value.shape == shape:
        return value
    raise GraphError(f"'{key}' of shape {value.shape} for neurons of shape {shape}; export the network again")


def _exponent(row: Tree, notes: list[str], name: str) -> int:
    stored = row.get("neuron")
    value = whole_numbers(stored.get("wgtExp")) if isinstance(stored, dict) else None
    if not value or not value[0]:
        return 0
    if abs(value[0]) > 7:
        raise GraphError(f"'wgtExp' of {value[0]}, the format holds -8..7; export the network again")
    notes.append(f"'{name}': weights count 2^{value[0]} times (wgtExp); lava-dl's reader passes over it")
    return value[0]


def _delays(row: Tree, weight: Array, notes: list[str], name: str) -> Array:
    """Return the delay in steps: one number for all, or an array that lies over the weights."""
    if "delay" not in row:
        return np.zeros((), np.int64)
    delays = np.floor(_numbers(row, "delay")).astype(np.int64)
    if delays.min() < 0:
        raise GraphError(f"a delay of {delays.min()} steps, expected 0..{MOST_DELAY}; export the network again")
    if delays.max() > MOST_DELAY:
        notes.append(f"'{name}': delays of up to {delays.max()} steps are cut to {MOST_DELAY}, as lava-dl does")
        delays = np.minimum(delays, MOST_DELAY)
    if (delays == delays.reshape(-1)[0]).all():
        return delays.reshape(-1)[0]
    rest = tuple(1 for _ in weight.shape[1:])
    if delays.ndim == 1 and delays.size == weight.shape[0]:
        notes.append(f"'{name}': a delay per neuron acts on all its inputs, as in lava-dl's netx")
        return np.broadcast_to(delays.reshape(-1, *rest), weight.shape)
    if delays.ndim == 1 and delays.size == weight.shape[1]:
        return np.broadcast_to(delays.reshape(1, -1, *rest[1:]), weight.shape)
    if delays.shape == weight.shape:
        return delays
    raise GraphError(f"delays of shape {delays.shape} for weights of shape {weight.shape}; export the network again")
