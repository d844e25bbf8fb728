"""Layers from the calls of modules.

A module without state is a synapse or a norm, or changes nothing. A cell is a layer of neurons, with layers for its weights where
it has some. Concatenated outputs (`torch.cat`) stay apart: weights behind them are split, one layer for each part, whose currents
add up, which is the same sum of products; other modules get them joined by weights of 0 and 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.frameworks.importer.axis_order import add_reordered, read_moved, takes_last_axis
from spear_deploy.frameworks.importer.axis_order import make_refusal as make_order_refusal
from spear_deploy.frameworks.importer.context import TraceContext
from spear_deploy.frameworks.importer.symbols import (
    Channels,
    Complement,
    Concat,
    Decoded,
    Merged,
    Moved,
    OneStep,
    OutputAndState,
    Reordered,
    Signal,
    State,
    Symbol,
    list_signals,
    map_decoded,
    name_module,
    require_signal,
)
from spear_deploy.frameworks.importer.synapses import FOLDED, MAX_POOLS, NORMS, PLAIN, make_refusal, to_synapse
from spear_deploy.frameworks.importer.unrolling import NEURON
from spear_deploy.frameworks.importer.voting import ROW_POOLS, is_row, pool_row
from spear_deploy.network import IF, POOLS, Array, BatchNorm, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool, Synapse, write_out
from spear_deploy.network.graph import INPUT
from spear_deploy.util.number_format import format_shape

CLASSIFIERS = (torch.nn.Softmax, torch.nn.LogSoftmax)
"""Modules that turn decoded outputs into probabilities of classes, which keep their order."""
STARTS_ANEW = "hand its state back: forward(x, state) -> (output, state)"
ANY_SPIKE_THRESHOLD = 0.5
"""Threshold of a neuron that spikes where its inputs hold one spike or more."""


def call_module(context: TraceContext, module: Any, path: str, args: tuple[Symbol, ...], kwargs: dict[str, Symbol]) -> Symbol:
    """Turn the call of a module into layers.

    Raises:
        UnsupportedError: it has no exact counterpart.
        GraphError: its weights or parameters make no layer.
    """
    framework, unrolled, place = context.framework, context.unrolled, name_module(path)
    x, others = args[0] if args else kwargs.pop("input_tensor", None), (*args[1:], *kwargs.values())
    for kind, handle in framework.handlers.items():
        if isinstance(module, kind):
            return handle(context, module, path, x, others)
    if isinstance(x, (Merged, Moved, Decoded, OneStep)):
        return _add_on_other_axes(context, module, path, x, kwargs)
    if isinstance(x, Complement):
        x = unrolled.make_once((path, "complement", x), lambda key: join(context, key[2], path))
    x = check_input(context, module, path, x)
    if isinstance(module, torch.nn.ReLU) and all_spikes(context, x):
        return x
    if isinstance(module, torch.nn.Unflatten) and isinstance(x, Signal) and x.name == INPUT and context.form != "layers":
        return _unflatten_input(context, module, place, x)
    if framework.has_state(module) and not isinstance(module, tuple(framework.synapses)):
        is_over_time = framework.is_over_time(module)
        if is_over_time != (context.form == "layers"):
            how = "runs over time within one step" if is_over_time else "runs one step in a model over time"
            raise UnsupportedError(f"{place} is {type(module).__name__}, which {how}; {framework.hint_time}")
        with name_in_errors(place):
            result = unrolled.make_once((path, NEURON, x), lambda key: _add_neurons(context, module, path, key[2]))
        if isinstance(result, OutputAndState):
            _check_state(context, result, others, place)
            _check_order(module, result, args[1:], kwargs, place)
        return result
    if isinstance(x, Channels) and isinstance(module, (*FOLDED, *framework.folded)):
        return x
    return unrolled.make_once((path, "module", x), lambda key: add_stateless(context, module, path, key[2]))


def _add_on_other_axes(
    context: TraceContext, module: Any, path: str, x: Merged | Moved | Decoded | OneStep, kwargs: dict[str, Symbol]
) -> Symbol:
    """Return the result of a module on values whose axes are not those of a network's time, samples and neurons."""
    if is_row(x) and isinstance(module, ROW_POOLS):
        check_hooks(module, name_module(path))
        return pool_row(context, module, path, x)
    if isinstance(x, Moved):
        check_hooks(module, name_module(path))
        module = read_moved(module, x, path, (*FOLDED, *context.framework.folded))
        return replace(x, signal=call_module(replace(context, form="step"), module, path, (x.signal,), kwargs))
    if isinstance(x, Merged):
        return _add_on_merged(context, module, path, x, kwargs)
    if isinstance(x, Decoded):
        return _add_behind_decoding(context, module, path, x)
    return check_input(context, module, path, x)


def _add_on_merged(context: TraceContext, module: Any, path: str, x: Merged, kwargs: dict[str, Symbol]) -> Merged:
    """Return the result of a module without state on time and batch in one axis, or on what is repeated: that on each step.

    Raises:
        UnsupportedError: a module that needs both axes.
    """
    framework = context.framework
    if framework.has_state(module) and framework.takes_merged(module):
        signal, place = check_input(context, module, path, x.signal), name_module(path)
        with name_in_errors(place):
            made = context.unrolled.make_once((path, NEURON, signal), lambda key: _add_neurons(context, module, path, key[2]))
        return Merged(require_signal(made, place, framework.hint_state))
    if framework.has_state(module) or framework.merges_time(module):
        require_signal(x, f"{name_module(path)} is {type(module).__name__}, which", framework.hint_state)
    return type(x)(call_module(replace(context, form="step"), module, path, (x.signal,), kwargs))


def _unflatten_input(context: TraceContext, module: Any, place: str, x: Signal) -> Signal:
    """Return the input in the shape that an Unflatten gives it."""
    whole = torch.empty((1, *x.shape), device="meta")
    try:
        shape = tuple(module(whole).shape[1:])
    except (RuntimeError, IndexError) as error:
        raise UnsupportedError(f"{place} is Unflatten, which fails on {format_shape(x.shape)} inputs: {error}") from error
    return context.builder.view_input(x, shape, place)


def _add_behind_decoding(context: TraceContext, module: Any, path: str, x: Decoded) -> Decoded:
    """Return decoded outputs behind a module: a linear layer takes the outputs of all steps in place of their mean.

    Raises:
        UnsupportedError: a module that does not commute with the decoding.
    """
    if isinstance(module, CLASSIFIERS):
        return Decoded(x.outputs, f"{type(module).__name__} of the {x.how}")
    if isinstance(module, (*FOLDED, *context.framework.folded)):
        return x
    has_bias = getattr(module, "bias", None) is not None
    if not isinstance(module, torch.nn.Linear) or x.kind == "other" or (x.kind == "sum" and has_bias):
        advice = f"put it in front of the {x.how}" + (", or leave out its bias" if x.kind == "sum" else "")
        raise UnsupportedError(f"{name_module(path)} is {type(module).__name__} behind the {x.how} of all steps; {advice}")
    if not isinstance(x.outputs, tuple):
        return replace(x, outputs=call_module(context, module, path, (x.outputs,), {}))
    return map_decoded(
        x, name_module(path), lambda last: add_stateless(context, module, path, check_input(context, module, path, last))
    )


def check_input(context: TraceContext, module: Any, path: str, x: Symbol) -> Signal | Concat | Channels | Reordered:
    """Return the input of a module as a signal, after a check of its hooks and sizes.

    Raises:
        UnsupportedError: no output of a layer, sizes that are not known yet, or a hook.
    """
    place = name_module(path)
    signal = x if isinstance(x, (Concat, Channels, Reordered)) else require_signal(x, place, context.framework.hint_state)
    if type(module).__name__.startswith("Lazy"):
        raise make_refusal(module, place, context.framework)
    check_hooks(module, place)
    return signal


def check_hooks(module: torch.nn.Module, place: str) -> None:
    """Refuse hooks, which may change the result of a module; run torch's own pruning and normalising hooks.

    Raises:
        UnsupportedError: a hook of the user, one of torch.ao's preparation for rounding, or a forward set on the object alone.
    """
    if "forward" in vars(module):
        raise UnsupportedError(
            f"{place} has a forward that was set on the object, in place of that of {type(module).__name__}; remove it, or write "
            "what it computes in the forward of a class around it"
        )
    if any(str(getattr(hook, "__module__", "")).startswith("torch.ao.") for hook in module._forward_hooks.values()):
        raise UnsupportedError(
            f"{place} was prepared by torch.ao.quantization, which observes and rounds what it computes; give the model as it "
            "was in floating point, which is rounded to the integers of the chip"
        )
    own = [hook for hook in module._forward_pre_hooks.values() if type(hook).__module__.startswith("torch.nn.utils")]
    if module._forward_hooks or len(own) < len(module._forward_pre_hooks):
        raise UnsupportedError(f"{place} has a forward hook, which may change what it computes; remove it first")
    for hook in own:
        hook(module, ())


def all_spikes(context: TraceContext, x: Symbol) -> bool:
    """Return whether all values are spikes of neurons or zeros."""
    parts = list_signals(x)
    return all(isinstance(part, Signal) and (part.is_zero or context.builder.is_spiking(part)) for part in parts)


@contextmanager
def name_in_errors(place: str) -> Iterator[None]:
    """Put the module's place in front of errors about its weights or parameters."""
    try:
        yield
    except GraphError as error:
        message = str(error)
        raise GraphError(message if message.startswith("layer '") else f"{place}: {message}") from error


# ----------------------------------------------------------------------------------------------------- modules without state


def add_stateless(context: TraceContext, module: Any, path: str, x: Signal | Concat | Channels | Reordered) -> Symbol:
    """Add the layer of a module without state, or of the module that a function stands for."""
    place, framework = name_module(path), context.framework
    if isinstance(x, Reordered):
        norms = NORMS if x.is_flat else ()
        if not isinstance(module, (torch.nn.Linear, torch.nn.Flatten, *norms, *FOLDED, *framework.folded)):
            raise make_order_refusal(x, path)
    if isinstance(module, MAX_POOLS):
        return _add_max_pool(context, module, path, join(context, x, path) if isinstance(x, (Channels, Reordered)) else x)
    if isinstance(module, framework.folded) and not isinstance(x, Channels):
        return x
    known = (*PLAIN, *framework.plain, *framework.synapses)
    if not any(isinstance(module, kind) and type(module).forward is kind.forward for kind in known):
        raise make_refusal(module, place, framework)
    own = next((convert for kind, convert in framework.synapses.items() if isinstance(module, kind)), None)
    with name_in_errors(place):
        if own is not None:
            part: Synapse | BatchNorm | None = own(module, place, context.axes_before)
        else:
            shape = x.axes[:1] if isinstance(x, Reordered) and takes_last_axis(module, x) else x.shape
            part = to_synapse(module, shape, place, axes_before=_count_axes(context, module), hint=framework.hint_batch)
    return add_part(context, path, x, part)


def _count_axes(context: TraceContext, module: Any) -> int:
    """Return the number of axes in front of a layer's when a module runs."""
    return 1 if context.framework.merges_time(module) else context.axes_before


def add_part(
    context: TraceContext, path: str, x: Signal | Concat | Channels | Reordered, part: Synapse | BatchNorm | None
) -> Symbol:
    """Add a layer with a synapse or a norm, and return its output; for concatenated signals, a layer for each of them."""
    add = context.builder.add_layer
    if isinstance(x, Reordered):
        return add_reordered(context.builder, path, x, part)
    if isinstance(x, Channels):
        if isinstance(part, Dense) or (isinstance(part, (Conv1d, Conv2d)) and part.groups == 1):
            return add(path, x.signal, synapse=_widen(part, x, path))
        return add_part(context, path, join(context, x, path), part)
    if part is None:
        return x
    if isinstance(x, Signal):
        return add(path, x, norm=part) if isinstance(part, BatchNorm) else add(path, x, synapse=part)
    if isinstance(part, (*POOLS, Flatten)):
        return Concat(tuple(add(f"{path}.{n}", signal, synapse=part) for n, signal in enumerate(x.parts)))
    channels = enumerate(_channel_slices(x))
    if isinstance(part, BatchNorm):
        _check_channels(len(part.weight), x, path)
        return Concat(tuple(add(f"{path}.{n}", signal, norm=_slice_norm(part, where)) for n, (where, signal) in channels))
    if isinstance(part, Dense) or (isinstance(part, (Conv1d, Conv2d)) and part.groups == 1):
        _check_channels(part.weight.shape[1], x, path)
        currents = [
            add(f"{path}.{n}", signal, synapse=replace(part, weight=part.weight[:, where], bias=part.bias if n == 0 else None))
            for n, (where, signal) in channels
        ]
        return add(path, *currents)
    return add_part(context, path, join(context, x, path), part)


def _widen(part: Any, x: Channels, path: str) -> Any:
    """Return weights behind some channels of a signal as weights that take all of them, the others with 0."""
    weight = write_out(part.weight)
    _check_channels(weight.shape[1], x, path)
    wide = np.zeros((len(weight), x.signal.shape[0], *weight.shape[2:]), weight.dtype)
    wide[:, x.start : x.stop] = weight
    return replace(part, weight=wide)


def _check_channels(count: int, x: Concat | Channels, path: str) -> None:
    """Refuse weights or a norm of another number of channels than their input has."""
    if count != x.shape[0]:
        raise GraphError(
            f"{name_module(path)} takes {count} channels, its input has {x.shape[0]}; check the shapes, and that "
            "of the network's input"
        )


def join(context: TraceContext, x: Signal | Concat | Channels | Complement | Reordered, path: str) -> Signal:
    """Return one signal; concatenated ones are put at their channels by weights of 0 and 1, and added; some channels are taken.

    1 less spikes is a weight of −1 and a bias of 1.

    Raises:
        UnsupportedError: concatenated signals of more than two axes of positions, or axes in another order.
    """
    if isinstance(x, Signal):
        return x
    if isinstance(x, Reordered):
        raise make_order_refusal(x, path)
    add = context.builder.add_layer
    if isinstance(x, Complement):
        less = Scale(weight=np.asarray(-1, np.float32), bias=np.ones((), np.float32))
        return add(f"{path or 'model'}.complement", x.signal, synapse=less)
    if isinstance(x, Channels):
        picked = np.eye(x.stop - x.start, x.signal.shape[0], x.start, np.float32)
        return add(f"{path or 'model'}.channels", x.signal, synapse=_to_weights(picked, x, path))
    currents = []
    for n, (where, signal) in enumerate(_channel_slices(x)):
        eye = np.eye(x.shape[0], signal.shape[0], -where.start, np.float32)
        currents.append(add(f"{path or 'model'}.cat.{n}", signal, synapse=_to_weights(eye, signal, path)))
    return add(f"{path or 'model'}.cat", *currents)


def _to_weights(matrix: Array, x: Signal | Channels, path: str) -> Synapse:
    """Return weights between channels (outputs, inputs), the same at all positions of a signal."""
    dims = len(x.shape) - 1
    if dims > 2:
        raise UnsupportedError(f"{name_module(path)} puts {format_shape(x.shape)} values side by side; flatten them first")
    weight = matrix.reshape(*matrix.shape, *(1 for _ in range(dims)))
    return Dense(weight=weight) if not dims else (Conv1d if dims == 1 else Conv2d)(weight=weight)


def _channel_slices(x: Concat) -> list[tuple[slice, Signal]]:
    """Return each part with its channels."""
    starts = np.cumsum([0, *(part.shape[0] for part in x.parts)]).tolist()
    return [(slice(start, start + part.shape[0]), part) for start, part in zip(starts, x.parts, strict=False)]


def _slice_norm(norm: BatchNorm, where: slice) -> BatchNorm:
    return replace(norm, **{name: getattr(norm, name)[where] for name in ("weight", "bias", "mean", "var")})


def _add_max_pool(context: TraceContext, module: Any, path: str, x: Signal | Concat) -> Signal | Concat:
    """Add a max pool of spikes: a neuron that spikes in the same step where its window holds a spike, and keeps nothing.

    Raises:
        UnsupportedError: values that are no spikes, or numbers of them.
    """
    place = name_module(path)
    if not all_spikes(context, x):
        raise make_refusal(module, place, context.framework)
    if any(context.builder.sends_several(part) for part in (x.parts if isinstance(x, Concat) else (x,))):
        raise UnsupportedError(
            f"{place} is {type(module).__name__} behind neurons that send several spikes in a step, whose largest number no "
            "layer takes; let them send one, or use an average pool"
        )
    with name_in_errors(place):
        pool = to_synapse(module, x.shape, place, axes_before=_count_axes(context, module), hint=context.framework.hint_batch)
    assert isinstance(pool, (SumPool, Conv1d, Conv2d))
    if isinstance(pool, (Conv1d, Conv2d)):
        x = join(context, x, path)
    neuron = IF(v_threshold=np.asarray(ANY_SPIKE_THRESHOLD, np.float32), v_reset=np.zeros((), np.float32))
    add = context.builder.add_layer
    if isinstance(x, Signal):
        return add(path, x, synapse=pool, neuron=neuron)
    return Concat(tuple(add(f"{path}.{n}", signal, synapse=pool, neuron=neuron) for n, signal in enumerate(x.parts)))


# -------------------------------------------------------------------------------------------------------- modules with state


def _add_neurons(
    context: TraceContext, module: Any, path: str, x: Signal | Concat | Channels | Reordered
) -> OutputAndState | Signal:
    signal = join(context, x, path)
    note_call(context, module, path)
    return context.framework.add_neurons(context, module, path, signal)


def note_call(context: TraceContext, module: Any, path: str) -> None:
    """Note the call of a module with a state, which it leaves to the next one.

    Raises:
        UnsupportedError: it was called before.
    """
    called = context.builder.called
    if id(module) in called:
        raise UnsupportedError(
            f"{name_module(path)} is called twice in one step; use two modules, each with a state of its own, or let the forward "
            "loop over x[t]"
        )
    called[id(module)] = path


def _check_order(module: Any, result: OutputAndState, args: tuple[Symbol, ...], kwargs: dict[str, Symbol], place: str) -> None:
    """Check that no part of a state is handed back in place of another, or of the spikes that recurrent modules take first."""
    parts = result.parts or result.state.parts
    is_whole = len(args) == 1 and isinstance(args[0], tuple)
    names = parts if is_whole else list(inspect.signature(module.forward).parameters)[1:]
    for name, symbol in [*zip(names, args[0] if is_whole else args, strict=False), *kwargs.items()]:
        if isinstance(symbol, State) and symbol.part in parts and symbol.part != name:
            raise UnsupportedError(
                f"{place} gets '{symbol.part}' of its state as '{name}'; hand states on as they are, by name where one is missing"
            )


def _check_state(context: TraceContext, result: OutputAndState, others: tuple[Symbol, ...], place: str) -> None:
    """Check that a stateful module starts without a state in the first step, and later from its own of the step before.

    Where the framework's modules keep their state, a state that is not handed back is theirs all the same.
    """
    keeps, step, own = context.framework.keeps_state, context.unrolled.step, result.state
    others = tuple(symbol for symbol in others if symbol is not None)
    zeros = [symbol for symbol in others if symbol == State() or (isinstance(symbol, Signal) and symbol.is_zero)]
    if keeps and step and own.layers and zeros:
        raise UnsupportedError(f"{place} starts anew in every step; {STARTS_ANEW}")
    if keeps:
        others = tuple(symbol for symbol in others if symbol not in zeros)  # with which they start
    if step == 0 and others:
        _start_from_zeros(context, own, others, place)
        return
    if step and own.layers:
        states = [state for symbol in others for state in (symbol if isinstance(symbol, tuple) else (symbol,))]
        if not states and keeps:
            return
        if not states:
            raise UnsupportedError(f"{place} starts anew in every step; {STARTS_ANEW}")
        spikes = replace(result.output, age=1)  # a recurrent module may get its own spikes as a part of its state
        states = [state for state in states if not (keeps and state == spikes)]
        layers: frozenset[str] = frozenset().union(*(state.layers for state in states if isinstance(state, State)))
        if any(not isinstance(state, State) or state.age != 1 for state in states) or layers != own.layers:
            raise UnsupportedError(f"{place} gets a state that is not its own of the step before; hand states on as they are")


def _start_from_zeros(context: TraceContext, own: State, given: tuple[Symbol, ...], place: str) -> None:
    """Let neurons start from zeros that the forward makes; without them some start at their leak.

    Raises:
        UnsupportedError: another state to start from, or zeros that do not spread over the neurons.
    """
    parts = [part for symbol in given for part in (symbol if isinstance(symbol, tuple) else (symbol,))]
    if len(own.layers) != 1 or not all(isinstance(part, Signal) and part.is_zero for part in parts):
        raise UnsupportedError(
            f"{place} starts from a state that the forward makes; let it start from None, or from zeros of batch x its shape"
        )
    (name,) = own.layers
    shape = context.builder.outputs[name].shape
    for part in parts:
        inner = part.shape[len(part.shape) == len(shape) + 1 :]  # without the batch
        pairs = zip(inner[::-1], shape[::-1], strict=False)
        if len(inner) > len(shape) or any(size not in (1, count) for size, count in pairs):
            raise UnsupportedError(
                f"{place} starts from zeros of {format_shape(part.shape)}, its neurons are {format_shape(shape)}; make them "
                f"batch x {format_shape(shape)}"
            )
    context.builder.start_at_zero(name)
