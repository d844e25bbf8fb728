"""Conventions of a framework, and the context of one traced call.

A framework is one `Framework` object, made in one file (`frameworks/norse.py` for Norse). Tracing, functions and torch's own
modules are the same for all frameworks and know only this object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch

from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.symbols import OutputAndState, Signal, Symbol
from spear_deploy.frameworks.importer.unrolling import UnrolledSteps
from spear_deploy.network import Shape, Synapse

Form: TypeAlias = Literal["step", "layers", "loop", "batch_loop", "repeat"]
"""How a forward deals with time (see `trace`)."""
ModuleTypes: TypeAlias = tuple[type[torch.nn.Module], ...]


@dataclass(frozen=True, kw_only=True)
class NeuronUpdate:
    """Parameters for a neuron module.

    Attributes:
        neuron: the neuron that it is to compute.
        changed: names of the neuron's fields that are others than the module's.
        dt_s: the time step in s.
        shape: of the neurons, without batch.
    """

    neuron: Any
    changed: frozenset[str]
    dt_s: float
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Framework:
    """The modules of a framework, by what they mean for time, state and neurons.

    Attributes:
        name: for the metadata of the network.
        title: as the framework writes itself, for errors.
        packages: beginnings of the dotted names of its modules' packages; they are never traced into, `containers` excepted.
        dt_s: time step in s where its modules state none.
        time_axis: of a module over time, 0 or 1.
        containers: modules that only call other modules: traced through.
        stepped: modules with a state that compute one step, unless `runs_over_time` says otherwise.
        over_time: modules that compute all steps.
        runs_over_time: whether a module of `stepped` computes all steps at once.
        lifts: modules over time that run an inner model step by step.
        plain: its classes derived from torch's modules without state that compute the same.
        merges_time: whether a module without state puts time into the batch itself.
        takes_merged: whether a module of `stepped` takes all steps at once, with time within the batch.
        folded: modules that change nothing in evaluation.
        keeps_state: whether its modules keep their state themselves, so that a forward need not hand it on.
        list_held: f(module) returns what a module keeps of its state between runs, which the next one goes on from.
        list_set: f(module) returns what it keeps that a forward may set or read, which nothing else watches.
        hands_state: whether a module with a state returns it beside its output.
        count_results: how many values a module returns that hands its state back, 0 of any other.
        loops_inside: whether a forward may call a module once for every step on the same input.
        synapses: stateless modules beside torch's own: class → f(module, place, axes_before) → synapse.
        handlers: modules with their own rule: class → f(context, module, path, input, further arguments) → result.
        add_neurons: f(context, module, path, input) adds the layers of any other module with a state; it returns the output, and
            the state where the module hands that back.
        store_synapse: f(module, synapse) stores weights in a module of its own; it returns whether the module is one.
        store_recurrent: f(module, (what, synapse)) stores weights of a neuron module, "recurrent" or "input".
        neurons: classes of modules that hold a neuron's parameters.
        store_neuron: f(module, update) stores parameters in one of `neurons`, and clears its state.
        clear: f(module) clears what a module with a state keeps of it.
        list_sizes: f(module) returns the numbers of steps and samples that a module is made for, 0 or less where it takes any.
        stores_max_spikes: whether that includes how many spikes a neuron sends in a step.
        prepare: gives a model torch's interface, where its modules have another.
        finish_copy: lets the modules of a copy of a model run themselves, where they still run those of the model.
        tracing: surrounds a trace, in which functions of the framework that run modules step by step are `run_stepwise`.
        watching_resets: surrounds a trace too, in which it calls f(concerns) where modules that it concerns reset their states,
            with is_own=False where the forward sets them to other values than their own.
        watching_potentials: surrounds a trace too, in which f(module, whether of the last step alone) gives the symbol of a
            potential that the forward reads of a module, None where it was not called before.
        example: a spiking neuron to name in errors.
        reasons: why a class is refused and what to use instead, by the beginnings of class names (see `explain_refusal`).
        supported: list of what is supported, for errors.
        hint_time: what to use in place of a module over time in a forward of one step, or the other way round.
        hint_batch: how a module without state takes time beside the batch.
        hint_state: how a module gets the output alone of the one before it.
        hint_kept: what a forward does in place of taking a state that its modules keep.
        hint_export: how to export what cannot be traced.
        hint_reset: how to clear what all modules keep of a run.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    dt_s: float = 1e-3
    time_axis: int = 0
    containers: ModuleTypes = ()
    stepped: ModuleTypes
    over_time: ModuleTypes = ()
    runs_over_time: Callable[[Any], bool] = lambda module: False
    lifts: ModuleTypes = ()
    plain: ModuleTypes = ()
    merges_time: Callable[[Any], bool] = lambda module: False
    takes_merged: Callable[[Any], bool] = lambda module: False
    folded: ModuleTypes = ()
    keeps_state: bool = False
    list_held: Callable[[Any], tuple[Any, ...]] = lambda module: ()
    list_set: Callable[[Any], tuple[Any, ...]] = lambda module: ()
    hands_state: Callable[[Any], bool] = lambda module: True
    count_results: Callable[[Any], int] = lambda module: 0
    loops_inside: bool = False
    synapses: Mapping[Any, Callable[[Any, str, int], Synapse]] = field(default_factory=dict)
    handlers: Mapping[Any, Callable[[TraceContext, Any, str, Symbol, tuple[Symbol, ...]], Symbol]] = field(default_factory=dict)
    add_neurons: Callable[[TraceContext, Any, str, Signal], OutputAndState | Signal]
    store_synapse: Callable[[Any, Any], bool] = lambda module, synapse: False
    store_recurrent: Callable[[Any, tuple[str, Any]], None] = lambda module, part: None
    neurons: ModuleTypes
    store_neuron: Callable[[Any, NeuronUpdate], None]
    stores_max_spikes: bool = False
    clear: Callable[[Any], None] = lambda module: None
    list_sizes: Callable[[Any], tuple[int, ...]] = lambda module: ()
    prepare: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model
    finish_copy: Callable[[torch.nn.Module], None] = lambda model: None
    tracing: Callable[[], AbstractContextManager[None]] = nullcontext
    watching_resets: Callable[[Callable[..., None]], AbstractContextManager[None]] = lambda note_reset: nullcontext()
    watching_potentials: Callable[[Callable[[Any, bool], Any]], AbstractContextManager[None]] = lambda read: nullcontext()
    example: str
    reasons: Mapping[str, str]
    supported: str
    hint_time: str
    hint_batch: str
    hint_state: str
    hint_kept: str = ""
    hint_export: str = ""
    hint_reset: str = ""

    @property
    def refused(self) -> tuple[str, ...]:
        """Beginnings of the names of classes that are refused."""
        return tuple(start for starts in self.reasons for start in starts.split())

    def is_over_time(self, module: Any) -> bool:
        """Return whether a module with a state computes all steps at once."""
        return isinstance(module, self.over_time) or (self._is_cell(module) and self.runs_over_time(module))

    def is_stepped(self, module: Any) -> bool:
        """Return whether a module with a state computes one step."""
        return self._is_cell(module) and not self.is_over_time(module)

    def has_state(self, module: Any) -> bool:
        """Return whether a module has a state."""
        return isinstance(module, self.over_time) or self._is_cell(module)

    def is_own(self, module: Any) -> bool:
        """Return whether the framework defines the class of a module."""
        return type(module).__module__.startswith(self.packages)

    def _is_cell(self, module: Any) -> bool:
        return isinstance(module, self.stepped) and not isinstance(module, self.folded)


def run_stepwise(x: Any, path: str) -> Any:
    """Stand in a trace for a function that runs the module at a path step by step, or on time within the batch."""
    raise NotImplementedError("it is traced, not called")


def read_potential(output: Any, is_last: bool) -> Any:
    """Stand in a trace for the potential of the neurons that gave an output: of the step, or of the last of all steps alone."""
    raise NotImplementedError("it is traced, not called")


class Interpret(Protocol):
    """Traces an inner model on an input and adds its layers; see `interpreter.interpret`."""

    def __call__(
        self, model: torch.nn.Module, x: Signal, *, path: str, form: Form, output_index: int | None = None
    ) -> OutputAndState:
        """Return the output and the states that the model hands back."""
        ...


@dataclass(frozen=True, kw_only=True)
class TraceContext:
    """All that turns a call into layers.

    Attributes:
        builder: takes the layers.
        unrolled: the calls of the forward, step by step.
        form: how the forward deals with time.
        framework: the conventions of its modules.
        interpret: traces an inner model in the same network.
    """

    builder: GraphBuilder
    unrolled: UnrolledSteps
    form: Form
    framework: Framework
    interpret: Interpret

    @property
    def axes_before(self) -> int:
        """Axes in front of a neuron's: batch, and time where there is one."""
        return 2 if self.form == "layers" else 1
