"""Conventions of a framework, and the context of one traced call.

A framework is one `Framework` object, made in one file (`frameworks/norse.py` for Norse). Tracing, functions and torch's own
modules are the same for all frameworks and know only this object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch

from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.symbols import OutputAndState, Signal, Symbol
from spear_deploy.frameworks.importer.unrolling import UnrolledSteps
from spear_deploy.network import Synapse

Form: TypeAlias = Literal["step", "layers", "loop"]
"""How a forward deals with time (see `trace`)."""
ModuleTypes: TypeAlias = tuple[type[torch.nn.Module], ...]


@dataclass(frozen=True, kw_only=True)
class Framework:
    """The modules of a framework, by what they mean for time, state and neurons.

    Attributes:
        name: for the metadata of the network.
        package: dotted name that its modules' packages start with; they are never traced into, `containers` excepted.
        containers: modules that only call other modules: traced through.
        stepped: modules that compute one step and have a state.
        over_time: modules whose first axis is time.
        lifts: modules over time that run an inner model step by step.
        synapses: stateless modules beside torch's own: class → f(module, place, axes_before) → synapse.
        handlers: modules with their own rule: class → f(context, module, path, input, further arguments) → result.
        add_neurons: f(context, module, path, input) adds the layers of any other module with a state.
        example: a spiking neuron to name in errors.
        reasons: why a class is refused and what to use instead, by the beginnings of class names (see `explain_refusal`).
        supported: list of what is supported, for errors.
    """

    name: str
    package: str
    containers: ModuleTypes = ()
    stepped: ModuleTypes
    over_time: ModuleTypes
    lifts: ModuleTypes = ()
    synapses: Mapping[Any, Callable[[Any, str, int], Synapse]] = field(default_factory=dict)
    handlers: Mapping[Any, Callable[[TraceContext, Any, str, Symbol, tuple[Symbol, ...]], Symbol]] = field(default_factory=dict)
    add_neurons: Callable[[TraceContext, Any, str, Signal], OutputAndState]
    example: str
    reasons: Mapping[str, str]
    supported: str


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
