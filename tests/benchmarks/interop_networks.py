"""Which networks stand for the rows of the interop matrix? One small network a part; weights on a binary grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Neuron,
    Scale,
    Shape,
    SumPool,
    Synapse,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain

RNG = np.random.default_rng(7)
SPIKING = LIF(tau_s=2e-3, r=2.0, v_threshold=0.75)


def grid(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 7, shape).astype(np.float32) / 8


def one(synapse: Synapse | None, shape: Shape, neuron: Neuron | None = SPIKING, **more: object) -> SNNGraph:
    """Return spikes → the part → neurons."""
    first = Layer(name="first", neuron=IF(v_threshold=0.5))
    return chain([first, Layer(name="part", synapse=synapse, neuron=neuron, **more)], input_shape=shape)  # type: ignore[arg-type]


def neuron(made: Neuron) -> SNNGraph:
    """Return weights → the neuron."""
    return chain([Layer(name="part", synapse=Dense(weight=grid(6, 8)), neuron=made)], input_shape=(8,))


def wired(edges: list[tuple[str, str, int]], *names: str) -> SNNGraph:
    """Return layers of weights without change of shape, and neurons without weights where the name says so."""
    layers = [
        Layer(name=name, neuron=SPIKING) if name.startswith("n") else Layer(name=name, synapse=Dense(weight=grid(5, 5)))
        for name in names
    ]
    joined = tuple(Edge(source=a, target=b, delay=d) for a, b, d in edges)
    return SNNGraph(layers=tuple(layers), edges=joined, input_shape=(5,), output="n2" if "n2" in names else "n")


def norm(channels: int) -> BatchNorm:
    ones = np.ones(channels, np.float32)
    return BatchNorm(weight=2 * ones, bias=grid(channels), mean=grid(channels), var=4 * ones, eps=0.0)


IMAGE, LINE = (2, 6, 6), (3, 9)
PARTS: dict[str, SNNGraph] = {
    "Dense": one(Dense(weight=grid(5, 8)), (8,)),
    "Dense with bias": one(Dense(weight=grid(5, 8), bias=grid(5)), (8,)),
    "Dense on an image": one(Dense(weight=grid(5, 72)), IMAGE),
    "Dense of zeros": one(Dense(weight=np.zeros((5, 8), "f4")), (8,)),
    "Conv1d": one(Conv1d(weight=grid(4, 3, 3), padding=(1,), stride=(2,)), LINE),
    "Conv2d": one(Conv2d(weight=grid(3, 2, 3, 3), padding=(1, 1)), IMAGE),
    "Conv2d with bias, stride": one(Conv2d(weight=grid(3, 2, 3, 3), bias=grid(3), stride=(2, 2)), IMAGE),
    "Conv2d, kernel not square": one(Conv2d(weight=grid(3, 2, 3, 2), padding=(1, 0), stride=(1, 2)), IMAGE),
    "Conv2d, dilated": one(Conv2d(weight=grid(3, 2, 2, 2), dilation=(2, 2)), IMAGE),
    "Conv2d, depthwise": one(Conv2d(weight=grid(2, 1, 3, 3), groups=2), IMAGE),
    "Scale": one(Scale(weight=np.float32(1.5)), IMAGE),
    "Scale and shift per channel": one(Scale(weight=grid(2, 1, 1) + 1, bias=grid(2, 1, 1)), IMAGE),
    "shift per position": one(Scale(weight=np.float32(1), bias=grid(*IMAGE)), IMAGE),
    "SumPool": one(SumPool(kernel_size=2), IMAGE),
    "AvgPool": one(AvgPool(kernel_size=2), IMAGE),
    "SumPool of one axis": one(SumPool(kernel_size=(3,)), LINE),
    "Flatten": one(Flatten(), IMAGE),
    "batch norm behind weights": one(Conv2d(weight=grid(3, 2, 3, 3)), IMAGE, norm=norm(3)),
    "batch norm alone": one(None, IMAGE, norm=norm(2)),
    "IF": neuron(IF(v_threshold=0.75)),
    "IF, subtracting": neuron(IF(v_threshold=0.75, reset="subtract")),
    "IF to v_reset": neuron(IF(v_threshold=0.75, v_reset=0.25)),
    "LIF": neuron(SPIKING),
    "LIF, subtracting": neuron(LIF(tau_s=2e-3, r=2.0, v_threshold=0.75, reset="subtract")),
    "LIF, reset one step late": neuron(LIF(tau_s=2e-3, r=2.0, v_threshold=0.75, reset="subtract", reset_delay=1)),
    "LIF, no reset": neuron(LIF(tau_s=2e-3, r=2.0, v_threshold=0.75, reset="none")),
    "LIF with v_leak, v_reset": neuron(LIF(tau_s=4e-3, r=4.0, v_leak=0.25, v_reset=0.125, v_threshold=0.75)),
    "LIF, each its own": neuron(LIF(tau_s=np.array([1, 2, 4, 2, 1, 8]) * 1e-3, r=2.0, v_threshold=np.arange(2.0, 8.0) / 8)),
    "CubaLIF": neuron(CubaLIF(tau_mem_s=4e-3, tau_syn_s=2e-3, w_in=2.0, r=2.0, v_threshold=0.75)),
    "LI": neuron(LI(tau_s=4e-3)),
    "CubaLI": neuron(CubaLI(tau_mem_s=4e-3, tau_syn_s=2e-3)),
    "no neuron at the output": chain([Layer(name="part", synapse=Dense(weight=grid(4, 8)))], input_shape=(8,)),
    "integers, no decay": neuron(LoihiLIF(decay_u=4096, decay_v=0, v_threshold=2)).with_layers(
        lambda layer: Layer(name=layer.name, synapse=Dense(weight=RNG.integers(-2, 3, (6, 8)) * 2), neuron=layer.neuron)
    ),
    "integers, decay": neuron(LoihiLIF(decay_u=2048, decay_v=400, v_threshold=2)).with_layers(
        lambda layer: Layer(name=layer.name, synapse=Dense(weight=RNG.integers(-2, 3, (6, 8)) * 2), neuron=layer.neuron)
    ),
    "skip (a sum of two ways)": wired([("input", "a", 0), ("a", "n", 0), ("input", "n", 0)], "a", "n"),
    "an edge with delay": wired([("input", "a", 3), ("a", "n", 0)], "a", "n"),
    "recurrent weights": wired([("input", "a", 0), ("a", "n", 0), ("n", "r", 1), ("r", "n", 0)], "a", "n", "r"),
    "a neuron that feeds itself": wired([("input", "a", 0), ("a", "n", 0), ("n", "n", 2)], "a", "n"),
    "feedback over two layers": wired(
        [("input", "a", 0), ("a", "n", 0), ("n", "b", 0), ("b", "n2", 0), ("n2", "r", 1), ("r", "n", 0)], "a", "n", "b", "n2", "r"
    ),
}


def primitive(make: Callable[[], object], shape: Shape = (4,), out: Shape | None = None) -> Callable[[Path], None]:
    """Return what writes a file with one node between input and output."""

    def write(path: Path) -> None:
        import nir

        ends = nir.Input(input_type={"input": np.array(shape)}), nir.Output(output_type={"output": np.array(out or shape)})
        nodes = {"input": ends[0], "n": make(), "output": ends[1]}
        nir.write(path, nir.NIRGraph(nodes, [("input", "n"), ("n", "output")], type_check=False))

    return write


def _primitives() -> dict[str, Callable[[Path], None]]:
    def of(name: str, **fields: object) -> Callable[[], object]:
        def make() -> object:
            import nir

            return getattr(nir, name)(**fields)

        return make

    def nested() -> object:
        import nir

        ends = nir.Input(input_type={"input": np.array([4])}), nir.Output(output_type={"output": np.array([4])})
        inner = {"input": ends[0], "n": nir.IF(r=full, v_threshold=full), "w": nir.Linear(weight=np.eye(4)), "output": ends[1]}
        return nir.NIRGraph(inner, [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")], type_check=False)

    full = np.ones(4)
    level = {"v_threshold": full, "v_reset": 0 * full}
    conv = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    pool = {name: np.array(value) for name, value in {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]}.items()}
    cuba = {"tau_mem": 4e-3 * full, "tau_syn": 2e-3 * full, "r": full, "v_leak": 0 * full, "w_in": full}
    flat = {"input_type": {"input": np.array([2, 6, 6])}, "start_dim": 0, "end_dim": -1}
    return {
        "Affine": primitive(of("Affine", weight=np.ones((3, 4)), bias=np.ones(3)), out=(3,)),
        "Linear": primitive(of("Linear", weight=np.ones((3, 4))), out=(3,)),
        "Scale": primitive(of("Scale", scale=full)),
        "Conv1d": primitive(of("Conv1d", input_shape=9, weight=np.ones((2, 3, 3)), **conv), (3, 9), (2, 9)),
        "Conv2d": primitive(of("Conv2d", input_shape=(6, 6), weight=np.ones((2, 2, 3, 3)), **conv), (2, 6, 6)),
        "SumPool2d": primitive(of("SumPool2d", **pool), (2, 6, 6), (2, 3, 3)),
        "AvgPool2d": primitive(of("AvgPool2d", **pool), (2, 6, 6), (2, 3, 3)),
        "Flatten": primitive(of("Flatten", **flat), (2, 6, 6), (72,)),
        "IF": primitive(of("IF", r=full, **level)),
        "LIF": primitive(of("LIF", tau=4e-3 * full, r=full, v_leak=0 * full, **level)),
        "CubaLIF": primitive(of("CubaLIF", **cuba, **level)),
        "LI": primitive(of("LI", tau=4e-3 * full, r=full, v_leak=0 * full)),
        "CubaLI": primitive(of("CubaLI", **cuba)),
        "I": primitive(of("I", r=full)),
        "Threshold": primitive(of("Threshold", threshold=full)),
        "Delay": primitive(of("Delay", delay=2e-3 * full)),
        "NIRGraph": primitive(nested),
    }


PRIMITIVES = _primitives()
