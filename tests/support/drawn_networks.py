"""Small random networks of one kind each, near what chips hold: so that many fit one, and many are refused for one part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Scale,
    SumPool,
)
from spear_deploy.network.graph import INPUT, Edge, SNNGraph

DT_S = 1e-3
READOUT_OF = {IF: LI, LIF: LI, CubaLIF: CubaLI}


def draw_network(seed: int) -> SNNGraph:
    """Return a random network of 1 to 3 layers of weights: dense, of lists or of maps, with loops, pools, biases and delays."""
    return _Draw(seed).build()


class _Draw:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.layers: list[Layer] = []
        self.edges: list[Edge] = []
        self.source = INPUT
        self.models = self.pick((IF,), (LIF,), (CubaLIF,), (IF, LIF, CubaLIF))
        self.reset = self.pick("value", "subtract", "subtract")
        self.one_step = self.chance(0.2)
        self.positive = self.chance(0.25)

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def build(self) -> SNNGraph:
        axes = self.pick(0, 0, 1, 2, 2)
        self.shape = self.input_shape = (int(self.rng.integers(2, 9)), *(int(n) for n in self.rng.integers(4, 9, axes)))
        depth = int(self.rng.integers(1, 4))
        for number in range(depth):
            is_last = number == depth - 1
            if len(self.shape) > 1 and (not is_last or self.chance(0.4)):
                self.add_map(number, is_last)
            else:
                self.add_list(number, is_last)
        return SNNGraph(
            layers=tuple(self.layers), edges=tuple(self.edges), input_shape=self.input_shape, dt_s=DT_S, output=self.source
        )

    def add(self, name: str, **parts: Any) -> None:
        layer = Layer(name=name, **parts)
        self.shape = layer.output_shape(self.shape)
        self.layers.append(layer)
        self.edges.append(Edge(source=self.source, target=name, delay=int(self.chance(0.1))))
        self.source = name

    def add_map(self, number: int, is_last: bool) -> None:
        axes, kernel = len(self.shape) - 1, self.pick(1, 3, 3)
        outputs = int(self.rng.integers(1, 5))
        synapse = (Conv1d, Conv2d)[axes - 1](
            weight=self.weights(outputs, self.shape[0], *(kernel,) * axes),
            padding=(kernel // 2,) * axes,
            bias=self.bias(outputs),
        )
        pool = self.pick(AvgPool, SumPool)(kernel_size=(2,) * axes)
        if self.chance(0.85) or is_last:
            self.add(f"c{number}", synapse=synapse, neuron=self.neuron((outputs, *self.shape[1:]), is_last))
            if not is_last and self.chance(0.4) and min(self.shape[1:]) >= 2:
                self.add(f"p{number}", synapse=pool)
        else:  # neurons behind a pool of currents
            self.add(f"c{number}", synapse=synapse)
            if min(self.shape[1:]) >= 2:
                self.add(f"p{number}", synapse=pool)
            self.add(f"n{number}", neuron=self.neuron(self.shape, is_last))

    def add_list(self, number: int, is_last: bool) -> None:
        if len(self.shape) > 1:
            self.add(f"f{number}", synapse=Flatten())
        outputs = int(self.rng.integers(1, 7))
        synapse: Any = Dense(weight=self.weights(outputs, self.shape[0]), bias=self.bias(outputs))
        if self.chance(0.1):
            synapse = Scale(weight=self.weights(*self.shape, 1)[:, 0])
        name = f"d{number}"
        shape = synapse.output_shape(self.shape)
        self.add(name, synapse=synapse, neuron=None if is_last and self.chance(0.08) else self.neuron(shape, is_last))
        if not is_last and self.chance(0.15):
            self.close_loop(name)

    def close_loop(self, name: str) -> None:
        """Let the neurons of a layer drive themselves through weights."""
        (layer,) = (layer for layer in self.layers if layer.name == name)
        self.layers[self.layers.index(layer)] = replace(layer, neuron=None)
        around = Layer(name=f"{name}.around", synapse=Dense(weight=self.weights(*self.shape, *self.shape)))
        self.layers += [Layer(name=f"{name}.sum", neuron=layer.neuron), around]
        self.source = f"{name}.sum"
        self.edges += [
            Edge(source=name, target=self.source),
            Edge(source=self.source, target=around.name, delay=self.pick(1, 2)),
            Edge(source=around.name, target=self.source),
        ]

    def weights(self, *shape: int) -> np.ndarray:
        weight = self.rng.normal(size=shape).astype(np.float32)
        weight = np.abs(weight) if self.positive else weight
        return weight * np.float32(self.pick(0, 1e-3, 100)) if self.chance(0.05) else weight

    def bias(self, count: int) -> np.ndarray | None:
        return (0.1 * self.rng.normal(size=count)).astype(np.float32) if self.chance(0.3) else None

    def value(self, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        """Return a parameter: mostly one number, sometimes one a channel or a neuron."""
        by_channel = (shape[0], *(1 for _ in shape[1:]))
        return self.rng.uniform(low, high, self.pick((), (), (), (), by_channel, shape)).astype(np.float32)

    def tau(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.one_step:
            return np.asarray(DT_S)
        base = DT_S * self.pick(1, 2, 4, 8, 10, 16, 20)
        return np.asarray(base) if self.chance(0.5) else (base * self.value(shape, 1, 2)).astype(np.float32)

    def neuron(self, shape: tuple[int, ...], is_last: bool) -> Any:
        model = self.pick(*self.models)
        model = READOUT_OF[model] if is_last and self.chance(0.6) else model
        parts: dict[str, Any] = {"r": self.value(shape, 0.5, 2)} if self.chance(0.3) else {}
        if model in (LI, LIF):
            parts["tau_s"] = self.tau(shape)
        if model in (CubaLI, CubaLIF):
            parts |= {"tau_mem_s": self.tau(shape), "tau_syn_s": self.tau(shape)}
        if model is not IF and self.chance(0.15):
            parts["v_leak"] = self.value(shape, -0.2, 0.2)
        if model in (IF, LIF, CubaLIF):
            parts |= {"v_threshold": self.value(shape, 0.5, 2), "reset": self.reset}
            parts["max_spikes"] = self.pick(1, 1, 15, None) if self.one_step or self.chance(0.1) else 1
            if self.chance(0.15):
                parts["v_reset"] = self.value(shape, -0.3, 0.3)
            if model is IF and self.chance(0.2):
                parts["v_min"] = np.asarray(self.pick(-1.0, np.minimum(parts.get("v_reset", 0.0), 0.0)))
            if model is not IF and self.chance(0.1):
                parts["v_init"] = self.value(shape, -0.2, 0.2)
        return model(**parts)
