"""Classes: what the outputs of all steps, or the host, decide for.

A network gives an output in every step. The class with the largest mean over the steps is the answer, unless the metadata name
another decision (`metadata["decision"]`, from the model's forward): the largest maximum, the largest value of the last step, or
an answer in each step, by the values of that step.

A spiking output counts at most one spike a step, so that few steps leave few counts, and classes tie. A network that was adapted
to such a chip may have several output neurons a class, which the host adds up: `metadata["outputs_per_class"]`. Those of class c
are the outputs c · n to c · n + n − 1. Or the host integrates the outputs, and its readout has the classes (`host_readout`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout, list_host_layers, read_host_readout
from spear_deploy.network.neurons import CubaLI
from spear_deploy.util.number_format import plural

OUTPUTS_PER_CLASS = "outputs_per_class"
"""Key of the metadata."""
Decision: TypeAlias = Literal["mean", "maximum", "last", "each"]
"""What decides of the outputs of all steps."""
DECISION = "decision"
"""Key of the metadata where it is not the mean."""
DECISION_WORDS: dict[Decision, str] = {
    "mean": "mean over the steps", "maximum": "value of any one step", "last": "value of the last step",
    "each": "value",
}  # fmt: skip
COUNTED_BY_MEAN = "accuracy is counted by their mean, which may choose another class"
"""In the assumption of a network whose model decides by something that none of the decisions is."""
COUNTED_AS_SPIKES = "its class is the one that spikes most over all of them, since spikes stand for its potential"
"""In the assumption of a network whose model decides by the largest potential of a step."""


def count_per_class(graph: SNNGraph) -> int:
    """Return how many outputs stand for a class: 1 unless the metadata name a number that divides the outputs.

    Behind a readout on the host, also one that is joined to learn, each of its outputs is a class.
    """
    stated, outputs = graph.metadata.get(OUTPUTS_PER_CLASS, 1), int(np.prod(graph.shape_of(graph.output)))
    is_number = isinstance(stated, int) and not isinstance(stated, bool) and stated > 0
    is_on_host = has_host_readout(graph) or bool(list_host_layers(graph))
    return int(stated) if is_number and outputs % int(stated) == 0 and not is_on_host else 1


def read_decision(graph: SNNGraph) -> Decision:
    """Return what decides of the outputs of all steps: the mean unless the metadata name another one."""
    stated = graph.metadata.get(DECISION)
    return stated if isinstance(stated, str) and stated in get_args(Decision) else "mean"  # type: ignore[return-value]


def word_answer(decision: Decision) -> str:
    """Return how a class is chosen, in words.

    >>> word_answer("last")
    'the class with the largest value of the last step is the answer'
    """
    where = "in each step " if decision == "each" else ""
    return f"{where}the class with the largest {DECISION_WORDS[decision]} is the answer"


def state_decision(graph: SNNGraph, decision: str) -> SNNGraph:
    """Return a network with what decides of the outputs of all steps in its metadata, and no note on another decision.

    Raises:
        DataError: there is no such decision.
    """
    if decision not in get_args(Decision):
        raise DataError(f"decision: {decision!r} given, expected one of {', '.join(get_args(Decision))}")
    others = {key: value for key, value in graph.metadata.items() if key != DECISION}
    untrue = [word_answer(other) for other in DECISION_WORDS if other != decision]
    untrue += [] if decision == "mean" else [COUNTED_BY_MEAN, COUNTED_AS_SPIKES]
    for text in untrue:
        if "assumptions" in others:
            others["assumptions"] = [str(note).removesuffix(f", and {text}") for note in others["assumptions"]]
    return replace(graph, metadata=others if decision == "mean" else {**others, DECISION: decision})


def state_outputs_per_class(graph: SNNGraph, outputs: int) -> SNNGraph:
    """Return a network whose class c is decided by its outputs c · n to c · n + n − 1 together (population coding).

    Raises:
        DataError: they do not divide the network's outputs, or a readout on the host has an output a class.
    """
    if has_host_readout(graph):
        raise DataError("outputs per class: the network has a readout on the host, of which each output is a class; leave it out")
    all_outputs = int(np.prod(graph.shape_of(graph.output)))
    if isinstance(outputs, bool) or not isinstance(outputs, (int, np.integer)) or outputs < 1 or all_outputs % outputs:
        raise DataError(
            f"outputs per class: {outputs} given, the network has {plural(all_outputs, 'output')}; give a whole number that "
            "divides them"
        )
    others = {key: value for key, value in graph.metadata.items() if key != OUTPUTS_PER_CLASS}
    return replace(graph, metadata=others if outputs == 1 else {**others, OUTPUTS_PER_CLASS: int(outputs)})


def state_spikes(graph: SNNGraph) -> SNNGraph:
    """Return a network whose outputs have become spikes: they are counted over the steps, where it decides once a sample."""
    return graph if read_decision(graph) == "each" else state_decision(graph, "mean")


def count_classes(graph: SNNGraph) -> int:
    """Return the number of classes that the outputs of a network stand for."""
    host = read_host_readout(graph)
    if host is not None:
        return int(np.prod(host.shape_of(host.output)))
    return int(np.prod(graph.shape_of(graph.output))) // count_per_class(graph)


def describe_classes(graph: SNNGraph) -> list[str]:
    """Return a sentence on how outputs become a class where they are not one each, for those who run the network elsewhere."""
    host, n, decision = read_host_readout(graph), count_per_class(graph), read_decision(graph)
    if host is not None:
        return [_describe_host(graph, host)]
    most = {"mean": "most", "maximum": "most in any one step", "last": "most in the last step", "each": "most"}[decision]
    where = "in each step " if decision == "each" else ""
    if n > 1:
        outputs = f"each class has {n} outputs, class 0 the outputs 0 to {n - 1}"
        return [f"{outputs}: {where}the class whose outputs add up to {most} is the answer"]
    return [] if decision == "mean" else [word_answer(decision)]


def _describe_host(graph: SNNGraph, host: SNNGraph) -> str:
    neuron, outputs = host.layers[-1].neuron, int(np.prod(host.input_shape))
    decision = read_decision(graph)
    integrates = "it adds these up over the steps, and " if decision == "mean" else ""
    if neuron is not None:
        constants = "constants" if isinstance(neuron, CubaLI) else "constant"
        integrates = f"it integrates these with the time {constants} of the trained network ({type(neuron).__name__}), and "
    return (
        f"the readout is not on the chip: in each step the host multiplies the spikes of the {plural(outputs, 'neuron')} of "
        f"'{graph.output}' by weights, {count_classes(graph)} classes; {integrates}{word_answer(decision)}"
    )


def average_classes(outputs: Any, per_class: int) -> Any:
    """Return the mean of the outputs of each class, (..., outputs) to (..., classes); of numpy or of torch.

    >>> average_classes(np.array([[1.0, 0.0, 0.5, 0.5]]), 2).tolist()
    [[0.5, 0.5]]
    """
    return outputs if per_class == 1 else outputs.reshape(*outputs.shape[:-1], outputs.shape[-1] // per_class, per_class).mean(-1)


def score_classes(outputs: Any, graph: SNNGraph) -> Any:
    """Return what decides: a value for each class, (B, classes), of the outputs of all steps (T, B, *output); numpy or torch.

    Where each step is decided they are (B, T, classes).

    Behind a readout on the host they are its values. Where outputs stand for a class together, a step counts their mean.

    >>> from spear_deploy.network import Dense, Layer
    >>> from spear_deploy.network.graph import chain
    >>> graph = chain([Layer(name="fc", synapse=Dense(weight=np.eye(2)))], input_shape=(2,), dt_s=1e-3)
    >>> outputs = np.array([[[0.0, 0.5]], [[0.75, 0.5]]])
    >>> score_classes(outputs, graph).tolist()
    [[0.375, 0.5]]
    >>> score_classes(outputs, replace(graph, metadata={DECISION: "maximum"})).tolist()
    [[0.75, 0.5]]
    """
    flat, decision, per_class = outputs.reshape(*outputs.shape[:2], -1), read_decision(graph), count_per_class(graph)
    if decision == "mean":
        return average_classes(flat.mean(0), per_class)
    if decision == "each":
        return average_classes(flat.swapaxes(0, 1), per_class)
    each = average_classes(flat if decision == "maximum" else flat[-1:], per_class)
    return each.amax(0) if hasattr(each, "amax") else each.max(0)
