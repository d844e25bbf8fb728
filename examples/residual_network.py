"""A residual network: coupled channels, and equal spikes on Lava.

    python examples/residual_network.py [folder]

The weights are random: the example shows the structure, not an accuracy.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import spear_deploy as sd
from spear_deploy.network import LI, LIF, Conv2d, Dense, Layer
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.graph import Edge, SNNGraph

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "residual_network")
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)


def conv(name: str, inputs: int) -> Layer:
    weight = rng.normal(0.15, 0.4, (8, inputs, 3, 3)).astype(np.float32)
    return Layer(name=name, synapse=Conv2d(weight=weight, padding=(1, 1)), neuron=LIF(tau_s=2e-3))


out = Layer(name="out", synapse=Dense(weight=rng.normal(size=(4, 8 * 36)).astype(np.float32) / 10), neuron=LI(tau_s=2e-3))
pairs = [("input", "stem"), ("stem", "inner"), ("stem", "block"), ("inner", "block"), ("block", "out")]
net = SNNGraph(
    layers=(conv("stem", 2), conv("inner", 8), Layer(name="block", neuron=LIF(tau_s=2e-3)), out),
    edges=tuple(Edge(source=a, target=b) for a, b in pairs),
    input_shape=(2, 6, 6),
)
print(net)
for group in list_prunable_groups(net):
    print(f"pruned together: {group.name}, {group.channels} channels")

x = rng.random((20, 4, 2, 6, 6)) < 0.3  # (T, B, C, H, W)
print(sd.check(net, "loihi2", activity=sd.simulate(net, x).counts))
sides = sd.simulate(net, x, chip="loihi2"), sd.simulate(net, x, chip="loihi2", backend="lava")
differ = sum(int((sides[0].spikes[name] != sides[1].spikes[name]).sum()) for name in sides[0].spikes)
print(f"{differ} spikes differ between our simulator and Lava")

figure, axes = plt.subplots(len(sides[0].spikes), 1, figsize=(7, 6), sharex=True, layout="constrained")
for axis, (name, spikes) in zip(axes, sides[0].spikes.items(), strict=True):
    steps, neurons = np.nonzero(spikes[:, 0].reshape(len(x), -1))
    axis.scatter(steps, neurons, s=2)
    axis.set(ylabel=name)
axes[-1].set(xlabel="step")
figure.savefig(folder / "raster.png")
print(f"picture: {folder / 'raster.png'}")
