"""Rockpool's conventions: time, state and neuron equations of its torch modules.

    LIFTorch         i ← beta · (i + x + w_recᵀ spk), v ← alpha · v + i + bias  n = ⌊v / threshold⌋ spikes, then v − n · threshold
    LIFNeuronTorch   v ← alpha · v + x + bias                                   the same
    ExpSynTorch      i ← beta · (i + x)                                       output i

alpha = exp(−dt / tau_mem), beta = exp(−dt / tau_syn), n at most max_spikes_per_dt, spk the spikes of the step
before. All run over time, batch first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from rockpool.nn.modules import ExpSynTorch, LIFNeuronTorch, LIFTorch, LinearTorch
from rockpool.nn.modules.torch import lif_neuron_torch, lif_torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework, NeuronUpdate, TraceContext
from spear_deploy.frameworks.importer.modules import add_part, check_hooks, check_input, name_in_errors, note_call
from spear_deploy.frameworks.importer.storage import store_tensor
from spear_deploy.frameworks.importer.symbols import OutputAndState, Signal, State, Symbol, name_module
from spear_deploy.frameworks.importer.synapses import explain_refusal, to_array
from spear_deploy.frameworks.rockpool_modules import (
    MODULES,
    STATES,
    ModuleSequence,
    RockpoolModule,
    finish_copy,
    is_kind,
    prepare,
)
from spear_deploy.network import LI, LIF, Array, CubaLIF, Dense, Neuron
from spear_deploy.network.graph import Edge
from spear_deploy.util.number_format import format_shape

CLOSEST_TO_ONE = 1 - 2.0**-40
"""A decay of 1, of neurons that do not leak: no float32 state tells it from 1."""


def _add_module(context: TraceContext, module: RockpoolModule, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the layers of a module: weights, or neurons with their recurrent weights."""
    inner, place = module.inner, name_module(path)
    kind = next((kind for kind in MODULES if is_kind(inner, kind)), None)
    if kind is None:
        name = type(inner).__name__
        raise UnsupportedError(
            f"{place} is {name}, which has no spiking counterpart here: {explain_refusal(name, context.framework)}"
        )
    check_hooks(inner, place)
    signal = check_input(context, module, path, x)
    if signal.shape != (inner.size_in,):
        raise UnsupportedError(f"{place} takes {inner.size_in} inputs, gets {format_shape(signal.shape)}; check the shapes")
    if kind is LinearTorch:
        part = Dense(weight=to_array(inner.weight).T.copy(), bias=None if inner.bias is None else to_array(inner.bias))
        output = context.unrolled.make_once((path, "module", signal), lambda key: add_part(context, path, key[2], part))
    else:
        output = context.unrolled.make_once((path, "neuron", signal), lambda key: _add_neurons(context, inner, path, key[2]))
    return OutputAndState(output, State()) if module.returns_state else output


def _add_neurons(context: TraceContext, inner: Any, path: str, x: Signal) -> Signal:
    """Add the layer of a neuron module, with one for its recurrent weights."""
    place, builder = name_module(path), context.builder
    note_call(context, inner, path)
    with name_in_errors(place):
        neuron = _make_neuron(inner, place)
    currents = [x]
    if isinstance(inner, LIFTorch) and to_array(inner.w_rec).any():
        synapse = Dense(weight=to_array(inner.w_rec).T.copy())
        currents.append(builder.add_layer(f"{path or 'model'}.recurrent", shape=x.shape, synapse=synapse))
    output = builder.add_layer(path, *currents, neuron=neuron)
    builder.edges += [Edge(source=output.name, target=current.name, delay=1) for current in currents[1:]]
    builder.steps_s[output.name] = float(inner.dt)
    return output


def _make_neuron(inner: Any, place: str) -> Neuron:
    """Return the neuron of a module.

    A bias is a leak towards bias / (1 − alpha), from a potential that starts at 0.

    Raises:
        UnsupportedError: noise, another spike generation than Rockpool's, or several synapses a neuron.
    """
    dt_s = float(inner.dt)
    if (noise := to_array(inner.noise_std)).any():
        raise UnsupportedError(f"{place} has noise_std {noise.max():g}; set it to 0")
    if isinstance(inner, ExpSynTorch):
        keep = np.exp(-dt_s / _read(inner.tau))
        rate = 1 - np.minimum(keep, CLOSEST_TO_ONE)
        return LI(tau_s=dt_s / rate, r=keep / rate)
    rule = getattr(inner.spike_generation_fn, "__self__", inner.spike_generation_fn)
    if rule not in SPIKE_FUNCTIONS:
        raise UnsupportedError(
            f"{place} has spike_generation_fn={getattr(rule, '__name__', type(rule).__name__)}, expected StepPWL or "
            "PeriodicExponential of Rockpool; train with one of them"
        )
    spiking: dict[str, Any] = {
        "v_threshold": np.nextafter(_read(inner.threshold).astype(np.float32), np.float32(-np.inf)),
        "reset": "subtract",
        "max_spikes": _read_max_spikes(inner, place),
    }
    keep = np.exp(-dt_s / _read(inner.tau_mem)) if isinstance(inner, LIFNeuronTorch) else _read(inner.alpha)
    rate = 1 - np.minimum(keep, CLOSEST_TO_ONE)
    if (bias := _read(inner.bias)).any():
        spiking |= {"v_leak": bias / rate, "v_init": np.zeros(())}
    if isinstance(inner, LIFNeuronTorch):
        return LIF(tau_s=dt_s / rate, r=1 / rate, **spiking)
    if inner.n_synapses != 1:
        raise UnsupportedError(f"{place} has {inner.n_synapses} synapses a neuron; use LIFTorch of one, a layer for each of them")
    beta = _read(inner.beta)
    beta = beta.reshape(-1) if beta.ndim == 2 else beta
    rate_syn = 1 - np.minimum(beta, CLOSEST_TO_ONE)
    return CubaLIF(tau_mem_s=dt_s / rate, tau_syn_s=dt_s / rate_syn, r=1 / rate, w_in=beta / rate_syn, **spiking)


def _read(value: Any) -> Array:
    return np.asarray(to_array(value).astype(np.float64))


def _list_held(module: Any) -> tuple[Any, ...]:
    return tuple(getattr(module.inner, name, None) for name in STATES) if isinstance(module, RockpoolModule) else ()


def _refuse(context: TraceContext, module: Any, path: str, x: Signal) -> Signal:
    raise UnsupportedError(f"{name_module(path)} is {type(module).__name__}, which has no counterpart here")


# ------------------------------------------------------------------------------------------------------------- storing


def _read_max_spikes(inner: Any, place: str) -> int:
    """Return the largest number of spikes in a step.

    Raises:
        UnsupportedError: another one for each neuron, less than one, or a fraction.
    """
    values = np.unique(to_array(inner.max_spikes_per_dt))
    if np.isposinf(values).all():
        raise UnsupportedError(
            f"{place} has max_spikes_per_dt inf, which half() makes of the default of 65,536, and with which Rockpool gives no "
            "numbers; set it to a whole number of at least 1"
        )
    if len(values) > 1 or values[0] < 1 or values[0] % 1:
        several, which = (f"..{values[-1]:g}", "one number") if len(values) > 1 else ("", "a whole number")
        raise UnsupportedError(f"{place} has max_spikes_per_dt {values[0]:g}{several}; give {which} of at least 1")
    return int(values[0])


def _store_synapse(module: Any, synapse: Any) -> bool:
    """Store weights in a LinearTorch, whose matrix is (inputs, outputs)."""
    if not isinstance(module, LinearTorch):
        return False
    store_tensor(module, "weight", synapse.weight.T)
    if synapse.bias is not None:
        store_tensor(module, "bias", synapse.bias)
    module.__dict__["_shape"] = synapse.weight.shape[::-1]
    _register_shapes(module)
    return True


def _store_neuron(module: Any, update: NeuronUpdate) -> None:
    """Store changed parameters, and clear the state."""
    neuron, changed, dt_s = update.neuron, update.changed, update.dt_s
    if "v_threshold" in changed:
        store_tensor(module, "threshold", np.nextafter(neuron.v_threshold.astype(np.float32), np.float32(np.inf)))
    if "max_spikes" in changed:
        if neuron.max_spikes is None:
            raise UnsupportedError("the network's neurons send any number of spikes in a step, it has a limit; give max_spikes")
        module.max_spikes_per_dt = torch.tensor(float(neuron.max_spikes))
    names = ("tau" if isinstance(module, ExpSynTorch) else "mem", "mem", "syn")
    for field, name in zip(("tau_s", "tau_mem_s", "tau_syn_s"), names, strict=True):
        if field in changed:
            _store_time_constant(module, name, dt_s / getattr(neuron, field), dt_s)
    (size,) = update.shape
    module.__dict__["_shape"] = (size, size)
    if hasattr(module, "n_neurons"):
        module.n_neurons = size
    if not isinstance(module, ExpSynTorch) and (module.bias.ndim or "v_leak" in changed):
        rate = dt_s / (neuron.tau_s if isinstance(module, LIFNeuronTorch) else neuron.tau_mem_s)
        bias = (rate * neuron.v_leak).astype(np.float32)
        store_tensor(module, "bias", np.broadcast_to(bias, (size,)).copy() if module.bias.ndim else bias)
    for name in STATES:
        if name in module._buffers:
            states = module._buffers[name]
            module._buffers[name] = states.new_zeros((size, *states.shape[1:]))
    if "w_rec" in module._buffers:  # zeros of a module without recurrent weights
        module._buffers["w_rec"] = module._buffers["w_rec"].new_zeros((size, size))
    _register_shapes(module)


def _store_time_constant(module: Any, name: str, rate: Array, dt_s: float) -> None:
    """Store a decay as the module holds it: a time constant, a factor, or bits to shift by."""
    mode = str(getattr(module, "leak_mode", "taus"))
    stored = {
        "taus": ("tau" if name == "tau" else f"tau_{name}", -dt_s / np.log1p(-rate)),
        "decays": ("alpha" if name == "mem" else "beta", 1 - rate),
        "bitshifts": (f"dash_{name}", -np.log2(rate)),
    }[mode]
    store_tensor(module, *stored)


def _store_recurrent(module: Any, part: tuple[str, Any]) -> None:
    """Store recurrent weights, (outputs, inputs) transposed."""
    store_tensor(module, "w_rec", part[1].weight.T)
    _register_shapes(module)


def _register_shapes(module: Any) -> None:
    """Let Rockpool's registry, which checks each assignment, hold the present tensors and shapes."""
    registered, _ = module._get_attribute_registry()
    for name, entry in registered.items():
        value = getattr(module, name)
        if isinstance(value, torch.Tensor):
            entry[0], entry[4] = value, tuple(value.shape)


SPIKE_FUNCTIONS = (lif_torch.StepPWL, lif_torch.PeriodicExponential, lif_neuron_torch.StepPWL)
"""Functions that make ⌊v / threshold⌋ spikes, up to max_spikes_per_dt; they differ in their gradients."""

ROCKPOOL = Framework(
    name="rockpool",
    title="Rockpool",
    packages=(RockpoolModule.__module__,),
    time_axis=1,
    containers=(ModuleSequence,),
    stepped=(),
    over_time=(RockpoolModule,),
    keeps_state=True,
    list_held=_list_held,
    hands_state=lambda module: module.returns_state,
    count_results=lambda module: 3 if isinstance(module, RockpoolModule) and module.returns_state else 0,
    handlers={RockpoolModule: _add_module},
    add_neurons=_refuse,
    store_synapse=_store_synapse,
    neurons=(LIFTorch, LIFNeuronTorch, ExpSynTorch),
    store_neuron=_store_neuron,
    clear=lambda module: module.reset_state(),
    stores_max_spikes=True,
    store_recurrent=_store_recurrent,
    prepare=prepare,
    finish_copy=finish_copy,
    example="LIFTorch",
    reasons={
        "aLIFTorch": "its threshold adapts; use LIFTorch",
        "RateTorch UpDownTorch": "it does not spike as a neuron does; use LIFTorch",
        "InstantTorch": "it calls a function; use a module",
        "TWrapper": "it changes its parameters as it runs; give remove_T_net(apply_T(net)) of rockpool.transform.torch_transform",
        "ActWrapper": "it changes what a module returns as it runs; give the network as it was before make_act_T_network",
        "SynNet": "its output is the membrane's potential; make it with output='spikes'",
        "WaveSenseNet WaveBlock": "its synapses hold spikes back; use SynNet",
        "TorchFFwdStack": "it makes weights between its modules; use Sequential, with LinearTorch between them",
        "TimeStepDropout": "it drops time steps; make the network with p_dropout=0",
    },
    supported=(
        "LinearTorch, LIFTorch, LIFBitshiftTorch, LIFNeuronTorch, ExpSynTorch, Linear, Dropout, Identity, Sequential, Residual, "
        "SynNet, sums"
    ),
    hint_time="use modules over time in all places",
    hint_batch="use LinearTorch",
    hint_state="take the first of what it returns, x, _, _ = module(x), or use Sequential of Rockpool",
    hint_reset="net.reset_state()",
    hint_export="rockpool.nn.modules.torch.nir.to_nir(net), and give the file with --source rockpool",
)
"""Rockpool 3.1.0, by what its torch modules mean for time, state and neurons."""
