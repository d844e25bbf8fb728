"""Networks from models of torch frameworks.

A model is copied, traced and read on as few steps as tell all (`interpreter`); where its forward reads sizes of its input, the
network must not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from spear_deploy.errors import UnsupportedError, summarize_error
from spear_deploy.frameworks.importer.builder import GraphBuilder, OnlyZerosError
from spear_deploy.frameworks.importer.context import Form, Framework
from spear_deploy.frameworks.importer.forward_code import (
    LOOP_STEPS,
    MAX_COMPARED,
    copy_model,
    list_numbers,
    list_unused_arguments,
)
from spear_deploy.frameworks.importer.interpreter import interpret
from spear_deploy.frameworks.importer.own_run import HALF_TYPES, list_tensors
from spear_deploy.frameworks.importer.run_comparison import compare_with_run
from spear_deploy.frameworks.importer.symbols import Signal
from spear_deploy.frameworks.importer.trace import detect_form
from spear_deploy.frameworks.importer.traced_model import ENDS, LOOPS
from spear_deploy.frameworks.importer.tracer import COUNTS, Counts
from spear_deploy.frameworks.importer.unrolling import LateDifferenceError
from spear_deploy.network import Shape
from spear_deploy.network.classes import DECISION
from spear_deploy.network.delayed_reset import delay_resets
from spear_deploy.network.fixed_weights import FIXED_WEIGHTS, pass_on_fixed
from spear_deploy.network.graph import INPUT, SNNGraph, find_heirs, merge_parts

FURTHER_STEPS = (8, 40)
"""Steps beyond the usual ones on which a loop is traced whose steps differ up to the last one."""
LONGER = (30, 20, 12, 8, 6, 4, 3, 2)
"""Further steps of a second trace of a loop, in which a later step may compute something else: fewer where it ends before."""


def import_model(model: torch.nn.Module, input_shape: Shape, *, framework: Framework, dt_s: float | None = None) -> SNNGraph:
    """Return the network of a model.

    Args:
        model: of one step or over time; it is copied and read in evaluation mode.
        input_shape: without time and batch.
        framework: the conventions of its modules.
        dt_s: checked against the time step of the cells, in s.

    Raises:
        UnsupportedError: a module, function or use of a state without an exact counterpart, with its place.
        GraphError: shapes that do not meet.
    """
    graph, builder = trace_layers(framework.prepare(model), input_shape, framework=framework, dt_s=dt_s)
    if failure := compare_with_run(model, graph, builder, input_shape, framework):
        graph = add_assumption(graph, f"the model was not run beside the network: {failure}")
    return pass_on_fixed(merge_parts(graph), find_heirs(graph))


def trace_layers(
    model: torch.nn.Module, input_shape: Shape, *, framework: Framework, dt_s: float | None = None
) -> tuple[SNNGraph, GraphBuilder]:
    """Return the network of a model with a layer for each of its modules, and the builder, which knows the module of each layer.

    Arguments and errors are those of `import_model`, which merges the layers.
    """
    untraced = _copy(model)
    form = detect_form(untraced, input_shape, framework)  # which copies what it traces
    build = partial(_build, input_shape=input_shape, form=form, framework=framework, dt_s=dt_s)
    counts = COUNTS
    try:
        graph, builder = build(untraced, counts=counts)
    except (LateDifferenceError, OnlyZerosError) as error:  # such as a longer delay, which begins in a later step
        counts, graph, builder = _build_from_more_steps(model, build, error, form)
    if builder.reads_sizes or form in LOOPS:  # numbers of the forward may come from its input, and steps may differ
        _check_independence(graph, _build_anew(model, build, counts, _list_further_steps(model) if form in LOOPS else ()))
    return graph, builder


def add_assumption(graph: SNNGraph, note: str) -> SNNGraph:
    """Return a network with a further note on what was assumed of the model."""
    return replace(graph, metadata={**graph.metadata, "assumptions": [*graph.metadata.get("assumptions", []), note]})


def _list_further_steps(model: torch.nn.Module) -> list[int]:
    """Return numbers of further steps for a second trace: beyond each number that the forward names, and fewer."""
    named = max((number for number in list_numbers(model) if number <= MAX_COMPARED), default=0)
    return sorted({*LONGER, max(named + 2 - LOOP_STEPS, LONGER[0])}, reverse=True)


def _build_anew(
    model: torch.nn.Module, build: Callable[..., tuple[SNNGraph, GraphBuilder]], counts: Counts, longer: list[int] | tuple[()]
) -> SNNGraph:  # fmt: skip
    """Return the network of more samples and steps; of as many more as `longer` says, where the forward has values for them.

    Raises:
        UnsupportedError: a later step computes something else.
    """
    for further in longer:
        try:
            return build(_copy(model), counts=Counts(samples=counts.samples + 1, further_steps=counts.further_steps + further))[0]
        except UnsupportedError as error:
            if not isinstance(error.__cause__, ENDS):
                raise
    return build(_copy(model), counts=Counts(samples=counts.samples + 1, further_steps=counts.further_steps + 1))[0]


def _build_from_more_steps(
    model: torch.nn.Module, build: Callable[..., tuple[SNNGraph, GraphBuilder]], refusal: UnsupportedError, form: Form
) -> tuple[Counts, SNNGraph, GraphBuilder]:
    """Return the first network that a trace of more steps gives, with the counts of the trace; else raise the first refusal."""
    for further in FURTHER_STEPS if form in LOOPS else ():
        counts = replace(COUNTS, further_steps=further)
        try:
            return counts, *build(_copy(model), counts=counts)
        except UnsupportedError:
            continue
    raise refusal


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy_model(model).eval()
    except (RuntimeError, AttributeError, TypeError) as error:  # a tensor within a gradient, or a module that does not copy
        message = summarize_error(error)
        raise UnsupportedError(f"the model cannot be copied: {message}; build it anew and load its weights") from error


def _build(
    model: torch.nn.Module, *, input_shape: Shape, form: Form, framework: Framework, dt_s: float | None, counts: Counts
) -> tuple[SNNGraph, GraphBuilder]:
    """Return the network of a model, read on an input of these counts."""
    builder = GraphBuilder(default_dt_s=framework.dt_s if dt_s is None else dt_s, form=form)
    if form == "repeat":
        builder.notes.append("the forward feeds the same input in every step: the network takes it step by step")
    builder.notes += [
        f"the forward never uses its argument '{name}': the network has one input" for name in list_unused_arguments(model)
    ]
    builder.notes += _list_half_types(model)
    _note_held_states(builder, model, framework)
    x = Signal(INPUT, input_shape)
    output = interpret(model, x, path="", form=form, builder=builder, framework=framework, counts=counts).output
    if output.name == INPUT:
        raise UnsupportedError("the model hands its input back; expected at least one layer")
    step_s = builder.check_time_step(dt_s)
    graph = SNNGraph(
        layers=tuple(builder.list_layers(step_s)),
        edges=tuple(builder.list_edges()),
        input_shape=builder.input_view or input_shape,
        dt_s=step_s,
        output=output.name,
        metadata={
            "source": framework.name,
            **({"assumptions": notes} if (notes := builder.list_notes()) else {}),
            **({FIXED_WEIGHTS: builder.fixed} if builder.fixed else {}),
            **({DECISION: builder.decision} if builder.decision != "mean" else {}),
            **({"forward_input_shape": list(input_shape)} if builder.input_view else {}),
        },
    )
    return delay_resets(graph, builder.late_resets), builder


def _list_half_types(model: torch.nn.Module) -> list[str]:
    """Return a note where a model has parameters in half precision, in which its framework adds and compares."""
    types = sorted({str(value.dtype).removeprefix("torch.") for value in list_tensors(model) if value.dtype in HALF_TYPES})
    return [
        f"the model computes in {name}, the network in float32: spikes differ where {name} rounds a membrane to the other side "
        "of its threshold; compare with the model after .float()"
        for name in types
    ]


def _note_held_states(builder: GraphBuilder, model: torch.nn.Module, framework: Framework) -> None:
    """Note modules that keep a state of an earlier run, from which their framework would go on."""
    for path, module in model.named_modules():
        if any(isinstance(value, torch.Tensor) and bool(value.detach().any()) for value in framework.list_held(module)):
            text = f"holds a state of an earlier run: the network starts without, as after {framework.hint_reset}"
            builder.note_module(path, text)


def _check_independence(graph: SNNGraph, other: SNNGraph) -> None:
    """Refuse a network that another number of samples or steps changes.

    Raises:
        UnsupportedError: a layer or an edge differs.
    """
    pairs = zip(graph.layers, other.layers, strict=False)
    differs = next((mine.name for mine, theirs in pairs if mine != theirs), None)
    if differs is None and (len(graph.layers) != len(other.layers) or graph.edges != other.edges):
        differs = graph.layers[-1].name
    if differs is not None:
        raise UnsupportedError(
            f"the forward calculates in '{differs}' with the number of steps or samples of its input, which differs between "
            "data; calculate with a constant, or behind the network"
        )
