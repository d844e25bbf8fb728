"""Neurons as a chip stores them, and what drives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spear_deploy.network.base import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredBias:
    """Biases of weights that a chip's neurons hold themselves.

    Attributes:
        gain: whole numbers of the neuron's bias per unit; broadcasts to the neurons.
        index: of the bias that reaches a neuron; broadcasts to the neurons.
        count: how often it does, behind a sum over a window; broadcasts to the neurons.
    """

    gain: Array
    index: Array
    count: Array | float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredNeurons:
    """Integer neurons of a layer whose weights and biases are still in floating point.

        sums  = rint(gain · (drive − biases held by the neurons))        v = level + v of the chip / unit

    Attributes:
        neuron: the integer neuron.
        gain: factor on what drives a floating-point neuron in a step; broadcasts to the neurons.
        unit, level: of the potential.
        bias_field: the neuron's parameter that holds biases; empty where the weights hold them.
        bias_limits: the smallest and the largest bias of a neuron.
        leak: what it holds without any bias, before it is rounded.
        biases: by layer of weights, biases that the neurons hold.
    """

    neuron: Any
    gain: Array
    unit: float
    level: Array
    bias_field: str = ""
    bias_limits: tuple[int, int] = (0, 0)
    leak: Array | float = 0.0
    biases: Mapping[str, StoredBias] = field(default_factory=dict)

    def hold_biases(self, values: Mapping[str, Array]) -> Any:
        """Return the neuron with the present biases, by layer of weights."""
        if not self.bias_field:
            return self.neuron
        total = self.leak + sum(self._take(bias, values[name]) * bias.gain for name, bias in self.biases.items())
        held = np.clip(np.rint(total), *self.bias_limits).astype(np.int64)
        return replace(self.neuron, **{self.bias_field: held})

    def sum_biases(self, values: Mapping[str, Array]) -> Array:
        """Return what the biases that the neurons hold add to the drive in floating point."""
        return np.asarray(sum(self._take(bias, values[name]) for name, bias in self.biases.items()))

    @staticmethod
    def _take(bias: StoredBias, values: Array) -> Array:
        taken: Array = values.reshape(-1)[bias.index] * bias.count
        return taken
