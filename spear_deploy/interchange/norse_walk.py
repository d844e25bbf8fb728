"""Which layers and edges is a traced model? One call after the other: each a layer, folded, or refused with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.graph import INPUT, Edge
from spear_deploy.interchange import norse_functions as functions
from spear_deploy.interchange.norse_cells import array, norse
from spear_deploy.interchange.norse_modules import PLAIN, by, refusal, synapse_of
from spear_deploy.interchange.norse_neurons import neuron_of
from spear_deploy.interchange.norse_trace import (
    OVER_TIME,
    STEPPED,
    Pair,
    State,
    Steps,
    Thing,
    Value,
    describe,
    one_value,
    takes_state,
    trace,
    where,
)
from spear_deploy.layers import IF, BatchNorm, Dense, Layer, Neuron, Shape


@dataclass
class Walk:
    """The layers and edges found so far.

    Attributes:
        steps_s: time step of every layer whose neuron has one.
        called: path of every stateful module by its id.
    """

    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    steps_s: dict[str, float] = field(default_factory=dict)
    called: dict[int, str] = field(default_factory=dict)

    def run(self, model: torch.nn.Module, value: Value, *, path: str, timed: bool, pick: int | None = None) -> Pair:
        """Trace a model on a value and turn every call into layers; return what it emits and the states it hands back."""
        steps, graph = trace(model, path, timed=timed, pick=pick)
        frame = Frame(self, steps, path)
        for node in graph.nodes:
            frame.things[node] = frame.evaluate(node, value)
        return frame.finish()

    def time_step(self, dt_s: float | None) -> float:
        """Return the time step that all cells share."""
        if not self.steps_s:
            return 1e-3 if dt_s is None else dt_s
        (first, found), *rest = self.steps_s.items()
        for name, other in rest:
            if other != found:
                raise UnsupportedError(
                    f"cells '{first}' and '{name}' have time steps of {found:g} and {other:g} s; give all one dt"
                )
        if dt_s is not None and dt_s != found:
            raise UnsupportedError(f"cell '{first}' has a time step of {found:g} s, dt_s = {dt_s:g} s was given; leave it out")
        return found

    def add(self, path: str, *sources: Value, shape: Shape | None = None, **parts: Any) -> Value:
        """Add a layer fed by the given values; `shape` is that of its input where nothing feeds it yet."""
        layer = Layer(name=self._free(path), **parts)
        value = Value(layer.name, layer.output_shape(sources[0].shape if shape is None else shape))
        self.layers.append(layer)
        self.edges += [Edge(source=source.name, target=layer.name) for source in sources]
        return value

    def spikes(self, value: Value) -> bool:
        """Say whether a value is what neurons emit."""
        return any(layer.name == value.name and layer.spikes for layer in self.layers)

    def _free(self, path: str) -> str:
        base = path.replace("/", "_") or "model"
        base = f"{base}_" if base == INPUT else base
        taken = {layer.name for layer in self.layers}
        return next(name for name in (base, *(f"{base}_{n}" for n in range(2, len(taken) + 3))) if name not in taken)


class Frame:
    """One trace on its way to layers: its first step makes them, its second must meet the same ones again.

    Attributes:
        axes_before: axes in front of a neuron's: batch, and time where there is one.
        things: what each node of the trace is.
    """

    def __init__(self, walk: Walk, steps: Steps, path: str) -> None:
        self.walk, self.steps, self.path = walk, steps, path
        self.axes_before = 1 + steps.timed
        self.things: dict[fx.Node, Thing] = {}
        self._made: list[tuple[Thing, Thing]] = []
        self._met = 0
        self._step = 0
        self._output: Thing = None

    def evaluate(self, node: fx.Node, value: Value) -> Thing:
        """Return what a node of the trace is, `value` being the input."""
        if node.op == "placeholder":
            return value
        if node.op == "output":
            self._output = self._outputs(node.args[0])
            return None
        self._step = node.meta["step"]
        args, kwargs = self._resolve(node.args), self._resolve(node.kwargs)
        if node.op == "call_module":
            return self._call(self.steps.get_submodule(str(node.target)), self._place(str(node.target)), args, kwargs)
        owner = self._place(node.meta["owner"])
        if node.op == "get_attr":
            raise UnsupportedError(
                f"{where(owner)} uses the tensor '{self._place(str(node.target))}' by itself; put it into a module"
            )
        return functions.call(self, node.target, owner, args, kwargs)

    def _outputs(self, result: Any) -> Thing:
        """Return the output of the first step, after a check that the second returns the same."""
        later = None if self.steps.timed else self._resolve(result[1])
        self._step = 0
        out = self._resolve(result if self.steps.timed else result[0])
        if not self.steps.timed and isinstance(out, (Value, Pair)) and later != out and self._met == len(self._made):
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(out)}, in the second step {describe(later)}"
            )
        return out

    def once(self, key: Thing, make: Callable[[], Thing]) -> Thing:
        """Make something in the first step; in the second, check that it is the same call and return what that made."""
        if self._step == 0:
            self._made.append((key, make()))
            return self._made[-1][1]
        if self._met >= len(self._made) or self._made[self._met][0] != key:
            raise UnsupportedError(f"{where(key[0])} runs in another way in the second step; let every step compute the same")
        self._met += 1
        return self._made[self._met - 1][1]

    def finish(self) -> Pair:
        """Return what the forward emits, and the states that it hands back."""
        out = self._output
        if not self.steps.timed and self._met < len(self._made):
            missing = self._made[self._met][0][0]
            raise UnsupportedError(f"{where(missing)} runs in the first step only; let every step compute the same")
        state, beside = self._handed_back(self.steps.handed_back)
        if beside and (self.steps.timed or not takes_state(self.steps.model)):
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(beside[0])} beside its output; return one output"
            )
        if isinstance(out, Pair):
            state = State(out.state.of | state.of)
            out = out.value
        if not isinstance(out, Value):
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(out)}, expected one output, or (output, state)"
            )
        return Pair(out, state)

    def _place(self, target: str) -> str:
        """Return the path in the whole model of a path in the trace."""
        inner = target.removeprefix("model").removeprefix(".")
        return ".".join(part for part in (self.path, inner) if part)

    def _resolve(self, arg: Any) -> Thing:
        """Put things in the place of nodes."""
        if isinstance(arg, fx.Node):
            thing = self.things[arg]
            return _aged(thing) if arg.meta["step"] < self._step and arg.target != "later" else thing
        if isinstance(arg, (tuple, list)):
            return tuple(self._resolve(a) for a in arg)
        if isinstance(arg, dict):
            return {key: self._resolve(a) for key, a in arg.items()}
        return arg

    def _handed_back(self, thing: Any) -> tuple[State, list[Value]]:
        """Return the states and the values in what a forward returned beside its output."""
        if isinstance(thing, fx.Proxy):
            thing = self.things[thing.node]
            thing = thing.state if isinstance(thing, Pair) else thing
        if isinstance(thing, State):
            return thing, []
        if isinstance(thing, Value):
            return State(), [thing]
        held = list(thing.values()) if isinstance(thing, dict) else thing if isinstance(thing, (tuple, list)) else []
        parts = [self._handed_back(part) for part in held]
        return State(frozenset().union(*(state.of for state, _ in parts))), [value for _, values in parts for value in values]

    # ---------------------------------------------------------------------------------------------------- modules

    def _call(self, module: Any, path: str, args: tuple[Thing, ...], kwargs: dict[str, Thing]) -> Thing:
        """Turn the call of a module into layers."""
        place = where(path)
        given, rest = args[0] if args else kwargs.pop("input_tensor", None), (*args[1:], *kwargs.values())
        if isinstance(module, norse.Lift):
            return self.once((path, given), lambda: self._lift(module, path, given))
        value = one_value(given, place)
        if type(module).__name__.startswith("Lazy"):
            raise refusal(module, place)
        _check_hooks(module, place)
        if isinstance(module, norse.RegularizationCell):
            return Pair(value, State())
        if isinstance(module, torch.nn.ReLU) and self.walk.spikes(value):
            return value
        if isinstance(module, (*OVER_TIME, *STEPPED)) and not isinstance(module, norse.LConv2d):
            if isinstance(module, OVER_TIME) != self.steps.timed:
                raise UnsupportedError(f"{place} is {type(module).__name__}, which runs over time within one step; use its cell")
            with _named(place):
                pair: Pair = self.once((path, value), lambda: self._stateful(module, path, value))
            self._check_state(pair.state, rest, place)
            return pair
        return self.once((path, value), lambda: self._plain(module, path, value))

    def _plain(self, module: Any, path: str, value: Value) -> Value:
        if not any(isinstance(module, kind) and type(module).forward is kind.forward for kind in PLAIN):
            raise refusal(module, where(path))
        with _named(where(path)):
            part = synapse_of(module, value.shape, where(path), axes_before=self.axes_before)
        if part is None:
            return value
        if isinstance(part, BatchNorm):
            return self.walk.add(path, value, norm=part)
        return self.walk.add(path, value, synapse=part)

    def _check_state(self, own: State, given: tuple[Thing, ...], place: str) -> None:
        """Check that a stateful module starts from nothing in the first step, and from its own state in the second."""
        given = tuple(thing for thing in given if thing is not None)
        if self._step == 0 and given:
            raise UnsupportedError(f"{place} starts from a state that the forward makes; let it start from None")
        if self._step == 1 and own.of:
            states = [state for thing in given for state in (thing if isinstance(thing, tuple) else (thing,))]
            if not states:
                raise UnsupportedError(
                    f"{place} starts anew in every step; hand its state back: forward(x, state) -> (output, state)"
                )
            if any(not isinstance(state, State) or not state.past for state in states) or _union(states) != own.of:
                raise UnsupportedError(f"{place} gets a state that is not its own of the step before; hand states on as they are")

    def _stateful(self, module: Any, path: str, value: Value) -> Pair:
        """Add the layers of a cell, a time layer or a feedback loop."""
        if id(module) in self.walk.called:
            raise UnsupportedError(f"{where(path)} is called twice in one step; use two modules, each with a state of its own")
        self.walk.called[id(module)] = path
        if isinstance(module, norse.RecurrentSequential):
            return self._feedback(module, path, value)
        weights = getattr(module, "input_weights", None)
        if weights is not None and len(value.shape) != 1:
            raise UnsupportedError(
                f"{where(path)} has weights on the last axis of {by(value.shape)} inputs; put a Flatten before it"
            )
        neuron = neuron_of(module, value.shape if weights is None else (weights.shape[0],), where(path))
        if neuron is None:
            raise refusal(module, where(path))
        out = self._cell(module, path, value, neuron)
        if not isinstance(neuron, IF):
            self.walk.steps_s[out.name] = float(module.dt)
        return Pair(out, State(frozenset({out.name})))

    def _cell(self, module: Any, path: str, value: Value, neuron: Neuron) -> Value:
        walk = self.walk
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

    def _lift(self, module: Any, path: str, given: Thing) -> Thing:
        """Add what a Lift runs step by step."""
        place = where(path)
        if not self.steps.timed:
            raise UnsupportedError(f"{place} is Lift, which runs over time within one step; use the module in it")
        value = given.value if isinstance(given, Pair) else given[0] if isinstance(given, tuple) and given else given
        if module.is_stateful and value is not given:
            raise UnsupportedError(
                f"{place} takes the state of the module before it for its own; use SequentialState around both"
            )
        _check_hooks(module, place)
        pair = self.walk.run(module.lifted_module, one_value(value, place), path=path, timed=False)
        return pair if module.is_stateful else pair.value

    def _feedback(self, module: Any, path: str, value: Value) -> Pair:
        """Add what a RecurrentSequential holds, with its output fed back as input one step later."""
        place = where(path)
        if not isinstance(module.output_modules, int):
            raise UnsupportedError(f"{place} feeds several outputs back, which Norse cannot add; give output_modules one number")
        entry = self.walk.add(f"{path or 'model'}.sum", value)
        pair = self.walk.run(module.module, entry, path=path, timed=False, pick=module.output_modules)
        if pair.value.shape != value.shape:
            raise UnsupportedError(
                f"{place} feeds {by(pair.value.shape)} outputs back to {by(value.shape)} inputs; make them equal"
            )
        self.walk.edges.append(Edge(source=pair.value.name, target=entry.name, delay=1))
        return pair


def _aged(thing: Thing) -> Thing:
    """Return a thing of the first step as the second sees it."""
    if isinstance(thing, (Value, State)):
        return replace(thing, past=True)
    if isinstance(thing, Pair):
        return Pair(_aged(thing.value), _aged(thing.state))
    return tuple(_aged(part) for part in thing) if isinstance(thing, tuple) else thing


def _union(states: list[State]) -> frozenset[str]:
    return frozenset().union(*(state.of for state in states))


def _check_hooks(module: torch.nn.Module, place: str) -> None:
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
