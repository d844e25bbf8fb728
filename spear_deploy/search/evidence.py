"""What does a run say about the channels of a network? Arrays for `pruning.importance`, by layer."""

from __future__ import annotations

import numpy as np

from spear_deploy.data import Split
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array
from spear_deploy.pruning import Criterion
from spear_deploy.simulator import simulate
from spear_deploy.training.evaluation import BATCH, LOGIT_SCALE


def measured(graph: SNNGraph, split: Split, criterion: Criterion) -> dict[str, Array] | None:
    """Return the evidence that a criterion needs, None if it needs none."""
    if criterion == "membrane":
        return membrane_potential(graph, split)
    return taylor(graph, split) if criterion == "taylor" else None


def membrane_potential(graph: SNNGraph, split: Split) -> dict[str, Array]:
    """Return the mean |v| of each neuron over steps and samples, v after reset, by spiking layer: (*shape).

    SCA's criterion (arXiv 2406.01072).
    """
    names = [layer.name for layer in graph.layers if layer.spikes]
    total = {name: np.zeros(graph.shape_of(name)) for name in names}
    steps = 0
    for x, _ in split.batches(BATCH):
        run = simulate(graph, x, kind=split.kind, record=["v"])
        steps += x.shape[0] * x.shape[1]
        for name in names:
            total[name] += np.abs(run.v[name]).sum(axis=(0, 1), dtype=np.float64)
    return {name: value / max(steps, 1) for name, value in total.items()}


def taylor(graph: SNNGraph, split: Split) -> dict[str, Array]:
    """Return what the loss would change by without each channel, to first order, by spiking layer: (channels,).

        mean over samples of |Σ over steps and positions of gradient · spike|

    The gradient is that of cross-entropy through surrogate gradients (Molchanov et al., arXiv 1611.06440, for spikes).
    """
    import torch

    from spear_deploy.interchange.norse_network import to_norse

    network = to_norse(graph).eval()
    total: dict[str, Array] = {}
    for x, y in split.batches(BATCH):
        output, spikes = network(x, record=True)
        logits = LOGIT_SCALE * output.flatten(2).mean(0)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(np.array(y)), reduction="sum")
        gradients = torch.autograd.grad(loss, list(spikes.values()), allow_unused=True)
        for (name, spike), gradient in zip(spikes.items(), gradients, strict=True):
            effect = torch.zeros_like(spike) if gradient is None else spike * gradient
            by_channel = effect.detach().sum(0).flatten(2).sum(2) if effect.ndim > 3 else effect.detach().sum(0)
            total[name] = total.get(name, 0.0) + by_channel.abs().double().sum(0).numpy()
    return {name: value / max(len(split), 1) for name, value in total.items()}
