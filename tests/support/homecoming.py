"""Networks of torch frameworks, sent back into their framework by a NIR file, and their spikes there.

python -m tests.support.homecoming FRAMEWORK FILE FACTS     runs a file beside another version of nir; FACTS is an .npz with x,
                                                            the statements and the layer names, and gets the spikes
"""

import importlib
import inspect
import sys
from dataclasses import dataclass, replace

import numpy as np
import torch

from spear_deploy.frameworks.models import read_model
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.network import Conv2d, Dense, SumPool
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.simulator import simulate
from tests.support.framework_runs import SAMPLES, STEPS, compare_runs


@dataclass(frozen=True)
class Homecoming:
    """A network that came home: the graph, the imported module, and how many spikes differ of how many."""

    graph: object
    net: object
    different: int
    emitted: int


def send_home(model, shape, x, framework, folder) -> Homecoming:
    """Read a model, write it for its framework, import it there, and count the spikes that differ from the simulator's.

    Args:
        model: the framework's module.
        shape: of its input.
        x: (T, B, *shape).
        framework: its name.
        folder: for the file.
    """
    graph = model if not isinstance(model, torch.nn.Module) else read_model(model, shape)
    advice = write_dialect(graph, folder / "net.nir", framework=framework)
    net = import_home(folder / "net.nir", framework, advice.statements)
    different, emitted = compare_spikes(graph, net, x, framework)
    return Homecoming(graph, net, different, emitted)


def import_home(path, framework, statements, samples=SAMPLES):
    """Import a file by the framework's own importer, and run what the export says to run after it."""
    import nir

    has_types = "type_check" in inspect.signature(nir.read).parameters  # not in nir 1.0.4
    graph = nir.read(path, **({"type_check": framework != "sinabs"} if has_types else {}))
    if framework == "snntorch":
        net = importlib.import_module("snntorch.import_nir").import_from_nir(graph)
    elif framework == "spikingjelly":
        net = importlib.import_module("spikingjelly.activation_based.nir_exchange").import_from_nir(graph)
    elif framework == "sinabs":
        net = importlib.import_module("sinabs.nir").from_nir(graph, batch_size=samples)
    elif framework == "rockpool":
        net = importlib.import_module("rockpool.nn.modules.torch.nir").from_nir(graph)
    else:
        net = importlib.import_module("norse.torch").from_nir(graph)
    exec("\n".join(statements), {"net": net})
    return net


def compare_spikes(graph, net, x, framework) -> tuple[int, int]:
    """Return how many spikes of all layers differ between the simulator and an imported network, and how many there are."""
    ours = simulate(graph, x, kind="current", record=("spikes", "v"))
    names = {layer.name: layer for layer in graph.layers if layer.neuron is not None}
    theirs = record_spikes(net, list(names), x, framework)
    return _count_beyond_ties(graph, x, ours, {name: theirs[name] for name in names})


def _count_beyond_ties(graph, x, ours, theirs) -> tuple[int, int]:
    """Return how many spikes differ in samples without a tie, and how many there are; potentials must be close."""
    counts, _ = compare_runs(graph, {name: values for name, values in theirs.items() if graph[name].spikes}, x)
    tied = any(row["ties"] for row in counts.values())
    for name, values in theirs.items():
        if not graph[name].spikes and not tied:
            np.testing.assert_allclose(ours.v[name], values, rtol=1e-4, atol=1e-4)
    return sum(row["differ"] for row in counts.values()), sum(row["spikes"] for row in counts.values())


def prune_at_random(graph, rng):
    """Return a network with some of the channels of every group, and weights, norms and thresholds changed as by learning."""
    kept = {}
    for group in list_prunable_groups(graph):
        size = int(rng.integers(max(group.channels // 2, 1), max(group.channels, 2)))
        kept[group.name] = tuple(rng.choice(group.channels, size, replace=False))
    pruned = prune(graph, PruningPlan(kept=kept))

    def learn(layer):
        synapse, neuron = layer.synapse, layer.neuron
        if isinstance(synapse, (Dense, Conv2d)) and len(synapse.weight) > 1:
            weight = (synapse.weight * rng.uniform(0.8, 1.2, synapse.weight.shape)).astype(np.float32)
            bias = None if synapse.bias is None else (synapse.bias + rng.normal(0, 0.02, synapse.bias.shape)).astype(np.float32)
            synapse = replace(synapse, weight=weight, bias=bias)
        if getattr(neuron, "v_threshold", None) is not None and not isinstance(synapse, SumPool) and rng.random() < 0.5:
            neuron = replace(neuron, v_threshold=(neuron.v_threshold * 1.1).astype(np.float32))
        return replace(layer, synapse=synapse, neuron=neuron)

    return pruned.with_layers(learn)


def compare_model(graph, model, x, framework) -> tuple[int, int]:
    """Return how many spikes of all layers differ between the simulator and a module over time, and how many there are."""
    ours = simulate(graph, x, kind="current", record=("spikes", "v"))
    theirs = run_module(model, x, framework)
    assert {layer.name for layer in graph.layers if layer.spikes and not isinstance(layer.synapse, SumPool)} <= set(theirs)
    return _count_beyond_ties(graph, x, ours, theirs)


def run_module(model, x, framework) -> dict[str, np.ndarray]:
    """Return what the neuron modules of a sequence emit, (T, B, *shape) by path."""
    steps, outputs = torch.from_numpy(np.ascontiguousarray(x)), {}
    parts = dict(torch.nn.Module.named_children(model))
    with torch.no_grad():
        if framework in ("sinabs", "rockpool"):
            values = steps.transpose(0, 1)
            values = values.flatten(0, 1) if framework == "sinabs" else values
            for name, part in parts.items():
                values = part(values)
                values = values[0] if isinstance(values, tuple) else values
                if framework == "sinabs":
                    outputs[name] = values.reshape(SAMPLES, STEPS, *values.shape[1:]).swapaxes(0, 1).numpy()
                else:
                    outputs[name] = values.swapaxes(0, 1).numpy()
        else:
            states = dict.fromkeys(parts)
            made = {name: [] for name in parts}
            for values in steps:
                for name, part in parts.items():
                    values = (
                        part(values, states[name]) if framework == "norse" and hasattr(part, "state_fallback") else part(values)
                    )
                    if isinstance(values, tuple):
                        values, states[name] = values
                    made[name].append(values)
            outputs = {name: torch.stack(values).numpy() for name, values in made.items()}
    stateless = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.AvgPool2d, torch.nn.MaxPool2d, torch.nn.Flatten)
    skipped = ("LinearTorch", "SumPool2d", "Dropout")
    return {
        name: values
        for name, values in outputs.items()
        if not isinstance(parts[name], stateless) and type(parts[name]).__name__ not in skipped
    }


def record_spikes(net, names, x, framework) -> dict[str, np.ndarray]:
    """Return what the nodes of these names emit, (T, B, *shape)."""
    outputs = {name: [] for name in names}
    hooks = []
    for name in names:
        module = net.get_submodule(name.replace(".", "_"))
        keep = outputs[name].append
        hooks.append(
            module.register_forward_hook(lambda _, given, made, keep=keep: keep(made[0] if isinstance(made, tuple) else made))
        )
    steps, state = torch.from_numpy(np.ascontiguousarray(x)), None
    with torch.no_grad():
        if framework == "sinabs":
            net(steps.transpose(0, 1).flatten(0, 1))
        elif framework == "rockpool":
            net(steps.transpose(0, 1))
        else:
            for step in steps:
                _, state = net(step, state)
    for hook in hooks:
        hook.remove()
    if framework == "sinabs":
        time = x.shape[1::-1]
        return {n: made[0].reshape(*time, *made[0].shape[1:]).swapaxes(0, 1).numpy() for n, made in outputs.items()}
    if framework == "rockpool":
        return {n: made[0].swapaxes(0, 1).numpy() for n, made in outputs.items()}
    return {n: torch.stack(made).numpy() for n, made in outputs.items()}


if __name__ == "__main__":
    framework, file, place = sys.argv[1:]
    facts = np.load(place)
    net = import_home(file, framework, facts["statements"].tolist(), samples=facts["x"].shape[1])
    spikes = record_spikes(net, facts["names"].tolist(), facts["x"], framework)
    np.savez(place, nir=np.array(importlib.import_module("nir").__version__), **{f"layer {n}": v for n, v in spikes.items()})
