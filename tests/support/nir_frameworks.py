"""NIR files and outputs of other frameworks.

Run by the NIR tests in an environment of each framework.

python nir_frameworks.py snntorch OUT      writes OUT/<case>.nir and OUT/<case>.npz with x (T, B, *input) and s0, s1, ...,
                                           the output of each neuron layer (T, B, *shape), and prints the cases as JSON
"""

import json
import sys
from pathlib import Path

import nir
import numpy as np

STEPS, SAMPLES, INPUTS, HIDDEN, OUTPUTS = 60, 4, 12, 20, 5


def given(seed=0):
    return (np.random.default_rng(seed).random((STEPS, SAMPLES, INPUTS)) < 0.3).astype(np.float32)


def weights(outputs, inputs, seed, gain):
    """Multiples of 1/64, so that no framework's order of summation rounds."""
    return (np.round(np.random.default_rng(seed).normal(gain / 4, gain, (outputs, inputs)) * 64) / 64).astype(np.float32)


def saved(out, name, graph, x, layers, **facts):
    nir.write(out / f"{name}.nir", graph)
    np.savez(out / f"{name}.npz", x=x, **{f"s{n}": np.asarray(s) for n, s in enumerate(layers)})
    return {"case": name, **facts}


# ------------------------------------------------------------------------------------------------------------- torch


def filled(layer, seed, gain=0.35, bias=False):
    import torch

    layer.weight.data = torch.from_numpy(weights(*layer.weight.shape, seed, gain))
    if layer.bias is not None:
        layer.bias.data = torch.from_numpy(weights(1, len(layer.bias), seed + 50, 0.05)[0] * bias)
    return layer


def snntorch(out):
    import snntorch as snn
    import torch
    from snntorch.export_nir import export_to_nir

    def neuron(kind, size, more):
        full = (lambda value: value) if kind.startswith("R") else (lambda value: torch.full((size,), value))
        given = {"beta": full(0.875)} | ({"alpha": full(0.75)} if "Synaptic" in kind else {})
        given |= {"all_to_all": True, "linear_features": size} if kind.startswith("R") else {}
        return getattr(snn, kind)(**given, threshold=full(1.0), init_hidden=True, **more)

    cases = []
    x = torch.from_numpy(given())
    for kind, more, reset in (
        ("Leaky", {}, None),
        ("Leaky", {"reset_mechanism": "zero"}, "value"),
        ("Leaky", {"reset_mechanism": "zero", "reset_delay": False}, "value"),
        ("Leaky", {"reset_delay": False}, "subtract"),
        ("Synaptic", {}, None),
        ("Synaptic", {"reset_mechanism": "zero", "reset_delay": False}, "value"),
        ("RLeaky", {}, None),
        ("RSynaptic", {}, None),
    ):
        torch.manual_seed(0)
        gain = 0.15 if more == {"reset_delay": False} else 0.35  # it does not subtract again where v stays above the threshold
        net = torch.nn.Sequential(
            filled(torch.nn.Linear(INPUTS, HIDDEN), 1, gain, bias=True),
            neuron(kind, HIDDEN, more),
            filled(torch.nn.Linear(HIDDEN, OUTPUTS), 2, gain, bias=True),
            neuron(kind, OUTPUTS, more),
        )
        for recurrent in (net[1], net[3]):
            if hasattr(recurrent, "recurrent"):
                filled(recurrent.recurrent, 3, 0.1)
        graph = export_to_nir(net, torch.zeros(1, INPUTS), ignore_dims=[0])
        for layer in (net[1], net[3]):
            for state in ("mem", "syn", "spk"):
                if hasattr(layer, state):
                    setattr(layer, state, torch.zeros(0))
        hidden, last = [], []
        with torch.no_grad():
            for step in x:
                hidden.append(net[1](net[0](step)))
                last.append(net[3](net[2](hidden[-1])))
        name = "-".join([kind, *(f"{key}={value}" for key, value in more.items())])
        cases.append(saved(out, name, graph, x.numpy(), (torch.stack(hidden), torch.stack(last)), reset=reset))
    return cases


def spikingjelly(out):
    import torch
    from spikingjelly.activation_based import layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    cases = []
    x = torch.from_numpy(given())
    for name, kind, more in (
        ("IF", neuron.IFNode, {}),
        ("IF-v_reset", neuron.IFNode, {"v_reset": -0.5}),
        ("LIF", neuron.LIFNode, {"tau": 4.0}),
        ("LIF-decay_input=False", neuron.LIFNode, {"tau": 4.0, "decay_input": False, "v_reset": -0.25}),
        ("ParametricLIF", neuron.ParametricLIFNode, {"init_tau": 4.0}),
        ("CUBALIF", neuron.CUBALIFNode, {"c_decay": 0.5, "v_decay": 0.75}),
    ):
        gain = 1.0 if name in ("LIF", "ParametricLIF") else 0.35
        net = torch.nn.Sequential(
            filled(layer.Linear(INPUTS, HIDDEN), 1, gain, bias=True),
            kind(**more),
            filled(layer.Linear(HIDDEN, OUTPUTS), 2, gain, bias=True),
            kind(**more),
        )
        graph = export_to_nir(net, torch.zeros(1, INPUTS))
        for part in net:
            part.reset() if hasattr(part, "reset") else None
        hidden, last = [], []
        with torch.no_grad():
            for step in x:
                hidden.append(net[1](net[0](step)))
                last.append(net[3](net[2](hidden[-1])))
        cases.append(saved(out, name, graph, x.numpy(), (torch.stack(hidden), torch.stack(last))))
    return cases


def sinabs(out):
    import sinabs.layers as layers
    import torch
    from sinabs.nir import to_nir

    def lif(size):
        return layers.LIF(tau_mem=torch.full((size,), 20.0), spike_threshold=torch.full((size,), 0.4))

    def iaf(size):
        return layers.IAF(spike_threshold=torch.tensor(1.0), min_v_mem=-1.0)  # as its reader

    cases = []
    x = torch.from_numpy(given()).transpose(0, 1)
    for name, gain, neuron, readout in (
        ("IAF", 0.25, iaf, iaf),
        ("LIF", 1.5, lif, lambda n: layers.ExpLeak(tau_mem=torch.full((n,), 10.0))),
    ):
        net = torch.nn.Sequential(
            filled(torch.nn.Linear(INPUTS, HIDDEN), 1, gain, bias=True),
            neuron(HIDDEN),
            filled(torch.nn.Linear(HIDDEN, OUTPUTS), 2, gain, bias=True),
            readout(OUTPUTS),
        )
        with torch.no_grad():
            graph = to_nir(net, torch.zeros_like(x[:, :1]))
            for layer in (net[1], net[3]):
                layer.reset_states()
            hidden = net[1](net[0](x))
            last = net[3](net[2](hidden))
        cases.append(saved(out, name, graph, given(), (hidden.transpose(0, 1), last.transpose(0, 1))))
    return cases


def rockpool(out):
    import torch
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFNeuronTorch, LIFTorch, LinearTorch
    from rockpool.nn.modules.torch.nir import to_nir

    cases = []
    x = torch.from_numpy(given()).transpose(0, 1)
    for kind, more in ((LIFTorch, {"tau_syn": torch.tensor(0.01)}), (LIFNeuronTorch, {})):
        parts = []
        for size, inputs, seed in ((HIDDEN, INPUTS, 1), (OUTPUTS, HIDDEN, 2)):
            weight = torch.from_numpy(weights(size, inputs, seed, 0.3).T.copy())
            parts.append(LinearTorch((inputs, size), weight=weight, has_bias=False))
            tau, threshold = torch.tensor(0.02), torch.tensor(1.0)
            parts.append(kind(size, tau_mem=tau, threshold=threshold, dt=2e-3, **more))
        net = Sequential(*parts)
        with torch.no_grad():
            graph = to_nir(net)
            emitted = [x]
            for part in net:
                part.reset_state()
                emitted.append(part(emitted[-1])[0])
        cases.append(saved(out, kind.__name__, graph, given(), [emitted[n].transpose(0, 1) for n in (2, 4)], dt_s=2e-3))
    return cases


def norse(out):
    import norse.torch as nt
    import torch

    def full(kind, size, **values):
        given = {**kind()._asdict(), "v_reset": 0.0, **values}
        return kind(**{name: torch.full((size,), value) if isinstance(value, float) else value for name, value in given.items()})

    def cell(kind, size):
        if kind == "LIFBoxCell":
            return nt.LIFBoxCell(full(nt.LIFBoxParameters, size, tau_mem_inv=200.0, v_th=0.3, v_leak=0.0))
        if kind == "LIFCell":
            return nt.LIFCell(full(nt.LIFParameters, size, tau_mem_inv=200.0, tau_syn_inv=300.0, v_th=0.3, v_leak=0.0))
        return nt.IAFCell(full(nt.IAFParameters, size, v_th=1.0))

    cases = []
    x = torch.from_numpy(given())
    for kind in ("LIFBoxCell", "LIFCell", "IAFCell"):
        net = nt.SequentialState(
            filled(torch.nn.Linear(INPUTS, HIDDEN), 1, 0.5, bias=True),
            cell(kind, HIDDEN),
            filled(torch.nn.Linear(HIDDEN, OUTPUTS), 2, 0.5, bias=True),
            cell(kind, OUTPUTS),
        )
        hidden, last, state = [], [], None
        hook = net[1].register_forward_hook(lambda module, given, made, kept=hidden: kept.append(made[0].detach()))
        with torch.no_grad():
            for step in x:
                z, state = net(step, state)
                last.append(z)
            hook.remove()
            graph = nt.to_nir(net, torch.zeros(1, INPUTS))
        graph.nodes["input"].input_type = {"input": np.array([INPUTS])}  # Norse writes the batch axis, nir.read then fails
        graph.nodes["output"].output_type = {"output": np.array([OUTPUTS])}
        cases.append(saved(out, kind, graph, x.numpy(), (torch.stack(hidden), torch.stack(last)), dt_s=1e-3))
    return cases


# --------------------------------------------------------------------------------------------------------------- jax


def spyx(out):
    import jax.numpy as jnp
    from flax import nnx
    from spyx import nn
    from spyx.nir import to_nir

    def neuron(kind, size):
        rngs = nnx.Rngs(0)
        made = {
            "IF": lambda: nn.IF((size,), threshold=1.0),
            "LIF": lambda: nn.LIF((size,), beta=0.875, threshold=1.0, rngs=rngs),
            "CuBaLIF": lambda: nn.CuBaLIF((size,), alpha=0.75, beta=0.875, threshold=1.0, rngs=rngs),
            "RIF": lambda: nn.RIF((size,), threshold=1.0, rngs=rngs),
            "RLIF": lambda: nn.RLIF((size,), beta=0.875, threshold=1.0, rngs=rngs),
            "RCuBaLIF": lambda: nn.RCuBaLIF((size,), alpha=0.75, beta=0.875, threshold=1.0, rngs=rngs),
        }[kind]()
        if kind.startswith("R"):
            made.recurrent_w[...] = jnp.array(weights(size, size, 3, 0.1))
        return made

    cases = []
    x = given()
    for kind, bias in (*((k, False) for k in ("IF", "LIF", "CuBaLIF", "RIF", "RLIF", "RCuBaLIF")), ("LIF", True), ("RIF", True)):
        parts = []
        for size, inputs, seed in ((HIDDEN, INPUTS, 1), (OUTPUTS, HIDDEN, 2)):
            linear = nnx.Linear(inputs, size, rngs=nnx.Rngs(0))
            linear.kernel[...] = jnp.array(weights(size, inputs, seed, 0.35).T)
            linear.bias[...] = jnp.array(weights(1, size, seed + 50, 0.05)[0] * bias)
            parts += [linear, neuron(kind, size)]
        graph = to_nir(nn.Sequential(*parts), {"input": np.array([INPUTS])}, {"output": np.array([OUTPUTS])})
        states = [part.initial_state(SAMPLES) for part in (parts[1], parts[3])]
        emitted = ([], [])
        for step in x:
            h = jnp.array(step)
            for n, (linear, cell) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
                h, states[n] = cell(linear(h), states[n])
                emitted[n].append(np.asarray(h))
        name = f"{kind}-bias" if bias else kind
        cases.append(saved(out, name, graph, x, [np.array(layer) for layer in emitted], early=0 if bias else 1))
    return cases


if __name__ == "__main__":
    framework, folder = sys.argv[1:]
    print(json.dumps(globals()[framework](Path(folder))))
