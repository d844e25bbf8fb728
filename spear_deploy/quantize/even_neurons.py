"""Neurons that share weights or a threshold: their potentials take what differs, as far as they can.

The weights of a convolution are those of all neurons of a channel, and on some chips they have one threshold too, or two neurons
side by side have one. In other units a neuron is the same: with v' = c · v it takes c · r, and threshold, reset, leak, start and
lower bound c times as large, and spikes in the same steps, in exact arithmetic. So one of two things can be made equal:

    gain        what a spike adds to v for a weight of 1, g = r · dt / tau · …     c = mean(g) / g
    threshold   θ, measured from the reset where a spike sets v to it              c = mean(θ) / θ

On chips whose neurons have thresholds of their own the gain is made equal, on the others the threshold. What then still differs
is refused; `adapt` replaces it by its mean, which is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy.network import FLOAT_NEURONS, READOUTS, WEIGHTED, Array, Dense, Layer, Scale, array_parameters
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.quantize.fold import add_missing_weights
from spear_deploy.quantize.weighted_inputs import SAME_GAIN, collect_neuron_inputs
from spear_deploy.simulator import neurons

Sharing: TypeAlias = Literal["neuron", "pair", "channel"]
"""What has a threshold and time constants of its own, as `neuron.constants_of` of a hardware profile says."""
SHARED: dict[str, Sharing] = {"speck": "channel", "akida": "channel", "reckon": "pair"}
"""By format, what shares a threshold; others do not."""
GROUP_WORDS = {"pair": "a pair of neurons", "channel": "a channel"}
"""What shares constants, in words."""

POTENTIALS = ("v_threshold", "v_reset", "v_leak", "v_init", "v_min")
"""Parameters of a neuron in units of its potential."""
OF_WEIGHTS = ("r", "w_in")
"""Parameters that weights take where each neuron has its own."""
OF_GAIN = ("tau_s", "tau_mem_s", "tau_syn_s", *OF_WEIGHTS)
"""Parameters that what a spike adds depends on."""
OF_NEURON = ("tau_s", "tau_mem_s", "tau_syn_s", "v_threshold", "v_reset", "v_leak")
"""Parameters that belong to the neuron. Where it starts is stored for each; of lower bounds the lowest of a layer is taken."""
CONSTANT_WORDS = {
    "tau_s": "time constants", "tau_mem_s": "time constants", "tau_syn_s": "time constants", "v_threshold": "thresholds",
    "v_reset": "reset potentials", "v_leak": "leaks", "r": "gains", "w_in": "gains",
}  # fmt: skip
"""Parameters of a neuron in words."""


def describe_constants(names: Sequence[str]) -> str:
    """Return parameters of a neuron in words.

    >>> describe_constants(["tau_mem_s", "tau_syn_s", "v_threshold", "r"])
    'time constants, thresholds and gains'
    """
    *first, last = dict.fromkeys(CONSTANT_WORDS[name] for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def scale_potentials(neuron: Any, factor: Array) -> Any:
    """Return a floating-point neuron whose potential is `factor` times as large, float64: it spikes in the same steps.

    >>> from spear_deploy.network import IF
    >>> scale_potentials(IF(r=0.5, v_threshold=1.0), np.array([2.0, 4.0])).v_threshold
    array([2., 4.])
    """
    taken = ("r", *(name for name in POTENTIALS if getattr(neuron, name, None) is not None))
    return replace(neuron, **{name: np.asarray(getattr(neuron, name), np.float64) * factor for name in taken})


def even_neurons(graph: SNNGraph, format: str) -> SNNGraph:
    """Return a floating-point network whose neurons share what those of a chip share, as far as their potentials can do it.

    Args:
        graph: without batch norm.
        format: of the integers that it becomes.

    Raises:
        UnsupportedError, QuantizationError: see `weighted_inputs.collect_neuron_inputs`.
    """
    if not any(_may_differ(layer) for layer in graph.layers):
        return graph
    graph = _even_gains(graph, GAINS[format]) if format in GAINS else graph

    def share_threshold(layer: Layer) -> Layer:
        groups = _group(graph, layer, SHARED.get(format, "neuron"))
        if groups is None:
            return layer
        neuron = groups.even_out(_even_threshold(layer, groups))
        if format in GAINS and groups.share_weights and not groups.are_even(neuron.r):  # their gain is one already, and stays it
            return layer
        return replace(layer, neuron=neuron)

    return graph.with_layers(share_threshold)


def _even_threshold(layer: Layer, groups: _Groups) -> Any:
    """Return the neuron of a layer with one threshold in each group; unchanged where a threshold is not above the reset.

    Integers stay as they are: their weights are fixed.
    """
    if not layer.spikes or not isinstance(layer.neuron, FLOAT_NEURONS):
        return layer.neuron
    neuron: Any = layer.neuron
    level = neuron.v_reset if neuron.reset == "value" else np.zeros(())
    height = groups.spread(np.asarray(neuron.v_threshold, np.float64) - level)
    if (height <= 0).any() or groups.are_even(height, tolerance=0):
        return neuron
    return scale_potentials(neuron, groups.mean(height) / height)


@dataclass(frozen=True, kw_only=True)
class Uneven:
    """Parameters of a layer's neurons that differ where the chip has one of them, and that no other unit evens out.

    Attributes:
        names: of the parameters.
        sharing: what has one of them.
    """

    names: tuple[str, ...]
    sharing: str

    def describe(self) -> str:
        """Return them in words.

        >>> Uneven(names=("tau_s",), sharing="pair").describe()
        'time constants that differ inside a pair of neurons'
        """
        return f"{describe_constants(self.names)} that differ inside {GROUP_WORDS[self.sharing]}"


def find_uneven(graph: SNNGraph, layer: Layer, sharing: str, format: str) -> Uneven | None:
    """Return what differs between neurons of a layer that share it, or None.

    Where each neuron has constants of its own a readout may still share weights: these hold one gain a channel, and its
    value, which is read, cannot be put in other units.

    Args:
        graph: the network.
        layer: one of its layers.
        sharing: see `Sharing`.
        format: of the integers that it becomes.
    """
    groups = _group(graph, layer, sharing)
    if groups is not None and groups.list_uneven(_even_threshold(layer, groups)):
        return Uneven(names=tuple(groups.list_uneven(layer.neuron)), sharing=sharing)
    groups = _group(graph, layer, "channel")
    if groups is None or not isinstance(layer.neuron, READOUTS) or format not in GAINS:
        return None
    if groups.are_even(GAINS[format](neurons.factors(layer.neuron, graph.dt_s))):
        return None
    # parameters that each differ by less than what counts as one value may make gains that differ by more
    uneven = (groups.list_uneven(layer.neuron, tolerance=tolerance) for tolerance in (SAME_GAIN, 0))
    names = [[name for name in names if name in OF_GAIN] for names in uneven]
    return Uneven(names=tuple(names[0] or names[1]), sharing="channel")


def average_shared(graph: SNNGraph, layer: Layer, uneven: Uneven) -> Any:
    """Return the neuron of a layer whose neurons share the mean of what they have, in units in which they have one threshold."""
    groups = _group(graph, layer, uneven.sharing)
    assert groups is not None, "what differs lies in a group"
    neuron, kind = _even_threshold(layer, groups), getattr(layer.neuron, "r", np.zeros(())).dtype
    names = [name for name in groups.list_parameters(neuron) if layer.spikes or name in uneven.names]
    means = {name: groups.mean(getattr(neuron, name)) for name in names}
    values = array_parameters(neuron) | means
    return replace(neuron, **{name: value.astype(kind) for name, value in values.items()})


# --------------------------------------------------------------------------------------------------------------- groups


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Neurons of a layer in groups that share their constants.

    Attributes:
        shape: of the layer.
        size: neurons of a group; the last one may have fewer.
        share_weights: whether they also share weights.
    """

    shape: tuple[int, ...]
    size: int
    share_weights: bool

    def list_uneven(self, neuron: Any, *, tolerance: float = SAME_GAIN) -> list[str]:
        """Return the parameters of which a group has several values, although it can hold one."""
        return [name for name in self.list_parameters(neuron) if not self.are_even(getattr(neuron, name), tolerance=tolerance)]

    def list_parameters(self, neuron: Any) -> list[str]:
        """Return the parameters of a neuron that a group has one of."""
        names = (*OF_NEURON, *OF_WEIGHTS) if self.share_weights else OF_NEURON
        return [name for name in names if getattr(neuron, name, None) is not None]

    def even_out(self, neuron: Any) -> Any:
        """Return a neuron with one value a group where those of each group are one but for their rounding.

        Values that differ in their last digit could become two integers.
        """
        if not isinstance(neuron, FLOAT_NEURONS):
            return neuron
        values = {name: getattr(neuron, name) for name in OF_NEURON if getattr(neuron, name, None) is not None}
        close = {name: v for name, v in values.items() if self.are_even(v) and not self.are_even(v, tolerance=0)}
        means: dict[str, Any] = {name: self.mean(v) for name, v in close.items()}
        return replace(neuron, **means) if close else neuron

    def spread(self, values: Array) -> Array:
        """Return values in the shape of the layer, float64."""
        return np.broadcast_to(np.asarray(values, np.float64), self.shape)

    def are_even(self, values: Array, *, tolerance: float = SAME_GAIN) -> bool:
        """Return whether each group has one value, within a relative tolerance."""
        rows = self._rows(values)
        return bool(np.allclose(rows, rows[:, :1], rtol=tolerance, atol=0))

    def mean(self, values: Array) -> Array:
        """Return the mean of each group, in the shape of the layer, or one for each channel where a group is one."""
        means = self._rows(values).mean(axis=1)
        if len(self.shape) > 1 and self.size == np.prod(self.shape[1:]):
            return means.reshape(-1, *(1 for _ in self.shape[1:]))
        return np.repeat(means, self.size)[: np.prod(self.shape)].reshape(self.shape)

    def _rows(self, values: Array) -> Array:
        flat = self.spread(values).reshape(-1)
        return np.pad(flat, (0, -len(flat) % self.size), mode="edge").reshape(-1, self.size)


def _group(graph: SNNGraph, layer: Layer, sharing: str) -> _Groups | None:
    """Return the groups of a layer's neurons; None where each has its own constants."""
    if sharing == "neuron" or not _may_differ(layer):
        return None
    shape = graph.shape_of(layer.name)
    of_channel = int(np.prod(shape)) // _count_channels(graph, layer.name)
    size = of_channel if sharing == "channel" else 2
    return _Groups(shape=shape, size=size, share_weights=of_channel > 1) if size > 1 else None


def _count_channels(graph: SNNGraph, name: str) -> int:
    """Return how many channels the neurons of a layer have: as many as neurons where each has weights of its own."""
    neurons = int(np.prod(graph.shape_of(name)))

    def search(name: str) -> int:
        synapse = graph[name].synapse
        if isinstance(synapse, (Dense, Scale)):
            return neurons
        if isinstance(synapse, WEIGHTED):
            return graph.shape_of(name)[0]
        sources = (edge.source for edge in graph.edges_into(name))
        return min((search(s) for s in sources if s != INPUT and graph[s].neuron is None), default=neurons)

    channels = search(name)
    return channels if neurons % channels == 0 else neurons


def _may_differ(layer: Layer) -> bool:
    """Return whether a layer's neurons have parameters that may differ between neurons that share them."""
    return layer.neuron is not None and any(v.ndim and np.ptp(v) > 0 for v in array_parameters(layer.neuron).values())


# ---------------------------------------------------------------------------------------------------------------- gains


def _even_gains(graph: SNNGraph, find_gain: Callable[[Mapping[str, Array]], Array]) -> SNNGraph:
    """Return a network whose neurons have one gain where they share weights; readouts, whose value is read, stay as they are."""
    evened: dict[str, Any] = {}
    for layer in collect_neuron_inputs(add_missing_weights(graph), "spikes", 1.0):
        gain = find_gain(layer.factors)
        if not layer.readout and (gain > 0).all() and not layer.shares_gain(gain):
            evened[layer.name] = scale_potentials(layer.neuron, gain.mean() / gain)
    return graph.with_layers(lambda layer: replace(layer, neuron=evened.get(layer.name, layer.neuron))) if evened else graph


def find_step_gain(factors: Mapping[str, Array]) -> Array:
    """Return what an input of 1 adds to v in its step, by the factors of a neuron's update: r · mem · jump, float64."""
    f = {name: np.asarray(value, np.float64) for name, value in factors.items()}
    gain: Array = f["r"] * f.get("mem", 1.0) * f.get("jump", 1.0)
    return gain


def find_current_gain(factors: Mapping[str, Array]) -> Array:
    """Return what an input of 1 adds to the current of SpiNNaker's neurons: r · jump / initial, float64."""
    f = {name: np.asarray(value, np.float64) for name, value in factors.items()}
    gain: Array = f["r"] * f["jump"] / find_initial_share(f["syn"]) if "jump" in f else f["r"]
    return gain


def find_initial_share(syn: Array) -> Array:
    """Return the part of a synaptic current that counts in its first step on SpiNNaker: (tau / dt) (1 − exp(−dt / tau))."""
    share: Array = syn / -np.log1p(-np.minimum(syn, 1 - 2.0**-32))
    return share


GAINS: dict[str, Callable[[Mapping[str, Array]], Array]] = {
    "loihi": find_step_gain,
    "truenorth": find_step_gain,
    "reckon": find_step_gain,
    "catalyst": find_step_gain,
    "spinnaker": find_current_gain,
}
"""By format of chips whose neurons may have thresholds of their own, the factor that weights take; see `loihi` and `chips`."""
