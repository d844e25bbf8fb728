"""What does the demo train? A small convolutional network for 8x8 digits."""

from __future__ import annotations

import numpy as np

from spear_deploy.graph import SNNGraph, chain
from spear_deploy.layers import LI, LIF, Array, AvgPool, BatchNorm, Conv2d, Dense, Layer


def digits_network(seed: int = 0) -> SNNGraph:
    """Return the untrained network of the demo: 8x8 digits → conv 16 → pool → conv 32 → pool → dense 10 → readout.

    Membranes halve in every step (dt 1 ms, tau 2 ms), each convolution has a batch norm: without it, and with slower
    membranes, a network of this size stays silent.
    """
    rng = np.random.default_rng(seed)

    def uniform(*shape: int) -> Array:
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    def norm(channels: int) -> BatchNorm:
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return BatchNorm(weight=one, bias=zero, mean=zero, var=one)

    def neuron() -> LIF:
        return LIF(tau_s=2e-3)  # type: ignore[arg-type]

    layers = (
        Layer(name="conv1", synapse=Conv2d(weight=uniform(16, 1, 3, 3), padding=(1, 1)), norm=norm(16), neuron=neuron()),
        Layer(name="pool1", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="conv2", synapse=Conv2d(weight=uniform(32, 16, 3, 3), padding=(1, 1)), norm=norm(32), neuron=neuron()),
        Layer(name="pool2", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(
            name="readout",
            synapse=Dense(weight=uniform(10, 128), bias=np.zeros(10, np.float32)),
            neuron=LI(tau_s=2e-3),  # type: ignore[arg-type]
        ),
    )
    return chain(layers, input_shape=(1, 8, 8), dt_s=1e-3)
