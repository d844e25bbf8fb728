"""Train a small network on event-camera recordings, count its SynOps, rank chips.

    python examples/event_camera.py RECORDINGS [folder] [epochs]

RECORDINGS is N-MNIST: its folder (train/<label>/*.bin and test/), or an .npz of it (raw, offset, label); the environment
variable NMNIST works too. Other cameras: a folder of .aedat files by label. Nothing is downloaded.
"""

import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import spear_deploy as sd
from spear_deploy.data import load_data
from spear_deploy.network import LI, LIF, Conv2d, Dense, Layer, SumPool
from spear_deploy.network.graph import chain
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train

given = dict(enumerate(sys.argv))
recordings = given.get(1) or os.environ.get("NMNIST")
if not recordings:
    sys.exit("give the folder of N-MNIST (or an .npz of it) as the first argument, or in the variable NMNIST")
folder, epochs = Path(given.get(2, "event_camera")), int(given.get(3, 5))
folder.mkdir(parents=True, exist_ok=True)

events = load_data(recordings, steps=10)  # counts of events in ten equal stretches: (N, T, 2, 34, 34)
print(f"{len(events.train)} recordings to train on, {len(events.test)} to test, each {events.steps} × {events.input_shape}")

rng = np.random.default_rng(0)
conv = (rng.normal(size=(8, 2, 5, 5)) / np.sqrt(50)).astype(np.float32)
dense = (rng.normal(size=(10, 8 * 9 * 9)) / np.sqrt(648)).astype(np.float32)
layers = (
    Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))),
    Layer(name="conv", synapse=Conv2d(weight=conv, stride=(2, 2), padding=(2, 2)), neuron=LIF(tau_s=2e-3)),
    Layer(name="out", synapse=Dense(weight=dense, bias=np.zeros(10, np.float32)), neuron=LI(tau_s=2e-3)),
)
net = train(chain(layers, input_shape=events.input_shape), events, epochs=epochs)
test = evaluate(net, events.test)
print(f"accuracy {test.accuracy:.1%} after {epochs} epochs, {test.synops.total:,.0f} SynOps per recording")
for one in sd.rank(net)[:6]:
    print(f"{one.profile:14} {one.verdict:14} {'; '.join(one.missing[:2])}")

figure, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
for axis, sample, label in zip(axes.flat, events.test.x, events.test.y, strict=False):
    on, off = sample.sum(0)
    axis.imshow(on.astype(float) - off, cmap="RdBu", vmin=-5, vmax=5)
    axis.set(title=str(label), xticks=[], yticks=[])
figure.savefig(folder / "events.png")
print(f"picture: {folder / 'events.png'}")
