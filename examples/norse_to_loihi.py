"""Take a Norse model to Loihi 2: count SynOps, check, run integers, export.

    python examples/norse_to_loihi.py [folder]

The model is untrained: the example shows the steps, not an accuracy. Takes seconds.
"""

import sys

import norse.torch as nt
import numpy as np
import torch

import spear_deploy as sd

torch.manual_seed(0)
neuron = nt.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(0.2))
model = nt.SequentialState(
    torch.nn.Conv2d(1, 8, 3, padding=1),
    torch.nn.BatchNorm2d(8),
    nt.LIFBoxCell(neuron),
    torch.nn.AvgPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(8 * 4 * 4, 10),
    nt.LIBoxCell(nt.LIBoxParameters(tau_mem_inv=torch.tensor(500.0))),
)
folder = sys.argv[1] if len(sys.argv) > 1 else "norse_to_loihi"

net = sd.load(model, input_shape=(1, 8, 8))
print(net)

spikes = np.random.default_rng(0).random((8, 16, 1, 8, 8)) < 0.4  # (T, B, C, H, W)
print("SynOps per inference:", {name: round(n) for name, n in sd.count(net, spikes).synops_per_layer.items()})

run = sd.simulate(net, spikes, chip="loihi2")
print(sd.check(net, "loihi2", activity=run.counts))

certificate = sd.export(net, f"{folder}/network.net", to="netx", x=spikes)
print(f"{folder}/network.net read back by {certificate['reader']}: {certificate['mismatches']} spikes differ")
