"""Compare one network on four backends, layer by layer.

python examples/compare_backends.py [folder]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import spear_deploy as sd
from spear_deploy.data import load_data
from spear_deploy.pipeline.api import BackendChoice

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "compare_backends")
folder.mkdir(parents=True, exist_ok=True)
x = np.moveaxis(load_data("digits").test.x[:4], 0, 1)  # (T, B, C, H, W)

pairs = {
    "ours against Norse, floating point": (BackendChoice(net="digits"), BackendChoice(net="digits", backend="norse")),
    "ours against Lava, integers of loihi2": (
        BackendChoice(net="digits", chip="loihi2"),
        BackendChoice(net="digits", chip="loihi2", backend="lava"),
    ),
    "floating point against integers": (BackendChoice(net="digits"), BackendChoice(net="digits", chip="loihi2")),
}
table = {}
for title, (one, other) in pairs.items():
    layers = [layer for layer in sd.compare(one, other, x) if layer.what == "spikes"]
    table[title] = {layer.layer: layer.mismatches / layer.compared for layer in layers}
    for layer in layers:
        first = "" if layer.first is None else f", first at step {layer.first['step']}, neuron {layer.first['neuron']}"
        print(f"{title}: {layer.layer}: {layer.mismatches} of {layer.compared:,} spikes differ{first}")

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for shift, (title, shares) in enumerate(table.items()):
    axes.barh([i + 0.25 * shift for i in range(len(shares))], [100 * s for s in shares.values()], 0.25, label=title)
axes.set_yticks([i + 0.25 for i in range(len(shares))], list(shares))
axes.set(xlabel="per cent of the spikes that differ")
axes.legend()
figure.savefig(folder / "differences.png")
print(f"picture: {folder / 'differences.png'}")
