"""Tasks of the search benchmark: networks and data.

They are small enough to run thousands of candidates.

digits    plain convolutions      scikit-learn's digits, 8 x 8, rate-coded in 6 steps; 1,797 images, 360 of them the test split
mnist     residual                MNIST at 14 x 14, rate-coded in 5 steps; 2,500 images to learn from, 4,000 test images
nmnist    recurrent               N-MNIST at 17 x 17 x 2, 10 steps; 1,000 recordings, 200 of them the test split
cifar     plain convolutions      CIFAR-10 at 16 x 16, a current in each of 4 steps; 3,000 images to learn from, 4,000 test images
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_deploy.data import Dataset, Split, digits, load_data, rate_code, split_at_random
from spear_deploy.network import LI, LIF, AvgPool, BatchNorm, Conv2d, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph

SHARED = Path(os.environ.get("SPEAR_SHARED", Path(__file__).parents[3] / "shared")) / "data"
TAU_S = 2e-3


@dataclass(frozen=True)
class Task:
    """Data and network by seed; epochs of training and of the first fine-tuning; episodes of each search."""

    data: Callable[[int], Dataset]
    network: Callable[[int], SNNGraph]
    train_epochs: int
    tune_epochs: int
    episodes: int = 60


class Net:
    """A network under construction: each call adds a layer behind the given one and returns its name."""

    def __init__(self, seed: int, input_shape: tuple[int, ...]) -> None:
        self.rng, self.input_shape = np.random.default_rng(seed), input_shape
        self.layers: list[Layer] = []
        self.edges: list[Edge] = []

    def uniform(self, *shape: int) -> np.ndarray:
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        return self.rng.uniform(-bound, bound, shape).astype(np.float32)

    def add(self, name: str, after: str | tuple[str, ...], delay: int = 0, **parts) -> str:
        self.layers.append(Layer(name=name, **parts))
        self.edges += [
            Edge(source=source, target=name, delay=delay) for source in ((after,) if isinstance(after, str) else after)
        ]
        return name

    def conv(self, name: str, after: str, inputs: int, outputs: int, *, kernel=3, stride=1, spikes=True) -> str:
        synapse = Conv2d(weight=self.uniform(outputs, inputs, kernel, kernel), padding=(kernel // 2,) * 2, stride=(stride,) * 2)
        return self.add(name, after, synapse=synapse, norm=norm(outputs), neuron=LIF(tau_s=TAU_S) if spikes else None)

    def block(self, name: str, after: str, inputs: int, outputs: int, stride: int = 1) -> str:
        """Two convolutions and a skip: the identity where shapes allow, else 1 x 1."""
        first = self.conv(f"{name}a", after, inputs, outputs, stride=stride)
        second = self.conv(f"{name}b", first, outputs, outputs, spikes=False)
        same = inputs == outputs and stride == 1
        skip = after if same else self.conv(f"{name}s", after, inputs, outputs, kernel=1, stride=stride, spikes=False)
        return self.add(name, (second, skip), neuron=LIF(tau_s=TAU_S))

    def pool(self, name: str, after: str, size: int = 2) -> str:
        return self.add(name, after, synapse=AvgPool(kernel_size=(size, size)))

    def readout(self, after: str, inputs: int, outputs: int = 10) -> SNNGraph:
        synapse = Dense(weight=self.uniform(outputs, inputs), bias=np.zeros(outputs, np.float32))
        out = self.add("readout", after, synapse=synapse, neuron=LI(tau_s=TAU_S))
        return SNNGraph(layers=tuple(self.layers), edges=tuple(self.edges), input_shape=self.input_shape, dt_s=1e-3, output=out)


def norm(channels: int) -> BatchNorm:
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return BatchNorm(weight=one, bias=zero, mean=zero, var=one)


def plain(seed: int, input_shape: tuple[int, int, int], widths: tuple[int, ...], pools: tuple[int, ...]) -> SNNGraph:
    net, after = Net(seed, input_shape), INPUT
    channels, side = input_shape[0], input_shape[1]
    for i, width in enumerate(widths, 1):
        after = net.conv(f"conv{i}", after, channels, width)
        channels = width
        if i in pools:
            after, side = net.pool(f"pool{i}", after), side // 2
    return net.readout(after, channels * side * side)


def residual(seed: int) -> SNNGraph:
    net = Net(seed, (1, 14, 14))
    after = net.conv("stem", INPUT, 1, 8)
    after = net.block("b1", after, 8, 8)
    after = net.block("b2", after, 8, 16, stride=2)
    after = net.block("b3", after, 16, 24, stride=2)
    return net.readout(net.pool("pool", after, 2), 24 * 2 * 2)


def recurrent(seed: int) -> SNNGraph:
    net = Net(seed, (2, 17, 17))
    after = net.conv("conv1", INPUT, 2, 12, stride=2)
    after = net.conv("conv2", after, 12, 24, stride=2)
    net.add("in", after, synapse=Dense(weight=net.uniform(64, 24 * 25)), norm=norm(64))
    net.layers.append(Layer(name="loop", synapse=Dense(weight=net.uniform(64, 64) / 2)))
    net.edges.append(Edge(source="hidden", target="loop", delay=1))
    net.add("hidden", ("in", "loop"), neuron=LIF(tau_s=TAU_S))
    return net.readout("hidden", 64)


# ---------------------------------------------------------------------------------------------------------------- data


def few(x: np.ndarray, y: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a fair draw, the same for every seed of the benchmark."""
    chosen = np.random.default_rng(seed).permutation(len(y))[:count]
    return x[chosen], y[chosen]


def with_test(train: tuple, test: tuple, name: str, seed: int) -> Dataset:
    """Split validation off the training samples by seed; the test split is the given one."""
    kind = "spikes" if train[0].dtype.kind in "biu" else "current"
    parts = split_at_random(Split(x=train[0], y=train[1], kind=kind), name=name, seed=seed)
    own = Split(x=np.concatenate([parts.train.x, parts.test.x]), y=np.concatenate([parts.train.y, parts.test.y]), kind=kind)
    return Dataset(name=name, train=own, val=parts.val, test=Split(x=test[0], y=test[1], kind=kind), classes=10)


def mnist(seed: int) -> Dataset:
    whole = load_data(SHARED / "mnist", steps=1, input_shape=(1, 28, 28))
    parts = []
    for split, count in ((whole.train, 2500), (whole.test, 4000)):
        x, y = few(np.asarray(split.x[:, 0], np.float32), np.asarray(split.y), count)
        x = x / max(float(x.max()), 1.0)
        parts.append((rate_code(x.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5)), 5), y))
    return with_test(*parts, "mnist", seed)


def nmnist(seed: int) -> Dataset:
    found = load_data(SHARED / "nmnist" / "nmnist_train1000.npz", steps=10, input_shape=(2, 34, 34), seed=seed)

    def halved(split: Split) -> Split:
        x = split.x.reshape(*split.x.shape[:3], 17, 2, 17, 2).sum(axis=(4, 6)) > 0
        return Split(x=x.astype(np.uint8), y=split.y)

    return Dataset(name="nmnist", train=halved(found.train), val=halved(found.val), test=halved(found.test), classes=10)


def cifar_images(split: str, count: int, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3, side, side) float32 0..1 and labels, read from the JPEG of each image."""
    import io

    from PIL import Image

    with np.load(SHARED / "cifar10" / "cifar10_jpeg_60000.npz", allow_pickle=False) as held:
        data, offset, label = held[f"{split}_jpeg"], held[f"{split}_offset"], held[f"{split}_label"]
    chosen = np.random.default_rng(0).permutation(len(label))[:count]
    images = [np.asarray(Image.open(io.BytesIO(data[offset[i] : offset[i + 1]].tobytes())).convert("RGB")) for i in chosen]
    x = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
    step = 32 // side
    return x.reshape(count, 3, side, step, side, step).mean(axis=(3, 5)), label[chosen].astype(np.int64)


def cifar(seed: int) -> Dataset:
    parts = []
    for split, count in (("train", 3000), ("test", 4000)):
        x, y = cifar_images(split, count)
        x = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
        parts.append((np.repeat(x[:, None], 4, axis=1), y))
    return with_test(*parts, "cifar", seed)


TASKS = {
    "digits": Task(lambda seed: digits(steps=6, seed=seed), lambda s: plain(s, (1, 8, 8), (12, 12, 24, 24, 32), (2, 4)), 20, 3),
    "mnist": Task(mnist, residual, 10, 2, episodes=40),
    "nmnist": Task(nmnist, recurrent, 20, 4),
    "cifar": Task(cifar, lambda seed: plain(seed, (3, 16, 16), (12, 12, 24, 24, 32), (2, 4)), 15, 3, episodes=40),
}
