"""Random Xylo networks, and their runs in SynSense's simulator.

`tests/recorded/xylosim.npz` holds recordings of xylosim 0.1.3. To make it again, with xylosim installed where python finds it:

    python -m tests.support.xylo_networks
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spear_deploy.network import Dense, Layer, XyloLIF
from spear_deploy.network.graph import Edge, SNNGraph

RECORDED = Path(__file__).parents[1] / "recorded" / "xylosim.npz"
SEEDS = 24
STATES = ("spikes", "v", "u")


def graph_of(layers: list[Layer], ways: list[tuple[str, str, int]], inputs: int) -> SNNGraph:
    """Return the network of layers and (source, target, delay); the layer `out` is its output."""
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in ways)
    return SNNGraph(layers=tuple(layers), edges=edges, input_shape=(inputs,), output="out")


def random_network(seed: int, steps: int = 40):
    """Return (network, input): hidden neurons that feed each other, and outputs one step later, as on the chip.

    xylosim clips a current after each spike that arrives, the simulator after all of a step. So where a network saturates
    (every third) it has one input channel that sends one event a step, and no recurrence: then there is one spike to clip after.
    """
    rng = np.random.default_rng(seed)
    saturates = seed % 3 == 2
    inputs, hidden, outputs = (1, 6, 3) if saturates else (int(n) for n in rng.integers(1, 7, 3))

    def weights(o, i):
        return rng.integers(-128, 128, (o, i))

    def neuron(count, **options):
        return XyloLIF(
            dash_mem=rng.integers(1, 16 if saturates else 8, count),
            dash_syn=rng.integers(0, 16 if saturates else 4, count),
            v_threshold=rng.integers(1, 2000, count),
            bias=rng.integers(-300, 300, count) * int(rng.random() < 0.5),
            **options,
        )

    shift = 8 if saturates else int(rng.integers(0, 3))
    recurrent = weights(hidden, hidden) * (0 if saturates else 1)
    readout = np.eye(outputs, hidden, dtype=int) * 127 if saturates else weights(outputs, hidden)
    layers = (
        Layer(name="in", synapse=Dense(weight=weights(hidden, inputs), weight_exponent=shift)),
        Layer(name="rec", synapse=Dense(weight=recurrent, weight_exponent=int(rng.integers(0, 3)))),
        Layer(name="hidden", neuron=neuron(hidden)),
        Layer(name="out", synapse=Dense(weight=readout, weight_exponent=0), neuron=neuron(outputs, max_spikes=1)),
    )
    pairs = (("input", "in", 0), ("in", "hidden", 0), ("hidden", "rec", 1), ("rec", "hidden", 0), ("hidden", "out", 1))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in pairs)
    most = 2 if saturates else 16
    x = rng.integers(0, most, (steps, 1, inputs)) * (rng.random((steps, 1, inputs)) < (0.9 if saturates else 0.3))
    return SNNGraph(layers=layers, edges=edges, input_shape=(inputs,), output="out"), x


def run_on_xylosim(graph: SNNGraph, x):
    """Return {layer.what: (T, neurons)} as xylosim records it."""
    from xylosim.v2 import XyloLayer, XyloSynapse

    kept = {
        name: [[XyloSynapse(j, 0, int(w)) for j, w in enumerate(row)] for row in graph[name].synapse.weight.T]
        for name in ("in", "rec", "out")
    }  # kept alive: xylosim holds pointers
    hidden, out = graph["hidden"].neuron, graph["out"].neuron
    model = XyloLayer(
        synapses_in=kept["in"],
        synapses_rec=kept["rec"],
        synapses_out=kept["out"],
        aliases=[[] for _ in hidden.v_threshold],
        threshold=hidden.v_threshold.tolist(),
        threshold_out=out.v_threshold.tolist(),
        has_bias=True,
        bias=hidden.bias.tolist(),
        bias_out=out.bias.tolist(),
        weight_shift_inp=graph["in"].synapse.weight_exponent,
        weight_shift_rec=graph["rec"].synapse.weight_exponent,
        weight_shift_out=graph["out"].synapse.weight_exponent,
        dash_mem=hidden.dash_mem.tolist(),
        dash_mem_out=out.dash_mem.tolist(),
        dash_syns=[[dash] for dash in hidden.dash_syn.tolist()],
        dash_syns_out=[[dash] for dash in out.dash_syn.tolist()],
        name="net",
    )
    spikes = np.array(model.evolve(x[:, 0].tolist()))
    return {
        "hidden.spikes": np.array(model.rec_recurrent_spikes),
        "hidden.v": np.array(model.rec_v_mem).T,
        "hidden.u": np.array(model.rec_i_syn).T,
        "out.spikes": spikes,
        "out.v": np.array(model.rec_v_mem_out).T,
        "out.u": np.array(model.rec_i_syn_out).T,
    }


def main() -> None:
    """Record."""
    arrays = {}
    for seed in range(SEEDS):
        graph, x = random_network(seed)
        arrays |= {f"{seed}.{name}": value.astype(np.int16) for name, value in run_on_xylosim(graph, x).items()}
        for name in ("in", "rec", "out"):
            arrays[f"{seed}.{name}.weight"] = graph[name].synapse.weight.astype(np.int16)
        arrays[f"{seed}.input"] = x.astype(np.uint8)
    np.savez_compressed(RECORDED, **arrays)


if __name__ == "__main__":
    main()
