"""Which layers does the call of a module add?

A module without state is a synapse or a norm, or changes nothing. A cell adds its neurons, with the layers of its weights where
it has some. Outputs side by side (`torch.cat`) stay apart: weights behind them are split, one layer for each part, whose currents
add up, which is the same sum of products; where something else takes them they are put side by side by weights of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.network import IF, POOLS, BatchNorm, Conv1d, Conv2d, Dense, Flatten, Neuron, SumPool, Synapse
from spear_deploy.network.graph import Edge
from spear_deploy.norse.cells import array, norse
from spear_deploy.norse.importer.neurons import neuron_of
from spear_deploy.norse.importer.symbols import Concat, Pair, State, Thing, Value, one_value, where
from spear_deploy.norse.importer.synapses import MAX_POOLS, PLAIN, by, refusal, synapse_of
from spear_deploy.norse.importer.trace import OVER_TIME, STEPPED

if TYPE_CHECKING:
    from spear_deploy.norse.importer.interpreter import Frame

HALF = 0.5
"""The threshold of a neuron that tells one spike or more from none."""


def call(frame: Frame, module: Any, path: str, args: tuple[Thing, ...], kwargs: dict[str, Thing]) -> Thing:
    """Turn the call of a module into layers."""
    place = where(path)
    given, rest = args[0] if args else kwargs.pop("input_tensor", None), (*args[1:], *kwargs.values())
    if isinstance(module, norse.Lift):
        return frame.replay.once((path, "lift", given), lambda key: _lift(frame, module, path, key[2]))
    if not isinstance(given, Concat):
        given = one_value(given, place)
    if type(module).__name__.startswith("Lazy"):
        raise refusal(module, place)
    check_hooks(module, place)
    if isinstance(module, norse.RegularizationCell):
        return Pair(given, State())
    if isinstance(module, torch.nn.ReLU) and all_spikes(frame, given):
        return given
    if isinstance(module, (*OVER_TIME, *STEPPED)) and not isinstance(module, norse.LConv2d):
        if isinstance(module, OVER_TIME) != (frame.form == "layers"):
            raise UnsupportedError(f"{place} is {type(module).__name__}, which runs over time within one step; use its cell")
        with _named(place):
            pair: Pair = frame.replay.once((path, "neuron", given), lambda key: _stateful(frame, module, path, key[2]))
        _check_state(frame, pair.state, rest, place)
        return pair
    return frame.replay.once((path, "module", given), lambda key: plain(frame, module, path, key[2]))


def plain(frame: Frame, module: Any, path: str, given: Value | Concat) -> Value | Concat:
    """Add what a module without state is, a torch module or the one that a function stands for."""
    place = where(path)
    if isinstance(module, MAX_POOLS):
        return _largest(frame, module, path, given)
    if not any(isinstance(module, kind) and type(module).forward is kind.forward for kind in PLAIN):
        raise refusal(module, place)
    with _named(place):
        part = synapse_of(module, given.shape, place, axes_before=frame.axes_before)
    return placed(frame, path, given, part)


def placed(frame: Frame, path: str, given: Value | Concat, part: Synapse | BatchNorm | None) -> Value | Concat:
    """Add a layer with a synapse or a norm; for values side by side one for each of them."""
    if part is None:
        return given
    if isinstance(given, Value):
        kind = {"norm" if isinstance(part, BatchNorm) else "synapse": part}
        return frame.walk.add(path, given, shape=None, **kind)
    if isinstance(part, (*POOLS, Flatten)):
        return Concat(tuple(frame.walk.add(f"{path}.{n}", value, synapse=part) for n, value in enumerate(given.parts)))
    if isinstance(part, BatchNorm):
        return Concat(
            tuple(
                frame.walk.add(f"{path}.{n}", value, norm=_norm_of(part, start, value.shape[0]))
                for n, (start, value) in enumerate(_starts(given))
            )
        )
    if isinstance(part, Dense) or (isinstance(part, (Conv1d, Conv2d)) and part.groups == 1):
        return frame.walk.add(
            path,
            *(
                frame.walk.add(f"{path}.{n}", value, synapse=_columns_of(part, start, value.shape[0], bias=n == 0))
                for n, (start, value) in enumerate(_starts(given))
            ),
        )
    return placed(frame, path, joined(frame, given, path), part)


def _starts(given: Concat) -> list[tuple[int, Value]]:
    """Return every part with the channel that it starts at."""
    starts = np.cumsum([0, *(part.shape[0] for part in given.parts)])
    return [(int(start), part) for start, part in zip(starts, given.parts, strict=False)]


def _columns_of(part: Any, start: int, count: int, *, bias: bool) -> Synapse:
    found: Synapse = replace(part, weight=part.weight[:, start : start + count], bias=part.bias if bias else None)
    return found


def _norm_of(norm: BatchNorm, start: int, count: int) -> BatchNorm:
    values = {name: getattr(norm, name)[start : start + count] for name in ("weight", "bias", "mean", "var")}
    return replace(norm, **values)


def joined(frame: Frame, given: Value | Concat, path: str) -> Value:
    """Return one value; those side by side are brought to their channels by weights of 0 and 1, and added."""
    if isinstance(given, Value):
        return given
    channels, dims = given.shape[0], len(given.shape) - 1
    parts = []
    for n, (start, value) in enumerate(_starts(given)):
        eye = np.eye(channels, value.shape[0], -start, np.float32)
        weight = eye.reshape(*eye.shape, *(1 for _ in range(dims)))
        if dims > 2:
            raise UnsupportedError(f"{where(path)} puts {by(value.shape)} values side by side; flatten them first")
        synapse = Dense(weight=weight) if not dims else (Conv1d if dims == 1 else Conv2d)(weight=weight)
        parts.append(frame.walk.add(f"{path or 'model'}.cat.{n}", value, synapse=synapse))
    return frame.walk.add(f"{path or 'model'}.cat", *parts)


def all_spikes(frame: Frame, given: Thing) -> bool:
    """Say whether all that is given are spikes of neurons, one or none each."""
    parts = given.parts if isinstance(given, Concat) else (given,)
    return all(isinstance(part, Value) and (part.zero or frame.walk.spikes(part)) for part in parts)


def _largest(frame: Frame, module: Any, path: str, given: Value | Concat) -> Value | Concat:
    """Add a max pool over spikes: a neuron that spikes in the same step where its window holds a spike, and forgets it."""
    if not all_spikes(frame, given):
        raise refusal(module, where(path))
    with _named(where(path)):
        pool = synapse_of(module, given.shape, where(path), axes_before=frame.axes_before)
    assert isinstance(pool, SumPool)
    any_spike = IF(v_threshold=np.asarray(HALF, np.float32), v_reset=np.zeros((), np.float32))
    parts = given.parts if isinstance(given, Concat) else (given,)
    names = [f"{path}.{n}" for n in range(len(parts))] if isinstance(given, Concat) else [path]
    made = [frame.walk.add(name, part, synapse=pool, neuron=any_spike) for name, part in zip(names, parts, strict=True)]
    return Concat(tuple(made)) if isinstance(given, Concat) else made[0]


# ---------------------------------------------------------------------------------------------------------- with state


def _check_state(frame: Frame, own: State, given: tuple[Thing, ...], place: str) -> None:
    """Check that a stateful module starts from nothing in the first step, and then from its own state."""
    given = tuple(thing for thing in given if thing is not None)
    if frame.step == 0 and given:
        raise UnsupportedError(f"{place} starts from a state that the forward makes; let it start from None")
    if frame.step and own.of:
        states = [state for thing in given for state in (thing if isinstance(thing, tuple) else (thing,))]
        if not states:
            raise UnsupportedError(
                f"{place} starts anew in every step; hand its state back: forward(x, state) -> (output, state)"
            )
        held = frozenset().union(*(state.of for state in states if isinstance(state, State)))
        if any(not isinstance(state, State) or state.age != 1 for state in states) or held != own.of:
            raise UnsupportedError(f"{place} gets a state that is not its own of the step before; hand states on as they are")


def _stateful(frame: Frame, module: Any, path: str, given: Value | Concat) -> Pair:
    """Add the layers of a cell, a time layer or a feedback loop."""
    walk, value = frame.walk, joined(frame, given, path)
    if id(module) in walk.called:
        raise UnsupportedError(
            f"{where(path)} is called twice in one step; use two modules, each with a state of its own, or let the forward loop "
            "over x[t]"
        )
    walk.called[id(module)] = path
    if isinstance(module, norse.RecurrentSequential):
        return _feedback(frame, module, path, value)
    weights = getattr(module, "input_weights", None)
    if weights is not None and len(value.shape) != 1:
        raise UnsupportedError(f"{where(path)} has weights on the last axis of {by(value.shape)} inputs; put a Flatten before it")
    neuron = neuron_of(module, value.shape if weights is None else (weights.shape[0],), where(path))
    if neuron is None:
        raise refusal(module, where(path))
    out = _cell(frame, module, path, value, neuron)
    if not isinstance(neuron, IF):
        walk.steps_s[out.name] = float(module.dt)
    return Pair(out, State(frozenset({out.name})))


def _cell(frame: Frame, module: Any, path: str, value: Value, neuron: Neuron) -> Value:
    walk = frame.walk
    weights, recurrent = getattr(module, "input_weights", None), getattr(module, "recurrent_weights", None)
    if weights is None:
        return walk.add(path, value, neuron=neuron)
    drive = walk.add(f"{path or 'model'}.input", value, synapse=Dense(weight=array(weights)))
    if recurrent is None:
        return walk.add(path, drive, neuron=neuron)
    back = walk.add(f"{path or 'model'}.recurrent", shape=drive.shape, synapse=Dense(weight=array(recurrent)))
    out = walk.add(path, drive, back, neuron=neuron)
    walk.edges.append(Edge(source=out.name, target=back.name, delay=1))
    return out


def _lift(frame: Frame, module: Any, path: str, given: Thing) -> Thing:
    """Add what a Lift runs step by step."""
    place = where(path)
    if frame.form != "layers":
        raise UnsupportedError(f"{place} is Lift, which runs over time within one step; use the module in it")
    value = given.value if isinstance(given, Pair) else given[0] if isinstance(given, tuple) and given else given
    if module.is_stateful and value is not given:
        raise UnsupportedError(f"{place} takes the state of the module before it for its own; use SequentialState around both")
    check_hooks(module, place)
    value = joined(frame, value, path) if isinstance(value, Concat) else one_value(value, place)
    pair = frame.interpret(module.lifted_module, value, path=path, form="step")
    return pair if module.is_stateful else pair.value


def _feedback(frame: Frame, module: Any, path: str, value: Value) -> Pair:
    """Add what a RecurrentSequential holds, with its output fed back as input one step later."""
    place = where(path)
    if not isinstance(module.output_modules, int):
        raise UnsupportedError(f"{place} feeds several outputs back, which Norse cannot add; give output_modules one number")
    entry = frame.walk.add(f"{path or 'model'}.sum", value)
    pair = frame.interpret(module.module, entry, path=path, form="step", pick=module.output_modules)
    if pair.value.shape != value.shape:
        raise UnsupportedError(f"{place} feeds {by(pair.value.shape)} outputs back to {by(value.shape)} inputs; make them equal")
    frame.walk.edges.append(Edge(source=pair.value.name, target=entry.name, delay=1))
    return pair


def check_hooks(module: torch.nn.Module, place: str) -> None:
    """Refuse hooks, which may change what a module computes; let torch's own pruning and normalising hooks act."""
    own = [hook for hook in module._forward_pre_hooks.values() if type(hook).__module__.startswith("torch.nn.utils")]
    if module._forward_hooks or len(own) < len(module._forward_pre_hooks):
        raise UnsupportedError(f"{place} has a forward hook, which may change what it computes; remove it first")
    for hook in own:
        hook(module, ())


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Say in which module the weights or parameters lie that no part can be made of."""
    try:
        yield
    except GraphError as error:
        message = str(error)
        raise GraphError(message if message.startswith("layer '") else f"{place}: {message}") from error
