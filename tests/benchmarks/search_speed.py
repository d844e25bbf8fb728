"""Speed of the candidate evaluation against stepping Norse modules."""

from __future__ import annotations

import time
from typing import Any

import torch

from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.norse.network import NorseNetwork, to_norse

BATCH, REPEATS = 256, 5


def stepped(network: NorseNetwork, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run all layers step by step, as a loop over Norse cells does, and return the spikes."""
    graph, states = network.graph, {}
    emitted: dict[str, list[torch.Tensor]] = {"input": list(x.unbind(0)), **{layer.name: [] for layer in graph.layers}}
    for t in range(x.shape[0]):
        for layer in graph.layers:
            module, total = network.module_of(layer.name), None
            for edge in graph.edges_into(layer.name):
                if t >= edge.delay:
                    value = emitted[edge.source][t - edge.delay]
                    total = value if total is None else total + value
            if total is None:
                total = x.new_zeros(x.shape[1], *graph.input_shape_of(layer.name))
            out = module.weigh(total)
            if module.neuron is not None:
                state = states[layer.name] if t else module.neuron.start(out)
                out, states[layer.name] = module.neuron.step(out, state)
            emitted[layer.name].append(out)
    return {layer.name: torch.stack(emitted[layer.name]) for layer in graph.layers if layer.spikes}


@torch.no_grad()
def speed(data: Dataset, graph: SNNGraph) -> dict[str, Any]:
    """Return seconds of both on one batch of validation samples (the median of alternating runs), and spikes that differ."""
    torch.set_num_threads(1)
    network = to_norse(graph).eval()
    x = torch.from_numpy(next(data.val.batches(BATCH))[0]).float()
    took: dict[str, list[float]] = {"ours": [], "stepped": []}
    ours: dict[str, torch.Tensor] = {}
    theirs: dict[str, torch.Tensor] = {}
    for _ in range(REPEATS):
        begin = time.perf_counter()
        _, ours = network(x, record=True)
        took["ours"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        theirs = stepped(network, x)
        took["stepped"].append(time.perf_counter() - begin)
    median = {name: sorted(values)[REPEATS // 2] for name, values in took.items()}
    differ = sum(int((ours[name] != theirs[name]).sum()) for name in ours)
    compared = sum(value.numel() for value in ours.values())
    return {"seconds": median, "ratio": median["stepped"] / median["ours"], "spikes_differ": differ, "compared": compared}
