"""Networks of torch frameworks, sent back into their framework by a NIR file, and their spikes there."""

import importlib
from dataclasses import dataclass

import numpy as np
import torch

from spear_deploy.frameworks.models import read_model
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.simulator import simulate
from tests.support.framework_runs import SAMPLES, STEPS


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


def import_home(path, framework, statements):
    """Import a file by the framework's own importer, and run what the export says to run after it."""
    import nir

    graph = nir.read(path, type_check=framework != "sinabs")
    if framework == "snntorch":
        net = importlib.import_module("snntorch.import_nir").import_from_nir(graph)
    elif framework == "spikingjelly":
        net = importlib.import_module("spikingjelly.activation_based.nir_exchange").import_from_nir(graph)
    elif framework == "sinabs":
        net = importlib.import_module("sinabs.nir").from_nir(graph, batch_size=SAMPLES)
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
    different = emitted = 0
    for name, layer in names.items():
        if layer.spikes:
            different += int((ours.spikes[name] != (theirs[name] != 0)).sum())
            emitted += int((theirs[name] != 0).sum())
        else:
            np.testing.assert_allclose(ours.v[name], theirs[name], rtol=1e-4, atol=1e-4)
    return different, emitted


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
        return {n: made[0].reshape(SAMPLES, STEPS, *made[0].shape[1:]).swapaxes(0, 1).numpy() for n, made in outputs.items()}
    if framework == "rockpool":
        return {n: made[0].swapaxes(0, 1).numpy() for n, made in outputs.items()}
    return {n: torch.stack(made).numpy() for n, made in outputs.items()}
