"""What is one row of a network?"""

from __future__ import annotations

from dataclasses import dataclass

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Shape, by, check_broadcast
from spear_deploy.network.neurons import Neuron, parameters, spikes
from spear_deploy.network.synapses import BatchNorm, Synapse


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of a network: what its edges bring, weighted, normalised, and turned into spikes."""

    name: str
    synapse: Synapse | None = None
    norm: BatchNorm | None = None
    neuron: Neuron | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name == "input" or "/" in self.name:
            raise GraphError(f"layer '{self.name}': a name is not empty, not 'input' and has no '/'; rename the layer")

    @property
    def spikes(self) -> bool:
        """Whether the layer emits spikes."""
        return spikes(self.neuron)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of what the layer emits, and check that norm and neuron match it."""
        try:
            shape = input_shape if self.synapse is None else self.synapse.output_shape(input_shape)
            if self.norm is not None and self.norm.weight.shape != shape[:1]:
                raise GraphError(f"BatchNorm has {self.norm.weight.shape[0]} channels, its input {by(shape)}")
            if self.neuron is not None:
                for name, value in parameters(self.neuron).items():
                    check_broadcast(f"{type(self.neuron).__name__}.{name}", value.shape, shape)
        except GraphError as error:
            raise GraphError(f"layer '{self.name}': {error}") from None
        return shape
