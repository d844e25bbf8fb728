"""Which layers and edges is a traced model? One call after the other: each a layer, folded, or refused with its place."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.norse.importer import functions as norse_functions
from spear_deploy.norse.importer import modules as norse_calls
from spear_deploy.norse.importer.builder import GraphBuilder
from spear_deploy.norse.importer.symbols import (
    Collected,
    Concat,
    Leading,
    Pair,
    Sequence,
    State,
    Thing,
    Value,
    aged,
    describe,
    values_in,
    where,
)
from spear_deploy.norse.importer.trace import BATCH, LOOP_STEPS, Axis, Form, Steps, steps_of, takes_state, trace
from spear_deploy.norse.importer.unrolling import Replay


def interpret(
    walk: GraphBuilder, model: torch.nn.Module, value: Value, *, path: str, form: Form, pick: int | None = None
) -> Pair:
    """Trace a model on a value and turn every call into layers; return what it emits and the states it hands back."""
    steps, graph = trace(model, value.shape, path, form, pick=pick)
    frame = Frame(walk, steps, path, form)
    frame.evaluate_all(graph, value)
    return frame.finish()


class Frame:
    """One trace on its way to layers: its first step makes them, the later ones must meet the same ones again.

    Attributes:
        axes_before: axes in front of a neuron's: batch, and time where there is one.
    """

    def __init__(self, walk: GraphBuilder, steps: Steps, path: str, form: Form) -> None:
        self.walk, self.steps, self.path, self.form = walk, steps, path, form
        self.axes_before = 2 if form == "layers" else 1
        self.replay = Replay(walk)
        self._things: dict[fx.Node, Thing] = {}
        self._at: dict[fx.Node, int] = {}
        self._buffers: dict[str, Collected] = {}
        self._output: Thing = None

    def interpret(self, model: torch.nn.Module, value: Value, *, path: str, form: Form, pick: int | None = None) -> Pair:
        """Trace an inner model in the same network."""
        return interpret(self.walk, model, value, path=path, form=form, pick=pick)

    @property
    def step(self) -> int:
        """The step that is being walked."""
        return self.replay.step

    def evaluate_all(self, graph: fx.Graph, value: Value) -> None:
        """Go through the nodes step by step, `value` being the input."""
        self._at = steps_of(self.steps, graph, self.form)
        order = {node: n for n, node in enumerate(graph.nodes)}
        for node in sorted(order, key=lambda node: (self._at[node], order[node])):
            self.replay.enter(self._at[node])
            self._things[node] = self._evaluate(node, value)
        self.replay.finish()

    def _evaluate(self, node: fx.Node, value: Value) -> Thing:
        if node.op == "placeholder":
            return Sequence(value) if self.form == "loop" else value
        if node.op == "output":
            self._output = self._outputs(node.args[0])
            return None
        args, kwargs = self._resolve(node.args), self._resolve(node.kwargs)
        if node.op == "call_module":
            module = self.steps.get_submodule(str(node.target))
            return norse_calls.call(self, module, self._place(str(node.target)), args, kwargs)
        owner = self._place(node.meta["owner"])
        if node.op == "get_attr":
            return self._tensor(node, owner)
        if node.target == "__setitem__" and isinstance(args[0], Collected):
            return self._collect(node, args, owner)
        return norse_functions.call(self, node.target, owner, args, kwargs)

    def _tensor(self, node: fx.Node, owner: str) -> Thing:
        """Understand a tensor in the forward: zeros to start from, or the place where the outputs of a loop go."""
        name = str(node.target)
        tensor: Any = self.steps
        for part in name.split("."):
            tensor = getattr(tensor, part)
        if name.startswith("_tensor_constant") and not tensor.detach().cpu().numpy().any():
            if self.form == "loop" and any(user.target == "__setitem__" or user.op == "output" for user in node.users):
                return self._buffers.setdefault(name, Collected())
            if tensor.ndim > self.axes_before and tensor.shape[0] == BATCH:
                return self.walk.zero(tuple(tensor.shape[self.axes_before :]))
        raise UnsupportedError(
            f"{where(owner)} uses the tensor '{self._place(name)}' by itself; put it into a module, or start from zeros of "
            "batch x the layer's shape"
        )

    def _collect(self, node: fx.Node, args: tuple[Thing, ...], owner: str) -> Thing:
        """Note what is written into the outputs of a loop: at index t, in step t."""
        _, index, value = args
        step, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(value, Concat):
            value = self.replay.once((owner, "join", value), lambda key: norse_calls.joined(self, key[2], owner))
        if not isinstance(step, int) or any(part not in (..., slice(None)) for part in rest) or not isinstance(value, Value):
            raise UnsupportedError(f"{where(owner)} writes {describe(value)} to [{index}]; write the output of step t to [t]")
        assert isinstance(node.args[0], fx.Node)
        name = str(node.args[0].target)
        self._buffers[name] = Collected((*self._buffers[name].written, (step, aged(value, step - self.step))))
        return None

    def _outputs(self, result: Any) -> Thing:
        """Return what the forward emits in a step, after a check that all steps emit the same."""
        if self.form == "layers":
            return self._resolve(result)
        if self.form == "loop":
            return self._gathered(result)
        first, later = self._resolve(result[0]), self._resolve(result[1])
        found = aged(first, -1)
        complete = self.replay.met == len(self.replay.first)
        if isinstance(later, Value) and self.replay.without_feedback.get(later.name) == found:
            return later
        if isinstance(found, (Value, Pair, Concat)) and later != found and complete:
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(found)}, in the second step {describe(later)}"
            )
        return found

    def _gathered(self, result: Any) -> Thing:
        """Return what a loop over time returns of every step."""
        thing = self._resolve(result)
        if isinstance(result, fx.Node) and result.op == "get_attr":
            name = str(result.target)
            written = self._buffers.get(name, Collected()).written
            thing = tuple(aged(value, LOOP_STEPS - 1 - t) for t, value in sorted(written, key=lambda entry: entry[0]))
        if not (isinstance(thing, tuple) and len(thing) == LOOP_STEPS):
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(thing)}, expected the outputs of all steps, such as "
                "torch.stack(outputs); decode after the network"
            )
        now = thing[-1]
        for t, value in enumerate(thing):
            if not isinstance(value, (Value, Concat)) or value != aged(now, LOOP_STEPS - 1 - t):
                raise UnsupportedError(
                    f"{where(self.path)}: its forward returns {describe(value)} for step {t}, for the last one {describe(now)}"
                )
        return now

    def finish(self) -> Pair:
        """Return what the forward emits, and the states that it hands back."""
        out = norse_calls.joined(self, self._output, self.path) if isinstance(self._output, Concat) else self._output
        first, *later = self.steps.handed_back
        state, beside = self._handed_back(first)
        fed_back = self.form == "step" and takes_state(self.steps.model)
        if beside and not fed_back:
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(beside[0])} beside its output; return one output"
            )
        self._check_carried([*later, *self.steps.kept()])
        if isinstance(out, Pair):
            state = State(out.state.of | state.of)
            out = out.value
        if not isinstance(out, Value) or out.age or out.zero:
            raise UnsupportedError(
                f"{where(self.path)}: its forward returns {describe(out)}, expected one output, or (output, state)"
            )
        return Pair(out, state)

    def _check_carried(self, kept: list[Any]) -> None:
        """Refuse a value of the first step that the second hands on: what takes it then was not traced."""
        if self.form != "step":
            return
        for part in kept:
            for node in _nodes_in(part):
                old = [value for value in values_in(aged(self._things[node], 1 - self._at[node])) if value.age]
                if old:
                    raise UnsupportedError(
                        f"{where(self.path)} keeps {describe(old[0])} for a third step; feed back what is one step old"
                    )

    def _place(self, target: str) -> str:
        """Return the path in the whole model of a path in the trace."""
        inner = target.removeprefix("model").removeprefix(".")
        return ".".join(part for part in (self.path, inner) if part)

    def _resolve(self, arg: Any) -> Thing:
        """Put things in the place of nodes."""
        if isinstance(arg, fx.Node):
            return aged(self._things[arg], self.step - self._at[arg]) if self._at[arg] < self.step else self._things[arg]
        if isinstance(arg, Axis):
            return Leading(arg.axis)
        if isinstance(arg, (tuple, list)):
            return tuple(self._resolve(a) for a in arg)
        if isinstance(arg, dict):
            return {key: self._resolve(a) for key, a in arg.items()}
        return arg

    def _handed_back(self, thing: Any) -> tuple[State, list[Value]]:
        """Return the states and the values in what a forward returned beside its output."""
        if isinstance(thing, fx.Proxy):
            thing = self._things[thing.node]
            thing = thing.state if isinstance(thing, Pair) else thing
        if isinstance(thing, State):
            return thing, []
        if isinstance(thing, (Value, Concat)):
            return State(), values_in(thing)
        held = list(thing.values()) if isinstance(thing, dict) else thing if isinstance(thing, (tuple, list)) else []
        parts = [self._handed_back(part) for part in held]
        return State(frozenset().union(*(state.of for state, _ in parts))), [value for _, values in parts for value in values]


def _nodes_in(thing: Any) -> list[fx.Node]:
    """Return the nodes of the symbols that a forward keeps, in containers too."""
    if isinstance(thing, fx.Proxy):
        return [thing.node]
    held = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (tuple, list, deque)) else ()
    return [node for part in held for node in _nodes_in(part)]
