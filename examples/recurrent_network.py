"""A recurrent Norse network: count, check, run as integers, export to NIR.

    python examples/recurrent_network.py [folder]

The weights are random: the example shows the steps, not an accuracy.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import norse.torch as nt
import numpy as np
import torch

import spear_deploy as sd
from spear_deploy.pipeline.api import BackendChoice

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "recurrent_network")
folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
neuron = nt.LIFParameters(tau_mem_inv=torch.tensor(300.0), tau_syn_inv=torch.tensor(500.0), v_th=torch.tensor(0.2))
readout = nt.LIParameters(tau_mem_inv=torch.tensor(300.0), tau_syn_inv=torch.tensor(500.0))
model = nt.SequentialState(nt.LIFRecurrentCell(12, 32, p=neuron), torch.nn.Linear(32, 4), nt.LICell(readout))

net = sd.load(model, input_shape=(12,))
print(net)

x = np.random.default_rng(0).random((60, 8, 12)) < 0.25  # (T, B, inputs)
count = sd.count(net, x)
print({name: round(operations) for name, operations in count.synops_per_layer.items()}, "SynOps per inference")
print(sd.check(net, "loihi2", activity=sd.simulate(net, x).counts))

same = sd.export(net, folder / "network.nir", to="nir", x=x)
print(f"NIR read back: {same['mismatches']} spikes differ")
for layer in sd.compare(BackendChoice(net=net), BackendChoice(net=net, backend="norse"), x):
    far = f"{layer.mismatches} spikes differ" if layer.what == "spikes" else f"differs by {layer.largest:.1e} at most"
    print(f"ours against Norse: layer {layer.layer}: {far}")

run, chip = sd.simulate(net, x), sd.simulate(net, x, chip="loihi2")
figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
(name,) = run.spikes
for row, (which, one) in enumerate((("float", run), ("loihi2's integers", chip))):
    steps, neurons = np.nonzero(one.spikes[name][:, 0])
    axes[0].scatter(steps, neurons + 0.4 * row, s=4, label=which)
axes[0].legend(loc="upper right")
axes[0].set(ylabel=f"neuron of {name}")
axes[1].plot(run.output[:, 0])
axes[1].set(xlabel="step", ylabel="readout")
figure.savefig(folder / "raster.png")
print(f"picture: {folder / 'raster.png'}")
