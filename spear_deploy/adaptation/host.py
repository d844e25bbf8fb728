"""Readout on the host: what it replaces, and its weights fitted to a chip's spikes.

exact    LI, CubaLI, a weighted sum  → the host integrates the spikes of the layer in front, pools of these included

The host computes in floating point, so that its weights may be fitted again to the spikes that the chip's integers send: by a
softmax regression on the training split. What decides, the mean of v over the steps or v of the last one, is linear in the spikes
of each step,

    what decides = λ + Σ over steps g(t) · (W · spikes(t) + b),      g(t) what an input of 1 in step t adds to it

so that a sample is one row of features, the spikes weighed by g. The maximum over the steps is the largest of such values, one
for each step, so that a sample is as many rows; where each step is decided, each of them is an answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.data import Split
from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Array, Layer
from spear_deploy.network.classes import Decision, count_per_class, read_decision, state_outputs_per_class
from spear_deploy.network.fixed_weights import FIXED_WEIGHTS, list_fixed_layers
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.network.host_readout import join_outputs, merge_weights, move_to_host, read_host_readout, replace_weights
from spear_deploy.simulator import simulate
from spear_deploy.training.entropy import cross_entropy
from spear_deploy.training.evaluation import BATCH
from spear_deploy.training.optimizers import without_compiler

DECAYS = (1e-2, 1e-3, 1e-4)
"""Weights of the squared change of the readout in the regression, of which validation chooses one."""
MAX_FEATURES = 1 << 26
"""Features of all samples, where a sample has a row for each step; then the regression has the first samples alone."""
ITERATIONS = 100
"""Steps of the regression at most."""


def find_host(graph: SNNGraph) -> Replacement:
    """Return the readout on the host as a replacement.

    Raises:
        UnsupportedError: see `move_readout`.
    """
    move_readout(graph)
    neuron = graph[graph.output].neuron
    return Replacement(
        layers=(graph.output,),
        what="a weighted sum" if neuron is None else type(neuron).__name__,
        by="integrated by the host, from the spikes in front of it",
        kind="exact",
        topic="readout",
        option="host",
        rewrite=move_readout,
    )


def move_readout(graph: SNNGraph) -> SNNGraph:
    """Return the network that ends in the spikes which its readout takes, for the host, which has one output a class.

    Raises:
        UnsupportedError: see `network.host_readout.move_to_host` and `join_outputs`.
    """
    per_class = count_per_class(graph)
    if per_class > 1:
        graph = state_outputs_per_class(join_outputs(graph, per_class), 1)
    return move_to_host(graph)


def can_move_readout(graph: SNNGraph) -> bool:
    """Return whether the host can integrate what a network's readout does, and does not yet."""
    try:
        move_readout(graph)
    except UnsupportedError:
        return False
    return True


def fit_readouts(graph: SNNGraph, sent: SNNGraph, split: Split) -> list[SNNGraph]:
    """Return the network with the host's weights fitted to the spikes of its integers, one for each of `DECAYS`.

    Args:
        graph: of the readout, which is the start.
        sent: the network whose spikes the host gets: the chip's integers of `graph`, or `graph` itself.
        split: of training data, in the form that `sent` takes.
    """
    import torch

    host = read_host_readout(graph)
    assert host is not None, "there is a readout to fit"
    if FIXED_WEIGHTS in graph.metadata:  # the readout's are so no more, where they were
        graph = replace(graph, metadata={**graph.metadata, FIXED_WEIGHTS: list(list_fixed_layers(graph))})
    weight, bias = (np.array(value, np.float64) for value in merge_weights(host))
    decision = read_decision(graph)
    kernels, level = measure_kernels(host.layers[-1], host, split.x.shape[1], decision)
    columns, which = np.unique(kernels, axis=2, return_inverse=True)
    if len(kernels) > 1:
        split = split.head(max(1, MAX_FEATURES // (len(kernels) * columns.shape[2] * weight.shape[1])))
    features = _weigh_spikes(sent, split, columns)
    start = _compute_logits(features, which, kernels, level, torch.from_numpy(weight), torch.from_numpy(bias), decision)
    # the size of logits says how sure the readout is, not which class: the regression starts where it is neither sure nor blind
    scale = 2.0 / max(float(start.std()), 1e-9)
    labels = torch.from_numpy(np.array(split.y, np.int64))
    unit = torch.from_numpy(np.maximum(features.std(axis=(0, 1)).max(axis=0), 1e-6))
    lbfgs = without_compiler(torch.optim.LBFGS)
    fitted = []
    for decay in DECAYS:
        change = torch.zeros(weight.shape, dtype=torch.float64, requires_grad=True)
        shift = torch.zeros(bias.shape, dtype=torch.float64, requires_grad=True)
        optimiser = lbfgs([change, shift], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def close(decay: float = decay, change: Any = change, shift: Any = shift, optimiser: Any = optimiser) -> Any:
            optimiser.zero_grad()
            new = torch.from_numpy(weight) + change / unit
            logits = scale * _compute_logits(features, which, kernels, level, new, torch.from_numpy(bias) + shift, decision)
            loss = cross_entropy(logits, labels) + decay * (scale**2) * (change**2).sum()
            loss.backward()
            return loss

        optimiser.step(close)
        new, added = (change / unit).detach().numpy(), shift.detach().numpy()
        fitted.append(replace_weights(graph, (weight + new).astype(np.float32), (bias + added).astype(np.float32)))
    return fitted


def measure_kernels(layer: Layer, host: SNNGraph, steps: int, decision: Decision = "mean") -> tuple[Array, Array]:
    """Return g(t), (rows, T, classes), and λ, (rows, classes): what an input of 1 in step t, and none, make of what decides.

    Args:
        layer: the readout, whose neuron is linear; without one the output is what drives it.
        host: its network.
        steps: T.
        decision: of the steps: the mean and the last have one row, the others one for each step.
    """
    shape = host.shape_of(host.output)
    response, level = np.zeros((steps, *shape)), np.zeros((steps, *shape))
    if layer.neuron is None:
        response[0] = 1.0
    else:
        alone = chain([Layer(name=layer.name, neuron=layer.neuron)], input_shape=shape, dt_s=host.dt_s)
        x = np.zeros((steps, 2, *shape))
        x[0, 0] = 1.0
        values = simulate(alone, x, kind="current", dtype=np.float64).output
        response, level = values[:, 0] - values[:, 1], values[:, 1]
    if decision == "mean":
        return np.cumsum(response, axis=0)[None, ::-1] / steps, level.mean(axis=0)[None]
    if decision == "last":
        return response[None, ::-1], level[-1:]
    rows = np.zeros((steps, steps, *shape))
    for step in range(steps):
        rows[step, : step + 1] = response[step::-1]
    return rows, level


def _weigh_spikes(sent: SNNGraph, split: Split, columns: Array) -> Array:
    """Return the spikes of each sample weighed by each kernel, (rows, N, kernels, outputs) float64."""
    parts = []
    for x, _ in split.batches(BATCH):
        output = simulate(sent, x, kind=split.kind).output
        spikes = output.reshape(*output.shape[:2], -1).astype(np.float64)
        parts.append(np.einsum("tbo,rtk->rbko", spikes, columns, optimize=True))
    return np.concatenate(parts, axis=1)


def _compute_logits(
    features: Array, which: Array, kernels: Array, level: Array, weight: Any, bias: Any, decision: Decision
) -> Any:
    """Return what decides, of torch: the largest of all rows, (N, classes), or each row, (N, T, classes)."""
    import torch

    total = torch.from_numpy(kernels.sum(axis=1))[:, None]
    columns = [torch.from_numpy(features[:, :, k]) @ weight[np.flatnonzero(which == k)].T for k in range(features.shape[2])]
    order = np.argsort(np.concatenate([np.flatnonzero(which == k) for k in range(features.shape[2])]))
    logits = torch.cat(columns, dim=2)[:, :, order] + total * bias + torch.from_numpy(level)[:, None]
    return logits.swapaxes(0, 1) if decision == "each" else logits.amax(0)
