"""A model's first steps, traced by torch.fx down to known modules.

One step shows which call feeds which. The second, which starts from the states that the first returns, shows whether every
neuron gets its state back: a model that drops a state runs, but its neurons start anew in every step. A forward takes one of
these forms:

    step        forward(x: (B, *shape), state=None) -> (output, state)  cells; traced twice
    layers      forward(x: (T, B, *shape)) -> output                    layers over time; traced once
    loop        the same, with cells, and a loop over x by hand         traced once, on LOOP_STEPS steps or as many as it takes
    batch_loop  forward(x: (B, T, *shape)) -> output                    the same, over x[:, t] or after a transpose
    repeat      forward(x: (B, *shape)) -> outputs of all steps         a loop that feeds the same x in every step; traced once
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError, summarize_error
from spear_deploy.frameworks.importer.call_settings import read_generators
from spear_deploy.frameworks.importer.context import Form, Framework, run_stepwise
from spear_deploy.frameworks.importer.forward_code import copy_model, count_steps, list_arguments, takes_state
from spear_deploy.frameworks.importer.in_place import find_change
from spear_deploy.frameworks.importer.repetition import detach_repetitions
from spear_deploy.frameworks.importer.step_layout import (
    LayoutError,
    StepCountError,
    expand_steps,
)
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.synapses import make_refusal
from spear_deploy.frameworks.importer.traced_model import (
    LOOPS,
    TracedModel,
    UnclearForward,
    UnclearForwardError,
    collect_sums,
    count_calls,
    list_nodes,
)
from spear_deploy.frameworks.importer.traced_value import LoopsOverTime
from spear_deploy.frameworks.importer.tracer import COUNTS, Counts, Tracer
from spear_deploy.frameworks.importer.type_checks import answering_type_checks
from spear_deploy.frameworks.importer.zero_states import make_zeros_constant
from spear_deploy.network import Shape
from spear_deploy.util.number_format import format_shape

OTHERWISE_IN_TRAINING = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._BatchNorm)


class RandomForwardError(UnsupportedError):
    """A forward that draws random numbers."""


def detect_form(model: torch.nn.Module, shape: Shape, framework: Framework) -> Form:
    """Return how a model's forward deals with time; modules within a lift run step by step.

    Copies of the model are traced, since a forward may keep symbols of the trace.

    Raises:
        UnsupportedError: modules of one step and over time beside each other.
    """
    if _runs_over_time(model, framework) or _fills_batch(model, shape, framework):
        return "layers"
    try:
        traced, graph = trace(copy_model(model), shape, path="", form="step", framework=framework)
    except LoopsOverTime:
        return _find_loop(model, shape, framework) or _find_repeat(model, shape, framework) or "loop"
    except UnsupportedError as error:
        if (form := _find_repeat(model, shape, framework)) is not None:
            return form
        is_unclear = isinstance(error, UnclearForwardError) and framework.loops_inside
        is_unclear = is_unclear and not _resets_each_step(model, shape, framework)
        return _find_loop(model, shape, framework, is_expected=not is_unclear) or ("repeat" if is_unclear else "step")
    if any(node.target is run_stepwise for node in graph.nodes):
        return "layers"
    if traced.takes_columns and (form := _find_loop(model, shape, framework)) is not None:
        return form
    if max(count_calls(traced, graph).values(), default=0) <= 2:  # both steps of a forward of one step call a module
        return "step"
    form = _find_loop(model, shape, framework) or _find_repeat(model, shape, framework)
    loops_inside = framework.loops_inside or not takes_state(model)  # one that gets a state computes one step of an outer loop
    return form or ("repeat" if loops_inside else "step")


def _fills_batch(model: torch.nn.Module, shape: Shape, framework: Framework) -> bool:
    """Return whether a forward over time puts time into the batch for neurons that take it there."""
    if not any(framework.takes_merged(module) for module in model.modules()):
        return False
    try:
        return trace(copy_model(model), shape, path="", form="layers", framework=framework)[0].fills_batch
    except UnsupportedError:
        return False


def _find_repeat(model: torch.nn.Module, shape: Shape, framework: Framework) -> Form | None:
    """Return the form of a forward that repeats its input over time by itself, None where it does not.

    Raises:
        RandomForwardError: it draws random numbers.
        StepCountError: it repeats its input over another number of steps than it takes.
    """
    try:
        traced, _ = trace(copy_model(model), shape, path="", form="repeat", framework=framework)
    except (StepCountError, RandomForwardError):
        raise
    except (LoopsOverTime, UnsupportedError):
        return None
    return "repeat" if traced.repeats_input else None


def _resets_each_step(model: torch.nn.Module, shape: Shape, framework: Framework) -> bool:
    """Return whether a forward runs its neurons once, and resets them: it has no steps that it repeats."""
    try:
        traced, _ = trace(copy_model(model), shape, path="", form="repeat", framework=framework)
    except (LoopsOverTime, UnsupportedError):
        return False
    return traced.resets and traced.steps == 1


def _find_loop(model: torch.nn.Module, shape: Shape, framework: Framework, *, is_expected: bool = False) -> Form | None:
    """Return the form of a forward that takes its input step by step, None where it does not.

    Raises:
        RandomForwardError: it draws random numbers.
        LayoutError: where a loop is expected, time and batch of the first form that merges them have no counterpart.
    """
    forms: tuple[Form, ...] = ("loop", "batch_loop")
    refusal: LayoutError | None = None
    for form in forms:
        try:
            traced, graph = trace(copy_model(model), shape, path="", form=form, framework=framework)
        except LayoutError as error:
            refusal = refusal or error
            continue
        except RandomForwardError:
            raise
        except UnsupportedError:
            continue
        if traced.taken and max(count_calls(traced, graph).values(), default=2) > 1:  # each step calls its neurons
            return form
    if refusal is not None and is_expected:
        raise refusal
    return None


def _runs_over_time(model: torch.nn.Module, framework: Framework) -> bool:
    first: dict[bool, str] = {}

    def search(module: torch.nn.Module, path: str) -> None:
        if framework.has_state(module) and not framework.takes_merged(module):  # which run over time beside others that do
            first.setdefault(framework.is_over_time(module), f"'{path}' ({type(module).__name__})")
        if not isinstance(module, framework.lifts):
            for name, child in module.named_children():
                search(child, f"{path}.{name}" if path else name)

    search(model, "")
    if len(first) == 2:
        raise UnsupportedError(f"module {first[True]} runs over time, module {first[False]} one step; {framework.hint_time}")
    return True in first


# ------------------------------------------------------------------------------------------------------------- tracing


def trace(
    model: torch.nn.Module,
    shape: Shape,
    *,
    path: str,
    form: Form,
    framework: Framework,
    output_index: int | None = None,
    counts: Counts = COUNTS,
    later_steps: int | None = None,
) -> tuple[TracedModel, fx.Graph]:
    """Trace a model; one of layers over time that repeats its input by itself is traced on an input without time.

    Args:
        model: the model.
        shape: of its input, without time and batch.
        path: its place, for errors.
        form: how it deals with time.
        framework: the conventions of its modules.
        output_index: which of a list of outputs counts.
        counts: samples and further steps of the input.
        later_steps: how many of a forward of one step to trace beyond its first two; with 0 it is found whether they matter.

    Raises:
        UnsupportedError: the forward does with symbols what only numbers can do.
        LoopsOverTime: a forward of one step indexes its first axis.
    """
    run = partial(_trace, shape=shape, path=path, form=form, framework=framework, output_index=output_index, counts=counts)
    run = partial(run, later_steps=later_steps)
    if form == "layers" and not path:
        try:
            traced, graph = run(copy_model(model), is_image=True)
        except (UnsupportedError, RuntimeError, AttributeError, TypeError):  # the last three: a model that does not copy
            return run(model)
        if traced.repeats_input:
            return traced, graph
    return run(model)


def _trace(
    model: torch.nn.Module,
    *,
    shape: Shape,
    path: str,
    form: Form,
    framework: Framework,
    output_index: int | None,
    counts: Counts,
    later_steps: int | None,
    is_image: bool = False,
) -> tuple[TracedModel, fx.Graph]:
    """Trace a model; see `trace`. With `is_image` its input has no axis of time."""
    traced = TracedModel(model, form, framework, output_index, later_steps)
    tracer = Tracer(form, shape, framework, counts, is_image=is_image)
    steps = traced.steps if form == "step" or form == "layers" else count_steps(model)
    tracer.steps = traced.steps = steps + (counts.further_steps if form in LOOPS else 0)
    kept = {key: value.clone() for key, value in _list_tensors(model, tracer)}
    needed = [argument.name for argument in list_arguments(model) if argument.default is argument.empty]
    try:
        generators = read_generators()
        watching = framework.watching_resets(tracer.settings.note_reset)
        watching_potentials = framework.watching_potentials(tracer.read_potential)
        tracer.note_start(model)
        with framework.tracing(), watching, watching_potentials, answering_type_checks(model), tracer.states, tracer.buffers:
            graph = tracer.trace(traced)
        tracer.check_end(traced, graph)
        if read_generators() != generators:
            raise RandomForwardError(
                f"{name_module(path)}: its forward draws random numbers, which are others in each run; encode the data before "
                "the network, as --encoding bernoulli does"
            )
        traced.taken, traced.takes_columns, traced.reads_sizes = tracer.taken, tracer.takes_columns, tracer.reads_sizes
        traced.repeats_input, traced.fills_batch = tracer.repeats_input, tracer.fills_batch
        traced.resets = tracer.settings.resets
        if form in LOOPS and traced.taken:
            traced.steps, traced.leaves_out_last = len(traced.taken), len(traced.taken) < tracer.steps
            if traced.steps < 2 or traced.taken != set(range(traced.steps)):
                raise UnclearForward(f"it takes the steps {sorted(traced.taken)} of x, expected x[t] of every step in turn")
    except (LoopsOverTime, UnsupportedError):
        raise
    except UnclearForward as error:
        raise UnclearForwardError(f"{name_module(path)}: {error}") from None
    except Exception as error:  # a user's forward may raise anything when it meets a symbol
        _check_called(tracer, path)
        raise UnsupportedError(f"{name_module(path)}: {_explain_failure(error, shape, form, needed, framework)}") from error
    _check_tensors(model, tracer, kept, path)
    _check_evaluation(model, path)
    held = {node for part in (*traced.states, *traced.list_attributes()) for node in list_nodes(part)}
    traced.change = find_change(traced, graph, held, framework.has_state)
    if form != "layers":
        make_zeros_constant(traced, graph, tracer.run_example, held)
    if form == "repeat":
        traced.steps = max(count_calls(traced, graph).values(), default=1)
    detach_repetitions(graph)
    if form in (*LOOPS, "repeat"):
        expand_steps(traced, graph, counts.samples)
        collect_sums(traced, graph)
    return traced, graph


def _explain_failure(error: Exception, shape: Shape, form: Form, needed: list[str], framework: Framework) -> str:
    """Return why a forward cannot be traced, and what to do.

    Args:
        error: of the trace.
        shape: of the input, without time and batch.
        form: how the forward was taken to deal with time.
        needed: its arguments without default.
        framework: the conventions of its modules.
    """
    text, sizes = str(error), format_shape(shape)
    if len(needed) > 1 and form != "step" and "NoneType" in text:
        return (
            f"its forward takes {len(needed)} inputs ({', '.join(needed)}), a network here has one; put them side by side as "
            "channels of one input, or deploy the part behind each input by itself"
        )
    if "cannot be iterated" in text:
        return (
            "its forward goes through what a module returns by a star, list() or a loop, which cannot be traced; give each value "
            "a name, as in `spikes, state = cell(x, state)`, or take parts by name, as in record['vmem']"
        )
    if text.startswith(("float() argument", "int() argument")):
        return (
            f"its forward makes a number of a tensor by {text[: text.index(' ')]}, which a trace does not know; take .item() for "
            "a log, and compute with the tensor itself"
        )
    if "item assignment" in text or ("cannot assign" in text and "as parameter" in text):
        return (
            "its forward sets a parameter, or a part of a tensor that it computes, which cannot be traced; set it where the "
            "model is made, compute with it, as in functional.linear(x, weight * mask), or append outputs to a list and stack it"
        )
    if isinstance(error, IndexError) and "tuple index" in text:
        return (
            f"its forward reads an axis that its input has not; an input is time x batch x {sizes}, or batch x time x {sizes}; "
            "let the loop take x[t] or x[:, t], and put the time of the data in front"
        )
    if "cannot be interpreted as an integer" in text or text.startswith(("zeros() ", "empty() ", "ones() ")):
        return (
            "its forward counts with the size of a tensor whose shape is not known in a trace; take the size of the input, in "
            "front of other calls"
        )
    export = f", or export it: {framework.hint_export}" if framework.hint_export else ""
    return (
        f"its forward cannot be traced ({summarize_error(error)}); write it for one step, forward(x, state=None) -> (output, "
        f"state), or as a loop over x[t], without branches on values{export}"
    )


def _check_called(tracer: Tracer, path: str) -> None:
    """Refuse a module of the framework by name, where a trace that failed has called one that has no counterpart.

    Raises:
        UnsupportedError: it has called one, such as an encoder, whose result has another shape than the forward counts with.
    """
    for node in tracer.graph.nodes:
        module = tracer.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is not None and tracer.framework.is_own(module) and type(module).__name__.startswith(tracer.framework.refused):
            place = ".".join(part for part in (path, str(node.target).removeprefix("model").strip(".")) if part)
            raise make_refusal(module, name_module(place), tracer.framework)


def _list_tensors(model: torch.nn.Module, tracer: Tracer) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
    """Return the buffers and further tensors of the modules that a trace goes through, which a forward may change."""
    for path, module in torch.nn.Module.named_modules(model):
        if tracer.is_leaf_module(module, path) and module is not model:
            continue
        for name, value in (*module._buffers.items(), *vars(module).items()):
            if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
                yield (path, name), value.detach()


def _check_evaluation(model: torch.nn.Module, path: str) -> None:
    """Check that a forward has put no module into training, which computes otherwise there.

    Raises:
        UnsupportedError: it has.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, OTHERWISE_IN_TRAINING):
            place = name_module(".".join(part for part in (path, name) if part))
            raise UnsupportedError(f"{place} is in training mode, which the forward sets; leave `train()` out of the forward")


def _check_tensors(model: torch.nn.Module, tracer: Tracer, kept: dict[tuple[str, str], torch.Tensor], place: str) -> None:
    """Refuse a forward that changes a tensor of its modules, which it would read in the next step.

    Raises:
        UnsupportedError: it changes one.
    """
    for key, value in _list_tensors(model, tracer):
        if key in kept and not torch.equal(kept[key], value):
            path = ".".join(part for part in (place, key[0]) if part)
            raise UnsupportedError(
                f"{name_module(path)}: its forward changes the tensor '{key[1]}', a state that no neuron here has; use "
                f"{tracer.framework.example}, or feed an output of the step before back"
            )
