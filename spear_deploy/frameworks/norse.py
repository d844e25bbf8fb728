"""Norse's conventions: time, state and neuron equations of its modules.

A cell counts by what it computes in a step, not by its class, which a user may have derived from. Its rates become time constants
such that float32(dt / tau), the multiplier of the simulator, is Norse's float32 product `dt * tau_inv`: states are equal to the
bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework, NeuronUpdate, TraceContext
from spear_deploy.frameworks.importer.modules import check_hooks, check_input, join
from spear_deploy.frameworks.importer.storage import store_tensor
from spear_deploy.frameworks.importer.symbols import Concat, OutputAndState, Signal, State, Symbol, name_module, require_signal
from spear_deploy.frameworks.importer.synapses import make_refusal, to_array
from spear_deploy.network import IF, LI, LIF, Array, Conv2d, CubaLI, CubaLIF, Dense, Neuron, Reset, Shape, Synapse
from spear_deploy.network.graph import Edge
from spear_deploy.norse.cells import CELLS, TIME_LAYERS, norse
from spear_deploy.util.number_format import format_shape

THRESHOLD_METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")

# ------------------------------------------------------------------------------------------------------------ modules


def _add_lift(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> Symbol:
    """Add the layers of a Lift, which runs its module step by step."""

    def add(key: Symbol) -> Symbol:
        x, place = key[2], name_module(path)
        if context.form != "layers":
            raise UnsupportedError(f"{place} is Lift, which runs over time within one step; use the module in it")
        output = x.output if isinstance(x, OutputAndState) else x[0] if isinstance(x, tuple) and x else x
        if module.is_stateful and output is not x:
            raise UnsupportedError(
                f"{place} takes the state of the module before it for its own; use SequentialState around both"
            )
        check_hooks(module, place)
        hint = context.framework.hint_state
        signal = join(context, output, path) if isinstance(output, Concat) else require_signal(output, place, hint)
        result = context.interpret(module.lifted_module, signal, path=path, form="step")
        return result if module.is_stateful else result.output

    return context.unrolled.make_once((path, "lift", x), add)


def _pass_spikes(context: TraceContext, module: Any, path: str, x: Symbol, others: tuple[Symbol, ...]) -> OutputAndState:
    """Return the input of a RegularizationCell, which counts spikes for the loss and passes them on."""
    return OutputAndState(check_input(context, module, path, x), State())  # type: ignore[arg-type]


def _add_neurons(context: TraceContext, module: Any, path: str, x: Signal) -> OutputAndState:
    """Add the layers of a cell, a time layer or a feedback loop."""
    if isinstance(module, norse.RecurrentSequential):
        return _add_feedback(context, module, path, x)
    place, builder, base = name_module(path), context.builder, path or "model"
    weights, recurrent = getattr(module, "input_weights", None), getattr(module, "recurrent_weights", None)
    if weights is not None and len(x.shape) != 1:
        raise UnsupportedError(f"{place} has weights on the last axis of {format_shape(x.shape)} inputs; put a Flatten before it")
    neuron = to_neuron(module, x.shape if weights is None else (weights.shape[0],), place)
    if neuron is None:
        raise make_refusal(module, place, context.framework)
    currents = [x] if weights is None else [builder.add_layer(f"{base}.input", x, synapse=Dense(weight=to_array(weights)))]
    if weights is not None and recurrent is not None:
        synapse = Dense(weight=to_array(recurrent))
        currents.append(builder.add_layer(f"{base}.recurrent", shape=currents[0].shape, synapse=synapse))
    output = builder.add_layer(path, *currents, neuron=neuron)
    builder.edges += [Edge(source=output.name, target=current.name, delay=1) for current in currents[1:]]
    if not isinstance(neuron, IF):
        builder.steps_s[output.name] = float(module.dt)
    return OutputAndState(output, State(frozenset({output.name}), parts=("v", "i") if recurrent is None else ("z", "v", "i")))


def _add_feedback(context: TraceContext, module: Any, path: str, x: Signal) -> OutputAndState:
    """Add the layers of a RecurrentSequential, with its output fed back as input one step later."""
    place, builder = name_module(path), context.builder
    if not isinstance(module.output_modules, int):
        raise UnsupportedError(f"{place} feeds several outputs back, which Norse cannot add; give output_modules one number")
    total = builder.add_layer(f"{path or 'model'}.sum", x)
    result = context.interpret(module.module, total, path=path, form="step", output_index=module.output_modules)
    shape = result.output.shape
    if shape != x.shape:
        raise UnsupportedError(
            f"{place} feeds {format_shape(shape)} outputs back to {format_shape(x.shape)} inputs; make them equal"
        )
    builder.edges.append(Edge(source=result.output.name, target=total.name, delay=1))
    return result


def _convert_lconv2d(module: Any, place: str, axes_before: int) -> Synapse:
    if axes_before != 2:
        raise UnsupportedError(f"{place} is LConv2d, which runs on time x batch; use Conv2d in a model of one step")
    return Conv2d(
        weight=to_array(module.weight)[..., 0],
        stride=module.stride[:2],
        padding=module.padding[:2],
        dilation=module.dilation[:2],
        groups=module.groups,
    )


# ------------------------------------------------------------------------------------------------------------ neurons


def to_neuron(module: Any, shape: Shape, place: str) -> Neuron | None:
    """Return the neuron of a Norse cell, time layer or recurrent cell, None where a graph has none like it.

    Args:
        module: a Norse module with parameters `p`; its weights, if any, are not in the neuron.
        shape: of the layer, without batch.
        place: the module's place in the model, for errors.

    Raises:
        UnsupportedError: parameters of another cell, or values with which the equation is not that of the neuron.
    """
    method = getattr(module.p, "method", "super")
    if method not in THRESHOLD_METHODS:
        raise UnsupportedError(
            f"{place} has the method '{method}', with which Norse cannot run; expected {', '.join(THRESHOLD_METHODS)}"
        )
    if type(module).forward is norse.LILinearCell.forward:
        parameters, make = _NEURONS[norse.li_feed_forward_step]
    elif (
        type(module).forward in _FORWARDS and module.activation in _NEURONS and _unbind(module.state_fallback) in _INITIAL_STATES
    ):
        parameters, make = _NEURONS[module.activation]
    else:
        return None
    if not isinstance(module.p, parameters):
        raise UnsupportedError(
            f"{place} is {type(module).__name__} with {type(module.p).__name__}, which Norse takes without a check; give it "
            f"{parameters.__name__}"
        )
    return make(_CellParameters(module, shape, place))


def _unbind(method: Any) -> Any:
    return getattr(method, "__func__", method)


class _CellParameters:
    """Reads the parameters of one cell as arrays that spread over its shape."""

    def __init__(self, module: Any, shape: Shape, place: str) -> None:
        self.p, self.dt_s, self.shape, self.place = module.p, float(module.dt), shape, place

    def read_level(self, name: str) -> Array:
        """Return a voltage."""
        value = to_array(getattr(self.p, name))
        return value[0] if value.ndim == len(self.shape) + 1 and value.shape[0] == 1 else value

    def read_tau(self, name: str) -> Array:
        """Return the time constant in s of a rate in 1/s, with float32(dt / tau) equal to Norse's product of dt and the rate."""
        rate = getattr(self.p, name)
        multiplier = torch.as_tensor(self.dt_s * rate).detach().cpu()  # as Norse multiplies
        rate_per_step = multiplier.numpy().astype(np.float64)
        if not (np.isfinite(rate_per_step) & (rate_per_step > 0)).all():
            raise UnsupportedError(
                f"{self.place} has {name} {float(rate_per_step.min()) / self.dt_s:g} 1/s, expected a rate above 0 1/s"
            )
        if rate_per_step.ndim == len(self.shape) + 1 and rate_per_step.shape[0] == 1:
            rate_per_step = rate_per_step[0]
        single = np.float32 if multiplier.dtype == torch.float32 else np.float64
        exact = self.dt_s / rate_per_step
        # 7 digits are mostly the number in the user's code
        rounded = np.array([float(f"{value:.7g}") for value in exact.ravel()]).reshape(exact.shape)
        for tau in (rounded, exact):
            if np.array_equal((self.dt_s / tau).astype(single), rate_per_step.astype(single)):
                return tau
        return exact

    def read_reset(self) -> Reset:
        """Return the kind of reset."""
        method = getattr(self.p, "reset_method", norse.reset_value)
        if method is norse.reset_subtract:
            return "subtract"
        if method is norse.reset_value:
            return "value"
        name = getattr(method, "__name__", str(method))
        raise UnsupportedError(f"{self.place} resets by '{name}'; expected reset_value or reset_subtract of norse.torch")


def solve_w_in(tau_syn_s: Array, dt_s: float) -> Array:
    """Return `w_in` of a neuron whose current jumps by its input: w_in · (dt / tau_syn) is 1, exactly where float64 can.

    >>> float(solve_w_in(np.array(0.005), 1e-3))
    5.0
    """
    factor = dt_s / tau_syn_s
    w_in = tau_syn_s / dt_s
    for near in (1 / factor, np.nextafter(1 / factor, np.inf), np.nextafter(1 / factor, 0)):
        w_in = np.where(w_in * factor == 1, w_in, near)
    return np.where(w_in * factor == 1, w_in, tau_syn_s / dt_s)


def _make_cuba_lif(cell: _CellParameters) -> Neuron:
    tau_syn = cell.read_tau("tau_syn_inv")
    return CubaLIF(
        tau_mem_s=cell.read_tau("tau_mem_inv"),
        tau_syn_s=tau_syn,
        w_in=solve_w_in(tau_syn, cell.dt_s),
        v_leak=cell.read_level("v_leak"),
        v_threshold=cell.read_level("v_th"),
        v_reset=cell.read_level("v_reset"),
    )


def _make_lif(cell: _CellParameters) -> Neuron:
    return LIF(
        tau_s=cell.read_tau("tau_mem_inv"),
        v_leak=cell.read_level("v_leak"),
        v_threshold=cell.read_level("v_th"),
        v_reset=cell.read_level("v_reset"),
        reset=cell.read_reset(),
    )


def _make_if(cell: _CellParameters) -> Neuron:
    return IF(v_threshold=cell.read_level("v_th"), v_reset=cell.read_level("v_reset"))


def _make_cuba_li(cell: _CellParameters) -> Neuron:
    tau_syn = cell.read_tau("tau_syn_inv")
    return CubaLI(
        tau_mem_s=cell.read_tau("tau_mem_inv"),
        tau_syn_s=tau_syn,
        w_in=solve_w_in(tau_syn, cell.dt_s),
        v_leak=cell.read_level("v_leak"),
    )


def _make_li(cell: _CellParameters) -> Neuron:
    return LI(tau_s=cell.read_tau("tau_mem_inv"), v_leak=cell.read_level("v_leak"))


_NEURONS: dict[Any, tuple[type, Callable[[_CellParameters], Neuron]]] = {
    norse.lif_feed_forward_step: (norse.LIFParameters, _make_cuba_lif),
    norse.lif_step: (norse.LIFParameters, _make_cuba_lif),
    norse.lif_box_feed_forward_step: (norse.LIFBoxParameters, _make_lif),
    norse.iaf_feed_forward_step: (norse.IAFParameters, _make_if),
    norse.li_feed_forward_step: (norse.LIParameters, _make_cuba_li),
    norse.li_box_feed_forward_step: (norse.LIBoxParameters, _make_li),
}
"""By what a module computes in a step, not by its class, which a user may have derived from."""

_FORWARDS = {kind.forward for kind in (*CELLS, *TIME_LAYERS)}
_INITIAL_STATES = {_unbind(kind.initial_state) for kind in (*CELLS, *TIME_LAYERS)}


# ------------------------------------------------------------------------------------------------------------- storing

_RATES = {"tau_s": "tau_mem_inv", "tau_mem_s": "tau_mem_inv", "tau_syn_s": "tau_syn_inv"}
_LEVELS = {"v_threshold": "v_th", "v_reset": "v_reset", "v_leak": "v_leak"}


def _store_neuron(module: Any, update: NeuronUpdate) -> None:
    """Store changed parameters in the cell's tuple."""
    neuron, changed = update.neuron, update.changed
    values: dict[str, Any] = {_LEVELS[name]: getattr(neuron, name) for name in changed if name in _LEVELS}
    values |= {_RATES[name]: 1 / getattr(neuron, name) for name in changed if name in _RATES}
    tensors = {name: torch.as_tensor(np.array(value, np.float32)) for name, value in values.items()}
    module.p = module.p._replace(**tensors)


def _store_recurrent(module: Any, part: tuple[str, Any]) -> None:
    """Store the input or recurrent weights of a cell."""
    end, synapse = part
    store_tensor(module, f"{end}_weights", synapse.weight)
    if end == "input":
        module.hidden_size, module.input_size = synapse.weight.shape


def _store_synapse(module: Any, synapse: Any) -> bool:
    """Store weights in a LConv2d, which has an axis of time."""
    if not isinstance(module, norse.LConv2d):
        return False
    store_tensor(module, "weight", synapse.weight[..., None])
    module.out_channels, module.in_channels = synapse.weight.shape[0], synapse.weight.shape[1] * synapse.groups
    module.groups = synapse.groups
    return True


# ---------------------------------------------------------------------------------------------------------- framework

NEURONS = (norse.LILinearCell, *{kind.__bases__[0] for kind in (*CELLS, *TIME_LAYERS)})


@contextmanager
def _starting_from_none() -> Iterator[None]:
    """Let `cell.initial_state(x)` be None for a symbol, or where it is not zero: a cell starts from None as from that state."""
    derived = [kind for base in NEURONS for kind in (base, *base.__subclasses__()) if kind.__module__.startswith("norse.")]
    kinds = [kind for kind in derived if "initial_state" in vars(kind)]
    originals = [kind.initial_state for kind in kinds]

    def start(original: Any) -> Any:
        def make(cell: Any, x: Any) -> Any:
            if isinstance(x, fx.Proxy):
                torch.zeros_like(x)  # type: ignore[arg-type]  # what made x is needed for its shape alone, unless others take it
                return None
            state = original(cell, x)
            is_zero = not any(part.any() for part in tree_leaves(state) if isinstance(part, torch.Tensor))
            return state if is_zero else None

        return make

    for kind, original in zip(kinds, originals, strict=True):
        kind.initial_state = start(original)
    try:
        yield
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.initial_state = original


NORSE = Framework(
    name="norse",
    title="Norse",
    packages=("norse.torch.module",),
    containers=(norse.SequentialState,),
    stepped=(norse.LILinearCell, norse.RecurrentSequential, *{kind.__bases__[0] for kind in CELLS}),
    over_time=(norse.Lift, norse.LConv2d, *{kind.__bases__[0] for kind in TIME_LAYERS}),
    lifts=(norse.Lift,),
    synapses={norse.LConv2d: _convert_lconv2d},
    handlers={norse.Lift: _add_lift, norse.RegularizationCell: _pass_spikes},
    add_neurons=_add_neurons,
    store_synapse=_store_synapse,
    neurons=NEURONS,
    tracing=_starting_from_none,
    count_results=lambda module: 2 if isinstance(module, NEURONS) else 0,
    store_neuron=_store_neuron,
    store_recurrent=_store_recurrent,
    example="LIFBoxCell",
    reasons={
        "GRU LSTM RNN": "it does not spike; use LIFRecurrentCell",
        "LIFAdEx LIFCorrelation LSNN": "its threshold, current or weights adapt; use LIFCell",
        "LIFEx": "its membrane is exponential; use LIFCell",
        "LIFMCRefrac LIFRefrac": "it has a refractory period; use LIFCell",
        "CobaLIF Izhikevich LIFMC": "its membrane is not that of a leaky integrator; use LIFCell",
        "ConstantCurrentLIFEncoder PoissonEncoder PopulationEncoder SignedPoissonEncoder SpikeLatency": (
            "it makes the network's input; encode the data before the network"
        ),
        "SpikesToTimesDecoder": "it reads the network's output; decode after the network",
        "ParameterizedSpatial SampledSpatial SpatialReceptiveField TemporalReceptiveField": (
            "it makes its weights as it runs; put a Conv2d with these weights there"
        ),
    },
    supported=(
        "Linear, Conv1d, Conv2d, LConv2d, BatchNorm1d, BatchNorm2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool, LPPool of norm 1, "
        "MaxPool of spikes, ZeroPad, Flatten, Dropout, Identity, LIFCell, LIFBoxCell, IAFCell, LICell, LIBoxCell, LILinearCell, "
        "LIFRecurrentCell, LIF, IAF, LI, LIFRecurrent, Lift, SequentialState, RecurrentSequential, Sequential, sums, torch.cat"
    ),
    hint_time="use its cell, or put what runs one step into Lift",
    hint_batch="wrap it in Lift",
    hint_state="use SequentialState in place of Sequential",
)
"""Norse 1.1.0, by what its modules mean for time, state and neurons."""
