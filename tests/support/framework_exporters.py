"""Random networks of what the NIR exporters of frameworks write without loss, and their files."""

import importlib

import numpy as np
import torch
from torch import nn

EXPORTERS = ("snntorch", "spikingjelly", "norse")
"""Frameworks whose exporter writes all that decides a spike; that of sinabs leaves out resets, bounds and the norm of inputs."""
RESETS = {"late": None, "zero": "value"}
"""Resets of snnTorch, which its file does not state, and what is given when it is read."""


def draw_exported(framework, draw):
    """Return a network, the shape of its input, and the reset that its file does not state."""
    reset = draw.pick(*RESETS) if framework == "snntorch" else "late"
    makers = {"snntorch": lambda d, s: _make_snntorch(d, s, reset), "spikingjelly": _make_spikingjelly, "norse": _make_norse}
    while True:
        parts, shape = draw.network(makers[framework], pools=(nn.AvgPool2d,) if framework == "snntorch" else ())
        if framework != "norse" or len(shape) == 1:  # its exporter ends in an error on maps
            break
    parts = [part for part in parts if not isinstance(part, (nn.Dropout, nn.BatchNorm2d))]
    for part in parts:
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.bias is None and framework == "norse":
            part.bias = nn.Parameter(torch.zeros(len(part.weight)))  # its exporter asks for one
    model = importlib.import_module("norse.torch").SequentialState(*parts) if framework == "norse" else nn.Sequential(*parts)
    return model.eval(), shape, RESETS[reset]


def _make_snntorch(draw, shape, reset):
    import snntorch as snn

    kinds = [snn.Leaky, snn.Synaptic]
    if len(shape) == 1 and reset == "late":
        kinds += [snn.RLeaky, snn.RSynaptic]
    kind = draw.pick(*kinds)
    options = {"threshold": draw.between(0.5, 1.5, *shape), "beta": draw.between(0.3, 0.99, *shape), "init_hidden": True}
    if kind in (snn.Synaptic, snn.RSynaptic):
        options["alpha"] = draw.between(0.2, 0.9, *shape)
    if kind in (snn.RLeaky, snn.RSynaptic):
        options["linear_features"] = shape[0]
    if reset != "late":
        options |= {"reset_mechanism": reset, "reset_delay": False}
    return kind(**options)


def _make_spikingjelly(draw, shape):
    from spikingjelly.activation_based import neuron

    common = {"v_threshold": draw.between(0.5, 1.5), "v_reset": draw.pick(0.0, -0.25)}
    kind = draw.pick(neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.CUBALIFNode)
    if kind is neuron.CUBALIFNode:
        return kind(**common | {"v_reset": 0.0}, c_decay=draw.between(0.1, 0.9), v_decay=draw.between(0.1, 0.9))
    if kind is neuron.IFNode:
        return kind(**common)
    tau = {"tau" if kind is neuron.LIFNode else "init_tau": draw.between(1.5, 8)}
    return kind(**common, **tau, decay_input=draw.chance(0.5))


def _make_norse(draw, shape):
    import norse.torch as norse

    def full(low, high):
        return torch.full(shape, draw.between(low, high))

    zero = torch.zeros(shape)
    common = {"v_th": full(0.3, 1), "v_reset": zero}
    kind = draw.pick("IAF", "Box", "Cuba")
    if kind == "IAF":
        return norse.IAFCell(norse.IAFParameters(**common))
    if kind == "Box":
        leak = draw.pick(zero, full(0.1, 0.2))
        return norse.LIFBoxCell(norse.LIFBoxParameters(**common, tau_mem_inv=full(50, 900), v_leak=leak))
    return norse.LIFCell(norse.LIFParameters(**common, tau_mem_inv=full(50, 900), tau_syn_inv=full(50, 900), v_leak=zero))


def write_exported(framework, model, shape, path) -> None:
    """Write the file of the framework's own exporter."""
    import nir

    sample = torch.zeros(1, *shape)
    if framework == "snntorch":
        graph = importlib.import_module("snntorch.export_nir").export_to_nir(model, sample, ignore_dims=[0])
    elif framework == "spikingjelly":
        graph = importlib.import_module("spikingjelly.activation_based.nir_exchange").export_to_nir(model, sample)
    else:
        graph = importlib.import_module("norse.torch").to_nir(model, sample)
        for node in graph.nodes.values():  # Norse writes the batch axis, with which nir.read fails
            if isinstance(node, nir.Input):
                node.input_type = {"input": np.array(shape)}
            if isinstance(node, nir.Output):
                node.output_type = {"output": np.array(next(iter(node.output_type.values())))[1:]}
    nir.write(path, graph)
