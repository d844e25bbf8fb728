"""Trainable Norse networks from an SNNGraph, and back.

    to_norse(graph) ─► NorseNetwork: a torch module per layer (synapse ─► norm ─► Norse cell) ─► to_graph(network)

In evaluation mode a `NorseNetwork` computes what `simulator.simulate` computes in float32: the neurons get the
multipliers of the simulator, in Norse's own order of operations, so equal drive gives equal states. Sums of synapses run
in torch's order, not numpy's: where one of them rounds, a spike on the edge of its threshold can fall the other way.
Neuron parameters are buffers of this module (Norse keeps them in a named tuple that `.to()` and `state_dict()` miss).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, overload

import numpy as np
import torch

from spear_deploy.errors import DataError, UnsupportedError, did_you_mean
from spear_deploy.network import Array
from spear_deploy.network.fixed_weights import list_fixed_layers
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.norse.cells import CellState
from spear_deploy.norse.layers import NorseLayer, read_layer, share_equal_steps
from spear_deploy.simulator.stepper import evaluation_groups
from spear_deploy.util.times import timed_layer

SURROGATES = ("super", "triangle", "tanh", "circ", "heavi_erfc")
"""Norse's surrogate gradients that work and have a gradient; `super` ignores alpha."""

Tensor = torch.Tensor


def to_norse(graph: SNNGraph, *, surrogate: str = "triangle", alpha: float = 1.0) -> NorseNetwork:
    """Build the trainable network of a floating-point graph, in float32.

    Args:
        graph: what to build; its arrays are copied.
        surrogate: one of `SURROGATES`, the gradient of a spike.
        alpha: its steepness.

    Raises:
        UnsupportedError: an integer network, or an unknown surrogate.
    """
    return NorseNetwork(graph, surrogate=surrogate, alpha=alpha)


def to_graph(network: NorseNetwork) -> SNNGraph:
    """Return the graph of a network: present weights and batch statistics, all else as before."""
    return network.graph.with_layers(lambda layer: read_layer(layer, network.module_of(layer.name)))


def check_batchnorm(graph: SNNGraph) -> None:
    """Refuse a batch norm that cannot normalise by a batch.

    Raises:
        UnsupportedError: its eps is not above 0, and the variance of a batch may be 0.
    """
    for layer in graph.layers:
        if layer.norm is not None and not layer.norm.eps > 0:
            raise UnsupportedError(
                f"layer '{layer.name}': batch norm with eps {layer.norm.eps:g}, which learning divides by where a batch does not "
                "vary; set an eps above 0, e.g. 1e-5"
            )


@torch.no_grad()
def reestimate_batchnorm(network: NorseNetwork, batches: Iterable[Array | Tensor]) -> None:
    """Set the statistics of every batch norm to those of the data, in place.

    Each batch runs once, normalised by its own statistics; the running mean and variance become the plain average over
    the batches. Weights and the mode of the network stay.

    Args:
        network: the network.
        batches: inputs (T, B, *input).

    Raises:
        DataError: no batch, or a batch that does not match the input; the statistics are then as before.
        UnsupportedError: a batch norm without eps.
    """
    check_batchnorm(network.graph)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    seen = 0
    try:
        with _estimate_statistics(network, norms):
            for x in batches:
                network(x)
                seen += 1
        if not seen:
            raise DataError("batch norm statistics: no batch given, expected at least one")
    except BaseException:
        for norm, values in zip(norms, before, strict=True):
            norm.load_state_dict(values, strict=False)
        raise


class NorseNetwork(torch.nn.Module):
    """A network of Norse cells with the structure of an `SNNGraph`.

    A child per layer, named after it (a dot becomes `_`; `module_of` finds it), each with `synapse`, `norm`, `neuron`.

    Attributes:
        graph: the network that it was built from, with the weights of that moment (`to_graph` returns the present ones).
    """

    def __init__(self, graph: SNNGraph, *, surrogate: str = "triangle", alpha: float = 1.0) -> None:
        super().__init__()
        if graph.is_integer:
            raise UnsupportedError("an integer network has no gradient to learn with; train the network it was quantised from")
        if surrogate not in SURROGATES:
            raise UnsupportedError(
                f"surrogate '{surrogate}': no such gradient, expected one of {', '.join(SURROGATES)}"
                f"{did_you_mean(surrogate, SURROGATES)}"
            )
        self.graph = graph
        self._groups = [[layer.name for layer in group] for group in evaluation_groups(graph)]
        self._children: dict[str, str] = {}
        for layer in graph.layers:
            child = layer.name.replace(".", "_")
            while hasattr(self, child):
                child += "_"
            self._children[layer.name] = child
            self.add_module(child, NorseLayer(graph, layer, surrogate, alpha))
        for name in list_fixed_layers(graph):
            for weights in self.module_of(name).synapse.parameters():  # type: ignore[union-attr]
                weights.requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> NorseNetwork:
        memo[id(self.graph)] = self.graph  # immutable: shared, not copied
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__ = copy.deepcopy(self.__dict__, memo)
        return new

    def module_of(self, name: str) -> NorseLayer:
        """Return the child of a layer."""
        self.graph[name]  # an unknown name is an error of the graph
        return self._modules[self._children[name]]  # type: ignore[return-value]

    @overload
    def forward(self, x: Array | Tensor, record: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Array | Tensor, record: Literal[True]) -> tuple[Tensor, dict[str, Tensor]]: ...
    def forward(self, x: Array | Tensor, record: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Run the network from its initial state.

        Args:
            x: (T, B, *input), spikes or current.
            record: also return the spikes.

        Returns:
            The output (T, B, *output); with `record` also the spikes of every spiking layer by its name, (T, B, *shape) as
            0.0 or 1.0, with gradient.

        Raises:
            DataError: the shape of `x` is not that of the network.
        """
        run = _Run(self, self._check_input(x))
        for group in self._groups:
            run.advance(group)
        if not record:
            return run.emitted[self.graph.output]
        return run.emitted[self.graph.output], {
            layer.name: run.emitted[layer.name] for layer in self.graph.layers if layer.spikes
        }

    def _check_input(self, x: Array | Tensor) -> Tensor:
        like = next((t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()), torch.zeros(()))
        if not isinstance(x, Tensor):
            x = torch.from_numpy(np.ascontiguousarray(x))
        if x.ndim != len(self.graph.input_shape) + 2 or tuple(x.shape[2:]) != self.graph.input_shape or 0 in x.shape:
            expected = ", ".join(map(str, ("T", "B", *self.graph.input_shape)))
            raise DataError(f"input has shape {tuple(x.shape)}, the network takes ({expected}); check the axes")
        return x.to(like.device, like.dtype)


class _Run:
    """One pass over time: the outputs of the layers that have run."""

    def __init__(self, network: NorseNetwork, x: Tensor) -> None:
        self.network, self.graph = network, network.graph
        self.emitted = {INPUT: x if torch.is_grad_enabled() else share_equal_steps(x)}
        self.steps, self.batch = x.shape[:2]

    def advance(self, group: Sequence[str]) -> None:
        """Run layers that depend on each other through all steps."""
        name = group[0]
        if len(group) == 1 and all(edge.source != name for edge in self.graph.edges_into(name)):
            total: Tensor | None = None
            for edge in self.graph.edges_into(name):
                value = _delay(self.emitted[edge.source], edge.delay)
                total = value if total is None else total + value
            assert total is not None
            with timed_layer(name):
                self.emitted[name] = self.network.module_of(name)(total)
        else:
            self._advance_cycle(group)

    def _advance_cycle(self, group: Sequence[str]) -> None:
        incoming = {name: self.graph.edges_into(name) for name in group}
        sources = {edge.source for edges in incoming.values() for edge in edges} - set(group)
        by_step: dict[str, Sequence[Tensor]] = {source: self.emitted[source].unbind(0) for source in sources}
        inside: dict[str, list[Tensor]] = {name: [] for name in group}
        by_step.update(inside)
        states: dict[str, CellState] = {}
        for t in range(self.steps):
            for name in group:
                module = self.network.module_of(name)
                out = module.weigh(self._sum_inputs(incoming[name], by_step, t))
                if module.neuron is not None:
                    state = states[name] if t else module.neuron.start(out)
                    out, states[name] = module.neuron.step(out, state)
                inside[name].append(out)
        self.emitted.update({name: torch.stack(values) for name, values in inside.items()})

    def _sum_inputs(self, edges: Iterable[Edge], by_step: dict[str, Sequence[Tensor]], t: int) -> Tensor:
        total: Tensor | None = None
        target = ""
        for edge in edges:
            target = edge.target
            if t >= edge.delay:
                value = by_step[edge.source][t - edge.delay]
                total = value if total is None else total + value
        return total if total is not None else self.emitted[INPUT].new_zeros(self.batch, *self.graph.input_shape_of(target))


def _delay(value: Tensor, delay: int) -> Tensor:
    if not delay:
        return value
    return torch.cat([torch.zeros_like(value[:delay]), value[: max(len(value) - delay, 0)]])[: len(value)]


@contextmanager
def _estimate_statistics(network: NorseNetwork, norms: Sequence[Any]) -> Iterator[None]:
    """Put batch norms into averaging mode and everything else into evaluation mode, within a `with` block."""
    modes = [(module, module.training) for module in network.modules()]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
