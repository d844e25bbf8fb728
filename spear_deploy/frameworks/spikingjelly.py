"""SpikingJelly's conventions: time, state and neuron equations of its modules.

    IFNode               v ← v + x                                    spike = v ≥ v_threshold
    LIFNode              v ← v + (x − (v − v_reset)) / tau            decay_input=True
                         v ← v − (v − v_reset) / tau + x              decay_input=False
    ParametricLIFNode    the same with 1 / tau = sigmoid(w)
    OTTTLIFNode, SLTTLIFNode                                      LIFNode's, in evaluation
    CUBALIFNode          c ← c_decay · c + x, v ← v_decay · v + c

Where v_reset is None it is 0 in the membrane's equation, and a spike subtracts the threshold; else a spike sets v to v_reset.
tau counts steps. A step has no length: a network gets `dt_s`, 1e-4 s as in SpikingJelly's own NIR files. Neurons run in
single-step mode ('s') or over time ('m'), and layers without a state put time into the batch in mode 'm'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.base import MemoryModule
from spikingjelly.activation_based.neuron.base_node import NonSpikingBaseNode
from torch.fx import Proxy

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework, NeuronUpdate, TraceContext, run_stepwise
from spear_deploy.frameworks.importer.modules import add_stateless, check_hooks, check_input, join
from spear_deploy.frameworks.importer.spike_functions import check_methods, check_spike_function, find_own_method
from spear_deploy.frameworks.importer.storage import store_tensor
from spear_deploy.frameworks.importer.symbols import (
    Concat,
    Decoded,
    Signal,
    Symbol,
    map_decoded,
    name_module,
    require_signal,
    shifted_by,
)
from spear_deploy.frameworks.importer.synapses import make_refusal, to_array
from spear_deploy.network import IF, LIF, Array, CubaLIF, Neuron
from spear_deploy.util.number_format import format_shape

DT_S = 1e-4
METHODS = (
    "forward",
    "single_step_forward",
    "multi_step_forward",
    "single_step_functional_forward",
    "neuronal_charge",
    "neuronal_fire",
    "neuronal_reset",
)
"""Methods that compute a step."""


def _add_neurons(context: TraceContext, module: Any, path: str, x: Signal) -> Signal:
    """Add the layer of a neuron module, which keeps its state."""
    place = name_module(path)
    kind = next((kind for kind in NEURONS if isinstance(module, kind)), None)
    own = None if kind is None else find_own_method(module, kind, METHODS)
    if kind is None or (context.framework.is_own(module) and own is not None and own not in vars(module)):
        raise make_refusal(module, place, context.framework)
    check_methods(module, kind, METHODS, place)
    remedy = "train with one of spikingjelly.activation_based.surrogate, with spiking=True"
    check_spike_function(module, "surrogate_function", place, spikes_at_threshold=True, remedy=remedy)
    return context.builder.add_layer(path, x, neuron=make_neuron(module, place, context.builder.default_dt_s))


def make_neuron(module: Any, place: str, dt_s: float) -> Neuron:
    """Return the neuron of a module of `NEURONS`.

    Raises:
        UnsupportedError: a decay with which the state does not decay.
    """
    v_reset = float(module.v_reset or 0.0)
    shared: dict[str, Any] = {
        "v_threshold": lower_threshold(module.v_threshold),
        "v_reset": np.asarray(v_reset),
        "reset": "subtract" if module.v_reset is None else "value",
    }
    if isinstance(module, (neuron.IFNode, neuron.SimpleIFNode)):
        return IF(**shared)
    if isinstance(module, neuron.CUBALIFNode):
        rate, rate_syn = np.asarray(1 - float(module.v_decay)), np.asarray(1 - float(module.c_decay))
        if v_reset != 0 or not 0 < rate <= 1 or not 0 < rate_syn <= 1:
            raise UnsupportedError(
                f"{place} is CUBALIFNode with c_decay {module.c_decay:g}, v_decay {module.v_decay:g}, v_reset {module.v_reset}; "
                "expected decays in [0, 1) and v_reset 0 or None"
            )
        return CubaLIF(
            tau_mem_s=np.asarray(dt_s / rate),
            tau_syn_s=np.asarray(dt_s / rate_syn),
            r=np.asarray(1 / rate),
            w_in=np.asarray(1 / rate_syn),
            **shared,
        )
    tau: Array = np.asarray(
        1 / to_array(torch.sigmoid(module.w)).astype(np.float64) if hasattr(module, "w") else float(module.tau)
    )
    gain = np.ones(()) if module.decay_input else tau
    return LIF(tau_s=np.asarray(tau * dt_s), r=gain, v_leak=np.asarray(v_reset), **shared)


def lower_threshold(v_threshold: Any) -> Array:
    """Return the threshold one float32 step lower, since a v that reaches it spikes."""
    return np.nextafter(np.asarray(v_threshold, np.float32), np.float32(-np.inf))


# ------------------------------------------------------------------------------------------------------------- storing


def _store_neuron(module: Any, update: NeuronUpdate) -> None:
    """Store changed parameters, which are one number a layer here, and clear the state.

    Raises:
        UnsupportedError: values that differ between neurons.
    """
    node, changed, dt_s = update.neuron, update.changed, update.dt_s
    if "v_threshold" in changed:
        module.v_threshold = float(np.nextafter(np.float32(_share(node, "v_threshold")), np.float32(np.inf)))
    if "v_reset" in changed and module.v_reset is not None:
        module.v_reset = _share(node, "v_reset")
    if "tau_s" in changed:
        tau = _share(node, "tau_s") / dt_s
        if hasattr(module, "w"):
            store_tensor(module, "w", -np.log(tau - 1))
        else:
            module.tau = tau
    if "tau_mem_s" in changed:
        module.v_decay = 1 - dt_s / _share(node, "tau_mem_s")
    if "tau_syn_s" in changed:
        module.c_decay = 1 - dt_s / _share(node, "tau_syn_s")
    _clear(module)


def _clear(module: Any) -> None:
    """Clear the state of a module; containers have none of their own."""
    if isinstance(module, MemoryModule):
        module.reset()


def _share(node: Any, name: str) -> float:
    values = getattr(node, name)
    if np.ptp(values):
        raise UnsupportedError(f"{name} differs between neurons, it holds one; give all neurons of a layer the same")
    return float(values.reshape(-1)[0])


# ---------------------------------------------------------------------------------------------------------- containers


def _add_container(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the layers of a container, which puts time into the batch or runs its modules step by step."""
    place = name_module(path)
    if context.form != "layers":
        raise UnsupportedError(f"{place} is {type(module).__name__}, which runs over time within one step; use Sequential")
    check_hooks(module, place)
    signal = join(context, x, path) if isinstance(x, Concat) else require_signal(x, place, HINT_STATE)
    inner = torch.nn.Sequential(*module)
    return context.unrolled.make_once(
        (path, "container", signal), lambda key: context.interpret(inner, key[2], path=path, form="step").output
    )


def _add_recurrent(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the layers of a module that gets its own output of the step before beside its input, through linear weights."""
    place, builder = name_module(path), context.builder
    check_hooks(module, place)

    def make(key: Any) -> Signal:
        fed = builder.make_zeros((module.sub_module_out_features,))
        current = add_stateless(context, module.rc, f"{path or 'model'}.rc", Concat((key[2], fed)))
        inner = context.interpret(
            module.sub_module, require_signal(current, place, HINT_STATE), path=f"{path or 'model'}.sub_module", form="step"
        )
        output = inner.output
        builder.edges = [
            replace(edge, source=output.name, delay=1) if edge.source == fed.name else edge for edge in builder.edges
        ]
        return output

    return context.unrolled.make_once((path, "container", require_signal(x, place, HINT_STATE)), make)


def _add_delay(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Return a signal that comes some steps later, which the edges from it hold."""
    place = name_module(path)
    if context.form != "layers":
        raise UnsupportedError(
            f"{place} is Delay in a model of one step; run it over time, with functional.set_step_mode(net, 'm')"
        )
    check_hooks(module, place)
    return shifted_by(x if isinstance(x, Concat) else require_signal(x, place, HINT_STATE), int(module.delay_steps))


@contextmanager
def _trace_functions() -> Iterator[None]:
    """Let the functions that run modules over time leave one call for each module in a trace."""
    names = ("multi_step_forward", "seq_to_ann_forward")
    originals = {name: getattr(functional, name) for name in names}

    def replaced(original: Any) -> Any:
        def run(x_seq: Any, modules: Any) -> Any:
            if not isinstance(x_seq, Proxy):
                return original(x_seq, modules)
            tracer: Any = x_seq.tracer
            for module in modules if isinstance(modules, (list, tuple)) else [modules]:
                path = tracer.path_of_module(module)
                x_seq = tracer.create_proxy("call_function", run_stepwise, (x_seq, path), {})
            return x_seq

        return run

    try:
        for name, original in originals.items():
            setattr(functional, name, replaced(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(functional, name, original)


ZEROS = (torch.zeros, torch.zeros_like, "new_zeros")
"""Calls of a trace that give zeros."""


def _is_reset_value(module: Any, name: str, value: Any) -> bool:
    """Return whether what a forward sets a state of a module to is what a reset sets it to."""
    start = module._memories_rv[name]
    if isinstance(value, Proxy):
        value = 0.0 if value.node.target in ZEROS else None
    if value is None or start is None:
        return value is start
    return bool((torch.as_tensor(value).detach() == torch.as_tensor(start)).all())


@contextmanager
def _watch_resets(note_reset: Callable[..., None]) -> Iterator[None]:
    """Tell of modules that are reset in a trace, such as by functional.reset_net or by an assignment to `v`."""
    reset_all, assign = MemoryModule.reset, MemoryModule.__setattr__

    def reset(self: Any) -> None:
        note_reset(lambda module: module is self)
        reset_all(self)

    def set_value(self: Any, name: str, value: Any) -> None:
        if isinstance(value, Proxy) and name == "v" and _is_detached(value, self.v):
            return
        if name in vars(self).get("_memories", ()):
            note_reset(lambda module: module is self, is_own=_is_reset_value(self, name, value))
        assign(self, name, value)

    MemoryModule.reset, MemoryModule.__setattr__ = reset, set_value
    try:
        yield
    finally:
        MemoryModule.reset, MemoryModule.__setattr__ = reset_all, assign


def _is_detached(value: Proxy, potential: Any) -> bool:
    """Return whether a value is a potential without its gradient, `v = v.detach()` or `v.data`, which is the same number."""
    node: Any = value.node
    own = getattr(potential, "node", None)
    while (node.op == "call_method" and node.target in SAME) or (node.target is getattr and node.args[1] == "data"):
        node = node.args[0]
    return own is not None and (node.op, node.target, node.args) == (own.op, own.target, own.args)


SAME = ("detach", "detach_", "clone")
"""Methods of a tensor that give the same numbers."""


@contextmanager
def _watch_potentials(read: Callable[[Any, bool], Any]) -> Iterator[None]:
    """Give a forward that reads `v` or `v_seq` of neurons the symbol of their potential in place of what they hold."""
    original = MemoryModule.__getattr__

    def get_value(self: Any, name: str) -> Any:
        made = read(self, True) if name == "v" and isinstance(self, NEURONS) else None
        return original(self, name) if made is None else made

    def get_all(self: Any) -> Any:
        made = read(self, False) if self.step_mode == "m" else None
        if made is not None and not self.store_v_seq:
            raise UnsupportedError(
                f"the forward reads v_seq of a {type(self).__name__} with store_v_seq=False, which keeps none; make it with "
                "store_v_seq=True"
            )
        return vars(self).get("v_seq") if made is None else made

    MemoryModule.__getattr__ = get_value
    neuron.BaseNode.v_seq = property(get_all, lambda self, value: vars(self).__setitem__("v_seq", value))
    try:
        yield
    finally:
        MemoryModule.__getattr__ = original
        del neuron.BaseNode.v_seq


def _add_voting(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the mean of each group of neighbouring neurons, as weights of 1 / `voting_size`."""
    place, size = name_module(path), int(module.voting_size)
    check_hooks(module, place)
    if isinstance(x, Decoded) and x.kind != "other":  # a mean commutes with a mean, a sum or the last step
        return map_decoded(x, place, lambda output: _add_voting(context, module, path, output, others))
    if isinstance(x, Decoded):
        raise UnsupportedError(f"{place} is VotingLayer behind the {x.how} of all steps; put it in front of the {x.how}")
    signal = join(context, x, path) if isinstance(x, Concat) else require_signal(x, place, HINT_STATE)
    if len(signal.shape) != 1 or signal.shape[0] % size:
        raise UnsupportedError(
            f"{place} votes by {size} of {format_shape(signal.shape)} neurons; flatten them, and let {size} divide their number"
        )
    votes = np.kron(np.eye(signal.shape[0] // size), np.ones((1, size)) / size).astype(np.float32)
    return context.unrolled.make_once((path, "module", signal), lambda key: context.builder.add_fixed(path, key[2], votes))


def _add_threshold_norm(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add a norm whose scale begins at the threshold behind it; in evaluation it is a norm of its statistics as any other."""
    if context.form != "layers":
        raise UnsupportedError(
            f"{name_module(path)} is {type(module).__name__}, which runs over time alone, in a model of one step; set "
            "functional.set_step_mode(net, 'm'), or use BatchNorm2d"
        )
    key = (path, "module", check_input(context, module, path, x))
    return context.unrolled.make_once(key, lambda key: add_stateless(context, module, path, key[2]))


def _runs_over_time(module: Any) -> bool:
    return getattr(module, "step_mode", "m") == "m"


HINT_STATE = "its modules keep their state; use Sequential"
NEURONS = (
    neuron.OTTTLIFNode,
    neuron.SLTTLIFNode,
    neuron.IFNode,
    neuron.LIFNode,
    neuron.ParametricLIFNode,
    neuron.CUBALIFNode,
    neuron.SimpleIFNode,
    neuron.SimpleLIFNode,
)
CONTAINERS = (layer.MultiStepContainer, layer.SeqToANNContainer)
THRESHOLD_NORMS = (layer.ThresholdDependentBatchNorm1d, layer.ThresholdDependentBatchNorm2d)
PLAIN = (
    layer.Linear,
    layer.Conv1d,
    layer.Conv2d,
    layer.ConvTranspose1d,
    layer.ConvTranspose2d,
    layer.BatchNorm1d,
    layer.BatchNorm2d,
    *THRESHOLD_NORMS,
    layer.AvgPool1d,
    layer.AvgPool2d,
    layer.AdaptiveAvgPool1d,
    layer.AdaptiveAvgPool2d,
    layer.MaxPool1d,
    layer.MaxPool2d,
    layer.Flatten,
)
FOLDED = (layer.Dropout, layer.Dropout2d)

SPIKINGJELLY = Framework(
    name="spikingjelly",
    title="SpikingJelly",
    packages=("spikingjelly.activation_based.neuron", "spikingjelly.activation_based.layer"),
    dt_s=DT_S,
    containers=(layer.OTTTSequential,),
    stepped=(MemoryModule,),
    over_time=(*CONTAINERS, NonSpikingBaseNode),
    runs_over_time=_runs_over_time,
    lifts=(*CONTAINERS, layer.LinearRecurrentContainer),
    plain=PLAIN,
    merges_time=lambda module: isinstance(module, PLAIN) and _runs_over_time(module),
    folded=FOLDED,
    keeps_state=True,
    list_held=lambda module: (module.v,) if isinstance(module, NEURONS) else (),
    tracing=_trace_functions,
    watching_resets=_watch_resets,
    watching_potentials=_watch_potentials,
    hands_state=lambda module: False,
    loops_inside=True,
    handlers={
        **dict.fromkeys(CONTAINERS, _add_container),
        **dict.fromkeys(THRESHOLD_NORMS, _add_threshold_norm),
        layer.Delay: _add_delay,
        layer.VotingLayer: _add_voting,
        layer.LinearRecurrentContainer: _add_recurrent,
    },
    add_neurons=_add_neurons,
    neurons=NEURONS,
    store_neuron=_store_neuron,
    clear=_clear,
    example="neuron.LIFNode",
    reasons={
        "QIFNode EIFNode IzhikevichNode": "its membrane is quadratic or exponential; use LIFNode",
        "PSN MaskedPSN SlidingPSN GatedLIFNode KLIFNode": "its membrane is that of a parallel or gated unit; use LIFNode",
        "NonSpiking": "it decodes its membrane over time; use LIFNode, and decode after the network",
        "ActivationAwareIFNode": "it has thresholds and offsets of the channels of an activation; use IFNode",
        "ComplementaryLIFNode": "a second state of its own lowers its membrane; use LIFNode",
        "DSRIFNode DSRLIFNode": "it spikes at a part of its threshold, alpha, and takes the whole off; use IFNode or LIFNode",
        "FewSpikeNode HGNode OutlierAwareThresholdNode": "it codes a value by the steps of its spikes; use IFNode",
        "FlexSN": "it computes a function of the user's; use LIFNode",
        "HalfThresholdIFNode": "it starts at half its threshold; use IFNode",
        "ILC": "it sends its spikes through weights of its own; use LIFNode, with Linear behind it",
        "LIAFNode": "it sends a function of its membrane, no spikes; use LIFNode",
        "MPBN": "it normalises its membrane; use LIFNode, with a batch norm in front of it",
        "Noisy": "it draws noise; use LIFNode or CUBALIFNode",
        "RAFNode": "its membrane oscillates; use LIFNode",
        "STBIFNode TernaryIFNode TernaryLIFNode": "it sends spikes of -1 too; use IFNode or LIFNode",
        "ILIFNode": "it emits several spikes in one step; use LIFNode",
        "SynapseFilter": "it is a current of its own; use CUBALIFNode",
        "DropConnectLinear": "it draws its weights; use Linear",
        "ElementWiseRecurrentContainer": "it feeds spikes back by a function; use LinearRecurrentContainer",
        "WSConv2d WSLinear": "it normalises its weights as it runs; use Conv2d or Linear with the weights that it makes",
        "TLast StepModeContainer": "use SeqToANNContainer or MultiStepContainer, with time in front",
        "NeuNorm": "it normalises by a state; use BatchNorm2d",
        "TemporalEffectiveBatchNorm BatchNormThroughTime": (
            "it has other parameters in every step; use BatchNorm2d or ThresholdDependentBatchNorm2d"
        ),
        "ThresholdDependentBatchNorm3d": "a chip has positions over one or two axes; use ThresholdDependentBatchNorm2d",
    },
    supported=(
        "Linear, Conv1d, Conv2d, BatchNorm1d, BatchNorm2d, ThresholdDependentBatchNorm1d and 2d, AvgPool1d, AvgPool2d, "
        "AdaptiveAvgPool, MaxPool of spikes, Flatten, Dropout, Identity, VotingLayer, Delay, IFNode, LIFNode, ParametricLIFNode, "
        "OTTTLIFNode, SLTTLIFNode, CUBALIFNode, SeqToANNContainer, MultiStepContainer, LinearRecurrentContainer, Sequential, "
        "OTTTSequential, sums, torch.cat"
    ),
    hint_time="set one step mode with functional.set_step_mode",
    hint_batch="use layer.Conv2d and its like with step_mode='m', or SeqToANNContainer",
    hint_state=HINT_STATE,
    hint_reset="functional.reset_net(net)",
    hint_export="nir_exchange.export_to_nir(net, example_input, path), and give the file with --source spikingjelly",
)
"""SpikingJelly 2.0.0, by what its modules mean for time, state and neurons."""
