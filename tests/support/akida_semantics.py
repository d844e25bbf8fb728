"""Dense networks of 4-bit weights and 1-bit activations in akida's software back end; in an environment that has akida.

    python akida_semantics.py JOBS.npz SPIKES.npz

JOBS holds for each network n `n.x` (T, inputs) and by layer k `n.weights<k>` (outputs, inputs) and `n.thresholds<k>`; SPIKES gets
`n.spikes` (T, outputs): each time step is a frame, in order.
"""

from __future__ import annotations

import sys

import akida
import numpy as np


def main() -> None:
    """Run all networks."""
    with np.load(sys.argv[1]) as file:
        jobs = dict(file)
    spikes, n = {}, 0
    while f"{n}.x" in jobs:
        x, model, k = jobs[f"{n}.x"], akida.Model(), 0
        model.add(akida.InputData(input_shape=(1, 1, x.shape[1]), input_bits=1))
        while f"{n}.weights{k}" in jobs:
            weights, thresholds = jobs[f"{n}.weights{k}"], jobs[f"{n}.thresholds{k}"]
            layer = akida.FullyConnected(units=len(weights), weights_bits=4, act_bits=1)
            model.add(layer)
            layer.set_variable("weights", weights.T.reshape(1, 1, weights.shape[1], -1).astype(np.int8))
            layer.set_variable("threshold", thresholds.astype(np.int32))
            k += 1
        frames = x.astype(np.uint8).reshape(len(x), 1, 1, -1)
        outputs = [model.forward(frame[None]) for frame in frames]  # one after the other: a state would be kept
        spikes[f"{n}.spikes"] = np.concatenate(outputs).reshape(len(x), -1) != 0
        n += 1
    np.savez(sys.argv[2], **spikes)


if __name__ == "__main__":
    main()
