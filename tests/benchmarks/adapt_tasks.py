"""Trained networks of the adaptation benchmark, and their data.

digits     the network that is included     scikit-learn's digits, 8 x 8, rate-coded in 8 steps; 360 test images
mnist      two convolutions with pools      MNIST at 16 x 16, rate-coded in 5 steps; 2,500 to learn from, 1,000 test images
braille    a recurrent layer of 48 neurons  seven Braille letters by touch: 12 sensors, spikes at their changes; 70 test trials
skips      residual blocks, 1 x 1 skips     digits, LIF neurons of Norse; 360 test images
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_deploy.data import Dataset, Split, digits, load_data, rate_code, split_at_random
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import LIF, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.training.fit import train
from tests.benchmarks.search_tasks import SHARED, TAU_S, Net, few, norm, plain, with_test

LETTERS = ("Space", "A", "E", "I", "O", "U", "Y")
"""The classes that smaller Braille benchmarks have."""
CHANGE = 5
"""Change of a sensor's value, of 255, at which it sends a spike."""


@dataclass(frozen=True)
class AdaptTask:
    """Data and untrained network by seed, and epochs of training; no epochs: the network is trained already."""

    data: Callable[[int], Dataset]
    network: Callable[[int], SNNGraph]
    epochs: int = 0


def mnist(seed: int) -> Dataset:
    """Return MNIST with a border of 2, mean over 2 x 2, rate-coded."""
    whole = load_data(SHARED / "mnist", steps=1, input_shape=(1, 28, 28))
    parts = []
    for split, count in ((whole.train, 2500), (whole.test, 1000)):
        x, y = few(np.asarray(split.x[:, 0], np.float32), np.asarray(split.y), count)
        x = np.pad(x / max(float(x.max()), 1.0), ((0, 0), (0, 0), (2, 2), (2, 2)))
        parts.append((rate_code(x.reshape(-1, 1, 16, 2, 16, 2).mean(axis=(3, 5)), 5), y))
    return with_test(*parts, "mnist", seed)


def braille(seed: int) -> Dataset:
    """Return the trials of seven letters, every second step: 24 channels, a spike where a sensor rose or fell by `CHANGE`."""
    with np.load(SHARED / "braille" / "braille_taxel27.npz", allow_pickle=False) as held:
        taxel, label, letters = held["taxel"], held["label"], held["letters"].tolist()
        length = held["length"]
    numbers = [letters.index(letter) for letter in LETTERS]
    chosen = np.flatnonzero(np.isin(label, numbers))
    values = taxel[chosen].astype(np.int64)
    for trial, steps in zip(values, length[chosen], strict=True):
        trial[steps:] = trial[steps - 1]  # the padding
    x = code_changes(values[:, ::2])
    y = np.searchsorted(np.sort(numbers), label[chosen])
    return split_at_random(Split(x=x, y=y, kind="spikes"), name="braille", seed=seed)


def code_changes(values: np.ndarray) -> np.ndarray:
    """Return spikes (N, T, 2 · channels) of values (N, T, channels): one where a value left the last one sent by `CHANGE`."""
    spikes = np.zeros((*values.shape[:2], 2, values.shape[2]), np.uint8)
    sent = values[:, 0].copy()
    for t in range(values.shape[1]):
        difference = values[:, t] - sent
        for n, sign in enumerate((1, -1)):
            spikes[:, t, n] = sign * difference >= CHANGE
            sent += sign * CHANGE * spikes[:, t, n].astype(np.int64)
    return spikes.reshape(*values.shape[:2], -1)


def recurrent(seed: int) -> SNNGraph:
    """Return a layer of neurons that read themselves one step later."""
    net, hidden = Net(seed, (24,)), 48
    tau_s = 8 * TAU_S
    net.add("in", INPUT, synapse=Dense(weight=net.uniform(hidden, 24) * 3), norm=norm(hidden))
    net.layers.append(Layer(name="loop", synapse=Dense(weight=net.uniform(hidden, hidden) / 2)))
    net.edges.append(Edge(source="hidden", target="loop", delay=1))
    net.add("hidden", ("in", "loop"), neuron=LIF(tau_s=tau_s))
    return net.readout("hidden", hidden, len(LETTERS))


def skips(seed: int) -> SNNGraph:
    """Return a stem and two residual blocks, the second with a stride."""
    net = Net(seed, (1, 8, 8))
    after = net.conv("stem", INPUT, 1, 8)
    after = net.block("b1", after, 8, 8)
    after = net.block("b2", after, 8, 16, stride=2)
    return net.readout(net.pool("pool", after, 2), 16 * 2 * 2)


TASKS = {
    "digits": AdaptTask(lambda seed: load_data("digits", seed=seed), lambda seed: api.load("digits")),
    "mnist": AdaptTask(mnist, lambda seed: plain(seed, (1, 16, 16), (8, 16), (1, 2)), 10),
    "braille": AdaptTask(braille, recurrent, 120),
    "skips": AdaptTask(lambda seed: digits(steps=6, seed=seed), skips, 12),
}


def load_trained(name: str, seed: int, data: Dataset, folder: Path) -> SNNGraph:
    """Return the trained network of a task; from its file where there is one, else trained and written."""
    task, path = TASKS[name], folder / "trained" / f"{name}-{seed}.snn"
    if not task.epochs:
        return task.network(seed)
    if not path.exists():
        write_snn(train(task.network(seed), data, epochs=task.epochs, seed=seed), path)
    return read_snn(path)
