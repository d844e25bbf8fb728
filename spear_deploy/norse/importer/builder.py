"""Layers and edges of a traced network, as they are added."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Layer, Shape
from spear_deploy.network.graph import INPUT, Edge
from spear_deploy.norse.importer.symbols import ZEROS, Value


@dataclass
class GraphBuilder:
    """The layers and edges added so far.

    Attributes:
        steps_s: time step of every layer whose neuron has one.
        called: path of every stateful module by its id.
        zeros: how many values of zeros a forward has made.
    """

    layers: list[Layer] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    steps_s: dict[str, float] = field(default_factory=dict)
    called: dict[int, str] = field(default_factory=dict)
    zeros: int = 0

    def time_step(self, dt_s: float | None) -> float:
        """Return the time step that all cells share."""
        if not self.steps_s:
            return 1e-3 if dt_s is None else dt_s
        (first, found), *rest = self.steps_s.items()
        for name, other in rest:
            if other != found:
                raise UnsupportedError(
                    f"cells '{first}' and '{name}' have time steps of {found:g} and {other:g} s; give all one dt"
                )
        if dt_s is not None and dt_s != found:
            raise UnsupportedError(f"cell '{first}' has a time step of {found:g} s, dt_s = {dt_s:g} s was given; leave it out")
        return found

    def add(self, path: str, *sources: Value, shape: Shape | None = None, **parts: Any) -> Value:
        """Add a layer fed by the given values; `shape` is that of its input where nothing feeds it yet."""
        layer = Layer(name=self._free(path), **parts)
        value = Value(layer.name, layer.output_shape(sources[0].shape if shape is None else shape))
        self.layers.append(layer)
        self.edges += [edge_of(source, layer.name) for source in sources]
        return value

    def zero(self, shape: Shape) -> Value:
        """Return a new value of zeros."""
        self.zeros += 1
        return Value(f"{ZEROS}{self.zeros}", shape)

    def without_zeros(self) -> list[Edge]:
        """Return the edges without those of zeros that stayed zeros; a layer that nothing else feeds is refused."""
        edges = [edge for edge in self.edges if not edge.source.startswith(ZEROS)]
        fed = {edge.target for edge in edges}
        for edge in self.edges:
            if edge.target not in fed:
                raise UnsupportedError(f"module '{edge.target}' gets zeros in every step; feed it or take it out")
        return edges

    def spikes(self, value: Value) -> bool:
        """Say whether a value is what neurons emit."""
        return any(layer.name == value.name and layer.spikes for layer in self.layers)

    def _free(self, path: str) -> str:
        base = path.replace("/", "_") or "model"
        base = f"{base}_" if base == INPUT or base.startswith(ZEROS) else base
        taken = {layer.name for layer in self.layers}
        return next(name for name in (base, *(f"{base}_{n}" for n in range(2, len(taken) + 3))) if name not in taken)


def edge_of(source: Value, target: str) -> Edge:
    """Return the edge that brings a value to a layer; one of zeros waits for what comes in its place."""
    return Edge(source=source.name, target=target, delay=source.age)
