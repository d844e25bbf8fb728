"""Pruned weights in the module that the network came from.

The model is traced as in `models`, so that the module of each layer is known; its copy gets the weights with their new sizes.
Where the network has folded a batch norm into the weights, they stay folded, and the norm of the copy adds at most a bias in
evaluation; in training it takes the statistics of a batch, as that of the model does.
At the end the copy is read and compared with the network: what does not match is refused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.frameworks.detect import find_framework
from spear_deploy.frameworks.importer.axis_order import list_columns, take_columns
from spear_deploy.frameworks.importer.context import Framework, NeuronUpdate
from spear_deploy.frameworks.importer.forward_code import copy_model
from spear_deploy.frameworks.importer.import_model import trace_layers
from spear_deploy.frameworks.importer.own_run import find_module
from spear_deploy.frameworks.importer.run_comparison import compare_with_run
from spear_deploy.frameworks.importer.storage import store_layer
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.network import CONVS, IF, WEIGHTED, BatchNorm, Dense, Layer, Scale, Shape, SparseMatrix, SumPool, write_out
from spear_deploy.network.graph import INPUT, SNNGraph, find_heirs, merge_parts

TOLERANCE = 1e-6
"""Relative difference of a parameter that went through a formula and float32."""


def store_weights(model: torch.nn.Module, pruned: SNNGraph) -> torch.nn.Module:
    """Return a copy of a model with the weights of a network that was pruned or learnt from it.

    Args:
        model: as it was when the network was read from it; it stays as it is.
        pruned: the network, in floating point, with the layer names of the model's.

    Returns:
        The copy: linear, convolution and batch norm modules, recurrent weights and neuron parameters have the network's values
        and sizes. Parameters are new, so an optimizer has to be made anew. States are empty. What it emits equals the network's
        output up to rounding. Where the network has folded a norm, the copy's has the statistics of the folded weights: in
        evaluation it changes nothing but the bias, in training it takes a batch's statistics as the model's does. A norm without
        parameters, or of channels whose numbers are not known, has to stay in `eval()`.

    Raises:
        UnsupportedError: integers of a chip, other layers or neurons than the model's, a value that a module has no place for, or
            a forward that does not take the new sizes.
        GraphError: shapes that do not meet.
    """
    if pruned.is_integer:
        raise UnsupportedError("the network holds integers of a chip; give the floating-point network that it was quantised from")
    framework = find_framework(model)
    graph, builder = trace_layers(
        framework.prepare(model), _find_input_shape(pruned), framework=framework, dt_s=_state_step(pruned)
    )
    heirs = find_heirs(graph)
    original = merge_parts(graph)
    pruned = _part_factors(pruned, original)
    _check_layers(original, pruned)
    made = copy_model(model)
    framework.finish_copy(made)
    kept = {layer.name: _find_kept(pruned, layer.name, original) for layer in pruned.layers}
    pruned = pruned.with_layers(lambda layer: _unfold_norm(layer, original[layer.name], kept[layer.name]))
    parts: dict[str, list[Any]] = defaultdict(list)
    for layer in graph.layers:
        heir, path = pruned[heirs[layer.name]], builder.origins[layer.name]
        _check_kinds(layer, heir)
        if layer.neuron is not None:
            update = NeuronUpdate(neuron=heir.neuron, changed=frozenset(), dt_s=pruned.dt_s, shape=pruned.shape_of(heir.name))
            _store_neuron(framework, find_module(made, path), layer.neuron, update, path)
        part = heir.norm if layer.norm is not None else heir.synapse if isinstance(layer.synapse, WEIGHTED) else None
        if isinstance(part, (Dense, BatchNorm)) and layer.name in builder.column_orders:
            axes, order = builder.column_orders[layer.name]
            channels = part.weight.shape[-1] // math.prod(axes[1:])
            part = take_columns(part, list_columns((channels, *axes[1:]), order))
        if part is not None:
            parts[path].append(part)
    for path, stored in parts.items():
        _store_part(framework, made, path, stored)
    _compare(made, framework, pruned)
    return made


def _state_step(pruned: SNNGraph) -> float | None:
    return None if pruned.metadata.get("source") in (None, "norse", "rockpool") else pruned.dt_s


def _find_input_shape(pruned: SNNGraph) -> Shape:
    """Return the input shape of the model, which may give its input another one."""
    return tuple(pruned.metadata.get("forward_input_shape", pruned.input_shape))


def _check_layers(original: SNNGraph, pruned: SNNGraph) -> None:
    """Refuse a network with other layers or edges than the model's."""
    ours, theirs = ({layer.name for layer in graph.layers} for graph in (pruned, original))
    if ours != theirs:
        missing = ", ".join(f"'{name}'" for name in sorted(ours ^ theirs)[:5])
        raise UnsupportedError(
            f"the network's layers are not the model's: {missing} in one alone; give the network that was pruned from this model"
        )
    if set(original.edges) != set(pruned.edges):
        edge = min(set(original.edges) ^ set(pruned.edges))
        raise UnsupportedError(
            f"edge '{edge.source}' -> '{edge.target}' is in one of network and model alone; give the network pruned from it"
        )


def _part_factors(pruned: SNNGraph, original: SNNGraph) -> SNNGraph:
    """Return a network in which a factor of the forward, `10 * conv(x)`, is a layer again.

    Learning with the rounding of a chip multiplies it into the weights in front of it.
    """
    names = {layer.name for layer in pruned.layers}
    for behind in original.layers:
        edges, scale = original.edges_into(behind.name), behind.synapse
        if not isinstance(scale, Scale) or scale.weight.size != 1 or not scale.weight.all() or scale.bias is not None:
            continue
        if len(edges) != 1 or edges[0].source in names or edges[0].source == INPUT or behind.name not in names:
            continue
        first, joined, fed = original[edges[0].source], pruned[behind.name], pruned.edges_into(behind.name)
        if len(fed) != 1 or len(original.edges_from(first.name)) != 1 or any((behind.norm, joined.norm, first.neuron)):
            continue
        if not isinstance(joined.synapse, (Dense, *CONVS)) or type(joined.synapse) is not type(first.synapse):
            continue
        layers = (_divide(joined, scale.weight.astype(np.float64).item(), first.name), replace(joined, synapse=scale, norm=None))
        edges = (*(edge for edge in pruned.edges if edge != fed[0]), replace(fed[0], target=first.name), edges[0])
        pruned = replace(pruned, layers=(*(layer for layer in pruned.layers if layer.name != behind.name), *layers), edges=edges)
    return pruned


def _divide(layer: Layer, factor: float, name: str) -> Layer:
    """Return the weights of a layer without a factor, as a layer of their own."""
    synapse: Any = layer.synapse
    bias = None if synapse.bias is None else (synapse.bias / factor).astype(np.float32)
    weight = (write_out(synapse.weight).astype(np.float64) / factor).astype(np.float32)
    return Layer(name=name, synapse=replace(synapse, weight=weight, bias=bias))


def _find_kept(pruned: SNNGraph, name: str, original: SNNGraph) -> Sequence[int] | None:
    """Return the channels of a layer of the model that are left, or None where the network does not say."""
    channels = original.shape_of(name)[0]
    whole = range(channels) if pruned.shape_of(name)[0] == channels else None
    kept = pruned.metadata.get("kept_channels", {}).get(name, whole)
    return kept if kept is None or max(kept) < channels else None


def _unfold_norm(layer: Layer, original: Layer, kept: Sequence[int] | None) -> Layer:
    """Return a layer with a norm behind the weights that its norm was folded into; other layers stay.

    With statistics (mean, var) the norm has the weight sqrt(var + eps), so that it multiplies by 1 in evaluation, and adds the
    bias where the original's weights have none. The statistics are those that the folded weights give where the sums are as they
    were: gain² · var, and gain · mean, or the norm's bias where the weights have a bias of their own. So the copy in training,
    which takes a batch's statistics, adds and multiplies what the original would. A norm without parameters has its bias in the
    mean, and the variance 1 − eps.

    Args:
        layer: of the network.
        original: of the model.
        kept: channels of the original that are left, or None where they are not known.
    """
    synapse, norm = layer.synapse, original.norm
    if norm is None or layer.norm is not None or not isinstance(synapse, (Dense, *CONVS)):
        return layer
    if type(synapse) is not type(original.synapse):
        return layer
    channels = len(synapse.weight)
    added = np.zeros(channels)
    has_bias = original.synapse.bias is not None
    if not has_bias and synapse.bias is not None:
        added = synapse.bias.astype(np.float64)
        synapse = replace(synapse, bias=None)
    mean, var = np.zeros(channels), np.full(channels, max(1 - norm.eps, 0.0))
    if not (norm.bias.any() or (norm.weight != 1).any()):
        mean, added = -added, np.zeros(channels)
    elif kept is not None and len(kept) == channels:
        gain = norm.weight[kept] / np.sqrt(norm.var[kept].astype(np.float64) + norm.eps)
        mean, var = norm.bias[kept] if has_bias else gain * norm.mean[kept], gain**2 * norm.var[kept]
        added = added + mean
    # float32 rounds the variance by up to 2^-25; the inverse of its root is off by half of that, and rounds to 1
    var = var.astype(np.float32)
    values = {"weight": np.sqrt(var.astype(np.float64) + norm.eps), "bias": added, "mean": mean}
    made = BatchNorm(**{name: value.astype(np.float32) for name, value in values.items()}, var=var, eps=norm.eps)
    return replace(layer, synapse=synapse, norm=made)


def _check_kinds(layer: Layer, heir: Layer) -> None:
    for name in ("synapse", "norm", "neuron"):
        before, after = getattr(layer, name), getattr(heir, name)
        if before is None or type(before) is type(after) or (name == "synapse" and not isinstance(before, WEIGHTED)):
            continue
        kind = "none" if after is None else type(after).__name__
        raise UnsupportedError(
            f"layer '{layer.name}': the model has {type(before).__name__}, the network {kind}; give the network as it was "
            "pruned, before neurons are exchanged or norms without weights folded"
        )


def _store_neuron(framework: Framework, module: Any, before: Any, update: NeuronUpdate, path: str) -> None:
    """Store changed parameters of a neuron; those of a pool of spikes are none."""
    if not isinstance(module, framework.neurons):
        return
    names = (item.name for item in fields(before))
    changed = frozenset(name for name in names if not _is_same(getattr(before, name), getattr(update.neuron, name)))
    kept = {"reset", "reset_delay"} | (set() if framework.stores_max_spikes else {"max_spikes"})
    if fixed := changed & kept:
        raise UnsupportedError(
            f"{name_module(path)}: the network's neurons have another {min(fixed)} than the module; train the module with that"
        )
    try:
        framework.store_neuron(module, replace(update, changed=changed))
    except UnsupportedError as error:
        raise UnsupportedError(f"{name_module(path)} is {type(module).__name__}: {error}") from error


def _is_same(before: Any, after: Any) -> bool:
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        return before.shape == after.shape and bool((before == after).all())
    return bool(before is after or before == after)


def _store_part(framework: Framework, model: torch.nn.Module, path: str, parts: list[Any]) -> None:
    """Store a synapse or norm in the module of this path, or in the part of a neuron module that the end of the path names."""
    owner, _, end = path.rpartition(".")
    if end in ("recurrent", "input"):
        neurons = find_module(model, "" if owner == "model" else owner)
        if isinstance(neurons, framework.neurons):
            framework.store_recurrent(neurons, (end, parts[0]))
            return
    module = find_module(model, path)
    if module is None:
        return  # outputs side by side, joined by weights of 0 and 1: `_compare` finds what differs
    if any(part != parts[0] for part in parts[1:]):
        raise UnsupportedError(
            f"{name_module(path)} is called {len(parts)} times, the network has other weights each time; use several modules"
        )
    base = torch.nn.Module  # Rockpool's modules have others under these names
    tensors = (*base.parameters(module), *base.buffers(module))
    if not tensors and not module._forward_pre_hooks:
        return  # its weights follow from its settings, e.g. of a pool: `_compare` finds what differs
    if not framework.store_synapse(module, parts[0]):
        store_layer(module, parts[0], name_module(path))


# --------------------------------------------------------------------------------------------------------- comparison


def _compare(made: torch.nn.Module, framework: Framework, pruned: SNNGraph) -> None:
    """Read a model, run it, and refuse it where it is not the network."""
    try:
        shape = _find_input_shape(pruned)
        parts, builder = trace_layers(framework.prepare(made), shape, framework=framework, dt_s=_state_step(pruned))
    except (UnsupportedError, GraphError) as error:
        raise UnsupportedError(
            f"the model's forward does not take the network's sizes ({error}); write it without fixed numbers, such as "
            "flatten(1) in place of view(-1, 1568)"
        ) from error
    compare_with_run(made, parts, builder, shape, framework)
    graph = merge_parts(parts)
    for layer in pruned.layers:
        for name in ("synapse", "norm", "neuron"):
            before, after = getattr(layer, name), getattr(graph[layer.name], name)
            for item in fields(before) if before is not None and type(before) is type(after) else ():
                values = getattr(before, item.name), getattr(after, item.name)
                if item.name == "v_threshold" and isinstance(layer.synapse, SumPool) and _spike_alike(before, after):
                    continue
                if not _is_close(*values, is_weight=name != "neuron"):
                    raise UnsupportedError(
                        f"layer '{layer.name}': {item.name} of the network has no place in the model, whose modules share or fix "
                        "it; train them with a value for each channel"
                    )


def _spike_alike(before: Any, after: Any) -> bool:
    """Return whether two neurons behind a sum of spikes both spike at one spike or more, as those of a max pool do."""
    return all(
        isinstance(neuron, IF)
        and neuron.reset == "value"
        and not neuron.v_reset.any()
        and (neuron.r == 1).all()
        and bool(((neuron.v_threshold >= 0) & (neuron.v_threshold < 1)).all())
        for neuron in (before, after)
    )


def _is_close(before: Any, after: Any, *, is_weight: bool) -> bool:
    before, after = (write_out(value) if isinstance(value, SparseMatrix) else value for value in (before, after))
    if before is None or after is None:
        value = after if before is None else before
        return value is None or (isinstance(value, np.ndarray) and is_weight and not value.any())
    if not isinstance(before, np.ndarray):
        return bool(before == after)
    try:
        shape = np.broadcast_shapes(before.shape, after.shape)
    except ValueError:
        return False
    if is_weight and before.shape != after.shape:
        return False
    size = float(np.abs(before).max(initial=0))
    pair = np.broadcast_to(before, shape), np.broadcast_to(after, shape)
    return bool(np.allclose(*pair, rtol=TOLERANCE, atol=TOLERANCE * size if is_weight else 0))
