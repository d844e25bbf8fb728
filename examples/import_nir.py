"""Read a NIR file of another framework, and run it as integers of a chip.

    python examples/import_nir.py [folder] [file.nir] [framework that wrote it]

Without a file, one is written here as snnTorch's exporter writes it: Leaky neurons (subtracting resets), dt of the file 1e-4 s.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nir
import numpy as np

import spear_deploy as sd

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "import_nir")
folder.mkdir(parents=True, exist_ok=True)
path, source = [*sys.argv[2:4], None, None][:2]
if path is None:
    rng = np.random.default_rng(0)
    beta, ones = 0.8, np.ones(16, np.float32)
    neuron = nir.LIF(tau=1e-4 / (1 - beta) * ones, r=1 / (1 - beta) * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    out = nir.LIF(tau=neuron.tau[:3], r=neuron.r[:3], v_leak=0 * ones[:3], v_threshold=ones[:3], v_reset=0 * ones[:3])
    first = nir.Affine(weight=rng.normal(0, 0.5, (16, 20)).astype(np.float32), bias=rng.normal(0, 0.05, 16).astype(np.float32))
    second = nir.Affine(weight=rng.normal(0, 0.5, (3, 16)).astype(np.float32), bias=np.zeros(3, np.float32))
    path, source = str(folder / "snntorch.nir"), "snntorch"
    nir.write(path, nir.NIRGraph.from_list(first, neuron, second, out))

net = sd.load(path, source=source)  # dt, reset and order of the update, which a NIR file does not store
print(net)
for note in net.metadata.get("assumptions", []):
    print(f"assumed: {note}")

ranked = sd.rank(net)
for one in ranked[:5]:
    print(f"{one.profile:14} {one.verdict:14} {'; '.join(one.missing[:2])}")

x = np.random.default_rng(1).random((50, 4, *net.input_shape)) < 0.2  # (T, B, *input)
run, chip = sd.simulate(net, x), sd.simulate(net, x, chip="loihi2")
figure, axes = plt.subplots(len(run.spikes), 1, figsize=(7, 5), sharex=True, layout="constrained", squeeze=False)
for axis, name in zip(axes[:, 0], run.spikes, strict=True):
    for shift, (label, one) in enumerate({"as stored": run, "integers of loihi2": chip}.items()):
        steps, neurons = np.nonzero(one.spikes[name][:, 0].reshape(len(x), -1))
        axis.scatter(steps, neurons + 0.4 * shift, s=6, label=label)
    axis.set(ylabel=name)
axes[0, 0].legend(loc="upper right")
figure.savefig(folder / "raster.png")
print(f"picture: {folder / 'raster.png'}")
