"""Described networks at the limits of Speck, Xylo, Akida and Loihi, random and by hand, and the same as `SNNGraph`."""

from __future__ import annotations

from typing import Any

import numpy as np

from spear_deploy.network import IF, AvgPool, Conv2d, CubaLIF, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain

Described = dict[str, Any]
MAX_MAP, MAX_WEIGHTS = 150_000, 1_000_000
MAX_LOIHI_WEIGHTS = 250_000
"""Sizes above which a random network is drawn anew: they take the compilers minutes."""


def draw(chip: str, count: int) -> list[Described]:
    """Return networks for a chip: those made by hand, then random ones."""
    family = chip.split("_")[0]
    by_hand = {
        "speck": speck_by_hand,
        "xylo": lambda: xylo_by_hand(chip),
        "akida": akida_by_hand,
        "loihi1": loihi_by_hand,
    }[family]()
    random = {
        "speck": random_speck,
        "xylo": lambda rng: random_xylo(rng, chip),
        "akida": random_akida,
        "loihi1": random_loihi,
    }[family]
    return [*by_hand, *(random(np.random.default_rng(seed)) for seed in range(count - len(by_hand)))]


# ---------------------------------------------------------------------------------------------------------------- Speck


def conv(out: int, kernel: int = 3, stride: int = 1, padding: int = 1, bias: bool = False) -> Described:
    return {"kind": "conv", "out": out, "kernel": kernel, "stride": stride, "padding": padding, "bias": bias}


def pool(*window: int, kind: str = "sumpool") -> Described:
    return {"kind": kind, "window": list(window) if len(window) == 2 else [window[0], window[0]]}


def dense(out: int, bias: bool = False) -> Described:
    return {"kind": "dense", "out": out, "bias": bias}


def speck_by_hand() -> list[Described]:
    """Return a network on each side of each limit."""
    ends = [dense(10)]
    rows = [
        [conv(8), pool(2), pool(2), *ends], [conv(8), pool(4), pool(2), *ends], [conv(8), pool(2), pool(2), pool(2), *ends],
        [conv(8), pool(4), pool(4), *ends], [conv(8), pool(1), pool(4), *ends], [conv(8), pool(2, 1), pool(1, 2), *ends],
        [conv(8), pool(8), *ends], [conv(8), pool(3), *ends], [conv(8), pool(2, 1), *ends],
        [pool(2), conv(8), *ends], [pool(4), conv(8), *ends], [pool(2), pool(2), conv(8), *ends], [pool(8), conv(8), *ends],
        [conv(8), conv(4), pool(2)], [conv(8), conv(4), pool(8)], [conv(8), conv(4), pool(3)],
        [conv(4, kernel=16, padding=7), *ends], [conv(4, kernel=17, padding=7), *ends], [conv(4, padding=8), *ends],
        [conv(4, stride=8), *ends], [conv(4, stride=3), *ends], [conv(4, stride=4), *ends],
        [conv(32, bias=True), *ends], [conv(33, bias=True), *ends], [conv(1024, kernel=1, padding=0, stride=8), *ends],
    ]  # fmt: skip
    networks = [{"input": [channels, 32, 32], "layers": row} for row in rows for channels in (1, 2, 3)]
    for size in (64, 65, 128, 129):
        networks += [
            {"input": [2, size, size], "layers": [conv(8), *ends]},
            {"input": [2, size, size], "layers": [conv(8, stride=2), pool(4), *ends]},
            {"input": [2, size, size], "layers": [pool(2), conv(8), pool(4), *ends]},
        ]
    networks += [{"input": [20, 1, 1], "layers": [dense(20)] * count} for count in (1, 8, 9, 10)]
    networks += [{"input": [64, 1, 1], "layers": [dense(out), dense(2)]} for out in (512, 1024, 1025, 2048)]
    return networks


def random_speck(rng: np.random.Generator) -> Described:
    """Return a chain of convolutions, pools and dense layers; most numbers are legal, so that cores and memory decide."""

    def choose(usual: list[int], rare: list[int], share: float = 0.04) -> int:
        return int(rng.choice(rare if rng.random() < share else usual))

    while True:
        shape = (choose([1, 2, 2, 4, 16], [3, 64]), *[choose([16, 32, 34, 64], [100, 128, 129])] * 2)
        network: Described = {"input": list(shape), "layers": []}
        largest, weights = 0, 0
        if rng.random() < 0.1:
            window = choose([2, 4], [3, 8])
            network["layers"].append(pool(window))
            shape = (shape[0], shape[1] // window, shape[2] // window)
        for _ in range(int(rng.integers(0, 9))):
            layer = conv(
                choose([4, 8, 15, 16, 17, 32, 33, 64], [128, 256, 1024, 1025]),
                choose([1, 3, 3, 5, 7], [2, 16, 17]),
                choose([1, 1, 2, 4], [3, 8]),
                choose([0, 1, 2, 3], [7, 8]),
                bool(rng.random() < 0.5),
            )
            side = (shape[1] + 2 * layer["padding"] - layer["kernel"]) // layer["stride"] + 1
            if side < 1:
                continue
            weights += layer["out"] * shape[0] * layer["kernel"] ** 2
            shape = (layer["out"], side, side)
            largest = max(largest, int(np.prod(shape)))
            network["layers"].append(layer)
            for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.4, 0.45, 0.1, 0.05]))):
                window = choose([2, 2, 4, 1], [3, 8])
                if shape[1] >= window:
                    network["layers"].append(pool(window, kind=str(rng.choice(["sumpool", "avgpool"]))))
                    shape = (shape[0], shape[1] // window, shape[2] // window)
        if rng.random() < 0.7 or not any(layer["kind"] == "conv" for layer in network["layers"]):
            out = choose([2, 10, 11], [64, 256])
            weights += out * int(np.prod(shape))
            network["layers"].append(dense(out, bool(rng.random() < 0.5)))
        if largest <= MAX_MAP and weights <= MAX_WEIGHTS:
            return network


# ----------------------------------------------------------------------------------------------------------------- Xylo

XYLO_SIZES = {"xylo_audio2": (1000, 64, 8, 40), "xylo_audio3": (992, 128, 32, 32), "xylo_imu": (496, 128, 16, 64)}
"""Hidden neurons, a width at a limit, outputs, and the degree that fills the fan-out list of all neurons but a few."""


def lif(out: int, tau_mem: float = 20, tau_syn: float = 10, degree: int = 0) -> Described:
    return {"out": out, "tau_mem": tau_mem, "tau_syn": tau_syn, "degree": degree}


def xylo_by_hand(chip: str) -> list[Described]:
    """Return a network on each side of each limit; two hidden layers, since the mapper of the IMU crashes on one."""
    hidden, width, outputs, degree = XYLO_SIZES[chip]
    rows = [
        [4, lif(4)], [4, lif(4, degree=1)], [4, lif(8), lif(4, degree=2)], [4, lif(8), lif(4)], [4, lif(8), lif(8), lif(4)],
        [16, lif(8), lif(8), lif(4)], [17, lif(8), lif(8), lif(4)],
        [4, lif(8), lif(8), lif(outputs)], [4, lif(8), lif(8), lif(outputs + 1)],
        [4, lif(width), lif(8), lif(4)], [4, lif(width + 1), lif(8), lif(4)],
        [4, lif(8), lif(width), lif(4)], [4, lif(8), lif(width + 1), lif(4)],
        [4, lif(64), lif(64), lif(4)], [4, lif(16), lif(64), lif(4)], [4, lif(16), lif(65), lif(4)],
        [4, lif(8, tau_mem=1), lif(8), lif(4)], [4, lif(8, tau_syn=1), lif(8), lif(4)], [4, lif(8), lif(8), lif(4, tau_mem=0.5)],
        [4, lif(8, tau_mem=1.01, tau_syn=1.01), lif(8), lif(4)],
    ]  # fmt: skip
    networks = [{"input": [inputs], "layers": layers} for inputs, *layers in rows]
    middle = hidden - 2 * 16  # a narrow layer at either end leaves the rest to one that feeds itself
    for out, loops in ((middle, degree), (middle, degree + 2), (middle - 40, degree), (middle + 1, 1), (middle, 0)):
        networks.append({"input": [4], "layers": [lif(16), lif(out, degree=loops), lif(16), lif(4)]} if out <= 64 else
                        {"input": [4], "layers": [lif(64), lif(64, degree=min(loops, 64)), lif(4)]})  # fmt: skip
    if chip == "xylo_audio2":  # its input reaches all neurons, so that one layer may fill the list
        networks += [
            {"input": [4], "layers": [lif(out, degree=d), lif(4)]} for out, d in ((500, 64), (501, 64), (800, 40), (800, 64))
        ]
    return networks


def random_xylo(rng: np.random.Generator, chip: str) -> Described:
    """Return one to four layers, some of them feeding themselves; most numbers are legal."""
    _, width, outputs, _ = XYLO_SIZES[chip]
    depth = int(rng.choice([1, 2, 3, 4], p=[0.05, 0.25, 0.5, 0.2]))

    def tau() -> float:
        return float(rng.choice([2.0, 4.5, 20.0, 32.0] if rng.random() > 0.03 else [0.5, 1.0, 1.01]))

    layers = []
    for n in range(depth):
        last = n == depth - 1
        usual, rare = ((4, outputs), (outputs + 1,)) if last else ((8, 16, 40, 60), (width, width + 1, 100, 140))
        out = int(rng.choice(rare if rng.random() < 0.12 else usual))
        is_loop = rng.random() < (0.05 if last else 0.35)
        degree = int(rng.integers(1, out + 1)) if is_loop else 0
        layers.append(lif(out, tau(), tau(), min(degree, 66)))
    return {"input": [int(rng.choice([1, 8, 16] if rng.random() > 0.06 else [17, 20]))], "layers": layers}


# ---------------------------------------------------------------------------------------------------------------- Akida


def akida_by_hand() -> list[Described]:
    """Return a network on each side of each limit."""
    networks = [{"input": [16, 1, 1], "layers": [dense(16)] * count} for count in (1, 21, 22, 23, 24)]
    networks += [{"input": [inputs, 1, 1], "layers": [dense(4)]} for inputs in (57334, 57335)]
    networks += [{"input": [2, 8, 8], "layers": [conv(filters, kernel=1, padding=0)]} for filters in (2047, 2048, 2049)]
    networks += [{"input": [channels, 2, 2], "layers": [conv(4, kernel=1, padding=0)]} for channels in (1000, 2048, 2049)]
    networks += [{"input": [2, 16, 16], "layers": [conv(8, kernel=k, padding=k // 2), dense(4)]} for k in (1, 3, 5, 7, 9)]
    networks += [{"input": [2, 16, 16], "layers": [conv(8, stride=s), dense(4)]} for s in (1, 2, 3, 4)]
    networks += [{"input": [2048, 1, 1], "layers": [dense(2048)] * count} for count in (4, 5)]
    return networks


def random_akida(rng: np.random.Generator) -> Described:
    """Return convolutions with padding `same`, then dense layers."""
    side = int(rng.choice([8, 16, 32]))
    layers = []
    for _ in range(int(rng.integers(0, 5))):
        kernel = int(rng.choice([1, 3, 5, 7] if rng.random() > 0.06 else [9, 11]))
        stride = int(rng.choice([1, 2] if rng.random() > 0.06 else [3, 4]))
        filters = int(rng.choice([4, 16, 64] if rng.random() > 0.06 else [2048, 2049]))
        layers.append(conv(filters, kernel=kernel, stride=stride, padding=kernel // 2))
    layers += [
        dense(int(rng.choice([4, 10, 64, 128]))) for _ in range(int(rng.choice([1, 2, 20, 22, 23], p=[0.4, 0.3, 0.1, 0.1, 0.1])))
    ]
    return {"input": [int(rng.choice([1, 2, 8])), side, side], "layers": layers}


# ---------------------------------------------------------------------------------------------------------------- Loihi


def loop(out: int) -> Described:
    return {"kind": "dense", "out": out, "bias": False, "loop": True}


def loihi_by_hand() -> list[Described]:
    """Return a network on each side of each limit of Loihi 1: neurons, axons and words of a core, and cores."""
    networks = [{"input": [4], "layers": [dense(out), dense(2)]} for out in (1023, 1024, 1025, 2048, 2049, 4096, 4097)]
    networks += [{"input": [inputs], "layers": [dense(out)]} for inputs in (4095, 4096, 4097, 8192) for out in (1, 2)]
    networks += [{"input": [inputs], "layers": [dense(64)]} for inputs in (1820, 1821, 1822)]  # lists of nine words
    networks += [{"input": [inputs], "layers": [loop(out)]} for inputs, out in ((4032, 64), (4033, 64), (1756, 64), (1757, 64))]
    networks += [{"input": [2], "layers": [dense(2)] * count} for count in (1, 127, 128, 129)]
    networks += [{"input": [2], "layers": [dense(1025), *[dense(1)] * count]} for count in (125, 126, 127, 128)]
    networks += [{"input": [2], "layers": [dense(1024 * count), dense(2)]} for count in (1, 2, 3, 4)]
    networks += [{"input": [2, 8, 8], "layers": [conv(4, kernel=k, padding=0), dense(3)]} for k in (1, 3, 5, 8)]
    networks += [{"input": [1, side, side], "layers": [conv(1, padding=0), dense(2)]} for side in (16, 17, 18)]
    networks += [{"input": [2, 10, 10], "layers": [conv(8, padding=0), conv(4, padding=0), dense(5)]}]
    networks += [{"input": [2, 9, 9], "layers": [conv(4, stride=s, padding=0), conv(4, padding=0), dense(5)]} for s in (2, 3)]
    return networks


def random_loihi(rng: np.random.Generator) -> Described:
    """Return dense layers, some of which feed themselves, behind convolutions or not; sizes near the limits of a core."""
    while True:
        network: Described = {"input": [int(rng.choice([2, 16, 60, 300, 4096, 4097, 4100, 5000]))], "layers": []}
        size, weights, parts = network["input"][0], 0, int(rng.integers(1, 5))
        if rng.random() < 0.3:
            side = int(rng.integers(5, 17))
            shape = [int(rng.choice([1, 2, 3])), side, side]
            network["input"] = list(shape)
            for _ in range(int(rng.integers(1, 3))):
                layer = conv(int(rng.choice([1, 4, 8])), int(rng.choice([1, 3, 5])), int(rng.choice([1, 1, 2])), 0)
                left = (shape[1] - layer["kernel"]) // layer["stride"] + 1
                if left >= 1 and layer["out"] * left**2 <= 1024:
                    network["layers"].append(layer)
                    shape = [layer["out"], left, left]
            size, parts = int(np.prod(shape)), int(rng.integers(1, 3))
        for _ in range(parts):
            out = int(rng.choice([1, 10, 63, 64, 65, 512, 1023, 1024, 1025, 2049]))
            is_loop = rng.random() < 0.2 and out <= 512
            network["layers"].append(loop(out) if is_loop else dense(out))
            weights += out * (size + out * is_loop)
            size = out
        if weights <= MAX_LOIHI_WEIGHTS:
            return network


# --------------------------------------------------------------------------------------------------------------- graphs


def build_graph(chip: str, network: Described) -> SNNGraph:
    """Return a described network."""
    if chip.startswith("xylo"):
        return _build_recurrent(network)
    if chip == "loihi1":
        return _build_for_loihi(network)
    shape = tuple(network["input"])
    layers: list[Layer] = []
    for n, described in enumerate(network["layers"]):
        name, kind = f"l{n}", described["kind"]
        if kind == "conv":
            side = described["kernel"]
            bias = np.ones(described["out"]) if described["bias"] else None
            synapse = Conv2d(
                weight=np.ones((described["out"], shape[0], side, side), np.float32),
                bias=bias,
                stride=(described["stride"],) * 2,
                padding=(described["padding"],) * 2,
            )
            layers.append(Layer(name=name, synapse=synapse, neuron=IF(reset="subtract")))
        elif kind in ("sumpool", "avgpool"):
            window = tuple(described["window"])
            layers.append(Layer(name=name, synapse=(SumPool if kind == "sumpool" else AvgPool)(kernel_size=window)))
        else:
            layers.append(Layer(name=f"{name}_flat", synapse=Flatten()))
            bias = np.ones(described["out"]) if described["bias"] else None
            weight = np.ones((described["out"], int(np.prod(shape))), np.float32)
            layers.append(Layer(name=name, synapse=Dense(weight=weight, bias=bias), neuron=IF(reset="subtract")))
        for layer in layers[-2:] if kind == "dense" else layers[-1:]:
            shape = layer.output_shape(shape)
    return chain(layers, input_shape=tuple(network["input"]))


def _build_for_loihi(network: Described) -> SNNGraph:
    shape, before = tuple(network["input"]), INPUT
    layers, edges = [], []
    for n, described in enumerate(network["layers"]):
        name, out, side = f"l{n}", described["out"], described.get("kernel")
        if described["kind"] == "conv":
            stride = (described["stride"],) * 2
            synapse: Any = Conv2d(weight=np.ones((out, shape[0], side, side), np.float32), stride=stride)
        else:
            if len(shape) == 3:
                layers.append(Layer(name=f"flat_{name}", synapse=Flatten()))
                edges.append(Edge(source=before, target=f"flat_{name}"))
                before, shape = f"flat_{name}", (int(np.prod(shape)),)
            synapse = Dense(weight=np.ones((out, shape[0]), np.float32))
        layers += [Layer(name=f"into_{name}", synapse=synapse), Layer(name=name, neuron=IF())]
        edges += [Edge(source=before, target=f"into_{name}"), Edge(source=f"into_{name}", target=name)]
        if described.get("loop"):
            layers.append(Layer(name=f"back_{name}", synapse=Dense(weight=np.ones((out, out), np.float32))))
            edges += [Edge(source=name, target=f"back_{name}", delay=1), Edge(source=f"back_{name}", target=name)]
        before, shape = name, layers[-1 - bool(described.get("loop")) - 1].output_shape(shape)
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=tuple(network["input"]), output=before)


def _build_recurrent(network: Described) -> SNNGraph:
    layers, edges, before, inputs = [], [], INPUT, network["input"][0]
    for n, described in enumerate(network["layers"]):
        name, out = f"l{n}", described["out"]
        neuron = CubaLIF(tau_mem_s=described["tau_mem"] * 1e-3, tau_syn_s=described["tau_syn"] * 1e-3, reset="subtract")
        layers.append(Layer(name=f"into_{name}", synapse=Dense(weight=np.ones((out, inputs), np.float32))))
        layers.append(Layer(name=name, neuron=neuron))
        edges += [Edge(source=before, target=f"into_{name}"), Edge(source=f"into_{name}", target=name)]
        if described["degree"]:
            loop = sum(np.roll(np.eye(out, dtype=np.float32), k, axis=0) for k in range(min(described["degree"], out)))
            layers.append(Layer(name=f"back_{name}", synapse=Dense(weight=loop)))
            edges += [Edge(source=name, target=f"back_{name}", delay=1), Edge(source=f"back_{name}", target=name)]
        before, inputs = name, out
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=tuple(network["input"]), output=before)
