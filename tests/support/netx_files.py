"""Networks and netx files that several tests use."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np

from spear_deploy.network import Conv2d, Dense, Flatten, Layer, LoihiLIF, SumPool
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.support.reference import random_spikes


def loihi(**more) -> LoihiLIF:
    return LoihiLIF(**{"decay_u": 4096, "decay_v": 400, "v_threshold": 60, **more})


def net(*layers, shape, **more) -> SNNGraph:
    return chain(layers, input_shape=shape, **more)


def dense(name, weight, **neuron) -> Layer:
    return Layer(name=name, synapse=Dense(weight=np.asarray(weight)), neuron=loihi(**neuron))


def same_runs(a: SNNGraph, b: SNNGraph, *, steps: int = 12, seed: int = 0) -> None:
    """Check that two networks spike alike in every layer that both have, and give the same output."""
    x = random_spikes(a, seed, steps=steps)
    one = simulate(a, x, record=("spikes",))
    two = simulate(b, x.reshape(*x.shape[:2], *b.input_shape), record=("spikes",))
    assert np.array_equal(one.output, two.output)
    for name, spikes in one.spikes.items():
        assert np.array_equal(spikes.ravel(), two.spikes[name].ravel()), name


def raw(path, *layers, **simulation):
    """Write layers as plain HDF5."""
    with h5py.File(path, "w") as file:
        for n, layer in enumerate(layers):
            for key, value in layer.items():
                file[f"layer/{n}/{key}"] = value
        for key, value in simulation.items():
            file[f"simulation/{key}"] = value
    return path


NEURON = {"neuron/type": "CUBA", "neuron/iDecay": 4096, "neuron/vDecay": 0, "neuron/vThMant": 10}


def row(kind, shape, **more):
    return {"type": np.array([kind.encode()]), "shape": np.array(shape), **NEURON, **more}


def bare(kind, shape, **more):
    return {"type": kind, "shape": np.array(shape), **more}


def random_chain(seed: int) -> SNNGraph:
    """A random chain: convolutions, sum pools with and without neurons, dense layers, a delay or a recurrent layer."""
    rng = np.random.default_rng(seed)

    def weight(*shape):
        return 2 * rng.integers(-60, 61, shape)

    def neuron(shape, **more):
        bias = rng.integers(-20, 60, (shape[0], *(1 for _ in shape[1:]))) if rng.random() < 0.5 else 0
        values = {"decay_u": int(rng.choice([4096, 2000, 1])), "decay_v": int(rng.integers(0, 4097)), "v_threshold": 90}
        return LoihiLIF(**values, bias_mantissa=bias, bias_exponent=6, **more)

    shape = tuple(int(n) for n in rng.integers([1, 6, 6], [4, 10, 10]))
    given, layers = shape, []
    for n in range(int(rng.integers(1, 4))):
        if min(shape[1:]) < 2:
            break
        pooled = bool(layers) and layers[-1].neuron is None
        kind = rng.choice(["conv", "pool", "pool with neurons"])
        if kind == "conv":
            kernel = tuple(int(min(s, k)) for s, k in zip(shape[1:], rng.integers(1, 4, 2), strict=True))
            conv = Conv2d(
                weight=weight(int(rng.integers(1, 5)), shape[0], *kernel),
                stride=tuple(int(s) for s in rng.integers(1, 3, 2)),
                padding=(0, 0) if pooled else tuple(int(p) for p in rng.integers(0, 2, 2)),
            )
            shape = conv.output_shape(shape)
            layers.append(Layer(name=f"conv{n}", synapse=conv, neuron=neuron(shape)))
        else:
            pool = SumPool(kernel_size=(2, 2), stride=tuple(int(s) for s in rng.integers(1, 3, 2)))
            shape = pool.output_shape(shape)
            layers.append(Layer(name=f"pool{n}", synapse=pool, neuron=neuron(shape) if kind != "pool" else None))
    layers.append(Layer(name="flat", synapse=Flatten()))
    inputs = int(np.prod(shape))
    loop = seed % 3 == 0
    layers.append(Layer(name="fc", synapse=Dense(weight=weight(7, inputs)), neuron=None if loop else neuron((7,))))
    if loop:
        layers += [Layer(name="cells", neuron=neuron((7,)))]
    out = Layer(name="out", synapse=Dense(weight=weight(4, 7)), neuron=neuron((4,)))
    layers.append(out if seed % 4 else replace(out, neuron=replace(out.neuron, v_threshold=None)))
    graph = net(*layers, shape=given)
    if loop:
        again = Layer(name="loop", synapse=Dense(weight=weight(7, 7)))
        edges = (*graph.edges, Edge(source="cells", target="loop", delay=1), Edge(source="loop", target="cells"))
        return replace(graph, layers=(*graph.layers, again), edges=edges)
    if seed % 3 == 1:
        return replace(graph, edges=tuple(replace(e, delay=3) if e.target == "out" else e for e in graph.edges))
    return graph
