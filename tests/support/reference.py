"""Slow loops as references for fast code."""

from __future__ import annotations

import itertools

import numpy as np

from spear_deploy.network import IF, LI, LIF, AvgPool, BatchNorm, Conv2d, CubaLIF, Dense, Flatten, Layer, LoihiLIF, SumPool
from spear_deploy.network.graph import Edge, SNNGraph


def conv2d_synapses(conv: Conv2d, input_shape):
    """Yield (input index, output index, weight) of every synapse of a convolution."""
    channels, height, width = input_shape
    outputs, out_height, out_width = conv.output_shape(input_shape)
    inputs_per_group = channels // conv.groups
    outputs_per_group = outputs // conv.groups
    kernel_height, kernel_width = conv.weight.shape[2:]
    for o, y, x in itertools.product(range(outputs), range(out_height), range(out_width)):
        for i, ky, kx in itertools.product(range(inputs_per_group), range(kernel_height), range(kernel_width)):
            row = y * conv.stride[0] - conv.padding[0] + ky * conv.dilation[0]
            column = x * conv.stride[1] - conv.padding[1] + kx * conv.dilation[1]
            if 0 <= row < height and 0 <= column < width:
                channel = (o // outputs_per_group) * inputs_per_group + i
                yield (channel, row, column), (o, y, x), conv.weight[o, i, ky, kx]


def conv2d(conv: Conv2d, x):
    """Convolve one sample (C, H, W) synapse by synapse."""
    y = np.zeros(conv.output_shape(x.shape))
    for source, target, weight in conv2d_synapses(conv, x.shape):
        y[target] += weight * x[source]
    if conv.bias is not None:
        y += np.asarray(conv.bias).reshape(-1, 1, 1)
    return y


def conv2d_synops(conv: Conv2d, counts):
    """Enumerate: spikes × existing synapses."""
    return sum(int(counts[source]) for source, _, weight in conv2d_synapses(conv, counts.shape) if weight != 0)


def loihi_step(u, v, x, *, decay_u, decay_v, threshold, bias):
    """One step of one integer neuron, in Python's unbounded integers."""

    def decayed(value, decay):
        product = value * (4096 - decay)
        return abs(product) // 4096 * (1 if product >= 0 else -1)

    limit = 2**23
    u = decayed(u, decay_u) + 64 * x
    if u > limit:
        u -= 2 * limit
    elif u <= -limit:
        u += 2 * limit
    v = min(max(decayed(v, decay_v) + u + bias, 1 - limit), limit - 1)
    spike = v > 64 * threshold
    return u, 0 if spike else v, spike


def random_graph(seed: int, *, kind: str = "float") -> SNNGraph:
    """A small random network with a skip, pooling, a depthwise convolution, a flatten and sometimes a loop.

    Weights lie on a coarse binary grid, so that no floating-point sum rounds and any order of summation is exact.
    """
    rng = np.random.default_rng(seed)
    integer = kind == "integer"

    def grid(*shape):
        return rng.integers(-8, 9, shape) if integer else rng.integers(-8, 9, shape).astype(np.float32) / 8

    def neuron(channels=None, dims=2):
        spread = (channels,) + (1,) * dims if channels and rng.random() < 0.5 else ()
        if integer:
            threshold = rng.integers(1, 12, spread)
            return LoihiLIF(
                decay_u=int(rng.choice([4096, 2048])),
                decay_v=rng.integers(0, 4097, spread),
                v_threshold=threshold,
                bias_mantissa=rng.integers(-64, 128, spread),
            )
        threshold = rng.integers(2, 8, spread) / 8
        pick = rng.integers(3)
        reset = str(rng.choice(["value", "subtract"]))
        if pick == 0:
            return IF(v_threshold=threshold, reset=reset)
        if pick == 1:
            return LIF(tau_s=0.002, r=2.0, v_threshold=threshold, reset=reset)
        return CubaLIF(tau_mem_s=0.002, tau_syn_s=0.002, w_in=2.0, r=2.0, v_threshold=threshold, reset=reset)

    a, b, c = (int(n) for n in rng.integers(2, 6, 3))
    size = int(rng.integers(5, 8))
    bias = (lambda n: grid(n)) if rng.random() < 0.5 else (lambda n: None)
    norm = None
    if not integer and rng.random() < 0.5:
        norm = BatchNorm(weight=np.float32(1) + grid(b), bias=grid(b), mean=grid(b), var=np.ones(b, np.float32), eps=0.0)
    layers = [
        Layer(name="conv1", synapse=Conv2d(weight=grid(b, a, 3, 3), bias=bias(b), padding=(1, 1)), norm=norm, neuron=neuron(b)),
        Layer(name="depthwise", synapse=Conv2d(weight=grid(b, 1, 3, 3), padding=(1, 1), groups=b), neuron=neuron(b)),
        Layer(name="conv2", synapse=Conv2d(weight=grid(b, b, 3, 3), padding=(1, 1), bias=bias(b))),
        Layer(name="sum", neuron=neuron(b)),
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2)) if integer or rng.random() < 0.5 else AvgPool(kernel_size=(2, 2))),
        Layer(name="conv3", synapse=Conv2d(weight=grid(c, b, 2, 2), stride=(1, 1)), neuron=neuron(c)),
        Layer(name="flatten", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=grid(6, c * (size // 2 - 1) ** 2)), neuron=neuron()),
        Layer(name="out", synapse=Dense(weight=grid(3, 6)), neuron=neuron() if integer else LI(tau_s=0.002)),
    ]
    names = ["input", *(layer.name for layer in layers)]
    edges = [Edge(source=s, target=t) for s, t in itertools.pairwise(names)]
    edges.append(Edge(source="conv1", target="sum"))
    if rng.random() < 0.5:
        layers.insert(8, Layer(name="loop", synapse=Dense(weight=grid(6, 6))))
        edges += [Edge(source="fc", target="loop", delay=1), Edge(source="loop", target="fc_sum")]
        layers[7] = Layer(name="fc", synapse=layers[7].synapse)
        layers.insert(8, Layer(name="fc_sum", neuron=neuron()))
        edges = [e for e in edges if (e.source, e.target) not in {("fc", "out"), ("fc", "loop")}]
        edges += [
            Edge(source="fc", target="fc_sum"),
            Edge(source="fc_sum", target="loop", delay=1),
            Edge(source="fc_sum", target="out"),
        ]
    if rng.random() < 0.3:
        edges = [
            Edge(source=e.source, target=e.target, delay=2) if (e.source, e.target) == ("conv1", "sum") else e for e in edges
        ]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(a, size, size), output="out")


def random_spikes(graph: SNNGraph, seed: int, *, steps: int = 6, batch: int = 2, rate: float = 0.4):
    return np.random.default_rng(seed).random((steps, batch, *graph.input_shape)) < rate
