"""Name the wave of an ECG in each step: train a recurrent network on labels of steps, prune it for Loihi 2, run its integers.

    python examples/ecg_waves.py QTDB_train.mat [folder] [epochs]

The file holds ECGs of QTDB as spikes of four channels, with a class for most steps (Yin, Corradi and Bohté 2021). Not downloaded.
"""

import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import norse.torch as nt
import numpy as np
import torch
from scipy.io import loadmat

import spear_deploy as sd
from spear_deploy.data import from_arrays
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train

WINDOW, RECORDINGS = 100, 150
given = dict(enumerate(sys.argv))
source = given.get(1) or os.environ.get("QTDB") or sys.exit("give QTDB_train.mat as the first argument, or in the variable QTDB")
folder, epochs = Path(given.get(2, "ecg_waves")), int(given.get(3, 20))

content = loadmat(source)  # x: (N, T, 4) spikes; y: (N, T, 6) one-hot, all 0 in a step without a label
labels = np.where(content["y"].any(-1), content["y"].argmax(-1), -1)
windows = [(n, slice(end - WINDOW, end)) for n in range(RECORDINGS) for end in range(WINDOW, labels.shape[1] + 1, WINDOW)]
windows = [(n, steps) for n, steps in windows if (labels[n, steps] >= 0).any()]
x, y = (np.stack([of[n, steps] for n, steps in windows]) for of in (content["x"], labels))
data = from_arrays({"x": x, "y": y, "group": [n for n, _ in windows]}, name="ecg")  # a recording lies in one split
print(data)
torch.manual_seed(0)
neuron = nt.LIFParameters(tau_mem_inv=torch.tensor(50.0), tau_syn_inv=torch.tensor(100.0), v_th=torch.tensor(0.3))
readout = nt.LIParameters(tau_mem_inv=torch.tensor(100.0), tau_syn_inv=torch.tensor(300.0))
model = nt.SequentialState(nt.LIFRecurrentCell(4, 48, p=neuron), torch.nn.Linear(48, 6), nt.LICell(readout))
net = train(sd.load(model, input_shape=(4,), decision="each"), data, epochs=epochs)
test = evaluate(net, data.test)
print(f"right in {test.accuracy:.1%} of the labelled steps, {test.synops.total:,.0f} SynOps per window")

pruned = sd.prune(net, "loihi2", data, synops="50%", epochs=epochs // 2, out=folder / "pruned")
accuracy, share = pruned["accuracy"], pruned["synops"]["achieved"] / test.synops.total
print(f"pruned to {share:.1%} of them: right in {accuracy['pruned']:.1%}, in loihi2's integers {accuracy['quantised']:.1%}")

busiest = data.test.x.sum(axis=(1, 2)).argmax()
x, wanted = data.test.x[busiest][:, None], data.test.y[busiest]  # (T, 1, 4), (T,)
chip = sd.simulate(sd.load(folder / "pruned" / "pruned.snn"), x, chip="loihi2")
figure, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
axes[0].eventplot([np.flatnonzero(channel) for channel in x[:, 0].T], linelengths=0.8)
axes[1].step(range(WINDOW), np.where(wanted < 0, np.nan, wanted), where="mid", label="label")
axes[1].step(range(WINDOW), chip.output[:, 0].argmax(axis=-1), where="mid", label="largest output of loihi2's integers", lw=1)
axes[1].set(xlabel="step", ylabel="class", yticks=range(6))
axes[1].legend(loc="lower right")
figure.savefig(folder / "waves.png")
print(f"picture: {folder / 'waves.png'}")
