"""sinabs' conventions: time, state and neuron equations of its modules.

    i ← alpha_syn · (i + x)                     where tau_syn is given, else i = x
    v ← alpha_mem · v + (1 − alpha_mem) · i     norm_input=True, the default of LIF
    v ← alpha_mem · v + i                       norm_input=False, and IAF with alpha_mem = 1
    v ← max(v, min_v_mem)                       where it is given; of IAF alone
    n spikes where v ≥ n · spike_threshold      MultiSpike: any number; MaxSpike: up to its limit; SingleSpike: 1
    v ← v − n · spike_threshold, or 0           MembraneSubtract, MembraneReset

alpha = exp(−1 / tau), tau in steps. `...Recurrent` adds rec_connect(spikes of the step before) to x from the second step on, with
its bias. A step has no length: a network gets `dt_s`, 1e-3 s unless given. `...Squeeze` modules take time within the batch, the
others as the second axis. `spike_fn=None` makes a readout of v.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sinabs.layers as sl
import torch
from sinabs.activation import MaxSpike, MembraneReset, MembraneSubtract, MultiSpike, SingleSpike
from sinabs.layers.reshape import FlattenTime, SqueezeMixin, UnflattenTime
from sinabs.layers.stateful_layer import StatefulLayer

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework, NeuronUpdate, TraceContext
from spear_deploy.frameworks.importer.modules import check_hooks
from spear_deploy.frameworks.importer.storage import store_layer, store_tensor
from spear_deploy.frameworks.importer.symbols import Merged, Signal, Symbol, name_module, require_signal
from spear_deploy.frameworks.importer.synapses import CONVS, FOLDED, make_refusal, to_array, to_synapse
from spear_deploy.network import IF, LI, LIF, Array, CubaLIF, Neuron, Reset, Shape, Synapse, is_bounded
from spear_deploy.network.graph import Edge
from spear_deploy.util.number_format import format_shape

CLOSEST_TO_ONE = 1 - 2.0**-40
"""A decay of 1 beside a synaptic current: no float32 state tells it from 1."""


def _add_neurons(context: TraceContext, module: Any, path: str, x: Signal) -> Signal:
    """Add the layer of a neuron module, which keeps its state."""
    place, builder = name_module(path), context.builder
    if not any(isinstance(module, kind) and _find_methods(type(module)) == _find_methods(kind) for kind in NEURONS):
        raise make_refusal(module, place, context.framework)
    neuron = _make_neuron(module, x.shape, place, builder.default_dt_s)
    if module.min_v_mem is not None and not is_bounded(neuron):
        bound = ", ".join(f"{value:g}" for value in np.unique(to_array(module.min_v_mem)))
        raise UnsupportedError(
            f"{place} has min_v_mem={bound}, a lower bound of the membrane that only spiking neurons without leak and without "
            "tau_syn have here; train with min_v_mem=None, or use IAF without tau_syn"
        )
    output = builder.add_layer(path, x, neuron=neuron)
    if isinstance(module, SqueezeMixin) and module.num_timesteps > 0:
        steps = module.num_timesteps
        builder.note_module(path, f"num_timesteps={steps}: sinabs starts anew every {steps} steps, the network at each sample")
    if isinstance(module, RECURRENT):
        synapse = _make_recurrent_synapse(module, x.shape, place)
        current = builder.add_layer(f"{path or 'model'}.recurrent", shape=x.shape, synapse=synapse)
        # behind a bias, which counts from the second step on as the spikes do
        bias = getattr(synapse, "bias", None)
        late = bias is not None and bool(bias.any())
        builder.edges.append(Edge(source=output.name, target=current.name, delay=0 if late else 1))
        builder.edges.append(Edge(source=current.name, target=output.name, delay=1 if late else 0))
    return output


def _find_methods(kind: type) -> tuple[Any, ...]:
    """Return what makes a module's output: its forward, and that of Squeeze forms around it."""
    return tuple(getattr(kind, name, None) for name in ("forward", "squeeze_forward"))


def _make_recurrent_synapse(module: Any, shape: Shape, place: str) -> Synapse:
    """Return the weights from a layer's spikes to its own input."""
    weights = _find_recurrent_weights(module)
    if weights is None:
        raise UnsupportedError(f"{place} has a rec_connect of another kind than one linear layer or convolution; use one of them")
    synapse = to_synapse(weights, shape, f"the recurrent part of {place}", axes_before=1, hint="")
    assert isinstance(synapse, Synapse)
    if synapse.output_shape(shape) != shape:
        raise UnsupportedError(
            f"the recurrent part of {place} gives {format_shape(synapse.output_shape(shape))} values, the layer has "
            f"{format_shape(shape)}; give both the same shape"
        )
    return synapse


def _find_recurrent_weights(module: Any) -> torch.nn.Module | None:
    """Return the one module with weights among those that a recurrent layer's spikes pass, None for any other part."""
    unchanging = (*FOLDED, torch.nn.Flatten, torch.nn.Unflatten)
    inner = [part for part in module.rec_connect.modules() if type(part) is not torch.nn.Sequential]
    weights = [part for part in inner if not isinstance(part, unchanging)]
    return weights[0] if len(weights) == 1 and isinstance(weights[0], (torch.nn.Linear, *CONVS)) else None


def _store_recurrent(module: Any, part: tuple[str, Any]) -> None:
    """Store recurrent weights."""
    store_layer(_find_recurrent_weights(module), part[1], "its recurrent part")


def prepare(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model.

    Raises:
        UnsupportedError: it counts its SynOps by hooks, which no copy keeps.
    """
    for path, module in model.named_modules():
        if getattr(module, "synops_counter", None) is not None:
            raise UnsupportedError(
                f"{name_module(path)} counts its SynOps by hooks, which cannot be copied; build it without synops=True, and let "
                "`spear-deploy count` count them"
            )
    _check_sizes(model, "num_timesteps", "the number of steps of your data")
    _check_sizes(model, "batch_size", "the number of samples of a batch")
    return model


def _check_sizes(model: torch.nn.Module, name: str, what: str) -> None:
    """Refuse modules that part time and batch in different ways.

    Raises:
        UnsupportedError: they have another number of steps, or of samples.
    """
    parts = [(path, part) for path, part in model.named_modules() if isinstance(part, (SqueezeMixin, UnflattenTime))]
    stated = [(path, count) for path, part in parts if (count := int(getattr(part, name, -1))) > 0]
    for path, count in stated:
        if count != stated[0][1]:
            raise UnsupportedError(
                f"{name_module(path)} has {name}={count}, {name_module(stated[0][0])} {stated[0][1]}, so that one of them "
                f"takes the steps of a sample for several samples; give all {what}"
            )


def _add_merge(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the sum of two signals, with time and batch in two axes or in one."""
    if type(x) is Merged and type(others[0]) is Merged:
        return Merged(_add_merge(context, module, path, x.signal, (others[0].signal,)))
    place, hint = name_module(path), context.framework.hint_state
    check_hooks(module, place)
    a, b = (require_signal(symbol, place, hint) for symbol in (x, others[0]))
    if a.shape != b.shape or a == b:
        raise UnsupportedError(
            f"{place} merges {format_shape(a.shape)} and {format_shape(b.shape)} values; give it two signals of equal shape"
        )
    return context.unrolled.make_once((path, "add", a, b), lambda key: context.builder.add_layer(path, key[2], key[3]))


def _merge_time(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Return a signal with time and batch in one axis; modules of one step have them so."""
    check_hooks(module, name_module(path))
    signal = require_signal(x, name_module(path), context.framework.hint_state)
    return Merged(signal) if context.form == "layers" else signal


def _part_time(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Return a signal with time and batch in two axes."""
    check_hooks(module, name_module(path))
    return x.signal if isinstance(x, Merged) else require_signal(x, name_module(path), context.framework.hint_state)


def _add_repeated(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the layers of a module that Repeat runs on time within the batch."""
    place = name_module(path)
    if context.form != "layers":
        raise UnsupportedError(f"{place} is Repeat, which runs over time within one step; use its module alone")
    check_hooks(module, place)
    signal = require_signal(x, place, context.framework.hint_state)
    return context.unrolled.make_once(
        (path, "repeated", signal), lambda key: context.interpret(module.module, key[2], path=path, form="step").output
    )


def _make_neuron(module: Any, shape: Shape, place: str, dt_s: float) -> Neuron:
    """Return the neuron of a module."""
    keep = _read(module.alpha_mem_calculated, shape)
    gain = (1 - keep) if module.norm_input else np.ones(())
    rate = 1 - np.minimum(keep, CLOSEST_TO_ONE)
    keep_syn = module.alpha_syn_calculated
    if isinstance(module, sl.ExpLeak) or module.spike_fn is None:
        if keep_syn is not None:
            raise UnsupportedError(f"{place} has spike_fn=None and a tau_syn, which no readout here has; give it tau_syn=None")
        return LI(tau_s=dt_s / rate, r=gain / rate)
    spiking: dict[str, Any] = {
        "v_threshold": np.nextafter(_read(module.spike_threshold, shape).astype(np.float32), np.float32(-np.inf)),
        "reset": _read_reset(module, place),
        "max_spikes": _read_max_spikes(module, place),
    }
    if keep_syn is not None:
        alpha = _read(keep_syn, shape)
        rate_syn = 1 - np.minimum(alpha, CLOSEST_TO_ONE)
        return CubaLIF(tau_mem_s=dt_s / rate, tau_syn_s=dt_s / rate_syn, r=gain / rate, w_in=alpha / rate_syn, **spiking)
    if (keep == 1).all():
        v_min = None if module.min_v_mem is None else _read(module.min_v_mem, shape)
        return IF(r=gain, v_min=v_min, **spiking)
    return LIF(tau_s=dt_s / rate, r=gain / rate, **spiking)


def _read(value: Any, shape: Shape) -> Array:
    """Return a parameter as float64 that spreads over neurons of this shape; an axis of the batch is dropped."""
    array = np.asarray(to_array(value).astype(np.float64))
    return array[0] if array.ndim == len(shape) + 1 and array.shape[0] == 1 else array


def _read_reset(module: Any, place: str) -> Reset:
    """Return the kind of reset.

    Raises:
        UnsupportedError: another than to 0 or by the threshold.
    """
    rule = module.reset_fn
    if _is_rule(rule, MembraneSubtract, "__call__") and rule.subtract_value is None:
        return "subtract"
    if _is_rule(rule, MembraneReset, "__call__") and rule.reset_value == 0:
        return "value"
    why = ", which sinabs adds to every neuron in every step" if type(rule) is MembraneReset else ""
    raise UnsupportedError(f"{place} has reset_fn={module.reset_fn}{why}; expected MembraneSubtract() or MembraneReset()")


def _is_rule(rule: Any, kind: type, method: str) -> bool:
    """Return whether a rule is of a class, and not of one derived from it that computes something else."""
    return isinstance(rule, kind) and getattr(type(rule), method) is getattr(kind, method)


def _read_max_spikes(module: Any, place: str) -> int | None:
    """Return the largest number of spikes in a step, None where there is no limit.

    Raises:
        UnsupportedError: a spike function that is not sinabs' own.
    """
    rule = module.spike_fn
    if rule in (SingleSpike, MultiSpike):
        return 1 if rule is SingleSpike else None
    if _is_rule(rule, MaxSpike, "apply"):
        return rule.max_num_spikes_per_bin
    name = getattr(rule, "__name__", type(rule).__name__)
    raise UnsupportedError(f"{place} has spike_fn={name}, expected MultiSpike, MaxSpike or SingleSpike; train with one of them")


def _store_neuron(module: Any, update: NeuronUpdate) -> None:
    """Store changed parameters, and clear the state."""
    neuron, changed, dt_s = update.neuron, update.changed, update.dt_s
    if "v_threshold" in changed:
        store_tensor(module, "spike_threshold", np.nextafter(neuron.v_threshold.astype(np.float32), np.float32(np.inf)))
    if "v_min" in changed:
        store_tensor(module, "min_v_mem", neuron.v_min)
    if "max_spikes" in changed:
        rules = {1: SingleSpike, None: MultiSpike}
        module.spike_fn = rules[neuron.max_spikes] if neuron.max_spikes in rules else MaxSpike(neuron.max_spikes)
    for field, name in (("tau_s", "mem"), ("tau_mem_s", "mem"), ("tau_syn_s", "syn")):
        if field in changed:
            keep = 1 - dt_s / getattr(neuron, field)
            store_tensor(module, *((f"alpha_{name}", keep) if module.train_alphas else (f"tau_{name}", -1 / np.log(keep))))
    _clear(module)


def _clear(module: Any) -> None:
    """Clear the state of a module."""
    for name in list(module._buffers):  # states alone
        module._buffers[name] = torch.zeros(0)


def _list_sizes(module: Any) -> tuple[int, ...]:
    """Return the numbers of steps and samples that a module states; a user's own may have anything under these names."""
    names = ("num_timesteps", "batch_size") if isinstance(module, (SqueezeMixin, UnflattenTime)) else ()
    return tuple(int(getattr(module, name, -1)) for name in names)


def _list_states(module: Any) -> tuple[Any, ...]:
    """Return the states that a module keeps between runs, each of which a forward may set."""
    return (getattr(module, "v_mem", None), getattr(module, "i_syn", None)) if isinstance(module, NEURONS) else ()


RECURRENT = (sl.LIFRecurrent, sl.IAFRecurrent)
NEURONS = (sl.IAFSqueeze, sl.LIFSqueeze, sl.ExpLeakSqueeze, *RECURRENT, sl.ExpLeak, sl.IAF, sl.LIF)

SINABS = Framework(
    name="sinabs",
    title="sinabs",
    packages=("sinabs.layers",),
    time_axis=1,
    stepped=(StatefulLayer, *NEURONS),
    runs_over_time=lambda module: not isinstance(module, SqueezeMixin),
    takes_merged=lambda module: isinstance(module, SqueezeMixin),
    plain=(sl.SumPool2d,),
    keeps_state=True,
    list_held=_list_states,
    list_set=_list_states,
    lifts=(sl.Repeat,),
    handlers={sl.Merge: _add_merge, sl.Repeat: _add_repeated, FlattenTime: _merge_time, UnflattenTime: _part_time},
    hands_state=lambda module: False,
    add_neurons=_add_neurons,
    neurons=NEURONS,
    store_neuron=_store_neuron,
    clear=_clear,
    list_sizes=_list_sizes,
    store_recurrent=_store_recurrent,
    stores_max_spikes=True,
    prepare=prepare,
    example="IAFSqueeze",
    reasons={
        "ALIF": "its threshold adapts; use LIF",
        "NeuromorphicReLU QuantizeLayer": "it rounds values of a network without spikes; convert it with sinabs.from_torch",
        "SpikingMaxPooling2dLayer": "it compares counts of spikes; train with SumPool2d or AvgPool2d",
        "ChannelShift Cropping2dLayer": "it moves values between positions; use a Conv2d, or torch.cat and sums",
        "Img2SpikeLayer Sig2SpikeLayer": "it makes the network's input; encode the data before the network",
    },
    supported=(
        "Linear, Conv1d, Conv2d, BatchNorm1d, BatchNorm2d, AvgPool1d, AvgPool2d, SumPool2d, MaxPool of spikes, Flatten, Dropout, "
        "Identity, IAF, IAFSqueeze, IAFRecurrent, LIF, LIFSqueeze, LIFRecurrent, ExpLeak, ExpLeakSqueeze, Merge, Repeat, "
        "FlattenTime, UnflattenTime, "
        "Sequential, sums, torch.cat"
    ),
    hint_time="use its Squeeze module in all places, or in none",
    hint_batch="use IAFSqueeze or LIFSqueeze, which take time within the batch, or put it into Repeat",
    hint_state="its modules keep their state; use Sequential",
    hint_kept="sinabs' modules return no state: feed spikes back, or let ExpLeak, whose output is its potential, be the readout",
    hint_reset="sinabs.reset_states(net)",
    hint_export="sinabs.nir.to_nir(net, sample), and give the file with --source sinabs",
)
"""sinabs 3.1.3, by what its modules mean for time, state and neurons."""
