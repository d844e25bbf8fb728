"""Random networks with recurrent weights, several spikes a step, all chips' integers.

A second family, so that the seeds of the first stay what they are. One in three holds a chip's integers: neurons and weights
drawn inside its format, or a network that `quantize` made for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import (
    CHIP_NEURONS,
    IF,
    LI,
    LIF,
    CatalystLIF,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Layer,
    OdinLIF,
    ReckonLIF,
    SigmaDelta,
    SpinnakerLIF,
    TrueNorthLIF,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.sparse_matrix import make_sparse
from spear_deploy.quantize import quantize
from tests.quantize.test_recorded_integers import SEEDS, case
from tests.support.wild_graphs import DT_S, _Wild

NAMES = ("l {}", "lÄ{}", "a.b.{}", "{}", "Ω:{}", "layer-{}<b>", "_{}'s")
"""Names that files, terminals and pages have to escape, or that are numbers."""


def rich_graph(seed: int) -> tuple[SNNGraph, str]:
    """Return a random network and its kind: "rich", "integers" or "quantised"."""
    kind = ("rich", "rich", "rich", "rich", "integers", "quantised")[seed % 6]
    if kind == "quantised":
        family = list(SEEDS)[seed // 6 % len(SEEDS)]
        graph, given = case(family, seed)
        return quantize(graph, format=family, **given), kind  # type: ignore[arg-type]
    return (_Rich(seed, "float") if kind == "rich" else _Integers(seed)).graph(), kind


class _Rich(_Wild):
    """Floating-point networks."""

    def graph(self) -> SNNGraph:
        graph = super().graph()
        names = {layer.name: self.pick(*NAMES).format(n) for n, layer in enumerate(graph.layers)}
        names |= {INPUT: INPUT}
        if self.chance(0.7) or len(set(names.values())) < len(names):
            return graph
        layers = [replace(layer, name=names[layer.name]) for layer in graph.layers]
        edges = [replace(edge, source=names[edge.source], target=names[edge.target]) for edge in graph.edges]
        return replace(graph, layers=tuple(layers), edges=tuple(edges), output=names[graph.output])

    def grid(self, *shape: int) -> np.ndarray:
        values: np.ndarray = super().grid(*shape)
        return values * (self.rng.random(shape) < self.pick(1.0, 1.0, 0.5, 0.1, 0.0)) if values.ndim > 1 else values

    def dense(self, shape: tuple[int, ...]) -> Dense:
        synapse: Dense = super().dense(shape)
        return replace(synapse, weight=make_sparse(synapse.weight)) if self.chance(0.3) else synapse

    def loops(self) -> None:
        """Close cycles through weights: dense and convolutions, from a layer to itself or to an earlier one of any shape."""
        super().loops()
        spiking = [layer for layer in self.layers if layer.neuron is not None and layer.spikes]
        for n, source in enumerate(spiking):
            if not self.chance(0.5):
                continue
            target = spiking[self.rng.integers(n + 1)]
            entry = self.edges[[edge.target for edge in self.edges].index(target.name)].source
            weights, shape = self.feed_back(self.shapes[source.name], self.shapes[target.name])
            if shape != self.shapes[entry]:
                continue  # what the target's own weights read has another shape
            back = f"back{n}"
            self.layers.insert([layer.name for layer in self.layers].index(target.name), Layer(name=back, synapse=weights))
            self.edges.append(Edge(source=source.name, target=back, delay=int(self.pick(1, 1, 2, 5))))
            self.edges.append(Edge(source=back, target=target.name, delay=int(self.pick(0, 0, 1))))

    def feed_back(self, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """Return weights from one shape to another, and their output's shape."""
        dims = len(source) - 1
        if dims and source == target and self.chance(0.7):
            kind, kernel = (Conv1d if dims == 1 else Conv2d), (3,) * dims
            return kind(weight=self.grid(source[0], source[0], *kernel), padding=(1,) * dims), source
        out = int(np.prod(target))
        return Dense(weight=self.grid(out, int(np.prod(source)))), (out,)

    def floating(self, spread: tuple[int, ...], reset: str) -> Any:
        def level(low: int, high: int) -> np.ndarray:
            return self.rng.integers(low, high, spread) / 8

        def tau() -> np.ndarray:
            return DT_S * 2.0 ** self.rng.integers(0, 3, spread)

        reset = self.pick(reset, reset, reset, "none")
        synaptic, most = tau(), self.pick(1, 1, 2, 7, None)
        leak, start = {"v_leak": level(-3, 4)}, {"v_init": self.pick(None, level(-4, 5))}
        spiking = {"v_threshold": level(4, 9), "v_reset": level(-3, 3), "reset": reset, "max_spikes": most}
        r = {"r": 2.0 ** self.rng.integers(-1, 2, spread)}
        current = {"tau_mem_s": tau(), "tau_syn_s": synaptic, "w_in": synaptic / DT_S}
        late = {"reset_delay": int(reset == "subtract" and most == 1 and self.chance(0.5))}
        bound = {"v_min": self.pick(None, level(-12, -4), np.array(-0.375))}
        make = self.pick(
            lambda: IF(**{**spiking, "v_reset": np.maximum(spiking["v_reset"], -0.375)}, **r, **bound),
            lambda: LIF(tau_s=tau(), **spiking, **leak, **r, **late, **start),
            lambda: CubaLIF(**current, **spiking, **leak, **r, **late, **start),
            lambda: LI(tau_s=tau(), **leak, **r),
            lambda: CubaLI(**current, **leak, **r),
        )
        return make()


class _Integers(_Wild):
    """Networks of one chip's integer neurons, inside its format; sigma-delta neurons too."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, "chip")
        self.model = (*CHIP_NEURONS, SigmaDelta)[seed // 6 % (len(CHIP_NEURONS) + 1)]

    def exponent(self) -> int:
        return int(self.rng.integers(0, 4)) if self.model is ReckonLIF else 0

    def dense(self, shape: tuple[int, ...]) -> Dense:
        synapse: Dense = super().dense(shape)
        if self.model is not OdinLIF:
            return synapse
        weight = np.minimum(np.abs(synapse.weight), 7) * self.rng.choice([-1, 1], synapse.weight.shape[1])
        return replace(synapse, weight=weight, bias=None)

    def neuron(self, shape: tuple[int, ...]) -> Any:
        whole, spread, reads = self.rng.integers, self.spread(shape), self.chance(0.15)
        reset = str(self.pick("value", "subtract"))
        if self.model is TrueNorthLIF:
            return TrueNorthLIF(
                v_threshold=whole(1, 40, spread), leak=whole(-9, 9, spread), v_min=whole(-40, 1, spread),
                v_init=whole(-9, 9, spread), v_reset=whole(-9, 1, spread), bounces=int(self.pick(0, 0, 1)),
                reset=str(self.pick("value", "subtract", "none")),
            )  # fmt: skip
        if self.model is SpinnakerLIF:
            current = self.pick({}, {"keep_u": whole(0, 2**32, spread), "init_u": whole(0, 2**32, spread)})
            return SpinnakerLIF(
                keep_v=whole(0, 2**15, spread), v_threshold=None if reads else whole(1, 40, spread), v_rest=whole(-9, 9, spread),
                v_init=whole(-9, 9, spread), exc_shift=int(self.pick(0, 0, 3)), inh_shift=int(self.pick(0, 0, 2)), **current,
            )  # fmt: skip
        if self.model is ReckonLIF:
            keep = int(whole(0, 2**7 + 1)) if reads else int(whole(7 * 2**12, 2**15 + 1))
            return ReckonLIF(keep=keep, v_threshold=None if reads else int(whole(1, 200)), reset=reset)
        if self.model is OdinLIF:
            return OdinLIF(v_threshold=whole(1, 60, spread), leak=whole(0, 3, spread))
        if self.model is CatalystLIF:
            return CatalystLIF(v_threshold=whole(1, 40, spread), leak=whole(-9, 9, spread), resting=whole(0, 90, spread))
        bias = 0 if reads else whole(-9, 9, spread)
        return SigmaDelta(
            v_threshold=None if reads else whole(0, 9, spread), bias=bias, activation=str(self.pick("relu", "unit"))
        )  # type: ignore[arg-type]
