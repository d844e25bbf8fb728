"""Networks of one frame in akida's software back end; in an environment that has akida.

    python akida_frames.py JOBS.npz OUTPUTS.npz

JOBS holds the frames `x` (N, C, H, W) or (N, inputs) and by layer k its weights `weights<k>`, (O, I) or (O, I, k, k), and, but
for the last, `threshold<k>` and `act_step<k>` (O,), `stride<k>`; OUTPUTS gets `potentials` (N, outputs) of the last layer. akida
turns kernels round and pads at the end, so that maps enter mirrored on both axes.
"""

from __future__ import annotations

import sys

import akida
import numpy as np


def main() -> None:
    """Build the network and run all frames."""
    with np.load(sys.argv[1]) as file:
        job = dict(file)
    x = job["x"]
    x = x[:, :, ::-1, ::-1].transpose(0, 2, 3, 1) if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
    model = akida.Model()
    model.add(akida.InputData(input_shape=x.shape[1:], input_bits=4))
    k, is_map = 0, x.shape[1] > 1
    while f"weights{k}" in job:
        weights = job[f"weights{k}"].astype(np.int8)
        bits = {"weights_bits": 4, **({"act_bits": 4} if f"act_step{k}" in job else {"activation": False})}
        if weights.ndim == 4:
            stride = tuple(int(n) for n in job[f"stride{k}"])
            size = weights.shape[2:]
            layer = akida.Convolutional(
                filters=len(weights), kernel_size=size, kernel_stride=stride, padding=akida.Padding.Same, **bits
            )
            stored = weights.transpose(2, 3, 1, 0)
        else:
            layer = akida.FullyConnected(units=len(weights), **bits)
            if is_map:  # its inputs lie as (channel, y, x); akida's as (channel, x, y), mirrored
                height, width, channels = model.layers[-1].output_dims
                weights = weights.reshape(-1, channels, height, width)[:, :, ::-1, ::-1].transpose(0, 1, 3, 2)
            stored, is_map = weights.reshape(len(weights), -1).T[None, None], False
        model.add(layer)
        layer.set_variable("weights", np.ascontiguousarray(stored))
        if f"act_step{k}" in job:
            layer.set_variable("threshold", job[f"threshold{k}"].astype(np.int32))
            layer.set_variable("act_step", job[f"act_step{k}"].astype(np.float32))
        k += 1
    potentials = model.forward(np.ascontiguousarray(x).astype(np.uint8)).reshape(len(x), -1)
    model.map(akida.AKD1000(), hw_only=True)  # the whole network lies on the chip, or this fails
    np.savez(sys.argv[2], potentials=potentials)


if __name__ == "__main__":
    main()
