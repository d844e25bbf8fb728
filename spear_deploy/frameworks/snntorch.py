"""snnTorch's conventions: time, state and neuron equations of its modules.

    Leaky, RLeaky          mem ← beta · mem + x + recurrent(spk)                  spk = mem > threshold
    Synaptic, RSynaptic    syn ← alpha · syn + x + recurrent(spk), mem ← beta · mem + syn
    Lapicque               mem ← (1 − time_step / (R · C)) · mem + x · time_step / C

x is the input, spk the spikes of the step before. A step has no length: a network gets `dt_s`, 1e-4 s as in snnTorch's own NIR
files, and tau = dt / (1 − beta), r = tau / dt. The reset comes one step late unless `reset_delay=False`: "subtract" takes the
threshold off undecayed, "zero" of Leaky is that of the same step, since a mem that is not used in between is 0 either way. "zero"
of the other modules loses the input of the step after a spike; that has no counterpart. Nor has "subtract" with
`reset_delay=False`, where a mem that stays above its threshold after a reset spikes again only above twice the threshold:

    mem ← beta · mem + x − [mem > threshold] · threshold, spk = mem > threshold, mem ← mem − (spk − [as above]) · threshold
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import snntorch as snn
from snntorch._neurons.neurons import SpikingNeuron

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework, NeuronUpdate, TraceContext
from spear_deploy.frameworks.importer.spike_functions import check_methods, check_spike_function
from spear_deploy.frameworks.importer.storage import store_layer, store_tensor
from spear_deploy.frameworks.importer.symbols import OutputAndState, Signal, State, name_module
from spear_deploy.frameworks.importer.synapses import make_refusal, to_array, to_synapse
from spear_deploy.network import IF, LI, LIF, Array, CubaLIF, Dense, Neuron, Reset, Scale, Shape, Synapse
from spear_deploy.network.graph import Edge

DT_S = 1e-4
METHODS = ("fire", "mem_reset", "_base_state_function", "_base_sub", "_base_zero", "_base_int")
"""Methods that compute a step; `_base_state_reset_zero` of others serves `_base_zero` alone."""
STEPS = {"subtract": "_base_sub", "zero": "_base_zero", "none": "_base_int"}
CLOSEST_TO_ONE = 1 - 2.0**-40
"""A decay of 1 beside others of one layer: no float32 state tells it from 1."""


def _add_neurons(context: TraceContext, module: Any, path: str, x: Signal) -> OutputAndState | Signal:
    """Add the layers of a neuron module, with one for its recurrent weights."""
    place, builder = name_module(path), context.builder
    kind = next((kind for kind in NEURONS if isinstance(module, kind) and type(module).forward is kind.forward), None)
    if kind is None:
        raise make_refusal(module, place, context.framework)
    check_methods(module, kind, METHODS, place)
    _check_options(module, place)
    neuron = _make_neuron(kind, module, x.shape, place, builder.default_dt_s)
    currents = [x]
    if kind in RECURRENT:
        synapse = _make_recurrent_synapse(context, module, x.shape, place)
        currents.append(builder.add_layer(f"{path or 'model'}.recurrent", shape=x.shape, synapse=synapse))
    output = builder.add_layer(path, *currents, neuron=neuron)
    state = State(frozenset({output.name}))
    if module.reset_mechanism == "subtract":
        builder.late_resets.add(output.name)
    factor = _read(module.graded_spikes_factor, x.shape)
    if not (factor == 1).all():
        output = builder.add_layer(f"{path or 'model'}.graded", output, synapse=Scale(weight=factor.astype(np.float32)))
    builder.edges += [Edge(source=output.name, target=current.name, delay=1) for current in currents[1:]]
    if not _hands_state(module):
        return output
    return OutputAndState(output, state, ("syn", "mem") if isinstance(module, WITH_CURRENT) else ("mem",))


def _hands_state(module: Any) -> bool:
    return module.output or not module.init_hidden


def _list_held(module: Any) -> tuple[Any, ...]:
    """Return the potential that a module keeps by itself."""
    return (getattr(module, "mem", None),) if getattr(module, "init_hidden", False) else ()


def _list_set(module: Any) -> tuple[Any, ...]:
    """Return the states that a module keeps by itself, each of which a forward may set."""
    names = ("mem", "syn", "spk") if getattr(module, "init_hidden", False) else ()
    return tuple(getattr(module, name, None) for name in names)


def _count_results(module: Any) -> int:
    """Return the number of values that a module of neurons returns."""
    if not isinstance(module, NEURONS) or not _hands_state(module):
        return 0
    return 3 if isinstance(module, WITH_CURRENT) else 2


def _check_options(module: Any, place: str) -> None:
    """Refuse options with which the equations are others.

    Raises:
        UnsupportedError: such an option.
    """
    if module.inhibition:
        raise UnsupportedError(f"{place} has inhibition=True, of which only the strongest neuron spikes; leave it out")
    if module.state_quant:
        raise UnsupportedError(f"{place} has state_quant, which rounds its state; leave it out, and round with --chip")
    check_spike_function(
        module, "spike_grad", place, spikes_at_threshold=False, remedy="train with a surrogate gradient of snntorch.surrogate"
    )


def _make_neuron(kind: Any, module: Any, shape: Shape, place: str, dt_s: float) -> Neuron:
    """Return the neuron of a module."""
    v_threshold, reset = _read(module.threshold, shape), _read_reset(kind, module, place)
    _check_reset(module, reset, v_threshold, place)
    gain, rate = np.ones(()), np.ones(())
    if kind is snn.Lapicque:
        rate = _read(module.time_step, ()) / (_read(module.R, shape) * _read(module.C, shape))
        gain = _read(module.R, shape) * rate
    else:
        rate = np.asarray(1 - np.clip(_read(module.beta, shape), 0, 1))
    if kind in (snn.Synaptic, snn.RSynaptic):
        rate, rate_syn = (np.maximum(r, 1 - CLOSEST_TO_ONE) for r in (rate, 1 - np.clip(_read(module.alpha, shape), 0, 1)))
        return CubaLIF(
            tau_mem_s=dt_s / rate,
            tau_syn_s=dt_s / rate_syn,
            r=1 / rate,
            w_in=1 / rate_syn,
            v_threshold=v_threshold,
            reset=reset,
        )
    if not rate.any():
        return IF(r=gain, v_threshold=v_threshold, reset=reset)
    rate = np.where(rate == 0, 1 - CLOSEST_TO_ONE, rate)
    return LIF(tau_s=dt_s / rate, r=gain / rate, v_threshold=v_threshold, reset=reset)


def _read(value: Any, shape: Shape) -> Array:
    """Return a parameter as float64 that spreads over neurons of this shape; an axis of the batch is dropped."""
    array = to_array(value).astype(np.float64)
    return array[0] if array.ndim == len(shape) + 1 and array.shape[0] == 1 else array


def _read_reset(kind: Any, module: Any, place: str) -> Reset:
    """Return the kind of reset.

    Raises:
        UnsupportedError: a reset that loses the input of the step after a spike, or another than the module was made with:
            snnTorch chooses the function of a step when it makes the module.
    """
    mechanism = next((reset for reset, name in STEPS.items() if module.state_function == getattr(module, name)), "its own")
    stated = [module.reset_mechanism]
    if not getattr(module, "reset_delay", True):
        stated.append(list(SpikingNeuron.reset_dict)[int(module.reset_mechanism_val)])
    if other := next((name for name in stated if name != mechanism), None):
        raise UnsupportedError(
            f"{place} has the reset_mechanism '{other}', set after it was made: snnTorch goes on with the step of {mechanism}; "
            f"make it with reset_mechanism='{other}'"
        )
    if mechanism != "zero":
        return "subtract" if mechanism == "subtract" else "none"
    if kind is snn.Leaky or not getattr(module, "reset_delay", True):
        return "value"
    remedies = {snn.Lapicque: "use Leaky, or 'subtract'", snn.RSynaptic: "use 'subtract'"}  # no reset_delay, or it fails there
    remedy = remedies.get(kind, "set reset_delay=False, or use 'subtract'")
    raise UnsupportedError(
        f"{place} is {type(module).__name__} with reset_mechanism='zero' one step late, which loses the input of the step after "
        f"a spike; {remedy}"
    )


def _check_reset(module: Any, reset: Reset, v_threshold: Array, place: str) -> None:
    """Refuse a reset that depends on where the membrane was before the step.

    Raises:
        UnsupportedError: `reset_delay=False` with such a reset, or in a module that cannot run with it; or a reset in the first
            step.
    """
    if reset == "subtract" and (v_threshold < 0).any():
        raise UnsupportedError(
            f"{place} has reset_mechanism='subtract' and a threshold of {v_threshold.min():g}, below 0, which snnTorch takes off "
            "in the first step, before any spike; keep thresholds at 0 or above"
        )
    if getattr(module, "reset_delay", True):
        return
    if isinstance(module, snn.RSynaptic):
        raise UnsupportedError(f"{place} is RSynaptic with reset_delay=False, with which snnTorch cannot run; leave it out")
    if reset == "subtract":
        raise UnsupportedError(
            f"{place} has reset_delay=False with reset_mechanism='subtract', with which a membrane still above its threshold "
            "after a reset spikes again only above twice the threshold; leave reset_delay out, or use 'zero'"
        )
    if reset == "value" and (v_threshold < 0).any():
        raise UnsupportedError(
            f"{place} has reset_delay=False with reset_mechanism='zero' and a threshold of {v_threshold.min():g}, below 0, with "
            "which a step without a spike doubles the membrane; keep thresholds at 0 or above"
        )


def _make_recurrent_synapse(context: TraceContext, module: Any, shape: Shape, place: str) -> Synapse:
    """Return the weights from a layer's spikes to its own input."""
    if not module.all_to_all:
        return Scale(weight=_read(module.recurrent.V, shape).astype(np.float32))
    synapse = to_synapse(module.recurrent, shape, f"the recurrent part of {place}", axes_before=1, hint="")
    assert isinstance(synapse, Synapse)
    return synapse


@contextmanager
def _watch_resets(note_reset: Callable[[Callable[[Any], bool]], None]) -> Iterator[None]:
    """Tell of modules that are reset in a trace: utils.reset resets all of a class that keep their state."""
    originals = {kind: vars(kind)["reset_hidden"] for kind in NEURONS if "reset_hidden" in vars(kind)}

    def reset(kind: Any) -> None:
        note_reset(lambda module: isinstance(module, kind) and module.init_hidden)

    try:
        for kind in originals:
            kind.reset_hidden = classmethod(reset)
        yield
    finally:
        for kind, original in originals.items():
            kind.reset_hidden = original


# ------------------------------------------------------------------------------------------------------------- storing


def _store_neuron(module: Any, update: NeuronUpdate) -> None:
    """Store changed parameters, and clear the state."""
    neuron, changed, dt_s = update.neuron, update.changed, update.dt_s
    if "v_threshold" in changed:
        store_tensor(module, "threshold", neuron.v_threshold)
    if isinstance(module, snn.Lapicque) and changed & {"tau_s", "r"}:
        rate = dt_s / neuron.tau_s if isinstance(neuron, (LI, LIF)) else np.zeros(())
        time_step = _read(module.time_step, ())
        gain = neuron.r * (rate if isinstance(neuron, (LI, LIF)) else 1)
        store_tensor(module, "C", time_step / gain)
        store_tensor(module, "R", gain / rate)
    elif changed & {"tau_s", "tau_mem_s"}:
        store_tensor(module, "beta", 1 - dt_s / (neuron.tau_s if isinstance(neuron, (LI, LIF)) else neuron.tau_mem_s))
    if "tau_syn_s" in changed:
        store_tensor(module, "alpha", 1 - dt_s / neuron.tau_syn_s)
    _clear(module)


def _clear(module: Any) -> None:
    """Clear the state of a module."""
    module._init_mem()


def _store_recurrent(module: Any, part: tuple[str, Any]) -> None:
    """Store recurrent weights."""
    _, synapse = part
    if isinstance(synapse, Scale):
        store_tensor(module.recurrent, "V", synapse.weight)
        module.V = module.recurrent.V
        return
    store_layer(module.recurrent, synapse, "its recurrent part")
    name = "linear_features" if isinstance(synapse, Dense) else "conv2d_channels"
    setattr(module, name, synapse.weight.shape[0])


NEURONS = (snn.Leaky, snn.Lapicque, snn.Synaptic, snn.RLeaky, snn.RSynaptic)
RECURRENT, WITH_CURRENT = (snn.RLeaky, snn.RSynaptic), (snn.Synaptic, snn.RSynaptic)

SNNTORCH = Framework(
    name="snntorch",
    title="snnTorch",
    packages=("snntorch.",),
    dt_s=DT_S,
    stepped=(
        SpikingNeuron,
        *NEURONS,
        *(kind for kind in vars(snn).values() if isinstance(kind, type) and kind.__name__.endswith("LSTM")),
    ),
    keeps_state=True,
    list_held=_list_held,
    list_set=_list_set,
    hands_state=_hands_state,
    count_results=_count_results,
    watching_resets=_watch_resets,
    loops_inside=True,
    add_neurons=_add_neurons,
    neurons=NEURONS,
    store_neuron=_store_neuron,
    clear=_clear,
    store_recurrent=_store_recurrent,
    example="snn.Leaky",
    reasons={
        "Alpha": "its membrane is the difference of two currents; use Synaptic",
        "SLSTM SConv2dLSTM": "it is an LSTM with a threshold; use RSynaptic",
        "LeakyParallel": "it has its time loop and weights inside; use Linear and Leaky",
        "StateLeaky LinearLeaky AssociativeLeaky LeakyKernel DeltaLeaky": "it has no reset, or its time loop inside; use Leaky",
        "BatchNormTT": "it has other statistics in every step; use BatchNorm2d",
    },
    supported=(
        "Linear, Conv1d, Conv2d, BatchNorm1d, BatchNorm2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool, LPPool of norm 1, MaxPool of "
        "spikes, ZeroPad, Flatten, Dropout, Identity, Leaky, Lapicque, Synaptic, RLeaky, RSynaptic, Sequential, sums, torch.cat"
    ),
    hint_time="let the forward loop over x[t]",
    hint_batch="let the forward loop over x[t]",
    hint_state="unpack it, spk, mem = lif(x, mem), or give the module init_hidden=True and no output=True",
    hint_kept="let the module return it, without init_hidden=True, and hand it back",
    hint_reset="snntorch.utils.reset(net)",
    hint_export="snntorch.export_nir.export_to_nir(net, sample), and give the file with --source snntorch",
)
"""snnTorch 1.0.0, by what its modules mean for time, state and neurons."""
