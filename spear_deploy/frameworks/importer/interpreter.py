"""Layers and edges from the calls of a traced model.

The calls are read in the order of their steps; each becomes layers, changes nothing, or is refused with its place.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.call_settings import ComputedSettings
from spear_deploy.frameworks.importer.context import Form, Framework, TraceContext, read_potential, run_stepwise
from spear_deploy.frameworks.importer.decoding import EACH, read_decision
from spear_deploy.frameworks.importer.forward_code import copy_model, count_later_steps, takes_state
from spear_deploy.frameworks.importer.functions import call_function
from spear_deploy.frameworks.importer.held_tensors import join_paths, read_tensor
from spear_deploy.frameworks.importer.in_place import make_refusal as make_change_refusal
from spear_deploy.frameworks.importer.later_steps import check_later_steps
from spear_deploy.frameworks.importer.modules import call_module, join
from spear_deploy.frameworks.importer.step_layout import TracedRatio, TracedSize
from spear_deploy.frameworks.importer.symbols import (
    AxisSize,
    BatchFirst,
    Channels,
    Concat,
    Decoded,
    Merged,
    OutputAndState,
    Potential,
    Signal,
    State,
    StepInputs,
    Still,
    Symbol,
    describe,
    list_signals,
    name_module,
    require_signal,
    shifted_by,
)
from spear_deploy.frameworks.importer.trace import trace
from spear_deploy.frameworks.importer.traced_model import (
    LOOPS,
    TracedModel,
    assign_steps,
    count_calls,
    find_constant_nodes,
    find_last_nodes,
    is_log,
    list_nodes,
)
from spear_deploy.frameworks.importer.tracer import COUNTS, Counts
from spear_deploy.frameworks.importer.unrolling import UnrolledSteps
from spear_deploy.network.classes import COUNTED_AS_SPIKES, COUNTED_BY_MEAN, word_answer
from spear_deploy.util.number_format import format_shape

POTENTIALS, SPIKES = ("", "v", "mem"), ("z",)
"""Parts of a state that may be the output: the potential, which the whole stands for too, and the spikes of recurrent cells."""


def interpret(
    model: torch.nn.Module,
    x: Signal,
    *,
    path: str,
    form: Form,
    builder: GraphBuilder,
    framework: Framework,
    output_index: int | None = None,
    counts: Counts = COUNTS,
) -> OutputAndState:
    """Trace a model on an input, add its layers, and return its output and the states that it hands back.

    Args:
        model: the model.
        x: its input.
        path: its place in the whole model.
        form: how its forward deals with time.
        builder: takes the layers.
        framework: the conventions of its modules.
        output_index: which of a list of outputs counts.
        counts: samples and further steps of the traced input.
    """
    run = partial(trace, shape=x.shape, path=path, form=form, framework=framework, output_index=output_index, counts=counts)
    untraced = copy_model(model) if form == "step" else None
    traced, graph = run(model, later_steps=0)
    builder.reads_sizes |= traced.reads_sizes
    builder.repeats_input |= traced.repeats_input and not path
    if traced.leaves_out_last and not path:
        builder.notes.append("the forward leaves out the last steps of its input: the network takes all of them")
    interpreter = TraceInterpreter(traced, path, builder, counts)
    interpreter.run(graph, x)
    result, logged = interpreter.finish(), interpreter.find_kept(in_lists=True)
    if traced.change is not None:
        raise make_change_refusal(traced.change, path)
    if untraced is not None and (traced.keeps_others or logged is not None):  # a later step may compute something else by them
        try:
            check_later_steps(*run(untraced, later_steps=count_later_steps(untraced)), path)
        except UnsupportedError as error:
            raise error if logged is None else make_kept_refusal(logged, path) from None
    return result


def make_kept_refusal(signal: Signal, path: str) -> UnsupportedError:
    """Return the error for a signal of the first step that a third may take."""
    return UnsupportedError(f"{name_module(path)} keeps {describe(signal)} for a third step; feed back what is one step old")


class TraceInterpreter:
    """Turns one trace into layers: its first step makes them, the later steps must match them."""

    def __init__(self, traced: TracedModel, path: str, builder: GraphBuilder, counts: Counts) -> None:
        self.traced, self.path, self.form, self.counts = traced, path, traced.form, counts
        self.unrolled = UnrolledSteps(builder, last=traced.steps - 1)
        self.context = TraceContext(
            builder=builder,
            unrolled=self.unrolled,
            form=traced.form,
            framework=traced.framework,
            interpret=partial(interpret, builder=builder, framework=traced.framework, counts=counts),
        )
        self._symbols: dict[fx.Node, Symbol] = {}
        self._constant: set[fx.Node] = set()
        self._last: set[fx.Node] = set()
        self._steps: dict[fx.Node, int] = {}
        self._output: Symbol = None
        self._computed = ComputedSettings()

    def run(self, graph: fx.Graph, x: Signal) -> None:
        """Evaluate all nodes, step by step, on the input `x`."""
        self._steps, self._constant = assign_steps(self.traced, graph), find_constant_nodes(self.traced, graph)
        self._last = find_last_nodes(self.traced, graph)
        self._check_calls(graph)
        order = {node: n for n, node in enumerate(graph.nodes)}
        for node in sorted(order, key=lambda node: (self._steps[node], order[node])):
            self.unrolled.advance_to(self._steps[node])
            self.unrolled.is_constant = node in self._constant or node in self._last
            self._symbols[node] = self._evaluate(node, x)
        self.unrolled.check_complete()

    def _check_calls(self, graph: fx.Graph) -> None:
        """Refuse neurons that take an output of a later step: others are called more often than they are.

        Raises:
            UnsupportedError: some do.
        """
        late = [node for node in graph.nodes if any(self._steps[source] > self._steps[node] for source in node.all_input_nodes)]
        if late:
            counts = count_calls(self.traced, graph)
            name = max(counts, key=lambda name: counts[name])
            raise UnsupportedError(
                f"{name_module(self._full_path(name))} is called {counts[name]} times, other neurons {min(counts.values())}; use "
                "a module for each call, with a state of its own, or let the forward loop over x[t]"
            )

    def _evaluate(self, node: fx.Node, x: Signal) -> Symbol:
        if node.op == "placeholder":
            is_still = self.form == "layers" and self.traced.repeats_input
            return StepInputs(x) if self.form in LOOPS else Still(x) if is_still else x
        if node.op == "output":
            self._output = self._read_output(node.args[0])
            return None
        args, kwargs = self._resolve(node.args), self._resolve(node.kwargs)
        if "repeats" in node.meta:
            return self._repeat(node, args[0])
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            path = self._full_path(str(node.target))
            self._computed.give(module, node, self._symbols, name_module(path))
            return call_module(self.context, module, path, args, kwargs)
        owner = self._full_path(node.meta["owner"])
        if node.op == "get_attr":
            return read_tensor(self.traced, self.context, node, path=self.path, owner=owner, samples=self.counts.samples)
        if node.target is run_stepwise:
            return self._run_stepwise(args[0], args[1])
        if node.target is read_potential:
            potential = Potential(frozenset({args[0].name}), args[0].age)
            return Decoded(potential, "last", "last") if args[1] else potential
        return call_function(self.context, node.target, owner, args, kwargs)

    def _repeat(self, node: fx.Node, value: Symbol) -> Symbol:
        """Return what a forward repeats over time, which is the same in every step."""
        note = "the forward feeds the same input in every step: the network takes it step by step"
        if note not in self.context.builder.notes:
            self.context.builder.notes.append(note)
        signal = value.signal if isinstance(value, Still) else value
        return Merged(signal) if node.meta["layout"].merged else signal

    def _run_stepwise(self, x: Symbol, target: str) -> Symbol:
        """Add the layers of a module that a function runs step by step."""
        path, module = self._full_path(target), self.traced.get_submodule(target)
        signal = require_signal(x, name_module(path), self.traced.framework.hint_state)
        return self.unrolled.make_once(
            (path, "container", signal), lambda key: self.context.interpret(module, key[2], path=path, form="step").output
        )

    def _read_output(self, result: Any) -> Symbol:
        """Return what the forward emits in a step, after a check that all steps emit the same."""
        if self.form == "layers":
            return self._strip_decoding(self._resolve(result))
        if self.form in (*LOOPS, "repeat"):
            return self._read_loop_output(result)
        first, second = shifted_by(self._resolve(result[0]), -1), self._resolve(result[1])
        if isinstance(first, Signal) and isinstance(second, Signal) and self.unrolled.stands_for(second, first):
            return second
        if isinstance(first, (Signal, OutputAndState, Concat, Channels)) and second != first and self.unrolled.first_is_matched:
            raise UnsupportedError(
                f"{name_module(self.path)}: its forward returns {describe(first)}, in the second step {describe(second)}"
            )
        return first

    def _read_loop_output(self, result: Any) -> Symbol:
        """Return what a loop over time emits in every step."""
        returned = self._resolve(result)
        returned = returned.outputs if isinstance(returned, BatchFirst) else returned
        outputs = returned.outputs if isinstance(returned, Decoded) else returned
        steps = self.traced.steps
        if isinstance(outputs, (Signal, Concat, Channels, State, OutputAndState)):
            last = self._read_last_output(outputs)
            self._strip_decoding(returned if isinstance(returned, Decoded) else Decoded(last, "last"))
            return last
        if not (isinstance(outputs, tuple) and len(outputs) == steps):
            raise UnsupportedError(
                f"{name_module(self.path)}: its forward returns {describe(outputs)}, expected the outputs of all steps, such as "
                "torch.stack(outputs); decode after the network"
            )
        outputs = self._read_potentials(outputs)
        self._strip_decoding(returned)
        last = outputs[-1]
        for t, output in enumerate(outputs):
            if not isinstance(output, (Signal, Concat, Channels)) or output != shifted_by(last, steps - 1 - t):
                raise UnsupportedError(
                    f"{name_module(self.path)}: its forward returns {describe(output)} for step {t}, for the last one "
                    f"{describe(last)}"
                )
        return last

    def _read_last_output(self, output: Symbol) -> Symbol:
        """Return what the forward emits in the last step alone, of which the network gives every step."""
        output = output.output if isinstance(output, OutputAndState) else output
        if isinstance(output, State) and len(output.layers) == 1 and not output.age:
            output = self._read_part(output)
        return output

    def _read_potentials(self, outputs: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
        """Return the outputs of all steps; where they are potentials of one layer, in the order of the steps, its outputs."""
        last, count = outputs[-1], len(outputs)
        if not isinstance(last, State) or len(last.layers) != 1 or last.age:
            return outputs
        if outputs != tuple(shifted_by(last, count - 1 - t) for t in range(count)):
            return outputs
        read = self._read_part(last)
        return tuple(shifted_by(read, count - 1 - t) for t in range(count))

    def _read_part(self, state: State) -> Signal:
        """Return the output of the layer of which a part of the state is the output: its potential, or its spikes.

        Raises:
            UnsupportedError: another part, such as the current of its synapses.
        """
        (name,) = state.layers
        if state.part in SPIKES:
            return self.context.builder.outputs[name]
        if state.part not in POTENTIALS:
            module = name_module(self.context.builder.origins[name])
            raise UnsupportedError(
                f"{name_module(self.path)}: its forward returns '{state.part}' of the state of {module}, which is not sent; "
                "return its spikes or its potential"
            )
        return self.context.builder.read_potential(name)

    def _strip_decoding(self, output: Symbol) -> Symbol:
        """Return what the forward averages or sums over time at its end, with a note on what decides for a class.

        Spikes in place of a potential have no largest value of a step: they are counted.
        """
        if not isinstance(output, Decoded):
            return output
        of = "" if output.how == EACH else " of its outputs over time"
        note = f"the forward returns the {output.how}{of}: the network gives the output of every step"
        decision = read_decision(output)
        if decision is None:
            note += f", and {COUNTED_BY_MEAN}"
        elif decision != "mean" and self.context.builder.sends_potential_as_spikes:
            note += f", and {COUNTED_AS_SPIKES}"
        elif decision != "mean":
            note += f", and {word_answer(decision)}"
            self.context.builder.decision = decision
        if note not in self.context.builder.notes:
            self.context.builder.notes.append(note)
        return output.outputs

    def finish(self) -> OutputAndState:
        """Return the output of the forward, and the states that it hands back.

        Raises:
            UnsupportedError: no single output, or an output or state that is kept for later.
        """
        place = name_module(self.path)
        output = join(self.context, self._output, self.path) if isinstance(self._output, (Channels, Concat)) else self._output
        state, others = self._read_states(self.traced.states[0])
        fed_back = self.form == "step" and takes_state(self.traced.model)
        if others and not fed_back and isinstance(output, Signal):
            output = self._choose_output(output, others)
        if (kept := self.find_kept(in_lists=False)) is not None:
            raise make_kept_refusal(kept, self.path)
        if isinstance(output, OutputAndState):
            state = State(output.state.layers | state.layers)
            output = output.output
        if isinstance(output, Merged) and self.form == "layers" and not self.path:
            output = output.signal
        if isinstance(output, Potential) and not output.age and not self.path:
            output = self.context.builder.read_potential(*output.layers)
        if not isinstance(output, Signal) or output.age or output.is_zero:
            raise UnsupportedError(f"{place}: its forward returns {describe(output)}, expected one output, or (output, state)")
        own = self.context.builder.shapes.get(output.name, output.shape)
        if own != output.shape and not self.path:
            left_out = f"the forward leaves an axis of its output out: the network gives {format_shape(own)} values"
            self.context.builder.notes.append(left_out)
        return OutputAndState(output, state)

    def _choose_output(self, output: Signal, others: list[Signal]) -> Signal:
        """Return the last layer of several outputs, which all others feed.

        Raises:
            UnsupportedError: one of them feeds it not.
        """
        candidates = {signal.name: signal for signal in (output, *others) if not signal.age and not signal.is_zero}
        missed: dict[str, list[str]] = {}
        for name in candidates:
            reaching = self._list_sources(name)
            missed[name] = [other for other in candidates if other not in reaching]
        name, left = min(missed.items(), key=lambda item: len(item[1]))
        if left:
            what = describe(next(candidates[other] for other in (*reversed(candidates), name) if other != name and other in left))
            raise UnsupportedError(
                f"{name_module(self.path)}: its forward returns {what} beside its output; return one output, such as both side "
                "by side by torch.cat, or deploy each in a network of its own"
            )
        if len(candidates) > 1:
            self.context.builder.notes.append(f"the forward returns several outputs: that of '{name}' is the network's")
        return candidates[name]

    def _list_sources(self, name: str) -> set[str]:
        """Return a layer and all that feed it, directly or through others."""
        sources: dict[str, list[str]] = {}
        for edge in self.context.builder.edges:
            sources.setdefault(edge.target, []).append(edge.source)
        reached, waiting = {name}, [name]
        while waiting:
            new = [source for source in sources.get(waiting.pop(), []) if source not in reached]
            reached.update(new)
            waiting += new
        return reached

    def find_kept(self, *, in_lists: bool) -> Signal | None:
        """Return a signal of the first step that is kept after the second, whose use in the third was not traced; or None.

        Args:
            in_lists: look in lists of outputs alone, which are a log unless a later step takes something of them; else in all
                other places.
        """
        if self.form != "step":
            return None
        logs = [part for part in self.traced.list_attributes() if is_log(part)]
        others = [part for part in self.traced.list_attributes() if not is_log(part)]
        nodes = [node for part in (logs if in_lists else [*self.traced.states[1:], *others]) for node in list_nodes(part)]
        symbols = [shifted_by(self._symbols[node], 1 - self._steps[node]) for node in nodes]
        return next((signal for symbol in symbols for signal in list_signals(symbol) if signal.age), None)

    def _full_path(self, target: str) -> str:
        """Return the path in the whole model of a path in the trace."""
        return join_paths(self.path, target)

    def _resolve(self, arg: Any) -> Symbol:
        """Replace nodes by their symbols, as seen in the present step."""
        if isinstance(arg, fx.Node):
            age = 0 if arg in self._constant else max(self.unrolled.step - self._steps[arg], 0)
            return shifted_by(self._symbols[arg], age)
        if isinstance(arg, (TracedSize, TracedRatio)):
            return AxisSize(arg.axis, arg.power)
        if isinstance(arg, (tuple, list)):
            return tuple(self._resolve(a) for a in arg)
        if isinstance(arg, dict):
            return {key: self._resolve(a) for key, a in arg.items()}
        return arg

    def _read_states(self, result: Any) -> tuple[State, list[Signal]]:
        """Return the states and the signals in what a forward returned beside its output."""
        if isinstance(result, fx.Proxy):
            result = self._symbols[result.node]
            result = result.state if isinstance(result, OutputAndState) else result
        if isinstance(result, State):
            return result, []
        if isinstance(result, (Signal, Concat)):
            return State(), list_signals(result)
        if isinstance(result, (BatchFirst, Decoded)):
            return self._read_states(result.outputs)
        held = list(result.values()) if isinstance(result, dict) else result if isinstance(result, (tuple, list)) else []
        parts = [self._read_states(part) for part in held]
        layers: frozenset[str] = frozenset().union(*(state.layers for state, _ in parts))
        return State(layers), [signal for _, signals in parts for signal in signals]
