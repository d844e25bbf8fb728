"""Neuron state of a layer between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from spear_deploy.network import Array


@dataclass
class NeuronState:
    """The state of one layer and the constants of its update.

    Attributes:
        v, u: membrane potential and synaptic current, (B, *shape); u is None where the neuron has none.
        constants: the factors of the update equation, rounded once to the type of the state.
        rest: steps for which v rests (refractory neurons), or None.
        wraps, u_saturations, saturations: how often u wrapped, u was clipped, and v was clipped.
    """

    v: Array
    u: Array | None
    constants: dict[str, Array]
    rest: Array | None = None
    wraps: int = 0
    u_saturations: int = 0
    saturations: int = 0
    _ones: frozenset[str] = field(default_factory=frozenset)
