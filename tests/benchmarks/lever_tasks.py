"""Tasks of the levers benchmark alone: networks and data.

braille27  a recurrent layer of 96 neurons  27 Braille letters by touch: 12 sensors, spikes at their changes; 270 test trials
kws        convolutions along time          spoken words, 12 classes: MFCC, 10 x 49, a current in each of 4 steps; 200 test words
cifar32    VGG-like, a stem of stride 2     CIFAR-10 at 32 x 32, a current in each of 2 steps; 10,000 test images
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spear_deploy.data import Dataset, Split, split_at_random
from spear_deploy.interchange.snn_file import read_snn
from spear_deploy.network import LIF, AvgPool, Conv2d, Dense, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from tests.benchmarks.adapt_tasks import code_changes
from tests.benchmarks.search_tasks import SHARED, TAU_S, Net, norm
from tests.benchmarks.spear_cifar import SMALL_STEPS, VALIDATION, Cifar

LETTERS, WORDS = 27, 12
COPIES = 6
"""Training samples that one of KWS becomes, which has 680: shifted by up to `SHIFT` frames, scaled and with noise."""
SHIFT, SCALE, NOISE = 5, 0.15, 0.15
STEPS = 4


def braille(seed: int) -> Dataset:
    """Return the trials of all letters, every second step: 24 channels."""
    with np.load(SHARED / "braille" / "braille_taxel27.npz", allow_pickle=False) as held:
        taxel, label, length = held["taxel"].astype(np.int64), held["label"].astype(np.int64), held["length"]
    for trial, steps in zip(taxel, length, strict=True):
        trial[steps:] = trial[steps - 1]  # the padding
    return split_at_random(Split(x=code_changes(taxel[:, ::2]), y=label, kind="spikes"), name="braille27", seed=seed)


def recurrent(seed: int) -> SNNGraph:
    """Return a layer of 96 neurons that read themselves one step later."""
    net, hidden = Net(seed, (24,)), 96
    net.add("in", INPUT, synapse=Dense(weight=net.uniform(hidden, 24) * 3), norm=norm(hidden))
    net.layers.append(Layer(name="loop", synapse=Dense(weight=net.uniform(hidden, hidden) / 2)))
    net.edges.append(Edge(source="hidden", target="loop", delay=1))
    net.add("hidden", ("in", "loop"), neuron=LIF(tau_s=8 * TAU_S))
    return net.readout("hidden", hidden, LETTERS)


def kws(seed: int) -> Dataset:
    """Return the MFCC, standardised by coefficient; the training samples several times, changed at random."""
    with np.load(SHARED / "speech_commands_kws" / "kws01_mfcc_1000.npz", allow_pickle=False) as held:
        x, y = held["x"].astype(np.float32), held["y"].astype(np.int64)
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    channels = x.transpose(0, 2, 1)[:, None, :, :, None]  # (N, 1, coefficients, frames, 1)
    parts = split_at_random(Split(x=channels, y=y, kind="current"), name="kws", seed=seed)
    rng, train = np.random.default_rng(seed), parts.train
    copies = [train.x, *(np.stack([_change(sample, rng) for sample in train.x]) for _ in range(COPIES - 1))]
    more = Split(x=np.concatenate(copies), y=np.tile(train.y, COPIES), kind="current")
    splits = {name: _hold(split) for name, split in (("train", more), ("val", parts.val), ("test", parts.test))}
    return Dataset(name="kws", classes=WORDS, **splits)


def _change(sample: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a sample (1, coefficients, frames, 1), moved in time, its ends held."""
    frames = sample.shape[2]
    moved = sample[:, :, np.clip(np.arange(frames) - rng.integers(-SHIFT, SHIFT + 1), 0, frames - 1)]
    changed = moved * rng.uniform(1 - SCALE, 1 + SCALE) + rng.normal(0, NOISE, sample.shape)
    return np.asarray(changed, np.float32)


def _hold(split: Split) -> Split:
    return Split(x=np.repeat(split.x, STEPS, axis=1), y=split.y, kind=split.kind)


def over_time(seed: int) -> SNNGraph:
    """Return three convolutions along time, and a mean over its thirds before the readout."""
    net, after = Net(seed, (10, 49, 1)), INPUT
    for name, channels, width, kernel, stride in (("conv1", 10, 32, 7, 2), ("conv2", 32, 40, 5, 2), ("conv3", 40, 48, 5, 1)):
        synapse = Conv2d(weight=net.uniform(width, channels, kernel, 1), padding=(kernel // 2, 0), stride=(stride, 1))
        after = net.add(name, after, synapse=synapse, norm=norm(width), neuron=LIF(tau_s=TAU_S))
    return net.readout(net.add("pool", after, synapse=AvgPool(kernel_size=(4, 1))), 48 * 3, WORDS)


def cifar32(seed: int) -> Dataset:
    """Return half of the training images and all others, the same for every seed: validation is unseen by the trained network."""
    return Cifar("cpu", None, SMALL_STEPS).dataset((50_000 - VALIDATION) // 2, VALIDATION, 10_000)


def read_vgg6(out: Path) -> SNNGraph:
    """Return the network that `spear_cifar` trained.

    Raises:
        FileNotFoundError: it was not trained yet; with the command that does it.
    """
    path = out / "dense" / "vgg6-0" / "dense.snn"
    if not path.exists():
        command = "python -m tests.benchmarks.spear_cifar --net vgg6 --stage train --epochs 23 --plain 3 --bfloat16"
        raise FileNotFoundError(f"{path}: not there; train the network first: {command} --out {out / 'dense'} --minutes 30")
    return read_snn(path)
