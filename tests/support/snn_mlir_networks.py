"""Integer networks whose arithmetic snn-mlir computes too, and the jobs that describe them to it.

snn-mlir holds weights in int8, and states, decays and thresholds in 1/4096. A product with a decay loses its fraction downwards:

    LIF        v ← ⌊keep_v · v / 4096⌋ + x · 2^(12 − scale)                    spike where v > threshold, then v ← 0
    CubaLIF    u ← ⌊keep_u · u / 4096⌋ + x · 2^(12 − scale);  v ← ⌊keep_v · v / 4096⌋ + u

`ReckonLIF` is that LIF: it loses its fraction downwards too, and decays behind the test of the threshold what snn-mlir decays in
front of the next input. `LoihiLIF` is that CubaLIF at a scale of 6 where no state is below 0, and that LIF where nothing leaks:
Loihi loses the fraction towards 0.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import Conv2d, Dense, Flatten, Layer, LoihiLIF, ReckonLIF, SumPool
from spear_deploy.network.graph import SNNGraph, chain

ONE, BITS, LOIHI_SCALE = 4096, 12, 6
STEPS, FEW_INPUTS = 60, 27


def random_reckon(seed: int) -> tuple[SNNGraph, Any]:
    """Return a network of ReckOn's neurons and its input (T, 1, *shape); every third ends in a readout."""
    rng = np.random.default_rng(seed)
    layers, shape = _random_layers(rng, convolutional=seed % 4 >= 2)
    for k, layer in enumerate(layers):
        if isinstance(layer.synapse, (Dense, Conv2d)):
            # as far as the chip's 16 bits hold: snn-mlir's states have 32
            shift = int(rng.integers(0, 4)) if layer.synapse.weight[0].size <= FEW_INPUTS else 0
            weight = rng.integers(-127, 128, layer.synapse.weight.shape)
            bias = rng.integers(-20, 30, len(weight)) << shift if seed % 2 else None
            keep, threshold = 8 * rng.integers(3700, ONE), int(rng.integers(80, 300)) << shift
            if seed % 3 == 0 and k == len(layers) - 1:
                keep, threshold = rng.integers(100, 128), None  # type: ignore[assignment]
            synapse = replace(layer.synapse, weight=_fill_int8(weight, 127), bias=bias, weight_exponent=shift)
            layers[k] = Layer(name=layer.name, synapse=synapse, neuron=ReckonLIF(keep=keep, v_threshold=threshold))
    return _with_input(layers, shape, rng)


def random_loihi(seed: int) -> tuple[SNNGraph, Any]:
    """Return a network of Loihi's neurons and its input: weights of both signs without a leak, or from 0 up with leaks."""
    rng = np.random.default_rng(seed)
    layers, shape = _random_layers(rng, convolutional=seed % 4 >= 2)
    for k, layer in enumerate(layers):
        if isinstance(layer.synapse, (Dense, Conv2d)):
            leaks = bool(seed % 2)
            weight = 2 * rng.integers(0 if leaks else -63, 64, layer.synapse.weight.shape)
            decays = (rng.integers(200, ONE, 2) if seed % 3 else (ONE, rng.integers(1, 2000))) if leaks else (ONE, 0)
            threshold = int(rng.integers(200, 900)) if leaks else int(rng.integers(80, 300))
            bias = {} if leaks else {"bias_mantissa": int(rng.integers(-20, 30)), "bias_exponent": LOIHI_SCALE}
            if seed % 3 == 0 and not leaks and k == len(layers) - 1:
                threshold = None  # type: ignore[assignment]
            neuron = LoihiLIF(decay_u=decays[0], decay_v=decays[1], v_threshold=threshold, **bias)
            layers[k] = Layer(name=layer.name, synapse=replace(layer.synapse, weight=_fill_int8(weight, 126)), neuron=neuron)
    return _with_input(layers, shape, rng)


def to_job(graph: SNNGraph, x: Any) -> dict[str, Any]:
    """Return the job of a chain of layers; see `snn_mlir_runs`."""
    layers: list[dict[str, Any]] = []
    for layer in graph.layers:
        shape, synapse, neuron = list(graph.shape_of(layer.name)), layer.synapse, layer.neuron
        if isinstance(synapse, Flatten):
            layers.append({"kind": "flatten", "shape": [int(np.prod(shape))]})
            continue
        if isinstance(synapse, SumPool):
            space = {name: getattr(synapse, name) for name in ("kernel_size", "stride", "padding")}
            layers.append({"kind": "sum_pool", "shape": shape, **space})
            continue
        assert isinstance(synapse, (Dense, Conv2d)) and isinstance(neuron, (ReckonLIF, LoihiLIF))
        loihi = isinstance(neuron, LoihiLIF)
        scale = LOIHI_SCALE if loihi else BITS - synapse.weight_exponent
        row: dict[str, Any] = {"scale": scale, "weight": synapse.weight.astype(int).tolist(), "shape": shape, "bias": None}
        if loihi and neuron.bias.any():
            row["bias"] = [int(neuron.bias) >> LOIHI_SCALE] * len(synapse.weight)
        elif synapse.bias is not None:
            row["bias"] = (synapse.bias.astype(int) >> synapse.weight_exponent).tolist()
        space = {"stride": synapse.stride, "padding": synapse.padding} if isinstance(synapse, Conv2d) else {}
        layers.append({"kind": "conv" if space else "dense", **row, **space})
        layers.append({"shape": shape, **(_describe_loihi(neuron) if loihi else _describe_reckon(neuron))})
    steps = x[:, 0].reshape(len(x), -1).astype(int)
    return {"x": steps.tolist(), "input_shape": list(graph.input_shape), "layers": layers}


def to_readout(neuron: Any, v: Any) -> Any:
    """Return a readout's potential as this package records it: ReckOn's falls in the step, snn-mlir's before the next."""
    return v * int(neuron.keep) >> 7 if isinstance(neuron, ReckonLIF) else v


def _describe_reckon(neuron: ReckonLIF) -> dict[str, Any]:
    if neuron.v_threshold is None:
        return {"kind": "li", "keep_v": int(neuron.keep) << BITS - 7}
    return {"kind": "lif", "keep_v": int(neuron.keep) >> 3, "threshold": int(neuron.v_threshold) - 1}


def _describe_loihi(neuron: LoihiLIF) -> dict[str, Any]:
    keep_u, keep_v = ONE - int(neuron.decay_u), ONE - int(neuron.decay_v)
    threshold = {} if neuron.v_threshold is None else {"threshold": int(neuron.v_threshold) << LOIHI_SCALE}
    if neuron.v_threshold is None:
        return {"kind": "li", "keep_v": keep_v}
    if keep_u:
        return {"kind": "cubalif", "keep_u": keep_u, "keep_v": keep_v, **threshold}
    return {"kind": "if" if keep_v == ONE else "lif", "keep_v": keep_v, **threshold}


def _random_layers(rng: np.random.Generator, *, convolutional: bool) -> tuple[list[Layer], tuple[int, ...]]:
    """Return layers whose weights are still 1, and the input's shape."""
    if not convolutional:
        sizes = [int(n) for n in rng.integers(6, 24, int(rng.integers(3, 5)))]
        dense = [np.ones((b, a)) for a, b in itertools.pairwise(sizes)]
        return [Layer(name=f"fc{k}", synapse=Dense(weight=weight)) for k, weight in enumerate(dense)], (sizes[0],)
    c, o, kernel = int(rng.integers(1, 3)), int(rng.integers(2, 5)), int(rng.integers(2, 4))
    stride, padding = (int(rng.integers(1, 3)), 1), (int(rng.integers(0, 2)), 1)
    conv = Conv2d(weight=np.ones((o, c, kernel, kernel)), stride=stride, padding=padding)
    pool = SumPool(kernel_size=(2, 2), stride=(2, int(rng.integers(1, 3))))
    size = (c, int(rng.integers(7, 10)), 8)
    inputs = int(np.prod(pool.output_shape(conv.output_shape(size))))
    head = Dense(weight=np.ones((int(rng.integers(4, 12)), inputs)))
    parts = {"conv": conv, "pool": pool, "flat": Flatten(), "fc": head}
    return [Layer(name=name, synapse=part) for name, part in parts.items()], size


def _fill_int8(weight: Any, highest: int) -> Any:
    """Return weights of which one is the highest: the quantiser scales the largest to int8, and then changes none."""
    weight.flat[0] = highest
    return weight


def _with_input(layers: list[Layer], shape: tuple[int, ...], rng: np.random.Generator) -> tuple[SNNGraph, Any]:
    return chain(layers, input_shape=shape), rng.random((STEPS, 1, *shape)) < 0.3
