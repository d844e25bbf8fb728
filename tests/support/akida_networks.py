"""Random networks that keep nothing from one step to the next."""

import numpy as np

from spear_deploy.network import LI, LIF, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.graph import chain

DT = 1e-3


def neuron(rng, shape, most=15):
    return LIF(tau_s=DT, r=2.0, v_leak=0.1, v_threshold=rng.uniform(0.5, 3, shape), max_spikes=most)


def network(seed, convolves=False):
    """Return a network without memory: two hidden layers, and a readout."""
    rng = np.random.default_rng(seed)
    layers, shape = [], (7,)
    if convolves:
        size, channels = int(rng.integers(4, 9)), int(rng.integers(1, 4))
        shape, sides = (channels, size, size), size
        for k in range(2):
            stride = int(rng.integers(1, 3))
            weight = rng.normal(size=(4, channels if k == 0 else 4, 3, 3))
            conv = Conv2d(weight=weight, bias=rng.normal(size=4), stride=(stride, stride), padding=(1, 1))
            layers.append(Layer(name=f"conv{k}", synapse=conv, neuron=neuron(rng, (4, 1, 1))))
            sides = -(-sides // stride)
        layers.append(Layer(name="flat", synapse=Flatten()))
        inputs = 4 * sides * sides
    else:
        layers += [
            Layer(name="a", synapse=Dense(weight=rng.normal(size=(9, 7)), bias=rng.normal(size=9)), neuron=neuron(rng, (9,)))
        ]
        inputs = 9
    layers.append(Layer(name="b", synapse=Dense(weight=rng.normal(size=(6, inputs))), neuron=neuron(rng, ())))
    layers.append(Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 6)), bias=rng.normal(size=3)), neuron=LI(tau_s=DT)))
    return chain(layers, input_shape=shape, dt_s=DT)
