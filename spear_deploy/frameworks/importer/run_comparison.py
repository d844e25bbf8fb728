"""Comparison of the network that was read from a model with a run of the model itself.

A trace knows no values: it does not see a branch that a forward takes by one, or what it changes where torch does not look. So
the model runs on random input of several sizes, and what each of its modules of weights and neurons gives, and what it returns,
is compared with the network. Frameworks add in another order than the simulator: a spike may differ whose membrane is within
rounding of its threshold, and what follows in that sample is left out. Any other difference is refused.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError, summarize_error
from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.context import Framework
from spear_deploy.frameworks.importer.own_run import (
    HALF_TYPES,
    RESULT,
    Calls,
    Layout,
    copy_to_run,
    find_module,
    list_tensors,
    run_model,
)
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.network import CONVS, Array, Dense, Layer, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.simulator.run import simulate
from spear_deploy.util.torch_threads import SMALL_NEURONS, one_torch_thread

LOG = logging.getLogger(__name__)
STEPS, MORE_STEPS, SAMPLES = 13, 65, 4
"""Steps and samples of a run, and steps where the forward takes more."""
MAX_PRODUCTS = 1e9
"""Products of a run at most, with one sample and fewer steps: about a second."""
TIE = 3e-4
"""Distance of a membrane to its threshold, relative to it and 1/100 of the layer's largest, in which rounding may decide."""
CLOSE = 1e-3
"""Difference of values that do not spike, relative to the largest one of their layer."""


def compare_with_run(
    model: torch.nn.Module, graph: SNNGraph, builder: GraphBuilder, input_shape: Shape, framework: Framework
) -> str:
    """Run a model, and compare what its modules and the model itself give with the network that was read from it.

    Args:
        model: the model, of which a copy runs.
        graph: the network, with a layer for each module.
        builder: knows the module of each layer.
        input_shape: of the model, without time and batch.
        framework: the conventions of its modules.

    Returns:
        Why the model did not run; "" where it did, and for one in half precision, whose spikes differ by rounding.

    Raises:
        UnsupportedError: the network gives something else.
    """
    if any(value.dtype in HALF_TYPES for value in list_tensors(model)):
        return ""
    paths, failure, refusal = _list_paths(graph, builder), "", None
    for steps, samples, layout in _list_sizes(model, graph, builder, framework):
        x = _draw_input(steps, samples, layout, input_shape)
        try:
            copy = copy_to_run(model, framework)
            modules = {path: module for path in {*paths.values()} if (module := find_module(copy, path)) is not None}
            with one_torch_thread() if graph.neurons < SMALL_NEURONS else nullcontext():
                calls = run_model(copy, modules, x, layout)
            ours = _simulate(graph, x)
            if builder.potentials or builder.sends_potential_as_spikes:
                ours.pop(RESULT)
            compared, differs = _compare(graph, ours, calls, x, paths)
        except Exception as error:  # a forward may need what random input has not, and a network more memory than there is
            LOG.debug("no run of %d steps, %d samples: %s", steps, samples, error, exc_info=True)
            failure = failure or summarize_error(error)
            continue
        if differs is None and compared:
            return ""
        refusal = differs or refusal
        failure = failure or "its modules give other numbers of values"
    if refusal is not None:
        raise refusal
    return failure


def _list_paths(graph: SNNGraph, builder: GraphBuilder) -> dict[str, str]:
    """Return the path of the module of each layer of weights or neurons that gives what its module gives.

    Others, such as a norm, may stand for axes in another order; what takes their values is compared.
    """
    kept = (layer for layer in graph.layers if layer.neuron is not None or isinstance(layer.synapse, (Dense, *CONVS)))
    found = {layer.name: builder.origins[layer.name] for layer in kept if layer.name not in builder.potentials}
    parts = set(builder.origins.values())
    return {name: path for name, path in found.items() if f"{path or 'model'}.graded" not in parts}


# ------------------------------------------------------------------------------------------------------------ input


def _list_sizes(
    model: torch.nn.Module, graph: SNNGraph, builder: GraphBuilder, framework: Framework
) -> Iterator[tuple[int, int, Layout]]:
    """Return numbers of steps and samples to run a model on, and how it gets them, what most models take first.

    Others have the sizes that the forward or its modules state; one over time may exchange time and batch itself.
    """
    parts = [module for _, module in torch.nn.Module.named_modules(model)]
    stated = {size for sizes, _ in builder.parted for size in sizes if size}
    stated |= {size for module in parts for size in framework.list_sizes(module) if size > 0}
    products = sum(_count_products(layer, graph.shape_of(layer.name)) for layer in graph.layers)
    most = int(MAX_PRODUCTS / max(products, 1))
    steps, samples = (STEPS, SAMPLES) if most >= STEPS * SAMPLES else (min(max(most, 2), STEPS), 1)
    sizes = [(steps, samples), *((size, samples) for size in sorted(stated)), *((steps, size) for size in sorted(stated))]
    sizes += permutations(sorted(stated), 2)
    layouts = _list_layouts(builder, framework, parts)
    for layout, size in (*product(layouts, sizes), *product(layouts, [(MORE_STEPS, samples), (steps, 2), (steps, 1)])):
        if size == (steps, samples) or math.prod(size) <= most:
            yield *size, layout


def _list_layouts(builder: GraphBuilder, framework: Framework, parts: list[torch.nn.Module]) -> list[Layout]:
    """Return how a model may get its steps."""
    layouts: dict[str, list[Layout]] = {
        "step": ["one by one"],
        "loop": ["time first"],
        "batch_loop": ["batch first"],
        "repeat": ["the first"],
        "layers": ["batch first", "time first"] if framework.time_axis else ["time first", "batch first"],
    }
    if builder.repeats_input:
        return ["the first"]
    return layouts[builder.form] + (["merged"] if any(map(framework.takes_merged, parts)) else [])


def _count_products(layer: Layer, shape: Shape) -> int:
    """Return the products of one step."""
    weight = getattr(layer.synapse, "weight", None)
    return 0 if weight is None else weight.size * math.prod(shape[1:] if weight.ndim > 2 else (1,))


def _draw_input(steps: int, samples: int, layout: Layout, shape: Shape) -> Array:
    """Return spikes, values up to 1, up to 5, and of both signs, in turn from sample to sample: (T, B, *shape)."""
    x = np.random.default_rng(0).random((steps, samples, *shape), dtype=np.float32)
    x[:, 0::4] = x[:, 0::4] < 0.5
    x[:, 2::4] *= 5
    x[:, 3::4] = 8 * (x[:, 3::4] - 0.3)
    return np.broadcast_to(x[:1], x.shape).copy() if layout == "the first" else x


# ------------------------------------------------------------------------------------------------------- comparison


def _simulate(graph: SNNGraph, x: Array) -> dict[str, Array]:
    """Return what layers send, and the output as that of the model, (T, B, neurons)."""
    with np.errstate(all="ignore"):
        run = simulate(graph, x.reshape(*x.shape[:2], *graph.input_shape), kind="current", record=("spikes", "v"))
    values = {**run.v, **run.spikes, RESULT: run.output}
    return {name: made.reshape(*made.shape[:2], -1).astype(np.float32) for name, made in values.items()}


def _compare(
    graph: SNNGraph, ours: dict[str, Array], calls: dict[str, Calls], x: Array, paths: dict[str, str]
) -> tuple[int, UnsupportedError | None]:
    """Compare what modules gave, and the model, with what layers gave; return how many could be, and the error where they differ.

    Args:
        graph: the network.
        ours: by layer, and the output as `RESULT`, (T, B, neurons).
        calls: by the path of a module, and of the model as `RESULT`.
        x: the input.
        paths: of the module of each layer.
    """
    given = {**_share_calls(graph, calls, paths), **({RESULT: [calls[RESULT]]} if RESULT in ours else {})}
    theirs = {name: made for name, shares in given.items() if (made := _arrange(shares, ours[name])) is not None}
    wrong = {name: _differ(ours[name][: len(made)], made) for name, made in theirs.items()}
    for sample in range(x.shape[1]):
        at = {name: different[:, sample] for name, different in wrong.items()}
        firsts = [(int(different.any(1).argmax()), n, name) for n, (name, different) in enumerate(at.items()) if different.any()]
        if not firsts:
            continue
        step, _, name = min(firsts)
        before, layer = x[: step + 1, sample : sample + 1], graph[name or graph.output]
        hidden = [other for other in graph.layers if other.spikes and other.name not in theirs]
        is_tie = _are_ties(graph, layer, before, theirs[name][step, sample], at[name][step])
        if not is_tie and not any(_has_ties(graph, other, before) for other in hidden):
            first = _describe(ours[name][step, sample], theirs[name][step, sample], step)
            return len(theirs), UnsupportedError(
                f"{name_module(paths.get(name, ''))}: run on random input, {first}: the forward does something that is not read, "
                "such as a branch by values; let every step compute the same"
            )
    return len(theirs), None


def _share_calls(graph: SNNGraph, calls: dict[str, Calls], paths: dict[str, str]) -> dict[str, list[Calls]]:
    """Return the calls that may be those of each layer; several layers of one module have every n-th, or the n-th part."""
    layers: dict[str, list[str]] = defaultdict(list)
    for layer in graph.layers:
        if layer.name in paths:
            layers[paths[layer.name]].append(layer.name)
    shares = {}
    for path, names in layers.items():
        made, count = calls.get(path, []), len(names)
        length = len(made) // count
        for n, name in enumerate(names if length * count == len(made) else ()):
            shares[name] = [made[n::count], made[n * length : (n + 1) * length]][: min(count, 2)]
    return shares


def _arrange(shares: list[Calls], ours: Array) -> Array | None:
    """Return what a module gave as (T, B, neurons), None where nothing is of that size; fewer steps where the forward ends.

    Of its calls, of the tensors that they gave, and of the orders that axes may have, what agrees with the network most is taken.
    """
    tensors = [list(values) for calls in shares for values in zip(*calls, strict=False)]
    made = [made for values in tensors for made in _list_orders(values, ours.shape)]
    return min(made, key=lambda one: int(np.count_nonzero(_differ(ours[: len(one)], one))), default=None)


def _list_orders(calls: list[torch.Tensor], shape: Shape) -> Iterator[Array]:
    """Return a tensor of each call as (T, B, neurons), with all orders that its axes may have.

    Args:
        calls: a tensor of each call, one of all steps or one a step.
        shape: (T, B, neurons).
    """
    most, samples, size = shape
    values = np.stack([made.numpy() for made in calls]) if all(made.shape == calls[0].shape for made in calls) else np.zeros(0)
    steps, rest = divmod(values.size, samples * size)
    if rest or not 0 < steps <= most:
        return
    sizes, fronts = values.shape, []
    if steps == len(calls) and sizes[1:2] == (samples,) and (steps > 1 or most == 1):
        fronts = [values]
    elif len(calls) == 1 and steps > 1:
        if sizes[1] == steps * samples:
            fronts = [values[0].reshape(steps, samples, *sizes[2:])]
            fronts += [values[0].reshape(samples, steps, *sizes[2:]).swapaxes(0, 1)]
        pairs = permutations(range(1, values.ndim), 2)
        fronts += [np.moveaxis(values, axes, (1, 2))[0] for axes in pairs if [sizes[axis] for axis in axes] == [steps, samples]]
    for front in fronts:
        for order in permutations(range(2, front.ndim)):
            yield front.transpose(0, 1, *order).reshape(*front.shape[:2], -1)


def _differ(ours: Array, theirs: Array) -> Array:
    """Return where finite values differ by more than rounding."""
    is_finite = np.isfinite(ours) & np.isfinite(theirs)
    difference = np.abs(np.subtract(ours, theirs, where=is_finite, out=np.zeros_like(ours)))
    return np.asarray(difference > CLOSE * np.abs(ours).max(initial=0, where=is_finite))


def _are_ties(graph: SNNGraph, layer: Layer, x: Array, theirs: Array, at: Array) -> bool:
    """Return whether the neurons that differ, `at`, are all so near to their threshold that it explains what they gave.

    Args:
        graph: the network.
        layer: the layer whose neurons differ, at the last step of the input.
        x: the input up to there, of one sample.
        theirs: what they gave in the model.
        at: which of them differ.
    """
    left = at.copy()
    for spikes in _move_threshold(graph, layer, x):
        left &= spikes[-1, 0] != theirs
    return not left.any()


def _has_ties(graph: SNNGraph, layer: Layer, x: Array) -> bool:
    """Return whether a membrane of a layer is so near to its threshold that its spike may differ."""
    low, high = _move_threshold(graph, layer, x)
    return bool((low != high).any())


def _move_threshold(graph: SNNGraph, layer: Layer, x: Array) -> Iterator[Array]:
    """Return what a layer sends, (T, B, neurons), with a threshold a little lower and a little higher; nothing if it has none."""
    if not layer.spikes:
        return
    neuron: Any = layer.neuron
    with np.errstate(all="ignore"):
        v = simulate(graph, x.reshape(*x.shape[:2], *graph.input_shape), kind="current", record=("v",)).v[layer.name]
    span = TIE * (np.abs(neuron.v_threshold) + np.abs(v).max(where=np.isfinite(v), initial=0) / 100)
    for level in (neuron.v_threshold - span, neuron.v_threshold + span):
        level = level.astype(neuron.v_threshold.dtype)
        other = replace(layer, neuron=replace(neuron, v_threshold=level))
        moved = graph.with_layers(lambda one, other=other: other if one is layer else one)  # type: ignore[misc]
        yield _simulate(moved, x)[layer.name]


def _describe(ours: Array, theirs: Array, step: int) -> str:
    """Return what the model and the network gave where they first differ."""
    if ours.sum() != theirs.sum():
        return f"its outputs of step {step} sum up to {theirs.sum():.6g}, those of the network to {ours.sum():.6g}"
    return f"{np.count_nonzero(ours != theirs)} of its outputs of step {step} are others than those of the network"
