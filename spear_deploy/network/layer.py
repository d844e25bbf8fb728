"""A layer of a network: synapse, batch norm and neuron."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Shape, check_broadcast
from spear_deploy.network.neurons import Neuron, array_parameters, emits_spikes
from spear_deploy.network.synapses import BatchNorm, Synapse
from spear_deploy.util.number_format import format_shape
from spear_deploy.util.printable import escape_hidden, has_hidden

MAX_VALUES = 1 << 31
"""Values that a layer emits, beyond those of any chip."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: the sum over its incoming edges, weighted, normalised, and turned into spikes."""

    name: str
    synapse: Synapse | None = None
    norm: BatchNorm | None = None
    neuron: Neuron | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name == "input" or "/" in self.name:
            raise GraphError(f"layer '{self.name}': a name is not empty, not 'input' and has no '/'; rename the layer")
        if has_hidden(self.name):
            name = escape_hidden(self.name)
            raise GraphError(f"layer '{name}': a name has no control, bidi or surrogate characters; rename the layer")

    @property
    def spikes(self) -> bool:
        """Whether the layer emits spikes."""
        return emits_spikes(self.neuron)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of what the layer emits, and check that norm and neuron match it."""
        try:
            shape = input_shape if self.synapse is None else self.synapse.output_shape(input_shape)
            if prod(shape) > MAX_VALUES:
                padding = "" if (sizes := getattr(self.synapse, "padding", None)) is None else f" of {format_shape(sizes)}"
                raise GraphError(f"emits {format_shape(shape)} values, at most {MAX_VALUES}; check its padding{padding}")
            if self.norm is not None and self.norm.weight.shape != shape[:1]:
                raise GraphError(f"BatchNorm has {self.norm.weight.shape[0]} channels, its input {format_shape(shape)}")
            if self.neuron is not None:
                for name, value in array_parameters(self.neuron).items():
                    check_broadcast(f"{type(self.neuron).__name__}.{name}", value.shape, shape)
        except GraphError as error:
            raise GraphError(f"layer '{self.name}': {error}") from None
        return shape
